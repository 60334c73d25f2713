"""The figures of a report, made of item scores: means with intervals, paired differences, the permutation test."""

from dataclasses import asdict
from typing import Any

import numpy as np

from .bootstrap import interval, means_over_stimuli, paired_difference, permutation_test, stimulus_means
from .named_metrics import get_metric
from .scores import Scores

Results = dict[str, dict[str, dict[str, Any] | None]]


def results(scores: Scores, draws: int, seed: int) -> Results:
    """Row ▶ metric ▶ mean over the stimuli with its interval; None where the row has no such metric.

    Args:
        scores: Of all rows.
        draws: Bootstrap samples.
        seed: Of the bootstrap.
    """
    return {
        row: {metric: _result(metric, values, scores, draws, seed) for metric, values in metrics.items()}
        for row, metrics in scores.values.items()
    }


def _result(metric: str, values: np.ndarray | None, scores: Scores, draws: int, seed: int) -> dict[str, Any] | None:
    if values is None:
        return None
    described = get_metric(metric)
    found = interval(values, scores.units.tolist(), draws, seed, described.bounds, widening=scores.widening)
    if found is None:
        return None
    return {**asdict(found), "ci95": None if found.ci95 is None or described.of_whole_set else list(found.ci95)}


def comparisons(scores: Scores, draws: int, seed: int) -> Results:
    """Paired differences of the row `brain` and every other row, where both have the metric."""
    compared: Results = {}
    brain = scores.values.get("brain", {})
    for row, metrics in scores.values.items():
        if row == "brain" or not brain:
            continue
        compared[row] = {}
        for metric, values in metrics.items():
            own = brain.get(metric)
            if values is None or own is None:
                compared[row][metric] = None
                continue
            compared[row][metric] = _difference(metric, own, values, scores, draws, seed)
    return compared


def _difference(
    metric: str, own: np.ndarray, values: np.ndarray, scores: Scores, draws: int, seed: int
) -> dict[str, Any] | None:
    described, ids = get_metric(metric), scores.units.tolist()
    higher, bounds = described.higher_is_better, described.bounds
    found = paired_difference(own, values, ids, higher, draws, seed, bounds, scores.widening)
    if found is None:
        return None
    # Figures of whole sets, of which each stimulus has that of its subject and fold, do not scatter as stimuli do.
    return found.to_dict() | ({"ci95": None} if described.of_whole_set else {})


def permutation_tests(scores: Scores) -> dict[str, dict[str, Any]]:
    """What re-paired reconstructions of the row `brain` score in each metric."""
    tests = {}
    for metric, permuted in scores.permuted.items():
        true = scores.values["brain"][metric]
        if true is None:
            continue
        # A pairing can leave an item without a score (no other picture has its background).
        observed, *means = means_over_stimuli(np.concatenate([true[None], permuted]), scores.units)
        if np.isfinite(observed) and np.isfinite(means).any():
            higher = get_metric(metric).higher_is_better
            found = permutation_test(np.array(means), float(observed), higher, scores.exhaustive, scores.widening)
            tests[metric] = asdict(found)
    return tests


def means_by_subject(scores: Scores) -> dict[str, Any]:
    """Subject ▶ row ▶ metric ▶ mean over the stimuli, and number of items."""
    found: dict[str, Any] = {}
    for subject in dict.fromkeys(scores.subjects.tolist()):
        own = scores.subjects == subject
        found[subject] = {
            row: {
                metric: None if values is None or not np.isfinite(values[own]).any()
                else {
                    "value": float(stimulus_means(values[own], scores.units[own]).mean()),
                    "n": int(np.isfinite(values[own]).sum()),
                }
                for metric, values in metrics.items()
            }
            for row, metrics in scores.values.items()
        }  # fmt: skip
    return found


def means_over_subjects(by_subject: dict[str, Any]) -> Results:
    """Row ▶ metric ▶ mean, standard deviation and number of the subjects' values, as papers state them.

    Args:
        by_subject: What [`means_by_subject`] returns.

    Returns:
        Nothing of one subject; None where one of them has no value.
    """
    if len(by_subject) < 2:
        return {}
    of_subjects = list(by_subject.values())
    found: Results = {}
    for row, metrics in of_subjects[0].items():
        found[row] = {}
        for metric in metrics:
            values = [each[row][metric] for each in of_subjects]
            known = np.array([each["value"] for each in values if each is not None])
            found[row][metric] = (
                None
                if len(known) < len(values)
                else {"value": float(known.mean()), "sd": float(known.std(ddof=1)), "n": len(known)}
            )
    return found
