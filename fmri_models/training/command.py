"""The arguments of `fmri-models train` and of `python -m fmri_models.training`, and what they do."""

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the recipe, its overrides and the options."""
    parser.add_argument("recipe", help="name of a shipped recipe, or a YAML file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="values that replace the recipe's")
    way = parser.add_mutually_exclusive_group()
    way.add_argument(
        "--resume", action="store_true", help="go on with an interrupted training; keep folds that are complete"
    )
    way.add_argument(
        "--overwrite",
        action="store_true",
        help="replace an output folder that has content, start an interrupted training again",
    )
    way.add_argument(
        "--dry-run", action="store_true", help="print parameters, memory, disk, steps and time; train nothing"
    )


def run(args: argparse.Namespace) -> None:
    """Trains, or estimates what that would take."""
    from ..names import one_line, shell_word
    from ..typed_values import check_given_once
    from .loop import TrainingInterrupted
    from .processes import processes
    from .recipe import is_recipe_file, load_recipe

    check_given_once(args.overrides)
    recipe = load_recipe(args.recipe, args.overrides)
    if args.dry_run:
        from .estimate import estimate

        print(estimate(recipe))
        return
    from .trainer import train

    def say_saved(folder: Path) -> None:
        print(f"saved {one_line(folder, most=5000)}", flush=True)

    file = args.recipe if is_recipe_file(args.recipe) else None
    try:
        train(recipe, resume=args.resume, overwrite=args.overwrite, recipe_file=file, saved=say_saved)
    except TrainingInterrupted as error:
        if processes().is_main_process:
            print(f"fmri-models: {error}", file=sys.stderr)
        sys.exit(128 + error.signal)
    if processes().is_main_process:
        out = Path(str(recipe.out))
        model, data, report = shell_word(out), shell_word(recipe.data), shell_word(f"{out}-report")
        print(f"\nnext:\n  fmri-models evaluate --model {model} --data {data} --out {report}")
