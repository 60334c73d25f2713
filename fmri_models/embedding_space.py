"""What a vector is: the statement that target caches, models and image generators compare before they exchange one."""

import operator
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

from .errors import FmriModelsError
from .names import check_line, one_line

# Far above every embedding and latent there is; a larger one is a damaged number.
MAX_VALUES = 2**28
MAX_AXES = 8
# The encoder of conditions that an image generator has learned to read together with a brain model.
LEARNED = "learned"


@dataclass(frozen=True)
class EmbeddingSpace:
    """Where a vector comes from and how it was scaled.

    Args:
        encoder: Repository or name of the network, or `"pixels"`.
        revision: Commit or content hash of its weights; None where there are none.
        layer: Which output, such as `"projected_tokens"` or `"latent"`.
        shape: Shape of one vector without the batch dimension.
        normalisation: What was done to the output, such as `"cls_norm"` or `"channel_standardised"`.
        preprocessing: What was done to the picture before, such as `"64 bicubic antialias"`.
    """

    encoder: str
    layer: str
    shape: tuple[int, ...]
    normalisation: str = "none"
    preprocessing: str = "none"
    revision: str | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "shape" and not (field.name == "revision" and value is None):
                check_line(value, f"{field.name} of an embedding space")
        object.__setattr__(self, "shape", self._checked_shape(self.shape))

    @staticmethod
    def _checked_shape(shape: Any) -> tuple[int, ...]:
        expected = f"expected 1 to {MAX_AXES} whole numbers from 1 that make at most {MAX_VALUES} values"
        sizes = []
        for size in shape if isinstance(shape, list | tuple) else ():
            if isinstance(size, bool) or not hasattr(size, "__index__") or operator.index(size) < 1:
                raise FmriModelsError(f"The shape of an embedding space has {one_line(repr(size), 80)}; {expected}.")
            sizes.append(operator.index(size))
        if not 1 <= len(sizes) <= MAX_AXES:
            raise FmriModelsError(f"The shape of an embedding space is {one_line(repr(shape), 80)}; {expected}.")
        total = 1
        for size in sizes:
            total *= size
        if total > MAX_VALUES:
            raise FmriModelsError(f"The shape of an embedding space is {one_line(repr(shape), 80)}; {expected}.")
        return tuple(sizes)

    @property
    def size(self) -> int:
        """Number of values in one vector."""
        size = 1
        for length in self.shape:
            size *= length
        return size

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "shape": list(self.shape)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], what: str = "An embedding space") -> "EmbeddingSpace":
        """The space that a file states.

        Args:
            values: The fields.
            what: What states them, as the beginning of a sentence.

        Raises:
            FmriModelsError: A field is missing, unknown, or of another type.
        """
        if not isinstance(values, Mapping):
            raise FmriModelsError(f"{what} is {one_line(repr(values), 80)}; expected the fields of a space.")
        known = {field.name for field in fields(cls)}
        unknown = [key for key in values if key not in known]
        if unknown:
            raise FmriModelsError(
                f"{what} has the unknown field {one_line(unknown[0], 80)!r}; expected {', '.join(sorted(known))}."
            )
        missing = [field.name for field in fields(cls) if field.default is MISSING and field.name not in values]
        if missing:
            raise FmriModelsError(f"{what} has no {missing[0]}; it states what a vector is, so none can be left out.")
        return cls(**values)

    def require_equal(
        self,
        other: "EmbeddingSpace",
        own_name: str,
        other_name: str,
        mend: str = "use the generator that the model was trained for",
    ) -> None:
        """Refuses two sides that mean different things by a vector; `mend` says what else to do than to train again.

        Raises:
            FmriModelsError: Names the first field that differs on both sides.
        """
        for field in fields(self):
            own_value, other_value = getattr(self, field.name), getattr(other, field.name)
            if own_value != other_value:
                raise FmriModelsError(
                    f"{own_name} and {other_name} mean different things by an embedding: {field.name} is "
                    f"{own_value!r} in {own_name} and {other_value!r} in {other_name}; {mend}, or train again."
                )


def clip_image_tokens_space() -> EmbeddingSpace:
    """All projected tokens of CLIP ViT-L/14's vision tower: MindEye's target and Versatile Diffusion's condition.

    (257, 768), class token first; every token is divided by the norm of the picture's class token. The published
    training reduced pictures to 224 pixels without antialiasing.
    """
    return EmbeddingSpace(
        encoder="openai/clip-vit-large-patch14",
        layer="projected_tokens",
        shape=(257, 768),
        normalisation="cls_norm",
        preprocessing="224 bicubic, centre crop",
    )


def clip_text_tokens_space() -> EmbeddingSpace:
    """All projected tokens of CLIP ViT-L/14's text tower: Versatile Diffusion's condition by captions.

    (77, 768), padded to full length; every token is divided by the norm of the caption's end token.
    """
    return EmbeddingSpace(
        encoder="openai/clip-vit-large-patch14/text",
        layer="projected_tokens",
        shape=(77, 768),
        normalisation="eos_norm",
        preprocessing="padded to full length",
    )


def clip_pooled_space(encoder: str, width: int, preprocessing: str = "none") -> EmbeddingSpace:
    """CLIP's embedding of a whole picture as its vision tower projects it, its norm kept.

    Args:
        encoder: Repository of the vision tower's weights.
        width: Number of values.
        preprocessing: What was done to the picture before.
    """
    return EmbeddingSpace(encoder, layer="pooled", shape=(width,), preprocessing=preprocessing)


def clip_hidden_text_space(encoder: str, num_tokens: int, width: int) -> EmbeddingSpace:
    """All tokens of the last layer of CLIP's text tower after its last norm: Stable Diffusion's condition by captions.

    Args:
        encoder: Repository of the text tower's weights, or where they are inside of one.
        num_tokens: Tokens to which captions are padded.
        width: Width of a token.
    """
    return EmbeddingSpace(
        encoder, layer="last_hidden_state", shape=(num_tokens, width), preprocessing="padded to full length"
    )


def stable_diffusion_latent_space(size: int = 512) -> EmbeddingSpace:
    """The most likely latent of Stable Diffusion's autoencoder (four channels, an eighth of the picture's side).

    It is the mode of the posterior times the autoencoder's scaling factor .18215, by which Rombach et al. (2022) bring
    latents to unit variance. The autoencoders that come with Stable Diffusion 1, its image variations and Versatile
    Diffusion are the same.

    Args:
        size: Height and width of the pictures.
    """
    return EmbeddingSpace(
        encoder="CompVis/stable-diffusion-v1-4/vae",
        layer="latent_mode",
        shape=(4, size // 8, size // 8),
        normalisation="times 0.18215",
        preprocessing=f"{size}x{size} RGB in [-1, 1]",
    )
