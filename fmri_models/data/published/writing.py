"""The step that all data sets share: from a script's description of the files to a trial table."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from os import SEEK_END
from pathlib import Path
from typing import Any

import numpy as np

from ... import progress
from ...errors import FmriModelsError
from ...names import check_line, did_you_mean, listed, one_line
from ...processing.image_grid import positions_sha256
from .. import schema
from ..noise_ceiling import estimate_ncsnr, usual_repetitions
from ..pictures import encode_picture
from ..split_trials import SplitTrials, draw_validation
from ..splits import split_by_run, split_by_stimulus, split_kfold
from ..stimuli import fit_square
from ..windows import Windows, place_axis, place_numbers
from ..writer import TrialTableWriter
from .chosen_trials import ChosenTrials
from .dataset import KnownVoxels, PublishedDataset, PublishedSubject
from .extraction import ExtractedSubject, discard, extract, working_alone
from .options import SharedOptions
from .record import prepared_record

_MOST_MISSING = 5
_TABLES = (".txt", ".csv", ".tsv")


def write_dataset(
    dataset: PublishedDataset,
    source: Path,
    out: Path,
    options: SharedOptions,
    own_options: Mapping[str, Any] | None = None,
) -> None:
    """Reads what a script has described, and writes the trial table.

    Memory holds a block of trials, whatever the data set's size. What was read is kept beside the table until that is
    there, so that an interrupted call goes on where it was.

    Args:
        dataset: What there is.
        source: The files, as they were given.
        out: The folder to be written.
        options: What all data sets have.
        own_options: The reader's own, for the record.

    Raises:
        FmriModelsError: Something that the paper counts is missing, a run is empty or damaged, or an option names
            what there is not.
    """
    options = replace(options, fold_by=dataset.split_by) if options.fold_by == "auto" else options
    subjects = _chosen_subjects(dataset, options)
    _check_counts(dataset, subjects, options)
    tested = _test_set(dataset, options)
    _say_of_cut_tables(_files(subjects))
    with working_alone(out):
        extracted = extract(dataset, subjects, out, own_options or {})
        notes = _write(dataset, extracted, tested, source, out, options, own_options or {})
        discard(out)
    # What is found wrong, the command says.
    for sentence in notes:
        progress.say(sentence)


def _write(
    dataset: PublishedDataset,
    extracted: Sequence[ExtractedSubject],
    tested: Collection[str] | None,
    source: Path,
    out: Path,
    options: SharedOptions,
    own_options: Mapping[str, Any],
) -> list[str]:
    """Writes the table of what was read; sentences on it."""
    with TrialTableWriter(
        out,
        check_line(options.name or dataset.name, "table's name", most=200),
        description="\n".join([dataset.description, *dataset.notes, *_notes_on_options(options)]),
        license=dataset.license,
        source=dataset.citation,
        overwrite=options.overwrite,
        repeats_stimuli=dataset.repeats_stimuli,
        created_by=dataset.script,
        inputs=[source],
        modality=dataset.modality,
        cautions=dataset.cautions,
    ) as writer:
        shown = sorted({name for each in extracted for name in set(each.stimulus_ids.tolist())} - {""})
        pictures = (_fitted(record, options.size) for record in dataset.stimuli(shown))
        writer.add_stimuli(progress.bar(pictures, "Writing pictures", unit="picture", total=len(shown)))
        groups = {name: writer.content_hashes.get(name) or name for name in shown}
        parts = _parts(extracted, tested, groups, options, writer)
        for each in extracted:
            _add_subject(writer, each, parts[each.name], options, dataset.windows)
        _add_folds(writer, extracted, groups, options)
        writer.extra.update(_record(dataset, extracted, source, options, own_options))
    return list(writer.notes)


def _fitted(record: Mapping[str, Any], size: int) -> Mapping[str, Any]:
    """The record with its picture's central square, resized to so many pixels; as it is if none are asked for."""
    picture, name, clip = record.get("image"), str(record["stimulus_id"]), record.get(schema.CLIP)
    if not size or picture is None:
        return record
    fitted = {**record, "image": fit_square(encode_picture(picture, name), size, name)}
    if clip is not None and clip.get("frames") is not None:
        frames = [fit_square(encode_picture(frame, name), size, name) for frame in clip["frames"]]
        fitted[schema.CLIP] = {**clip, "frames": frames}
    return fitted


def _chosen_subjects(dataset: PublishedDataset, options: SharedOptions) -> list[PublishedSubject]:
    known = {each.name: each for each in dataset.subjects}
    if not known:
        if options.subjects:
            raise FmriModelsError(
                f"No files of {listed(options.subjects, 40)} of {dataset.name} were found; check --source and subjects."
            )
        raise FmriModelsError(f"No subject of {dataset.name} was found; check --source.")
    for name in options.subjects or ():
        if name not in known:
            raise FmriModelsError(
                f"There is no subject {one_line(repr(name), 80)} of {dataset.name} in the files; there are "
                f"{', '.join(known)}.{did_you_mean(name, list(known))}"
            )
    chosen = [each for each in known.values() if options.subjects is None or each.name in options.subjects]
    for each in chosen:
        names = [recording.name for recording in each.recordings]
        if len(set(names)) < len(names):
            raise FmriModelsError(f"{each.name} has the recording {names[0]!r} twice; its script names each once.")
    return chosen


def _check_counts(dataset: PublishedDataset, subjects: Sequence[PublishedSubject], options: SharedOptions) -> None:
    """Compares what there is with what the data set's paper counts."""
    differs = []
    for each in subjects:
        trials = sum(len(recording.stimulus_ids) for recording in each.recordings)
        if each.expected_trials is not None and trials != each.expected_trials:
            differs.append(f"{each.name} has {trials:,} trials, and not {each.expected_trials:,}")
        if each.expected_voxels is not None and each.voxels.count != each.expected_voxels:
            differs.append(f"{each.name} has {each.voxels.count:,} voxels, and not {each.expected_voxels:,}")
        differs += each.differs
    if differs and not options.incomplete:
        raise FmriModelsError(
            f"These are not the files of {dataset.name} as published: {_joined(differs)}. "
            "Give the rest, or write what is there with --option incomplete=yes."
        )
    for sentence in differs:
        progress.say(f"Incomplete: {sentence}.")


def _joined(differs: Sequence[str]) -> str:
    """The first sentences and how many more there are; they have commas of their own."""
    more = len(differs) - _MOST_MISSING
    return "; ".join([*differs[:_MOST_MISSING], *([f"and {more} more"] if more > 0 else [])])


def _test_set(dataset: PublishedDataset, options: SharedOptions) -> Collection[str] | None:
    if not dataset.test_sets:
        if options.test_set:
            raise FmriModelsError(f"{dataset.name} has one test set alone; leave --option test_set away.")
        return None
    name = options.test_set or next(iter(dataset.test_sets))
    if name not in dataset.test_sets:
        raise FmriModelsError(
            f"{dataset.name} has no test set {one_line(repr(name), 80)}; it has {', '.join(dataset.test_sets)}."
            f"{did_you_mean(name, list(dataset.test_sets))}"
        )
    return set(dataset.test_sets[name])


def _parts(
    extracted: Sequence[ExtractedSubject],
    tested: Collection[str] | None,
    groups: Mapping[str, str],
    options: SharedOptions,
    writer: TrialTableWriter,
) -> dict[str, np.ndarray]:
    """Subject ▶ (trials,) the part of the default split: the release's, that of the test set, or drawn."""
    parts = {each.name: _part_of_release(each, tested) for each in extracted}
    if any("" in values for values in parts.values()):
        parts = _drawn(extracted, parts, groups, options, writer)
    if options.validation_fraction and not any(schema.VALIDATION in values for values in parts.values()):
        _draw_validation(extracted, parts, groups, options)
    return parts


def _part_of_release(subject: ExtractedSubject, tested: Collection[str] | None) -> np.ndarray:
    parts = subject.parts.copy()
    for row, (part, stimulus) in enumerate(zip(parts, subject.stimulus_ids, strict=True)):
        if stimulus == "":
            parts[row] = schema.UNLABELLED
        elif not part and tested is not None:
            parts[row] = schema.TEST if stimulus in tested else schema.TRAIN
    return parts


def _split_trials(extracted: Sequence[ExtractedSubject], groups: Mapping[str, str]) -> SplitTrials:
    """The labelled trials of all subjects, in their order."""
    subjects: list[str] = []
    trials: list[int] = []
    stimuli: list[str] = []
    runs: list[tuple[int, int]] = []
    imagery: list[bool] = []
    for each in extracted:
        rows = np.flatnonzero(each.stimulus_ids != "")
        subjects += [each.name] * len(rows)
        trials += rows.tolist()
        stimuli += each.stimulus_ids[rows].tolist()
        runs += zip(each.sessions[rows].tolist(), each.runs[rows].tolist(), strict=True)
        imagery += each.imagery[rows].tolist()
    return SplitTrials(subjects, trials, stimuli, runs, groups, {}, imagery)


def _drawn(
    extracted: Sequence[ExtractedSubject],
    parts: dict[str, np.ndarray],
    groups: Mapping[str, str],
    options: SharedOptions,
    writer: TrialTableWriter,
) -> dict[str, np.ndarray]:
    trials = _split_trials(extracted, groups)
    if options.fold_by == "run":
        drawn = split_by_run(trials, options.seed, validation_fraction=options.validation_fraction)
    else:
        drawn = split_by_stimulus(trials, options.seed, validation_fraction=options.validation_fraction)
    first = [row for row in drawn.table.to_pylist() if row["fold"] == 0]
    for row in first:
        parts[row["subject"]][row["trial"]] = row["split"]
    # By run, stimuli repeat by design; the table says so.
    writer.repeats_stimuli = writer.repeats_stimuli or drawn.repeats_stimuli
    progress.say(f"No part is published: the split is drawn by {drawn.by} from seed {options.seed}.")
    for note in drawn.notes:
        progress.say(note)
    return parts


def _draw_validation(
    extracted: Sequence[ExtractedSubject],
    parts: dict[str, np.ndarray],
    groups: Mapping[str, str],
    options: SharedOptions,
) -> None:
    trials = _split_trials(extracted, groups)
    own = np.array([parts[name][row] for name, row in zip(trials.subjects, trials.trials, strict=True)])
    shown = np.array([groups[name] for name in trials.stimulus_ids])
    repeated = set(shown[own == schema.TEST].tolist()) & set(shown[own == schema.TRAIN].tolist())
    chosen = draw_validation(
        trials,
        np.flatnonzero(own == schema.TRAIN),
        options.validation_fraction,
        np.random.default_rng(options.seed),
        repeated,
    )
    for place in chosen:
        parts[trials.subjects[place]][trials.trials[place]] = schema.VALIDATION


def _add_subject(
    writer: TrialTableWriter,
    subject: ExtractedSubject,
    parts: np.ndarray,
    options: SharedOptions,
    windows: Windows | None = None,
) -> None:
    voxels = subject.subject.voxels
    columns = _columns(subject, options, windows)
    if voxels.window is not None and windows is not None:
        kept = list(voxels.window)
        kept[place_axis(windows.axes)] = len(columns) // voxels.window[1 - place_axis(windows.axes)]
        writer.add_windows(subject.name, kept, windows)
    chosen = ChosenTrials.of(subject, columns, parts, options)
    ncsnr, ceiling, source, repetitions = _ceilings(chosen, voxels, columns)
    dropped = len(columns) < voxels.count
    writer.add_voxels(
        subject.name,
        len(columns),
        roi=None if voxels.roi is None else [voxels.roi[column] for column in columns],
        coordinates=None if voxels.coordinates is None else voxels.coordinates[columns],
        ncsnr=ncsnr,
        noise_ceiling=ceiling,
        source=source,
        repetitions=repetitions,
        space=voxels.space,
        source_columns=columns if dropped else None,
        source_width=voxels.count if dropped else None,
    )
    for part in schema.FILE_PARTS:
        rows = chosen.of_part(part)
        if len(rows.stimulus_ids):
            writer.add_trials(
                subject.name,
                part,
                stimulus_ids=rows.stimulus_ids,
                fmri=progress.bar(
                    _finite(rows.blocks(), subject.name, part), f"Writing {subject.name}, {part}", unit="block", delay=1
                ),
                sessions=rows.sessions,
                runs=rows.runs,
                trials=rows.numbers,
                imagery=rows.imagery if subject.imagery.any() else None,
            )


def _finite(blocks: Iterator[np.ndarray], subject: str, part: str) -> Iterator[np.ndarray]:
    """The blocks as they are.

    Raises:
        FmriModelsError: One has NaN or infinite values.
    """
    rows = 0
    for block in blocks:
        known = np.isfinite(block)
        if not known.all():
            voxels = np.flatnonzero(~known.all(axis=0))
            trials = np.flatnonzero(~known.all(axis=1))
            raise FmriModelsError(
                f"{subject}, {part}: {len(voxels)} of {block.shape[1]} voxels are NaN or infinite in some trials "
                f"(first: trial {rows + int(trials[0])} of the part, voxel {int(voxels[0])}); leave such voxels out "
                "with --option drop_bad_voxels=yes, or give a mask without them."
            )
        rows += len(block)
        yield block


def _columns(subject: ExtractedSubject, options: SharedOptions, windows: Windows | None = None) -> np.ndarray:
    """Which voxels are written: of the regions asked for, without bad ones where somebody says so."""
    voxels = subject.subject.voxels
    kept = np.ones(voxels.count, dtype=bool)
    if options.rois:
        known = sorted({*(voxels.roi or ()), *voxels.regions} - {""})
        for name in options.rois:
            if name not in known:
                raise FmriModelsError(
                    f"{subject.name} has no region {one_line(repr(name), 80)}; it has {listed(known, 40) or 'none'}."
                    f"{did_you_mean(name, known)}"
                )
        chosen = np.isin(np.asarray(voxels.roi or [""] * voxels.count, dtype=str), options.rois)
        for name in set(options.rois) & set(voxels.regions):
            chosen |= voxels.regions[name]
        kept &= chosen
    if options.drop_bad_voxels:
        bad = _bad_voxels(subject)
        if voxels.window is not None and windows is not None:
            # A voxel that is bad at one sample is left out of all, so that windows stay windows.
            places = place_numbers(voxels.window, windows.axes)
            bad = np.isin(places, places[bad])
        if (bad & kept).any():
            progress.say(f"{subject.name}: {int((bad & kept).sum())} voxels with NaN or without change are left out.")
        kept &= ~bad
    if not kept.any():
        raise FmriModelsError(f"No voxel of {subject.name} is left; choose other regions, or look at the files.")
    return np.flatnonzero(kept)


def _bad_voxels(subject: ExtractedSubject) -> np.ndarray:
    width = subject.subject.voxels.count
    bad, lowest, highest = np.zeros(width, dtype=bool), np.full(width, np.inf), np.full(width, -np.inf)
    for _, block in subject.blocks():
        bad |= ~np.isfinite(block).all(axis=0)
        lowest, highest = np.fmin(lowest, block.min(axis=0)), np.fmax(highest, block.max(axis=0))
    return bad | (lowest >= highest)


def _ceilings(
    chosen: ChosenTrials, voxels: KnownVoxels, columns: np.ndarray
) -> tuple[np.ndarray | None, np.ndarray | None, str | None, int]:
    """Those of the release; where it has none, of training repetitions."""
    for given in (voxels.ncsnr, voxels.noise_ceiling):
        if given is not None and (not np.isfinite(given).any() or np.isinf(given).any()):
            raise FmriModelsError(
                f"The noise ceilings of {chosen.subject.name} are infinite, or none of them is a number; leave them "
                "out."
            )
    if voxels.ncsnr is not None or voxels.noise_ceiling is not None:
        picked = [None if given is None else given[columns] for given in (voxels.ncsnr, voxels.noise_ceiling)]
        return picked[0], picked[1], schema.RELEASE, voxels.repetitions
    training, read = chosen.single_training_trials()
    ncsnr = estimate_ncsnr(read, chosen.subject.stimulus_ids[training], chosen.subject.sessions[training], len(columns))
    source = None if ncsnr is None else schema.TRAINING_REPETITIONS
    repetitions = usual_repetitions(chosen.subject.stimulus_ids[chosen.parts == schema.TEST])
    if ncsnr is None:
        progress.say(f"{chosen.subject.name}: no noise ceilings, because no training stimulus is repeated.")
    return ncsnr, None, source, repetitions


def _add_folds(
    writer: TrialTableWriter,
    extracted: Sequence[ExtractedSubject],
    groups: Mapping[str, str],
    options: SharedOptions,
) -> None:
    if not options.folds:
        return
    if options.repetitions != "single":
        raise FmriModelsError("Folds are drawn over single trials; take --option repetitions=single with folds.")
    trials = _split_trials(extracted, groups)
    split = split_by_run if options.fold_by == "run" else split_kfold
    drawn = split(trials, options.seed, options.folds, options.validation_fraction)
    writer.add_split(
        f"kfold{options.folds}", drawn.table, by=drawn.by, seed=options.seed, repeats_stimuli=drawn.repeats_stimuli
    )
    for note in drawn.notes:
        progress.say(note)


def _notes_on_options(options: SharedOptions) -> list[str]:
    notes = []
    if options.zscore != "none":
        notes.append(f"Each voxel was standardised by the training trials of the same {options.zscore}.")
    if options.repetitions != "single":
        which = "tested stimulus" if options.repetitions == "average_test" else "stimulus"
        notes.append(f"Each trial of a {which} is the mean of its repetitions.")
    return notes


def _files(subjects: Iterable[PublishedSubject]) -> list[Path]:
    """All files that betas and what was shown are read of."""
    return sorted({path for each in subjects for recording in each.recordings for path in recording.files})


def _say_of_cut_tables(files: Iterable[Path]) -> None:
    """Names tables that end within a line: where that is cut inside of a name, nothing else tells."""
    for path in files:
        if path.suffix.lower() in _TABLES and path.is_file() and path.stat().st_size:
            with path.open("rb") as file:
                file.seek(-1, SEEK_END)
                if file.read() not in (b"\n", b"\r"):
                    progress.say(
                        f"{one_line(path)} ends within a line, as a file that was cut short does; compare its size "
                        "with that of the published one."
                    )


def _record(
    dataset: PublishedDataset,
    extracted: Sequence[ExtractedSubject],
    source: Path,
    options: SharedOptions,
    own_options: Mapping[str, Any],
) -> dict[str, Any]:
    """Where the table comes from, for `table.json` and the card."""
    shared = {name: value for name, value in vars(options).items() if name not in ("name", "overwrite")}
    grids = {
        each.name: {
            "shape": list(each.subject.voxels.grid.shape),
            "affine": np.asarray(each.subject.voxels.grid.affine, dtype=float).tolist(),
            "sha256": positions_sha256(each.subject.voxels.grid.indices),
        }
        for each in extracted
        if each.subject.voxels.grid is not None
    }
    return {
        "prepared": prepared_record(
            dataset.script,
            dataset.script_version,
            {**{name: str(value) for name, value in own_options.items()}, **shared},
            _files([each.subject for each in extracted]),
            source,
            options.checksums,
        ),
        **({"grids": grids} if grids else {}),
        **dataset.extra,
    }
