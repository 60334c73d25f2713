"""Nested selection: which of a recipe's settings a fold is trained with, decided inside the fold's training stimuli.

The stimuli that the fold's stages learn from or validate on are divided into inner folds. Each candidate is trained on
all inner folds but one, and its pictures of the one left out are scored; the candidate with the best mean is then
trained as the recipe says. The fold's test pictures have no part in it (Cawley & Talbot, 2010).
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple, cast

import numpy as np
import torch
from pydantic import Field
from transformers.utils import logging
from typing_extensions import TypedDict

from ..data import schema
from ..data.processed import ProcessedTrials
from ..data.splits import SplitRows, split_by_run, split_kfold
from ..data.table import Trials, TrialTable
from ..data.targets import prepare_pictures
from ..errors import FmriModelsError
from ..evaluation.protocols import Protocol, metric_info
from ..evaluation.scoring import RowData, score_rows
from ..evaluation.seeded_drawing import SeededDrawing
from ..pipeline_fmri import FmriToImagePipeline
from ..reading import checked, read_object
from ..registry import get_method
from ..saving import json_text, write_text
from .checkpoints import RunFolder
from .processes import processes
from .recipe import Recipe, Selection, check_keys
from .stages import stage_objective

INNER_SPLIT = "selection"
# Metrics of pictures that compare them with nothing but the picture shown, or the others of the inner fold.
METRICS = ("pixcorr", "ssim", "ssim_uniform", "mse", "pairwise_pixcorr", "identification_top1")

logger = logging.get_logger(__name__)


class Trained(NamedTuple):
    """What a training gave: the pipeline, the result of each stage, and the time over all runs."""

    pipeline: FmriToImagePipeline
    history: list[dict[str, Any]]
    seconds: float


# Trains a recipe, with its checkpoints beside a folder; the last argument says whether to go on from those.
Train = Callable[[Recipe, TrialTable, Path, bool], AbstractContextManager[Trained]]


class _Score(TypedDict):
    """What an inner training gave."""

    score: Annotated[float, Field(allow_inf_nan=False)]
    items: Annotated[int, Field(ge=1, lt=2**53)]
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Candidate(TypedDict):
    """What `training.json` holds of a candidate, as far as it is read again."""

    values: dict[str, Any]


class _Choice(TypedDict):
    """What `training.json` holds of a selection, as far as it is read again."""

    metric: str
    inner_folds: int
    chosen: Annotated[int, Field(ge=0)]
    candidates: list[_Candidate]


@dataclass
class Chosen:
    """What a selection found.

    Args:
        recipe: The recipe with the chosen setting, without a selection.
        record: The choice, for `training.json`: metric, number of inner folds, and for each candidate its values and
            scores.
        seconds: Time that it took, over all runs.
    """

    recipe: Recipe
    record: dict[str, Any]
    seconds: float


class SelectionFolder(RunFolder):
    """Where a selection keeps its scores and what it trains.

    Args:
        out: The output folder of the training; the selection is in the hidden folder `.<name>.selection` beside it.
    """

    purpose = "selection"

    @property
    def exists(self) -> bool:
        """Whether there is anything to go on from."""
        return self._scores_file.is_file() or any(self.folder.glob(".*.training/stage*/*"))

    def scores(self) -> dict[str, Any]:
        """Name of an inner training ▶ its score, number of items, and seconds; of those that are finished.

        Raises:
            FmriModelsError: The file is damaged.
        """
        if not self._scores_file.is_file():
            return {}
        mend = "delete it, and --resume selects again"
        try:
            scores = checked(read_object(self._scores_file, "record of scores", mend), dict[str, _Score], "It", mend)
        except FmriModelsError as error:
            raise FmriModelsError(f"{self._scores_file} is damaged ({str(error).rstrip('.')}).") from error
        return cast(dict[str, Any], scores)

    def save_scores(self, scores: Mapping[str, Any]) -> None:
        """Replaces the scores."""
        write_text(self._scores_file, json_text(scores))

    @property
    def _scores_file(self) -> Path:
        return self.folder / "scores.json"


def select(recipe: Recipe, table: TrialTable, out: Path, run: Mapping[str, Any], resume: bool, train: Train) -> Chosen:
    """Chooses among a recipe's candidates.

    Args:
        recipe: Of one fold, with a selection.
        table: The trial table.
        out: The output folder of the training; inner trainings happen beside it.
        run: What has to be the same for an interrupted selection to go on.
        resume: Go on with an interrupted selection, if there is one.
        train: Trains a recipe.

    Raises:
        FmriModelsError: A candidate, the metric, or the number of inner folds does not fit.
        TrainingInterrupted: In an inner training, when its checkpoint is saved.
    """
    selection = recipe.selection
    assert selection is not None
    candidates = [recipe.with_values(values) for values in selection.candidates]
    _check(selection, candidates)
    inner = table.with_split(INNER_SPLIT, inner_split(recipe, table, selection.folds))
    folder = SelectionFolder(out)
    with _kept_for_resume(folder, run, resume):
        scores = folder.scores()
        for number, candidate in enumerate(candidates):
            for fold in range(selection.folds):
                name = _name(number, fold)
                if name in scores:
                    continue
                logger.info(f"Selection: {selection.candidates[number]}, inner fold {fold + 1} of {selection.folds}.")
                inner_recipe = candidate.with_values({"split": INNER_SPLIT, "fold": fold, "trackers": []})
                scores[name] = _trained_and_scored(inner_recipe, inner, folder.folder / name, selection.metric, train)
                if processes().is_main_process:
                    folder.save_scores(scores)
                processes().wait_for_everyone()
    return _choice(selection, candidates, scores)


def described(selection: Selection | None) -> dict[str, Any]:
    """What makes a selection the same as another one: its metric, its inner folds and its candidates."""
    if selection is None:
        return {}
    return {"metric": selection.metric, "folds": selection.folds, "candidates": selection.candidates}


def recorded(record: Mapping[str, Any] | None, source: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What [`described`] says of the selection in a `training.json`, and the values that it chose.

    Args:
        record: What the file holds of it; None if nothing was chosen.
        source: The pipeline, for messages.

    Raises:
        FmriModelsError: It is damaged.
    """
    if record is None:
        return {}, {}
    what, mend = f"The record of the selection of {source}", "take training.json from where it was trained"
    choice = checked(dict(record), _Choice, what, mend)
    candidates = [each["values"] for each in choice["candidates"]]
    if choice["chosen"] >= len(candidates):
        raise FmriModelsError(f"{what} chose number {choice['chosen']} of {len(candidates)} candidates; {mend}.")
    described = {"metric": choice["metric"], "folds": choice["inner_folds"], "candidates": candidates}
    return described, candidates[choice["chosen"]]


@contextmanager
def _kept_for_resume(folder: SelectionFolder, run: Mapping[str, Any], resume: bool) -> Iterator[None]:
    """Makes the folder ready, and removes it if an error comes before there is anything to go on from."""
    main = processes().is_main_process
    if resume and folder.exists:
        folder.check_same_run(run)
        if main:
            folder.recover()
    elif main:
        folder.begin(run)
    processes().wait_for_everyone()
    try:
        yield
    except BaseException:
        if main and not folder.exists:
            folder.remove()
        raise


def inner_split(recipe: Recipe, table: TrialTable, folds: int) -> Any:
    """Rows of a split into inner folds, over the stimuli of a fold that are not its test stimuli.

    Each stimulus is left out in one inner fold, as its part `test`; each run instead, where the design tests stimuli
    that are learned from in other runs. Where a stage of the recipe makes choices on validation trials, part of the
    others is `validation`.

    Raises:
        FmriModelsError: There are fewer stimuli, or runs, than folds.
    """
    parts = sorted({part for stage in recipe.stages for part in (*stage.train_on, *stage.validate_on)})
    rows = SplitRows.of_table(table)
    chosen = {
        (subject, int(trial))
        for subject in recipe.subjects or table.subjects
        for trial in table.trials(subject, parts, recipe.split, recipe.fold).trials
    }
    kept = [row for row, key in enumerate(zip(rows.subjects, rows.trials, strict=True)) if key in chosen]
    inside = SplitRows(
        [rows.subjects[row] for row in kept],
        [rows.trials[row] for row in kept],
        [rows.stimulus_ids[row] for row in kept],
        [rows.runs[row] for row in kept],
        rows.groups,
        rows.categories,
    )
    draw = split_by_run if table.repeats_stimuli(recipe.split) else split_kfold
    return draw(inside, recipe.seed, folds, _validation_share(recipe, table)).table


def _validation_share(recipe: Recipe, table: TrialTable) -> float:
    """Share of validation among training and validation; 0 where no stage makes choices on it.

    Of the stimuli, or of the trials where stimuli are in both.
    """
    if not any(stage.held_out_parts for stage in recipe.stages):
        return 0.0
    numbers = []
    for part in (schema.TRAIN, schema.VALIDATION):
        subjects = recipe.subjects or table.subjects
        shown = [table.trials(subject, part, recipe.split, recipe.fold).stimulus_ids.tolist() for subject in subjects]
        ids = [stimulus for of_subject in shown for stimulus in of_subject]
        numbers.append(len(ids) if table.repeats_stimuli(recipe.split) else len(set(ids)))
    return numbers[1] / sum(numbers) if all(numbers) else 0.0


def picture_scores(
    pipeline: FmriToImagePipeline, trials: Mapping[str, Trials], table: TrialTable, metric: str
) -> np.ndarray:
    """Scores of the pictures that a pipeline draws with its own settings, one an averaged stimulus and subject.

    Args:
        pipeline: Brain model, processor and image generator.
        trials: Subject ▶ trials.
        table: Has the pictures that were shown.
        metric: One of `METRICS`.

    Returns:
        (items,) float64.
    """
    drawing = SeededDrawing(pipeline.drawing_settings)
    protocol = Protocol(INNER_SPLIT, "", (metric,))
    values = []
    for subject, subject_trials in trials.items():
        processed = ProcessedTrials(subject_trials, pipeline.processor, "average")
        count, ids = len(processed), processed.stimulus_ids.tolist()
        features = torch.zeros(count, pipeline.processor.width)
        features[:, : processed.width] = torch.from_numpy(processed[np.arange(count)])
        subject_ids = torch.full((count,), pipeline.processor.subject_names.index(subject))
        decoding = pipeline.decode(features, subject_ids, generator=drawing.sources(count))
        images = pipeline.generate(
            decoding, generator=drawing.sources(count), output_type="pt", num_patterns=count
        ).images
        assert isinstance(images, torch.Tensor)
        truth = prepare_pictures(table.stimuli.images(ids), pipeline.image_generator.image_size)
        scores = score_rows({"brain": RowData(images=images)}, truth, ids, protocol, permutations=0)
        found = scores.values["brain"][metric]
        values.append(np.full(count, np.nan) if found is None else found)
    return np.concatenate(values)


def _check(selection: Selection, candidates: list[Recipe]) -> None:
    """Finds mistakes in any candidate before the first one is trained."""
    if selection.metric not in METRICS:
        raise FmriModelsError(f"selection.metric is {selection.metric!r}; expected {', '.join(METRICS)}.")
    for candidate in candidates:
        check_keys(candidate.model, get_method(candidate.method).load("config"), "A candidate's model")
        for stage in candidate.stages:
            stage_objective(candidate, stage)


def _trained_and_scored(recipe: Recipe, table: TrialTable, out: Path, metric: str, train: Train) -> dict[str, Any]:
    started = time.perf_counter()
    with train(recipe, table, out, True) as trained:
        subjects = trained.pipeline.processor.subject_names
        trials = {name: table.trials(name, schema.TEST, recipe.split, recipe.fold) for name in subjects}
        values = picture_scores(trained.pipeline, trials, table, metric)
    present = np.isfinite(values)
    if not present.any():
        raise FmriModelsError(
            f"The metric {metric!r} has no value in an inner fold of {len(values)} stimuli; choose fewer "
            "selection.folds or another selection.metric."
        )
    return {
        "score": float(values[present].mean()),
        "items": int(present.sum()),
        "seconds": round(time.perf_counter() - started, 2),
    }


def _choice(selection: Selection, candidates: list[Recipe], scores: Mapping[str, Any]) -> Chosen:
    """The candidate with the best mean over all items; the first one of equals."""
    results: list[dict[str, Any]] = []
    for number, values in enumerate(selection.candidates):
        folds = [scores[_name(number, fold)] for fold in range(selection.folds)]
        mean = np.average([each["score"] for each in folds], weights=[each["items"] for each in folds])
        results.append({"values": values, "score": float(mean), "folds": [each["score"] for each in folds]})
    means = np.array([result["score"] for result in results])
    best = int(means.argmax() if metric_info(selection.metric).higher_is_better else means.argmin())
    record = {"metric": selection.metric, "inner_folds": selection.folds, "chosen": best, "candidates": results}
    logger.info(f"Selection: chose {selection.candidates[best]} ({selection.metric} {results[best]['score']:.4f}).")
    seconds = sum(each["seconds"] for each in scores.values())
    return Chosen(candidates[best], record, seconds)


def _name(candidate: int, fold: int) -> str:
    return f"candidate{candidate:02d}-fold{fold:02d}"
