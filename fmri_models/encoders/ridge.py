"""Ridge regression in closed form: streamed over trials and targets, one Gram matrix for all penalties.

Ready-made solvers (scikit-learn, himalaya) want all voxels, all targets and all weights in memory at once; at the size
of the Natural Scenes Dataset the targets and weights alone are some 30 GB. Here voxels and targets are read in chunks,
and what stays in memory is the smaller of the two Gram matrices. The tests compare the results with scikit-learn's.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..closed_form_trials import ClosedFormTrials, Patterns, Selection
from ..errors import FmriModelsError

_EXAMPLES_A_CHUNK = 2048
# Up to this many voxels or trials everything is computed in float64, which is then quick; beyond, in float32.
_FLOAT64_SIZE = 4096


class RidgeSolver:
    """Accumulates the smaller Gram matrix of the voxels once; then solves for any targets and any penalty.

    With X the centred voxels (n, V), the weights for centred targets Y and penalty α are (XᵀX + αI)⁻¹XᵀY, or equally
    Xᵀ(XXᵀ + αI)⁻¹Y (Hastie, Tibshirani & Friedman, The Elements of Statistical Learning, 2nd ed., §18.3.5). The
    intercept is not penalised. Each penalty costs a Cholesky factorisation, which is far quicker on a few cores than
    one eigendecomposition for all, and needs half of its memory.

    Args:
        fmri: (n, V) voxels.

    Raises:
        FmriModelsError: There are fewer than two examples, or values that are not finite.
    """

    def __init__(self, fmri: Patterns) -> None:
        self.fmri = fmri
        self.num_examples = len(fmri)
        if self.num_examples < 2:
            raise FmriModelsError(f"Ridge regression needs at least 2 training trials; got {self.num_examples}.")
        self.num_voxels = fmri[np.arange(1)].shape[1]
        self.dual = self.num_examples <= self.num_voxels
        size = min(self.num_examples, self.num_voxels)
        self.dtype = torch.float64 if size <= _FLOAT64_SIZE else torch.float32
        self.mean = self._mean()
        self.gram = self._kernel() if self.dual else self._covariance()

    @property
    def pattern_length(self) -> float:
        """Mean squared length of the centred examples: a penalty of that size takes as much for noise as for signal."""
        return float(self.gram.diagonal().sum() / self.num_examples)

    def weights(
        self, targets: torch.Tensor, alpha: float, factor: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Solves for some targets.

        Args:
            targets: (n, T).
            alpha: The penalty.
            factor: [`~RidgeSolver.factor`] of the penalty, where it is known already.

        Returns:
            Weights (T, V) and intercept (T,).

        Raises:
            FmriModelsError: The penalty is too small to solve for.
        """
        factor = self.factor(alpha) if factor is None else factor
        if factor is None:
            raise FmriModelsError(
                f"The penalty {alpha:g} is too small for these voxels (the equations are singular to working "
                "precision); choose a larger one."
            )
        weights = self._weights_of(torch.cholesky_solve(self._right_side(self._centred(targets)), factor))
        return weights.T, targets.to(self.dtype).mean(dim=0) - self.mean @ weights

    def predict(self, fmri: Patterns, weights: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """(examples, T) predictions of weights (T, V) and intercept (T,) for other voxels."""
        predicted = [self._tensor(fmri[examples]) @ weights.T + bias for examples in _chunks(len(fmri))]
        return torch.cat(predicted)

    def factor(self, alpha: float) -> torch.Tensor | None:
        """The lower Cholesky factor of the Gram matrix plus α; None if it is singular to working precision."""
        penalised = self.gram.clone()
        penalised.diagonal().add_(alpha)
        factor, failed = torch.linalg.cholesky_ex(penalised)
        return None if failed.item() else factor

    def held_out_errors(
        self, fmri: Patterns, targets: torch.Tensor, held_out_targets: torch.Tensor, alphas: Sequence[float]
    ) -> np.ndarray:
        """Mean squared error on held-out trials for each penalty; infinite for one that is too small to solve for."""
        right_side = self._right_side(self._centred(targets))
        centre = targets.to(self.dtype).mean(dim=0)
        # In the dual form the held-out kernel spares reading all training voxels again for each penalty.
        kernel = self._held_out_kernel(fmri) if self.dual else None
        errors = np.full(len(alphas), np.inf)
        for index, alpha in enumerate(alphas):
            factor = self.factor(alpha)
            if factor is None:
                continue
            solved = torch.cholesky_solve(right_side, factor)
            if kernel is not None:
                predicted = kernel @ solved + centre
            else:
                predicted = self.predict(fmri, solved.T, centre - self.mean @ solved)
            errors[index] = float(((predicted - held_out_targets.to(self.dtype)) ** 2).mean())
        return errors

    def leave_one_group_out_errors(
        self, targets: torch.Tensor, groups: np.ndarray, alphas: Sequence[float]
    ) -> np.ndarray:
        """Mean squared error when each group of examples in turn is predicted from all others, without refitting.

        Args:
            targets: (n, T).
            groups: (n,) label of each row's group, such as its stimulus.
            alphas: Penalties to try; the error is infinite for one that is too small to solve for.
        """
        errors = np.full(len(alphas), np.inf)
        for index, alpha in enumerate(alphas):
            factor = self.factor(alpha)
            if factor is not None:
                errors[index] = float((self.left_out_residuals(targets, groups, alpha, factor) ** 2).mean())
        return errors

    def left_out_residuals(
        self, targets: torch.Tensor, groups: np.ndarray, alpha: float, factor: torch.Tensor
    ) -> torch.Tensor:
        """Targets minus their prediction from the examples of all other groups.

        For a group g with residuals r_g and block H_gg of the hat matrix these are (I − H_gg)⁻¹ r_g; the unpenalised
        intercept adds 1/n to every entry of the hat matrix.

        Args:
            targets: (n, T).
            groups: (n,) label of each row's group.
            alpha: The penalty.
            factor: [`~RidgeSolver.factor`] of the penalty.

        Returns:
            (n, T).
        """
        centred = self._centred(targets)
        solved = torch.cholesky_solve(self._right_side(centred), factor)
        inverse = torch.cholesky_inverse(factor) if self.dual else None
        left_out = torch.empty_like(centred)
        for examples in _batches_of_groups(groups):
            residual, complement = self._residuals(examples, centred, alpha, factor, solved, inverse)
            left_out[torch.from_numpy(examples)] = torch.linalg.solve(complement - 1 / self.num_examples, residual)
        return left_out

    def _residuals(
        self,
        examples: np.ndarray,
        centred: torch.Tensor,
        alpha: float,
        factor: torch.Tensor,
        solved: torch.Tensor,
        inverse: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Residuals (G, m, T) of groups of m examples, and I − H_gg (G, m, m) without the intercept's part.

        In the dual form both follow from I − H = α(K + αI)⁻¹; in the primal one H_gg = X_g (XᵀX + αI)⁻¹ X_gᵀ.
        """
        index = torch.from_numpy(examples)
        if inverse is not None:
            return alpha * solved[index], alpha * inverse[index[:, :, None], index[:, None, :]]
        voxels = self._tensor(self.fmri[examples.reshape(-1)]) - self.mean
        residual = centred[index.reshape(-1)] - voxels @ solved
        whitened = torch.linalg.solve_triangular(factor, voxels.T, upper=False).T.reshape(*examples.shape, -1)
        hat = whitened @ whitened.transpose(1, 2)
        return residual.reshape(*examples.shape, -1), torch.eye(examples.shape[1], dtype=self.dtype) - hat

    def _centred(self, targets: torch.Tensor) -> torch.Tensor:
        targets = targets.to(self.dtype)
        return targets - targets.mean(dim=0)

    def _right_side(self, centred: torch.Tensor) -> torch.Tensor:
        """Of the equations to be solved: the targets themselves (dual), or XᵀY."""
        if self.dual:
            return centred
        cross = torch.zeros(self.num_voxels, centred.shape[1], dtype=self.dtype)
        for examples, chunk in self._centred_chunks():
            cross.addmm_(chunk.T, centred[examples])
        return cross

    def _weights_of(self, solved: torch.Tensor) -> torch.Tensor:
        """(V, T) weights from the solution of the equations."""
        if not self.dual:
            return solved
        weights = torch.zeros(self.num_voxels, solved.shape[1], dtype=self.dtype)
        for examples, chunk in self._centred_chunks():
            weights.addmm_(chunk.T, solved[examples])
        return weights

    def _mean(self) -> torch.Tensor:
        total = torch.zeros(self.num_voxels, dtype=torch.float64)
        for examples in _chunks(self.num_examples):
            total += torch.from_numpy(np.asarray(self.fmri[examples])).double().sum(dim=0)
        if not torch.isfinite(total).all():
            raise FmriModelsError(
                "Training voxels hold NaN or infinite values; check the trial table with `fmri-models data validate`."
            )
        return (total / self.num_examples).to(self.dtype)

    def _covariance(self) -> torch.Tensor:
        gram = torch.zeros(self.num_voxels, self.num_voxels, dtype=self.dtype)
        for _, chunk in self._centred_chunks():
            gram.addmm_(chunk.T, chunk)
        return gram

    def _kernel(self) -> torch.Tensor:
        kernel = torch.empty(self.num_examples, self.num_examples, dtype=self.dtype)
        for examples, chunk in self._centred_chunks():
            for other_examples, other in self._centred_chunks():
                if other_examples.start > examples.start:
                    break
                product = chunk @ other.T
                kernel[examples, other_examples] = product
                kernel[other_examples, examples] = product.T
        return kernel

    def _held_out_kernel(self, fmri: Patterns) -> torch.Tensor:
        """(examples, n) products of other centred voxels with the training ones."""
        held_out = torch.cat([self._tensor(fmri[examples]) - self.mean for examples in _chunks(len(fmri))])
        kernel = torch.empty(len(held_out), self.num_examples, dtype=self.dtype)
        for examples, chunk in self._centred_chunks():
            kernel[:, examples] = held_out @ chunk.T
        return kernel

    def _centred_chunks(self) -> Iterator[tuple[slice, torch.Tensor]]:
        for examples in _chunks(self.num_examples):
            yield slice(int(examples[0]), int(examples[-1]) + 1), self._tensor(self.fmri[examples]) - self.mean

    def _tensor(self, examples: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.asarray(examples)).to(self.dtype)


@dataclass
class RidgeChoice:
    """The penalty chosen for one group of targets.

    Args:
        alpha: The penalty with the smallest error.
        errors: Penalty ▶ mean squared error on trials that the fit did not see.
        at_edge: Whether the smallest error is at an end of the grid, so that a wider grid may do better.
    """

    alpha: float
    errors: dict[float, float]
    at_edge: bool


def choose_alpha(
    solver: RidgeSolver,
    trials: ClosedFormTrials,
    target: str,
    alphas: Sequence[float],
    by: Selection,
    validation: ClosedFormTrials | None = None,
    max_columns: int = 512,
) -> RidgeChoice:
    """Chooses the penalty of a group of targets on trials that the fit did not see.

    Args:
        solver: Fitted on `trials.fmri`.
        trials: Training trials.
        target: Name of the group in `trials.targets`.
        alphas: Penalties to try.
        by: On validation trials, or by leaving each training stimulus out with all its repetitions; each run or trial
            where `trials` say so. Where nothing can be left out, it is the one nearest to the patterns' mean squared
            length.
        validation: Validation trials, for `by="validation"`.
        max_columns: Of a larger group, that many evenly spaced targets decide.

    Raises:
        FmriModelsError: `by="validation"` without validation trials.
    """
    if by == "leave_one_stimulus_out" and trials.leaves_out == "nothing":
        nearest = min(alphas, key=lambda alpha: abs(math.log(alpha / max(solver.pattern_length, 1e-30))))
        return RidgeChoice(float(nearest), errors={}, at_edge=False)
    num_targets = trials.targets[target].num_targets
    columns = np.unique(np.linspace(0, num_targets - 1, min(num_targets, max_columns)).round().astype(int))
    values = torch.from_numpy(trials.targets[target].columns(columns))
    if by == "leave_one_stimulus_out":
        errors = solver.leave_one_group_out_errors(values, trials.left_out_together, alphas)
    else:
        if validation is None or len(validation.fmri) == 0:
            raise FmriModelsError(
                "The split has no validation trials to choose the penalty on; write one with `fmri-models data split`, "
                "or set selection=leave_one_stimulus_out in the recipe."
            )
        held_out = torch.from_numpy(validation.targets[target].columns(columns))
        errors = solver.held_out_errors(validation.fmri, values, held_out, alphas)
    best = int(np.argmin(errors))
    by_alpha = dict(zip(map(float, alphas), map(float, errors), strict=True))
    return RidgeChoice(float(alphas[best]), by_alpha, len(alphas) > 1 and best in (0, len(alphas) - 1))


def _chunks(num_examples: int) -> Iterator[np.ndarray]:
    for start in range(0, num_examples, _EXAMPLES_A_CHUNK):
        yield np.arange(start, min(start + _EXAMPLES_A_CHUNK, num_examples))


def _batches_of_groups(groups: np.ndarray) -> Iterator[np.ndarray]:
    """Positions as (groups, examples a group) batches of groups of one size, so that they are solved together."""
    order = np.argsort(groups, kind="stable")
    _, starts, counts = np.unique(np.asarray(groups)[order], return_index=True, return_counts=True)
    for size in np.unique(counts):
        examples = np.stack([order[starts[counts == size] + offset] for offset in range(size)], axis=1)
        step = max(1, _EXAMPLES_A_CHUNK // int(size))
        for start in range(0, len(examples), step):
            yield examples[start : start + step]
