"""What an interrupted training goes on from: folders that are complete or absent, beside the output folder."""

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, Field
from safetensors.torch import save_file, save_model

from ..errors import FmriModelsError
from ..modeling_fmri import FmriPreTrainedModel
from ..names import one_line
from ..reading import checked
from ..saving import atomic_folder
from .curve import MAX_POINTS, RunningLoss, TrainLoss
from .run_folder import RunFolder, read_versioned, versioned_text

STATE_FILE = "state.json"
MODEL_FILE = "model.safetensors"
# What an image generator has learned in this stage or an earlier one.
GENERATOR_FILE = "image_generator.safetensors"
Learned = Mapping[str, torch.Tensor]
KEPT_CHECKPOINTS = 2
_STAGE = "stage{:02d}"
_STEP = "step-{:08d}"
_BEST = "best-{:08d}"
_MEND = "delete that folder, and --resume goes on from what was there before it"


def _each_with_number(key: str, needed: bool) -> AfterValidator:
    """Checks what a resumed run computes with in each of some mappings."""

    def check(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for entry in entries:
            value = entry.get(key, None if needed else 0)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"a number as {key}")
        return entries

    return AfterValidator(check)


_Count = Annotated[int, Field(ge=0, lt=2**62)]
_Value = Annotated[float, Field(allow_inf_nan=False)]


_Validations = Annotated[list[dict[str, Any]], _each_with_number("step", needed=True)]
_History = Annotated[list[dict[str, Any]], _each_with_number("seconds", needed=False)]


@dataclass
class StageState:
    """How far a stage is.

    Args:
        stage: Number of the stage, from 0.
        step: Steps that are done.
        best_step: After which step the validation was best; None before the first one.
        best_value: The monitored metric there.
        validations: What each validation gave, with its `step`.
        train_losses: `step` and `loss` of each point of the training loss so far.
        running_losses: Sum and number of the training losses since the last point, of each process.
        seconds: Time so far, over all runs.
        history: Results of the stages before this one, and of this one once it is finished.
        extra: What else goes with the weights, such as the scale of the gradients.
    """

    stage: _Count
    step: _Count = 0
    best_step: _Count | None = None
    best_value: _Value | None = None
    validations: _Validations = field(default_factory=list)
    train_losses: Annotated[list[TrainLoss], Field(max_length=MAX_POINTS + 1)] = field(default_factory=list)
    running_losses: list[RunningLoss] = field(default_factory=list)
    seconds: Annotated[_Value, Field(ge=0)] = 0.0
    history: _History = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)


class Checkpoints(RunFolder):
    """The folder of one training run.

    `run.json` says what is trained. `stage00/step-00000100/` is a checkpoint, `stage00/best-00000080/` the best weights
    by validation, `stage00/finished/` the result of a stage. Each appears complete or not at all, and none is replaced:
    an old one is removed after a new one is there.

    Args:
        out: The output folder of the training; the checkpoints are in the hidden folder `.<name>.training` beside it.
    """

    purpose = "training"

    @property
    def exists(self) -> bool:
        """Whether there is anything to go on from."""
        return any(self.folder.glob("stage*/step-*")) or self.last_finished() is not None

    def last_finished(self) -> Path | None:
        """The result of the last stage that is finished."""
        found = sorted(path for path in self.folder.glob("stage*/finished") if (path / STATE_FILE).is_file())
        return found[-1] if found else None

    def latest(self, stage: int) -> Path | None:
        """The newest checkpoint of a stage."""
        found = sorted(self._stage(stage).glob("step-*"))
        return found[-1] if found else None

    def save_step(
        self,
        model: FmriPreTrainedModel,
        state: StageState,
        tensors: Mapping[str, Mapping[str, torch.Tensor]],
        learned: Learned | None = None,
    ) -> Path:
        """Saves a checkpoint and removes those that it makes needless.

        Args:
            model: Weights and configuration.
            state: How far the stage is.
            tensors: File name ▶ tensors, such as the optimiser's.
            learned: Name ▶ parameter of the image generator that has learned; nothing or None where none has.
        """
        folder = self._save(self._stage(state.stage) / _STEP.format(state.step), model, state, learned, tensors)
        self._prune(state)
        return folder

    def save_best(self, model: FmriPreTrainedModel, state: StageState, learned: Learned | None = None) -> Path:
        """Saves the best weights so far; earlier ones go with the checkpoints that name them."""
        return self._save(self._stage(state.stage) / _BEST.format(state.best_step), model, state, learned)

    def best(self, state: StageState) -> Path:
        """The best weights that a state names."""
        return self._stage(state.stage) / _BEST.format(state.best_step)

    def save_finished(self, model: FmriPreTrainedModel, state: StageState, learned: Learned | None = None) -> None:
        """Saves the result of a stage, and removes its checkpoints and the results of earlier stages."""
        finished = self._save(self._stage(state.stage) / "finished", model, state, learned)
        for folder in [*finished.parent.glob("step-*"), *finished.parent.glob("best-*")]:
            shutil.rmtree(folder)
        for number in range(state.stage):
            shutil.rmtree(self._stage(number), ignore_errors=True)

    def _stage(self, number: int) -> Path:
        return self.folder / _STAGE.format(number)

    def _save(
        self,
        folder: Path,
        model: FmriPreTrainedModel,
        state: StageState,
        learned: Learned | None = None,
        tensors: Mapping[str, Mapping[str, torch.Tensor]] | None = None,
    ) -> Path:
        with atomic_folder(folder, overwrite=True) as partial:
            save_model(model, str(partial / MODEL_FILE))
            model.config.save_pretrained(partial)
            if learned:
                save_file(
                    {key: value.detach().contiguous() for key, value in learned.items()}, partial / GENERATOR_FILE
                )
            for name, values in (tensors or {}).items():
                save_file({key: value.contiguous() for key, value in values.items()}, partial / f"{name}.safetensors")
            (partial / STATE_FILE).write_text(versioned_text(asdict(state)), encoding="utf-8")
        return folder

    def _prune(self, state: StageState) -> None:
        steps = sorted(self._stage(state.stage).glob("step-*"))
        for folder in steps[:-KEPT_CHECKPOINTS]:
            shutil.rmtree(folder)
        named = {read_state(folder).best_step for folder in steps[-KEPT_CHECKPOINTS:]} | {state.best_step}
        needed = {_BEST.format(step) for step in named if step is not None}
        for folder in self._stage(state.stage).glob("best-*"):
            if folder.name not in needed:
                shutil.rmtree(folder)


def read_state(folder: Path) -> StageState:
    """The state that a checkpoint holds.

    Raises:
        FmriModelsError: It is damaged, of another place than the folder's name says, or was written by a newer version.
    """
    values = read_versioned(folder / STATE_FILE, _MEND)
    state = checked(values, StageState, f"The state of the checkpoint {folder}", _MEND)
    names = (_STEP.format(state.step), _BEST.format(state.best_step or 0), "finished")
    if folder.name not in names or folder.parent.name != _STAGE.format(state.stage):
        raise FmriModelsError(damaged(folder, f"its state is of step {state.step} of stage {state.stage}"))
    validated = {entry.get("step") for entry in state.validations}
    if state.validations and state.best_step not in validated:
        raise FmriModelsError(damaged(folder, "its state has validations and no best step among them"))
    return state


def damaged(folder: Path, reason: object) -> str:
    """The sentence on a checkpoint that can't be read."""
    first = one_line(next(iter(str(reason).splitlines()), "unreadable"))
    return f"The checkpoint {folder} is damaged ({first}); {_MEND}."
