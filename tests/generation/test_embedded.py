import textwrap

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderTiny,
    DDIMScheduler,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    UNet2DConditionModel,
)
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from fmri_models import EmbeddedImageGenerator, FmriModelsError, scenes
from fmri_models.conditions import Conditions
from fmri_models.generation.embedded import ASSETS_FOLDER
from fmri_models.library_registration import register_with_libraries
from tests.generation.generator_common import DrawingGeneratorMixin
from tests.new_process import run_program

ALPHABET = "abcdefghijklmnopqrstuvwxyz"


def tiny_tokenizer():
    vocabulary = {token: index for index, token in enumerate([*ALPHABET, *(f"{letter}</w>" for letter in ALPHABET)])}
    vocabulary |= {"<|startoftext|>": len(vocabulary), "<|endoftext|>": len(vocabulary) + 1}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=8)


def tiny_unet():
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(8, 16),
        layers_per_block=1,
        cross_attention_dim=8,
        attention_head_dim=2,
        norm_num_groups=4,
        class_embed_type="projection",
        projection_class_embeddings_input_dim=8,
    ).eval()


def tiny_generator(seed=0, with_unet=False):
    torch.manual_seed(seed)
    tokenizer = tiny_tokenizer()
    autoencoder = AutoencoderTiny(
        in_channels=12,
        out_channels=12,
        latent_channels=4,
        encoder_block_out_channels=(8, 8, 8),
        decoder_block_out_channels=(8, 8, 8),
        num_encoder_blocks=(1, 1, 1),
        num_decoder_blocks=(1, 1, 1),
    )
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = tower | {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 8,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = tower | {"image_size": 64, "patch_size": 32}
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))
    schedule = {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction", "timestep_spacing": "trailing"}
    return EmbeddedImageGenerator(
        autoencoder=autoencoder.eval(),
        image_encoder=clip.eval(),
        tokenizer=tokenizer,
        unet=tiny_unet() if with_unet else None,
        scheduler=DPMSolverMultistepScheduler(**schedule) if with_unet else None,
        latent_mean=[0.1, -0.2, 0.3, 0.0],
        latent_std=[0.5, 1.5, 2.0, 1.0],
        autoencoder_revision="0123456789ab",
        image_encoder_revision="ba9876543210",
    )


def scene_pictures(num, purpose="generator_test"):
    images = np.stack([scenes.scene(seed).image for seed in scenes.scene_seeds(purpose, num)])
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


class TestEmbeddedImageGenerator(DrawingGeneratorMixin):
    generator_class = EmbeddedImageGenerator

    def make_generator(self, **options):
        return tiny_generator(with_unet=True)


@pytest.fixture
def generator():
    return tiny_generator()


@pytest.fixture
def diffusion():
    generator = tiny_generator(with_unet=True)
    generator.set_progress_bar_config(disable=True)
    return generator


@pytest.fixture(scope="module")
def assets():
    return EmbeddedImageGenerator.from_assets()


def test_shapes_are_those_of_the_spaces(generator):
    pictures = scene_pictures(3)
    assert generator.image_size == (3, 64, 64)
    assert generator.encode_images(pictures).shape == (3, *generator.latent_space.shape) == (3, 4, 8, 8)
    assert generator.embed_images(pictures).shape == (3, *generator.image_embedding_space.shape) == (3, 5, 8)
    assert generator.embed_texts(["a b", "c"]).shape == (2, *generator.text_embedding_space.shape) == (2, 8, 8)


def test_first_vision_token_is_the_embedding_of_clip(generator):
    pictures = scene_pictures(4)
    with torch.no_grad():
        expected = generator.image_encoder.get_image_features(pixel_values=2 * pictures - 1).pooler_output
    expected = expected / expected.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(generator.embed_images(pictures)[:, 0], expected)


def test_end_token_is_the_embedding_of_clip(generator):
    texts = ["abc", "a b c d"]
    embeds = generator.embed_texts(texts)
    tokens = generator.tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = generator.image_encoder.get_text_features(**tokens).pooler_output
    expected = expected / expected.norm(dim=-1, keepdim=True)
    ends = (tokens["input_ids"] == generator.tokenizer.eos_token_id).int().argmax(dim=1)
    torch.testing.assert_close(embeds[torch.arange(2), ends], expected)


def test_latents_are_standardized_and_decoded_again(generator):
    pictures = scene_pictures(2)
    latents = generator.encode_images(pictures)
    shuffled = torch.nn.functional.pixel_unshuffle(2 * pictures - 1, 2)
    with torch.no_grad():
        raw = generator.autoencoder.encode(shuffled).latents
        decoded = generator.autoencoder.decode(raw).sample
    expected = (torch.nn.functional.pixel_shuffle(decoded, 2) + 1) / 2
    mean, std = torch.tensor(generator.config.latent_mean), torch.tensor(generator.config.latent_std)
    torch.testing.assert_close(latents * std[:, None, None] + mean[:, None, None], raw)
    images = generator(latents=latents, output_type="pt").images
    torch.testing.assert_close(images, expected.clamp(0, 1), atol=1e-5, rtol=1e-5)


def test_a_batch_equals_its_pictures_one_by_one(generator):
    generator.images_a_pass = 2
    pictures = scene_pictures(5)
    for function in (generator.embed_images, generator.encode_images):
        alone = torch.cat([function(picture[None]) for picture in pictures])
        torch.testing.assert_close(function(pictures), alone)


def test_targets_can_enter_a_loss(generator):
    target = generator.embed_images(scene_pictures(2))
    prediction = torch.zeros_like(target, requires_grad=True)
    (prediction * target).sum().backward()
    torch.testing.assert_close(prediction.grad, target)


def test_drawing_depends_on_the_generator_alone(generator):
    first = generator(num_images=2, generator=torch.Generator().manual_seed(1), output_type="pt").images
    again = generator(num_images=2, generator=torch.Generator().manual_seed(1), output_type="pt").images
    other = generator(num_images=2, generator=torch.Generator().manual_seed(2), output_type="pt").images
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == (2, 3, 64, 64)
    assert [image.size for image in generator(num_images=2).images] == [(64, 64)] * 2


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ({"image_embeds": torch.zeros(2, 5, 8)}, "without its diffusion model"),
        ({"text_embeds": torch.zeros(2, 8, 8)}, "without its diffusion model"),
        ({"latents": torch.zeros(2, 4, 4, 4)}, r"\(N, 4, 8, 8\); got \(2, 4, 4, 4\)"),
        ({}, "was given nothing"),
        ({"latents": torch.zeros(2, 4, 8, 8), "image_embeds": torch.zeros(3, 5, 8)}, "batches of 2, 3"),
        ({"num_images": 1, "output_type": "jpeg"}, "output_type is 'jpeg'"),
    ],
)
def test_bad_calls_are_named(generator, inputs, sentence):
    assert not generator.generates_from_embeddings
    with pytest.raises(FmriModelsError, match=sentence):
        generator(**inputs)


def draw(generator, num=3, seed=0, **arguments):
    sources = [torch.Generator().manual_seed(seed + index) for index in range(num)]
    return generator(num_inference_steps=4, generator=sources, output_type="pt", **arguments).images


def test_embeddings_change_the_picture(diffusion):
    embeds = diffusion.embed_images(scene_pictures(3))
    texts = diffusion.embed_texts(["a", "b c", "d"])
    assert diffusion.generates_from_embeddings
    drawn = [draw(diffusion, num_images=3), draw(diffusion, image_embeds=embeds), draw(diffusion, text_embeds=texts)]
    drawn += [draw(diffusion, image_embeds=embeds, text_embeds=texts)]
    drawn += [draw(diffusion, image_embeds=embeds, guidance_scale=3.0)]
    assert all(pictures.shape == (3, 3, 64, 64) for pictures in drawn)
    assert all(not torch.equal(a, b) for i, a in enumerate(drawn) for b in drawn[:i])


def test_the_weight_of_the_text_leaves_one_of_both_away(diffusion):
    embeds, texts = diffusion.embed_images(scene_pictures(3)), diffusion.embed_texts(["a", "b c", "d"])
    both = {"image_embeds": embeds, "text_embeds": texts, "guidance_scale": 2.0}
    image, text = both | {"text_embeds": None}, both | {"image_embeds": None}
    for ratio, same in ((None, both), (0.5, both), (0, image), (1, text)):
        assert torch.equal(draw(diffusion, **both, text_to_image_ratio=ratio), draw(diffusion, **same))
    for alone in (image, text):
        assert torch.equal(draw(diffusion, **alone, text_to_image_ratio=0), draw(diffusion, **alone))
    latents = diffusion.encode_images(scene_pictures(3))
    kept = draw(diffusion, **both, latents=latents, strength=0.5, text_to_image_ratio=1)
    assert torch.equal(kept, draw(diffusion, **text, latents=latents, strength=0.5))
    for ratio in (0.3, 0.49, 0.99):
        with pytest.raises(FmriModelsError, match=f"text_to_image_ratio is {ratio}, and EmbeddedImageGenerator reads"):
            draw(diffusion, **both, text_to_image_ratio=ratio)


def test_guidance_of_one_is_the_conditional_prediction(diffusion):
    embeds = diffusion.embed_images(scene_pictures(2))
    near = draw(diffusion, 2, image_embeds=embeds, guidance_scale=1.0 + 1e-6)
    torch.testing.assert_close(draw(diffusion, 2, image_embeds=embeds), near, atol=1e-3, rtol=0)


def test_absent_conditions_are_zero(diffusion):
    embeds = diffusion.embed_images(scene_pictures(2))
    tokens, pooled = diffusion.condition(Conditions(image_embeds=embeds))
    assert tokens.shape == (2, 5 + 8, 8) and pooled.shape == (2, 8)
    assert tokens[:, 5:].abs().sum() == 0 and tokens[:, :5].abs().sum() > 0
    tokens, pooled = diffusion.condition(Conditions(num_images=2))
    assert tokens.abs().sum() == 0 and pooled.abs().sum() == 0


def test_image_tokens_are_told_apart_by_their_place(diffusion):
    same = diffusion.embed_images(scene_pictures(1))[:, :1].expand(1, 5, 8)
    tokens, _ = diffusion.condition(Conditions(image_embeds=same))
    assert len(torch.unique(tokens[0, :5].round(decimals=4), dim=0)) == 5


def test_strength_says_how_much_of_the_start_is_kept(diffusion):
    latents = diffusion.encode_images(scene_pictures(3))
    embeds = diffusion.embed_images(scene_pictures(3))
    decoded = draw(diffusion, latents=latents, strength=0.0)
    kept = [draw(diffusion, image_embeds=embeds, latents=latents, strength=s) for s in (0.0, 0.25, 0.75, 1.0)]
    torch.testing.assert_close(kept[0], decoded)
    torch.testing.assert_close(kept[3], draw(diffusion, image_embeds=embeds))
    distances = [float((pictures - decoded).square().mean()) for pictures in kept]
    assert distances == sorted(distances)


def test_pictures_in_chunks_equal_pictures_at_once(diffusion):
    embeds = diffusion.embed_images(scene_pictures(5))
    at_once = draw(diffusion, 5, image_embeds=embeds, guidance_scale=2.0)
    diffusion.images_a_batch = 2
    torch.testing.assert_close(draw(diffusion, 5, image_embeds=embeds, guidance_scale=2.0), at_once)


def test_pictures_that_go_through_the_diffusion_model_together_do_not_matter(diffusion, monkeypatch):
    embeds = diffusion.embed_images(scene_pictures(5))
    at_once = draw(diffusion, 5, image_embeds=embeds, guidance_scale=2.0)
    monkeypatch.setattr("fmri_models.generation.embedded._IMAGES_ON_A_CPU", 3)
    torch.testing.assert_close(draw(diffusion, 5, image_embeds=embeds, guidance_scale=2.0), at_once)


def test_another_scheduler_of_diffusers_takes_its_place(diffusion):
    embeds = diffusion.embed_images(scene_pictures(2))
    diffusion.scheduler = DDIMScheduler.from_config(diffusion.scheduler.config)
    drawn = draw(diffusion, 2, image_embeds=embeds, latents=diffusion.encode_images(scene_pictures(2)), strength=0.5)
    assert torch.isfinite(drawn).all()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"strength": 1.5}, "strength is 1.5"),
        ({"guidance_scale": -1.0}, "guidance_scale is -1.0"),
        ({"guidance_scale": float("nan")}, "guidance_scale is nan; expected a number from 0"),
        ({"num_inference_steps": 0}, "num_inference_steps is 0; expected a whole number from 1 to 1000"),
        ({"num_inference_steps": 1001}, "num_inference_steps is 1001"),
        ({"image_embeds": torch.zeros(2, 17, 128)}, r"image_embeds of shape \(N, 5, 8\); got \(2, 17, 128\)"),
    ],
)
def test_options_out_of_range_are_named(diffusion, changes, sentence):
    with pytest.raises(FmriModelsError, match=sentence):
        diffusion(**{"image_embeds": torch.zeros(2, 5, 8), **changes})


@pytest.mark.parametrize("pictures", [torch.zeros(2, 3, 32, 32), torch.full((1, 3, 64, 64), 255.0)])
def test_bad_pictures_are_named(generator, pictures):
    with pytest.raises(FmriModelsError, match="EmbeddedImageGenerator takes"):
        generator.embed_images(pictures)
    with pytest.raises(FmriModelsError, match="EmbeddedImageGenerator takes"):
        generator.encode_images(pictures)


def test_saved_generator_is_equal_in_a_new_process(generator, tmp_path):
    generator.save_pretrained(tmp_path / "generator")
    pictures = scene_pictures(2)
    np.save(tmp_path / "pictures.npy", pictures.numpy())
    program = """
        import sys, numpy, torch
        from fmri_models import EmbeddedImageGenerator
        folder = sys.argv[1]
        generator = EmbeddedImageGenerator.from_pretrained(f"{folder}/generator")
        pictures = torch.from_numpy(numpy.load(f"{folder}/pictures.npy"))
        numpy.save(f"{folder}/embeds.npy", generator.embed_images(pictures).numpy())
        numpy.save(f"{folder}/texts.npy", generator.embed_texts(["a b", "abc"]).numpy())
        numpy.save(f"{folder}/latents.npy", generator.encode_images(pictures).numpy())
    """
    ended = run_program(textwrap.dedent(program), tmp_path)
    assert ended.returncode == 0, ended.stderr
    for name, expected in (
        ("embeds", generator.embed_images(pictures)),
        ("texts", generator.embed_texts(["a b", "abc"])),
        ("latents", generator.encode_images(pictures)),
    ):
        np.testing.assert_allclose(np.load(tmp_path / f"{name}.npy"), expected.numpy(), atol=1e-5)


class Holder(DiffusionPipeline):
    """A pipeline that has a generator for a component."""

    config_name = "model_index.json"

    def __init__(self, image_generator):
        super().__init__()
        self.register_modules(image_generator=image_generator)


def test_round_trip_with_the_diffusion_model_draws_the_same(diffusion, tmp_path):
    embeds = diffusion.embed_images(scene_pictures(2))
    diffusion.save_pretrained(tmp_path / "generator")
    loaded = EmbeddedImageGenerator.from_pretrained(tmp_path / "generator")
    torch.testing.assert_close(draw(loaded, 2, image_embeds=embeds), draw(diffusion, 2, image_embeds=embeds))
    without = EmbeddedImageGenerator.from_pretrained(tmp_path / "generator", unet=None)
    assert not without.generates_from_embeddings


def test_round_trip_as_a_component_keeps_weights_and_spaces(generator, tmp_path):
    register_with_libraries()
    Holder(generator).save_pretrained(tmp_path / "holder")
    loaded = Holder.from_pretrained(tmp_path / "holder").image_generator
    assert type(loaded) is EmbeddedImageGenerator
    for name in ("autoencoder", "image_encoder"):
        states = (getattr(generator, name).state_dict(), getattr(loaded, name).state_dict())
        assert states[0].keys() == states[1].keys()
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    for space in ("latent_space", "image_embedding_space", "text_embedding_space"):
        getattr(generator, space).require_equal(getattr(loaded, space), "saved", "loaded")
    assert loaded.latent_space.revision == "0123456789ab"
    assert loaded.image_embedding_space.revision == "ba9876543210"


def test_retrained_component_is_another_space(generator):
    other = tiny_generator()
    other.register_to_config(image_encoder_revision="000000000000")
    with pytest.raises(FmriModelsError, match="revision"):
        generator.image_embedding_space.require_equal(other.image_embedding_space, "model", "generator")
    generator.latent_space.require_equal(other.latent_space, "model", "generator")


def test_assets_are_small_float16_files_of_one_component_each():
    folders = [ASSETS_FOLDER, ASSETS_FOLDER.parent / "scene_factors"]
    files = sorted(file for folder in folders for file in folder.rglob("*.safetensors"))
    assert [file.parent.name for file in files] == ["autoencoder", "image_encoder", "unet", "scene_factors"]
    assert sum(file.stat().st_size for folder in folders for file in folder.rglob("*") if file.is_file()) <= 32e6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_assets_load_in_the_dtype_that_is_asked_for(dtype):
    generator = EmbeddedImageGenerator.from_assets(dtype=dtype)
    assert {p.dtype for p in generator.autoencoder.parameters()} == {dtype}
    assert {p.dtype for p in generator.image_encoder.parameters()} == {dtype}
    assert not generator.autoencoder.training and not generator.image_encoder.training
    assert generator.encode_images(scene_pictures(2)).dtype == torch.float32


def test_assets_reconstruct_held_out_pictures(assets):
    pictures = scene_pictures(64)
    latents = assets.encode_images(pictures)
    decoded = assets(latents=latents, output_type="pt").images
    psnr = -10 * (decoded - pictures).square().mean((1, 2, 3)).log10()
    assert latents.shape[1:] == (12, 8, 8)
    assert psnr.mean() >= 30
    assert latents.mean((0, 2, 3)).abs().max() < 0.2
    assert (latents.std((0, 2, 3)) - 1).abs().max() < 0.2


def test_assets_match_pictures_and_captions(assets):
    seeds = scenes.scene_seeds("generator_test", 100)
    texts = [scenes.scene(seed).captions[0] for seed in seeds]
    images = assets.embed_images(scene_pictures(100))
    tokens = assets.tokenizer(texts, padding="max_length", max_length=assets.text_embedding_space.shape[0])
    ends = torch.tensor([ids.index(assets.tokenizer.eos_token_id) for ids in tokens["input_ids"]])
    captions = assets.embed_texts(texts)[torch.arange(100), ends]
    top1 = ((images[:, 0] @ captions.T).argmax(1) == torch.arange(100)).float().mean()
    assert images.shape[1] == 17
    assert len(assets.tokenizer) <= 1000
    assert top1 >= 0.95


def test_embedding_statistics_are_those_of_held_out_pictures(assets):
    tokens = assets.embed_images(scene_pictures(200)).flatten(0, 1)
    standardized = (tokens - torch.tensor(assets.config.image_embeds_mean)) / torch.tensor(
        assets.config.image_embeds_std
    )
    assert standardized.mean(0).abs().max() < 0.2
    assert (standardized.std(0) - 1).abs().max() < 0.2
