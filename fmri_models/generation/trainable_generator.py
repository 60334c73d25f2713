"""What of an image generator can learn, by which names, and the loss of a diffusion model."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from diffusers import DDPMScheduler
from torch import nn

from ..adapters import without_adapter_layers
from ..conditions import Conditions
from ..draws import drawn_by_row
from ..errors import FmriModelsError
from ..names import did_you_mean, one_line

# What a network is told, by name; the first dimension of each tensor is the picture.
Told = dict[str, torch.Tensor]
# Calls the network with a noisy sample, timesteps and what it is told; gives float32.
Predict = Callable[[torch.Tensor, torch.Tensor, Told], torch.Tensor]

# Names of parameters in the networks of diffusers. The norm before a cross-attention is trained with it (Chen et al.,
# 2023, MinD-Vis, 3.3); that of a Kandinsky reads its conditions by projections of their own.
_GROUPS: dict[str, re.Pattern[str]] = {
    "cross_attention": re.compile(r"\battn2\b|\btransformer_blocks\.\d+\.norm2\b|\badd_[kv]_proj\b"),
    "attention": re.compile(r"\battn[12]\b|\btransformer_blocks\.\d+\.norm[12]\b|\battentions\.\d+\.(?:to_|add_)"),
    "time_embedding": re.compile(r"^(?:time_embedding|class_embedding|add_embedding)\b"),
    "all": re.compile(""),
}


class TrainableGenerator:
    """The part of an image generator that says what can be trained of it; where nothing can, it is left as it is.

    A subclass that can learn names its networks and implements `network_in_training`.

    Attributes:
        learning_components: Names of the networks that can learn.
        learning_groups: Name of a group ▶ pattern that is found in a parameter's name within its network.
        target_components: Name of a target ▶ names of the components that it is computed with, which cannot be trained
            while the target is learned from.
    """

    learning_components: ClassVar[tuple[str, ...]] = ()
    learning_groups: ClassVar[Mapping[str, re.Pattern[str]]] = _GROUPS
    target_components: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    @property
    def trainable_groups(self) -> tuple[str, ...]:
        """Names of the groups of parameters that can be trained; none where the generator can't learn."""
        names = [name for name, _ in self._learning_parameters()]
        return tuple(group for group in self.learning_groups if any(self._is_in(group, n) for n in names))

    def parameters_of(self, groups: Sequence[str]) -> dict[str, nn.Parameter]:
        """Parameters of some groups, by names that begin with that of their network, such as `unet.conv_in.weight`.

        Raises:
            FmriModelsError: There is no such group.
        """
        self._check_groups(groups)
        return {
            name: parameter
            for name, parameter in self._learning_parameters()
            if any(self._is_in(group, name) for group in groups)
        }

    def lora_targets(self, groups: Sequence[str]) -> dict[str, list[str]]:
        """Name of a network ▶ names of its linear and convolutional layers in some groups, on which LoRA can go.

        Raises:
            FmriModelsError: There is no such group.
        """
        self._check_groups(groups)
        found: dict[str, list[str]] = {}
        for component, network in self._learning_networks():
            with without_adapter_layers(network):
                for name, module in network.named_modules():
                    is_layer = isinstance(module, nn.Linear | nn.Conv2d)
                    if is_layer and any(self._is_in(group, f"{component}.{name}.weight") for group in groups):
                        found.setdefault(component, []).append(name)
        return found

    def training_loss(
        self,
        latents: torch.Tensor,
        conditions: Conditions,
        timesteps: torch.Tensor | None = None,
        noise: torch.Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        """The loss by which the generator learns to draw pictures from conditions, with gradient to both.

        Args:
            latents: (N, *latent_space.shape) of the pictures, as `encode_images` gives them.
            conditions: Of the same pictures.
            timesteps: (N,) long, how noisy each is; None draws them evenly.
            noise: Like the latents, standard normal; None draws it.
            generator: Source of both; on the CPU.

        Returns:
            Scalar, float32.

        Raises:
            FmriModelsError: The generator can't learn, or takes no such conditions.
        """
        told, predict = self.network_in_training(conditions, generator)
        image_generator: Any = self
        latents = latents.to(image_generator._execution_device, torch.float32)
        return diffusion_loss(image_generator.scheduler, latents, told, predict, timesteps, noise, generator)

    def network_in_training(self, conditions: Conditions, generator: torch.Generator | None) -> tuple[Told, Predict]:
        """What the network is told of pictures that it learns from, and how it is asked; with gradient to both.

        Args:
            conditions: As a caller gave them; to be checked.
            generator: Source of what is drawn for them; on the CPU.
        """
        raise FmriModelsError(f"{type(self).__name__} has nothing that can be trained; choose a diffusion model.")

    def _learning_networks(self) -> Iterable[tuple[str, nn.Module]]:
        for name in self.learning_components:
            network = getattr(self, name, None)
            if isinstance(network, nn.Module):
                yield name, network

    def _learning_parameters(self) -> Iterable[tuple[str, nn.Parameter]]:
        """The networks' own parameters, under their own names, whether or not an adapter is on them."""
        for component, network in self._learning_networks():
            with without_adapter_layers(network):
                own = list(network.named_parameters())
            yield from ((f"{component}.{name}", parameter) for name, parameter in own)

    def _is_in(self, group: str, name: str) -> bool:
        return self.learning_groups[group].search(name.split(".", 1)[1]) is not None

    def _check_groups(self, groups: Sequence[str]) -> None:
        known = self.trainable_groups
        for group in groups:
            if group not in known:
                have = f"it has {', '.join(known)}" if known else "nothing of it can be trained"
                raise FmriModelsError(
                    f"{type(self).__name__} has no group of parameters {one_line(repr(group), 80)}; {have}."
                    f"{did_you_mean(str(group), known)}"
                )


def diffusion_loss(
    scheduler: Any,
    latents: torch.Tensor,
    told: Told,
    predict: Predict,
    timesteps: torch.Tensor | None,
    noise: torch.Tensor | None,
    generator: torch.Generator | None,
) -> torch.Tensor:
    """Mean squared error of what a network says of noisy latents (Ho et al., 2020, equation 14).

    Args:
        scheduler: Whose configuration has the noise levels, and what the network predicts.
        latents: (N, C, h, w) float32, on the network's device.
        told: What the network is told of each.
        predict: Called with noisy latents, timesteps (N,) and what is told; gives float32.
        timesteps: (N,) long; None draws them.
        noise: (N, C, h, w); None draws it.
        generator: Source of both; on the CPU.
    """
    schedule = DDPMScheduler.from_config(scheduler.config)
    if timesteps is None:
        timesteps = drawn_by_row(
            partial(torch.randint, 0, schedule.config.num_train_timesteps), (len(latents),), generator
        )
    if noise is None:
        noise = drawn_by_row(torch.randn, latents.shape, generator)
    timesteps, noise = timesteps.to(latents.device), noise.to(latents)
    predicted = predict(schedule.add_noise(latents, noise, timesteps), timesteps, told)
    wanted = {"epsilon": noise, "sample": latents}.get(schedule.config.prediction_type)
    if wanted is None:
        wanted = schedule.get_velocity(latents, noise, timesteps)
    # A learned variance is in further channels, and is not trained here.
    return nn.functional.mse_loss(predicted[:, : latents.shape[1]].float(), wanted)
