"""Examples of several tables as those of one model: each subject has the id that the model gives it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

import numpy as np
import torch

from ..batch import Batch
from .loading import Examples, TrialDataset, stimulus_numbers


class TablePart(NamedTuple):
    """Examples of one table, and what they are called where several are joined.

    Args:
        data: The examples.
        names: Subject of the table ▶ its name in the model; others keep theirs.
        labels: Stimulus of the table ▶ what it is called in all tables, such as the hash of its picture; one that is
            not there is another stimulus than those of other tables.
    """

    data: TrialDataset
    names: Mapping[str, str] = {}
    labels: Mapping[str, str] = {}


class JoinedTrials(Examples):
    """Examples of several tables, one table after the other, with a model's ids of subjects and its width.

    Args:
        parts: The tables' examples, all with the same targets.
        subject_names: Of the model, whose order gives the ids.
        width: Columns that the model reads of its widest subject.
    """

    def __init__(self, parts: Sequence[TablePart], subject_names: Sequence[str], width: int) -> None:
        self.parts = [part for part in parts if len(part.data)] or list(parts[:1])
        self.width = width
        self._ids = [
            torch.tensor(
                [
                    subject_names.index(part.names.get(name, name))
                    if part.names.get(name, name) in subject_names
                    else -1
                    for name in (part.data.subjects[0].processor.subject_names if part.data.subjects else [])
                ],
                dtype=torch.long,
            )
            for part in self.parts
        ]
        self._ends = np.cumsum([len(part.data) for part in self.parts])
        self._stimulus = stimulus_numbers(self.shown)

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def subject_sizes(self) -> list[int]:
        """How many examples each subject of each table has that has any, in their order."""
        return [size for part in self.parts for size in part.data.subject_sizes]

    @property
    def num_own(self) -> int:
        """How many of these are of the first table."""
        return len(self.parts[0].data.subject_sizes)

    @property
    def shown(self) -> np.ndarray:
        """(examples,) str: the same for the same stimulus of any table; empty where there is none."""
        return np.array(
            [
                part.labels.get(stimulus, f"{number}/{stimulus}") if stimulus else ""
                for number, part in enumerate(self.parts)
                for stimulus in part.data.shown.tolist()
            ],
            dtype=str,
        )

    def __getitem__(self, index: int) -> Batch:
        """A batch of one."""
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A batch as [`TrialDataset`] gives it, zero-padded to the model's width."""
        chosen = np.asarray(indices, dtype=np.int64)
        if len(chosen) and (chosen.min() < 0 or chosen.max() >= len(self)):
            raise IndexError(f"rows {chosen.min()} to {chosen.max()} of {len(self)}")
        which = np.searchsorted(self._ends, chosen, side="right")
        batches, places = [], []
        for number in np.unique(which).tolist():
            own = np.flatnonzero(which == number)
            start = 0 if number == 0 else int(self._ends[number - 1])
            batch = self.parts[number].data.__getitems__((chosen[own] - start).tolist())
            batches.append({**batch, "subject_ids": self._ids[number][batch["subject_ids"]]})
            places.append(own)
        order = np.argsort(np.concatenate(places), kind="stable")
        joined = {
            name: torch.cat(_alike([batch[name] for batch in batches], name, self.width))[torch.from_numpy(order)]
            for name, value in batches[0].items()
            if isinstance(value, torch.Tensor)
        }
        names = [name for batch in batches for name in cast(list[str], batch["stimulus_ids"])]
        told = {"stimulus_ids": [names[place] for place in order], "stimulus": torch.from_numpy(self._stimulus[chosen])}
        return cast(Batch, {**joined, **told})

    def distinct_targets(self, name: str) -> np.ndarray | None:
        """(pictures, values) targets of the pictures of each table, as float32; None if there are none of them."""
        found = [values for part in self.parts if (values := part.data.distinct_targets(name)) is not None]
        return np.concatenate(found) if found else None


def _alike(values: list[torch.Tensor], name: str, width: int) -> list[torch.Tensor]:
    """Voxels in the model's width, and with as many repetitions; a table with fewer repeats them from the first on."""
    if name != "fmri":
        return values
    padded = [torch.nn.functional.pad(each, (0, width - each.shape[-1])) for each in values]
    if padded[0].ndim == 2:
        return padded
    most = max(each.shape[1] for each in padded)
    return [each[:, torch.arange(most) % each.shape[1]] for each in padded]
