"""Nested selection: which of a recipe's settings a fold is trained with, decided inside the fold's training stimuli.

The stimuli that the fold's stages learn from or validate on are divided into inner folds. Each candidate is trained on
all inner folds but one, and its pictures of the one left out are scored; the candidate with the best mean is then
trained as the recipe says. The fold's test pictures have no part in it (Cawley & Talbot, 2010).
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers.utils import logging

from ..data import schema
from ..data.table import TrialTable
from ..errors import FmriModelsError
from ..evaluation.named_metrics import get_metric
from ..registry import get_method
from .inner_folds import INNER_SPLIT, inner_split
from .picture_scores import METRICS, picture_scores
from .processes import processes
from .recipe import Recipe, Selection, published_candidates
from .recipe_options import check_keys
from .selection_folder import SelectionFolder
from .stage_objectives import stage_objective
from .training_run import run_identity, trained

logger = logging.get_logger(__name__)


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


def select(recipe: Recipe, table: TrialTable, out: Path, resume: bool) -> Chosen:
    """Chooses among a recipe's candidates.

    Args:
        recipe: Of one fold, with a selection.
        table: The trial table.
        out: The output folder of the training; inner trainings happen beside it.
        resume: Go on with an interrupted selection, if there is one.

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
    with folder.kept_for_resume(run_identity(recipe, table), resume):
        scores = folder.scores()
        for number, candidate in enumerate(candidates):
            for fold in range(selection.folds):
                name = _name(number, fold)
                if name in scores:
                    continue
                logger.info(f"Selection: {selection.candidates[number]}, inner fold {fold + 1} of {selection.folds}.")
                inner_recipe = candidate.with_values({"split": INNER_SPLIT, "fold": fold, "trackers": []})
                scores[name] = _trained_and_scored(inner_recipe, inner, folder.folder / name, selection.metric)
                if processes().is_main_process:
                    folder.save_scores(scores)
                processes().wait_for_everyone()
    return _choice(selection, candidates, scores)


def _check(selection: Selection, candidates: list[Recipe]) -> None:
    """Finds mistakes in any candidate before the first one is trained."""
    if selection.metric not in METRICS:
        raise FmriModelsError(f"selection.metric is {selection.metric!r}; expected {', '.join(METRICS)}.")
    for candidate in candidates:
        check_keys(candidate.model, get_method(candidate.method).load("config"), "A candidate's model")
        for stage in candidate.stages:
            stage_objective(candidate, stage)


def _trained_and_scored(recipe: Recipe, table: TrialTable, out: Path, metric: str) -> dict[str, Any]:
    started = time.perf_counter()
    with trained(recipe, table, out, resume=True) as result:
        subjects = result.pipeline.processor.subject_names
        trials = {name: table.trials(name, schema.TEST, recipe.split, recipe.fold) for name in subjects}
        values = picture_scores(result.pipeline, trials, table, metric)
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
        results.append(
            {
                "values": published_candidates([values])[0],
                "score": float(mean),
                "folds": [each["score"] for each in folds],
            }
        )
    means = np.array([result["score"] for result in results])
    best = int(means.argmax() if get_metric(selection.metric).higher_is_better else means.argmin())
    record = {"metric": selection.metric, "inner_folds": selection.folds, "chosen": best, "candidates": results}
    logger.info(f"Selection: chose {selection.candidates[best]} ({selection.metric} {results[best]['score']:.4f}).")
    seconds = sum(each["seconds"] for each in scores.values())
    return Chosen(candidates[best], record, seconds)


def _name(candidate: int, fold: int) -> str:
    return f"candidate{candidate:02d}-fold{fold:02d}"
