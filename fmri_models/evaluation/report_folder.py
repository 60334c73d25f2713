"""The folder of a report: what is written into it, all at once, and which folders may take it."""

import os
from collections.abc import Collection, Mapping, Sequence
from os import PathLike
from pathlib import Path

from torch import Tensor

from ..errors import FmriModelsError
from ..names import one_line
from ..output_folders import check_merged_folder
from ..saving import merged_folder
from ..swapping import RATER_ANSWERS_FILE
from .items_file import ITEMS_FILE, save_items
from .page_plots import distribution_figures
from .picture_files import earlier_pictures, save_pictures
from .picture_grid import draw_grid, encode_png
from .picture_groups import PictureGroup, picture_groups
from .report import REPORT_FILE, Report
from .report_pages import to_html, to_markdown
from .row_data import RowData
from .scores import Scores

ANSWERS_HEADER = ("rater", "counts", "place", "kind", "subject", "stimulus", "other", "row", "own_chosen", "side", "ms")
_FILES = (REPORT_FILE, "report.md", "report.html", "grid.png", ITEMS_FILE)


def write_report(
    out: str | PathLike,
    report: Report,
    scores: Scores,
    rows: Mapping[str, RowData],
    truth: Tensor | None,
    grid_rows: Sequence[str] | None = None,
    columns: int = 10,
    further_groups: Sequence[PictureGroup] = (),
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
        truth: (N, C, H, W) true picture of each item; None where there are no pictures, and then none is written.
        grid_rows: Rows of the grid below the shown pictures; all that have pictures if None.
        columns: Number of stimuli in the grid.
        further_groups: Pictures that report.html shows after those that it chooses by scores.

    Returns:
        What was written.

    Raises:
        FmriModelsError: The folder can't be written, or a row has a name that no folder can have.
    """
    out = Path(out)
    pictured = {name: row.images for name, row in rows.items() if row.images is not None}
    chosen = [name for name in (grid_rows or pictured) if name in pictured]
    png, groups = None, []
    if truth is not None:
        groups = [*picture_groups(report, scores, truth, pictured, chosen), *further_groups]
        png = encode_png(draw_grid(truth, {name: pictured[name] for name in chosen}, scores, columns, report.seed))
    with merged_folder(out, _of_earlier_report) as partial:
        if truth is not None:
            save_pictures(partial / "images", truth, pictured, scores)
        report.items_sha256, report.folder = save_items(scores, partial / ITEMS_FILE), out.absolute()
        if png is not None:
            (partial / "grid.png").write_bytes(png)
        (partial / "report.md").write_text(to_markdown(report, png is not None), encoding="utf-8")
        page = to_html(report, groups, distribution_figures(report, scores))
        (partial / "report.html").write_text(page, encoding="utf-8")
        report.save(partial / REPORT_FILE)
    return [out / name for name in (*_FILES, "images") if png is not None or name not in ("grid.png", "images")]


def _of_earlier_report(folder: Path, written: Collection[str]) -> list[str]:
    """Files of the report in a folder that a new one does not have."""
    answers = folder / RATER_ANSWERS_FILE
    found = earlier_pictures(folder, written)
    if answers.is_file() and answers.open("rb").readline().strip() == ",".join(ANSWERS_HEADER).encode("ascii"):
        found.append(RATER_ANSWERS_FILE)
    return found


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
    for name in _FILES:
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
