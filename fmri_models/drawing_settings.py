"""What a pipeline draws with: settings that are saved with it and hold wherever a call says nothing else."""

import numbers
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

from .errors import FmriModelsError
from .names import closest, one_line

MAX_INFERENCE_STEPS = 1000
MAX_CANDIDATES = 1000
# Which of several candidates is taken; an oracle, which knows the true picture, is a matter of single calls.
Choice = Literal["brain", "first"]


@dataclass(frozen=True)
class DrawingSettings:
    """How pictures are drawn from what was decoded.

    Args:
        num_inference_steps: Denoising steps of a generator with a diffusion model.
        guidance_scale: Weight of the decoded embeddings against the unconditional prediction.
        strength: How much of the decoded low-level picture is replaced, 0 (none) to 1 (all).
        num_candidates: Pictures drawn of each pattern.
        selection: Among candidates, take the one most similar to the decoded embedding (`"brain"`) or the `"first"`.
        text_to_image_ratio: Weight of the text where pictures are drawn from image and text embeddings at once: 0 is
            the image alone, 1 the text alone; None leaves it to the generator. One with blocks of its own for both
            weights what they give (MindBridge's and Versatile Diffusion's mixing ratio); one that reads both in one
            sequence takes 0, 0.5 (both) and 1.

    Raises:
        FmriModelsError: A value is out of range or of another type.
    """

    num_inference_steps: int = 20
    guidance_scale: float = 2.0
    strength: float = 0.7
    num_candidates: int = 1
    selection: Choice = "brain"
    text_to_image_ratio: float | None = None

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            # Whole numbers and those of NumPy become Python's own, as files have them.
            object.__setattr__(self, name, _CHECKS[name](name, value))

    @classmethod
    def from_dict(cls, values: Any, what: str, mend: str) -> "DrawingSettings":
        """The settings that a file or a caller states; what is not stated has its default.

        Args:
            values: A mapping of names to values.
            what: What it is, as the beginning of a sentence.
            mend: What to do about it, as the end of one.

        Raises:
            FmriModelsError: It is no mapping, has an unknown key, or a value that is out of range.
        """
        if not isinstance(values, Mapping):
            raise FmriModelsError(f"{what} is {one_line(repr(values), 80)}; expected a mapping; {mend}.")
        try:
            return cls().changed(values)
        except FmriModelsError as error:
            raise FmriModelsError(f"{what} can't be used: {str(error).rstrip('.')}; {mend}.") from error

    def changed(self, values: "DrawingSettings | Mapping[str, Any] | None") -> "DrawingSettings":
        """These settings with other values: other settings as a whole, or what a mapping names and is not None.

        Raises:
            FmriModelsError: A name is unknown, or a value is out of range or of another type.
        """
        if values is None:
            return self
        if isinstance(values, DrawingSettings):
            return values
        if not isinstance(values, Mapping):
            raise FmriModelsError(
                f"The drawing settings are {one_line(repr(values), 80)}; expected DrawingSettings or a mapping."
            )
        known = [field.name for field in fields(self)]
        for name in values:
            if name not in known:
                close = closest(str(name), known)
                hint = f"did you mean {close!r}?" if close else f"known settings: {', '.join(known)}."
                raise FmriModelsError(f"The drawing settings have no {one_line(repr(name), 80)}; {hint}")
        return replace(self, **{name: value for name, value in values.items() if value is not None})

    def to_dict(self) -> dict[str, Any]:
        """Plain values by name, without what is left to the generator: earlier versions then read the file."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def check_steps(name: str, value: Any) -> int:
    """A number of denoising steps."""
    return _whole(name, value, MAX_INFERENCE_STEPS)


def check_guidance_scale(name: str, value: Any) -> float:
    """A weight of the embeddings."""
    return _real(name, value, sys.float_info.max, "expected a number from 0")


def check_strength(name: str, value: Any) -> float:
    """A share of the low-level picture."""
    return _real(name, value, 1.0, "expected a number from 0 (keep the start) to 1 (replace it)")


def check_text_to_image_ratio(name: str, value: Any) -> float | None:
    """A weight of the text beside the image; None where it is left to the generator."""
    return None if value is None else _real(name, value, 1.0, "expected a number from 0 (image) to 1 (text)")


def _check_candidates(name: str, value: Any) -> int:
    return _whole(name, value, MAX_CANDIDATES)


def _check_choice(name: str, value: Any) -> str:
    if not isinstance(value, str) or value not in get_args(Choice):
        hint = ": an oracle knows the true pictures, which a single call gives" if value == "oracle" else ""
        raise FmriModelsError(f"{name} is {one_line(repr(value), 80)}; expected 'brain' or 'first'{hint}.")
    return value


_CHECKS = {
    "num_inference_steps": check_steps,
    "guidance_scale": check_guidance_scale,
    "strength": check_strength,
    "num_candidates": _check_candidates,
    "selection": _check_choice,
    "text_to_image_ratio": check_text_to_image_ratio,
}


def _whole(name: str, value: Any, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or not 1 <= int(value) <= most:
        raise FmriModelsError(f"{name} is {one_line(repr(value), 80)}; expected a whole number from 1 to {most}.")
    return int(value)


def _real(name: str, value: Any, most: float, expected: str) -> float:
    # NaN fails the comparison, too.
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= most:
        raise FmriModelsError(f"{name} is {one_line(repr(value), 80)}; {expected}.")
    return float(value)
