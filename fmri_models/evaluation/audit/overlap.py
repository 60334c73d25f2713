"""How near test pictures are to those that were learned from, and whether near ones score better."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..bootstrap import DRAWS, FEWEST_STIMULI, holm, interval, paired_difference, stimulus_means
from ..named_metrics import Metric as NamedMetric
from ..named_metrics import get_metric
from ..rank_correlation import bins_of_units, difference_of_samples, rank_correlation, smallest_seen
from ..report_schema import Bounds, Count, Difference, Line, Metric, Name, Number, Result, Whole
from ..rows import get_row
from ..scored_items import picture_ids
from ..scores import Scores
from ..stimulus_vectors import in_words, spaces_agree
from ..table import Table
from .figures import difference, error_bar, first_metric, labels, measured, value, with_direction
from .part import AuditedItems, AuditPart, Content

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..evaluated_subject import EvaluatedSubject

_ROWS = ("brain", "nearest_train", "ceiling")
# The brain row less these, item by item.
_LESS = ("ceiling", "nearest_train")
_SEVERAL = 5
_HELD_OUT_SHARE, _LEAST_ASKED, _MOST_ASKED = 5, 50, 1000
_MOST_PAIRS, _MOST_POINTS = 20, 1000
_QUANTILES = (0, 0.25, 0.5, 0.75, 1)
_ALPHA = 0.05


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
    found = vectors.nearest(vectors.test, _SEVERAL)
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
    in_order = sorted(pairs.items(), key=lambda item: (item[1], item[0]))[:_MOST_PAIRS]
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
    found: dict[str, Any] = {row: {} for row in _ROWS if row in scores.values}
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
    found: dict[str, Any] = {row: {} for row in _LESS if row in scores.values}
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
    rows = {row: (_oriented, row) for row in _ROWS if row in scores.values}
    return rows | {f"brain_less_{row}": (_less, row) for row in _LESS if row in scores.values}


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
    return {"metric": shown.name, "distances": points[0][:_MOST_POINTS], "scores": points[1][:_MOST_POINTS]}


def _plain(result: dict[str, Any]) -> dict[str, Any]:
    return {**result, "ci95": None if result["ci95"] is None else list(result["ci95"])}


# ------------------------------------------------------------------------------------------------------------- reading


def _nearest_table(of: Content) -> Table:
    nearest = of["nearest"]
    columns = {
        "test picture, to the nearest training picture": nearest["test"],
        f"test picture, to the nearest {_SEVERAL}, mean": nearest["test_of_several"],
        "test picture, to the nearest of the rest": nearest["test_to_rest"],
        "held-out training picture, to the nearest of the rest": nearest["held_out_to_rest"],
    }
    lines = [[name, *(f"{number:.3f}" for number in found)] for name, found in columns.items() if found is not None]
    caption = (
        "Distance is one minus the cosine of two pictures' vectors less the mean of the training pictures: 0 for equal "
        "pictures, about 1 for pictures that have no more in common than any two. The rest are the training pictures "
        f"of which {_span(nearest['held_out'])} were held out, as a control: pictures of the training's own kind that "
        "are no part of what they are compared with."
    )
    return Table("Overlap: how near test pictures are", caption, ["", "least", "25 %", "median", "75 %", "most"], lines)


def _span(numbers: Sequence[int]) -> str:
    least, most = numbers
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def _closest_table(of: Content) -> Table:
    lines = [[pair["stimulus"], pair["training"], f"{pair['distance']:.3f}"] for pair in of["closest"]]
    return Table(
        "Overlap: the closest pairs",
        "Test pictures and the training pictures nearest to them. Look at them: what is nearly the same picture was "
        "learned by heart.",
        ["test picture", "training picture", "distance"],
        lines,
    )


def _distance_table(of: Content) -> Table:
    """The brain row's scores by distance, and how they go with it, a metric a line."""
    bins = _bin_names(of)
    sides = {"brain": "brain", "ceiling": "ceiling", "brain_less_ceiling": "brain less ceiling"}
    sides = {side: label for side, label in sides.items() if side in of["relation"]}
    lines = []
    for name, found in of["scores"].get("brain", {}).items():
        related = {side: of["relation"][side].get(name) for side in sides}
        holm_p = "–" if related.get("brain") is None else f"{related['brain']['p_holm']:.3f}"
        cells = [*map(value, found), *map(_rho, related.values())]
        lines.append([with_direction(get_metric(name)), *cells, holm_p])
    spans = "; ".join(
        f"{name}: {each['stimuli']} stimuli at {each['from']:.3f} to {each['to']:.3f}"
        for name, each in zip(bins, of["bins"], strict=True)
    )
    parted = (
        f"Scores of the brain row by the distance of a test picture to the nearest training picture ({spans}; parted "
        "inside each subject and fold). Each picture is told from all test pictures, as in the table of scores; "
        "nothing is extrapolated beyond the farthest ones. "
        if bins
        else ""
    )
    caption = (
        f"{parted}r is Spearman's rank correlation of distance and score over stimuli, inside each subject and fold; "
        "negative means that the farther a picture is from the training, the worse it scores, whichever direction the "
        "metric has. p is of stimuli that exchange their distances, two-sided, with Holm's correction for all metrics. "
        "A generator may draw typical pictures better whatever it is told: that is the ceiling's, and the brain row "
        "less the ceiling, picture by picture, is without it."
    )
    header = ["metric", *bins, *(f"r, {label}" for label in sides.values()), "p of the brain's"]
    return Table("Overlap: score against distance", caption, header, lines)


def _rho(related: Mapping[str, Any] | None) -> str:
    if related is None:
        return "–"
    bounds = "" if related["ci95"] is None else " [{:+.2f}, {:+.2f}]".format(*related["ci95"])
    return f"{related['rho']:+.2f}{bounds}"


def _far_table(of: Content) -> list[Table]:
    """What the farthest test pictures score beside controls."""
    others = [row for row in _LESS if row in of["scores"]]
    if not of["bins"] or not others:
        return []
    lines = []
    for name, own in of["scores"].get("brain", {}).items():
        cells = [value(own[-1])]
        for row in others:
            found, less = of["scores"][row].get(name), of["less"].get(row, {}).get(name)
            cells += [value(found[-1] if found else None), difference(less[-1] if less else None)]
        lines.append([with_direction(get_metric(name)), *cells])
    header = ["metric", "brain"]
    for row in others:
        header += [get_row(row).label, f"brain better than {get_row(row).label}"]
    caption = (
        f"The {_bin_names(of)[-1]} of the test pictures, which memory helps least, and paired differences on them; "
        "positive means that the brain row is better. report.json has the other ones."
    )
    return [Table(f"Overlap: the {_bin_names(of)[-1]}", caption, header, lines)]


def _bin_names(of: Content) -> list[str]:
    names = ["nearer half", "farther half"] if len(of["bins"]) == 2 else ["nearest third", "middle", "farthest third"]
    return names[: len(of["bins"])]


def tables(of: Content) -> list[Table]:
    """Of a report's page; the first one has the plot."""
    return [_distance_table(of), *_far_table(of), _nearest_table(of), _closest_table(of)]


def notes(of: Content) -> list[str]:
    """What a reviewer would conclude."""
    return [
        f"Overlap: {in_words(of['space'], 'test and training pictures')}",
        _on_nearness(of),
        *_on_relation(of),
        *_on_the_farthest(of),
    ]


def _on_nearness(of: Content) -> str:
    nearest = of["nearest"]
    least, most = of["training"]
    what = (
        f"Overlap: the nearest of {_span([least, most])} training pictures is at a median distance of "
        f"{nearest['test'][2]:.3f} from a test picture"
    )
    if of["without_picture"]:
        what += f" ({of['without_picture']} more have no picture in the table and could not be compared)"
    farther = nearest["farther"]
    if farther is None or nearest["held_out_to_rest"] is None or nearest["test_to_rest"] is None:
        return (
            f"{what}. There are too few training pictures to say how near others of their kind would be (25 at least)."
        )
    what += (
        f". When {_span(nearest['held_out'])} training pictures are held out, a test picture is at "
        f"{nearest['test_to_rest'][2]:.3f} from the rest and a held-out one at {nearest['held_out_to_rest'][2]:.3f}; "
        f"the test picture is the farther one with a probability of {value(farther)} (.5 for pictures of the same kind)"
    )
    bounds = farther.get("ci95")
    if bounds is not None and bounds[0] > 0.5:
        return (
            f"{what}. Test pictures lie farther from the training pictures than others of these do, so that the "
            "scores are, in part, of pictures of another kind."
        )
    if bounds is not None and bounds[1] < 0.5:
        return (
            f"{what}. Test pictures lie nearer to training pictures than others of these do: look for copies, and for "
            "scenes that were shown in both."
        )
    return (
        f"{what}. As far as that tells, test pictures are of the same kind as the training pictures: the scores say "
        "how well new pictures of known kinds are read, and nothing about other kinds."
    )


def _significant(related: Mapping[str, Any] | None, sign: int) -> bool:
    return related is not None and related["p_holm"] < _ALPHA and related["rho"] * sign > 0


def _on_relation(of: Content) -> list[str]:
    relation = of["relation"]
    of_brain = relation.get("brain", {})
    metrics = measured(of_brain)
    if not metrics:
        return ["Overlap: the score can't be set against the distance (fewer than five stimuli, or all alike)."]
    count = max(related["n"] for related in of_brain.values() if related is not None)
    worse = [metric for metric in metrics if _significant(of_brain[metric.name], -1)]
    better = [metric for metric in metrics if _significant(of_brain[metric.name], 1)]
    found = []
    if worse:
        found.append(
            f"Overlap: the farther a test picture is from the training, the worse it is read in {_with_rho(of, worse)}."
            f"{_on_confound(of, worse)}"
        )
    if better:
        found.append(f"Overlap: pictures that are farther from the training score better in {_with_rho(of, better)}.")
    if not found:
        found.append(
            f"Overlap: no metric of the brain row goes with the distance to the training beyond doubt. Of {count} "
            f"stimuli, correlations below some {smallest_seen(count):.2f} are missed more often than one time in five "
            "(and oftener with a correction for several metrics), so that this is no proof that there is none."
        )
    return found


def _with_rho(of: Content, metrics: Sequence[NamedMetric]) -> str:
    named = [
        f"{metric.label} (rank correlation {of['relation']['brain'][metric.name]['rho']:+.2f})" for metric in metrics
    ]
    return " and ".join(named) if len(named) < 3 else f"{', '.join(named[:-1])} and {named[-1]}"


def limit(of: Content) -> str:
    """That pictures far from the training are read worse, or not seen to be read at all."""
    lead, far = _of_the_farthest(of)
    if lead is not None and lead.chance is not None and not (far.get("ci95") and far["ci95"][0] > lead.chance):
        return f"nothing shows that pictures far from the training are read at all ({lead.label}; Overlap)"
    less = of["relation"].get("brain_less_ceiling", {})
    worse = [
        metric
        for metric in measured(of["relation"].get("brain", {}))
        if _significant(of["relation"]["brain"][metric.name], -1) and _significant(less.get(metric.name), -1)
    ]
    return f"pictures far from the training are read worse ({labels(worse)}; Overlap)" if worse else ""


def _on_confound(of: Content, worse: Sequence[NamedMetric]) -> str:
    """Whether typical pictures are easier for the generator, too."""
    ceiling, less = of["relation"].get("ceiling", {}), of["relation"].get("brain_less_ceiling", {})
    known = [metric for metric in worse if less.get(metric.name) is not None]
    if not known:
        return (
            " There is no ceiling beside it, so that nothing tells whether the generator draws typical pictures better "
            "whatever it is told."
        )
    alike = [metric for metric in known if _significant(ceiling.get(metric.name), -1)]
    kept = [metric for metric in known if _significant(less[metric.name], -1)]
    rest = [metric for metric in known if metric not in kept]
    parts = []
    if alike:
        parts.append(f" So is the ceiling in {labels(alike)}: typical pictures are easier for the generator itself.")
    if kept:
        parts.append(
            f" It falls behind the ceiling there ({labels(kept)}): what is decoded gets worse away from the training, "
            "as it does where a decoder recalls training pictures, and that is not the generator's."
        )
    if rest:
        parts.append(
            f" In {labels(rest)} the difference of brain and ceiling does not go with the distance beyond doubt, so "
            "that the generator's own ease with typical pictures may be all there is."
        )
    return "".join(parts)


def _on_the_farthest(of: Content) -> list[str]:
    if not of["bins"]:
        return [
            "Overlap: there are too few test stimuli, or too many at one distance, for scores of near and far ones "
            "(ten at least)."
        ]
    lead, far = _of_the_farthest(of)
    if lead is None:
        return []
    sentence = (
        f"Overlap: in the {_bin_names(of)[-1]} ({of['bins'][-1]['stimuli']} stimuli) the brain row has {value(far)} in "
        f"{lead.label}"
    )
    chance = lead.chance
    if chance is not None:
        above = far.get("ci95") is not None and far["ci95"][0] > chance
        sentence += (
            f" (chance {chance:g}), so that the score is not of pictures near to the training alone"
            if above
            else f" (chance {chance:g}), so that by this metric nothing shows that pictures far from the training are "
            "read at all"
        )
    memory = (of["less"].get("nearest_train", {}).get(lead.name) or [None])[-1]
    if memory is not None:
        verdict = (
            "more than the nearest training picture does"
            if _is_above(memory)
            else ("no more than the nearest training picture does, as far as these stimuli tell")
        )
        sentence += f"; it says {verdict} ({difference(memory)})"
    return [f"{sentence}."]


def _of_the_farthest(of: Content) -> tuple[NamedMetric | None, Mapping[str, Any]]:
    """The first metric that the farthest test pictures have, and the brain row's value there."""
    scores = of["scores"].get("brain", {})
    lead = first_metric({name: {} for name, found in scores.items() if found and found[-1]})
    return lead, {} if lead is None else scores[lead.name][-1]


def _is_above(found: Mapping[str, Any]) -> bool:
    return found.get("ci95") is not None and found["ci95"][0] > 0


def plot(of: Content, axes: "Axes") -> None:
    """Scores of bins over their distance, with each stimulus behind them."""
    from ..plots import COLOURS

    points = of["points"]
    if points is None:
        axes.set_axis_off()
        return
    metric = get_metric(points["metric"])
    axes.scatter(points["distances"], points["scores"], s=8, color=COLOURS[4], alpha=0.45, linewidths=0)
    middles = [each["mean"] for each in of["bins"]]
    for row, colour in zip(_ROWS, (COLOURS[0], COLOURS[2], COLOURS[4]), strict=True):
        shown = [
            (middle, found)
            for middle, found in zip(middles, of["scores"].get(row, {}).get(metric.name) or [], strict=False)
            if found is not None
        ]
        if shown:
            bars = np.array([error_bar(found) for _, found in shown]).T
            heights = [found["value"] for _, found in shown]
            label = get_row(row).label
            axes.errorbar(
                [middle for middle, _ in shown], heights, bars, color=colour, marker="o", capsize=3, label=label
            )
    if metric.chance is not None:
        axes.axhline(metric.chance, color=COLOURS[4], linestyle=":", linewidth=1, label="chance")
    axes.set_xlabel("distance to the nearest training picture")
    axes.set_ylabel(with_direction(metric))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))


# ------------------------------------------------------------------------------------------------------------- schema


class _Content(BaseModel):
    model_config = ConfigDict(extra="allow")


Distance = Annotated[Number, Field(ge=0, le=2)]
Five = Annotated[list[Distance], Field(min_length=5, max_length=5)]
Probability = Annotated[Number, Field(ge=0, le=1)]


class Space(_Content):
    """What compares pictures."""

    kind: Literal["network", "generator", "pixels"]
    name: Name
    digest: Line | None
    values: Count
    projected: bool
    trained_against: bool


class _Nearest(_Content):
    test: Five
    test_of_several: Five
    test_to_rest: Five | None
    held_out_to_rest: Five | None
    held_out: Annotated[list[Annotated[Whole, Field(ge=0)]], Field(min_length=2, max_length=2)]
    farther: Result | None


class _Pair(_Content):
    stimulus: Name
    training: Name
    distance: Distance


class _Bin(_Content):
    from_: Annotated[Distance, Field(alias="from")]
    to: Distance
    mean: Distance
    stimuli: Count


class _Relation(_Content):
    rho: Annotated[Number, Field(ge=-1, le=1)]
    ci95: Bounds | None
    p: Probability
    p_holm: Probability
    n: Count


class _Points(_Content):
    metric: Metric
    distances: Annotated[list[Distance], Field(max_length=_MOST_POINTS)]
    scores: Annotated[list[Number], Field(max_length=_MOST_POINTS)]

    @model_validator(mode="after")
    def _pairs(self) -> "_Points":
        if len(self.distances) != len(self.scores):
            raise ValueError("a score for each distance")
        return self


class Overlap(_Content):
    """What the part has found."""

    space: Space
    stimuli: Count
    training: Annotated[list[Count], Field(min_length=2, max_length=2)]
    without_picture: Annotated[Whole, Field(ge=0)]
    nearest: _Nearest
    closest: Annotated[list[_Pair], Field(max_length=_MOST_PAIRS)]
    bins: Annotated[list[_Bin], Field(max_length=3)]
    scores: dict[Name, dict[Metric, list[Result | None]]]
    less: dict[Name, dict[Metric, list[Difference | None]]]
    far_less_near: dict[Name, dict[Metric, Difference | None]]
    relation: dict[Name, dict[Metric, _Relation | None]]
    points: _Points | None

    @model_validator(mode="after")
    def _of_the_same_bins(self) -> "Overlap":
        lengths = {len(found) for rows in (self.scores, self.less) for row in rows.values() for found in row.values()}
        if len(self.bins) == 1 or lengths - {len(self.bins)}:
            raise ValueError("no bins, or two or three, and a value of each for every row and metric")
        return self


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
