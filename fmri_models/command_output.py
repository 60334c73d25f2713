"""What a command says beside its results: warnings and notes as one line each, on standard error, once each.

Where a command ends within a process that goes on, what was changed for it is as it was before.
"""

import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from . import progress
from .names import one_line

_PACKAGE = __package__ or "fmri_models"
_MOST = 2000
# What tells developers of things to come, and users of nothing that they could do.
_CHATTER = (DeprecationWarning, PendingDeprecationWarning, FutureWarning)
# Libraries' own switches, read when they are imported. A fork after a tokenizer was used would be warned of.
_ENVIRONMENT = {
    "TRANSFORMERS_VERBOSITY": "warning",
    "DIFFUSERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
}


# Their loggers, and what says how much they say.
_LIBRARIES = {"transformers": "TRANSFORMERS_VERBOSITY", "diffusers": "DIFFUSERS_VERBOSITY"}


@contextmanager
def writable_streams() -> Iterator[None]:
    """Inside the block, standard output and standard error take whatever is written.

    Characters that they can't encode are escaped, as Python does on standard error. Where a stream has been closed
    (`>&-`), what is written to it is dropped, and no file that is opened takes its place.
    """
    with ExitStack() as stack:
        for name, number in (("stdout", 1), ("stderr", 2)):
            stream = getattr(sys, name)
            if stream is None:
                _occupy(number)
                setattr(sys, name, stack.enter_context(open(os.devnull, "w", encoding="utf-8")))
                stack.callback(setattr, sys, name, None)
            elif isinstance(stream, io.TextIOWrapper) and stream.errors != "backslashreplace":
                # It writes what it still holds first, which is for whoever writes next to meet.
                with suppress(OSError, ValueError):
                    stack.callback(_reconfigure, stream, stream.errors)
                    stream.reconfigure(errors="backslashreplace")
        yield


def _reconfigure(stream: io.TextIOWrapper, errors: str | None) -> None:
    with suppress(OSError, ValueError):
        stream.reconfigure(errors=errors)


def _occupy(descriptor: int) -> None:
    """Opens nothing as a descriptor that is closed, unless a file has it already."""
    try:
        os.fstat(descriptor)
    except OSError:
        opened = os.open(os.devnull, os.O_RDWR)
        if opened != descriptor:
            os.dup2(opened, descriptor)
            os.close(opened)


@contextmanager
def with_environment(values: Mapping[str, str]) -> Iterator[None]:
    """Inside the block, variables of the environment have these values."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _libraries_as_before() -> Iterator[None]:
    """Whatever is said to libraries in the block of what they log, they log as before afterwards."""
    before = {name: logging.getLogger(name).level for name in _LIBRARIES if name in sys.modules}
    try:
        yield
    finally:
        for name, variable in _LIBRARIES.items():
            # One that was imported in the block has the level that it would have begun with elsewhere.
            begun = _level(os.environ.get(variable, ""))
            if name in sys.modules:
                logging.getLogger(name).setLevel(before.get(name, begun))


def _level(name: str) -> int:
    """What the libraries begin with, by what their variable says."""
    return {**logging.getLevelNamesMapping(), "DETAIL": logging.DEBUG}.get(name.upper(), logging.WARNING)


@contextmanager
def in_sentences(program: str) -> Iterator[None]:
    """Inside the block, Python's warnings and the package's log are sentences of the command, and bars are ours.

    Args:
        program: What they begin with.
    """
    handler, logger = _Sentences(program), logging.getLogger(_PACKAGE)
    # What was set, which is nothing as long as it follows that of transformers.
    level = vars(logger)["level"]
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with (
            _libraries_as_before(),
            with_environment(
                {**_ENVIRONMENT, **{name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}}
            ),
            progress.in_place_of_libraries(),
            warnings.catch_warnings(),
        ):
            if not sys.warnoptions:
                for category in _CHATTER:
                    warnings.simplefilter("ignore", category)
            warnings.showwarning = handler.show  # type: ignore[assignment]
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def load_libraries() -> None:
    """Loads PyTorch and the libraries of models, and turns off what they say of loading and saving themselves."""
    # Seconds the first time, and more where the disk is slow.
    with progress.phase("Loading PyTorch, transformers and diffusers", disable="diffusers" in sys.modules):
        import diffusers
        import transformers

    progress.turn_off_libraries()
    diffusers.utils.logging.set_verbosity_error()
    transformers.utils.logging.set_verbosity(max(logging.WARNING, transformers.utils.logging.get_verbosity()))


class _Sentences(logging.Handler):
    """Says each sentence once, above the bars."""

    def __init__(self, program: str) -> None:
        super().__init__()
        self._program = program
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Says what was logged; called by the package's loggers."""
        self.say(record.getMessage(), "warning: " if record.levelno >= logging.WARNING else "")

    def show(self, message: Warning | str, category: type[Warning], filename: str, lineno: int, *rest: Any) -> None:
        """Says a warning, and not where in the code it was; takes the place of `warnings.showwarning`."""
        self.say(str(message))

    def say(self, sentence: str, kind: str = "warning: ") -> None:
        """Writes a sentence that was not said yet."""
        if not progress.is_first_process() or sentence in self._said:
            return
        self._said.add(sentence)
        progress.write(f"{self._program}: {kind}{one_line(' '.join(sentence.split()), _MOST)}")
