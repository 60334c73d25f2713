from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from fmri_models.data import TrialTable
from fmri_models.data.loading import TrialDataset
from fmri_models.errors import FmriModelsError
from fmri_models.processing_fmri import FmriProcessor


def processor_of(table: TrialTable) -> FmriProcessor:
    trials = [table.trials(subject) for subject in table.subjects]
    rows = {part.subject: part.fmri() for part in trials}
    return FmriProcessor.fit(rows)


def targets_of(table: TrialTable) -> np.ndarray:
    return np.arange(len(table.stimuli) * 2, dtype=np.float32).reshape(-1, 2)


def test_batches_of_subjects_of_different_width(table_path: Path) -> None:
    table = TrialTable.open(table_path)
    processor = processor_of(table)
    trials = [table.trials(subject) for subject in table.subjects]
    data = TrialDataset(trials, processor, {"image_embeds": targets_of(table)}, table.stimuli.ids)
    assert len(data) == 64
    chosen = [40, 3, 63, 40]
    batch = data.__getitems__(chosen)
    assert batch["fmri"].shape == (4, 30) and batch["fmri"].dtype == torch.float32
    assert batch["subject_ids"].tolist() == [1, 0, 1, 1]
    assert batch["stimulus_ids"] == ["s08", "s03", "s15", "s08"]
    assert batch["image_embeds"].tolist() == [[16, 17], [6, 7], [30, 31], [16, 17]]
    for row, index in enumerate(chosen):
        alone = processor(trials[index // 32].fmri([index % 32]), subject=trials[index // 32].subject)["fmri"][0]
        torch.testing.assert_close(batch["fmri"][row], alone)


def test_a_loader_gives_each_trial_once(table_path: Path) -> None:
    table = TrialTable.open(table_path)
    data = TrialDataset(table.trials("subj01"), processor_of(table))
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
    with pytest.raises(FmriModelsError, match="'a' has 3 rows for 24 stimuli"):
        TrialDataset(table.trials("subj01"), dict, {"a": np.ones((3, 1))}, table.stimuli.ids)
    with pytest.raises(FmriModelsError, match=r"15 stimuli have no target \(s01, s02, s03 and 12 more\)"):
        TrialDataset(table.trials("subj01"), dict, {"a": np.ones((1, 1))}, table.stimuli.ids[:1])
