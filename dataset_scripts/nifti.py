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

from fmri_models.data.brain_images.own_files import read_own
from fmri_models.data.brain_images.own_options import VolumeOptions
from fmri_models.data.published import PublishedDataset, preparation

VERSION = 1


def read(source: Path, options: VolumeOptions) -> PublishedDataset:
    """What the folder holds; see `VolumeOptions` for the options."""
    return read_own(source, options, "dataset_scripts/nifti.py", VERSION)


prepare = preparation(read)
