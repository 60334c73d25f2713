"""`fmri-models fit-processor`."""

import argparse
from pathlib import Path
from typing import Any

from ..command_output import load_libraries
from ..names import one_line
from .console import add_unseen_session, check_model_is_there
from .usage import UsageError


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "fit-processor",
        help="give a pipeline the statistics of a table's training trials",
        description=(
            "Replace a saved pipeline's processor by one fitted on the training trials of a table. A model card that "
            "is there is written again, without figures: what was measured before is not true of the new processor."
        ),
        epilog=(
            "examples:\n  fmri-models fit-processor converted/mindeye --data my_table\n"
            "  fmri-models fit-processor converted/mindeye --data my_table --subject subj01=anna"
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL_DIR", help="a saved pipeline")
    parser.add_argument("--data", metavar="DIR", required=True, help="the trial table")
    parser.add_argument(
        "--statistics",
        choices=("pooled", "session"),
        help="over all training trials or by session (default: as the processor has or is to have them; by session for "
        "one that passes betas on as they are)",
    )
    parser.add_argument(
        "--subject",
        metavar="MODEL=TABLE",
        action="append",
        default=[],
        help="the table's name of a subject of the model, which takes that name; once for each that differs",
    )
    add_unseen_session(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> dict[str, Any]:
    subjects = _subjects(args.subject)
    check_model_is_there(args.model)
    load_libraries()
    from ..hub.cards import has_card, write_card
    from ..training.refit import refit_processor

    # Asked first, because a README.md of somebody else's is refused.
    rewrite_card = has_card(args.model) or (Path(args.model) / "report.json").is_file()
    processor = refit_processor(args.model, args.data, args.statistics, subjects, args.unseen_session)
    print(f"fitted the processor of {args.model} for {', '.join(processor.subject_names)}")
    card = write_card(args.model) if rewrite_card else None
    if card is not None:
        print(f"wrote {card}, without figures or an earlier report: evaluate the model again")
    return {"pipeline": args.model, "subjects": processor.subject_names, "card": card}


def _subjects(mappings: list[str]) -> dict[str, str]:
    pairs = [mapping.partition("=") for mapping in mappings]
    for mapping, (own, _, in_table) in zip(mappings, pairs, strict=True):
        if not own or not in_table:
            raise UsageError(f"--subject {one_line(mapping)} is not of the form MODEL=TABLE, such as subj01=anna.")
    names = [own for own, _, _ in pairs]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"--subject names {one_line(twice)} twice; name each subject of the model once.")
    return {own: in_table for own, _, in_table in pairs}
