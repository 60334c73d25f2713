"""Protocols on a trained pipeline: imagery, sessions, averaged repetitions, low-level pictures."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from fmri_models.cli.main import main
from fmri_models.data import TrialTable, TrialTableWriter
from fmri_models.data.split_trials import SplitTrials
from fmri_models.data.splits import add_split, split_by_imagery
from fmri_models.errors import FmriModelsError
from fmri_models.evaluation import Report, protocols, score_rows
from fmri_models.evaluation.evaluate import evaluate
from fmri_models.evaluation.protocols import Protocol
from fmri_models.training.recipe import load_recipe
from fmri_models.training.trainer import train
from tests.small_table import write_small_table

SMALL = ("pixcorr", "mse", "pairwise_pixcorr", "identification_top1")
ONLY_BRAIN = ["shuffled_brain"]


def with_protocol(monkeypatch, **options):
    protocol = Protocol("mine", "For tests.", SMALL, **options)
    monkeypatch.setitem(protocols.PROTOCOLS, "mine", protocol)
    return "mine"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("protocols")
    data = write_small_table(folder / "data", subjects=("subj07", "subj02"), noise=1.0)
    train(load_recipe("linear", [f"data={data}", f"out={folder / 'model'}", "generator=pixels"]))
    return folder


@pytest.fixture(scope="module")
def curve(workplace):
    return evaluate(
        workplace / "model", workplace / "data", workplace / "curve", "small_pictures", "curve", rows=ONLY_BRAIN
    )


def test_scores_rise_with_averaged_repetitions(curve, workplace):
    found = curve.repetition_curve
    assert (found["items"], found["left_out"], list(found["results"])) == (24, 0, ["1", "2", "3"])
    values = [found["results"][count]["pixcorr"]["value"] for count in "123"]
    assert values[0] < values[1] < values[2]
    # All repetitions are what the report itself is about, drawn once.
    assert found["results"]["3"] == curve.results["brain"]
    saved = Report.load(workplace / "curve")
    assert saved.repetition_curve["results"]["1"]["mse"]["ci95"]
    page = (workplace / "curve" / "report.md").read_text()
    assert "## Averaged repetitions" in page and "on the same 24 items" in page
    assert "Averaged repetitions" in (workplace / "curve" / "report.html").read_text()


def test_every_figure_is_measured_by_the_weights_that_were_given(workplace, tmp_path, monkeypatch):
    given = []

    def recorded(*arguments, weights=None, **options):
        given.append(weights)
        return score_rows(*arguments, weights=weights, **options)

    monkeypatch.setattr("fmri_models.evaluation.drawn_items.score_rows", recorded)
    evaluate(
        workplace / "model", workplace / "data", tmp_path / "out", "small_pictures", "curve", rows=ONLY_BRAIN,
        weights=tmp_path,
    )  # fmt: skip
    # The report, and 1, 2 and 3 averaged repetitions.
    assert given == [tmp_path] * 4


def test_one_repetition_of_the_curve_is_that_of_the_first_trials(curve, workplace):
    single = evaluate(
        workplace / "model", workplace / "data", workplace / "single", "small_pictures", "single", rows=ONLY_BRAIN
    )
    assert single.protocol["trial_average"] is False and "repetition_curve" not in single.to_dict()
    # A mean over all trials is another one than that over the first, of the same kind.
    one = curve.repetition_curve["results"]["1"]["pixcorr"]
    assert one["n"] == 24 and single.results["brain"]["pixcorr"]["n"] == 72
    assert one["value"] == pytest.approx(single.results["brain"]["pixcorr"]["value"], abs=0.05)


def test_what_a_report_says_of_test_set_and_training(curve, workplace):
    data = curve.data
    assert data["test_stimuli"] == 12 and data["test_repetitions"] == [3, 3]
    # Training and validation.
    assert data["training"]["subj07"] == {"trials": 210, "sessions": 3} and set(data["test_fingerprints"]) == {"0"}
    page = (workplace / "curve" / "report.md").read_text()
    assert "- test set: 12 pictures" in page
    assert "- learned from: subj02: 210 trials of 3 sessions; subj07: 210 trials of 3 sessions" in page
    over, subjects = curve.over_subjects["brain"]["mse"], curve.per_subject
    values = [subjects[name]["brain"]["mse"]["value"] for name in subjects]
    assert over == {"value": pytest.approx(np.mean(values)), "sd": pytest.approx(np.std(values, ddof=1)), "n": 2}
    assert "mean of subjects" in page


def test_hours_of_training_are_said_where_they_are_known(tmp_path, workplace):
    path = tmp_path / "data"
    shutil.copytree(workplace / "data", path)
    metadata = json.loads((path / "table.json").read_text())
    (path / "table.json").write_text(json.dumps(metadata | {"seconds_per_trial": 4.0}))
    report = evaluate(workplace / "model", tmp_path / "data", tmp_path / "out", "small_pictures", rows=ONLY_BRAIN)
    assert report.data["training"]["subj07"]["hours"] == pytest.approx(210 * 4 / 3600)
    assert "subj07: 0.2 h, 210 trials" in (tmp_path / "out" / "report.md").read_text()
    (path / "table.json").write_text(json.dumps(metadata | {"seconds_per_trial": "x"}))
    with pytest.raises(FmriModelsError, match="seconds_per_trial"):
        TrialTable.open(path)


def test_stimuli_are_exchanged_inside_what_was_asked_for(workplace, tmp_path, capsys):
    # Each stimulus was shown in all three sessions, so that all are exchanged as without.
    command = ["evaluate", "--model", str(workplace / "model"), "--data", str(workplace / "data")]
    command += ["--protocol", "small_pictures", "--rows", "shuffled_brain", "--out", str(tmp_path / "out")]
    assert main([*command, "--permute-within", "session"]) == 0
    report = Report.load(tmp_path / "out")
    assert report.protocol["exchange_within"] == "session"
    assert "inside a session alone" in (tmp_path / "out" / "report.md").read_text()
    assert report.permutation["mse"]["n"] == 200
    capsys.readouterr()
    assert main([*command, "--overwrite", "--permute-within", "block"]) == 1
    assert "does not know the blocks of subj02" in capsys.readouterr().err


def test_the_share_of_the_low_level_picture_is_mixed_in(workplace, tmp_path, monkeypatch):
    def pictures(row, out):
        return {path.stem: np.asarray(Image.open(path), float) for path in (out / "images" / row / "subj07").iterdir()}

    plain, mixed = tmp_path / "plain", tmp_path / "mixed"
    options = {"rows": ["brain_low_level"]}
    evaluate(workplace / "model", workplace / "data", plain, "small_pictures", **options)
    name = with_protocol(monkeypatch, low_level_share=0.25, blend=".25 low level")
    report = evaluate(workplace / "model", workplace / "data", mixed, name, **options)
    before, after, low = (pictures(*each) for each in (("brain", plain), ("brain", mixed), ("brain_low_level", mixed)))
    for stimulus, picture in after.items():
        assert np.abs(picture - (0.75 * before[stimulus] + 0.25 * low[stimulus])).max() <= 1
    assert "mixed into reconstructions before scoring: .25 low level" in (mixed / "report.md").read_text()
    assert "deviations" not in report.protocol


@pytest.fixture(scope="module")
def imagery(tmp_path_factory):
    """Twenty pictures seen, of which six are imagined as well, and a model that learned from the others."""
    folder = tmp_path_factory.mktemp("imagery")
    rng = np.random.default_rng(0)
    pictures = rng.uniform(0, 255, (30, 4, 4)).repeat(3, axis=1).repeat(3, axis=2).astype(np.uint8)
    ids, weights = [f"p{index:02d}" for index in range(30)], rng.normal(size=(144, 40)) / 12

    def betas(chosen):
        return (pictures[chosen].reshape(len(chosen), -1) / 255 - 0.5) @ weights + rng.normal(
            size=(len(chosen), 40)
        ) / 9

    with TrialTableWriter(folder / "data", name="imagery") as writer:
        writer.add_stimuli({"stimulus_id": name, "image": each} for name, each in zip(ids, pictures, strict=True))
        seen, imagined = np.arange(30).repeat(2), np.arange(24, 30)
        for chosen, marks in ((seen[:40], False), (seen[40:], False), (imagined, True)):
            part = "train" if chosen[0] < 20 else "test"
            writer.add_trials("subj01", part, [ids[i] for i in chosen], betas(chosen), imagery=[marks] * len(chosen))
    table = TrialTable.open(folder / "data")
    add_split(table, "imagery", split_by_imagery(SplitTrials.of_table(table)))
    for split in ("default", "imagery"):
        recipe = ["generator=pixels", "targets=[latents]", f"data={folder / 'data'}", f"split={split}"]
        train(load_recipe("linear", [*recipe, f"out={folder / split}"]))
    return folder


def test_seen_and_imagined_pictures_are_measured_apart(imagery, tmp_path, monkeypatch):
    found = {}
    for kind in ("seen", "imagined"):
        name = with_protocol(monkeypatch, measured_trials=kind)
        found[kind] = evaluate(imagery / "default", imagery / "data", tmp_path / kind, name, rows=ONLY_BRAIN)
    assert [found[kind].data["test_trials"] for kind in ("seen", "imagined")] == [20, 6]
    assert [found[kind].data["test_stimuli"] for kind in ("seen", "imagined")] == [10, 6]
    both = evaluate(imagery / "default", imagery / "data", tmp_path / "all", "small_pictures", rows=ONLY_BRAIN)
    assert any("6 of 26 test trials are of imagery" in note for note in both.notes)
    assert not any("are of imagery" in note for note in found["seen"].notes)


@pytest.mark.slow
def test_categories_are_identified_by_decoded_embeddings_of_what_was_seen_and_imagined(imagery, tmp_path):
    recipe = ["targets=[image_embeds]", f"data={imagery / 'data'}", f"out={tmp_path / 'model'}"]
    train(load_recipe("linear", recipe))
    command = ["evaluate", "--model", str(tmp_path / "model"), "--data", str(imagery / "data"), "--rows"]
    for name, stimuli in (("god", 10), ("god-imagined", 6)):
        out = tmp_path / name
        assert main([*command, "shuffled_brain", "--protocol", name, "--out", str(out)]) == 0
        report = Report.load(out)
        found = report.results["brain"]["category_identification"]
        chance = {metric["name"]: metric["chance"] for metric in report.protocol["metrics"]}
        assert (found["n"], chance["category_identification"]) == (stimuli, 0.5)
        assert 0 <= found["value"] <= 1 and "category_identification" in report.results["shuffled_brain"]
        assert report.permutation["category_identification"]["p"] <= 1


def test_a_model_that_learned_from_what_was_seen_is_tested_on_what_was_imagined(imagery, tmp_path, monkeypatch):
    name = with_protocol(monkeypatch, measured_trials="imagined")
    report = evaluate(imagery / "imagery", imagery / "data", tmp_path / "out", name, rows=ONLY_BRAIN)
    assert report.data["test_stimuli"] == 6 and "deviations" not in report.protocol
    assert "- measured trials: those of pictures that were imagined" in (tmp_path / "out" / "report.md").read_text()


def test_a_table_without_imagery_is_no_test_of_it(workplace, tmp_path, capsys):
    networks = ",".join(protocols.get_protocol("imagery").extractors)
    command = ["evaluate", "--model", str(workplace / "model"), "--data", str(workplace / "data"), "--out"]
    assert main([*command, str(tmp_path / "out"), "--protocol", "imagery", "--without", networks]) == 1
    error = capsys.readouterr().err
    assert "has no imagery trials of subj02, subj07" in error and "--by imagery" in error


def test_no_pattern_is_decoded_and_no_condition_drawn_twice(workplace, tmp_path, monkeypatch):
    """All of a report, with the curve: the same patterns never go through a model twice, nor equal decodings."""
    from fmri_models.evaluation.evaluated_subject import EvaluatedSubject

    decoded, drawn = [], []
    decode, draw = EvaluatedSubject.decode, EvaluatedSubject.draw

    def key(*tensors):
        return tuple(None if each is None else each.double().numpy().tobytes() for each in tensors)

    def decode_once(self, model, features, num_candidates=None):
        decoded.append((id(model), self.subject, key(features)))
        return decode(self, model, features, num_candidates)

    def draw_once(self, decoding, by=None, **changes):
        conditions = key(decoding.image_embeds, decoding.latents)
        drawn.append((self.subject, id(by or self.pipeline), str(changes), conditions))
        return draw(self, decoding, by, **changes)

    monkeypatch.setattr(EvaluatedSubject, "decode", decode_once)
    monkeypatch.setattr(EvaluatedSubject, "draw", draw_once)
    name = with_protocol(monkeypatch, low_level_share=0.25)
    with torch.no_grad():
        evaluate(workplace / "model", workplace / "data", tmp_path / "out", name, "curve")
    assert len(decoded) == len(set(decoded)) > 6
    assert len(drawn) == len(set(drawn)) > 6


def test_where_sessions_have_pictures_of_their_own_a_note_points_to_the_right_test(tmp_path):
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 255, (36, 12, 12), dtype=np.uint8)
    ids, weights = [f"p{index:02d}" for index in range(36)], rng.normal(size=(144, 30)) / 12
    betas = (pictures.reshape(36, -1) / 255 - 0.5) @ weights
    with TrialTableWriter(tmp_path / "data", name="sessions") as writer:
        writer.add_stimuli({"stimulus_id": name, "image": each} for name, each in zip(ids, pictures, strict=True))
        for part, chosen in (("train", slice(0, 24)), ("test", slice(24, 36))):
            sessions = np.resize([1, 2, 3], chosen.stop - chosen.start).tolist()
            writer.add_trials("subj01", part, ids[chosen], betas[chosen], sessions=sessions)
    recipe = ["generator=pixels", "targets=[latents]", f"data={tmp_path / 'data'}", f"out={tmp_path / 'model'}"]
    train(load_recipe("linear", recipe))
    options = {"rows": ONLY_BRAIN, "overwrite": True}
    place = (tmp_path / "model", tmp_path / "data", tmp_path / "out", "small_pictures")
    among_all = evaluate(*place, **options)
    assert any("--permute-within session allows for that" in note for note in among_all.notes)
    inside = evaluate(*place, **options, exchange_within="session")
    assert not any("--permute-within" in note for note in inside.notes)
    assert inside.permutation["mse"]["n"] == 200
