"""Among how many each item is searched, from which follows what guessing scores."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .bootstrap import stimulus_means
from .scored_items import ScoredItems


@dataclass
class Guessing:
    """Among how many each of N items is searched.

    Args:
        stimuli: (N,) stimuli of its subject, seed and fold.
        items: (N,) items of other stimuli there, and itself.
        correlated: (N,) stimuli there whose picture is not constant; 0 of an item whose own picture is.
        pool_size: Of smaller pools that the protocol draws; None for none.
        among_reconstructions: Whether the protocol tells a reconstruction from others, and not what was shown.
        units: (N,) what counts once in means, as of the scores; each item if None.
    """

    stimuli: np.ndarray
    items: np.ndarray
    correlated: np.ndarray
    pool_size: int | None = None
    among_reconstructions: bool = False
    units: np.ndarray | None = None

    @classmethod
    def of(
        cls,
        items: ScoredItems,
        strata: Sequence[np.ndarray],
        constant: np.ndarray,
        pool_size: int | None,
        among_reconstructions: bool,
    ) -> "Guessing":
        """Counts the items of each subject, seed and fold.

        Args:
            items: All N.
            strata: Positions of those of each subject, seed and fold.
            constant: (N,) whether an item's true picture is one value throughout.
            pool_size: As above.
            among_reconstructions: As above.
        """
        stimuli, others, correlated = (np.empty(len(items.ids)) for _ in range(3))
        for positions in strata:
            _, own, counts = np.unique(items.stimuli[positions], return_inverse=True, return_counts=True)
            stimuli[positions] = len(counts)
            others[positions] = len(positions) - counts[own] + 1
            varied = len(np.unique(items.stimuli[positions][~constant[positions]]))
            correlated[positions] = np.where(constant[positions], 0, varied)
        return cls(stimuli, others, correlated, pool_size, among_reconstructions, items.stimuli)

    def chance(self, candidates: np.ndarray, top_k: int, pool_size: int | None = None) -> float:
        """How often guessing is among the first k: the mean over stimuli, which is what scores are a mean over.

        Args:
            candidates: (N,) among how many each item is searched; NaN for one that has no score.
            top_k: Rank that counts as success.
            pool_size: Of smaller pools; None for all candidates.
        """
        pool = candidates if pool_size is None else np.minimum(candidates, pool_size)
        hits = np.minimum(1.0, top_k / pool)
        if np.isnan(hits).all():
            # Where nothing is searched there is nothing to be wrong about.
            return 1.0
        return float(stimulus_means(hits, np.arange(len(hits)) if self.units is None else self.units).mean())
