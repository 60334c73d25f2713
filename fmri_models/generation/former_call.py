"""Image generators as they were written before `draw`: a call of their own, and what it called of the base class."""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ClassVar

import torch

from ..conditions import Conditions
from ..deprecation import Deprecation
from ..drawing_settings import DrawingSettings
from .step_callback import CALLBACK_TENSORS, CallbackFunction, StepCallback

Tensors = dict[str, torch.Tensor | None]

_OWN_CALL = Deprecation("Image generators with a __call__ of their own; please implement draw", since="0.1")


class FormerStepCallback(StepCallback):
    """A caller's function that is given the tensors by name, and gives them back so."""

    @property
    def may_change_embeds(self) -> bool:
        """Whether what a network is told may be another thing after a step."""
        return self.function is not None and any(name != "latents" for name in self.names)

    def __call__(  # type: ignore[override]
        self, image_generator: Any, step: int, timestep: torch.Tensor, tensors: Tensors
    ) -> Tensors:
        """The tensors, with those in their place that the function returns, or copies that it may have changed."""
        given: Any = {name: tensors.get(name) for name in CALLBACK_TENSORS}
        conditions, latents = Conditions(**given), given["latents"]
        latents, after = super().__call__(image_generator, step, timestep, latents, conditions)
        changed = {name: latents if name == "latents" else getattr(after, name) for name in CALLBACK_TENSORS}
        return {**tensors, **{name: value for name, value in changed.items() if name in tensors}}


class FormerCall:
    """What a generator with a call of its own has of the base class; all of it warns of what is written instead."""

    _draws_by_call: ClassVar[bool] = False
    _guidance_scale: float
    _interrupt: bool

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        nearest = next((base for base in cls.__mro__ if {"__call__", "draw"} & vars(base).keys()), cls)
        cls._draws_by_call = "__call__" in vars(nearest) and "draw" not in vars(nearest)
        if cls._draws_by_call and nearest is cls:
            _OWN_CALL.warn(
                what=f"The image generator {cls.__name__} has a __call__ of its own; please implement draw in its "
                "place (docs/generators/your_own.md)"
            )

    @staticmethod
    def batches(*inputs: Any) -> list[torch.Tensor | None]:
        """Inputs as one tensor each; several in a list, as diffusers takes them, are joined."""
        _warn("batches", "Conditions.joined")
        return [Conditions.joined(latents=values).latents for values in inputs]

    def begin(
        self, guidance_scale: float, function: CallbackFunction | None, names: Sequence[str] | None
    ) -> FormerStepCallback:
        """Notes what a call begins with, and checks the callback that it was given."""
        _warn("begin", "the method on_step_end, inside draw,")
        self._guidance_scale, self._interrupt = guidance_scale, False
        return FormerStepCallback(function, names)

    @staticmethod
    def check_options(strength: float, guidance_scale: float, num_inference_steps: int) -> None:
        """Refuses options of the call that make no sense, whatever the generator."""
        _warn("check_options", "DrawingSettings")
        DrawingSettings(strength=strength, guidance_scale=guidance_scale, num_inference_steps=num_inference_steps)

    def check_shapes(
        self, image_embeds: torch.Tensor | None, text_embeds: torch.Tensor | None, latents: torch.Tensor | None
    ) -> None:
        """Refuses inputs of another shape than that of their space."""
        _warn("check_shapes", "accept(conditions)")
        generator: Any = self
        Conditions(image_embeds, text_embeds, latents).check(generator.condition_spaces, type(self).__name__)

    def batch_size(self, num_images: int | None, *inputs: torch.Tensor | None) -> int:
        """The number of pictures that the inputs ask for."""
        _warn("batch_size", "len(conditions)")
        return Conditions(*inputs, num_images=num_images).count(type(self).__name__)


def by_own_call(
    image_generator: Any,
    conditions: Conditions,
    settings: DrawingSettings,
    generators: Any,
    output_type: str,
    on_step_end: StepCallback | None,
) -> Any:
    """What a generator's own call draws, given objects in the place of arguments."""
    options: dict[str, Any] = {
        name: getattr(settings, name) for name in ("strength", "guidance_scale", "num_inference_steps")
    }
    if conditions.num_images is not None:
        options["num_images"] = conditions.num_images
    if on_step_end is not None and on_step_end.function is not None:
        function, caller = on_step_end.function, on_step_end.caller

        def call_with_caller(generator: Any, *arguments: Any) -> Any:
            return function(generator if caller is None else caller, *arguments)

        options |= {
            "callback_on_step_end": call_with_caller,
            "callback_on_step_end_tensor_inputs": on_step_end.names,
        }
    if conditions.guides is not None:
        options["guides"] = conditions.guides
    return image_generator(**conditions.given, **options, generator=generators, output_type=output_type)


def also_given_callback(in_one_step: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """A decorator for `in_one_step`, which such a call gives what `begin` gave, latents, and embeddings by name."""

    @wraps(in_one_step)
    def call(self: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        if not (args and isinstance(args[0], FormerStepCallback)):
            return in_one_step(self, *args, **kwargs)
        on_step_end, latents = args
        self._num_timesteps = 1
        tensors = dict.fromkeys(CALLBACK_TENSORS) | kwargs | {"latents": latents}
        changed: Any = on_step_end(self, 0, torch.zeros((), dtype=torch.long), tensors)
        return changed["latents"]

    return call


def _warn(name: str, instead: str) -> None:
    _OWN_CALL.warn(
        stacklevel=3,
        what=f"{name} of image generators is {instead} now; please implement draw (docs/generators/your_own.md)",
    )
