"""Image generators by name, by folder, or by Hub repository."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from safetensors import SafetensorError

from ..configuration_fmri import SPACES
from ..embedding_space import EmbeddingSpace
from ..errors import FmriModelsError
from ..hub_repository import HUB_ERRORS, NotFetchedError, check_place, is_folder, is_repository_id
from ..known_classes import is_method_class
from ..names import did_you_mean, one_line
from ..reading import checked, read_object
from ..records import GeneratorRecord, load_or_warn
from ..registry import GENERATORS
from ..weights import NoSuchVariantError, check_variant_name
from .generator_folder import INDEX_FILE
from .image_generator import ImageGenerator
from .source import GeneratorSource, check_repository, check_revision, check_subfolder
from .stored_generator import hub_options

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def image_generator_class(name: str) -> type[ImageGenerator]:
    """The class of the generator of a name.

    Raises:
        FmriModelsError: There is none, or the package that offers it can't be imported.
    """
    found: type[ImageGenerator] = GENERATORS.get(name).load()
    return found


def image_generator_classes() -> Iterator[type[ImageGenerator]]:
    """The classes of all generators that have a name; those of others that can't be imported are a warning."""
    return _loaded(GENERATORS.in_order())


def _loaded(records: Iterable[GeneratorRecord]) -> Iterator[type[ImageGenerator]]:
    found = (load_or_warn(record.generator) for record in records)
    return (each for each in found if each is not None)


def parse_source(value: str | os.PathLike | Mapping[str, Any] | GeneratorSource) -> GeneratorSource:
    """What a recipe, a saved pipeline or a caller says of a generator.

    Args:
        value: A name, a folder, a Hub repository, or a mapping of the fields of [`GeneratorSource`].

    Raises:
        FmriModelsError: There is no such generator, or the mapping has unknown or contradicting fields.
    """
    if isinstance(value, GeneratorSource):
        return value
    if isinstance(value, str | os.PathLike):
        text = os.fspath(value)
        if text in GENERATORS.names():
            return GeneratorSource(name=text)
        if "/" not in text and not os.path.isdir(text):
            own = [record.name for record in GENERATORS.own()]
            known = [*own, *(name for name in GENERATORS.names() if name not in own)]
            raise FmriModelsError(
                f"There is no image generator {one_line(repr(text), 80)}; give {', '.join(known)}, a folder, or a Hub "
                f"repository.{did_you_mean(text, known)}"
            )
        return GeneratorSource(repository=text)
    if not isinstance(value, Mapping):
        raise FmriModelsError(
            f"The image generator is {value!r}; expected a name, a folder, a Hub repository, or a mapping with name "
            "or repository."
        )
    return _from_mapping(value)


def image_generator_of_class(class_name: str) -> type[ImageGenerator] | None:
    """The generator with a name that has that class; None if there is none."""
    name = image_generator_name(class_name)
    return None if name is None else image_generator_class(name)


def image_generator_name(class_name: str) -> str | None:
    """The name of the generator that has that class; None if there is none."""
    return _name_of_class(class_name, GENERATORS.in_order())


def _name_of_class(class_name: str, records: Iterable[GeneratorRecord]) -> str | None:
    return next((record.name for record in records if record.generator.endswith(f":{class_name}")), None)


def source_class(source: GeneratorSource, **hub_options: Any) -> type[ImageGenerator]:
    """The class of the generator that is meant, found by its name or by the place's model_index.json.

    Raises:
        FmriModelsError: The place holds something else, or is not to be had.
    """
    if source.name is not None:
        return image_generator_class(source.name)
    class_name = _stated_class(source, hub_options)
    if isinstance(class_name, str):
        # No package of others is imported for what this one has a class for.
        for records in (GENERATORS.own, GENERATORS.in_order):
            if (name := _name_of_class(class_name, records())) is not None:
                return image_generator_class(name)
            for found in _loaded(records()):
                if class_name in found.diffusers_class_names:
                    return found
    if is_method_class(class_name):
        hint = "a pipeline's own is there with subfolder='image_generator'"
    else:
        hint = "if another package has it, install or import that package first"
    raise FmriModelsError(
        f"{source} holds a {one_line(repr(class_name), 80)}, which is no image generator of this package; {hint}."
    )


def saved_class(place: str, base: type[ImageGenerator], options: Mapping[str, Any]) -> type[Any]:
    """The class of the generator in a folder or repository.

    Args:
        place: Folder, or repository id.
        base: What it has to be derived from.
        options: Arguments of `from_pretrained`.

    Raises:
        FmriModelsError: It is no generator, or none of these.
    """
    check_place(place)
    source = GeneratorSource(repository=place, revision=options.get("revision"), subfolder=options.get("subfolder"))
    found = source_class(source, **hub_options(dict(options)))
    if not issubclass(found, base):
        raise FmriModelsError(f"{source} holds a {found.__name__} and no {base.__name__}; load it by its own class.")
    return found


def load_source(
    source: GeneratorSource,
    image_size: tuple[int, int, int] | None = None,
    dtype: Any = torch.float32,
    variant: str | None = None,
    **hub_options: Any,
) -> ImageGenerator:
    """Loads the generator that is meant.

    Args:
        source: Its name and place.
        image_size: Channels, height and width of the stimuli, which generators without a size of their own take.
        dtype: What it computes in, unless the source says so; as in `from_pretrained`.
        variant: Which weights are taken where the source says nothing and there are such.
        **hub_options: `cache_dir`, `token`, `local_files_only`.

    Raises:
        FmriModelsError: There is none, or it is neither here nor to be had from the Hub.
    """
    dtype = dtype if source.dtype is None else _DTYPES[source.dtype]
    generator_class = source_class(source, **hub_options)
    _check_options(generator_class, source)
    if source.repository is None and not _has_weights(generator_class):
        made = _for_stimuli(generator_class, source, image_size)
        return made.to(dtype) if isinstance(dtype, torch.dtype) else made
    try:
        place = {"repository": source.repository, "revision": source.revision, "subfolder": source.subfolder}
        options = {**place, "dtype": dtype, **source.options, **hub_options}
        if source.variant is not None:
            return generator_class.from_source(**options, variant=source.variant)
        if variant is not None:
            # That of a whole pipeline, which a generator elsewhere need not have.
            with suppress(NoSuchVariantError):
                return generator_class.from_source(**options, variant=variant)
        return generator_class.from_source(**options)
    except NotFetchedError as error:
        raise _not_loaded(resolved(source), error.__cause__ or error) from error
    except FmriModelsError:
        raise
    except (OSError, ValueError, SafetensorError) as error:
        raise _not_loaded(resolved(source), error) from error


def load_image_generator(
    generator: str | Mapping[str, Any] | GeneratorSource, image_size: tuple[int, int, int] | None = None
) -> ImageGenerator:
    """Makes or loads the generator of a recipe.

    One that is published with weights of its own knows its [`GeneratorSource`] afterwards, by which pipelines refer to
    it instead of copying it.

    Args:
        generator: A name, a folder, a Hub repository, or a mapping of the fields of [`GeneratorSource`].
        image_size: Channels, height and width of the stimuli, which generators without a size of their own take.

    Raises:
        FmriModelsError: There is no such generator, or it can't be loaded.
    """
    source = parse_source(generator)
    loaded = load_source(source, image_size)
    if loaded.default_repository is not None:
        loaded.source = located(source, loaded)
    return loaded


def located(source: GeneratorSource, generator: ImageGenerator) -> GeneratorSource:
    """The source of a generator that is loaded, with the spaces that it takes."""
    name = source.name or image_generator_name(type(generator).__name__)
    return replace(resolved(source), name=name, spaces=spaces_of(generator))


def resolved(source: GeneratorSource) -> GeneratorSource:
    """The source with the repository that its name stands for, and with a folder as an absolute one.

    One whose weights come with the package has its name alone, since the package is elsewhere on another machine.

    Raises:
        FmriModelsError: The named generator has no weights of its own.
    """
    if source.repository is None:
        generator_class = image_generator_class(str(source.name))
        repository = generator_class.default_repository
        if repository is None and generator_class.package_folder is not None:
            return source
        if repository is None:
            raise FmriModelsError(
                f"The image generator {source.name} has no published weights that a pipeline could refer to; pass the "
                "generator itself as image_generator=, or the folder of a saved one."
            )
        return replace(source, repository=repository)
    if not is_folder(source.repository):
        return source
    return replace(source, repository=str(Path(source.repository).absolute()))


def spaces_of(generator: ImageGenerator) -> dict[str, Any]:
    """The spaces that a generator takes, as [`GeneratorSource`] states them."""
    found = {name: getattr(generator, name) for name in SPACES}
    return {name: space.to_dict() for name, space in found.items() if space is not None}


def _from_mapping(values: Mapping[str, Any]) -> GeneratorSource:
    known = [field.name for field in fields(GeneratorSource)]
    unknown = [str(key) for key in values if key not in known]
    if unknown:
        raise FmriModelsError(
            f"The image generator has the unknown key {one_line(unknown[0], 80)!r}; known keys: {', '.join(known)}."
            f"{did_you_mean(unknown[0], known)}"
        )
    for key, value in values.items():
        is_mapping = key in ("options", "spaces")
        if not isinstance(value, Mapping if is_mapping else str | None):
            expected = "a mapping" if is_mapping else "a text"
            raise FmriModelsError(f"The image generator's {key} is {one_line(repr(value))}; expected {expected}.")
    source = GeneratorSource(**values)
    if source.name is None and source.repository is None:
        raise FmriModelsError("The image generator has neither name nor repository; give one of them.")
    if source.name is not None:
        GENERATORS.get(source.name)
    if source.dtype is not None and source.dtype not in _DTYPES:
        raise FmriModelsError(
            f"The image generator's dtype is {one_line(source.dtype, 80)!r}; expected {', '.join(_DTYPES)}."
        )
    _check_place(source)
    if source.repository is None and image_generator_class(str(source.name)).default_repository is None:
        for key in ("revision", "subfolder", "variant"):
            if getattr(source, key) is not None:
                raise FmriModelsError(
                    f"The image generator {source.name} has a {key} and no repository, and none was published for it; "
                    f"leave {key} out, or give the repository."
                )
    _check_spaces(source)
    _check_known_options(source)
    return source


def _check_place(source: GeneratorSource) -> None:
    checks: dict[str, Callable[[Any, str], Any]] = {
        "repository": check_repository,
        "revision": check_revision,
        "subfolder": check_subfolder,
        "variant": check_variant_name,
    }
    for name, check in checks.items():
        value = getattr(source, name)
        if value is not None:
            check(value, f"image generator's {name}")


def _check_spaces(source: GeneratorSource) -> None:
    for name, values in source.spaces.items():
        if name not in SPACES:
            raise FmriModelsError(
                f"The image generator's spaces have {one_line(name, 80)!r}; expected {', '.join(SPACES)}."
            )
        if values is not None:
            EmbeddingSpace.from_dict(values, f"The image generator's {name}")


def _check_known_options(source: GeneratorSource) -> None:
    """Refuses options before the place is asked which class it holds; without one, those that no generator has."""
    if source.name is not None:
        _check_options(image_generator_class(source.name), source)
        return
    known = sorted({name for each in image_generator_classes() for name in each.options.model_fields})
    unknown = [key for key in source.options if key not in known]
    if unknown:
        raise _unknown_option(unknown[0], known)


def _check_options(generator_class: type[ImageGenerator], source: GeneratorSource) -> None:
    known = list(generator_class.options.model_fields)
    unknown = [key for key in source.options if key not in known]
    if unknown:
        raise _unknown_option(unknown[0], known)
    checked(dict(source.options), generator_class.options, "The image generator's options", "correct the option")


def _unknown_option(name: object, known: list[str]) -> FmriModelsError:
    return FmriModelsError(
        f"The image generator's options have {one_line(name, 80)!r}, which a recipe or a pipeline can't say; expected "
        f"{', '.join(known) or 'none'} (in Python, other arguments go to from_source).{did_you_mean(name, known)}"
    )


def _has_weights(generator_class: type[ImageGenerator]) -> bool:
    """Whether a generator's name alone says where its weights are."""
    return generator_class.default_repository is not None or generator_class.package_folder is not None


def _for_stimuli(
    generator_class: type[ImageGenerator], source: GeneratorSource, image_size: tuple[int, int, int] | None
) -> ImageGenerator:
    if image_size is None:
        raise FmriModelsError(
            f"The image generator {source.name} takes the size of the stimuli, which is not known here; give a folder "
            "that holds one."
        )
    return generator_class.for_stimuli(image_size, **source.options)


def _stated_class(source: GeneratorSource, hub_options: Mapping[str, Any]) -> Any:
    folder = Path(str(source.repository))
    try:
        if is_folder(str(source.repository)):
            index = folder / (source.subfolder or "") / INDEX_FILE
        else:
            index = Path(
                hf_hub_download(
                    str(source.repository),
                    INDEX_FILE,
                    subfolder=source.subfolder,
                    revision=source.revision,
                    **hub_options,
                )
            )
        return read_object(index, "index of the image generator", "give the folder of a saved one").get("_class_name")
    except FmriModelsError:
        raise
    except HUB_ERRORS as error:
        raise _not_loaded(source, error) from error


_WHERE = "generator= of a recipe, --generator of a command, image_generator_source= in Python"


def _not_loaded(source: GeneratorSource, error: BaseException) -> FmriModelsError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    if is_folder(str(source.repository)):
        return FmriModelsError(f"The image generator {source} can't be loaded: {one_line(reason)}.")
    if not is_repository_id(str(source.repository)):
        return FmriModelsError(
            f"There is no folder {source.repository} with the image generator; put it back, or give another one "
            f"({_WHERE})."
        )
    source = replace(source, revision=source.revision or "main")
    return FmriModelsError(
        f"The image generator {source} is neither a folder here nor in the cache, and it could not be fetched from the "
        f"Hub ({reason}); download it with `hf download {source.repository} --revision {source.revision}`, or give "
        f"another one ({_WHERE})."
    )
