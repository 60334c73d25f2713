"""Writing that either happens completely or leaves what was there untouched.

Three kinds of writing share the rule that everything is written beside first:

- [`atomic_folder`] makes a folder, or *replaces* one that such a command wrote, as a whole.
- [`merged_folder`] brings new files into a folder that may hold anybody's: it replaces files of its own names, removes
  those of its own that are no longer needed, and leaves the rest.
- [`atomic_file`] writes one file.

What a kill leaves of it, the next run removes, completes or undoes (`swapping.recover`).
"""

import json
import math
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .deprecation import renamed_argument
from .errors import FmriModelsError, check_path, system_errors_as_sentences
from .output_folders import FolderFormat, check_output_folder
from .project import how_to_install
from .swapping import (
    commit,
    complete,
    new_locked_file,
    new_locked_folder,
    partial_prefix,
    recover,
    remove_abandoned,
    replace_folder,
    signals_later,
    take_place,
)


@renamed_argument("kind", "folder_format", since="0.1")
@contextmanager
def atomic_folder(
    path: str | os.PathLike,
    overwrite: bool = False,
    folder_format: FolderFormat | None = None,
    inputs: Iterable[str | os.PathLike] = (),
) -> Iterator[Path]:
    """Yields an empty folder beside `path` that becomes `path` when the block ends without an error.

    Args:
        path: The folder to be written. It may exist if it is empty, or with `overwrite`.
        overwrite: Replace a folder that has content. The old one is removed only after the new one is complete.
        folder_format: What may be replaced; None for folders of the package's own, such as those of the cache.
        inputs: What is read meanwhile, and therefore can't be replaced.

    Raises:
        FmriModelsError: `path` can't be replaced (before anything is written), or the system refuses to write.
    """
    check_output_folder(path, overwrite, folder_format, inputs)
    path = Path(os.path.realpath(path))
    with system_errors_as_sentences(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_locked_folder(path.parent, path.name) as partial:
            yield partial
            partial.chmod(0o777 & ~_umask())
            _open_to_readers(partial)
            with signals_later():
                replace_folder(partial, path, overwrite)


@contextmanager
def merged_folder(
    path: str | os.PathLike, obsolete: Callable[[Path, set[str]], Iterable[str]] = lambda folder, written: ()
) -> Iterator[Path]:
    """Yields an empty folder whose files replace those of the same names in `path` when the block ends without error.

    Everything else in `path` stays: it may be a clone of a repository, the current directory, or hold a person's notes.
    A kill before the swap leaves the old files; one inside it leaves a journal, by which the next writer or reader
    ([`recover`]) completes it.

    Args:
        path: The folder, which is made where there is none.
        obsolete: Takes the folder and the names that were written (relative, with `/`), and gives names of older files
            of the writer's own that are no longer needed.

    Raises:
        FmriModelsError: `path` is a file, holds a folder in a file's place, or the system refuses to write.
    """
    check_path(path)
    path = Path(os.path.realpath(path))
    with system_errors_as_sentences(path):
        if path.exists() and not path.is_dir():
            raise FmriModelsError(f"The output folder {path} is a file; choose another name.")
        recover(path)
        new = not path.exists()
        if new:
            path.parent.mkdir(parents=True, exist_ok=True)
        with new_locked_folder(path.parent, path.name) if new else new_locked_folder(path) as partial:
            yield partial
            _open_to_readers(partial)
            if new:
                partial.chmod(0o777 & ~_umask())
            with signals_later():
                if not new or not take_place(partial, path):
                    complete(commit(partial, path, obsolete), path)


@contextmanager
def atomic_file(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a file name beside `path` that replaces `path` when the block ends without an error.

    Raises:
        FmriModelsError: The system refuses to write.
    """
    path = Path(path).absolute()
    with system_errors_as_sentences(path):
        if path.is_dir():
            raise FmriModelsError(f"{path} is a folder, and a file has to be written there; choose another name.")
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(path.parent, path.stem, path.suffix)
        # The suffix is kept because writers choose the format by it (numpy.save would append its own).
        partial = Path(tempfile.mktemp(prefix=partial_prefix(path.stem), suffix=path.suffix, dir=path.parent))
        try:
            with new_locked_file(partial):
                yield partial
                partial.chmod(0o666 & ~_umask())
                partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a UTF-8 text file atomically."""
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def json_text(values: Any) -> str:
    """JSON that every parser takes: what is NaN or infinite becomes null."""
    return json.dumps(_finite(values), indent=2, allow_nan=False)


@contextmanager
def scratch_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Yields an empty folder beside `path` that is removed when the block ends, or by [`recover`] after a kill.

    Raises:
        FmriModelsError: The system refuses to write.
    """
    path = Path(path).absolute()
    with system_errors_as_sentences(path):
        recover(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_locked_folder(path.parent, path.name) as scratch:
            yield scratch


def remove_folder(path: str | os.PathLike) -> None:
    """Removes a folder as a whole: a kill meanwhile leaves none, or something that [`recover`] removes."""
    path = Path(path).absolute()
    with system_errors_as_sentences(path):
        if not path.exists():
            return
        with scratch_folder(path) as scratch:
            path.rename(scratch / path.name)


def check_schema(found: object, supported: int, what: str) -> None:
    """Compares the schema version that a file carries with the newest one that this package reads.

    Raises:
        FmriModelsError: The version is missing, is no whole number, or is newer than `supported`.
    """
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise FmriModelsError(
            f"{what} has the schema version {repr(found)[:40]}; expected a whole number from 1 to {supported}."
        )
    if found > supported:
        raise FmriModelsError(
            f"{what} was written by a newer version of fmri_models (schema {str(found)[:40]}, this version reads up to "
            f"{supported}); take that one. {how_to_install()}"
        )


def warn_of_pickles(safe_serialization: bool) -> None:
    """Says that weights become safetensors whatever was asked for: a pickle runs code on whoever loads it."""
    if not safe_serialization:
        warnings.warn("Weights are saved as safetensors alone; safe_serialization=False is ignored.", stacklevel=3)


def weights_no_longer_needed(folder: Path, written: set[str]) -> list[str]:
    """Weights files of an earlier save (old shards, an index) with base name and variant of new ones beside them.

    Args:
        folder: Where both are.
        written: Names of the new files, relative to the folder.
    """
    families = {(str(Path(name).parent), family) for name in written if (family := weights_family(Path(name).name))}
    obsolete = []
    for parent in sorted({parent for parent, _ in families}):
        here = folder / parent
        for file in sorted(here.iterdir()) if here.is_dir() else []:
            name = file.relative_to(folder).as_posix()
            if name not in written and file.is_file() and (parent, weights_family(file.name)) in families:
                obsolete.append(name)
    return obsolete


_WEIGHTS = re.compile(
    r"(?P<base>model|diffusion_pytorch_model|adapter_model)(?:\.(?P<variant>[\w]+))?"
    r"(?:-\d{5}-of-\d{5})?\.safetensors(?:\.index(?:\.(?P<index_variant>[\w]+))?\.json)?"
)


def weights_family(name: str) -> tuple[str, str] | None:
    """Base name and variant of a weights file, a shard or an index; None if it is neither."""
    found = _WEIGHTS.fullmatch(name)
    return None if found is None else (found["base"], found["variant"] or found["index_variant"] or "")


def _finite(values: Any) -> Any:
    if isinstance(values, dict):
        return {key: _finite(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [_finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


def _open_to_readers(folder: Path) -> None:
    """Lets others read weights who may read the files beside them: safetensors 0.8 writes for its owner alone."""
    allowed = 0o666 & ~_umask()
    for file in folder.rglob("*.safetensors"):
        if file.is_file() and not file.is_symlink() and file.stat().st_mode & 0o777 == 0o600:
            file.chmod(allowed)


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value
