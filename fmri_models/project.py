"""Where this project is: addresses that its owner states once, in `[project.urls]` of pyproject.toml."""

import tomllib
from functools import cache
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

from .entry_points import OWN_PACKAGE

_REPOSITORY, _ISSUES, _HUB_ORGANISATION = "Repository", "Issues", "Hub organisation"


def repository() -> str:
    """Address of the project's repository; empty until an owner has stated it."""
    return _urls().get(_REPOSITORY, "")


def issue_tracker() -> str:
    """Address where problems are reported; empty until an owner has stated it."""
    return _urls().get(_ISSUES, "")


def hub_organisation() -> str:
    """Address of the project's organisation on the Hub; empty until an owner has stated it."""
    return _urls().get(_HUB_ORGANISATION, "")


def install_lines() -> list[str]:
    """Lines of a shell that install the package, each with a comment where one is needed."""
    if repository():
        return [f'pip install "{OWN_PACKAGE} @ git+{repository()}"']
    return [
        "pip install .                       # in a clone of fmri_models, or",
        "pip install fmri_models-*.whl       # a wheel of it, which `pip wheel --no-deps .` makes in a clone",
    ]


def how_to_install() -> str:
    """A sentence that says how the package is installed."""
    if repository():
        return f"Install it with `{install_lines()[0]}`."
    return "Install it with `pip install .` in a clone of fmri_models, or with `pip install` and a wheel of it."


def clone_folder() -> Path | None:
    """The clone that this package runs from; None for an installed package."""
    clone = Path(__file__).parents[1]
    return None if _stated_beside(clone / "pyproject.toml") is None else clone


@cache
def _urls() -> dict[str, str]:
    """The stated addresses by label: those of the clone that this is, else of the installed package."""
    stated = _stated_beside(Path(__file__).parents[1] / "pyproject.toml")
    if stated is None:
        stated = _installed()
    return {label: url.strip().rstrip("/") for label, url in stated.items()}


def _stated_beside(project: Path) -> dict[str, str] | None:
    # A clone says what is so now; metadata of an editable install are as old as the install.
    try:
        values = tomllib.loads(project.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    # Beside an installed package may lie anybody's file.
    stated = values.get("project")
    if not isinstance(stated, dict) or stated.get("name") != OWN_PACKAGE:
        return None
    return stated.get("urls", {})


def _installed() -> dict[str, str]:
    try:
        lines = metadata(OWN_PACKAGE).get_all("Project-URL") or []
    except PackageNotFoundError:
        return {}
    pairs = (line.partition(",") for line in lines)
    return {label.strip(): url for label, _comma, url in pairs}
