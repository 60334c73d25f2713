"""A demonstration: good scores of a decoder that reads nothing but a category, and what an audit shows of it.

    python scripts/spurious_reconstruction.py --out outputs/spurious

Two simulated experiments of one brain differ in their pictures alone. In `clustered` all are of eight kinds of scene
(object, ground and time of day), as test and training pictures of large data sets are of the same categories; in
`diverse` object, ground and time are drawn for each picture. Responses are noisy, so that little more than the kind of
scene can be read. A decoder is trained for each experiment, and for `clustered` another one whose test pictures are of
two kinds that it has not seen. `summary.json` has the figures, `*.svg` the plots of docs/spurious.md. Takes some ten
minutes.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from fmri_models.cli.main import main as fmri_models
from fmri_models.evaluation import Report
from fmri_models.evaluation.plots import COLOURS
from fmri_models.scenes import SEED_RANGES, SceneFactors, scene
from fmri_models.simulation import simulate

KINDS = ("house", "tree", "car", "boat", "fish", "star", "mushroom", "balloon")
GROUNDS = ("grass", "sand", "snow", "sea", "grass", "sand", "snow", "sea")
TIMES = ("day", "night", "dawn", "dusk", "night", "day", "dusk", "dawn")
CLUSTERS = set(zip(KINDS, GROUNDS, TIMES, strict=True))
EXPERIMENTS = ("clustered", "diverse")
MODELS = {
    "clustered": ("clustered", "default"),
    "new clusters": ("clustered", "clusters"),
    "diverse": ("diverse", "default"),
}
METRIC = "two_way_efficientnet_lite0"
AUDIT = "overlap,clusters,span,bottleneck"
ROWS = "shuffled_brain,permuted_training,mean_image,nearest_train,floor,ceiling"
FIRST = SEED_RANGES["train"].start


def write_pictures(folder: Path, number: int, wanted: Callable[[SceneFactors], bool]) -> None:
    """The first scenes of the range for training that are wanted, as PNGs."""
    if folder.is_dir():
        return
    partial = folder.with_name(f".{folder.name}")
    partial.mkdir(parents=True, exist_ok=True)
    for seed, drawn in _scenes(wanted, number):
        Image.fromarray(drawn).save(partial / f"scene{seed:09d}.png")
    partial.rename(folder)


def _scenes(wanted: Callable[[SceneFactors], bool], number: int) -> Iterator[tuple[int, Any]]:
    found, seed = 0, FIRST
    while found < number:
        drawn = scene(seed)
        if wanted(drawn.factors):
            found += 1
            yield seed, drawn.image
        seed += 1


def is_of_a_cluster(factors: SceneFactors) -> bool:
    """Whether a scene is of one of the eight kinds."""
    return (factors.kind, factors.ground, factors.time_of_day) in CLUSTERS


def run(out: Path, pictures: int, voxels: int, signal_to_noise: float, steps: int) -> dict[str, Any]:
    """Simulates, splits, trains and evaluates; what is there is not done again."""
    for name in EXPERIMENTS:
        write_pictures(out / "pictures" / name, pictures, is_of_a_cluster if name == "clustered" else lambda each: True)
        if not (out / "data" / name).is_dir():
            tested = pictures // 5
            simulate(
                out / "pictures" / name,
                out / "data" / name,
                num_subjects=1,
                num_voxels=voxels,
                num_train=pictures - tested - pictures // 10,
                num_validation=pictures // 10,
                num_test=tested,
                repetitions=2,
                signal_to_noise=signal_to_noise,
            )
    data = out / "data" / "clustered"
    if not (data / "splits" / "clusters.parquet").is_file():
        _do(
            "data", "split", data, "--name", "clusters", "--by", "cluster", "--clusters", "8", "--test-fraction", "0.25"
        )
    for name, (experiment, split) in MODELS.items():
        model = out / "models" / name.replace(" ", "_")
        if not model.is_dir():
            _do("train", "linear", f"data={out / 'data' / experiment}", f"split={split}", f"out={model}")
    reports = {}
    for name, (experiment, _) in MODELS.items():
        folder = out / "reports" / name.replace(" ", "_")
        if not (folder / "report.json").is_file():
            gap = ["--split-gap", out / "reports" / "clustered"] if name == "new clusters" else []
            settings = ["--steps", steps, "--rows", ROWS, "--audit", AUDIT, *gap]
            model = out / "models" / name.replace(" ", "_")
            _do("evaluate", "--model", model, "--data", out / "data" / experiment, "--out", folder, *settings)
        reports[name] = Report.load(folder)
    return {
        "settings": {
            "pictures": pictures, "voxels": voxels, "signal_to_noise": signal_to_noise, "steps": steps,
            "metric": METRIC,
        },
        "reports": {name: _summary(report) for name, report in reports.items()},
    }  # fmt: skip


def _do(*arguments: Any) -> None:
    if fmri_models([str(argument) for argument in arguments]):
        raise SystemExit(f"fmri-models {arguments[0]} failed")


def _summary(report: Report) -> dict[str, Any]:
    """What docs/spurious.md tells of a report."""
    rows = {row: found.get(METRIC) for row, found in report.results.items()}
    return {
        "rows": rows,
        "audit": report.audit,
        "split_gap": report.split_gap,
        "permutation": report.permutation.get(METRIC),
    }


def plot(summary: dict[str, Any], out: Path) -> None:
    """One plot of the rows of all three, as SVG for light and dark pages."""
    from fmri_models.evaluation.plots import plotted

    (out / "rows.svg").write_text(str(plotted(_draw_rows, summary["reports"], (7, 3.2))), encoding="utf-8")


def _draw_rows(reports: Any, axes: Any) -> None:
    shown = ("brain", "permuted_training", "nearest_train", "ceiling")
    width = 0.8 / len(shown)
    for place, (row, colour) in enumerate(zip(shown, COLOURS, strict=False)):
        found = [each["rows"].get(row) for each in reports.values()]
        values = [each["value"] for each in found]
        low = [each["value"] - each["ci95"][0] for each in found]
        high = [each["ci95"][1] - each["value"] for each in found]
        positions = [number + width * (place - (len(shown) - 1) / 2) for number in range(len(found))]
        axes.bar(positions, values, width, color=colour, label=row.replace("_", " "), yerr=[low, high])
    axes.axhline(0.5, color="#8a8f98", linewidth=1, linestyle="--")
    axes.set_xticks(range(len(reports)), list(reports))
    axes.set_ylabel("two-way identification")
    axes.set_ylim(0, 1.05)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=len(shown))


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("outputs/spurious"))
    parser.add_argument("--pictures", type=int, default=400, help="of each experiment (%(default)s)")
    parser.add_argument("--voxels", type=int, default=600)
    parser.add_argument("--signal-to-noise", type=float, default=0.35)
    parser.add_argument("--steps", type=int, default=4, help="of the generator (%(default)s)")
    arguments = parser.parse_args()
    summary = run(arguments.out, arguments.pictures, arguments.voxels, arguments.signal_to_noise, arguments.steps)
    (arguments.out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    plot(summary, arguments.out)
    for name, found in summary["reports"].items():
        value = found["rows"]["brain"]
        print(f"{name}: {METRIC} {value['value']:.3f} {value['ci95']}")


if __name__ == "__main__":
    main()
