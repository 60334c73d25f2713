import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from fmri_models.evaluation import Report, RowData, get_protocol, score_rows, write_report
from fmri_models.evaluation.picture_grid import grid_items
from fmri_models.evaluation.picture_groups import picture_groups, ranked_items
from tests.evaluation.toy_report import smooth_pictures


def drawn(count, size=16, seed=0, **options):
    truth = smooth_pictures(count, seed, size)
    noise = torch.rand(truth.shape, generator=torch.Generator().manual_seed(seed + 1))
    rows = {
        "brain": RowData(0.06 * truth + 0.94 * noise),
        "mean_image": RowData(truth.mean(0, keepdim=True).expand_as(truth)),
        "shuffled_brain": RowData((0.06 * truth + 0.94 * noise).roll(1, 0)),
        "ceiling": RowData(truth),
        "background": RowData(noise),
    }
    names = [f"s{number:03d}" for number in range(count)]
    scores = score_rows(rows, truth, names, get_protocol("small_pictures"), permutations=0)
    report = Report.from_scores(scores, get_protocol("small_pictures"), draws=50, seed=7)
    images = {name: row.images for name, row in rows.items()}
    return report, scores, truth, images, rows


@pytest.fixture(scope="module")
def material():
    return drawn(30)


@pytest.fixture(scope="module")
def groups(material):
    report, scores, truth, images, _ = material
    return {group.title: group for group in picture_groups(report, scores, truth, images)}


def names_of(group):
    return [stimulus.name for stimulus in group.stimuli]


def test_those_at_random_are_the_first_of_the_grid_and_heed_no_score(material, groups):
    report, scores, truth, images, _ = material
    at_random = names_of(groups["At random"])
    assert at_random == scores.stimulus_ids[grid_items(scores, 4, 7)].tolist()
    other = {row: {metric: None if v is None else -v for metric, v in of.items()} for row, of in scores.values.items()}
    turned = type(scores)(**{**scores.__dict__, "values": other})
    again = picture_groups(report, turned, truth, images)
    assert names_of(again[0]) == at_random and names_of(again[1]) != names_of(groups["Best"])


def test_chosen_ones_are_where_they_say_and_name_their_metric(material, groups):
    _, scores, _, _, _ = material
    values = dict(zip(scores.stimulus_ids.tolist(), scores.values["brain"]["pairwise_pixcorr"].tolist(), strict=True))
    best, median, worst = ([values[name] for name in names_of(groups[title])] for title in ("Best", "Median", "Worst"))
    chosen = [name for title in ("Best", "Median", "Worst") for name in names_of(groups[title])]
    assert len(set(chosen)) == 12
    ordered = sorted(values.values())
    assert sorted(best) == ordered[-4:] and sorted(worst) == ordered[:4]
    assert min(best) >= max(median) >= min(median) >= max(worst)
    assert abs(np.mean(median) - np.median(ordered)) < 0.1
    for title in ("Best", "Median", "Worst"):
        assert groups[title].about.startswith("Chosen") and "two-way pixels" in groups[title].about
    assert "whatever their scores" in groups["At random"].about and "Chosen" not in groups["At random"].about


def test_tiles_are_the_pictures_of_the_rows_that_matter(material, groups):
    report, scores, truth, images, _ = material
    # Of two controls the better one; references other than the ceiling are in grid.png.
    best = max(("mean_image", "shuffled_brain"), key=lambda row: report.results[row]["pairwise_pixcorr"]["value"])
    for group in groups.values():
        assert group.rows == ["shown", "from brain", report.row(best)["label"], "ceiling"]
        for stimulus in group.stimuli:
            item = scores.stimulus_ids.tolist().index(stimulus.name)
            assert [tile.alt for tile in stimulus.tiles] == [f"{label}: {stimulus.name}" for label in group.rows]
            for tile, pictures in zip(stimulus.tiles, (truth, images["brain"], images[best]), strict=False):
                kind, _, data = tile.address.partition(",")
                assert kind == "data:image/png;base64" and tile.is_coarse
                shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
                expected = (pictures[item].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
                assert np.array_equal(shown, expected)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 13])
def test_few_stimuli_are_in_one_group_alone(count):
    report, scores, truth, images, _ = drawn(count)
    groups = picture_groups(report, scores, truth, images)
    assert len(groups[0].stimuli) == min(4, count)
    assert len(groups) == (1 if count < 3 else 4)
    chosen = [name for group in groups[1:] for name in names_of(group)]
    assert len(chosen) == len(set(chosen)) == 3 * min(4, count // 3)


def test_equal_scores_are_in_an_order_of_the_seed_and_said_to_be():
    values = np.array([1.0] * 20 + [0.5] * 5)
    names = [str(number) for number in range(25)]
    first, second = (ranked_items(values, names, True, seed) for seed in (0, 1))
    assert first != second and set(first[:20]) == set(second[:20]) == set(range(20))
    assert set(ranked_items(values, names, False, 0)[:5]) == set(range(20, 25))
    report, scores, truth, images, _ = drawn(30)
    scores.values["brain"]["pairwise_pixcorr"][:] = 1.0
    about = picture_groups(report, scores, truth, images)[1].about
    assert "30 have such a score" in about and "by lot" in about


def test_items_without_a_score_are_never_chosen_and_a_stimulus_is_once():
    values = np.array([np.nan, 0.1, 0.9, 0.5, 0.7, 0.3])
    assert ranked_items(values, ["a", "a", "b", "b", "b", "c"], True, 0) == [4, 5, 1]


@pytest.mark.slow
def test_a_page_of_many_photographs_stays_small(tmp_path):
    report, scores, truth, _, rows = drawn(100, size=256)
    write_report(tmp_path, report, scores, rows, truth)
    size = (tmp_path / "report.html").stat().st_size
    assert size < 5_000_000
    assert "data:image/jpeg;base64," in (tmp_path / "report.html").read_text()
