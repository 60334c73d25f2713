"""`fmri-models push-space`."""

import argparse
from pathlib import Path
from typing import Any

from ..command_output import load_libraries
from ..names import one_line
from .card import add_statements
from .console import print_notes
from .push import print_files
from .usage import UsageError


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "push-space",
        help="publish the page of `fmri-models space` as a Space of the Hub",
        description=(
            "Upload the page to a Space of the Hub (SDK gradio), in one commit: the page, a wheel of this package, as "
            "long as none is published, and a requirements.txt for a CPU. It shows the example that the package "
            "carries, or a pipeline on the test trials of a table: repositories of the Hub, or folders here, which are "
            "checked as `fmri-models push` does and go up with it. What somebody has written into the Space's "
            "README.md stays there."
        ),
        epilog=(
            "examples:\n  fmri-models push-space user/images-from-fmri --dry-run\n"
            "  fmri-models push-space user/images-from-fmri --model user/name --data user/name\n"
            "  fmri-models push-space user/mine --private --model outputs/demo/pipeline --data outputs/demo/data"
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("repository", metavar="SPACE", help="user/name, or a name in your namespace")
    parser.add_argument("--model", metavar="DIR_OR_REPO", help="the pipeline (default: the example)")
    parser.add_argument("--data", metavar="DIR_OR_REPO", help="the trial table (default: the example's)")
    parser.add_argument("--private", action="store_true", help="a Space that is made is private")
    parser.add_argument("--dry-run", action="store_true", help="say what would go up, with sizes, and send nothing")
    parser.add_argument(
        "--wheel",
        metavar="FILE",
        type=Path,
        help="a wheel of fmri_models (default: built of the clone that the command runs from)",
    )
    parser.add_argument("--unevaluated", action="store_true", help="upload a pipeline that has no report")
    add_statements(parser)
    parser.add_argument("--message", metavar="TEXT", help="first line of the commit")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> dict[str, Any]:
    if (args.model is None) != (args.data is None):
        raise UsageError(
            "--model and --data go together: the page shows a pipeline on the test trials of a table; give both, or "
            "neither for the example."
        )
    load_libraries()
    from ..hub.own_wheel import own_wheel
    from ..hub.owner_statements import OwnerStatements
    from ..hub.space_publishing import space_publication

    statements = OwnerStatements(args.license, args.consent, args.permission)
    with own_wheel(args.wheel) as wheel:
        found = space_publication(
            wheel, args.model, args.data, statements, args.unevaluated, write=not args.dry_run, private=args.private
        )
        sizes = found.sizes()
        told = {"repository": args.repository, "files": sizes, "bytes": sum(sizes.values())}
        print_notes([one_line(note, 2000) for note in found.notes])
        if args.dry_run:
            print_files(sizes, args.repository, "Space")
            return {**told, "variables": found.variables, "notes": found.notes, "space": None, "commit": None}
        pushed = found.upload(args.repository, private=args.private or None, commit_message=args.message)
    print_notes([one_line(note, 2000) for note in pushed.notes])
    print(f"uploaded to {one_line(pushed.commit)}\nthe Space: {one_line(pushed.address)}")
    return {
        **told,
        "variables": pushed.variables,
        "notes": [*found.notes, *pushed.notes],
        "space": pushed.address,
        "commit": pushed.commit,
    }
