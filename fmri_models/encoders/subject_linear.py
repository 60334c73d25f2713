"""One linear layer a subject: brains of different size come in, features of one size go out."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import cast

import torch
from torch import nn

from .subject_layers import SubjectLayers, by_subject
from .wide_linear import WideLinear

__all__ = ["SubjectLinear", "by_subject"]


class SubjectLinear(nn.Module):
    """Applies to each row the linear layer of its subject.

    Args:
        num_voxels: Subject ▶ number of its voxels, `config.voxels_by_subject`; a sequence for subjects without names.
        out_features: Number of features.
        bias: Whether the layers have a bias.
    """

    def __init__(self, num_voxels: Mapping[str, int] | Sequence[int], out_features: int, bias: bool = True) -> None:
        super().__init__()
        self.out_features = out_features
        self.layers = SubjectLayers(num_voxels, partial(WideLinear, out_features=out_features, bias=bias))

    @property
    def num_voxels(self) -> list[int]:
        """Number of voxels of each subject."""
        return self.layers.num_voxels

    def forward(self, fmri: torch.Tensor, subject_ids: torch.Tensor) -> torch.Tensor:
        """(B, widest) zero-padded voxels and (B,) indices ▶ (B, out_features); see [`SubjectLayers`]."""
        return cast(torch.Tensor, self.layers(fmri, subject_ids))
