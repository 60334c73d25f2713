"""What of a generator learns, by which names, and the loss by which it does."""

import pytest
import torch
from peft import LoraConfig

from fmri_models.conditions import Conditions
from fmri_models.errors import FmriModelsError
from fmri_models.generation.embedded import EmbeddedImageGenerator
from fmri_models.generation.pixels import PixelsImageGenerator


@pytest.fixture
def embedded():
    return EmbeddedImageGenerator.from_assets()


def learned(generator, number, seed=0):
    source = torch.Generator().manual_seed(seed)
    hidden = torch.randn(number, *generator.encoder_hidden_states_space.shape, generator=source)
    return Conditions(encoder_hidden_states=hidden, time_embeds=hidden[:, 0].clone())


def latents_of(generator, number):
    return torch.randn(number, *generator.latent_space.shape, generator=torch.Generator().manual_seed(1))


def test_groups_are_named_by_what_they_are(embedded):
    assert {"cross_attention", "attention", "time_embedding", "all"} >= set(embedded.trainable_groups)
    every, cross = embedded.parameters_of(["all"]), embedded.parameters_of(["cross_attention"])
    assert len(every) == len(list(embedded.unet.parameters()))
    assert 0 < len(cross) < len(every) and cross.keys() < every.keys()
    assert all("attn2" in name or "norm2" in name for name in cross)
    assert not any("resnets" in name for name in cross)
    assert set(embedded.parameters_of([])) == set()


def test_an_unknown_group_is_named_with_those_that_there_are(embedded):
    with pytest.raises(FmriModelsError, match=r"no group of parameters 'cross_atention'; it has .*cross_attention"):
        embedded.parameters_of(["cross_atention"])
    with pytest.raises(FmriModelsError, match="nothing of it can be trained"):
        PixelsImageGenerator().parameters_of(["all"])
    with pytest.raises(FmriModelsError, match="has nothing that can be trained"):
        PixelsImageGenerator().training_loss(torch.zeros(1, 1, 28, 28), Conditions())


def test_the_loss_is_the_mean_squared_error_of_what_the_network_predicts(embedded):
    conditions, latents = learned(embedded, 3), latents_of(embedded, 3)
    timesteps, noise = torch.tensor([10, 500, 990]), torch.randn(latents.shape)
    loss = embedded.training_loss(latents, conditions, timesteps=timesteps, noise=noise)
    alphas = embedded.scheduler.alphas_cumprod[timesteps][:, None, None, None]
    noisy = alphas.sqrt() * latents + (1 - alphas).sqrt() * noise
    tokens, pooled = embedded.condition(conditions)
    predicted = embedded.unet(noisy, timesteps, encoder_hidden_states=tokens, class_labels=pooled).sample
    velocity = alphas.sqrt() * noise - (1 - alphas).sqrt() * latents
    wanted = {"v_prediction": velocity, "epsilon": noise, "sample": latents}[embedded.scheduler.config.prediction_type]
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, (predicted - wanted).square().mean())


def test_draws_of_the_loss_come_from_its_generator(embedded):
    conditions, latents = learned(embedded, 4), latents_of(embedded, 4)
    first, again, other = (
        embedded.training_loss(latents, conditions, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_the_gradient_reaches_conditions_and_network(embedded):
    conditions, latents = learned(embedded, 2), latents_of(embedded, 2)
    embedded.unet.requires_grad_(False)
    cross = embedded.parameters_of(["cross_attention"])
    for parameter in cross.values():
        parameter.requires_grad_(True)
    conditions.encoder_hidden_states.requires_grad_(True)
    conditions.time_embeds.requires_grad_(True)
    embedded.training_loss(latents, conditions, generator=torch.Generator().manual_seed(0)).backward()
    assert conditions.encoder_hidden_states.grad.abs().sum() > 0 and conditions.time_embeds.grad.abs().sum() > 0
    assert all(parameter.grad is not None for parameter in cross.values())
    assert embedded.unet.conv_in.weight.grad is None


def test_lora_goes_on_the_layers_of_a_group(embedded):
    targets = embedded.lora_targets(["cross_attention"])
    assert list(targets) == ["unet"] and all("attn2" in name for name in targets["unet"])
    embedded.unet.requires_grad_(False)
    embedded.unet.add_adapter(LoraConfig(r=2, target_modules=targets["unet"]))
    embedded.training_loss(latents_of(embedded, 2), learned(embedded, 2)).backward()
    trained = [name for name, parameter in embedded.unet.named_parameters() if parameter.grad is not None]
    assert len(trained) == 2 * len(targets["unet"]) and all("lora" in name for name in trained)


def test_learned_conditions_draw_and_are_checked(embedded):
    conditions = learned(embedded, 2)
    given = {"encoder_hidden_states": conditions.encoder_hidden_states, "time_embeds": conditions.time_embeds}
    options = {"num_inference_steps": 2, "output_type": "pt"}

    def sources():
        return [torch.Generator().manual_seed(seed) for seed in (0, 1)]

    drawn = embedded(**given, **options, generator=sources()).images
    alone = embedded(**{name: each[:1] for name, each in given.items()}, **options, generator=sources()[:1]).images
    torch.testing.assert_close(drawn[:1], alone, atol=1e-4, rtol=0)
    assert not torch.allclose(drawn, embedded(num_images=2, **options, generator=sources()).images)
    with pytest.raises(FmriModelsError, match="takes time_embeds of shape"):
        embedded(time_embeds=torch.zeros(2, 3), **options)
    with pytest.raises(FmriModelsError, match="takes no control"):
        embedded(control=torch.zeros(2, 3, 4, 4), **options)
