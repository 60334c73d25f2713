"""Similarities of two sets of vectors, as matrices in float64, and who beats whom in them."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import FmriModelsError

# Equal vectors may differ in the last bits after a matrix product in chunks; a margin keeps their tie a tie.
TIE_MARGIN = 1e-12

FEATURE_CHUNK = 256
"""Vectors that are held in float64 at a time."""
# Features that are multiplied at a time.
_COLUMNS = 4096


def correlation_matrix(truth_features: Tensor, recon_features: Tensor, chunk_size: int = FEATURE_CHUNK) -> Tensor:
    """Pearson's r of every vector of one set with every vector of another, in chunks of `chunk_size` vectors.

    Args:
        truth_features: (T, ...) float.
        recon_features: (N, ...) float of the same feature size.
        chunk_size: Vectors that are held in float64 at a time.

    Returns:
        (T, N) float64; NaN in the row or column of a constant vector.
    """
    return _products_in_chunks(truth_features, recon_features, _standardised, chunk_size)


def cosine_matrix(queries: Tensor, gallery: Tensor) -> Tensor:
    """Cosine of every vector of one set with every vector of another.

    Args:
        queries: (T, ...) float.
        gallery: (N, ...) float of the same feature size.

    Returns:
        (T, N) float64; NaN in the row or column of a zero vector.
    """
    queries, gallery = queries.flatten(1), gallery.flatten(1)
    _require_equal_features(queries, gallery)
    product = torch.zeros(len(queries), len(gallery), dtype=torch.float64, device=queries.device)
    squares = [product.new_zeros(len(vectors)) for vectors in (queries, gallery)]
    # Some features of all vectors at a time: each value becomes float64 once, and no set of long vectors as a whole.
    for one, other in zip(queries.split(_COLUMNS, dim=1), gallery.split(_COLUMNS, dim=1), strict=True):
        one, other = one.double(), other.double()
        product.addmm_(one, other.T)
        for total, values in zip(squares, (one, other), strict=True):
            total += values.square().sum(1)
    norms = [total.sqrt().where(total > 0, torch.nan) for total in squares]
    return product.div_(norms[0][:, None]).div_(norms[1])


def correlations_of_pairs(one: Tensor, other: Tensor) -> Tensor:
    """(N,) Pearson's r of each vector of (N, F) with the one at the same position; NaN where one is constant."""
    return (_standardised(one) * _standardised(other)).sum(1)


def is_constant(features: Tensor) -> Tensor:
    """(N,) whether a vector is the same value throughout, up to rounding, so that it correlates with nothing."""
    chunks = features.flatten(1).split(FEATURE_CHUNK)
    return torch.cat([_standardised(chunk.double()).isnan().any(1) for chunk in chunks])


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


def _standardised(features: Tensor) -> Tensor:
    """Centred rows of unit length; NaN for a row that is constant up to float64 rounding."""
    centred = features - features.mean(1, keepdim=True)
    norm, scale = centred.norm(dim=1, keepdim=True), features.norm(dim=1, keepdim=True)
    return centred / norm.where(norm > 1e-12 * scale, torch.nan)


def _require_equal_features(one: Tensor, other: Tensor) -> None:
    if one.shape[1] != other.shape[1]:
        raise FmriModelsError(
            f"One set has {one.shape[1]} features and the other {other.shape[1]}; expected equal ones."
        )


def _products_in_chunks(one: Tensor, other: Tensor, prepare: Callable[[Tensor], Tensor], chunk_size: int) -> Tensor:
    one, other = one.flatten(1), other.flatten(1)
    _require_equal_features(one, other)
    product = torch.empty(len(one), len(other), dtype=torch.float64, device=one.device)
    for start in range(0, len(one), chunk_size):
        rows = prepare(one[start : start + chunk_size].double())
        for other_start in range(0, len(other), chunk_size):
            columns = prepare(other[other_start : other_start + chunk_size].double())
            product[start : start + chunk_size, other_start : other_start + chunk_size] = rows @ columns.T
    return product
