"""Trains MindEye: BiMixCo, then soft CLIP; the prior and the low-level branch beside them (Scotti et al., 2023)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, NamedTuple, TypeVar, cast

import numpy as np
import torch
from pydantic import Field
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
from ...deprecation import Deprecation, renamed_field
from ...draws import drawn_by_row, joined_rows, own_rows
from ...errors import FmriModelsError
from ...objectives import (
    Batch,
    Examples,
    Gather,
    GradientObjective,
    ParameterGroup,
    groups_by_decay,
    has_no_bias_in_its_name,
)
from ...option_types import NumberFromZero, PositiveNumber, Share, in_words
from .repetitions_mindeye import RepetitionRule, one_pattern

_TARGET_KINDS = Deprecation("target_kinds of MindEyeObjective is targets now; please write targets", since="0.1")

if TYPE_CHECKING:
    from .modeling_mindeye import MindEyeModel

Module = Literal["backbone", "prior", "low_level"]
LowLevelLoss = Literal["l1", "mse"]
_Embeds = TypeVar("_Embeds", np.ndarray, torch.Tensor)


class _Module(NamedTuple):
    """What a module learns from, and how its parameters' names begin."""

    target: Literal["image_embeds", "latents"]
    prefixes: tuple[str, ...]


MODULES: dict[Module, _Module] = {
    "backbone": _Module("image_embeds", ("backbone.", "projector.")),
    "prior": _Module("image_embeds", ("prior.",)),
    "low_level": _Module("latents", ("low_level.",)),
}


class ModuleOutputs(NamedTuple):
    """What the modules gave that a loss looks at; None of those that were not asked.

    Args:
        hidden: (B, T·D) or (B, K), what the backbone gives before it is read as tokens.
        tokens: (B, T, D) of the backbone.
        projected: (B, T, D) after the projector.
        latents: (B, C, h, w) of the low-level branch.
        feature_maps: (B, h·w, F) of the low-level branch.
    """

    hidden: torch.Tensor | None = None
    tokens: torch.Tensor | None = None
    projected: torch.Tensor | None = None
    latents: torch.Tensor | None = None
    feature_maps: torch.Tensor | None = None


# Predicted and true embeddings, (B, D) of length one ▶ what is said of them, by name.
Contrast = Callable[[torch.Tensor, torch.Tensor], dict[str, torch.Tensor]]


@renamed_field("parts", "modules", since="0.1")
@dataclass
class MindEyeObjective(GradientObjective["MindEyeModel"]):
    """The losses of MindEye and which modules of the model they train.

    The low-level branch learns from the error of its latents and, where a batch has a teacher's feature maps, from
    these too.

    Args:
        modules: What is trained: `backbone` (with the projector), `prior`, `low_level`. Those that the model lacks are
            left out.
        mixco_share: Share of the stage in which voxels are mixed and the loss is BiMixCo; soft CLIP follows.
        mixco_beta: Both parameters of the Beta distribution of MixCo; None trains with soft CLIP from the start.
        mixco_probability: Probability of an example to be mixed.
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
        repetition_rule: Which pattern is made of a stimulus' repetitions, where examples have them all: `"cycle"` takes
            one, the next in each step, as the backbone and the prior were trained; `"mix"` draws random means and
            single repetitions, as the low-level branch was; `"mean"` averages them.
        voxel_noise: Standard deviation of normal noise that is added to processed voxels in training. Not in the paper.
    """

    takes_repetitions: ClassVar[bool] = True
    # With fewer training stimuli, ridge regression was better wherever both were measured (docs/methods/mindeye.md).
    few_stimuli: ClassVar[int] = 500
    few_stimuli_with_simulation: ClassVar[int] = 90

    modules: Annotated[Sequence[Module], Field(min_length=1), in_words(f"some of {', '.join(MODULES)}")] = (
        "backbone",
        "prior",
        "low_level",
    )
    mixco_share: Share = 0.33
    mixco_beta: Annotated[PositiveNumber | None, in_words("a positive number, or null for no mixing")] = 0.15
    mixco_probability: Share = 0.5
    mixco_temperature: PositiveNumber = 0.006
    soft_clip_temperatures: Annotated[
        Sequence[PositiveNumber],
        Field(min_length=2, max_length=2),
        in_words("two positive numbers, those at the beginning and at the end"),
    ] = (0.004, 0.0075)
    prior_weight: NumberFromZero = 30.0
    low_level_weight: NumberFromZero = 1.0
    low_level_loss: Annotated[LowLevelLoss, in_words("l1 or mse")] = "l1"
    low_level_scale_factor: PositiveNumber = 1.0
    token_weight: NumberFromZero = 0.0
    token_whitening: Share = 0.0
    maps_weight: NumberFromZero = 0.1
    maps_temperature: PositiveNumber = 0.075
    repetition_rule: Annotated[RepetitionRule, in_words("one of cycle, mix, mean")] = "cycle"
    voxel_noise: NumberFromZero = 0.0

    @property
    def targets(self) -> tuple[str, ...]:
        """The targets that `modules` learn from."""
        return tuple(dict.fromkeys(about.target for module, about in MODULES.items() if module in self.modules))

    @property
    def target_kinds(self) -> tuple[str, ...]:
        """What `targets` was called."""
        _TARGET_KINDS.warn()
        return self.targets

    def prepare(self, model: "MindEyeModel", examples: Examples) -> None:
        """Takes the tokens' components from the pictures that the backbone is about to learn from, once for a model.

        Raises:
            FmriModelsError: The pictures are embedded anew in each step.
        """
        if "backbone" not in self.modules or model.components is None or model.components.is_fitted:
            return
        embeds = examples.distinct_targets("image_embeds")
        if embeds is None:
            raise FmriModelsError(
                f"The model has token_components={model.config.token_components}, which are taken from the embeddings "
                "of training pictures, and these are embedded anew in each step; set augmentation to none, or leave "
                "token_components out."
            )
        model.components.fit(_scaled(model, embeds), self.token_whitening)

    def trainable(self, model: "MindEyeModel") -> list[nn.Parameter]:
        """The parameters of `modules`."""
        return [parameter for _, parameter in self._named_parameters(model)]

    def parameter_groups(self, model: "MindEyeModel", weight_decay: float) -> list[ParameterGroup]:
        """Groups for AdamW: what has "bias" in its name is not decayed.

        So gains of norms are decayed, as in the published training.
        """
        return groups_by_decay(self._named_parameters(model), weight_decay, has_no_bias_in_its_name)

    def losses(
        self, model: "MindEyeModel", batch: Batch, progress: float, gather: Gather, generator: torch.Generator
    ) -> dict[str, torch.Tensor]:
        """The losses of one step: of voxels that are mixed in the first share of the stage, with noise.

        Returns:
            `loss`, and as far as they are trained `contrastive`, `tokens`, `prior`, `low_level` and `maps`, unweighted.

        Raises:
            FmriModelsError: The batch has one example, or the model has none of the modules, or no maps as the
                teacher's.
        """
        modules = self._modules_of(model)
        fmri = self._with_noise(one_pattern(batch, self.repetition_rule, generator), generator)
        draw = self._draw(batch["subject_ids"], progress, generator) if "backbone" in modules else None
        outputs = self._outputs(model, modules, fmri, batch["subject_ids"], draw, generator)
        if draw is None:
            contrast = partial(self._soft_clip, gather=gather, temperature=self._soft_clip_temperature(progress))
        else:
            contrast = partial(self._bimixco, gather=gather, draw=draw, generator=generator)
        terms = self._terms(model, modules, outputs, batch, contrast, draw, generator)
        return {"loss": _sum(self._weighted(terms)), **terms}

    @torch.no_grad()
    def validation_metrics(
        self, model: "MindEyeModel", batch: Batch, generator: torch.Generator
    ) -> dict[str, torch.Tensor]:
        """The losses at the end of training, and how often a picture is found, on held-out examples.

        Nothing is mixed, dropped or annealed, so that values of all steps can be compared. A batch of one example, such
        as a last one may be, has a contrastive loss of 0. Feature maps are not looked at.

        Returns:
            `loss` (weighted as in training), `contrastive` (soft CLIP at its last temperature), `retrieval_top1` (share
            of examples whose own picture is the nearest of the batch), `tokens`, `prior` and `low_level`, for the
            modules that are trained.
        """
        modules = self._modules_of(model)
        outputs = self._outputs(model, modules, batch["fmri"], batch["subject_ids"])._replace(feature_maps=None)
        terms = self._terms(model, modules, outputs, batch, self._found, generator=generator)
        return {"loss": _sum(self._weighted(terms)), **terms}

    def losses_of_outputs(
        self, model: "MindEyeModel", outputs: ModuleOutputs, targets: Mapping[str, torch.Tensor | None]
    ) -> dict[str, torch.Tensor]:
        """The losses at the end of training of what a model has given, each with its weight.

        Args:
            model: What has given them.
            outputs: Of all modules that have targets.
            targets: `image_embeds` and `latents`, or None.
        """
        given = {name: target for name, target in targets.items() if target is not None}
        modules = [module for module in _present(self.modules, model) if MODULES[module].target in given]
        contrast = partial(self._soft_clip, temperature=self.soft_clip_temperatures[1])
        return self._weighted(self._terms(model, modules, outputs, cast(Batch, given), contrast))

    def latent_error(self, decoded: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """The error of latents."""
        error = F.l1_loss if self.low_level_loss == "l1" else F.mse_loss
        return error(decoded.float(), latents.float()) / self.low_level_scale_factor

    def _terms(
        self,
        model: "MindEyeModel",
        modules: Sequence[Module],
        outputs: ModuleOutputs,
        targets: Batch,
        contrast: Contrast,
        draw: MixCoDraw | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, torch.Tensor]:
        """All that `modules` are judged by, without weights."""
        terms: dict[str, torch.Tensor] = {}
        if "backbone" in modules:
            assert outputs.projected is not None
            terms |= contrast(normalised(outputs.projected), normalised(targets["image_embeds"]))
            if self.token_weight:
                assert outputs.hidden is not None
                terms["tokens"] = _token_loss(model, outputs.hidden, _mixed(targets["image_embeds"], draw, generator))
        if "prior" in modules:
            assert model.prior is not None and outputs.tokens is not None
            # As published, mixed voxels are to give the unmixed picture here.
            terms["prior"] = model.prior.loss(targets["image_embeds"], outputs.tokens, generator=generator)
        if "low_level" in modules:
            assert outputs.latents is not None
            terms["low_level"] = self.latent_error(outputs.latents, targets["latents"])
            if self.maps_weight and outputs.feature_maps is not None and "feature_maps" in targets:
                terms["maps"] = self._maps_loss(outputs.feature_maps, targets)
        return terms

    def _weighted(self, terms: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What the loss is the sum of; other terms are only looked at."""
        weights = {
            "contrastive": 1.0,
            "tokens": self.token_weight,
            "prior": self.prior_weight,
            "low_level": self.low_level_weight,
            "maps": self.maps_weight,
        }
        return {name: weights[name] * value for name, value in terms.items() if name in weights}

    def _outputs(
        self,
        model: "MindEyeModel",
        modules: Sequence[Module],
        fmri: torch.Tensor,
        subject_ids: torch.Tensor,
        draw: MixCoDraw | None = None,
        generator: torch.Generator | None = None,
    ) -> ModuleOutputs:
        """What the model's modules give that `modules` are judged by; the backbone gets the mixed voxels."""
        outputs = ModuleOutputs()
        if "backbone" in modules or "prior" in modules:
            mixed = _mixed(fmri, draw, generator)
            hidden, tokens = self._encode(model, mixed, subject_ids, trained="backbone" in modules)
            projected = model.project(tokens) if "backbone" in modules else None
            outputs = outputs._replace(hidden=hidden, tokens=tokens, projected=projected)
        if "low_level" in modules:
            assert model.low_level is not None
            decoded = model.low_level(fmri, subject_ids, return_dict=True)
            outputs = outputs._replace(latents=decoded.latents, feature_maps=decoded.feature_maps)
        return outputs

    def _encode(
        self, model: "MindEyeModel", fmri: torch.Tensor, subject_ids: torch.Tensor, trained: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What the backbone gives, and that as tokens."""
        if not trained:
            # A backbone that is only read gives what it will give in use: no dropout.
            cast(nn.Module, model.backbone).eval()
        with torch.set_grad_enabled(trained and torch.is_grad_enabled()):
            hidden = model.encode(fmri, subject_ids)
            return hidden, model.tokens_from(hidden)

    def _soft_clip(
        self, predicted: torch.Tensor, true: torch.Tensor, temperature: float, gather: Gather | None = None
    ) -> dict[str, torch.Tensor]:
        if gather is not None:
            predicted, true = gather(predicted), gather(true)
        return {"contrastive": soft_clip_loss(predicted, true, temperature)}

    def _bimixco(
        self, predicted: torch.Tensor, true: torch.Tensor, draw: MixCoDraw, gather: Gather, generator: torch.Generator
    ) -> dict[str, torch.Tensor]:
        predicted, true, everywhere = gather(predicted), gather(true), _gathered_draw(draw, gather, generator)
        loss = bimixco_loss(
            predicted, true, everywhere.permutation, everywhere.betas, everywhere.select, self.mixco_temperature
        )
        return {"contrastive": loss}

    def _found(self, predicted: torch.Tensor, true: torch.Tensor) -> dict[str, torch.Tensor]:
        losses = {"contrastive": predicted.new_zeros(())}
        if len(predicted) > 1:
            losses = self._soft_clip(predicted, true, self.soft_clip_temperatures[1])
        return {**losses, "retrieval_top1": retrieval_top1(predicted, true)}

    def _named_parameters(self, model: "MindEyeModel") -> list[tuple[str, nn.Parameter]]:
        chosen = tuple(prefix for module in self._modules_of(model) for prefix in MODULES[module].prefixes)
        return [(name, parameter) for name, parameter in model.named_parameters() if name.startswith(chosen)]

    def _modules_of(self, model: "MindEyeModel") -> list[Module]:
        modules = _present(self.modules, model)
        if not modules:
            raise FmriModelsError(
                f"The stage trains {', '.join(self.modules)}, and this model has only "
                f"{', '.join(_present(MODULES, model))}; leave the stage out, or choose a generator with embeddings."
            )
        return modules

    def _draw(self, subject_ids: torch.Tensor, progress: float, generator: torch.Generator) -> MixCoDraw | None:
        """What is mixed in a step; None after the share of the stage in which something is."""
        if self.mixco_beta is None or progress >= self.mixco_share:
            return None
        whole = draw_mixco(joined_rows(subject_ids, generator), generator, self.mixco_beta, self.mixco_probability)
        own = (own_rows(each, generator) for each in (whole.permutation, whole.betas, whole.select))
        return MixCoDraw(*own).to(subject_ids.device)

    def _with_noise(self, fmri: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        if not self.voxel_noise:
            return fmri
        return fmri + self.voxel_noise * drawn_by_row(torch.randn, fmri.shape, generator, dtype=torch.float32).to(fmri)

    def _soft_clip_temperature(self, progress: float) -> float:
        begins = self.mixco_share if self.mixco_beta is not None else 0.0
        fraction = min((progress - begins) / (1 - begins), 1.0) if begins < 1 else 1.0
        return cosine_anneal(self.soft_clip_temperatures[0], self.soft_clip_temperatures[1], fraction)

    def _maps_loss(self, student: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Every position of every picture is compared."""
        teacher, augmented = batch["feature_maps"], batch["augmented_feature_maps"]
        if student.shape != teacher.shape:
            raise FmriModelsError(
                f"The teacher's feature maps have {teacher.shape[1]} positions of {teacher.shape[2]} values, and those "
                f"of the model's low-level branch {student.shape[1]} of {student.shape[2]}; set "
                f"model.low_level_feature_size={teacher.shape[2]} and choose a teacher with as many positions."
            )
        compared = [normalised(maps.flatten(0, 1)) for maps in (student, teacher, augmented)]
        return soft_contrastive_loss(compared[0], compared[1], compared[2], self.maps_temperature)


def _present(modules: Iterable[Module], model: "MindEyeModel") -> list[Module]:
    return [module for module in modules if getattr(model, module) is not None]


def _sum(weighted: Mapping[str, torch.Tensor]) -> torch.Tensor:
    return torch.stack(list(weighted.values())).sum()


def _gathered_draw(draw: MixCoDraw, gather: Gather, generator: torch.Generator) -> MixCoDraw:
    """The draws of all processes and batches of a step, whose permutation points to where their rows are then."""
    # As numbers that gradients could flow through, for that is what gather is made for; exact up to 2^24 examples.
    permutation = gather(draw.permutation.float()).round().long()
    own = len(draw.permutation)
    # Each process' rows of all batches are together; a row was mixed with one of the same batch, of any process.
    of_process = len(permutation) // getattr(generator, "num_processes", 1)
    batch_start = torch.arange(len(permutation), device=permutation.device) % of_process // own * own
    places = permutation // own * of_process + batch_start + permutation % own
    return MixCoDraw(places, gather(draw.betas), gather(draw.select.float()) > 0.5)


def _token_loss(model: "MindEyeModel", hidden: torch.Tensor, image_embeds: torch.Tensor) -> torch.Tensor:
    """Mean squared error of the backbone's output against embeddings, or their components, scaled as for the prior."""
    target = _scaled(model, image_embeds.float().flatten(1))
    return F.mse_loss(hidden.float(), target if model.components is None else model.components.scores(target))


def _scaled(model: "MindEyeModel", image_embeds: _Embeds) -> _Embeds:
    return image_embeds * model.config.token_shape[1] ** 0.5


def _mixed(values: torch.Tensor, draw: MixCoDraw | None, generator: torch.Generator | None) -> torch.Tensor:
    """(B, …) rows mixed with others of the whole batch: voxels, or what they show, with the same weights."""
    if draw is None:
        return values
    flat = values.flatten(1)
    others = joined_rows(flat, generator)
    return mixco(flat, draw.permutation, draw.betas, draw.select, others).reshape(values.shape)


# What `forward` computes: the loss with which training ends where a recipe says nothing.
DEFAULT_OBJECTIVE = MindEyeObjective()
