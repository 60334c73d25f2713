"""Reports beside each other: whether they may stand in one table, their figures, and paired differences with tests."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np

from ..names import one_line
from .bootstrap import FEWEST_STIMULI, WIDENING_OF_FOLDS, Difference, holm, paired_difference, sign_flip_test
from .extractors import KNOWN_WEIGHTS
from .items_file import brain_items_of
from .named_metrics import get_metric
from .protocols import Protocol
from .report import Report
from .report_facts import facts
from .report_tables import chance_cell, metric_cell, value_cell
from .table import Table

# Fields that change values, so reports that differ in them cannot stand in one table.
PROTOCOL_FIELDS = (
    "name", "resolution", "trial_average", "distractors", "pool_size", "blend", "size", "interpolation", "antialias",
    "crop", "low_level_share", "measured_trials",
)  # fmt: skip
_DEFAULTS = {field.name: None if field.default is MISSING else field.default for field in fields(Protocol)}
_OF_REPORTS = ("protocol", "test set", "not as published", "split", "repetitions of a stimulus", "learned from")
_SHOWN_ROWS = ("brain", "ridge")
# Mean over seeds and trials, by subject and stimulus.
_Items = dict[tuple[str, str], float]


class Hindrance(NamedTuple):
    """Why two reports can't be compared.

    Attributes:
        kind: Whether their protocols differ, their data, or their test splits.
        sentence: What differs.
    """

    kind: Literal["protocol", "data", "split"]
    sentence: str


@dataclass(frozen=True)
class TestedDifference:
    """A later report's advantage over the first in a metric.

    Args:
        difference: Paired, on the stimuli that both have.
        p: Two-sided, by flipping signs; None where there is no interval either.
        p_holm: That holds for all tests of the comparison together.
    """

    difference: Difference
    p: float | None = None
    p_holm: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return {**self.difference.to_dict(), "p": self.p, "p_holm": self.p_holm}


@dataclass
class ReportComparison:
    """Several reports, of which each later one is compared with the first.

    Args:
        names: What each is called; all different.
        places: Where each was read, for sentences.
        reports: At least two.
    """

    names: Sequence[str]
    places: Sequence[str]
    reports: Sequence[Report]

    @cached_property
    def hindrances(self) -> list[Hindrance]:
        """Why figures of the later reports are not comparable with those of the first."""
        return [
            hindrance
            for place, report in zip(self.places[1:], self.reports[1:], strict=True)
            for hindrance in _hindrances(self.places[0], self.reports[0], place, report)
        ]

    @property
    def shown_names(self) -> list[str]:
        """The names, marked where a report has warnings."""
        return [
            f"{name} (!)" if report.warnings else name for name, report in zip(self.names, self.reports, strict=True)
        ]

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics that at least one report has."""
        return list({metric.name: metric for report in self.reports for metric in report.metrics()})

    @cached_property
    def items(self) -> list[dict[str, _Items] | None]:
        """Metric ▶ scores of each report's row `brain`; None where no items.parquet lies beside it.

        Raises:
            FmriModelsError: The items can't be read, or are those of another evaluation.
        """
        return [_means(brain_items_of(report)) for report in self.reports]

    @cached_property
    def differences(self) -> dict[str, dict[str, TestedDifference]]:
        """Name ▶ metric ▶ advantage of a later report over the first, where both have their items."""
        if self.hindrances or self.items[0] is None:
            return {}
        same = {name: group[0] for report in self.reports for group in report.same_pictures for name in group}
        first = self.items[0]
        found: dict[str, dict[str, TestedDifference]] = {}
        for name, items, report in zip(self.names[1:], self.items[1:], self.reports[1:], strict=True):
            if items is None:
                continue
            merged = any(len(each.data.get("folds") or []) > 1 for each in (self.reports[0], report))
            widening = WIDENING_OF_FOLDS if merged else 1.0
            tested = {
                metric: _tested(items.get(metric, {}), first.get(metric, {}), metric, widening, same)
                for metric in self.metrics
            }
            found[name] = {metric: each for metric, each in tested.items() if each is not None}
        return _corrected(found)

    @property
    def _every_difference(self) -> list[TestedDifference]:
        return [each for of_report in self.differences.values() for each in of_report.values()]

    def scores_table(self) -> Table:
        """The rows `brain` and `ridge` of all reports, with chance."""
        columns = [
            (name, row, report)
            for name, report in zip(self.shown_names, self.reports, strict=True)
            for row in shown_rows(report)
        ]
        lines = [
            [
                metric_cell(get_metric(metric)),
                _chance(metric, self.reports),
                *(value_cell(report.results.get(row, {}).get(metric)) for _, row, report in columns),
            ]
            for metric in self.metrics
        ]
        header = ["metric", "chance", *(name if row == "brain" else f"{name} ({row})" for name, row, _ in columns)]
        return Table("Scores", "Mean over stimuli with its 95 % interval in brackets.", header, lines)

    def difference_tables(self) -> list[Table]:
        """A table for each later report: its advantage over the first on the items that both have."""
        shown = dict(zip(self.names, self.shown_names, strict=True))
        tables = []
        for name, found in self.differences.items():
            lines = [
                [
                    get_metric(metric).label,
                    f"{each.difference.difference:+z.3f}",
                    "–" if each.difference.ci95 is None else "[{:+z.3f}, {:+z.3f}]".format(*each.difference.ci95),
                    _p_cell(each.p),
                    _p_cell(each.p_holm),
                    str(each.difference.n),
                ]
                for metric, each in found.items()
            ]
            if lines:
                tests = sum(each.p is not None for each in self._every_difference)
                title = f"{shown[name]} against {self.shown_names[0]} on the same stimuli"
                caption = (
                    f"Paired differences; positive means that {shown[name]} is better. p is that of flipping the signs "
                    "of the stimuli's differences at random (two-sided), p (Holm) holds for all "
                    f"{tests} tests of this comparison together."
                )
                header = ["metric", "difference", "95 % interval", "p", "p (Holm)", "n"]
                tables.append(Table(title, caption, header, lines))
        return tables

    def subjects_table(self) -> Table | None:
        """The row `brain` of each subject of each report, and the mean of the subjects; None of one subject alone."""
        if all(len(report.per_subject) < 2 for report in self.reports):
            return None
        header, columns = ["metric"], []
        for name, report in zip(self.shown_names, self.reports, strict=True):
            of_subjects = {subject: rows.get("brain", {}) for subject, rows in report.per_subject.items()}
            header += [f"{name}: {subject}" for subject in of_subjects]
            columns += list(of_subjects.values())
            over = report.over_subjects.get("brain") or _mean_of(of_subjects)
            header.append(f"{name}: mean of {len(of_subjects)}")
            columns.append(over)
        lines = [
            [
                get_metric(metric).label,
                *(value_cell(column.get(metric), with_interval=False) for column in columns),
            ]
            for metric in self.metrics
        ]
        return Table("Subjects", "The brain row of each subject, and the mean of the subjects' values.", header, lines)

    def reports_table(self) -> Table:
        """What each report was measured by and on, and how much its model learned from."""
        known = [dict(facts(report)) | {"protocol": report.protocol_title} for report in self.reports]
        lines = [
            [name, *(each.get(name, "–") for each in known)]
            for name in _OF_REPORTS
            if any(name in each for each in known)
        ]
        return Table("Reports", "What was measured, and on what.", ["", *self.shown_names], lines)

    def sentences(self) -> list[str]:
        """What has to be known of the paired differences."""
        if self.hindrances:
            return []
        names = self.shown_names
        found = [
            f"{name} was written by an earlier version, which did not name its items: that items.parquet beside it is "
            "its own can't be verified."
            for name, report, items in zip(names, self.reports, self.items, strict=True)
            if items is not None and report.items_sha256 is None
        ]
        for own, name, items in zip(self.names[1:], names[1:], self.items[1:], strict=True):
            if self.items[0] is None or items is None:
                found.append(
                    f"{name} and {names[0]}: no paired difference, because items.parquet is missing beside one."
                )
            elif not self.differences.get(own):
                found.append(f"{name} and {names[0]} have no stimuli in common.")
        if any(each.difference.stimuli < FEWEST_STIMULI for each in self._every_difference):
            found.append(
                f"Differences on fewer than {FEWEST_STIMULI} stimuli have no interval, and none of them is beyond "
                "doubt."
            )
        return found

    def values(self) -> tuple[list[str], list[list[str | float | None]]]:
        """Header and lines of one rectangular table: a line a report, row, subject and metric."""
        header = [
            "report", "protocol", "row", "subject", "metric", "chance", "value", "low", "high", "n", "difference",
            "difference_low", "difference_high", "p", "p_holm",
        ]  # fmt: skip
        lines: list[list[str | float | None]] = []
        for name, shown, report in zip(self.names, self.shown_names, self.reports, strict=True):
            chances = {each["name"]: each.get("chance") for each in report.protocol.get("metrics", [])}
            about: list[str | float | None] = [shown, report.protocol_title]
            for row in shown_rows(report):
                for metric, found in report.results[row].items():
                    if found:
                        low, high = found.get("ci95") or (None, None)
                        tested = self.differences.get(name, {}).get(metric) if row == "brain" else None
                        figures = [chances.get(metric), found["value"], low, high, found["n"]]
                        lines.append([*about, row, "all", metric, *figures, *_figures(tested)])
            for subject, rows in report.per_subject.items() if len(report.per_subject) > 1 else ():
                for metric, found in rows.get("brain", {}).items():
                    if found:
                        figures = [chances.get(metric), found["value"], None, None, found["n"]]
                        lines.append([*about, "brain", subject, metric, *figures, *_figures(None)])
        return header, lines


def shown_rows(report: Report) -> list[str]:
    """Those of a report's rows that a comparison shows."""
    return [row for row in _SHOWN_ROWS if row in report.results]


def protocol_value(report: Report, field: str) -> Any:
    """A field of a report's protocol; reports of earlier versions lack what had one value only."""
    return report.protocol.get(field, _DEFAULTS[field])


def _as_given(value: Any) -> str:
    """Whole numbers without a point, as they were given."""
    return repr(int(value)) if isinstance(value, float) and value.is_integer() else repr(value)


def _hindrances(first_place: str, first: Report, place: str, report: Report) -> list[Hindrance]:
    first_place, place, found = one_line(first_place), one_line(place), []
    for field in PROTOCOL_FIELDS:
        one, other = (protocol_value(each, field) for each in (first, report))
        if one != other:
            named = field.replace("_", " ")
            sentence = f"{first_place} has the protocol's {named} {_as_given(one)} and {place} has {_as_given(other)}."
            found.append(Hindrance("protocol", sentence))
    found += [
        Hindrance("protocol", f"{first_place} and {place} were measured by different networks ({difference}).")
        for difference in other_networks(first, report)
    ]
    one, other = first.data.get("fingerprint"), report.data.get("fingerprint")
    if one != other:
        sentence = (
            f"{first_place} and {place} were measured on different data (fingerprints {one_line(one)}, "
            f"{one_line(other)})."
        )
        return [*found, Hindrance("data", sentence)]
    if difference := _other_test_trials(first.data, report.data):
        found.append(Hindrance("split", f"{first_place} and {place} have different test splits ({difference})."))
    return found


def other_networks(first: Report, other: Report) -> Iterator[str]:
    """In what networks of one name differ, whose scores are then not of one metric."""
    for name in sorted(first.extractors.keys() & other.extractors.keys()):
        one, two = first.extractors[name], other.extractors[name]
        # Several files may have the published weights.
        both_known = one.get("weights") == two.get("weights") == KNOWN_WEIGHTS
        differing = [
            what
            for what, key in (("weights", "sha256"), ("layer", "layer"), ("preprocessing", "preprocessing"))
            # Reports of earlier versions say nothing but the digest.
            if key in one and key in two and one[key] != two[key] and not (key == "sha256" and both_known)
        ]
        if differing:
            yield f"{one_line(name, 80)}: other {' and '.join(differing)}"


def _other_test_trials(first: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """In what the test trials of two reports on the same table differ; empty where they are the same ones."""
    one, two = first.get("test_fingerprints"), other.get("test_fingerprints")
    if one and two:
        # What a split is called is nobody's concern where its test trials are the same.
        return "" if sorted(one.values()) == sorted(two.values()) else _named_splits(first, other)
    named = [(each.get("split"), each.get("folds")) for each in (first, other)]
    return "" if named[0] == named[1] or None in (named[0][0], named[1][0]) else _named_splits(first, other)


def _named_splits(first: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    return " and ".join(
        f"{one_line(repr(each.get('split')), 80)}, folds {', '.join(map(str, each.get('folds') or [0]))}"
        for each in (first, other)
    )


def _means(items: dict[str, dict[tuple[str, str], list[float]]] | None) -> dict[str, _Items] | None:
    """By metric, subject and stimulus the mean over seeds and trials; None where there are no items."""
    if items is None:
        return None
    return {
        metric: {key: sum(values) / len(values) for key, values in scores.items()} for metric, scores in items.items()
    }


def _tested(
    items: _Items, first: _Items, metric: str, widening: float, same: Mapping[str, str]
) -> TestedDifference | None:
    shared = sorted(items.keys() & first.keys())
    if not shared:
        return None
    values, others = (np.array([side[key] for key in shared]) for side in (items, first))
    ids = [same.get(key[1], key[1]) for key in shared]
    described = get_metric(metric)
    higher, bounds = described.higher_is_better, described.bounds
    difference = paired_difference(values, others, ids, higher, bounds=bounds, widening=widening)
    if difference is None:
        return None
    if described.of_whole_set:
        # Each stimulus has the figure of its subject and fold, so that they tell nothing of how far others scatter.
        difference = replace(difference, ci95=None)
    # Nor do differences that are all the same.
    return TestedDifference(
        difference, None if difference.ci95 is None else sign_flip_test(values, others, ids, widening)
    )


def _corrected(found: Mapping[str, Mapping[str, TestedDifference]]) -> dict[str, dict[str, TestedDifference]]:
    """The same with p-values that hold for all of them together."""
    places = [(name, metric) for name, of_report in found.items() for metric, each in of_report.items() if each.p]
    adjusted = dict(zip(places, holm([found[name][metric].p or 1.0 for name, metric in places]), strict=True))
    return {
        name: {
            metric: TestedDifference(each.difference, each.p, adjusted.get((name, metric)))
            for metric, each in of_report.items()
        }
        for name, of_report in found.items()
    }


def _mean_of(of_subjects: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Mean over subjects of each metric, for reports of earlier versions; None where one has no value."""
    metrics = {metric for values in of_subjects.values() for metric in values}
    found: dict[str, Any] = {}
    for metric in metrics:
        values = [each.get(metric) for each in of_subjects.values()]
        known = [each["value"] for each in values if each]
        found[metric] = {"value": sum(known) / len(known)} if known and len(known) == len(values) else None
    return found


def _figures(tested: TestedDifference | None) -> list[float | None]:
    if tested is None:
        return [None] * 5
    low, high = tested.difference.ci95 or (None, None)
    return [tested.difference.difference, low, high, tested.p, tested.p_holm]


def _p_cell(p: float | None) -> str:
    if p is None:
        return "–"
    return "<.001" if p < 0.001 else f"{p:.3f}"


def _chance(metric: str, reports: Sequence[Report]) -> str:
    """What guessing scores in a metric; several numbers where the reports' test sets differ in size."""
    return ", ".join(dict.fromkeys(cell for report in reports if (cell := chance_cell(report, metric)) != "–")) or "–"
