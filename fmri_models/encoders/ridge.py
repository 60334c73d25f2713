"""Ridge regression in closed form: streamed over trials and targets, one Gram matrix for all penalties.

Ready-made solvers (scikit-learn, himalaya) want all voxels, all targets and all weights in memory at once; at the size
of the Natural Scenes Dataset the targets and weights alone are some 30 GB. Here voxels and targets are read in chunks,
and what stays in memory is the smaller of the two Gram matrices. The tests compare the results with scikit-learn's.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from ..closed_form_trials import ClosedFormTrials, Patterns, Selection
from ..errors import FmriModelsError
from .left_out_groups import batches_of_groups, solved_within_groups

_EXAMPLES_A_CHUNK = 2048
# Columns of a symmetric product that are multiplied together; what is right of the diagonal is copied.
_COLUMNS_A_TILE = 1024
# From this size on, inverses are solved for.
_SMALLEST_SOLVED = 512
# Up to this many voxels or trials everything is computed in float64, which is then quick; beyond, in float32.
_FLOAT64_SIZE = 4096

# "free": voxels and targets are centred, and the intercept is not penalised. "penalised": it is the weight of a column
# of ones that is penalised like a voxel. "none": there is none, and the mean of the targets is never predicted.
Intercept = Literal["free", "penalised", "none"]


def intercept_of(fit_intercept: bool, penalise_intercept: bool) -> Intercept:
    """What two options come to.

    Raises:
        FmriModelsError: An intercept is penalised that is not fitted.
    """
    if penalise_intercept and not fit_intercept:
        raise FmriModelsError(
            "penalise_intercept is true and fit_intercept is false, so that there is no intercept to penalise; leave "
            "one of them out."
        )
    return "none" if not fit_intercept else "penalised" if penalise_intercept else "free"


class PatternsOf:
    """Some voxels of patterns, in a given order, and a column of ones behind them where one is asked for.

    Args:
        fmri: (n, V) voxels.
        columns: (S,) which of them; None for all.
        ones: Whether there is a column of ones.
    """

    def __init__(self, fmri: Patterns, columns: np.ndarray | None = None, ones: bool = False) -> None:
        self.fmri, self.columns, self.ones = fmri, columns, ones

    def __len__(self) -> int:
        return len(self.fmri)

    def __getitem__(self, positions: np.ndarray) -> np.ndarray:
        """(examples, S), or (examples, S + 1)."""
        values = np.asarray(self.fmri[positions])
        values = values if self.columns is None else values[:, self.columns]
        return np.pad(values, ((0, 0), (0, 1)), constant_values=1) if self.ones else values


class ExamplesOf:
    """Some examples of patterns, in a given order.

    Args:
        fmri: (n, V) voxels.
        positions: (m,) which of them.
    """

    def __init__(self, fmri: Patterns, positions: np.ndarray) -> None:
        self.fmri, self.positions = fmri, positions

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, positions: np.ndarray) -> np.ndarray:
        """(examples, V)."""
        return self.fmri[self.positions[positions]]


class RidgeSolver:
    """Accumulates the smaller Gram matrix of the voxels once; then solves for any targets and any penalty.

    With X the centred voxels (n, V), the weights for centred targets Y and penalty α are (XᵀX + αI)⁻¹XᵀY, or equally
    Xᵀ(XXᵀ + αI)⁻¹Y (Hastie, Tibshirani & Friedman, The Elements of Statistical Learning, 2nd ed., §18.3.5). The
    intercept is not penalised, unless that is asked for. A penalty costs a Cholesky factorisation, which is far
    quicker than an eigendecomposition; where examples are left out to choose among penalties, one of these serves all.

    Args:
        fmri: (n, V) voxels.
        intercept: Whether the intercept is free, penalised as a voxel of ones (as fastL2LiR has it; neither voxels nor
            targets are centred then), or left out.
        dtype: Of all products; None takes float64 up to 4,096 voxels or examples, whichever are fewer, and float32
            beyond.
        dual: Whether products of examples are accumulated, and not of voxels; None takes those that are fewer.

    Raises:
        FmriModelsError: There are fewer than two examples, or values that are not finite.
    """

    def __init__(
        self,
        fmri: Patterns,
        intercept: Intercept = "free",
        dtype: torch.dtype | None = None,
        dual: bool | None = None,
    ) -> None:
        self.intercept = intercept
        self.fmri = self._with_ones(fmri)
        fmri = self.fmri
        self.num_examples = len(fmri)
        if self.num_examples < 2:
            raise FmriModelsError(f"Ridge regression needs at least 2 training trials; got {self.num_examples}.")
        self.num_voxels = fmri[np.arange(1)].shape[1]
        self.dual = self.num_examples <= self.num_voxels if dual is None else dual
        size = min(self.num_examples, self.num_voxels)
        self.dtype = dtype or (torch.float64 if size <= _FLOAT64_SIZE else torch.float32)
        self.mean = self._mean()
        self.gram = self._kernel() if self.dual else self._covariance()
        # Eigenvalues and vectors of the Gram matrix, once they are known.
        self._spectrum: tuple[torch.Tensor, torch.Tensor] | None = None

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
        return self._affine(weights, targets)

    def predict(self, fmri: Patterns, weights: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """(examples, T) predictions of weights (T, V) and intercept (T,) for other voxels."""
        return torch.cat([chunk @ weights.T + bias for _, chunk in read_in_chunks(fmri, self.dtype)])

    def factor(self, alpha: float) -> torch.Tensor | None:
        """The lower Cholesky factor of the Gram matrix plus α; None if it is singular to working precision.

        Products of centred examples vanish along the ones, where α alone would stand, far below the rest, and
        rounding would drown what is left out. The mean of the rest is added there: centred targets have no part in it.
        """
        penalised = self._with_length_along_ones(self.gram.clone())
        penalised.diagonal().add_(alpha)
        failed = torch.empty((), dtype=torch.int32)
        factor, failed = torch.linalg.cholesky_ex(penalised, out=(penalised, failed))
        return None if failed.item() else factor

    def held_out_errors(
        self, fmri: Patterns, targets: torch.Tensor, held_out_targets: torch.Tensor, alphas: Sequence[float]
    ) -> np.ndarray:
        """Mean squared error on held-out trials for each penalty; infinite for one that is too small to solve for."""
        errors = np.full(len(alphas), np.inf)
        for index, squares in self._held_out_squares(fmri, targets, held_out_targets, alphas):
            errors[index] = float(squares.mean())
        return errors

    def held_out_errors_of_each(
        self, fmri: Patterns, targets: torch.Tensor, held_out_targets: torch.Tensor, alphas: Sequence[float]
    ) -> np.ndarray:
        """(penalties, T) as [`~RidgeSolver.held_out_errors`], of each target by itself."""
        errors = np.full((len(alphas), targets.shape[1]), np.inf)
        for index, squares in self._held_out_squares(fmri, targets, held_out_targets, alphas):
            errors[index] = squares.mean(dim=0).numpy()
        return errors

    def _held_out_squares(
        self, fmri: Patterns, targets: torch.Tensor, held_out_targets: torch.Tensor, alphas: Sequence[float]
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """Position of each penalty that can be solved for, and (examples, T) squared errors on held-out trials."""
        right_side = self._right_side(self._centred(targets))
        # In the dual form the held-out kernel spares reading all training voxels again for each penalty.
        kernel = self._held_out_kernel(fmri) if self.dual else None
        for index, alpha in enumerate(alphas):
            factor = self.factor(alpha)
            if factor is None:
                continue
            solved = torch.cholesky_solve(right_side, factor)
            if kernel is not None:
                predicted = kernel @ solved + self._centre(targets)
            else:
                predicted = self.predict(fmri, *self._affine(solved, targets))
            yield index, (predicted - held_out_targets.to(self.dtype)) ** 2

    def leave_one_group_out_errors(
        self, targets: torch.Tensor, groups: np.ndarray, alphas: Sequence[float]
    ) -> np.ndarray:
        """Mean squared error when each group of examples in turn is predicted from all others, without refitting.

        Args:
            targets: (n, T).
            groups: (n,) label of each row's group, such as its stimulus.
            alphas: Penalties to try; the error is infinite for one that is too small to solve for.
        """
        totals = np.zeros(len(alphas))
        for index, squares in self._left_out_squares(targets, groups, alphas):
            totals[index] += float(squares.sum(dtype=torch.float64))
        return totals / targets.numel()

    def fold_errors_of_each(self, targets: torch.Tensor, folds: np.ndarray, alphas: Sequence[float]) -> np.ndarray:
        """(penalties, T) mean squared error of each target, a mean over folds of the mean in each, without refitting.

        Args:
            targets: (n, T).
            folds: (n,) label of each row's fold, which is predicted from all others.
            alphas: Penalties to try; the error is infinite for one that is too small to solve for.

        Raises:
            FmriModelsError: There is one fold.
        """
        errors = torch.zeros(len(alphas), targets.shape[1], dtype=torch.float64)
        if len(np.unique(folds)) < 2:
            raise FmriModelsError(
                "All training trials are in one fold, so that none is left to learn from; give 2 folds."
            )
        for index, squares in self._left_out_squares(targets, folds, alphas):
            errors[index] += squares.mean(dim=1).sum(dim=0)
        return errors.numpy() / len(np.unique(folds))

    def _left_out_squares(
        self, targets: torch.Tensor, groups: np.ndarray, alphas: Sequence[float]
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """Position of each penalty, and (G, m, T) squares of [`~RidgeSolver.left_out_residuals`] of G groups at a time;
        infinite for a penalty that is too small to solve for.

        One eigendecomposition VΛVᵀ of the Gram matrix serves all penalties: each divides by Λ + α.
        """
        if self._spectrum is None:
            self._spectrum = torch.linalg.eigh(self._with_length_along_ones(self.gram.clone()))
        eigenvalues, vectors = self._spectrum
        solvable = [self._is_solvable(alpha, eigenvalues) for alpha in alphas]
        centred = self._centred(targets)
        rotated = vectors.T @ self._right_side(centred)
        for examples in batches_of_groups(groups):
            index = torch.from_numpy(examples.reshape(-1))
            rows = vectors[index] if self.dual else self._centred_examples(index) @ vectors
            for position, alpha in enumerate(alphas):
                if not solvable[position]:
                    yield position, torch.full((*examples.shape, targets.shape[1]), math.inf, dtype=self.dtype)
                    continue
                shrunk = rows / (eigenvalues.clamp(min=0) + alpha)
                block = shrunk.reshape(*examples.shape, -1) @ rows.reshape(*examples.shape, -1).transpose(1, 2)
                fitted = shrunk @ rotated
                # In the dual form both lack the α that they share.
                complement = block - self._inverse_along_ones(alpha) if self.dual else self._complement_of(block)
                residual = fitted if self.dual else centred[index] - fitted
                yield position, solved_within_groups(complement, residual.reshape(*examples.shape, -1)).square_()

    def _is_solvable(self, alpha: float, eigenvalues: torch.Tensor) -> bool:
        """Whether the equations are not singular to working precision; asks the factorisation where it is close."""
        rounding = len(eigenvalues) * torch.finfo(self.dtype).eps * float(eigenvalues[-1])
        return float(eigenvalues[0]) + alpha > rounding or self.factor(alpha) is not None

    def _with_length_along_ones(self, gram: torch.Tensor) -> torch.Tensor:
        return gram.add_(self._along_ones / self.num_examples) if self._along_ones else gram

    def _centred_examples(self, positions: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(np.asarray(self.fmri[positions.numpy()])).to(self.dtype) - self.mean

    def left_out_residuals(
        self, targets: torch.Tensor, groups: np.ndarray, alpha: float, factor: torch.Tensor
    ) -> torch.Tensor:
        """Targets minus their prediction from the examples of all other groups.

        For a group g with residuals r_g and block H_gg of the hat matrix these are (I − H_gg)⁻¹ r_g; an unpenalised
        intercept is a part of H, 1/n in every entry.

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
        inverse = _inverse(factor) if self.dual else None
        left_out = torch.empty_like(centred)
        for examples in batches_of_groups(groups):
            residual, complement = self._residuals(examples, centred, alpha, factor, solved, inverse)
            left_out[torch.from_numpy(examples)] = solved_within_groups(complement, residual)
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
        """Residuals (G, m, T) of groups of m examples, and I − H_gg (G, m, m).

        In the dual form both follow from I − H = α(K + αI)⁻¹, and are given without the α that they share; in the
        primal one H_gg = X_g (XᵀX + αI)⁻¹ X_gᵀ.
        """
        index = torch.from_numpy(examples)
        if inverse is not None:
            return solved[index], inverse[index[:, :, None], index[:, None, :]] - self._inverse_along_ones(alpha)
        voxels = self._centred_examples(index.reshape(-1))
        residual = centred[index.reshape(-1)] - voxels @ solved
        whitened = torch.linalg.solve_triangular(factor, voxels.T, upper=False).T.reshape(*examples.shape, -1)
        hat = whitened @ whitened.transpose(1, 2)
        return residual.reshape(*examples.shape, -1), self._complement_of(hat)

    def _complement_of(self, hat: torch.Tensor) -> torch.Tensor:
        """(G, m, m) I − H_gg from blocks of the hat matrix of centred voxels."""
        of_intercept = 1 / self.num_examples if self.intercept == "free" else 0.0
        return torch.eye(hat.shape[-1], dtype=self.dtype) - hat - of_intercept

    def _inverse_along_ones(self, alpha: float) -> float:
        """What each entry of (K + αI)⁻¹ has of what [`~RidgeSolver.factor`] adds along the ones, and the intercept
        takes.
        """
        return 1 / (self._along_ones + alpha) / self.num_examples if self.intercept == "free" else 0.0

    @property
    def _along_ones(self) -> float:
        return self.pattern_length if self.dual and self.intercept == "free" else 0.0

    def _centred(self, targets: torch.Tensor) -> torch.Tensor:
        return targets.to(self.dtype) - self._centre(targets)

    def _centre(self, targets: torch.Tensor) -> torch.Tensor:
        """(T,) what is taken from targets before they are solved for."""
        centre = targets.to(self.dtype).mean(dim=0)
        return centre if self.intercept == "free" else torch.zeros_like(centre)

    def _affine(self, weights: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights (T, V) and intercept (T,) of the solution (V, T), or (V + 1, T) with that of the ones."""
        if self.intercept == "penalised":
            return weights[:-1].T, weights[-1]
        return weights.T, self._centre(targets) - self.mean @ weights

    def _with_ones(self, fmri: Patterns) -> Patterns:
        return PatternsOf(fmri, ones=True) if self.intercept == "penalised" else fmri

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
        for _, chunk in read_in_chunks(self.fmri, torch.float64):
            total += chunk.sum(dim=0)
        if not torch.isfinite(total).all():
            raise FmriModelsError(
                "Training voxels hold NaN or infinite values; check the trial table with `fmri-models data validate`."
            )
        mean = (total / self.num_examples).to(self.dtype)
        return mean if self.intercept == "free" else torch.zeros_like(mean)

    def _covariance(self) -> torch.Tensor:
        gram = torch.zeros(self.num_voxels, self.num_voxels, dtype=self.dtype)
        tiles = [slice(start, start + _COLUMNS_A_TILE) for start in range(0, self.num_voxels, _COLUMNS_A_TILE)]
        for _, chunk in self._centred_chunks():
            for tile in tiles:
                gram[tile, : tile.stop].addmm_(chunk[:, tile].T, chunk[:, : tile.stop])
        for tile in tiles:
            gram[: tile.start, tile] = gram[tile, : tile.start].T
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
        fmri = self._with_ones(fmri)
        held_out = torch.cat([chunk - self.mean for _, chunk in read_in_chunks(fmri, self.dtype)])
        kernel = torch.empty(len(held_out), self.num_examples, dtype=self.dtype)
        for examples, chunk in self._centred_chunks():
            kernel[:, examples] = held_out @ chunk.T
        return kernel

    def _centred_chunks(self) -> Iterator[tuple[slice, torch.Tensor]]:
        for examples, chunk in read_in_chunks(self.fmri, self.dtype):
            yield examples, chunk - self.mean


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
    columns = spaced_columns(num_targets, max_columns)
    values = torch.from_numpy(trials.targets[target].columns(columns))
    if by == "leave_one_stimulus_out":
        errors = solver.leave_one_group_out_errors(values, trials.left_out_together, alphas)
    else:
        if validation is None or len(validation.fmri) == 0:
            raise missing_validation()
        held_out = torch.from_numpy(validation.targets[target].columns(columns))
        errors = solver.held_out_errors(validation.fmri, values, held_out, alphas)
    best = int(np.argmin(errors))
    by_alpha = dict(zip(map(float, alphas), map(float, errors), strict=True))
    return RidgeChoice(float(alphas[best]), by_alpha, len(alphas) > 1 and best in (0, len(alphas) - 1))


@dataclass
class RidgeChoiceOfEach:
    """The penalties chosen for the targets of a group, each for itself.

    Args:
        alphas: (T,) the penalty with the smallest error of each target.
        errors: Penalty ▶ mean squared error over all targets.
        at_edge: Share of the targets whose smallest error is at an end of the grid.
    """

    alphas: np.ndarray
    errors: dict[float, float]
    at_edge: float


def choose_alpha_of_each(
    solver: RidgeSolver,
    trials: ClosedFormTrials,
    target: str,
    alphas: Sequence[float],
    folds: np.ndarray | None,
    validation: ClosedFormTrials | None = None,
    columns_a_block: int = 4096,
) -> RidgeChoiceOfEach:
    """Chooses the penalty of each target of a group by itself, on trials that the fit did not see.

    Args:
        solver: Fitted on `trials.fmri`.
        trials: Training trials.
        target: Name of the group in `trials.targets`.
        alphas: Penalties to try.
        folds: (n,) fold of each example, the folds left out in turn; None chooses on `validation`.
        validation: Validation trials.
        columns_a_block: Targets that are in memory at once.
    """
    group = trials.targets[target]
    grid = np.asarray(alphas, dtype=np.float64)
    chosen = np.empty(group.num_targets)
    total, num_at_edge = np.zeros(len(grid)), 0
    for start in range(0, group.num_targets, columns_a_block):
        columns = slice(start, min(start + columns_a_block, group.num_targets))
        values = torch.from_numpy(group.columns(columns))
        if folds is not None:
            errors = solver.fold_errors_of_each(values, folds, alphas)
        else:
            assert validation is not None
            held_out = torch.from_numpy(validation.targets[target].columns(columns))
            errors = solver.held_out_errors_of_each(validation.fmri, values, held_out, alphas)
        best = errors.argmin(axis=0)
        chosen[columns] = grid[best]
        total += errors.sum(axis=1)
        # Where all penalties do alike, as with a constant target, none is at an end.
        differs = errors.max(axis=0) > errors.min(axis=0)
        num_at_edge += int(((best == 0) | (best == len(grid) - 1))[differs].sum())
    by_alpha = dict(zip(map(float, grid), map(float, total / group.num_targets), strict=True))
    return RidgeChoiceOfEach(chosen, by_alpha, num_at_edge / group.num_targets if len(grid) > 1 else 0.0)


def _inverse(factor: torch.Tensor) -> torch.Tensor:
    """The inverse of what has the lower Cholesky factor; of a large one by solving for the identity, in a fifth of the
    time of LAPACK's routine for it.
    """
    if len(factor) < _SMALLEST_SOLVED:
        return torch.cholesky_inverse(factor)
    return torch.cholesky_solve(torch.eye(len(factor), dtype=factor.dtype), factor)


def consecutive_folds(labels: np.ndarray, num_folds: int) -> np.ndarray:
    """(n,) fold of each row: rows of one label stay together, and labels fill the folds in the order that they come in.

    Args:
        labels: (n,) such as the stimulus of each row; `np.arange(n)` divides single rows, as scikit-learn's `KFold`.
        num_folds: Number of folds; the first ones have a label more where they are not even.

    Raises:
        FmriModelsError: There are fewer labels than folds.
    """
    _, first, which = np.unique(labels, return_index=True, return_inverse=True)
    count = len(first)
    if count < num_folds:
        raise FmriModelsError(
            f"The training trials have {count} stimuli (or rows, or runs) to divide, and folds is {num_folds}; give "
            f"{count} folds at most."
        )
    place = np.empty(count, dtype=np.int64)
    place[np.argsort(first)] = np.arange(count)
    sizes = np.full(num_folds, count // num_folds)
    sizes[: count % num_folds] += 1
    return np.repeat(np.arange(num_folds), sizes)[place[which.reshape(-1)]]


def read_in_chunks(fmri: Patterns, dtype: torch.dtype) -> Iterator[tuple[slice, torch.Tensor]]:
    """Which examples, and their (examples, V) voxels: all of them, some at a time."""
    for start in range(0, len(fmri), _EXAMPLES_A_CHUNK):
        examples = np.arange(start, min(start + _EXAMPLES_A_CHUNK, len(fmri)))
        yield slice(start, start + len(examples)), torch.from_numpy(np.asarray(fmri[examples])).to(dtype)


def spaced_columns(count: int, most: int) -> np.ndarray:
    """Which of `count` targets decide for all: all of them, or that many at even distances."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def missing_validation() -> FmriModelsError:
    """What is raised where a penalty is to be chosen on validation trials, and there are none."""
    return FmriModelsError(
        "The split has no validation trials to choose the penalty on; write one with `fmri-models data split`, or set "
        "selection=leave_one_stimulus_out in the recipe."
    )
