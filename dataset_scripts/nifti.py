"""Your own volumes (NIfTI): fMRIPrep's folder, betas with a table of events, or GLMsingle's output.

Reads what is there as it is:

* fMRIPrep's folder (or the BIDS folder that has it in `derivatives`): `sub-*/[ses-*/]func/…_desc-preproc_bold.nii.gz`
  with its brain masks, confounds and sidecars; tables of events from the raw BIDS folder. Each event becomes a beta, by
  a linear model of its own (least squares separate, nilearn's GLM), or as the mean of volumes after a lag.
* Betas: `sub-*/…/…_betas.nii.gz`, a volume a trial, and `…_events.tsv` of the same name with a row each.
* GLMsingle: `sub-*/…/TYPED_FITHRF_GLMDENOISE_RR.hdf5` (`betasmd`, (x, y, z, trials)) or `.mat` of version 7.3
  (`modelmd`, axes reversed); its `.npy` is a pickle and is refused.

Nothing is resampled: a mask or atlas on another grid is refused. The table keeps the grid and the mask's hash.

Layouts read in: nipreps/fmriprep's outputs as nilearn.interfaces.fmriprep (0.14.1) reads them; cvnlab/GLMsingle,
`glmsingle/glmsingle.py`, `glmsingle/utils/h5_utils.py`, `matlab/GLMestimatesingletrial.m`, commit 1ab54a65.
"""

from pathlib import Path
from typing import Literal

from fmri_models.data.brain_images.own_files import OwnOptions, read_own
from fmri_models.data.brain_images.single_trials import TrialModel
from fmri_models.data.published import PublishedDataset, preparation

VERSION = 1


def read(
    source: Path,
    kind: Literal["auto", "bold", "betas", "glmsingle"] = "auto",
    events: Path | None = None,
    space: str = "",
    task: str = "",
    mask: str = "",
    roi_masks: str = "",
    atlas: str = "",
    atlas_labels: Path | None = None,
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
        mask=mask,
        roi_masks=roi_masks,
        atlas=atlas,
        atlas_labels=atlas_labels,
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
    return read_own(source, "volumes", "dataset_scripts/nifti.py", VERSION, options)


prepare = preparation(read)
