"""What the configuration of every method shares."""

from dataclasses import field
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .embedding_space import EmbeddingSpace
from .errors import FmriModelsError
from .saving import check_schema
from .version import __version__

CONFIG_SCHEMA = 1


@strict
class FmriConfig(PreTrainedConfig):
    """Base of the configurations of all methods.

    Args:
        subject_names: Names of the subjects. This list is the only order of subjects there is: a subject's id is its
            index here.
        num_voxels: Number of voxels that the model reads of each subject, in the order of `subject_names` (after the
            processor's selection and pooling).
        image_embedding_space: [`EmbeddingSpace`] of the decoded image embeddings as a dictionary; None if the method
            decodes none.
        text_embedding_space: The same for text embeddings.
        latent_space: The same for low-level latents.
        fmri_models_version: Version of the package that wrote the configuration.
        fmri_schema: Version of the configuration's layout.
    """

    subject_names: list[str] = field(default_factory=list)
    num_voxels: list[int] = field(default_factory=list)
    image_embedding_space: dict[str, Any] | None = None
    text_embedding_space: dict[str, Any] | None = None
    latent_space: dict[str, Any] | None = None
    fmri_models_version: str = __version__
    fmri_schema: int = CONFIG_SCHEMA

    def __post_init__(self, **kwargs: Any) -> None:
        check_schema(self.fmri_schema, CONFIG_SCHEMA, "The model's config.json")
        self._check_subjects()
        super().__post_init__(**kwargs)

    def _check_subjects(self) -> None:
        if len(self.subject_names) != len(self.num_voxels):
            raise FmriModelsError(
                f"The configuration has {len(self.subject_names)} subject_names and {len(self.num_voxels)} num_voxels; "
                "give one number of voxels for each subject, in the same order."
            )
        if len(set(self.subject_names)) != len(self.subject_names):
            raise FmriModelsError(f"subject_names has a name twice: {self.subject_names}; name each subject once.")

    def space(self, kind: str) -> EmbeddingSpace | None:
        """The [`EmbeddingSpace`] of `kind`: `"image_embedding_space"`, `"text_embedding_space"` or `"latent_space"`."""
        values = getattr(self, kind)
        return None if values is None else EmbeddingSpace.from_dict(values)

    def subject_index(self, name: str) -> int:
        """The id of a subject.

        Raises:
            FmriModelsError: The subject is unknown; the message names those that are known.
        """
        if name not in self.subject_names:
            raise FmriModelsError(
                f"Subject {name!r} is unknown to this model; it knows {', '.join(self.subject_names) or 'none'}."
            )
        return self.subject_names.index(name)
