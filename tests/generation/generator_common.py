"""What every generator has to pass, what one with a latent diffusion model has to, and tiny networks to build one of.

A generator's test class derives from [`DrawingGeneratorMixin`], or with a latent diffusion model from
[`GeneratorTesterMixin`].
"""

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from diffusers.image_processor import VaeImageProcessor
from peft import LoHaConfig, LoraConfig, get_peft_model, inject_adapter_in_model
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from fmri_models.conditions import Conditions
from fmri_models.errors import FmriModelsError
from fmri_models.generation.generator_adapter import GeneratorAdapter, base_alone
from fmri_models.generation.image_generator import ImageGenerator
from fmri_models.generation.latent_diffusion import LatentDiffusionGenerator
from tests.generation.adapted import with_lora
from tests.pipeline_tester_mixin import DrawingHabits, seeds

__all__ = ["seeds"]

ALPHABET = "abcdefghijklmnopqrstuvwxyz"
NUM_STEPS = 3


def randomised(network: torch.nn.Module, seed: int = 0) -> Any:
    """Gives a network weights that differ from any zero initialisation, and sets it to evaluation."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator) + (parameter.ndim == 1))
    return network.eval()


def tiny_tokenizer(length: int = 8) -> CLIPTokenizer:
    vocabulary = {token: index for index, token in enumerate([*ALPHABET, *(f"{letter}</w>" for letter in ALPHABET)])}
    vocabulary |= {"<|startoftext|>": len(vocabulary), "<|endoftext|>": len(vocabulary) + 1}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=length)


def tiny_text_config(tokenizer: CLIPTokenizer, width: int = 16, projection: int = 16) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=tokenizer.model_max_length,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=projection,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def tiny_text_encoder(tokenizer: CLIPTokenizer, width: int = 16) -> CLIPTextModel:
    return randomised(CLIPTextModel(tiny_text_config(tokenizer, width)), seed=1)


def tiny_image_encoder(projection: int = 12) -> CLIPVisionModelWithProjection:
    config = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=projection,
        image_size=28,
        patch_size=14,
    )
    return randomised(CLIPVisionModelWithProjection(config), seed=2)


def tiny_autoencoder() -> AutoencoderKL:
    """Two blocks: latents of half the picture's size."""
    torch.manual_seed(3)
    return AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
        up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=16,
    ).eval()


class DrawingGeneratorMixin(DrawingHabits):
    """Set `generator_class` and implement `make_generator`."""

    generator_class: type[ImageGenerator]
    # What the generator draws from.
    drawn_from: tuple[str, ...] = ("image_embeds", "text_embeds")

    def make_generator(self, **options: Any) -> Any:
        """A tiny generator with all its components, the same at every call; `options` replace arguments of it."""
        raise AssertionError("the generator's test class makes a generator")

    def make_pipeline(self) -> Any:
        generator = self.make_generator()
        generator.set_progress_bar_config(disable=True)
        return generator

    def make_pictures(self, generator: ImageGenerator, num_images: int) -> torch.Tensor:
        return torch.rand(num_images, *generator.image_size, generator=torch.Generator().manual_seed(5))

    def make_inputs(self, generator: ImageGenerator, num_images: int) -> dict[str, torch.Tensor]:
        """Embeddings of each space that the generator takes, and latents where it draws from nothing else."""
        source = torch.Generator().manual_seed(6)
        spaces = {
            "image_embeds": generator.image_embedding_space,
            "text_embeds": generator.text_embedding_space,
            "latents": generator.latent_space,
        }
        return {
            name: torch.randn(num_images, *space.shape, generator=source)
            for name, space in spaces.items()
            if space is not None and name in self.drawn_from
        }

    def inputs(self, pipeline: Any, num_images: int) -> dict[str, Any]:
        options = {"guidance_scale": 2.0, "num_inference_steps": 2, "generator": seeds(*range(num_images))}
        return self.make_inputs(pipeline, num_images) | options

    def computed(self, pipeline: Any) -> dict[str, torch.Tensor]:
        pictures = self.make_pictures(pipeline, 2)
        found = {"pictures": self.drawn_by(pipeline), "latents": pipeline.encode_images(pictures)}
        if pipeline.image_embedding_space is not None:
            found["image_embeds"] = pipeline.embed_images(pictures)
        if pipeline.text_embedding_space is not None:
            found["text_embeds"] = pipeline.embed_texts(["a bc", "d"])
        return found

    def test_inputs_may_be_lists(self):
        generator = self.make_pipeline()
        call = self.inputs(generator, 2)
        lists = {name: list(v.split(1)) if isinstance(v, torch.Tensor) else v for name, v in call.items()}
        listed = generator(**lists, output_type="pt").images
        assert torch.equal(listed, self.drawn_by(generator))
        for wrong in ([], [1], "embeds", np.zeros((2, 3))):
            with pytest.raises(FmriModelsError, match="Embeddings and latents are tensors"):
                generator(latents=wrong)

    @pytest.mark.slow
    def test_a_network_with_an_adapter_is_not_saved(self, tmp_path):
        for name in networks_by_name(self.make_pipeline()):
            generator = self.make_pipeline()
            network = getattr(generator, name)
            inject_adapter_in_model(adapter_of(network), network)
            with pytest.raises(FmriModelsError, match=rf"The {name} of the \w+ \(\w+\) has layers of a PEFT adapter"):
                generator.save_pretrained(tmp_path / "generator")
            generator = self.make_pipeline()
            network = getattr(generator, name)
            setattr(generator, name, get_peft_model(network, adapter_of(network)))
            with pytest.raises(FmriModelsError, match=rf"\(Peft\w+\) has layers .* put {name}.merge_and_unload\(\)"):
                generator.save_pretrained(tmp_path / "generator")
            # As the sentence says.
            setattr(generator, name, getattr(generator, name).merge_and_unload())
            generator.save_pretrained(tmp_path / f"merged {name}")
            loaded = self.generator_class.from_pretrained(tmp_path / f"merged {name}")
            self.assert_computes(loaded, self.computed(generator))
        assert not (tmp_path / "generator").exists()

    def test_what_could_not_be_loaded_is_not_saved(self, tmp_path):
        for name, component in self.make_pipeline().components.items():
            if component is None:
                continue
            generator = self.make_pipeline()
            setattr(generator, name, torch.nn.Sequential(torch.nn.Linear(2, 2)))
            with pytest.raises(FmriModelsError, match=f"The {name} of the {type(generator).__name__} is a Sequential"):
                generator.save_pretrained(tmp_path / "generator")
        assert not (tmp_path / "generator").exists()

    def test_components_that_come_later_are_saved(self, tmp_path):
        whole = self.make_pipeline()
        later = [name for name in whole._optional_components if getattr(whole, name) is not None]
        generator = self.make_generator(**dict.fromkeys(later))
        for name in later:
            setattr(generator, name, getattr(whole, name))
        generator.save_pretrained(tmp_path / "generator")
        loaded = self.generator_class.from_pretrained(tmp_path / "generator")
        assert [name for name in later if getattr(loaded, name) is None] == []

    def test_layer_by_layer_goes_plain_lora_and_no_other_adapter(self):
        for name in networks_by_name(self.make_pipeline()):
            network = getattr(generator := self.make_pipeline(), name)
            inject_adapter_in_model(LoHaConfig(r=2, target_modules=adapter_of(network).target_modules), network)
            with pytest.raises(FmriModelsError, match=rf"The {name} has an adapter .* enable_model_cpu_offload"):
                generator.enable_sequential_cpu_offload(device="cpu")
        generator = self.make_pipeline()
        for network in networks_by_name(generator).values():
            inject_adapter_in_model(adapter_of(network), network)
        expected = self.computed(generator)
        generator.enable_sequential_cpu_offload(device="cpu")
        self.assert_computes(generator, expected)


def networks_by_name(generator: ImageGenerator) -> dict[str, torch.nn.Module]:
    """Those that are sent to an accelerator and back."""
    excluded = generator._exclude_from_cpu_offload
    return {
        name: component
        for name, component in generator.components.items()
        if isinstance(component, torch.nn.Module) and name not in excluded
    }


def adapter_of(network: torch.nn.Module) -> LoraConfig:
    """A LoRA on two layers that changes what they compute."""
    names = [name for name, layer in network.named_modules() if type(layer) in (torch.nn.Linear, torch.nn.Conv2d)]
    return LoraConfig(r=2, target_modules=names[:2], init_lora_weights=False)


class GeneratorTesterMixin(DrawingGeneratorMixin):
    """Set `generator_class` and implement `make_generator`."""

    generator_class: type[LatentDiffusionGenerator]

    @pytest.fixture
    def generator(self) -> LatentDiffusionGenerator:
        return self.make_pipeline()

    def drawn(self, generator: ImageGenerator, num_images: int = 2, /, **options: Any) -> torch.Tensor:
        call = self.make_inputs(generator, num_images) | {
            "guidance_scale": 2.0,
            "num_inference_steps": NUM_STEPS,
            "generator": seeds(*range(num_images)),
            "output_type": "pt",
        }
        return generator(**(call | options)).images

    def test_what_it_gives_has_the_shape_of_its_spaces(self, generator):
        pictures = self.make_pictures(generator, 3)
        latents = generator.encode_images(pictures)
        assert latents.shape == (3, *generator.latent_space.shape) and latents.dtype == torch.float32
        if generator.image_embedding_space is not None:
            embeds = generator.embed_images(pictures)
            assert embeds.shape == (3, *generator.image_embedding_space.shape) and embeds.dtype == torch.float32
        assert self.drawn(generator).shape == (2, *generator.image_size)

    def test_embeddings_of_pictures_of_any_size(self, generator):
        if generator.image_embedding_space is None:
            with pytest.raises(FmriModelsError, match="has no image embeddings"):
                generator.embed_images(torch.rand(2, *generator.image_size))
            return
        embeds = generator.embed_images(torch.rand(2, 3, 40, 33))
        assert embeds.shape == (2, *generator.image_embedding_space.shape)
        with pytest.raises(FmriModelsError, match=r"pictures of shape \(N, 3, height, width\); got \(2, 1, 40, 33\)"):
            generator.embed_images(torch.rand(2, 1, 40, 33))

    def test_lora_on_its_cross_attention_learns(self, generator):
        latents = generator.encode_images(self.make_pictures(generator, 2))
        condition, told = next(iter(self.make_inputs(generator, 2).items()))
        embeds = told.requires_grad_()
        targets = generator.lora_targets(["cross_attention"])
        assert targets
        for name, layers in targets.items():
            getattr(generator, name).add_adapter(LoraConfig(r=2, target_modules=layers))
        loss = generator.training_loss(latents, Conditions(**{condition: embeds}), generator=seeds(0)[0])
        loss.backward()
        assert loss.dtype == torch.float32 and float(loss.detach()) > 0 and float(embeds.grad.abs().sum()) > 0
        for name, layers in targets.items():
            learning = {key for key, values in getattr(generator, name).named_parameters() if values.grad is not None}
            assert learning and all("lora" in key for key in learning) and len(learning) <= 2 * len(layers)

    def test_lora_is_saved_apart_and_put_on_its_base_again(self, generator, tmp_path):
        before = self.drawn(generator)
        GeneratorAdapter.of(with_lora(generator), is_beside_base=True).write(tmp_path / "adapter")
        expected, loaded = self.drawn(generator), self.make_pipeline()
        assert not torch.equal(before, expected)
        GeneratorAdapter.read(tmp_path / "adapter").put_on(loaded)
        torch.testing.assert_close(self.drawn(loaded), expected, atol=1e-6, rtol=0)
        with base_alone(loaded):
            loaded.save_pretrained(tmp_path / "base")
        base = self.generator_class.from_pretrained(tmp_path / "base")
        torch.testing.assert_close(self.drawn(base), before, atol=1e-5, rtol=0)

    def test_uniform_call(self):
        expected = list(inspect.signature(ImageGenerator.__call__).parameters)
        assert list(inspect.signature(self.generator_class.__call__).parameters) == expected

    def test_a_picture_does_not_depend_on_those_beside_it(self, generator):
        generator.images_a_batch, generator.images_a_pass = 2, 1
        inputs = self.make_inputs(generator, 5)
        together = self.drawn(generator, 5)
        for index in range(5):
            single = {name: values[index : index + 1] for name, values in inputs.items()}
            alone = self.drawn(generator, 1, **single, generator=seeds(index))
            torch.testing.assert_close(together[index : index + 1], alone, atol=1e-4, rtol=0)

    def test_another_generator_or_embedding_is_another_picture(self, generator):
        first = self.drawn(generator, 1)
        assert (self.drawn(generator, 1, generator=seeds(9)) - first).abs().max() > 1e-3
        other = {name: -values for name, values in self.make_inputs(generator, 1).items()}
        assert (self.drawn(generator, 1, **other) - first).abs().max() > 1e-4

    def test_saved_and_loaded_its_spaces_are_the_same(self, generator, tmp_path):
        generator.save_pretrained(tmp_path / "generator")
        loaded = self.generator_class.from_pretrained(tmp_path / "generator")
        assert loaded.image_embedding_space == generator.image_embedding_space
        assert loaded.latent_space == generator.latent_space

    def test_a_source_may_be_a_subfolder(self, generator, tmp_path):
        generator.save_pretrained(tmp_path / "repository" / "generator")
        loaded = self.generator_class.from_source(str(tmp_path / "repository"), subfolder="generator")
        torch.testing.assert_close(self.drawn(loaded), self.drawn(generator), atol=1e-5, rtol=0)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision(self, generator, dtype, tmp_path):
        generator.save_pretrained(tmp_path / "generator")
        loaded = self.generator_class.from_source(str(tmp_path / "generator"), dtype=dtype)
        networks = [each for each in loaded.components.values() if isinstance(each, torch.nn.Module)]
        assert {parameter.dtype for network in networks for parameter in network.parameters()} == {dtype}
        pictures = self.make_pictures(generator, 2)
        assert loaded.encode_images(pictures).dtype == torch.float32
        if generator.image_embedding_space is not None:
            assert loaded.embed_images(pictures).dtype == torch.float32
        expected, found = self.drawn(generator), self.drawn(loaded)
        assert found.dtype == torch.float32
        other = self.drawn(generator, generator=seeds(8, 9))
        assert (found - expected).abs().mean() < 0.1 * (other - expected).abs().mean()

    def test_an_autoencoder_in_slices_or_tiles_draws_the_same(self, generator):
        expected = self.drawn(generator)
        for name in ("slicing", "tiling"):
            if hasattr(generator.autoencoder, f"use_{name}"):
                getattr(generator.autoencoder, f"enable_{name}")()
                torch.testing.assert_close(self.drawn(generator), expected, atol=1e-4, rtol=0)

    def test_strength_0_decodes_the_start_and_1_ignores_it(self, generator):
        latents = generator.encode_images(self.make_pictures(generator, 2))
        decoded = generator(latents=latents, output_type="pt").images
        torch.testing.assert_close(self.drawn(generator, latents=latents, strength=0.0), decoded)
        torch.testing.assert_close(self.drawn(generator, latents=latents, strength=1.0), self.drawn(generator))
        between = self.drawn(generator, latents=latents, strength=0.7)
        assert (between - decoded).abs().max() > 1e-3
        assert (between - self.drawn(generator)).abs().max() > 1e-3

    def test_latents_alone_are_decoded_and_encoded_again(self, generator):
        pictures = self.make_pictures(generator, 5)
        latents = generator.encode_images(pictures)
        generator.images_a_pass = 2
        torch.testing.assert_close(generator.encode_images(pictures), latents, atol=1e-5, rtol=1e-4)
        images = generator(latents=latents, output_type="pt").images
        with torch.no_grad():
            expected = ((generator.to_pictures(latents) + 1) / 2).clamp(0, 1)
        torch.testing.assert_close(images, expected, atol=1e-5, rtol=1e-4)

    def test_latents_are_drawn_from_the_posterior_by_the_source_of_each_picture(self, generator):
        pictures, mode = self.make_pictures(generator, 2), generator.encode_images(self.make_pictures(generator, 2))
        if not generator.has_posterior:
            with pytest.raises(FmriModelsError, match="have no posterior to draw from"):
                generator.sample_latents(pictures, seeds(0, 1))
            return
        drawn = generator.sample_latents(pictures, seeds(0, 1))
        assert drawn.shape == mode.shape and (drawn - mode).abs().max() > 1e-3
        torch.testing.assert_close(generator.sample_latents(pictures[1:], seeds(1)), drawn[1:], atol=1e-5, rtol=1e-4)
        many = generator.sample_latents(pictures[:1].expand(400, -1, -1, -1), seeds(*range(400)))
        assert (many.mean(dim=0) - mode[0]).abs().mean() < 0.2 * many.std(dim=0).mean()

    def test_strength_is_the_share_of_steps_and_guidance_doubles_the_batch(self, generator):
        sizes = []
        handle = generator.network.register_forward_pre_hook(
            lambda module, args, kwargs: sizes.append(len(args[0] if args else kwargs["sample"])), with_kwargs=True
        )
        latents = generator.encode_images(self.make_pictures(generator, 2))
        self.drawn(generator, guidance_scale=1.0)
        assert sizes == [2] * NUM_STEPS
        sizes.clear()
        self.drawn(generator, guidance_scale=2.0, latents=latents, num_inference_steps=10, strength=0.35)
        assert sizes == [4] * 3
        handle.remove()

    def test_told_nothing_it_draws_anything(self, generator):
        images = generator(num_images=2, num_inference_steps=2, generator=seeds(0, 1), output_type="pt").images
        assert images.shape == (2, *generator.image_size)
        assert (images[0] - images[1]).abs().max() > 1e-4

    def test_without_its_network_it_still_gives_targets(self, generator, tmp_path):
        absent = {name: None for name in generator.components if "unet" in name}
        generator.save_pretrained(tmp_path / "whole")
        bare = self.generator_class.from_source(str(tmp_path / "whole"), **absent)
        assert bare.generates_from_embeddings is False
        assert bare.image_size == generator.image_size
        pictures = self.make_pictures(generator, 2)
        torch.testing.assert_close(bare.encode_images(pictures), generator.encode_images(pictures))
        if generator.image_embedding_space is not None:
            torch.testing.assert_close(bare.embed_images(pictures), generator.embed_images(pictures))
        assert bare(latents=bare.encode_images(pictures), output_type="pt").images.shape == pictures.shape
        with pytest.raises(FmriModelsError, match="without the network that draws from embeddings"):
            self.drawn(bare)

    def test_without_image_encoder_it_still_draws(self, generator):
        if generator.image_embedding_space is None:
            return
        bare = self.make_generator(image_encoder=None)
        bare.set_progress_bar_config(disable=True)
        assert self.drawn(bare).shape == (2, *generator.image_size)
        with pytest.raises(FmriModelsError, match="without image_encoder, which embeds pictures"):
            bare.embed_images(self.make_pictures(bare, 1))

    def test_other_shapes_are_a_sentence(self, generator):
        for name in self.make_inputs(generator, 1):
            with pytest.raises(FmriModelsError, match=rf"takes {name} of shape \(N, .*\); got \(2, 5\)"):
                generator(**{name: torch.zeros(2, 5)})
        with pytest.raises(FmriModelsError, match=r"takes latents of shape \(N, .*\); got \(2, 5, 4, 4\)"):
            generator(latents=torch.zeros(2, 5, 4, 4))
        with pytest.raises(FmriModelsError, match="takes pictures of shape"):
            generator.encode_images(torch.rand(1, 3, 9, 9))
        with pytest.raises(FmriModelsError, match="was given nothing"):
            generator()

    def test_pictures_that_are_no_tensor_are_a_sentence_that_says_how_to_make_one(self, generator):
        if generator.image_embedding_space is None:
            return
        pictures = self.make_pictures(generator, 2)
        pil = VaeImageProcessor(do_normalize=False).postprocess(pictures, "pil", [False, False])
        for each in (pil, pil[0], pictures.numpy()):
            with pytest.raises(FmriModelsError, match=r"got a .*VaeImageProcessor\(do_resize=False"):
                generator.embed_images(each)
        made = VaeImageProcessor(do_normalize=False, do_resize=False).preprocess(pil)
        torch.testing.assert_close(made, pictures, atol=1 / 255, rtol=0)

    def test_a_generator_of_noise_for_each_picture_or_one_for_all(self, generator):
        with pytest.raises(FmriModelsError, match="3 generators were given for 2 pictures"):
            self.drawn(generator, generator=seeds(0, 1, 2))
        shared = self.drawn(generator, generator=torch.Generator().manual_seed(0))
        again = self.drawn(generator, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(shared, again)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"strength": float("nan")}, "strength is nan; expected a number from 0"),
            ({"guidance_scale": -1.0}, "guidance_scale is -1.0; expected a number from 0"),
            ({"num_inference_steps": 0}, "num_inference_steps is 0; expected a whole number from 1 to 1000"),
            ({"output_type": "jpg"}, "output_type is 'jpg'"),
        ],
    )
    def test_options_out_of_range_are_a_sentence(self, generator, options, message):
        with pytest.raises(FmriModelsError, match=message):
            self.drawn(generator, **options)
