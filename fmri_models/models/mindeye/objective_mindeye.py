"""Trains MindEye: BiMixCo, then soft CLIP; the prior and the low-level branch beside them (Scotti et al., 2023)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, cast, get_args

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ...alignment.losses import (
    MixCoDraw,
    bimixco_loss,
    cosine_anneal,
    draw_mixco,
    mixco,
    normalised,
    retrieval_top1,
    soft_clip_loss,
    soft_contrastive_loss,
)
from ...errors import FmriModelsError
from ...names import one_line
from .low_level_mindeye import MindEyeLowLevelModel
from .modeling_mindeye import MindEyeModel
from .prior_mindeye import MindEyePrior
from .repetitions_mindeye import RepetitionRule, one_pattern

Gather = Callable[[torch.Tensor], torch.Tensor]
LowLevelLoss = Literal["l1", "mse"]
PARTS = ("backbone", "prior", "low_level")
_SHARES = ("mixco_share", "mixco_probability", "token_whitening")
_POSITIVE = ("mixco_beta", "mixco_temperature", "maps_temperature", "low_level_scale_factor")
_FROM_ZERO = ("prior_weight", "low_level_weight", "token_weight", "maps_weight", "voxel_noise")


class TargetsOfPictures(Protocol):
    """Rows that a stage learns from, as far as their pictures' targets are concerned."""

    def distinct_targets(self, name: str) -> np.ndarray | None:
        """(pictures, values) targets of each picture once; None where they are made anew in each step."""


@dataclass
class MindEyeObjective:
    """The losses of MindEye and which parts of the model they train.

    The low-level branch learns from the error of its latents and, where a batch has a teacher's feature maps, from
    these too.

    Args:
        parts: What is trained: `backbone` (with the projector), `prior`, `low_level`. Parts that the model lacks are
            left out.
        mixco_share: Share of the stage in which voxels are mixed and the loss is BiMixCo; soft CLIP follows.
        mixco_beta: Both parameters of the Beta distribution of MixCo; None trains with soft CLIP from the start.
        mixco_probability: Probability of a row to be mixed.
        mixco_temperature: Temperature of BiMixCo.
        soft_clip_temperatures: Temperature of soft CLIP at the beginning and end of its share.
        prior_weight: Weight of the prior's loss (30 for 257 tokens, .03 for a single one in the paper).
        low_level_weight: Weight of the low-level loss.
        low_level_loss: `"l1"` (mean absolute error, as published) or `"mse"`, whose best answer is the mean of what a
            pattern may mean and not the median, which is better where patterns are few and noisy.
        low_level_scale_factor: What the low-level loss is divided by: .18215 for Stable Diffusion's latents, which were
            multiplied by it.
        token_weight: Weight of the mean squared error between the backbone's tokens (or their components, where the
            model has `token_components`) and the picture's, scaled as for the prior. Not in the paper; with it, the
            backbone needs a small part of the published steps.
        token_whitening: How far the components are whitened, from 0 (not at all) to 1 (all count alike).
        maps_weight: Weight of the loss against a teacher's feature maps; it counts where the batch has some.
        maps_temperature: Its temperature.
        repetition_rule: Which pattern is made of a stimulus' repetitions, where rows have them all: `"cycle"` takes
            one, the next in each step, as the backbone and the prior were trained; `"mix"` draws random means and
            single repetitions, as the low-level branch was; `"mean"` averages them.
        voxel_noise: Standard deviation of normal noise that is added to processed voxels in training. Not in the paper.
    """

    takes_repetitions: ClassVar[bool] = True
    # With fewer training stimuli, ridge regression was better wherever both were measured (docs/methods/mindeye.md).
    few_stimuli: ClassVar[int] = 500
    few_stimuli_with_simulation: ClassVar[int] = 90

    parts: Sequence[str] = PARTS
    mixco_share: float = 0.33
    mixco_beta: float | None = 0.15
    mixco_probability: float = 0.5
    mixco_temperature: float = 0.006
    soft_clip_temperatures: Sequence[float] = (0.004, 0.0075)
    prior_weight: float = 30.0
    low_level_weight: float = 1.0
    low_level_loss: LowLevelLoss = "l1"
    low_level_scale_factor: float = 1.0
    token_weight: float = 0.0
    token_whitening: float = 0.0
    maps_weight: float = 0.1
    maps_temperature: float = 0.075
    repetition_rule: RepetitionRule = "cycle"
    voxel_noise: float = 0.0

    def __post_init__(self) -> None:
        unknown = [part for part in self.parts if part not in PARTS]
        if unknown or not self.parts:
            raise FmriModelsError(f"objective.parts is {list(self.parts)}; expected some of {', '.join(PARTS)}.")
        for name in (*_SHARES, *_POSITIVE, *_FROM_ZERO):
            self._check_number(name)
        if len(self.soft_clip_temperatures) != 2 or min(self.soft_clip_temperatures) <= 0:
            raise FmriModelsError(
                f"objective.soft_clip_temperatures is {list(self.soft_clip_temperatures)}; expected two positive "
                "numbers, those at the beginning and at the end."
            )
        if self.low_level_loss not in get_args(LowLevelLoss):
            raise FmriModelsError(
                f"objective.low_level_loss is {self.low_level_loss!r}; expected {' or '.join(get_args(LowLevelLoss))}."
            )
        if self.repetition_rule not in get_args(RepetitionRule):
            raise FmriModelsError(
                f"objective.repetition_rule is {self.repetition_rule!r}; expected one of "
                f"{', '.join(get_args(RepetitionRule))}."
            )

    def _check_number(self, name: str) -> None:
        value = getattr(self, name)
        if name == "mixco_beta" and value is None:
            return
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not is_number or value < 0 or (name in _POSITIVE and value == 0) or (name in _SHARES and value > 1):
            expected = "a number from 0 to 1" if name in _SHARES else "a number from 0"
            expected = "a positive number" if name in _POSITIVE else expected
            none = ", or null for no mixing" if name == "mixco_beta" else ""
            raise FmriModelsError(f"objective.{name} is {one_line(repr(value), 80)}; expected {expected}{none}.")

    def prepare(self, model: MindEyeModel, data: TargetsOfPictures) -> None:
        """Takes the tokens' components from the pictures that the backbone is about to learn from, once for a model.

        Args:
            model: The model.
            data: Gives the targets of training pictures.

        Raises:
            FmriModelsError: The pictures are embedded anew in each step.
        """
        if "backbone" not in self.parts or model.components is None or model.components.is_fitted:
            return
        embeds = data.distinct_targets("image_embeds")
        if embeds is None:
            raise FmriModelsError(
                f"The model has token_components={model.config.token_components}, which are taken from the embeddings "
                "of training pictures, and these are embedded anew in each step; set augmentation to none, or leave "
                "token_components out."
            )
        model.components.fit(_scaled(model, embeds), self.token_whitening)

    @property
    def target_kinds(self) -> tuple[str, ...]:
        """The targets that `parts` learn from."""
        embeddings = ("image_embeds",) if {"backbone", "prior"} & set(self.parts) else ()
        return (*embeddings, "latents") if "low_level" in self.parts else embeddings

    def losses(
        self,
        model: MindEyeModel,
        batch: dict[str, Any],
        progress: float,
        gather: Gather,
        generator: torch.Generator,
    ) -> dict[str, torch.Tensor]:
        """The losses of one step.

        Args:
            model: In train mode.
            batch: `fmri` (B, V), or (B, R, V) with the number of the `step`; `subject_ids` (B,), and as far as they are
                trained `image_embeds`, `latents`; of a teacher `feature_maps` and `augmented_feature_maps` (B, P, F).
            progress: Share of the stage that is done, from 0 to 1.
            gather: Joins a tensor of all processes along the first dimension, with gradient.
            generator: Source of everything drawn; on the CPU.

        Returns:
            `loss`, and as far as they are trained `contrastive`, `tokens`, `prior`, `low_level` and `maps`, unweighted.

        Raises:
            FmriModelsError: The batch has one row, or the model has none of the parts, or no maps as the teacher's.
        """
        parts = self._parts_of(model)
        subject_ids = batch["subject_ids"]
        fmri = self._with_noise(one_pattern(batch, self.repetition_rule, generator), generator)
        weighted: dict[str, torch.Tensor] = {}
        losses: dict[str, torch.Tensor] = {}
        if "backbone" in parts or "prior" in parts:
            mixes = self._mixes(progress) and "backbone" in parts
            draw = self._draw(subject_ids, generator).to(fmri.device) if mixes else None
            mixed = fmri if draw is None else mixco(fmri, draw.permutation, draw.betas, draw.select)
            encoded, tokens = self._encode(model, mixed, subject_ids, trained="backbone" in parts)
            if "backbone" in parts:
                projected = model.project(tokens)
                losses["contrastive"] = self._contrastive(projected, batch["image_embeds"], draw, progress, gather)
                weighted["contrastive"] = losses["contrastive"]
            if "backbone" in parts and self.token_weight:
                losses["tokens"] = _token_loss(model, encoded, _mixed_targets(batch["image_embeds"], draw))
                weighted["tokens"] = self.token_weight * losses["tokens"]
            if "prior" in parts:
                # As published, mixed voxels are to give the unmixed picture here.
                losses["prior"] = _prior(model).loss(batch["image_embeds"], tokens, generator=generator)
                weighted["prior"] = self.prior_weight * losses["prior"]
        if "low_level" in parts:
            decoded = _low_level(model)(fmri, subject_ids, return_dict=True)
            losses["low_level"] = self._latent_error(decoded.latents, batch["latents"])
            weighted["low_level"] = self.low_level_weight * losses["low_level"]
            if self.maps_weight and "feature_maps" in batch:
                losses["maps"] = self._maps_loss(cast(torch.Tensor, decoded.feature_maps), batch)
                weighted["maps"] = self.maps_weight * losses["maps"]
        return {"loss": torch.stack(list(weighted.values())).sum(), **losses}

    @torch.no_grad()
    def validation_metrics(
        self, model: MindEyeModel, batch: dict[str, Any], generator: torch.Generator
    ) -> dict[str, torch.Tensor]:
        """What is measured on held-out rows.

        Nothing is mixed, dropped or annealed, so that values of all steps can be compared. A batch of one row, such as
        a last one may be, has a contrastive loss of 0.

        Args:
            model: In eval mode.
            batch: As in `losses`, with one pattern a row; feature maps are not looked at.
            generator: Source of the prior's noise levels and noise, the same in each validation.

        Returns:
            `loss` (weighted as in training), `contrastive` (soft CLIP at its last temperature), `retrieval_top1` (share
            of rows whose own picture is the nearest of the batch), `tokens`, `prior` and `low_level`, for the parts
            that are trained.
        """
        parts = self._parts_of(model)
        fmri, subject_ids = batch["fmri"], batch["subject_ids"]
        metrics: dict[str, torch.Tensor] = {}
        loss = torch.zeros((), device=fmri.device, dtype=torch.float32)
        if "backbone" in parts or "prior" in parts:
            encoded, tokens = _encoded(model, fmri, subject_ids)
            if "backbone" in parts:
                predicted, target = normalised(model.project(tokens)), normalised(batch["image_embeds"])
                several = len(predicted) > 1
                temperature = self.soft_clip_temperatures[1]
                metrics["contrastive"] = soft_clip_loss(predicted, target, temperature) if several else loss
                metrics["retrieval_top1"] = retrieval_top1(predicted, target)
                loss = loss + metrics["contrastive"]
            if "backbone" in parts and self.token_weight:
                metrics["tokens"] = _token_loss(model, encoded, batch["image_embeds"])
                loss = loss + self.token_weight * metrics["tokens"]
            if "prior" in parts:
                metrics["prior"] = _prior(model).loss(batch["image_embeds"], tokens, generator=generator)
                loss = loss + self.prior_weight * metrics["prior"]
        if "low_level" in parts:
            decoded = _low_level(model)(fmri, subject_ids, return_dict=True)
            metrics["low_level"] = self._latent_error(decoded.latents, batch["latents"])
            loss = loss + self.low_level_weight * metrics["low_level"]
        return {"loss": loss, **metrics}

    def trainable(self, model: MindEyeModel) -> list[nn.Parameter]:
        """The parameters of `parts`."""
        return [parameter for _, parameter in self._named_parameters(model)]

    def parameter_groups(self, model: MindEyeModel, weight_decay: float) -> list[dict[str, Any]]:
        """Groups for AdamW: what has "bias" in its name is not decayed.

        So gains of norms are decayed, as in the published training.
        """
        named = self._named_parameters(model)
        return [
            {"params": [p for name, p in named if "bias" not in name], "weight_decay": weight_decay},
            {"params": [p for name, p in named if "bias" in name], "weight_decay": 0.0},
        ]

    def _named_parameters(self, model: MindEyeModel) -> list[tuple[str, nn.Parameter]]:
        prefixes = {
            "backbone": ("backbone.", "projector."),
            "prior": ("prior.",),
            "low_level": ("low_level.",),
        }
        chosen = tuple(prefix for part in self._parts_of(model) for prefix in prefixes[part])
        return [(name, parameter) for name, parameter in model.named_parameters() if name.startswith(chosen)]

    def _parts_of(self, model: MindEyeModel) -> list[str]:
        parts = [part for part in self.parts if getattr(model, part) is not None]
        if not parts:
            has = [part for part in PARTS if getattr(model, part) is not None]
            raise FmriModelsError(
                f"The stage trains {', '.join(self.parts)}, and this model has only {', '.join(has)}; leave the stage "
                "out, or choose a generator with embeddings."
            )
        return parts

    def _mixes(self, progress: float) -> bool:
        return self.mixco_beta is not None and progress < self.mixco_share

    def _draw(self, subject_ids: torch.Tensor, generator: torch.Generator) -> MixCoDraw:
        assert self.mixco_beta is not None
        return draw_mixco(subject_ids, generator, self.mixco_beta, self.mixco_probability)

    def _with_noise(self, fmri: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        if not self.voxel_noise:
            return fmri
        return fmri + self.voxel_noise * torch.randn(fmri.shape, generator=generator, dtype=torch.float32).to(fmri)

    def _encode(
        self, model: MindEyeModel, fmri: torch.Tensor, subject_ids: torch.Tensor, trained: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if trained:
            return _encoded(model, fmri, subject_ids)
        # A backbone that is only read gives what it will give in use: no dropout.
        cast(nn.Module, model.backbone).eval()
        with torch.no_grad():
            return _encoded(model, fmri, subject_ids)

    def _contrastive(
        self,
        projected: torch.Tensor,
        image_embeds: torch.Tensor,
        draw: MixCoDraw | None,
        progress: float,
        gather: Gather,
    ) -> torch.Tensor:
        predicted, target = gather(normalised(projected)), gather(normalised(image_embeds))
        if draw is None:
            return soft_clip_loss(predicted, target, self._soft_clip_temperature(progress))
        everywhere = _gathered_draw(draw, gather)
        return bimixco_loss(
            predicted, target, everywhere.permutation, everywhere.betas, everywhere.select, self.mixco_temperature
        )

    def _soft_clip_temperature(self, progress: float) -> float:
        begins = self.mixco_share if self.mixco_beta is not None else 0.0
        fraction = min((progress - begins) / (1 - begins), 1.0) if begins < 1 else 1.0
        return cosine_anneal(self.soft_clip_temperatures[0], self.soft_clip_temperatures[1], fraction)

    def _latent_error(self, decoded: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        error = F.l1_loss if self.low_level_loss == "l1" else F.mse_loss
        return error(decoded.float(), latents.float()) / self.low_level_scale_factor

    def _maps_loss(self, student: torch.Tensor, batch: dict[str, Any]) -> torch.Tensor:
        """Every position of every picture is a row of the contrastive loss."""
        teacher, augmented = batch["feature_maps"], batch["augmented_feature_maps"]
        if student.shape != teacher.shape:
            raise FmriModelsError(
                f"The teacher's feature maps have {teacher.shape[1]} positions of {teacher.shape[2]} values, and those "
                f"of the model's low-level branch {student.shape[1]} of {student.shape[2]}; set "
                f"model.low_level_feature_size={teacher.shape[2]} and choose a teacher with as many positions."
            )
        rows = [normalised(maps.flatten(0, 1)) for maps in (student, teacher, augmented)]
        return soft_contrastive_loss(rows[0], rows[1], rows[2], self.maps_temperature)


def _gathered_draw(draw: MixCoDraw, gather: Gather) -> MixCoDraw:
    """The draws of all processes; each mixed its own rows, so a permutation is shifted to where its rows are."""
    own = len(draw.permutation)
    # As numbers that gradients could flow through, for that is what gather is made for; exact up to 2^24 rows.
    permutation = gather(draw.permutation.float()).round().long()
    offsets = torch.arange(len(permutation), device=permutation.device) // own * own
    return MixCoDraw(permutation + offsets, gather(draw.betas), gather(draw.select.float()) > 0.5)


def _encoded(model: MindEyeModel, fmri: torch.Tensor, subject_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The backbone's output, and its tokens."""
    encoded = model.encode(fmri, subject_ids)
    return encoded, model.tokens_from(encoded)


def _token_loss(model: MindEyeModel, encoded: torch.Tensor, image_embeds: torch.Tensor) -> torch.Tensor:
    """Mean squared error of the backbone's output against embeddings, or their components, scaled as for the prior."""
    target = _scaled(model, image_embeds.float().flatten(1))
    return F.mse_loss(encoded.float(), target if model.components is None else model.components.scores(target))


def _scaled(model: MindEyeModel, image_embeds: Any) -> Any:
    return image_embeds * model.config.token_shape[1] ** 0.5


def _mixed_targets(image_embeds: torch.Tensor, draw: MixCoDraw | None) -> torch.Tensor:
    """What voxels that were mixed show: a mean of both pictures' embeddings with the same weights."""
    if draw is None:
        return image_embeds
    return mixco(image_embeds.flatten(1), draw.permutation, draw.betas, draw.select).reshape(image_embeds.shape)


def _prior(model: MindEyeModel) -> MindEyePrior:
    assert model.prior is not None
    return model.prior


def _low_level(model: MindEyeModel) -> MindEyeLowLevelModel:
    assert model.low_level is not None
    return model.low_level
