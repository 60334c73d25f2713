"""The folder of a saved processor: where it is, what its configuration says, what a save makes superfluous."""

from pathlib import Path
from typing import Any

from ..errors import FmriModelsError
from ..hub_repository import fetch_folder, fetch_options, is_folder, is_repository_id
from ..names import check_name, one_line
from ..reading import checked, read_object
from ..remote_code import without_shim
from ..saving import check_schema
from .options import PROCESSOR_SCHEMA, config_type
from .statistics_file import FORMER_STATISTICS_FILE, STATISTICS_FILE

CONFIG_FILE = "preprocessor_config.json"
FOLDER_IN_PIPELINES = "processor"
MEND = "save the processor again, or take another copy of its folder"


def statistics_no_longer_needed(folder: Path, written: set[str]) -> list[str]:
    """Statistics of before: under their former name, and any where the processor that is saved has none."""
    names = (FORMER_STATISTICS_FILE, STATISTICS_FILE)
    return [name for name in names if name not in written and (folder / name).is_file()]


def no_processor(folder: Path, place: str) -> FmriModelsError:
    """What to say of a folder without a processor's configuration."""
    if (folder / "config.json").is_file():
        return FmriModelsError(
            f"{one_line(place)} is a network without a processor; that of a pipeline lies beside its brain model, in "
            "the folder processor."
        )
    if not folder.is_dir():
        return FmriModelsError(f"There is no folder {one_line(folder)} with a processor; check the path.")
    return FmriModelsError(
        f"There is no processor in {one_line(place)} ({CONFIG_FILE} is missing); every model needs the processor it "
        "was trained with: give its folder, or make one with `fmri-models fit-processor`."
    )


def local_folder(name_or_path: str, kwargs: dict[str, Any]) -> Path:
    """The folder itself, or that of the cache with what the Hub has of the processor."""
    path = Path(name_or_path)
    subfolder = kwargs.get("subfolder") or ""
    if is_folder(name_or_path):
        return path / subfolder
    if path.is_file():
        return path.parent
    if not is_repository_id(name_or_path):
        return path / subfolder
    prefix = f"{subfolder}/" if subfolder else ""
    names = (CONFIG_FILE, STATISTICS_FILE, FORMER_STATISTICS_FILE)
    places = (prefix, f"{prefix}{FOLDER_IN_PIPELINES}/")
    patterns = [f"{place}{name}" for place in places for name in names]
    return fetch_folder(name_or_path, patterns, **fetch_options(kwargs)) / subfolder


def read_config(folder: Path) -> dict[str, Any]:
    """What a saved processor's configuration says, each field of its type and nothing else.

    Raises:
        FmriModelsError: It is no configuration of a processor, or of a newer version.
    """
    file = folder / CONFIG_FILE
    values = without_shim(read_object(file, "processor's configuration", MEND))
    check_schema(values.get("fmri_schema", PROCESSOR_SCHEMA), PROCESSOR_SCHEMA, f"The processor's {CONFIG_FILE}")
    checked(values, config_type(), f"The processor's configuration {file}", MEND)
    names = values.get("subject_names", [])
    if len(set(names)) != len(names):
        raise FmriModelsError(f"The processor's configuration {file} has a subject twice; name each once; {MEND}.")
    for name in names:
        check_name(name, "subject's name")
    return values
