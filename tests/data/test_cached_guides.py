"""Guides in the cache of targets: one pass for all layers, kept by pictures, weights and layer."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fmri_models.data import targets
from fmri_models.data.targets import cached_guides, guides_in_spaces
from fmri_models.errors import FmriModelsError
from fmri_models.guides import FeatureNetwork, GuideSet, guide_sources
from tests.data.test_targets import cached_files, write_table


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FMRI_MODELS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The layers of each call of a network with more than one picture."""
    calls: list[list[str]] = []
    features = FeatureNetwork.features

    def counted(self: FeatureNetwork, pixel_values: torch.Tensor, layers: Any, *args: Any) -> dict[str, torch.Tensor]:
        if len(pixel_values) > 1:
            calls.append(list(layers))
        return features(self, pixel_values, layers, *args)

    monkeypatch.setattr(FeatureNetwork, "features", counted)
    return calls


def guides_of(*layers: str) -> GuideSet:
    return GuideSet(guide_sources({"network": "scene_vgg", "layers": list(layers)}))


def test_all_layers_in_one_pass_and_once(tmp_path: Path, cache: Path, passes: list[list[str]]) -> None:
    table = write_table(tmp_path / "table")
    found = cached_guides(table, guides_of("conv3_2", "fc4"))
    assert {name: each.shape for name, each in found.items()} == {
        "scene_vgg.conv3_2": (24, 64 * 16 * 16), "scene_vgg.fc4": (24, 128),
    }  # fmt: skip
    assert passes == [["conv3_2", "fc4"]] and len(cached_files(cache)) == 2
    again = cached_guides(table, guides_of("fc4", "fc5"))
    assert passes[1:] == [["fc5"]] and len(cached_files(cache)) == 3
    np.testing.assert_array_equal(again["scene_vgg.fc4"], found["scene_vgg.fc4"])
    pictures = torch.from_numpy(table.stimuli.images().transpose(0, 3, 1, 2).copy()).float() / 255
    network = guides_of("fc4").network("scene_vgg")
    np.testing.assert_allclose(found["scene_vgg.fc4"], network.features(pictures, ["fc4"])["fc4"], rtol=1e-4, atol=1e-5)


def test_what_is_kept_needs_no_network_and_other_weights_are_refused(tmp_path: Path) -> None:
    table, guides = write_table(tmp_path / "table"), guides_of("fc4")
    kept = cached_guides(table, guides)
    spaces = guides.spaces
    of_another = GuideSet.of_model({"vgg19.fc8": spaces["scene_vgg.fc4"]})
    np.testing.assert_array_equal(guides_in_spaces(table, spaces, of_another)["scene_vgg.fc4"], kept["scene_vgg.fc4"])
    other = type(spaces["scene_vgg.fc4"])(**{**spaces["scene_vgg.fc4"].to_dict(), "revision": "other"})
    with pytest.raises(FmriModelsError, match="revision"):
        guides_in_spaces(table, {"scene_vgg.fc4": other}, guides)


def test_an_interrupted_computation_goes_on(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, passes: list[list[str]]
) -> None:
    monkeypatch.setattr(targets, "_STIMULI_A_BATCH", 4)
    table, guides = write_table(tmp_path / "table"), guides_of("fc4", "fc5")
    images = type(table.stimuli).images
    read: list[list[str]] = []

    def interrupted(self: Any, ids: Any = None) -> np.ndarray:
        read.append(list(ids))
        if len(read) == 4:
            raise KeyboardInterrupt
        return images(self, ids)

    monkeypatch.setattr(type(table.stimuli), "images", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cached_guides(table, guides)
    assert not cached_files(cache)
    found = cached_guides(table, guides)
    # The last batch before the interruption is made again.
    assert read[4][0] == table.stimuli.ids[8]
    monkeypatch.undo()
    monkeypatch.setenv("FMRI_MODELS_CACHE", str(tmp_path / "another"))
    for name, whole in cached_guides(table, guides).items():
        np.testing.assert_allclose(found[name], whole, rtol=1e-4, atol=1e-5)


def test_fewer_pictures_at_a_time_where_layers_are_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passes: list[list[str]]
) -> None:
    table, guides = write_table(tmp_path / "table"), guides_of("fc4", "fc5")
    whole = cached_guides(table, guides)
    monkeypatch.setattr(targets, "_VALUES_A_BATCH", 9 * (128 + 36))
    monkeypatch.setenv("FMRI_MODELS_CACHE", str(tmp_path / "another"))
    before = len(passes)
    for name, values in cached_guides(table, guides).items():
        np.testing.assert_allclose(values, whole[name], rtol=1e-4, atol=1e-5)
    assert len(passes) - before == 3


def test_layers_that_are_not_finite_are_refused(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, guides = write_table(tmp_path / "table"), guides_of("fc4")
    assert guides.spaces
    monkeypatch.setattr(FeatureNetwork, "features", lambda self, pixels, *args: {"fc4": torch.full((24, 128), np.nan)})
    with pytest.raises(FmriModelsError, match=r"The layer gives scene_vgg\.fc4 that are not finite"):
        cached_guides(table, guides)
    assert not list((cache / "targets").glob("*.npy"))
