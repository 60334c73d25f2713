"""Outputs that methods share."""

from dataclasses import dataclass

import torch
from transformers.utils import ModelOutput

from .conditions import CONDITION_SPACES, Conditions


@dataclass
class FmriModelOutput(ModelOutput):
    """Output of a method's forward.

    Args:
        loss: Scalar; None without targets.
        losses: Name ▶ scalar of each loss that `loss` consists of.
        image_embeds: (B, *image_embedding_space.shape) decoded image embeddings.
        text_embeds: (B, *text_embedding_space.shape) decoded text embeddings.
        retrieval_embeds: (B, …) what is compared with the embeddings of pictures in retrieval and when candidates are
            ranked; None if the method has none.
        latents: (B, *latent_space.shape) decoded low-level picture.
        guides: Name ▶ (B, *shape) decoded layers of networks that see pictures.
        hidden_states: What is between the layers of a method that has some, if it was asked for; last but one.
        attentions: Attention weights of a method that computes some in its forward, if they were asked for; last.
    """

    loss: torch.Tensor | None = None
    losses: dict[str, torch.Tensor] | None = None
    image_embeds: torch.Tensor | None = None
    text_embeds: torch.Tensor | None = None
    retrieval_embeds: torch.Tensor | None = None
    latents: torch.Tensor | None = None
    guides: dict[str, torch.Tensor] | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        # Behind what a method's own output adds, as in transformers' outputs.
        for name in ("hidden_states", "attentions"):
            if name in self:
                self.move_to_end(name)


@dataclass
class FmriDecoding(ModelOutput):
    """What a pipeline needs of any method.

    With `num_candidates` K > 1 the first dimension of `image_embeds`, `text_embeds` and `latents` is B·K, the
    candidates of one trial following each other, for those that a method samples; those that it computes stay
    (B, …).

    Args:
        image_embeds: (B or B·K, …) float, in the generator's space.
        text_embeds: (B or B·K, …) float, in the generator's space.
        latents: (B or B·K, …) float, in the generator's space.
        retrieval_embeds: (B, …) float.
        encoder_hidden_states: (B or B·K, …) float, what the generator's cross-attention reads.
        time_embeds: (B or B·K, …) float, what is added to its time embedding.
        control: (B or B·K, …) float, what its control branch reads.
        guides: Name ▶ (B, …) float, layers of networks that see pictures, each in its own space.
    """

    image_embeds: torch.Tensor | None = None
    text_embeds: torch.Tensor | None = None
    latents: torch.Tensor | None = None
    retrieval_embeds: torch.Tensor | None = None
    encoder_hidden_states: torch.Tensor | None = None
    time_embeds: torch.Tensor | None = None
    control: torch.Tensor | None = None
    guides: dict[str, torch.Tensor] | None = None

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """What was decoded by name, guides by theirs."""
        named = {name: values for name, values in self.items() if name != "guides"}
        return {**named, **(self.guides or {})}

    @property
    def conditions(self) -> Conditions:
        """What of it an image generator is given."""
        return Conditions(**{name: getattr(self, name) for name in CONDITION_SPACES}, guides=self.guides)
