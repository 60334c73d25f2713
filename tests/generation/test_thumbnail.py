"""The thumbnail generator: low-level pictures of anything, and nothing from embeddings."""

import pytest
import torch

from fmri_models.errors import FmriModelsError
from fmri_models.generation.loading import load_image_generator
from fmri_models.generation.pixels import PixelsImageGenerator
from fmri_models.generation.thumbnail import ThumbnailImageGenerator
from tests.generation.generator_common import DrawingGeneratorMixin


class TestThumbnailImageGenerator(DrawingGeneratorMixin):
    generator_class = ThumbnailImageGenerator
    drawn_from = ("latents",)

    def make_generator(self, **options):
        return ThumbnailImageGenerator(**({"channels": 3, "height": 24, "width": 20, "thumbnail_size": 8} | options))


def blocks(num_images: int, thumbnail_size: int, factor: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random thumbnails, and pictures of which they are the thumbnails."""
    thumbnails = torch.rand(num_images, 3, thumbnail_size, thumbnail_size, generator=torch.Generator().manual_seed(0))
    return thumbnails, thumbnails.repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)


def test_latents_are_means_over_areas():
    thumbnails, pictures = blocks(4, 8, 3)
    generator = ThumbnailImageGenerator(3, 24, 24, thumbnail_size=8)
    torch.testing.assert_close(generator.encode_images(pictures), thumbnails)
    assert generator.latent_space.shape == (3, 8, 8)


def test_sides_need_not_be_multiples():
    generator = ThumbnailImageGenerator(1, 21, 37)
    pictures = torch.rand(2, 1, 21, 37)
    drawn = generator(latents=generator.encode_images(pictures), output_type="pt").images
    assert drawn.shape == pictures.shape
    assert drawn.min() >= 0 and drawn.max() <= 1


def test_a_smooth_picture_comes_back():
    ramp = torch.linspace(0, 1, 64).expand(1, 3, 64, 64)
    generator = ThumbnailImageGenerator()
    drawn = generator(latents=generator.encode_images(ramp), output_type="pt").images
    torch.testing.assert_close(drawn[..., 4:-4], ramp[..., 4:-4], atol=0.01, rtol=0)
    assert (drawn - ramp).abs().max() < 0.05


def test_embeddings_are_the_thumbnails_pixels():
    thumbnails, pictures = blocks(3, 16, 4)
    generator = ThumbnailImageGenerator()
    embeds = generator.embed_images(pictures)
    assert embeds.shape[1:] == generator.image_embedding_space.shape == (16, 48)
    torch.testing.assert_close(embeds, PixelsImageGenerator(3, 16, 16).embed_images(thumbnails))
    assert generator.image_embedding_space != PixelsImageGenerator(3, 16, 16).image_embedding_space


def test_spaces_of_other_pictures_or_thumbnails_differ():
    spaces = [ThumbnailImageGenerator(3, *sides).latent_space for sides in ((64, 64, 16), (64, 128, 16), (64, 64, 32))]
    assert len({str(space.to_dict()) for space in spaces}) == 3


def test_nothing_is_drawn_from_embeddings():
    generator = ThumbnailImageGenerator()
    assert generator.generates_from_embeddings is False
    with pytest.raises(FmriModelsError, match="draws nothing from embeddings; pass latents"):
        generator(image_embeds=torch.zeros(1, 16, 48))
    with pytest.raises(FmriModelsError, match="draws nothing from embeddings"):
        generator(latents=torch.zeros(1, 3, 16, 16), text_embeds=torch.zeros(1, 2, 3))


def test_latents_of_another_shape_are_a_sentence():
    with pytest.raises(FmriModelsError, match=r"takes latents of shape \(N, 3, 16, 16\); got \(1, 3, 64, 64\)"):
        ThumbnailImageGenerator()(latents=torch.zeros(1, 3, 64, 64))


def test_options_have_no_effect_and_are_still_checked():
    generator = ThumbnailImageGenerator()
    latents = torch.rand(2, 3, 16, 16)
    plain = generator(latents=latents, output_type="pt").images
    other = generator(latents=latents, strength=0.2, guidance_scale=5.0, num_inference_steps=7, output_type="pt").images
    assert torch.equal(plain, other)
    with pytest.raises(FmriModelsError, match="strength is 2.0"):
        generator(latents=latents, strength=2.0)


def test_without_latents_noise_is_drawn_from_the_seed():
    generator = ThumbnailImageGenerator()
    sources = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
    both = generator(num_images=2, generator=sources, output_type="pt").images
    second = generator(num_images=1, generator=[torch.Generator().manual_seed(4)], output_type="pt").images
    assert torch.equal(both[1:], second)
    assert not torch.equal(both[0], both[1])
    assert both.std() > 0.1


def test_small_pictures_are_a_sentence():
    with pytest.raises(FmriModelsError, match="12x20 pixels and their thumbnails 16x16; such small pictures go with"):
        ThumbnailImageGenerator.for_stimuli((1, 12, 20))


def test_saving_and_loading_by_name_and_by_folder(tmp_path):
    named = load_image_generator("thumbnail", (3, 48, 32))
    assert named.image_size == (3, 48, 32)
    ThumbnailImageGenerator(3, 40, 24, thumbnail_size=12).save_pretrained(tmp_path / "generator")
    loaded = load_image_generator(str(tmp_path / "generator"))
    assert isinstance(loaded, ThumbnailImageGenerator)
    assert loaded.image_size == (3, 40, 24)
    assert loaded.latent_space == ThumbnailImageGenerator(3, 40, 24, thumbnail_size=12).latent_space
