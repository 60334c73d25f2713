"""Features are computed once, held in bounded memory, and those of true pictures kept on disk by their content."""

import pytest
import torch

from fmri_models.evaluation import NetworkExtractor, RowData, picture_features, score_rows
from fmri_models.evaluation.extractors import Preprocessing
from fmri_models.evaluation.picture_features import OnDemand, PictureFeatures, TrueFeatures
from fmri_models.evaluation.protocols import Protocol
from tests.evaluation.toy_report import TinyExtractor, smooth_pictures

PROTOCOL = Protocol("test", "", ("two_way_grid",))
IDS = [f"s{number:02d}" for number in range(24)]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FMRI_MODELS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "features"


class Grid:
    """A network that says how many pictures it has seen, and how many at once."""

    def __init__(self, sha256="0" * 64, size=16):
        self.seen, self.most = 0, 0
        self.extractor = NetworkExtractor("grid", self.read, Preprocessing(size), sha256)

    def read(self, pixels):
        self.seen, self.most = self.seen + len(pixels), max(self.most, len(pixels))
        return torch.nn.functional.adaptive_avg_pool2d(pixels, 8).flatten(1)


def scored(grid, truth, noise=0, ids=IDS):
    noisy = 0.5 * truth + 0.5 * torch.rand(truth.shape, generator=torch.Generator().manual_seed(noise))
    rows = {"brain": RowData(noisy)}
    scores = score_rows(rows, truth, ids, PROTOCOL, extractors={"grid": grid.extractor}, permutations=5)
    return scores.values["brain"]["two_way_grid"]


def test_the_second_evaluation_computes_reconstructions_alone(cache):
    truth, grid = smooth_pictures(), Grid()
    first = scored(grid, truth)
    assert grid.seen == 48 and grid.most == 8
    again = Grid()
    assert (scored(again, truth) == first).all()
    assert again.seen == 24
    # Neither order nor repetitions of a set make another one of it.
    order = torch.arange(24).flip(0)
    other = Grid()
    scored(other, truth[order], ids=[IDS[i] for i in order])
    assert other.seen == 24
    assert len(list(cache.glob("*.npy"))) == 1 and not list(cache.glob("*partial*"))


def test_other_pictures_weights_or_preprocessing_are_computed(cache):
    truth = smooth_pictures()
    scored(Grid(), truth)
    for other, pictures in (
        (Grid(sha256="1" * 64), truth),
        (Grid(size=20), truth),
        (Grid(), truth.clone().index_fill_(0, torch.tensor([3]), 0.25)),
    ):
        scored(other, pictures)
        assert other.seen == 48
    assert len(list(cache.glob("*.npy"))) == 4


def test_a_network_without_a_digest_is_not_kept(cache):
    for _ in range(2):
        grid = Grid(sha256="")
        scored(grid, smooth_pictures())
        assert grid.seen == 48
    tiny = TinyExtractor()
    rows = {"brain": RowData(smooth_pictures())}
    score_rows(rows, smooth_pictures(), IDS, Protocol("t", "", ("two_way_tiny",)), extractors={"tiny": tiny})
    assert not cache.exists()


def zeroed(content):
    """As long as it was, with some values lost, as after a crash."""
    return content[:-400] + bytes(400)


@pytest.mark.parametrize("damage", [b"", b"x" * 500, None, zeroed])
def test_a_damaged_file_is_computed_again(cache, damage):
    truth = smooth_pictures()
    first = scored(Grid(), truth)
    (path,) = cache.glob("*.npy")
    content = path.read_bytes()
    path.write_bytes(content[:-8] if damage is None else damage(content) if callable(damage) else damage)
    grid = Grid()
    assert (scored(grid, truth) == first).all()
    assert grid.seen == 48


def test_a_cache_that_cannot_be_written_changes_no_score(tmp_path, monkeypatch):
    truth = smooth_pictures()
    first = scored(Grid(), truth)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FMRI_MODELS_CACHE", str(tmp_path / "file"))
    assert (scored(Grid(), truth) == first).all()


def test_what_was_not_used_for_longest_goes_first(cache, monkeypatch):
    sets = [smooth_pictures(seed=seed) for seed in range(3)]
    # With a checksum behind each picture's values.
    size = 24 * 193 * 4 + 128
    monkeypatch.setattr(picture_features, "KEPT_BYTES", 2 * size)
    scored(Grid(), sets[0])
    scored(Grid(), sets[1])
    scored(Grid(), sets[0])
    scored(Grid(), sets[2])
    seen = []
    for each in (sets[0], sets[2]):
        grid = Grid()
        scored(grid, each)
        seen.append(grid.seen)
    assert seen == [24, 24]
    assert len(list(cache.glob("*.npy"))) == 2
    monkeypatch.setattr(picture_features, "KEPT_BYTES", size - 1)
    scored(Grid(), sets[1])
    assert not list(cache.glob("*.npy"))


def test_memory_is_bounded():
    extractor = TinyExtractor()
    remembering = PictureFeatures(extractor, most_bytes=5 * 192 * 4)
    pictures = smooth_pictures(12)
    expected = TinyExtractor()(pictures)
    assert torch.equal(remembering(pictures), expected)
    assert torch.equal(remembering(pictures[7:]), expected[7:])
    assert extractor.seen == 12
    assert torch.equal(remembering(pictures[:7]), expected[:7])
    assert extractor.seen == 19
    assert torch.equal(remembering(pictures[[1, 1, 1]]), expected[[1, 1, 1]])
    assert torch.equal(PictureFeatures(TinyExtractor(), most_bytes=1)(pictures), expected)


def test_sizes_are_part_of_a_pictures_content():
    blank = torch.zeros(1, 3, 8, 8)
    assert picture_features.picture_keys(blank) != picture_features.picture_keys(blank.reshape(1, 3, 4, 16))


def test_true_features_are_in_the_order_of_what_is_asked():
    truth = smooth_pictures(6)[[0, 1, 2, 1, 3]]
    features = TrueFeatures(PictureFeatures(Grid().extractor), truth)
    expected = Grid().extractor(truth)
    positions = torch.tensor([4, 1, 3]).numpy()
    torch.testing.assert_close(features.at(positions), expected[positions])


def test_features_are_made_when_they_are_asked_for():
    made = []
    features = OnDemand({"a": lambda: made.append("a") or torch.ones(1)})
    assert "a" in features and "b" not in features and list(features) == ["a"] and len(features) == 1 and not made
    assert features["a"] == 1 and made == ["a"]
