"""Image generators that were written before `draw`: they work as they did, and say what to write instead."""

import pytest
import torch

from fmri_models import FmriProcessor, ImageGenerator, LinearConfig, LinearModel, LinearPipeline
from fmri_models.conditions import Conditions
from fmri_models.drawing_settings import DrawingSettings
from fmri_models.errors import FmriModelsError
from fmri_models.generation import image_generator, stored_generator
from fmri_models.generation.latent_diffusion import LatentDiffusionGenerator
from fmri_models.generation.step_callback import StepCallback
from tests.generation.former_generator import former_generator_class
from tests.generation.generator_common import seeds
from tests.generation.smallest_generator import ColourImageGenerator

OF_HELPERS = pytest.mark.filterwarnings("ignore:.* of image generators is:FutureWarning")


@pytest.fixture
def generator() -> ImageGenerator:
    sentence = r"FormerImageGenerator has a __call__ of its own; please implement draw .*your_own.md"
    with pytest.warns(FutureWarning, match=sentence) as seen:
        former = former_generator_class()()
    assert seen[0].filename.endswith("former_generator.py")
    former.set_progress_bar_config(disable=True)
    return former


def pipeline_with(generator: ImageGenerator) -> LinearPipeline:
    config = LinearConfig(
        subject_names=["subj01"],
        num_voxels=[20],
        image_embedding_space=generator.image_embedding_space.to_dict(),
        latent_space=generator.latent_space.to_dict(),
    )
    betas = torch.randn(6, 20, generator=torch.Generator().manual_seed(0)).numpy()
    pipe = LinearPipeline(LinearModel(config), FmriProcessor.fit({"subj01": betas}), generator)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@OF_HELPERS
def test_it_draws_in_a_pipeline_what_its_call_draws(generator):
    pipe, betas = pipeline_with(generator), torch.randn(2, 20).numpy()
    seen = []
    options = {"num_inference_steps": 3, "guidance_scale": 1.5, "strength": 0.5}
    output = pipe(
        betas,
        **options,
        generator=seeds(1, 2),
        output_type="pt",
        callback_on_step_end=lambda caller, step, timestep, tensors: seen.append((caller, step, sorted(tensors))),
        callback_on_step_end_tensor_inputs=["latents", "image_embeds"],
    )
    inputs = pipe.processor(betas)
    decoding = pipe.decode(inputs["fmri"], inputs["subject_ids"])
    expected = generator(
        decoding.image_embeds, latents=decoding.latents, **options, generator=seeds(1, 2), output_type="pt"
    ).images
    assert torch.equal(output.images, expected)
    assert seen == [(pipe, step, ["image_embeds", "latents"]) for step in range(3)]
    assert output.low_level_images.shape == (2, 3, 8, 8)


@OF_HELPERS
def test_its_callback_changes_what_is_drawn(generator):
    embeds = torch.rand(2, 3)
    interrupted = []

    def callback(given, step, timestep, tensors):
        interrupted.append(step)
        given._interrupt = step == 1
        return {"latents": torch.zeros_like(tensors["latents"]), "image_embeds": tensors["image_embeds"]}

    drawn = generator.images_of(
        Conditions(image_embeds=embeds),
        DrawingSettings(num_inference_steps=5),
        output_type="latent",
        on_step_end=StepCallback(callback, ["latents", "image_embeds"]),
    ).images
    assert interrupted == [0, 1]
    assert torch.equal(drawn, torch.zeros(2, 3, 8, 8))


@OF_HELPERS
def test_it_draws_from_nothing_and_without_denoising(generator):
    nothing = generator.images_of(Conditions(num_images=2), DrawingSettings(num_inference_steps=1), seeds(1, 2), "pt")
    assert nothing.images.shape == (2, 3, 8, 8)
    latents, seen = torch.rand(2, 3, 8, 8), []
    callback = StepCallback(lambda given, step, timestep, tensors: seen.append(step), ["latents"])
    as_it_is = generator.images_of(Conditions(latents=latents), DrawingSettings(strength=0.0), None, "pt", callback)
    torch.testing.assert_close(as_it_is.images, (latents + 1) / 2)
    assert seen == [0]
    with pytest.raises(FmriModelsError, match=r"takes image_embeds of shape \(N, 3\); got \(1, 4\)"):
        generator(torch.zeros(1, 4))
    with pytest.raises(FmriModelsError, match="was given batches of 1, 2"):
        generator(torch.zeros(1, 3), latents=latents)
    with pytest.raises(FmriModelsError, match="strength is 2"):
        generator(torch.zeros(1, 3), strength=2)


def test_a_call_around_that_of_another_generator_draws_in_a_pipeline():
    with pytest.warns(FutureWarning, match="Darker has a __call__ of its own"):

        class Darker(ColourImageGenerator):
            def __call__(self, *args, **kwargs):
                output = super().__call__(*args, **kwargs)
                output.images = output.images / 2
                return output

    embeds, settings = torch.rand(2, 3), DrawingSettings(num_inference_steps=2, guidance_scale=1.0)
    drawn = [
        each().images_of(Conditions(image_embeds=embeds), settings, seeds(1, 2), "pt").images
        for each in (ColourImageGenerator, Darker)
    ]
    assert torch.equal(drawn[0] / 2, drawn[1])


@OF_HELPERS
def test_what_implements_draw_is_no_former_generator(generator, recwarn):
    class Later(type(generator)):
        def draw(self, conditions, settings, generators):
            return self.in_one_step(torch.ones(len(conditions), *self.latent_space.shape), conditions)

    assert not recwarn
    assert torch.equal(
        Later().images_of(Conditions(num_images=1), DrawingSettings(), output_type="pt").images, torch.ones(1, 3, 8, 8)
    )


@pytest.mark.parametrize(
    ("name", "arguments", "now"),
    [
        ("batches", ([torch.zeros(1, 3)], None, None), "Conditions.joined"),
        ("begin", (1.0, None, None), "on_step_end"),
        ("check_options", (1.0, 1.0, 1), "DrawingSettings"),
        ("check_shapes", (torch.zeros(1, 3), None, None), "accept"),
        ("batch_size", (None, torch.zeros(1, 3), None, None), "len"),
    ],
)
def test_what_a_call_called_is_there_and_says_what_is_written_now(name, arguments, now):
    with pytest.warns(FutureWarning, match=rf"{name} of image generators is .*{now}.* please implement draw") as seen:
        getattr(ColourImageGenerator(), name)(*arguments)
    assert seen[0].filename == __file__


def test_old_names_beside_the_class():
    for name in ("GeneratorOptions", "ImageSide", "hub_options"):
        with pytest.warns(FutureWarning, match=f"{name} now; please import it from there"):
            assert getattr(image_generator, name) is getattr(stored_generator, name)
    chunked = type(
        "Chunked", (LatentDiffusionGenerator,), {"in_chunks": lambda self, function, values: function(values)}
    )
    with pytest.warns(FutureWarning, match="in_parts of image generators is in_chunks now"):
        assert chunked.in_parts(chunked.__new__(chunked), lambda values: values + 1, 1) == 2
