"""One run of training: a recipe on one fold of a table, with checkpoints beside the output folder."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch

from .. import progress
from ..data.table import TrialTable
from ..model_subjects import remove_subjects
from ..modeling_fmri import FmriPreTrainedModel
from ..output_folders import check_room
from ..pipeline_fmri import FmriToImagePipeline
from ..registry import get_method
from ..saving import scratch_folder
from ..subject_adapters import rest_adapters
from .building import build_model, image_generator_for, num_weight_bytes, recipe_subjects, training_subjects
from .checkpoints import KEPT_CHECKPOINTS, Checkpoints
from .learning_generator import note_learned_weights, untrained_source
from .processes import processes
from .recipe import Recipe
from .settling import settled_drawing, settled_recipe
from .sources import source_tables
from .stages import StageRunner


class Trained(NamedTuple):
    """What a training gave: the pipeline, the result of each stage, and the time over all runs."""

    pipeline: FmriToImagePipeline
    history: list[dict[str, Any]]
    seconds: float


@contextmanager
def trained(recipe: Recipe, table: TrialTable, out: Path, resume: bool) -> Iterator[Trained]:
    """A trained pipeline; what an interrupted training would go on from is kept until the pipeline was used.

    Args:
        recipe: Of one fold; its selection is made.
        table: The trial table.
        out: Where the pipeline will be saved; checkpoints are beside it.
        resume: Go on with an interrupted training, if there is one.

    Raises:
        FmriModelsError: The recipe does not fit the data or the interrupted training.
        TrainingInterrupted: When a checkpoint is saved.
    """
    started = time.perf_counter()
    recipe = settled_recipe(recipe, table, recipe_subjects(recipe, table))
    checkpoints = Checkpoints(out) if recipe.trains_by_gradient else None
    run = run_identity(recipe, table)
    resume = resume and checkpoints is not None and checkpoints.exists
    if checkpoints is not None and resume:
        checkpoints.check_same_run(run)
    torch.manual_seed(recipe.seed)
    with processes().main_process_first():
        with progress.phase("Reading the training trials"):
            subjects = training_subjects(recipe, table)
        generator = image_generator_for(recipe, table)
    # What can't be drawn with is known before the training.
    generator.check_settings(generator.drawing_settings.changed(recipe.drawing))
    with _weights_folder(recipe, out) as scratch:
        model = build_model(recipe, subjects, generator, scratch)
        check_room(out, _bytes_on_disk(model, recipe))
        runner = StageRunner(recipe, table, model, subjects.own, generator, out, subjects)
        with nullcontext() if checkpoints is None else checkpoints.kept_for_resume(run, resume):
            history = runner.run(resume)
            learned = runner.learned(len(recipe.stages) - 1)
            is_changed = bool(learned) and note_learned_weights(generator, model, learned)
            named = recipe.generator if is_changed else None
            before = None if named is None else untrained_source(named, generator)
            remove_subjects(model, list(subjects.passing))
            rest_adapters(model)
            pipeline_class = get_method(recipe.method).load("pipeline")
            pipeline = pipeline_class(
                model,
                subjects.processor,
                None if recipe.generator is None else generator,
                drawing_settings=settled_drawing(recipe, model.config),
                untrained_generator_source=before,
            )
            yield Trained(pipeline, history, time.perf_counter() - started + runner.earlier_seconds)
        if checkpoints is not None and processes().is_main_process:
            checkpoints.remove()
        processes().wait_for_everyone()


def run_identity(recipe: Recipe, table: TrialTable) -> dict[str, Any]:
    """What has to be the same for an interrupted training to go on."""
    identity = {
        "recipe": recipe.to_dict(),
        "table_fingerprint": table.fingerprint,
        "split_fingerprint": table.split_fingerprint(recipe.split),
    }
    for number, source in enumerate(source_tables(recipe.sources)):
        of = TrialTable.open(source.data)
        identity[f"source_{number}"] = f"{of.fingerprint} {of.split_fingerprint(source.split)}"
    return identity


def _bytes_on_disk(model: FmriPreTrainedModel, recipe: Recipe) -> int:
    """What the pipeline's weights will take, and those of the checkpoints, without the state of optimisers."""
    size = num_weight_bytes(model)
    return size * (KEPT_CHECKPOINTS + 2) if recipe.trains_by_gradient else size


@contextmanager
def _weights_folder(recipe: Recipe, out: Path) -> Iterator[Path | None]:
    """A folder for the weights of a closed-form method; None for training by gradient, which needs them in memory."""
    if recipe.trains_by_gradient:
        yield None
        return
    with scratch_folder(out) as scratch:
        yield scratch
