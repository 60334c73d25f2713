"""Batches that take the same number of rows of several groups, and stimuli that all subjects have seen."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmri_models.data.batches import GroupedBatches
from fmri_models.errors import FmriModelsError
from fmri_models.training.options import TrainingOptions
from fmri_models.training.sampling import group_rows, shared_examples


def take(batches: GroupedBatches, count: int) -> list[list[int]]:
    iterator = iter(batches)
    return [next(iterator) for _ in range(count)]


def group_of(sizes, positions):
    return np.searchsorted(np.cumsum(sizes), positions, side="right")


def test_every_batch_has_as_many_rows_of_each_group_and_an_epoch_sees_the_largest_once():
    sizes = [9, 4, 25]
    batches = GroupedBatches(sizes, [2, 2, 2], seed=3)
    assert batches.examples_a_batch == 6 and batches.batches_an_epoch == 12
    taken = take(batches, 12)
    for positions in taken:
        assert np.bincount(group_of(sizes, positions), minlength=3).tolist() == [2, 2, 2]
    largest = [position for positions in taken for position in positions if position >= 13]
    assert len(set(largest)) == 24
    smallest = [position for positions in taken[:2] for position in positions if 9 <= position < 13]
    assert sorted(smallest) == [9, 10, 11, 12]
    assert take(GroupedBatches(sizes, [2, 2, 2], seed=4), 3) != taken[:3]


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    each=st.integers(1, 3),
    processes=st.sampled_from([1, 2, 3]),
    first=st.integers(0, 30),
)
def test_batches_begin_anywhere_and_divide_among_processes(sizes, each, processes, first):
    rows = [each * processes] * len(sizes)
    whole = take(GroupedBatches(sizes, rows, seed=1), first + 3)[first:]
    parts = [take(GroupedBatches(sizes, rows, 1, first, process, processes), 3) for process in range(processes)]
    for number, positions in enumerate(whole):
        assert [place for part in parts for place in part[number]] == positions
        for part in parts:
            # Each process has some of every group.
            assert np.bincount(group_of(sizes, part[number]), minlength=len(sizes)).tolist() == [each] * len(sizes)


def test_shared_stimuli_come_together():
    shown = np.array(["a", "b", "c", "", "c", "d", "a", "b", "b", "a"])
    sizes = [5, 5]
    shared = shared_examples(shown, sizes)
    assert shared.shape == (2, 2, 2)
    batches = GroupedBatches(sizes, [3, 3], seed=0, shared=shared, shared_rows=2)
    for positions in take(batches, 9):
        # Rows of both subjects alternate, those of the same stimulus first.
        assert [shown[place] for place in positions[:4:2]] == [shown[place] for place in positions[1:4:2]]
        assert group_of(sizes, positions).tolist() == [0, 1, 0, 1, 0, 1]


def test_without_a_stimulus_that_all_have_seen():
    with pytest.raises(FmriModelsError, match="none among those"):
        shared_examples(np.array(["a", "", "b", ""]), [2, 2])


@pytest.mark.parametrize(
    ("sizes", "own", "share", "sampling", "expected"),
    [
        ([30, 10], 2, 0.5, "balanced", ([30, 10], [8, 8], [0, 1])),
        ([30, 10, 50], 1, 0.5, "proportional", ([30, 60], [8, 8], [0])),
        ([30, 10, 50], 1, 0.5, "balanced", ([30, 10, 50], [8, 4, 4], [0])),
        ([30, 10, 50], 1, 0.25, "proportional", ([30, 60], [12, 4], [0])),
    ],
)
def test_rows_of_subjects_and_sources(sizes, own, share, sampling, expected):
    options = TrainingOptions(steps=1, batch_size=16, sampling=sampling, source_share=share)
    assert group_rows(sizes, own, options) == expected


def test_rows_that_do_not_divide():
    options = TrainingOptions(steps=1, batch_size=16, sampling="balanced")
    with pytest.raises(FmriModelsError, match="16 rows of a batch do not divide among the 3 subjects"):
        group_rows([4, 4, 4], 3, options)
    with pytest.raises(FmriModelsError, match="8 rows of a batch do not divide among the 3 subjects of the sources"):
        group_rows([4, 4, 4, 4], 1, options)
    with pytest.raises(FmriModelsError, match="does not divide among 3"):
        GroupedBatches([4, 4], [2, 2], seed=0, num_processes=3)
    with pytest.raises(FmriModelsError, match="none of the sources"):
        group_rows([4, 4], 1, TrainingOptions(steps=1, batch_size=1))
