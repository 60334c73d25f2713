"""Identification beyond one picture a reconstruction: among n, by any similarity, by category; and decoded features.

What the papers of the GOD data set and bdpy compute, beside [`two_way_identification`], which this shares its rules
with: a tie is a failure unless said otherwise, and what is constant correlates with nothing.
"""

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..errors import FmriModelsError
from ..seeds import check_seed
from .classification import Ties
from .metrics import Reduction, checked_features, finite_features, reduce
from .ranks import hits_from_ranks
from .similarities import (
    TIE_MARGIN,
    correlated,
    correlation_matrix,
    correlations_of_pairs,
    identification_shares,
    is_constant,
    losses_in_columns,
)


def identification_accuracy(
    similarity: Any,
    n_way: int | None = 2,
    top_k: int = 1,
    trials: int | None = None,
    seed: int | np.random.Generator | np.random.RandomState = 0,
    reduction: Reduction = "mean",
) -> Any:
    """How often the shown picture is among the k most similar of n, by any similarity (chance k / n).

    For every reconstruction n - 1 other pictures are drawn. Without `trials` the expectation over all draws is
    computed exactly from the rank among all; n = 2 is then two-way identification. MinD-Vis and Gaziv et al. (2022)
    report n of 2, 5, 10 and 50 by pixel correlation and SSIM ([`ssim_matrix`]).

    Args:
        similarity: (N, N) float; entry (i, j) compares picture i with reconstruction j, larger is more alike. NaN
            is more alike than nothing.
        n_way: Number of pictures compared, the shown one among them; None for all.
        top_k: Rank that counts as success; a tie counts as failure.
        trials: Number of random draws per reconstruction; None for the exact expectation.
        seed: For the draws: a number or a NumPy generator (a `RandomState` reproduces the published procedure).
        reduction: `"mean"` or `"none"`.

    Returns:
        float, or (N,) float64.

    Raises:
        FmriModelsError: The matrix is not square, or `n_way` and `top_k` do not fit its size.
    """
    similarity = torch.as_tensor(similarity).detach().double().cpu()
    count = len(similarity) if similarity.ndim == 2 else 0
    n_way = count if n_way is None else n_way
    if similarity.shape != (count, count):
        raise FmriModelsError(f"The similarities have the shape {tuple(similarity.shape)}; expected (N, N).")
    if not 2 <= n_way <= count or not 1 <= top_k < n_way:
        raise FmriModelsError(
            f"{n_way}-way top-{top_k} identification is not defined with {count} pictures; expected 1 <= k < n <= "
            f"{count}."
        )
    if trials is None:
        return reduce(hits_from_ranks(losses_in_columns(similarity).diagonal(), count - 1, top_k, n_way), reduction)
    if trials < 1:
        raise FmriModelsError(f"trials is {trials}; expected a number from 1, or None for the exact expectation.")
    if not isinstance(seed, np.random.Generator | np.random.RandomState):
        seed = np.random.default_rng(check_seed(seed))
    # Row j: which other pictures reconstruction j does not tell from its own.
    not_beaten = _not_beaten(similarity).T.numpy()
    scores = []
    for own, row in enumerate(not_beaten):
        others = np.delete(row, own)
        drawn = (others[seed.choice(count - 1, n_way - 1, replace=False)].sum() for _ in range(trials))
        scores.append(np.mean([number < top_k for number in drawn]))
    return reduce(torch.tensor(np.asarray(scores), dtype=torch.float64), reduction)


def n_way_identification(
    truth_features: Any,
    recon_features: Any,
    n_way: int,
    top_k: int = 1,
    trials: int | None = None,
    seed: int | np.random.Generator | np.random.RandomState = 0,
    reduction: Reduction = "mean",
) -> Any:
    """[`identification_accuracy`] among n by the correlation of features, or of pixels (chance k / n).

    A constant true picture can't be identified by anybody: it scores NaN, is left out of the mean, and its place among
    the others is one that anybody beats.

    Args:
        truth_features: (N, ...) float.
        recon_features: The same shape.
        n_way: As in `identification_accuracy`, as all that follow.
        top_k: Rank that counts as success.
        trials: Number of random draws; None for the exact expectation.
        seed: For the draws.
        reduction: `"mean"` or `"none"`.
    """
    found = correlated(*checked_features(truth_features, recon_features, infinite="allowed"))
    scores = identification_accuracy(found.values, n_way, top_k, trials, seed, reduction="none")
    return reduce(scores.masked_fill(found.constant.cpu(), torch.nan), reduction)


def pairwise_identification(
    truth_features: Any,
    decoded_features: Any,
    truth_index: Any = None,
    similarity: Literal["correlation", "euclidean"] = "correlation",
    reduction: Reduction = "mean",
    constant_truth: Literal["left_out", "failure"] = "left_out",
) -> Any:
    """Two-way identification as bdpy has it: of single trials too, by correlation or distance, units with NaN left out.

    A unit that is NaN in any sample is left out for all. A tie is a failure. A candidate whose correlation is
    undefined, because its pattern is constant, is not compared with: the share is of those that are left.

    Args:
        truth_features: (T, ...) float.
        decoded_features: (N, ...) float.
        truth_index: (N,) which of the T each is decoded from; None if N is T, in the same order.
        similarity: `"correlation"`, or `"euclidean"`: the nearest is the most alike.
        reduction: `"mean"` or `"none"`.
        constant_truth: What becomes of a decoded pattern whose own true pattern is constant, which nobody can identify
            by correlation: NaN that the mean leaves out, or 0, as bdpy counts it (`"failure"`).

    Returns:
        float, or (N,) float64. A constant decoded pattern scores 0 in correlation.

    Raises:
        FmriModelsError: Shapes or indices do not fit together, fewer than two pictures, or no unit without NaN.
    """
    truth, decoded = (torch.as_tensor(each).detach().double().cpu() for each in (truth_features, decoded_features))
    if truth.ndim < 2 or truth.shape[1:] != decoded.shape[1:] or len(truth) < 2 or 0 in decoded.shape:
        raise FmriModelsError(
            f"The true features have the shape {tuple(truth.shape)} and the decoded ones {tuple(decoded.shape)}; "
            "expected the same units of at least two pictures."
        )
    if truth_index is None and len(decoded) != len(truth):
        raise FmriModelsError(
            f"There are {len(decoded)} decoded patterns and {len(truth)} pictures; say which picture each one is of "
            "(truth_index)."
        )
    index = torch.arange(len(decoded)) if truth_index is None else torch.as_tensor(truth_index).long().cpu()
    if index.shape != decoded.shape[:1] or index.min() < 0 or index.max() >= len(truth):
        raise FmriModelsError(
            f"{len(decoded)} decoded patterns have {len(index)} indices from {int(index.min())} to {int(index.max())} "
            f"of {len(truth)} pictures; expected one from 0 to {len(truth) - 1} for each."
        )
    truth, decoded = truth.flatten(1), decoded.flatten(1)
    known = ~(truth.isnan().any(0) | decoded.isnan().any(0))
    if not known.any():
        raise FmriModelsError("Every unit of the features is NaN in some sample; look for a failed decoder.")
    truth, decoded = truth[:, known], decoded[:, known]
    if similarity == "correlation":
        found = correlated(truth, decoded)
        values, constant = found.values, found.constant
    elif similarity == "euclidean":
        values = -torch.cdist(truth, decoded, compute_mode="donot_use_mm_for_euclid_dist")
        constant = torch.zeros(len(truth), dtype=torch.bool)
    else:
        raise FmriModelsError(f"similarity is {similarity!r}; expected 'correlation' or 'euclidean'.")
    if constant_truth not in ("left_out", "failure"):
        raise FmriModelsError(f"constant_truth is {constant_truth!r}; expected 'left_out' or 'failure'.")
    scores = identification_shares(values, constant=constant)[index, torch.arange(len(index))]
    if constant_truth == "failure":
        scores = scores.masked_fill(constant.cpu()[index], 0.0)
    return reduce(scores, reduction)


def category_identification(
    decoded_features: Any,
    categories: Any,
    category_features: Any,
    other_category_features: Any = None,
    ties: Ties = "success",
    reduction: Reduction = "mean",
) -> Any:
    """Whether decoded features correlate more with the mean features of the shown category than with another's.

    Horikawa & Kamitani (2017): the decoded features of a category's trials are averaged, and compared with the mean
    features of its pictures and of all candidate categories. A category scores the share of the other candidates that
    are not more similar (chance 0.5).

    Args:
        decoded_features: (N, ...) float, of trials.
        categories: (N,) whole numbers, which row of `category_features` each trial shows.
        category_features: (C, ...) float, mean features of the categories that are shown.
        other_category_features: (K, ...) float, of candidates that are not shown (the paper has 15,322); None for none.
        ties: Whether a candidate that is equally similar counts as not more similar, as the published code has it.
        reduction: `"mean"` or `"none"`.

    Returns:
        float, or (shown categories,) float64, in the order of `category_features`. Constant decoded features score 0.

    Raises:
        FmriModelsError: Shapes or categories do not fit together, or values are NaN or infinite.
    """
    decoded = finite_features(decoded_features, "The decoded features")
    own = finite_features(category_features, "The features of categories")
    sets = [own]
    if other_category_features is not None:
        sets.append(finite_features(other_category_features, "The features of other categories"))
    index = torch.as_tensor(categories).long().cpu()
    if any(each.shape[1] != decoded.shape[1] for each in sets) or sum(map(len, sets)) < 2:
        raise FmriModelsError(
            f"The decoded features have the shape {tuple(decoded.shape)} and those of categories "
            f"{[tuple(each.shape) for each in sets]}; expected the same features, and two categories or more."
        )
    if index.shape != decoded.shape[:1] or index.min() < 0 or index.max() >= len(own):
        raise FmriModelsError(
            f"{len(decoded)} trials have categories of the shape {tuple(index.shape)}; expected one from 0 to "
            f"{len(own) - 1} for each."
        )
    if ties not in ("failure", "success"):
        raise FmriModelsError(f"ties is {ties!r}; expected 'failure' or 'success'.")
    shown = index.unique()
    means = torch.stack([decoded[index == category].double().mean(0) for category in shown])
    similarity = correlation_matrix(torch.cat([each.double() for each in sets]), means)
    right = similarity[shown, torch.arange(len(shown))]
    # NaN (a constant candidate, or constant decoded features) is never beaten and beats nothing.
    beaten = similarity <= right + TIE_MARGIN if ties == "success" else similarity < right - TIE_MARGIN
    beaten[shown, torch.arange(len(shown))] = False
    return reduce(beaten.double().sum(0) / (len(similarity) - 1), reduction)


def seen_and_imagined_identification(
    decoded_features: Any,
    categories: Any,
    imagined: Any,
    category_features: Any,
    other_category_features: Any = None,
    ties: Ties = "success",
) -> dict[str, Any]:
    """[`category_identification`] of trials in which something was seen and, apart, of those in which it was imagined.

    Horikawa & Kamitani (2017) report both: a category's seen trials (35) are averaged, and so are its imagined ones
    (10), and each mean is compared with the same candidates.

    Args:
        decoded_features: (N, ...) float, of trials.
        categories: (N,) as in `category_identification`.
        imagined: (N,) bool, trials in which the category was imagined.
        category_features: As there, as all that follow.
        other_category_features: See there.
        ties: See there.

    Returns:
        `"seen"` and `"imagined"` ▶ mean over the categories that have such trials; a kind without trials is left out.

    Raises:
        FmriModelsError: `imagined` is not one yes or no for each trial, or as for `category_identification`.
    """
    decoded, labels = torch.as_tensor(decoded_features), torch.as_tensor(categories)
    marks = torch.as_tensor(imagined)
    if marks.dtype != torch.bool or marks.shape != decoded.shape[:1] or labels.shape != decoded.shape[:1]:
        raise FmriModelsError(
            f"There are decoded features of the shape {tuple(decoded.shape)}, categories of {tuple(labels.shape)} and "
            f"imagined of {tuple(marks.shape)} and {str(marks.dtype).removeprefix('torch.')}; expected a category and "
            "a bool for each trial."
        )
    kinds = {"seen": ~marks, "imagined": marks}
    return {
        kind: category_identification(decoded[own], labels[own], category_features, other_category_features, ties)
        for kind, own in kinds.items()
        if own.any()
    }


def profile_correlation(truth_features: Any, decoded_features: Any) -> Tensor:
    """Pearson's r over samples of every unit: how well each one is predicted (bdpy's `profile_correlation`).

    Args:
        truth_features: (N, ...) float.
        decoded_features: The same shape.

    Returns:
        (...) float64; NaN for a unit that is constant on a side, or NaN anywhere.
    """
    truth, decoded = checked_features(truth_features, decoded_features, infinite="allowed")
    shape = torch.as_tensor(truth_features).shape[1:]
    return correlations_of_pairs(truth.double().T, decoded.double().T).reshape(shape)


def pattern_correlation(
    truth_features: Any, decoded_features: Any, mean: Any = None, std: Any = None, reduction: Reduction = "mean"
) -> Any:
    """Pearson's r over units of every sample (bdpy's `pattern_correlation`).

    Without the training set's mean and standard deviation it is high for whatever has the profile that all pictures
    have in common.

    Args:
        truth_features: (N, ...) float.
        decoded_features: The same shape.
        mean: (...) or (1, ...) of the training targets; subtracted from both sides.
        std: Likewise; both sides are divided by it.
        reduction: `"mean"` or `"none"`.

    Returns:
        float, or (N,) float64. Constant decoded features count as 0.
    """
    truth, decoded = checked_features(truth_features, decoded_features)
    truth, decoded = (normalised_features(each, mean, std) for each in (truth, decoded))
    correlation = correlations_of_pairs(truth, decoded)
    return reduce(correlation.nan_to_num(nan=0.0).masked_fill(is_constant(truth), torch.nan), reduction)


def normalised_features(features: Tensor, mean: Any = None, std: Any = None) -> Tensor:
    """(N, F) in float64, less the mean and over the standard deviation of the training set.

    Raises:
        FmriModelsError: These have another number of units, or a standard deviation is not above 0.
    """
    features = features.flatten(1).double()
    for what, values in (("mean", mean), ("std", std)):
        if values is None:
            continue
        values = torch.as_tensor(values).double().flatten()
        if values.numel() != features.shape[1]:
            raise FmriModelsError(
                f"{what} has {values.numel()} values for {features.shape[1]} units; expected one for each."
            )
        if what == "std" and not (values > 0).all():
            raise FmriModelsError("A standard deviation is not above 0; leave out units that never vary.")
        features = features - values if what == "mean" else features / values
    return features


def _not_beaten(similarity: Tensor) -> Tensor:
    """(i, j): whether picture i is as similar to reconstruction j as its own, or more; all where its own is NaN."""
    return ~(similarity < similarity.diagonal() - TIE_MARGIN) & ~(similarity.isnan() & ~similarity.diagonal().isnan())
