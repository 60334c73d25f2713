"""Stage 2, subject alignment: from one subject's voxels to another's, learned from stimuli that both saw.

Every map has the rank of the number of stimuli at most and is kept as two factors: for two brains of 15,000 voxels and
900 stimuli that is a tenth of the dense matrix, and a linear decoder is folded into it without ever making that.

Sources: Procrustes after Schönemann (1966), as fmralign scales it; the template of hyperalignment after Haxby et al.
(2011); the deterministic shared response model after Chen et al. (2015); ridge as Ferrante et al. (2024) map subjects.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from ..errors import FmriModelsError
from ..names import listed, one_line

AlignmentMethod = Literal["ridge", "procrustes", "template", "shared_response"]
DEFAULT_PENALTIES = tuple(float(10**exponent) for exponent in range(-1, 7))
# Of the largest singular value: what is smaller is rounding.
_RANK = 1e-10
_ROUNDS = 3
_TINY = torch.finfo(torch.float64).tiny
_MOST_ITERATIONS, _SETTLED = 50, 1e-9


@dataclass(frozen=True)
class SubjectMap:
    """An affine map from a subject's voxels to another's.

    Args:
        left: (V_to, r).
        right: (r, V_from).
        source_mean: (V_from,) taken off first.
        target_mean: (V_to,) added last.
    """

    left: torch.Tensor
    right: torch.Tensor
    source_mean: torch.Tensor
    target_mean: torch.Tensor

    def __call__(self, fmri: torch.Tensor) -> torch.Tensor:
        """(n, V_from) ▶ (n, V_to)."""
        return (fmri - self.source_mean) @ self.right.T @ self.left.T + self.target_mean

    def folded(self, weight: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The weights that read the source subject as given ones read the target subject.

        Args:
            weight: (T, V_to).
            bias: (T,).

        Returns:
            (T, V_from) and (T,), in the precision of the map.
        """
        weight, bias = weight.to(self.left.dtype), bias.to(self.left.dtype)
        folded = weight @ self.left @ self.right
        return folded, bias + weight @ self.target_mean - folded @ self.source_mean


def align_subjects(
    responses: Mapping[str, torch.Tensor],
    to: str,
    method: AlignmentMethod = "ridge",
    penalties: Sequence[float] = DEFAULT_PENALTIES,
    dimensions: int = 100,
) -> dict[str, SubjectMap]:
    """Maps every other subject's voxels to one subject's.

    Args:
        responses: Subject ▶ (n, voxels) responses to the same n stimuli in the same order, repetitions averaged.
        to: The subject whose voxels the others are mapped to.
        method: `"ridge"` predicts each voxel; `"procrustes"` rotates and scales, each subject by itself;
            `"template"` rotates all to their common mean, made in three rounds; `"shared_response"` finds a few
            dimensions that all have.
        penalties: Of `"ridge"`, chosen by leaving each stimulus out.
        dimensions: Of `"shared_response"`.

    Raises:
        FmriModelsError: There is no such subject or method, responses are not finite or not of equally many stimuli,
            there are fewer stimuli than a map needs, or a subject's responses do not vary.
    """
    _check(responses, to, method)
    means = {subject: fmri.double().mean(dim=0) for subject, fmri in responses.items()}
    centred = {subject: fmri.double() - means[subject] for subject, fmri in responses.items()}
    others = [subject for subject in responses if subject != to]
    if method == "ridge":
        factors = {subject: ridge_factors(centred[subject], centred[to], penalties) for subject in others}
    elif method == "procrustes":
        factors = {subject: _scaled(*procrustes_factors(centred[subject], centred[to])) for subject in others}
    elif method == "template":
        factors = _through_template(centred, to)
    else:
        bases = shared_response_bases(centred, dimensions)
        factors = {subject: (bases[to], bases[subject].T) for subject in others}
    return {subject: SubjectMap(left, right, means[subject], means[to]) for subject, (left, right) in factors.items()}


def ridge_factors(
    source: torch.Tensor, target: torch.Tensor, penalties: Sequence[float] = DEFAULT_PENALTIES
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ridge regression of each target voxel on all source voxels, one penalty for all.

    Args:
        source: (n, V_from) centred.
        target: (n, V_to) centred.
        penalties: From which the one is taken with the least squared error when each stimulus is left out.

    Returns:
        (V_to, r) and (r, V_from), whose product are the weights.
    """
    left_vectors, values, right_vectors = _svd(source)
    rotated = left_vectors.T @ target
    # What no voxel explains, and no stimulus has of it where all that is centred is spanned: by difference that would
    # be rounding, which is more than what a small penalty leaves.
    unexplained, free = torch.zeros_like(target), target.new_zeros(len(target))
    if len(values) < len(source) - 1:
        unexplained = target - left_vectors @ rotated
        # Leverage of each stimulus, with that of the mean, which was taken off with the stimulus itself in it.
        free = 1 - left_vectors.square().sum(dim=1) - 1 / len(source)
    errors = []
    for penalty in penalties:
        left = penalty / (values.square() + penalty)
        residual = unexplained + left_vectors @ (left[:, None] * rotated)
        errors.append(
            float((residual / (free + left_vectors.square() @ left).clamp(min=_TINY)[:, None]).square().mean())
        )
    penalty = penalties[errors.index(min(errors))]
    return rotated.T * (values / (values.square() + penalty)), right_vectors


def procrustes_factors(source: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, float]:
    """The orthogonal map that brings source nearest to target in least squares (Schönemann 1966), and its scale.

    With fewer stimuli than voxels the map is known on what the stimuli span alone; elsewhere it is zero.

    Args:
        source: (n, V_from); nothing is centred here.
        target: (n, V_to).

    Returns:
        (V_to, r) and (r, V_from), whose product is the rotation, and the factor that makes its squared error least.
    """
    if len(source) < max(source.shape[1], target.shape[1]):
        # The cross product has the rank n at most: its decomposition is that of an (n, n) matrix.
        (source_basis, source_rest), (target_basis, target_rest) = (torch.linalg.qr(x.T) for x in (source, target))
        left_vectors, values, right_vectors = _svd(source_rest @ target_rest.T)
        left_vectors, right_vectors = source_basis @ left_vectors, right_vectors @ target_basis.T
    else:
        left_vectors, values, right_vectors = _svd(source.T @ target)
    return right_vectors.T, left_vectors.T, float(values.sum() / source.square().sum())


def shared_response_bases(centred: Mapping[str, torch.Tensor], dimensions: int) -> dict[str, torch.Tensor]:
    """Orthonormal bases in which all subjects respond alike (deterministic shared response model, Chen et al. 2015).

    Args:
        centred: Subject ▶ (n, V) centred responses.
        dimensions: Of what they share.

    Returns:
        Subject ▶ (V, dimensions).

    Raises:
        FmriModelsError: There are not more stimuli than dimensions, or fewer voxels.
    """
    stimuli = len(next(iter(centred.values())))
    narrowest = min(centred, key=lambda subject: centred[subject].shape[1])
    if dimensions < 1 or dimensions >= stimuli or dimensions > centred[narrowest].shape[1]:
        raise FmriModelsError(
            f"A shared response of {dimensions} dimensions needs as many voxels of each subject and more stimuli that "
            f"all have seen: there are {stimuli} shared stimuli, and {one_line(narrowest, 60)} has "
            f"{centred[narrowest].shape[1]} voxels; take fewer dimensions, or more shared stimuli."
        )
    products = sum(fmri @ fmri.T / fmri.square().sum() for fmri in centred.values())
    assert isinstance(products, torch.Tensor)
    shared = torch.linalg.eigh(products).eigenvectors[:, -dimensions:]
    explained = 0.0
    for _ in range(_MOST_ITERATIONS):
        bases = {subject: _orthonormal(fmri.T @ shared) for subject, fmri in centred.items()}
        shared = torch.stack([fmri @ bases[subject] for subject, fmri in centred.items()]).mean(dim=0)
        now = float(shared.square().sum())
        if abs(now - explained) <= _SETTLED * now:
            break
        explained = now
    return bases


def _orthonormal(matrix: torch.Tensor) -> torch.Tensor:
    left_vectors, _, right_vectors = torch.linalg.svd(matrix, full_matrices=False)
    return left_vectors @ right_vectors


def _through_template(centred: Mapping[str, torch.Tensor], to: str) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Every subject is rotated to the mean of all, which lives in the voxels of one; from there, back to that one."""
    template = centred[to]
    for _ in range(_ROUNDS):
        factors = {subject: procrustes_factors(fmri, template) for subject, fmri in centred.items()}
        rotated = [
            scale * fmri @ right.T @ left.T
            for fmri, (left, right, scale) in zip(centred.values(), factors.values(), strict=True)
        ]
        template = torch.stack(rotated).mean(dim=0)
    own_left, own_right, own_scale = factors[to]
    return {
        subject: (own_right.T @ (own_left.T @ left) * (scale / own_scale), right)
        for subject, (left, right, scale) in factors.items()
        if subject != to
    }


def _scaled(left: torch.Tensor, right: torch.Tensor, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    return left * scale, right


def _svd(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Left vectors, values and right vectors, without those of rounding."""
    left_vectors, values, right_vectors = torch.linalg.svd(matrix, full_matrices=False)
    kept = values > _RANK * values.max()
    return left_vectors[:, kept], values[kept], right_vectors[kept]


def _check(responses: Mapping[str, torch.Tensor], to: str, method: str) -> None:
    if method not in get_args(AlignmentMethod):
        raise FmriModelsError(
            f"There is no alignment {one_line(repr(method), 60)}; known: {', '.join(get_args(AlignmentMethod))}."
        )
    if to not in responses:
        raise FmriModelsError(
            f"Subjects are to be aligned to {one_line(to, 60)}, which is none of {listed(list(responses), 8)}."
        )
    counts = {subject: len(fmri) for subject, fmri in responses.items()}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{one_line(subject, 60)} {count}" for subject, count in counts.items())
        raise FmriModelsError(f"Alignment needs responses to the same stimuli of all subjects; got {told}.")
    if counts[to] < 2:
        raise FmriModelsError(
            f"Alignment needs 2 stimuli at least that all subjects saw in training; there are {counts[to]}. Align "
            "subjects that share stimuli."
        )
    for subject, fmri in responses.items():
        if not bool(torch.isfinite(fmri).all()):
            raise FmriModelsError(f"The responses of {one_line(subject, 60)} have values that are not finite.")
        if not bool((fmri.std(dim=0) > 0).any()):
            raise FmriModelsError(
                f"The responses of {one_line(subject, 60)} are the same for all {len(fmri)} shared stimuli: nothing "
                "can be aligned."
            )
