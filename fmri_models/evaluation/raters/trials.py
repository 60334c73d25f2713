"""Which trials people are shown: two pictures of which one is to be chosen as the one more like what was shown.

Four kinds: `own_or_other` asks whether people tell the reconstruction of what was shown from that of another stimulus,
`own_or_row` whether they find it more like than a row of the report, `catch` has the shown picture itself among the
two, so that who looks can't fail, and `repeat` asks an earlier one again.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..row_data import RowData
from ..scored_items import as_saved
from ..scores import Scores

Kind = Literal["own_or_other", "own_or_row", "catch", "repeat"]
OWN_OR_OTHER: Kind = "own_or_other"
OWN_OR_ROW: Kind = "own_or_row"
CATCH: Kind = "catch"
REPEAT: Kind = "repeat"
# Of three stimuli, each one's reconstruction stands once beside that of the one shown: no two trials have the same two
# pictures, and what the trials have in common stays within the three.
_ROUND = 3
# Of so many other pictures, the one that differs most is a catch trial's wrong answer.
_CATCH_CANDIDATES = 20
_FEWEST_CHECKS, _SHARE_OF_CHECKS = 6, 0.1


@dataclass(frozen=True)
class Trial:
    """A trial of a pack, before its pictures have names.

    Args:
        kind: One of the four.
        item: Position of the item whose true picture is shown; its reconstruction is the own one.
        other: Position of the item whose reconstruction (in a catch trial: whose true picture) stands beside it; of
            `own_or_row` the same item.
        row: The row of the other picture.
        group: Number of the stimuli that this trial's pictures are of: trials of different groups share none.
        same: Whether the two pictures are the same, so that nobody can choose: such a trial is not shown and counts
            one half.
        own_first: Whether the own picture is the first of the two.
        again: Which trial of the pack it repeats.
    """

    kind: Kind
    item: int
    other: int
    row: str
    group: int
    same: bool = False
    own_first: bool = True
    again: int | None = None


def drawn_trials(
    rows: Mapping[str, RowData], truth: Tensor, scores: Scores, folds: Sequence[int] | None, most: int,
    against: Sequence[str], seed: int,
) -> list[Trial]:  # fmt: skip
    """The trials of a pack.

    Args:
        rows: Of the report; `brain` and those of `against` have pictures.
        truth: (N, C, H, W) true picture of each item.
        scores: Subjects, stimuli and seeds of the items.
        folds: N fold numbers; one fold if None.
        most: Of the trials against another stimulus' reconstruction, and of those against each row.
        against: Rows that the own reconstruction is set beside.
        seed: Of the choice of stimuli, of the other ones, and of which picture is first.

    Returns:
        All of them, those that nobody could answer included; empty where no stimulus has another one to stand beside.
    """
    generator = np.random.default_rng(seed)
    images = _saved(rows["brain"])
    units = scores.units.tolist()
    strata = _first_pictures(scores, folds)
    trials = [
        Trial(OWN_OR_OTHER, item, other, "brain", 0, same=_same(images[item], images[other]))
        for item, other in _pairs(strata, units, most, generator)
    ]
    trials = _grouped(trials, units)
    for row in against:
        others = _saved(rows[row])
        chosen = _one_of_each(strata, units, most, generator)
        trials += [
            Trial(OWN_OR_ROW, item, item, row, number, same=_same(images[item], others[item]))
            for number, item in enumerate(chosen)
        ]
    shown = sum(not each.same for each in trials)
    if not shown:
        return trials
    checks = max(_FEWEST_CHECKS, math.ceil(shown * _SHARE_OF_CHECKS))
    trials += _catch_trials(_saved_pictures(truth), units, strata, checks, generator)
    trials = [replace(each, own_first=bool(generator.integers(2))) for each in trials]
    can_repeat = [place for place, each in enumerate(trials) if each.kind != CATCH and not each.same]
    repeated = generator.permutation(can_repeat)[:checks].tolist()
    # The other way round, so that who always takes the same side is seen to.
    again = [replace(trials[it], kind=REPEAT, own_first=not trials[it].own_first, again=it) for it in sorted(repeated)]
    return [*trials, *again]


def in_two_halves(trials: Sequence[Trial], seed: int) -> tuple[list[int], list[int]]:
    """Positions of the trials that are shown, in halves of which the second has the repeated trials and no original.

    Within a half everybody has an order of their own.
    """
    generator = np.random.default_rng([seed, 1])
    originals = {each.again for each in trials if each.again is not None}
    shown = [place for place, each in enumerate(trials) if not each.same]
    repeats = [place for place in shown if trials[place].kind == REPEAT]
    free = [place for place in shown if trials[place].kind != REPEAT and place not in originals]
    free = generator.permutation(free).tolist() if free else []
    wanted = max(0, len(shown) // 2 - len(originals))
    return sorted([*originals, *free[:wanted]]), sorted([*free[wanted:], *repeats])


def _first_pictures(scores: Scores, folds: Sequence[int] | None) -> list[list[int]]:
    """Positions of one picture of each response, for each subject and fold; those are what is told apart."""
    of: dict[tuple[str, int], list[int]] = defaultdict(list)
    drawn: dict[tuple[str, int, str], int] = {}
    labels = zip(
        scores.subjects.tolist(),
        [0] * len(scores) if folds is None else folds,
        scores.stimulus_ids.tolist(),
        scores.seeds.tolist(),
        strict=True,
    )
    for place, (subject, fold, stimulus, seed) in enumerate(labels):
        # Several pictures of one response differ in their seeds, several trials of one stimulus do not always.
        if drawn.setdefault((subject, fold, stimulus), seed) == seed:
            of[subject, fold].append(place)
    return list(of.values())


def _one_of_each(
    strata: Sequence[Sequence[int]], units: Sequence[str], most: int, generator: np.random.Generator
) -> list[int]:
    """Items of different stimuli, `most` at most, each of a subject and trial by chance."""
    of: dict[str, list[int]] = defaultdict(list)
    for place in (place for stratum in strata for place in stratum):
        of[units[place]].append(place)
    names = sorted(of)
    chosen = [names[number] for number in generator.permutation(len(names))[:most]]
    return [of[name][generator.integers(len(of[name]))] for name in chosen]


def _pairs(
    strata: Sequence[Sequence[int]], units: Sequence[str], most: int, generator: np.random.Generator
) -> Iterator[tuple[int, int]]:
    """Items and the other ones that their reconstructions are told from, of the same subject and fold.

    Where there are stimuli enough, none is in two trials; else the others are those of a small round.
    """
    chosen = _one_of_each(strata, units, most, generator)
    taken = {units[place] for place in chosen}
    place_of = {place: number for number, stratum in enumerate(strata) for place in stratum}
    by_stratum: dict[int, list[int]] = defaultdict(list)
    for place in chosen:
        by_stratum[place_of[place]].append(place)
    for number, own in sorted(by_stratum.items()):
        spare: list[int] = []
        for place in generator.permutation(strata[number]).tolist():
            if units[place] not in taken and len(spare) < len(own):
                taken.add(units[place])
                spare.append(place)
        yield from zip(own, spare, strict=False)
        left = own[len(spare) :]
        rounds = [left[start : start + _ROUND] for start in range(0, len(left), _ROUND)]
        if len(rounds) > 1 and len(rounds[-1]) == 1:
            rounds[-2:] = [rounds[-2] + rounds[-1]]
        for each in rounds:
            if len(each) > 1:
                yield from zip(each, each[1:] + each[:1], strict=True)
                continue
            # Alone: beside whatever its subject has of another stimulus.
            others = [place for place in strata[number] if units[place] != units[each[0]]]
            if others:
                yield each[0], others[generator.integers(len(others))]


def _grouped(trials: Sequence[Trial], units: Sequence[str]) -> list[Trial]:
    """The trials with numbers of groups that share no stimulus."""
    first: dict[str, str] = {}

    def found(name: str) -> str:
        while (other := first.setdefault(name, name)) != name:
            name = other
        return name

    for each in trials:
        one, other = found(units[each.item]), found(units[each.other])
        first[max(one, other)] = min(one, other)
    numbers: dict[str, int] = {}
    return [replace(it, group=numbers.setdefault(found(units[it.item]), len(numbers))) for it in trials]


def _catch_trials(
    truth: Tensor, units: Sequence[str], strata: Sequence[Sequence[int]], count: int, generator: np.random.Generator
) -> list[Trial]:
    items = _one_of_each(strata, units, count, generator)
    every = _one_of_each(strata, units, len(units), generator)
    trials = []
    for number, item in enumerate(items):
        others = [place for place in every if units[place] != units[item]]
        if not others:
            continue
        candidates = [others[it] for it in generator.permutation(len(others))[:_CATCH_CANDIDATES]]
        distances = [float((truth[item] - truth[it]).square().mean()) for it in candidates]
        trials.append(Trial(CATCH, item, candidates[int(np.argmax(distances))], "truth", number))
    return trials


def _saved(row: RowData) -> Tensor:
    assert row.images is not None
    return _saved_pictures(row.images)


def _saved_pictures(pictures: Tensor) -> Tensor:
    return as_saved(pictures)


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool(torch.equal(one, other))
