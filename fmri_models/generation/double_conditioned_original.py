"""The diffusion model and the autoencoder in a checkpoint of MinD-Vis, as networks of diffusers."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from diffusers import UNet2DConditionModel, VQModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint

from ..errors import FmriModelsError
from ..names import listed, one_line
from ..original_checkpoint import check_tensors

UNET_PREFIX = "model.diffusion_model."
VAE_PREFIX = "first_stage_model."
# It is spelt so there; the brain model has it.
TIME_CONDITION_PREFIX = f"{UNET_PREFIX}time_embed_condtion."
_CODEBOOK = "quantize.embedding.weight"
_MEND = "take another copy of the checkpoint"


def unet_from_original(state: Mapping[str, torch.Tensor], sample_size: int = 64, num_heads: int = 1) -> Any:
    """The UNet of a state dict, float32, in evaluation mode; the small network for the time condition is left there.

    Args:
        state: Names begin with `model.diffusion_model.`.
        sample_size: Side of a latent.
        num_heads: Heads of each attention.

    Raises:
        FmriModelsError: Tensors are missing, unknown, of other shapes or not finite.
    """
    own = {n: v for n, v in state.items() if n.startswith(UNET_PREFIX) and not n.startswith(TIME_CONDITION_PREFIX)}
    config = {**unet_configuration(own), "sample_size": sample_size, "attention_head_dim": num_heads}
    has_time_condition = any(name.startswith(TIME_CONDITION_PREFIX) for name in state)
    converted = _converted(
        lambda: convert_ldm_unet_checkpoint(dict(own), {**config, "class_embed_type": None}), own, "UNet"
    )
    network = UNet2DConditionModel(**config, class_embed_type="identity" if has_time_condition else None)
    return _loaded(network, converted, "UNet")


def unet_configuration(own: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """What the shapes of a UNet's tensors say of its sizes, as arguments of `UNet2DConditionModel`."""
    first = _tensor(own, f"{UNET_PREFIX}input_blocks.0.0.weight", "UNet")
    levels = _levels_of_unet(own)
    attends = [attention for _, _, attention in levels]
    width = next((v.shape[1] for n, v in own.items() if n.endswith("attn2.to_k.weight")), None)
    if width is None or first.ndim != 4:
        raise FmriModelsError(f"The UNet of the checkpoint has no cross-attention, as that of MinD-Vis has; {_MEND}.")
    return {
        "in_channels": first.shape[1],
        "out_channels": _tensor(own, f"{UNET_PREFIX}out.2.weight", "UNet").shape[0],
        "down_block_types": tuple("CrossAttnDownBlock2D" if each else "DownBlock2D" for each in attends),
        "up_block_types": tuple("CrossAttnUpBlock2D" if each else "UpBlock2D" for each in reversed(attends)),
        "block_out_channels": tuple(channels for channels, _, _ in levels),
        "layers_per_block": levels[0][1],
        "cross_attention_dim": width,
        "norm_eps": 1e-5,
    }


def vae_from_original(state: Mapping[str, torch.Tensor]) -> Any:
    """The autoencoder of a state dict, float32, in evaluation mode.

    Args:
        state: Names begin with `first_stage_model.`.

    Raises:
        FmriModelsError: Tensors are missing, unknown, of other shapes or not finite.
    """
    own = {name: values for name, values in state.items() if name.startswith(VAE_PREFIX)}
    config = vae_configuration(own)

    def convert() -> dict[str, torch.Tensor]:
        # diffusers forgets the codebook.
        return {**convert_ldm_vae_checkpoint(dict(own), config), _CODEBOOK: own[VAE_PREFIX + _CODEBOOK]}

    return _loaded(VQModel(**config), _converted(convert, own, "autoencoder"), "autoencoder")


def vae_configuration(own: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """What the shapes of an autoencoder's tensors say of its sizes, as arguments of `VQModel`."""
    what = "autoencoder"
    codebook = _tensor(own, VAE_PREFIX + _CODEBOOK, what)
    found: dict[int, dict[int, int]] = {}
    for name, values in own.items():
        if matched := re.fullmatch(r"first_stage_model\.encoder\.down\.(\d+)\.block\.(\d+)\.conv1\.weight", name):
            found.setdefault(int(matched[1]), {})[int(matched[2])] = values.shape[0]
    if sorted(found) != list(range(len(found))) or not found:
        raise FmriModelsError(f"The autoencoder of the checkpoint has no levels, or not all of them; {_MEND}.")
    return {
        "in_channels": _tensor(own, f"{VAE_PREFIX}encoder.conv_in.weight", what).shape[1],
        "out_channels": _tensor(own, f"{VAE_PREFIX}decoder.conv_out.weight", what).shape[0],
        "down_block_types": ("DownEncoderBlock2D",) * len(found),
        "up_block_types": ("UpDecoderBlock2D",) * len(found),
        "block_out_channels": tuple(found[level][0] for level in sorted(found)),
        "layers_per_block": len(found[0]),
        "latent_channels": _tensor(own, f"{VAE_PREFIX}decoder.conv_in.weight", what).shape[1],
        "num_vq_embeddings": codebook.shape[0],
        "vq_embed_dim": codebook.shape[1],
        "scaling_factor": 1.0,
    }


def _levels_of_unet(own: Mapping[str, torch.Tensor]) -> list[tuple[int, int, bool]]:
    """Channels, residual blocks and whether there is attention, of each level."""
    levels: list[tuple[int, int, bool]] = []
    channels, blocks, attention, index = 0, 0, False, 1
    while any(name.startswith(f"{UNET_PREFIX}input_blocks.{index}.") for name in own):
        start = f"{UNET_PREFIX}input_blocks.{index}."
        residual = own.get(f"{start}0.out_layers.3.weight")
        if residual is None:
            _tensor(own, f"{start}0.op.weight", "UNet")
            levels.append((channels, blocks, attention))
            blocks = 0
        else:
            channels, blocks = residual.shape[0], blocks + 1
            attention = any(name.startswith(f"{start}1.") for name in own)
        index += 1
    levels.append((channels, blocks, attention))
    if any(blocks != levels[0][1] or not blocks for _, blocks, _ in levels):
        raise FmriModelsError(f"The UNet of the checkpoint has levels of different depth; {_MEND}.")
    return levels


def _tensor(own: Mapping[str, torch.Tensor], name: str, what: str) -> torch.Tensor:
    if not isinstance(own.get(name), torch.Tensor):
        raise FmriModelsError(
            f"The checkpoint has no {name}, so it holds no {what} of MinD-Vis, or not all of it; expected its "
            "finetuned.pth or checkpoint_best.pth."
        )
    return own[name]


def _converted(
    convert: Callable[[], dict[str, torch.Tensor]], own: Mapping[str, torch.Tensor], what: str
) -> dict[str, torch.Tensor]:
    try:
        converted = convert()
    except KeyError as error:
        name = str(error.args[0] if error.args else "")
        raise FmriModelsError(f"The {what} of the checkpoint lacks {one_line(name, 120)}; {_MEND}.") from error
    # What was converted lies where it lay.
    places = {values.data_ptr() for values in converted.values()}
    unknown = [name for name, values in own.items() if values.data_ptr() not in places]
    if unknown:
        raise FmriModelsError(f"The {what} of the checkpoint has {listed(unknown)}, which is not known; {_MEND}.")
    return converted


def _loaded(network: torch.nn.Module, converted: Mapping[str, torch.Tensor], what: str) -> torch.nn.Module:
    check_tensors(converted, network.state_dict(), type(network).__name__, what=f"checkpoint's {what}")
    network.load_state_dict({name: values.float() for name, values in converted.items()})
    return network.eval()
