"""Recipes as files: which there are, what they say, and what `key=value` changes. Light: no network is loaded."""

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import takewhile
from pathlib import Path
from typing import Any

from ..entry_points import OWN_PACKAGE, data_folders
from ..errors import FmriModelsError
from ..names import did_you_mean, one_line
from ..reading import MAX_NESTING, parse_yaml, read_text
from ..records import Paper
from ..registry import METHODS
from ..typed_values import check_key, is_nothing, opened, split_override, unshared

# Of a recipe itself, as [`Recipe`] declares them; what is in them is compared where their classes are.
KEYS = (
    "method", "stages", "data", "out", "subjects", "split", "fold", "folds", "generator", "targets", "captions",
    "posterior", "guides", "initial_model", "adaptation", "lora", "sources", "repetitions", "processor", "model",
    "drawing", "selection", "trackers", "seed", "max_shard_size",
)  # fmt: skip
_RECIPE_ENDINGS = (".yaml", ".yml", ".json")
_MAX_LIST_INDEX_DIGITS = 9
# A line of a recipe's first comment begins with it that names the data which the recipe is for.
_DATA = "Data: "


@dataclass(frozen=True)
class RecipeRecord:
    """A recipe that is known by its name.

    Args:
        name: Its name.
        title: What it is for: its first comment.
        package: The package that ships it, as pip knows it.
        method: The method that it trains.
        generator: Name, folder or repository of its image generator; empty where it names none.
        data: What data it is for, from the line `# Data: …` of its first comment; empty where any table will do.
        paper: The method's paper; None where there is none, or nobody has imported the package that has the method.
    """

    name: str
    title: str
    package: str
    method: str = ""
    generator: str = ""
    data: str = ""
    paper: Paper | None = None


def recipe_names() -> list[str]:
    """Names of the recipes that come with this package, or with one that offers methods, generators or data sets."""
    return sorted(name for name, places in _recipes().items() if len(places) == 1)


def list_recipes() -> list[RecipeRecord]:
    """The recipes that are known by name; two packages with one of the same name are a warning."""
    found = []
    for name, places in sorted(_recipes().items()):
        if len(places) > 1:
            warnings.warn(_contradiction(name, places), stacklevel=2)
        else:
            package, file = places[0]
            found.append(_record(name, package, file))
    return found


def is_recipe_file(name_or_path: str) -> bool:
    """Whether the path of a file is meant, and not the name of a recipe that comes with the package."""
    return Path(name_or_path).suffix.lower() in _RECIPE_ENDINGS


def recipe_values(name_or_path: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """What a recipe and overrides say, before anything is compared with what recipes may say.

    Args:
        name_or_path: Name of a shipped recipe, or path of a file.
        overrides: `key=value`.

    Raises:
        FmriModelsError: There is no such recipe, it is no valid YAML, a key of it is unknown, or an override has no
            form or no place.
    """
    values = _read(name_or_path)
    for override in overrides:
        key, value = split_override(override)
        set_value(values, key, value, one_line(override))
    for key in values:
        check_key(key, KEYS, f"The recipe {one_line(name_or_path)}")
    return values


def _recipes() -> dict[str, list[tuple[str, Any]]]:
    """Name ▶ package and file; several where packages of others contradict each other, as ours go first."""
    own = resources.files(__package__).joinpath("recipes")
    found = {name: [(OWN_PACKAGE, file)] for name, file in _in_folder(own)}
    of_others: dict[str, list[tuple[str, Any]]] = {}
    for package, folder in data_folders("recipes"):
        for name, file in _in_folder(folder):
            of_others.setdefault(name, []).append((package, file))
    return {**of_others, **found}


def _in_folder(folder: Any) -> list[tuple[str, Any]]:
    return [(file.name.removesuffix(".yaml"), file) for file in folder.iterdir() if file.name.endswith(".yaml")]


def _contradiction(name: str, places: list[tuple[str, Any]]) -> str:
    packages = " and ".join(package for package, _ in places)
    return (
        f"The packages {packages} both have a recipe named {one_line(name, 80)!r}, so that neither is used; give "
        "the path of a file."
    )


def _record(name: str, package: str, file: Any) -> RecipeRecord:
    text = read_text(file, "recipe file", "install the package again")
    comment = [line.strip("# ") for line in takewhile(lambda line: line.startswith("#"), text.splitlines())]
    title = " ".join(line for line in comment if not line.startswith(_DATA)).partition(". ")[0]
    data = next((line.removeprefix(_DATA) for line in comment if line.startswith(_DATA)), "")
    method, generator = _method_and_generator(text, name)
    papers = {record.name: record.paper for record in METHODS.at_hand()}
    return RecipeRecord(
        name,
        one_line(title.rstrip(".")),
        package,
        one_line(method),
        one_line(generator),
        one_line(data.rstrip(".")),
        papers.get(method),
    )


def _method_and_generator(text: str, name: str) -> tuple[str, str]:
    """What a recipe says of them; nothing where it says nothing that could be read."""
    try:
        values = parse_yaml(text, f"The recipe {one_line(name)}", as_written=True)
    except FmriModelsError as error:
        warnings.warn(str(error), stacklevel=4)
        return "", ""
    values = values if isinstance(values, dict) else {}
    generator = values.get("generator", "")
    if is_nothing(generator):
        generator = ""
    if isinstance(generator, dict):
        generator = generator.get("name") or generator.get("repository") or ""
    return str(values.get("method", "")), str(generator)


def _read(name_or_path: str) -> dict[str, Any]:
    shipped = ", ".join(recipe_names())
    if is_recipe_file(name_or_path):
        text = read_text(name_or_path, "recipe file", f"shipped recipes: {shipped}")
    elif places := _recipes().get(name_or_path):
        if len(places) > 1:
            raise FmriModelsError(_contradiction(name_or_path, places))
        text = read_text(places[0][1], "recipe file", "install the package again")
    else:
        if os.path.isfile(name_or_path):
            raise FmriModelsError(
                f"The file {one_line(name_or_path)} has none of the endings of recipes, {', '.join(_RECIPE_ENDINGS)}; "
                "rename it."
            )
        raise FmriModelsError(
            f"There is no recipe {one_line(repr(name_or_path))}.{did_you_mean(name_or_path, recipe_names())} Give one "
            f"that is shipped ({shipped}) or a .yaml file; if another package has it, install that package first."
        )
    values = parse_yaml(text, f"The recipe {one_line(name_or_path)}", as_written=True)
    if not isinstance(values, dict):
        raise FmriModelsError(f"The recipe {one_line(name_or_path)} holds no mapping of keys to values.")
    return unshared(values)


def set_value(values: dict[str, Any], key: str, value: Any, override: str) -> None:
    """Puts a value where a key with dots says.

    Args:
        values: A recipe's.
        key: Such as `stages.0.training.epochs`.
        value: What is put there.
        override: What the user wrote, for messages.

    Raises:
        FmriModelsError: There is no such place.
    """
    target: Any = values
    *parents, last = key.split(".")
    if len(parents) >= MAX_NESTING:
        raise FmriModelsError(f"The override {override!r} reaches {len(parents)} levels deep; correct its key.")
    for parent in parents:
        target = _step_into(target, parent, override)
    if isinstance(target, list):
        target[_list_index(target, last, override)] = value
    else:
        target[last] = value


def _step_into(target: Any, key: str, override: str) -> Any:
    place: Any = _list_index(target, key, override) if isinstance(target, list) else key
    found = opened(target[place]) if isinstance(target, list) else opened(target.get(place))
    if is_nothing(found):
        found = {}
    if not isinstance(found, dict | list):
        raise FmriModelsError(f"The override {override!r} reaches into {key!r}, which is a single value.")
    target[place] = found
    return found


def _list_index(target: list[Any], key: str, override: str) -> int:
    known = key.isascii() and key.isdigit() and len(key) <= _MAX_LIST_INDEX_DIGITS and int(key) < len(target)
    if not known:
        raise FmriModelsError(
            f"The override {override!r} asks for item {one_line(repr(key), 40)} of a list of {len(target)} (from 0)."
        )
    return int(key)
