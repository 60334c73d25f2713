"""Pipelines whose image generator is named instead of contained, or comes later; folders stand for repositories."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import LoHaConfig, LoraConfig, inject_adapter_in_model

from fmri_models import FmriToImagePipeline
from fmri_models.errors import FmriModelsError
from fmri_models.generation.embedded import EmbeddedImageGenerator
from fmri_models.generation.loading import load_image_generator, spaces_of
from fmri_models.generation.pixels import PixelsImageGenerator
from fmri_models.generation.source import GeneratorSource
from fmri_models.generation.stable_unclip import StableUnCLIPImageGenerator
from fmri_models.models.linear import LinearConfig, LinearModel, LinearPipeline
from fmri_models.processing_fmri import FmriProcessor
from tests.generation.test_embedded import tiny_generator
from tests.generation.test_stable_unclip import tiny_components

VOXELS = 7


def make_pipeline(spaces, image_generator=None, image_generator_source=None):
    torch.manual_seed(0)
    config = LinearConfig(subject_names=["subj01"], num_voxels=[VOXELS], **spaces)
    processor = FmriProcessor.fit({"subj01": np.random.default_rng(0).normal(size=(9, VOXELS))})
    return LinearPipeline(LinearModel(config), processor, image_generator, image_generator_source)


def drawn(pipeline):
    betas = np.random.default_rng(1).normal(size=(2, VOXELS))
    sources = [torch.Generator().manual_seed(number) for number in range(2)]
    return pipeline(betas, num_inference_steps=2, generator=sources, output_type="pt").images


def is_loaded(pipeline):
    return pipeline.components["image_generator"] is not None


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def repository(tmp_path):
    """A folder with a generator of its own; (3, 6, 8) pictures."""
    PixelsImageGenerator(3, 6, 8).save_pretrained(tmp_path / "repository")
    return tmp_path / "repository"


@pytest.fixture
def saved(tmp_path, repository):
    """A pipeline that names the repository, and its folder."""
    pipeline = make_pipeline(spaces_of(PixelsImageGenerator(3, 6, 8)), image_generator_source=str(repository))
    pipeline.save_pretrained(tmp_path / "pipeline")
    return pipeline, tmp_path / "pipeline"


def test_the_generator_is_named_and_not_copied(saved, repository):
    assert not (saved[1] / "image_generator").exists()
    index = json.loads((saved[1] / "model_index.json").read_text())
    assert index["image_generator"] == [None, None]
    assert index["image_generator_source"] == {"repository": "../repository"}
    assert index["fmri_schema"] == 2


def test_a_generator_that_was_used_is_not_copied_either(saved, tmp_path):
    pipeline, folder = saved
    drawn(pipeline)
    pipeline.save_pretrained(tmp_path / "again")
    assert files(tmp_path / "again") == files(folder)


def test_it_is_loaded_when_a_picture_is_drawn_and_once(saved):
    loaded = FmriToImagePipeline.from_pretrained(saved[1])
    loaded.to("cpu")
    assert (loaded.device.type, loaded.dtype) == ("cpu", torch.float32)
    inputs = loaded.processor(np.random.default_rng(0).normal(size=(2, VOXELS)))
    assert loaded.decode(inputs["fmri"], inputs["subject_ids"]).image_embeds is not None
    assert not is_loaded(loaded)
    torch.testing.assert_close(drawn(loaded), drawn(saved[0]))
    assert is_loaded(loaded)
    assert loaded.image_generator is loaded.image_generator


def test_it_is_not_needed_for_decoding(saved, repository):
    shutil.rmtree(repository)
    loaded = FmriToImagePipeline.from_pretrained(saved[1])
    inputs = loaded.processor(np.random.default_rng(0).normal(size=(2, VOXELS)))
    assert loaded.decode(inputs["fmri"], inputs["subject_ids"]).retrieval_embeds is not None
    with pytest.raises(FmriModelsError, match=r"There is no folder .*repository.*image_generator_source="):
        drawn(loaded)


def test_bad_options_are_refused_before_it_is_loaded(saved, repository):
    shutil.rmtree(repository)
    with pytest.raises(FmriModelsError, match="strength is 7"):
        FmriToImagePipeline.from_pretrained(saved[1])(np.ones((1, VOXELS)), strength=7)


def test_both_kinds_can_replace_it_at_loading(saved, tmp_path):
    other = PixelsImageGenerator(3, 6, 8)
    loaded = FmriToImagePipeline.from_pretrained(saved[1], image_generator=other)
    assert loaded.image_generator is other and loaded.image_generator_source is None
    loaded.save_pretrained(tmp_path / "contained")
    assert (tmp_path / "contained" / "image_generator").is_dir()
    other.save_pretrained(tmp_path / "elsewhere")
    for folder in (saved[1], tmp_path / "contained"):
        loaded = FmriToImagePipeline.from_pretrained(folder, image_generator_source=str(tmp_path / "elsewhere"))
        assert loaded.image_generator_source.repository == str(tmp_path / "elsewhere")
        assert not is_loaded(loaded)
    assert FmriToImagePipeline.from_pretrained(saved[1], image_generator=None).image_generator is None


def test_assigning_a_generator_replaces_the_reference(saved, tmp_path):
    pipeline, _ = saved
    pipeline.image_generator = PixelsImageGenerator(3, 6, 8)
    pipeline.save_pretrained(tmp_path / "contained")
    assert (tmp_path / "contained" / "image_generator").is_dir()
    assert FmriToImagePipeline.from_pretrained(tmp_path / "contained").image_generator_source is None
    pipeline.image_generator = None
    pipeline.save_pretrained(tmp_path / "none")
    assert FmriToImagePipeline.from_pretrained(tmp_path / "none").image_generator is None


def test_a_relative_folder_is_found_from_elsewhere(repository, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pipeline = make_pipeline(spaces_of(PixelsImageGenerator(3, 6, 8)), image_generator_source="./repository")
    pipeline.save_pretrained("pipeline")
    monkeypatch.chdir("/")
    assert FmriToImagePipeline.from_pretrained(tmp_path / "pipeline").image_generator.image_size == (3, 6, 8)


def test_stated_spaces_are_compared_at_once(repository):
    """The folder holds a generator of other spaces than it is said to; it is asked last."""
    spaces = spaces_of(PixelsImageGenerator(1, 9, 9))
    stated = {"repository": str(repository), "spaces": spaces_of(PixelsImageGenerator(1, 4, 4))}
    with pytest.raises(FmriModelsError, match="mean different things by an embedding: shape"):
        make_pipeline(spaces, image_generator_source=stated)
    unknown = make_pipeline(spaces, image_generator_source=str(repository))
    with pytest.raises(FmriModelsError, match="mean different things by an embedding"):
        drawn(unknown)
    assert not is_loaded(unknown)


def test_a_generator_without_published_weights_cannot_be_named():
    with pytest.raises(FmriModelsError, match="pixels has no published weights that a pipeline could refer to"):
        make_pipeline(spaces_of(PixelsImageGenerator(1, 4, 4)), image_generator_source="pixels")


def test_pipelines_of_the_earlier_layout_are_read(tmp_path):
    generator = PixelsImageGenerator(3, 6, 8)
    make_pipeline(spaces_of(generator), generator).save_pretrained(tmp_path / "old")
    index = json.loads((tmp_path / "old" / "model_index.json").read_text())
    del index["image_generator_source"]
    (tmp_path / "old" / "model_index.json").write_text(json.dumps({**index, "fmri_schema": 1}))
    loaded = FmriToImagePipeline.from_pretrained(tmp_path / "old")
    assert loaded.image_generator.image_size == (3, 6, 8) and loaded.image_generator_source is None


def test_published_weights_are_named_by_whoever_loaded_them(tmp_path):
    """Stable unCLIP in tiny, from a folder like its repository."""
    StableUnCLIPImageGenerator(**tiny_components()).save_pretrained(tmp_path / "repository")
    generator = load_image_generator(str(tmp_path / "repository"))
    names = ("image_embedding_space", "latent_space")
    spaces = {name: values for name, values in spaces_of(generator).items() if name in names}
    pipeline = make_pipeline(spaces, generator)
    assert pipeline.image_generator is generator
    pipeline.save_pretrained(tmp_path / "pipeline")
    assert not (tmp_path / "pipeline" / "image_generator").exists()
    loaded = FmriToImagePipeline.from_pretrained(tmp_path / "pipeline", dtype=torch.bfloat16)
    assert loaded.image_generator_source == replace(generator.source)
    assert {parameter.dtype for parameter in loaded.image_generator.unet.parameters()} == {torch.bfloat16}
    wrong = {**spaces["image_embedding_space"], "shape": [5]}
    with pytest.raises(FmriModelsError, match=r"shape is \(5,\) in the brain model"):
        make_pipeline({"image_embedding_space": wrong}, image_generator_source=loaded.image_generator_source)


def test_the_sources_own_dtype_counts(tmp_path):
    StableUnCLIPImageGenerator(**tiny_components()).save_pretrained(tmp_path / "repository")
    source = GeneratorSource(repository=str(tmp_path / "repository"), dtype="bfloat16")
    spaces = {"latent_space": StableUnCLIPImageGenerator(**tiny_components()).latent_space.to_dict()}
    pipeline = make_pipeline(spaces, image_generator_source=source)
    assert {parameter.dtype for parameter in pipeline.image_generator.vae.parameters()} == {torch.bfloat16}
    assert pipeline.to(torch.float32).image_generator.vae.dtype == torch.float32


def test_the_embedded_generator_from_a_folder(tmp_path):
    generator = EmbeddedImageGenerator.from_assets()
    generator.save_pretrained(tmp_path / "repository")
    pipeline = make_pipeline(
        {"latent_space": generator.latent_space.to_dict()}, generator, str(tmp_path / "repository")
    )
    pipeline.save_pretrained(tmp_path / "pipeline")
    assert not (tmp_path / "pipeline" / "image_generator").exists()
    loaded = FmriToImagePipeline.from_pretrained(tmp_path / "pipeline")
    assert loaded.image_generator_source.name == "embedded"
    torch.testing.assert_close(drawn(loaded), drawn(pipeline))


@pytest.mark.parametrize("is_named", [False, True])
def test_an_adapter_of_the_generator_is_not_lost_silently(is_named, tmp_path):
    tiny_generator(with_unet=True).save_pretrained(tmp_path / "repository")
    generator = EmbeddedImageGenerator.from_pretrained(tmp_path / "repository")
    source = str(tmp_path / "repository")
    given = {"image_generator_source": source} if is_named else {"image_generator": generator}
    pipeline = make_pipeline(spaces_of(generator), **given)
    plain = drawn(pipeline)
    unet = pipeline.image_generator.unet
    unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False), "ours")
    expected = drawn(pipeline)
    with pytest.raises(FmriModelsError, match=r"unet\.fuse_lora\(\)") as raised:
        pipeline.save_pretrained(tmp_path / "pipeline")
    assert ("set its source to None" in str(raised.value)) == is_named
    assert not (tmp_path / "pipeline").exists()
    # As the sentence says.
    unet.fuse_lora()
    unet.unload_lora()
    pipeline.image_generator.source = None
    pipeline.image_generator = pipeline.image_generator
    pipeline.save_pretrained(tmp_path / "pipeline")
    loaded = FmriToImagePipeline.from_pretrained(tmp_path / "pipeline")
    torch.testing.assert_close(drawn(loaded), expected, rtol=1e-4, atol=1e-4)
    assert (expected - plain).abs().max() > 1e-4


def test_the_generators_adapters_are_asked_before_anything_goes_layer_by_layer():
    generator = tiny_generator(with_unet=True)
    pipeline = make_pipeline(spaces_of(generator), generator)
    inject_adapter_in_model(LoHaConfig(r=2, target_modules=["to_q"]), generator.unet)
    with pytest.raises(FmriModelsError, match="The unet has an adapter"):
        pipeline.enable_sequential_cpu_offload(device="cpu")
    assert not hasattr(pipeline.brain_model, "_hf_hook")


def test_a_generator_that_comes_later_is_told_what_was_decided_last():
    pipeline = make_pipeline(spaces_of(PixelsImageGenerator(3, 6, 8)))
    pipeline.set_progress_bar_config(desc="first")
    pipeline.set_progress_bar_config(desc="last")
    pipeline.enable_model_cpu_offload(device="cpu")
    pipeline.remove_all_hooks()
    pipeline.image_generator = PixelsImageGenerator(3, 6, 8)
    assert pipeline.image_generator._progress_bar_config == {"desc": "last"}
    assert not hasattr(pipeline.image_generator, "_offload_device")
