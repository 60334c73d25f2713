"""The stages of a recipe one after the other, in closed form or by gradient, from where an earlier run ended."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from .. import progress
from ..closed_form_trials import ClosedFormTrials
from ..data.table import TrialTable
from ..errors import FmriModelsError
from ..generation.generator_adapter import lora_parameters
from ..generation.image_generator import ImageGenerator
from ..modeling_fmri import FmriPreTrainedModel
from ..processing_fmri import FmriProcessor
from .adaptation import learning_parameters
from .checkpoints import Checkpoints, StageState, read_state
from .curve import curve
from .gradient import GradientStage
from .learning_generator import check_can_learn, check_not_a_source, generator_entry, put_lora_of
from .loop import StageLoop
from .processes import processes
from .randomness import StageIdentity
from .recipe import Recipe, Stage
from .restoring import restore_learned, restore_model, restore_stage, resumed_state
from .stage_examples import StageExamples
from .stage_objectives import closed_form_objective, gradient_objective, stage_objective
from .trackers import log_folder
from .training_subjects import TrainingSubjects


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
        subjects: Whom the model has in training; None for those of the processor.
    """

    recipe: Recipe
    table: TrialTable
    model: FmriPreTrainedModel
    processor: FmriProcessor
    generator: ImageGenerator
    out: Path | None = None
    subjects: TrainingSubjects | None = None
    _history: list[dict[str, Any]] = field(default_factory=list)
    _earlier_seconds: float = 0.0

    def __post_init__(self) -> None:
        self.examples = StageExamples(self.recipe, self.table, self.processor, self.generator, self.subjects)

    def run(self, resume: bool = False) -> list[dict[str, Any]]:
        """Runs the stages, those left of an interrupted run with `resume`.

        Returns:
            Name and result of each stage.
        """
        for stage in self.recipe.stages:
            self.examples.check_labelled(stage, stage_objective(self.recipe, stage))
            if stage.generator_training is not None:
                check_can_learn(self.generator, stage.generator_training)
        if all(map(self._rests, range(len(self.recipe.stages)))):
            raise FmriModelsError(
                f"No stage of the recipe trains anything that may learn with {self._adaptation}; choose stages that "
                "train layers of subjects, or adaptation: lora or full."
            )
        checkpoints = self._checkpoints()
        first = self._restore_finished(checkpoints) if checkpoints is not None and resume else 0
        for number in range(first, len(self.recipe.stages)):
            if self._rests(number):
                progress.say(
                    f"{self._described(number)}: nothing of it may learn with {self._adaptation}; it is left out"
                )
                continue
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
        examples = self.examples.by_gradient(stage, objective.targets)
        check_not_a_source(self.generator, stage.generator_training, examples.targets, stage.name)
        self._put_lora(number)
        return GradientStage(
            self.model,
            objective,
            stage.training,
            examples.data,
            examples.held_out,
            StageIdentity(stage.name, number, recipe.seed),
            recipe.trackers if self.out is not None else [],
            log_folder(self.out) if self.out is not None else None,
            online_targets=examples.online_targets,
            generator=self.generator,
            generator_training=stage.generator_training,
            unpaired=examples.unpaired,
            among=self._may_learn(),
        )

    def _rests(self, number: int) -> bool:
        """Whether a stage trains nothing of what may learn in the recipe's adaptation.

        With `reset`, that is each stage whose part of the model all subjects share, such as a prior.
        """
        stage = self.recipe.stages[number]
        may_learn = self._may_learn()
        if may_learn is None or stage.training is None or stage.generator_training is not None:
            return False
        trained = {id(parameter) for parameter in gradient_objective(self.recipe, stage).trainable(self.model)}
        return not any(id(parameter) in trained for parameter in may_learn)

    def _may_learn(self) -> list[torch.nn.Parameter] | None:
        return None if self.subjects is None else learning_parameters(self.recipe, self.model, self.subjects)

    @property
    def _adaptation(self) -> str:
        return f"adaptation: {self.recipe.adaptation}"

    def learned(self, number: int) -> dict[str, torch.nn.Parameter]:
        """Name ▶ parameter of the image generator that a stage, or one before it, trains."""
        stages = self.recipe.stages[: number + 1]
        groups = sorted({group for stage in stages for group in stage.generator_groups})
        return {**self.generator.parameters_of(groups), **lora_parameters(self.generator)}

    def _put_lora(self, number: int) -> None:
        """Puts the LoRA on the image generator that a stage, or one before it, trains, if it is not there yet."""
        for stage in self.recipe.stages[: number + 1]:
            if stage.generator_training is not None:
                put_lora_of(self.generator, stage.generator_training, self.recipe.seed)

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
        self._put_lora(state.stage)
        restore_learned(self.learned(state.stage), finished)
        self._history = state.history
        self._earlier_seconds = sum(entry.get("seconds", 0.0) for entry in self._history)
        return state.stage + 1

    def _train(self, number: int, checkpoints: Checkpoints) -> None:
        fresh = StageState(stage=number, history=list(self._history))
        state, folder = resumed_state(self.model, checkpoints, fresh)
        self._put_lora(number)
        learned = self.learned(number)
        if folder is not None:
            restore_learned(learned, folder)
        self._earlier_seconds += state.seconds
        with progress.phase(f"Preparing {self._described(number)}: trials and targets"):
            stage = self.gradient_stage(number)
        trained = sum(parameter.numel() for parameter in stage.weights.parameters)
        if self.recipe.adaptation is not None:
            total = sum(parameter.numel() for parameter in self.model.parameters())
            progress.say(f"{self._described(number)}: {trained:,} of {total:,} parameters are trained")
        if folder is not None:
            restore_stage(stage, state, folder)
        state = StageLoop(stage, checkpoints, state, self._described(number), learned).run()
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
        about: dict[str, Any] = {"curve": curve(state.train_losses, state.validations)}
        if self.recipe.adaptation is not None:
            about["trained_parameters"] = trained
        if (training := self.recipe.stages[number].generator_training) is not None:
            about["image_generator"] = generator_entry(self.generator, training)
            about["drops_conditions"] = stage.objective.drops_conditions
        self._finish(number, result, state.seconds, checkpoints, **about)

    def _described(self, number: int) -> str:
        """How bars call a stage."""
        stages = self.recipe.stages
        which = f" (stage {number + 1} of {len(stages)})" if len(stages) > 1 else ""
        return f"{stages[number].name}{which}"

    def _fit(self, number: int, checkpoints: Checkpoints | None) -> None:
        stage = self.recipe.stages[number]
        objective = closed_form_objective(self.recipe, stage)
        held_out = self.examples.in_closed_form(stage.held_out_parts) if stage.held_out_parts else None
        training = self.examples.in_closed_form(stage.train_on)
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
            state = StageState(stage=number, history=self._history)
            checkpoints.save_finished(self.model, state, self.learned(number))
        processes().wait_for_everyone()


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
