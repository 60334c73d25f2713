"""`fmri-models card`."""

import argparse
from typing import Any

from ..command_output import load_libraries
from .console import check_model_is_there


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "card",
        help="write a pipeline's model card",
        description=(
            "Write README.md, the model card, into a saved pipeline. Its figures come from a report of this very "
            "pipeline, given or beside it; without one the card says that nothing was measured. The license is yours "
            "to state: add it to the card's header, and writing the card again keeps it."
        ),
        epilog=(
            "examples:\n  fmri-models card outputs/demo/pipeline --report outputs/demo/report.json\n"
            "  fmri-models card outputs/linear"
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("pipeline", metavar="DIR", help="the pipeline's folder")
    parser.add_argument(
        "--report", metavar="REPORT.json", help="report.json, or the folder that has it (default: the one in DIR)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from pathlib import Path

    check_model_is_there(args.pipeline)
    load_libraries()
    from ..evaluation.report import Report
    from ..hub.cards import write_card, write_card_of_folder

    measured = args.report is not None or (Path(args.pipeline) / "report.json").is_file()
    if args.report is not None:
        card = write_card(args.pipeline, Report.load(args.report))
    else:
        card = write_card_of_folder(args.pipeline)
    print(f"wrote {card}")
    if not measured:
        print("no report was given, so the card says that nothing was measured (--report REPORT.json)")
    return {"card": card, "has_figures": measured}
