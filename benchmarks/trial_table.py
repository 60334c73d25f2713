"""How fast shuffled batches of a trial table are read, beside the formats that others train from; and how fast it is
made.

    python benchmarks/trial_table.py --out outputs/benchmarks/trial_table.json
    python benchmarks/trial_table.py --quick                                      # small sizes, to see that it runs
    python benchmarks/trial_table.py --pages warm cold --trials 18000

Three parts (`--parts`), each prints a table:

`betas`: rows a second of betas alone, the materialised matrix beside the same table through `datasets`. One process,
in turn, the same batches, the best of the rounds.

`batches`: batches of 64 trials with a picture of 256 pixels each, beside webdataset's tars and HDF5; what exactly is
written and read is said in `trial_formats.py`. Every figure is of a process of its own, which opens the side, and
reads epochs; sides take turns, so that a machine that becomes slower in between is slower for all. Trials a second are
the median over repeats, of a whole epoch with the start of its workers; the spread is from the slowest to the fastest.
`warm`: what is read lies in the page cache. `cold`: the system was asked before to drop it from there, so that it comes
from the disk. Memory is the peak of the resident set, libraries included (PyTorch alone takes 0.5 GB), of the process
and of its largest worker. That all sides deliver the same trials is checked before. What is made once is timed.

`conversion`: `fmri-models prepare nsd` of a session of the release (int16 HDF5, 1 GB, and its pictures of 425 pixels),
fabricated; the time of a process with its start, and its peak memory.

It needs `pip install "fmri_models[data]" webdataset`, and about 1.2 GB of disk for 1,000 trials, which it frees.
"""

import argparse
import gc
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

_WORKER = "--worker"
_PARTS = ("betas", "batches", "conversion")
_QUICK = {"trials": 96, "voxels": 50, "pixels": 16, "batch_size": 8, "rounds": 1, "repeats": 0, "session_shape": 8}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=_PARTS, default=_PARTS)
    parser.add_argument("--trials", type=int, default=6000)
    parser.add_argument("--voxels", type=int, default=15_724, help="those of NSD's first subject (default)")
    parser.add_argument("--pixels", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3, help="of the part betas")
    parser.add_argument("--repeats", type=int, default=5, help="of the part batches")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--pages", nargs="+", choices=("warm", "cold"), default=["warm"])
    parser.add_argument("--sides", nargs="+", help="of the part batches (default: all)")
    parser.add_argument("--offset", type=float, default=0, help="mean of the betas; with 10000 they need float32")
    parser.add_argument("--session-shape", type=int, default=0, help="a side of the session's volume (default: NSD's)")
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--folder", type=Path, help="where a temporary folder is made (default: the system's)")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    parser.add_argument(_WORKER, nargs=4, metavar=("SIDE", "FOLDER", "WORKERS", "MODE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker is not None:
        print(json.dumps(work(*args.worker)))
        return
    if args.quick:
        vars(args).update(_QUICK)
    figures: dict[str, Any] = {"machine": machine(), "versions": versions()}
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        # Before any library that reads them when it is imported.
        os.environ["FMRI_MODELS_CACHE"] = f"{folder}/cache"
        os.environ["HF_HOME"] = f"{folder}/huggingface"
        os.environ["HF_HUB_OFFLINE"] = "1"
        if "conversion" in args.parts:
            from trial_conversion import measure_conversion, print_conversion

            figures["conversion"] = measure_conversion(Path(folder), args.session_shape)
            print_conversion(figures["conversion"])
        if {"betas", "batches"} & set(args.parts):
            figures |= measure_table(args, Path(folder), figures["machine"])
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(figures, indent=2) + "\n")
        print(f"\nwrote {args.out}")


def measure_table(args: argparse.Namespace, folder: Path, at: dict[str, Any]) -> dict[str, Any]:
    """The parts that read a table, of the same one."""
    from trial_formats import Size, save_size, write_table

    size = Size(args.trials, args.voxels, args.pixels, args.batch_size)
    save_size(folder, size)
    once = {"writing the table": timed(lambda: write_table(folder, size, args.offset))}
    figures: dict[str, Any] = {"size": vars(size), "once_s": once}
    if "betas" in args.parts:
        figures["betas"] = measure_betas(args, folder, once)
        print_betas(figures)
    if "batches" in args.parts:
        figures["batches"] = measure_batches(args, folder, size, once)
        print_batches(figures, at)
    return figures


# ------------------------------------------------------------------------------------------------------- betas alone


def measure_betas(args: argparse.Namespace, folder: Path, once: dict[str, float]) -> dict[str, Any]:
    from fmri_models.data import TrialTable

    trials = TrialTable.open(folder / "table").trials("subj01")
    once["materialising the betas"] = timed(lambda: trials.fmri([0]))
    other, once["datasets' cache"] = datasets_side(folder / "table")
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
        "rows_per_s": {name: round(args.trials / seconds) for name, seconds in best.items()},
        "bytes_of_a_beta": np.load(trials.table.matrix("subj01").folder / "values.npy", mmap_mode="r").itemsize,
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


# ----------------------------------------------------------------------------------------- batches with their pictures


def measure_batches(args: argparse.Namespace, folder: Path, size: Any, once: dict[str, float]) -> list[dict[str, Any]]:
    from trial_formats import SIDES, WITHOUT_WORKERS, files_of, write_betas, write_pictures, write_tars

    sides = args.sides or list(SIDES)
    first = new_process("fmri_models", folder, 0, "compare")
    once["first opening (betas and decoded pictures)"] = first["open_s"]
    if "webdataset" in sides:
        once["writing the tars"] = timed(lambda: write_tars(folder, size))
    if any(side.startswith("hdf5") for side in sides):
        once["writing HDF5"] = timed(lambda: write_betas(folder, size))
        for dtype, names in ((np.float16, ("hdf5 float16", "hdf5 in memory")), (np.uint8, ("hdf5 uint8",))):
            if set(names) & set(sides):
                once["writing HDF5"] += timed(partial(write_pictures, folder, size, dtype))
    rows = [
        {"side": side, "workers": workers, "pages": pages, "runs": []}
        for pages in args.pages
        for workers in args.workers
        for side in sides
        if not (workers and side in WITHOUT_WORKERS)
    ]
    for row in rows:
        if row["pages"] == args.pages[0] or not args.repeats:
            compared = new_process(row["side"], folder, row["workers"], "compare")
            # What the comparison itself takes makes these no figures.
            row["runs"] += [] if args.repeats else [compared]
    for repeat in range(args.repeats):
        # Whoever comes first is another one each time.
        for row in rows[repeat % len(rows) :] + rows[: repeat % len(rows)]:
            if row["pages"] == "cold":
                drop_pages(files_of(row["side"], folder, size))
            row["runs"].append(new_process(row["side"], folder, row["workers"], row["pages"]))
    for row in rows:
        speeds = [run["trials_per_s"] for run in row["runs"]]
        row["trials_per_s"], row["slowest"], row["fastest"] = median(speeds), min(speeds), max(speeds)
        for name in ("cpu_ms_a_trial", "open_s", "peak_mib", "imports_mib", "worker_mib"):
            row[name] = median(run[name] for run in row["runs"])
        row["disk_bytes"] = sum(path.stat().st_size for path in files_of(row["side"], folder, size))
        if row["side"] == "fmri_models":
            table = (path for path in (folder / "table").rglob("*") if path.is_file())
            row["disk_bytes_of_table"] = sum(path.stat().st_size for path in table)
    return rows


def new_process(side: str, folder: Path, workers: int, mode: str) -> dict[str, float]:
    """What a process of its own finds; see `work`."""
    command = [sys.executable, __file__, _WORKER, side, str(folder), str(workers), mode]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{side} with {workers} workers has stopped ({done.returncode}); see above.")
    return json.loads(done.stdout.splitlines()[-1])


def work(side: str, folder_name: str, workers_text: str, mode: str) -> dict[str, float]:
    """Opens a side and reads epochs of it: one that counts where pages are cold, else the second."""
    from trial_formats import SIDES, compare, load_size

    if side == "fmri_models":
        import fmri_models.data.loading
        import fmri_models.training.online_targets  # noqa: F401
    else:
        import torch.utils.data  # noqa: F401
    from fmri_models.process_memory import keep_freed_memory

    # As `fmri-models train` does; all sides have it.
    keep_freed_memory()
    folder, workers = Path(folder_name), int(workers_text)
    size = load_size(folder)
    imports_mib = resident_mib("VmRSS")
    started = time.perf_counter()
    batches = SIDES[side](folder, size, workers)
    open_s = time.perf_counter() - started
    if mode == "compare":
        compare(folder, size, side, batches(0))
    epochs = [epoch_figures(batches, epoch) for epoch in range(2 if mode == "warm" else 1)]
    return {
        "open_s": open_s,
        **epochs[-1],
        "peak_mib": resident_mib("VmHWM"),
        "imports_mib": imports_mib,
        "worker_mib": worker_mib(),
    }


def epoch_figures(batches: Callable[[int], Any], epoch: int) -> dict[str, float]:
    """Trials a second, the start of workers and buffers included, and the processors' time for each trial."""
    trials, own, others = 0, cpu_seconds(resource.RUSAGE_SELF), cpu_seconds(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    for batch in batches(epoch):
        trials += len(batch["trial"])
    seconds, own = time.perf_counter() - started, cpu_seconds(resource.RUSAGE_SELF) - own
    # Workers count when they have ended.
    gc.collect()
    others = cpu_seconds(resource.RUSAGE_CHILDREN) - others
    return {"trials_per_s": trials / seconds, "cpu_ms_a_trial": 1000 * (own + others) / trials}


def cpu_seconds(whose: int) -> float:
    used = resource.getrusage(whose)
    return used.ru_utime + used.ru_stime


def resident_mib(field: str) -> float:
    """Of this process. `getrusage` would say the peak of the process that has started it, where that was larger."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("Memory is measured by /proc/self/status, which is Linux's.")


def worker_mib() -> float:
    """The peak of the largest worker, what it shares with this process included; 0 where there was none."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def drop_pages(paths: list[Path]) -> None:
    """Asks the system to forget what it has read of some files."""
    for path in paths:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


# ------------------------------------------------------------------------------------------------------------ tables


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def machine() -> dict[str, Any]:
    with Path("/proc/cpuinfo").open() as file:
        names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load_before": os.getloadavg()[0],
        "platform": platform.platform(),
    }


def versions() -> dict[str, str]:
    from importlib.metadata import version

    names = ("numpy", "pyarrow", "datasets", "torch", "h5py", "webdataset", "pillow")
    return {name: version(name) for name in names} | {"python": platform.python_version()}


def print_betas(figures: dict[str, Any]) -> None:
    size = figures["size"]
    print(f"\nbetas: {size['trials']} trials x {size['voxels']} voxels, shuffled batches of {size['batch_size']}\n")
    print("| | rows/s |\n|---|---:|")
    for name, rows in figures["betas"]["rows_per_s"].items():
        print(f"| {name} | {rows:,} |")


def print_batches(figures: dict[str, Any], at: dict[str, Any]) -> None:
    size = figures["size"]
    print(
        f"\nbatches: {size['trials']} trials of {size['voxels']} voxels and a picture of {size['pixels']} pixels, "
        f"shuffled batches of {size['batch_size']}; {at['processor']}, {at['cores']} cores, "
        f"load {at['load_before']:.1f} before\n"
    )
    columns = ("", "workers", "pages", "trials/s", "spread", "CPU ms a trial", "opening, s")
    columns += ("peak MiB", "of it imports", "a worker, MiB", "disk, MB")
    print(f"| {' | '.join(columns)} |\n|---{'|---:' * (len(columns) - 1)}|")
    for row in figures["batches"]:
        cells = [row["side"], row["workers"], row["pages"], f"{row['trials_per_s']:,.0f}"]
        cells += [f"{row['slowest']:,.0f} to {row['fastest']:,.0f}", f"{row['cpu_ms_a_trial']:.3f}"]
        cells += [f"{row['open_s']:.1f}", f"{row['peak_mib']:,.0f}", f"{row['imports_mib']:,.0f}"]
        cells += [f"{row['worker_mib']:,.0f}" if row["workers"] else "-", f"{row['disk_bytes'] / 1e6:,.0f}"]
        print(f"| {' | '.join(map(str, cells))} |")
    for row in figures["batches"]:
        if "disk_bytes_of_table" in row:
            print(f"\nThe table itself has {row['disk_bytes_of_table'] / 1e6:,.0f} MB; the cache can be made again.")
            break
    print("\nonce: " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in figures["once_s"].items()))


if __name__ == "__main__":
    main()
