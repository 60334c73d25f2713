"""`python -m fmri_models.training RECIPE [key=value ...]`: `fmri-models train` for torchrun and accelerate launch."""

import argparse
import os
import sys
import traceback
from collections.abc import Sequence

from ..errors import FmriModelsError
from ..process_memory import keep_freed_memory
from .command import add_arguments, run

_IS_MAIN = os.environ.get("RANK", "0") == "0"


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains in one of possibly several processes.

    Returns:
        0 done, 1 a problem with what the user gave.
    """
    parser = argparse.ArgumentParser(
        prog="python -m fmri_models.training",
        description="Train what a recipe says; the result is a pipeline folder.",
        epilog="example:\n  torchrun --nproc_per_node 2 -m fmri_models.training RECIPE data=DIR out=DIR",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    args = parser.parse_intermixed_args(arguments)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "warning" if _IS_MAIN else "error")
    keep_freed_memory()
    try:
        run(args)
    except (FmriModelsError, OSError, MemoryError) as error:
        if args.debug:
            traceback.print_exc()
        elif _IS_MAIN:
            print(f"fmri_models.training: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    from .processes import leave

    leave()
    return 0


if __name__ == "__main__":
    sys.exit(main())
