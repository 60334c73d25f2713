"""The linear method: one linear map a subject and target."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import initialization
from transformers.utils import can_return_tuple

from ...conditions import CONDITION_SPACES
from ...deprecation import renamed_argument
from ...encoders.disk_backed import is_on_disk, save_sharded
from ...encoders.selected_linear import SelectedLinear
from ...encoders.subject_layers import SubjectLayers
from ...errors import FmriModelsError
from ...modeling_fmri import FmriPreTrainedModel, SubjectIds
from ...modeling_outputs import FmriDecoding, FmriModelOutput
from ...names import listed, one_line
from .configuration_linear import LinearConfig


@dataclass
class LinearOutput(FmriModelOutput):
    """Output of [`LinearModel`]; see [`FmriModelOutput`]."""


class BlockedLinear(nn.Module):
    """A linear layer whose outputs are split over several weight tensors.

    Args:
        in_features: Number of voxels.
        out_features: Number of targets.
        block_size: Targets in one tensor.
        num_selected: Voxels that each target reads, see [`SelectedLinear`]; None reads all.
        standardises_patterns: As of [`SelectedLinear`].
        keeps_statistics: Whether it keeps mean and spread of the training targets, see [`keep_statistics`].
    """

    target_mean: torch.Tensor
    target_std: torch.Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        block_size: int,
        num_selected: int | None = None,
        standardises_patterns: bool = False,
        keeps_statistics: bool = False,
    ) -> None:
        super().__init__()
        starts = range(0, out_features, block_size)
        self.columns = [slice(start, min(start + block_size, out_features)) for start in starts]
        sizes = [columns.stop - columns.start for columns in self.columns]
        if num_selected is None:
            self.blocks = nn.ModuleList(nn.Linear(in_features, size) for size in sizes)
        else:
            self.blocks = nn.ModuleList(
                SelectedLinear(in_features, size, num_selected, standardises_patterns) for size in sizes
            )
        if keeps_statistics:
            self.keep_statistics(torch.zeros(out_features), torch.ones(out_features))

    def keep_statistics(self, mean: torch.Tensor, std: torch.Tensor) -> None:
        """Keeps (T,) mean and (T,) standard deviation of the training targets, which predictions get afterwards."""
        self.register_buffer("target_mean", mean)
        self.register_buffer("target_std", std)

    def forward(self, fmri: torch.Tensor) -> torch.Tensor:
        """(B, in_features) ▶ (B, out_features)."""
        return torch.cat([block(fmri.to(next(block.parameters()).dtype)) for block in self.blocks], dim=-1)


class LinearModel(FmriPreTrainedModel):
    """Ridge regression from voxels to image embeddings, text embeddings, latents and guides, those that the
    configuration has.

    The weights are found in closed form by [`LinearObjective`], but the model is differentiable like any other.

    Example:
        >>> import torch
        >>> output = model(torch.randn(2, 3092), subject_ids=["subj01", "subj01"])
        >>> output.latents.shape
        torch.Size([2, 1, 28, 28])
    """

    config: LinearConfig
    config_class = LinearConfig
    _no_split_modules = ["BlockedLinear"]

    def __init__(self, config: LinearConfig) -> None:
        super().__init__(config)
        self.spaces = config.targets
        self.guide_names = list(config.guides)
        self.heads = nn.ModuleDict(
            {
                _module_name(target): SubjectLayers(
                    config.voxels_by_subject,
                    partial(
                        BlockedLinear,
                        out_features=space.size,
                        block_size=config.targets_a_block,
                        num_selected=config.num_selected(target),
                        standardises_patterns=config.standardises_patterns,
                        keeps_statistics=config.restandardises(target) == "test",
                    ),
                )
                for target, space in self.spaces.items()
            }
        )
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        # Zero weights are ridge regression's answer without data, and quick at any size.
        if isinstance(module, nn.Linear | SelectedLinear):
            initialization.zeros_(module.weight)
            initialization.zeros_(module.bias)
        if isinstance(module, SelectedLinear):
            initialization.copy_(module.indices, module.first_voxels())
        if isinstance(module, BlockedLinear) and hasattr(module, "target_mean"):
            initialization.zeros_(module.target_mean)
            initialization.ones_(module.target_std)

    @renamed_argument("part", "target", since="0.1")
    def head(self, target: str, subject: str) -> BlockedLinear:
        """The map of one subject to one target: `"image_embeds"`, `"text_embeds"`, `"latents"`, or a guide's name."""
        return cast(BlockedLinear, self._heads(target)[self.config.subject_index(subject)])

    @can_return_tuple
    def forward(
        self,
        fmri: torch.Tensor,
        subject_ids: SubjectIds = None,
        image_embeds: torch.Tensor | None = None,
        text_embeds: torch.Tensor | None = None,
        latents: torch.Tensor | None = None,
        guides: Mapping[str, torch.Tensor] | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_loss: bool = True,
    ) -> LinearOutput:
        """Maps processed voxels.

        Args:
            fmri: (B, V) processed voxels, zero-padded to the widest subject.
            subject_ids: (B,) indices or names; may be left out with one subject.
            image_embeds: (B, …) targets, for the loss.
            text_embeds: (B, …) targets, for the loss.
            latents: (B, …) targets, for the loss.
            guides: Guide ▶ (B, …) targets, for the loss.
            output_hidden_states: Changes nothing: between voxels and targets is nothing.
            output_attentions: Changes nothing but for a warning: there is no attention.
            return_loss: Whether the loss is computed where there are targets.

        Returns:
            [`LinearOutput`]; `losses` holds the mean squared error of each target that is given, `loss` their sum.
            With `return_dict=False`, here or in the configuration, a tuple of what is not None.
        """
        self.check_fmri(fmri)
        self.warn_of_no_attentions(output_attentions)
        indices = self.subject_indices(subject_ids, fmri.shape[0])
        decoded = {target: self._apply_heads(target, fmri, indices) for target in self.spaces}
        given = {"image_embeds": image_embeds, "text_embeds": text_embeds, "latents": latents, **(guides or {})}
        losses = {
            target: nn.functional.mse_loss(decoded[target], values.to(decoded[target].dtype))
            for target, values in given.items()
            if return_loss and values is not None and target in decoded
        }
        return LinearOutput(
            loss=torch.stack(list(losses.values())).sum() if losses else None,
            losses=losses or None,
            image_embeds=decoded.get("image_embeds"),
            text_embeds=decoded.get("text_embeds"),
            retrieval_embeds=decoded.get("image_embeds"),
            latents=decoded.get("latents"),
            guides=self._guides_in(decoded),
        )

    @property
    def samples(self) -> bool:
        return False

    @property
    def is_transductive(self) -> bool:
        return any(self.config.restandardises(target) == "test" for target in self.spaces)

    @torch.no_grad()
    def restandardised(self, decoding: FmriDecoding, subject_ids: SubjectIds = None) -> FmriDecoding:
        decoded = decoding.tensors
        num_patterns = len(next(iter(decoded.values())))
        indices = self.subject_indices(subject_ids, num_patterns)
        changed: dict[str, Any] = {}
        for target in self.spaces:
            if self.config.restandardises(target) != "test" or target not in decoded:
                continue
            values = decoded[target].clone()
            for index in torch.unique(indices).tolist():
                own = indices == index
                values[own] = self._with_training_spread(values[own], target, index)
            changed[target] = values
        if guides := {name: values for name, values in changed.items() if name in self.config.guides}:
            changed = {name: values for name, values in changed.items() if name not in guides}
            changed["guides"] = {**(decoding.guides or {}), **guides}
        if "image_embeds" in changed:
            changed["retrieval_embeds"] = changed["image_embeds"]
        return FmriDecoding(**{**decoding, **changed})

    def _with_training_spread(self, values: torch.Tensor, target: str, index: int) -> torch.Tensor:
        """Predictions of a whole test set with mean and spread of the training targets, unit by unit."""
        name = self.config.subject_names[index]
        if len(values) < 2:
            raise FmriModelsError(
                f"The predictions of {target} are standardised with statistics of the whole test set, and there is one "
                f"pattern of {name}, which has no spread; decode several, or train with restandardise: train or none."
            )
        head = cast(BlockedLinear, self._heads(target)[index])
        flat = values.flatten(1)
        mean, std = flat.mean(dim=0), flat.std(dim=0, correction=0)
        # A unit that is predicted alike for all has nothing to scale.
        scaled = (flat - mean) / torch.where(std > 0, std, 1) * head.target_std.to(flat) + head.target_mean.to(flat)
        return scaled.reshape(values.shape)

    @torch.no_grad()
    def decode(
        self,
        fmri: torch.Tensor,
        subject_ids: SubjectIds = None,
        num_candidates: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        guides: Sequence[str] | None = None,
    ) -> FmriDecoding:
        """Decodes processed voxels; the method is deterministic, so candidates differ by the image generator alone.

        Args:
            fmri: (B, V) processed voxels.
            subject_ids: As of [`forward`].
            num_candidates: Changes nothing.
            generator: Changes nothing.
            guides: Guides that are decoded; None for all.
        """
        decoded = self._decoded(fmri, subject_ids, [*self._conditions, *self._chosen_guides(guides)])
        return FmriDecoding(
            image_embeds=decoded.get("image_embeds"),
            text_embeds=decoded.get("text_embeds"),
            latents=decoded.get("latents"),
            retrieval_embeds=decoded.get("image_embeds"),
            guides=self._guides_in(decoded),
        )

    @torch.no_grad()
    def decode_guides(
        self, fmri: torch.Tensor, subject_ids: SubjectIds = None, guides: Sequence[str] | None = None
    ) -> dict[str, torch.Tensor]:
        """Guide ▶ (B, …) decoded layers alone: one at a time where all of them are more than memory holds."""
        return self._decoded(fmri, subject_ids, self._chosen_guides(guides))

    @property
    def _conditions(self) -> list[str]:
        """What is decoded beside guides."""
        return [target for target in self.spaces if target in CONDITION_SPACES]

    def _chosen_guides(self, guides: Sequence[str] | None) -> list[str]:
        known = self.guide_names
        for name in guides or ():
            if name not in known:
                raise FmriModelsError(
                    f"The model decodes no guide {one_line(repr(name), 80)}; it decodes {listed(known, 20) or 'none'}."
                )
        return list(known if guides is None else guides)

    def _decoded(self, fmri: torch.Tensor, subject_ids: SubjectIds, targets: Sequence[str]) -> dict[str, torch.Tensor]:
        self.check_fmri(fmri)
        indices = self.subject_indices(subject_ids, fmri.shape[0])
        return {target: self._apply_heads(target, fmri, indices) for target in targets}

    def _guides_in(self, decoded: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor] | None:
        return {name: values for name, values in decoded.items() if name in self.guide_names} or None

    def _write_pretrained(self, folder: Path, max_shard_size: int | str = "2GB", **kwargs: Any) -> None:
        """Weights that live on disk pass through memory one shard at a time."""
        if not is_on_disk(self):
            super()._write_pretrained(folder, max_shard_size=max_shard_size, **kwargs)
            return
        if kwargs.get("variant") is not None:
            raise FmriModelsError("Weights that live on disk are saved without a variant; leave variant out.")
        self.config.architectures = [type(self).__name__]
        self.config.save_pretrained(folder)
        save_sharded(self, folder, max_shard_size)

    def _apply_heads(self, target: str, fmri: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        decoded = self._heads(target)(fmri, indices)
        return decoded.reshape(fmri.shape[0], *self.spaces[target].shape)

    def _heads(self, target: str) -> SubjectLayers:
        return cast(SubjectLayers, self.heads[_module_name(target)])


def _module_name(target: str) -> str:
    """Of the maps to a target; a module's name has no dot."""
    return target.replace(".", "-")
