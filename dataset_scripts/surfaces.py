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

from fmri_models.data.brain_images.own_files import read_own
from fmri_models.data.brain_images.own_options import SurfaceOptions
from fmri_models.data.published import PublishedDataset, preparation

VERSION = 1


def read(source: Path, options: SurfaceOptions) -> PublishedDataset:
    """What the folder holds; see `SurfaceOptions` for the options."""
    return read_own(source, options, "dataset_scripts/surfaces.py", VERSION)


prepare = preparation(read)
