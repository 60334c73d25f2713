"""Arguments that `from_pretrained` and `save_pretrained` of the libraries take, checked before these pass over them."""

import inspect
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from safetensors import SafetensorError

from .errors import FmriModelsError
from .hub_repository import FETCH_OPTIONS
from .names import did_you_mean, one_line

# What `DiffusionPipeline.from_pretrained` takes besides components and arguments of the constructor; of others it only
# notes in the log that it passes over them.
DIFFUSERS_LOAD_OPTIONS = (
    *FETCH_OPTIONS, "custom_pipeline", "custom_revision", "device_map", "disable_mmap", "dtype", "from_flax",
    "load_connected_pipeline", "low_cpu_mem_usage", "max_memory", "mirror", "offload_folder", "offload_state_dict",
    "output_loading_info", "provider", "provider_options", "proxies", "quantization_config", "resume_download",
    "sess_options", "torch_dtype", "trust_remote_code", "use_flashpack", "use_onnx", "use_safetensors", "variant",
)  # fmt: skip
DIFFUSERS_SAVE_OPTIONS = ("max_shard_size", "save_peft_format", "use_flashpack", "variant")
# What needs a package, a device or a quantizer besides the files.
_ARGUMENTS_THAT_NEED_SOMETHING = (
    "device_map", "quantization_config", "attn_implementation", "max_memory", "offload_folder", "tp_plan",
    "low_cpu_mem_usage", "use_kernels",
)  # fmt: skip
_NO_MEMORY = re.compile(r"not enough memory|out of memory|[Cc]an.?t allocate memory|[Cc]annot allocate memory")
# What the libraries raise while they load files that are whole.
LOADING_ERRORS = (
    OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, SafetensorError, ImportError,
    AssertionError, MemoryError,
)  # fmt: skip


def check_loading_options(pipeline_class: type, given: Iterable[str], others: Iterable[str] = ()) -> None:
    """Refuses arguments of `from_pretrained` that diffusers would pass over.

    Args:
        pipeline_class: The class that will be loaded.
        given: Names of the arguments.
        others: Names that the class takes besides, for the hint.

    Raises:
        FmriModelsError: Names the first one, and the one that is closest to it.
    """
    own = [name for name in inspect.signature(pipeline_class).parameters if name not in ("args", "kwargs")]
    known = [*own, *DIFFUSERS_LOAD_OPTIONS, *others]
    for name in given:
        if name not in known and not name.startswith("_"):
            raise FmriModelsError(
                f"{pipeline_class.__name__}.from_pretrained takes no {name!r}.{did_you_mean(name, known)}"
            )


def refuse_pickles(kwargs: dict[str, Any]) -> None:
    """Takes `use_safetensors` out of the arguments of `from_pretrained`, which is never anything else than true.

    Raises:
        FmriModelsError: The caller wants weights of another format.
    """
    if kwargs.pop("use_safetensors", None) is False:
        raise FmriModelsError("Weights are read from safetensors alone, because others could run code; convert them.")


def take_dtype(kwargs: dict[str, Any], what: str, components: Collection[str] | None = None) -> None:
    """Leaves what weights are computed in, given as `dtype` or by its former name `torch_dtype`, checked as `dtype`.

    Args:
        kwargs: Arguments of `from_pretrained`, which are changed; where nothing is said, neither name is left.
        what: Who takes it, as the beginning of a sentence.
        components: Names that a mapping may have besides `"default"`; None where nothing has components.

    Raises:
        FmriModelsError: It is no floating type, or the two names say different things.
    """
    names = [name for name in ("dtype", "torch_dtype") if name in kwargs]
    given = [found for name in names if (found := checked_dtype(kwargs.pop(name), what)) is not None]
    if not given:
        return
    if any(other != given[0] for other in given[1:]):
        raise FmriModelsError(
            f"{what} got {_shown_dtype(given[0])} as dtype and {_shown_dtype(given[1])} as torch_dtype, which is the "
            "former name of the same; give one of them."
        )
    if isinstance(given[0], Mapping):
        known = [*(components or ()), "default"]
        if components is None:
            raise FmriModelsError(f"{what} got a mapping as dtype and loads one network; give one type.")
        for name in given[0]:
            if name not in known:
                raise FmriModelsError(
                    f"{what} got a dtype for {one_line(repr(name), 80)}, which is none of {', '.join(known)}."
                    f"{did_you_mean(name, known)}"
                )
    kwargs["dtype"] = given[0]


def dtype_of(dtype: Any, component: str) -> Any:
    """What one component is computed in, of what `take_dtype` left for all; components that nobody names: float32."""
    return dtype.get(component, dtype.get("default", torch.float32)) if isinstance(dtype, Mapping) else dtype


def checked_dtype(dtype: Any, what: str) -> Any:
    """What weights are computed in, for `from_pretrained`; of others diffusers says in its log that it takes float32.

    Args:
        dtype: A floating type of torch or its name, `"auto"` for that of the stored weights, None, or a mapping of such
            by component, as diffusers takes it.
        what: Who takes it, as the beginning of a sentence.

    Raises:
        FmriModelsError: It is something else.
    """
    if isinstance(dtype, Mapping):
        return {name: checked_dtype(each, what) for name, each in dtype.items() if each is not None}
    if dtype is None or (isinstance(dtype, str) and dtype == "auto"):
        return dtype
    found = getattr(torch, dtype.removeprefix("torch."), None) if isinstance(dtype, str) else dtype
    if isinstance(found, torch.dtype) and found.is_floating_point:
        return found
    raise FmriModelsError(
        f"{what} got {one_line(repr(dtype), 80)} as dtype; expected torch.float32, torch.bfloat16, torch.float16, the "
        "name of one, or 'auto'."
    )


def _shown_dtype(dtype: Any) -> str:
    return one_line(str(dtype), 80)


def take_device_map(kwargs: dict[str, Any], what: str) -> torch.device | None:
    """Where a pipeline is put after it was loaded, by its `device_map`; what diffusers has to do stays an argument.

    `"auto"` is the word of transformers for what diffusers calls `"balanced"`; without an accelerator there is nothing
    to balance, and both mean the CPU.

    Args:
        kwargs: Arguments of `from_pretrained`, which are changed.
        what: Who takes it, as the beginning of a sentence.

    Raises:
        FmriModelsError: It is no device and no strategy, or a device that is not there.
    """
    device_map = kwargs.pop("device_map", None)
    if device_map is None:
        return None
    if device_map in ("balanced", "auto"):
        if torch.accelerator.is_available():
            kwargs["device_map"] = "balanced"
        return None
    if not isinstance(device_map, str | int | torch.device) or isinstance(device_map, bool):
        raise FmriModelsError(
            f"{what} got {one_line(repr(device_map), 80)} as device_map; expected one device, 'auto' or 'balanced': a "
            "mapping of layers goes to the from_pretrained of a model, which is then given as a component."
        )
    return checked_device(device_map, what)


def checked_device(device: Any, what: str) -> torch.device:
    """A device that is there.

    Raises:
        FmriModelsError: It is none, or this machine or this PyTorch has it not.
    """
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise FmriModelsError(
            f"{what} got {one_line(repr(device), 80)} as device; expected 'cpu', 'cuda', 'cuda:1', 'mps' or the like."
        ) from error
    if found.type in ("cpu", "meta"):
        return found
    there = torch.accelerator.current_accelerator(check_available=True)
    number = torch.accelerator.device_count() if there is not None else 0
    if there is None or there.type != found.type or (found.index or 0) >= number:
        has = "no accelerator that this PyTorch can use" if there is None else f"{number} of the kind {there.type!r}"
        raise FmriModelsError(f"{what} got the device {str(found)!r}, and this machine has {has}; choose another one.")
    return found


def not_loaded(what: str, error: BaseException, options: Mapping[str, Any]) -> FmriModelsError:
    """A sentence on what a library raised for files that were found whole: the cause is among the arguments or here.

    Args:
        what: What was loaded, as the beginning of a sentence.
        error: What the library raised.
        options: The arguments of `from_pretrained`.
    """
    reason = one_line(error, 300).rstrip(".") or type(error).__name__
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or _NO_MEMORY.search(str(error)):
        return FmriModelsError(
            f"There is not enough memory to load {what[0].lower()}{what[1:]} ({reason}); close other programs, or load "
            "it in half precision (dtype=torch.bfloat16)."
        )
    asked = [name for name in _ARGUMENTS_THAT_NEED_SOMETHING if options.get(name) is not None]
    if isinstance(error, ImportError) or "pip install" in str(error):
        leave = f", or leave {' and '.join(asked)} out" if asked else ""
        return FmriModelsError(f"{what} needs a package that is missing here ({reason}); install it{leave}.")
    if asked:
        return FmriModelsError(f"{what} can't be loaded with {' and '.join(asked)} as given here ({reason}).")
    return FmriModelsError(f"{what} can't be loaded, although its files are whole ({reason}).")
