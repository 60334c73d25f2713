"""Where an image generator's weights are, for whoever names a generator instead of containing it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..embedding_space import EmbeddingSpace

SPACES = ("image_embedding_space", "text_embedding_space", "latent_space")


@dataclass(frozen=True)
class GeneratorSource:
    """A generator by name, by place, or both.

    Args:
        name: Name in `IMAGE_GENERATORS`; None asks the place which class it holds.
        repository: Folder or Hub repository; None takes the one that the class was published in.
        revision: Branch, tag or commit of a Hub repository.
        subfolder: Folder inside the repository.
        dtype: `"float32"`, `"bfloat16"` or `"float16"`; None takes that of the pipeline.
        options: Arguments of the generator's own `from_source`, such as `{"antialias": True}`.
        spaces: What the generator takes, `"image_embedding_space"` and so on ▶ [`EmbeddingSpace`] as a dictionary, so
            that a model of another space is refused without loading the generator. Empty where unknown.
    """

    name: str | None = None
    repository: str | None = None
    revision: str | None = None
    subfolder: str | None = None
    dtype: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    spaces: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        place = self.repository
        if place is not None and self.subfolder is not None:
            place = f"{place}/{self.subfolder}"
        named = " of ".join(part for part in (self.name, place) if part is not None)
        return named if self.revision is None else f"{named} (revision {self.revision})"

    def space(self, kind: str) -> EmbeddingSpace | None:
        """The stated [`EmbeddingSpace`] of `kind`; None if none is stated, or if the generator takes none."""
        values = self.spaces.get(kind)
        return None if values is None else EmbeddingSpace.from_dict(dict(values))

    def to_dict(self) -> dict[str, Any]:
        """The fields that say something, for JSON."""
        return {key: value for key, value in asdict(self).items() if value}
