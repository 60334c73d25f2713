"""A small pipeline and table where the demo saves its own, for the code of the documentation."""

import re
from pathlib import Path

import pytest
import torch

from fmri_models import FmriProcessor, TrialTable
from fmri_models.generation.pixels import PixelsImageGenerator
from fmri_models.models.mindeye import MindEyeModel, MindEyePipeline
from tests import small_table
from tests.models.mindeye.test_modeling_mindeye import tiny_config

DRAWING = {"num_inference_steps": 6, "strength": 0.8}
NUM_VOXELS = 20


def save_small_demo(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Saves both below `folder / "outputs/demo"`, and makes it the working directory."""
    monkeypatch.setitem(small_table.NUM_VOXELS, "subj01", NUM_VOXELS)
    monkeypatch.setenv("FMRI_MODELS_CACHE", str(folder / "cache"))
    monkeypatch.chdir(folder)
    table = TrialTable.open(small_table.write_small_table(folder / "outputs" / "demo" / "data", ("subj01",)))
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
    # As the demo's own, it draws otherwise than its image generator's class does.
    pipe = MindEyePipeline(MindEyeModel(config), processor, generator, drawing_settings=DRAWING)
    pipe.save_pretrained("outputs/demo/pipeline")


def blocks_of(page: Path) -> list[str]:
    """The code in Python of a page, in its order."""
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
