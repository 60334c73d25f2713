"""The arguments of `fmri-models train` and of `python -m fmri_models.training`, and what they do."""

import argparse
from pathlib import Path
from typing import Any


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


def run(args: argparse.Namespace) -> dict[str, Any] | None:
    """Trains, or estimates what that would take.

    Returns:
        What was found, by name; None in further processes.
    """
    from ..command_output import load_libraries
    from ..names import one_line, shell_word
    from ..progress import is_first_process
    from .recipe_files import is_recipe_file

    values = _checked_soon(args)
    load_libraries()
    from .interruption import TrainingInterrupted
    from .recipe import load_recipe
    from .trainer import train

    recipe = load_recipe(args.recipe, args.overrides)
    if args.dry_run:
        from .estimate import as_text, estimated

        lines = estimated(recipe)
        print(as_text(lines))
        return {"recipe": args.recipe, "estimate": [{"name": name, "value": value} for name, value in lines]}

    def say_saved(folder: Path) -> None:
        print(f"saved {one_line(folder, most=5000)}", flush=True)

    file = args.recipe if is_recipe_file(args.recipe) else None
    try:
        folders = train(recipe, resume=args.resume, overwrite=args.overwrite, recipe_file=file, saved=say_saved)
    except TrainingInterrupted as error:
        # The same command can go on, which others that train can't.
        error.sentence = str(error)
        raise
    if not is_first_process():
        return None
    out = Path(str(recipe.out))
    if recipe.generator is None and not recipe.guide_sources:
        command = f"fmri-models train {recipe.method} data=DIR out=DIR {shell_word(f'initial_model={out}')}"
    else:
        command = _next_command(out, Path(str(recipe.data)))
    print(f"\nnext:\n  {command}")
    return {"recipe": args.recipe, "data": values.get("data"), "pipelines": folders, "next": command}


def _checked_soon(args: argparse.Namespace) -> dict[str, Any]:
    """What recipe and overrides say, with what can be found wrong before PyTorch is loaded.

    Raises:
        FmriModelsError: There is no such recipe or table, a key is unknown, or something is given twice.
    """
    from ..data.table import TrialTable
    from ..typed_values import check_given_once
    from .recipe_files import recipe_values

    check_given_once(args.overrides)
    values = recipe_values(args.recipe, args.overrides)
    if isinstance(values.get("data"), str) and values["data"]:
        TrialTable.open(values["data"])
    return values


def _next_command(out: Path, data: Path) -> str:
    """How the trained model is measured, with the protocol that its pictures ask for."""
    from ..data.table import TrialTable
    from ..evaluation.named_metrics import SMALLEST_NETWORK_PICTURE
    from ..names import shell_word

    stimuli = TrialTable.open(data).stimuli
    side = min(stimuli.images(stimuli.ids[:1]).shape[1:3])
    protocol = " --protocol small_pictures" if side < SMALLEST_NETWORK_PICTURE else ""
    places = f"--model {shell_word(out)} --data {shell_word(data)}"
    return f"fmri-models evaluate {places}{protocol} --out {shell_word(f'{out}-report')}"
