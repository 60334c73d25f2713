"""The independent judge of scene factors."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from fmri_models.evaluation.scene_factors import FACTOR_VALUES, SceneFactorClassifier

from .figures import factor_accuracy
from .settings import ClassifierSettings
from .stage import Stage


class ClassifierStage(Stage):
    """The judge of scene factors: sees true pictures and blurred, coarsened, noisy and recolored ones."""

    name = "classifier"

    @property
    def own(self) -> ClassifierSettings:
        return self.settings.classifier

    def build(self) -> nn.Module:
        return SceneFactorClassifier(self.own.widths).to(memory_format=torch.channels_last)

    def losses(self, model: nn.Module, positions: np.ndarray, noise: torch.Generator) -> dict[str, torch.Tensor]:
        pictures = degrade(self.data.train.batch(positions), noise)
        labels = torch.from_numpy(self.data.train.labels[positions])
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(pictures.contiguous(memory_format=torch.channels_last))
        each = {
            name: F.cross_entropy(logits[name].float(), labels[:, column], label_smoothing=0.05)
            for column, name in enumerate(FACTOR_VALUES)
        }
        return {"loss": torch.stack(list(each.values())).sum(), **{f"loss_{name}": each[name] for name in each}}

    def validate(self, model: nn.Module) -> dict[str, float]:
        positions = np.arange(len(self.data.validation))
        noise = torch.Generator().manual_seed(self.settings.seed)
        pictures = self.data.validation.batch(positions)
        true = factor_accuracy(model, pictures, self.data.validation.labels)
        degraded = factor_accuracy(model, degrade(pictures, noise), self.data.validation.labels)
        return true | {f"{name}_degraded": value for name, value in degraded.items()}


def degrade(pictures: torch.Tensor, noise: torch.Generator) -> torch.Tensor:
    """Damages most pictures as reconstructions are damaged: softer, coarser, noisier, a little recolored."""

    def draw(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(shape, generator=noise)

    size = pictures.shape[-1]
    coarse_size = int(draw(20, size))
    coarse = F.interpolate(pictures, size=coarse_size, mode="bilinear", antialias=True)
    coarse = F.interpolate(coarse, size=size, mode="bicubic")
    blurred = F.avg_pool2d(F.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    num = len(pictures)
    choice = torch.randint(3, (num, 1, 1, 1), generator=noise)
    damaged = torch.where(choice == 0, pictures, torch.where(choice == 1, coarse, blurred))
    harm = (choice > 0) | (draw(0, 1, num, 1, 1, 1) < 0.25)
    gain, offset = draw(0.88, 1.12, num, 3, 1, 1), draw(-0.06, 0.06, num, 3, 1, 1)
    level = draw(0, 0.08, num, 1, 1, 1) * harm
    # Errors of a decoder are patches, not grains: half of the noise is drawn at a quarter of the resolution.
    grains = torch.randn(pictures.shape, generator=noise)
    patches = torch.randn((num, 3, size // 4, size // 4), generator=noise)
    patches = F.interpolate(patches, size=size, mode="bilinear")
    recolored = torch.where(harm, damaged * gain + offset, damaged)
    return (recolored + level * (grains + patches) / 2).clamp(0, 1)
