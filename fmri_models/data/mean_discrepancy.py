"""Whether two sets of embeddings are of one distribution: the maximum mean discrepancy, and its permutation null.

Gretton et al. (2012), *A kernel two-sample test*: the unbiased estimate of MMD², which is 0 on average for two samples
of one distribution and may be negative. The kernel is exp(-d² / (2 s²)) of the Euclidean distance d, and s the median
distance of different pictures.
"""

from dataclasses import dataclass

import numpy as np

PERMUTATIONS = 1000
# Of either set; more are drawn from.
MOST_COMPARED = 1500
_FOR_THE_MEDIAN = 1000


@dataclass(frozen=True)
class Discrepancy:
    """How far two sets of embeddings are from being of one distribution.

    Args:
        mmd2: Unbiased estimate of the squared maximum mean discrepancy.
        p: Share of ways to exchange members that give one at least as large, the true way being one of them.
        compared: How many members of either set were compared.
    """

    mmd2: float
    p: float
    compared: tuple[int, int]


def median_distance(values: np.ndarray, seed: int = 0) -> float:
    """The median distance of different vectors, of at most 1,000 that are drawn; the kernel's width.

    Args:
        values: (n, D) float32 of length 1, not all the same.
        seed: Draws them.
    """
    chosen = _drawn(values, _FOR_THE_MEDIAN, np.random.default_rng(seed))
    apart = np.sqrt(np.maximum(_squared(chosen, chosen)[np.triu_indices(len(chosen), 1)], 0))
    # Copies are no distance, and where most pictures are copies the median would be none either.
    different = apart[apart > 1e-3]
    return float(np.median(different)) if len(different) else 1.0


def mean_discrepancy(
    first: np.ndarray, second: np.ndarray, width: float, permutations: int = PERMUTATIONS, seed: int = 0
) -> Discrepancy | None:
    """Compares two sets.

    Args:
        first: (n, D) float32.
        second: (m, D) float32.
        width: Of the kernel, see [`median_distance`].
        permutations: How often members are exchanged at random.
        seed: Of these, and of what is drawn of sets that are larger than what is compared.

    Returns:
        None where one of them has fewer than two members.
    """
    rng = np.random.default_rng(seed)
    one, other = (_drawn(each, MOST_COMPARED, rng) for each in (first, second))
    n, m = len(one), len(other)
    if min(n, m) < 2:
        return None
    # In double precision: of thousands of members the estimate is the small rest of large sums.
    both = np.concatenate([one, other]).astype(np.float64)
    kernel = np.exp(-np.maximum(_squared(both, both), 0) / (2 * width**2))
    np.fill_diagonal(kernel, 0)
    total = float(kernel.sum())

    def estimates(members: np.ndarray) -> np.ndarray:
        """(ways,) of (n + m, ways) that is 1 where a member counts as one of the first set."""
        inner = kernel @ members
        of_first = (members * inner).sum(axis=0)
        across = inner.sum(axis=0) - of_first
        of_second = total - of_first - 2 * across
        return of_first / (n * (n - 1)) + of_second / (m * (m - 1)) - 2 * across / (n * m)

    true = np.zeros((n + m, 1))
    true[:n] = 1
    observed = float(estimates(true)[0])
    as_large, done = 1, 0
    while done < permutations:
        ways = min(250, permutations - done)
        members = np.zeros((n + m, ways))
        for way in range(ways):
            members[rng.permutation(n + m)[:n], way] = 1
        as_large += int((estimates(members) >= observed - 1e-9).sum())
        done += ways
    return Discrepancy(observed, as_large / (1 + permutations), (n, m))


def random_features(values: np.ndarray, width: float, count: int = 512, seed: int = 0) -> np.ndarray:
    """(n, count) float32 whose inner products are about the kernel (Rahimi & Recht, 2007).

    Args:
        values: (n, D) float32.
        width: Of the kernel.
        count: Even number of features; their error is about 1 over its root.
        seed: Of the random directions.
    """
    directions = np.random.default_rng(seed).standard_normal((values.shape[1], count // 2)).astype(np.float32) / width
    features = np.empty((len(values), count), dtype=np.float32)
    for start in range(0, len(values), 4096):
        angles = values[start : start + 4096] @ directions
        features[start : start + 4096] = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
    return features / np.float32(np.sqrt(count / 2))


def _squared(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(n, m) squared distances; vectors of any length."""
    return (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1)[None] - 2 * one @ other.T


def _drawn(values: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    return values if len(values) <= most else values[np.sort(rng.choice(len(values), most, replace=False))]
