"""What a vector is: the statement that target caches, models and image generators compare before they exchange one."""

from dataclasses import asdict, dataclass, fields
from typing import Any

from .errors import FmriModelsError


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
        object.__setattr__(self, "shape", tuple(int(size) for size in self.shape))

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
    def from_dict(cls, values: dict[str, Any]) -> "EmbeddingSpace":
        return cls(**values)

    def require_equal(self, other: "EmbeddingSpace", own_name: str, other_name: str) -> None:
        """Refuses two sides that mean different things by a vector.

        Raises:
            FmriModelsError: Names the first field that differs on both sides.
        """
        for field in fields(self):
            own_value, other_value = getattr(self, field.name), getattr(other, field.name)
            if own_value != other_value:
                raise FmriModelsError(
                    f"{own_name} and {other_name} mean different things by an embedding: {field.name} is "
                    f"{own_value!r} in {own_name} and {other_value!r} in {other_name}; use the generator that the "
                    "model was trained for, or train again."
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
