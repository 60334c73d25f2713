"""Simulated trials: the encoding model, changed pictures, and what they do to a batch."""

import numpy as np
import pytest
import torch

from fmri_models.data import TrialTable, TrialTableWriter
from fmri_models.data.generator_pictures import prepare_pictures
from fmri_models.data.loading import TrialDataset, gradient_trials
from fmri_models.data.table_processor import fit_processor
from fmri_models.errors import FmriModelsError
from fmri_models.generation.pixels import PixelsImageGenerator
from fmri_models.training.encoding_model import EncodingModel
from fmri_models.training.recipe import Stage
from fmri_models.training.simulated_trials import SimulatedTrials
from fmri_models.training.trial_simulation import TrialSimulation, trial_simulation

_STIMULI, _SIDE, _VOXELS = 60, 8, 40


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> TrialTable:
    """Two subjects, of whose voxels the first half responds to pictures and the other half to nothing."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (_STIMULI, _SIDE // 4, _SIDE // 4, 1), dtype=np.uint8).repeat(4, 1).repeat(4, 2)
    ids = [f"p{number:02d}" for number in range(_STIMULI)]
    out = tmp_path_factory.mktemp("simulated") / "table"
    with TrialTableWriter(out, "small", description="d", license="l", source="s", created_by="c") as writer:
        writer.add_stimuli(
            {"stimulus_id": stimulus, "image": picture} for stimulus, picture in zip(ids, pictures, strict=True)
        )
        for subject, voxels in (("subj01", _VOXELS), ("subj02", _VOXELS // 2)):
            weights = rng.normal(size=(_SIDE**2, voxels)) * (np.arange(voxels) < voxels // 2)
            fmri = (pictures.reshape(_STIMULI, -1) / 255 - 0.5) @ weights + rng.normal(size=(_STIMULI, voxels))
            writer.add_voxels(subject, voxels, roi=["V1"] * voxels)
            writer.add_trials(
                subject, "train", stimulus_ids=ids, trials=list(range(_STIMULI)), fmri=fmri.astype(np.float32)
            )
    return TrialTable.open(out)


@pytest.fixture(scope="module")
def generator() -> PixelsImageGenerator:
    return PixelsImageGenerator(1, _SIDE, _SIDE)


@pytest.fixture(scope="module")
def data(table: TrialTable, generator: PixelsImageGenerator) -> TrialDataset:
    processor = fit_processor(table, ["subj01", "subj02"], ["train"], statistics="pooled")
    return gradient_trials(table, processor, generator, ["image_embeds", "latents"], ["train"])


def _simulated(
    data: TrialDataset, table: TrialTable, generator: PixelsImageGenerator, **options: float
) -> SimulatedTrials:
    return SimulatedTrials(TrialSimulation(**options), data, table, generator, ["image_embeds", "latents"])


def test_the_encoding_model_knows_which_voxels_respond() -> None:
    torch.manual_seed(0)
    pictures = torch.rand(80, 1, 2, 2)
    fmri = torch.randn(80, 10)
    fmri[:, :5] = 0.1 * fmri[:, :5] + (pictures.flatten(1) - 0.5) @ torch.randn(4, 5)
    options = TrialSimulation(blur=0.0, ridge=0.01, noise=0.0)
    model = EncodingModel(pictures, fmri, options)
    assert model.predictability[:5].min() > 0.7 > 0.05 > model.predictability[5:].max()
    answers = model.respond(pictures, torch.Generator().manual_seed(0))
    assert (answers[:, :5] - fmri[:, :5]).square().mean() < 0.1 * fmri[:, :5].var()
    # Voxels that nothing predicts answer with their mean where there is no noise.
    torch.testing.assert_close(answers[:, 5:], fmri[:, 5:].mean(0).expand(80, 5))


def test_a_left_out_row_is_predicted_as_by_a_model_fitted_without_it() -> None:
    torch.manual_seed(0)
    pictures, fmri = torch.rand(12, 1, 3, 3), torch.randn(12, 6)
    options = TrialSimulation(blur=0.0, ridge=0.5)
    # Without a mean to take away, leaving out is exact.
    pictures, fmri = torch.cat([pictures, 1 - pictures]), torch.cat([fmri, -fmri])
    model = EncodingModel(pictures, fmri, options)
    centred = pictures.flatten(1) - 0.5
    penalty = 0.5 * centred.square().sum(1).mean()
    rest = torch.arange(24) != 5
    gram = centred[rest].T @ centred[rest] + penalty * torch.eye(9)
    weights = torch.linalg.solve(gram, centred[rest].T @ fmri[rest])
    errors = fmri[5] - centred[5] @ weights
    hat = centred @ torch.linalg.solve(centred.T @ centred + penalty * torch.eye(9), centred.T)
    expected = (fmri - hat @ fmri)[5] / (1 - hat[5, 5])
    torch.testing.assert_close(errors, expected, rtol=1e-4, atol=1e-5)
    everything = torch.stack([(fmri - hat @ fmri)[row] / (1 - hat[row, row]) for row in range(24)])
    share = 1 - everything.square().mean(0) / fmri.square().mean(0)
    torch.testing.assert_close(model.predictability, share, rtol=1e-3, atol=1e-4)


def test_noise_has_the_spread_that_the_encoding_model_leaves(
    data: TrialDataset, table: TrialTable, generator: PixelsImageGenerator
) -> None:
    rows = data.subjects[0]
    fmri = torch.from_numpy(rows[np.arange(len(rows))])
    shown = table.stimuli.images(rows.stimulus_ids.tolist())
    pictures = prepare_pictures(shown, generator.image_size)
    for shrinkage in (0.0, 1.0):
        model = EncodingModel(pictures, fmri, TrialSimulation(noise=2.0, noise_shrinkage=shrinkage))
        answers = model.respond(pictures[:1].repeat(4000, 1, 1, 1), torch.Generator().manual_seed(0))
        left = 1 - model.predictability
        expected = 2 * torch.where(model.predictability < 0.05, torch.ones_like(left), left).sqrt()
        torch.testing.assert_close(answers.std(0), expected, rtol=0.1, atol=0.02)


def test_simulated_rows_come_first_and_the_others_stay(
    data: TrialDataset, table: TrialTable, generator: PixelsImageGenerator
) -> None:
    batch = data.__getitems__([3, 70, 5, 80, 7, 90, 9, 100])
    changed = _simulated(data, table, generator, share=0.5)(batch, torch.Generator().manual_seed(0))
    for name in ("fmri", "image_embeds", "latents"):
        assert changed[name].shape == batch[name].shape and changed[name].dtype == torch.float32
        assert torch.equal(changed[name][4:], batch[name][4:])
        assert not torch.isclose(changed[name][:4], batch[name][:4]).flatten(1).all(1).any()
    assert changed["stimulus_ids"] == batch["stimulus_ids"]
    # The second subject has fewer voxels; its padding stays empty.
    assert not changed["fmri"][1, _VOXELS // 2 :].any() and changed["fmri"][0, _VOXELS // 2 :].any()
    torch.testing.assert_close(generator.embed_images(changed["latents"]), changed["image_embeds"])


def test_nothing_is_changed_where_nothing_may_be(
    data: TrialDataset, table: TrialTable, generator: PixelsImageGenerator
) -> None:
    batch = data.__getitems__([0, 1, 2])
    still = {"shift": 0.0, "rotation": 0.0, "scale": 0.0, "shear": 0.0}
    changed = _simulated(data, table, generator, share=1.0, **still)(batch, torch.Generator().manual_seed(0))
    torch.testing.assert_close(changed["latents"], batch["latents"], rtol=0, atol=1e-5)


def test_a_picture_is_moved_by_the_share_of_its_side_that_was_asked_for(
    data: TrialDataset, table: TrialTable, generator: PixelsImageGenerator
) -> None:
    batch = data.__getitems__([4] * 200)
    only_shift = {"shift": 1 / _SIDE, "rotation": 0.0, "scale": 0.0, "shear": 0.0}
    trials = _simulated(data, table, generator, share=1.0, **only_shift)
    draws = torch.randn(200, 6, generator=torch.Generator().manual_seed(1))
    drawn = trials(batch, torch.Generator().manual_seed(1))["latents"]
    for row in (draws[:, 4:] - torch.tensor([1.0, 0.0])).norm(dim=1).argsort()[:1].tolist():
        across, down = draws[row, 4:].tolist()
        assert abs(across - 1) < 0.2 and abs(down) < 0.2
        inside = drawn[row, 0, :, 1 : _SIDE - 2], batch["latents"][row, 0, :, 2 : _SIDE - 1]
        assert torch.corrcoef(torch.stack([each.flatten() for each in inside]))[0, 1] > 0.9


def test_a_share_of_nothing_leaves_the_batch(
    data: TrialDataset, table: TrialTable, generator: PixelsImageGenerator
) -> None:
    batch = data.__getitems__([0, 1, 2])
    assert _simulated(data, table, generator, share=0.0)(batch, torch.Generator().manual_seed(0)) is batch


def test_draws_come_from_the_generator_alone(
    data: TrialDataset, table: TrialTable, generator: PixelsImageGenerator
) -> None:
    batch, trials = data.__getitems__([0, 1, 2, 3]), _simulated(data, table, generator)
    first, second = (trials(batch, torch.Generator().manual_seed(7)) for _ in range(2))
    other = trials(batch, torch.Generator().manual_seed(8))
    assert torch.equal(first["fmri"], second["fmri"]) and not torch.equal(first["fmri"], other["fmri"])


@pytest.mark.parametrize(
    ("options", "message"),
    [({"share": 1.5}, "share is 1.5"), ({"ridge": 0}, "ridge is 0"), ({"shift": -1}, "shift is -1"),
     ({"moise": 1}, "some of share, shift"), ([], "expected a mapping")],
)  # fmt: skip
def test_wrong_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(FmriModelsError, match=message):
        trial_simulation(options)


def test_a_stage_without_gradient_can_not_simulate() -> None:
    with pytest.raises(FmriModelsError, match="needs training by gradient"):
        Stage("ridge", simulation={})


def test_captions_can_not_be_simulated(data: TrialDataset, table: TrialTable, generator: PixelsImageGenerator) -> None:
    with pytest.raises(FmriModelsError, match="text_embeds"):
        SimulatedTrials(TrialSimulation(), data, table, generator, ["text_embeds"])
