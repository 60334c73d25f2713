"""Weights in files: the same numbers as weights in memory, through fitting, saving and loading."""

import pytest
import torch
from torch import nn

from fmri_models import FmriToImagePipeline
from fmri_models.encoders.disk_backed import is_on_disk, move_to_disk, release_memory, save_sharded
from fmri_models.training import building
from fmri_models.training.recipe import load_recipe
from fmri_models.training.trainer import train
from tests.small_table import write_small_table


def test_parameters_keep_their_values_in_files(tmp_path):
    with torch.device("meta"):
        module = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    move_to_disk(module, tmp_path)
    assert is_on_disk(module)
    values = torch.randn(4, 3)
    with torch.no_grad():
        module[0].weight.copy_(values)
    release_memory(module[0])
    assert torch.equal(module[0].weight, values)
    assert (module[1].weight == 0).all()
    assert sorted(path.stat().st_size for path in tmp_path.iterdir()) == [8, 16, 32, 48]


def test_ordinary_modules_are_left_alone():
    module = nn.Linear(2, 2)
    release_memory(module)
    assert not is_on_disk(module)


def test_half_precision_takes_half_the_disk(tmp_path):
    with torch.device("meta"):
        module = nn.Linear(8, 16, bias=False)
    move_to_disk(module, tmp_path, torch.float16)
    assert module.weight.dtype == torch.float16
    assert [path.stat().st_size for path in tmp_path.iterdir()] == [256]


@pytest.mark.parametrize(("size", "files"), [("1KB", 3), ("1GB", 1)])
def test_shards(tmp_path, size, files):
    module = nn.Sequential(*(nn.Linear(10, 20) for _ in range(3)))
    save_sharded(module, tmp_path, size)
    assert len(list(tmp_path.glob("*.safetensors"))) == files
    assert (tmp_path / "model.safetensors.index.json").is_file() == (files > 1)


def test_a_model_trained_on_disk_is_the_one_trained_in_memory(tmp_path, monkeypatch):
    data = write_small_table(tmp_path / "data")

    def trained(name):
        overrides = [f"data={data}", f"out={tmp_path / name}", "generator=pixels", "model.targets_a_block=50"]
        train(load_recipe("linear", [*overrides, "max_shard_size=20KB"]))
        return FmriToImagePipeline.from_pretrained(tmp_path / name).brain_model

    in_memory = trained("memory")
    monkeypatch.setattr(building, "WEIGHTS_IN_MEMORY", 0)
    on_disk = trained("disk")
    assert (tmp_path / "disk" / "brain_model" / "model.safetensors.index.json").is_file()
    assert on_disk.config.penalties == in_memory.config.penalties
    for one, other in zip(on_disk.parameters(), in_memory.parameters(), strict=True):
        assert torch.equal(one, other)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "disk", "memory"]
