"""Test pictures that are apart from all others by tau, and of the same distribution as they.

1. Pictures nearer to each other than tau are neighbours. What hangs together in few of them (near copies, a burst of
   one scene) is a unit; of what hangs together in many, as the dense middle of a set does, each picture is one.
2. Units are drawn at random until as many pictures are tested as wanted. Each picture is as likely to be as any other.
3. Neighbours of tested pictures are left out. They lie where pictures are dense, so that training has fewer of these
   than the test has.
4. Tested pictures are exchanged for others until the mean discrepancy of both parts is no larger than that of two
   random parts is on average, with no more left out than before.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import connected_components

from ..errors import FmriModelsError
from .embedding_distances import near_pairs, nearest_distances
from .mean_discrepancy import Discrepancy, mean_discrepancy, median_distance, random_features
from .stimulus_embeddings import ROUNDING

# The most pictures that a unit may have, and what share of the test. Units of many would be whole clusters, of which a
# test has too few to be of the distribution that training is of.
_LARGEST_UNIT, _LARGEST_SHARE = 5, 0.1
# Where a chosen tau can't be matched: the next one, how often, and what counts as matched.
_SMALLER, _TRIES, _MATCHED = 0.85, 8, 0.05
_HALVINGS = 16
_TRIED_A_SWAP = 48
_MOST_SWAPS = 4000
_MOST_FAILURES = 30


@dataclass
class Separation:
    """What is tested and what is left to learn from.

    Args:
        tau: Least distance of both.
        tested: (N,) bool.
        learned: (N,) bool; pictures that are neither are in no part.
        drawn: Both of them before they were matched.
        random: (N,) bool, as many tested ones drawn at random, where nothing is left out.
        width: Of the kernel by which they were matched.
        seed: Of the draw.
    """

    tau: float
    tested: np.ndarray
    learned: np.ndarray
    drawn: tuple[np.ndarray, np.ndarray]
    random: np.ndarray
    width: float
    seed: int

    @property
    def kept(self) -> float:
        """Share of what is not tested that is left."""
        return float(self.learned.sum() / max(1, (~self.tested).sum()))

    def discrepancies(self, values: np.ndarray, learned: np.ndarray) -> dict[str, Discrepancy | None]:
        """Both parts compared (""), as they were `_before_matching`, and as many `_of_random` ones.

        Args:
            values: (N, D) embeddings.
            learned: (N,) what is learned from in the end.
        """
        parts = {
            "": (self.tested, learned),
            "_before_matching": self.drawn,
            "_of_random": (self.random, ~self.random),
        }
        return {
            name: mean_discrepancy(values[one], values[other], self.width, seed=self.seed)
            for name, (one, other) in parts.items()
        }


def separation(values: np.ndarray, wanted: int, tau: float, seed: int) -> Separation:
    """Test pictures apart by a given tau, with as much left as a random draw leaves.

    Args:
        values: (N, D) float32 of length 1.
        wanted: How many are tested.
        tau: Least cosine distance.
        seed: Of the draw.

    Raises:
        FmriModelsError: Nothing is left to learn from, or too many pictures are near each other.
    """
    pairs = near_pairs(values, tau + ROUNDING)
    graph = _graph(len(values), *pairs[:2])
    units = _drawn_units(graph, wanted, seed)
    tested = _mask(len(values), units)
    learned = _learned(graph, tested)
    if not learned.any():
        raise FmriModelsError(
            f"With tau = {tau:.6g} every picture is near a tested one, and nothing is left to learn from; take a "
            "smaller tau."
        )
    return _matched(values, graph, units, wanted, tau, float(learned.sum() / (~tested).sum()), seed)


def largest_separation(values: np.ndarray, wanted: int, keep: float, seed: int) -> Separation | None:
    """Test pictures apart by the largest tau, found by halving, that leaves a share of the others and can be matched.

    Args:
        values: (N, D) float32 of length 1.
        wanted: How many are tested.
        keep: Share of the pictures that are not tested.
        seed: Of the draw.

    Returns:
        None where no tau above 0 does.
    """
    count = len(values)
    random = _random(count, wanted, seed)
    apart = nearest_distances(values[~random], values[random])
    # A draw of units leaves more than one of pictures, but not twice as much is lost without them.
    most = float(np.quantile(apart, min(1.0, 1 - keep / 2)))
    while True:
        try:
            one, other, distance = near_pairs(values, most + ROUNDING)
            break
        except FmriModelsError:
            most /= 2
    low, high, best = 0.0, most, None
    for _ in range(_HALVINGS):
        tau = (low + high) / 2
        found = _at(count, one, other, distance, tau, wanted, keep, seed)
        if found is None:
            high = tau
        else:
            low, best = tau, found
    tau = _rounded_down(low)
    if best is None or tau <= ROUNDING:
        return None
    for _ in range(_TRIES):
        # Of other neighbours than those of `low`: what is drawn leaves as much, or what was drawn there is taken.
        graph, units = _at(count, one, other, distance, tau, wanted, keep, seed) or best
        matched = _matched(values, graph, units, wanted, tau, keep, seed)
        compared = mean_discrepancy(values[matched.tested], values[matched.learned], matched.width, 200, seed)
        smaller = _rounded_down(_SMALLER * tau)
        if compared is None or compared.p >= _MATCHED or smaller <= ROUNDING:
            break
        tau = smaller
    return matched


def _rounded_down(tau: float) -> float:
    """To the six digits that are printed."""
    if tau <= ROUNDING:
        return 0.0
    digits = 10.0 ** (5 - math.floor(math.log10(tau)))
    return math.floor(tau * digits) / digits


def _at(
    count: int,
    one: np.ndarray,
    other: np.ndarray,
    distance: np.ndarray,
    tau: float,
    wanted: int,
    keep: float,
    seed: int,
) -> tuple[csr_matrix, list[np.ndarray]] | None:
    """The graph and the drawn units of a tau; None if they leave too little."""
    near = distance < tau + ROUNDING
    graph = _graph(count, one[near], other[near])
    units = _drawn_units(graph, wanted, seed)
    tested = _mask(count, units)
    return (graph, units) if _learned(graph, tested).sum() >= keep * (~tested).sum() else None


def _graph(count: int, one: np.ndarray, other: np.ndarray) -> csr_matrix:
    """(N, N) which pictures are neighbours, each pair both ways."""
    places = (np.concatenate([one, other]), np.concatenate([other, one]))
    return coo_matrix((np.ones(len(places[0]), dtype=np.int8), places), shape=(count, count)).tocsr()


def _drawn_units(graph: csr_matrix, wanted: int, seed: int) -> list[np.ndarray]:
    """Units with as many pictures as wanted together, or a few less."""
    units = _units(graph, wanted)
    chosen, count = [], 0
    for place in np.random.default_rng(seed).permutation(len(units)):
        unit = units[place]
        if count + len(unit) <= wanted:
            chosen.append(unit)
            count += len(unit)
        if count == wanted:
            break
    return chosen


def _units(graph: csr_matrix, wanted: int) -> list[np.ndarray]:
    """Pictures that are tested together or not at all, in the order of the first of each."""
    most = max(1, min(_LARGEST_UNIT, int(_LARGEST_SHARE * wanted)))
    _, label = connected_components(graph, directed=False)
    order = np.argsort(label, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(label[order])) + 1)
    units = [unit for group in groups for unit in ([group] if len(group) <= most else np.split(group, len(group)))]
    return sorted(units, key=lambda unit: int(unit[0]))


def _mask(count: int, units: list[np.ndarray]) -> np.ndarray:
    mask = np.zeros(count, dtype=bool)
    for unit in units:
        mask[unit] = True
    return mask


def _learned(graph: csr_matrix, tested: np.ndarray) -> np.ndarray:
    """(N,) what is not tested and no neighbour of anything that is."""
    return ~tested & (graph @ tested.astype(np.int32) == 0)


def _random(count: int, wanted: int, seed: int) -> np.ndarray:
    chosen = np.zeros(count, dtype=bool)
    chosen[np.random.default_rng([seed, 1]).permutation(count)[:wanted]] = True
    return chosen


def _matched(
    values: np.ndarray,
    graph: csr_matrix,
    units: list[np.ndarray],
    wanted: int,
    tau: float,
    keep: float,
    seed: int,
) -> Separation:
    """Exchanges tested units for others until both parts are as alike as random ones."""
    count = len(values)
    width = median_distance(values, seed)
    drawn = _mask(count, units)
    exchange = _Exchange(graph, random_features(values, width, seed=seed), drawn, keep)
    exchange.run(_units(graph, wanted), np.random.default_rng([seed, 2]))
    random = _random(count, int(drawn.sum()), seed)
    return Separation(tau, exchange.tested, exchange.learned, (drawn, _learned(graph, drawn)), random, width, seed)


class _Exchange:
    """Which pictures are tested, learned from and left out, and how alike the first two are, as units are exchanged.

    Args:
        graph: (N, N) neighbours.
        features: (N, F) whose inner products are about the kernel.
        tested: (N,) to begin with.
        keep: Share of what is not tested that has to be left, as is at the beginning.
    """

    def __init__(self, graph: csr_matrix, features: np.ndarray, tested: np.ndarray, keep: float) -> None:
        self._indptr, self._indices = graph.indptr, graph.indices
        self._features = features
        self._keep = keep
        self.tested = tested.copy()
        # How many of each picture's neighbours are tested.
        self._near = graph @ tested.astype(np.int32)
        self._sums = (
            features[self.tested].sum(axis=0, dtype=np.float64),
            features[self.learned].sum(axis=0, dtype=np.float64),
        )
        self._counts = int(self.tested.sum()), int(self.learned.sum())
        mean = features.mean(axis=0, dtype=np.float64)
        # What the kernel of two different pictures is less than 1 on average.
        self._spread = max(0.0, 1 - float(mean @ mean))

    @property
    def learned(self) -> np.ndarray:
        return ~self.tested & (self._near == 0)

    def run(self, units: list[np.ndarray], rng: np.random.Generator) -> None:
        """Exchanges the tested unit that the test has too much of for the best of some others, while that helps."""
        failures = 0
        tried: set[int] = set()
        tested_units = {place for place, unit in enumerate(units) if self.tested[unit].all()}
        current = self._excess(*self._sums, *self._counts)
        for _ in range(_MOST_SWAPS):
            if current <= 0 or failures >= _MOST_FAILURES:
                return
            leaving = self._leaving(units, tested_units - tried)
            if leaving is None:
                return
            others = [
                int(place)
                for place in rng.integers(len(units), size=4 * _TRIED_A_SWAP)
                if place not in tested_units and len(units[place]) == len(units[leaving])
            ][:_TRIED_A_SWAP]
            best: tuple[float, int] | None = None
            for place in others:
                self._move(units[leaving], units[place])
                excess, kept = (
                    self._excess(*self._sums, *self._counts),
                    self._counts[1] / (len(self.tested) - self._counts[0]),
                )
                if kept >= self._keep and (best is None or excess < best[0]):
                    best = excess, place
                self._move(units[place], units[leaving])
            if best is None or best[0] >= current:
                failures += 1
                tried.add(leaving)
                continue
            self._move(units[leaving], units[best[1]])
            tested_units = (tested_units - {leaving}) | {best[1]}
            current, failures = best[0], 0
            tried.clear()

    def _excess(self, of_tested: np.ndarray, of_learned: np.ndarray, tested: int, learned: int) -> float:
        """By how much the squared discrepancy is larger than that of random parts of these sizes is on average."""
        if not tested or not learned:
            return math.inf
        apart = of_tested / tested - of_learned / learned
        return float(apart @ apart) - (1 / tested + 1 / learned) * self._spread

    def _leaving(self, units: list[np.ndarray], candidates: set[int]) -> int | None:
        """The tested unit of which there are most like it in the test, as compared with the training."""
        if not candidates:
            return None
        (of_tested, of_learned), (tested, learned) = self._sums, self._counts
        witness = (of_tested / tested - of_learned / max(1, learned)).astype(np.float32)
        in_order = sorted(candidates)
        first = np.array([units[place][0] for place in in_order])
        return in_order[int((self._features[first] @ witness).argmax())]

    def _move(self, out: np.ndarray, into: np.ndarray) -> None:
        """Takes a unit out of the test and another one into it."""
        touched = np.unique(np.concatenate([out, into, *(self._neighbours(each) for each in (*out, *into))]))
        before_tested, before_learned = self.tested[touched].copy(), self.learned_at(touched)
        for unit, tested in ((out, False), (into, True)):
            self.tested[unit] = tested
            for picture in unit:
                self._near[self._neighbours(picture)] += 1 if tested else -1
        change = self.tested[touched].astype(np.float64) - before_tested
        change_learned = self.learned_at(touched).astype(np.float64) - before_learned
        rows = self._features[touched]
        self._sums = self._sums[0] + change @ rows, self._sums[1] + change_learned @ rows
        self._counts = self._counts[0] + int(change.sum()), self._counts[1] + int(change_learned.sum())

    def learned_at(self, places: np.ndarray) -> np.ndarray:
        """Which of some pictures are learned from."""
        found: np.ndarray = ~self.tested[places] & (self._near[places] == 0)
        return found

    def _neighbours(self, picture: int) -> np.ndarray:
        return self._indices[self._indptr[picture] : self._indptr[picture + 1]]
