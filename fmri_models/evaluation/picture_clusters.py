"""Groups of pictures that are alike (k-means), how distinct they are, and which of them other pictures fall into."""

from dataclasses import dataclass

import numpy as np

CANDIDATES = (2, 3, 4, 5, 6, 8, 10, 12, 15, 20)
"""Numbers of clusters that are tried."""
FEWEST_PICTURES = 10
# Pictures that there are for each cluster, at least.
_PICTURES_A_CLUSTER = 5
# A clustering that parts few pictures from all others leaves nothing to be compared across, one that leaves most
# pictures in tiny clusters nothing within.
_LARGEST_SHARE = 0.8
_SMALLEST_SHARE_IN_CLUSTERS = 0.8
_DIMENSIONS = 50
_STARTS = 3
STRUCTURELESS = 19
"""Draws of structureless data: none of so many is as distinct by chance once in twenty."""


@dataclass(frozen=True)
class Clusters:
    """Groups of pictures.

    Args:
        labels: (n,) cluster of each picture, the largest cluster first.
        silhouette: Mean silhouette width (Rousseeuw, 1987): 1 for groups far apart, about 0 for none.
        structureless: (draws,) that of normally distributed data with the same covariance, clustered alike.
    """

    labels: np.ndarray
    silhouette: float
    structureless: np.ndarray

    @property
    def count(self) -> int:
        return int(self.labels.max()) + 1

    @property
    def are_distinct(self) -> bool:
        """Whether data without groups never look as grouped as these."""
        return bool(self.silhouette > self.structureless.max())


def cluster_pictures(vectors: np.ndarray, seed: int, draws: int = STRUCTURELESS) -> Clusters | None:
    """Groups of pictures; their number is the one of [`CANDIDATES`] with the largest silhouette.

    The vectors are brought to their first fifty principal components. Five pictures a cluster are needed; a number of
    clusters at which one of them holds more than four fifths of all pictures, or less than four fifths are in clusters
    of five or more, is taken only if there is no other.

    Args:
        vectors: (n, F) float, one of each picture.
        seed: Of the starts, and of structureless data.
        draws: Of structureless data.

    Returns:
        None with fewer than ten pictures, or where they do not differ.
    """
    scores = _principal_components(np.asarray(vectors, dtype=np.float64))
    if len(scores) < FEWEST_PICTURES or not scores.size:
        return None
    found = _best(scores, seed)
    if found is None:
        return None
    generator = np.random.default_rng(seed)
    without = []
    for _ in range(draws):
        drawn = _best(generator.standard_normal(scores.shape) * scores.std(axis=0), seed)
        without.append(-1.0 if drawn is None else drawn[1])
    _, labels = np.unique(found[0], return_inverse=True)
    order = np.argsort(-np.bincount(labels), kind="stable")
    return Clusters(np.argsort(order)[labels], found[1], np.asarray(without))


def radius_without_itself(vectors: np.ndarray) -> float | None:
    """How far the farthest picture of a cluster is from the mean of the others; None for a single one.

    A picture is nearer to a mean that it is part of than a new picture of the same cluster is, and as far from the mean
    of the others.

    Args:
        vectors: (m, F) of the pictures of a cluster.
    """
    count = len(vectors)
    if count < 2:
        return None
    distances = np.linalg.norm(vectors - vectors.mean(axis=0), axis=1)
    return float(distances.max() * count / (count - 1))


def _principal_components(vectors: np.ndarray) -> np.ndarray:
    """(n, components) of those that vary."""
    centred = vectors - vectors.mean(axis=0)
    values, basis = np.linalg.eigh(centred @ centred.T)
    kept = np.flatnonzero(values > 1e-9 * max(values.max(initial=0.0), 1e-30))[::-1][:_DIMENSIONS]
    if values.max(initial=0.0) <= 1e-12:
        kept = kept[:0]
    return np.asarray(basis[:, kept] * np.sqrt(values[kept]))


def _best(vectors: np.ndarray, seed: int) -> tuple[np.ndarray, float] | None:
    """Labels of the best clustering and its silhouette; None where all pictures are in one place."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score

    places = len(np.unique(vectors.round(9), axis=0))
    most = min(len(vectors) // _PICTURES_A_CLUSTER, places)
    found = []
    for count in CANDIDATES:
        if count > most:
            break
        labels = KMeans(count, n_init=_STARTS, random_state=seed % 2**32).fit_predict(vectors)
        sizes = np.bincount(labels)
        if (sizes > 0).sum() < 2:
            continue
        in_clusters = sizes[sizes >= _PICTURES_A_CLUSTER].sum()
        even = bool(
            sizes.max() <= _LARGEST_SHARE * len(vectors) and in_clusters >= _SMALLEST_SHARE_IN_CLUSTERS * len(vectors)
        )
        found.append((even, float(silhouette_score(vectors, labels)), labels))
    if not found:
        return None
    _, width, labels = max(found, key=lambda each: each[:2])
    return labels, width
