"""CLIP's embeddings: preprocessing, parity with the published targets, and transformers against open_clip."""

import json
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPVisionConfig, CLIPVisionModelWithProjection

from fmri_models.errors import FmriModelsError
from fmri_models.generation.clip_embedding import (
    ClipPreprocessing,
    divide_by_cls_norm,
    divide_by_end_norm,
    end_positions,
    pooled_image_embeds,
    pooled_text_embeds,
    project_image_tokens,
    project_text_tokens,
)
from fmri_models.generation.open_clip_model import OpenClipModel
from tests.generation.tiny_clip import END, OPEN_CLIP_CONFIG, START, captions, open_clip_weights, tiny_clip

FIXTURES = Path(__file__).parent.parent / "fixtures" / "mindeye"


@pytest.fixture(scope="module")
def clip():
    return tiny_clip()


@pytest.fixture(scope="module")
def open_clip_model(clip):
    model = OpenClipModel(OPEN_CLIP_CONFIG)
    model.load_original(open_clip_weights(clip))
    return model


def test_tokens_equal_the_published_targets():
    fixture = load_file(FIXTURES / "me1_clip_target.safetensors")
    encoder = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            image_size=4, patch_size=2, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
            num_attention_heads=2, projection_dim=8,
        )
    ).eval()  # fmt: skip
    with torch.no_grad():
        encoder.vision_model.post_layernorm.weight.copy_(fixture["ln_w"])
        encoder.vision_model.post_layernorm.bias.copy_(fixture["ln_b"])
        encoder.visual_projection.weight.copy_(fixture["proj"])
        # The fixture starts from the last hidden state, which is what the encoder gives back here.
        encoder.vision_model.encoder.register_forward_hook(
            lambda module, inputs, output: type(output)(last_hidden_state=fixture["last_hidden_state"])
        )
        tokens = project_image_tokens(encoder, torch.zeros(2, 3, 4, 4))
    torch.testing.assert_close(tokens, fixture["tokens_unnormed"], atol=1e-6, rtol=0)
    torch.testing.assert_close(divide_by_cls_norm(tokens), fixture["tokens"], atol=1e-6, rtol=0)


@torch.no_grad()
def test_transformers_and_open_clip_agree(clip, open_clip_model):
    pictures = ClipPreprocessing(32)(torch.rand(4, 3, 50, 40, generator=torch.Generator().manual_seed(1)))
    for function, inputs in (
        (project_image_tokens, pictures),
        (pooled_image_embeds, pictures),
        (project_text_tokens, captions()),
        (pooled_text_embeds, captions()),
    ):
        torch.testing.assert_close(function(clip, inputs), function(open_clip_model, inputs), atol=2e-6, rtol=1e-5)
    assert torch.equal(end_positions(clip, captions()), end_positions(open_clip_model, captions()))
    tokens = project_image_tokens(open_clip_model, pictures)
    assert tokens.shape == (4, open_clip_model.num_image_tokens, open_clip_model.embed_dim) == (4, 17, 12)


@torch.no_grad()
def test_tokens_hold_the_pooled_embedding_of_the_library_itself(clip, open_clip_model):
    pictures, ids = torch.randn(2, 3, 32, 32), captions()
    image, text = clip.get_image_features(pictures).pooler_output, clip.get_text_features(ids).pooler_output
    torch.testing.assert_close(project_image_tokens(clip, pictures)[:, 0], image)
    torch.testing.assert_close(pooled_image_embeds(clip, pictures), image)
    torch.testing.assert_close(pooled_text_embeds(clip, ids), text)
    torch.testing.assert_close(end_positions(clip, ids), torch.tensor([3, 5, 8]))
    open_clip_model.model.visual.output_tokens = open_clip_model.model.text.output_tokens = False
    image, text = open_clip_model.model.encode_image(pictures), open_clip_model.model.encode_text(ids)
    open_clip_model.model.visual.output_tokens = open_clip_model.model.text.output_tokens = True
    torch.testing.assert_close(project_image_tokens(open_clip_model, pictures)[:, 0], image)
    torch.testing.assert_close(pooled_text_embeds(open_clip_model, ids), text)


def test_end_token_of_old_configurations_is_the_largest_id():
    config = CLIPTextConfig(
        vocab_size=60, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=5, eos_token_id=2, projection_dim=4,
    )  # fmt: skip
    encoder = CLIPTextModelWithProjection(config).eval()
    ids = torch.tensor([[50, 2, 59, 0, 0], [50, 1, 2, 3, 59]])
    assert end_positions(encoder, ids).tolist() == [2, 4]
    with torch.no_grad():
        torch.testing.assert_close(pooled_text_embeds(encoder, ids), encoder(ids).text_embeds)


def test_norms_are_those_of_the_class_and_end_tokens():
    tokens = torch.randn(3, 5, 4)
    divided = divide_by_cls_norm(tokens)
    torch.testing.assert_close(divided[:, 0].norm(dim=-1), torch.ones(3))
    torch.testing.assert_close(divided[1, 3] * tokens[1, 0].norm(), tokens[1, 3])
    positions = torch.tensor([4, 0, 2])
    divided = divide_by_end_norm(tokens, positions)
    torch.testing.assert_close(divided[torch.arange(3), positions].norm(dim=-1), torch.ones(3))
    torch.testing.assert_close(divided[0, 1] * tokens[0, 4].norm(), tokens[0, 1])


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("shape", [(61, 97), (97, 61), (48, 48), (20, 31), (32, 45)])
def test_preprocessing_equals_torchvision(shape, interpolation, antialias):
    transforms = pytest.importorskip("torchvision.transforms")
    pictures = torch.rand(2, 3, *shape, generator=torch.Generator().manual_seed(2))
    own = ClipPreprocessing(32, interpolation=interpolation, antialias=antialias)
    mode = transforms.InterpolationMode(interpolation)
    theirs = transforms.Compose(
        [
            transforms.Resize(32, interpolation=mode, antialias=antialias),
            transforms.CenterCrop(32),
            transforms.Normalize(own.mean, own.std),
        ]
    )
    torch.testing.assert_close(own(pictures), theirs(pictures), atol=1e-6, rtol=0)


@torch.no_grad()
def test_antialiasing_changes_embeddings_of_reduced_pictures_only(clip):
    generator = torch.Generator().manual_seed(3)
    smooth, rough = ClipPreprocessing(32), ClipPreprocessing(32, antialias=False)
    for size, differs in ((128, True), (32, False)):
        pictures = torch.rand(2, 3, size, size, generator=generator)
        one, other = (pooled_image_embeds(clip, preprocess(pictures)) for preprocess in (smooth, rough))
        assert (F.cosine_similarity(one, other) < 0.999).all() == differs
        assert torch.equal(one, other) != differs


def test_preprocessing_describes_itself():
    assert ClipPreprocessing().description == "224 bicubic antialias, centre crop"
    assert ClipPreprocessing(antialias=False).description == "224 bicubic, centre crop"
    other = ClipPreprocessing(336, "bilinear", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    assert other.description == "336 bilinear antialias, centre crop, mean 0.5,0.5,0.5 std 0.5,0.5,0.5"
    with pytest.raises(FmriModelsError, match="repeat the channel"):
        ClipPreprocessing()(torch.rand(2, 1, 30, 30))
    with pytest.raises(FmriModelsError, match=r"torch\.uint8"):
        ClipPreprocessing()(torch.zeros(2, 3, 30, 30, dtype=torch.uint8))


@torch.no_grad()
def test_open_clip_component_is_saved_and_loaded(open_clip_model, tmp_path):
    open_clip_model.save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        loaded = OpenClipModel.from_pretrained(tmp_path)
    assert not loaded.training
    assert torch.equal(project_text_tokens(loaded, captions()), project_text_tokens(open_clip_model, captions()))
    pictures = torch.randn(2, 3, 32, 32)
    assert torch.equal(project_image_tokens(loaded, pictures), project_image_tokens(open_clip_model, pictures))


@torch.no_grad()
def test_half_precision_gives_single_precision_embeddings(clip, open_clip_model, tmp_path):
    open_clip_model.save_pretrained(tmp_path)
    half = OpenClipModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    pictures = torch.randn(2, 3, 32, 32)
    for function, inputs in ((project_image_tokens, pictures), (project_text_tokens, captions())):
        embedded = function(half, inputs)
        assert embedded.dtype == torch.float32
        similarity = F.cosine_similarity(embedded.flatten(1), function(clip, inputs).flatten(1))
        assert (similarity > 0.99).all()


@torch.no_grad()
def test_open_clip_reads_its_published_layouts(clip, tmp_path):
    import open_clip

    (tmp_path / "tiny-custom.json").write_text(json.dumps(OPEN_CLIP_CONFIG | {"custom_text": True}))
    open_clip.add_model_config(tmp_path)
    weights = open_clip_weights(clip)
    save_file(weights, tmp_path / "weights.safetensors")
    prefixed = {f"module.{name}": value for name, value in weights.items()}
    torch.save({"epoch": 3, "state_dict": prefixed}, tmp_path / "weights.pt")
    ids = captions()
    for name in ("weights.safetensors", "weights.pt"):
        model = OpenClipModel.from_weights("tiny-custom", tmp_path / name)
        own, other = project_text_tokens(model, ids), project_text_tokens(clip, ids)
        torch.testing.assert_close(own, other, atol=2e-6, rtol=1e-5)
    assert model.tokenize(["a cat"])[0, :5].tolist() == [START, 320, 2368, END, 0]
    assert model.tokenize(["a cat " * 10]).shape == (1, 9)


def test_bad_open_clip_weights_and_configurations_are_refused(clip, tmp_path):
    import open_clip

    (tmp_path / "tiny.json").write_text(json.dumps(OPEN_CLIP_CONFIG))
    open_clip.add_model_config(tmp_path)
    weights = open_clip_weights(clip)

    def refused(change, match):
        save_file(change, tmp_path / "bad.safetensors")
        with pytest.raises(FmriModelsError, match=match):
            OpenClipModel.from_weights("tiny", tmp_path / "bad.safetensors")

    refused({k: v for k, v in weights.items() if k != "visual.proj"}, "lacks visual.proj")
    refused(weights | {"visual.extra": torch.zeros(1)}, "unknown visual.extra")
    refused(weights | {"visual.proj": torch.zeros(16, 5)}, r"visual.proj of shape \(16, 5\)")
    (tmp_path / "bad.safetensors").write_bytes(b"garbage")
    with pytest.raises(FmriModelsError, match="can't be read as weights"):
        OpenClipModel.from_weights("tiny", tmp_path / "bad.safetensors")
    torch.save({"state_dict": Path("code")}, tmp_path / "bad.pt")
    with pytest.raises(FmriModelsError, match="more than tensors"):
        OpenClipModel.from_weights("tiny", tmp_path / "bad.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(FmriModelsError, match="no tensors by name"):
        OpenClipModel.from_weights("tiny", tmp_path / "list.pt")
    with pytest.raises(FmriModelsError, match="no file"):
        OpenClipModel.from_weights("tiny", tmp_path / "absent.pt")
    with pytest.raises(FmriModelsError, match="no network 'absent'"):
        OpenClipModel.from_weights("absent", tmp_path / "list.pt")
    for name, match in (("coca_ViT-B-32", "multimodal_cfg"), ("RN50", "vision tower .* ModifiedResNet"),
                        ("xlm-roberta-base-ViT-B-32", "tokenizer of its own")):  # fmt: skip
        with pytest.raises(FmriModelsError, match=match):
            OpenClipModel.from_weights(name, tmp_path / "list.pt")
