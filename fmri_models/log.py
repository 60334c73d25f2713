"""The package's logger, which says as much as that of transformers does; its modules' loggers are below it."""

import logging
import sys

_PACKAGE = __package__ or "fmri_models"


class _Follower(logging.Logger):
    """Has the level that somebody sets, and that of transformers as long as nobody does."""

    @property
    def level(self) -> int:
        return self.__dict__.get("level") or logging.getLogger("transformers").level

    @level.setter
    def level(self, value: int) -> None:
        self.__dict__["level"] = value


class _LastResort(logging.StreamHandler):
    """Says by whom a line is, and leaves it to handlers of others where there are some, as Python's own last resort."""

    def emit(self, record: logging.LogRecord) -> None:
        if not logging.root.handlers and len(logging.getLogger(_PACKAGE).handlers) == 1:
            self.stream = sys.stderr
            super().emit(record)


def follow_transformers() -> None:
    """Lets transformers' switches (`set_verbosity_error()`, `TRANSFORMERS_VERBOSITY`) hold for the package's logger."""
    logger = logging.getLogger(_PACKAGE)
    if not isinstance(logger, _Follower):
        # It may be there already, with a level of its user's, so it is changed and not replaced.
        logger.__class__ = _Follower
        handler = _LastResort()
        handler.setFormatter(logging.Formatter(f"[{_PACKAGE}] %(message)s"))
        logger.addHandler(handler)
