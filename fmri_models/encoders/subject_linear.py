"""One linear layer a subject: brains of different size come in, features of one size go out."""

from collections.abc import Sequence

import torch
from torch import nn

from .wide_linear import WideLinear


class SubjectLinear(nn.Module):
    """Applies to each row the linear layer of its subject.

    Args:
        num_voxels: Number of voxels of each subject.
        out_features: Number of features.
        bias: Whether the layers have a bias.
    """

    def __init__(self, num_voxels: Sequence[int], out_features: int, bias: bool = True) -> None:
        super().__init__()
        self.num_voxels = list(num_voxels)
        self.out_features = out_features
        self.layers = nn.ModuleList(WideLinear(count, out_features, bias=bias) for count in num_voxels)

    def forward(self, fmri: torch.Tensor, subject_ids: torch.Tensor) -> torch.Tensor:
        """(B, widest) zero-padded voxels and (B,) indices ▶ (B, out_features); padding is not read."""
        if len(self.layers) == 1:
            return self.layers[0](fmri)
        # Every layer runs, without rows as well: its gradient is then zero and not missing, which matters where several
        # processes average gradients.
        rows = [torch.nonzero(subject_ids == index).flatten() for index in range(len(self.layers))]
        features = [
            layer(fmri[chosen, :count]) for layer, chosen, count in zip(self.layers, rows, self.num_voxels, strict=True)
        ]
        return torch.cat(features)[torch.cat(rows).argsort()]
