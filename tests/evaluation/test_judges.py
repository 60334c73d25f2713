"""No network scores what it has chosen itself."""

from types import SimpleNamespace

import pytest

from fmri_models.drawing_settings import DrawingSettings
from fmri_models.embedding_space import EmbeddingSpace
from fmri_models.errors import FmriModelsError
from fmri_models.evaluation.evaluate import Evaluation
from fmri_models.evaluation.judges import check_judges
from fmri_models.evaluation.protocols import Protocol
from fmri_models.evaluation.seeded_drawing import SeededDrawing

CLIP = "openai/clip-vit-large-patch14"
SCORING = ["efficientnet_lite0", "clip_vit_l14"]


def generator(encoder):
    space = None if encoder is None else EmbeddingSpace(encoder=encoder, layer="pooled", shape=(768,))
    return SimpleNamespace(image_embedding_space=space)


@pytest.mark.parametrize("encoder", [CLIP, "open_clip/ViT-L-14-quickgelu", "timm/vit_large_patch14_clip_224.openai"])
def test_clip_may_not_choose_and_score(encoder):
    with pytest.raises(FmriModelsError, match=r"16 candidates.*clip_vit_l14.*--selection first"):
        check_judges(SCORING, generator(encoder), DrawingSettings(num_candidates=16))


@pytest.mark.parametrize(
    ("encoder", "settings"),
    [
        (CLIP, DrawingSettings()),
        (CLIP, DrawingSettings(num_candidates=16, selection="first")),
        ("laion/CLIP-ViT-H-14-laion2B-s32B-b79K", DrawingSettings(num_candidates=16)),
        ("embedded/image_encoder/vision", DrawingSettings(num_candidates=16)),
        (None, DrawingSettings(num_candidates=16)),
    ],
)
def test_others_may(encoder, settings):
    check_judges(SCORING, generator(encoder), settings)


def test_a_metric_of_another_network_may_score_what_clip_chose():
    check_judges(["efficientnet_lite0", "swav_resnet50"], generator(CLIP), DrawingSettings(num_candidates=16))


@pytest.mark.parametrize(
    ("size", "metric", "candidates", "message"),
    [
        (64, "two_way_alexnet2", 1, "alexnet2 needs its weights"),
        (64, "two_way_clip_vit_l14", 4, "One of 4 candidates would be chosen by"),
        (28, "two_way_alexnet2", 1, None),
        (64, "two_way_efficientnet_lite0", 4, None),
    ],
)
def test_networks_are_checked_before_anything_is_drawn(size, metric, candidates, message, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    evaluation = Evaluation("model", tmp_path, Protocol("test", "", ("pixcorr", metric)))
    pipeline = SimpleNamespace(image_generator=generator(CLIP))
    pipeline.image_generator.image_size = (3, size, size)
    drawing = SeededDrawing(DrawingSettings(num_candidates=candidates))
    if message is None:
        evaluation._check_networks(pipeline, drawing)
        return
    with pytest.raises(FmriModelsError, match=message):
        evaluation._check_networks(pipeline, drawing)
