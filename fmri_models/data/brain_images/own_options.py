"""What a person says of their own images, as the options of a command."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .single_trials import TrialModel


@dataclass(frozen=True)
class OwnOptions:
    """What a person says of their own files, volumes or surfaces.

    Args:
        kind: `"bold"` (fMRIPrep's time series), `"betas"` (a pattern a trial, with a row of `…_events.tsv` each) or
            `"glmsingle"`; `"auto"` takes the first of which there are files.
        events: The raw BIDS folder, whose tables of events are not beside the images.
        space: Which of several, such as `T1w`.
        task: Which of several.
        atlas: A volume (or `.dlabel.nii`, or `{hemi}` for L and R in `.label.gii`) of labels, in whose name `{subject}`
            stands for `sub-01` ….
        stimuli: A folder or zip file of pictures; without it, stimuli have ids and categories alone.
        size: Pixels that these are cropped and resized to; 0 leaves them.
        column: Of the tables of events, which says what was shown.
        skip: What it says where nothing counts, such as `rest`.
        test_stimuli: A text file with a line a stimulus that is tested.
        test_types: Values of `trial_type` whose stimuli are tested.
        test_names: Patterns of the names of stimuli that are tested, such as `test_*`.
        same_name: Whether files of one name in several folders are one stimulus.
        betas: How betas are made of time points: least squares separate, the mean after a lag, or a window of volumes;
            see [`TrialModel`][fmri_models.data.brain_images.single_trials.TrialModel], as for the next seven.
        lag: Of the mean, in seconds.
        window: Of the mean, in seconds.
        hrf: Response function.
        high_pass: Of the drifts that are taken away, in Hz.
        noise: Model of the noise.
        percent: Whether betas are in percent of the mean over time.
        volumes: Of a window.
        confounds: nilearn's strategies for fMRIPrep's confounds; motion if None, an empty list takes none.
        tr: Seconds from one volume to the next, where headers and sidecars have it wrong; 0 takes theirs.
        license: Of the data, for the card.
        clip: Seconds of the clips into which longer events, such as films, are cut; 0 leaves events whole.
        clip_names: Whether a clip is named after its event alone, or also after its session and run, where tables call
            different films alike.
        subjects: These alone, such as `sub-01`.
    """

    kind: Literal["auto", "bold", "betas", "glmsingle"] = "auto"
    events: Path | None = None
    space: str = ""
    task: str = ""
    atlas: str = ""
    stimuli: Path | None = None
    size: int = 0
    column: str = ""
    skip: list[str] | None = None
    test_stimuli: Path | None = None
    test_types: list[str] | None = None
    test_names: list[str] | None = None
    same_name: bool = False
    betas: Literal["lss", "lag", "volumes"] = "lss"
    lag: float = 5.0
    window: float = 0.0
    hrf: str = "glover"
    high_pass: float = 0.01
    noise: Literal["ols", "ar1"] = "ols"
    percent: bool = True
    volumes: int = 1
    confounds: list[str] | None = None
    tr: float = 0.0
    license: str = ""
    clip: float = 0.0
    clip_names: Literal["event", "run"] = "event"
    subjects: list[str] | None = None

    @property
    def model(self) -> TrialModel:
        """How betas are made of time points."""
        return TrialModel(
            self.betas, self.lag, self.window, self.hrf, self.high_pass, self.noise, self.percent, self.volumes
        )


@dataclass(frozen=True)
class VolumeOptions(OwnOptions):
    """What volumes have besides: which voxels are taken.

    Args:
        mask: A NIfTI mask, in whose name `{subject}` stands for `sub-01` …; fMRIPrep's brain masks if empty.
        roi_masks: A folder with a mask a region, likewise.
        atlas_labels: Names of an atlas' numbers.
    """

    mask: str = ""
    roi_masks: str = ""
    atlas_labels: Path | None = None


@dataclass(frozen=True)
class SurfaceOptions(OwnOptions):
    """What surfaces have: GLMsingle's files are not read."""

    kind: Literal["auto", "bold", "betas"] = "auto"
