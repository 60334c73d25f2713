"""What numbers and objects can be the source of what is drawn at random: one range of seeds, wherever one is given."""

from numbers import Integral
from typing import Any

from .errors import FmriModelsError

# NumPy takes larger ones, scikit-learn and old generators do not, and PyTorch gives negative ones a meaning of its own.
LARGEST_SEED = 2**32 - 1


def check_seed(seed: object, what: str = "seed") -> int:
    """A seed as a whole number.

    Args:
        seed: What was given.
        what: Its name in the message.

    Raises:
        FmriModelsError: It is no whole number from 0 to `LARGEST_SEED`.
    """
    if not isinstance(seed, Integral) or isinstance(seed, bool) or not 0 <= seed <= LARGEST_SEED:
        shown = repr(seed)
        shown = shown if len(shown) <= 40 else f"{shown[:40]}..."
        raise FmriModelsError(f"The {what} is {shown}; expected a whole number from 0 to {LARGEST_SEED}.")
    return int(seed)


def checked_generators(generator: Any, number: int, what: str = "patterns") -> Any:
    """A source of noise, or a list of them; refuses anything else, such as a seed in its place.

    Args:
        generator: None, a `torch.Generator`, or several, one for each.
        number: How many there have to be of several.
        what: What there is one for, in the plural.

    Raises:
        FmriModelsError: It is something else, or the numbers differ.
    """
    # The command line imports this module, and has to answer before PyTorch is loaded.
    import torch

    if generator is None or isinstance(generator, torch.Generator):
        return generator
    several = list(generator) if isinstance(generator, list | tuple) else [generator]
    for each in several:
        if not isinstance(each, torch.Generator):
            shown = repr(each)[:40] if isinstance(each, int | float | str | None) else f"a {type(each).__name__}"
            raise FmriModelsError(
                f"generator is {shown}; expected a torch.Generator, or a list with one for each of the {what}; "
                "torch.Generator().manual_seed(0) makes one of a seed."
            )
    if len(several) != number:
        raise FmriModelsError(
            f"{len(several)} generators were given for {number} {what}; pass one for all, or one for each."
        )
    return several
