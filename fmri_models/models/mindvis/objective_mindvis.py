"""Trains MinD-Vis: masked brain modelling, then conditions together with the image generator (Chen et al., 2023)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import nn
from torch.nn import functional as F

from ...alignment.losses import soft_clip_loss
from ...batch import Batch
from ...conditions import Conditions
from ...draws import drawn_by_row
from ...errors import FmriModelsError
from ...objectives import Gather, GradientObjective, ParameterGroup, groups_by_decay
from ...option_types import NumberFromZero, PositiveNumber, Share
from .pretraining_mindvis import MindVisPreTrainingOutput, masked_modelling, masking_noise

if TYPE_CHECKING:
    from .modeling_mindvis import MindVisModel

Module = Literal["masked", "alignment", "conditioner"]
_POSITIONS = "position_embeddings"
_NORM = ".norm2."
# What a generator may make conditions of; a recipe's `targets` say which of them are there.
_OF_PICTURES = ["image_embeds", "text_embeds"]


@dataclass
class MindVisObjective(GradientObjective["MindVisModel"]):
    """What a stage of MinD-Vis learns from.

    Args:
        module: `"masked"` hides patches and predicts their voxels, of the trials and of all `unpaired` sources;
            `"conditioner"` minimises the loss of the image generator, which is told what the model makes of the fMRI;
            `"alignment"` the squared error against what the generator makes of the picture's own embeddings, and of its
            caption's where the recipe has them among its targets. The last one is not in the paper: it takes a small
            part of the time of a diffusion loss, and the conditioner then begins with what the generator can read
            already.
        mask_ratio: Share of the patches that are hidden; None is the model's.
        sparsification: Share of the voxels that are set to zero in what the encoder sees in training. The paper has
            .2; its code sets none to zero, for it draws along an axis of one.
        contrastive: Weight of a contrastive loss in alignment, of each condition against those of the batch's other
            pictures. Squared errors are those of what differs most among pictures; what tells one from another by
            little, such as where something is, a contrastive loss asks for as well.
        temperature: Divides the cosine similarities of the contrastive loss.
        condition_dropout: Probability of an example to be drawn from no condition, without which there is nothing that
            guidance could lead away from. The paper has none.
        repeats_norms: Whether the encoder's norms before the linear layers are in the optimiser twice when the
            conditioner is trained, and so take each step twice, as in the published code, which finds them by a name
            that was meant for the diffusion model's.
    """

    module: Module = "conditioner"
    mask_ratio: Share | None = None
    sparsification: Share = 0.2
    contrastive: NumberFromZero = 0.0
    temperature: PositiveNumber = 0.03
    condition_dropout: Share = 0.0
    repeats_norms: bool = False

    @property
    def targets(self) -> Sequence[str]:
        return {"masked": [], "alignment": _OF_PICTURES, "conditioner": ["latents"]}[self.module]

    @property
    def drops_conditions(self) -> bool:
        return self.module == "conditioner" and self.condition_dropout > 0

    def trainable(self, model: "MindVisModel") -> list[nn.Parameter]:
        if self.module == "masked":
            parts: list[nn.Module] = [model.encoder, model.needed_decoder]
            named = (each for part in parts for each in part.named_parameters())
            return [parameter for name, parameter in named if name != _POSITIONS]
        # As published, with the codes of places; the class token is in no sequence here.
        encoder = [parameter for name, parameter in model.encoder.named_parameters() if name != "cls_token"]
        return [*encoder, *cast(nn.Module, model.conditioner).parameters()]

    def parameter_groups(self, model: "MindVisModel", weight_decay: float) -> Sequence[ParameterGroup]:
        """As published: masked modelling decays all of more than one axis, the tokens too; fine-tuning everything."""

        def decays(name: str, parameter: nn.Parameter) -> bool:
            return self.module != "masked" or (parameter.ndim > 1 and not name.endswith(".bias"))

        decayed, others = groups_by_decay(model.named_parameters(), weight_decay, decays)
        if self.repeats_norms and self.module == "conditioner":
            again = [parameter for name, parameter in model.encoder.named_parameters() if _NORM in name]
            decayed["params"] = [*decayed["params"], *again]
        return [decayed, others]

    def losses(
        self, model: "MindVisModel", batch: Batch, progress: float, gather: Gather, generator: torch.Generator
    ) -> dict[str, torch.Tensor]:
        fmri = self._all_fmri(batch)
        seen = self._sparsified(fmri, generator)
        if self.module == "masked":
            return {"loss": _loss(self._masked(model, fmri, generator, seen))}
        if self.module == "alignment":
            return {"loss": self._alignment(model, seen, batch)}
        told = self._dropped(model.conditions(seen), generator)
        return {"loss": self.image_generator.training_loss(batch["latents"], told, generator=generator)}

    def validation_metrics(
        self, model: "MindVisModel", batch: Batch, generator: torch.Generator
    ) -> dict[str, torch.Tensor]:
        """The loss without sparsification or dropout; of masked modelling also `correlation`, that of hidden voxels."""
        fmri = batch["fmri"]
        if self.module == "alignment":
            return {"loss": self._alignment(model, fmri, batch)}
        if self.module == "conditioner":
            told = model.conditions(fmri)
            return {"loss": self.image_generator.training_loss(batch["latents"], told, generator=generator)}
        output = self._masked(model, fmri, generator)
        return {"loss": _loss(output), "correlation": hidden_correlation(output, fmri)}

    def _all_fmri(self, batch: Batch) -> torch.Tensor:
        """The voxels of the examples, and in masked modelling those of all further sources behind them."""
        others = [each["fmri"] for each in batch.get("unpaired", [])] if self.module == "masked" else []
        return torch.cat([batch["fmri"], *others])

    def _masked(
        self,
        model: "MindVisModel",
        fmri: torch.Tensor,
        generator: torch.Generator,
        seen: torch.Tensor | None = None,
    ) -> MindVisPreTrainingOutput:
        noise = masking_noise(model.config, len(fmri), fmri.device, generator)
        return masked_modelling(model.encoder, model.needed_decoder, fmri, noise, self.mask_ratio, seen)

    def _alignment(self, model: "MindVisModel", fmri: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Mean squared error of each condition, and its contrastive loss, summed."""
        wanted = None
        told: dict[str, Any] = {name: batch[name] for name in _OF_PICTURES if name in batch}  # type: ignore[literal-required]
        if told:
            with torch.no_grad():
                wanted = self.image_generator.learned_from(Conditions(**told))
        if wanted is None:
            raise FmriModelsError(
                f"{type(self.image_generator).__name__} has no embeddings of pictures in the place of conditions that "
                "it learns to read, so nothing can be aligned with them; leave the stage out."
            )
        found = model.conditions(fmri).given
        pairs = [(values.float(), wanted.given[name].to(values.device)) for name, values in found.items()]
        losses = [F.mse_loss(values, target) for values, target in pairs]
        if self.contrastive and len(fmri) > 1:
            losses += [self.contrastive * _against_others(*pair, self.temperature) for pair in pairs]
        return torch.stack(losses).sum()

    def _sparsified(self, fmri: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        if not self.sparsification:
            return fmri
        kept = drawn_by_row(torch.rand, fmri.shape, generator) >= self.sparsification
        return fmri * kept.to(fmri)

    def _dropped(self, told: Conditions, generator: torch.Generator) -> Conditions:
        """Conditions that are zero, and so absent, for some of the examples."""
        if not self.condition_dropout:
            return told
        kept = drawn_by_row(torch.rand, (len(told),), generator) >= self.condition_dropout
        given: dict[str, Any] = told.given
        return Conditions(
            **{name: values * kept.to(values).view(-1, *[1] * (values.ndim - 1)) for name, values in given.items()}
        )


def _loss(output: MindVisPreTrainingOutput) -> torch.Tensor:
    return cast(torch.Tensor, output.loss)


def _against_others(found: torch.Tensor, wanted: torch.Tensor, temperature: float) -> torch.Tensor:
    """Contrastive loss of conditions, each as it differs from the mean of the batch's pictures."""
    mean = wanted.mean(dim=0, keepdim=True)
    predicted, target = (F.normalize((each - mean).flatten(1), dim=1) for each in (found, wanted))
    return soft_clip_loss(predicted, target, temperature)


def hidden_correlation(output: MindVisPreTrainingOutput, fmri: torch.Tensor) -> torch.Tensor:
    """Mean over patterns of the Pearson correlation between hidden voxels and what was predicted of them."""
    assert output.prediction is not None and output.mask is not None
    predicted = output.prediction.float().flatten(1)
    hidden = output.mask.repeat_interleave(output.prediction.shape[2], dim=1)
    count = hidden.sum(dim=1, keepdim=True).clamp(min=1)
    one, other = ((each - (each * hidden).sum(1, keepdim=True) / count) * hidden for each in (predicted, fmri.float()))
    return ((one * other).sum(1) / (one.norm(dim=1) * other.norm(dim=1)).clamp(min=1e-12)).mean()
