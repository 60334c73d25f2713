"""Opening images and HDF5 files: the packages that read them, and what is wrong with a file as a sentence."""

import os
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
    """Turns what the readers raise of a damaged file into a sentence; the block has nothing else in it.

    Args:
        path: The file.
        what: What it should be, such as `"NIfTI image"`.
        mend: What to do about another file, as the end of a sentence.

    Raises:
        FmriModelsError: The block raised anything: a damaged, cut or other file made it.
    """
    try:
        yield
    except FmriModelsError:
        raise
    except MemoryError as error:
        raise FmriModelsError(system_sentence(error, path)) from error
    except Exception as error:
        # nibabel, h5py, gzip and expat raise whatever they like (struct.error, AssertionError), and say no file.
        if isinstance(error, OSError) and error.errno is not None:
            raise FmriModelsError(system_sentence(error, path)) from error
        # nibabel says of a file that may not be read that it is none.
        try:
            path.open("rb").close()
        except OSError as refusal:
            raise FmriModelsError(system_sentence(refusal, path)) from error
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
        if path.suffix != ".gii":
            return nibabel.load(path, keep_file_open=True)
        # GIFTI is text, which is read at once; of bytes, nibabel reads no other file that the text names.
        return nibabel.gifti.GiftiImage.from_bytes(path.read_bytes())


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
        FmriModelsError: It isn't there, is none, ends before what is read of it, or has parts in other files.
    """
    h5py = required_package("h5py")
    check_regular_file(path, "HDF5 file", mend)
    with damage_as_sentences(path, "HDF5 file", mend), h5py.File(path, "r") as file:
        there = os.stat(path)
        if elsewhere := _part_elsewhere(file, (there.st_dev, there.st_ino, there.st_size, there.st_mtime_ns)):
            raise FmriModelsError(
                f"{one_line(path)} has a part that lies in another file ({elsewhere}), which is not read; copy all of "
                "it into one file."
            )
        try:
            yield file
        except (AttributeError, TypeError) as error:
            # A group, text or reference where numbers are expected: what is done with these, h5py's objects don't know.
            raise FmriModelsError(
                f"{one_line(path)} has another layout than expected ({one_line(error, 120)}), such as a group or text "
                f"where an array of numbers should be; {mend}."
            ) from error


# By the file's identity, because files are opened again and again.
_ELSEWHERE: dict[tuple[int, ...], str] = {}


def _part_elsewhere(file: Any, identity: tuple[int, ...]) -> str:
    """Which part of an HDF5 file leads to another one: a file from somebody else could name any file of this machine.

    External links, external storage and virtual data sets do. Empty where none does.
    """
    if identity not in _ELSEWHERE:
        h5py = required_package("h5py")

        def leads_out(name: bytes, link: Any) -> str | None:
            shown = one_line(name.decode("utf-8", "replace"), 60)
            if link.type not in (h5py.h5l.TYPE_HARD, h5py.h5l.TYPE_SOFT):
                return f"the external link {shown}"
            found = h5py.h5o.open(file.id, name) if link.type == h5py.h5l.TYPE_HARD else None
            if isinstance(found, h5py.h5d.DatasetID):
                created = found.get_create_plist()
                if created.get_layout() == h5py.h5d.VIRTUAL:
                    return f"the virtual data set {shown}"
                if created.get_external_count():
                    return f"the data set {shown}, stored externally"
            return None

        _ELSEWHERE[identity] = file.id.links.visit(leads_out, info=True) or ""
    return _ELSEWHERE[identity]
