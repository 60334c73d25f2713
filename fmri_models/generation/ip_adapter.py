"""IP-Adapter (Ye et al., 2023): Stable Diffusion 1.5 told CLIP's embedding of a picture by attention of its own."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar, Self

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.configuration_utils import register_to_config
from diffusers.schedulers import KarrasDiffusionSchedulers
from pydantic import Field
from transformers import CLIPImageProcessor, CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from ..conditions import Conditions
from ..drawing_settings import DrawingSettings
from ..embedding_space import EmbeddingSpace, clip_hidden_text_space, clip_pooled_space, stable_diffusion_latent_space
from ..errors import FmriModelsError
from ..hub_repository import at_revision, hub_errors_as_sentences
from ..library_options import dtype_of
from .generator_folder import load_network
from .ip_adapter_network import IPAdapter, check_image_encoder, check_unet, cross_attentions
from .latent_diffusion import LatentDiffusionGenerator
from .source import Repository, Revision, Subfolder
from .stored_generator import GeneratorOptions, ImageSide, hub_options
from .trainable_generator import Told

_PUBLISHED_IMAGE_WIDTH = 1024
_PUBLISHED_TEXT_SHAPE = (77, 768)


class IPAdapterOptions(GeneratorOptions):
    """What a file may say of [`IPAdapterImageGenerator`]."""

    adapter_repository: Repository = ""
    adapter_revision: Revision | None = None
    adapter_folder: Subfolder = ""
    adapter_weight_name: Subfolder = ""
    ip_adapter_scale: Annotated[float, Field(ge=0)] = 1.0
    image_encoder_name: str = ""
    image_side: ImageSide | None = None


class IPAdapterImageGenerator(LatentDiffusionGenerator):
    """Draws pictures of 512×512 from CLIP ViT-H/14's pooled embedding, from a text, or from both.

    Stable Diffusion's own cross-attention reads text tokens; beside it, the adapter's reads four tokens that are made
    of the image embedding, and both results are added. Where no text is given, the text is empty; where no image
    embedding is given, Stable Diffusion draws alone. Guidance leads away from the empty text and from the zero image
    embedding.

    Args:
        vae: Stable Diffusion's autoencoder.
        tokenizer: Of the text tower.
        text_encoder: CLIP ViT-L/14's text tower; needed for drawing.
        unet: Stable Diffusion's diffusion model; None for a generator that embeds, encodes and decodes alone.
        scheduler: Steps of the denoising.
        ip_adapter: Reads image embeddings; None for a generator that draws from texts alone.
        image_encoder: CLIP ViT-H/14's vision tower; None for a generator that draws from embeddings but makes none.
        feature_extractor: Kept for diffusers' own pipeline; pictures are prepared by [`ClipPreprocessing`].
        ip_adapter_scale: Weight of the adapter's attention, from 0 (the text alone).
        image_encoder_name: Repository of the vision tower's weights, which names the embedding space.
        image_side: Height and width of a picture in pixels; None for the size that the UNet was trained with.

    Raises:
        FmriModelsError: The adapter is for another UNet or image encoder, or the scale is negative.
    """

    options = IPAdapterOptions
    default_repository = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    published_spaces: ClassVar[Mapping[str, EmbeddingSpace]] = {
        "image_embedding_space": clip_pooled_space("h94/IP-Adapter/models/image_encoder", _PUBLISHED_IMAGE_WIDTH),
        "latent_space": stable_diffusion_latent_space(512),
    }
    drawing_settings = DrawingSettings(num_inference_steps=50, guidance_scale=7.5)
    default_adapter_repository = "h94/IP-Adapter"
    published_side = 512
    diffusers_class_names = ("StableDiffusionPipeline",)
    # The adapter's attention works inside of the UNet and travels with it.
    model_cpu_offload_seq = "text_encoder->image_encoder->unet->vae"
    _optional_components = [
        "tokenizer",
        "text_encoder",
        "unet",
        "scheduler",
        "ip_adapter",
        "image_encoder",
        "feature_extractor",
    ]

    @register_to_config
    def __init__(
        self,
        vae: AutoencoderKL,
        tokenizer: CLIPTokenizer | None = None,
        text_encoder: CLIPTextModel | None = None,
        unet: UNet2DConditionModel | None = None,
        scheduler: KarrasDiffusionSchedulers | None = None,
        ip_adapter: IPAdapter | None = None,
        image_encoder: CLIPVisionModelWithProjection | None = None,
        feature_extractor: CLIPImageProcessor | None = None,
        ip_adapter_scale: float = 1.0,
        image_encoder_name: str = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
        image_side: int | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= ip_adapter_scale < float("inf"):
            raise FmriModelsError(f"ip_adapter_scale is {ip_adapter_scale}; expected a number from 0.")
        if unet is not None and ip_adapter is not None:
            check_unet(ip_adapter, unet)
        if image_encoder is not None and ip_adapter is not None:
            check_image_encoder(ip_adapter, image_encoder)
        self.register_modules(
            vae=vae,
            tokenizer=tokenizer,
            text_encoder=text_encoder,
            unet=unet,
            scheduler=scheduler,
            ip_adapter=ip_adapter,
            image_encoder=image_encoder,
            feature_extractor=feature_extractor,
        )

    @classmethod
    def from_source(
        cls,
        repository: str | None = None,
        revision: str | None = None,
        subfolder: str | None = None,
        adapter_repository: str = default_adapter_repository,
        adapter_revision: str | None = None,
        adapter_folder: str = "models",
        adapter_weight_name: str = "ip-adapter_sd15.safetensors",
        **kwargs: Any,
    ) -> Self:
        """Loads Stable Diffusion, and the adapter with its image encoder unless that folder has them already.

        Args:
            repository: Folder or Hub repository of Stable Diffusion 1.5; None for the published one.
            revision: Branch, tag or commit of that repository.
            subfolder: Folder inside of it that holds `model_index.json`.
            adapter_repository: Folder or Hub repository of the adapter.
            adapter_revision: Branch, tag or commit of the adapter's repository.
            adapter_folder: Folder inside of it that holds the adapter, and `image_encoder`.
            adapter_weight_name: The adapter's file, in safetensors.
            **kwargs: Those of `from_pretrained`.

        Raises:
            FmriModelsError: The adapter's file is missing, is no safetensors, or holds another sort of adapter.
        """
        cls._take_dtype(kwargs)
        source = cls._local_source(repository, revision, subfolder, kwargs)
        fetching = hub_options(kwargs)
        with hub_errors_as_sentences(source, revision):
            stated = cls.load_config(source, **at_revision(source, revision), **fetching)
        place = {"revision": adapter_revision} | fetching
        if "ip_adapter" not in kwargs and stated.get("ip_adapter", [None])[0] is None:
            kwargs["ip_adapter"] = IPAdapter.from_published(
                adapter_repository,
                f"{adapter_folder}/{adapter_weight_name}",
                dtype=dtype_of(kwargs["dtype"], "ip_adapter"),
                **place,
            )
        if "image_encoder" not in kwargs and stated.get("image_encoder", [None])[0] is None:
            kwargs["image_encoder"] = load_network(
                CLIPVisionModelWithProjection,
                adapter_repository,
                f"{adapter_folder}/image_encoder",
                dtype=dtype_of(kwargs["dtype"], "image_encoder"),
                **place,
            )
        return super().from_source(repository, revision, subfolder, **kwargs)

    @property
    def image_embedding_space(self) -> EmbeddingSpace:
        width = _PUBLISHED_IMAGE_WIDTH
        if self.ip_adapter is not None:
            width = self.ip_adapter.config.image_embed_dim
        elif self.image_encoder is not None:
            width = self.image_encoder.config.projection_dim
        return clip_pooled_space(self.config.image_encoder_name, width, self.clip_preprocessing.description)

    @property
    def text_embedding_space(self) -> EmbeddingSpace:
        shape = _PUBLISHED_TEXT_SHAPE
        if self.text_encoder is not None:
            shape = (self.text_encoder.config.max_position_embeddings, self.text_encoder.config.hidden_size)
        return clip_hidden_text_space("openai/clip-vit-large-patch14/text", *shape)

    def condition(self, conditions: Conditions, noises: dict[str, torch.Tensor]) -> Told:
        """`"text"` (N, 77, 768), and `"image"` (N, 4, 768) where there are image embeddings."""
        told = self.unconditional(len(conditions))
        if conditions.text_embeds is not None:
            told["text"] = conditions.text_embeds
        if conditions.image_embeds is not None:
            told["image"] = self._image_tokens(conditions.image_embeds)
        return told

    def unconditional(self, num_images: int) -> Told:
        """Tokens of the empty text, by which Stable Diffusion draws alone."""
        return {"text": self.text_tokens([""]).expand(num_images, -1, -1)}

    def unconditional_like(self, told: Told) -> Told:
        num_images = len(told["text"])
        nothing = self.unconditional(num_images)
        if "image" in told:
            zeros = torch.zeros(num_images, *self.image_embedding_space.shape, device=self._execution_device)
            nothing["image"] = self._image_tokens(zeros)
        return nothing

    def predict(self, sample: torch.Tensor, timestep: torch.Tensor, told: Told) -> torch.Tensor:
        """The UNet's prediction, with the adapter's attention already in place where there are image tokens."""
        tokens = {name: values.to(sample.dtype) for name, values in told.items()}
        hidden = (tokens["text"], [tokens["image"]]) if "image" in tokens else tokens["text"]
        return self.unet(sample, timestep, encoder_hidden_states=hidden).sample

    @contextmanager
    def reading(self, told: Told) -> Iterator[None]:
        """Puts the adapter's attention into the UNet for image tokens, and the UNet's own back afterwards."""
        if "image" not in told:
            yield
            return
        own = self.unet.attn_processors
        adapted = dict(zip(cross_attentions(self.unet), self.ip_adapter.attention, strict=True))
        for processor in self.ip_adapter.attention:
            processor.scale = [self.config.ip_adapter_scale]
        try:
            self.unet.set_attn_processor(own | adapted)
            yield
        finally:
            self.unet.set_attn_processor(own)

    def _image_tokens(self, image_embeds: torch.Tensor) -> torch.Tensor:
        adapter = self.require("ip_adapter", "reads image_embeds")
        return adapter(image_embeds.to(self._execution_device, adapter.dtype)).float()
