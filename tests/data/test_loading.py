from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from fmri_models.data import TrialTable
from fmri_models.data.batches import SeededBatches, ordered_batches, training_batches
from fmri_models.data.loading import TrialDataset, gradient_trials
from fmri_models.data.processed import ProcessedTrials, processed_subjects
from fmri_models.data.targets import cached_targets
from fmri_models.errors import FmriModelsError
from fmri_models.generation.loading import load_image_generator
from fmri_models.processing_fmri import FmriProcessor


def processor_of(table: TrialTable) -> FmriProcessor:
    return FmriProcessor.fit({subject: table.trials(subject).fmri() for subject in table.subjects})


def rows_of(table: TrialTable, **options) -> list[ProcessedTrials]:
    processor = processor_of(table)
    return [ProcessedTrials(table.trials(subject), processor, **options) for subject in table.subjects]


def targets_of(table: TrialTable) -> np.ndarray:
    return np.arange(len(table.stimuli) * 2, dtype=np.float16).reshape(-1, 2)


def test_batches_of_subjects_of_different_width(table_path: Path) -> None:
    table = TrialTable.open(table_path)
    processor = processor_of(table)
    trials = [table.trials(subject) for subject in table.subjects]
    rows = rows_of(table, repetitions="single")
    data = TrialDataset(rows, {"image_embeds": targets_of(table)}, table.stimuli.ids, {"image_embeds": (1, 2)})
    assert len(data) == 64
    chosen = [40, 3, 63, 40]
    batch = data.__getitems__(chosen)
    assert batch["fmri"].shape == (4, 30) and batch["fmri"].dtype == torch.float32
    assert batch["subject_ids"].tolist() == [1, 0, 1, 1]
    assert batch["stimulus_ids"] == ["s08", "s03", "s15", "s08"]
    assert batch["image_embeds"].dtype == torch.float32
    assert batch["image_embeds"].tolist() == [[[16, 17]], [[6, 7]], [[30, 31]], [[16, 17]]]
    for row, index in enumerate(chosen):
        alone = processor(trials[index // 32].fmri([index % 32]), subject=trials[index // 32].subject)["fmri"][0]
        torch.testing.assert_close(batch["fmri"][row], alone)


def test_rows_of_a_split_with_their_pictures(table_path: Path) -> None:
    table = TrialTable.open(table_path)
    generator = load_image_generator("pixels", (3, 8, 8))
    data = gradient_trials(table, processor_of(table), generator, ["latents"], ["train"])
    assert len(data) == sum(len(set(table.trials(subject).stimulus_ids)) for subject in table.subjects)
    batch = data.__getitems__([0, len(data) - 1])
    assert batch["latents"].shape == (2, *generator.latent_space.shape)
    cached = cached_targets(table, generator, "latents")[table.stimuli.positions(batch["stimulus_ids"])]
    assert np.array_equal(batch["latents"].flatten(1).numpy(), cached)


def test_rows_hold_all_repetitions_of_their_stimulus(table_path: Path) -> None:
    table = TrialTable.open(table_path)
    processor = processor_of(table)
    parts, most = ["train", "validation"], 2
    subjects = processed_subjects(table, processor, parts, repetitions="all")
    data = TrialDataset(subjects)
    batch = data.__getitems__(range(len(data)))
    assert batch["fmri"].shape == (len(data), most, processor.width)
    fewer = 0
    for row, stimulus in enumerate(batch["stimulus_ids"]):
        subject = table.subjects[batch["subject_ids"][row]]
        trials = table.trials(subject, parts)
        own = np.flatnonzero(trials.stimulus_ids == stimulus)
        expected = processor(trials.fmri(own), subject=subject)["fmri"]
        # A stimulus with fewer repetitions goes through its own again.
        torch.testing.assert_close(batch["fmri"][row], expected[torch.arange(most) % len(own)])
        fewer += len(own) < most
    assert 0 < fewer < len(data)


def test_distinct_targets_are_those_of_the_rows_once(table_path: Path) -> None:
    table = TrialTable.open(table_path)
    values = np.random.default_rng(0).standard_normal((len(table.stimuli), 2)).astype(np.float16)
    subjects = rows_of(table, repetitions="single")
    shown = sorted({str(stimulus) for rows in subjects for stimulus in rows.stimulus_ids})
    found = TrialDataset(subjects, {"image_embeds": values}, table.stimuli.ids).distinct_targets("image_embeds")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, values[table.stimuli.positions(shown)])
    assert TrialDataset(subjects).distinct_targets("image_embeds") is None


def test_a_loader_gives_each_row_once(table_path: Path) -> None:
    table = TrialTable.open(table_path)
    data = TrialDataset(rows_of(table, repetitions="single")[:1])
    loader = DataLoader(data, batch_size=10, shuffle=True, collate_fn=TrialDataset.collate)
    batches = list(loader)
    assert [len(batch["stimulus_ids"]) for batch in batches] == [10, 10, 10, 2]
    shown = sorted(stimulus for batch in batches for stimulus in batch["stimulus_ids"])
    assert shown == sorted(table.trials("subj01").stimulus_ids.tolist())
    assert data[5]["stimulus_ids"] == ["s05"]
    with pytest.raises(IndexError):
        data[32]


def test_targets_have_to_fit(table_path: Path) -> None:
    table = TrialTable.open(table_path)
    rows = rows_of(table)[:1]
    with pytest.raises(FmriModelsError, match="'a' has 3 rows for 24 stimuli"):
        TrialDataset(rows, {"a": np.ones((3, 1))}, table.stimuli.ids)
    with pytest.raises(FmriModelsError, match=r"15 stimuli have no target \(s01, s02, s03 and 12 more\)"):
        TrialDataset(rows, {"a": np.ones((1, 1))}, table.stimuli.ids[:1])


def take(batches: SeededBatches, count: int) -> list[list[int]]:
    return [rows for rows, _ in zip(batches, range(count), strict=False)]


def test_each_epoch_has_an_order_of_its_own_and_drops_its_incomplete_batch() -> None:
    batches = SeededBatches(10, 4, seed=3)
    assert (batches.batches_an_epoch, batches.examples_a_batch) == (2, 4)
    first, second = ([*chain.from_iterable(part)] for part in (take(batches, 4)[:2], take(batches, 4)[2:]))
    assert len(set(first)) == len(set(second)) == 8 and first != second
    assert take(SeededBatches(10, 4, seed=4), 4) != take(batches, 4)


def test_rows_fewer_than_a_batch_are_one_batch() -> None:
    batches = SeededBatches(3, 8, seed=0)
    assert batches.batches_an_epoch == 1
    assert [sorted(rows) for rows in take(batches, 2)] == [[0, 1, 2]] * 2


@given(
    st.integers(min_value=2, max_value=40),
    st.integers(min_value=1, max_value=10),
    st.integers(min_value=0, max_value=30),
    st.integers(min_value=1, max_value=2),
)
def test_batches_go_on_from_anywhere_and_are_shared_by_processes(
    rows: int, half_batch: int, first: int, processes: int
) -> None:
    size = half_batch * 2
    whole = take(SeededBatches(rows, size, seed=1), first + 3)[first:]
    parts = [take(SeededBatches(rows, size, 1, first, process, processes), 3) for process in range(processes)]
    if processes == 2 and rows < size and rows % 2:
        whole = [batch[:-1] for batch in whole]
    assert [[*chain.from_iterable(slices)] for slices in zip(*parts, strict=True)] == whole
    assert len({len(slices[0]) for slices in parts}) == 1


def test_batches_that_do_not_divide_are_a_sentence() -> None:
    with pytest.raises(FmriModelsError, match="batch size 9 .* does not divide among 2"):
        SeededBatches(100, 9, seed=0, num_processes=2)
    with pytest.raises(FmriModelsError, match="1 rows to learn from for 2 processes"):
        SeededBatches(1, 8, seed=0, num_processes=2)


def test_training_batches_follow_their_order(table_path: Path) -> None:
    table = TrialTable.open(table_path)
    data = TrialDataset(rows_of(table))
    order = SeededBatches(len(data), 6, seed=5)
    ids = [str(stimulus) for rows in data.subjects for stimulus in rows.stimulus_ids]
    batches = training_batches(data, order)
    for rows in take(order, 12):
        assert next(batches)["stimulus_ids"] == [ids[row] for row in rows]


def test_processes_share_ordered_batches(table_path: Path) -> None:
    data = TrialDataset(rows_of(TrialTable.open(table_path)))
    parts = [list(ordered_batches(data, 5, process, 2)) for process in (0, 1)]
    joined = sorted([*parts[0], *parts[1]], key=lambda batch: batch["number"])
    assert [batch["number"] for batch in parts[1]] == list(range(1, len(joined), 2))
    shown = [stimulus for batch in joined for stimulus in batch["stimulus_ids"]]
    assert shown == [str(stimulus) for rows in data.subjects for stimulus in rows.stimulus_ids]
