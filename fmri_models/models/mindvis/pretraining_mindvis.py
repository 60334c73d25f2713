"""Sparse-coded masked brain modelling of MinD-Vis: voxels that are hidden are predicted from the others."""

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.utils import can_return_tuple

from ...draws import drawn_by_row
from ...errors import FmriModelsError
from ...modeling_fmri import SubjectIds
from ...modeling_outputs import FmriModelOutput
from ...original_checkpoint import Checkpoint
from .base_mindvis import MindVisPreTrainedModel, reset_positions
from .configuration_mindvis import MindVisConfig
from .convert_mindvis import load_pretraining
from .encoder_mindvis import MindVisEncoder
from .layers_mindvis import MindVisLayer, patches_of

# Above what noise is drawn from, so that the focus is hidden before all others.
_HIDDEN_FIRST = 1.1


@dataclass
class MindVisPreTrainingOutput(FmriModelOutput):
    """Output of [`MindVisForPreTraining`]; see [`FmriModelOutput`].

    Args:
        prediction: (B, patches, patch_size) predicted voxels, of visible patches too, on which it is not trained.
        mask: (B, patches) float, 1 where a patch was hidden.
        ids_restore: (B, patches) long, the place of each patch in the shuffled order.
        latent: (B, 1 + kept, hidden_size) of the encoder, the class token first.
    """

    prediction: torch.Tensor | None = None
    mask: torch.Tensor | None = None
    ids_restore: torch.Tensor | None = None
    latent: torch.Tensor | None = None


class MindVisDecoder(nn.Module):
    """A shallow transformer on the tokens of visible patches, with a learned token in the place of each hidden one."""

    def __init__(self, config: MindVisConfig) -> None:
        super().__init__()
        width = config.decoder_hidden_size
        self.initializer_range = config.initializer_range
        self.embed = nn.Linear(config.hidden_size, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position_embeddings = nn.Parameter(torch.zeros(1, config.num_patches + 1, width), requires_grad=False)
        self.layers = nn.ModuleList(
            MindVisLayer(config, width, config.decoder_num_attention_heads)
            for _ in range(config.decoder_num_hidden_layers)
        )
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.prediction = nn.Linear(width, config.patch_size)

    def reset_parameters(self) -> None:
        """Those of no module of their own."""
        init.normal_(self.mask_token, std=self.initializer_range)
        reset_positions(self.position_embeddings)

    def forward(self, latent: torch.Tensor, ids_restore: torch.Tensor) -> torch.Tensor:
        """(B, 1 + kept, hidden_size), (B, patches) ▶ (B, patches, patch_size)."""
        tokens = self.embed(latent)
        batch_size, num_patches = ids_restore.shape
        hidden = self.mask_token.to(tokens).expand(batch_size, num_patches + 1 - tokens.shape[1], -1)
        # The class token stays before the patches.
        places = F.pad(ids_restore + 1, (1, 0))
        shuffled = torch.cat([tokens, hidden], dim=1)
        tokens = shuffled.gather(1, places[..., None].expand(-1, -1, tokens.shape[2])) + self.position_embeddings
        for layer in self.layers:
            tokens = layer(tokens)
        return cast(torch.Tensor, self.prediction(self.norm(tokens))[:, 1:])


def masking_noise(
    config: MindVisConfig, batch_size: int, device: torch.device, generator: torch.Generator | None = None
) -> torch.Tensor:
    """(B, patches) what decides which patches are hidden, the largest first; a configured focus more often.

    Args:
        config: Names the patches, the share that is hidden, and the focus.
        batch_size: B.
        device: Where the noise goes.
        generator: Source of the draw, on the CPU; None draws on the device.
    """
    drawn_on = device if generator is None else generator.device
    noise = drawn_by_row(torch.rand, (batch_size, config.num_patches), generator, device=drawn_on)
    if config.focus_range is not None:
        first, last = (voxel // config.patch_size for voxel in config.focus_range)
        weights = torch.full((config.num_patches,), 1 - float(config.focus_rate), device=drawn_on)
        weights[first:last] = float(config.focus_rate)
        num_hidden = config.num_patches - num_kept(config.num_patches, config.mask_ratio)
        if num_hidden:

            def hidden(size: tuple[int, int], generator: torch.Generator | None) -> torch.Tensor:
                return weights.expand(size).multinomial(num_hidden, generator=generator)

            noise.scatter_(1, drawn_by_row(hidden, noise.shape, generator), _HIDDEN_FIRST)
    return noise.to(device)


def num_kept(num_patches: int, mask_ratio: float) -> int:
    """How many patches stay visible, by the arithmetic of the original, whose rounding decides about one of them."""
    return int(num_patches * (1 - mask_ratio))


def masked_modelling(
    encoder: MindVisEncoder,
    decoder: MindVisDecoder,
    fmri: torch.Tensor,
    noise: torch.Tensor,
    mask_ratio: float | None = None,
    seen: torch.Tensor | None = None,
) -> MindVisPreTrainingOutput:
    """Hides patches and predicts their voxels (Chen et al., 2023, 3.2).

    Args:
        encoder: Sees the visible patches.
        decoder: Predicts all.
        fmri: (B, V) processed voxels, which are predicted.
        noise: (B, patches); those with the least stay visible.
        mask_ratio: Share of the patches that are hidden; None is the configuration's.
        seen: (B, V) what the encoder sees instead of `fmri`, such as voxels of which some are set to zero.

    Raises:
        FmriModelsError: The noise has another shape, or the ratio is no share.
    """
    config = encoder.config
    mask_ratio = config.mask_ratio if mask_ratio is None else mask_ratio
    if not 0 <= mask_ratio <= 1:
        raise FmriModelsError(f"mask_ratio is {mask_ratio}; expected a share from 0 to 1.")
    if noise.shape != (len(fmri), config.num_patches):
        raise FmriModelsError(
            f"noise has shape {tuple(noise.shape)}; expected ({len(fmri)}, {config.num_patches}), a number a patch."
        )
    kept = num_kept(config.num_patches, mask_ratio)
    ids_shuffle = noise.argsort(dim=1)
    ids_restore = ids_shuffle.argsort(dim=1)
    mask = (ids_restore >= kept).float()
    latent = encoder.encode_visible(fmri if seen is None else seen, ids_shuffle[:, :kept])
    prediction = decoder(latent, ids_restore)
    errors = (prediction.float() - patches_of(fmri.float(), config.patch_size)).square().mean(dim=-1)
    # Without a hidden patch the sum is zero, and so is the loss.
    loss = (errors * mask).sum() / mask.sum().clamp(min=1)
    return MindVisPreTrainingOutput(
        loss=loss,
        losses={"masked": loss},
        prediction=prediction,
        mask=mask,
        ids_restore=ids_restore,
        latent=latent,
    )


class MindVisForPreTraining(MindVisPreTrainedModel):
    """The encoder with the decoder of masked modelling, which learns from fMRI alone.

    Codes of places are not trained.

    Example:
        >>> model(torch.randn(2, 4656)).loss
        tensor(1.2345, grad_fn=<DivBackward0>)
    """

    def __init__(self, config: MindVisConfig) -> None:
        super().__init__(config)
        self.encoder = MindVisEncoder(config)
        self.encoder.position_embeddings.requires_grad_(False)
        self.decoder = MindVisDecoder(config)
        self.post_init()

    @classmethod
    def from_original(cls, checkpoint: Checkpoint, **config_overrides: Any) -> "MindVisForPreTraining":
        """Reads a published checkpoint (`fmri_encoder.pth`).

        Args:
            checkpoint: Path, whole checkpoint or state dict.
            **config_overrides: Fields of [`MindVisConfig`]; with another `num_voxels=[…]`, codes of places are
                interpolated to the nearest, and `num_attention_heads=`, `decoder_num_attention_heads=` are what no
                shape tells.

        Returns:
            The model in eval mode.

        Raises:
            FmriModelsError: The file is unreadable, or keys are missing or unknown.
        """
        return cast(MindVisForPreTraining, load_pretraining(cls, checkpoint, config_overrides))

    @can_return_tuple
    def forward(
        self,
        fmri: torch.Tensor,
        subject_ids: SubjectIds = None,
        noise: torch.Tensor | None = None,
        mask_ratio: float | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_loss: bool = True,
    ) -> MindVisPreTrainingOutput:
        """Hides patches and predicts their voxels.

        Args:
            fmri: (B, V) processed voxels.
            subject_ids: (B,) indices or names; only checked.
            noise: (B, patches) what decides which are hidden, the largest first; None draws it.
            mask_ratio: Share of the patches that are hidden; None is the configuration's.
            output_hidden_states: Changes nothing: [`MindVisEncoder`] returns its own.
            output_attentions: Likewise, with a warning.
            return_loss: Whether the loss is returned.

        Returns:
            [`MindVisPreTrainingOutput`]; the loss is the mean squared error of hidden voxels.
        """
        self.check_subjects(fmri, subject_ids)
        self.warn_of_no_attentions(output_attentions)
        if noise is None:
            noise = masking_noise(self.config, len(fmri), fmri.device)
        output = masked_modelling(self.encoder, self.decoder, fmri, noise, mask_ratio)
        if not return_loss:
            output.loss = output.losses = None
        return output
