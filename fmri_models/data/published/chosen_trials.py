"""The trials of a subject as they are written: chosen voxels, standardised, repetitions averaged."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import FmriModelsError
from .. import schema
from ..streaming_statistics import StreamingStatistics
from .extraction import ROWS_AT_ONCE, ExtractedSubject
from .options import SharedOptions

_FEWEST_TRIALS = 2


@dataclass
class WrittenRows:
    """Trials of one part, in the order of the recordings.

    Args:
        stimulus_ids: n ids.
        sessions: n numbers.
        runs: n numbers.
        numbers: n trial numbers.
        imagery: n marks.
        blocks: Makes the betas, block by block.
    """

    stimulus_ids: list[str]
    sessions: list[int]
    runs: list[int]
    numbers: list[int]
    imagery: list[bool]
    blocks: Callable[[], Iterator[np.ndarray]]


@dataclass
class ChosenTrials:
    """A subject's trials with what is done to them.

    Args:
        subject: The recordings.
        columns: Which voxels are written.
        parts: (trials,) part of the default split.
        averaged: Parts in which the repetitions of a stimulus become one trial.
        scaling: (session or run,) key of a trial's statistics ▶ mean and standard deviation of the chosen voxels; empty
            where nothing is standardised.
        keys: (trials,) of the statistics.
    """

    subject: ExtractedSubject
    columns: np.ndarray
    parts: np.ndarray
    averaged: Sequence[str]
    scaling: dict[tuple[int, ...], tuple[np.ndarray, np.ndarray]]
    keys: list[tuple[int, ...]]

    @classmethod
    def of(
        cls, subject: ExtractedSubject, columns: np.ndarray, parts: np.ndarray, options: SharedOptions
    ) -> "ChosenTrials":
        """As the options say; the statistics of a session or run are those of its training trials."""
        averaged = {"single": (), "average_test": (schema.TEST,), "average": schema.SPLITS}[options.repetitions]
        pairs = zip(subject.sessions.tolist(), subject.runs.tolist(), strict=True)
        keys: list[tuple[int, ...]] = [pair if options.zscore == "run" else pair[:1] for pair in pairs]
        scaling = {} if options.zscore == "none" else _scaling(subject, columns, parts, keys, options.zscore)
        return cls(subject, columns, parts, averaged, scaling, keys)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """(n, voxels) float32 of single trials, standardised."""
        values = np.asarray(self.subject.matrix[rows])[:, self.columns]
        if not self.scaling:
            return values
        for key, places in _by_key(self.keys[row] for row in rows.tolist()).items():
            mean, std = self.scaling[key]
            values[places] = (values[places] - mean) / std
        return values

    def single_training_trials(self) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
        """Rows of the training trials, and what reads some of them by their positions among these."""
        training = np.flatnonzero(self.parts == schema.TRAIN)
        return training, lambda positions: self.read(training[positions])

    def of_part(self, part: str) -> WrittenRows:
        """The trials of a part of the default split."""
        rows = np.flatnonzero(self.parts == part)
        groups = [rows[[place]] for place in range(len(rows))]
        if part in self.averaged:
            groups = self._repetitions(rows)
        subject = self.subject
        first = np.array([group[0] for group in groups], dtype=np.int64)
        return WrittenRows(
            subject.stimulus_ids[first].tolist(),
            subject.sessions[first].tolist(),
            subject.runs[first].tolist(),
            first.tolist(),
            subject.imagery[first].tolist(),
            lambda: self._blocks(groups),
        )

    def _repetitions(self, rows: np.ndarray) -> list[np.ndarray]:
        """The rows of each stimulus, seen and imagined apart, in the order of their first ones."""
        groups: dict[tuple[str, bool], list[int]] = {}
        for row in rows.tolist():
            groups.setdefault((str(self.subject.stimulus_ids[row]), bool(self.subject.imagery[row])), []).append(row)
        return [np.array(group) for group in groups.values()]

    def _blocks(self, groups: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
        """The mean of each group's trials; groups are never torn, and some of them are held at a time."""
        waiting: list[np.ndarray] = []
        count = 0
        for group in groups:
            waiting.append(group)
            count += len(group)
            if count >= ROWS_AT_ONCE:
                yield self._means(waiting)
                waiting, count = [], 0
        if waiting:
            yield self._means(waiting)

    def _means(self, groups: Sequence[np.ndarray]) -> np.ndarray:
        values = self.read(np.concatenate(groups))
        if all(len(group) == 1 for group in groups):
            return values
        starts = np.cumsum([0, *(len(group) for group in groups[:-1])])
        sizes = np.array([len(group) for group in groups])[:, None]
        return (np.add.reduceat(values.astype(np.float64), starts, axis=0) / sizes).astype(np.float32)


def _scaling(
    subject: ExtractedSubject,
    columns: np.ndarray,
    parts: np.ndarray,
    keys: Sequence[tuple[int, ...]],
    what: str,
) -> dict[tuple[int, ...], tuple[np.ndarray, np.ndarray]]:
    """Mean and standard deviation of the training trials of each session or run.

    Raises:
        FmriModelsError: One has trials, and fewer than two of them are learned from.
    """
    statistics = {key: StreamingStatistics(len(columns)) for key in dict.fromkeys(keys)}
    for rows, block in subject.blocks():
        for key, places in _by_key(keys[rows]).items():
            learned = np.array(places)[parts[rows][places] == schema.TRAIN]
            statistics[key].update(block[learned][:, columns])
    found = {}
    for key, each in statistics.items():
        if each.count < _FEWEST_TRIALS:
            where = f"session {key[0]}" + (f", run {key[1]}" if len(key) > 1 else "")
            raise FmriModelsError(
                f"{subject.name}, {where} has {each.count} training trials, too few to standardise by {what}; take "
                f"--option zscore={'session' if what == 'run' else 'none'}."
            )
        std = each.std
        found[key] = (each.mean.astype(np.float32), np.where(std > 0, std, 1).astype(np.float32))
    return found


def _by_key(keys: Iterable[tuple[int, ...]]) -> dict[tuple[int, ...], list[int]]:
    """Key ▶ places that have it."""
    places: dict[tuple[int, ...], list[int]] = {}
    for place, key in enumerate(keys):
        places.setdefault(key, []).append(place)
    return places
