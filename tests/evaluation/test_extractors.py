"""Extractors of published weights: the layer that is read, what is done to pictures before, where weights are from."""

import importlib

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import feature_extraction
from torchvision.transforms import v2

from fmri_models.errors import FmriModelsError
from fmri_models.evaluation.extractors import (
    EXTRACTORS,
    Layout,
    MissingWeightsError,
    NetworkExtractor,
    NodeReader,
    Preprocessing,
    PublishedExtractor,
    WeightsFile,
    check_weights,
    has_known_weights,
    load_extractor,
)
from fmri_models.evaluation.extractors.torch_networks import VisionTower, clip_vision, open_clip_vision
from fmri_models.guides.network_weights import network_from, with_tensors
from fmri_models.original_checkpoint import read_state

# Name to the shape of one picture's features, and that of what the network sees.
NODES = {
    "alexnet2": ((192, 31, 31), 256),
    "alexnet5": ((256, 15, 15), 256),
    "inception_v3": ((2048, 1, 1), 342),
    "clip_vit_l14": ((768,), 224),
    "efficientnet_b1": ((1280, 1, 1), 255),
    "efficientnet_b1_v1": ((1280, 1, 1), 255),
    "swav_resnet50": ((2048, 1, 1), 224),
    "vit_h14": ((1000,), 518),
    "inception_fid64": ((64, 1, 1), 299),
    "inception_fid2048": ((2048, 1, 1), 299),
    "alexnet2_224": ((192, 27, 27), 224),
    "alexnet5_224": ((256, 13, 13), 224),
    "inception_v3_224": ((2048, 1, 1), 224),
    "efficientnet_b1_v1_224": ((1280, 1, 1), 224),
    "swav_resnet50_224": ((2048, 1, 1), 224),
    "clip_vit_l14_224": ((768,), 224),
    "clip_vit_l14_bicubic": ((768,), 224),
    "alexnet_features5_299": ((192, 17, 17), 299),
    "alexnet_features12_299": ((256, 8, 8), 299),
    "alexnet_classifier5_299": ((4096,), 299),
    "inception_v3_299": ((2048, 1, 1), 299),
}
PICTURES = torch.rand(3, 3, 20, 30, generator=torch.Generator().manual_seed(0))


def small() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 3))


def trained(seed=0) -> nn.Module:
    torch.manual_seed(seed)
    return small().eval()


FILE = WeightsFile("small-12345678.pth", "https://127.0.0.1:9/small-12345678.pth")
SMALL = PublishedExtractor("small", ("12345678",), layouts={FILE: Layout(small, "2")}, preprocessing=Preprocessing(16))


# ------------------------------------------------------------------------------------------------------------- layers


def test_every_published_extractor_is_tested_here():
    assert NODES.keys() == {name for name, each in EXTRACTORS.items() if isinstance(each, PublishedExtractor)}


@pytest.mark.parametrize("name", NODES)
def test_the_layer_has_the_published_shape(name):
    # Networks of the real classes on the meta device, which has shapes and no numbers.
    features, side = NODES[name]
    for layout in EXTRACTORS[name].layouts.values():
        with torch.device("meta"):
            network = layout.build().eval()
            pixels = EXTRACTORS[name].preprocessing(torch.zeros(2, 1, 64, 64))
            assert pixels.shape == (2, 3, side, side)
            with torch.inference_mode():
                assert NodeReader(network, layout.node)(pixels).shape == (2, *features)


def test_alexnet_is_read_after_the_relu_and_not_after_what_follows():
    alexnet = EXTRACTORS["alexnet2"]
    torch.manual_seed(0)
    network = next(iter(alexnet.layouts.values())).build().eval()
    features = alexnet.of(network)(PICTURES)
    assert features.shape == (3, 192 * 31 * 47) and features.dtype == torch.float32
    assert (features >= 0).all() and features.std() > 0
    expected = network.features[:5](alexnet.preprocessing(PICTURES)).flatten(1)
    torch.testing.assert_close(features, expected)
    features.requires_grad_(True)


def test_a_layer_is_what_torchvision_itself_gives():
    torch.manual_seed(1)
    b1 = EXTRACTORS["efficientnet_b1"]
    network = next(iter(b1.layouts.values())).build().eval()
    original = feature_extraction.create_feature_extractor(network, ["avgpool"])
    with torch.inference_mode():
        expected = original(b1.preprocessing(PICTURES))["avgpool"].flatten(1)
    torch.testing.assert_close(b1.of(network)(PICTURES), expected, atol=1e-5, rtol=1e-4)


SMALL_TOWER = VisionTower(image_size=28, width=32, layers=2, heads=2, embed_dim=16)


def in_open_clips_layout(state):
    """Weights of transformers' tower by open_clip's names."""
    found = {
        "class_embedding": state["vision_model.embeddings.class_embedding"],
        "positional_embedding": state["vision_model.embeddings.position_embedding.weight"],
        "conv1.weight": state["vision_model.embeddings.patch_embedding.weight"],
        "proj": state["visual_projection.weight"].T,
    }
    parts = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
             "self_attn.out_proj": "attn.out_proj"}  # fmt: skip
    for kind in ("weight", "bias"):
        found[f"ln_pre.{kind}"] = state[f"vision_model.pre_layrnorm.{kind}"]
        found[f"ln_post.{kind}"] = state[f"vision_model.post_layernorm.{kind}"]
        for layer in range(SMALL_TOWER.layers):
            theirs, ours = f"vision_model.encoder.layers.{layer}", f"transformer.resblocks.{layer}"
            found |= {f"{ours}.{own}.{kind}": state[f"{theirs}.{name}.{kind}"] for name, own in parts.items()}
            attention = [state[f"{theirs}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
            found[f"{ours}.attn.in_proj_{kind}"] = torch.cat(attention)
    return {f"visual.{name}": value for name, value in found.items()}


def test_clip_of_transformers_and_of_open_clip_are_one_network():
    torch.manual_seed(2)
    transformers, open_clip = EXTRACTORS["clip_vit_l14"].layouts.values()
    network = clip_vision(SMALL_TOWER).eval()
    pixels = torch.randn(2, 3, 28, 28)
    with torch.inference_mode():
        expected = network(pixels).image_embeds
        torch.testing.assert_close(NodeReader(network, transformers.node)(pixels), expected)
        state = in_open_clips_layout(network.state_dict()) | {"logit_scale": torch.ones(())}
        other = with_tensors(open_clip_vision(SMALL_TOWER), state, open_clip.own_name, "CLIP", "file")
        torch.testing.assert_close(NodeReader(other, open_clip.node)(pixels), expected, atol=1e-5, rtol=1e-4)


def test_a_network_of_timm_is_read_like_any_other():
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        network = timm.create_model("tf_efficientnet_lite0").eval()
        assert NodeReader(network, "global_pool")(torch.zeros(2, 3, 64, 64)).shape == (2, 1280)


def test_unknown_layers_are_sentences():
    with pytest.raises(FmriModelsError, match="Sequential has no layer '9'; it has 0, 1, 2, 3"):
        NodeReader(small(), "9")
    unused = nn.Sequential(nn.Identity())
    unused[0].beside = nn.Identity()
    with pytest.raises(FmriModelsError, match=r"does not run its layer '0\.beside'"):
        NodeReader(unused, "0.beside")(PICTURES)


def test_batches_are_small_and_change_nothing():
    seen = []

    def read(pixels):
        seen.append(len(pixels))
        return pixels.mean((2, 3))

    extractor = NetworkExtractor("mean", read, Preprocessing(8), batch_size=2)
    features = extractor(PICTURES)
    assert seen == [2, 1] and features.shape == (3, 3)
    torch.testing.assert_close(features[2:], extractor(PICTURES[2:]))
    assert extractor.cache_key is None and len(extractor(PICTURES[:0])) == 0


# ------------------------------------------------------------------------------------------------------ preprocessing


@pytest.mark.parametrize(("size", "antialias"), [(16, False), (16, True), (45, False)])
def test_resizing_is_that_of_torchvision(size, antialias):
    original = v2.Compose(
        [v2.Resize(size, antialias=antialias), v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
    )
    torch.testing.assert_close(Preprocessing(size, antialias=antialias)(PICTURES), original(PICTURES))


def test_bicubic_resizing_stays_in_range_and_is_cropped_in_the_middle():
    preprocessing = Preprocessing(10, "bicubic", antialias=True, crop=6, mean=(0, 0, 0), std=(1, 1, 1))
    found = preprocessing(PICTURES)
    expected = v2.CenterCrop(6)(v2.Resize(10, interpolation=3, antialias=True)(PICTURES).clamp(0, 1))
    torch.testing.assert_close(found, expected)
    sharp = torch.zeros(1, 1, 8, 8)
    sharp[..., 4:] = 1
    found = Preprocessing(32, "bicubic", square=True, mean=(0, 0, 0), std=(1, 1, 1))(sharp)
    assert found.shape == (1, 3, 32, 32) and found.min() == 0 and found.max() == 1


def test_tensorflows_pixels_lie_half_a_pixel_off():
    ramp = torch.arange(10.0).div(10).expand(1, 3, 10, 10)
    found = Preprocessing(25, "tensorflow", square=True, mean=(0, 0, 0), std=(1, 1, 1))(ramp)
    torch.testing.assert_close(found[0, 0, 3], (torch.arange(25) * 0.4).clamp(max=9) / 10)


def test_brain_diffusers_networks_see_what_pillow_makes():
    pictures = (PICTURES * 255).round() / 255
    preprocessing = EXTRACTORS["alexnet2_224"].preprocessing
    found = Preprocessing(12, antialias=True, square=True, mean=(0, 0, 0), std=(1, 1, 1))(pictures)
    pillow = [v2.functional.resize(v2.functional.to_pil_image(each), [12, 12]) for each in pictures]
    expected = torch.stack([v2.functional.pil_to_tensor(each) for each in pillow]) / 255
    # Pillow rounds to 8 bits after each direction.
    torch.testing.assert_close(found, expected, atol=1.5 / 255, rtol=0)
    assert (preprocessing.antialias, preprocessing.square, preprocessing.size) == (True, True, 224)


def test_descriptions_tell_preprocessings_apart():
    every = {each.preprocessing for each in EXTRACTORS.values() if isinstance(each, PublishedExtractor)}
    assert len({each.description for each in every}) == len(every)
    assert Preprocessing(342).description == "342 bilinear, ImageNet's normalisation"


# ------------------------------------------------------------------------------------------------------------- weights


def test_weights_come_from_the_folder_and_from_nowhere_else(tmp_path):
    network = trained()
    torch.save(network.state_dict(), tmp_path / FILE.file)
    extractor = SMALL.load(tmp_path)
    assert extractor.file == FILE.file and len(extractor.sha256) == 64
    expected = F.relu(network[1](network[0](SMALL.preprocessing(PICTURES)))).flatten(1)
    torch.testing.assert_close(extractor(PICTURES), expected)
    # Another training is another network: nothing of the first is left.
    torch.save(trained(1).state_dict(), tmp_path / FILE.file)
    assert not torch.allclose(SMALL.load(tmp_path)(PICTURES), expected)


def test_a_digest_that_nobody_knows_is_said(tmp_path, monkeypatch):
    torch.save(trained().state_dict(), tmp_path / FILE.file)
    monkeypatch.setitem(EXTRACTORS, "small", SMALL)
    extractor = load_extractor("small", tmp_path)
    assert not has_known_weights(extractor)
    monkeypatch.setitem(EXTRACTORS, "small", SMALL.otherwise("small", known_sha256=(extractor.sha256[:8],)))
    assert has_known_weights(extractor)
    assert has_known_weights(load_extractor("efficientnet_lite0"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("3.bias"), "lacks 3.bias"),
        (lambda state: state.update(extra=torch.zeros(1)), "has the unknown extra"),
        (lambda state: state.update({"0.weight": torch.zeros(4, 3, 2, 2)}), r"0\.weight of .* has shape"),
        (lambda state: state["3.weight"].fill_(torch.nan), "NaN or infinite"),
    ],
)
def test_a_file_of_another_network_is_refused(tmp_path, change, message):
    state = trained().state_dict()
    change(state)
    torch.save(state, tmp_path / FILE.file)
    with pytest.raises(FmriModelsError, match=message):
        SMALL.load(tmp_path)


def test_code_in_a_file_is_not_run(tmp_path):
    torch.save(trained(), tmp_path / FILE.file)
    with pytest.raises(FmriModelsError, match="code from a file is not run"):
        SMALL.load(tmp_path)


def test_counters_of_training_may_be_missing(tmp_path):
    state = {name: value for name, value in trained().state_dict().items() if "num_batches" not in name}
    torch.save(state, tmp_path / "weights.pth")
    network = network_from(small, tmp_path / "weights.pth", lambda name: name, "small")
    assert not any(tensor.is_meta for tensor in network.state_dict().values())
    assert not any(each.requires_grad for each in network.parameters()) and not network.training


def test_weights_that_are_nowhere_are_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    with pytest.raises(FmriModelsError) as without:
        check_weights("alexnet2")
    assert "alexnet-owt-7be5be79.pth" in str(without.value) and "--weights" in str(without.value)
    assert isinstance(without.value, MissingWeightsError) and without.value.files == "alexnet-owt-7be5be79.pth"
    assert "HF_HUB_OFFLINE is set" in str(without.value) and str(without.value).count(". ") == 0
    with pytest.raises(FmriModelsError, match=r"has no such file.*give that with --weights"):
        check_weights("clip_vit_l14", tmp_path)
    with pytest.raises(FmriModelsError, match="There is no folder"):
        check_weights("alexnet2", tmp_path / "absent")
    with pytest.raises(FmriModelsError, match="There is no folder"):
        load_extractor("efficientnet_lite0", tmp_path / "absent")
    # No network: a server that is not there is named, and nothing is left of the try.
    monkeypatch.setattr("fmri_models.evaluation.extractors.weights_files.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(FmriModelsError, match=r"none can be fetched now \(https://127\.0\.0\.1:9"):
        SMALL.check(tmp_path)


def test_what_pytorch_has_fetched_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(trained().state_dict(), tmp_path / "hub" / "checkpoints" / FILE.file)
    assert SMALL.load().file == FILE.file


def test_swavs_file_has_prefixes_and_heads_that_are_left_out():
    layout = next(iter(EXTRACTORS["swav_resnet50"].layouts.values()))
    torch.manual_seed(3)
    network = layout.build()
    stored = {f"module.{name}": value for name, value in network.state_dict().items()}
    heads = {"module.projection_head.0.weight": torch.ones(2), "module.prototypes.weight": torch.ones(2)}
    other = with_tensors(layout.build(), read_state(stored | heads), layout.own_name, "SwAV", "file")
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in network.state_dict().items())


def test_tensors_of_clips_text_tower_are_left_out():
    transformers, open_clip = EXTRACTORS["clip_vit_l14"].layouts.values()
    names = ("vision_model.post_layernorm.bias", "visual_projection.weight")
    assert tuple(map(transformers.own_name, names)) == names
    for name in ("text_model.x", "logit_scale", "vision_model.embeddings.position_ids", "text_projection.weight"):
        assert transformers.own_name(name) is None
    assert (open_clip.own_name("visual.proj"), open_clip.own_name("ln_final.bias")) == ("proj", None)


def test_old_names_of_torchvisions_transformers_are_read():
    vit = importlib.import_module("torchvision.models").VisionTransformer(16, 8, 1, 2, 8, 16, num_classes=3)
    state = vit.state_dict()
    former = {
        name.replace(".mlp.0.", ".mlp.linear_1.").replace(".mlp.3.", ".mlp.linear_2."): value
        for name, value in state.items()
    }
    assert former.keys() != state.keys()
    (layout,) = EXTRACTORS["vit_h14"].layouts.values()
    other = importlib.import_module("torchvision.models").VisionTransformer(16, 8, 1, 2, 8, 16, num_classes=3)
    with_tensors(other, former, layout.own_name, "ViT", "file")
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in state.items())


def test_known_digests_are_those_of_torchvisions_file_names():
    for extractor in EXTRACTORS.values():
        for file in getattr(extractor, "layouts", {}):
            if "download.pytorch.org" in file.address or "6726825d" in file.address:
                (known,) = extractor.known_sha256
                assert file.file.endswith(f"-{known}.pth") and file.address.endswith(file.file)
