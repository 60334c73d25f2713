"""`evaluate --audit library`: pictures that are looked up instead of drawn, none of which is a test picture."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image

from fmri_models import TrialTable
from fmri_models.cli.main import main
from fmri_models.errors import FmriModelsError
from fmri_models.evaluation import Report
from fmri_models.evaluation.audit import audit_notes, audit_tables, checked_audit
from fmri_models.evaluation.audit.library import LIBRARY
from fmri_models.evaluation.evaluate import evaluate
from fmri_models.evaluation.further_pictures import further_pictures
from fmri_models.evaluation.nearest_pictures import most_similar, unit_vectors
from fmri_models.scenes import scene, stimulus_id
from fmri_models.training.recipe import load_recipe
from fmri_models.training.trainer import train
from tests.evaluation.damaged_audit import check_damaged
from tests.small_table import PARTS, write_kfold, write_small_table

TEST = PARTS["test"]
ROWS = ["ceiling", "nearest_train"]
SUBJECTS = ("subj07", "subj02")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("library")
    data = write_small_table(folder / "data", SUBJECTS, noise=1.0)
    train(load_recipe("linear", [f"data={data}", f"out={folder / 'model'}", "generator=pixels", "targets=[latents]"]))
    return folder


def audited(workplace, out, library=None, model="model", **options):
    report = evaluate(
        workplace / model, workplace / "data", out, "small_pictures", rows=ROWS, audit=["library"], library=library,
        **options,
    )  # fmt: skip
    return report, report.audit["library"]


@pytest.fixture(scope="module")
def alone(workplace):
    """The library that nobody has to give: what was learned from."""
    return audited(workplace, workplace / "alone")


def shown_pictures(workplace):
    table = TrialTable.open(workplace / "data")
    ids = sorted(set(table.trials("subj07", "test").stimulus_ids.tolist()))
    return dict(zip(ids, table.stimuli.images(ids), strict=True))


def save(folder, pictures):
    folder.mkdir()
    for name, picture in pictures.items():
        Image.fromarray(picture.squeeze()).save(folder / f"{name}.png")
    return folder


def random_pictures(count, seed=1, side=12):
    coarse = np.random.default_rng(seed).uniform(0, 255, size=(count, 4, 4))
    return coarse.repeat(side // 4, axis=1).repeat(side // 4, axis=2).astype(np.uint8)


def test_the_training_pictures_are_the_library(alone, workplace):
    report, found = alone
    assert found["sizes"] == {"all": [70, 70]} and found["further"] is None
    assert [(each["subject"], each["pictures"], each["equal"]) for each in found["subjects"]] == [
        ("subj02", 70, 0), ("subj07", 70, 0),
    ]  # fmt: skip
    # What `nearest_train` finds, too.
    assert found["results"]["library_all"] == report.results["nearest_train"]
    assert found["brain_above"]["library_all"] == report.comparisons["nearest_train"]
    assert found["results"]["brain"] == report.results["brain"]
    assert found["results"]["ceiling"] == report.results["ceiling"]
    scores = {row: found["results"][row]["pixcorr"]["value"] for row in found["results"]}
    assert scores["library_random"] < scores["library_all"] < scores["oracle_all"] < scores["ceiling"]
    difference = found["ceiling_above"]["oracle_all"]["pixcorr"]["difference"]
    assert difference == pytest.approx(scores["ceiling"] - scores["oracle_all"])
    assert Report.load(workplace / "alone").audit == report.audit
    page = (workplace / "alone" / "report.md").read_text()
    assert "## Library: looked up instead of drawn" in page and "nearest of all 70" in page
    assert "<svg" in (workplace / "alone" / "report.html").read_text()


@pytest.mark.slow
def test_test_pictures_and_their_near_copies_are_no_library(workplace, tmp_path):
    shown = shown_pictures(workplace)
    changed = {f"{name}_changed": picture.copy() for name, picture in shown.items()}
    for picture in changed.values():
        picture[0, 0] ^= 1
    mirrored = {f"{name}_mirrored": picture[:, ::-1] for name, picture in list(shown.items())[:3]}
    others = {f"other{number}": picture for number, picture in enumerate(random_pictures(100))}
    twice = {"twice": others["other0"]}
    folder = save(tmp_path / "library", shown | changed | mirrored | others | twice)
    _, found = audited(workplace, tmp_path / "out", folder)
    for counts in found["subjects"]:
        assert counts["equal"] == TEST and counts["repeated"] == 1
        # Mirrored ones are far off for this generator, whose embedding is the picture.
        assert TEST <= counts["near"] <= TEST + 3
        assert counts["pictures"] + counts["near"] == 70 + 100 + TEST + 3 and counts["training"] == 70
    assert found["sizes"] == {"100": [100, 100], "all": [170 + TEST + 3] * 2}
    # Otherwise the oracle would be perfect.
    assert found["results"]["oracle_all"]["pixcorr"]["value"] < 0.9
    assert found["results"]["library_all"]["pixcorr"]["value"] < 0.9


def test_a_library_that_holds_what_was_nearly_shown_is_found(workplace, tmp_path):
    """Planted: a picture much like each that was shown, and no copy."""
    rng = np.random.default_rng(0)
    planted = {
        f"like_{name}": np.clip(picture + rng.normal(size=picture.shape) * 22, 0, 255).astype(np.uint8)
        for name, picture in shown_pictures(workplace).items()
    }
    _, found = audited(workplace, tmp_path / "out", save(tmp_path / "library", planted))
    assert [each["near"] for each in found["subjects"]] == [0, 0]
    found_of_shown, looked_up = (found["results"][row]["pixcorr"]["value"] for row in ("oracle_all", "library_all"))
    assert found_of_shown > 0.9 and looked_up > 0.9
    # Better than anything that is drawn of a noisy response.
    below = found["brain_above"]["library_all"]["pixcorr"]
    assert below["ci95"][1] < 0
    assert "the generator adds nothing" in LIBRARY.notes(found)[0]
    assert "nothing shows that the generator adds" in LIBRARY.limit(found)


def test_a_decoder_of_noise_looks_pictures_up_at_random(workplace, tmp_path):
    """The null: responses of other stimuli find pictures that are no better than any."""
    write_small_table(tmp_path / "data", SUBJECTS, noise=1000.0)
    overrides = [f"data={tmp_path / 'data'}", f"out={tmp_path / 'model'}", "generator=pixels", "targets=[latents]"]
    train(load_recipe("linear", overrides))
    report = evaluate(
        tmp_path / "model", tmp_path / "data", tmp_path / "out", "small_pictures", rows=["floor"], audit=["library"]
    )
    found = report.audit["library"]
    for row in ("library_all", "library_random"):
        low, high = found["results"][row]["pairwise_pixcorr"]["ci95"]
        assert low < 0.5 < high
    # The best that could be looked up does not depend on the decoder.
    assert found["results"]["oracle_all"]["pairwise_pixcorr"]["ci95"][0] > 0.5


@pytest.mark.slow
def test_folds_have_libraries_of_their_own(workplace, tmp_path):
    write_kfold(workplace / "data", "kfold", 3)
    train(
        load_recipe(
            "linear",
            [
                f"data={workplace / 'data'}", f"out={workplace / 'folds'}", "generator=pixels", "targets=[latents]",
                "split=kfold", "folds=all",
            ],
        )
    )  # fmt: skip
    report, found = audited(workplace, tmp_path / "out", model="folds")
    assert len(found["subjects"]) == 6 and {each["fold"] for each in found["subjects"]} == {0, 1, 2}
    # Sizes may differ, and a row of all of them has all items.
    assert found["results"]["library_all"]["pixcorr"]["n"] == report.results["brain"]["pixcorr"]["n"]
    assert list(audit_tables(report.audit)) and audit_notes(report.audit)


def test_only_test_pictures_in_a_library_leave_the_training_ones(workplace, tmp_path, alone):
    _, found = audited(workplace, tmp_path / "out", workplace / "data")
    # The table itself: its training pictures are there already.
    assert [(each["pictures"], each["equal"], each["repeated"]) for each in found["subjects"]] == [(70, TEST, 70)] * 2
    assert found["results"] == alone[1]["results"]


@pytest.mark.slow
def test_several_pictures_of_a_response_and_single_trials(workplace, tmp_path):
    report, found = audited(workplace, tmp_path / "out", repetitions="single", samples=2)
    assert found["results"]["library_all"]["pixcorr"]["n"] == report.results["brain"]["pixcorr"]["n"]


# ---------------------------------------------------------------------------------------------------------- the search


def brute_force(queries, vectors, ranks, size, depth):
    inside = np.flatnonzero((ranks >= 0) & (ranks < size))
    similarity = unit_vectors(queries) @ unit_vectors(vectors[inside]).T
    order = np.argsort(-similarity.numpy(), axis=1, kind="stable")[:, :depth]
    return np.pad(inside[order], ((0, 0), (0, depth - order.shape[1])), constant_values=-1)


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_the_most_similar_of_nested_subsets(batch):
    rng = np.random.default_rng(0)
    vectors = torch.from_numpy(rng.normal(size=(60, 5)).astype(np.float32))
    queries = [torch.from_numpy(rng.normal(size=(4, 5)).astype(np.float32)) for _ in range(2)]
    ranks = rng.permutation(60) - 10
    ranks[ranks < 0] = -1
    sizes = [2, 10, 50]
    batches = (vectors[start : start + batch].numpy() for start in range(0, 60, batch))
    found = most_similar([unit_vectors(each) for each in queries], batches, ranks, sizes, 3)
    for each, positions in zip(queries, found, strict=True):
        for size, of_size in zip(sizes, positions, strict=True):
            assert (of_size == brute_force(each, vectors, ranks, size, 3)).all()


# --------------------------------------------------------------------------------------------------------- the library


@pytest.fixture(scope="module")
def table(workplace):
    return TrialTable.open(workplace / "data")


def test_pictures_are_cut_and_resized_to_those_of_the_table(table, tmp_path):
    wide = np.zeros((24, 48, 3), np.uint8)
    wide[:, 12:36] = 200
    found = further_pictures(save(tmp_path / "library", {"wide": wide, "grey": random_pictures(1)[0]}), table)
    images = found.images(["wide", "grey"])
    # Those of the table are grey.
    assert images.shape == (2, 12, 12, 1) and (images[0] == 200).all()
    assert (images[1, ..., 0] == random_pictures(1)[0]).all()
    assert found.content_hashes(["grey"]) != found.content_hashes(["wide"]) and len(found) == 2


def test_built_in_scenes_are_none_that_the_table_has(table):
    found = further_pictures("builtin:scenes:5", table)
    seeds = [399_999_999 - number for number in range(5)]
    assert found.ids == [stimulus_id(seed) for seed in seeds]
    assert found.images(found.ids).shape == (5, 12, 12, 1)
    own = type("Table", (), {"stimuli": _Stimuli(table.stimuli, found.ids[1])})()
    assert further_pictures("builtin:scenes:2", own).ids == [found.ids[0], found.ids[2]]
    assert scene(seeds[0]).image.shape == (64, 64, 3)


class _Stimuli:
    """Stimuli that have one more."""

    def __init__(self, stimuli, name):
        self._stimuli, self._name = stimuli, name

    def __contains__(self, name):
        return name == self._name

    def __getattr__(self, name):
        return getattr(self._stimuli, name)


def test_a_library_of_colour_photographs_in_a_zip(table, tmp_path):
    import zipfile

    colour = np.random.default_rng(0).integers(0, 256, size=(30, 20, 3), dtype=np.uint8)
    save(tmp_path / "files", {"a": colour, "b": colour[::-1]})
    with zipfile.ZipFile(tmp_path / "files.zip", "w") as archive:
        for path in sorted((tmp_path / "files").iterdir()):
            archive.write(path, path.name)
    found = further_pictures(tmp_path / "files.zip", table)
    assert found.ids == ["a", "b"] and found.images(["b", "a"]).shape == (2, 12, 12, 1)


@pytest.mark.parametrize(
    ("library", "reason"),
    [
        ("builtin:scenes:0", "expected 1 to"),
        ("builtin:scenes:many", "expected builtin:scenes"),
        ("builtin:scenes9", "expected builtin:scenes"),
        ("builtin:scenes:99999999999999", "expected builtin:scenes"),
        ("nowhere", "do not exist"),
    ],
)
def test_libraries_that_there_are_not(table, library, reason):
    with pytest.raises(FmriModelsError, match=reason):
        further_pictures(library, table)


def test_a_broken_picture_is_met_before_anything_is_drawn(workplace, tmp_path, monkeypatch, capsys):
    folder = save(tmp_path / "library", {"good": random_pictures(1)[0]})
    (folder / "bad.png").write_bytes(b"no picture")
    monkeypatch.setattr("fmri_models.evaluation.evaluate.draw_rows", lambda *_: pytest.fail("pictures were drawn"))
    command = ["evaluate", "--model", workplace / "model", "--data", workplace / "data", "--out", tmp_path / "out"]
    command += ["--protocol", "small_pictures", "--library", folder]
    assert main([*map(str, command), "--audit", "library"]) == 1
    assert "bad.png" in capsys.readouterr().err
    assert main([*map(str, command), "--audit", "repetitions"]) == 1
    assert "was not asked for" in capsys.readouterr().err
    assert main([*map(str, command)]) == 1


def test_files_have_no_library(tmp_path, capsys):
    command = ["evaluate", "--images", tmp_path, "--truth", tmp_path, "--out", tmp_path / "out", "--library", "x"]
    assert main([*map(str, command)]) == 2
    assert "--library has no effect" in capsys.readouterr().err


@pytest.mark.slow
def test_damaged_files_are_refused_or_shown(alone):
    shown, refused = check_damaged("library", alone[1])
    assert shown > 5 and refused > 20


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda found: found.update(compared_by="two\nlines"), "compared_by"),
        (lambda found: found["sizes"].update({"1e3": [1, 1]}), "sizes"),
        (lambda found: found["sizes"].update({"100": [100, 100]}), "library_100 is missing"),
        (lambda found: found["results"].pop("library_random"), "library_random is missing"),
        (lambda found: found["brain_above"].update({"<b>": {}}), "brain_above"),
        (lambda found: found["subjects"][0].update(pictures=-1), "subjects"),
        (lambda found: found.update(subjects=[]), "subjects"),
    ],
)
def test_files_of_strangers_are_checked(alone, change, place):
    found = copy.deepcopy(alone[0].audit)
    change(found["library"])
    with pytest.raises(ValueError, match=place):
        checked_audit(found)
