"""The scenes that the networks learn from and are measured on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fmri_models import scenes
from fmri_models.evaluation.scene_factors import FACTOR_VALUES
from fmri_models.saving import atomic_folder

from .settings import Settings


@dataclass(frozen=True)
class Pictures:
    """Scenes in memory-mapped files: uint8 images (N, 64, 64, 3) and the index of each factor's value (N, 6)."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, positions: np.ndarray) -> torch.Tensor:
        """(n, 3, 64, 64) float32 in [0, 1]."""
        return torch.from_numpy(self.images[positions]).permute(0, 3, 1, 2).float() / 255

    def factors(self, position: int) -> scenes.SceneFactors:
        values = {
            name: FACTOR_VALUES[name][index] for name, index in zip(FACTOR_VALUES, self.labels[position], strict=True)
        }
        return scenes.SceneFactors(**values)


def render(purpose: str, num: int, seed: int, folder: Path) -> Pictures:
    """Draws scenes once and maps them into memory."""
    folder = folder / f"{purpose}-{seed}-{num}"
    if not folder.exists():
        print(f"drawing {num} scenes for {purpose}", flush=True)
        with atomic_folder(folder) as partial:
            shape = (num, scenes.IMAGE_SIZE, scenes.IMAGE_SIZE, 3)
            images = np.lib.format.open_memmap(partial / "images.npy", mode="w+", dtype=np.uint8, shape=shape)
            labels = np.zeros((num, len(FACTOR_VALUES)), np.int64)
            for position, scene_seed in enumerate(scenes.scene_seeds(purpose, num, seed)):
                drawn = scenes.scene(scene_seed)
                images[position] = drawn.image
                factors = drawn.factors.to_dict()
                labels[position] = [values.index(factors[name]) for name, values in FACTOR_VALUES.items()]
            images.flush()
            np.save(partial / "labels.npy", labels)
    return Pictures(np.load(folder / "images.npy", mmap_mode="r"), np.load(folder / "labels.npy"))


@dataclass(frozen=True)
class Data:
    """The pictures of a run; training and validation scenes are neighbors in the generator's own seed range."""

    train: Pictures
    validation: Pictures

    @classmethod
    def load(cls, settings: Settings, work: Path) -> "Data":
        num = settings.num_pictures + settings.num_validation
        pictures = render("generator", num, settings.seed, work / "pictures")
        cut = settings.num_pictures
        return cls(
            Pictures(pictures.images[:cut], pictures.labels[:cut]),
            Pictures(pictures.images[cut:], pictures.labels[cut:]),
        )


def chunks(num: int, size: int) -> list[np.ndarray]:
    return [np.arange(start, min(start + size, num)) for start in range(0, num, size)]
