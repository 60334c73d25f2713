"""How much of the brain a method uses that learns by gradient: its recipe trained for each number of dimensions.

    python scripts/bottleneck_curve.py mindeye data=outputs/demo/data --out outputs/bottleneck --dimensions 1,2,5,10,20

1. On the trials that the recipe learns from, voxels are mapped to k dimensions: those from which ridge regression
   predicts most of the pictures' embeddings and latents (reduced-rank regression), or with `--map principal_components`
   those along which voxels vary most. Trials that are learned from get the dimensions that a map without their stimulus
   gives; otherwise a method would learn what the map has learned by heart.
2. Each trial is put back among the voxels: a table is written in which every pattern is the best guess of the voxels
   from its k dimensions. Patterns keep their width and order, so that any method reads them, and hold no more than k
   numbers. (That is why it is no table of k voxels: patches, regions and pooling would have nothing to work on.)
3. The recipe is trained on it by the ordinary trainer and evaluated; so is the recipe on the voxels as they are
   (`full`), and on a table of one random number a trial (0 dimensions), which is this method's floor.
4. `curve.json` has what `fmri-models evaluate --audit bottleneck` has of the linear method; `curve.md`, `curve.svg` and
   `curve.png` show it.

What is finished is kept: the same command goes on where it was interrupted, and with more dimensions it trains these.
"""

import argparse
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from fmri_models import FmriProcessor
from fmri_models.closed_form_trials import ClosedFormTrials, Patterns
from fmri_models.data import TrialTable, TrialTableWriter
from fmri_models.data.closed_form import closed_form_trials
from fmri_models.data.schema import DEFAULT_SPLIT, SPLITS, labelled_parts
from fmri_models.data.table_processor import fit_processor
from fmri_models.data.table_trials import Trials
from fmri_models.data.targets import DEFAULT_TARGETS, TARGET_SPACES, Target
from fmri_models.encoders.reduced_rank import ReducedMap, principal_map, reduced_rank_map
from fmri_models.encoders.ridge import RidgeSolver, choose_alpha
from fmri_models.errors import FmriModelsError
from fmri_models.evaluation.audit.bottleneck import BOTTLENECK
from fmri_models.evaluation.bottleneck_curve import (
    CEILING,
    FLOOR,
    FULL,
    NOTHING,
    BottleneckContent,
    curve_content,
)
from fmri_models.evaluation.evaluate import evaluate
from fmri_models.evaluation.items_file import ITEMS_FILE
from fmri_models.evaluation.plots import plotted
from fmri_models.evaluation.report import REPORT_FILE, Report
from fmri_models.evaluation.report_pages import markdown_table
from fmri_models.evaluation.scores import Scores
from fmri_models.generation.image_generator import ImageGenerator
from fmri_models.generation.pixels import PixelsImageGenerator
from fmri_models.names import markdown, one_line
from fmri_models.plain_values import plain
from fmri_models.registry import get_method
from fmri_models.saving import write_text
from fmri_models.training.building import image_generator_for, recipe_subjects
from fmri_models.training.recipe import Recipe, load_recipe
from fmri_models.training.trainer import train

MAPS = ("reduced_rank", "principal_components")
_SETTINGS_FILE, _RANKS_FILE = "settings.json", "ranks.json"
_MOST_DIMENSIONS = 1000
# Options of a recipe's processor that say which voxels are read and by what they are standardised; the others say how
# patterns are laid out, which is no matter of the map.
_OPTIONS_OF_VOXELS = (
    "statistics", "unseen_session", "min_session_trials", "rois", "min_noise_ceiling", "num_best_voxels",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n\n")[0], epilog=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", help="a recipe's name or file")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="as of `fmri-models train`; data=DIR at least"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of tables, trainings, reports and the curve")
    parser.add_argument("--dimensions", default="1,2,5,10,20,50", help="numbers of dimensions (default: %(default)s)")
    parser.add_argument("--map", choices=MAPS, default=MAPS[0], help="which dimensions (default: %(default)s)")
    parser.add_argument("--protocol", help="which metrics (default: standard)")
    parser.add_argument("--weights", help="folder with weights of the networks that measure")
    parser.add_argument("--seed", type=int, default=0, help="of drawing, intervals and random numbers (default: 0)")
    parser.add_argument("--drop-tables", action="store_true", help="remove each table once its report is there")
    # Overrides may stand before options and behind them.
    args = parser.parse_intermixed_args(arguments)
    try:
        dimensions = sorted({int(k) for k in args.dimensions.split(",")})
    except ValueError:
        parser.error(f"--dimensions is {args.dimensions!r}; expected whole numbers such as 1,2,5")
    try:
        curve = Curve(
            load_recipe(args.recipe, [*args.overrides, f"out={args.out / FULL / 'pipeline'}"]),
            args.out,
            dimensions,
            args.map,
            args.protocol,
            args.weights,
            args.seed,
            args.drop_tables,
        )
        for sentence in curve.run():
            print(f"- {sentence}")
    except FmriModelsError as error:
        parser.exit(1, f"error: {error}\n")
    print(f"\nwrote {args.out}/curve.json, curve.md, curve.svg, curve.png")


@dataclass
class Curve:
    """The curve of one recipe.

    Args:
        recipe: What is trained, on the table as it is.
        out: Folder for all.
        dimensions: Numbers of dimensions, ascending, from 1.
        map_name: One of [`MAPS`].
        protocol: Which metrics; None for the standard ones.
        weights: Folder with weights of extractors.
        seed: Of drawing, intervals and random numbers.
        drops_tables: Whether tables are removed once their reports are there.
    """

    recipe: Recipe
    out: Path
    dimensions: Sequence[int]
    map_name: str = MAPS[0]
    protocol: str | None = None
    weights: str | None = None
    seed: int = 0
    drops_tables: bool = False

    def run(self) -> list[str]:
        """Trains and evaluates what is not finished, and writes the curve; returns what it says in sentences."""
        check_recipe(self.recipe, self.dimensions)
        assert self.recipe.data is not None
        table = TrialTable.open(self.recipe.data)
        self._check_settings(table)
        maps: dict[str, SubjectMap] = {}

        def found() -> dict[str, SubjectMap]:
            # Made when something needs them: a curve that is finished needs none.
            if not maps:
                maps.update(subject_maps(self.recipe, table, self.map_name, max(_MOST_DIMENSIONS, *self.dimensions)))
            return maps

        most = self._most_possible(found)
        # The subject with the fewest dimensions may have fewer than were asked for.
        dimensions = [NOTHING, *(k for k in self.dimensions if k <= most)]
        if more := [k for k in self.dimensions if k > most]:
            print(f"left out: {', '.join(map(str, more))}; there are {most} dimensions")
        reports = {FULL: self._report(FULL, Path(self.recipe.data), rows=["floor", "ceiling"])}
        for k in dimensions:
            write = partial(self._write_table, table, found, k)
            reports[str(k)] = self._report(str(k), self.out / str(k) / "data", rows=[], write=write)
        content = curve_content(
            scores_of_reports(reports),
            dimensions,
            self.recipe.method,
            "was trained on random numbers in the place of the voxels",
            most,
            self.map_name,
            self.seed,
        )
        write_curve(self.out, content, table, self.recipe)
        return BOTTLENECK.notes(content)

    def _most_possible(self, maps: Callable[[], Mapping[str, "SubjectMap"]]) -> int:
        """How many dimensions the subject has that has the fewest."""
        path = self.out / _RANKS_FILE
        if not path.exists():
            ranks = {name: each.map.rank for name, each in maps().items()}
            write_text(path, json.dumps(ranks, indent=2) + "\n")
        return int(min(json.loads(path.read_text(encoding="utf-8")).values()))

    def _check_settings(self, table: TrialTable) -> None:
        """Refuses to go on with what was made by another recipe, map or table."""
        places = ("data", "out")
        settings = plain(
            {
                "recipe": {name: value for name, value in self.recipe.published().items() if name not in places},
                "table": table.fingerprint,
                "map": self.map_name,
                "protocol": self.protocol,
                "seed": self.seed,
            }
        )
        path = self.out / _SETTINGS_FILE
        if not path.exists():
            self.out.mkdir(parents=True, exist_ok=True)
            write_text(path, json.dumps(settings, indent=2) + "\n")
            return
        before = json.loads(path.read_text(encoding="utf-8"))
        if differing := [name for name in settings if before.get(name) != settings[name]]:
            raise FmriModelsError(
                f"{one_line(self.out)} has a curve of another {', '.join(differing)}; take another --out, or the same "
                "arguments as then."
            )

    def _report(
        self, name: str, data: Path, rows: Sequence[str], write: Callable[[Path], None] | None = None
    ) -> Report:
        """The report of one number of dimensions, made if it is not there."""
        folder = self.out / name
        report = folder / "report"
        if (report / REPORT_FILE).exists():
            print(f"{name}: finished, kept")
            return Report.load(report)
        print(f"{name}: training and evaluating", flush=True)
        if write is not None and not data.exists():
            write(data)
        recipe = replace(self.recipe, data=str(data), out=str(folder / "pipeline"))
        train(recipe, resume=True)
        # A report that a kill has left without its JSON is none.
        found = evaluate(
            folder / "pipeline", data, report, self.protocol, overwrite=True, seed=self.seed, rows=rows,
            weights=self.weights,
        )  # fmt: skip
        if write is not None and self.drops_tables:
            shutil.rmtree(data)
        return found

    def _write_table(
        self, table: TrialTable, maps: Callable[[], Mapping[str, "SubjectMap"]], k: int, out: Path
    ) -> None:
        subjects = {
            name: each.uninformed(self.seed) if k == NOTHING else each.of_dimensions(k) for name, each in maps().items()
        }
        write_reduced_table(table, out, subjects, k, self.recipe.split)


def check_recipe(recipe: Recipe, dimensions: Sequence[int]) -> None:
    """Refuses what a reduced table says nothing of.

    Raises:
        FmriModelsError: Names it.
    """
    if not recipe.data:
        raise FmriModelsError("The recipe has no data; add data=DIR.")
    if not dimensions or min(dimensions) < 1:
        raise FmriModelsError("Numbers of dimensions are whole numbers from 1; 0 dimensions are always there.")
    if recipe.folds is not None:
        raise FmriModelsError("The curve is that of one fold; give fold=NUMBER in the place of folds=all.")
    if recipe.generator is None:
        raise FmriModelsError("The recipe has no image generator, so that there are no pictures to be scored.")
    others = {
        "adaptation": recipe.adaptation,
        "sources": recipe.sources,
        "unpaired": any(stage.unpaired for stage in recipe.stages),
    }
    for name, value in others.items():
        if value:
            raise FmriModelsError(
                f"The recipe has {name}, which learns from voxels beside those of its table, and nothing reduces "
                "these; leave it out."
            )


# ---------------------------------------------------------------------------------------------------------------- maps


@dataclass(frozen=True, eq=False)
class SubjectMap:
    """What the patterns of one subject become.

    Args:
        processor: Standardises and selects; patterns are not laid out anew.
        map: To the dimensions.
        back: (k, S) float32, the best guess of the standardised voxels from the dimensions, less `centre`.
        centre: (S,) of the voxels.
        learned: Trial ▶ its place among the examples that the map was fitted on.
        fmri: Patterns of these examples.
        seed: None for the dimensions of the map; random numbers in their place.
    """

    processor: FmriProcessor
    map: ReducedMap
    back: torch.Tensor
    centre: torch.Tensor
    learned: Mapping[int, int]
    fmri: Patterns
    seed: int | None = None

    def of_dimensions(self, k: int) -> "SubjectMap":
        """That of the first k dimensions."""
        found = self.map.first(k)
        back, centre = _back(self.fmri, found)
        return replace(self, map=found, back=back, centre=centre)

    def uninformed(self, seed: int) -> "SubjectMap":
        """One random number a trial in the place of the first dimension."""
        return replace(self.of_dimensions(1), seed=seed)

    def patterns(self, trials: Trials, positions: np.ndarray) -> np.ndarray:
        """(n, recorded voxels) float32 of some trials; voxels that are not read are 0."""
        statistics = self.processor.subject(trials.subject)
        output = np.zeros((len(positions), trials.num_voxels), dtype=np.float32)
        guessed = self._dimensions(trials, positions).to(self.back.dtype) @ self.back + self.centre
        output[:, statistics.selected] = guessed.float().numpy()
        return output

    def _dimensions(self, trials: Trials, positions: np.ndarray) -> torch.Tensor:
        numbers = trials.trials[positions]
        if self.seed is not None:
            # Of each trial by its number, however many are read at once.
            values = [np.random.default_rng([self.seed, int(number)]).standard_normal() for number in numbers]
            return torch.tensor(values)[:, None] * self.map.training.std()
        processed = self.processor(
            trials.fmri(positions), subject=trials.subject, session=trials.sessions[positions], return_tensors="np"
        )["fmri"][:, : self.map.weights.shape[1]]
        found = self.map(processed)
        known = [
            (place, self.learned[number]) for place, number in enumerate(numbers.tolist()) if number in self.learned
        ]
        if known:
            places, examples = zip(*known, strict=True)
            found[list(places)] = self.map.training[list(examples)]
        return found


def subject_maps(recipe: Recipe, table: TrialTable, map_name: str, most: int) -> dict[str, SubjectMap]:
    """Subject ▶ map to at most `most` dimensions, fitted on the single trials that the recipe learns from."""
    subjects, parts = recipe_subjects(recipe, table), labelled_parts(recipe.train_parts)
    options = {name: value for name, value in recipe.processor.items() if name in _OPTIONS_OF_VOXELS}
    if options.get("statistics") == "identity":
        options["statistics"] = "pooled"
    needed = sorted({part for stage in recipe.stages for part in stage.held_out_parts})
    processor = fit_processor(table, subjects, parts, recipe.split, recipe.fold, needed, **options)
    generator, targets = embedding_generator(recipe, table)
    trials = closed_form_trials(table, processor, generator, targets, parts, recipe.split, recipe.fold, "single")
    found = {}
    for name, examples in trials.items():
        fitted = fitted_map(examples, map_name, targets, most)
        numbers = table.trials(name, parts, recipe.split, recipe.fold).trials.tolist()
        learned = {number: place for place, number in enumerate(numbers)}
        back, centre = _back(examples.fmri, fitted)
        found[name] = SubjectMap(processor, fitted, back, centre, learned, examples.fmri)
    return found


def embedding_generator(recipe: Recipe, table: TrialTable) -> tuple[ImageGenerator, list[Target]]:
    """What embeds the pictures by which dimensions are chosen: the recipe's generator, or pixels if it embeds none."""
    generator = image_generator_for(recipe, table)
    targets = [target for target in DEFAULT_TARGETS if getattr(generator, TARGET_SPACES[target]) is not None]
    if targets:
        return generator, targets
    shape = table.stimuli.images(table.stimuli.ids[:1]).shape
    return PixelsImageGenerator(shape[3], *shape[1:3]), ["latents"]


def fitted_map(trials: ClosedFormTrials, map_name: str, targets: Sequence[str], most: int) -> ReducedMap:
    """The map of one subject; penalties are chosen by leaving training stimuli out."""
    solver = RidgeSolver(trials.fmri)
    if map_name == "principal_components":
        return principal_map(solver, most)
    alphas = get_method("linear").load("objective")().penalties
    chosen = {
        target: choose_alpha(solver, trials, target, alphas, "leave_one_stimulus_out").alpha for target in targets
    }
    return reduced_rank_map(solver, trials, chosen, most)


def _back(fmri: Patterns, found: ReducedMap) -> tuple[torch.Tensor, torch.Tensor]:
    """(k, S) and (S,) of the least-squares guess of voxels from the dimensions."""
    dimensions = found.training.double()
    centred = dimensions - dimensions.mean(dim=0)
    gram = centred.T @ centred
    # Directions that hardly vary would be divided by nearly nothing.
    gram.diagonal().add_(1e-9 * float(gram.diagonal().max()))
    cross = torch.zeros(found.rank, found.weights.shape[1], dtype=torch.float64)
    total = torch.zeros(found.weights.shape[1], dtype=torch.float64)
    for start in range(0, len(fmri), 1024):
        positions = np.arange(start, min(start + 1024, len(fmri)))
        values = torch.from_numpy(np.asarray(fmri[positions])).double()
        cross += centred[positions].T @ values
        total += values.sum(dim=0)
    back = torch.linalg.solve(gram, cross)
    return back, total / len(fmri) - dimensions.mean(dim=0) @ back


# --------------------------------------------------------------------------------------------------------------- table


def write_reduced_table(
    table: TrialTable, out: Path, subjects: Mapping[str, SubjectMap], k: int, split: str = DEFAULT_SPLIT
) -> None:
    """Writes a table of the same trials and pictures whose patterns hold k numbers.

    Args:
        table: As it is.
        out: Folder that is written.
        subjects: Name ▶ what becomes of its patterns; other subjects are left out, as are trials without stimuli and
            responses without noise.
        k: Number of dimensions, for the description.
        split: The split that is kept beside the default one.
    """
    with TrialTableWriter(
        out,
        name=f"{table.name}-{k}-dimensions",
        simulated=table.simulated,
        description=f"Patterns that hold {k} dimensions of those of {table.name} (scripts/bottleneck_curve.py). "
        f"{table.metadata['description']}",
        license=table.metadata["license"],
        source=table.metadata["source"],
        repeats_stimuli=table.repeats_stimuli(DEFAULT_SPLIT),
        created_by="scripts/bottleneck_curve.py",
        inputs=[table.path],
    ) as writer:
        ids = list(table.stimuli.ids)
        encoded, captions = dict(table.stimuli.encoded(ids)), table.stimuli.captions(ids)
        factors = table.stimuli.factors(ids)
        writer.add_stimuli(
            {"stimulus_id": name, "image": encoded[name], "factors": scene, "captions": said}
            for name, scene, said in zip(ids, factors, captions, strict=True)
        )
        for name, each in subjects.items():
            _add_subject(writer, table, name, each)
        if split != DEFAULT_SPLIT:
            rows = table.split_rows(split)
            rows = rows.filter(np.isin(np.asarray(rows["subject"]), list(subjects)))
            writer.add_split(split, rows, by="copied", repeats_stimuli=table.repeats_stimuli(split))


def _add_subject(writer: TrialTableWriter, table: TrialTable, name: str, each: SubjectMap) -> None:
    voxels = table.voxels(name)
    writer.add_voxels(
        name,
        table.num_voxels(name),
        roi=voxels.roi,
        coordinates=voxels.coordinates,
        ncsnr=voxels.ncsnr,
        noise_ceiling=voxels.noise_ceiling,
        source=voxels.source or None,
        repetitions=voxels.repetitions or 1,
        space=voxels.space,
        source_columns=voxels.source_columns,
        source_width=voxels.source_width,
    )
    for part in SPLITS:
        trials = table.trials(name, part)
        if not len(trials):
            continue
        chunks = [np.arange(start, min(start + 1024, len(trials))) for start in range(0, len(trials), 1024)]
        writer.add_trials(
            name,
            part,
            stimulus_ids=trials.stimulus_ids.tolist(),
            fmri=(each.patterns(trials, positions) for positions in chunks),
            sessions=trials.sessions.tolist(),
            runs=trials.runs.tolist(),
            trials=trials.trials.tolist(),
            repetitions=trials.repetitions.tolist(),
            blocks=trials.blocks.tolist() if trials.blocks.any() else None,
            imagery=trials.imagery.tolist() if trials.imagery.any() else None,
        )


# --------------------------------------------------------------------------------------------------------------- curve


def scores_of_reports(reports: Mapping[str, Report]) -> Scores:
    """Item scores of the row `brain` of each report, and of floor and ceiling of the report `full`, side by side."""
    items = {name: _items(report) for name, report in reports.items()}
    keys = sorted(items[FULL]["brain"]["keys"])
    rows = {name: found["brain"]["scores"] for name, found in items.items()}
    rows |= {row: items[FULL][row]["scores"] for row in (FLOOR, CEILING) if row in items[FULL]}
    metrics = [metric.name for metric in reports[FULL].metrics()]
    values: dict[str, dict[str, np.ndarray | None]] = {
        row: {
            metric: np.array([scores[metric].get(key, np.nan) for key in keys]) if metric in scores else None
            for metric in metrics
        }
        for row, scores in rows.items()
    }
    first = {name: group[0] for group in reports[FULL].same_pictures for name in group}
    return Scores(
        values,
        np.array([subject for subject, _ in keys]),
        np.array([stimulus for _, stimulus in keys]),
        np.zeros(len(keys), dtype=np.int64),
        pictures=np.array([first.get(stimulus, stimulus) for _, stimulus in keys]),
    )


def _items(report: Report) -> dict[str, dict[str, Any]]:
    """Row ▶ its items (`keys`) and the scores of each metric (`scores`), by subject and stimulus."""
    assert report.folder is not None
    found: dict[str, dict[str, Any]] = {}
    for item in pq.read_table(report.folder / ITEMS_FILE).to_pylist():
        row = found.setdefault(item["row"], {"keys": set(), "scores": {}})
        key = (item["subject"], item["stimulus_id"])
        row["keys"].add(key)
        row["scores"].setdefault(item["metric"], {})[key] = item["value"]
    return found


def write_curve(out: Path, content: Mapping[str, Any], table: TrialTable, recipe: Recipe) -> None:
    """Writes curve.json, curve.md, curve.svg and curve.png."""
    BottleneckContent.model_validate(plain(content))
    write_text(out / "curve.json", json.dumps(plain(content), indent=2, allow_nan=False) + "\n")
    origin = "a simulated brain" if table.simulated else "measured betas"
    lines = [f"# Bottleneck: {markdown(recipe.method)} on {markdown(table.name)} ({origin})", ""]
    lines += ["![Score against the number of dimensions](curve.png)", ""]
    lines += [*(f"- {markdown(note)}" for note in BOTTLENECK.notes(content)), ""]
    for found in BOTTLENECK.tables(content):
        lines += [f"## {markdown(found.title)}", "", markdown(found.caption), "", *markdown_table(found), ""]
    write_text(out / "curve.md", "\n".join(lines))
    assert BOTTLENECK.plot is not None
    if (svg := plotted(BOTTLENECK.plot, content)) is not None:
        write_text(out / "curve.svg", str(svg).replace("currentColor", "#222222") + "\n")
        _write_png(out / "curve.png", content)


def _write_png(path: Path, content: Mapping[str, Any]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    assert BOTTLENECK.plot is not None
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    BOTTLENECK.plot(content, figure.add_subplot())
    FigureCanvasAgg(figure).print_png(str(path))


if __name__ == "__main__":
    main()
