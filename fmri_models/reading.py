"""The door of every file that a user gives: a regular file of a bounded size, whose content fits a schema.

Each function ends in what was asked for or in one sentence, whatever the file holds: a FIFO, a bomb, another format,
numbers that are none, nesting that no parser survives.
"""

import json
import math
import os
import re
import stat
import tokenize
from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, NotRequired, TypeVar, cast, get_type_hints

from .errors import FmriModelsError, system_sentence
from .names import one_line

if TYPE_CHECKING:
    import numpy as np
    from pydantic import TypeAdapter

T = TypeVar("T")


class Written(str):
    """A scalar of a YAML text as it was written, for whoever knows what it is meant to be.

    Args:
        text: The text, without quotes.
        quoted: Whether it stood in quotes, so that no word in it means nothing or true.
    """

    quoted: bool

    def __new__(cls, text: str, quoted: bool = False) -> "Written":
        written = super().__new__(cls, text)
        written.quoted = quoted
        return written


MEBIBYTE = 2**20
# Ample for everything that is written here as text: configurations, records, reports, recipes.
MAX_TEXT_BYTES = 64 * MEBIBYTE
# JSON takes up to 25 times its size in memory, and a YAML text of this size half a second.
MAX_JSON_BYTES = 16 * MEBIBYTE
MAX_YAML_BYTES = MEBIBYTE // 8
MAX_NESTING = 100
# What lies in the place of a file that was not downloaded, by how it begins.
_STAND_INS = {
    b"version https://git-lfs": "a pointer of Git LFS and not the file itself; get that with `git lfs pull`",
    b"<!doctype html": "a web page and not the file that it is about; download that (behind a login, with your token)",
    b"<html": "a web page and not the file that it is about; download that (behind a login, with your token)",
    b"<?xml": "an XML text, as servers answer where a file is missing or closed, and not the file; download it again",
    b"<error>": "an error message of a server and not the file; download it again",
}
_A_SERVERS_JSON = (
    "a JSON text, as servers answer where a file is missing or closed, and not the file; download it again"
)
BYTES_OF_A_STAND_IN = 256
# Formats that never begin with a bracket and a quote.
_BINARY_ENDINGS = frozenset(
    {
        ".bin", ".bmp", ".ckpt", ".gif", ".gz", ".h5", ".hdf5", ".jpeg", ".jpg", ".mat", ".nii", ".npy", ".npz",
        ".parquet", ".png", ".pt", ".pth", ".safetensors", ".tif", ".tiff", ".webp", ".zip",
    }
)  # fmt: skip
# A report's own page is one, and GIFTI is XML.
_PAGES = frozenset({".gii", ".htm", ".html"})
# How pydantic says that there is too little or too much of something.
_LENGTH = re.compile(r"^(?:\w+) should have (at (?:least|most) \d+ \w+)(?: after validation)?(?:, not \w+)?")
# Values of a document when all of its references are written out.
MAX_YAML_VALUES = 200_000


def check_regular_file(path: str | os.PathLike, what: str, mend: str) -> Path:
    """Refuses what is no file: nothing there, a folder, a FIFO or device that would never end, what lies in its place.

    Args:
        path: The file.
        what: What it is, for the message, such as `"recipe"`.
        mend: What to do about it, as the end of a sentence.

    Raises:
        FmriModelsError: It is no regular file, the system refuses to look at it, or it is a pointer of Git LFS, a web
            page or a server's message instead of the file.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise FmriModelsError(f"There is no {what} {one_line(path)}; {mend}.") from error
    except (OSError, ValueError) as error:
        raise FmriModelsError(_unreadable(error, path)) from error
    if not stat.S_ISREG(mode):
        found = "a folder" if stat.S_ISDIR(mode) else "no regular file (a pipe, a device or a socket)"
        raise FmriModelsError(f"The {what} {one_line(path)} is {found}; {mend}.")
    ending = path.suffix.lower()
    if ending not in _PAGES and (instead := stand_in(_beginning(path), ending in _BINARY_ENDINGS)):
        raise FmriModelsError(f"The {what} {one_line(path)} is {instead}.")
    return path


def stand_in(beginning: bytes, is_binary: bool = True) -> str | None:
    """What lies in the place of a file that was not downloaded, and what to do about it, as the end of a sentence.

    Args:
        beginning: The first bytes of the file.
        is_binary: Whether the file should be none of text, so that a JSON text is not the file either.

    Returns:
        None where it may be the file itself.
    """
    start = beginning[:BYTES_OF_A_STAND_IN].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    found = next((what for begins, what in _STAND_INS.items() if start.startswith(begins)), None)
    if found is None and is_binary and re.match(rb"[\[{][\s\[{]*[\"}\]]", start) and start.isascii():
        found = _A_SERVERS_JSON
    return found


def read_bytes(path: str | os.PathLike, what: str, mend: str, limit: int = MAX_TEXT_BYTES) -> bytes:
    """The bytes of a regular file that is not larger than it may be.

    Raises:
        FmriModelsError: It is no regular file, is larger than `limit` bytes, or can't be read.
    """
    path = check_regular_file(path, what, mend)
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise FmriModelsError(_unreadable(error, path)) from error
    if len(data) > limit:
        raise FmriModelsError(
            f"The {what} {one_line(path)} has {path.stat().st_size} bytes; expected {limit} at most; {mend}."
        )
    return data


def read_text(path: str | os.PathLike, what: str, mend: str, limit: int = MAX_TEXT_BYTES) -> str:
    """The text of a regular UTF-8 file; the arguments are those of [`read_bytes`].

    Raises:
        FmriModelsError: It is no regular file, is too large, or is no UTF-8.
    """
    data = read_bytes(path, what, mend, limit)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FmriModelsError(
            f"The {what} {one_line(path)} is no text in UTF-8 (byte {error.start} is {data[error.start]:#04x}); {mend}."
        ) from error


def read_json(
    path: str | os.PathLike, what: str, mend: str, limit: int = MAX_JSON_BYTES, infinite: bool = False
) -> Any:
    """What a JSON file holds; the arguments are those of [`read_bytes`] and [`parse_json`].

    Raises:
        FmriModelsError: It is no regular file, is too large, no JSON, nested deeper than anything that is written here,
            or holds NaN or broken characters.
    """
    return parse_json(read_text(path, what, mend, limit), f"The {what} {one_line(path)}", mend, infinite)


def parse_json(text: str, what: str, mend: str, infinite: bool = False) -> Any:
    """What a JSON text holds.

    Args:
        text: The text.
        what: What it is, as the beginning of a sentence.
        mend: What to do about it, as the end of one.
        infinite: Whether it may hold `Infinity`, as configurations of diffusers' schedulers do.

    Raises:
        FmriModelsError: It is no JSON, is nested too deep, has a key twice, or holds NaN or broken characters.
    """
    if len(text) > MAX_JSON_BYTES:
        raise FmriModelsError(f"{what} has {len(text)} characters; expected {MAX_JSON_BYTES} at most; {mend}.")
    try:
        constant = _infinity if infinite else _refuse_constant
        values = json.loads(text, parse_constant=constant, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deep" if isinstance(error, RecursionError) else one_line(error, 200)
        raise FmriModelsError(f"{what} is no readable JSON ({reason}); {mend}.") from error
    _check_tree(values, what, mend, infinite)
    return values


def read_object(
    path: str | os.PathLike, what: str, mend: str, limit: int = MAX_JSON_BYTES, infinite: bool = False
) -> dict[str, Any]:
    """The JSON object in a file; the arguments are those of [`read_bytes`] and [`parse_json`].

    Raises:
        FmriModelsError: As [`read_json`], or it holds something else than an object.
    """
    values = read_json(path, what, mend, limit, infinite)
    if not isinstance(values, dict):
        raise FmriModelsError(f"The {what} {one_line(path)} holds no JSON object; {mend}.")
    return values


def checked(values: Any, declared: type[T], what: str, mend: str) -> T:
    """Values as a type says that they are, without any conversion: a `true` is no number, a text is no list.

    Args:
        values: What was read.
        declared: A `TypedDict`, pydantic model or annotated type; or a dataclass, whose fields a mapping has to fit.
        what: What the values are, as the beginning of a sentence.
        mend: What to do about it, as the end of one.

    Raises:
        FmriModelsError: Names the first place that does not fit, what is there and what was expected.
    """
    from pydantic import ValidationError

    try:
        found = _adapter(cast(Hashable, declared)).validate_python(values, strict=True)
        return declared(**cast(dict[str, Any], found)) if is_dataclass(declared) else found
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        raise FmriModelsError(f"{what} {_misfit(first)}; {mend}.") from error
    except RecursionError as error:
        raise FmriModelsError(f"{what} is nested too deep; {mend}.") from error


def parse_yaml(text: str, what: str, mend: str = "correct it", as_written: bool = False) -> Any:
    """What a YAML text holds, of plain values alone, in bounded time and memory.

    Args:
        text: The text.
        what: What it is, as the beginning of a sentence.
        mend: What to do about it, as the end of one.
        as_written: Keep every scalar as [`Written`] text instead of guessing what it is; see
            [`typed`].

    Raises:
        FmriModelsError: It is no YAML, is nested too deep, has a key twice, refers to itself, or grows beyond
            `MAX_YAML_VALUES` values when its references are written out.
    """
    import yaml

    if len(text) > MAX_YAML_BYTES:
        raise FmriModelsError(f"{what} has {len(text)} characters; expected {MAX_YAML_BYTES} at most; {mend}.")
    try:
        loader = (_written_loader() if as_written else _yaml_loader())(text)
    except yaml.YAMLError as error:
        raise FmriModelsError(f"{what} is no valid YAML ({_joined(error)}); {mend}.") from error
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _check_yaml_size(node, what, mend)
        values = loader.construct_document(node)
    except FmriModelsError:
        raise
    except RecursionError as error:
        raise FmriModelsError(f"{what} is nested too deep; {mend}.") from error
    # Constructors of values (dates, binary data, numbers) raise whatever their parsers do.
    except Exception as error:
        raise FmriModelsError(f"{what} is no valid YAML ({_joined(error)}); {mend}.") from error
    finally:
        loader.dispose()
    _check_tree(values, what, mend)
    return values


def read_array(path: str | os.PathLike, what: str, mend: str, memory_map: bool = False) -> "np.ndarray":
    """The numbers of a `.npy` file: a plain array whose size is the file's.

    Args:
        path: The file.
        what: What it is, for the message, such as `"betas"`.
        mend: What to do about it, as the end of a sentence.
        memory_map: Read nothing yet, for arrays that may be larger than memory; they keep byte order and type of the
            file. Otherwise long doubles become float64, and bfloat16 (`V2` in `.npy` files) float32.

    Raises:
        FmriModelsError: It is no `.npy` file of whole or floating-point numbers, is cut short, or does not fit into
            memory.
    """
    import numpy as np
    from numpy.lib import format as npy

    from .in_memory import as_numbers, is_bfloat16

    path = check_regular_file(path, what, mend)
    start = f"The {what} {one_line(path)}"
    try:
        with path.open("rb") as file:
            magic = file.read(len(npy.MAGIC_PREFIX))
            if magic != npy.MAGIC_PREFIX:
                raise FmriModelsError(f"{start} is no .npy file{_other_format(magic)}; {mend}.")
            file.seek(0)
            read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(
                npy.read_magic(file)
            )
            if read_header is None:
                raise FmriModelsError(f"{start} is of a version of .npy that is not read here; {mend}.")
            shape, _, dtype = read_header(file)
            offset = file.tell()
    except FmriModelsError:
        raise
    except OSError as error:
        raise FmriModelsError(_unreadable(error, path)) from error
    # A header is a Python literal, whose parser raises whatever it likes on others.
    except (
        ValueError,
        TypeError,
        SyntaxError,
        OverflowError,
        RecursionError,
        MemoryError,
        tokenize.TokenError,
    ) as error:
        raise FmriModelsError(f"{start} has a header that can't be read ({one_line(error, 120)}); {mend}.") from error
    # Of the floating types wider than float64, NumPy reads that of this machine.
    widest = np.dtype(np.longdouble).itemsize if dtype.kind == "f" else 8
    is_number = (dtype.kind in "fiu" and dtype.itemsize <= widest) or is_bfloat16(dtype)
    if not is_number or dtype.hasobject:
        raise FmriModelsError(f"{start} holds {one_line(dtype, 60)}; expected whole or floating-point numbers; {mend}.")
    if any(isinstance(length, bool) or length < 0 for length in shape):
        raise FmriModelsError(f"{start} has the shape {one_line(shape, 60)}, which no array has; {mend}.")
    expected = math.prod(shape) * dtype.itemsize
    found = path.stat().st_size - offset
    if found != expected:
        raise FmriModelsError(
            f"{start} has {found} bytes of values; expected {one_line(expected, 40)} for its shape "
            f"{one_line(shape, 60)} of {dtype}: it is cut short or changed; {mend}."
        )
    try:
        if memory_map and expected:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        return as_numbers(np.load(path, allow_pickle=False), start)
    except MemoryError as error:
        raise FmriModelsError(f"{start} needs {expected / 2**30:.1f} GiB of memory; {mend}.") from error
    except (OSError, ValueError, EOFError, OverflowError) as error:
        raise FmriModelsError(f"{start} can't be read ({one_line(error, 120)}); {mend}.") from error


@cache
def _yaml_loader() -> Any:
    """YAML's loader of plain values, which takes `1e-4` for a number as YAML 1.2 does; version 1.1 wants `1.0e-4`."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    exponents = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+\Z")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", exponents, list("-+.0123456789"))
    return Loader


@cache
def _written_loader() -> Any:
    """YAML's loader of plain values, to which every scalar is a text unless a tag says otherwise."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    # `<<`, which takes the keys of another mapping, is all that is left of what plain scalars can mean.
    Loader.yaml_implicit_resolvers = {"<": yaml.SafeLoader.yaml_implicit_resolvers["<"]}

    def construct(loader: Any, node: Any) -> Written:
        return Written(loader.construct_scalar(node), quoted=node.style is not None)

    Loader.add_constructor("tag:yaml.org,2002:str", construct)
    return Loader


@cache
def _adapter(declared: Any) -> "TypeAdapter[Any]":
    from pydantic import ConfigDict, TypeAdapter, with_config
    from typing_extensions import TypedDict

    if not is_dataclass(declared):
        return TypeAdapter(declared)
    # In strict mode a dataclass takes its own instances alone, and a mapping is what files hold.
    hints = get_type_hints(declared, include_extras=True)
    needed = {f.name for f in fields(declared) if f.default is MISSING and f.default_factory is MISSING}
    keys = {
        f.name: hints[f.name] if f.name in needed else NotRequired[hints[f.name]] for f in fields(declared) if f.init
    }
    make: Any = TypedDict
    return TypeAdapter(with_config(ConfigDict(extra="forbid"))(make("Fields", keys)))


def _misfit(error: Any) -> str:
    place = ".".join(one_line(part, 60) for part in error["loc"])
    found = one_line(repr(error["input"]), 80)
    message = str(error["msg"])
    if error["type"] == "missing":
        return f"has no {place!r}" if place else "is incomplete"
    if error["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"has {place!r}, which is not known there"
    message = _LENGTH.sub(r"\1", message)
    expected = message.removeprefix("Value error, ").removeprefix("Input should be ").removeprefix("a valid ")
    expected = expected.partition(" or instance of ")[0]
    where = f"has {found} as {place!r}" if place else f"is {found}"
    return f"{where}; expected {one_line(expected, 200)}"


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _infinity(name: str) -> float:
    return float(name) if name != "NaN" else _refuse_constant(name)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; of two values with one key, others may read the first where Python takes the last."""
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError(f"it has the key {_repeated(key for key, _ in pairs)} twice in an object")
    return values


def _repeated(keys: Iterable[str]) -> str:
    """The first key that is there twice, for a message."""
    counts = Counter(keys)
    return one_line(repr(next(key for key, count in counts.items() if count > 1)), 80)


def _check_tree(values: Any, what: str, mend: str, infinite: bool = True) -> None:
    """Refuses nesting that later code would not survive, text that is no UTF-8, and numbers such as 1e999."""
    level: Iterable[Any] = [values]
    for _ in range(MAX_NESTING):
        below: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                below += value.keys()
                below += value.values()
            elif isinstance(value, list):
                below += value
            elif isinstance(value, str) and not _is_encodable(value):
                raise FmriModelsError(f"{what} has broken characters in {one_line(value, 80)!r}; {mend}.")
            elif not infinite and isinstance(value, float) and not math.isfinite(value):
                raise FmriModelsError(f"{what} has a number that is too large to be one; {mend}.")
        if not below:
            return
        level = below
    raise FmriModelsError(f"{what} is nested deeper than {MAX_NESTING} levels; {mend}.")


def _is_encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _check_yaml_size(node: Any, what: str, mend: str) -> None:
    """Refuses a document whose references lead back to themselves or multiply."""
    import yaml

    sizes: dict[int, int | None] = {}

    def size(node: Any) -> int:
        key = id(node)
        if key in sizes:
            known = sizes[key]
            if known is None:
                raise FmriModelsError(f"{what} has a reference that leads back to itself; {mend}.")
            return known
        sizes[key] = None
        if isinstance(node, yaml.MappingNode):
            keys = [pair[0].value for pair in node.value if isinstance(pair[0], yaml.ScalarNode)]
            if len(set(keys)) != len(keys):
                raise FmriModelsError(f"{what} has the key {_repeated(keys)} twice in a mapping; {mend}.")
            total = 1 + sum(size(part) for pair in node.value for part in pair)
        elif isinstance(node, yaml.SequenceNode):
            total = 1 + sum(size(part) for part in node.value)
        else:
            total = 1
        if total > MAX_YAML_VALUES:
            raise FmriModelsError(f"{what} has references that grow beyond {MAX_YAML_VALUES} values; {mend}.")
        sizes[key] = total
        return total

    size(node)


def _joined(error: Exception) -> str:
    """A parser's message of several lines."""
    return one_line(" ".join(str(error).split()))


def _other_format(magic: bytes) -> str:
    if magic.startswith(b"PK"):
        return " but a zip archive (.npz): save one array alone with numpy.save"
    if magic[:1] == b"\x80":
        return " but a pickle, which could run code and is not read: save the array with numpy.save"
    return ""


def _beginning(path: Path) -> bytes:
    """The first bytes; none where they can't be read, which whoever reads the file finds out and says."""
    try:
        with path.open("rb") as file:
            return file.read(BYTES_OF_A_STAND_IN)
    except OSError:
        return b""


def _unreadable(error: OSError | ValueError, path: Path) -> str:
    if isinstance(error, OSError):
        return system_sentence(error, path)
    return f"The path {one_line(path)} can't be looked up ({one_line(error, 120)}); check it."
