"""Makes the examples that the package carries, from seeds, in one run: `fmri_models/assets/examples/`.

One simulated brain sees built-in scenes, each once. `linear` and `mindeye` learn from the training trials, are saved in
half precision with the embedded generator named, and are measured, as they are saved, on the 24 test trials, which are
put beside them as a trial table of their own.

The sizes below make files that a package can carry: MindEye has half of its recipe's widths and less. A run (800
voxels, 4,000 pictures, 2.5 times the usual signal-to-noise ratio) was looked at on validation pictures before they were
settled; nothing was chosen on test trials.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fmri_models import EmbeddedImageGenerator, FmriToImagePipeline
from fmri_models.data import TrialTable, TrialTableWriter
from fmri_models.data.schema import SIMULATED_TRUTH, TEST
from fmri_models.evaluation.evaluate import evaluate
from fmri_models.evaluation.report_terminal import results_table
from fmri_models.examples import EXAMPLES_FOLDER, TRIALS_FOLDER
from fmri_models.generation.loading import spaces_of
from fmri_models.generation.source import GeneratorSource
from fmri_models.hub.cards import write_card
from fmri_models.hub.owner_statements import OwnerStatements
from fmri_models.simulation import simulate
from fmri_models.training.recipe import load_recipe
from fmri_models.training.trainer import train

SEED = 0
NUM_VOXELS = 1000
NUM_TRAIN, NUM_VALIDATION, NUM_TEST = 8000, 200, 24
# One trial is then as good as the mean of nine at the simulator's usual ratio, which is that of NSD.
SIGNAL_TO_NOISE = 3.0
DRAWING = (
    "drawing.num_inference_steps=8",
    "drawing.num_candidates=4",
    "drawing.guidance_scale=3.0",
    "drawing.strength=0.8",
)
# Recipe ▶ what it changes in the recipe of that name.
RECIPES = {
    "linear": (),
    "mindeye": (
        "model.hidden_size=512",
        "model.token_components=512",
        "model.projector_size=256",
        "model.low_level_hidden_size=256",
        "model.low_level_start_channels=32",
        "model.low_level_block_out_channels=[32,64]",
    ),
}
LICENCE = "apache-2.0"
# What people read of a report there; the page would be as large as the weights.
_LEFT_OUT = ("report.html", "items.parquet")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=EXAMPLES_FOLDER, help="default: the package's own")
    parser.add_argument("--work", type=Path, help="keep the whole table and the trainings in this folder")
    parser.add_argument("--overview", type=Path, help="draw all test pictures into this PNG file, too")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        make_examples(args.work or Path(scratch), args.out)
    if args.overview is not None:
        draw_overview(args.out, args.overview)


def make_examples(work: Path, out: Path) -> None:
    """Simulates, trains, saves and measures.

    Args:
        work: Where the whole table and the trainings go; what is there already is used.
        out: Where the examples go; those that are there are replaced.
    """
    table = work / "table"
    if not table.exists():
        simulate_table(table)
    write_test_trials(TrialTable.open(table), out / TRIALS_FOLDER)
    for method, changes in RECIPES.items():
        trained = work / method
        if not trained.exists():
            train(load_recipe(method, [f"data={table}", f"out={trained}", f"seed={SEED}", *DRAWING, *changes]))
        example = out / f"{method}-scenes"
        save_in_halves(trained, example)
        report = evaluate(example, table, work / f"{method}-report", overwrite=True, seed=SEED)
        write_card(example, report, OwnerStatements(license=LICENCE))
        for name in _LEFT_OUT:
            (example / name).unlink(missing_ok=True)
        with_few_colours(example / "grid.png")
        print(results_table(report))
        print(f"{example}: {_size(example) / 2**20:.1f} MiB")


def simulate_table(out: Path) -> None:
    """One simulated brain that sees scenes."""
    simulate(
        "builtin:scenes",
        out,
        num_voxels=NUM_VOXELS,
        num_train=NUM_TRAIN,
        num_validation=NUM_VALIDATION,
        num_test=NUM_TEST,
        repetitions=1,
        seed=SEED,
        signal_to_noise=SIGNAL_TO_NOISE,
        progress=True,
    )


def with_few_colours(picture: Path) -> None:
    """Makes a PNG a third as large; nothing is measured on it."""
    with Image.open(picture) as opened:
        opened.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(picture, optimize=True)


def draw_overview(out: Path, picture: Path) -> None:
    """Draws all test pictures: shown, and read by each example, in three rows of two lines."""
    lines = []
    for name in ("mindeye-scenes", "linear-scenes"):
        pipeline = FmriToImagePipeline.from_pretrained(out / name)
        trials = TrialTable.open(out / TRIALS_FOLDER).trials("subj01", TEST)
        seeds = [torch.Generator().manual_seed(index) for index in range(len(trials))]
        drawn = pipeline(trials.fmri(), subject=trials.subject, session=trials.sessions, generator=seeds).images
        lines.append([np.asarray(each) for each in drawn])
    lines.insert(0, list(trials.table.stimuli.images(trials.stimulus_ids)))
    halves = [[each[start : start + NUM_TEST // 2] for each in lines] for start in (0, NUM_TEST // 2)]
    gap = np.full((8, 64 * NUM_TEST // 2, 3), 255, np.uint8)
    upper, lower = (np.concatenate([np.concatenate(line, axis=1) for line in half]) for half in halves)
    Image.fromarray(np.concatenate([upper, gap, lower])).save(picture)
    with_few_colours(picture)


def save_in_halves(trained: Path, example: Path) -> None:
    """Saves a pipeline in half precision, its generator named and not contained."""
    shutil.rmtree(example, ignore_errors=True)
    source = GeneratorSource("embedded", spaces=spaces_of(EmbeddedImageGenerator.from_assets()))
    pipeline = FmriToImagePipeline.from_pretrained(trained, dtype=torch.float16, image_generator_source=source)
    pipeline.save_pretrained(example)


def write_test_trials(table: TrialTable, out: Path) -> None:
    """Writes the test trials of a table as one of their own, with their pictures and noise-free responses."""
    with TrialTableWriter(
        out,
        name=f"{table.name}-test",
        simulated=True,
        description=f"The test trials of a larger table. {table.metadata['description']}",
        license=table.metadata["license"],
        source=table.metadata["source"],
        overwrite=True,
        created_by="scripts/train_examples.py",
    ) as writer:
        names = sorted({name for subject in table.subjects for name in table.trials(subject, TEST).stimulus_ids})
        encoded = dict(table.stimuli.encoded(names))
        factors = table.stimuli.factors(names)
        captions = table.stimuli.captions(names)
        writer.add_stimuli(
            {"stimulus_id": name, "image": encoded[name], "factors": each, "captions": said}
            for name, each, said in zip(names, factors, captions, strict=True)
        )
        for subject in table.subjects:
            voxels, trials = table.voxels(subject), table.trials(subject, TEST)
            writer.add_voxels(
                subject,
                table.num_voxels(subject),
                roi=voxels.roi,
                coordinates=voxels.coordinates,
                ncsnr=voxels.ncsnr,
                noise_ceiling=voxels.noise_ceiling,
                source=SIMULATED_TRUTH,
                repetitions=1,
                space="simulated",
            )
            writer.add_trials(
                subject,
                TEST,
                stimulus_ids=trials.stimulus_ids.tolist(),
                fmri=trials.fmri(),
                sessions=trials.sessions.tolist(),
                runs=trials.runs.tolist(),
                trials=trials.trials.tolist(),
                repetitions=trials.repetitions.tolist(),
            )
            noise_free = table.noise_free(subject)
            if noise_free is not None:
                writer.add_noise_free(subject, *noise_free)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
