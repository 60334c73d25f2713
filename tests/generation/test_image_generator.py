"""What every image generator gets of the class that it derives from, tried by the smallest one there can be."""

import inspect

import pytest
import torch

from fmri_models import FmriProcessor, FmriToImagePipeline, ImageGenerator, LinearConfig, LinearModel, LinearPipeline
from fmri_models.conditions import Conditions
from fmri_models.drawing_settings import DrawingSettings
from fmri_models.embedding_space import EmbeddingSpace
from fmri_models.errors import FmriModelsError
from fmri_models.generation.image_generator import ImageGeneratorOutput
from fmri_models.generation.loading import load_image_generator
from fmri_models.generation.step_callback import StepCallback
from fmri_models.records import GeneratorRecord
from fmri_models.registry import GENERATORS, list_generators
from tests.generation.generator_common import DrawingGeneratorMixin, seeds
from tests.generation.smallest_generator import ColourImageGenerator

RECORD = GeneratorRecord("colours", "Colours", f"{ColourImageGenerator.__module__}:ColourImageGenerator")


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setitem(GENERATORS.registered, RECORD.name, RECORD)


class TestSmallestImageGenerator(DrawingGeneratorMixin):
    generator_class = ColourImageGenerator
    drawn_from = ("image_embeds",)

    def make_generator(self, **options):
        return ColourImageGenerator(**options)


def generator_of_colours() -> ColourImageGenerator:
    generator = ColourImageGenerator()
    generator.set_progress_bar_config(disable=True)
    return generator


def test_the_call_is_the_same_for_all():
    expected = inspect.signature(ImageGenerator.__call__)
    for record in list_generators():
        assert inspect.signature(record.load().__call__) == expected
    assert list(expected.parameters) == [
        "self", "image_embeds", "text_embeds", "latents", "strength", "guidance_scale", "num_inference_steps",
        "num_images", "generator", "output_type", "return_dict", "callback_on_step_end",
        "callback_on_step_end_tensor_inputs", "encoder_hidden_states", "time_embeds", "control",
        "text_to_image_ratio", "guides",
    ]  # fmt: skip


def test_objects_in_the_place_of_arguments():
    generator, embeds, latents = generator_of_colours(), torch.rand(3, 3), torch.rand(3, 3, 8, 8)
    seen = []
    options = {"num_inference_steps": 4, "guidance_scale": 1.5, "strength": 0.5}
    expected = generator(embeds, latents=latents, **options, generator=seeds(1, 2, 3), output_type="pt").images
    output = generator.images_of(
        Conditions(image_embeds=embeds, latents=latents),
        DrawingSettings(**options, num_candidates=5),
        seeds(1, 2, 3),
        "pt",
        StepCallback(lambda caller, step, *others: seen.append((caller, step)), ["latents"], caller="a pipeline"),
    )
    assert isinstance(output, ImageGeneratorOutput)
    assert torch.equal(output.images, expected)
    assert seen == [("a pipeline", 0), ("a pipeline", 1)]


def test_what_it_takes_is_said_by_its_spaces():
    generator = generator_of_colours()
    assert list(generator.condition_spaces) == ["image_embeds", "latents"]
    with pytest.raises(FmriModelsError, match="ColourImageGenerator takes no text_embeds; pass None instead"):
        generator(text_embeds=torch.zeros(1, 4))
    with pytest.raises(FmriModelsError, match=r"takes image_embeds of shape \(N, 3\); got \(1, 4\)"):
        generator(torch.zeros(1, 4))


def test_chunks_are_drawn_apart_and_begin_with_the_same_guidance():
    generator, guidances, sizes = generator_of_colours(), [], []
    embeds = torch.rand(5, 3)
    options = {"num_inference_steps": 2, "guidance_scale": 1.5, "generator": seeds(*range(5)), "output_type": "pt"}
    expected = generator(embeds, **options).images

    def callback(given, step, timestep, tensors):
        guidances.append(given.guidance_scale)
        sizes.append(len(tensors["latents"]))
        given._guidance_scale += 1 if step == 1 else 0

    generator.images_a_batch = 2
    options |= {"generator": seeds(*range(5)), "callback_on_step_end": callback}
    torch.testing.assert_close(generator(embeds, **options).images, expected)
    assert guidances == [1.5] * 6
    assert sizes == [2, 2, 2, 2, 1, 1]


def test_a_callback_ends_with_its_call():
    generator = generator_of_colours()

    def fails(*arguments):
        raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        generator(num_images=1, callback_on_step_end=fails)
    assert len(generator(num_images=1).images) == 1


def test_a_generator_that_draws_nothing_says_so():
    class Embedder(ColourImageGenerator):
        draw = ImageGenerator.draw

    with pytest.raises(FmriModelsError, match="Embedder draws no pictures"):
        Embedder()(num_images=1)


def test_by_name_by_folder_and_in_a_pipeline(registered, tmp_path):
    generator = generator_of_colours()
    generator.save_pretrained(tmp_path / "generator")
    assert load_image_generator(str(tmp_path / "generator")).image_size == (3, 8, 8)

    betas = torch.randn(6, 20, generator=torch.Generator().manual_seed(0)).numpy()
    config = LinearConfig(
        subject_names=["subj01"],
        num_voxels=[20],
        image_embedding_space=generator.image_embedding_space.to_dict(),
        latent_space=generator.latent_space.to_dict(),
    )
    pipe = LinearPipeline(LinearModel(config), FmriProcessor.fit({"subj01": betas}), generator)
    pipe.save_pretrained(tmp_path / "pipeline")
    loaded = FmriToImagePipeline.from_pretrained(tmp_path / "pipeline")
    assert isinstance(loaded.image_generator, ColourImageGenerator)
    options = {"num_inference_steps": 3, "num_candidates": 2, "selection": "first", "output_type": "pt"}
    loaded.set_progress_bar_config(disable=True)
    drawn = [each(betas[:2], generator=seeds(1, 2), **options).images for each in (pipe, loaded)]
    assert drawn[0].shape == (2, 3, 8, 8)
    assert torch.equal(*drawn)


def test_what_a_space_looks_for_in_vain_is_named():
    class Mistaken(ColourImageGenerator):
        @property
        def latent_space(self):
            return EmbeddingSpace(encoder="colours", layer="latent", shape=(3, self.config.sied, 8))

    with pytest.raises(AttributeError, match="sied"):
        Mistaken()(latents=torch.zeros(1, 3, 8, 8))
