"""From arrays, events and pictures to a trial table."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ...errors import FmriModelsError
from ...names import check_line, did_you_mean, listed, one_line
from ...output_folders import TRIAL_TABLE, check_output_folder
from ...progress import bar
from ...seeds import check_seed
from .. import schema
from ..noise_ceiling import estimate_ncsnr, usual_repetitions
from ..picture_files import is_picture_name
from ..pictures import content_sha256
from ..splits import check_fraction
from ..stimuli import StimulusSource, pixels_of, read_stimuli
from ..table_terms import PICTURES_OF
from ..writer import TrialTableWriter
from .betas import SubjectBetas, choose_voxels, match_subjects
from .events import Events, read_events, without_spelling
from .parts import parts_of_events, repeats_sentence, say_unseen_sessions, tested_again
from .voxels import VoxelInfo, read_voxels_file


def prepare_arrays(
    fmri: str | Path | Mapping[str, str | Path],
    events: str | Path,
    stimuli: str | Path | None,
    out: str | Path,
    voxels: str | Path | Mapping[str, str | Path] | None = None,
    drop_bad_voxels: bool = False,
    seed: int = 0,
    name: str = "",
    test_fraction: float = 0.1,
    validation_fraction: float = 0.1,
    overwrite: bool = False,
    size: int | None = None,
    report: Callable[[str], None] = lambda sentence: None,
) -> None:
    """Writes a trial table from arrays.

    Args:
        fmri: A `.npy` file of (trials, voxels) numbers, or one a subject. Files are memory-mapped, never read whole.
        events: A CSV or TSV file with a row a trial in the order of the array (of each subject's array), with
            `stimulus_id` and, where known, `subject, session, run, repetition, split`. Trials without a stimulus have
            an empty `stimulus_id`, and become the part `unlabelled`.
        stimuli: A folder (or zip file) with `<stimulus_id>.png` or another picture; see `read_stimuli`. None where no
            trial has a stimulus.
        out: The folder to be written.
        voxels: A CSV file, or one a subject, with a row a voxel and any of `roi, x, y, z, ncsnr`.
        drop_bad_voxels: Leave out voxels that have NaN or infinite values in any trial, or never change.
        seed: Draws the split where the events have none.
        name: The table's name; by default that of the folder.
        test_fraction: Share of the stimuli that are tested, where the events have no split.
        validation_fraction: Share of the training stimuli for validation, where the events have none.
        overwrite: Replace a folder that has content.
        size: Crop pictures to their central square and resize it to `size` x `size`; as they are by default.
        report: Takes sentences that a person should read, also of what training would refuse.

    Raises:
        FmriModelsError: Anything about the files is not as described; nothing is written then.
    """
    for option, value in (("drop_bad_voxels", drop_bad_voxels), ("overwrite", overwrite)):
        if not isinstance(value, bool | np.bool_):
            raise FmriModelsError(f"{option} is {one_line(repr(value), 60)}; expected True or False.")
    seed = check_seed(seed)
    check_fraction(test_fraction, "test fraction")
    check_fraction(validation_fraction, "validation fraction", or_none=True)
    out = Path(out)
    name = check_line(name or out.absolute().name, "table's name (of --name, or of the folder)", most=200)
    inputs = [*_paths(fmri), events, *_paths(stimuli), *_paths(voxels)]
    check_output_folder(out, overwrite, TRIAL_TABLE, inputs)
    known = read_events(Path(events), report)
    subjects = match_subjects(fmri, known, Path(events))
    shown = known.shown
    source = _pictures(stimuli, size, shown, Path(events))
    for note in [] if source is None else source.notes():
        report(note)
    _check_voxel_names(voxels, [subject.name for subject in subjects])
    infos = {subject.name: _voxel_info(voxels, subject, report) for subject in subjects}
    for subject in subjects:
        choose_voxels(subject, drop_bad_voxels, report)
    # Only what was shown: a folder may have thousands of other pictures.
    groups = {
        record["stimulus_id"]: content_sha256(pixels_of(record))
        for record in bar(source or [], "Comparing pictures", unit="picture", delay=1)
        if record["stimulus_id"] in shown
    }
    repeated = tested_again(known, groups)
    parts = parts_of_events(known, subjects, groups, repeated, seed, test_fraction, validation_fraction, report)
    say_unseen_sessions(known, subjects, parts, report)
    with TrialTableWriter(
        out,
        name,
        overwrite=overwrite,
        repeats_stimuli=repeats_sentence(repeated) if repeated else "",
        created_by="fmri-models prepare arrays",
        inputs=inputs,
    ) as writer:
        pictures = bar(source or [], "Writing pictures", unit="picture", delay=1)
        writer.add_stimuli(record for record in pictures if record["stimulus_id"] in shown)
        for subject in bar(subjects, "Writing subjects", unit="subject", delay=1):
            _add_voxels(writer, subject, infos[subject.name], known, parts, report)
            _add_trials(writer, subject, known, parts)
        writer.extra["split"] = {"drawn": known.split is None, "seed": seed}
        if size is not None and source is not None:
            writer.extra["pictures"] = {"central_square_resized_to": source.size}
        if source is not None and source.origin:
            writer.extra[PICTURES_OF] = source.origin
    for sentence in [*writer.findings, *writer.notes]:
        report(sentence)


def _paths(files: str | Path | Mapping[str, str | Path] | None) -> list[str | Path]:
    if files is None:
        return []
    return list(files.values()) if isinstance(files, Mapping) else [files]


def _pictures(stimuli: str | Path | None, size: int | None, shown: set[str], events: Path) -> StimulusSource | None:
    """Where the pictures are; None of a table of fMRI alone.

    Raises:
        FmriModelsError: There are stimuli and no place of their pictures or not all of them, or a place and no stimuli.
    """
    if stimuli is None and shown:
        raise FmriModelsError(
            f"The events file {one_line(events)} has {len(shown)} stimuli ({listed(sorted(shown))}) and no pictures "
            "are given; give their folder with --stimuli."
        )
    if stimuli is not None and not shown:
        raise FmriModelsError(
            f"The events file {one_line(events)} has no stimulus_id in any row, and pictures are given "
            f"({one_line(stimuli)}); fill the column, or leave --stimuli out for a table of fMRI alone."
        )
    if stimuli is None:
        return None
    source = read_stimuli(stimuli, size)
    _check_pictures(shown, source)
    return source


def _check_pictures(shown: set[str], source: StimulusSource) -> None:
    """Refuses stimuli without a picture, and says what may have been meant."""
    missing = sorted(shown - set(source.ids))
    if not missing:
        return
    of_stem: dict[str, list[str]] = {}
    alike: dict[str, str] = {}
    for file, stimulus in zip(source.files, source.ids, strict=False):
        of_stem.setdefault(PurePosixPath(file).stem, []).append(file)
        alike.setdefault(_without_spelling(stimulus), stimulus)
    for stimulus in missing:
        if len(files := of_stem.get(stimulus, [])) > 1:
            raise FmriModelsError(
                f"The stimulus {stimulus} has {len(files)} pictures in {one_line(source.path)} "
                f"({listed(files)}); leave one of them there, or say in an index.csv with the columns file and "
                "stimulus_id which it is."
            )
    near = alike.get(_without_spelling(missing[0]))
    hint = f": the picture {near} is there, so write {near} for {missing[0]} in the events" if near else ""
    leads_nowhere = {PurePosixPath(file).stem: file for file in source.unreadable}
    if lost := [leads_nowhere[stimulus] for stimulus in missing if stimulus in leads_nowhere]:
        hint = f": {one_line(lost[0])} is a pipe or a link to no file, so put the picture itself there"
    raise FmriModelsError(
        f"{len(missing)} of {len(shown)} stimuli have no picture in {one_line(source.path)} "
        f"({listed(missing)}); expected <stimulus_id>.png or .jpg{hint}."
    )


def _without_spelling(stimulus: str) -> str:
    """An id without its ending, upper case, leading zeros, and what is no letter or digit."""
    name = PurePosixPath(stimulus).stem if is_picture_name(stimulus) else stimulus
    return re.sub(r"(?<![0-9])0+(?=[0-9])|[^a-z0-9]", "", name.casefold())


def _add_voxels(
    writer: TrialTableWriter,
    subject: SubjectBetas,
    info: VoxelInfo,
    events: Events,
    parts: np.ndarray,
    report: Callable[[str], None],
) -> None:
    chosen, width = subject.voxels, subject.fmri.shape[1]
    stimuli = np.array(events.stimulus_id)[subject.in_events]
    subject_parts = parts[subject.in_events]
    ncsnr, source = (None, None) if info.ncsnr is None else (info.ncsnr[chosen], schema.RELEASE)
    if ncsnr is None:
        sessions = np.array(events.session or [1] * len(events))[subject.in_events]
        training = np.flatnonzero(subject_parts == schema.TRAIN)

        def read(chosen: np.ndarray) -> np.ndarray:
            return subject.read(training[chosen])

        ncsnr = estimate_ncsnr(read, stimuli[training], sessions[training], len(chosen))
        source = None if ncsnr is None else schema.TRAINING_REPETITIONS
        if ncsnr is None and len(training):
            report(f"{subject.name}: no noise ceilings, because no training stimulus is repeated.")
    writer.add_voxels(
        subject.name,
        len(chosen),
        roi=None if info.roi is None else [info.roi[voxel] for voxel in chosen],
        coordinates=None if info.coordinates is None else info.coordinates[chosen],
        ncsnr=ncsnr,
        source=source,
        repetitions=usual_repetitions(stimuli[subject_parts == schema.TEST]),
        source_columns=chosen if len(chosen) < width else None,
        source_width=width,
    )


def _add_trials(writer: TrialTableWriter, subject: SubjectBetas, events: Events, parts: np.ndarray) -> None:
    stimuli = [events.stimulus_id[event] for event in subject.in_events]
    repetitions = _repetitions(events, subject.in_events, stimuli)

    def pick(values: list[Any] | None, chosen: np.ndarray) -> list[Any] | None:
        return None if values is None else [values[event] for event in subject.in_events[chosen]]

    for part in schema.FILE_PARTS:
        chosen = np.flatnonzero(parts[subject.in_events] == part)
        if len(chosen):
            writer.add_trials(
                subject.name,
                part,
                stimulus_ids=[stimuli[trial] for trial in chosen],
                sessions=pick(events.session, chosen),
                runs=pick(events.run, chosen),
                trials=chosen.tolist(),
                repetitions=[repetitions[trial] for trial in chosen],
                blocks=pick(events.block, chosen),
                imagery=pick(events.imagery, chosen),
                fmri=subject.chunks(chosen),
            )


def _repetitions(events: Events, in_events: np.ndarray, stimuli: Sequence[str]) -> list[int]:
    """From 0: as given (which may count from 1), or counted per stimulus in the order of the events."""
    if events.repetition is not None:
        pairs = zip(events.stimulus_id, events.repetition, strict=True)
        first = min((number for stimulus, number in pairs if stimulus), default=0)
        numbers = [events.repetition[event] - min(first, 1) for event in in_events]
        return [number if stimulus else 0 for number, stimulus in zip(numbers, stimuli, strict=True)]
    seen: Counter[str] = Counter()
    counted = []
    for stimulus in stimuli:
        counted.append(seen[stimulus])
        # Trials without a stimulus are no repetitions of each other.
        seen[stimulus] += stimulus != ""
    return counted


def _check_voxel_names(voxels: str | Path | Mapping[str, str | Path] | None, subjects: Sequence[str]) -> None:
    """Refuses files of voxels that are nobody's."""
    if not isinstance(voxels, Mapping):
        return
    if unknown := next((name for name in voxels if name not in subjects), None):
        near = [name for name in subjects if without_spelling(name) == without_spelling(str(unknown))]
        hint = f" Did you mean {near[0]!r}?" if near else did_you_mean(unknown, subjects)
        raise FmriModelsError(
            f"A file of voxels is given for {one_line(repr(unknown))}, of whom there are no betas; there are those of "
            f"{listed(sorted(subjects), 20)}.{hint}"
        )


def _voxel_info(
    voxels: str | Path | Mapping[str, str | Path] | None, subject: SubjectBetas, report: Callable[[str], None]
) -> VoxelInfo:
    if isinstance(voxels, Mapping):
        voxels = voxels.get(subject.name)
    return (
        VoxelInfo() if voxels is None else read_voxels_file(Path(voxels), subject.name, subject.fmri.shape[1], report)
    )
