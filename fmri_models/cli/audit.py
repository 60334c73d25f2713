"""`fmri-models audit`."""

import argparse
from pathlib import Path
from typing import Any

from ..command_output import load_libraries
from ..names import one_line
from .console import SeedOption, check_model_is_there


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "audit",
        help="measure what a pipeline's weights give away of the people that it learned from",
        description=(
            "Measure, before weights are published, what they give away: which pictures were trained on (training "
            "pictures against held-out ones of the same sessions), and whose layer is whose (a subject's held-out "
            "trials through the layers of all subjects of that width). Areas under the ROC curve with intervals, and "
            "what they mean; docs/audit.md says how."
        ),
        epilog="example:\n  fmri-models audit outputs/demo/pipeline --data outputs/demo/data --out outputs/demo/audit",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="DIR_OR_REPO", help="a pipeline")
    parser.add_argument("--data", metavar="TABLE", required=True, help="the trial table that it was trained on")
    parser.add_argument("--subject", action="append", help="one of its subjects; may be given again (default: all)")
    parser.add_argument("--out", metavar="DIR", type=Path, help="write audit.json and audit.md there, too")
    parser.add_argument("--seed", type=int, action=SeedOption, default=0)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> dict[str, Any]:
    check_model_is_there(args.model)
    load_libraries()
    from ..auditing.audit import Audit, means
    from ..output_folders import check_merged_folder
    from ..terminal_text import terminal_width, wrapped

    if args.out is not None:
        check_merged_folder(args.out, overwrite=True)
    audit = Audit.of(args.model, args.data, args.seed, args.subject)
    for line in [*audit.lines(), *audit.notes]:
        print("\n".join(wrapped(one_line(line, 2000), terminal_width(), further="  ")))
    print()
    for paragraph in means():
        print("\n".join([*wrapped(paragraph, terminal_width()), ""]))
    if args.out is not None:
        audit.save(args.out)
        print(f"wrote {one_line(args.out)}/audit.json, audit.md")
    return audit.to_dict()
