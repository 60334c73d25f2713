"""An index of components names classes of known libraries and nothing else, so that no code of a folder is run."""

from collections.abc import Iterable
from typing import Any

from .errors import FmriModelsError
from .names import one_line
from .registry import component_libraries


def check_component_index(index: dict[str, Any], what: str, mend: str, components: Iterable[str] | None = None) -> None:
    """Refuses an index that names something else than classes of known libraries, so that nothing of a folder is run.

    Args:
        index: What `model_index.json` says.
        what: What it is, as the beginning of a sentence.
        mend: What to do, as the end of one.
        components: Names that may be components; None allows any.

    Raises:
        FmriModelsError: Names the first entry that is refused.
    """
    if not isinstance(index.get("_class_name"), str):
        raise FmriModelsError(f"{what} has {one_line(repr(index.get('_class_name')), 80)} as its class; {mend}.")
    allowed = component_libraries()
    known = None if components is None else set(components)
    for name, value in index.items():
        if name.startswith("_") or not _is_component(value, name, known):
            continue
        if known is not None and name not in known:
            raise FmriModelsError(f"{what} has the component {one_line(name, 80)!r}, which is not known; {mend}.")
        if value == [None, None]:
            continue
        library, class_name = value if isinstance(value, list) and len(value) == 2 else (None, None)
        if library not in allowed or not isinstance(class_name, str) or not class_name.isidentifier():
            raise FmriModelsError(
                f"{what} has {one_line(repr(value), 80)} as {name}; expected a class of {', '.join(sorted(allowed))}: "
                f"code of other places is not run; {mend}."
            )


def _is_component(value: Any, name: str, known: set[str] | None) -> bool:
    """Lists of numbers are values of the configuration, everything else that is a list names a class."""
    if known is not None and name in known:
        return True
    return isinstance(value, list) and len(value) == 2 and not all(isinstance(v, int | float) for v in value)
