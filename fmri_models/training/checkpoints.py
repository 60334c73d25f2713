"""What an interrupted training goes on from: folders that are complete or absent, beside the output folder."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from huggingface_hub.errors import StrictDataclassError
from pydantic import AfterValidator, Field
from safetensors import SafetensorError
from safetensors.torch import load_file, load_model, save_file, save_model

from ..errors import FmriModelsError
from ..modeling_fmri import FmriPreTrainedModel
from ..names import one_line
from ..original_checkpoint import check_finite
from ..reading import checked, read_object
from ..saving import atomic_folder, check_schema, json_text, remove_folder, write_text
from ..swapping import is_partial, recover_below
from ..training_record import differing
from ..version import __version__

TRAINING_SCHEMA = 1
RUN_FILE = "run.json"
STATE_FILE = "state.json"
MODEL_FILE = "model.safetensors"
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
        seconds: Time so far, over all runs.
        history: Results of the stages before this one, and of this one once it is finished.
        extra: What else goes with the weights, such as the scale of the gradients.
    """

    stage: _Count
    step: _Count = 0
    best_step: _Count | None = None
    best_value: _Value | None = None
    validations: _Validations = field(default_factory=list)
    seconds: Annotated[_Value, Field(ge=0)] = 0.0
    history: _History = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)


class RunFolder:
    """A hidden folder beside an output folder, of something that can be interrupted; `run.json` says what it is.

    Args:
        out: The output folder; the hidden one is `.<name>.<purpose>` beside it.
    """

    purpose: ClassVar[str]

    def __init__(self, out: Path) -> None:
        out = out.absolute()
        self.folder = out.parent / f".{out.name}.{self.purpose}"

    def check_own(self) -> None:
        """Refuses a folder of that name that no training has made.

        Raises:
            FmriModelsError: There is content and no `run.json`.
        """
        if self.folder.is_symlink() or (self.folder.exists() and not self.folder.is_dir()):
            raise FmriModelsError(
                f"{self.folder} is no folder, and checkpoints have to be written there; move it away."
            )
        if not self.folder.is_dir() or (self.folder / RUN_FILE).is_file():
            return
        if any(not is_partial(path.name) for path in self.folder.iterdir()):
            raise FmriModelsError(
                f"{self.folder} has content and is no folder of a training (it has no {RUN_FILE}), so that it is not "
                "replaced; move it away."
            )

    def begin(self, run: Mapping[str, Any]) -> None:
        """Starts a new run; what an earlier one left is removed.

        Raises:
            FmriModelsError: The folder is not a training's, or can't be written.
        """
        self.check_own()
        self.remove()
        values = {"schema": TRAINING_SCHEMA, "fmri_models_version": __version__, **run}
        write_text(self.folder / RUN_FILE, json_text(values))

    def check_same_run(self, run: Mapping[str, Any]) -> None:
        """Refuses to go on with something else than what was begun.

        Raises:
            FmriModelsError: Names the first difference.
        """
        begun = _read(self.folder / RUN_FILE, "start again with --overwrite")
        for key, difference in differences(begun, run):
            if key not in ("schema", "fmri_models_version"):
                raise FmriModelsError(
                    f"The interrupted training in {self.folder} {difference}; resume with the same recipe and data, or "
                    "start again with --overwrite."
                )

    def remove(self) -> None:
        """Removes everything."""
        remove_folder(self.folder)

    def recover(self) -> None:
        """Removes what a killed process had begun to write, and undoes a replacement that was under way."""
        recover_below(self.folder)


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
        self, model: FmriPreTrainedModel, state: StageState, tensors: Mapping[str, Mapping[str, torch.Tensor]]
    ) -> Path:
        """Saves a checkpoint and removes those that it makes needless.

        Args:
            model: Weights and configuration.
            state: How far the stage is.
            tensors: File name ▶ tensors, such as the optimiser's.
        """
        folder = self._save(self._stage(state.stage) / _STEP.format(state.step), model, state, tensors)
        self._prune(state)
        return folder

    def save_best(self, model: FmriPreTrainedModel, state: StageState) -> Path:
        """Saves the best weights so far; earlier ones go with the checkpoints that name them."""
        return self._save(self._stage(state.stage) / _BEST.format(state.best_step), model, state)

    def best(self, state: StageState) -> Path:
        """The best weights that a state names."""
        return self._stage(state.stage) / _BEST.format(state.best_step)

    def save_finished(self, model: FmriPreTrainedModel, state: StageState) -> None:
        """Saves the result of a stage, and removes its checkpoints and the results of earlier stages."""
        finished = self._save(self._stage(state.stage) / "finished", model, state)
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
        tensors: Mapping[str, Mapping[str, torch.Tensor]] | None = None,
    ) -> Path:
        with atomic_folder(folder, overwrite=True) as partial:
            save_model(model, str(partial / MODEL_FILE))
            model.config.save_pretrained(partial)
            for name, values in (tensors or {}).items():
                save_file({key: value.contiguous() for key, value in values.items()}, partial / f"{name}.safetensors")
            saved = {"schema": TRAINING_SCHEMA, "fmri_models_version": __version__, **asdict(state)}
            (partial / STATE_FILE).write_text(json_text(saved), encoding="utf-8")
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
    values = _read(folder / STATE_FILE)
    known = {key: value for key, value in values.items() if key not in ("schema", "fmri_models_version")}
    state = checked(known, StageState, f"The state of the checkpoint {folder}", _MEND)
    names = (_STEP.format(state.step), _BEST.format(state.best_step or 0), "finished")
    if folder.name not in names or folder.parent.name != _STAGE.format(state.stage):
        raise FmriModelsError(damaged(folder, f"its state is of step {state.step} of stage {state.stage}"))
    validated = {entry.get("step") for entry in state.validations}
    if state.validations and state.best_step not in validated:
        raise FmriModelsError(damaged(folder, "its state has validations and no best step among them"))
    return state


def restore_model(model: FmriPreTrainedModel, folder: Path) -> None:
    """Puts a checkpoint's weights and configuration into a model of the same build.

    Raises:
        FmriModelsError: The checkpoint's spaces differ from the model's, or it is damaged.
    """
    try:
        saved = type(model.config).from_pretrained(folder)
    except FmriModelsError:
        raise
    # What the configuration's own checks, and those of transformers, raise on other values than they know.
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, StrictDataclassError) as error:
        raise FmriModelsError(damaged(folder, error)) from error
    check_spaces(saved, model, f"the checkpoint {folder}")
    try:
        load_model(model, str(folder / MODEL_FILE))
    except (SafetensorError, OSError, RuntimeError, ValueError, KeyError) as error:
        raise FmriModelsError(damaged(folder, error)) from error
    try:
        check_finite(model.state_dict())
    except FmriModelsError as error:
        raise FmriModelsError(damaged(folder, error)) from error
    # What a stage has set in the configuration, such as the penalties of a closed-form fit.
    model.config.__dict__.update({key: value for key, value in vars(saved).items() if not key.startswith("_")})


def restore_tensors(folder: Path, name: str) -> dict[str, torch.Tensor]:
    """Further tensors of a checkpoint.

    Raises:
        FmriModelsError: They are missing or damaged.
    """
    try:
        return load_file(folder / f"{name}.safetensors")
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise FmriModelsError(damaged(folder, error)) from error


def check_spaces(saved: Any, model: FmriPreTrainedModel, saved_name: str) -> None:
    """Refuses weights that were trained for other spaces than the image generator's.

    Args:
        saved: The configuration that goes with the weights.
        model: Built for the recipe's image generator.
        saved_name: What the weights are called in the message.

    Raises:
        FmriModelsError: Names the first difference.
    """
    for kind in ("image_embedding_space", "text_embedding_space", "latent_space"):
        own, other = saved.space(kind), model.config.space(kind)
        if own is not None and other is not None:
            own.require_equal(other, saved_name, "the image generator")
        elif own != other:
            has, lacks = (saved_name, "the model") if other is None else ("the model", saved_name)
            raise FmriModelsError(
                f"{has} has a {kind} and {lacks} has none; use the generator and targets that the weights were trained "
                "for, or train anew."
            )


def _read(path: Path, mend: str = _MEND) -> dict[str, Any]:
    try:
        values = read_object(path, "state of a training", mend)
    except FmriModelsError as error:
        raise FmriModelsError(f"The checkpoint {path.parent} is damaged ({str(error).rstrip('.')}).") from error
    check_schema(values.get("schema"), TRAINING_SCHEMA, str(path))
    return values


def damaged(folder: Path, reason: object) -> str:
    """The sentence on a checkpoint that can't be read."""
    first = one_line(next(iter(str(reason).splitlines()), "unreadable"))
    return f"The checkpoint {folder} is damaged ({first}); {_MEND}."


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What two trainings differ in: the dotted key of each, and the predicate of a sentence on the earlier training.

    Args:
        before: Of the earlier training: `recipe` and the fingerprints of its data.
        now: Of the other one.
    """
    for key, then, today in differing(before, now):
        if key.endswith("_fingerprint"):
            yield key, f"is on other data than this (another {key.removesuffix('_fingerprint')})"
            continue
        name = one_line(key.removeprefix("recipe."), 80)
        yield key, f"has {name} {one_line(repr(then), 80)}, and now it is {one_line(repr(today), 80)}"
