"""What diffusers says of its own doings is kept back; what it says of others' stays."""

import logging

import pytest
import torch

from fmri_models.generation.embedded import EmbeddedImageGenerator
from fmri_models.generation.loading import load_image_generator
from fmri_models.generation.own_notices import without_own_notices


@pytest.fixture
def said(monkeypatch):
    """What diffusers logs, which it does not hand on to the root logger."""
    texts = []
    handler = logging.Handler(logging.WARNING)
    monkeypatch.setattr(handler, "emit", lambda record: texts.append(record.getMessage()))
    logger = logging.getLogger("diffusers")
    monkeypatch.setattr(logger, "level", logging.WARNING)
    logging.Logger.manager._clear_cache()
    logger.addHandler(handler)
    yield texts
    logger.removeHandler(handler)


@pytest.mark.slow
def test_saving_loading_and_casting_the_embedded_generator_is_quiet(tmp_path, said):
    generator = load_image_generator("embedded", (3, 64, 64))
    generator.to(torch.bfloat16).to(torch.float32)
    generator.save_pretrained(tmp_path / "generator")
    EmbeddedImageGenerator.from_pretrained(tmp_path / "generator")
    assert not [text for text in said if "will be ignored" in text or "kept in float32" in text]


def test_other_notices_stay(said):
    texts = [
        "The config attributes {'block_out_channels': [64, 64]} were passed to AutoencoderTiny, but",
        "The config attributes {'block_out_channels': [64], 'other': 1} were passed to AutoencoderTiny, but",
        "The config attributes {'block_out_channels': [64]} were passed to UNet2DModel, but",
    ]
    with without_own_notices():
        for text in texts:
            logging.getLogger("diffusers.configuration_utils").warning(text)
    assert said == texts[1:]
