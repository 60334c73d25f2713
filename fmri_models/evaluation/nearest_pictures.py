"""The most similar of many vectors, which are read a batch at a time, among nested random subsets of them."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch


def unit_vectors(values: torch.Tensor) -> torch.Tensor:
    """(N, values) float32 of length one; a vector of zeros stays."""
    return torch.nn.functional.normalize(values.flatten(1).float(), dim=1)


def most_similar(
    queries: Sequence[torch.Tensor], batches: Iterable[np.ndarray], ranks: np.ndarray, sizes: Sequence[int], depth: int
) -> list[np.ndarray]:
    """For several sets of queries, the most similar vectors (cosine) in each of several nested subsets.

    Args:
        queries: Each (N, values) of [`unit_vectors`].
        batches: (n, values) vectors, one batch after the other, M in all.
        ranks: (M,) which of a random order each vector is, from 0; -1 for one that is left out.
        sizes: The first so many of that order are a subset; ascending.
        depth: How many of the most similar are told.

    Returns:
        For each set of queries (sizes, N, depth) positions among the M, the most similar first; -1 where a subset has
        fewer.
    """
    bounds = np.asarray(sizes)
    best = [_Best(len(bounds), len(each), depth) for each in queries]
    start = 0
    for batch in batches:
        own = ranks[start : start + len(batch)]
        # The smallest subset that a vector is in.
        smallest = np.where(own < 0, len(bounds), np.searchsorted(bounds, own, side="right"))
        for number in np.unique(smallest[smallest < len(bounds)]):
            chosen = np.flatnonzero(smallest == number)
            vectors = unit_vectors(torch.from_numpy(np.array(batch[chosen], dtype=np.float32)))
            for kept, each in zip(best, queries, strict=True):
                kept.add(number, each @ vectors.T, torch.from_numpy(start + chosen))
        start += len(batch)
    return [each.nested() for each in best]


class _Best:
    """The most similar vectors of each query, of those that are in a subset and in no smaller one."""

    def __init__(self, subsets: int, queries: int, depth: int) -> None:
        self._similarity = torch.full((subsets, queries, depth), -torch.inf)
        self._position = torch.full((subsets, queries, depth), -1, dtype=torch.long)
        self._depth = depth

    def add(self, subset: int, similarity: torch.Tensor, positions: torch.Tensor) -> None:
        every = torch.cat([self._similarity[subset], similarity], dim=1)
        where = torch.cat([self._position[subset], positions.expand(len(similarity), -1)], dim=1)
        self._similarity[subset], self._position[subset] = self._first(every, where)

    def nested(self) -> np.ndarray:
        """(subsets, queries, depth) positions of the most similar in a subset with all smaller ones."""
        found = [self._position[0]]
        similarity = self._similarity[0]
        for subset in range(1, len(self._position)):
            every = torch.cat([similarity, self._similarity[subset]], dim=1)
            similarity, positions = self._first(every, torch.cat([found[-1], self._position[subset]], dim=1))
            found.append(positions)
        return torch.stack(found).numpy()

    def _first(self, similarity: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        # Of equally similar ones the first, however vectors were put into batches.
        order = similarity.sort(dim=1, descending=True, stable=True).indices[:, : self._depth]
        return similarity.gather(1, order), positions.gather(1, order)
