"""Every row of one subject on one fold: which there are, and what each has."""

from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch

from .. import progress
from .attention import RoiAttention, attention_of
from .evaluated_subject import EvaluatedSubject
from .guide_scores import GuidesOfSubject
from .held_out import HeldOut
from .processor_notes import processor_notes
from .repetition_curve import SubjectCurve
from .row_data import RowData
from .rows import ROWS


@dataclass
class SubjectRows:
    """Rows of one subject on one fold.

    Args:
        subject: Name.
        fold: Fold of the split.
        stimulus_ids: (N,) stimulus of each item.
        truth: (N, C, H, W) what was shown, in [0, 1].
        rows: Name ▶ pictures and embeddings, in the order of reports.
        missing: Name of a row that there is not ▶ why; empty where nobody would look for it.
        gallery_embeds: (N, …) embeddings of what was shown; None without retrieval.
        held_out: The trials behind the items, and what is known of whether they were learned from.
        notes: What the report says of the processor.
        nearest_by: What the pictures of `nearest_train` were compared by; None where that is what was decoded.
        attention: What the model attends to, by ROI, or why that is not defined; None for a model without attention.
        blocks: (N,) where each item was recorded; None where nobody asks.
        samples: How many pictures of each response the items are, as [`EvaluatedSubject`] has them.
        curve: Reconstructions of fewer averaged repetitions; None where nobody asks.
        audit: Name of a part of the audit ▶ what it has measured.
        guides: What decoded layers score; None for a model that decodes none.
    """

    subject: str
    fold: int
    stimulus_ids: list[str]
    truth: torch.Tensor
    rows: dict[str, RowData]
    missing: dict[str, str]
    gallery_embeds: torch.Tensor | None
    held_out: HeldOut
    notes: list[str] = field(default_factory=list)
    nearest_by: str | None = None
    attention: RoiAttention | str | None = None
    blocks: list[str] | None = None
    samples: int = 1
    curve: SubjectCurve | None = None
    audit: dict[str, Any] = field(default_factory=dict)
    guides: GuidesOfSubject | None = None


def draw_rows(of: EvaluatedSubject, chosen: Collection[str] | None = None) -> SubjectRows:
    """Draws all rows that there are, or those chosen; first what the generator draws, each with a bar that names it."""
    ways = {name: row.draw for name, row in ROWS.items() if row.draw is not None}
    reasons = {name: _reason(name, of, chosen) for name in ways}
    there = [name for name, reason in reasons.items() if reason is None]
    again = [name for name in there if ROWS[name].is_brain(of)]
    by_generator = [name for name in there if ROWS[name].by_generator and name not in again]
    for number, name in enumerate(by_generator, start=1):
        with ExitStack() as stack:
            _name_bars(stack, of, f"row {number} of {len(by_generator)} drawn rows", ROWS[name].label)
            of.rows[name] = ways[name](of)
    for name in there:
        if name not in by_generator:
            of.rows[name] = of.rows["brain"] if name in again else ways[name](of)
    return SubjectRows(
        of.subject,
        of.record.fold,
        of.stimulus_ids,
        of.truth,
        {name: of.rows[name] for name in there},
        {name: reason for name, reason in reasons.items() if reason is not None},
        of.gallery_embeds,
        of.held_out,
        processor_notes(of.pipeline.processor, of.table, of.test),
        None if of.nearest_by is None else of.nearest_by.of_drawn,
        attention_of(of),
        samples=of.samples,
    )


def _reason(name: str, of: EvaluatedSubject, chosen: Collection[str] | None) -> str | None:
    """Why there is no such row; None if there is one."""
    reason = ROWS[name].missing(of)
    if reason is None and chosen is not None and name not in chosen:
        return "Who asked for this report chose its rows; others are not drawn."
    return reason


def _name_bars(stack: ExitStack, of: EvaluatedSubject, which: str, label: str) -> None:
    of_subject = f" of {of.subject}" if len(of.pipeline.processor.subject_names) > 1 else ""
    of.doing = f"Drawing {which}{of_subject}, {label}"
    for pipeline in (of.pipeline, of.reference):
        if pipeline is not None:
            stack.enter_context(progress.named(pipeline, of.doing, pipeline.image_generator))
