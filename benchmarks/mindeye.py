"""MindEye against the authors' code: CPU time, peak memory, and how far both are from what the arithmetic takes.

    python benchmarks/mindeye.py --original PATH            # medium size: 4 GB of memory, 10 minutes
    python benchmarks/mindeye.py --size published --rows prior_training prior_ddim

Every row runs in a process of its own for each side. Time is the processor's (on a GPU, the clock's), the median of
several runs after those in which memory is got for the first time; memory is what comes on top of the imported
packages, inputs and weights included. The floor is the time that nothing but the row's matrix products and the
optimiser's reads and writes would take, at the rates that this machine reaches meanwhile: on a large product, and on
the faster one of copying and adding large arrays. They are measured before and after each run of ours, since a shared
machine is faster and slower by turns. That both sides compute the same is the subject of tests, not of this script.

A training step is forward, losses, backward and AdamW, without what the loops of either side compute for their logs.
Ours keeps freed memory, as the command `fmri-models` does; the original runs as its scripts do.
"""

import argparse
import importlib
import json
import os
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
from torch.nn import functional as F

from fmri_models.evaluation import retrieval_accuracy, retrieve
from fmri_models.models.mindeye import MindEyeConfig, MindEyeModel, MindEyePrior
from fmri_models.models.mindeye.objective_mindeye import MindEyeObjective
from fmri_models.process_memory import keep_freed_memory

HOW_TO_GET_THE_ORIGINAL = """\
The authors' code stays outside this repository. PATH is a folder that is made so:

    git clone https://github.com/MedARC-AI/fMRI-reconstruction-NSD PATH/fMRI-reconstruction-NSD
    git clone https://github.com/lucidrains/DALLE2-pytorch PATH/DALLE2-pytorch
    pip install --no-deps --target PATH/site-packages einops rotary-embedding-torch==0.2.3

Their other dependencies are not needed: what the measured classes never call is replaced by empty modules. Without
--original only ours and the floor are measured.
"""
_WIDTH, _PROJECTOR = 768, 2048  # fixed in the original's code
_NEVER_CALLED = (
    "clip", "kornia", "kornia.filters", "kornia.augmentation", "resize_right", "x_clip", "coca_pytorch", "webdataset",
    "clip_retrieval", "clip_retrieval.clip_client", "braceexpand", "matplotlib", "matplotlib.pyplot", "pandas",
    "open_clip", "dalle2_pytorch.tokenizer", "dalle2_pytorch.vqgan_vae", "dalle2_pytorch.train_configs",
)  # fmt: skip


@dataclass(frozen=True)
class Size:
    """Sizes of model and data; `published` is subject 1's model."""

    voxels: int
    hidden: int
    tokens: int
    prior_layers: int
    batch: int
    prior_batch: int
    samples: int
    ancestral_steps: int
    test_items: int
    gallery: int


SIZES = {
    "tiny": Size(300, 128, 9, 2, 16, 4, 4, 10, 300, 5_000),
    "medium": Size(4000, 512, 257, 2, 8, 2, 2, 10, 400, 100_000),
    "published": Size(15_724, 4096, 257, 6, 32, 8, 16, 100, 982, 1_000_000),
}
_POOLS, _POOL_SIZE, _DDIM_STEPS, _QUERIES = 30, 300, 20, 64


@dataclass
class Row:
    """A measurement.

    Args:
        ours: Makes what is timed.
        original: The same of the original's; gets its modules.
        work: Its floor.
        items: Number of `unit` in a run.
        unit: What throughput counts.
        original_name: What the other side is called.
        warm_up: Runs before those that are timed.
    """

    ours: Callable[[Size, torch.device], Callable[[], Any]]
    original: Callable[[Size, torch.device, Any], Callable[[], Any]]
    work: Callable[[Size], Work]
    items: Callable[[Size], int]
    unit: str
    original_name: str = "original"
    warm_up: int = 1


# --- floors


def backbone_work(size: Size) -> Work:
    rows, hidden, outputs = size.batch, size.hidden, size.tokens * _WIDTH
    # Voxels need no gradient, so their layer has two products instead of three.
    products = product(rows, size.voxels, hidden, 2) + product(rows, hidden, hidden, 12)
    products += product(rows, hidden, outputs, 3)
    for before, after in ((_WIDTH, _PROJECTOR), (_PROJECTOR, _PROJECTOR), (_PROJECTOR, _WIDTH)):
        products += product(rows * size.tokens, before, after, 3)
    products += product(rows, outputs, rows, 2)
    weights = hidden * (size.voxels + 4 * hidden + outputs) + 2 * _WIDTH * _PROJECTOR + _PROJECTOR**2
    return Work(products, adamw_bytes(weights))


def _prior_products(size: Size, rows: int) -> list[tuple[float, float]]:
    """One call of the prior's network, whose last layer is needed for the picture's tokens alone."""
    length = 2 * size.tokens + 1
    products = []
    for layer in range(size.prior_layers):
        asked = size.tokens if layer == size.prior_layers - 1 else length
        products += product(rows * asked, _WIDTH, _WIDTH, 2) + product(rows * length, _WIDTH, 128)
        products += product(rows * asked, _WIDTH, 8 * _WIDTH) + product(rows * asked, 4 * _WIDTH, _WIDTH)
        # Scores stay in a cache: the bytes of attention are those of its queries and outputs.
        products += [(2.0 * rows * asked * 12 * 64 * (length + 1), 4.0 * rows * asked * _WIDTH)] * 2
    return products + product(rows * size.tokens, _WIDTH, _WIDTH)


def prior_training_work(size: Size) -> Work:
    weights = size.prior_layers * (_WIDTH * (2 * _WIDTH + 128) + 12 * _WIDTH**2) + 9 * _WIDTH**2
    return Work(_prior_products(size, size.prior_batch) * 3, adamw_bytes(weights))


def sampling_work(steps: Callable[[Size], int], more_rows: int = 0) -> Callable[[Size], Work]:
    return lambda size: Work(_prior_products(size, size.samples + more_rows) * steps(size))


def pools_work(size: Size) -> Work:
    return Work(product(size.test_items, size.tokens * _WIDTH, size.test_items))


def gallery_work(size: Size) -> Work:
    return Work(product(_QUERIES, _WIDTH, size.gallery))


# --- inputs


def voxels_and_targets(size: Size, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    fmri = torch.randn(size.batch, size.voxels, device=device)
    return fmri, torch.randn(size.batch, size.tokens, _WIDTH, device=device)


def tokens_of(size: Size, rows: int, device: torch.device) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(rows, size.tokens, _WIDTH, device=device)


def test_embeddings(size: Size) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    image = torch.randn(size.test_items, size.tokens, _WIDTH)
    brain = image + 10 * torch.randn_like(image)
    pools = torch.stack([torch.randperm(size.test_items)[:_POOL_SIZE] for _ in range(_POOLS)])
    return brain, image, pools


def gallery_of(size: Size) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(_QUERIES, _WIDTH), torch.randn(size.gallery, _WIDTH)


# --- ours


def our_config(size: Size, **options: Any) -> MindEyeConfig:
    space = {"encoder": "clip", "layer": "tokens", "shape": [size.tokens, _WIDTH]}
    return MindEyeConfig(
        subject_names=["subj01"],
        num_voxels=[size.voxels],
        hidden_size=size.hidden,
        prior_num_layers=size.prior_layers,
        image_embedding_space=space,
        **options,
    )


def our_backbone_step(progress: float) -> Callable[[Size, torch.device], Callable[[], Any]]:
    def make(size: Size, device: torch.device) -> Callable[[], Any]:
        fmri, targets = voxels_and_targets(size, device)
        model = MindEyeModel(our_config(size, use_prior=False)).to(device).train()
        objective = MindEyeObjective(modules=["backbone"])
        optimizer = torch.optim.AdamW(objective.parameter_groups(model, 1e-2), lr=3e-4, fused=True)
        subject_ids = torch.zeros(size.batch, dtype=torch.long, device=device)
        batch = {"fmri": fmri, "subject_ids": subject_ids, "image_embeds": targets}
        generator = torch.Generator().manual_seed(0)

        def step() -> None:
            objective.losses(model, batch, progress, lambda rows: rows, generator)["loss"].backward()
            optimizer.step()
            optimizer.zero_grad()

        return step

    return make


def our_prior_step(size: Size, device: torch.device) -> Callable[[], Any]:
    tokens = tokens_of(size, size.prior_batch, device)
    prior = MindEyePrior(our_config(size)).to(device).train()
    optimizer = torch.optim.AdamW(prior.parameters(), lr=3e-4, fused=True)

    def step() -> None:
        prior.loss(tokens, tokens).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def our_sampling(
    steps: Callable[[Size], int], guidance_scale: float = 1.0
) -> Callable[[Size, torch.device], Callable[[], Any]]:
    def make(size: Size, device: torch.device) -> Callable[[], Any]:
        tokens = tokens_of(size, size.samples, device)
        prior = MindEyePrior(our_config(size, prior_num_timesteps=_schedule(steps(size)))).to(device).eval()
        return lambda: prior.sample(tokens, steps(size), guidance_scale=guidance_scale)

    return make


def _schedule(steps: int) -> int:
    """Length of the noise schedule: DDIM's is the published one, ancestral sampling takes all of a shorter one."""
    return 100 if steps == _DDIM_STEPS else steps


def our_pools(size: Size, device: torch.device) -> Callable[[], Any]:
    brain, image, pools = test_embeddings(size)
    return lambda: [retrieval_accuracy(brain, image, query, pools=pools) for query in ("brain", "image")]


def our_gallery(size: Size, device: torch.device) -> Callable[[], Any]:
    query, gallery = gallery_of(size)
    return lambda: retrieve(query, gallery, top_k=16)


# --- the original


def import_original(folder: Path) -> Any:
    """The original's modules `models` and `utils`, and where its prior comes from."""
    packages = {"fMRI-reconstruction-NSD/src", "DALLE2-pytorch/dalle2_pytorch", "site-packages"}
    missing = sorted(name for name in packages if not (folder / name).is_dir())
    if missing:
        raise SystemExit(f"{folder} has no {', '.join(missing)}.\n{HOW_TO_GET_THE_ORIGINAL}")
    for name in _NEVER_CALLED:
        sys.modules.setdefault(name, _Empty(name))
    # Where diffusers had its decoder at that time.
    sys.modules["diffusers.models.vae"] = importlib.import_module("diffusers.models.autoencoders.vae")
    sys.path[:0] = [str(folder / "site-packages"), str(folder / "fMRI-reconstruction-NSD/src")]
    package = types.ModuleType("dalle2_pytorch")
    package.__path__ = [str(folder / "DALLE2-pytorch/dalle2_pytorch")]
    sys.modules["dalle2_pytorch"] = package
    package.DiffusionPrior = importlib.import_module("dalle2_pytorch.dalle2_pytorch").DiffusionPrior
    return types.SimpleNamespace(models=importlib.import_module("models"), utils=importlib.import_module("utils"))


class _Empty(types.ModuleType):
    """A module of which anything can be imported and nothing used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def original_backbone_step(mixes: bool) -> Callable[[Size, torch.device, Any], Callable[[], Any]]:
    def make(size: Size, device: torch.device, original: Any) -> Callable[[], Any]:
        fmri, targets = voxels_and_targets(size, device)
        network = original.models.BrainNetwork(
            out_dim=size.tokens * _WIDTH, in_dim=size.voxels, clip_size=_WIDTH, h=size.hidden
        )
        network.to(device).train()
        optimizer = torch.optim.AdamW(network.parameters(), lr=3e-4, weight_decay=1e-2)

        def step() -> None:
            optimizer.zero_grad()
            # Its mixing overwrites the voxels, so that every step gets a copy as from a loader.
            mixing = original.utils.mixco(fmri.clone()) if mixes else (fmri,)
            projected = network(mixing[0])[1]
            predicted = F.normalize(projected.flatten(1), dim=-1)
            wanted = F.normalize(targets.flatten(1), dim=-1)
            if mixes:
                draws = dict(zip(("perm", "betas", "select"), mixing[1:], strict=True))
                loss = original.utils.mixco_nce(predicted, wanted, temp=0.006, **draws)
            else:
                loss = original.utils.soft_clip_loss(predicted, wanted, temp=0.006)
            loss.backward()
            optimizer.step()

        return step

    return make


def original_retrieval(original: Any, wanted: torch.Tensor, predicted: torch.Tensor) -> list[float]:
    """Both retrieval scores as the original's loops compute them."""
    labels = torch.arange(len(wanted), device=wanted.device)
    similarity, top = original.utils.batchwise_cosine_similarity, original.utils.topk
    pairs = ((predicted, wanted), (wanted, predicted))
    return [top(similarity(*pair), labels, k=1).item() for pair in pairs]


def original_prior(size: Size, device: torch.device, original: Any, steps: int = 100) -> Any:
    network = original.models.VersatileDiffusionPriorNetwork(
        dim=_WIDTH, depth=size.prior_layers, dim_head=64, heads=12, causal=False,
        num_tokens=size.tokens, learned_query_mode="pos_emb",
    )  # fmt: skip
    prior = original.models.BrainDiffusionPrior(
        net=network, image_embed_dim=_WIDTH, condition_on_text_encodings=False, timesteps=steps, cond_drop_prob=0.2
    )
    return prior.to(device)


def original_prior_step(size: Size, device: torch.device, original: Any) -> Callable[[], Any]:
    tokens = tokens_of(size, size.prior_batch, device)
    prior = original_prior(size, device, original).train()
    optimizer = torch.optim.AdamW(prior.parameters(), lr=3e-4)

    def step() -> None:
        optimizer.zero_grad()
        loss, _ = prior(text_embed=tokens, image_embed=tokens)
        loss.backward()
        optimizer.step()

    return step


def original_sampling(
    steps: Callable[[Size], int], guidance_scale: float = 1.0
) -> Callable[[Size, torch.device, Any], Callable[[], Any]]:
    def make(size: Size, device: torch.device, original: Any) -> Callable[[], Any]:
        tokens = tokens_of(size, size.samples, device)
        prior = original_prior(size, device, original, _schedule(steps(size))).eval()
        condition = {"text_embed": tokens}
        return lambda: prior.p_sample_loop(
            tokens.shape, text_cond=condition, cond_scale=guidance_scale, timesteps=steps(size)
        )

    return make


def original_pools(size: Size, device: torch.device, original: Any) -> Callable[[], Any]:
    brain, image, pools = test_embeddings(size)

    def run() -> list[list[float]]:
        scores = []
        for pool in pools:
            predicted = F.normalize(brain[pool].flatten(1), dim=-1)
            wanted = F.normalize(image[pool].flatten(1), dim=-1)
            scores.append(original_retrieval(original, wanted, predicted))
        return scores

    return run


def plain_gallery(size: Size, device: torch.device, original: Any) -> Callable[[], Any]:
    query, gallery = gallery_of(size)
    return lambda: (F.normalize(query, dim=-1) @ F.normalize(gallery, dim=-1).T).topk(16, dim=-1)


def _ancestral(size: Size) -> int:
    return size.ancestral_steps


def _ddim(size: Size) -> int:
    return _DDIM_STEPS


def _sequence_tokens(size: Size) -> int:
    return size.prior_batch * (2 * size.tokens + 1)


ROWS = {
    "backbone_bimixco": Row(
        our_backbone_step(0.0), original_backbone_step(True), backbone_work, lambda size: size.batch, "trials",
        warm_up=2,
    ),
    "backbone_softclip": Row(
        our_backbone_step(0.9), original_backbone_step(False), backbone_work, lambda size: size.batch, "trials",
        warm_up=2,
    ),
    "prior_training": Row(
        our_prior_step, original_prior_step, prior_training_work, _sequence_tokens, "tokens", warm_up=2
    ),
    "prior_ancestral": Row(
        our_sampling(_ancestral), original_sampling(_ancestral), sampling_work(_ancestral), lambda size: size.samples,
        "images",
    ),
    "prior_ddim": Row(
        our_sampling(_ddim), original_sampling(_ddim), sampling_work(lambda size: _DDIM_STEPS - 1),
        lambda size: size.samples, "images",
    ),
    "prior_ddim_guided": Row(
        our_sampling(_ddim, 2.0), original_sampling(_ddim, 2.0), sampling_work(lambda size: _DDIM_STEPS - 1, 1),
        lambda size: size.samples, "images",
    ),
    "retrieval_pools": Row(our_pools, original_pools, pools_work, lambda size: _POOLS * _POOL_SIZE * 2, "queries"),
    "retrieval_gallery": Row(
        our_gallery, plain_gallery, gallery_work, lambda size: _QUERIES, "queries", original_name="plain torch"
    ),
}  # fmt: skip


# --- measuring


def measure_row(row: Row, size: Size, device: torch.device, original: Any, repeats: int) -> dict[str, Any]:
    """What was measured of each side."""

    def ours() -> dict[str, Any]:
        keep_freed_memory()
        return measure(lambda: row.ours(size, device), device, row.warm_up, repeats)

    def others() -> dict[str, Any]:
        return measure(lambda: row.original(size, device, original), device, row.warm_up, repeats)

    sides = {"ours": in_own_process(ours)}
    if original is not None or row.original_name != "original":
        sides[row.original_name] = in_own_process(others)
    return sides


def described(name: str, row: Row, size: Size, sides: dict[str, Any]) -> dict[str, Any]:
    ours, work = sides["ours"], row.work(size)
    floors = [work.floor(rates) for rates in ours["rates"]]
    result = {
        "row": name,
        "sides": sides,
        "floor_seconds": median(floors),
        "share_of_floor": median(floor / run for floor, run in zip(floors, ours["runs"], strict=True)),
        f"{row.unit}_per_second": row.items(size) / ours["seconds"],
    }
    if row.original_name in sides:
        other = sides[row.original_name]
        result["times_faster"] = other["seconds"] / ours["seconds"]
        result["share_of_memory"] = ours["peak_mib"] / other["peak_mib"]
    return result


def print_row(result: dict[str, Any], unit: str) -> None:
    others = [side for name, side in result["sides"].items() if name != "ours"]
    ours, other = result["sides"]["ours"], others[0] if others else None
    flops = median(rates["flops"] for rates in ours["rates"])
    columns = [
        f"{result['row']:<18}",
        f"{other['seconds']:>9.3f}" if other else f"{'-':>9}",
        f"{ours['seconds']:>9.3f}",
        f"{result['times_faster']:>7.2f}" if other else f"{'-':>7}",
        f"{result['floor_seconds']:>8.3f}",
        f"{result['share_of_floor']:>6.0%}",
        f"{other['peak_mib']:>10.0f}" if other else f"{'-':>10}",
        f"{ours['peak_mib']:>9.0f}",
        f"  {result[f'{unit}_per_second']:,.3g} {unit}/s  {flops / 1e9:,.0f} GFLOP/s",
    ]
    print(" ".join(columns), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=HOW_TO_GET_THE_ORIGINAL, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--original", type=Path, help="folder with the authors' code, see below")
    parser.add_argument("--size", choices=SIZES, default="medium")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--repeats", type=int, default=3, help="timed runs a side")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks/mindeye.json"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # As in the original's training.
    torch.backends.cuda.matmul.allow_tf32 = True
    original = None if args.original is None else import_original(args.original.resolve())
    size = SIZES[args.size]
    print(f"{args.size} on {device.type}, {args.threads} threads: {asdict(size)}")
    print("                        seconds           times           share   peak memory, MiB")
    print("row                 original      ours  faster    floor  of it   original      ours")
    results = []
    for name in args.rows:
        row = ROWS[name]
        results.append(described(name, row, size, measure_row(row, size, device, original, args.repeats)))
        print_row(results[-1], row.unit)
    settings = {"size": args.size, **asdict(size), "device": device.type, "threads": args.threads}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"settings": settings, "torch": torch.__version__, "rows": results}, indent=2))
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
