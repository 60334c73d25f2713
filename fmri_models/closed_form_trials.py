"""What a method in closed form learns from: patterns, read by examples, and targets, read by columns."""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from .deprecation import renamed_argument

# What a penalty is chosen on.
Selection = Literal["validation", "leave_one_stimulus_out"]
# What is left out at a time to choose a penalty; "nothing" where a stimulus would be left out with its only example.
LeftOut = Literal["stimulus", "run", "trial", "nothing"]


class Patterns(Protocol):
    """Patterns of voxels that are read by positions: an array, a memory map, or trials processed on the way."""

    def __len__(self) -> int: ...

    def __getitem__(self, positions: np.ndarray, /) -> np.ndarray: ...


@dataclass
class IndexedTargets:
    """Targets of examples, stored once a stimulus.

    Args:
        values: (stimuli, targets) array or memory map.
        index: (examples,) position in `values` of each example's.
    """

    values: np.ndarray
    index: np.ndarray

    @property
    def num_targets(self) -> int:
        return self.values.shape[1]

    @renamed_argument("rows", "positions", since="0.1")
    def columns(self, columns: slice | np.ndarray, positions: np.ndarray | slice = slice(None)) -> np.ndarray:
        """(examples, columns) of the targets of these positions, or of all examples in their order."""
        return np.asarray(self.values[:, columns])[self.index[positions]]


@dataclass
class ClosedFormTrials:
    """Training material of one subject for a method in closed form.

    Args:
        fmri: Processed voxels; an example is a trial (or a stimulus, if repetitions are averaged).
        stimulus_ids: Stimulus of each example.
        targets: Name ▶ targets of each example.
        leaves_out: What is left out at a time to choose a penalty: a stimulus with all its examples, or where the
            design tests stimuli that are learned from, a run or a trial; there nothing, if no stimulus has a second
            example.
        groups: (n,) label of each example: those of one label are left out together; None where these are the stimuli.
        rois: (V,) region of each processed voxel, empty for one that is in none; None where no regions are known.
    """

    fmri: Patterns
    stimulus_ids: np.ndarray
    targets: dict[str, IndexedTargets]
    leaves_out: LeftOut = "stimulus"
    groups: np.ndarray | None = None
    rois: np.ndarray | None = None

    @property
    def left_out_together(self) -> np.ndarray:
        """(n,) label of each example."""
        return self.stimulus_ids if self.groups is None else self.groups
