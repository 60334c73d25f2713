"""Sparse linear regression with automatic relevance determination (SLiR), which prunes voxels while it fits."""

from dataclasses import dataclass

import torch

_SMALLEST = 1e-15
# A voxel whose weight varies that much less than the one that varies most is left out for good.
_PRUNED_BELOW = 1e-10
_CONVERGED_BELOW = 1e-10
_FIRST_TEST_OF_CONVERGENCE = 100


@dataclass(frozen=True, eq=False)
class SparseWeights:
    """What sparse regression finds.

    Args:
        weights: (V,) with 0 for voxels that were pruned.
        variances: (V,) prior variance of each weight, 0 for those that were pruned.
        noise_variance: Of the target around its prediction.
        kept: (K,) voxels that are left, ascending; none where nothing is relevant, and then 0 is predicted.
    """

    weights: torch.Tensor
    variances: torch.Tensor
    noise_variance: float
    kept: torch.Tensor


def sparse_regression(fmri: torch.Tensor, target: torch.Tensor, iterations: int = 200) -> SparseWeights:
    """Variational regression in which each voxel's weight has a prior variance of its own (Toda et al., 2011, as in
    KamitaniLab's SLiR): a voxel whose variance goes to 0 is pruned.

    There is no intercept, and nothing is centred: give standardised voxels, and a column of ones. It is not the
    automatic relevance determination of scikit-learn, whose update of the variances is another one.

    Args:
        fmri: (n, V) float64.
        target: (n,) float64.
        iterations: At most; from the 101st on it may end earlier.
    """
    num_examples, num_voxels = fmri.shape
    kept = torch.arange(num_voxels)
    patterns = fmri
    squares = float(target.square().sum())
    spread = float(target.var(correction=0))
    cross = patterns.T @ target
    mean_square = float(patterns.square().mean())
    variances = torch.full((num_voxels,), max(1 / max(mean_square, _SMALLEST), _SMALLEST), dtype=fmri.dtype)
    weights = torch.zeros_like(variances)
    noise = spread
    covariance: torch.Tensor | None = None
    if spread == 0 and squares == 0:
        return _spread_out(num_voxels, kept[:0], weights[:0], variances[:0], 0.0)
    for iteration in range(iterations):
        if num_examples < len(kept):
            weights, gain = _by_examples(patterns, cross, variances)
        else:
            covariance = patterns.T @ patterns if covariance is None else covariance
            weights, gain = _by_voxels(covariance, cross, variances)
        noise = (squares - float(weights @ cross)) / num_examples
        if noise < _SMALLEST * max(spread, _SMALLEST):
            residual = float((target - patterns @ weights).square().sum())
            noise = max((residual + float((weights.square() / variances).sum())) / num_examples, _SMALLEST)
        updated = (variances * (weights.square() / noise) / gain.clamp(min=_SMALLEST)).sqrt()
        relevant = updated > _PRUNED_BELOW * updated.max()
        if not relevant.any():
            return _spread_out(num_voxels, kept[:0], weights[:0], variances[:0], noise)
        if not relevant.all():
            kept, updated, weights, cross = kept[relevant], updated[relevant], weights[relevant], cross[relevant]
            patterns = patterns[:, relevant]
            covariance = None if covariance is None else covariance[relevant][:, relevant]
        elif iteration > _FIRST_TEST_OF_CONVERGENCE and float((updated - variances).abs().max()) < _CONVERGED_BELOW:
            variances = updated
            break
        variances = updated
    return _spread_out(num_voxels, kept, weights, variances, noise)


def _by_examples(
    patterns: torch.Tensor, cross: torch.Tensor, variances: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights and gains of more voxels than examples, by a system as large as the examples are many."""
    scaled = patterns * variances
    system = scaled @ patterns.T
    system.diagonal().add_(1)
    # (V, n): C⁻¹ applied to each voxel.
    solved = torch.cholesky_solve(patterns, torch.linalg.cholesky(system)).T
    weights = cross * variances
    weights = weights - variances * (patterns.T @ (solved.T @ weights))
    return weights, variances * (patterns.T * solved).sum(dim=1)


def _by_voxels(
    covariance: torch.Tensor, cross: torch.Tensor, variances: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights and gains of as many voxels as examples, or fewer.

    With D the square roots of the variances, S⁻¹ = (XXᵀ + A⁻¹)⁻¹ = D(DXXᵀD + I)⁻¹D, which no small variance makes
    singular; the gains are the diagonal of XXᵀS⁻¹.
    """
    root = variances.sqrt()
    system = root[:, None] * covariance * root
    system.diagonal().add_(1)
    factor = torch.linalg.cholesky(system)
    weights = root * torch.cholesky_solve((root * cross)[:, None], factor).squeeze(1)
    inverse = root[:, None] * torch.cholesky_inverse(factor) * root
    return weights, (covariance * inverse).sum(dim=1)


def _spread_out(
    num_voxels: int, kept: torch.Tensor, weights: torch.Tensor, variances: torch.Tensor, noise: float
) -> SparseWeights:
    whole = [values.new_zeros(num_voxels).index_copy(0, kept, values) for values in (weights, variances)]
    return SparseWeights(whole[0], whole[1], noise, kept)
