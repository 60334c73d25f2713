"""How much better a method is on another split: real small pipelines, planted differences, and what is refused."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from fmri_models.cli.main import main
from fmri_models.data import TrialTable
from fmri_models.data.split_trials import SplitTrials
from fmri_models.data.splits import add_split, split_by_stimulus
from fmri_models.errors import FmriModelsError
from fmri_models.evaluation.evaluate import evaluate
from fmri_models.evaluation.items_file import items_sha256
from fmri_models.evaluation.named_metrics import get_metric
from fmri_models.evaluation.report import Report
from fmri_models.evaluation.report_pages import to_html, to_markdown
from fmri_models.evaluation.split_gap import OtherSplit, _orders
from fmri_models.evaluation.split_gap_words import gap_notes, gap_tables
from fmri_models.evaluation.two_samples import gap_of_means
from fmri_models.training.recipe import load_recipe
from fmri_models.training.trainer import train
from tests.small_table import write_small_table

ROWS = ["ceiling", "nearest_train"]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gap")
    data = write_small_table(folder / "data")
    table = TrialTable.open(data)
    add_split(table, "fewer_tested", split_by_stimulus(SplitTrials.of_table(table), seed=5, test_fraction=0.1))
    for split in ("default", "fewer_tested"):
        options = [f"data={data}", f"out={folder / split}", f"split={split}", "generator=pixels", "targets=[latents]"]
        train(load_recipe("linear", options))
    evaluate(folder / "fewer_tested", data, folder / "other", "small_pictures", rows=ROWS)
    return folder


@pytest.fixture(scope="module")
def report(workplace):
    return evaluate(
        workplace / "default",
        workplace / "data",
        workplace / "report",
        "small_pictures",
        rows=ROWS,
        split_gap=workplace / "other",
    )


def test_what_is_compared(report, workplace):
    gap, other = report.split_gap, Report.load(workplace / "other")
    assert gap["split"] == {"here": "default", "there": "fewer_tested"}
    assert gap["stimuli"]["here"] == 12 and gap["stimuli"]["there"] == 8
    assert set(gap["rows"]) == {"brain", "nearest_train", "ceiling"}
    assert gap["how"]["there"] == {"by": "stimulus", "seed": 5}
    for name, found in gap["rows"]["brain"].items():
        if "pool" in found:
            continue
        assert found["here"] == pytest.approx(report.results["brain"][name]["value"])
        assert found["there"] == pytest.approx(other.results["brain"][name]["value"])
        sign = 1 if get_metric(name).higher_is_better else -1
        assert found["difference"] == pytest.approx(sign * (found["there"] - found["here"]))
        assert (found["stimuli"]["here"], found["stimuli"]["there"]) == (12, 8)
        if found["ci95"]:
            assert found["ci95"][0] <= found["difference"] <= found["ci95"][1]
    trials = [sum(each["trials"] for each in found.data["training"].values()) for found in (report, other)]
    assert gap["training_trials"] == dict(zip(("here", "there"), trials, strict=True)) and trials[0] < trials[1]


def test_a_search_is_compared_among_as_many(report):
    found = report.split_gap["rows"]["brain"]["identification_top1"]
    assert found["pool"] == 8
    # Among fewer it is easier.
    assert found["here"] >= report.results["brain"]["identification_top1"]["value"]
    assert "not_comparable" in report.split_gap["rows"]["ceiling"]["identification_top1"]


def test_the_other_way_round_a_search_is_not_comparable(workplace):
    report = evaluate(
        workplace / "fewer_tested",
        workplace / "data",
        workplace / "turned",
        "small_pictures",
        rows=ROWS,
        split_gap=workplace / "report" / "report.json",
    )
    brain = report.split_gap["rows"]["brain"]
    assert "8 pictures here and 12 there" in brain["identification_top1"]["not_comparable"]
    forwards = Report.load(workplace / "report").split_gap["rows"]["brain"]["pixcorr"]
    assert brain["pixcorr"]["difference"] == pytest.approx(-forwards["difference"])
    assert brain["pixcorr"]["ci95"] == pytest.approx([-forwards["ci95"][1], -forwards["ci95"][0]], abs=0.02)


def test_pools_have_each_picture_about_equally_often():
    names = [f"s{number}" for number in range(12)]
    for size in (1, 5, 8, 12):
        drawn = _orders(names, size, np.random.default_rng(0))
        assert all(len(each) == size for each in drawn)
        times = [sum(name in each for each in drawn) for name in names]
        assert max(times) - min(times) <= 2


def test_it_is_written_and_read_again(report, workplace):
    again = Report.load(workplace / "report")
    assert again.split_gap == json.loads(json.dumps(report.split_gap))
    page = to_markdown(again)
    assert "## Split gap: fewer_tested less default" in page and "not comparable" not in page.split("## Split gap")[0]
    assert "Split gap" in to_html(again, None)
    assert any(note.startswith("Split gap (fewer_tested against default") for note in again.notes)
    assert any("part of the gap may be the amount of training" in note for note in again.notes)
    content = json.loads((workplace / "report" / "report.json").read_text())
    for change in ({"stimuli": {"here": 0, "there": 1, "both": 0}}, {"rows": {"brain": {"pixcorr": {"here": 1.0}}}}):
        folder = workplace / "tampered"
        folder.mkdir(exist_ok=True)
        (folder / "report.json").write_text(json.dumps({**content, "split_gap": {**content["split_gap"], **change}}))
        with pytest.raises(FmriModelsError, match="what a split gap says"):
            Report.load(folder)


def changed(workplace, name, content=(), items=None):
    """A copy of the other report with other content."""
    folder = workplace / name
    shutil.copytree(workplace / "other", folder)
    found = json.loads((folder / "report.json").read_text())
    if items is not None:
        table = items(pq.read_table(folder / "items.parquet").to_pandas())
        table.to_parquet(folder / "items.parquet", index=False)
        found["items_sha256"] = items_sha256(folder / "items.parquet")
    for key, value in dict(content).items():
        section, _, field = key.partition(".")
        found[section][field] = value
    (folder / "report.json").write_text(json.dumps(found))
    return folder


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"data.fingerprint": "another"}, "another trial table"),
        ({"model.method": "mindeye"}, "it is of the method 'mindeye', and this model of 'linear'"),
        ({"protocol.trial_average": False}, "its protocol has the trial_average False"),
        ({"protocol.name": "standard"}, "its protocol has the name 'standard'"),
        ({"model.image_generator": "Other"}, "its pictures are those of Other"),
    ],
)
def test_what_differs_in_more_than_the_split_is_refused(workplace, tmp_path, content, message):
    folder = changed(workplace, f"refused_{len(message)}_{next(iter(content))}", content)
    with pytest.raises(FmriModelsError, match=message):
        evaluate(
            workplace / "default", workplace / "data", tmp_path / "out", "small_pictures", rows=ROWS, split_gap=folder
        )
    assert not (tmp_path / "out").exists()


def test_the_same_test_trials_and_reports_without_items_are_refused(workplace, report, tmp_path, capsys):
    with pytest.raises(FmriModelsError, match="measured on the same test trials"):
        evaluate(
            workplace / "default", workplace / "data", tmp_path / "out", "small_pictures",
            split_gap=workplace / "report",
        )  # fmt: skip
    folder = workplace / "without_items"
    folder.mkdir()
    shutil.copy(workplace / "other" / "report.json", folder)
    with pytest.raises(FmriModelsError, match=r"No items.parquet lies beside"):
        OtherSplit.load(folder)
    command = ["evaluate", "--images", "a", "--truth", "b", "--out", str(tmp_path / "x"), "--split-gap", "c"]
    assert main(command) == 2
    assert "--split-gap has no effect here" in capsys.readouterr().err


def test_a_planted_gap_is_found_and_one_of_subjects_is_not_defined(workplace, tmp_path):
    def better(items):
        chosen = (items.row == "brain") & (items.metric == "pixcorr")
        items.loc[chosen, "value"] += 0.15
        return items

    folder = changed(workplace, "planted", {"data.split_how": {"by": "stimulus"}}, better)
    report = evaluate(
        workplace / "default", workplace / "data", tmp_path / "out", "small_pictures", rows=ROWS, split_gap=folder
    )
    brain, plain = report.split_gap["rows"]["brain"]["pixcorr"], Report.load(workplace / "report").split_gap
    assert brain["difference"] == pytest.approx(plain["rows"]["brain"]["pixcorr"]["difference"] + 0.15)
    assert report.split_gap["rows"]["ceiling"]["pixcorr"]["difference"] == pytest.approx(
        plain["rows"]["ceiling"]["pixcorr"]["difference"]
    )
    content = json.loads((workplace / "other" / "report.json").read_text())
    more = {**content["per_subject"], "subj09": content["per_subject"]["subj02"]}
    folder = workplace / "more_subjects"
    shutil.copytree(workplace / "other", folder)
    (folder / "report.json").write_text(json.dumps({**content, "per_subject": more}))
    report = evaluate(
        workplace / "default", workplace / "data", tmp_path / "more", "small_pictures", rows=ROWS, split_gap=folder
    )
    assert "subj09 is in one of the reports alone" in report.split_gap["not_defined"]
    assert gap_tables(report.split_gap) == [] and Report.load(tmp_path / "more").split_gap == report.split_gap


def test_what_was_drawn_otherwise_is_named(workplace, tmp_path):
    folder = changed(workplace, "drawn_otherwise", {"model.settings": {"num_inference_steps": 7}}, lambda items: items)
    report = evaluate(
        workplace / "default", workplace / "data", tmp_path / "out", "small_pictures", rows=ROWS, split_gap=folder
    )
    (remark,) = report.split_gap["remarks"]
    assert (
        remark.startswith("The models drew with other settings (")
        and "num_inference_steps not set here and 7" in remark
    )


# -------------------------------------------------------------------------------------------------------------- words


def content_of(brain, ceiling=(-0.01, 0.01), here="tau", there="stimulus", both=0):
    def found(low, high):
        return {
            "here": 0.7, "there": 0.7 + (low + high) / 2, "difference": (low + high) / 2, "ci95": [low, high],
            "stimuli": {"here": 50, "there": 50, "both": both},
        }  # fmt: skip

    return {
        "report": "r",
        "split": {"here": "mine", "there": "theirs"},
        "how": {"here": {"by": here, "embedder": "net", "tau": 0.1}, "there": {"by": there}},
        "stimuli": {"here": 50, "there": 50, "both": both},
        "training_trials": {"here": 100, "there": 100},
        "folds": {"here": 1, "there": 1},
        "remarks": [],
        "rows": {
            "brain": {name: found(*bounds) for name, bounds in brain.items()},
            "ceiling": {name: found(*ceiling) for name in brain},
        },
    }


def test_verdicts():
    told = " ".join(gap_notes(content_of({"pairwise_pixcorr": (0.02, 0.1), "identification_top1": (-0.1, 0.2)})))
    assert "In two-way pixels (1 of 2 metrics), the method is better on theirs than on mine beyond doubt" in told
    assert "is not shown for pictures that are kept away from those it has learned from" in told
    assert "no sign that the pictures themselves are easier" in told and "one in twenty" in told
    told = " ".join(gap_notes(content_of({"pairwise_pixcorr": (-0.02, 0.1)}, ceiling=(0.05, 0.1), both=3)))
    assert "not beyond doubt in any of the one metric; with so many stimuli, one of 0.100" in told
    assert "may be that the pictures themselves are easier" in told and "3 of the tested pictures are in both" in told
    told = " ".join(gap_notes(content_of({"pairwise_pixcorr": (-0.2, -0.1)})))
    assert "better on mine than on theirs beyond doubt: these scores do not come from" in told
    told = " ".join(gap_notes(content_of({"pairwise_pixcorr": (0.1, 0.2)}, here="cluster")))
    assert "The test pictures of mine are alike" in told


def test_the_table_and_its_plot():
    (table,) = gap_tables(content_of({"pairwise_pixcorr": (0.02, 0.1), "mse": (-0.1, 0.2)}))
    assert table.title == "Split gap: theirs less mine"
    assert list(table.header) == ["metric", "brain on theirs", "brain on mine", "gap", "gap of ceiling"]
    assert table.lines[0][0] == "two-way pixels ↑" and table.lines[0][3] == "+0.060 [+0.020, +0.100]"
    assert "tau 0.1" in table.caption


# --------------------------------------------------------------------------------------------------------- statistics


def sample(names, rng, ease, shift=0.0):
    return {name: ease[name] + 0.3 * rng.normal() + shift for name in names}


def test_intervals_cover_and_shared_stimuli_make_them_narrower():
    names = [f"s{number}" for number in range(60)]
    for first, second in ((names[:30], names[30:]), (names[:40], names[10:50])):
        covered, widths, alone = 0, [], []
        for draw in range(120):
            rng = np.random.default_rng(draw)
            ease = {name: rng.normal() for name in names}
            one, other = sample(first, rng, ease, 0.2), sample(second, rng, ease)
            found = gap_of_means(one, other, draws=300, seed=draw)
            covered += found.ci95[0] <= 0.2 <= found.ci95[1]
            widths.append(found.ci95[1] - found.ci95[0])
            unpaired = gap_of_means(one, {f"other {name}": value for name, value in other.items()}, draws=300)
            alone.append(unpaired.ci95[1] - unpaired.ci95[0])
        assert covered >= 108
        shared = len(set(first) & set(second))
        assert found.stimuli == (len(first), len(second), shared)
        if shared:
            assert np.mean(widths) < 0.8 * np.mean(alone)
        else:
            assert np.mean(widths) == pytest.approx(np.mean(alone), rel=0.05)


def test_gaps_of_few_or_constant_scores_have_no_interval():
    few = {f"s{number}": float(number) for number in range(4)}
    many = {f"t{number}": float(number) for number in range(9)}
    assert gap_of_means(few, many).ci95 is None and gap_of_means(few, many).difference == -2.5
    assert gap_of_means({}, many) is None
    same = dict.fromkeys(many, 0.5)
    assert gap_of_means(same, many, (0.0, 1.0)).ci95 is None
    # Shares that are all 1 have the interval of successes without a failure.
    right, wrong = ({f"{name}{n}": value for n in range(20)} for name, value in (("r", 1.0), ("w", 0.0)))
    found = gap_of_means(right, wrong, (0.0, 1.0))
    assert found.difference == 1 and found.ci95[1] == 1 and 0.6 < found.ci95[0] < 0.9
    widened = gap_of_means(many, {f"u{n}": float(n % 5) for n in range(20)}, widening=2.0)
    plain = gap_of_means(many, {f"u{n}": float(n % 5) for n in range(20)})
    assert widened.ci95[1] - widened.difference == pytest.approx(2 * (plain.ci95[1] - plain.difference))
