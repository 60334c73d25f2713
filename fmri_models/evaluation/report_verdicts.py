"""What the figures of a report say in sentences, and what they don't say."""

from collections.abc import Mapping
from typing import Any

from .bootstrap import CONFIDENCE, FEWEST_STIMULI, TIE_MARGIN, interval
from .named_metrics import get_metric
from .rows import ROWS, get_row
from .scores import Scores

# Where a verdict names its metrics.
_REWARDED = "{metrics}"
# Above this a p that is as small as it can be tells nothing.
_SMALLEST_USEFUL_P = 0.05


def on_folds(scores: Scores) -> list[str]:
    """What intervals and p-values of merged folds allow for."""
    if scores.num_folds == 1:
        return []
    return [
        f"The models of {scores.num_folds} folds learned from each other's test stimuli, so that their scores are not "
        f"independent: intervals, and what p compares with, are {scores.widening:.2f} times as wide as for one fold."
    ]


def on_intervals(results: Mapping[str, Any], comparisons: Mapping[str, Any]) -> list[str]:
    """Why some values have no interval."""
    found = [
        (metric, result)
        for each in (results, comparisons)
        for row in each.values()
        for metric, result in row.items()
        if result is not None and result["ci95"] is None
    ]
    whole = dict.fromkeys(metric for metric, _ in found if get_metric(metric).of_whole_set)
    found = [(metric, result) for metric, result in found if metric not in whole]
    few = {metric: result["stimuli"] for metric, result in found if result["stimuli"] < FEWEST_STIMULI}
    sentences = []
    if few:
        sentences.append(
            f"No interval is stated for {', '.join(few)}, because the scores are those of {_counts(few.values())}, and "
            f"fewer than {FEWEST_STIMULI} tell nothing of how far they scatter; no difference there is beyond doubt."
        )
    if any(result["stimuli"] >= FEWEST_STIMULI for _, result in found):
        which = "Any other value or" if few else "A value or a"
        sentences.append(
            f"{which} difference without an interval is the same for all stimuli, so that they tell nothing of how far "
            "others would scatter."
        )
    if whole:
        sentences.append(
            f"{', '.join(whole)}: one figure for all pictures of a subject and fold, which has no interval and no test."
        )
    return sentences


def _counts(numbers: Any) -> str:
    low, high = min(numbers), max(numbers)
    if low != high:
        return f"{low} to {high} stimuli"
    return "one stimulus" if high == 1 else f"{high} stimuli"


def on_pairings(permutation: Mapping[str, Mapping[str, Any]], within: str | None = None) -> list[str]:
    """What p can be where pictures are few.

    Args:
        permutation: The tests.
        within: Inside what alone stimuli were exchanged.
    """
    test = next(iter(permutation.values()), None)
    if test is None or not test["exhaustive"]:
        return []
    if test["n"] == 1:
        return [
            "Permutation test: no stimulus has another one that it could be exchanged with (of the same subjects and "
            f"folds{f', and of the same {within}s' if within else ''}), so that p is 1 and says nothing."
        ]
    sentence = (
        f"Permutation test: so few stimuli have {test['n']} pairings, all of which were scored; no p can be below "
        f"{test['smallest_p']:.3f}"
    )
    return [sentence + (", which is too much to rule out luck." if test["smallest_p"] > _SMALLEST_USEFUL_P else ".")]


def on_controls(
    results: Mapping[str, Any], comparisons: Mapping[str, Any], rows: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """Sentences about every control that the brain row does not beat beyond doubt: one for those alike."""
    sentences = []
    for row, compared in comparisons.items():
        if rows[row]["kind"] != "control":
            continue
        alike: dict[str, list[str]] = {}
        for metric, difference in compared.items():
            if difference is None or (difference["ci95"] is not None and difference["ci95"][0] > 0):
                continue
            alike.setdefault(_verdict(row, metric, difference), []).append(metric)
        for verdict, metrics in alike.items():
            figures = _figures if len(metrics) == 1 else _listed_figures
            found = [
                figures(metric, compared[metric], results["brain"][metric], results[row][metric]) for metric in metrics
            ]
            named = f"{metrics[0]} rewards" if len(metrics) == 1 else "these metrics reward"
            sentences.append(f"{row} scores {', '.join(found)}. {verdict.replace(_REWARDED, named)}")
    return sentences


def _verdict(row: str, metric: str, difference: Mapping[str, Any]) -> str:
    bounds, advantage = difference["ci95"], difference["difference"]
    if abs(advantage) <= TIE_MARGIN:
        return "The brain row is not better than this control."
    if advantage > 0:
        return "The brain row is better, but not beyond doubt."
    certain = bounds is not None and bounds[1] < 0
    if get_metric(metric).rewards_blur and get_row(row).is_average:
        return (
            f"This control wins by its nature{'' if certain else ', if not beyond doubt'}: a blurry average is near "
            f"every picture in pixels, so {_REWARDED} it although it says nothing about what was shown; identification "
            "and retrieval decide."
        )
    return "This control is better." if certain else "This control is better, but not beyond doubt."


def _figures(metric: str, difference: Mapping[str, Any], brain: Mapping[str, Any], control: Mapping[str, Any]) -> str:
    figures = f"{control['value']:.3f} in {metric} and the brain row {brain['value']:.3f}"
    if brain["n"] != control["n"] or difference["n"] != brain["n"]:
        figures += f" (compared on the {difference['n']} items that both have)"
    bounds = difference["ci95"]
    return figures if bounds is None else figures + "; 95 % interval of the difference {:.3f} to {:.3f}".format(*bounds)


def _listed_figures(
    metric: str, difference: Mapping[str, Any], brain: Mapping[str, Any], control: Mapping[str, Any]
) -> str:
    """The same in fewer words, for a list."""
    figures = [f"the brain row {brain['value']:.3f}"]
    if brain["n"] != control["n"] or difference["n"] != brain["n"]:
        figures.append(f"compared on the {difference['n']} items that both have")
    if difference["ci95"] is not None:
        figures.append("95 % interval of the difference {:.3f} to {:.3f}".format(*difference["ci95"]))
    return f"{control['value']:.3f} in {metric} ({'; '.join(figures)})"


def on_leakage(scores: Scores, draws: int, seed: int) -> list[str]:
    """Metrics in which permuted training is above chance, at a level that holds for all of them together."""
    tested = [
        (row, metric, values)
        for row in [name for name, each in ROWS.items() if each.learned_nothing]
        for metric, values in scores.values.get(row, {}).items()
        if values is not None and metric in scores.chances and get_metric(metric).chance_is_upper_bound
    ]
    if not tested:
        return []
    sentences, confidence = [], 1 - (1 - CONFIDENCE) / len(tested)
    for row, metric, values in tested:
        found = interval(
            values, scores.units.tolist(), draws, seed, get_metric(metric).bounds, confidence, scores.widening
        )
        chance = scores.chances[metric]
        if found is not None and found.ci95 is not None and found.ci95[0] > chance:
            sentences.append(
                f"{row} is above chance in {metric} ({found.value:.3f}, chance {chance:.3f}; from {found.ci95[0]:.3f} "
                f"in an interval that allows for {len(tested)} such looks). One exchange of pairs can be so by luck, "
                "for all of its pictures come from one decoder: if it is so with another --seed, too, look for test "
                "pictures or statistics in the training data."
            )
    return sentences
