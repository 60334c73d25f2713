"""Entry point of the command `fmri-models`: light, so that `--help` answers at once."""

import argparse
import os
import re
import sys
import traceback
import unicodedata
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any, NoReturn

from .. import progress
from ..command_output import in_sentences, with_environment, writable_streams
from ..names import did_you_mean, one_line
from ..process_end import exit_code, interrupted_sentence, sentence_of, shown, signals_as_exceptions
from ..process_memory import keep_freed_memory
from ..process_threads import brief_waiting
from ..project import issue_tracker
from ..version import __version__
from .results import add_json_option, all_else_on_errors, is_json_wanted, moved_to_end, results_on_output
from .usage import UsageError, WrongUsage, check_option_once

COMMANDS = (
    "demo",
    "simulate",
    "prepare",
    "data",
    "train",
    "fit_processor",
    "reconstruct",
    "retrieve",
    "evaluate",
    "compare",
    "convert",
    "subjects",
    "audit",
    "card",
    "push",
    "push_space",
    "list",
    "space",
    "completion",
)


_FLAG = re.compile(r"--[a-z][a-z-]*")
# How argparse says that a value is none of those that it may be.
_CHOICE = re.compile(r"invalid choice: '([^']*)' \(choose from (.*)\)")
# Texts that may be empty; anywhere else it means a variable of the shell that was not set.
_MAY_BE_EMPTY = ("--name",)


class _GivenOnce(argparse._StoreAction):
    """An option with a value, of which a second one would replace the first without a word."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:
        if option_string is not None:
            check_option_once(self, namespace)
        super().__call__(parser, namespace, values, option_string)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong without what a terminal would act on, and takes no option for another that begins so."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **options})
        for name in (None, "store"):
            self.register("action", name, _GivenOnce)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self._given = [str(argument).partition("=")[0] for argument in args or []]
        parsed, rest = super().parse_known_args(args, namespace)
        # The parser of a command comes back before the one that has called it.
        if not hasattr(parsed, "known_flags"):
            parsed.known_flags = self._flags
        return parsed, rest

    def error(self, message: str) -> NoReturn:
        choice = _CHOICE.search(message)
        hint = did_you_mean(choice[1], re.findall(r"[\w-]+", choice[2])) if choice else ""
        if message.startswith("the following arguments are required"):
            unknown = [each for each in self._given if each.startswith("--") and each not in self._flags]
            hint = f"; {unknown[0]} is unknown.{did_you_mean(unknown[0], self._flags)}" if unknown else ""
        try:
            super().error(shown(message + hint))
        except SystemExit as ended:
            raise WrongUsage(shown(message + hint)) from ended

    @property
    def _flags(self) -> list[str]:
        return _FLAG.findall(self.format_usage())


def _where_to_report() -> str:
    return f"\n\nproblems and questions: {issue_tracker()}" if issue_tracker() else ""


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; each module in `fmri_models.cli` adds its own."""
    parser = _Parser(
        prog="fmri-models",
        description="Reconstruct pictures from brain activity: data, training, reconstruction, evaluation.",
        epilog="example:\n  fmri-models demo --out outputs/demo" + _where_to_report(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"fmri-models {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        import_module(f"{__package__}.{command}").add_parser(subparsers)
    add_json_option(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; what it changes of the process is as before afterwards.

    Returns:
        0 done, 1 a problem with what the user gave, 2 wrong usage, 128 and the signal's number after a signal.
    """
    with writable_streams():
        try:
            return _main(arguments)
        # In the moments before and after the command.
        except KeyboardInterrupt as interrupt:
            _say_at_end(interrupted_sentence(interrupt))
            return exit_code(interrupt)


def _main(arguments: Sequence[str] | None) -> int:
    # Nobody types --debug before the command, so it is accepted anywhere.
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = moved_to_end([argument for argument in arguments if argument != "--debug"])
    wrong_usage: WrongUsage | None = None
    try:
        with signals_as_exceptions(), results_on_output(is_json_wanted(arguments)) as output:
            try:
                # What a library makes of a signal is the signal again before anybody takes it for a failure.
                with signals_as_exceptions():
                    output.result = _run(arguments)
                return 0
            except WrongUsage as ended:
                wrong_usage, code = ended, 2
                output.failed(ended, ended.message)
            except KeyboardInterrupt as interrupt:
                code, sentence = exit_code(interrupt), interrupted_sentence(interrupt)
                output.failed(interrupt, sentence)
                _say_at_end(sentence)
            except (BrokenPipeError, SystemExit):
                raise
            # Some libraries written in Rust panic by an exception that is no Exception.
            except BaseException as error:
                if debug:
                    traceback.print_exc()
                code, sentence = 2 if isinstance(error, UsageError) else 1, _message(error)
                output.failed(error, sentence)
                _say_at_end(f"error: {sentence}")
    except BrokenPipeError:
        # The reader of our output, such as `head`, has seen enough.
        _drop_output()
        return 0
    except OSError as error:
        # The output itself can't be written, which would be met once more when Python ends.
        _drop_output()
        _say_at_end(f"error: {_message(error)}")
        return 1
    if wrong_usage is not None:
        raise wrong_usage
    return code


def _run(arguments: list[str]) -> Mapping[str, Any] | None:
    _check_arguments(arguments)
    parsed = _parse(arguments)
    keep_freed_memory()
    # What was asked for instead of results, such as --help, is on standard output by now.
    with (
        all_else_on_errors(is_json_wanted(arguments)),
        with_environment(brief_waiting()),
        in_sentences("fmri-models"),
    ):
        return parsed.run(parsed)


def _check_arguments(arguments: Sequence[str]) -> None:
    """Refuses what no command can use: names of files that are no text, and values that are empty.

    Raises:
        UsageError: Names the first such argument.
    """
    for before, argument in zip(["", *arguments], arguments, strict=False):
        joined = argument.startswith("--") and argument.endswith("=")
        option = argument.removesuffix("=") if joined else before
        if (joined or not argument) and option not in _MAY_BE_EMPTY:
            named = f"The value of {one_line(option)}" if option.startswith("-") else "An argument"
            raise UsageError(f"{named} is empty; give one, or check the shell's variable that it comes from.")
        allowed = "\n\t" if "=" in argument else ""
        if any(unicodedata.category(each) in ("Cc", "Cs") and each not in allowed for each in argument):
            raise UsageError(
                f"The argument {one_line(repr(argument))} has control characters or is no text in UTF-8; rename the "
                "file or folder."
            )


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = build_parser()
    parsed, rest = parser.parse_known_args(arguments)
    # argparse takes a list of positional arguments in one piece; key=value may also stand behind an option.
    late = [argument for argument in rest if "=" in argument and not argument.startswith("-")]
    if rest and not (late == rest and hasattr(parsed, "overrides")):
        flag = next((argument for argument in rest if argument.startswith("-")), rest[0])
        hint = did_you_mean(flag.partition("=")[0], parsed.known_flags)
        if flag.partition("=")[0] in parsed.known_flags:
            hint = f" What follows -- is no option; put {flag} before it." if "--" in arguments else ""
        if not flag.startswith("-"):
            hint = f" {flag!r} stands behind no option; there are {', '.join(parsed.known_flags)}."
        parser.error(f"unrecognized arguments: {' '.join(rest)}{hint and f'.{hint}'}")
    if late:
        parsed.overrides = [*parsed.overrides, *late]
    return parsed


def _drop_output() -> None:
    """Has Python not try to write the rest of the output again when it ends."""
    # One that is no file, as of a program that runs commands, is that program's affair.
    with suppress(OSError, ValueError), open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), sys.stdout.fileno())


def _say_at_end(sentence: str) -> None:
    progress.close_bars()
    print(f"fmri-models: {sentence}", file=sys.stderr)


def _message(error: BaseException) -> str:
    return sentence_of(error) or f"unexpected {type(error).__name__}: {shown(error)} (--debug shows where)"


if __name__ == "__main__":
    sys.exit(main())
