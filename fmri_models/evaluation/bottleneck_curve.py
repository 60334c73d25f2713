"""What decoders score that read a few dimensions of the brain, beside one that reads all of it and one that reads none.

Mayo et al., "BrainBits: How much of the brain are generative reconstruction methods using?" (2024), ask how wide a
bottleneck between voxels and decoder has to be.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from .bootstrap import DRAWS, FEWEST_STIMULI, TIE_MARGIN, paired_difference
from .compared_rows import ItemsNotBeaten, StimuliNotBeaten
from .named_metrics import Metric, get_metric
from .ratios import ratio_of_means
from .report_figures import results
from .report_schema import Bounds, Count, Line, Number, Result, Whole
from .report_schema import Difference as DifferenceOfReport
from .report_schema import Metric as MetricName
from .scores import Scores

FULL, FLOOR, CEILING = "full", "floor", "ceiling"
NOTHING = 0
# Of the advantage of the full decoder; sentences say how many dimensions have it.
MOST_OF_IT = 0.8
# Metrics that sentences are about.
_MOST_METRICS = 3

_Key = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,6}|full|floor|ceiling)$")]
_Dimensions = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,6})$")]


class _Content(BaseModel):
    model_config = ConfigDict(extra="allow")


class Share(_Content):
    """A part of the full decoder's advantage."""

    value: Number
    ci95: Bounds | None
    n: Count
    stimuli: Count


class Difference(DifferenceOfReport):
    """By how much the full decoder is better, of which sentences say how sure that is."""

    ci95: Bounds | None
    stimuli: Count


class BottleneckContent(_Content):
    """The curve, as report.json or a file of its own has it."""

    method: Line
    map: Literal["reduced_rank", "principal_components"]
    nothing: Line
    dimensions: Annotated[list[Annotated[Whole, Field(ge=0, le=10**7)]], Field(min_length=2, max_length=100)]
    most_possible: Annotated[Whole, Field(ge=1)]
    results: Annotated[dict[_Key, dict[MetricName, Result | None]], Field(max_length=103)]
    below_full: Annotated[dict[_Dimensions, dict[MetricName, Difference | None]], Field(max_length=100)]
    shares: Annotated[dict[_Dimensions, dict[MetricName, Share | None]], Field(max_length=100)]
    smallest: dict[MetricName, Annotated[Whole, Field(ge=0)] | None]

    @model_validator(mode="after")
    def _of_the_same_dimensions(self) -> "BottleneckContent":
        keys = {str(k) for k in self.dimensions}
        for metric, smallest in self.smallest.items():
            if smallest is not None and self.below_full.get(str(smallest), {}).get(metric) is None:
                raise ValueError("a difference at the smallest number of dimensions")
        if sorted(set(self.dimensions)) != self.dimensions or self.dimensions[0] != NOTHING:
            raise ValueError("dimensions in ascending order from 0")
        if keys | {FULL} != set(self.results) - {FLOOR, CEILING}:
            raise ValueError("results of each of the dimensions and of the full decoder")
        if set(self.below_full) != keys or set(self.shares) != keys - {str(NOTHING)}:
            raise ValueError("a difference and a share for each of the dimensions")
        return self


def numbers_of_dimensions(most: int, largest: int = 1000) -> list[int]:
    """1, 2, 5, 10, 20, 50 … as far as there are so many dimensions.

    Args:
        most: How many there are.
        largest: No number is above this one.
    """
    steps = (step * 10**power for power in range(7) for step in (1, 2, 5))
    return [k for k in steps if k <= min(most, largest)]


def curve_content(
    scores: Scores, dimensions: Sequence[int], method: str, nothing: str, most_possible: int, map_name: str, seed: int
) -> dict[str, Any]:
    """Sums up the scores of decoders that read a few dimensions.

    Args:
        scores: With the rows `"0"` (a decoder that reads nothing of the brain), `"1"` … and `"full"`, and where there
            are, `"floor"` and `"ceiling"`.
        dimensions: 0 and the numbers of dimensions, ascending.
        method: Whose decoders they are.
        nothing: What the row `"0"` is, after "a decoder that".
        most_possible: How many dimensions there are at most.
        map_name: `"reduced_rank"` or `"principal_components"`.
        seed: Of the bootstrap.

    Returns:
        As [`BottleneckContent`].
    """
    keys = [str(k) for k in dimensions]
    found = results(scores, DRAWS, seed)
    below = {key: _for_each_metric(scores, _below, key, seed) for key in keys}
    return {
        "method": method,
        "map": map_name,
        "nothing": nothing,
        "dimensions": list(dimensions),
        "most_possible": int(most_possible),
        "results": {key: found[key] for key in (FLOOR, *keys, FULL, CEILING) if key in found},
        "below_full": below,
        "shares": {key: _for_each_metric(scores, _share, key, seed) for key in keys if key != str(NOTHING)},
        "smallest": {
            metric: None
            if get_metric(metric).of_whole_set
            else _smallest([(k, below[str(k)].get(metric)) for k in dimensions])
            for metric in found[FULL]
        },
    }


def _for_each_metric(scores: Scores, of: Any, key: str, seed: int) -> dict[str, dict[str, Any] | None]:
    return {metric: of(scores, metric, key, seed) for metric in scores.values[FULL]}


def _values(scores: Scores, metric: str, *keys: str) -> list[np.ndarray] | None:
    found = [scores.values[key].get(metric) for key in keys]
    return None if any(each is None for each in found) else [each for each in found if each is not None]


def _below(scores: Scores, metric: str, key: str, seed: int) -> dict[str, Any] | None:
    values, described = _values(scores, metric, FULL, key), get_metric(metric)
    if values is None:
        return None
    full, own = values
    found = paired_difference(
        full, own, scores.units.tolist(), described.higher_is_better, DRAWS, seed, described.bounds, scores.widening
    )
    if found is None:
        return None
    return found.to_dict() | ({"ci95": None} if described.of_whole_set else {})


def _share(scores: Scores, metric: str, key: str, seed: int) -> dict[str, Any] | None:
    values = _values(scores, metric, FULL, key, str(NOTHING))
    if values is None or get_metric(metric).of_whole_set:
        return None
    full, own, nothing = values
    whole = _below(scores, metric, str(NOTHING), seed)
    # Nothing is a part of an advantage that may be none, or that is a disadvantage.
    if whole is None or whole["ci95"] is None or whole["ci95"][0] <= 0:
        return None
    # Of items that all three have.
    own = np.where(np.isfinite(full), own, np.nan)
    found = ratio_of_means(own - nothing, full - nothing, scores.units.tolist(), DRAWS, seed, scores.widening)
    if found is None or found.ci95 is None:
        return None
    # The same score for each stimulus does not tell how far others would scatter.
    is_same = bool(np.nanmax(np.abs(own - full)) <= TIE_MARGIN)
    bounds = None if is_same else list(found.ci95)
    return {"value": found.value, "ci95": bounds, "n": found.n, "stimuli": found.stimuli}


def _smallest(below: Sequence[tuple[int, Mapping[str, Any] | None]]) -> int | None:
    """The first number from which on no score is beyond doubt below the full decoder's; None where there is none."""
    smallest = None
    for k, difference in reversed(below):
        if difference is None or is_below(difference) is not False:
            break
        smallest = k
    return smallest


def is_below(difference: Mapping[str, Any]) -> bool | None:
    """Whether the full decoder is better beyond doubt; None where stimuli are too few to tell."""
    if (bounds := difference.get("ci95")) is not None:
        return bool(bounds[0] > 0)
    if difference.get("stimuli") is not None and difference["stimuli"] < FEWEST_STIMULI:
        return None
    # The same for all stimuli.
    return bool(difference["difference"] > TIE_MARGIN)


# ------------------------------------------------------------------------------------------------------------ in words


def leading_metrics(content: Mapping[str, Any], most: int = _MOST_METRICS) -> list[Metric]:
    """What sentences and plots are about: first what tells pictures apart; what rewards blur comes last."""
    known = [get_metric(name) for name, found in content["results"][FULL].items() if found is not None]
    known = [metric for metric in known if not metric.of_whole_set]
    return sorted(known, key=lambda metric: (metric.rewards_blur, is_of_embeddings(metric)))[:most]


def is_of_embeddings(metric: Metric) -> bool:
    """Whether it compares decoded embeddings, and so no generator has a part in it."""
    return isinstance(metric.needs, StimuliNotBeaten | ItemsNotBeaten)


def curve_notes(content: Mapping[str, Any]) -> list[str]:
    """What a reviewer would conclude of the leading metrics."""
    return [sentence for metric in leading_metrics(content) for sentence in _notes_on(content, metric)]


def _notes_on(content: Mapping[str, Any], metric: Metric) -> list[str]:
    name, full = metric.name, content["results"][FULL][metric.name]
    without, nothing = content["results"][str(NOTHING)].get(name), content["below_full"][str(NOTHING)].get(name)
    if without is None or nothing is None:
        return []
    what = f"Bottleneck, {metric.label}: the full decoder scores {full['value']:.3f}"
    beside = f"one that reads nothing of the brain {without['value']:.3f}"
    bounds, stimuli = nothing.get("ci95"), nothing.get("stimuli")
    if stimuli is not None and stimuli < FEWEST_STIMULI:
        return [f"{what} and {beside}; {stimuli} stimuli are too few to say more."]
    if bounds is None and nothing["difference"] > TIE_MARGIN:
        return [f"{what} and {beside}, by the same difference for all stimuli, so that nothing more is said."]
    if bounds is None or bounds[0] <= 0:
        shown = "" if bounds is None else f"{nothing['difference']:+z.3f} [{bounds[0]:+z.3f}, {bounds[1]:+z.3f}], "
        return [
            f"{what} and {beside}, and the difference ({shown}{_stimuli(nothing)}) is not beyond doubt: the score is "
            "no sign that the brain was read, with however many dimensions."
        ]
    first = next((k for k in content["dimensions"] if k), None)
    share = content["shares"].get(str(first), {}).get(name)
    if first is None or share is None:
        return [f"{what} and {beside}."]
    told = f"{what}, {beside}. {_one(first)} of the voxels gives {_percent(share)} of what lies between"
    enough = next((k for k in content["dimensions"] if k and _has(content, k, name)), None)
    if enough == first:
        rest = (
            "so much of the score asks for one number of the brain"
            if is_of_embeddings(metric)
            else "the rest of what the pictures show is the generator's prior and what the training pictures have in "
            "common"
        )
        told += f": {rest}."
    elif enough is not None:
        told += f", {enough} give {_percent(content['shares'][str(enough)][name])}."
    else:
        told += f"; none of these numbers of dimensions gives {MOST_OF_IT:.0%}."
    return [told, _on_smallest(content, metric)]


def _has(content: Mapping[str, Any], k: int, name: str) -> bool:
    share = content["shares"][str(k)].get(name)
    return share is not None and bool(share["value"] >= MOST_OF_IT)


def _on_smallest(content: Mapping[str, Any], metric: Metric) -> str:
    smallest = content["smallest"].get(metric.name)
    largest = content["dimensions"][-1]
    if smallest is None:
        return (
            f"Bottleneck, {metric.label}: even with {_dimensions(largest)} the score is beyond doubt below the full "
            "decoder's: more of the brain is used than that, or fitting in two steps costs something."
        )
    difference = content["below_full"][str(smallest)][metric.name]
    bounds = difference.get("ci95")
    how_far = "" if bounds is None else f", though it may be lower by {max(0.0, bounds[1]):.3f}"
    return (
        f"Bottleneck, {metric.label}: from {_dimensions(smallest)} on no score is beyond doubt below the full "
        f"decoder's ({_stimuli(difference)}{how_far}): with these stimuli the metric can't tell whether more "
        "of the brain is used."
    )


def _one(k: int) -> str:
    return "One dimension" if k == 1 else f"{k} dimensions"


def _dimensions(k: int) -> str:
    return f"{k} dimension{'' if k == 1 else 's'}"


def _percent(share: Mapping[str, Any]) -> str:
    if share["ci95"] is None:
        return f"{share['value']:.0%}"
    low, high = share["ci95"]
    return f"{share['value']:.0%} [{low:.0%}, {high:.0%}]"


def _stimuli(found: Mapping[str, Any]) -> str:
    count = found.get("stimuli")
    return "stimuli of unknown number" if count is None else f"{count} stimuli"
