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
from .scores import Scores

if TYPE_CHECKING:
    from .drawn_items import DrawnItems
    from .evaluated_subject import EvaluatedSubject
    from .protocols import Protocol

# The Natural Scenes Dataset and most others show a test picture so often; beyond, each point doubles the last one.
EVERY_NUMBER_UP_TO = 3


@dataclass
class SubjectCurve:
    """The row `brain` of one subject on one fold, of fewer averaged repetitions.

    Args:
        repetitions: (N,) how many trials of each item there are.
        rows: Number of averaged repetitions ▶ the row of all N items; of an item with fewer, all that it has.
    """

    repetitions: np.ndarray
    rows: dict[int, RowData]


@dataclass(frozen=True)
class CurveScores:
    """The scores of a curve, all of the same items.

    Args:
        kept: Positions of these items among all.
        scores: Number of averaged repetitions ▶ the scores of the row `brain`.
    """

    kept: list[int]
    scores: dict[int, Scores]


def curve_numbers(most: int) -> list[int]:
    """How many repetitions are averaged at the points of a curve: 1, 2, 3, then powers of two, and all there are."""
    numbers = {*range(1, min(EVERY_NUMBER_UP_TO, most) + 1), most}
    power = 4
    while power < most:
        numbers.add(power)
        power *= 2
    return sorted(numbers)


def draw_curve(of: "EvaluatedSubject") -> SubjectCurve:
    """Draws the row `brain` of fewer averaged repetitions, see [`curve_numbers`]; each number once for a subject.

    Args:
        of: A subject whose row `brain`, of all repetitions, is drawn.
    """
    counts = of.repetitions_of_items
    most = int(counts.max())
    rows = {}
    for repetitions in curve_numbers(most):
        if repetitions == most:
            rows[repetitions] = of.rows["brain"]
            continue
        if repetitions not in of.rows_of_fewer:
            fewer = of.averaging(repetitions)
            fewer.doing = f"Drawing {of.subject} of {repetitions} averaged repetition{'s' if repetitions > 1 else ''}"
            of.rows_of_fewer[repetitions] = fewer.row(fewer.decoding)
        rows[repetitions] = of.rows_of_fewer[repetitions]
    return SubjectCurve(counts, rows)


def curve_scores(
    curves: Sequence[SubjectCurve],
    items: "DrawnItems",
    protocol: "Protocol",
    seed: int,
    weights: str | PathLike | None = None,
) -> CurveScores | None:
    """The scores of every point of a curve.

    Its items are those that have as many repetitions as at least half of all items have.

    Args:
        curves: Of each subject and fold, in the order of the items.
        items: All that were drawn.
        protocol: Which metrics.
        seed: Of the scoring.
        weights: Folder with weights of extractors, by which the other figures of the report are measured, too.

    Returns:
        None where no item has two repetitions, or fewer than two stimuli have.
    """
    counts = np.concatenate([each.repetitions for each in curves])
    numbers = [n for n in curves[0].rows if all(n in each.rows for each in curves)]
    possible = [n for n in numbers if n > 1 and 2 * (counts >= n).sum() >= len(counts)]
    if not possible:
        return None
    kept = np.flatnonzero(counts >= possible[-1]).tolist()
    if len({items.stimulus_ids[position] for position in kept}) < 2:
        return None
    found = {}
    for repetitions in (n for n in numbers if n <= possible[-1]):
        rows = [each.rows[repetitions] for each in curves]
        of_all = items.with_rows({"brain": RowData(_joined(rows, "images"), _joined(rows, "retrieval_embeds"))})
        found[repetitions] = of_all.at(kept, rows=["brain"]).scores(protocol, seed, permutations=0, weights=weights)
    return CurveScores(kept, found)


def curve_content(
    curves: Sequence[SubjectCurve],
    items: "DrawnItems",
    protocol: "Protocol",
    seed: int,
    weights: str | PathLike | None = None,
) -> dict[str, Any]:
    """Scores over the number of averaged repetitions, all of the same stimuli.

    Args:
        curves: Of each subject and fold, in the order of the items.
        items: All that were drawn.
        protocol: Which metrics.
        seed: Of the bootstrap.
        weights: As of [`curve_scores`].

    Returns:
        `{"items", "left_out", "results": {"1": {metric: result}, …}}`; empty where there is no curve.
    """
    curve = curve_scores(curves, items, protocol, seed, weights)
    if curve is None:
        return {}
    found = {str(number): results(scores, DRAWS, seed)["brain"] for number, scores in curve.scores.items()}
    return {"items": len(curve.kept), "left_out": len(items.stimulus_ids) - len(curve.kept), "results": found}


def _joined(rows: Sequence[RowData], what: str) -> torch.Tensor | None:
    values = [getattr(each, what) for each in rows]
    return None if any(each is None for each in values) else torch.cat(values)
