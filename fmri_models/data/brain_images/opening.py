"""Opening images: the optional packages that read them, and what is wrong with a file as a sentence."""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

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
def damage_as_sentences(path: Path, what: str) -> Iterator[None]:
    """Turns what the readers raise of a damaged file into a sentence.

    Args:
        path: The file.
        what: What it should be, such as `"NIfTI image"`.

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
        known = isinstance(error, OSError | EOFError | ValueError | KeyError | zlib.error | RuntimeError)
        if not known and type(error).__module__.partition(".")[0] not in ("nibabel", "h5py", "xml", "gzip", "pyexpat"):
            raise
        raise FmriModelsError(
            f"{one_line(path)} is damaged, cut short, or no {what} ({one_line(error, 120) or type(error).__name__}); "
            f"{_MEND}."
        ) from error


def open_image(path: Path, what: str = "NIfTI image") -> Any:
    """An image of nibabel, of which nothing is read yet but the header.

    A compressed one stays open, because what lies in it is reached by decompressing all before it.

    Raises:
        FmriModelsError: It isn't there, is damaged, or is no such file.
    """
    nibabel = required_package("nibabel")
    check_regular_file(path, what, _MEND)
    with damage_as_sentences(path, what):
        # GIFTI is text, which is read at once.
        return nibabel.load(path) if path.suffix == ".gii" else nibabel.load(path, keep_file_open=True)
