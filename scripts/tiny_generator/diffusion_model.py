"""The latent diffusion model, trained on what the finished encoders give."""

import math
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler, UNet2DConditionModel
from torch import nn

from fmri_models import scenes
from fmri_models.conditions import Conditions
from fmri_models.generation.embedded import EmbeddedImageGenerator
from fmri_models.saving import atomic_file, atomic_folder

from .figures import generation_figures
from .pictures import Data, Pictures, chunks
from .settings import Settings, UNetSettings
from .stage import Stage

# Terminal noise is all but pure with this schedule, so that drawing may begin from noise alone.
NOISE_SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_schedule": "squaredcos_cap_v2",
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
}


class UNetStage(Stage):
    """The diffusion model on the latents and tokens that the assets' own encoders give.

    Args:
        settings: Of the run.
        data: Its pictures.
        work: Where the targets are kept.
        assets: Where the finished encoders and the judge are.
    """

    name = "unet"

    def __init__(self, settings: Settings, data: Data, work: Path, assets: Path) -> None:
        super().__init__(settings, data)
        self.ema_decay = settings.unet.ema_decay
        self.assets = assets
        self.generator = EmbeddedImageGenerator.from_pretrained(assets / "embedded", unet=None, dtype=torch.float32)
        self.generator.register_modules(scheduler=DPMSolverMultistepScheduler.from_config(NOISE_SCHEDULE))
        self.generator.set_progress_bar_config(disable=True)
        self.noise_schedule = DDPMScheduler.from_config(NOISE_SCHEDULE)
        self.latents, self.image_embeds = self._targets(work / "targets")
        self.object_cells = self._object_cells(work / "targets")

    @property
    def own(self) -> UNetSettings:
        return self.settings.unet

    def build(self) -> nn.Module:
        own, generator = self.own, self.generator
        channels, size, _ = generator.latent_space.shape
        width = generator.image_embedding_space.shape[-1]
        return UNet2DConditionModel(
            sample_size=size,
            in_channels=channels,
            out_channels=channels,
            down_block_types=("CrossAttnDownBlock2D",) * len(own.widths),
            up_block_types=("CrossAttnUpBlock2D",) * len(own.widths),
            block_out_channels=own.widths,
            layers_per_block=own.layers_a_block,
            cross_attention_dim=width,
            attention_head_dim=own.num_heads,
            norm_num_groups=own.norm_groups,
            time_embedding_dim=own.time_width,
            class_embed_type="projection",
            projection_class_embeddings_input_dim=width,
        ).to(memory_format=torch.channels_last)

    def rate(self, step: int) -> float:
        """Warm-up, a constant, and a fall to zero; all before the fall is the same however many steps there will be."""
        left = (self.own.steps - step) / (self.own.cool_down * self.own.steps)
        return min(1.0, (step + 1) / 150, math.sin(math.pi / 2 * min(left, 1.0)) ** 2)

    def losses(self, model: nn.Module, positions: np.ndarray, noise: torch.Generator) -> dict[str, torch.Tensor]:
        clean = torch.from_numpy(self.latents[positions].astype(np.float32))
        added = torch.randn(clean.shape, generator=noise)
        timesteps = torch.randint(self.noise_schedule.config.num_train_timesteps, (len(positions),), generator=noise)
        tokens, pooled = self._condition(positions, noise)
        noisy = self.noise_schedule.add_noise(clean, added, timesteps).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            predicted = model(noisy, timesteps, encoder_hidden_states=tokens, class_labels=pooled).sample
        errors = (predicted.float() - self.noise_schedule.get_velocity(clean, added, timesteps)).square().mean(1)
        weights = 1 + (self.own.object_weight - 1) * torch.from_numpy(self.object_cells[positions].astype(np.float32))
        return {"loss": (weights * errors).sum() / weights.sum(), "unweighted": errors.mean()}

    def validate(self, model: nn.Module) -> dict[str, float]:
        """What pictures from true embeddings alone, and from the true latent too, are like."""
        self.generator.register_modules(unet=model)
        positions = np.arange(min(100, len(self.data.validation)))
        shown = Pictures(self.data.validation.images[positions], self.data.validation.labels[positions])
        with torch.autocast("cpu", torch.bfloat16):
            figures = generation_figures(self.generator, self.assets, shown, num_inference_steps=12)
        self.generator.register_modules(unet=None)
        return {f"{row}_{name}": value for row, each in figures.items() for name, value in each.items()}

    def _condition(self, positions: np.ndarray, noise: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        own, generator = self.own, self.generator
        embeds = torch.from_numpy(self.image_embeds[positions].astype(np.float32))
        spread = embeds.new_tensor(generator.config.image_embeds_std)
        embeds = embeds + own.image_embeds_noise * spread * torch.randn(embeds.shape, generator=noise)
        sentences = [scenes.captions(self.data.train.factors(position)) for position in positions]
        templates = torch.randint(len(sentences[0]), (len(positions),), generator=noise).tolist()
        draw = torch.rand(len(positions), generator=noise)
        with_text = (draw > own.without_condition) & (
            draw < own.without_condition + own.with_text_alone + own.with_text_too
        )
        with_image = draw > own.without_condition + own.with_text_alone
        tokens, pooled = generator.condition(Conditions(image_embeds=embeds))
        told = torch.nonzero(with_text).flatten().tolist()
        text = generator.embed_texts([sentences[position][templates[position]] for position in told or [0]])
        text_tokens, _ = generator.condition(Conditions(text_embeds=text))
        tokens, pooled = tokens * with_image[:, None, None], pooled * with_image[:, None]
        if told:
            tokens[told, self.image_embeds.shape[1] :] = text_tokens[:, self.image_embeds.shape[1] :]
        return tokens, pooled

    def _object_cells(self, folder: Path) -> np.ndarray:
        """(N, 8, 8) bool: which cells of the latent the object of each training picture touches, computed once."""
        num, size = len(self.data.train), self.generator.latent_space.shape[-1]
        file = folder / f"object-cells-{self.settings.seed}-{num}.npy"
        if not file.exists():
            cells = np.empty((num, size, size), dtype=bool)
            side = scenes.IMAGE_SIZE // size
            for position, scene_seed in enumerate(scenes.scene_seeds("generator", num, self.settings.seed)):
                mask = scenes.object_mask(scene_seed).reshape(size, side, size, side)
                cells[position] = mask.max(axis=(1, 3)) > 0
            with atomic_file(file) as partial, open(partial, "wb") as stream:
                np.save(stream, cells)
        return np.load(file)

    def _targets(self, folder: Path) -> tuple[np.ndarray, np.ndarray]:
        """Latents and image tokens of all training pictures in half precision, computed once."""
        revision = self.generator.config.autoencoder_revision, self.generator.config.image_encoder_revision
        folder = folder / "-".join(str(each) for each in (*revision, self.settings.seed, len(self.data.train)))
        spaces = {"latents": self.generator.latent_space, "image_embeds": self.generator.image_embedding_space}
        if not folder.exists():
            print(f"encoding {len(self.data.train)} scenes", flush=True)
            with atomic_folder(folder) as partial:
                values = {
                    name: np.lib.format.open_memmap(
                        partial / f"{name}.npy", mode="w+", dtype=np.float16, shape=(len(self.data.train), *space.shape)
                    )
                    for name, space in spaces.items()
                }
                for positions in chunks(len(self.data.train), 250):
                    pictures = self.data.train.batch(positions)
                    values["latents"][positions] = self.generator.encode_images(pictures).numpy()
                    values["image_embeds"][positions] = self.generator.embed_images(pictures).numpy()
                for array in values.values():
                    array.flush()
        latents, embeds = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in spaces)
        return latents, embeds
