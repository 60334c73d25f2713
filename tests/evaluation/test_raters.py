"""Rater packs: trials, the folder that is handed out, answers that come back, and what they say of a report."""

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fmri_models.cli.main import main
from fmri_models.errors import FmriModelsError
from fmri_models.evaluation import Report, RowData, evaluate_images, score_rows
from fmri_models.evaluation.protocols import Protocol, get_protocol
from fmri_models.evaluation.raters.answers import checksum
from fmri_models.evaluation.raters.key import Key
from fmri_models.evaluation.raters.pack import PackRequest
from fmri_models.evaluation.raters.ratings import add_ratings
from fmri_models.evaluation.raters.statistics import (
    chance_to_pass,
    crossed_interval,
    krippendorff_alpha,
    over_stimuli,
    rank_correlation,
)
from fmri_models.evaluation.raters.trials import drawn_trials, in_two_halves
from tests.evaluation.test_images import write_pictures
from tests.evaluation.toy_report import smooth_pictures
from tests.small_demo import save_small_demo

NAN = float("nan")
PACK = re.compile(r"const PACK = (\{.*\});")


# ------------------------------------------------------------------------------------------------------- statistics


def test_alpha_is_that_of_krippendorffs_examples():
    """Krippendorff, Computing Krippendorff's Alpha-Reliability (2011): sections B (binary) and C (missing ratings)."""
    binary = [[0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]]
    assert krippendorff_alpha(np.array(binary)) == pytest.approx(0.095, abs=5e-4)
    four = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
        [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
    ]
    assert krippendorff_alpha(np.array(four)) == pytest.approx(0.743, abs=5e-4)


def test_alpha_at_its_ends():
    same = np.array([[0, 1, 0, 1, 1], [0, 1, 0, 1, 1]])
    assert krippendorff_alpha(same) == 1
    assert krippendorff_alpha(np.ones((3, 5))) is None
    assert krippendorff_alpha(np.full((2, 4), NAN)) is None
    assert krippendorff_alpha(np.array([[0.0, NAN], [NAN, 1.0]])) is None
    guesses = np.random.default_rng(0).integers(2, size=(4, 4000))
    assert krippendorff_alpha(guesses) == pytest.approx(0, abs=0.03)


def crossed(generator, raters, groups, size=2, of_rater=0.1, of_stimulus=0.2, mean=0.7):
    share = (
        mean
        + of_rater * generator.standard_normal((raters, 1, 1))
        + of_stimulus * generator.standard_normal((groups, 1))
    )
    chosen = generator.random((raters, groups, size)) < np.clip(share, 0, 1)
    return chosen.reshape(raters, -1).astype(float), np.repeat(np.arange(groups), size)


@pytest.mark.parametrize(("raters", "groups", "of_rater"), [(3, 20, 0.1), (6, 12, 0.1), (10, 60, 0.0), (1, 40, 0.0)])
def test_the_interval_holds_for_other_people_and_other_stimuli(raters, groups, of_rater):
    """Of draws of raters and stimuli that differ, it holds the true mean in some 95 %."""
    generator = np.random.default_rng(raters)
    true = np.mean([crossed(generator, 300, 300, 1, of_rater)[0].mean() for _ in range(30)])
    intervals = [crossed_interval(*crossed(generator, raters, groups, 2, of_rater)) for _ in range(400)]
    assert 0.91 <= np.mean([low <= true <= high for low, high in intervals]) <= 0.995


def test_the_interval_of_a_mean_that_forgets_raters_would_be_too_narrow():
    generator = np.random.default_rng(3)
    values, groups = crossed(generator, 4, 80, 1, of_rater=0.25, of_stimulus=0.0)
    low, high = crossed_interval(values, groups)
    alone_low, alone_high = crossed_interval(values.mean(0, keepdims=True), groups)
    assert high - low > 1.5 * (alone_high - alone_low)


def test_intervals_at_the_ends_and_of_few():
    assert crossed_interval(np.ones((3, 4)), [0, 1, 2, 3]) is None
    low, high = crossed_interval(np.ones((3, 20)), list(range(20)))
    assert (low, high) == (pytest.approx(0.8316, abs=1e-4), 1)
    assert crossed_interval(np.full((3, 20), 0.5), list(range(20))) is None
    low, high = crossed_interval(np.eye(20)[:1], list(range(20)))
    assert low == 0
    assert over_stimuli(lambda at: 1.0, [0, 1, 2]) is None
    assert over_stimuli(lambda at: None, list(range(9))) is None
    assert rank_correlation(np.array([1, 2, 3.0]), np.array([0, 5, 9.0])) == pytest.approx(1)
    assert rank_correlation(np.array([1, 1, 1.0]), np.array([0, 5, 9.0])) is None
    assert chance_to_pass(6, 5) == pytest.approx(7 / 64)


# ------------------------------------------------------------------------------------------------------------ trials


def drawn(count=24, subjects=1, most=60, recon=None, against=(), seed=0, size=32):
    truth = smooth_pictures(count, size=size).repeat(subjects, 1, 1, 1)
    recon = 0.5 * truth + 0.2 if recon is None else recon
    rows = {"brain": RowData(recon), "nearest_train": RowData(truth.flip(0) * 0.9)}
    names = [f"subj{number:02d}" for number in range(1, subjects + 1) for _ in range(count)]
    ids = [f"s{number:03d}" for number in range(count)] * subjects
    scores = score_rows(rows, truth, ids, Protocol("p", "", ("pixcorr",)), names, permutations=0)
    return drawn_trials(rows, truth, scores, None, most, against, seed), scores


def of_kind(trials, kind):
    return [each for each in trials if each.kind == kind]


def test_where_there_are_many_stimuli_none_is_in_two_trials():
    trials, scores = drawn(count=150)
    found = of_kind(trials, "own_or_other")
    used = [scores.stimulus_ids[place] for each in found for place in (each.item, each.other)]
    assert len(found) == 60
    assert max(Counter(used).values()) == 1
    assert len({each.group for each in found}) == 60


@pytest.mark.parametrize("count", [2, 3, 4, 5, 7, 24])
def test_with_few_stimuli_each_is_shown_once_and_stands_once_beside(count):
    trials, scores = drawn(count=count)
    found = of_kind(trials, "own_or_other")
    assert sorted(scores.stimulus_ids[each.item] for each in found) == sorted(set(scores.stimulus_ids))
    assert Counter(each.other for each in found).most_common(1)[0][1] == 1
    groups = {each.item: each.group for each in found}
    assert all(groups[each.item] == groups[each.other] for each in found)
    assert len(set(groups.values())) == (count + 1) // 3


def test_others_are_of_the_same_subject_and_show_something_else():
    trials, scores = drawn(count=30, subjects=3, against=["nearest_train"])
    for each in of_kind(trials, "own_or_other"):
        assert scores.subjects[each.item] == scores.subjects[each.other]
        assert scores.units[each.item] != scores.units[each.other]
    assert all(each.item == each.other and each.row == "nearest_train" for each in of_kind(trials, "own_or_row"))
    assert len(of_kind(trials, "own_or_row")) == 30


def test_sides_and_repeats():
    trials, _ = drawn(count=200, against=["nearest_train"])
    assert 0.35 < np.mean([each.own_first for each in trials]) < 0.65
    repeats = of_kind(trials, "repeat")
    assert len(repeats) == len(of_kind(trials, "catch")) == 12
    for each in repeats:
        assert each.own_first != trials[each.again].own_first
        assert (each.item, each.other, each.row) == (
            trials[each.again].item,
            trials[each.again].other,
            trials[each.again].row,
        )
    first, second = in_two_halves(trials, 0)
    assert abs(len(first) - len(second)) <= 1
    assert {each.again for each in repeats} <= set(first)
    assert all(trials[place].kind != "repeat" for place in first)
    assert sorted([*first, *second]) == list(range(len(trials)))
    assert drawn(count=200, against=["nearest_train"])[0] == trials
    assert drawn(count=200, against=["nearest_train"], seed=1)[0] != trials


def test_pictures_that_are_the_same_are_not_shown():
    recon = smooth_pictures(12, size=32)
    recon[:] = recon[:1]
    trials, _ = drawn(count=12, recon=recon)
    assert all(each.same for each in trials) and not of_kind(trials, "catch")
    assert in_two_halves(trials, 0) == ([], [])
    recon = smooth_pictures(12, size=32)
    recon[:6] = recon[:1]
    trials, _ = drawn(count=12, recon=recon)
    shown = {place for half in in_two_halves(trials, 0) for place in half}
    assert shown == {place for place, each in enumerate(trials) if not each.same}
    assert any(each.same for each in trials)


def test_a_single_stimulus_has_nothing_beside_it():
    assert drawn(count=1)[0] == []


# ------------------------------------------------------------------------------------------------------ pack and page


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A report of files with a pack beside it; of the first six pictures the reconstructions are of the next one."""
    folder = tmp_path_factory.mktemp("pack")
    recon, truth = write_pictures(folder / "recon", 30, noise=0.4), write_pictures(folder / "truth", 30)
    names = [recon / f"picture{number:02d}.png" for number in range(6)]
    pictures = [Image.open(name).copy() for name in names]
    for name, picture in zip(names, pictures[1:] + pictures[:1], strict=True):
        picture.save(name)
    request = PackRequest(folder / "raters", 20, ["mean_image"])
    evaluate_images(recon, truth, folder / "report", "small_pictures", rater_pack=request)
    return folder


def pack_of(folder):
    page = (folder / "raters" / "index.html").read_text(encoding="utf-8")
    return json.loads(PACK.search(page)[1]), page


def test_the_folder_gives_nothing_away(made):
    content, page = pack_of(made)
    key = Key.load(made / "raters-key.json")
    files = sorted(
        path.relative_to(made / "raters").as_posix() for path in (made / "raters").rglob("*") if path.is_file()
    )
    trials = [each for half in content["halves"] for each in half]
    named = {f"pictures/{name}.png" for each in trials for name in (each["shown"], *each["options"])}
    assert files == sorted(["index.html", *named])
    assert len(named) == 3 * len(trials), "a name for each picture of each trial"
    assert {each["id"] for each in trials} == set(key.shown)
    for word in ("picture0", "brain", "mean_image", "catch", "repeat", "own_or"):
        assert word not in PACK.search(page)[1]
    assert not re.search(r"https?://|src=\"(?!data:)|@import|url\(", page)
    assert all(set(each) == {"id", "shown", "options"} for each in trials)
    assert len({path.stat().st_mtime for path in (made / "raters" / "pictures").iterdir()}) == 1
    # The own picture is neither always first nor always second.
    first = [each["options"][0] == key.shown[each["id"]].own for each in trials]
    assert 0.2 < np.mean(first) < 0.8


def test_the_key_knows_what_the_pictures_are(made):
    key = Key.load(made / "raters-key.json")
    content, _ = pack_of(made)
    shown = {each["id"]: each["shown"] for half in content["halves"] for each in half}

    def pixels(path):
        return np.asarray(Image.open(path))

    for name, trial in key.shown.items():
        pictures = made / "raters" / "pictures"
        images = made / "report" / "images"
        assert (pixels(pictures / f"{shown[name]}.png") == pixels(images / "truth" / f"{trial.stimulus}.png")).all()
        own, beside = pixels(pictures / f"{trial.own}.png"), pixels(pictures / f"{trial.beside}.png")
        own_row = "truth" if trial.kind == "catch" else "brain"
        assert (own == pixels(images / own_row / f"{trial.stimulus}.png")).all()
        assert (beside == pixels(images / trial.row / f"{trial.other}.png")).all()
    assert {each.kind for each in key.trials} == {"own_or_other", "own_or_row", "catch", "repeat"}


def test_metrics_choose_in_the_same_trials(made):
    """Of the exchanged six, pixels may find the other picture more like; of the others, never."""
    key = Key.load(made / "raters-key.json")
    right = {each.stimulus: each.chosen_by["pixcorr"] for each in key.trials if each.kind == "own_or_other"}
    assert all(right[name] == 1 for name in right if name >= "picture06")
    assert set(key.trials[0].chosen_by) == {"pixcorr", "ssim", "mse"}


def test_a_pack_is_never_replaced_and_holds_no_report(made, tmp_path):
    recon, truth = made / "recon", made / "truth"

    def pack(folder, out=tmp_path / "report"):
        return evaluate_images(recon, truth, out, "small_pictures", overwrite=True, rater_pack=PackRequest(folder))

    with pytest.raises(FmriModelsError, match="raters-key.json is there already, and answers belong"):
        pack(made / "raters")
    with pytest.raises(FmriModelsError, match="would be handed out"):
        pack(tmp_path / "all", tmp_path / "all" / "report")
    with pytest.raises(FmriModelsError, match="among the report's pictures"):
        pack(tmp_path / "report" / "images" / "raters")
    assert not (tmp_path / "report").exists()
    pack(tmp_path / "report" / "raters")
    assert (tmp_path / "report" / "raters-key.json").is_file()


def test_what_cannot_be_asked_is_refused(tmp_path):
    with pytest.raises(FmriModelsError, match="no row 'nearest_trian' of a report.*nearest_train"):
        PackRequest(tmp_path / "raters", against=["nearest_trian"])
    with pytest.raises(FmriModelsError, match="'brain' is what is judged"):
        PackRequest(tmp_path / "raters", against=["brain"])
    with pytest.raises(FmriModelsError, match="of 0 trials"):
        PackRequest(tmp_path / "raters", 0)
    folders = write_pictures(tmp_path / "recon", 6), write_pictures(tmp_path / "truth", 6)
    report = evaluate_images(*folders, tmp_path / "out", Protocol("p", "", ("pixcorr", "people_two_way")))
    assert report.results["brain"]["people_two_way"] is None
    assert any("people_two_way: left out, because people have to be asked" in note for note in report.notes)


def test_the_same_picture_throughout_makes_no_pack(tmp_path):
    truth, recon = write_pictures(tmp_path / "truth", 6), write_pictures(tmp_path / "recon", 6)
    for path in recon.iterdir():
        Image.open(recon / "picture00.png").save(path)
    with pytest.raises(FmriModelsError, match="all reconstructions are the same; no rater pack"):
        evaluate_images(recon, truth, tmp_path / "out", "small_pictures", rater_pack=PackRequest(tmp_path / "raters"))
    assert (tmp_path / "out" / "report.json").is_file()
    assert not (tmp_path / "raters").exists()


# ------------------------------------------------------------------------------------------------------------- answers


def answered(key: Key, rater: str, chooses, seed=0, **changes):
    """The file of a rater who takes the own picture where `chooses(trial, generator)` says so."""
    generator = np.random.default_rng(seed)
    answers = []
    for name in generator.permutation(sorted(key.shown)).tolist():
        trial = key.shown[name]
        chosen = trial.own if chooses(trial, generator) else trial.beside
        answers.append(
            {"trial": name, "chosen": chosen, "side": ("left", "right")[generator.integers(2)], "milliseconds": 900}
        )
    content = {"format": "fmri_models.rater_answers", "schema": 1, "pack": key.pack, "rater": rater}
    content |= {"session": f"{abs(hash((rater, seed))) % 16**16:016x}", "answers": answers, **changes}
    lines = [content["pack"], content["rater"], content["session"]]
    lines += [f"{it['trial']},{it['chosen']},{it['side']},{it['milliseconds']}" for it in content["answers"]]
    return {"checksum": checksum("\n".join(lines))} | content


def careful(share):
    return lambda trial, generator: trial.kind == "catch" or generator.random() < share


def guess(trial, generator):
    return generator.random() < 0.5


def write(folder: Path, *contents):
    folder.mkdir(exist_ok=True)
    for number, content in enumerate(contents):
        (folder / f"answers{number}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


@pytest.fixture
def report(made, tmp_path):
    """A copy of the report, to which answers are added."""
    import shutil

    return shutil.copytree(made / "report", tmp_path / "report")


@pytest.fixture
def key(made):
    return Key.load(made / "raters-key.json")


def test_planted_choices_come_back(made, report, key, tmp_path):
    """Three who take the own picture in the very same trials, four of five, and one who never looks."""
    hard = {name for number, name in enumerate(sorted(key.shown)) if number % 5 == 0}

    def alike(trial, generator):
        return trial.kind == "catch" or (trial.again or trial.id) not in hard

    never = answered(key, "Dora", lambda trial, generator: trial.kind != "catch")
    files = write(tmp_path / "answers", *(answered(key, name, alike) for name in ("Ada", "Ben", "Cid")), never)
    found = add_ratings(report, made / "raters-key.json", [files])
    identified = [each for each in key.trials if each.kind == "own_or_other"]
    expected = np.mean([each.id not in hard for each in identified])
    result = found.results["brain"]["people_two_way"]
    assert result["value"] == pytest.approx(expected)
    assert result["n"] == 3 * len(identified) and result["stimuli"] == len(identified)
    assert result["ci95"][0] < expected < result["ci95"][1]
    assert 0.5 < found.results["brain"]["people_over_mean_image"]["value"] <= 1
    people = found.people
    assert [people["raters"][name]["counts"] for name in ("Ada", "Ben", "Cid", "Dora")] == [True, True, True, False]
    assert people["raters"]["Ada"]["repeated_alike"] == people["raters"]["Ada"]["repeated_trials"] > 0
    assert people["agreement"]["choices"]["alpha"] == pytest.approx(1)
    assert people["agreement"]["same_choice"] == 1
    assert set(people["scores"]) == {
        "pairwise_pixcorr",
        "identification_top1",
        "pixcorr",
        "ssim",
        "ssim_uniform",
        "mse",
    }
    assert any("rater Dora (of 4) is left out" in note for note in found.notes)
    read = Report.load(report)
    assert read.results == found.results and read.people["pack"] == key.pack
    assert read.metrics()[0].name == "people_two_way"
    for page in ("report.md", "report.html"):
        text = (report / page).read_text(encoding="utf-8")
        assert "two-way people" in text and "People: raters" in text and "Dora" in text
    lines = (report / "rater_answers.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + 4 * len(key.shown)


@pytest.mark.slow
def test_guessers_find_nothing(made, report, key, tmp_path):
    """The null: the interval holds one half, raters do not agree, and the notes say so."""
    guessing = [
        answered(key, f"G{number}", lambda trial, generator: trial.kind == "catch" or guess(trial, generator), number)
        for number in range(5)
    ]
    found = add_ratings(report, made / "raters-key.json", [write(tmp_path / "answers", *guessing)])
    low, high = found.results["brain"]["people_two_way"]["ci95"]
    assert low < 0.5 < high
    assert found.people["agreement"]["choices"]["alpha"] < 0.2
    assert any("compatible with guessing" in note for note in found.notes)
    assert any("hardly agree" in note for note in found.notes)
    each = found.people["metrics"]["pixcorr"]["same_choice"]
    assert each["ci95"][0] < 0.5 < each["ci95"][1]


def test_metrics_that_choose_as_people_do_agree_with_them(made, report, key, tmp_path):
    def by_pixels(trial, generator):
        return trial.kind == "catch" or trial.chosen_by["pixcorr"] == 1

    files = write(tmp_path / "answers", *(answered(key, name, by_pixels) for name in ("Ada", "Ben")))
    found = add_ratings(report, made / "raters-key.json", [files])
    pixcorr = found.people["metrics"]["pixcorr"]
    assert pixcorr["same_choice"]["value"] == pytest.approx(1) or pixcorr["right"] < 1
    assert pixcorr["right"] == pytest.approx(found.results["brain"]["people_two_way"]["value"], abs=0.06)


def test_people_are_right_where_scores_are_good(made, report, key, tmp_path):
    """People who miss the six exchanged pictures, which have bad scores in every metric."""

    def easy(trial, generator):
        return trial.kind == "catch" or trial.stimulus >= "picture06"

    files = write(tmp_path / "answers", *(answered(key, name, easy) for name in ("Ada", "Ben")))
    scores = add_ratings(report, made / "raters-key.json", [files]).people["scores"]
    for metric in ("pixcorr", "ssim", "mse"):
        assert scores[metric]["correlation"] > 0.4
        assert scores[metric]["stimuli"] == sum(each.kind == "own_or_other" for each in key.trials)


@pytest.mark.slow
def test_merged_folds_have_wider_intervals(made, report, key, tmp_path):
    files = write(tmp_path / "answers", *(answered(key, name, careful(0.7), n) for n, name in enumerate("ABC")))
    low = add_ratings(report, made / "raters-key.json", [files]).results["brain"]["people_two_way"]["ci95"][0]
    content = json.loads((report / "report.json").read_text())
    content["data"] |= {"split": "kfold", "folds": [0, 1], "test_items": 30, "test_trials": 30}
    (report / "report.json").write_text(json.dumps(content))
    found = add_ratings(report, made / "raters-key.json", [files], overwrite=True).results["brain"]["people_two_way"]
    middle = found["value"]
    assert middle - found["ci95"][0] == pytest.approx((middle - low) * 2**0.5, rel=0.01)


@pytest.mark.slow
def test_one_rater_has_an_interval_for_stimuli_and_no_agreement(made, report, key, tmp_path):
    found = add_ratings(report, made / "raters-key.json", [write(tmp_path / "a", answered(key, "Ada", careful(0.8)))])
    assert found.results["brain"]["people_two_way"]["ci95"] is not None
    assert found.people["agreement"] is None
    assert any("says nothing of other people" in note for note in found.notes)
    Report.load(report)


@pytest.mark.slow
def test_answers_are_added_once_or_with_overwrite(made, report, key, tmp_path):
    one = write(tmp_path / "one", answered(key, "Ada", careful(0.9)))
    two = write(tmp_path / "two", answered(key, "Ben", careful(0.9), 1), answered(key, "Cid", careful(0.9), 2))
    before = Report.load(report)
    add_ratings(report, made / "raters-key.json", [one])
    with pytest.raises(FmriModelsError, match="has answers of people already; give all files at once and add --overwr"):
        add_ratings(report, made / "raters-key.json", [two])
    found = add_ratings(report, made / "raters-key.json", [two], overwrite=True)
    assert list(found.people["raters"]) == ["Ben", "Cid"]
    assert [each["name"] for each in found.protocol["metrics"]].count("people_two_way") == 1
    assert [note for note in found.notes if note not in found.people["notes"]] == before.notes
    evaluate_images(made / "recon", made / "truth", report, "small_pictures", overwrite=True)
    assert not (report / "rater_answers.csv").exists()
    assert not Report.load(report).people


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda it: {**it, "pack": "0" * 16}, "is of another pack"),
        (lambda it: {**it, "rater": "Eve"}, "was changed after it was downloaded"),
        (lambda it: {**it, "answers": it["answers"][:-1]}, "was changed after"),
        (lambda it: {**it, "format": "other"}, "holds no answers of a rater"),
        (lambda it: {**it, "schema": 2}, "of another version"),
        (lambda it: {**it, "answers": "none"}, "expected list"),
        (lambda it: {**it, "rater": "a\nb"}, "expected one line"),
        (lambda it: {**it, "answers": [{**it["answers"][0], "milliseconds": -1}]}, "expected"),
        (lambda it: [it], "holds no JSON object"),
    ],
)
def test_files_that_are_not_as_the_page_wrote_them_are_a_sentence(made, report, key, tmp_path, change, message):
    files = write(tmp_path / "answers", change(answered(key, "Ada", careful(0.9))))
    with pytest.raises(FmriModelsError, match=message) as error:
        add_ratings(report, made / "raters-key.json", [files])
    assert "\n" not in str(error.value)
    assert "people" not in json.loads((report / "report.json").read_text())


def test_answers_with_a_right_checksum_are_looked_through(made, report, key, tmp_path):
    whole = answered(key, "Ada", careful(0.9))["answers"]
    for answers, message in (
        (whole[:10], rf"is not finished: {len(whole) - 10} of {len(whole)} trials have no answer"),
        ([*whole, whole[0]], "twice"),
        ([{**whole[0], "trial": "f" * 16}, *whole[1:]], "which the pack does not have"),
        ([{**whole[0], "chosen": "f" * 16}, *whole[1:]], "none of the two"),
    ):
        files = write(tmp_path / "answers", answered(key, "Ada", careful(0.9), answers=answers))
        with pytest.raises(FmriModelsError, match=message):
            add_ratings(report, made / "raters-key.json", [files])


def test_nobody_counts_twice(made, report, key, tmp_path):
    ada = answered(key, "Ada", careful(0.9))
    for second, message in (
        (answered(key, " ada", careful(0.9), 1), "both have the rater"),
        (ada, "one session of one rater"),
    ):
        with pytest.raises(FmriModelsError, match=message):
            add_ratings(report, made / "raters-key.json", [write(tmp_path / "answers", ada, second)])
    file = write(tmp_path / "once", ada) / "answers0.json"
    with pytest.raises(FmriModelsError, match="is given twice"):
        add_ratings(report, made / "raters-key.json", [file, tmp_path / "once"])


def test_nobody_who_counts_is_a_sentence(made, report, key, tmp_path):
    asleep = answered(key, "Ada", lambda trial, generator: False)
    with pytest.raises(FmriModelsError, match="None of 1 raters was right in"):
        add_ratings(report, made / "raters-key.json", [write(tmp_path / "answers", asleep)])


def test_the_report_and_key_have_to_be_those_of_the_pack(made, report, key, tmp_path):
    files = write(tmp_path / "answers", answered(key, "Ada", careful(0.9)))
    evaluate_images(made / "recon", made / "truth", tmp_path / "other", "small_pictures", without=["mse"])
    with pytest.raises(FmriModelsError, match="is not the one that the pack"):
        add_ratings(tmp_path / "other", made / "raters-key.json", [files])
    with pytest.raises(FmriModelsError, match="key of a rater pack"):
        add_ratings(report, tmp_path / "no.json", [files])
    with pytest.raises(FmriModelsError, match="has no file of answers"):
        (tmp_path / "empty").mkdir()
        add_ratings(report, made / "raters-key.json", [tmp_path / "empty"])
    broken = json.loads((made / "raters-key.json").read_text())
    for change, message in (
        ({"pack": 3}, "expected"),
        ({"trials": []}, "at least 1"),
        ({"schema": 2}, "newer version"),
        ({"catch_needed": 10**6}, "as many catch trials"),
        ({"trials": [broken["trials"][0]] * 2}, "names that are of one trial"),
    ):
        (tmp_path / "key.json").write_text(json.dumps(broken | change))
        with pytest.raises(FmriModelsError, match=message):
            add_ratings(report, tmp_path / "key.json", [files])


@pytest.mark.slow
@pytest.mark.parametrize("place", ["raters", "agreement", "metrics"])
def test_a_report_with_broken_people_is_refused(made, report, key, tmp_path, place):
    add_ratings(
        report,
        made / "raters-key.json",
        [write(tmp_path / "a", *(answered(key, name, careful(0.8), number) for number, name in enumerate("AB")))],
    )
    content = json.loads((report / "report.json").read_text())
    content["people"][place] = {"x": {"y": 1}}
    (report / "report.json").write_text(json.dumps(content))
    with pytest.raises(FmriModelsError, match="people"):
        Report.load(report)


# ------------------------------------------------------------------------------------------------------- command line


@pytest.mark.slow
def test_the_command_line(tmp_path, capsys):
    recon, truth = write_pictures(tmp_path / "recon", 12, noise=0.3), write_pictures(tmp_path / "truth", 12)
    out, pack = tmp_path / "report", tmp_path / "raters"
    given = [
        "evaluate",
        "--images",
        str(recon),
        "--truth",
        str(truth),
        "--protocol",
        "small_pictures",
        "--out",
        str(out),
    ]
    assert main([*given, "--rater-pack", str(pack), "--rater-trials", "8", "--rater-against", "mean_image"]) == 0
    printed = capsys.readouterr().out
    assert "which raters must not see" in printed and "--rater-key" in printed
    key = Key.load(tmp_path / "raters-key.json")
    files = write(tmp_path / "answers", *(answered(key, name, careful(0.9), n) for n, name in enumerate("AB")))
    back = ["evaluate", "--ratings", str(files), "--rater-key", str(tmp_path / "raters-key.json"), "--out", str(out)]
    assert main(back) == 0
    printed = capsys.readouterr().out
    assert "two-way people" in printed and "rater_answers.csv" in printed
    assert main(back) == 1
    assert "already" in capsys.readouterr().err
    assert main([*given, "--overwrite", "--rater-trials", "8"]) == 2
    assert "--rater-trials has no effect here" in capsys.readouterr().err
    assert main([*back, "--overwrite", "--protocol", "standard"]) == 2
    assert "--protocol has no effect here" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([*back[:3], "--out", str(out)])
    assert "give --ratings and --rater-key together" in capsys.readouterr().err


def test_grey_digits_have_a_pack(tmp_path):
    recon = write_pictures(tmp_path / "recon", 10, mode="L", noise=0.3)
    truth = write_pictures(tmp_path / "truth", 10, mode="L")
    evaluate_images(
        recon, truth, tmp_path / "out", get_protocol("small_pictures"), rater_pack=PackRequest(tmp_path / "p")
    )
    assert '"pixelated": true' in (tmp_path / "p" / "index.html").read_text(encoding="utf-8")


def test_a_model_has_a_pack(tmp_path, monkeypatch, capsys):
    """With rows that were drawn; one that was not is named and left out."""
    save_small_demo(tmp_path, monkeypatch)
    given = ["evaluate", "--model", "outputs/demo/pipeline", "--data", "outputs/demo/data", "--out", "report"]
    given += ["--protocol", "small_pictures", "--rows", "nearest_train", "--samples", "2"]
    assert main([*given, "--rater-pack", "raters", "--rater-against", "nearest_train,shuffled_brain"]) == 0
    assert "no pictures of shuffled_brain, which the rater pack is without" in capsys.readouterr().err
    key = Key.load("raters-key.json")
    report = Report.load("report")
    assert key.items_sha256 == report.items_sha256
    assert {each.row for each in key.trials} == {"brain", "nearest_train", "truth"}
    # One picture of each response, whatever the number of samples.
    own = [each for each in key.trials if each.kind == "own_or_other"]
    assert len({each.stimulus for each in own}) == len(own)
    files = write(tmp_path / "answers", *(answered(key, name, careful(0.8), n) for n, name in enumerate("AB")))
    found = add_ratings("report", "raters-key.json", [files])
    assert set(found.results["brain"]) >= {"people_two_way", "people_over_nearest_train"}
