"""The denoising of a diffusion model, for whatever its network is told: where it starts, and its guided steps."""

import inspect
from collections.abc import Callable
from typing import Any

import torch

from ..conditions import Conditions
from .image_generator import Generators, ImageGenerator
from .trainable_generator import Told


def zeros_like(told: Told) -> Told:
    """What a network is told where zero stands for nothing."""
    return {name: torch.zeros_like(values) for name, values in told.items()}


def noisy_start(
    scheduler: Any,
    latents: torch.Tensor | None,
    noise: torch.Tensor,
    num_inference_steps: int,
    num_steps: int,
    start_from: Callable[[torch.Tensor], torch.Tensor] = lambda latents: latents,
    noise_one_step_later: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The noisy sample to begin with, and the timesteps that are left from there (Meng et al., 2022, SDEdit).

    Args:
        scheduler: The schedule, which is set to these steps.
        latents: (N, C, h, w) low-level picture to start from, or None.
        noise: (N, C, h, w) standard normal, on the device of the network.
        num_inference_steps: Steps of a whole picture.
        num_steps: Steps that are left to take.
        start_from: Changes the low-level picture before, where noise is added to it.
        noise_one_step_later: Add the noise of the step before the one that denoising begins with, which is later in the
            course of noise, as CompVis' code for pictures from pictures does.
    """
    scheduler.set_timesteps(num_inference_steps, device=noise.device)
    order = getattr(scheduler, "order", 1)
    first = (num_inference_steps - num_steps) * order
    timesteps = scheduler.timesteps[first:]
    _begin_at(scheduler, first)
    if latents is None or first == 0:
        return noise * scheduler.init_noise_sigma, timesteps
    noised_as = first - order if noise_one_step_later else first
    # Some schedules take the noise level of the step that they begin with, whatever timestep they are given.
    _begin_at(scheduler, noised_as)
    level = scheduler.timesteps[noised_as : noised_as + 1].expand(len(noise))
    noisy = scheduler.add_noise(start_from(latents.to(noise)), noise, level)
    _begin_at(scheduler, first)
    return noisy, timesteps


def _begin_at(scheduler: Any, index: int) -> None:
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(index)


def denoised(
    image_generator: ImageGenerator,
    start: tuple[torch.Tensor, torch.Tensor],
    conditions: Conditions,
    told: Told,
    tell: Callable[[Conditions], Told],
    nothing_like: Callable[[Told], Told],
    predict: Callable[[torch.Tensor, torch.Tensor, Told], torch.Tensor],
    generators: Generators,
) -> torch.Tensor:
    """(N, C, h, w) latents of pictures that are drawn together, after all steps, each of which a callback may change.

    Args:
        image_generator: Whose `scheduler` takes the steps.
        start: What `noisy_start` gives.
        conditions: What the pictures are drawn from.
        told: What the network is told of them; without guidance where that is nothing.
        tell: Makes the same of conditions that a callback has changed.
        nothing_like: What guidance leads away from, of the same names and shapes as what it is given.
        predict: Calls the network with a noisy sample, the timestep and what it is told; float32, with a learned
            variance of twice as many channels as the sample.
        generators: Sources of noise, for schedules that add some at every step.
    """
    (sample, timesteps), scheduler = start, image_generator.scheduler
    takes_generator = "generator" in inspect.signature(scheduler.step).parameters
    options = {"generator": generators} if takes_generator else {}
    learned_variance = scheduler.config.get("variance_type") in ("learned", "learned_range")
    is_told = not conditions.told_nothing
    joined: Told | None = None
    for step, timestep in image_generator.steps(timesteps):
        guided = is_told and image_generator.do_classifier_free_guidance
        if guided and joined is None:
            joined = _joined(nothing_like(told), told)
        asked = joined if guided and joined is not None else told
        noisy = scheduler.scale_model_input(torch.cat([sample, sample]) if guided else sample, timestep)
        predicted = predict(noisy, timestep, asked)
        if guided:
            predicted = _guide(predicted, sample.shape[1], image_generator.guidance_scale)
        if not learned_variance:
            predicted = predicted[:, : sample.shape[1]]
        sample = scheduler.step(predicted, timestep, sample, **options).prev_sample
        sample, after = image_generator.on_step_end(step, timestep, sample, conditions)
        if is_told and after is not conditions:
            told, joined = tell(after), None
        conditions = after
    return sample


def _joined(nothing: Told, told: Told) -> Told:
    """Both together, for one call of the network."""
    return {name: torch.cat([nothing[name], values]) for name, values in told.items()}


def _guide(predicted: torch.Tensor, num_channels: int, guidance_scale: float) -> torch.Tensor:
    """Classifier-free guidance of both together; a learned variance in further channels is that of the condition."""
    unconditional, conditional = predicted.chunk(2)
    guided = unconditional + guidance_scale * (conditional - unconditional)
    return torch.cat([guided[:, :num_channels], conditional[:, num_channels:]], dim=1)
