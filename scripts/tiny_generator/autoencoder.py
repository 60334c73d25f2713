"""The autoencoder between pictures and latents."""

import numpy as np
import torch
from diffusers import AutoencoderTiny
from torch import nn
from torch.nn import functional as F

from .pictures import chunks
from .settings import AutoencoderSettings
from .stage import Stage


class AutoencoderStage(Stage):
    """The autoencoder: absolute, squared and gradient differences."""

    name = "autoencoder"

    @property
    def own(self) -> AutoencoderSettings:
        return self.settings.autoencoder

    def build(self) -> nn.Module:
        own = self.own
        return AutoencoderTiny(
            in_channels=12,
            out_channels=12,
            latent_channels=own.latent_channels,
            encoder_block_out_channels=(own.width,) * len(own.encoder_blocks),
            decoder_block_out_channels=(own.width,) * len(own.decoder_blocks),
            num_encoder_blocks=own.encoder_blocks,
            num_decoder_blocks=own.decoder_blocks,
        ).to(memory_format=torch.channels_last)

    def losses(self, model: nn.Module, positions: np.ndarray, noise: torch.Generator) -> dict[str, torch.Tensor]:
        pictures = self.data.train.batch(positions)
        latents = self._encode(model, pictures)
        jitter = torch.randn(latents.shape, generator=noise)
        difference = self._decode(model, latents + self.own.latent_noise * jitter) - pictures
        horizontal, vertical = difference.diff(dim=3), difference.diff(dim=2)
        absolute, squared = difference.abs().mean(), difference.square().mean()
        gradient = horizontal.abs().mean() + vertical.abs().mean()
        loss = absolute + 0.5 * gradient + 10 * squared
        return {"loss": loss, "absolute": absolute, "gradient": gradient, "psnr": -10 * squared.detach().log10()}

    def validate(self, model: nn.Module) -> dict[str, float]:
        errors = []
        for positions in chunks(len(self.data.validation), 100):
            pictures = self.data.validation.batch(positions)
            decoded = self._decode(model, self._encode(model, pictures)).clamp(0, 1)
            errors.append((decoded - pictures).square().mean((1, 2, 3)))
        return {"psnr": float((-10 * torch.cat(errors).log10()).mean())}

    @staticmethod
    def _encode(model: nn.Module, pictures: torch.Tensor) -> torch.Tensor:
        unshuffled = (2 * F.pixel_unshuffle(pictures, 2) - 1).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            return model.encode(unshuffled).latents.float()

    @staticmethod
    def _decode(model: nn.Module, latents: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            unshuffled = model.decode(latents.contiguous(memory_format=torch.channels_last)).sample.float()
        return (F.pixel_shuffle(unshuffled, 2) + 1) / 2
