"""MinD-Vis' latent diffusion model: parity, drawing, storing and learning."""

import json
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, UNet2DConditionModel, VQModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from peft import LoraConfig
from safetensors.torch import load_file

from fmri_models.conditions import Conditions
from fmri_models.errors import FmriModelsError
from fmri_models.generation.double_conditioned import DoubleConditionedImageGenerator
from fmri_models.generation.double_conditioned_original import (
    unet_configuration,
    unet_from_original,
    vae_configuration,
    vae_from_original,
)
from fmri_models.generation.image_generator import ImageGenerator
from fmri_models.generation.loading import load_image_generator
from tests.generation.generator_common import DrawingGeneratorMixin, randomised

FIXTURES = Path(os.environ.get("FMRI_MODELS_TEST_DATA", "")) / "fixtures" / "mindvis"
needs_fixtures = pytest.mark.skipif(not FIXTURES.is_dir(), reason="needs the fixtures of MinD-Vis")


def small(**options):
    return DoubleConditionedImageGenerator.for_stimuli((1, 8, 8), block_out_channels=[8, 16], **options)


def conditions_of(generator, number, seed=0):
    source = torch.Generator().manual_seed(seed)
    spaces = generator.learned_condition_spaces
    values = {
        name.removesuffix("_space"): torch.randn(number, *s.shape, generator=source) for name, s in spaces.items()
    }
    return Conditions(**values)


def fixture(name, prefix):
    values = load_file(FIXTURES / f"{name}.safetensors")
    state = {prefix + key[3:]: tensor.float() for key, tensor in values.items() if key.startswith("sd.")}
    return state, values


@needs_fixtures
def test_the_unet_predicts_what_the_original_predicts():
    state, values = fixture("mindvis_unet_globalpool_false", "model.diffusion_model.")
    unet = unet_from_original(state, sample_size=8)
    with torch.no_grad():
        predicted = unet(
            values["in.latent"], values["in.t"], values["in.context"], class_labels=values["out.time_cond"]
        ).sample
    torch.testing.assert_close(predicted, values["out.eps"], atol=1e-4, rtol=0)


@needs_fixtures
def test_the_autoencoder_encodes_and_decodes_as_the_original():
    state, values = fixture("mindvis_vq_f4", "first_stage_model.")
    vae = vae_from_original(state)
    unet = small().unet
    unet.register_to_config(sample_size=8)
    generator = DoubleConditionedImageGenerator(unet, vae=vae)
    pictures = values["in.image"]
    with torch.no_grad():
        latents = vae.encode(pictures).latents
        _, _, (_, _, codes) = vae.quantize(latents)
        decoded = 2 * generator.to_images(values["out.latent"]) - 1
    torch.testing.assert_close(latents, values["out.latent"], atol=5e-5, rtol=0)
    assert torch.equal(codes, values["out.codes"])
    torch.testing.assert_close(decoded, values["out.decoded"], atol=5e-5, rtol=0)
    encoded = generator.encode_images((pictures.clamp(-1, 1) + 1) / 2)
    assert generator.image_size == (3, 32, 32) and encoded.shape[1:] == generator.latent_space.shape


@needs_fixtures
def test_sizes_and_keys_of_the_published_weights_are_known():
    keymap = json.loads((FIXTURES / "mindvis_ldm_keymap.json").read_text())
    for half, prefix, configuration, converter, network_class in (
        ("unet", "model.diffusion_model.", unet_configuration, convert_ldm_unet_checkpoint, UNet2DConditionModel),
        ("vq", "first_stage_model.", vae_configuration, convert_ldm_vae_checkpoint, VQModel),
    ):
        own = {
            prefix + old.removeprefix(prefix): torch.empty(shape, device="meta")
            for old, (shape, new) in keymap[f"{half}_keys"].items()
            if new is not None
        }
        config, published = configuration(own), keymap[f"{half}_config_diffusers"]
        for name in config.keys() & published.keys():
            assert json.loads(json.dumps(config[name])) == published[name], name
        with torch.device("meta"):
            expected = network_class(**config).state_dict()
        converted = converter(dict(own), {**config, "class_embed_type": None})
        assert {*converted} | {"quantize.embedding.weight"} == {*expected} | {"quantize.embedding.weight"}
        assert all(expected[name].shape == values.shape for name, values in converted.items())


@needs_fixtures
def test_both_halves_make_a_generator_and_what_is_wrong_is_named(tmp_path):
    unet_state, values = fixture("mindvis_unet_globalpool_false", "model.diffusion_model.")
    vae_state, _ = fixture("mindvis_vq_f4", "first_stage_model.")
    state = {**unet_state, **vae_state, "cond_stage_model.dim_mapper.bias": torch.zeros(3)}
    generator = DoubleConditionedImageGenerator.from_original(state, sample_size=8)
    assert generator.encoder_hidden_states_space.shape == (77, 24) and generator.time_embeds_space.shape == (128,)
    again = DoubleConditionedImageGenerator.from_original(state, sample_size=8, unet=generator.unet)
    assert again.latent_space == generator.latent_space and again.latent_space.revision is not None
    drawn = generator(
        encoder_hidden_states=values["in.context"],
        time_embeds=values["out.time_cond"],
        num_inference_steps=3,
        output_type="pt",
    ).images
    assert drawn.shape == (2, 3, 32, 32)
    generator.save_pretrained(tmp_path / "saved")
    loaded = ImageGenerator.from_pretrained(tmp_path / "saved")
    assert loaded.latent_space == generator.latent_space
    latents = generator.encode_images(drawn)
    assert torch.equal(loaded.encode_images(drawn), latents)
    assert torch.equal(
        loaded(latents=latents, output_type="pt").images, generator(latents=latents, output_type="pt").images
    )
    name = "model.diffusion_model.middle_block.0.in_layers.2.weight"
    with pytest.raises(FmriModelsError, match=r"lacks .*in_layers|lacks .*mid_block"):
        unet_from_original({key: value for key, value in unet_state.items() if key != name}, 8)
    with pytest.raises(FmriModelsError, match=r"has model.diffusion_model.strange, which is not known"):
        unet_from_original({**unet_state, "model.diffusion_model.strange": torch.zeros(2)}, 8)
    with pytest.raises(FmriModelsError, match="of the checkpoint.s UNet has .* NaN or infinite"):
        unet_from_original({**unet_state, name: unet_state[name] * float("nan")}, 8)
    with pytest.raises(FmriModelsError, match="so it holds no autoencoder of MinD-Vis"):
        vae_from_original(unet_state)


def test_plms_calls_the_network_at_the_times_of_the_original():
    generator = small()
    generator.scheduler.set_timesteps(250)
    times = generator.scheduler.timesteps.tolist()
    assert len(times) == 251 and sorted(set(times)) == list(range(1, 1000, 4))


def test_a_start_picture_keeps_as_many_steps_as_strength_says():
    generator, times = small(), []
    conditions = conditions_of(generator, 1)
    generator(
        **conditions.given,
        latents=torch.zeros(1, 1, 8, 8),
        strength=0.5,
        num_inference_steps=10,
        callback_on_step_end=lambda _, step, time, tensors: times.append(int(time)) or tensors,
        output_type="pt",
    )
    assert times == [401, 301, 301, 201, 101, 1]


@pytest.mark.parametrize("scheduler", [None, DDIMScheduler, EulerDiscreteScheduler])
def test_several_samples_in_one_batch_are_those_one_at_a_time(scheduler):
    generator = small()
    if scheduler is not None:
        generator.scheduler = scheduler.from_config(generator.scheduler.config)
    conditions = conditions_of(generator, 1).repeated(1, 3)
    settings = {"num_inference_steps": 4, "guidance_scale": 1.5, "output_type": "pt"}
    sources = [torch.Generator().manual_seed(seed) for seed in range(3)]
    together = generator(**conditions.given, generator=sources, **settings).images
    alone = [
        generator(**conditions[i : i + 1].given, generator=torch.Generator().manual_seed(i), **settings).images
        for i in range(3)
    ]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-4, rtol=0)
    assert not torch.equal(together[0], together[1])


@pytest.mark.parametrize("time_conditioning", [True, False])
def test_a_saved_one_draws_the_same(tmp_path, time_conditioning):
    generator = small(time_conditioning=time_conditioning, num_context_tokens=1)
    generator.register_to_config(condition_revision="abc")
    generator.save_pretrained(tmp_path / "saved")
    loaded = ImageGenerator.from_pretrained(tmp_path / "saved")
    assert type(loaded) is DoubleConditionedImageGenerator
    assert loaded.condition_spaces == generator.condition_spaces
    assert loaded.encoder_hidden_states_space.revision == "abc"
    assert (loaded.time_embeds_space is None) is not time_conditioning
    given = conditions_of(generator, 2).given
    first, second = (
        each(**given, generator=torch.Generator().manual_seed(0), num_inference_steps=2, output_type="pt").images
        for each in (generator, loaded)
    )
    assert torch.equal(first, second)


def test_a_recipe_makes_one_of_the_size_of_the_stimuli():
    recipe = {"name": "double_conditioned", "options": {"block_out_channels": [8, 16], "context_dim": 12, "seed": 3}}
    first, second = (load_image_generator(recipe, (1, 28, 28)) for _ in range(2))
    assert first.image_size == (1, 28, 28) and first.encoder_hidden_states_space.shape == (8, 12)
    assert all(torch.equal(a, b) for a, b in zip(first.unet.parameters(), second.unet.parameters(), strict=True))
    pictures = torch.rand(2, 1, 28, 28)
    torch.testing.assert_close(first.to_images(first.encode_images(pictures)), pictures)
    with pytest.raises(FmriModelsError, match="block_out_channels"):
        load_image_generator({**recipe, "options": {"block_out_channels": [7]}}, (1, 28, 28))


def test_the_gradient_of_the_loss_is_that_of_finite_differences():
    generator = small(context_dim=4, num_context_tokens=2)
    generator.unet.double()
    conditions, latents = conditions_of(generator, 2), torch.randn(2, 1, 8, 8)
    hidden = conditions.encoder_hidden_states.double().requires_grad_()
    times, noise = torch.tensor([100, 900]), torch.randn(2, 1, 8, 8)

    def loss(values):
        told = Conditions(encoder_hidden_states=values, time_embeds=conditions.time_embeds.double())
        return generator.training_loss(latents, told, timesteps=times, noise=noise)

    gradient = torch.autograd.grad(loss(hidden), hidden)[0]
    direction = gradient / gradient.norm()
    with torch.no_grad():
        difference = (loss(hidden + direction) - loss(hidden - direction)) / 2
    assert float(difference) == pytest.approx(float(gradient.norm()), rel=0.1)


def test_lora_goes_on_the_cross_attention_alone():
    generator = small()
    targets = generator.lora_targets(["cross_attention"])["unet"]
    assert targets and all("attn2" in name for name in targets)
    generator.unet.add_adapter(LoraConfig(r=2, target_modules=targets))
    generator.training_loss(torch.randn(2, 1, 8, 8), conditions_of(generator, 2)).backward()
    trained = {name for name, values in generator.unet.named_parameters() if values.grad is not None}
    assert trained and all("lora" in name for name in trained)


def test_another_schedule_and_precision_are_kept_too(tmp_path):
    generator = small(scheduler="ddim", prediction_type="v_prediction")
    generator.save_pretrained(tmp_path / "saved")
    loaded = ImageGenerator.from_pretrained(tmp_path / "saved", dtype=torch.bfloat16)
    assert type(loaded.scheduler) is DDIMScheduler and loaded.scheduler.config.prediction_type == "v_prediction"
    drawn = loaded(**conditions_of(generator, 2).given, num_inference_steps=2, output_type="pt").images
    assert drawn.shape == (2, 1, 8, 8) and bool(drawn.isfinite().all())


def test_a_start_picture_without_conditions_is_decoded_as_it_is():
    generator, pictures = small(), torch.rand(2, 1, 8, 8)
    drawn = generator(latents=generator.encode_images(pictures), output_type="pt").images
    torch.testing.assert_close(drawn, pictures)


def test_what_is_absent_is_zero_and_a_callback_sees_what_is_there():
    generator, seen = small(), []
    hidden = conditions_of(generator, 1).encoder_hidden_states
    width = generator.time_embeds_space.shape[0]
    settings = {"num_inference_steps": 2, "output_type": "pt"}

    def look(_, step, timestep, tensors):
        seen.append(sorted(tensors))
        return tensors

    first = generator(
        encoder_hidden_states=hidden,
        generator=torch.Generator().manual_seed(0),
        callback_on_step_end=look,
        callback_on_step_end_tensor_inputs=["latents", "encoder_hidden_states"],
        **settings,
    ).images
    zeros = torch.zeros(1, width)
    second = generator(
        encoder_hidden_states=hidden, time_embeds=zeros, generator=torch.Generator().manual_seed(0), **settings
    ).images
    assert torch.equal(first, second)
    assert seen == [["encoder_hidden_states", "latents"]] * 3
    with pytest.raises(FmriModelsError, match="takes no image_embeds"):
        generator(image_embeds=torch.zeros(1, 3))


def test_plms_from_a_start_picture_ends_where_a_perfect_network_says():
    """All pictures are one picture, so that the noise in a noisy one is known."""
    generator, picture = small(), torch.full((1, 1, 8, 8), 0.3)
    alphas = generator.scheduler.alphas_cumprod

    def known(noisy, timestep, told):
        alpha = alphas[int(timestep)]
        return (noisy - alpha.sqrt() * picture) / (1 - alpha).sqrt()

    generator._predicted = known
    drawn = generator(
        **conditions_of(generator, 1).given,
        latents=picture,
        strength=0.5,
        num_inference_steps=20,
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
    ).images
    torch.testing.assert_close(drawn, picture, atol=0.15, rtol=0)


@needs_fixtures
@pytest.mark.parametrize("name", ["Config_Generative_Model", "Config_MBM_fMRI"])
def test_a_checkpoint_is_read_without_running_its_configuration(tmp_path, monkeypatch, name):
    unet_state, _ = fixture("mindvis_unet_globalpool_false", "model.diffusion_model.")
    vae_state, _ = fixture("mindvis_vq_f4", "first_stage_model.")
    state = {**unet_state, **vae_state}
    module = ModuleType("config")
    config_class = type(name, (), {"__module__": "config"})
    setattr(module, name, config_class)
    monkeypatch.setitem(sys.modules, "config", module)
    config = config_class()
    config.patch_size, config.roi = 16, "VC"
    file = tmp_path / "finetuned.pth"
    torch.save({"model_state_dict": state, "config": config, "state": torch.get_rng_state()}, file)
    monkeypatch.delitem(sys.modules, "config")
    read = DoubleConditionedImageGenerator.from_original(file, sample_size=8)
    given = DoubleConditionedImageGenerator.from_original(state, sample_size=8)
    for one, other in zip(read.unet.parameters(), given.unet.parameters(), strict=True):
        assert torch.equal(one, other)


class TestDoubleConditionedImageGenerator(DrawingGeneratorMixin):
    generator_class = DoubleConditionedImageGenerator

    def make_generator(self, **options):
        made = DoubleConditionedImageGenerator.for_stimuli(
            (3, 8, 8), block_out_channels=[8, 16], context_dim=8, attention_heads=2
        )
        torch.manual_seed(3)
        vae = VQModel(
            block_out_channels=(8, 16),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=3,
            norm_num_groups=4,
            num_vq_embeddings=16,
            vq_embed_dim=3,
            scaling_factor=1.0,
        ).eval()
        components = {"unet": randomised(made.unet), "scheduler": made.scheduler, "vae": vae}
        return DoubleConditionedImageGenerator(**(components | {"num_context_tokens": 4} | options))

    def make_inputs(self, generator, num_images):
        source = torch.Generator().manual_seed(6)
        hidden = torch.randn(num_images, *generator.encoder_hidden_states_space.shape, generator=source)
        times = torch.randn(num_images, *generator.time_embeds_space.shape, generator=source)
        return {"encoder_hidden_states": hidden, "time_embeds": times}

    def computed(self, pipeline):
        return {
            "pictures": self.drawn_by(pipeline),
            "latents": pipeline.encode_images(self.make_pictures(pipeline, 2)),
        }
