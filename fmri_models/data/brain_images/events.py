"""Tables of events, as BIDS has them: what was shown when, and which column says it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...errors import FmriModelsError
from ...names import did_you_mean, listed, one_line
from ...plain_values import ShortRepr
from ...reading import read_bytes
from ..csv_files import UNKNOWN, read_csv, read_number

# In this order, the first that a table has.
STIMULUS_COLUMNS = ("stimulus_id", "stim_file", "stim_id", "trial_type")
_MOST_EVENTS = 1_000_000


@dataclass(frozen=True, repr=False)
class Events(ShortRepr):
    """Events that show something.

    Args:
        path: The table.
        column: Which column says what was shown.
        shown: (n,) what it says, as it is written.
        categories: (n,) what `trial_type` says where another column is taken; empty where it says nothing.
        onsets: (n,) seconds from the run's first volume; empty in a table of betas that has none.
        durations: (n,) seconds, 0 where unknown; likewise.
        rows: (n,) which rows of the table they are.
        total: Rows of the table.
        clips: What is shown ▶ the clip that it is, where films were cut into clips.
    """

    path: Path
    column: str
    shown: list[str]
    categories: list[str]
    onsets: list[float]
    durations: list[float]
    rows: list[int]
    total: int
    clips: dict[str, dict[str, Any]] = field(default_factory=dict)

    def chosen(self, places: Sequence[int]) -> "Events":
        """Some of these events.

        Args:
            places: Which, from 0.
        """
        return replace(
            self,
            shown=[self.shown[place] for place in places],
            categories=[self.categories[place] for place in places],
            onsets=[self.onsets[place] for place in places],
            durations=[self.durations[place] for place in places],
            rows=[self.rows[place] for place in places],
        )


def cut_into_clips(events: Events, seconds: float, run: str = "") -> Events:
    """Events that are longer than a clip as clips, one after the other; what is left at an event's end is no clip.

    Args:
        events: Films, as a table has them.
        seconds: How long a clip is.
        run: Part of the clips' names where a table calls different films alike; none if empty.

    Raises:
        FmriModelsError: No event is as long as a clip.
    """
    shown, places, onsets, clips = [], [], [], {}
    for place, (text, onset, duration) in enumerate(zip(events.shown, events.onsets, events.durations, strict=True)):
        film = f"{text}_{run}" if run else text
        for number in range(int((duration + 1e-6) // seconds)):
            name = f"{film}-{number:04d}"
            clips[name] = {"file": film, "start": number * seconds, "seconds": seconds}
            shown.append(name)
            places.append(place)
            onsets.append(onset + number * seconds)
    if not shown:
        raise FmriModelsError(
            f"No event of {one_line(events.path)} is as long as a clip of {seconds:g} s; give a shorter one with "
            "--option clip=SECONDS, or 0 where each event is a clip."
        )
    durations = [seconds] * len(shown)
    return replace(events.chosen(places), shown=shown, onsets=onsets, durations=durations, clips=clips)


def read_events(path: Path, column: str = "", skipped: Sequence[str] = (), timed: bool = True) -> Events:
    """Reads a table of events; rows in which nothing was shown (blank, n/a, or one of `skipped`) are left out.

    Args:
        path: A `.tsv` or `.csv` file.
        column: Which column says what was shown; the first of `STIMULUS_COLUMNS` that is there if empty.
        skipped: What is no trial, such as `rest`.
        timed: Whether onsets are needed.

    Raises:
        FmriModelsError: The table has no such column, an onset or duration is no number, or nothing was shown.
    """
    what = f"The table of events {one_line(path)}"
    data = read_bytes(path, "table of events", "give a BIDS table, _events.tsv")
    columns = read_csv(
        data,
        what,
        ["onset"] if timed else [],
        _MOST_EVENTS,
        known=["onset", "duration", *STIMULUS_COLUMNS, *([column] if column else [])],
        numbers=["onset", "duration"],
    )
    chosen = _column(columns, column, what)
    rows = [row for row, text in enumerate(columns[chosen]) if _is_shown(text, skipped)]
    if not rows:
        raise FmriModelsError(
            f"{what} shows nothing: its column {chosen!r} has no value that counts; choose another one with --option "
            "column=NAME."
        )
    types = columns.get("trial_type") if chosen != "trial_type" else None
    categories = ["" if types is None or not _is_shown(types[row]) else types[row] for row in rows]
    onsets = [_seconds(columns, "onset", row, what) for row in rows] if "onset" in columns else []
    durations = [_seconds(columns, "duration", row, what, 0.0) for row in rows] if onsets else []
    shown = [columns[chosen][row] for row in rows]
    return Events(path, chosen, shown, categories, onsets, durations, rows, len(columns[chosen]))


def _column(columns: dict[str, list[str]], column: str, what: str) -> str:
    if column:
        if column not in columns:
            raise FmriModelsError(
                f"{what} has no column {one_line(repr(column), 80)}; it has {listed(columns, 20)}."
                f"{did_you_mean(column, list(columns))}"
            )
        return column
    # A column of nothing but n/a, as stim_file often is, says nothing.
    for name in STIMULUS_COLUMNS:
        if any(_is_shown(text) for text in columns.get(name, ())):
            return name
    raise FmriModelsError(
        f"{what} has none of the columns {', '.join(STIMULUS_COLUMNS)} with a value; it has {listed(columns, 20)}: say "
        "with --option column=NAME which one says what was shown."
    )


def _is_shown(text: str, skipped: Sequence[str] = ()) -> bool:
    return bool(text) and text.lower() not in UNKNOWN and text not in skipped


def _seconds(columns: dict[str, list[str]], name: str, row: int, what: str, unknown: float | None = None) -> float:
    text = columns[name][row] if name in columns else ""
    if unknown is not None and (not text or text.lower() in UNKNOWN):
        return unknown
    try:
        return read_number(text)
    except ValueError as error:
        raise FmriModelsError(
            f"{what}, row {row + 1}: the {name} is {one_line(repr(text), 40)}; expected seconds."
        ) from error
