"""Errors that the command line tells apart."""

from ..errors import FmriModelsError


class UsageError(FmriModelsError):
    """The command was called in a way that can't work, whatever the data; exit code 2."""
