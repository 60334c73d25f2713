"""The page on adapters runs, block by block, on a pipeline and a table where the demo would have saved them."""

import re

import torch

from fmri_models import FmriProcessor, TrialTable
from fmri_models.generation.pixels import PixelsImageGenerator
from fmri_models.models.mindeye import MindEyeModel, MindEyePipeline
from tests import small_table
from tests.models.mindeye.test_modeling_mindeye import tiny_config


def test_the_page_on_adapters_runs(tmp_path, monkeypatch, repository):
    monkeypatch.setitem(small_table.NUM_VOXELS, "subj01", 20)
    monkeypatch.setenv("FMRI_MODELS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    table = TrialTable.open(small_table.write_small_table(tmp_path / "outputs" / "demo" / "data", ("subj01",)))
    trials = table.trials("subj01", "train")
    processor = FmriProcessor.fit({"subj01": trials.fmri()}, sessions={"subj01": trials.sessions})
    generator = PixelsImageGenerator(1, 12, 12)
    torch.manual_seed(0)
    config = tiny_config(
        subject_names=["subj01"],
        num_voxels=processor.num_voxels,
        image_embedding_space=generator.image_embedding_space.to_dict(),
        latent_space=generator.latent_space.to_dict(),
    )
    MindEyePipeline(MindEyeModel(config), processor, generator).save_pretrained("outputs/demo/pipeline")
    page = (repository / "docs" / "peft.md").read_text(encoding="utf-8")
    names: dict = {}
    for block in re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE):
        exec(block, names)
    saved = (tmp_path / "outputs" / "adapters").iterdir()
    assert sorted(path.name for path in saved if path.is_dir()) == ["subj01", "subj02"]
    assert not (tmp_path / "outputs" / "new_subject" / "config.json").exists()
