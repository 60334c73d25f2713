"""Small files of Wen et al. 2018 in MinD-Video's and NeuroClips' layouts: fewer segments, pixels and vertices."""

from pathlib import Path

import numpy as np
import torch

TRAINED, TESTED, VOLUMES, WIDTH, SIZE = 3, 1, 240, 5, 4


def frames(part: str) -> np.ndarray:
    """(segments, volumes, frames, height, width, 3) uint8, no two alike."""
    segments = TRAINED if part == "train" else TESTED
    rng = np.random.default_rng(1 + (part == "test"))
    return rng.integers(0, 256, (segments, VOLUMES, 6, SIZE, SIZE, 3), dtype=np.uint8)


def response(part: str, segment: int, volume: int, repeat: int = 0) -> np.ndarray:
    """(vertices,): each value says which it is."""
    first = (0 if part == "train" else 500_000) + 100_000 * segment + 100 * volume
    return first + 10 * np.arange(WIDTH) + repeat * 0.5


def mindvideo(folder: Path, parts: tuple[str, ...] = ("train", "test")) -> Path:
    into = folder / "preprocessed"
    into.mkdir(parents=True)
    for part in parts:
        segments = TRAINED if part == "train" else TESTED
        values = np.array([[response(part, s, v) for v in range(VOLUMES)] for s in range(segments)])
        np.save(into / f"fmri_{part}_subject1.npy", values)
        np.save(into / f"video_{part}_256_3hz.npy", frames(part))
        texts = np.array([[[f"{part} {s} {v}"] * 6 for v in range(VOLUMES)] for s in range(segments)])
        np.save(into / f"text_{part}_256_3hz.npy", texts)
    # The test's ids are of all five segments; every tenth clip is across a change of the scene.
    names = [[f"seg{s}_{v}-{v + 1}" if v % 10 == 0 else f"seg{s}_{v}" for v in range(VOLUMES)] for s in range(5)]
    np.save(into / "test_seg_id_3hz.npy", np.array(names))
    return folder


def neuroclips(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for part, repeats in (("train", 2), ("test", 10)):
        segments = TRAINED if part == "train" else TESTED
        values = np.array(
            [
                [response(part, s, v, repeat) for repeat in range(repeats)]
                for s in range(segments)
                for v in range(VOLUMES)
            ]
        )
        torch.save(torch.from_numpy(values).float(), folder / f"subj01_{part}_fmri.pt")
        pictures = frames(part).reshape(-1, 6, SIZE, SIZE, 3).transpose(0, 1, 4, 2, 3)
        torch.save(torch.from_numpy(np.ascontiguousarray(pictures)).float() / 255, folder / f"GT_{part}_3fps.pt")
    return folder
