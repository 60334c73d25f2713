"""Versatile Diffusion (Xu et al., 2023): pictures from all tokens of CLIP's vision tower, text tower, or both."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from diffusers import (
    AutoencoderKL,
    ModelMixin,
    Transformer2DModel,
    UNet2DConditionModel,
    UniPCMultistepScheduler,
    pipelines,
)
from diffusers.configuration_utils import register_to_config
from diffusers.pipelines.deprecated import versatile_diffusion
from diffusers.schedulers import KarrasDiffusionSchedulers
from pydantic import Field
from torch import nn
from transformers import CLIPImageProcessor, CLIPTextModelWithProjection, CLIPTokenizer, CLIPVisionModelWithProjection

from ..conditions import Conditions
from ..drawing_settings import DrawingSettings
from ..embedding_space import (
    EmbeddingSpace,
    clip_image_tokens_space,
    clip_text_tokens_space,
    stable_diffusion_latent_space,
)
from ..errors import FmriModelsError
from .clip_embedding import (
    CLIP_MEAN,
    CLIP_STD,
    ClipPreprocessing,
    divide_by_cls_norm,
    divide_by_end_norm,
    end_positions,
    token_ids,
)
from .image_generator import ImageGenerator
from .latent_diffusion import LatentDiffusionGenerator
from .stored_generator import GeneratorOptions, ImageSide
from .trainable_generator import Told

# The published repository says that its text UNet is a class of "versatile_diffusion", which diffusers' loader looks up
# among its pipelines. It has not found it there since it moved the module among its deprecated ones.
if not hasattr(pipelines, "versatile_diffusion"):
    pipelines.versatile_diffusion = versatile_diffusion


NegativePicture = Literal["grey", "black"]
# In [0, 1]. A picture of zeros is mid-grey where pictures are in [-1, 1], as in Brain-Diffuser's code, and diffusers'
# dual-guided pipeline takes .5, too.
_NEGATIVE_PICTURES = {"grey": 0.5, "black": 0.0}


class VersatileDiffusionOptions(GeneratorOptions):
    """What a file may say of [`VersatileDiffusionImageGenerator`]."""

    text_to_image_ratio: Annotated[float, Field(ge=0, le=1)] = 0.5
    unconditional_tokens: Literal["zeros", "encoded"] = "zeros"
    negative_picture: NegativePicture = "grey"
    antialias: bool = False
    clip_normalised_start: bool = False
    published_scheduler: bool = False
    image_side: ImageSide | None = None
    noise_one_step_later: bool = False


class VersatileDiffusionImageGenerator(LatentDiffusionGenerator):
    """Draws pictures of 512×512 from CLIP's image tokens, as MindEye does, from text tokens, or from both.

    The diffusion model is two UNets whose transformer blocks correspond. From image tokens, the image UNet draws alone.
    From text tokens, its transformer blocks are exchanged for those of the text UNet. From both, both blocks read the
    same input, and the output is their mean, weighted by `text_to_image_ratio`.

    MindEye's published reconstructions come from image tokens with 20 steps of UniPC (`published_scheduler`), guidance
    scale 3.5 and strength .85; MindBridge's from image and text tokens with equal weights, 20 steps of UniPC and
    guidance scale 5.

    Args:
        vae: Stable Diffusion's autoencoder.
        image_encoder: CLIP ViT-L/14's vision tower; None for a generator that draws from embeddings but makes none.
        image_unet: Predicts the noise from image tokens; None for a generator that embeds, encodes and decodes alone.
        text_unet: Its transformer blocks read text tokens; None for a generator that draws from image tokens alone.
        scheduler: Steps of the denoising.
        text_encoder: CLIP ViT-L/14's text tower; None if captions need not be embedded.
        tokenizer: The text tower's.
        image_feature_extractor: Kept so that the saved folder has all components of the published one. Pictures are
            prepared by [`ClipPreprocessing`], as it says what is antialiased.
        text_to_image_ratio: Weight of the text where there are image and text tokens, 0 to 1; the drawing setting of
            that name goes before it.
        unconditional_tokens: What guidance leads away from: `"zeros"`, as MindEye does, or `"encoded"`, which stands
            for the tokens of a picture of one colour and of an empty caption.
        negative_picture: Which picture that is: `"grey"`, as Brain-Diffuser and diffusers' dual-guided pipeline have
            it, or `"black"`.
        antialias: Whether pictures are antialiased when they are reduced for CLIP; those of MindEye's published targets
            were not.
        clip_normalised_start: Repeats a peculiarity of MindEye's published code: the low-level picture is standardised
            with CLIP's colour statistics, instead of being scaled to [-1, 1], when it is encoded as the start of the
            diffusion. The mode of the posterior stands for the sample that is drawn there.
        published_scheduler: Puts UniPC in the place of the scheduler, by which MindEye and MindBridge were drawn, as it
            is in diffusers 0.13, MindBridge's version. Later versions end it at another noise level unless they are
            told `final_sigmas_type="sigma_min"`; latents differ by as much as 0.2.
        image_side: Height and width of the pictures; None for that of the image UNet, or 512 without one.
        noise_one_step_later: Repeats a peculiarity of Brain-Diffuser's published code: the low-level picture is given
            the noise of the step before the one that denoising begins with.

    Raises:
        FmriModelsError: An option is out of range, or diffusers' dual-guided pipeline saved the image UNet.
    """

    options = VersatileDiffusionOptions
    default_repository = "shi-labs/versatile-diffusion"
    published_spaces: ClassVar[Mapping[str, EmbeddingSpace]] = {
        "image_embedding_space": clip_image_tokens_space(),
        "text_embedding_space": clip_text_tokens_space(),
        "latent_space": stable_diffusion_latent_space(512),
    }
    drawing_settings = DrawingSettings(guidance_scale=3.5, strength=0.85)
    used_settings = (*ImageGenerator.used_settings, "text_to_image_ratio")
    diffusers_class_names = ("VersatileDiffusionPipeline", "VersatileDiffusionImageVariationPipeline")
    published_side = 512
    # The text UNet is never called as a whole: its blocks travel inside of the image UNet.
    model_cpu_offload_seq = "text_encoder->image_encoder->image_unet->vae"
    learning_components = ("image_unet",)
    _optional_components = [
        "image_encoder",
        "image_unet",
        "text_unet",
        "scheduler",
        "text_encoder",
        "tokenizer",
        "image_feature_extractor",
    ]

    @register_to_config
    def __init__(
        self,
        vae: AutoencoderKL,
        image_encoder: CLIPVisionModelWithProjection | None = None,
        image_unet: UNet2DConditionModel | None = None,
        text_unet: versatile_diffusion.UNetFlatConditionModel | None = None,
        scheduler: KarrasDiffusionSchedulers | None = None,
        text_encoder: CLIPTextModelWithProjection | None = None,
        tokenizer: CLIPTokenizer | None = None,
        image_feature_extractor: CLIPImageProcessor | None = None,
        text_to_image_ratio: float = 0.5,
        unconditional_tokens: str = "zeros",
        negative_picture: str = "grey",
        antialias: bool = False,
        clip_normalised_start: bool = False,
        image_side: int | None = None,
        published_scheduler: bool = False,
        noise_one_step_later: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= text_to_image_ratio <= 1:
            raise FmriModelsError(
                f"text_to_image_ratio is {text_to_image_ratio}; expected a number from 0 (image) to 1 (text)."
            )
        if unconditional_tokens not in ("zeros", "encoded"):
            raise FmriModelsError(f"unconditional_tokens is {unconditional_tokens!r}; expected 'zeros' or 'encoded'.")
        if negative_picture not in _NEGATIVE_PICTURES:
            raise FmriModelsError(f"negative_picture is {negative_picture!r}; expected 'grey' or 'black'.")
        if image_unet is not None and image_unet.config.dual_cross_attention:
            raise FmriModelsError(
                "The image UNet has blocks for text and images in one, as diffusers' dual-guided pipeline saves them; "
                f"load one with two UNets, such as {self.default_repository}."
            )
        if published_scheduler and scheduler is not None:
            scheduler = UniPCMultistepScheduler.from_config(scheduler.config, final_sigmas_type="sigma_min")
        self.register_modules(
            vae=vae,
            image_encoder=image_encoder,
            image_unet=image_unet,
            text_unet=text_unet,
            scheduler=scheduler,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            image_feature_extractor=image_feature_extractor,
        )

    @property
    def network(self) -> ModelMixin | None:
        return self.image_unet

    @property
    def image_embedding_space(self) -> EmbeddingSpace:
        space = replace(clip_image_tokens_space(), preprocessing=self.clip_preprocessing.description)
        if self.image_encoder is None:
            return _of_width(space, self.image_unet)
        vision = self.image_encoder.config
        return replace(space, shape=((vision.image_size // vision.patch_size) ** 2 + 1, vision.projection_dim))

    @property
    def text_embedding_space(self) -> EmbeddingSpace | None:
        """Space of `text_embeds`; None without a text UNet, whose blocks read them, and without a text tower."""
        if self.text_encoder is None:
            return None if self.text_unet is None else _of_width(clip_text_tokens_space(), self.text_unet)
        text = self.text_encoder.config
        return replace(clip_text_tokens_space(), shape=(text.max_position_embeddings, text.projection_dim))

    @property
    def text_weight(self) -> float:
        """Weight of the text beside the image: what the call is drawn with, or the generator's own."""
        ratio = self._text_to_image_ratio
        return self.config.text_to_image_ratio if ratio is None else ratio

    @property
    def clip_preprocessing(self) -> ClipPreprocessing:
        return replace(super().clip_preprocessing, antialias=self.config.antialias)

    def embed_prepared(self, prepared: torch.Tensor) -> torch.Tensor:
        """Embeds pictures (N, 3, h, w) that `clip_preprocessing` prepared.

        Returns:
            (N, 257, 768) float32: all tokens, normalised and projected as CLIP does with the class token alone, over
            the norm of the picture's class token.
        """
        encoder = self.image_encoder
        # The whole encoder is called, because only that brings it to the device where it is offloaded.
        hidden = encoder(pixel_values=prepared.to(self._execution_device, encoder.dtype)).last_hidden_state
        return divide_by_cls_norm(encoder.visual_projection(encoder.vision_model.post_layernorm(hidden)).float())

    def text_tokens(self, texts: Sequence[str]) -> torch.Tensor:
        """All text tokens, normalised and projected as CLIP does with the end token alone.

        Args:
            texts: N captions; what exceeds 77 tokens is cut off.

        Returns:
            (N, 77, 768) float32, divided by the norm of the caption's end token.

        Raises:
            FmriModelsError: The generator was loaded without its text tower.
        """
        encoder = self.require("text_encoder", "embeds captions")
        input_ids = token_ids(self.require("tokenizer", "reads captions"), texts, encoder.config)
        return self.in_chunks(self._embed_tokens, input_ids)

    def condition(self, conditions: Conditions, noises: dict[str, torch.Tensor]) -> Told:
        """Tokens `"image"` (N, 257, 768) and `"text"` (N, 77, 768), in the UNet's dtype, of what is given."""
        if conditions.text_embeds is not None:
            self.require("text_unet", "reads text_embeds")
        given = {"image": conditions.image_embeds, "text": conditions.text_embeds}
        return {name: self._for_network(tokens) for name, tokens in given.items() if tokens is not None}

    def unconditional(self, num_images: int) -> Told:
        """Image tokens of nothing, by which the image UNet draws alone."""
        tokens = torch.zeros(num_images, *self.image_embedding_space.shape)
        return self.unconditional_like({"image": self._for_network(tokens)})

    def unconditional_like(self, told: Told) -> Told:
        if self.config.unconditional_tokens == "zeros":
            return {name: torch.zeros_like(tokens) for name, tokens in told.items()}
        nothing = {"image": self._negative_picture, "text": lambda: self.text_tokens([""])}
        return {name: self._for_network(nothing[name]()).expand_as(tokens) for name, tokens in told.items()}

    def predict(self, sample: torch.Tensor, timestep: torch.Tensor, told: Told) -> torch.Tensor:
        """The image UNet's prediction, with the blocks that read what it is told already in place."""
        # Text before image, which is the order in which _MixedTransformer parts them again.
        tokens = torch.cat([told[name] for name in ("text", "image") if name in told], dim=1)
        return self.image_unet(sample, timestep, encoder_hidden_states=tokens).sample

    def start_from(self, latents: torch.Tensor) -> torch.Tensor:
        return self.in_chunks(self._clip_normalised, latents) if self.config.clip_normalised_start else latents

    def _clip_normalised(self, latents: torch.Tensor) -> torch.Tensor:
        pictures = self.to_pictures(latents).float() / 2 + 0.5
        mean, std = pictures.new_tensor(CLIP_MEAN), pictures.new_tensor(CLIP_STD)
        return self.to_latents(((pictures - mean[:, None, None]) / std[:, None, None]).to(self.vae.dtype))

    @contextmanager
    def reading(self, told: Told) -> Iterator[None]:
        """Puts the transformer blocks that read what it is told into the image UNet, and the old ones back afterwards.

        Blocks inside of the image UNet, unlike those beside it, are moved with it by CPU offloading.
        """
        if "text" not in told:
            yield
            return
        blocks = {
            name: block for name, block in self.image_unet.named_modules() if isinstance(block, Transformer2DModel)
        }
        try:
            for name, block in blocks.items():
                text_block = self.text_unet.get_submodule(name)
                if "image" in told:
                    text_block = _MixedTransformer(text_block, block, told["text"].shape[1], self.text_weight)
                self.image_unet.set_submodule(name, text_block)
            yield
        finally:
            for name, block in blocks.items():
                self.image_unet.set_submodule(name, block)

    def _negative_picture(self) -> torch.Tensor:
        self.require("image_encoder", "embeds the picture that guidance leads away from")
        return self._embed(torch.full((1, *self.image_size), _NEGATIVE_PICTURES[self.config.negative_picture]))

    def _for_network(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens.to(self._execution_device, self.image_unet.dtype)

    def _embed_tokens(self, input_ids: torch.Tensor) -> torch.Tensor:
        encoder, input_ids = self.text_encoder, input_ids.to(self._execution_device)
        tokens = encoder.text_projection(encoder(input_ids=input_ids).last_hidden_state).float()
        return divide_by_end_norm(tokens, end_positions(encoder, input_ids))


def _of_width(space: EmbeddingSpace, unet: ModelMixin | None) -> EmbeddingSpace:
    """The published space, with tokens as wide as those that a UNet reads."""
    return space if unet is None else replace(space, shape=(space.shape[0], unet.config.cross_attention_dim))


class _MixedTransformer(nn.Module):
    """Stands in a UNet for two transformer blocks, of which one reads text tokens and the other image tokens.

    diffusers' `DualTransformer2DModel` means the same, but the UNet of diffusers 0.42 calls it with an argument that it
    does not take.

    Args:
        text_block: Reads the first tokens.
        image_block: Reads the other ones.
        num_text_tokens: How many the first ones are.
        text_weight: Share of the text block in the output.
    """

    def __init__(
        self,
        text_block: Transformer2DModel,
        image_block: Transformer2DModel,
        num_text_tokens: int,
        text_weight: float,
    ) -> None:
        super().__init__()
        self.text_block, self.image_block = text_block, image_block
        self.num_text_tokens, self.text_weight = num_text_tokens, text_weight

    def forward(
        self, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor, **options: Any
    ) -> tuple[torch.Tensor]:
        """The weighted mean of both blocks' outputs, in the tuple that the UNet expects."""
        text_tokens = encoder_hidden_states[:, : self.num_text_tokens]
        image_tokens = encoder_hidden_states[:, self.num_text_tokens :]
        from_text = self.text_block(hidden_states, encoder_hidden_states=text_tokens, **options)[0]
        from_image = self.image_block(hidden_states, encoder_hidden_states=image_tokens, **options)[0]
        return (torch.lerp(from_image, from_text, self.text_weight),)
