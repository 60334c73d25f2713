"""A person's own images as a data set: fMRIPrep's folder, betas with a table of events, or GLMsingle's output."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np

from ... import progress
from ...errors import FmriModelsError
from ...names import check_line, is_name, listed, one_line
from ...plain_values import ShortRepr
from ...reading import read_text
from ..published.dataset import KnownVoxels, PublishedDataset, PublishedSubject, Recording, windowed
from ..stimuli import StimulusSource, origin_of_pictures, read_stimuli
from ..table_terms import PICTURES_OF
from ..windows import Windows
from .bids import BidsFile, events_of, files_of, one_choice, ordered_numbers, sidecar
from .events import Events, cut_into_clips, read_events
from .masks import Mask, read_mask, region_labels
from .opening import CIFTI_ENDINGS, VOLUME_ENDINGS, required_package
from .series import HdfBetas, Series, VolumeSeries, blocks
from .single_trials import TrialModel, check_times, first_volume, single_trial_betas
from .surfaces import CiftiSeries, GiftiSeries

Kind = Literal["auto", "bold", "betas", "glmsingle"]
Form = Literal["volumes", "surfaces"]
_GLMSINGLE = ("TYPED_FITHRF_GLMDENOISE_RR", "TYPEC_FITHRF_GLMDENOISE", "TYPEB_FITHRF")
_BETAS = ("betas", "beta")
_MOST_SECONDS = 60.0
_FILM_ENDINGS = (".mp4", ".m4v", ".mkv", ".mov", ".avi", ".webm", ".mpg", ".mpeg", ".ogv")


@dataclass(frozen=True)
class OwnOptions:
    """What a person says of their own files.

    Args:
        kind: `"bold"` (fMRIPrep's `desc-preproc_bold`), `"betas"` (`…_betas.nii.gz`, a volume a trial, with a row of
            `…_events.tsv` each) or `"glmsingle"`; `"auto"` takes the first of which there are files.
        events: The raw BIDS folder, whose tables of events are not beside the images.
        space: Which of several, such as `T1w`.
        task: Which of several.
        subjects: These alone, such as `sub-01`.
        mask: A NIfTI mask, in which `{subject}` stands for `sub-01` …; fMRIPrep's brain masks if empty.
        roi_masks: A folder with a mask a region, likewise.
        atlas: A volume (or `.dlabel.nii`, or `{hemi}` for L and R in `.label.gii`) of labels, likewise.
        atlas_labels: Names of an atlas' numbers.
        stimuli: A folder or zip file of pictures; without it, stimuli have ids and categories alone.
        size: Pixels that these are cropped and resized to; 0 leaves them.
        column: Of the tables of events, which says what was shown.
        skip: What it says where nothing counts, such as `rest`.
        test_stimuli: A text file with a line a stimulus that is tested.
        test_types: Values of `trial_type` whose stimuli are tested.
        test_names: Patterns of the names of stimuli that are tested, such as `test_*`.
        same_name: Whether files of one name in several folders are one stimulus.
        confounds: nilearn's strategies for fMRIPrep's confounds; an empty list takes none.
        tr: Seconds from one volume to the next, where headers and sidecars have it wrong; 0 takes theirs.
        model: How betas are made of time points.
        license: Of the data, for the card.
        clip: Seconds of the clips into which longer events, such as films, are cut; 0 leaves events whole.
        clip_names: Whether a clip is named after its event alone, or also after its session and run, where tables call
            different films alike.
    """

    kind: Kind = "auto"
    events: Path | None = None
    space: str = ""
    task: str = ""
    subjects: Sequence[str] | None = None
    mask: str = ""
    roi_masks: str = ""
    atlas: str = ""
    atlas_labels: Path | None = None
    stimuli: Path | None = None
    size: int = 0
    column: str = ""
    skip: Sequence[str] = ()
    test_stimuli: Path | None = None
    test_types: Sequence[str] = ()
    test_names: Sequence[str] = ()
    same_name: bool = False
    confounds: Sequence[str] = ("motion",)
    tr: float = 0.0
    model: TrialModel = field(default_factory=TrialModel)
    license: str = ""
    clip: float = 0.0
    clip_names: Literal["event", "run"] = "event"


@dataclass(frozen=True, repr=False)
class _Run(ShortRepr):
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


def read_own(source: Path, form: Form, script: str, version: int, options: OwnOptions) -> PublishedDataset:
    """What a folder of a person's own images holds; nothing large is read yet.

    Args:
        source: fMRIPrep's folder, the BIDS folder that has it in `derivatives`, or another one with folders `sub-*`.
        form: Volumes or surfaces.
        script: Which script asks.
        version: Of the script.
        options: What is said of them.

    Raises:
        FmriModelsError: There are no such files, several of which one is to be chosen, or some that don't fit together.
    """
    if options.model.volumes < 1 or options.clip < 0:
        raise FmriModelsError(
            f"volumes is {options.model.volumes} and clip {options.clip:g}; expected at least one volume, and seconds "
            "from 0 on."
        )
    kind, root, files = _found(source, form, options)
    subjects: dict[str, list[BidsFile]] = {}
    for each in files:
        subjects.setdefault(_subject_of(root, each.path), []).append(each)
    chosen = {name: own for name, own in subjects.items() if options.subjects is None or name in options.subjects}
    # The shared step names those that there are.
    known = chosen or subjects
    people, runs = [], []
    for name, own in known.items():
        person = _subject(name, own, kind, form, source, root, options)
        people.append(person[:2])
        runs += person[2]
    ids = _ids(runs, options.same_name)
    column = listed(sorted({run.column for run in runs}))
    progress.say(f"What was shown is the column {column} of the tables of events.")
    numbers = ordered_numbers({run.session for run in runs})
    are_windows = kind == "bold" and options.model.method == "volumes"
    if are_windows:
        # Columns of a window are no voxels of one volume, so that no grid is kept.
        people = [(name, windowed(replace(voxels, grid=None), options.model.volumes)) for name, voxels in people]
    made = [
        PublishedSubject(name, voxels, _recordings([run for run in runs if run.subject == name], ids, numbers))
        for name, voxels in people
    ]
    how = "Betas as they were given."
    if kind == "bold":
        model = options.model
        how = (
            "Betas of single trials by least squares separate (nilearn's GLM, response "
            f"{model.hrf}, noise {model.noise})."
            if model.method == "lss"
            else "Volumes of a run without drifts and confounds, as a window a trial."
            if model.method == "volumes"
            else f"Betas are means of volumes from {model.lag:g} s after the onset on."
        )
    conditions = {run.column for run in runs} == {"trial_type"} and min(_run_counts(runs).values()) > 1
    origin = [] if options.stimuli is None else origin_of_pictures(options.stimuli)
    return PublishedDataset(
        name="own",
        description=f"{len(made)} subjects' own images ({form}), what was shown by the events' column {column}. {how}",
        license=options.license,
        citation="",
        script=script,
        script_version=version,
        subjects=made,
        stimuli=partial(_stimuli, runs, ids, options),
        test_sets=_test_sets(options, runs, ids),
        # Clips of a film follow each other, and their windows overlap.
        split_by="run"
        if (conditions or options.clip)
        and options.test_stimuli is None
        and not (options.test_types or options.test_names)
        else "stimulus",
        extra={"events_column": column, **({PICTURES_OF: origin} if origin else {})},
        windows=_windows(runs, options.model) if are_windows else None,
    )


def _windows(runs: Sequence[_Run], model: TrialModel) -> Windows:
    seconds = {round(run.seconds, 6) for run in runs}
    return Windows(seconds_per_sample=seconds.pop() if len(seconds) == 1 else None, lag_seconds=model.lag)


def _run_counts(runs: Sequence[_Run]) -> Counter[str]:
    """Subject ▶ how many runs."""
    return Counter({run.subject: 0 for run in runs}) + Counter(
        run.subject for run in runs for _ in set(run.runs or [0])
    )


# Finding files


def _found(source: Path, form: Form, options: OwnOptions) -> tuple[str, Path, list[BidsFile]]:
    """Kind, folder and files of the first kind of which there are files."""
    derivatives = source / "derivatives"
    roots = [source, derivatives / "fmriprep"]
    roots += sorted(path for path in derivatives.glob("*") if path.is_dir()) if derivatives.is_dir() else []
    kinds = [kind for kind in ("bold", "betas", "glmsingle") if options.kind in ("auto", kind)]
    for kind in kinds:
        if kind == "glmsingle" and form == "surfaces":
            continue
        for root in dict.fromkeys(roots):
            files = files_of(root, partial(_is_of, kind, form))
            if files and kind != "glmsingle":
                files = one_choice(files, "task", options.task, "task")
                files = one_choice(files, "space", options.space, "space")
                _check_once(files)
            if files:
                return kind, root, files
    raw = files_of(source, lambda each: each.suffix == "bold")
    also = f" It has {len(raw)} raw bold files: run fMRIPrep first." if raw and form == "volumes" else ""
    expected = {
        ("bold", "volumes"): "sub-*/[ses-*/]func/…_desc-preproc_bold.nii.gz",
        ("bold", "surfaces"): "sub-*/[ses-*/]func/…_bold.dtseries.nii or …_hemi-L_…_bold.func.gii",
        ("betas", "volumes"): "sub-*/…/…_betas.nii.gz",
        ("betas", "surfaces"): "sub-*/…/….dscalar.nii or …_hemi-L_…_betas.func.gii",
        ("glmsingle", "volumes"): f"sub-*/…/{_GLMSINGLE[0]}.hdf5 (or .mat)",
    }
    wanted = [text for (kind, of), text in expected.items() if of == form and kind in kinds]
    raise FmriModelsError(
        f"{one_line(source)} has no files of the names {'; '.join(wanted)} (in it, or in derivatives/*); give "
        f"fMRIPrep's folder, or the BIDS folder that has it.{also}"
    )


def _check_once(files: Sequence[BidsFile]) -> None:
    """Refuses several images of one run, such as of several resolutions or echoes."""
    seen: dict[tuple[str, ...], BidsFile] = {}
    for each in files:
        key = (*each.run_key, each.entities.get("hemi", ""))
        if key in seen:
            raise FmriModelsError(
                f"{one_line(seen[key].path.name)} and {one_line(each.path.name)} are of the same run; leave one of the "
                "two in the folder, or give another folder with links to those that count."
            )
        seen[key] = each


def _is_of(kind: str, form: Form, each: BidsFile) -> bool:
    if kind == "glmsingle":
        return each.path.name.partition(".")[0] in _GLMSINGLE and each.ending in (".hdf5", ".mat", ".npy")
    if "sub" not in each.entities:
        return False
    if form == "volumes":
        if each.ending not in VOLUME_ENDINGS:
            return False
        return (
            each.suffix in _BETAS
            if kind == "betas"
            else each.suffix == "bold" and each.entities.get("desc") == "preproc"
        )
    if each.ending in CIFTI_ENDINGS:
        return each.ending == (".dtseries.nii" if kind == "bold" else ".dscalar.nii")
    suffixes = ("bold",) if kind == "bold" else _BETAS
    return each.ending == ".func.gii" and each.suffix in suffixes and each.entities.get("hemi") in ("L", "R")


# One subject


def _subject_of(root: Path, path: Path) -> str:
    """Name of the folder `sub-…` that a file is in; GLMsingle's files have no other."""
    return path.relative_to(root).parts[0]


def _subject(
    name: str, files: Sequence[BidsFile], kind: str, form: Form, source: Path, root: Path, options: OwnOptions
) -> tuple[str, KnownVoxels, list[_Run]]:
    roots = [each for each in (options.events, root, source, *source.absolute().parents[:2]) if each is not None]
    if form == "surfaces":
        opened = _surfaces(name, files)
        voxels = _surface_voxels(name, [series for _, _, series in opened], options)
        return name, voxels, [_run(name, each, opening, kind, roots, options, []) for each, opening, _ in opened]
    mask = _mask(name, files, kind, options)
    regions = region_labels(mask, _place(options.roi_masks, name), _place(options.atlas, name), options.atlas_labels)
    # A label a voxel, from the mask on: what is in no region stays.
    space = files[0].entities.get("space", "")
    voxels = KnownVoxels(len(mask.positions), regions, mask.coordinates, space, grid=mask.grid)
    if kind == "glmsingle":
        return name, voxels, [_glmsingle(name, each, mask, roots, options) for each in _best_of_folders(files)]
    # By which a mask that was changed is noticed.
    used = {each.path: [mask.path if options.mask else _brain_mask(each)] for each in files}
    return (
        name,
        voxels,
        [
            _run(name, each, partial(VolumeSeries, each.path, mask), kind, roots, options, used[each.path])
            for each in files
        ],
    )


def _mask(name: str, files: Sequence[BidsFile], kind: str, options: OwnOptions) -> Mask:
    """The mask that is given, or what fMRIPrep's brain masks of all runs have in common."""
    given = _place(options.mask, name)
    if given is not None:
        return read_mask(given)
    mend = "give --option mask=FILE.nii.gz ({subject} in it stands for sub-01 …)"
    if kind != "bold":
        raise FmriModelsError(f"Which voxels of {name} are taken? Betas have no mask beside them; {mend}.")
    common: Mask | None = None
    for each in files:
        path = _brain_mask(each)
        if not path.is_file():
            raise FmriModelsError(f"{one_line(each.path)} has no brain mask {path.name} beside it; {mend}.")
        found = read_mask(path)
        common = found if common is None else common.both(found)
    assert common is not None
    if not common.chosen.any():
        raise FmriModelsError(f"The brain masks of the runs of {name} have no voxel in common; {mend}.")
    return common


def _brain_mask(file: BidsFile) -> Path:
    """Where fMRIPrep has the brain mask of a run."""
    return file.path.with_name(file.path.name.replace("_desc-preproc_bold", "_desc-brain_mask"))


def _place(text: str, subject: str) -> Path | None:
    """A path in which `{subject}` stands for a subject; None if it is empty."""
    return Path(text.replace("{subject}", subject)) if text else None


def _surfaces(name: str, files: Sequence[BidsFile]) -> list[tuple[BidsFile, Callable[[], Series], Series]]:
    """Each run, how its series is opened, and the series itself."""
    openings: list[tuple[BidsFile, Callable[[], Series]]] = []
    for each in files:
        if each.ending in CIFTI_ENDINGS:
            openings.append((each, partial(CiftiSeries, each.path)))
        elif each.entities["hemi"] == "L":
            other = each.path.with_name(each.path.name.replace("_hemi-L_", "_hemi-R_"))
            if not other.is_file():
                raise FmriModelsError(
                    f"{one_line(each.path)} has no right hemisphere {other.name} beside it; give both."
                )
            openings.append((each, partial(GiftiSeries, (each.path, other))))
    if not openings:
        raise FmriModelsError(f"{name} has right hemispheres without left ones; give both.")
    return [(each, opening, opening()) for each, opening in openings]


def _surface_voxels(name: str, series: Sequence[Series], options: OwnOptions) -> KnownVoxels:
    first = series[0]
    assert isinstance(first, CiftiSeries | GiftiSeries)
    for other in series:
        same = type(other) is type(first) and other.width == first.width
        if same and isinstance(first, CiftiSeries) and isinstance(other, CiftiSeries):
            same = other.order == first.order
        if not same:
            raise FmriModelsError(
                f"{one_line(other.files[0])} and {one_line(first.files[0])} of {name} have different vertices "
                f"({other.width:,} and {first.width:,}, in their order); choose one space with --option space=NAME."
            )
    atlas = options.atlas.replace("{subject}", name)
    if isinstance(first, CiftiSeries):
        regions = first.labels(Path(atlas)) if atlas else first.structures
        return KnownVoxels(
            first.width, regions, first.coordinates, "CIFTI" if np.isfinite(first.coordinates).any() else ""
        )
    if atlas and "{hemi}" not in atlas:
        raise FmriModelsError(
            "The atlas of a GIFTI surface is two files; write {hemi} for L and R, as atlas_{hemi}.label.gii."
        )
    regions = first.labels([Path(atlas.replace("{hemi}", side)) for side in "LR"]) if atlas else first.structures
    return KnownVoxels(first.width, regions)


# One run


def _run(
    subject: str,
    file: BidsFile,
    opening: Callable[[], Series],
    kind: str,
    roots: Sequence[Path],
    options: OwnOptions,
    used: Sequence[Path],
) -> _Run:
    table = read_events(events_of(file, roots), options.column, options.skip, timed=kind == "bold")
    if options.clip and kind == "bold":
        told = [f"{name}-{file.entities[name]}" for name in ("ses", "run") if name in file.entities]
        table = cut_into_clips(table, options.clip, "_".join(told) if options.clip_names == "run" else "")
    series = opening()
    seconds = 0.0
    files = [*series.files, table.path, *used]
    if kind == "bold":
        confounds = _confounds_file(file)
        files += [confounds] if confounds is not None and options.confounds else []
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
    return _Run(
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
    seconds = options.tr or _number(said, "RepetitionTime") or series.seconds
    if not 0 < seconds <= _MOST_SECONDS:
        raise FmriModelsError(
            f"Neither {one_line(file.path.name)} nor its sidecar says how many seconds lie between two volumes; give "
            "--option tr=SECONDS."
        )
    return seconds, _number(said, "StartTime")


def _number(values: Mapping[str, Any], name: str) -> float:
    value = values.get(name, 0)
    return float(value) if isinstance(value, int | float) and np.isfinite(value) else 0.0


def _confounds_file(file: BidsFile) -> Path | None:
    found = [
        path
        for path in sorted(file.path.parent.glob("*_desc-confounds_*.tsv"))
        if BidsFile.of(path).run_key == file.run_key
    ]
    return found[0] if found else None


def _confounds(file: BidsFile, count: int, options: OwnOptions) -> Any:
    """Confounds of fMRIPrep's by nilearn's strategies; None where none are asked for, or none are there."""
    strategies = list(options.confounds)
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


def _best_of_folders(files: Sequence[BidsFile]) -> list[BidsFile]:
    """Of each folder of GLMsingle's the file with the most of its steps, HDF5 before MATLAB before pickles."""
    best: dict[Path, BidsFile] = {}
    endings = (".hdf5", ".mat", ".npy")
    rank = lambda each: (_GLMSINGLE.index(each.path.name.partition(".")[0]), endings.index(each.ending))  # noqa: E731
    for each in files:
        folder = each.path.parent
        if folder not in best or rank(each) < rank(best[folder]):
            best[folder] = each
    return list(best.values())


def _glmsingle(subject: str, file: BidsFile, mask: Mask, roots: Sequence[Path], options: OwnOptions) -> _Run:
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
        tables = [read_events(beside[0], options.column, options.skip, timed=False)]
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
    return _Run(
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
            return [_in_order(read_events(each.path, options.column, options.skip)) for each in found]
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


# Stimuli


def _ids(runs: Sequence[_Run], same_name: bool = False) -> dict[str, str]:
    """What events say ▶ id of the stimulus: the name of a file without its ending, with characters that ids have.

    Raises:
        FmriModelsError: Two would have one id.
    """
    shown = sorted({text for run in runs for text in run.shown})
    stems = Counter(_stem(text) for text in shown)
    ids = {text: _name(_stem(text) if same_name or stems[_stem(text)] == 1 else _path(text)) for text in shown}
    others: dict[str, str] = {}
    for text, name in ids.items():
        if name in others and not (same_name and _stem(text) == _stem(others[name])):
            raise FmriModelsError(
                f"The stimuli {one_line(others[name], 80)!r} and {one_line(text, 80)!r} would both have the id "
                f"{name!r}; rename one."
            )
        others[name] = text
    return ids


def _path(text: str) -> str:
    path = PurePosixPath(text.replace("\\", "/"))
    return (
        path.with_suffix("").as_posix()
        if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif", ".webp")
        else path.as_posix()
    )


def _stem(text: str) -> str:
    return _path(text).rpartition("/")[2]


def _name(text: str) -> str:
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", text)[:128]
    return name if is_name(name) else f"s{name}"[:128]


def _recordings(runs: Sequence[_Run], ids: Mapping[str, str], sessions: Mapping[str, int]) -> list[Recording]:
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


def _stimuli(
    runs: Sequence[_Run], ids: Mapping[str, str], options: OwnOptions, shown: Collection[str]
) -> Iterator[Mapping[str, Any]]:
    """Records of the stimuli that were shown, with pictures where a folder has them."""
    categories = _categories(runs)
    wanted_ids = set(shown)
    texts = {name: text for text, name in ids.items() if name in wanted_ids}
    clips = _clips(runs, texts.values())
    if options.stimuli is None:
        for name, text in texts.items():
            yield {"stimulus_id": name, "image": None, "category": categories.get(text), **_clip_of(clips, text)}
        return
    source = read_stimuli(options.stimuli, options.size or None)
    wanted = _pictures(source, list(texts.values()))
    names = {picture: ids[text] for text, picture in wanted.items()}
    for record in source:
        if record["stimulus_id"] in names:
            text = texts[names[record["stimulus_id"]]]
            category = record["category"] or categories.get(text)
            yield {**record, "stimulus_id": ids[text], "category": category, **_clip_of(clips, text)}


def _clips(runs: Sequence[_Run], texts: Iterable[str]) -> dict[str, dict[str, Any]]:
    """What events say ▶ the clip that it is: a part of a film, or a file of one."""
    cut = {text: clip for run in runs for text, clip in run.clips.items()}
    return {**{text: {"file": text} for text in texts if text.lower().endswith(_FILM_ENDINGS)}, **cut}


def _clip_of(clips: Mapping[str, dict[str, Any]], text: str) -> dict[str, Any]:
    return {"clip": clips.get(text)} if clips else {}


def _pictures(source: StimulusSource, texts: Sequence[str]) -> dict[str, str]:
    """What events say ▶ id of the picture in its source.

    Raises:
        FmriModelsError: One has no picture, or several.
    """
    by_name: dict[str, list[str]] = {}
    for name, file in zip(source.ids, source.files or [""] * len(source), strict=True):
        path = PurePosixPath(file)
        for key in {name, file, path.name, path.stem, path.with_suffix("").as_posix()} - {""}:
            by_name.setdefault(key, []).append(name)
    found, missing = {}, []
    for text in texts:
        written = text.replace("\\", "/")
        keys = (written, *(written.split("/", number)[-1] for number in range(1, written.count("/") + 1)), _stem(text))
        fitting = next((by_name[key] for key in keys if key in by_name), [])
        if len(set(fitting)) == 1:
            found[text] = fitting[0]
        else:
            missing.append(text)
    if missing:
        raise FmriModelsError(
            f"{len(missing)} of {len(texts)} stimuli have no picture in {one_line(source.path)}, or several "
            f"({listed(missing)}); expected <stimulus>.png or .jpg, by what the events say."
        )
    if len(set(found.values())) < len(found):
        raise FmriModelsError(
            f"Two stimuli of the events have the same picture in {one_line(source.path)}; rename one."
        )
    return found


def _categories(runs: Sequence[_Run]) -> dict[str, str]:
    """What events say ▶ its category: the condition itself, or the `trial_type` that it always has."""
    types: dict[str, set[str]] = {}
    for run in runs:
        kinds = run.shown if run.column == "trial_type" else run.categories
        for text, kind in zip(run.shown, kinds, strict=True):
            types.setdefault(text, set()).add(kind)
    return {
        text: check_line(next(iter(kinds)), "category", 200)
        for text, kinds in types.items()
        if len(kinds) == 1 and kinds != {""}
    }


def _test_sets(options: OwnOptions, runs: Sequence[_Run], ids: Mapping[str, str]) -> dict[str, Collection[str]]:
    if options.test_types:
        return {"by_type": _shown_as(options.test_types, runs, ids)}
    if options.test_names:
        tested = {ids[text] for text in ids if any(fnmatchcase(_stem(text), each) for each in options.test_names)}
        if not tested:
            raise FmriModelsError(
                f"No stimulus has a name like {listed(options.test_names)}, which is tested; there are "
                f"{listed(sorted(ids.values()), 5)}."
            )
        return {"by_name": tested}
    if options.test_stimuli is None:
        return {}
    file = options.test_stimuli
    lines = read_text(file, "list of tested stimuli", "give a text file with a line a stimulus").splitlines()
    names = {ids.get(line.strip(), line.strip()) for line in lines if line.strip()}
    if unknown := sorted(names - set(ids.values())):
        raise FmriModelsError(
            f"{one_line(file)} names {len(unknown)} stimuli that no event shows ({listed(unknown)}); correct them."
        )
    return {"listed": names}


def _shown_as(types: Sequence[str], runs: Sequence[_Run], ids: Mapping[str, str]) -> set[str]:
    """Ids of the stimuli of events of some `trial_type`."""
    kinds = [(run.shown if run.column == "trial_type" else run.categories) for run in runs]
    found = {
        ids[text]
        for run, own in zip(runs, kinds, strict=True)
        for text, kind in zip(run.shown, own, strict=True)
        if kind in types
    }
    if not found:
        there = sorted({kind for own in kinds for kind in own} - {""})
        raise FmriModelsError(
            f"No event has the trial_type {listed(types)}, which is tested; there are {listed(there, 10) or 'none'}."
        )
    return found
