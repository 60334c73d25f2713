"""What the configuration of every method shares."""

import os
from collections.abc import Mapping
from dataclasses import field, fields
from functools import cache
from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedConfig
from transformers.utils import logging

from .conditions import CONDITION_SPACES
from .deprecation import renamed_argument
from .embedding_space import LEARNED, EmbeddingSpace
from .errors import FmriModelsError
from .hub_repository import UploadedInSentences, uploading_errors_as_sentences
from .known_classes import find_model
from .names import check_name, did_you_mean, one_line
from .reading import checked, read_object
from .remote_code import LoadedByItsPackage, without_shim
from .saving import check_schema
from .version import __version__
from .weights import MAX_SIZE, check_configuration

logger = logging.get_logger(__name__)

CONFIG_SCHEMA = 1
SPACES = tuple(CONDITION_SPACES.values())
SIZE = (1, MAX_SIZE)
LAYERS = (0, 1000)
SHARE = (0, 1)
_FILE = "The model's config.json"
_MEND = "save the model again, or take another copy of its folder"
_Dtype = Literal["float64", "float32", "bfloat16", "float16"] | None
_TRANSFORMERS_FIELDS: dict[str, Any] = {
    "architectures": list[str] | None,
    "chunk_size_feed_forward": int,
    "dtype": _Dtype,
    "id2label": dict[str, str] | None,
    "is_encoder_decoder": bool,
    "label2id": dict[str, int] | None,
    "model_type": str,
    "output_hidden_states": bool | None,
    "problem_type": str | None,
    "return_dict": bool | None,
    "torch_dtype": _Dtype,
    "transformers_version": str | None,
}
# What else its base class reads of a file, or is there of earlier versions.
_TRANSFORMERS_ATTRIBUTES = (
    "attn_implementation", "experts_implementation", "name_or_path", "num_labels", "output_attentions",
    "tie_word_embeddings", "torchscript", "use_bfloat16", "use_cache",
)  # fmt: skip


@strict
class FmriConfig(LoadedByItsPackage, UploadedInSentences, PreTrainedConfig):
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
        encoder_hidden_states_space: The same for what a generator's cross-attention reads and has learned to read.
        time_embeds_space: The same for what is added to its time embedding.
        control_space: The same for what its control branch reads.
        guide_spaces: Guide ▶ the same, of decoded layers of networks such as `vgg19.conv1_1`; None if there are none.
        fmri_models_version: Version of the package that wrote the configuration.
        fmri_schema: Version of the configuration's layout.

    Attributes:
        ranges: Field ▶ the smallest and largest number that it (or each number of a list) may be.
        learned_conditions: Spaces of conditions that the method decodes and the image generator learns to read, such as
            `encoder_hidden_states_space`.
        decodes_targets: Whether the targets of training are what the method decodes, so that their spaces are its own;
            one that decodes learned conditions alone learns from pictures' latents and never gives any.
        decodes_guides: Whether the method decodes guides where its configuration has some.
        set_by_training: Fields of the method that training sets, so that nobody chooses them.
    """

    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {}
    set_by_training: ClassVar[tuple[str, ...]] = ()
    learned_conditions: ClassVar[tuple[str, ...]] = ()
    decodes_targets: ClassVar[bool] = True
    decodes_guides: ClassVar[bool] = False
    # What transformers' Trainer gathers is tensors with a row each, and these are scalars and layers by name.
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["losses", "guides"]

    subject_names: list[str] = field(default_factory=list)
    num_voxels: list[int] = field(default_factory=list)
    image_embedding_space: dict[str, Any] | None = None
    text_embedding_space: dict[str, Any] | None = None
    latent_space: dict[str, Any] | None = None
    encoder_hidden_states_space: dict[str, Any] | None = None
    time_embeds_space: dict[str, Any] | None = None
    control_space: dict[str, Any] | None = None
    guide_spaces: dict[str, Any] | None = None
    fmri_models_version: str = __version__
    fmri_schema: int = CONFIG_SCHEMA

    def __post_init__(self, **kwargs: Any) -> None:
        check_schema(self.fmri_schema, CONFIG_SCHEMA, _FILE)
        self._check_subjects()
        self._check_ranges()
        for name in SPACES:
            self.space(name)
        self._check_guides()
        self._warn_of_unknown(kwargs)
        super().__post_init__(**kwargs)

    @property
    def has_learned_conditions(self) -> bool:
        """Whether it decodes conditions that its image generator has learned to read together with it."""
        spaces = (self.space(name) for name in SPACES)
        return any(space is not None and space.encoder == LEARNED for space in spaces)

    @property
    def decodes_image_and_text(self) -> bool:
        """Whether pictures are drawn from decoded image and text embeddings at once."""
        return self.image_embedding_space is not None and self.text_embedding_space is not None

    @property
    def notes_on_training(self) -> list[str]:
        """What a report has to say of how the weights came about; methods that have something to say override it."""
        return []

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> Any:
        """Loads a configuration from a folder or a Hub repository; of this class itself, as that of its method.

        Args:
            pretrained_model_name_or_path: Folder, or repository id.
            **kwargs: Those of `PreTrainedConfig.from_pretrained`.

        Raises:
            FmriModelsError: It is of no method that is known here, or as in `from_dict`.
        """
        if cls is not FmriConfig:
            return super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        config_dict, _ = cls.get_config_dict(pretrained_model_name_or_path, **kwargs)
        model_type = config_dict.get("model_type")
        model_class = find_model(model_type) if isinstance(model_type, str) else None
        if model_class is None:
            raise FmriModelsError(
                f"{one_line(pretrained_model_name_or_path)} holds a network of the type "
                f"{one_line(repr(model_type), 80)}, which is of no method here; if another package has the method, "
                "install or import that package first."
            )
        return model_class.config_class.from_pretrained(pretrained_model_name_or_path, **kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """The configuration that a file holds.

        Raises:
            FmriModelsError: A value has another type or is out of range, or a key tells how to load or run the model.
        """
        if not isinstance(config_dict, dict):
            raise FmriModelsError(f"{_FILE} holds no JSON object; {_MEND}.")
        config_dict = without_shim(config_dict)
        check_schema(config_dict.get("fmri_schema", CONFIG_SCHEMA), CONFIG_SCHEMA, _FILE)
        check_configuration(config_dict, _FILE, own_fields=cls.own_fields())
        config_class: Any = cls
        checked(config_dict, _file_type(config_class), _FILE, _MEND)
        try:
            return super().from_dict(config_dict, **kwargs)
        except StrictDataclassError as error:
            raise FmriModelsError(f"{_FILE} is of no such model ({one_line(error, 200)}); {_MEND}.") from error

    @classmethod
    def own_fields(cls) -> frozenset[str]:
        """Names of the fields that the class has; what users add besides is theirs."""
        config_class: Any = cls
        return frozenset(each.name for each in fields(config_class))

    @classmethod
    def free_fields(cls) -> frozenset[str]:
        """Names of the fields that are the method's own and free to choose before training."""
        return cls.own_fields() - FmriConfig.own_fields() - set(cls.set_by_training)

    @classmethod
    def _dict_from_json_file(cls, json_file: str | os.PathLike) -> dict[str, Any]:
        return read_object(json_file, "model's configuration", _MEND)

    def _warn_of_unknown(self, others: Mapping[str, Any]) -> None:
        """The library keeps any attribute, so that what is no field is named and not refused."""
        for name in others:
            if not name.startswith("_") and name not in (*_TRANSFORMERS_FIELDS, *_TRANSFORMERS_ATTRIBUTES):
                hint = did_you_mean(name, self.own_fields())
                # The same file is read several times while a model is loaded.
                logger.warning_once(
                    f"{type(self).__name__} has no field {one_line(repr(name), 80)}, which is kept and changes "
                    f"nothing.{hint}"
                )

    def _check_ranges(self) -> None:
        for name, (low, high) in {"num_voxels": SIZE, **self.ranges}.items():
            value = getattr(self, name)
            for number in value if isinstance(value, list | tuple) else [value]:
                if number is not None and not low <= number <= high:
                    raise FmriModelsError(
                        f"The configuration has {one_line(number, 40)} as {name}; expected {low} to {high}."
                    )

    def _check_subjects(self) -> None:
        if len(self.subject_names) != len(self.num_voxels):
            raise FmriModelsError(
                f"The configuration has {len(self.subject_names)} subject_names and {len(self.num_voxels)} num_voxels; "
                "give one number of voxels for each subject, in the same order."
            )
        if len(set(self.subject_names)) != len(self.subject_names):
            raise FmriModelsError(f"subject_names has a name twice: {self.subject_names}; name each subject once.")
        for name in self.subject_names:
            check_name(name, "subject's name")

    def save_pretrained(self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs: Any) -> None:
        """Writes `config.json`.

        Args:
            save_directory: Folder.
            push_to_hub: Upload it, too, to `repo_id` or the folder's name.
            **kwargs: Those of `PreTrainedConfig.save_pretrained` and of `push_to_hub`.

        Raises:
            FmriModelsError: The Hub does not take it.
        """
        # As text, of which transformers takes the name of the repository.
        folder = os.fspath(save_directory)
        if not push_to_hub:
            super().save_pretrained(folder, **kwargs)
            return
        with uploading_errors_as_sentences(kwargs.get("repo_id") or os.path.basename(folder)):
            super().save_pretrained(folder, push_to_hub=True, **kwargs)

    @renamed_argument("kind", "name", since="0.1")
    def space(self, name: str) -> EmbeddingSpace | None:
        """The [`EmbeddingSpace`] of a name: `"image_embedding_space"`, `"text_embedding_space"` or `"latent_space"`."""
        values = getattr(self, name)
        return None if values is None else EmbeddingSpace.from_dict(values, f"The configuration's {name}")

    @property
    def guides(self) -> dict[str, EmbeddingSpace]:
        """Guide ▶ [`EmbeddingSpace`] of each that the method decodes."""
        stated = self.guide_spaces or {}
        return {
            name: EmbeddingSpace.from_dict(each, f"The configuration's guide {name}") for name, each in stated.items()
        }

    def _check_guides(self) -> None:
        places: dict[str, str] = {}
        for name in self.guide_spaces or {}:
            network, _, layer = str(name).partition(".")
            if not (network and layer):
                raise FmriModelsError(
                    f"guide_spaces has {one_line(repr(name), 80)}; expected names of a network and its layer, such as "
                    "'vgg19.conv1_1'."
                )
            check_name(name, "guide's name")
            # Scores are told by the name, and what they are measured on is found by the space.
            if (stated := self.guides[name].layer) != layer:
                raise FmriModelsError(
                    f"The configuration's guide {name} has the space of the layer {one_line(repr(stated), 80)}; "
                    f"expected that of {layer}: save the model again, or take another copy of the folder."
                )
            # Weights are named so, as PyTorch's names have no dots.
            other = places.setdefault(name.replace(".", "-"), name)
            if other != name:
                raise FmriModelsError(
                    f"guide_spaces has {other} and {name}, whose weights would have the same names; rename one."
                )
        if self.guides and not self.decodes_guides:
            raise FmriModelsError(
                f"{type(self).__name__} has guide_spaces ({one_line(next(iter(self.guides)), 80)} …), and its method "
                "decodes no guides; take the method linear, or leave guides out of the recipe's targets."
            )

    @property
    def voxels_by_subject(self) -> dict[str, int]:
        """Subject ▶ number of voxels that the model reads of it, in the order of `subject_names`."""
        return dict(zip(self.subject_names, self.num_voxels, strict=True))

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


@cache
def _file_type(config_class: Any) -> Any:
    """The fields of a configuration by their types; what users add besides is theirs."""
    from pydantic import ConfigDict, create_model

    # Types that are texts are transformers' own, or those of a package that has to check its fields itself.
    own = {each.name: each.type for each in fields(config_class) if not isinstance(each.type, str)}
    types = {**own, **_TRANSFORMERS_FIELDS}
    # Names of pydantic's own are none here, and a default is never used.
    aliases = {f"field_{number}": name for number, name in enumerate(types)}
    config = ConfigDict(extra="ignore", allow_inf_nan=False, arbitrary_types_allowed=True)
    specification: dict[str, Any] = {key: (types[name], _optional(name)) for key, name in aliases.items()}
    return create_model(config_class.__name__, __config__=config, **specification)


def _optional(name: str) -> Any:
    from pydantic import Field

    return Field(default=None, alias=name)
