"""The section on transformers' Trainer runs as it stands there, with fewer rows."""

import torch

from fmri_models import FmriToImagePipeline, TrialTable
from tests.small_demo import blocks_of, save_small_demo


def test_the_section_on_the_trainer_of_transformers_runs(tmp_path, monkeypatch, repository):
    save_small_demo(tmp_path, monkeypatch)
    pipe = FmriToImagePipeline.from_pretrained("outputs/demo/pipeline")
    trials = TrialTable.open("outputs/demo/data").trials("subj01", "train")
    shape = pipe.brain_model.config.space("image_embedding_space").shape
    names = {
        "model": pipe.brain_model, "processor": pipe.processor, "trials": trials,
        "targets": torch.randn(len(trials), *shape),
    }  # fmt: skip
    block = next(each for each in blocks_of(repository / "docs" / "training.md") if "import Trainer" in each)
    exec(block.replace("64", "4"), names)
    assert names["trainer"].evaluate()["eval_loss"] > 0 and names["trainer"].state.best_metric > 0
