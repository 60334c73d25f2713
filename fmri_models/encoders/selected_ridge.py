"""Ridge regression of each target on voxels of its own (fastL2LiR), and sparse regression on them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from ..closed_form_trials import Patterns
from ..errors import FmriModelsError
from .ridge import Intercept, RidgeSolver, read_in_chunks
from .selected_linear import check_num_selected, standardised_patterns
from .sparse_regression import sparse_regression
from .voxel_selection import VoxelCorrelations

# Values of the systems of equations, or of the patterns, that are solved at once.
_VALUES_AT_ONCE = 2**24


@dataclass(frozen=True, eq=False)
class SelectedWeights:
    """A map of which each target reads voxels of its own.

    Args:
        indices: (T, K) positions of voxels.
        weights: (T, K).
        bias: (T,).
    """

    indices: torch.Tensor
    weights: torch.Tensor
    bias: torch.Tensor

    def predict(self, fmri: Patterns, standardises_patterns: bool = False) -> torch.Tensor:
        """(N, T) predictions of patterns (N, V)."""
        values = torch.from_numpy(np.asarray(fmri[np.arange(len(fmri))])).to(self.weights.dtype)
        predicted = values.new_empty(len(values), len(self.bias))
        for targets in _at_once(len(self.bias), values.shape[0] * self.indices.shape[1]):
            read = values[:, self.indices[targets]]
            read = standardised_patterns(read) if standardises_patterns else read
            predicted[:, targets] = torch.einsum("ntk,tk->nt", read, self.weights[targets]) + self.bias[targets]
        return predicted


class SelectedRidge:
    """Ridge regression of each target on the voxels that correlate most with it over the same examples.

    The Gram matrix of all voxels is accumulated once; each target then takes rows and columns of its own voxels, and
    targets are solved for in batches (the method of KamitaniLab's fastL2LiR).

    Args:
        fmri: (n, V) voxels.
        num_selected: Voxels of each target.
        intercept: As of [`RidgeSolver`]; fastL2LiR has `"penalised"`.
        standardises_patterns: Whether each pattern is standardised over the voxels of each target.

    Raises:
        FmriModelsError: There are fewer voxels, or as for [`RidgeSolver`].
    """

    def __init__(
        self, fmri: Patterns, num_selected: int, intercept: Intercept = "free", standardises_patterns: bool = False
    ) -> None:
        self.fmri, self.num_selected, self.intercept = fmri, num_selected, intercept
        self.standardises_patterns = standardises_patterns
        self.num_voxels = fmri[np.arange(1)].shape[1]
        check_num_selected(num_selected, self.num_voxels)
        self.correlations = VoxelCorrelations(fmri)
        self._gram: torch.Tensor | None = None
        self._mean = torch.zeros(0)

    def select(self, targets: torch.Tensor) -> torch.Tensor:
        """(T, K) voxels of each of the targets (n, T); examples without a target (NaN) are left out for it."""
        missing = targets.isnan()
        incomplete = missing.any(dim=0)
        found = torch.empty(targets.shape[1], self.num_selected, dtype=torch.long)
        if not incomplete.all():
            found[~incomplete] = self.correlations.most_correlated(targets[:, ~incomplete], self.num_selected)
        for target in torch.nonzero(incomplete).flatten().tolist():
            there = torch.nonzero(~missing[:, target]).flatten()
            own = VoxelCorrelations(np.asarray(self.fmri[there.numpy()]))
            found[target] = own.most_correlated(targets[there, target : target + 1], self.num_selected)[0]
        return found

    def weights(self, targets: torch.Tensor, alpha: float, indices: torch.Tensor | None = None) -> SelectedWeights:
        """Solves for targets (n, T).

        Args:
            targets: NaN where an example has none.
            alpha: The penalty; 0 is least squares.
            indices: (T, K) voxels of each target; None selects them.

        Raises:
            FmriModelsError: The penalty is too small to solve for.
        """
        indices = self.select(targets) if indices is None else indices
        if self.standardises_patterns or bool(targets.isnan().any()):
            return self._from_patterns(targets, alpha, indices)
        return self._from_gram(targets, alpha, indices)

    def _from_gram(self, targets: torch.Tensor, alpha: float, indices: torch.Tensor) -> SelectedWeights:
        gram, mean = self._gram_and_mean()
        targets = targets.to(gram.dtype)
        centre = targets.mean(dim=0) if self.intercept == "free" else torch.zeros_like(targets[0])
        cross = self._cross(targets - centre, mean)
        if self.intercept == "penalised":
            ones = torch.full((len(indices), 1), len(gram) - 1)
            indices = torch.cat([indices, ones], dim=1)
        weights = torch.empty(indices.shape, dtype=gram.dtype)
        for own in _at_once(len(indices), indices.shape[1] ** 2):
            systems = gram[indices[own, :, None], indices[own, None, :]]
            systems.diagonal(dim1=1, dim2=2).add_(alpha)
            right = cross.T[own].gather(1, indices[own])
            weights[own] = _solved(systems, right[..., None], alpha).squeeze(-1)
        if self.intercept == "penalised":
            return SelectedWeights(indices[:, :-1], weights[:, :-1], weights[:, -1])
        return SelectedWeights(indices, weights, centre - (mean[indices] * weights).sum(dim=1))

    def _from_patterns(self, targets: torch.Tensor, alpha: float, indices: torch.Tensor) -> SelectedWeights:
        """One target at a time, where what is regressed on differs in more than the voxels."""
        weights = torch.empty(indices.shape, dtype=torch.float64)
        bias = torch.empty(len(indices), dtype=torch.float64)
        for target, own in enumerate(indices):
            values, there = self._read(targets[:, target], own)
            column = targets[there, target : target + 1]
            solver = RidgeSolver(values.numpy(), self.intercept)
            if alpha == 0:
                raise FmriModelsError("The penalty is 0, with which patterns can't be standardised; give one above 0.")
            found, intercept = solver.weights(column, alpha)
            weights[target], bias[target] = found[0].double(), intercept[0].double()
        return SelectedWeights(indices, weights, bias)

    def _read(self, column: torch.Tensor, own: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(m, K) values of a target's voxels in the m examples that have it, and the positions of these."""
        there = torch.nonzero(~column.isnan()).flatten()
        values = torch.from_numpy(np.asarray(self.fmri[there.numpy()])[:, own.numpy()]).double()
        return standardised_patterns(values) if self.standardises_patterns else values, there

    def _gram_and_mean(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(V, V) products of voxels, of centred ones where the intercept is free; with those of the ones where it is
        penalised. And (V,) what they were centred by.
        """
        if self._gram is None:
            solver = RidgeSolver(self.fmri, self.intercept, dual=False)
            self._gram, self._mean = solver.gram, solver.mean
        return self._gram, self._mean

    def _cross(self, centred: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
        """(V, T) products of voxels with targets, the last row of the ones where the intercept is penalised."""
        cross = torch.zeros(self.num_voxels, centred.shape[1], dtype=centred.dtype)
        for examples, chunk in read_in_chunks(self.fmri, centred.dtype):
            cross.addmm_((chunk - mean[: self.num_voxels]).T, centred[examples])
        return torch.cat([cross, centred.sum(dim=0, keepdim=True)]) if self.intercept == "penalised" else cross


class SelectedSparse:
    """Sparse regression of each target on the voxels that correlate most with it, and a column of ones behind them.

    All patterns are in memory in float64 while a block of targets is fitted.

    Args:
        fmri: (n, V) voxels, standardised over these examples or not.
        num_selected: Voxels of each target; None regresses on all.
        has_intercept: Whether there is a column of ones, which is pruned like a voxel.
        iterations: At most.
    """

    def __init__(
        self, fmri: Patterns, num_selected: int | None, has_intercept: bool = True, iterations: int = 200
    ) -> None:
        self.fmri, self.has_intercept, self.iterations = fmri, has_intercept, iterations
        self.num_voxels = fmri[np.arange(1)].shape[1]
        self.num_selected = self.num_voxels if num_selected is None else num_selected
        check_num_selected(self.num_selected, self.num_voxels)
        self.correlations = VoxelCorrelations(fmri)

    def weights(self, targets: torch.Tensor) -> SelectedWeights:
        """Solves for targets (n, T), one after the other; the weights of voxels that were pruned are 0."""
        indices = self.correlations.most_correlated(targets, self.num_selected)
        patterns = torch.from_numpy(np.asarray(self.fmri[np.arange(len(self.fmri))])).double()
        ones = torch.ones(len(patterns), 1, dtype=torch.float64)
        weights = torch.empty(indices.shape, dtype=torch.float64)
        bias = torch.zeros(len(indices), dtype=torch.float64)
        for target, own in enumerate(indices):
            read = patterns[:, own]
            read = torch.cat([read, ones], dim=1) if self.has_intercept else read
            found = sparse_regression(read, targets[:, target].double(), self.iterations).weights
            weights[target] = found[: self.num_selected]
            bias[target] = found[-1] if self.has_intercept else 0.0
        return SelectedWeights(indices, weights, bias)


def _solved(systems: torch.Tensor, right: torch.Tensor, alpha: float) -> torch.Tensor:
    factor, failed = torch.linalg.cholesky_ex(systems)
    if failed.any():
        raise FmriModelsError(
            f"The penalty {alpha:g} is too small for the selected voxels (the equations are singular to working "
            "precision); choose a larger one."
        )
    return torch.cholesky_solve(right, factor)


def _at_once(count: int, values_of_each: int) -> Iterator[slice]:
    size = max(1, _VALUES_AT_ONCE // max(1, values_of_each))
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
