"""What a training of the tiny generator depends on."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class AutoencoderSettings:
    """Pixel-unshuffled pictures (12 x 32 x 32) to latents of 12 x 8 x 8 and back."""

    steps: int = 5000
    batch_size: int = 32
    learning_rate: float = 1.5e-3
    width: int = 64
    encoder_blocks: tuple[int, ...] = (1, 2, 3)
    decoder_blocks: tuple[int, ...] = (4, 3, 1)
    latent_channels: int = 12
    # A little noise keeps neighboring latents alike in the picture, which whoever predicts latents profits from.
    latent_noise: float = 0.05


@dataclass(frozen=True)
class ClipSettings:
    """A small CLIP with 16 patches a picture and a vocabulary of its own."""

    steps: int = 1200
    batch_size: int = 128
    learning_rate: float = 1e-3
    vision_width: int = 192
    vision_layers: int = 4
    text_width: int = 128
    text_layers: int = 3
    projection_size: int = 128
    vocabulary_size: int = 720
    max_tokens: int = 32


@dataclass(frozen=True)
class ClassifierSettings:
    """The independent judge of scene factors."""

    steps: int = 1500
    batch_size: int = 64
    learning_rate: float = 2e-3
    widths: tuple[int, int, int] = (48, 80, 112)


@dataclass(frozen=True)
class UNetSettings:
    """The latent diffusion model: velocity prediction on a cosine schedule."""

    steps: int = 4000
    batch_size: int = 64
    learning_rate: float = 6e-4
    widths: tuple[int, ...] = (128, 192)
    time_width: int = 256
    layers_a_block: int = 1
    num_heads: int = 4
    norm_groups: int = 16
    # Of all pictures, those that are drawn without any condition, with the caption alone, and with both.
    without_condition: float = 0.1
    with_text_alone: float = 0.1
    with_text_too: float = 0.1
    # Sky and ground are learned soon; the object is a small part of a picture and most of what it is about.
    object_weight: float = 6.0
    # Embeddings that were decoded from a brain are never exact.
    image_embeds_noise: float = 0.15
    ema_decay: float = 0.999
    # Share of the steps at the end in which the learning rate falls; before that it is constant after a warm-up.
    cool_down: float = 0.4


@dataclass(frozen=True)
class Settings:
    """What a run depends on."""

    seed: int = 0
    num_pictures: int = 40_000
    num_validation: int = 500
    num_test: int = 1000
    num_drawn: int = 300
    checkpoint_seconds: float = 45.0
    autoencoder: AutoencoderSettings = field(default_factory=AutoencoderSettings)
    clip: ClipSettings = field(default_factory=ClipSettings)
    classifier: ClassifierSettings = field(default_factory=ClassifierSettings)
    unet: UNetSettings = field(default_factory=UNetSettings)

    @classmethod
    def from_file(cls, path: Path | None) -> "Settings":
        """The defaults, changed by a JSON file of the same shape."""
        if path is None:
            return cls()
        changes = json.loads(path.read_text(encoding="utf-8"))
        stages = {
            "autoencoder": AutoencoderSettings,
            "clip": ClipSettings,
            "classifier": ClassifierSettings,
            "unet": UNetSettings,
        }
        for name, stage in stages.items():
            changes[name] = stage(**{key: _as_tuple(value) for key, value in changes.get(name, {}).items()})
        return cls(**changes)


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
