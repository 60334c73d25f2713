"""Batches for gradient training: betas from the memory-mapped matrix beside cached targets."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from ..errors import FmriModelsError
from . import schema
from .table import Trials


class TrialDataset(Dataset):
    """Trials of one or several subjects, one after the other, as a map-style data set that gives whole batches.

    ```python
    data = TrialDataset([table.trials("subj01")], processor, {"image_embeds": embeddings}, table.stimuli.ids)
    loader = DataLoader(data, batch_size=64, shuffle=True, collate_fn=TrialDataset.collate)
    ```

    Args:
        trials: Trials of one subject, or one item a subject.
        processor: An `FmriProcessor`, or anything that is called like one with a list of (V,) rows, `subject=` names
            and `session=` numbers, one a row.
        targets: Name to an array with a row a stimulus (may be memory-mapped), in the order of `target_ids`.
        target_ids: The stimulus id of each row of the targets.

    Raises:
        FmriModelsError: A stimulus has no target, or a target has another number of rows.
    """

    def __init__(
        self,
        trials: Trials | Sequence[Trials],
        processor: Callable[..., Mapping],
        targets: Mapping[str, np.ndarray] | None = None,
        target_ids: Sequence[str] = (),
    ) -> None:
        self.trials = [trials] if isinstance(trials, Trials) else list(trials)
        self.processor = processor
        self.targets = dict(targets or {})
        for name, values in self.targets.items():
            if len(values) != len(target_ids):
                raise FmriModelsError(
                    f"The target {name!r} has {len(values)} rows for {len(target_ids)} stimuli; expected one each."
                )
        self._ends = np.cumsum([len(part) for part in self.trials])
        self._target_rows = self._rows_of_targets(target_ids) if self.targets else None

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int) -> dict:
        """A batch of one."""
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> dict:
        """A batch: `fmri` (B, width) float32, `subject_ids` (B,) long, `stimulus_ids` list of str, and the targets."""
        chosen = np.asarray(indices, dtype=np.int64)
        if len(chosen) and (chosen.min() < 0 or chosen.max() >= len(self)):
            raise IndexError(f"trial {chosen.max()} of {len(self)}")
        which = np.searchsorted(self._ends, chosen, side="right")
        rows = chosen - np.concatenate([[0], self._ends[:-1]])[which]
        fmri: list[np.ndarray] = [np.empty(0)] * len(chosen)
        for part in np.unique(which):
            places = np.flatnonzero(which == part)
            for place, values in zip(places, self.trials[part].fmri(rows[places]), strict=True):
                fmri[place] = values
        sources = [self.trials[part] for part in which]
        sessions = [int(trials.sessions[row]) for trials, row in zip(sources, rows, strict=True)]
        batch = dict(self.processor(fmri, subject=[trials.subject for trials in sources], session=sessions))
        batch["stimulus_ids"] = [str(trials.stimulus_ids[row]) for trials, row in zip(sources, rows, strict=True)]
        if self._target_rows is not None:
            wanted = self._target_rows[chosen]
            batch.update({name: torch.from_numpy(_gather(values, wanted)) for name, values in self.targets.items()})
        return batch

    @staticmethod
    def collate(batch: dict) -> dict:
        """Gives the batch on as it is, for a `DataLoader`."""
        return batch

    def _rows_of_targets(self, target_ids: Sequence[str]) -> np.ndarray:
        row_of = {stimulus: row for row, stimulus in enumerate(target_ids)}
        shown = [str(stimulus) for part in self.trials for stimulus in part.stimulus_ids]
        if missing := sorted(set(shown) - row_of.keys()):
            raise FmriModelsError(
                f"{len(missing)} stimuli have no target ({schema.listed(missing)}); expected one for each shown."
            )
        return np.array([row_of[stimulus] for stimulus in shown], dtype=np.int64)


def _gather(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Rows of a (possibly memory-mapped) array, each read once and in the order of the file."""
    unique, inverse = np.unique(rows, return_inverse=True)
    return np.ascontiguousarray(np.asarray(values[unique])[inverse])
