"""Image and feature metrics, computed in float64.

Pictures are (N, 3, H, W) or (N, 1, H, W) float tensors in [0, 1], features (N, ...) tensors that are flattened. With
`reduction="mean"` a function returns a float, with `reduction="none"` one value per item. Definitions follow the
evaluation of MindEye (Scotti et al. 2023) unless a docstring says otherwise.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import FmriModelsError
from .similarities import (
    Correlated,
    best_of_all,
    correlated,
    correlations_of_pairs,
    identification_shares,
    positions_by_label,
    row_chunks,
)

Reduction = Literal["mean", "none"]
Window = Literal["gaussian", "uniform"]

# ITU-R BT.709 luma as scikit-image's rgb2gray has it.
GREY_WEIGHTS = (0.2125, 0.7154, 0.0721)

_IMAGE_CHUNK = 32
# What stays in the processor's cache is three times as fast.
_SSIM_PAIR_VALUES = 2**17


# ---------------------------------------------------------------------------------------------------------- pictures


def pixcorr(
    truth: Tensor,
    recon: Tensor,
    resize: int | None = None,
    reduction: Reduction = "mean",
    antialias: bool = False,
) -> Any:
    """Pearson correlation over all pixels and channels of each picture with its reconstruction.

    A picture of one constant value has no correlation; it counts as 0 here, where `numpy.corrcoef` would return NaN
    and make the mean of the whole test set NaN.

    Args:
        truth: (N, C, H, W) float in [0, 1].
        recon: The same; other heights and widths only together with `resize`.
        resize: Bring the shorter side to this length first, bilinear (425 in MindEye's evaluation).
        reduction: `"mean"` or `"none"`.
        antialias: Whether `resize` smooths when it shrinks. The published evaluations do not.

    Returns:
        float, or (N,) float64.

    Raises:
        FmriModelsError: Shapes differ, or values are NaN or outside [0, 1].
    """
    truth, recon = checked_pictures(truth, recon, same_size=resize is None)
    scores = [
        correlations_of_pairs(one.flatten(1), other.flatten(1))
        for one, other in _resized_chunks(truth, recon, resize, antialias)
    ]
    return reduce(torch.cat(scores).nan_to_num(nan=0.0), reduction)


def mse(truth: Tensor, recon: Tensor, resize: int | None = None, reduction: Reduction = "mean") -> Any:
    """Mean squared difference over all pixels and channels, in squared units of [0, 1].

    Arguments, returns and errors are those of `pixcorr`.
    """
    truth, recon = checked_pictures(truth, recon, same_size=resize is None)
    scores = [(one - other).square().flatten(1).mean(1) for one, other in _resized_chunks(truth, recon, resize, False)]
    return reduce(torch.cat(scores), reduction)


def ssim(
    truth: Tensor,
    recon: Tensor,
    window: Window = "gaussian",
    resize: int | None = None,
    reduction: Reduction = "mean",
    antialias: bool = False,
    channels: Literal["grey", "separate"] = "grey",
) -> Any:
    """Structural similarity (Wang et al. 2004), equal to scikit-image's `structural_similarity` with data range 1.

    Args:
        truth: (N, C, H, W) float in [0, 1]; colour is turned into grey with the Rec. 709 weights of `rgb2gray`.
        recon: The same; other heights and widths only together with `resize`.
        window: `"gaussian"` is sigma 1.5 (11 taps) with biased covariances, as published evaluations have it;
            `"uniform"` is 7x7 with sample covariances, scikit-image's default, which gives other values.
        resize: Bring the shorter side to this length first, bilinear.
        reduction: `"mean"` or `"none"`.
        antialias: Whether `resize` smooths when it shrinks.
        channels: `"separate"` averages the similarity of the colour channels instead (MinD-Vis' evaluation).

    Returns:
        float, or (N,) float64.

    Raises:
        FmriModelsError: As `pixcorr`; also if a picture is smaller than the window.
    """
    truth, recon = checked_pictures(truth, recon, same_size=resize is None)
    scores = []
    for one, other in _resized_chunks(truth, recon, resize, antialias):
        if channels == "grey":
            scores.append(SsimPairs(grey(one), grey(other), window)())
        else:
            per_channel = [SsimPairs(one[:, c], other[:, c], window)() for c in range(one.shape[1])]
            scores.append(torch.stack(per_channel).mean(0))
    return reduce(torch.cat(scores), reduction)


def ssim_matrix(
    truth: Tensor,
    recon: Tensor,
    window: Window = "gaussian",
    resize: int | None = None,
    channels: Literal["grey", "separate"] = "grey",
) -> Tensor:
    """Structural similarity of every picture with every reconstruction, for identification by it.

    Arguments and errors are those of `ssim`; (N, N) float64, true pictures by reconstructions.
    """
    truth, recon = checked_pictures(truth, recon, same_size=resize is None)
    resized = list(_resized_chunks(truth, recon, resize, False))
    one, other = (torch.cat(side) for side in zip(*resized, strict=True))
    i = torch.arange(len(one)).repeat_interleave(len(other))
    j = torch.arange(len(other)).repeat(len(one))
    if channels == "grey":
        scores = SsimPairs(grey(one), grey(other), window)(i, j)
    else:
        scores = torch.stack([SsimPairs(one[:, c], other[:, c], window)(i, j) for c in range(one.shape[1])]).mean(0)
    return scores.reshape(len(one), len(other))


class SsimPairs:
    """Structural similarity of any pairs out of two sets of grey pictures.

    The local means and variances are filtered once per picture and only the covariance once per pair, which makes
    re-pairing (permutation tests) some three times cheaper.

    Args:
        truth: (T, H, W) grey pictures, float64 or float32.
        recon: (N, H, W) grey pictures of the same dtype.
        window: As in `ssim`.
    """

    def __init__(self, truth: Tensor, recon: Tensor, window: Window = "gaussian") -> None:
        self.kernel, self.covariance_norm = _ssim_window(window, truth)
        self.truth, self.recon = self._statistics(truth), self._statistics(recon)

    def __call__(self, truth_index: Tensor | None = None, recon_index: Tensor | None = None) -> Tensor:
        """Similarity of `truth[truth_index[k]]` and `recon[recon_index[k]]`, without indices of equal positions.

        Returns:
            (K,) of the pictures' dtype.
        """
        if truth_index is None or recon_index is None:
            truth_index = recon_index = torch.arange(len(self.truth.picture))
        size = max(1, _SSIM_PAIR_VALUES // self.truth.picture[0].numel())
        chunks = zip(truth_index.split(size), recon_index.split(size), strict=True)
        return torch.cat([self._score(i, j) for i, j in chunks])

    def _statistics(self, picture: Tensor) -> "_SsimStatistics":
        mean = _filter(picture, self.kernel)
        variance = self.covariance_norm * (_filter(picture * picture, self.kernel) - mean * mean)
        return _SsimStatistics(picture, mean, variance)

    def _score(self, i: Tensor, j: Tensor) -> Tensor:
        c1, c2 = 0.01**2, 0.03**2
        x, x_mean, x_variance = (values[i] for values in self.truth)
        y, y_mean, y_variance = (values[j] for values in self.recon)
        covariance = self.covariance_norm * (_filter(x * y, self.kernel) - x_mean * y_mean)
        numerator = (2 * x_mean * y_mean + c1) * (2 * covariance + c2)
        denominator = (x_mean**2 + y_mean**2 + c1) * (x_variance + y_variance + c2)
        return (numerator / denominator).mean((1, 2))


class _SsimStatistics(NamedTuple):
    picture: Tensor
    mean: Tensor
    variance: Tensor


def _ssim_window(window: Window, pictures: Tensor) -> tuple[list[float], float]:
    """Weights of the separable filter, and the factor from biased to the wanted covariance."""
    if window == "gaussian":
        weights = [math.exp(-0.5 * (x / 1.5) ** 2) for x in range(-5, 6)]
        kernel, norm = [weight / math.fsum(weights) for weight in weights], 1.0
    elif window == "uniform":
        kernel, norm = [1 / 7] * 7, 49 / 48
    else:
        raise FmriModelsError(f"The SSIM window is {window!r}; expected 'gaussian' or 'uniform'.")
    height, width = pictures.shape[-2:]
    if min(height, width) < len(kernel):
        raise FmriModelsError(
            f"SSIM with the {window} window needs pictures of at least {len(kernel)}x{len(kernel)} pixels, but they "
            f"are {height}x{width}; pass resize=, or leave SSIM out."
        )
    return kernel, norm


def _filter(pictures: Tensor, kernel: list[float]) -> Tensor:
    """Separable filter of (N, H, W), only where the window lies inside the picture."""
    for axis in (-2, -1):
        length = pictures.shape[axis] - len(kernel) + 1
        filtered = pictures.narrow(axis, 0, length) * kernel[0]
        for offset, weight in enumerate(kernel[1:], start=1):
            filtered.add_(pictures.narrow(axis, offset, length), alpha=weight)
        pictures = filtered
    return pictures


def grey(pictures: Tensor) -> Tensor:
    """Luma (N, H, W) of pictures (N, 3, H, W); one channel is returned as it is."""
    if pictures.shape[1] == 1:
        return pictures[:, 0]
    return torch.einsum("nchw,c->nhw", pictures, pictures.new_tensor(GREY_WEIGHTS))


def resize_pictures(pictures: Tensor, shorter_side: int, antialias: bool = False) -> Tensor:
    """Bilinear resize of (N, C, H, W) so that the shorter side has the given length."""
    height, width = pictures.shape[-2:]
    if min(height, width) == shorter_side:
        return pictures
    size = sides_with_shorter(height, width, shorter_side)
    return F.interpolate(pictures, size=size, mode="bilinear", align_corners=False, antialias=antialias)


def sides_with_shorter(height: int, width: int, shorter_side: int) -> tuple[int, int]:
    """Height and width of equal proportion, of which the shorter one has the given length; the other is rounded down.

    In whole numbers, as torchvision has it: twice a side times a rounded scale may be a pixel less than the double.
    """
    if height <= width:
        return shorter_side, shorter_side * width // height
    return shorter_side * height // width, shorter_side


def checked_pictures(truth: Any, recon: Any, same_size: bool = True) -> tuple[Tensor, Tensor]:
    """The two sets as tensors, after the checks that every picture metric makes.

    Raises:
        FmriModelsError: Wrong shape or dtype, numbers of pictures or sizes that differ, NaN, values outside [0, 1].
    """
    truth, recon = checked_picture_set(truth, "The true pictures"), checked_picture_set(recon, "The reconstructions")
    if truth.shape[:2] != recon.shape[:2] or (same_size and truth.shape != recon.shape):
        raise FmriModelsError(
            f"The true pictures have the shape {tuple(truth.shape)} and the reconstructions {tuple(recon.shape)}; both "
            "need the same number of pictures, channels, height and width."
        )
    return truth, recon


def checked_picture_set(pictures: Any, what: str) -> Tensor:
    """One set of pictures as a tensor on a device that knows float64.

    Raises:
        FmriModelsError: Wrong shape or dtype, no picture at all, NaN, or values outside [0, 1].
    """
    pictures = _on_float64_device(torch.as_tensor(pictures))
    if pictures.ndim != 4 or pictures.shape[1] not in (1, 3) or 0 in pictures.shape:
        raise FmriModelsError(
            f"{what} have the shape {tuple(pictures.shape)}; expected (N, 3, H, W) or (N, 1, H, W) with N > 0."
        )
    if not pictures.is_floating_point():
        raise FmriModelsError(f"{what} have the dtype {pictures.dtype}; expected floats in [0, 1] (divide by 255).")
    low, high = (value.item() for value in torch.aminmax(pictures))
    if math.isnan(low) or math.isnan(high):
        raise FmriModelsError(f"{what} contain NaN; look for a failed reconstruction.")
    if low < -1e-6 or high > 1 + 1e-6:
        raise FmriModelsError(
            f"{what} have values from {low:.4g} to {high:.4g}; expected [0, 1] (clamp, or undo the normalisation)."
        )
    return pictures


def _resized_chunks(
    truth: Tensor, recon: Tensor, resize: int | None, antialias: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    for one, other in zip(truth.split(_IMAGE_CHUNK), recon.split(_IMAGE_CHUNK), strict=True):
        one, other = one.double(), other.double()
        if resize is not None:
            one, other = resize_pictures(one, resize, antialias), resize_pictures(other, resize, antialias)
            if one.shape != other.shape:
                raise FmriModelsError(
                    f"After resizing, the true pictures are {tuple(one.shape[-2:])} and the reconstructions "
                    f"{tuple(other.shape[-2:])}; both need the same aspect ratio."
                )
        yield one, other


# ---------------------------------------------------------------------------------------------------------- features


def correlation_distance(truth_features: Tensor, recon_features: Tensor, reduction: Reduction = "mean") -> Any:
    """One minus Pearson's r between the features of each picture and of its reconstruction (lower is better).

    A constant feature vector counts as uncorrelated (distance 1).

    Args:
        truth_features: (N, ...) float.
        recon_features: (N, ...) float.
        reduction: `"mean"` or `"none"`.

    Returns:
        float, or (N,) float64.
    """
    truth_features, recon_features = checked_features(truth_features, recon_features)
    chunks = row_chunks(truth_features, recon_features)
    correlation = torch.cat([correlations_of_pairs(one.double(), other.double()) for one, other in chunks])
    return reduce(1 - correlation.nan_to_num(nan=0.0), reduction)


def two_way_identification(
    truth_features: Tensor,
    recon_features: Tensor,
    distractors: Literal["truth", "reconstruction"] = "truth",
    groups: Sequence[Any] | None = None,
    reduction: Reduction = "mean",
    samples: bool = False,
) -> Any:
    """How often a reconstruction's features correlate more with its own picture's than with another's (chance 0.5).

    Item j scores the share of distractors i with r(truth j, recon j) > r(truth i, recon j). Ties count as failures.
    What is constant correlates with nothing: a constant reconstruction fails, a constant true picture can't be
    identified by anybody and scores NaN, and as a distractor neither is compared with.

    Beyond its inputs it holds some 50 MiB and the (N, N) correlations, however many features there are.

    Args:
        truth_features: (N, ...) float.
        recon_features: (N, ...) float; (N, samples, ...) if `samples`.
        distractors: `"truth"`: the other pictures that were shown (MindEye, Brain-Diffuser, bdpy);
            `"reconstruction"`: the other reconstructions (Takagi & Nishimoto 2023).
        groups: One label per item; only items of the same label are distractors. An item without any scores NaN.
            What is NaN is left out of the mean; `torch.isfinite(scores).sum()` is the n to state.
        reduction: `"mean"` or `"none"`.
        samples: Whether there are several reconstructions of each picture, whose correlations are averaged before
            they are compared (Takagi & Nishimoto have five). A constant one correlates with 0.

    Returns:
        float, or (N,) float64.

    Raises:
        FmriModelsError: Shapes differ, fewer than two items, or unknown `distractors`.
    """
    of_each = split_samples(recon_features) if samples else [recon_features]
    both = [checked_features(truth_features, each, infinite="allowed") for each in of_each]
    if len(both[0][0]) < 2:
        raise FmriModelsError("Two-way identification needs at least two pictures, but one was given.")
    if distractors not in ("truth", "reconstruction"):
        raise FmriModelsError(f"distractors is {distractors!r}; expected 'truth' or 'reconstruction'.")
    found = [correlated(*each) for each in both]
    similarity, constant, failed = found[0] if len(found) == 1 else mean_correlated(found)
    if distractors == "truth":
        return reduce(identification_shares(similarity, groups, constant).diagonal(), reduction)
    shares = identification_shares(similarity.T, groups, failed).diagonal().masked_fill(failed, 0.0)
    alone = torch.zeros_like(failed)
    for positions in positions_by_label(groups, len(shares)):
        alone[positions] = len(positions) == 1
    return reduce(shares.masked_fill(constant | alone, torch.nan), reduction)


def split_samples(recon_features: Any) -> list[Tensor]:
    """The first, second, ... reconstruction of every picture, of (N, samples, ...).

    Raises:
        FmriModelsError: There is no second dimension, or nothing in it.
    """
    recon_features = torch.as_tensor(recon_features)
    if recon_features.ndim < 3 or recon_features.shape[1] < 1:
        raise FmriModelsError(
            f"The features of several reconstructions have the shape {tuple(recon_features.shape)}; expected "
            "(N, samples, ...)."
        )
    return list(recon_features.unbind(1))


def mean_correlated(found: Sequence[Correlated]) -> Correlated:
    """The mean over several reconstructions; those that are constant count as 0, unless all of a picture are."""
    failed = torch.stack([each.other_constant for each in found]).all(0)
    constant = found[0].constant
    mean = torch.stack([each.values.nan_to_num(nan=0.0) for each in found]).mean(0)
    return Correlated(mean.masked_fill(constant[:, None] | failed, torch.nan), constant, failed)


def pairwise_pixcorr(truth: Tensor, recon: Tensor, reduction: Reduction = "mean") -> Any:
    """Two-way identification by the correlation of pixels (chance 0.5).

    Args:
        truth: (N, C, H, W) float in [0, 1].
        recon: The same shape.
        reduction: `"mean"` or `"none"`.

    Returns:
        float, or (N,) float64.
    """
    truth, recon = checked_pictures(truth, recon)
    return two_way_identification(truth, recon, reduction=reduction)


def identification_top1(
    truth: Tensor, recon: Tensor, pools: Tensor | np.ndarray | None = None, reduction: Reduction = "mean"
) -> Any:
    """How often a reconstruction's pixels correlate most with the picture that was shown, among all pictures.

    Args:
        truth: (N, C, H, W) float in [0, 1].
        recon: The same shape.
        pools: (repeats, size) item indices; identification happens within each pool. None: one pool of all N.
        reduction: `"mean"` or `"none"`.

    Returns:
        float; (N,) float64 without pools and (repeats, size) with them. Chance is 1 / pool size. NaN for a constant
        true picture, and for one that has no other to be told from.
    """
    truth, recon = checked_pictures(truth, recon)
    if len(truth) < 2:
        raise FmriModelsError("Identification needs at least two pictures, but one was given.")
    similarity, constant, _ = correlated(truth, recon)
    if pools is not None:
        pools = checked_pools(pools, len(truth))
    if pools is None:
        return reduce(best_of_all(identification_shares(similarity, constant=constant).diagonal()), reduction)
    inside = [identification_shares(similarity[pool][:, pool], constant=constant[pool]).diagonal() for pool in pools]
    return reduce(best_of_all(torch.stack(inside)), reduction)


def checked_pools(pools: Any, count: int) -> Tensor:
    """(repeats, size) indices of items.

    Raises:
        FmriModelsError: They have another shape, or are of items that there are not.
    """
    pools = torch.as_tensor(pools).long()
    if pools.ndim != 2 or 0 in pools.shape or pools.min() < 0 or pools.max() >= count:
        ends = f" with indices from {int(pools.min())} to {int(pools.max())}" if pools.numel() else ""
        raise FmriModelsError(
            f"pools have the shape {tuple(pools.shape)}{ends}; expected (repeats, size) with indices from 0 to "
            f"{count - 1}."
        )
    return pools


def checked_features(
    truth_features: Any, recon_features: Any, infinite: Literal["refused", "allowed"] = "refused"
) -> tuple[Tensor, Tensor]:
    """Two sets of vectors, flattened to (N, F), after the checks that every feature metric makes.

    Raises:
        FmriModelsError: Shapes differ, the sets are empty, or (unless allowed) values are NaN or infinite.
    """
    truth_features = _on_float64_device(torch.as_tensor(truth_features))
    recon_features = _on_float64_device(torch.as_tensor(recon_features))
    if truth_features.shape != recon_features.shape or truth_features.ndim < 2 or 0 in truth_features.shape:
        raise FmriModelsError(
            f"The two sets of features have the shapes {tuple(truth_features.shape)} and "
            f"{tuple(recon_features.shape)}; expected the same (N, ...) for both."
        )
    for what, features in (("true pictures", truth_features), ("reconstructions", recon_features)):
        if infinite == "refused":
            finite_features(features, f"The features of the {what}")
    return truth_features.flatten(1), recon_features.flatten(1)


def finite_features(features: Any, what: str) -> Tensor:
    """One set of vectors, flattened to (N, F).

    Args:
        features: (N, ...) float.
        what: Begins the sentence of an error.

    Raises:
        FmriModelsError: There is no vector, or values are NaN or infinite.
    """
    features = _on_float64_device(torch.as_tensor(features))
    if features.ndim < 2 or 0 in features.shape:
        raise FmriModelsError(f"{what} have the shape {tuple(features.shape)}; expected (N, ...) with N > 0.")
    # `torch.isfinite` would make copies as large as the features.
    if not all(map(math.isfinite, map(float, torch.aminmax(features)))):
        raise FmriModelsError(f"{what} contain NaN or infinite values.")
    return features.flatten(1)


def reduce(scores: Tensor, reduction: Reduction) -> Any:
    """The mean over items that have a score as a float, or all scores.

    Raises:
        FmriModelsError: Unknown `reduction`, or a mean of items without any score.
    """
    if reduction == "none":
        return scores
    if reduction == "mean":
        if scores.isnan().all():
            raise FmriModelsError(
                f"None of the {scores.numel()} pictures can be scored: what was shown is one value throughout, or has "
                "nothing to be compared with."
            )
        return float(scores.nanmean())
    raise FmriModelsError(f"reduction is {reduction!r}; expected 'mean' or 'none'.")


def _on_float64_device(values: Tensor) -> Tensor:
    return values.detach().cpu() if values.device.type == "mps" else values.detach()
