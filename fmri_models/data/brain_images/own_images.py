"""Which images of a folder are a person's own data: fMRIPrep's, betas with a table of events, or GLMsingle's output."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from ...errors import FmriModelsError
from ...names import one_line
from .bids import BidsFile, files_of, one_choice
from .opening import CIFTI_ENDINGS, VOLUME_ENDINGS
from .own_options import OwnOptions

Form = Literal["volumes", "surfaces"]
# The files of GLMsingle's steps, the one with the most of them first.
GLMSINGLE = ("TYPED_FITHRF_GLMDENOISE_RR", "TYPEC_FITHRF_GLMDENOISE", "TYPEB_FITHRF")
_BETAS = ("betas", "beta")


def find_images(source: Path, form: Form, options: OwnOptions) -> tuple[str, Path, list[BidsFile]]:
    """Kind, folder and files of the first kind of which there are files."""
    derivatives = source / "derivatives"
    roots = [source, derivatives / "fmriprep"]
    roots += sorted(path for path in derivatives.glob("*") if path.is_dir()) if derivatives.is_dir() else []
    kinds = [kind for kind in ("bold", "betas", "glmsingle") if options.kind in ("auto", kind)]
    for kind in kinds:
        if kind == "glmsingle" and form == "surfaces":
            continue
        for root in dict.fromkeys(roots):
            files = files_of(root, partial(_is_of, kind, form))
            if files and kind != "glmsingle":
                files = one_choice(files, "task", options.task, "task")
                files = one_choice(files, "space", options.space, "space")
                _check_once(files)
            if files:
                return kind, root, files
    raw = files_of(source, lambda each: each.suffix == "bold")
    also = f" It has {len(raw)} raw bold files: run fMRIPrep first." if raw and form == "volumes" else ""
    expected = {
        ("bold", "volumes"): "sub-*/[ses-*/]func/…_desc-preproc_bold.nii.gz",
        ("bold", "surfaces"): "sub-*/[ses-*/]func/…_bold.dtseries.nii or …_hemi-L_…_bold.func.gii",
        ("betas", "volumes"): "sub-*/…/…_betas.nii.gz",
        ("betas", "surfaces"): "sub-*/…/….dscalar.nii or …_hemi-L_…_betas.func.gii",
        ("glmsingle", "volumes"): f"sub-*/…/{GLMSINGLE[0]}.hdf5 (or .mat)",
    }
    wanted = [text for (kind, of), text in expected.items() if of == form and kind in kinds]
    raise FmriModelsError(
        f"{one_line(source)} has no files of the names {'; '.join(wanted)} (in it, or in derivatives/*); give "
        f"fMRIPrep's folder, or the BIDS folder that has it.{also}"
    )


def _check_once(files: Sequence[BidsFile]) -> None:
    """Refuses several images of one run, such as of several resolutions or echoes."""
    seen: dict[tuple[str, ...], BidsFile] = {}
    for each in files:
        key = (*each.run_key, each.entities.get("hemi", ""))
        if key in seen:
            raise FmriModelsError(
                f"{one_line(seen[key].path.name)} and {one_line(each.path.name)} are of the same run; leave one of the "
                "two in the folder, or give another folder with links to those that count."
            )
        seen[key] = each


def _is_of(kind: str, form: Form, each: BidsFile) -> bool:
    if kind == "glmsingle":
        return each.path.name.partition(".")[0] in GLMSINGLE and each.ending in (".hdf5", ".mat", ".npy")
    if "sub" not in each.entities:
        return False
    if form == "volumes":
        if each.ending not in VOLUME_ENDINGS:
            return False
        return (
            each.suffix in _BETAS
            if kind == "betas"
            else each.suffix == "bold" and each.entities.get("desc") == "preproc"
        )
    if each.ending in CIFTI_ENDINGS:
        return each.ending == (".dtseries.nii" if kind == "bold" else ".dscalar.nii")
    suffixes = ("bold",) if kind == "bold" else _BETAS
    return each.ending == ".func.gii" and each.suffix in suffixes and each.entities.get("hemi") in ("L", "R")
