"""What a recipe may say of its generator, and what becomes of one with published weights in the trained pipeline."""

import pytest

from fmri_models import FmriToImagePipeline
from fmri_models.generation.stable_unclip import StableUnCLIPImageGenerator
from fmri_models.training.recipe import load_recipe
from fmri_models.training.trainer import train
from tests.generation.test_stable_unclip import tiny_components
from tests.small_table import write_small_table


@pytest.mark.parametrize("form", ["{folder}", "{{repository: '{folder}', name: stable_unclip}}"])
def test_a_trained_pipeline_names_a_generator_with_published_weights(tmp_path, form):
    folder = tmp_path / "repository"
    StableUnCLIPImageGenerator(**tiny_components()).save_pretrained(folder)
    data = write_small_table(tmp_path / "data", ("subj02",))
    generator = form.format(folder=folder)
    train(load_recipe("linear", [f"data={data}", f"out={tmp_path / 'model'}", f"generator={generator}"]))
    assert not (tmp_path / "model" / "image_generator").exists()
    source = FmriToImagePipeline.from_pretrained(tmp_path / "model").image_generator_source
    assert (source.name, source.repository) == ("stable_unclip", str(folder))
    assert {"image_embedding_space", "latent_space"} <= set(source.spaces)
