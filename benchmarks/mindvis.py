"""MinD-Vis against the authors' code: time, peak memory, and how far both are from what the arithmetic takes.

    python benchmarks/mindvis.py --original PATH --timm PATH        # 15 minutes, 5 GB of memory
    python benchmarks/mindvis.py --original PATH --timm PATH --sizes published --rows pretraining
    python benchmarks/mindvis.py --quick                            # tiny sizes, a minute

Every row runs in a process of its own for each side, and before, where there is an original, in one that gives both
sides the same weights and inputs and compares what they compute. Time is the processor's (on a GPU, the clock's), the
median of several runs after those in which memory is got for the first time; the clock's is beside it in the JSON, and
much longer where others use the machine. Memory is what comes on top of the imported packages, inputs and weights
included. The floor is the time that nothing but the row's matrix products and the optimiser's reads and writes would
take, at the rates that this machine reaches meanwhile: on a large product, and on the faster one of copying and adding
large arrays. They are measured before and after each run of ours, since a shared machine is faster and slower by turns.

A pretraining step is forward, loss, backward and AdamW. Ours keeps freed memory, as the command `fmri-models` does; the
original runs as its scripts do. Sampling has no original beside it but our own pipeline's generator, which is given the
pictures of all patterns at once, or those of one pattern, or one picture.
"""

import argparse
import importlib
import json
import os
import sys
import types
import warnings
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

from fmri_models.generation.double_conditioned import DoubleConditionedImageGenerator
from fmri_models.models.mindvis import MindVisConfig, MindVisEncoder, MindVisForPreTraining
from fmri_models.models.mindvis.pretraining_mindvis import num_kept
from fmri_models.process_memory import keep_freed_memory

HOW_TO_GET_THE_ORIGINAL = """\
The authors' code stays outside this repository. Both folders are made so:

    git clone https://github.com/zjc062/mind-vis ORIGINAL
    pip install --no-deps --target TIMM timm==0.5.4

Without --timm the installed timm takes its place, whose attention may be a newer and faster one than the authors'; the
table's head says which it was. Of the original only `sc_mbm/mae_for_fmri.py` and what it imports is loaded. Without
--original only ours and the floor are measured.
"""
_TIMM = "0.5.4"
_SAME = 1e-4


@dataclass(frozen=True)
class Size:
    """Sizes of model and data."""

    voxels: int
    patch: int
    width: int
    layers: int
    heads: int
    decoder_width: int
    decoder_layers: int
    decoder_heads: int
    batch: int
    encoder_batch: int
    patterns: int = 8
    candidates: int = 5
    steps: int = 10
    picture: int = 32

    @property
    def patches(self) -> int:
        return self.voxels // self.patch

    @property
    def kept(self) -> int:
        """Patches that masked modelling leaves visible."""
        return num_kept(self.patches, _MASK_RATIO)


_MASK_RATIO = 0.75
SIZES = {
    "tiny": Size(64, 4, 16, 2, 2, 8, 1, 2, 4, 4, 2, 2, 2, 16),
    # The decoder is as much narrower than the published one as the encoder is.
    "small": Size(4656, 16, 256, 8, 16, 128, 8, 16, 32, 32),
    "medium": Size(4656, 16, 256, 8, 16, 512, 8, 16, 32, 32),
    "published": Size(4656, 16, 1024, 24, 16, 512, 8, 16, 4, 4),
}

# What is timed, and what of it is compared with the other side's.
Made = Callable[[], torch.Tensor]


@dataclass
class Row:
    """A measurement.

    Args:
        ours: Makes what is timed, from the original's weights if there are any.
        other: The same of the other side's; gets the original's module.
        items: Number of `unit` in a run.
        unit: What throughput counts.
        sizes: Those at which the row says something of its own.
        work: Its floor.
        other_name: What the other side is called.
        weights: Of the original, for a comparison.
        warm_up: Runs before those that are timed.
    """

    ours: Callable[[Size, torch.device, Any], Made]
    other: Callable[[Size, torch.device, Any, Any], Made]
    items: Callable[[Size], int]
    unit: str
    sizes: tuple[str, ...]
    work: Callable[[Size], Work] | None = None
    other_name: str = "original"
    weights: Callable[[Size, Any], Any] = lambda size, original: None
    warm_up: int = 1


# --- floors


def _layers(rows: int, length: int, width: int, layers: int) -> list[tuple[float, float]]:
    """Transformer layers on `rows` sequences of `length` tokens; the linear layers are as wide as their input."""
    tokens = rows * length
    one = product(tokens, width, 3 * width) + product(tokens, width, width, 3)
    # Scores stay in a cache: the bytes of attention are those of what it reads and gives.
    one += [(2.0 * tokens * length * width, 4.0 * 2 * tokens * width)] * 2
    return one * layers


def pretraining_work(size: Size) -> Work:
    rows, width, decoder_width = size.batch, size.width, size.decoder_width
    # Voxels need no gradient, so the layer that reads them has two products instead of three.
    products = product(rows * size.kept, size.patch, width, 2)
    products += 3 * _layers(rows, size.kept + 1, width, size.layers)
    products += product(rows * (size.kept + 1), width, decoder_width, 3)
    products += 3 * _layers(rows, size.patches + 1, decoder_width, size.decoder_layers)
    products += product(rows * size.patches, decoder_width, size.patch, 3)
    weights = 6 * (width**2 * size.layers + decoder_width**2 * size.decoder_layers)
    return Work(products, adamw_bytes(weights + width * (size.patch + decoder_width) + decoder_width * size.patch))


def encoder_work(size: Size) -> Work:
    rows = size.encoder_batch
    products = product(rows * size.patches, size.patch, size.width)
    return Work(products + _layers(rows, size.patches, size.width, size.layers))


# --- inputs


def voxels(size: Size, rows: int, device: torch.device) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(rows, size.voxels, device=device)


# --- ours


def our_config(size: Size) -> MindVisConfig:
    return MindVisConfig(
        subject_names=["subj01"],
        num_voxels=[size.voxels],
        patch_size=size.patch,
        hidden_size=size.width,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        decoder_hidden_size=size.decoder_width,
        decoder_num_hidden_layers=size.decoder_layers,
        decoder_num_attention_heads=size.decoder_heads,
        mask_ratio=_MASK_RATIO,
    )


def our_pretraining_step(size: Size, device: torch.device, weights: Any) -> Made:
    fmri = voxels(size, size.batch, device)
    if weights is None:
        model = MindVisForPreTraining(our_config(size))
    else:
        model = MindVisForPreTraining.from_original(
            weights, num_attention_heads=size.heads, decoder_num_attention_heads=size.decoder_heads
        )
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2.5e-4, betas=(0.9, 0.95), weight_decay=0.05, fused=True)

    def step() -> torch.Tensor:
        loss = model(fmri).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    torch.manual_seed(1)
    return step


def our_encoder(size: Size, device: torch.device, weights: Any) -> Made:
    fmri = voxels(size, size.encoder_batch, device)
    if weights is None:
        model = MindVisEncoder(our_config(size))
    else:
        model = MindVisEncoder.from_original(weights, num_attention_heads=size.heads)
    model.to(device).eval()

    @torch.no_grad()
    def run() -> torch.Tensor:
        return model(fmri).last_hidden_state

    return run


def our_sampling(pictures_a_call: Callable[[Size], int]) -> Callable[[Size, torch.device, Any], Made]:
    """Draws the candidates of all patterns, so many pictures a call, each with noise of its own."""

    def make(size: Size, device: torch.device, weights: Any) -> Made:
        generator = DoubleConditionedImageGenerator.for_stimuli((3, size.picture, size.picture)).to(device)
        torch.manual_seed(0)
        number = size.patterns * size.candidates
        context = torch.randn(size.patterns, *generator.encoder_hidden_states_space.shape)
        time = torch.randn(size.patterns, *generator.time_embeds_space.shape)
        context, time = (each.repeat_interleave(size.candidates, dim=0) for each in (context, time))

        def run() -> torch.Tensor:
            sources = [torch.Generator().manual_seed(index) for index in range(number)]
            calls = [
                generator(
                    encoder_hidden_states=context[first : first + pictures_a_call(size)],
                    time_embeds=time[first : first + pictures_a_call(size)],
                    num_inference_steps=size.steps,
                    generator=sources[first : first + pictures_a_call(size)],
                    output_type="pt",
                ).images
                for first in range(0, number, pictures_a_call(size))
            ]
            return torch.cat(calls)

        return run

    return make


def _all_pictures(size: Size) -> int:
    return size.patterns * size.candidates


# --- the original


def import_original(folder: Path, timm: Path | None) -> Any:
    """The original's module `mae_for_fmri`, and which timm it is built of."""
    code = folder / "code"
    if not (code / "sc_mbm" / "mae_for_fmri.py").is_file():
        raise SystemExit(f"{folder} has no code/sc_mbm/mae_for_fmri.py.\n{HOW_TO_GET_THE_ORIGINAL}")
    if timm is not None and not (timm / "timm").is_dir():
        raise SystemExit(f"{timm} has no timm.\n{HOW_TO_GET_THE_ORIGINAL}")
    sys.path[:0] = [str(path.resolve()) for path in (timm, code) if path is not None]
    with warnings.catch_warnings():
        # An old timm uses torch.jit.script.
        warnings.simplefilter("ignore")
        version = importlib.import_module("timm").__version__
        module = importlib.import_module("sc_mbm.mae_for_fmri")
    return types.SimpleNamespace(module=module, timm=version)


def _original_pretraining(size: Size, original: Any) -> Any:
    torch.manual_seed(0)
    return original.module.MAEforFMRI(
        num_voxels=size.voxels,
        patch_size=size.patch,
        embed_dim=size.width,
        depth=size.layers,
        num_heads=size.heads,
        decoder_embed_dim=size.decoder_width,
        decoder_depth=size.decoder_layers,
        decoder_num_heads=size.decoder_heads,
        mlp_ratio=1.0,
    )


def _original_encoder(size: Size, original: Any) -> Any:
    torch.manual_seed(0)
    return original.module.fmri_encoder(
        num_voxels=size.voxels,
        patch_size=size.patch,
        embed_dim=size.width,
        depth=size.layers,
        num_heads=size.heads,
        mlp_ratio=1.0,
        global_pool=False,
    )


def original_pretraining_step(size: Size, device: torch.device, weights: Any, original: Any) -> Made:
    fmri = voxels(size, size.batch, device)[:, None]
    model = _original_pretraining(size, original).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2.5e-4, betas=(0.9, 0.95), weight_decay=0.05)

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        loss = model(fmri, mask_ratio=_MASK_RATIO)[0]
        loss.backward()
        optimizer.step()
        return loss.detach()

    torch.manual_seed(1)
    return step


def original_encoder(size: Size, device: torch.device, weights: Any, original: Any) -> Made:
    fmri = voxels(size, size.encoder_batch, device)[:, None]
    model = _original_encoder(size, original).to(device).eval()

    @torch.no_grad()
    def run() -> torch.Tensor:
        return model(fmri)

    return run


def in_smaller_calls(pictures_a_call: Callable[[Size], int]) -> Callable[[Size, torch.device, Any, Any], Made]:
    return lambda size, device, weights, original: our_sampling(pictures_a_call)(size, device, weights)


ROWS = {
    "pretraining": Row(
        our_pretraining_step, original_pretraining_step, lambda size: size.batch, "patterns",
        ("tiny", "small", "medium", "published"), pretraining_work,
        weights=lambda size, original: _original_pretraining(size, original).state_dict(), warm_up=2,
    ),
    "encoder": Row(
        our_encoder, original_encoder, lambda size: size.encoder_batch, "patterns", ("tiny", "medium", "published"),
        encoder_work, weights=lambda size, original: _original_encoder(size, original).state_dict(),
    ),
    "sampling_by_pattern": Row(
        our_sampling(_all_pictures), in_smaller_calls(lambda size: size.candidates), _all_pictures, "pictures",
        ("tiny", "medium"), other_name="a call a pattern",
    ),
    "sampling_by_picture": Row(
        our_sampling(_all_pictures), in_smaller_calls(lambda size: 1), _all_pictures, "pictures", ("tiny", "medium"),
        other_name="a call a picture",
    ),
}  # fmt: skip


# --- measuring


def difference(row: Row, size: Size, device: torch.device, original: Any) -> float:
    """The largest relative difference of what both sides compute, in two runs from the same weights and inputs.

    Raises:
        SystemExit: They do not compute the same.
    """
    weights = row.weights(size, original)
    makes = (lambda: row.ours(size, device, weights), lambda: row.other(size, device, None, original))
    computed = []
    for make in makes:
        run = make()
        computed.append([run().float().cpu() for _ in range(2)])
    found = max(((one - other).abs().max() / other.abs().max()).item() for one, other in zip(*computed, strict=True))
    if not found <= _SAME:
        raise SystemExit(
            f"What both sides compute differs by {found:.1e} of its size, more than {_SAME}; times would say nothing."
        )
    return found


def measure_row(row: Row, size: Size, device: torch.device, original: Any, repeats: int) -> dict[str, Any]:
    """What was measured of each side."""

    def ours() -> dict[str, Any]:
        keep_freed_memory()
        return measure(lambda: row.ours(size, device, None), device, row.warm_up, repeats)

    def other() -> dict[str, Any]:
        return measure(lambda: row.other(size, device, None, original), device, row.warm_up, repeats)

    has_other = original is not None or row.other_name != "original"
    found = {"difference": in_own_process(lambda: difference(row, size, device, original)) if has_other else None}
    sides = {"ours": in_own_process(ours)}
    if has_other:
        sides[row.other_name] = in_own_process(other)
    return {**found, "sides": sides}


def described(name: str, size_name: str, row: Row, size: Size, found: dict[str, Any]) -> dict[str, Any]:
    ours, other = found["sides"]["ours"], found["sides"].get(row.other_name)
    result = {"row": name, "size": size_name, **found, f"{row.unit}_per_second": row.items(size) / ours["seconds"]}
    if row.work is not None:
        floors = [row.work(size).floor(rates) for rates in ours["rates"]]
        result["floor_seconds"] = median(floors)
        result["share_of_floor"] = median(floor / run for floor, run in zip(floors, ours["runs"], strict=True))
    if other is not None:
        result["times_faster"] = other["seconds"] / ours["seconds"]
        result["share_of_memory"] = ours["peak_mib"] / other["peak_mib"]
    return result


def _cell(value: float | None, width: int, form: str) -> str:
    return f"{'-':>{width}}" if value is None else f"{value:>{width}{form}}"


def print_row(result: dict[str, Any], row: Row) -> None:
    ours, other = result["sides"]["ours"], result["sides"].get(row.other_name, {})
    columns = [
        f"{result['row'] + ' ' + result['size']:<29}",
        _cell(other.get("seconds"), 9, ".3f"),
        _cell(ours["seconds"], 9, ".3f"),
        _cell(result.get("times_faster"), 7, ".2f"),
        _cell(result.get("floor_seconds"), 8, ".3f"),
        _cell(result.get("share_of_floor"), 6, ".0%"),
        _cell(other.get("peak_mib"), 10, ".0f"),
        _cell(ours["peak_mib"], 9, ".0f"),
        _cell(result["difference"], 11, ".0e"),
        f"  {result[f'{row.unit}_per_second']:,.3g} {row.unit}/s",
        "" if row.other_name == "original" else f"  (other: {row.other_name})",
    ]
    print(" ".join(columns).rstrip(), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=HOW_TO_GET_THE_ORIGINAL, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--original", type=Path, help="folder with the authors' code, see below")
    parser.add_argument("--timm", type=Path, help=f"folder with timm {_TIMM}, see below")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["small", "medium", "published"])
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--quick", action="store_true", help="tiny sizes and two runs, to see that it works")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs a side")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks/mindvis.json"))
    args = parser.parse_args()
    if args.quick:
        args.sizes, args.repeats = ["tiny"], 2
    torch.set_num_threads(args.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    original = None if args.original is None else import_original(args.original.resolve(), args.timm)
    timm = None if original is None else original.timm
    load = os.getloadavg()[0]
    beside = "no original" if timm is None else f"original with timm {timm}"
    if timm not in (None, _TIMM):
        beside += f", not the authors' {_TIMM}"
    print(f"{device.type}, {args.threads} threads, load {load:.1f}, torch {torch.__version__}, {beside}")
    print("                                    seconds           times           share   peak memory, MiB")
    print("row                               other      ours  faster    floor  of it      other      ours  difference")
    results = []
    for size_name in args.sizes:
        for name in args.rows:
            row, size = ROWS[name], SIZES[size_name]
            if size_name in row.sizes:
                found = measure_row(row, size, device, original, args.repeats)
                results.append(described(name, size_name, row, size, found))
                print_row(results[-1], row)
    settings = {
        "sizes": {name: asdict(SIZES[name]) for name in args.sizes},
        "device": device.type,
        "threads": args.threads,
        "load": load,
        "timm": timm,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"settings": settings, "torch": torch.__version__, "rows": results}, indent=2))
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
