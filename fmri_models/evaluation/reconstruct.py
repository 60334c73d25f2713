"""Pictures for a person's patterns, as files."""

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from PIL import Image

from ..data.hub import may_be_table
from ..data.processed import ProcessedTrials
from ..data.schema import TEST
from ..data.table import TrialTable
from ..drawing_settings import DrawingSettings
from ..errors import FmriModelsError
from ..modeling_outputs import FmriDecoding
from ..names import csv_cell, file_name, one_line
from ..output_folders import RECONSTRUCTIONS, check_output_folder
from ..pipeline_fmri import FmriToImagePipeline
from ..plain_values import ShortRepr
from ..progress import batches, named
from ..reading import check_regular_file, read_array, read_text
from ..saving import atomic_folder
from .held_out import held_out_notes, held_out_trials
from .seeded_drawing import Precision, SeededDrawing

TRIALS_FILE = RECONSTRUCTIONS.marker
_COLUMNS = ("trial", "stimulus", "seed", "scores")
_PATTERNS_A_BATCH = 256


@dataclass(repr=False)
class Patterns(ShortRepr):
    """Processed patterns of one subject.

    Args:
        names: File stem of each pattern.
        stimuli: Stimulus of each pattern; empty strings where unknown.
        features: (N, width) processed voxels.
        subject: Name of the subject.
        notes: What a person should know before believing what is made of them, a sentence each.
    """

    names: list[str]
    stimuli: list[str]
    features: torch.Tensor
    subject: str
    notes: list[str] = field(default_factory=list)


def load_patterns(
    pipeline: FmriToImagePipeline,
    fmri: str | os.PathLike,
    subject: str,
    session: int | None = None,
    part: str | None = None,
    repetitions: Literal["average", "single"] = "average",
) -> Patterns:
    """Reads patterns from a .npy file or a trial table and processes them.

    Args:
        pipeline: Its processor processes them.
        fmri: A .npy file (trials, voxels), or a trial table (a folder, or of the Hub): the one that the pipeline was
            trained on, of which the split and fold of the training are taken, or another one, of which the split
            `default` is.
        subject: Whose patterns they are.
        session: Of a file; a table says the sessions itself.
        part: Of a table's split; None takes the test part.
        repetitions: Of a table: average a stimulus' trials after standardisation, or take single trials.

    Raises:
        FmriModelsError: The file is no array of numbers, its voxels do not fit the pipeline, the split was drawn again
            after the training, or an option is for the other kind of `fmri`.
    """
    path = Path(fmri)
    if may_be_table(path):
        if session is not None:
            raise FmriModelsError(f"{one_line(path)} is a trial table and says the sessions itself; give no session.")
        pipeline.processor.subject(subject)
        held_out = held_out_trials(pipeline, TrialTable.open(path), subject, part or TEST, any_table=True)
        trials = held_out.trials
        processed = ProcessedTrials(trials, pipeline.processor, repetitions)
        features = torch.zeros(len(processed), pipeline.processor.width)
        features[:, : processed.width] = torch.from_numpy(processed[np.arange(len(processed))])
        stimuli = processed.stimulus_ids.tolist()
        names = stimuli if repetitions == "average" else [f"trial{trial:05d}" for trial in trials.trials]
        return Patterns(names, stimuli, features, subject, held_out_notes([held_out]))
    if part is not None:
        raise FmriModelsError(
            f"{one_line(path)} is no trial table, so it has no part {one_line(repr(part))} of a split: all its rows "
            "are decoded; give no part."
        )
    values = load_array(path)
    features = pipeline.processor(values, subject=subject, session=session)["fmri"]
    count = len(features)
    return Patterns([f"trial{index:05d}" for index in range(count)], [""] * count, features, subject)


def check_reconstructions_folder(
    out: str | os.PathLike, overwrite: bool, inputs: Iterable[str | os.PathLike] = ()
) -> None:
    """Refuses an output folder of [`reconstruct`] before the work.

    Args:
        out: The folder.
        overwrite: Whether a folder of reconstructions may be replaced.
        inputs: Files and folders that are read.

    Raises:
        FmriModelsError: It can't be written, is, contains or lies in an input, or holds what `reconstruct` has not
            written: another file, or a picture that its trials.csv does not name.
    """
    check_output_folder(out, overwrite, RECONSTRUCTIONS, inputs)
    folder = Path(out)
    if not (folder / TRIALS_FILE).is_file():
        return
    own = _pictures_of(folder / TRIALS_FILE)
    foreign = sorted(
        name
        for path in folder.rglob("*.png")
        if (name := path.relative_to(folder).as_posix()) not in own and not path.name.startswith(".")
    )
    if foreign:
        more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
        raise FmriModelsError(
            f"The folder of reconstructions {one_line(folder)} holds {one_line(foreign[0])}{more}, which its "
            f"{TRIALS_FILE} does not name and which would be lost with it; move that away, or choose another folder."
        )


def reconstruct(
    pipeline: FmriToImagePipeline,
    patterns: Patterns,
    seeds: Sequence[int],
    out: str | os.PathLike,
    overwrite: bool = False,
    inputs: Iterable[str | os.PathLike] = (),
    settings: DrawingSettings | Mapping[str, Any] | None = None,
    precision: Precision = "float32",
) -> int:
    """Writes a PNG for each pattern and seed, `embeddings.npy` (patterns, …) and `trials.csv`.

    Args:
        pipeline: Draws.
        patterns: What is drawn from.
        seeds: One picture of each pattern for each seed; pattern i is drawn from `seed + i`.
        out: The folder, made or replaced as a whole.
        overwrite: Replace an earlier folder of reconstructions.
        inputs: Files and folders that are read and therefore not replaced.
        settings: What is drawn with in the place of the pipeline's own settings; a mapping replaces single ones.
        precision: What pictures are computed in.

    Returns:
        The number of pictures.

    Raises:
        FmriModelsError: The folder can't be written, or an id can't be the name of a file.
    """
    lines, embeddings, count = [], [], 0
    inputs = tuple(inputs)
    check_reconstructions_folder(out, overwrite, inputs)
    pipeline.warn_of_unused(settings if isinstance(settings, Mapping) else {})
    chosen_settings = pipeline.drawing_settings.changed(settings)
    drawings = [SeededDrawing(chosen_settings, seed, precision) for seed in seeds]
    files = _file_names(patterns, seeds)
    with atomic_folder(out, overwrite, RECONSTRUCTIONS, inputs) as partial:
        for chosen in batches(len(patterns.names), _PATTERNS_A_BATCH, "Reconstructing", unit="pattern"):
            for number, drawing in enumerate(drawings):
                decoding = _decode(pipeline, patterns, chosen, drawing)
                inside = named(pipeline, "Drawing pictures", pipeline.image_generator, leave=False)
                with drawing.computing(pipeline.device), inside:
                    sources = drawing.sources(chosen)
                    output = pipeline.generate(decoding, **drawing.call(), generator=sources, num_patterns=len(chosen))
                pictures = cast(list[Image.Image], output.images)
                for position, index in enumerate(chosen):
                    pictures[position].save(partial / files[number][index])
                    scores = [] if output.scores is None else output.scores[position].tolist()
                    shown = " ".join(f"{score:.4f}" for score in scores)
                    names = csv_cell(patterns.names[index]), csv_cell(patterns.stimuli[index])
                    lines.append((*names, drawing.seed, shown))
                    count += 1
            if decoding.image_embeds is not None:
                embeddings.append(decoding.image_embeds[:: max(1, len(decoding.image_embeds) // len(chosen))].numpy())
        if embeddings:
            np.save(partial / "embeddings.npy", np.concatenate(embeddings).astype(np.float32), allow_pickle=False)
        with open(partial / TRIALS_FILE, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(_COLUMNS)
            writer.writerows(lines)
    return count


def _file_names(patterns: Patterns, seeds: Sequence[int]) -> list[list[str]]:
    """For each seed the file name of each pattern's picture."""
    if len(set(patterns.names)) < len(patterns.names):
        raise FmriModelsError("Two patterns have the same name, so one picture would replace the other; rename one.")
    if twice := [seed for seed in seeds if list(seeds).count(seed) > 1]:
        raise FmriModelsError(f"The seed {twice[0]} is given twice, which makes the same pictures; give it once.")
    endings = [".png"] if len(seeds) == 1 else [f"-seed{seed}.png" for seed in seeds]
    return [[file_name(name, ending, "stimulus id") for name in patterns.names] for ending in endings]


def _pictures_of(trials: Path) -> set[str]:
    """Names of the pictures that a trials.csv tells of; none where it is no such file."""
    reader = csv.DictReader(read_text(trials, TRIALS_FILE, "remove it, or choose another folder").splitlines())
    own = set()
    try:
        for line in reader:
            own |= {f"{line['trial']}.png", f"{line['trial']}-seed{line['seed']}.png"}
    except (csv.Error, KeyError):
        return set()
    return own


def _decode(
    pipeline: FmriToImagePipeline, patterns: Patterns, positions: range, drawing: SeededDrawing
) -> FmriDecoding:
    features = patterns.features[positions.start : positions.stop]
    ids = torch.full((len(features),), pipeline.processor.subject_names.index(patterns.subject))
    return pipeline.decode(features, ids, drawing.settings.num_candidates, drawing.sources(positions))


def load_array(path: str | os.PathLike, memory_map: bool = False) -> np.ndarray:
    """Reads a .npy file of numbers.

    Args:
        path: The file; (rows, …).
        memory_map: Read nothing yet, for arrays that may be larger than memory; they keep the byte order of the file.

    Raises:
        FmriModelsError: The file isn't there, can't be read, or holds something else.
    """
    path = check_regular_file(path, "file", "give a .npy array or a folder")
    values = read_array(
        path,
        "file",
        "no readable .npy array, but expected a (rows, values) array of numbers: numpy.save(..., allow_pickle=False) "
        "writes one",
        memory_map,
    )
    if values.ndim < 2:
        raise FmriModelsError(
            f"{one_line(path)} holds {values.dtype} of shape {values.shape}; expected a (rows, values) array of "
            "numbers."
        )
    return values
