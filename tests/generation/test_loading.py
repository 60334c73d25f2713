"""Image generators by name, by folder and by repository; a folder with a saved generator stands for a repository."""

import json

import pytest
import torch
from diffusers import StableUnCLIPImg2ImgPipeline

from fmri_models.errors import FmriModelsError
from fmri_models.generation.image_generator import ImageGenerator
from fmri_models.generation.latent_diffusion import LatentDiffusionGenerator
from fmri_models.generation.loading import (
    image_generator_class,
    load_image_generator,
    load_source,
    parse_source,
    source_class,
    spaces_of,
)
from fmri_models.generation.pixels import PixelsImageGenerator
from fmri_models.generation.source import GeneratorSource
from fmri_models.generation.stable_unclip import StableUnCLIPImageGenerator
from fmri_models.registry import GENERATORS
from tests.generation.test_stable_unclip import tiny_components


@pytest.fixture
def repository(tmp_path):
    PixelsImageGenerator(3, 9, 11).save_pretrained(tmp_path / "repository" / "generator")
    return tmp_path / "repository"


@pytest.mark.parametrize("name", GENERATORS.names())
def test_names_stand_for_classes(name):
    assert parse_source(name) == GeneratorSource(name=name)
    assert source_class(parse_source(name)) is image_generator_class(name)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("user/name", GeneratorSource(repository="user/name")),
        (
            {"name": "kandinsky", "revision": "fp16", "dtype": "float16"},
            GeneratorSource(name="kandinsky", revision="fp16", dtype="float16"),
        ),
        (
            {"repository": "user/name", "subfolder": "generator", "revision": None},
            GeneratorSource(repository="user/name", subfolder="generator"),
        ),
        (GeneratorSource(name="pixels"), GeneratorSource(name="pixels")),
    ],
)
def test_what_a_recipe_may_say(value, expected):
    assert parse_source(value) == expected
    assert parse_source(expected.to_dict()) == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("stable", "no image generator 'stable'; give embedded, pixels"),
        (3, "The image generator is 3; expected a name"),
        ({}, "neither name nor repository"),
        ({"name": "stable"}, "no image generator 'stable'"),
        ({"name": "pixels", "weights": "x"}, "unknown key 'weights'; known keys: name, repository"),
        ({"repository": 3}, "repository is 3; expected a text"),
        ({"name": "kandinsky", "options": "antialias"}, "options is 'antialias'; expected a mapping"),
        ({"name": "kandinsky", "dtype": "int8"}, "dtype is 'int8'; expected float32"),
    ],
)
def test_what_is_no_generator_is_a_sentence(value, message):
    with pytest.raises(FmriModelsError, match=message):
        parse_source(value)


def test_a_subfolder_and_a_dtype(repository):
    source = parse_source({"repository": str(repository), "subfolder": "generator"})
    assert load_source(source).image_size == (3, 9, 11)
    with pytest.raises(FmriModelsError, match=r"There is no index of the image generator .*model_index\.json"):
        load_source(parse_source(str(repository)))


def test_folders_of_diffusers_own_pipelines(tmp_path):
    """As the original repositories are: with the class name of diffusers' pipeline."""
    StableUnCLIPImg2ImgPipeline(**tiny_components()).save_pretrained(tmp_path / "original")
    loaded = load_image_generator({"repository": str(tmp_path / "original"), "dtype": "bfloat16"})
    assert isinstance(loaded, StableUnCLIPImageGenerator)
    assert {parameter.dtype for parameter in loaded.unet.parameters()} == {torch.bfloat16}
    assert loaded.source.name == "stable_unclip"
    assert loaded.source.repository == str(tmp_path / "original")
    assert loaded.source.spaces == spaces_of(loaded)
    assert loaded.source.space("latent_space") == loaded.latent_space


def test_options_of_the_generator_are_part_of_its_source(tmp_path):
    StableUnCLIPImageGenerator(**tiny_components()).save_pretrained(tmp_path)
    loaded = load_image_generator({"repository": str(tmp_path), "options": {"noise_level": 5}})
    assert loaded.config.noise_level == 5
    again = load_source(parse_source(loaded.source.to_dict()))
    assert again.config.noise_level == 5


def test_small_generators_have_no_source(repository):
    assert load_image_generator("pixels", (1, 4, 4)).source is None
    assert load_image_generator(str(repository / "generator")).source is None


def test_the_size_of_the_stimuli_is_needed_where_nothing_else_says_it():
    with pytest.raises(FmriModelsError, match="pixels takes the size of the stimuli"):
        load_image_generator("pixels")


@pytest.mark.parametrize("index", [{"_class_name": "LinearPipeline"}, {"_class_name": None}, {}])
def test_a_folder_of_something_else_is_a_sentence(tmp_path, index):
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(FmriModelsError, match="which is no image generator of this package"):
        load_image_generator(str(tmp_path))


def test_the_base_class_loads_what_a_folder_holds(tmp_path, repository):
    loaded = ImageGenerator.from_pretrained(repository, subfolder="generator")
    assert type(loaded) is PixelsImageGenerator and loaded.image_size == (3, 9, 11)
    assert ImageGenerator.from_pretrained(repository / "generator", channels=1).image_size == (1, 9, 11)
    StableUnCLIPImageGenerator(**tiny_components()).save_pretrained(tmp_path)
    for base in (ImageGenerator, LatentDiffusionGenerator):
        loaded = base.from_pretrained(tmp_path, dtype=torch.bfloat16)
        assert type(loaded) is StableUnCLIPImageGenerator and loaded.dtype == torch.bfloat16


def test_the_base_class_says_what_it_can_not_load(tmp_path, repository):
    with pytest.raises(FmriModelsError, match="There is no folder .*nowhere"):
        ImageGenerator.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(FmriModelsError, match="There is no index of the image generator"):
        ImageGenerator.from_pretrained(repository)
    with pytest.raises(FmriModelsError, match="holds a PixelsImageGenerator and no LatentDiffusionGenerator"):
        LatentDiffusionGenerator.from_pretrained(repository / "generator")
    for name, hint in (
        ("LinearPipeline", "a pipeline's own is there with subfolder='image_generator'"),
        ("QuadsImageGenerator", "if another package has it, install or import that package first"),
    ):
        (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": name}))
        with pytest.raises(FmriModelsError, match=f"{name}', which is no image generator of this package; {hint}"):
            ImageGenerator.from_pretrained(tmp_path)


def test_damaged_weights_are_a_sentence(tmp_path):
    StableUnCLIPImageGenerator(**tiny_components()).save_pretrained(tmp_path)
    weights = next((tmp_path / "unet").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(FmriModelsError, match=r"The unet of .* is cut short or no safetensors file") as caught:
        load_image_generator(str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [{}, {"name": "stable_unclip"}])
def test_a_repository_that_cannot_be_had_is_named(tmp_path, name):
    source = {"repository": "nobody/nothing", "revision": "v2", **name}
    with pytest.raises(FmriModelsError, match=r"nobody/nothing \(revision v2\).*not be fetched") as caught:
        load_source(parse_source(source), cache_dir=str(tmp_path), local_files_only=True)
    assert "hf download nobody/nothing --revision v2" in str(caught.value)
    assert "\n" not in str(caught.value)
