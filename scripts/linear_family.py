"""Solvers of the linear family, and other methods, on real responses to small pictures, ten folds each: the tables of
docs/methods/linear.md.

    fmri-models prepare digits69 --source digit69_28x28.mat --out outputs/digits69
    fmri-models prepare miyawaki2008 --source miyawaki_figures_2_5.npz --out outputs/miyawaki --option folds=10
    python scripts/linear_family.py --digits outputs/digits69 --miyawaki outputs/miyawaki --out outputs/linear_family

Each fold's penalty, and the number of voxels that a unit reads where several are tried, is chosen by the error on inner
folds (or left-out stimuli) of the fold's own training trials; the test trials are then decoded once, by that choice
alone, and the look is recorded beside the table. MindEye, MinD-Vis and MindBridge are trained by their recipes for the
digits, with one setting for all folds. `--solvers` does some of all these, and `summary.json` keeps the figures of
those that were done before.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fmri_models import FmriToImagePipeline
from fmri_models.data import TrialTable
from fmri_models.evaluation.looks import record_look
from fmri_models.evaluation.metrics import identification_top1, mse, pairwise_pixcorr, pixcorr, ssim
from fmri_models.training.recipe import load_recipe
from fmri_models.training.trainer import train
from fmri_models.training_record import TrainingRecord

SUBJECT, SPLIT, TARGET = "subj01", "kfold10", "latents"
FOLDS = 10
SHARED = [
    "generator=pixels", f"targets=[{TARGET}]", "processor.statistics=pooled", f"split={SPLIT}",
    "stages.0.objective.restore_variance=false",
]  # fmt: skip
PART = f"stages.0.objective.parts.{TARGET}"
# As the Kamitani lab prepares patterns and targets.
KAMITANI = ["repetitions=single", "processor.ddof=1", f"{PART}.standardise_targets=true"]
FASTL2LIR = [
    *KAMITANI,
    f"{PART}.penalise_intercept=true",
    f"{PART}.folds=5",
    "stages.0.objective.penalties=[1,10,100,1000,10000]",
]
# Solver ▶ the settings among which each fold chooses by its own training trials.
SOLVERS: dict[str, list[list[str]]] = {
    "ridge": [[]],
    "ridge, a penalty each unit": [[f"{PART}.penalty_per=target", f"{PART}.folds=5"]],
    "fastL2LiR": [[*FASTL2LIR, f"model.voxels_per_target={number}"] for number in (20, 50)],
    # It has no penalty and no inner folds: the number of voxels is fixed.
    "sparse (SLiR)": [[*KAMITANI, f"{PART}.solver=sparse", "model.voxels_per_target=100"]],
}
# Method ▶ its recipe.
METHODS = {"MindBridge": "digits69_mindbridge", "MindEye": "digits69_mindeye", "MinD-Vis": "digits69_mindvis"}
# Four patches for the voxels of the figures, too.
_OF_FIGURES = {"MinD-Vis": ["processor.patch_size=242", "model.patch_size=242"]}
DRAWS = 10_000


@dataclass
class Decoded:
    """What the folds of one solver decoded.

    Args:
        shown: (n, 1, H, W) in [0, 1], stimuli in the order of the folds.
        drawn: The same shape.
        folds: (n,) in which fold each stimulus was tested.
        chosen: What each fold chose: overrides, and the error on trials that the fit did not see.
    """

    shown: torch.Tensor
    drawn: torch.Tensor
    folds: np.ndarray
    chosen: list[dict[str, Any]]


def decoded(table: TrialTable, out: Path, candidates: Sequence[Sequence[str]]) -> Decoded:
    """Trains all candidates of each fold, and decodes the fold's test stimuli by the best of them."""
    shown, drawn, folds, chosen = [], [], [], []
    for fold in range(FOLDS):
        folders = []
        for number, overrides in enumerate(candidates):
            folder = out / f"fold{fold:02d}" / f"candidate{number}"
            if not (folder / "training.json").is_file():
                train(
                    load_recipe("linear", [f"data={table.path}", f"out={folder}", f"fold={fold}", *SHARED, *overrides])
                )
            folders.append(folder)
        errors = [unseen_error(folder) for folder in folders] if len(folders) > 1 else [unseen_error(folders[0], False)]
        best = int(np.argmin(errors)) if len(folders) > 1 else 0
        chosen.append({"overrides": list(candidates[best]), "error": errors[best]})
        ids, found = test_pictures(FmriToImagePipeline.from_pretrained(folders[best]), table, fold)
        shown.append(pictures(table, ids))
        drawn.append(found)
        folds += [fold] * len(ids)
    return Decoded(torch.cat(shown), torch.cat(drawn), np.array(folds), chosen)


def decoded_by_recipe(table: TrialTable, out: Path, recipe: str, overrides: Sequence[str]) -> Decoded:
    """Trains a recipe on each fold, and draws the fold's test stimuli, one candidate each."""
    shown, drawn, folds = [], [], []
    for fold in range(FOLDS):
        folder = out / f"fold{fold:02d}"
        if not (folder / "training.json").is_file():
            given = [f"data={table.path}", f"out={folder}", f"split={SPLIT}", f"fold={fold}", *overrides]
            train(load_recipe(recipe, given))
        ids, responses = averaged_responses(table, fold)
        seeded = torch.Generator().manual_seed(0)
        pipe = FmriToImagePipeline.from_pretrained(folder)
        drawn.append(
            pipe(responses, subject=SUBJECT, generator=seeded, output_type="pt").images.mean(dim=1, keepdim=True)
        )
        shown.append(pictures(table, ids))
        folds += [fold] * len(ids)
    return Decoded(torch.cat(shown), torch.cat(drawn), np.array(folds), [{"recipe": recipe, "overrides": [*overrides]}])


def averaged_responses(table: TrialTable, fold: int) -> tuple[list[str], np.ndarray]:
    """Stimuli that a fold tests, and (n, V) their mean responses; recipes standardise by one mean for all sessions."""
    trials = table.trials(SUBJECT, "test", SPLIT, fold)
    ids = sorted(set(trials.stimulus_ids.tolist()))
    return ids, np.stack([trials.fmri()[trials.stimulus_ids == each].mean(axis=0) for each in ids])


def pictures(table: TrialTable, ids: Sequence[str]) -> torch.Tensor:
    """(n, 1, H, W) in [0, 1]."""
    return torch.from_numpy(table.stimuli.images(np.array(ids))).permute(0, 3, 1, 2).float() / 255


def unseen_error(folder: Path, is_needed: bool = True) -> float | None:
    """Smallest mean squared error, over penalties, on training trials that the fit did not see."""
    record = TrainingRecord.load(folder)
    assert record is not None
    errors = record.stages[0]["result"][SUBJECT][TARGET]
    if is_needed and not errors:
        raise SystemExit(f"{folder} has no error to choose by; give its solver one setting.")
    return min(errors.values()) if errors else None


def test_pictures(pipe: FmriToImagePipeline, table: TrialTable, fold: int) -> tuple[list[str], torch.Tensor]:
    """Stimuli that a fold tests, and (n, 1, H, W) what is decoded of their averaged responses."""
    trials = table.trials(SUBJECT, "test", SPLIT, fold)
    fmri = pipe.processor(trials.fmri(), subject=SUBJECT, session=trials.sessions)["fmri"]
    ids = sorted(set(trials.stimulus_ids.tolist()))
    means = torch.stack([fmri[torch.from_numpy(trials.stimulus_ids == each)].mean(dim=0) for each in ids])
    with torch.no_grad():
        latents = pipe.brain_model.decode(means, [SUBJECT] * len(ids)).latents
    return ids, latents.float().reshape(len(ids), *pipe.image_generator.image_size).clamp(0, 1)


def scores(found: Decoded) -> dict[str, np.ndarray]:
    """Metric ▶ (n,) score of each stimulus. Identification is among the stimuli of the same fold; where each fold tests
    one, among all of them, each decoded by its own fold.
    """
    each = {
        "pixcorr": pixcorr(found.shown, found.drawn, reduction="none").numpy(),
        "ssim": ssim(found.shown, found.drawn, reduction="none").numpy(),
        "mse": mse(found.shown, found.drawn, reduction="none").numpy(),
    }
    alone = len(set(found.folds.tolist())) == len(found.folds)
    pools = (
        [np.arange(len(found.folds))] if alone else [np.flatnonzero(found.folds == f) for f in sorted(set(found.folds))]
    )
    for name, metric in (("pairwise_pixcorr", pairwise_pixcorr), ("identification_top1", identification_top1)):
        values = np.empty(len(found.folds))
        for pool in pools:
            values[pool] = metric(found.shown[pool], found.drawn[pool], reduction="none").numpy()
        each[name] = values
    return each


def summarised(found: Decoded, each: dict[str, np.ndarray]) -> dict[str, Any]:
    """Means, the scores they are of, and what was chosen."""
    return {
        "stimuli": len(found.folds),
        "mean": {name: float(values.mean()) for name, values in each.items()},
        "each": {name: [round(float(value), 6) for value in values] for name, values in each.items()},
        "chosen": found.chosen,
    }


def difference(one: Sequence[float], other: Sequence[float]) -> tuple[float, float, float]:
    """Mean of paired differences and its 95 % interval over draws of stimuli."""
    values = np.asarray(one) - np.asarray(other)
    draws = np.random.default_rng(0).integers(len(values), size=(DRAWS, len(values)))
    low, high = np.quantile(values[draws].mean(axis=1), [0.025, 0.975])
    return float(values.mean()), float(low), float(high)


def markdown(summary: dict[str, Any]) -> str:
    """The rows of the page, data set by data set."""
    lines = []
    for data, solvers in summary.items():
        lines += ["", data, ""]
        lines.append(
            "| | pixel correlation | to ridge, 95 % interval | SSIM | MSE | pairwise identification | top-1 of 10 |"
        )
        lines.append("|---|---|---|---|---|---|---|")
        for name, found in solvers.items():
            mean = found["mean"]
            apart = "" if name == "ridge" or "ridge" not in solvers else "{:+z.3f} [{:+z.3f}, {:+z.3f}]".format(
                *difference(found["each"]["pixcorr"], solvers["ridge"]["each"]["pixcorr"])
            )  # fmt: skip
            cells = [
                f"{mean['pixcorr']:.3f}",
                apart,
                *(f"{mean[key]:.3f}" for key in ("ssim", "mse", "pairwise_pixcorr")),
            ]
            lines.append(f"| {name} | {' | '.join(cells)} | {mean['identification_top1']:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Measures, writes summary.json and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--digits", type=Path, help="trial table of digits69")
    parser.add_argument("--miyawaki", type=Path, help="trial table of miyawaki2008's ten figures, with ten folds")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--solvers", nargs="+", choices=[*SOLVERS, *METHODS], default=list(SOLVERS))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / "summary.json"
    summary: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    for data, folder in (("digits69", given.digits), ("miyawaki2008", given.miyawaki)):
        for number, name in enumerate([*SOLVERS, *METHODS]):
            if folder is None or name not in given.solvers or name in summary.get(data, {}):
                continue
            table = TrialTable.open(folder)
            config: dict[str, Any] = {"script": "scripts/linear_family.py", "solver": name}
            if name in SOLVERS:
                found = decoded(table, given.out / data / f"solver{number}", SOLVERS[name])
                config["candidates"] = SOLVERS[name]
            else:
                overrides = _OF_FIGURES.get(name, []) if data == "miyawaki2008" else []
                found = decoded_by_recipe(table, given.out / data / METHODS[name], METHODS[name], overrides)
                config |= {"recipe": METHODS[name], "overrides": overrides}
            summary.setdefault(data, {})[name] = summarised(found, scores(found))
            record_look(folder, table.fingerprint, f"{SPLIT}/test", config, summary[data][name]["mean"])
            path.write_text(json.dumps(summary, indent=1) + "\n")
    print(markdown(summary))


if __name__ == "__main__":
    main()
