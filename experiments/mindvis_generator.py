"""What of the image generator learns with MinD-Vis: nothing, its cross-attention as published, LoRA on it, or all.

One model a seed is pretrained and aligned by the recipe `mindvis`; then each way is trained from it, by the recipe's
last stage, for the same steps. Quality on the test pictures, what is trained of the generator, memory, and time.

    python experiments/mindvis_generator.py --out outputs/mindvis_generator --processes 2
"""

import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from cells import METRICS, Levels, brain_scores, mean_and_spread, measured, parser, peak_mib, write_results

from fmri_models.generation.loading import load_image_generator
from fmri_models.simulation import simulate
from fmri_models.training.learning_generator import generator_training, planned_parameters
from fmri_models.training.recipe import load_recipe
from fmri_models.training.recipe_files import recipe_values
from fmri_models.training.trainer import train

WAYS: dict[str, dict[str, Any] | None] = {
    "nothing": None,
    "cross-attention": {"train": ["cross_attention"]},
    "LoRA, r = 4": {"lora": {"r": 4, "alpha": 8, "groups": ["cross_attention"]}},
    "LoRA, r = 16": {"lora": {"r": 16, "alpha": 32, "groups": ["cross_attention"]}},
    "all": {"train": ["all"]},
}
# A way that is new in the network begins at nothing, and takes larger steps than what is already there.
LEARNING_RATES = {"LoRA, r = 4": 1.0e-3, "LoRA, r = 16": 1.0e-3}


def align(levels: Levels, out: Path) -> Mapping[str, float]:
    """One simulated brain, and a model of it before the generator learns."""
    small = levels["small"]
    simulate(
        "builtin:scenes",
        _brain(levels, out),
        num_voxels=300 if small else 3000,
        num_train=96 if small else 4000,
        num_validation=12 if small else 200,
        num_test=12 if small else 100,
        unlabelled=96 if small else 4000,
        seed=levels["seed"],
        overwrite=True,
    )
    values = _values(levels, out, "aligned")
    values["stages"] = values["stages"][:2]
    values["stages"][0]["unpaired"] = [{"parts": ["unlabelled"]}]
    _train(values)
    return {}


def fine_tune(levels: Levels, out: Path) -> Mapping[str, float]:
    """One way of the last stage."""
    values = _values(levels, out, levels["way"].replace(" ", "").replace(",", "_").replace("=", ""))
    values["initial_model"] = str(_model(levels, out, "aligned"))
    stage = values["stages"][2]
    stage["image_generator"] = WAYS[levels["way"]]
    stage["training"]["learning_rate"] = LEARNING_RATES.get(levels["way"], stage["training"]["learning_rate"])
    values["stages"] = [stage]
    started = time.perf_counter()
    _train(values)
    found = {"training_seconds": time.perf_counter() - started, "peak_mib": peak_mib()}
    training = generator_training(WAYS[levels["way"]])
    if training is not None:
        trained = planned_parameters(load_image_generator("embedded"), training)
        found["trained_parameters"] = sum(parameter.numel() for parameter in trained)
    model = Path(values["out"])
    found.update(brain_scores(model, _brain(levels, out), model / "report", levels["seed"]))
    shutil.rmtree(model)
    return found


def _brain(levels: Levels, out: Path) -> Path:
    return out / f"brain{levels['seed']}"


def _model(levels: Levels, out: Path, name: str) -> Path:
    return out / f"{name}_{levels['seed']}"


def _values(levels: Levels, out: Path, name: str) -> dict[str, Any]:
    values = recipe_values("mindvis", ["drawing.num_inference_steps=8", "drawing.num_candidates=1"])
    values.update(data=str(_brain(levels, out)), out=str(_model(levels, out, name)), seed=levels["seed"])
    if levels["small"]:
        for stage in values["stages"]:
            stage["training"]["epochs"] = 1
    return json.loads(json.dumps(values))


def _train(values: Mapping[str, Any]) -> None:
    file = Path(values["out"]).with_suffix(".yaml")
    file.write_text(yaml.safe_dump(dict(values)), encoding="utf-8")
    train(load_recipe(str(file)), overwrite=True)


def _table(results: list[dict[str, Any]]) -> str:
    columns = {
        **{metric: (title, 3) for metric, title in METRICS.items()},
        "trained_parameters": ("trained of the generator", 0),
        "peak_mib": ("MiB", 0),
        "training_seconds": ("s", 0),
    }
    lines = [f"| what learns | {' | '.join(title for title, _ in columns.values())} |"]
    lines.append("|---" * (1 + len(columns)) + "|")
    for way in WAYS:
        of_way = [result for result in results if result["way"] == way]
        if of_way:
            values = [
                mean_and_spread([result.get(name, 0) for result in of_way], digits)
                for name, (_, digits) in columns.items()
            ]
            lines.append(f"| {way} | {' | '.join(values)} |")
    return "\n".join(lines)


def main() -> None:
    """Measures all cells and writes the table."""
    arguments = parser(__doc__.partition("\n")[0]).parse_args()
    common = {"small": arguments.small}
    seeds = range(arguments.seeds)
    measured([{"seed": seed, **common} for seed in seeds], align, arguments.out, arguments.processes)
    cells = [{"seed": seed, "way": way, **common} for seed in seeds for way in WAYS]
    results = measured(cells, fine_tune, arguments.out, arguments.processes)
    print(_table(results))
    if not arguments.small:
        write_results(
            "mindvis_generator", {"command": "python experiments/mindvis_generator.py"}, results, [_table(results)]
        )


if __name__ == "__main__":
    main()
