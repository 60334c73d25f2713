"""What the commands share on the terminal."""

import argparse


def quiet_loading() -> None:
    """Turns off the progress bars and notices that loading a small model from disk does not need."""
    import diffusers
    import transformers

    transformers.utils.logging.disable_progress_bar()
    diffusers.utils.logging.disable_progress_bar()
    diffusers.utils.logging.set_verbosity_error()


def add_pattern_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that say whose patterns are decoded by which model."""
    parser.add_argument("--model", metavar="DIR_OR_REPO", required=True, help="a pipeline")
    parser.add_argument("--fmri", metavar="FILE.npy|DATA_DIR", required=True, help="betas, or a trial table")
    parser.add_argument("--subject", required=True)
    parser.add_argument("--session", type=int, help="session of the betas, where the model standardises by session")
    parser.add_argument("--split", default="test", help="which trials of a table (default: test)")
    parser.add_argument(
        "--repetitions", choices=("average", "single"), default="average", help="average a table's repetitions, or not"
    )


def add_generation_arguments(parser: argparse.ArgumentParser) -> None:
    """The options with which pictures are drawn."""
    group = parser.add_argument_group("image generation")
    group.add_argument("--steps", type=int, default=20, help="denoising steps (default: 20)")
    group.add_argument("--guidance-scale", type=float, default=2.0, help="weight of the embeddings (default: 2)")
    group.add_argument(
        "--strength", type=float, default=0.7, help="share of the low-level picture that is replaced, 0 to 1"
    )
    group.add_argument("--candidates", type=int, default=1, help="pictures to draw of each pattern (default: 1)")
    group.add_argument(
        "--precision",
        choices=("float32", "bfloat16"),
        default="float32",
        help="what pictures are computed in; bfloat16 takes half the time where the processor has instructions for it",
    )
