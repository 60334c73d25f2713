"""Which trials of a table a pipeline has not learned from: one answer for evaluation, the commands and the page."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..data import schema
from ..data.split_files import part_fingerprints
from ..data.table import TrialTable
from ..data.table_processor import check_voxels
from ..data.table_trials import Trials
from ..data_terms import shows_built_in_scenes
from ..errors import FmriModelsError
from ..names import listed, one_line
from ..pipeline_fmri import FmriToImagePipeline
from ..training_record import LearnedFrom, TrainingRecord
from .protocols import Measured


@dataclass(frozen=True)
class HeldOut:
    """Trials of one subject, and what is known of whether they were learned from.

    Args:
        trials: The trials.
        split: The split that they are of.
        fold: Its fold.
        part: Their part of it.
        learned: Those of their stimuli whose pictures the pipeline, or a model that its training started from, has
            learned from.
        doubts: What could not be checked, a sentence each.
        repeats_stimuli: Why the split shows the same pictures in the training; empty where it does not.
        learned_fmri: Numbers of those of the trials whose fMRI was learned from without what was shown.
    """

    trials: Trials
    split: str
    fold: int
    part: str
    learned: frozenset[str] = frozenset()
    doubts: tuple[str, ...] = field(default=())
    repeats_stimuli: str = ""
    learned_fmri: frozenset[int] = frozenset()

    @property
    def stimuli(self) -> set[str]:
        """The stimuli of the trials."""
        return set(self.trials.stimulus_ids.tolist()) - {""}

    def measured(self, which: Measured) -> "HeldOut":
        """Those of the trials in which pictures were seen, or imagined; maybe none."""
        if which == "all":
            return self
        chosen = self.trials.imagery if which == "imagined" else ~self.trials.imagery
        trials = self.trials.subset(chosen)
        learned = self.learned & set(trials.stimulus_ids.tolist())
        return replace(
            self, trials=trials, learned=learned, learned_fmri=self.learned_fmri & set(trials.trials.tolist())
        )

    @property
    def is_unseen(self) -> bool:
        """Whether it is known that neither the trials nor their pictures were learned from."""
        known = self.learned or self.learned_fmri or self.doubts or self.repeats_stimuli
        return self.part == schema.TEST and not known


def held_out_trials(
    pipeline: FmriToImagePipeline,
    table: TrialTable,
    subject: str,
    part: str = schema.TEST,
    any_table: bool = False,
    may_be_empty: bool = False,
) -> HeldOut:
    """A subject's trials of one part of the split and fold that a pipeline was trained on.

    The test part is what the pipeline has not learned from. Of a pipeline without a training record, and with
    `any_table` on a table that it was not trained on, the part is that of the table's own split `default`; the result
    then says what nobody could check.

    Args:
        pipeline: The pipeline.
        table: The trial table.
        subject: A subject of the table.
        part: `"train"`, `"validation"` or `"test"`.
        any_table: Whether the table may be another one than that of the training.
        may_be_empty: Whether there may be no such trials.

    Raises:
        FmriModelsError: The table, its voxels, or its split of that name, are others than those of the training; there
            are no such trials; or their fMRI was learned from where nobody said so (see [`learned_fmri`]).
    """
    check_voxels(table, subject, pipeline.processor)
    record = pipeline.training_record
    is_own = record is not None and record.table_fingerprint == table.fingerprint
    if record is not None and (is_own or not any_table):
        check_trained_split(record, table)
    split, fold = (record.split, record.fold) if record is not None and is_own else (schema.DEFAULT_SPLIT, 0)
    trials = table.trials(subject, part, split, fold)
    if len(trials) == 0 and not may_be_empty:
        raise FmriModelsError(
            f"{one_line(table.path)} has no trials of {subject} in {part!r} of the split {split!r} (fold {fold}); "
            "write a split that has some with `fmri-models data split`, and train on it."
        )
    if is_own and part != schema.TEST:
        return HeldOut(trials, split, fold, part)
    return _known_of(record, trials, split, fold, part)


def notes_on_trials(pipeline: FmriToImagePipeline, trials: Trials) -> list[str]:
    """What a person should know of any trials of a table before believing anything that is made of them.

    What [`held_out_notes`] says of those that were held out; of others of the training's table, that they were not.

    Args:
        pipeline: The pipeline.
        trials: Trials of one of its subjects.
    """
    table, record = trials.table, pipeline.training_record
    split, fold, is_own = schema.DEFAULT_SPLIT, 0, False
    if record is not None and record.table_fingerprint == table.fingerprint:
        try:
            check_trained_split(record, table)
        except FmriModelsError as error:
            return [str(error)]
        split, fold, is_own = record.split, record.fold, True
    tested = table.trials(trials.subject, schema.TEST, split, fold).trials
    if is_own and (others := int((~np.isin(trials.trials, tested)).sum())):
        return [
            f"{others} of these {len(trials)} trials are none of the test trials that were held out from the "
            "training: nothing here says how well new ones are read."
        ]
    return held_out_notes([_known_of(record, trials, split, fold, None)])


def _known_of(record: TrainingRecord | None, trials: Trials, split: str, fold: int, part: str | None) -> HeldOut:
    """What is known of whether trials were learned from.

    Args:
        record: How the pipeline was trained; None where nothing says so.
        trials: The trials.
        split: The split that is tested.
        fold: Its fold.
        part: The part of it that the trials are; None where they may be any trials of a table.
    """
    table, subject, named = trials.table, trials.subject, part or schema.TEST
    if record is None:
        pictures = "pictures" if part is None else f"{part} pictures"
        doubt = f"The pipeline has no training record, so nobody knows whether it has seen these {pictures}."
        return HeldOut(trials, split, fold, named, doubts=(doubt,))
    is_own = record.table_fingerprint == table.fingerprint
    stimuli = [name for name in trials.stimulus_ids.tolist() if name]
    doubts = _doubts(record, table, subject, stimuli) if is_own else _doubts_on_another_table(record, table, part)
    trainings = record.learned_from or []
    learned = learned_stimuli(trainings, table, stimuli, split, fold)
    if record.learned_from is None and is_own and schema.TEST in record.train_parts:
        learned = set(stimuli)
    repeats = table.repeats_stimuli(split) if is_own else ""
    fmri = learned_fmri(trainings, table, subject, split, fold) if named == schema.TEST else frozenset()
    if part is None:
        fmri &= set(trials.trials.tolist())
    return HeldOut(trials, split, fold, named, frozenset(learned), tuple(doubts), repeats, fmri)


def subjects_in_table(pipeline: FmriToImagePipeline, table: TrialTable, record: TrainingRecord) -> list[str]:
    """Which of a pipeline's subjects are those of a table: all, unless some were added to those of another one.

    Args:
        pipeline: The pipeline.
        table: The trial table.
        record: How it was trained.
    """
    names = list(pipeline.processor.subject_names)
    if not record.recipe.get("adaptation"):
        return names
    is_own = record.table_fingerprint == table.fingerprint
    added = record.recipe.get("subjects") if is_own else None
    return [name for name in names if name in (added or table.subjects)]


def check_trained_split(record: TrainingRecord, table: TrialTable, what: str | os.PathLike = "The pipeline") -> None:
    """Refuses a table that a pipeline was not trained on, and a split that was drawn again after the training.

    Args:
        record: How the pipeline was trained.
        table: The trial table.
        what: The pipeline, for messages.

    Raises:
        FmriModelsError: Test trials could not be told from those that were learned from.
    """
    shown = one_line(what)
    if record.table_fingerprint != table.fingerprint:
        raise FmriModelsError(
            f"{shown} was trained on the table {one_line(repr(record.table))} with another content than "
            f"{one_line(table.path)}; evaluate it on the table that it was trained on, or train it on this one."
        )
    named = f"{one_line(repr(record.split))} (fold {record.fold})"
    if record.split not in table.split_names() or record.fold >= table.num_folds(record.split):
        raise FmriModelsError(
            f"{shown} was trained on the split {named}, which {one_line(table.path)} does not have, so that nobody "
            "could say which trials are unseen; put the split's file of then back into splits/, or train again on a "
            "split that is there."
        )
    if record.learned_from is None:
        return
    now = part_fingerprints(table.split_rows(record.split), record.fold)
    then = record.learned_from[0].part_fingerprints
    changed = [part for part in schema.SPLITS if now[part] != then.get(part)]
    if changed:
        raise FmriModelsError(
            f"The split {named} of {one_line(table.path)} was drawn again after {shown} was trained on it: its "
            f"{' and '.join(changed)} trials are others, so that the tested ones may have been learned from; put the "
            "split's file of then back into splits/ (the same command with the same seed draws it again), or train "
            "again on this one."
        )


def learned_stimuli(
    trainings: Iterable[LearnedFrom], table: TrialTable, stimuli: Sequence[str], split: str, fold: int
) -> set[str]:
    """Those of some test stimuli that trainings have learned from, by the content of the pictures.

    Where a split's design tests in other runs what was learned from, a training that has held out the very same trials
    counts as one that has not learned from them.

    Args:
        trainings: What was learned from, on any tables.
        table: Has the stimuli.
        stimuli: Ids of tested stimuli.
        split: The split that they are tested in.
        fold: Its fold.
    """
    ids = sorted(set(stimuli))
    hashes = table.stimuli.content_hashes(ids)
    repeats = bool(table.repeats_stimuli(split))
    tested = part_fingerprints(table.split_rows(split), fold)[schema.TEST] if repeats else None
    learned: set[str] = set()
    for training in trainings:
        held_out = (
            schema.TEST not in training.parts
            and training.table_fingerprint == table.fingerprint
            and training.part_fingerprints.get(schema.TEST) == tested
        )
        if not (repeats and held_out):
            learned |= {name for name, known in zip(ids, training.knows(hashes), strict=True) if known}
    return learned


def learned_fmri(
    trainings: Iterable[LearnedFrom],
    table: TrialTable,
    subject: str,
    split: str,
    fold: int,
    what: str | os.PathLike = "The pipeline",
) -> frozenset[int]:
    """Numbers of the test trials whose fMRI trainings have learned from, without what was shown.

    That is an option of a recipe: a source of `unpaired` that names the part "test" of the very split.

    Args:
        trainings: What was learned from, on any tables.
        table: The trial table.
        subject: A subject of the table.
        split: The split that is tested.
        fold: Its fold.
        what: The pipeline, for messages.

    Raises:
        FmriModelsError: Test trials are among those of another part, or of another split, or that was drawn again.
    """
    of_subject = [
        (schema.labelled_parts(each.parts), each)
        for each in trainings
        if each.table_fingerprint == table.fingerprint and subject in (each.fmri_of or ())
    ]
    if not of_subject:
        return frozenset()
    tested = set(table.trials(subject, schema.TEST, split, fold).trials.tolist())
    found: set[int] = set()
    for parts, training in of_subject:
        source = training.split, training.fold
        if not parts:
            continue
        named = f"{' and '.join(parts)} of the split {one_line(repr(source[0]))} (fold {source[1]})"
        if not _is_as_it_was(training, table):
            raise FmriModelsError(
                f"{one_line(what)} has learned from the fMRI of {named}, which {one_line(table.path)} does not have as "
                "it was then, so that nobody could say which test trials are unseen; put the split's file of then back "
                "into splits/, or train again."
            )
        both = tested & set(table.trials(subject, parts, *source).trials.tolist())
        if both and not (source == (split, fold) and schema.TEST in parts):
            raise FmriModelsError(
                f"{one_line(what)} has learned from the fMRI of {len(both)} of the {len(tested)} test trials of "
                f"{subject} in the split {one_line(repr(split))} (fold {fold}), as {named}; train it on parts of that "
                "split, where `test` among them makes every report transductive."
            )
        found |= both
    return frozenset(found)


def _is_as_it_was(training: LearnedFrom, table: TrialTable) -> bool:
    """Whether the table's split has the trials that it had at the training."""
    if training.split not in table.split_names() or training.fold >= table.num_folds(training.split):
        return False
    return part_fingerprints(table.split_rows(training.split), training.fold) == training.part_fingerprints


def held_out_notes(several: Sequence[HeldOut]) -> list[str]:
    """What a person should know of trials before believing anything that is made of them; empty if they are unseen."""
    notes = list(dict.fromkeys(doubt for each in several for doubt in each.doubts))
    stimuli = set().union(*(each.stimuli for each in several))
    learned = set().union(*(each.learned for each in several))
    if learned:
        notes.insert(
            0,
            f"The model, or one that its training started from, has learned from {len(learned)} of these "
            f"{len(stimuli)} pictures ({listed(sorted(learned))}): nothing here says how well new pictures are "
            "read.",
        )
    if fmri := sum(len(each.learned_fmri) for each in several):
        trials = sum(len(each.trials) for each in several)
        notes.insert(
            0,
            f"The model, or one that its training started from, has learned from the fMRI of {fmri} of these {trials} "
            "test trials, without their pictures: the results are transductive, and nothing here says how well new "
            "trials are read.",
        )
    return notes


def unknown_initial_note(name: str) -> str:
    """The sentence on an initial model that says nothing of its training."""
    return (
        f"Nobody knows all that the initial model {one_line(name, 120)} has learned from: these test pictures may be "
        "among it."
    )


def other_table_notes(
    trainings: Iterable[LearnedFrom], table: TrialTable, subject: str, stimuli: Sequence[str]
) -> list[str]:
    """A sentence on each other table that was learned from, in this training or before it, by which pictures are known.

    Of built-in scenes there is none where both tables show such: these have the same pixels wherever they are the same.

    Args:
        trainings: What was learned from.
        table: The table whose pictures are tested.
        subject: Whose test pictures these are.
        stimuli: Their ids.
    """
    learned = [
        each
        for each in _of_pictures(trainings)
        if each.table_fingerprint != table.fingerprint and not _both_show_scenes(each, table)
    ]
    if not learned:
        return []
    ids = sorted(set(stimuli))
    hashes = table.stimuli.content_hashes(ids)
    notes = []
    for name in dict.fromkeys(each.table for each in learned):
        known = [
            any(found) for found in zip(*(each.knows(hashes) for each in learned if each.table == name), strict=True)
        ]
        what = f"none of the {len(ids)}" if not any(known) else f"{sum(known)} of the {len(ids)}"
        notes.append(
            f"The pipeline, or a model that its training started from, has learned from another table too "
            f"({one_line(repr(name), 120)}): {what} pictures that {one_line(subject, 80)} is tested on "
            f"{'is' if sum(known) == 1 else 'are'} known to be among those of that table, by their pixels; whether "
            "others were shown there in another size or format is not known."
        )
    return notes


def _doubts(record: TrainingRecord, table: TrialTable, subject: str, stimuli: Sequence[str]) -> list[str]:
    doubts = [unknown_initial_note(name) for name in record.unknown_initial_models]
    doubts += other_table_notes(record.learned_from or [], table, subject, stimuli)
    if record.learned_from is None:
        doubts.append(
            "The pipeline was trained with an earlier version, which recorded only the name of its split "
            f"{one_line(repr(record.split))}: whether that was drawn again after the training could not be checked."
        )
        recipe: Mapping[str, Any] = record.recipe
        if recipe.get("initial_model") is not None:
            doubts.append(unknown_initial_note(str(recipe["initial_model"])))
    elif any(training.pictures is None for training in record.learned_from):
        doubts.append("The pictures that were learned from are too many to be recorded: these may be among them.")
    return doubts


def _of_pictures(trainings: Iterable[LearnedFrom]) -> list[LearnedFrom]:
    """Those trainings that have learned from pictures; of fMRI alone none was."""
    return [each for each in trainings if each.fmri_of is None and each.pictures != ""]


def _both_show_scenes(training: LearnedFrom, table: TrialTable) -> bool:
    """Whether both tables show built-in scenes, of which it is known which were learned from: each has its pixels."""
    return (
        bool(training.pictures)
        and shows_built_in_scenes(training.table, training.table_source)
        and shows_built_in_scenes(table.name, table.metadata.get("source", ""))
    )


def _doubts_on_another_table(record: TrainingRecord, table: TrialTable, part: str | None) -> list[str]:
    trainings = record.learned_from
    if trainings is None:
        known = ", and nobody knows whether it has learned from these pictures"
    elif all(_both_show_scenes(each, table) for each in _of_pictures(trainings)):
        known = ""
    else:
        known = ", and whether it has learned from these pictures is known only where they have the same pixels"
    doubts = [unknown_initial_note(name) for name in record.unknown_initial_models]
    which = f": the {part} trials are those of this table's split {schema.DEFAULT_SPLIT!r}" if part is not None else ""
    if not (which or known):
        return doubts
    return [
        f"The pipeline was trained on another table ({one_line(repr(record.table))}) than this one{which}{known}.",
        *doubts,
    ]
