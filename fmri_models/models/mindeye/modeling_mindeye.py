"""MindEye: a backbone and projector, a diffusion prior, and a low-level branch (Scotti et al., 2023)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import torch
from torch import nn
from transformers.utils import can_return_tuple
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from ...alignment.token_components import TokenComponents
from ...deprecation import renamed_argument
from ...encoders.residual_mlp import ResidualBlock, ResidualMLP
from ...errors import FmriModelsError
from ...modeling_fmri import SubjectIds
from ...modeling_outputs import FmriDecoding, FmriModelOutput
from ...original_checkpoint import Checkpoint
from ...seeds import checked_generators
from .base_mindeye import Generators, MindEyePreTrainedModel
from .configuration_mindeye import MindEyeConfig
from .convert_mindeye import load_model
from .low_level_mindeye import MindEyeLowLevelModel
from .objective_mindeye import DEFAULT_OBJECTIVE, ModuleOutputs
from .prior_mindeye import MindEyePrior

# Values of the samples that the prior draws together: 21 samples at the published size, whose activations are 0.3 GB.
_VALUES_A_CHUNK = 2**22
# What keeps a token of length zero finite, as in the published reconstruction.
_CLS_EPS = 1e-6


@dataclass
class MindEyeOutput(FmriModelOutput):
    """Output of [`MindEyeModel`]; see [`FmriModelOutput`].

    `image_embeds` is None as long as the prior is not sampled; [`~MindEyeModel.decode`] does.

    Args:
        token_embeds: (B, T, D) the backbone's tokens, the condition of the prior.
        projected_embeds: (B, T, D) after the projector: what the contrastive loss compares with pictures.
        feature_maps: (B, h·w, F) of the low-level branch.
        hidden_states: (B, hidden_size) each, if they were asked for: what enters the backbone's first block, and what
            leaves each block. Of the low-level branch in a model without a backbone.
    """

    token_embeds: torch.Tensor | None = None
    projected_embeds: torch.Tensor | None = None
    feature_maps: torch.Tensor | None = None


class MindEyeModel(MindEyePreTrainedModel):
    """Backbone, projector and prior for image embeddings, and a low-level branch for latents, as far as the
    configuration has these spaces.

    Example:
        >>> output = model(torch.randn(2, 15724))
        >>> output.projected_embeds.shape
        torch.Size([2, 257, 768])
        >>> model.decode(torch.randn(2, 15724), num_candidates=16).image_embeds.shape
        torch.Size([32, 257, 768])
    """

    _can_record_outputs = {"hidden_states": OutputRecorder(ResidualBlock, layer_name="backbone")}

    def __init__(self, config: MindEyeConfig) -> None:
        super().__init__(config)
        self.backbone: ResidualMLP | None = None
        self.components: TokenComponents | None = None
        self.projector: nn.Sequential | None = None
        self.prior: MindEyePrior | None = None
        self.low_level: MindEyeLowLevelModel | None = None
        if config.image_embedding_space is not None:
            # Read once: a compiled graph can't read a space from its configuration.
            self.token_shape = num_tokens, size = config.token_shape
            if config.token_components is not None:
                self.components = TokenComponents(num_tokens * size, config.token_components)
            self.backbone = ResidualMLP(
                config.voxels_by_subject,
                config.hidden_size,
                config.num_hidden_layers,
                num_tokens * size if self.components is None else self.components.num_components,
                input_dropout=config.input_dropout,
                hidden_dropout=config.hidden_dropout,
                norm=config.norm,
                activation="relu" if config.norm == "batch" else "gelu",
                activation_first=config.activation_first,
            )
            self.projector = _projector(size, config.projector_size) if config.use_projector else None
            self.prior = MindEyePrior(config) if config.use_prior else None
        if config.latent_space is not None:
            self.low_level = MindEyeLowLevelModel(config)
        if self.backbone is None and self.low_level is None:
            raise FmriModelsError(
                "A MindEyeModel needs an image_embedding_space or a latent_space in its configuration; it has neither."
            )
        self.post_init()

    @classmethod
    def from_original(
        cls,
        checkpoint: Checkpoint,
        low_level_checkpoint: Checkpoint | None = None,
        **config_overrides: Any,
    ) -> "MindEyeModel":
        """Reads published checkpoints.

        Args:
            checkpoint: Path, whole checkpoint or state dict of backbone, projector and prior, or of the backbone
                alone (without the prefix `voxel2clip.`).
            low_level_checkpoint: The same of the low-level branch, which was published apart.
            **config_overrides: Fields of [`MindEyeConfig`], such as `subject_names=["subj02"]`.

        Returns:
            The model in eval mode, with those modules that the checkpoints have.

        Raises:
            FmriModelsError: A file is unreadable, or keys are missing or unknown.
        """
        return cast(MindEyeModel, load_model(cls, checkpoint, low_level_checkpoint, config_overrides))

    @can_return_tuple
    def forward(
        self,
        fmri: torch.Tensor,
        subject_ids: SubjectIds = None,
        image_embeds: torch.Tensor | None = None,
        latents: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_loss: bool = True,
    ) -> MindEyeOutput:
        """Maps processed voxels; the prior takes part in the loss and is not sampled.

        Args:
            fmri: (B, V) processed voxels, zero-padded to the widest subject.
            subject_ids: (B,) indices or names; may be left out with one subject.
            image_embeds: (B, T, D) targets, for the contrastive loss and the prior's; at least two examples.
            latents: (B, C, h, w) targets, for the low-level loss.
            output_hidden_states: Whether to return what is between the backbone's blocks (without one, the low-level
                branch's); None is the configuration's.
            output_attentions: Changes nothing but for a warning: none are computed here; `prior` computes some.
            return_loss: Whether the loss is computed where there are targets.

        Returns:
            [`MindEyeOutput`]; the loss is that of [`MindEyeObjective`] with its defaults at the end of training:
            `losses` holds `contrastive` (soft CLIP at a temperature of .0075), `prior` (weighted by 30) and `low_level`
            as far as there are targets, `loss` their sum. With `return_dict=False`, here or in the configuration, a
            tuple of what is not None.
        """
        self.check_fmri(fmri)
        self.warn_of_no_attentions(output_attentions)
        image_embeds, latents = (image_embeds, latents) if return_loss else (None, None)
        indices = self.subject_indices(subject_ids, fmri.shape[0])
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        tokens, projected, hidden_states, low_level = None, None, None, None
        if self.backbone is not None:
            embedded = self._embedded(fmri, indices, output_hidden_states=output_hidden_states, return_dict=True)
            tokens, projected, hidden_states = embedded.token_embeds, embedded.projected_embeds, embedded.hidden_states
            output_hidden_states = False
        if self.low_level is not None:
            low_level = self.low_level(fmri, indices, output_hidden_states=output_hidden_states, return_dict=True)
            hidden_states = low_level.hidden_states if self.backbone is None else hidden_states
        outputs = ModuleOutputs(
            tokens=tokens, projected=projected, latents=None if low_level is None else low_level.latents
        )
        losses = DEFAULT_OBJECTIVE.losses_of_outputs(self, outputs, {"image_embeds": image_embeds, "latents": latents})
        return MindEyeOutput(
            loss=torch.stack(list(losses.values())).sum() if losses else None,
            losses=losses or None,
            latents=outputs.latents,
            feature_maps=None if low_level is None else low_level.feature_maps,
            retrieval_embeds=projected,
            token_embeds=tokens,
            projected_embeds=projected,
            hidden_states=hidden_states,
        )

    @capture_outputs
    def _embedded(
        self, fmri: torch.Tensor, subject_ids: torch.Tensor, output_hidden_states: bool | None
    ) -> MindEyeOutput:
        """What the backbone gives, with its hidden states if they are wanted."""
        tokens, projected = self.embed(fmri, subject_ids)
        return MindEyeOutput(token_embeds=tokens, projected_embeds=projected)

    def embed(self, fmri: torch.Tensor, subject_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The backbone's tokens and the projected ones, both (B, T, D), from voxels and (B,) indices of subjects."""
        tokens = self.tokens_from(self.encode(fmri, subject_ids))
        return tokens, self.project(tokens)

    def encode(self, fmri: torch.Tensor, subject_ids: torch.Tensor) -> torch.Tensor:
        """The backbone's output, (B, T·D) tokens or (B, K) scores of their components."""
        assert self.backbone is not None
        return cast(torch.Tensor, self.backbone(fmri.to(self.dtype), subject_ids))

    @renamed_argument("encoded", "hidden", since="0.1")
    def tokens_from(self, hidden: torch.Tensor) -> torch.Tensor:
        """The backbone's output as tokens (B, T, D)."""
        tokens = hidden if self.components is None else self.components(hidden)
        return tokens.reshape(tokens.shape[0], *self.token_shape)

    def project(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens (B, T, D) as what is compared with pictures."""
        return tokens if self.projector is None else cast(torch.Tensor, self.projector(tokens))

    @property
    def samples(self) -> bool:
        return self.prior is not None

    @torch.no_grad()
    def decode(
        self,
        fmri: torch.Tensor,
        subject_ids: SubjectIds = None,
        num_candidates: int = 1,
        generator: Generators = None,
    ) -> FmriDecoding:
        """Decodes processed voxels, sampling the prior `num_candidates` times for each trial.

        Args:
            fmri: (B, V) processed voxels, zero-padded to the widest subject.
            subject_ids: (B,) indices or names; may be left out with one subject.
            num_candidates: K samples of the prior a trial.
            generator: Source of their noise, one for all trials or one a trial. A sample's noise depends on its place
                in this sequence alone, not on how many are drawn together.

        Returns:
            [`FmriDecoding`]: `image_embeds` (B·K, …), in spaces normalised by the first token divided by its norm;
            `latents` and `retrieval_embeds` (B, …), which are computed and not sampled.
        """
        output = self(fmri, subject_ids, output_hidden_states=False, return_dict=True)
        embeds = None
        if self.prior is not None:
            embeds = self._sample_prior(output.token_embeds, num_candidates, generator)
        elif output.projected_embeds is not None:
            embeds = output.projected_embeds
        return FmriDecoding(
            image_embeds=None if embeds is None else self._in_space(embeds),
            latents=output.latents,
            retrieval_embeds=self._shaped(output.projected_embeds),
        )

    @torch.no_grad()
    def retrieval_embeds(self, fmri: torch.Tensor, subject_ids: SubjectIds = None) -> torch.Tensor:
        """The projector's output (B, …), without sampling the prior or running the low-level branch."""
        if self.backbone is None:
            return super().retrieval_embeds(fmri, subject_ids)
        self.check_fmri(fmri)
        _, projected = self.embed(fmri, self.subject_indices(subject_ids, fmri.shape[0]))
        shaped = self._shaped(projected)
        assert shaped is not None
        return shaped

    def _sample_prior(self, tokens: torch.Tensor, num_candidates: int, generator: Generators) -> torch.Tensor:
        assert self.prior is not None
        sources = _sample_generators(generator, len(tokens), num_candidates)
        if not sources:
            return tokens[:0].float()
        samples = []
        size = max(1, _VALUES_A_CHUNK // tokens[0].numel())
        for start in range(0, len(sources), size):
            chunk = range(start, min(start + size, len(sources)))
            trials = torch.tensor([index // num_candidates for index in chunk], device=tokens.device)
            samples.append(
                self.prior.sample(
                    tokens[trials],
                    num_inference_steps=self.config.prior_num_inference_steps,
                    guidance_scale=self.config.prior_guidance_scale,
                    generator=sources[chunk.start : chunk.stop],
                )
            )
        return torch.cat(samples)

    def _in_space(self, embeds: torch.Tensor) -> torch.Tensor:
        """Embeddings as the space has them: divided by the norm of their first token where it says so."""
        space = self.config.space("image_embedding_space")
        assert space is not None
        if space.normalisation == "cls_norm":
            embeds = embeds / (embeds[:, :1].norm(dim=-1, keepdim=True) + _CLS_EPS)
        return embeds.reshape(embeds.shape[0], *space.shape)

    def _shaped(self, embeds: torch.Tensor | None) -> torch.Tensor | None:
        space = self.config.space("image_embedding_space")
        return None if embeds is None or space is None else embeds.reshape(embeds.shape[0], *space.shape)


def _projector(size: int, hidden_size: int) -> nn.Sequential:
    """Tokens (…, size) ▶ (…, size): norm, GELU and linear, three times."""
    sizes = [size, hidden_size, hidden_size, size]
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.LayerNorm(before), nn.GELU(), nn.Linear(before, after)]
    return nn.Sequential(*layers)


def _sample_generators(generator: Generators, num_trials: int, num_candidates: int) -> list[torch.Generator]:
    """A source of noise for each sample, seeded from the trial's or the common one."""
    generator = checked_generators(generator, num_trials, "trials")
    sources = []
    for index in range(num_trials * num_candidates):
        origin = generator[index // num_candidates] if isinstance(generator, Sequence) else generator
        device = "cpu" if origin is None else origin.device
        seed = int(torch.randint(2**62, (), generator=origin, device=device))
        sources.append(torch.Generator(device).manual_seed(seed))
    return sources
