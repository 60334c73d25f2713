"""Groups of examples that are left out together when a penalty is chosen."""

from collections.abc import Iterator

import numpy as np
import torch

_EXAMPLES_A_BATCH = 2048


def batches_of_groups(groups: np.ndarray) -> Iterator[np.ndarray]:
    """Positions as (groups, examples a group) batches of groups of one size, so that they are solved together.

    Args:
        groups: (n,) label of each row's group.
    """
    order = np.argsort(groups, kind="stable")
    _, starts, counts = np.unique(np.asarray(groups)[order], return_index=True, return_counts=True)
    for size in np.unique(counts):
        examples = np.stack([order[starts[counts == size] + offset] for offset in range(size)], axis=1)
        step = max(1, _EXAMPLES_A_BATCH // int(size))
        for start in range(0, len(examples), step):
            yield examples[start : start + step]


def solved_within_groups(systems: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """(G, m, T) solutions of symmetric systems (G, m, m), which are positive definite but for rounding."""
    factor, failed = torch.linalg.cholesky_ex(systems)
    return torch.linalg.solve(systems, right) if failed.any() else torch.cholesky_solve(right, factor)
