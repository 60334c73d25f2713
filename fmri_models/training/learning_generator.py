"""The image generator of a stage that trains it: which of its parameters learn, and what becomes of the others."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..errors import FmriModelsError
from ..generation.image_generator import ImageGenerator
from ..generation.loading import parse_source
from ..generation.source import GeneratorSource
from ..generation.weights_digest import weights_digest
from ..hub_repository import is_folder
from ..modeling_fmri import FmriPreTrainedModel
from ..names import listed
from ..option_types import check_fields
from ..typed_values import check_key
from .trained_weights import freeze_all_but


@dataclass(frozen=True)
class GeneratorTraining:
    """What a recipe's `image_generator` says of a stage.

    Args:
        train: Groups of the generator's parameters that learn, by the names that the generator gives them, such as
            `cross_attention` or `all`.
    """

    train: list[str]

    def __post_init__(self) -> None:
        check_fields(vars(self), GeneratorTraining, "image_generator.", "correct the recipe")
        if not self.train:
            raise FmriModelsError("image_generator.train names no group; name one, or leave image_generator out.")


def generator_training(value: Mapping[str, Any] | None) -> GeneratorTraining | None:
    """What a recipe means by a stage's `image_generator`.

    Raises:
        FmriModelsError: A key is missing or unknown, or a value is of another type.
    """
    if value is None:
        return None
    for key in value:
        check_key(key, ["train"], "image_generator")
    if "train" not in value:
        raise FmriModelsError("image_generator does not say what is trained; add train: [cross_attention], or all.")
    return GeneratorTraining(**value)


class LearningGenerator:
    """An image generator while a stage trains some of it.

    Args:
        generator: Is trained in place.
        groups: Of its parameters.
        device: Where the stage is computed.

    Attributes:
        parameters: Name ▶ parameter that learns; all others of the generator have no gradient meanwhile.

    Raises:
        FmriModelsError: The generator has no such group, or weights that are not in float32.
    """

    def __init__(self, generator: ImageGenerator, groups: Sequence[str], device: torch.device) -> None:
        self.generator = generator
        self.parameters: dict[str, nn.Parameter] = generator.parameters_of(groups)
        for name, parameter in self.parameters.items():
            if parameter.dtype != torch.float32:
                raise FmriModelsError(
                    f"The image generator's {name} is in {str(parameter.dtype).removeprefix('torch.')} and is to be "
                    "trained; load it with generator.dtype=float32."
                )
        generator.to(device)
        networks = [each for each in generator.components.values() if isinstance(each, nn.Module)]
        every = (parameter for network in networks for parameter in network.parameters())
        self._frozen = freeze_all_but(self.parameters.values(), every)
        self._trained_networks = [getattr(generator, name) for name in _components_of(self.parameters)]

    def train(self, mode: bool = True) -> None:
        """Train or eval mode of the networks that learn; the others stay in eval mode."""
        for network in self._trained_networks:
            network.train(mode)

    def close(self) -> None:
        """The generator goes back to the CPU, and nothing of it is frozen any more."""
        for parameter in self._frozen:
            parameter.requires_grad_(True)
        self.train(False)
        self.generator.to("cpu")


def check_not_a_source(generator: ImageGenerator, groups: Sequence[str], targets: Sequence[str], stage: str) -> None:
    """Refuses to train what targets are computed with: they were cached before it changed.

    Raises:
        FmriModelsError: Names the component and the target.
    """
    trained = _components_of(generator.parameters_of(groups))
    for target in targets:
        if both := sorted({*trained} & set(generator.target_components.get(target, ()))):
            raise FmriModelsError(
                f"The stage {stage!r} trains the image generator's {listed(both)}, with which its target {target} is "
                "computed; choose other groups in image_generator.train, or other targets."
            )


def note_learned_weights(generator: ImageGenerator, model: FmriPreTrainedModel, trained: Sequence[str]) -> None:
    """Writes into both configurations which weights the learned conditions belong to.

    From now on the generator is a copy that differs from what its source has, and has no place but the pipeline.

    Args:
        generator: Was trained.
        model: Was trained with it.
        trained: Names of the parameters that learned.
    """
    generator.source = None
    revision = weights_digest(getattr(generator, name) for name in _components_of(trained))
    generator.register_to_config(condition_revision=revision)
    for name, space in generator.learned_condition_spaces.items():
        if getattr(model.config, name, None) is not None:
            setattr(model.config, name, space.to_dict())


def untrained_source(stated: str | Mapping[str, Any], generator: ImageGenerator) -> GeneratorSource | None:
    """Where everybody finds a generator as it was before training.

    Args:
        stated: As the recipe says it.
        generator: The generator.

    Returns:
        None where it has no such place: it was made for the stimuli, or lies in a folder of this machine.
    """
    source = parse_source(stated)
    place = source.repository or generator.default_repository
    if place is None and generator.package_folder is None:
        return None
    return None if place is not None and is_folder(place) else source


def _components_of(parameters: Iterable[str]) -> list[str]:
    """Names of the components that parameters are of."""
    return sorted({name.split(".", 1)[0] for name in parameters})
