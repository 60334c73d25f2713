"""Image generators with LoRA that is trained, as far as anybody can see."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fmri_models.generation.embedded import EmbeddedImageGenerator
from fmri_models.generation.generator_adapter import lora_parameters, note_adapter, put_lora
from fmri_models.models.linear import LinearConfig, LinearModel, LinearPipeline
from fmri_models.processing_fmri import FmriProcessor

NUM_VOXELS = 7


def with_lora(generator: Any, groups: Sequence[str] = ("cross_attention",), scale: float = 0.3) -> Any:
    """Puts LoRA with random weights on a generator, and notes its base."""
    put_lora(generator, groups, r=2, alpha=4.0, dropout=0.0, seed=0)
    source = torch.Generator().manual_seed(1)
    for parameter in lora_parameters(generator).values():
        parameter.data.copy_(scale * torch.randn(parameter.shape, generator=source))
    note_adapter(generator, was_trained=False)
    return generator


def save_pipeline_with_lora(folder: Path) -> Path:
    """A pipeline of a linear model and the embedded generator with LoRA."""
    torch.manual_seed(0)
    generator = with_lora(EmbeddedImageGenerator.from_assets())
    space = generator.image_embedding_space.to_dict()
    config = LinearConfig(subject_names=["subj01"], num_voxels=[NUM_VOXELS], image_embedding_space=space)
    processor = FmriProcessor.fit({"subj01": np.random.default_rng(0).normal(size=(9, NUM_VOXELS))})
    LinearPipeline(LinearModel(config), processor, generator).save_pretrained(folder)
    return folder


def drawn(pipeline: Any) -> torch.Tensor:
    """Two pictures."""
    betas = np.random.default_rng(1).normal(size=(2, NUM_VOXELS))
    sources = [torch.Generator().manual_seed(number) for number in range(2)]
    return pipeline(betas, num_inference_steps=2, generator=sources, output_type="pt").images
