"""Writes `results/*.csv` from reports alone, and the tables of figures in the documentation from these.

`python scripts/write_results.py` writes all anew, `--check` says what is not as it would be written and ends with 1,
and `--add REPORT.json NAME` keeps a further report, as `results/reports/NAME.json`, from which all is then written.
"""

import argparse
import csv
import hashlib
import io
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fmri_models.evaluation.named_metrics import get_metric
from fmri_models.evaluation.report import Report
from fmri_models.names import check_name, csv_cell, markdown, one_line
from fmri_models.saving import json_text

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"
KEPT = RESULTS / "reports"
EXAMPLES = ROOT / "fmri_models" / "assets" / "examples"
PUBLISHED = RESULTS / "published_nsd_tables.json"
_PLACE = re.compile(r"(<!-- results: (\w+) -->\n).*?(<!-- end of results -->)", re.DOTALL)
# Protocol of reports on decoded layers, which have a table of their own.
_LAYERS = "guides"
# Per cent are above, shares and distances below.
_LARGEST_SHARE = 1.5
BY_HAND = "<!-- figures by hand: their reports are not kept -->"
COLUMNS = (
    "method", "pipeline", "data", "subject", "split", "folds", "protocol", "row", "metric", "seed", "commit", "value",
    "ci95_low", "ci95_high", "n", "stimuli", "chance", "better", "simulated", "test_pictures", "repetitions", "samples",
    "learned_from", "generator", "settings", "deviations", "warnings", "versions", "data_fingerprint", "report",
    "report_sha256",
)  # fmt: skip
KEY = COLUMNS[: COLUMNS.index("value")]
"""What tells a line of the files from every other one, with the report that it is of."""
Line = dict[str, str]


# ------------------------------------------------------------------------------------------------------------ reports


def reports() -> dict[str, Path]:
    """Name ▶ report.json of each report that the repository has."""
    found = {path.parent.name: path for path in sorted(EXAMPLES.glob("*/report.json"))}
    return found | {path.stem: path for path in sorted(KEPT.glob("*.json"))}


def lines() -> list[Line]:
    """Every figure of every report."""
    return [line for name, path in reports().items() for line in lines_of(name, path)]


def lines_of(name: str, path: Path) -> Iterator[Line]:
    """A line for each subject, row and metric of a report; `all` for the mean over the stimuli of all subjects."""
    report = Report.load(path)
    about = _about(report) | {"report": name, "report_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    described = {each["name"]: each for each in report.protocol.get("metrics", [])}
    subjects = list(report.per_subject) or report.model.get("subjects", [])
    # Of one subject, what it has is what all have.
    alone = subjects[0] if len(subjects) == 1 else "all"
    tables: list[tuple[str, Mapping[str, Mapping[str, Any]]]] = [(alone, report.results)]
    tables += list(report.per_subject.items()) if len(report.per_subject) > 1 else []
    for subject, rows in tables:
        for row, metrics in rows.items():
            for metric, found in metrics.items():
                if not found:
                    continue
                low, high = found.get("ci95") or (None, None)
                names = {**about, "subject": subject, "row": row, "metric": metric}
                yield {column: csv_cell(text) for column, text in names.items()} | {
                    "value": _number(found["value"]),
                    "ci95_low": _number(low),
                    "ci95_high": _number(high),
                    "n": str(found["n"]),
                    "stimuli": str(found.get("stimuli", "")),
                    "chance": _number(described.get(metric, {}).get("chance")),
                    "better": "higher" if get_metric(metric).higher_is_better else "lower",
                }


def _about(report: Report) -> Line:
    data, model, protocol = report.data, report.model, report.protocol
    versions = dict(report.versions)
    settings = dict(model.get("settings") or {})
    training = data.get("training") or {}
    return {
        "method": str(model.get("method") or ("files" if "images" in model else "")),
        # Of the saved pipeline, by which recipes of one method are told apart.
        "pipeline": Path(str(model.get("path") or "")).name,
        "data": str(data.get("name") or ""),
        "split": str(data.get("split") or ""),
        "folds": " ".join(map(str, data.get("folds") or [])),
        "protocol": str(protocol.get("name") or ""),
        "seed": str(report.seed),
        # Reports of earlier versions don't say.
        "commit": versions.pop("commit", ""),
        "simulated": {True: "yes", False: "no"}.get(data.get("simulated"), ""),  # type: ignore[arg-type]
        "test_pictures": str(data.get("test_stimuli") or data.get("test_items") or ""),
        "repetitions": "averaged" if protocol.get("trial_average", True) else "single",
        "samples": str(protocol.get("samples", 1)),
        "learned_from": "; ".join(f"{name}: {each['trials']} trials" for name, each in training.items()),
        "generator": str(model.get("image_generator") or ""),
        "settings": _pairs(settings),
        "deviations": "; ".join(protocol.get("deviations") or []),
        "warnings": str(len(report.warnings)),
        "versions": _pairs(versions),
        "data_fingerprint": str(data.get("fingerprint") or ""),
    }


def _pairs(values: Mapping[str, Any]) -> str:
    return "; ".join(f"{name}={value}" for name, value in values.items() if value is not None)


def _number(value: float | None) -> str:
    return "" if value is None else repr(float(value))


def csv_files(every: Sequence[Line]) -> dict[Path, str]:
    """Path ▶ text of a file for each data set.

    Raises:
        SystemExit: Two lines of different reports say the same, of which one would have to be left out.
    """
    seen: dict[tuple[str, ...], str] = {}
    for line in every:
        key = tuple(line[column] for column in KEY)
        if (other := seen.setdefault(key, line["report"])) != line["report"]:
            raise SystemExit(
                f"The reports {other} and {line['report']} have the same {', '.join(KEY)}: "
                f"{', '.join(filter(None, key))}. Keep one of them."
            )
    files: dict[Path, list[Line]] = {}
    for line in every:
        name = re.sub(r"[^A-Za-z0-9_-]+", "_", line["data"]) or "unnamed"
        files.setdefault(RESULTS / f"{name}.csv", []).append(line)
    return {path: _csv_text(found) for path, found in files.items()}


def _csv_text(found: Sequence[Line]) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return file.getvalue()


# ------------------------------------------------------------------------------------------------------------- tables


class Figures:
    """The lines of the files, to be asked for one.

    Args:
        every: All of them.
    """

    def __init__(self, every: Sequence[Line]) -> None:
        self.every = every
        self._found = {(it["report"], it["subject"], it["row"], it["metric"]): it for it in every}

    def line(self, report: str, metric: str, row: str = "brain", subject: str | None = None) -> Line | None:
        """That of a subject of a report, or of all its subjects."""
        subject = subject or next((it["subject"] for it in self.every if it["report"] == report), "all")
        return self._found.get((report, subject, row, metric))

    def of(self, report: str) -> Line:
        """Any line of a report."""
        return next(line for line in self.every if line["report"] == report)


def examples(figures: Figures) -> str:
    """Of the examples that come with the package."""
    metrics = {
        "pixcorr": "pixel correlation",
        "ssim": "SSIM",
        "mse": "MSE",
        "two_way_efficientnet_lite0": "two-way identification (EfficientNet-Lite0)",
        "two_way_efficientnet_lite0_same_background": "the same among equal backgrounds ({n} pictures)",
        "retrieval_query_brain_top1": "retrieval top-1 of {n}, given the brain",
        "retrieval_query_image_top1": "retrieval top-1 of {n}, given the picture",
        "factor_accuracy_kind": "object kind right (of 8)",
        "factor_accuracy_colour": "colour right (of 8)",
        "factor_accuracy_place": "place right (of 9)",
    }
    columns = (("mindeye-scenes", "brain"), ("linear-scenes", "brain"), ("mindeye-scenes", "shuffled_brain"))
    header = ["", "`mindeye-scenes`", "`linear-scenes`", "`mindeye-scenes`, brains exchanged"]
    found = [
        [
            label.format(n=(figures.line("mindeye-scenes", metric) or {}).get("n", "")),
            *(_with_interval(figures.line(report, metric, row)) for report, row in columns),
        ]
        for metric, label in metrics.items()
    ]
    return _table(header, found)


_OF_DIGITS = ("pixcorr", "ssim", "mse", "pairwise_pixcorr", "identification_top1")


def linear_digits(figures: Figures) -> str:
    """Ridge on hand-written digits."""
    header = ["", "pixel correlation", "SSIM", "MSE", "pairwise identification", "top-1 of 10"]
    reports = {"stock split (90 / 10)": "digits69_linear", "stratified 10-fold": "digits69_linear_folds"}
    return _table(header, [[label, *digits(figures, name)] for label, name in reports.items()])


def digits(figures: Figures, report: str, row: str = "brain", metrics: Sequence[str] = _OF_DIGITS) -> list[str]:
    """Cells of a line on the digits, as the pages have them."""
    places = {"identification_top1": 2}
    return [_without_zero(figures.line(report, metric, row), places.get(metric, 3)) for metric in metrics]


# Of the script measure_scene_recipes, and the example that has the same table and generator.
SCENE_RECIPES = (
    "linear-scenes", "takagi_scenes", "brain_diffuser_scenes", "unibrain_scenes", "brain_streams_scenes",
    "neuro_vis_scenes",
)  # fmt: skip


_OF_SCENES = {
    "two_way_efficientnet_lite0": "two-way EfficientNet",
    "pairwise_pixcorr": "two-way pixels",
    "factor_accuracy_kind": "kind",
    "factor_accuracy_colour": "colour",
    "factor_accuracy_place": "place",
}


def scene_recipes(figures: Figures) -> str:
    """Recipes of linear systems on the examples' scenes."""
    return _table(
        ["", *_OF_SCENES.values()], [[f"`{report}`", *_of_scenes(figures, report)] for report in SCENE_RECIPES]
    )


def cross_subject(figures: Figures) -> str:
    """Two subjects of simulated scenes, of whom the second is read by the decoder of the first."""
    report = "ferrante_cross_subject_scenes"
    found = [[f"`{subject}`", *_of_scenes(figures, report, subject)] for subject in ("subj01", "subj02")]
    return _table(["", *_OF_SCENES.values()], found)


def _of_scenes(figures: Figures, report: str, subject: str | None = None) -> list[str]:
    """Cells of a line: brain, shuffled brain, nearest training picture, ceiling."""
    rows = ("brain", "shuffled_brain", "nearest_train", "ceiling")
    return [
        " / ".join(_without_zero(figures.line(report, metric, row, subject), 2) for row in rows)
        for metric in _OF_SCENES
    ]


def ours(figures: Figures) -> str:
    """Every report, by the metrics that most have."""
    metrics = {
        "pairwise_pixcorr": "two-way pixels",
        "two_way_efficientnet_lite0": "two-way EfficientNet",
        "retrieval_query_brain_top1": "retrieval top-1, given the brain",
        "pixcorr": "PixCorr",
        "ssim": "SSIM",
        "mse": "MSE",
    }
    header = ["method", "pipeline", "data", "split", "protocol", "pictures", *metrics.values()]
    found = []
    for name in dict.fromkeys(line["report"] for line in figures.every):
        about = figures.of(name)
        if about["protocol"] == _LAYERS:
            continue
        folds = about["folds"].split()
        split = about["split"] + (f", {len(folds)} folds" if len(folds) > 1 else "")
        simulated = " (simulated)" if about["simulated"] == "yes" else ""
        named = [f"`{about['method']}`", f"`{about['pipeline']}`" if about["pipeline"] else "–"]
        cells = [*named, markdown(about["data"]) + simulated, markdown(split), f"`{about['protocol']}`"]
        found.append(
            [*cells, about["test_pictures"], *(_with_interval(figures.line(name, metric)) for metric in metrics)]
        )
    return _table(header, found)


def layers(figures: Figures) -> str:
    """Decoded layers: their mean, and each of them."""
    header = ["recipe", "layer", "units", "identification", "exchanged", "r by pattern", "r by unit", "category"]
    header += ["category, exchanged"]
    found = []
    for name, path in reports().items():
        report = Report.load(path)
        if report.guides:
            pattern = figures.line(name, "guide_pattern_correlation")
            exchanged = figures.line(name, "guide_identification", "shuffled_brain")
            mean = [
                _with_interval(figures.line(name, "guide_identification")),
                _rounded(exchanged and exchanged["value"]),
            ]
            found.append(
                [f"`{figures.of(name)['pipeline']}`", "mean", "", *mean, _with_interval(pattern), "–", "–", "–"]
            )
        for guide, about in report.guides.items():
            brain, other = (about["results"][row] for row in ("brain", "shuffled_brain"))
            cells = [brain["guide_identification"], other["guide_identification"], brain["guide_pattern_correlation"]]
            category = about.get("category_identification", {})
            figures_of_rows = [about["profile_correlation"]["brain"], *map(category.get, ("brain", "shuffled_brain"))]
            of_layer = [_rounded(each and each["value"]) for each in cells] + list(map(_rounded, figures_of_rows))
            found.append(["", f"`{guide}`", f"{about['units']:,}", *of_layer])
    return _table(header, found)


def _rounded(value: Any) -> str:
    return "–" if value is None else f"{float(value):.3f}"


def sources(figures: Figures) -> str:
    """Which reports there are, and who made them."""
    header = ["report", "seed", "commit", "package", "SHA-256"]
    found = []
    for name, path in reports().items():
        about = figures.of(name)
        version = re.search(r"fmri_models=([^;]+)", about["versions"])
        commit = f"`{about['commit'][:12]}`{' and local changes' if about['commit'].endswith('-dirty') else ''}"
        cells = [f"`{path.relative_to(ROOT).as_posix()}`", about["seed"], commit if about["commit"] else "not stated"]
        found.append([*cells, version[1] if version else "", f"`{about['report_sha256'][:16]}`"])
    return _table(header, found)


def published(figures: Figures) -> str:
    """What others have published on NSD, as far as somebody has read it at its source."""
    content = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    names = {name: name.replace("_as_printed", "") for name in content["columns"]}
    header = ["method", "subjects", "pictures", "sessions", "repetitions", *names.values(), "searched among", "read in"]
    found = []
    for row in content["rows"]:
        method = markdown(row["method"]) + (f" ({markdown(row['note'])})" if "note" in row else "")
        conditions = [row["subjects"], f"{row['test_pictures']:,}", str(row["sessions"]), row["repetitions"]]
        last = [row["retrieval"] if row["values"][-1] is not None else "–", markdown(row["source"])]
        found.append([method, *conditions, *_printed(row["values"]), *last])
    return _table(header, found)


def _printed(values: Sequence[float | None]) -> list[str]:
    """Numbers with the places that their row has: a file of numbers keeps no zeros at their ends."""

    def places(number: float) -> int:
        return len(repr(number).partition(".")[2])

    shares = [it for it in values if it is not None and it < _LARGEST_SHARE]
    others = [it for it in values if it is not None and it >= _LARGEST_SHARE]
    of_shares, of_others = max(map(places, shares), default=0), max(map(places, others), default=0)
    return ["–" if it is None else f"{it:.{max(3, of_shares) if it < _LARGEST_SHARE else of_others}f}" for it in values]


TABLES: dict[str, Callable[[Figures], str]] = {
    "examples": examples,
    "linear_digits": linear_digits,
    "scene_recipes": scene_recipes,
    "cross_subject": cross_subject,
    "ours": ours,
    "layers": layers,
    "sources": sources,
    "published": published,
}
PAGES = (
    "docs/results.md", "docs/examples.md", "docs/methods/linear.md", "docs/methods/guides.md",
    "docs/methods/ferrante_cross_subject.md",
)  # fmt: skip


def _with_interval(line: Line | None) -> str:
    if line is None:
        return "–"
    bounds = "" if not line["ci95_low"] else f" [{float(line['ci95_low']):.3f}, {float(line['ci95_high']):.3f}]"
    return f"{float(line['value']):.3f}{bounds}"


def _without_zero(line: Line | None, places: int) -> str:
    return "–" if line is None else re.sub(r"^0\.", ".", f"{float(line['value']):.{places}f}")


def _table(header: Sequence[str], found: Sequence[Sequence[str]]) -> str:
    rule = f"|{'---|' * len(header)}"
    first, *others = (f"| {' | '.join(cells)} |".replace("|  |", "| |") for cells in (header, *found))
    return "\n".join([first, rule, *others])


# --------------------------------------------------------------------------------------- single lines of other tables


def single_lines(figures: Figures) -> Iterator[tuple[str, str]]:
    """Page and line: where a table by hand has a line of a report that is kept, it has to be this one."""
    stock, folds = "digits69_linear", "digits69_linear_folds"
    some = ("pixcorr", "ssim", "pairwise_pixcorr")
    for report in (stock, folds):
        yield "README.md", _line("ridge regression to pixels", digits(figures, report))
        yield "docs/methods/mindvis.md", _line("ridge (`digits69_linear`)", digits(figures, report))
        yield "docs/methods/mindvis.md", _line("mean training picture", digits(figures, report, "mean_image"))
    yield "docs/methods/mindeye.md", _line("ridge (`digits69_linear`)", digits(figures, folds, metrics=some))


def _line(name: str, cells: Sequence[str]) -> str:
    return f"| {' | '.join([name, *cells])} |"


# ------------------------------------------------------------------------------------------------------------- command


def written() -> dict[Path, str]:
    """Path ▶ text of every file, as it has to be."""
    every = lines()
    files = csv_files(every)
    # What a page shows is read from the files, so that nothing else can come into it.
    figures = _figures(files.values())
    for name in PAGES:
        page = (ROOT / name).read_text(encoding="utf-8")
        files[ROOT / name] = _PLACE.sub(lambda it: f"{it[1]}\n{TABLES[it[2]](figures)}\n\n{it[3]}", page)
    return files


def _figures(texts: Iterable[str]) -> Figures:
    return Figures([line for text in texts for line in csv.DictReader(io.StringIO(text))])


def stale() -> list[str]:
    """What is not as it would be written, a sentence each."""
    files = written()
    found = [
        f"{path.relative_to(ROOT).as_posix()} is not what the reports say."
        for path, text in files.items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]
    found += [
        f"{path.relative_to(ROOT).as_posix()} is of no report."
        for path in sorted(RESULTS.glob("*.csv"))
        if path not in files
    ]
    figures = _figures(text for path, text in files.items() if path.suffix == ".csv")
    found += [
        f"{page} does not have the line {line!r}."
        for page, line in single_lines(figures)
        if line not in (ROOT / page).read_text(encoding="utf-8").splitlines()
    ]
    return found


def add(path: Path, name: str) -> None:
    """Keeps a report, as it was written.

    Raises:
        FmriModelsError: It is no report, or the name is none.
    """
    check_name(name, "name of a report")
    Report.load(path)
    path = path / "report.json" if path.is_dir() else path
    if name in {each.parent.name for each in EXAMPLES.glob("*/report.json")}:
        raise SystemExit(f"{one_line(name)} is an example of the package; choose another name.")
    KEPT.mkdir(parents=True, exist_ok=True)
    content = json.loads(path.read_text(encoding="utf-8"))
    (KEPT / f"{name}.json").write_text(json_text(content) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="say what is stale, and end with 1 if anything is")
    parser.add_argument("--add", nargs=2, metavar=("REPORT", "NAME"), help="keep a report in results/reports/NAME.json")
    given = parser.parse_args(arguments)
    if given.add:
        add(Path(given.add[0]), given.add[1])
    if given.check:
        found = stale()
        for sentence in found:
            print(f"{sentence} Run: python scripts/write_results.py", file=sys.stderr)
        return int(bool(found))
    files = written()
    for path, text in files.items():
        path.write_text(text, encoding="utf-8")
    for path in set(RESULTS.glob("*.csv")) - set(files):
        path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
