"""Trains recipes on the simulated scenes of the package's examples and keeps their reports in `results/reports/`.

`python -m scripts.measure_scene_recipes takagi_scenes` simulates the table that `scripts/train_examples.py` has,
trains the recipe on it and measures it on the 24 test pictures; `python scripts/write_results.py` then writes tables.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from fmri_models.evaluation.evaluate import evaluate
from fmri_models.evaluation.report_terminal import results_table
from fmri_models.training.recipe import load_recipe
from fmri_models.training.trainer import train
from scripts.train_examples import SEED, simulate_table
from scripts.write_results import add

# Rows beside the reconstruction from the brain: what has to be beaten, and what is possible.
ROWS = ("shuffled_brain", "mean_image", "nearest_train", "floor", "ceiling")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("recipes", nargs="+", help="names of shipped recipes, such as takagi_scenes")
    parser.add_argument("--work", type=Path, default=Path("outputs/scene_recipes"), help="table, pipelines, reports")
    given = parser.parse_args(arguments)
    if not (given.work / "table").exists():
        simulate_table(given.work / "table")
    for name in given.recipes:
        measure(name, given.work)


def measure(name: str, work: Path, overrides: Sequence[str] = ()) -> Path:
    """Trains a recipe, unless that is done, measures it and keeps the report under the recipe's name.

    Args:
        name: Of the recipe.
        work: Folder with `table`; the pipeline and the report go beside it.
        overrides: Further ones of the recipe, `key=value`.

    Returns:
        The report's folder.
    """
    pipeline, report = work / name, work / f"{name}_report"
    if not (pipeline / "training.json").exists():
        places = [f"data={os.fspath(work / 'table')}", f"out={os.fspath(pipeline)}", f"seed={SEED}"]
        train(load_recipe(name, [*places, *overrides]), overwrite=True)
    found = evaluate(pipeline, work / "table", report, rows=list(ROWS), overwrite=True, seed=SEED)
    print(results_table(found))
    add(report, name)
    return report


if __name__ == "__main__":
    main()
