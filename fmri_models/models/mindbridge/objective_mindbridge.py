"""Trains MindBridge: soft CLIP and squared error, reconstruction and cyclic reconstruction (Wang et al., 2024)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from ...alignment.losses import Compared, compared
from ...draws import drawn_by_row
from ...objectives import (
    Batch,
    Examples,
    Gather,
    GradientObjective,
    ParameterGroup,
    groups_by_decay,
    has_no_bias_in_its_name,
)
from ...option_types import NumberFromZero, PositiveNumber, in_words
from ...traced import becomes_a_graph

if TYPE_CHECKING:
    from .modeling_mindbridge import MindBridgeModel

RepetitionRule = Literal["cycle", "mean"]
Cycle = Literal["drawn", "newest"]

# What each head learns, and how its losses are called.
_TARGETS = {"image_embeds": "image", "text_embeds": "text"}
_MEASURED = ("image_cosine", "text_cosine", "retrieval_top1")


class CyclePair(NamedTuple):
    """Whose embeddings are turned into whose responses and read again.

    Args:
        source: Index of the subject; None takes all but the target.
        target: Index of the subject whose builder and embedder are passed through.
    """

    source: int | None
    target: int


class BridgeOutputs(NamedTuple):
    """What a model gives that losses look at; None of those that it lacks or that were not asked for.

    Args:
        fmri_embeds: (B, hidden_size) what is common to all subjects.
        image_embeds: (B, T, D).
        text_embeds: (B, T, D).
        reconstructed_fmri: (B, V) zero-padded to the widest subject.
    """

    fmri_embeds: torch.Tensor
    image_embeds: torch.Tensor | None = None
    text_embeds: torch.Tensor | None = None
    reconstructed_fmri: torch.Tensor | None = None


def _alone(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


@dataclass
class MindBridgeObjective(GradientObjective["MindBridgeModel"]):
    """The losses of MindBridge.

    Predicted and true embeddings are compared as directions: one matrix of cosines gives soft CLIP, the squared error
    of embeddings of length one, and what is logged.

    Args:
        temperature: Divides the cosines of soft CLIP.
        contrastive_weight: Weight of soft CLIP.
        mse_weight: Weight of the mean squared error between embeddings of length one.
        reconstruction_weight: Weight of the mean squared error between voxels and what a subject's builder makes of its
            own embedding; 0, as published for single subjects, leaves it out.
        cycle_weight: Weight of the cycle: what is common, turned into another subject's responses and read again, is to
            stay what it was. 0 leaves it out.
        cycle: Whose layers it passes through: `"drawn"`, of a pair of different subjects that is drawn in each step, or
            `"newest"`, the layers of the last subject for the rows of all others, as published for the training of a
            new subject with rows of those there were.
        translation_weight: Weight of the mean squared error between what another subject's responses were turned into
            and the subject's own to the same stimulus, for rows of a batch that share one (`training.shared_stimuli`
            sees to it that some do). Not in the paper, whose subjects share none in training.
        pair_seed: Pairs are a function of it and of the step, the same in all processes.
        repetition_rule: Which pattern is made of a stimulus' repetitions, where examples have them all: `"cycle"` takes
            one, the next in each step, the same for the whole batch, as published; `"mean"` averages them.
        voxel_noise: Standard deviation of normal noise that is added to what is read in training. Not in the paper.
    """

    takes_repetitions: ClassVar[bool] = True

    temperature: PositiveNumber = 0.005
    contrastive_weight: NumberFromZero = 1.0
    mse_weight: NumberFromZero = 1e4
    reconstruction_weight: NumberFromZero = 1.0
    cycle_weight: NumberFromZero = 1.0
    translation_weight: NumberFromZero = 0.0
    cycle: Annotated[Cycle, in_words("drawn or newest")] = "drawn"
    pair_seed: Annotated[int, Field(ge=0), in_words("a whole number from 0")] = 0
    repetition_rule: Annotated[RepetitionRule, in_words("cycle or mean")] = "cycle"
    voxel_noise: NumberFromZero = 0.0

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(_TARGETS)

    def prepare(self, model: "MindBridgeModel", examples: Examples) -> None:
        """Notes how long the embeddings of training pictures and captions are, for only directions are learned.

        Where they are made anew in each step, nothing is noted, and decoded ones are scaled as published.
        """
        for target, head in _TARGETS.items():
            if model.config.space(f"{head}_embedding_space") is None:
                continue
            embeds = examples.distinct_targets(target)
            if embeds is not None:
                norm = float(np.sqrt(np.square(embeds, dtype=np.float64).sum(axis=1)).mean())
                setattr(model.config, f"{head}_embedding_norm", norm)

    def trainable(self, model: "MindBridgeModel") -> list[nn.Parameter]:
        """All, or all but the builders, which learn from reconstruction and cycle alone."""
        builds = self._builds(model)
        return [each for name, each in model.named_parameters() if builds or not name.startswith("builders.")]

    def parameter_groups(self, model: "MindBridgeModel", weight_decay: float) -> list[ParameterGroup]:
        """Groups for AdamW: what has "bias" in its name is not decayed.

        The published training means to spare norms, too, by a name that they do not have, so their gains are decayed.
        """
        return groups_by_decay(model.named_parameters(), weight_decay, has_no_bias_in_its_name)

    def losses(
        self, model: "MindBridgeModel", batch: Batch, progress: float, gather: Gather, generator: torch.Generator
    ) -> dict[str, torch.Tensor]:
        """The losses of one step.

        Returns:
            `loss`; unweighted, for each head, `image_contrastive`, `image_mse` and the like, `reconstruction`, `cycle`
            and `translation`; besides, `image_cosine` and `text_cosine`, the mean cosine of a prediction with its
            target, and `retrieval_top1`, the share of examples whose own picture is the nearest of the batch.

        Raises:
            FmriModelsError: The batch has one example, or no target.
        """
        fmri = self._one_pattern(batch)
        outputs = model.bridge(self._with_noise(fmri, generator), batch["subject_ids"], self._builds(model))
        source = torch.Generator().manual_seed(self.pair_seed * 2**31 + batch.get("step", 0))
        return self._all(model, outputs, batch, fmri, self._pair(model, source), gather)

    @torch.no_grad()
    def validation_metrics(
        self, model: "MindBridgeModel", batch: Batch, generator: torch.Generator
    ) -> dict[str, torch.Tensor]:
        """The same on held-out examples, and `cosine`, the sum of both heads', by which the original chose its weights.

        The pair of the cycle is the same in each validation. A batch of one example, such as a last one may be, has a
        contrastive loss of 0.
        """
        outputs = model.bridge(batch["fmri"], batch["subject_ids"], self._builds(model))
        measured = self._all(model, outputs, batch, batch["fmri"], self._pair(model, generator), _alone, alone=True)
        measured["cosine"] = torch.stack([value for name, value in measured.items() if name.endswith("_cosine")]).sum()
        return measured

    def losses_of_outputs(
        self,
        model: "MindBridgeModel",
        outputs: BridgeOutputs,
        targets: Mapping[str, torch.Tensor | None],
        fmri: torch.Tensor,
        subject_ids: torch.Tensor,
        pair: CyclePair | None = None,
    ) -> dict[str, torch.Tensor]:
        """The losses of what a model has given, each with its weight: of the heads and of reconstruction where there
        are targets, of the cycle where there is a pair.

        Args:
            model: What has given them.
            outputs: What it has given.
            targets: `image_embeds` and `text_embeds`, or None.
            fmri: (B, V) what it was given.
            subject_ids: (B,) indices.
            pair: Subjects of the cycle.
        """
        given = {name: target for name, target in targets.items() if target is not None}
        terms = self._compared(outputs, given, _alone, False) if given else {}
        if given and outputs.reconstructed_fmri is not None:
            terms["reconstruction"] = reconstruction_loss(model, outputs.reconstructed_fmri, fmri, subject_ids)
        if pair is not None:
            terms["cycle"] = cycle_loss(model, pass_through(model, outputs.fmri_embeds, subject_ids, pair), pair)
        return self._weighted(terms)

    def _all(
        self,
        model: "MindBridgeModel",
        outputs: BridgeOutputs,
        batch: Batch,
        fmri: torch.Tensor,
        pair: CyclePair | None,
        gather: Gather,
        alone: bool = False,
    ) -> dict[str, torch.Tensor]:
        targets = {name: batch[name] for name in _TARGETS if name in batch}  # type: ignore[literal-required]
        terms = self._compared(outputs, targets, gather, alone)
        ids = batch["subject_ids"]
        if outputs.reconstructed_fmri is not None:
            terms["reconstruction"] = reconstruction_loss(model, outputs.reconstructed_fmri, fmri, ids, gather)
        if pair is not None:
            passed = pass_through(model, outputs.fmri_embeds, ids, pair)
            terms["cycle"] = cycle_loss(model, passed, pair, gather)
            if self.translation_weight and "stimulus" in batch:
                terms["translation"] = translation_loss(model, passed, fmri, ids, batch["stimulus"], pair, gather)
        return {"loss": torch.stack(list(self._weighted(terms).values())).sum(), **terms}

    def _compared(
        self, outputs: BridgeOutputs, targets: Mapping[str, torch.Tensor], gather: Gather, alone: bool
    ) -> dict[str, torch.Tensor]:
        """Of each head that has a target: its losses and what is logged, unweighted."""
        terms: dict[str, torch.Tensor] = {}
        for target, head in _TARGETS.items():
            predicted = getattr(outputs, target)
            if predicted is None or target not in targets:
                continue
            found = compared(gather(predicted.flatten(1)), gather(targets[target].flatten(1)))
            terms[f"{head}_contrastive"] = self._soft_clip(found, alone)
            terms[f"{head}_mse"] = found.squared_error()
            terms[f"{head}_cosine"] = found.cosine().detach()
            if head == "image":
                terms["retrieval_top1"] = found.top1()
        return terms

    def _soft_clip(self, found: Compared, may_be_alone: bool) -> torch.Tensor:
        if may_be_alone and len(found.cosines) < 2:
            return found.cosines.new_zeros(())
        return found.soft_clip(self.temperature)

    def _weighted(self, terms: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What the loss is the sum of; what is measured besides is left out."""
        weights = {
            "contrastive": self.contrastive_weight,
            "mse": self.mse_weight,
            "reconstruction": self.reconstruction_weight,
            "cycle": self.cycle_weight,
            "translation": self.translation_weight,
        }
        return {
            name: weights[name.rpartition("_")[2]] * value for name, value in terms.items() if name not in _MEASURED
        }

    def _builds(self, model: "MindBridgeModel") -> bool:
        return model.builders is not None and any(
            (self.reconstruction_weight, self.cycle_weight, self.translation_weight)
        )

    def _pair(self, model: "MindBridgeModel", generator: torch.Generator) -> CyclePair | None:
        """Two different subjects, in one of both orders; None where nothing can pass from one to another."""
        count = len(model.config.subject_names)
        if not (self.cycle_weight or self.translation_weight) or model.builders is None or count < 2:
            return None
        if self.cycle == "newest":
            return CyclePair(None, count - 1)
        source, target = torch.randperm(count, generator=generator)[:2].tolist()
        return CyclePair(source, target)

    def _one_pattern(self, batch: Batch) -> torch.Tensor:
        """(B, V) of (B, V), or of (B, R, V) with repetitions."""
        fmri = batch["fmri"]
        if fmri.ndim == 2:
            return fmri
        return fmri.mean(dim=1) if self.repetition_rule == "mean" else fmri[:, batch["step"] % fmri.shape[1]]

    def _with_noise(self, fmri: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        if not self.voxel_noise:
            return fmri
        noise = drawn_by_row(torch.randn, fmri.shape, generator, dtype=torch.float32)
        return fmri + self.voxel_noise * noise.to(fmri)


class Passed(NamedTuple):
    """What became of rows of one subject in the layers of another.

    Args:
        embeds: (n, hidden_size) what is common.
        made: (n, voxels) responses of the other subject, made of it.
        weights: (n,) 1 for the rows that are meant, 0 for others.
        rows: (B,) bool, which rows of the batch these are; None where they are all.
    """

    embeds: torch.Tensor
    made: torch.Tensor
    weights: torch.Tensor
    rows: torch.Tensor | None


def pass_through(
    model: "MindBridgeModel", fmri_embeds: torch.Tensor, subject_ids: torch.Tensor, pair: CyclePair
) -> Passed:
    """Turns what is common of the source's rows into responses of the target.

    Args:
        model: With builders.
        fmri_embeds: (B, hidden_size).
        subject_ids: (B,) indices.
        pair: The subjects.
    """
    assert model.builders is not None
    chosen = subject_ids != pair.target if pair.source is None else subject_ids == pair.source
    rows = chosen.to(fmri_embeds.device)
    # Ids on an accelerator are not read: all rows pass through, and those that are not meant count nothing.
    if subject_ids.device.type != "cpu" or becomes_a_graph():
        return Passed(fmri_embeds, model.builders[pair.target](fmri_embeds), rows.float(), None)
    embeds = fmri_embeds[rows]
    return Passed(embeds, model.builders[pair.target](embeds), embeds.new_ones(len(embeds), dtype=torch.float32), rows)


def cycle_loss(model: "MindBridgeModel", passed: Passed, pair: CyclePair, gather: Gather = _alone) -> torch.Tensor:
    """Mean squared error between what is common and what is read of the other subject's responses made of it.

    Both sides have gradients. Without rows of the source it is 0.

    Args:
        model: With builders.
        passed: The rows, after the target's builder.
        pair: The subjects.
        gather: Joins numbers of rows over processes, so that each row of all counts alike.
    """
    again = model.embedders[pair.target](passed.made)
    errors = (passed.embeds.float() - again.float()).square().mean(dim=1)
    return _mean_over_all(errors * passed.weights, passed.weights, gather)


def translation_loss(
    model: "MindBridgeModel",
    passed: Passed,
    fmri: torch.Tensor,
    subject_ids: torch.Tensor,
    stimulus: torch.Tensor,
    pair: CyclePair,
    gather: Gather = _alone,
) -> torch.Tensor:
    """Mean squared error between the target's responses that were made of others', and its own to the same stimulus.

    Of several own responses to a stimulus it is their mean. Rows without one count nothing; with none at all it is 0.

    Args:
        model: With builders.
        passed: The rows, after the target's builder.
        fmri: (B, V) voxels of the batch.
        subject_ids: (B,) indices.
        stimulus: (B,) the same number for rows of the same stimulus; -1 without one.
        pair: The subjects.
        gather: As for [`cycle_loss`].
    """
    shown, subject_ids = stimulus.to(fmri.device), subject_ids.to(fmri.device)
    own = (subject_ids == pair.target) & (shown >= 0)
    same = ((shown[:, None] == shown) & own).float()
    same = same if passed.rows is None else same[passed.rows]
    partners = same.sum(dim=1)
    width = model.config.num_voxels[pair.target]
    with torch.autocast(fmri.device.type, enabled=False):
        expected = same @ fmri[:, :width].float() / partners.clamp(min=1)[:, None]
    errors = (passed.made.float() - expected).square().mean(dim=1)
    weights = passed.weights * (partners > 0)
    return _mean_over_all(errors * weights, weights, gather)


def reconstruction_loss(
    model: "MindBridgeModel",
    reconstructed: torch.Tensor,
    fmri: torch.Tensor,
    subject_ids: torch.Tensor,
    gather: Gather = _alone,
) -> torch.Tensor:
    """Mean squared error of what the builders made of each row, over the voxels that its subject has.

    Args:
        model: Of which it is.
        reconstructed: (B, V).
        fmri: (B, V).
        subject_ids: (B,) indices.
        gather: Joins numbers of voxels over processes.
    """
    widths = model.config.num_voxels
    if len(set(widths)) == 1:
        return F.mse_loss(reconstructed.float(), fmri.float())
    of_rows = torch.tensor(widths, device=fmri.device)[subject_ids.to(fmri.device)]
    weights = (torch.arange(fmri.shape[1], device=fmri.device) < of_rows[:, None]).float()
    # What stands in the padding is not looked at, whatever it is.
    errors = torch.where(weights > 0, reconstructed.float() - fmri.float(), 0.0).square()
    return _mean_over_all(errors, weights, gather)


def _mean_over_all(errors: torch.Tensor, weights: torch.Tensor, gather: Gather) -> torch.Tensor:
    """The process' share of the mean over all processes, whose numbers may differ; 0 where there is nothing."""
    count = gather(weights.detach().sum()[None]).mean()
    return errors.sum() / count.clamp(min=1e-6)


# What `forward` computes.
DEFAULT_OBJECTIVE = MindBridgeObjective()
