"""Which folders a command may write into or replace, asked before the work."""

import fnmatch
import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .deprecation import renamed_argument
from .errors import FmriModelsError, existing_parent, system_errors_as_sentences
from .swapping import EVAL_RESULTS_FILE, PARTIAL_PREFIX, RATER_ANSWERS_FILE, partial_prefix, recover

# Left by file managers and sharing protocols, never by a person.
_SYSTEM_FILES = (".DS_Store", "._*", "Thumbs.db", "desktop.ini", ".nfs*", "__MACOSX")


@dataclass(frozen=True)
class FolderFormat:
    """What a command writes, so that it replaces nothing else.

    Args:
        name: What a message calls the folder, such as `"trial table"`.
        marker: The file by which such a folder is known.
        files: Patterns of everything that it may hold; `*` and `?` stand for no `/`.
        marker_start: What the marker begins with, where its name alone says too little.
    """

    name: str
    marker: str
    files: tuple[str, ...]
    marker_start: bytes = b""

    def is_known(self, folder: Path) -> bool:
        """Whether a folder has the marker."""
        marker = folder / self.marker
        if not marker.is_file():
            return False
        with marker.open("rb") as file:
            return file.read(len(self.marker_start)) == self.marker_start

    def foreign_files(self, folder: Path) -> list[str]:
        """Files that nobody but another program or a person can have put there, relative to the folder."""
        paths = (path for path in sorted(folder.rglob("*")) if path.is_symlink() or not path.is_dir())
        return [name for path in paths if not self.is_own(folder, name := path.relative_to(folder).as_posix())]

    def is_own(self, folder: Path, name: str) -> bool:
        """Whether a file of that name, relative to the folder, is of this format."""
        if any(fnmatch.fnmatchcase(name.rsplit("/", 1)[-1], pattern) for pattern in _SYSTEM_FILES):
            return True
        # Everybody writes a README.md; ours name the package.
        if name == _README and (folder / name).is_file():
            with (folder / name).open("rb") as file:
                return _README_NAMES in file.read(_README_BYTES)
        return any(_fits(name, pattern) for pattern in (self.marker, *self.files))


def _fits(name: str, pattern: str) -> bool:
    """Whether a path is of a pattern, folder by folder."""
    parts, patterns = name.split("/"), pattern.split("/")
    return len(parts) == len(patterns) and all(map(fnmatch.fnmatchcase, parts, patterns))


_README = "README.md"
_README_NAMES = b"fmri_models"
_README_BYTES = 2**16
_WEIGHTS = tuple(
    f"{base}{ending}"
    for base in ("model", "diffusion_pytorch_model")
    for ending in (".safetensors", ".*.safetensors", "-?????-of-?????.safetensors", ".safetensors.index*.json")
)
_COMPONENT = (
    "config.json", "generation_config.json", "scheduler_config.json", "preprocessor_config.json", "tokenizer.json",
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt",
    "chat_template.jinja", "*.model", *_WEIGHTS,
)  # fmt: skip
_ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
_GENERATOR_ADAPTER = (
    "image_generator_adapter/base_generator.json",
    *(f"image_generator_adapter/{place}{name}" for place in ("", "*/") for name in _ADAPTER),
)
TRIAL_TABLE = FolderFormat(
    "trial table",
    "table.json",
    (
        "trials/*/train-?????-of-?????.parquet", "trials/*/validation-?????-of-?????.parquet",
        "trials/*/test-?????-of-?????.parquet", "trials/*/unlabelled-?????-of-?????.parquet",
        "stimuli/stimuli-?????-of-?????.parquet", "voxels/*.parquet", "splits/*.parquet", "noise_free/*.parquet",
        "evaluations.jsonl",
    ),
)  # fmt: skip
REPORT_FILES = (
    "report.json", "report.md", "report.html", "grid.png", "items.parquet", "images/*/*.png", EVAL_RESULTS_FILE,
    RATER_ANSWERS_FILE,
)  # fmt: skip
PIPELINE = FolderFormat(
    "pipeline",
    "model_index.json",
    (
        "training.json", "conversion.json", *(f"brain_model/{name}" for name in (*_COMPONENT, *_ADAPTER)),
        *(f"brain_model/subject_adapters/*/{name}" for name in _ADAPTER),
        "processor/preprocessor_config.json", "processor/fmri_statistics.*", "image_generator/model_index.json",
        *(f"image_generator/*/{name}" for name in _COMPONENT), *_GENERATOR_ADAPTER, *REPORT_FILES,
    ),
)  # fmt: skip
RECONSTRUCTIONS = FolderFormat(
    "folder of reconstructions",
    "trials.csv",
    ("*.png", "embeddings.npy", "guides/*.safetensors", "captions.csv"),
    b"trial,stimulus,seed,scores",
)


@renamed_argument("kind", "folder_format", since="0.1")
def check_output_folder(
    path: str | os.PathLike,
    overwrite: bool = False,
    folder_format: FolderFormat | None = None,
    inputs: Iterable[str | os.PathLike] = (),
) -> None:
    """Refuses an output folder that can't be written or replaced, so that a long run does not end in that refusal.

    What a killed run has left beside it is removed, and a replacement that was under way is undone first.

    Args:
        path: The folder to be written.
        overwrite: Whether content may be replaced.
        folder_format: What may be replaced; None for folders of the package's own.
        inputs: What the command reads.

    Raises:
        FmriModelsError: `path` is a file, is, contains or lies in an input, has content (that may not be replaced, or
            that another program or a person put there), or the place can't be written.
    """
    path = Path(path)
    with system_errors_as_sentences(path):
        recover(path)
        check_apart(path, inputs)
        if os.path.lexists(os.path.realpath(path)) and not path.is_dir():
            raise FmriModelsError(f"The output folder {path} is a file; choose another name.")
        if os.path.ismount(os.path.realpath(path)):
            raise FmriModelsError(
                f"The output folder {path} is where a file system is mounted, so it can't be replaced as a whole; "
                "choose a folder in it."
            )
        if path.is_dir() and any(path.iterdir()):
            _check_replaceable(path, overwrite, folder_format)
        _check_writable(Path(os.path.realpath(path)))


def check_merged_folder(path: str | os.PathLike, overwrite: bool = False) -> None:
    """Refuses a folder that files can't be brought into by [`merged_folder`], so that a long run does not end in that.

    Args:
        path: The folder; made later if it is missing.
        overwrite: Whether it may have content, of which files of the same names are replaced.

    Raises:
        FmriModelsError: `path` is a file, has content without `overwrite`, or can't be written.
    """
    path = Path(path)
    with system_errors_as_sentences(path):
        recover(path)
        if path.exists() and not path.is_dir():
            raise FmriModelsError(f"The output folder {path} is a file; choose another name.")
        if path.is_dir() and any(path.iterdir()) and not overwrite:
            raise FmriModelsError(
                f"The output folder {path} exists and is not empty; choose another one, or pass --overwrite to replace "
                "what an earlier run of this command has written there. Other files stay."
            )
        _try_writing(Path(os.path.realpath(path)))


def check_room(path: str | os.PathLike, num_bytes: int) -> None:
    """Refuses a place whose disk has not the room for what will be written.

    Args:
        path: What is to be written.
        num_bytes: Its size, at least.

    Raises:
        FmriModelsError: Less is free.
    """
    path = Path(path)
    with system_errors_as_sentences(path):
        free = shutil.disk_usage(existing_parent(path)).free
    if free < num_bytes:
        raise FmriModelsError(
            f"There is no room for {path}: it takes {num_bytes / 2**20:,.0f} MiB at least, and {free / 2**20:,.0f} MiB "
            "are free; make room or choose another folder."
        )


def check_apart(path: str | os.PathLike, inputs: Iterable[str | os.PathLike]) -> None:
    """Refuses an output folder that is, contains or lies in an input of the command.

    Raises:
        FmriModelsError: Names the input.
    """
    out = _identities(path)
    for given in inputs:
        source = _identities(given)
        if out[0] == source[0]:
            relation = "is"
        elif out[0] in source:
            relation = "contains"
        elif source[0] in out:
            relation = "lies in"
        else:
            continue
        raise FmriModelsError(
            f"The output folder {path} {relation} {given}, which is read; choose a folder apart from it."
        )


def _identities(path: str | os.PathLike) -> list[tuple[int, int] | Path]:
    """What a path and the folders above it are, whatever name, case or mount they are reached by."""
    real = Path(os.path.realpath(path))
    found: list[tuple[int, int] | Path] = []
    for place in (real, *real.parents):
        try:
            status = place.stat()
        except OSError:
            found.append(place)
        else:
            found.append((status.st_dev, status.st_ino))
    return found


def _check_replaceable(path: Path, overwrite: bool, expected: FolderFormat | None) -> None:
    if not overwrite:
        raise FmriModelsError(
            f"The output folder {path} exists and is not empty; choose another one, or pass --overwrite to replace it."
        )
    if expected is None:
        return
    if not expected.is_known(path):
        raise FmriModelsError(
            f"The output folder {path} has content and is no {expected.name} (it has no {expected.marker} of one), so "
            "it is not replaced; choose another folder, or empty this one yourself."
        )
    if foreign := expected.foreign_files(path):
        more = f" and {len(foreign) - 1} more files" if len(foreign) > 1 else ""
        raise FmriModelsError(
            f"The {expected.name} {path} holds {foreign[0][:200]}{more}, which would be lost with it; move that away, "
            "or choose another folder."
        )


def _check_writable(path: Path) -> None:
    """Writes an empty file where the folder will be, since rights alone do not tell."""
    _try_writing(path.absolute().parent, path.name)


def _try_writing(folder: Path, name: str = "") -> None:
    for place in (folder, *folder.parents):
        if place.is_dir():
            break
        if os.path.lexists(place):
            raise FmriModelsError(f"{place} is a file, and a folder has to be made there; choose another one.")
    prefix = partial_prefix(name) if name else PARTIAL_PREFIX
    handle, partial = tempfile.mkstemp(prefix=prefix, dir=place)
    os.close(handle)
    # Another process may have taken it for abandoned.
    Path(partial).unlink(missing_ok=True)
