"""What a script has read of a data set's files: subjects, recordings that are read one after the other, and stimuli."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ...plain_values import ShortRepr
from ..windows import OVER_TIME, Windows, over_window


@dataclass(frozen=True, repr=False)
class VoxelGrid(ShortRepr):
    """Which voxels of a volume the columns of betas are, so that a volume of the same grid can be read later.

    Args:
        shape: Of the volume.
        affine: (4, 4) from indices to mm.
        indices: (V,) of the voxels in the volume's flat order (C), in the order of the columns.
    """

    shape: tuple[int, ...]
    affine: np.ndarray
    indices: np.ndarray


@dataclass(frozen=True, repr=False)
class KnownVoxels(ShortRepr):
    """What is known of a subject's voxels, in the order of the columns of its betas.

    Args:
        count: How many there are.
        roi: (V,) labels, empty where a voxel is in no region; None if no region is known.
        coordinates: (V, 3) in mm, NaN where unknown; None if none is known.
        space: Of the coordinates.
        ncsnr: (V,) noise-ceiling signal-to-noise ratio of the release; None where it has none.
        noise_ceiling: (V,) share of explainable variance of the release, for `repetitions` averaged trials; None where
            it has none. Without either, both are estimated from training repetitions.
        repetitions: How many averaged repetitions the release's ceiling is for.
        grid: Where they lie in a volume; None where the files are no volumes.
        regions: Name ▶ (V,) which voxels are in it, of regions that overlap or contain others, by which voxels may be
            chosen besides their labels.
        window: Shape of a trial that is a window of a recording, see [`windowed`]; None where it is a pattern.
    """

    count: int
    roi: Sequence[str] | None = None
    coordinates: np.ndarray | None = None
    space: str = ""
    ncsnr: np.ndarray | None = None
    noise_ceiling: np.ndarray | None = None
    repetitions: int = 3
    grid: VoxelGrid | None = None
    regions: Mapping[str, np.ndarray] = field(default_factory=dict)
    window: tuple[int, int] | None = None


def windowed(places: KnownVoxels, samples: int, axes: tuple[str, str] = OVER_TIME) -> KnownVoxels:
    """What is known of the values of a flat window, each of a voxel or channel at one of the samples.

    Args:
        places: Of the voxels, or of the channels.
        samples: How many a window has.
        axes: Of the window.
    """
    shape = (places.count, samples) if axes[1] == "time" else (samples, places.count)
    spread = partial(over_window, shape=shape, axes=axes)
    return replace(
        places,
        count=places.count * samples,
        roi=spread(None if places.roi is None else list(places.roi)),
        coordinates=spread(places.coordinates),
        ncsnr=spread(places.ncsnr),
        noise_ceiling=spread(places.noise_ceiling),
        regions={name: spread(np.asarray(inside)) for name, inside in places.regions.items()},
        window=shape,
    )


@dataclass(frozen=True, repr=False)
class Recording(ShortRepr):
    """Trials that are read together: a run, or a session.

    Args:
        name: In sentences, and by which it is known after an interruption; unique within a subject.
        read: Gives (n, V) blocks of betas, one after the other, float.
        stimulus_ids: What each trial showed; empty for a trial without a stimulus.
        session: Number of the session.
        runs: Number of the run, or one a trial.
        part: `"train"` or `"test"` where the release says so; None where the stimuli decide, or nobody does.
        imagery: Whether the stimuli were imagined.
        files: Which files it is read from.
    """

    name: str
    read: Callable[[], Iterable[np.ndarray]]
    stimulus_ids: Sequence[str]
    session: int = 1
    runs: int | Sequence[int] = 1
    part: str | None = None
    imagery: bool = False
    files: Sequence[Path] = ()

    @property
    def run_numbers(self) -> list[int]:
        """(n,) number of the run of each trial."""
        return [self.runs] * len(self.stimulus_ids) if isinstance(self.runs, int) else list(self.runs)


@dataclass(frozen=True, repr=False)
class PublishedSubject(ShortRepr):
    """One person's recordings, in the order in which they were made.

    Args:
        name: As the table has it, such as `subj01`.
        voxels: What is known of them.
        recordings: All of one width, that of the voxels.
        expected_trials: How many trials the data set's paper says there are; None where it doesn't.
        expected_voxels: Likewise of voxels.
        differs: What else there is less of than published, each the beginning of a sentence.
    """

    name: str
    voxels: KnownVoxels
    recordings: Sequence[Recording]
    expected_trials: int | None = None
    expected_voxels: int | None = None
    differs: Sequence[str] = ()


@dataclass(frozen=True, repr=False)
class PublishedDataset(ShortRepr):
    """What a script has found in the files; nothing large is read yet.

    Args:
        name: The table's name, unless somebody gives another.
        description: For the card.
        license: Of the data, in a line.
        citation: Of the paper, and where the files are published.
        script: Which script, as `dataset_scripts/<name>.py`.
        script_version: Counted on whenever what it writes changes.
        subjects: Those whose files are there.
        stimuli: Given the ids of what was shown, makes the records that `TrialTableWriter.add_stimuli` takes.
        test_sets: Name ▶ stimuli that are tested, of a data set with several customs; the first is the default. Empty
            where recordings say their part, or a split is drawn.
        split_by: What a split that nobody has published holds out: stimuli, or runs where stimuli repeat by design.
        repeats_stimuli: Why stimuli are tested that are learned from, by the design; empty where none is.
        notes: Sentences for the card on what was done with the files.
        extra: Further values for `table.json`.
        modality: What was recorded: `"fmri"` or `"eeg"`.
        windows: What the windows are, where subjects' voxels have any ([`windowed`]).
        cautions: What the design of the experiment does to results, which every report repeats.
    """

    name: str
    description: str
    license: str
    citation: str
    script: str
    script_version: int
    subjects: Sequence[PublishedSubject]
    stimuli: Callable[[Collection[str]], Iterable[Mapping[str, Any]]]
    test_sets: Mapping[str, Collection[str]] = field(default_factory=dict)
    split_by: Literal["stimulus", "run"] = "stimulus"
    repeats_stimuli: str = ""
    notes: Sequence[str] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    modality: str = "fmri"
    windows: Windows | None = None
    cautions: Sequence[str] = ()
