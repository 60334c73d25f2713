"""Kandinsky 2.2: a latent diffusion model whose only condition is CLIP's embedding of a picture."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel, VQModel
from diffusers.configuration_utils import register_to_config
from transformers import CLIPVisionModelWithProjection

from ..conditions import Conditions
from ..drawing_settings import DrawingSettings
from ..embedding_space import EmbeddingSpace, clip_pooled_space
from ..errors import FmriModelsError
from ..hub_repository import at_revision, hub_errors_as_sentences
from ..library_options import dtype_of
from .generator_folder import load_network
from .latent_diffusion import LatentDiffusionGenerator
from .source import Repository
from .stored_generator import GeneratorOptions, ImageSide, hub_options
from .trainable_generator import Told

# Of the published decoder (Razzhigaev et al., 2023).
_EMBEDDING_WIDTH = 1280
_IMAGE_ENCODER = "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k"


class KandinskyOptions(GeneratorOptions):
    """What a file may say of [`KandinskyImageGenerator`]."""

    image_encoder_repository: Repository | None = None
    image_encoder_name: str = ""
    image_side: ImageSide | None = None


class KandinskyImageGenerator(LatentDiffusionGenerator):
    """Draws pictures of 512 x 512 from the pooled image embedding of CLIP ViT-bigG/14 (Razzhigaev et al., 2023).

    The decoder of Kandinsky 2.2 knows no text at all; what its prior makes of captions are the same embeddings that a
    brain model decodes. The image encoder is published with the prior, in a repository of its own: `from_source` loads
    both, `from_pretrained` of the decoder's repository gives a generator that draws and does not embed.

    The unconditional prediction is told the embedding of an empty picture, one whose standardised pixels are zero, as
    the original does; without an image encoder it is told an embedding of zeros.

    Args:
        movq: Autoencoder with quantised training (Zheng et al., 2022); its latents are used as they are.
        unet: Predicts noise and a learned variance; None for a generator that embeds, encodes and decodes alone.
        scheduler: Steps of the denoising; the published one adds noise at every step.
        image_encoder: CLIP's vision tower; None for a generator that draws from embeddings but makes none.
        image_encoder_name: Repository of the vision tower's weights, which names the embedding space.
        image_side: Height and width of a picture in pixels; None for the size that the UNet was trained with.
    """

    options = KandinskyOptions
    default_repository = "kandinsky-community/kandinsky-2-2-decoder"
    published_spaces: ClassVar[Mapping[str, EmbeddingSpace]] = {
        "image_embedding_space": clip_pooled_space(_IMAGE_ENCODER, _EMBEDDING_WIDTH),
        "latent_space": EmbeddingSpace(f"{default_repository}/movq", layer="latent", shape=(4, 64, 64)),
    }
    # Its autoencoder quantises, and gives no distribution.
    has_posterior = False
    drawing_settings = DrawingSettings(num_inference_steps=50, guidance_scale=4.0)
    default_image_encoder_repository = "kandinsky-community/kandinsky-2-2-prior"
    diffusers_class_names = ("KandinskyV22Pipeline", "KandinskyV22Img2ImgPipeline")
    # The published configuration of the autoencoder states no size of pictures.
    published_side = 512
    model_cpu_offload_seq = "image_encoder->unet->movq"
    _optional_components = ["unet", "scheduler", "image_encoder"]

    @register_to_config
    def __init__(
        self,
        movq: VQModel,
        unet: UNet2DConditionModel | None = None,
        scheduler: DDPMScheduler | None = None,
        image_encoder: CLIPVisionModelWithProjection | None = None,
        image_encoder_name: str = _IMAGE_ENCODER,
        image_side: int | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(movq=movq, unet=unet, scheduler=scheduler, image_encoder=image_encoder)

    @classmethod
    def from_source(
        cls,
        repository: str | None = None,
        revision: str | None = None,
        subfolder: str | None = None,
        image_encoder_repository: str | None = default_image_encoder_repository,
        **kwargs: Any,
    ) -> Self:
        """Loads the decoder, and the image encoder from the prior's repository unless the decoder's has it.

        Args:
            repository: Folder or Hub repository of the decoder; None for the published one.
            revision: Branch, tag or commit of the decoder's repository.
            subfolder: Folder inside of it that holds `model_index.json`.
            image_encoder_repository: Folder or Hub repository with a subfolder `image_encoder`; None for a generator
                that embeds no pictures.
            **kwargs: Those of `from_pretrained`.

        Raises:
            FmriModelsError: The image encoder is not to be had.
        """
        cls._take_dtype(kwargs)
        if image_encoder_repository is not None and "image_encoder" not in kwargs:
            source = cls._local_source(repository, revision, subfolder, kwargs)
            with hub_errors_as_sentences(source, revision):
                stated = cls.load_config(source, **at_revision(source, revision), **hub_options(kwargs))
            if stated.get("image_encoder", [None])[0] is None:
                kwargs["image_encoder"] = _published_image_encoder(image_encoder_repository, kwargs)
        return super().from_source(repository, revision, subfolder, **kwargs)

    @property
    def autoencoder(self) -> VQModel:
        return self.movq

    @property
    def latent_space(self) -> EmbeddingSpace:
        side = self._image_side
        return EmbeddingSpace(
            encoder=f"{self.default_repository}/movq",
            layer="latent",
            shape=(self.movq.config.latent_channels, side // self.latent_factor, side // self.latent_factor),
            normalisation="none",
            preprocessing=f"{side}x{side} RGB in [-1, 1]",
        )

    @property
    def image_embedding_space(self) -> EmbeddingSpace:
        return clip_pooled_space(
            self.config.image_encoder_name, self._embedding_width, self.clip_preprocessing.description
        )

    def to_latents(self, pictures: torch.Tensor) -> torch.Tensor:
        """Encodes (N, 3, H, W) in [-1, 1], in the autoencoder's dtype, before quantisation."""
        return self.movq.encode(pictures).latents.float()

    def to_pictures(self, latents: torch.Tensor) -> torch.Tensor:
        """Decodes (N, *latent_space.shape) float32 without quantisation to (N, 3, H, W), about [-1, 1]."""
        return self.movq.decode(latents.to(self.movq.dtype), force_not_quantize=True).sample

    def condition(self, conditions: Conditions, noises: dict[str, torch.Tensor]) -> Told:
        return {"image_embeds": conditions.given["image_embeds"]}

    def unconditional(self, num_images: int) -> Told:
        if self.image_encoder is None:
            empty = torch.zeros(1, self._embedding_width, device=self._execution_device)
        else:
            side = self.image_encoder.config.image_size
            empty = self.embed_prepared(torch.zeros(1, 3, side, side))
        return {"image_embeds": empty.expand(num_images, -1)}

    def predict(self, sample: torch.Tensor, timestep: torch.Tensor, told: Told) -> torch.Tensor:
        added = {"image_embeds": told["image_embeds"].to(sample.dtype)}
        return self.unet(sample, timestep, encoder_hidden_states=None, added_cond_kwargs=added).sample

    @property
    def _embedding_width(self) -> int:
        if self.image_encoder is not None:
            return self.image_encoder.config.projection_dim
        return _EMBEDDING_WIDTH if self.unet is None else self.unet.config.encoder_hid_dim


def _published_image_encoder(repository: str, options: dict[str, Any]) -> CLIPVisionModelWithProjection:
    try:
        return load_network(
            CLIPVisionModelWithProjection,
            repository,
            "image_encoder",
            dtype=dtype_of(options["dtype"], "image_encoder"),
            **hub_options(options),
        )
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise FmriModelsError(
            f"Kandinsky's image encoder could not be loaded from {repository}/image_encoder ({reason}); pass "
            "image_encoder_repository= with a folder that has it, or None for a generator that embeds no pictures."
        ) from error
