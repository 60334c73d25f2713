"""Configuration of MindEye."""

from dataclasses import field
from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict

from ...configuration_fmri import LAYERS, SHARE, SIZE, FmriConfig
from ...errors import FmriModelsError
from ...weights import MAX_SIZE

# A token is the unit of the backbone's head and of the prior.
_TOKEN_AXES = 2
_LATENT_AXES = 3


@strict
class MindEyeConfig(FmriConfig):
    """Configuration of a [`MindEyeModel`]; the defaults are the published sizes.

    A model with an `image_embedding_space` of shape (T, D) has a backbone, a projector and a prior; one with a
    `latent_space` of shape (C, h, w) has a low-level branch.

    Args:
        hidden_size: Width of the backbone.
        num_hidden_layers: Residual blocks of the backbone.
        norm: `"layer"` (with GELU) or `"batch"` (with ReLU).
        activation_first: Whether the backbone's activations come before its norms.
        input_dropout: Dropout after the subjects' input layers.
        hidden_dropout: Dropout in the residual blocks.
        use_projector: Whether a projector makes the embeddings of the contrastive loss and of retrieval; without one
            they are the backbone's tokens.
        projector_size: Hidden width of the projector.
        use_prior: Whether a diffusion prior makes the image embeddings; without one they are the projector's.
        prior_num_layers: Layers of the prior.
        prior_num_attention_heads: Attention heads of the prior.
        prior_attention_head_dim: Width of one head.
        prior_feed_forward_multiplier: Hidden width of the prior's feed forward, as a multiple of the tokens' width.
        prior_learned_query_mode: `"pos_emb"`, `"token"`, `"all_pos_emb"` or `"none"`; see [`DiffusionPriorNetwork`].
        token_components: The backbone predicts at most so many principal components of the training pictures' tokens,
            which [`TokenComponents`] turns into tokens; None predicts the tokens themselves, as published.
        prior_adds_condition: Whether the prior's prediction is its network's plus the backbone's tokens. Not in the
            paper; a prior on tokens that already resemble the picture's learns in fewer steps what they lack.
        prior_num_timesteps: Length of the noise schedule.
        prior_brain_dropout: Probability of the condition to be replaced by its null in training.
        prior_image_dropout: The same for the noisy tokens.
        prior_num_inference_steps: Steps of sampling; None takes all.
        prior_guidance_scale: Weight of the condition in sampling; 1 is without guidance.
        low_level_hidden_size: Width of the low-level branch.
        low_level_num_hidden_layers: Residual blocks of the low-level branch.
        low_level_input_dropout: Dropout after its input layers.
        low_level_hidden_dropout: Dropout in its blocks.
        low_level_start_channels: Channels of the map that is upsampled.
        low_level_block_out_channels: Channels of the upsampling blocks from the last to the first. N blocks double the
            size N - 1 times, so the latent's height and width are multiples of 2^(N - 1).
        low_level_layers_per_block: Residual layers of a block, less one.
        low_level_norm_num_groups: Groups of the upsampler's norms; divides the channels of all blocks.
        low_level_feature_size: Width of the feature maps that are compared with a teacher's; None without a teacher.

    Example:
        >>> from fmri_models import MindEyeConfig, MindEyeModel
        >>> space = {"encoder": "openai/clip-vit-large-patch14", "layer": "projected_tokens", "shape": [257, 768]}
        >>> config = MindEyeConfig(subject_names=["subj01"], num_voxels=[15724], image_embedding_space=space)
        >>> model = MindEyeModel(config)
    """

    model_type = "fmri-mindeye"
    ranges: ClassVar = {
        "hidden_size": SIZE,
        "num_hidden_layers": LAYERS,
        "input_dropout": SHARE,
        "hidden_dropout": SHARE,
        "projector_size": SIZE,
        "prior_num_layers": LAYERS,
        "prior_num_attention_heads": SIZE,
        "prior_attention_head_dim": SIZE,
        "prior_feed_forward_multiplier": SIZE,
        "token_components": SIZE,
        "prior_num_timesteps": (2, 100_000),
        "prior_brain_dropout": SHARE,
        "prior_image_dropout": SHARE,
        "prior_num_inference_steps": (2, 100_000),
        "prior_guidance_scale": (0, MAX_SIZE),
        "low_level_hidden_size": SIZE,
        "low_level_num_hidden_layers": LAYERS,
        "low_level_input_dropout": SHARE,
        "low_level_hidden_dropout": SHARE,
        "low_level_start_channels": SIZE,
        "low_level_block_out_channels": SIZE,
        "low_level_layers_per_block": LAYERS,
        "low_level_norm_num_groups": SIZE,
        "low_level_feature_size": SIZE,
    }

    hidden_size: int = 4096
    num_hidden_layers: int = 4
    norm: Literal["layer", "batch"] = "layer"
    activation_first: bool = False
    input_dropout: float | int = 0.5
    hidden_dropout: float | int = 0.15
    use_projector: bool = True
    projector_size: int = 2048
    use_prior: bool = True
    prior_num_layers: int = 6
    prior_num_attention_heads: int = 12
    prior_attention_head_dim: int = 64
    prior_feed_forward_multiplier: int = 4
    prior_learned_query_mode: Literal["pos_emb", "token", "all_pos_emb", "none"] = "pos_emb"
    token_components: int | None = None
    prior_adds_condition: bool = False
    prior_num_timesteps: int = 100
    prior_brain_dropout: float | int = 0.2
    prior_image_dropout: float | int = 0.2
    prior_num_inference_steps: int | None = None
    prior_guidance_scale: float | int = 1.0
    low_level_hidden_size: int = 4096
    low_level_num_hidden_layers: int = 4
    low_level_input_dropout: float | int = 0.5
    low_level_hidden_dropout: float | int = 0.25
    low_level_start_channels: int = 64
    low_level_block_out_channels: list[int] = field(default_factory=lambda: [64, 128, 256])
    low_level_layers_per_block: int = 1
    low_level_norm_num_groups: int = 32
    low_level_feature_size: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self._check_spaces()
        if self.image_embedding_space is not None:
            self._check_components()
            self._check_prior()
        if self.latent_space is not None:
            self._check_low_level()

    @property
    def token_shape(self) -> tuple[int, int]:
        """(T, D) of the image embeddings; an embedding of one axis is one token."""
        space = self.space("image_embedding_space")
        assert space is not None
        return (space.shape[0], space.shape[1]) if len(space.shape) == _TOKEN_AXES else (1, space.shape[0])

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, h, w) of the latents."""
        space = self.space("latent_space")
        assert space is not None
        return (space.shape[0], space.shape[1], space.shape[2])

    @property
    def low_level_start_size(self) -> tuple[int, int]:
        """Height and width of the map that is upsampled."""
        factor = 2 ** (len(self.low_level_block_out_channels) - 1)
        return self.latent_shape[1] // factor, self.latent_shape[2] // factor

    def _check_spaces(self) -> None:
        if self.text_embedding_space is not None:
            raise FmriModelsError(
                "MindEye decodes no text embeddings, and the configuration has a text_embedding_space; leave it out."
            )
        embeddings, latents = self.space("image_embedding_space"), self.space("latent_space")
        if embeddings is not None and len(embeddings.shape) > _TOKEN_AXES:
            raise FmriModelsError(
                f"MindEye decodes image embeddings of shape (tokens, width); the space has {embeddings.shape}; choose "
                "another generator."
            )
        if latents is not None and len(latents.shape) != _LATENT_AXES:
            raise FmriModelsError(
                f"MindEye decodes latents of shape (channels, height, width); the space has {latents.shape}; choose "
                "another generator."
            )

    def _check_components(self) -> None:
        if self.token_components is not None and self.token_components < 1:
            raise FmriModelsError(f"token_components is {self.token_components}; expected a number from 1, or null.")

    def _check_prior(self) -> None:
        if self.use_prior and self.prior_attention_head_dim % 2:
            raise FmriModelsError(
                f"prior_attention_head_dim is {self.prior_attention_head_dim}; expected an even number, whose values "
                "are turned in pairs."
            )
        steps = self.prior_num_inference_steps
        if steps is not None and not 2 <= steps <= self.prior_num_timesteps:
            raise FmriModelsError(
                f"prior_num_inference_steps is {steps}; expected 2 to prior_num_timesteps, {self.prior_num_timesteps}."
            )

    def _check_low_level(self) -> None:
        if not self.low_level_block_out_channels:
            raise FmriModelsError("low_level_block_out_channels is empty; expected the channels of one block at least.")
        factor = 2 ** (len(self.low_level_block_out_channels) - 1)
        _, height, width = self.latent_shape
        if height % factor or width % factor:
            raise FmriModelsError(
                f"The latents are {height}x{width}, no multiple of {factor}, the upsampling of "
                f"{len(self.low_level_block_out_channels)} blocks; give fewer low_level_block_out_channels."
            )
        if any(channels % self.low_level_norm_num_groups for channels in self.low_level_block_out_channels):
            raise FmriModelsError(
                f"low_level_block_out_channels is {self.low_level_block_out_channels}; expected multiples of "
                f"low_level_norm_num_groups, {self.low_level_norm_num_groups}."
            )
