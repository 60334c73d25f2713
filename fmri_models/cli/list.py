"""`fmri-models list`: what there is by name, in this package and in installed ones that offer more."""

import argparse
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from ..records import DatasetRecord, GeneratorRecord, Method, OfferedRecord, PretrainedRecord
    from ..registry import Registry
    from ..training.recipe_files import RecipeRecord

    _Registry: TypeAlias = (
        Registry[Method] | Registry[GeneratorRecord] | Registry[PretrainedRecord] | Registry[DatasetRecord]
    )
    _Listed: TypeAlias = Method | GeneratorRecord | PretrainedRecord | RecipeRecord | DatasetRecord | OfferedRecord

WHAT = ("methods", "generators", "pretrained", "recipes", "datasets")
_TITLES = {"pretrained": "pretrained checkpoints", "datasets": "data sets"}
_INDENT = "  "
# What is told of each besides name, title and package, as attributes of its record.
_STATED = {
    "methods": ("paper", "license", "origin", "pretrained"),
    "generators": ("paper", "license", "origin", "size", "pretrained"),
    "pretrained": (
        "state", "method", "generator", "paper", "license", "origin", "size", "folder", "repository", "command",
        "may_be_shared",
    ),
    "recipes": ("method", "generator", "data", "paper"),
    "datasets": ("paper", "license", "origin"),
}  # fmt: skip


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "list",
        help="what there is by name: methods, image generators, checkpoints, recipes, data sets",
        description=(
            "List what commands and recipes know by name, with papers, licences, places and sizes, and the package of "
            "what another one has brought. Checkpoints are trained here, and then come with the package; converted, "
            "by the command that is shown, from what authors have published; or references to weights that image "
            "generators load from where others have published them."
        ),
        epilog="examples:\n  fmri-models list\n  fmri-models list pretrained\n  fmri-models list methods --json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", nargs="?", choices=WHAT, help="one of these alone")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> dict[str, Any]:
    found = {what: _records(what) for what in WHAT if args.what in (None, what)}
    for what, records in found.items():
        if args.what is None:
            print(f"{_TITLES.get(what, what)}:")
        _print(what, records, "" if args.what is not None else _INDENT)
    return found


def _records(what: str) -> list[dict[str, Any]]:
    from ..registry import DATASETS, GENERATORS, METHODS, PRETRAINED
    from ..training.recipe_files import list_recipes

    if what == "recipes":
        return [_described(what, each, each.package) for each in list_recipes()]
    registries: dict[str, _Registry] = {
        "methods": METHODS,
        "generators": GENERATORS,
        "pretrained": PRETRAINED,
        "datasets": DATASETS,
    }
    registry = registries[what]
    return [_described(what, each, registry.package(each.name)) for each in registry.all()]


def _described(what: str, record: "_Listed", package: str) -> dict[str, Any]:
    """A record as JSON has it; of one that its package has not been imported for, all else is None."""
    from ..records import OfferedRecord

    about = {"name": record.name, "title": record.title, "package": package}
    if isinstance(record, OfferedRecord):
        return {**about, "version": record.version, **dict.fromkeys(_STATED[what])}
    return {**about, **{key: _plain(getattr(record, key)) for key in _STATED[what]}}


def _plain(value: Any) -> Any:
    from ..records import Paper

    if isinstance(value, Paper):
        return {"cited_as": str(value), **vars(value), "authors": list(value.authors)}
    # Of checkpoints their names, under which they stand in a list of their own.
    return [each.name for each in value] if isinstance(value, tuple) else value


def _print(what: str, records: list[dict[str, Any]], indent: str) -> None:
    """Each by its name and title, and below what else is known; addresses and commands stay whole to be copied."""
    from ..entry_points import OWN_PACKAGE
    from ..names import one_line
    from ..terminal_text import terminal_width, wrapped

    below = indent + 2 * _INDENT
    for record in records:
        package = " ".join(part for part in (record["package"], record.get("version")) if part)
        origin = "" if record["package"] == OWN_PACKAGE else f" (of the package {package})"
        title = one_line(f"{record['title']}{origin}".strip())
        lines = wrapped(f"{record['name']}  {title}", terminal_width(), indent, below)
        for text in _facts(what, record):
            lines += wrapped(one_line(text), terminal_width(), below, below)
        print("\n".join([*lines, *(below + one_line(text) for text in _whole(what, record))]))


def _facts(what: str, record: dict[str, Any]) -> list[str]:
    """What is known of a record beside its title: what it is made of; its state, licence, size and paper."""
    from ..terminal_text import size_text

    stated = {key: value for key, value in record.items() if value}
    if what == "recipes":
        made_of = [f"{key} {stated[key]}" for key in ("method", "generator") if key in stated]
        return [", ".join([*made_of, *([f"for {stated['data']}"] if "data" in stated else [])])] if made_of else []
    facts = [
        stated.get("state", ""),
        _license(what, record),
        size_text(stated["size"]) if "size" in stated else "",
        stated["paper"]["cited_as"] if "paper" in stated else "",
    ]
    checkpoints = f"checkpoints: {', '.join(stated['pretrained'])}" if "pretrained" in stated else ""
    return [line for line in ("; ".join(filter(None, facts)), checkpoints) if line]


def _license(what: str, record: dict[str, Any]) -> str:
    """What is said of a licence; nothing of what has no weights, or of what nobody has imported."""
    license = record.get("license")
    if license:
        of_what = {"datasets": "licence: ", "methods": "original code: "}
        return f"{of_what.get(what, '')}{license}"
    if record.get("may_be_shared") is False:
        return "licence not stated, not to be passed on"
    has_none = license is None or what == "methods" or (what == "generators" and not record["size"])
    return "" if has_none else "licence not stated"


def _whole(what: str, record: dict[str, Any]) -> list[str]:
    paper = record.get("paper") if what == "methods" else None
    found = [paper["url"] if paper else None, record.get("origin"), record.get("command")]
    return [text for text in found if text]
