"""Kandinsky 2.2: numbers of diffusers' own pipelines, its folders, and what every generator has to pass."""

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    KandinskyV22Img2ImgPipeline,
    KandinskyV22Pipeline,
    KandinskyV22PriorPipeline,
    UNet2DConditionModel,
    VQModel,
)

from fmri_models.errors import FmriModelsError
from fmri_models.generation.kandinsky import KandinskyImageGenerator
from tests.generation.generator_common import GeneratorTesterMixin, seeds, tiny_image_encoder

WIDTH = 12
SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "linear", "clip_sample": False}


def tiny_unet() -> UNet2DConditionModel:
    torch.manual_seed(4)
    return UNet2DConditionModel(
        sample_size=8,
        out_channels=8,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        block_out_channels=(8, 16),
        layers_per_block=1,
        cross_attention_dim=8,
        attention_head_dim=4,
        norm_num_groups=4,
        resnet_time_scale_shift="scale_shift",
        addition_embed_type="image",
        encoder_hid_dim=WIDTH,
        encoder_hid_dim_type="image_proj",
    ).eval()


def tiny_movq() -> VQModel:
    torch.manual_seed(3)
    return VQModel(
        block_out_channels=(32, 32),
        down_block_types=("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
        up_block_types=("AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
        latent_channels=4,
        vq_embed_dim=4,
        num_vq_embeddings=12,
        layers_per_block=1,
        norm_num_groups=4,
        norm_type="spatial",
    ).eval()


def tiny_components() -> dict:
    """Components of diffusers' pipeline for pictures of 16 x 16."""
    return {"unet": tiny_unet(), "scheduler": DDIMScheduler(**SCHEDULE), "movq": tiny_movq()}


def empty_embeds(image_encoder, num_images):
    """The unconditional embedding as diffusers' pipeline of the prior makes it."""
    prior = KandinskyV22PriorPipeline(
        prior=None, image_encoder=image_encoder, text_encoder=None, tokenizer=None, scheduler=None, image_processor=None
    )
    with torch.no_grad():
        return prior.get_zero_embed(num_images)


def original_pictures(components, image_embeds, negative_image_embeds, guidance_scale):
    pipeline = KandinskyV22Pipeline(**components)
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(
        image_embeds=image_embeds,
        negative_image_embeds=negative_image_embeds,
        height=16,
        width=16,
        num_inference_steps=5,
        guidance_scale=guidance_scale,
        generator=seeds(*range(len(image_embeds))),
        output_type="np",
    ).images
    return torch.from_numpy(images).permute(0, 3, 1, 2)


class TestKandinskyImageGenerator(GeneratorTesterMixin):
    generator_class = KandinskyImageGenerator

    def make_generator(self, **options):
        defaults = {"image_encoder": tiny_image_encoder(WIDTH), "image_side": 16}
        return KandinskyImageGenerator(**(tiny_components() | defaults | options))

    @pytest.mark.parametrize("with_image_encoder", [True, False])
    @pytest.mark.parametrize("guidance_scale", [1.0, 4.0])
    @pytest.mark.parametrize(
        "scheduler",
        [
            DDIMScheduler(**SCHEDULE),
            DDPMScheduler(**SCHEDULE),
            DDPMScheduler(**SCHEDULE, variance_type="learned_range"),
        ],
        ids=["ddim", "ddpm", "ddpm_learned_range"],
    )
    def test_pictures_are_those_of_diffusers(self, scheduler, guidance_scale, with_image_encoder):
        components = tiny_components() | {"scheduler": scheduler}
        image_encoder = tiny_image_encoder(WIDTH) if with_image_encoder else None
        generator = KandinskyImageGenerator(**components, image_encoder=image_encoder)
        generator.set_progress_bar_config(disable=True)
        image_embeds = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(0))
        found = generator(
            image_embeds=image_embeds,
            guidance_scale=guidance_scale,
            num_inference_steps=5,
            generator=seeds(0, 1, 2),
            output_type="pt",
        ).images
        empty = empty_embeds(image_encoder, 3) if with_image_encoder else torch.zeros(3, WIDTH)
        expected = original_pictures(components, image_embeds, empty, guidance_scale)
        assert expected.std() > 0.05
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)

    @pytest.mark.parametrize("strength", [0.3, 0.8])
    def test_a_start_from_a_picture_is_that_of_diffusers(self, generator, strength):
        pipeline = KandinskyV22Img2ImgPipeline(**tiny_components())
        pipeline.set_progress_bar_config(disable=True)
        pictures = self.make_pictures(generator, 2)
        inputs = self.make_inputs(generator, 2)
        options = {"num_inference_steps": 10, "guidance_scale": 4.0, "strength": strength, "generator": seeds(0, 1)}
        expected = pipeline(
            image=pictures,
            negative_image_embeds=empty_embeds(generator.image_encoder, 2),
            height=16,
            width=16,
            output_type="pt",
            **inputs,
            **options,
        ).images
        found = self.drawn(
            generator, latents=generator.encode_images(pictures), **(options | {"generator": seeds(0, 1)})
        )
        # Guided steps enlarge rounding, which differs among processors (3.4e-5 on one of them).
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)

    def test_a_folder_of_diffusers_own_pipeline_is_read(self, tmp_path):
        KandinskyV22Pipeline(**tiny_components()).save_pretrained(tmp_path / "decoder")
        tiny_image_encoder(WIDTH).save_pretrained(tmp_path / "prior" / "image_encoder")
        generator = KandinskyImageGenerator.from_source(
            str(tmp_path / "decoder"), image_encoder_repository=str(tmp_path / "prior")
        )
        expected = self.make_generator()
        pictures = self.make_pictures(generator, 2)
        torch.testing.assert_close(generator.embed_images(pictures), expected.embed_images(pictures))
        torch.testing.assert_close(self.drawn(generator), self.drawn(expected), atol=1e-5, rtol=0)
        alone = KandinskyImageGenerator.from_pretrained(tmp_path / "decoder")
        assert alone.image_encoder is None
        assert alone.image_embedding_space.shape == (WIDTH,)

    def test_saved_with_its_image_encoder_it_needs_no_other_source(self, generator, tmp_path):
        generator.save_pretrained(tmp_path / "whole")
        loaded = KandinskyImageGenerator.from_source(str(tmp_path / "whole"), image_encoder_repository="absent/folder")
        pictures = self.make_pictures(generator, 2)
        torch.testing.assert_close(loaded.embed_images(pictures), generator.embed_images(pictures))

    def test_an_image_encoder_that_is_not_to_be_had_is_a_sentence(self, tmp_path):
        KandinskyV22Pipeline(**tiny_components()).save_pretrained(tmp_path / "decoder")
        options = {"image_encoder_repository": str(tmp_path), "local_files_only": True}
        with pytest.raises(FmriModelsError, match="image encoder could not be loaded from .*; pass image_encoder_rep"):
            KandinskyImageGenerator.from_source(str(tmp_path / "decoder"), **options)
        without = KandinskyImageGenerator.from_source(str(tmp_path / "decoder"), image_encoder_repository=None)
        assert without.image_encoder is None

    def test_latents_are_those_before_quantisation(self, generator):
        pictures = self.make_pictures(generator, 2)
        with torch.no_grad():
            expected = generator.movq.encode(2 * pictures - 1).latents
        torch.testing.assert_close(generator.encode_images(pictures), expected)

    def test_text_is_refused(self, generator):
        with pytest.raises(FmriModelsError, match="takes no text_embeds"):
            generator(text_embeds=torch.zeros(1, 77, 16))
