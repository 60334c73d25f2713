"""The pipeline that a training starts from: its weights, and what these have learned from."""

from dataclasses import dataclass, field

import numpy as np
from transformers.utils import logging

from ..data import schema
from ..data.split_files import part_fingerprints
from ..data.table import TrialTable
from ..errors import FmriModelsError
from ..evaluation.held_out import learned_stimuli, other_table_notes, unknown_initial_note
from ..hub_repository import NotFetchedError, is_folder, local_folder
from ..modeling_fmri import FmriPreTrainedModel
from ..names import listed, one_line
from ..processing_fmri import FmriProcessor
from ..registry import get_method
from ..subject_statistics import SubjectStatistics
from ..swapping import recover
from ..training_record import (
    MAX_PICTURES,
    MAX_TRAININGS,
    TRAINING_FILE,
    LearnedFrom,
    TrainingRecord,
    encoded_pictures,
)
from .checkpoints import check_spaces
from .recipe import Recipe

logger = logging.get_logger(__name__)


@dataclass
class EarlierTrainings:
    """What lies behind the weights that a training starts from.

    Args:
        learned_from: What is known: the training of the initial model, that of its initial model ...
        unknown: Names of models among them of which not all is known.
    """

    learned_from: list[LearnedFrom] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


def check_initial_model_is_used(recipe: Recipe) -> None:
    """Refuses an initial model whose weights are replaced as a whole.

    Raises:
        FmriModelsError: All stages of the recipe are in closed form.
    """
    if recipe.initial_model is not None and not recipe.trains_by_gradient:
        raise FmriModelsError(
            f"The recipe has initial_model={one_line(recipe.initial_model, 120)}, and its stages are fitted in closed "
            f"form, which replaces all weights of the method {recipe.method!r}: it would have no effect. Leave "
            "initial_model out, or train a method by gradient (a stage with training:)."
        )


def earlier_trainings(recipe: Recipe, table: TrialTable) -> EarlierTrainings:
    """What the recipe's initial model has learned from, as its training record says.

    Args:
        recipe: The recipe.
        table: Tells the pictures of a record of an earlier version, if that is a record of a training on this table.

    Raises:
        FmriModelsError: There is no such model, its record is damaged, or too many trainings lie behind it.
    """
    if recipe.initial_model is None:
        return EarlierTrainings()
    try:
        folder = local_folder(recipe.initial_model, [TRAINING_FILE])
    except NotFetchedError as error:
        raise _unreadable(recipe.initial_model, get_method(recipe.method).load("model"), error) from error
    if is_folder(recipe.initial_model):
        recover(folder)
    record = TrainingRecord.load(folder)
    name = str(recipe.published()["initial_model"])
    if record is None:
        return EarlierTrainings(unknown=[name])
    if record.learned_from is None:
        return EarlierTrainings(_of_earlier_version(record, table), [name])
    if len(record.learned_from) >= MAX_TRAININGS:
        raise FmriModelsError(
            f"{MAX_TRAININGS} trainings lie behind the initial model {one_line(name, 120)}, one after the other, which "
            "are all that can be recorded; start from an earlier one."
        )
    return EarlierTrainings(list(record.learned_from), list(record.unknown_initial_models))


def warn_of_seen_test_pictures(recipe: Recipe, table: TrialTable, subjects: list[str]) -> None:
    """Says before the training that its initial model has learned from pictures on which the new one will be tested.

    Every report on the new model says it, too. There may be reasons to train so, which no evaluation has.

    Args:
        recipe: The recipe of one fold.
        table: The trial table.
        subjects: Who is trained on.

    Raises:
        FmriModelsError: There is no such model, its record is damaged, or too many trainings lie behind it.
    """
    earlier = earlier_trainings(recipe, table)
    for name in earlier.unknown:
        logger.warning(unknown_initial_note(name))
    for note in other_table_notes(earlier.learned_from, table):
        logger.warning(note)
    tested = {
        stimulus
        for subject in subjects
        for stimulus in table.trials(subject, schema.TEST, recipe.split, recipe.fold).stimulus_ids.tolist()
    }
    learned = learned_stimuli(earlier.learned_from, table, sorted(tested), recipe.split, recipe.fold)
    if learned:
        logger.warning(
            f"The initial model {one_line(recipe.initial_model, 120)} has learned from {len(learned)} of the "
            f"{len(tested)} pictures that are tested in the split {recipe.split!r}, fold {recipe.fold} "
            f"({listed(sorted(learned))}): no evaluation can say how well new pictures are read, and every "
            "report will say so; take an initial model that was trained on the same split and fold."
        )


def own_training(recipe: Recipe, table: TrialTable, subjects: list[str]) -> LearnedFrom:
    """What the stages of a recipe learn from, or make choices on."""
    parts = {part for stage in recipe.stages for part in (*stage.train_on, *stage.held_out_parts)}
    return _learned_from(table, recipe.split, recipe.fold, [part for part in schema.SPLITS if part in parts], subjects)


def _learned_from(table: TrialTable, split: str, fold: int, parts: list[str], subjects: list[str]) -> LearnedFrom:
    stimuli = {name for subject in subjects for name in table.trials(subject, parts, split, fold).stimulus_ids.tolist()}
    hashes = {digest for digest in table.stimuli.content_hashes(sorted(stimuli)) if digest is not None}
    return LearnedFrom(
        table.name,
        table.fingerprint,
        split,
        fold,
        parts,
        part_fingerprints(table.split_rows(split), fold),
        encoded_pictures(hashes) if len(hashes) <= MAX_PICTURES else None,
    )


def _of_earlier_version(record: TrainingRecord, table: TrialTable) -> list[LearnedFrom]:
    """As far as it can be told: what the split of that name says now, on the same table."""
    is_same = record.table_fingerprint == table.fingerprint and record.split in table.split_names()
    if not is_same or record.fold >= table.num_folds(record.split):
        return []
    return [_learned_from(table, record.split, record.fold, record.train_parts, table.subjects)]


def load_initial_weights(model: FmriPreTrainedModel, source: str, processor: FmriProcessor) -> None:
    """Starts a model from the weights of a pipeline's brain model.

    Args:
        model: The model that the recipe builds.
        source: The pipeline: a folder or a Hub repository.
        processor: What selects the voxels that the model will read.

    Raises:
        FmriModelsError: The pipeline is of another method, or has other subjects, voxels or spaces.
    """
    try:
        initial = type(model).from_pretrained(source, subfolder="brain_model")
    except (OSError, ValueError, RuntimeError) as error:
        raise _unreadable(source, type(model), error) from error
    check_spaces(initial.config, model, f"the initial model {source}")
    for name in ("subject_names", "num_voxels"):
        found, expected = getattr(initial.config, name), getattr(model.config, name)
        if found != expected:
            raise FmriModelsError(
                f"The initial model {source} has {name} {found} and the recipe's model {expected}; train on the same "
                "subjects and voxels in the same order."
            )
    check_same_voxels(source, FmriProcessor.from_pretrained(source, subfolder="processor"), processor)
    try:
        model.load_state_dict(initial.state_dict())
    except RuntimeError as error:
        raise FmriModelsError(
            f"The initial model {source} has other parts or sizes than the recipe's model; use the options that it was "
            "trained with under model:."
        ) from error


def check_same_voxels(source: str, initial: FmriProcessor, own: FmriProcessor) -> None:
    """Refuses weights of other voxels, however many there are: each weight belongs to one of them.

    Args:
        source: The initial model, for messages.
        initial: Its processor.
        own: That of the new training, of the same subjects.

    Raises:
        FmriModelsError: Names the first subject with other voxels.
    """
    for name in own.subject_names:
        difference = _other_voxels(initial.subject(name), own.subject(name))
        if not difference:
            continue
        if _is_unknown(initial):
            logger.warning(
                f"The initial model {one_line(source, 120)} was published without its statistics, so nobody could "
                f"check that the voxels of {name} are those that it was trained on, in the same order (it expects: "
                f"{one_line(initial.expects, 300)})."
            )
            continue
        raise FmriModelsError(
            f"The initial model {one_line(source, 120)} reads other voxels of {name} than this training ({difference}),"
            f" and its weights belong to those. {_what_to_do(initial, own)}"
        )


def _other_voxels(initial: SubjectStatistics, own: SubjectStatistics) -> str:
    """What shows that the voxels that two trainings read are not the same; empty where they are."""
    if len(initial.selected) != len(own.selected):
        return f"{len(initial.selected)} and {len(own.selected)}"
    if initial.coordinates is not None and own.coordinates is not None:
        before, now = initial.coordinates[initial.selected], own.coordinates[own.selected]
        other = ~np.isclose(before, now, rtol=0, atol=1e-3, equal_nan=True).all(axis=1)
        if other.any():
            return f"{int(other.sum())} of {len(other)} are at other coordinates"
        if np.isfinite(now).all() and len(np.unique(now, axis=0)) == len(now):
            # A table may hold other voxels beside the same ones; places tell which these are.
            return ""
    if initial.roi and own.roi:
        other = np.array(initial.roi)[initial.selected] != np.array(own.roi)[own.selected]
        if other.any():
            return f"{int(other.sum())} of {len(other)} are in another ROI"
    (width, columns), (own_width, own_columns) = _in_source(initial), _in_source(own)
    if width != own_width:
        return f"they are chosen from {width} and from {own_width}"
    other = columns != own_columns
    if other.any():
        first = int(np.flatnonzero(other)[0])
        return (
            f"{int(other.sum())} of {len(other)} are other columns of the betas, the first {columns[first]} there and "
            f"{own_columns[first]} here"
        )
    return ""


def _in_source(statistics: SubjectStatistics) -> tuple[int, np.ndarray]:
    """Of the betas as they were before any voxel was dropped: their width, and the columns of the selected voxels."""
    if statistics.source_columns is None or statistics.source_width is None:
        return statistics.num_voxels, statistics.selected
    return statistics.source_width, statistics.source_columns[statistics.selected]


def _is_unknown(processor: FmriProcessor) -> bool:
    """Whether it stands for that of a model which was published without one."""
    return processor.statistics == "identity" and bool(processor.expects)


def _what_to_do(initial: FmriProcessor, own: FmriProcessor) -> str:
    if any(each.num_best_voxels is not None or each.min_noise_ceiling is not None for each in (initial, own)):
        return (
            "num_best_voxels and min_noise_ceiling choose anew by the trials of each training: choose by "
            "processor.rois, or take all voxels, in both trainings, or take an initial model that was trained on the "
            "same split and fold."
        )
    return "Train on a table with the same voxels and with the same processor.rois, or without initial_model."


def _unreadable(source: str, model_class: type, error: Exception) -> FmriModelsError:
    first = next(iter(str(error).splitlines()), type(error).__name__)
    return FmriModelsError(
        f"The initial model {source} can't be read as a {model_class.__name__} ({first}); give the folder or Hub "
        "repository of a pipeline of the same method."
    )
