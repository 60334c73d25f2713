"""How much better a method scores on one split than on another one: what goes with how the test stimuli were chosen.

On a split by stimulus, test pictures may resemble training pictures; on one by tau none does. The difference of both is
what a model of the same method, trained on each, owes to pictures that are near what it has learned from, as far as
nothing else differs: the amount of training, how hard the pictures are, among how many they are identified. All of this
is said beside it.
"""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import FmriModelsError
from ..names import listed, one_line
from .bootstrap import FEWEST_STIMULI, WIDENING_OF_FOLDS, paired_difference
from .items_file import Items, items_of
from .named_metrics import get_metric
from .protocols import Protocol
from .report import Report
from .report_comparison import PROTOCOL_FIELDS, other_networks, protocol_value
from .scores import Scores
from .two_samples import Gap, gap_of_means

if TYPE_CHECKING:
    from ..data.table import TrialTable
    from .drawn_items import DrawnItems

# What tells whether the pictures themselves are easier, beside the brain.
_ROWS = ("brain", "nearest_train", "ceiling")
# Draws of the smaller pool, among which each item is as often as any other.
_POOLS = 10

Values = dict[str, float]


@dataclass(frozen=True)
class OtherSplit:
    """A report on another split, of which the difference is taken.

    Args:
        report: The report.
        items: Row ▶ its items.
        place: What it is called.
    """

    report: Report
    items: Mapping[str, Items]
    place: str

    @classmethod
    def load(cls, path: str | PathLike) -> "OtherSplit":
        """Reads a report with its items.

        Raises:
            FmriModelsError: There is none, or no items.parquet lies beside it.
        """
        report = Report.load(path)
        items = items_of(report, _ROWS)
        if items is None or not items.get("brain"):
            raise FmriModelsError(
                f"No items.parquet lies beside {one_line(path)}, so that nobody knows how its scores scatter; evaluate "
                "it again, or give the folder that has both."
            )
        return cls(report, items, one_line(os.fspath(path)))

    @property
    def split(self) -> str:
        """Name of its split."""
        return str(self.report.data.get("split"))

    def check(self, protocol: Protocol, fingerprint: str, split: str, method: str, tests: Mapping[int, str]) -> None:
        """Refuses a report that differs in more than the split, before anything is drawn.

        Args:
            protocol: Of the evaluation.
            fingerprint: Of its table.
            split: Its split.
            method: Of its model.
            tests: Fold ▶ fingerprint of its test trials.

        Raises:
            FmriModelsError: It is of another protocol, table or method, or of the same test trials.
        """
        described = protocol.to_dict()
        for field in PROTOCOL_FIELDS:
            one, other = described.get(field), protocol_value(self.report, field)
            # The report says how many stimuli there were, where the protocol leaves that to the test set.
            if field != "pool_size" and one != other:
                self._refuse(f"its protocol has the {field} {one_line(repr(other), 80)}, and this one {one!r}")
        if self.report.data.get("fingerprint") != fingerprint:
            self._refuse("it was measured on another trial table")
        if not self.report.data.get("split"):
            self._refuse("it does not say on which split it was measured")
        if self.report.model.get("method") != method:
            theirs = one_line(repr(self.report.model.get("method")), 80)
            self._refuse(f"it is of the method {theirs}, and this model of {method!r}")
        known = self.report.data.get("test_fingerprints") or {}
        same = sorted(known.values()) == sorted(tests.values()) if known else self.split == split
        if same:
            raise FmriModelsError(
                f"{self.place} was measured on the same test trials, which is no gap of two splits; `fmri-models "
                "compare` has differences of models on one split."
            )

    def check_drawn(self, subjects: Sequence[str], generator: str) -> None:
        """Refuses a report on other subjects, or of another image generator.

        Args:
            subjects: Who is evaluated.
            generator: Name of the class of the image generator.

        Raises:
            FmriModelsError: They differ.
        """
        if unknown := [name for name in subjects if name not in self.report.per_subject]:
            self._refuse(f"it is on {listed(self.report.per_subject)}, and this model also on {listed(unknown)}")
        if self.report.model.get("image_generator") != generator:
            theirs = one_line(self.report.model.get("image_generator"), 80)
            self._refuse(f"its pictures are those of {theirs}, and this model's those of {generator}")

    def _refuse(self, why: str) -> None:
        raise FmriModelsError(
            f"The split gap needs reports that differ in the split alone: of {self.place}, {why}; evaluate both alike."
        )


def gap_content(
    report: Report,
    scores: Scores,
    items: "DrawnItems",
    protocol: Protocol,
    table: "TrialTable",
    other: OtherSplit,
    seed: int,
    weights: str | PathLike | None = None,
) -> dict[str, Any]:
    """What goes into report.json: for rows and metrics the values on both splits, and the difference.

    Args:
        report: Of this evaluation.
        scores: Of all its rows.
        items: That were drawn.
        protocol: By which they were scored.
        table: Says which stimuli show the same picture.
        other: The report on another split.
        seed: Of everything that is drawn at random.
        weights: Folder with weights of extractors.
    """
    picture = _pictures(table, scores, other)
    pools = _pools(scores, picture), _pools_of_items(other.items["brain"], picture)
    if missing := sorted(set(other.report.per_subject) ^ set(report.per_subject) or pools[0].keys() ^ pools[1].keys()):
        return {
            "not_defined": f"{listed(missing)} {'is' if len(missing) == 1 else 'are'} in one of the reports alone, on "
            f"the splits {_both_names(report, other)}; evaluate the same subjects on both."
        }
    folds = [len(each.data.get("folds") or [0]) for each in (other.report, report)]
    widening = WIDENING_OF_FOLDS if max(folds) > 1 else 1.0
    smaller = _Smaller(items, scores, protocol, pools, picture, max(folds) > 1, seed, weights)
    networks = _changed_networks(report, other.report)
    rows: dict[str, dict[str, Any]] = {}
    for row in _ROWS:
        if row not in report.results or row not in other.items:
            continue
        rows[row] = {}
        for metric in report.metrics():
            theirs = other.items[row].get(metric.name)
            own = scores.values.get(row, {}).get(metric.name)
            if theirs is None or own is None or not report.results[row].get(metric.name):
                continue
            if changed := [name for name in metric.needs.extractors if name in networks]:
                rows[row][metric.name] = {"not_comparable": f"{listed(changed)} is another network there."}
                continue
            here = _means(zip(scores.subjects, scores.stimulus_ids, own, strict=True), picture)
            rows[row][metric.name] = smaller.compared(row, metric.name, here, _means_of(theirs, picture), widening)
    shown_here, shown_there = (set().union(*each.values()) for each in pools)
    return {
        "report": Path(other.place).name or other.place,
        "split": {"here": str(report.data.get("split")), "there": other.split},
        "how": {
            "here": dict(report.data.get("split_how") or {}),
            "there": dict(other.report.data.get("split_how") or _known_how(table, other.split)),
        },
        "stimuli": {"here": len(shown_here), "there": len(shown_there), "both": len(shown_here & shown_there)},
        "training_trials": {"here": _learned(report), "there": _learned(other.report)},
        "folds": {"here": folds[1], "there": folds[0]},
        "remarks": _remarks(report, other.report),
        "rows": rows,
    }


@dataclass(frozen=True)
class _Smaller:
    """Differences of scores, at the smaller one of two pools where a score is that of a search.

    Args:
        items: That were drawn.
        scores: Theirs.
        protocol: By which they were scored.
        pools: Here and there, subject ▶ pictures that its items are searched among.
        picture: Stimulus ▶ picture.
        in_folds: Whether items are searched in folds.
        seed: Of the pools that are drawn.
        weights: Folder with weights of extractors.
    """

    items: "DrawnItems"
    scores: Scores
    protocol: Protocol
    pools: tuple[Mapping[str, set[str]], Mapping[str, set[str]]]
    picture: Mapping[str, str]
    in_folds: bool
    seed: int
    weights: str | PathLike | None

    def compared(self, row: str, name: str, here: Values, there: Values, widening: float) -> dict[str, Any]:
        metric = get_metric(name)
        sizes = [{subject: len(pictures) for subject, pictures in each.items()} for each in self.pools]
        pool: dict[str, int] = {}
        if (metric.is_search or metric.of_whole_set) and (sizes[0] != sizes[1] or self.in_folds):
            what = "among" if metric.is_search else "of"
            why = (
                f"It is measured {what} {_sizes(sizes[0])} pictures here and {_sizes(sizes[1])} there, and changes "
                "with their number"
            )
            if metric.of_whole_set or self.in_folds:
                return {"not_comparable": f"{why}."}
            if not name.startswith("retrieval") or (self.protocol.pool_size or 2**62) > min(
                min(each.values()) for each in sizes
            ):
                if any(sizes[0][subject] < sizes[1][subject] for subject in sizes[0]):
                    return {"not_comparable": f"{why}; evaluate the larger one with --split-gap of this report."}
                if row != "brain":
                    return {"not_comparable": f"{why}; that of the brain is compared among as many."}
                here = self._among_fewer(name, sizes[1])
                pool = {"pool": max(sizes[1].values())}
        if not here or not there:
            return {"not_comparable": "No stimulus has a score."}
        sign = 1.0 if metric.higher_is_better else -1.0
        found = gap_of_means(_signed(there, sign), _signed(here, sign), metric.bounds if sign > 0 else None, widening)
        assert found is not None
        return {
            "here": float(np.mean(list(here.values()))),
            "there": float(np.mean(list(there.values()))),
            **_described(found, metric.of_whole_set),
            **pool,
            **_shared(here, there, name, widening),
        }

    def _among_fewer(self, metric: str, sizes: Mapping[str, int]) -> Values:
        """Picture ▶ the mean score of the row `brain`, with as many pictures of each subject as there are there."""
        protocol = replace(self.protocol, metrics=(metric,))
        rng = np.random.default_rng(self.seed)
        orders = {subject: _orders(sorted(self.pools[0][subject]), sizes[subject], rng) for subject in sizes}
        total: dict[tuple[str, str], list[float]] = {}
        for number in range(_POOLS):
            chosen = {subject: drawn[number] for subject, drawn in orders.items()}
            kept = [
                place
                for place, (subject, stimulus) in enumerate(
                    zip(self.items.subjects, self.items.stimulus_ids, strict=True)
                )
                if self.picture[stimulus] in chosen[subject]
            ]
            scored = self.items.at(kept, rows=["brain"]).scores(
                protocol, self.seed, permutations=0, weights=self.weights
            )
            values = scored.values["brain"].get(metric)
            if values is None:
                continue
            for subject, stimulus, value in zip(scored.subjects, scored.stimulus_ids, values, strict=True):
                if np.isfinite(value):
                    total.setdefault((str(subject), str(stimulus)), []).append(float(value))
        # A stimulus counts once, however often it was drawn.
        every = [(subject, stimulus, float(np.mean(values))) for (subject, stimulus), values in total.items()]
        return _means(every, self.picture)


def _orders(pictures: Sequence[str], size: int, rng: np.random.Generator) -> list[set[str]]:
    """Draws of so many pictures, in which each is about as often as any other; the first ones have all of them."""
    drawn: list[set[str]] = []
    rest: list[str] = []
    while len(drawn) < _POOLS:
        chosen, rest = set(rest[:size]), rest[size:]
        if len(chosen) < size:
            order = [pictures[place] for place in rng.permutation(len(pictures))]
            more = [name for name in order if name not in chosen][: size - len(chosen)]
            chosen |= set(more)
            rest = [name for name in order if name not in set(more)]
        drawn.append(chosen)
    return drawn


def _signed(values: Values, sign: float) -> Values:
    return {name: sign * value for name, value in values.items()}


def _described(found: Gap, of_whole_set: bool) -> dict[str, Any]:
    there, here, both = found.stimuli
    return {
        "difference": found.difference,
        "ci95": None if found.ci95 is None or of_whole_set else list(found.ci95),
        "stimuli": {"here": here, "there": there, "both": both},
    }


def _shared(here: Values, there: Values, name: str, widening: float) -> dict[str, Any]:
    """The difference on the pictures that both tested, where they are enough."""
    metric = get_metric(name)
    both = sorted(here.keys() & there.keys())
    if len(both) < FEWEST_STIMULI or metric.of_whole_set or metric.is_search:
        return {}
    values, others = (np.array([each[name] for name in both]) for each in (there, here))
    found = paired_difference(values, others, both, metric.higher_is_better, bounds=metric.bounds, widening=widening)
    return {} if found is None else {"on_shared": {k: v for k, v in found.to_dict().items() if k != "n"}}


def _pictures(table: "TrialTable", scores: Scores, other: OtherSplit) -> dict[str, str]:
    """Stimulus ▶ what it shows: the hash of its picture, or its id where there is none."""
    ids = set(scores.stimulus_ids.tolist())
    for metrics in other.items.values():
        ids |= {stimulus for items in metrics.values() for _, stimulus in items}
    known = sorted(name for name in ids if name in table.stimuli)
    hashes = dict(zip(known, table.stimuli.content_hashes(known), strict=True))
    return {name: hashes.get(name) or name for name in ids}


def _means(items: Any, picture: Mapping[str, str]) -> Values:
    """Picture ▶ mean of the scores of its items that have one."""
    found: dict[str, list[float]] = {}
    for _, stimulus, value in items:
        if np.isfinite(value):
            found.setdefault(picture[str(stimulus)], []).append(float(value))
    return {name: float(np.mean(values)) for name, values in found.items()}


def _means_of(items: Mapping[tuple[str, str], list[float]], picture: Mapping[str, str]) -> Values:
    return _means(
        ((subject, stimulus, value) for (subject, stimulus), each in items.items() for value in each), picture
    )


def _pools(scores: Scores, picture: Mapping[str, str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for subject, stimulus in zip(scores.subjects.tolist(), scores.stimulus_ids.tolist(), strict=True):
        found.setdefault(subject, set()).add(picture[stimulus])
    return found


def _pools_of_items(items: Items, picture: Mapping[str, str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for each in items.values():
        for subject, stimulus in each:
            found.setdefault(subject, set()).add(picture[stimulus])
    return found


def _sizes(of_subjects: Mapping[str, int]) -> str:
    least, most = min(of_subjects.values()), max(of_subjects.values())
    return str(least) if least == most else f"{least} to {most}"


def _learned(report: Report) -> int | None:
    amounts = report.data.get("training")
    return sum(each["trials"] for each in amounts.values()) if amounts else None


def _known_how(table: "TrialTable", split: str) -> dict[str, str | int | float]:
    return table.split_how(split) if split in table.split_names() else {}


def _changed_networks(report: Report, other: Report) -> Collection[str]:
    return {sentence.partition(":")[0] for sentence in other_networks(report, other)}


def _remarks(report: Report, other: Report) -> list[str]:
    """In what both differ, beside the split, that may change scores."""
    found = []
    here, there = (each.model.get("settings") or {} for each in (report, other))
    if changed := [name for name in dict.fromkeys([*here, *there]) if here.get(name) != there.get(name)]:
        how = "; ".join(
            f"{name} {_setting(here.get(name))} here and {_setting(there.get(name))} there" for name in changed
        )
        found.append(f"The models drew with other settings ({how}), which may be part of the gap.")
    one, two = (each.model.get("repetitions_trained_on") for each in (report, other))
    if one != two:
        found.append(
            f"The models learned from other responses ({_setting(one)} here and {_setting(two)} there: repetitions), "
            "which may be part of the gap."
        )
    return found


def _setting(value: object) -> str:
    return "not set" if value is None else one_line(str(value), 60)


def _both_names(report: Report, other: OtherSplit) -> str:
    return f"{one_line(repr(report.data.get('split')), 60)} and {one_line(repr(other.split), 60)}"
