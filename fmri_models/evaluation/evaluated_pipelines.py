"""The pipelines that are evaluated together: one, or those of a split's folds, and a reference for each."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..data import schema
from ..data.splits import named_folds
from ..data.table import TrialTable
from ..errors import FmriModelsError
from ..names import one_line
from ..pipeline_fmri import FmriToImagePipeline
from ..pipeline_folder import INDEX_FILE
from ..processing.options import UnseenSession
from ..swapping import recover
from ..training_differences import differing
from ..training_record import TrainingRecord
from .held_out import check_trained_split, learned_fmri, learned_stimuli
from .protocols import Measured

_SETTLED = re.compile(r"stages\.\d+\.objective\.selection")
_START = re.compile(r"initial_model|stages\.\d+\.teacher")
_FOLD = re.compile(r"fold[0-9]{2,6}", re.ASCII)
# user/name, as the Hub has it.
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class EvaluatedPipeline:
    """A pipeline that is loaded when its turn comes.

    Args:
        source: Its folder, or its name on the Hub.
        unseen_session: What its processor does with sessions of which it has no statistics; None leaves it as it is.
    """

    def __init__(self, source: str | os.PathLike, unseen_session: UnseenSession | None = None) -> None:
        self.source = source
        self.unseen_session = unseen_session
        self._loaded: FmriToImagePipeline | None = None

    def load(self) -> FmriToImagePipeline:
        """The pipeline; one from the Hub is loaded once.

        Raises:
            FmriModelsError: It can't be loaded, or its processor was never fitted.
        """
        loaded = self._loaded or FmriToImagePipeline.from_pretrained(self.source, unseen_session=self.unseen_session)
        loaded.processor.check_fitted()
        return loaded

    def record(self, table: TrialTable) -> TrainingRecord:
        """How it was trained; refuses another table or split, whose test trials may have been trained on.

        Raises:
            FmriModelsError: It was trained on another table, the split was drawn again, it has learned from the fMRI of
                test trials where nobody said so, no trial that it has learned from has a picture, or its record is
                damaged.
        """
        if Path(self.source).is_dir():
            record = TrainingRecord.load(self.source)
        else:
            # The record comes along with the pipeline.
            self._loaded = self.load()
            record = self._loaded.training_record
        if record is None:
            return TrainingRecord("unknown", table.name, table.fingerprint, "default", 0, ["train"], "average")
        check_trained_split(record, table, self.source)
        for subject in table.subjects:
            learned_fmri(record.learned_from or [], table, subject, record.split, record.fold, self.source)
        if not schema.labelled_parts(record.train_parts):
            raise FmriModelsError(
                f"{one_line(self.source)} has learned from {' and '.join(record.train_parts)} alone, where trials have "
                "no pictures; go on training it on trials that have some before it is evaluated."
            )
        return record


def evaluated_pipelines(
    model: str | os.PathLike, unseen_session: UnseenSession | None = None
) -> list[EvaluatedPipeline]:
    """The pipeline of a folder or of that name on the Hub, or those in a folder's `fold00` …

    Raises:
        FmriModelsError: There is no pipeline.
    """
    folder = Path(model)
    if not folder.exists() and _REPOSITORY.fullmatch(os.fspath(model)):
        return [EvaluatedPipeline(os.fspath(model), unseen_session)]
    recover(folder)
    if (folder / INDEX_FILE).is_file():
        return [EvaluatedPipeline(folder, unseen_session)]
    # A split may have more than a hundred folds.
    found = [path.parent for path in folder.glob(f"fold[0-9][0-9]*/{INDEX_FILE}")]
    folds = sorted((path for path in found if _FOLD.fullmatch(path.name)), key=lambda path: int(path.name[4:]))
    if not folds:
        raise FmriModelsError(
            f"{one_line(model)} holds neither a pipeline ({INDEX_FILE}) nor folds of one (fold00, fold01 …)."
        )
    return [EvaluatedPipeline(fold, unseen_session) for fold in folds]


def check_folds(saved: Sequence[EvaluatedPipeline], records: Sequence[TrainingRecord]) -> None:
    """Refuses to merge what was not trained alike, or is tested on the same trials.

    Args:
        saved: Pipelines of folds.
        records: How each was trained.

    Raises:
        FmriModelsError: A fold is there twice, or two are of other splits or recipes.
    """
    of_fold: dict[tuple[str, int], EvaluatedPipeline] = {}
    for each, record in zip(saved, records, strict=True):
        twin = of_fold.setdefault((record.split, record.fold), each)
        if twin is not each:
            raise FmriModelsError(
                f"{one_line(twin.source)} and {one_line(each.source)} were both trained on fold {record.fold} of the "
                f"split {record.split!r}, so that the same test trials would count twice; keep one of them."
            )
        for key, first, other in _differences_of_folds(records[0], record):
            raise FmriModelsError(
                f"{one_line(saved[0].source)} and {one_line(each.source)} were trained in different ways "
                f"({one_line(key, 80)} is {one_line(repr(first), 80)} and {one_line(repr(other), 80)}), so that no "
                "figure over both speaks of one method; train all folds with the same recipe, or evaluate each by "
                "itself."
            )


def _differences_of_folds(first: TrainingRecord, other: TrainingRecord) -> Iterator[tuple[str, Any, Any]]:
    """What differs between the trainings of two folds beyond what belongs to a fold."""
    described = [
        {"split": each.split, "method": each.method, "selection": _candidates(each), "recipe": each.recipe}
        for each in (first, other)
    ]
    found = [(key.removeprefix("recipe."), *values) for key, *values in differing(*described)]
    chosen = {str(key) for values in _candidates(first) for key in values}
    settled = {key.removesuffix("objective.selection") for key, *_ in found if _SETTLED.fullmatch(key)}
    for key, one, two in found:
        is_chosen = any(key == each or key.startswith(f"{each}.") for each in chosen)
        # What selection: auto has come to on the fold's trials, and with it the parts that are learned from.
        is_settled = any(key.startswith((f"{stage}objective.selection", f"{stage}train_on.")) for stage in settled)
        # Each fold may start from what was trained on the same fold of other data.
        is_start = _START.fullmatch(key) is not None and one is not None and two is not None
        if key not in ("fold", "folds") and not (is_chosen or is_settled or is_start):
            yield key, one, two


def _candidates(record: TrainingRecord) -> list[dict[str, Any]]:
    """The settings among which a selection chose; none without one."""
    found = (record.selection or {}).get("candidates")
    values = [each.get("values") for each in found if isinstance(each, dict)] if isinstance(found, list) else []
    return [each for each in values if isinstance(each, dict)]


def missing_folds_notes(table: TrialTable, records: Sequence[TrainingRecord]) -> list[str]:
    """A sentence on the folds of a split of which no pipeline is there; none if all are."""
    split, there = records[0].split, {record.fold for record in records}
    missing = [fold for fold in range(table.num_folds(split)) if fold not in there]
    if not missing:
        return []
    return [
        f"Only {named_folds(sorted(there))} of the {table.num_folds(split)} of the split {split!r} (from 0) "
        f"{'is' if len(there) == 1 else 'are'} evaluated: of {named_folds(missing)} there is no pipeline, and no "
        "figure here is one of the whole split."
    ]


def references_of(
    reference: str | os.PathLike,
    table: TrialTable,
    records: Sequence[TrainingRecord],
    unseen_session: UnseenSession | None = None,
) -> list[EvaluatedPipeline]:
    """For each evaluated pipeline the reference that was trained on the same split and fold.

    Args:
        reference: A pipeline, or the folder of `fold00` … with one each.
        table: The trial table.
        records: Of the evaluated pipelines.
        unseen_session: As of [`EvaluatedPipeline`].

    Raises:
        FmriModelsError: There is none, so that the reference may have learned from the test pictures.
    """
    found = {}
    pipelines = evaluated_pipelines(reference, unseen_session)
    of_pipelines = [each.record(table) for each in pipelines]
    check_folds(pipelines, of_pipelines)
    for saved, record in zip(pipelines, of_pipelines, strict=True):
        tested = [name for subject in table.subjects for name in tested_stimuli(table, subject, record)]
        if learned := learned_stimuli(record.learned_from or [], table, tested, record.split, record.fold):
            raise FmriModelsError(
                f"The reference {one_line(saved.source)}, or a model that its training started from, has learned from "
                f"{len(learned)} of the test pictures; train it without them."
            )
        trainings = record.learned_from or []
        if any(learned_fmri(trainings, table, name, record.split, record.fold) for name in table.subjects):
            raise FmriModelsError(
                f"The reference {one_line(saved.source)}, or a model that its training started from, has learned from "
                "the fMRI of test trials; train it without them, or compare reports."
            )
        found[record.split, record.fold] = saved
    for record in records:
        if (record.split, record.fold) not in found:
            trained = ", ".join(f"{split!r} fold {fold}" for split, fold in found)
            raise FmriModelsError(
                f"The reference {one_line(reference)} was trained on the split {trained} and the model on "
                f"{record.split!r} fold {record.fold}, so that it may have seen the test pictures; train it on the "
                "same split and folds."
            )
    return [found[record.split, record.fold] for record in records]


def tested_stimuli(table: TrialTable, subject: str, record: TrainingRecord, measured: Measured = "all") -> list[str]:
    """The stimuli of a subject's test trials in the fold that a pipeline was trained on, as often as they are.

    Args:
        table: The trial table.
        subject: Name.
        record: How the pipeline was trained.
        measured: Of trials in which pictures were seen, or imagined, alone.
    """
    trials = table.trials(subject, "test", record.split, record.fold)
    if measured == "all":
        return trials.stimulus_ids.tolist()
    return trials.stimulus_ids[trials.imagery if measured == "imagined" else ~trials.imagery].tolist()
