"""What `table.json` may say: the schema by which it is read and written."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ..errors import FmriModelsError, system_errors_as_sentences
from ..names import check_line, is_name, listed, one_line
from ..reading import checked, read_object
from ..saving import check_schema
from ..swapping import recover
from . import schema
from .windows import AXES

_MEND = "prepare the table again, or copy it again"
_MOST_TEXT = 100_000
_MOST_BYTES = 2**50
_FILE_PATTERNS = {
    schema.TRIALS_FOLDER: re.compile(rf"({'|'.join(schema.FILE_PARTS)})-\d{{5,9}}-of-\d{{5,9}}"),
    schema.STIMULI_FOLDER: re.compile(r"stimuli-\d{5,9}-of-\d{5,9}"),
}


def _name(value: str) -> str:
    if not is_name(value):
        raise ValueError(
            "a name of 1 to 128 of the characters A-Z a-z 0-9 _ . - that starts with a letter, a digit or _"
        )
    return value


def _hash(value: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", value):
        raise ValueError("a SHA-256 of 64 hexadecimal digits")
    return value


def _different(values: list[str]) -> list[str]:
    if len(set(values)) != len(values):
        raise ValueError("names that are all different")
    return values


def _channels(value: int) -> int:
    if value not in (1, 3):
        raise ValueError("1 or 3")
    return value


_Subject = Annotated[str, AfterValidator(_name)]
_Count = Annotated[int, Field(ge=0, le=schema.MAX_TRIALS)]
_Text = Annotated[str, Field(max_length=_MOST_TEXT)]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")
    sha256: Annotated[str, AfterValidator(_hash)]
    bytes: Annotated[int, Field(ge=0, le=_MOST_BYTES)]


class _Trials(BaseModel):
    model_config = ConfigDict(extra="forbid")
    train: _Count
    validation: _Count
    test: _Count
    unlabelled: _Count = 0


def _square(values: list[list[float]]) -> list[list[float]]:
    if len(values) != 4 or any(len(row) != 4 for row in values):
        raise ValueError("four rows of four numbers")
    return values


class _Grid(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    shape: Annotated[list[Annotated[int, Field(ge=1, le=schema.MAX_VOXELS)]], Field(min_length=3, max_length=3)]
    affine: Annotated[list[list[float]], AfterValidator(_square)]
    sha256: Annotated[str, AfterValidator(_hash)]


def _axes(values: list[str]) -> list[str]:
    if tuple(values) not in AXES:
        raise ValueError(" or ".join(f"[{', '.join(axes)}]" for axes in AXES))
    return values


_Seconds = Annotated[float, Field(ge=-1e5, le=1e5, allow_inf_nan=False)]


class _Windows(BaseModel):
    model_config = ConfigDict(extra="ignore")
    axes: Annotated[list[str], AfterValidator(_axes)]
    shapes: dict[
        str, Annotated[list[Annotated[int, Field(ge=1, le=schema.MAX_VOXELS)]], Field(min_length=2, max_length=2)]
    ]
    seconds_per_sample: Annotated[_Seconds, Field(gt=0)] | None = None
    lag_seconds: _Seconds | None = None
    picture: _Text = ""


class _Metadata(BaseModel):
    # Writers add keys of their own.
    model_config = ConfigDict(extra="ignore")
    name: str
    simulated: bool
    description: _Text = ""
    license: _Text = ""
    source: _Text = ""
    package_version: _Text = ""
    created_by: _Text = ""
    default_split: _Text = schema.DEFAULT_SPLIT
    subjects: Annotated[list[_Subject], Field(min_length=1, max_length=10_000), AfterValidator(_different)]
    num_voxels: dict[str, Annotated[int, Field(ge=1, le=schema.MAX_VOXELS)]]
    trials: dict[str, _Trials]
    image_channels: Annotated[int, AfterValidator(_channels)]
    # From the beginning of a trial to that of the next, for hours of training in reports.
    seconds_per_trial: Annotated[float, Field(gt=0, le=1e5, allow_inf_nan=False)] | None = None
    findings: Annotated[list[_Text], Field(max_length=10_000)] = []
    # Of subjects whose betas came from volumes: which voxels they are.
    grids: dict[str, _Grid] = {}
    modality: Literal["fmri", "eeg"] = "fmri"
    # Where trials are windows of a recording, which are stored flat.
    windows: _Windows | None = None
    # What the design of the experiment does to results, which every report repeats.
    cautions: Annotated[list[_Text], Field(max_length=100)] = []
    files: dict[str, _File]


def read_metadata(path: Path) -> dict[str, Any]:
    """What `table.json` of a table's folder says; a replacement of the folder that was interrupted is undone first.

    Raises:
        FmriModelsError: There is no such folder, the file is missing, is not as the schema says, or was written by a
            newer version.
    """
    file = path / schema.TABLE_FILE
    with system_errors_as_sentences(path):
        recover(path)
        if not path.is_dir():
            what = "is a file, not a folder" if path.exists() else "does not exist"
            raise FmriModelsError(
                f"The trial table {one_line(path)} {what}; give the folder that `prepare` or `simulate` wrote."
            )
        if not file.exists():
            raise FmriModelsError(
                f"{one_line(path)} has no {schema.TABLE_FILE}, so it is no trial table; give the folder that `prepare` "
                "or `simulate` wrote."
            )
    metadata = read_object(file, "trial table's file", _MEND)
    check_schema(metadata.get("schema"), schema.SCHEMA_VERSION, f"The trial table {one_line(path)}")
    check_metadata(metadata, f"The trial table's file {one_line(file)}")
    return metadata


def check_metadata(metadata: Mapping[str, Any], what: str) -> None:
    """Refuses what no trial table says of itself.

    Args:
        metadata: What `table.json` holds.
        what: What it is, as the beginning of a sentence.

    Raises:
        FmriModelsError: Names the first place that is not as it should be.
    """
    known = checked(metadata, _Metadata, what, _MEND)
    check_line(known.name, "trial table's name")
    subjects = set(known.subjects)
    for key in ("num_voxels", "trials"):
        if set(metadata[key]) != subjects:
            raise FmriModelsError(
                f"{what} has {key} of {listed(metadata[key])}, and the subjects "
                f"{listed(known.subjects)}; expected the same; {_MEND}."
            )
    for name, shape in ({} if known.windows is None else known.windows.shapes).items():
        width = known.num_voxels.get(name)
        if width != shape[0] * shape[1]:
            raise FmriModelsError(
                f"{what} has windows of {shape[0]} x {shape[1]} of {one_line(name, 80)}, whose trials have "
                f"{width or 'no'} values; expected their product; {_MEND}."
            )
    for name in known.files:
        if not _belongs(name, subjects):
            raise FmriModelsError(f"{what} has the file {one_line(repr(name))}, which no trial table has; {_MEND}.")
    for name in _needed(known):
        if not any(file.startswith(name) for file in known.files):
            raise FmriModelsError(f"{what} has no file {name}*; {_MEND}.")


def _belongs(name: str, subjects: set[str]) -> bool:
    """Whether a table may have a file of that name, which then lies in its folder."""
    folder, *between, file = name.split("/") if "/" in name else ("", name)
    stem, ending = file[: -len(".parquet")], file[-len(".parquet") :]
    if ending != ".parquet":
        return False
    if folder == schema.TRIALS_FOLDER:
        inside = len(between) == 1 and between[0] in subjects
        return inside and _FILE_PATTERNS[folder].fullmatch(stem) is not None
    if between:
        return False
    if folder == schema.STIMULI_FOLDER:
        return _FILE_PATTERNS[folder].fullmatch(stem) is not None
    if folder in (schema.VOXELS_FOLDER, schema.NOISE_FREE_FOLDER):
        return stem in subjects
    return folder == schema.SPLITS_FOLDER and is_name(stem)


def _needed(known: _Metadata) -> list[str]:
    """Beginnings of the names of files without which nothing can be read."""
    trials = [
        f"{schema.TRIALS_FOLDER}/{subject}/{part}-"
        for subject, counts in known.trials.items()
        for part, count in counts.model_dump().items()
        if count
    ]
    voxels = [f"{schema.VOXELS_FOLDER}/{subject}.parquet" for subject in known.subjects]
    are_shown = any(getattr(counts, part) for counts in known.trials.values() for part in schema.SPLITS)
    return [*([f"{schema.STIMULI_FOLDER}/"] if are_shown else []), *voxels, *trials]
