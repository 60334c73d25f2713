"""The one loop that trains every network, and its checkpoints."""

import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from safetensors.torch import save_file
from torch import nn

from fmri_models.errors import FmriModelsError
from fmri_models.saving import atomic_file, write_text

from .stage import Stage


def train(stage: Stage, work: Path, deadline: float) -> bool:
    """Trains a stage to its end or to the deadline, from its checkpoint if there is one.

    Returns:
        Whether the stage is finished.
    """
    folder = work / stage.name
    if (folder / "finished.json").exists():
        print(f"{stage.name}: finished already", flush=True)
        return True
    common = {"seed": stage.settings.seed, "num_pictures": stage.settings.num_pictures}
    settings = json.loads(json.dumps(common | dataclasses.asdict(stage.own)))
    torch.manual_seed(stage.settings.seed)
    model = stage.build().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=stage.own.learning_rate, weight_decay=0.01, fused=True)
    average = None if stage.ema_decay is None else EMAModel(model.parameters(), decay=stage.ema_decay)
    state = TrainState(model, optimizer, average)
    step, seconds = _load_checkpoint(folder / "checkpoint.pt", settings, state)
    started = saved = time.monotonic()
    while step < stage.own.steps:
        if time.monotonic() > deadline:
            _save_checkpoint(folder / "checkpoint.pt", settings, state, step, seconds + _since(started))
            print(f"{stage.name}: stopped after step {step} of {stage.own.steps}; run again to go on", flush=True)
            return False
        losses = _train_step(stage, state, step)
        step += 1
        if step % 50 == 0 or step == stage.own.steps:
            _log(folder, step, seconds + _since(started), {name: value.item() for name, value in losses.items()})
        if step % stage.validate_every == 0:
            _log(folder, step, seconds + _since(started), _validate(stage, state))
        if _since(saved) >= stage.settings.checkpoint_seconds:
            _save_checkpoint(folder / "checkpoint.pt", settings, state, step, seconds + _since(started))
            saved = time.monotonic()
    seconds += _since(started)
    figures = _validate(stage, state)
    if average is not None:
        average.copy_to(model.parameters())
    _log(folder, step, seconds, figures)
    with atomic_file(folder / "weights.safetensors") as partial:
        save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, partial)
    summary = {"settings": settings, "seconds": round(seconds, 1), "validation": figures}
    write_text(folder / "finished.json", json.dumps(summary, indent=2) + "\n")
    print(f"{stage.name}: finished, {json.dumps(figures)}", flush=True)
    return True


@dataclass(frozen=True)
class TrainState:
    """What a stage changes while it trains; the average is that of the weights over the last steps."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: EMAModel | None


def _train_step(stage: Stage, state: TrainState, step: int) -> dict[str, torch.Tensor]:
    for group in state.optimizer.param_groups:
        group["lr"] = stage.own.learning_rate * stage.rate(step)
    noise = torch.Generator().manual_seed(stage.settings.seed * 1_000_003 + step)
    losses = stage.losses(state.model, stage.positions(step), noise)
    if not torch.isfinite(losses["loss"]):
        raise FmriModelsError(
            f"The loss of {stage.name} is {float(losses['loss'])} at step {step}; lower the learning rate."
        )
    losses["loss"].backward()
    nn.utils.clip_grad_norm_(state.model.parameters(), 1.0)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    if state.average is not None:
        state.average.step(state.model.parameters())
    return losses


@torch.no_grad()
def _validate(stage: Stage, state: TrainState) -> dict[str, float]:
    model = state.model.eval()
    if state.average is not None:
        state.average.store(model.parameters())
        state.average.copy_to(model.parameters())
    figures = {name: round(value, 4) for name, value in stage.validate(model).items()}
    if state.average is not None:
        state.average.restore(model.parameters())
    model.train()
    return {f"validation_{name}": value for name, value in figures.items()}


def _save_checkpoint(path: Path, settings: dict[str, Any], state: TrainState, step: int, seconds: float) -> None:
    """One file, replaced in one move: a kill leaves either the old state or the new one."""
    values = {
        "settings": settings,
        "step": step,
        "seconds": seconds,
        "model": state.model.state_dict(),
        "optimizer": state.optimizer.state_dict(),
    }
    if state.average is not None:
        values["average"] = state.average.state_dict()
    with atomic_file(path) as partial:
        torch.save(values, partial)


def _load_checkpoint(path: Path, settings: dict[str, Any], state: TrainState) -> tuple[int, float]:
    if not path.exists():
        return 0, 0.0
    values = torch.load(path, weights_only=True)
    if values["settings"] != settings:
        raise FmriModelsError(f"{path} was made with other settings; choose another --work folder or remove it.")
    state.model.load_state_dict(values["model"])
    state.optimizer.load_state_dict(values["optimizer"])
    if state.average is not None:
        state.average.load_state_dict(values["average"])
    print(f"{path.parent.name}: going on from step {values['step']}", flush=True)
    return values["step"], values["seconds"]


def _log(folder: Path, step: int, seconds: float, figures: dict[str, float]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    line = {"step": step, "seconds": round(seconds, 1), **{name: round(value, 5) for name, value in figures.items()}}
    with (folder / "log.jsonl").open("a", encoding="utf-8") as log:
        log.write(json.dumps(line) + "\n")


def _since(moment: float) -> float:
    return time.monotonic() - moment
