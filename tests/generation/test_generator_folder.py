"""The door of a saved generator's folder: nothing of it is run, and what is not whole is named."""

import inspect
import json
import os
import re
import shutil
import warnings
from dataclasses import replace

import diffusers
import pytest
import torch
import transformers
from diffusers import DiffusionPipeline, ModelMixin
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from fmri_models import FmriProcessor
from fmri_models.errors import FmriModelsError
from fmri_models.generation.embedded import ASSETS_FOLDER, EmbeddedImageGenerator
from fmri_models.generation.loading import (
    image_generator_class,
    load_image_generator,
    load_source,
    parse_source,
)
from fmri_models.generation.pixels import PixelsImageGenerator
from fmri_models.generation.source import GeneratorSource
from fmri_models.registry import GENERATORS
from fmri_models.training.recipe import load_recipe

from .test_embedded import tiny_generator

CODE = "open({mark!r}, 'w').write('x')\nclass X: pass\nclass EvilPipeline: pass\n"


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(ASSETS_FOLDER, tmp_path / "generator")
    return tmp_path / "generator"


def change(file, **changes):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def loader_keywords() -> set[str]:
    """Every keyword that `from_pretrained` of the two libraries knows, by signature or by what it takes of kwargs."""
    modules = [inspect.getmodule(each) for each in (DiffusionPipeline, ModelMixin, PreTrainedModel)]
    modules += [diffusers.configuration_utils, transformers.configuration_utils, transformers.tokenization_utils_base]
    modules += [transformers.models.auto.auto_factory, transformers.feature_extraction_utils]
    sources = "\n".join(inspect.getsource(module) for module in modules)
    names = set(re.findall(r"""kwargs\.(?:pop|get)\(\s*["'](\w+)["']""", sources))
    for loader in (DiffusionPipeline, ModelMixin, PreTrainedModel, transformers.AutoModel, transformers.AutoConfig):
        names |= {name for name in inspect.signature(loader.from_pretrained).parameters if not name.startswith("kw")}
    return names


def test_no_keyword_of_a_loader_comes_from_a_file():
    keywords = loader_keywords()
    assert {"trust_remote_code", "custom_pipeline", "custom_revision", "variant", "use_safetensors", "device_map"} <= (
        keywords
    )
    recipe = load_recipe("digits69_linear")
    for keyword in sorted(keywords):
        for named in ({"name": "embedded"}, {"name": "stable_unclip"}, {"name": "clip"}, {"repository": "user/name"}):
            source = {**named, "options": {keyword: True}}
            with pytest.raises(FmriModelsError, match=f"options have '{keyword}'"):
                parse_source(source)
            with pytest.raises(FmriModelsError, match=keyword):
                replace(recipe, generator=source)
        # Where a caller made the source, the generator has the last word.
        with pytest.raises(FmriModelsError, match=f"options have '{keyword}'"):
            load_source(GeneratorSource(repository=str(ASSETS_FOLDER), options={keyword: True}))


@pytest.mark.parametrize("name", GENERATORS.names())
def test_options_are_arguments_of_the_generator(name):
    found = image_generator_class(name)
    known = {*inspect.signature(found.from_source).parameters, *inspect.signature(found.__init__).parameters}
    if found.default_repository is None and found.package_folder is None:
        # Without weights of its own, it is made of them.
        found.for_stimuli((1, 16, 16), **found.options().model_dump())
        return
    assert set(found.options.model_fields) <= known


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"name": "stable_unclip", "options": {"noise_level": -1}}, "has -1 as 'noise_level'"),
        ({"name": "stable_unclip", "options": {"noise_level": True}}, "has True as 'noise_level'"),
        ({"name": "versatile_diffusion", "options": {"antialias": 1}}, "has 1 as 'antialias'"),
        ({"name": "versatile_diffusion", "options": {"image_side": 2**40}}, "as 'image_side'"),
        ({"name": "ip_adapter", "options": {"adapter_folder": "../x"}}, "expected a place inside of the repository"),
        ({"name": "ip_adapter", "options": {"adapter_weight_name": "/etc/x.safetensors"}}, "a place inside of the rep"),
        ({"name": "ip_adapter", "options": {"ip_adapter_scale": float("inf")}}, "as 'ip_adapter_scale'"),
        ({"name": "pixels", "options": {"channels": 3}}, "expected none"),
        ({"repository": "user/name", "subfolder": "../x"}, "expected a folder inside of the repository"),
        ({"repository": "user/name", "subfolder": "/etc"}, "expected a folder inside of the repository"),
        ({"repository": "user/name", "subfolder": "a\\..\\b"}, "expected a folder inside of the repository"),
        ({"repository": "user/name", "revision": "../../x"}, "expected the name of a branch"),
        ({"repository": "user/name", "revision": "a b"}, "expected the name of a branch"),
        ({"repository": "user/name\n"}, "one line without control characters"),
        ({"repository": "user/name", "spaces": {"image": {}}}, "expected image_embedding_space"),
        ({"repository": "user/name", "spaces": {"latent_space": 3}}, "expected the fields of a space"),
        ({"repository": "user/name", "spaces": {"latent_space": {"encoder": "x", "layer": "y"}}}, "has no shape"),
        (
            {"repository": "x/y", "spaces": {"latent_space": {"encoder": "x", "layer": "y", "shape": [2**63]}}},
            "The shape of an embedding space",
        ),
    ],
)
def test_what_a_file_says_of_a_generator_is_typed(source, message):
    with pytest.raises(FmriModelsError, match=message) as caught:
        parse_source(source)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("component", ["autoencoder", "image_encoder", "tokenizer", "unet", "scheduler"])
@pytest.mark.parametrize(
    "entry", [["evil", "X"], ["os", "system"], ["subprocess", "Popen"], ["transformers", "AutoModel"]]
)
def test_components_name_no_code(folder, tmp_path, component, entry):
    mark = tmp_path / "mark"
    (folder / component / "evil.py").write_text(CODE.format(mark=str(mark)))
    change(folder / "model_index.json", **{component: entry})
    for load in (load_image_generator, EmbeddedImageGenerator.from_pretrained):
        with pytest.raises(FmriModelsError, match=f"as {component}"):
            load(str(folder))
    assert not mark.exists()


@pytest.mark.parametrize("file", ["None.py", "unet/diffusers.py", "image_encoder/transformers.py"])
def test_files_that_diffusers_would_take_for_code(folder, tmp_path, file):
    mark = tmp_path / "mark"
    (folder / file).write_text(CODE.format(mark=str(mark)))
    with pytest.raises(FmriModelsError, match=r"\.py.* would be taken for code"):
        load_image_generator(str(folder))
    assert not mark.exists()


def test_a_class_that_is_a_list_is_none(folder, tmp_path):
    mark = tmp_path / "mark"
    (folder / "evil.py").write_text(CODE.format(mark=str(mark)))
    change(folder / "model_index.json", _class_name=["evil", "EvilPipeline"])
    with pytest.raises(FmriModelsError, match="no image generator of this package"):
        load_image_generator(str(folder))
    with pytest.raises(FmriModelsError, match="as its class"):
        EmbeddedImageGenerator.from_pretrained(folder)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("unet/config.json", {"quantization_config": {"quant_method": "x"}}, "never from a file"),
        ("image_encoder/config.json", {"auto_map": {"AutoModel": "evil.X"}}, "never from a file"),
        ("tokenizer/tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.X", None]}}, "never from a file"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 2**40}, "expected 16777216 at most"),
        ("scheduler/scheduler_config.json", {"thresholding": "no"}, "expected true or false"),
        ("scheduler/scheduler_config.json", {"beta_schedule": "linear", "beta_end": 7}, "betas outside of 0 to 1"),
        ("scheduler/scheduler_config.json", {"final_sigmas_type": "x"}, "gives no schedule"),
        ("unet/config.json", {"norm_eps": True}, "expected a number"),
        ("unet/config.json", {"cross_attention_dim": 2**62}, "expected 16777216 at most"),
        ("unet/config.json", {"block_out_channels": [2**24, 2**24]}, "describes a network of more than"),
        ("unet/config.json", {"layers_per_block": 2**24}, "describes a network of more than"),
        ("unet/config.json", {"down_block_types": ["x"]}, "of no such network"),
        ("autoencoder/config.json", {"latent_channels": 3}, "by its config.json"),
        ("model_index.json", {"latent_std": [1.0]}, "has 1 values in latent_std; expected 12"),
        ("model_index.json", {"latent_std": [0.0] * 12}, "has 0 in latent_std"),
        ("model_index.json", {"latent_std": "x"}, "has 'x' as 'latent_std'"),
        ("model_index.json", {"latent_stds": [1.0] * 12}, "has 'latent_stds', which is not known there"),
        ("model_index.json", {"_class_name": "PixelsImageGenerator"}, "is a PixelsImageGenerator and no Embedded"),
    ],
)
def test_a_changed_configuration_is_named(folder, file, changes, message):
    change(folder / file, **changes)
    with pytest.raises(FmriModelsError, match=message) as caught:
        EmbeddedImageGenerator.from_pretrained(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("component", ["autoencoder", "image_encoder", "unet"])
def test_every_network_is_whole(folder, component):
    file = next((folder / component).glob("*.safetensors"))
    tensors = load_file(file)
    first = min(tensors)
    save_file({name: values for name, values in tensors.items() if name != first}, file, metadata={"format": "pt"})
    with pytest.raises(FmriModelsError, match=f"The {component} of the image generator .* lacks {first}"):
        EmbeddedImageGenerator.from_pretrained(folder)
    save_file({**tensors, first: torch.full_like(tensors[first], torch.nan)}, file, metadata={"format": "pt"})
    with pytest.raises(FmriModelsError, match=f"NaN or infinite, of .* in {first}"):
        EmbeddedImageGenerator.from_pretrained(folder)
    shutil.rmtree(folder / component)
    with pytest.raises(FmriModelsError, match=f"The {component} .* is missing"):
        EmbeddedImageGenerator.from_pretrained(folder)


def test_what_is_no_file_is_not_waited_for(folder):
    (folder / "tokenizer" / "tokenizer.json").unlink()
    os.mkfifo(folder / "tokenizer" / "tokenizer.json")
    with pytest.raises(FmriModelsError, match="no regular file"):
        EmbeddedImageGenerator.from_pretrained(folder)


@pytest.mark.parametrize("text", ["", "[]", "{", "NaN", '{"a": ' + "[" * 100_000, "\udcff"])
def test_an_index_that_is_none(folder, text):
    (folder / "model_index.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    for load in (load_image_generator, EmbeddedImageGenerator.from_pretrained):
        with pytest.raises(FmriModelsError, match="index"):
            load(str(folder))


def test_nothing_saved_says_where_it_was_loaded_from(folder, tmp_path):
    generator = EmbeddedImageGenerator.from_pretrained(folder)
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "notes.txt").write_text("mine")
    (tmp_path / "saved" / "unet").mkdir()
    old = tmp_path / "saved" / "unet" / "diffusion_pytorch_model-00001-of-00002.safetensors"
    old.write_bytes(b"")
    generator.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / "notes.txt").read_text() == "mine"
    assert not old.exists()
    for file in (tmp_path / "saved").rglob("*.json"):
        assert str(tmp_path) not in file.read_text()
        assert "name_or_path" not in file.read_text()
    assert generator.config._name_or_path == str(folder)
    EmbeddedImageGenerator.from_pretrained(tmp_path / "saved")


@pytest.mark.parametrize("changes", [{"channels": 2**40}, {"height": -1}, {"width": [3]}, {"width": True}])
def test_sizes_of_pixels(tmp_path, changes):
    PixelsImageGenerator(1, 4, 4).save_pretrained(tmp_path)
    change(tmp_path / "model_index.json", **changes)
    with pytest.raises(FmriModelsError):
        _ = load_image_generator(str(tmp_path)).latent_space


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_train_timesteps": 2**24}, "has 16777216 as 'num_train_timesteps'; expected 1 to 100000"),
        ({"num_train_timesteps": 0}, "has 0 as 'num_train_timesteps'"),
        ({"trained_betas": [0.1] * 7}, "has 7 values in 'trained_betas'; expected one for each of its 1000 steps"),
        ({"trained_betas": 0.1}, "has 0.1 in 'trained_betas'"),
    ],
)
def test_a_schedule_has_a_bounded_number_of_steps(folder, changes, message):
    change(folder / "scheduler" / "scheduler_config.json", **changes)
    with pytest.raises(FmriModelsError, match=message):
        EmbeddedImageGenerator.from_pretrained(folder)


def test_betas_of_a_schedule_may_be_given_step_by_step(folder):
    betas = torch.linspace(1e-4, 0.02, 20).tolist()
    change(folder / "scheduler" / "scheduler_config.json", num_train_timesteps=20, trained_betas=betas)
    assert len(EmbeddedImageGenerator.from_pretrained(folder).scheduler.betas) == 20


def test_a_tokenizer_of_another_vocabulary_is_a_sentence():
    generator = tiny_generator()
    generator.tokenizer.add_tokens(["abc"])
    with pytest.raises(FmriModelsError, match="The tokenizer .* was changed, or is another network's"):
        generator.embed_texts(["abc", "a"])


def test_a_changed_file_of_the_tokenizer_is_a_sentence(folder):
    file = folder / "tokenizer" / "tokenizer_config.json"
    change(file, pad_token="zzz", added_tokens_decoder={"99999999": {"content": "red", "special": False}})
    with pytest.raises(FmriModelsError, match="tokenizer"):
        EmbeddedImageGenerator.from_pretrained(folder).embed_texts(["a red ball"])


@pytest.mark.parametrize("name", ["latent_mean", "latent_std", "image_embeds_mean", "image_embeds_std"])
@pytest.mark.parametrize("value", [1e7, float("nan"), float("inf"), -2e6, None])
def test_statistics_of_an_index_are_numbers_within_bounds(folder, name, value):
    index = folder / "model_index.json"
    values = json.loads(index.read_text())[name]
    change(index, **{name: values[1:] if value is None else [value, *values[1:]]})
    with pytest.raises(FmriModelsError):
        EmbeddedImageGenerator.from_pretrained(folder)


def test_a_standard_deviation_is_above_zero(folder):
    index = folder / "model_index.json"
    change(index, latent_std=[0.0, *json.loads(index.read_text())["latent_std"][1:]])
    with pytest.raises(FmriModelsError, match="has 0 in latent_std"):
        EmbeddedImageGenerator.from_pretrained(folder)


@pytest.mark.parametrize("place", ["/nonexist/a", "a/b/c", "a\0b", "x" * 5000, "nobody/nothing", "", "a b"])
@pytest.mark.parametrize("saved_class", [EmbeddedImageGenerator, PixelsImageGenerator, FmriProcessor])
def test_a_place_that_holds_nothing_is_one_sentence(saved_class, place):
    with pytest.raises(FmriModelsError) as caught:
        saved_class.from_pretrained(place)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize("name", GENERATORS.names())
def test_a_source_that_holds_nothing_is_one_sentence(name):
    for place in ("/nonexist/a", "a/b/c", "a\0b", "x" * 5000, "nobody/nothing"):
        for subfolder in (None, "s"):
            with pytest.raises(FmriModelsError) as caught:
                image_generator_class(name).from_source(place, subfolder=subfolder, local_files_only=True)
            assert "\n" not in str(caught.value)


def test_weights_are_saved_as_safetensors_alone(tmp_path):
    for generator in (tiny_generator(), PixelsImageGenerator(1, 8, 8)):
        with pytest.warns(UserWarning, match="Weights are saved as safetensors alone"):
            generator.save_pretrained(tmp_path / "out", safe_serialization=False)
    assert list((tmp_path / "out").rglob("*.safetensors"))
    assert not [file for file in (tmp_path / "out").rglob("*") if file.suffix in (".bin", ".pt", ".ckpt")]


def test_a_variant_is_saved_and_loaded_again(tmp_path):
    generator = tiny_generator(with_unet=True)
    generator.save_pretrained(tmp_path, variant="fp16")
    weights = sorted(file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*.safetensors"))
    assert weights == [
        "autoencoder/diffusion_pytorch_model.fp16.safetensors",
        "image_encoder/model.fp16.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors",
    ]
    loaded = EmbeddedImageGenerator.from_pretrained(tmp_path, variant="fp16")
    for name in ("autoencoder", "image_encoder", "unet"):
        for mine, other in zip(getattr(generator, name).parameters(), getattr(loaded, name).parameters(), strict=True):
            assert torch.equal(mine, other)


def test_variants_and_dtypes_of_a_generator(tmp_path):
    generator = tiny_generator(with_unet=True).to(torch.bfloat16)
    generator.save_pretrained(tmp_path / "a" / "halves", variant="fp16")
    with pytest.raises(FmriModelsError, match="without a variant; there are weights of 'fp16': pass variant='fp16'"):
        EmbeddedImageGenerator.from_pretrained(tmp_path / "a" / "halves")
    with pytest.raises(FmriModelsError, match="no weights of the variant 'fp32'; there are weights of 'fp16'"):
        EmbeddedImageGenerator.from_pretrained(tmp_path / "a" / "halves", variant="fp32")
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        for dtype, unet, clip in (
            ("auto", torch.bfloat16, torch.bfloat16),
            ("float16", torch.float16, torch.float16),
            ({"unet": "auto", "default": torch.float16}, torch.bfloat16, torch.float16),
        ):
            loaded = EmbeddedImageGenerator.from_pretrained(
                tmp_path / "a", subfolder="halves", variant="fp16", torch_dtype=dtype
            )
            assert (loaded.unet.dtype, loaded.image_encoder.dtype) == (unet, clip)
        source = {"repository": str(tmp_path / "a"), "subfolder": "halves", "variant": "fp16", "dtype": "float16"}
        assert load_source(parse_source(source)).unet.dtype == torch.float16
    # That of a whole pipeline is taken where there is one.
    generator.save_pretrained(tmp_path / "plain")
    assert load_source(parse_source(str(tmp_path / "plain")), dtype="auto", variant="fp16").dtype == torch.bfloat16
    with pytest.raises(FmriModelsError, match="variant is '../x'; expected letters"):
        parse_source({"repository": str(tmp_path / "a"), "variant": "../x"})


def test_a_generator_without_weights_has_no_variants(tmp_path):
    PixelsImageGenerator(1, 8, 6).save_pretrained(tmp_path, variant="fp16")
    assert PixelsImageGenerator.from_pretrained(tmp_path, variant="fp16").image_size == (1, 8, 6)
