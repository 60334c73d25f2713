"""Equations of targets that each read voxels of their own: rows and columns of one Gram matrix."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from scipy.linalg.lapack import get_lapack_funcs
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from ..errors import FmriModelsError

# Equations of fewer voxels are solved for many targets in one call of PyTorch, in float64; of more, target by target,
# where the call costs little and float32 takes half of the time.
SMALLEST_SOLVED_ALONE = 128
# Values of the equations that are solved for in one call.
_VALUES_AT_ONCE = 2**24
# Rows of the Gram matrix that are read at a time: with some thousand columns they stay in the processor's cache.
_ROWS_AT_ONCE = 32


def solved_for_each(gram: torch.Tensor, own: torch.Tensor, right: torch.Tensor, alpha: float) -> torch.Tensor | None:
    """Solves (G_t + αI) w = r for each of some targets, G_t being the rows and columns of its voxels.

    Args:
        gram: (V, V) float32 or float64, which is that of the solution.
        own: (T, K) voxels of each target.
        right: (T, K).
        alpha: The penalty.

    Returns:
        (T, K); None if one is singular to working precision.
    """
    if own.shape[1] < SMALLEST_SOLVED_ALONE:
        return _together(gram, own, right, alpha)
    return _one_by_one(gram.numpy(), own.numpy(), right.to(gram.dtype).numpy(), alpha)


def too_small(alpha: float) -> FmriModelsError:
    """What is raised where the equations of a penalty can't be solved."""
    return FmriModelsError(
        f"The penalty {alpha:g} is too small for the selected voxels (the equations are singular to working "
        "precision); choose a larger one."
    )


def at_once(count: int, values_of_each: int) -> Iterator[slice]:
    """Slices of `count` things, each of as many as have 16 million values together."""
    size = max(1, _VALUES_AT_ONCE // max(1, values_of_each))
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def _together(gram: torch.Tensor, own: torch.Tensor, right: torch.Tensor, alpha: float) -> torch.Tensor | None:
    weights = torch.empty(own.shape, dtype=gram.dtype)
    for some in at_once(len(own), own.shape[1] ** 2):
        systems = gram[own[some, :, None], own[some, None, :]]
        systems.diagonal(dim1=1, dim2=2).add_(alpha)
        factor, failed = torch.linalg.cholesky_ex(systems)
        if failed.any():
            return None
        weights[some] = torch.cholesky_solve(right[some, :, None], factor).squeeze(-1)
    return weights


def _one_by_one(gram: np.ndarray, own: np.ndarray, right: np.ndarray, alpha: float) -> torch.Tensor | None:
    """Targets on as many threads as PyTorch has: while one waits for memory, another one computes."""
    weights = np.empty(own.shape, gram.dtype)
    threads = torch.get_num_threads()
    parts = np.array_split(np.arange(len(own)), min(len(own), 4 * threads))
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(threads) as pool:
        solved = pool.map(lambda some: _solved(gram, alpha, own[some], right[some], weights[some[0] :]), parts)
        return torch.from_numpy(weights) if all(solved) else None


def _solved(gram: np.ndarray, alpha: float, own: np.ndarray, right: np.ndarray, weights: np.ndarray) -> bool:
    """Writes the solution (K,) of each target; false where one is singular to working precision."""
    size = own.shape[1]
    system = np.empty((size, size), gram.dtype)
    factorised, solved = get_lapack_funcs(("potrf", "potrs"), (system,))
    for target, voxels in enumerate(own):
        # LAPACK counts in columns: what is right of the diagonal here is its lower triangle, and it reads no more.
        for start in range(0, size, _ROWS_AT_ONCE):
            rows = gram[voxels[start : start + _ROWS_AT_ONCE]]
            system[start : start + _ROWS_AT_ONCE, start:] = rows.take(voxels[start:], axis=1)
        system.flat[:: size + 1] += alpha
        factor, failed = factorised(system.T, lower=1, clean=0, overwrite_a=1)
        if failed:
            return False
        weights[target] = solved(factor, right[target], lower=1)[0]
    return True
