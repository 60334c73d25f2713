"""A small network of the shape of VGG (Simonyan & Zisserman, 2015) for 64x64 scenes, whose layers are guides offline.

It was trained to name the factors of built-in scenes by `scripts/train_scene_vgg.py`. The judge of scene factors, which
measures reconstructions, is another network.
"""

import json
from pathlib import Path

import torch
from torch import nn

from ..original_checkpoint import check_tensors, read_state

SCENE_VGG_FOLDER = Path(__file__).parent.parent / "assets" / "scene_vgg"
WEIGHTS_NAME = "model.safetensors"
CONFIG_NAME = "config.json"
IMAGE_SIZE = 64
# Channels of the convolutions before each of three poolings.
WIDTHS = (16, 32, 64)
HIDDEN = 128


class SceneVgg(nn.Module):
    """Three blocks of two 3x3 convolutions and a maximum pooling, and two fully connected layers.

    Args:
        num_outputs: Values of all factors together.
        widths: Channels of each block.
        hidden: Units of the layer `fc4`.
    """

    def __init__(self, num_outputs: int, widths: tuple[int, ...] = WIDTHS, hidden: int = HIDDEN) -> None:
        super().__init__()
        layers: dict[str, nn.Module] = {}
        channels = 3
        for block, width in enumerate(widths, start=1):
            for number in (1, 2):
                layers[f"conv{block}_{number}"] = nn.Conv2d(channels, width, 3, padding=1)
                layers[f"relu{block}_{number}"] = nn.ReLU()
                channels = width
            layers[f"pool{block}"] = nn.MaxPool2d(2)
        side = IMAGE_SIZE // 2 ** len(widths)
        first = len(widths) + 1
        layers |= {
            "flatten": nn.Flatten(),
            f"fc{first}": nn.Linear(channels * side**2, hidden),
            f"relu{first}": nn.ReLU(),
            f"fc{first + 1}": nn.Linear(hidden, num_outputs),
        }
        for name, module in layers.items():
            self.add_module(name, module)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(N, num_outputs) of pictures (N, 3, 64, 64) in [-1, 1]."""
        hidden = pixel_values
        for module in self.children():
            hidden = module(hidden)
        return hidden

    @classmethod
    def load_default(cls) -> "SceneVgg":
        """The network that comes with the package, in float32 and eval mode.

        Raises:
            FmriModelsError: Its files are damaged.
        """
        config = json.loads((SCENE_VGG_FOLDER / CONFIG_NAME).read_text(encoding="utf-8"))
        network = cls(config["num_outputs"], tuple(config["widths"]), config["hidden"])
        state = read_state(SCENE_VGG_FOLDER / WEIGHTS_NAME)
        check_tensors(state, network.state_dict(), "scene_vgg", what=f"file {SCENE_VGG_FOLDER / WEIGHTS_NAME}")
        network.load_state_dict({name: tensor.float() for name, tensor in state.items()})
        return network.eval().requires_grad_(False)
