"""Name ▶ method, image generator, checkpoint, data set. Everyone asks here by name; nobody imports a method's folder.

A folder `models/<name>/` describes itself by a `METHOD` in its `__init__.py`, `generation/__init__.py` lists the image
generators, either says which checkpoints there are of it, and `dataset_scripts/` has a file a data set. Installed
packages of others offer theirs by entry points; a running program calls [`register_method`] or [`register_generator`].
"""

import ast
import pkgutil
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Generic, TypeVar

from .deprecation import moved_names
from .entry_points import (
    OWN_PACKAGE,
    is_being_imported,
    load_entry_point,
    offered,
    package_of,
    problem_of_name,
    summary_of,
    top_module,
    version_of,
)
from .errors import FmriModelsError
from .names import check_name, did_you_mean, listed, one_line
from .reading import parse_yaml
from .records import (
    DatasetRecord,
    GeneratorRecord,
    Method,
    OfferedRecord,
    Paper,
    PretrainedRecord,
    Record,
    bare_name,
    import_path,
    origin,
)
from .shipped import shipped_folder

__getattr__ = moved_names(__name__, f"{__package__}.records", {"Conversion": "Conversion"}, since="0.1")

# Networks that come with the package and are no method's and no generator's.
_OTHER_NETWORKS = (
    PretrainedRecord(
        "scene-factors",
        "Judge of the built-in scenes: what is in a picture, for evaluation; conditions no generator",
        license="apache-2.0",
        folder="scene_factors",
    ),
)
_CLASS_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Z]\w*")
_Record = TypeVar("_Record", bound=Record)
_Trained = TypeVar("_Trained", Method, GeneratorRecord)


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

    def all(self) -> list[_Record | OfferedRecord]:
        """All records, sorted by name, without importing a package; what is known to be of no use is a warning."""
        own = self._own()
        found: list[_Record | OfferedRecord] = [*own.values()]
        for entry in self._usable(own):
            loaded = self._loaded.get(entry.value)
            if isinstance(loaded, FmriModelsError):
                warnings.warn(str(loaded), stacklevel=3)
            elif loaded is not None:
                found.append(loaded)
            else:
                found.append(OfferedRecord(entry.name, summary_of(entry), package_of(entry), version_of(entry)))
        return sorted(found, key=lambda record: record.name)

    def in_order(self) -> Iterator[_Record]:
        """Those of this package and of the program first; packages of others are imported for who still asks then."""
        own = self._own()
        yield from own.values()
        yield from self._offered(own)

    def own(self) -> list[_Record]:
        """The records of this package and of the program."""
        return list(self._own().values())

    def at_hand(self) -> list[_Record]:
        """The records of this package and of the program, and those of packages that were imported for theirs."""
        own = self._own()
        loaded = (each for each in self._loaded.values() if not isinstance(each, FmriModelsError))
        return list({**{record.name: record for record in loaded}, **own}.values())

    def register(self, record: _Record) -> None:
        """Adds a record for the running program.

        Raises:
            FmriModelsError: Another one has that name.
        """
        self.check_free(record)
        self.registered[record.name] = record

    def check_free(self, record: _Record) -> None:
        """Checks that a record can be registered.

        Raises:
            FmriModelsError: Another one has that name.
        """
        check_name(record.name, f"{self._what}'s name")
        there = self._own().get(record.name, record)
        if there != record:
            raise FmriModelsError(
                f"A {self._what} named {record.name!r} is registered already, by {origin(there)}; that of "
                f"{origin(record)} needs another name."
            )
        entries = offered(self._group).get(record.name, [])
        others = [package_of(entry) for entry in entries if top_module(entry) != origin(record)]
        if others:
            raise FmriModelsError(
                f"A {self._what} named {record.name!r} is offered already, by {listed(others)}; that of "
                f"{origin(record)} needs another name."
            )
        _check_record(record)

    def package(self, name: str) -> str:
        """The package that a name comes from, as pip knows it, or as it is imported where a program registered it."""
        own, entries = self._own().get(name), offered(self._group).get(name, [])
        return package_of(entries[0]) if own is None or _is_of(own, entries) else origin(own)

    def modules(self) -> set[str]:
        """The packages that are imported for records of others."""
        entries = (entry for several in offered(self._group).values() for entry in several)
        return {*map(top_module, entries), *map(origin, self.registered.values())}

    def _own(self) -> dict[str, _Record]:
        return {**self._built_in(), **self.registered}

    def _problem(self, entries: list[EntryPoint], own: Mapping[str, _Record]) -> str | None:
        # A package may also register what its entry point names, or name it in a record of its own.
        record = own.get(entries[0].name)
        if entries[0].name in self.registered or (record is not None and _is_of(record, entries)):
            return None
        return problem_of_name(self._what, entries, own)

    def _usable(self, own: Mapping[str, _Record]) -> Iterator[EntryPoint]:
        """What packages offer under names that are theirs alone; the others are warnings."""
        for name, entries in offered(self._group).items():
            if (problem := self._problem(entries, own)) is not None:
                warnings.warn(problem, stacklevel=4)
            elif name not in own:
                yield entries[0]

    def _offered(self, own: Mapping[str, _Record]) -> Iterator[_Record]:
        for entry in self._usable(own):
            if is_being_imported(entry):
                continue
            try:
                yield self._load(entry.name)
            except FmriModelsError as error:
                warnings.warn(str(error), stacklevel=3)

    def _load(self, name: str) -> _Record:
        entry = offered(self._group)[name][0]
        if entry.value not in self._loaded:
            try:
                record: _Record = load_entry_point(entry, self._what, self._record_class)
                _check_record(record)
                if isinstance(record, PretrainedRecord):
                    _check_package(record, top_module(entry))
                self._loaded[entry.value] = record
            except FmriModelsError as error:
                self._loaded[entry.value] = error
        found = self._loaded[entry.value]
        if isinstance(found, FmriModelsError):
            raise found
        return found


def _is_of(record: Record, entries: list[EntryPoint]) -> bool:
    """Whether it is the package of a record that offers what has its name, and that alone."""
    return len(entries) == 1 and top_module(entries[0]) == origin(record)


def _check_record(record: Record) -> None:
    """Saved folders name classes, so that a name stands for one class; and a checkpoint is of whoever offers it."""
    _check_paper(record)
    if not isinstance(record, Method | GeneratorRecord):
        return
    for checkpoint in record.pretrained:
        if not isinstance(checkpoint, PretrainedRecord):
            raise FmriModelsError(
                f"{record.name!r} has a {type(checkpoint).__name__} among its checkpoints; expected PretrainedRecords."
            )
        _check_package(checkpoint, origin(record))
    known = {bare_name(path): path for path in own_class_paths()}
    for path in record.class_paths:
        if not _CLASS_PATH.fullmatch(path):
            raise FmriModelsError(
                f"{record.name!r} has {one_line(repr(path), 80)} as the place of a class; expected 'module:Class'."
            )
        if known.get(bare_name(path), path) != path:
            raise FmriModelsError(
                f"{record.name!r} has the class {path}, whose name is that of {known[bare_name(path)]}; saved "
                "folders are loaded by it, so give it another one."
            )


def _check_paper(record: Record) -> None:
    if record.paper is not None and not isinstance(record.paper, Paper):
        raise FmriModelsError(
            f"{record.name!r} has a {type(record.paper).__name__} as its paper; expected a Paper, or None."
        )


def _check_package(record: PretrainedRecord, package: str) -> None:
    if origin(record) != package:
        raise FmriModelsError(
            f"The checkpoint {one_line(repr(record.name), 80)} is of the package {one_line(repr(record.package), 80)}, "
            f"says its record; expected {package!r}, which offers it: set package={package!r}."
        )


@cache
def _built_in_methods() -> dict[str, Method]:
    # Found by folder, so that nothing below the models imports one of them.
    names = [info.name for info in pkgutil.iter_modules([str(Path(__file__).parent / "models")])]
    found = (import_module(f".models.{name}", __package__).METHOD for name in names)
    return {method.name: method for method in found}


@cache
def _built_in_generators() -> dict[str, GeneratorRecord]:
    return {record.name: record for record in import_module(".generation", __package__).GENERATORS}


def _pretrained() -> dict[str, PretrainedRecord]:
    """Those of the methods and generators that are at hand; of two with one name that of this package."""
    records: list[Method | GeneratorRecord] = [*METHODS.at_hand(), *GENERATORS.at_hand()]
    found = [*_OTHER_NETWORKS, *(checkpoint for record in records for checkpoint in record.pretrained)]
    return {each.name: each for each in sorted(found, key=lambda checkpoint: checkpoint.package == OWN_PACKAGE)}


@cache
def _built_in_datasets() -> dict[str, DatasetRecord]:
    try:
        folder = shipped_folder("dataset_scripts")
    except FmriModelsError:
        return {}
    scripts = [path for path in sorted(folder.glob("*.py")) if not path.stem.startswith("_")]
    found = {script.stem: _dataset_of(script) for script in scripts}
    return {**found, **{path.stem: _dataset_of_settings(path) for path in sorted(folder.glob("*.yaml"))}}


def _dataset_of(script: Path) -> DatasetRecord:
    """What a script of this package says of its data, which is not run for it: its docstring, and literal constants."""
    program = ast.parse(script.read_text(encoding="utf-8"))
    title = (ast.get_docstring(program) or script.stem).partition("\n")[0].rstrip(".")
    stated = {
        target.id: ast.literal_eval(statement.value)
        for statement in program.body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name) and target.id in ("PAPER", "LICENSE", "ORIGIN")
    }
    paper = Paper(**stated["PAPER"]) if "PAPER" in stated else None
    return DatasetRecord(script.stem, title, str(script), paper, stated.get("LICENSE", ""), stated.get("ORIGIN", ""))


def _dataset_of_settings(path: Path) -> DatasetRecord:
    """What a file with settings of a script says of its data."""
    said = parse_yaml(path.read_text(encoding="utf-8"), f"The settings {path.name}")
    paper = {**said["paper"], "authors": tuple(said["paper"]["authors"])} if "paper" in said else None
    return DatasetRecord(
        path.stem, said["title"], str(path), Paper(**paper) if paper else None, said["license"], said["origin"]
    )


METHODS = Registry("method", "fmri_models.methods", Method, _built_in_methods)
GENERATORS = Registry("image generator", "fmri_models.generators", GeneratorRecord, _built_in_generators)
PRETRAINED = Registry("checkpoint", "fmri_models.pretrained", PretrainedRecord, _pretrained)
DATASETS = Registry("data set", "fmri_models.datasets", DatasetRecord, _built_in_datasets)


def register_method(method: Method) -> None:
    """Adds a method for the running program, which then works by name like the built-in ones.

    An installed package offers its methods by entry points instead, which every other process finds, too.

    Raises:
        FmriModelsError: Another method has that name, another class that of one of its classes, or another checkpoint
            that of one of its checkpoints.
    """
    _register(METHODS, method)
    import_path(f"{__package__}.library_registration:register_with_diffusers")(origin(method))


def register_generator(generator: GeneratorRecord) -> None:
    """Adds an image generator for the running program, which then works by name like the built-in ones.

    Raises:
        FmriModelsError: As of [`register_method`].
    """
    _register(GENERATORS, generator)


def _register(registry: Registry[_Trained], record: _Trained) -> None:
    registry.check_free(record)
    for checkpoint in record.pretrained:
        PRETRAINED.check_free(checkpoint)
    registry.register(record)
    for checkpoint in record.pretrained:
        PRETRAINED.register(checkpoint)


def method_names() -> list[str]:
    """Names of all methods, sorted."""
    return METHODS.names()


def get_method(name: str) -> Method:
    """Finds a method by name.

    Raises:
        FmriModelsError: There is none; the message names those that are.
    """
    return METHODS.get(name)


def list_methods() -> list[Method | OfferedRecord]:
    """All methods: of this package, of installed packages that offer some, and those that were registered.

    Of packages that nobody has used yet it says what their metadata tell, so that none is imported to be listed.
    """
    return METHODS.all()


def list_generators() -> list[GeneratorRecord | OfferedRecord]:
    """All image generators that have a name, likewise."""
    return GENERATORS.all()


def list_pretrained() -> list[PretrainedRecord | OfferedRecord]:
    """All checkpoints: those that come with the package, published ones that are converted, and weights of others.

    Those of a method or generator are in its record; of packages that nobody has used yet, those that their metadata
    name (`fmri_models.pretrained`).
    """
    return PRETRAINED.all()


def list_datasets() -> list[DatasetRecord | OfferedRecord]:
    """All data sets that `fmri-models prepare` knows by name, likewise."""
    return DATASETS.all()


def card_writer() -> Callable[..., Path]:
    """What writes a model card into a saved pipeline; by name, because cards stand above pipelines."""
    return import_path(f"{__package__}.hub.cards:write_card_of_folder")


def report_finder() -> Callable[[Path], list[str]]:
    """What names the files of a report that lie in a folder; by name, too."""
    return import_path(f"{__package__}.hub.report_beside:report_files")


def own_class_paths() -> Iterator[str]:
    """Where the classes of this package's methods and generators, and of the program's, are."""
    for registry in (METHODS, GENERATORS):
        for record in registry.own():
            yield from record.class_paths
