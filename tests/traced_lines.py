"""Something that happens at a line of some functions, counted as they are executed."""

import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any


class Countdown:
    """How many lines are left until it happens.

    Args:
        left: So many.
    """

    def __init__(self, left: int) -> None:
        self.left = left

    @property
    def has_come(self) -> bool:
        return self.left <= 0


@contextmanager
def happening_at_line(line: int, codes: Collection[CodeType], action: Callable[[], object]) -> Iterator[Countdown]:
    """Calls the action at that line (from 1) of what is executed of these functions inside the block."""
    countdown = Countdown(line)

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code not in codes:
            return None
        if event == "line":
            countdown.left -= 1
            if countdown.left == 0:
                action()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield countdown
    finally:
        sys.settrace(before)
