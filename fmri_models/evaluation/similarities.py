"""Similarities of two sets of vectors, as matrices in float64, and who beats whom in them."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import FmriModelsError

# Equal vectors may differ in the last bits after a matrix product in chunks; a margin keeps their tie a tie.
TIE_MARGIN = 1e-12

# Values of a set that are held in float64 at a time: 8 MiB, which processors still have near.
_VALUES_AT_ONCE = 2**20
# What is closer to zero than this times its vector's length is rounding.
_ROUNDING = 1e-12


class Correlated(NamedTuple):
    """Two sets of vectors, compared.

    Attributes:
        values: (T, N) float64, Pearson's r; NaN in the row or column of a constant vector.
        constant: (T,) which vectors of the first set are constant.
        other_constant: (N,) which ones of the second are.
    """

    values: Tensor
    constant: Tensor
    other_constant: Tensor


def correlated(one: Tensor, other: Tensor, chunk_size: int | None = None) -> Correlated:
    """Pearson's r of every vector of one set with every vector of another, and which are constant.

    Each value becomes float64 once, and no set as a whole: `numpy.corrcoef` holds both sets several times, and
    multiplies each with itself as well.

    Args:
        one: (T, ...) float.
        other: (N, ...) float of the same feature size.
        chunk_size: Features of all vectors that are held in float64 at a time; None for some 8 MiB.

    Raises:
        FmriModelsError: The feature sizes differ.
    """
    one, other = one.flatten(1), other.flatten(1)
    _require_equal_features(one, other)
    columns = _columns(one, other, chunk_size=chunk_size)
    moments = [_Moments(vectors, columns) for vectors in (one, other)]
    product = torch.zeros(len(one), len(other), dtype=torch.float64, device=one.device)
    for blocks in _feature_blocks(one, other, chunk_size=chunk_size):
        first, second = (each.shifted(block) for each, block in zip(moments, blocks, strict=True))
        product.addmm_(first, second.T)
    totals = [each.total for each in moments]
    product.sub_(torch.outer(totals[0], totals[1]), alpha=1 / one.shape[1])
    norms = [each.norm_unless_constant() for each in moments]
    product.div_(norms[0][:, None]).div_(norms[1])
    return Correlated(product, norms[0].isnan(), norms[1].isnan())


def correlation_matrix(truth_features: Tensor, recon_features: Tensor, chunk_size: int | None = None) -> Tensor:
    """The values of [`correlated`] alone: (T, N) float64, NaN in the row or column of a constant vector.

    Arguments and errors are those of `correlated`.
    """
    return correlated(truth_features, recon_features, chunk_size).values


def cosine_matrix(queries: Tensor, gallery: Tensor) -> Tensor:
    """Cosine of every vector of one set with every vector of another.

    Args:
        queries: (T, ...) float.
        gallery: (N, ...) float of the same feature size.

    Returns:
        (T, N) float64; NaN in the row or column of a zero vector.
    """
    product, *squares = _products(queries, gallery)
    norms = [total.sqrt().where(total > 0, torch.nan) for total in squares]
    return product.div_(norms[0][:, None]).div_(norms[1])


def squared_distances(one: Tensor, other: Tensor) -> Tensor:
    """Squared Euclidean distance of every vector of one set and every vector of another.

    Args:
        one: (T, ...) float.
        other: (N, ...) float of the same feature size.

    Returns:
        (T, N) float64, at least 0. It comes from scalar products, so that what is closer than 1e-15 of the vectors'
        squared length is rounding.
    """
    product, squares, other_squares = _products(one, other)
    return product.mul_(-2).add_(squares[:, None]).add_(other_squares).clamp_(min=0)


def correlations_of_pairs(one: Tensor, other: Tensor) -> Tensor:
    """(N,) Pearson's r of each vector of (N, F) with the one at the same position; NaN where one is constant."""
    return (_standardised(one) * _standardised(other)).sum(1)


def is_constant(features: Tensor) -> Tensor:
    """(N,) whether a vector is the same value throughout, up to rounding, so that it correlates with nothing."""
    features = features.flatten(1)
    moments = _Moments(features, _columns(features))
    for (block,) in _feature_blocks(features):
        moments.shifted(block)
    return moments.norm_unless_constant().isnan()


def identification_shares(
    similarity: Tensor, groups: Sequence[Any] | None = None, constant: Tensor | None = None
) -> Tensor:
    """Share of other rows that each entry of a column beats; the diagonal is two-way identification.

    Entry (i, j) is the score that reconstruction j would have if picture i were the one shown, so a permutation test
    only looks values up.

    Args:
        similarity: (T, N); rows are candidates.
        groups: T labels; only rows of the same label are compared.
        constant: (T,) rows whose similarity to anything is undefined; nothing is compared with them. It takes more
            than `similarity` to know them, because all of a column is undefined as well.

    Returns:
        (T, N) float64; NaN where a row has nothing to be compared with, or is itself constant.
    """
    shares = torch.full_like(similarity, float("nan"))
    for positions in positions_by_label(groups, len(similarity)):
        compared = positions if constant is None else positions[~constant.cpu()[positions]]
        if len(compared) > 1:
            shares[compared] = wins_in_columns(similarity[compared]) / (len(compared) - 1)
    return shares


def best_of_all(shares: Tensor) -> Tensor:
    """Whether every other is beaten, of shares that are; NaN where there is none."""
    return (shares == 1).double().masked_fill(shares.isnan(), torch.nan)


def wins_in_columns(similarity: Tensor) -> Tensor:
    """Number of entries of the same column that each entry exceeds by more than rounding; NaN exceeds nothing."""
    columns = similarity.T.contiguous()
    # An undefined entry is never beaten; NaN itself would also derail the binary search.
    in_order = columns.nan_to_num(nan=float("inf")).sort(dim=1).values
    wins = torch.searchsorted(in_order, columns - TIE_MARGIN).double()
    return wins.masked_fill(columns.isnan(), 0.0).T


def losses_in_columns(similarity: Tensor) -> Tensor:
    """Number of other entries of the same column that each entry does not exceed by more than rounding.

    An undefined entry (NaN) is not better than anything; its own number is more than there are others.
    """
    defined = ~similarity.isnan()
    losses = defined.sum(0) - 1 - wins_in_columns(similarity)
    return losses.masked_fill(~defined, float(len(similarity)))


def not_exceeded_in_columns(similarity: Tensor) -> Tensor:
    """Share of the other entries of the same column that do not exceed an entry; those equal but for rounding do not.

    An undefined entry (NaN) exceeds all others, and has 0 itself.

    Args:
        similarity: (C, N) of two candidates or more, and items.
    """
    ascending = similarity.nan_to_num(nan=torch.inf).T.contiguous().sort(dim=1).values
    own = similarity.T.contiguous()
    counted = torch.searchsorted(ascending, own + TIE_MARGIN, right=True) - 1
    return (counted / (len(similarity) - 1)).masked_fill(own.isnan(), 0.0).T


def wins_in_rows(similarity: Tensor, truth_index: Tensor) -> tuple[Tensor, Tensor]:
    """How many items of other stimuli each entry of a row beats, and how many of them are defined (NaN is not).

    Args:
        similarity: (T, N) of stimuli and items.
        truth_index: (N,) the stimulus of each item.

    Returns:
        Two (T, N) of numbers.
    """
    defined = (~similarity.isnan()).double()
    wins = wins_in_columns(similarity.T).T.clone()
    rivals = defined.sum(1, keepdim=True).repeat(1, similarity.shape[1])
    for stimulus in truth_index.unique():
        same = (truth_index == stimulus).nonzero()[:, 0]
        wins[:, same] -= wins_in_columns(similarity[:, same].T).T
        rivals[:, same] -= defined[:, same].sum(1, keepdim=True)
    return wins, rivals


def losses_in_rows(similarity: Tensor, truth_index: Tensor) -> tuple[Tensor, Tensor]:
    """How many items of other stimuli each entry of a row does not beat; an undefined one (NaN) is better than none.

    Args:
        similarity: (T, N) of stimuli and items.
        truth_index: (N,) the stimulus of each item; items of one stimulus are not compared with each other.

    Returns:
        (T, N) numbers of items not beaten, of an undefined entry more than there are, and (N,) numbers of items of
        other stimuli.
    """
    wins, rivals = wins_in_rows(similarity, truth_index)
    others = (truth_index[:, None] != truth_index).sum(0)
    return (rivals - wins).masked_fill(similarity.isnan(), float(similarity.shape[1])), others


def positions_by_label(groups: Sequence[Any] | None, count: int) -> list[Tensor]:
    """Positions of the items of each label, in the order of the labels' first ones; without labels, all of them.

    Raises:
        FmriModelsError: There are not as many labels as items.
    """
    if groups is None:
        return [torch.arange(count)]
    if len(groups) != count:
        raise FmriModelsError(f"There are {len(groups)} group labels for {count} pictures; expected one for each.")
    positions: dict[Any, list[int]] = {}
    for position, label in enumerate(groups):
        positions.setdefault(label, []).append(position)
    return [torch.tensor(alike) for alike in positions.values()]


def row_chunks(*sets: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The same vectors of sets (N, F), so many at a time as are held in float64 at once."""
    rows = max(1, _VALUES_AT_ONCE // sets[0].shape[1])
    return zip(*(vectors.split(rows) for vectors in sets), strict=True)


class _Moments:
    """Sums over the features of vectors, of which some are seen at a time.

    All are less the mean of the first ones, so that the sums lose no digits where the mean is large beside the
    deviations: of B blocks the first one's mean is at most √B deviations away from that of all.

    Args:
        vectors: (N, F), of which `columns` features are looked at.
        columns: Number of features of the first block.
    """

    def __init__(self, vectors: Tensor, columns: int) -> None:
        self.size = vectors.shape[1]
        self.shift = vectors[:, :columns].double().mean(1)
        self.total, self.squares = torch.zeros_like(self.shift), torch.zeros_like(self.shift)
        # Memory that is new for each block costs more time than what is done in it.
        self._held = self.shift.new_empty(len(vectors), min(columns, self.size))

    def shifted(self, block: Tensor) -> Tensor:
        """Some features of all vectors, in float64, which count from now on; they are held until the next ones."""
        block = self._held[:, : block.shape[1]].copy_(block).sub_(self.shift[:, None])
        self.total += block.sum(1)
        self.squares += torch.linalg.vector_norm(block, dim=1).square()
        return block

    def norm_unless_constant(self) -> Tensor:
        """(N,) length of the centred vectors; NaN for one that is constant up to rounding."""
        centred = (self.squares - self.total.square() / self.size).clamp(min=0)
        mean = self.shift + self.total / self.size
        norm, scale = centred.sqrt(), (centred + self.size * mean.square()).sqrt()
        return norm.where(norm > _ROUNDING * scale, torch.nan)


def _columns(*sets: Tensor, chunk_size: int | None = None) -> int:
    """How many features of all vectors are held in float64 at once."""
    return chunk_size or max(1, _VALUES_AT_ONCE // max(map(len, sets)))


def _feature_blocks(*sets: Tensor, chunk_size: int | None = None) -> Iterator[tuple[Tensor, ...]]:
    """The same features of all vectors of sets, so many at a time as are held in float64 at once."""
    columns = _columns(*sets, chunk_size=chunk_size)
    return zip(*(vectors.split(columns, dim=1) for vectors in sets), strict=True)


def _products(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scalar products of all pairs in float64, and the squared length of each vector of both sets."""
    one, other = one.flatten(1), other.flatten(1)
    _require_equal_features(one, other)
    product = torch.zeros(len(one), len(other), dtype=torch.float64, device=one.device)
    squares = [product.new_zeros(len(vectors)) for vectors in (one, other)]
    # Some features of all vectors at a time: each value becomes float64 once, and no set of long vectors as a whole.
    for blocks in _feature_blocks(one, other):
        first, second = (block.double() for block in blocks)
        product.addmm_(first, second.T)
        for total, values in zip(squares, (first, second), strict=True):
            total += torch.linalg.vector_norm(values, dim=1).square()
    return product, squares[0], squares[1]


def _standardised(features: Tensor) -> Tensor:
    """Centred rows of unit length; NaN for a row that is constant up to float64 rounding."""
    centred = features - features.mean(1, keepdim=True)
    norm, scale = centred.norm(dim=1, keepdim=True), features.norm(dim=1, keepdim=True)
    return centred / norm.where(norm > _ROUNDING * scale, torch.nan)


def _require_equal_features(one: Tensor, other: Tensor) -> None:
    if one.shape[1] != other.shape[1]:
        raise FmriModelsError(
            f"One set has {one.shape[1]} features and the other {other.shape[1]}; expected equal ones."
        )
