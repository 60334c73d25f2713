"""IP-Adapter (Ye et al., 2023): Stable Diffusion 1.5 told CLIP's embedding of a picture by attention of its own."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar, Self

import torch
from diffusers import AutoencoderKL, ConfigMixin, ModelMixin, UNet2DConditionModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0
from diffusers.models.embeddings import ImageProjection
from diffusers.schedulers import KarrasDiffusionSchedulers
from pydantic import Field
from safetensors.torch import load_file
from torch import nn
from transformers import CLIPImageProcessor, CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from ..conditions import Conditions
from ..drawing_settings import DrawingSettings
from ..embedding_space import EmbeddingSpace, clip_hidden_text_space, clip_pooled_space, stable_diffusion_latent_space
from ..errors import FmriModelsError
from ..hub_repository import at_revision, hub_errors_as_sentences, local_folder
from ..library_options import dtype_of
from ..weights import check_finite, stored_tensors_of
from .generator_folder import load_network, take_network_dtype
from .latent_diffusion import LatentDiffusionGenerator, Told
from .source import Repository, Revision, Subfolder
from .stored_generator import GeneratorOptions, ImageSide, hub_options

_PUBLISHED_IMAGE_WIDTH = 1024
_PUBLISHED_TEXT_SHAPE = (77, 768)


class IPAdapter(ModelMixin, ConfigMixin):
    """What IP-Adapter adds to a UNet: a few tokens from an image embedding, and keys and values of these tokens.

    The networks are diffusers'. They are a component of their own so that the UNet stays the one that was published,
    and so that both are saved as what they are.

    Args:
        hidden_sizes: Width of each cross-attention of the UNet, in the order of its `attn_processors`.
        cross_attention_dim: Width of a text token.
        image_embed_dim: Width of the image embedding.
        num_tokens: Tokens that are made of an image embedding.
    """

    @register_to_config
    def __init__(
        self,
        hidden_sizes: list[int],
        cross_attention_dim: int = 768,
        image_embed_dim: int = 1024,
        num_tokens: int = 4,
    ) -> None:
        super().__init__()
        self.image_projection = ImageProjection(image_embed_dim, cross_attention_dim, num_tokens)
        self.attention = nn.ModuleList(
            IPAdapterAttnProcessor2_0(hidden_size, cross_attention_dim, num_tokens=(num_tokens,))
            for hidden_size in hidden_sizes
        )

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> Self:
        """Loads a saved adapter; the arguments are those of `ModelMixin.from_pretrained`."""
        take_network_dtype(kwargs, pretrained_model_name_or_path, f"{cls.__name__}.from_pretrained")
        return super().from_pretrained(pretrained_model_name_or_path, **kwargs)

    @classmethod
    def from_published(
        cls,
        repository: str,
        weight_name: str,
        revision: str | None = None,
        dtype: torch.dtype | str = torch.float32,
        **fetching: Any,
    ) -> Self:
        """Loads a file in the layout in which IP-Adapter was published.

        Args:
            repository: Folder or Hub repository.
            weight_name: The file inside of it, with its folders.
            revision: Branch, tag or commit of a Hub repository.
            dtype: Of the weights; `"auto"` for that which they are stored in.
            **fetching: `cache_dir`, `token`, `local_files_only` …

        Raises:
            FmriModelsError: It is no safetensors file, there is none, or it holds another sort of adapter.
        """
        if not weight_name.endswith(".safetensors"):
            raise FmriModelsError(f"{weight_name} is no safetensors file; choose the adapter's .safetensors file.")
        file = local_folder(repository, [weight_name], revision=revision, **fetching) / weight_name
        if not file.is_file():
            raise FmriModelsError(f"{repository} has no {weight_name}; give the folder of the published adapter.")
        check_finite(stored_tensors_of(file, f"The adapter {file}"), f"The adapter {file}")
        return cls._from_published_weights(load_file(file), str(file), dtype)

    @classmethod
    def _from_published_weights(cls, published: dict[str, torch.Tensor], origin: str, dtype: torch.dtype | str) -> Self:
        """Builds the adapter that the shapes tell of, with those weights."""
        weights = {_own_key(key): values for key, values in published.items()}
        num_layers = sum(key.startswith("attention.") for key in weights) // 2
        try:
            keys = [weights[f"attention.{index}.to_k_ip.0.weight"] for index in range(num_layers)]
            projection = weights["image_projection.image_embeds.weight"]
            cross_attention_dim = len(weights["image_projection.norm.weight"])
            with torch.device("meta"):
                adapter = cls(
                    hidden_sizes=[len(key) for key in keys],
                    cross_attention_dim=cross_attention_dim,
                    image_embed_dim=projection.shape[1],
                    num_tokens=len(projection) // cross_attention_dim,
                )
            if isinstance(dtype, torch.dtype):
                weights = {name: values.to(dtype) for name, values in weights.items()}
            adapter.load_state_dict(weights, assign=True)
        except (KeyError, RuntimeError) as error:
            raise FmriModelsError(
                f"{origin} holds no adapter of pooled image embeddings; choose one such as ip-adapter_sd15.safetensors "
                "(adapters of image tokens or of faces are not supported)."
            ) from error
        return adapter.eval()

    def forward(self, image_embeds: torch.Tensor) -> torch.Tensor:
        """Tokens (N, num_tokens, cross_attention_dim) of image embeddings (N, image_embed_dim)."""
        return self.image_projection(image_embeds)


def _own_key(published_key: str) -> str:
    """`ip_adapter.{1, 3, 5 …}.to_k_ip.weight` counts self-attentions, too, which have no weights of the adapter."""
    module, _, rest = published_key.partition(".")
    if module == "image_proj":
        return f"image_projection.{rest.replace('proj.', 'image_embeds.')}"
    number, _, name = rest.partition(".")
    if module != "ip_adapter" or not number.isdecimal() or int(number) % 2 == 0:
        return published_key
    return f"attention.{int(number) // 2}.{name.replace('_ip.', '_ip.0.')}"


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
            _check_unet(ip_adapter, unet)
        if image_encoder is not None and ip_adapter is not None:
            _check_image_encoder(ip_adapter, image_encoder)
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
        adapted = dict(zip(_cross_attentions(self.unet), self.ip_adapter.attention, strict=True))
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


def _cross_attentions(unet: UNet2DConditionModel) -> list[str]:
    """Names of the cross-attentions among the UNet's `attn_processors`, in whose order adapters are published."""
    return [name for name in unet.attn_processors if name.endswith("attn2.processor")]


def _check_unet(adapter: IPAdapter, unet: UNet2DConditionModel) -> None:
    attentions = [unet.get_submodule(name.removesuffix(".processor")) for name in _cross_attentions(unet)]
    widths = [attention.inner_dim for attention in attentions]
    if list(adapter.config.hidden_sizes) != widths or adapter.config.cross_attention_dim != (
        unet.config.cross_attention_dim
    ):
        raise FmriModelsError(
            f"The adapter is for {len(adapter.config.hidden_sizes)} attentions to tokens of width "
            f"{adapter.config.cross_attention_dim} and the UNet has {len(widths)} to tokens of width "
            f"{unet.config.cross_attention_dim}, or theirs are of other widths; choose the adapter of this UNet."
        )


def _check_image_encoder(adapter: IPAdapter, image_encoder: CLIPVisionModelWithProjection) -> None:
    read, given = adapter.config.image_embed_dim, image_encoder.config.projection_dim
    if read != given:
        raise FmriModelsError(
            f"The adapter reads image embeddings of {read} values and the image encoder makes {given}; choose the "
            "image encoder that was published with the adapter."
        )
