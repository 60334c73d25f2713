"""An independent judge of built-in scenes: names the factors of a picture.

It was trained on pictures alone (true ones, and blurred, noisy and coarsened ones) and has no part in decoding: it
never conditions a generator and never chooses between candidates.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ..errors import FmriModelsError
from ..saving import atomic_folder, check_schema
from ..scenes import COLOURS, GROUNDS, IMAGE_SIZE, KINDS, PLACES, SIZES, TIMES_OF_DAY

SCHEMA = 1
DEFAULT_FOLDER = Path(__file__).parent.parent / "assets" / "scene_factors"
FACTOR_VALUES: dict[str, tuple[str, ...]] = {
    "kind": KINDS,
    "colour": tuple(COLOURS),
    "size": tuple(SIZES),
    "place": PLACES,
    "ground": GROUNDS,
    "time_of_day": TIMES_OF_DAY,
}
"""The values that each factor can take, in the order of the classifier's outputs."""

_CONFIG_NAME = "config.json"
_WEIGHTS_NAME = "model.safetensors"
_GRID = IMAGE_SIZE // 8


class SceneFactorClassifier(nn.Module):
    """A small convolutional network with one output for each factor.

    What an object is and its color are read from features pooled over the picture; where it is, from features on an
    8x8 grid.

    Args:
        widths: Channels at 32x32, 16x16 and 8x8 pixels; each a multiple of 8.
    """

    def __init__(self, widths: tuple[int, int, int] = (48, 80, 112)) -> None:
        super().__init__()
        self.widths = tuple(int(width) for width in widths)
        self.sha256: str | None = None
        fine, middle, coarse = self.widths
        self.features = nn.Sequential(
            *_convolution(3, fine, stride=2),
            *_convolution(fine, fine),
            *_convolution(fine, middle, stride=2),
            *_convolution(middle, middle),
            *_convolution(middle, coarse, stride=2),
            *_convolution(coarse, coarse),
        )
        self.where = nn.Conv2d(coarse, 12, 1)
        num_features = 2 * coarse + 12 * _GRID**2
        self.heads = nn.ModuleDict({name: nn.Linear(num_features, len(FACTOR_VALUES[name])) for name in FACTOR_VALUES})

    def forward(self, pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
        """Scores of every value of every factor.

        Args:
            pixel_values: (N, 3, 64, 64) float in [0, 1].

        Returns:
            Factor name to (N, number of values) logits.
        """
        features = self.features(2 * pixel_values - 1)
        pooled = torch.cat([features.mean((2, 3)), features.amax((2, 3)), self.where(features).flatten(1)], dim=1)
        return {name: head(pooled) for name, head in self.heads.items()}

    @torch.inference_mode()
    def predict(self, images: torch.Tensor, batch_size: int = 250) -> dict[str, list[str]]:
        """Names the factors of pictures.

        Args:
            images: (N, 3, 64, 64) float in [0, 1].
            batch_size: Pictures in memory at once.

        Returns:
            Factor name to N values.

        Raises:
            FmriModelsError: The pictures have another shape or type.
        """
        if images.ndim != 4 or tuple(images.shape[1:]) != (3, IMAGE_SIZE, IMAGE_SIZE) or not images.is_floating_point():
            raise FmriModelsError(
                f"The scene classifier takes float pictures of shape (N, 3, {IMAGE_SIZE}, {IMAGE_SIZE}); got "
                f"{images.dtype} of shape {tuple(images.shape)}; resize them first."
            )
        parameter = self.where.weight
        names: dict[str, list[str]] = {factor: [] for factor in FACTOR_VALUES}
        for start in range(0, len(images), batch_size):
            batch = images[start : start + batch_size].to(parameter.device, parameter.dtype)
            for factor, logits in self(batch).items():
                names[factor] += [FACTOR_VALUES[factor][index] for index in logits.argmax(1).tolist()]
        return names

    def save_pretrained(
        self, folder: str | os.PathLike, dtype: torch.dtype = torch.float32, overwrite: bool = False
    ) -> None:
        """Writes `config.json` and `model.safetensors` into a new folder.

        Raises:
            FmriModelsError: The folder has content while `overwrite` is off, or the disk is full.
        """
        config: dict[str, Any] = {
            "schema": SCHEMA,
            "widths": list(self.widths),
            "factors": {name: list(values) for name, values in FACTOR_VALUES.items()},
        }
        with atomic_folder(folder, overwrite) as partial:
            (partial / _CONFIG_NAME).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
            tensors = {name: tensor.to(dtype).contiguous() for name, tensor in self.state_dict().items()}
            save_file(tensors, partial / _WEIGHTS_NAME)

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike, dtype: torch.dtype = torch.float32) -> "SceneFactorClassifier":
        """Reads what `save_pretrained` wrote, in eval mode; `sha256` is that of the weights file.

        Raises:
            FmriModelsError: Files are missing, are of a newer version, or name other factors than the scenes have.
        """
        folder = Path(folder)
        missing = [name for name in (_CONFIG_NAME, _WEIGHTS_NAME) if not (folder / name).is_file()]
        if missing:
            raise FmriModelsError(f"{folder} is no scene classifier: {' and '.join(missing)} missing.")
        config = json.loads((folder / _CONFIG_NAME).read_text(encoding="utf-8"))
        check_schema(config.get("schema"), SCHEMA, str(folder / _CONFIG_NAME))
        if config["factors"] != {name: list(values) for name, values in FACTOR_VALUES.items()}:
            raise FmriModelsError(
                f"{folder} names other factors than the built-in scenes have; train it again with "
                "scripts/train_tiny_generator.py."
            )
        classifier = cls(tuple(config["widths"]))
        classifier.load_state_dict(load_file(folder / _WEIGHTS_NAME))
        classifier.sha256 = hashlib.sha256((folder / _WEIGHTS_NAME).read_bytes()).hexdigest()
        return classifier.to(dtype).eval()

    @classmethod
    def load_default(cls) -> "SceneFactorClassifier":
        """The classifier that comes with the package, in float32."""
        return cls.from_pretrained(DEFAULT_FOLDER)


def _convolution(channels_in: int, channels_out: int, stride: int = 1) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False),
        nn.GroupNorm(8, channels_out),
        nn.SiLU(),
    )
