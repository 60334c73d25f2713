"""`fmri-models reconstruct`."""

import argparse
from pathlib import Path
from typing import Any

from ..command_output import load_libraries
from ..names import one_line
from ..output_folders import RECONSTRUCTIONS, check_output_folder
from ..progress import phase
from .console import (
    SeedOption,
    add_generation_arguments,
    add_guide_weights,
    add_pattern_arguments,
    check_model_is_there,
    check_pattern_arguments,
    chosen_part,
    given_settings,
    places_of_weights,
    print_notes,
)


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "reconstruct",
        help="turn voxels into pictures",
        description=(
            "Reconstruct a picture from each pattern of a .npy file (trials, voxels) or of NIfTI volumes, or from the "
            "test stimuli of a trial table, their repetitions averaged. Writes PNGs, embeddings.npy (where the method "
            "decodes embeddings), guides/ (where it decodes layers of networks) and trials.csv."
        ),
        epilog=(
            "example:\n  fmri-models reconstruct --model outputs/demo/pipeline --fmri outputs/demo/data --subject "
            "subj01 --out outputs/pictures"
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_pattern_arguments(parser)
    parser.add_argument(
        "--seed", type=int, action=SeedOption, nargs="+", default=[0], help="one picture of each pattern for each seed"
    )
    parser.add_argument("--out", metavar="DIR", required=True)
    parser.add_argument("--overwrite", action="store_true", help="replace an output folder that has content")
    add_generation_arguments(parser)
    parser.add_argument(
        "--generator",
        metavar="DIR_OR_REPO",
        help="draw with another image generator than the pipeline's: one of the same spaces",
    )
    add_guide_weights(parser, "blip=DIR: writes captions.csv, where the model decodes BLIP's tokens")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> dict[str, Any]:
    check_pattern_arguments(args)
    inputs = [
        given
        for given in (args.model, args.fmri, args.mask, args.generator)
        if given is not None and Path(given).exists()
    ]
    part = chosen_part(args)
    settings = given_settings(args)
    check_model_is_there(args.model)
    check_output_folder(args.out, args.overwrite, RECONSTRUCTIONS, inputs)
    load_libraries()
    from ..evaluation.patterns import load_patterns
    from ..evaluation.reconstruct import check_reconstructions_folder, reconstruct
    from ..pipeline_fmri import FmriToImagePipeline

    check_reconstructions_folder(args.out, args.overwrite, inputs)
    replaced = {} if args.generator is None else {"image_generator_source": args.generator}
    with phase("Loading the pipeline"):
        pipeline = FmriToImagePipeline.from_pretrained(args.model, unseen_session=args.unseen_session, **replaced)
    patterns = load_patterns(pipeline, args.fmri, args.subject, args.session, part, args.repetitions, args.mask)
    print_notes(patterns.notes)
    count = reconstruct(
        pipeline,
        patterns,
        args.seed,
        args.out,
        args.overwrite,
        inputs,
        settings,
        precision=args.precision,
        guide_weights=places_of_weights(args.guide_weights),
    )
    # A program that calls this has its own words, and a folder that may not be there for long.
    if not args.json:
        layers = len(pipeline.brain_model.config.guides)
        written = [f"{count} pictures"] if count or not layers else []
        written += [f"{layers} decoded layer{'s' if layers > 1 else ''}"] if layers else []
        print(f"wrote {', '.join(written)} and trials.csv to {one_line(args.out)}")
    return {"out": args.out, "pictures": count, "notes": patterns.notes}
