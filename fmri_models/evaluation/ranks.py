"""What a rank among all candidates says about success among some of them that are drawn at random."""

import math

import torch
from torch import Tensor


def chance_of_fewer(marked: int, total: int, drawn: int, limit: int) -> float:
    """Probability that fewer than `limit` of `drawn` out of `total`, `marked` of them marked, are marked."""
    ways = sum(math.comb(marked, k) * math.comb(total - marked, drawn - k) for k in range(limit))
    return ways / math.comb(total, drawn)


def hits_from_ranks(not_beaten: Tensor, others: int, top_k: int, pool_size: int | None = None) -> Tensor:
    """Success from the number of other candidates that an item does not beat.

    Args:
        not_beaten: Any shape, whole numbers; more than `others` for an undefined similarity, which never succeeds.
        others: Number of other candidates.
        top_k: Rank that counts as success.
        pool_size: For the expectation over random pools of that size; None for all candidates.

    Returns:
        float64 of the same shape: 0 or 1, or a probability if `pool_size` is given.
    """
    if pool_size is None or pool_size > others:
        return (not_beaten < top_k).double()
    counts, place = not_beaten.long().clamp(max=others + 1).unique(return_inverse=True)
    chances = [
        0.0 if count > others else chance_of_fewer(count, others, pool_size - 1, top_k) for count in counts.tolist()
    ]
    return torch.tensor(chances, dtype=torch.float64, device=not_beaten.device)[place]
