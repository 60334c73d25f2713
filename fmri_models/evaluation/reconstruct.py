"""Pictures for a person's patterns, and layers of networks that are decoded of them, as files."""

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from ..conditions import GUIDES
from ..drawing_request import DrawingRequest
from ..drawing_settings import DrawingSettings
from ..errors import FmriModelsError
from ..guides.blip import BLIP_TOKENS, Captioner
from ..modeling_outputs import FmriDecoding
from ..names import csv_cell, file_name, one_line
from ..output_folders import RECONSTRUCTIONS, check_output_folder
from ..pipeline_fmri import FmriToImagePipeline
from ..progress import bar, batches, named
from ..reading import read_text
from ..saving import atomic_folder
from .patterns import Patterns
from .seeded_drawing import Precision, SeededDrawing

TRIALS_FILE = RECONSTRUCTIONS.marker
CAPTIONS_FILE = "captions.csv"
_COLUMNS = ("trial", "stimulus", "seed", "scores")
_PATTERNS_A_BATCH = 256


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
    guide_weights: Mapping[str, str] | None = None,
) -> int:
    """Writes a PNG for each pattern and seed, `embeddings.npy` (patterns, …) and `trials.csv`.

    Of a model that decodes guides, each is `guides/<guide>.safetensors` with the one entry `<guide>` (patterns, …), in
    the order of the patterns in trials.csv; a pipeline without an image generator writes these alone. Where BLIP's
    tokens are among them and its weights are given, `captions.csv` has a caption of each pattern.

    Args:
        pipeline: Draws.
        patterns: What is drawn from.
        seeds: One picture of each pattern for each seed; pattern i is drawn from `seed + i`.
        out: The folder, made or replaced as a whole.
        overwrite: Replace an earlier folder of reconstructions.
        inputs: Files and folders that are read and therefore not replaced.
        settings: What is drawn with in the place of the pipeline's own settings; a mapping replaces single ones.
        precision: What pictures are computed in.
        guide_weights: `{"blip": FOLDER}`, with which captions are written of its decoded tokens.

    Returns:
        The number of pictures.

    Raises:
        FmriModelsError: The folder can't be written, an id can't be the name of a file, or weights are of no network
            that something is written with.
    """
    lines, embeddings, count = [], [], 0
    inputs = tuple(inputs)
    check_reconstructions_folder(out, overwrite, inputs)
    captioner = _captioner(pipeline, guide_weights or {})
    pipeline.warn_of_unused(settings if isinstance(settings, Mapping) else {})
    chosen_settings = pipeline.drawing_settings.changed(settings)
    drawings = [SeededDrawing(chosen_settings, seed, precision) for seed in seeds]
    files = _file_names(patterns, seeds)
    has_guides = bool(pipeline.brain_model.config.guide_spaces)
    with atomic_folder(out, overwrite, RECONSTRUCTIONS, inputs) as partial:
        if pipeline.image_generator is None and has_guides:
            lines = [_line(patterns, index, seeds[0], "") for index in range(len(patterns.names))]
        drawn = 0 if lines else len(patterns.names)
        for chosen in batches(drawn, _PATTERNS_A_BATCH, "Reconstructing", unit="pattern") if drawn else ():
            for number, drawing in enumerate(drawings):
                decoding = _decode(pipeline, patterns, chosen, drawing)
                inside = named(pipeline, "Drawing pictures", pipeline.image_generator, leave=False)
                with drawing.computing(pipeline.device), inside:
                    request = DrawingRequest(drawing.settings, generator=drawing.sources(chosen))
                    output = pipeline.images_of(decoding, request, len(chosen))
                pictures = cast(list[Image.Image], output.images)
                for position, index in enumerate(chosen):
                    pictures[position].save(partial / files[number][index])
                    scores = [] if output.scores is None else output.scores[position].tolist()
                    shown = " ".join(f"{score:.4f}" for score in scores)
                    lines.append(_line(patterns, index, drawing.seed, shown))
                    count += 1
            if decoding.image_embeds is not None:
                embeddings.append(decoding.image_embeds[:: max(1, len(decoding.image_embeds) // len(chosen))].numpy())
        if embeddings:
            np.save(partial / "embeddings.npy", np.concatenate(embeddings).astype(np.float32), allow_pickle=False)
        if has_guides:
            _write_guides(pipeline, patterns, partial / GUIDES)
        if captioner is not None:
            tokens = load_file(partial / GUIDES / file_name(BLIP_TOKENS, ".safetensors", "guide"))[BLIP_TOKENS]
            _write_captions(patterns, captioner.captions(tokens), partial / CAPTIONS_FILE)
        with open(partial / TRIALS_FILE, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(_COLUMNS)
            writer.writerows(lines)
    return count


def _line(patterns: Patterns, index: int, seed: int, scores: str) -> tuple[str, str, int, str]:
    """A line of trials.csv."""
    return csv_cell(patterns.names[index]), csv_cell(patterns.stimuli[index]), seed, scores


def _write_guides(pipeline: FmriToImagePipeline, patterns: Patterns, folder: Path) -> None:
    """Decodes and writes guide by guide, since all of them may be more than memory holds."""
    model = pipeline.brain_model
    model.check_decodes_alone()
    folder.mkdir()
    ids = torch.full((len(patterns.names),), pipeline.processor.subject_names.index(patterns.subject))
    features = patterns.features[: len(ids)]
    for guide in bar(list(model.config.guides), "Decoding layers", unit="layer"):
        values = model.decode_guides(features.to(pipeline.device), ids.to(pipeline.device), [guide])[guide]
        if not values.isfinite().all():
            raise FmriModelsError(
                f"The brain model decodes {guide} with NaN or infinite values; take another copy of the model, or look "
                "at the betas."
            )
        save_file({guide: values.float().cpu().contiguous()}, folder / file_name(guide, ".safetensors", "guide"))


def _captioner(pipeline: FmriToImagePipeline, weights: Mapping[str, str]) -> Captioner | None:
    if other := sorted(weights.keys() - {"blip"}):
        raise FmriModelsError(
            f"There are weights of {one_line(other[0], 80)}, and reconstructing takes those of blip alone, with which "
            "captions are written; leave the others out."
        )
    if not weights:
        return None
    if BLIP_TOKENS not in pipeline.brain_model.config.guides:
        raise FmriModelsError(
            f"There are weights of blip, and the model does not decode {BLIP_TOKENS}, of which captions are made; "
            "leave them out, or take a model that was trained with guides: {network: blip}."
        )
    return Captioner.from_folder(weights["blip"])


def _write_captions(patterns: Patterns, captions: Sequence[str], path: Path) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow((*_COLUMNS[:2], "caption"))
        for name, stimulus, caption in zip(patterns.names, patterns.stimuli, captions, strict=True):
            writer.writerow((csv_cell(name), csv_cell(stimulus), csv_cell(caption)))


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
    drawn_from = [] if pipeline.image_generator is None else list(pipeline.image_generator.guide_spaces)
    sources = drawing.sources(positions)
    return pipeline.decode(features, ids, drawing.settings.num_candidates, sources, guides=drawn_from)
