"""Reports on tables whose test pictures are nearly in the training: named, with the scores without them."""

import io

import numpy as np
import pytest
from PIL import Image

from fmri_models.data import TrialTableWriter
from fmri_models.evaluation.evaluate import evaluate
from fmri_models.evaluation.report import Report
from fmri_models.training.recipe import load_recipe
from fmri_models.training.trainer import train
from tests.small_table import write_small_table

SIZE, VOXELS = 12, 60
NUM = {"train": 40, "validation": 6, "test": 10}


def jpeg(picture):
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=90)
    return file.getvalue()


def write_leaky_table(path, copied):
    """Noise voxels for all pictures; some test pictures are in the training as JPEG with nearly the same betas."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (sum(NUM.values()), 4, 4), dtype=np.uint8)
    pictures = [np.asarray(Image.fromarray(each).resize((SIZE, SIZE))) for each in coarse]
    betas = rng.standard_normal((len(pictures), VOXELS)).astype(np.float32)
    ids = [f"p{number:02d}" for number in range(len(pictures))]
    first = len(ids) - NUM["test"]
    copies = list(range(first, first + copied))
    with TrialTableWriter(
        path, name="t", simulated=True, description="For tests.", license="CC0", source="d"
    ) as writer:
        images = dict(zip(ids, pictures, strict=True)) | {f"copy{row}": jpeg(pictures[row]) for row in copies}
        writer.add_stimuli(
            {"stimulus_id": name, "image": image, "captions": [], "category": None, "factors": None}
            for name, image in images.items()
        )
        writer.add_voxels("subj01", VOXELS)
        start, trial = 0, 0
        for part, count in NUM.items():
            names, rows = ids[start : start + count], list(range(start, start + count))
            if part == "train":
                names, rows = [*names, *(f"copy{row}" for row in copies)], [*rows, *copies]
            noise = 0.05 * rng.standard_normal((len(rows), VOXELS)).astype(np.float32)
            writer.add_trials(
                "subj01", part, stimulus_ids=names, sessions=[1] * len(rows), runs=[1] * len(rows),
                trials=list(range(trial, trial + len(rows))), repetitions=[0] * len(rows), fmri=betas[rows] + noise,
            )  # fmt: skip
            start, trial = start + count, trial + len(rows)
    return path


def evaluated(folder, data):
    overrides = [f"data={data}", f"out={folder / 'model'}", "generator=pixels", "targets=[latents]"]
    train(load_recipe("linear", [*overrides, "processor.statistics=pooled", "stages.0.objective.penalties=[0.01]"]))
    return evaluate(folder / "model", data, folder / "report", "small_pictures")


@pytest.fixture(scope="module")
def leaky(tmp_path_factory):
    folder = tmp_path_factory.mktemp("leaky")
    return evaluated(folder, write_leaky_table(folder / "data", copied=5)), folder / "report"


def test_pairs_are_named_and_the_scores_without_them_stand_beside(leaky):
    report, folder = leaky
    found = report.near_copies
    assert {(pair["stimulus"], pair["copy_of"]) for pair in found["pairs"]} == {
        (f"p{number}", f"copy{number}") for number in range(46, 51)
    }
    assert (found["threshold"], found["tested"], found["copied"]) == (0.99, 10, 5)
    without, all_items = found["results_without"], report.results["brain"]
    assert without["pixcorr"]["n"] == 5 and all_items["pixcorr"]["n"] == 10
    # What was learned by heart is gone: the rest is noise.
    assert without["pixcorr"]["value"] < all_items["pixcorr"]["value"] - 0.2
    (note,) = [note for note in report.notes if "nearly in the training" in note]
    assert "5 of 10 test pictures" in note and "p46 and copy46 (r = " in note
    assert f"{without['pairwise_pixcorr']['value']:.3f} without them" in note
    assert "The first are of 10 stimuli and the second of 5" in note
    for name in ("report.md", "report.html"):
        text = (folder / name).read_text()
        assert "Near copies" in text and "copy46" in text and "without near copies" in text
        # Said before any figure, and once.
        assert text.count("5 of 10 test pictures") == 1
        assert text.index("5 of 10 test pictures") < text.index("Mean over stimuli")
    assert report.warnings == [note] == Report.load(folder).warnings
    assert Report.load(folder).near_copies == report.to_dict()["near_copies"]


def test_a_table_without_copies_says_that_it_was_looked_at(tmp_path):
    report = evaluated(tmp_path, write_small_table(tmp_path / "data", ("subj02",)))
    assert report.near_copies == {
        "threshold": 0.99, "tested": 12, "copied": 0, "pairs": [], "results_without": None
    }  # fmt: skip
    assert not any("nearly" in note for note in report.notes) and report.warnings == []
    assert "Near copies" not in (tmp_path / "report" / "report.md").read_text()


def test_where_all_were_learned_from_there_are_no_scores_without(tmp_path):
    report = evaluated(tmp_path, write_leaky_table(tmp_path / "data", copied=NUM["test"]))
    assert report.near_copies["copied"] == NUM["test"] and report.near_copies["results_without"] is None
    assert any("no figure here is one of unseen pictures" in note for note in report.notes)
