"""The stages of a recipe one after the other, in closed form or by gradient, from where an earlier run ended."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from transformers.utils import logging

from .. import progress
from ..data.augmentation import picture_augmentation
from ..data.closed_form import closed_form_trials
from ..data.loading import TrialDataset, gradient_trials
from ..data.processed import Repetitions
from ..data.table import TrialTable
from ..data.targets import Target
from ..encoders.closed_form import ClosedFormTrials
from ..errors import FmriModelsError
from ..generation.image_generator import ImageGenerator
from ..modeling_fmri import FmriPreTrainedModel
from ..processing_fmri import FmriProcessor
from .building import recipe_targets
from .checkpoints import Checkpoints, StageState, read_state
from .gradient import GradientStage
from .loop import StageLoop
from .online_targets import OnlineTargets, load_teacher
from .processes import processes
from .randomness import StageIdentity
from .recipe import Recipe, Stage
from .restoring import restore_model, restore_stage, resumed_state
from .simulated_trials import SimulatedTrials
from .stage_objectives import closed_form_objective, gradient_objective, stage_objective
from .trackers import log_folder
from .trial_simulation import trial_simulation

logger = logging.get_logger(__name__)


@dataclass
class StageRunner:
    """What the stages of a recipe share.

    Args:
        recipe: The recipe.
        table: The trial table.
        model: Is trained in place.
        processor: Prepares the voxels.
        generator: Gives the targets.
        out: Output folder of the training; checkpoints and logs are beside it. None where nothing is written.
    """

    recipe: Recipe
    table: TrialTable
    model: FmriPreTrainedModel
    processor: FmriProcessor
    generator: ImageGenerator
    out: Path | None = None
    _history: list[dict[str, Any]] = field(default_factory=list)
    _earlier_seconds: float = 0.0

    def __post_init__(self) -> None:
        self.targets = recipe_targets(self.recipe, self.generator)

    def run(self, resume: bool = False) -> list[dict[str, Any]]:
        """Runs the stages, those left of an interrupted run with `resume`.

        Returns:
            Name and result of each stage.
        """
        for stage in self.recipe.stages:
            stage_objective(self.recipe, stage)
        checkpoints = self._checkpoints()
        first = self._restore_finished(checkpoints) if checkpoints is not None and resume else 0
        for number in range(first, len(self.recipe.stages)):
            if checkpoints is not None and self.recipe.stages[number].training is not None:
                self._train(number, checkpoints)
            else:
                self._fit(number, checkpoints)
        return self._history

    @property
    def earlier_seconds(self) -> float:
        """Time that interrupted runs have spent on what this one goes on with."""
        return self._earlier_seconds

    def gradient_stage(self, number: int) -> GradientStage:
        """Model, optimiser and data of a stage that is trained by gradient.

        Raises:
            FmriModelsError: The objective is in closed form, there are no examples, or an option does not fit.
        """
        stage, recipe = self.recipe.stages[number], self.recipe
        assert stage.training is not None
        objective = gradient_objective(recipe, stage)
        targets = [target for target in self.targets if objective.targets is None or target in objective.targets]
        with processes().main_process_first():
            online = self._online_targets(stage, targets)
            cached = [target for target in targets if online is None or target not in online.targets]
            data = self._examples(stage.train_on, cached, recipe.repetitions)
            # What training makes anew in each step needs no cache but for the pictures that are held out.
            held_out = self._held_out_examples(stage, targets, whole_table=cached == targets)
        if len(data) == 0:
            raise FmriModelsError(
                f"The stage {stage.name!r} has no trials to learn from in {', '.join(stage.train_on)} of the split "
                f"{recipe.split!r}; choose other parts in train_on."
            )
        if held_out is None or len(held_out) == 0:
            held_out = None
            if stage.training.keep_best:
                logger.warning(
                    f"The stage {stage.name!r} has no validation trials, so that nothing is monitored and its last "
                    "weights are kept."
                )
        return GradientStage(
            self.model,
            objective,
            stage.training,
            data,
            held_out,
            StageIdentity(stage.name, number, recipe.seed),
            recipe.trackers if self.out is not None else [],
            log_folder(self.out) if self.out is not None else None,
            online_targets=self._simulated_trials(stage, data, targets) or online,
        )

    def _online_targets(self, stage: Stage, targets: list[Target]) -> OnlineTargets | None:
        """What is computed in each step; None where all targets are cached."""
        augmentation = picture_augmentation(stage.augmentation)
        if augmentation is None and stage.teacher is None:
            return None
        if augmentation is not None and "image_embeds" not in targets:
            raise FmriModelsError(
                f"The stage {stage.name!r} has an augmentation and learns from no embeddings of pictures; leave "
                "augmentation out."
            )
        teacher = None if stage.teacher is None else load_teacher(stage.teacher)
        return OnlineTargets(self.table, self.generator, augmentation, teacher)

    def _simulated_trials(self, stage: Stage, data: TrialDataset, targets: list[Target]) -> SimulatedTrials | None:
        """What simulates trials beside those that were measured; None where none are."""
        options = trial_simulation(stage.simulation)
        return None if options is None else SimulatedTrials(options, data, self.table, self.generator, targets)

    def _checkpoints(self) -> Checkpoints | None:
        """None where all is in closed form, which has nothing to go on from."""
        return Checkpoints(self.out) if self.out is not None and self.recipe.trains_by_gradient else None

    def _restore_finished(self, checkpoints: Checkpoints) -> int:
        """Puts the result of the last finished stage into the model; gives the number of the next one."""
        finished = checkpoints.last_finished()
        if finished is None:
            return 0
        restore_model(self.model, finished)
        state = read_state(finished)
        self._history = state.history
        self._earlier_seconds = sum(entry.get("seconds", 0.0) for entry in self._history)
        return state.stage + 1

    def _train(self, number: int, checkpoints: Checkpoints) -> None:
        fresh = StageState(stage=number, history=list(self._history))
        state, folder = resumed_state(self.model, checkpoints, fresh)
        self._earlier_seconds += state.seconds
        with progress.phase(f"Preparing {self._described(number)}: trials and targets"):
            stage = self.gradient_stage(number)
        if folder is not None:
            restore_stage(stage, state, folder)
        state = StageLoop(stage, checkpoints, state, self._described(number)).run()
        stage.close()
        if stage.online_targets is not None:
            self.generator.to("cpu")
        best = next((each for each in state.validations if each["step"] == state.best_step), None)
        result = {
            "steps": state.step,
            "kept_step": state.best_step if stage.options.keep_best and best is not None else state.step,
            "best_step": state.best_step,
            "best_validation": best,
            "validations": state.validations,
        }
        self._finish(number, result, state.seconds, checkpoints)

    def _described(self, number: int) -> str:
        """How bars call a stage."""
        stages = self.recipe.stages
        which = f" (stage {number + 1} of {len(stages)})" if len(stages) > 1 else ""
        return f"{stages[number].name}{which}"

    def _fit(self, number: int, checkpoints: Checkpoints | None) -> None:
        stage, recipe = self.recipe.stages[number], self.recipe
        objective = closed_form_objective(recipe, stage)
        trials = partial(closed_form_trials, self.table, self.processor, self.generator, self.targets)
        # A recipe refuses all repetitions beside a stage in closed form.
        assert recipe.repetitions != "all"
        where = (recipe.split, recipe.fold, recipe.repetitions)
        held_out = trials(stage.held_out_parts, *where) if stage.held_out_parts else None
        training = trials(stage.train_on, *where)
        with progress.phase(f"Fitting {self._described(number)} in closed form"):
            result = objective.fit(self.model, training, held_out)
        self._finish(number, result, None, checkpoints, learned_from=_learned_from(stage, training))

    def _finish(
        self, number: int, result: Any, seconds: float | None, checkpoints: Checkpoints | None, **about: Any
    ) -> None:
        entry: dict[str, Any] = {"stage": self.recipe.stages[number].name, "result": result, **about}
        if seconds is not None:
            entry["seconds"] = round(seconds, 2)
        self._history.append(entry)
        if checkpoints is None:
            return
        if processes().is_main_process:
            checkpoints.save_finished(self.model, StageState(stage=number, history=self._history))
        processes().wait_for_everyone()

    def _held_out_examples(self, stage: Stage, targets: list[Target], whole_table: bool) -> TrialDataset | None:
        """Validations can be compared only if neither pictures nor repetitions are drawn."""
        if not stage.held_out_parts:
            return None
        repetitions: Repetitions = "average" if self.recipe.repetitions == "all" else self.recipe.repetitions
        return self._examples(stage.held_out_parts, targets, repetitions, whole_table)

    def _examples(
        self, parts: list[str], targets: list[Target], repetitions: Repetitions, whole_table: bool = True
    ) -> TrialDataset:
        split, fold = self.recipe.split, self.recipe.fold
        return gradient_trials(
            self.table, self.processor, self.generator, targets, parts, split, fold, repetitions, whole_table
        )


def _learned_from(stage: Stage, trials: Mapping[str, ClosedFormTrials]) -> dict[str, Any]:
    """For the record: subject ▶ what a closed form was fitted to, and what was left out at a time to choose on it."""
    return {
        subject: {
            "parts": stage.train_on,
            "rows": len(each.stimulus_ids),
            "stimuli": len(set(each.stimulus_ids.tolist())),
            "leaves_out": None if stage.objective.get("selection") == "validation" else each.leaves_out,
        }
        for subject, each in trials.items()
    }
