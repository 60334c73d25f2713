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
            "pipeline, given or beside it; without one the card says that nothing was measured. Licence and "
            "consent are yours to state; what an earlier card says of them is kept."
        ),
        epilog=(
            "examples:\n  fmri-models card outputs/demo/pipeline --report outputs/demo/report.json\n"
            '  fmri-models card outputs/linear --licence cc-by-4.0 --consent "subject 1, consent form of March 2026"'
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("pipeline", metavar="DIR", help="the pipeline's folder")
    parser.add_argument(
        "--report", metavar="REPORT.json", help="report.json, or the folder that has it (default: the one in DIR)"
    )
    add_statements(parser)
    parser.set_defaults(run=run)


def add_statements(parser: argparse.ArgumentParser) -> None:
    """Adds options for what only the owner of the weights can state."""
    parser.add_argument(
        "--licence",
        "--license",
        dest="license",
        metavar="LICENCE",
        help="licence of the weights: an id of the Hub (cc-by-4.0), or another name or address",
    )
    parser.add_argument(
        "--consent", metavar="TEXT", help="whose consent covers that the weights are published, in a line"
    )
    parser.add_argument(
        "--permission",
        metavar="TEXT",
        help="the written permission to pass data on whose licence forbids it, in a line",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    from pathlib import Path

    check_model_is_there(args.pipeline)
    load_libraries()
    from ..evaluation.report import Report
    from ..hub.cards import write_card, write_card_of_folder
    from ..hub.owner_statements import OwnerStatements

    statements = OwnerStatements(args.license, args.consent, args.permission)
    measured = args.report is not None or (Path(args.pipeline) / "report.json").is_file()
    if args.report is not None:
        card = write_card(args.pipeline, Report.load(args.report), statements)
    else:
        card = write_card_of_folder(args.pipeline, statements)
    print(f"wrote {card}")
    if not measured:
        print("no report was given, so the card says that nothing was measured (--report REPORT.json)")
    return {"card": card, "has_figures": measured}
