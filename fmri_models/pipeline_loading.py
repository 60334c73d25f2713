"""What a pipeline's `from_pretrained` does around that of diffusers."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .component_index import check_component_classes, check_index_keys
from .drawing_settings import DrawingSettings
from .errors import FmriModelsError
from .generation.loading import image_generator_of_class
from .known_classes import find_class
from .library_options import (
    LOADING_ERRORS,
    check_loading_options,
    dtype_of,
    not_loaded,
    refuse_pickles,
    take_device_map,
    take_dtype,
)
from .names import one_line
from .pipeline_components import check_component
from .pipeline_folder import ADAPTER_KEY, COMPONENTS, INDEX_FILE, saved_adapter, saved_settings, with_places
from .weights import check_variant, variants_in

_MEND = "save or download the pipeline again"
_GENERATOR_FETCH_OPTIONS = ("cache_dir", "token", "local_files_only")
# Whether somebody who knows what lies beside the components is loading, so that the pipeline need not look itself.
_is_read_whole: ContextVar[bool] = ContextVar("is_read_whole", default=False)


@dataclass
class LoadingOptions:
    """What a caller of `from_pretrained` has asked for, checked.

    Args:
        arguments: Those of `DiffusionPipeline.from_pretrained`, given components and arguments of the constructor among
            them.
        device: Where the pipeline goes afterwards; None where it stays as it was loaded.
        unseen_session: What the processor does with sessions that it does not know; None where nothing was said.
        given: Names of the components that the caller gives in the place of the saved ones.
    """

    arguments: dict[str, Any]
    device: torch.device | None
    unseen_session: Any
    given: frozenset[str]

    @classmethod
    def of(cls, arguments: dict[str, Any], what: str) -> "LoadingOptions":
        """The options that are among the arguments.

        Args:
            arguments: Those of `from_pretrained` besides the place, by name.
            what: Who takes them, as the beginning of a sentence.

        Raises:
            FmriModelsError: Names the one that can't be, and what is expected.
        """
        arguments = dict(arguments)
        take_dtype(arguments, what, ("brain_model", "image_generator"))
        arguments.setdefault("dtype", torch.float32)
        device = take_device_map(arguments, what)
        unseen_session = arguments.pop("unseen_session", None)
        refuse_pickles(arguments)
        for name in COMPONENTS:
            if name in arguments:
                check_component(name, arguments[name])
        # Whoever gives one of the two means neither the saved weights nor the saved source.
        if "image_generator" in arguments or "image_generator_source" in arguments:
            arguments = {"image_generator": None, "image_generator_source": None, **arguments}
        given = {name for name in COMPONENTS if name in arguments}
        given |= {"image_generator"} if ADAPTER_KEY in arguments else set()
        return cls(arguments, device, unseen_session, frozenset(given))

    @property
    def generators_dtype(self) -> Any:
        """What the image generator is loaded in."""
        return dtype_of(self.arguments["dtype"], "image_generator")

    @property
    def variant(self) -> str | None:
        """Which weights are asked for; None for those without a variant."""
        return self.arguments.get("variant")

    @property
    def generators_hub_options(self) -> dict[str, Any]:
        """How a generator is fetched that is only named."""
        return {name: self.arguments[name] for name in _GENERATOR_FETCH_OPTIONS if name in self.arguments}

    def of_saved(self, pipeline_class: type, index: Mapping[str, Any], folder: Path) -> dict[str, Any]:
        """What diffusers is told for one saved pipeline: also what its index states and the caller does not.

        Components that diffusers would not load as it was asked to are loaded here.

        Args:
            pipeline_class: The class that will be loaded.
            index: What its `model_index.json` says.
            folder: Where it is.

        Raises:
            FmriModelsError: An argument or an entry of the index is none of the class, or a component is not whole.
        """
        arguments, what = dict(self.arguments), f"The pipeline's index {folder / INDEX_FILE}"
        check_loading_options(pipeline_class, arguments, others=("unseen_session",))
        check_index_keys(index, pipeline_class, what, _MEND)
        check_component_classes(index, pipeline_class, what, _MEND, arguments)
        if index.get("image_generator_source") is not None and "image_generator_source" not in arguments:
            arguments["image_generator_source"] = with_places(index["image_generator_source"], folder)
        # Pipelines that were saved without settings have always drawn with these.
        saved = saved_settings(index, folder) or DrawingSettings()
        arguments["drawing_settings"] = saved.changed(arguments.get("drawing_settings"))
        # The word of a model for that of its weights; diffusers passes words on where it has a mapping.
        dtypes = {"brain_model": dtype_of(arguments["dtype"], "brain_model")}
        if ADAPTER_KEY in index and ADAPTER_KEY not in arguments:
            # Another place may have the same base; of a generator that the caller gives, the caller says what is on it.
            is_given = "image_generator" in self.given and arguments["image_generator_source"] is None
            arguments[ADAPTER_KEY] = None if is_given else saved_adapter(index, folder)
        arguments |= self._loaded_components(index, folder)
        return {name: value for name, value in arguments.items() if name != "variant"} | {"dtype": dtypes}

    def _loaded_components(self, index: Mapping[str, Any], folder: Path) -> dict[str, Any]:
        """What diffusers would not load as it was asked to: a generator, and a model with weights of a variant.

        It hands options on to networks alone, and looks for variants in flat components alone.

        Raises:
            FmriModelsError: No component has weights of the variant.
        """
        loaded: dict[str, Any] = {}
        has_variant = self._components_with_variant(index, folder)
        if "image_generator" not in self.given:
            class_name = (index.get("image_generator") or [None, None])[1]
            generator_class = None if class_name is None else image_generator_of_class(class_name)
            if generator_class is not None:
                variant = self.variant if "image_generator" in has_variant else None
                names = ("low_cpu_mem_usage", "disable_mmap")
                options = {name: self.arguments[name] for name in names if name in self.arguments}
                options |= {"dtype": self.generators_dtype, "variant": variant, "use_safetensors": True}
                loaded["image_generator"] = generator_class.from_pretrained(folder / "image_generator", **options)
        if "brain_model" in has_variant:
            model_class: Any = find_class(index["brain_model"][1])
            options = {"dtype": dtype_of(self.arguments["dtype"], "brain_model"), "variant": self.variant}
            loaded["brain_model"] = model_class.from_pretrained(folder / "brain_model", **options)
        return loaded

    def _components_with_variant(self, index: Mapping[str, Any], folder: Path) -> set[str]:
        """Which saved components have weights of the variant that was asked for; none where none was.

        Raises:
            FmriModelsError: None has, although a component with weights is read from the folder.
        """
        if self.variant is None:
            return set()
        networks = ("brain_model", "image_generator")
        saved = [name for name in networks if name not in self.given and (folder / name).is_dir()]
        names = {name: [file.name for file in (folder / name).rglob("*")] for name in saved}
        found = {name for name in saved if self.variant in variants_in(names[name])}
        # A generator that is named may have it, elsewhere.
        if not found and index.get("image_generator_source") is None:
            check_variant([name for each in names.values() for name in each], f"The pipeline in {folder}", self.variant)
        return found


@contextmanager
def read_whole() -> Iterator[None]:
    """Inside the block, whoever loads a pipeline knows what lies beside its components."""
    reading = _is_read_whole.set(True)
    try:
        yield
    finally:
        _is_read_whole.reset(reading)


def is_read_whole() -> bool:
    """Whether somebody who knows what lies beside the components is loading a pipeline."""
    return _is_read_whole.get()


@contextmanager
def loading_errors_as_sentences(path: str, arguments: Mapping[str, Any]) -> Iterator[None]:
    """Turns what libraries raise inside the block, which loads a pipeline whose files are whole, into a sentence.

    Raises:
        FmriModelsError: The pipeline can't be loaded with these arguments, or here.
    """
    try:
        yield
    except FmriModelsError:
        raise
    except LOADING_ERRORS as error:
        raise not_loaded(f"The pipeline in {one_line(path)}", error, arguments) from error
