"""Everything that a pipeline is given for one picture each is of the same patterns."""

import pytest
import torch

from fmri_models import FmriDecoding, FmriModelsError
from tests.test_drawing_settings import make_pipeline


def test_what_was_decoded_is_of_as_many_patterns_as_all_else():
    """No single row is taken for that of all, and no row is left out."""
    pipeline = make_pipeline(drawing_settings={"num_candidates": 2})
    latents, truth = torch.rand(4, 1, 4, 4), torch.rand(2, 1, 4, 4)
    embeds = torch.rand(4, *pipeline.image_generator.image_embedding_space.shape)

    def shape(parts, **options):
        return tuple(pipeline.generate(FmriDecoding(**parts), output_type="pt", **options).images.shape)

    assert shape({"latents": latents[:2], "image_embeds": embeds[:2]}) == (2, 1, 4, 4)
    assert shape({"latents": latents[:2], "image_embeds": embeds}) == (2, 1, 4, 4), "two samples of each"
    assert shape({"image_embeds": embeds}) == (4, 1, 4, 4)
    assert shape({"image_embeds": embeds}, num_patterns=2) == (2, 1, 4, 4)
    for parts, options, message in (
        ({"latents": latents[:1], "image_embeds": embeds}, {}, "image_embeds has 4 rows for 1 patterns"),
        ({"latents": latents[:2], "image_embeds": embeds}, {"num_candidates": 1}, "image_embeds has 4 rows for 2 patt"),
        ({"latents": latents[:2], "image_embeds": embeds[:3]}, {}, "3 rows for 2 .*; expected 2 or 4"),
        ({"image_embeds": embeds, "retrieval_embeds": embeds[:3]}, {}, "image_embeds has 4 rows for 3 patterns"),
        ({"image_embeds": embeds, "retrieval_embeds": embeds}, {"num_patterns": 2}, "retrieval_embeds has 4 rows"),
        ({}, {}, "Nothing was decoded"),
        ({"latents": latents}, {"selection": "oracle", "true_images": truth[:1]}, r"\(1, 1, 4, 4\) for 4 patterns"),
        ({"latents": latents}, {"selection": "oracle", "true_images": truth[0]}, r"\(1, 4, 4\) for 4 patterns"),
    ):
        with pytest.raises(FmriModelsError, match=message):
            shape(parts, **options)
