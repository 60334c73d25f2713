"""One linear layer a subject: brains of different size come in, features of one size go out."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import nn

from ..errors import FmriModelsError
from ..traced import becomes_a_graph
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
        """(B, widest) zero-padded voxels and (B,) indices ▶ (B, out_features); see [`by_subject`].

        Voxels are taken in any precision and are brought to that of the weights, which may be half.
        """
        dtype = next(self.layers.parameters()).dtype
        # Quantised layers bring them there themselves.
        fmri = fmri.to(dtype) if dtype.is_floating_point else fmri
        return by_subject(self.layers, fmri, subject_ids, self.num_voxels)


def by_subject(
    layers: nn.ModuleList, fmri: torch.Tensor, subject_ids: torch.Tensor, num_voxels: Sequence[int]
) -> torch.Tensor:
    """Applies to each row the layer of its subject; padding is not read.

    Every layer runs, without rows as well: its gradient is then zero and not missing, which matters where several
    processes average gradients. Ids on an accelerator are not read, because the host would wait for it, and neither are
    those of a graph that is compiled, exported or traced: all layers see all rows there, and where an id is none the
    features are NaN.

    Args:
        layers: One a subject, (B, voxels) ▶ (B, F).
        fmri: (B, widest) zero-padded voxels.
        subject_ids: (B,) indices, on the CPU or where the voxels are.
        num_voxels: Number of voxels of each subject.

    Returns:
        (B, F).

    Raises:
        FmriModelsError: An id that can be read is none of a layer.
    """
    if subject_ids.device.type != "cpu" or becomes_a_graph():
        return _selected(layers, fmri, subject_ids.to(fmri.device), num_voxels)
    rows = [torch.nonzero(subject_ids == index).flatten() for index in range(len(layers))]
    if sum(map(len, rows)) != len(fmri):
        raise FmriModelsError(
            f"subject_ids has other values than 0 to {len(layers) - 1}, the ids of this model's subjects, or not one "
            f"for each of {len(fmri)} rows; give the index of each row's subject."
        )
    if len(layers) == 1:
        return cast(torch.Tensor, layers[0](fmri))
    features = torch.cat(
        [layer(fmri[chosen, :count]) for layer, chosen, count in zip(layers, rows, num_voxels, strict=True)]
    )
    # Rows of one subject alone are in order.
    return features if max(map(len, rows)) == len(fmri) else features[torch.cat(rows).argsort()]


def _selected(
    layers: nn.ModuleList, fmri: torch.Tensor, subject_ids: torch.Tensor, num_voxels: Sequence[int]
) -> torch.Tensor:
    """All layers on all rows; the values of those that are not a layer's are replaced before and after it."""
    selected: torch.Tensor | float = float("nan")
    for index, (layer, count) in enumerate(zip(layers, num_voxels, strict=True)):
        is_its_own = (subject_ids == index)[:, None]
        selected = torch.where(is_its_own, layer(torch.where(is_its_own, fmri[:, :count], 0.0)), selected)
    assert isinstance(selected, torch.Tensor)
    return selected
