"""Time and memory of the simulator.

```
python benchmarks/simulator.py                                  # 10,000 trials x 15,724 voxels: under two minutes
python benchmarks/simulator.py --voxels 3000 --train 4000 --validation 200 --test 100    # what the demo asks for
```

`betas` makes the trials and throws them away (pictures drawn, responses, noise, every block); `table` writes the whole
trial table as `fmri-models simulate` does.
"""

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from fmri_models.scenes import scene_records
from fmri_models.simulation import Simulator, SimulatorConfig, simulate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voxels", type=int, default=15_724)
    parser.add_argument("--train", type=int, default=3_134)
    parser.add_argument("--validation", type=int, default=100)
    parser.add_argument("--test", type=int, default=100)
    args = parser.parse_args()
    num_stimuli = args.train + args.validation + args.test
    print(f"{3 * num_stimuli:,} trials x {args.voxels:,} voxels")
    with _measured("betas"):
        _make_betas(num_stimuli, args.voxels)
    with tempfile.TemporaryDirectory() as folder, _measured("table"):
        simulate(
            "builtin:scenes",
            Path(folder) / "table",
            num_voxels=args.voxels,
            num_train=args.train,
            num_validation=args.validation,
            num_test=args.test,
        )


def _make_betas(num_stimuli: int, num_voxels: int) -> None:
    records = list(scene_records("train", num_stimuli))
    images = np.stack([record["image"] for record in records])
    factors = [record["factors"] for record in records]
    experiment = Simulator(SimulatorConfig(num_voxels)).experiment(images, ["train"] * num_stimuli, factors)
    for _trials, _betas in experiment.chunks():
        pass


@contextmanager
def _measured(what: str) -> Iterator[None]:
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"{what}: {wall:.1f} s, {cpu:.1f} s of processor time, at most {_peak_memory() / 2**30:.2f} GiB so far")


def _peak_memory() -> int:
    """Bytes; the system's unit is KiB on Linux and bytes on macOS."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    main()
