"""LPIPS with random weights: what the distance is, beside the package `lpips` where it is there."""

import pytest
import torch

from fmri_models.errors import FmriModelsError
from fmri_models.evaluation import LpipsAlexNet, lpips
from fmri_models.evaluation.perceptual import BACKBONE_FILE, LINEAR_FILE

WIDTHS = {0: (64, 3, 11, 11), 3: (192, 64, 5, 5), 6: (384, 192, 3, 3), 8: (256, 384, 3, 3), 10: (256, 256, 3, 3)}


@pytest.fixture(scope="module")
def weights():
    generator = torch.Generator().manual_seed(0)
    backbone = {}
    for position, shape in WIDTHS.items():
        backbone[f"features.{position}.weight"] = torch.randn(shape, generator=generator) / shape[1] / shape[2]
        backbone[f"features.{position}.bias"] = 0.1 * torch.randn(shape[0], generator=generator)
    linear = {
        f"lin{place}.model.1.weight": torch.rand(1, shape[0], 1, 1, generator=generator)
        for place, shape in enumerate(WIDTHS.values())
    }
    return backbone, linear


@pytest.fixture(scope="module")
def both():
    return torch.rand(2, 3, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def test_the_package_says_the_same(weights, both):
    package = pytest.importorskip("lpips")
    backbone, linear = weights
    original = package.LPIPS(net="alex", pnet_rand=True, pretrained=False, verbose=False)
    layers = [module for module in original.net.modules() if isinstance(module, torch.nn.Conv2d)]
    for position, layer in zip(WIDTHS, layers, strict=True):
        layer.load_state_dict({name: backbone[f"features.{position}.{name}"] for name in ("weight", "bias")})
    for place, layer in enumerate(original.lins):
        layer.load_state_dict({"model.1.weight": linear[f"lin{place}.model.1.weight"]})
    with torch.inference_mode():
        expected = original(*both, normalize=True).flatten().double()
    torch.testing.assert_close(lpips(*both, LpipsAlexNet(*weights), "none"), expected, atol=1e-6, rtol=1e-5)


def test_a_distance(weights, both):
    network = LpipsAlexNet(*weights)
    truth, recon = both
    assert lpips(truth, truth, network) == 0
    apart = lpips(truth, recon, network, reduction="none")
    assert (apart > 0).all() and apart.dtype == torch.float64
    torch.testing.assert_close(lpips(recon, truth, network, reduction="none"), apart)
    nearer = lpips(truth, 0.9 * truth + 0.1 * recon, network, reduction="none")
    assert (nearer < apart).all()
    # What is constant is as far from the picture as it is: a failure, never NaN.
    assert lpips(truth, torch.full_like(truth, 0.5), network) > 0
    assert lpips(truth[:, :1], recon[:, :1], network) > 0


def test_files(weights, both, tmp_path, monkeypatch):
    monkeypatch.setattr("fmri_models.evaluation.perceptual._of_package", lambda: None)
    with pytest.raises(FmriModelsError, match=f"needs the file .*{BACKBONE_FILE}"):
        LpipsAlexNet.from_folder(tmp_path)
    torch.save(weights[0] | {"classifier.6.bias": torch.zeros(3)}, tmp_path / BACKBONE_FILE)
    with pytest.raises(FmriModelsError, match=rf"needs the file {LINEAR_FILE} that is not in .*fmri_models\[lpips\]"):
        LpipsAlexNet.from_folder(tmp_path)
    torch.save(weights[1], tmp_path / LINEAR_FILE)
    network = LpipsAlexNet.from_folder(tmp_path)
    assert len(network.sha256) == 64
    assert lpips(*both, network) == lpips(*both, LpipsAlexNet(*weights))
    (tmp_path / LINEAR_FILE).write_bytes(b"no weights")
    with pytest.raises(FmriModelsError, match="holds no weights"):
        LpipsAlexNet.from_folder(tmp_path)


def test_what_does_not_fit_is_refused(weights, both):
    backbone, linear = weights
    with pytest.raises(FmriModelsError, match=r"features.3.weight of AlexNet's weights is missing"):
        LpipsAlexNet({name: value for name, value in backbone.items() if "features.3" not in name}, linear)
    with pytest.raises(FmriModelsError, match=r"lin0.model.1.weight of LPIPS's weights is of the shape \(1, 2, 1, 1\)"):
        LpipsAlexNet(backbone, linear | {"lin0.model.1.weight": torch.rand(1, 2, 1, 1)})
    with pytest.raises(FmriModelsError, match="not all from 0"):
        LpipsAlexNet(backbone, linear | {"lin0.model.1.weight": -linear["lin0.model.1.weight"]})
    for both_weights, of in (
        ((backbone | {"features.3.weight": backbone["features.3.weight"] * torch.nan}, linear), "AlexNet"),
        ((backbone, linear | {"lin0.model.1.weight": linear["lin0.model.1.weight"] * torch.inf}), "LPIPS"),
    ):
        with pytest.raises(FmriModelsError, match=f"of the weights of {of} has .* NaN or infinite"):
            LpipsAlexNet(*both_weights)
    with pytest.raises(FmriModelsError, match="at least 32x32"):
        lpips(both[0][..., :24], both[1][..., :24], LpipsAlexNet(*weights))
    with pytest.raises(FmriModelsError, match="NaN"):
        lpips(both[0], torch.full_like(both[0], torch.nan), LpipsAlexNet(*weights))
