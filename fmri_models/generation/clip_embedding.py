"""How CLIP embeds pictures and captions: preprocessing, projected tokens, pooled embeddings and their norms."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch.nn import functional as F

from ..errors import FmriModelsError
from ..names import one_line
from ..offloading import onloaded, place_of
from .open_clip_model import OpenClipModel

# Mean and standard deviation of RGB in [0, 1] over CLIP's training pictures (Radford et al. 2021, released code).
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

# `eos_token_id` of CLIP configurations that were written before the tokenizer's real one was recorded; the end token is
# the largest id of a caption there.
_UNRECORDED_END_TOKEN = 2


@dataclass(frozen=True)
class ClipPreprocessing:
    """From pictures to what a CLIP's vision tower takes.

    The shorter side is resized to `size`, the middle is cut out, and colours are standardised. Antialiasing changes
    embeddings wherever pictures are reduced (and a little where they are enlarged, since PyTorch's bicubic kernel is
    another one with it); whoever compares embeddings has to agree on it. MindEye's published targets come from bicubic
    resizing without it, Pillow and open_clip's own transform have it.

    Args:
        size: Height and width of the result in pixels.
        interpolation: Method of resizing.
        antialias: Whether the method smooths before it reduces a picture.
        mean: Mean of the three channels in units of [0, 1].
        std: Standard deviation of the three channels in units of [0, 1].
    """

    size: int = 224
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    antialias: bool = True
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD

    def __call__(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Prepares pictures.

        Args:
            pixel_values: (N, 3, H, W) float in [0, 1], of any size.

        Returns:
            (N, 3, size, size) float32, or float64 where the pictures are.

        Raises:
            FmriModelsError: The pictures have another shape.
        """
        if pixel_values.ndim != 4 or pixel_values.shape[1] != 3 or not pixel_values.is_floating_point():
            raise FmriModelsError(
                f"CLIP takes float pictures of shape (N, 3, height, width); got {pixel_values.dtype} of "
                f"{tuple(pixel_values.shape)}; repeat the channel of grey pictures three times."
            )
        if pixel_values.dtype != torch.float64:
            pixel_values = pixel_values.float()
        cropped = self._cropped(self._resized(pixel_values))
        mean, std = cropped.new_tensor(self.mean), cropped.new_tensor(self.std)
        return (cropped - mean[:, None, None]) / std[:, None, None]

    @property
    def description(self) -> str:
        """The text for `EmbeddingSpace.preprocessing`; colour statistics are told where they are not CLIP's own."""
        antialias = " antialias" if self.antialias else ""
        text = f"{self.size} {self.interpolation}{antialias}, centre crop"
        if (tuple(self.mean), tuple(self.std)) == (CLIP_MEAN, CLIP_STD):
            return text
        numbers = [",".join(f"{value:g}" for value in values) for values in (self.mean, self.std)]
        return f"{text}, mean {numbers[0]} std {numbers[1]}"

    def _resized(self, pixel_values: torch.Tensor) -> torch.Tensor:
        height, width = pixel_values.shape[2:]
        if min(height, width) == self.size:
            return pixel_values
        scale = self.size / min(height, width)
        shape = [self.size if side == min(height, width) else int(side * scale) for side in (height, width)]
        return F.interpolate(pixel_values, shape, mode=self.interpolation, antialias=self.antialias)

    def _cropped(self, pixel_values: torch.Tensor) -> torch.Tensor:
        top, left = (round((side - self.size) / 2) for side in pixel_values.shape[2:])
        return pixel_values[:, :, top : top + self.size, left : left + self.size]


def project_image_tokens(image_encoder: Any, pixel_values: torch.Tensor) -> torch.Tensor:
    """All tokens of the vision tower's last layer, normalised and projected as CLIP does with the first one alone.

    Args:
        image_encoder: A `CLIPVisionModelWithProjection`, a `CLIPModel`, or an [`OpenClipModel`].
        pixel_values: (N, 3, H, W), preprocessed.

    Returns:
        (N, T, D) float32, class token first.
    """
    if isinstance(image_encoder, OpenClipModel):
        return image_encoder.image_tokens(pixel_values)
    with onloaded(image_encoder):
        hidden = _vision_output(image_encoder, pixel_values).last_hidden_state
        return image_encoder.visual_projection(image_encoder.vision_model.post_layernorm(hidden)).float()


def pooled_image_embeds(image_encoder: Any, pixel_values: torch.Tensor) -> torch.Tensor:
    """CLIP's image embedding, not normalised.

    Args:
        image_encoder: As in `project_image_tokens`.
        pixel_values: (N, 3, H, W), preprocessed.

    Returns:
        (N, D) float32.
    """
    if isinstance(image_encoder, OpenClipModel):
        return image_encoder.image_embeds(pixel_values)
    with onloaded(image_encoder):
        return image_encoder.visual_projection(_vision_output(image_encoder, pixel_values).pooler_output).float()


def divide_by_cls_norm(tokens: torch.Tensor) -> torch.Tensor:
    """Divides all tokens of a picture by the norm of its class token (MindEye's and Versatile Diffusion's space).

    Args:
        tokens: (N, T, D), class token first.

    Returns:
        (N, T, D); the class token has norm 1, the others need not.
    """
    return tokens / tokens[:, :1].norm(dim=-1, keepdim=True)


def token_ids(tokenizer: Any, texts: Sequence[str], text_config: Any) -> torch.Tensor:
    """Captions as the numbers of their tokens, each padded or cut to the text tower's length.

    Args:
        tokenizer: The text tower's.
        texts: N captions.
        text_config: The tower's configuration.

    Returns:
        (N, T) long.

    Raises:
        FmriModelsError: The tokenizer is none of this tower's: it fails, or gives numbers that the tower does not know.
    """
    mend = "the tokenizer was changed, or is another network's: load it again from where the text tower is from"
    length, num_known = text_config.max_position_embeddings, text_config.vocab_size
    try:
        tokens = tokenizer(list(texts), padding="max_length", truncation=True, max_length=length, return_tensors="pt")
    # A changed tokenizer raises whatever its parts do, bare Exceptions of its library in Rust among them.
    except Exception as error:
        raise FmriModelsError(f"The tokenizer can't read captions ({one_line(error, 200)}); {mend}.") from error
    input_ids = tokens["input_ids"]
    if input_ids.numel() and not 0 <= int(input_ids.min()) <= int(input_ids.max()) < num_known:
        raise FmriModelsError(
            f"The tokenizer gives the token {int(input_ids.max())} and the text tower has {num_known}; {mend}."
        )
    return input_ids


def project_text_tokens(text_encoder: Any, input_ids: torch.Tensor) -> torch.Tensor:
    """All tokens of the text tower's last layer, normalised and projected as CLIP does with the end token alone.

    Args:
        text_encoder: A `CLIPTextModelWithProjection`, a `CLIPModel`, or an [`OpenClipModel`].
        input_ids: (N, T) long.

    Returns:
        (N, T, D) float32.
    """
    if isinstance(text_encoder, OpenClipModel):
        return text_encoder.text_tokens(input_ids)
    with onloaded(text_encoder):
        hidden = text_encoder.text_model(input_ids=input_ids.to(place_of(text_encoder))).last_hidden_state
        return text_encoder.text_projection(hidden).float()


def pooled_text_embeds(text_encoder: Any, input_ids: torch.Tensor) -> torch.Tensor:
    """CLIP's text embedding, not normalised.

    Args:
        text_encoder: As in `project_text_tokens`.
        input_ids: (N, T) long.

    Returns:
        (N, D) float32.
    """
    tokens = project_text_tokens(text_encoder, input_ids)
    return _rows_at(tokens, end_positions(text_encoder, input_ids))


def end_positions(text_encoder: Any, input_ids: torch.Tensor) -> torch.Tensor:
    """Position of each caption's end token, (N,) long, by the rule of the tower's own pooling.

    Args:
        text_encoder: As in `project_text_tokens`.
        input_ids: (N, T) long.
    """
    if isinstance(text_encoder, OpenClipModel):
        return text_encoder.end_positions(input_ids)
    end_token = text_encoder.text_model.eos_token_id
    if end_token == _UNRECORDED_END_TOKEN:
        return input_ids.argmax(dim=1)
    return (input_ids == end_token).int().argmax(dim=1)


def divide_by_end_norm(tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Divides all tokens of a caption by the norm of its end token.

    Args:
        tokens: (N, T, D).
        positions: (N,) position of each caption's end token.

    Returns:
        (N, T, D).
    """
    return tokens / _rows_at(tokens, positions).norm(dim=-1)[:, None, None]


def _vision_output(image_encoder: Any, pixel_values: torch.Tensor) -> Any:
    return image_encoder.vision_model(pixel_values=pixel_values.to(place_of(image_encoder), image_encoder.dtype))


def _rows_at(tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    return tokens[torch.arange(len(tokens), device=tokens.device), positions.to(tokens.device)]
