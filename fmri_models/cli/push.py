"""`fmri-models push`."""

import argparse
from pathlib import Path
from typing import Any

from ..command_output import load_libraries
from ..names import one_line
from ..terminal_text import size_text
from .card import add_statements
from .console import print_notes


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "push",
        help="upload a pipeline, a model or a trial table to the Hub",
        description=(
            "Upload what lies in a folder to the Hub, in one commit: a pipeline with its card, training record and "
            "report; a single brain model, processor or image generator; a trial table. A pipeline without a report is "
            "refused unless --unevaluated says that it is meant. Weights that are not finite, pickles, tokens, paths "
            "of this machine, and data whose terms forbid it are refused before anything is sent. A push that was "
            "interrupted is repeated with the same command; large files that have arrived are not sent again."
        ),
        epilog=(
            "examples:\n  fmri-models push outputs/demo/pipeline user/name --dry-run\n"
            '  fmri-models push outputs/mine user/name --private --licence cc-by-4.0 --consent "subject 1, March 2026"'
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", metavar="DIR", type=Path, help="what is uploaded")
    parser.add_argument("repository", metavar="REPO", help="user/name, or a name in your namespace")
    parser.add_argument("--private", action="store_true", help="a repository that is made is private")
    parser.add_argument("--dry-run", action="store_true", help="say what would go up, with sizes, and send nothing")
    parser.add_argument("--unevaluated", action="store_true", help="upload a pipeline that has no report")
    add_statements(parser)
    parser.add_argument(
        "--pictures",
        action="store_true",
        help="upload the report's page and grid, which show the stimuli, although it is not known whether these may be "
        "passed on",
    )
    parser.add_argument(
        "--without-pictures", action="store_true", help="of a trial table: leave the pictures out, and upload the rest"
    )
    parser.add_argument("--revision", metavar="NAME", help="branch, which is made if need be (default: the main one)")
    parser.add_argument("--message", metavar="TEXT", help="first line of the commit")
    parser.add_argument("--pr", action="store_true", help="propose the commit instead of making it")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> dict[str, Any]:
    load_libraries()
    from ..hub.owner_statements import OwnerStatements
    from ..hub.publishing import publication

    statements = OwnerStatements(args.license, args.consent, args.permission)
    found = publication(
        args.folder,
        statements,
        args.unevaluated,
        args.pictures,
        write=not args.dry_run,
        private=args.private,
        leave_pictures_out=args.without_pictures,
    )
    sizes = found.sizes()
    told = {"folder": args.folder, "repository": args.repository, "format": found.format, "files": sizes}
    print_notes([one_line(note, 2000) for note in found.notes])
    if args.dry_run:
        print_files(sizes, args.repository, found.format)
        return {**told, "bytes": sum(sizes.values()), "notes": found.notes, "commit": None}
    address = found.upload(
        args.repository,
        private=args.private or None,
        revision=args.revision,
        commit_message=args.message,
        create_pr=args.pr,
    )
    print(f"uploaded to {one_line(address)}")
    return {**told, "bytes": sum(sizes.values()), "notes": found.notes, "commit": address}


def print_files(sizes: dict[str, int], repository: str, format: str) -> None:
    """Says what a push would send."""
    print(f"would go to {one_line(repository)} as a {format}, in one commit:")
    width = max(len(size_text(size)) for size in sizes.values())
    for name, size in sizes.items():
        print(f"  {size_text(size):>{width}}  {one_line(name, 500)}")
    print(f"  {size_text(sum(sizes.values()))} in {len(sizes)} files; nothing was sent")
