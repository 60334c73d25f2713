"""Configuration of MinD-Vis."""

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict

from ...configuration_fmri import LAYERS, SHARE, SIZE, FmriConfig
from ...errors import FmriModelsError

_TOKEN_AXES = 2


@strict
class MindVisConfig(FmriConfig):
    """Configuration of [`MindVisModel`] and its parts; the defaults are the published sizes.

    All subjects are read by the same weights, so they have one width, a multiple of the patch; the processor's
    `padding: wrap` gives it to them.

    Args:
        patch_size: Voxels of a patch.
        hidden_size: Width of the encoder.
        num_hidden_layers: Its layers.
        num_attention_heads: Its attention heads.
        mlp_ratio: Width between the two linear layers of a block, as a multiple of the block's width; 1 as published.
        decoder_hidden_size: Width of the decoder of masked modelling.
        decoder_num_hidden_layers: Its layers.
        decoder_num_attention_heads: Its attention heads.
        mask_ratio: Share of the patches that masked modelling hides.
        focus_range: First voxel and the one after the last of a region that is hidden more often than the rest (focus
            masking); None hides all alike.
        focus_rate: Weight of its patches in the draw; that of the others is 1 less this.
        global_pool: Whether the encoder gives the mean of its tokens and not the tokens.
        use_decoder: Whether a [`MindVisModel`] keeps the decoder of masked modelling, which it needs to be pretrained
            and not to decode.
        layer_norm_eps: What the norms add to a variance.
        initializer_range: Standard deviation of new tokens and patch weights.

    Example:
        >>> from fmri_models import MindVisConfig, MindVisForPreTraining
        >>> config = MindVisConfig(subject_names=["subj01"], num_voxels=[4656])
        >>> model = MindVisForPreTraining(config)
    """

    model_type = "fmri-mindvis"
    learned_conditions: ClassVar[tuple[str, ...]] = ("encoder_hidden_states_space", "time_embeds_space")
    decodes_targets = False
    ranges: ClassVar = {
        "patch_size": SIZE,
        "hidden_size": SIZE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": SIZE,
        "mlp_ratio": (0, 64),
        "decoder_hidden_size": SIZE,
        "decoder_num_hidden_layers": LAYERS,
        "decoder_num_attention_heads": SIZE,
        "mask_ratio": SHARE,
        "focus_rate": SHARE,
        "layer_norm_eps": SHARE,
        "initializer_range": SHARE,
    }

    patch_size: int = 16
    hidden_size: int = 1024
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    mlp_ratio: float | int = 1.0
    decoder_hidden_size: int = 512
    decoder_num_hidden_layers: int = 8
    decoder_num_attention_heads: int = 16
    mask_ratio: float | int = 0.75
    focus_range: list[int] | None = None
    focus_rate: float | int = 0.6
    global_pool: bool = False
    use_decoder: bool = True
    layer_norm_eps: float | int = 1e-5
    initializer_range: float | int = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self._check_widths()
        self._check_layers("", self.hidden_size, self.num_attention_heads)
        self._check_layers("decoder_", self.decoder_hidden_size, self.decoder_num_attention_heads)
        self._check_focus()
        self._check_spaces()

    @property
    def num_patches(self) -> int:
        """Patches of a pattern."""
        return max(self.num_voxels, default=self.patch_size) // self.patch_size

    @property
    def context_shape(self) -> tuple[int, int]:
        """(T, C) of what the generator's cross-attention reads."""
        space = self.space("encoder_hidden_states_space")
        assert space is not None
        return space.shape[0], space.shape[1]

    def _check_widths(self) -> None:
        widths = sorted(set(self.num_voxels))
        advice = f"give the processor padding: wrap and patch_size: {self.patch_size}"
        if len(widths) > 1:
            raise FmriModelsError(
                f"MinD-Vis reads all subjects by the same weights, and they have {widths[0]} to {widths[-1]} voxels; "
                f"{advice}."
            )
        if widths and widths[0] % self.patch_size:
            raise FmriModelsError(
                f"num_voxels is {widths[0]}, no multiple of patch_size, {self.patch_size}; {advice}, or choose another "
                "patch_size."
            )

    def _check_layers(self, part: str, width: int, heads: int) -> None:
        # Half of a place's code are sines, the other half cosines.
        if width % 2 or width % heads:
            raise FmriModelsError(
                f"{part}hidden_size is {width}; expected an even number that {part}num_attention_heads, {heads}, "
                "divides."
            )

    def _check_focus(self) -> None:
        region = self.focus_range
        if region is not None and not (len(region) == 2 and 0 <= region[0] < region[1]):
            raise FmriModelsError(
                f"focus_range is {region}; expected its first voxel and the one after its last, such as [0, 512]."
            )

    def _check_spaces(self) -> None:
        for name in ("image_embedding_space", "text_embedding_space", "latent_space", "control_space"):
            if self.space(name) is not None:
                raise FmriModelsError(f"MinD-Vis decodes conditions that are learned and no {name}; leave it out.")
        context, time = self.space("encoder_hidden_states_space"), self.space("time_embeds_space")
        if context is None:
            if time is not None:
                raise FmriModelsError(
                    "The configuration has a time_embeds_space and no encoder_hidden_states_space, from which MinD-Vis "
                    "makes the former; give both, or choose another generator."
                )
            return
        if len(context.shape) != _TOKEN_AXES or (time is not None and len(time.shape) != 1):
            raise FmriModelsError(
                "MinD-Vis decodes encoder_hidden_states of shape (tokens, width) and time_embeds of shape (width,); "
                f"the spaces have {context.shape}{'' if time is None else f' and {time.shape}'}; choose another "
                "generator."
            )
        if self.global_pool and context.shape[0] != 1:
            raise FmriModelsError(
                f"With global_pool, MinD-Vis decodes one token, and the generator reads {context.shape[0]}; set "
                "generator.options.num_context_tokens=1, or global_pool=false."
            )
