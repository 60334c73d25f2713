"""A new processor for a saved pipeline."""

import os
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import load_file, save_file

from ..configuration_fmri import FmriConfig
from ..data.table import TrialTable
from ..data.table_processor import check_voxels, fit_processor
from ..errors import FmriModelsError
from ..evaluation.held_out import check_trained_split
from ..known_classes import find_class, find_model
from ..names import did_you_mean, one_line
from ..output_folders import check_merged_folder
from ..pipeline_folder import INDEX_FILE
from ..processing.options import UnseenSession
from ..processing.statistics_file import FORMER_STATISTICS_FILE
from ..processing_fmri import FmriProcessor
from ..reading import check_regular_file, read_object
from ..saving import json_text, merged_folder, write_text
from ..subject_modules import name_today, subject_modules
from ..training_record import TrainingRecord

# What only a processor that was never fitted still has to be fitted with.
_OPTIONS_OF_FITTING = ("rois", "min_noise_ceiling", "num_best_voxels")


def refit_processor(
    model: str | os.PathLike,
    data: str | os.PathLike,
    statistics: str | None = None,
    subjects: Mapping[str, str] | None = None,
    unseen_session: UnseenSession | None = None,
) -> FmriProcessor:
    """Replaces a saved pipeline's processor by one with the statistics of a table's training trials.

    The model reads the same voxels as before; its weights stay as they are, under the names that its subjects have
    then. A table that the pipeline was trained on is split as in that training.

    Args:
        model: Folder of the pipeline.
        data: Folder of the trial table; it has the model's subjects.
        statistics: `"session"` or `"pooled"`; None takes over the processor's own, fitted or not, and `"session"` where
            a model was published without any.
        subjects: Subject of the model ▶ its name in the table, which it gets in the pipeline, too. Others keep their
            names.
        unseen_session: What the processor does with sessions without training trials; None takes over what it did.

    Raises:
        FmriModelsError: The table lacks a subject, its voxels do not fit the model, or the split of the training was
            drawn again; the pipeline stays as it was.
    """
    folder = Path(model)
    if not (folder / INDEX_FILE).is_file():
        raise FmriModelsError(f"{folder} is no saved pipeline; pass the folder that training or convert wrote.")
    check_merged_folder(folder, overwrite=True)
    table = TrialTable.open(Path(data))
    config, former = _read(folder)
    names = _names_in_table(config.subject_names, subjects or {}, table)
    if former.is_fitted:
        for name, model_name in zip(names, former.subject_names, strict=True):
            check_voxels(table, name, former, model_name)
    processor = fit_processor(
        table,
        names,
        **_trained_trials(folder, table),
        statistics=statistics or _statistics_of(former),
        statistics_over=former.statistics_over,
        ddof=former.ddof,
        min_session_trials=former.min_session_trials,
        unseen_session=unseen_session or former.unseen_session,
        pool_width=former.pool_width,
        pooling=former.pooling,
        pool_by_roi=former.pool_by_roi,
        pad_multiple=former.pad_multiple,
        **({} if former.is_fitted else {name: former.options[name] for name in _OPTIONS_OF_FITTING}),
    )
    for option in ("padding", "patch_size", "width", "wrap_extra_patch"):
        setattr(processor, option, former.options[option])
    if former.is_fitted:
        processor.read_voxels_of(former)
    else:
        _check_width(processor, config)
    if names == config.subject_names:
        processor.save_pretrained(folder / "processor")
    else:
        prefixes = _prefixes(config, names)
        config.subject_names = names
        _save_renamed(folder, config, processor, prefixes)
    return processor


def _statistics_of(former: FmriProcessor) -> str:
    return "session" if former.is_fitted and former.statistics == "identity" else former.statistics


def _check_width(processor: FmriProcessor, config: FmriConfig) -> None:
    if processor.num_voxels != config.num_voxels:
        raise FmriModelsError(
            f"The processor gives {processor.num_voxels} voxels with its options and this table, and the model reads "
            f"{config.num_voxels}; give the table that the model was made for."
        )


def _read(folder: Path) -> tuple[FmriConfig, FmriProcessor]:
    """Configuration and processor of a saved pipeline, without its weights."""
    mend = "pass the folder that training or convert wrote"
    try:
        entry = read_object(folder / INDEX_FILE, "index of a pipeline", mend).get("brain_model")
    except FmriModelsError as error:
        raise FmriModelsError(f"{folder} is no saved pipeline: {error}") from error
    model_class = find_class(entry[-1]) if isinstance(entry, list) and entry and isinstance(entry[-1], str) else None
    if model_class is None or not hasattr(model_class, "config_class"):
        found = one_line(repr(entry))
        raise FmriModelsError(f"{folder} holds the brain model {found}, which is no model of this package; {mend}.")
    check_regular_file(folder / "brain_model" / "config.json", "configuration of a brain model", mend)
    try:
        config = model_class.config_class.from_pretrained(str(folder / "brain_model"))
    except FmriModelsError:
        raise
    # What the configuration's own checks, and those of transformers, raise on other values than they know.
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, StrictDataclassError) as error:
        raise FmriModelsError(f"{folder} is no saved pipeline, or it is incomplete; {mend}.") from error
    return config, FmriProcessor.from_pretrained(folder / "processor")


def _names_in_table(known: Sequence[str], subjects: Mapping[str, str], table: TrialTable) -> list[str]:
    unknown = sorted(set(subjects) - set(known))
    if unknown:
        raise FmriModelsError(
            f"The model has no subject {one_line(repr(unknown[0]))}; it has {', '.join(known)}."
            f"{did_you_mean(unknown[0], known)}"
        )
    names = [subjects.get(name, name) for name in known]
    if len(set(names)) != len(names):
        raise FmriModelsError(
            f"Two subjects of the model would be the same one of the table: {', '.join(names)}; name each once."
        )
    for name, named in zip(known, names, strict=True):
        if named not in table.subjects:
            raise FmriModelsError(
                f"{table.path} has no subject {named!r}; it has {', '.join(table.subjects)}; say which of them is the "
                f"model's {name} with --subject {name}=NAME."
            )
    return names


def _trained_trials(folder: Path, table: TrialTable) -> dict[str, Any]:
    """Which trials the statistics may come from: those of the training, if it was on this table."""
    record = TrainingRecord.load(folder)
    if record is None or record.table_fingerprint != table.fingerprint:
        return {}
    check_trained_split(record, table, folder)
    return {"parts": record.train_parts, "split": record.split, "fold": record.fold}


def _prefixes(config: FmriConfig, names: Sequence[str]) -> dict[str, str]:
    """Beginnings of the names of subjects' tensors ▶ what they are where the subjects have other names."""
    model_class: Any = find_model(config.model_type)
    other = deepcopy(config)
    other.subject_names = list(names)
    with torch.device("meta"):
        before, after = (subject_modules(model_class(each)) for each in (config, other))
    return {
        f"{place}.{container.key_of(old)}.": f"{place}.{after[place].key_of(new)}."
        for place, container in before.items()
        for old, new in zip(container.names, after[place].names, strict=True)
    }


def _write_renamed_weights(folder: Path, partial: Path, prefixes: Mapping[str, str]) -> None:
    """Weights files of a model with other names of tensors, one file in memory at a time.

    Args:
        folder: Where they are.
        partial: Where they are written.
        prefixes: Beginnings of names ▶ what takes their place.
    """
    for file in sorted(folder.glob("*.safetensors")):
        tensors = {name_today(name, prefixes): values for name, values in load_file(file).items()}
        save_file(tensors, partial / file.name, metadata={"format": "pt"})
    for file in sorted(folder.glob("*.safetensors.index.json")):
        index = read_object(file, "index of the weights", "save the pipeline again")
        places = index.get("weight_map") or {}
        index["weight_map"] = {name_today(name, prefixes): place for name, place in places.items()}
        write_text(partial / file.name, json_text(index))


def _save_renamed(folder: Path, config: FmriConfig, processor: FmriProcessor, prefixes: Mapping[str, str]) -> None:
    """Model and processor carry the names, so that both are replaced together."""
    with merged_folder(folder, _former_statistics) as partial:
        config.save_pretrained(partial / "brain_model")
        if prefixes:
            _write_renamed_weights(folder / "brain_model", partial / "brain_model", prefixes)
        processor.save_pretrained(partial / "processor")


def _former_statistics(folder: Path, written: set[str]) -> list[str]:
    former = f"processor/{FORMER_STATISTICS_FILE}"
    return [former] if (folder / former).is_file() else []
