"""The pixels generator: its latent is the picture."""

import pytest
import torch

from fmri_models.errors import FmriModelsError
from fmri_models.generation.loading import load_image_generator
from fmri_models.generation.pixels import PixelsImageGenerator
from tests.generation.generator_common import DrawingGeneratorMixin


class TestPixelsImageGenerator(DrawingGeneratorMixin):
    generator_class = PixelsImageGenerator
    drawn_from = ("image_embeds",)

    def make_generator(self, **options):
        return PixelsImageGenerator(**({"channels": 3, "height": 6, "width": 7} | options))


def test_encoding_and_drawing_give_the_picture_back():
    generator = PixelsImageGenerator(3, 5, 7)
    pictures = torch.rand(4, 3, 5, 7)
    assert torch.equal(generator(latents=generator.encode_images(pictures), output_type="pt").images, pictures)


@pytest.mark.parametrize("size", [(1, 28, 28), (3, 5, 7), (1, 1, 1)])
def test_patches_give_the_picture_back(size):
    generator = PixelsImageGenerator(*size)
    pictures = torch.rand(4, *size)
    embeds = generator.embed_images(pictures)
    assert embeds.shape[1:] == generator.image_embedding_space.shape
    assert embeds.norm(dim=-1).max() <= 1 + 1e-6
    torch.testing.assert_close(generator(image_embeds=embeds, output_type="pt").images, pictures)


def test_strength_mixes_embeddings_and_latent():
    generator = PixelsImageGenerator(1, 4, 4)
    embeds = generator.embed_images(torch.ones(2, 1, 4, 4))
    drawn = generator(image_embeds=embeds, latents=torch.zeros(2, 1, 4, 4), strength=0.25, output_type="pt").images
    torch.testing.assert_close(drawn, torch.full((2, 1, 4, 4), 0.25))


def test_flat_latents_are_pictures_too_and_are_clamped():
    generator = PixelsImageGenerator(1, 2, 2)
    drawn = generator(latents=torch.tensor([[-1.0, 0.5, 2.0, 0.0]]), output_type="pt").images
    assert drawn.flatten().tolist() == [0.0, 0.5, 1.0, 0.0]


def test_grey_and_coloured_pil_pictures():
    assert PixelsImageGenerator(1, 4, 6)(num_images=2).images[1].size == (6, 4)
    assert PixelsImageGenerator(3, 4, 6)(num_images=1).images[0].mode == "RGB"


def test_without_latents_noise_is_drawn_from_the_seed():
    generator = PixelsImageGenerator(1, 16, 16)
    first = generator(num_images=3, generator=torch.Generator().manual_seed(0), output_type="pt").images
    second = generator(num_images=3, generator=torch.Generator().manual_seed(0), output_type="pt").images
    assert torch.equal(first, second)
    assert 0.4 < first.mean() < 0.6


def test_saving_and_loading_by_folder(tmp_path):
    PixelsImageGenerator(3, 9, 11).save_pretrained(tmp_path / "generator")
    loaded = load_image_generator(str(tmp_path / "generator"), (1, 1, 1))
    assert isinstance(loaded, PixelsImageGenerator)
    assert loaded.image_size == (3, 9, 11)
    assert loaded.latent_space == PixelsImageGenerator(3, 9, 11).latent_space


def test_by_name_it_takes_the_size_of_the_stimuli():
    assert load_image_generator("pixels", (1, 28, 28)).image_size == (1, 28, 28)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"text_embeds": torch.zeros(1, 3)}, "takes no text embeddings"),
        ({"image_embeds": torch.zeros(1, 3, 2)}, r"shape \(N, 16, 1\); got \(1, 3, 2\)"),
        ({}, "was given nothing"),
        ({"latents": torch.zeros(2, 1, 4, 4), "num_images": 3}, "batches of 2, 3"),
        ({"num_images": 1, "output_type": "jpeg"}, "output_type is 'jpeg'"),
    ],
)
def test_bad_calls_are_sentences(call, message):
    with pytest.raises(FmriModelsError, match=message):
        PixelsImageGenerator(1, 4, 4)(**call)


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        (torch.zeros(1, 3, 4, 4), r"shape \(N, 1, 4, 4\); got \(1, 3, 4, 4\)"),
        (torch.full((1, 1, 4, 4), 255.0), "from 255 to 255; divide 8-bit values by 255"),
        (torch.zeros(1, 1, 4, 4, dtype=torch.uint8), "torch.uint8"),
    ],
)
def test_bad_pictures_are_sentences(pictures, message):
    with pytest.raises(FmriModelsError, match=message):
        PixelsImageGenerator(1, 4, 4).encode_images(pictures)


def test_unknown_generators_are_sentences(tmp_path):
    with pytest.raises(FmriModelsError, match="no image generator 'stable'; give embedded, pixels"):
        load_image_generator("stable", (3, 64, 64))
    (tmp_path / "model_index.json").write_text('{"_class_name": "LinearPipeline"}')
    with pytest.raises(FmriModelsError, match="'LinearPipeline', which is no image generator"):
        load_image_generator(str(tmp_path), (3, 64, 64))


@pytest.mark.parametrize("size", [(1, 28, 28), (3, 32, 32), (1, 10, 10)])
def test_small_pictures_are_what_it_is_for(size):
    assert PixelsImageGenerator(*size).advice is None


@pytest.mark.parametrize("size", [(3, 128, 128), (1, 16, 33)])
def test_large_pictures_are_advised_another_generator(size):
    advice = PixelsImageGenerator(*size).advice
    assert "generator=thumbnail" in advice
    assert f"{size[1]}x{size[2]} picture" in advice
