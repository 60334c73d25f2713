"""Configuration of MindBridge."""

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict

from ...configuration_fmri import LAYERS, SHARE, SIZE, FmriConfig
from ...errors import FmriModelsError
from ...weights import MAX_SIZE

# A token is the unit of what a generator reads.
_TOKEN_AXES = 2


@strict
class MindBridgeConfig(FmriConfig):
    """Configuration of a [`MindBridgeModel`]; the defaults are the published sizes.

    A model has a head for each of `image_embedding_space` and `text_embedding_space` that the configuration has; one of
    shape (D,) is a single token.

    Args:
        hidden_size: Width of what all subjects have in common.
        num_hidden_layers: Residual blocks of the translator.
        adapter_size: Width inside of the adapters of embedders and builders.
        embedder_dropout: Dropout at the end of the embedders.
        hidden_dropout: Dropout in the translator's blocks.
        use_builders: Whether each subject has a builder, which turns what is common into the subject's responses; a
            model of one subject was published without.
        image_embedding_norm: Mean length of a training picture's embedding, all tokens together, which decoded ones are
            given (their direction is all that is learned); None divides them by the length of their first token, as
            published. Not used where the space itself is normalised so.
        text_embedding_norm: The same for captions.

    Example:
        >>> from fmri_models import MindBridgeConfig, MindBridgeModel
        >>> space = {"encoder": "openai/clip-vit-large-patch14", "layer": "projected_tokens", "shape": [257, 768]}
        >>> subjects = {"subject_names": ["subj01", "subj02"], "num_voxels": [8192, 8192]}
        >>> model = MindBridgeModel(MindBridgeConfig(**subjects, image_embedding_space=space))
    """

    model_type = "fmri-mindbridge"
    set_by_training: ClassVar[tuple[str, ...]] = ("image_embedding_norm", "text_embedding_norm")
    ranges: ClassVar = {
        "hidden_size": SIZE,
        "num_hidden_layers": LAYERS,
        "adapter_size": SIZE,
        "embedder_dropout": SHARE,
        "hidden_dropout": SHARE,
        "image_embedding_norm": (0, MAX_SIZE),
        "text_embedding_norm": (0, MAX_SIZE),
    }

    hidden_size: int = 2048
    num_hidden_layers: int = 4
    adapter_size: int = 128
    embedder_dropout: float | int = 0.5
    hidden_dropout: float | int = 0.15
    use_builders: bool = True
    image_embedding_norm: float | int | None = None
    text_embedding_norm: float | int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.latent_space is not None:
            raise FmriModelsError(
                "MindBridge decodes no latents, and the configuration has a latent_space; leave it out, in a recipe by "
                "targets: [image_embeds, text_embeds]."
            )
        for name in ("image_embedding_space", "text_embedding_space"):
            space = self.space(name)
            if space is not None and len(space.shape) > _TOKEN_AXES:
                raise FmriModelsError(
                    f"MindBridge decodes embeddings of shape (tokens, width); {name} has {space.shape}; choose another "
                    "generator."
                )

    def token_shape(self, name: str) -> tuple[int, int]:
        """(T, D) of the embeddings of a space that the configuration has; an embedding of one axis is one token."""
        space = self.space(name)
        assert space is not None
        return (space.shape[0], space.shape[1]) if len(space.shape) == _TOKEN_AXES else (1, space.shape[0])
