"""`fmri-models demo`: from nothing to pictures that were read out of (simulated) brain activity."""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..command_output import load_libraries
from ..errors import FmriModelsError
from ..names import shell_word
from ..output_folders import PIPELINE, TRIAL_TABLE, check_merged_folder, check_output_folder
from ..registry import get_method, method_names
from ..saving import scratch_folder, write_text
from .console import SeedOption, add_table_argument

if TYPE_CHECKING:
    from ..evaluation.report import Report
    from ..evaluation.seeded_drawing import Precision
    from ..records import Method

MARKER = "demo.json"


@dataclass(frozen=True)
class DemoSize:
    """How much brain activity the demo simulates, and how its pictures are drawn.

    Args:
        num_voxels: Voxels of the subject.
        num_train: Training pictures.
        num_validation: Validation pictures.
        num_test: Test pictures.
        num_inference_steps: Denoising steps, the same in every row.
        num_candidates: Pictures drawn of each item, the same in every row.
    """

    num_voxels: int
    num_train: int
    num_validation: int
    num_test: int
    num_inference_steps: int
    num_candidates: int

    @property
    def drawing(self) -> dict[str, float]:
        """What the recipe says of how pictures are drawn."""
        return {
            "num_inference_steps": self.num_inference_steps,
            "guidance_scale": GUIDANCE_SCALE,
            "strength": STRENGTH,
            "num_candidates": self.num_candidates,
        }


# Chosen on validation pictures, for all rows and both sizes.
GUIDANCE_SCALE = 3.0
STRENGTH = 0.8

FULL = DemoSize(
    num_voxels=3000, num_train=4000, num_validation=200, num_test=100, num_inference_steps=8, num_candidates=4
)
QUICK = DemoSize(
    num_voxels=1500, num_train=768, num_validation=64, num_test=40, num_inference_steps=5, num_candidates=1
)


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "demo",
        help="simulate, fit, reconstruct, evaluate: everything once, offline",
        description=(
            "Simulate brain activity, fit a decoder, reconstruct what was seen, and measure it. Needs no network "
            "and no GPU."
        ),
        epilog="example:\n  fmri-models demo --out outputs/demo",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--method", default="mindeye", choices=method_names(), help="the decoder (default: mindeye)")
    parser.add_argument("--quick", action="store_true", help="fewer pictures: one to two minutes")
    parser.add_argument("--out", metavar="DIR", default="outputs/demo", help="default: outputs/demo")
    parser.add_argument("--seed", type=int, action=SeedOption, default=0)
    add_table_argument(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from ..training.recipe_files import recipe_names

    method = get_method(args.method)
    if args.method not in recipe_names():
        raise FmriModelsError(
            f"The method {args.method!r} has no recipe of its name, with which the demo would train it; its package "
            f"ships it as recipes/{args.method}.yaml beside what its entry point names."
        )
    started = time.perf_counter()
    out = Path(args.out)
    _check_out(out)
    load_libraries()
    report = _run_stages(method, QUICK if args.quick else FULL, out, args.seed, all_rows=args.all_rows)
    seconds = time.perf_counter() - started
    print(f"\ndone in {seconds:.0f} s")
    return {"out": out, "seconds": round(seconds, 1), "report": report.to_dict()}


def _run_stages(method: "Method", size: DemoSize, out: Path, seed: int, all_rows: bool = False) -> "Report":
    from ..evaluation.evaluate import evaluate
    from ..evaluation.report_terminal import notes_text, results_table, warnings_text
    from ..hub.cards import write_card
    from ..simulation import simulate
    from ..training.recipe import load_recipe
    from ..training.trainer import train

    write_text(out / MARKER, json.dumps({"method": method.name, "seed": seed}))
    data, pipeline = out / "data", out / "pipeline"
    precision = _precision()
    with _stage(f"simulating {size.num_train + size.num_validation + size.num_test:,} pictures x 3 repetitions"):
        simulate(
            "builtin:scenes",
            data,
            num_subjects=1,
            num_voxels=size.num_voxels,
            num_train=size.num_train,
            num_validation=size.num_validation,
            num_test=size.num_test,
            unlabelled=round(method.demo_unlabelled * size.num_train),
            seed=seed,
            overwrite=True,
            progress=True,
        )
    with _stage(f"training the method {method.name!r} and saving the pipeline"):
        drawing = [f"drawing.{name}={value}" for name, value in size.drawing.items()]
        changes = [*drawing, *method.demo, *(method.quick if size is QUICK else ())]
        recipe = load_recipe(method.name, [f"data={data}", f"out={pipeline}", f"seed={seed}", *changes])
        train(recipe, overwrite=True)
    with _stage("drawing and measuring all rows"):
        report = evaluate(pipeline, data, out, overwrite=True, seed=seed, precision=precision)
        write_card(pipeline, report)
    with _stage("loading the pipeline in a new process and reconstructing again"):
        difference = _reconstruct_in_new_process(out, seed, precision)
    print(f"\n{results_table(report, all_rows)}\n")
    print(f"mean noise ceiling over all voxels (3 repetitions): {report.data['mean_noise_ceiling']:.2f}")
    print(f"the reloaded pipeline gives the same pictures (largest difference: {difference} of 255 levels)\n")
    if report.warnings:
        print(f"{warnings_text(report)}\n")
    print(notes_text(report))
    _print_next(out)
    return report


def _reconstruct_in_new_process(out: Path, seed: int, precision: "Precision") -> int:
    """Reconstructs with the saved pipeline in a fresh interpreter; returns the largest difference in 8-bit levels."""
    with scratch_folder(out / "reloaded") as scratch:
        return _largest_difference(out, seed, precision, scratch / "pictures")


def _largest_difference(out: Path, seed: int, precision: "Precision", again: Path) -> int:
    import numpy as np
    from PIL import Image

    command = [sys.executable, "-m", "fmri_models.cli.main", "reconstruct", "--model", str(out / "pipeline")]
    command += ["--fmri", str(out / "data"), "--subject", "subj01", "--out", str(again)]
    # What is drawn with comes along with the pipeline.
    command += ["--seed", str(seed), "--precision", precision]
    # Its bars go where ours do; its last line there is the error, if there is one.
    finished = subprocess.run([*command, "--json"], stdout=subprocess.PIPE, text=True, check=False)
    if finished.returncode != 0:
        reason = json.loads(finished.stdout or "{}").get("error", f"exit code {finished.returncode}")
        raise FmriModelsError(f"The saved pipeline could not be used in a new process: {reason}")
    files = sorted((out / "images" / "brain").glob("*.png"))
    differences = [
        int(
            np.abs(np.asarray(Image.open(file), dtype=int) - np.asarray(Image.open(again / file.name), dtype=int)).max()
        )
        for file in files
    ]
    if max(differences) > 1:
        raise FmriModelsError(
            f"The reloaded pipeline gives other pictures than the fitted one (up to {max(differences)} of 255 levels)."
        )
    return max(differences)


def _precision() -> "Precision":
    """Half precision where the processor has instructions for it; elsewhere it would take longer."""
    from ..training.precision import has_bfloat16_instructions

    return "bfloat16" if has_bfloat16_instructions() else "float32"


def _check_out(out: Path) -> None:
    """Refuses, before minutes of work, a folder of something else, and one whose content can't be replaced."""
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / MARKER).is_file()):
        raise FmriModelsError(f"{out} exists and is no folder of an earlier demo; choose another one with --out.")
    check_merged_folder(out, overwrite=True)
    check_output_folder(out / "data", overwrite=True, folder_format=TRIAL_TABLE)
    check_output_folder(out / "pipeline", overwrite=True, folder_format=PIPELINE)


def _print_next(out: Path) -> None:
    pipeline, data, gallery = (shell_word(out / name) for name in ("pipeline", "data", "images/truth"))
    print(f"""
what was written:
  {out}/grid.png        shown pictures and their reconstructions: look at this first
  {out}/report.html     the whole report (also report.md, report.json, items.parquet)
  {out}/images/         every picture of every row
  {out}/pipeline/       the decoder and its card, for FmriToImagePipeline.from_pretrained
  {out}/data/           the simulated trial table

next:
  fmri-models retrieve --model {pipeline} --fmri {data} --subject subj01 --gallery {gallery}
  fmri-models simulate --stimuli builtin:scenes --subjects 4 --out outputs/four_subjects
  fmri-models prepare arrays --help         your own betas
  fmri-models prepare digits69 --help       real fMRI""")


@contextmanager
def _stage(name: str) -> Iterator[None]:
    print(f"▸ {name} …", flush=True)
    started = time.perf_counter()
    yield
    print(f"  {time.perf_counter() - started:.1f} s", flush=True)
