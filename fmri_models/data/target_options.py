"""Where a target could have several values, which one it has: of one caption or all, the likeliest latent or a draw."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch

from ..errors import FmriModelsError
from ..names import one_line

Captions = Literal["first", "mean"]
Posterior = Literal["mode", "sample"]


@dataclass(frozen=True)
class TargetOptions:
    """How targets are made of pictures and captions where there are several ways.

    Args:
        captions: `text_embeds` are those of the `first` caption of a stimulus, or the `mean` over the embeddings of all
            its captions, which is not normalised again (Takagi & Nishimoto, 2023; Brain-Diffuser). Blank captions are
            none.
        posterior: `latents` are the `mode` of what an autoencoder makes of a picture, or a `sample`, as it was drawn in
            some published trainings.
        seed: Of the samples. A picture has the same one in whatever table it is.

    Raises:
        FmriModelsError: A value is none of these.
    """

    captions: Captions = "first"
    posterior: Posterior = "mode"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, known in (("captions", get_args(Captions)), ("posterior", get_args(Posterior))):
            if getattr(self, name) not in known:
                shown = one_line(repr(getattr(self, name)), 40)
                raise FmriModelsError(f"{name} is {shown}; expected {' or '.join(known)}.")

    @classmethod
    def of_recipe(cls, recipe: Mapping[str, Any]) -> "TargetOptions":
        """Those of the recipe that a training record has; recipes of earlier versions say nothing of it."""
        stated = {name: recipe[name] for name in ("captions", "posterior", "seed") if name in recipe}
        return cls(**stated)

    @property
    def described(self) -> list[str]:
        """What differs from the default, in words."""
        found = ["text_embeds are means over all captions"] if self.captions == "mean" else []
        if self.posterior == "sample":
            found.append(f"latents are drawn from the posterior (seed {self.seed})")
        return found

    def source_of(self, picture: str) -> torch.Generator:
        """The source of noise of one picture's sample.

        Args:
            picture: SHA-256 of its pixels.
        """
        digest = hashlib.sha256(f"{self.seed} {picture}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


DEFAULT_TARGET_OPTIONS = TargetOptions()


def captions_with_words(captions: list[str]) -> list[str]:
    """The captions of a stimulus that say anything."""
    return [each for each in captions if each.strip()]
