"""What lies behind a training: what the model that it starts from has learned from, and what it learns from itself."""

from dataclasses import dataclass, field

from transformers.utils import logging

from ..conversion_record import ConversionRecord
from ..data import schema
from ..data.split_files import part_fingerprints
from ..data.table import TrialTable
from ..errors import FmriModelsError
from ..evaluation.held_out import learned_fmri, learned_stimuli, other_table_notes, unknown_initial_note
from ..hub_repository import NotFetchedError, is_folder, local_folder
from ..names import listed, one_line
from ..registry import get_method
from ..swapping import recover
from ..training_record import (
    MAX_PICTURES,
    MAX_TEXT,
    MAX_TRAININGS,
    TRAINING_FILE,
    LearnedFrom,
    TrainingRecord,
    encoded_pictures,
)
from .initial_model import unreadable
from .recipe import Recipe
from .sources import source_tables
from .unpaired import UnpairedSource, unpaired_sources

logger = logging.get_logger(__name__)


@dataclass
class EarlierTrainings:
    """What lies behind the weights that a training starts from.

    Args:
        learned_from: What is known: the training of the initial model, that of its initial model ...
        unknown: Names of models among them of which not all is known.
        reserved: Names of those that were converted from weights whose authors have reserved all rights.
    """

    learned_from: list[LearnedFrom] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    reserved: list[str] = field(default_factory=list)


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
        folder = local_folder(recipe.initial_model, [TRAINING_FILE, ConversionRecord.file])
    except NotFetchedError as error:
        raise unreadable(recipe.initial_model, get_method(recipe.method).load("model"), error) from error
    if is_folder(recipe.initial_model):
        recover(folder)
    record = TrainingRecord.load(folder)
    name = str(recipe.published()["initial_model"])
    conversion = ConversionRecord.load(folder)
    reserved = [name] if conversion is not None and not conversion.may_be_shared else []
    if record is None:
        return EarlierTrainings(unknown=[name], reserved=reserved)
    reserved = list(dict.fromkeys([*reserved, *record.reserved_initial_models]))[:MAX_TRAININGS]
    if record.learned_from is None:
        return EarlierTrainings(_of_earlier_version(record, table), [name], reserved)
    own = 1 + len(recipe.sources or []) + sum(len(stage.unpaired or []) for stage in recipe.stages)
    if len(record.learned_from) + own > MAX_TRAININGS:
        raise FmriModelsError(
            f"{MAX_TRAININGS} trainings lie behind the initial model {one_line(name, 120)}, one after the other, which "
            "are all that can be recorded; start from an earlier one."
        )
    return EarlierTrainings(list(record.learned_from), list(record.unknown_initial_models), reserved)


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
    of_subjects = {
        subject: table.trials(subject, schema.TEST, recipe.split, recipe.fold).stimulus_ids.tolist()
        for subject in subjects
    }
    for subject, stimuli in of_subjects.items():
        for note in other_table_notes(earlier.learned_from, table, subject, stimuli):
            logger.warning(note)
    tested = set().union(*of_subjects.values())
    learned = learned_stimuli(earlier.learned_from, table, sorted(tested), recipe.split, recipe.fold)
    if learned:
        logger.warning(
            f"The initial model {one_line(recipe.initial_model, 120)} has learned from {len(learned)} of the "
            f"{len(tested)} pictures that are tested in the split {recipe.split!r}, fold {recipe.fold} "
            f"({listed(sorted(learned))}): no evaluation can say how well new pictures are read, and every "
            "report will say so; take an initial model that was trained on the same split and fold."
        )


def warn_of_test_fmri(recipe: Recipe, table: TrialTable, subjects: list[str]) -> None:
    """Says before the training that it learns, or its initial model has learned, from the fMRI of test trials.

    Args:
        recipe: The recipe of one fold.
        table: The trial table.
        subjects: Who is trained on.

    Raises:
        FmriModelsError: As [`earlier_trainings`] and [`own_trainings`].
    """
    sources = [*_unpaired_trainings(recipe, table, subjects), *earlier_trainings(recipe, table).learned_from]
    for subject in subjects:
        try:
            found = learned_fmri(sources, table, subject, recipe.split, recipe.fold, "This training")
        except FmriModelsError as error:
            logger.warning(f"No evaluation will take the pipeline: {error}")
            continue
        if found:
            logger.warning(
                f"This training learns from the fMRI of {len(found)} test trials of {subject} without their pictures: "
                "every report on the pipeline will say that it is transductive."
            )


def own_trainings(recipe: Recipe, table: TrialTable, subjects: list[str]) -> list[LearnedFrom]:
    """What the stages of a recipe learn from, or make choices on; after it, each source, with pictures or without."""
    parts = {part for stage in recipe.stages for part in (*stage.train_on, *stage.held_out_parts)}
    known = (*schema.SPLITS, *schema.UNLABELLED_PARTS)
    own = _learned_from(table, recipe.split, recipe.fold, [part for part in known if part in parts], subjects)
    return [own, *_source_trainings(recipe, table, subjects), *_unpaired_trainings(recipe, table, subjects)]


def _source_trainings(recipe: Recipe, table: TrialTable, subjects: list[str]) -> list[LearnedFrom]:
    """Each further table that pairs are learned from."""
    found = []
    for source in source_tables(recipe.sources):
        of = TrialTable.open(source.data)
        is_own = of.fingerprint == table.fingerprint
        names = source.subjects or [name for name in of.subjects if not (is_own and name in subjects)]
        found.append(_learned_from(of, source.split, source.fold, list(source.parts), names))
    return found


def _unpaired_trainings(recipe: Recipe, table: TrialTable, subjects: list[str]) -> list[LearnedFrom]:
    """Each source of fMRI without pictures, once."""
    found: list[LearnedFrom] = []
    for source in (source for stage in recipe.stages for source in unpaired_sources(stage.unpaired)):
        training = _learned_from_fmri(source, recipe, table, subjects)
        if training not in found:
            found.append(training)
    return found


def _learned_from_fmri(source: UnpairedSource, recipe: Recipe, table: TrialTable, subjects: list[str]) -> LearnedFrom:
    of, split, fold = source.place(recipe, table)
    names = source.subjects or (subjects if source.data is None else of.subjects)
    fingerprints = part_fingerprints(of.split_rows(split), fold)
    return LearnedFrom(
        of.name,
        of.fingerprint,
        split,
        fold,
        source.parts,
        fingerprints,
        encoded_pictures([]),
        names,
        *_origin(of),
    )


def _origin(table: TrialTable) -> tuple[str, str]:
    """What a table says of its licence and of where its data come from, by which its terms are known."""
    return table.metadata.get("license", "")[:MAX_TEXT], table.metadata.get("source", "")[:MAX_TEXT]


def _learned_from(table: TrialTable, split: str, fold: int, parts: list[str], subjects: list[str]) -> LearnedFrom:
    labelled = schema.labelled_parts(parts)
    trials = [table.trials(subject, labelled, split, fold) for subject in subjects]
    stimuli = {name for each in trials for name in each.stimulus_ids.tolist()}
    hashes = {digest for digest in table.stimuli.content_hashes(sorted(stimuli)) if digest is not None}
    return LearnedFrom(
        table.name,
        table.fingerprint,
        split,
        fold,
        parts,
        part_fingerprints(table.split_rows(split), fold),
        encoded_pictures(hashes) if len(hashes) <= MAX_PICTURES else None,
        None,
        *_origin(table),
    )


def _of_earlier_version(record: TrainingRecord, table: TrialTable) -> list[LearnedFrom]:
    """As far as it can be told: what the split of that name says now, on the same table."""
    is_same = record.table_fingerprint == table.fingerprint and record.split in table.split_names()
    if not is_same or record.fold >= table.num_folds(record.split):
        return []
    return [_learned_from(table, record.split, record.fold, record.train_parts, table.subjects)]
