"""PEFT adapters on a network: read with their base and checked, saved beside its weights, and taken out of it."""

import copy
import json
import math
import re
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from transformers.modeling_utils import LoadStateDictInfo

from .adapter_patterns import check_patterns
from .errors import FmriModelsError
from .hub_repository import is_folder
from .names import listed, one_line
from .reading import read_object
from .subject_modules import name_today, prefixes_today, subject_modules
from .weights import StoredTensor, check_finite, stored_tensors_of

ADAPTER_CONFIG_FILE = "adapter_config.json"
ADAPTER_WEIGHTS_FILE = "adapter_model.safetensors"
ADAPTER_FILES = (ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE)
_MEND = "save the adapter again, or remove it"
# Before the names of tensors in PEFT's files.
WRAPPED = "base_model.model."
# Sizes that some method of PEFT allocates by; each of them is a dimension of what it stores.
_SIZES = ("r", "init_r", "n_frequency", "num_vectors")


def unwrapped(model: Any) -> Any:
    """The brain model itself, with its adapters, of one that `peft.get_peft_model` has wrapped.

    It then is what transformers' own `add_adapter` makes of it, whose methods work on it.
    """
    if not getattr(model, "peft_config", None):
        return model
    from peft import PeftModel

    if isinstance(model, PeftModel):
        model = model.get_base_model()
    if hasattr(model, "_hf_peft_config_loaded"):
        model._hf_peft_config_loaded = True
    return model


def adapters_of(model: nn.Module) -> list[str]:
    """Names of the adapters that a brain model has."""
    return list(getattr(model, "peft_config", None) or ())


def has_adapter_layers(model: nn.Module) -> bool:
    """Whether layers are wrapped for adapters, which they stay when the last adapter was deleted."""
    return bool(_wrapped_layers(model))


def has_wrapped_layers(layer: nn.Module) -> bool:
    """Whether a layer, or one inside it, is wrapped for an adapter."""
    return bool(_wrapped_layers(layer))


def name_adapted_layers(model: nn.Module) -> None:
    """Names the layers of a model's adapters one by one in their configurations, instead of by patterns."""
    configs: Any = getattr(model, "peft_config", None) or {}
    if not configs:
        return
    # Under their own names, which patterns were written for.
    with without_adapter_layers(model):
        names = {name: name for name, _ in model.named_modules()}
    for config in configs.values():
        _name_one_by_one(config, names)


def check_can_be_kept(model: nn.Module) -> None:
    """Refuses adapters that could not be loaded again with the weights of the model.

    Raises:
        FmriModelsError: There are several adapters, the only one is switched off or merged into the weights, or it is
            of a method that only PEFT's own wrapper can save.
    """
    from peft import PEFT_TYPE_TO_TUNER_MAPPING

    names = adapters_of(model)
    mend = "or save the adapters apart with brain_model.save_pretrained(folder) and load them with load_adapter(folder)"
    if len(names) > 1:
        raise FmriModelsError(
            f"The brain model has {len(names)} adapters ({listed(names)}), and a pipeline is saved with one at most; "
            f"delete the others with brain_model.delete_adapter(name), {mend}."
        )
    configs: Any = model.peft_config
    method = configs[names[0]].peft_type
    if getattr(PEFT_TYPE_TO_TUNER_MAPPING.get(method), "uses_shared_state", False):
        raise FmriModelsError(
            f"The adapter {names[0]!r} of the brain model is of PEFT's method {method.value}, whose layers share "
            "tensors that are not in the model; give the pipeline what merge_and_unload() of PEFT gives."
        )
    check_own_patterns(model)
    layers = [layer for layer in _wrapped_layers(model).values() if hasattr(layer, "active_adapters")]
    if any(getattr(layer, "merged", False) for layer in layers):
        raise FmriModelsError(
            f"The adapter {names[0]!r} is merged into the brain model's weights and still beside them; take it back "
            "with unmerge_adapter(), or keep what merge_and_unload() of PEFT gives."
        )
    if any(layer.disable_adapters or list(layer.active_adapters) != names for layer in layers):
        raise FmriModelsError(
            f"The adapter {names[0]!r} of the brain model is switched off, and would be on in the saved pipeline; "
            "switch it on with brain_model.enable_adapters(), or remove it with brain_model.delete_adapter(name)."
        )


def check_own_patterns(model: nn.Module) -> None:
    """Refuses adapters of a model that could not be read again after they were saved, as [`check_patterns`] has them.

    Raises:
        FmriModelsError: Names the pattern and what may be written instead.
    """
    configs: Any = getattr(model, "peft_config", None) or {}
    for name, config in configs.items():
        check_patterns(config.to_dict(), f"The adapter {one_line(repr(name), 80)} of the brain model")
        _check_name_of_adapter(model, name)


def _check_name_of_adapter(model: nn.Module, name: str) -> None:
    """Refuses an adapter on a subject's layers that is called as the subject: PEFT takes its name out of theirs."""
    for place, container in subject_modules(model).items():
        for subject in container.names:
            if container.key_of(subject).startswith(name) and has_wrapped_layers(container[subject]):
                raise FmriModelsError(
                    f"The adapter {one_line(repr(name), 80)} is on the layers {place} of the subject {subject}, whose "
                    "name begins so, and PEFT confuses the two in the names of tensors; give the adapter another name, "
                    f"such as lora_{one_line(name, 80)}."
                )


def base_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """The weights of a model without its adapters, under the names that they have without them."""
    inner = {name: _inner_name(layer) for name, layer in _wrapped_layers(model).items()}
    state = {}
    for key, values in model.state_dict().items():
        around = [name for name in inner if key.startswith(f"{name}.")]
        if all(key.startswith(f"{name}.{inner[name]}.") for name in around):
            # From the inside out, so that what is before a name stays as it is.
            for name in sorted(around, key=len, reverse=True):
                key = name + key.removeprefix(f"{name}.{inner[name]}")
            state[key] = values
    return state


@contextmanager
def without_adapter_layers(*networks: nn.Module) -> Iterator[None]:
    """Inside the block, the layers of networks are those that PEFT has put others around, under their own names."""
    taken = [each for network in networks for each in _taken_out(network)]
    try:
        yield
    finally:
        for parent, name, layer in reversed(taken):
            parent._modules[name] = layer


def switch_on_copies(model: nn.Module) -> None:
    """Switches on copies of whole modules that adapters train (`modules_to_save`).

    `disable_adapters` of transformers switches them off with the rest, and its `enable_adapters` leaves them off.
    """
    from peft.utils.other import AuxiliaryTrainingWrapper

    for each in model.modules():
        if isinstance(each, AuxiliaryTrainingWrapper):
            each.enable_adapters(True)


def remove_adapter_layers(network: Any) -> None:
    """Takes all adapters out of a network for good; its own weights stay as they are."""
    _taken_out(network)
    for attribute in ("peft_config", "_hf_peft_config_loaded"):
        network.__dict__.pop(attribute, None)


def adapter_parameters(network: nn.Module) -> dict[str, nn.Parameter]:
    """Name ▶ parameter of the adapters on a network, and none of its own."""
    with without_adapter_layers(network):
        own = {id(parameter) for parameter in network.parameters()}
    return {name: parameter for name, parameter in network.named_parameters() if id(parameter) not in own}


def keep_with_base(folder: Path) -> None:
    """Makes a saved adapter one of the base that lies beside it.

    Its configuration then names no place of this machine, and starts from no weights that change those of the base,
    which already are what they were changed to.
    """
    file = folder / ADAPTER_CONFIG_FILE
    config = json.loads(file.read_text(encoding="utf-8"))
    base = config.get("base_model_name_or_path")
    if not isinstance(base, str) or not base or Path(base).is_absolute() or is_folder(base):
        config["base_model_name_or_path"] = None
    if isinstance(config.get("init_lora_weights"), str):
        config["init_lora_weights"] = True
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def base_of(folder: Path) -> str:
    """Where the weights are that a saved adapter was trained on.

    Raises:
        FmriModelsError: Its configuration names none.
    """
    base = _configuration(folder).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise FmriModelsError(
            f"The adapter in {one_line(folder)} names no model that it belongs to (base_model_name_or_path); load that "
            "model, and the adapter with its load_adapter(), or write the name into the file."
        )
    return base


def check_adapter(folder: Path) -> None:
    """Refuses a saved adapter whose tensors are not whole, or whose configuration would import or allocate at will.

    Raises:
        FmriModelsError: Names the first tensor, or the value.
    """
    config = _configuration(folder)
    what = f"The adapter in {one_line(folder)}"
    if config.get("megatron_config"):
        raise FmriModelsError(
            f"{what} has a megatron_config in its {ADAPTER_CONFIG_FILE}, which imports code; {_MEND}."
        )
    from peft import PeftType

    if (method := config.get("peft_type")) not in list(PeftType):
        raise FmriModelsError(
            f"{what} is of the method {one_line(repr(method), 40)}, which the installed PEFT does not have; update "
            f"PEFT, or {_MEND}."
        )
    check_patterns(config, what)
    stored = stored_tensors_of(folder / ADAPTER_WEIGHTS_FILE, what)
    _check_sizes(config, stored, what)
    check_finite(stored, what)


def put_adapter(model: Any, folder: Path, adapter_name: str, is_trainable: bool) -> LoadStateDictInfo:
    """Puts a saved adapter on a model by PEFT's own rules, and refuses it unless every tensor of it was stored.

    transformers' mix-in renames tensors by rules of its own, which leave some at random (DoRA's magnitudes).

    Args:
        model: The brain model.
        folder: Where the adapter is.
        adapter_name: What to call it.
        is_trainable: Whether its weights are to be trained.

    Returns:
        What transformers says of loaded tensors: none is missing.

    Raises:
        FmriModelsError: It is of another model.
    """
    import peft
    from peft.tuners.tuners_utils import BaseTunerLayer

    mend = f"put it on the model that it was trained on, or {_MEND}"
    before = adapters_of(model)
    if adapter_name in before:
        raise FmriModelsError(
            f"The adapter {one_line(repr(adapter_name), 80)} already exists in this model; give another adapter_name, "
            "or remove it with delete_adapter(name)."
        )
    try:
        config = peft.PeftConfig.from_pretrained(str(folder))
        config.inference_mode = not is_trainable
        stored = load_file(folder / ADAPTER_WEIGHTS_FILE)
        stored = {name.removeprefix(WRAPPED): values for name, values in stored.items()}
        if prefixes := prefixes_today(model, stored):
            stored = {name_today(name, prefixes): values for name, values in stored.items()}
            _name_as_today(config, model, prefixes)
        if config.peft_type == peft.PeftType.LORA:
            # Before anything is allocated.
            _check_complete(_expected_of_lora(model, config), stored, folder, mend)
        with _unchanged_on_errors(model, config):
            peft.inject_adapter_in_model(config, model, adapter_name)
            model._hf_peft_config_loaded = True
            _check_name_of_adapter(model, adapter_name)
            _check_complete(peft.get_peft_model_state_dict(model, adapter_name=adapter_name), stored, folder, mend)
            peft.set_peft_model_state_dict(model, stored, adapter_name=adapter_name)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, SafetensorError) as error:
        if adapter_name in adapters_of(model):
            model._hf_peft_config_loaded = True
            model.delete_adapter(adapter_name)
        if isinstance(error, FmriModelsError):
            raise
        raise FmriModelsError(
            f"The adapter in {one_line(folder)} can't be put on this {type(model).__name__} ({one_line(error)}); "
            f"{mend}."
        ) from error
    if not is_trainable:
        model.eval()
        layers: list[Any] = [each for each in model.modules() if isinstance(each, BaseTunerLayer)]
        for layer in layers:
            layer.requires_grad_(False)
    # Sets, lists and a mapping, which are not the same in all versions.
    return LoadStateDictInfo(**{name: get_origin(hint)() for name, hint in get_type_hints(LoadStateDictInfo).items()})


def _name_as_today(config: Any, model: nn.Module, prefixes: Mapping[str, str]) -> None:
    """Names the layers of an adapter one by one, as they are called today, instead of by patterns of former names.

    Args:
        config: PEFT's configuration, which is changed.
        model: The model.
        prefixes: Former beginnings of names ▶ those of today.
    """
    former = {name: name for name, _ in model.named_modules()}
    for before, today in prefixes.items():
        former.update({name: before[:-1] + name[len(today) - 1 :] for name in former if f"{name}.".startswith(today)})
    _name_one_by_one(config, former)


def _name_one_by_one(config: Any, former: Mapping[str, str]) -> None:
    """Names the layers of an adapter one by one.

    Args:
        config: PEFT's configuration, which is changed.
        former: Name of each layer ▶ the name that the configuration's patterns were written for.
    """
    from peft.tuners.tuners_utils import check_target_module_exists
    from peft.utils.other import get_pattern_key

    targets = getattr(config, "target_modules", None)
    if targets and targets != "all-linear":
        named = {name for name, before in former.items() if before and check_target_module_exists(config, before)}
        config.target_modules = named
        if getattr(config, "feedforward_modules", None):
            config.feedforward_modules = {name for name in named if _is_named(former[name], config.feedforward_modules)}
        for pattern in ("rank_pattern", "alpha_pattern"):
            values = getattr(config, pattern, None) or {}
            found = {name: get_pattern_key(list(values), former[name]) for name in named if values}
            if found:
                setattr(config, pattern, {name: values[key] for name, key in found.items() if key in values})
        for choosing in ("exclude_modules", "layers_to_transform", "layers_pattern"):
            if getattr(config, choosing, None) is not None:
                setattr(config, choosing, None)
    if getattr(config, "modules_to_save", None):
        config.modules_to_save = [name for name, each in former.items() if _is_named(each, config.modules_to_save)]


def _is_named(name: str, names: Any) -> bool:
    """Whether PEFT takes a layer for one of those that are named by the ends of their names or by an expression."""
    if isinstance(names, str):
        return re.fullmatch(names, name) is not None
    return bool(name) and any(f".{name}".endswith(f".{each}") for each in names)


def _expected_of_lora(model: Any, config: Any) -> dict[str, torch.Tensor]:
    """What LoRA stores for a model of these sizes, without values."""
    import peft

    with torch.device("meta"):
        skeleton = type(model)(copy.deepcopy(model.config))
    config = copy.deepcopy(config)
    if isinstance(config.init_lora_weights, str):
        config.init_lora_weights = True
    peft.inject_adapter_in_model(config, skeleton, low_cpu_mem_usage=True)
    return peft.get_peft_model_state_dict(skeleton, adapter_name="default")


@contextmanager
def _unchanged_on_errors(model: nn.Module, config: Any) -> Iterator[None]:
    """Gives the model's weights their values back when the block fails; some methods begin with other ones.

    Those of LoRA do so only with a beginning of that name, and are not copied otherwise.
    """
    may_change = not hasattr(config, "init_lora_weights") or isinstance(config.init_lora_weights, str)
    before = [(weights, weights.detach().clone()) for weights in model.parameters()] if may_change else []
    try:
        yield
    except BaseException:
        for weights, values in before:
            weights.data = values
        raise


def _check_complete(
    expected: Mapping[str, torch.Tensor], stored: Mapping[str, torch.Tensor], folder: Path, mend: str
) -> None:
    missing = [name for name in expected if name not in stored]
    unknown = [name for name in stored if name not in expected]
    for names, verb in ((missing, "lacks"), (unknown, "has, and this model has not,")):
        if names:
            others = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise FmriModelsError(
                f"The adapter in {one_line(folder)} {verb} {one_line(names[0], 120)}{others}; {mend}."
            )
    for name, values in expected.items():
        if values.shape != stored[name].shape:
            found, wanted = str(tuple(stored[name].shape)), str(tuple(values.shape))
        elif values.is_floating_point() != stored[name].is_floating_point():
            found, wanted = str(stored[name].dtype), str(values.dtype)
        else:
            continue
        raise FmriModelsError(
            f"The adapter in {one_line(folder)} has {one_line(name, 120)} as {found}; expected {wanted} for this "
            f"model; {mend}."
        )


def _configuration(folder: Path) -> dict[str, Any]:
    return read_object(folder / ADAPTER_CONFIG_FILE, "adapter's configuration", _MEND)


def _check_sizes(config: Mapping[str, Any], stored: Mapping[str, StoredTensor], what: str) -> None:
    # The lengths of a tensor without values cost its author nothing.
    largest = max(
        (length for tensor in stored.values() if math.prod(tensor.shape) for length in tensor.shape), default=0
    )
    ranks = config.get("rank_pattern")
    sizes = [(name, config.get(name)) for name in _SIZES]
    sizes += [("rank_pattern", rank) for rank in (ranks.values() if isinstance(ranks, Mapping) else ())]
    for name, size in sizes:
        if size is not None and (not isinstance(size, int) or size > largest):
            raise FmriModelsError(
                f"{what} has {one_line(size, 40)} as {name} in its {ADAPTER_CONFIG_FILE}, and no tensor of that size; "
                f"expected {largest} at most; {_MEND}."
            )


def _taken_out(module: nn.Module) -> list[tuple[nn.Module, str, nn.Module]]:
    """Puts inner layers in the place of those that PEFT has put around them.

    Returns:
        (parent, name, layer) of each that was replaced, from the outside in.
    """
    wrapped = {id(layer) for layer in _wrapped_layers(module).values()}
    return _replaced(module, wrapped) if wrapped else []


def _replaced(module: nn.Module, wrapped: Set[int]) -> list[tuple[nn.Module, str, nn.Module]]:
    replaced = []
    for name, child in list(module._modules.items()):
        inner: Any = child
        while id(inner) in wrapped:
            inner = inner._modules[_inner_name(inner)]
        if child is None:
            continue
        if inner is not child:
            module._modules[name] = inner
            replaced.append((module, name, child))
        replaced += _replaced(inner, wrapped)
    return replaced


def _wrapped_layers(model: nn.Module) -> dict[str, Any]:
    """What PEFT has put around layers of the model, by name."""
    found = {name: layer for name, layer in model.named_modules() if _inner_name(layer) is not None}
    if not found:
        return {}
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    return {
        name: layer for name, layer in found.items() if isinstance(layer, BaseTunerLayer | AuxiliaryTrainingWrapper)
    }


def _inner_name(layer: nn.Module) -> str | None:
    """Under which name a layer has the one that it is put around; None if it has none."""
    return next((name for name in ("original_module", "base_layer") if name in layer._modules), None)
