"""`fmri-models fit-processor`."""

import argparse

from .console import quiet_loading


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "fit-processor",
        help="give a pipeline the statistics of a table's training trials",
        description="Replace a saved pipeline's processor by one fitted on the training trials of a table.",
        epilog="example:\n  fmri-models fit-processor converted/mindeye --data my_table",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL_DIR", help="a saved pipeline")
    parser.add_argument("--data", metavar="DIR", required=True, help="the trial table")
    parser.add_argument("--statistics", choices=("pooled", "session"), default="session")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    from ..training.refit import refit_processor

    quiet_loading()
    processor = refit_processor(args.model, args.data, args.statistics)
    print(f"fitted the processor of {args.model} for {', '.join(processor.subject_names)}")
