"""A small real method that is trained by gradient: subject layers and a shared network with dropout.

Its objective uses everything that the trainer offers: draws of its own, gathering over processes, the share of the
training that is done, a choice of trainable parts, and a fit in closed form for stages without `training`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from huggingface_hub.dataclasses import strict
from torch import nn

from fmri_models.configuration_fmri import FmriConfig
from fmri_models.draws import drawn_by_row
from fmri_models.encoders.subject_linear import SubjectLinear
from fmri_models.modeling_fmri import FmriPreTrainedModel, SubjectIds
from fmri_models.modeling_outputs import FmriDecoding, FmriModelOutput
from fmri_models.objectives import Batch, ClosedFormObjective, Gather, GradientObjective
from fmri_models.pipeline_fmri import FmriToImagePipeline
from fmri_models.records import Method

METHOD = Method(
    name="small",
    title="A small method for tests",
    config=f"{__name__}:SmallConfig",
    model=f"{__name__}:SmallModel",
    output="fmri_models.modeling_outputs:FmriModelOutput",
    pipeline=f"{__name__}:SmallPipeline",
    objective=f"{__name__}:SmallObjective",
)


@strict
class SmallConfig(FmriConfig):
    model_type = "fmri-small"

    hidden_size: int = 32
    dropout: float = 0.2
    fitted: bool = False


class SmallModel(FmriPreTrainedModel):
    config: SmallConfig
    config_class = SmallConfig

    def __init__(self, config: SmallConfig) -> None:
        super().__init__(config)
        self.space_of_latents = config.space("latent_space")
        self.subject_layers = SubjectLinear(config.voxels_by_subject, config.hidden_size)
        self.network = nn.Sequential(
            nn.LayerNorm(config.hidden_size),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden_size, config.hidden_size),
            nn.GELU(),
        )
        self.head = nn.Linear(config.hidden_size, self.space_of_latents.size)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)

    def forward(self, fmri: torch.Tensor, subject_ids: SubjectIds = None) -> FmriModelOutput:
        indices = self.subject_indices(subject_ids, len(fmri), fmri.device)
        hidden = self.subject_layers(fmri, indices).to(self.head.weight.dtype)
        latents = self.head(self.network(hidden)).float()
        return FmriModelOutput(latents=latents.reshape(len(fmri), *self.space_of_latents.shape))

    @torch.no_grad()
    def decode(
        self,
        fmri: torch.Tensor,
        subject_ids: SubjectIds = None,
        num_candidates: int = 1,
        generator: torch.Generator | None = None,
    ) -> FmriDecoding:
        return FmriDecoding(latents=self(fmri, subject_ids).latents)


class SmallPipeline(FmriToImagePipeline):
    """Voxels ▶ the small network ▶ image generator."""


@dataclass
class SmallObjective(GradientObjective[SmallModel], ClosedFormObjective[SmallModel]):
    """Squared error, and with `contrastive` a loss over the rows of all processes."""

    noise: float = 0.1
    contrastive: float = 0.0
    only_head: bool = False

    def losses(
        self,
        model: SmallModel,
        batch: Batch,
        progress: float,
        gather: Gather,
        generator: torch.Generator,
    ) -> dict[str, torch.Tensor]:
        noise = drawn_by_row(torch.randn, batch["fmri"].shape, generator).to(batch["fmri"])
        output = model(batch["fmri"] + self.noise * (1 - progress) * noise, batch["subject_ids"])
        losses = {"error": nn.functional.mse_loss(output.latents, batch["latents"])}
        losses["loss"] = losses["error"]
        if self.contrastive:
            predicted = gather(nn.functional.normalize(output.latents.flatten(1), dim=1))
            shown = gather(nn.functional.normalize(batch["latents"].flatten(1), dim=1))
            labels = torch.arange(len(predicted), device=predicted.device)
            losses["contrastive"] = nn.functional.cross_entropy(predicted @ shown.T / 0.1, labels)
            losses["loss"] = losses["error"] + self.contrastive * losses["contrastive"]
        return losses

    def validation_metrics(
        self, model: SmallModel, batch: Batch, generator: torch.Generator
    ) -> dict[str, torch.Tensor]:
        output = model(batch["fmri"], batch["subject_ids"])
        correlation = torch.corrcoef(torch.stack([output.latents.flatten(), batch["latents"].flatten()]))[0, 1]
        return {"loss": nn.functional.mse_loss(output.latents, batch["latents"]), "correlation": correlation}

    def trainable(self, model: SmallModel) -> list[nn.Parameter]:
        return list(model.head.parameters() if self.only_head else model.parameters())

    @torch.no_grad()
    def fit(self, model: SmallModel, trials: Mapping[str, Any], validation: Any = None) -> dict[str, float]:
        """The mean picture as the head's bias."""
        targets: Sequence[np.ndarray] = [
            np.asarray(each.targets["latents"].columns(slice(None)), dtype=np.float32) for each in trials.values()
        ]
        model.head.bias.copy_(torch.from_numpy(np.concatenate(targets)).mean(dim=0))
        model.config.fitted = True
        return {"mean": float(model.head.bias.mean())}
