"""What the commands share on the terminal."""

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..drawing_settings import DrawingSettings
from ..errors import FmriModelsError
from ..names import one_line
from ..seeds import check_seed
from ..swapping import recover
from .usage import UsageError, check_option_once, check_without


class SeedOption(argparse.Action):
    """An option that takes seeds; of a number that is none, the command says so before anything else."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:
        if self.nargs is None:
            check_option_once(self, namespace)
        elif self.dest in vars(namespace).setdefault("_given", set()):
            values = [*getattr(namespace, self.dest), *values]
        vars(namespace).setdefault("_given", set()).add(self.dest)
        for seed in values if isinstance(values, Sequence) else [values]:
            check_seed(seed)
        setattr(namespace, self.dest, values)


def add_pattern_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that say whose patterns are decoded by which model."""
    parser.add_argument("--model", metavar="DIR_OR_REPO", required=True, help="a pipeline")
    parser.add_argument(
        "--fmri",
        metavar="FILE.npy|FILE.nii.gz|DATA_DIR",
        required=True,
        help="betas as an array or as volumes, or a trial table",
    )
    parser.add_argument(
        "--mask", metavar="FILE.nii.gz", help="of volumes: the mask that the model's table was made with"
    )
    parser.add_argument("--subject", required=True)
    parser.add_argument("--session", type=int, help="session of the betas, where the model standardises by session")
    parser.add_argument(
        "--part",
        metavar="train|validation|test",
        help="which trials of a table: a part of the split and fold that the model was trained on (default: test)",
    )
    # Its name until `split` came to mean the split's file alone.
    parser.add_argument("--split", dest="former_part", help=argparse.SUPPRESS)
    parser.add_argument(
        "--repetitions", choices=("average", "single"), default="average", help="average a table's repetitions, or not"
    )
    add_unseen_session(parser)


def chosen_part(args: argparse.Namespace) -> str | None:
    """The part of a split that the command was told; None if it was told none.

    Raises:
        UsageError: It was told twice.
    """
    if args.former_part is None:
        return args.part
    if args.part is not None:
        raise UsageError("--part and --split name the same thing, a part of the split; give --part alone.")
    warnings.warn("--split is called --part now, because split= names a split's file.", stacklevel=2)
    return args.former_part


def check_pattern_arguments(args: argparse.Namespace) -> None:
    """Refuses what says nothing of the patterns that were given.

    Raises:
        UsageError: `--repetitions` with an array.
    """
    if not Path(args.fmri).is_dir():
        check_without(
            args, ["repetitions"], "each row of an array is decoded; it says what is done with the trials of a table"
        )


def check_model_is_there(model: str) -> None:
    """Refuses, before PyTorch is loaded, what is neither a folder nor may be a repository of the Hub.

    Raises:
        FmriModelsError: It is neither.
    """
    from ..hub_repository import is_folder, is_repository_id

    recover(model)
    if not is_folder(model) and (Path(model).exists() or not is_repository_id(model)):
        found = "is a file" if Path(model).is_file() else "does not exist"
        raise FmriModelsError(
            f"The folder {one_line(model)} {found}; give a saved pipeline, or a Hub repository as user/name."
        )


def print_notes(notes: Sequence[str]) -> None:
    """Says on standard error what a person should know of the patterns."""
    for note in notes:
        print(f"note: {note}", file=sys.stderr)


def add_unseen_session(parser: argparse.ArgumentParser) -> None:
    """The option for trials of sessions that have no training trials."""
    parser.add_argument(
        "--unseen-session",
        choices=("error", "pooled", "from_batch"),
        help=(
            "what to do with sessions of which the processor has no statistics: refuse them, take the pooled "
            "statistics of all training trials, or those of the trials given (default: as the model says itself)"
        ),
    )


def add_generation_arguments(parser: argparse.ArgumentParser) -> None:
    """The options with which pictures are drawn; the pipeline's own settings hold where they are not given."""
    group = parser.add_argument_group("image generation", "what is left out is drawn with as the pipeline says itself")
    group.add_argument("--steps", type=int, help="denoising steps")
    group.add_argument("--guidance-scale", type=float, help="weight of the embeddings")
    group.add_argument("--strength", type=float, help="share of the low-level picture that is replaced, 0 to 1")
    group.add_argument("--candidates", type=int, help="pictures to draw of each pattern")
    group.add_argument(
        "--selection",
        choices=("brain", "first"),
        help="which candidate is taken: the one most similar to what was decoded, or the first",
    )
    group.add_argument(
        "--text-to-image-ratio",
        type=float,
        help="weight of the decoded text beside the decoded image, 0 to 1, where a method decodes both",
    )
    group.add_argument(
        "--precision",
        choices=("float32", "bfloat16"),
        default="float32",
        help="what pictures are computed in; bfloat16 takes half the time where the processor has instructions for it",
    )


def given_settings(args: argparse.Namespace) -> dict[str, Any]:
    """The drawing settings that the options state.

    Raises:
        FmriModelsError: One is out of range.
    """
    values = {
        "num_inference_steps": args.steps,
        "guidance_scale": args.guidance_scale,
        "strength": args.strength,
        "num_candidates": args.candidates,
        "selection": args.selection,
        "text_to_image_ratio": args.text_to_image_ratio,
    }
    # Before anything is loaded.
    DrawingSettings().changed(values)
    return {name: value for name, value in values.items() if value is not None}


def add_table_argument(parser: argparse.ArgumentParser) -> None:
    """The option for the whole table of scores."""
    parser.add_argument(
        "--all-rows",
        action="store_true",
        help="print every row of the report, in blocks that fit the terminal (default: the brain, ridge, the best "
        "control and the ceiling)",
    )


def add_guide_weights(parser: argparse.ArgumentParser, help: str) -> None:
    parser.add_argument("--guide-weights", nargs="+", metavar="NETWORK=PATH", help=help)


def places_of_weights(given: list[str] | None) -> dict[str, str]:
    """Network ▶ place, of the option of [`add_guide_weights`].

    Raises:
        FmriModelsError: An argument is something else.
    """
    from ..errors import FmriModelsError

    places = [text.partition("=") for text in given or ()]
    for network, _, place in places:
        if not (network and place):
            raise FmriModelsError("--guide-weights takes NETWORK=PATH, such as vgg19=vgg19.safetensors.")
    return {network: place for network, _, place in places}
