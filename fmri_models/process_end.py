"""How the process of a command ends before its work is done: by an error that becomes a sentence, or by a signal."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from .errors import FmriModelsError, system_sentence
from .names import one_line

_MAX_MESSAGE = 2000
# How PyTorch says, in a RuntimeError, that there is no memory left.
_OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "not enough memory", "bad allocation")


class Terminated(KeyboardInterrupt):
    """A signal asked the process to end.

    Args:
        number: Number of the signal.

    Attributes:
        signal: The same.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"ended by {signal.Signals(number).name}")
        self.signal = number


@contextmanager
def signals_as_exceptions() -> Iterator[None]:
    """Has SIGTERM and SIGHUP raise [`Terminated`] inside the block, so that what is being written is cleaned up.

    SIGINT raises `KeyboardInterrupt` as always; each does so too where a library has made another error of it. A signal
    that the caller had ignored, as `nohup` does, stays so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    process = os.getpid()
    received: list[int] = []
    is_over = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if not is_over:
            raise KeyboardInterrupt

    def end(number: int, frame: FrameType | None) -> None:
        # Processes that were forked inherit the handler, and have nothing of their own to clean up.
        if os.getpid() != process:
            os._exit(128 + number)
        # Whoever repeats it does not disturb the cleaning up.
        signal.signal(number, signal.SIG_IGN)
        received.append(number)
        if not is_over:
            raise Terminated(number)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    handled = [number for number, handler in before.items() if handler not in (None, signal.SIG_IGN)]
    try:
        for number in handled:
            signal.signal(number, interrupt if number == signal.SIGINT else end)
        yield
    except Terminated:
        raise
    except KeyboardInterrupt as raised:
        # Some libraries raise it anew, whatever the signal was.
        if received[:1] in ([], [signal.SIGINT]) or hasattr(raised, "sentence"):
            raise
        raise Terminated(received[0]) from raised
    except Exception as error:
        # Some libraries take an interrupt for an error of their own.
        for came in received[:1]:
            raise (KeyboardInterrupt() if came == signal.SIGINT else Terminated(came)) from error
        raise
    finally:
        # From here on they are only noted, so that every handler is put back.
        is_over, earlier = True, len(received)
        for number in handled:
            signal.signal(number, before[number])
        for came in received[earlier:]:
            raise KeyboardInterrupt if came == signal.SIGINT else Terminated(came)


def exit_code(interrupt: KeyboardInterrupt) -> int:
    """128 and the number of the signal, as shells have it."""
    return 128 + int(getattr(interrupt, "signal", signal.SIGINT))


def interrupted_sentence(interrupt: KeyboardInterrupt) -> str:
    """What a command says that was interrupted: its own sentence, if it has one on how to go on (`sentence`)."""
    own = getattr(interrupt, "sentence", None)
    return str(own) if own else f"{str(interrupt) or 'interrupted'}; what was complete has been kept."


def sentence_of(error: BaseException) -> str | None:
    """What a user can do about an error, on one line; None for one that nobody has foreseen."""
    text: str | None = None
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno is not None):
        text = system_sentence(error)
    elif isinstance(error, FmriModelsError | OSError):
        text = str(error) or type(error).__name__
    elif isinstance(error, RecursionError):
        text = "What was given is nested deeper than can be read; give something flatter."
    elif isinstance(error, RuntimeError) and any(part in str(error) for part in _OUT_OF_MEMORY):
        text = system_sentence(MemoryError(str(error)))
    return None if text is None else shown(text)


def shown(message: object) -> str:
    """A message as a terminal may show it: one line without control characters, cut where it fills the screen."""
    return one_line(" ".join(str(message).split()), _MAX_MESSAGE)
