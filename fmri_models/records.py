"""What methods, image generators, checkpoints and data sets say of themselves: names, papers, and where they are."""

import re
import unicodedata
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Self, get_args

from .deprecation import renamed_argument
from .entry_points import OWN_PACKAGE, folder_of_module
from .errors import FmriModelsError
from .names import listed, one_line

State = Literal["trained here", "converted", "reference"]

# What the classes that a record names derive from.
_BASES = {
    "config": "configuration_fmri:FmriConfig",
    "model": "modeling_fmri:FmriPreTrainedModel",
    "pipeline": "pipeline_fmri:FmriToImagePipeline",
    "generator": "generation.image_generator:ImageGenerator",
}


@dataclass(frozen=True)
class Paper:
    """The paper that a method, weights or data come from.

    Args:
        title: Its title.
        authors: Full names in the paper's order, family name last, or first before a comma (`"van Gerven, Marcel"`).
        year: Of the venue; of the preprint if there is none.
        url: Where it can be read: of arXiv, or of its DOI.
        venue: Journal or conference; empty for a preprint.

    Raises:
        FmriModelsError: There are no authors, or they are one text.
    """

    title: str
    authors: tuple[str, ...]
    year: int
    url: str
    venue: str = ""

    def __post_init__(self) -> None:
        authors: object = self.authors
        if isinstance(authors, str) or not authors:
            raise FmriModelsError(
                f"The paper {one_line(repr(self.title), 80)} has {one_line(repr(authors), 80)} as authors; expected "
                "their names, one by one."
            )

    def __str__(self) -> str:
        """As a text refers to it: `Scotti et al. (2023)`."""
        families = [_family_name(author) for author in self.authors]
        return f"{f'{families[0]} et al.' if len(families) > 2 else ' and '.join(families)} ({self.year})"

    def bibtex(self) -> str:
        """An entry of a bibliography."""
        first_word = next((word for word in re.findall(r"\w+", self.title.lower()) if len(word) > 3), "")
        key = _ascii(f"{_family_name(self.authors[0])}{self.year}{first_word}".lower())
        is_conference = re.search(r"conference|proceedings|advances in", self.venue.lower()) is not None
        kind, place = ("inproceedings", "booktitle") if is_conference else ("article", "journal")
        fields = {"title": f"{{{self.title}}}", "author": " and ".join(self.authors), "year": str(self.year)}
        fields |= {place: self.venue} if self.venue else {}
        shown = {name: re.sub(r"[&%#$_]", r"\\\g<0>", text) for name, text in fields.items()}
        lines = [f"  {name} = {{{text}}}," for name, text in {**shown, "url": self.url}.items()]
        return "\n".join([f"@{kind if self.venue else 'misc'}{{{key},", *lines, "}"])


@dataclass(frozen=True)
class PretrainedRecord:
    """A checkpoint: what it is, where it lies, and under which licence.

    Args:
        name: Its name, by which others are told of it.
        title: What it is, in a line.
        method: Name of the method whose brain model it is; None of an image generator.
        generator: Name of the image generator whose weights it is, or that it draws with.
        paper: Where it was described first.
        license: Id as on the Hub, or a name; empty where nothing states one.
        origin: Address of the page that has it, or of what it was made from.
        size: Bytes of the files that are fetched. Those in `folder` are counted, whatever is said here.
        state: `"trained here"`: it comes with the package, whose scripts have trained it. `"converted"`: authors have
            published it in a layout of theirs, which `fmri-models convert` reads. `"reference"`: others have published
            it, and pipelines name it and load it from there.
        folder: Where it lies in the folder `assets` of the package that brings it.
        repository: Repository of the Hub that it lies in.
        command: What makes it ready for use where loading it is not enough, as a line of the shell.
        may_be_shared: Whether others may pass it on, as far as is known. Authors who state no licence anywhere, for
            their code neither, have reserved all rights: what was made of their files is not pushed without their
            permission.
        package: The package that brings it, as it is imported.

    Raises:
        FmriModelsError: The state is none of these, or the place does not go with it.
    """

    name: str
    title: str
    method: str | None = None
    generator: str | None = None
    paper: Paper | None = None
    license: str = ""
    origin: str = ""
    size: int = 0
    state: State = "trained here"
    folder: str = ""
    repository: str = ""
    command: str = ""
    may_be_shared: bool = True
    package: str = OWN_PACKAGE

    def __post_init__(self) -> None:
        what = f"The checkpoint {one_line(repr(self.name), 80)}"
        if self.state not in get_args(State):
            raise FmriModelsError(
                f"{what} has the state {one_line(repr(self.state), 40)}; expected {listed(get_args(State))}."
            )
        if (self.state == "trained here") != bool(self.folder):
            raise FmriModelsError(
                f"{what} is {self.state} and lies in {self.folder!r}; only what was trained here has a folder."
            )
        if self.folder:
            if not _leads_inside(self.folder):
                raise FmriModelsError(
                    f"{what} lies in {one_line(repr(self.folder), 80)}; expected a folder of the package's assets."
                )
            # Counted, so that no number in a record becomes wrong.
            object.__setattr__(self, "size", sum(file.stat().st_size for file in _files(self.path())))

    def path(self) -> Path:
        """The folder of a checkpoint that a package brings.

        Raises:
            FmriModelsError: No package brings it, or that package is not installed.
        """
        start = f"The checkpoint {one_line(self.name, 80)} lies in"
        if not self.folder:
            raise FmriModelsError(f"{start} no package; see {one_line(self.repository or self.origin)}.")
        root = folder_of_module(self.package)
        if root is None:
            raise FmriModelsError(
                f"{start} the package {one_line(self.package, 80)}, which is not installed; install it."
            )
        return root / "assets" / self.folder


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
        demo: What `fmri-models demo` changes in the recipe of the method's name, as `key=value`.
        demo_unlabelled: Trials without a stimulus that the demo simulates for it besides, as a multiple of its training
            pictures.
        demo_subjects: Subjects that the demo simulates and trains together, who share its training pictures out.
        demo_new_subject: Recipe by which the demo adds a further subject, with few trials, to the trained pipeline
            (`initial_model`, with the table of the others among its `sources`); empty where it adds none.
        quick: What `fmri-models demo --quick` changes in the recipe besides.
        paper: The paper that it comes from; None where there is none.
        license: Of its authors' code, as on the Hub; empty where nothing states one.
        origin: Address of that code.
        pretrained: Its checkpoints.
    """

    name: str
    title: str
    config: str
    model: str
    output: str
    pipeline: str
    objective: str
    converter: str | None = None
    demo: tuple[str, ...] = ()
    demo_unlabelled: float = 0.0
    demo_subjects: int = 1
    demo_new_subject: str = ""
    quick: tuple[str, ...] = ()
    paper: Paper | None = None
    license: str = ""
    origin: str = ""
    pretrained: tuple[PretrainedRecord, ...] = ()

    @classmethod
    def of_folder(cls, folder: str, prefix: str, title: str, **others: Any) -> Self:
        """The method of a folder whose files and classes have the names that are usual here.

        Args:
            folder: `__name__` of the folder's `__init__.py`, `"….mymethod"`: the method's name, and the ending of its
                files `configuration_`, `modeling_`, `pipeline_` and `objective_`.
            prefix: What its classes begin with: `"MyMethod"` of `MyMethodConfig`, `Model`, `Output`, `Pipeline` and
                `Objective`.
            title: Name for people.
            **others: The other fields; a class that is elsewhere among them.
        """
        name = folder.rpartition(".")[2]
        files = {"config": "configuration", "model": "modeling", "output": "modeling"}
        usual = {
            role: f"{folder}.{files.get(role, role)}_{name}:{prefix}{role.capitalize()}"
            for role in ("config", "model", "output", "pipeline", "objective")
        }
        return cls(name=name, title=title, **{**usual, **others})

    @property
    def conversions_may_be_shared(self) -> bool:
        """Whether what is made of its published checkpoints may be passed on, as far as is known."""
        return all(each.may_be_shared for each in self.pretrained if each.state == "converted")

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
        raise AttributeError(f"method {self.name!r} has no class {class_name!r}")

    @renamed_argument("part", "role", since="0.1")
    def load(self, role: str) -> Any:
        """Imports `"config"`, `"model"`, `"output"`, `"pipeline"`, `"objective"` or `"converter"`.

        Raises:
            FmriModelsError: What is there can't be imported, or can't be it.
        """
        path = getattr(self, role)
        found = import_path(path)
        if role in _BASES:
            _check_base(path, found, role)
        if role == "config" and found.model_type != f"fmri-{self.name}":
            raise FmriModelsError(
                f"{path} has the model_type {one_line(repr(found.model_type), 80)}; set 'fmri-{self.name}', by which "
                "it is loaded again."
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
        paper: The paper that it comes from; None where there is none.
        license: Of the weights that it draws with, as on the Hub; empty where it has none, or nothing states one.
        origin: Address of these weights.
        size: Bytes of the files that are fetched.
        pretrained: The weights there are for it.
    """

    name: str
    title: str
    generator: str
    components: tuple[str, ...] = ()
    paper: Paper | None = None
    license: str = ""
    origin: str = ""
    size: int = 0
    pretrained: tuple[PretrainedRecord, ...] = ()

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
            `"module:function"`; or the path of a Python file that has it, or of settings for one (`.yaml`).
        paper: The paper that describes the data.
        license: What their publishers allow, in a line; empty where it was not looked up.
        origin: Address of the page that has them.
    """

    name: str
    title: str
    prepare: str
    paper: Paper | None = None
    license: str = ""
    origin: str = ""


@dataclass(frozen=True)
class Conversion:
    """What a method's converter makes of published checkpoints.

    Args:
        model: The brain model.
        expects: Which betas it takes, in words, since published checkpoints come without statistics.
        image_generator: The generator that it was published with, by the fields of `GeneratorSource`, or itself where
            its weights are in the same checkpoint; None if the model does not decode what that generator takes.
        drawing_settings: What it was published with, as far as that differs from the settings of the generator's class.
        num_voxels: Subject ▶ number of voxels of a recorded pattern, where the model reads another number of values.
        processor_options: Options of the processor that makes these of them, such as `pool_width`.
    """

    model: Any
    expects: str
    image_generator: Any = None
    drawing_settings: Mapping[str, Any] | None = None
    num_voxels: Mapping[str, int] | None = None
    processor_options: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class OfferedRecord:
    """What an installed package offers, by the package's metadata, as long as nobody has imported it for its record.

    Args:
        name: Name in recipes and on the command line, by which `fmri_models.registry.get_method` imports the record.
        title: What the package says of itself in a line.
        package: The package, as pip knows it.
        version: Its version.
    """

    name: str
    title: str
    package: str
    version: str


Record = Method | GeneratorRecord | PretrainedRecord | DatasetRecord


def origin(record: Record) -> str:
    """The package whose classes or files a record names."""
    if isinstance(record, PretrainedRecord):
        return record.package.partition(".")[0]
    path = record.prepare if isinstance(record, DatasetRecord) else record.class_paths[0]
    return OWN_PACKAGE if path.endswith((".py", ".yaml")) else path.partition(":")[0].partition(".")[0]


def bare_name(path: str) -> str:
    """Name of the class of a path `"module:Class"`."""
    return path.partition(":")[2]


def _leads_inside(text: str) -> bool:
    """Whether it leads into a folder, and not out of it."""
    path = PurePosixPath(text)
    return not path.is_absolute() and not {"..", ""} & set(path.parts) and "\\" not in text


def _files(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file()]


def _family_name(author: str) -> str:
    family, comma, _ = author.partition(",")
    return family if comma else author.split()[-1]


def _ascii(text: str) -> str:
    """Letters of a text that keys of bibliographies may have."""
    return re.sub(r"\W", "", unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode())


def _check_base(path: str, found: Any, role: str) -> None:
    base = import_path(f"{OWN_PACKAGE}.{_BASES[role]}")
    if not isinstance(found, type) or not issubclass(found, base):
        raise FmriModelsError(f"{path} is no {base.__name__}; derive the class from it.")


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
    # It is somebody's program, which may raise anything, or exit.
    except (Exception, SystemExit) as error:
        if module.partition(".")[0] == OWN_PACKAGE:
            raise
        raise FmriModelsError(
            f"{one_line(path, 120)} can't be imported ({one_line(f'{type(error).__name__}: {error}', 200)}); correct "
            "or update the package that has it."
        ) from error
