"""The smallest image generator that somebody might write: what it takes, and how it draws."""

import torch
from diffusers.configuration_utils import register_to_config

from fmri_models import ImageGenerator
from fmri_models.embedding_space import EmbeddingSpace


class ColourImageGenerator(ImageGenerator):
    """Draws noise that turns into a colour step by step."""

    @register_to_config
    def __init__(self, size: int = 8) -> None:
        super().__init__()

    generates_from_embeddings = True

    @property
    def image_size(self):
        return (3, self.config.size, self.config.size)

    @property
    def image_embedding_space(self):
        return EmbeddingSpace(encoder="colours", layer="mean", shape=(3,))

    @property
    def latent_space(self):
        return EmbeddingSpace(encoder="colours", layer="latent", shape=self.image_size)

    def embed_images(self, pixel_values):
        self.check_images(pixel_values)
        return pixel_values.float().mean(dim=(2, 3))

    def encode_images(self, pixel_values):
        self.check_images(pixel_values)
        return 2 * pixel_values.float() - 1

    def draw(self, conditions, settings, generators):
        latents, num_steps = conditions.latents, self.num_steps(conditions, settings)
        if latents is not None and num_steps == 0:
            return self.in_one_step(latents, conditions)
        noise = self.draw_latents(len(conditions), generators)
        latents = noise if latents is None else latents + settings.strength * (noise - latents)
        for step, timestep in self.steps(torch.arange(num_steps)):
            if conditions.image_embeds is not None:
                colour = 2 * conditions.image_embeds[:, :, None, None] - 1
                latents = latents + self.guidance_scale * (colour - latents) / (num_steps + 1)
            latents, conditions = self.on_step_end(step, timestep, latents, conditions)
        return latents

    def to_images(self, latents):
        return (latents + 1) / 2
