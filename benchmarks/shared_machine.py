"""What a training step takes alone and beside busy processes, by how OpenMP's threads wait for each other.

    python benchmarks/shared_machine.py                          # a step of the demo's prior; half an hour
    python benchmarks/shared_machine.py --stage backbone --steps 30 --neighbours 0 1 10

At the end of each parallel piece of work a thread looks again and again whether the others are ready (it spins) before
it sleeps. That is the fastest where every thread has a core. Where another program has one of the cores, the thread
that is waited for waits itself, for the core that the spinning one takes.

Every way to wait is set in the environment of a process of its own, before PyTorch is loaded; `command` is what
`fmri-models` sets. The ways take turns, so that a machine which becomes slower in between is slower for all. A
neighbour is a process that computes without end. Times are medians over steps, then over repeats; `switches` are how
often a step's threads went to sleep, which, other than times, says the same on a machine that others use. The number of
threads is PyTorch's choice or that of OMP_NUM_THREADS, and the same for all.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from statistics import median
from typing import Any

from fmri_models.process_threads import VARIABLES, brief_waiting

STAGES = ("backbone", "prior", "low_level")
_WARM_UP = 5
_WORKER = "--worker"


def ways(spin_counts: Sequence[int]) -> dict[str, dict[str, str]]:
    """Name ▶ variables of the environment."""
    return {
        "default": {},
        "command": brief_waiting({}),
        "passive": {"OMP_WAIT_POLICY": "passive"},
        **{f"spin {count:,}": {"GOMP_SPINCOUNT": str(count)} for count in spin_counts},
    }


def work(data: Path, stage_name: str, steps: int) -> None:
    """Measures so many steps for each line that comes in; what a process of its own does."""
    from demo_stages import demo_stage

    from fmri_models.process_memory import keep_freed_memory

    keep_freed_memory()
    stage = demo_stage(data, stage_name)
    batches = stage.batches(0)
    for step in range(_WARM_UP):
        stage.update(step, batches)
    print("ready", flush=True)
    for _ in sys.stdin:
        seconds = []
        before = resource.getrusage(resource.RUSAGE_SELF)
        for step in range(steps):
            began = time.perf_counter()
            stage.update(step, batches)
            seconds.append(time.perf_counter() - began)
        after = resource.getrusage(resource.RUSAGE_SELF)
        result = {
            "ms": 1000 * median(seconds),
            "fastest_ms": 1000 * min(seconds),
            "cpu_ms": 1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / steps,
            "switches": (after.ru_nvcsw - before.ru_nvcsw) / steps,
        }
        print(json.dumps(result), flush=True)


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        time.sleep(0.5 if count else 0)
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def measured(
    way: dict[str, str], data: Path, stage: str, steps: int, neighbours: Sequence[int]
) -> dict[int, dict[str, float]]:
    """One process' results beside each number of neighbours."""
    environment = {key: value for key, value in os.environ.items() if key not in VARIABLES} | way
    command = [sys.executable, __file__, _WORKER, str(data), "--stage", stage, "--steps", str(steps)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            raise SystemExit("A measuring process has stopped; see above.")
        results = {}
        for count in neighbours:
            with busy_processes(count):
                process.stdin.write("go\n")
                process.stdin.flush()
                results[count] = json.loads(process.stdout.readline())
        process.stdin.close()
    return results


def medians(repeats: Sequence[dict[int, dict[str, float]]]) -> dict[int, dict[str, float]]:
    """Of each number, over repeats."""
    return {
        count: {name: median(repeat[count][name] for repeat in repeats) for name in repeats[0][count]}
        for count in repeats[0]
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", choices=STAGES, default="prior")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--neighbours", type=int, nargs="+", default=[0, 1], help="busy processes (default: 0 1)")
    parser.add_argument("--spin-counts", type=int, nargs="*", default=[1000, 3000, 10_000, 30_000, 100_000])
    parser.add_argument("--ways", nargs="+", help="some of: default, command, passive, 'spin 1,000' ...")
    parser.add_argument("--data", type=Path, help="a table that an earlier run was given or left (default: simulated)")
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks/shared_machine.json"))
    parser.add_argument(_WORKER, type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker is not None:
        work(args.worker, args.stage, args.steps)
        return
    chosen = {name: way for name, way in ways(args.spin_counts).items() if not args.ways or name in args.ways}
    neighbours = sorted({0, *args.neighbours})
    found: dict[str, list[Any]] = {name: [] for name in chosen}
    with tempfile.TemporaryDirectory() if args.data is None else nullcontext(args.data.parent) as folder:
        data = args.data or _simulated(Path(folder))
        for _ in range(args.repeats):
            for name, way in chosen.items():
                found[name].append(measured(way, data, args.stage, args.steps, neighbours))
    results = {name: medians(repeats) for name, repeats in found.items()}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "stage": args.stage,
        "steps": args.steps,
        "cores": len(os.sched_getaffinity(0)),
        "ways": {
            name: {"environment": chosen[name], "median": results[name], "repeats": found[name]} for name in chosen
        },
    }
    args.out.write_text(json.dumps(content, indent=2))
    _print(results, neighbours, args)
    print(f"wrote {args.out}")


def _simulated(folder: Path) -> Path:
    from demo_stages import make_table

    return make_table(folder)


def _print(results: dict[str, dict[int, dict[str, float]]], neighbours: Sequence[int], args: Any) -> None:
    first = next(iter(results))
    print(
        f"a step of the demo's {args.stage}: medians of {args.steps} steps and {args.repeats} repeats on "
        f"{len(os.sched_getaffinity(0))} cores; alone against {first!r}, beside others against alone"
    )
    beside = [count for count in neighbours if count]
    print(f"{'':<14}{'alone':>19}{'switches':>10}" + "".join(f"{f'beside {count}':>20}" for count in beside))
    for name, result in results.items():
        alone = result[0]["ms"]
        line = f"{name:<14}{alone:>9.1f} ms {alone / results[first][0]['ms'] - 1:>+6.1%}{result[0]['switches']:>10.0f}"
        print(line + "".join(f"{result[n]['ms']:>10.1f} ms {result[n]['ms'] / alone:>4.1f} x" for n in beside))


if __name__ == "__main__":
    main()
