"""Targets of networks with the same weights that compute or read something else are never taken for each other's."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fmri_models.data.target_settings import settings_digest
from fmri_models.data.targets import KnownPictures, cached_targets_of_pictures
from fmri_models.generation.stable_diffusion import StableDiffusionImageGenerator
from tests.generation.test_stable_diffusion import make_generator


class Pictures:
    """A few pictures that are in no table."""

    ids = ["one", "two"]

    def content_hashes(self, ids: list[str]) -> list[str]:
        return [f"hash of {name}" for name in ids]

    def images(self, ids: list[str]) -> np.ndarray:
        return np.stack([np.random.default_rng(len(name)).integers(0, 256, (16, 16, 3), np.uint8) for name in ids])


def changed(folder: Path, file: str, change: Callable[[dict[str, Any]], Any]) -> StableDiffusionImageGenerator:
    values = json.loads((folder / file).read_text())
    change(values)
    (folder / file).write_text(json.dumps(values))
    return StableDiffusionImageGenerator.from_pretrained(folder)


def test_latents_of_an_autoencoder_of_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures: KnownPictures = Pictures()  # type: ignore[assignment]
    monkeypatch.setenv("FMRI_MODELS_CACHE", str(tmp_path / "cache"))
    make_generator().save_pretrained(tmp_path / "generator")
    generator = StableDiffusionImageGenerator.from_pretrained(tmp_path / "generator")
    first = np.array(cached_targets_of_pictures(pictures, generator, "latents"))
    other = changed(tmp_path / "generator", "vae/config.json", lambda values: values.update(act_fn="relu"))
    found = np.array(cached_targets_of_pictures(pictures, other, "latents"))
    monkeypatch.setenv("FMRI_MODELS_CACHE", str(tmp_path / "empty"))
    np.testing.assert_array_equal(found, cached_targets_of_pictures(pictures, other, "latents"))
    assert np.abs(found - first).max() > 0.01


def test_settings_of_the_same_networks_are_the_same_before_and_after_they_are_saved(tmp_path: Path) -> None:
    generator = make_generator()
    generator.save_pretrained(tmp_path)
    generator.embed_texts(["a"])
    again = StableDiffusionImageGenerator.from_pretrained(tmp_path)
    found, loaded = (settings_digest([each.text_encoder, each.vae], each.tokenizer) for each in (generator, again))
    assert found == loaded


def test_other_heads_and_other_words_are_other_settings(tmp_path: Path) -> None:
    make_generator().save_pretrained(tmp_path)
    generator = StableDiffusionImageGenerator.from_pretrained(tmp_path)
    texts = changed(tmp_path, "text_encoder/config.json", lambda values: values.update(hidden_act="relu"))
    encoders = {settings_digest([each.text_encoder], each.tokenizer) for each in (generator, texts)}
    assert len(encoders) == 2
    words = settings_digest([], generator.tokenizer)
    generator.tokenizer.add_tokens(["another"])
    assert settings_digest([], generator.tokenizer) != words
