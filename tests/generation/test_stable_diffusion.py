"""Stable Diffusion from a low-level picture and a text: numbers of diffusers, and what every generator has to pass."""

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, PNDMScheduler, StableDiffusionImg2ImgPipeline, StableDiffusionPipeline
from PIL import Image

from fmri_models.errors import FmriModelsError
from fmri_models.generation.stable_diffusion import StableDiffusionImageGenerator
from tests.generation import test_ip_adapter as stable_diffusion
from tests.generation.generator_common import GeneratorTesterMixin, seeds
from tests.generation.test_ip_adapter import original_pipeline


def tiny_components(scheduler: type = DDIMScheduler) -> dict[str, Any]:
    components = stable_diffusion.tiny_components(scheduler)
    return {name: each for name, each in components.items() if name != "feature_extractor"}


def make_generator(**options: Any) -> StableDiffusionImageGenerator:
    generator = StableDiffusionImageGenerator(**(tiny_components() | {"image_side": 16} | options))
    generator.set_progress_bar_config(disable=True)
    return generator


class TestStableDiffusionImageGenerator(GeneratorTesterMixin):
    generator_class = StableDiffusionImageGenerator

    def make_generator(self, **options):
        return make_generator(**options)

    @pytest.mark.parametrize("guidance_scale", [1.0, 5.0])
    def test_pictures_are_those_of_diffusers(self, tmp_path, guidance_scale):
        pipeline = original_pipeline(**tiny_components(PNDMScheduler), feature_extractor=None)
        pipeline.save_pretrained(tmp_path)
        generator = StableDiffusionImageGenerator.from_source(str(tmp_path))
        generator.set_progress_bar_config(disable=True)
        options = {"guidance_scale": guidance_scale, "num_inference_steps": 4, "output_type": "pt"}
        expected = pipeline(["a bc", "d"], generator=seeds(0, 1), **options).images
        text_embeds = generator.embed_texts(["a bc", "d"])
        found = generator(text_embeds=text_embeds, generator=seeds(0, 1), **options).images
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)

    def test_a_start_is_that_of_diffusers(self, generator):
        latents = generator.encode_images(self.make_pictures(generator, 2))
        options = {"guidance_scale": 5.0, "num_inference_steps": 10, "strength": 0.8, "output_type": "pt"}
        pipeline = original_pipeline(StableDiffusionImg2ImgPipeline, **tiny_components(), feature_extractor=None)
        expected = pipeline(["a", "b c"], image=latents, generator=seeds(0, 1), **options).images
        text_embeds = generator.embed_texts(["a", "b c"])
        found = generator(text_embeds=text_embeds, latents=latents, generator=seeds(0, 1), **options).images
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_ddim_in_the_place_of_the_published_schedule(tmp_path):
    original_pipeline(
        StableDiffusionPipeline, **tiny_components(PNDMScheduler), feature_extractor=None
    ).save_pretrained(tmp_path)
    generator = StableDiffusionImageGenerator.from_source(str(tmp_path), schedule="ddim")
    generator.scheduler.set_timesteps(50)
    assert type(generator.scheduler) is DDIMScheduler and generator.scheduler.config.clip_sample is False
    assert generator.scheduler.timesteps[[0, 10, -1]].tolist() == [981, 781, 1]
    generator.save_pretrained(tmp_path / "saved")
    again = StableDiffusionImageGenerator.from_pretrained(tmp_path / "saved")
    assert type(again.scheduler) is DDIMScheduler and again.config.schedule == "ddim"
    with pytest.raises(FmriModelsError, match="schedule is 'euler'; expected 'published' or 'ddim'"):
        make_generator(schedule="euler")


def test_noise_one_step_later_is_that_of_the_step_before():
    plain, later = make_generator(), make_generator(noise_one_step_later=True)
    noisy: list[torch.Tensor] = []
    for generator in (plain, later):
        generator.unet.register_forward_pre_hook(lambda module, args: noisy.append((args[0].clone(), int(args[1]))))
    picture = torch.rand(1, 3, 16, 16, generator=seeds(3)[0])
    latents, texts = plain.encode_images(picture), plain.embed_texts(["a"])
    options = {"strength": 0.8, "num_inference_steps": 50, "guidance_scale": 1.0, "output_type": "pt"}
    for generator in (plain, later):
        generator(text_embeds=texts, latents=latents, generator=seeds(7), **options)
    noise = torch.randn(1, *plain.latent_space.shape, generator=seeds(7)[0])
    for (found, asked), level in zip((noisy[0], noisy[40]), (781, 801), strict=True):
        # Both begin with the same step.
        assert asked == 781
        expected = plain.scheduler.add_noise(latents, noise, torch.tensor([level]))
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert len(noisy) == 2 * 40


def as_bytes(picture: torch.Tensor) -> np.ndarray:
    return (picture.permute(1, 2, 0).clamp(0, 1) * 255).round().byte().numpy()


def test_low_level_pictures_of_another_size():
    generator, plain = make_generator(low_level_side=8), make_generator()
    assert generator.latent_space.shape == (4, 4, 4) and plain.latent_space.shape == (4, 8, 8)
    assert generator.latent_space.preprocessing == "8x8 RGB in [-1, 1]"
    picture = torch.rand(1, 3, 16, 16, generator=seeds(0)[0])
    latents = generator.encode_images(picture)
    small = np.asarray(Image.fromarray(as_bytes(picture[0])).resize((8, 8), Image.Resampling.LANCZOS))
    small_picture = torch.from_numpy(small).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        torch.testing.assert_close(latents, plain.to_latents(2 * small_picture - 1))
        # What denoising starts from: decoded, enlarged, encoded again.
        decoded = (plain.to_pictures(latents)[0] + 1) / 2
        large = np.asarray(Image.fromarray(as_bytes(decoded)).resize((16, 16), Image.Resampling.BICUBIC))
        large_picture = torch.from_numpy(large).permute(2, 0, 1)[None] / 255
        start = plain.encode_images(large_picture)
        torch.testing.assert_close(generator.start_from(latents), start)
    torch.testing.assert_close(generator(latents=latents, output_type="pt").images, large_picture)
    texts = generator.embed_texts(["a b"])
    options = {"strength": 0.8, "num_inference_steps": 5, "guidance_scale": 5.0, "output_type": "pt"}
    found = generator(text_embeds=texts, latents=latents, generator=seeds(1), **options).images
    expected = plain(text_embeds=texts, latents=start, generator=seeds(1), **options).images
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    sampled = generator.sample_latents(picture, seeds(2))
    assert sampled.shape == latents.shape and not torch.equal(sampled, latents)
    with pytest.raises(FmriModelsError, match="with low_level_side latents that are drawn .16 pixels. are none of"):
        generator(latents=latents, output_type="latent")
    with pytest.raises(FmriModelsError, match="low_level_side is 7; expected a multiple of 2"):
        make_generator(low_level_side=7)
