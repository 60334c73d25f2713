"""Ridge regression at the size of the Natural Scenes Dataset: peak memory and time of the streamed solver.

    python benchmarks/ridge.py                     # 27,000 trials x 15,724 voxels, 8,192 of 197,376 targets
    python benchmarks/ridge.py --trials 4000 --voxels 3000 --targets 2944 --against-scikit-learn

Voxels come from a memory-mapped float16 matrix and weights go to a file, as in training. Every block of targets takes
the same memory and time, so a few blocks tell what all 197,376 targets take; the script prints the extrapolation and
says so. With `--against-scikit-learn` the same problem is solved by `sklearn.linear_model.Ridge` in a process of its
own, and by the streamed solver in float32 as that does. `--against-himalaya` chooses a penalty for each target by five
folds, and `--against-fastl2lir` fits each target on 500 voxels of its own; each needs that package (fastl2lir 0.11 with
voxel selection also NumPy below 2.4). Times are of the wall and of the processor, which tells more on a busy machine.
"""

import argparse
import json
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from fmri_models.closed_form_trials import ClosedFormTrials, IndexedTargets
from fmri_models.encoders.disk_backed import move_to_disk, release_memory
from fmri_models.encoders.ridge import RidgeSolver, choose_alpha_of_each, consecutive_folds
from fmri_models.encoders.selected_ridge import SelectedRidge
from fmri_models.models.linear.modeling_linear import BlockedLinear
from fmri_models.process_threads import brief_waiting

ALL_TARGETS = 197_376
PENALTY = 1e4
PENALTIES = [float(10 ** (exponent / 2)) for exponent in range(15)]
NUM_SELECTED = 500


class MappedRows:
    """A float16 memory map that is read as float32 rows."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __len__(self) -> int:
        return len(np.load(self.path, mmap_mode="r"))

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        # A fresh map for each block, so that pages that were read do not pile up.
        return np.load(self.path, mmap_mode="r")[rows].astype(np.float32)


def make_problem(folder: Path, trials: int, voxels: int, targets: int) -> None:
    """Random voxels and targets in files, made in blocks."""
    rng = np.random.default_rng(0)
    for name, width in (("fmri", voxels), ("targets", targets)):
        values = np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=np.float16, shape=(trials, width))
        for start in range(0, trials, 1000):
            block = values[start : start + 1000]
            block[:] = rng.standard_normal(block.shape, dtype=np.float32)
        values.flush()


def streamed(folder: Path, block: int, dtype: torch.dtype | None = None) -> dict[str, float]:
    """Factorises, then solves block by block into a file."""
    started = time.perf_counter()
    fmri = MappedRows(folder / "fmri.npy")
    values = np.load(folder / "targets.npy", mmap_mode="r")
    targets = IndexedTargets(values, np.arange(len(values)))
    solver = RidgeSolver(fmri, dtype=dtype)
    factor = solver.factor(PENALTY)
    factorised = time.perf_counter()
    with torch.device("meta"):
        head = BlockedLinear(solver.num_voxels, targets.num_targets, block)
    move_to_disk(head, folder)
    for columns, layer in zip(head.columns, head.blocks, strict=True):
        weight, bias = solver.weights(torch.from_numpy(targets.columns(columns).astype(np.float32)), PENALTY, factor)
        _fill(layer, weight, bias)
    solved = time.perf_counter()
    return {
        "factorisation_s": factorised - started,
        "seconds_a_1000_targets": (solved - factorised) / targets.num_targets * 1000,
        "total_s": solved - started,
    }


def streamed_float32(folder: Path, block: int) -> dict[str, float]:
    """The same in single precision, as scikit-learn has it."""
    return streamed(folder, block, torch.float32)


def all_penalties(folder: Path, block: int) -> dict[str, float]:
    """Chooses a penalty for each target by five folds, and solves."""
    started = time.perf_counter()
    fmri, values = _in_memory(folder)
    rows = np.arange(len(fmri))
    solver = RidgeSolver(fmri, dtype=torch.float32)
    trials = ClosedFormTrials(fmri, rows.astype(str), {"targets": IndexedTargets(values, rows)})
    alphas = choose_alpha_of_each(solver, trials, "targets", PENALTIES, consecutive_folds(rows, 5), None, block).alphas
    for alpha in np.unique(alphas):
        solver.weights(torch.from_numpy(values[:, alphas == alpha]), float(alpha))
    return {"total_s": time.perf_counter() - started}


def himalaya(folder: Path, block: int) -> dict[str, float]:
    """The same by himalaya, with everything in memory."""
    from himalaya.ridge import RidgeCV

    started = time.perf_counter()
    fmri, values = _in_memory(folder)
    RidgeCV(PENALTIES, fit_intercept=True, cv=5).fit(fmri, values)
    return {"total_s": time.perf_counter() - started}


def selected(folder: Path, block: int) -> dict[str, float]:
    """Each target on voxels of its own, block by block."""
    started = time.perf_counter()
    fmri, values = _in_memory(folder)
    solver = SelectedRidge(fmri, NUM_SELECTED, "penalised")
    for start in range(0, values.shape[1], block):
        solver.weights(torch.from_numpy(values[:, start : start + block]).double(), PENALTY)
    return {"total_s": time.perf_counter() - started}


def fastl2lir(folder: Path, block: int) -> dict[str, float]:
    """The same by fastL2LiR."""
    from fastl2lir import FastL2LiR

    started = time.perf_counter()
    fmri, values = _in_memory(folder)
    FastL2LiR().fit(fmri.astype(np.float64), values.astype(np.float64), alpha=PENALTY, n_feat=NUM_SELECTED)
    return {"total_s": time.perf_counter() - started}


def _in_memory(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    fmri, values = np.load(folder / "fmri.npy").astype(np.float32), np.load(folder / "targets.npy").astype(np.float32)
    return fmri, values


@torch.no_grad()
def _fill(layer: nn.Linear, weight: torch.Tensor, bias: torch.Tensor) -> None:
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)
    release_memory(layer)


def scikit_learn(folder: Path, block: int) -> dict[str, float]:
    """The same problem with everything in memory."""
    from sklearn.linear_model import Ridge

    started = time.perf_counter()
    fmri = np.load(folder / "fmri.npy").astype(np.float32)
    targets = np.load(folder / "targets.npy").astype(np.float32)
    Ridge(PENALTY, solver="cholesky").fit(fmri, targets)
    return {"total_s": time.perf_counter() - started}


def measured(solve: Callable[[Path, int], dict[str, float]], folder: Path, block: int) -> dict[str, float]:
    """Runs one side in a fresh process, so that its peak memory is its own."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_with_peak, (solve, folder, block))


def _with_peak(solve: Callable[[Path, int], dict[str, float]], folder: Path, block: int) -> dict[str, float]:
    started = time.process_time()
    result = solve(folder, block)
    result["processor_s"] = time.process_time() - started
    return {**result, "peak_memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=27_000)
    parser.add_argument("--voxels", type=int, default=15_724)
    parser.add_argument("--targets", type=int, default=8192)
    parser.add_argument("--block", type=int, default=4096, help="targets a block")
    parser.add_argument("--against-scikit-learn", action="store_true")
    parser.add_argument("--against-himalaya", action="store_true")
    parser.add_argument("--against-fastl2lir", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks/ridge.json"))
    parser.add_argument("--folder", type=Path, help="where the problem's files are made (default: a temporary folder)")
    args = parser.parse_args()
    # Both sides in processes of their own, whose threads wait for each other as those of the commands do.
    os.environ.update(brief_waiting())
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        make_problem(folder, args.trials, args.voxels, args.targets)
        sides = {"streamed": measured(streamed, folder, args.block)}
        if args.against_scikit_learn:
            sides["streamed, float32"] = measured(streamed_float32, folder, args.block)
            sides["scikit-learn"] = measured(scikit_learn, folder, args.block)
        if args.against_himalaya:
            sides["all penalties"] = measured(all_penalties, folder, args.block)
            sides["himalaya"] = measured(himalaya, folder, args.block)
        if args.against_fastl2lir:
            sides["selected voxels"] = measured(selected, folder, args.block)
            sides["fastl2lir"] = measured(fastl2lir, folder, args.block)
    problem = {"trials": args.trials, "voxels": args.voxels, "targets": args.targets, "block": args.block}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"problem": problem, "threads": torch.get_num_threads(), "sides": sides}, indent=2))
    print(
        f"{args.trials:,} trials x {args.voxels:,} voxels, {args.targets:,} targets, {torch.get_num_threads()} threads"
    )
    for side, result in sides.items():
        of_processor = f"{result['processor_s']:>9.1f} s of the processor"
        print(f"{side:<18}{result['total_s']:>9.1f} s   {of_processor}   peak {result['peak_memory_gib']:.2f} GiB")
    own = sides["streamed"]
    every = own["factorisation_s"] + own["seconds_a_1000_targets"] * ALL_TARGETS / 1000
    print(f"extrapolated to {ALL_TARGETS:,} targets: {every / 60:.0f} min with the same memory")
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
