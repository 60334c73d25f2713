"""Decodes the eight categories of haxby2001 from NIfTI files, each run left out once: the figure of docs/datasets.md.

    python scripts/haxby_categories.py --source haxby2001 --image bold_1slice --out outputs/haxby_categories

No method of this package classifies. A block's category is decoded as eight targets, 1 for its own and 0 for the
others, by the ridge regression of the method `linear`, whose penalty is chosen by leaving training runs out; the
category is then the one whose mean decoded target, over training blocks decoded without their own run, is nearest.
Chance is 1 of 8.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fmri_models.cli.prepare import load_preparation
from fmri_models.closed_form_trials import ClosedFormTrials, IndexedTargets
from fmri_models.data import TrialTable
from fmri_models.data.table_processor import fit_processor
from fmri_models.encoders.ridge import RidgeSolver, choose_alpha

ALPHAS = tuple(float(10**power) for power in np.arange(0, 6, 0.5))
TARGET = "category"
_FIGURE = "confusion.png"


@dataclass
class Decoded:
    """Blocks with what was decoded of them.

    Args:
        names: (C,) categories.
        shown: (n,) index of each block's category.
        decoded: (n,) index of the decoded one.
        largest: (n,) index of the largest decoded target, for comparison.
        folds: (n,) in which fold each block was tested.
        alphas: Penalty of each fold.
    """

    names: list[str]
    shown: np.ndarray
    decoded: np.ndarray
    largest: np.ndarray
    folds: np.ndarray
    alphas: list[float]

    @property
    def accuracy(self) -> float:
        return float((self.shown == self.decoded).mean())

    @property
    def confusion(self) -> np.ndarray:
        """(C, C) share of the blocks of each category that were decoded as each."""
        counts = np.zeros((len(self.names), len(self.names)))
        np.add.at(counts, (self.shown, self.decoded), 1)
        return counts / counts.sum(axis=1, keepdims=True)


def decode(table: TrialTable, subject: str, split: str) -> Decoded:
    """Decodes each tested trial of a split's folds; nothing of a fold's test trials is learned from.

    Args:
        table: With a category of each stimulus.
        subject: Whose trials.
        split: Of folds that leave runs out.
    """
    category = dict(zip(table.stimuli.ids, table.stimuli.categories(), strict=True))
    names = sorted({str(name) for name in category.values()})
    shown, decoded, largest, folds, alphas = [], [], [], [], []
    for fold in range(table.num_folds(split)):
        parts = ["train", "validation"]
        processor = fit_processor(table, [subject], parts, split, fold, unseen_session="pooled")
        learned, tested = table.trials(subject, parts, split, fold), table.trials(subject, "test", split, fold)
        fmri, held_out = (processor(each.fmri(), subject=subject)["fmri"].numpy() for each in (learned, tested))
        labels, own = (
            np.array([names.index(str(category[name])) for name in each.stimulus_ids]) for each in (learned, tested)
        )
        found, highest, alpha = _classify(fmri, labels, learned.runs, held_out, len(names))
        shown.append(own)
        decoded.append(found)
        largest.append(highest)
        folds.append(np.full(len(own), fold))
        alphas.append(alpha)
    columns = [np.concatenate(each) for each in (shown, decoded, largest, folds)]
    return Decoded(names, *columns, alphas)


def _classify(
    fmri: np.ndarray, labels: np.ndarray, runs: np.ndarray, held_out: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """(m,) categories of held-out patterns, their largest targets, and the penalty."""
    one_hot = np.eye(count, dtype=np.float32)
    trials = ClosedFormTrials(
        fmri, labels.astype(str), {TARGET: IndexedTargets(one_hot, labels)}, leaves_out="run", groups=runs
    )
    solver = RidgeSolver(fmri)
    choice = choose_alpha(solver, trials, TARGET, ALPHAS, "leave_one_stimulus_out")
    targets = torch.from_numpy(one_hot[labels])
    factor = solver.factor(choice.alpha)
    assert factor is not None
    # Training trials as they are decoded without their run: those that the fit has seen are nearer to their targets.
    seen = targets - solver.left_out_residuals(targets, runs, choice.alpha, factor)
    means = torch.stack([seen[torch.from_numpy(labels == each)].mean(dim=0) for each in range(count)])
    weights, bias = solver.weights(targets, choice.alpha, factor)
    predicted = solver.predict(held_out, weights, bias)
    nearest = torch.cdist(predicted, means.to(predicted.dtype)).argmin(dim=1)
    return nearest.numpy(), predicted.argmax(dim=1).numpy(), choice.alpha


def write_report(found: Decoded, out: Path) -> None:
    """Writes `report.json`, `report.md` and `confusion.png`."""
    out.mkdir(parents=True, exist_ok=True)
    by_fold = [float((found.shown == found.decoded)[found.folds == fold].mean()) for fold in np.unique(found.folds)]
    chance = 1 / len(found.names)
    report = {
        "accuracy": found.accuracy,
        "accuracy_of_the_largest_target": float((found.shown == found.largest).mean()),
        "chance": chance,
        "blocks": len(found.shown),
        "accuracy_by_run": by_fold,
        "alphas": found.alphas,
        "categories": found.names,
        "confusion": found.confusion.tolist(),
    }
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    lines = [
        f"# {found.accuracy:.3f} of {len(found.shown)} blocks (chance {chance:.3f})",
        "",
        "| shown | " + " | ".join(found.names) + " |",
        "|---" * (len(found.names) + 1) + "|",
        *(
            f"| {name} | " + " | ".join(f"{value:.2f}" for value in row) + " |"
            for name, row in zip(found.names, found.confusion, strict=True)
        ),
    ]
    (out / "report.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    _draw(found, out / _FIGURE)


def _draw(found: Decoded, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5, 4.2), layout="constrained")
    drawn = axes.imshow(found.confusion, cmap="viridis", vmin=0, vmax=1)
    places = range(len(found.names))
    axes.set_xticks(places, found.names, rotation=45, ha="right")
    axes.set_yticks(places, found.names)
    axes.set_xlabel("decoded")
    axes.set_ylabel("shown")
    axes.set_title(f"{found.accuracy:.3f} of {len(found.shown)} blocks (chance {1 / len(found.names):.3f})")
    figure.colorbar(drawn, label="share of blocks")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main(arguments: Sequence[str] | None = None) -> Decoded:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--source", type=Path, required=True, help="the folder of haxby2001")
    parser.add_argument("--image", default="", help="which image of a run, such as bold_1slice")
    parser.add_argument("--runs", type=int, default=10, help="how many runs there are: each is left out once")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(arguments)
    data = args.out / "data"
    load_preparation("haxby2001")(args.source, data, image=args.image, folds=args.runs, incomplete=True, overwrite=True)
    table = TrialTable.open(data)
    found = decode(table, table.subjects[0], f"kfold{args.runs}")
    write_report(found, args.out)
    print(f"{found.accuracy:.3f} of {len(found.shown)} blocks, chance {1 / len(found.names):.3f}; wrote {args.out}")
    return found


if __name__ == "__main__":
    main()
