"""Reports on models that only retrieve or only classify, and what is said of a pipeline that draws nothing."""

import numpy as np
import pytest

from fmri_models import FmriToImagePipeline
from fmri_models.cli.main import main
from fmri_models.evaluation import Report
from fmri_models.training.recipe import load_recipe
from fmri_models.training.trainer import train
from tests.small_table import write_small_table

COUNT = 40


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(COUNT, 2, 6)).astype(np.float32)
    np.save(tmp_path / "truth.npy", truth)
    np.save(tmp_path / "decoded.npy", truth + 0.8 * rng.normal(size=truth.shape).astype(np.float32))
    np.save(tmp_path / "noise.npy", rng.normal(size=truth.shape))
    labels = ["cat", "dog", "cow", "=1+1"]
    true = [f"s{index:02d},{labels[index % 4]}" for index in range(COUNT)]
    said = [f"s{index:02d},{labels[index % 4 if index % 3 else 0]}" for index in range(COUNT)]
    for name, lines in (("truth", true), ("labels", said)):
        (tmp_path / f"{name}.csv").write_text("\n".join(["stimulus_id,label", *lines]) + "\n")
    return tmp_path


def evaluated(folder, kind, given, truth, *options):
    command = ["evaluate", f"--{kind}", str(folder / given), "--truth", str(folder / truth), "--out"]
    return main([*command, str(folder / f"report_{given}"), *options])


def test_decoded_embeddings_have_a_report(files, capsys):
    assert evaluated(files, "embeddings", "decoded.npy", "truth.npy") == 0
    report = Report.load(files / "report_decoded.npy")
    brain, test = report.results["brain"], report.permutation
    assert brain["retrieval_query_brain_top1"]["value"] > 0.5 and brain["retrieval_query_image_top5"]["n"] == COUNT
    assert test["retrieval_query_brain_top1"]["p"] == pytest.approx(1 / 201)
    assert {each["name"]: each["chance"] for each in report.protocol["metrics"]}["retrieval_query_image_top5"] == 5 / 40
    assert "grid.png" not in capsys.readouterr().out and not (files / "report_decoded.npy" / "grid.png").exists()
    assert "<img" not in (files / "report_decoded.npy" / "report.html").read_text()
    assert evaluated(files, "embeddings", "noise.npy", "truth.npy") == 0
    assert Report.load(files / "report_noise.npy").permutation["retrieval_query_brain_top5"]["p"] > 0.01
    assert main(["compare", str(files / "report_decoded.npy"), str(files / "report_noise.npy")]) == 0
    assert "against report_decoded.npy on the same stimuli" in capsys.readouterr().out


def test_repetitions_of_a_stimulus_are_one(files):
    truth = np.load(files / "truth.npy")
    np.save(files / "twice.npy", np.concatenate([truth[:6]] * 2))
    assert evaluated(files, "embeddings", "twice.npy", "twice.npy") == 0
    found = Report.load(files / "report_twice.npy").results["brain"]
    assert (found["retrieval_query_brain_top1"]["n"], found["retrieval_query_brain_top1"]["stimuli"]) == (12, 6)
    assert found["retrieval_query_brain_top1"]["value"] == found["retrieval_query_image_top1"]["value"] == 1
    # The first five of six are found by guessing.
    assert found["retrieval_query_brain_top5"] is None


def test_chance_of_responses_depends_on_how_often_each_was_recorded(files):
    truth = np.load(files / "truth.npy")
    np.save(files / "uneven.npy", np.concatenate([truth[:10], *[truth[:1]] * 9]))
    assert evaluated(files, "embeddings", "uneven.npy", "uneven.npy") == 0
    report = Report.load(files / "report_uneven.npy")
    chances = {each["name"]: each["chance"] for each in report.protocol["metrics"]}
    assert chances["retrieval_query_brain_top1"] == pytest.approx(1 / 10)
    # Of ten responses to one picture each has nine others, and each of the other nine pictures eighteen.
    assert chances["retrieval_query_image_top1"] == pytest.approx((1 / 10 + 9 / 19) / 10)


def test_predicted_labels_have_a_report(files):
    assert evaluated(files, "labels", "labels.csv", "truth.csv") == 0
    report = Report.load(files / "report_labels.csv")
    found = report.results["brain"]["label_accuracy"]
    lines = [(files / name).read_text().splitlines()[1:] for name in ("labels.csv", "truth.csv")]
    assert found["value"] == np.mean([one == other for one, other in zip(*lines, strict=True)])
    assert report.protocol["metrics"][0]["chance"] == 0.25 and report.permutation["label_accuracy"]["p"] < 0.01


@pytest.mark.parametrize(("kind", "given", "content", "message"), [
    ("embeddings", "bad.npy", np.ones((3, 4)), "expected a row of each for every item"),
    ("embeddings", "bad.npy", np.full((COUNT, 2, 6), np.nan), "NaN or infinite values"),
    ("embeddings", "bad.npy", np.ones(3), "expected a (rows, values) array"),
    ("embeddings", "nothing.npy", None, "nothing.npy"),
    ("labels", "bad.csv", "stimulus_id,label\ns00,cat\n", "lacks 39 stimuli"),
    ("labels", "bad.csv", "stimulus_id\ns00\n", "label"),
    ("labels", "bad.csv", "stimulus_id,label\ns00,\n", "an empty field in row 1"),
    ("labels", "bad.csv", "stimulus_id,label\n", "no rows"),
])  # fmt: skip
def test_other_files_are_sentences(files, capsys, kind, given, content, message):
    if isinstance(content, str):
        (files / given).write_text(content)
    elif content is not None:
        np.save(files / given, content)
    assert evaluated(files, kind, given, "truth.npy" if kind == "embeddings" else "truth.csv") == 1
    error = capsys.readouterr().err
    assert message in error and "unexpected" not in error


def test_one_embedding_for_all_is_no_test(files, capsys):
    np.save(files / "one.npy", np.ones((4, 3)))
    assert evaluated(files, "embeddings", "one.npy", "one.npy") == 1
    assert "one embedding alone" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["evaluate", "--labels", "x", "--embeddings", "y", "--truth", "z", "--out", str(files / "out")])


def test_a_pipeline_that_draws_nothing_is_sent_there(tmp_path, capsys):
    data = write_small_table(tmp_path / "data", subjects=("subj07",))
    train(load_recipe("linear", [f"data={data}", f"out={tmp_path / 'model'}", "generator=pixels"]))
    bare = FmriToImagePipeline.from_pretrained(tmp_path / "model", image_generator=None)
    bare.save_pretrained(tmp_path / "bare")
    command = ["evaluate", "--model", str(tmp_path / "bare"), "--data", str(data), "--out", str(tmp_path / "out")]
    assert main([*command, "--protocol", "small_pictures"]) == 1
    error = capsys.readouterr().err
    assert "has no image generator" in error and "evaluate --embeddings" in error
