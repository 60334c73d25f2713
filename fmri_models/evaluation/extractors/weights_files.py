"""Where a network's weights lie."""

import hashlib
import urllib.request
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import torch
from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache

from ... import progress
from ...data.cache import cache_folder, make_cache_folder
from ...errors import FmriModelsError
from ...names import one_line
from ...saving import atomic_file

_CHUNK = 2**22
_TIMEOUT_S = 20


@dataclass(frozen=True)
class WeightsFile:
    """A published file.

    Args:
        file: Its name.
        address: Where it is published; empty where it lies on the Hub.
        repository: On the Hub; empty where it does not.
        revision: Of the repository.
    """

    file: str
    address: str = ""
    repository: str = ""
    revision: str | None = None

    @property
    def place(self) -> str:
        """Where it is published, in words."""
        return f"{self.repository} on the Hub" if self.repository else self.address

    def in_cache(self) -> Path | None:
        """A copy that this package, PyTorch or the Hub's client has fetched before."""
        if self.repository:
            found = try_to_load_from_cache(self.repository, self.file, revision=self.revision)
            return Path(found) if isinstance(found, str) else None
        places = (self._own_copy(), Path(torch.hub.get_dir()) / "checkpoints" / self.file)
        return next((path for path in places if path.is_file()), None)

    def downloaded(self) -> Path:
        """Fetches it.

        Raises:
            OSError: There is no network, or no such file.
        """
        if constants.HF_HUB_OFFLINE:
            raise OSError("HF_HUB_OFFLINE is set")
        if self.repository:
            return Path(hf_hub_download(self.repository, self.file, revision=self.revision))
        make_cache_folder(self._own_copy().parent)
        with (
            progress.phase(f"Fetching {self.file}"),
            urllib.request.urlopen(self.address, timeout=_TIMEOUT_S) as source,
            atomic_file(self._own_copy()) as partial,
            partial.open("wb") as out,
        ):
            while chunk := source.read(_CHUNK):
                out.write(chunk)
        return self._own_copy()

    def _own_copy(self) -> Path:
        return cache_folder() / "extractors" / self.file


class MissingWeightsError(FmriModelsError):
    """Weights that can't be had.

    Args:
        files: Names of the files, in words.
        message: What was looked for where, and what to do.
    """

    def __init__(self, files: str, message: str) -> None:
        super().__init__(message)
        self.files = files


def check_folder(folder: str | PathLike | None) -> None:
    """Refuses a folder of weights that is not there.

    Raises:
        FmriModelsError: It is no folder.
    """
    if folder is not None and not Path(folder).is_dir():
        raise FmriModelsError(f"There is no folder {one_line(folder)}; give one with weights of networks (--weights).")


def find_weights(name: str, files: tuple[WeightsFile, ...], folder: str | PathLike | None) -> tuple[WeightsFile, Path]:
    """The first of several files that can be had: in a folder, in what was fetched before, or where it is published.

    Args:
        name: Of the extractor.
        files: Any one of them will do.
        folder: Of the user; None for none.

    Raises:
        MissingWeightsError: None of them can be had; says which, where they were looked for, and what to do.
    """
    check_folder(folder)
    for each in files:
        if folder is not None and (path := Path(folder) / each.file).is_file():
            return each, path
    for each in files:
        if (found := each.in_cache()) is not None:
            return each, found
    refusals = []
    for each in files:
        try:
            return each, each.downloaded()
        # Libraries of the network raise what they like, and each of it means that the file can't be had.
        except Exception as error:
            refusals.append(f"{each.place}: {one_line(error or type(error).__name__, 100)}")
    named = " or ".join(each.file for each in files)
    looked = "no folder was given with --weights" if folder is None else f"{one_line(folder)} has no such file"
    raise MissingWeightsError(
        named,
        f"The network {name} needs its weights, {named}: {looked}, none was fetched before, and none can be fetched "
        f"now ({'; '.join(refusals)}); put the file into a folder and give that with --weights, or choose a protocol "
        f"without {name}.",
    )


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, read piece by piece."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
