"""Name ▶ method, image generator, data set. Everyone asks here by name; nobody imports a method's folder.

A folder `models/<name>/` describes itself by a `METHOD` in its `__init__.py`, `generation/__init__.py` lists the image
generators, and `dataset_scripts/` has a file a data set. Installed packages of others offer theirs by entry points; a
running program calls [`register_method`] or [`register_generator`].
"""

import ast
import pkgutil
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint
from itertools import chain
from pathlib import Path
from typing import Any, Generic, TypeVar

from .entry_points import (
    OWN_PACKAGE,
    is_being_imported,
    load_entry_point,
    offered,
    package_of,
    problem_of_name,
    top_module,
)
from .errors import FmriModelsError
from .names import check_name, did_you_mean, listed, one_line
from .shipped import shipped_folder

_KNOWN_LIBRARIES = ("diffusers", "transformers", OWN_PACKAGE)
# What the classes that a record names derive from.
_BASES = {
    "config": "configuration_fmri:FmriConfig",
    "model": "modeling_fmri:FmriPreTrainedModel",
    "pipeline": "pipeline_fmri:FmriToImagePipeline",
    "generator": "generation.image_generator:ImageGenerator",
}
_CLASS_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Z]\w*")


@dataclass(frozen=True)
class Method:
    """Where the modules of a method are, as `"module:Class"` strings, so that listing methods imports none of them.

    Args:
        name: Name in recipes and on the command line.
        title: Name for people, with authors and year.
        config: The `FmriConfig` subclass.
        model: The `FmriPreTrainedModel` subclass.
        output: The `ModelOutput` subclass that the model's forward returns.
        pipeline: The `FmriToImagePipeline` subclass.
        objective: What training needs beyond the network.
        converter: The function that reads published checkpoints, as `"module:function"`: it takes the checkpoint,
            `low_level_checkpoint=` and fields of the configuration, and returns a [`Conversion`]. None where no
            checkpoints were published.
        quick: What `fmri-models demo --quick` changes in the recipe of the method's name, as `key=value`.
    """

    name: str
    title: str
    config: str
    model: str
    output: str
    pipeline: str
    objective: str
    converter: str | None = None
    quick: tuple[str, ...] = ()

    @property
    def class_paths(self) -> tuple[str, ...]:
        """The public classes of the package."""
        return (self.config, self.model, self.output, self.pipeline)

    def find(self, class_name: str) -> Any:
        """Imports a class by its name, for the `__getattr__` of the method's folder.

        Raises:
            AttributeError: None has that name.
        """
        for path in (*self.class_paths, self.objective):
            if path.endswith(f":{class_name}"):
                return import_path(path)
        raise AttributeError(f"method {self.name!r} has no part {class_name!r}")

    def load(self, role: str) -> Any:
        """Imports `"config"`, `"model"`, `"output"`, `"pipeline"`, `"objective"` or `"converter"`.

        Raises:
            FmriModelsError: What is there can't be imported, or can't be it.
        """
        path = getattr(self, role)
        found = import_path(path)
        if role in _BASES:
            _check_base(path, found, role)
        types = {f"fmri-{method.name}" for method in METHODS.own() if method.config != path} | {""}
        if role == "config" and found.model_type in types:
            raise FmriModelsError(
                f"{path} has the model_type {found.model_type!r}, by which it would not be loaded again; set "
                f"'fmri-{self.name}'."
            )
        if role == "model" and found.config_class is not import_path(self.config):
            raise FmriModelsError(f"{path} has {found.config_class.__name__} as config_class; set {self.config}.")
        return found


@dataclass(frozen=True)
class GeneratorRecord:
    """Where an image generator is, as `"module:Class"` strings, so that listing generators imports none of them.

    Args:
        name: Name in recipes and on the command line.
        title: Name for people.
        generator: The `ImageGenerator` subclass.
        components: Classes of the same package that a saved generator may consist of besides those of diffusers and
            transformers, such as a network of its own.
    """

    name: str
    title: str
    generator: str
    components: tuple[str, ...] = ()

    @property
    def class_paths(self) -> tuple[str, ...]:
        """The classes that a saved folder may name."""
        return (self.generator, *self.components)

    def load(self) -> Any:
        """Imports the generator's class.

        Raises:
            FmriModelsError: What is there can't be imported, or is none.
        """
        found = import_path(self.generator)
        _check_base(self.generator, found, "generator")
        return found


@dataclass(frozen=True)
class DatasetRecord:
    """A data set whose published files become a trial table, by `fmri-models prepare NAME`.

    Args:
        name: Name on the command line.
        title: Name for people.
        prepare: The function `prepare(source: Path, out: Path, **options) -> None` that writes the table, as
            `"module:function"`; or the path of a Python file that has it.
    """

    name: str
    title: str
    prepare: str


@dataclass(frozen=True)
class Conversion:
    """What a method's converter makes of published checkpoints.

    Args:
        model: The brain model.
        expects: Which betas it takes, in words, since published checkpoints come without statistics.
        image_generator: The generator that it was published with, by the fields of `GeneratorSource`; None if the
            model does not decode what that generator takes.
        drawing_settings: What it was published with, as far as that differs from the settings of the generator's class.
    """

    model: Any
    expects: str
    image_generator: Mapping[str, Any] | None = None
    drawing_settings: Mapping[str, Any] | None = None


_Record = TypeVar("_Record", bound=Method | GeneratorRecord | DatasetRecord)


class Registry(Generic[_Record]):
    """Records by name: those of this package, those that a program has registered, those that packages offer.

    Args:
        what: What is recorded, for sentences.
        group: Group of entry points by which installed packages offer theirs.
        record_class: What an entry point of the group has to be.
        built_in: Gives the records of this package.
    """

    def __init__(
        self, what: str, group: str, record_class: type[_Record], built_in: Callable[[], Mapping[str, _Record]]
    ) -> None:
        self._what, self._group, self._record_class, self._built_in = what, group, record_class, built_in
        self.registered: dict[str, _Record] = {}
        # By what an entry point names; a sentence where that is nothing to be used.
        self._loaded: dict[str, _Record | FmriModelsError] = {}

    def names(self) -> list[str]:
        """All names, sorted; no package of others is imported."""
        own = self._own()
        usable = [name for name, entries in offered(self._group).items() if self._problem(entries, own) is None]
        return sorted({*own, *usable})

    def __contains__(self, name: object) -> bool:
        """Whether anybody has something of that name, be it usable or not."""
        return name in self._own() or name in offered(self._group)

    def get(self, name: str) -> _Record:
        """The record of a name.

        Raises:
            FmriModelsError: There is none, the message names those that are; or the package that offers it can't be
                imported, or several offer it.
        """
        own, entries = self._own(), offered(self._group).get(name, [])
        problem = self._problem(entries, own) if entries else None
        if name in own:
            if problem is not None:
                warnings.warn(problem, stacklevel=2)
            return own[name]
        if problem is not None:
            raise FmriModelsError(problem)
        if entries:
            return self._load(name)
        known = self.names()
        raise FmriModelsError(
            f"There is no {self._what} {one_line(repr(name), 80)}; those there are: {', '.join(known)}."
            f"{did_you_mean(name, known)}"
        )

    def all(self) -> list[_Record]:
        """All records, sorted by name; what packages offer and can't be used is a warning."""
        own = self._own()
        return sorted([*own.values(), *self._offered(own)], key=lambda record: record.name)

    def in_order(self) -> Iterator[_Record]:
        """Those of this package and of the program first; packages of others are imported for who still asks then."""
        own = self._own()
        yield from own.values()
        yield from self._offered(own)

    def own(self) -> list[_Record]:
        """The records of this package and of the program."""
        return list(self._own().values())

    def register(self, record: _Record) -> None:
        """Adds a record for the running program.

        Raises:
            FmriModelsError: Another one has that name.
        """
        check_name(record.name, f"{self._what}'s name")
        there = self._own().get(record.name, record)
        if there != record:
            raise FmriModelsError(
                f"A {self._what} named {record.name!r} is registered already, by {_origin(there)}; that of "
                f"{_origin(record)} needs another name."
            )
        entries = offered(self._group).get(record.name, [])
        others = [package_of(entry) for entry in entries if top_module(entry) != _origin(record)]
        if others:
            raise FmriModelsError(
                f"A {self._what} named {record.name!r} is offered already, by {listed(others)}; that of "
                f"{_origin(record)} needs another name."
            )
        _check_classes(record)
        self.registered[record.name] = record

    def package(self, name: str) -> str:
        """The package that a name comes from, as pip knows it, or as it is imported where a program registered it."""
        own = self._own()
        return _origin(own[name]) if name in own else package_of(offered(self._group)[name][0])

    def modules(self) -> set[str]:
        """The packages that are imported for records of others."""
        entries = (entry for several in offered(self._group).values() for entry in several)
        return {*map(top_module, entries), *map(_origin, self.registered.values())}

    def _own(self) -> dict[str, _Record]:
        return {**self._built_in(), **self.registered}

    def _problem(self, entries: list[EntryPoint], own: Mapping[str, _Record]) -> str | None:
        # A package may also register what its entry point names.
        if entries[0].name in self.registered:
            return None
        return problem_of_name(self._what, entries, own)

    def _offered(self, own: Mapping[str, _Record]) -> Iterator[_Record]:
        for name, entries in offered(self._group).items():
            problem = self._problem(entries, own)
            if problem is None and name not in own and not is_being_imported(entries[0]):
                try:
                    yield self._load(name)
                except FmriModelsError as error:
                    problem = str(error)
            if problem is not None:
                warnings.warn(problem, stacklevel=3)

    def _load(self, name: str) -> _Record:
        entry = offered(self._group)[name][0]
        if entry.value not in self._loaded:
            try:
                record: _Record = load_entry_point(entry, self._what, self._record_class)
                _check_classes(record)
                self._loaded[entry.value] = record
            except FmriModelsError as error:
                self._loaded[entry.value] = error
        found = self._loaded[entry.value]
        if isinstance(found, FmriModelsError):
            raise found
        return found


def _origin(record: Method | GeneratorRecord | DatasetRecord) -> str:
    """The package whose classes a record names."""
    path = record.prepare if isinstance(record, DatasetRecord) else record.class_paths[0]
    return OWN_PACKAGE if path.endswith(".py") else path.partition(":")[0].partition(".")[0]


def _check_classes(record: Method | GeneratorRecord | DatasetRecord) -> None:
    """Saved folders name classes, so that a name stands for one class."""
    if isinstance(record, DatasetRecord):
        return
    known = {_class_name(path): path for path in _own_paths()}
    for path in record.class_paths:
        if not _CLASS_PATH.fullmatch(path):
            raise FmriModelsError(
                f"{record.name!r} has {one_line(repr(path), 80)} as the place of a class; expected 'module:Class'."
            )
        if known.get(_class_name(path), path) != path:
            raise FmriModelsError(
                f"{record.name!r} has the class {path}, whose name is that of {known[_class_name(path)]}; saved "
                "folders are loaded by it, so give it another one."
            )


def _check_base(path: str, found: Any, role: str) -> None:
    base = import_path(f"{OWN_PACKAGE}.{_BASES[role]}")
    if not isinstance(found, type) or not issubclass(found, base):
        raise FmriModelsError(f"{path} is no {base.__name__}; derive the class from it.")


def _class_name(path: str) -> str:
    return path.partition(":")[2]


@cache
def _built_in_methods() -> dict[str, Method]:
    # Found by folder, so that nothing below the models imports one of them.
    names = [info.name for info in pkgutil.iter_modules([str(Path(__file__).parent / "models")])]
    found = (import_module(f".models.{name}", __package__).METHOD for name in names)
    return {method.name: method for method in found}


@cache
def _built_in_generators() -> dict[str, GeneratorRecord]:
    return {record.name: record for record in import_module(".generation", __package__).GENERATORS}


@cache
def _built_in_datasets() -> dict[str, DatasetRecord]:
    try:
        scripts = sorted(shipped_folder("dataset_scripts").glob("*.py"))
    except FmriModelsError:
        return {}
    return {
        script.stem: DatasetRecord(script.stem, _first_sentence(script), str(script))
        for script in scripts
        if not script.stem.startswith("_")
    }


def _first_sentence(script: Path) -> str:
    text = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or script.stem
    return text.partition("\n")[0].rstrip(".")


METHODS = Registry("method", "fmri_models.methods", Method, _built_in_methods)
GENERATORS = Registry("image generator", "fmri_models.generators", GeneratorRecord, _built_in_generators)
DATASETS = Registry("data set", "fmri_models.datasets", DatasetRecord, _built_in_datasets)


def register_method(method: Method) -> None:
    """Adds a method for the running program, which then works by name like the built-in ones.

    An installed package offers its methods by entry points instead, which every other process finds, too.

    Raises:
        FmriModelsError: Another method has that name, or another class that of one of its classes.
    """
    METHODS.register(method)
    import_path(f"{__package__}.library_registration:register_with_diffusers")(_origin(method))


def register_generator(generator: GeneratorRecord) -> None:
    """Adds an image generator for the running program, which then works by name like the built-in ones.

    Raises:
        FmriModelsError: Another one has that name, or another class that of one of its classes.
    """
    GENERATORS.register(generator)


def method_names() -> list[str]:
    """Names of all methods, sorted."""
    return METHODS.names()


def get_method(name: str) -> Method:
    """Finds a method by name.

    Raises:
        FmriModelsError: There is none; the message names those that are.
    """
    return METHODS.get(name)


def list_methods() -> list[Method]:
    """All methods: of this package, of installed packages that offer some, and those that were registered."""
    return METHODS.all()


def list_generators() -> list[GeneratorRecord]:
    """All image generators that have a name."""
    return GENERATORS.all()


def list_datasets() -> list[DatasetRecord]:
    """All data sets that `fmri-models prepare` knows by name."""
    return DATASETS.all()


def find_class(class_name: str) -> Any | None:
    """A public class of any method or image generator by its bare name, or None.

    Raises:
        FmriModelsError: Packages of others have several of that name.
    """
    path = find_path(class_name)
    return None if path is None else import_path(path)


def find_path(class_name: str) -> str | None:
    """Where a public class of any method or image generator is, as `"module:Class"`; it is not imported for it.

    Raises:
        FmriModelsError: Packages of others have several of that name.
    """
    for path in _own_paths():
        if _class_name(path) == class_name:
            return path
    found = sorted({path for path in _class_paths() if _class_name(path) == class_name})
    if len(found) > 1:
        raise FmriModelsError(
            f"There are several classes named {class_name}: {listed(found)}; uninstall one of these packages, or load "
            "with the class itself."
        )
    return found[0] if found else None


def find_model(model_type: str) -> Any | None:
    """The brain model whose configuration is of some `model_type`, or None."""
    for method in METHODS.in_order():
        config = load_or_warn(method.config)
        if config is not None and config.model_type == model_type:
            return method.load("model")
    return None


def load_or_warn(path: str) -> Any | None:
    """A class by its path; None with a warning if the package of others that has it can't be imported."""
    try:
        return import_path(path)
    except FmriModelsError as error:
        warnings.warn(str(error), stacklevel=2)
        return None


def import_path(path: str) -> Any:
    """What a path `"module:name"` stands for.

    Raises:
        FmriModelsError: It is in a package of others, which can't be imported or doesn't have it.
    """
    module, name = path.split(":")
    try:
        return getattr(import_module(module), name)
    # It is somebody's program, which may raise anything.
    except Exception as error:
        if module.partition(".")[0] == OWN_PACKAGE:
            raise
        raise FmriModelsError(
            f"{one_line(path, 120)} can't be imported ({one_line(f'{type(error).__name__}: {error}', 200)}); correct "
            "or update the package that has it."
        ) from error


def card_writer() -> Callable[..., Path]:
    """What writes a model card into a saved pipeline; by name, because cards stand above pipelines."""
    return import_path(f"{__package__}.hub.cards:write_card_of_folder")


def report_finder() -> Callable[[Path], list[str]]:
    """What names the files of a report that lie in a folder; by name, too."""
    return import_path(f"{__package__}.hub.report_beside:report_files")


def class_names() -> list[str]:
    """Bare names of the public classes of all methods."""
    return sorted({_class_name(path) for method in METHODS.in_order() for path in method.class_paths})


def is_method_class(class_name: str) -> bool:
    """Whether a public class of a method has that name."""
    paths = (path for method in METHODS.in_order() for path in method.class_paths)
    return any(_class_name(path) == class_name for path in paths)


def is_pipeline_class(class_name: str) -> bool:
    """Whether a saved folder may be of that class: a pipeline, or an image generator."""
    if class_name == "FmriToImagePipeline":
        return True
    of_methods = (method.pipeline for method in METHODS.in_order())
    of_generators = (record.generator for record in GENERATORS.in_order())
    return any(_class_name(path) == class_name for path in chain(of_generators, of_methods))


def component_libraries() -> set[str]:
    """Libraries whose classes may be components of a saved pipeline: nothing else is imported for one."""
    return {*_KNOWN_LIBRARIES, *METHODS.modules(), *GENERATORS.modules()}


def entries_of_index(values: Mapping[str, Any]) -> dict[str, Any]:
    """How an index of components names classes of others' methods and generators: as those of this package.

    A loader looks a class, and the base class that says how it is loaded, up in the package that the index names.

    Args:
        values: What a pipeline notes: (package, class name) of components, and other values.
    """
    return {name: _entry_of_index(value) for name, value in values.items()}


def _entry_of_index(value: Any) -> Any:
    if not isinstance(value, tuple) or len(value) != 2 or not all(isinstance(each, str) for each in value):
        return value
    library, class_name = value
    path = None if library in _KNOWN_LIBRARIES else find_path(class_name)
    if path is None:
        return value
    # diffusers calls it by its package, by its module, or by the folder that it is in.
    package, *within = path.partition(":")[0].split(".")
    return (OWN_PACKAGE, class_name) if library.partition(".")[0] == package or library in within else value


def _own_paths() -> Iterator[str]:
    for registry in (METHODS, GENERATORS):
        for record in registry.own():
            yield from record.class_paths


def _class_paths() -> Iterator[str]:
    for registry in (METHODS, GENERATORS):
        for record in registry.in_order():
            yield from record.class_paths
