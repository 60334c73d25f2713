"""`evaluate --audit repetitions`: agreement above what generators agree on anyway, and where curves end."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from fmri_models.evaluation import Report
from fmri_models.evaluation.audit import audit_content, audit_notes, audit_parts, audit_tables, checked_audit
from fmri_models.evaluation.audit.part import AuditedItems
from fmri_models.evaluation.audit.repetitions import REPETITIONS, SubjectRepetitions
from fmri_models.evaluation.controls import exchange_stimuli
from fmri_models.evaluation.drawn_items import DrawnItems
from fmri_models.evaluation.evaluate import evaluate
from fmri_models.evaluation.protocols import get_protocol
from fmri_models.evaluation.repetition_curve import SubjectCurve, curve_numbers
from fmri_models.evaluation.row_data import RowData
from fmri_models.training.recipe import load_recipe
from fmri_models.training.trainer import train
from tests.evaluation.damaged_audit import check_damaged
from tests.evaluation.toy_report import smooth_pictures
from tests.small_table import write_small_table

PIXELS = get_protocol("small_pictures")
COUNT = 20


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("repetitions")
    data = write_small_table(folder / "data", noise=2.0)
    train(load_recipe("linear", [f"data={data}", f"out={folder / 'model'}", "generator=pixels", "targets=[latents]"]))
    return folder


@pytest.fixture(scope="module")
def report(workplace):
    return evaluate(
        workplace / "model", workplace / "data", workplace / "report", "small_pictures", "curve",
        rows=["noise_free"], audit=["repetitions"],
    )  # fmt: skip


def test_numbers_of_a_curve():
    assert curve_numbers(1) == [1]
    assert curve_numbers(3) == [1, 2, 3]
    assert curve_numbers(4) == [1, 2, 3, 4]
    assert curve_numbers(10) == [1, 2, 3, 4, 8, 10]
    assert curve_numbers(32) == [1, 2, 3, 4, 8, 16, 32]


def test_a_report_has_it(report, workplace):
    found = report.audit["repetitions"]
    assert (found["items"], found["left_out"], found["repetitions"], found["drawn_alone"]) == (24, 0, [3, 3], 3)
    assert found["random"] is False and set(found["agreement"]) == {"same_noise", "same_noise_other_stimuli"}
    # The same trials were drawn and scored the same way.
    assert found["curve"] == report.repetition_curve["results"]
    assert found["curve"]["3"] == report.results["brain"]
    above = found["above_floor"]["same_noise"]["pixcorr"]
    assert above["ci95"][0] > 0 and above["n"] == 24
    assert Report.load(workplace / "report").audit == report.audit
    page = (workplace / "report" / "report.md").read_text()
    assert "## Repetitions: do their reconstructions agree?" in page and "Repetitions: reconstructions of two" in page
    assert "<svg" in (workplace / "report" / "report.html").read_text()


def test_the_limit_holds_the_score_without_noise(report):
    found = report.audit["repetitions"]
    assert found["noise_free"] == report.results["noise_free"]
    for metric in ("pixcorr", "mse"):
        low, high = found["limits"][metric]["ci95"]
        assert low <= found["noise_free"][metric]["value"] <= high
    # What was not measured is marked so.
    table = next(iter(REPETITIONS.tables(found)))
    cells = {line[0]: dict(zip(table.header, line, strict=True)) for line in table.lines}
    assert cells["PixCorr ↑"]["infinitely many (fitted)"].startswith("≈ ")
    assert "not measured" in table.caption


def test_single_trials_are_audited_by_stimuli(workplace, report):
    single = evaluate(
        workplace / "model", workplace / "data", workplace / "single", "small_pictures", "single",
        rows=["floor"], audit=["repetitions"],
    )  # fmt: skip
    found, expected = single.audit["repetitions"], report.audit["repetitions"]
    assert found["curve"] == expected["curve"] and found["agreement"] == expected["agreement"]
    # All three repetitions of each are all trials of the report.
    assert found["single"]["pixcorr"]["value"] == pytest.approx(single.results["brain"]["pixcorr"]["value"])


# ------------------------------------------------------------------------------------------------------------- planted


def planted(draw, random=True, repetitions=3, count=COUNT, seed=0):
    """An evaluation whose pictures `draw(stimulus, repetition, noise)` makes.

    Args:
        draw: From numbers to (C, H, W).
        random: Whether noise changes pictures.
    """
    truth = smooth_pictures(count, size=32)
    ids = [f"s{number:02d}" for number in range(count)]
    partners = np.stack([exchange_stimuli(ids, seed) for seed in range(4)])

    def pictures(repetition, noise=0, order=None):
        order = range(count) if order is None else order
        drawn = [draw(stimulus, repetition, 1000 * noise + place) for place, stimulus in enumerate(order)]
        return (torch.stack(drawn).clamp(0, 1) * 255).round().to(torch.uint8)

    alone = [pictures(repetition) for repetition in range(repetitions)]
    rows = {number: RowData(torch.stack([each.float() / 255 for each in alone[:number]]).mean(0))
            for number in range(1, repetitions + 1)}  # fmt: skip
    measured = SubjectRepetitions(
        "subj01", 0, ids, truth, None, SubjectCurve(np.full(count, repetitions), rows), alone,
        pictures(1, order=partners[0].tolist()) if random else None,
        partners,
        pictures(1, noise=1) if random else None,
        None,
    )  # fmt: skip
    items = DrawnItems(
        {"brain": rows[repetitions]}, truth, ids, ["subj01"] * count, [0] * count, None, None, None, None,
        [0] * count, ids,
    )  # fmt: skip
    scores = items.scores(PIXELS, seed, permutations=0)
    return AuditedItems([measured], items, scores, PIXELS, seed)


def noise_of(number, size=32):
    return torch.rand(3, size, size, generator=torch.Generator().manual_seed(number))


def test_pictures_that_follow_the_noise_agree_on_nothing():
    """The null: a generator that ignores the brain draws the same picture of the same noise whatever was shown."""
    found = REPETITIONS.content(planted(lambda stimulus, repetition, noise: noise_of(noise)))
    agreement = found["agreement"]
    assert agreement["same_noise"]["pixcorr"]["value"] == pytest.approx(1)
    assert agreement["same_noise"]["pairwise_pixcorr"]["value"] == 1
    for metric in ("pixcorr", "pairwise_pixcorr", "mse", "ssim"):
        assert found["above_floor"]["same_noise"][metric]["difference"] == pytest.approx(0, abs=1e-9)
        assert abs(found["above_floor"]["other_noise"][metric]["difference"]) < 0.15
    assert agreement["one_repetition_again"]["pixcorr"]["value"] < 0.1
    assert "In none of" in REPETITIONS.notes(found)[0]


def test_pictures_of_the_stimulus_agree_whatever_the_noise():
    def draw(stimulus, repetition, noise):
        of_response = noise_of(9000 + 50 * stimulus + repetition)
        return 0.5 * noise_of(5000 + stimulus) + 0.3 * noise_of(noise) + 0.2 * of_response

    found = REPETITIONS.content(planted(draw))
    for kind in ("same_noise", "other_noise"):
        assert found["above_floor"][kind]["pixcorr"]["ci95"][0] > 0
        assert found["above_floor"][kind]["pairwise_pixcorr"]["difference"] > 0
        assert found["above_floor"][kind]["mse"]["difference"] > 0
    # Shared noise is enough to be identified by, so that there is little above the floor.
    assert found["agreement"]["same_noise_other_stimuli"]["pairwise_pixcorr"]["value"] > 0.9
    assert found["above_floor"]["other_noise"]["pairwise_pixcorr"]["difference"] > 0.4
    values = {name: each["pixcorr"]["value"] for name, each in found["agreement"].items()}
    # Each source of scatter takes its share: noise 9, response 4, stimulus 25.
    assert values["same_noise"] == pytest.approx(34 / 38, abs=0.02)
    assert values["same_noise_other_stimuli"] == pytest.approx(9 / 38, abs=0.03)
    assert values["other_noise"] == pytest.approx(25 / 38, abs=0.02)
    assert values["other_noise_other_stimuli"] == pytest.approx(0, abs=0.03)
    assert values["one_repetition_again"] == pytest.approx(29 / 38, abs=0.02)
    assert "beyond doubt more than different stimuli" in REPETITIONS.notes(found)[0]
    checked_audit({"repetitions": found})


def test_a_picture_that_is_always_the_same_says_nothing():
    flat = smooth_pictures(1, size=32)[0]
    found = REPETITIONS.content(planted(lambda stimulus, repetition, noise: flat, random=False))
    assert found["agreement"]["same_noise"]["pixcorr"] == {
        "value": pytest.approx(1), "ci95": None, "n": COUNT, "stimuli": COUNT,
    }  # fmt: skip
    assert found["above_floor"]["same_noise"]["pixcorr"]["difference"] == pytest.approx(0, abs=1e-9)
    assert "In none of" in REPETITIONS.notes(found)[0]
    checked_audit({"repetitions": found})
    assert list(audit_tables({"repetitions": found})) and audit_notes({"repetitions": found})


def test_two_repetitions_have_no_limit():
    found = REPETITIONS.content(planted(lambda stimulus, repetition, noise: noise_of(stimulus), False, 2))
    assert all("2 points" in each["refused"] for each in found["limits"].values())
    assert "no limit is stated" in REPETITIONS.notes(found)[-1]
    table = REPETITIONS.tables(found)[0]
    assert table.lines[0][list(table.header).index("infinitely many (fitted)")] == "–"


def test_stimuli_that_were_shown_once_have_none():
    audited = planted(lambda stimulus, repetition, noise: noise_of(stimulus), False, 2)
    once = replace(audited, measured=[None])
    found = audit_content(
        audit_parts(["repetitions"]), {"repetitions": once.measured}, items=once.items, scores=once.scores,
        protocol=PIXELS, seed=0,
    )  # fmt: skip
    assert "shown once" in found["repetitions"]["not_defined"]
    assert audit_notes(found) == [f"repetitions: {found['repetitions']['not_defined']}"]
    # Most of them.
    audited.measured[0].curve.repetitions[: COUNT // 2 + 1] = 1
    assert "not_defined" in REPETITIONS.content(audited)


def test_one_test_picture_tells_no_agreement():
    found = REPETITIONS.content(planted(lambda stimulus, repetition, noise: noise_of(stimulus), False, 3, count=2))
    assert found["above_floor"]["same_noise"]["pixcorr"]["ci95"] is None
    audited = planted(lambda stimulus, repetition, noise: noise_of(stimulus), False, 3, count=2)
    audited.measured[0].partners = np.zeros((0, 2), dtype=np.int64)
    found = REPETITIONS.content(audited)
    assert found["above_floor"] == {} and "one test picture alone" in REPETITIONS.notes(found)[0]
    REPETITIONS.tables(found)


def test_damaged_files_are_refused_or_shown():
    def draw(stimulus, repetition, noise):
        return (noise_of(stimulus) + noise_of(repetition) + noise_of(noise)) / 3

    shown, refused = check_damaged("repetitions", REPETITIONS.content(planted(draw)))
    assert shown > 5 and refused > 20


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda found: found.update(items="many"), "items"),
        (lambda found: found["agreement"].pop("same_noise"), "same_noise"),
        (lambda found: found["limits"].update(pixcorr={}), "limits"),
        (lambda found: found["limits"].update(pixcorr={"value": float("nan")}), "limits"),
        (lambda found: found["curve"].update(x={}), "curve"),
        (lambda found: found["single"].update(unheard_of=None), "single"),
    ],
)
def test_files_of_strangers_are_checked(report, change, place):
    found = copy.deepcopy(report.audit)
    change(found["repetitions"])
    with pytest.raises(ValueError, match=place):
        checked_audit(found)
