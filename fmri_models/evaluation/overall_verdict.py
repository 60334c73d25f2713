"""The verdict on a report in a few sentences: whether the brain row beats its controls, by how much, and its limits.

It says no more than the figures do. A metric counts where the brain row is better than *each* control beyond doubt (the
95 % interval of the paired difference is above 0): by luck that is so in at most 2.5 % of metrics, however many
controls there are.
"""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from ..names import listed
from .audit import audit_limits
from .bootstrap import FEWEST_STIMULI
from .leading_rows import best_row, controls, deciding_metrics, lead_metric, value_of
from .named_metrics import Metric
from .report import Report

# What stands above a verdict: every control is beaten in all metrics that decide, in some, in none; nobody can say.
Status = Literal["yes", "partly", "no", "open"]
STATUS_LABELS: dict[Status, str] = {
    "yes": "Better than every control",
    "partly": "Not better throughout",
    "no": "Not better than its controls",
    "open": "Open",
}
"""Of a verdict, in a few words."""

# Below so many pictures a verdict says how many there are, whatever their intervals.
_FEW_STIMULI = 20
_SMALL_P = 0.05
# Names of metrics that a sentence lists; more are counted.
_MOST_NAMED = 2
# A re-paired score that scatters less is the same for all pairings.
_NO_SPREAD = 1e-9


@dataclass(frozen=True)
class Verdict:
    """What a report comes to.

    Args:
        status: In a word.
        headline: The first sentence.
        sentences: What follows it, four at most.
    """

    status: Status
    headline: str
    sentences: list[str]

    @property
    def label(self) -> str:
        """The status in words."""
        return STATUS_LABELS[self.status]

    @property
    def text(self) -> str:
        """All sentences."""
        return " ".join([self.headline, *self.sentences])


@dataclass(frozen=True)
class _Judged:
    """A metric with the controls that are not beaten beyond doubt, and those that are better beyond doubt."""

    metric: Metric
    unbeaten: list[str]
    better: list[str]


def verdict(report: Report) -> Verdict:
    """Two to five sentences on a whole report, which never claim more than its figures do.

    Args:
        report: With its comparisons and permutation tests, as far as it has any.
    """
    judged = list(_judged(report))
    status, headline = _headline(report, judged)
    further = [_unbeaten(report, judged), _amount(report), _audited(report, status), _limits(report, judged)]
    return Verdict(status, headline, [sentence for sentence in further if sentence])


def _judged(report: Report) -> Iterator[_Judged]:
    """The metrics that decide, as far as a control has them."""
    for metric in deciding_metrics(report):
        found = {row: report.comparisons.get(row, {}).get(metric.name) for row in controls(report)}
        differences = {row: difference for row, difference in found.items() if difference}
        if differences:
            bounds = {row: difference.get("ci95") for row, difference in differences.items()}
            yield _Judged(
                metric,
                [row for row, ends in bounds.items() if not ends or ends[0] <= 0],
                [row for row, ends in bounds.items() if ends and ends[1] < 0],
            )


def _headline(report: Report, judged: list[_Judged]) -> tuple[Status, str]:
    whose = {True: " from simulated brain activity", False: " from measured brain activity"}
    draws = report.model.get("image_generator") or not report.guides
    what = "The reconstruction" if draws else "What was decoded"
    subject = f"{what}{whose.get(report.data.get('simulated'), '')}"  # type: ignore[arg-type]
    if not deciding_metrics(report):
        return "open", f"{subject} was measured by pixels alone, which a blurry average does well in: no verdict."
    if _is_constant(report):
        return "no", f"{subject} is the same whatever was shown, or as good as that: every other pairing scores alike."
    if not judged:
        return "open", "No verdict on what the brain adds: this report has no control that would have to be beaten."
    stimuli = report.data.get("test_stimuli")
    if stimuli is not None and stimuli < FEWEST_STIMULI:
        pictures = "one picture says" if stimuli == 1 else f"{stimuli} pictures say"
        return "open", f"No verdict: {pictures} nothing beyond doubt; there is no interval below {FEWEST_STIMULI}."
    count, beaten = len(judged), sum(not each.unbeaten for each in judged)
    of_files = "images" in report.model
    every = _label(report, controls(report)[0]) if len(controls(report)) == 1 else "every control"
    every = f"the {every}" if every != "every control" else every
    metrics = f"{count} identification and network metrics"
    if count == 1:
        metrics = f"one identification or network metric that was measured ({judged[0].metric.label})"
    status: Status
    if beaten == count:
        status, sentence = "yes", f"{subject} beats {every} beyond doubt in {'the' if count == 1 else 'all'} {metrics}"
    elif beaten:
        status, sentence = "partly", f"{subject} beats {every} beyond doubt in {beaten} of {metrics}"
    elif count == 1:
        status, sentence = "no", f"{subject} does not beat {every} beyond doubt in the {metrics}"
    else:
        status, sentence = "no", f"{subject} beats {every} beyond doubt in none of {metrics}"
    if report.warnings and beaten:
        status, sentence = "open", f"{sentence}, but these are not known to be figures of new pictures"
    elif of_files and beaten:
        # The mean of the test pictures is a control of blur, and none of the brain.
        status, sentence = "open", f"{sentence}; whether that came from a brain, no control of files can say"
    return status, f"{sentence}."


def _is_constant(report: Report) -> bool:
    """Whether pictures score the same in every pairing with what was shown.

    Pixels tell: embeddings can differ where the pictures that are drawn from them do not.
    """
    known = {metric.name: metric for metric in report.metrics()}
    tests = {known[name]: test for name, test in report.permutation.items() if name in known and test["n"] > 1}
    pixels = [test for metric, test in tests.items() if metric.rewards_blur] or list(tests.values())
    return bool(pixels) and all(test["sd"] < _NO_SPREAD for test in pixels)


def _unbeaten(report: Report, judged: list[_Judged]) -> str:
    """Which controls are not beaten, and in how many metrics."""
    if not judged or _is_constant(report) or (report.data.get("test_stimuli") or FEWEST_STIMULI) < FEWEST_STIMULI:
        return ""
    told: dict[str, int] = {}
    for row in controls(report):
        metrics = [each.metric.label for each in judged if row in each.unbeaten]
        if metrics:
            better = sum(row in each.better for each in judged)
            even = f", and even better beyond doubt in {better}" if better else ""
            named = f" ({' and '.join(metrics)})" if len(metrics) <= _MOST_NAMED else ""
            told[f"{_label(report, row)} in {len(metrics)}{named}{even}"] = len(metrics)
    # The hardest one first.
    ordered = sorted(told, key=lambda each: -told[each])
    return f"Not beaten beyond doubt: {'; '.join(ordered)}." if ordered else ""


def _amount(report: Report) -> str:
    """How far the brain row is from the best control to the ceiling, and p."""
    metric = lead_metric(report)
    if metric is None or _is_constant(report):
        return ""
    parts = [*_way(report, metric), *_permutation(report)]
    return f"{'; '.join(parts)}." if parts else ""


def _way(report: Report, metric: Metric) -> Iterator[str]:
    brain, row = value_of(report, "brain", metric), best_row(report, controls(report), metric)
    ceiling = value_of(report, "ceiling", metric)
    if brain is None or row is None:
        return
    control = f"the best control ({_label(report, row)})" if len(controls(report)) > 1 else f"the {_label(report, row)}"
    figures = f"In {metric.label} it has {brain:.3f}, {control} {value_of(report, row, metric):.3f}"
    difference = report.comparisons.get(row, {}).get(metric.name) or {}
    if difference.get("ci95"):
        figures += " (95 % interval of the difference {:+z.3f} to {:+z.3f})".format(*difference["ci95"])
    share = _share_of_way(report, metric)
    if ceiling is None:
        yield figures
    elif share is None:
        yield f"{figures}, and the ceiling {ceiling:.3f} is no better than that, so that it measures nothing here"
    else:
        known = [each for other in deciding_metrics(report) if (each := _share_of_way(report, other)) is not None]
        middle = (
            f", {_percent(statistics.median(known))} in the median of {len(known)} metrics" if len(known) > 1 else ""
        )
        way = f"{_percent(share)} of the way" if share > 0 else "none of the way"
        yield f"{figures}, and the ceiling {ceiling:.3f}: {way}{middle}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _share_of_way(report: Report, metric: Metric) -> float | None:
    """Which share of the way from the best control to the ceiling the brain row goes; None where there is no way."""
    row = best_row(report, controls(report), metric)
    brain, ceiling = value_of(report, "brain", metric), value_of(report, "ceiling", metric)
    control = None if row is None else value_of(report, row, metric)
    if brain is None or ceiling is None or control is None:
        return None
    way = (ceiling - control) if metric.higher_is_better else (control - ceiling)
    if way <= _NO_SPREAD:
        return None
    return ((brain - control) if metric.higher_is_better else (control - brain)) / way


def _permutation(report: Report) -> Iterator[str]:
    """What the permutation tests of the metrics that decide say together."""
    tests: list[dict[str, Any]] = [
        test for metric in deciding_metrics(report) if (test := report.permutation.get(metric.name))
    ]
    if not tests:
        return
    largest, small = max(test["p"] for test in tests), sum(test["p"] <= _SMALL_P for test in tests)
    possible = max(test.get("smallest_p") or 1 / (1 + test["n"]) for test in tests)
    if possible > _SMALL_P:
        yield f"so few pairings with other stimuli there are that p can't be below {possible:.3f}"
    elif len(tests) == 1:
        yield f"the permutation test has p = {largest:.3f}"
    elif small == len(tests):
        yield f"the permutation test has p ≤ {largest:.3f} in all {len(tests)} of these metrics"
    else:
        yield f"the permutation test has p ≤ {_SMALL_P} in {small} of {len(tests)} of these metrics"


def _audited(report: Report, status: Status) -> str:
    """What an audit takes from a verdict that grants something."""
    found = [] if status == "no" else audit_limits(report.audit)
    return f"The audit narrows that: {'; '.join(found)}." if found else ""


def _limits(report: Report, judged: list[_Judged]) -> str:
    """What the verdict does not allow for."""
    limits = list(_each_limit(report, judged))
    return f"Keep in mind: {'; '.join(limits)}." if limits else ""


def _each_limit(report: Report, judged: list[_Judged]) -> Iterator[str]:
    if report.data.get("simulated"):
        yield "nothing here says how well a real brain can be read"
    if report.warnings:
        yield "the warnings say why pictures may not be new"
    if report.protocol.get("deviations"):
        yield "it was not measured as published, so that it stands beside no published figure"
    stimuli = report.data.get("test_stimuli")
    if stimuli is not None and FEWEST_STIMULI <= stimuli < _FEW_STIMULI:
        yield f"{stimuli} pictures are few"
    if "images" in report.model:
        yield "files have no brain controls"
    else:
        missing = [row for row in report.missing_rows if report.row(row)["kind"] == "control"]
        if missing:
            yield f"there is no {listed([_label(report, row) for row in missing], 4)} to beat"
    if report.model.get("transductive"):
        yield "statistics of the test trials were used (transductive)"
    if 0 < sum(not each.unbeaten for each in judged) < len(judged):
        yield f"the intervals do not allow for the number of metrics ({len(judged)}) that were looked at"
    if report.looks:
        times = "once" if len(report.looks) == 1 else f"{len(report.looks)} times"
        yield f"these test pictures were looked at {times} before"


def _label(report: Report, row: str) -> str:
    return str(report.row(row)["label"])
