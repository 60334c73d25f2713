"""`fmri-models list`: what there is by name, in this package and in installed ones that offer more."""

import argparse
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from ..records import DatasetRecord, GeneratorRecord, Method
    from ..registry import Registry

    _Registry: TypeAlias = Registry[Method] | Registry[GeneratorRecord] | Registry[DatasetRecord]

WHAT = ("methods", "generators", "recipes", "datasets")
_INDENT = "  "


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "list",
        help="what there is by name: methods, image generators, recipes, data sets",
        description="List what commands and recipes know by name, and the package of what another one has brought.",
        epilog="examples:\n  fmri-models list\n  fmri-models list methods --json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", nargs="?", choices=WHAT, help="one of these alone")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> dict[str, Any]:
    found = {what: _records(what) for what in WHAT if args.what in (None, what)}
    for what, records in found.items():
        if args.what is None:
            print(f"{what.replace('datasets', 'data sets')}:")
        _print(records, "" if args.what is not None else _INDENT)
    return found


def _records(what: str) -> list[dict[str, str]]:
    from ..records import OfferedRecord
    from ..registry import DATASETS, GENERATORS, METHODS
    from ..training.recipe_files import list_recipes

    if what == "recipes":
        return [{"name": each.name, "title": each.title, "package": each.package} for each in list_recipes()]
    registries: dict[str, _Registry] = {"methods": METHODS, "generators": GENERATORS, "datasets": DATASETS}
    registry = registries[what]
    found = []
    for each in registry.all():
        version = {"version": each.version} if isinstance(each, OfferedRecord) else {}
        found.append({"name": each.name, "title": each.title, "package": registry.package(each.name), **version})
    return found


def _print(records: list[dict[str, str]], indent: str) -> None:
    from ..entry_points import OWN_PACKAGE
    from ..terminal_text import text_list

    entries = []
    for record in records:
        package = " ".join(part for part in (record["package"], record.get("version")) if part)
        origin = "" if record["package"] == OWN_PACKAGE else f"(of the package {package})"
        entries.append((record["name"], f"{record['title']} {origin}".strip()))
    print(text_list(entries, indent))
