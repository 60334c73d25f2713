"""What may not go to the Hub: pickles, weights that are not finite, tokens, and paths of the author's machine."""

import json
import os
import pickletools
import re
import tempfile
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from .errors import FmriModelsError, system_errors_as_sentences
from .names import one_line

_PICKLED_ENDINGS = (".pkl", ".pickle", ".pt", ".pth", ".bin", ".ckpt", ".joblib", ".dill")
_WEIGHTS_ENDINGS = (".safetensors", ".st")
_PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".gif", ".webp")
# Their strings are words of a language, some of which look like beginnings of paths.
_VOCABULARIES = ("vocab.json", "merges.txt", "tokenizer.json")
# Texts of ours have some MiB at most; what is larger is read as far as this.
_MOST_TEXT = 64 * 2**20
_CHUNK = 2**22
# With these instructions begin pickles that call something, apart from those of the usual protocols.
_FIRST_OF_PICKLES = b"\x80c(}]"
_SKIPPED_FOLDERS = (".git", ".cache", "__pycache__")

_TOKENS = {
    "token of the Hub": r"\b(?:hf|api_org)_[A-Za-z0-9]{30,}",
    "token of GitHub": r"\bgh[pousr]_[A-Za-z0-9]{36,}|\bgithub_pat_[A-Za-z0-9_]{50,}",
    "token of GitLab": r"\bglpat-[\w-]{20,}",
    "key of AWS": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "key of Google": r"\bAIza[\w-]{35}\b",
    "key of a service": r"\bsk-[A-Za-z0-9_-]{32,}|\bsk_(?:live|test)_[A-Za-z0-9]{16,}",
    "token of Slack": r"\bxox[abeoprs]-[\w-]{10,}",
    "token of a package index": r"\bpypi-AgE[\w-]{20,}|\bnpm_[A-Za-z0-9]{36}\b",
    "token of a session": r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}|\bBearer (?=[\w.-]*\d)[\w.-]{20,}",
    "key of Weights & Biases": r"\b(?i:wandb)(?:\.ai)?[\"']?\s*[:=]\s*[\"']?[0-9a-f]{40}\b",
    "private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
    "password": r"\bmachine\s+\S+\s+login\s+\S+\s+password\s+\S+|\bhttps?://[^\s/:@\"']+:[^\s/:@\"']+@",
    "key or password": (
        r"(?i:api_?key|access_?token|auth_?token|secret(?:_?(?:access_?)?key)?|password|hf_token)[\"']?\s*[:=]\s*"
        r"[\"']?(?=[\w+/-]*\d)[\w+/-]{20,}"
    ),
}
_ROOTS = (
    "home|Users|root|mnt|media|scratch|data\\d*|work|workspace|tmp|var|private|srv|opt|nfs\\w*|gpfs\\w*|lustre\\w*|"
    "export|storage|Volumes|projects?|cluster|content|kaggle|home\\d+|ceph\\w*|beegfs\\w*|ssd\\d*|dev/shm|run/user|"
    "usr/local"
)
_PATHS = re.compile(
    rf"(?<![\w.~/<+#])/(?:{_ROOTS})/[^\s\"'<>`)\]|,;]+"
    # Relative to a folder that is nowhere else, it says as much.
    rf"|(?<![\w.])(?:\.\./){{2,}}(?:{_ROOTS})/[^\s\"'<>`)\]|,;]+"
    r"|(?<![\w/])~(?:[a-z_][\w-]*)?/[A-Za-z._][^\s\"'<>`)\]]*"
    r"|(?<![A-Za-z0-9])[A-Za-z]:(?:\\{1,2}|/(?!/))[\w. -]+[\\/][^\s\"'<>`]*"
    r"|\bfile:/{1,3}[^\s\"'<>`]+"
    # A value that is a path and nothing else, wherever it begins.
    r"|(?<=: )[\"']?/[\w.+-]+(?:/[\w.+-]+)+[\"']?$",
    re.MULTILINE,
)


def check_upload(folder: str | os.PathLike, files: Sequence[str], additions: Mapping[str, bytes] | None = None) -> None:
    """Refuses what may not be published, before anything is sent.

    Args:
        folder: Where the files are.
        files: Their names, relative to it.
        additions: Name ▶ content of what goes up in a file's place, or besides.

    Raises:
        FmriModelsError: Names the first file with weights that are not finite, a pickle, a token or a path of this
            machine, and what to do; or one that is a link out of the folder.
    """
    folder, additions = Path(folder), dict(additions or {})
    with system_errors_as_sentences(folder):
        for name in files:
            if name in additions:
                continue
            file = folder / name
            _check_is_inside(file, folder, name)
            check_no_pickle(file, name)
            if name.lower().endswith(_WEIGHTS_ENDINGS):
                _check_weights(file, name)
            _check_texts(_texts(file, name), name, folder)
    for name, content in additions.items():
        _check_texts(_texts_of_addition(content, name), name, folder)


def check_folder(folder: str | os.PathLike, but: Collection[str] = ()) -> None:
    """Refuses a folder that holds a pickle, a token or a path anywhere, be it in a file that would not go up.

    Args:
        folder: The folder.
        but: Names of files in whose place something else goes up.

    Raises:
        FmriModelsError: Names the file.
    """
    folder = Path(folder)
    with system_errors_as_sentences(folder):
        for file in _all_files(folder):
            name = file.relative_to(folder).as_posix()
            check_no_pickle(file, name)
            if name not in but and not name.lower().endswith(_WEIGHTS_ENDINGS):
                _check_texts(_texts(file, name), name, folder)


def check_wheel(wheel: Path) -> None:
    """Refuses a wheel in which a pickle or a token lies; its code may well speak of paths.

    Raises:
        FmriModelsError: Names the file in the wheel.
    """
    with system_errors_as_sentences(wheel), tempfile.TemporaryDirectory() as scratch:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(scratch)
        for file in _all_files(Path(scratch)):
            name = file.relative_to(scratch).as_posix()
            check_no_pickle(file, name)
            if not name.lower().endswith(_WEIGHTS_ENDINGS):
                _check_texts(_texts(file, name), name)


def check_no_pickle(file: Path, name: str) -> None:
    """Refuses a file that Python would unpickle, whatever its name.

    Raises:
        FmriModelsError: It is one.
    """
    if name.lower().endswith(_PICKLED_ENDINGS) or _is_pickled(file):
        raise FmriModelsError(
            f"{one_line(name, 200)} is a pickle, which can run code where it is loaded, and does not go to the Hub; "
            "remove it from the folder (weights are saved as safetensors by save_pretrained)."
        )


def _all_files(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(each for each in folders if each not in _SKIPPED_FOLDERS)
        yield from (Path(place) / name for name in sorted(names) if (Path(place) / name).is_file())


def _check_is_inside(file: Path, folder: Path, name: str) -> None:
    if not file.is_file():
        raise FmriModelsError(f"{one_line(file)} is no file and can't be uploaded; save or copy the folder again.")
    target, here = file.resolve(), folder.resolve()
    # A repository in the Hub's cache keeps contents beside its snapshots, whose files are links to them.
    is_cached = target.parent.name == "blobs" and target.parents[1] in here.parents
    if not is_cached and not target.is_relative_to(here):
        raise FmriModelsError(
            f"{one_line(name, 200)} is a link to a file outside of {one_line(folder)}; put a copy in its place, or "
            "remove it."
        )


def _is_pickled(file: Path) -> bool:
    with file.open("rb") as opened:
        start = opened.read(128)
    if start.startswith(b"\x93NUMPY"):
        return _has_objects(file)
    if start.startswith(b"PK\x03\x04"):
        return _is_pickled_archive(file)
    if len(start) > 2 and start[0] == 0x80 and 2 <= start[1] <= 5 and start[2] in b"\x95}]c(\x8a\x8c":
        return True
    return start[:1] != b"" and start[0] in _FIRST_OF_PICKLES and _runs_code(file)


def _runs_code(file: Path) -> bool:
    """Whether a file is a pickle from end to end that names something to call, as those of protocols 0 and 1 do."""
    if file.stat().st_size > _MOST_TEXT:
        return False
    data = file.read_bytes()
    # What numpy writes behind the last instruction, nobody reads; a text that begins so ends otherwise.
    if not data.endswith(b"."):
        return False
    names = False
    try:
        for instruction, _argument, position in pickletools.genops(data):
            names |= instruction.name in ("GLOBAL", "INST", "STACK_GLOBAL") or data[0] == 0x80
            if instruction.name == "STOP":
                return names and position == len(data) - 1
    except (ValueError, UnicodeDecodeError):
        pass
    return False


def _has_objects(file: Path) -> bool:
    with file.open("rb") as opened:
        return _array_has_objects(opened)


def _array_has_objects(opened: Any) -> bool:
    try:
        version = np.lib.format.read_magic(opened)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        return bool(read(opened)[2].hasobject)
    except (ValueError, EOFError):
        return False


def _is_pickled_archive(file: Path) -> bool:
    """Whether a zip file is one of PyTorch, or of arrays with objects."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            if any(PurePosixPath(each).suffix in (".pkl", ".pickle") for each in names):
                return True
            arrays = [each for each in names if each.endswith(".npy")]
            return any(_array_has_objects(BytesIO(archive.open(each).read(2**16))) for each in arrays)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError):
        return False


def _check_weights(file: Path, name: str) -> None:
    try:
        with safe_open(file, "pt") as opened:
            for key in opened.keys():  # noqa: SIM118
                _check_finite(opened, key, name)
    except SafetensorError as error:
        raise FmriModelsError(
            f"{one_line(name, 200)} can't be read as safetensors ({one_line(error, 120)}); save the model again."
        ) from error


def _check_finite(opened: Any, key: str, name: str) -> None:
    # Whoever asks for a repository alone does without it.
    import torch

    values = opened.get_slice(key)
    shape = values.get_shape()
    # Cut along the longest axis: the first one may be of one alone.
    axis = max(range(len(shape)), key=shape.__getitem__, default=0)
    others = int(np.prod(shape, dtype=np.int64)) // max(1, shape[axis]) if shape else 1
    length = max(1, _CHUNK // max(1, others))
    for start in range(0, shape[axis] if shape else 1, length):
        cut = (*[slice(None)] * axis, slice(start, start + length))
        chunk = values[cut] if shape else opened.get_tensor(key)
        if not (chunk.is_floating_point() or chunk.is_complex()) or chunk.numel() == 0:
            return
        # Types of 8 bits know no extremes.
        chunk = chunk.float() if chunk.element_size() == 1 else chunk
        bad = int((~torch.isfinite(chunk)).sum())
        if bad:
            raise FmriModelsError(
                f"{one_line(name, 200)} has {bad} values that are NaN or infinite in {one_line(key, 120)}, which are "
                "of no use to anybody: train again, or from the last good checkpoint."
            )


def _texts(file: Path, name: str) -> Iterator[tuple[str, str]]:
    """What a file says: (where, text), the whole text or what stands in its header."""
    lower = name.lower()
    if lower.endswith(_WEIGHTS_ENDINGS):
        yield from _of_mapping("metadata", _weights_metadata(file))
    elif lower.endswith(".parquet"):
        yield from _of_mapping("metadata", _parquet_metadata(file))
    elif lower.endswith(_PICTURE_ENDINGS):
        yield from _of_mapping("metadata", _picture_metadata(file))
    else:
        with file.open("rb") as opened:
            data = opened.read(_MOST_TEXT)
        yield from _of_text(data, lower)


def _texts_of_addition(content: bytes, name: str) -> Iterator[tuple[str, str]]:
    if name.lower().endswith(".parquet"):
        return _of_mapping("metadata", _parquet_metadata(BytesIO(content)))
    return _of_text(content, name)


def _of_text(data: bytes, name: str) -> Iterator[tuple[str, str]]:
    """What a text says, or a JSON text, value by value."""
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
    text = data.decode(encoding, "replace")
    if name.endswith((".json", ".ipynb")) and (values := _parsed(text)) is not None:
        yield from _of_json(values)
    else:
        yield "", text


def _parsed(text: str) -> Any:
    """What a JSON file says, with all values of keys that stand there twice; None where it is none."""
    try:
        return json.loads(text, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError):
        return None


class _Pairs(tuple[tuple[str, Any], ...]):
    """The keys and values of an object."""


def _of_json(values: Any) -> Iterator[tuple[str, str]]:
    """What a JSON file says, as it is read: escapes hide nothing, and a line's end is no path of Windows."""
    texts = list(_strings(values, ""))
    together = "\n".join(text for _, text in texts)
    # At once first: there may be many.
    if _machine_path(together, None) is not None or any(re.search(each, together) for each in _TOKENS.values()):
        yield from ((f" ({one_line(key, 120)})", text) for key, text in texts)
    else:
        yield "", together


def _strings(values: Any, key: str) -> Iterator[tuple[str, str]]:
    """Each text with the key that it stands under; keys themselves, too."""
    if isinstance(values, str):
        yield key, f"{key.rpartition('.')[2]}: {values}"
    elif isinstance(values, _Pairs):
        for name, value in values:
            within = f"{key}.{name}" if key else name
            yield within, name
            yield from _strings(value, within)
    elif isinstance(values, list):
        for value in values:
            yield from _strings(value, key)


def _of_mapping(where: str, values: Mapping[Any, Any]) -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        yield f" ({where} {one_line(_text(key), 60)})", f"{_text(key)}\n{_text(value)}"


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _weights_metadata(file: Path) -> Mapping[str, str]:
    try:
        with safe_open(file, "pt") as opened:
            return opened.metadata() or {}
    except SafetensorError:
        return {}


def _parquet_metadata(file: Path | BytesIO) -> Mapping[bytes, bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_schema(file).metadata or {}
    except (pa.ArrowException, OSError, ValueError):
        return {}


def _picture_metadata(file: Path) -> Mapping[str, Any]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as picture:
            # Texts of a PNG may stand behind its pixels.
            picture.load()
            exif = {str(tag): value for tag, value in picture.getexif().items()}
            said = {str(key): value for key, value in picture.info.items() if isinstance(value, str | bytes)}
            return {**said, **exif}
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return {}


def _check_texts(texts: Iterable[tuple[str, str]], name: str, folder: Path | None = None) -> None:
    """Refuses texts with a token or a path of this machine; without the folder that they are of, with a token alone."""
    looks_for_paths = folder is not None and PurePosixPath(name).name not in _VOCABULARIES
    for where, text in texts:
        for what, pattern in _TOKENS.items():
            if found := re.search(pattern, text):
                raise FmriModelsError(
                    f"{one_line(name, 200)}{where or _line(text, found.start())} has what looks like a {what} "
                    f"({one_line(found[0], 60)[:8]}…), and the Hub would show it; remove it there, and revoke it if it "
                    "was seen by others."
                )
        if looks_for_paths and (path := _machine_path(text, folder)) is not None:
            raise FmriModelsError(
                f"{one_line(name, 200)}{where or _line(text, text.find(path))} has the path {one_line(path, 120)} of a "
                "machine, which tells others of yours and exists on no other; replace it by a name, or remove it."
            )


def _machine_path(text: str, folder: Path | None) -> str | None:
    if found := _PATHS.search(text):
        return found[0].strip("\"'")
    here = [Path.home(), Path.cwd(), Path(tempfile.gettempdir())]
    here += [] if folder is None else [folder.absolute().parent]
    # A root with one name alone is in many a sentence.
    known = (str(path) for path in here if len(path.parts) > 2)
    return next((path for path in known if path in text), None)


def _line(text: str, position: int) -> str:
    return f", line {text.count(chr(10), 0, position) + 1},"
