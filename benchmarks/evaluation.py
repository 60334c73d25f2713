"""Time and memory of `fmri_models.evaluation` beside the way the field's scripts write the same metrics.

    python benchmarks/evaluation.py            # 982 pictures x 184,512 features (AlexNet 2); 50 x 1,000 trials
    python benchmarks/evaluation.py --quick    # small sizes, to see that it runs

Two-way identification: "numpy.corrcoef" stacks both sets and correlates everything with everything in float64, as the
evaluations of MindEye and Brain-Diffuser do. The floor is the one product of matrices in float64 that no way can do
without, on blocks that stay in memory.

N-way accuracy: the loop draws classes, joins their values and looks for the best, one trial after the other, as
MinD-Vis' script does. Its draws are given to ours as well, which has to find the same numbers; "drawn" draws by itself,
"exact" is the expectation over all draws.

Every side runs in a process of its own, after its inputs are in memory. Memory is the growth of its resident set. Look
at CPU time where other programs are running.
"""

import argparse
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fmri_models.evaluation import n_way_accuracy, two_way_identification

CLASSES, N_WAY = 1000, 50
_BLOCK = 4096
_ROWS = 64

Inputs = dict[str, np.ndarray]
Side = Callable[[Inputs], dict[str, np.ndarray]]


# ------------------------------------------------------------------------------------------- two-way identification


def features(folder: Path, pictures: int, size: int) -> None:
    """Float32 features of pictures and of reconstructions that have something of them."""
    rng = np.random.default_rng(0)
    both = [
        np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=np.float32, shape=(pictures, size))
        for name in ("truth", "recon")
    ]
    for start in range(0, pictures, _ROWS):
        shape = (min(_ROWS, pictures - start), size)
        truth = rng.standard_normal(shape, dtype=np.float32)
        both[0][start : start + _ROWS] = truth
        both[1][start : start + _ROWS] = 0.01 * truth + rng.standard_normal(shape, dtype=np.float32)
    for each in both:
        each.flush()


def ours_two_way(inputs: Inputs) -> dict[str, np.ndarray]:
    truth, recon = (torch.from_numpy(inputs[name]) for name in ("truth", "recon"))
    return {"scores": two_way_identification(truth, recon, reduction="none").numpy()}


def corrcoef(inputs: Inputs) -> dict[str, np.ndarray]:
    count = len(inputs["truth"])
    similarity = np.corrcoef(inputs["truth"], inputs["recon"])[:count, count:]
    congruent = np.diag(similarity)
    return {"scores": (similarity < congruent).sum(0) / (count - 1)}


def product(inputs: Inputs) -> dict[str, np.ndarray]:
    """The arithmetic alone, on a block of features that is float64 already."""
    count, size = inputs["truth"].shape
    one, other = (torch.from_numpy(inputs[name][:, :_BLOCK]).double() for name in ("truth", "recon"))
    found = torch.zeros(count, count, dtype=torch.float64)
    for start in range(0, size, _BLOCK):
        width = min(_BLOCK, size - start)
        found.addmm_(one[:, :width], other[:, :width].T)
    return {}


TWO_WAY: dict[str, Side] = {"fmri_models": ours_two_way, "numpy.corrcoef": corrcoef, "float64 product alone": product}


# ------------------------------------------------------------------------------------------------------ n-way accuracy


def logits(folder: Path, pictures: int, trials: int) -> None:
    """Values of classes, with the right one among the first, and the draws of the loop."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((pictures, CLASSES)).astype(np.float32)
    np.save(folder / "logits.npy", values)
    np.save(folder / "target.npy", values.argsort(1)[:, -20])
    np.save(folder / "trials.npy", np.array(trials))
    draws = np.random.RandomState(1)
    others = [np.delete(np.arange(CLASSES), own) for own in values.argsort(1)[:, -20]]
    drawn = [[draws.choice(each, N_WAY - 1, replace=False) for _ in range(trials)] for each in others]
    np.save(folder / "draws.npy", np.array(drawn))


def loop(inputs: Inputs) -> dict[str, np.ndarray]:
    np.random.seed(1)
    found = []
    for values, own in zip(torch.from_numpy(inputs["logits"]), inputs["target"], strict=True):
        others = [number for number in np.arange(CLASSES) if number != own]
        correct = 0
        for _ in range(int(inputs["trials"])):
            drawn = np.random.choice(others, N_WAY - 1, replace=False)
            candidates = torch.cat([values[own].unsqueeze(0), values[drawn]])
            correct += int((candidates.topk(1).indices == 0).any().item())
        found.append(correct / int(inputs["trials"]))
    return {"scores": np.array(found)}


def same_draws(inputs: Inputs) -> dict[str, np.ndarray]:
    found = n_way_accuracy(inputs["logits"], inputs["target"], N_WAY, draws=inputs["draws"], reduction="none")
    return {"scores": found.numpy()}


def drawn(inputs: Inputs) -> dict[str, np.ndarray]:
    trials = int(inputs["trials"])
    found = n_way_accuracy(inputs["logits"], inputs["target"], N_WAY, trials=trials, reduction="none")
    return {"scores": found.numpy()}


def exact(inputs: Inputs) -> dict[str, np.ndarray]:
    return {"scores": n_way_accuracy(inputs["logits"], inputs["target"], N_WAY, reduction="none").numpy()}


N_WAY_SIDES: dict[str, Side] = {
    "fmri_models, drawn": drawn,
    "fmri_models, exact": exact,
    "fmri_models, the loop's draws": same_draws,
    "loop over trials": loop,
}


# ------------------------------------------------------------------------------------------------------------ measuring


def measured(side: Side, folder: Path, repeats: int) -> tuple[dict[str, float], np.ndarray]:
    """Runs one side in a fresh process, so that its peak memory is its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_run, (side, folder, repeats))


def _run(side: Side, folder: Path, repeats: int) -> tuple[dict[str, float], np.ndarray]:
    inputs = {path.stem: np.load(path) for path in folder.glob("*.npy")}
    # Brings up the threads and libraries before memory is looked at.
    torch.randn(64, 64).double() @ torch.randn(64, 64).double()
    few = {name: values if values.ndim == 0 else values[:8] for name, values in inputs.items()}
    side(few | {"trials": np.array(2)} if "trials" in few else few)
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    walls, processor = [], []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        found = side(inputs)
        walls.append(time.perf_counter() - wall)
        processor.append(time.process_time() - cpu)
    result = {"wall_s": min(walls), "cpu_s": min(processor)}
    result["resident_peak_mib"] = (_status("VmHWM") - before) / 2**20
    return result, found.get("scores", np.empty(0))


def _status(field: str) -> float:
    """A field of the kernel's account of this process, in bytes (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def compared(
    make: Callable[[Path], None], sides: dict[str, Side], reference: str, repeats: int, folder: Path | None
) -> dict[str, dict[str, Any]]:
    """All sides on the same inputs, with the largest difference of their scores to the reference's."""
    results: dict[str, dict[str, Any]] = {}
    scores = {}
    with tempfile.TemporaryDirectory(dir=folder) as name:
        make(Path(name))
        for side, function in sides.items():
            results[side], scores[side] = measured(function, Path(name), 1 if side == reference else repeats)
    for side, result in results.items():
        if len(scores[side]):
            result["largest_difference"] = float(np.abs(scores[side] - scores[reference]).max())
            result["mean"] = float(scores[side].mean())
        for clock in ("wall_s", "cpu_s"):
            result[f"times_faster_{clock[:-2]}"] = results[reference][clock] / result[clock]
    return results


def table(title: str, results: dict[str, dict[str, Any]]) -> str:
    lines = [
        title,
        f"{'':<32}{'wall':>12}{'CPU':>12}{'memory':>13}{'faster (CPU)':>14}{'mean':>9}   largest difference",
    ]
    for side, result in results.items():
        scores = f"{result['mean']:>9.4f}   {result['largest_difference']:.1e}" if "mean" in result else ""
        lines.append(
            f"{side:<32}{1000 * result['wall_s']:>9,.1f} ms{1000 * result['cpu_s']:>9,.1f} ms"
            f"{result['resident_peak_mib']:>9,.0f} MiB{result['times_faster_cpu']:>13,.1f}x{scores}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=982)
    parser.add_argument("--features", type=int, default=184_512)
    parser.add_argument("--classified", type=int, default=50, help="pictures of n-way accuracy")
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3, help="the fastest counts; the published ways run once")
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks/evaluation.json"))
    parser.add_argument("--folder", type=Path, help="where inputs are made (default: a temporary folder)")
    args = parser.parse_args()
    if args.quick:
        args.pictures, args.features, args.classified, args.trials = 32, 5000, 4, 20
    two_way = compared(
        lambda folder: features(folder, args.pictures, args.features),
        TWO_WAY, "numpy.corrcoef", args.repeats, args.folder,
    )  # fmt: skip
    n_way = compared(
        lambda folder: logits(folder, args.classified, args.trials),
        N_WAY_SIDES, "loop over trials", args.repeats, args.folder,
    )  # fmt: skip
    floor = two_way["fmri_models"]["cpu_s"] / two_way["float64 product alone"]["cpu_s"]
    problem = {name: getattr(args, name) for name in ("pictures", "features", "classified", "trials", "repeats")}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(
        json.dumps(
            {
                "problem": problem,
                "threads": torch.get_num_threads(),
                "two_way_identification": two_way,
                "n_way_accuracy": n_way,
                "two_way_over_floor": floor,
            },
            indent=2,
        )
    )
    print(f"{torch.get_num_threads()} threads")
    print(table(f"Two-way identification, {args.pictures:,} x {args.features:,} float32", two_way))
    print(f"ours takes {floor:.2f} of the floor's CPU time")
    print(table(f"{N_WAY}-way top-1, {args.classified} pictures, {args.trials:,} trials", n_way))
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
