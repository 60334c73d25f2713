"""Exact retrieval in a large gallery: time and peak memory of `fmri_models.retrieval` beside plain PyTorch and float64.

    python benchmarks/retrieval.py                              # 1,000,000 rows x 768 of float16, 100 queries
    python benchmarks/retrieval.py --rows 20000 --size 197376   # MindEye's tokens

The gallery is a memory-mapped file of random numbers. "plain torch" is what one writes down first: chunks of the
gallery are normalised and multiplied in float32, and `topk` keeps the best. It is not exact: what float32 cannot tell
apart comes in any order. "float64" is the same in float64 with a stable sort, which is exact. The last side is the
floor: one product of matrices in float32 of the same size, with everything in memory.

Every side runs in a process of its own. Memory is the growth of its resident set, with those pages of the mapped file
that it keeps. Look at CPU time where other programs are running.
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
from torch.nn import functional as F

from fmri_models.retrieval import count_duplicates, retrieve

CHUNK_VALUES = 2**23


def make_gallery(path: Path, rows: int, size: int) -> None:
    """Random numbers in a file, made in blocks."""
    rng = np.random.default_rng(0)
    values = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(rows, size))
    block = max(1, CHUNK_VALUES // size)
    for start in range(0, rows, block):
        part = values[start : start + block]
        part[:] = rng.standard_normal(part.shape, dtype=np.float32)
    values.flush()


def ours(query: torch.Tensor, gallery: np.ndarray, top_k: int) -> torch.Tensor:
    return retrieve(query, gallery, top_k).indices


def plain_torch(query: torch.Tensor, gallery: np.ndarray, top_k: int) -> torch.Tensor:
    return _chunked(query, gallery, top_k, torch.float32)


def float64(query: torch.Tensor, gallery: np.ndarray, top_k: int) -> torch.Tensor:
    return _chunked(query, gallery, top_k, torch.float64)


def duplicates(query: torch.Tensor, gallery: np.ndarray, top_k: int) -> torch.Tensor:
    """Counts repeated rows, as the command does before it searches."""
    return torch.tensor([[count_duplicates(gallery)]])


def floor(query: torch.Tensor, gallery: np.ndarray, top_k: int) -> torch.Tensor:
    """The arithmetic alone: the same product again and again, on one chunk that stays in memory."""
    size = max(1, CHUNK_VALUES // query.shape[1])
    chunk = torch.from_numpy(np.array(gallery[:size])).float().T.contiguous()
    for start in range(0, len(gallery), size):
        query @ chunk[:, : min(size, len(gallery) - start)]
    return torch.zeros(len(query), top_k)


def _chunked(query: torch.Tensor, gallery: np.ndarray, top_k: int, dtype: torch.dtype) -> torch.Tensor:
    query = F.normalize(query.to(dtype), dim=1)
    best = torch.empty(len(query), 0, dtype=dtype)
    index = torch.empty(len(query), 0, dtype=torch.long)
    size = max(1, CHUNK_VALUES // query.shape[1])
    for start in range(0, len(gallery), size):
        chunk = F.normalize(torch.from_numpy(np.array(gallery[start : start + size])).to(dtype), dim=1)
        similarity = query @ chunk.T
        if dtype == torch.float64:
            order = similarity.sort(dim=1, descending=True, stable=True).indices[:, :top_k]
            values = similarity.gather(1, order)
        else:
            values, order = similarity.topk(top_k, dim=1)
        best, index = torch.cat([best, values], 1), torch.cat([index, order + start], 1)
        order = best.sort(dim=1, descending=True, stable=True).indices[:, :top_k]
        best, index = best.gather(1, order), index.gather(1, order)
    return index


Side = Callable[[torch.Tensor, np.ndarray, int], torch.Tensor]
SIDES: dict[str, Side] = {
    "fmri_models": ours,
    "plain torch": plain_torch,
    "float64": float64,
    "count duplicates": duplicates,
    "float32 product alone": floor,
}


def measured(side: Side, path: Path, queries: int, top_k: int) -> tuple[dict[str, float], torch.Tensor]:
    """Runs one side in a fresh process, so that its peak memory is its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        result, found = pool.apply(_run, (side, path, queries, top_k))
    return result, torch.from_numpy(found)


def _run(side: Side, path: Path, queries: int, top_k: int) -> tuple[dict[str, float], np.ndarray]:
    gallery = np.load(path, mmap_mode="r")
    query = torch.randn(queries, gallery.shape[1], generator=torch.Generator().manual_seed(1))
    # Brings up the threads and libraries before memory is looked at.
    side(query[:2], gallery[:64], 1)
    before = _status("VmRSS")
    _reset_peak()
    wall, cpu = time.perf_counter(), time.process_time()
    found = side(query, gallery, top_k)
    result = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    result["resident_peak_mib"] = (_status("VmHWM") - before) / 2**20
    return result, found.numpy()


def _reset_peak() -> None:
    """Makes the kernel's high-water mark of this process begin anew (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def _status(field: str) -> float:
    """A field of the kernel's account of this process, in bytes (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--size", type=int, default=768)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--top-k", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks/retrieval.json"))
    parser.add_argument("--folder", type=Path, help="where the gallery's file is made (default: a temporary folder)")
    args = parser.parse_args()
    sides: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        path = Path(name) / "gallery.npy"
        make_gallery(path, args.rows, args.size)
        indices = {}
        for side, function in SIDES.items():
            sides[side], indices[side] = measured(function, path, args.queries, args.top_k)
    for side in ("fmri_models", "plain torch"):
        sides[side]["equal_to_float64"] = float((indices[side] == indices["float64"]).double().mean())
    problem = {name: getattr(args, name) for name in ("rows", "size", "queries", "top_k")}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"problem": problem, "threads": torch.get_num_threads(), "sides": sides}, indent=2))
    print(
        f"{args.queries} queries in {args.rows:,} x {args.size:,} float16, top {args.top_k}, "
        f"{torch.get_num_threads()} threads"
    )
    print(f"{'':<24}{'wall':>9}{'CPU':>9}{'memory':>13}   ranks as in float64")
    for side, result in sides.items():
        equal = f"{result['equal_to_float64']:.2%}" if "equal_to_float64" in result else ""
        print(
            f"{side:<24}{result['wall_s']:>7.2f} s{result['cpu_s']:>7.2f} s{result['resident_peak_mib']:>9.0f} MiB"
            f"   {equal}"
        )
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
