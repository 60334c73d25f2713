"""The Fréchet distance beside the formula that it is, with many pictures and with few."""

import numpy as np
import pytest
import torch
from scipy import linalg

from fmri_models.errors import FmriModelsError
from fmri_models.evaluation import frechet_distance


def by_formula(one: torch.Tensor, other: torch.Tensor) -> float:
    """As torchmetrics and the TTUR code write it."""
    (mean, other_mean), (cov, other_cov) = zip(
        *((each.mean(0).numpy(), np.cov(each.numpy(), rowvar=False)) for each in (one.double(), other.double())),
        strict=True,
    )
    root = linalg.sqrtm(cov @ other_cov)
    return float(((mean - other_mean) ** 2).sum() + np.trace(cov + other_cov) - 2 * np.trace(np.real(root)))


@pytest.mark.parametrize(("count", "others", "size"), [(40, 40, 16), (200, 90, 8), (15, 40, 12)])
def test_it_is_the_formula(count, others, size):
    generator = torch.Generator().manual_seed(0)
    one = torch.randn(count, size, generator=generator)
    other = torch.randn(others, size, generator=generator) @ torch.randn(size, size, generator=generator) + 1
    assert frechet_distance(one, other) == pytest.approx(by_formula(one, other), rel=1e-6)
    assert frechet_distance(other, one) == pytest.approx(frechet_distance(one, other), rel=1e-9)


def test_fewer_pictures_than_features():
    one = torch.randn(6, 500, generator=torch.Generator().manual_seed(1))
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-9)
    # Moved by one in every feature, with the same spread.
    assert frechet_distance(one, one + 1) == pytest.approx(500, rel=1e-6)
    # Without any spread on one side what is left is that of the other.
    same = one[:1].expand(6, -1)
    expected = (one.double().mean(0) - one[0]).square().sum() + one.double().var(0).sum()
    assert frechet_distance(one, same) == pytest.approx(float(expected), rel=1e-6)
    # Spread in directions that the other has none in.
    left, right = torch.zeros(2, 4, 8, dtype=torch.float64)
    left[:, :2], right[:, 4:6] = torch.randn(2, 4, 2, generator=torch.Generator().manual_seed(2)).double()
    expected = (left.mean(0) - right.mean(0)).square().sum() + left.var(0).sum() + right.var(0).sum()
    assert frechet_distance(left, right) == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize(
    ("one", "other", "sentence"),
    [
        (torch.rand(1, 3), torch.rand(4, 3), "at least two pictures"),
        (torch.rand(4, 3), torch.rand(4, 2), "same features"),
        (torch.full((4, 3), torch.nan), torch.rand(4, 3), "true pictures contain NaN"),
        (torch.rand(4, 3), torch.full((4, 3), torch.inf), "reconstructions contain NaN or inf"),
    ],
)
def test_what_has_no_distance(one, other, sentence):
    with pytest.raises(FmriModelsError, match=sentence):
        frechet_distance(one, other)
