"""The assets: the finished networks in float16, as a generator and a judge that the package loads."""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler
from safetensors.torch import load_file
from torch import nn

from fmri_models import scenes
from fmri_models.errors import FmriModelsError
from fmri_models.generation.embedded import EmbeddedImageGenerator
from fmri_models.pipeline_folder import INDEX_FILE
from fmri_models.saving import atomic_folder, write_text

from .autoencoder import AutoencoderStage
from .classifier import ClassifierStage
from .clip import ClipStage
from .diffusion_model import NOISE_SCHEDULE, UNetStage
from .pictures import Data, Pictures
from .settings import Settings
from .stage import Stage

ENCODER_STAGES: dict[str, type[Stage]] = {stage.name: stage for stage in (AutoencoderStage, ClipStage, ClassifierStage)}


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


def _statistics(generator: EmbeddedImageGenerator, train: Pictures) -> dict[str, list[float]]:
    """Mean and standard deviation of each latent channel and of each dimension of the tokens."""
    positions = np.arange(min(4000, len(train)))
    pictures = train.batch(positions)
    captions = [scenes.captions(train.factors(position)) for position in positions]
    sentences = [each[position % len(each)] for position, each in zip(positions, captions, strict=True)]
    values = {
        "latent": generator.encode_images(pictures).permute(0, 2, 3, 1),
        "image_embeds": generator.embed_images(pictures),
        "text_embeds": generator.embed_texts(sentences),
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
