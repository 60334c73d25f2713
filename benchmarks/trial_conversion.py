"""Time and memory of `fmri-models prepare nsd` on a fabricated session of NSD's release; a part of `trial_table.py`."""

import csv
import io
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

# Subject 1, func1pt8mm (X, Y, Z).
_SHAPE = (81, 104, 83)
_VOXELS = 15_724
_SIDE = 425
_TRIALS_A_BLOCK = 25
# Blocks of betas that are written again and again, because drawing numbers would take longer than writing them.
_DIFFERENT_BLOCKS = 3
_PREPARE = """
import sys
from pathlib import Path
from fmri_models.cli.main import main
code = main(sys.argv[1:])
lines = Path("/proc/self/status").read_text().splitlines()
print("peak", next(line.split()[1] for line in lines if line.startswith("VmHWM:")))
sys.exit(code)
"""


def measure_conversion(folder: Path, side: int) -> dict[str, Any]:
    """Fabricates a session and converts it.

    Args:
        folder: A temporary one.
        side: Of the volume and the pictures in place of NSD's own size, where it is not 0.
    """
    shape = (side, side, side) if side else _SHAPE
    source, out = folder / "nsd", folder / "nsd_table"
    shown = write_session(source, shape, min(_VOXELS, int(np.prod(shape)) // 2), side or _SIDE)
    betas = next(source.rglob("betas_session01.hdf5")).stat().st_size
    pictures = len(shown) * 3 * (side or _SIDE) ** 2
    command = ["prepare", "nsd", "--source", str(source), "--out", str(out), "--option", "incomplete=true"]
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", _PREPARE, *command], capture_output=True, text=True, check=False)
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"`prepare nsd` has stopped: {done.stderr[-2000:]}")
    table = json.loads((out / "table.json").read_text())
    peak = next(int(line.split()[1]) for line in reversed(done.stdout.splitlines()) if line.startswith("peak "))
    return {
        "shape": list(shape),
        "voxels": table["num_voxels"]["subj01"],
        "trials": sum(table["trials"]["subj01"].values()),
        "pictures": len(shown),
        "source_bytes": {"betas": betas, "pictures": pictures},
        "table_bytes": sum(path.stat().st_size for path in out.rglob("*") if path.is_file()),
        "seconds": seconds,
        "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "mb_per_s": (betas + pictures) / 1e6 / seconds,
        "peak_mib": peak / 1024,
    }


def print_conversion(figures: dict[str, Any]) -> None:
    source, seconds = figures["source_bytes"], figures["seconds"]
    columns = ("betas read, MB", "pictures read, MB", "table, MB", "s", "CPU s", "MB/s", "s a GB", "peak MiB")
    cells = [f"{size / 1e6:,.0f}" for size in (source["betas"], source["pictures"], figures["table_bytes"])]
    cells += [f"{seconds:.1f}", f"{figures['cpu_seconds']:.1f}", f"{figures['mb_per_s']:.0f}"]
    cells += [f"{seconds / (sum(source.values()) / 1e9):.1f}", f"{figures['peak_mib']:,.0f}"]
    print(
        f"\nconversion: a session of NSD, {figures['trials']} trials of {figures['shape']} ({figures['voxels']} in "
        f"nsdgeneral), {figures['pictures']} pictures\n\n| {' | '.join(columns)} |\n{'|---:' * len(columns)}|\n"
        f"| {' | '.join(cells)} |"
    )


def _design(rng: np.random.Generator) -> np.ndarray:
    """(30,000,) of which picture each trial is, from 1; 18 of the shared thousand are in the last sessions alone."""
    late, first = np.arange(1, 19), 37 * 750
    others = rng.permutation(np.repeat(np.arange(19, 10_001), 3))
    ordering = np.concatenate([others[:first], rng.permutation(np.concatenate([others[first:], np.repeat(late, 3)]))])
    # The rest of the shared pictures is there from the beginning on.
    assert set(range(19, 1001)) <= set(ordering[:first].tolist())
    return ordering


def write_session(source: Path, shape: tuple[int, ...], voxels: int, side: int) -> np.ndarray:
    """One session of subject 1 in the layout of the release; the pictures that it shows, of the 73,000.

    Of `nsd_stimuli.hdf5` only these are written: a dataset in chunks takes no room for the others.
    """
    import h5py
    import nibabel
    from scipy.io import savemat

    rng = np.random.default_rng(0)
    experiment = source / "nsddata" / "experiments" / "nsd"
    rois = source / "nsddata" / "ppdata" / "subj01" / "func1pt8mm" / "roi"
    betas = source / "nsddata_betas" / "ppdata" / "subj01" / "func1pt8mm" / "betas_fithrf_GLMdenoise_RR"
    stimuli = source / "nsddata_stimuli" / "stimuli" / "nsd"
    for each in (experiment, rois, betas, stimuli, source / "nsddata" / "ppdata" / "subj01" / "behav"):
        each.mkdir(parents=True)
    ordering = _design(rng)
    numbers = 1 + rng.permutation(73_000)
    images = np.stack(
        [np.concatenate([numbers[:1000], numbers[1000 + 9000 * s : 10_000 + 9000 * s]]) for s in range(8)]
    )
    savemat(
        experiment / "nsd_expdesign.mat",
        {"masterordering": ordering[None], "subjectim": images, "sharedix": np.sort(numbers[:1000])[None]},
    )
    region = np.zeros(shape, dtype=np.int16)
    # About as scattered as a cortical ribbon: short runs of neighbouring voxels.
    starts = rng.choice(region.size // 8, -(-voxels // 4), replace=False)
    region.reshape(-1)[np.sort((8 * starts[:, None] + np.arange(4)).ravel()[:voxels])] = 1
    nibabel.save(nibabel.Nifti1Image(region, np.diag([1.8, 1.8, 1.8, 1])), rois / "nsdgeneral.nii.gz")
    blocks = [
        rng.integers(-3000, 3000, (_TRIALS_A_BLOCK, *reversed(shape)), dtype=np.int16) for _ in range(_DIFFERENT_BLOCKS)
    ]
    with h5py.File(betas / "betas_session01.hdf5", "w") as file:
        dataset = file.create_dataset("betas", (750, *reversed(shape)), dtype=np.int16)
        for number, start in enumerate(range(0, 750, _TRIALS_A_BLOCK)):
            # Other numbers in each, so that no voxel says the same twice.
            dataset[start : start + _TRIALS_A_BLOCK] = blocks[number % _DIFFERENT_BLOCKS] + number
    shown = images[0][ordering[:750] - 1] - 1
    with (source / "nsddata" / "ppdata" / "subj01" / "behav" / "responses.tsv").open("w", newline="") as file:
        table = csv.writer(file, delimiter="\t")
        table.writerow(["SUBJECT", "SESSION", "RUN", "TRIAL", "73KID"])
        table.writerows([1, 1, 1 + trial * 12 // 750, trial + 1, shown[trial] + 1] for trial in range(750))
    different = np.unique(shown)
    with h5py.File(stimuli / "nsd_stimuli.hdf5", "w") as file:
        bricks = file.create_dataset("imgBrick", (73_000, side, side, 3), np.uint8, chunks=(1, side, side, 3))
        for index in different.tolist():
            bricks[index] = picture(index, side)
    return different


def picture(number: int, side: int) -> np.ndarray:
    """(side, side, 3) uint8 of coarse and fine structure."""
    from PIL import Image
    from trial_formats import jpeg

    with Image.open(io.BytesIO(jpeg(number, side))) as image:
        return np.asarray(image)
