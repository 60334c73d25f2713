"""What a command has found: text for people, or with `--json` one JSON object for programs; one way for all commands.

Each `run` prints for people and returns what it has found, or None if there is nothing. With `--json`, whatever is
printed goes to standard error, and what `run` returns, or the error, is the only thing on standard output.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any

from ..errors import FmriModelsError
from ..plain_values import plain

OPTION = "--json"
# They serve a page, or print a script.
_WITHOUT = ("space", "completion")


class FailedWithResultError(FmriModelsError):
    """A command failed, and what it has found until then is a part of what it says.

    Args:
        message: The sentence.
        result: What was found.
    """

    def __init__(self, message: str, result: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.result = result


@dataclass
class Output:
    """What will be written of a command.

    Args:
        result: By name; None for nothing.
    """

    result: Mapping[str, Any] | None = None

    def failed(self, error: BaseException, message: str) -> None:
        """Takes an error for the result."""
        self.result = {**getattr(error, "result", {}), "error": message}


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Adds `--json` to every command that has results."""
    for name, command in commands_of(parser).items():
        if name in _WITHOUT:
            continue
        if commands_of(command):
            add_json_option(command)
        else:
            command.add_argument(
                OPTION,
                action="store_true",
                help="print the results as one JSON object, and everything else on standard error",
            )


def commands_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of the commands below one; none where there are no further ones."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def moved_to_end(arguments: list[str]) -> list[str]:
    """Arguments with `--json` behind the command, wherever it was typed."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    if OPTION not in arguments[:end]:
        return arguments
    return [*(argument for argument in arguments[:end] if argument != OPTION), OPTION, *arguments[end:]]


def is_json_wanted(arguments: Iterable[str]) -> bool:
    """Whether a program reads what comes, however it has written the option."""
    return any(argument.partition("=")[0] == OPTION for argument in arguments)


@contextmanager
def results_on_output(wanted: bool) -> Iterator[Output]:
    """After the block, the results are on standard output if they are `wanted` as JSON.

    Raises:
        OSError: Standard output can't be written.
    """
    output = Output()
    yield output
    if wanted:
        print(json.dumps(plain(output.result or {}), indent=2, allow_nan=False))
    # What can't be written here would be met after the last line of ours.
    sys.stdout.flush()


@contextmanager
def all_else_on_errors(wanted: bool) -> Iterator[None]:
    """Inside the block, what is printed goes to standard error if the results are `wanted` as JSON."""
    if not wanted:
        yield
        return
    with redirect_stdout(sys.stderr), _programs_redirected():
        yield


@contextmanager
def _programs_redirected() -> Iterator[None]:
    """Sends what other programs and libraries in C write on standard output to standard error."""
    try:
        ours, errors = sys.__stdout__.fileno(), sys.stderr.fileno()  # type: ignore[union-attr]
        kept = os.dup(ours)
    except (AttributeError, OSError, ValueError):
        # There is no such file, as under a program that has replaced it.
        yield
        return
    try:
        sys.__stdout__.flush()  # type: ignore[union-attr]
        os.dup2(errors, ours)
        yield
    finally:
        os.dup2(kept, ours)
        os.close(kept)
