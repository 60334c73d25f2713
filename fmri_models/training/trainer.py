"""From a recipe to a saved pipeline."""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.utils import logging

from ..configuration_fmri import FmriConfig
from ..data.closed_form import closed_form_trials
from ..data.processed import fit_processor
from ..data.table import TrialTable
from ..data.targets import TARGET_SPACES, TargetKind, prepare_pictures
from ..encoders.closed_form import ClosedFormTrials
from ..encoders.disk_backed import move_to_disk
from ..errors import FmriModelsError
from ..generation.image_generator import ImageGenerator
from ..generation.loading import load_image_generator
from ..modeling_fmri import FmriPreTrainedModel
from ..pipeline_fmri import INDEX_FILE
from ..processing_fmri import FmriProcessor
from ..registry import get_method
from ..saving import PARTIAL_PREFIX, atomic_folder, check_output_folder
from ..training_record import TrainingRecord
from .recipe import Recipe, Stage

# Below this the round trip through a generator visibly changes a picture.
ROUND_TRIP_PSNR = 25.0
_ROUND_TRIP_PICTURES = 64
# Bytes of weights of a closed-form method beyond which they live in a file while they are computed.
WEIGHTS_IN_MEMORY = 2**31

logger = logging.get_logger(__name__)


def train(recipe: Recipe, resume: bool = False, overwrite: bool = False) -> list[Path]:
    """Trains what a recipe says.

    Args:
        recipe: The recipe, with `data` and `out`.
        resume: Keep folds and models that are complete, train the others.
        overwrite: Replace an output folder that has content.

    Returns:
        The folder of each pipeline: `out`, or `out/fold00` … with `folds="all"`.

    Raises:
        FmriModelsError: The recipe does not fit the data, or an output folder exists.
    """
    if not recipe.data or not recipe.out:
        missing = "data" if not recipe.data else "out"
        raise FmriModelsError(f"The recipe has no {missing}; add {missing}=FOLDER.")
    table = TrialTable.open(recipe.data)
    out = Path(recipe.out)
    if not resume:
        check_output_folder(out, overwrite)
    folders = []
    for fold_recipe, folder in _folds(recipe, table, out):
        if resume and (folder / INDEX_FILE).is_file():
            logger.warning(f"{folder} is complete; nothing to resume there.")
        else:
            train_one(fold_recipe, table, folder, overwrite=overwrite or resume)
        folders.append(folder)
    return folders


def train_one(recipe: Recipe, table: TrialTable, out: Path, overwrite: bool = False) -> None:
    """Trains one model on one fold and saves its pipeline into `out`."""
    started = time.perf_counter()
    torch.manual_seed(recipe.seed)
    subjects = recipe_subjects(recipe, table)
    processor = processor_for(recipe, table, subjects)
    generator = image_generator_for(recipe, table)
    with tempfile.TemporaryDirectory(prefix=f"{PARTIAL_PREFIX}weights-", dir=_existing_parent(out)) as scratch:
        model = build_model(recipe, processor, generator, Path(scratch))
        _fit_and_save(recipe, table, out, overwrite, (model, processor, generator), started)


def _fit_and_save(
    recipe: Recipe,
    table: TrialTable,
    out: Path,
    overwrite: bool,
    parts: tuple[FmriPreTrainedModel, FmriProcessor, ImageGenerator],
    started: float,
) -> None:
    model, processor, generator = parts
    history = []
    for stage in recipe.stages:
        result = _run_stage(recipe, stage, table, model, processor, generator)
        history.append({"stage": stage.name, "result": result})
    pipeline = get_method(recipe.method).load("pipeline")(model, processor, generator)
    record = TrainingRecord(
        method=recipe.method,
        table=table.name,
        table_fingerprint=table.fingerprint,
        split=recipe.split,
        fold=recipe.fold,
        train_parts=recipe.train_parts,
        repetitions=recipe.repetitions,
        simulated=table.simulated,
        recipe=recipe.to_dict(),
        stages=history,
        seconds=round(time.perf_counter() - started, 2),
    )
    with atomic_folder(out, overwrite=overwrite) as partial:
        pipeline.save_pretrained(str(partial), max_shard_size=recipe.max_shard_size)
        record.save(partial)


def processor_for(recipe: Recipe, table: TrialTable, subjects: list[str]) -> FmriProcessor:
    """A processor with the statistics of the trials that the recipe's stages learn from."""
    return fit_processor(table, subjects, recipe.train_parts, recipe.split, recipe.fold, **recipe.processor)


def image_generator_for(recipe: Recipe, table: TrialTable) -> ImageGenerator:
    """The recipe's generator; warns when the stimuli lie outside its domain."""
    ids = table.stimuli.ids
    sample = [ids[i] for i in np.unique(np.linspace(0, len(ids) - 1, min(len(ids), _ROUND_TRIP_PICTURES)).astype(int))]
    images = table.stimuli.images(sample)
    generator = load_image_generator(recipe.generator, (images.shape[3], images.shape[1], images.shape[2]))
    psnr = round_trip_psnr(generator, images)
    if psnr < ROUND_TRIP_PSNR:
        logger.warning(
            f"The image generator {recipe.generator!r} gives these stimuli back with {psnr:.1f} dB only (its own "
            "pictures: 30 dB): they lie outside its domain, and no decoder can do better; small pictures go with "
            "generator=pixels."
        )
    else:
        logger.info(f"Round trip of the stimuli through the image generator {recipe.generator!r}: {psnr:.1f} dB.")
    return generator


def round_trip_psnr(generator: ImageGenerator, images: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of pictures that were encoded and decoded; infinite if nothing is lost."""
    pictures = prepare_pictures(images, generator.image_size)
    decoded = generator(latents=generator.encode_images(pictures), strength=0.0, output_type="pt").images
    assert isinstance(decoded, torch.Tensor)
    error = float(((decoded - pictures) ** 2).mean())
    return float("inf") if error == 0 else float(-10 * np.log10(error))


def build_model(
    recipe: Recipe, processor: FmriProcessor, generator: ImageGenerator, scratch: Path | None = None
) -> FmriPreTrainedModel:
    """The untrained model for the recipe's subjects and the generator's spaces.

    Args:
        recipe: The recipe.
        processor: Names the subjects and their voxels.
        generator: Names the spaces.
        scratch: Where the weights of a closed-form method may live if they are too many for memory; None keeps all in
            memory.
    """
    spaces = {}
    for kind in target_kinds(recipe, generator):
        space = getattr(generator, TARGET_SPACES[kind])
        spaces[TARGET_SPACES[kind]] = space.to_dict()
    method = get_method(recipe.method)
    config_class: type[FmriConfig] = method.load("config")
    config = config_class(
        subject_names=processor.subject_names, num_voxels=processor.num_voxels, **spaces, **recipe.model
    )
    model_class = method.load("model")
    with torch.device("meta"):
        planned = model_class(config)
    size = sum(parameter.numel() * parameter.element_size() for parameter in planned.parameters())
    if scratch is None or size <= WEIGHTS_IN_MEMORY:
        return model_class(config)
    move_to_disk(planned, scratch)
    return planned.eval()


def target_kinds(recipe: Recipe, generator: ImageGenerator) -> list[TargetKind]:
    """What the model decodes: those that the recipe names, or all that the generator has."""
    available: dict[str, TargetKind] = {
        kind: kind for kind, space in TARGET_SPACES.items() if getattr(generator, space) is not None
    }
    for kind in recipe.targets or []:
        if kind not in available:
            raise FmriModelsError(f"The generator {recipe.generator!r} has no {kind}; it has {', '.join(available)}.")
    return [available[kind] for kind in recipe.targets or available]


def _run_stage(
    recipe: Recipe,
    stage: Stage,
    table: TrialTable,
    model: FmriPreTrainedModel,
    processor: FmriProcessor,
    generator: ImageGenerator,
) -> Any:
    objective_class = get_method(recipe.method).load("objective")
    try:
        objective = objective_class(**stage.objective)
    except TypeError as error:
        raise FmriModelsError(f"The stage {stage.name!r} has an objective that does not fit: {error}.") from error

    def trials(parts: list[str]) -> dict[str, ClosedFormTrials]:
        kinds = target_kinds(recipe, generator)
        return closed_form_trials(
            table, processor, generator, kinds, parts, recipe.split, recipe.fold, recipe.repetitions
        )

    held_out = [part for part in stage.validate_on if part not in stage.train_on]
    return objective.fit(model, trials(stage.train_on), trials(held_out) if held_out else None)


def recipe_subjects(recipe: Recipe, table: TrialTable) -> list[str]:
    """The recipe's subjects, or all of the table.

    Raises:
        FmriModelsError: The table lacks one.
    """
    for name in recipe.subjects or []:
        if name not in table.subjects:
            raise FmriModelsError(f"{table.path} has no subject {name!r}; it has {', '.join(table.subjects)}.")
    return list(recipe.subjects or table.subjects)


def _folds(recipe: Recipe, table: TrialTable, out: Path) -> Iterator[tuple[Recipe, Path]]:
    if recipe.folds != "all":
        yield recipe, out
        return
    for fold in range(table.num_folds(recipe.split)):
        yield replace(recipe, fold=fold, folds=None), out / f"fold{fold:02d}"


def _existing_parent(out: Path) -> Path:
    parent = out.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    return parent
