"""The image generator of a stage that trains it: which of its parameters learn, and what becomes of the others."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn

from ..adapters import without_adapter_layers
from ..errors import FmriModelsError
from ..generation.generator_adapter import ADAPTER_FOLDER, lora_parameters, note_adapter, put_lora
from ..generation.image_generator import ImageGenerator
from ..generation.loading import located, parse_source
from ..generation.source import GeneratorSource
from ..generation.weights_digest import weights_digest
from ..hub_repository import is_folder
from ..modeling_fmri import FmriPreTrainedModel
from ..names import listed, one_line
from ..option_types import PositiveNumber, check_fields, in_words
from ..typed_values import check_key
from .trained_weights import freeze_all_but

Rank = Annotated[int, Field(ge=1, le=4096), in_words("a whole number from 1 to 4096")]
Dropout = Annotated[float, Field(ge=0, lt=1), in_words("a number from 0 to 1, and not 1")]
_USUAL_GROUP = "cross_attention"


@dataclass(frozen=True)
class GeneratorLora:
    """LoRA (Hu et al., 2022) on an image generator, in the place of its own weights.

    Args:
        r: Rank.
        alpha: What it adds is scaled by `alpha / r`.
        dropout: Share of the layers' inputs that it does not see in training.
        groups: Groups of the generator's parameters on whose layers it goes; None for its cross-attention, or the first
            group that it has.
    """

    r: Rank = 8
    alpha: PositiveNumber = 16.0
    dropout: Dropout = 0.0
    groups: Annotated[list[str], Field(min_length=1)] | None = None

    def __post_init__(self) -> None:
        check_fields(vars(self), GeneratorLora, "image_generator.lora.", "correct the recipe")

    def groups_of(self, generator: ImageGenerator) -> list[str]:
        """The groups on which it goes; such as no generator has are refused where they are asked for."""
        if self.groups is not None:
            return list(self.groups)
        known = generator.trainable_groups
        return [_USUAL_GROUP] if _USUAL_GROUP in known or not known else [known[0]]


@dataclass(frozen=True)
class GeneratorTraining:
    """What a recipe's `image_generator` says of a stage.

    Args:
        train: Groups of the generator's parameters that learn, by the names that the generator gives them, such as
            `cross_attention` or `all`.
        lora: LoRA that learns beside them, or alone; None for none.
        gradient_checkpointing: Whether activations of the networks that learn are computed again where gradients need
            them, which takes less memory and more time.
    """

    train: list[str] = field(default_factory=list)
    lora: GeneratorLora | None = None
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        check_fields(
            vars(self), GeneratorTraining, "image_generator.", "correct the recipe", checked_elsewhere=["lora"]
        )
        if not self.train and self.lora is None:
            raise FmriModelsError(
                "image_generator.train names no group; name one, add lora: {r: 8}, or leave image_generator out."
            )


def generator_training(value: Mapping[str, Any] | None) -> GeneratorTraining | None:
    """What a recipe means by a stage's `image_generator`.

    Raises:
        FmriModelsError: A key is missing or unknown, or a value is of another type.
    """
    if value is None:
        return None
    _check_keys(value, GeneratorTraining, "image_generator")
    lora = value.get("lora")
    if "train" not in value and lora is None:
        raise FmriModelsError(
            "image_generator does not say what is trained; add train: [cross_attention], or all, or lora: {r: 8}."
        )
    if lora is not None and not isinstance(lora, Mapping):
        raise FmriModelsError(
            f"image_generator.lora is {one_line(repr(lora), 80)}; expected a mapping such as {{r: 8, alpha: 16}}."
        )
    if lora is not None:
        _check_keys(lora, GeneratorLora, "image_generator.lora")
        lora = GeneratorLora(**lora)
    return GeneratorTraining(**{**value, "lora": lora})


def check_one_lora(stages: Mapping[str, GeneratorTraining | None]) -> None:
    """Refuses stages that state different LoRA: the later ones go on with that of the first.

    Args:
        stages: Name of a stage ▶ what it trains of the generator.

    Raises:
        FmriModelsError: Names the stages.
    """
    stated = {name: each.lora for name, each in stages.items() if each is not None and each.lora is not None}
    first = next(iter(stated), None)
    for name, lora in stated.items():
        if first is not None and lora != stated[first]:
            raise FmriModelsError(
                f"The stages {first!r} and {name!r} have different image_generator.lora, and the image generator has "
                "one; state the same in both."
            )


def check_can_learn(generator: ImageGenerator, training: GeneratorTraining) -> None:
    """Refuses what a stage would train of a generator that has no such part, before any stage begins.

    Raises:
        FmriModelsError: The generator has no such group, or weights of it that are not in float32, or the stage trains
            layers themselves and by LoRA.
    """
    trained = _float32_parameters(generator, training)
    if training.lora is None:
        return
    for name, layers in generator.lora_targets(training.lora.groups_of(generator)).items():
        if both := next((layer for layer in layers if f"{name}.{layer}.weight" in trained), None):
            raise FmriModelsError(
                f"The stage trains the image generator's {name}.{both} itself (image_generator.train) and by LoRA "
                "(image_generator.lora.groups); leave it out of one of them."
            )


def _float32_parameters(generator: ImageGenerator, training: GeneratorTraining) -> dict[str, nn.Parameter]:
    """Name ▶ parameter of the generator that learns itself."""
    parameters = generator.parameters_of(training.train)
    for name, parameter in parameters.items():
        if parameter.dtype != torch.float32:
            raise FmriModelsError(
                f"The image generator's {name} is in {str(parameter.dtype).removeprefix('torch.')} and is to be "
                "trained; load it with generator.dtype=float32."
            )
    return parameters


def put_lora_of(generator: ImageGenerator, training: GeneratorTraining, seed: int) -> None:
    """Puts the LoRA of a stage on the generator, unless an earlier stage has.

    Args:
        generator: The image generator.
        training: What the stage trains of it.
        seed: Of the LoRA's first weights.

    Raises:
        FmriModelsError: The generator has no such group, or no layer in it.
    """
    lora = training.lora
    if lora is not None and not lora_parameters(generator):
        put_lora(generator, lora.groups_of(generator), lora.r, lora.alpha, lora.dropout, seed)


class LearningGenerator:
    """An image generator while a stage trains some of it.

    Args:
        generator: Is trained in place; what LoRA there is was put on it.
        training: What of it learns.
        device: Where the stage is computed.

    Attributes:
        parameters: Name ▶ parameter that learns; all others of the generator have no gradient meanwhile.

    Raises:
        FmriModelsError: The generator has no such group, or weights that are not in float32.
    """

    def __init__(self, generator: ImageGenerator, training: GeneratorTraining, device: torch.device) -> None:
        self.generator = generator
        self.parameters = _float32_parameters(generator, training)
        if training.lora is not None:
            self.parameters |= lora_parameters(generator)
        generator.to(device)
        self._frozen = freeze_all_but(self.parameters.values(), _parameters_of(generator))
        self._trained_networks = [getattr(generator, name) for name in _components_of(self.parameters)]
        self._recomputing = _with_recomputation(self._trained_networks) if training.gradient_checkpointing else []

    def train(self, mode: bool = True) -> None:
        """Train or eval mode of the networks that learn; the others stay in eval mode."""
        for network in self._trained_networks:
            network.train(mode)

    def close(self) -> None:
        """The generator goes back to the CPU, and nothing of it is frozen any more."""
        for parameter in self._frozen:
            parameter.requires_grad_(True)
        for network in self._recomputing:
            network.disable_gradient_checkpointing()
        self.train(False)
        self.generator.to("cpu")


class FrozenGenerator:
    """An image generator through which a stage may train, and of which it trains nothing.

    It is left where it is until an objective asks for it: most never do, and it may be the largest of all networks.

    Args:
        generator: The image generator.
        device: Where the stage is computed.
    """

    def __init__(self, generator: ImageGenerator, device: torch.device) -> None:
        self.generator = generator
        self.device = device
        self._frozen: list[nn.Parameter] | None = None

    def __call__(self) -> ImageGenerator:
        """The generator on the device, in eval mode, whose parameters have no gradient; gradients go through it."""
        if self._frozen is None:
            self.generator.to(self.device)
            for network in _networks_of(self.generator):
                network.eval()
            self._frozen = freeze_all_but([], _parameters_of(self.generator))
        return self.generator

    def close(self) -> None:
        """The generator goes back to the CPU, if it was asked for, and nothing of it is frozen any more."""
        if self._frozen is None:
            return
        for parameter in self._frozen:
            parameter.requires_grad_(True)
        self._frozen = None
        self.generator.to("cpu")


def check_not_a_source(
    generator: ImageGenerator, training: GeneratorTraining | None, targets: Sequence[str], stage: str
) -> None:
    """Refuses to train what targets are computed with: they were cached before it changed.

    Raises:
        FmriModelsError: Names the component and the target.
    """
    if training is None:
        return
    trained = {*_components_of(generator.parameters_of(training.train))}
    if training.lora is not None:
        trained |= generator.lora_targets(training.lora.groups_of(generator)).keys()
    for target in targets:
        if both := sorted(trained & set(generator.target_components.get(target, ()))):
            raise FmriModelsError(
                f"The stage {stage!r} trains the image generator's {listed(both)}, with which its target {target} is "
                "computed; choose other groups in image_generator, or other targets."
            )


def note_learned_weights(generator: ImageGenerator, model: FmriPreTrainedModel, learned: Iterable[str]) -> bool:
    """Writes into both configurations which weights the learned conditions belong to.

    A generator whose own weights were trained is a copy that differs from what its source has, and has no place but the
    pipeline; one with LoRA alone is where it was, with the LoRA beside.

    Args:
        generator: Was trained.
        model: Was trained with it.
        learned: Names of the parameters that learned.

    Returns:
        Whether the generator's own weights were trained.
    """
    of_adapter = lora_parameters(generator).keys()
    own = [name for name in learned if name not in of_adapter]
    if own:
        generator.source = None
        networks = [getattr(generator, name) for name in _components_of(own)]
        with without_adapter_layers(*networks):
            revision = weights_digest(networks)
        if "condition_revision" in generator.config:
            generator.register_to_config(condition_revision=revision)
    if of_adapter:
        note_adapter(generator, was_trained=bool(own))
    if generator.source is not None:
        pinned = replace(generator.source, revision=generator.commit or generator.source.revision)
        generator.source = located(pinned, generator)
    generator.name_learned_spaces(model.config)
    return bool(own)


def generator_entry(generator: ImageGenerator, training: GeneratorTraining) -> dict[str, Any]:
    """For the record: how many values of the generator a stage has trained, and where those of LoRA are saved."""
    entry: dict[str, Any] = {}
    if training.train:
        entry["train"] = list(training.train)
        entry["parameters"] = sum(each.numel() for each in generator.parameters_of(training.train).values())
    if training.lora is not None:
        entry["lora"] = {**asdict(training.lora), "groups": training.lora.groups_of(generator)}
        entry["lora_parameters"] = sum(each.numel() for each in lora_parameters(generator).values())
        entry["adapter"] = f"{ADAPTER_FOLDER}/"
    return entry


def planned_parameters(generator: ImageGenerator, training: GeneratorTraining) -> list[nn.Parameter]:
    """What a stage will train of a generator, counted before anything is put on it: LoRA on the device `meta`.

    Raises:
        FmriModelsError: The generator has no such group.
    """
    parameters = list(generator.parameters_of(training.train).values())
    if training.lora is None:
        return parameters
    for name, layers in generator.lora_targets(training.lora.groups_of(generator)).items():
        for layer in layers:
            parameters += _lora_of(getattr(generator, name).get_submodule(layer), training.lora.r)
    return parameters


def _lora_of(layer: nn.Module, r: int) -> list[nn.Parameter]:
    """The two matrices that PEFT puts beside a linear or convolutional layer."""
    if isinstance(layer, nn.Conv2d):
        shapes = [(r, layer.in_channels, *layer.kernel_size), (layer.out_channels, r // layer.groups, 1, 1)]
    else:
        assert isinstance(layer, nn.Linear)
        shapes = [(r, layer.in_features), (layer.out_features, r)]
    return [nn.Parameter(torch.empty(shape, device="meta")) for shape in shapes]


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


def _check_keys(values: Mapping[str, Any], dataclass: type, what: str) -> None:
    for key in values:
        check_key(key, [each.name for each in fields(dataclass)], what)


def _with_recomputation(networks: Sequence[Any]) -> list[Any]:
    """Switches gradient checkpointing on; gives the networks that had it off."""
    off = [network for network in networks if not getattr(network, "is_gradient_checkpointing", False)]
    for network in off:
        if not hasattr(network, "enable_gradient_checkpointing"):
            raise FmriModelsError(
                f"A {type(network).__name__} has no gradient checkpointing; leave "
                "image_generator.gradient_checkpointing out."
            )
        network.enable_gradient_checkpointing()
    return off


def _networks_of(generator: ImageGenerator) -> list[nn.Module]:
    return [each for each in generator.components.values() if isinstance(each, nn.Module)]


def _parameters_of(generator: ImageGenerator) -> Iterator[nn.Parameter]:
    return (parameter for network in _networks_of(generator) for parameter in network.parameters())


def _components_of(parameters: Iterable[str]) -> list[str]:
    """Names of the components that parameters are of."""
    return sorted({name.split(".", 1)[0] for name in parameters})
