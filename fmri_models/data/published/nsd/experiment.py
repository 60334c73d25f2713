"""What is known of the Natural Scenes Dataset, whatever form its files have, and how tables of it are read."""

import csv
import io
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ....errors import FmriModelsError
from ....names import listed, one_line
from ....reading import read_text
from ..dataset import PublishedSubject

SUBJECTS = 8
SESSIONS = (40, 40, 32, 30, 40, 32, 40, 30)
VOXELS = (15724, 14278, 15226, 13153, 13039, 17907, 12682, 14386)
TRIALS_OF_SESSION = 750
PICTURES = 73_000
SHARED = 1000
# Sessions that were public when the first papers were written.
FIRST_SESSIONS = 37
SHARED_OF_FIRST = 982
SHARED_1000, SHARED_982 = "shared1000", "shared982"
IMAGERY, IMAGERY_VISION, SYNTHETIC = "imagery", "imagery_vision", "synthetic"
# What integers of the release are divided by, for percent signal change.
SCALE = 300.0
BETAS = "betas_fithrf_GLMdenoise_RR"
SPACE = "func1pt8mm"
WHERE = "ask for access at naturalscenesdataset.org"
MEND = f"get the file again ({WHERE})"


@dataclass(frozen=True)
class FormOfNsd:
    """What lies in a folder.

    Args:
        form: What these files are, as the end of a sentence.
        subjects: Whose files there are.
        stimuli: Ids of pictures ▶ their records.
        test_sets: Test set ▶ ids of its pictures.
    """

    form: str
    subjects: Sequence[PublishedSubject]
    stimuli: Callable[[Collection[str]], Iterable[Mapping[str, Any]]]
    test_sets: Mapping[str, Sequence[str]]


def subject_names() -> list[str]:
    """`subj01` to `subj08`."""
    return [f"subj{number:02d}" for number in range(1, SUBJECTS + 1)]


def subject_number(subject: str) -> int:
    """The number in a subject's name, from 1."""
    return int(subject.removeprefix("subj"))


def stimulus_id(index: int) -> str:
    """Of a picture, by its place in the 73,000, from 0.

    Raises:
        FmriModelsError: There is no such place.
    """
    if not 0 <= index < PICTURES:
        raise FmriModelsError(f"The files name the picture {index} of {PICTURES} (from 0); {MEND}.")
    return f"nsd{index:05d}"


def stimulus_index(stimulus: str) -> int:
    """A picture's place in the 73,000, from 0."""
    return int(stimulus.removeprefix("nsd"))


def expected_counts(subject: str, most: int) -> dict[str, Any]:
    """How many trials of the first sessions, and voxels, were published of a subject."""
    number = subject_number(subject) - 1
    return {
        "expected_trials": TRIALS_OF_SESSION * min(most, SESSIONS[number]),
        "expected_voxels": VOXELS[number],
    }


def table_rows(path: Path, columns: Sequence[str], delimiter: str, *texts: str) -> list[tuple[Any, ...]]:
    """The rows of a table: whole numbers of some columns, then what others say."""
    text = read_text(path, "table", MEND)
    try:
        rows = [
            (*(int(row[name]) for name in columns), *(row[name] for name in texts))
            for row in csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
        ]
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise FmriModelsError(
            f"{one_line(path)} is no table with {listed([*columns, *texts])} in each row ({one_line(error, 80)}); "
            f"{MEND}."
        ) from error
    if not rows:
        raise FmriModelsError(f"{one_line(path)} has no rows of {listed([*columns, *texts])}; {MEND}.")
    return rows


def need(path: Path, what: str) -> None:
    """Refuses a folder without a file.

    Args:
        path: The file.
        what: What it holds, as the end of a sentence.

    Raises:
        FmriModelsError: It isn't there.
    """
    if not path.is_file():
        found = "is a folder, and not" if path.is_dir() else "is missing,"
        raise FmriModelsError(f"{one_line(path)} {found} {what}; {WHERE}.")


def natural_order(text: str) -> tuple[int, str]:
    """By which 10 comes after 9."""
    return (int(text) if text.isdigit() else 0, text)
