"""What a report says of decoded guides: each of them, and their mean."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from .bootstrap import PERMUTATIONS
from .guide_scores import IDENTIFICATION, PATTERN_CORRELATION, GuidesOfSubject
from .pairings import stimulus_pairings
from .protocols import Protocol
from .report import Report
from .scores import Scores

GUIDES = Protocol(
    "guides",
    "Layers of networks that see pictures, decoded and compared with those of what was shown, without a picture.",
    (IDENTIFICATION, PATTERN_CORRELATION),
)


def guide_scores(found: Sequence[GuidesOfSubject], seed: int, names: Sequence[str] | None = None) -> Scores:
    """Scores of all items, their mean over guides, with re-paired items beside them.

    Args:
        found: What was measured of each subject and fold.
        seed: Of the pairings that are drawn.
        names: Of these guides alone; None takes all.
    """
    names = list(found[0].guides) if names is None else list(names)
    rows = list(found[0].guides[names[0]].scores)
    pictures = np.concatenate([np.array(each.pictures) for each in found])
    _, stimuli = np.unique(pictures, return_inverse=True)
    numbers = dict(zip(pictures.tolist(), stimuli.tolist(), strict=True))
    lengths = [len(each.pictures) for each in found]
    starts = np.cumsum([0, *lengths])
    strata = [np.arange(start, stop) for start, stop in pairwise(starts.tolist())]
    pairings, exhaustive = stimulus_pairings(stimuli, strata, PERMUTATIONS, seed)
    values: dict[str, dict[str, np.ndarray | None]] = {row: {} for row in rows}
    permuted: dict[str, np.ndarray] = {}
    for metric in GUIDES.metrics:
        for row in rows:
            own, others = [], []
            for each, positions in zip(found, strata, strict=True):
                matrix = torch.stack([each.guides[name].scores[row][metric] for name in names]).mean(dim=0).numpy()
                items = np.arange(len(positions))
                own.append(matrix[each.truth_index, items])
                if row == "brain":
                    place = {numbers[name]: number for number, name in enumerate(each.shown)}
                    to_row = np.vectorize(place.__getitem__, otypes=[np.int64])
                    others.append(matrix[to_row(pairings[:, positions]), items])
            values[row][metric] = np.concatenate(own)
            if others:
                permuted[metric] = np.concatenate(others, axis=1)
    folds = {each.fold for each in found}
    return Scores(
        values=values,
        subjects=np.concatenate([np.full(len(each.pictures), each.subject) for each in found]),
        stimulus_ids=np.concatenate([np.array(each.stimulus_ids) for each in found]),
        seeds=np.full(len(pictures), seed, dtype=np.int64),
        permuted=permuted,
        exhaustive=exhaustive,
        num_folds=len(folds),
        pictures=pictures,
        pool_size=float(np.mean([len(each.shown) for each in found])),
        chances={IDENTIFICATION: 0.5},
    )


def guides_content(found: Sequence[GuidesOfSubject], spaces: dict[str, Any], seed: int) -> dict[str, Any]:
    """Guide ▶ units, space, results of each row with intervals, re-paired items, correlation of units, categories."""
    content = {}
    for name in found[0].guides if found else ():
        own = Report.from_scores(guide_scores(found, seed, [name]), GUIDES, seed=seed)
        of_guide = [each.guides[name] for each in found]
        rows = list(of_guide[0].scores)
        by_unit = {row: _mean_of([each.profile_correlation[row] for each in of_guide]) for row in rows}
        by_category = {row: _mean_of([each.category_identification.get(row) for each in of_guide]) for row in rows}
        content[name] = {
            "units": of_guide[0].units,
            "space": spaces[name],
            "results": own.results,
            "permutation": own.permutation,
            "profile_correlation": by_unit,
            **({"category_identification": by_category} if by_category["brain"] is not None else {}),
        }
    return content


def _mean_of(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
