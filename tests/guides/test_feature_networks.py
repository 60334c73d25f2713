"""Networks whose layers are guides: real classes at small sizes, and the layout of the published weights."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection, DPTConfig, DPTForDepthEstimation

from fmri_models.errors import FmriModelsError
from fmri_models.generation.embedded import EmbeddedImageGenerator
from fmri_models.guides import FeatureNetwork, named_network
from fmri_models.guides.feature_network import units_of
from fmri_models.guides.layers_of_networks import outputs_of
from fmri_models.guides.named_networks import _VGG19_NODES, _of_vgg19, _Prepared
from fmri_models.guides.scene_vgg import SCENE_VGG_FOLDER
from fmri_models.scenes import KINDS, scene


def test_layers_are_kept_as_they_were_before_what_changes_them_in_place() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 3), nn.ReLU(inplace=True))
    pixels = torch.randn(2, 3, 8, 8)
    found = outputs_of(network, {"conv1": "0", "conv2": "2"}, pixels)
    torch.testing.assert_close(found["conv1"], network[0](pixels))
    torch.testing.assert_close(found["conv2"], network[2](network[0](pixels).relu()))
    assert (found["conv1"] < 0).any()


def test_nothing_behind_the_last_layer_is_computed() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(5, 6))
    assert outputs_of(network, {"first": "0"}, torch.randn(2, 3))["first"].shape == (2, 4)
    with pytest.raises(FmriModelsError, match="Sequential has no layer '7'; it has 0, 1"):
        outputs_of(network, {"first": "7"}, torch.randn(2, 3))


def test_layers_of_vgg19_are_those_before_a_relu() -> None:
    with torch.device("meta"):
        network = pytest.importorskip("torchvision").models.vgg19()
    modules = dict(network.named_modules())
    assert len(_VGG19_NODES) == 19
    for layer, node in _VGG19_NODES.items():
        module = modules[node]
        assert isinstance(module, nn.Conv2d if layer.startswith("conv") else nn.Linear)
        if layer != "fc8":
            prefix, _, number = node.rpartition(".")
            assert isinstance(modules[f"{prefix}.{int(number) + 1}"], nn.ReLU)
    widths = {layer: modules[node].weight.shape[0] for layer, node in _VGG19_NODES.items()}
    assert widths["conv1_2"] == 64 and widths["conv3_4"] == 256 and widths["conv5_1"] == 512
    assert [widths[name] for name in ("fc6", "fc7", "fc8")] == [4096, 4096, 1000]


def test_weights_of_vgg19_by_the_names_of_torchvision_or_caffe() -> None:
    assert _of_vgg19("features.0.weight") == "features.0.weight"
    assert _of_vgg19("conv1_1.weight") == _of_vgg19("features.conv1_1.weight") == "features.0.weight"
    assert _of_vgg19("classifier.fc7.bias") == "classifier.3.bias"


def test_caffes_networks_see_blue_first_and_less_the_mean() -> None:
    prepared = _Prepared(4, (104.0, 117.0, 123.0), (1.0, 1.0, 1.0), scale=255.0, bgr=True)
    red = torch.zeros(1, 3, 4, 4)
    red[:, 0] = 1
    assert prepared(red)[0, :, 0, 0].tolist() == [-104.0, -117.0, 132.0]
    assert "BGR" in prepared.description and "104,117,123" in prepared.description


def test_swav_resizes_a_crop_with_aligned_corners() -> None:
    pixels = torch.rand(1, 3, 256, 320)
    prepared = _Prepared(224, crop_first=256, align_corners=True)
    cropped = pixels[..., 32:288]
    expected = nn.functional.interpolate(cropped, (224, 224), mode="bicubic", align_corners=True)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(prepared(pixels), (expected - mean[:, None, None]) / std[:, None, None])


def test_resnet50_of_swav_at_unit_length(tmp_path: Path) -> None:
    models = pytest.importorskip("torchvision").models
    torch.manual_seed(0)
    network = models.resnet50()
    stored = {f"module.{name}": tensor for name, tensor in network.state_dict().items() if not name.startswith("fc.")}
    torch.save({**stored, "module.prototypes.weight": torch.zeros(3, 3)}, tmp_path / "swav.pth.tar")
    swav = named_network("swav").load(str(tmp_path / "swav.pth.tar"))
    pixels = torch.rand(1, 3, 64, 64)
    found = swav.features(pixels, ["avgpool"])["avgpool"]
    network.fc = nn.Identity()
    expected = network.eval()(swav.prepare(pixels))
    torch.testing.assert_close(found, expected / expected.norm())
    assert swav.spaces(["avgpool"])["avgpool"].shape == (2048,)
    assert swav.spaces(["avgpool"])["avgpool"].normalisation == "l2"


def clip_folder(folder: Path) -> CLIPVisionModelWithProjection:
    folder.mkdir()
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=7, num_attention_heads=2, image_size=224,
        patch_size=112, projection_dim=8,
    )  # fmt: skip
    model = CLIPVisionModelWithProjection(config).eval()
    save_file(dict(model.state_dict()), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"vision_config": config.to_dict(), "projection_dim": 8}))
    return model


def test_clip_s_blocks_and_embedding(tmp_path: Path) -> None:
    model = clip_folder(tmp_path / "clip")
    network = named_network("clip_b32").load(str(tmp_path / "clip"))
    layers = list(named_network("clip_b32").default_layers)
    assert layers == [*(f"block{number}" for number in range(1, 7)), "image_embeds"]
    pixels = torch.rand(2, 3, 224, 224)
    found = network.features(pixels, layers)
    with torch.no_grad():
        output = model(pixel_values=network.prepare(pixels), output_hidden_states=True)
    torch.testing.assert_close(found["image_embeds"], output.image_embeds)
    assert found["block1"].shape == (2, 5, 16)
    block = model.vision_model.encoder.layers[1]
    hidden = output.hidden_states[1]
    with torch.no_grad():
        attended = hidden + block.self_attn(block.layer_norm1(hidden))[0]
    torch.testing.assert_close(found["block2"], output.hidden_states[2] - attended)


def test_hidden_states_of_a_depth_network(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = DPTConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=5, num_attention_heads=2, image_size=32, patch_size=16,
        backbone_out_indices=[0, 1, 3, 4], neck_hidden_sizes=[4, 4, 4, 4], fusion_hidden_size=8,
    )  # fmt: skip
    model = DPTForDepthEstimation(config).eval()
    (tmp_path / "dpt").mkdir()
    save_file(dict(model.state_dict()), tmp_path / "dpt" / "model.safetensors")
    (tmp_path / "dpt" / "config.json").write_text(json.dumps(config.to_dict()))
    network = named_network("dpt").load(str(tmp_path / "dpt"))
    pixels = torch.rand(2, 3, 40, 40)
    found = network.features(pixels, network.layers)
    with torch.no_grad():
        hidden = model(pixel_values=network.prepare(pixels), output_hidden_states=True).hidden_states[1:]
    for name, position in zip(("hidden1", "hidden2", "hidden3", "hidden4"), (0, 1, 3, 4), strict=True):
        torch.testing.assert_close(found[name], hidden[position])
    assert network.spaces(["hidden1"])["hidden1"].shape == (5, 16)


def test_the_embedded_clip_is_the_generators() -> None:
    network = named_network("embedded_clip").load(None)
    pixels = torch.rand(2, 3, 64, 64)
    embeds = network.features(pixels, ["image_embeds"])["image_embeds"]
    expected = EmbeddedImageGenerator.from_assets().embed_images(pixels)[:, 0]
    torch.testing.assert_close(embeds / embeds.norm(dim=1, keepdim=True), expected, atol=1e-5, rtol=1e-4)


def test_the_network_of_scenes_tells_kinds_apart() -> None:
    network = named_network("scene_vgg").load(None)
    assert network.layers[0] == "conv1_1" and network.layers[-1] == "fc5"
    drawn = [scene(seed) for seed in range(810_000_000, 810_000_040)]
    pixels = torch.stack([torch.from_numpy(each.image.copy()).permute(2, 0, 1) / 255 for each in drawn])
    outputs = network.features(pixels, ["fc5"])["fc5"]
    config = json.loads((SCENE_VGG_FOLDER / "config.json").read_text())
    assert config["accuracy_of_1000_test_scenes"]["kind"] > 0.9
    named = [KINDS[index] for index in outputs[:, : len(KINDS)].argmax(dim=1).tolist()]
    assert sum(name == each.factors.kind for name, each in zip(named, drawn, strict=True)) >= 32


def test_pictures_do_not_depend_on_those_beside_them() -> None:
    network = named_network("scene_vgg").load(None)
    pixels = torch.rand(11, 3, 20, 24)
    together = network.features(pixels, ["conv2_2", "fc4"])
    for layer, values in together.items():
        alone = torch.cat([network.features(each[None], [layer])[layer] for each in pixels])
        torch.testing.assert_close(values, alone, atol=1e-5, rtol=1e-4)
    grey = network.features(pixels[:, :1], ["fc4"])["fc4"]
    torch.testing.assert_close(grey, network.features(pixels[:, :1].repeat(1, 3, 1, 1), ["fc4"])["fc4"])


def test_a_digest_of_the_weights() -> None:
    def network(value: float) -> FeatureNetwork:
        layer = nn.Linear(3, 2, bias=False)
        nn.init.constant_(layer.weight, value)
        return FeatureNetwork("small", "small", layer, {"out": ""}, lambda pixels: pixels, "none")

    assert network(1).revision == network(1).revision != network(2).revision


@pytest.mark.parametrize(("name", "weights", "sentence"), [
    ("vgg91", None, "There is no network 'vgg91' for guides; there are vgg19.*Did you mean 'vgg19'"),
    ("vgg19", None, "The network vgg19 needs its weights, a file of VGG19 as Caffe.*--guide-weights"),
    ("vgg19", "nowhere.pth", "There is no file nowhere.pth with weights of vgg19"),
    ("dpt", "nowhere", "There is no file nowhere/config.json with weights of dpt"),
    ("scene_vgg", "nowhere", "comes with the package.*leave weights out"),
])  # fmt: skip
def test_weights_that_are_not_there(name: str, weights: str | None, sentence: str) -> None:
    with pytest.raises(FmriModelsError, match=sentence):
        named_network(name).load(weights)


def test_weights_of_another_network_and_layers_that_are_not_there(tmp_path: Path) -> None:
    save_file({"features.0.weight": torch.zeros(2, 2)}, tmp_path / "vgg.safetensors")
    with pytest.raises(FmriModelsError, match="lacks .*not of vgg19's layout"):
        named_network("vgg19").load(str(tmp_path / "vgg.safetensors"))
    network = named_network("scene_vgg").load(None)
    with pytest.raises(FmriModelsError, match=r"scene_vgg has no layer 'conv9'; it has conv1_1, .*Did you mean"):
        network.spaces(["conv9"])
    with pytest.raises(FmriModelsError, match="takes float pictures of shape"):
        network.features(torch.zeros(1, 2, 8, 8), ["fc4"])


def test_some_units_of_larger_layers_are_always_the_same() -> None:
    network = named_network("scene_vgg").load(None)
    pixels = torch.rand(2, 3, 64, 64)
    whole = network.features(pixels, ["conv3_2", "fc5"])
    some = network.features(pixels, ["conv3_2", "fc5"], units=100)
    assert some["conv3_2"].shape == (2, 100) and torch.equal(some["fc5"], whole["fc5"])
    positions = [int((whole["conv3_2"][0].flatten() == value).nonzero()[0]) for value in some["conv3_2"][0]]
    assert positions == sorted(positions)
    torch.testing.assert_close(some["conv3_2"][1], whole["conv3_2"][1].flatten()[positions])
    spaces = network.spaces(["conv3_2", "fc5"], units=100)
    assert spaces["conv3_2"].shape == (100,) and spaces["conv3_2"].normalisation == "none, 100 of 16384 units"
    assert (units_of(spaces["conv3_2"]), units_of(spaces["fc5"])) == (100, None)


def test_layers_of_alexnet_are_those_before_a_relu(tmp_path: Path) -> None:
    models = pytest.importorskip("torchvision").models
    torch.manual_seed(0)
    alexnet = models.alexnet().eval()
    torch.save(alexnet.state_dict(), tmp_path / "alexnet.pth")
    network = named_network("alexnet").load(str(tmp_path / "alexnet.pth"))
    assert network.layers == ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"]
    pixels = torch.rand(1, 3, 224, 224)
    found = network.features(pixels, network.layers, units=1000)
    assert all(each.shape == (1, 1000) for each in found.values())
    with torch.no_grad():
        torch.testing.assert_close(found["fc8"], alexnet(network.prepare(pixels)))
