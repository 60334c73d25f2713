"""What decoded guides are worth: each picture's layers by correlation and identification, units by correlation."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ..data.table import TrialTable
from ..data.targets import guides_in_spaces
from ..guides import GuideSet
from ..modeling_fmri import FmriPreTrainedModel
from ..modeling_outputs import FmriDecoding
from .identification import category_identification, profile_correlation
from .similarities import correlated, identification_shares

IDENTIFICATION, PATTERN_CORRELATION = "guide_identification", "guide_pattern_correlation"
# Units whose statistics are computed at a time.
_UNITS_A_BLOCK = 2**16
_FEWEST_CATEGORIES = 2


@dataclass
class GuideOfSubject:
    """What a guide scores of one subject on one fold.

    Args:
        units: Number of the layer's units.
        scores: Row ▶ metric ▶ (T, N) what item j would score if picture i were the one shown.
        profile_correlation: Row ▶ mean over units of their correlation over items; None where every unit is constant.
        category_identification: Row ▶ mean over categories; empty where categories are not known.
    """

    units: int
    scores: dict[str, dict[str, torch.Tensor]]
    profile_correlation: dict[str, float | None] = field(default_factory=dict)
    category_identification: dict[str, float] = field(default_factory=dict)


@dataclass
class GuidesOfSubject:
    """What all guides score of one subject on one fold.

    Args:
        subject: Name.
        fold: Fold of the split.
        stimulus_ids: (N,) stimulus of each item.
        pictures: (N,) name of what each item shows, equal for the very same picture.
        guides: Guide ▶ what it scores.
    """

    subject: str
    fold: int
    stimulus_ids: list[str]
    pictures: list[str]
    guides: dict[str, GuideOfSubject]

    @property
    def shown(self) -> list[str]:
        """T pictures, in the order of the rows of scores."""
        return list(dict.fromkeys(self.pictures))

    @property
    def truth_index(self) -> np.ndarray:
        """(N,) which of the T each item shows."""
        place = {name: number for number, name in enumerate(self.shown)}
        return np.array([place[name] for name in self.pictures])


def score_guides(
    model: FmriPreTrainedModel,
    table: TrialTable,
    guides: GuideSet,
    patterns: dict[str, tuple[torch.Tensor, torch.Tensor]],
    stimulus_ids: Sequence[str],
    training_ids: Sequence[str],
    subject: str,
    fold: int,
) -> GuidesOfSubject:
    """Decodes guide by guide, one in memory at a time, and compares with what the network makes of the pictures.

    Identification compares patterns as they are (bdpy's `pairwise_identification`). Correlation is of patterns from
    which the mean of each unit over the training pictures is taken, over its standard deviation there: else it is high
    for whatever all pictures have in common.

    Args:
        model: Decodes guides.
        table: The trial table.
        guides: Networks, which are asked for layers that are not kept.
        patterns: Row ▶ processed voxels (N, widest subject) of the items, and the (N,) index of their subject.
        stimulus_ids: (N,) stimulus of each item.
        training_ids: Distinct stimuli that were learned from.
        subject: Name.
        fold: Fold of the split.
    """
    ids, hashes = list(stimulus_ids), table.stimuli.content_hashes(list(stimulus_ids))
    pictures = [digest or name for digest, name in zip(hashes, ids, strict=True)]
    found = GuidesOfSubject(subject, fold, ids, pictures, {})
    first = [pictures.index(name) for name in found.shown]
    truth_index, tested = found.truth_index, [ids[place] for place in first]
    categories = _categories(table, ids, training_ids)
    where = np.array(table.stimuli.positions(tested)), np.array(table.stimuli.positions(list(training_ids)))
    spaces = model.config.guides
    for guide in spaces:
        stored = guides_in_spaces(table, spaces, guides, names=[guide])[guide]
        truth = torch.from_numpy(np.asarray(stored[where[0]], dtype=np.float32))
        mean, std = _statistics(stored, where[1])
        of_guide = GuideOfSubject(truth.shape[1], {})
        for row, (features, subject_ids) in patterns.items():
            decoded = _decoded(model, features, subject_ids, guide)
            of_guide.scores[row] = _of_patterns(truth, decoded, mean, std)
            by_unit = profile_correlation(truth[torch.from_numpy(truth_index)], decoded)
            known = by_unit[by_unit.isfinite()]
            of_guide.profile_correlation[row] = float(known.mean()) if len(known) else None
            if categories is not None:
                own, names = categories.of_items, categories.names
                means = torch.stack([_mean(stored, table, categories.training[name]) for name in names])
                of_guide.category_identification[row] = float(category_identification(decoded, own, means))
        found.guides[guide] = of_guide
    return found


def _decoded(model: FmriPreTrainedModel, features: torch.Tensor, subject_ids: torch.Tensor, guide: str) -> torch.Tensor:
    """(N, units) float32."""
    decoder: Any = model
    decoded = decoder.decode_guides(features, subject_ids, [guide])
    if model.is_transductive:
        decoded = model.restandardised(FmriDecoding(guides=decoded), subject_ids).guides
    values: torch.Tensor = decoded[guide].flatten(1).float().cpu()
    return values


def _of_patterns(
    truth: torch.Tensor, decoded: torch.Tensor, mean: torch.Tensor, std: torch.Tensor
) -> dict[str, torch.Tensor]:
    raw = correlated(truth, decoded)
    varies = std > 0
    if varies.any():
        truth, decoded = (((values - mean) / std)[:, varies] for values in (truth, decoded))
    relative = correlated(truth, decoded)
    return {
        IDENTIFICATION: identification_shares(raw.values, constant=raw.constant),
        # A decoded pattern without any spread says nothing.
        PATTERN_CORRELATION: relative.values.nan_to_num(nan=0.0),
    }


def _statistics(stored: np.ndarray, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """(units,) mean and standard deviation (of a sample) over training pictures."""
    means, stds = [], []
    for block in _blocks(stored.shape[1]):
        values = np.asarray(stored[:, block], dtype=np.float64)[rows]
        means.append(values.mean(axis=0))
        stds.append(values.std(axis=0, ddof=1) if len(rows) > 1 else np.zeros(values.shape[1]))
    return torch.from_numpy(np.concatenate(means)).float(), torch.from_numpy(np.concatenate(stds)).float()


def _blocks(count: int) -> Iterator[slice]:
    for start in range(0, count, _UNITS_A_BLOCK):
        yield slice(start, min(start + _UNITS_A_BLOCK, count))


# ----------------------------------------------------------------------------------------------------------- categories


@dataclass(frozen=True)
class _Categories:
    """Categories of what was tested, each with training pictures whose mean features stand for it.

    Args:
        names: Of the candidates: all categories of training pictures, those that are tested first.
        of_items: (N,) which of them each item shows.
        training: Category ▶ stimuli that were learned from.
    """

    names: list[str]
    of_items: np.ndarray
    training: dict[str, list[str]]


def _categories(table: TrialTable, ids: list[str], training_ids: Sequence[str]) -> _Categories | None:
    """None where a tested picture has no category, or one of which no picture was learned from."""
    shown = table.stimuli.categories(ids)
    training: dict[str, list[str]] = {}
    for name, category in zip(training_ids, table.stimuli.categories(list(training_ids)), strict=True):
        if category is not None:
            training.setdefault(category, []).append(name)
    tested = [category for category in dict.fromkeys(shown) if category is not None]
    if len(training) < _FEWEST_CATEGORIES or None in shown or not set(tested) <= training.keys():
        return None
    names = [*tested, *sorted(training.keys() - set(tested))]
    return _Categories(names, np.array([names.index(str(category)) for category in shown]), training)


def _mean(stored: np.ndarray, table: TrialTable, ids: list[str]) -> torch.Tensor:
    """(units,) mean over some pictures, one after the other."""
    total = np.zeros(stored.shape[1], dtype=np.float64)
    for position in table.stimuli.positions(ids):
        total += stored[position]
    return torch.from_numpy(total / len(ids)).float()
