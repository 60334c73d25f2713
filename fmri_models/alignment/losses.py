"""Contrastive losses between brain and picture embeddings, and the mixing of voxels that goes with one of them.

MixCo is Kim et al. (2020), BiMixCo and the soft CLIP loss are Scotti et al. (2023). Inputs of the contrastive losses
are flattened and have length one; see [`normalised`].
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.nn import functional as F

from ..errors import FmriModelsError

# Below it, an embedding has no direction.
_SHORTEST = 1e-12


@dataclass
class MixCoDraw:
    """Which rows are mixed, with which other row, and how much of the row itself remains.

    Args:
        permutation: (B,) long, the other row.
        betas: (B,) float in [0, 1], the share of the row itself.
        select: (B,) bool, whether the row is mixed at all.
    """

    permutation: torch.Tensor
    betas: torch.Tensor
    select: torch.Tensor

    def to(self, device: torch.device) -> "MixCoDraw":
        return MixCoDraw(self.permutation.to(device), self.betas.to(device), self.select.to(device))


def draw_mixco(
    subject_ids: torch.Tensor, generator: torch.Generator, beta: float = 0.15, probability: float = 0.5
) -> MixCoDraw:
    """Draws what [`mixco`] and [`bimixco_loss`] take: permutation, betas, selection, in this order.

    Rows are mixed with rows of their own subject, since the voxels of two brains do not correspond.

    Args:
        subject_ids: (B,) long.
        generator: Source of all draws; on the CPU.
        beta: Both parameters of the Beta distribution.
        probability: Probability of a row to be mixed.
    """
    batch_size = subject_ids.shape[0]
    # torch's Beta distribution takes no generator, so the global one borrows the state of ours meanwhile.
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(generator.get_state())
        permutation = torch.randperm(batch_size)
        parameter = torch.tensor(beta, dtype=torch.float32)
        betas = torch.distributions.Beta(parameter, parameter, validate_args=False).sample((batch_size,))
        select = torch.rand(batch_size, dtype=torch.float32) <= probability
        generator.set_state(torch.get_rng_state())
    return MixCoDraw(_within_subjects(permutation.to(subject_ids.device), subject_ids), betas, select)


def _within_subjects(permutation: torch.Tensor, subject_ids: torch.Tensor) -> torch.Tensor:
    """The permutation that `permutation` induces on the rows of each subject; no value is read on the host."""
    result = torch.empty_like(permutation)
    result[subject_ids.argsort(stable=True)] = permutation[subject_ids[permutation].argsort(stable=True)]
    return result


def mixco(
    fmri: torch.Tensor,
    permutation: torch.Tensor,
    betas: torch.Tensor,
    select: torch.Tensor,
    others: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mixes selected rows with another one: beta times the row plus (1 - beta) times the other.

    Args:
        fmri: (B, …) voxels.
        permutation: (B,) the other rows.
        betas: (B,) share of the row itself.
        select: (B,) bool; what is not selected stays as it is.
        others: (N, …) what the permutation points into, such as the rows of all processes; None for `fmri` itself.
    """
    share = effective_betas(betas, select).to(fmri.dtype).reshape(-1, *[1] * (fmri.ndim - 1))
    return share * fmri + (1 - share) * (fmri if others is None else others)[permutation]


def effective_betas(betas: torch.Tensor, select: torch.Tensor) -> torch.Tensor:
    """(B,) betas with 1 for the rows that are not mixed."""
    return torch.where(select, betas, torch.ones_like(betas))


def bimixco_loss(
    predicted: torch.Tensor,
    target: torch.Tensor,
    permutation: torch.Tensor,
    betas: torch.Tensor,
    select: torch.Tensor,
    temperature: float = 0.006,
) -> torch.Tensor:
    """Contrastive loss of mixed brains in both directions: a mixed row belongs to both of its pictures.

    A row that the permutation leaves in place gets the label 1 - beta, as in the published training: the second
    label replaces the first, and one that is not selected has no label at all.

    Args:
        predicted: (B, D) embeddings of mixed voxels, of length one.
        target: (B, D) embeddings of the unmixed pictures, of length one.
        permutation: (B,) as for [`mixco`].
        betas: (B,) as for [`mixco`].
        select: (B,) as for [`mixco`].
        temperature: Divides the similarities.

    Raises:
        FmriModelsError: There is only one row.
    """
    _require_negatives(predicted)
    logits = similarity(predicted, target, temperature)
    labels = mixed_labels(permutation, effective_betas(betas, select)).to(logits)
    return (_cross_entropy(logits, labels) + _cross_entropy(logits.T, labels.T)) / 2


def mixed_labels(permutation: torch.Tensor, betas: torch.Tensor) -> torch.Tensor:
    """(B, B) how much row i belongs to picture j."""
    labels = torch.diag(betas)
    rows = torch.arange(betas.shape[0], device=betas.device)
    labels[rows, permutation] = 1 - betas
    return labels


class Compared(NamedTuple):
    """Cosines of a batch of predictions with its targets, of which its losses and scores are all made.

    Args:
        cosines: (B, B) float32 of prediction i with target j.
        target_cosines: (B, B) float32 of the targets with each other.
        size: D, the number of values that were compared.
    """

    cosines: torch.Tensor
    target_cosines: torch.Tensor
    size: int

    def soft_clip(self, temperature: float) -> torch.Tensor:
        """As [`soft_clip_loss`].

        Raises:
            FmriModelsError: There is only one row.
        """
        _require_negatives(self.cosines)
        return _soft_clip(self.cosines / temperature, self.target_cosines / temperature)

    def cosine(self) -> torch.Tensor:
        """Mean cosine of a prediction with its own target."""
        return self.cosines.diagonal().mean()

    def squared_error(self) -> torch.Tensor:
        """Mean squared error between rows of length one, over all B·D values: 2 (1 - cosine) / D."""
        return 2 * (1 - self.cosine()) / self.size

    def top1(self) -> torch.Tensor:
        """Share of rows whose own target is the most similar of the batch."""
        own = torch.arange(len(self.cosines), device=self.cosines.device)
        return (self.cosines.detach().argmax(dim=1) == own).float().mean()


def compared(predicted: torch.Tensor, target: torch.Tensor) -> Compared:
    """Compares predictions with targets of any length, without making copies of length one.

    Args:
        predicted: (B, …) embeddings.
        target: (B, …) embeddings; they get no gradient.
    """
    predicted, target = predicted.float().flatten(1), target.detach().float().flatten(1)
    # Cosines that are divided by .005 are needed in full precision.
    with torch.autocast(predicted.device.type, enabled=False):
        among = target @ target.T
        lengths = among.diagonal().sqrt().clamp(min=_SHORTEST)
        own_lengths = torch.linalg.vector_norm(predicted, dim=1).clamp(min=_SHORTEST)
        cosines = predicted @ target.T / (own_lengths[:, None] * lengths)
    return Compared(cosines, among / (lengths[:, None] * lengths), predicted.shape[1])


def soft_clip_loss(predicted: torch.Tensor, target: torch.Tensor, temperature: float) -> torch.Tensor:
    """Contrastive loss in both directions whose labels are the similarities among the pictures.

    Args:
        predicted: (B, D) embeddings of voxels, of length one.
        target: (B, D) embeddings of pictures, of length one.
        temperature: Divides the similarities, those of the labels too.

    Raises:
        FmriModelsError: There is only one row.
    """
    _require_negatives(predicted)
    return _soft_clip(similarity(predicted, target, temperature), similarity(target, target, temperature))


def soft_contrastive_loss(
    student: torch.Tensor, teacher: torch.Tensor, augmented_teacher: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Draws a student's features to those of an augmented view, as far as the teacher's own agree across the views.

    MindEye's low level learns with it from the feature maps of a picture network: rows are positions of all pictures.

    Args:
        student: (N, D) features from voxels, of length one.
        teacher: (N, D) features of the pictures, of length one.
        augmented_teacher: (N, D) features of the augmented pictures, of length one.
        temperature: Divides the similarities.
    """
    student_labels = similarity(teacher, augmented_teacher, temperature)
    student_logits = similarity(student, augmented_teacher, temperature)
    forwards = _cross_entropy(student_logits, student_labels.softmax(dim=-1))
    backwards = _cross_entropy(student_logits.T, student_labels.T.softmax(dim=-1))
    return (forwards + backwards) / 2


def cosine_anneal(start: float, end: float, fraction: float) -> float:
    """A value that goes from `start` to `end` along half a cosine while `fraction` goes from 0 to 1."""
    return end + (start - end) / 2 * (1 + math.cos(math.pi * fraction))


def retrieval_top1(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Scalar share of rows whose own picture is the most similar of the batch; inputs (B, D) of length one."""
    nearest = (predicted.float() @ target.float().T).argmax(dim=1)
    return (nearest == torch.arange(predicted.shape[0], device=nearest.device)).float().mean()


def normalised(embeds: torch.Tensor) -> torch.Tensor:
    """(B, …) embeddings as (B, D) rows of length one, in float32."""
    return F.normalize(embeds.float().flatten(1), dim=-1)


def similarity(first: torch.Tensor, second: torch.Tensor, temperature: float) -> torch.Tensor:
    """(B, B) products divided by the temperature, in float32 even under autocast."""
    # Divided by .006, a similarity in half precision steps by .08.
    with torch.autocast(first.device.type, enabled=False):
        return first.float() @ second.float().T / temperature


def _soft_clip(logits: torch.Tensor, target_logits: torch.Tensor) -> torch.Tensor:
    labels = target_logits.softmax(dim=-1)
    return (_cross_entropy(logits, labels) + _cross_entropy(logits.T, labels)) / 2


def _cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return -(logits.log_softmax(dim=-1) * labels).sum(dim=-1).mean()


def _require_negatives(predicted: torch.Tensor) -> None:
    if predicted.shape[0] < 2:
        raise FmriModelsError(
            "A contrastive loss compares the rows of a batch, and this batch has one row; train with a batch size of 2 "
            "or more."
        )
