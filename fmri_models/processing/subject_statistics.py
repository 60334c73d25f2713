"""What a processor keeps of one subject, and for how many stimuli the mean of a session stands."""

from dataclasses import dataclass, field

import numpy as np

from .image_grid import ImageGrid


@dataclass
class SubjectStatistics:
    """What the processor keeps of one subject.

    Args:
        num_voxels: Voxels of a recorded pattern.
        selected: (S,) int64 indices of the voxels that are kept, ascending.
        mean, std: (R, S) float32, one row a session, or a single row over all.
        sessions: Number of the session of each row; empty where there is a single row over all.
        roi: ROI of each recorded voxel; empty where unknown.
        coordinates: (num_voxels, 3) float32 in mm; None where unknown.
        pooled: (2, S) float32, mean and standard deviation over all training trials, where there is a row a session;
            None where an older version has fitted.
        pooled_sessions: Sessions with too few training trials for statistics of their own, whose rows are the pooled.
        source_width: Voxels of a pattern as it was before some were dropped in preparation; None where none were.
        source_columns: (num_voxels,) int64 which of those were kept, ascending; None where all were.
        grid: Which voxels of a volume the recorded ones are, with the dropped ones; None where betas came from no
            volume.
        window: Shape of a recorded pattern that is a window of a recording, (time, voxels) or (channels, time), whose
            product is `num_voxels`; None where it is one value a voxel.
    """

    num_voxels: int
    selected: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    sessions: list[int] = field(default_factory=list)
    roi: list[str] = field(default_factory=list)
    coordinates: np.ndarray | None = None
    pooled: np.ndarray | None = None
    pooled_sessions: list[int] = field(default_factory=list)
    source_width: int | None = None
    source_columns: np.ndarray | None = None
    grid: ImageGrid | None = None
    window: tuple[int, int] | None = None

    def pooled_statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """(S,) mean and (S,) standard deviation over all training trials."""
        if self.pooled is not None:
            return self.pooled[0], self.pooled[1]
        # Law of total variance over sessions, each weighted alike, because their numbers of trials are not known.
        mean = self.mean.mean(axis=0)
        return mean, np.sqrt((self.std**2).mean(axis=0) + self.mean.var(axis=0))

    def kept(self, patterns: np.ndarray) -> np.ndarray:
        """(..., num_voxels) of patterns of that width, or of the width that they had before voxels were dropped."""
        if self.source_columns is None or patterns.shape[-1] == self.num_voxels:
            return patterns
        return patterns[..., self.source_columns]

    def keep_voxels_of(self, other: "SubjectStatistics") -> None:
        """Reads the same voxels as other statistics do; these hold all voxels of patterns as those take them."""
        if self.num_voxels != other.num_voxels:
            assert other.source_columns is not None
            columns = other.source_columns
            self.keep_selected(columns)
            self.num_voxels = other.num_voxels
            self.roi = [self.roi[column] for column in columns] if self.roi else []
            self.coordinates = None if self.coordinates is None else self.coordinates[columns]
        self.keep_selected(other.selected)
        if self.source_columns is None:
            self.source_width, self.source_columns = other.source_width, other.source_columns
        self.grid = self.grid or other.grid

    def recorded_voxel(self, voxel: int, width: int) -> int:
        """Number, in a pattern of some width as it was given, of one of the `num_voxels` voxels."""
        return voxel if self.source_columns is None or width == self.num_voxels else int(self.source_columns[voxel])

    def keep_selected(self, selected: np.ndarray) -> None:
        """Selects other voxels of statistics that hold all."""
        self.selected = selected
        self.mean, self.std = self.mean[:, selected], self.std[:, selected]
        self.pooled = None if self.pooled is None else self.pooled[:, selected]


def stimuli_in_effect(stimuli: np.ndarray, sessions: np.ndarray) -> dict[int, float]:
    """Session ▶ how many stimuli its mean stands for, which takes 1/n of what differs between stimuli away with it.

    That is their number where they are shown equally often; less where a few are shown more often than the others, and
    1 where one is all there is. More where other sessions show the same: infinite where they do so equally often (or
    where there is one session), because then nothing that tells stimuli apart differs between means of sessions.

    Args:
        stimuli: (n,) what each trial showed.
        sessions: (n,) session of each trial.
    """
    _, which = np.unique(stimuli, return_inverse=True)
    everywhere = np.bincount(which)
    effective = {}
    for session in np.unique(sessions):
        own = np.bincount(which[sessions == session], minlength=len(everywhere))
        share, elsewhere = own / own.sum(), (everywhere - own) / max(1, len(which) - own.sum())
        differs = np.square(share - elsewhere).sum() if own.sum() < len(which) else 0
        taken = min(np.square(share).sum(), differs)
        # Shares of trials are rounded numbers.
        effective[int(session)] = round(1 / taken, 6) if taken > 1e-9 else np.inf
    return effective
