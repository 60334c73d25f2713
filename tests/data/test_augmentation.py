"""Random changes of pictures: each kind alone, what they depend on, and bad options."""

import pytest
import torch

from fmri_models.data.augmentation import TEACHER_VIEW, PictureAugmentation, picture_augmentation
from fmri_models.errors import FmriModelsError

NAMES = ("crop", "flip", "jitter", "grey", "solarize", "blur")
NEVER = {f"{name}_probability": 0.0 for name in NAMES}


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def pictures() -> torch.Tensor:
    """Coloured ramps with some texture."""
    ramp = torch.linspace(0.1, 0.9, 24)
    plain = torch.stack([ramp[:, None].expand(24, 24), ramp[None].expand(24, 24), 1 - ramp[:, None].expand(24, 24)])
    return (plain + 0.1 * torch.rand(6, 3, 24, 24, generator=source())).clamp(0, 1)


def only(name: str, **options: object) -> PictureAugmentation:
    return PictureAugmentation(**{**NEVER, name: 1.0, **options})


def test_nothing_happens_with_probability_zero(pictures):
    assert torch.equal(PictureAugmentation(**NEVER)(pictures, source()), pictures)


@pytest.mark.parametrize("name", sorted(NEVER))
def test_each_change_leaves_a_picture_of_the_same_size(pictures, name):
    changed = only(name)(pictures, source())
    assert changed.shape == pictures.shape and changed.dtype == pictures.dtype
    assert changed.min() >= 0 and changed.max() <= 1
    # A blur may be too narrow to be seen.
    assert sum(not torch.allclose(one, other) for one, other in zip(changed, pictures, strict=True)) >= 5


def test_mirrored_and_grey_pictures_are_what_they_are_called(pictures):
    assert torch.equal(only("flip_probability")(pictures, source()), pictures.flip(-1))
    grey = only("grey_probability")(pictures, source())
    assert torch.equal(grey[:, 0], grey[:, 2])
    torch.testing.assert_close(grey[:, 0], torch.einsum("nchw,c->nhw", pictures, torch.tensor([0.2989, 0.587, 0.114])))


def test_a_crop_is_a_part_of_the_picture_enlarged():
    rows = torch.arange(64.0)[:, None].expand(64, 64) / 63
    picture = torch.stack([rows, rows.T, torch.zeros(64, 64)])[None]
    crops = [only("crop_probability")(picture, source(seed))[0] for seed in range(40)]
    areas = [float((c[0].max() - c[0].min()) * (c[1].max() - c[1].min())) for c in crops]
    assert 0.5 < min(areas) < 0.7 and max(areas) > 0.85
    for crop in crops:
        assert (crop[0].diff(dim=0) >= -1e-6).all() and (crop[1].diff(dim=1) >= -1e-6).all()


def test_solarised_pictures_have_no_bright_parts(pictures):
    assert pictures.max() > 0.9
    assert only("solarize_probability")(pictures, source()).max() <= 0.6


def test_blurred_pictures_vary_less_from_pixel_to_pixel(pictures):
    changed = only("blur_probability")(pictures, source(1))
    variation, before = (each.diff(dim=-1).abs().mean(dim=(1, 2, 3)) for each in (changed, pictures))
    assert (variation < before + 1e-6).all() and variation.mean() < 0.7 * before.mean()


def test_draws_come_from_the_generator_alone_and_differ_between_pictures(pictures):
    same = pictures[:1].repeat(6, 1, 1, 1)
    first = TEACHER_VIEW(same, source(3))
    torch.manual_seed(1)
    assert torch.equal(TEACHER_VIEW(same, source(3)), first)
    assert not torch.equal(TEACHER_VIEW(same, source(4)), first)
    assert len({float(each.sum()) for each in first}) == 6


def test_the_published_probabilities_are_met():
    picture = torch.rand(1, 3, 6, 6, generator=source()).repeat(3000, 1, 1, 1)
    published = {"crop_probability": 0.3, "flip_probability": 0.5, "jitter_probability": 0.3, "grey_probability": 0.3}
    for name, probability in published.items():
        assert getattr(PictureAugmentation(), name) == probability
    alone = PictureAugmentation(**{**NEVER, "flip_probability": 0.5, "grey_probability": 0.3})(picture, source())
    unchanged = (alone == picture).flatten(1).all(dim=1).float().mean()
    assert float(unchanged) == pytest.approx(0.5 * 0.7, abs=0.03)


def test_a_recipe_says_what_differs_from_the_published_ones():
    assert picture_augmentation("none") is None
    assert picture_augmentation("published") == PictureAugmentation()
    found = picture_augmentation({"flip_probability": 0, "crop_scale": [0.8, 1]})
    assert found == PictureAugmentation(flip_probability=0, crop_scale=(0.8, 1))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("some", "augmentation is 'some'; expected none, published, or a mapping"),
        (None, "augmentation is None; expected none"),
        ({"flip": 1}, "with some of crop_probability"),
        ({"flip_probability": 1.5}, "flip_probability is 1.5; expected a number from 0 to 1"),
        ({"hue": 0.7}, "hue is 0.7; expected a number from 0 to 0.5"),
        ({"crop_scale": [1, 0.5]}, "expected two shares of the area"),
        ({"crop_scale": "all"}, "expected two numbers"),
        ({"grey_probability": "often"}, "grey_probability is 'often'"),
        ({"crop_first": 3}, "crop_first is 3; expected true or false"),
    ],
)
def test_bad_options_are_sentences(value, message):
    with pytest.raises(FmriModelsError, match=message):
        picture_augmentation(value)
