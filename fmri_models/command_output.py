"""What a command says beside its results: warnings and notes as one line each, on standard error, once each."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def in_sentences(program: str) -> Iterator[None]:
    """Inside the block, Python's warnings and the package's log are sentences of the command, and bars are ours.

    Args:
        program: What they begin with.
    """
    handler, logger = _Sentences(program), logging.getLogger(_PACKAGE)
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with progress.in_place_of_libraries(), warnings.catch_warnings():
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
