"""How much one visitor of the page may ask for."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from ..drawing_settings import DrawingSettings
from ..errors import FmriModelsError
from ..names import one_line
from ..reading import MEBIBYTE
from ..seeds import check_seed

MOST_STEPS = 50
MOST_CANDIDATES = 8
MOST_GUIDANCE = 20.0
MOST_GAIN = 4.0
MOST_SECONDS = 90.0
MOST_UPLOAD_BYTES = 16 * MEBIBYTE
MOST_PATTERNS = 8
# An upload, and what a form says of it.
MOST_REQUEST_BYTES = MOST_UPLOAD_BYTES + MEBIBYTE
# Of all visitors, as long as an upload may lie here.
MOST_KEPT_BYTES = 1024 * MEBIBYTE
DELETED_EVERY = 600
KEPT_SECONDS = 2.0 * DELETED_EVERY
# Of each, Gradio keeps the last pictures, some megabytes; a browser that was forgotten is served as well.
MOST_SESSIONS = 100
# Of pictures as of pages of a queue: who comes later is told so.
MOST_WAITING = 64
# Of these, of one visitor: one of each button, while a picture is drawn.
MOST_WAITING_EACH = 6

Tell = Callable[[float], None]


def check_bounded(settings: DrawingSettings) -> DrawingSettings:
    """Settings that one visitor may draw with.

    Raises:
        FmriModelsError: Steps, candidates or guidance are more than the page draws with.
    """
    for name, most in (("num_inference_steps", MOST_STEPS), ("num_candidates", MOST_CANDIDATES)):
        if (value := getattr(settings, name)) > most:
            raise FmriModelsError(f"{name} is {value}; this page draws {most} at most: choose fewer.")
    if settings.guidance_scale > MOST_GUIDANCE:
        raise FmriModelsError(
            f"guidance_scale is {settings.guidance_scale:g}; this page draws with {MOST_GUIDANCE:g} "
            "at most: choose less."
        )
    return settings


def visitors_settings(pipelines: DrawingSettings, given: Mapping[str, Any]) -> DrawingSettings:
    """A pipeline's settings with what a visitor has chosen; fields that are empty leave a setting.

    Numbers come from the page as fractions, too.

    Raises:
        FmriModelsError: A value is out of range, or more than the page draws.
    """
    values = {name: whole(value) if name.startswith("num_") else value for name, value in given.items()}
    return check_bounded(pipelines.changed(values))


def checked_gain(value: Any) -> float:
    """How many times its differences from the mean a region answers.

    Raises:
        FmriModelsError: It is no number from 0 to `MOST_GAIN`.
    """
    # NaN fails the comparison, too.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MOST_GAIN:
        raise FmriModelsError(f"The gain is {one_line(repr(value), 80)}; expected a number from 0 to {MOST_GAIN:g}.")
    return float(value)


def checked_seed(value: Any) -> int:
    """The number in the page's field, 0 if it was emptied.

    Raises:
        FmriModelsError: It is none that a generator takes.
    """
    return 0 if value is None else check_seed(whole(value))


class Watch:
    """A callback of each step of drawing: tells how far it is, and ends what takes too long.

    Args:
        num_steps: Steps that there will be.
        tell: Called with the share that is done.
        most_seconds: When it is ended.

    Attributes:
        is_late: Whether it was.
    """

    def __init__(self, num_steps: int, tell: Tell | None = None, most_seconds: float = MOST_SECONDS) -> None:
        self._num_steps, self._tell = max(1, num_steps), tell
        self._end = time.monotonic() + most_seconds
        self.is_late = False

    def __call__(self, pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        """See `callback_on_step_end` of a pipeline."""
        if self._tell is not None:
            self._tell(min(1.0, (step + 1) / self._num_steps))
        if time.monotonic() > self._end:
            self.is_late = pipeline._interrupt = True
        return tensors

    def check(self) -> None:
        """Refuses a picture whose drawing was ended.

        Raises:
            FmriModelsError: It was.
        """
        if self.is_late:
            raise FmriModelsError(
                f"Drawing took more than {MOST_SECONDS:.0f} seconds and was stopped; choose fewer steps or candidates."
            )


def whole(value: Any) -> Any:
    """A fraction that is a whole number as one; the page sends numbers as fractions, too."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
