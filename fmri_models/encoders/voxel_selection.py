"""Which voxels go with each target: those of largest correlation with it over training examples."""

import torch

from ..closed_form_trials import Patterns
from .ridge import read_in_chunks

# A voxel of less variance is constant but for rounding: it goes with nothing.
SMALLEST_VARIANCE = 1e-8


class VoxelCorrelations:
    """Which voxels correlate most with targets, streamed over examples; mean and spread of voxels are computed once.

    Args:
        fmri: (n, V) voxels.
        dtype: Of the products.
    """

    def __init__(self, fmri: Patterns, dtype: torch.dtype = torch.float64) -> None:
        self.fmri, self.dtype = fmri, dtype
        total: torch.Tensor | float = 0.0
        for _, chunk in read_in_chunks(self.fmri, self.dtype):
            total = total + chunk.double().sum(dim=0)
        assert isinstance(total, torch.Tensor)
        self.mean = (total / len(fmri)).to(dtype)
        squares = torch.zeros_like(total)
        for _, chunk in read_in_chunks(self.fmri, self.dtype):
            squares += (chunk - self.mean).double().square().sum(dim=0)
        self.is_constant = squares / len(fmri) < SMALLEST_VARIANCE
        self.length = squares.sqrt().to(dtype)

    def products(self, targets: torch.Tensor) -> torch.Tensor:
        """(V, T) sums over examples of centred voxels times centred targets (n, T)."""
        targets = targets.to(self.dtype)
        centred = targets - targets.mean(dim=0)
        products = torch.zeros(len(self.mean), centred.shape[1], dtype=self.dtype)
        for examples, chunk in read_in_chunks(self.fmri, self.dtype):
            products.addmm_((chunk - self.mean).T, centred[examples])
        return products

    def most_correlated(self, products: torch.Tensor, count: int) -> torch.Tensor:
        """(T, count) voxels of largest absolute correlation with each target, in ascending order.

        Args:
            products: (V, T) as of [`~VoxelCorrelations.products`]; how far a target spreads changes no order.
            count: Of voxels.
        """
        scale = torch.where(self.is_constant, 0, 1 / self.length)
        found = (products.abs() * scale[:, None]).topk(count, dim=0, sorted=False).indices
        return found.T.sort(dim=1).values
