"""How trials are simulated: the options of a recipe's `simulation`."""

from dataclasses import dataclass, fields
from typing import Any

from ..errors import FmriModelsError
from ..option_types import NumberFromZero, PositiveNumber, Share, check_fields


@dataclass(frozen=True)
class TrialSimulation:
    """How trials are simulated.

    Args:
        share: Share of each batch's examples that simulated trials take the place of.
        shift: Standard deviation of how far a picture is moved in either direction, as a share of its side.
        rotation: Standard deviation of how far it is turned, in degrees.
        scale: Standard deviation of the logarithm of how much it is stretched, in either direction for itself.
        shear: Standard deviation of how much it is slanted.
        blur: Standard deviation, in pixels, of the blur with which the encoding model sees pictures.
        ridge: Penalty of the encoding model, as a share of the pictures' mean squared length.
        min_predictability: Voxels of whose variance the encoding model predicts less than this share, with each trial
            left out once, answer with noise alone.
        noise_shrinkage: How much the covariance of the noise is shrunk to its diagonal, from 0 to 1.
        noise: What the standard deviation of the noise is multiplied by; more than 1 makes up for what the encoding
            model does not know.

    Raises:
        FmriModelsError: A number is out of range.
    """

    share: Share = 0.8
    shift: NumberFromZero = 0.035
    rotation: NumberFromZero = 8.0
    scale: NumberFromZero = 0.08
    shear: NumberFromZero = 0.12
    blur: NumberFromZero = 1.0
    ridge: PositiveNumber = 0.3
    min_predictability: Share = 0.05
    noise_shrinkage: Share = 0.8
    noise: NumberFromZero = 3.0

    def __post_init__(self) -> None:
        check_fields(vars(self), TrialSimulation, "simulation.", "correct the recipe")


def trial_simulation(value: dict[str, Any] | None) -> TrialSimulation | None:
    """What a recipe means by its `simulation`.

    Args:
        value: A mapping of what differs from the defaults; None simulates nothing.

    Raises:
        FmriModelsError: It has a key or a value that there is not.
    """
    if value is None:
        return None
    known = [item.name for item in fields(TrialSimulation)]
    if not isinstance(value, dict) or not set(value) <= set(known):
        raise FmriModelsError(f"simulation is {value!r}; expected a mapping with some of {', '.join(known)}.")
    return TrialSimulation(**value)
