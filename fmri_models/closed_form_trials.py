"""What a method in closed form learns from: voxels that are read by rows, and targets that are read by columns."""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

# What a penalty is chosen on.
Selection = Literal["validation", "leave_one_stimulus_out"]
# What is left out at a time to choose a penalty; "nothing" where a stimulus would be left out with its only row.
LeftOut = Literal["stimulus", "run", "trial", "nothing"]


class Patterns(Protocol):
    """A matrix that is read by rows, such as an array, a memory map, or trials that are processed on the way."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: np.ndarray) -> np.ndarray: ...


@dataclass
class IndexedTargets:
    """Targets of trials, stored once a stimulus.

    Args:
        values: (stimuli, targets) array or memory map.
        index: (trials,) row of `values` that belongs to each trial.
    """

    values: np.ndarray
    index: np.ndarray

    @property
    def num_targets(self) -> int:
        return self.values.shape[1]

    def columns(self, columns: slice | np.ndarray, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """(rows, columns) of the targets in trial order."""
        return np.asarray(self.values[:, columns])[self.index[rows]]


@dataclass
class ClosedFormTrials:
    """Training material of one subject for a method in closed form.

    Args:
        fmri: Processed voxels, one row a trial (or a stimulus, if repetitions are averaged).
        stimulus_ids: Stimulus of each row.
        targets: Name ▶ targets of each row.
        leaves_out: What is left out at a time to choose a penalty: a stimulus with all its rows, or where the design
            tests stimuli that are learned from, a run or a trial; there nothing, if no stimulus has a second row.
        groups: (n,) label of each row: rows of one label are left out together; None where these are the stimuli.
    """

    fmri: Patterns
    stimulus_ids: np.ndarray
    targets: dict[str, IndexedTargets]
    leaves_out: LeftOut = "stimulus"
    groups: np.ndarray | None = None

    @property
    def left_out_together(self) -> np.ndarray:
        """(n,) label of each row."""
        return self.stimulus_ids if self.groups is None else self.groups
