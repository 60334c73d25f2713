"""Pictures and rankings for a person's patterns, as files."""

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch
from PIL import Image
from tqdm.auto import tqdm

from ..data.processed import ProcessedTrials
from ..data.table import TrialTable
from ..data.targets import prepare_pictures
from ..errors import FmriModelsError
from ..modeling_outputs import FmriDecoding
from ..pipeline_fmri import FmriToImagePipeline
from ..saving import atomic_folder
from .evaluate import GenerationSettings
from .retrieval import retrieve

_PATTERNS_A_BATCH = 256
_PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")


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
    values = _load_array(path)
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


def load_gallery(pipeline: FmriToImagePipeline, gallery: str | os.PathLike) -> tuple[list[str], torch.Tensor]:
    """Names and embeddings (M, values) of a gallery: a .npy file of embeddings, or a folder of pictures.

    Raises:
        FmriModelsError: There are no pictures, or the embeddings have another size than the pipeline's.
    """
    path = Path(gallery)
    space = pipeline.brain_model.config.space("image_embedding_space")
    if space is None:
        raise FmriModelsError("This method decodes no image embeddings, so it can't retrieve.")
    if not path.is_dir():
        values = _load_array(path)
        flat = torch.from_numpy(values.reshape(len(values), -1).astype(np.float32))
        if flat.shape[1] != space.size:
            raise FmriModelsError(
                f"{path} has embeddings of {flat.shape[1]} values; this pipeline's have {space.size} ({space.encoder})."
            )
        return [str(index) for index in range(len(flat))], flat
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in _PICTURE_SUFFIXES)
    if not files:
        raise FmriModelsError(f"The gallery {path} has no pictures ({', '.join(_PICTURE_SUFFIXES)}).")
    embeds = [
        pipeline.image_generator.embed_images(
            torch.cat([_picture(file, pipeline) for file in files[start : start + 128]])
        )
        for start in range(0, len(files), 128)
    ]
    return [file.stem for file in files], torch.cat(embeds).flatten(1)


def retrieve_from_gallery(
    pipeline: FmriToImagePipeline, patterns: Patterns, names: Sequence[str], gallery: torch.Tensor, top_k: int
) -> Iterator[tuple[str, str, int, str, str]]:
    """Rows (trial, stimulus, rank, item, similarity), the best first, for each pattern.

    Raises:
        FmriModelsError: The method has no retrieval embeddings, or `top_k` is out of range.
    """
    if not 1 <= top_k <= len(names):
        raise FmriModelsError(
            f"top_k is {top_k}; the gallery has {len(names)} pictures, so expected 1 to {len(names)}."
        )
    decoding = _decode(pipeline, patterns, range(len(patterns.names)), GenerationSettings())
    if decoding.retrieval_embeds is None:
        raise FmriModelsError(
            "This method decodes no embeddings that can be compared with pictures, so it can't retrieve."
        )
    similarity, indices = retrieve(decoding.retrieval_embeds.flatten(1).float(), gallery, top_k)
    for row, (trial, stimulus) in enumerate(zip(patterns.names, patterns.stimuli, strict=True)):
        for rank in range(top_k):
            item = names[int(indices[row, rank])]
            yield trial, stimulus, rank + 1, item, f"{float(similarity[row, rank]):.4f}"


def _decode(
    pipeline: FmriToImagePipeline, patterns: Patterns, rows: range, setting: GenerationSettings
) -> FmriDecoding:
    features = patterns.features[rows.start : rows.stop]
    ids = torch.full((len(features),), pipeline.processor.subject_names.index(patterns.subject))
    return pipeline.decode(features, ids, setting.num_candidates, setting.sources(rows))


def _load_array(path: Path) -> np.ndarray:
    if not path.is_file():
        raise FmriModelsError(f"There is no file {path}; give a .npy array or a folder.")
    try:
        values = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise FmriModelsError(
            f"{path} is no readable .npy array of numbers ({error}); save one with numpy.save(..., allow_pickle=False)."
        ) from error
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu" or values.ndim < 2:
        found = f"{values.dtype} of shape {values.shape}" if isinstance(values, np.ndarray) else type(values).__name__
        raise FmriModelsError(f"{path} holds {found}; expected a (rows, values) array of numbers.")
    return values


def _picture(file: Path, pipeline: FmriToImagePipeline) -> torch.Tensor:
    try:
        with Image.open(file) as picture:
            values = np.asarray(picture.convert("RGB"))
    except OSError as error:
        raise FmriModelsError(f"The picture {file} can't be read ({error}); replace or remove it.") from error
    return prepare_pictures(values[None], pipeline.image_generator.image_size)
