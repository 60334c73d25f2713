import hashlib
import time
from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from fmri_models import scenes
from fmri_models.errors import FmriModelsError

SEEDS = range(1500)


@pytest.fixture(scope="module")
def drawn():
    return [scenes.scene(seed) for seed in SEEDS]


@pytest.fixture(scope="module")
def masks():
    return np.stack([scenes.object_mask(seed) for seed in SEEDS])


def test_the_distribution_has_not_changed():
    """Generators, simulations and figures in the docs depend on these very pictures and sentences."""
    digest = hashlib.sha256()
    for seed in range(0, 1_000_000_000, 1_953_127):
        scene = scenes.scene(seed)
        digest.update(scene.image.tobytes())
        digest.update("\n".join(scene.captions).encode())
    assert digest.hexdigest() == "db4ac5a4a86e455714f8f87a31c326e226335ceac3c4b84032bcd5d39c79a5ed"


def test_scene_is_a_function_of_its_seed(drawn):
    again = scenes.scene(7)
    assert np.array_equal(again.image, drawn[7].image)
    assert (again.factors, again.captions) == (drawn[7].factors, drawn[7].captions)
    assert again.image.dtype == np.uint8 and again.image.shape == (64, 64, 3)
    assert again.category == again.factors.kind


def test_no_two_scenes_are_equal(drawn):
    assert len({scene.image.tobytes() for scene in drawn}) == len(drawn)


def test_object_covers_between_3_and_25_percent(masks):
    area = masks.mean((1, 2))
    assert area.min() >= 0.03
    assert area.max() <= 0.25


def test_sizes_do_not_overlap(drawn, masks):
    area = {size: [] for size in scenes.SIZES}
    for scene, mask in zip(drawn, masks, strict=True):
        area[scene.factors.size].append(mask.mean())
    assert max(area["small"]) < min(area["medium"])
    assert max(area["medium"]) < min(area["large"])


def test_object_stays_inside(masks):
    assert masks[:, [0, -1]].max() == 0
    assert masks[:, :, [0, -1]].max() == 0


def test_places_are_where_they_say(drawn, masks):
    y, x = np.mgrid[:64, :64] + 0.5
    for scene, mask in zip(drawn, masks, strict=True):
        covered = mask > 0
        column = np.digitize((x[covered].min() + x[covered].max()) / 2, [27, 37])
        row = np.digitize((y[covered].min() + y[covered].max()) / 2, [27, 37])
        assert scenes.PLACES[3 * row + column] == scene.factors.place


def test_object_stands_out_from_its_background(drawn, masks):
    for scene, mask in zip(drawn, masks, strict=True):
        difference = np.abs(scene.image.astype(float) - scenes.background(scene.factors)).mean(-1)
        assert difference[mask > 0.9].mean() > 20


def test_background_is_the_scene_without_its_object(drawn, masks):
    for scene, mask in zip(drawn[:200], masks, strict=False):
        assert np.array_equal(scene.image[mask == 0], scenes.background(scene.factors)[mask == 0])


def test_edges_are_antialiased(masks):
    partial = ((masks > 0) & (masks < 1)).sum((1, 2))
    assert partial.min() > 10


def test_factors_are_uniform_and_independent():
    factors = [scenes.scene(seed).factors.to_dict() for seed in scenes.scene_seeds("train", 4000)]
    values = {name: sorted({item[name] for item in factors}) for name in factors[0]}
    assert {name: len(found) for name, found in values.items()} == {
        "kind": 8,
        "colour": 8,
        "size": 3,
        "place": 9,
        "ground": 4,
        "time_of_day": 4,
    }
    for name, found in values.items():
        counts = Counter(item[name] for item in factors)
        expected = len(factors) / len(found)
        assert sum((counts[value] - expected) ** 2 / expected for value in found) < 30
    for first, second in combinations(values, 2):
        counts = Counter((item[first], item[second]) for item in factors)
        cells = len(values[first]) * len(values[second])
        expected = len(factors) / cells
        statistic = sum((counts[a, b] - expected) ** 2 / expected for a in values[first] for b in values[second])
        # Chi-squared with about `cells` degrees of freedom: mean `cells`, variance twice that.
        assert statistic < cells + 5 * np.sqrt(2 * cells)


def test_captions_name_every_factor(drawn):
    for scene in drawn[:100]:
        assert len(scene.captions) == len(set(scene.captions)) >= 3
        for caption in scene.captions:
            assert all(value in caption for value in scene.factors.to_dict().values())


def test_seed_ranges_are_disjoint():
    for first, second in combinations(scenes.SEED_RANGES.values(), 2):
        assert first.stop <= second.start or second.stop <= first.start


@pytest.mark.parametrize("purpose", scenes.SEED_RANGES)
def test_seed_moves_within_the_range(purpose):
    allowed = scenes.SEED_RANGES[purpose]
    last = len(allowed) // scenes.SEED_STRIDE - 1
    assert scenes.scene_seeds(purpose, 5) == allowed[:5]
    assert scenes.scene_seeds(purpose, scenes.SEED_STRIDE, seed=last)[-1] == allowed[-1]
    for num, seed in ((scenes.SEED_STRIDE + 1, last), (1, last + 1), (1, -1), (len(allowed) + 1, 0)):
        with pytest.raises(FmriModelsError, match=f"{purpose!r}.*would leave the range"):
            scenes.scene_seeds(purpose, num, seed)


def test_unknown_purpose_is_named():
    with pytest.raises(FmriModelsError, match="'holdout'; expected one of generator, train, validation, test"):
        scenes.scene_seeds("holdout", 1)


@pytest.mark.parametrize("seed", [-1, 1_000_000_000])
def test_seed_out_of_range_is_named(seed):
    with pytest.raises(FmriModelsError, match=f"seed is {seed}"):
        scenes.scene(seed)


def test_records_are_what_a_trial_table_takes():
    records = list(scenes.scene_records("test", 3, seed=2))
    first = scenes.SEED_RANGES["test"].start + 2 * scenes.SEED_STRIDE
    assert [record["stimulus_id"] for record in records] == [f"scene{first + i:09d}" for i in range(3)]
    scene = scenes.scene(first)
    assert np.array_equal(records[0]["image"], scene.image)
    assert records[0]["captions"] == scene.captions
    assert records[0]["category"] == scene.factors.kind
    assert records[0]["factors"] == scene.factors.to_dict()


def test_combinations_seen_counts_all_six_factors():
    base = scenes.SceneFactors("house", "red", "small", "top", "grass", "day")
    other = scenes.SceneFactors("house", "red", "small", "top", "grass", "night")
    assert scenes.factor_combinations_seen([base], [base, other]) == 0.5
    assert scenes.factor_combinations_seen([base.to_dict(), other], [base, other.to_dict()]) == 1
    with pytest.raises(FmriModelsError, match="no test scenes"):
        scenes.factor_combinations_seen([base], [])


def test_drawing_is_quick():
    start = time.process_time()
    for seed in range(200):
        scenes.scene(seed)
    assert (time.process_time() - start) / 200 < 0.01
