"""Stages that train the image generator, and that learn from fMRI without pictures."""

import signal
from pathlib import Path

import pytest
import torch
import yaml

from fmri_models import FmriToImagePipeline, TrialTable
from fmri_models.errors import FmriModelsError
from fmri_models.generation.embedded import EmbeddedImageGenerator
from fmri_models.registry import METHODS, register_method
from fmri_models.simulation import simulate
from fmri_models.training.checkpoints import GENERATOR_FILE, Checkpoints
from fmri_models.training.interruption import TrainingInterrupted
from fmri_models.training.learning_generator import FrozenGenerator
from fmri_models.training.recipe import load_recipe
from fmri_models.training.trainer import train
from fmri_models.training_record import TrainingRecord
from tests.training.learner import METHOD, LearnerObjective

TRAINING = {"batch_size": 4, "learning_rate": 1e-3, "schedule": "constant", "checkpoint_every": 2, "validate_every": 2}
RECIPE = {
    "method": "learner",
    "targets": ["latents"],
    "stages": [
        {
            "name": "rebuild",
            "objective": {"rebuilds": True},
            "repetitions": "single",
            "training": {**TRAINING, "steps": 2},
            "unpaired": [{"parts": ["validation", "test"]}],
        },
        {
            "name": "draw",
            "training": {**TRAINING, "steps": 6},
            "image_generator": {"train": ["cross_attention"]},
        },
    ],
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated") / "table"
    return simulate("builtin:scenes", folder, num_voxels=30, num_train=12, num_validation=4, num_test=4, num_subjects=1)


@pytest.fixture
def make(data, tmp_path):
    path = tmp_path / "learner.yaml"
    path.write_text(yaml.safe_dump(RECIPE))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(METHODS, "registered", {})
        register_method(METHOD)
        yield lambda out, *overrides: load_recipe(str(path), [f"data={data}", f"out={tmp_path / out}", *overrides])


def unet_of(folder):
    return FmriToImagePipeline.from_pretrained(folder).image_generator.unet.state_dict()


@pytest.mark.slow
def test_what_a_group_names_learns_and_the_rest_stays(make, data, tmp_path):
    train(make("out"))
    pipeline = FmriToImagePipeline.from_pretrained(tmp_path / "out")
    before, after = EmbeddedImageGenerator.from_assets(), pipeline.image_generator
    learned = before.parameters_of(["cross_attention"]).keys()
    own = dict(after.unet.named_parameters())
    for name, value in before.unet.named_parameters():
        assert torch.equal(value, own[name]) != (f"unet.{name}" in learned), name
    for name in ("autoencoder", "image_encoder"):
        for one, other in zip(getattr(before, name).parameters(), getattr(after, name).parameters(), strict=True):
            assert torch.equal(one, other)
    assert pipeline.image_generator_source is None, "what differs from everybody's is saved with the pipeline"
    untrained = pipeline.untrained_image_generator
    assert torch.equal(untrained.unet.conv_in.weight, before.unet.conv_in.weight)
    assert untrained is not after
    trials = TrialTable.open(data).trials("subj01", "test")
    drawn = pipeline(trials.fmri()[:2], "subj01", session=trials.sessions[:2], num_inference_steps=2).images
    assert [picture.size for picture in drawn] == [(64, 64)] * 2


@pytest.mark.slow
def test_model_and_generator_name_the_weights_that_belong_together(make, tmp_path):
    train(make("out"))
    train(make("other", "seed=1"))
    pipeline, other = (FmriToImagePipeline.from_pretrained(tmp_path / name) for name in ("out", "other"))
    assert pipeline.image_generator.config.condition_revision is not None
    assert pipeline.image_generator.config.condition_revision != other.image_generator.config.condition_revision
    with pytest.raises(FmriModelsError, match="revision"):
        pipeline.image_generator = other.image_generator
    with pytest.raises(FmriModelsError, match="revision"):
        pipeline.image_generator = EmbeddedImageGenerator.from_assets()


@pytest.mark.slow
def test_fmri_without_pictures_comes_beside_the_examples(make, monkeypatch, tmp_path):
    seen, losses = [], LearnerObjective.losses

    def watched(self, model, batch, *arguments):
        if self.rebuilds and model.training:
            seen.append((batch["fmri"].shape, [each["fmri"].clone() for each in batch["unpaired"]]))
        return losses(self, model, batch, *arguments)

    monkeypatch.setattr(LearnerObjective, "losses", watched)
    train(make("out"))
    train(make("again"))
    assert len(seen) == 4 and all(shape == sources[0].shape for shape, sources in seen)
    for first, again in zip(seen[:2], seen[2:], strict=True):
        assert torch.equal(first[1][0], again[1][0])
    stage = TrainingRecord.load(tmp_path / "out").recipe["stages"][0]
    assert stage["unpaired"][0]["parts"] == ["validation", "test"]


@pytest.mark.slow
def test_another_table_has_statistics_of_its_own_and_no_place_in_records(make, data, tmp_path, monkeypatch):
    other = simulate(
        "builtin:scenes",
        tmp_path / "elsewhere",
        num_voxels=30,
        num_train=8,
        num_validation=0,
        num_test=4,
        num_subjects=1,
        seed=5,
    )
    train(make("out", f"stages.0.unpaired=[{{data: {other}, parts: [train]}}]"))
    text = (tmp_path / "out" / "training.json").read_text()
    assert str(tmp_path) not in text and TrialTable.open(other).fingerprint in text


@pytest.mark.slow
def test_an_interruption_in_either_stage_resumes_to_the_bit(make, tmp_path, monkeypatch):
    train(make("whole"))
    whole = unet_of(tmp_path / "whole")
    for number, step in enumerate((2, 6)):
        calls, losses = [], LearnerObjective.losses

        def interrupted(self, model, *arguments, calls=calls, losses=losses, step=step):
            calls.append(model.training)
            if sum(calls) == step and model.training:
                signal.raise_signal(signal.SIGINT)
            return losses(self, model, *arguments)

        monkeypatch.setattr(LearnerObjective, "losses", interrupted)
        with pytest.raises(TrainingInterrupted):
            train(make(f"out{number}"))
        monkeypatch.undo()
        saved = list(Checkpoints(tmp_path / f"out{number}").folder.rglob(GENERATOR_FILE))
        assert bool(saved) == (number == 1)
        train(make(f"out{number}"), resume=True)
        resumed = unet_of(tmp_path / f"out{number}")
        assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["stages.1.image_generator.train=[cross_atention]"], "no group of parameters 'cross_atention'.*Did you mean"),
        (["stages.1.image_generator.train=[]"], "names no group"),
        (["generator=pixels"], "'pixels' can't learn to read any of them"),
        (["stages.0.unpaired=[{parts: [nothing]}]"], "nothing"),
        (["stages.0.unpaired=[{data: /nowhere}]"], "nowhere"),
        (["stages.0.unpaired=[{datta: x}]"], "datta"),
        # Processors compute slowly in it.
        pytest.param(["generator={name: embedded, dtype: float16}"], "float16.*float32", marks=pytest.mark.slow),
    ],
)
def test_what_does_not_fit_is_a_sentence(make, overrides, message):
    with pytest.raises(FmriModelsError, match=message):
        train(make("out", *overrides))


@pytest.mark.slow
def test_the_average_is_what_is_kept(make, tmp_path):
    train(make("out", "stages.1.training.ema_decay=0.5", "stages.1.training.keep_best=false"))
    train(make("plain", "stages.1.training.keep_best=false"))
    one, other = unet_of(tmp_path / "out"), unet_of(tmp_path / "plain")
    assert any(not torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.slow
def test_a_saved_pipeline_is_saved_again_with_its_generator(make, tmp_path: Path):
    train(make("out"))
    FmriToImagePipeline.from_pretrained(tmp_path / "out").save_pretrained(tmp_path / "copy")
    again = FmriToImagePipeline.from_pretrained(tmp_path / "copy")
    assert again.untrained_image_generator is not None and again.training_record is not None
    first, second = unet_of(tmp_path / "out"), unet_of(tmp_path / "copy")
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.slow
def test_through_a_frozen_generator_only_the_model_learns(make, tmp_path, monkeypatch):
    """It is where the stage is computed, as soon as it is asked for and no sooner, and back afterwards."""
    moved, asked, losses, to = [], [], LearnerObjective.losses, EmbeddedImageGenerator.to

    def watched(self, model, batch, *arguments):
        if self.rebuilds:
            assert (torch.device("cpu"),) not in moved
            return losses(self, model, batch, *arguments)
        generator = self.image_generator
        networks = [generator.unet, generator.autoencoder, generator.image_encoder]
        asked.append([each.training or p.requires_grad for each in networks for p in each.parameters()])
        return losses(self, model, batch, *arguments)

    def recorded(self, *arguments, **options):
        moved.append(arguments)
        return to(self, *arguments, **options)

    monkeypatch.setattr(LearnerObjective, "losses", watched)
    monkeypatch.setattr(EmbeddedImageGenerator, "to", recorded)
    train(make("out", "stages.1.image_generator=null"))
    assert asked and not any(map(any, asked))
    assert ("cpu",) in moved[moved.index((torch.device("cpu"),)) :], "there, and back"
    monkeypatch.undo()
    pipeline = FmriToImagePipeline.from_pretrained(tmp_path / "out")
    before = EmbeddedImageGenerator.from_assets()
    assert all(
        torch.equal(one, other)
        for one, other in zip(before.unet.parameters(), pipeline.image_generator.unet.parameters(), strict=True)
    )


def test_a_frozen_generator_is_let_go_and_has_its_gradients_again():
    generator = EmbeddedImageGenerator.from_assets()
    generator.unet.conv_in.bias.requires_grad_(False)
    before = [p.requires_grad for p in generator.unet.parameters()]
    generator.unet.train()
    frozen = FrozenGenerator(generator, torch.device("cpu"))
    frozen.close()
    assert generator.unet.training, "nobody has asked for it"
    assert frozen() is generator and not generator.unet.training
    assert not any(p.requires_grad for p in generator.unet.parameters())
    frozen.close()
    assert [p.requires_grad for p in generator.unet.parameters()] == before


@pytest.mark.slow
def test_a_training_through_a_frozen_generator_resumes_to_the_bit(make, tmp_path, monkeypatch):
    frozen = "stages.1.image_generator=null"
    train(make("whole", frozen))
    calls, losses = [], LearnerObjective.losses

    def interrupted(self, model, *arguments):
        calls.append(model.training and not self.rebuilds)
        if sum(calls) == 4 and model.training:
            signal.raise_signal(signal.SIGINT)
        return losses(self, model, *arguments)

    monkeypatch.setattr(LearnerObjective, "losses", interrupted)
    with pytest.raises(TrainingInterrupted):
        train(make("out", frozen))
    monkeypatch.undo()
    train(make("out", frozen), resume=True)
    one, other = (
        FmriToImagePipeline.from_pretrained(tmp_path / name).brain_model.state_dict() for name in ("whole", "out")
    )
    assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize(
    ("overrides", "dropped", "scale"),
    [([], False, 1.0), ([], True, 2.0), (["drawing.guidance_scale=3"], False, 3.0)],
)
def test_without_dropped_conditions_there_is_no_guidance_unless_it_is_said(
    make, tmp_path, monkeypatch, overrides, dropped, scale
):
    monkeypatch.setattr(LearnerObjective, "drops_conditions", property(lambda self: dropped))
    train(make("out", "stages.1.training.steps=1", *overrides))
    assert FmriToImagePipeline.from_pretrained(tmp_path / "out").drawing_settings.guidance_scale == scale


@pytest.mark.parametrize("kind", ["unlabelled", "unlabelled_rest"])
def test_trials_without_a_stimulus_are_learned_from_and_are_no_pictures(make, tmp_path, kind):
    table = simulate(
        "builtin:scenes",
        tmp_path / "with_rest",
        num_voxels=30,
        num_train=12,
        num_validation=4,
        num_test=4,
        num_subjects=1,
        unlabelled=6,
    )
    train(
        make("out", f"data={table}", f"stages.0.train_on=[train, {kind}]", f"stages.0.unpaired=[{{parts: [{kind}]}}]")
    )
    record = TrainingRecord.load(tmp_path / "out")
    assert kind in record.train_parts
    assert record.learned["pictures"] == 12 and record.learned["trials"] > 12
