"""What people look at: report.md, report.html, the grid of pictures, and the pictures themselves."""

import base64
import io
import os
import re
import shutil
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jinja2 import Environment
from markupsafe import Markup
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..drawing_settings import DrawingSettings
from ..errors import FmriModelsError
from ..names import file_name, is_name, markdown, markdown_code, one_line
from ..output_folders import check_merged_folder
from ..saving import merged_folder
from .bootstrap import FEWEST_STIMULI
from .items import ITEMS_FILE, picture_counts, save_items
from .protocols import ROWS, MetricInfo, row_info
from .report import REPORT_FILE, Report
from .scoring import RowData, Scores

TILE = 112
_GAP, _MARGIN, _LABEL_SIZE, _PAGE, _INK = 4, 12, 15, (255, 255, 255), (40, 44, 52)
# Above this a grid is stored with a palette of 256 colors, which is hard to tell apart and a third of the size.
_LARGE_GRID = 2_000_000


def write_report(
    out: str | PathLike,
    report: Report,
    scores: Scores,
    rows: Mapping[str, RowData],
    truth: Tensor,
    grid_rows: Sequence[str] | None = None,
    columns: int = 10,
) -> list[Path]:
    """Writes report.json, report.md, report.html, items.parquet, grid.png and images/ into a folder.

    All of it appears together: a kill leaves the earlier report whole, or is completed by the folder's next reader.
    Files of the same names are replaced, pictures of an earlier report that the new one does not have are removed, and
    anything else stays (the demo keeps its pipeline and data there).

    Args:
        out: The folder; made if it is missing.
        report: Of the scores; it is told the hash of its items and its folder.
        scores: Of all rows.
        rows: The pictures.
        truth: (N, C, H, W) true picture of each item.
        grid_rows: Rows of the grid below the shown pictures; all that have pictures if None.
        columns: Number of stimuli in the grid.

    Returns:
        What was written.

    Raises:
        FmriModelsError: The folder can't be written, or a row has a name that no folder can have.
    """
    out = Path(out)
    pictured = {name: row.images for name, row in rows.items() if row.images is not None}
    chosen = [name for name in (grid_rows or pictured) if name in pictured]
    png = encode_png(draw_grid(truth, {name: pictured[name] for name in chosen}, scores, columns, report.seed))
    with merged_folder(out, earlier_pictures) as partial:
        save_images(partial / "images", truth, pictured, scores)
        report.items_sha256, report.folder = save_items(scores, partial / ITEMS_FILE), out.absolute()
        (partial / "grid.png").write_bytes(png)
        (partial / "report.md").write_text(to_markdown(report), encoding="utf-8")
        (partial / "report.html").write_text(to_html(report, png), encoding="utf-8")
        report.save(partial / REPORT_FILE)
    return [out / name for name in (REPORT_FILE, "report.md", "report.html", "grid.png", ITEMS_FILE, "images")]


def earlier_pictures(folder: Path, written: Collection[str] = ()) -> list[str]:
    """Pictures of the report in a folder, relative to it, as far as they are there and are not written again.

    They are known by its items, so that a picture that somebody else has put beside them stays. Without readable items
    all of them stay.
    """
    try:
        counts = picture_counts(folder / ITEMS_FILE)
    except FmriModelsError:
        return []
    stems = _stems([each for _, subject, stimulus in counts for each in (subject, stimulus)])
    names = set()
    for (row, subject, stimulus), count in counts.items():
        stem = file_name(stems[stimulus], "")
        names.add(f"images/truth/{stem}.png")
        for name in [stem, *(f"{stem}-{number}" for number in range(2, count + 1))] if is_name(row) else []:
            names |= {f"images/{row}/{name}.png", f"images/{row}/{stems[subject]}/{name}.png"}
    return sorted(name for name in names - set(written) if (folder / name).is_file())


def check_report_folder(out: str | PathLike, overwrite: bool = False, pictures: Sequence[str | PathLike] = ()) -> None:
    """Refuses a folder for a report before the work.

    Args:
        out: The folder; the data, the pipeline and anything else may lie in it.
        overwrite: Whether it may have content.
        pictures: Folders of pictures that are read.

    Raises:
        FmriModelsError: It can't be written, has content without `overwrite`, holds something else in the place of a
            file or folder of the report, or the report's files might replace pictures that are read.
    """
    check_merged_folder(out, overwrite)
    folder = Path(os.path.realpath(out))
    for name in (REPORT_FILE, "report.md", "report.html", "grid.png", ITEMS_FILE):
        if (folder / name).is_dir():
            raise FmriModelsError(
                f"{one_line(folder / name)} is a folder, and a file has to be written there; move it."
            )
    images = folder / "images"
    if os.path.lexists(images) and (images.is_symlink() or not images.is_dir()):
        raise FmriModelsError(
            f"{one_line(images)} is no folder of its own, and pictures have to be written there; move it."
        )
    for given in pictures:
        source = Path(os.path.realpath(given))
        if source == folder or source.is_relative_to(images):
            raise FmriModelsError(
                f"The report would replace pictures of {one_line(given)}, which are read; choose another folder than "
                f"{one_line(out)}."
            )


# ----------------------------------------------------------------------------------------------------------- pictures


def draw_grid(
    truth: Tensor, images: Mapping[str, Tensor], scores: Scores, columns: int = 10, seed: int = 0
) -> Image.Image:
    """A picture with one column for each of some stimuli: shown on top, below it every row.

    The stimuli are drawn from the seed before any score is known, never picked; they come from the first subject.

    Args:
        truth: (N, C, H, W) float in [0, 1].
        images: Row name -> pictures of the same shape.
        scores: For the order of items.
        columns: Number of stimuli.
        seed: Of the choice.
    """
    chosen = grid_items(scores, columns, seed)
    labelled = [
        ("shown", truth),
        *((one_line(row_info(name).label, 60), pictures) for name, pictures in images.items()),
    ]
    font = ImageFont.load_default(_LABEL_SIZE)
    label_width = int(max(font.getlength(label) for label, _ in labelled)) + 2 * _MARGIN
    width = label_width + len(chosen) * (TILE + _GAP) - _GAP + _MARGIN
    height = 2 * _MARGIN + len(labelled) * (TILE + _GAP) - _GAP
    canvas = Image.new("RGB", (width, height), _PAGE)
    pen = ImageDraw.Draw(canvas)
    for number, (label, pictures) in enumerate(labelled):
        top = _MARGIN + number * (TILE + _GAP)
        pen.text((label_width - _MARGIN, top + TILE // 2), label, fill=_INK, font=font, anchor="rm")
        for column, item in enumerate(chosen):
            canvas.paste(_tile(pictures[item]), (label_width + column * (TILE + _GAP), top))
    return canvas


def grid_items(scores: Scores, columns: int, seed: int) -> list[int]:
    """Item numbers of the grid's stimuli: a random choice of one subject's, without regard to any score."""
    _, first = np.unique(scores.stimulus_ids[scores.subjects == scores.subjects[0]], return_index=True)
    items = np.flatnonzero(scores.subjects == scores.subjects[0])[np.sort(first)]
    order = np.random.default_rng(seed).permutation(len(items))[:columns]
    return [int(items[position]) for position in np.sort(order)]


def to_pil(picture: Tensor) -> Image.Image:
    """A picture (3 or 1, H, W) float in [0, 1] as PIL image, rounded to 8 bits."""
    # NumPy, because torch's threads cost more than they bring for thousands of small pictures.
    values = torch.as_tensor(picture).detach().cpu().float().numpy()
    levels = np.round(np.clip(values, 0, 1) * 255).astype(np.uint8)
    return Image.fromarray(levels[0]) if len(levels) == 1 else Image.fromarray(levels.transpose(1, 2, 0))


def encode_png(picture: Image.Image) -> bytes:
    """A small PNG file of a picture."""
    data = _png(picture)
    if len(data) <= _LARGE_GRID:
        return data
    return _png(picture.quantize(256, dither=Image.Dither.FLOYDSTEINBERG))


def save_images(folder: Path, truth: Tensor, images: Mapping[str, Tensor], scores: Scores) -> None:
    """Writes `truth/<stimulus_id>.png` and `<row>/<stimulus_id>.png` into a new folder.

    With several subjects the pictures of a row lie in a folder for each subject; with several trials or seeds of a
    stimulus the later ones have a number behind the name.

    Raises:
        FmriModelsError: A row has a name that no folder can have.
    """
    stems = _stems(scores.stimulus_ids.tolist())
    names = item_names(scores)
    _, first = np.unique(scores.stimulus_ids, return_index=True)
    for item in first:
        _save(truth[item], folder / "truth" / file_name(stems[scores.stimulus_ids[item]], ".png"))
    for row, pictures in images.items():
        place = folder / file_name(row, "", what="row")
        for name, picture in zip(names, pictures, strict=True):
            _save(picture, place / name)


def item_names(scores: Scores) -> list[str]:
    """Relative file name of each item's picture within a row's folder."""
    subjects, stimuli = scores.subjects.tolist(), scores.stimulus_ids.tolist()
    stems, folders = _stems(stimuli), _stems(subjects)
    taken = {folder: set(stems.values()) for folder in folders.values()}
    names: list[str] = []
    count: Counter[tuple[str, str]] = Counter()
    for subject, stimulus in zip(subjects, stimuli, strict=True):
        folder, stem = folders[subject], stems[stimulus]
        count[folder, stem] += 1
        number = "" if count[folder, stem] == 1 else _free_number(stem, count[folder, stem], taken[folder])
        taken[folder].add(f"{stem}{number}")
        name = file_name(stem, f"{number}.png")
        names.append(f"{file_name(folder, '')}/{name}" if len(folders) > 1 else name)
    return names


def _stems(ids: Sequence[str]) -> dict[str, str]:
    """File names of ids, without an ending: the id itself where it is one, as those of tables are.

    Pictures of anybody's have other names, too; theirs are changed so that they are names and differ.
    """
    stems = {each: each for each in ids if is_name(each)}
    taken = set(stems)
    for each in sorted(set(ids) - taken):
        changed = re.sub(r"[^A-Za-z0-9_.-]", "_", each).lstrip(".-")[:100] or "_"
        stems[each] = changed if changed not in taken else f"{changed}{_free_number(changed, 2, taken)}"
        taken.add(stems[each])
    return stems


def _free_number(stem: str, number: int, taken: Collection[str]) -> str:
    """A number to be put behind a name, so that it differs from all others."""
    while f"{stem}-{number}" in taken:
        number += 1
    return f"-{number}"


def _tile(picture: Tensor) -> Image.Image:
    """A picture in a square tile; few pixels are shown as squares, many are smoothed."""
    image = to_pil(picture).convert("RGB")
    scale = TILE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    smooth = min(image.size) >= 48
    tile = Image.new("RGB", (TILE, TILE), (236, 238, 241))
    resized = image.resize(size, Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST)
    tile.paste(resized, ((TILE - size[0]) // 2, (TILE - size[1]) // 2))
    return tile


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _save(picture: Tensor, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    to_pil(picture).save(path)


# --------------------------------------------------------------------------------------------------------------- text


_FEWEST_COLUMNS, _FEWEST_OF_NAMES = 30, 20
_GAP_OF_COLUMNS = "  "


def text_table(header: Sequence[str], lines: Sequence[Sequence[str]], width: int | None = None) -> str:
    """An aligned table for a terminal; the first column is left-aligned, the others right.

    What does not fit into the width goes on in further blocks, each with the first column, whose texts are wrapped
    where they would leave no room.

    Args:
        header: Names of the columns.
        lines: Cells.
        width: Characters a line; those of the terminal if None, 80 where there is none.
    """
    width = max(_FEWEST_COLUMNS, shutil.get_terminal_size().columns if width is None else width)
    rows = [[one_line(cell) for cell in line] for line in (header, *lines)]
    widths = [max(map(columns_of, column)) for column in zip(*rows, strict=True)]
    room = width - sum(each + len(_GAP_OF_COLUMNS) for each in widths[1:])
    # In one block if that leaves enough for names.
    first = min(widths[0], room if room >= _FEWEST_OF_NAMES else max(_FEWEST_OF_NAMES, width // 3))
    first = max(1, min(first, width - max(widths[1:], default=0) - len(_GAP_OF_COLUMNS)))
    blocks = [_block(rows, first, widths, chosen) for chosen in _fitting(widths, width - first)]
    return "\n\n".join(blocks)


def _fitting(widths: Sequence[int], room: int) -> list[list[int]]:
    """Numbers of the columns behind the first one, in groups that fit beside it."""
    groups: list[list[int]] = [[]]
    used = 0
    for number, width in enumerate(widths[1:], start=1):
        needed = width + len(_GAP_OF_COLUMNS)
        if groups[-1] and used + needed > room:
            groups.append([])
            used = 0
        groups[-1].append(number)
        used += needed
    return groups


def _block(rows: Sequence[Sequence[str]], first: int, widths: Sequence[int], chosen: Sequence[int]) -> str:
    """One block of a table: the first column, wrapped, and some others."""
    lines = []
    for number, row in enumerate(rows):
        *above, last = _wrapped(row[0], first)
        lines += above
        cells = [" " * (widths[i] - columns_of(row[i])) + row[i] for i in chosen]
        lines.append(_GAP_OF_COLUMNS.join([last + " " * (first - columns_of(last)), *cells]).rstrip())
        if number == 0:
            lines.append(_GAP_OF_COLUMNS.join("-" * each for each in (first, *(widths[i] for i in chosen))))
    return "\n".join(lines)


def _wrapped(text: str, width: int) -> list[str]:
    """A text in lines of at most so many columns of a terminal, broken between words where that is possible."""
    lines, line = [], ""
    # The arrow stays with the last word of a metric.
    for word in re.split(" (?![↑↓])", text):
        joined = f"{line} {word}" if line else word
        while columns_of(joined) > width:
            if line:
                lines.append(line)
                line, joined = "", word
                continue
            end = next(end for end in range(len(joined), 0, -1) if end == 1 or columns_of(joined[:end]) <= width)
            lines.append(joined[:end])
            joined = joined[end:]
        line = joined
    return [*lines, line]


def columns_of(text: str) -> int:
    """How many columns of a terminal a text takes: two for wide characters, none for those that join others."""
    return sum(
        0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text
    )


def results_table(report: Report, all_rows: bool = False, width: int | None = None) -> str:
    """The values of a report for a terminal, metrics down and rows across.

    Args:
        report: The report.
        all_rows: Every row, instead of the brain, ridge, the best control of each metric and the ceiling.
        width: As of [`text_table`].
    """
    if all_rows:
        header, lines = _results(report, with_interval=False)
        return text_table(header, lines, width)
    controls = [row for row in report.results if report.row(row)["kind"] == "control"]
    shown: list[str] = [row for row in ("brain", "ridge") if row in report.results]
    every: dict[str, list[str]] = {row: [row] for row in shown} | {"best control": controls, "ceiling": ["ceiling"]}
    columns = [(name, rows) for name, rows in every.items() if any(row in report.results for row in rows)]
    lines = []
    for metric in report.metrics():
        cells = [_value(_best(report, rows, metric), False) for _, rows in columns]
        lines.append([f"{metric.label} {'↑' if metric.higher_is_better else '↓'}", *cells])
    table = text_table(["metric", *(name for name, _ in columns)], lines, width)
    left_out = [row for row in report.results if row not in (*shown, *controls, "ceiling")]
    notes = []
    if len(controls) > 1:
        names = ", ".join(report.row(row)["label"] for row in controls)
        notes.append(f"best control: in each metric the best of {names}")
    if left_out or len(controls) > 1:
        notes.append(f"all {len(report.results)} rows with chance: --all-rows, report.md or report.html")
    width = max(_FEWEST_COLUMNS, shutil.get_terminal_size().columns if width is None else width)
    return "\n".join([table, *(line for note in notes for line in _wrapped(one_line(note, most=2000), width))])


def _best(report: Report, rows: Sequence[str], metric: MetricInfo) -> Mapping[str, Any] | None:
    """The best of some rows' values in a metric; None where none has one."""
    found = [report.results.get(row, {}).get(metric.name) for row in rows]
    there = [each for each in found if each and each.get("value") is not None]
    return (max if metric.higher_is_better else min)(there, key=lambda each: each["value"]) if there else None


def to_markdown(report: Report) -> str:
    """report.md."""
    header, lines = _results(report, with_interval=True)
    protocol = report.protocol
    parts = [f"# Report: protocol {markdown_code(protocol.get('name'))}", "", markdown(protocol.get("description", ""))]
    if report.warnings:
        parts += ["", f"**{WARNINGS_TITLE}:**", "", *(f"- {markdown(warning)}" for warning in report.warnings)]
    parts += ["", *(f"- {markdown(name)}: {markdown(value)}" for name, value in _facts(report)), ""]
    parts += ["![Shown and reconstructed pictures](grid.png)", ""]
    parts += ["## Scores", "", scores_caption(report), "", _markdown_table(header, lines), ""]
    for title, caption, table in _further_tables(report):
        parts += [f"## {title}", "", caption, "", _markdown_table(*table), ""]
    if report.further_notes:
        parts += ["## Notes", "", *(f"- {markdown(note)}" for note in report.further_notes), ""]
    return "\n".join(parts)


def to_html(report: Report, grid_png: bytes) -> str:
    """report.html: one file without any link to elsewhere."""
    header, lines = _results(report, with_interval=True)
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=_html_text)
    template = environment.from_string(_TEMPLATE)
    return template.render(
        report=report,
        facts=_facts(report),
        caption=scores_caption(report),
        header=header,
        lines=lines,
        tables=_further_tables(report),
        rows=report.rows,
        warnings_title=WARNINGS_TITLE,
        grid=Markup(base64.b64encode(grid_png).decode("ascii")),
    )


def _html_text(value: object) -> object:
    """Text without control characters; what is markup stays."""
    return value if isinstance(value, Markup) else one_line(value, most=10_000)


def scores_caption(report: Report) -> str:
    """What the values, intervals and signs of a report's tables are."""
    means = (
        "Mean over stimuli with its 95 % interval in brackets. The interval is exact for scores of 0 and 1 with one "
        "item a stimulus, and else the wider one of Student's t and a BCa bootstrap over the stimuli's mean scores; "
        f"fewer than {FEWEST_STIMULI} stimuli have none."
    )
    if not any(result and "stimuli" in result for row in report.results.values() for result in row.values()):
        # As versions before this one had it.
        means = "Mean over items with the 95 % interval over stimuli (percentile bootstrap) in brackets."
    return (
        f"{means} The arrow says which direction is better; chance is what guessing scores, where that is known "
        "without the pictures. A dash means that there is no such number."
    )


WARNINGS_TITLE = "Not known to be figures of new pictures"


def warnings_text(report: Report) -> str:
    """The report's warnings for a terminal, a line each; empty without any."""
    return "\n".join(f"{WARNINGS_TITLE}: {one_line(warning, most=2000)}" for warning in report.warnings)


def notes_text(report: Report, width: int | None = None) -> str:
    """The notes that are no warnings for a terminal, with the names of rows and metrics that its tables have.

    Args:
        report: The report.
        width: As of [`text_table`].
    """
    width = max(_FEWEST_COLUMNS, shutil.get_terminal_size().columns if width is None else width)
    lines = []
    for note in report.further_notes:
        first, *others = _wrapped(one_line(_in_plain_names(report, note), most=2000), width - 2)
        lines += [f"- {first}", *(f"  {line}" for line in others)]
    return "\n".join(lines)


def _in_plain_names(report: Report, note: str) -> str:
    """A sentence of a report with the labels of rows and metrics in the place of their names."""
    names = {name: report.row(name)["label"] for name in (*ROWS, *report.results) if "_" in name}
    names |= {metric.name: metric.label for metric in report.metrics()}
    pattern = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    return re.sub(rf"(?<![\w-])(?:{pattern})(?![\w-])", lambda found: names[found[0]], note)


def chances(report: Report) -> dict[str, float]:
    """What guessing scores in the metrics where that is known."""
    metrics = report.protocol.get("metrics", [])
    return {info["name"]: info["chance"] for info in metrics if info.get("chance") is not None}


def chance_cell(report: Report, metric: str) -> str:
    """Chance of a metric in a table."""
    found = chances(report).get(metric)
    return "–" if found is None else f"{found:.3f}"


def _results(report: Report, with_interval: bool) -> tuple[list[str], list[list[str]]]:
    header = ["metric", "chance", *(report.row(row)["label"] for row in report.results)]
    lines = []
    for metric in report.metrics():
        cells = [_value(row.get(metric.name), with_interval) for row in report.results.values()]
        arrow = "↑" if metric.higher_is_better else "↓"
        lines.append([f"{metric.label} {arrow}", chance_cell(report, metric.name), *cells])
    return header, lines


def _value(found: Mapping[str, Any] | None, with_interval: bool) -> str:
    if not found or found.get("value") is None:
        return "–"
    if not with_interval or not found.get("ci95"):
        return f"{found['value']:.3f}"
    return "{:.3f} [{:.3f}, {:.3f}]".format(found["value"], *found["ci95"])


_MOST_PAIRS_SHOWN = 50


def _near_copies_tables(report: Report) -> list[tuple[str, str, tuple[list[str], list[list[str]]]]]:
    pairs = report.near_copies.get("pairs", [])
    if not pairs:
        return []
    lines = [
        [
            str(pair["stimulus"]),
            str(pair["copy_of"]),
            str(pair["fold"]),
            f"{pair['correlation']:.4f}",
            ", ".join(word for word in ("mirrored", "cropped") if pair.get(word)) or "–",
        ]
        for pair in pairs[:_MOST_PAIRS_SHOWN]
    ]
    caption = (
        "Test pictures that show nearly the same as one that was learned from or chosen by (r is the correlation of "
        f"the pixels); {len(pairs)} in all."
    )
    tables = [("Near copies", caption, (["tested", "nearly", "fold", "r", "changed"], lines))]
    without = report.near_copies.get("results_without")
    if without is not None:
        brain = report.results.get("brain", {})
        lines = [
            [metric.label, _value(brain.get(metric.name), True), _value(without.get(metric.name), True)]
            for metric in report.metrics()
        ]
        header = ["metric", "all items", "without near copies"]
        tables.append(("The brain row without near copies", "Only these are of unseen pictures.", (header, lines)))
    return tables


def _further_tables(report: Report) -> list[tuple[str, str, tuple[list[str], list[list[str]]]]]:
    tables = []
    metrics = report.metrics()
    if report.comparisons:
        header = ["metric", *(report.row(row)["label"] for row in report.comparisons)]
        lines = [
            [metric.label, *(_difference(row.get(metric.name)) for row in report.comparisons.values())]
            for metric in metrics
        ]
        caption = (
            "Paired difference of the brain row and each other row on the same items; positive means brain is better."
        )
        tables.append(("The brain row against the others", caption, (header, lines)))
    if report.permutation:
        lines = [
            [
                metric.label,
                _value(report.results.get("brain", {}).get(metric.name), False),
                f"{found['mean']:.3f} ± {found['sd']:.3f}",
                f"{found['p']:.3f}",
                chance_cell(report, metric.name),
            ]
            for metric in metrics
            if (found := report.permutation.get(metric.name))
        ]
        header = ["metric", "true pairing", "other pairings", "p", "chance by counting"]
        tables.append(("Permutation test", _permutation_caption(report), (header, lines)))
    if len(report.per_subject) > 1:
        header = ["metric", "chance", *report.per_subject]
        lines = [
            [
                metric.label,
                chance_cell(report, metric.name),
                *(_value(rows.get("brain", {}).get(metric.name), False) for rows in report.per_subject.values()),
            ]
            for metric in metrics
        ]
        tables.append(("Subjects", "The brain row of each subject.", (header, lines)))
    tables += _near_copies_tables(report)
    if report.looks:
        header = ["time", "test split", "commit", "config", "score"]
        lines = [
            [
                str(look.get("time", "")),
                str(look.get("split", "")),
                str(look.get("commit") or "–")[:12],
                _looked_with(look.get("config")),
                _short(look.get("score") or "–"),
            ]
            for look in report.looks
        ]
        number = "One evaluation" if len(report.looks) == 1 else f"{len(report.looks)} evaluations"
        caption = f"{number} of these test trials, or of some of them, before this one."
        tables.append(("Earlier looks at the test split", caption, (header, lines)))
    return tables


def _permutation_caption(report: Report) -> str:
    tests = report.permutation.values()
    count = max(found["n"] for found in tests)
    smallest = max(found.get("smallest_p") or 1 / (1 + found["n"]) for found in tests)
    if all(found.get("exhaustive") for found in tests):
        pairings = (
            "No stimulus has another one that it could be exchanged with"
            if count == 1
            else f"The finished reconstructions of the brain row in all {count} pairings with the stimuli, the true "
            "one among them"
        )
    else:
        pairings = f"The finished reconstructions of the brain row paired with the stimuli at random, {count} times"
    return (
        f"{pairings}. All items of a stimulus go to the same other one. p is the share of pairings that are as good as "
        f"the true one; with so many it can't be below {smallest:.3f}."
    )


def _difference(found: Mapping[str, Any] | None) -> str:
    if not found:
        return "–"
    bounds = "" if not found.get("ci95") else " [{:+.3f}, {:+.3f}]".format(*found["ci95"])
    return f"{found['difference']:+.3f}{bounds}"


def _facts(report: Report) -> list[tuple[str, str]]:
    facts = []
    data, model = report.data, report.model
    if data:
        kind = {True: "simulated", False: "measured"}.get(data.get("simulated"), "")  # type: ignore[arg-type]
        facts.append(("data", " ".join(filter(None, [str(data.get("name", "")), f"({kind})" if kind else ""]))))
    if data.get("split"):
        items = f"{_number(data['test_items'], 'test item')} from {_number(data['test_trials'], 'trial')}"
        folds = f", {len(data['folds'])} folds" if len(data["folds"]) > 1 else ""
        facts.append(("split", f"{data['split']}{folds}: {items}"))
    if data.get("mean_noise_ceiling") is not None:
        source = ", ".join(data.get("noise_ceiling_source", []))
        repetitions = ", ".join(f"{n} averaged repetitions" for n in data.get("noise_ceiling_repetitions", []))
        origin = "; ".join(filter(None, (repetitions, source)))
        facts.append(
            (
                "mean noise ceiling of all voxels",
                f"{data['mean_noise_ceiling']:.3f}" + (f" ({origin})" if origin else ""),
            )
        )
    if data.get("test_factor_combinations_seen_in_training") is not None:
        seen = data["test_factor_combinations_seen_in_training"]
        facts.append(("test scenes whose combination of factors was seen in training", f"{seen:.0%}"))
    if model:
        facts.append(("model", _short({name: value for name, value in model.items() if name != "settings"})))
    if model.get("settings"):
        facts.append(("drawn with", _drawn_with(model["settings"])))
    for name, key in (("pictures resized to", "resolution"), ("distractors of two-way identification", "distractors")):
        if report.protocol.get(key) is not None:
            facts.append((name, str(report.protocol[key])))
    if report.protocol.get("pool_size"):
        facts.append(("stimuli to choose from", f"{report.protocol['pool_size']:g}"))
    if "trial_average" in report.protocol:
        facts.append(("repetitions of a stimulus", "averaged" if report.protocol["trial_average"] else "single trials"))
    if report.timing.get("total_s") is not None:
        facts.append(("time", f"{report.timing['total_s']:.0f} s"))
    facts.append(("versions", ", ".join(f"{name} {number}" for name, number in report.versions.items())))
    return facts


def _drawn_with(settings: Mapping[str, Any]) -> str:
    if settings.keys() & {each.name for each in fields(DrawingSettings)}:
        return _short(settings)
    return f"no settings, because this generator draws nothing at random ({_short(settings)})"


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _short(values: Any) -> str:
    """Values as people write them: names and values, lists with commas; what lies deeper in parentheses."""
    if isinstance(values, Mapping):
        pairs = ((str(name).replace("_", " "), value) for name, value in values.items())
        return ", ".join(f"{name} {_within(value)}" for name, value in pairs if value not in (None, {}, []))
    if isinstance(values, list | tuple):
        return ", ".join(_within(value) for value in values)
    return _within(values)


def _within(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, Mapping):
        return f"({_short(value)})"
    if isinstance(value, list | tuple):
        texts = [_within(each) for each in value]
        return texts[0] if len(texts) == 1 else f"({', '.join(texts)})"
    return str(value)


def _looked_with(config: Any) -> str:
    """What an earlier look was taken with, without the whole of its recipe."""
    if not isinstance(config, Mapping) or not isinstance(config.get("recipe"), Mapping):
        return _short(config)
    return _short({**config, "recipe": config["recipe"].get("method")})


def _markdown_table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    def joined(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell if _FIGURES.fullmatch(cell) else markdown(cell) for cell in cells) + " |"

    rule = "| " + " | ".join(["---", *["---:"] * (len(header) - 1)]) + " |"
    return "\n".join([joined(header), rule, *(joined(line) for line in lines)])


# Values with their intervals, in which nothing is markup.
_FIGURES = re.compile(r"[-+]?[0-9.]+( (± [0-9.]+|\[[-+]?[0-9.]+, [-+]?[0-9.]+\]))?|–")


_TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>fmri_models report: {{ report.protocol.name }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #282c34; max-width: 1400px; margin: 2rem auto; padding: 0 1.5rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
img { max-width: 100%; border: 1px solid #e3e6ea; border-radius: 6px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .8rem; text-align: right; border-bottom: 1px solid #e3e6ea; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
tbody tr:hover { background: #f5f7fa; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.2rem; }
dt { color: #667085; } dd { margin: 0; }
.caption { color: #667085; }
</style>
</head>
<body>
<h1>Report: protocol {{ report.protocol.name }}</h1>
<p>{{ report.protocol.description }}</p>
{% if report.warnings %}
<p><strong>{{ warnings_title }}:</strong></p>
<ul>
{% for warning in report.warnings %}
<li>{{ warning }}</li>
{% endfor %}
</ul>
{% endif %}
<dl>
{% for name, value in facts %}
<dt>{{ name }}</dt><dd>{{ value }}</dd>
{% endfor %}
</dl>
<p><img alt="Shown and reconstructed pictures" src="data:image/png;base64,{{ grid }}"></p>
{% macro table(header, lines) %}
<div class="scroll"><table>
<thead><tr>{% for cell in header %}<th>{{ cell }}</th>{% endfor %}</tr></thead>
<tbody>
{% for line in lines %}
<tr>{% for cell in line %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table></div>
{% endmacro %}
<h2>Scores</h2>
<p class="caption">{{ caption }}</p>
{{ table(header, lines) }}
{% for title, text, content in tables %}
<h2>{{ title }}</h2>
<p class="caption">{{ text }}</p>
{{ table(content[0], content[1]) }}
{% endfor %}
<h2>Rows</h2>
<dl>
{% for name, row in rows.items() %}
<dt>{{ row.label }} ({{ row.kind }})</dt>
<dd>{{ row.description }}{% if row.uses_test_images %} Made from the true test pictures.{% endif %}</dd>
{% endfor %}
</dl>
{% if report.further_notes %}
<h2>Notes</h2>
<ul>
{% for note in report.further_notes %}
<li>{{ note }}</li>
{% endfor %}
</ul>
{% endif %}
</body>
</html>
"""
