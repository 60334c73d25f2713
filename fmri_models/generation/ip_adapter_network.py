"""The network of IP-Adapter (Ye et al., 2023): what it adds to a UNet, and the file in which it was published."""

from typing import Any, Self

import torch
from diffusers import ConfigMixin, ModelMixin, UNet2DConditionModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0
from diffusers.models.embeddings import ImageProjection
from safetensors.torch import load_file
from torch import nn
from transformers import CLIPVisionModelWithProjection

from ..errors import FmriModelsError
from ..hub_repository import local_folder
from ..weights import check_finite, stored_tensors_of
from .generator_folder import take_network_dtype


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


def cross_attentions(unet: UNet2DConditionModel) -> list[str]:
    """Names of the cross-attentions among the UNet's `attn_processors`, in whose order adapters are published."""
    return [name for name in unet.attn_processors if name.endswith("attn2.processor")]


def check_unet(adapter: IPAdapter, unet: UNet2DConditionModel) -> None:
    """Refuses an adapter that was published for another UNet.

    Raises:
        FmriModelsError: Its attentions are of another number or width.
    """
    attentions = [unet.get_submodule(name.removesuffix(".processor")) for name in cross_attentions(unet)]
    widths = [attention.inner_dim for attention in attentions]
    if list(adapter.config.hidden_sizes) != widths or adapter.config.cross_attention_dim != (
        unet.config.cross_attention_dim
    ):
        raise FmriModelsError(
            f"The adapter is for {len(adapter.config.hidden_sizes)} attentions to tokens of width "
            f"{adapter.config.cross_attention_dim} and the UNet has {len(widths)} to tokens of width "
            f"{unet.config.cross_attention_dim}, or theirs are of other widths; choose the adapter of this UNet."
        )


def check_image_encoder(adapter: IPAdapter, image_encoder: CLIPVisionModelWithProjection) -> None:
    """Refuses an image encoder whose embeddings the adapter doesn't read.

    Raises:
        FmriModelsError: They are of another width.
    """
    read, given = adapter.config.image_embed_dim, image_encoder.config.projection_dim
    if read != given:
        raise FmriModelsError(
            f"The adapter reads image embeddings of {read} values and the image encoder makes {given}; choose the "
            "image encoder that was published with the adapter."
        )
