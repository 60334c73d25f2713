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
    # Whole numbers of NumPy are seeds, and True is none.
    if isinstance(seed, bool) or not isinstance(seed, Integral) or not 0 <= int(seed) <= LARGEST_SEED:
        # Python refuses to write down numbers of thousands of digits.
        is_huge = isinstance(seed, int) and seed.bit_length() > 128
        shown = "a number of more than 38 digits" if is_huge else repr(seed)
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
        given = "A list with one generator was" if len(several) == 1 else f"{len(several)} generators were"
        raise FmriModelsError(
            f"{given} given for {number} {what}; pass a torch.Generator, not in a list, for all, or a list with one "
            "for each."
        )
    return several
