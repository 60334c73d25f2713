"""Opening images and HDF5 files: the packages that read them, and what is wrong with a file as a sentence."""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import FmriModelsError, system_sentence
from ...names import one_line
from ...reading import check_regular_file

VOLUME_ENDINGS = (".nii", ".nii.gz")
# Also endings of volumes; what they hold is none.
CIFTI_ENDINGS = (".dtseries.nii", ".dscalar.nii", ".dlabel.nii")
_MEND = "copy or export it again"


def required_package(name: str) -> Any:
    """A package that the extra `data` brings.

    Raises:
        FmriModelsError: It is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise FmriModelsError(
            f'The files need the package {package}, which is not installed; pip install "fmri_models[data]".'
        ) from error


def is_volume_name(name: str) -> bool:
    """Whether a file's name is that of a NIfTI volume."""
    return name.lower().endswith(VOLUME_ENDINGS) and not name.lower().endswith(CIFTI_ENDINGS)


@contextmanager
def damage_as_sentences(path: Path, what: str, mend: str = _MEND) -> Iterator[None]:
    """Turns what the readers raise of a damaged file into a sentence.

    Args:
        path: The file.
        what: What it should be, such as `"NIfTI image"`.
        mend: What to do about another file, as the end of a sentence.

    Raises:
        FmriModelsError: The block raised what a damaged, cut or other file makes readers raise.
    """
    try:
        yield
    except FmriModelsError:
        raise
    except MemoryError as error:
        raise FmriModelsError(system_sentence(error, path)) from error
    except Exception as error:
        # nibabel, h5py, gzip and expat have an exception each for it, and none of them says which file.
        if isinstance(error, OSError) and error.errno is not None:
            raise FmriModelsError(system_sentence(error, path)) from error
        # nibabel says of a file that may not be read that it is none.
        try:
            path.open("rb").close()
        except OSError as refusal:
            raise FmriModelsError(system_sentence(refusal, path)) from error
        known = isinstance(error, OSError | EOFError | ValueError | KeyError | zlib.error | RuntimeError)
        if not known and type(error).__module__.partition(".")[0] not in ("nibabel", "h5py", "xml", "gzip", "pyexpat"):
            raise
        raise FmriModelsError(
            f"{one_line(path)} is damaged, cut short, or no {what} ({one_line(error, 120) or type(error).__name__}); "
            f"{mend}."
        ) from error


def open_image(path: Path, what: str = "NIfTI image", mend: str = _MEND) -> Any:
    """An image of nibabel, of which nothing is read yet but the header.

    A compressed one stays open, because what lies in it is reached by decompressing all before it.

    Args:
        path: The file.
        what: What it should be.
        mend: What to do about another file, as the end of a sentence.

    Raises:
        FmriModelsError: It isn't there, is damaged, or is no such file.
    """
    nibabel = required_package("nibabel")
    check_regular_file(path, what, mend)
    with damage_as_sentences(path, what, mend):
        # GIFTI is text, which is read at once.
        return nibabel.load(path) if path.suffix == ".gii" else nibabel.load(path, keep_file_open=True)


def image_values(image: Any, path: Path, which: slice = slice(None), mend: str = _MEND) -> np.ndarray:
    """Some patterns along the last axis of an image, (..., n) float32, scaled as the header says.

    Raises:
        FmriModelsError: The file ends before them, or is damaged.
    """
    with damage_as_sentences(path, "NIfTI image", mend):
        return np.asarray(image.dataobj[..., which], dtype=np.float32)


@contextmanager
def opened_hdf5(path: Path, mend: str = _MEND) -> Iterator[Any]:
    """An HDF5 file, which MATLAB 7.3's are, too, to be read.

    Args:
        path: The file.
        mend: What to do about another file, as the end of a sentence.

    Raises:
        FmriModelsError: It isn't there, is none, or ends before what is read of it.
    """
    h5py = required_package("h5py")
    check_regular_file(path, "HDF5 file", mend)
    with damage_as_sentences(path, "HDF5 file", mend), h5py.File(path, "r") as file:
        yield file
