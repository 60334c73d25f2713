"""What generators with a latent diffusion model share: chunks, noise, schedules, sources."""

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    EulerAncestralDiscreteScheduler,
    HeunDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)

from fmri_models.embedding_space import stable_diffusion_latent_space
from fmri_models.errors import FmriModelsError
from fmri_models.generation.pixels import PixelsImageGenerator
from fmri_models.generation.stable_unclip import StableUnCLIPImageGenerator
from tests.generation.generator_common import seeds
from tests.generation.test_stable_unclip import WIDTH, tiny_components


def tiny_generator(scheduler=DDIMScheduler, **options):
    components = tiny_components()
    schedule = scheduler.from_config(components["scheduler"].config)
    generator = StableUnCLIPImageGenerator(**(components | {"scheduler": schedule} | options))
    generator.set_progress_bar_config(disable=True)
    return generator


def embeds_of(num_images):
    return torch.randn(num_images, WIDTH, generator=torch.Generator().manual_seed(0))


def drawn(image_generator, image_embeds, **options):
    call = {"guidance_scale": 3.0, "num_inference_steps": 4, "output_type": "pt"}
    return image_generator(image_embeds=image_embeds, **(call | options)).images


def batch_sizes(network):
    """Batch sizes of a network's calls from now on."""
    sizes: list[int] = []
    network.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    return sizes


@pytest.mark.parametrize(
    "scheduler", [DDIMScheduler, DDPMScheduler, EulerAncestralDiscreteScheduler, UniPCMultistepScheduler]
)
@pytest.mark.parametrize("from_start", [False, True])
def test_with_its_own_generator_a_picture_is_the_same_in_any_batch(scheduler, from_start):
    generator = tiny_generator(scheduler)
    image_embeds = embeds_of(3)
    start = {"strength": 0.5} if from_start else {}
    latents = generator.encode_images(torch.rand(3, 3, 16, 16)) if from_start else None
    together = drawn(generator, image_embeds, generator=seeds(0, 1, 2), latents=latents, **start)
    generator.images_a_batch = 1
    one_by_one = drawn(generator, image_embeds, generator=seeds(0, 1, 2), latents=latents, **start)
    torch.testing.assert_close(together, one_by_one, atol=1e-4, rtol=0)


def test_candidates_of_one_generator_do_not_depend_on_the_chunks():
    generator = tiny_generator()
    image_embeds = embeds_of(1).expand(5, -1)
    together = drawn(generator, image_embeds, generator=torch.Generator().manual_seed(0))
    generator.images_a_batch = 2
    in_chunks = drawn(generator, image_embeds, generator=seeds(0) * 5)
    torch.testing.assert_close(together, in_chunks, atol=1e-4, rtol=0)
    assert (together[0] - together[1]).abs().max() > 1e-3


def test_networks_see_no_more_pictures_than_their_chunks():
    generator = tiny_generator()
    generator.images_a_batch, generator.images_a_pass = 3, 2
    unet, decoder = batch_sizes(generator.unet), batch_sizes(generator.vae.decoder)
    encoder = batch_sizes(generator.vae.encoder)
    drawn(generator, embeds_of(7), num_inference_steps=1)
    generator.encode_images(torch.rand(5, 3, 16, 16))
    assert unet == [6, 6, 2]
    assert decoder == [2, 1, 2, 1, 1]
    assert encoder == [2, 2, 1]


@pytest.mark.parametrize(
    ("scheduler", "strength", "calls"),
    [
        (DDIMScheduler, 1.0, 10),
        (DDIMScheduler, 0.75, 7),
        (DDIMScheduler, 0.05, 0),
        # Of second order, two calls a step but for the last one.
        (HeunDiscreteScheduler, 1.0, 19),
        (HeunDiscreteScheduler, 0.5, 9),
        # Its first step is made of two calls.
        (PNDMScheduler, 1.0, 11),
    ],
)
def test_strength_is_the_share_of_the_steps(scheduler, strength, calls):
    generator = tiny_generator()
    generator.scheduler = scheduler.from_config(generator.scheduler.config, skip_prk_steps=True)
    sizes = batch_sizes(generator.unet)
    latents = generator.encode_images(torch.rand(1, 3, 16, 16))
    drawn(generator, embeds_of(1), latents=latents, strength=strength, num_inference_steps=10, guidance_scale=1.0)
    assert sizes == [1] * calls


def test_a_start_is_closer_to_its_picture_the_weaker_it_is_replaced():
    generator = tiny_generator()
    latents = generator.encode_images(torch.rand(4, 3, 16, 16))
    start = generator(latents=latents, output_type="pt").images
    distances = [
        (drawn(generator, embeds_of(4), latents=latents, strength=s, num_inference_steps=20) - start).abs().mean()
        for s in (0.0, 0.1, 0.3, 0.6)
    ]
    assert distances == sorted(distances)
    assert distances[0] == 0


def test_guidance_moves_away_from_the_unconditional_prediction():
    generator = tiny_generator()
    image_embeds = embeds_of(1)
    without, once, twice = (
        drawn(generator, image_embeds, num_inference_steps=1, guidance_scale=scale, generator=seeds(0))
        for scale in (0.0, 1.0, 2.0)
    )
    told_nothing = generator(num_images=1, num_inference_steps=1, generator=seeds(0), output_type="pt").images
    torch.testing.assert_close(without, told_nothing, atol=1e-5, rtol=0)
    assert (twice - without).norm() > (once - without).norm()


def test_a_caller_keeps_components_and_inputs_as_they_were():
    generator = tiny_generator()
    image_embeds, latents = embeds_of(2), torch.randn(2, *generator.latent_space.shape)
    copies = image_embeds.clone(), latents.clone()
    weights = {name: value.clone() for name, value in generator.unet.state_dict().items()}
    drawn(generator, image_embeds, latents=latents, strength=0.5)
    assert torch.equal(image_embeds, copies[0])
    assert torch.equal(latents, copies[1])
    assert all(torch.equal(value, weights[name]) for name, value in generator.unet.state_dict().items())


def test_the_latent_space_of_the_published_autoencoder_is_stable_diffusions():
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4}
    vae = AutoencoderKL(block_out_channels=(8, 8, 8, 8), norm_num_groups=4, latent_channels=4, **blocks)
    generator = tiny_generator(vae=vae, image_side=512)
    assert generator.latent_space == stable_diffusion_latent_space(512)


def test_a_generator_without_published_weights_says_so():
    with pytest.raises(FmriModelsError, match="PixelsImageGenerator has no published weights; pass repository="):
        PixelsImageGenerator.from_source()
