"""A CLIP of the open_clip project as a component of an image generator."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn

from ..errors import FmriModelsError
from ..offloading import onloaded, place_of, with_hooks
from ..original_checkpoint import check_finite
from ..reading import check_regular_file
from .generator_folder import take_network_dtype

# Parts of open_clip's configurations that describe a plain pair of towers; others belong to captioning models and such.
_CONFIG_KEYS = frozenset({"embed_dim", "vision_cfg", "text_cfg", "quick_gelu"})
# Says only how open_clip arranges the text tower inside its own class, and counts positions, which are constants.
_IRRELEVANT_CONFIG_KEYS = frozenset({"custom_text"})
_TEXT_TOWER_PREFIXES = ("text_projection", "positional_embedding", "token_embedding", "transformer.", "ln_final.")
_DERIVED_KEYS = ("attn_mask", "text.attn_mask", "text.transformer.embeddings.position_ids", "logit_bias")


class OpenClipModel(ModelMixin, ConfigMixin):
    """A CLIP of open_clip, saved and loaded by diffusers in safetensors; open_clip itself is imported when it is built.

    Both towers have to be open_clip's own transformers with a class token (ViT-L-14, ViT-H-14, ViT-bigG-14 …).

    Args:
        model_config: What open_clip's configuration files hold: `embed_dim`, `vision_cfg`, `text_cfg`, and
            `quick_gelu` where it applies (OpenAI's weights need it, and nothing in the weights tells).

    Raises:
        FmriModelsError: open_clip isn't installed, or the towers are not what this class knows.
    """

    model: Any

    @register_to_config
    def __init__(self, model_config: dict[str, Any]) -> None:
        super().__init__()
        self.model = _build(model_config)
        # Makes both towers return their tokens beside the pooled output.
        self.model.visual.output_tokens = True
        self.model.text.output_tokens = True
        self.eval()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> Self:
        """Loads a saved network; the arguments are those of `ModelMixin.from_pretrained`."""
        take_network_dtype(kwargs, pretrained_model_name_or_path, f"{cls.__name__}.from_pretrained")
        return super().from_pretrained(pretrained_model_name_or_path, **kwargs)

    @classmethod
    def from_weights(cls, architecture: str, weights: str | Path) -> "OpenClipModel":
        """Builds a network of open_clip's list and loads its weights from a file.

        Args:
            architecture: Name of the configuration, such as `"ViT-L-14"`; OpenAI's weights go with the names that end
                in `-quickgelu`.
            weights: A .safetensors file, or a PyTorch checkpoint of plain tensors, with or without `module.` prefixes
                and with the text tower in either of open_clip's two places.

        Returns:
            The network in eval mode, float32.

        Raises:
            FmriModelsError: There is no such configuration, or the file is unreadable or of another network.
        """
        config = _open_clip().get_model_config(architecture)
        if config is None:
            raise FmriModelsError(
                f"open_clip has no network {architecture!r}; open_clip.list_models() names those that it has."
            )
        own = {name: value for name, value in config.items() if name not in _IRRELEVANT_CONFIG_KEYS}
        model = cls(own)
        model.load_original(_read_weights(Path(weights)), str(weights))
        return model

    def load_original(self, state_dict: dict[str, torch.Tensor], source: str = "the state dict") -> None:
        """Takes over weights in open_clip's own layout.

        Args:
            state_dict: Tensors by open_clip's names.
            source: What an error calls them.

        Raises:
            FmriModelsError: Keys are missing or unknown, or a shape differs; the first is named.
        """
        renamed = {_own_key(key): value for key, value in state_dict.items()}
        renamed = {key: value for key, value in renamed.items() if key not in _DERIVED_KEYS}
        own = self.model.state_dict()
        for problem, keys in (("lacks", own.keys() - renamed.keys()), ("has the unknown", renamed.keys() - own.keys())):
            if keys:
                raise FmriModelsError(
                    f"{source} {problem} {', '.join(sorted(keys)[:3])} ({len(keys)} keys in all), so it is of another "
                    "network; choose its own architecture."
                )
        for key, value in renamed.items():
            if value.shape != own[key].shape:
                raise FmriModelsError(
                    f"{source} has {key} of shape {tuple(value.shape)}, the network {tuple(own[key].shape)}; choose "
                    "its own architecture."
                )
        check_finite(renamed)
        self.model.load_state_dict(renamed)

    @property
    def image_size(self) -> int:
        """Height and width of the vision tower's input in pixels."""
        return int(self.model.visual.image_size[0])

    @property
    def embed_dim(self) -> int:
        """Width of the shared space."""
        return int(self.model.visual.output_dim)

    @property
    def num_image_tokens(self) -> int:
        """Tokens of a picture, with the class token."""
        rows, columns = self.model.visual.grid_size
        return int(rows * columns) + 1

    @property
    def context_length(self) -> int:
        """Tokens of a caption."""
        return int(self.model.context_length)

    @with_hooks
    def image_tokens(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(N, 3, size, size) preprocessed ▶ (N, T, D) float32, normalised and projected, class token first."""
        pooled, tokens = self._vision(pixel_values)
        with onloaded(self.model.visual):
            return torch.cat([pooled[:, None], tokens @ self.model.visual.proj], dim=1).float()

    @with_hooks
    def image_embeds(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(N, 3, size, size) preprocessed ▶ (N, D) float32, not normalised."""
        return self._vision(pixel_values)[0].float()

    @with_hooks
    def text_tokens(self, input_ids: torch.Tensor) -> torch.Tensor:
        """(N, T) ids ▶ (N, T, D) float32, normalised and projected."""
        with self._attention_weights():
            tokens = self.model.text(input_ids.to(place_of(self)))[1]
        with onloaded(self.model.text):
            projection = self.model.text.text_projection
            return (projection(tokens) if isinstance(projection, nn.Linear) else tokens @ projection).float()

    def end_positions(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Position of each caption's end token, (N,) long, by the text tower's own rule."""
        if self.model.text.pool_type == "eos":
            return (input_ids == self.model.text.eos_id).int().argmax(dim=1)
        return input_ids.argmax(dim=1)

    def tokenize(self, texts: Sequence[str]) -> torch.Tensor:
        """Captions ▶ (N, T) long, cut off or padded with zeros to `context_length`."""
        return _open_clip().tokenizer.SimpleTokenizer(context_length=self.context_length)(list(texts))

    @contextmanager
    def _attention_weights(self) -> Iterator[None]:
        """Brings those that PyTorch's attention reads past the forward of the layer that has them."""
        with ExitStack() as brought:
            for module in self.modules():
                if isinstance(module, nn.MultiheadAttention):
                    brought.enter_context(onloaded(module.out_proj))
            yield

    def _vision(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with self._attention_weights():
            return self.model.visual(pixel_values.to(place_of(self), self.dtype))


def _build(model_config: dict[str, Any]) -> Any:
    unknown = model_config.keys() - _CONFIG_KEYS
    if unknown:
        raise FmriModelsError(
            f"This open_clip configuration has {', '.join(sorted(unknown))}, so it is no plain CLIP; choose one such "
            "as ViT-L-14."
        )
    if model_config.get("text_cfg", {}).get("hf_tokenizer_name"):
        raise FmriModelsError(
            "This open_clip configuration has a tokenizer of its own from the Hub; choose one with CLIP's, such as "
            "ViT-L-14."
        )
    for tower in ("vision_cfg", "text_cfg"):
        # What open_clip would fetch from elsewhere, by names that a file states.
        foreign = [key for key in model_config.get(tower, {}) if key.startswith(("hf_", "timm_"))]
        if foreign:
            raise FmriModelsError(
                f"This open_clip configuration has {foreign[0]}, which makes a part of it come from another project; "
                "choose one of CLIP's own parts, such as ViT-L-14."
            )
    model = _open_clip().CustomTextCLIP(**model_config)
    visual, text = model.visual, model.text
    has_class_token = getattr(visual, "pool_type", None) == "tok" and visual.attn_pool is None
    if not has_class_token or visual.final_ln_after_pool:
        raise FmriModelsError(
            f"The vision tower of this open_clip configuration is a {type(visual).__name__} without a class token in "
            "the end, so it gives no CLIP tokens; choose one such as ViT-L-14."
        )
    if getattr(text, "pool_type", None) not in ("argmax", "eos") or text.cls_emb is not None:
        raise FmriModelsError(
            f"The text tower of this open_clip configuration is a {type(text).__name__} that does not end in an end "
            "token, so it gives no CLIP tokens; choose one such as ViT-L-14."
        )
    return model


def _open_clip() -> Any:
    try:
        import open_clip
    except ImportError as error:
        raise FmriModelsError(
            "Embeddings of open_clip need the package open_clip_torch, which this environment lacks; install it with "
            "pip install open_clip_torch."
        ) from error
    return open_clip


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    check_regular_file(path, "file", "give the network's weights")
    try:
        values = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise FmriModelsError(f"{path} can't be read as weights ({_first_line(error)}); fetch it again.") from error
    except Exception as error:
        # weights_only refuses foreign objects with an UnpicklingError.
        raise FmriModelsError(f"{path} holds more than tensors ({_first_line(error)}); it was not loaded.") from error
    values = values.get("state_dict", values) if isinstance(values, dict) else values
    if not isinstance(values, dict) or not all(isinstance(value, torch.Tensor) for value in values.values()):
        raise FmriModelsError(f"{path} holds no tensors by name; give a state dict.")
    return values


def _own_key(key: str) -> str:
    """The name inside `CustomTextCLIP`: the older layout has the text tower beside the vision tower."""
    key = key.removeprefix("module.")
    return f"text.{key}" if key.startswith(_TEXT_TOWER_PREFIXES) else key


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
