"""Layers of subjects: each row of a batch goes through the layer of its subject."""

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
from torch import nn

from ..errors import FmriModelsError
from ..subject_modules import SubjectModules
from ..traced import becomes_a_graph


class SubjectLayers(SubjectModules):
    """Applies to each row the layer of its subject; see [`by_subject`].

    Args:
        num_voxels: Subject ▶ number of columns that its layer reads, `config.voxels_by_subject` as a rule, in the order
            of the configuration's subjects. A sequence is taken for subjects without names; to such layers no
            subject can be added.
        make_layer: Number of columns ▶ a layer, (B, columns, …) ▶ (B, …). It is called again for each subject that is
            added, and has to be picklable: a class, or `functools.partial` of one.
        reads_all: Whether the layers read all columns there are, which then are the same for each subject, such as the
            hidden features that a layer of the subject turns into voxels. `make_layer` then still gets the number of
            the subject's voxels.
    """

    def __init__(
        self,
        num_voxels: Mapping[str, int] | Sequence[int],
        make_layer: Callable[[int], nn.Module],
        reads_all: bool = False,
    ) -> None:
        if isinstance(num_voxels, Mapping):
            super().__init__({name: make_layer(count) for name, count in num_voxels.items()})
            self.num_voxels = list(num_voxels.values())
        else:
            super().__init__([make_layer(count) for count in num_voxels])
            self.num_voxels = list(num_voxels)
        self.make_layer = make_layer
        self.reads_all = reads_all

    def new_layer(self, num_voxels: int) -> nn.Module:
        return self.make_layer(num_voxels)

    def append(self, name: str, num_voxels: int, layer: nn.Module) -> None:
        super().append(name, num_voxels, layer)
        self.num_voxels.append(num_voxels)

    def remove(self, name: str) -> None:
        del self.num_voxels[self.names.index(name)]
        super().remove(name)

    def forward(self, values: torch.Tensor, subject_ids: torch.Tensor) -> torch.Tensor:
        """(B, widest, …) zero-padded columns and (B,) indices of subjects ▶ (B, …).

        Columns are taken in any precision and are brought to that of the weights, which may be half. Where layers give
        another number of values for each subject, rows are zero-padded to the largest.
        """
        dtype = next(self.parameters()).dtype
        # Quantised layers bring them there themselves.
        values = values.to(dtype) if dtype.is_floating_point else values
        counts = [values.shape[1]] * len(self) if self.reads_all else self.num_voxels
        return by_subject(list(self), values, subject_ids, counts)


def by_subject(
    layers: Sequence[nn.Module] | nn.ModuleList,
    fmri: torch.Tensor,
    subject_ids: torch.Tensor,
    num_voxels: Sequence[int],
) -> torch.Tensor:
    """Applies to each row the layer of its subject; padding is not read.

    Every layer runs, without rows as well: its gradient is then zero and not missing, which matters where several
    processes average gradients. Ids on an accelerator are not read, because the host would wait for it, and neither are
    those of a graph that is compiled, exported or traced: all layers see all rows there, and where an id is none the
    features are NaN.

    Args:
        layers: One a subject, (B, voxels, …) ▶ (B, …).
        fmri: (B, widest, …) zero-padded voxels.
        subject_ids: (B,) indices, on the CPU or where the voxels are.
        num_voxels: Number of voxels of each subject.

    Returns:
        (B, …), zero-padded along the last dimension where layers give another number of values each.

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
        _of_one_width(
            [layer(fmri[chosen, :count]) for layer, chosen, count in zip(layers, rows, num_voxels, strict=True)]
        )
    )
    # Rows of one subject alone are in order.
    return features if max(map(len, rows)) == len(fmri) else features[torch.cat(rows).argsort()]


def _selected(
    layers: Sequence[nn.Module] | nn.ModuleList,
    fmri: torch.Tensor,
    subject_ids: torch.Tensor,
    num_voxels: Sequence[int],
) -> torch.Tensor:
    """All layers on all rows; the values of those that are not a layer's are replaced before and after it."""
    own = [subject_ids == index for index in range(len(layers))]
    features = _of_one_width(
        [
            layer(torch.where(_as_rows(is_own, fmri), fmri[:, :count], 0.0))
            for layer, is_own, count in zip(layers, own, num_voxels, strict=True)
        ]
    )
    selected: torch.Tensor | float = float("nan")
    for is_own, each in zip(own, features, strict=True):
        selected = torch.where(_as_rows(is_own, each), each, selected)
    assert isinstance(selected, torch.Tensor)
    return selected


def _as_rows(chosen: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    return chosen.reshape(-1, *[1] * (values.ndim - 1))


def _of_one_width(features: list[torch.Tensor]) -> list[torch.Tensor]:
    widest = max(each.shape[-1] for each in features)
    if all(each.shape[-1] == widest for each in features):
        return features
    return [nn.functional.pad(each, (0, widest - each.shape[-1])) for each in features]
