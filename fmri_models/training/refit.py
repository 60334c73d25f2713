"""A new processor for a saved pipeline."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub.errors import StrictDataclassError

from ..configuration_fmri import FmriConfig
from ..data.processed import fit_processor
from ..data.table import TrialTable
from ..errors import FmriModelsError
from ..evaluation.held_out import check_trained_split
from ..names import one_line
from ..output_folders import check_merged_folder
from ..pipeline_folder import INDEX_FILE
from ..processing_fmri import FmriProcessor, UnseenSession
from ..reading import check_regular_file, read_object
from ..registry import find_class
from ..saving import merged_folder
from ..subject_statistics import FORMER_STATISTICS_FILE
from ..training_record import TrainingRecord


def refit_processor(
    model: str | os.PathLike,
    data: str | os.PathLike,
    statistics: str = "session",
    subjects: Mapping[str, str] | None = None,
    unseen_session: UnseenSession | None = None,
) -> FmriProcessor:
    """Replaces a saved pipeline's processor by one with the statistics of a table's training trials.

    The model reads the same voxels as before; its weights are not loaded. A table that the pipeline was trained on is
    split as in that training.

    Args:
        model: Folder of the pipeline.
        data: Folder of the trial table; it has the model's subjects.
        statistics: `"session"` or `"pooled"`.
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
    _check_voxels(table, names, former)
    processor = fit_processor(
        table,
        names,
        **_trained_trials(folder, table),
        statistics=statistics,
        unseen_session=unseen_session or former.unseen_session,
        pool_width=former.pool_width,
        pad_multiple=former.pad_multiple,
    )
    _keep_voxels(processor, former)
    if names == config.subject_names:
        processor.save_pretrained(folder / "processor")
    else:
        config.subject_names = names
        _save_renamed(folder, config, processor)
    return processor


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
        raise FmriModelsError(f"The model has no subject {unknown[0]!r}; it has {', '.join(known)}.")
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


def _check_voxels(table: TrialTable, names: Sequence[str], former: FmriProcessor) -> None:
    for name, model_name in zip(names, former.subject_names, strict=True):
        found, expected = table.num_voxels(name), former.subject(model_name).num_voxels
        if found != expected:
            raise FmriModelsError(
                f"{name} of {table.path} has {found} voxels and the model was made for {expected}; prepare a table of "
                "the model's voxels in their order."
            )
        kept, known = table.voxels(name).source_columns, former.subject(model_name).source_columns
        if kept is not None and known is not None and not np.array_equal(kept, known):
            raise FmriModelsError(
                f"{name} of {table.path} has as many voxels as the model, but others: what was dropped when the tables "
                "were prepared differs; prepare a table of the model's voxels in their order."
            )


def _trained_trials(folder: Path, table: TrialTable) -> dict[str, Any]:
    """Which trials the statistics may come from: those of the training, if it was on this table."""
    record = TrainingRecord.load(folder)
    if record is None or record.table_fingerprint != table.fingerprint:
        return {}
    check_trained_split(record, table, folder)
    return {"parts": record.train_parts, "split": record.split, "fold": record.fold}


def _keep_voxels(processor: FmriProcessor, former: FmriProcessor) -> None:
    """Selects the voxels that the model reads, whatever they were chosen by."""
    for name, model_name in zip(processor.subject_names, former.subject_names, strict=True):
        statistics, known = processor.subject(name), former.subject(model_name)
        statistics.keep_selected(known.selected)
        if statistics.source_columns is None:
            statistics.source_width, statistics.source_columns = known.source_width, known.source_columns
    for option in ("rois", "min_noise_ceiling", "num_best_voxels"):
        setattr(processor, option, getattr(former, option))


def _save_renamed(folder: Path, config: FmriConfig, processor: FmriProcessor) -> None:
    """Model and processor carry the names, so that both are replaced together."""
    with merged_folder(folder, _former_statistics) as partial:
        config.save_pretrained(partial / "brain_model")
        processor.save_pretrained(partial / "processor")


def _former_statistics(folder: Path, written: set[str]) -> list[str]:
    former = f"processor/{FORMER_STATISTICS_FILE}"
    return [former] if (folder / former).is_file() else []
