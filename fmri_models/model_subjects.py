"""Adding, saving and loading of one subject of a brain model."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import save_file
from torch import nn
from transformers.utils import logging

from .adapters import name_adapted_layers
from .configuration_fmri import FmriConfig
from .errors import FmriModelsError
from .hub_repository import split_push_options
from .names import check_name, one_line
from .offloading import offloaded_like, weights_in_place
from .saving import merged_folder
from .subject_folder import (
    SUBJECT_ADAPTER_FOLDER,
    SUBJECT_WEIGHTS_FILE,
    SubjectRecord,
    base_digests,
    is_base,
    no_longer_needed,
    read_layers,
    size_of,
    subject_folder,
    subject_state,
    to_precision,
    upload_subject,
)
from .subject_modules import refuse_unnamed, subject_modules
from .unchanged import unchanged_on_errors
from .weights import MAX_SIZE

logger = logging.get_logger(__name__)


class HasSubjects:
    """What every brain model can do with single subjects."""

    config: FmriConfig
    has_subject_layers: ClassVar[bool]

    def add_subject(self, name: str, num_voxels: int) -> None:
        """Adds a subject, the last one then, with new layers of its own; they are initialised as in a new model.

        The layers have the precision and the place of the others. A method without layers of subjects gets the name
        alone.

        Args:
            name: Name of the subject.
            num_voxels: Number of voxels that the model reads of it, as a processor gives them.

        Raises:
            FmriModelsError: The name is there or is none, the number is none, or the method keeps its subjects' layers
                in a way of its own.
        """
        self._check_new_subject(name, num_voxels)
        model: Any = self
        layers = {}
        for place, container in subject_modules(model).items():
            layers[place] = container.new_layer(num_voxels)
            layers[place].apply(model._init_weights)
        with unchanged_on_errors([model], what_names_subjects(model)):
            self._put_subject(name, num_voxels, layers)

    def save_subject(
        self,
        name: str,
        directory: str | os.PathLike,
        dtype: torch.dtype | str | None = None,
        push_to_hub: bool = False,
        **kwargs: Any,
    ) -> int:
        """Saves one subject's layers, for other copies of this base.

        Args:
            name: The subject.
            directory: Folder; what it has of a subject saved before is replaced, everything else stays.
            dtype: Of the saved weights, such as `torch.float16`; None leaves theirs.
            push_to_hub: Upload the folder, too, to `repo_id` or the folder's name, with a card.
            **kwargs: Those of `push_to_hub`: `repo_id`, `private`, `token`, `permission` and the like.

        Returns:
            Size of what was written, in bytes.

        Raises:
            FmriModelsError: The subject is unknown, the method has no layers of subjects, values are not finite in that
                precision, the system refuses to write, or the Hub does not take it: the folder is written then.
        """
        permission = kwargs.pop("permission", None)
        push_options = split_push_options(kwargs, method="save_subject")
        with merged_folder(directory, no_longer_needed) as partial:
            self.write_subject(name, partial, dtype)
            size = size_of(partial)
        if push_to_hub:
            upload_subject(directory, push_options, permission)
        return size

    def write_subject(
        self, name: str, folder: Path, dtype: torch.dtype | str | None = None, has_processor: bool = False
    ) -> None:
        """Writes one subject's layers into an empty folder, for [`save_subject`] and that of pipelines.

        Args:
            name: The subject.
            folder: The folder.
            dtype: As in [`save_subject`].
            has_processor: Whether its processor's statistics are written, too.
        """
        model: Any = self
        self.config.subject_index(name)
        self._check_can_be_alone(has_processor)
        with weights_in_place(model):
            state = to_precision(subject_state(model, name), checked_dtype(dtype), f"The subject {name}")
            base = base_digests(model, self.config, model.dtype)
            has_adapter = self.write_subject_adapter(name, folder / SUBJECT_ADAPTER_FOLDER, checked_dtype(dtype))
        save_file(state, folder / SUBJECT_WEIGHTS_FILE, metadata={"format": "pt"})
        count = self.config.voxels_by_subject[name]
        SubjectRecord(self.config.model_type, name, count, base, has_processor, has_adapter).save(folder)

    def load_subject(self, pretrained_subject_name_or_path: str | os.PathLike, **kwargs: Any) -> str:
        """Adds a subject that `save_subject` has written, of this model or of another copy of its base.

        Args:
            pretrained_subject_name_or_path: Folder, or repository id.
            **kwargs: How files are fetched: `revision`, `token`, `cache_dir` and the like.

        Returns:
            The subject's name.

        Raises:
            FmriModelsError: There is no subject, it is of another method or another base, its name is there already, or
                its tensors are missing, unexpected, of another shape, or not finite. The model then is as before.
        """
        folder = subject_folder(os.fspath(pretrained_subject_name_or_path), kwargs)
        record, layers = self.read_subject(folder)
        self.take_subject(folder, record, layers)
        return record.subject

    def read_subject(self, folder: Path) -> tuple[SubjectRecord, dict[str, nn.Module]]:
        """What a folder holds of a subject, checked against this model, which stays as it is; see [`load_subject`]."""
        model: Any = self
        record = SubjectRecord.of_folder(folder)
        what = f"The subject {one_line(record.subject, 80)} in {one_line(folder)}"
        if record.method != self.config.model_type:
            raise FmriModelsError(
                f"{what} belongs to a model of the type {one_line(repr(record.method), 80)}; this is a "
                f"{type(self).__name__} ({self.config.model_type!r}): load it into the base that it was trained with."
            )
        self._check_can_be_alone(record.has_processor)
        self._check_new_subject(record.subject, record.num_voxels)
        with weights_in_place(model):
            if not is_base(record, model, self.config, model.dtype):
                raise FmriModelsError(
                    f"{what} belongs to another base: the weights that subjects share, or the spaces that they decode "
                    f"into, are not those of this {type(self).__name__}; load it into the base that it was trained "
                    "with."
                )
        return record, read_layers(folder, record, subject_modules(model))

    def take_subject(self, folder: Path, record: SubjectRecord, layers: Mapping[str, nn.Module]) -> None:
        """Adds what [`read_subject`] has read; if it can't be added, the model is as before."""
        model: Any = self
        with unchanged_on_errors([model], what_names_subjects(model)):
            if record.has_adapter or (folder / SUBJECT_ADAPTER_FOLDER).exists():
                self.read_subject_adapter(record.subject, folder / SUBJECT_ADAPTER_FOLDER)
            self._put_subject(record.subject, record.num_voxels, layers)

    def write_subject_adapter(self, name: str, folder: Path, dtype: torch.dtype | None = None) -> bool:
        """Writes the PEFT adapter on shared weights that belongs to a subject; a class that keeps such overrides it.

        Args:
            name: The subject.
            folder: Where it goes, which is made only if there is one.
            dtype: Of its weights; None leaves theirs.

        Returns:
            Whether there is one.
        """
        return False

    def read_subject_adapter(self, name: str, folder: Path) -> None:
        """Takes the PEFT adapter on shared weights that belongs to a subject; a class that keeps such overrides it.

        Args:
            name: The subject, which the model does not have yet.
            folder: Where the adapter is.

        Raises:
            FmriModelsError: It can't be taken.
        """
        raise FmriModelsError(
            f"The subject {name} in {one_line(folder.parent)} has an adapter on the shared weights, which "
            f"{type(self).__name__} does not take; load it with a version of fmri_models that does."
        )

    def _check_new_subject(self, name: str, num_voxels: int) -> None:
        check_name(name, "subject's name")
        if name in self.config.subject_names:
            raise FmriModelsError(
                f"This model has a subject {name!r} already; give the new one another name, or take a copy of the base "
                "without it."
            )
        if isinstance(num_voxels, bool) or not isinstance(num_voxels, int) or not 1 <= num_voxels <= MAX_SIZE:
            raise FmriModelsError(
                f"num_voxels is {one_line(repr(num_voxels), 40)}; expected a whole number from 1 to {MAX_SIZE}."
            )
        model: Any = self
        if not self.has_subject_layers:
            width = max(self.config.num_voxels, default=num_voxels)
            if num_voxels != width:
                raise FmriModelsError(
                    f"{type(self).__name__} has no layers of subjects and reads patterns of {width} columns of each; "
                    f"{name} has {num_voxels}: bring its patterns to {width} columns by the processor."
                )
            return
        if not subject_modules(model):
            raise FmriModelsError(
                f"{type(self).__name__} keeps its subjects' layers in a way of its own, so that none can be added; the "
                "method has to make them with fmri_models.encoders.subject_layers.SubjectLayers."
            )
        refuse_unnamed(model, self.config.subject_names)

    def _check_can_be_alone(self, has_processor: bool) -> None:
        """Refuses a subject's folder in which there would be nothing, or not all, that belongs to the subject.

        Of a method that reads all subjects by the same weights, that is the processor's statistics.
        """
        if not self.has_subject_layers:
            if has_processor:
                return
            raise FmriModelsError(
                f"{type(self).__name__} reads all subjects by the same weights and has no layers of a subject; save it "
                "with its processor's statistics (save_subject() of the pipeline), or save the model itself."
            )
        model: Any = self
        if not subject_modules(model):
            raise FmriModelsError(
                f"{type(self).__name__} keeps its subjects' layers in a way of its own, so that they can't be saved "
                "or loaded alone; the method has to make them with fmri_models.encoders.subject_layers.SubjectLayers."
            )
        refuse_unnamed(model, self.config.subject_names)

    def _put_subject(self, name: str, num_voxels: int, layers: Mapping[str, nn.Module]) -> None:
        model: Any = self
        # By what their patterns find now, adapters would be on the new layers when they are loaded again.
        name_adapted_layers(model)
        for place, container in subject_modules(model).items():
            layer = _like_the_others(layers[place], container)
            container.append(name, num_voxels, layer)
        for config in _configurations(model):
            config.subject_names = [*config.subject_names, name]
            config.num_voxels = [*config.num_voxels, num_voxels]


def remove_subjects(model: nn.Module, names: Sequence[str]) -> None:
    """Takes subjects out of a brain model, with their layers; the others keep their order.

    Args:
        model: The model, which is changed.
        names: Some of its subjects.
    """
    if not names:
        return
    for container in subject_modules(model).values():
        for name in names:
            container.remove(name)
    for config in _configurations(model):
        kept = {name: width for name, width in config.voxels_by_subject.items() if name not in names}
        config.subject_names, config.num_voxels = list(kept), list(kept.values())


def what_names_subjects(model: nn.Module) -> list[Any]:
    """The configurations of a model, of the models inside it and of its adapters, which a further subject changes."""
    adapters: Any = getattr(model, "peft_config", None) or {}
    return [*_configurations(model), *adapters.values()]


def checked_dtype(dtype: Any) -> torch.dtype | None:
    """A floating-point dtype, also by its name.

    Raises:
        FmriModelsError: It is none.
    """
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if found is None and dtype is None:
        return None
    if found not in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        raise FmriModelsError(f"dtype is {one_line(repr(dtype), 40)}; expected float16, bfloat16, float32 or float64.")
    return found


def _like_the_others(layer: nn.Module, container: nn.Module) -> nn.Module:
    """A layer in the precision, the place and the mode of those that a container has."""
    others = [each for each in container.parameters() if each.is_floating_point()]
    layer.train(container.training)
    if not others:
        return layer
    is_elsewhere = others[0].device.type == "meta"
    layer.to(device="cpu" if is_elsewhere else others[0].device, dtype=others[0].dtype)
    return offloaded_like(layer, container)


def _configurations(model: nn.Module) -> Iterator[FmriConfig]:
    """Those of a model and of the models inside it, each once."""
    found = {
        id(config): config
        for each in model.modules()
        if isinstance(config := getattr(each, "config", None), FmriConfig)
    }
    yield from found.values()
