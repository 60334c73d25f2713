"""Natural Scenes Dataset (Allen et al. 2022): eight subjects, up to 40 sessions of 750 trials at 7 T, pictures of COCO.

Three published forms are read; which one lies in the folder is found out:

- `release`: the official one, with the folders `nsddata`, `nsddata_betas`, `nsddata_stimuli`. Betas of `nsdgeneral` in
  1.8 mm, from `betas_session*.nii.gz` (X, Y, Z, trials) or `.hdf5` (trials, Z, Y, X), integers of 300 a percent.
- `mindeye2`: `betas_all_subj0X_fp32_renorm.hdf5`, `coco_images_224_float16.hdf5`, `wds/subj0X/`; standardised.
- `mindeye`: `webdataset_avg_split/`, of which a sample has the repetitions of a picture; standardised by session.

Test sets: `shared1000`, the thousand pictures that all subjects saw (40 sessions); `shared982`, those of them that were
shown in the first 37 sessions, of which later ones are left out then. Of the release also `imagery`: what was imagined
in NSD-Imagery, `imagery_vision`: the same pictures seen there, and `synthetic`: NSD-Synthetic; trials of shared
pictures are left out then.

Captions are COCO's, in any form: its annotations beside the table of NSD's pictures, where the release and MindBridge
have them or in the folder itself, or MindEye's `COCO_73k_annots_curated.npy`.

Layout read in: ozcelikfu/brain-diffuser 1c07200 (`data/prepare_nsddata.py`, the captions' array, too),
yu-takagi/StableDiffusionReconstruction f471823 (`codes/utils/nsd_access/nsda.py`, `make_subjmri.py`),
MedARC-AI/MindEyeV2 0541a41 (`src/Train.py`), MedARC-AI/fMRI-reconstruction-NSD (`src/utils.py`) and
littlepure2333/MindBridge 17bb4ab (`README.md`, `src/nsd_access.py`). NSD-Synthetic in gifale95/RNC's evaluation of
encoding models (betas, order and pictures); NSD-Imagery in three public readers of it that agree in the order of its
runs, in that an attention trial has two betas, and in which picture a cue stands for. A fourth has the runs in another
order; the number of the run in each table decides.
"""

from pathlib import Path

from fmri_models import progress
from fmri_models.data.published import PublishedDataset, preparation
from fmri_models.data.published.nsd.captions import CURATED, coco_files
from fmri_models.data.published.nsd.experiment import (
    FIRST_SESSIONS,
    IMAGERY,
    IMAGERY_VISION,
    SESSIONS,
    SHARED_982,
    SYNTHETIC,
    WHERE,
    subject_names,
)
from fmri_models.data.published.nsd.mindeye import read_mindeye
from fmri_models.data.published.nsd.mindeye2 import read_mindeye2
from fmri_models.data.published.nsd.release import read_release
from fmri_models.errors import FmriModelsError
from fmri_models.names import one_line

PAPER = {
    "title": "A massive 7T fMRI dataset to bridge cognitive neuroscience and artificial intelligence",
    "authors": (
        "Allen, Emily J.", "St-Yves, Ghislain", "Wu, Yihan", "Breedlove, Jesse L.", "Prince, Jacob S.",
        "Dowdle, Logan T.", "Nau, Matthias", "Caron, Brad", "Pestilli, Franco", "Charest, Ian",
        "Hutchinson, J. Benjamin", "Naselaris, Thomas", "Kay, Kendrick",
    ),
    "year": 2022,
    "url": "https://doi.org/10.1038/s41593-021-00962-x",
    "venue": "Nature Neuroscience",
}  # fmt: skip
ORIGIN = "https://naturalscenesdataset.org"
LICENSE = "NSD Terms and Conditions (data access form; research, not to be passed on); pictures: COCO Terms of Use"
CITATION = (
    "E. J. Allen, G. St-Yves, Y. Wu et al. (2022): A massive 7T fMRI dataset to bridge cognitive neuroscience and "
    "artificial intelligence. Nature Neuroscience 25, 116-126."
)
DESCRIPTION = (
    "Single trials of subjects who looked at pictures of COCO for three seconds each, up to three times; voxels of the "
    "region nsdgeneral, {form}."
)


_FORMS = {"release": read_release, "mindeye2": read_mindeye2, "mindeye": read_mindeye}


def read(
    source: Path,
    form: str = "",
    sessions: int = 0,
    atlases: list[str] | None = None,
    test_set: str = "",
    subjects: list[str] | None = None,
) -> PublishedDataset:
    """The Natural Scenes Dataset, in one of its three public forms.

    Args:
        source: The folder with the files of a form.
        form: `release`, `mindeye2` or `mindeye`; what is in the folder if empty.
        sessions: Reads the first so many sessions alone; all that there are if 0.
        atlases: Of the release, in which the label of a voxel is looked for, one after the other.
        test_set: `shared1000`, or `shared982` with the first 37 sessions; of the release also `imagery`,
            `imagery_vision` and `synthetic`.
        subjects: These alone are looked for.
    """
    found = form or _form(source)
    if found not in _FORMS:
        raise FmriModelsError(f"There is no form {one_line(repr(found), 60)} of NSD; there are {', '.join(_FORMS)}.")
    if not 0 <= sessions <= max(SESSIONS):
        raise FmriModelsError(f"{sessions} sessions were asked for; expected 1 to {max(SESSIONS)}, or 0 for all.")
    if test_set in (IMAGERY, IMAGERY_VISION, SYNTHETIC) and found != "release":
        raise FmriModelsError(f"The test set {test_set} is in the release alone; this is the form {found} of NSD.")
    most = min(sessions or max(SESSIONS), FIRST_SESSIONS if test_set == SHARED_982 else max(SESSIONS))
    wanted = [name for name in subject_names() if subjects is None or name in subjects]
    if not (source / CURATED).is_file() and coco_files(source) is None:
        progress.say(
            "The pictures will have no captions, from which recipes with text_embeds learn, such as mindbridge_nsd and "
            "takagi_nsd. For them, put "
            f"{CURATED}, or nsd_stim_info_merged.csv and COCO's annotations/captions_*.json, into {one_line(source)} "
            "first."
        )
    atlases = ["prf-visualrois", "streams"] if atlases is None else atlases
    there = _FORMS[found](source, wanted, most, atlases, test_set)
    return PublishedDataset(
        name="nsd",
        description=DESCRIPTION.format(form=there.form),
        license=LICENSE,
        citation=CITATION,
        script="dataset_scripts/nsd.py",
        script_version=1,
        subjects=there.subjects,
        stimuli=there.stimuli,
        test_sets=there.test_sets,
    )


def _form(source: Path) -> str:
    if not source.is_dir():
        raise FmriModelsError(f"{one_line(source)} is no folder; give the one with the files of NSD ({WHERE}).")
    if (source / "nsddata_betas").is_dir():
        return "release"
    if any(source.glob("betas_all_subj0?_fp32_renorm.hdf5")):
        return "mindeye2"
    if (source / "webdataset_avg_split").is_dir() or any(source.glob("*/*_subj0?_*.tar")):
        return "mindeye"
    raise FmriModelsError(
        f"{one_line(source)} has no form of NSD: expected the folders nsddata, nsddata_betas and nsddata_stimuli of "
        "the release, or betas_all_subj0X_fp32_renorm.hdf5 with coco_images_224_float16.hdf5 and wds/ (MindEye2), or "
        f"webdataset_avg_split/ (MindEye); {WHERE}."
    )


prepare = preparation(read)
