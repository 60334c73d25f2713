"""report.json: what was measured, against what, with which data, model, networks and versions."""

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from importlib import metadata
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from .. import version as package_version
from ..errors import FmriModelsError
from ..names import one_line
from ..plain_values import ShortRepr, plain
from ..reading import checked, read_json
from ..saving import check_schema, write_text
from ..swapping import recover
from .bootstrap import (
    CONFIDENCE,
    DRAWS,
    FEWEST_STIMULI,
    TIE_MARGIN,
    interval,
    means_over_stimuli,
    paired_difference,
    permutation_test,
    stimulus_means,
)
from .named_metrics import Metric, get_metric
from .protocols import Protocol
from .report_schema import ReportContent
from .rows import ROWS, get_row
from .scored_items import same_pictures
from .scores import Scores

REPORT_FILE = "report.json"
SCHEMA = 1

# Where a verdict names its metrics.
_REWARDED = "{metrics}"
# Above this a p that is as small as it can be tells nothing.
_SMALLEST_USEFUL_P = 0.05


@dataclass(repr=False)
class Report(ShortRepr):
    """The content of report.json.

    Args:
        protocol: Name, description, metrics with direction and chance, and what changes their values.
        results: row -> metric -> {"value", "ci95", "n", "stimuli"}, or None where the row has no such metric.
        permutation: metric -> {"mean", "sd", "n", "p", "smallest_p", "exhaustive"} of re-paired reconstructions of the
            row `brain`.
        per_subject: subject -> row -> metric -> {"value", "n"}.
        comparisons: row -> metric -> {"difference", "ci95", "n", "stimuli"}; positive means that `brain` is better.
        rows: row -> {"kind", "label", "description"}, and `uses_test_images` where true.
        data: Name, fingerprint, whether simulated, mean noise ceiling.
        model: What was evaluated.
        extractors: name -> {"sha256"} of the networks that scored.
        versions: Of this package and what it stands on.
        timing: Seconds.
        seed: Of sampling and bootstrap.
        looks: Earlier evaluations on the same test split.
        near_copies: Test pictures that were nearly learned from, and what `brain` scores without them.
        same_pictures: Groups of tested stimuli that show the very same picture; each counts as one stimulus.
        warnings: Those of the notes that say why figures are not, or may not be, those of pictures that nothing was
            learned from; they stand wherever figures of the report do.
        notes: Sentences.
        items_sha256: Of the items.parquet that was written with it; None where none was, and in older reports.
        folder: Where it was read or written; no part of the file.
    """

    protocol: dict[str, Any]
    results: dict[str, dict[str, dict[str, Any] | None]]
    permutation: dict[str, dict[str, Any]] = field(default_factory=dict)
    per_subject: dict[str, Any] = field(default_factory=dict)
    comparisons: dict[str, dict[str, dict[str, Any] | None]] = field(default_factory=dict)
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    extractors: dict[str, dict[str, str]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    timing: dict[str, float] = field(default_factory=dict)
    seed: int = 0
    looks: list[dict[str, Any]] = field(default_factory=list)
    near_copies: dict[str, Any] = field(default_factory=dict)
    same_pictures: list[list[str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    items_sha256: str | None = None
    folder: Path | None = field(default=None, compare=False, repr=False)

    @classmethod
    def from_scores(
        cls,
        scores: Scores,
        protocol: Protocol,
        *,
        data: Mapping[str, Any] | None = None,
        model: Mapping[str, Any] | None = None,
        timing: Mapping[str, float] | None = None,
        seed: int = 0,
        looks: Sequence[Mapping[str, Any]] = (),
        notes: Sequence[str] = (),
        uses_test_images: Sequence[str] = (),
        draws: int = DRAWS,
    ) -> "Report":
        """Summarizes item scores.

        Args:
            scores: Of all rows.
            protocol: Under which they were computed.
            data: Name, fingerprint, simulated, mean_noise_ceiling.
            model: Anything that says what was evaluated.
            timing: Seconds by stage; `total_s` among them.
            seed: Of the bootstrap.
            looks: Earlier evaluations on the same split.
            notes: Further sentences.
            uses_test_images: Rows that were made from the true test pictures.
            draws: Bootstrap samples.
        """
        results = {
            row: {metric: _result(metric, values, scores, draws, seed) for metric, values in metrics.items()}
            for row, metrics in scores.values.items()
        }
        comparisons = _comparisons(scores, draws, seed)
        permutation = {metric: asdict(result) for metric, result in _permutation(scores).items()}
        described = _described(protocol, scores)
        rows = {
            row: get_row(row).described() | ({"uses_test_images": True} if row in uses_test_images else {})
            for row in scores.rows
        }
        return cls(
            protocol=described,
            results=results,
            permutation=permutation,
            per_subject=_per_subject(scores),
            comparisons=comparisons,
            rows=rows,
            data=dict(data or {}),
            model=dict(model or {}),
            extractors=dict(scores.extractors),
            versions=versions(),
            timing=dict(timing or {}),
            seed=seed,
            looks=[dict(look) for look in looks],
            same_pictures=same_pictures(scores.stimulus_ids.tolist(), scores.units.tolist()),
            notes=[
                *notes,
                *scores.notes,
                *_on_folds(scores),
                *_on_intervals(results, comparisons),
                *_on_pairings(permutation),
                *_verdicts(results, comparisons, rows),
                *_on_leakage(scores, draws, seed),
            ],
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: NaN and infinity become null, texts one line each."""
        content = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "folder"}
        return plain({"schema": SCHEMA, **content})

    def save(self, path: str | PathLike) -> None:
        """Writes report.json atomically."""
        write_text(path, json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: str | PathLike) -> "Report":
        """Reads a report.json, or the one in a folder.

        What a killed evaluation has left unfinished in the folder is completed first.

        Raises:
            FmriModelsError: It is missing, is no report, has something else than the schema says, or was written by a
                newer version.
        """
        path = Path(path)
        path = path / REPORT_FILE if path.is_dir() else path
        recover(path.parent)
        content = read_json(
            path, "report", f"it is not a readable {REPORT_FILE}; write one with `fmri-models evaluate`"
        )
        if not isinstance(content, dict) or not isinstance(content.get("results"), dict):
            raise FmriModelsError(f"{one_line(path)} is JSON, but not a report of fmri_models (it has no results).")
        check_schema(content.pop("schema", None), SCHEMA, one_line(path))
        found = checked(
            content, ReportContent, f"The report {one_line(path)}", "write it again with `fmri-models evaluate`"
        )
        values = found.model_dump(exclude_unset=True)
        known = {each.name for each in fields(cls)} - {"folder"}
        read = {name: value for name, value in values.items() if name in known}
        return cls(**{"protocol": {}} | read, folder=path.parent.absolute())

    def row(self, name: str) -> dict[str, Any]:
        """What a row is: its role (as `kind`), label and description."""
        return self.rows.get(name) or get_row(name).described()

    @property
    def further_notes(self) -> list[str]:
        """The notes that are no warnings."""
        return [note for note in self.notes if note not in self.warnings]

    def metrics(self) -> list[Metric]:
        """The metrics that at least one row has, in the protocol's order."""
        names = [metric["name"] for metric in self.protocol.get("metrics", [])]
        names += [name for row in self.results.values() for name in row if name not in names]
        names = list(dict.fromkeys(names))
        return [get_metric(name) for name in names if any(row.get(name) for row in self.results.values())]


def versions() -> dict[str, str]:
    """Versions of this package, Python, and the libraries whose version can change a score."""
    found = {"fmri_models": package_version.__version__, "python": platform.python_version()}
    for name in ("torch", "transformers", "diffusers", "datasets", "timm", "numpy", "scikit-learn"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _result(metric: str, values: np.ndarray | None, scores: Scores, draws: int, seed: int) -> dict[str, Any] | None:
    if values is None:
        return None
    found = interval(values, scores.units.tolist(), draws, seed, get_metric(metric).bounds, widening=scores.widening)
    if found is None:
        return None
    return {**asdict(found), "ci95": None if found.ci95 is None else list(found.ci95)}


def _comparisons(scores: Scores, draws: int, seed: int) -> dict[str, dict[str, dict[str, Any] | None]]:
    """Paired differences of the row `brain` and every other row, where both have the metric."""
    compared: dict[str, dict[str, dict[str, Any] | None]] = {}
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
            ids, higher, bounds = scores.units.tolist(), get_metric(metric).higher_is_better, get_metric(metric).bounds
            found = paired_difference(own, values, ids, higher, draws, seed, bounds, scores.widening)
            compared[row][metric] = None if found is None else found.to_dict()
    return compared


def _permutation(scores: Scores) -> dict[str, Any]:
    tests = {}
    for metric, permuted in scores.permuted.items():
        true = scores.values["brain"][metric]
        if true is None:
            continue
        # A pairing can leave an item without a score (no other picture has its background).
        observed, *means = means_over_stimuli(np.concatenate([true[None], permuted]), scores.units)
        if np.isfinite(observed) and np.isfinite(means).any():
            higher = get_metric(metric).higher_is_better
            tests[metric] = permutation_test(
                np.array(means), float(observed), higher, scores.exhaustive, scores.widening
            )
    return tests


def _per_subject(scores: Scores) -> dict[str, Any]:
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


def _described(protocol: Protocol, scores: Scores) -> dict[str, Any]:
    """The protocol with the metrics that were used, and chance where it follows from the number of stimuli."""
    names = list(dict.fromkeys([*protocol.metrics, *(m for row in scores.values.values() for m in row)]))
    metrics = [get_metric(name).described() | {"chance": scores.chances.get(name)} for name in names]
    return {**protocol.to_dict(), "metrics": metrics, "pool_size": protocol.pool_size or _whole(scores.pool_size)}


def _whole(number: float) -> float:
    """A number without a fraction as Python's own whole number; folds of unequal sizes have a mean of them."""
    return int(number) if number == int(number) else number


def _on_folds(scores: Scores) -> list[str]:
    """What intervals and p-values of merged folds allow for."""
    if scores.num_folds == 1:
        return []
    return [
        f"The models of {scores.num_folds} folds learned from each other's test stimuli, so that their scores are not "
        f"independent: intervals, and what p compares with, are {scores.widening:.2f} times as wide as for one fold."
    ]


def _on_intervals(results: Mapping[str, Any], comparisons: Mapping[str, Any]) -> list[str]:
    """Why some values have no interval."""
    found = [
        (metric, result)
        for each in (results, comparisons)
        for row in each.values()
        for metric, result in row.items()
        if result is not None and result["ci95"] is None
    ]
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
    return sentences


def _counts(numbers: Any) -> str:
    low, high = min(numbers), max(numbers)
    if low != high:
        return f"{low} to {high} stimuli"
    return "one stimulus" if high == 1 else f"{high} stimuli"


def _on_pairings(permutation: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What p can be where pictures are few."""
    test = next(iter(permutation.values()), None)
    if test is None or not test["exhaustive"]:
        return []
    if test["n"] == 1:
        return [
            "Permutation test: no stimulus has another one that it could be exchanged with (of the same subjects and "
            "folds), so that p is 1 and says nothing."
        ]
    sentence = (
        f"Permutation test: so few stimuli have {test['n']} pairings, all of which were scored; no p can be below "
        f"{test['smallest_p']:.3f}"
    )
    return [sentence + (", which is too much to rule out luck." if test["smallest_p"] > _SMALLEST_USEFUL_P else ".")]


def _verdicts(
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


def _on_leakage(scores: Scores, draws: int, seed: int) -> list[str]:
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
