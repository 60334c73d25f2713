"""A new subject with few trials: which part of a trained model learns, and whether the first subjects stand beside.

A base of four simulated subjects, and a fifth whose model is made of 50, 200 or 1,000 trials: only its own layers
(`reset`), these and LoRA on what all share (`lora`), or everything (`full`), each alone and with trials of the first
four in every step; the method from scratch on the fifth subject alone; and ridge. Before a trial of the fifth there are
no layers for it, so that zero-shot is not defined for these methods.

    python experiments/new_subjects.py --out outputs/new_subjects --processes 2
"""

import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from cells import (
    METRICS,
    Levels,
    brain_scores,
    fewer_trials,
    mean_and_spread,
    measured,
    parser,
    peak_mib,
    write_results,
)

from fmri_models.simulation import simulate
from fmri_models.training.recipe import load_recipe
from fmri_models.training.recipe_files import recipe_values
from fmri_models.training.trainer import train
from fmri_models.training_record import TrainingRecord

METHODS = ("mindbridge", "mindeye")
TRIALS = (50, 200, 1000)
NEW, NUM_FIRST = "subj05", 4
ADAPTATIONS = ("reset", "lora", "full")
WAYS = [f"{adaptation}{sources}" for adaptation in ADAPTATIONS for sources in ("", ", with sources")]
# Steps of each stage; the low level of MindEye is left out in all cells alike, for it takes most of the time.
STEPS = {"bridge": 1500, "backbone": 1500, "prior": 600}
NEW_STEPS = {"new_subject": 600, "backbone": 300, "prior": 150}
# MindBridge learns directions, of which a few hundred steps from nothing find none that a picture can be drawn from.
STEPS_FROM_SCRATCH = {"bridge": 1500, "backbone": 300, "prior": 150}
# Of the recipe's learning rate: what has been learned stands in the way of steps as large as those from nothing.
# By the validation cosine of MindBridge, 1,000 trials of one brain; all of it learned better with half than with .15.
RATES = {"reset": 1.0, "lora": 0.25, "full": 0.5}
DRAWING = {"num_inference_steps": 8, "num_candidates": 1}


def make_tables(levels: Levels, out: Path) -> Mapping[str, float]:
    """The first four subjects, and the fifth, who sees each picture once."""
    small, seed = levels["small"], levels["seed"]
    sizes: dict[str, Any] = {
        "num_voxels": 200 if small else 1500,
        "num_validation": 12 if small else 100,
        "num_test": 12 if small else 100,
        "seed": seed,
        "overwrite": True,
    }
    of_first = 60 if small else 1000
    simulate("builtin:scenes", _first(levels, out), num_subjects=NUM_FIRST, num_train=of_first, **sizes)
    new = {"num_train": 60 if small else 1000, "first_subject": NUM_FIRST + 1, "repetitions": 1}
    simulate("builtin:scenes", _new(levels, out), **new, **sizes)
    for trials in TRIALS:
        _split(levels, out, trials)
    return {}


def train_base(levels: Levels, out: Path) -> Mapping[str, float]:
    """The model of the first four."""
    values = _values(levels, levels["method"], STEPS)
    _train(values, _first(levels, out), _base(levels, out), levels)
    return {}


def learn_new_subject(levels: Levels, out: Path) -> Mapping[str, float]:
    """One way to a model of the fifth subject, and what it reads of the test pictures."""
    name = f"{levels['method']}_{levels['way'].replace(', ', '_').replace(' ', '_')}_{levels['trials']}"
    data, model = _new(levels, out), out / f"{name}_{levels['seed']}"
    values = _values_of_way(levels, out)
    values["split"] = _split(levels, out, levels["trials"])
    started = time.perf_counter()
    _train(values, data, model, levels)
    found = {"training_seconds": time.perf_counter() - started, "peak_mib": peak_mib()}
    record = TrainingRecord.load(model)
    trained = [stage.get("trained_parameters") for stage in record.stages] if record is not None else []
    if any(trained):
        found["trained_parameters"] = float(sum(filter(None, trained)))
    found.update(brain_scores(model, data, model / "report", levels["seed"], NEW))
    shutil.rmtree(model)
    return found


def _values_of_way(levels: Levels, out: Path) -> dict[str, Any]:
    way = levels["way"]
    if way == "ridge":
        return json.loads(json.dumps(recipe_values("linear")))
    if way == "from scratch":
        return _values(levels, levels["method"], STEPS_FROM_SCRATCH)
    recipe = "mindbridge_new_subject" if levels["method"] == "mindbridge" else levels["method"]
    values = _values(levels, recipe, NEW_STEPS)
    adaptation, _, sources = way.partition(", ")
    values.update(model={}, processor={}, adaptation=adaptation, initial_model=str(_base(levels, out)))
    for stage in values["stages"]:
        stage["training"]["learning_rate"] = RATES[adaptation] * float(stage["training"]["learning_rate"])
    if sources:
        values["sources"] = [str(_first(levels, out))]
    return values


def _values(levels: Levels, recipe: str, steps: Mapping[str, int]) -> dict[str, Any]:
    """A shipped recipe with so many steps a stage, without a low level."""
    values: dict[str, Any] = json.loads(json.dumps(recipe_values(recipe)))
    values["stages"] = [stage for stage in values["stages"] if stage["name"] in steps]
    for stage in values["stages"]:
        stage["training"].pop("epochs", None)
        stage["training"].update(steps=2 if levels["small"] else steps[stage["name"]], batch_size=64)
        if levels["small"]:
            stage["training"]["batch_size"] = 8
    if recipe == "mindeye":
        values["targets"] = ["image_embeds"]
    return values


def _train(values: dict[str, Any], data: Path, out: Path, levels: Levels) -> None:
    values.update(data=str(data), out=str(out), seed=levels["seed"])
    values["drawing"] = {**(values.get("drawing") or {}), **DRAWING}
    file = out.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    train(load_recipe(str(file)), overwrite=True)


def _split(levels: Levels, out: Path, trials: int) -> str:
    return fewer_trials(_new(levels, out), min(trials, 60) if levels["small"] else trials, levels["seed"])


def _first(levels: Levels, out: Path) -> Path:
    return out / f"first_{levels['seed']}"


def _new(levels: Levels, out: Path) -> Path:
    return out / f"new_{levels['seed']}"


def _base(levels: Levels, out: Path) -> Path:
    return out / f"base_{levels['method']}_{levels['seed']}"


def _table(results: list[dict[str, Any]], method: str) -> str:
    columns = {
        **{metric: (title, 3) for metric, title in METRICS.items()},
        "trained_parameters": ("trained", 0),
        "peak_mib": ("MiB", 0),
        "training_seconds": ("s", 0),
    }
    lines = [f"| {method} | trials | {' | '.join(title for title, _ in columns.values())} |"]
    lines.append("|---" * (2 + len(columns)) + "|")
    # Neither method has layers for a subject of whom it has seen nothing.
    lines.append("| zero-shot | 0 | not defined |" + " |" * (len(columns) - 1))
    for way in ["ridge", "from scratch", *WAYS]:
        for trials in TRIALS:
            of_cell = [each for each in results if (each["way"], each["trials"]) == (way, trials)]
            of_cell = [each for each in of_cell if each["method"] in (method, "linear")]
            if of_cell:
                found = {name: [each[name] for each in of_cell if name in each] for name in columns}
                texts = [mean_and_spread(found[name], columns[name][1]) if found[name] else "" for name in columns]
                lines.append(f"| {way} | {trials} | {' | '.join(texts)} |")
    return "\n".join(lines)


def main() -> None:
    """Measures all cells and writes the tables."""
    arguments = parser(__doc__.partition("\n")[0]).parse_args()
    out, processes = arguments.out, arguments.processes
    seeds = [{"seed": seed, "small": arguments.small} for seed in range(arguments.seeds)]
    measured(seeds, make_tables, out, processes)
    measured([{**seed, "method": method} for seed in seeds for method in METHODS], train_base, out, processes)
    ways = [("linear", "ridge"), *((method, way) for method in METHODS for way in ["from scratch", *WAYS])]
    cells = [
        {**seed, "method": method, "way": way, "trials": trials}
        for seed in seeds
        for method, way in ways
        for trials in TRIALS
    ]
    results = measured(cells, learn_new_subject, out, processes)
    tables = [_table(results, method) for method in METHODS]
    print("\n\n".join(tables))
    if not arguments.small:
        write_results("new_subjects", {"command": "python experiments/new_subjects.py"}, results, tables)


if __name__ == "__main__":
    main()
