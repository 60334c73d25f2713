"""Attention by ROI: where the tokens of a brain model read, beside what attention that is even would read there."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .. import progress
from ..errors import FmriModelsError
from ..modeling_fmri import FmriPreTrainedModel
from .evaluated_subject import EvaluatedSubject

MOST_ITEMS = 64
MOST_ROIS = 32
NO_ROI = "no ROI"
OTHER_ROIS = "other ROIs"
# Weights of all heads and layers that are held at once.
_BATCH_BYTES = 2**27
_DECIMALS = 6


@dataclass(frozen=True, eq=False)
class RoiAttention:
    """Attention from ROI to ROI, the mean over heads and items.

    Args:
        rois: R names.
        voxels: (R,) how many voxels of each are read, counted once however often a pattern repeats them.
        joint: (layers, R, R) float64, share of a layer's attention that goes from the columns of one ROI to those of
            another; a layer sums to 1.
        items: How many items it is the mean of.
    """

    rois: list[str]
    voxels: np.ndarray
    joint: np.ndarray
    items: int

    @property
    def chance(self) -> np.ndarray:
        """(R,) share of a pattern's columns, which is what even attention would give to each ROI."""
        return self.joint[0].sum(axis=1)

    @property
    def matrices(self) -> np.ndarray:
        """(layers, R, R) share of the attention of the row's ROI that goes to the column's; rows sum to 1."""
        return self.joint / self.joint.sum(axis=2, keepdims=True)

    @property
    def received(self) -> np.ndarray:
        """(layers, R) share of all attention that goes to each ROI; rows sum to 1."""
        return self.joint.sum(axis=1)

    @classmethod
    def merged(cls, folds: Sequence["RoiAttention"]) -> "RoiAttention":
        """That of several folds' models, each as often as it has items; an ROI that a fold lacks is 0 there.

        Raises:
            FmriModelsError: They have different numbers of layers.
        """
        layers = sorted({len(each.joint) for each in folds})
        if len(layers) > 1:
            raise FmriModelsError(
                f"The models of the folds have {layers[0]} to {layers[-1]} layers with attention, which have no mean; "
                "evaluate each fold by itself."
            )
        items = sum(each.items for each in folds)
        rois = list(dict.fromkeys(name for each in folds for name in each.rois))
        voxels, joint = np.zeros(len(rois)), np.zeros((layers[0], len(rois), len(rois)))
        for each in folds:
            places, weight = [rois.index(name) for name in each.rois], each.items / items
            voxels[places] += weight * each.voxels
            joint[np.ix_(range(layers[0]), places, places)] += weight * each.joint
        return cls(rois, voxels, joint, items)

    def to_dict(self) -> dict[str, Any]:
        """As report.json has it."""
        ratios = self.received / self.chance
        return {
            "rois": self.rois,
            "voxels": self.voxels.round(_DECIMALS).tolist(),
            "chance": self.chance.round(_DECIMALS).tolist(),
            "items": self.items,
            "layers": [
                {
                    "matrix": matrix.round(_DECIMALS).tolist(),
                    "received": received.round(_DECIMALS).tolist(),
                    "ratio": ratio.round(_DECIMALS).tolist(),
                }
                for matrix, received, ratio in zip(self.matrices, self.received, ratios, strict=True)
            ],
        }


@torch.no_grad()
def mean_attentions(
    model: FmriPreTrainedModel, fmri: torch.Tensor, subject_ids: torch.Tensor, batch_size: int | None = None
) -> np.ndarray:
    """Attention weights of each layer, the mean over heads and examples.

    Args:
        model: Its forward returns `attentions`, each (B, heads, N, N).
        fmri: (B, V) processed voxels.
        subject_ids: (B,) indices.
        batch_size: Examples at once; None for as many as fit in some memory, which the first one tells.

    Returns:
        (layers, N, N) float64, whose rows sum to 1.

    Raises:
        FmriModelsError: There are no such weights, or some are not finite.
    """
    total, start, size = np.zeros(()), 0, batch_size or 1
    while start < len(fmri):
        chosen = slice(start, start + size)
        attentions = model(fmri[chosen], subject_ids[chosen], output_attentions=True).attentions
        layers = _checked_attentions(model, attentions)
        total = total + np.stack([each.sum(dim=(0, 1), dtype=torch.float64).cpu().numpy() for each in layers])
        start += size
        if batch_size is None:
            one = sum(each[:1].numel() * each.element_size() for each in layers)
            size = max(1, _BATCH_BYTES // one)
    sums = total.sum(axis=-1, keepdims=True)
    if not (np.isfinite(total).all() and (sums > 0).all()):
        raise FmriModelsError(
            f"{type(model).__name__} returns attention weights that are not finite, or sum to 0; look for NaN in its "
            "weights."
        )
    # Those of half precision sum to 1 only roughly.
    return total / sums


def _checked_attentions(
    model: FmriPreTrainedModel, attentions: tuple[torch.Tensor, ...] | None
) -> tuple[torch.Tensor, ...]:
    shapes = [tuple(each.shape) for each in attentions or ()]
    if not shapes or any(len(each) != 4 or each[1:] != (each[1], *shapes[0][2:]) for each in shapes):
        found = f"of the shapes {shapes[:3]}" if shapes else "none"
        raise FmriModelsError(
            f"{type(model).__name__} has attended_columns and returns attentions {found}; expected one (batch, heads, "
            "tokens, tokens) a layer from forward(…, output_attentions=True)."
        )
    assert attentions is not None
    if shapes[0][2] != shapes[0][3]:
        raise FmriModelsError(
            f"{type(model).__name__} returns attentions of {shapes[0][2]} tokens to {shapes[0][3]} others; expected "
            "those of a pattern's tokens to each other, or attended_columns of None."
        )
    return attentions


def attention_to_voxels(weights: np.ndarray, column_voxels: np.ndarray, num_voxels: int) -> np.ndarray:
    """Which voxels each token attends to; what one token has of attention is shared evenly by its columns.

    Args:
        weights: (…, N, N) attention weights, such as [`mean_attentions`] gives.
        column_voxels: (V,) recorded voxel of each column, from [`FmriProcessor.column_voxels`]; V is a multiple of N.
        num_voxels: Recorded voxels.

    Returns:
        (…, N, num_voxels) float64; a voxel that a pattern repeats has the sum of what its columns have.
    """
    tokens = weights.shape[-1]
    shares = np.zeros((tokens, num_voxels))
    columns_a_token = len(column_voxels) // tokens
    np.add.at(shares, (np.arange(len(column_voxels)) // columns_a_token, column_voxels), 1 / columns_a_token)
    return weights @ shares


@dataclass(frozen=True, eq=False)
class RoiShares:
    """Which ROIs the columns of each token are of.

    Args:
        rois: R names.
        voxels: (R,) how many voxels of each are read.
        shares: (N, R) float64, share of a token's columns that are of each ROI.
    """

    rois: list[str]
    voxels: np.ndarray
    shares: np.ndarray

    @classmethod
    def of(cls, column_voxels: np.ndarray, column_rois: Sequence[str], columns_a_token: int) -> "RoiShares":
        """Those of a pattern's columns; of more than `MOST_ROIS`, those with the fewest voxels are one.

        Args:
            column_voxels: (V,) recorded voxel of each column, from [`FmriProcessor.column_voxels`].
            column_rois: (V,) ROI of each column's voxel, empty where it is in none. A column that repeats a voxel is of
                that voxel's ROI.
            columns_a_token: Columns of a token.

        Raises:
            FmriModelsError: No column has an ROI, or tokens do not share the columns without rest.
        """
        if not any(column_rois):
            raise FmriModelsError(
                "The table says of no voxel that the model reads in which ROI it is; prepare it with the column roi of "
                "VOXELS.csv."
            )
        if len(column_rois) % columns_a_token:
            raise FmriModelsError(
                f"A pattern has {len(column_rois)} columns, no multiple of the {columns_a_token} of a token; train "
                f"with a processor with padding: wrap and patch_size: {columns_a_token}."
            )
        voxels_of: dict[str, set[int]] = {}
        for voxel, roi in zip(column_voxels.tolist(), column_rois, strict=True):
            voxels_of.setdefault(roi or NO_ROI, set()).add(voxel)
        kept = _kept_rois({roi: len(voxels) for roi, voxels in voxels_of.items()})
        rois = list(dict.fromkeys(kept.values()))
        places = np.array([rois.index(kept[roi or NO_ROI]) for roi in column_rois])
        shares = np.zeros((len(places) // columns_a_token, len(rois)))
        np.add.at(shares, (np.arange(len(places)) // columns_a_token, places), 1 / columns_a_token)
        voxels = [sum(len(voxels_of[each]) for each in kept if kept[each] == roi) for roi in rois]
        return cls(rois, np.array(voxels), shares)

    def attention(self, weights: np.ndarray, items: int = 1) -> RoiAttention:
        """Attention from ROI to ROI; a token of several ROIs counts for each by its share of columns.

        Args:
            weights: (layers, N, N) attention weights, whose rows sum to 1.
            items: How many items they are the mean of.

        Raises:
            FmriModelsError: They are of another number of tokens.
        """
        if weights.shape[-1] != len(self.shares):
            raise FmriModelsError(
                f"The model attends to {weights.shape[-1]} tokens, and a pattern has {len(self.shares)}; expected as "
                "many (attended_columns of the model)."
            )
        return RoiAttention(self.rois, self.voxels, self.shares.T @ weights @ self.shares / len(self.shares), items)


def _kept_rois(voxels: dict[str, int]) -> dict[str, str]:
    """ROI ▶ under which name it is counted, in their order; what is no ROI, and the smallest of many, come last."""
    names = sorted(voxels, key=lambda roi: roi == NO_ROI)
    if len(names) <= MOST_ROIS:
        return {roi: roi for roi in names}
    largest = set(sorted((roi for roi in names if roi != NO_ROI), key=lambda roi: -voxels[roi])[: MOST_ROIS - 2])
    known = {roi: roi for roi in names if roi in largest}
    return known | {roi: roi if roi == NO_ROI else OTHER_ROIS for roi in names if roi not in largest}


def attention_of(of: EvaluatedSubject) -> RoiAttention | str | None:
    """Attention by ROI of the evaluated model on at most `MOST_ITEMS` of a subject's items, evenly spaced.

    Args:
        of: The evaluated subject.

    Returns:
        [`RoiAttention`]; a sentence that says why it is not defined; None for a model without such attention.
    """
    model, processor = of.pipeline.brain_model, of.pipeline.processor
    if model.attended_columns is None:
        return None
    try:
        voxels, statistics = processor.column_voxels(of.subject), processor.subject(of.subject)
        labels = of.table.voxels(of.subject).roi
        rois = [labels[statistics.recorded_voxel(voxel, len(labels))] for voxel in voxels.tolist()]
        shares = RoiShares.of(voxels, rois, model.attended_columns)
        chosen = np.unique(np.linspace(0, len(of) - 1, min(len(of), MOST_ITEMS)).round().astype(np.int64))
        with progress.phase(f"Reading what {of.subject} attends to"):
            weights = mean_attentions(model, *of.model_inputs(model, of.features[torch.from_numpy(chosen)]))
        return shares.attention(weights, len(chosen))
    except FmriModelsError as error:
        return str(error)


def attention_content(found: Iterable[tuple[str, RoiAttention | str | None]]) -> dict[str, dict[str, Any]]:
    """What report.json says of attention.

    Args:
        found: Subject and what [`attention_of`] has found, of each fold.

    Returns:
        Subject ▶ its attention, the mean over folds, or `{"not_defined": sentence}`; no subject whose model has none.
    """
    folds: dict[str, list[RoiAttention | str]] = {}
    for subject, attention in found:
        if attention is not None:
            folds.setdefault(subject, []).append(attention)
    return {subject: _content_of(each) for subject, each in folds.items()}


def _content_of(folds: Sequence[RoiAttention | str]) -> dict[str, Any]:
    known = [each for each in folds if not isinstance(each, str)]
    try:
        if reason := next((each for each in folds if isinstance(each, str)), None):
            raise FmriModelsError(reason)
        return RoiAttention.merged(known).to_dict()
    except FmriModelsError as error:
        return {"not_defined": str(error)}


def attention_notes(content: dict[str, dict[str, Any]]) -> list[str]:
    """A sentence for each subject whose attention by ROI is not defined."""
    return [
        f"Attention by ROI is not defined for {subject}: {each['not_defined']}"
        for subject, each in content.items()
        if "not_defined" in each
    ]
