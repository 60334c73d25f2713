"""Trackers that training is logged with, by Accelerate's names, and where those write that need a folder."""

from pathlib import Path

from ..errors import FmriModelsError
from ..names import did_you_mean


def check_trackers(names: list[str]) -> None:
    """Refuses trackers that Accelerate does not know or that are not installed.

    Raises:
        FmriModelsError: Names the first such tracker.
    """
    if not names:
        return
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    known = sorted(str(name) for name in LOGGER_TYPE_TO_CLASS)
    available = [str(name) for name in get_available_trackers()]
    for name in names:
        if name not in known:
            raise FmriModelsError(
                f"There is no tracker {name!r}; Accelerate knows {', '.join(known)}.{did_you_mean(name, known)}"
            )
        if name not in available:
            raise FmriModelsError(f"The tracker {name!r} is not installed; run `pip install {name}`.")


def log_folder(out: Path) -> Path:
    """Where trackers of a training write, beside its output folder."""
    out = out.absolute()
    return out.parent / f"{out.name}-logs"
