"""Stable unCLIP: numbers of diffusers' own pipeline, its folders, and what every generator has to pass."""

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    PNDMScheduler,
    StableUnCLIPImg2ImgPipeline,
    UNet2DConditionModel,
    UniPCMultistepScheduler,
)
from diffusers.pipelines.stable_diffusion import StableUnCLIPImageNormalizer
from PIL import Image
from transformers import CLIPImageProcessor

from fmri_models.errors import FmriModelsError
from fmri_models.generation.stable_unclip import StableUnCLIPImageGenerator
from tests.generation.generator_common import (
    GeneratorTesterMixin,
    randomised,
    seeds,
    tiny_autoencoder,
    tiny_image_encoder,
    tiny_text_encoder,
    tiny_tokenizer,
)

WIDTH = 12


def tiny_unet() -> UNet2DConditionModel:
    torch.manual_seed(4)
    return UNet2DConditionModel(
        sample_size=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(8, 16),
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=(2, 4),
        norm_num_groups=4,
        use_linear_projection=True,
        class_embed_type="projection",
        projection_class_embeddings_input_dim=2 * WIDTH,
    ).eval()


def tiny_components() -> dict:
    """Components of diffusers' pipeline; the schedules are those of the published repository."""
    tokenizer = tiny_tokenizer()
    schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    return {
        "feature_extractor": CLIPImageProcessor(size={"shortest_edge": 28}, crop_size=28),
        "image_encoder": tiny_image_encoder(WIDTH),
        "image_normalizer": randomised(StableUnCLIPImageNormalizer(WIDTH)),
        "image_noising_scheduler": DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
        "tokenizer": tokenizer,
        "text_encoder": tiny_text_encoder(tokenizer),
        "unet": tiny_unet(),
        "scheduler": DDIMScheduler(
            **schedule, prediction_type="v_prediction", clip_sample=False, set_alpha_to_one=False, steps_offset=1
        ),
        "vae": tiny_autoencoder(),
    }


def original_pictures(pipeline, image_embeds, guidance_scale, num_inference_steps, **options):
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        prompt=[""] * len(image_embeds),
        image_embeds=image_embeds,
        guidance_scale=guidance_scale,
        num_inference_steps=num_inference_steps,
        generator=seeds(*range(len(image_embeds))),
        output_type="pt",
        **options,
    ).images


class TestStableUnCLIPImageGenerator(GeneratorTesterMixin):
    generator_class = StableUnCLIPImageGenerator

    def make_generator(self, **options):
        return StableUnCLIPImageGenerator(**(tiny_components() | options))

    @pytest.mark.parametrize(
        ("scheduler", "noise_level", "guidance_scale"),
        [
            (DDIMScheduler, 0, 1.0),
            (DDIMScheduler, 300, 7.0),
            (PNDMScheduler, 0, 7.0),
            (EulerDiscreteScheduler, 0, 7.0),
            (EulerAncestralDiscreteScheduler, 0, 7.0),
            (DPMSolverMultistepScheduler, 0, 7.0),
            (UniPCMultistepScheduler, 0, 7.0),
            (HeunDiscreteScheduler, 0, 7.0),
        ],
    )
    def test_pictures_are_those_of_diffusers(self, scheduler, noise_level, guidance_scale):
        components = tiny_components()
        components["scheduler"] = scheduler.from_config(components["scheduler"].config, skip_prk_steps=True)
        generator = StableUnCLIPImageGenerator(**components, noise_level=noise_level)
        generator.set_progress_bar_config(disable=True)
        image_embeds = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(0))
        options = {"guidance_scale": guidance_scale, "num_inference_steps": 5}
        found = generator(image_embeds=image_embeds, generator=seeds(0, 1, 2), output_type="pt", **options).images
        pipeline = StableUnCLIPImg2ImgPipeline(**components)
        expected = original_pictures(pipeline, image_embeds, **options, noise_level=noise_level)
        assert expected.std() > 0.05
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)

    def test_a_folder_of_diffusers_own_pipeline_is_read(self, tmp_path):
        pipeline = StableUnCLIPImg2ImgPipeline(**tiny_components())
        pipeline.save_pretrained(tmp_path)
        generator = StableUnCLIPImageGenerator.from_source(str(tmp_path))
        image_embeds = self.make_inputs(generator, 2)["image_embeds"]
        found = self.drawn(generator, text_embeds=None, guidance_scale=3.0)
        torch.testing.assert_close(
            found,
            original_pictures(pipeline, image_embeds, guidance_scale=3.0, num_inference_steps=3),
            atol=1e-5,
            rtol=0,
        )

    def test_options_may_be_given_when_it_is_loaded(self, tmp_path):
        StableUnCLIPImg2ImgPipeline(**tiny_components()).save_pretrained(tmp_path)
        generator = StableUnCLIPImageGenerator.from_source(str(tmp_path), noise_level=3, image_side=24)
        assert generator.config.noise_level == 3
        assert generator.image_size == (3, 24, 24)

    def test_text_tokens_are_a_second_condition(self, generator):
        image_embeds = self.make_inputs(generator, 2)["image_embeds"]
        text_embeds = generator.embed_texts(["a b", "c"])
        assert text_embeds.shape == (2, *generator.text_embedding_space.shape)
        pipeline = StableUnCLIPImg2ImgPipeline(**tiny_components())
        pipeline.set_progress_bar_config(disable=True)
        options = {"guidance_scale": 3.0, "num_inference_steps": 3, "output_type": "pt"}
        expected = pipeline(prompt=["a b", "c"], image_embeds=image_embeds, generator=seeds(0, 1), **options).images
        found = generator(image_embeds=image_embeds, text_embeds=text_embeds, generator=seeds(0, 1), **options).images
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)

    def test_embeddings_are_those_of_diffusers(self, generator):
        levels = np.random.default_rng(0).integers(0, 256, (2, 28, 28, 3), dtype=np.uint8)
        embeds = generator.embed_images(torch.from_numpy(levels).permute(0, 3, 1, 2) / 255)
        prepared = generator.feature_extractor([Image.fromarray(each) for each in levels], return_tensors="pt")
        with torch.no_grad():
            expected = generator.image_encoder(prepared["pixel_values"]).image_embeds
        torch.testing.assert_close(embeds, expected, atol=1e-4, rtol=1e-4)
        assert generator.image_embedding_space.normalisation == "none"
        assert generator.image_embedding_space.preprocessing == "28 bicubic antialias, centre crop"

    def test_a_noise_level_beyond_the_schedule_is_a_sentence(self):
        with pytest.raises(FmriModelsError, match="noise_level is 1000; expected 0 .no noise. to 999"):
            self.make_generator(noise_level=1000)

    @pytest.mark.parametrize(
        ("width", "encoder"),
        [(1024, "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"), (768, "openai/clip-vit-large-patch14")],
    )
    def test_the_published_variants_differ_in_their_space(self, width, encoder):
        generator = self.make_generator(image_normalizer=StableUnCLIPImageNormalizer(width), image_encoder=None)
        space = generator.image_embedding_space
        assert (space.encoder, space.shape, space.layer) == (encoder, (width,), "pooled")
        assert space.preprocessing == "224 bicubic antialias, centre crop"

    def test_options_of_the_generator_are_saved_with_it(self, tmp_path):
        self.make_generator(noise_level=7, image_side=24, image_encoder_name="ours").save_pretrained(tmp_path)
        loaded = StableUnCLIPImageGenerator.from_pretrained(tmp_path)
        assert loaded.config.noise_level == 7
        assert loaded.image_size == (3, 24, 24)
        assert loaded.image_embedding_space.encoder == "ours"
        loaded.set_progress_bar_config(disable=True)
        assert self.drawn(loaded).shape == (2, 3, 24, 24)
