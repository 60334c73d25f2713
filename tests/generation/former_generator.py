"""An image generator of somebody's own as it was written before `draw`: with a call, and what that called."""

import torch
from diffusers.configuration_utils import register_to_config

from fmri_models import ImageGenerator
from fmri_models.embedding_space import EmbeddingSpace
from fmri_models.seeds import checked_generators


def former_generator_class() -> type[ImageGenerator]:
    """The class; it warns while it is defined."""

    class FormerImageGenerator(ImageGenerator):
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
            return pixel_values.float().mean(dim=(2, 3))

        @torch.no_grad()
        def __call__(
            self,
            image_embeds=None,
            text_embeds=None,
            latents=None,
            strength=1.0,
            guidance_scale=1.0,
            num_inference_steps=1,
            num_images=None,
            generator=None,
            output_type="pil",
            return_dict=True,
            callback_on_step_end=None,
            callback_on_step_end_tensor_inputs=("latents",),
        ):
            image_embeds, text_embeds, latents = self.batches(image_embeds, text_embeds, latents)
            self.check_options(strength, guidance_scale, num_inference_steps)
            self.check_output(output_type)
            self.check_shapes(image_embeds, text_embeds, latents)
            batch_size = self.batch_size(num_images, image_embeds, text_embeds, latents)
            generator = checked_generators(generator, batch_size, "pictures")
            on_step_end = self.begin(guidance_scale, callback_on_step_end, callback_on_step_end_tensor_inputs)
            if latents is not None and strength == 0:
                drawn = self.in_one_step(on_step_end, latents, image_embeds=image_embeds)
                return self.postprocess(drawn if output_type == "latent" else (drawn + 1) / 2, output_type)
            sample = self.draw_latents(batch_size, generator)
            for step, timestep in self.steps(torch.arange(num_inference_steps)):
                if image_embeds is not None:
                    sample = sample + self.guidance_scale * (2 * image_embeds[:, :, None, None] - 1 - sample) / 3
                given = {"latents": sample, "image_embeds": image_embeds, "text_embeds": None}
                tensors = on_step_end(self, step, timestep, given)
                sample = tensors["latents"]
                if on_step_end.may_change_embeds:
                    image_embeds = tensors["image_embeds"]
            drawn = sample if output_type == "latent" else (sample + 1) / 2
            return self.postprocess(drawn, output_type).in_form(return_dict)

    return FormerImageGenerator
