"""A few dimensions of the voxels: those that decode most (reduced-rank regression), or those that vary most."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from ..closed_form_trials import ClosedFormTrials, Patterns
from ..errors import FmriModelsError
from .ridge import RidgeSolver, spaced_columns

# Of larger groups of targets, so many evenly spaced ones say which directions are decoded.
MOST_COLUMNS = 2048
# Directions of less than this share of the first one's length are rounding errors.
_SMALLEST_LENGTH = 1e-5


@dataclass(frozen=True, eq=False)
class ReducedMap:
    """A linear map of voxels to k dimensions, the one that matters most first.

    Args:
        weights: (k, V).
        bias: (k,).
        training: (n, k) what it gives for the examples that it was fitted on, each by a map that did not see the
            example, nor others of its group. A decoder that learned from what the map itself gives for them would take
            for signal what the map has learned by heart.
    """

    weights: torch.Tensor
    bias: torch.Tensor
    training: torch.Tensor

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return len(self.weights)

    def __call__(self, fmri: Patterns) -> torch.Tensor:
        """(N, k) of patterns (N, V)."""
        values = torch.from_numpy(np.asarray(fmri[np.arange(len(fmri))])).to(self.weights.dtype)
        return values @ self.weights.T + self.bias

    def first(self, k: int) -> "ReducedMap":
        """The map to the first k dimensions alone."""
        return ReducedMap(self.weights[:k], self.bias[:k], self.training[:, :k])


def reduced_rank_map(
    solver: RidgeSolver, trials: ClosedFormTrials, penalties: Mapping[str, float], most: int = 1000
) -> ReducedMap:
    """The map to the dimensions from which ridge regression predicts most of the targets (reduced-rank regression).

    The directions are the principal ones of the predictions of all groups of targets together, each group scaled to
    one variance in all, and each example predicted without its own group of examples (Izenman, 1975, for least
    squares; Mukherjee & Zhu, 2011, with a ridge penalty: theirs are the directions of predictions of the very examples
    that were learned from, among which what was learned by heart comes first where voxels are more than examples). A
    dimension then is the ridge prediction of the targets' projection on a direction.

    Args:
        solver: Fitted on `trials.fmri`.
        trials: Training trials.
        penalties: Group of targets ▶ penalty, those that are used of `trials.targets`.
        most: Largest number of dimensions.

    Raises:
        FmriModelsError: No group of targets varies, or none is predicted at all.
    """
    predicted, true = [], []
    for target, alpha in penalties.items():
        columns = spaced_columns(trials.targets[target].num_targets, MOST_COLUMNS)
        values = torch.from_numpy(np.asarray(trials.targets[target].columns(columns), dtype=np.float32))
        values = values.to(solver.dtype)
        centred = values - values.mean(dim=0)
        length = float((centred**2).sum()) ** 0.5
        if length > 0:
            scaled = centred / length
            true.append((scaled, alpha))
            predicted.append(_predicted_by_others(solver, scaled, trials.left_out_together, alpha))
    if not predicted:
        raise FmriModelsError("The targets of the training trials are all alike, so that there is nothing to decode.")
    outcome = torch.cat(predicted, dim=1)
    directions = _principal(outcome - outcome.mean(dim=0), most, min(solver.num_examples - 1, solver.num_voxels))
    weights = torch.zeros(directions.shape[1], solver.num_voxels, dtype=solver.dtype)
    bias, start = torch.zeros(directions.shape[1], dtype=solver.dtype), 0
    for values, alpha in true:
        of_group, of_bias = solver.weights(values @ directions[start : start + values.shape[1]], alpha)
        weights, bias, start = weights + of_group, bias + of_bias, start + values.shape[1]
    return _scaled(ReducedMap(weights, bias, outcome @ directions), solver.pattern_length)


def principal_map(solver: RidgeSolver, most: int = 1000) -> ReducedMap:
    """The map to the dimensions along which the voxels themselves vary most (principal components).

    They were chosen without the targets, so that what the map gives for training examples is what it gives for others.

    Args:
        solver: Has the voxels.
        most: Largest number of dimensions.
    """
    lengths, vectors = torch.linalg.eigh(solver.gram)
    lengths, vectors = lengths.flip(0), vectors.flip(1)
    largest = float(lengths[0])
    rank = int((lengths > largest * _SMALLEST_LENGTH**2).sum()) if largest > 0 else 0
    rank = min(rank, most, solver.num_examples - 1)
    if not rank:
        raise FmriModelsError("The voxels of the training trials do not vary, so that they have no dimensions.")
    lengths, vectors = lengths[:rank], vectors[:, :rank]
    if solver.dual:
        # Those of the voxels are Xᵀu/√λ, of which ridge with penalty α has Xᵀu/(λ + α).
        alpha = float(lengths[-1])
        weights = solver.weights(vectors, alpha)[0] * ((lengths + alpha) / lengths.sqrt())[:, None]
    else:
        weights = vectors.T.contiguous()
    bias = -weights @ solver.mean
    training = solver.predict(solver.fmri, weights, bias)
    return ReducedMap(weights, bias, training)


def _predicted_by_others(solver: RidgeSolver, centred: torch.Tensor, groups: np.ndarray, alpha: float) -> torch.Tensor:
    """(n, T) what the other groups of examples predict of each, less the mean of these others' targets.

    That mean has to go: it is the lower the higher an example's own target is, so that it would give this away.
    """
    factor = solver.factor(alpha)
    if factor is None:
        raise FmriModelsError(f"The penalty {alpha:g} is too small for these voxels; choose a larger one.")
    predicted = centred - solver.left_out_residuals(centred, groups, alpha, factor)
    _, own, counts = np.unique(groups, return_inverse=True, return_counts=True)
    index = torch.from_numpy(own.reshape(-1))
    sums = torch.zeros(len(counts), centred.shape[1], dtype=centred.dtype).index_add_(0, index, centred)
    others = (len(centred) - torch.from_numpy(counts)).clamp(min=1).to(centred.dtype)
    return predicted + (sums / others[:, None])[index]


def _principal(values: torch.Tensor, most: int, most_possible: int) -> torch.Tensor:
    """(T, k) directions along which centred values (n, T) vary most."""
    n, width = values.shape
    if n <= width:
        squares, vectors = torch.linalg.eigh(values @ values.T)
    else:
        squares, vectors = torch.linalg.eigh(values.T @ values)
    squares, vectors = squares.flip(0).clamp(min=0), vectors.flip(1)
    largest = float(squares[0])
    rank = min(int((squares > largest * _SMALLEST_LENGTH**2).sum()) if largest > 0 else 0, most, most_possible)
    if not rank:
        raise FmriModelsError("The voxels of the training trials predict nothing at all of the targets.")
    directions = values.T @ vectors[:, :rank] if n <= width else vectors[:, :rank]
    return directions / directions.norm(dim=0)


def _scaled(found: ReducedMap, pattern_length: float) -> ReducedMap:
    """The map with patterns as long as those of the voxels are, for which penalties make sense that do for these."""
    length = float((found.training**2).sum(dim=1).mean())
    factor = (pattern_length / length) ** 0.5 if length > 0 and pattern_length > 0 else 1.0
    return ReducedMap(found.weights * factor, found.bias * factor, found.training * factor)
