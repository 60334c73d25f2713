"""The arguments of `fmri-models train` and of `python -m fmri_models.training`, and what they do."""

import argparse
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the recipe, its overrides and the options."""
    parser.add_argument("recipe", help="name of a shipped recipe, or a YAML file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="values that replace the recipe's")
    parser.add_argument(
        "--resume", action="store_true", help="go on with an interrupted training; keep folds that are complete"
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace an output folder that has content, start an interrupted training again",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print parameters, memory, disk, steps and time; train nothing"
    )


def run(args: argparse.Namespace) -> None:
    """Trains, or estimates what that would take."""
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

    file = args.recipe if is_recipe_file(args.recipe) else None
    try:
        folders = train(recipe, resume=args.resume, overwrite=args.overwrite, recipe_file=file)
    except TrainingInterrupted as error:
        if processes().is_main_process:
            print(f"fmri-models: {error}", file=sys.stderr)
        sys.exit(128 + error.signal)
    if processes().is_main_process:
        for folder in folders:
            print(f"saved {folder}")
        print(f"\nnext:\n  fmri-models evaluate --model {recipe.out} --data {recipe.data} --out {recipe.out}-report")
