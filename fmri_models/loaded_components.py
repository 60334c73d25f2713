"""What the components of a loaded pipeline were, so that a save of other ones takes over no report of theirs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

# Evenly spaced values of each tensor: enough to see a training, a merged adapter or other weights.
_VALUES_A_TENSOR = 64


@dataclass
class LoadedComponents:
    """The components of a pipeline at one time.

    Args:
        brain_model: Some of the values of each of its tensors, those of adapters among them.
        processor: Its statistics by subject.
        image_generator: Where it is, if it is named; what it consists of otherwise.
        given: Names of components that the caller gave in the place of the saved ones, of which nothing was measured.
    """

    brain_model: Mapping[str, torch.Tensor]
    processor: Mapping[str, Any]
    image_generator: Any
    given: frozenset[str] = frozenset()

    @classmethod
    def of(cls, pipeline: Any, given: frozenset[str] = frozenset()) -> "LoadedComponents":
        """What the components of a pipeline are now."""
        processor = pipeline.processor
        statistics = {name: processor.subject(name) for name in processor.subject_names if processor.is_fitted}
        return cls(_sample(pipeline.brain_model), statistics, _generator(pipeline), given)

    def changed(self, now: "LoadedComponents") -> set[str]:
        """Names of the components that are others now, as far as can be seen."""
        found = set(self.given)
        if not have_same_values(self.brain_model, now.brain_model):
            found.add("brain_model")
        subjects = self.processor.keys() | now.processor.keys()
        if any(self.processor.get(name) is not now.processor.get(name) for name in subjects):
            found.add("processor")
        if not have_same_values(self.image_generator, now.image_generator):
            found.add("image_generator")
        return found


def _generator(pipeline: Any) -> Any:
    source, generator = pipeline.image_generator_source, pipeline.components["image_generator"]
    if source is not None or generator is None:
        return {"source": source, **_adapter(pipeline)}
    components = generator.components
    samples = {name: _sample(each) for name, each in components.items() if isinstance(each, nn.Module)}
    config = {
        name: value for name, value in generator.config.items() if not name.startswith("_") and name not in components
    }
    return {"class": type(generator).__name__, "config": config, **samples}


def _adapter(pipeline: Any) -> dict[str, Any]:
    """What is on a generator that is named; one that is at hand has it in its networks."""
    if pipeline._held.adapter_base is None:
        return {}
    networks = pipeline._held.present_adapter().networks
    return {name: {key: _some_of(values) for key, values in each.tensors.items()} for name, each in networks.items()}


def _sample(module: nn.Module) -> dict[str, torch.Tensor]:
    # What torch.compile has wrapped has its tensors under other names.
    state = getattr(module, "_orig_mod", module).state_dict()
    return {name: _some_of(values) for name, values in state.items() if values.device.type != "meta"}


def _some_of(values: torch.Tensor) -> torch.Tensor:
    flat = values.detach().flatten()
    return flat[:: max(1, len(flat) // _VALUES_A_TENSOR)].cpu().clone()


def have_same_values(before: Any, now: Any) -> bool:
    """Whether values are the same, and tensors but for their precision."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        return before.keys() == now.keys() and all(have_same_values(before[name], now[name]) for name in before)
    if isinstance(before, torch.Tensor) and isinstance(now, torch.Tensor):
        return before.shape == now.shape and torch.equal(before.to(now.dtype), now)
    return bool(before == now)
