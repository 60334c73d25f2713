"""`fmri-models retrieve`."""

import argparse
from typing import Any

from ..command_output import load_libraries
from ..progress import phase
from .console import (
    add_pattern_arguments,
    check_model_is_there,
    check_pattern_arguments,
    chosen_part,
    print_notes,
)


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "retrieve",
        help="find the seen picture in a gallery",
        description=(
            "Rank the pictures of a gallery by their similarity (cosine) to what is decoded from each pattern, and "
            "print the best as CSV (trial, stimulus, rank, item, similarity). The search is exact; a .npy gallery may "
            "have millions of rows and be larger than memory. A picture that the gallery holds several times takes "
            "several ranks, in the gallery's order."
        ),
        epilog=(
            "example:\n  fmri-models retrieve --model outputs/demo/pipeline --fmri outputs/demo/data --subject subj01 "
            "--gallery outputs/demo/images/truth"
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_pattern_arguments(parser)
    parser.add_argument(
        "--gallery",
        metavar="FILE.npy|IMAGES_DIR",
        required=True,
        help="embeddings (rows, ...) in the pipeline's space, or a folder of pictures",
    )
    parser.add_argument(
        "--query",
        choices=("brain", "image"),
        default="brain",
        help=(
            'who looks for whom: each pattern for its picture (the papers\' column "Brain"; default), or each picture '
            'for its pattern ("Image")'
        ),
    )
    parser.add_argument("--top-k", type=int, help="how many to print of each (default: 5, or all of fewer)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> dict[str, Any]:
    import csv
    import sys

    from ..names import csv_cell

    check_pattern_arguments(args)
    part = chosen_part(args)
    check_model_is_there(args.model)
    load_libraries()
    from ..evaluation.gallery import load_gallery, retrieve_from_gallery
    from ..evaluation.patterns import load_patterns
    from ..pipeline_fmri import FmriToImagePipeline

    with phase("Loading the pipeline"):
        pipeline = FmriToImagePipeline.from_pretrained(args.model, unseen_session=args.unseen_session)
    patterns = load_patterns(pipeline, args.fmri, args.subject, args.session, part, args.repetitions, args.mask)
    print_notes(patterns.notes)
    gallery = load_gallery(pipeline, args.gallery)
    print_notes(gallery.notes)
    duplicates = gallery.duplicates()
    if duplicates:
        print(
            f"The gallery holds {duplicates} of {len(gallery)} items more than once; equal ones take several ranks, in "
            "the gallery's order.",
            file=sys.stderr,
        )
    writer = csv.writer(sys.stdout)
    columns = ("trial", "stimulus", "rank", "item", "similarity")
    writer.writerow(columns)
    results = []
    for trial, stimulus, rank, item, similarity in retrieve_from_gallery(
        pipeline, patterns, gallery, args.top_k, args.query
    ):
        # Pictures of anybody's have any names, also such as a spreadsheet would compute.
        writer.writerow((csv_cell(trial), csv_cell(stimulus), rank, csv_cell(item), similarity))
        if args.json:
            results.append(dict(zip(columns, (trial, stimulus, rank, item, float(similarity)), strict=True)))
    return {"query": args.query, "gallery_items": len(gallery), "notes": patterns.notes, "results": results}
