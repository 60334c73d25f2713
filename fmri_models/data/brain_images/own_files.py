"""A person's own images as a data set: fMRIPrep's folder, betas with a table of events, or GLMsingle's output."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from ... import progress
from ...errors import FmriModelsError
from ...names import listed, one_line
from ..published.dataset import KnownVoxels, PublishedDataset, PublishedSubject, windowed
from ..stimuli import origin_of_pictures
from ..table_terms import PICTURES_OF
from ..windows import Windows
from .bids import BidsFile, ordered_numbers
from .masks import Mask, read_mask, region_labels
from .opening import CIFTI_ENDINGS
from .own_images import Form, find_images
from .own_options import SurfaceOptions, VolumeOptions
from .own_runs import Run, best_of_folders, gaps_in_runs, glmsingle_run, image_run, recordings_of
from .own_stimuli import stimulus_ids, stimulus_records, test_sets_of
from .series import Series, VolumeSeries
from .single_trials import TrialModel
from .surfaces import CiftiSeries, GiftiSeries


def read_own(source: Path, options: VolumeOptions | SurfaceOptions, script: str, version: int) -> PublishedDataset:
    """What a folder of a person's own images holds; nothing large is read yet.

    Args:
        source: fMRIPrep's folder, the BIDS folder that has it in `derivatives`, or another one with folders `sub-*`.
        options: What is said of them; their class says whether they are volumes or surfaces.
        script: Which script asks.
        version: Of the script.

    Raises:
        FmriModelsError: There are no such files, several of which one is to be chosen, or some that don't fit together.
    """
    if options.volumes < 1 or options.clip < 0:
        raise FmriModelsError(
            f"volumes is {options.volumes} and clip {options.clip:g}; expected at least one volume, and seconds from 0 "
            "on."
        )
    form: Form = "volumes" if isinstance(options, VolumeOptions) else "surfaces"
    kind, root, files = find_images(source, form, options)
    subjects: dict[str, list[BidsFile]] = {}
    for each in files:
        subjects.setdefault(_subject_of(root, each.path), []).append(each)
    chosen = {name: own for name, own in subjects.items() if options.subjects is None or name in options.subjects}
    # The shared step names those that there are.
    known = chosen or subjects
    people, runs = [], []
    for name, own in known.items():
        person = _subject(name, own, kind, source, root, options)
        people.append(person[:2])
        runs += person[2]
    ids = stimulus_ids(runs, options.same_name)
    column = listed(sorted({run.column for run in runs}))
    progress.say(f"What was shown is the column {column} of the tables of events.")
    numbers = ordered_numbers({run.session for run in runs})
    for sentence in gaps_in_runs(runs):
        progress.say(sentence)
    are_windows = kind == "bold" and options.betas == "volumes"
    if are_windows:
        # Columns of a window are no voxels of one volume, so that no grid is kept.
        people = [(name, windowed(replace(voxels, grid=None), options.volumes)) for name, voxels in people]
    made = [
        PublishedSubject(name, voxels, recordings_of([run for run in runs if run.subject == name], ids, numbers))
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
        stimuli=partial(stimulus_records, runs, ids, options),
        test_sets=test_sets_of(options, runs, ids),
        # Clips of a film follow each other, and their windows overlap.
        split_by="run"
        if (conditions or options.clip)
        and options.test_stimuli is None
        and not (options.test_types or options.test_names)
        else "stimulus",
        extra={"events_column": column, **({PICTURES_OF: origin} if origin else {})},
        windows=_windows(runs, options.model) if are_windows else None,
    )


def _windows(runs: Sequence[Run], model: TrialModel) -> Windows:
    seconds = {round(run.seconds, 6) for run in runs}
    return Windows(seconds_per_sample=seconds.pop() if len(seconds) == 1 else None, lag_seconds=model.lag)


def _run_counts(runs: Sequence[Run]) -> Counter[str]:
    """Subject ▶ how many runs."""
    return Counter({run.subject: 0 for run in runs}) + Counter(
        run.subject for run in runs for _ in set(run.runs or [0])
    )


def _subject_of(root: Path, path: Path) -> str:
    """Name of the folder `sub-…` that a file is in; GLMsingle's files have no other."""
    return path.relative_to(root).parts[0]


def _subject(
    name: str, files: Sequence[BidsFile], kind: str, source: Path, root: Path, options: VolumeOptions | SurfaceOptions
) -> tuple[str, KnownVoxels, list[Run]]:
    roots = [each for each in (options.events, root, source, *source.absolute().parents[:2]) if each is not None]
    if isinstance(options, SurfaceOptions):
        opened = _surfaces(name, files)
        voxels = _surface_voxels(name, [series for _, _, series in opened], options)
        return name, voxels, [image_run(name, each, opening, kind, roots, options, []) for each, opening, _ in opened]
    mask = _mask(name, files, kind, options)
    regions = region_labels(mask, _place(options.roi_masks, name), _place(options.atlas, name), options.atlas_labels)
    # A label a voxel, from the mask on: what is in no region stays.
    space = files[0].entities.get("space", "")
    voxels = KnownVoxels(len(mask.positions), regions, mask.coordinates, space, grid=mask.grid)
    if kind == "glmsingle":
        return name, voxels, [glmsingle_run(name, each, mask, roots, options) for each in best_of_folders(files)]
    # By which a mask that was changed is noticed.
    used = {each.path: [mask.path if options.mask else _brain_mask(each)] for each in files}
    return (
        name,
        voxels,
        [
            image_run(name, each, partial(VolumeSeries, each.path, mask), kind, roots, options, used[each.path])
            for each in files
        ],
    )


def _mask(name: str, files: Sequence[BidsFile], kind: str, options: VolumeOptions) -> Mask:
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


def _surface_voxels(name: str, series: Sequence[Series], options: SurfaceOptions) -> KnownVoxels:
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
