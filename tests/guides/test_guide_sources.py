"""What recipes say of guides, and the sets that come of it."""

from typing import Any

import pytest

from fmri_models.errors import FmriModelsError
from fmri_models.guides import GuideSet, guide_sources


def test_a_mapping_or_a_list_of_them() -> None:
    assert guide_sources(None) == []
    (one,) = guide_sources({"network": "scene_vgg"})
    assert one.layers_read == ["conv2_2", "conv3_2", "fc4", "fc5"] and one.weights is None
    several = guide_sources([{"network": "scene_vgg", "layers": ["fc4"]}, {"network": "embedded_clip"}])
    assert GuideSet(several).names == [
        "scene_vgg.fc4", "embedded_clip.block1", "embedded_clip.block2", "embedded_clip.image_embeds",
    ]  # fmt: skip


@pytest.mark.parametrize(("values", "sentence"), [
    ("scene_vgg", "guides is 'scene_vgg'; expected a mapping such as"),
    ({"layers": ["fc4"]}, "expected a mapping such as"),
    ({"network": "scene_vgg", "layer": ["fc4"]}, "unknown key 'layer'.*Did you mean 'layers'"),
    ({"network": "scene_vgg", "layers": ["fc4", "fc4"]}, "expected each of them once"),
    ({"network": "scene_vgg", "layers": []}, "guides.layers"),
    ([{"network": "scene_vgg"}, {"network": "scene_vgg"}], "names the network scene_vgg twice"),
    ({"network": "scene_vgg", "units": 2}, "guides.units is 2; expected a whole number from 3"),
    ({"network": "vgg91"}, "There is no network 'vgg91'"),
])  # fmt: skip
def test_what_is_no_guide(values: Any, sentence: str) -> None:
    with pytest.raises(FmriModelsError, match=sentence):
        guide_sources(values)


def test_networks_of_a_model_are_asked_for_when_they_are_needed() -> None:
    spaces = GuideSet(guide_sources({"network": "scene_vgg", "layers": ["fc4"]})).spaces
    again = GuideSet.of_model(spaces)
    again.check_spaces(spaces)
    assert again.spaces == spaces
    changed = type(spaces["scene_vgg.fc4"])(**{**spaces["scene_vgg.fc4"].to_dict(), "revision": "another"})
    with pytest.raises(
        FmriModelsError, match=r"guide scene_vgg\.fc4.*revision is 'another'.*; give the weights of scene_vgg that"
    ):
        again.check_spaces({"scene_vgg.fc4": changed})
    with pytest.raises(FmriModelsError, match="weights of vgg19, and the model decodes layers of scene_vgg"):
        GuideSet.of_model(spaces, {"vgg19": "here.pth"})
    missing = GuideSet.of_model({"vgg19.fc8": changed})
    with pytest.raises(FmriModelsError, match="vgg19 needs its weights"):
        missing.check_spaces({"vgg19.fc8": changed})
