"""Arrays, numbers and texts of pickled files, read without unpickling: nothing a file names is imported or called.

A pickle is a program for a stack machine, which may call whatever it names. Here its instructions are walked by a
machine of our own, that knows only those with which Python and NumPy write dictionaries, lists, numbers, texts and
arrays (Python's `pickletools` documents each; NumPy writes an array as `_reconstruct` and a state of shape, type and
bytes). Every other instruction and every other name ends the reading. Arrays are views of the mapped file.
"""

import math
import mmap
import pickletools
import re
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal, cast

import numpy as np
from numpy.lib import format as npy

from ...errors import FmriModelsError
from ...names import listed, one_line

_MOST_INSTRUCTIONS = 2_000_000
# As NumPy has it.
_MOST_AXES = 64
_INSTRUCTIONS = {each.code: each for each in pickletools.opcodes}
# Of these an argument of bytes is not copied out of the file: (size of the length before it, its format).
_BYTES = {"SHORT_BINBYTES": (1, "<B"), "BINBYTES": (4, "<I"), "BINBYTES8": (8, "<Q"), "BYTEARRAY8": (8, "<Q")}
_TYPE = re.compile(r"([biuf][1248]|c8|c16|[SU][1-9][0-9]{0,5})")
_OBJECTS = re.compile(r"O[48]?")
_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMERIC = ("numpy.core.numeric", "numpy._core.numeric")
_RECONSTRUCT = {(module, "_reconstruct") for module in _MULTIARRAY}
_SCALAR = {(module, "scalar") for module in _MULTIARRAY}
_FROM_BUFFER = {(module, "_frombuffer") for module in _NUMERIC}
_NDARRAY, _DTYPE, _ENCODE = ("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")
# How protocol 2 writes no bytes at all.
_NO_BYTES = ("__builtin__", "bytes")
_NAMES = {*_RECONSTRUCT, *_SCALAR, *_FROM_BUFFER, _NDARRAY, _DTYPE, _ENCODE, _NO_BYTES}


class _RefusedError(Exception):
    """Why a pickle is not read."""


@dataclass(frozen=True)
class _Name:
    module: str
    name: str

    @property
    def pair(self) -> tuple[str, str]:
        return self.module, self.name


@dataclass
class _Type:
    code: str
    order: Literal["<", ">", "=", "|"] = "="

    def dtype(self) -> np.dtype:
        return np.dtype(self.code).newbyteorder("=" if self.order == "|" else self.order)


@dataclass
class _Array:
    """An array that the file has announced; its value comes with a later instruction."""

    value: Any = None


@dataclass
class _Record:
    """What stands for an object of a class that is named and never imported: its attributes."""

    name: _Name
    fields: dict = field(default_factory=dict)


class PickledArrays:
    """A dictionary, or the attributes of one object, in a file that Python or `numpy.save` has pickled.

    Args:
        path: The file: a pickle of protocol 2 to 5, or a `.npy` file of one pickled object.
        mend: What to do about another file, as the end of a sentence.
        record: Module and name of the class whose attributes are read; None for a dictionary. It is compared and not
            imported.

    Raises:
        FmriModelsError: It is none, is cut short, or does anything else than build such values.
    """

    def __init__(self, path: Path, mend: str, record: tuple[str, str] | None = None) -> None:
        self.path, self._mend = path, mend
        try:
            with path.open("rb") as file:
                start = _after_header(file)
                data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            found = _Machine(data, start, record).run()
        except _RefusedError as error:
            raise self._another(str(error)) from error
        except OSError as error:
            raise self._another(f"it can't be read: {one_line(error.strerror or error, 80)}") from error
        # Instructions of a damaged file find too few values, or others than they ask for.
        except Exception as error:
            raise self._another(f"it is damaged: {type(error).__name__}, {one_line(error, 80)}") from error
        values = found.fields if isinstance(found, _Record) else found
        if not isinstance(values, dict):
            raise self._another(f"it holds {type(values).__name__.lstrip('_').lower()} and no dictionary")
        self._values = {
            name: value.value if isinstance(value, _Array) else value
            for name, value in values.items()
            if isinstance(name, str)
        }
        arrays = {name: value for name, value in self._values.items() if isinstance(value, np.ndarray)}
        self.shapes: dict[str, tuple[int, ...]] = {
            name: value.shape for name, value in arrays.items() if value.dtype.kind in "fiub"
        }

    def __contains__(self, name: str) -> bool:
        return name in self.shapes

    def read(self, name: str) -> np.ndarray:
        """A whole array, not copied.

        Raises:
            FmriModelsError: It isn't there, or holds no numbers.
        """
        if name not in self:
            raise self._another(f"it has no array {one_line(name)}; it has {listed(self.shapes, 40) or 'none'}")
        return self._values[name]

    def rows(self, name: str) -> Iterator[np.ndarray]:
        """The rows of an array one after the other.

        Raises:
            FmriModelsError: It isn't there, or holds no numbers, or a single one.
        """
        values = self.read(name)
        if not values.ndim:
            raise self._another(f"its array {one_line(name)} is a single number and has no rows")
        yield from values

    def texts(self, name: str) -> list[str]:
        """A list, or an array, of texts.

        Raises:
            FmriModelsError: It isn't there, or is another.
        """
        values = self._values.get(name)
        if isinstance(values, np.ndarray) and values.dtype.kind == "U" and values.ndim == 1:
            values = self._decoded(name, values)
        if not isinstance(values, list | tuple) or not all(isinstance(value, str) for value in values):
            raise self._another(f"it has no texts {one_line(name)}; it has {listed(self._values, 40) or 'nothing'}")
        # Pickles may hold halves of characters, which no file and no terminal takes.
        if broken := next((value for value in values if not _is_encodable(value)), None):
            raise self._another(f"its texts {one_line(name)} have {one_line(repr(broken), 80)}, which is no Unicode")
        return list(values)

    def _decoded(self, name: str, values: np.ndarray) -> list[str]:
        # NumPy makes texts of any numbers, and Python then ends in an error of its own.
        numbers = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("="))).view(np.uint32)
        if numbers.size and int(numbers.max()) > sys.maxunicode:
            raise self._another(f"its texts {one_line(name)} have a character U+{int(numbers.max()):X}, which is none")
        return values.tolist()

    def _another(self, why: str) -> FmriModelsError:
        return FmriModelsError(f"{one_line(self.path)} is not as expected ({why}); {self._mend}.")


def _is_encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _after_header(file: Any) -> int:
    """Where the pickle begins: behind the header of a `.npy` file of objects, or at once."""
    if file.read(6) != b"\x93NUMPY":
        return 0
    file.seek(0)
    version = npy.read_magic(file)
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    if version not in readers:
        raise _RefusedError(f"it is a .npy file of version {version[0]}.{version[1]}; expected 1.0 or 2.0")
    _, _, dtype = readers[version](file)
    if not dtype.hasobject:
        raise _RefusedError(f"it is an array of {dtype} and holds no dictionary")
    return file.tell()


class _Machine:
    """Walks the instructions of one pickle.

    Args:
        data: The file.
        start: Where the pickle begins.
        record: The one class whose attributes may be given.
    """

    def __init__(self, data: mmap.mmap, start: int, record: tuple[str, str] | None) -> None:
        self._data, self._position, self._record = data, start, record
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._encoded = 0
        if data[start : start + 1] != b"\x80":
            raise _RefusedError("it is no pickle of protocol 2 or later")

    def run(self) -> Any:
        """What the pickle builds."""
        for _ in range(_MOST_INSTRUCTIONS):
            name, argument = self._next()
            if name == "STOP":
                found = self._stack.pop()
                return found.value if isinstance(found, _Array) else found
            step = _STEPS.get(name)
            if step is None:
                raise _RefusedError(f"it has the instruction {name}, which plain values need not")
            step(self, argument)
        raise _RefusedError(f"it has more than {_MOST_INSTRUCTIONS:,} instructions")

    def _next(self) -> tuple[str, Any]:
        """Name and argument of the next instruction."""
        code = self._data[self._position : self._position + 1].decode("latin-1")
        if code not in _INSTRUCTIONS:
            raise _RefusedError("it is cut short or damaged")
        opcode = _INSTRUCTIONS[code]
        self._position += 1
        if opcode.name in _BYTES:
            return opcode.name, self._view(*_BYTES[opcode.name])
        if opcode.arg is None:
            return opcode.name, None
        self._data.seek(self._position)
        argument = opcode.arg.reader(cast(IO[bytes], self._data))
        self._position = self._data.tell()
        return opcode.name, argument

    def _view(self, size: int, layout: str) -> memoryview:
        (length,) = struct.unpack_from(layout, self._data, self._position)
        begin = self._position + size
        if length > len(self._data) - begin:
            raise _RefusedError("it is cut short")
        self._position = begin + length
        return memoryview(self._data)[begin : begin + length]

    # What instructions do. Arguments are those of `pickletools`.

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def mark(self) -> None:
        self._marks.append(len(self._stack))

    def pop_to_mark(self) -> list[Any]:
        place = self._marks.pop()
        values = self._stack[place:]
        del self._stack[place:]
        return values

    def pop(self, count: int) -> list[Any]:
        if count > len(self._stack):
            raise _RefusedError("it is damaged: an instruction asks for more values than there are")
        values = self._stack[len(self._stack) - count :]
        del self._stack[len(self._stack) - count :]
        return values

    def extend(self, values: list[Any]) -> None:
        if not isinstance(self._stack[-1], list):
            raise _RefusedError("it is damaged: something else than a list grows")
        self._stack[-1].extend(values)

    def set_items(self, values: list[Any]) -> None:
        if not isinstance(self._stack[-1], dict):
            raise _RefusedError("it is damaged: something else than a dictionary grows")
        for key, value in zip(values[::2], values[1::2], strict=True):
            if not isinstance(key, str | int | float):
                raise _RefusedError(f"a dictionary has a key of the type {type(key).__name__}")
            self._stack[-1][key] = value

    def keep(self, place: int | None) -> None:
        self._memo[len(self._memo) if place is None else place] = self._stack[-1]

    def recall(self, place: int) -> None:
        self.push(self._memo[place])

    def name(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise _RefusedError("it is damaged: a name that is no text")
        if (module, name) not in _NAMES and (module, name) != self._record:
            raise _RefusedError(
                f"it names {one_line(f'{module}.{name}', 80)}, which is neither called nor imported here"
            )
        self.push(_Name(module, name))

    def name_from_stack(self) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self.name(module, name)

    def new_object(self) -> None:
        arguments, made = self._stack.pop(), self._stack.pop()
        if not isinstance(made, _Name) or made.pair != self._record or arguments != ():
            raise _RefusedError("it makes an object of another class than it should")
        self.push(_Record(made))

    def call(self) -> None:
        arguments, called = self._stack.pop(), self._stack.pop()
        if not isinstance(called, _Name) or not isinstance(arguments, tuple):
            raise _RefusedError("it calls what is no name")
        pair = called.pair
        if pair in _RECONSTRUCT and isinstance(arguments[0], _Name) and arguments[0].pair == _NDARRAY:
            self.push(_Array())
        elif pair in _SCALAR:
            kind, data = arguments
            self.push(_number(kind, data))
        elif pair in _FROM_BUFFER:
            self.push(_Array(_of_buffer(*arguments)))
        elif pair == _DTYPE:
            self.push(_Type(_code(arguments[0])))
        elif pair == _ENCODE and arguments[1] == "latin1" and isinstance(arguments[0], str):
            self.push(self._encode(arguments[0]))
        elif pair == _NO_BYTES and arguments == ():
            self.push(memoryview(b""))
        else:
            raise _RefusedError(f"it calls {one_line('.'.join(pair), 80)} otherwise than NumPy does")

    def _encode(self, text: str) -> memoryview:
        # Each text is written for one array; a file that names the same one again and again would fill the memory.
        self._encoded += len(text)
        if self._encoded > len(self._data):
            raise _RefusedError("it makes more bytes than it has")
        return memoryview(text.encode("latin-1"))

    def build(self) -> None:
        state, built = self._stack.pop(), self._stack[-1]
        if isinstance(built, _Array) and built.value is None and isinstance(state, tuple):
            _, shape, kind, by_column, data = state
            built.value = _array(shape, kind, by_column, data)
        elif isinstance(built, _Type) and isinstance(state, tuple):
            if state[1] not in ("<", ">", "|", "=") or any(part is not None for part in state[2:5]):
                raise _RefusedError("an array is of a type with fields")
            built.order = state[1]
        elif isinstance(built, _Record) and isinstance(state, dict):
            built.fields = state
        else:
            raise _RefusedError("it sets the state of something else than an array")


def _code(value: Any) -> str:
    # Of other values only the type is told: tuples of the same tuples would be written out without end.
    if not isinstance(value, str):
        raise _RefusedError(f"an array's type is given as {type(value).__name__.lstrip('_').lower()}; expected a text")
    if not (_TYPE.fullmatch(value) or _OBJECTS.fullmatch(value)):
        raise _RefusedError(f"an array is of the type {one_line(value, 40)}; expected numbers or texts")
    return value


def _number(kind: Any, data: Any) -> Any:
    if not isinstance(kind, _Type) or _OBJECTS.fullmatch(kind.code) or not isinstance(data, memoryview):
        raise _RefusedError("a number is damaged")
    return np.frombuffer(data, kind.dtype(), 1)[0]


def _of_buffer(data: Any, kind: Any, shape: Any, order: Any, axes: Any = None) -> Any:
    """An array of protocol 5; since NumPy 2.4 with the order of its axes, if they are neither by row nor by column."""
    if order == "K" and axes is not None:
        if not isinstance(axes, tuple) or not isinstance(shape, tuple) or sorted(axes) != list(range(len(shape))):
            raise _RefusedError("an array has an order of axes that are not its own")
        return _array(shape, kind, False, data).transpose(axes)
    if order not in ("C", "F"):
        raise _RefusedError("an array is neither by row nor by column")
    return _array(shape, kind, order == "F", data)


def _array(shape: Any, kind: Any, by_column: Any, data: Any) -> Any:
    """A view of the file's bytes; of objects, the list of them, or the one there is."""
    if not isinstance(shape, tuple) or not all(type(length) is int and 0 <= length <= sys.maxsize for length in shape):
        raise _RefusedError("an array has no shape")
    if len(shape) > _MOST_AXES:
        raise _RefusedError(f"an array has {len(shape)} axes; expected {_MOST_AXES} at most")
    if not isinstance(kind, _Type):
        raise _RefusedError("an array has no type")
    if _OBJECTS.fullmatch(kind.code):
        if not isinstance(data, list) or len(shape) > 1 or len(data) != math.prod(shape):
            raise _RefusedError("an array of objects is no list")
        return data if shape else data[0]
    dtype = kind.dtype()
    if not isinstance(data, memoryview) or data.nbytes != math.prod(shape) * dtype.itemsize:
        raise _RefusedError(f"an array of the shape {one_line(shape, 60)} of {dtype} has another number of bytes")
    if not data.nbytes:
        return np.zeros(shape, dtype)
    return np.frombuffer(data, dtype).reshape(shape, order="F" if by_column is True else "C")


def _global(machine: _Machine, argument: str) -> None:
    machine.name(*argument.split(" ", 1))


def _constant(make: Callable[[], Any]) -> Callable[[_Machine, Any], None]:
    return lambda machine, argument: machine.push(make())


def _push(machine: _Machine, argument: Any) -> None:
    machine.push(argument)


# Protocol and frames say nothing of the values.
_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(("PROTO", "FRAME"), lambda machine, argument: None),
    **dict.fromkeys(
        (
            *_BYTES, "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "SHORT_BINUNICODE", "BINUNICODE",
            "BINUNICODE8",
        ),
        _push,
    ),
    "NONE": _constant(lambda: None),
    "NEWTRUE": _constant(lambda: True),
    "NEWFALSE": _constant(lambda: False),
    "EMPTY_DICT": _constant(dict),
    "EMPTY_LIST": _constant(list),
    "EMPTY_TUPLE": _constant(tuple),
    "MARK": lambda machine, argument: machine.mark(),
    "TUPLE": lambda machine, argument: machine.push(tuple(machine.pop_to_mark())),
    "TUPLE1": lambda machine, argument: machine.push(tuple(machine.pop(1))),
    "TUPLE2": lambda machine, argument: machine.push(tuple(machine.pop(2))),
    "TUPLE3": lambda machine, argument: machine.push(tuple(machine.pop(3))),
    "APPEND": lambda machine, argument: machine.extend(machine.pop(1)),
    "APPENDS": lambda machine, argument: machine.extend(machine.pop_to_mark()),
    "SETITEM": lambda machine, argument: machine.set_items(machine.pop(2)),
    "SETITEMS": lambda machine, argument: machine.set_items(machine.pop_to_mark()),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT", "MEMOIZE"), lambda machine, argument: machine.keep(argument)),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda machine, argument: machine.recall(argument)),
    "GLOBAL": _global,
    "STACK_GLOBAL": lambda machine, argument: machine.name_from_stack(),
    "NEWOBJ": lambda machine, argument: machine.new_object(),
    "REDUCE": lambda machine, argument: machine.call(),
    "BUILD": lambda machine, argument: machine.build(),
}  # fmt: skip
