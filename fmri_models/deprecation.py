"""What was public and is to go: it works for two more releases, and says what to write instead and until when.

A release is a new first or second number of the version. What is deprecated in 0.1 warns in 0.1 and 0.2, and 0.3 is
released without it: a test fails as soon as the version is 0.3 and it is still there (CONTRIBUTING.md has the policy).
"""

import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from importlib import import_module
from typing import Any, NamedTuple, ParamSpec, TypeVar

from .version import __version__

# In which something that is deprecated still works: the one that deprecates it, and the next.
RELEASES = 2
# All that the modules imported so far have declared.
DEPRECATIONS: list["Deprecation"] = []

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
_Class = TypeVar("_Class", bound=type)
_RELEASE = re.compile(r"(\d+)\.(\d+)")


@dataclass(frozen=True)
class Deprecation:
    """Something that goes, declared where its module is imported, so that a test finds all of them.

    Args:
        what: What it is and what takes its place, a sentence without its full stop:
            `"rows of fmri is positions now; please write positions"`.
        since: The release that warns first, `"0.1"`.

    Raises:
        ValueError: `since` is no release.
    """

    what: str
    since: str

    def __post_init__(self) -> None:
        if not _RELEASE.fullmatch(self.since):
            raise ValueError(f"{self.what!r} is deprecated since {self.since!r}; write a release, such as '0.1'.")
        DEPRECATIONS.append(self)

    @property
    def goes(self) -> str:
        """The first release without it."""
        first, second = _release(self.since)
        return f"{first}.{second + RELEASES}"

    def is_overdue(self, version: str = __version__) -> bool:
        """Whether a version, also one that is still developed (`"0.3.0.dev0"`), should be without it."""
        return _release(version) >= _release(self.goes)

    def warn(self, stacklevel: int = 2, what: str | None = None) -> None:
        """Says what to write instead, and until when it need not be.

        Args:
            stacklevel: Of `warnings.warn`, as if called where this is: 2 is whoever called the caller's function.
            what: The sentence, where a use of it is known better than when it was declared.
        """
        sentence = f"{what or self.what}. From fmri_models {self.goes} on this is an error."
        warnings.warn(sentence, FutureWarning, stacklevel=stacklevel + 1)


class RenamedField(NamedTuple):
    """What a dataclass' field is called now, and the deprecation of its former name."""

    now: str
    deprecation: Deprecation


def moved_names(old: str, new: str, renamed: Mapping[str, str] | None = None, *, since: str) -> Callable[[str], object]:
    """A module's `__getattr__` for names that are in another module now.

    Args:
        old: The module that had them: its `__name__`.
        new: The module that has them.
        renamed: Old name ▶ new name; no others moved. None: any name may have, and all are called what they were.
        since: The release that moved them.
    """
    deprecation = Deprecation(f"Names of {old} are in {new} now; please import them from there", since)

    def find(name: str) -> object:
        is_private = name.startswith("_")
        if is_private or (renamed is not None and name not in renamed):
            raise AttributeError(f"module {old!r} has no attribute {name!r}")
        now = name if renamed is None else renamed[name]
        value = getattr(import_module(new), now)
        deprecation.warn(what=f"{old}.{name} is {new}.{now} now; please import it from there")
        return value

    return find


def renamed_argument(
    old: str, new: str, *, since: str
) -> Callable[[Callable[_Arguments, _Result]], Callable[_Arguments, _Result]]:
    """A decorator for a function of which a keyword argument was called something else until the release `since`."""

    def decorate(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
        # Of a class, by its name.
        name = function.__qualname__.removesuffix(".__init__").rpartition(".")[2]
        deprecation = Deprecation(f"{old} of {name} is {new} now; please write {new}", since)

        @wraps(function)
        def call(*args: _Arguments.args, **options: _Arguments.kwargs) -> _Result:
            if old in options:
                deprecation.warn()
                options[new] = options.pop(old)
            return function(*args, **options)

        return call

    return decorate


def former_name(old: str, function: Callable[_Arguments, _Result], *, since: str) -> Callable[_Arguments, _Result]:
    """A method for the class's attribute of the name that it had before the release `since`."""
    new = function.__name__
    deprecation = Deprecation(f"{old} is {new} now; please write {new}", since)

    @wraps(function)
    def call(*args: _Arguments.args, **options: _Arguments.kwargs) -> _Result:
        deprecation.warn()
        return function(*args, **options)

    return call


def renamed_field(old: str, new: str, *, since: str) -> Callable[[_Class], _Class]:
    """A decorator for a dataclass of which a field was called something else: as an argument and as an attribute.

    The class says so in `renamed_fields`, for whoever reads its options from a file.
    """

    def decorate(decorated: _Class) -> _Class:
        deprecation = Deprecation(f"{old} of {decorated.__name__} is {new} now; please write {new}", since)

        def former(self: Any) -> Any:
            deprecation.warn()
            return getattr(self, new)

        changed: Any = decorated
        changed.__init__ = renamed_argument(old, new, since=since)(changed.__init__)
        setattr(changed, old, property(former))
        changed.renamed_fields = {
            **getattr(decorated, "renamed_fields", {}),
            old: RenamedField(new, deprecation),
        }
        return decorated

    return decorate


def _release(version: str) -> tuple[int, int]:
    found = _RELEASE.match(version)
    if found is None:
        raise ValueError(f"{version!r} is no version; expected one such as '0.1.0'.")
    return int(found[1]), int(found[2])
