"""Public names that moved or were changed: the old ones still work, and say with a warning what to write instead."""

import warnings
from collections.abc import Callable, Mapping
from functools import wraps
from importlib import import_module
from typing import Any, ParamSpec, TypeVar

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
_Class = TypeVar("_Class", bound=type)


def moved_names(old: str, new: str, renamed: Mapping[str, str] | None = None) -> Callable[[str], object]:
    """A module's `__getattr__` for names that are in another module now.

    Args:
        old: The module that had them: its `__name__`.
        new: The module that has them.
        renamed: Old name ▶ new name; no others moved. None: any name may have, and all are called what they were.
    """

    def find(name: str) -> object:
        is_private = name.startswith("_")
        if is_private or (renamed is not None and name not in renamed):
            raise AttributeError(f"module {old!r} has no attribute {name!r}")
        now = name if renamed is None else renamed[name]
        value = getattr(import_module(new), now)
        warnings.warn(f"{old}.{name} is {new}.{now} now; please import it from there.", FutureWarning, stacklevel=2)
        return value

    return find


def renamed_argument(old: str, new: str) -> Callable[[Callable[_Arguments, _Result]], Callable[_Arguments, _Result]]:
    """A decorator for a function of which a keyword argument was called something else."""

    def decorate(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
        @wraps(function)
        def call(*args: _Arguments.args, **options: _Arguments.kwargs) -> _Result:
            if old in options:
                # Of a class, by its name.
                name = function.__qualname__.removesuffix(".__init__").rpartition(".")[2]
                warnings.warn(f"{old} of {name} is {new} now; please write {new}.", FutureWarning, stacklevel=2)
                options[new] = options.pop(old)
            return function(*args, **options)

        return call

    return decorate


def former_name(old: str, function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """A method for the class's attribute of the name that it had before."""

    @wraps(function)
    def call(*args: _Arguments.args, **options: _Arguments.kwargs) -> _Result:
        new = function.__name__
        warnings.warn(f"{old} is {new} now; please write {new}.", FutureWarning, stacklevel=2)
        return function(*args, **options)

    return call


def renamed_field(old: str, new: str) -> Callable[[_Class], _Class]:
    """A decorator for a dataclass of which a field was called something else: as an argument and as an attribute.

    The class says so in `renamed_fields`, for whoever reads its options from a file.
    """

    def decorate(decorated: _Class) -> _Class:
        sentence = f"{old} of {decorated.__name__} is {new} now; please write {new}."

        def former(self: Any) -> Any:
            warnings.warn(sentence, FutureWarning, stacklevel=2)
            return getattr(self, new)

        changed: Any = decorated
        changed.__init__ = renamed_argument(old, new)(changed.__init__)
        setattr(changed, old, property(former))
        changed.renamed_fields = {**getattr(decorated, "renamed_fields", {}), old: new}
        return decorated

    return decorate
