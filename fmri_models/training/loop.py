"""The loop over a stage's steps: validation, checkpoints, interruptions, logging."""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace

from tqdm import tqdm

from .. import progress as bars
from ..batch import Batch
from ..errors import FmriModelsError
from .checkpoints import Checkpoints, Learned, StageState
from .curve import RunningLoss, is_point, mean_loss, no_losses, with_loss
from .finite import NotFiniteError
from .gradient import GradientStage
from .interruption import TrainingInterrupted, interruption
from .processes import any_process, from_all
from .restoring import restore_learned, restore_model

# Without a choice, a stage is validated and saved so many times.
_TIMES_IN_A_STAGE = 10


@dataclass
class StageLoop:
    """Trains one stage from where it is to its end.

    Args:
        stage: Model, optimiser and data.
        checkpoints: Where checkpoints are.
        state: How far the stage is.
        described: What its bar says is trained; the stage's name if it is empty.
        learned: Name ▶ parameter of the image generator that this stage or an earlier one trains.
    """

    stage: GradientStage
    checkpoints: Checkpoints
    state: StageState
    described: str = ""
    learned: Learned = field(default_factory=dict)
    _losses: dict[str, float] = field(default_factory=dict)
    _running: RunningLoss = field(default_factory=no_losses)

    def run(self) -> StageState:
        """Trains to the end of the stage; the model has its best weights then.

        Raises:
            FmriModelsError: A value is not finite, the disk is full, or the monitored metric is not measured.
            TrainingInterrupted: After SIGINT or SIGTERM, when the checkpoint is saved.
        """
        options, num_steps = self.stage.options, self.stage.num_steps
        began = time.perf_counter() - self.state.seconds
        if self.state.step == 0:
            self._check_monitor()
        self._running = self._running_so_far()
        batches = self.stage.batches(self.state.step)
        with interruption() as interrupted, self._trackers(), self._progress() as progress:
            for step in range(self.state.step, num_steps):
                self._update(step, batches)
                done = self.state.step = step + 1
                progress.set_postfix(loss=f"{self._losses['loss']:.4g}", refresh=False)
                progress.update()
                self._note_loss(done)
                if done % options.log_every == 0 or done == num_steps:
                    self._log(self._losses, "train")
                if self._is_due(done, options.validate_every) or done == num_steps:
                    self._validate()
                self.state.seconds = time.perf_counter() - began
                stops = any_process([interrupted.is_set()], self.stage.accelerator.device)[0]
                if stops or (self._is_due(done, options.checkpoint_every) and done < num_steps):
                    self._save()
                if stops:
                    raise self._interrupted(interrupted.number)
        self._choose_weights()
        self.state.seconds = time.perf_counter() - began
        return self.state

    def _update(self, step: int, batches: Iterator[Batch]) -> None:
        try:
            self._losses = self.stage.update(step, batches)
        except NotFiniteError as error:
            raise self._not_finite(step + 1, str(error)) from error

    def _running_so_far(self) -> RunningLoss:
        """This process' losses since the last point; an equal share of all where processes are others than before."""
        before = self.state.running_losses
        accelerator = self.stage.accelerator
        if len(before) == accelerator.num_processes:
            return before[accelerator.process_index]
        steps = before[0]["steps"] if before else 0
        return {"sum": mean_loss(before) * steps, "steps": steps} if steps else no_losses()

    def _note_loss(self, done: int) -> None:
        self._running = with_loss(self._running, self._losses["loss"])
        if is_point(done, self.stage.num_steps):
            self.state.train_losses.append({"step": done, "loss": mean_loss(from_all(self._running))})
            self._running = no_losses()

    def _is_due(self, done: int, every: int | None) -> bool:
        return done % _interval(self.stage.num_steps, every) == 0

    def _check_monitor(self) -> None:
        """Finds out before the first step, not after hours, that the monitored metric is not measured."""
        if self.stage.held_out is not None:
            self.stage.monitored(self.stage.validate(max_batches=1))

    def _validate(self) -> None:
        if self.stage.held_out is None:
            return
        metrics = self.stage.validate()
        value = self.stage.monitored(metrics)
        if not math.isfinite(value):
            raise self._not_finite(self.state.step, f"the validation metric {self.stage.options.monitor!r} is {value}")
        self._log(metrics, "validation")
        self.state.validations.append({"step": self.state.step, **metrics})
        if self.stage.options.is_better(value, self.state.best_value):
            self.state.best_step, self.state.best_value = self.state.step, value
            if self.stage.options.keep_best and self.stage.accelerator.is_main_process:
                with self.stage.weights.averaged():
                    self.checkpoints.save_best(self.stage.model, self.state, self.learned)
        self.stage.accelerator.wait_for_everyone()

    def _save(self) -> None:
        state = replace(self.state, running_losses=from_all(self._running), extra=self.stage.weights.extra_state())
        if self.stage.accelerator.is_main_process:
            self.checkpoints.save_step(self.stage.model, state, self.stage.weights.tensors(), self.learned)
        self.stage.accelerator.wait_for_everyone()

    def _choose_weights(self) -> None:
        if self.stage.options.keep_best and self.state.best_step is not None:
            best = self.checkpoints.best(self.state)
            restore_model(self.stage.model, best)
            restore_learned(self.learned, best)
        else:
            self.stage.weights.keep_average()

    def _log(self, values: Mapping[str, float], group: str) -> None:
        if not self.stage.accelerator.trackers and self.stage.accelerator.num_processes == 1:
            return
        if group == "train":
            everyone = from_all(dict(values))
            values = {name: sum(each[name] for each in everyone) / len(everyone) for name in values}
        named = {f"{group}/{name}": value for name, value in values.items()}
        self.stage.accelerator.log(named, step=self.state.step)

    @contextmanager
    def _trackers(self) -> Iterator[None]:
        accelerator = self.stage.accelerator
        if accelerator.log_with:
            options = {key: value for key, value in asdict(self.stage.options).items() if value is not None}
            accelerator.init_trackers(self.stage.identity.name, config=options)
        try:
            yield
        finally:
            # Not end_training(), which also takes leave of the other processes; there may be stages to come.
            for tracker in accelerator.trackers:
                tracker.finish()

    def _progress(self) -> tqdm:
        return bars.bar(
            name=f"Training {self.described or self.stage.identity.name}",
            total=self.stage.num_steps,
            initial=self.state.step,
            disable=not self.stage.accelerator.is_main_process,
        )

    def _interrupted(self, number: int) -> TrainingInterrupted:
        error = TrainingInterrupted(
            f"training was interrupted after step {self.state.step} of {self.stage.num_steps} of the stage "
            f"{self.stage.identity.name!r}; the same command with --resume goes on from there."
        )
        error.signal = number
        return error

    def _not_finite(self, step: int, what: str) -> FmriModelsError:
        last = self.checkpoints.latest(self.state.stage) or self.checkpoints.last_finished()
        kept = f"the checkpoint {last} is the last good one" if last else "there was no checkpoint yet"
        return FmriModelsError(
            f"Training stopped in step {step} of the stage {self.stage.identity.name!r}: {what}; {kept}. A lower "
            "learning rate, max_grad_norm, or mixed_precision=no may help (start again with --overwrite)."
        )


def times_in_a_stage(num_steps: int, every: int | None) -> int:
    """How often something happens that is due after every so many steps and after the last one."""
    return math.ceil(num_steps / _interval(num_steps, every))


def _interval(num_steps: int, every: int | None) -> int:
    return every or math.ceil(num_steps / _TIMES_IN_A_STAGE)
