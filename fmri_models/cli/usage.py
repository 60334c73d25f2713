"""Errors that the command line tells apart."""

import argparse
from collections.abc import Iterable

from ..errors import FmriModelsError


class UsageError(FmriModelsError):
    """The command was called in a way that can't work, whatever the data; exit code 2."""


class WrongUsage(SystemExit):
    """argparse ended the command, which has said why.

    Args:
        message: Why.
    """

    def __init__(self, message: str) -> None:
        super().__init__(2)
        self.message = message


def check_option_once(option: argparse.Action, namespace: argparse.Namespace) -> None:
    """Refuses an option that was given before, for actions that keep the last of several values.

    Raises:
        UsageError: Names it.
    """
    given = vars(namespace).setdefault("_given", set())
    if option.dest in given:
        raise UsageError(f"{'/'.join(option.option_strings)} is given twice, and means one thing; give it once.")
    given.add(option.dest)


def check_without(args: argparse.Namespace, options: Iterable[str], reason: str) -> None:
    """Refuses options that mean nothing in the way in which a command was called.

    Args:
        args: What was given.
        options: Their names in `args`.
        reason: Why, as the end of a sentence that begins with them.

    Raises:
        UsageError: Names those that were given, their defaults included.
    """
    typed = vars(args).get("_given", ())
    given = [f"--{name.replace('_', '-')}" for name in options if name in typed or getattr(args, name) is True]
    if given:
        raise UsageError(f"{', '.join(given)} {'has' if len(given) == 1 else 'have'} no effect here: {reason}.")
