"""One hidden layer from voxels to latents, the first layer a subject's own."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from huggingface_hub.dataclasses import strict
from torch import nn
from transformers.utils import can_return_tuple

from fmri_models import (
    FmriConfig,
    FmriDecoding,
    FmriModelOutput,
    FmriPreTrainedModel,
    FmriToImagePipeline,
    GradientObjective,
)
from fmri_models.encoders.subject_linear import SubjectLinear
from fmri_models.objectives import Batch, Gather
from fmri_models.option_types import NumberFromZero


@strict
class ShallowConfig(FmriConfig):
    """Configuration of a [`ShallowModel`].

    Args:
        hidden_size: Width of the hidden layer.
    """

    model_type = "fmri-shallow"
    ranges: ClassVar = {"hidden_size": (1, 2**16)}

    hidden_size: int = 32


class ShallowModel(FmriPreTrainedModel):
    """Voxels ▶ a layer of each subject ▶ latents."""

    config: ShallowConfig
    config_class = ShallowConfig

    def __init__(self, config: ShallowConfig) -> None:
        super().__init__(config)
        self.space = config.space("latent_space")
        self.subject_layers = SubjectLinear(config.num_voxels, config.hidden_size)
        self.head = nn.Linear(config.hidden_size, self.space.size)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        fmri: torch.Tensor,
        subject_ids: Any = None,
        latents: torch.Tensor | None = None,
        return_loss: bool = True,
        **kwargs: Any,
    ) -> FmriModelOutput:
        """Maps (B, V) processed voxels to latents; with true `latents`, `loss` is the mean squared error."""
        self.check_fmri(fmri)
        indices = self.subject_indices(subject_ids, len(fmri))
        decoded = self.head(torch.tanh(self.subject_layers(fmri, indices))).unflatten(1, self.space.shape)
        with_loss = return_loss and latents is not None
        loss = nn.functional.mse_loss(decoded, latents.to(decoded.dtype)) if with_loss else None
        return FmriModelOutput(loss=loss, losses=None if loss is None else {"latents": loss}, latents=decoded)

    @property
    def samples(self) -> bool:
        return False

    @torch.no_grad()
    def decode(
        self, fmri: torch.Tensor, subject_ids: Any = None, num_candidates: int = 1, generator: Any = None
    ) -> FmriDecoding:
        return FmriDecoding(latents=self(fmri, subject_ids, return_dict=True).latents)


class ShallowPipeline(FmriToImagePipeline):
    """Voxels ▶ one hidden layer ▶ image generator."""


@dataclass
class ShallowObjective(GradientObjective[ShallowModel]):
    """Squared error.

    Args:
        noise: Spread of the noise that is added to voxels.
    """

    noise: NumberFromZero = 0.1

    def losses(
        self, model: ShallowModel, batch: Batch, progress: float, gather: Gather, generator: torch.Generator
    ) -> dict[str, torch.Tensor]:
        noise = torch.randn(batch["fmri"].shape, generator=generator).to(batch["fmri"])
        output = model(batch["fmri"] + self.noise * noise, batch["subject_ids"], latents=batch["latents"])
        return {"loss": output.loss}
