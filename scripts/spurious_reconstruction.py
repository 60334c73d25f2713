"""A demonstration: good scores of a decoder that reads nothing but a category, and what an audit shows of it.

    python scripts/spurious_reconstruction.py --out outputs/spurious

Two simulated experiments of one brain differ in their pictures alone. In `clustered` all are of eight kinds of scene
(object, ground and time of day), as test and training pictures of large data sets are of the same categories; in
`diverse` object, ground and time are drawn for each picture. Responses are noisy, so that little more than the kind of
scene can be read. A decoder is trained for each experiment, and for `clustered` another one whose test pictures are of
two kinds that it has not seen. `summary.json` has the figures, `spurious.png` the plot; `--docs` writes
docs/spurious.md anew. Takes some half an hour.
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
SHOWN_ROWS = ("brain", "nearest_train", "permuted_training", "ceiling")
LABELS = dict(zip(SHOWN_ROWS, ("from brain", "nearest training", "exchanged pairs", "ceiling"), strict=True))
ROOT = Path(__file__).resolve().parent.parent
PAGE, PLOT = ROOT / "docs" / "spurious.md", ROOT / "docs" / "images" / "spurious.png"
FIGURES = ROOT / "results" / "spurious_reconstruction.json"
_START, _END = "<!-- figures -->\n", "<!-- end of figures -->\n"
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
    """The figures of a report that docs/spurious.md tells."""
    audit = report.audit
    curve = audit["bottleneck"]["results"]
    shares = {k: audit["bottleneck"]["shares"].get(k, {}).get(METRIC) for k in ("1", "5")}
    gap = report.split_gap.get("rows", {}).get("brain", {}).get(METRIC)
    return {
        "pictures": report.data["test_stimuli"],
        "rows": {row: report.results[row].get(METRIC) for row in SHOWN_ROWS},
        "p": report.permutation[METRIC]["p"],
        "distance": {of: audit["overlap"]["nearest"][f"{of}_to_rest"][2] for of in ("test", "held_out")},
        "farther": audit["overlap"]["nearest"]["farther"],
        "across": audit["clusters"]["identification"]["brain"]["across"],
        "within": audit["clusters"]["identification"]["brain"]["within"],
        "outside": audit["span"]["outside"][0]["truth"],
        "bottleneck": {k: found[METRIC] for k, found in curve.items() if k.isdigit()},
        "shares": shares,
        "gap": None if gap is None else {name: gap[name] for name in ("difference", "ci95")},
    }


def table(summary: dict[str, Any]) -> str:
    """The table of docs/spurious.md."""
    reports = summary["reports"]
    lines = {
        "**two-way identification**": lambda each: _figure(each["rows"]["brain"]),
        "p of re-paired pictures": lambda each: f"{each['p']:.3f}",
        "nearest training picture instead": lambda each: _figure(each["rows"]["nearest_train"]),
        "ridge on exchanged pairs": lambda each: _figure(each["rows"]["permuted_training"]),
        "true embedding (ceiling)": lambda each: _figure(each["rows"]["ceiling"]),
        "median distance to the nearest training picture (of held-out training pictures)": lambda each: (
            f"{each['distance']['test']:.2f} ({each['distance']['held_out']:.2f})"
        ),
        "a test picture is the farther one (.5: of the same kinds)": lambda each: _figure(each["farther"]),
        "identification across kinds": lambda each: _figure(each["across"]),
        "identification within a kind": lambda each: _figure(each["within"]),
        "variance of the test targets outside the training's 95 %": lambda each: _figure(each["outside"]),
        "of one dimension of the brain": lambda each: _share(each["shares"]["1"]),
        "of five": lambda each: _share(each["shares"]["5"]),
        "gap to the split by stimulus": lambda each: "" if each["gap"] is None else _gap(each["gap"]),
    }
    header = [f"| | {' | '.join(reports)} |", f"|---|{'---:|' * len(reports)}"]
    rows = [f"| {name} | {' | '.join(cell(each) for each in reports.values())} |" for name, cell in lines.items()]
    return "\n".join([*header, *rows])


def _figure(found: dict[str, Any]) -> str:
    return "{:.3f} [{:.3f}, {:.3f}]".format(found["value"], *found["ci95"])


def _share(found: dict[str, Any] | None) -> str:
    return "nothing to share" if found is None else "{:.0%} [{:.0%}, {:.0%}]".format(found["value"], *found["ci95"])


def _gap(found: dict[str, Any]) -> str:
    return "{:+z.3f} [{:+z.3f}, {:+z.3f}]".format(found["difference"], *found["ci95"])


def plot(summary: dict[str, Any], path: Path) -> None:
    """What was scored, what was told apart within and across kinds, and how few dimensions are enough."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    reports = summary["reports"]
    figure = Figure(figsize=(11, 4), layout="constrained", dpi=110)
    scores, kinds, dimensions = figure.subplots(1, 3)
    rows = {row: [each["rows"][row] for each in reports.values()] for row in SHOWN_ROWS}
    _bars(scores, {LABELS[row]: found for row, found in rows.items()}, list(reports), "what is scored")
    parts = {part: [each[part] for each in reports.values()] for part in ("across", "within")}
    _bars(kinds, {f"{part} kinds": found for part, found in parts.items()}, list(reports), "what is told apart")
    for (name, each), colour in zip(reports.items(), COLOURS, strict=False):
        numbers = sorted(map(int, each["bottleneck"]))
        values = [each["bottleneck"][str(number)]["value"] for number in numbers]
        dimensions.plot(range(len(numbers)), values, "o-", color=colour, label=name, markersize=4)
        dimensions.axhline(each["rows"]["brain"]["value"], color=colour, linewidth=0.8, linestyle=":")
    dimensions.set_xticks(range(len(numbers)), numbers)
    dimensions.set_xlabel("dimensions of the brain")
    dimensions.set_title("how much of the brain that takes", fontsize=10)
    for axes in (scores, kinds, dimensions):
        axes.axhline(0.5, color="#8a8f98", linewidth=1, linestyle="--")
        axes.set_ylim(0, 1.05)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
    scores.set_ylabel("two-way identification")
    FigureCanvasAgg(figure).print_png(path)


def _bars(axes: Any, groups: dict[str, list[dict[str, Any]]], names: list[str], title: str) -> None:
    width = 0.8 / len(groups)
    for place, ((label, found), colour) in enumerate(zip(groups.items(), COLOURS, strict=False)):
        low = [each["value"] - each["ci95"][0] for each in found]
        high = [each["ci95"][1] - each["value"] for each in found]
        positions = [number + width * (place - (len(groups) - 1) / 2) for number in range(len(found))]
        axes.bar(positions, [each["value"] for each in found], width, color=colour, label=label, yerr=[low, high])
    axes.set_xticks(range(len(names)), names)
    axes.set_title(title, fontsize=10)


def with_table(page: str, summary: dict[str, Any]) -> str:
    """The page with the table of these figures between its marks."""
    before, _, rest = page.partition(_START)
    _, _, after = rest.partition(_END)
    return f"{before}{_START}{table(summary)}\n{_END}{after}"


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("outputs/spurious"))
    parser.add_argument("--pictures", type=int, default=400, help="of each experiment (%(default)s)")
    parser.add_argument("--voxels", type=int, default=600)
    parser.add_argument("--signal-to-noise", type=float, default=0.35)
    parser.add_argument("--steps", type=int, default=4, help="of the generator (%(default)s)")
    parser.add_argument("--docs", action="store_true", help="write figures and plot into docs/ and results/, too")
    arguments = parser.parse_args()
    summary = run(arguments.out, arguments.pictures, arguments.voxels, arguments.signal_to_noise, arguments.steps)
    (arguments.out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    plot(summary, arguments.out / "spurious.png")
    if arguments.docs:
        FIGURES.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
        plot(summary, PLOT)
        PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), summary), encoding="utf-8")
    for name, found in summary["reports"].items():
        value = found["rows"]["brain"]
        print(f"{name}: {METRIC} {value['value']:.3f} {value['ci95']}")


if __name__ == "__main__":
    main()
