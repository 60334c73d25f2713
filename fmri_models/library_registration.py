"""What transformers' Auto classes and diffusers' loaders are told about the package, as soon as they are imported."""

import warnings
from collections.abc import Container, Iterable, Mapping
from functools import cache, partial
from importlib import import_module
from types import ModuleType
from typing import Any

from .entry_points import OWN_PACKAGE
from .known_classes import is_pipeline_class
from .late import CompletedDict, when_imported
from .records import Method, load_or_warn
from .registry import METHODS

# The dictionaries behind AutoConfig, AutoModel, AutoFeatureExtractor and AutoProcessor.
_AUTO_MAPPINGS = {
    "transformers.models.auto.configuration_auto": "CONFIG_MAPPING",
    "transformers.models.auto.modeling_auto": "MODEL_MAPPING",
    "transformers.models.auto.feature_extraction_auto": "FEATURE_EXTRACTOR_MAPPING",
    "transformers.models.auto.processing_auto": "PROCESSOR_MAPPING",
}


@cache
def register_with_libraries() -> None:
    """Tells transformers' Auto classes and diffusers' loaders about the package, as soon as they are imported.

    Nothing is imported here. Classes of ours are when one of these libraries asks for something that it does not know.
    """
    for module, mapping in _AUTO_MAPPINGS.items():
        when_imported(module, partial(_complete_auto_mapping, mapping))
    register_with_diffusers(OWN_PACKAGE)
    when_imported("diffusers", _add_pipeline_classes)


def _complete_auto_mapping(name: str, module: ModuleType) -> None:
    """Lets transformers' mapping ask for our classes where it has none of its own.

    `register` of the Auto classes wants classes, which would be imported in the middle of transformers' own imports.
    """
    mapping = getattr(module, name)
    native = getattr(mapping, "_mapping", ())
    mapping._extra_content = CompletedDict(
        mapping._extra_content,
        register_with_transformers,
        lambda key: (
            key in native
            if isinstance(key, str)
            else str(getattr(key, "__module__", "")).startswith(("transformers.", "builtins"))
        ),
        lambda: register_with_transformers(METHODS.at_hand()),
    )


def register_with_transformers(methods: Iterable[Method] | None = None) -> None:
    """Registers the configuration, the model and the processor of methods, by transformers' own means.

    Args:
        methods: These; None for all, also those of packages that have to be imported for it.
    """
    types: dict[str, str] = {}
    for method in METHODS.in_order() if methods is None else methods:
        config_class = load_or_warn(method.config)
        if config_class is None:
            continue
        there = types.setdefault(config_class.model_type, method.config)
        if there == method.config:
            _register_method_with_transformers(method)
        else:
            warnings.warn(
                f"{method.config} has the model_type {config_class.model_type!r}, which {there} has, too, so that the "
                f"Auto classes load the latter; give the method {method.name!r} one of its own.",
                stacklevel=2,
            )


@cache
def _register_method_with_transformers(method: Method) -> None:
    from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoProcessor

    from .processing_fmri import FmriProcessor

    config_class, model_class = load_or_warn(method.config), load_or_warn(method.model)
    if config_class is None or model_class is None:
        return
    AutoConfig.register(config_class.model_type, config_class, exist_ok=True)
    AutoModel.register(config_class, model_class, exist_ok=True)
    AutoFeatureExtractor.register(config_class, FmriProcessor, exist_ok=True)
    AutoProcessor.register(config_class, FmriProcessor, exist_ok=True)


@cache
def register_with_diffusers(package: str) -> None:
    """Tells diffusers' loader that a package has classes of components.

    Each, and each base class in the loader's table, is looked up as an attribute of the package that an index names.
    Indexes therefore name this package for the methods of others, too; others are told of for folders that name them.
    """
    # A private table of diffusers 0.42 (hence the upper bound on its version); test_pipeline_common.py notices when it
    # moves. Without the entry, diffusers neither saves nor loads a component class from outside.
    how = ["save_pretrained", "from_pretrained"]
    bases = ("PreTrainedModel", "FeatureExtractionMixin", "DiffusionPipeline", "ModelMixin")

    def add(module: Any) -> None:
        module.LOADABLE_CLASSES[package] = dict.fromkeys(bases, how)

    when_imported("diffusers.pipelines.pipeline_loading_utils", add)


def _add_pipeline_classes(diffusers: Any) -> None:
    """Lets `DiffusionPipeline.from_pretrained` find our pipelines, which it looks up as attributes of diffusers."""
    # A plain module, with everything imported, where diffusers was told to be one.
    if isinstance(getattr(diffusers, "_objects", None), dict):
        diffusers._objects = _PipelineClasses(diffusers._objects, diffusers._class_to_module)


class _PipelineClasses(dict[str, Any]):
    """Objects of diffusers by name, and the pipelines and image generators of this package under names that it lacks.

    Args:
        objects: What diffusers has there itself.
        own: Names of diffusers' own classes, which go first.
    """

    def __init__(self, objects: Mapping[str, Any], own: Container[str]) -> None:
        super().__init__(objects)
        self._own = own

    def __contains__(self, name: object) -> bool:
        if super().__contains__(name):
            return True
        if not isinstance(name, str) or not name[:1].isupper() or name in self._own:
            return False
        return is_pipeline_class(name)

    def __getitem__(self, name: str) -> Any:
        if super().__contains__(name):
            return super().__getitem__(name)
        return getattr(import_module(OWN_PACKAGE), name)
