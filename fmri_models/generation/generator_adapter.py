"""LoRA on the networks of an image generator: put there, saved apart from the base, and put on the same base again."""

import copy
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from accelerate import cpu_offload
from accelerate.hooks import AlignDevicesHook, remove_hook_from_module
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import nn

from ..adapters import (
    ADAPTER_CONFIG_FILE,
    ADAPTER_WEIGHTS_FILE,
    adapter_parameters,
    check_adapter,
    has_adapter_layers,
    remove_adapter_layers,
    without_adapter_layers,
)
from ..errors import FmriModelsError
from ..hub_repository import is_folder
from ..names import listed, one_line
from ..offloading import execution_device, weights_in_place, without_index_of_cpu
from ..reading import checked, read_object
from ..saving import check_schema, json_text
from .weights_digest import weights_digest

# In a pipeline's folder, beside its components.
ADAPTER_FOLDER = "image_generator_adapter"
BASE_FILE = "base_generator.json"
_ADAPTER_SCHEMA = 1
_NAME = "default"
# Before the names of tensors in PEFT's files.
_WRAPPED = "base_model.model."
_PICKLE = "adapter_model.bin"
_MEND = "take the folder from where the pipeline was saved, or train again"
# What of PEFT's configuration says what is computed; everything else has to be as PEFT has it.
_COMPUTED = ("r", "lora_alpha", "lora_dropout", "target_modules", "rank_pattern", "alpha_pattern", "use_rslora")
_SAYS_NOTHING = (
    "auto_mapping", "base_model_name_or_path", "inference_mode", "init_lora_weights", "peft_type", "peft_version",
    "revision", "task_type",
)  # fmt: skip
_PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

_Text = Annotated[str, Field(max_length=1000)]
_Digests = Annotated[dict[_Text, _Text], Field(min_length=1, max_length=len(_PRECISIONS))]


@dataclass(frozen=True)
class AdaptedBase:
    """Which weights an adapter belongs to.

    Args:
        generator: Class of the image generator.
        weights: Name of each network with an adapter ▶ precision ▶ digest of its own weights in that precision, the
            one in which they are kept first.
        condition_revision: Which conditions the generator has learned to read with the adapter; None where it has
            learned none.
        base_condition_revision: Which ones without it.
        was_trained: Whether the base was trained together with the adapter, so that nobody else has it.
        repository: Where the base was published; None where it lies with the pipeline or in a folder.
        commit: Commit of the repository.
    """

    generator: _Text
    weights: Annotated[dict[_Text, _Digests], Field(min_length=1, max_length=16)]
    condition_revision: _Text | None = None
    base_condition_revision: _Text | None = None
    was_trained: bool = False
    repository: _Text | None = None
    commit: _Text | None = None

    def __str__(self) -> str:
        if self.repository is None:
            return self.generator
        at = "" if self.commit is None else f" at {self.commit[:12]}"
        return f"{self.generator} of {self.repository}{at}"


@dataclass(frozen=True, repr=False)
class NetworkAdapter:
    """LoRA of one network.

    Args:
        config: PEFT's configuration, as JSON has it.
        tensors: Name within the network ▶ values.
    """

    config: Mapping[str, Any]
    tensors: Mapping[str, torch.Tensor]


@dataclass(frozen=True, repr=False)
class GeneratorAdapter:
    """The adapter of an image generator, apart from its base.

    Args:
        base: What it belongs to.
        networks: Name of a network ▶ what is on it.
    """

    base: AdaptedBase
    networks: Mapping[str, NetworkAdapter]

    @classmethod
    def of(cls, generator: Any, is_beside_base: bool) -> "GeneratorAdapter":
        """That on a generator that has one.

        Args:
            generator: The image generator.
            is_beside_base: Whether the base is saved with it, as its weights are now; else it is where it was found.
        """
        import peft

        base: AdaptedBase = generator.adapter_base
        networks = {name: getattr(generator, name) for name in base.weights}
        found = {}
        with weights_in_place(*networks.values()):
            for name, network in networks.items():
                state = peft.get_peft_model_state_dict(network, adapter_name=_NAME, save_embedding_layers=False)
                values = {key: each.detach().cpu().contiguous() for key, each in state.items()}
                found[name] = NetworkAdapter(_plain(network.peft_config[_NAME].to_dict()), values)
            if is_beside_base:
                base = replace(base, weights=_digests_of(networks))
        return cls(base, found)

    @classmethod
    def read(cls, folder: Path) -> "GeneratorAdapter":
        """The adapter in a folder, looked at before it is used.

        Raises:
            FmriModelsError: A file is missing or damaged, is a pickle, or says something else than LoRA of sizes that
                it has.
        """
        values = read_object(folder / BASE_FILE, "record of the image generator's adapter", _MEND)
        what = f"The record of the image generator's adapter in {one_line(folder)}"
        check_schema(values.pop("schema", _ADAPTER_SCHEMA), _ADAPTER_SCHEMA, what)
        base = checked(values, AdaptedBase, what, _MEND)
        networks = {}
        for name in base.weights:
            if not name.isidentifier():
                raise FmriModelsError(f"{what} names the network {one_line(repr(name), 80)}; {_MEND}.")
            networks[name] = _read_network(_place(folder, name, base.weights))
        return cls(base, networks)

    def write(self, folder: Path) -> None:
        """Writes it as PEFT does, with the record of its base beside; networks in folders of theirs if several."""
        for name, network in self.networks.items():
            place = _place(folder, name, self.networks)
            place.mkdir(parents=True, exist_ok=True)
            names = {"base_model_name_or_path": self.base.repository, "revision": self.base.commit}
            config = {**network.config, **names, "inference_mode": True, "init_lora_weights": True}
            (place / ADAPTER_CONFIG_FILE).write_text(json_text(dict(sorted(config.items()))), encoding="utf-8")
            tensors = {_WRAPPED + key: values for key, values in network.tensors.items()}
            save_file(tensors, place / ADAPTER_WEIGHTS_FILE, metadata={"format": "pt"})
        record = {"schema": _ADAPTER_SCHEMA, **asdict(self.base)}
        (folder / BASE_FILE).write_text(json_text(record), encoding="utf-8")

    def put_on(self, generator: Any) -> None:
        """Puts it on the generator that it was trained on.

        Raises:
            FmriModelsError: The generator is another one, has an adapter already, or lacks a layer.
        """
        self._check_fits(generator)
        done: list[nn.Module] = []
        try:
            for name, adapter in self.networks.items():
                done.append(getattr(generator, name))
                _inject(done[-1], adapter, name)
        except BaseException:
            for network in done:
                remove_adapter_layers(network)
            raise
        generator.adapter_base = self.base
        _note_conditions(generator, self.base.condition_revision)

    def _check_fits(self, generator: Any) -> None:
        found = type(generator).__name__
        if found != self.base.generator:
            raise FmriModelsError(
                f"The adapter was trained on a {self.base.generator} and the image generator is a {found}; give the "
                f"pipeline the {self.base}, or train an adapter for this one."
            )
        for name, recorded in self.base.weights.items():
            network = getattr(generator, name, None)
            if name not in generator.learning_components or not isinstance(network, nn.Module):
                raise FmriModelsError(
                    f"The adapter is for the {name} of a {found}, and this one has none; load the generator with it."
                )
            if has_adapter_layers(network):
                raise FmriModelsError(
                    f"The image generator's {name} has an adapter already; load the generator anew, and put this one "
                    "on it."
                )
            own = _precision(network)
            known = own if own in recorded else next(iter(recorded))
            digest = weights_digest([network], _PRECISIONS.get(known))
            if digest != recorded[known]:
                raise FmriModelsError(
                    f"The adapter was trained on the {name} whose weights in {known} have the digest "
                    f"{one_line(recorded[known], 40)}, and this {found}'s, in {own}, have {digest}; give the pipeline "
                    f"the {self.base} that it was trained on, or train an adapter for this one."
                )


@contextmanager
def base_alone(generator: Any) -> Iterator[None]:
    """Inside the block, a generator with an adapter is what it was without, under the names of its own weights."""
    base = None if generator is None else generator.adapter_base
    if base is None:
        yield
        return
    with without_adapter_layers(*(getattr(generator, name) for name in base.weights)):
        _note_conditions(generator, base.base_condition_revision)
        try:
            yield
        finally:
            _note_conditions(generator, base.condition_revision)


def without_adapter(generator: Any) -> Any:
    """The same generator without its adapter, whose weights are those of the other, not copies of them.

    Where weights are sent to a device when they are needed, those of the networks that had an adapter are sent layer by
    layer; of what is kept elsewhere in layers already, they are copies.
    """
    plain = copy.copy(generator)
    names = list(generator.adapter_base.weights)
    with base_alone(generator):
        _note_conditions(plain, generator.adapter_base.base_condition_revision)
        for name in names:
            network = getattr(generator, name)
            device = execution_device(network)
            with weights_in_place(network):
                # Those that are in place for a while alone are left out, as they go again.
                own = [*network.parameters(), *network.buffers()] if not _is_sent_by_layer(network) else []
                twin = copy.deepcopy(network, {id(each): each for each in own})
            remove_hook_from_module(twin, recurse=True)
            for attribute in ("peft_config", "_hf_peft_config_loaded"):
                twin.__dict__.pop(attribute, None)
            if device is not None:
                cpu_offload(twin, device, offload_buffers=True)
                without_index_of_cpu(twin)
            setattr(plain, name, twin)
    plain.adapter_base = None
    # The spaces that it states are those with the adapter.
    plain.source = None if generator.source is None else replace(generator.source, spaces={})
    return plain


def put_lora(generator: Any, groups: Sequence[str], r: int, alpha: float, dropout: float, seed: int) -> None:
    """Puts a LoRA that changes nothing yet on the layers of some groups; its weights are to be trained.

    Args:
        generator: The image generator.
        groups: Names of groups that it has.
        r: Rank.
        alpha: What is added is scaled by `alpha / r`.
        dropout: Share of the layers' inputs that it does not see in training.
        seed: Of its first weights.

    Raises:
        FmriModelsError: There is no such group, or no layer in it.
    """
    import peft

    targets = generator.lora_targets(groups)
    if not targets:
        raise FmriModelsError(
            f"The groups {listed(list(groups))} of {type(generator).__name__} have no linear or convolutional layer, "
            "so that no LoRA goes there; choose other groups."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name, layers in targets.items():
            network = getattr(generator, name)
            options = {"r": r, "lora_alpha": alpha, "lora_dropout": dropout, "target_modules": layers}
            try:
                with _own_weights_untouched(network):
                    peft.inject_adapter_in_model(peft.LoraConfig(**options), network, _NAME)
            except ValueError as error:
                raise FmriModelsError(
                    f"No LoRA can go on the layers {listed(list(groups))} of the {name} ({one_line(error, 200)}); "
                    "choose other groups, or another r."
                ) from error
            network._hf_peft_config_loaded = True
            for parameter in adapter_parameters(network).values():
                # What a step adds would be lost in half precision.
                parameter.data = parameter.data.float()


def lora_parameters(generator: Any) -> dict[str, nn.Parameter]:
    """Parameters of the adapter on a generator, by names that begin with that of their network."""
    return {
        f"{name}.{key}": parameter
        for name in generator.learning_components
        if isinstance(network := getattr(generator, name, None), nn.Module)
        for key, parameter in adapter_parameters(network).items()
    }


def note_adapter(generator: Any, was_trained: bool) -> None:
    """Notes with a generator which base its adapter, which is trained now, belongs to.

    Args:
        generator: Has one, of [`put_lora`].
        was_trained: Whether its own weights were trained, too.
    """
    names = [name for name in generator.learning_components if _is_adapted(getattr(generator, name, None))]
    networks = {name: getattr(generator, name) for name in names}
    before = generator.config.get("condition_revision")
    weights = _digests_of(networks)
    digest = hashlib.sha256(json.dumps(weights, sort_keys=True).encode())
    for network in networks.values():
        digest.update(weights_digest([network]).encode())
        # As somebody loads it, to draw.
        for parameter in adapter_parameters(network).values():
            parameter.requires_grad_(False)
    source = generator.source
    is_published = source is not None and not is_folder(str(source.repository))
    generator.adapter_base = AdaptedBase(
        generator=type(generator).__name__,
        weights=weights,
        condition_revision=digest.hexdigest()[:12] if "condition_revision" in generator.config else None,
        base_condition_revision=before,
        was_trained=was_trained,
        repository=source.repository if is_published else None,
        commit=generator.commit if is_published else None,
    )
    _note_conditions(generator, generator.adapter_base.condition_revision)


def check_adapter_is_whole(generator: Any) -> None:
    """Refuses an adapter that was changed in a way that a loaded one would not be.

    Raises:
        FmriModelsError: It was taken out, switched off or merged, or there is another one.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name in generator.adapter_base.weights:
        network = getattr(generator, name)
        if not has_adapter_layers(network):
            raise FmriModelsError(
                f"The adapter of the image generator's {name} was taken out, and the brain model was trained with it; "
                "load the pipeline again, or give it untrained_image_generator as its image_generator."
            )
        layers = [each for each in network.modules() if isinstance(each, BaseTunerLayer)]
        if list(network.peft_config) != [_NAME] or any(list(each.active_adapters) != [_NAME] for each in layers):
            raise FmriModelsError(
                f"The image generator's {name} has the adapters {listed(list(network.peft_config))}; expected that "
                "alone which it was trained with, switched on: delete the others."
            )
        if any(each.merged or each.disable_adapters for each in layers):
            raise FmriModelsError(
                f"The adapter of the image generator's {name} is merged or switched off, and would be on in the saved "
                f"pipeline; call {name}.enable_adapters() or {name}.unfuse_lora() first."
            )


def adapter_files(folder: str = ADAPTER_FOLDER) -> list[str]:
    """Patterns of what an adapter's folder may hold, relative to the pipeline's."""
    saved = [f"{place}/{name}" for place in (folder, f"{folder}/*") for name in _FILES]
    return [f"{folder}/{BASE_FILE}", *saved]


_FILES = (ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE)


def _place(folder: Path, name: str, networks: Iterable[str]) -> Path:
    return folder / name if len(list(networks)) > 1 else folder


def _read_network(place: Path) -> NetworkAdapter:
    if (place / _PICKLE).exists():
        raise FmriModelsError(
            f"The adapter in {one_line(place)} has {_PICKLE}, a pickle, which can run code where it is loaded, and is "
            f"not read; save its tensors as {ADAPTER_WEIGHTS_FILE}, and remove it."
        )
    check_adapter(place)
    config = read_object(place / ADAPTER_CONFIG_FILE, "adapter's configuration", _MEND)
    what = f"The adapter in {one_line(place)}"
    if config.get("peft_type") != "LORA":
        raise FmriModelsError(
            f"{what} is of the method {one_line(repr(config.get('peft_type')), 40)}; expected LORA, the one that image "
            f"generators are trained with; {_MEND}."
        )
    usual = _plain(_lora_config({}).to_dict())
    for key, value in config.items():
        if key not in (*_COMPUTED, *_SAYS_NOTHING) and value and value != usual.get(key):
            raise FmriModelsError(
                f"{what} has {one_line(repr(value), 80)} as {one_line(key, 80)} in its {ADAPTER_CONFIG_FILE}, which "
                f"adapters of image generators don't have; {_MEND}."
            )
    tensors = {key.removeprefix(_WRAPPED): values for key, values in load_file(place / ADAPTER_WEIGHTS_FILE).items()}
    return NetworkAdapter(config, tensors)


def _lora_config(config: Mapping[str, Any]) -> Any:
    import peft

    return peft.LoraConfig(**{name: config[name] for name in _COMPUTED if config.get(name) is not None})


def _inject(network: Any, adapter: NetworkAdapter, name: str) -> None:
    """Puts stored LoRA on a network, with every tensor of it and none besides."""
    import peft

    dtype = network.dtype
    try:
        with _own_weights_untouched(network):
            # Nothing is allocated before it is known that all fits.
            peft.inject_adapter_in_model(_lora_config(adapter.config), network, _NAME, low_cpu_mem_usage=True)
        expected = peft.get_peft_model_state_dict(network, adapter_name=_NAME, save_embedding_layers=False)
        shapes = {key: tuple(values.shape) for key, values in expected.items()}
        found = {key: tuple(values.shape) for key, values in adapter.tensors.items()}
        differing = sorted(key for key in shapes.keys() | found.keys() if shapes.get(key) != found.get(key))
        if differing:
            key = differing[0]
            raise FmriModelsError(
                f"The adapter has {one_line(key, 120)} as {found.get(key, 'nothing')}; expected "
                f"{shapes.get(key, 'nothing')} for this {name}; {_MEND}."
            )
        stored = {key: values.clone() for key, values in adapter.tensors.items()}
        peft.set_peft_model_state_dict(network, stored, adapter_name=_NAME, low_cpu_mem_usage=True)
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        if isinstance(error, FmriModelsError):
            raise
        raise FmriModelsError(f"The adapter can't be put on this {name} ({one_line(error, 200)}); {_MEND}.") from error
    network._hf_peft_config_loaded = True
    for parameter in adapter_parameters(network).values():
        parameter.requires_grad_(False)
        parameter.data = parameter.data.to(dtype)
    network.train(network.training)


@contextmanager
def _own_weights_untouched(network: nn.Module) -> Iterator[None]:
    """PEFT freezes what it puts layers around; what a stage trains is said elsewhere."""
    before = [(parameter, parameter.requires_grad) for parameter in network.parameters()]
    mode = network.training
    try:
        yield
    finally:
        for parameter, requires_grad in before:
            parameter.requires_grad_(requires_grad)
        network.train(mode)


def _is_sent_by_layer(network: nn.Module) -> bool:
    return any(isinstance(getattr(each, "_hf_hook", None), AlignDevicesHook) for each in network.modules())


def _is_adapted(network: Any) -> bool:
    return isinstance(network, nn.Module) and has_adapter_layers(network)


def _note_conditions(generator: Any, revision: str | None) -> None:
    """Says which weights its learned conditions belong to, where the generator has such."""
    if "condition_revision" in generator.config:
        generator.register_to_config(condition_revision=revision)


def _precision(network: Any) -> str:
    return str(network.dtype).removeprefix("torch.")


def _digests_of(networks: Mapping[str, nn.Module]) -> dict[str, dict[str, str]]:
    """Digests of the networks' own weights in their precision, and of float32 in the coarser ones."""
    found = {}
    with without_adapter_layers(*networks.values()):
        for name, network in networks.items():
            own = _precision(network)
            precisions = list(_PRECISIONS) if own == "float32" else [own]
            found[name] = {each: weights_digest([network], _PRECISIONS.get(each)) for each in precisions}
    return found


def _plain(values: Any) -> Any:
    """PEFT's configuration as JSON has it, the same each time."""
    if isinstance(values, Mapping):
        return {str(key): _plain(value) for key, value in values.items()}
    if isinstance(values, set | frozenset):
        return sorted(values)
    if isinstance(values, list | tuple):
        return [_plain(each) for each in values]
    return getattr(values, "value", values)
