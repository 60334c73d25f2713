"""Webdataset's tars, read one sample after the other and without unpacking them: a sample is files of one name."""

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ...errors import FmriModelsError
from ...names import listed, one_line
from ...reading import check_regular_file

# Ending ▶ the open tar and the file in it.
Sample = dict[str, tuple[tarfile.TarFile, tarfile.TarInfo]]
# Two empty blocks.
_END_OF_TAR = 1024


def samples_of(path: Path, mend: str) -> Iterator[Sample]:
    """The samples of a tar, one after the other: files that lie behind each other and are called alike.

    Args:
        path: The tar, not compressed.
        mend: What to do about another file, as the end of a sentence.

    Raises:
        FmriModelsError: It isn't there, is damaged or cut off.
    """
    check_regular_file(path, "tar", mend)
    _check_end(path)
    try:
        with tarfile.open(path, "r:") as archive:
            current, members = None, Sample()
            for member in archive:
                if not member.isfile():
                    continue
                # Of these, some bytes can stand for any number.
                if member.issparse():
                    raise tarfile.TarError(f"{member.name[:60]} is a sparse file")
                key, _, ending = member.name.partition(".")
                if key != current and members:
                    yield members
                    members = {}
                current = key
                members[ending] = (archive, member)
            if members:
                yield members
    except (tarfile.TarError, EOFError) as error:
        raise FmriModelsError(f"{one_line(path)} is damaged ({one_line(error, 80)}); get the file again.") from error


def _check_end(path: Path) -> None:
    """Refuses a tar that was cut off between two of its files, which reads as if it were whole."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _END_OF_TAR))
        end = file.read()
    if len(end) < _END_OF_TAR or any(end):
        raise FmriModelsError(f"{one_line(path)} is cut off; get the file again.")


def bytes_of(path: Path, members: Sample, ending: str) -> bytes:
    """What a file of a sample holds.

    Args:
        path: The tar.
        members: The sample.
        ending: Of the file's name.

    Raises:
        FmriModelsError: The sample has no such file, or the tar ends within it.
    """
    if ending not in members:
        raise FmriModelsError(f"{one_line(path)} has a sample without {ending}; it has {listed(sorted(members))}.")
    archive, member = members[ending]
    file = archive.extractfile(member)
    data = b"" if file is None else file.read()
    if len(data) != member.size:
        raise FmriModelsError(f"{one_line(path)} ends within {one_line(member.name)}; get the file again.")
    return data


def array_of(path: Path, members: Sample, ending: str) -> np.ndarray:
    """The array of a `.npy` file of a sample; arguments and errors are those of [`bytes_of`].

    Raises:
        FmriModelsError: It is no array, too.
    """
    try:
        return np.asarray(np.load(io.BytesIO(bytes_of(path, members, ending)), allow_pickle=False))
    except (ValueError, EOFError) as error:
        raise FmriModelsError(f"{one_line(path)} has a {ending} that is no array; get the file again.") from error
