"""What a pipeline draws with: what it may be, that it is saved and read, and that every way of drawing keeps to it."""

import json
import warnings
from dataclasses import fields, replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from fmri_models import (
    DrawingSettings,
    FmriModelsError,
    FmriProcessor,
    FmriToImagePipeline,
    ImageGenerator,
    PixelsImageGenerator,
)
from fmri_models.drawing_settings import MAX_CANDIDATES, MAX_INFERENCE_STEPS
from fmri_models.generation.loading import image_generator_class, spaces_of
from fmri_models.models.linear import LinearConfig, LinearModel, LinearPipeline
from fmri_models.registry import GENERATORS
from tests.generation.smallest_generator import ColourImageGenerator
from tests.generation.test_embedded import tiny_generator

VOXELS = 7
FORMER = DrawingSettings(20, 2.0, 0.7, 1, "brain")


def make_pipeline(generator: ImageGenerator | None = None, **options) -> FmriToImagePipeline:
    """Its pictures are blends of a decoded picture and decoded latents, by the strength."""
    torch.manual_seed(0)
    generator = generator or PixelsImageGenerator(1, 4, 4)
    config = LinearConfig(subject_names=["subj01"], num_voxels=[VOXELS], **spaces_of(generator))
    processor = FmriProcessor.fit({"subj01": np.random.default_rng(0).normal(size=(9, VOXELS))})
    model = LinearModel(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return LinearPipeline(model, processor, generator, **options)


def drawn(pipeline: FmriToImagePipeline, **options) -> torch.Tensor:
    betas = np.random.default_rng(1).normal(size=(3, VOXELS))
    sources = [torch.Generator().manual_seed(row) for row in range(3)]
    return pipeline(betas, generator=sources, output_type="pt", **options).images


def random_settings(seed: int) -> DrawingSettings:
    rng = np.random.default_rng(seed)
    return DrawingSettings(
        num_inference_steps=rng.integers(1, MAX_INFERENCE_STEPS + 1),
        guidance_scale=rng.exponential(5),
        strength=rng.uniform(),
        num_candidates=rng.integers(1, MAX_CANDIDATES + 1),
        selection=["brain", "first"][rng.integers(2)],
        text_to_image_ratio=rng.uniform() if seed % 2 else None,
    )


def test_the_defaults_are_those_that_all_pipelines_had():
    assert DrawingSettings() == FORMER


@pytest.mark.parametrize("seed", range(20))
def test_values_survive_a_file_and_are_plain_numbers(seed):
    settings = random_settings(seed)
    values = json.loads(json.dumps(settings.to_dict()))
    assert DrawingSettings.from_dict(values, "They", "mend them") == settings
    assert {type(value) for value in values.values()} == {int, float, str}


@pytest.mark.parametrize("seed", range(20))
def test_a_mapping_changes_what_it_names_and_settings_change_all(seed):
    before, after = random_settings(seed), random_settings(seed + 1000)
    for name, value in after.to_dict().items():
        assert before.changed({name: value}) == replace(before, **{name: value})
        assert before.changed({name: None}) == before
    assert before.changed(after) == after and before.changed(None) == before and before.changed({}) == before


WRONG = [
    *[("num_inference_steps", value) for value in (0, -1, MAX_INFERENCE_STEPS + 1, 8.0, "8", True, 10**400, [8])],
    *[("guidance_scale", value) for value in (-0.1, float("nan"), float("inf"), "2", True, 10**400, {"a": 1})],
    *[("strength", value) for value in (-0.01, 1.01, float("nan"), "0.5", False, 10**400, [0.5])],
    *[("num_candidates", value) for value in (0, MAX_CANDIDATES + 1, 2.5, "4", True, 10**400)],
    *[("text_to_image_ratio", value) for value in (-0.1, 1.5, float("nan"), "0.5", True, [0.5])],
    *[("selection", value) for value in ("best", "oracle", "", 1, True, ["brain"], "brain\n")],
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_values_out_of_range_are_refused_wherever_they_come_from(name, value, tmp_path):
    with pytest.raises(FmriModelsError, match=f"{name} is .*; expected"):
        DrawingSettings(**{name: value})
    with pytest.raises(FmriModelsError, match=f"{name} is .*; expected"):
        DrawingSettings().changed({name: value})
    with pytest.raises(FmriModelsError, match=f"The index can't be used: {name} is .*; mend it"):
        DrawingSettings.from_dict({name: value}, "The index", "mend it")
    pipeline = make_pipeline()
    with pytest.raises(FmriModelsError, match=f"{name} is .*; expected"):
        pipeline.drawing_settings = {name: value}
    assert pipeline.drawing_settings == FORMER
    if value != "oracle":
        with pytest.raises(FmriModelsError, match=f"{name} is .*; expected"):
            drawn(pipeline, **{name: value})


@pytest.mark.parametrize("values", [{"strenght": 0.5}, {"steps": 8}, {"": 1}, {"seed": 0}, {"precision": "float32"}])
def test_unknown_names_are_refused(values):
    with pytest.raises(FmriModelsError, match="have no "):
        DrawingSettings().changed(values)
    with pytest.raises(FmriModelsError, match="have no "):
        make_pipeline(drawing_settings=values)


def test_the_nearest_name_is_offered():
    with pytest.raises(FmriModelsError, match="did you mean 'strength'"):
        DrawingSettings().changed({"strenght": 0.5})


@pytest.mark.parametrize("values", [3, "brain", [0.5], [["strength", 0.5]]])
def test_settings_are_a_mapping(values):
    with pytest.raises(FmriModelsError, match="expected DrawingSettings or a mapping"):
        make_pipeline(drawing_settings=values)
    with pytest.raises(FmriModelsError, match="expected a mapping; mend it"):
        DrawingSettings.from_dict(values, "The index", "mend it")


@pytest.mark.parametrize("seed", range(5))
def test_a_pipeline_keeps_its_settings_over_saving_and_loading(seed, tmp_path):
    settings = random_settings(seed)
    pipeline = make_pipeline(drawing_settings=settings)
    for number in range(2):
        pipeline.save_pretrained(tmp_path / str(number))
        index = json.loads((tmp_path / str(number) / "model_index.json").read_text())
        assert index["drawing_settings"] == settings.to_dict()
        pipeline = FmriToImagePipeline.from_pretrained(tmp_path / str(number))
        assert pipeline.drawing_settings == settings
        assert pipeline.config.drawing_settings == settings.to_dict()


def test_loading_replaces_single_settings_or_all(tmp_path):
    make_pipeline(drawing_settings={"strength": 0.2, "num_candidates": 3}).save_pretrained(tmp_path)
    loaded = FmriToImagePipeline.from_pretrained(tmp_path, drawing_settings={"num_candidates": 5})
    assert loaded.drawing_settings == DrawingSettings(strength=0.2, num_candidates=5)
    loaded = FmriToImagePipeline.from_pretrained(tmp_path, drawing_settings=DrawingSettings(num_candidates=5))
    assert loaded.drawing_settings == DrawingSettings(num_candidates=5)
    assert FmriToImagePipeline.from_pretrained(tmp_path, drawing_settings=None).drawing_settings.strength == 0.2
    assert LinearPipeline.from_pretrained(tmp_path).drawing_settings.strength == 0.2


def test_what_is_assigned_or_registered_is_drawn_with_and_saved(tmp_path):
    pipeline = make_pipeline()
    pipeline.drawing_settings = {"strength": 0.2}
    pipeline.drawing_settings = {"num_candidates": 2}
    assert pipeline.drawing_settings == DrawingSettings(strength=0.2, num_candidates=2)
    pipeline.register_to_config(drawing_settings={"strength": 0.4})
    assert torch.equal(drawn(pipeline), drawn(make_pipeline(), strength=0.4))
    pipeline.save_pretrained(tmp_path)
    assert FmriToImagePipeline.from_pretrained(tmp_path).drawing_settings == DrawingSettings(strength=0.4)
    pipeline.register_to_config(drawing_settings=DrawingSettings(strength=0.6))
    pipeline.save_pretrained(tmp_path)
    assert FmriToImagePipeline.from_pretrained(tmp_path).drawing_settings == DrawingSettings(strength=0.6)
    pipeline.register_to_config(drawing_settings={"strength": 4})
    with pytest.raises(FmriModelsError, match="strength is 4"):
        pipeline.save_pretrained(tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_pipeline_made_of_another_ones_parts_takes_its_settings_along():
    pipeline = make_pipeline(drawing_settings={"strength": 0.2})
    assert LinearPipeline.from_pipe(pipeline).drawing_settings.strength == 0.2


def test_calls_draw_with_the_pipelines_settings_unless_they_say_something_else():
    strengths = [0.0, 0.3, 0.7, 1.0]
    explicit = [drawn(make_pipeline(), strength=strength) for strength in strengths]
    for one, other in pairwise(explicit):
        assert not torch.equal(one, other)
    for own in strengths:
        pipeline = make_pipeline(drawing_settings={"strength": own})
        assert torch.equal(drawn(pipeline), explicit[strengths.index(own)])
        for given, expected in zip(strengths, explicit, strict=True):
            assert torch.equal(drawn(pipeline, strength=given), expected)
            assert pipeline.drawing_settings.strength == own


def test_settings_without_an_effect_are_named_in_one_warning_and_not_stated():
    pipeline = make_pipeline()
    with pytest.warns(UserWarning) as caught:
        drawn(pipeline, num_candidates=6, guidance_scale=7.0, num_inference_steps=3, strength=0.2, selection="first")
    assert [str(each.message) for each in caught] == [
        "num_inference_steps, guidance_scale, num_candidates, selection have no effect with this pipeline's "
        "PixelsImageGenerator, which draws nothing at random."
    ]
    assert pipeline.settings_used(FORMER) == {"strength": 0.7}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn(pipeline)
        drawn(pipeline, strength=0.2)


def test_one_candidate_is_drawn_where_all_would_be_the_same():
    pipeline = make_pipeline()
    betas = np.random.default_rng(1).normal(size=(3, VOXELS))
    expected = pipeline(betas, output_type="pt").images
    with pytest.warns(UserWarning, match="num_candidates has no effect with this pipeline's PixelsImageGenerator, wh"):
        output = pipeline(betas, num_candidates=4, output_type="pt")
    assert torch.equal(output.images, expected)
    assert output.candidates is None and output.scores is None


def test_settings_that_a_generator_says_have_no_effect_have_none():
    """Its author has forgotten that candidates differ; nobody is told that it draws nothing at random."""

    class Forgetful(ColourImageGenerator):
        used_settings = ("num_inference_steps", "strength")

    pipeline = make_pipeline(Forgetful(4))
    with pytest.warns(UserWarning) as caught:
        pipeline.warn_of_unused({"num_candidates": 4, "guidance_scale": 4.0, "strength": 0.5})
    assert [str(each.message) for each in caught] == [
        "num_candidates, guidance_scale have no effect with this pipeline's Forgetful."
    ]
    expected = drawn(pipeline, num_inference_steps=2)
    with pytest.warns(UserWarning):
        assert torch.equal(drawn(pipeline, num_inference_steps=2, num_candidates=4), expected)
    betas = np.random.default_rng(1).normal(size=(3, VOXELS))
    with pytest.warns(UserWarning):
        assert pipeline(betas, num_candidates=4).candidates is None
    assert [len(each) for each in make_pipeline(ColourImageGenerator(4))(betas, num_candidates=4).candidates] == [4] * 3


@pytest.mark.parametrize("name", GENERATORS.names())
def test_settings_that_a_generator_does_not_use_change_nothing(name):
    known = {each.name for each in fields(DrawingSettings)}
    used = set(image_generator_class(name).used_settings)
    assert used <= known
    assert ("text_to_image_ratio" in used) == (name in ("embedded", "versatile_diffusion"))
    assert used >= known - {"text_to_image_ratio"} or name in ("pixels", "thumbnail", "clip")


class Sampling(LinearModel):
    """Draws samples of what is decoded, as a diffusion prior does."""

    @property
    def samples(self) -> bool:
        return True


def test_candidates_count_where_the_method_samples():
    pipeline = make_pipeline()
    sampling = LinearPipeline(Sampling(pipeline.brain_model.config), pipeline.processor, pipeline.image_generator)
    assert list(sampling.settings_used(FORMER)) == ["strength", "num_candidates", "selection"]


def test_decode_and_generate_keep_to_them_too(monkeypatch):
    pipeline = make_pipeline(drawing_settings={"num_candidates": 3, "num_inference_steps": 5, "guidance_scale": 4.5})
    model, generator = pipeline.brain_model, pipeline.image_generator
    calls: list[dict] = []

    def noted(function):
        def call(*args, **options):
            calls.append(options)
            return function(*args, **options)

        return call

    monkeypatch.setattr(model, "decode", noted(model.decode))
    monkeypatch.setattr(type(generator), "images_of", noted(type(generator).images_of))
    features = torch.zeros(2, VOXELS)
    decoding = pipeline.decode(features, torch.zeros(2, dtype=torch.long))
    pipeline.generate(decoding)
    assert calls[0]["num_candidates"] == 3
    drawn_with = calls[1]["settings"]
    assert (drawn_with.num_inference_steps, drawn_with.guidance_scale, drawn_with.strength) == (5, 4.5, 0.7)


def test_an_oracle_is_for_single_calls():
    pipeline = make_pipeline(drawing_settings={"num_candidates": 2})
    truth = torch.rand(3, 1, 4, 4)
    assert drawn(pipeline, selection="oracle", true_images=truth).shape == truth.shape
    with pytest.raises(FmriModelsError, match="needs the true pictures"):
        drawn(pipeline, selection="oracle")
    with pytest.raises(FmriModelsError, match="an oracle knows the true pictures"):
        pipeline.drawing_settings = {"selection": "oracle"}


def test_a_pipeline_that_was_saved_without_settings_draws_as_before(tmp_path):
    pipeline = make_pipeline()
    pipeline.save_pretrained(tmp_path)
    path = tmp_path / "model_index.json"
    index = json.loads(path.read_text())
    del index["drawing_settings"]
    path.write_text(json.dumps(index))
    loaded = FmriToImagePipeline.from_pretrained(tmp_path)
    assert loaded.drawing_settings == FORMER
    torch.testing.assert_close(drawn(loaded), drawn(pipeline, **FORMER.to_dict()))
    changed = FmriToImagePipeline.from_pretrained(tmp_path, drawing_settings={"strength": 0.1})
    assert changed.drawing_settings == replace(FORMER, strength=0.1)


@pytest.mark.parametrize(
    "stated",
    [
        *[{name: value} for name, value in WRONG if json.dumps(value) not in ("NaN", "Infinity")],
        {"strenght": 0.5},
        {"__class__": "evil"},
        None,
        3,
        "brain",
        [],
        ["fmri_models", "DrawingSettings"],
    ],
)
def test_settings_of_a_strangers_index_are_checked(stated, tmp_path):
    make_pipeline().save_pretrained(tmp_path)
    path = tmp_path / "model_index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "drawing_settings": stated}))
    with pytest.raises(FmriModelsError, match=r"model_index\.json"):
        FmriToImagePipeline.from_pretrained(tmp_path)
    with pytest.raises(FmriModelsError, match=r"model_index\.json"):
        FmriToImagePipeline.from_pretrained(tmp_path, drawing_settings={"strength": 0.5})


def test_what_is_left_to_the_generator_stands_in_no_file():
    assert "text_to_image_ratio" not in DrawingSettings().to_dict()
    assert DrawingSettings(text_to_image_ratio=0).to_dict()["text_to_image_ratio"] == 0.0


def test_a_weight_of_the_text_needs_a_method_that_decodes_both(tmp_path):
    generator = tiny_generator(with_unet=True)
    generator.set_progress_bar_config(disable=True)
    pipeline = make_pipeline(generator)
    pipeline.set_progress_bar_config(disable=True)
    both = pipeline.settings_used(DrawingSettings(text_to_image_ratio=1.0))
    assert both["text_to_image_ratio"] == 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        drawn_by_ratio = [drawn(pipeline, num_inference_steps=2, text_to_image_ratio=ratio) for ratio in (0, 0.5, 1)]
    assert all(not torch.equal(one, other) for one, other in pairwise(drawn_by_ratio))
    assert torch.equal(drawn(pipeline, num_inference_steps=2), drawn_by_ratio[1])
    decoding = pipeline.decode(torch.zeros(2, VOXELS), torch.zeros(2, dtype=torch.long))
    with pytest.raises(FmriModelsError, match=r"text_to_image_ratio is 0\.3, .*expected 0 \(image alone\), 0\.5"):
        pipeline.generate(decoding, text_to_image_ratio=0.3)
    with pytest.raises(FmriModelsError, match=r"text_to_image_ratio is 0\.3"):
        pipeline.drawing_settings = {"text_to_image_ratio": 0.3}
    spaces = spaces_of(generator) | {"text_embedding_space": None}
    config = LinearConfig(subject_names=["subj01"], num_voxels=[VOXELS], **spaces)
    image_alone = LinearPipeline(LinearModel(config), pipeline.processor, generator)
    image_alone.set_progress_bar_config(disable=True)
    assert "text_to_image_ratio" not in image_alone.settings_used(DrawingSettings(text_to_image_ratio=1.0))
    with pytest.warns(UserWarning, match="text_to_image_ratio has no effect with this pipeline's EmbeddedImageGenerat"):
        drawn(image_alone, num_inference_steps=2, text_to_image_ratio=1.0)


def test_a_new_pipeline_draws_as_its_generator_is_meant_to():
    for name in GENERATORS.names():
        settings = image_generator_class(name).drawing_settings
        assert isinstance(settings, DrawingSettings), name
    assert image_generator_class("embedded").drawing_settings == FORMER
    assert image_generator_class("versatile_diffusion").drawing_settings.guidance_scale == 3.5
    generator = PixelsImageGenerator(1, 4, 4)
    source = {"name": "kandinsky", "spaces": spaces_of(generator)}
    config = LinearConfig(subject_names=["subj01"], num_voxels=[VOXELS], **spaces_of(generator))
    processor = FmriProcessor.fit({"subj01": np.random.default_rng(0).normal(size=(9, VOXELS))})
    named = LinearPipeline(LinearModel(config), processor, image_generator_source=source)
    assert named.drawing_settings == image_generator_class("kandinsky").drawing_settings
    changed = LinearPipeline(
        LinearModel(config), processor, image_generator_source=source, drawing_settings={"strength": 0.1}
    )
    assert changed.drawing_settings == replace(named.drawing_settings, strength=0.1)
