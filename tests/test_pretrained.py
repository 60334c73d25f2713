"""Each checkpoint that this package lists: what was trained here is loaded and used. Of the others the record is
checked, and a tiny checkpoint of the same files and names of tensors takes the very path that a user takes.
"""

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from diffusers import (
    KandinskyV22Pipeline,
    StableDiffusionPipeline,
    StableUnCLIPImg2ImgPipeline,
    VersatileDiffusionPipeline,
)
from safetensors.torch import save_file

from fmri_models import FmriToImagePipeline
from fmri_models.cli.main import main
from fmri_models.evaluation.scene_factors import SceneFactorClassifier
from fmri_models.generation.loading import image_generator_class, load_source, parse_source
from fmri_models.licenses import HUB_LICENSES
from fmri_models.names import is_name
from fmri_models.records import PretrainedRecord
from fmri_models.registry import GENERATORS, METHODS, PRETRAINED
from fmri_models.scenes import scene, scene_seeds
from tests.generation import test_ip_adapter as ip_adapter
from tests.generation import test_kandinsky as kandinsky
from tests.generation import test_stable_unclip as stable_unclip
from tests.generation import test_versatile_diffusion as versatile_diffusion
from tests.generation.generator_common import tiny_image_encoder
from tests.generation.tiny_clip import tiny_clip, tiny_tokenizer
from tests.hub.test_convert import published_tokens
from tests.models.mindbridge import test_convert_mindbridge as mindbridge
from tests.models.mindeye import test_convert_mindeye as mindeye
from tests.models.mindvis import test_convert_mindvis as mindvis

RECORDS = {record.name: record for record in PRETRAINED.own() if record.package == "fmri_models"}
HERE, CONVERTED, REFERENCES = (
    [name for name, record in RECORDS.items() if record.state == state]
    for state in ("trained here", "converted", "reference")
)
COMMIT = "0" * 40


@pytest.mark.parametrize("name", RECORDS)
def test_the_record_is_in_order(name):
    record = RECORDS[name]
    assert is_name(name) and record.title and record.size > 0
    # An empty licence is listed as one that is not stated.
    assert record.license in {"", *HUB_LICENSES} - {"other", "unknown"}
    assert record.method is None or record.method in METHODS.names()
    assert record.generator is None or record.generator in GENERATORS.names()
    for address in filter(None, (record.origin, record.paper and record.paper.url)):
        parts = urlsplit(address)
        assert parts.scheme == "https" and "." in str(parts.hostname) and not re.search(r"\s", address), address
    if record.state == "trained here":
        assert record.path().is_dir() and record.license == "apache-2.0"
    else:
        assert record.origin and record.paper is not None
    if record.repository:
        assert record.origin == f"https://huggingface.co/{record.repository}"


@pytest.mark.parametrize("name", GENERATORS.names())
def test_generators_say_which_published_weights_they_load(name):
    generator_class = image_generator_class(name)
    known = {
        getattr(generator_class, attribute)
        for attribute in dir(generator_class)
        if re.fullmatch(r"default_(\w+_)?repository", attribute)
    }
    record = GENERATORS.get(name)
    stated = {each.repository for each in record.pretrained if each.state == "reference"}
    assert stated == known - {None}
    assert all(each.generator == name for each in record.pretrained)
    assert record.size == sum(each.size for each in record.pretrained)


@pytest.mark.parametrize("name", METHODS.names())
def test_methods_say_which_published_checkpoints_they_convert(name):
    record = METHODS.get(name)
    assert record.paper is not None and all(each.method == name for each in record.pretrained)
    assert (record.converter is not None) == any(each.state == "converted" for each in record.pretrained)


@pytest.mark.parametrize("name", [name for name in HERE if RECORDS[name].method is not None])
def test_a_model_that_was_trained_here_draws(name):
    record = RECORDS[name]
    pipeline = FmriToImagePipeline.from_pretrained(record.path())
    assert type(pipeline) is METHODS.get(record.method).load("pipeline")
    subject = pipeline.processor.subject_names[0]
    statistics = pipeline.processor.subject(subject)
    session = statistics.sessions[0] if statistics.sessions else None
    fmri = betas(1, statistics.num_voxels)
    (picture,) = pipeline(fmri, subject=subject, session=session, num_inference_steps=2).images
    assert np.asarray(picture).std() > 0


@pytest.mark.parametrize("name", [name for name in HERE if RECORDS[name].method is None and RECORDS[name].generator])
def test_a_generator_that_was_trained_here_draws(name):
    record = RECORDS[name]
    generator = GENERATORS.get(record.generator).load().from_pretrained(record.path())
    assert_draws(generator, scenes(1))


@pytest.mark.parametrize("name", [name for name in HERE if not RECORDS[name].method and not RECORDS[name].generator])
def test_another_network_that_was_trained_here_works(name):
    check: dict[str, Callable[[PretrainedRecord], None]] = {"scene-factors": names_scenes}
    assert name in check, f"say in this test what {name} is good for"
    check[name](RECORDS[name])


def names_scenes(record: PretrainedRecord) -> None:
    judge = SceneFactorClassifier.from_pretrained(record.path())
    expected = [scene(seed).factors for seed in scene_seeds("generator_test", 10)]
    found = judge.predict(scenes(10))
    assert all(found[factor] == [getattr(each, factor) for each in expected] for factor in ("kind", "colour", "place"))


@pytest.mark.parametrize("name", CONVERTED)
def test_a_tiny_checkpoint_of_the_published_layout_is_converted_by_the_records_command(name, tmp_path, monkeypatch):
    assert name in CONVERSIONS, f"add a tiny checkpoint of the layout of {name} to CONVERSIONS"
    monkeypatch.chdir(tmp_path)
    options = CONVERSIONS[name](tmp_path)
    program, command, method, checkpoint, *others = shlex.split(RECORDS[name].command)
    assert (program, command, method) == ("fmri-models", "convert", RECORDS[name].method)
    assert main([command, method, checkpoint, *options, *others]) == 0
    pipeline = FmriToImagePipeline.from_pretrained(others[others.index("--out") + 1])
    assert type(pipeline) is METHODS.get(method).load("pipeline")
    inputs = pipeline.processor(betas(2, pipeline.processor.num_voxels[0]))
    decoding = pipeline.decode(inputs["fmri"], inputs["subject_ids"])
    if pipeline.brain_model.config.has_learned_conditions:
        # Its generator comes with it.
        assert len(decoding.encoder_hidden_states) == 2 and pipeline.image_generator is not None
        return
    assert len(decoding.retrieval_embeds) == 2
    # The tiny one's spaces are no generator's; that of the published size is named (tests/hub/test_convert.py).
    if method == "mindbridge":
        assert len(decoding.text_embeds) == 2
        return
    assert (decoding.latents is not None) == (RECORDS[name].generator is not None)


def whole_mindeye(folder: Path) -> list[str]:
    torch.save({"epoch": 239, "model_state_dict": mindeye.published()}, folder / "last.pth")
    torch.save({"model_state_dict": mindeye.low_level()}, folder / "epoch120.pth")
    return ["low_level_norm_num_groups=2"]


def mindeye_of_one_token(folder: Path) -> list[str]:
    # Its prior is of another architecture.
    state = published_tokens(1) | {"net.null_text_embeds": torch.ones(1, 77, 768)}
    torch.save({"epoch": 239, "model_state_dict": state}, folder / "last.pth")
    return []


def whole_mindvis(folder: Path) -> list[str]:
    if mindvis.TEST_DATA is None:
        pytest.skip("the tiny diffusion model is not part of the tests and FMRI_MODELS_TEST_DATA is not set")
    torch.save({"model_state_dict": mindvis.fine_tuned()}, folder / "finetuned.pth")
    return ["num_attention_heads=4"]


def whole_mindbridge(folder: Path) -> list[str]:
    mindbridge.saved(folder, mindbridge.published(("1",)))
    return []


CONVERSIONS = {
    "mindbridge-nsd-subj1257": whole_mindbridge,
    "mindeye-nsd-subj01": whole_mindeye,
    "mindeye-nsd-subj01-retrieval": mindeye_of_one_token,
    "mindvis-god-sbj3": whole_mindvis,
}


@pytest.mark.parametrize("name", REFERENCES)
def test_tiny_weights_of_the_published_layout_are_loaded_by_the_generators_name(name, tmp_path):
    """With the repositories in the Hub's cache, as after a download, under their own names."""
    assert name in REPOSITORIES, f"add tiny weights of the layout of {name} to REPOSITORIES"
    generator_name = str(RECORDS[name].generator)
    for record in GENERATORS.get(generator_name).pretrained:
        cached = tmp_path / f"models--{record.repository.replace('/', '--')}"
        (cached / "refs").mkdir(parents=True)
        (cached / "refs" / "main").write_text(COMMIT)
        REPOSITORIES[record.name](cached / "snapshots" / COMMIT)
    generator = load_source(parse_source(generator_name), cache_dir=str(tmp_path), local_files_only=True)
    assert type(generator) is image_generator_class(generator_name)
    if generator_name == "clip":
        assert generator.embed_images(scenes(1)).isfinite().all()
    else:
        assert_draws(generator, scenes(1))


def _versatile_diffusion(folder: Path) -> None:
    # Published in torch's own format alone.
    VersatileDiffusionPipeline(**versatile_diffusion.tiny_components()).save_pretrained(
        folder, safe_serialization=False
    )


def _stable_unclip(folder: Path) -> None:
    StableUnCLIPImg2ImgPipeline(**stable_unclip.tiny_components()).save_pretrained(folder)


def _kandinsky_decoder(folder: Path) -> None:
    KandinskyV22Pipeline(**kandinsky.tiny_components()).save_pretrained(folder)


def _kandinsky_prior(folder: Path) -> None:
    tiny_image_encoder(kandinsky.WIDTH).save_pretrained(folder / "image_encoder")


def _stable_diffusion(folder: Path) -> None:
    pipeline = StableDiffusionPipeline(
        **ip_adapter.tiny_components(), safety_checker=None, requires_safety_checker=False
    )
    pipeline.save_pretrained(folder)


def _ip_adapter(folder: Path) -> None:
    (folder / "models").mkdir(parents=True)
    save_file(ip_adapter.published_weights(), folder / "models" / ip_adapter.WEIGHT_NAME)
    tiny_image_encoder(ip_adapter.WIDTH).save_pretrained(folder / "models" / "image_encoder")


def _clip(folder: Path) -> None:
    tiny_clip().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)


REPOSITORIES: dict[str, Callable[[Path], None]] = {
    "versatile-diffusion": _versatile_diffusion,
    "stable-diffusion-2-1-unclip": _stable_unclip,
    "kandinsky-2-2-decoder": _kandinsky_decoder,
    "kandinsky-2-2-prior": _kandinsky_prior,
    "stable-diffusion-v1-4": _stable_diffusion,
    "stable-diffusion-v1-5": _stable_diffusion,
    "ip-adapter": _ip_adapter,
    "clip-vit-large-patch14": _clip,
}


def betas(number: int, num_voxels: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(number, num_voxels)).astype(np.float32)


def scenes(number: int) -> torch.Tensor:
    """Pictures that no training has seen, (N, 3, 64, 64)."""
    pictures = np.stack([scene(seed).image for seed in scene_seeds("generator_test", number)])
    return torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255


def assert_draws(generator, pictures: torch.Tensor) -> None:
    generator.set_progress_bar_config(disable=True)
    if generator.image_embedding_space is None:
        told = {"text_embeds": generator.embed_texts(["a ball"] * len(pictures))}
    else:
        told = {"image_embeds": generator.embed_images(pictures)}
    drawn = generator(**told, num_inference_steps=2, output_type="pt").images
    assert drawn.isfinite().all() and drawn.std() > 0
