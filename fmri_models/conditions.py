"""What an image generator is given, passed whole: embeddings and a low-level picture."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch

from .embedding_space import EmbeddingSpace
from .errors import FmriModelsError
from .names import one_line


# Equality of tensors is no single answer.
@dataclass(frozen=True, eq=False)
class Conditions:
    """Tensors that pictures are drawn from, the first dimension of each being the picture; None is told nothing.

    `len` is the number of pictures. A further condition is a field here, with the name of its space in `metadata`;
    whatever passes conditions on, checks, splits or repeats them then knows it. Besides, the space of that name is a
    field of [`FmriConfig`] and a property of [`ImageGenerator`], what methods decode is a field of [`FmriDecoding`]
    called as the condition, and what training learns of stimuli is a `Target` (`data/targets.py`).

    Args:
        image_embeds: (N, *image_embedding_space.shape).
        text_embeds: (N, *text_embedding_space.shape).
        latents: (N, *latent_space.shape), a low-level picture to start from.
        encoder_hidden_states: (N, *encoder_hidden_states_space.shape), what the network's cross-attention has learned
            to read (MinD-Vis).
        time_embeds: (N, *time_embeds_space.shape), what is added to the network's time embedding; learned likewise.
        control: (N, *control_space.shape), a map that a control branch reads.
        guides: Name ▶ (N, *shape), layers of networks that see pictures, such as `vgg19.conv1_1`; each has its own
            space, which generators and configurations hold by the same name (`guide_spaces`).
        num_images: How many pictures to draw, where no condition says so.
    """

    image_embeds: torch.Tensor | None = field(default=None, metadata={"space": "image_embedding_space"})
    text_embeds: torch.Tensor | None = field(default=None, metadata={"space": "text_embedding_space"})
    latents: torch.Tensor | None = field(default=None, metadata={"space": "latent_space"})
    encoder_hidden_states: torch.Tensor | None = field(
        default=None, metadata={"space": "encoder_hidden_states_space"}, kw_only=True
    )
    time_embeds: torch.Tensor | None = field(default=None, metadata={"space": "time_embeds_space"}, kw_only=True)
    control: torch.Tensor | None = field(default=None, metadata={"space": "control_space"}, kw_only=True)
    guides: Mapping[str, torch.Tensor] | None = field(default=None, kw_only=True)
    num_images: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.guides is not None and not (
            isinstance(self.guides, Mapping)
            and all(isinstance(name, str) and isinstance(each, torch.Tensor) for name, each in self.guides.items())
        ):
            raise FmriModelsError(
                f"guides is a {type(self.guides).__name__}; expected a mapping of names such as 'vgg19.conv1_1' to "
                "tensors."
            )

    @classmethod
    def joined(cls, num_images: int | None = None, **inputs: Any) -> "Conditions":
        """Conditions as callers give them: tensors, or lists of tensors that are joined, as in diffusers.

        Raises:
            FmriModelsError: An input is something else.
        """
        guides = inputs.pop("guides", None)
        return cls(**{name: _joined(values) for name, values in inputs.items()}, guides=guides, num_images=num_images)

    @property
    def given(self) -> dict[str, torch.Tensor]:
        """The conditions that are not None, by name; guides are not among them."""
        values = {name: getattr(self, name) for name in CONDITION_SPACES}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """The conditions that are not None and the guides, by name."""
        return {**self.given, **(self.guides or {})}

    @property
    def told_nothing(self) -> bool:
        """Whether there is nothing to draw from but noise, or a low-level picture."""
        return not self.tensors.keys() - {"latents"}

    def only(self, *names: str) -> "Conditions":
        """These conditions of that many pictures, without all others; `"guides"` names all of these."""
        return self._each(lambda values: values, names)

    def only_guides(self, names: Iterable[str]) -> "Conditions":
        """All conditions, but of the guides those that are named."""
        kept = {name: values for name, values in (self.guides or {}).items() if name in set(names)}
        return replace(self, guides=kept or None)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "Conditions":
        """The same on a device, in a dtype."""
        return self._each(lambda values: values.to(device, dtype))

    def are_of(self, number: int) -> bool:
        """Whether each condition that is given is of so many pictures."""
        return all(len(values) == number for values in self.tensors.values())

    def repeated(self, num_patterns: int, num_candidates: int) -> "Conditions":
        """`num_candidates` pictures of each pattern, one after the other; what has as many already stays as it is.

        Of a condition with another number of samples a pattern, the first one is taken.
        """

        def repeat(values: torch.Tensor) -> torch.Tensor:
            if len(values) == num_patterns * num_candidates:
                return values
            return values[:: len(values) // num_patterns].repeat_interleave(num_candidates, dim=0)

        return self._each(repeat)

    def count(self, taker: str, num_images: int | None = None) -> int:
        """The number of pictures that are asked for.

        Args:
            taker: Who is given the conditions, as the beginning of a sentence.
            num_images: A further number that has to agree.

        Raises:
            FmriModelsError: The conditions disagree, or nothing says how many.
        """
        stated = {number for number in (self.num_images, num_images) if number is not None}
        sizes = {len(values) for values in self.tensors.values()} | stated
        if len(sizes) != 1:
            found = "nothing" if not sizes else "batches of " + ", ".join(str(size) for size in sorted(sizes))
            raise FmriModelsError(
                f"{taker} was given {found}; pass embeddings or latents of one batch size, or num_images."
            )
        return sizes.pop()

    def check(self, spaces: Mapping[str, EmbeddingSpace | None], taker: str) -> None:
        """Refuses what is not taken, and other shapes than those of the spaces.

        Args:
            spaces: Space of each condition by the condition's name, of guides by theirs; one without is not taken.
            taker: Who is given the conditions, as the beginning of a sentence.

        Raises:
            FmriModelsError: Names the condition, its shape and the one expected.
        """
        for name, values in self.tensors.items():
            space = spaces.get(name)
            if space is None and name in (self.guides or {}):
                taken = [each for each in spaces if each not in CONDITION_SPACES]
                there_are = f"; it takes {', '.join(taken)}" if taken else ", and no other"
                raise FmriModelsError(f"{taker} takes no guide {one_line(name, 80)}{there_are}; leave it out.")
            if space is None:
                raise FmriModelsError(f"{taker} takes no {name}; pass None instead.")
            if tuple(values.shape[1:]) != space.shape:
                raise FmriModelsError(
                    f"{taker} takes {name} of shape (N, {', '.join(map(str, space.shape))}); got {tuple(values.shape)}."
                )

    def __len__(self) -> int:
        return self.count("The image generator")

    def __getitem__(self, pictures: slice) -> "Conditions":
        """Those of some of the pictures."""
        chosen = self._each(lambda values: values[pictures])
        if self.num_images is None:
            return chosen
        return replace(chosen, num_images=len(range(*pictures.indices(self.num_images))))

    def _each(
        self, function: Callable[[torch.Tensor], torch.Tensor], names: tuple[str, ...] | None = None
    ) -> "Conditions":
        changed = {name: function(values) for name, values in self.given.items() if names is None or name in names}
        guides = None
        if self.guides is not None and (names is None or "guides" in names):
            guides = {name: function(values) for name, values in self.guides.items()}
        return Conditions(**changed, guides=guides, num_images=self.num_images)


# What stands for all guides where targets are named.
GUIDES = "guides"
# Name of a condition ▶ the property of generators and configurations that is its space.
CONDITION_SPACES: dict[str, str] = {
    each.name: each.metadata["space"] for each in fields(Conditions) if "space" in each.metadata
}


def _joined(values: Any) -> torch.Tensor | None:
    if values is None:
        return None
    several = list(values) if isinstance(values, list | tuple) else [values]
    if not (several and all(isinstance(each, torch.Tensor) for each in several)):
        found = type(values if several == [values] else several[0]).__name__ if several else "list of nothing"
        raise FmriModelsError(f"Embeddings and latents are tensors, or lists of them; got a {found}.")
    return torch.cat(several) if isinstance(values, list | tuple) else values
