"""report.json: what was measured, against what, with which data, model, networks and versions."""

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib import metadata
from os import PathLike
from pathlib import Path
from typing import Any

from .. import version as package_version
from ..errors import FmriModelsError
from ..names import one_line
from ..plain_values import ShortRepr, plain
from ..reading import checked, read_json
from ..saving import check_schema, write_text
from ..swapping import recover
from .bootstrap import DRAWS
from .deviations import deviations_note, on_metrics, on_samples, on_test_set
from .looks import current_commit
from .named_metrics import Metric, get_metric
from .protocols import Protocol
from .report_figures import comparisons, means_by_subject, means_over_subjects, permutation_tests, results
from .report_schema import ReportContent
from .report_verdicts import on_controls, on_folds, on_intervals, on_leakage, on_pairings
from .rows import get_row
from .scored_items import same_pictures
from .scores import Scores

REPORT_FILE = "report.json"
SCHEMA = 1


@dataclass(repr=False)
class Report(ShortRepr):
    """The content of report.json.

    Args:
        protocol: Name, description, metrics with direction and chance, and what changes their values.
        results: row -> metric -> {"value", "ci95", "n", "stimuli"}, or None where the row has no such metric.
        permutation: metric -> {"mean", "sd", "n", "p", "smallest_p", "exhaustive"} of re-paired reconstructions of the
            row `brain`.
        per_subject: subject -> row -> metric -> {"value", "n"}.
        over_subjects: row -> metric -> {"value", "sd", "n"}, mean and standard deviation of the subjects' values;
            empty, and not in the file, for one subject.
        repetition_curve: {"items", "left_out", "results": {"1": {metric: result}, "2": …}}, what `brain` scores with so
            many averaged repetitions of the same stimuli; empty, and not in the file, where nobody asked.
        comparisons: row -> metric -> {"difference", "ci95", "n", "stimuli"}; positive means that `brain` is better.
        rows: row -> {"kind", "label", "description"}, and `uses_test_images` where true.
        missing_rows: row -> why it is in none of these, where somebody would look for it.
        data: Name, fingerprint, whether simulated, mean noise ceiling.
        model: What was evaluated.
        extractors: name -> {"sha256"} of the networks that scored.
        versions: Of this package and what it stands on.
        timing: Seconds.
        seed: Of sampling and bootstrap.
        looks: Earlier evaluations on the same test split.
        near_copies: Test pictures that were nearly learned from, and what `brain` scores without them.
        attention: Subject -> attention between ROIs, {"rois", "voxels", "chance", "items", "layers": [{"matrix",
            "received", "ratio"}]}, or {"not_defined": why}; empty, and not in the file, for a method without it.
        synthesis: "SOURCE to TARGET" -> row -> what responses are worth that were made of another subject's (`top1`,
            `two_way`, `cosine`, `voxel_correlation`, `pattern_correlation`); empty, and not in the file, for a method
            that makes none.
        guides: Guide ▶ what of a layer was decoded, {"units", "space", "results", "permutation",
            "profile_correlation", "category_identification"}; empty, and not in the file, where none is decoded.
        training_curve: Fold ▶ how the losses went in training, {"stage", "step", "train_loss", "validation_loss"} each;
            empty, and not in the file, for trainings in closed form and those that nobody knows.
        audit: Name of a part ▶ what an audit found; empty, and not in the file, where nobody asked for one.
        split_gap: How much better the method is on another split ([`gap_content`]); empty, and not in the file, where
            nobody asked.
        people: What the raters of a pack have answered, see [`add_ratings`]; empty, and not in the file, where nobody
            was asked.
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
    over_subjects: dict[str, dict[str, dict[str, Any] | None]] = field(default_factory=dict)
    repetition_curve: dict[str, Any] = field(default_factory=dict)
    comparisons: dict[str, dict[str, dict[str, Any] | None]] = field(default_factory=dict)
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    missing_rows: dict[str, str] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    extractors: dict[str, dict[str, str]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    timing: dict[str, float] = field(default_factory=dict)
    seed: int = 0
    looks: list[dict[str, Any]] = field(default_factory=list)
    near_copies: dict[str, Any] = field(default_factory=dict)
    attention: dict[str, dict[str, Any]] = field(default_factory=dict)
    synthesis: dict[str, dict[str, dict[str, float | None]]] = field(default_factory=dict)
    guides: dict[str, dict[str, Any]] = field(default_factory=dict)
    training_curve: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    audit: dict[str, dict[str, Any]] = field(default_factory=dict)
    split_gap: dict[str, Any] = field(default_factory=dict)
    people: dict[str, Any] = field(default_factory=dict)
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
        missing_rows: Mapping[str, str] | None = None,
        deviations: Sequence[str] = (),
        samples: int = 1,
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
            missing_rows: row -> why there is none.
            deviations: In what the evaluation differs from the published one of the protocol's name, beside its test
                set and metrics.
            samples: How many pictures of each response were scored.
        """
        found = results(scores, draws, seed)
        compared = comparisons(scores, draws, seed)
        permutation = permutation_tests(scores)
        rows = {
            row: get_row(row).described() | ({"uses_test_images": True} if row in uses_test_images else {})
            for row in scores.rows
        }
        by_subject = means_by_subject(scores)
        deviating = [*on_test_set(protocol, scores), *on_metrics(protocol), *on_samples(protocol, samples), *deviations]
        return cls(
            protocol=_described(protocol, scores) | ({"deviations": deviating} if deviating else {}),
            results=found,
            permutation=permutation,
            per_subject=by_subject,
            over_subjects=means_over_subjects(by_subject),
            comparisons=compared,
            rows=rows,
            missing_rows=dict(missing_rows or {}),
            data={**(data or {}), "test_stimuli": len(set(scores.units.tolist()))},
            model=dict(model or {}),
            extractors=dict(scores.extractors),
            versions=versions(),
            timing=dict(timing or {}),
            seed=seed,
            looks=[dict(look) for look in looks],
            same_pictures=same_pictures(scores.stimulus_ids.tolist(), scores.units.tolist()),
            notes=[
                *deviations_note(protocol.name, deviating),
                *notes,
                *scores.notes,
                *on_folds(scores),
                *on_intervals(found, compared),
                *on_pairings(permutation, scores.exchanged_within),
                *on_controls(found, compared, rows),
                *on_leakage(scores, draws, seed),
            ],
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: NaN and infinity become null, texts one line each."""
        content = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "folder"}
        optional = (
            "attention",
            "synthesis",
            "over_subjects",
            "repetition_curve",
            "guides",
            "training_curve",
            "audit",
            "split_gap",
            "people",
        )
        for name in optional:
            if not content[name]:
                del content[name]
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
        content = read_json(path, "report", f"a {REPORT_FILE} is needed; write one with `fmri-models evaluate`")
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
    def protocol_title(self) -> str:
        """The protocol's name, which does not stand alone where the evaluation differs from the published one."""
        name = str(self.protocol.get("name"))
        return f"{name} (not as published)" if self.protocol.get("deviations") else name

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
    """Versions of this package, Python, and the libraries whose version can change a score; the checkout's commit."""
    found = {"fmri_models": package_version.__version__, "python": platform.python_version()}
    for name in ("torch", "transformers", "diffusers", "datasets", "timm", "onnxruntime", "numpy", "scikit-learn"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    commit = current_commit()
    return found if commit is None else {**found, "commit": commit}


def _described(protocol: Protocol, scores: Scores) -> dict[str, Any]:
    """The protocol with the metrics that were used, and chance where it follows from the number of stimuli."""
    names = list(dict.fromkeys([*protocol.metrics, *(m for row in scores.values.values() for m in row)]))
    metrics = [get_metric(name).described() | {"chance": scores.chances.get(name)} for name in names]
    return {**protocol.to_dict(), "metrics": metrics, "pool_size": protocol.pool_size or _whole(scores.pool_size)}


def _whole(number: float) -> float:
    """A number without a fraction as Python's own whole number; folds of unequal sizes have a mean of them."""
    return int(number) if number == int(number) else number
