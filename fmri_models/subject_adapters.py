"""LoRA that belongs to one subject, on the parts of a brain model that all subjects share.

Such an adapter of PEFT is named after its subject. Rows of different subjects are decoded in groups: those of a subject
with an adapter see this one, those of others none of these. An adapter that a user has put on the model besides, and
that is active, all rows see; `disable_adapters()` of transformers switches all of them off.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save_file
from torch import nn
from transformers.utils import ModelOutput

from .adapters import (
    ADAPTER_CONFIG_FILE,
    ADAPTER_FILES,
    ADAPTER_WEIGHTS_FILE,
    WRAPPED,
    adapters_of,
    check_adapter,
    put_adapter,
    remove_adapter_layers,
    without_adapter_layers,
)
from .errors import FmriModelsError
from .model_subjects import remove_subjects
from .names import did_you_mean, listed, one_line
from .reading import read_object
from .saving import json_text
from .subject_folder import to_precision
from .subject_modules import subject_modules
from .unchanged import unchanged_on_errors
from .weights import stored_tensors_of

# Before the name of the subject in that of its adapter, which is one of a module and holds no dot.
_PREFIX = "subject_"
# In a brain model's folder: a folder a subject, named as its adapter.
SUBJECT_ADAPTERS = "subject_adapters"
SUBJECT_ADAPTER_FILES = tuple(f"{SUBJECT_ADAPTERS}/*/{name}" for name in ADAPTER_FILES)
_MEND = "save the model again, or remove that folder"
# Options of LoRA by which PEFT also stores, makes or replaces weights of the network itself.
_CHANGING_OTHERS = (
    "alora_invocation_tokens", "corda_config", "eva_config", "layer_replication", "loftq_config", "modules_to_save",
    "target_parameters", "trainable_token_indices",
)  # fmt: skip
_Method = TypeVar("_Method", bound=Callable[..., Any])


def adapter_name(subject: str) -> str:
    """What the adapter of a subject is called."""
    return _PREFIX + subject.replace("%", "%25").replace(".", "%2E")


def adapted_subjects(model: Any) -> list[str]:
    """The subjects of a model that have an adapter of their own, in the model's order."""
    names = adapters_of(model)
    return [subject for subject in model.config.subject_names if adapter_name(subject) in names] if names else []


def shared_layers(model: nn.Module, parts: Sequence[str] | None = None) -> list[str]:
    """Names of the linear layers that are no subject's.

    Args:
        model: The brain model; names are those of its layers without adapters.
        parts: Beginnings of these names, such as `backbone`; None takes all.

    Raises:
        FmriModelsError: A part has none.
    """
    of_subjects = subject_modules(model)
    with without_adapter_layers(model):
        modules = dict(model.named_modules())
    every = [
        name
        for name, module in modules.items()
        if isinstance(module, nn.Linear) and not any(name.startswith(f"{place}.") for place in of_subjects)
    ]
    if parts is None:
        return every
    for part in parts:
        if not any(_lies_in(name, part) for name in every):
            known = sorted({name.split(".", 1)[0] for name in every})
            raise FmriModelsError(
                f"The model has no shared linear layer in {one_line(repr(part), 80)}; it has some in {listed(known)}."
                f"{did_you_mean(part, known)}"
            )
    return [name for name in every if any(_lies_in(name, part) for part in parts)]


def put_subject_lora(
    model: Any, subject: str, layers: Sequence[str], r: int, alpha: float, dropout: float, seed: int
) -> dict[str, nn.Parameter]:
    """Puts LoRA on shared layers that changes nothing yet, for one subject.

    Args:
        model: The brain model.
        subject: One of its subjects.
        layers: Names of layers, as they are without adapters.
        r: Rank.
        alpha: What is added is scaled by `alpha / r`.
        dropout: Share of the layers' inputs that it does not see in training.
        seed: Of its first weights.

    Returns:
        Name ▶ parameter of the adapter.

    Raises:
        FmriModelsError: There is no layer, or PEFT can't put LoRA there.
    """
    import peft

    name = adapter_name(subject)
    if not layers:
        raise FmriModelsError(f"{type(model).__name__} has no shared linear layer that LoRA could go on.")
    others = _taken_for(model, layers)
    options: dict[str, Any] = {"r": r, "lora_alpha": alpha, "lora_dropout": dropout, "target_modules": list(layers)}
    learned = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    with torch.random.fork_rng(devices=[]), _others_as_they_are(model, subject):
        torch.manual_seed(seed)
        try:
            peft.inject_adapter_in_model(peft.LoraConfig(**options, exclude_modules=others or None), model, name)
        except ValueError as error:
            raise FmriModelsError(
                f"No LoRA can go on the shared layers of {type(model).__name__} ({one_line(error, 200)}); choose other "
                "parts, or another r."
            ) from error
    model._hf_peft_config_loaded = True
    added = subject_lora_parameters(model, subject)
    # PEFT freezes all that is not of the adapter.
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in learned)
    for parameter in added.values():
        parameter.requires_grad_(True)
    return added


def subject_lora_parameters(model: nn.Module, subject: str) -> dict[str, nn.Parameter]:
    """Name ▶ parameter of a subject's adapter."""
    key = f".{adapter_name(subject)}."
    return {name: parameter for name, parameter in model.named_parameters() if key in name and ".lora_" in name}


def use_subject(model: nn.Module, subject: str | None) -> None:
    """Has the model compute with a subject's adapter, and no other subject's, from now on; None, or one without: none.

    Adapters that are no subject's stay as they are, and all are off for as long as a user has switched them off.
    """
    _activate(model, subject, _active_besides(model))


def rest_adapters(model: nn.Module) -> None:
    """Leaves the adapters of subjects as they are after loading: none is active, and none asks for gradients."""
    use_subject(model, None)
    for subject in adapted_subjects(model):
        for parameter in subject_lora_parameters(model, subject).values():
            parameter.requires_grad_(False)


@contextmanager
def as_first_adapter(model: nn.Module, peft_type: Any) -> Iterator[None]:
    """Inside the block, a user's adapter is put on a model with adapters of subjects as on one that has none.

    PEFT freezes all other weights when it puts the first adapter on a model, and none with a later one: whoever then
    trains what asks for gradients would train the whole model.

    Args:
        model: The brain model.
        peft_type: Which of PEFT's methods the adapter is of.

    Raises:
        FmriModelsError: The model has adapters of subjects, and this is no LoRA.
    """
    if adapted_subjects(model) and peft_type != "LORA":
        # It would be put around theirs, and stay there when it is deleted: theirs could not be saved any more.
        raise FmriModelsError(
            f"An adapter of PEFT's method {one_line(getattr(peft_type, 'value', peft_type), 40)} can't stand beside "
            "adapters of subjects, which are LoRA; use LoRA, or merge theirs into a model of their own "
            "(fmri_models.subject_adapters.merge_subject)."
        )
    names = adapters_of(model)
    of_subjects = names and len(adapted_subjects(model)) == len(names)
    frozen = [each for each in model.parameters() if each.requires_grad] if of_subjects else []
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield
    except BaseException:
        for parameter in frozen:
            parameter.requires_grad_(True)
        raise


def check_only_of_subjects(model: Any) -> None:
    """Refuses a model whose adapters could not be loaded again as they are: not all are of its subjects, or they are
    switched off, or merged into its weights.

    Raises:
        FmriModelsError: Names one that is not.
    """
    known = {adapter_name(subject) for subject in model.config.subject_names}
    for name in adapters_of(model):
        if name not in known:
            raise FmriModelsError(
                f"The brain model has adapters of subjects and the adapter {one_line(repr(name), 80)}, which is none "
                "of them; remove that with brain_model.delete_adapter(name)."
            )
    if any(layer.disable_adapters for layer in _adapted_layers(model)):
        raise FmriModelsError(
            "The adapters of subjects are switched off in the brain model and would be on in what is saved; switch "
            "them on with brain_model.enable_adapters()."
        )
    if any(getattr(layer, "merged", False) for layer in _adapted_layers(model)):
        raise FmriModelsError(
            "An adapter of a subject is merged into the brain model's weights and still beside them; take it back with "
            "unmerge_adapter(), or keep a model of that subject alone (fmri_models.subject_adapters.merge_subject)."
        )


def write_subject_adapter(model: Any, subject: str, folder: Path, dtype: torch.dtype | None = None) -> None:
    """Writes the adapter of a subject into a folder of its own, in PEFT's format.

    Args:
        model: The brain model.
        subject: One of its subjects.
        folder: The folder.
        dtype: Of the saved weights; None leaves theirs.

    Raises:
        FmriModelsError: Values are not finite, or not in that precision; or as [`check_only_of_subjects`].
    """
    import peft

    check_only_of_subjects(model)
    name = adapter_name(subject)
    folder.mkdir(parents=True, exist_ok=True)
    config = model.peft_config[name]
    values = {key: sorted(each) if isinstance(each, set) else each for key, each in config.to_dict().items()}
    own = {key.split(f".lora_A.{name}.")[0] for key in subject_lora_parameters(model, subject) if ".lora_A." in key}
    values |= {"target_modules": sorted(own), "exclude_modules": _taken_for(model, sorted(own)) or None}
    values |= {"base_model_name_or_path": None, "inference_mode": True, "init_lora_weights": True, "revision": None}
    (folder / ADAPTER_CONFIG_FILE).write_text(json_text(dict(sorted(values.items()))), encoding="utf-8")
    state = peft.get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    tensors = {f"{WRAPPED}{key}": each for key, each in state.items()}
    tensors = to_precision(tensors, dtype, f"The adapter of the subject {subject}")
    save_file(tensors, folder / ADAPTER_WEIGHTS_FILE, metadata={"format": "pt"})


def write_subject_adapters(model: Any, folder: Path) -> None:
    """Writes the adapters of all subjects beside a model's weights."""
    for subject in adapted_subjects(model):
        write_subject_adapter(model, subject, folder / SUBJECT_ADAPTERS / adapter_name(subject))


def read_subject_adapter(model: Any, subject: str, folder: Path) -> None:
    """Puts a stored adapter on a model, as that of one of its subjects; it is used where rows are this subject's.

    Raises:
        FmriModelsError: The adapter is damaged, is no LoRA, or is of another model.
    """
    check_adapter(folder)
    _check_changes_no_others(model, folder)
    learned = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    training = model.training
    configs = (getattr(model, "peft_config", None) or {}).values()
    with unchanged_on_errors([model], configs), _others_as_they_are(model, None):
        put_adapter(model, folder, adapter_name(subject), is_trainable=False)
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in learned)
    model.train(training)


def read_subject_adapters(model: Any, folder: Path) -> None:
    """Puts the adapters that lie beside a model's weights on the model.

    Raises:
        FmriModelsError: One is of no subject of the model, or as in [`read_subject_adapter`].
    """
    place = folder / SUBJECT_ADAPTERS
    if not place.is_dir():
        return
    by_name = {adapter_name(subject): subject for subject in model.config.subject_names}
    for each in sorted(place.iterdir()):
        if each.name not in by_name:
            raise FmriModelsError(
                f"{one_line(each)} is the adapter of no subject of the model, which has "
                f"{', '.join(model.config.subject_names)}; {_MEND}."
            )
        read_subject_adapter(model, by_name[each.name], each)


@contextmanager
def as_of_subject(model: Any, subject: str | None) -> Iterator[None]:
    """Inside the block, the model computes with a subject's adapter, and no other subject's; as in [`use_subject`]."""
    layers = _adapted_layers(model)
    if any(getattr(layer, "merged", False) for layer in layers):
        raise FmriModelsError(
            "An adapter is merged into the brain model's weights, so that rows of all subjects would be computed with "
            "it; take it back with unmerge() of its layers, or keep a model of that subject alone "
            "(fmri_models.subject_adapters.merge_subject)."
        )
    before = [list(each.active_adapters) for each in layers]
    try:
        use_subject(model, subject)
        yield
    finally:
        for layer, active in zip(layers, before, strict=True):
            layer._active_adapter = active


def merge_subject(model: Any, subject: str) -> Any:
    """Adds a subject's LoRA to the weights, for good, and parts with all others, who would be decoded otherwise.

    Of a pipeline, `pipe.merge_subject` also takes their statistics out of the processor.

    Args:
        model: The brain model, which is changed itself and returned; load another copy to keep one.
        subject: One of its subjects with an adapter.

    Returns:
        The model of that subject alone, without adapters; it reads as many columns as the subject has.

    Raises:
        FmriModelsError: The subject has no adapter, the model has adapters that are no subject's, or weights would not
            be finite. The model then is as before.
    """
    model.config.subject_index(subject)
    if subject not in adapted_subjects(model):
        raise FmriModelsError(f"{one_line(repr(subject), 80)} has no adapter that could be merged into the model.")
    check_only_of_subjects(model)
    if any(parameter.device.type == "meta" for parameter in model.parameters()):
        raise FmriModelsError(
            f"Weights of {type(model).__name__} are kept elsewhere (offloaded), where nothing can be merged into them; "
            "load the model without offloading."
        )
    own = [layer for layer in _adapted_layers(model) if adapter_name(subject) in layer.lora_A]
    for layer in own:
        if not bool((layer.weight + layer.get_delta_weight(adapter_name(subject))).isfinite().all()):
            raise FmriModelsError(
                f"With the adapter of {one_line(repr(subject), 80)}, weights of {type(model).__name__} are not finite "
                f"in {layer.weight.dtype}; load the model in a wider dtype to merge it."
            )
    for layer in own:
        layer.merge(adapter_names=[adapter_name(subject)])
    remove_adapter_layers(model)
    remove_subjects(model, [name for name in model.config.subject_names if name != subject])
    return model


def reads_rows_of_subjects(method: Callable[..., Any]) -> bool:
    """Whether a method is called with `(fmri, subject_ids, …)`; a network inside a model may read something else."""
    return list(inspect.signature(method).parameters)[1:3] == ["fmri", "subject_ids"]


def by_adapter(method: _Method) -> _Method:
    """Has a method `(model, fmri, subject_ids, …)` compute rows of subjects with different adapters in groups.

    In training, `forward` computes with the adapter that is active, as in PEFT: that of the subject which learns.
    """
    is_forward = method.__name__ == "forward"
    further = list(inspect.signature(method).parameters)[3:]

    @wraps(method)
    def grouped(model: Any, fmri: torch.Tensor, subject_ids: Any = None, *args: Any, **kwargs: Any) -> Any:
        adapted = adapted_subjects(model)
        if not adapted or getattr(model, "_computes_group", False) or (is_forward and model.training):
            return method(model, fmri, subject_ids, *args, **kwargs)
        if torch.compiler.is_exporting() or torch.jit.is_tracing():  # type: ignore[attr-defined] # documented
            raise FmriModelsError(
                "Rows of subjects with adapters of their own are computed in groups, which a graph that is exported or "
                "traced would keep as they are now; export a model of one subject (pipeline.merge_subject(name))."
            )
        kwargs |= dict(zip(further, args, strict=False))
        names, ids = model.config.subject_names, model.subject_indices(subject_ids, len(fmri)).tolist()
        groups: dict[str | None, list[int]] = {}
        for row, index in enumerate(ids):
            groups.setdefault(names[index] if names[index] in adapted else None, []).append(row)
        if is_forward and len(groups) > 1:
            _check_has_no_targets(method, kwargs)
        outputs = []
        model._computes_group = True
        try:
            for subject, rows in groups.items():
                own = torch.tensor(rows, device=fmri.device)
                of_rows = {key: _of_rows(value, rows) if key == "generator" else value for key, value in kwargs.items()}
                ids_of_rows = torch.tensor([ids[row] for row in rows])
                with as_of_subject(model, subject):
                    outputs.append(method(model, fmri[own], ids_of_rows.to(fmri.device), **of_rows))
        finally:
            model._computes_group = False
        return _in_order(outputs, list(groups.values()), len(ids))

    return grouped  # type: ignore[return-value]


def _check_changes_no_others(model: nn.Module, folder: Path) -> None:
    """Refuses an adapter that would change what other subjects are decoded with, or that is on a subject's own layers.

    Raises:
        FmriModelsError: Names the option or the tensor.
    """
    what = f"The adapter in {one_line(folder)}"
    config = read_object(folder / ADAPTER_CONFIG_FILE, "adapter's configuration", _MEND)
    if config.get("peft_type") != "LORA":
        raise FmriModelsError(f"{what} is no LoRA, as those of subjects are; {_MEND}.")
    begins = config.get("init_lora_weights")
    changing = {name: config.get(name) for name in _CHANGING_OTHERS if config.get(name)}
    if config.get("bias") not in (None, "none"):
        changing["bias"] = config["bias"]
    if begins is not None and not isinstance(begins, bool) and begins != "gaussian":
        changing["init_lora_weights"] = begins
    for name, value in changing.items():
        raise FmriModelsError(
            f"{what} has {name}={one_line(repr(value), 80)}, which changes weights that all subjects share; a "
            f"subject's adapter is LoRA alone: {_MEND}."
        )
    of_subjects = subject_modules(model)
    for stored in stored_tensors_of(folder / ADAPTER_WEIGHTS_FILE, what):
        layer, is_lora, _ = stored.removeprefix(WRAPPED).partition(".lora_")
        if not is_lora or any(f"{layer}.".startswith(f"{place}.") for place in of_subjects):
            raise FmriModelsError(
                f"{what} has {one_line(stored, 120)}, which is no LoRA on layers that all subjects share; {_MEND}."
            )


def _taken_for(model: nn.Module, layers: Sequence[str]) -> list[str]:
    """Other linear layers that PEFT would take for some layers, whose names it reads as endings of names."""
    with without_adapter_layers(model):
        modules = dict(model.named_modules())
    return [
        other
        for other, module in modules.items()
        if isinstance(module, nn.Linear) and other not in layers and any(other.endswith(f".{each}") for each in layers)
    ]


def _adapted_layers(model: nn.Module) -> list[Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [each for each in model.modules() if isinstance(each, BaseTunerLayer)]


def _active_besides(model: Any) -> list[str]:
    """Names of the active adapters that are no subject's."""
    of_subjects = {adapter_name(subject) for subject in model.config.subject_names}
    active = (name for layer in _adapted_layers(model) for name in layer.active_adapters)
    return [name for name in dict.fromkeys(active) if name not in of_subjects and name in adapters_of(model)]


@contextmanager
def _others_as_they_are(model: nn.Module, subject: str | None) -> Iterator[None]:
    """After the block, which puts a subject's adapter on a model, that is active, or none, and others are as before."""
    from peft.utils.other import AuxiliaryTrainingWrapper

    besides, is_off = _active_besides(model), any(each.disable_adapters for each in _adapted_layers(model))
    # Copies of whole modules that an adapter trains, which PEFT switches as well.
    copies: list[Any] = [each for each in model.modules() if isinstance(each, AuxiliaryTrainingWrapper)]
    before = [each._active_adapter for each in copies]
    yield
    _activate(model, subject, besides)
    for layer in _adapted_layers(model):
        layer._disable_adapters = is_off
    for each, active in zip(copies, before, strict=True):
        each._active_adapter = active


def _activate(model: Any, subject: str | None, besides: Sequence[str]) -> None:
    """Has layers compute with a subject's adapter and with those besides, as far as they have them."""
    own = [] if subject is None else [adapter_name(subject)]
    for layer in _adapted_layers(model):
        # Not `set_adapter`, which would ask for gradients.
        layer._active_adapter = [name for name in (*own, *besides) if name in layer._get_available_adapters()]


def _lies_in(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")


def _of_rows(value: Any, rows: list[int]) -> Any:
    """A source of noise for each row is its own; one for all is that of all."""
    return [value[row] for row in rows] if isinstance(value, list) else value


def _check_has_no_targets(method: Callable[..., Any], kwargs: Mapping[str, Any]) -> None:
    """Refuses targets for rows of several adapters, whose losses are not those of any one computation."""
    named = [name for name, value in kwargs.items() if isinstance(value, torch.Tensor) or name == "cycle_pair"]
    if given := [name for name in named if kwargs[name] is not None]:
        raise FmriModelsError(
            f"Rows of subjects with different adapters are computed apart, and {given[0]} is given, with which "
            f"{method.__qualname__} computes a loss of all rows; call it for the rows of one subject at a time."
        )


def _in_order(outputs: list[Any], groups: list[list[int]], num_rows: int) -> Any:
    """What was computed of groups of rows, in the order of the rows; several values a row stay together."""
    if len(outputs) == 1:
        return outputs[0]
    order = torch.tensor([row for rows in groups for row in rows]).argsort()

    def joined(values: Sequence[Any]) -> Any:
        first = values[0]
        if first is None:
            return None
        if isinstance(first, ModelOutput):
            return type(first)(**{name: joined([value[name] for value in values]) for name in list(first)})
        if isinstance(first, dict):
            return {name: joined([value[name] for value in values]) for name in first}
        if isinstance(first, tuple):
            return tuple(map(joined, zip(*values, strict=True)))
        each = torch.cat(list(values))
        several = len(each) // num_rows
        return each.reshape(num_rows, several, *each.shape[1:])[order.to(each.device)].flatten(0, 1)

    return joined(outputs)
