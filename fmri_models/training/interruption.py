"""Signals that end a training after the step that is under way, when its checkpoint is saved."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class TrainingInterrupted(KeyboardInterrupt):
    """Training was interrupted; a checkpoint has been saved, and the message says how to go on.

    Attributes:
        signal: Number of the signal; that of Ctrl-C where another process got it.
        sentence: What the command says; None where it has no option to go on with, and says something of its own.
    """

    signal: int = signal.SIGINT
    sentence: str | None = None


class Interruption(threading.Event):
    """Is set by a signal, whose number it keeps."""

    number: int = signal.SIGINT


@contextmanager
def interruption() -> Iterator[Interruption]:
    """An event that SIGINT and SIGTERM set, so that a step is finished first; a second one interrupts at once."""
    event = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def note(number: int, frame: FrameType | None) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.number = number
        event.set()

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
