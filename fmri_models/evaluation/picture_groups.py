"""The pictures of report.html: some drawn at random, and the best, median and worst ones, each with what was shown.

Chosen pictures say that they are chosen, and by what. Those at random are the ones of `grid.png`, without regard to any
score.
"""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from PIL import Image
from torch import Tensor

from ..data.picture_tiles import SMOOTH_FROM
from ..data.table_stimuli import Stimuli
from ..names import one_line
from .leading_rows import best_row, controls, lead_metric
from .named_metrics import Metric
from .picture_files import to_pil
from .picture_grid import grid_items
from .report import Report
from .scores import Scores

STIMULI_A_GROUP = 4
# Of the longer side: what is larger is scaled down to it, so that a page of photographs has some two megabytes.
_LARGEST_SIDE = 256
_QUALITY = 82
# Pictures up to so many pixels are kept as they are.
_KEPT = 96 * 96
_LONGEST_NAME = 60
# What a pair of an audit has: the test picture and the nearest one that was learned from.
_PAIR = ("stimulus", "training")


@dataclass(frozen=True)
class Tile:
    """A picture that a click opens.

    Args:
        address: `data:` with the picture itself.
        alt: What it is, in words.
        is_coarse: Whether its few pixels are shown as squares.
    """

    address: Markup
    alt: str
    is_coarse: bool


@dataclass(frozen=True)
class TiledStimulus:
    """A stimulus with what was shown and what each row made of it.

    Args:
        name: Of the stimulus, and of the subject where there are several.
        score: Of the brain row, as text; empty where it has none.
        tiles: As many as a group has rows.
    """

    name: str
    score: str
    tiles: list[Tile]


@dataclass(frozen=True)
class PictureGroup:
    """Some stimuli that were found in one way.

    Args:
        title: A word or two.
        about: How they were found.
        rows: Labels of the tiles.
        stimuli: The stimuli.
    """

    title: str
    about: str
    rows: list[str]
    stimuli: list[TiledStimulus]


def picture_groups(
    report: Report,
    scores: Scores,
    truth: Tensor,
    images: Mapping[str, Tensor],
    grid_rows: Iterable[str] | None = None,
    stimuli: int = STIMULI_A_GROUP,
) -> list[PictureGroup]:
    """The groups of a page: at random, best, median, worst; the last three are of different stimuli.

    Args:
        report: Of the scores.
        scores: Of all items.
        truth: (N, C, H, W) what was shown, in [0, 1].
        images: Row ▶ pictures of the same items.
        grid_rows: Rows that a grid shows; all if None.
        stimuli: How many a group has at most.
    """
    metric = lead_metric(report)
    rows = _rows(report, images, grid_rows, metric)
    pictures = [("shown", truth), *((_label(report, row), images[row]) for row in rows)]
    values = None if metric is None else scores.values.get("brain", {}).get(metric.name)
    several = len(set(scores.subjects.tolist())) > 1
    whose = f"Of {one_line(scores.subjects[0], _LONGEST_NAME)}, drawn" if several else "Drawn"
    about = f"{whose} from the seed, whatever their scores."
    groups = [("At random", about, grid_items(scores, stimuli, report.seed))]
    if metric is not None and values is not None:
        groups += _chosen(metric, values, scores, stimuli, report.seed)
    return [
        PictureGroup(
            title,
            about,
            [label for label, _ in pictures],
            [_tiled(item, pictures, scores, metric, values) for item in items],
        )
        for title, about, items in groups
    ]


def closest_pairs(
    report: Report, scores: Scores, truth: Tensor, brain: Tensor, stimuli: Stimuli, most: int = STIMULI_A_GROUP
) -> list[PictureGroup]:
    """The test pictures that an audit found nearest to training pictures, beside these and their reconstructions.

    Args:
        report: With the audit's part `overlap`; without it there is no group.
        scores: Of all items.
        truth: (N, C, H, W) what was shown, in [0, 1].
        brain: (N, C, H, W) what was reconstructed.
        stimuli: The table's pictures.
        most: How many pairs.
    """
    pairs = report.audit.get("overlap", {}).get("closest", [])[:most]
    if not pairs:
        return []
    items = {stimulus: item for item, stimulus in reversed(list(enumerate(scores.stimulus_ids.tolist())))}
    tiled = []
    for pair in pairs:
        # One by one: pictures of a table need not be of one size.
        learned = stimuli.images([pair["training"]])[0]
        item, name, other = items[pair["stimulus"]], *(one_line(pair[key], _LONGEST_NAME) for key in _PAIR)
        tiles = [
            _tile(to_pil(truth[item]), f"shown: {name}"),
            _tile(Image.fromarray(learned.squeeze()), f"learned from: {other}"),
            _tile(to_pil(brain[item]), f"reconstruction: {name}"),
        ]
        tiled.append(TiledStimulus(f"{name} and {other}", f"distance {pair['distance']:.3f}", tiles))
    about = (
        "Chosen: the test pictures nearest to pictures that were learned from. What is the same was learned by heart."
    )
    return [PictureGroup("Nearest to the training", about, ["shown", "learned from", _label(report, "brain")], tiled)]


def ranked_items(values: np.ndarray, units: Sequence[str], higher_is_better: bool, seed: int) -> list[int]:
    """Items from the best to the worst, one of each stimulus that has a score; equal scores are in a random order.

    Args:
        values: (N,) scores; NaN for none.
        units: N names; of the items of one, the one whose score is nearest to their median stands for it.
        higher_is_better: Direction.
        seed: Of the order of equal scores.
    """
    scored = np.flatnonzero(np.isfinite(values))
    items: dict[str, list[int]] = {}
    for item in scored.tolist():
        items.setdefault(units[item], []).append(item)
    typical = [min(of_one, key=lambda item: abs(values[item] - np.median(values[of_one]))) for of_one in items.values()]
    shuffled = np.random.default_rng(seed).permutation(typical)
    signed = values[shuffled] if not higher_is_better else -values[shuffled]
    return [int(item) for item in shuffled[np.argsort(signed, kind="stable")]]


def _chosen(
    metric: Metric, values: np.ndarray, scores: Scores, stimuli: int, seed: int
) -> list[tuple[str, str, list[int]]]:
    """Title, a sentence and items of the groups that are chosen by their scores."""
    ranked = ranked_items(values, scores.units.tolist(), metric.higher_is_better, seed)
    count = min(stimuli, len(ranked) // 3)
    if count == 0:
        return []
    middle = (len(ranked) - count) // 2
    groups = {"Best": ranked[:count], "Median": ranked[middle : middle + count], "Worst": ranked[-count:]}
    about = {
        "Best": f"Chosen: the {_number(count)} of {len(ranked)} with the best {metric.label}{{}}. They flatter.",
        "Median": f"Chosen: {_number(count)} in the middle of the order by {metric.label}{{}}.",
        "Worst": f"Chosen: the {_number(count)} with the worst {metric.label}{{}}.",
    }
    return [(title, about[title].format(_ties(values, ranked, items)), items) for title, items in groups.items()]


def _number(count: int) -> str:
    return {1: "one", 2: "two", 3: "three", 4: "four"}.get(count, str(count))


def _ties(values: np.ndarray, ranked: Sequence[int], items: Sequence[int]) -> str:
    """Says where others have the score of a chosen one, so that chance has chosen among them."""
    alike = sum(values[item] in set(values[list(items)].tolist()) for item in ranked)
    return f" ({alike} have such a score, of whom these were drawn by lot)" if alike > len(items) else ""


def _rows(
    report: Report, images: Mapping[str, Tensor], grid_rows: Iterable[str] | None, metric: Metric | None
) -> list[str]:
    """Rows with pictures that stand beside what was shown: brain, ridge, the best control, the ceiling."""
    shown = set(images if grid_rows is None else grid_rows)
    pictured = [row for row in controls(report) if row in images]
    best = None if metric is None else best_row(report, pictured, metric)
    chosen = ["brain", "ridge", *([best] if best else pictured[:1]), "ceiling"]
    return [row for row in chosen if row in images and (row in shown or row == best)]


def _label(report: Report, row: str) -> str:
    return one_line(report.row(row)["label"], _LONGEST_NAME)


def _tiled(
    item: int,
    pictures: Sequence[tuple[str, Tensor]],
    scores: Scores,
    metric: Metric | None,
    values: np.ndarray | None,
) -> TiledStimulus:
    name = one_line(scores.stimulus_ids[item], _LONGEST_NAME)
    if len(set(scores.subjects.tolist())) > 1:
        name = f"{name} ({one_line(scores.subjects[item], _LONGEST_NAME)})"
    known = metric is not None and values is not None and np.isfinite(values[item])
    score = f"{metric.label} {values[item]:.3f}" if known and metric is not None and values is not None else ""
    tiles = [_tile(to_pil(images[item]), f"{label}: {name}") for label, images in pictures]
    return TiledStimulus(name, score, tiles)


def _tile(picture: Image.Image, alt: str) -> Tile:
    picture = picture.convert("RGB") if picture.mode != "L" else picture
    coarse = min(picture.size) < SMOOTH_FROM
    if max(picture.size) > _LARGEST_SIDE:
        picture.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE), Image.Resampling.LANCZOS)
    kept = picture.width * picture.height <= _KEPT
    buffer = io.BytesIO()
    if kept:
        picture.save(buffer, format="PNG", optimize=True)
    else:
        picture.save(buffer, format="JPEG", quality=_QUALITY, optimize=True)
    kind = "png" if kept else "jpeg"
    address = f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
    return Tile(Markup(address), alt, coarse)
