import hashlib
import json

import numpy as np
import pytest
import torch

from fmri_models import EmbeddedImageGenerator, scenes
from fmri_models.errors import FmriModelsError
from fmri_models.evaluation.scene_factors import DEFAULT_FOLDER, FACTOR_VALUES, SceneFactorClassifier


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return SceneFactorClassifier((8, 8, 16)).eval()


@pytest.fixture(scope="module")
def held_out():
    drawn = [scenes.scene(seed) for seed in scenes.scene_seeds("generator_test", 300)]
    images = torch.from_numpy(np.stack([scene.image for scene in drawn])).permute(0, 3, 1, 2).float() / 255
    return images, [scene.factors.to_dict() for scene in drawn]


def accuracy(predicted, factors, name):
    return np.mean([guess == truth[name] for guess, truth in zip(predicted[name], factors, strict=True)])


def test_predicts_a_value_of_every_factor(tiny):
    predicted = tiny.predict(torch.rand(5, 3, 64, 64), batch_size=2)
    assert list(predicted) == list(scenes.scene(0).factors.to_dict())
    for name, values in predicted.items():
        assert len(values) == 5
        assert set(values) <= set(FACTOR_VALUES[name])


def test_batches_do_not_matter(tiny):
    images = torch.rand(7, 3, 64, 64)
    assert tiny.predict(images, batch_size=2) == tiny.predict(images) == tiny.predict(images, batch_size=1)


def test_round_trip_keeps_every_tensor_and_hashes_the_file(tiny, tmp_path):
    tiny.save_pretrained(tmp_path / "judge")
    loaded = SceneFactorClassifier.from_pretrained(tmp_path / "judge")
    assert not loaded.training
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in tiny.state_dict().items())
    content = (tmp_path / "judge" / "model.safetensors").read_bytes()
    assert loaded.sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    "images", [torch.zeros(2, 3, 32, 32), torch.zeros(3, 64, 64), torch.zeros(2, 3, 64, 64, dtype=torch.uint8)]
)
def test_bad_pictures_are_named(tiny, images):
    with pytest.raises(FmriModelsError, match="scene classifier takes float pictures"):
        tiny.predict(images)


def test_bad_folders_are_named(tiny, tmp_path):
    with pytest.raises(FmriModelsError, match=r"config.json and model.safetensors missing"):
        SceneFactorClassifier.from_pretrained(tmp_path)
    tiny.save_pretrained(tmp_path / "judge")
    path = tmp_path / "judge" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"schema": 99}))
    with pytest.raises(FmriModelsError, match="newer version"):
        SceneFactorClassifier.from_pretrained(tmp_path / "judge")
    path.write_text(json.dumps(config | {"factors": {"kind": ["house"]}}))
    with pytest.raises(FmriModelsError, match="other factors"):
        SceneFactorClassifier.from_pretrained(tmp_path / "judge")


def test_default_names_factors_of_true_pictures(held_out):
    images, factors = held_out
    predicted = SceneFactorClassifier.load_default().predict(images)
    for name in ("kind", "colour", "place"):
        assert accuracy(predicted, factors, name) >= 0.95


@pytest.mark.slow
def test_default_names_factors_of_autoencoded_pictures(held_out):
    images, factors = held_out
    generator = EmbeddedImageGenerator.from_assets()
    autoencoded = generator(latents=generator.encode_images(images), output_type="pt").images
    predicted = SceneFactorClassifier.load_default().predict(autoencoded)
    for name in ("kind", "colour", "place"):
        assert accuracy(predicted, factors, name) >= 0.90


def test_default_is_at_chance_without_an_object(held_out):
    _, factors = held_out
    images = np.stack([scenes.background(scenes.SceneFactors(**item)) for item in factors])
    predicted = SceneFactorClassifier.load_default().predict(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)
    for name in ("kind", "colour", "place"):
        assert accuracy(predicted, factors, name) < 0.3
    assert accuracy(predicted, factors, "ground") > 0.9


def test_default_states_its_file():
    content = (DEFAULT_FOLDER / "model.safetensors").read_bytes()
    assert SceneFactorClassifier.load_default().sha256 == hashlib.sha256(content).hexdigest()
