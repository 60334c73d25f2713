"""transformers' Auto classes and diffusers' generic loader know the package once it is imported, in whichever order."""

import subprocess
import types

import pytest
import torch

from fmri_models import FmriPreTrainedModel, FmriProcessor, FmriToImagePipeline, LinearConfig, LinearModel
from fmri_models.errors import FmriModelsError
from fmri_models.late import CompletedDict, when_imported
from fmri_models.library_registration import register_with_transformers
from fmri_models.registry import get_method, method_names
from tests.models.linear import test_pipeline_linear
from tests.new_process import python

SPACE = {"encoder": "pixels", "layer": "latent", "shape": [1, 8, 8], "normalisation": "[0, 1]"}
PROGRAM = """
{imports}
folder = {folder!r}
config = AutoConfig.from_pretrained(folder, subfolder="brain_model")
print(type(config).__name__, type(AutoConfig.for_model("fmri-linear")).__name__)
print(type(AutoModel.from_config(config)).__name__)
print(type(AutoModel.from_pretrained(folder + "/brain_model")).__name__)
print(type(AutoModel.from_pretrained(folder, subfolder="brain_model", dtype="auto")).__name__)
for auto_class in (AutoFeatureExtractor, AutoProcessor):
    print(type(auto_class.from_pretrained(folder + "/processor")).__name__)
    print(type(auto_class.from_pretrained(folder, subfolder="processor")).__name__)
print(sorted(each for each in AutoConfig.register.__globals__["CONFIG_MAPPING"] if each.startswith("fmri-")))
"""
AUTO = "from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoProcessor"
ORDERS = {
    "package first": f"import fmri_models\nassert 'transformers' not in __import__('sys').modules\n{AUTO}",
    "transformers first": f"{AUTO}\nimport fmri_models",
    "a model of transformers first": f"from transformers import BertModel\nimport fmri_models\n{AUTO}",
    "diffusers first": f"import diffusers.pipelines.pipeline_utils\nimport fmri_models\n{AUTO}",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("auto") / "pipeline"
    test_pipeline_linear.TestLinearPipeline().make_pipeline().save_pretrained(place)
    return place


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
def test_auto_classes_know_the_package(folder, order):
    program = PROGRAM.format(imports=ORDERS[order], folder=str(folder))
    finished = subprocess.run([*python(), "-c", program], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    *found, listed = finished.stdout.splitlines()
    assert found == ["LinearConfig LinearConfig", *["LinearModel"] * 3, *["FmriProcessor"] * 4]
    assert listed == str(sorted(get_method(name).load("config").model_type for name in method_names()))


def test_native_types_ask_nothing_of_the_package():
    program = """
import sys, fmri_models
from transformers import AutoConfig
AutoConfig.for_model("bert")
print([name for name in sys.modules if name.startswith("fmri_models.models.") and "configuration" in name])
"""
    finished = subprocess.run([*python(), "-c", program], capture_output=True, text=True)
    assert finished.stdout == "[]\n", finished.stderr


@pytest.mark.slow
@pytest.mark.parametrize("first", ["import fmri_models\n", "import diffusers\nimport fmri_models\n"])
def test_the_generic_loader_of_diffusers_knows_the_pipelines(folder, first):
    program = f"""{first}
import torch
from diffusers import DiffusionPipeline
pipeline = DiffusionPipeline.from_pretrained({str(folder)!r}, dtype=torch.bfloat16)
print(type(pipeline).__name__, pipeline.dtype, pipeline.image_generator.dtype)
print(type(DiffusionPipeline.from_pretrained({str(folder / "image_generator")!r})).__name__)
import diffusers
print(hasattr(diffusers, "NoPipeline"), diffusers.StableDiffusionPipeline.__module__.split(".")[0])
"""
    finished = subprocess.run([*python(), "-c", program], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.splitlines() == [
        "LinearPipeline torch.bfloat16 torch.bfloat16",
        "PixelsImageGenerator",
        "False diffusers",
    ]


def test_the_generic_loader_reads_what_lies_beside(folder, tmp_path):
    from diffusers import DiffusionPipeline

    from fmri_models.training_record import TrainingRecord

    pipeline = FmriToImagePipeline.from_pretrained(folder)
    (tmp_path / "a").mkdir()
    pipeline.image_generator.save_pretrained(tmp_path / "a" / "generator")
    named = type(pipeline)(
        pipeline.brain_model, pipeline.processor, image_generator_source=str(tmp_path / "a" / "generator")
    )
    named.save_pretrained(tmp_path / "a" / "pipeline")
    record = TrainingRecord("linear", "t", "0" * 64, "default", 0, ["train"], "average")
    record.save(tmp_path / "a" / "pipeline")
    (tmp_path / "a").rename(tmp_path / "b")
    loaded = DiffusionPipeline.from_pretrained(tmp_path / "b" / "pipeline")
    assert loaded.image_generator_source.repository == str(tmp_path / "b" / "generator")
    assert loaded.training_record.table == "t"
    assert type(loaded).from_pipe(loaded).training_record.table == "t"


def test_any_brain_model_is_loaded_by_the_base_class(folder):
    assert isinstance(FmriPreTrainedModel.from_pretrained(folder, subfolder="brain_model"), LinearModel)


@pytest.mark.parametrize(
    ("loader", "subfolder", "message"),
    [
        (
            "MindEyeModel",
            "brain_model",
            "holds a LinearModel and no MindEyeModel; load it with LinearModel or AutoModel",
        ),
        ("LinearModel", "processor", "is a processor, which FmriProcessor.from_pretrained loads"),
        ("LinearModel", "image_generator", "which PixelsImageGenerator.from_pretrained loads"),
        ("LinearModel", "", "is a whole pipeline; load its model with subfolder='brain_model'"),
        ("FmriToImagePipeline", "brain_model", "is a network .LinearModel., which LinearModel.from_pretrained loads"),
        ("FmriToImagePipeline", "processor", "is a processor, which FmriProcessor.from_pretrained loads"),
        ("FmriToImagePipeline", "image_generator", "holds an image generator .PixelsImageGenerator."),
        ("MindEyePipeline", "", "holds a LinearPipeline, not a MindEyePipeline"),
        ("PixelsImageGenerator", "", "is a LinearPipeline and no .*there with subfolder='image_generator'"),
        ("EmbeddedImageGenerator", "image_generator", "is a PixelsImageGenerator and no Emb.*load it by its own class"),
        ("FmriProcessor", "brain_model", "is a network without a processor"),
    ],
)
def test_the_wrong_class_for_a_folder_names_the_right_one(folder, loader, subfolder, message):
    import fmri_models

    with pytest.raises(FmriModelsError, match=message) as caught:
        getattr(fmri_models, loader).from_pretrained(folder / subfolder)
    assert "again" not in str(caught.value) and "damaged" not in str(caught.value)


def test_a_folder_of_another_packages_method_says_to_import_it(folder, tmp_path):
    import json
    import shutil

    shutil.copytree(folder, tmp_path / "p")
    index = tmp_path / "p" / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "_class_name": "OtherPipeline"}))
    with pytest.raises(
        FmriModelsError, match="if another package has the method, install or import that package first"
    ):
        FmriToImagePipeline.from_pretrained(tmp_path / "p")
    config = tmp_path / "p" / "brain_model" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "model_type": "other"}))
    for loader in (LinearModel, FmriPreTrainedModel):
        with pytest.raises(
            FmriModelsError, match="if another package has the method, install or import that package first"
        ):
            loader.from_pretrained(tmp_path / "p" / "brain_model")


def test_a_module_is_told_now_or_when_it_comes(tmp_path, monkeypatch):
    (tmp_path / "comes_later.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    told: list[types.ModuleType] = []
    when_imported("comes_later", told.append)
    when_imported("comes_later", told.append)
    assert told == []
    import comes_later  # type: ignore[import-not-found]

    assert told == [comes_later, comes_later] and comes_later.value == 1
    when_imported("comes_later", told.append)
    assert len(told) == 3


def test_a_dictionary_is_completed_when_it_is_read():
    asked = []

    def complete() -> None:
        asked.append(len(found))
        found["b"] = 2

    found = CompletedDict({"a": 1}, complete, lambda key: key == "known")
    assert "a" in found and "known" not in found and found["a"] == 1 and asked == []
    assert "c" not in found and found["b"] == 2 and dict(found) == {"a": 1, "b": 2} and asked


def test_registering_twice_changes_nothing():
    from transformers import AutoModel

    register_with_transformers()
    register_with_transformers()
    made = AutoModel.from_config(LinearConfig(subject_names=["a"], num_voxels=[3], latent_space=SPACE))
    assert isinstance(made, LinearModel) and made.dtype == torch.float32


def test_an_unfitted_processor_travels_in_a_pipeline(folder, tmp_path):
    fitted = FmriToImagePipeline.from_pretrained(folder)
    for options in ({}, {"subject_names": fitted.processor.subject_names}):
        pipeline = type(fitted)(fitted.brain_model, FmriProcessor(**options), fitted.image_generator)
        pipeline.save_pretrained(tmp_path / "p")
        loaded = FmriToImagePipeline.from_pretrained(tmp_path / "p")
        with pytest.raises(FmriModelsError, match="never fitted"):
            loaded(torch.zeros(1, 5), subject=fitted.processor.subject_names[0])
        rng = __import__("numpy").random.default_rng(0)
        names = list(reversed(fitted.processor.subject_names))
        trials = {name: rng.normal(size=(20, fitted.processor.subject(name).num_voxels)) for name in names}
        if options:
            with pytest.raises(FmriModelsError, match="give these subjects in this order"):
                loaded.processor.fit(trials)
        else:
            loaded.processor.fit(trials)
            with pytest.raises(FmriModelsError, match="the order counts"):
                loaded(trials[names[0]][:1], subject=names[0])
            loaded.processor = FmriProcessor()
        loaded.processor.fit(trials, subjects=fitted.processor.subject_names)
        assert len(loaded(trials[names[0]][:1], subject=names[0]).images) == 1
