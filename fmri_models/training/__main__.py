"""`python -m fmri_models.training RECIPE [key=value ...]`: `fmri-models train` for torchrun and accelerate launch."""

import argparse
import os
import sys
import traceback
from collections.abc import Sequence

from .. import progress
from ..command_output import in_sentences, with_environment, writable_streams
from ..process_end import exit_code, interrupted_sentence, sentence_of, signals_as_exceptions
from ..process_memory import keep_freed_memory
from ..process_threads import brief_waiting
from .command import add_arguments, run

_IS_MAIN = os.environ.get("RANK", "0") == "0"


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains in one of possibly several processes.

    Returns:
        0 done, 1 a problem with what the user gave, 128 and the signal's number after a signal.
    """
    with writable_streams():
        return _main(arguments)


def _main(arguments: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m fmri_models.training",
        description="Train what a recipe says; the result is a pipeline folder.",
        epilog="example:\n  torchrun --nproc_per_node 2 -m fmri_models.training RECIPE data=DIR out=DIR",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    args = parser.parse_intermixed_args(arguments)
    environment = brief_waiting()
    if not _IS_MAIN:
        environment["TRANSFORMERS_VERBOSITY"] = os.environ.get("TRANSFORMERS_VERBOSITY", "error")
    keep_freed_memory()
    try:
        with signals_as_exceptions(), with_environment(environment), in_sentences("fmri_models.training"):
            run(args)
    except KeyboardInterrupt as interrupt:
        if _IS_MAIN:
            progress.close_bars()
            print(f"fmri_models.training: {interrupted_sentence(interrupt)}", file=sys.stderr)
        return exit_code(interrupt)
    except Exception as error:
        message = sentence_of(error)
        if args.debug or message is None:
            traceback.print_exc()
        elif _IS_MAIN:
            progress.close_bars()
            print(f"fmri_models.training: error: {message}", file=sys.stderr)
        return 1
    from .processes import leave

    leave()
    return 0


if __name__ == "__main__":
    sys.exit(main())
