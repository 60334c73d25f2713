"""Protocols: what each fixes, what a report says where it is not followed, and how pictures are prepared."""

import numpy as np
import pytest
import torch
from PIL import Image

from fmri_models.cli.main import main
from fmri_models.errors import FmriModelsError
from fmri_models.evaluation import Report, RowData, evaluate_images, get_protocol, score_rows
from fmri_models.evaluation.deviations import on_drawing
from fmri_models.evaluation.metrics import sides_with_shorter
from fmri_models.evaluation.preparation import Preparation
from fmri_models.evaluation.protocols import PIXELS, PROTOCOLS, Protocol
from tests.evaluation.toy_report import TinyExtractor, smooth_pictures

PUBLISHED = [name for name in PROTOCOLS if name not in ("standard", "small_pictures")]


class Wide(TinyExtractor):
    """Says what size of pictures it was shown."""

    def __call__(self, images):
        self.shape = tuple(images.shape[-2:])
        return super().__call__(images)


def scored(protocol, extractors=None, size=64, count=8, **options):
    truth = smooth_pictures(count, size=size)
    recon = 0.6 * truth + 0.4 * torch.rand(truth.shape, generator=torch.Generator().manual_seed(1))
    ids = [f"s{index}" for index in range(count)]
    return score_rows({"brain": RowData(recon)}, truth, ids, protocol, extractors=extractors, **options)


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_protocol_can_be_followed_with_networks_that_are_handed_in(name):
    protocol = get_protocol(name)
    networks = {each: Wide() for each in protocol.extractors}
    scores = scored(protocol, networks, permutations=3)
    report = Report.from_scores(scores, protocol, draws=20)
    found = report.results["brain"]
    assert all(found[metric] for metric in (*PIXELS, *(m for m in protocol.metrics if "two_way" in m)))
    expected = (protocol.size,) * 2 if protocol.size else (64, 64)
    assert {network.shape for network in networks.values()} <= {expected}
    assert set(PIXELS) <= set(protocol.metrics)
    if protocol.test_pictures:
        assert report.protocol_title == f"{name} (not as published)"
        assert f"8 test pictures a subject, and not {protocol.test_pictures[0]}" in report.notes[0]


def test_the_same_reconstructions_score_otherwise_under_another_protocol():
    values = {}
    for name in ("mindeye-982", "brain-diffuser", "standard"):
        protocol = Protocol("test", "", ("pixcorr",))
        own = get_protocol(name)
        protocol = Protocol(
            "test", "", ("pixcorr",), own.resolution, size=own.size, interpolation=own.interpolation,
            antialias=own.antialias,
        )  # fmt: skip
        values[name] = scored(protocol, size=512).values["brain"]["pixcorr"].mean()
    assert len({round(value, 4) for value in values.values()}) == 3


def test_pixels_are_resized_as_the_published_functions_do():
    picture = torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    first = torch.nn.functional.interpolate(picture, size=(32, 32), mode="bilinear", align_corners=False)
    twice = torch.nn.functional.interpolate(first, size=(40, 40), mode="bilinear", align_corners=False)
    assert torch.equal(Preparation(size=32, resolution=40).of_pixels(picture), twice)
    assert torch.equal(Preparation(size=32, resolution=40).of_network(picture), first)
    assert Preparation().of_pixels(picture) is picture


def test_bicubic_antialiased_pixels_are_those_of_pillow():
    values = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(values).resize((40, 40), Image.Resampling.BICUBIC), dtype=float)
    picture = torch.from_numpy(values / 255)[None, None]
    found = Preparation(resolution=40, interpolation="bicubic", antialias=True).of_pixels(picture)[0, 0].numpy() * 255
    # Pillow rounds to whole levels after each direction.
    assert np.abs(found - expected).mean() < 0.5 and np.abs(found - expected).max() < 4


def test_pictures_that_are_not_square_are_cropped_before_they_are_resized():
    wide = torch.zeros(1, 1, 4, 8)
    wide[..., 2:6] = 1
    assert Preparation(size=4, crop="centre").of_network(wide).eq(1).all()
    assert Preparation(resolution=2).of_pixels(wide).shape[-2:] == (2, 4)


def test_small_pictures_are_not_enlarged_into_photographs():
    scores = scored(get_protocol("mindeye-982").without(["distance_swav_resnet50"]), {}, size=12)
    assert scores.values["brain"]["two_way_alexnet2"] is None
    assert any("says nothing about pictures of 12x12 pixels" in note for note in scores.notes)


def test_what_is_left_out_is_said():
    protocol = get_protocol("mindeye-982").without(["alexnet2", "ssim"])
    assert "two_way_alexnet2" not in protocol.metrics and protocol.left_out == ("ssim", "two_way_alexnet2")
    report = Report.from_scores(scored(protocol, {each: Wide() for each in protocol.extractors}), protocol, draws=20)
    assert "without ssim, two_way_alexnet2" in report.protocol["deviations"]
    with pytest.raises(FmriModelsError, match=r"has no metric or network 'alexnet3'.*[Dd]id you mean"):
        protocol.without(["alexnet3"])
    with pytest.raises(FmriModelsError, match="no metric left"):
        Protocol("one", "", ("mse",)).without(["mse"])


def test_networks_that_cannot_be_had_are_named_before_the_work(monkeypatch):
    from fmri_models.evaluation import extractors

    def check(name, weights=None):
        if name != "efficientnet_b1":
            raise FmriModelsError(f"The weights of {name} are not here.")

    monkeypatch.setattr(extractors, "check_weights", check)
    protocol = get_protocol("mindeye-982")
    with pytest.raises(FmriModelsError) as caught:
        protocol.check_available()
    assert "measures by 5 networks that can't be had here (alexnet2: The weights of alexnet2" in str(caught.value)
    assert "--without unavailable" in str(caught.value)
    protocol.check_available(given=["alexnet2", "alexnet5", "inception_v3", "clip_vit_l14", "swav_resnet50"])
    assert protocol.without(["unavailable"]).extractors == ["efficientnet_b1"]
    protocol.without(["unavailable"]).check_available()
    assert protocol.without(["unavailable"], given=["alexnet2"]).extractors == ["alexnet2", "efficientnet_b1"]


def test_missing_files_are_named_once_and_what_to_do_is_not_cut_off(tmp_path, monkeypatch, capsys):
    for variable in ("TORCH_HOME", "FMRI_MODELS_CACHE"):
        monkeypatch.setenv(variable, str(tmp_path))
    with pytest.raises(FmriModelsError) as caught:
        get_protocol("mindeye-982").check_available()
    told = str(caught.value)
    assert told.count("alexnet-owt-7be5be79.pth") == 1 and "alexnet-owt-7be5be79.pth of alexnet2 and alexnet5" in told
    assert "fetched now: alexnet" in told and "swav_800ep_pretrain.pth.tar of swav_resnet50)" in told
    # What a command shows of a sentence.
    assert "`--weights`" in told and "`--without unavailable`" in told and len(told) < 900


def test_a_folder_of_weights_makes_networks_available(tmp_path):
    protocol = get_protocol("kamitani")
    assert protocol.without(["unavailable"]).extractors == []
    (tmp_path / "alexnet-owt-7be5be79.pth").write_bytes(b"there")
    assert protocol.without(["unavailable"], weights=tmp_path).extractors == ["alexnet2", "alexnet5"]


def test_how_a_model_was_tested_otherwise_than_published():
    protocol = get_protocol("mindeye-982")
    assert on_drawing(protocol, {"num_candidates": 16, "selection": "brain"}, True, True, 0) == []
    # Of a generator that draws nothing at random, candidates are all the same.
    assert on_drawing(protocol, {}, True, True, 0) == []
    assert on_drawing(protocol, {"num_candidates": 4}, False, True, 0) == [
        "num candidates 4, and not 16",
        "single trials, and not the mean of a picture's repetitions",
    ]
    assert on_drawing(get_protocol("mindeye2-1000"), {}, True, False, 0) == [
        "no low-level picture mixed in, because the model decodes none"
    ]
    assert "7 imagery trials learned from" in on_drawing(get_protocol("imagery"), {}, True, True, 7)[0]


def test_files_of_others_are_measured_by_a_published_protocol(tmp_path, capsys):
    for folder, seed in (("truth", 0), ("recon", 1)):
        (tmp_path / folder).mkdir()
        for index, picture in enumerate(smooth_pictures(6, seed)):
            array = (picture.permute(1, 2, 0).numpy() * 255).astype(np.uint8)
            Image.fromarray(array).save(tmp_path / folder / f"p{index}.png")
    networks = ",".join(get_protocol("mindeye2-1000").extractors)
    command = ["evaluate", "--images", str(tmp_path / "recon"), "--truth", str(tmp_path / "truth")]
    command += ["--protocol", "mindeye2-1000", "--out", str(tmp_path / "out"), "--without", networks]
    assert main(command) == 0
    report = Report.load(tmp_path / "out")
    assert report.protocol["size"] == 256 and report.data["test_stimuli"] == 6
    assert "6 test pictures a subject, and not 1000" in report.notes[0]
    assert any("(num candidates 1, mixed of .75" in note for note in report.notes)
    page = (tmp_path / "out" / "report.md").read_text()
    assert "# Report: protocol `mindeye2-1000` (not as published)" in page
    assert "- test set: 6 pictures (published: 1000 a subject)" in page
    assert "protocol mindeye2-1000 (not as published)" in (tmp_path / "out" / "report.html").read_text()
    assert main([*command[:-2], "--overwrite", "--without", "nothing"]) == 1
    assert "has no metric or network 'nothing'" in capsys.readouterr().err
    own = evaluate_images(tmp_path / "recon", tmp_path / "truth", tmp_path / "own", "standard", without=["ssim"])
    assert "ssim" not in own.results["brain"]


@pytest.mark.parametrize("side", [300, 425, 97, 512])
def test_a_longer_side_is_rounded_as_torchvision_does(side):
    """Of a picture twice as wide as high the result is, too: 49 / 300 * 600 is a pixel less in floating point."""
    for wanted in range(1, 60):
        assert sides_with_shorter(side, 2 * side, wanted) == (wanted, 2 * wanted)
        assert sides_with_shorter(3 * side, side, wanted) == (3 * wanted, wanted)
        assert sides_with_shorter(side, side + 7, wanted) == (wanted, int(wanted * (side + 7) / side))
