"""Your own surfaces (CIFTI and GIFTI): fMRIPrep's time series on fsLR or fsaverage, or betas with a table of events.

Reads what is there as it is:

* time series: `sub-*/[ses-*/]func/…_bold.dtseries.nii` (grayordinates), or `…_hemi-L_…_bold.func.gii` with the right
  hemisphere beside it; tables of events from the raw BIDS folder. Each event becomes a beta as in `nifti`.
* betas: `….dscalar.nii` (a map a trial), or `…_hemi-L_…_betas.func.gii` (an array a trial), and `…_events.tsv` with a
  row each.

Regions are CIFTI's structures or the hemispheres, or those of an atlas (`.dlabel.nii`, or `.label.gii` with `{hemi}` in
its name). Columns are in the files' order, left before right.

Layouts read in: nibabel 5.4 (`nibabel.cifti2`, `nibabel.gifti`), which reads both formats, and names of fMRIPrep's
outputs as nilearn.interfaces.fmriprep (0.14.1) takes them.
"""

from pathlib import Path
from typing import Literal

from fmri_models.data.brain_images.own_files import OwnOptions, read_own
from fmri_models.data.brain_images.single_trials import TrialModel
from fmri_models.data.published import PublishedDataset, preparation

VERSION = 1


def read(
    source: Path,
    kind: Literal["auto", "bold", "betas"] = "auto",
    events: Path | None = None,
    space: str = "",
    task: str = "",
    atlas: str = "",
    stimuli: Path | None = None,
    size: int = 0,
    column: str = "",
    skip: list[str] | None = None,
    test_stimuli: Path | None = None,
    test_types: list[str] | None = None,
    same_name: bool = False,
    betas: Literal["lss", "lag", "volumes"] = "lss",
    lag: float = 5.0,
    window: float = 0.0,
    hrf: str = "glover",
    high_pass: float = 0.01,
    noise: Literal["ols", "ar1"] = "ols",
    percent: bool = True,
    confounds: list[str] | None = None,
    tr: float = 0.0,
    license: str = "",
    test_names: list[str] | None = None,
    volumes: int = 1,
    clip: float = 0.0,
    clip_names: Literal["event", "run"] = "event",
    subjects: list[str] | None = None,
) -> PublishedDataset:
    """What the folder holds; see `OwnOptions` and `TrialModel` for the options."""
    options = OwnOptions(
        kind=kind,
        events=events,
        space=space,
        task=task,
        subjects=subjects,
        atlas=atlas,
        stimuli=stimuli,
        size=size,
        column=column,
        skip=tuple(skip or ()),
        test_stimuli=test_stimuli,
        test_types=tuple(test_types or ()),
        same_name=same_name,
        confounds=("motion",) if confounds is None else tuple(confounds),
        tr=tr,
        model=TrialModel(betas, lag, window, hrf, high_pass, noise, percent, volumes),
        license=license,
        test_names=tuple(test_names or ()),
        clip=clip,
        clip_names=clip_names,
    )
    return read_own(source, "surfaces", "dataset_scripts/surfaces.py", VERSION, options)


prepare = preparation(read)
