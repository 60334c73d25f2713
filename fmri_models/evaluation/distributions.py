"""How far a whole set of reconstructions is from the set of pictures that were shown."""

from typing import Any

import torch
from torch import Tensor

from ..errors import FmriModelsError
from .metrics import finite_features


def frechet_distance(truth_features: Any, recon_features: Any) -> float:
    """Fréchet distance of two sets of features, each taken for a Gaussian (lower is better; FID).

    |m1 - m2|² + tr(S1) + tr(S2) - 2 tr((S1 S2)^½) with unbiased covariances, in float64. The last trace is the sum of
    the singular values of A Bᵀ (A, B: centred features over the square roots of their numbers less one), which are
    those of a small and real matrix even where there are fewer pictures than features. A square root of S1 S2 itself,
    as the usual implementations take it, is complex or fails there.

    It is a property of the sets: exchanging reconstructions among each other changes nothing, so that it says nothing
    about whether a picture was found. It depends on the layer (64-d of the first block as in MinD-Vis, or 2048-d, are
    incomparable) and falls with the number of pictures; state both.

    Args:
        truth_features: (N, F) float.
        recon_features: (M, F) float.

    Raises:
        FmriModelsError: Shapes differ, fewer than two pictures on a side, or values are NaN or infinite.
    """
    one, other = (
        finite_features(features, f"The features of the {what}")
        for features, what in ((truth_features, "true pictures"), (recon_features, "reconstructions"))
    )
    if one.shape[1] != other.shape[1] or min(len(one), len(other)) < 2:
        raise FmriModelsError(
            f"The two sets of features have the shapes {tuple(one.shape)} and {tuple(other.shape)}; a Fréchet distance "
            "needs the same features of at least two pictures on each side."
        )
    (mean, root), (other_mean, other_root) = _gaussian(one), _gaussian(other)
    overlap = torch.linalg.svdvals(root @ other_root.T).sum()
    distance = (mean - other_mean).square().sum() + root.square().sum() + other_root.square().sum() - 2 * overlap
    # Of equal sets it may be below zero by rounding.
    return max(0.0, float(distance))


def _gaussian(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (F,), and a root R (at most F rows) of the covariance RᵀR."""
    features = features.double()
    mean = features.mean(0)
    root = (features - mean) / (len(features) - 1) ** 0.5
    if len(root) > root.shape[1]:
        root = torch.linalg.qr(root, mode="r").R
    return mean, root
