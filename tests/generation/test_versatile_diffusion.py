"""Versatile Diffusion: numbers of diffusers' own pipelines, its folders, and what every generator has to pass."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    Transformer2DModel,
    UNet2DConditionModel,
    UniPCMultistepScheduler,
    VersatileDiffusionDualGuidedPipeline,
    VersatileDiffusionImageVariationPipeline,
    VersatileDiffusionPipeline,
)
from diffusers.models.transformers.dual_transformer_2d import DualTransformer2DModel
from diffusers.pipelines.deprecated.versatile_diffusion import UNetFlatConditionModel
from PIL import Image
from safetensors.torch import load_file
from transformers import CLIPImageProcessor, CLIPTextModelWithProjection

from fmri_models.embedding_space import clip_image_tokens_space, clip_text_tokens_space, stable_diffusion_latent_space
from fmri_models.errors import FmriModelsError
from fmri_models.generation.clip_embedding import CLIP_MEAN, CLIP_STD
from fmri_models.generation.versatile_diffusion import VersatileDiffusionImageGenerator
from tests.generation.generator_common import (
    GeneratorTesterMixin,
    randomised,
    seeds,
    tiny_autoencoder,
    tiny_image_encoder,
    tiny_text_config,
    tiny_tokenizer,
)

WIDTH = 12
NUM_IMAGE_TOKENS, NUM_TEXT_TOKENS = 5, 8
_SIZES = {
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "cross_attention_dim": WIDTH,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
}


def tiny_image_unet() -> UNet2DConditionModel:
    torch.manual_seed(4)
    return UNet2DConditionModel(
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        **_SIZES,
    ).eval()


def tiny_text_unet() -> UNetFlatConditionModel:
    torch.manual_seed(5)
    return UNetFlatConditionModel(
        down_block_types=("CrossAttnDownBlockFlat", "DownBlockFlat"),
        up_block_types=("UpBlockFlat", "CrossAttnUpBlockFlat"),
        **_SIZES,
    ).eval()


def tiny_components() -> dict[str, Any]:
    """Components of the published repository."""
    tokenizer = tiny_tokenizer(NUM_TEXT_TOKENS)
    text_encoder = CLIPTextModelWithProjection(tiny_text_config(tokenizer, projection=WIDTH))
    schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
    return {
        "tokenizer": tokenizer,
        "image_feature_extractor": CLIPImageProcessor(size={"shortest_edge": 28}, crop_size=28),
        "text_encoder": randomised(text_encoder, seed=1),
        "image_encoder": tiny_image_encoder(WIDTH),
        "image_unet": tiny_image_unet(),
        "text_unet": tiny_text_unet(),
        "vae": tiny_autoencoder(),
        "scheduler": DDIMScheduler(**schedule, clip_sample=False, set_alpha_to_one=False),
    }


def components_without_text() -> dict[str, Any]:
    return {name: each for name, each in tiny_components().items() if not name.startswith(("text", "token"))}


class OriginalDualGuidedPipeline(VersatileDiffusionDualGuidedPipeline):
    """diffusers' own, told embeddings instead of prompts."""

    def drawn(self, text_embeds: torch.Tensor, image_embeds: torch.Tensor, **options: Any) -> torch.Tensor:
        # With the unconditional ones, which are zero, in front.
        self.told = [torch.cat([torch.zeros_like(each), each]) for each in (text_embeds, image_embeds)]
        prompts = [""] * len(image_embeds)
        return self(prompt=prompts, image=prompts, height=16, width=16, output_type="pt", **options).images

    def _encode_text_prompt(self, *arguments: Any) -> torch.Tensor:
        return self.told[0]

    def _encode_image_prompt(self, *arguments: Any) -> torch.Tensor:
        return self.told[1]

    def set_transformer_params(self, mix_ratio: float, condition_types: tuple[str, ...]) -> None:
        super().set_transformer_params(mix_ratio, condition_types)
        for block in self.image_unet.modules():
            if isinstance(block, DualTransformer2DModel):
                block.condition_lengths[1] = NUM_IMAGE_TOKENS


def original_dual_guided() -> OriginalDualGuidedPipeline:
    pipeline = OriginalDualGuidedPipeline(**tiny_components())
    for block in pipeline.image_unet.modules():
        if isinstance(block, DualTransformer2DModel):
            _without_encoder_attention_mask(block)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _without_encoder_attention_mask(block: DualTransformer2DModel) -> None:
    """The UNet of diffusers 0.42 hands over an argument that this block does not take."""
    forward = block.forward
    block.forward = lambda *args, encoder_attention_mask=None, attention_mask=None, **kwargs: forward(*args, **kwargs)


def make_generator(**options: Any) -> VersatileDiffusionImageGenerator:
    generator = VersatileDiffusionImageGenerator(**(tiny_components() | {"image_side": 16} | options))
    generator.set_progress_bar_config(disable=True)
    return generator


def tokens(num_tokens: int, num_images: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randn(num_images, num_tokens, WIDTH, generator=torch.Generator().manual_seed(seed))


class TestVersatileDiffusionImageGenerator(GeneratorTesterMixin):
    generator_class = VersatileDiffusionImageGenerator

    def make_generator(self, **options):
        return make_generator(**options)

    @pytest.mark.parametrize("guidance_scale", [1.0, 7.5])
    @pytest.mark.parametrize("scheduler", [DDIMScheduler, UniPCMultistepScheduler])
    def test_pictures_from_pictures_are_those_of_diffusers(self, guidance_scale, scheduler):
        components = components_without_text()
        components["scheduler"] = scheduler.from_config(components["scheduler"].config)
        generator = make_generator(
            **components, unconditional_tokens="encoded", negative_picture="black", antialias=True
        )
        pipeline = VersatileDiffusionImageVariationPipeline(**components)
        pipeline.set_progress_bar_config(disable=True)
        levels = np.random.default_rng(0).integers(0, 256, (2, 28, 28, 3), dtype=np.uint8)
        options = {"guidance_scale": guidance_scale, "num_inference_steps": 5, "output_type": "pt"}
        expected = pipeline(
            [Image.fromarray(each) for each in levels],
            height=16,
            width=16,
            negative_prompt=[Image.new("RGB", (28, 28))] * 2,
            generator=seeds(0, 1),
            **options,
        ).images
        embeds = generator.embed_images(torch.from_numpy(levels).permute(0, 3, 1, 2) / 255)
        found = generator(image_embeds=embeds, generator=seeds(0, 1), **options).images
        assert expected.std() > 0.05
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)

    @pytest.mark.parametrize("ratio", [0.0, 0.3, 1.0])
    @pytest.mark.parametrize("guidance_scale", [1.5, 7.5])
    def test_pictures_from_text_and_pictures_are_those_of_diffusers(self, ratio, guidance_scale):
        generator = make_generator(text_to_image_ratio=ratio)
        other = make_generator(text_to_image_ratio=0.8)
        pipeline = original_dual_guided()
        text_embeds, image_embeds = tokens(NUM_TEXT_TOKENS), tokens(NUM_IMAGE_TOKENS, seed=1)
        options = {"guidance_scale": guidance_scale, "num_inference_steps": 5}
        expected = pipeline.drawn(
            text_embeds, image_embeds, text_to_image_strength=ratio, generator=seeds(0, 1), **options
        )
        inputs = {"image_embeds": image_embeds, "text_embeds": text_embeds}
        found = self.drawn(generator, **inputs, **options)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(self.drawn(other, **inputs, **options, text_to_image_ratio=ratio), found)
        assert not torch.equal(self.drawn(other, **inputs, **options), found)
        one_alone = {0.0: {"text_embeds": None}, 1.0: {"image_embeds": None}}.get(ratio)
        if one_alone is not None:
            torch.testing.assert_close(self.drawn(generator, **(inputs | one_alone), **options), found)

    def test_the_schedule_of_mindbridge_is_unipc_as_diffusers_had_it(self):
        generator = make_generator(published_scheduler=True)
        components = tiny_components()
        sigma_min = UniPCMultistepScheduler.from_config(components["scheduler"].config, final_sigmas_type="sigma_min")
        assert type(generator.scheduler) is UniPCMultistepScheduler
        assert generator.scheduler.config.final_sigmas_type == "sigma_min"
        pipeline = original_dual_guided()
        pipeline.scheduler = sigma_min
        text_embeds, image_embeds = tokens(NUM_TEXT_TOKENS), tokens(NUM_IMAGE_TOKENS, seed=1)
        options = {"guidance_scale": 5.0, "num_inference_steps": 20}
        expected = pipeline.drawn(
            text_embeds, image_embeds, text_to_image_strength=0.5, generator=seeds(0, 1), **options
        )
        inputs = {"image_embeds": image_embeds, "text_embeds": text_embeds}
        torch.testing.assert_close(self.drawn(generator, **inputs, **options), expected, atol=1e-5, rtol=0)
        as_today = UniPCMultistepScheduler.from_config(components["scheduler"].config)
        assert not torch.equal(self.drawn(make_generator(scheduler=as_today), **inputs, **options), expected)

    def test_embedded_captions_are_those_of_diffusers(self, generator):
        pipeline = VersatileDiffusionDualGuidedPipeline(**tiny_components())
        texts = ["a bc", "d"]
        with torch.no_grad():
            expected = pipeline._encode_text_prompt(texts, torch.device("cpu"), 1, False)
        torch.testing.assert_close(generator.embed_texts(texts), expected, atol=1e-5, rtol=1e-5)

    def test_guidance_leads_away_from_the_grey_picture_of_diffusers(self):
        pipeline = VersatileDiffusionDualGuidedPipeline(**tiny_components())
        # Floats in [0, 1] are what the pipeline makes; its extractor would divide them by 255 once more.
        pipeline.image_feature_extractor.do_rescale = False
        with torch.no_grad():
            grey, _ = pipeline._encode_image_prompt([np.ones((28, 28, 3))], torch.device("cpu"), 1, True)
        generator = make_generator(unconditional_tokens="encoded")
        told = {"image": generator.embed_images(torch.ones(1, 3, 28, 28))}
        torch.testing.assert_close(generator.unconditional_like(told)["image"][0], grey, atol=1e-5, rtol=1e-5)
        black = make_generator(unconditional_tokens="encoded", negative_picture="black").unconditional_like(told)
        assert (black["image"][0] - grey).abs().max() > 1e-3
        guided = self.drawn(generator, image_embeds=grey.expand(2, -1, -1), text_embeds=None, guidance_scale=5.0)
        alone = self.drawn(generator, image_embeds=grey.expand(2, -1, -1), text_embeds=None, guidance_scale=1.0)
        torch.testing.assert_close(guided, alone, atol=1e-5, rtol=0)

    def test_guidance_leads_away_from_the_empty_caption(self):
        generator = make_generator(unconditional_tokens="encoded")
        text_embeds = generator.embed_texts(["", ""])
        inputs = {"image_embeds": None, "text_embeds": text_embeds}
        guided = self.drawn(generator, **inputs, guidance_scale=5.0)
        torch.testing.assert_close(guided, self.drawn(generator, **inputs, guidance_scale=1.0), atol=1e-5, rtol=0)
        assert (self.drawn(make_generator(), **inputs, guidance_scale=5.0) - guided).abs().max() > 1e-3

    def test_drawing_leaves_the_networks_as_they_were(self, generator):
        before = [dict(network.named_modules()) for network in (generator.image_unet, generator.text_unet)]
        self.drawn(generator)
        after = [dict(network.named_modules()) for network in (generator.image_unet, generator.text_unet)]
        assert before == after
        generator.image_unet.conv_out.register_forward_hook(_interrupt)
        with pytest.raises(KeyboardInterrupt):
            self.drawn(generator)
        assert dict(generator.image_unet.named_modules()) == before[0]

    def test_the_published_layout_is_read_and_written(self, tmp_path):
        VersatileDiffusionPipeline(**tiny_components()).save_pretrained(tmp_path / "published")
        index_file = tmp_path / "published" / "model_index.json"
        index = json.loads(index_file.read_text())
        assert index["text_unet"] == ["versatile_diffusion", "UNetFlatConditionModel"]
        generator = VersatileDiffusionImageGenerator.from_source(str(tmp_path / "published"), image_side=16)
        generator.set_progress_bar_config(disable=True)
        torch.testing.assert_close(self.drawn(generator), self.drawn(make_generator()), atol=1e-5, rtol=0)
        without_text = {"text_unet": None, "text_encoder": None, "tokenizer": None, "image_side": 16}
        smaller = VersatileDiffusionImageGenerator.from_source(str(tmp_path / "published"), **without_text)
        smaller.set_progress_bar_config(disable=True)
        image_embeds = self.make_inputs(generator, 2)["image_embeds"]
        found, expected = (
            self.drawn(each, image_embeds=image_embeds, text_embeds=None) for each in (smaller, generator)
        )
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
        generator.save_pretrained(tmp_path / "ours")
        weights = "text_unet/diffusion_pytorch_model.safetensors"
        saved, published = (load_file(tmp_path / folder / weights) for folder in ("ours", "published"))
        assert saved.keys() == published.keys()
        assert json.loads((tmp_path / "ours" / "model_index.json").read_text())["text_unet"] == index["text_unet"]

    def test_a_folder_without_text_parts_is_read(self, tmp_path):
        VersatileDiffusionImageVariationPipeline(**components_without_text()).save_pretrained(tmp_path)
        generator = VersatileDiffusionImageGenerator.from_source(str(tmp_path))
        generator.set_progress_bar_config(disable=True)
        assert generator.image_size == (3, 16, 16)
        assert generator.text_embedding_space is None
        expected = self.drawn(make_generator(), text_embeds=None)
        drawn = generator(
            image_embeds=self.make_inputs(make_generator(), 2)["image_embeds"],
            guidance_scale=2.0,
            num_inference_steps=3,
            generator=seeds(0, 1),
            output_type="pt",
        ).images
        torch.testing.assert_close(drawn, expected, atol=1e-5, rtol=0)
        with pytest.raises(FmriModelsError, match="without text_encoder, which embeds captions"):
            generator.embed_texts(["a"])

    def test_text_without_its_unet_is_a_sentence(self):
        generator = make_generator(text_unet=None)
        assert self.drawn(generator, text_embeds=None).shape == (2, 3, 16, 16)
        with pytest.raises(FmriModelsError, match="without text_unet, which reads text_embeds"):
            self.drawn(generator)

    def test_spaces_are_those_of_mindeye(self, generator):
        assert generator.image_embedding_space == replace(
            clip_image_tokens_space(), shape=(NUM_IMAGE_TOKENS, WIDTH), preprocessing="28 bicubic, centre crop"
        )
        assert generator.text_embedding_space == replace(clip_text_tokens_space(), shape=(NUM_TEXT_TOKENS, WIDTH))
        bare = make_generator(image_encoder=None, image_unet=None, text_encoder=None, image_side=None)
        assert bare.image_embedding_space == clip_image_tokens_space()
        assert bare.text_embedding_space == replace(clip_text_tokens_space(), shape=(77, WIDTH))
        assert bare.image_size == (3, 512, 512)
        assert bare.latent_space == replace(stable_diffusion_latent_space(512), shape=(4, 256, 256))

    def test_the_published_start_is_standardised_with_the_colours_of_clip(self, generator):
        published = make_generator(clip_normalised_start=True)
        latents = generator.encode_images(self.make_pictures(generator, 2))
        with torch.no_grad():
            pictures = generator.vae.decode(latents / generator.vae.config.scaling_factor).sample / 2 + 0.5
            standardised = (pictures - torch.tensor(CLIP_MEAN)[:, None, None]) / torch.tensor(CLIP_STD)[:, None, None]
            start = generator.vae.encode(standardised).latent_dist.mode() * generator.vae.config.scaling_factor
        expected = self.drawn(generator, latents=start, strength=0.7)
        torch.testing.assert_close(self.drawn(published, latents=latents, strength=0.7), expected, atol=1e-5, rtol=0)
        assert (self.drawn(generator, latents=latents, strength=0.7) - expected).abs().max() > 1e-3
        unchanged = generator(latents=latents, output_type="pt").images
        torch.testing.assert_close(self.drawn(published, latents=latents, strength=0.0), unchanged)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"text_to_image_ratio": 1.5}, "text_to_image_ratio is 1.5; expected a number from 0"),
            ({"negative_picture": "white"}, "negative_picture is 'white'; expected 'grey' or 'black'"),
            ({"unconditional_tokens": "grey"}, "unconditional_tokens is 'grey'; expected 'zeros' or 'encoded'"),
        ],
    )
    def test_options_of_the_generator_out_of_range_are_a_sentence(self, options, message):
        with pytest.raises(FmriModelsError, match=message):
            make_generator(**options)

    def test_a_unet_of_the_dual_guided_pipeline_is_a_sentence(self):
        converted = VersatileDiffusionDualGuidedPipeline(**tiny_components()).image_unet
        with pytest.raises(FmriModelsError, match="blocks for text and images in one"):
            make_generator(image_unet=converted)

    def test_both_unets_have_the_same_blocks(self, generator):
        names = [
            [name for name, module in network.named_modules() if isinstance(module, Transformer2DModel)]
            for network in (generator.image_unet, generator.text_unet)
        ]
        assert names[0] == names[1] != []


def _interrupt(*arguments: Any) -> None:
    raise KeyboardInterrupt
