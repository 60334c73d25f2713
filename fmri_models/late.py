"""What other libraries are told when they are imported, before or after this package, which itself imports none."""

import sys
import threading
from collections.abc import Callable, Iterator
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def when_imported(module_name: str, act: Callable[[ModuleType], None]) -> None:
    """Does something with a module: now if it has been imported, else right after it will be.

    Args:
        module_name: Its whole name.
        act: What is done; it must import nothing, because others may be in the middle of their imports then.
    """
    module = sys.modules.get(module_name)
    if module is not None and not getattr(module.__spec__, "_initializing", False):
        act(module)
        return
    _finder.waiting.setdefault(module_name, []).append(act)
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)


class _Finder(MetaPathFinder):
    """Finds nothing itself: modules that are waited for are found by the others, and report when they are there."""

    def __init__(self) -> None:
        self.waiting: dict[str, list[Callable[[ModuleType], None]]] = {}

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname not in self.waiting:
            return None
        others = (finder for finder in list(sys.meta_path) if finder is not self)
        found = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_report(module: ModuleType) -> None:
            execute(module)
            for act in self.waiting.pop(fullname, []):
                # Some put another object into their place.
                act(sys.modules.get(fullname, module))

        spec.loader.exec_module = execute_and_report  # type: ignore[method-assign]
        return spec


_finder = _Finder()


class CompletedDict(dict[Any, Any]):
    """A dictionary that is completed right before somebody reads it.

    Args:
        content: What it holds already.
        complete: Writes the rest into it, and may be called often.
        is_known: Of which keys it is certain that the rest has nothing of them, so that they cost nothing.
    """

    def __init__(
        self,
        content: dict[Any, Any],
        complete: Callable[[], None],
        is_known: Callable[[Any], bool] = lambda key: False,
    ) -> None:
        super().__init__(content)
        self._complete, self._is_known, self._busy = complete, is_known, threading.local()

    def _completed(self) -> None:
        # What completes it may read it on its way.
        if getattr(self._busy, "now", False):
            return
        self._busy.now = True
        try:
            self._complete()
        finally:
            self._busy.now = False

    def _completed_for(self, key: object) -> None:
        if not super().__contains__(key) and not self._is_known(key):
            self._completed()

    def __contains__(self, key: object) -> bool:
        self._completed_for(key)
        return super().__contains__(key)

    def __getitem__(self, key: Any) -> Any:
        self._completed_for(key)
        return super().__getitem__(key)

    def __iter__(self) -> Iterator[Any]:
        self._completed()
        return super().__iter__()

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
