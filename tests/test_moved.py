"""Old places of public names."""

import importlib

import pytest

from fmri_models import scenes, simulation
from fmri_models.moved import moved_names, renamed_argument


@pytest.mark.parametrize(
    ("old", "new"), [("fmri_models.data.simulator", simulation), ("fmri_models.data.scenes", scenes)]
)
def test_the_old_place_has_the_public_names_and_says_where_they_are_now(old: str, new: object) -> None:
    module = importlib.import_module(old)
    for name in getattr(new, "__all__", ["Scene", "SceneFactors", "scene", "scene_records", "scene_seeds"]):
        with pytest.warns(FutureWarning, match=f"{old}.{name} is {new.__name__}.{name} now"):
            assert getattr(module, name) is getattr(new, name)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        vars(module)["__getattr__"]("nothing")


def test_a_name_that_was_changed_is_found_by_its_old_one() -> None:
    find = moved_names("here", "fmri_models.scenes", {"draw": "scene"})
    with pytest.warns(FutureWarning, match=r"here.draw is fmri_models.scenes.scene now"):
        assert find("draw") is scenes.scene
    with pytest.raises(AttributeError, match="module 'here' has no attribute 'scene'"):
        find("scene")


def test_an_argument_that_was_changed_is_taken_by_its_old_name() -> None:
    @renamed_argument("kinds", "targets")
    def learned(targets: list[str]) -> list[str]:
        return targets

    assert learned(["latents"]) == learned(targets=["latents"]) == ["latents"]
    with pytest.warns(FutureWarning, match="kinds of learned is targets now"):
        assert learned(kinds=["latents"]) == ["latents"]  # type: ignore[call-arg]
