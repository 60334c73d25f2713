"""Mean and variance of chunks are those of the whole."""

import numpy as np
import pytest

from fmri_models.processing.moments import Moments


@pytest.mark.parametrize("cuts", [(), (1,), (3, 4, 19)])
def test_moments_of_chunks_are_those_of_the_whole(cuts):
    betas = np.random.default_rng(0).normal(10_000, 20, size=(20, 7)).astype(np.float32)
    first, *others = (Moments.of(chunk) for chunk in np.split(betas, cuts))
    for other in others:
        first = first.merged(other)
    assert first.count == 20
    np.testing.assert_allclose(first.mean, betas.mean(axis=0, dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(first.std, betas.std(axis=0, dtype=np.float64), rtol=1e-9)


def test_rounding_of_a_constant_voxel_is_no_spread():
    betas = np.full((1000, 1), 0.1)
    merged = Moments.of(betas[:333]).merged(Moments.of(betas[333:]))
    assert merged.std == 0
