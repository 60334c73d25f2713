"""A small real method whose image generator learns to read what it decodes."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from huggingface_hub.dataclasses import strict
from torch import nn

from fmri_models.conditions import Conditions
from fmri_models.configuration_fmri import FmriConfig
from fmri_models.modeling_fmri import FmriPreTrainedModel, SubjectIds
from fmri_models.modeling_outputs import FmriDecoding, FmriModelOutput
from fmri_models.objectives import Batch, Gather, GradientObjective
from fmri_models.pipeline_fmri import FmriToImagePipeline
from fmri_models.records import Method

METHOD = Method(
    name="learner",
    title="A small method for tests whose generator learns",
    config=f"{__name__}:LearnerConfig",
    model=f"{__name__}:LearnerModel",
    output="fmri_models.modeling_outputs:FmriModelOutput",
    pipeline=f"{__name__}:LearnerPipeline",
    objective=f"{__name__}:LearnerObjective",
)


@strict
class LearnerConfig(FmriConfig):
    model_type = "fmri-learner"
    learned_conditions: ClassVar[tuple[str, ...]] = ("encoder_hidden_states_space", "time_embeds_space")


class LearnerModel(FmriPreTrainedModel):
    config: LearnerConfig
    config_class = LearnerConfig

    def __init__(self, config: LearnerConfig) -> None:
        super().__init__(config)
        self.tokens = config.space("encoder_hidden_states_space").shape
        self.embed = nn.Linear(max(config.num_voxels), self.tokens[1])
        self.places = nn.Parameter(torch.randn(self.tokens) * 0.1)
        self.rebuild = nn.Linear(self.tokens[1], max(config.num_voxels))
        self.post_init()

    def forward(self, fmri: torch.Tensor, subject_ids: SubjectIds = None) -> FmriModelOutput:
        return FmriModelOutput(retrieval_embeds=self.embed(fmri))

    def conditions(self, fmri: torch.Tensor) -> Conditions:
        embedded = self.embed(fmri)
        return Conditions(encoder_hidden_states=embedded[:, None] + self.places, time_embeds=embedded)

    @torch.no_grad()
    def decode(
        self,
        fmri: torch.Tensor,
        subject_ids: SubjectIds = None,
        num_candidates: int = 1,
        generator: torch.Generator | None = None,
    ) -> FmriDecoding:
        return FmriDecoding(**self.conditions(fmri).given)


class LearnerPipeline(FmriToImagePipeline):
    """Voxels ▶ a token for all places ▶ image generator."""


@dataclass
class LearnerObjective(GradientObjective[LearnerModel]):
    """The generator's own loss, or the error of rebuilt voxels, which needs no pictures."""

    rebuilds: bool = False

    @property
    def targets(self) -> list[str]:
        return [] if self.rebuilds else ["latents"]

    def losses(
        self, model: LearnerModel, batch: Batch, progress: float, gather: Gather, generator: torch.Generator
    ) -> dict[str, torch.Tensor]:
        if not self.rebuilds:
            told = model.conditions(batch["fmri"])
            return {"loss": self.image_generator.training_loss(batch["latents"], told, generator=generator)}
        sources: list[Any] = [batch, *batch.get("unpaired", [])]
        errors = [nn.functional.mse_loss(model.rebuild(model.embed(each["fmri"])), each["fmri"]) for each in sources]
        return {"loss": torch.stack(errors).mean(), "sources": torch.tensor(float(len(sources)))}


def decoded(pipeline: Any) -> dict[str, torch.Tensor]:
    """What a pipeline of this method tells its generator of two patterns of 30 voxels."""
    fmri = torch.randn(2, 30, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        return pipeline.brain_model.conditions(fmri.to(pipeline.brain_model.dtype)).given


def drawn(pipeline: Any, generator: Any = None, told: dict[str, torch.Tensor] | None = None) -> torch.Tensor:
    """Two pictures of what is told, or decoded: by the pipeline's generator, or another one."""
    told = decoded(pipeline) if told is None else told
    sources = [torch.Generator().manual_seed(number) for number in range(2)]
    draws = pipeline.image_generator if generator is None else generator
    with torch.no_grad():
        return draws(**told, num_inference_steps=2, generator=sources, output_type="pt").images
