"""What was measured of each item: a number for each row and metric, and those of the re-paired row `brain`."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from ..deprecation import renamed_argument
from ..plain_values import ShortRepr
from .bootstrap import PERMUTATIONS, WIDENING_OF_FOLDS

ITEM_SCHEMA = pa.schema(
    [
        ("row", pa.string()),
        ("metric", pa.string()),
        ("subject", pa.string()),
        ("stimulus_id", pa.string()),
        ("seed", pa.int64()),
        ("value", pa.float64()),
    ]
)


@dataclass(repr=False)
class Scores(ShortRepr):
    """Item scores of all rows.

    Args:
        values: row -> metric -> (N,) float64 with NaN for an item without score; None where the row has no such metric.
        subjects: N names.
        stimulus_ids: N ids.
        seeds: N numbers.
        permuted: metric -> (pairings, N) scores of the row `brain` when stimuli are re-paired.
        exhaustive: Whether these are all pairings that there are, the true one among them.
        exchanged_within: Inside what stimuli were exchanged alone: `"session"`, `"run"` or `"block"`; None for nothing.
        num_folds: Number of folds that were merged.
        pictures: N ids of what is shown, see [`picture_ids`]; the stimulus ids if None.
        pool_size: Mean number of stimuli among which an item is identified.
        chances: metric -> what guessing scores, where that follows from the number of stimuli or of labels.
        extractors: name -> {"sha256": ...} of the networks that were used.
        notes: Sentences about what was left out, and why.
    """

    values: dict[str, dict[str, np.ndarray | None]]
    subjects: np.ndarray
    stimulus_ids: np.ndarray
    seeds: np.ndarray
    permuted: dict[str, np.ndarray] = field(default_factory=dict)
    exhaustive: bool = False
    exchanged_within: str | None = None
    num_folds: int = 1
    pictures: np.ndarray | None = None
    pool_size: float = 0.0
    chances: dict[str, float] = field(default_factory=dict)
    extractors: dict[str, dict[str, str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.stimulus_ids)

    @property
    def widening(self) -> float:
        """How much farther than for independent stimuli the bounds of intervals are from the means."""
        return WIDENING_OF_FOLDS if self.num_folds > 1 else 1.0

    @property
    def units(self) -> np.ndarray:
        """(N,) what counts once: ids of stimuli, of which those that show the very same picture are one."""
        return self.stimulus_ids if self.pictures is None else self.pictures

    @property
    def rows(self) -> list[str]:
        """Row names in order."""
        return list(self.values)

    def table(self) -> pa.Table:
        """The items as columns row, metric, subject, stimulus_id, seed, value; one for each item that has a score."""
        tables = [
            self._items_with_a_score(row, metric, values)
            for row, metrics in self.values.items()
            for metric, values in metrics.items()
            if values is not None
        ]
        return pa.concat_tables(tables) if tables else ITEM_SCHEMA.empty_table()

    def _items_with_a_score(self, row: str, metric: str, values: np.ndarray) -> pa.Table:
        present = np.isfinite(values)
        count = int(present.sum())
        columns = [
            [row] * count,
            [metric] * count,
            self.subjects[present].tolist(),
            self.stimulus_ids[present].tolist(),
            self.seeds[present].tolist(),
            values[present].tolist(),
        ]
        return pa.table(columns, schema=ITEM_SCHEMA)

    @classmethod
    @renamed_argument("parts", "evaluations", since="0.1")
    def concatenate(cls, evaluations: Sequence["Scores"]) -> "Scores":
        """The items of several evaluations (folds) as one; a row or metric that one of them lacks is NaN there.

        Args:
            evaluations: Scores of disjoint test sets under one protocol.
        """
        rows = list(dict.fromkeys(row for each in evaluations for row in each.values))
        metrics = list(dict.fromkeys(m for each in evaluations for row in each.values.values() for m in row))
        values = {
            row: {m: _joined([each.values.get(row, {}).get(m) for each in evaluations], evaluations) for m in metrics}
            for row in rows
        }
        weights = [len(each) for each in evaluations]
        # Of scores that are means over stimuli.
        stimuli = [len(np.unique(each.units)) for each in evaluations]
        chances = {
            metric: float(np.average([each.chances[metric] for each in evaluations], weights=stimuli))
            for metric in evaluations[0].chances
            if all(metric in each.chances for each in evaluations)
        }
        return cls(
            values=values,
            subjects=np.concatenate([each.subjects for each in evaluations]),
            stimulus_ids=np.concatenate([each.stimulus_ids for each in evaluations]),
            pictures=_joined_pictures(evaluations),
            seeds=np.concatenate([each.seeds for each in evaluations]),
            permuted=_joined_permutations(evaluations),
            exchanged_within=evaluations[0].exchanged_within,
            num_folds=sum(each.num_folds for each in evaluations),
            pool_size=float(np.average([each.pool_size for each in evaluations], weights=weights)),
            chances=chances,
            extractors={name: info for each in evaluations for name, info in each.extractors.items()},
            notes=list(dict.fromkeys(note for each in evaluations for note in each.notes)),
        )


def _joined_pictures(evaluations: Sequence[Scores]) -> np.ndarray:
    """(N,) the first of all stimuli of which some evaluation says that they show the same picture."""
    first: dict[str, str] = {}

    def found(name: str) -> str:
        while (other := first.setdefault(name, name)) != name:
            name = other
        return name

    for each in evaluations:
        for one, other in set(zip(each.stimulus_ids.tolist(), each.units.tolist(), strict=True)):
            low, high = sorted((found(one), found(other)))
            first[high] = low
    return np.asarray([found(name) for each in evaluations for name in each.stimulus_ids.tolist()], dtype=str)


def _joined_permutations(evaluations: Sequence[Scores]) -> dict[str, np.ndarray]:
    """Random pairings of all together; those of an evaluation that has scored all of its own are drawn from these."""
    metrics = [metric for metric in evaluations[0].permuted if all(metric in each.permuted for each in evaluations)]
    joined = {}
    for metric in metrics:
        most = max(PERMUTATIONS, *(len(each.permuted[metric]) for each in evaluations))
        chosen = []
        for number, each in enumerate(evaluations):
            scores = each.permuted[metric]
            drawn = len(scores) == most and not each.exhaustive
            rows = np.arange(most) if drawn else np.random.default_rng(number).integers(len(scores), size=most)
            chosen.append(scores[rows])
        joined[metric] = np.concatenate(chosen, axis=1)
    return joined


def _joined(values: Sequence[np.ndarray | None], evaluations: Sequence[Scores]) -> np.ndarray | None:
    if all(value is None for value in values):
        return None
    filled = [np.full(len(each), np.nan) if v is None else v for v, each in zip(values, evaluations, strict=True)]
    return np.concatenate(filled)
