"""Folders of networks whose configuration is damaged or hostile end in a sentence, and never pass for another's."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    DPTConfig,
    DPTForDepthEstimation,
)

from fmri_models.errors import FmriModelsError
from fmri_models.guides import named_network
from fmri_models.guides.blip import Captioner

SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folders = tmp_path_factory.mktemp("networks")
    clip = CLIPVisionConfig(**SIZES, num_hidden_layers=6, image_size=224, patch_size=112, projection_dim=8)
    CLIPVisionModelWithProjection(clip).save_pretrained(folders / "clip_b32")
    depth = DPTConfig(
        **SIZES, num_hidden_layers=4, image_size=32, patch_size=16, backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[4, 4, 4, 4], fusion_hidden_size=8,
    )  # fmt: skip
    DPTForDepthEstimation(depth).save_pretrained(folders / "dpt")
    text = {**SIZES, "vocab_size": 9, "encoder_hidden_size": 16, "num_hidden_layers": 1, "bos_token_id": 1}
    text |= {"sep_token_id": 2, "pad_token_id": 0, "eos_token_id": 2, "max_position_embeddings": 32}
    vision = {**SIZES, "num_hidden_layers": 1, "image_size": 48, "patch_size": 16, "initializer_range": 0.1}
    BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=vision)).save_pretrained(folders / "blip")
    (folders / "blip" / "vocab.txt").write_text("[PAD]\n[CLS]\n[SEP]\n[UNK]\n[MASK]\na\nb\nc\nd")
    return folders


def changed(folder: Path, to: Path, change: Callable[[dict[str, Any]], Any]) -> str:
    to.mkdir()
    for file in folder.iterdir():
        if file.name != "config.json":
            (to / file.name).symlink_to(file)
    values = json.loads((folder / "config.json").read_text())
    change(values)
    (to / "config.json").write_text(json.dumps(values))
    return str(to)


HUGE = 10**9
DAMAGES: dict[str, tuple[str, Callable[[dict[str, Any]], Any], str]] = {
    "text for a size": ("clip_b32", lambda v: v.update(hidden_size="big"), "can't be built as its config.json says"),
    "a size of terabytes": ("clip_b32", lambda v: v.update(intermediate_size=HUGE), "configuration asks for"),
    "layers without end": ("clip_b32", lambda v: v.update(num_hidden_layers=HUGE), "has 1000000000 as num_hidden_l"),
    "a number beyond 64 bits": ("clip_b32", lambda v: v.update(hidden_size=10**30), "as hidden_size; expected"),
    "a picture of nothing": ("clip_b32", lambda v: v.update(image_size=None), "can't be built as its config.json"),
    "no size": ("clip_b32", lambda v: v.update(hidden_size=0), "clip_b32|config.json"),
    "an unknown activation": ("clip_b32", lambda v: v.update(hidden_act="rm -rf"), "can't be built as its config.json"),
    "no towers configuration": ("clip_b32", lambda v: v.update(vision_config=[1]), "can't be built as its config.json"),
    "a dropout that is none": ("clip_b32", lambda v: v.update(attention_dropout="x"), "can't be built as its config"),
    "layers that are not there": ("dpt", lambda v: v.update(backbone_out_indices=[0, 1, 2, 9]), "has no layer 'dpt."),
    "lists without end": ("dpt", lambda v: v.update(neck_hidden_sizes=[4] * 2000), "2000 entries in neck_hidden_sizes"),
    "several layers without end": ("blip", lambda v: v["vision_config"].update(num_hidden_layers=HUGE), "as num_hidd"),
    "negative heads": ("blip", lambda v: v["vision_config"].update(num_attention_heads=-1), "can't be built as its"),
    "a token that is not there": ("blip", lambda v: v["text_config"].update(bos_token_id=99), "99 as bos_token_id"),
    "no token": ("blip", lambda v: v["text_config"].update(bos_token_id=None), "None as bos_token_id; expected a numb"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_configuration_is_one_sentence(folders: Path, tmp_path: Path, name: str) -> None:
    network, damage, sentence = DAMAGES[name]
    folder = changed(folders / network, tmp_path / "damaged", damage)
    with pytest.raises(FmriModelsError, match=sentence) as found:
        named_network(network).load(folder)
    assert "\n" not in str(found.value)


SAME_WEIGHTS: dict[str, tuple[str, Callable[[dict[str, Any]], Any], str]] = {
    "another activation": ("clip_b32", lambda v: v.update(hidden_act="relu"), "block2"),
    "other heads": ("clip_b32", lambda v: v.update(num_attention_heads=4), "block2"),
    "layers of other places": ("dpt", lambda v: v.update(backbone_out_indices=[1, 0, 2, 3]), "hidden1"),
    "another vision tower": ("blip", lambda v: v["vision_config"].update(hidden_act="relu"), "tokens"),
}


@pytest.mark.parametrize("name", SAME_WEIGHTS)
def test_the_same_weights_that_make_other_features_have_another_digest(
    folders: Path, tmp_path: Path, name: str
) -> None:
    network, change, layer = SAME_WEIGHTS[name]
    one, again = (named_network(network).load(str(folders / network)) for _ in range(2))
    other = named_network(network).load(changed(folders / network, tmp_path / "other", change))
    pixels = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(one.features(pixels, [layer])[layer], other.features(pixels, [layer])[layer])
    assert one.revision == again.revision != other.revision


def test_weights_of_blip_that_no_network_can_compute_with(folders: Path, tmp_path: Path) -> None:
    model = BlipForConditionalGeneration.from_pretrained(folders / "blip")
    with torch.no_grad():
        next(model.vision_model.parameters()).fill_(float("nan"))
    model.save_pretrained(tmp_path / "blip")
    with pytest.raises(FmriModelsError, match="values that are NaN or infinite"):
        named_network("blip").load(str(tmp_path / "blip"))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"sep_token_id": -1}, "-1 as sep_token_id"),
        ({"num_attention_heads": -1}, "can't be built as its config.json says"),
        ({"num_hidden_layers": 0}, "has layers that its configuration does not have, such as text_decoder"),
        ({"hidden_dropout_prob": float("nan")}, "is no number|can't be built as its config.json|no readable JSON"),
    ],
)
def test_folders_whose_text_decoder_writes_nothing(
    folders: Path, tmp_path: Path, values: dict[str, Any], sentence: str
) -> None:
    folder = changed(folders / "blip", tmp_path / "blip", lambda v: v["text_config"].update(values))
    with pytest.raises(FmriModelsError, match=sentence):
        Captioner.from_folder(folder)


def test_an_adapter_beside_blip_is_not_read(folders: Path, tmp_path: Path) -> None:
    folder = changed(folders / "blip", tmp_path / "blip", lambda v: None)
    (tmp_path / "blip" / "adapter_config.json").write_text('{"base_model_name_or_path": "elsewhere"}')
    with pytest.raises(FmriModelsError, match="has an adapter .* beside BLIP"):
        named_network("blip").load(folder)
