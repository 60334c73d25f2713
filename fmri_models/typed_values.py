"""Values that were written as text, read by the declared types of their options and not by what they look like.

`01` is the text "01" for a subject and the number 1 for a seed. A type is what an annotation says (`int | None`,
`list[str]`, a `Literal`, a dataclass ...), [`Options`], [`Candidates`], or [`OneOf`] of several.
"""

import inspect
import math
import re
import types
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, fields, is_dataclass
from decimal import Decimal
from typing import (
    Annotated,
    Any,
    ForwardRef,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from typing_extensions import is_typeddict

from .deprecation import RenamedField
from .errors import FmriModelsError
from .names import closest, one_line
from .reading import MAX_NESTING, Written, parse_yaml

_MEND = "correct it"
_NOTHING = ("", "~", "null", "Null", "NULL")
_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_WHOLE = re.compile(r"[-+]?[0-9]{1,300}(?:_[0-9]{3}){0,6}", re.ASCII)
_NUMBER = re.compile(r"[-+]?(?:[0-9]{1,300}\.?[0-9]{0,300}|\.[0-9]{1,300})(?:[eE][-+]?[0-9]{1,4})?", re.ASCII)
_NO_NUMBER = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_QUOTED = re.compile(r"""'(?:[^']|'')*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)
_CLOSED_BY = {"[": "]", "{": "}"}
# No option takes a whole number with more digits.
_MOST_DIGITS = 30
_LISTS = (list, tuple, Sequence, Iterable, set, frozenset, AbstractSet)
_MAPPINGS = (dict, Mapping)


class Argument(str):
    """What stands behind `key=` on the command line; its type decides whether it is a text or YAML."""


# Kinds are the same where they are the same object, so that they can stand inside of types.
@dataclass(frozen=True, eq=False)
class OneOf:
    """A value of one of several types.

    Args:
        types: The types; `Any` among them lets everything else pass.
    """

    types: tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Options:
    """A mapping with declared keys.

    Args:
        types: Key ▶ type.
        closed: Whether other keys are refused.
        offered: Keys that are named where another one is refused; None names all.
        renamed: Former name of a key ▶ what it is called now; the former ones are taken with a warning.
    """

    types: Mapping[str, Any]
    closed: bool = True
    offered: Collection[str] | None = None
    renamed: Mapping[str, RenamedField] = field(default_factory=dict)

    def current(self, key: Any, place: str) -> Any:
        """A key as it is called now."""
        if not isinstance(key, str) or key not in self.renamed:
            return key
        now, deprecation = self.renamed[key]
        deprecation.warn(what=f"The key {key!r} of {place} is {now!r} now; please write {now}")
        return now


@dataclass(frozen=True, eq=False)
class Candidates:
    """A mapping of dotted keys.

    Args:
        inside: The type that the keys reach into.
        first: The first parts of keys that may; others pass as they are.
    """

    inside: Any
    first: tuple[str, ...]


def typed(value: Any, declared: Any, key: str, what: str = "The value") -> Any:
    """A value, and all that it holds, as its type says.

    Text that was written becomes what is declared; values of Python stay as they are. A single value where a list is
    declared is a list of one.

    Args:
        value: Mappings and lists of [`Written`], [`Argument`] and values of Python.
        declared: What is declared.
        key: Dotted key of the value; empty for the whole.
        what: What the whole is, as the beginning of a sentence.

    Raises:
        FmriModelsError: Names the key of the first text that can't be what is declared, what was found and what is
            expected; or a key that there is not, and the nearest that there is.
    """
    if key.count(".") > MAX_NESTING:
        raise FmriModelsError(f"{what} is nested deeper than {MAX_NESTING} levels at {one_line(key, 80)}; {_MEND}.")
    alternatives = _alternatives(declared)
    if isinstance(value, Argument):
        value = _opened(value, alternatives, key)
    if isinstance(value, dict):
        return _typed_mapping(value, alternatives, key, what)
    if isinstance(value, list):
        return _typed_list(value, alternatives, key, what)
    return _typed_text(value, alternatives, key) if isinstance(value, Written) else value


def split_override(override: str) -> tuple[str, Argument]:
    """The key and the text of a `key=value`.

    Raises:
        FmriModelsError: It is none, or has no value.
    """
    key, separator, text = (part.strip() for part in override.partition("="))
    if not separator or not key:
        raise FmriModelsError(f"The override {one_line(repr(override))} is not of the form key=value.")
    if not text:
        raise FmriModelsError(
            f"The override {one_line(repr(override))} has no value; give one, or check the shell's variable that it "
            "comes from (null stands for none)."
        )
    return key, Argument(text)


def check_given_once(overrides: Sequence[str]) -> None:
    """Refuses overrides of which a later one replaces an earlier one, for whoever types them.

    Raises:
        FmriModelsError: Names the first such key.
    """
    done: list[list[str]] = []
    for override in overrides:
        key, _ = split_override(override)
        parts = [part.lstrip("0") or "0" if part.isdigit() else part for part in key.split(".")]
        if repeated := next((each for each in done if each[: len(parts)] == parts), None):
            raise FmriModelsError(
                f"The override {one_line(override)!r} replaces {one_line('.'.join(repeated), 80)}, which another one "
                "before it has set; give each key once."
            )
        done.append(parts)


def opened(value: Any) -> Any:
    """An [`Argument`] that is a list or a mapping in brackets as what it holds; everything else as it is."""
    if isinstance(value, Argument) and value.strip()[:1] in ("[", "{"):
        return _opened(value, [Any], "The value")
    return value


def list_of(declared: Any) -> Any:
    """The type of a list of values of a type."""
    return types.GenericAlias(list, (declared,))


def is_nothing(value: Any) -> bool:
    """Whether a value is none, or a text that says so."""
    return value is None or (isinstance(value, Written | Argument) and _means_nothing(value))


def options_of(declared: Any, without: Sequence[str] = ()) -> Any:
    """The options of a dataclass, pydantic model or `TypedDict`, or the arguments of a class or function.

    Args:
        declared: The class or function.
        without: Names that are no options.

    Returns:
        [`Options`], open where a function takes any name; `Any` where nothing is declared.
    """
    hints = _hints(declared)
    if is_dataclass(declared):
        # Some packages give the fields of a dataclass their types without an annotation that can be looked up.
        found = {each.name: hints.get(each.name, each.type) for each in fields(declared) if each.init}
        left = {name: each for name, each in found.items() if name not in without}
        return Options(left, renamed=getattr(declared, "renamed_fields", {}))
    if is_typeddict(declared) or hasattr(declared, "model_fields"):
        return Options({name: each for name, each in hints.items() if name not in without and name != "model_config"})
    try:
        parameters = inspect.signature(declared).parameters.values()
    except (TypeError, ValueError):
        return Any
    constructor: Any = declared
    init = _hints(constructor.__init__) if isinstance(declared, type) else hints
    named = [each for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
    found = {each.name: init.get(each.name, Any) for each in named if each.name not in without}
    return Options(found, closed=all(each.kind != each.VAR_KEYWORD for each in parameters))


def check_key(key: Any, known: Iterable[str], what: str, offered: Collection[str] | None = None) -> None:
    """Refuses a key that there is not.

    Args:
        key: The key.
        known: Those that there are.
        what: What has the keys, as the beginning of a sentence.
        offered: Those of them that may be chosen here; None stands for all.

    Raises:
        FmriModelsError: Names it, and the one that is closest to it of those that may be chosen.
    """
    known = list(known)
    if key not in known:
        names = known if offered is None else [name for name in known if name in offered]
        close = closest(str(key), names)
        hint = f"did you mean {close!r}?" if close else f"known keys: {', '.join(names) or 'none'}."
        raise FmriModelsError(f"{what} has the unknown key {one_line(repr(str(key)), 80)}; {hint}")


def expectation(declared: Any) -> str:
    """What a type takes, in words."""
    words = list(dict.fromkeys(word for each in _alternatives(declared) for word in _words(each)))
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words) or "something else"


def _typed_mapping(value: dict[Any, Any], alternatives: list[Any], key: str, what: str) -> dict[Any, Any]:
    for declared in alternatives:
        if isinstance(declared, Options):
            place = what if not key else f"{key} of {what[:1].lower()}{what[1:]}"
            # Of a key under both of its names, the one that stands later counts, as overrides do.
            value = {declared.current(name, place): each for name, each in value.items()}
            for each in value if declared.closed else ():
                check_key(each, declared.types, place, declared.offered)
            inside = {name: declared.types.get(str(name), Any) for name in value}
            break
        if isinstance(declared, Candidates):
            found = {name: _place_of(declared, str(name), what) for name in value}
            value = {found[name][0]: each for name, each in value.items()}
            inside = dict(found.values())
            break
        if _origin(declared) in _MAPPINGS:
            arguments = get_args(declared)
            inside = dict.fromkeys(value, arguments[1] if len(arguments) > 1 else Any)
            break
    else:
        if Any not in alternatives:
            raise _misfit("a mapping", alternatives, key)
        inside = dict.fromkeys(value, Any)
    return {
        str(name) if isinstance(name, str) else name: typed(
            each, inside[name], f"{key}.{name}" if key else str(name), what
        )
        for name, each in value.items()
    }


def _typed_list(value: list[Any], alternatives: list[Any], key: str, what: str) -> list[Any]:
    of_lists = [declared for declared in alternatives if _origin(declared) in _LISTS]
    if not of_lists and Any not in alternatives:
        raise _misfit("a list", alternatives, key)
    elements = _element_types(of_lists[0], len(value)) if of_lists else [Any] * len(value)
    return [
        typed(each, declared, f"{key}.{index}", what)
        for index, (each, declared) in enumerate(zip(value, elements, strict=True))
    ]


def _typed_text(text: Written, alternatives: list[Any], key: str) -> Any:
    if type(None) in alternatives and _means_nothing(text):
        return None
    if text.quoted and str in alternatives:
        return str(text)
    for declared in (bool, int, float):
        found = _SCALARS[declared](text) if declared in alternatives else None
        if isinstance(found, float) and math.isinf(found) and not _NO_NUMBER.fullmatch(text):
            raise FmriModelsError(f"{one_line(key, 200)} is {one_line(text, 80)}; expected a finite number; {_MEND}.")
        if found is not None:
            return found
    for declared in alternatives:
        if get_origin(declared) is Literal:
            choice = next((each for each in get_args(declared) if str(each) == text), None)
            if choice is not None:
                return choice
    if str in alternatives:
        return str(text)
    for declared in alternatives:
        if _origin(declared) in _LISTS and not _means_nothing(text):
            inside = _alternatives(_element_types(declared, 1)[0])
            if any(each is Any or each in _SINGULARS or get_origin(each) is Literal for each in inside):
                return [_typed_text(text, inside, key)]
    if Any in alternatives:
        return str(text) if text.quoted else _natural(text)
    raise _misfit(_shown(text), alternatives, key)


def _means_nothing(text: Written | Argument) -> bool:
    return text in _NOTHING and not getattr(text, "quoted", False)


def _opened(value: Argument, alternatives: list[Any], key: str) -> Any:
    """What is between quotes or in brackets; the text itself where it is neither, or where only a text can be meant."""
    text = value.strip()
    if _QUOTED.fullmatch(text):
        try:
            found = parse_yaml(text, key, as_written=True)
        except FmriModelsError:
            return Written(text)
        return found if isinstance(found, Written) else Written(text)
    only_text = any(declared is str or get_origin(declared) is Literal for declared in alternatives) and not any(
        _origin(declared) in (*_LISTS, *_MAPPINGS) or isinstance(declared, Options | Candidates) or declared is Any
        for declared in alternatives
    )
    closing = _CLOSED_BY.get(text[:1])
    if closing is None or only_text:
        return Written(text)
    if not text.endswith(closing):
        raise FmriModelsError(
            f"{key} is {one_line(repr(text), 80)}, which is no valid YAML: it begins with {text[0]} and does not end "
            f"with {closing}; put a text that begins so in quotes."
        )
    return unshared(parse_yaml(text, f"The value of {one_line(key, 80)}, {one_line(repr(text), 80)},", as_written=True))


def unshared(value: Any) -> Any:
    """A copy in which nothing is there twice, as YAML's references are: a change in one place is none in another."""
    if isinstance(value, dict):
        return {key: unshared(each) for key, each in value.items()}
    return [unshared(each) for each in value] if isinstance(value, list) else value


def _place_of(candidates: Candidates, key: str, what: str) -> tuple[str, Any]:
    """A dotted key as it is called now, and its type.

    Raises:
        FmriModelsError: There is no such key.
    """
    parts = key.split(".")
    if parts[0] not in candidates.first or len(parts) > MAX_NESTING:
        return key, Any
    declared, done = candidates.inside, ""
    for part in parts:
        place = f"{done} of {what[:1].lower()}{what[1:]}" if done else what
        name, declared = _below(_alternatives(declared), part, place)
        done = f"{done}.{name}" if done else name
    return done, declared


def _below(alternatives: list[Any], part: str, what: str) -> tuple[str, Any]:
    """A step of a dotted key as it is called now, and the type of what is there."""
    for declared in alternatives:
        if isinstance(declared, Options):
            name = declared.current(part, what)
            if declared.closed:
                check_key(name, declared.types, what, declared.offered)
            return name, declared.types.get(name, Any)
        arguments = get_args(declared)
        if _origin(declared) in _MAPPINGS and len(arguments) > 1:
            return part, arguments[1]
        if _origin(declared) in _LISTS and arguments:
            return part, arguments[0]
    return part, Any


def _alternatives(declared: Any) -> list[Any]:
    """What a value may be: unions taken apart, annotations taken off."""
    if isinstance(declared, OneOf):
        return [each for one in declared.types for each in _alternatives(one)]
    origin = get_origin(declared)
    if origin is Annotated:
        return _alternatives(get_args(declared)[0])
    if origin is Union or isinstance(declared, types.UnionType):
        return [each for one in get_args(declared) for each in _alternatives(one)]
    if declared is None:
        return [type(None)]
    if isinstance(declared, str | ForwardRef | TypeVar) or declared in (inspect.Parameter.empty, object):
        return [Any]
    if isinstance(declared, type) and get_origin(declared) is None:
        if is_dataclass(declared) or is_typeddict(declared) or hasattr(declared, "model_fields"):
            return [options_of(declared)]
        if declared not in (*_SCALARS, str, type(None), *_LISTS, *_MAPPINGS):
            return [Any]
    return [declared]


def _origin(declared: Any) -> Any:
    return get_origin(declared) or declared


def _element_types(declared: Any, count: int) -> list[Any]:
    arguments = get_args(declared)
    if _origin(declared) is tuple and Ellipsis not in arguments and len(arguments) == count:
        return list(arguments)
    return [arguments[0] if arguments else Any] * count


def _hints(declared: Any) -> dict[str, Any]:
    """Types of the fields or arguments; none where a package names types that can't be found."""
    try:
        return get_type_hints(declared, include_extras=True)
    except (NameError, TypeError, AttributeError):
        return {}


def _bool(text: str) -> bool | None:
    known = text in (text.lower(), text.upper(), text.capitalize())
    return _WORDS.get(text.lower()) if known else None


def _int(text: str) -> int | None:
    """A whole number, also as `1e3` or `10.0`."""
    if _WHOLE.fullmatch(text):
        return int(text)
    if not _NUMBER.fullmatch(text):
        return None
    number = Decimal(text)
    is_whole = number.adjusted() < _MOST_DIGITS and number == number.to_integral_value()
    return int(number) if is_whole else None


def _float(text: str) -> float | None:
    if _NO_NUMBER.fullmatch(text):
        return float(text.lower().replace(".", ""))
    if _WHOLE.fullmatch(text):
        return _as_float(int(text))
    return float(text) if _NUMBER.fullmatch(text) else None


def _as_float(number: int) -> float | int:
    """The same number; as it is where floating point can't hold it, for whoever checks its size."""
    return float(number) if abs(number) < 2**1000 else number


_SCALARS: dict[Any, Callable[[str], Any]] = {bool: _bool, int: _int, float: _float}


def _natural(text: str) -> Any:
    """What a text looks like, for options whose type nobody declared, and for messages."""
    if text in _NOTHING:
        return None
    if _WHOLE.fullmatch(text):
        return int(text)
    found = _bool(text)
    if found is not None:
        return found
    number = _float(text)
    return str(text) if number is None else number


def _shown(text: Written) -> str:
    """A text as it was typed, for a message: without quotes where it is a number or nothing."""
    if _means_nothing(text):
        return "null"
    is_number = not text.quoted and _float(text) is not None
    return one_line(str(text) if is_number else repr(str(text)), 80)


def _misfit(found: str, alternatives: list[Any], key: str) -> FmriModelsError:
    return FmriModelsError(
        f"{one_line(key, 200)} is {found}; expected {expectation(OneOf(tuple(alternatives)))}; {_MEND}."
    )


def _words(declared: Any) -> list[str]:
    if get_origin(declared) is Literal:
        return [repr(each) for each in get_args(declared)]
    if isinstance(declared, Options | Candidates) or _origin(declared) in _MAPPINGS:
        return ["a mapping"]
    if _origin(declared) in _LISTS:
        inside = _alternatives(get_args(declared)[0]) if get_args(declared) else [Any]
        inner = _PLURALS.get(inside[0]) if len(inside) == 1 else None
        return [f"a list of {inner}" if inner else "a list"]
    return [_SINGULARS[declared]] if declared in _SINGULARS else []


_SINGULARS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", type(None): "null"}
_PLURALS = {int: "whole numbers", float: "numbers", str: "texts"}
