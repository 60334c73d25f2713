"""MindBridge against the authors' code: time and peak memory of a training step, and how far from the arithmetic.

    python benchmarks/mindbridge.py --original PATH        # 5 minutes, 4 GB of memory
    python benchmarks/mindbridge.py --quick                # tiny sizes, a minute

Every row runs in a process of its own for each side, and before, where there is an original, in one that gives both
sides the same weights, inputs, targets and pairs of subjects, dropout off, and compares the losses of three steps of
training. Time is the processor's (on a GPU, the clock's), the median of several runs after those in
which memory is got for the first time; the clock's is beside it in the JSON, and much longer where others use the
machine. Memory is what comes on top of the imported packages, inputs and weights included. The floor is the time that
nothing but the row's matrix products and the optimiser's reads and writes would take, at the rates that this machine
reaches meanwhile.

A step is forward of all subjects with reconstruction and cycle, the losses, what the logs have, backward, and AdamW:
the original's own `train_step`, and ours by the method's objective with the trainer's optimiser. Targets are at hand on
both sides: the original computes those of images and captions anew in each step, by two large networks, which is not
counted here. Ours keeps freed memory, as the command `fmri-models` does; the original runs as its scripts do.
"""

import argparse
import importlib
import json
import os
import random
import sys
import types
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

# Asks the driver without starting CUDA, which could not be used in forked processes any more.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
os.environ.setdefault("TQDM_DISABLE", "1")

import torch
from measuring import Work, adamw_bytes, in_own_process, measure, product
from torch import nn

from fmri_models.embedding_space import EmbeddingSpace
from fmri_models.models.mindbridge import MindBridgeConfig, MindBridgeModel, MindBridgeObjective
from fmri_models.objectives import Batch
from fmri_models.process_memory import keep_freed_memory
from fmri_models.training.optimizers import make_optimizer
from fmri_models.training.options import TrainingOptions

HOW_TO_GET_THE_ORIGINAL = """\
The authors' code, which states no licence, stays outside this repository. The folder is made so:

    git clone https://github.com/littlepure2333/MindBridge ORIGINAL

Of it, `src/models.py`, `src/trainer.py` and `src/utils.py` are loaded; what the measured step never calls is replaced
by empty modules. Without --original only ours and the floor are measured.
"""
_NEVER_CALLED = ("clip", "data", "diffusers.models.vae", "matplotlib", "matplotlib.pyplot", "torchsnooper", "wandb")
_SUBJECTS = (1, 2, 5, 7)
_BOTTLENECK = 128
_LEARNING_RATE, _WEIGHT_DECAY, _MSE_WEIGHT = 1.5e-4, 1e-2, 1e4
_SAME = 1e-4
_COMPARED_STEPS, _WARM_UP = 3, 2


@dataclass(frozen=True)
class Size:
    """Sizes of model and data; the pooled width and the hidden one of `published_heads` are smaller than published."""

    pooled: int
    hidden: int
    layers: int
    image_tokens: int
    text_tokens: int
    token_width: int
    rows_a_subject: int

    @property
    def rows(self) -> int:
        return len(_SUBJECTS) * self.rows_a_subject

    @property
    def outputs(self) -> int:
        return (self.image_tokens + self.text_tokens) * self.token_width


SIZES = {
    "tiny": Size(64, 16, 2, 5, 3, 8, 3),
    "published_heads": Size(2048, 256, 4, 257, 77, 768, 8),
}
# What is timed, and what of it is compared with the other side's.
Made = Callable[[], torch.Tensor]


def step_work(size: Size) -> Work:
    """Products and optimiser of a step."""
    rows, products = size.rows_a_subject, []
    pooled, hidden = size.pooled, size.hidden
    embedder = product(rows, pooled, _BOTTLENECK, 3) + product(rows, _BOTTLENECK, pooled, 3)
    builder = (
        product(rows, hidden, pooled, 3) + product(rows, pooled, _BOTTLENECK, 3) + product(rows, _BOTTLENECK, pooled, 3)
    )
    embedder += product(rows, pooled, hidden, 3)
    # Every subject once, and the pair of the cycle again.
    products += (embedder + builder) * (len(_SUBJECTS) + 1)
    products += product(size.rows, hidden, hidden, 3 * size.layers) + product(size.rows, hidden, size.outputs, 3)
    # Similarities of predictions to targets, and of targets to each other.
    products += product(size.rows, size.outputs, size.rows, 3)
    adapter = 2 * _BOTTLENECK * pooled
    a_subject = 2 * adapter + 2 * pooled * hidden
    weights = len(_SUBJECTS) * a_subject + size.layers * hidden**2 + hidden * size.outputs
    return Work(products, adamw_bytes(weights))


def inputs(size: Size, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pooled voxels of all subjects, image tokens and text tokens, the rows of one subject after those of another."""
    draws = torch.Generator().manual_seed(0)
    voxels = torch.randn(size.rows, size.pooled, generator=draws)
    image = torch.randn(size.rows, size.image_tokens, size.token_width, generator=draws)
    text = torch.randn(size.rows, size.text_tokens, size.token_width, generator=draws)
    return voxels.to(device), image.to(device), text.to(device)


# --- ours


def _space(tokens: int, width: int, tower: str) -> dict[str, Any]:
    return EmbeddingSpace(f"benchmark/{tower}", layer="projected_tokens", shape=(tokens, width)).to_dict()


def _names() -> list[str]:
    return [f"subj{number:02d}" for number in _SUBJECTS]


def our_model(size: Size, weights: dict[str, torch.Tensor] | None) -> MindBridgeModel:
    spaces = {
        "image_embedding_space": _space(size.image_tokens, size.token_width, "image"),
        "text_embedding_space": _space(size.text_tokens, size.token_width, "text"),
    }
    if weights is not None:
        return MindBridgeModel.from_original(weights, **spaces)
    torch.manual_seed(0)
    return MindBridgeModel(
        MindBridgeConfig(
            subject_names=_names(),
            num_voxels=[size.pooled] * len(_SUBJECTS),
            hidden_size=size.hidden,
            num_hidden_layers=size.layers,
            adapter_size=_BOTTLENECK,
            **spaces,
        )
    )


def our_step(size: Size, device: torch.device, weights: Any) -> Made:
    voxels, image, text = inputs(size, device)
    model = our_model(size, weights).to(device).train()
    if weights is not None:
        _without_dropout(model)
    objective = MindBridgeObjective()
    options = TrainingOptions(steps=1, batch_size=size.rows, learning_rate=_LEARNING_RATE)
    optimizer = make_optimizer(objective.parameter_groups(model, _WEIGHT_DECAY), options, fused=True)
    subject_ids = torch.arange(len(_SUBJECTS), device=device).repeat_interleave(size.rows_a_subject)
    draws, number = torch.Generator().manual_seed(0), 0

    def step() -> torch.Tensor:
        nonlocal number
        batch: Batch = {
            "fmri": voxels, "subject_ids": subject_ids, "stimulus_ids": [str(row) for row in range(size.rows)],
            "image_embeds": image, "text_embeds": text, "step": number,
        }  # fmt: skip
        number += 1
        losses = objective.losses(model, batch, 0.0, lambda tensor: tensor, draws)
        losses["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        return losses["loss"].detach()

    return step


def _without_dropout(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0


# --- the original


class _Empty(types.ModuleType):
    """A module of which anything can be imported and nothing used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *arguments, **options: None


def import_original(folder: Path) -> Any:
    """The original's modules `models` and `trainer`."""
    code = folder / "src"
    if not (code / "trainer.py").is_file():
        raise SystemExit(f"{folder} has no src/trainer.py.\n{HOW_TO_GET_THE_ORIGINAL}")
    for name in _NEVER_CALLED:
        sys.modules.setdefault(name, _Empty(name))
    sys.path.insert(0, str(code.resolve()))
    return types.SimpleNamespace(models=importlib.import_module("models"), trainer=importlib.import_module("trainer"))


def original_model(size: Size, original: Any) -> Any:
    torch.manual_seed(0)
    return original.models.MindBridge(
        in_dim=size.pooled,
        out_dim_image=size.image_tokens * size.token_width,
        out_dim_text=size.text_tokens * size.token_width,
        h=size.hidden,
        n_blocks=size.layers,
        subj_list=list(_SUBJECTS),
    )


class _Targets:
    """Stands for the extractor of targets: they are at hand."""

    def __init__(self, image: torch.Tensor, text: torch.Tensor) -> None:
        self.image, self.text = image, text

    def embed_image(self, pictures: Any) -> torch.Tensor:
        return self.image

    def embed_text(self, captions: Any) -> torch.Tensor:
        return self.text


def original_step(size: Size, device: torch.device, dropout: bool, original: Any) -> Made:
    voxels, image, text = inputs(size, device)
    model = original_model(size, original).to(device).train()
    if not dropout:
        _without_dropout(model)
    trainer = object.__new__(original.trainer.Trainer_bridge)
    trainer.args = types.SimpleNamespace(
        max_lr=_LEARNING_RATE, use_image_aug=False, mse_mult=_MSE_WEIGHT, rec_mult=1.0, cyc_mult=1.0
    )
    trainer.voxel2clip, trainer.clip_extractor, trainer.device = model, _Targets(image, text), device
    trainer.accelerator = types.SimpleNamespace(backward=lambda loss: loss.backward())
    trainer.prepare_optimizer()
    trainer.lr_scheduler = types.SimpleNamespace(step=lambda: None)
    trainer.losses, trainer.lrs = [], []
    for name in (
        "sims_image", "sims_text", "fwd_percent_correct", "bwd_percent_correct", "loss_clip_image_sum",
        "loss_clip_text_sum", "loss_mse_image_sum", "loss_mse_text_sum", "loss_rec_sum", "loss_cyc_sum",
    ):  # fmt: skip
        setattr(trainer, name, 0.0)
    subject_ids = torch.tensor(_SUBJECTS, device=device)

    def step() -> torch.Tensor:
        trainer.train_step(voxels, None, None, subject_ids)
        return torch.tensor(trainer.losses[-1])

    random.seed(0)
    return step


# --- measuring


def pair_of_step(step: int) -> list[int]:
    """The subjects of our cycle in a step, by the original's numbers."""
    drawn = torch.randperm(len(_SUBJECTS), generator=torch.Generator().manual_seed(step))
    return [_SUBJECTS[index] for index in drawn[:2]]


def difference(size: Size, device: torch.device, original: Any) -> float:
    """The largest relative difference of the losses of both sides, in steps from the same weights and inputs.

    The original's pairs are those of ours.

    Raises:
        SystemExit: They do not compute the same.
    """
    steps = iter(range(_COMPARED_STEPS))
    original.models.random = types.SimpleNamespace(sample=lambda subjects, number: pair_of_step(next(steps)))
    weights = original_model(size, original).state_dict()
    ours = our_step(size, device, {name: values.clone() for name, values in weights.items()})
    other = original_step(size, device, False, original)
    losses = [[float(run()) for _ in range(_COMPARED_STEPS)] for run in (ours, other)]
    found = max(abs(one - wanted) / abs(wanted) for one, wanted in zip(*losses, strict=True))
    if not found <= _SAME:
        raise SystemExit(
            f"What both sides compute differs by {found:.1e} of its size, more than {_SAME}; times would say nothing."
        )
    return found


def measured(size: Size, device: torch.device, original: Any, repeats: int) -> dict[str, Any]:
    """What was measured of each side."""

    def ours() -> dict[str, Any]:
        keep_freed_memory()
        return measure(lambda: our_step(size, device, None), device, _WARM_UP, repeats)

    def other() -> dict[str, Any]:
        return measure(lambda: original_step(size, device, True, original), device, _WARM_UP, repeats)

    found = {"difference": None if original is None else in_own_process(lambda: difference(size, device, original))}
    sides = {"ours": in_own_process(ours)}
    if original is not None:
        sides["original"] = in_own_process(other)
    return {**found, "sides": sides}


def described(name: str, size: Size, found: dict[str, Any]) -> dict[str, Any]:
    ours, other = found["sides"]["ours"], found["sides"].get("original")
    floors = [step_work(size).floor(rates) for rates in ours["rates"]]
    result = {
        "size": name,
        **found,
        "floor_seconds": median(floors),
        "share_of_floor": median(floor / run for floor, run in zip(floors, ours["runs"], strict=True)),
        "trials_per_second": size.rows / ours["seconds"],
    }
    if other is not None:
        result["times_faster"] = other["seconds"] / ours["seconds"]
        result["share_of_memory"] = ours["peak_mib"] / other["peak_mib"]
    return result


def _cell(value: float | None, width: int, form: str) -> str:
    return f"{'-':>{width}}" if value is None else f"{value:>{width}{form}}"


def print_row(result: dict[str, Any]) -> None:
    ours, other = result["sides"]["ours"], result["sides"].get("original", {})
    columns = [
        f"{result['size']:<17}",
        _cell(other.get("seconds"), 9, ".3f"),
        _cell(ours["seconds"], 9, ".3f"),
        _cell(result.get("times_faster"), 7, ".2f"),
        _cell(result["floor_seconds"], 8, ".3f"),
        _cell(result["share_of_floor"], 6, ".0%"),
        _cell(other.get("peak_mib"), 10, ".0f"),
        _cell(ours["peak_mib"], 9, ".0f"),
        _cell(result["difference"], 11, ".0e"),
    ]
    print(" ".join(columns), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=HOW_TO_GET_THE_ORIGINAL, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--original", type=Path, help="folder with the authors' code, see below")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["published_heads"])
    parser.add_argument("--quick", action="store_true", help="tiny sizes and two runs, to see that it works")
    parser.add_argument("--repeats", type=int, default=7, help="timed runs a side")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks/mindbridge.json"))
    args = parser.parse_args()
    if args.quick:
        args.sizes, args.repeats = ["tiny"], 2
    torch.set_num_threads(args.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    original = None if args.original is None else import_original(args.original.resolve())
    load = os.getloadavg()[0]
    beside = "no original" if original is None else "with the original"
    print(f"{device.type}, {args.threads} threads, load {load:.1f}, torch {torch.__version__}, {beside}")
    print("                        seconds           times           share   peak memory, MiB")
    print("training step      original      ours  faster    floor  of it   original      ours  difference")
    results = []
    for name in args.sizes:
        results.append(described(name, SIZES[name], measured(SIZES[name], device, original, args.repeats)))
        print_row(results[-1])
    settings = {
        "sizes": {name: asdict(SIZES[name]) for name in args.sizes},
        "device": device.type,
        "threads": args.threads,
        "load": load,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"settings": settings, "torch": torch.__version__, "rows": results}, indent=2))
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
