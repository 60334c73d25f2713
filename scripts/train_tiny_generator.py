"""Trains the parts of the embedded tiny generator on built-in scenes and writes them to `fmri_models/assets`.

    python scripts/train_tiny_generator.py all --work outputs/tiny_generator

Stages: `autoencoder`, `clip` and `classifier` train one network each, `encoders` writes them to the assets, `unet`
trains the diffusion model on what the assets' encoders give, `card` adds it, measures everything and writes the card;
`all` is the six in turn. A stage that was interrupted goes on where it was when the same command is
typed again (a kill loses at most a minute, and the result is equal to an uninterrupted run's); a finished one is
skipped. `--minutes` stops after a while and leaves the rest to the next call. The course of the training is in
`WORK/<stage>/log.jsonl`.
"""

import argparse
import dataclasses
import hashlib
import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderTiny, DDPMScheduler, DPMSolverMultistepScheduler, UNet2DConditionModel
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import nn
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTokenizer, CLIPVisionConfig

from fmri_models import scenes
from fmri_models.errors import FmriModelsError
from fmri_models.evaluation.features import EfficientNetLite0
from fmri_models.evaluation.metrics import two_way_identification
from fmri_models.evaluation.scene_factors import FACTOR_VALUES, SceneFactorClassifier
from fmri_models.generation.embedded import EmbeddedImageGenerator
from fmri_models.pipeline_folder import INDEX_FILE
from fmri_models.saving import atomic_file, atomic_folder, write_text

STAGES = ("autoencoder", "clip", "classifier", "encoders", "unet", "card")


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
        parts = {
            "autoencoder": AutoencoderSettings,
            "clip": ClipSettings,
            "classifier": ClassifierSettings,
            "unet": UNetSettings,
        }
        for name, part in parts.items():
            changes[name] = part(**{key: _as_tuple(value) for key, value in changes.get(name, {}).items()})
        return cls(**changes)


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


# ---------------------------------------------------------------------------------------------------------------------
# Pictures


@dataclass(frozen=True)
class Pictures:
    """Scenes in memory-mapped files: uint8 images (N, 64, 64, 3) and the index of each factor's value (N, 6)."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, rows: np.ndarray) -> torch.Tensor:
        """(n, 3, 64, 64) float32 in [0, 1]."""
        return torch.from_numpy(self.images[rows]).permute(0, 3, 1, 2).float() / 255

    def factors(self, row: int) -> scenes.SceneFactors:
        values = {name: FACTOR_VALUES[name][index] for name, index in zip(FACTOR_VALUES, self.labels[row], strict=True)}
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
            for row, scene_seed in enumerate(scenes.scene_seeds(purpose, num, seed)):
                drawn = scenes.scene(scene_seed)
                images[row] = drawn.image
                factors = drawn.factors.to_dict()
                labels[row] = [values.index(factors[name]) for name, values in FACTOR_VALUES.items()]
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


# ---------------------------------------------------------------------------------------------------------------------
# Stages that train a network


class Stage(ABC):
    """One network and its loss. Everything random in a step is a function of the seed and the step alone."""

    name: str
    ema_decay: float | None = None
    validate_every: int = 500

    def __init__(self, settings: Settings, data: Data) -> None:
        self.settings = settings
        self.data = data

    @property
    @abstractmethod
    def own(self) -> Any:
        """The settings of this stage."""

    @abstractmethod
    def build(self) -> nn.Module:
        """The network with fresh weights."""

    @abstractmethod
    def losses(self, model: nn.Module, rows: np.ndarray, noise: torch.Generator) -> dict[str, torch.Tensor]:
        """Named scalars for a batch of training pictures; `loss` is the one to minimize."""

    @abstractmethod
    def validate(self, model: nn.Module) -> dict[str, float]:
        """Figures on the validation pictures."""

    def rate(self, step: int) -> float:
        """The share of the highest learning rate at a step."""
        return one_cycle(step / self.own.steps)

    def rows(self, step: int) -> np.ndarray:
        """The batch of a step: consecutive parts of a permutation that is new in each epoch."""
        per_epoch = max(1, len(self.data.train) // self.own.batch_size)
        epoch, position = divmod(step, per_epoch)
        order = np.random.default_rng([self.settings.seed, epoch]).permutation(len(self.data.train))
        return np.sort(order[position * self.own.batch_size : (position + 1) * self.own.batch_size])


class AutoencoderStage(Stage):
    """The autoencoder: absolute, squared and gradient differences."""

    name = "autoencoder"

    @property
    def own(self) -> AutoencoderSettings:
        return self.settings.autoencoder

    def build(self) -> nn.Module:
        own = self.own
        return AutoencoderTiny(
            in_channels=12,
            out_channels=12,
            latent_channels=own.latent_channels,
            encoder_block_out_channels=(own.width,) * len(own.encoder_blocks),
            decoder_block_out_channels=(own.width,) * len(own.decoder_blocks),
            num_encoder_blocks=own.encoder_blocks,
            num_decoder_blocks=own.decoder_blocks,
        ).to(memory_format=torch.channels_last)

    def losses(self, model: nn.Module, rows: np.ndarray, noise: torch.Generator) -> dict[str, torch.Tensor]:
        pictures = self.data.train.batch(rows)
        latents = self._encode(model, pictures)
        jitter = torch.randn(latents.shape, generator=noise)
        difference = self._decode(model, latents + self.own.latent_noise * jitter) - pictures
        horizontal, vertical = difference.diff(dim=3), difference.diff(dim=2)
        absolute, squared = difference.abs().mean(), difference.square().mean()
        gradient = horizontal.abs().mean() + vertical.abs().mean()
        loss = absolute + 0.5 * gradient + 10 * squared
        return {"loss": loss, "absolute": absolute, "gradient": gradient, "psnr": -10 * squared.detach().log10()}

    def validate(self, model: nn.Module) -> dict[str, float]:
        errors = []
        for rows in _chunks(len(self.data.validation), 100):
            pictures = self.data.validation.batch(rows)
            decoded = self._decode(model, self._encode(model, pictures)).clamp(0, 1)
            errors.append((decoded - pictures).square().mean((1, 2, 3)))
        return {"psnr": float((-10 * torch.cat(errors).log10()).mean())}

    @staticmethod
    def _encode(model: nn.Module, pictures: torch.Tensor) -> torch.Tensor:
        unshuffled = (2 * F.pixel_unshuffle(pictures, 2) - 1).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            return model.encode(unshuffled).latents.float()

    @staticmethod
    def _decode(model: nn.Module, latents: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            unshuffled = model.decode(latents.contiguous(memory_format=torch.channels_last)).sample.float()
        return (F.pixel_shuffle(unshuffled, 2) + 1) / 2


class ClipStage(Stage):
    """CLIP: a picture finds its caption among those of the batch, and the other way round."""

    name = "clip"

    def __init__(self, settings: Settings, data: Data) -> None:
        super().__init__(settings, data)
        self.tokenizer = build_tokenizer(settings.clip.vocabulary_size, settings.clip.max_tokens)

    @property
    def own(self) -> ClipSettings:
        return self.settings.clip

    def build(self) -> nn.Module:
        own = self.own
        text = CLIPTextConfig(
            vocab_size=len(self.tokenizer),
            hidden_size=own.text_width,
            intermediate_size=4 * own.text_width,
            num_hidden_layers=own.text_layers,
            num_attention_heads=max(1, own.text_width // 32),
            max_position_embeddings=own.max_tokens,
            bos_token_id=self.tokenizer.bos_token_id,
            eos_token_id=self.tokenizer.eos_token_id,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        vision = CLIPVisionConfig(
            image_size=scenes.IMAGE_SIZE,
            patch_size=16,
            hidden_size=own.vision_width,
            intermediate_size=4 * own.vision_width,
            num_hidden_layers=own.vision_layers,
            num_attention_heads=max(1, own.vision_width // 32),
        )
        return CLIPModel(
            CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=own.projection_size)
        )

    def losses(self, model: nn.Module, rows: np.ndarray, noise: torch.Generator) -> dict[str, torch.Tensor]:
        template = int(torch.randint(len(scenes.captions(self.data.train.factors(0))), (), generator=noise))
        with torch.autocast("cpu", torch.bfloat16):
            output = self._compare(model, self.data.train, rows, template)
        logits, target = output.logits_per_image.float(), torch.arange(len(rows))
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        return {"loss": loss, "top1": (logits.argmax(1) == target).float().mean()}

    def validate(self, model: nn.Module) -> dict[str, float]:
        return clip_accuracy(
            self.data.validation, lambda pictures, rows, template: self._compare(model, pictures, rows, template)
        )

    def _compare(self, model: nn.Module, pictures: Pictures, rows: np.ndarray, template: int) -> Any:
        sentences = [scenes.captions(pictures.factors(row))[template] for row in rows]
        tokens = self.tokenizer(sentences, padding=True, return_tensors="pt")
        return model(pixel_values=2 * pictures.batch(rows) - 1, **tokens)


class ClassifierStage(Stage):
    """The judge of scene factors: sees true pictures and blurred, coarsened, noisy and recolored ones."""

    name = "classifier"

    @property
    def own(self) -> ClassifierSettings:
        return self.settings.classifier

    def build(self) -> nn.Module:
        return SceneFactorClassifier(self.own.widths).to(memory_format=torch.channels_last)

    def losses(self, model: nn.Module, rows: np.ndarray, noise: torch.Generator) -> dict[str, torch.Tensor]:
        pictures = degrade(self.data.train.batch(rows), noise)
        labels = torch.from_numpy(self.data.train.labels[rows])
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(pictures.contiguous(memory_format=torch.channels_last))
        each = {
            name: F.cross_entropy(logits[name].float(), labels[:, column], label_smoothing=0.05)
            for column, name in enumerate(FACTOR_VALUES)
        }
        return {"loss": torch.stack(list(each.values())).sum(), **{f"loss_{name}": each[name] for name in each}}

    def validate(self, model: nn.Module) -> dict[str, float]:
        rows = np.arange(len(self.data.validation))
        noise = torch.Generator().manual_seed(self.settings.seed)
        pictures = self.data.validation.batch(rows)
        true = factor_accuracy(model, pictures, self.data.validation.labels)
        degraded = factor_accuracy(model, degrade(pictures, noise), self.data.validation.labels)
        return true | {f"{name}_degraded": value for name, value in degraded.items()}


class UNetStage(Stage):
    """The diffusion model on the latents and tokens that the assets' own encoders give.

    Args:
        settings: Of the run.
        data: Its pictures.
        work: Where the targets are kept.
        assets: Where the finished encoders and the judge are.
    """

    name = "unet"

    def __init__(self, settings: Settings, data: Data, work: Path, assets: Path) -> None:
        super().__init__(settings, data)
        self.ema_decay = settings.unet.ema_decay
        self.assets = assets
        self.generator = EmbeddedImageGenerator.from_pretrained(assets / "embedded", unet=None, dtype=torch.float32)
        self.generator.register_modules(scheduler=DPMSolverMultistepScheduler.from_config(NOISE_SCHEDULE))
        self.generator.set_progress_bar_config(disable=True)
        self.noise_schedule = DDPMScheduler.from_config(NOISE_SCHEDULE)
        self.latents, self.image_embeds = self._targets(work / "targets")
        self.object_cells = self._object_cells(work / "targets")

    @property
    def own(self) -> UNetSettings:
        return self.settings.unet

    def build(self) -> nn.Module:
        own, generator = self.own, self.generator
        channels, size, _ = generator.latent_space.shape
        width = generator.image_embedding_space.shape[-1]
        return UNet2DConditionModel(
            sample_size=size,
            in_channels=channels,
            out_channels=channels,
            down_block_types=("CrossAttnDownBlock2D",) * len(own.widths),
            up_block_types=("CrossAttnUpBlock2D",) * len(own.widths),
            block_out_channels=own.widths,
            layers_per_block=own.layers_a_block,
            cross_attention_dim=width,
            attention_head_dim=own.num_heads,
            norm_num_groups=own.norm_groups,
            time_embedding_dim=own.time_width,
            class_embed_type="projection",
            projection_class_embeddings_input_dim=width,
        ).to(memory_format=torch.channels_last)

    def rate(self, step: int) -> float:
        """Warm-up, a constant, and a fall to zero; all before the fall is the same however many steps there will be."""
        left = (self.own.steps - step) / (self.own.cool_down * self.own.steps)
        return min(1.0, (step + 1) / 150, math.sin(math.pi / 2 * min(left, 1.0)) ** 2)

    def losses(self, model: nn.Module, rows: np.ndarray, noise: torch.Generator) -> dict[str, torch.Tensor]:
        clean = torch.from_numpy(self.latents[rows].astype(np.float32))
        added = torch.randn(clean.shape, generator=noise)
        timesteps = torch.randint(self.noise_schedule.config.num_train_timesteps, (len(rows),), generator=noise)
        tokens, pooled = self._condition(rows, noise)
        noisy = self.noise_schedule.add_noise(clean, added, timesteps).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            predicted = model(noisy, timesteps, encoder_hidden_states=tokens, class_labels=pooled).sample
        errors = (predicted.float() - self.noise_schedule.get_velocity(clean, added, timesteps)).square().mean(1)
        weights = 1 + (self.own.object_weight - 1) * torch.from_numpy(self.object_cells[rows].astype(np.float32))
        return {"loss": (weights * errors).sum() / weights.sum(), "unweighted": errors.mean()}

    def validate(self, model: nn.Module) -> dict[str, float]:
        """What pictures from true embeddings alone, and from the true latent too, are like."""
        self.generator.register_modules(unet=model)
        rows = np.arange(min(100, len(self.data.validation)))
        part = Pictures(self.data.validation.images[rows], self.data.validation.labels[rows])
        with torch.autocast("cpu", torch.bfloat16):
            figures = generation_figures(self.generator, self.assets, part, num_inference_steps=12)
        self.generator.register_modules(unet=None)
        return {f"{row}_{name}": value for row, each in figures.items() for name, value in each.items()}

    def _condition(self, rows: np.ndarray, noise: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        own, generator = self.own, self.generator
        embeds = torch.from_numpy(self.image_embeds[rows].astype(np.float32))
        spread = embeds.new_tensor(generator.config.image_embeds_std)
        embeds = embeds + own.image_embeds_noise * spread * torch.randn(embeds.shape, generator=noise)
        sentences = [scenes.captions(self.data.train.factors(row)) for row in rows]
        templates = torch.randint(len(sentences[0]), (len(rows),), generator=noise).tolist()
        draw = torch.rand(len(rows), generator=noise)
        with_text = (draw > own.without_condition) & (
            draw < own.without_condition + own.with_text_alone + own.with_text_too
        )
        with_image = draw > own.without_condition + own.with_text_alone
        tokens, pooled = generator.condition(embeds, None, len(rows))
        told = torch.nonzero(with_text).flatten().tolist()
        text = generator.embed_texts([sentences[row][templates[row]] for row in told or [0]])
        text_tokens, _ = generator.condition(None, text, len(text))
        tokens, pooled = tokens * with_image[:, None, None], pooled * with_image[:, None]
        if told:
            tokens[told, self.image_embeds.shape[1] :] = text_tokens[:, self.image_embeds.shape[1] :]
        return tokens, pooled

    def _object_cells(self, folder: Path) -> np.ndarray:
        """(N, 8, 8) bool: which cells of the latent the object of each training picture touches, computed once."""
        num, size = len(self.data.train), self.generator.latent_space.shape[-1]
        file = folder / f"object-cells-{self.settings.seed}-{num}.npy"
        if not file.exists():
            cells = np.empty((num, size, size), dtype=bool)
            side = scenes.IMAGE_SIZE // size
            for row, scene_seed in enumerate(scenes.scene_seeds("generator", num, self.settings.seed)):
                mask = scenes.object_mask(scene_seed).reshape(size, side, size, side)
                cells[row] = mask.max(axis=(1, 3)) > 0
            with atomic_file(file) as partial, open(partial, "wb") as stream:
                np.save(stream, cells)
        return np.load(file)

    def _targets(self, folder: Path) -> tuple[np.ndarray, np.ndarray]:
        """Latents and image tokens of all training pictures in half precision, computed once."""
        revision = self.generator.config.autoencoder_revision, self.generator.config.image_encoder_revision
        folder = folder / "-".join(str(part) for part in (*revision, self.settings.seed, len(self.data.train)))
        spaces = {"latents": self.generator.latent_space, "image_embeds": self.generator.image_embedding_space}
        if not folder.exists():
            print(f"encoding {len(self.data.train)} scenes", flush=True)
            with atomic_folder(folder) as partial:
                values = {
                    name: np.lib.format.open_memmap(
                        partial / f"{name}.npy", mode="w+", dtype=np.float16, shape=(len(self.data.train), *space.shape)
                    )
                    for name, space in spaces.items()
                }
                for rows in _chunks(len(self.data.train), 250):
                    pictures = self.data.train.batch(rows)
                    values["latents"][rows] = self.generator.encode_images(pictures).numpy()
                    values["image_embeds"][rows] = self.generator.embed_images(pictures).numpy()
                for array in values.values():
                    array.flush()
        latents, embeds = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in spaces)
        return latents, embeds


# Terminal noise is all but pure with this schedule, so that drawing may begin from noise alone.
NOISE_SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_schedule": "squaredcos_cap_v2",
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
}


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


ENCODER_STAGES: dict[str, type[Stage]] = {stage.name: stage for stage in (AutoencoderStage, ClipStage, ClassifierStage)}


def build_stage(name: str, settings: Settings, data: Data, work: Path, assets: Path) -> Stage:
    """The stage of a name."""
    return UNetStage(settings, data, work, assets) if name == "unet" else ENCODER_STAGES[name](settings, data)


def build_tokenizer(vocabulary_size: int, max_tokens: int) -> CLIPTokenizer:
    """A CLIP tokenizer whose byte-pair merges are learned from the captions of all factor values."""
    start, end = "<|startoftext|>", "<|endoftext|>"
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    untrained = CLIPTokenizer(vocab={start: 0, end: 1}, merges=[]).backend_tokenizer
    learner = Tokenizer(models.BPE(unk_token=end, continuing_subword_prefix="", end_of_word_suffix="</w>"))
    learner.normalizer, learner.pre_tokenizer = untrained.normalizer, untrained.pre_tokenizer
    learner.train_from_iterator(
        _all_sentences(),
        trainers.BpeTrainer(
            vocab_size=vocabulary_size - len(alphabet),
            initial_alphabet=alphabet,
            end_of_word_suffix="</w>",
            show_progress=False,
        ),
    )
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    tokens = [*alphabet, *(f"{letter}</w>" for letter in alphabet), *("".join(pair) for pair in merges), start, end]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=max_tokens)


def _all_sentences() -> list[str]:
    """Captions in which every value of every factor occurs equally often."""
    first = {name: values[0] for name, values in FACTOR_VALUES.items()}
    variants = [first | {name: value} for name, values in FACTOR_VALUES.items() for value in values]
    return [sentence for variant in variants for sentence in scenes.captions(scenes.SceneFactors(**variant))]


# ---------------------------------------------------------------------------------------------------------------------
# The one loop


def train(stage: Stage, work: Path, deadline: float) -> bool:
    """Trains a stage to its end or to the deadline, from its checkpoint if there is one.

    Returns:
        Whether the stage is finished.
    """
    folder = work / stage.name
    if (folder / "finished.json").exists():
        print(f"{stage.name}: finished already", flush=True)
        return True
    common = {"seed": stage.settings.seed, "num_pictures": stage.settings.num_pictures}
    settings = json.loads(json.dumps(common | dataclasses.asdict(stage.own)))
    torch.manual_seed(stage.settings.seed)
    model = stage.build().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=stage.own.learning_rate, weight_decay=0.01, fused=True)
    average = None if stage.ema_decay is None else EMAModel(model.parameters(), decay=stage.ema_decay)
    state = TrainState(model, optimizer, average)
    step, seconds = _load_checkpoint(folder / "checkpoint.pt", settings, state)
    started = saved = time.monotonic()
    while step < stage.own.steps:
        if time.monotonic() > deadline:
            _save_checkpoint(folder / "checkpoint.pt", settings, state, step, seconds + _since(started))
            print(f"{stage.name}: stopped after step {step} of {stage.own.steps}; run again to go on", flush=True)
            return False
        losses = _train_step(stage, state, step)
        step += 1
        if step % 50 == 0 or step == stage.own.steps:
            _log(folder, step, seconds + _since(started), {name: value.item() for name, value in losses.items()})
        if step % stage.validate_every == 0:
            _log(folder, step, seconds + _since(started), _validate(stage, state))
        if _since(saved) >= stage.settings.checkpoint_seconds:
            _save_checkpoint(folder / "checkpoint.pt", settings, state, step, seconds + _since(started))
            saved = time.monotonic()
    seconds += _since(started)
    figures = _validate(stage, state)
    if average is not None:
        average.copy_to(model.parameters())
    _log(folder, step, seconds, figures)
    with atomic_file(folder / "weights.safetensors") as partial:
        save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, partial)
    summary = {"settings": settings, "seconds": round(seconds, 1), "validation": figures}
    write_text(folder / "finished.json", json.dumps(summary, indent=2) + "\n")
    print(f"{stage.name}: finished, {json.dumps(figures)}", flush=True)
    return True


@dataclass(frozen=True)
class TrainState:
    """What a stage changes while it trains; the average is that of the weights over the last steps."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: EMAModel | None


def _train_step(stage: Stage, state: TrainState, step: int) -> dict[str, torch.Tensor]:
    for group in state.optimizer.param_groups:
        group["lr"] = stage.own.learning_rate * stage.rate(step)
    noise = torch.Generator().manual_seed(stage.settings.seed * 1_000_003 + step)
    losses = stage.losses(state.model, stage.rows(step), noise)
    if not torch.isfinite(losses["loss"]):
        raise FmriModelsError(
            f"The loss of {stage.name} is {float(losses['loss'])} at step {step}; lower the learning rate."
        )
    losses["loss"].backward()
    nn.utils.clip_grad_norm_(state.model.parameters(), 1.0)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    if state.average is not None:
        state.average.step(state.model.parameters())
    return losses


def one_cycle(progress: float, warmup: float = 0.08) -> float:
    """The share of the highest learning rate: a cosine up from 4 % and a longer one down to nothing."""
    if progress < warmup:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * progress / warmup)) / 2
    return (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup))) / 2


@torch.no_grad()
def _validate(stage: Stage, state: TrainState) -> dict[str, float]:
    model = state.model.eval()
    if state.average is not None:
        state.average.store(model.parameters())
        state.average.copy_to(model.parameters())
    figures = {name: round(value, 4) for name, value in stage.validate(model).items()}
    if state.average is not None:
        state.average.restore(model.parameters())
    model.train()
    return {f"validation_{name}": value for name, value in figures.items()}


def _save_checkpoint(path: Path, settings: dict[str, Any], state: TrainState, step: int, seconds: float) -> None:
    """One file, replaced in one move: a kill leaves either the old state or the new one."""
    values = {
        "settings": settings,
        "step": step,
        "seconds": seconds,
        "model": state.model.state_dict(),
        "optimizer": state.optimizer.state_dict(),
    }
    if state.average is not None:
        values["average"] = state.average.state_dict()
    with atomic_file(path) as partial:
        torch.save(values, partial)


def _load_checkpoint(path: Path, settings: dict[str, Any], state: TrainState) -> tuple[int, float]:
    if not path.exists():
        return 0, 0.0
    values = torch.load(path, weights_only=True)
    if values["settings"] != settings:
        raise FmriModelsError(f"{path} was made with other settings; choose another --work folder or remove it.")
    state.model.load_state_dict(values["model"])
    state.optimizer.load_state_dict(values["optimizer"])
    if state.average is not None:
        state.average.load_state_dict(values["average"])
    print(f"{path.parent.name}: going on from step {values['step']}", flush=True)
    return values["step"], values["seconds"]


def _log(folder: Path, step: int, seconds: float, figures: dict[str, float]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    line = {"step": step, "seconds": round(seconds, 1), **{name: round(value, 5) for name, value in figures.items()}}
    with (folder / "log.jsonl").open("a", encoding="utf-8") as log:
        log.write(json.dumps(line) + "\n")


def _since(moment: float) -> float:
    return time.monotonic() - moment


def _chunks(num: int, size: int) -> list[np.ndarray]:
    return [np.arange(start, min(start + size, num)) for start in range(0, num, size)]


# ---------------------------------------------------------------------------------------------------------------------
# Figures


def clip_accuracy(
    pictures: Pictures, compare: Callable[[Pictures, np.ndarray, int], Any], pool_size: int = 100
) -> dict[str, float]:
    """How often a picture finds its caption among those of a hundred pictures, and a caption its picture."""
    hits: dict[str, list[torch.Tensor]] = {"image_to_text_top1": [], "text_to_image_top1": []}
    num_templates = len(scenes.captions(pictures.factors(0)))
    for index, rows in enumerate(_chunks(len(pictures), pool_size)):
        logits = compare(pictures, rows, index % num_templates).logits_per_image
        target = torch.arange(len(rows))
        hits["image_to_text_top1"].append((logits.argmax(1) == target).float())
        hits["text_to_image_top1"].append((logits.argmax(0) == target).float())
    return {name: float(torch.cat(values).mean()) for name, values in hits.items()}


def factor_accuracy(classifier: nn.Module, pictures: torch.Tensor, labels: np.ndarray) -> dict[str, float]:
    """The share of pictures whose factor the classifier names right, by factor."""
    predicted = classifier.predict(pictures)
    return {
        name: float(np.mean([FACTOR_VALUES[name].index(value) for value in predicted[name]] == labels[:, column]))
        for column, name in enumerate(FACTOR_VALUES)
    }


def generation_figures(
    generator: EmbeddedImageGenerator,
    assets: Path,
    part: Pictures,
    num_inference_steps: int = 20,
    guidance_scales: Sequence[float] = (2.0,),
    strengths: Sequence[float] = (),
    references: bool = False,
) -> dict[str, dict[str, float]]:
    """How well pictures that were drawn from the true embeddings are recognised.

    Args:
        generator: Draws.
        assets: Where the judge is.
        part: True pictures.
        num_inference_steps: Of the diffusion model.
        guidance_scales: One row each, from the true embeddings alone.
        strengths: One row each, with the true latent too.
        references: Add rows of pictures that no embedding went into.

    Returns:
        Row ▶ share of the factors that the judge names as they are, and EfficientNet's two-way identification.
    """
    pictures = part.batch(np.arange(len(part)))
    classifier = SceneFactorClassifier.from_pretrained(assets / "scene_factors")
    extractor = EfficientNetLite0()
    truth = extractor(pictures)
    embeds, latents = generator.embed_images(pictures), generator.encode_images(pictures)
    settings = {f"embeddings_guidance_{scale:g}": {"guidance_scale": scale} for scale in guidance_scales} | {
        f"latent_too_strength_{strength:g}": {"guidance_scale": 2.0, "strength": strength, "latents": latents}
        for strength in strengths
    }
    figures = {}
    for row, arguments in settings.items():
        drawn = generator(
            image_embeds=embeds,
            num_inference_steps=num_inference_steps,
            generator=torch.Generator().manual_seed(0),
            output_type="pt",
            **arguments,
        ).images
        figures[row] = recognition(drawn, part, truth, classifier, extractor)
    if references:
        empty = np.stack([scenes.background(part.factors(row)) for row in range(len(part))])
        backgrounds = torch.from_numpy(empty).permute(0, 3, 1, 2).float() / 255
        uninformed = {
            "autoencoder_alone": generator(latents=latents, strength=0.0, output_type="pt").images,
            "background_without_object": backgrounds,
            "mean_background": backgrounds.mean(0, keepdim=True).expand_as(backgrounds),
            "nothing": generator(
                num_images=len(part),
                num_inference_steps=num_inference_steps,
                generator=torch.Generator().manual_seed(0),
                output_type="pt",
            ).images,
        }
        for row, drawn in uninformed.items():
            figures[row] = recognition(drawn, part, truth, classifier, extractor)
    return figures


def recognition(
    drawn: torch.Tensor,
    part: Pictures,
    truth: torch.Tensor,
    classifier: SceneFactorClassifier,
    extractor: EfficientNetLite0,
) -> dict[str, float]:
    """Judge and two-way identification of drawn pictures."""
    factors = factor_accuracy(classifier, drawn, part.labels)
    identified = {"two_way": float(two_way_identification(truth, extractor(drawn)))}
    return identified | {name: factors[name] for name in ("kind", "colour", "place")}


# ---------------------------------------------------------------------------------------------------------------------
# The assets and their card


def assemble(settings: Settings, data: Data, work: Path, out: Path) -> None:
    """Writes the finished networks to `out` in float16, with the statistics of training pictures."""
    stages = {name: stage(settings, data) for name, stage in ENCODER_STAGES.items()}
    networks = {name: _finished_network(stage, work) for name, stage in stages.items()}
    generator = EmbeddedImageGenerator(
        autoencoder=networks["autoencoder"].half(),
        image_encoder=networks["clip"].half(),
        tokenizer=stages["clip"].tokenizer,
    )
    with atomic_folder(out / "embedded", overwrite=True) as partial:
        generator.save_pretrained(partial)
        # Statistics are those of the rounded weights, in the precision that they are used in.
        saved = EmbeddedImageGenerator.from_pretrained(partial, dtype=torch.float32)
        generator.register_to_config(
            **_statistics(saved, data.train),
            autoencoder_revision=_content_hash(partial / "autoencoder"),
            image_encoder_revision=_content_hash(partial / "image_encoder"),
        )
        generator.save_config(partial)
    networks["classifier"].save_pretrained(out / "scene_factors", dtype=torch.float16, overwrite=True)


def _statistics(generator: EmbeddedImageGenerator, train: Pictures) -> dict[str, list[float]]:
    """Mean and standard deviation of each latent channel and of each dimension of the tokens."""
    rows = np.arange(min(4000, len(train)))
    pictures = train.batch(rows)
    captions = [scenes.captions(train.factors(row)) for row in rows]
    sentences = [each[row % len(each)] for row, each in zip(rows, captions, strict=True)]
    values = {
        "latent": generator.encode_images(pictures).permute(0, 2, 3, 1),
        "image_embeds": generator.embed_images(pictures),
        "text_embeds": generator.embed_texts(
            [each[row % len(each)] for row, each in zip(rows, sentences, strict=True)]
        ),
    }
    flat = {name: each.flatten(0, -2) for name, each in values.items()}
    means = {f"{name}_mean": _rounded(each.mean(0)) for name, each in flat.items()}
    return means | {f"{name}_std": _rounded(each.std(0)) for name, each in flat.items()}


def _finished_network(stage: Stage, work: Path) -> nn.Module:
    weights = work / stage.name / "weights.safetensors"
    if not weights.exists():
        raise FmriModelsError(f"{weights} is missing; run the stage {stage.name} to its end first.")
    network = stage.build()
    network.load_state_dict(load_file(weights))
    return network.to(memory_format=torch.contiguous_format).eval()


def _rounded(values: torch.Tensor) -> list[float]:
    return [float(f"{value:.6g}") for value in values.tolist()]


def _content_hash(folder: Path) -> str:
    (weights,) = folder.glob("*.safetensors")
    return hashlib.sha256(weights.read_bytes()).hexdigest()[:12]


def add_diffusion_model(settings: Settings, data: Data, work: Path, out: Path) -> None:
    """Writes the finished UNet in float16 and its scheduler beside the encoders, whose files stay as they are."""
    folder = out / "embedded"
    unet = _finished_network(UNetStage(settings, data, work, out), work).half()
    scheduler = DPMSolverMultistepScheduler.from_config(NOISE_SCHEDULE)
    unet.save_pretrained(folder / "unet")
    scheduler.save_pretrained(folder / "scheduler")
    generator = EmbeddedImageGenerator.from_pretrained(folder, unet=None, scheduler=None)
    generator.register_modules(unet=unet, scheduler=scheduler)
    generator.save_config(folder)
    index = json.loads((folder / INDEX_FILE).read_text(encoding="utf-8"))
    # Where it was loaded from means nothing where it is installed.
    index.pop("_name_or_path", None)
    write_text(folder / INDEX_FILE, json.dumps(index, indent=2) + "\n")


def measure(settings: Settings, work: Path, out: Path) -> dict[str, dict[str, float]]:
    """Figures of the assets on scenes that nothing else uses."""
    test = render("generator_test", settings.num_test, settings.seed, work / "pictures")
    pictures = test.batch(np.arange(len(test)))
    generator = EmbeddedImageGenerator.from_pretrained(out / "embedded", dtype=torch.float32)
    classifier = SceneFactorClassifier.from_pretrained(out / "scene_factors")
    autoencoded = generator(latents=generator.encode_images(pictures), strength=0.0, output_type="pt").images
    psnr = -10 * (autoencoded - pictures).square().mean((1, 2, 3)).log10()

    def compare(part: Pictures, rows: np.ndarray, template: int) -> Any:
        sentences = [scenes.captions(part.factors(row))[template] for row in rows]
        tokens = generator.tokenizer(sentences, padding=True, return_tensors="pt")
        with torch.no_grad():
            return generator.image_encoder(pixel_values=2 * part.batch(rows) - 1, **tokens)

    return {
        "autoencoder": {"psnr": float(psnr.mean()), "psnr_5th_percentile": float(psnr.quantile(0.05))},
        "clip": clip_accuracy(test, compare),
        "classifier_true": factor_accuracy(classifier, pictures, test.labels),
        "classifier_autoencoded": factor_accuracy(classifier, autoencoded, test.labels),
        **generation_figures(
            generator,
            out,
            Pictures(test.images[: settings.num_drawn], test.labels[: settings.num_drawn]),
            guidance_scales=(1.0, 1.5, 2.0, 3.0),
            strengths=(0.5, 0.7, 0.85),
            references=True,
        ),
    }


def write_card(settings: Settings, work: Path, out: Path) -> None:
    """Writes `README.md` and, for programs, `figures.json` and `training.json` beside the weights."""
    figures = measure(settings, work, out)
    training = _training_summaries(work, out)
    weights = {path.parent.name: path for path in sorted(out.rglob("*.safetensors"))}
    drawn = {row: values for row, values in figures.items() if "two_way" in values}
    card = CARD.format(
        num_pictures=settings.num_pictures,
        num_validation=settings.num_validation,
        num_test=settings.num_test,
        num_drawn=min(settings.num_drawn, settings.num_test),
        seed=settings.seed,
        first_train=scenes.SEED_RANGES["generator"].start,
        first_test=scenes.SEED_RANGES["generator_test"].start,
        files="\n".join(_file_row(out, name, path) for name, path in weights.items()),
        total=f"{sum(path.stat().st_size for path in weights.values()) / 1e6:.2f}",
        psnr=f"{figures['autoencoder']['psnr']:.2f}",
        psnr_low=f"{figures['autoencoder']['psnr_5th_percentile']:.2f}",
        image_to_text=f"{figures['clip']['image_to_text_top1']:.3f}",
        text_to_image=f"{figures['clip']['text_to_image_top1']:.3f}",
        factors="\n".join(
            f"| {name} | {len(values)} | {figures['classifier_true'][name]:.3f} "
            f"| {figures['classifier_autoencoded'][name]:.3f} |"
            for name, values in FACTOR_VALUES.items()
        ),
        drawn="\n".join(_drawn_row(row, values) for row, values in drawn.items()),
        training="\n".join(_training_row(name, summary) for name, summary in training.items()),
        autoencoder_curve=_curve(training["autoencoder"], "validation_psnr", ".1f"),
        kind_curve=_curve(training["unet"], "validation_embeddings_guidance_2_kind", ".2f"),
        two_way_curve=_curve(training["unet"], "validation_embeddings_guidance_2_two_way", ".3f"),
        notes="\n\n".join(note for summary in training.values() for note in summary.get("notes", [])),
    )
    write_text(out / "figures.json", json.dumps(figures, indent=2) + "\n")
    write_text(out / "training.json", json.dumps(training, indent=2) + "\n")
    write_text(out / "README.md", card.rstrip() + "\n")


def _training_summaries(work: Path, out: Path) -> dict[str, dict[str, Any]]:
    """Settings, time and course of each stage; of those that were trained elsewhere, what the assets remember."""
    file = out / "training.json"
    summaries: dict[str, dict[str, Any]] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    for name in (*ENCODER_STAGES, "unet"):
        finished = work / name / "finished.json"
        if finished.exists():
            summary = json.loads(finished.read_text(encoding="utf-8"))
            notes = {"notes": summaries[name]["notes"]} if "notes" in summaries.get(name, {}) else {}
            summaries[name] = summary | {"course": _course(work / name / "log.jsonl")} | notes
    return summaries


def _course(log: Path) -> dict[str, dict[str, float]]:
    """Figure ▶ step ▶ value, of the figures on validation pictures."""
    course: dict[str, dict[str, float]] = {}
    for line in map(json.loads, log.read_text(encoding="utf-8").splitlines()):
        for name in line:
            if name.startswith("validation_"):
                course.setdefault(name, {})[str(line["step"])] = line[name]
    return course


def _drawn_row(row: str, values: dict[str, float]) -> str:
    numbers = " | ".join(f"{values[name]:.3f}" for name in ("two_way", "kind", "colour", "place"))
    return f"| {row.replace('_', ' ')} | {numbers} |"


def _file_row(out: Path, name: str, path: Path) -> str:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    num_parameters = sum(tensor.numel() for tensor in load_file(path).values())
    return (
        f"| `{path.relative_to(out)}` | {num_parameters / 1e6:.2f} M | {path.stat().st_size / 1e6:.2f} "
        f"| `{digest[:12]}` |"
    )


def _training_row(name: str, summary: dict[str, Any]) -> str:
    own = summary["settings"]
    return (
        f"| {name} | {own['steps']} | {own['batch_size']} | {own['learning_rate']:g} | {summary['seconds'] / 60:.0f} |"
    )


def _curve(summary: dict[str, Any], name: str, digits: str) -> str:
    points = summary.get("course", {}).get(name, {})
    return ", ".join(f"{value:{digits}} ({step})" for step, value in sorted(points.items(), key=lambda p: int(p[0])))


CARD = """\
# The embedded tiny generator

Weights that come with fmri_models and were trained by it, on its own drawn pictures (`docs/scenes.md`) and nothing
else. License: Apache-2.0, like the package. They exist so that the whole path from voxels to pictures runs offline in
minutes; they know scenes and nothing about photographs.

| file | parameters | MB (float16) | SHA-256 begins |
|---|---|---|---|
{files}

Together {total} MB. `embedded/` is a diffusers pipeline folder (`EmbeddedImageGenerator.from_assets()`);
`scene_factors/` is the independent judge (`SceneFactorClassifier.load_default()`), which never conditions a generator
and never chooses a picture.

## What they can do

Measured with the float16 files, computed in float32, on {num_test} scenes from seed {first_test} on (`generator_test`),
which neither training nor any choice has seen.

- Autoencoder (64x64 pictures to 12x8x8 latents and back): {psnr} dB PSNR on average, {psnr_low} dB at the 5th
  percentile.
- CLIP: a picture finds its caption among those of 100 pictures in {image_to_text} of the cases, a caption its picture
  in {text_to_image}.
- Judge of the scene factors, share right:

| factor | values | true pictures | autoencoded pictures |
|---|---|---|---|
{factors}

- Pictures that were drawn with 20 DPM-Solver steps, {num_drawn} of the scenes: EfficientNet-Lite0 two-way
  identification, and the share in which the judge finds the shown factor. The first rows give the diffusion model the
  true image tokens alone, those named *latent too* start from the true latent besides (guidance 2). The last rows say
  what two-way identification gives away: the autoencoder alone, the true scene without its object, one mean of those
  for all, and the diffusion model that is told nothing.

| drawn from | two-way | kind | colour | place |
|---|---|---|---|---|
{drawn}

## How they were made

`python scripts/train_tiny_generator.py all --work DIR`, with seed {seed} and {num_pictures} scenes from seed
{first_train} on (`generator`; the {num_validation} after them for validation). Trained on a CPU with two cores that
other work used at the same time, in bfloat16 autocast.

| stage | steps | batch | learning rate | minutes |
|---|---|---|---|---|
{training}

On validation pictures (after step):

- autoencoder, PSNR in dB: {autoencoder_curve}.
- diffusion model, 100 pictures from true image tokens alone (guidance 2, 12 steps), kind right: {kind_curve}.
- the same, two-way: {two_way_curve}.

The judge saw true pictures and blurred, coarsened, noisy and recolored ones, never autoencoded or generated ones.

{notes}
"""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=(*STAGES, "all"))
    parser.add_argument("--work", type=Path, required=True, help="folder for pictures, checkpoints and logs")
    parser.add_argument("--out", type=Path, default=Path("fmri_models/assets"), help="folder for the assets")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after this long, to go on later")
    parser.add_argument("--settings", type=Path, help="JSON file that changes sizes and steps")
    options = parser.parse_args(arguments)
    deadline = time.monotonic() + 60 * options.minutes
    settings = Settings.from_file(options.settings)
    data = Data.load(settings, options.work)
    for name in STAGES if options.stage == "all" else (options.stage,):
        if name == "encoders":
            assemble(settings, data, options.work, options.out)
        elif name == "card":
            add_diffusion_model(settings, data, options.work, options.out)
            write_card(settings, options.work, options.out)
        elif not train(build_stage(name, settings, data, options.work, options.out), options.work, deadline):
            return


if __name__ == "__main__":
    main()
