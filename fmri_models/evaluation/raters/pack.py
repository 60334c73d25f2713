"""Writes a rater pack: a folder with one page and its pictures, and the key beside it."""

import json
import math
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers.utils import logging

from ... import progress
from ...errors import FmriModelsError
from ...names import listed, one_line
from ...saving import atomic_folder
from ..extractors import FeatureExtractor
from ..named_metrics import SMALLEST_NETWORK_PICTURE, Distance, TwoWay
from ..picture_files import to_pil
from ..protocols import Protocol
from ..report import Report
from ..row_data import RowData
from ..rows import check_rows
from ..scores import Scores
from ..scoring import score_rows
from .key import Key, KeyTrial
from .trials import CATCH, Trial, drawn_trials, in_two_halves

logger = logging.get_logger(__name__)

TRIALS = 60
_MOST_TRIALS = 2000
# Of the catch trials, right by guessing with p = .11 in six and .05 in ten.
PASSED_CATCH_SHARE = 0.8
_PIXELATED_BELOW = 48
_OF_PIXELS = ("pixcorr", "ssim", "mse")
_TEMPLATE = Path(__file__).parent / "page.html"
_PLACE = "/* pack */ null"


@dataclass(frozen=True)
class PackRequest:
    """What somebody wants people to be asked.

    Args:
        folder: What is handed out, which is made; the key is written beside it, as `<folder>-key.json`.
        trials: This many at most, of those against another stimulus' reconstruction and of those against each row.
        against: Rows of the report that reconstructions are set beside.

    Raises:
        FmriModelsError: A row is not known, or the number is none.
    """

    folder: str | PathLike
    trials: int = TRIALS
    against: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.trials <= _MOST_TRIALS:
            raise FmriModelsError(f"A rater pack of {self.trials} trials can't be made; give 1 to {_MOST_TRIALS}.")
        if "brain" in self.against:
            raise FmriModelsError("The row 'brain' is what is judged; set another row beside it.")
        check_rows(self.against)

    @property
    def key_file(self) -> Path:
        """Where the key is written: beside the folder, so that it is not handed out with it."""
        return Path(f"{os.path.abspath(self.folder)}-key.json")

    def check_free(self, out: str | PathLike) -> None:
        """Refuses a place for the pack before the work.

        Args:
            out: Folder of the report, which must not be handed out.

        Raises:
            FmriModelsError: There is something, or the report would be in the pack.
        """
        folder, report = Path(os.path.realpath(self.folder)), Path(os.path.realpath(out))
        if report.is_relative_to(folder):
            raise FmriModelsError(
                f"The report in {one_line(out)} would be handed out with the rater pack {one_line(self.folder)}, and "
                "it names what raters must not know; write the pack into a folder of its own."
            )
        if folder.is_relative_to(report / "images"):
            raise FmriModelsError(
                f"{one_line(self.folder)} is among the report's pictures; write the rater pack into another folder."
            )
        # Answers belong to one pack, so that none is ever replaced.
        for taken in (self.key_file, folder):
            if os.path.lexists(taken) and not (taken.is_dir() and taken == folder and not any(taken.iterdir())):
                raise FmriModelsError(
                    f"{one_line(taken)} is there already, and answers belong to the pack that they were given to; "
                    "choose another folder for the rater pack."
                )


def write_pack(
    request: PackRequest, report: Report, rows: Mapping[str, RowData], truth: Tensor | None, scores: Scores,
    protocol: Protocol, folds: Sequence[int] | None = None, weights: str | PathLike | None = None,
    extractors: Mapping[str, FeatureExtractor] | None = None,
) -> Key:  # fmt: skip
    """Draws the trials of a report, and writes the folder that is handed out and the key beside it.

    Args:
        request: What is wanted.
        report: As it was written.
        rows: With their pictures.
        truth: (N, C, H, W) true picture of each item.
        scores: Of the items.
        protocol: By whose networks each trial is decided, too.
        folds: N fold numbers; one fold if None.
        weights: Folder with weights of networks.
        extractors: Networks that were handed in.

    Raises:
        FmriModelsError: There are no two stimuli that could be told apart.
    """
    pictured = {name: row for name, row in rows.items() if row.images is not None}
    if truth is None or "brain" not in pictured or report.items_sha256 is None:
        raise FmriModelsError("Without pictures there is nothing that people could be shown.")
    against = [name for name in dict.fromkeys(request.against) if name in pictured]
    if lacking := [name for name in request.against if name not in pictured]:
        logger.warning(f"The report has no pictures of {listed(lacking)}, which the rater pack is without.")
    trials = drawn_trials(pictured, truth, scores, folds, request.trials, against, report.seed)
    if not any(each.kind == CATCH for each in trials):
        why = "all reconstructions are the same" if trials else "no subject has two stimuli"
        raise FmriModelsError(
            f"There is nothing that people could tell apart, because {why}; no rater pack was written."
        )
    with progress.phase("Writing the rater pack"):
        chosen_by = _chosen_by_metrics(trials, pictured, truth, scores, protocol, weights, extractors)
        key = _key(trials, chosen_by, scores, report)
        shown = _Tokens()
        with atomic_folder(request.folder) as folder:
            (folder / "pictures").mkdir()
            _save_pictures(folder / "pictures", trials, key, shown, pictured, truth)
            page = _page(trials, key, shown, report.seed, min(truth.shape[-2:]) < _PIXELATED_BELOW)
            (folder / "index.html").write_text(page, encoding="utf-8")
        key.save(request.key_file)
    return key


class _Tokens(dict[int, str]):
    """Position of a trial ▶ a random name; pictures of several trials have one for each."""

    def __missing__(self, place: int) -> str:
        return self.setdefault(place, _token())


def _token() -> str:
    # Not from the seed, which anybody could try.
    return secrets.token_hex(8)


def _key(trials: Sequence[Trial], chosen_by: Sequence[Mapping[str, float]], scores: Scores, report: Report) -> Key:
    stimuli, subjects = scores.stimulus_ids.tolist(), scores.subjects.tolist()
    ids = [None if each.same else _token() for each in trials]
    catch = sum(each.kind == CATCH for each in trials)
    return Key(
        pack=_token(),
        items_sha256=str(report.items_sha256),
        protocol=str(report.protocol.get("name", "")),
        seed=report.seed,
        catch_needed=math.ceil(catch * PASSED_CATCH_SHARE),
        trials=[
            KeyTrial(
                id=name,
                kind=each.kind,
                group=each.group,
                subject=subjects[each.item],
                stimulus=stimuli[each.item],
                other=stimuli[each.other],
                row=each.row,
                own=None if name is None else _token(),
                beside=None if name is None else _token(),
                own_first=each.own_first,
                again=None if each.again is None else ids[each.again],
                chosen_by=dict(chosen),
            )
            for each, name, chosen in zip(trials, ids, chosen_by, strict=True)
        ],
    )


def _save_pictures(
    folder: Path, trials: Sequence[Trial], key: Key, shown: _Tokens, rows: Mapping[str, RowData], truth: Tensor
) -> None:
    files: dict[str, Tensor] = {}
    for place, (trial, named) in enumerate(zip(trials, key.trials, strict=True)):
        if named.own is None or named.beside is None:
            continue
        files[shown[place]] = truth[trial.item]
        if trial.kind == CATCH:
            files[named.own], files[named.beside] = truth[trial.item], truth[trial.other]
        else:
            files[named.own] = _images(rows, "brain")[trial.item]
            files[named.beside] = _images(rows, trial.row)[trial.other]
    # In the order of their names, so that times of files tell nothing.
    for name in sorted(files):
        to_pil(files[name]).save(folder / f"{name}.png")
    for name in files:
        os.utime(folder / f"{name}.png", (0, 0))


def _page(trials: Sequence[Trial], key: Key, shown: _Tokens, seed: int, pixelated: bool) -> str:
    def on_page(place: int) -> dict[str, object]:
        named = key.trials[place]
        options = [named.own, named.beside]
        return {"id": named.id, "shown": shown[place], "options": options if named.own_first else options[::-1]}

    halves = [sorted(map(on_page, half), key=lambda it: str(it["id"])) for half in in_two_halves(trials, seed)]
    content = json.dumps({"pack": key.pack, "halves": halves, "pixelated": pixelated})
    page = _TEMPLATE.read_text(encoding="utf-8")
    assert page.count(_PLACE) == 1
    return page.replace(_PLACE, content)


def _images(rows: Mapping[str, RowData], name: str) -> Tensor:
    images = rows[name].images
    assert images is not None
    return images


def _chosen_by_metrics(
    trials: Sequence[Trial], rows: Mapping[str, RowData], truth: Tensor, scores: Scores, protocol: Protocol,
    weights: str | PathLike | None, extractors: Mapping[str, FeatureExtractor] | None,
) -> list[dict[str, float]]:  # fmt: skip
    """For each trial which picture the metrics of pixels, and the networks of the protocol, find more like."""
    asked = [place for place, each in enumerate(trials) if each.kind != CATCH]
    networks = [metric.extractor for metric in protocol.measured() if isinstance(metric, TwoWay | Distance)]
    if min(truth.shape[-2:]) < SMALLEST_NETWORK_PICTURE:
        networks = []
    names = [f"distance_{name}" for name in dict.fromkeys(networks)]
    names += [name for name in protocol.metrics if name in _OF_PIXELS]
    found: list[dict[str, float]] = [{} for _ in trials]
    if not names or not asked:
        return found
    items = [trials[place].item for place in asked]
    other = torch.stack([_images(rows, trials[place].row)[trials[place].other] for place in asked])
    measured = score_rows(
        {"own": RowData(_images(rows, "brain")[items]), "other": RowData(other)},
        truth[items],
        scores.stimulus_ids[items].tolist(),
        replace(protocol, metrics=tuple(names), exchange_within=None, sample_average="scores"),
        extractors=extractors,
        permutations=0,
        weights=weights,
    )
    higher = {metric.name: metric.higher_is_better for metric in replace(protocol, metrics=tuple(names)).measured()}
    for name in names:
        own, beside = (measured.values[row].get(name) for row in ("own", "other"))
        if own is None or beside is None:
            continue
        advantage = (own - beside) if higher[name] else (beside - own)
        for place, value in zip(asked, advantage.tolist(), strict=True):
            if np.isfinite(value):
                found[place][name] = 0.5 if value == 0 else float(value > 0)
    return found
