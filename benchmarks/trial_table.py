"""Rows a second in shuffled batches: the materialised matrix beside the same table through `datasets`.

Both sides are measured in one process, in turn, on the same batches; the page cache is warm. The best of some rounds
counts, because other programs only ever make a round slower. Both give float32.

    python benchmarks/trial_table.py --out outputs/trial_table.json
"""

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=5000)
    parser.add_argument("--voxels", type=int, default=15_724, help="those of NSD's first subject (default)")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--offset", type=float, default=0, help="mean of the betas; with 10000 they need float32")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        # Before any library that reads them when it is imported.
        os.environ["FMRI_MODELS_CACHE"] = f"{folder}/fmri_models"
        os.environ["HF_HOME"] = f"{folder}/huggingface"
        os.environ["HF_HUB_OFFLINE"] = "1"
        figures = measure(args, Path(folder))
    print_table(figures)
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(figures, indent=2) + "\n")


def measure(args: argparse.Namespace, folder: Path) -> dict:
    from fmri_models.data import TrialTable

    write_s = timed(lambda: write_table(folder / "table", args.trials, args.voxels, args.offset))
    table = TrialTable.open(folder / "table")
    trials = table.trials("subj01")
    materialize_s = timed(lambda: trials.fmri([0]))
    other, prepare_s = datasets_side(folder / "table")
    sides: dict[str, Callable[[np.ndarray], object]] = {
        "fmri_models, memory-mapped matrix": trials.fmri,
        "datasets, torch format": lambda rows: other[rows.tolist()]["fmri"],
    }
    batches = np.array_split(np.random.default_rng(0).permutation(args.trials), args.trials // args.batch_size)
    best = dict.fromkeys(sides, float("inf"))
    for _ in range(args.rounds):
        for name, read in sides.items():
            best[name] = min(best[name], timed(partial(read_all, read, batches)))
    return {
        "trials": args.trials,
        "voxels": args.voxels,
        "batch_size": args.batch_size,
        "bytes_of_a_beta": np.load(trials.table.matrix("subj01").folder / "values.npy", mmap_mode="r").itemsize,
        "rows_per_s": {name: round(args.trials / seconds) for name, seconds in best.items()},
        "once_s": {"write": round(write_s, 2), "materialize": round(materialize_s, 2), "datasets": round(prepare_s, 2)},
        "versions": versions(),
        "machine": {"cpus": os.cpu_count(), "platform": platform.platform()},
    }


def read_all(read: Callable[[np.ndarray], object], batches: list[np.ndarray]) -> None:
    for batch in batches:
        read(batch)


def datasets_side(path: Path) -> tuple[Any, float]:
    import datasets

    datasets.disable_progress_bars()
    start = time.perf_counter()
    loaded = datasets.load_dataset(str(path), "subj01", split="train").select_columns(["fmri"]).with_format("torch")
    return loaded, time.perf_counter() - start


def write_table(path: Path, trials: int, voxels: int, offset: float) -> None:
    from fmri_models.data import TrialTableWriter

    rng = np.random.default_rng(0)
    # A table holds float16 as such, and everything else as float32.
    block = (offset + rng.normal(size=(min(500, trials), voxels))).astype(np.float32 if offset else np.float16)
    sizes = [len(part) for part in np.array_split(np.arange(trials), -(-trials // len(block)))]
    with TrialTableWriter(path, "benchmark", simulated=True) as writer:
        writer.add_stimuli({"stimulus_id": f"s{i}", "image": None} for i in range(trials))
        writer.add_trials("subj01", "train", [f"s{i}" for i in range(trials)], (block[:size] for size in sizes))


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("numpy", "pyarrow", "datasets", "torch")} | {
        "python": platform.python_version()
    }


def print_table(figures: dict) -> None:
    print(f"{figures['trials']} trials x {figures['voxels']} voxels, shuffled batches of {figures['batch_size']}\n")
    print("| | rows/s |\n|---|---:|")
    for name, rows in figures["rows_per_s"].items():
        print(f"| {name} | {rows:,} |")
    once = figures["once_s"]
    print(
        f"\nonce: writing {once['write']} s, the matrix {once['materialize']} s, datasets' cache {once['datasets']} s"
    )


if __name__ == "__main__":
    main()
