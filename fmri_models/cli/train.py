"""`fmri-models train`."""

import argparse

from ..training.command import add_arguments, run


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "train",
        help="train a recipe on a trial table",
        description="Train what a recipe says; the result is a pipeline folder.",
        epilog="example:\n  fmri-models train linear data=outputs/demo/data out=outputs/linear subjects=[subj01]\n\n"
        "In several processes: torchrun --nproc_per_node 2 -m fmri_models.training RECIPE [key=value ...]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    parser.set_defaults(run=run)
