"""What a caller sees, and may change, at the end of each denoising step: the habit of diffusers' pipelines."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback

from ..conditions import CONDITION_SPACES, Conditions
from ..errors import FmriModelsError
from ..names import one_line

# What a callback may ask for, of the pictures that are drawn together: the latents of the step, and the conditions.
CALLBACK_TENSORS = ["latents", *(name for name in CONDITION_SPACES if name != "latents")]

CallbackFunction = Callable[[Any, int, torch.Tensor, dict[str, Any]], Mapping[str, Any] | None]


class CallState:
    """What pipelines say of the call that runs, or ran last; a callback may change what begins with `_`."""

    _guidance_scale: float
    _interrupt: bool

    @property
    def guidance_scale(self) -> float:
        """Weight of the embeddings."""
        return self._guidance_scale

    @property
    def do_classifier_free_guidance(self) -> bool:
        """Whether the network that draws is asked without the embeddings, too."""
        return self._guidance_scale != 1.0

    @property
    def interrupt(self) -> bool:
        """Whether a callback has ended the denoising."""
        return self._interrupt


class StepCallback:
    """A caller's function with the names of the tensors that it asks for; without a function, nothing happens.

    Args:
        function: Called with the pipeline, the number of the step, the timestep and the tensors by name. It returns
            those that it changes; None stands for the mapping that it was given.
        names: The tensors that it is given; diffusers' own callback objects name theirs themselves.
        caller: The pipeline that the function is called with; None for the image generator.

    Raises:
        FmriModelsError: A name is unknown, or the function is none.
    """

    def __init__(
        self,
        function: CallbackFunction | None = None,
        names: Sequence[str] | None = None,
        caller: CallState | None = None,
    ) -> None:
        if isinstance(function, PipelineCallback | MultiPipelineCallbacks):
            names = function.tensor_inputs
        if function is not None and not callable(function):
            raise FmriModelsError(
                f"callback_on_step_end is a {type(function).__name__}; expected a function of the pipeline, the step, "
                "the timestep and a mapping of tensors."
            )
        if isinstance(names, str):
            raise FmriModelsError(
                f"callback_on_step_end_tensor_inputs is {one_line(repr(names), 80)}; expected a list of names."
            )
        names = list(names or ())
        unknown = [name for name in names if name not in CALLBACK_TENSORS]
        if unknown:
            raise FmriModelsError(
                f"callback_on_step_end_tensor_inputs has {one_line(repr(unknown[0]), 80)}; expected names of "
                f"{', '.join(CALLBACK_TENSORS)}."
            )
        self.function = function
        self.names = names
        self.caller = caller

    def __call__(
        self,
        image_generator: CallState,
        step: int,
        timestep: torch.Tensor,
        latents: torch.Tensor,
        conditions: Conditions,
    ) -> tuple[torch.Tensor, Conditions]:
        """Latents and conditions, with what the function returns in their place, or copies that it may have changed.

        Args:
            image_generator: Which draws.
            step: Number of the step among those of these pictures.
            timestep: Of the schedule.
            latents: What the step has made.
            conditions: What the pictures are drawn from; the same object comes back unless others of them than the
                latents were asked for.

        Raises:
            FmriModelsError: The function returns something else, or a tensor of another shape.
        """
        if self.function is None:
            return latents, conditions
        tensors = {name: getattr(conditions, name) for name in CALLBACK_TENSORS} | {"latents": latents}
        # What is changed in place must not be the caller's own, which may be read after the drawing.
        copies = {name: None if (values := tensors[name]) is None else values.clone() for name in self.names}
        tensors, given = tensors | copies, dict(copies)
        returned = self.function(image_generator if self.caller is None else self.caller, step, timestep, given)
        returned = given if returned is None else returned
        if not isinstance(returned, Mapping):
            raise FmriModelsError(
                f"callback_on_step_end returned a {type(returned).__name__}; expected the mapping of tensors that it "
                "was given, or a part of it."
            )
        # What else is returned is nobody's, as with diffusers.
        tensors |= {name: _replaced(name, tensors[name], returned[name]) for name in tensors if name in returned}
        changed = {name: tensors[name] for name in self.names if name != "latents"}
        return tensors["latents"], replace(conditions, **changed) if changed else conditions


def _replaced(name: str, before: torch.Tensor | None, after: Any) -> torch.Tensor | None:
    if after is before:
        return before
    if before is None or not isinstance(after, torch.Tensor) or after.shape != before.shape:
        found = tuple(after.shape) if isinstance(after, torch.Tensor) else f"a {type(after).__name__}"
        expected = "None, as it was" if before is None else f"a tensor of shape {tuple(before.shape)}"
        raise FmriModelsError(f"callback_on_step_end returned {name} as {found}; expected {expected}.")
    return after.to(before)
