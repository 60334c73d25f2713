"""What generators are given, passed whole."""

from dataclasses import FrozenInstanceError, replace

import pytest
import torch

from fmri_models.conditions import CONDITION_SPACES, Conditions
from fmri_models.embedding_space import EmbeddingSpace
from fmri_models.errors import FmriModelsError
from fmri_models.generation.pixels import PixelsImageGenerator
from fmri_models.generation.source import GeneratorSource
from fmri_models.modeling_outputs import FmriDecoding

SPACES = {
    "image_embeds": EmbeddingSpace(encoder="e", layer="pooled", shape=(3,)),
    "text_embeds": None,
    "latents": EmbeddingSpace(encoder="e", layer="latent", shape=(2, 2)),
}


def some(number: int = 4) -> Conditions:
    return Conditions(image_embeds=torch.rand(number, 3), latents=torch.rand(number, 2, 2))


def test_each_condition_has_its_space():
    pictures = ["image_embeds", "text_embeds", "latents"]
    assert list(CONDITION_SPACES) == [*pictures, "encoder_hidden_states", "time_embeds", "control"]
    for space in CONDITION_SPACES.values():
        assert hasattr(PixelsImageGenerator, space)


def test_what_is_given_is_known_by_name():
    assert list(some().given) == ["image_embeds", "latents"]
    assert Conditions().given == {}
    assert list(some().only("latents").given) == ["latents"]
    with pytest.raises(FrozenInstanceError):
        some().latents = None


def test_the_number_of_pictures():
    assert len(some(5)) == 5
    assert len(Conditions(num_images=2)) == 2
    assert some(3).count("It", 3) == 3
    with pytest.raises(FmriModelsError, match="It was given batches of 2, 3; pass embeddings or latents of one batch"):
        Conditions(image_embeds=torch.rand(2, 3), latents=torch.rand(3, 2)).count("It")
    with pytest.raises(FmriModelsError, match="It was given nothing"):
        Conditions().count("It")


def test_some_of_the_pictures():
    conditions = some()
    some_of_them = conditions[1:3]
    assert len(some_of_them) == 2
    assert torch.equal(some_of_them.latents, conditions.latents[1:3])
    assert some_of_them.text_embeds is None
    assert len(Conditions(num_images=5)[3:]) == 2


def test_on_a_device_in_a_dtype():
    moved = replace(some(), num_images=4).to("cpu", torch.float64)
    assert moved.image_embeds.dtype == moved.latents.dtype == torch.float64
    assert moved.num_images == 4


def test_candidates_repeat_what_was_not_sampled():
    sampled = torch.arange(6.0)[:, None]
    conditions = Conditions(image_embeds=sampled, latents=torch.tensor([[1.0], [2.0]]))
    three = conditions.repeated(2, 3)
    assert torch.equal(three.image_embeds, sampled)
    assert three.latents.flatten().tolist() == [1, 1, 1, 2, 2, 2]
    one = conditions.repeated(2, 1)
    assert one.image_embeds.flatten().tolist() == [0, 3]
    assert len(three) == 6 and len(one) == 2


def test_lists_are_joined():
    joined = Conditions.joined(image_embeds=[torch.zeros(1, 3), torch.ones(2, 3)], latents=None)
    assert joined.image_embeds.shape == (3, 3)
    for wrong in ([], [1], "embeds", torch.zeros(2, 3).numpy()):
        with pytest.raises(FmriModelsError, match="Embeddings and latents are tensors"):
            Conditions.joined(latents=wrong)


def test_other_shapes_and_other_conditions_are_sentences():
    some().check(SPACES, "It")
    with pytest.raises(FmriModelsError, match="It takes no text_embeds; pass None instead"):
        Conditions(text_embeds=torch.zeros(1, 3)).check(SPACES, "It")
    with pytest.raises(FmriModelsError, match=r"It takes latents of shape \(N, 2, 2\); got \(1, 3\)"):
        Conditions(latents=torch.zeros(1, 3)).check(SPACES, "It")


def test_a_decoding_has_conditions():
    decoding = FmriDecoding(latents=torch.rand(2, 3), retrieval_embeds=torch.rand(2, 4))
    assert list(decoding.conditions.given) == ["latents"]
    assert decoding.conditions.latents is decoding.latents


def test_a_condition_that_a_decoding_does_not_know_is_not_left_out_silently(monkeypatch):
    monkeypatch.setitem(CONDITION_SPACES, "depth", "depth_space")
    with pytest.raises(AttributeError, match="depth"):
        _ = FmriDecoding(latents=torch.rand(2, 3)).conditions


def test_a_space_may_still_be_asked_for_by_kind():
    source = GeneratorSource(name="pixels", spaces={"latent_space": SPACES["latents"].to_dict()})
    with pytest.warns(FutureWarning, match="kind of space is name now"):
        assert source.space(kind="latent_space") == SPACES["latents"]


def test_guides_go_along_with_other_conditions() -> None:
    conv, fc = torch.randn(4, 2, 3, 3), torch.randn(4, 5)
    conditions = Conditions(latents=torch.randn(4, 1, 2, 2), guides={"net.conv1": conv, "net.fc2": fc})
    assert len(conditions) == 4 and list(conditions.given) == ["latents"] and not conditions.told_nothing
    assert conditions[1:3].guides["net.fc2"].shape == (2, 5)
    assert conditions.to("cpu", torch.float64).guides["net.conv1"].dtype == torch.float64
    assert torch.equal(conditions.repeated(4, 2).guides["net.fc2"], fc.repeat_interleave(2, dim=0))
    assert conditions.only("latents").guides is None and conditions.only("guides").latents is None
    assert list(conditions.only_guides(["net.fc2"]).guides) == ["net.fc2"]
    assert conditions.only_guides([]).guides is None
    with pytest.raises(FmriModelsError, match="given batches of 3, 4"):
        Conditions(latents=torch.randn(3, 1, 2, 2), guides={"net.fc2": fc}).count("It")
    space = EmbeddingSpace("net", "fc2", (5,))
    Conditions(guides={"net.fc2": fc}).check({"net.fc2": space}, "It")
    with pytest.raises(FmriModelsError, match="It takes no guide net.conv1; it takes net.fc2"):
        Conditions(guides={"net.conv1": conv}).check({"net.fc2": space}, "It")
    with pytest.raises(FmriModelsError, match=r"It takes net.fc2 of shape \(N, 5\); got \(4, 2, 3, 3\)"):
        Conditions(guides={"net.fc2": conv}).check({"net.fc2": space}, "It")
