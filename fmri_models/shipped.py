"""Where the files are that belong to the package but are no part of its code."""

from pathlib import Path

from .errors import FmriModelsError


def shipped_folder(name: str) -> Path:
    """Finds a folder that the wheel carries inside the package and a clone has beside it.

    Args:
        name: `"dataset_scripts"`, `"evaluate_metrics"`, `"model_cards"` or `"space"`.

    Raises:
        FmriModelsError: The folder is in neither place.
    """
    package = Path(__file__).parent
    # The wheel's first: beside an installed package lie the packages of others, which may have the same name.
    for folder in (package / "_shipped" / name, package.parent / name):
        if folder.is_dir():
            return folder
    raise FmriModelsError(f"The folder {name} is missing from what is installed in {package}; install it again.")
