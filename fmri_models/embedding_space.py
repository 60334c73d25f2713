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
