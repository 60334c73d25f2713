"""Pictures for a person's patterns, as files."""

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch
from PIL import Image
from tqdm.auto import tqdm

from ..data.processed import ProcessedTrials
from ..data.table import TrialTable
from ..errors import FmriModelsError
from ..modeling_outputs import FmriDecoding
from ..pipeline_fmri import FmriToImagePipeline
from ..saving import atomic_folder
from .evaluate import GenerationSettings

_PATTERNS_A_BATCH = 256


@dataclass
class Patterns:
    """Processed patterns of one subject.

    Args:
        names: File stem of each pattern.
        stimuli: Stimulus of each pattern; empty strings where unknown.
        features: (N, width) processed voxels.
        subject: Name of the subject.
    """

    names: list[str]
    stimuli: list[str]
    features: torch.Tensor
    subject: str


def load_patterns(
    pipeline: FmriToImagePipeline,
    fmri: str | os.PathLike,
    subject: str,
    session: int | None = None,
    split: str = "test",
    repetitions: Literal["average", "single"] = "average",
) -> Patterns:
    """Reads patterns from a .npy file or a trial table and processes them.

    Raises:
        FmriModelsError: The file is no array of numbers, or its voxels do not fit the pipeline.
    """
    path = Path(fmri)
    if path.is_dir():
        trials = TrialTable.open(path).trials(subject, split)
        if len(trials) == 0:
            raise FmriModelsError(f"{path} has no trials of {subject} in {split!r}.")
        pipeline.processor.subject(subject)
        processed = ProcessedTrials(trials, pipeline.processor, repetitions)
        features = torch.zeros(len(processed), pipeline.processor.width)
        features[:, : processed.width] = torch.from_numpy(processed[np.arange(len(processed))])
        stimuli = processed.stimulus_ids.tolist()
        names = stimuli if repetitions == "average" else [f"trial{trial:05d}" for trial in trials.trials]
        return Patterns(names, stimuli, features, subject)
    values = load_array(path)
    features = pipeline.processor(values, subject=subject, session=session)["fmri"]
    count = len(features)
    return Patterns([f"trial{index:05d}" for index in range(count)], [""] * count, features, subject)


def reconstruct(
    pipeline: FmriToImagePipeline,
    patterns: Patterns,
    settings: Sequence[GenerationSettings],
    out: str | os.PathLike,
    overwrite: bool = False,
) -> int:
    """Writes a PNG for each pattern and seed, `embeddings.npy` (patterns, …) and `trials.csv`.

    Returns:
        The number of pictures.
    """
    rows, embeddings, count = [], [], 0
    with atomic_folder(out, overwrite=overwrite) as partial:
        for start in tqdm(range(0, len(patterns.names), _PATTERNS_A_BATCH), desc="Reconstructing"):
            chosen = range(start, min(start + _PATTERNS_A_BATCH, len(patterns.names)))
            for setting in settings:
                decoding = _decode(pipeline, patterns, chosen, setting)
                with setting.computing(pipeline.device):
                    output = pipeline.generate(decoding, **setting.call(), generator=setting.sources(chosen))
                pictures = cast(list[Image.Image], output.images)
                for position, index in enumerate(chosen):
                    name = patterns.names[index] + ("" if len(settings) == 1 else f"-seed{setting.seed}")
                    pictures[position].save(partial / f"{name}.png")
                    scores = [] if output.scores is None else output.scores[position].tolist()
                    shown = " ".join(f"{score:.4f}" for score in scores)
                    rows.append((patterns.names[index], patterns.stimuli[index], setting.seed, shown))
                    count += 1
            if decoding.image_embeds is not None:
                embeddings.append(decoding.image_embeds[:: max(1, len(decoding.image_embeds) // len(chosen))].numpy())
        if embeddings:
            np.save(partial / "embeddings.npy", np.concatenate(embeddings).astype(np.float32), allow_pickle=False)
        with open(partial / "trials.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("trial", "stimulus", "seed", "scores"))
            writer.writerows(rows)
    return count


def _decode(
    pipeline: FmriToImagePipeline, patterns: Patterns, rows: range, setting: GenerationSettings
) -> FmriDecoding:
    features = patterns.features[rows.start : rows.stop]
    ids = torch.full((len(features),), pipeline.processor.subject_names.index(patterns.subject))
    return pipeline.decode(features, ids, setting.num_candidates, setting.sources(rows))


def load_array(path: Path, memory_map: bool = False) -> np.ndarray:
    """Reads a .npy file of numbers.

    Args:
        path: The file; (rows, …).
        memory_map: Read nothing yet, for arrays that may be larger than memory.

    Raises:
        FmriModelsError: The file isn't there, can't be read, or holds something else.
    """
    if not path.is_file():
        raise FmriModelsError(f"There is no file {path}; give a .npy array or a folder.")
    try:
        values = np.load(path, mmap_mode="r" if memory_map else None, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise FmriModelsError(
            f"{path} is no readable .npy array of numbers ({error}); save one with numpy.save(..., allow_pickle=False)."
        ) from error
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu" or values.ndim < 2:
        found = f"{values.dtype} of shape {values.shape}" if isinstance(values, np.ndarray) else type(values).__name__
        raise FmriModelsError(f"{path} holds {found}; expected a (rows, values) array of numbers.")
    return values
