"""The items of all subjects and folds that were drawn, one after the other, as they are scored."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from ..data.table import TrialTable
from .drawn_rows import SubjectRows
from .protocols import Protocol
from .row_data import RowData
from .scores import Scores
from .scoring import score_rows
from .seeded_drawing import SAMPLE_STRIDE


@dataclass
class DrawnItems:
    """N items, with what every row has for them and what is known of the pictures that were shown.

    Args:
        rows: Name ▶ pictures and embeddings; those that every subject has in every fold.
        truth: (N, C, H, W) what was shown.
        stimulus_ids: N stimuli.
        subjects: N names.
        folds: N folds.
        gallery_embeds: (N, …) embeddings of what was shown; None where a subject has none.
        backgrounds: N labels; None where they are not known.
        factors: N dictionaries of a scene's factors; None where they are not known.
        blocks: N names of where items were recorded; None where nobody asks.
        samples: N numbers: which picture of its response each item is, from 0.
        responses: N names of the response that each is a picture of.
        categories: N names of what the stimuli are of, None where that is not known.
    """

    rows: dict[str, RowData]
    truth: torch.Tensor
    stimulus_ids: list[str]
    subjects: list[str]
    folds: list[int]
    gallery_embeds: torch.Tensor | None
    backgrounds: list[str] | None
    factors: list[dict[str, str]] | None
    blocks: list[str] | None = None
    samples: list[int] = field(default_factory=list)
    responses: list[str] = field(default_factory=list)
    categories: list[str | None] | None = None

    @classmethod
    def joined(cls, tested: Sequence[SubjectRows], table: TrialTable) -> "DrawnItems":
        """Those of several subjects and folds; a row that one of them lacks is left out."""
        names = [name for name in tested[0].rows if all(name in each.rows for each in tested)]
        rows = {name: _joined_row([each.rows[name] for each in tested]) for name in names}
        ids = [stimulus for each in tested for stimulus in each.stimulus_ids]
        factors = table.stimuli.factors(ids)
        known = [scene or {} for scene in factors] if all(factors) else None
        return cls(
            rows,
            torch.cat([each.truth for each in tested]),
            ids,
            [each.subject for each in tested for _ in each.stimulus_ids],
            [each.fold for each in tested for _ in each.stimulus_ids],
            _joined([each.gallery_embeds for each in tested]),
            None if known is None else _backgrounds(known),
            known,
            None
            if any(each.blocks is None for each in tested)
            else [block for each in tested for block in each.blocks or ()],
            [place // _responses(each) for each in tested for place in range(len(each.stimulus_ids))],
            [
                f"{each.subject} {each.fold} {place % _responses(each)}"
                for each in tested
                for place in range(len(each.stimulus_ids))
            ],
            table.stimuli.categories(ids),
        )

    def with_rows(self, rows: Mapping[str, RowData]) -> "DrawnItems":
        """The same items with other rows."""
        return replace(self, rows=dict(rows))

    def at(self, positions: Sequence[int], rows: Collection[str]) -> "DrawnItems":
        """Some of the items, with some of the rows."""
        chosen = {name: self.rows[name] for name in rows}
        return DrawnItems(
            {
                name: RowData(_at(row.images, positions), _at(row.retrieval_embeds, positions))
                for name, row in chosen.items()
            },
            self.truth[list(positions)],
            [self.stimulus_ids[position] for position in positions],
            [self.subjects[position] for position in positions],
            [self.folds[position] for position in positions],
            _at(self.gallery_embeds, positions),
            None if self.backgrounds is None else [self.backgrounds[position] for position in positions],
            None if self.factors is None else [self.factors[position] for position in positions],
            None if self.blocks is None else [self.blocks[position] for position in positions],
            [self.samples[position] for position in positions],
            [self.responses[position] for position in positions],
            None if self.categories is None else [self.categories[position] for position in positions],
        )

    def scores(self, protocol: Protocol, seed: int, **options: Any) -> Scores:
        """Every row by every metric of a protocol; `options` are those of [`score_rows`]."""
        return score_rows(
            self.rows,
            self.truth,
            self.stimulus_ids,
            protocol,
            self.subjects,
            folds=self.folds,
            gallery_embeds=self.gallery_embeds,
            backgrounds=self.backgrounds,
            factors=self.factors,
            seeds=[seed + SAMPLE_STRIDE * sample for sample in self.samples],
            seed=seed,
            blocks=self.blocks,
            responses=self.responses,
            categories=self.categories,
            **options,
        )


def _responses(of: SubjectRows) -> int:
    return max(1, len(of.stimulus_ids) // of.samples)


def _joined_row(of_subjects: Sequence[RowData]) -> RowData:
    images = [each.images for each in of_subjects]
    return RowData(_joined(images), _joined([each.retrieval_embeds for each in of_subjects]))


def _joined(tensors: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
    known = [each for each in tensors if each is not None]
    return torch.cat(known) if len(known) == len(tensors) else None


def _at(values: torch.Tensor | None, positions: Sequence[int]) -> torch.Tensor | None:
    return None if values is None else values[list(positions)]


def _backgrounds(factors: Sequence[Mapping[str, Any]]) -> list[str] | None:
    if not all("ground" in scene and "time_of_day" in scene for scene in factors):
        return None
    return [f"{scene['ground']}, {scene['time_of_day']}" for scene in factors]
