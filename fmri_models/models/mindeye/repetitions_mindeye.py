"""How MindEye's training makes one pattern of the repetitions of a stimulus."""

from functools import partial
from typing import Literal

import torch

from ...batch import Batch
from ...draws import drawn_by_row

RepetitionRule = Literal["cycle", "mix", "mean"]


def one_pattern(batch: Batch, rule: RepetitionRule, generator: torch.Generator) -> torch.Tensor:
    """(B, V) voxels of a batch.

    Args:
        batch: `fmri` (B, V), which stays as it is, or (B, R, V), for `"cycle"` with the number of the `step`.
        rule: What becomes of the repetitions.
        generator: Source of the draws; on the CPU.
    """
    fmri = batch["fmri"]
    if fmri.ndim == 2:
        return fmri
    if rule == "cycle":
        return fmri[:, batch["step"] % fmri.shape[1]]
    return select_repetitions(fmri, generator) if rule == "mix" else fmri.mean(dim=1)


def select_repetitions(fmri: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """How the published low-level training made one pattern of several repetitions.

    Half of the batches are means with random weights, three in ten plain means, and in the rest each example takes one
    repetition at random.

    Args:
        fmri: (B, R, V) repetitions.
        generator: Source of the draws; on the CPU.

    Returns:
        (B, V).
    """
    batch_size, repetitions = fmri.shape[:2]
    choice = float(torch.rand(1, generator=generator, dtype=torch.float32))
    if choice <= 0.5:
        weights = drawn_by_row(torch.rand, (batch_size, repetitions), generator, dtype=torch.float32).to(fmri)
        return (fmri * (weights / weights.sum(dim=1, keepdim=True))[:, :, None]).sum(dim=1)
    if choice <= 0.8:
        return fmri.mean(dim=1)
    chosen = drawn_by_row(partial(torch.randint, repetitions), (batch_size,), generator).to(fmri.device)
    return fmri[torch.arange(batch_size, device=fmri.device), chosen]
