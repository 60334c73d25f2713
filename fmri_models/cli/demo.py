"""`fmri-models demo`: from nothing to pictures that were read out of (simulated) brain activity."""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
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

    Where a method trains several subjects together, these share the pictures out.

    Args:
        num_voxels: Voxels of the first subject.
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
REPETITIONS = 3
# Of a subject that is added to a trained pipeline: 100 trials to learn from.
NEW_SUBJECT_PICTURES, NEW_SUBJECT_REPETITIONS = 50, 2


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
    demo = Demo(method, QUICK if args.quick else FULL, out, args.seed, args.all_rows)
    result: dict[str, Any] = {"report": demo.of_first_subjects().to_dict()}
    if method.demo_new_subject:
        result["new_subject"] = demo.of_new_subject().to_dict()
    _print_next(out, demo.new_subject if method.demo_new_subject else None)
    seconds = time.perf_counter() - started
    print(f"\ndone in {seconds:.0f} s")
    return {"out": out, "seconds": round(seconds, 1), **result}


@dataclass(frozen=True)
class Demo:
    """What the demo does for a method.

    Args:
        method: The method.
        size: How much is simulated.
        out: Folder of the report, with table and pipeline beside it.
        seed: Of everything that is drawn.
        all_rows: Whether every row of a report is printed.
    """

    method: "Method"
    size: DemoSize
    out: Path
    seed: int
    all_rows: bool = False

    @property
    def new_subject(self) -> str:
        """Name of a subject that is added to the trained pipeline."""
        return f"subj{self.method.demo_subjects + 1:02d}"

    def of_first_subjects(self) -> "Report":
        """Simulates, trains, measures, and draws again in a new process."""
        write_text(self.out / MARKER, json.dumps({"method": self.method.name, "seed": self.seed}))
        count, size = self.method.demo_subjects, self.size
        self._simulate(
            self.out / "data",
            num_subjects=count,
            num_train=size.num_train // count,
            unlabelled=round(self.method.demo_unlabelled * size.num_train),
        )
        with _stage(f"training the method {self.method.name!r} and saving the pipeline"):
            changes = [*self.method.demo, *(self.method.quick if size is QUICK else ())]
            self._train(self.method.name, self.out / "data", self.out / "pipeline", changes)
        report = self._measured(self.out / "pipeline", self.out / "data", self.out)
        with _stage("loading the pipeline in a new process and reconstructing again"):
            difference = _reconstruct_in_new_process(self.out, self.seed, _precision())
        self._print_report(report)
        print(f"the reloaded pipeline gives the same pictures (largest difference: {difference} of 255 levels)\n")
        self._print_notes(report)
        return report

    def of_new_subject(self) -> "Report":
        """Adds a further subject, of whom there are few trials, to the pipeline, and measures it in the same way."""
        folder = self.out / self.new_subject
        self._simulate(
            folder / "data",
            num_subjects=1,
            first_subject=self.method.demo_subjects + 1,
            num_train=NEW_SUBJECT_PICTURES,
            repetitions=NEW_SUBJECT_REPETITIONS,
        )
        trials = NEW_SUBJECT_PICTURES * NEW_SUBJECT_REPETITIONS
        with _stage(f"adding {self.new_subject}, of whom there are {trials} trials, to the pipeline"):
            base = [f"initial_model={self.out / 'pipeline'}", f"sources=[{json.dumps(str(self.out / 'data'))}]"]
            self._train(self.method.demo_new_subject, folder / "data", folder / "pipeline", base)
        report = self._measured(folder / "pipeline", folder / "data", folder)
        self._print_report(report, NEW_SUBJECT_REPETITIONS)
        print()
        self._print_notes(report)
        return report

    def _simulate(
        self, data: Path, num_subjects: int, num_train: int, repetitions: int = REPETITIONS, **others: Any
    ) -> None:
        from ..simulation import simulate

        shares, size = self.method.demo_subjects, self.size
        num_validation, num_test = size.num_validation // shares, size.num_test // shares
        pictures = num_train + num_validation + num_test
        whom = f"to each of {num_subjects} subjects, " if num_subjects > 1 else ""
        with _stage(f"simulating {pictures:,} pictures {whom}x {repetitions} repetitions"):
            simulate(
                "builtin:scenes",
                data,
                num_subjects=num_subjects,
                num_voxels=size.num_voxels,
                num_train=num_train,
                num_validation=num_validation,
                num_test=num_test,
                repetitions=repetitions,
                seed=self.seed,
                overwrite=True,
                progress=True,
                **others,
            )

    def _train(self, recipe: str, data: Path, pipeline: Path, changes: Sequence[str]) -> None:
        from ..training.recipe import load_recipe
        from ..training.trainer import train

        drawing = [f"drawing.{name}={value}" for name, value in self.size.drawing.items()]
        own = [f"data={data}", f"out={pipeline}", f"seed={self.seed}"]
        train(load_recipe(recipe, [*own, *drawing, *changes]), overwrite=True)

    def _measured(self, pipeline: Path, data: Path, out: Path) -> "Report":
        from ..evaluation.evaluate import evaluate
        from ..hub.cards import write_card

        with _stage("drawing and measuring all rows"):
            report = evaluate(pipeline, data, out, overwrite=True, seed=self.seed, precision=_precision())
            write_card(pipeline, report)
        return report

    def _print_report(self, report: "Report", repetitions: int = REPETITIONS) -> None:
        from ..evaluation.report_terminal import results_table

        print(f"\n{results_table(report, self.all_rows)}\n")
        ceiling = report.data["mean_noise_ceiling"]
        print(f"mean noise ceiling over all voxels ({repetitions} repetitions): {ceiling:.2f}")

    def _print_notes(self, report: "Report") -> None:
        from ..evaluation.report_terminal import notes_text, warnings_text

        if report.warnings:
            print(f"{warnings_text(report)}\n")
        print(notes_text(report))


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
    images = out / "images" / "brain"
    # Of several subjects, each has a folder.
    files = sorted((images / "subj01" if (images / "subj01").is_dir() else images).glob("*.png"))
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
    for folder in (out, *sorted(out.glob("subj??"))):
        check_output_folder(folder / "data", overwrite=True, folder_format=TRIAL_TABLE)
        check_output_folder(folder / "pipeline", overwrite=True, folder_format=PIPELINE)


def _print_next(out: Path, new_subject: str | None) -> None:
    added = (
        f"\n  {out}/{new_subject}/       the same of {new_subject}, who was added to the pipeline"
        if new_subject
        else ""
    )
    pipeline, data, gallery = (shell_word(out / name) for name in ("pipeline", "data", "images/truth"))
    print(f"""
what was written:
  {out}/grid.png        shown pictures and their reconstructions: look at this first
  {out}/report.html     the whole report (also report.md, report.json, items.parquet)
  {out}/images/         every picture of every row
  {out}/pipeline/       the decoder and its card, for FmriToImagePipeline.from_pretrained
  {out}/data/           the simulated trial table{added}

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
