"""`fmri-models retrieve`."""

import argparse

from .console import add_pattern_arguments, quiet_loading


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "retrieve",
        help="find the seen picture in a gallery",
        description=(
            "Rank the pictures of a gallery by their similarity to what is decoded from each pattern, and print the "
            "best as CSV (trial, stimulus, rank, item, similarity)."
        ),
        epilog=(
            "example:\n  fmri-models retrieve --model outputs/demo/pipeline --fmri outputs/demo/data --subject subj01 "
            "--gallery outputs/demo/images/truth"
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_pattern_arguments(parser)
    parser.add_argument("--gallery", metavar="FILE.npy|IMAGES_DIR", required=True, help="embeddings, or pictures")
    parser.add_argument("--top-k", type=int, default=5, help="how many to print of each pattern (default: 5)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    import csv
    import sys

    from ..evaluation.reconstruct import load_gallery, load_patterns, retrieve_from_gallery
    from ..pipeline_fmri import FmriToImagePipeline

    quiet_loading()
    pipeline = FmriToImagePipeline.from_pretrained(args.model)
    patterns = load_patterns(pipeline, args.fmri, args.subject, args.session, args.split, args.repetitions)
    names, gallery = load_gallery(pipeline, args.gallery)
    writer = csv.writer(sys.stdout)
    writer.writerow(("trial", "stimulus", "rank", "item", "similarity"))
    writer.writerows(retrieve_from_gallery(pipeline, patterns, names, gallery, args.top_k))
