"""MindBridge: one translator for many brains, each with an embedder and a builder of its own (Wang et al., 2024)."""

from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import nn
from transformers.utils import can_return_tuple
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from ...encoders.residual_mlp import NormActivation, ResidualBlock
from ...encoders.subject_layers import SubjectLayers
from ...encoders.wide_linear import WideLinear
from ...errors import FmriModelsError
from ...modeling_fmri import FmriPreTrainedModel, SubjectIds
from ...modeling_outputs import FmriDecoding, FmriModelOutput
from ...original_checkpoint import Checkpoint
from .configuration_mindbridge import MindBridgeConfig
from .convert_mindbridge import load_model
from .layers_mindbridge import FmriBuilder, FmriEmbedder
from .objective_mindbridge import DEFAULT_OBJECTIVE, BridgeOutputs, CyclePair

# What keeps a token of length zero finite, as in the published reconstruction.
_EPS = 1e-6


@dataclass
class MindBridgeOutput(FmriModelOutput):
    """Output of [`MindBridgeModel`]; see [`FmriModelOutput`].

    Args:
        fmri_embeds: (B, hidden_size) what the subjects' embedders give: what is common to all brains.
        reconstructed_fmri: (B, V) what the subjects' builders make of it, zero-padded to the widest; None without
            builders.
        hidden_states: (B, hidden_size) each, if they were asked for: what enters the translator's first block, and what
            leaves each block.
    """

    fmri_embeds: torch.Tensor | None = None
    reconstructed_fmri: torch.Tensor | None = None


class MindBridgeModel(FmriPreTrainedModel):
    """An embedder and a builder of each subject, a translator that all share, and a head for images and for texts.

    Example:
        >>> output = model(torch.randn(2, 8192), subject_ids=["subj01", "subj05"])
        >>> output.image_embeds.shape, output.text_embeds.shape
        (torch.Size([2, 257, 768]), torch.Size([2, 77, 768]))
        >>> model.synthesize(torch.randn(2, 8192), source="subj01", target="subj05").shape
        torch.Size([2, 8192])
    """

    config: MindBridgeConfig
    config_class = MindBridgeConfig
    _no_split_modules = ["FmriBuilder", "FmriEmbedder", "ResidualBlock"]
    supports_gradient_checkpointing = True
    _can_record_outputs = {"hidden_states": OutputRecorder(ResidualBlock, layer_name="translator")}

    def __init__(self, config: MindBridgeConfig) -> None:
        super().__init__(config)
        size, adapter_size = config.hidden_size, config.adapter_size
        self.embedders = SubjectLayers(
            config.voxels_by_subject,
            partial(FmriEmbedder, hidden_size=size, adapter_size=adapter_size, dropout=config.embedder_dropout),
        )
        self.builders: SubjectLayers | None = None
        if config.use_builders:
            make_builder = partial(FmriBuilder, size, adapter_size=adapter_size)
            self.builders = SubjectLayers(config.voxels_by_subject, make_builder, reads_all=True)
        self.translator = nn.ModuleList(
            ResidualBlock(nn.Linear(size, size), NormActivation(size, "layer", "gelu", False, config.hidden_dropout))
            for _ in range(config.num_hidden_layers)
        )
        # Read once: a compiled graph can't read a space from its configuration.
        self.image_shape, self.image_head = _head(config, "image_embedding_space")
        self.text_shape, self.text_head = _head(config, "text_embedding_space")
        if self.image_head is None and self.text_head is None:
            raise FmriModelsError(
                "A MindBridgeModel needs an image_embedding_space or a text_embedding_space in its configuration; it "
                "has neither."
            )
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """As torch does by default, as in the published training, but for the adapters."""
        if callable(reset := getattr(module, "reset_parameters", None)):
            reset()

    @classmethod
    def from_original(cls, checkpoint: Checkpoint, **config_overrides: Any) -> "MindBridgeModel":
        """Reads a published checkpoint (`last.pth`) of one subject, of several, or of several and an adapted one.

        Args:
            checkpoint: Path, whole checkpoint or state dict.
            **config_overrides: Fields of [`MindBridgeConfig`]. `subject_names=["subj05"]` keeps these subjects alone,
                in this order; names that the file has not rename those it has. `use_builders=False` leaves out the
                builders. Spaces say what tokens the heads give where these are none of CLIP ViT-L/14.

        Returns:
            The model in eval mode.

        Raises:
            FmriModelsError: The file is unreadable, or keys are missing or unknown.
        """
        return cast(MindBridgeModel, load_model(cls, checkpoint, config_overrides))

    @can_return_tuple
    def forward(
        self,
        fmri: torch.Tensor,
        subject_ids: SubjectIds = None,
        image_embeds: torch.Tensor | None = None,
        text_embeds: torch.Tensor | None = None,
        cycle_pair: tuple[str, str] | tuple[int, int] | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_loss: bool = True,
    ) -> MindBridgeOutput:
        """Maps processed voxels.

        Args:
            fmri: (B, V) processed voxels, zero-padded to the widest subject.
            subject_ids: (B,) indices or names; may be left out with one subject.
            image_embeds: (B, T, D) targets of the image head; at least two examples.
            text_embeds: (B, T, D) targets of the text head; at least two examples.
            cycle_pair: Two subjects, by name or index: rows of the first are turned into responses of the second and
                read again, which is the loss `cycle`.
            output_hidden_states: Whether to return what is between the translator's blocks; None is the
                configuration's.
            output_attentions: Changes nothing but for a warning: none are computed here.
            return_loss: Whether losses are computed where there are targets or a pair.

        Returns:
            [`MindBridgeOutput`]; the losses are those of [`MindBridgeObjective`] with its defaults, weighted, `loss`
            their sum. Embeddings are as the heads give them, of which the direction alone is learned;
            [`~MindBridgeModel.decode`] brings them into the generator's space. With `return_dict=False`, here or in
            the configuration, a tuple of what is not None.

        Raises:
            FmriModelsError: Voxels or subjects do not fit, or there is a pair and no builders.
        """
        self.check_fmri(fmri)
        self.warn_of_no_attentions(output_attentions)
        indices = self.subject_indices(subject_ids, fmri.shape[0])
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        found = self._bridged(fmri, indices, output_hidden_states=output_hidden_states, return_dict=True)
        losses = {}
        if return_loss:
            outputs = BridgeOutputs(found.fmri_embeds, found.image_embeds, found.text_embeds, found.reconstructed_fmri)
            losses = DEFAULT_OBJECTIVE.losses_of_outputs(
                self,
                outputs,
                {"image_embeds": image_embeds, "text_embeds": text_embeds},
                fmri,
                indices,
                None if cycle_pair is None else self._pair(cycle_pair),
            )
        return MindBridgeOutput(
            loss=torch.stack(list(losses.values())).sum() if losses else None,
            losses=losses or None,
            image_embeds=_shaped(found.image_embeds, self.image_shape),
            text_embeds=_shaped(found.text_embeds, self.text_shape),
            retrieval_embeds=_shaped(found.image_embeds, self.image_shape),
            fmri_embeds=found.fmri_embeds,
            reconstructed_fmri=found.reconstructed_fmri,
            hidden_states=found.hidden_states,
        )

    @capture_outputs
    def _bridged(
        self, fmri: torch.Tensor, subject_ids: torch.Tensor, output_hidden_states: bool | None
    ) -> MindBridgeOutput:
        """What the modules give, with hidden states if they are wanted."""
        found = self.bridge(fmri, subject_ids)
        return MindBridgeOutput(**found._asdict())

    def bridge(self, fmri: torch.Tensor, subject_ids: torch.Tensor, build: bool = True) -> BridgeOutputs:
        """What the model's modules give, with gradient.

        Args:
            fmri: (B, V) processed voxels.
            subject_ids: (B,) indices.
            build: Whether voxels are reconstructed, where there are builders.
        """
        fmri_embeds = self.embed(fmri, subject_ids)
        hidden = self.translate(fmri_embeds)
        reconstructed = self.builders(fmri_embeds, subject_ids) if build and self.builders is not None else None
        return BridgeOutputs(
            fmri_embeds,
            _tokens(self.image_head, hidden, self.image_shape),
            _tokens(self.text_head, hidden, self.text_shape),
            reconstructed,
        )

    def embed(self, fmri: torch.Tensor, subject_ids: torch.Tensor) -> torch.Tensor:
        """What is common to all brains, (B, hidden_size), from voxels (B, V) and (B,) indices of subjects."""
        return cast(torch.Tensor, self.embedders(fmri, subject_ids))

    def translate(self, fmri_embeds: torch.Tensor) -> torch.Tensor:
        """(B, hidden_size) ▶ (B, hidden_size), what the heads read."""
        for block in self.translator:
            fmri_embeds = block(fmri_embeds)
        return fmri_embeds

    @torch.no_grad()
    def synthesize(self, fmri: torch.Tensor, source: SubjectIds, target: SubjectIds) -> torch.Tensor:
        """Turns responses of one subject into those that another one would have.

        Args:
            fmri: (B, V) processed voxels of the source, zero-padded to the widest subject.
            source: Whose they are: a name for all rows, or a name or index a row.
            target: Whose responses are made, likewise.

        Returns:
            (B, V) processed voxels of the target, zero-padded to the widest subject, as the model takes them.

        Raises:
            FmriModelsError: Voxels or subjects do not fit, or the model has no builders.
        """
        self.check_fmri(fmri)
        sources, targets = (self.subject_indices(each, fmri.shape[0]) for each in (source, target))
        return cast(torch.Tensor, self._needed_builders()(self.embed(fmri, sources), targets))

    @property
    def samples(self) -> bool:
        return False

    @torch.no_grad()
    def decode(
        self,
        fmri: torch.Tensor,
        subject_ids: SubjectIds = None,
        num_candidates: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
    ) -> FmriDecoding:
        """Decodes processed voxels; the method is deterministic, so candidates differ by the image generator alone.

        Returns:
            [`FmriDecoding`]: `image_embeds` and `text_embeds` (B, …) as their spaces have them, scaled as the fields
            `image_embedding_norm` and `text_embedding_norm` of the configuration say; `retrieval_embeds` as the image
            head gives them.
        """
        self.check_fmri(fmri)
        found = self.bridge(fmri, self.subject_indices(subject_ids, fmri.shape[0]), build=False)
        return FmriDecoding(
            image_embeds=self._in_space(found.image_embeds, "image_embedding_space"),
            text_embeds=self._in_space(found.text_embeds, "text_embedding_space"),
            retrieval_embeds=_shaped(found.image_embeds, self.image_shape),
        )

    def _pair(self, cycle_pair: tuple[str, str] | tuple[int, int]) -> CyclePair:
        self._needed_builders()
        pair: Any = list(cycle_pair)
        source, target = self.subject_indices(pair, 2).tolist()
        return CyclePair(source, target)

    # No property: whoever looks on while a graph is made reads all of these.
    def _needed_builders(self) -> SubjectLayers:
        if self.builders is None:
            raise FmriModelsError(
                "This MindBridgeModel has no builders, which make a subject's responses; train it with "
                "model.use_builders=true, on several subjects to turn one's responses into another's."
            )
        return self.builders

    def _in_space(self, embeds: torch.Tensor | None, name: str) -> torch.Tensor | None:
        """Embeddings (B, T, D) as long as the space has them, in its shape."""
        space = self.config.space(name)
        if embeds is None or space is None:
            return None
        norm = getattr(self.config, name.replace("_space", "_norm"))
        if space.normalisation == "cls_norm" or norm is None:
            embeds = embeds / (embeds[:, :1].norm(dim=-1, keepdim=True) + _EPS)
        else:
            embeds = embeds * (norm / (embeds.flatten(1).norm(dim=1) + _EPS))[:, None, None]
        return embeds.reshape(embeds.shape[0], *space.shape)


def _head(config: MindBridgeConfig, name: str) -> tuple[tuple[int, ...], WideLinear | None]:
    """The shape of a space, as tokens are compared by it, and the layer that makes its values."""
    space = config.space(name)
    if space is None:
        return (), None
    return space.shape, WideLinear(config.hidden_size, space.size)


def _tokens(head: nn.Module | None, hidden: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor | None:
    """(B, T, D) of what a head gives; an embedding of one axis is one token."""
    if head is None:
        return None
    # Not len(), which a graph that is exported would keep.
    return cast(torch.Tensor, head(hidden)).reshape(hidden.shape[0], *((1, *shape) if len(shape) == 1 else shape))


def _shaped(embeds: torch.Tensor | None, shape: tuple[int, ...]) -> torch.Tensor | None:
    return None if embeds is None else embeds.reshape(embeds.shape[0], *shape)
