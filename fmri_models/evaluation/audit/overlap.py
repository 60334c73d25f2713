"""How near test pictures are to those that were learned from, and whether near ones score better."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..bootstrap import DRAWS, FEWEST_STIMULI, holm, interval, paired_difference, stimulus_means
from ..named_metrics import Metric as NamedMetric
from ..named_metrics import get_metric
from ..rank_correlation import bins_of_units, difference_of_samples, rank_correlation
from ..scored_items import picture_ids
from ..scores import Scores
from ..stimulus_vectors import spaces_agree
from .figures import first_metric
from .overlap_schema import LESS, MOST_PAIRS, MOST_POINTS, ROWS, SEVERAL, Overlap
from .overlap_words import limit, notes, plot, tables
from .part import AuditedItems, AuditPart

if TYPE_CHECKING:
    from ..evaluated_subject import EvaluatedSubject

_HELD_OUT_SHARE, _LEAST_ASKED, _MOST_ASKED = 5, 50, 1000
_QUANTILES = (0, 0.25, 0.5, 0.75, 1)


@dataclass
class SubjectOverlap:
    """How near one subject's test items of a fold are to what was learned from.

    Args:
        subject: Name.
        fold: Fold of the split.
        space: What compares, see [`StimulusVectors.described`].
        stimulus_ids: (N,) of the items.
        pictures: (N,) equal for the very same picture.
        distances: (N,) to the nearest training picture; NaN where that is not defined.
        of_several: (N,) mean to the nearest five.
        nearest: (N,) the nearest training picture.
        to_rest: (N,) to the nearest of the training pictures that were not held out; empty where none were.
        of_held_out: (H,) of training pictures that were held out, to the nearest of the rest.
        held_out: Their H names; subjects who learned from the same pictures have the same ones held out.
        training: How many training pictures there are.
        without_picture: How many more have no picture in the table.
    """

    subject: str
    fold: int
    space: dict[str, Any]
    stimulus_ids: list[str]
    pictures: np.ndarray
    distances: np.ndarray
    of_several: np.ndarray
    nearest: list[str]
    to_rest: np.ndarray
    of_held_out: np.ndarray
    held_out: list[str]
    training: int
    without_picture: int

    @property
    def shares_of_training(self) -> np.ndarray:
        """(N,) share of held-out training pictures that are nearer to the rest than an item; ties count as half."""
        return _shares_below(self.to_rest, self.of_held_out)

    @property
    def shares_of_test(self) -> np.ndarray:
        """(H,) share of the items that are farther from the rest than a held-out picture; ties count as half."""
        return 1 - _shares_below(self.of_held_out, self.to_rest)


def _shares_below(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(N,) share of others below each value, ties as half; NaN where one side has nothing."""
    in_order = np.sort(others[np.isfinite(others)])
    if not len(in_order):
        return np.full(len(values), np.nan)
    ends = [np.searchsorted(in_order, values, side=side) for side in ("left", "right")]
    return np.where(np.isfinite(values), (ends[0] + ends[1]) / 2 / len(in_order), np.nan)


def measure(of: "EvaluatedSubject") -> SubjectOverlap | str:
    """Distances of a subject's items; a sentence where there are no training pictures."""
    vectors = of.stimulus_vectors
    if len(vectors.training_ids) < 2:
        return (
            f"{len(vectors.training_ids)} training pictures of {of.subject} are in the table, so that nothing says how "
            "near test pictures are to them."
        )
    found = vectors.nearest(vectors.test, SEVERAL)
    pictures = picture_ids(of.stimulus_ids, of.truth)
    held = _held_out(len(vectors.training_ids), len(set(pictures.tolist())), of.drawn_by.seed)
    to_rest, of_held_out = np.zeros(0), np.zeros(0)
    if len(held):
        to_rest = vectors.nearest(vectors.test, 1, without=held).distances[:, 0]
        of_held_out = vectors.nearest(vectors.training[held], 1, without=held).distances[:, 0]
    return SubjectOverlap(
        of.subject,
        of.record.fold,
        vectors.described(),
        of.stimulus_ids,
        pictures,
        found.distances[:, 0],
        found.distances.mean(axis=1),
        [vectors.training_ids[position] for position in found.positions],
        to_rest,
        of_held_out,
        [vectors.training_ids[position] for position in held],
        len(vectors.training_ids),
        vectors.without_picture,
    )


def _held_out(training: int, tested: int, seed: int) -> np.ndarray:
    """Positions of training pictures that are held out: about as many as are tested, a fifth at most.

    Test pictures and these are compared with the same rest, of which neither is part. Distances among all training
    pictures would not do: those of two that are each other's nearest are one and the same.
    """
    count = min(training // _HELD_OUT_SHARE, max(_LEAST_ASKED, tested), _MOST_ASKED)
    if count < FEWEST_STIMULI:
        return np.zeros(0, dtype=np.int64)
    return np.sort(np.random.default_rng(seed).choice(training, count, replace=False))


def content(of: AuditedItems) -> dict[str, Any]:
    """What goes into report.json."""
    reasons = [each for each in of.measured if isinstance(each, str)]
    if reasons:
        return {"not_defined": reasons[0]}
    subjects: Sequence[SubjectOverlap] = of.measured
    if not spaces_agree([each.space for each in subjects]):
        return {"not_defined": "The folds have image generators of different weights, whose distances are not one."}
    scores, strata = of.scores, _strata(subjects)
    distances = np.concatenate([each.distances for each in subjects])
    if len(set(scores.units[np.isfinite(distances)].tolist())) < 2:
        return {"not_defined": "Fewer than two test pictures can be compared with the training pictures."}
    bins = bins_of_units(distances, scores.units, strata)
    metrics = [get_metric(name) for name in scores.values.get("brain", {})]
    metrics = [each for each in metrics if not each.of_whole_set and _values(scores, "brain", each) is not None]
    return {
        "space": subjects[0].space,
        "stimuli": len(set(scores.units.tolist())),
        "training": [min(each.training for each in subjects), max(each.training for each in subjects)],
        "without_picture": max(each.without_picture for each in subjects),
        "nearest": _nearest(subjects, distances, scores, of.seed),
        "closest": _closest(subjects),
        "bins": [_bin(distances[positions], scores.units[positions]) for positions in bins],
        "scores": _scores_of_bins(scores, metrics, bins, of.seed),
        "less": _differences_of_bins(scores, metrics, bins, of.seed),
        "far_less_near": _far_less_near(scores, metrics, bins),
        "relation": _relations(scores, metrics, distances, strata, of.seed),
        "points": _points(scores, metrics, distances),
    }


def _strata(subjects: Sequence[SubjectOverlap]) -> list[np.ndarray]:
    """Positions of the items of each subject and fold."""
    ends = np.cumsum([len(each.distances) for each in subjects])
    return [np.arange(end - len(each.distances), end) for end, each in zip(ends, subjects, strict=True)]


def _quantiles(values: np.ndarray) -> list[float]:
    return np.quantile(values, _QUANTILES).tolist()


def _nearest(subjects: Sequence[SubjectOverlap], distances: np.ndarray, scores: Scores, seed: int) -> dict[str, Any]:
    several = np.concatenate([each.of_several for each in subjects])
    controlled = all(len(each.of_held_out) for each in subjects)
    to_rest = np.concatenate([each.to_rest for each in subjects])
    held_out = np.concatenate([each.of_held_out for each in subjects])
    held_out = held_out[np.isfinite(held_out)]
    controlled = controlled and len(held_out) > 0 and bool(np.isfinite(to_rest).any())
    return {
        "test": _quantiles(stimulus_means(distances, scores.units)),
        "test_of_several": _quantiles(stimulus_means(several, scores.units)),
        "test_to_rest": _quantiles(stimulus_means(to_rest, scores.units)) if controlled else None,
        "held_out_to_rest": _quantiles(held_out) if controlled else None,
        "held_out": [min(_counts(subjects)), max(_counts(subjects))],
        "farther": _farther(subjects, scores, seed) if controlled else None,
    }


def _counts(subjects: Sequence[SubjectOverlap]) -> list[int]:
    return [len(each.of_held_out) for each in subjects]


def _farther(subjects: Sequence[SubjectOverlap], scores: Scores, seed: int) -> dict[str, Any] | None:
    """The probability that a test picture is farther from the rest of the training than a held-out picture is."""
    shares = np.concatenate([each.shares_of_training for each in subjects])
    found = interval(shares, scores.units.tolist(), DRAWS, seed, (0.0, 1.0), widening=scores.widening)
    if found is None:
        return None
    result = _plain(asdict(found))
    # Held-out pictures are a sample, too: the variance of both sides (DeLong et al., 1988).
    of_test = np.concatenate([each.shares_of_test for each in subjects])
    # One that several subjects or folds have held out counts once, as a test picture of several does.
    names = np.asarray([name for each in subjects for name in each.held_out])
    both = difference_of_samples(shares, scores.units, np.nanmean(of_test) - of_test, names, scores.widening)
    if found.ci95 is None or both is None or both.ci95 is None:
        return result
    centre = found.value - both.difference
    low, high = (max(0.0, both.ci95[0] + centre), min(1.0, both.ci95[1] + centre))
    return {**result, "ci95": [min(low, found.ci95[0]), max(high, found.ci95[1])]}


def _closest(subjects: Sequence[SubjectOverlap]) -> list[dict[str, Any]]:
    """The pairs that are nearest, each once."""
    pairs = {
        (each.stimulus_ids[place], each.nearest[place]): float(each.distances[place])
        for each in subjects
        for place in np.flatnonzero(np.isfinite(each.distances)).tolist()
    }
    in_order = sorted(pairs.items(), key=lambda item: (item[1], item[0]))[:MOST_PAIRS]
    return [{"stimulus": one, "training": other, "distance": far} for (one, other), far in in_order]


def _bin(distances: np.ndarray, units: np.ndarray) -> dict[str, Any]:
    means = stimulus_means(distances, units)
    return {"from": float(means.min()), "to": float(means.max()), "mean": float(means.mean()), "stimuli": len(means)}


def _values(scores: Scores, row: str, metric: NamedMetric) -> np.ndarray | None:
    found = scores.values.get(row, {}).get(metric.name)
    return None if found is None or not np.isfinite(found).any() else found


def _oriented(scores: Scores, row: str, metric: NamedMetric) -> np.ndarray | None:
    """(N,) a row's scores, larger the better."""
    found = _values(scores, row, metric)
    return found if found is None or metric.higher_is_better else -found


def _less(scores: Scores, row: str, metric: NamedMetric) -> np.ndarray | None:
    """(N,) how much better the brain row is."""
    own, other = _oriented(scores, "brain", metric), _oriented(scores, row, metric)
    return None if own is None or other is None else own - other


def _scores_of_bins(
    scores: Scores, metrics: Sequence[NamedMetric], bins: Sequence[np.ndarray], seed: int
) -> dict[str, Any]:
    found: dict[str, Any] = {row: {} for row in ROWS if row in scores.values}
    for row, by_metric in found.items():
        for metric in metrics:
            values = _values(scores, row, metric)
            if values is not None:
                by_metric[metric.name] = [_result(values[at], scores, at, metric, seed) for at in bins]
    return found


def _result(
    values: np.ndarray, scores: Scores, at: np.ndarray, metric: NamedMetric, seed: int
) -> dict[str, Any] | None:
    found = interval(values, scores.units[at].tolist(), DRAWS, seed, metric.bounds, widening=scores.widening)
    return None if found is None else _plain(asdict(found))


def _differences_of_bins(
    scores: Scores, metrics: Sequence[NamedMetric], bins: Sequence[np.ndarray], seed: int
) -> dict[str, Any]:
    found: dict[str, Any] = {row: {} for row in LESS if row in scores.values}
    for row, by_metric in found.items():
        for metric in metrics:
            own, other = _values(scores, "brain", metric), _values(scores, row, metric)
            if own is None or other is None:
                continue
            compared = [
                paired_difference(
                    own[at],
                    other[at],
                    scores.units[at].tolist(),
                    metric.higher_is_better,
                    DRAWS,
                    seed,
                    metric.bounds,
                    scores.widening,
                )
                for at in bins
            ]
            by_metric[metric.name] = [None if each is None else each.to_dict() for each in compared]
    return found


def _sides(scores: Scores) -> dict[str, Any]:
    """What is related to the distance, by name: a row's scores, or how much better the brain row is than another."""
    rows = {row: (_oriented, row) for row in ROWS if row in scores.values}
    return rows | {f"brain_less_{row}": (_less, row) for row in LESS if row in scores.values}


def _far_less_near(scores: Scores, metrics: Sequence[NamedMetric], bins: Sequence[np.ndarray]) -> dict[str, Any]:
    if not bins:
        return {}
    near, far = bins[0], bins[-1]

    def compared(values: np.ndarray) -> Any:
        return difference_of_samples(values[far], scores.units[far], values[near], scores.units[near], scores.widening)

    return _of_each_side(scores, metrics, compared)


def _of_each_side(
    scores: Scores, metrics: Sequence[NamedMetric], measure: Callable[[np.ndarray], Any]
) -> dict[str, dict[str, Any]]:
    """Side ▶ metric ▶ what is measured of the scores of all items; None where there is too little for it."""
    found: dict[str, dict[str, Any]] = {}
    for name, (side, row) in _sides(scores).items():
        found[name] = {}
        for metric in metrics:
            values = side(scores, row, metric)
            if values is not None:
                measured = measure(values)
                found[name][metric.name] = None if measured is None else measured.to_dict()
    return found


def _relations(
    scores: Scores,
    metrics: Sequence[NamedMetric],
    distances: np.ndarray,
    strata: Sequence[np.ndarray],
    seed: int,
) -> dict[str, Any]:
    def related(values: np.ndarray) -> Any:
        return rank_correlation(distances, values, scores.units, strata, seed, widening=scores.widening)

    found = _of_each_side(scores, metrics, related)
    for of_side in found.values():
        tested = [each for each in of_side.values() if each is not None]
        for each, p in zip(tested, holm([each["p"] for each in tested]), strict=True):
            each["p_holm"] = p
    return found


def _points(scores: Scores, metrics: Sequence[NamedMetric], distances: np.ndarray) -> dict[str, Any] | None:
    """Distance and score of each stimulus in one metric, for the plot."""
    shown = first_metric({metric.name: {} for metric in metrics})
    if shown is None:
        return None
    values = scores.values["brain"][shown.name]
    assert values is not None
    known = np.isfinite(values) & np.isfinite(distances)
    if not known.any():
        return None
    units = scores.units[known]
    points = [stimulus_means(distances[known], units).tolist(), stimulus_means(values[known], units).tolist()]
    return {"metric": shown.name, "distances": points[0][:MOST_POINTS], "scores": points[1][:MOST_POINTS]}


def _plain(result: dict[str, Any]) -> dict[str, Any]:
    return {**result, "ci95": None if result["ci95"] is None else list(result["ci95"])}


OVERLAP = AuditPart(
    name="overlap",
    label="Overlap",
    question="How near are test pictures to those that were learned from, and do near ones score better?",
    measure=measure,
    content=content,
    tables=tables,
    notes=notes,
    schema=Overlap,
    plot=plot,
    limit=limit,
)
