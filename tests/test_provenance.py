"""What lies beside a pipeline's weights goes when others take their place."""

import shutil
from pathlib import Path

import pytest
import torch

from fmri_models import FmriToImagePipeline
from fmri_models.examples import EXAMPLES_FOLDER
from fmri_models.training_record import CHANGED_LATER, TrainingRecord

_EXAMPLE = EXAMPLES_FOLDER / "linear-scenes"


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """A pipeline with its report."""
    shutil.copytree(_EXAMPLE, tmp_path / "example")
    return tmp_path / "example"


def changed() -> FmriToImagePipeline:
    pipeline = FmriToImagePipeline.from_pretrained(_EXAMPLE)
    with torch.no_grad():
        next(pipeline.brain_model.parameters()).mul_(2)
    return pipeline


def test_a_changed_pipeline_that_was_saved_elsewhere_leaves_no_older_report(example: Path, tmp_path: Path) -> None:
    assert (example / "report.json").is_file() and "model-index" in (example / "README.md").read_text()
    pipeline = changed()
    pipeline.save_pretrained(tmp_path / "elsewhere")
    for folder in (example, tmp_path / "third"):
        pipeline.save_pretrained(folder)
        assert "model-index" not in (folder / "README.md").read_text()
    assert not (example / "report.json").exists() and not (example / ".eval_results" / "fmri_models.yaml").exists()


def test_a_pipeline_that_was_never_loaded_leaves_no_report_and_a_record_with_doubt(example: Path) -> None:
    loaded = changed()
    made = FmriToImagePipeline.from_pretrained(_EXAMPLE)
    made = type(made)(loaded.brain_model, loaded.processor, loaded.image_generator)
    made.save_pretrained(example)
    assert not (example / "report.json").exists()
    record = TrainingRecord.load(example)
    assert record is not None and CHANGED_LATER in record.unknown_initial_models


def test_the_same_weights_keep_their_report(example: Path) -> None:
    before = (example / "report.json").read_bytes()
    loaded = FmriToImagePipeline.from_pretrained(example)
    type(loaded)(loaded.brain_model, loaded.processor, loaded.image_generator).save_pretrained(example)
    assert (example / "report.json").read_bytes() == before
    loaded.to(torch.bfloat16).save_pretrained(example)
    assert (example / "report.json").read_bytes() == before
