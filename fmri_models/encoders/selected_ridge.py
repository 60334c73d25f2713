"""Ridge regression of each target on voxels of its own (fastL2LiR), and sparse regression on them."""

from dataclasses import dataclass

import numpy as np
import torch

from ..closed_form_trials import Patterns
from ..errors import FmriModelsError
from .ridge import Intercept, PatternsOf, RidgeSolver, spaced_columns
from .selected_equations import SMALLEST_SOLVED_ALONE, at_once, solved_for_each, too_small
from .selected_linear import check_num_selected, standardised_patterns
from .sparse_regression import sparse_regression
from .voxel_selection import VoxelCorrelations

# So many targets are solved in float64, too, and the predictions in float32 may be that share of their size apart.
_TARGETS_THAT_VOUCH = 4
_AGREES = 1e-4


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
        for targets in at_once(len(self.bias), values.shape[0] * self.indices.shape[1]):
            read = values[:, self.indices[targets]]
            read = standardised_patterns(read) if standardises_patterns else read
            predicted[:, targets] = torch.einsum("ntk,tk->nt", read, self.weights[targets]) + self.bias[targets]
        return predicted


class SelectedRidge:
    """Ridge regression of each target on the voxels that correlate most with it over the same examples.

    The Gram matrix of all voxels is accumulated once, and each target takes rows and columns of its own voxels (the
    method of KamitaniLab's fastL2LiR). With 128 voxels or more that is done in float32, unless some targets that are
    solved in float64, too, have other predictions.

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
        # Whether float32 will do, and the penalties for which float64 has vouched for that.
        self._single, self._vouched = num_selected >= SMALLEST_SOLVED_ALONE, set[float]()
        self._grams: dict[torch.dtype, torch.Tensor] = {}
        self._last: tuple[torch.Tensor, torch.Tensor] | None = None

    def select(self, targets: torch.Tensor) -> torch.Tensor:
        """(T, K) voxels of each of the targets (n, T); examples without a target (NaN) are left out for it.

        Raises:
            FmriModelsError: A target has a value for fewer than two examples.
        """
        missing = targets.isnan()
        if len(absent := torch.nonzero((~missing).sum(dim=0) < 2).flatten()):
            raise FmriModelsError(
                f"Target {int(absent[0])} has a value for fewer than 2 training trials (NaN otherwise), too few to fit "
                "it; leave it out."
            )
        incomplete = missing.any(dim=0)
        found = torch.empty(targets.shape[1], self.num_selected, dtype=torch.long)
        if not incomplete.all():
            complete = targets[:, ~incomplete] if incomplete.any() else targets
            found[~incomplete] = self.correlations.most_correlated(self._products(complete), self.num_selected)
        for target in torch.nonzero(incomplete).flatten().tolist():
            there = torch.nonzero(~missing[:, target]).flatten()
            own = VoxelCorrelations(np.asarray(self.fmri[there.numpy()]))
            found[target] = own.most_correlated(own.products(targets[there, target, None]), self.num_selected)[0]
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
        own = indices
        if self.intercept == "penalised":
            own = torch.cat([indices, torch.full((len(indices), 1), self.num_voxels)], dim=1)
        right = self._right_sides(targets, own)
        weights = self._in_single(own, right, alpha)
        weights = solved_for_each(self._gram_in(torch.float64), own, right, alpha) if weights is None else weights
        if weights is None:
            raise too_small(alpha)
        if self.intercept == "penalised":
            return SelectedWeights(indices, weights[:, :-1], weights[:, -1])
        bias = torch.zeros(len(indices), dtype=weights.dtype)
        if self.intercept == "free":
            bias = targets.double().mean(dim=0) - (self.correlations.mean[indices] * weights).sum(dim=1)
        return SelectedWeights(indices, weights, bias)

    def _in_single(self, own: torch.Tensor, right: torch.Tensor, alpha: float) -> torch.Tensor | None:
        """(T, K) the solution in float32; None where that is none, or not precise enough, for this penalty or another
        one before.
        """
        if not self._single:
            return None
        found = solved_for_each(self._gram_in(torch.float32), own, right, alpha)
        if found is not None and alpha not in self._vouched:
            self._single = self._is_precise(found.double(), own, right, alpha)
            self._vouched.add(alpha)
        self._single = self._single and found is not None
        return found.double() if found is not None and self._single else None

    def _is_precise(self, found: torch.Tensor, own: torch.Tensor, right: torch.Tensor, alpha: float) -> bool:
        """Whether some targets have the same predictions of these examples in float64."""
        vary = torch.nonzero(right.any(dim=1)).flatten()
        for target in vary[spaced_columns(len(vary), _TARGETS_THAT_VOUCH)].tolist() if len(vary) else []:
            every = torch.arange(own.shape[1])[None]
            gram = self._own_gram(own[target])
            exact = solved_for_each(gram, every, right[target, None], alpha)
            if exact is None:
                return False
            apart = found[target] - exact[0]
            if apart @ gram @ apart > _AGREES**2 * (exact[0] @ gram @ exact[0]):
                return False
        return True

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

    def _gram_in(self, dtype: torch.dtype) -> torch.Tensor:
        """(V, V) products of voxels, of centred ones where the intercept is free; with those of the ones where it is
        penalised.
        """
        if dtype not in self._grams:
            self._grams = {dtype: RidgeSolver(self.fmri, self.intercept, dtype, dual=False).gram}
        return self._grams[dtype]

    def _own_gram(self, own: torch.Tensor) -> torch.Tensor:
        """(K, K) float64 those of some voxels alone."""
        ones = self.intercept == "penalised"
        read = PatternsOf(self.fmri, own[own < self.num_voxels].numpy(), ones)
        return RidgeSolver(read, "free" if self.intercept == "free" else "none", torch.float64, dual=False).gram

    def _right_sides(self, targets: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
        """(T, K) products of each target with its voxels, both centred where the intercept is free."""
        products, targets = self._products(targets), targets.double()
        if self.intercept != "free":
            mean = targets.mean(dim=0)
            products = products + len(targets) * self.correlations.mean[:, None] * mean
            products = torch.cat([products, len(targets) * mean[None]])
        return products.T.gather(1, own)

    def _products(self, targets: torch.Tensor) -> torch.Tensor:
        """(V, T) of centred voxels and targets; those of the last targets are kept, which have several penalties."""
        if self._last is None or self._last[0] is not targets:
            self._last = targets, self.correlations.products(targets)
        return self._last[1]


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
        indices = self.correlations.most_correlated(self.correlations.products(targets), self.num_selected)
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
