"""Runs of a person's own images: what each showed, and how its betas are read or made."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ... import progress
from ...errors import FmriModelsError
from ...names import listed, one_line
from ...plain_values import ShortRepr
from ..published.dataset import Recording
from .bids import BidsFile, events_of, one_choice, sidecar
from .events import Events, cut_into_clips, read_events
from .masks import Mask
from .opening import required_package
from .own_images import GLMSINGLE
from .own_options import OwnOptions
from .series import HdfBetas, Series, blocks
from .single_trials import TrialModel, check_times, first_volume, single_trial_betas

_MOST_SECONDS = 60.0
# What headers in single precision, and times that are rounded to milliseconds, differ by.
_SAME_SECONDS = 1e-2


@dataclass(frozen=True, repr=False)
class Run(ShortRepr):
    """Patterns that are read together, with what they showed."""

    subject: str
    session: str
    name: str
    number: str
    open: Callable[[], Series]
    read: Callable[[], Iterable[np.ndarray]]
    shown: list[str]
    categories: list[str]
    column: str
    runs: list[int] | None
    files: list[Path]
    seconds: float = 0.0
    clips: dict[str, dict[str, Any]] = field(default_factory=dict)


def recordings_of(runs: Sequence[Run], ids: Mapping[str, str], sessions: Mapping[str, int]) -> list[Recording]:
    """The runs of one subject, in their order."""
    recordings = []
    for session, number in sorted(sessions.items(), key=lambda pair: pair[1]):
        own = [run for run in runs if run.session == session]
        digits = [int(run.number) for run in own if run.number.isdigit()]
        unique = len(set(digits)) == len(own)
        for place, run in enumerate(own, 1):
            recordings.append(
                Recording(
                    name=f"session {session}, {run.name}",
                    read=run.read,
                    stimulus_ids=[ids[text] for text in run.shown],
                    session=number,
                    runs=run.runs if run.runs is not None else int(run.number) if unique else place,
                    files=run.files,
                )
            )
    return recordings


def gaps_in_runs(runs: Sequence[Run]) -> list[str]:
    """A sentence of each session whose numbered runs have a gap: nothing else tells that a run was not found."""
    numbers: dict[tuple[str, str], set[int]] = {}
    for run in runs:
        if run.number.isdecimal():
            numbers.setdefault((run.subject, run.session), set()).add(int(run.number))
    sentences = []
    for (subject, session), there in numbers.items():
        first, last = min(there), max(there)
        # Far apart, these are dates or the like, and no count.
        if last - first < 2 * len(there):
            missing = [str(number) for number in range(first, last + 1) if number not in there]
            if missing:
                sentences.append(
                    f"{subject}, session {session}: runs {first} to {last} are read without {', '.join(missing)}, "
                    "of which no image was found."
                )
    return sentences


def image_run(
    subject: str,
    file: BidsFile,
    opening: Callable[[], Series],
    kind: str,
    roots: Sequence[Path],
    options: OwnOptions,
    used: Sequence[Path],
) -> Run:
    """One image with its table of events; betas come as they are, or of a model of its time points."""
    table = read_events(events_of(file, roots), options.column, options.skip or (), timed=kind == "bold")
    if options.clip and kind == "bold":
        told = [f"{name}-{file.entities[name]}" for name in ("ses", "run") if name in file.entities]
        table = cut_into_clips(table, options.clip, "_".join(told) if options.clip_names == "run" else "")
    series = opening()
    seconds = 0.0
    files = [*series.files, table.path, *used]
    if kind == "bold":
        confounds = _confounds_file(file)
        files += [confounds] if confounds is not None and options.confounds != [] else []
        seconds, start = _clock(file, series, options)
        where = f"{subject}, {file.run_name}"
        table = _with_whole_windows(table, start + seconds * np.arange(series.count), options.model, where)
        check_times(table, start + seconds * np.arange(series.count), seconds, options.model, where)
        reading: Callable[[], Iterable[np.ndarray]] = partial(
            _betas_of_run, file, opening, table, seconds, start, options, where
        )
    else:
        if series.count != table.total:
            raise FmriModelsError(
                f"{one_line(file.path)} has {series.count} patterns, and {one_line(table.path)} {table.total} rows; "
                "expected a row a pattern."
            )
        reading = partial(_rows_of, opening, table.rows)
    return Run(
        subject, file.entities.get("ses", "1"), file.run_name, file.entities.get("run", ""), opening, reading,
        table.shown, table.categories, table.column, None, files, seconds, table.clips,
    )  # fmt: skip


def _with_whole_windows(events: Events, times: np.ndarray, model: TrialModel, where: str) -> Events:
    """Events whose windows end before the run does."""
    if model.method != "volumes":
        return events
    whole = [
        place
        for place, onset in enumerate(events.onsets)
        if onset + model.lag <= times[-1] + 1e-6 and first_volume(onset, times, model) + model.volumes <= len(times)
    ]
    if not whole:
        raise FmriModelsError(
            f"{where}: no event has a window of {model.volumes} volumes from {model.lag:g} s after it on, as the run "
            f"has {len(times)} volumes; give fewer with --option volumes=N, or another lag."
        )
    if len(whole) < len(events.onsets):
        progress.say(f"{where}: {len(events.onsets) - len(whole)} events without a whole window are left out.")
    return events.chosen(whole)


def _rows_of(opening: Callable[[], Series], rows: Sequence[int]) -> Iterator[np.ndarray]:
    return blocks(opening(), rows)


def _betas_of_run(
    file: BidsFile,
    opening: Callable[[], Series],
    events: Events,
    seconds: float,
    start: float,
    options: OwnOptions,
    where: str,
) -> Iterator[np.ndarray]:
    series = opening()
    confounds = _confounds(file, series.count, options)
    drift = options.model
    if confounds is not None and any(str(name).startswith("cosine") for name in confounds.columns):
        # fMRIPrep's own drifts, which the components of CompCor were computed with.
        drift = TrialModel(**{**vars(options.model), "high_pass": 0.0})
    return single_trial_betas(series, events, seconds, start, confounds, drift, where)


def _clock(file: BidsFile, series: Series, options: OwnOptions) -> tuple[float, float]:
    """Seconds from volume to volume, and of the first one on the events' clock."""
    said = sidecar(file.path)
    of_sidecar = _number(said, "RepetitionTime")
    seconds = options.tr or of_sidecar or series.seconds
    if not 0 < seconds <= _MOST_SECONDS:
        found = f"(the sidecar's RepetitionTime is {of_sidecar:g})" if of_sidecar else "(there is none)"
        raise FmriModelsError(
            f"Neither {one_line(file.path.name)} nor its sidecar says how many seconds lie between two volumes "
            f"{found}; give --option tr=SECONDS."
        )
    if not options.tr and series.seconds and abs(series.seconds - seconds) > _SAME_SECONDS * seconds:
        progress.say(
            f"{one_line(file.path.name)} says {series.seconds:g} s between two volumes, and its sidecar {seconds:g} s, "
            "which is taken; give --option tr=SECONDS if it is another."
        )
    return seconds, _number(said, "StartTime")


def _number(values: Mapping[str, Any], name: str) -> float:
    value = values.get(name, 0)
    return (
        float(value) if isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value) else 0.0
    )


def _confounds_file(file: BidsFile) -> Path | None:
    found = [
        path
        for path in sorted(file.path.parent.glob("*_desc-confounds_*.tsv"))
        if BidsFile.of(path).run_key == file.run_key
    ]
    return found[0] if found else None


def _confounds(file: BidsFile, count: int, options: OwnOptions) -> Any:
    """Confounds of fMRIPrep's by nilearn's strategies; None where none are asked for, or none are there."""
    strategies = ["motion"] if options.confounds is None else list(options.confounds)
    if not strategies:
        return None
    if _confounds_file(file) is None:
        if strategies != ["motion"]:
            raise FmriModelsError(
                f"{one_line(file.path)} has no …_desc-confounds_timeseries.tsv beside it; give --option confounds=[]."
            )
        progress.say(f"{one_line(file.path.name)} has no table of confounds beside it; none are taken away.")
        return None
    if "compcor" in strategies and "high_pass" not in strategies:
        strategies.append("high_pass")
    if unfit := sorted(set(strategies) - {"motion", "wm_csf", "global_signal", "compcor", "high_pass"}):
        raise FmriModelsError(
            f"There are no confounds {one_line(unfit[0], 60)!r} for single trials; choose of motion, wm_csf, "
            "global_signal, compcor, high_pass (scrubbing would take volumes away that trials are made of)."
        )
    # nilearn finds the table by the name of a volume.
    image = file.path
    try:
        found, _ = required_package("nilearn.interfaces.fmriprep").load_confounds(
            str(image), strategy=tuple(strategies), motion="basic", demean=True
        )
    except (ValueError, KeyError, OSError) as error:
        raise FmriModelsError(
            f"The confounds of {one_line(image.name)} can't be read ({one_line(error, 200)}); correct them, or give "
            "--option confounds=[]."
        ) from error
    if len(found) != count:
        raise FmriModelsError(
            f"The confounds of {one_line(image.name)} have {len(found)} rows for {count} volumes; export them again."
        )
    return found.fillna(0.0)


def best_of_folders(files: Sequence[BidsFile]) -> list[BidsFile]:
    """Of each folder of GLMsingle's the file with the most of its steps, HDF5 before MATLAB before pickles."""
    best: dict[Path, BidsFile] = {}
    endings = (".hdf5", ".mat", ".npy")
    rank = lambda each: (GLMSINGLE.index(each.path.name.partition(".")[0]), endings.index(each.ending))  # noqa: E731
    for each in files:
        folder = each.path.parent
        if folder not in best or rank(each) < rank(best[folder]):
            best[folder] = each
    return list(best.values())


def glmsingle_run(subject: str, file: BidsFile, mask: Mask, roots: Sequence[Path], options: OwnOptions) -> Run:
    """GLMsingle's betas with what its trials showed: of `events.tsv` beside them, or of the runs' tables."""
    if file.ending == ".npy":
        raise FmriModelsError(
            f"{one_line(file.path)} is a pickle, and reading one runs what it holds; run GLMsingle with wanthdf5=1, or "
            f"write {file.path.stem}.hdf5 of your own file with its array betasmd by h5py."
        )
    is_matlab = file.ending == ".mat"
    opening = partial(HdfBetas, file.path, mask, "modelmd" if is_matlab else "betasmd", is_matlab)
    series = opening()
    session = next((part.removeprefix("ses-") for part in file.path.parts if part.startswith("ses-")), "")
    beside = [path for path in (file.path.with_name(f"events{end}") for end in (".tsv", ".csv")) if path.is_file()]
    if beside:
        tables = [read_events(beside[0], options.column, options.skip or (), timed=False)]
        rows, total = tables[0].rows, tables[0].total
    else:
        tables = _events_of_session(subject, session, file, roots, options)
        total = sum(len(table.shown) for table in tables)
        rows = list(range(total))
    if total != series.count:
        raise FmriModelsError(
            f"{one_line(file.path)} has betas of {series.count} trials, and {len(tables)} tables of events "
            f"({listed(table.path.name for table in tables)}) {total}; expected those of GLMsingle's design, in the "
            "order in which they were shown: skip others with --option skip=[NAME], or write events.tsv beside it, a "
            "row a trial."
        )
    return Run(
        subject, session or "1", f"{file.path.parent.name}/{file.path.name}", "", opening,
        partial(_rows_of, opening, rows),
        [text for table in tables for text in table.shown], [text for table in tables for text in table.categories],
        tables[0].column, [number for number, table in enumerate(tables, 1) for _ in table.shown],
        [file.path, *(table.path for table in tables), mask.path],
    )  # fmt: skip


def _events_of_session(
    subject: str, session: str, file: BidsFile, roots: Sequence[Path], options: OwnOptions
) -> list[Events]:
    """The tables of all runs of a session, or of all sessions, each in the order of its onsets."""
    for root in roots:
        folder = root / subject / f"ses-{session}" if session else root / subject
        found = [BidsFile.of(path) for path in folder.rglob("*_events.tsv")] if folder.is_dir() else []
        found = one_choice(found, "task", options.task, "task") if found else found
        if found:
            found.sort(
                key=lambda each: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", each.path.name)]
            )
            return [_in_order(read_events(each.path, options.column, options.skip or ())) for each in found]
    raise FmriModelsError(
        f"There are no tables of events for {one_line(file.path)}; write events.tsv beside it, a row a trial, or give "
        "the raw BIDS folder with --option events=DIR."
    )


def _in_order(events: Events) -> Events:
    order = np.argsort(events.onsets, kind="stable").tolist()
    columns = {
        name: [getattr(events, name)[place] for place in order] for name in ("shown", "categories", "onsets", "rows")
    }
    return Events(**{**vars(events), **columns, "durations": [events.durations[place] for place in order]})
