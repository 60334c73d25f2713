"""The evaluated method itself, trained anew on exchanged pairs: a control that no method should pass.

Beside ridge on exchanged pairs, which every report has, `evaluate --refit-permuted` adds it as `permuted_training_own`.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from ..data.table import TrialTable
from ..errors import FmriModelsError
from ..evaluation.controls import derangement
from ..modeling_fmri import FmriPreTrainedModel
from ..names import one_line
from ..pipeline_fmri import FmriToImagePipeline
from ..training_record import TrainingRecord
from .building import build_model, recipe_subjects
from .checkpoints import Checkpoints
from .recipe import Recipe
from .stages import StageRunner
from .unpaired import unpaired_tables


def refit_on_exchanged_pairs(
    pipeline: FmriToImagePipeline, table: TrialTable, record: TrainingRecord, seed: int
) -> FmriPreTrainedModel:
    """Trains a pipeline's brain model anew by its recipe, after pictures were exchanged between stimuli.

    Whatever the recipe looks at is exchanged: the pictures of the stimuli that are learned from among each other, and
    those of the stimuli on which it makes choices, such as when to stop, among themselves. What a selection had chosen
    stays. Processor and generator are the pipeline's own, which no pair went into.

    Args:
        pipeline: The evaluated pipeline.
        table: The trial table.
        record: How it was trained.
        seed: Of the exchange.

    Raises:
        FmriModelsError: The recipe is not recorded, trains the image generator, too, or reads something that the record
            has no place of; or there is nothing to exchange.
    """
    recipe = replace(_recorded_recipe(record), trackers=[])
    processor, generator, device = pipeline.processor, pipeline.image_generator, pipeline.image_generator.device
    exchanged = table.with_exchanged_stimuli(exchanged_partners(recipe, table, seed))
    # What is drawn here is to leave no trace in what is drawn elsewhere.
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng():
        out = Path(folder) / "model"
        torch.manual_seed(recipe.seed)
        model = build_model(recipe, processor, generator)
        if recipe.trains_by_gradient:
            Checkpoints(out).begin({"recipe": recipe.to_dict(), "exchanged_by": seed})
        StageRunner(recipe, exchanged, model, processor, generator, out).run()
    generator.to(device)
    return model.to(pipeline.device).eval()


def exchanged_partners(recipe: Recipe, table: TrialTable, seed: int) -> dict[str, str]:
    """Stimulus ▶ the other one whose picture it gets.

    Args:
        recipe: Says which parts of the split are learned from, and on which choices are made.
        table: The trial table.
        seed: Of the exchange.

    Raises:
        FmriModelsError: There is one stimulus only.
    """
    partners: dict[str, str] = {}
    for number, stimuli in enumerate(_groups(recipe, table)):
        if len(stimuli) < 2:
            raise FmriModelsError(
                f"The split {recipe.split!r} has one training stimulus, whose picture can't be exchanged; evaluate "
                "without --refit-permuted."
            )
        order = derangement(len(stimuli), seed + number)
        partners |= {stimulus: stimuli[other] for stimulus, other in zip(stimuli, order, strict=True)}
    return partners


def _groups(recipe: Recipe, table: TrialTable) -> Iterator[list[str]]:
    """Stimuli that are learned from, and those that choices are made on; together where some are both, or one alone."""
    held_out_parts = {part for stage in recipe.stages for part in stage.held_out_parts} - set(recipe.train_parts)
    training, held_out = (
        {
            stimulus
            for subject in (recipe_subjects(recipe, table) if parts else [])
            for stimulus in table.trials(subject, sorted(parts), recipe.split, recipe.fold).stimulus_ids.tolist()
            if stimulus
        }
        for parts in (set(recipe.train_parts), held_out_parts)
    )
    if not held_out:
        yield sorted(training)
    elif training & held_out or len(held_out) < 2:
        yield sorted(training | held_out)
    else:
        yield sorted(training)
        yield sorted(held_out)


def _recorded_recipe(record: TrainingRecord) -> Recipe:
    if not record.recipe:
        raise FmriModelsError(
            "The pipeline's training record has no recipe, by which the method could be trained on exchanged pairs; "
            "evaluate without --refit-permuted."
        )
    if record.trains_generator:
        raise FmriModelsError(
            "The pipeline's recipe trains the image generator, too, which would change the one that is evaluated; "
            "evaluate without --refit-permuted."
        )
    recipe = Recipe.from_published(record.recipe, "in the pipeline's training record")
    if recipe.adaptation is not None or recipe.sources:
        raise FmriModelsError(
            "The pipeline's recipe adds subjects to another model or has sources, which are not recorded with it, so "
            "that the method can't be trained on exchanged pairs; evaluate without --refit-permuted."
        )
    if others := [place for stage in recipe.stages for place in unpaired_tables(stage.unpaired)]:
        raise FmriModelsError(
            f"The pipeline's recipe reads the table {one_line(others[0], 120)}, of which the training record keeps no "
            "path, so that the method can't be trained on exchanged pairs; evaluate without --refit-permuted."
        )
    for what, place in (
        ("initial_model", recipe.initial_model),
        *((f"teacher of the stage {stage.name!r}", stage.teacher) for stage in recipe.stages),
    ):
        if place is not None and " (a folder, " in place:
            raise FmriModelsError(
                f"The pipeline's recipe has the {what} {place}, of which the training record keeps no path, so that "
                "the method can't be trained on exchanged pairs; evaluate without --refit-permuted."
            )
    return recipe
