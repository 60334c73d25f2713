"""A small folder of NOD, whose every beta says where it belongs.

Beta of vertex v of map m of run r of session s of subject n: 1,000 n + 300 s + 100 r + 10 m + v / 100.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from tests.fabricated.surfaces import _save, write_dlabel

LEFT, RIGHT = [0, 2, 3, 5], [1, 2, 4]
WIDTH = len(LEFT) + len(RIGHT)
COCO = [f"0000000{number:05d}" for number in (36598, 124419, 415225)]
RUNS = {"imagenet01": 2, "imagenet02": 1, "coco": 2}
MAPS = 4


def pictures(subject: int, session: str, run: int) -> list[str]:
    """Lines of the list beside the maps."""
    if session == "coco":
        return [f"{name}.jpg" for name in COCO]
    first = 1000 * subject + 100 * int(session[-2:]) + 10 * run
    return [f"n0313157{place}/n0313157{place}_{first + place}.JPEG" for place in range(MAPS)]


def betas(subject: int, session: str, run: int) -> np.ndarray:
    first = 1_000.0 * subject + 300.0 * list(RUNS).index(session) + 100.0 * run
    count = len(pictures(subject, session, run))
    return first + 10.0 * np.arange(count)[:, None] + np.arange(WIDTH) / 100


def picture(name: str) -> np.ndarray:
    return np.random.default_rng(sum(place * ord(each) for place, each in enumerate(name))).integers(
        0, 256, (8, 8, 3), dtype=np.uint8
    )


def axis():
    from nibabel.cifti2 import BrainModelAxis

    left = BrainModelAxis.from_surface(np.array(LEFT), 6, name="cortex_left")
    return left + BrainModelAxis.from_surface(np.array(RIGHT), 6, name="cortex_right")


def write(root: Path, subjects: tuple[int, ...] = (1,)) -> Path:
    from nibabel.cifti2 import ScalarAxis

    for subject in subjects:
        results = root / "derivatives" / "ciftify" / f"sub-{subject:02d}" / "results"
        for session, runs in RUNS.items():
            if session == "coco" and subject > 9:
                continue
            for run in range(1, runs + 1):
                name = f"ses-{session}_task-{session.rstrip('012')}_run-{run}"
                shown = pictures(subject, session, run)
                maps = ScalarAxis([line.rpartition("/")[2] for line in shown])
                _save(results / name / f"{name}_beta.dscalar.nii", betas(subject, session, run), maps, axis())
                (results / name / f"{name}_label.txt").write_text("\n".join(shown))
                for line in shown:
                    path = root / "stimuli" / ("coco" if session == "coco" else "imagenet") / line
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(picture(path.stem)).save(path, format="PNG")
        # Localiser and a fifth session are not read.
        for other in ("ses-floc_task-floc_run-1", "ses-imagenet05_task-imagenet_run-1"):
            (results / other).mkdir(parents=True)
    return root


__all__ = ["axis", "betas", "picture", "pictures", "write", "write_dlabel"]
