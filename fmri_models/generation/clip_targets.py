"""CLIP embeddings alone, for methods that are trained to identify pictures and draw none."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NoReturn, Self

import torch
from diffusers import DiffusionPipeline
from diffusers.configuration_utils import register_to_config
from torch.nn import functional as F
from transformers import CLIPTextModelWithProjection, CLIPTokenizer, CLIPVisionModelWithProjection

from ..conditions import Conditions
from ..embedding_space import EmbeddingSpace
from ..errors import FmriModelsError
from ..hub_repository import NotFetchedError, check_place, hub_errors_as_sentences, is_folder
from ..library_options import dtype_of
from .clip_embedding import (
    CLIP_MEAN,
    CLIP_STD,
    ClipPreprocessing,
    divide_by_cls_norm,
    divide_by_end_norm,
    end_positions,
    pooled_image_embeds,
    pooled_text_embeds,
    project_image_tokens,
    project_text_tokens,
    token_ids,
)
from .generator_folder import load_network
from .image_generator import ImageGenerator
from .open_clip_model import OpenClipModel
from .stored_generator import GeneratorOptions, hub_options
from .weights_digest import weights_digest

Layer = Literal["projected_tokens", "pooled"]
Normalisation = Literal["token_norm", "none"]

# What a space says of vectors that were divided by the norm of their class token, end token, or of themselves.
_NORMS = {
    ("image", "projected_tokens"): "cls_norm",
    ("text", "projected_tokens"): "eos_norm",
    ("image", "pooled"): "l2_norm",
    ("text", "pooled"): "l2_norm",
}
# A CLIP's whole weights stand for those of either tower.
_TOWERS = {
    CLIPVisionModelWithProjection: (r"^text_model\.", r"^text_projection\.", r"^logit_scale$"),
    CLIPTextModelWithProjection: (r"^vision_model\.", r"^visual_projection\.", r"^logit_scale$"),
}
_TEXTS_A_PASS = 128


class ClipTargetsOptions(GeneratorOptions):
    """What a file may say of [`ClipTargets`]."""

    encoder_name: str | None = None
    layer: Layer = "projected_tokens"
    normalisation: Normalisation = "token_norm"
    antialias: bool = False


class ClipTargets(ImageGenerator):
    """A CLIP in an image generator's place: it gives targets for training and embeds galleries, and draws no pictures.

    Without other options its image embeddings are MindEye's targets: all 257 tokens of OpenAI's ViT-L/14, divided by
    the norm of the class token, from pictures that were reduced to 224 pixels without antialiasing. MindEye's small
    variant has `layer="pooled"`, which are vectors of norm 1.

    Args:
        image_encoder: A CLIP's vision tower, or a whole CLIP of open_clip.
        text_encoder: The text tower of the same CLIP; None for pictures alone, or where `image_encoder` has both.
        tokenizer: The text tower's.
        encoder_name: What spaces call the encoder, such as its Hub repository.
        encoder_revision: Commit, or digest of the weights; None for published weights that never changed.
        layer: `"projected_tokens"` for all tokens, `"pooled"` for CLIP's embedding alone.
        normalisation: `"token_norm"` divides by the norm of the class or end token, which for pooled embeddings is
            their own; `"none"` leaves them as they are.
        interpolation: How pictures are resized.
        antialias: Whether resizing smooths before it reduces.
        image_mean: Mean of the three channels in units of [0, 1]; None for CLIP's own.
        image_std: Standard deviation of the three channels; None for CLIP's own.

    Example:
        >>> targets = ClipTargets.from_source("openai/clip-vit-large-patch14")
        >>> targets.embed_images(torch.rand(2, 3, 425, 425)).shape
        torch.Size([2, 257, 768])
    """

    used_settings = ()
    model_cpu_offload_seq = "text_encoder->image_encoder"
    options = ClipTargetsOptions
    default_repository = "openai/clip-vit-large-patch14"
    embeds_any_size = True
    _optional_components = ["text_encoder", "tokenizer"]

    @register_to_config
    def __init__(
        self,
        image_encoder: CLIPVisionModelWithProjection | OpenClipModel,
        text_encoder: CLIPTextModelWithProjection | None = None,
        tokenizer: CLIPTokenizer | None = None,
        encoder_name: str = "openai/clip-vit-large-patch14",
        encoder_revision: str | None = None,
        layer: Layer = "projected_tokens",
        normalisation: Normalisation = "token_norm",
        interpolation: Literal["bicubic", "bilinear"] = "bicubic",
        antialias: bool = False,
        image_mean: Sequence[float] | None = None,
        image_std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        for name, value, known in (
            ("layer", layer, ("projected_tokens", "pooled")),
            ("normalisation", normalisation, ("token_norm", "none")),
            ("interpolation", interpolation, ("bicubic", "bilinear")),
        ):
            if value not in known:
                raise FmriModelsError(f"ClipTargets has {name} {value!r}; expected {' or '.join(known)}.")
        self.register_modules(image_encoder=image_encoder, text_encoder=text_encoder, tokenizer=tokenizer)
        for module in (image_encoder, text_encoder):
            if module is not None:
                module.eval()

    @classmethod
    def from_source(
        cls,
        repository: str | None = None,
        revision: str | None = None,
        subfolder: str | None = None,
        encoder_name: str | None = None,
        layer: Layer = "projected_tokens",
        normalisation: Normalisation = "token_norm",
        antialias: bool = False,
        **kwargs: Any,
    ) -> Self:
        """Loads a CLIP in transformers' layout, or targets that were saved before with their own options.

        Args:
            repository: Folder or Hub repository; None for OpenAI's ViT-L/14.
            revision: Branch, tag or commit of a Hub repository; it becomes a part of the space.
            subfolder: Folder inside the repository.
            encoder_name: What spaces call the encoder; None for the repository, or the name of a folder together with
                a digest of its weights. Name the repository that a local copy is of, and both mean the same.
            layer: As in the class; so are the others.
            normalisation: As in the class.
            antialias: As in the class.
            **kwargs: Those of `from_pretrained`: `dtype` (float32 without), `cache_dir`, `local_files_only` …

        Raises:
            FmriModelsError: A tower isn't in the repository.
        """
        repository = repository or cls.default_repository
        cls._take_dtype(kwargs)
        if _is_saved_pipeline(repository, revision, subfolder, kwargs):
            return super().from_source(repository, revision=revision, subfolder=subfolder, **kwargs)
        place = {"repository": repository, "revision": revision, "subfolder": subfolder or "", **hub_options(kwargs)}
        try:
            towers = [
                load_network(tower, dtype=dtype_of(kwargs["dtype"], name), unused=unused, **place)
                for name, (tower, unused) in zip(("image_encoder", "text_encoder"), _TOWERS.items(), strict=True)
            ]
        except NotFetchedError:
            raise
        except FmriModelsError as error:
            raise FmriModelsError(
                f"{repository} is no CLIP with two projected towers such as {cls.default_repository}, or is not whole: "
                f"{error}"
            ) from error
        with hub_errors_as_sentences(repository, revision):
            tokenizer = CLIPTokenizer.from_pretrained(place.pop("repository"), **place)
        if encoder_name is None and is_folder(repository):
            encoder_name, revision = Path(repository).resolve().name, weights_digest(towers)
        return cls(
            *towers,
            tokenizer=tokenizer,
            encoder_name=encoder_name or repository,
            encoder_revision=revision,
            layer=layer,
            normalisation=normalisation,
            antialias=antialias,
        )

    @classmethod
    def from_open_clip(
        cls,
        architecture: str,
        weights: str | Path,
        encoder_name: str | None = None,
        encoder_revision: str | None = None,
        dtype: torch.dtype = torch.float32,
        antialias: bool = True,
        **options: Any,
    ) -> Self:
        """Builds a network of open_clip's list with weights from a file.

        Args:
            architecture: Name of open_clip's configuration, such as `"ViT-H-14"`.
            weights: A .safetensors file, or a checkpoint of plain tensors.
            encoder_name: What spaces call the encoder; None for the architecture.
            encoder_revision: What tells these weights from others; None for a digest of them.
            dtype: What the network computes in.
            antialias: As in the class; open_clip's own transform, on PIL pictures, has it.
            **options: `layer`, `normalisation`, `interpolation`, `image_mean`, `image_std` as in the class.

        Raises:
            FmriModelsError: open_clip isn't installed, has no such configuration, or the weights are of another one.
        """
        model = OpenClipModel.from_weights(architecture, weights)
        revision = encoder_revision or weights_digest([model])
        name = encoder_name or f"open_clip/{architecture}"
        return cls(model.to(dtype), encoder_name=name, encoder_revision=revision, antialias=antialias, **options)

    @property
    def preprocessing(self) -> ClipPreprocessing:
        """What happens to a picture before the vision tower."""
        config = self.config
        return ClipPreprocessing(
            self.image_size[1],
            config.interpolation,
            config.antialias,
            mean=tuple(config.image_mean or CLIP_MEAN),
            std=tuple(config.image_std or CLIP_STD),
        )

    @property
    def image_size(self) -> tuple[int, int, int]:
        if isinstance(self.image_encoder, OpenClipModel):
            size = self.image_encoder.image_size
        else:
            size = self.image_encoder.config.image_size
        return (3, size, size)

    @property
    def image_embedding_space(self) -> EmbeddingSpace:
        encoder = self.image_encoder
        if isinstance(encoder, OpenClipModel):
            num_tokens, width = encoder.num_image_tokens, encoder.embed_dim
        else:
            num_tokens = (encoder.config.image_size // encoder.config.patch_size) ** 2 + 1
            width = encoder.config.projection_dim
        space = self._space("image", num_tokens, width)
        return replace(space, preprocessing=self.preprocessing.description)

    @property
    def text_embedding_space(self) -> EmbeddingSpace | None:
        encoder = self._text_tower
        if encoder is None:
            return None
        if isinstance(encoder, OpenClipModel):
            space = self._space("text", encoder.context_length, encoder.embed_dim)
            return replace(space, preprocessing="padded with zeros to full length")
        space = self._space("text", encoder.config.max_position_embeddings, encoder.config.projection_dim)
        return replace(space, preprocessing="padded to full length")

    def embed_images(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Embeds pictures.

        Args:
            pixel_values: (N, 3, H, W) float in [0, 1], of any size.

        Returns:
            (N, *image_embedding_space.shape) float32.

        Raises:
            FmriModelsError: Shape, dtype or values differ.
        """
        return self.pass_images(self._embed_pictures, pixel_values, any_size=True)

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Embeds captions.

        Args:
            texts: N captions; what exceeds the tokenizer's length is cut off.

        Returns:
            (N, *text_embedding_space.shape) float32.

        Raises:
            FmriModelsError: There is no text tower.
        """
        encoder = self._text_tower
        if encoder is None:
            raise FmriModelsError("These ClipTargets have no text tower; load them with one to embed captions.")
        if isinstance(encoder, OpenClipModel):
            input_ids = encoder.tokenize(texts)
        else:
            input_ids = token_ids(self.tokenizer, texts, encoder.config)
        with self.released():
            return self.in_chunks(self._embed_ids, input_ids, _TEXTS_A_PASS)

    def accept(self, conditions: Conditions) -> NoReturn:
        """Refuses to draw.

        Raises:
            FmriModelsError: Always.
        """
        raise FmriModelsError(
            "ClipTargets embeds pictures and captions and draws none; retrieve with this model, or load it with an "
            "image generator that takes the same embeddings."
        )

    @property
    def _text_tower(self) -> CLIPTextModelWithProjection | OpenClipModel | None:
        return self.image_encoder if isinstance(self.image_encoder, OpenClipModel) else self.text_encoder

    def _space(self, side: Literal["image", "text"], num_tokens: int, width: int) -> EmbeddingSpace:
        layer = self.config.layer
        normalised = self.config.normalisation != "none"
        return EmbeddingSpace(
            encoder=self.config.encoder_name + ("/text" if side == "text" else ""),
            revision=self.config.encoder_revision,
            layer=layer,
            shape=(num_tokens, width) if layer == "projected_tokens" else (width,),
            normalisation=_NORMS[side, layer] if normalised else "none",
        )

    def _embed_pictures(self, pixel_values: torch.Tensor) -> torch.Tensor:
        pixel_values = self.preprocessing(pixel_values.to(self._execution_device))
        if self.config.layer == "pooled":
            return self._unit(pooled_image_embeds(self.image_encoder, pixel_values))
        tokens = project_image_tokens(self.image_encoder, pixel_values)
        return tokens if self.config.normalisation == "none" else divide_by_cls_norm(tokens)

    def _embed_ids(self, input_ids: torch.Tensor) -> torch.Tensor:
        if self.config.layer == "pooled":
            return self._unit(pooled_text_embeds(self._text_tower, input_ids))
        tokens = project_text_tokens(self._text_tower, input_ids)
        if self.config.normalisation == "none":
            return tokens
        return divide_by_end_norm(tokens, end_positions(self._text_tower, input_ids))

    def _unit(self, embeds: torch.Tensor) -> torch.Tensor:
        return embeds if self.config.normalisation == "none" else F.normalize(embeds, dim=-1)


def _is_saved_pipeline(repository: str, revision: str | None, subfolder: str | None, options: dict[str, Any]) -> bool:
    check_place(repository)
    if is_folder(repository):
        return (Path(repository) / (subfolder or "") / ClipTargets.config_name).is_file()
    names = ("cache_dir", "token", "local_files_only")
    hub_options = {name: options[name] for name in names if name in options}
    try:
        DiffusionPipeline.load_config(repository, revision=revision, subfolder=subfolder, **hub_options)
    except OSError:
        # Neither the Hub nor the cache has an index of that name; what is missing is told by whoever loads the towers.
        return False
    return True
