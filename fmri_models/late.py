"""What other libraries are told when they are imported, before or after this package, which itself imports none."""

import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_Act = Callable[[ModuleType], None]


def when_imported(module_name: str, act: _Act) -> None:
    """Does something with a module: now if it has been imported, and right after each time that it will be.

    Where that fails, a warning says so, and the module is there all the same.

    Args:
        module_name: Its whole name.
        act: What is done; it must import nothing, because others may be in the middle of their imports then.
    """
    _finder.acts.setdefault(module_name, []).append(act)
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    module = sys.modules.get(module_name)
    if module is not None and not (_is_being_imported(module) and _InProgress.tells(module, act)):
        _do(act, module)


def _is_being_imported(module: ModuleType) -> bool:
    return getattr(getattr(module, "__spec__", None), "_initializing", False) is True


def _do(act: _Act, module: ModuleType) -> None:
    try:
        act(module)
    # Of a version of a library that nobody has seen it may raise anything, and whoever imports the library may not
    # even use this package.
    except Exception as error:
        name = getattr(module, "__name__", "a module")
        warnings.warn(f"fmri_models could not register with {name}: {type(error).__name__}: {error}", stacklevel=2)


class _Finder(MetaPathFinder):
    """Finds nothing itself: those behind it find the modules that are waited for, which report when they are there."""

    def __init__(self) -> None:
        self.acts: dict[str, list[_Act]] = {}

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname not in self.acts:
            return None
        finders = list(sys.meta_path)
        for finder in finders[finders.index(self) + 1 :] if self in finders else []:
            # Python passes over those without the method, too.
            find = getattr(finder, "find_spec", None)
            spec = find(fullname, path, target) if find is not None else None
            if spec is not None:
                # A namespace has no loader, and the oldest kind of loaders can't be told what to do afterwards.
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = _Reporting(spec.loader, self.acts[fullname])
                return spec
        return None


class _Reporting(Loader):
    """Loads one module as its own loader does, which may be that of many, and reports that it is there.

    Args:
        loader: Its own loader.
        acts: What is done with the module then.
    """

    def __init__(self, loader: Any, acts: list[_Act]) -> None:
        self._loader, self._acts = loader, acts

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_loader"], name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # Nobody has to do with this object any more; `importlib.util.LazyLoader` does the same.
        module.__loader__ = self._loader
        spec = module.__spec__
        if spec is not None:
            spec.loader = self._loader
        is_import = spec is not None and sys.modules.get(spec.name) is module
        self._loader.exec_module(module)
        # Some put another object into their place.
        there = sys.modules.get(spec.name, module) if is_import and spec is not None else module
        for act in list(self._acts):
            _do(act, there)


class _InProgress(ModuleSpec):
    """The spec of a module that was being imported when it was first waited for; it is told when that is over."""

    told: list[_Act]

    @classmethod
    def tells(cls, module: ModuleType, act: _Act) -> bool:
        """Has something done when the import is over; False if it is over now, or if it can't be known."""
        spec = module.__spec__
        if type(spec) is ModuleSpec:
            spec.told = []  # type: ignore[attr-defined]
            spec.__class__ = cls
        if not isinstance(spec, cls):
            return False
        spec.told.append(act)
        if _is_being_imported(module):
            return True
        # Another thread has finished meanwhile, with or without this one.
        return not spec.take(act)

    def take(self, act: _Act) -> bool:
        """Whether it is still to be done, by whoever asks first."""
        try:
            self.told.remove(act)
        except ValueError:
            return False
        return True

    @property
    def _initializing(self) -> bool:
        return bool(self.__dict__["_initializing"])

    @_initializing.setter
    def _initializing(self, value: bool) -> None:
        self.__dict__["_initializing"] = value
        # Not there if its import has failed.
        module = sys.modules.get(self.name)
        if value or module is None:
            return
        for act in list(self.told):
            if self.take(act):
                _do(act, module)


_finder = _Finder()


class CompletedDict(dict[Any, Any]):
    """A dictionary that is completed right before somebody reads it; a copy of it is a plain one.

    Args:
        content: What it holds already.
        complete: Writes the rest into it, and may be called often.
        is_known: Of which keys it is certain that the rest has nothing of them, so that they cost nothing.
        begin: Writes as much of the rest as costs little, which is all that who asks for no key gets to see; None where
            there is no such thing.
    """

    def __init__(
        self,
        content: dict[Any, Any],
        complete: Callable[[], None],
        is_known: Callable[[Any], bool] = lambda key: False,
        begin: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(content)
        self._begin, self._complete = complete if begin is None else begin, complete
        self._is_known, self._busy = is_known, threading.local()

    def _completed(self) -> None:
        self._do(self._begin)

    def _do(self, step: Callable[[], None]) -> None:
        # What completes it may read it on its way.
        if getattr(self._busy, "now", False):
            return
        self._busy.now = True
        try:
            step()
        finally:
            self._busy.now = False

    def _completed_for(self, key: object) -> None:
        for step in (self._begin, self._complete):
            if super().__contains__(key) or self._is_known(key):
                return
            self._do(step)

    def __contains__(self, key: object) -> bool:
        self._completed_for(key)
        return super().__contains__(key)

    def __getitem__(self, key: Any) -> Any:
        self._completed_for(key)
        return super().__getitem__(key)

    def get(self, key: Any, default: Any = None) -> Any:
        self._completed_for(key)
        return super().get(key, default)

    def pop(self, key: Any, *default: Any) -> Any:
        self._completed_for(key)
        return super().pop(key, *default)

    def setdefault(self, key: Any, default: Any = None) -> Any:
        self._completed_for(key)
        return super().setdefault(key, default)

    def __iter__(self) -> Iterator[Any]:
        self._completed()
        return super().__iter__()

    def __reversed__(self) -> Iterator[Any]:
        self._completed()
        return super().__reversed__()

    def __len__(self) -> int:
        self._completed()
        return super().__len__()

    def keys(self) -> Any:
        self._completed()
        return super().keys()

    def values(self) -> Any:
        self._completed()
        return super().values()

    def items(self) -> Any:
        self._completed()
        return super().items()

    def __eq__(self, other: object) -> bool:
        return self.copy() == other

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None

    def __or__(self, other: Any) -> Any:
        return self.copy() | other

    def __repr__(self) -> str:
        return repr(self.copy())

    def copy(self) -> dict[Any, Any]:
        return dict(self.items())

    def __copy__(self) -> dict[Any, Any]:
        return self.copy()

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return dict, (self.copy(),)
