"""What the benchmarks of methods share: a side's time and memory in a process of its own, and the floor of a row."""

import multiprocessing
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

import torch


@dataclass
class Work:
    """What a row cannot do without.

    Args:
        products: (FLOPs, bytes that are read and written) of each matrix product.
        optimiser_bytes: What AdamW reads and writes.
    """

    products: list[tuple[float, float]]
    optimiser_bytes: float = 0.0

    def floor(self, rates: dict[str, float]) -> float:
        """Seconds at the measured rates."""
        products = sum(max(flops / rates["flops"], moved / rates["bytes"]) for flops, moved in self.products)
        return products + self.optimiser_bytes / rates["bytes"]


def product(rows: int, inner: int, columns: int, times: int = 1) -> list[tuple[float, float]]:
    """FLOPs and bytes of float32 matrix products, all of one shape."""
    return [(2.0 * rows * inner * columns, 4.0 * (rows * inner + inner * columns + rows * columns))] * times


def adamw_bytes(parameters: int) -> float:
    """What a step of AdamW reads and writes."""
    # Reads weight, gradient and two moments, writes weight and moments.
    return 28.0 * parameters


def measured_rates(device: torch.device) -> dict[str, float]:
    """FLOP/s of a large product, and byte/s of a large copy or sum, whichever moves more."""
    first, second = torch.randn(2, 2048, 2048, device=device)
    source, target = torch.ones(2, 2**25, device=device)
    product = median_seconds(lambda: first @ second, device)
    copied = 8 * source.numel() / median_seconds(lambda: target.copy_(source), device)
    added = 12 * source.numel() / median_seconds(lambda: target.add_(source), device)
    return {"flops": 2 * 2048**3 / product, "bytes": max(copied, added)}


def median_seconds(run: Callable[[], Any], device: torch.device) -> float:
    run()
    return median(seconds(run, device) for _ in range(5))


def seconds(run: Callable[[], Any], device: torch.device) -> float:
    """The process's time on a CPU, the clock's on a GPU."""
    if device.type == "cpu":
        started = time.process_time()
        run()
        return time.process_time() - started
    torch.cuda.synchronize()
    started = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - started


def measure(make: Callable[[], Callable[[], Any]], device: torch.device, warm_up: int, repeats: int) -> dict[str, Any]:
    """Seconds of each run, the machine's rates around it, and peak memory; `wall_seconds` are the clock's."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run = make()
    for _ in range(warm_up + 1):
        run()
    # What the rates take comes after that.
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**20
    else:
        peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10
    rates, times, walls = [measured_rates(device)], [], []
    for _ in range(repeats):
        started = time.perf_counter()
        times.append(seconds(run, device))
        walls.append(time.perf_counter() - started)
        rates.append(measured_rates(device))
    around = [{name: (a[name] + b[name]) / 2 for name in a} for a, b in pairwise(rates)]
    return {
        "seconds": median(times),
        "wall_seconds": median(walls),
        "runs": times,
        "rates": around,
        "peak_mib": peak,
    }


def in_own_process(work: Callable[[], Any]) -> Any:
    """Runs in a forked process: its memory is its own, and what was imported is shared."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=lambda: sender.send(work()))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError as error:
        raise SystemExit("A measured process ended early; is there too little memory for this size?") from error
    finally:
        process.join()
