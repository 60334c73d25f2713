"""Examples of several tables as those of one model."""

import numpy as np
import pytest
import torch

from fmri_models.data import TrialTable
from fmri_models.data.joined import JoinedTrials, TablePart
from fmri_models.data.loading import TrialDataset
from fmri_models.data.processed import ProcessedTrials
from fmri_models.data.table_processor import fit_processor
from fmri_models.errors import FmriModelsError
from tests.small_table import write_small_table

NAMES = ["subj02", "other.subj07"]


def data_of(table, repetitions="average", **most):
    processor = fit_processor(table, table.subjects)
    trials = [ProcessedTrials(table.trials(name), processor, repetitions, **most) for name in table.subjects]
    targets = np.arange(len(table.stimuli.ids) * 2, dtype=np.float32).reshape(-1, 2)
    return TrialDataset(trials, {"image_embeds": targets}, table.stimuli.ids)


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    first = write_small_table(folder / "first", ("subj02",))
    second = write_small_table(folder / "second", ("subj07",), name="other", first_picture=10)
    return TrialTable.open(first), TrialTable.open(second)


def joined_of(tables, labels=False, **options):
    parts = []
    for number, table in enumerate(tables):
        data = data_of(table, **options)
        hashes = dict(zip(table.stimuli.ids, table.stimuli.content_hashes(), strict=True)) if labels else {}
        parts.append(TablePart(data, {"subj07": "other.subj07"} if number else {}, hashes))
    return JoinedTrials(parts, NAMES, 60), parts


def test_rows_are_those_of_their_tables_in_the_order_asked_for(tables):
    joined, (first, second) = joined_of(tables)
    assert len(joined) == 120 and joined.subject_sizes == [60, 60] and joined.num_own == 1
    asked = [70, 3, 119, 0, 60]
    batch = joined.__getitems__(asked)
    assert batch["subject_ids"].tolist() == [1, 0, 1, 0, 1] and batch["fmri"].shape == (5, 60)
    for row, place in enumerate(asked):
        own = (first if place < 60 else second).data[place % 60]
        width = own["fmri"].shape[1]
        assert torch.equal(batch["fmri"][row, :width], own["fmri"][0]) and not batch["fmri"][row, width:].any()
        assert torch.equal(batch["image_embeds"][row], own["image_embeds"][0])
        assert batch["stimulus_ids"][row] == own["stimulus_ids"][0]
    assert joined[5]["subject_ids"].tolist() == [0]
    assert joined.distinct_targets("image_embeds").shape == (120, 2) and joined.distinct_targets("latents") is None
    with pytest.raises(IndexError, match="rows 120 to 120 of 120"):
        joined[120]


def test_pictures_are_known_by_what_they_show(tables):
    """The same ids are other pictures in the second table."""
    by_id, by_content = (joined_of(tables, labels)[0].__getitems__(range(120))["stimulus"] for labels in (False, True))
    assert len(set(by_id.tolist())) == 120
    assert len(set(by_content.tolist())) == 70 and by_content[10] == by_content[60] and by_content[0] != by_content[60]


def test_repetitions_are_as_many(tables):
    first = data_of(tables[0], "all")
    second = data_of(tables[1], "all", repetitions_an_example=2)
    joined = JoinedTrials([TablePart(first), TablePart(second, {"subj07": "other.subj07"})], NAMES, 60)
    batch = joined.__getitems__([0, 60])
    assert batch["fmri"].shape == (2, 3, 60) and torch.equal(batch["fmri"][1, 2], batch["fmri"][1, 0])


def test_processors_are_joined(tables):
    first, second = (fit_processor(table, table.subjects) for table in tables)
    both = first.with_subjects_of(second)
    assert both.subject_names == ["subj02", "subj07"] and both.num_voxels == [45, 60]
    fmri = np.random.default_rng(0).normal(size=(2, 60)).astype(np.float32)
    np.testing.assert_array_equal(both(fmri, subject="subj07")["fmri"], second(fmri, subject="subj07")["fmri"])
    assert first.subject_names == ["subj02"]
    with pytest.raises(FmriModelsError, match="'subj07' already"):
        both.with_subjects_of(second)
    with pytest.raises(FmriModelsError, match="statistics="):
        first.with_subjects_of(fit_processor(tables[1], ["subj07"], statistics="session"))
