"""The row `ridge` of every report is what the recipe `linear` trains on the same table: the same pictures."""

from pathlib import Path

import numpy as np
import pytest

from fmri_models.data import TrialTable
from fmri_models.data.split_trials import SplitTrials
from fmri_models.data.splits import add_split, split_by_run
from fmri_models.evaluation.evaluate import evaluate
from fmri_models.names import file_name
from fmri_models.training.recipe import load_recipe
from fmri_models.training.trainer import train
from fmri_models.training_record import TrainingRecord
from tests import small_table

TINY = [
    "model.hidden_size=16", "model.projector_size=16", "model.token_components=null", "model.prior_num_layers=1",
    "model.prior_num_attention_heads=1", "model.prior_attention_head_dim=8", "model.prior_num_inference_steps=2",
    "model.low_level_hidden_size=16", "model.low_level_block_out_channels=[32,32]",
    "stages.0.objective.token_whitening=0",
    *(f"stages.{number}.training.{option}" for number in range(3)
      for option in ("epochs=null", "steps=1", "mixed_precision=no")),
]  # fmt: skip


def pictures(folder: Path, row: str, ids: list[str]) -> np.ndarray:
    from PIL import Image

    return np.stack([np.asarray(Image.open(folder / "images" / row / file_name(each, ".png"))) for each in ids])


@pytest.mark.slow
@pytest.mark.parametrize("design", ["few stimuli", "many stimuli", "stimuli in every run"])
def test_the_row_ridge_shows_the_pictures_of_the_recipe_linear(
    design: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if design == "many stimuli":
        monkeypatch.setitem(small_table.PARTS, "train", 100)
    data = small_table.write_small_table(tmp_path / "data", subjects=("subj02",))
    shared = [f"data={data}", "generator=pixels"]
    if design == "stimuli in every run":
        table = TrialTable.open(data)
        add_split(table, "runs", split_by_run(SplitTrials.of_table(table)))
        shared += ["split=runs", "processor.statistics=pooled"]
    for name, options in (("linear", []), ("mindeye", TINY)):
        train(load_recipe(name, [*shared, f"out={tmp_path / name}", *options]))
        report = evaluate(tmp_path / name, data, tmp_path / f"report-{name}", "small_pictures")
        unused = [note for note in report.notes if "learned from" in note and "validation" in note]
        if (name, design) == ("mindeye", "few stimuli") or design == "many stimuli":
            assert unused == ["Besides the test trials, 30 validation trials were not learned from (of 10 stimuli)."]
        else:
            assert unused == ["All training and validation trials of the split were learned from."]
    record = TrainingRecord.load(tmp_path / "linear")
    assert record is not None
    learned_from = record.stages[0]["learned_from"]["subj02"]
    expected = {
        "few stimuli": (["train", "validation"], 70, "stimulus"),
        "many stimuli": (["train"], 100, None),
        "stimuli in every run": (["train", "validation"], 164, "run"),
    }[design]
    assert (learned_from["parts"], learned_from["rows"], learned_from["leaves_out"]) == expected
    ids = TrialTable.open(data).trials("subj02", "test", record.split).stimulus_ids.tolist()
    ridge = pictures(tmp_path / "report-mindeye", "ridge", ids)
    assert np.array_equal(ridge, pictures(tmp_path / "report-linear", "brain", ids))
    assert not np.array_equal(ridge, pictures(tmp_path / "report-mindeye", "brain", ids))
