"""What a report says of test pictures that were (nearly) learned from: which, and the scores without them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ..data.near_copies import NearCopy, PictureSketches
from ..data.picture_correlation import THRESHOLD
from ..data.split_files import parts_by_fold
from ..data.table import TrialTable
from .bootstrap import DRAWS
from .drawn_items import DrawnItems
from .named_metrics import get_metric
from .protocols import Protocol
from .report_figures import results

_MOST_PAIRS = 1000
_NAMED = 5
# Of what a note names beside each other, the first that a report has.
_TELLING = ("pairwise_pixcorr", "identification_top1", "pixcorr")


@dataclass(frozen=True)
class FoldCopies:
    """Near copies of one fold.

    Args:
        fold: Its number.
        copies: For each test picture that was (nearly) learned from, a pair.
        tested: How many stimuli were compared.
    """

    fold: int
    copies: list[NearCopy]
    tested: int


def near_copies_of_folds(
    table: TrialTable, split: str, subjects: Sequence[str], folds: Sequence[int]
) -> list[FoldCopies]:
    """Test pictures that are nearly among those of training and validation, under another id.

    Args:
        table: The trial table.
        split: Its split.
        subjects: Whose trials count.
        folds: Which folds were evaluated.
    """
    trials = table.split_rows(split)
    trials = trials.filter(pc.is_in(trials["subject"], pa.array(sorted(subjects))))
    compared = [(fold, tested, known) for fold, tested, known in parts_by_fold(trials) if fold in folds]
    compared = [each for each in compared if each[1] and each[2]]
    if not compared:
        return []
    every = set().union(*(tested | known for _, tested, known in compared))
    sketches = PictureSketches(table.stimuli, every, "Comparing test pictures with those that were learned from")
    return [FoldCopies(fold, sketches.near_copies(tested, known), len(tested)) for fold, tested, known in compared]


def near_copies_content(
    found: Sequence[FoldCopies],
    items: DrawnItems,
    protocol: Protocol,
    seed: int,
    weights: str | PathLike | None = None,
) -> dict[str, Any]:
    """The pairs, and what the row `brain` scores on the other items.

    Args:
        found: Of each fold.
        items: All that were drawn.
        protocol: Which metrics.
        seed: Of the bootstrap.
        weights: Folder with weights of extractors.

    Returns:
        `{"threshold", "tested", "copied", "pairs", "results_without"}`: a pair is a [`NearCopy`] and its fold, and
        `results_without` is None where there are no pairs, or fewer than two stimuli are left.
    """
    pairs = [{"fold": each.fold, **asdict(copy)} for each in found for copy in each.copies]
    copied = {(pair["fold"], pair["stimulus"]) for pair in pairs}
    of_items = zip(items.folds, items.stimulus_ids, strict=True)
    kept = [position for position, item in enumerate(of_items) if item not in copied]
    without = None
    if pairs and len({items.stimulus_ids[position] for position in kept}) > 1:
        scores = items.at(kept, rows=["brain"]).scores(protocol, seed, permutations=0, weights=weights)
        without = results(scores, DRAWS, seed)["brain"]
    return {
        "threshold": THRESHOLD,
        "tested": sum(each.tested for each in found),
        "copied": len(pairs),
        "pairs": pairs[:_MOST_PAIRS],
        "results_without": without,
    }


def near_copies_notes(content: Mapping[str, Any], brain: Mapping[str, Mapping[str, Any] | None]) -> list[str]:
    """A sentence on the test pictures that were nearly learned from, with what the others score; none without any.

    Args:
        content: What [`near_copies_content`] returns.
        brain: The scores of the row `brain` on all items.
    """
    if not content["pairs"]:
        return []
    named = [NearCopy(**{key: pair[key] for key in pair if key != "fold"}) for pair in content["pairs"][:_NAMED]]
    more = f" and {content['copied'] - len(named)} more" if content["copied"] > len(named) else ""
    what = (
        f"{content['copied']} of {content['tested']} test pictures are nearly in the training or validation as well: "
        f"{', '.join(map(str, named))}{more}."
    )
    without = content["results_without"]
    if without is None:
        return [f"{what} Too few others are left to be scored, so that no figure here is one of unseen pictures."]
    compared = [
        f"{get_metric(name).label} {before['value']:.3f} with and {after['value']:.3f} without them"
        for name in _TELLING
        if (before := brain.get(name)) and (after := without.get(name))
    ]
    figures = f" The brain row has {'; '.join(compared)}." if compared else ""
    all_stimuli, others = (
        max((found["stimuli"] for found in row.values() if found), default=0) for row in (brain, without)
    )
    if compared and others < all_stimuli:
        figures += (
            f" The first are of {all_stimuli} stimuli and the second of {others}, so that identification and retrieval "
            "are among fewer there."
        )
    return [f"{what}{figures} Only the figures without them are those of unseen pictures."]
