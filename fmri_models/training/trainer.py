"""From a recipe to a saved pipeline."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers.utils import logging

from .. import progress
from ..configuration_fmri import FmriConfig
from ..data import schema
from ..data.processed import fit_processor
from ..data.split_files import part_fingerprints
from ..data.splits import untested_sentences
from ..data.table import TrialTable
from ..data.targets import DEFAULT_TARGETS, TARGET_SPACES, TargetKind, prepare_pictures
from ..embedding_space import EmbeddingSpace
from ..encoders.disk_backed import move_to_disk
from ..errors import FmriModelsError
from ..generation.image_generator import ImageGenerator
from ..generation.loading import load_image_generator, parse_source
from ..modeling_fmri import FmriPreTrainedModel
from ..output_folders import PIPELINE, check_output_folder, check_room
from ..pipeline_folder import INDEX_FILE
from ..processing_fmri import FmriProcessor
from ..registry import get_method
from ..saving import atomic_folder, scratch_folder
from ..training_record import TrainingRecord
from .checkpoints import KEPT_CHECKPOINTS, Checkpoints, differences
from .gradient import check_precision, check_trackers
from .initial_model import (
    EarlierTrainings,
    check_initial_model_is_used,
    earlier_trainings,
    load_initial_weights,
    own_training,
    warn_of_seen_test_pictures,
)
from .processes import processes
from .recipe import OWN_PROCESSOR_KEYS, Recipe, check_keys
from .selection import INNER_SPLIT, Chosen, SelectionFolder, Trained, described, recorded, select
from .settling import few_stimuli_sentence, settled_recipe
from .stages import StageRunner

# Below this the round trip through a generator visibly changes a picture.
ROUND_TRIP_PSNR = 25.0
_ROUND_TRIP_PICTURES = 64
# Bytes of weights of a closed-form method beyond which they live in a file while they are computed.
WEIGHTS_IN_MEMORY = 2**31

logger = logging.get_logger(__name__)


class NamesSpaces(Protocol):
    """What is known of an image generator without loading it; every [`ImageGenerator`] says so, too."""

    @property
    def image_embedding_space(self) -> EmbeddingSpace | None: ...

    @property
    def latent_space(self) -> EmbeddingSpace | None: ...


def train(
    recipe: Recipe,
    resume: bool = False,
    overwrite: bool = False,
    recipe_file: str | os.PathLike | None = None,
    saved: Callable[[Path], None] | None = None,
) -> list[Path]:
    """Trains what a recipe says.

    Args:
        recipe: The recipe, with `data` and `out`.
        resume: Keep folds and models that are complete, go on with an interrupted one, train the others.
        overwrite: Replace a pipeline in the output folder, and start an interrupted training again.
        recipe_file: Where the recipe was read, which is therefore not replaced; None for one of the package's.
        saved: Called by the main process with the folder of each pipeline that was trained, once it is there.

    Returns:
        The folder of each pipeline: `out`, or `out/fold00` … with `folds="all"`; also those that were complete.

    Raises:
        FmriModelsError: The recipe does not fit the data, or an output folder exists, is no pipeline, is, contains or
            lies in something that is read, or can't be written; or what is to be kept was trained with another recipe
            or on other data.
        TrainingInterrupted: After SIGINT or SIGTERM in training by gradient, when a checkpoint is saved.
    """
    if not recipe.data or not recipe.out:
        missing = "data" if not recipe.data else "out"
        raise FmriModelsError(f"The recipe has no {missing}; add {missing}=FOLDER.")
    check_trackers(recipe.trackers)
    for stage in recipe.stages:
        if stage.training is not None:
            check_precision(stage.training)
    inputs = _inputs(recipe, recipe_file)
    table = TrialTable.open(recipe.data)
    out = Path(recipe.out)
    runs = list(_folds(recipe, table, out))
    _check_outputs(recipe, out, [folder for _, folder in runs], resume, overwrite, inputs)
    check_initial_model_is_used(recipe)
    complete = [folder for _, folder in runs if resume and _is_complete(folder)]
    for fold_recipe, folder in runs:
        if folder in complete:
            _check_same_training(fold_recipe, table, folder)
    for sentence in _subjects_without_trials([fold_recipe for fold_recipe, _ in runs], table):
        logger.warning(sentence)
    for fold_recipe, _ in runs:
        if recipe.initial_model is not None:
            warn_of_seen_test_pictures(fold_recipe, table, recipe_subjects(recipe, table))
    first, _ = runs[0]
    if sentence := few_stimuli_sentence(first, table, recipe_subjects(first, table)):
        logger.warning(sentence)
    for number, (fold_recipe, folder) in enumerate(runs, start=1):
        if folder in complete:
            logger.warning(f"{folder} is complete, of this recipe and these data: nothing to do there.")
            continue
        if len(runs) > 1:
            progress.say(f"Training fold {fold_recipe.fold}, {number} of {len(runs)}")
        train_one(fold_recipe, table, folder, overwrite=overwrite or resume, resume=resume)
        if saved is not None and processes().is_main_process:
            saved(folder)
    return [folder for _, folder in runs]


def _inputs(recipe: Recipe, recipe_file: str | os.PathLike | None = None) -> list[Path]:
    """Files and folders of this machine that a training reads."""
    source = parse_source(recipe.generator)
    places = [recipe.data, recipe.initial_model, source.repository, *(stage.teacher for stage in recipe.stages)]
    named = [Path(place) for place in (*places, recipe_file) if place is not None]
    return [path for path in named if path.exists()]


def _check_outputs(
    recipe: Recipe, out: Path, folders: Sequence[Path], resume: bool, overwrite: bool, inputs: Sequence[Path]
) -> None:
    """Finds out before the work what can't be written or replaced at its end."""
    if recipe.folds == "all":
        check_output_folder(out, overwrite or resume)
        if (out / INDEX_FILE).exists():
            raise FmriModelsError(
                f"{out} holds a pipeline, and folds are to be written into it; choose another folder."
            )
    for folder in folders:
        if not resume:
            _refuse_interrupted(folder, overwrite)
        check_output_folder(folder, overwrite or resume, PIPELINE, inputs)
        for beside in (Checkpoints(folder), SelectionFolder(folder)):
            beside.check_own()


def _is_complete(folder: Path) -> bool:
    return (folder / INDEX_FILE).is_file() and not Checkpoints(folder).exists


def _check_same_training(recipe: Recipe, table: TrialTable, folder: Path) -> None:
    """Refuses to keep a pipeline that another recipe, or other data, have given.

    Args:
        recipe: Of one fold.
        table: The trial table.
        folder: The pipeline's.

    Raises:
        FmriModelsError: Names the first difference.
    """
    mend = "resume with the same recipe and data, train it again with --overwrite, or choose another folder with out="
    record = TrainingRecord.load(folder)
    if record is None:
        raise FmriModelsError(f"{folder} holds a pipeline without a record of its training (training.json); {mend}.")
    subjects = recipe_subjects(recipe, table)
    settled = settled_recipe(recipe, table, subjects)
    selection, chosen = recorded(record.selection, folder)
    now = described(recipe.selection)
    if selection and selection == now:
        settled = settled_recipe(settled.with_values(chosen), table, subjects)
    before = {"table_fingerprint": record.table_fingerprint, "selection": selection, "recipe": record.recipe}
    today = {"table_fingerprint": table.fingerprint, "selection": now, "recipe": settled.published()}
    if record.learned_from is not None:
        before["split_fingerprint"] = str(sorted(record.learned_from[0].part_fingerprints.items()))
        today["split_fingerprint"] = str(sorted(part_fingerprints(table.split_rows(recipe.split), recipe.fold).items()))
    for _, difference in differences(before, today):
        raise FmriModelsError(f"The finished training in {folder} {difference}; {mend}.")


def _subjects_without_trials(recipes: Sequence[Recipe], table: TrialTable) -> list[str]:
    """What to know before the work of subjects that folds do not test.

    Raises:
        FmriModelsError: A subject has nothing to learn from in a fold.
    """
    untested: dict[str, list[int]] = {}
    for recipe in recipes:
        for name in recipe_subjects(recipe, table):
            # Validation trials that nothing is chosen on are learned from.
            parts = sorted({part for stage in recipe.stages for part in (*stage.train_on, *stage.validate_on)})
            if len(table.trials(name, parts, recipe.split, recipe.fold)) == 0:
                raise FmriModelsError(
                    f"{name} has no trials in {', '.join(parts)} of the split {recipe.split!r} (fold {recipe.fold}); "
                    "leave the subject out with subjects=[...], or train on another split."
                )
            if len(table.trials(name, schema.TEST, recipe.split, recipe.fold)) == 0:
                untested.setdefault(name, []).append(recipe.fold)
    return untested_sentences(untested, recipes[0].split)


def train_one(recipe: Recipe, table: TrialTable, out: Path, overwrite: bool = False, resume: bool = False) -> None:
    """Trains one model on one fold and saves its pipeline into `out`.

    Args:
        recipe: The recipe.
        table: The trial table.
        out: The pipeline's folder.
        overwrite: Replace a folder that has content, and start an interrupted training again.
        resume: Go on with an interrupted training, if there is one.

    Raises:
        FmriModelsError: The recipe does not fit the data or the interrupted training, or `out` has content.
    """
    if not resume:
        _refuse_interrupted(out, overwrite)
    subjects = recipe_subjects(recipe, table)
    earlier = earlier_trainings(recipe, table)
    recipe = settled_recipe(recipe, table, subjects)
    selected = None
    if recipe.selection is not None:
        selected = select(recipe, table, out, _run_identity(recipe, table), resume, _trained)
        recipe = settled_recipe(selected.recipe, table, subjects)
    with _trained(recipe, table, out, resume) as trained:
        if processes().is_main_process:
            _save(recipe, table, out, overwrite, trained, selected, earlier)
            SelectionFolder(out).remove()


@contextmanager
def _trained(recipe: Recipe, table: TrialTable, out: Path, resume: bool) -> Iterator[Trained]:
    """A trained pipeline; what an interrupted training would go on from is kept until the pipeline was used."""
    started = time.perf_counter()
    recipe = settled_recipe(recipe, table, recipe_subjects(recipe, table))
    checkpoints = Checkpoints(out) if recipe.trains_by_gradient else None
    run = _run_identity(recipe, table)
    resume = resume and checkpoints is not None and checkpoints.exists
    if checkpoints is not None and resume:
        checkpoints.check_same_run(run)
    torch.manual_seed(recipe.seed)
    with processes().main_process_first():
        with progress.phase("Reading the training trials"):
            processor = processor_for(recipe, table, recipe_subjects(recipe, table))
        generator = image_generator_for(recipe, table)
    with _scratch_folder(recipe, out) as scratch:
        model = build_model(recipe, processor, generator, scratch)
        if recipe.initial_model is not None:
            load_initial_weights(model, recipe.initial_model, processor)
        check_room(out, _bytes_on_disk(model, recipe))
        runner = StageRunner(recipe, table, model, processor, generator, target_kinds(recipe, generator), out)
        with _checkpointed(checkpoints, run, resume):
            history = runner.run(resume)
            pipeline_class = get_method(recipe.method).load("pipeline")
            pipeline = pipeline_class(model, processor, generator, drawing_settings=recipe.drawing)
            yield Trained(pipeline, history, time.perf_counter() - started + runner.earlier_seconds)


def _bytes_on_disk(model: FmriPreTrainedModel, recipe: Recipe) -> int:
    """What the pipeline's weights will take, and those of the checkpoints, without the state of optimisers."""
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    return size * (KEPT_CHECKPOINTS + 2) if recipe.trains_by_gradient else size


def _refuse_interrupted(out: Path, overwrite: bool) -> None:
    for left in (Checkpoints(out), SelectionFolder(out)):
        if left.exists and not overwrite:
            raise FmriModelsError(
                f"A training into {out} was interrupted and has its checkpoints in {left.folder}; pass --resume to "
                "go on with it, or --overwrite to start again."
            )


def _run_identity(recipe: Recipe, table: TrialTable) -> dict[str, Any]:
    """What has to be the same for an interrupted training to go on."""
    return {
        "recipe": recipe.to_dict(),
        "table_fingerprint": table.fingerprint,
        "split_fingerprint": table.split_fingerprint(recipe.split),
    }


@contextmanager
def _checkpointed(checkpoints: Checkpoints | None, run: dict[str, Any], resume: bool) -> Iterator[None]:
    """Makes the checkpoints' folder ready, and removes it when all is saved or there was no checkpoint yet."""
    main = processes().is_main_process
    if checkpoints is not None and main:
        if resume:
            checkpoints.recover()
        else:
            checkpoints.begin(run)
    processes().wait_for_everyone()
    try:
        yield
    except BaseException:
        if checkpoints is not None and main and not checkpoints.exists:
            checkpoints.remove()
        raise
    if checkpoints is not None and main:
        checkpoints.remove()
    processes().wait_for_everyone()


def _save(
    recipe: Recipe,
    table: TrialTable,
    out: Path,
    overwrite: bool,
    trained: Trained,
    selected: Chosen | None,
    earlier: EarlierTrainings,
) -> None:
    own = own_training(recipe, table, trained.pipeline.processor.subject_names)
    record = TrainingRecord(
        method=recipe.method,
        table=table.name,
        table_fingerprint=table.fingerprint,
        split=recipe.split,
        fold=recipe.fold,
        train_parts=recipe.train_parts,
        repetitions=recipe.repetitions,
        simulated=table.simulated,
        recipe=recipe.published(),
        stages=trained.history,
        selection=None if selected is None else selected.record,
        seconds=round(trained.seconds + (0.0 if selected is None else selected.seconds), 2),
        learned_from=[own, *(each for each in earlier.learned_from if each != own)],
        unknown_initial_models=earlier.unknown,
    )
    with atomic_folder(out, overwrite, PIPELINE, _inputs(recipe)) as partial:
        trained.pipeline.save_pretrained(str(partial), max_shard_size=recipe.max_shard_size)
        record.save(partial)


def processor_for(recipe: Recipe, table: TrialTable, subjects: list[str]) -> FmriProcessor:
    """A processor with the statistics of the trials that the recipe's stages learn from.

    Raises:
        FmriModelsError: The recipe's options of the processor do not fit, or the data lack something.
    """
    for key in OWN_PROCESSOR_KEYS:
        if key in recipe.processor:
            raise FmriModelsError(
                f"The recipe's processor has the key {key!r}, which the recipe says itself; remove it."
            )
    read = {part for stage in recipe.stages for part in stage.held_out_parts}
    # Inner folds of a selection are scored on their test part.
    read |= {schema.TEST} if recipe.split == INNER_SPLIT else set()
    return fit_processor(
        table, subjects, recipe.train_parts, recipe.split, recipe.fold, sorted(read), **recipe.processor
    )


def image_generator_for(recipe: Recipe, table: TrialTable) -> ImageGenerator:
    """The recipe's generator; warns when the stimuli lie outside its domain."""
    ids = table.stimuli.ids
    sample = [ids[i] for i in np.unique(np.linspace(0, len(ids) - 1, min(len(ids), _ROUND_TRIP_PICTURES)).astype(int))]
    images = table.stimuli.images(sample)
    generator = load_image_generator(recipe.generator, (images.shape[3], images.shape[1], images.shape[2]))
    if generator.latent_space is None:
        # It draws no pictures, so that none can be given back badly.
        return generator
    if generator.advice is not None:
        logger.warning(generator.advice)
    psnr = round_trip_psnr(generator, images)
    if generator.limits is not None:
        logger.warning(f"{generator.limits} It gives these stimuli back with {psnr:.1f} dB at best.")
    elif psnr < ROUND_TRIP_PSNR:
        logger.warning(
            f"The image generator {recipe.generator!r} gives these stimuli back with {psnr:.1f} dB only (its own "
            "pictures: 30 dB): they lie outside its domain, and no decoder can do better; small pictures go with "
            "generator=pixels, larger ones with generator=thumbnail."
        )
    else:
        logger.info(
            f"The image generator {recipe.generator!r} can draw pictures like the stimuli: of {len(sample)} that it "
            f"encoded and drew again, little is lost (a PSNR of {psnr:.1f} dB)."
        )
    return generator


def round_trip_psnr(generator: ImageGenerator, images: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of pictures that were encoded and decoded; infinite if nothing is lost."""
    pictures = prepare_pictures(images, generator.image_size)
    decoded = generator(latents=generator.encode_images(pictures), strength=0.0, output_type="pt").images
    assert isinstance(decoded, torch.Tensor)
    error = float(((decoded - pictures) ** 2).mean())
    return float("inf") if error == 0 else float(-10 * np.log10(error))


def build_model(
    recipe: Recipe, processor: FmriProcessor, generator: NamesSpaces, scratch: Path | None = None
) -> FmriPreTrainedModel:
    """The untrained model for the recipe's subjects and the generator's spaces.

    Args:
        recipe: The recipe.
        processor: Names the subjects and their voxels.
        generator: Names the spaces.
        scratch: Where the weights of a closed-form method may live if they are too many for memory; None keeps all in
            memory.

    Raises:
        FmriModelsError: The recipe has a model option that the method's configuration lacks or refuses.
    """
    spaces = {}
    for kind in target_kinds(recipe, generator):
        space = getattr(generator, TARGET_SPACES[kind])
        spaces[TARGET_SPACES[kind]] = space.to_dict()
    method = get_method(recipe.method)
    config_class: type[FmriConfig] = method.load("config")
    check_keys(recipe.model, config_class, "The recipe's model")
    try:
        config = config_class(
            subject_names=processor.subject_names, num_voxels=processor.num_voxels, **spaces, **recipe.model
        )
    except (TypeError, StrictDataclassError) as error:
        raise FmriModelsError(
            f"The recipe's model has an option that does not fit: {' '.join(str(error).split())}."
        ) from error
    model_class = method.load("model")
    with torch.device("meta"):
        planned = model_class(config)
    size = sum(parameter.numel() * parameter.element_size() for parameter in planned.parameters())
    if scratch is None or size <= WEIGHTS_IN_MEMORY:
        return model_class(config)
    move_to_disk(planned, scratch)
    return planned.eval()


def target_kinds(recipe: Recipe, generator: NamesSpaces) -> list[TargetKind]:
    """What the model decodes: those that the recipe names, or the generator's embeddings and latents of pictures."""
    available: dict[str, TargetKind] = {
        kind: kind for kind, space in TARGET_SPACES.items() if getattr(generator, space) is not None
    }
    for kind in recipe.targets or []:
        if kind not in available:
            raise FmriModelsError(f"The generator {recipe.generator!r} has no {kind}; it has {', '.join(available)}.")
    chosen = recipe.targets or [kind for kind in DEFAULT_TARGETS if kind in available]
    return [available[kind] for kind in chosen]


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


@contextmanager
def _scratch_folder(recipe: Recipe, out: Path) -> Iterator[Path | None]:
    """A folder for the weights of a closed-form method; None for training by gradient, which needs them in memory."""
    if recipe.trains_by_gradient:
        yield None
        return
    with scratch_folder(out) as scratch:
        yield scratch
