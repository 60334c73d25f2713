"""The audit of a pipeline: what its weights give away of the people whose brains it learned from."""

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from ..data.table import TrialTable
from ..errors import FmriModelsError
from ..evaluation.held_out import check_trained_split
from ..evaluation.report import versions
from ..names import markdown, one_line
from ..pipeline_fmri import FmriToImagePipeline
from ..saving import json_text, merged_folder
from ..seeds import check_seed
from ..version import __version__
from .identification import Identification, identification
from .membership import Membership, membership

AUDIT_FILES = ("audit.json", "audit.md")
AUDIT_SCHEMA = 1
_MEANS = (
    "Membership: given a picture and somebody's trial, can whoever has the weights tell whether the picture was "
    "trained on? The area under the curve is the chance that a picture that was learned from scores above one that was "
    "not; .5 tells nothing, 1 every picture. The baseline never saw either picture: what it has, the pictures "
    "themselves give away, and the difference is what the weights add.",
    "Re-identification: given trials of an unknown person and what was shown, does that person's layer fit best? The "
    "area is the chance that a picture fits better through the person's own layer than through another one of that "
    "width.",
    "A value near .5 is no proof that nobody can do better. Where an interval lies above .5, treat the weights as the "
    "data that they were trained on: publish them only as far as these people's consent covers it, or leave their "
    "layers out.",
)


@dataclass(frozen=True)
class Audit:
    """What was found of a pipeline.

    Args:
        model: Name of the pipeline's folder or repository.
        method: Its method.
        table: Name of the trial table.
        table_fingerprint: Its fingerprint.
        simulated: Whether the brain activity is simulated.
        membership: One entry a subject.
        identification: One entry a subject.
        seed: Of everything that was drawn.
        notes: What a person should know, a sentence each.
    """

    model: str
    method: str
    table: str
    table_fingerprint: str
    simulated: bool
    membership: list[Membership]
    identification: list[Identification]
    seed: int
    notes: list[str] = field(default_factory=list)
    schema: int = AUDIT_SCHEMA
    fmri_models_version: str = __version__

    @classmethod
    def of(
        cls, model: str | os.PathLike, data: str | os.PathLike, seed: int = 0, subjects: list[str] | None = None
    ) -> Self:
        """Audits a pipeline on the table that it was trained on.

        Args:
            model: A pipeline's folder, or its name on the Hub.
            data: The trial table.
            seed: Of draws among trials, of intervals and exchanges.
            subjects: Some of its subjects; None for all.

        Raises:
            FmriModelsError: The pipeline has no training record, was trained on another table or split, or does not
                know a subject.
        """
        check_seed(seed)
        table = TrialTable.open(os.fspath(data))
        pipeline = FmriToImagePipeline.from_pretrained(model)
        record = pipeline.training_record
        if record is None:
            raise FmriModelsError(
                f"{one_line(model)} has no training record, so that nobody knows what it was trained on, and what an "
                "attacker might find out; audit a pipeline that was trained with this package."
            )
        check_trained_split(record, table, model)
        names = pipeline.processor.subject_names
        if unknown := [name for name in subjects or [] if name not in names]:
            raise FmriModelsError(
                f"The pipeline has no subject {one_line(repr(unknown[0]), 80)}; it has {', '.join(names)}."
            )
        chosen = list(dict.fromkeys(subjects or names))
        found = [membership(pipeline, table, record, name, seed) for name in chosen]
        own = [identification(pipeline, table, name, seed) for name in chosen]
        notes = list(dict.fromkeys(note for each in found for note in each.notes))
        if table.simulated:
            notes.insert(0, "The brain activity is simulated: these weights give away nobody's data.")
        model_name = Path(model).name if Path(model).is_dir() else os.fspath(model)
        return cls(model_name, record.method, table.name, table.fingerprint, table.simulated, found, own, seed, notes)

    def to_dict(self) -> dict[str, Any]:
        """What audit.json holds."""
        return {**asdict(self), "versions": versions(), "means": list(_MEANS)}

    def save(self, out: str | os.PathLike) -> None:
        """Writes audit.json and audit.md into a folder; everything else there stays."""
        with merged_folder(out) as partial:
            (partial / AUDIT_FILES[0]).write_text(json_text(self.to_dict()), encoding="utf-8")
            (partial / AUDIT_FILES[1]).write_text(self.to_markdown(), encoding="utf-8")

    def lines(self) -> list[str]:
        """What was found, a line for each subject and question."""
        said = []
        for each in self.membership:
            start = f"membership, {each.subject}: "
            if each.area is None or each.baseline is None or each.difference is None or each.difference_ci95 is None:
                said.append(f"{start}not defined: {each.not_defined}")
                continue
            low, high = each.difference_ci95
            said.append(
                f"{start}area {_value(each.area.value, each.area.ci95)}, p = {each.area.p:.4f}, of {each.area.n[0]} "
                f"training and {each.area.n[1]} held-out pictures; baseline "
                f"{_value(each.baseline.value, each.baseline.ci95)}, difference {each.difference:+z.3f} "
                f"[{low:+z.3f}, {high:+z.3f}]"
            )
        for own in self.identification:
            start = f"re-identification, {own.subject}: "
            if own.area is None or own.ci95 is None or own.p is None:
                said.append(f"{start}not defined: {own.not_defined}")
                continue
            best = "fits best" if own.identified else "does not fit best"
            said.append(
                f"{start}area {_value(own.area, own.ci95)}, p = {own.p:.4f}, of {own.stimuli} held-out pictures "
                f"against {', '.join(own.others)}; the own layer {best}"
            )
        return said

    def to_markdown(self) -> str:
        """What audit.md holds."""
        found = "\n".join(f"- {markdown(line)}" for line in [*self.lines(), *self.notes])
        means = "\n\n".join(_MEANS)
        return (
            f"# Audit of {markdown(self.model)}\n\nMethod {markdown(self.method)}, trial table {markdown(self.table)}"
            f"{', which is simulated' if self.simulated else ''}, seed {self.seed}, fmri_models "
            f"{markdown(self.fmri_models_version)}.\n\n{found}\n\n## What it means\n\n{means}\n"
        )


def means() -> tuple[str, ...]:
    """What the figures mean, a paragraph each."""
    return _MEANS


def _value(value: float, ci95: tuple[float, float]) -> str:
    return f"{value:.3f} [{ci95[0]:.3f}, {ci95[1]:.3f}]"
