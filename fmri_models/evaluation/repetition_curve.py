"""How scores rise with the number of repetitions that are averaged before the model sees them."""

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .bootstrap import DRAWS
from .report_figures import results
from .row_data import RowData

if TYPE_CHECKING:
    from .drawn_items import DrawnItems
    from .evaluated_subject import EvaluatedSubject
    from .protocols import Protocol

# The Natural Scenes Dataset and most others show a test picture so often, or far more often.
MOST_REPETITIONS = 3


@dataclass
class SubjectCurve:
    """The row `brain` of one subject on one fold, of fewer averaged repetitions.

    Args:
        repetitions: (N,) how many trials of each item there are.
        rows: Number of averaged repetitions ▶ the row of all N items; of an item with fewer, all that it has.
    """

    repetitions: np.ndarray
    rows: dict[int, RowData]


def draw_curve(of: "EvaluatedSubject") -> SubjectCurve:
    """Draws the row `brain` of 1, 2 and 3 averaged repetitions, as far as there are so many.

    Args:
        of: A subject whose row `brain`, of all repetitions, is drawn.
    """
    counts = of.repetitions_of_items
    most = int(counts.max())
    rows = {}
    for repetitions in range(1, min(MOST_REPETITIONS, most) + 1):
        if repetitions == most:
            rows[repetitions] = of.rows["brain"]
            continue
        fewer = of.averaging(repetitions)
        fewer.doing = f"Drawing {of.subject} of {repetitions} averaged repetition{'s' if repetitions > 1 else ''}"
        rows[repetitions] = fewer.row(fewer.decoding)
    return SubjectCurve(counts, rows)


def curve_content(
    curves: Sequence[SubjectCurve],
    items: "DrawnItems",
    protocol: "Protocol",
    seed: int,
    weights: str | PathLike | None = None,
) -> dict[str, Any]:
    """Scores over the number of averaged repetitions, all of the same stimuli.

    These are the items that have as many repetitions as at least half of all items have, three at most.

    Args:
        curves: Of each subject and fold, in the order of the items.
        items: All that were drawn.
        protocol: Which metrics.
        seed: Of the bootstrap.
        weights: Folder with weights of extractors, by which the other figures of the report are measured, too.

    Returns:
        `{"items", "left_out", "results": {"1": {metric: result}, …}}`; empty where no item has two repetitions, or
        fewer than two stimuli have.
    """
    counts = np.concatenate([each.repetitions for each in curves])
    possible = [n for n in range(2, MOST_REPETITIONS + 1) if 2 * (counts >= n).sum() >= len(counts)]
    possible = [n for n in possible if all(n in each.rows for each in curves)]
    if not possible:
        return {}
    kept = np.flatnonzero(counts >= possible[-1]).tolist()
    if len({items.stimulus_ids[position] for position in kept}) < 2:
        return {}
    found = {}
    for repetitions in range(1, possible[-1] + 1):
        rows = [each.rows[repetitions] for each in curves]
        of_all = items.with_rows({"brain": RowData(_joined(rows, "images"), _joined(rows, "retrieval_embeds"))})
        scores = of_all.at(kept, rows=["brain"]).scores(protocol, seed, permutations=0, weights=weights)
        found[str(repetitions)] = results(scores, DRAWS, seed)["brain"]
    return {"items": len(kept), "left_out": len(counts) - len(kept), "results": found}


def _joined(rows: Sequence[RowData], what: str) -> torch.Tensor | None:
    values = [getattr(each, what) for each in rows]
    return None if any(each is None for each in values) else torch.cat(values)
