"""A pipeline as a folder, here or on the Hub: its index, what of it is fetched, and what a save makes superfluous."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .adapters import ADAPTER_FILES
from .component_index import CARD_FILE, check_component_index, package_on_card, what_lies_in
from .drawing_settings import DrawingSettings
from .errors import FmriModelsError
from .generation.generator_adapter import ADAPTER_FOLDER, GeneratorAdapter, adapter_files
from .hub_repository import (
    fetch_folder,
    fetch_options,
    is_folder,
    is_repository_id,
    list_files,
    weights_patterns,
)
from .known_classes import is_method_class, is_pipeline_class
from .names import one_line
from .output_folders import PIPELINE
from .processing.statistics_file import FORMER_STATISTICS_FILE, STATISTICS_FILE
from .provenance import ACCOMPANYING_FILES
from .reading import read_object
from .registry import report_finder
from .saving import check_schema, weights_no_longer_needed
from .subject_adapters import SUBJECT_ADAPTER_FILES
from .swapping import recover, written_files

# 2: the image generator may be named instead of contained.
# 3: it may have an adapter beside it; pipelines without one are still of 2.
PIPELINE_SCHEMA = 3
SCHEMA_WITHOUT_ADAPTER = 2
ADAPTER_KEY = ADAPTER_FOLDER
INDEX_FILE = "model_index.json"
SETTINGS_KEY = "drawing_settings"
COMPONENTS = ("brain_model", "processor", "image_generator")
_COMPONENT_FILES = ("*.json", "*.txt", "*.model", STATISTICS_FILE, FORMER_STATISTICS_FILE)


def local_pipeline(path: str, kwargs: dict[str, Any]) -> Path:
    """The folder itself, or that of the cache with what the Hub has of the pipeline."""
    if is_folder(path) or Path(path).exists() or not is_repository_id(path):
        if not is_folder(path):
            recover(path)
        if not is_folder(path):
            found = "is a file" if Path(path).is_file() else "does not exist"
            raise FmriModelsError(
                f"The folder {one_line(path)} {found}; give a saved pipeline, or a Hub repository as user/name."
            )
        return Path(path)
    options = fetch_options(kwargs)
    # The card says which package an unknown class is of.
    index = read_index(fetch_folder(path, [INDEX_FILE, CARD_FILE], **options))
    components = [name for name, value in index.items() if isinstance(value, list) and value[:1] != [None]]
    variants = _components_of_variant(path, components, kwargs.get("variant"), options)
    patterns = [INDEX_FILE, *ACCOMPANYING_FILES]
    for component in components:
        for prefix in (f"{component}/", f"{component}/*/"):
            patterns += [f"{prefix}{ending}" for ending in _COMPONENT_FILES]
            for variant in variants[component]:
                patterns += weights_patterns(prefix, variant)
    patterns += [f"brain_model/{name}" for name in (*ADAPTER_FILES, *SUBJECT_ADAPTER_FILES)]
    patterns += adapter_files() if index.get(ADAPTER_KEY) else []
    return fetch_folder(path, patterns, **options)


def _components_of_variant(
    repo_id: str, components: Sequence[str], variant: str | None, options: Mapping[str, Any]
) -> dict[str, list[str | None]]:
    """Which weights of each component are needed: those of the variant, or the usual ones where it has none."""
    if variant is None:
        return {component: [None] for component in components}
    files = (
        None if options.get("local_files_only") else list_files(repo_id, options.get("revision"), options.get("token"))
    )
    if files is None:
        return {component: [variant, None] for component in components}
    return {
        component: [
            variant if any(f".{variant}" in file for file in files if file.startswith(f"{component}/")) else None
        ]
        for component in components
    }


def read_index(folder: str | os.PathLike) -> dict[str, Any]:
    """What a saved pipeline's model_index.json says, checked: nothing in it names code, and its version is known.

    Raises:
        FmriModelsError: There is none, or it names components that are none of a pipeline's.
    """
    file = Path(folder) / INDEX_FILE
    if not file.is_file():
        found = what_lies_in(Path(folder))
        instead = "" if found is None else f": it {found}"
        raise FmriModelsError(
            f"{folder} has no {INDEX_FILE}, so it is no saved pipeline{instead}; pass the folder that training wrote."
        )
    mend = "save or download the pipeline again"
    index = read_object(file, "pipeline's index", mend)
    check_schema(index.get("fmri_schema", 1), PIPELINE_SCHEMA, f"The pipeline in {folder}")
    name = index.get("_class_name")
    if isinstance(name, str) and name != "FmriToImagePipeline" and not is_method_class(name):
        raise other_class(name, folder)
    check_component_index(index, f"The pipeline's index {file}", mend, components=COMPONENTS)
    saved_settings(index, folder)
    return index


def other_class(name: Any, folder: str | os.PathLike) -> FmriModelsError:
    """What to say of a folder whose index names another class than that of a method's pipeline."""
    if isinstance(name, str) and is_pipeline_class(name):
        return FmriModelsError(
            f"{folder} holds an image generator ({name}) and no whole pipeline; load it with {name}, or give the "
            "folder of the pipeline."
        )
    return FmriModelsError(
        f"{folder} holds a {one_line(repr(name), 80)}, which is no pipeline of this package; if another package has "
        f"the method, install or import that package first{package_on_card(Path(folder))}."
    )


def saved_settings(index: Mapping[str, Any], folder: str | os.PathLike) -> DrawingSettings | None:
    """What a pipeline's index says that it draws with; None where it is older than these settings.

    Raises:
        FmriModelsError: A setting is unknown or out of range.
    """
    if SETTINGS_KEY not in index:
        return None
    what = f"The {SETTINGS_KEY} in the pipeline's index {one_line(Path(folder) / INDEX_FILE)}"
    return DrawingSettings.from_dict(index[SETTINGS_KEY], what, "save or download the pipeline again")


def saved_adapter(index: Mapping[str, Any], folder: Path) -> GeneratorAdapter | None:
    """The adapter of the image generator that lies beside the components; None where the index names none.

    Raises:
        FmriModelsError: It is missing or damaged, or the index names another place.
    """
    place = index.get(ADAPTER_KEY)
    if place is None:
        return None
    mend = "save or download the pipeline again"
    if place != ADAPTER_FOLDER:
        raise FmriModelsError(
            f"The pipeline's index {one_line(folder / INDEX_FILE)} has {one_line(repr(place), 80)} as {ADAPTER_KEY}; "
            f"expected {ADAPTER_FOLDER!r}; {mend}."
        )
    if not (folder / ADAPTER_FOLDER).is_dir():
        raise FmriModelsError(
            f"{one_line(folder)} has no {ADAPTER_FOLDER}/, with which its image generator was trained; {mend}."
        )
    return GeneratorAdapter.read(folder / ADAPTER_FOLDER)


def no_longer_needed(folder: Path, written: set[str]) -> list[str]:
    """Older weights, and the files of a component that the pipeline had and has no more."""
    obsolete = weights_no_longer_needed(folder, written)
    for component in COMPONENTS:
        if not any(name.startswith(f"{component}/") for name in written) and (folder / component).is_dir():
            names = (f"{component}/{name}" for name in written_files(folder / component))
            obsolete += [name for name in names if PIPELINE.is_own(folder, name)]
    if INDEX_FILE in written and (folder / ADAPTER_FOLDER).is_dir():
        there = (f"{ADAPTER_FOLDER}/{name}" for name in written_files(folder / ADAPTER_FOLDER))
        obsolete += [name for name in there if name not in {*written, *obsolete} and PIPELINE.is_own(folder, name)]
    if "brain_model/config.json" in written:
        adapter = [f"brain_model/{name}" for name in ADAPTER_FILES]
        obsolete += [name for name in adapter if name not in written and (folder / name).is_file()]
    former = f"processor/{FORMER_STATISTICS_FILE}"
    return [*obsolete, former] if (folder / former).is_file() else obsolete


def no_longer_true(folder: Path, written: set[str]) -> list[str]:
    """What a save of other components than before has no use for: also a report on those."""
    return [*no_longer_needed(folder, written), *report_finder()(folder)]


def without_places(index_file: Path, folder: Path) -> None:
    """Takes absolute paths out: where the pipeline came from; a generator's folder becomes relative."""
    index = json.loads(index_file.read_text(encoding="utf-8"))
    index.pop("_name_or_path", None)
    source = index.get("image_generator_source") or {}
    if os.path.isabs(source.get("repository") or ""):
        relative = Path(os.path.relpath(source["repository"], os.path.realpath(folder))).as_posix()
        source["repository"] = relative if relative.startswith("../") else f"./{relative}"
    index_file.write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def with_places(source: Any, folder: Path) -> Any:
    """A saved generator's source with its folder as a path from here."""
    repository = source.get("repository") if isinstance(source, Mapping) else None
    if not isinstance(repository, str) or not repository.startswith(("./", "../")):
        return source
    return {**source, "repository": os.path.normpath(Path(os.path.realpath(folder)) / repository)}
