"""Files that are read by libraries of the extra `data`: HDF5 and volumes, with errors that are sentences."""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import FmriModelsError
from ...names import one_line


def library(name: str) -> Any:
    """A library of the extra `data`.

    Raises:
        FmriModelsError: It is not installed.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise FmriModelsError(
            f'These files are read by the package {name}, which is not installed; pip install "fmri_models[data]".'
        ) from error


@contextmanager
def h5py_file(path: Path) -> Iterator[Any]:
    """An HDF5 file, which MATLAB 7.3's are, too, to be read.

    Raises:
        FmriModelsError: It is missing, is none, or ends before what is read of it.
    """
    h5py = library("h5py")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except OSError as error:
        raise FmriModelsError(
            f"{one_line(path)} can't be read as HDF5 ({one_line(error, 120)}); it may be cut off: get the file again."
        ) from error


def nibabel_image(path: Path, **options: Any) -> Any:
    """A volume (NIfTI, MGH) or surface file whose header was read.

    Args:
        path: The file.
        **options: Of its reader; with `keep_file_open`, volumes of a gzipped file that are read one after the other
            are unpacked once.

    Raises:
        FmriModelsError: It is missing, or is none.
    """
    nibabel = library("nibabel")
    try:
        return nibabel.load(path, **options)
    except (nibabel.filebasedimages.ImageFileError, OSError, EOFError, ValueError) as error:
        raise FmriModelsError(
            f"{one_line(path)} can't be read as a volume ({one_line(error, 120)}); get the file again."
        ) from error


def volumes(image: Any, path: Path, which: slice) -> np.ndarray:
    """Some volumes of a series, (X, Y, Z, n) float32, scaled as the header says.

    Raises:
        FmriModelsError: The file ends before them, or is damaged.
    """
    try:
        return np.asarray(image.dataobj[..., which], dtype=np.float32)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise FmriModelsError(
            f"{one_line(path)} can't be read to its end ({one_line(error, 120)}); it may be cut off: get it again."
        ) from error
