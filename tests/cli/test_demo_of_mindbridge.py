"""The demo of a method that trains several subjects together and adds another one, of whom there are few trials."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fmri_models import FmriToImagePipeline, TrialTable
from fmri_models.cli import demo
from fmri_models.registry import get_method

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

SIZE = demo.DemoSize(
    num_voxels=300, num_train=90, num_validation=24, num_test=24, num_inference_steps=2, num_candidates=1
)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("mindbridge")
    changes = ("stages.0.training.epochs=2", "stages.0.training.batch_size=32")
    done = demo.Demo(replace(get_method("mindbridge"), demo=changes), SIZE, out, seed=0)
    done.of_first_subjects()
    done.of_new_subject()
    return out


def test_both_reports_are_of_their_subjects(workplace):
    first, added = (json.loads((folder / "report.json").read_text()) for folder in (workplace, workplace / "subj04"))
    assert first["model"]["subjects"] == ["subj01", "subj02", "subj03"]
    assert set(added["results"]) == set(first["results"]) >= {"brain", "ridge", "ceiling"}
    assert {path.name for path in (workplace / "subj04" / "images").iterdir()} >= {"truth", "brain"}
    assert {path.name for path in (workplace / "images" / "brain").iterdir()} == {"subj01", "subj02", "subj03"}


def test_the_added_subject_has_100_trials_and_sees_the_same_test_pictures(workplace):
    tables = [TrialTable.open(workplace / "data"), TrialTable.open(workplace / "subj04" / "data")]
    assert tables[1].subjects == ["subj04"] and len(tables[1].trials("subj04", "train").stimulus_ids) == 100
    shown = [set(table.trials(table.subjects[0], "test").stimulus_ids) for table in tables]
    assert shown[0] == shown[1]


def test_the_pipeline_has_all_subjects_and_the_first_ones_decode_as_before(workplace):
    before, after = (
        FmriToImagePipeline.from_pretrained(folder / "pipeline") for folder in (workplace, workplace / "subj04")
    )
    assert after.processor.subject_names == ["subj01", "subj02", "subj03", "subj04"]
    fmri = TrialTable.open(workplace / "data").trials("subj02", "test").fmri([0, 1])
    decoded = []
    for pipeline in (before, after):
        inputs = pipeline.processor(fmri, subject="subj02", session=1)
        width = max(pipeline.brain_model.config.num_voxels)
        features = inputs["fmri"].new_zeros(2, width)
        features[:, : inputs["fmri"].shape[1]] = inputs["fmri"]
        decoded.append(pipeline.decode(features, inputs["subject_ids"]).image_embeds)
    assert decoded[0].shape == decoded[1].shape
    assert (decoded[0] - decoded[1]).abs().max() < 1e-5
