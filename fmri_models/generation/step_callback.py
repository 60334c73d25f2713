"""What a caller sees, and may change, at the end of each denoising step: the habit of diffusers' pipelines."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback

from ..errors import FmriModelsError
from ..names import one_line

# What a callback may ask for, of the pictures that are drawn together.
CALLBACK_TENSORS = ["latents", "image_embeds", "text_embeds"]

Tensors = dict[str, torch.Tensor | None]
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
        function: Called with the generator, the number of the step, the timestep and the tensors by name. It returns
            those that it changes; None stands for the mapping that it was given.
        names: The tensors that it is given; diffusers' own callback objects name theirs themselves.
        known: What may be asked for.

    Raises:
        FmriModelsError: A name is unknown, or the function is none.
    """

    def __init__(
        self, function: CallbackFunction | None, names: Sequence[str] | None, known: Sequence[str] = CALLBACK_TENSORS
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
        unknown = [name for name in names if name not in known]
        if unknown:
            raise FmriModelsError(
                f"callback_on_step_end_tensor_inputs has {one_line(repr(unknown[0]), 80)}; expected names of "
                f"{', '.join(known)}."
            )
        self.function = function
        self.names = names

    @property
    def may_change_embeds(self) -> bool:
        """Whether what the network is told may be another thing after a step."""
        return self.function is not None and any(name != "latents" for name in self.names)

    def __call__(self, pipeline: Any, step: int, timestep: torch.Tensor, tensors: Tensors) -> Tensors:
        """The tensors, with those in their place that the function returns, or copies that it may have changed.

        Raises:
            FmriModelsError: It returns something else, or a tensor of another shape.
        """
        if self.function is None:
            return tensors
        # What is changed in place must not be the caller's own, which may be read after the drawing.
        asked = {name: tensors[name] for name in self.names}
        copies = {name: None if values is None else values.clone() for name, values in asked.items()}
        tensors, given = {**tensors, **copies}, dict(copies)
        returned = self.function(pipeline, step, timestep, given)
        returned = given if returned is None else returned
        if not isinstance(returned, Mapping):
            raise FmriModelsError(
                f"callback_on_step_end returned a {type(returned).__name__}; expected the mapping of tensors that it "
                "was given, or a part of it."
            )
        # What else is returned is nobody's, as with diffusers.
        return tensors | {name: _replaced(name, tensors[name], returned[name]) for name in tensors if name in returned}


def _replaced(name: str, before: torch.Tensor | None, after: Any) -> torch.Tensor | None:
    if after is before:
        return before
    if before is None or not isinstance(after, torch.Tensor) or after.shape != before.shape:
        found = tuple(after.shape) if isinstance(after, torch.Tensor) else f"a {type(after).__name__}"
        expected = "None, as it was" if before is None else f"a tensor of shape {tuple(before.shape)}"
        raise FmriModelsError(f"callback_on_step_end returned {name} as {found}; expected {expected}.")
    return after.to(before)
