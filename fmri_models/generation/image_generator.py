"""The uniform call of every image generator."""

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image

from ..embedding_space import EmbeddingSpace
from ..errors import FmriModelsError


@dataclass
class ImageGeneratorOutput(BaseOutput):
    """Output of an image generator.

    Args:
        images: A list of PIL pictures, or an array (N, H, W, C) or tensor (N, C, H, W) in [0, 1].
    """

    images: list[Image.Image] | np.ndarray | torch.Tensor


class ImageGenerator(DiffusionPipeline):
    """A picture from embeddings, a low-level latent, or both.

    A subclass registers its networks as flat components and implements the three abstract methods. Everything that
    differs between generators (what an embedding is, how large a picture is) is stated by the properties, so that
    models and evaluation ask instead of assuming.
    """

    @classmethod
    @abstractmethod
    def for_stimuli(cls, image_size: tuple[int, int, int]) -> "ImageGenerator":
        """The generator that a recipe means by the generator's name.

        Args:
            image_size: Channels, height and width of the stimuli, for generators without a size of their own.
        """

    @property
    def image_embedding_space(self) -> EmbeddingSpace | None:
        """Space of `image_embeds`; None if the generator takes none."""
        return None

    @property
    def text_embedding_space(self) -> EmbeddingSpace | None:
        """Space of `text_embeds`; None if the generator takes none."""
        return None

    @property
    @abstractmethod
    def latent_space(self) -> EmbeddingSpace:
        """Space of `latents`."""

    @property
    @abstractmethod
    def image_size(self) -> tuple[int, int, int]:
        """Channels, height and width of a picture."""

    @property
    def generates_from_embeddings(self) -> bool:
        """Whether `image_embeds` change the picture (a generator may embed pictures for retrieval alone)."""
        return False

    def embed_images(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Embeds pictures.

        Args:
            pixel_values: (N, C, H, W) float in [0, 1], of `image_size`.

        Returns:
            (N, *image_embedding_space.shape) float32.
        """
        raise FmriModelsError(f"{type(self).__name__} has no image embeddings; choose a generator that has.")

    @abstractmethod
    def encode_images(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Encodes pictures.

        Args:
            pixel_values: (N, C, H, W) float in [0, 1], of `image_size`.

        Returns:
            (N, *latent_space.shape) float32.
        """

    @abstractmethod
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
    ) -> ImageGeneratorOutput:
        """Draws pictures.

        Args:
            image_embeds: (N, *image_embedding_space.shape), or None.
            text_embeds: (N, *text_embedding_space.shape), or None.
            latents: (N, *latent_space.shape) low-level picture to start from, or None.
            strength: How much of the low-level picture is replaced, 0 (none) to 1 (all).
            guidance_scale: Weight of the embeddings against the unconditional prediction.
            num_inference_steps: Denoising steps.
            num_images: How many pictures to draw if neither embeddings nor latents say so.
            generator: One source of noise for all, or one a picture.
            output_type: `"pil"`, `"np"` or `"pt"`.
        """

    def draw_latents(
        self, num_images: int, generator: torch.Generator | list[torch.Generator] | None = None
    ) -> torch.Tensor:
        """Standard normal latents (N, *latent_space.shape): what a generator starts from when it is told nothing."""
        return randn_tensor((num_images, *self.latent_space.shape), generator=generator, dtype=torch.float32)

    def batch_size(self, num_images: int | None, *inputs: torch.Tensor | None) -> int:
        """The number of pictures that the inputs ask for.

        Raises:
            FmriModelsError: The inputs disagree, or there are none and `num_images` is None.
        """
        sizes = {len(values) for values in inputs if values is not None}
        if num_images is not None:
            sizes.add(num_images)
        if len(sizes) != 1:
            found = "nothing" if not sizes else "batches of " + ", ".join(str(size) for size in sorted(sizes))
            raise FmriModelsError(
                f"{type(self).__name__} was given {found}; pass embeddings or latents of one batch size, or num_images."
            )
        return sizes.pop()

    def check_images(self, pixel_values: torch.Tensor) -> None:
        """Refuses pictures of another size or range than the generator's.

        Raises:
            FmriModelsError: Shape, dtype or values differ from (N, *image_size), float, [0, 1].
        """
        if pixel_values.ndim != 4 or tuple(pixel_values.shape[1:]) != self.image_size:
            raise FmriModelsError(
                f"{type(self).__name__} takes pictures of shape (N, {', '.join(map(str, self.image_size))}); got "
                f"{tuple(pixel_values.shape)}; resize them first."
            )
        if not pixel_values.is_floating_point() or pixel_values.min() < 0 or pixel_values.max() > 1:
            raise FmriModelsError(
                f"{type(self).__name__} takes float pictures in [0, 1]; got {pixel_values.dtype} from "
                f"{pixel_values.min():g} to {pixel_values.max():g}; divide 8-bit values by 255."
            )

    def postprocess(self, pixel_values: torch.Tensor, output_type: str) -> ImageGeneratorOutput:
        """Clamps (N, C, H, W) to [0, 1] and returns it as `output_type`.

        Raises:
            FmriModelsError: Unknown `output_type`.
        """
        pixel_values = pixel_values.float().clamp(0, 1)
        if output_type == "pt":
            return ImageGeneratorOutput(images=pixel_values)
        arrays = pixel_values.cpu().permute(0, 2, 3, 1).numpy()
        if output_type == "np":
            return ImageGeneratorOutput(images=arrays)
        if output_type == "pil":
            return ImageGeneratorOutput(images=self.numpy_to_pil(arrays))
        raise FmriModelsError(f"output_type is {output_type!r}; expected 'pil', 'np' or 'pt'.")
