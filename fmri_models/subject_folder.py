"""The folder of one subject: what a model has of its own for it, apart from all that subjects share.

`subject.json` says whose it is and to which base it belongs, `subject.safetensors` holds its layers, `processor/` its
statistics, `adapter/` a PEFT adapter, where the subject has one on the shared weights, and `training.json` and
`conversion.json` what the pipeline was trained on, and converted from, that the subject was saved from.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from .adapters import ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE, base_state, has_wrapped_layers
from .component_index import what_lies_in
from .configuration_fmri import SPACES, FmriConfig
from .conversion_record import ConversionRecord
from .errors import FmriModelsError
from .hub_repository import fetch_options, local_folder
from .names import is_name, one_line
from .plain_values import ShortRepr
from .processing.folder import CONFIG_FILE as PROCESSOR_CONFIG_FILE
from .processing.folder import FOLDER_IN_PIPELINES as PROCESSOR_FOLDER
from .processing.statistics_file import STATISTICS_FILE
from .records import import_path
from .saved_record import SavedRecord
from .subject_modules import SubjectModules, subject_modules
from .swapping import recover
from .tensor_digest import add_tensors
from .training_record import TRAINING_FILE
from .version import __version__
from .weights import MAX_SIZE, check_finite, stored_tensors_of

SUBJECT_FILE = "subject.json"
SUBJECT_WEIGHTS_FILE = "subject.safetensors"
SUBJECT_ADAPTER_FOLDER = "adapter"
SUBJECT_SCHEMA = 1
PROCESSOR_FILES = tuple(f"{PROCESSOR_FOLDER}/{name}" for name in (PROCESSOR_CONFIG_FILE, STATISTICS_FILE))
ADAPTER_FILES = tuple(f"{SUBJECT_ADAPTER_FOLDER}/{name}" for name in (ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE))
SUBJECT_FILES = (
    SUBJECT_FILE, SUBJECT_WEIGHTS_FILE, *PROCESSOR_FILES, *ADAPTER_FILES, TRAINING_FILE, ConversionRecord.file,
)  # fmt: skip
_MEND = "save the subject again, or take another copy of its folder"
_PRECISIONS = {
    "float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16,
}  # fmt: skip

_Name = Annotated[str, Field(max_length=128)]
_Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


@dataclass(repr=False)
class SubjectRecord(ShortRepr, SavedRecord):
    """Whose layers a folder holds, and to which base they belong.

    Args:
        method: Name of the method, as configurations have it (`model_type`).
        subject: Name of the subject.
        num_voxels: Number of voxels that the model reads of it.
        base: Precision ▶ digest of all weights that no subject has for itself, and of the model's spaces, the precision
            in which they were kept first.
        has_processor: Whether the processor's statistics of the subject are there.
        has_adapter: Whether there is an adapter that belongs to the subject.
    """

    file = SUBJECT_FILE
    newest_schema = SUBJECT_SCHEMA
    what = "subject's file"
    mend = _MEND

    method: _Name
    subject: _Name
    num_voxels: Annotated[int, Field(ge=1, le=MAX_SIZE)]
    base: Annotated[dict[_Name, _Digest], Field(min_length=1, max_length=len(_PRECISIONS))]
    has_processor: bool = False
    has_adapter: bool = False
    schema: int = SUBJECT_SCHEMA
    fmri_models_version: _Name = __version__

    @classmethod
    def of_folder(cls, folder: Path) -> "SubjectRecord":
        """What a folder holds.

        Raises:
            FmriModelsError: No subject, or its file is damaged or of a newer version.
        """
        record = cls.load(folder)
        if record is None:
            found = what_lies_in(folder)
            instead = f"; it {found}" if found else ""
            raise FmriModelsError(
                f"{one_line(folder)} holds no subject ({SUBJECT_FILE} is missing){instead}; give a folder that "
                "save_subject() wrote."
            )
        if not is_name(record.subject):
            raise FmriModelsError(
                f"The subject's file {one_line(folder / SUBJECT_FILE)} names the subject "
                f"{one_line(repr(record.subject), 80)}, which can't be a name; {_MEND}."
            )
        return record


def subject_folder(place: str, kwargs: Mapping[str, Any]) -> Path:
    """The folder itself, or that of the cache with what the Hub has of the subject.

    Args:
        place: Folder, or repository id.
        kwargs: How files are fetched: `revision`, `token`, `cache_dir` and the like.

    Raises:
        FmriModelsError: There is neither, or it can't be had.
    """
    folder = local_folder(place, SUBJECT_FILES, **fetch_options(dict(kwargs)))
    recover(folder)
    return folder


def base_digests(model: nn.Module, config: FmriConfig, precision: torch.dtype) -> dict[str, str]:
    """What a subject's folder says of its base, by the weights that no subject has for itself.

    Args:
        model: The brain model, whose weights are in place; its adapters do not count.
        config: Its configuration.
        precision: That in which its weights are kept.

    Returns:
        Precision ▶ digest, of the own one and of coarser ones, in which others may load the base.
    """
    shared = shared_state(model)
    own = next((name for name, dtype in _PRECISIONS.items() if dtype == precision), "float32")
    names = [own, *(name for name, dtype in _PRECISIONS.items() if dtype.itemsize < _PRECISIONS[own].itemsize)]
    return {name: _digest(shared, config, _PRECISIONS[name]) for name in names}


def is_base(record: SubjectRecord, model: nn.Module, config: FmriConfig, precision: torch.dtype) -> bool:
    """Whether a subject's layers belong to a model, in whichever precision both were loaded."""
    shared = shared_state(model)
    own = next((name for name, dtype in _PRECISIONS.items() if dtype == precision), "float32")
    compared = dict.fromkeys([own, next(iter(record.base))])
    return any(
        name in record.base and name in _PRECISIONS and record.base[name] == _digest(shared, config, _PRECISIONS[name])
        for name in compared
    )


def _digest(shared: Mapping[str, torch.Tensor], config: FmriConfig, dtype: torch.dtype) -> str:
    digest = hashlib.sha256()
    # Where no weights are shared, as with linear maps, these say what the layers decode into.
    spaces = {name: getattr(config, name) for name in SPACES}
    digest.update(json.dumps([config.model_type, spaces], sort_keys=True).encode())
    add_tensors(digest, shared, dtype)
    return digest.hexdigest()


def shared_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors of a model that belong to no subject, without adapters."""
    prefixes = tuple(f"{place}." for place in subject_modules(model))
    return {name: values for name, values in base_state(model).items() if not name.startswith(prefixes)}


def subject_state(model: nn.Module, subject: str) -> dict[str, torch.Tensor]:
    """A subject's own tensors: name of the container and name within the subject's module ▶ values.

    Raises:
        FmriModelsError: An adapter is on them, which would be left out.
    """
    state, found = base_state(model), {}
    for place, container in subject_modules(model).items():
        if has_wrapped_layers(container[subject]):
            raise FmriModelsError(
                f"The layers {place} of {subject} have an adapter, which a subject's folder has no place for; merge it "
                "into them first (merge_and_unload() of PEFT)."
            )
        prefix = f"{place}.{container.key_of(subject)}."
        own = {name.removeprefix(prefix): values for name, values in state.items() if name.startswith(prefix)}
        found.update({f"{place}.{name}": values for name, values in own.items()})
    return found


def to_precision(tensors: Mapping[str, torch.Tensor], dtype: torch.dtype | None, what: str) -> dict[str, torch.Tensor]:
    """Tensors as they are written: on the CPU, floating-point ones of a dtype; None leaves it.

    Raises:
        FmriModelsError: Values are not finite, or become so.
    """
    written = {}
    for name, values in tensors.items():
        values = values.detach().cpu()
        cast = values if dtype is None or not values.is_floating_point() else values.to(dtype)
        if not bool(cast.isfinite().all()):
            mend = "train it again" if not bool(values.isfinite().all()) else "save it in a wider dtype"
            raise FmriModelsError(f"{what} has values in {name} that are not finite in {cast.dtype}; {mend}.")
        written[name] = cast.contiguous().clone()
    return written


def read_layers(folder: Path, record: SubjectRecord, containers: Mapping[str, Any]) -> dict[str, nn.Module]:
    """The layers of a subject's folder, made as those of the containers are.

    Args:
        folder: The subject's folder.
        record: What it says of itself.
        containers: Name ▶ container, of the model that the layers are for.

    Returns:
        Name of the container ▶ the subject's layer, not yet in it.

    Raises:
        FmriModelsError: Names the first tensor that is missing, unexpected, of another shape or type, or not finite.
    """
    what = f"The subject {record.subject} in {one_line(folder)}"
    file = folder / SUBJECT_WEIGHTS_FILE
    stored = stored_tensors_of(file, what)
    with torch.device("meta"):
        expected = {
            f"{place}.{name}": values
            for place, container in containers.items()
            for name, values in container.new_layer(record.num_voxels).state_dict().items()
        }
    if missing := [name for name in expected if name not in stored]:
        raise FmriModelsError(
            f"{what} lacks {one_line(missing[0], 120)}: {len(missing)} of {len(expected)} tensors are missing; {_MEND}."
        )
    if unknown := [name for name in stored if name not in expected]:
        raise FmriModelsError(f"{what} has {one_line(unknown[0], 120)}, which this model has no place for; {_MEND}.")
    for name, values in expected.items():
        if stored[name].shape != tuple(values.shape):
            raise FmriModelsError(
                f"{what} has {name} of the shape {stored[name].shape}; expected {tuple(values.shape)} for "
                f"{record.num_voxels} voxels; {_MEND}."
            )
        if values.is_floating_point() != (stored[name].number_type == "float"):
            raise FmriModelsError(f"{what} has {name} as {stored[name].number_type} numbers; {_MEND}.")
    check_finite(stored, what)
    try:
        tensors = load_file(file)
    except (SafetensorError, OSError) as error:
        raise FmriModelsError(f"{what} can't be read ({one_line(error, 120)}); {_MEND}.") from error
    layers = {}
    for place, container in containers.items():
        prefix = f"{place}."
        layers[place] = _new_layer(container, record.num_voxels)
        layers[place].load_state_dict(
            {name.removeprefix(prefix): values for name, values in tensors.items() if _is_in(name, place, containers)}
        )
    return layers


def _is_in(name: str, place: str, containers: Mapping[str, SubjectModules]) -> bool:
    return name.startswith(f"{place}.") and place == max(
        (each for each in containers if name.startswith(f"{each}.")), key=len
    )


def _new_layer(container: Any, num_voxels: int) -> nn.Module:
    """A layer whose values are replaced, so that nobody's random numbers are taken for them."""
    with torch.random.fork_rng(devices=[]):
        layer: nn.Module = container.new_layer(num_voxels)
    return layer


def no_longer_needed(folder: Path, written: set[str]) -> list[str]:
    """What a folder has of another subject that lay there, where it is not written anew."""
    return [name for name in SUBJECT_FILES if name not in written and (folder / name).is_file()]


def upload_subject(directory: str | os.PathLike, options: Mapping[str, Any], permission: str | None = None) -> str:
    """Uploads a subject's folder with a card, in one commit, as `fmri-models push` does.

    Args:
        directory: The folder.
        options: Those of `save_subject(push_to_hub=True)`: `repo_id`, the folder's name without, `private` and the
            like.
        permission: Which written permission there is to pass data on whose terms forbid it; the card keeps it.

    Returns:
        Address of the commit.

    Raises:
        FmriModelsError: A file may not be published, the terms of the training data forbid it, or the Hub does not take
            it.
    """
    publication = import_path(f"{__package__}.hub.publishing:publication")
    statements = import_path(f"{__package__}.hub.owner_statements:OwnerStatements")
    folder = Path(directory).absolute()
    given = {"repo_id": folder.name, **options}
    address: str = publication(folder, statements(permission=permission)).upload(given.pop("repo_id"), **given)
    return address


def size_of(folder: Path) -> int:
    """Bytes of a subject's files."""
    return sum(file.stat().st_size for name in SUBJECT_FILES if (file := folder / name).is_file())
