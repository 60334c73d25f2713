"""The cosine noise schedule of the diffusion prior, with the two ways to sample that MindEye and MindEye2 use.

diffusers' schedulers come close, but not to the number: the original's DDIM reads its alphas from a table that is
shifted by one step against the noise estimate.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from diffusers import ConfigMixin, SchedulerMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput

from ..errors import FmriModelsError

# Nichol & Dhariwal (2021), equation 17 and the paragraph after it.
_OFFSET = 0.008
_LARGEST_BETA = 0.999


@dataclass
class PriorSchedulerOutput(BaseOutput):
    """Output of a step.

    Args:
        prev_sample: The sample with less noise.
    """

    prev_sample: torch.Tensor


class CosinePriorScheduler(SchedulerMixin, ConfigMixin):
    """Noise schedule for a network that predicts the clean sample.

    With as many inference steps as the schedule has, sampling is ancestral (Ho et al., 2020); with fewer, it is DDIM
    (Song et al., 2021) with eta 1.

    Args:
        num_train_timesteps: Number of noise levels.
    """

    order = 1

    @register_to_config
    def __init__(self, num_train_timesteps: int = 100) -> None:
        # numpy, because models are built on torch's meta device, where tensors have no values.
        times = np.arange(num_train_timesteps + 1, dtype=np.float64) / num_train_timesteps
        kept = np.cos((times + _OFFSET) / (1 + _OFFSET) * np.pi / 2) ** 2
        betas = np.clip(1 - kept[1:] / kept[:-1], 0, _LARGEST_BETA)
        alphas_cumprod = np.cumprod(1 - betas)
        alphas_cumprod_prev = np.concatenate([[1.0], alphas_cumprod[:-1]])
        posterior_variance = betas * (1 - alphas_cumprod_prev) / (1 - alphas_cumprod)
        self.betas = _table(betas)
        self.alphas_cumprod = _table(alphas_cumprod)
        self.alphas_cumprod_prev = _table(alphas_cumprod_prev)
        self.sqrt_alphas_cumprod = _table(np.sqrt(alphas_cumprod))
        self.sqrt_one_minus_alphas_cumprod = _table(np.sqrt(1 - alphas_cumprod))
        self.sqrt_recip_alphas_cumprod = _table(np.sqrt(1 / alphas_cumprod))
        self.sqrt_recipm1_alphas_cumprod = _table(np.sqrt(1 / alphas_cumprod - 1))
        self.posterior_variance = _table(posterior_variance)
        self.posterior_log_variance_clipped = _table(np.log(np.maximum(posterior_variance, 1e-20)))
        self.posterior_mean_coef1 = _table(betas * np.sqrt(alphas_cumprod_prev) / (1 - alphas_cumprod))
        self.posterior_mean_coef2 = _table((1 - alphas_cumprod_prev) * np.sqrt(1 - betas) / (1 - alphas_cumprod))
        self.set_timesteps(num_train_timesteps)

    def set_timesteps(self, num_inference_steps: int) -> None:
        """Chooses the noise levels that sampling visits.

        Fewer than all, N, visit N - 1 levels below the noisiest one, as published; the last step leads to the clean
        sample.

        Args:
            num_inference_steps: From 2 to `num_train_timesteps`; the latter is ancestral sampling.

        Raises:
            FmriModelsError: Out of range.
        """
        total = self.config.num_train_timesteps
        if not 2 <= num_inference_steps <= total:
            raise FmriModelsError(
                f"The prior was asked for {num_inference_steps} inference steps; expected 2 to {total}, the length of "
                "its noise schedule."
            )
        self.is_ancestral = num_inference_steps == total
        if self.is_ancestral:
            visited = np.arange(total)
        else:
            # torch's, whose rounding in float32 decides where a level lies on a whole number.
            visited = torch.linspace(-1, total, num_inference_steps + 1, device="cpu")[1:-1].int().numpy()
        self.timesteps: list[int] = visited[::-1].tolist()
        self._next = dict(pairwise(self.timesteps))

    def needs_noise(self, timestep: int) -> bool:
        """Whether the step from `timestep` adds noise; those that lead to level 0 or to the clean sample add none."""
        return (timestep if self.is_ancestral else self._next.get(timestep, 0)) > 0

    def add_noise(self, original: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Noisy samples.

        Args:
            original: (B, …) clean samples.
            noise: (B, …) standard normal.
            timesteps: (B,) long.
        """
        signal = self._rows(self.sqrt_alphas_cumprod, timesteps, original)
        return signal * original + self._rows(self.sqrt_one_minus_alphas_cumprod, timesteps, original) * noise

    def step(
        self, predicted: torch.Tensor, timestep: int, sample: torch.Tensor, noise: torch.Tensor | None = None
    ) -> PriorSchedulerOutput:
        """Goes to the next noise level.

        Args:
            predicted: (B, …) the clean sample as the network predicts it.
            timestep: One of `timesteps`.
            sample: (B, …) the noisy sample.
            noise: (B, …) standard normal, for the steps that need it.
        """
        if self.is_ancestral:
            return PriorSchedulerOutput(self._ancestral_step(predicted, timestep, sample, noise))
        return PriorSchedulerOutput(self._implicit_step(predicted, timestep, sample, noise))

    def _ancestral_step(
        self, predicted: torch.Tensor, timestep: int, sample: torch.Tensor, noise: torch.Tensor | None
    ) -> torch.Tensor:
        mean = (
            float(self.posterior_mean_coef1[timestep]) * predicted + float(self.posterior_mean_coef2[timestep]) * sample
        )
        if noise is None or not self.needs_noise(timestep):
            return mean
        return mean + float(np.exp(0.5 * self.posterior_log_variance_clipped[timestep])) * noise

    def _implicit_step(
        self, predicted: torch.Tensor, timestep: int, sample: torch.Tensor, noise: torch.Tensor | None
    ) -> torch.Tensor:
        if timestep not in self._next:
            return predicted
        following = self._next[timestep]
        estimate = (float(self.sqrt_recip_alphas_cumprod[timestep]) * sample - predicted) / float(
            self.sqrt_recipm1_alphas_cumprod[timestep]
        )
        alpha, next_alpha = float(self.alphas_cumprod_prev[timestep]), float(self.alphas_cumprod_prev[following])
        new_noise = np.sqrt((1 - alpha / next_alpha) * (1 - next_alpha) / (1 - alpha))
        old_noise = np.sqrt(max((1 - next_alpha) - new_noise**2, 0.0))
        denoised = float(np.sqrt(next_alpha)) * predicted + float(old_noise) * estimate
        if noise is None or not self.needs_noise(timestep):
            return denoised
        return denoised + float(new_noise) * noise

    @staticmethod
    def _rows(table: np.ndarray, timesteps: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        values = torch.from_numpy(table).to(like.device)[timesteps.to(like.device)]
        return values.reshape(-1, *[1] * (like.ndim - 1))


def _table(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32)
