"""Entry point of the command `fmri-models`: light, so that `--help` answers at once."""

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module

from ..errors import FmriModelsError
from ..process_memory import keep_freed_memory
from ..version import __version__
from .usage import UsageError

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
    "card",
    "space",
)


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; each module in `fmri_models.cli` adds its own."""
    parser = argparse.ArgumentParser(
        prog="fmri-models",
        description="Reconstruct pictures from brain activity: data, training, reconstruction, evaluation.",
        epilog="example:\n  fmri-models demo --out outputs/demo",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"fmri-models {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        import_module(f"{__package__}.{command}").add_parser(subparsers)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Returns:
        0 done, 1 a problem with what the user gave, 2 wrong usage.
    """
    # Nobody types --debug before the command, so it is accepted anywhere.
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    parsed = _parse([argument for argument in arguments if argument != "--debug"])
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "warning")
    keep_freed_memory()
    try:
        parsed.run(parsed)
    except UsageError as error:
        return _failed(error, debug, 2)
    except KeyboardInterrupt:
        print("fmri-models: interrupted; what was complete has been kept.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output, such as `head`, has seen enough; Python must not try to flush to it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (FmriModelsError, OSError, MemoryError) as error:
        return _failed(error, debug, 1)
    except Exception as error:
        return _failed(error, debug, 1, prefix=f"unexpected {type(error).__name__}: ", hint=" (--debug shows where)")
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = build_parser()
    parsed, rest = parser.parse_known_args(arguments)
    # argparse takes a list of positional arguments in one piece; key=value may also stand behind an option.
    late = [argument for argument in rest if "=" in argument and not argument.startswith("-")]
    if rest and not (late == rest and hasattr(parsed, "overrides")):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if late:
        parsed.overrides = [*parsed.overrides, *late]
    return parsed


def _failed(error: BaseException, debug: bool, code: int, prefix: str = "", hint: str = "") -> int:
    if debug:
        traceback.print_exc()
    message = " ".join(str(error).split()) or type(error).__name__
    print(f"fmri-models: error: {prefix}{message}{hint}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
