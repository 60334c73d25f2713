"""The uniform call of every image generator."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from huggingface_hub import snapshot_download
from PIL import Image

from ..embedding_space import EmbeddingSpace
from ..errors import FmriModelsError
from .source import GeneratorSource

MAX_INFERENCE_STEPS = 1000


@dataclass
class ImageGeneratorOutput(BaseOutput):
    """Output of an image generator.

    Args:
        images: A list of PIL pictures, or an array (N, H, W, C) or tensor (N, C, H, W) in [0, 1].
    """

    images: list[Image.Image] | np.ndarray | torch.Tensor


class ImageGenerator(DiffusionPipeline):
    """A picture from embeddings, a low-level latent, or both.

    A subclass registers its networks as flat components and implements the abstract methods. Everything that
    differs between generators (what an embedding is, how large a picture is) is stated by the properties, so that
    models and evaluation ask instead of assuming.

    Attributes:
        default_repository: Hub repository of the published weights; None where there are none.
        diffusers_class_names: Names of diffusers' own pipeline classes whose folders this class reads.
        embeds_any_size: Whether `embed_images` takes pictures of any size and resizes them as its space says.
        limits: A sentence on what its pictures are not, which training, reports and cards repeat; None where they are
            meant to be whole pictures.
    """

    default_repository: ClassVar[str | None] = None
    diffusers_class_names: ClassVar[tuple[str, ...]] = ()
    embeds_any_size: ClassVar[bool] = False
    limits: ClassVar[str | None] = None
    # Where it was loaded from; a pipeline refers to such a generator instead of containing it.
    source: GeneratorSource | None = None

    @classmethod
    @abstractmethod
    def for_stimuli(cls, image_size: tuple[int, int, int]) -> "ImageGenerator":
        """The generator that a recipe means by the generator's name.

        Args:
            image_size: Channels, height and width of the stimuli, for generators without a size of their own.
        """

    @classmethod
    def from_source(
        cls,
        repository: str | None = None,
        revision: str | None = None,
        subfolder: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """Loads the generator from where its weights were published, or from a copy of that.

        Args:
            repository: Folder or Hub repository; None for `default_repository`.
            revision: Branch, tag or commit of a Hub repository.
            subfolder: Folder inside of it that holds `model_index.json`.
            **kwargs: Those of `from_pretrained`, such as `dtype`, `cache_dir`, `local_files_only`; without `dtype`,
                float32.

        Raises:
            FmriModelsError: There is no default, and none was given.
        """
        kwargs.setdefault("dtype", torch.float32)
        source = cls._local_source(repository, revision, subfolder, kwargs)
        # A folder has no revisions.
        return cls.from_pretrained(source, **kwargs, **({} if Path(source).is_dir() else {"revision": revision}))

    @classmethod
    def _local_source(
        cls, repository: str | None, revision: str | None, subfolder: str | None, options: dict[str, Any]
    ) -> str:
        """Folder or repository for `from_pretrained`, which itself knows no subfolders."""
        repository = repository or cls.default_repository
        if repository is None:
            raise FmriModelsError(f"{cls.__name__} has no published weights; pass repository= with a folder or name.")
        if subfolder is None:
            return repository
        if not Path(repository).is_dir():
            patterns = [f"{subfolder}/*"]
            repository = snapshot_download(
                repository, revision=revision, allow_patterns=patterns, **hub_options(options)
            )
        return str(Path(repository) / subfolder)

    @property
    def image_embedding_space(self) -> EmbeddingSpace | None:
        """Space of `image_embeds`; None if the generator takes none."""
        return None

    @property
    def text_embedding_space(self) -> EmbeddingSpace | None:
        """Space of `text_embeds`; None if the generator takes none."""
        return None

    @property
    def latent_space(self) -> EmbeddingSpace | None:
        """Space of `latents`; None if the generator takes none."""
        return None

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
            pixel_values: (N, C, H, W) float in [0, 1], of `image_size` or, with `embeds_any_size`, of any size.

        Returns:
            (N, *image_embedding_space.shape) float32.
        """
        raise FmriModelsError(f"{type(self).__name__} has no image embeddings; choose a generator that has.")

    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Embeds captions.

        Args:
            texts: N captions.

        Returns:
            (N, *text_embedding_space.shape) float32.
        """
        raise FmriModelsError(f"{type(self).__name__} has no text embeddings; choose a generator that has.")

    def encode_images(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Encodes pictures.

        Args:
            pixel_values: (N, C, H, W) float in [0, 1], of `image_size`.

        Returns:
            (N, *latent_space.shape) float32.
        """
        raise FmriModelsError(f"{type(self).__name__} has no latents; choose a generator that has.")

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
        if self.latent_space is None:
            raise FmriModelsError(f"{type(self).__name__} has no latents; choose a generator that has.")
        return randn_tensor((num_images, *self.latent_space.shape), generator=generator, dtype=torch.float32)

    @staticmethod
    def check_options(strength: float, guidance_scale: float, num_inference_steps: int) -> None:
        """Refuses options of the call that make no sense, whatever the generator.

        Raises:
            FmriModelsError: Names the option, its value and the range.
        """
        if not 0 <= strength <= 1:
            raise FmriModelsError(
                f"strength is {strength}; expected a number from 0 (keep the start) to 1 (replace it)."
            )
        if not 0 <= guidance_scale < float("inf"):
            raise FmriModelsError(f"guidance_scale is {guidance_scale}; expected a number from 0.")
        if not 1 <= num_inference_steps <= MAX_INFERENCE_STEPS:
            raise FmriModelsError(f"num_inference_steps is {num_inference_steps}; expected 1 to {MAX_INFERENCE_STEPS}.")

    def check_shapes(
        self,
        image_embeds: torch.Tensor | None,
        text_embeds: torch.Tensor | None,
        latents: torch.Tensor | None,
    ) -> None:
        """Refuses inputs of another shape than that of their space.

        Raises:
            FmriModelsError: Names the input, its shape and the one expected.
        """
        for name, values, space in (
            ("image_embeds", image_embeds, self.image_embedding_space),
            ("text_embeds", text_embeds, self.text_embedding_space),
            ("latents", latents, self.latent_space),
        ):
            if values is None:
                continue
            if space is None:
                raise FmriModelsError(f"{type(self).__name__} takes no {name}; pass None instead.")
            if tuple(values.shape[1:]) != space.shape:
                raise FmriModelsError(
                    f"{type(self).__name__} takes {name} of shape (N, {', '.join(map(str, space.shape))}); got "
                    f"{tuple(values.shape)}."
                )

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

    def check_images(self, pixel_values: torch.Tensor, any_size: bool = False) -> None:
        """Refuses pictures of another size or range than the generator's.

        Args:
            pixel_values: The pictures.
            any_size: Height and width do not matter, because they will be resized.

        Raises:
            FmriModelsError: Shape, dtype or values differ from (N, *image_size), float, [0, 1].
        """
        channels, height, width = self.image_size
        expected = (channels, *pixel_values.shape[2:]) if any_size else self.image_size
        if pixel_values.ndim != 4 or tuple(pixel_values.shape[1:]) != expected:
            wanted = f"{channels}, height, width" if any_size else f"{channels}, {height}, {width}"
            raise FmriModelsError(
                f"{type(self).__name__} takes pictures of shape (N, {wanted}); got {tuple(pixel_values.shape)}; "
                f"{'convert' if any_size else 'resize'} them first."
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


def hub_options(options: dict[str, Any]) -> dict[str, Any]:
    """Those of the options of `from_pretrained` that say how files are fetched."""
    names = ("cache_dir", "token", "local_files_only", "force_download", "proxies")
    return {name: options[name] for name in names if name in options}
