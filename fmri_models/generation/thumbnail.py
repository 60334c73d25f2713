"""Low-level pictures of anything: the latent is a small copy of the picture, and nothing is invented."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from diffusers.configuration_utils import register_to_config
from torch.nn import functional as F

from ..embedding_space import EmbeddingSpace
from ..errors import FmriModelsError
from ..seeds import checked_generators
from .image_generator import ImageGenerator, ImageGeneratorOutput
from .pixels import PixelsImageGenerator
from .step_callback import CallbackFunction


class ThumbnailImageGenerator(ImageGenerator):
    """Gives pictures back as thumbnails of themselves, enlarged: for stimuli that no generator here has learned.

    Its latents are the thumbnail's pixels. Its embeddings are the same pixels in patches, as those of
    [`PixelsImageGenerator`], but they serve retrieval alone: no picture is drawn from them.

    Args:
        channels: 1 (grey) or 3 (RGB).
        height: Height of a picture in pixels.
        width: Width of a picture in pixels.
        thumbnail_size: Height and width of the thumbnail in pixels.

    Raises:
        FmriModelsError: The thumbnail is larger than the picture.
    """

    config_name = "model_index.json"
    used_settings = ()
    limits = (
        "The image generator has learned no pictures: it shows the low-level picture, some pixels a side and enlarged, "
        "and draws nothing from embeddings."
    )

    @register_to_config
    def __init__(self, channels: int = 3, height: int = 64, width: int = 64, thumbnail_size: int = 16) -> None:
        super().__init__()
        if not 1 <= thumbnail_size <= min(height, width):
            raise FmriModelsError(
                f"The pictures have {height}x{width} pixels and their thumbnails {thumbnail_size}x{thumbnail_size}; "
                "such small pictures go with the generator pixels."
            )

    @classmethod
    def for_stimuli(cls, image_size: tuple[int, int, int]) -> "ThumbnailImageGenerator":
        return cls(*image_size)

    @property
    def image_size(self) -> tuple[int, int, int]:
        return (self.config.channels, self.config.height, self.config.width)

    @property
    def latent_space(self) -> EmbeddingSpace:
        return self._of_thumbnails(self._pixels.latent_space)

    @property
    def image_embedding_space(self) -> EmbeddingSpace:
        return self._of_thumbnails(self._pixels.image_embedding_space)

    def encode_images(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Reduces pictures.

        Args:
            pixel_values: (N, C, H, W) float in [0, 1].

        Returns:
            (N, C, thumbnail_size, thumbnail_size) float32 in [0, 1], means over the areas of the thumbnail's pixels.
        """
        self.check_images(pixel_values)
        return F.adaptive_avg_pool2d(pixel_values.float(), self.config.thumbnail_size).clamp(0, 1)

    def embed_images(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Cuts the thumbnails of pictures (N, C, H, W) in [0, 1] into patches (N, 16, values)."""
        return self._pixels.embed_images(self.encode_images(pixel_values))

    @torch.no_grad()
    def __call__(
        self,
        image_embeds: torch.Tensor | None = None,
        text_embeds: torch.Tensor | None = None,
        latents: torch.Tensor | None = None,
        strength: float = 1.0,
        guidance_scale: float = 1.0,
        num_inference_steps: int = 1,
        num_images: int | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: CallbackFunction | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> ImageGeneratorOutput:
        """Enlarges thumbnails (bicubic) and clamps them to [0, 1]; uniform noise if there are none.

        Args:
            image_embeds: None; they draw nothing.
            text_embeds: None.
            latents: (N, C, thumbnail_size, thumbnail_size) as `encode_images` gives them, or None.
            strength: Without effect, and so are the next two.
            guidance_scale: See `strength`.
            num_inference_steps: See `strength`.
            num_images: How many pictures of noise to draw if there are no latents.
            generator: Source of the noise.
            output_type: `"pil"`, `"np"`, `"pt"`, or `"latent"` for what `encode_images` would give of the pictures.
            return_dict: Whether to return an [`ImageGeneratorOutput`], or a tuple whose first item are the pictures.
            callback_on_step_end: As in [`ImageGenerator`]; nothing is denoised, and it is called once.
            callback_on_step_end_tensor_inputs: What it is given, of `"latents"`, `"image_embeds"`, `"text_embeds"`.

        Raises:
            FmriModelsError: Embeddings, or latents of another shape.
        """
        image_embeds, text_embeds, latents = self.batches(image_embeds, text_embeds, latents)
        if image_embeds is not None or text_embeds is not None:
            raise FmriModelsError(
                "The thumbnail generator draws nothing from embeddings; pass latents, or choose a generator with a "
                "diffusion model that was trained on such pictures."
            )
        self.check_shapes(None, None, latents)
        self.check_options(strength, guidance_scale, num_inference_steps)
        self.check_output(output_type)
        on_step_end = self.begin(guidance_scale, callback_on_step_end, callback_on_step_end_tensor_inputs)
        batch_size = self.batch_size(num_images, latents)
        generator = checked_generators(generator, batch_size, "pictures")
        if latents is None:
            # The normal distribution's own function turns normal draws into uniform ones.
            latents = torch.special.ndtr(self.draw_latents(batch_size, generator))
        latents = self.in_one_step(on_step_end, latents)
        if output_type != "latent":
            latents = F.interpolate(latents.float().clamp(0, 1), self.image_size[1:], mode="bicubic")
        return self.postprocess(latents, output_type).in_form(return_dict)

    @property
    def _pixels(self) -> PixelsImageGenerator:
        """The generator to which the thumbnail is the whole picture."""
        return PixelsImageGenerator(self.config.channels, self.config.thumbnail_size, self.config.thumbnail_size)

    def _of_thumbnails(self, space: EmbeddingSpace) -> EmbeddingSpace:
        return replace(
            space, encoder="thumbnail", preprocessing=f"means over areas of {self.config.height}x{self.config.width}"
        )
