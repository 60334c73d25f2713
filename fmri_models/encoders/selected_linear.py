"""A linear layer of which each output reads a few inputs of its own, stored as their positions and weights."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from ..errors import FmriModelsError
from ..traced import becomes_a_graph


class SelectedLinear(nn.Module):
    """A linear layer with K inputs for each output: positions and weights instead of a matrix that is mostly zeros.

    A map from 10,000 voxels to the 3.2 million units of a layer of VGG19 would have 32 billion weights; with 500 voxels
    a unit it has a twentieth.

    Args:
        in_features: Number of voxels.
        out_features: Number of units.
        num_selected: Voxels that each unit reads.
        standardises_patterns: Whether the K values that a unit reads are standardised in each pattern (mean 0, standard
            deviation 1, of a sample) before they are weighted.

    Attributes:
        indices: (units, K) int32 positions of voxels.
        weight: (units, K).
        bias: (units,).

    Raises:
        FmriModelsError: There are more selected voxels than voxels.
    """

    indices: torch.Tensor

    def __init__(
        self, in_features: int, out_features: int, num_selected: int, standardises_patterns: bool = False
    ) -> None:
        super().__init__()
        check_num_selected(num_selected, in_features)
        self.in_features, self.out_features, self.num_selected = in_features, out_features, num_selected
        self.standardises_patterns = standardises_patterns
        self.register_buffer("indices", self.first_voxels())
        self.weight = nn.Parameter(torch.zeros(out_features, num_selected))
        self.bias = nn.Parameter(torch.zeros(out_features))
        self._checked = False

    def forward(self, fmri: torch.Tensor) -> torch.Tensor:
        """(B, in_features) ▶ (B, out_features), in the precision of the weights.

        Raises:
            FmriModelsError: The stored positions are none of voxels.
        """
        fmri = fmri.to(self.weight.dtype)
        self._check_indices()
        if self.standardises_patterns:
            return torch.cat([self._standardised(fmri, units) for units in self._units_at_once(len(fmri))], dim=-1)
        # Voxels are the rows of a table, of which each unit adds up K, weighted: no (B, units, K) comes into memory.
        added = F.embedding_bag(self.indices, fmri.T.contiguous(), per_sample_weights=self.weight, mode="sum")
        return added.T + self.bias

    def first_voxels(self) -> torch.Tensor:
        """(units, K) int32 positions of the first K voxels, which all units read until a fit chooses."""
        return torch.arange(self.num_selected, dtype=torch.int32).repeat(self.out_features, 1)

    def dense(self) -> torch.Tensor:
        """(units, in_features) the matrix that it stands for; not of a layer that standardises patterns."""
        matrix = self.weight.new_zeros(self.out_features, self.in_features)
        return matrix.scatter_add(1, self.indices.long(), self.weight)

    def _standardised(self, fmri: torch.Tensor, units: slice) -> torch.Tensor:
        read = fmri[:, self.indices[units].long()]
        return (standardised_patterns(read) * self.weight[units]).sum(dim=-1) + self.bias[units]

    def _units_at_once(self, num_patterns: int) -> list[slice]:
        size = max(1, 2**22 // max(1, num_patterns * self.num_selected))
        return [slice(start, start + size) for start in range(0, self.out_features, size)]

    def _check_indices(self) -> None:
        """Refuses a damaged file once; reading positions takes as long as decoding a pattern does.

        On an accelerator, for which the host would wait, they were checked before they came there.
        """
        if self._checked or becomes_a_graph() or type(self.indices) is not torch.Tensor:
            return
        if self.indices.device.type != "cpu":
            return
        low, high = (int(value) for value in self.indices.aminmax())
        if low < 0 or high >= self.in_features:
            raise FmriModelsError(
                f"A map of the model reads voxels {low} to {high}; expected 0 to {self.in_features - 1}; save the "
                "model again, or take another copy of its folder."
            )
        self._checked = True

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> "SelectedLinear":
        self._check_indices()
        return super()._apply(fn, recurse)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, num_selected={self.num_selected}"


def standardised_patterns(read: torch.Tensor) -> torch.Tensor:
    """(…, K) of mean 0 and a sample's standard deviation of 1 along the last dimension, 0 where all are alike."""
    centred = read - read.mean(dim=-1, keepdim=True)
    spread = centred.square().sum(dim=-1, keepdim=True).div(max(read.shape[-1] - 1, 1)).sqrt()
    return centred / torch.where(spread > 0, spread, 1)


def check_num_selected(num_selected: int, num_voxels: int, whose: str = "") -> None:
    """Refuses to select more voxels than there are.

    Args:
        num_selected: Voxels of each unit.
        num_voxels: Voxels that there are.
        whose: Whose they are, such as `" of subj01 in V1"`.

    Raises:
        FmriModelsError: There are fewer voxels.
    """
    if not 1 <= num_selected <= num_voxels:
        raise FmriModelsError(
            f"voxels_per_target is {num_selected}, and there are {num_voxels} voxels{whose}; choose from 1 to "
            f"{num_voxels} (model.voxels_per_target in a recipe), or leave it out for a map that reads all."
        )
