"""From rows of pictures to report.json and what lies beside it."""

import json
import re

import numpy as np
import pytest
import torch

from fmri_models.errors import FmriModelsError
from fmri_models.evaluation import Report, RowData, Scores, get_protocol, pixcorr, score_rows, ssim, write_report
from fmri_models.evaluation.named_metrics import get_metric
from fmri_models.evaluation.protocols import PROTOCOLS, Protocol
from fmri_models.evaluation.report_pages import to_markdown
from fmri_models.evaluation.report_terminal import results_table
from fmri_models.evaluation.similarities import losses_in_rows
from tests.evaluation.toy_report import COUNT, METRICS, PROTOCOL, TinyExtractor, smooth_pictures


def test_rows_have_the_metrics_that_are_defined_for_them(report):
    assert list(report.results) == ["brain", "shuffled_brain", "mean_image", "ridge"]
    for metrics in report.results.values():
        assert tuple(metrics) == METRICS
    assert all(report.results["brain"].values())
    assert report.results["ridge"]["pixcorr"] is None
    assert report.results["mean_image"]["retrieval_query_brain_top1"] is None
    assert report.results["ridge"]["retrieval_query_brain_top1"]["n"] == 2 * COUNT
    assert report.extractors.keys() == {"tiny", "scene_factors"}


def test_item_scores_are_those_of_the_metrics_on_saved_pictures(scores, material):
    saved = [(pictures * 255).round() / 255 for pictures in (material["truth"], material["rows"]["brain"].images)]
    np.testing.assert_allclose(scores.values["brain"]["pixcorr"], pixcorr(*saved, reduction="none").numpy())
    np.testing.assert_allclose(scores.values["brain"]["ssim"], ssim(*saved, reduction="none").numpy())


def test_controls_are_at_chance_and_brain_is_above(report):
    assert report.results["mean_image"]["two_way_tiny"]["value"] == pytest.approx(0.5)
    assert report.results["brain"]["two_way_tiny"]["value"] > 0.9
    for metric in ("pixcorr", "mse", "two_way_tiny", "retrieval_query_brain_top1", "factor_accuracy_kind"):
        assert report.comparisons["shuffled_brain"][metric]["ci95"][0] > 0, metric
    assert report.comparisons["ridge"]["pixcorr"] is None
    assert report.comparisons["ridge"]["retrieval_query_brain_top1"]["difference"] == 0


@pytest.mark.parametrize(
    ("metric", "chance"),
    [
        ("two_way_tiny", 0.5),
        ("two_way_tiny_same_background", 0.5),
        ("pairwise_pixcorr", 0.5),
        ("identification_top1", 1 / COUNT),
        ("retrieval_query_brain_top1", 1 / COUNT),
        ("retrieval_query_image_top5", 5 / COUNT),
    ],
)
def test_permutations_are_at_chance(report, metric, chance):
    found = report.permutation[metric]
    assert found["n"] == 50
    assert abs(found["mean"] - chance) < 4 * found["sd"] / 50**0.5 + 1e-6
    assert found["p"] == pytest.approx(1 / 51)


def test_permuted_scores_are_those_of_exchanged_pictures(material):
    alone = {name: material[name] for name in ("truth", "stimulus_ids", "subjects")}
    protocol = Protocol("test", "", ("pixcorr", "ssim", "mse"))
    rows = {"brain": material["rows"]["brain"]}
    scores = score_rows(rows, protocol=protocol, permutations=3, seed=5, **alone)
    # Both subjects have seen the same pictures, which are exchanged for both alike.
    order = np.random.default_rng(5).permutation(COUNT)
    drawn = np.concatenate([order, COUNT + order])
    exchanged = score_rows(rows, alone["truth"][drawn], alone["stimulus_ids"], protocol, alone["subjects"])
    for metric in protocol.metrics:
        expected = exchanged.values["brain"][metric]
        np.testing.assert_allclose(scores.permuted[metric][0], expected, atol=1e-12)


def test_equal_pictures_are_seen_once_by_a_network(material):
    extractor = TinyExtractor()
    score_rows(**material, extractors={"tiny": extractor}, permutations=0)
    # 24 true ones, 48 brain reconstructions that the shuffled row repeats, one mean.
    assert extractor.seen == COUNT + 2 * COUNT + 1


def test_trials_of_one_stimulus_are_not_each_others_distractors():
    truth = smooth_pictures(6)
    once = score_rows({"brain": RowData(truth, truth.flatten(1))}, truth, list("abcdef"), PROTOCOLS["small_pictures"])
    twice = torch.cat([truth, truth])
    metrics = ("pairwise_pixcorr", "identification_top1", "retrieval_query_brain_top1", "retrieval_query_image_top1")
    repeated = score_rows(
        {"brain": RowData(twice, twice.flatten(1))},
        twice,
        list("abcdef") * 2,
        Protocol("test", "", metrics),
        gallery_embeds=twice.flatten(1),
    )
    assert once.values["brain"]["pairwise_pixcorr"].tolist() == [1] * 6
    for metric in metrics:
        assert repeated.values["brain"][metric].tolist() == [1] * 12, metric


def test_losses_count_items_of_other_stimuli_alone():
    similarity = torch.rand(4, 9, generator=torch.Generator().manual_seed(0)).double()
    truth_index = torch.tensor([0, 0, 0, 1, 1, 2, 3, 3, 3])
    losses, others = losses_in_rows(similarity, truth_index)
    for i in range(4):
        for j in range(9):
            rivals = similarity[i, truth_index != truth_index[j]]
            assert losses[i, j] == (rivals >= similarity[i, j]).sum()
            assert others[j] == len(rivals)


@pytest.mark.parametrize("distractors", ["truth", "reconstruction"])
def test_a_blank_test_picture_defeats_no_other_and_is_named(distractors):
    truth = smooth_pictures(8)
    truth[5] = 1.0
    recon = (0.7 * truth + 0.3 * smooth_pictures(8, seed=3)).clamp(0, 1)
    ids = [f"s{i}" for i in range(7)] + ["s0"]
    truth[7] = truth[0]
    protocol = Protocol(
        "test", "", ("pairwise_pixcorr", "identification_top1", "pixcorr", "mse"), distractors=distractors
    )
    rows = {"brain": RowData(recon), "ceiling": RowData(truth), "blank": RowData(torch.ones_like(truth))}
    scores = score_rows(rows, truth, ids, protocol)
    report = Report.from_scores(scores, protocol)
    for metric in ("pairwise_pixcorr", "identification_top1"):
        assert scores.values["ceiling"][metric][[0, 1, 2, 3, 4, 6, 7]].tolist() == [1] * 7
        assert np.isnan(scores.values["ceiling"][metric][5]) and np.isnan(scores.values["blank"][metric][5])
        assert (report.results["ceiling"][metric]["value"], report.results["ceiling"][metric]["stimuli"]) == (1, 6)
        assert report.results["blank"][metric]["value"] == 0
    if distractors == "truth":
        assert scores.chances["identification_top1"] == pytest.approx(1 / 6)
    assert scores.values["ceiling"]["mse"].tolist() == [0] * 8
    note = next(note for note in report.notes if "one value throughout" in note)
    assert note.startswith("1 test picture has one value throughout (s5)")
    assert "no score in pairwise_pixcorr and identification_top1" in note


def test_blank_pictures_alone_leave_identification_out():
    truth = torch.ones(3, 3, 16, 16)
    truth[0] = smooth_pictures(1)[0][..., :16, :16]
    scores = score_rows({"brain": RowData(truth)}, truth, list("abc"), get_protocol("small_pictures"))
    assert "pairwise_pixcorr" not in scores.chances and "identification_top1" not in scores.chances
    assert any("whose picture is not constant to be told from" in note for note in scores.notes)


def test_folds_are_pools_of_their_own_and_can_be_joined():
    truth, recon = smooth_pictures(12), smooth_pictures(12, seed=4)
    ids = [str(i) for i in range(12)]
    protocol = get_protocol("small_pictures")
    together = score_rows({"brain": RowData(recon)}, truth, ids, protocol, folds=[0] * 6 + [1] * 6)
    parts = [
        score_rows({"brain": RowData(recon[part])}, truth[part], ids[part], protocol)
        for part in (slice(0, 6), slice(6, 12))
    ]
    joined = Scores.concatenate(parts)
    for metric in protocol.metrics:
        np.testing.assert_allclose(joined.values["brain"][metric], together.values["brain"][metric], atol=1e-12)
    assert joined.pool_size == together.pool_size == 6
    assert joined.permuted["mse"].shape == (200, 12)


def test_a_background_of_its_own_takes_no_part_in_identification(material):
    alone = {**material, "backgrounds": ["alone", *material["backgrounds"][1:]]}
    scores = score_rows(**alone, extractors={"tiny": TinyExtractor()}, permutations=20)
    metric = "two_way_tiny_same_background"
    assert np.flatnonzero(np.isnan(scores.values["brain"][metric])).tolist() == [0]
    report = Report.from_scores(scores, PROTOCOL, draws=50)
    assert report.results["brain"][metric]["n"] == 2 * COUNT - 1
    assert report.permutation[metric]["mean"] == pytest.approx(0.5, abs=0.1)


def test_small_and_grey_pictures_fall_back_with_a_note():
    truth = smooth_pictures(8, size=28)[:, :1]
    scores = score_rows({"brain": RowData(truth)}, truth, list("abcdefgh"), get_protocol())
    assert scores.values["brain"]["two_way_efficientnet_lite0"] is None
    assert scores.values["brain"]["pairwise_pixcorr"].tolist() == [1] * 8
    assert any("28x28" in note and "takes their place" in note for note in scores.notes)
    tiny = score_rows({"brain": RowData(truth[..., :10, :10])}, truth[..., :10, :10], list("abcdefgh"), get_protocol())
    assert tiny.values["brain"]["ssim"] is None
    assert any("window" in note for note in tiny.notes)


def test_blurry_controls_win_by_nature_and_the_report_says_so():
    truth = torch.rand(30, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    noisy = torch.rand(30, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    rows = {"brain": RowData(noisy), "mean_image": RowData(truth.mean(0, keepdim=True).expand_as(truth))}
    protocol = get_protocol("small_pictures")
    scores = score_rows(rows, truth, [str(i) for i in range(30)], protocol)
    notes = Report.from_scores(scores, protocol).notes
    assert any("mean_image" in note and "mse" in note and "by its nature" in note for note in notes)
    assert not any("pairwise_pixcorr" in note and "by its nature" in note for note in notes)


def scored(rows, count=30, metric="pixcorr", permuted=()):
    """A report of item scores that are given."""
    values = {row: {metric: np.asarray(found, dtype=float)} for row, found in rows.items()}
    ids = np.array([f"s{index:03d}" for index in range(count)])
    chances = {} if get_metric(metric).chance is None else {metric: get_metric(metric).chance}
    scores = Scores(values, np.array(["a"] * count), ids, np.zeros(count, int), dict(permuted), chances=chances)
    return Report.from_scores(scores, Protocol("test", "", (metric,)), draws=200)


SPREAD = np.random.default_rng(0).normal(0, 0.05, 30)


@pytest.mark.parametrize(
    ("row", "metric", "control", "verdict"),
    [
        # The control's advantage over .5, and what is said of it; for mse lower is better.
        ("mean_image", "pixcorr", 0.1, "This control wins by its nature: a blurry average"),
        ("mean_image", "mse", -0.1, "This control wins by its nature: a blurry average"),
        ("mean_image", "ssim", 0.005, "wins by its nature, if not beyond doubt"),
        ("mean_image", "pixcorr", -0.005, "The brain row is better, but not beyond doubt."),
        ("mean_image", "mse", 0.005, "The brain row is better, but not beyond doubt."),
        ("mean_image", "pixcorr", -0.1, None),
        ("mean_image", "mse", 0.1, None),
        ("mean_image", "pairwise_pixcorr", 0.1, "This control is better."),
        ("permuted_training", "pixcorr", 0.1, "This control is better."),
        ("permuted_training_own", "ssim", 0.1, "This control is better."),
        ("floor", "ssim", 0.1, "This control is better."),
        ("nearest_train", "pixcorr", 0.1, "This control is better."),
        ("shuffled_brain", "pixcorr", 0.005, "This control is better, but not beyond doubt."),
        ("shuffled_brain", "pixcorr", 0.0, "The brain row is not better than this control."),
        ("ridge", "pixcorr", 0.1, None),
    ],
)
def test_a_verdict_is_what_the_figures_say(row, metric, control, verdict):
    advantage = np.zeros(30) if control == 0 else SPREAD - SPREAD.mean() + control
    notes = scored({"brain": np.full(30, 0.5), row: 0.5 + advantage}, metric=metric).notes
    found = [note for note in notes if note.startswith(f"{row} scores")]
    if verdict is None:
        assert found == []
    else:
        assert len(found) == 1
        assert verdict in found[0]
        assert ("by its nature" in found[0]) == ("by its nature" in verdict)
        assert "does not beat" not in found[0]


def test_metrics_with_one_verdict_are_one_sentence():
    truth = smooth_pictures(3)
    rows = {
        "brain": RowData((0.6 * truth + 0.4 * smooth_pictures(3, seed=5)).clamp(0, 1)),
        "shuffled_brain": RowData(smooth_pictures(3, seed=6)),
        "mean_image": RowData(truth.mean(0, keepdim=True).expand_as(truth)),
    }
    protocol = get_protocol("small_pictures")
    report = Report.from_scores(score_rows(rows, truth, list("abc"), protocol), protocol)
    for row in ("shuffled_brain", "mean_image"):
        notes = [note for note in report.notes if note.startswith(f"{row} scores")]
        verdicts = [note.rpartition(". ")[2] for note in notes]
        assert len(set(verdicts)) == len(verdicts) <= 3
        better = next(note for note in notes if "The brain row is better, but not beyond doubt." in note)
        assert all(f"in {metric} (the brain row " in better for metric in ("pixcorr", "mse"))
    assert not any("{" in note for note in report.notes)


def test_leakage_in_permuted_training_is_pointed_out():
    truth = smooth_pictures(20)
    rows = {"brain": RowData(truth), "permuted_training": RowData(truth * 0.9)}
    protocol = get_protocol("small_pictures")
    scores = score_rows(rows, truth, [str(i) for i in range(20)], protocol)
    notes = Report.from_scores(scores, protocol).notes
    assert any("permuted_training is above chance in pairwise_pixcorr" in note for note in notes)


def test_leakage_is_judged_by_an_interval_for_all_metrics_together():
    scores = np.random.default_rng(1).normal(0, 0.1, 40)
    scores += 0.5 - scores.mean() + 2.3 * 0.1 / 40**0.5
    chances = {f"two_way_{letter}": 0.5 for letter in "abcdefgh"}
    ids = np.array([str(i) for i in range(40)])
    for metrics, expected in ((["two_way_a"], 1), (list(chances), 0)):
        values = {"permuted_training": dict.fromkeys(metrics, scores)}
        found = Scores(values, np.array(["a"] * 40), ids, np.zeros(40, int), chances=chances)
        notes = Report.from_scores(found, Protocol("test", "", tuple(metrics)), draws=500).notes
        assert sum("is above chance" in note for note in notes) == expected


def test_metrics_that_guessing_succeeds_in_are_left_out_and_chance_stands_beside_the_others():
    truth = smooth_pictures(8, size=32)
    rows = {"brain": RowData(truth, truth.flatten(1))}
    protocol = Protocol("test", "", (*METRICS[6:7], "retrieval_query_brain_top1", "identification_top1", "pixcorr"))
    report = Report.from_scores(
        score_rows(rows, truth, list("abcdefgh"), protocol, gallery_embeds=truth.flatten(1)), protocol
    )
    assert report.results["brain"]["retrieval_query_image_top5"] is None
    assert any("retrieval_query_image_top5 (0.62): left out" in note for note in report.notes)
    chances = {metric["name"]: metric["chance"] for metric in report.protocol["metrics"]}
    assert chances["retrieval_query_brain_top1"] == chances["identification_top1"] == 1 / 8
    for text in (results_table(report, all_rows=True), to_markdown(report)):
        lines = [re.split(r"\s*\|\s*|\s{2,}", line.strip("| ")) for line in text.splitlines()]
        assert ["metric", "chance", "from brain"] in lines
        assert ["brain to image top-1 ↑", "0.125"] in [line[:2] for line in lines]
        assert ["PixCorr ↑", "–"] in [line[:2] for line in lines]


def test_chance_allows_for_folds_and_trials():
    truth = smooth_pictures(7, size=32)
    protocol = Protocol("test", "", ("identification_top1", "retrieval_query_brain_top1", "retrieval_query_image_top1"))
    scores = score_rows(
        {"brain": RowData(truth, truth.flatten(1))},
        truth,
        list("aabcdef"),
        protocol,
        folds=[0, 0, 0, 0, 1, 1, 1],
        gallery_embeds=truth.flatten(1),
    )
    assert scores.chances["identification_top1"] == scores.chances["retrieval_query_brain_top1"] == pytest.approx(1 / 3)
    # A picture is given, and one of its own two trials is searched among itself and those of other pictures.
    # Both trials are one stimulus, as they are in the mean of the scores.
    expected = np.mean([1 / 3, 1 / 4, 1 / 4, 1 / 3, 1 / 3, 1 / 3])
    assert scores.chances["retrieval_query_image_top1"] == pytest.approx(expected)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_few_stimuli_are_spoken_of_truly(count, tmp_path):
    truth = smooth_pictures(count, size=32)
    rows = {"brain": RowData(truth), "mean_image": RowData(truth.mean(0, keepdim=True).expand_as(truth))}
    protocol = get_protocol("small_pictures")
    report = Report.from_scores(score_rows(rows, truth, list("abcd")[:count], protocol), protocol)
    assert all(found is None or found["ci95"] is None for row in report.results.values() for found in row.values())
    assert all(found is None or found["ci95"] is None for row in report.comparisons.values() for found in row.values())
    assert any("No interval is stated" in note and "fewer than 5" in note for note in report.notes)
    assert (report.results["brain"]["pairwise_pixcorr"] is None) == (count == 1)
    assert any("no test stimulus has another one" in note for note in report.notes) == (count == 1)
    assert not any("95 %" in note for note in report.notes)
    write_report(tmp_path, report, score_rows(rows, truth, list("abcd")[:count], protocol), rows, truth)
    text = (tmp_path / "report.md").read_text()
    assert "no p can be below" in text or "says nothing" in text
    assert Report.load(tmp_path).to_dict() == report.to_dict()


def test_equal_scores_and_rows_without_any_are_spoken_of_truly():
    report = scored({"brain": np.full(30, 0.5), "floor": np.full(30, np.nan)})
    assert report.results["brain"]["pixcorr"]["ci95"] is None
    assert report.results["floor"]["pixcorr"] is None
    assert any("is the same for all stimuli" in note for note in report.notes)
    assert not any("floor" in note for note in report.notes)
    assert results_table(report)


def test_metrics_without_what_they_need_are_named():
    truth = smooth_pictures(8, size=32)
    protocol = Protocol("test", "", ("pixcorr", "retrieval_query_brain_top1", "two_way_tiny_same_background"))
    scores = score_rows(
        {"brain": RowData(truth)},
        truth,
        list("abcdefgh"),
        protocol,
        backgrounds=list("abcdefgh"),
        extractors={"tiny": TinyExtractor()},
    )
    assert any("retrieval_query_brain_top1: left out, because there are no embeddings" in note for note in scores.notes)
    assert any("same_background: left out, because no picture has another" in note for note in scores.notes)


def test_a_stimulus_counts_as_one_whatever_it_was_shown():
    truth = smooth_pictures(6, size=32)
    which = [0, 0, 0, 0, 1, 2, 3, 4, 5]
    recon = smooth_pictures(9, seed=3, size=32)
    protocol = Protocol("test", "", ("pixcorr", "mse"))
    scores = score_rows({"brain": RowData(recon)}, truth[which], [f"s{i}" for i in which], protocol)
    report = Report.from_scores(scores, protocol)
    values = scores.values["brain"]["mse"]
    found = report.results["brain"]["mse"]
    assert found["value"] == pytest.approx(np.mean([values[:4].mean(), *values[4:]]))
    assert (found["n"], found["stimuli"]) == (9, 6)
    assert report.per_subject["subj01"]["brain"]["mse"]["value"] == pytest.approx(found["value"])


# --------------------------------------------------------------------------------------------------------------- files


def test_json_round_trip_without_nan(report, tmp_path):
    report.save(tmp_path / "report.json")
    text = (tmp_path / "report.json").read_text()
    assert "NaN" not in text
    content = json.loads(text)
    assert content["schema"] == 1
    assert content["data"]["mean_noise_ceiling"] is None
    assert content["rows"]["mean_image"]["uses_test_images"] is True
    for part in ("protocol", "results", "permutation", "per_subject", "model", "versions", "timing", "seed", "looks"):
        assert part in content
    assert Report.load(tmp_path).to_dict() == report.to_dict()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"schema": 99, "results": {}}', "newer version"),
        ('{"results": {}}', "schema version None"),
        ('{"schema": 1}', "no results"),
        ("[1]", "no results"),
        ("{", "report.json is needed"),
    ],
)
def test_bad_reports_are_refused(tmp_path, text, sentence):
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(FmriModelsError, match=sentence):
        Report.load(tmp_path)
    with pytest.raises(FmriModelsError, match="no report"):
        Report.load(tmp_path / "other.json")


def test_mismatches_are_sentences(material):
    truth, ids = material["truth"], material["stimulus_ids"]
    with pytest.raises(FmriModelsError, match="47 stimulus ids for 48"):
        score_rows(material["rows"], truth, ids[1:], PROTOCOL)
    with pytest.raises(FmriModelsError, match="row brain have the shape"):
        score_rows({"brain": RowData(truth[:, :, :32])}, truth, ids, PROTOCOL)
    with pytest.raises(FmriModelsError, match="row brain contain NaN"):
        score_rows({"brain": RowData(truth * float("nan"))}, truth, ids, PROTOCOL)
    with pytest.raises(FmriModelsError, match="no row"):
        score_rows({}, truth, ids, PROTOCOL)
    with pytest.raises(FmriModelsError, match="no protocol 'nsd'"):
        get_protocol("nsd")


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_every_metric_of_a_protocol_is_described(protocol):
    for name in protocol.metrics:
        assert get_metric(name).description
    assert get_metric("mse").higher_is_better is False
    assert get_metric("distance_swav").higher_is_better is False
    with pytest.raises(FmriModelsError, match="no metric"):
        get_metric("niceness")


def test_a_whole_number_of_stimuli_to_choose_from_is_one(report):
    assert isinstance(report.protocol["pool_size"], int)
    assert len(repr(report)) < 10_000
