"""Which rows and metrics of a report come first: what decides, and the control that is hardest to beat."""

from collections.abc import Iterable

from .named_metrics import Metric, PairwisePixCorr, TwoWay
from .report import Report


def controls(report: Report) -> list[str]:
    """The rows that have to be beaten."""
    return [row for row in report.results if report.row(row)["kind"] == "control"]


def best_row(report: Report, rows: Iterable[str], metric: Metric) -> str | None:
    """Which of some rows is the best in a metric; None where none has a value."""
    values = {row: value_of(report, row, metric) for row in rows}
    known = {row: value for row, value in values.items() if value is not None}
    if not known:
        return None
    return (max if metric.higher_is_better else min)(known, key=lambda row: known[row])


def value_of(report: Report, row: str, metric: Metric) -> float | None:
    """A row's value in a metric; None where it has none."""
    found = report.results.get(row, {}).get(metric.name)
    return None if not found else found.get("value")


def is_ridge_the_brain(report: Report) -> bool:
    """Whether the linear method is what was evaluated, so that both rows are the same pictures."""
    return report.model.get("method") == "linear" or report.results.get("ridge") == report.results.get("brain")


def deciding_metrics(report: Report) -> list[Metric]:
    """Metrics of identification, retrieval and networks in which the brain row has a value.

    Not those in which a blurry average does well, nor those that are one figure for all pictures, which have no test.
    """
    return [
        metric
        for metric in report.metrics()
        if not metric.rewards_blur and not metric.of_whole_set and value_of(report, "brain", metric) is not None
    ]


def lead_metric(report: Report) -> Metric | None:
    """The metric that speaks for a report where one has to: two-way identification by a network, else by pixels.

    Else the first one that decides, or the first that there is; None where the brain row has no value at all.
    """
    deciding = deciding_metrics(report)
    for kind in (TwoWay, PairwisePixCorr, Metric):
        # Of a family itself: identification among pictures of one background has fewer items.
        found = [metric for metric in deciding if type(metric) is kind or kind is Metric]
        if found:
            return found[0]
    return next((metric for metric in report.metrics() if value_of(report, "brain", metric) is not None), None)
