"""Recipes of published linear systems at a size that runs here, from a table to a report."""

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch

from fmri_models import FmriToImagePipeline, TrialTable
from fmri_models.encoders.selected_linear import SelectedLinear
from fmri_models.errors import FmriModelsError
from fmri_models.evaluation.evaluate import evaluate
from fmri_models.simulation import simulate
from fmri_models.training.recipe import load_recipe
from fmri_models.training.trainer import train
from tests.models.mindeye.test_digits69_mindeye import changed, prepared
from tests.small_table import write_small_table

PARTS = "stages.0.objective.parts"


@pytest.mark.parametrize(("name", "fewer"), [
    ("god_digits69", ["model.voxels_per_target=10", "stages.0.objective.parts.latents.iterations=10"]),
    ("dir_digits69", ["model.voxels_per_target=10"]),
])  # fmt: skip
def test_decoders_of_the_kamitani_lab(name: str, fewer: list[str], tmp_path: Path) -> None:
    data = write_small_table(tmp_path / "data", ("subj07",))
    train(load_recipe(name, [f"data={data}", f"out={tmp_path / 'out'}", *fewer]))
    pipeline = FmriToImagePipeline.from_pretrained(tmp_path / "out")
    (block,) = pipeline.brain_model.head("latents", "subj07").blocks
    assert isinstance(block, SelectedLinear) and block.indices.shape == (144, 10)
    assert pipeline.processor.ddof == 1 and pipeline.brain_model.config.parts["latents"]["standardise_targets"]
    report = evaluate(tmp_path / "out", data, tmp_path / "report", "small_pictures", rows=["mean_image"])
    assert report.results["brain"]["pixcorr"]["value"] > 0.6


def test_published_values_of_the_kamitani_lab() -> None:
    sparse, ridge = (load_recipe(name) for name in ("god_digits69", "dir_digits69"))
    assert sparse.stages[0].objective["parts"]["latents"]["solver"] == "sparse"
    assert sparse.stages[0].objective["parts"]["latents"]["iterations"] == 200
    assert ridge.model == {"voxels_per_target": 500} and ridge.stages[0].objective["penalties"] == [100]
    assert ridge.stages[0].objective["parts"]["latents"]["penalise_intercept"] is True
    for recipe in (sparse, ridge):
        assert recipe.repetitions == "single" and recipe.processor == {"statistics": "pooled", "ddof": 1}
        assert set(recipe.train_parts) == {"train", "validation"}


@pytest.mark.slow
def test_nothing_of_the_test_trials_is_learned_from(test_data: Path, tmp_path: Path) -> None:
    contents = scipy.io.loadmat(test_data / "data/digit69/digit69_28x28.mat")

    def weights(table: Path, out: str) -> dict[str, torch.Tensor]:
        train(load_recipe("dir_digits69", [f"data={table}", f"out={tmp_path / out}", "model.voxels_per_target=20"]))
        return FmriToImagePipeline.from_pretrained(tmp_path / out).brain_model.state_dict()

    first = weights(prepared(contents, tmp_path, "table"), "first")
    second = weights(prepared(changed(contents, "Test", slice(None)), tmp_path, "other_test"), "second")
    third = weights(prepared(changed(contents, "Trn", slice(1)), tmp_path, "other_training"), "third")
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not all(torch.equal(first[key], third[key]) for key in first)


@pytest.mark.slow
def test_another_subject_through_one_decoder(tmp_path: Path) -> None:
    data = simulate(
        "builtin:scenes", tmp_path / "data", num_subjects=2, num_voxels=80, num_train=120, num_validation=12,
        num_test=12, repetitions=1,
    )  # fmt: skip
    train(load_recipe("ferrante_cross_subject_scenes", [f"data={data}", f"out={tmp_path / 'out'}"]))
    pipeline = FmriToImagePipeline.from_pretrained(tmp_path / "out")
    known = pipeline.brain_model.config.alignment
    assert (known["to"], known["method"]) == ("subj01", "ridge") and known["stimuli"] >= 2
    assert set(pipeline.brain_model.config.penalties) == {"subj01"}
    trials = TrialTable.open(data).trials("subj02", "test")
    picture = pipe_picture(pipeline, trials)
    assert picture.shape == pipeline.image_generator.image_size and np.isfinite(picture).all()
    (note,) = pipeline.brain_model.config.notes_on_training
    assert "read by the decoder of subj01" in note


def pipe_picture(pipeline: FmriToImagePipeline, trials) -> np.ndarray:
    """What is drawn of the first test trial."""
    drawn = pipeline(trials.fmri([0]), subject="subj02", session=trials.sessions[0], output_type="pt").images
    return drawn[0].numpy()


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate(
        "builtin:scenes", tmp_path_factory.mktemp("scenes") / "data", num_subjects=1, num_voxels=200, num_train=240,
        num_validation=20, num_test=40, repetitions=1,
    )  # fmt: skip


@pytest.mark.parametrize(("name", "fewer", "layers"), [
    ("god_scenes", ["guides.units=20", "model.voxels_per_target=30", f"{PARTS}.guides.iterations=20"], 5),
    ("dir_scenes", ["guides.units=100", "model.voxels_per_target=100"], 5),
    ("takagi_tech_scenes", ["guides.0.layers=[fc4]", "guides.1.layers=[block4,image_embeds]"], 3),
    ("ferrante_semantic_scenes", [], 1),
])  # fmt: skip
def test_decoded_layers_of_scenes(name: str, fewer: list[str], layers: int, scenes: Path, tmp_path: Path) -> None:
    train(load_recipe(name, [f"data={scenes}", f"out={tmp_path / 'out'}", *fewer]))
    config = FmriToImagePipeline.from_pretrained(tmp_path / "out").brain_model.config
    assert len(config.guides) == layers
    report = evaluate(tmp_path / "out", scenes, tmp_path / "report")
    brain, exchanged = (report.results[row]["guide_identification"]["value"] for row in ("brain", "shuffled_brain"))
    assert brain > 0.62 and abs(exchanged - 0.5) < 0.13
    assert report.permutation["guide_identification"]["p"] < 0.05
    assert abs(report.permutation["guide_identification"]["mean"] - 0.5) < 0.03
    for found in report.guides.values():
        assert set(found["category_identification"]) == {"brain", "shuffled_brain"}


def test_published_values_of_decoders_of_layers() -> None:
    god, dir_, takagi, ferrante = (
        load_recipe(name) for name in ("god", "dir", "takagi_tech_nsd", "ferrante_semantic_god")
    )
    assert god.model == {"voxels_per_target": 1000} and god.guide_sources[0].units == 1000
    assert god.stages[0].objective["parts"]["guides"]["iterations"] == 200
    assert dir_.model == {"voxels_per_target": 500} and dir_.stages[0].objective["penalties"] == [100]
    assert len(dir_.guide_sources[0].layers_read) == 19 and dir_.guide_sources[0].units is None
    assert takagi.stages[0].objective["penalties"] == [10000, 20000, 40000]
    assert takagi.processor["rois"] == ["early", "ventral", "midventral", "midlateral", "lateral", "parietal"]
    assert [source.network for source in takagi.guide_sources] == ["vgg19", "dpt", "blip"]
    assert ferrante.stages[0].objective["penalties"] == [1000] and ferrante.guide_sources[0].layers_read == ["avgpool"]
    for recipe in (god, dir_):
        assert recipe.repetitions == "single" and recipe.processor == {"statistics": "pooled", "ddof": 1}


@pytest.mark.parametrize(("name", "network"), [
    ("god", "alexnet"), ("dir", "vgg19"), ("takagi_tech_nsd", "vgg19"), ("ferrante_semantic_god", "resnet50"),
])  # fmt: skip
def test_published_networks_need_their_weights(name: str, network: str, tmp_path: Path) -> None:
    with pytest.raises(FmriModelsError, match=f"The network {network} needs its weights, .*: weights in a recipe"):
        train(load_recipe(name, [f"data={tmp_path}", f"out={tmp_path / 'out'}"]))


@pytest.mark.slow
def test_layers_of_resnet50_on_fabricated_trials(tmp_path: Path) -> None:
    """The recipe of the published system with a network of its class, whose weights nobody has trained."""
    models = pytest.importorskip("torchvision").models
    torch.manual_seed(0)
    torch.save(models.resnet50().state_dict(), tmp_path / "resnet50.pth")
    data = write_small_table(tmp_path / "data", ("subj07",))
    given = [f"data={data}", f"out={tmp_path / 'out'}", f"guides.weights={tmp_path / 'resnet50.pth'}"]
    train(load_recipe("ferrante_semantic_god", [*given, "processor={statistics: pooled}"]))
    record = json.loads((tmp_path / "out" / "training.json").read_text())
    (source,) = record["recipe"]["guides"]
    assert str(tmp_path) not in json.dumps(record) and source["network"] == "resnet50"
    # Where the layers are kept, no weights are needed; elsewhere they are, and others are refused.
    report = evaluate(tmp_path / "out", data, tmp_path / "report")
    assert report.guides["resnet50.avgpool"]["units"] == 2048
