"""Does masked brain modelling help MinD-Vis? With and without it, on few and on many trials with pictures.

Three simulated brains (one a seed). The encoder is pretrained on trials without pictures: rest (noise with the brain's
covariance), viewing (responses to pictures that are withheld), or both, always for the same number of steps; none
begins anew. Then the alignment of the recipe `mindvis` learns from a tenth, three tenths and all of the training
trials; what is drawn of the test pictures is scored as in every report.

    python experiments/mindvis_pretraining.py --out outputs/mindvis_pretraining --processes 2
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from cells import METRICS, Levels, brain_scores, fewer_trials, markdown_table, measured, parser, write_results

from fmri_models.simulation import simulate
from fmri_models.training.recipe import load_recipe
from fmri_models.training.recipe_files import recipe_values
from fmri_models.training.trainer import train

KINDS = {"none": [], "rest": ["unlabelled_rest"], "viewing": ["unlabelled_viewing"], "both": ["unlabelled"]}
# Share of the training trials ▶ epochs of the alignment: fewer trials are seen more often.
EPOCHS = {0.1: 40, 0.3: 20, 1.0: 12}
REPETITIONS = 3


def size_of(levels: Levels) -> dict[str, Any]:
    """Numbers of voxels, pictures, trials without pictures, and steps of pretraining."""
    if levels["small"]:
        return {"voxels": 300, "pictures": 120, "validation": 12, "test": 12, "unlabelled": 120, "steps": 4}
    return {"voxels": 3000, "pictures": 4000, "validation": 200, "test": 100, "unlabelled": 8000, "steps": 600}


def make_table(levels: Levels, out: Path) -> Mapping[str, float]:
    """One brain: labelled trials, and trials without pictures of both kinds, as many of each."""
    size = size_of(levels)
    data = _brain(levels, out)
    simulate(
        "builtin:scenes",
        data,
        num_voxels=size["voxels"],
        num_train=size["pictures"],
        num_validation=size["validation"],
        num_test=size["test"],
        repetitions=REPETITIONS,
        unlabelled=size["unlabelled"],
        seed=levels["seed"],
        overwrite=True,
    )
    for share in EPOCHS:
        _split(levels, data, share)
    return {}


def _brain(levels: Levels, out: Path) -> Path:
    return out / f"brain{levels['seed']}"


def _split(levels: Levels, data: Path, share: float) -> str:
    return fewer_trials(data, round(share * size_of(levels)["pictures"] * REPETITIONS), levels["seed"])


def pretrain(levels: Levels, out: Path) -> Mapping[str, float]:
    """Masked modelling on trials without pictures alone."""
    size = size_of(levels)
    changes = [
        f"data={_brain(levels, out)}",
        f"out={_pretrained(levels, out)}",
        f"seed={levels['seed']}",
        f"stages.0.train_on={KINDS[levels['pretraining']]}",
        "stages.0.training.epochs=null",
        f"stages.0.training.steps={size['steps']}",
    ]
    train(load_recipe("mindvis_pretraining", changes), overwrite=True)
    return {}


def _pretrained(levels: Levels, out: Path) -> Path:
    return out / f"pretrained_{levels['pretraining']}_{levels['seed']}"


def learn_from_pictures(levels: Levels, out: Path) -> Mapping[str, float]:
    """The stages that need pictures, and what they come to on the test pictures."""
    data, share = _brain(levels, out), levels["share"]
    model = out / f"model_{levels['pretraining']}_{share}_{levels['seed']}"
    values = recipe_values("mindvis")
    # The last stage, which trains the generator, takes most of the time and changes all of them alike.
    values["stages"] = [stage for stage in values["stages"] if stage["name"] == "alignment"]
    values["stages"][0]["training"].update({"epochs": 1 if levels["small"] else EPOCHS[share]})
    if levels["pretraining"] != "none":
        values["initial_model"] = str(_pretrained(levels, out))
    values.update(data=str(data), out=str(model), seed=levels["seed"], split=_split(levels, data, share))
    values["drawing"].update(num_inference_steps=8, num_candidates=1)
    file = model.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(json.loads(json.dumps(values))), encoding="utf-8")
    train(load_recipe(str(file)), overwrite=True)
    scores = brain_scores(model, data, model / "report", levels["seed"])
    shutil.rmtree(model)
    return scores


def main() -> None:
    """Measures all cells and writes the tables."""
    arguments = parser(__doc__.partition("\n")[0]).parse_args()
    common = {"small": arguments.small}
    seeds = range(arguments.seeds)
    brains = [{"seed": seed, **common} for seed in seeds]
    before = [{"seed": seed, "pretraining": kind, **common} for seed in seeds for kind in KINDS if kind != "none"]
    cells = [
        {"seed": seed, "pretraining": kind, "share": share, **common}
        for seed in seeds
        for kind in KINDS
        for share in EPOCHS
    ]
    measured(brains, make_table, arguments.out, arguments.processes)
    pretrained = measured(before, pretrain, arguments.out, arguments.processes)
    results = measured(cells, learn_from_pictures, arguments.out, arguments.processes)
    named = [{**result, "share": f"{result['share']:.0%}"} for result in results]
    tables = [markdown_table(named, "pretraining", "share", metric, title) for metric, title in METRICS.items()]
    print("\n\n".join(tables))
    if not arguments.small:
        seconds = sum(result["seconds"] for result in [*pretrained, *results])
        about = {"command": "python experiments/mindvis_pretraining.py", "seconds_of_all_cells": round(seconds)}
        write_results("mindvis_pretraining", about, results, tables)


if __name__ == "__main__":
    main()
