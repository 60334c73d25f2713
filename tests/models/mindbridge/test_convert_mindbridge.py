"""Published checkpoints of MindBridge: of one subject, several, and with an adapted one, and what is no such file."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from fmri_models import FmriToImagePipeline
from fmri_models.cli.main import main
from fmri_models.conversion_record import ConversionRecord
from fmri_models.errors import FmriModelsError
from fmri_models.hub.convert import convert_checkpoint
from fmri_models.models.mindbridge import MindBridgeModel
from fmri_models.models.mindbridge.published_mindbridge import convert
from fmri_models.provenance import check_origin_may_be_shared
from fmri_models.registry import list_pretrained
from fmri_models.training.earlier_trainings import earlier_trainings
from fmri_models.training.recipe import load_recipe

WIDTH, HIDDEN, BETWEEN = 16, 8, 4


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))) * 0.3


def layer(name: str, *shape: int) -> dict[str, torch.Tensor]:
    return {f"{name}.weight": random(*shape), f"{name}.bias": random(shape[0])}


def adapter(name: str) -> dict[str, torch.Tensor]:
    return layer(f"{name}.down_proj", BETWEEN, WIDTH) | layer(f"{name}.up_proj", WIDTH, BETWEEN)


def published(
    subjects: tuple[str, ...] = ("1", "2"), builders: bool = True, image: int = 3 * 768, text: int = 2 * 768
) -> dict[str, torch.Tensor]:
    """A state dict by the published names."""
    state: dict[str, torch.Tensor] = {}
    for number in subjects:
        name = f"embedder.{number}"
        state |= adapter(f"{name}.0") | layer(f"{name}.1", HIDDEN, WIDTH) | layer(f"{name}.2", HIDDEN)
    for number in subjects if builders else ():
        name = f"builder.{number}"
        state |= layer(f"{name}.0", WIDTH, HIDDEN) | layer(f"{name}.1", WIDTH) | adapter(f"{name}.3")
    for block in range(2):
        state |= layer(f"translator.mlp.{block}.0", HIDDEN, HIDDEN) | layer(f"translator.mlp.{block}.1", HIDDEN)
    return state | layer("head_image", image, HIDDEN) | layer("head_text", text, HIDDEN)


def saved(folder: Path, state: dict[str, torch.Tensor], **others: Any) -> Path:
    torch.save({"epoch": 599, "model_state_dict": state, **others}, folder / "last.pth")
    return folder / "last.pth"


class TestReading:
    def test_one_subject_and_sizes_are_inferred(self, tmp_path):
        # Files of before July 2024 hold the training's state besides.
        optimizer = {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 1e-4}]}
        path = saved(tmp_path, published(("7",), builders=False), optimizer_state_dict=optimizer, lrs=[1e-4])
        config = MindBridgeModel.from_original(path).config
        assert (config.subject_names, config.num_voxels, config.use_builders) == (["subj07"], [WIDTH], False)
        assert (config.hidden_size, config.num_hidden_layers, config.adapter_size) == (HIDDEN, 2, BETWEEN)
        assert config.image_embedding_space["shape"] == [3, 768]
        assert config.text_embedding_space["shape"] == [2, 768]

    def test_several_subjects_and_an_adapted_one_keep_their_order(self, tmp_path):
        model = MindBridgeModel.from_original(saved(tmp_path, published(("1", "2", "5", "7"))))
        assert model.config.subject_names == ["subj01", "subj02", "subj05", "subj07"]
        assert model.builders is not None and not model.training
        assert torch.equal(model.builders["subj05"].linear.weight, published(("5",))["builder.5.0.weight"])

    def test_some_subjects_are_kept_or_all_renamed(self):
        state = published(("1", "2", "5"))
        alone = MindBridgeModel.from_original(state, subject_names=["subj05"], use_builders=False)
        assert alone.config.subject_names == ["subj05"] and alone.builders is None
        swapped = MindBridgeModel.from_original(state, subject_names=["subj05", "subj01"])
        fmri = random(1, WIDTH)
        everybody = MindBridgeModel.from_original(state)
        for model in (alone, swapped):
            torch.testing.assert_close(model(fmri, "subj05").image_embeds, everybody(fmri, "subj05").image_embeds)
        renamed = MindBridgeModel.from_original(state, subject_names=["a.b", "c", "1"])
        torch.testing.assert_close(renamed(fmri, "1").image_embeds, everybody(fmri, "subj05").image_embeds)
        torch.testing.assert_close(renamed(fmri, "a.b").image_embeds, everybody(fmri, "subj01").image_embeds)

    @pytest.mark.parametrize("names", [["subj09"], ["subj01", "new"], [], "subj01", [3]])
    def test_other_numbers_of_names_are_a_sentence(self, names):
        with pytest.raises(FmriModelsError, match="has the subjects subj01, subj02; give as subject_names"):
            MindBridgeModel.from_original(published(), subject_names=names)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda state: {**state, "extra.weight": torch.zeros(1)}, "unknown extra.weight"),
            (lambda state: _without(state, "builder.2.1.bias"), "lacks builder.2.1.bias"),
            (lambda state: _without(state, "head_text.bias"), "lacks head_text.bias"),
            (lambda state: _without(state, "embedder.2.1.weight"), "lacks embedder.2.1.weight"),
            (lambda state: {**state, "embedder.1.1.weight": torch.zeros(3)}, "embedder.1.1.weight"),
            (lambda state: {**state, "builder.9.0.weight": torch.zeros(3, 3)}, "unknown builder.9.0.weight"),
            (lambda state: state | published(("01",)), "subjects '1' and '01', which both are subj01"),
            (lambda state: {key: each for key, each in state.items() if "head" not in key}, "lacks both heads"),
            (lambda state: {"lin0.0.weight": torch.zeros(3, 4)}, "no embedder of a subject"),
            (lambda state: {**state, "head_image.bias": torch.full((3 * 768,), torch.nan)}, "NaN or infinite"),
            (lambda state: {**state, "head_image.bias": torch.zeros(5)}, "head_image.bias of the checkpoint has shape"),
        ],
    )
    def test_what_does_not_fit_is_named(self, change, message):
        with pytest.raises(FmriModelsError, match=message):
            MindBridgeModel.from_original(change(published()))

    def test_nothing_in_a_file_is_run(self, tmp_path):
        class Hostile:
            def __reduce__(self) -> Any:
                return (Path.touch, (tmp_path / "ran",))

        torch.save({"model_state_dict": published(), "args": Hostile()}, tmp_path / "last.pth")
        with pytest.raises(FmriModelsError):
            MindBridgeModel.from_original(tmp_path / "last.pth")
        assert not (tmp_path / "ran").exists()


def _without(state: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    return {key: value for key, value in state.items() if key != name}


class TestConversion:
    def test_it_becomes_a_pipeline_that_decodes(self, tmp_path, capsys):
        path = saved(tmp_path, published())
        assert main(["convert", "mindbridge", str(path), "--out", str(tmp_path / "out")]) == 0
        pipeline = FmriToImagePipeline.from_pretrained(tmp_path / "out")
        inputs = pipeline.processor(np.random.default_rng(0).normal(size=(2, WIDTH)), subject="subj02")
        decoding = pipeline.decode(inputs["fmri"], inputs["subject_ids"])
        assert decoding.image_embeds.shape == (2, 3, 768) and decoding.text_embeds.shape == (2, 2, 768)
        card = (tmp_path / "out" / "README.md").read_text()
        assert "reserve all rights" in card and "license_name: not-stated" in card

    def test_the_published_width_is_pooled_from_the_voxels_of_nsd(self, monkeypatch):
        from fmri_models.models.mindbridge import published_mindbridge

        monkeypatch.setattr(published_mindbridge, "_PUBLISHED_WIDTH", WIDTH)
        found = convert(published(("1", "7"), image=257 * 768, text=77 * 768))
        assert found.num_voxels == {"subj01": 15724, "subj07": 12682}
        assert found.processor_options == {"pool_width": WIDTH}
        assert found.image_generator["name"] == "versatile_diffusion"
        assert set(found.image_generator["spaces"]) == {"image_embedding_space", "text_embedding_space"}
        assert found.drawing_settings["num_candidates"] == 8

    def test_a_low_level_checkpoint_is_none(self, tmp_path):
        with pytest.raises(FmriModelsError, match="no low-level branch"):
            convert_checkpoint("mindbridge", saved(tmp_path, published()), tmp_path / "out", tmp_path / "last.pth")


class TestRights:
    """The authors state no licence: what is made of their files is not passed on without their permission."""

    @pytest.fixture
    def converted(self, tmp_path) -> Path:
        convert_checkpoint("mindbridge", saved(tmp_path, published()), tmp_path / "out")
        return tmp_path / "out"

    def pushed(self, folder: Path, *options: str, capsys: Any) -> tuple[int, str]:
        code = main(["push", str(folder), "user/name", "--dry-run", *options])
        return code, capsys.readouterr().err

    def test_push_refuses_the_pipeline_and_its_model(self, converted, capsys):
        assert not ConversionRecord.load(converted).may_be_shared
        for folder, options in ((converted, ["--unevaluated"]), (converted / "brain_model", [])):
            code, told = self.pushed(folder, *options, capsys=capsys)
            assert code == 1 and "reserve all rights" in told
            assert self.pushed(folder, *options, "--permission", "letter of 3 March 2026", capsys=capsys)[0] == 0

    def test_python_refuses_too(self, converted):
        pipeline = FmriToImagePipeline.from_pretrained(converted)
        for each in (pipeline, pipeline.brain_model):
            with pytest.raises(FmriModelsError, match="reserve all rights"):
                each.push_to_hub("user/name")

    def test_what_is_trained_from_them_is_refused_too(self, converted, tmp_path):
        recipe = load_recipe("mindbridge", [f"initial_model={converted}", "data=nowhere", f"out={tmp_path / 'new'}"])
        table: Any = None
        reserved = earlier_trainings(recipe, table).reserved
        assert len(reserved) == 1
        record: Any = SimpleNamespace(reserved_initial_models=reserved)
        with pytest.raises(FmriModelsError, match="was trained from .*reserve all rights"):
            check_origin_may_be_shared(None, record, "The pipeline", None)
        check_origin_may_be_shared(None, record, "The pipeline", "letter of 3 March 2026")

    def test_records_of_before_may_be_shared(self, converted):
        record = json.loads((converted / "conversion.json").read_text())
        del record["may_be_shared"]
        (converted / "conversion.json").write_text(json.dumps(record))
        assert ConversionRecord.load(converted).may_be_shared

    def test_the_list_says_so(self, capsys):
        (record,) = [each for each in list_pretrained() if each.name == "mindbridge-nsd-subj1257"]
        assert not record.may_be_shared and record.license == ""
        assert main(["list", "pretrained"]) == 0
        assert "not to be passed on" in capsys.readouterr().out
