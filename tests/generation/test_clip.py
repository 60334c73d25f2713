"""CLIP in an image generator's place: spaces, options, sources, and a retrieval-only pipeline with it."""

import json

import pytest
import torch
from torch.nn import functional as F

from fmri_models import (
    ClipTargets,
    FmriProcessor,
    FmriToImagePipeline,
    MindEyeConfig,
    MindEyeModel,
    MindEyePipeline,
    OpenClipModel,
)
from fmri_models.embedding_space import clip_image_tokens_space, clip_text_tokens_space
from fmri_models.errors import FmriModelsError
from fmri_models.generation.clip_embedding import ClipPreprocessing, pooled_image_embeds
from fmri_models.generation.weights_digest import weights_digest
from tests.generation.tiny_clip import OPEN_CLIP_CONFIG, open_clip_weights, tiny_clip, tiny_targets
from tests.pipeline_tester_mixin import PipelineHabits


def pictures(count=3, height=50, width=40):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1))


class TestClipTargets(PipelineHabits):
    generator_class = ClipTargets

    def make_pipeline(self):
        return tiny_targets()

    def computed(self, pipeline):
        captions = ["a cat", "a very long caption"]
        return {"image_embeds": pipeline.embed_images(pictures()), "text_embeds": pipeline.embed_texts(captions)}


class TestPooledClipTargets(TestClipTargets):
    def make_pipeline(self):
        return tiny_targets(layer="pooled")


class TestOpenClipTargets(TestClipTargets):
    def make_pipeline(self):
        model = OpenClipModel(OPEN_CLIP_CONFIG)
        model.load_original(open_clip_weights(tiny_clip()))
        return ClipTargets(model, encoder_name="tiny")


def test_default_spaces_are_mindeyes():
    """But for sizes and the name, which are the tiny encoder's here."""
    targets = tiny_targets()
    for found, published in (
        (targets.image_embedding_space, clip_image_tokens_space()),
        (targets.text_embedding_space, clip_text_tokens_space()),
    ):
        assert found.normalisation == published.normalisation
        assert found.layer == published.layer
        assert found.preprocessing == published.preprocessing.replace("224", "32")
    assert targets.image_embedding_space.encoder == "tiny"
    assert targets.text_embedding_space.encoder == "tiny/text"
    named = ClipTargets(targets.image_encoder, targets.text_encoder, targets.tokenizer)
    assert named.image_embedding_space.encoder == clip_image_tokens_space().encoder
    assert named.text_embedding_space.encoder == clip_text_tokens_space().encoder


@pytest.mark.parametrize("layer", ["projected_tokens", "pooled"])
@pytest.mark.parametrize("normalisation", ["token_norm", "none"])
def test_embeddings_have_the_stated_shape_and_norm(layer, normalisation):
    targets = tiny_targets(layer=layer, normalisation=normalisation)
    image, text = targets.embed_images(pictures()), targets.embed_texts(["a cat", "a dog", "a very long caption"])
    assert image.shape[1:] == targets.image_embedding_space.shape == ((17, 12) if layer != "pooled" else (12,))
    assert text.shape[1:] == targets.text_embedding_space.shape == ((9, 12) if layer != "pooled" else (12,))
    norms = image.norm(dim=-1) if layer == "pooled" else image[:, 0].norm(dim=-1)
    assert torch.allclose(norms, torch.ones(3)) == (normalisation == "token_norm")
    stated = targets.image_embedding_space.normalisation
    assert stated == ("none" if normalisation == "none" else "l2_norm" if layer == "pooled" else "cls_norm")
    raw = pooled_image_embeds(targets.image_encoder, ClipPreprocessing(32, antialias=False)(pictures()))
    class_token = image if layer == "pooled" else image[:, 0]
    torch.testing.assert_close(F.normalize(class_token), F.normalize(raw).detach())


def test_options_are_part_of_the_space():
    spaces = [
        tiny_targets(**options).image_embedding_space
        for options in (
            {},
            {"antialias": True},
            {"interpolation": "bilinear"},
            {"layer": "pooled"},
            {"normalisation": "none"},
            {"encoder_revision": "abc"},
            {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]},
        )
    ]
    assert len(set(spaces)) == len(spaces)
    with pytest.raises(FmriModelsError, match="layer 'last'"):
        tiny_targets(layer="last")


def test_embeddings_do_not_depend_on_the_batch():
    targets = tiny_targets()
    many = pictures(70)
    torch.testing.assert_close(targets.embed_images(many)[[3, 68]], targets.embed_images(many[[3, 68]]))
    texts = [f"caption {number}" for number in range(130)]
    torch.testing.assert_close(targets.embed_texts(texts)[[1, 129]], targets.embed_texts([texts[1], texts[129]]))


def test_saved_targets_are_loaded_with_their_options(tmp_path):
    targets = tiny_targets(layer="pooled", antialias=True)
    targets.save_pretrained(tmp_path)
    for loaded in (ClipTargets.from_pretrained(tmp_path), ClipTargets.from_source(str(tmp_path))):
        assert loaded.image_embedding_space == targets.image_embedding_space
        assert loaded.text_embedding_space == targets.text_embedding_space
        assert torch.equal(loaded.embed_images(pictures()), targets.embed_images(pictures()))
        assert torch.equal(loaded.embed_texts(["a cat"]), targets.embed_texts(["a cat"]))


def save_as_transformers(folder, seed=0):
    tiny_clip(seed).save_pretrained(folder)
    tiny_targets().tokenizer.save_pretrained(folder)


def test_a_clip_of_transformers_is_a_source(tmp_path):
    save_as_transformers(tmp_path / "one")
    save_as_transformers(tmp_path / "two", seed=1)
    loaded = ClipTargets.from_source(str(tmp_path / "one"))
    torch.testing.assert_close(loaded.embed_images(pictures()), tiny_targets().embed_images(pictures()))
    torch.testing.assert_close(loaded.embed_texts(["a cat"]), tiny_targets().embed_texts(["a cat"]))
    space = loaded.image_embedding_space
    assert space.encoder == "one"
    assert space.revision == weights_digest([loaded.image_encoder, loaded.text_encoder])
    assert space.revision != ClipTargets.from_source(str(tmp_path / "two")).image_embedding_space.revision
    as_published = ClipTargets.from_source(str(tmp_path / "one"), encoder_name="user/clip", layer="pooled")
    assert (as_published.image_embedding_space.encoder, as_published.image_embedding_space.revision) == (
        "user/clip",
        None,
    )
    assert as_published.image_embedding_space.layer == "pooled"


def test_a_source_without_a_tower_is_refused(tmp_path):
    targets = tiny_targets()
    targets.image_encoder.save_pretrained(tmp_path)
    targets.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(FmriModelsError, match="no CLIP with two projected towers"):
        ClipTargets.from_source(str(tmp_path))


def test_open_clip_gives_the_same_targets(tmp_path):
    import open_clip
    from safetensors.torch import save_file

    (tmp_path / "tiny-targets.json").write_text(json.dumps(OPEN_CLIP_CONFIG))
    open_clip.add_model_config(tmp_path / "tiny-targets.json")
    save_file(open_clip_weights(tiny_clip()), tmp_path / "weights.safetensors")
    targets = ClipTargets.from_open_clip("tiny-targets", tmp_path / "weights.safetensors", antialias=False)
    torch.testing.assert_close(targets.embed_images(pictures()), tiny_targets().embed_images(pictures()))
    assert targets.embed_texts(["a cat"]).shape[1:] == targets.text_embedding_space.shape == (9, 12)
    space = targets.image_embedding_space
    assert space.encoder == "open_clip/tiny-targets"
    assert space.revision == weights_digest([targets.image_encoder])
    targets.save_pretrained(tmp_path / "saved")
    loaded = ClipTargets.from_source(str(tmp_path / "saved"))
    assert isinstance(loaded.image_encoder, OpenClipModel)
    assert loaded.image_embedding_space == space
    assert torch.equal(loaded.embed_images(pictures()), targets.embed_images(pictures()))


def test_what_targets_lack_is_a_sentence():
    targets = tiny_targets()
    with pytest.raises(FmriModelsError, match="draws none"):
        targets(image_embeds=targets.embed_images(pictures()))
    with pytest.raises(FmriModelsError, match="no latents"):
        targets.encode_images(pictures())
    with pytest.raises(FmriModelsError, match="no latents"):
        targets.draw_latents(2)
    with pytest.raises(FmriModelsError, match="divide 8-bit"):
        targets.embed_images(255 * pictures())
    images_alone = ClipTargets(targets.image_encoder)
    assert images_alone.text_embedding_space is None
    with pytest.raises(FmriModelsError, match="no text tower"):
        images_alone.embed_texts(["a cat"])


def test_a_pipeline_retrieves_with_targets_and_says_that_it_draws_nothing(tmp_path):
    targets = tiny_targets()
    betas = torch.randn(8, 20, generator=torch.Generator().manual_seed(2))
    processor = FmriProcessor.fit({"subj01": betas.numpy()})
    config = MindEyeConfig(
        subject_names=["subj01"], num_voxels=[20], image_embedding_space=targets.image_embedding_space.to_dict(),
        hidden_size=16, num_hidden_layers=1, projector_size=8, use_prior=False,
    )  # fmt: skip
    pipe = MindEyePipeline(MindEyeModel(config), processor, targets)
    pipe.save_pretrained(tmp_path / "pipeline")
    loaded = FmriToImagePipeline.from_pretrained(tmp_path / "pipeline")
    assert loaded.image_generator.image_embedding_space == targets.image_embedding_space
    gallery = loaded.image_generator.embed_images(pictures(5))
    features = loaded.processor(betas.numpy(), subject="subj01")["fmri"]
    assert loaded.brain_model.retrieve(features, gallery, top_k=5).indices.shape == (8, 5)
    with pytest.raises(FmriModelsError, match="draws none"):
        loaded(betas.numpy(), subject="subj01")
