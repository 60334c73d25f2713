"""Everything that a pipeline is given for one picture each is of the same patterns."""

import pytest
import torch

from fmri_models import FmriDecoding, FmriModelsError, FmriToImagePipeline
from fmri_models.drawing_request import DrawingRequest
from tests.test_drawing_settings import VOXELS, make_pipeline


def test_what_was_decoded_is_of_as_many_patterns_as_all_else():
    """No pattern is taken for all of them, and none is left out."""
    pipeline = make_pipeline(drawing_settings={"num_candidates": 2})
    latents, truth = torch.rand(4, 1, 4, 4), torch.rand(2, 1, 4, 4)
    embeds = torch.rand(4, *pipeline.image_generator.image_embedding_space.shape)

    def shape(decoded, **options):
        return tuple(pipeline.generate(FmriDecoding(**decoded), output_type="pt", **options).images.shape)

    assert shape({"latents": latents[:2], "image_embeds": embeds[:2]}) == (2, 1, 4, 4)
    assert shape({"latents": latents[:2], "image_embeds": embeds}) == (2, 1, 4, 4), "two samples of each"
    assert shape({"image_embeds": embeds}) == (4, 1, 4, 4)
    assert shape({"image_embeds": embeds}, num_patterns=2) == (2, 1, 4, 4)
    for decoded, options, message in (
        ({"latents": latents[:1], "image_embeds": embeds}, {}, "image_embeds has 4 rows for 1 patterns"),
        ({"latents": latents[:2], "image_embeds": embeds}, {"num_candidates": 1}, "image_embeds has 4 rows for 2 patt"),
        ({"latents": latents[:2], "image_embeds": embeds[:3]}, {}, "3 rows for 2 .*; expected 2 or 4"),
        ({"image_embeds": embeds, "retrieval_embeds": embeds[:3]}, {}, "image_embeds has 4 rows for 3 patterns"),
        ({"image_embeds": embeds, "retrieval_embeds": embeds}, {"num_patterns": 2}, "retrieval_embeds has 4 rows"),
        ({}, {}, "Nothing was decoded"),
        ({"retrieval_embeds": embeds}, {}, "PixelsImageGenerator was given nothing; pass embeddings or latents"),
        ({"latents": latents}, {"selection": "oracle", "true_images": truth[:1]}, r"\(1, 1, 4, 4\) for 4 patterns"),
        ({"latents": latents}, {"selection": "oracle", "true_images": truth[0]}, r"\(1, 4, 4\) for 4 patterns"),
    ):
        with pytest.raises(FmriModelsError, match=message):
            shape(decoded, **options)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (torch.full((2, 1, 4, 4), float("nan")), r"in \[0, 1\]; got torch.float32 from nan"),
        (torch.full((2, 1, 4, 4), float("inf")), r"in \[0, 1\]"),
        (torch.rand(2, 1, 4, 4) * 255, r"in \[0, 1\].* divide 8-bit values by 255"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), "got torch.uint8"),
        (torch.rand(2, 4, 4, 1), r"got \(2, 4, 4, 1\)"),
        (torch.rand(2, 2, 4, 4), r"got \(2, 2, 4, 4\)"),
        (torch.rand(2, 1, 5, 4), r"got \(2, 1, 5, 4\)"),
    ],
)
@pytest.mark.parametrize("num_candidates", [1, 2])
def test_an_oracle_knows_pictures_of_the_generator(wrong, message, num_candidates):
    """Whether it has anything to choose from or not."""
    pipeline = make_pipeline(drawing_settings={"num_candidates": num_candidates})
    decoding = FmriDecoding(latents=torch.rand(2, 1, 4, 4))
    for call in (
        lambda: pipeline.generate(decoding, selection="oracle", true_images=wrong),
        lambda: pipeline(torch.zeros(2, VOXELS) + torch.arange(VOXELS), selection="oracle", true_images=wrong),
    ):
        with pytest.raises(FmriModelsError, match=message):
            call()


def test_true_pictures_are_for_an_oracle():
    with pytest.raises(FmriModelsError, match="true_images= is read by selection='oracle' alone"):
        make_pipeline().check_inputs(selection="brain", true_images=torch.rand(2, 1, 4, 4))


def test_what_a_call_asks_for_may_be_passed_whole():
    pipeline, truth = make_pipeline(), torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    decoding = FmriDecoding(latents=truth)
    settings = pipeline.drawing_settings.changed({"strength": 0.5})
    whole = pipeline.images_of(decoding, DrawingRequest(settings, output_type="pt"), 2)
    assert torch.equal(whole.images, pipeline.generate(decoding, strength=0.5, output_type="pt").images)
    with pytest.raises(FmriModelsError, match="output_type is 'jpg'"):
        pipeline.images_of(decoding, DrawingRequest(settings, output_type="jpg"))
    with pytest.raises(FmriModelsError, match="for 2 patterns; expected a tensor"):
        pipeline.images_of(decoding, DrawingRequest(settings, true_images=truth[:1]))


def test_a_picture_is_drawn_of_rows_of_patterns():
    patterns = torch.rand(3, VOXELS)
    assert len(make_pipeline()(patterns[:, None]).images) == 3
    with pytest.raises(FmriModelsError, match=rf"have the shape \(1, 3, {VOXELS}\); expected \(patterns, voxels\)"):
        make_pipeline()(patterns[None])


def test_components_that_are_none_are_sentences(tmp_path):
    pipeline = make_pipeline()
    pipeline.save_pretrained(tmp_path)
    for given, message in (
        ({"processor": None}, "processor is None; expected an FmriProcessor"),
        ({"brain_model": None}, "brain_model is None; expected a brain model"),
        ({"brain_model": torch.nn.Linear(1, 1)}, "brain_model is a Linear"),
        ({"processor": pipeline.brain_model}, "processor is a LinearModel"),
        ({"image_generator": "pixels"}, "image_generator is a str.* image_generator_source="),
    ):
        with pytest.raises(FmriModelsError, match=message):
            FmriToImagePipeline.from_pretrained(tmp_path, **given)


def test_a_processor_that_does_not_fit_any_more_is_not_saved(tmp_path):
    pipeline = make_pipeline()
    pipeline.processor.pool_width = 2
    with pytest.raises(FmriModelsError, match="use the processor that the model was trained with"):
        pipeline.save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out").exists()
