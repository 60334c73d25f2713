"""From one subject's voxels to another's: the original's numbers, planted rotations, and nulls."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from scipy.linalg import orthogonal_procrustes
from sklearn.linear_model import Ridge

from fmri_models.alignment.subject_alignment import (
    align_subjects,
    procrustes_factors,
    ridge_factors,
    shared_response_bases,
)
from fmri_models.errors import FmriModelsError

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "linear_family"
METHODS = ("ridge", "procrustes", "template", "shared_response")


def rotated_brains(stimuli=60, voxels=(20, 20, 20), noise=0.0, seed=0, dimensions=10):
    """Brains that hold the same few dimensions, each rotated in its own way."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(2 * stimuli, dimensions))
    brains = {}
    for number, width in enumerate(voxels, start=1):
        basis = np.linalg.qr(rng.normal(size=(width, dimensions)))[0]
        fmri = shared @ basis.T + noise * rng.normal(size=(2 * stimuli, width)) + 3 * number
        brains[f"subj0{number}"] = torch.from_numpy(fmri)
    seen = {subject: fmri[:stimuli] for subject, fmri in brains.items()}
    return seen, {subject: fmri[stimuli:] for subject, fmri in brains.items()}


def correlation(one, other):
    return np.corrcoef(one.flatten(), other.flatten())[0, 1]


def test_procrustes_has_the_numbers_of_fmralign():
    found = load_file(FIXTURES / "procrustes.safetensors")
    left, right, scale = procrustes_factors(*(torch.from_numpy(found[name]) for name in ("in.x", "in.y")))
    np.testing.assert_allclose((left @ right).T, found["out.R"], atol=1e-8)
    assert scale == pytest.approx(float(found["out.scale"][0]), abs=1e-10)
    aligned = scale * torch.from_numpy(found["in.x"]) @ right.T @ left.T
    np.testing.assert_allclose(aligned, found["out.aligned"], atol=1e-8)


@pytest.mark.parametrize("shape", [(30, 8), (8, 30), (12, 12)])
def test_procrustes_is_scipys(shape):
    rng = np.random.default_rng(1)
    source, target = rng.normal(size=shape), rng.normal(size=shape)
    rotation, total = orthogonal_procrustes(source, target)
    left, right, scale = procrustes_factors(torch.from_numpy(source), torch.from_numpy(target))
    np.testing.assert_allclose(source @ (left @ right).T.numpy(), source @ rotation, atol=1e-9)
    assert scale == pytest.approx(total / np.square(source).sum())


@pytest.mark.parametrize("voxels", [10, 80])
def test_ridge_is_scikit_learns_with_the_penalty_of_the_smallest_left_out_error(voxels):
    rng = np.random.default_rng(2)
    source, target = rng.normal(size=(40, voxels)), rng.normal(size=(40, 6))
    target += source[:, :6] * 2
    source, target = source - source.mean(0), target - target.mean(0)
    penalties = [1.0, 10.0, 100.0, 1e4]
    errors = []
    for penalty in penalties:
        left_out = [
            target[row]
            - Ridge(penalty).fit(np.delete(source, row, 0), np.delete(target, row, 0)).predict(source[[row]])
            for row in range(40)
        ]
        errors.append(np.square(left_out).mean())
    best = penalties[int(np.argmin(errors))]
    left, right = ridge_factors(torch.from_numpy(source), torch.from_numpy(target), penalties)
    np.testing.assert_allclose(left @ right, Ridge(best, fit_intercept=False).fit(source, target).coef_, atol=1e-8)


@pytest.mark.parametrize("method", METHODS)
def test_a_planted_rotation_is_found_on_stimuli_that_were_not_shared(method):
    seen, unseen = rotated_brains(noise=0.05)
    maps = align_subjects(seen, "subj02", method, dimensions=10)
    assert set(maps) == {"subj01", "subj03"}
    for subject, found in maps.items():
        assert correlation(found(unseen[subject]), unseen["subj02"]) > 0.95
        # Without the map there is nothing in common.
        centred = [brain - brain.mean(0) for brain in (unseen[subject], unseen["subj02"])]
        assert abs(correlation(*centred)) < 0.3


@pytest.mark.parametrize("method", METHODS)
def test_subjects_of_different_widths_and_fewer_stimuli_than_voxels(method):
    seen, unseen = rotated_brains(stimuli=40, voxels=(90, 70, 50), noise=0.02)
    found = align_subjects(seen, "subj02", method, dimensions=10)["subj03"]
    assert found(unseen["subj03"]).shape == (40, 70)
    assert correlation(found(unseen["subj03"]), unseen["subj02"]) > 0.9


@pytest.mark.parametrize("method", METHODS)
def test_the_null_of_brains_that_saw_other_things(method):
    """The pairing of stimuli is what is learned from: without it nothing is predicted beyond the mean."""
    values = []
    for seed in range(20):
        seen, unseen = rotated_brains(noise=0.05, seed=seed)
        order = torch.randperm(60, generator=torch.Generator().manual_seed(seed))
        seen["subj01"] = seen["subj01"][order]
        found = align_subjects(seen, "subj02", method, dimensions=10)["subj01"]
        predicted, true = found(unseen["subj01"]), unseen["subj02"]
        values.append(correlation(predicted - predicted.mean(0), true - true.mean(0)))
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(20)


@pytest.mark.parametrize("method", METHODS)
def test_a_decoder_is_folded_into_the_map(method):
    seen, unseen = rotated_brains(voxels=(30, 25, 20))
    found = align_subjects(seen, "subj01", method, dimensions=8)["subj02"]
    weight, bias = torch.randn(7, 30, dtype=torch.float64), torch.randn(7, dtype=torch.float64)
    folded, offset = found.folded(weight, bias)
    assert folded.shape == (7, 25)
    expected = found(unseen["subj02"]) @ weight.T + bias
    torch.testing.assert_close(unseen["subj02"] @ folded.T + offset, expected)


def test_bases_of_a_shared_response_are_orthonormal_and_equally_read():
    seen, _ = rotated_brains(noise=0.01)
    centred = {subject: fmri - fmri.mean(0) for subject, fmri in seen.items()}
    bases = shared_response_bases(centred, 10)
    for basis in bases.values():
        torch.testing.assert_close(basis.T @ basis, torch.eye(10, dtype=torch.float64))
    one, other = (centred[subject] @ bases[subject] for subject in ("subj01", "subj02"))
    assert correlation(one, other) > 0.99


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.update(subj01=r["subj01"][:50]), "same stimuli of all subjects; got subj01 50, subj02 60"),
        (lambda r: r["subj01"].__setitem__((3, 4), float("nan")), "subj01 have values that are not finite"),
        (lambda r: r.update(subj03=torch.ones(60, 9)), "subj03 are the same for all 60 shared stimuli"),
        (lambda r: r.update({s: f[:1] for s, f in r.items()}), "needs 2 stimuli at least"),
        (lambda r: r.pop("subj02"), "aligned to subj02, which is none of subj01, subj03"),
    ],
)
def test_what_can_not_be_aligned(change, message):
    seen, _ = rotated_brains()
    change(seen)
    with pytest.raises(FmriModelsError, match=message):
        align_subjects(seen, "subj02")


def test_more_dimensions_than_stimuli_and_unknown_methods():
    seen, _ = rotated_brains(stimuli=6)
    with pytest.raises(FmriModelsError, match="there are 6 shared stimuli, and subj01 has 20 voxels"):
        align_subjects(seen, "subj02", "shared_response", dimensions=6)
    with pytest.raises(FmriModelsError, match="no alignment 'anatomy'; known: ridge"):
        align_subjects(seen, "subj02", "anatomy")


def test_the_penalty_of_responses_in_large_numbers_is_that_of_small_ones():
    generator = torch.Generator().manual_seed(0)
    source = torch.randn(30, 50, generator=generator, dtype=torch.float64)
    target = source[:, :40] + 6 * torch.randn(30, 40, generator=generator, dtype=torch.float64)
    source, target = (each - each.mean(dim=0) for each in (source, target))
    penalties = [10.0**exponent for exponent in range(-3, 5)]
    left, right = ridge_factors(source, target, penalties)
    # Rounding once made left-out errors of penalties that are small beside the responses any number.
    scaled_left, scaled_right = ridge_factors(1e6 * source, target, [1e-3, 1.0, *(1e12 * each for each in penalties)])
    torch.testing.assert_close(1e6 * scaled_left @ scaled_right, left @ right)
