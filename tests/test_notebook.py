"""`show`: the pictures in a notebook's cell, which are those of an evaluation, and the sentences for what can't be."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

import fmri_models
from fmri_models import FmriModelsError, show
from fmri_models.evaluation.patterns import load_patterns
from fmri_models.evaluation.reconstruct import reconstruct
from fmri_models.notebook import NOTICE, Reconstructions
from fmri_models.training.recipe import load_recipe
from fmri_models.training.trainer import train
from tests.small_demo import save_small_demo
from tests.small_table import write_kfold, write_small_table


@pytest.fixture(scope="module")
def example():
    return fmri_models.load_example("linear-scenes")


@pytest.fixture(scope="module")
def shown(example):
    return show(*example, num=3, num_inference_steps=2)


class Pictures(HTMLParser):
    """The pictures of a page, and whether each element is closed."""

    def __init__(self, text):
        super().__init__()
        self.pictures, self.open = [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.pictures.append(dict(attrs))
        elif tag not in ("br", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def pixels(attributes):
    kind, _, data = attributes["src"].partition(",")
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


@pytest.mark.slow
def test_the_pictures_are_those_of_an_evaluation(tmp_path, example):
    pipeline, trials = example
    table, settings = trials.table.path, {"num_inference_steps": 2}
    patterns = load_patterns(pipeline, table, trials.subject)
    reconstruct(pipeline, patterns, [5], tmp_path / "all", settings=settings)
    seen = show(pipeline, trials, num=2, seed=5, **settings)
    assert seen.names == patterns.stimuli[:2] and seen.of == len(patterns.stimuli)
    for name, picture in zip(seen.names, seen.images, strict=True):
        expected = np.asarray(Image.open(tmp_path / "all" / f"{name}.png"), dtype=int)
        # Sums of other batches differ in their last bits.
        assert np.abs(np.asarray(picture, dtype=int) - expected).max() <= 1
    assert "2 inference steps" in seen.title and seen.title.endswith("seed 5")


def test_the_cell_has_what_was_shown_and_what_was_read_with_a_description_of_each(example, shown):
    trials = example[1]
    found = Pictures(shown._repr_html_()).pictures
    assert len(found) == 6
    truth = trials.table.stimuli.images(shown.names)
    for item, name in enumerate(shown.names):
        assert np.array_equal(pixels(found[item]), truth[item])
        assert np.array_equal(pixels(found[3 + item]), np.asarray(shown.images[item]))
        assert found[item]["alt"] == f"Shown: {name}, subj01"
        assert found[3 + item]["alt"] == f"Reconstructed (simulated brain): {name}, subj01"
    assert NOTICE in shown._repr_html_() and "the first 3 of 24 items" in shown._repr_html_()
    assert repr(shown).startswith("Reconstructions('subj01 (simulated brain): the first 3 of 24") and len(shown) == 3
    assert not re.search(r"https?:|<script|<link", shown._repr_html_()), "nothing is asked of anybody"


def test_the_same_as_one_picture_and_as_files(shown, tmp_path):
    png = Image.open(io.BytesIO(shown._repr_png_()))
    assert png.format == "PNG" and png.size == shown.grid().size and png.width > 3 * 112
    assert shown.save(tmp_path / "shown.png").read_bytes() == shown._repr_png_()
    page = shown.save(str(tmp_path / "new" / "shown.HTML")).read_text(encoding="utf-8")
    assert len(Pictures(page.split("<body>")[1].split("</body>")[0]).pictures) == 6
    with pytest.raises(FmriModelsError, match=r"name it \.png or \.html"):
        shown.save(tmp_path / "shown.jpg")
    with pytest.raises(FmriModelsError, match="is a folder"):
        (tmp_path / "folder.png").mkdir()
        shown.save(tmp_path / "folder.png")


def test_low_level_and_candidates_by_option(example):
    pipeline, trials = example
    few = {"num": 2, "num_inference_steps": 2, "num_candidates": 3}
    plain, seen = show(pipeline, trials, **few), show(pipeline, trials, low_level=True, candidates=True, **few)
    assert plain.low_level == plain.candidates == [] and plain.scores is None
    assert (
        len(seen.low_level) == 2 and [len(each) for each in seen.candidates] == [3, 3] and seen.scores.shape == (2, 3)
    )
    for item, picture in enumerate(seen.images):
        assert np.array_equal(np.asarray(picture), np.asarray(seen.candidates[item][seen.scores[item].argmax()]))
        assert np.array_equal(np.asarray(picture), np.asarray(plain.images[item]))
    page = seen._repr_html_()
    assert len(Pictures(page).pictures) == 2 * (2 + 1 + 3)
    assert page.count("(chosen)") == 2 and f"{seen.scores[1, 2]:.2f}" in page
    assert seen.grid().height > plain.grid().height + 3 * 112
    first = show(pipeline, trials, candidates=True, selection="first", **few)
    assert first.scores is None and "(chosen)" not in first._repr_html_()


def test_betas_have_no_shown_pictures_and_nobody_knows_of_a_brain(example, shown):
    pipeline, trials = example
    betas, options = trials.fmri([0, 1, 2]), {"num_inference_steps": 2}
    seen = show(pipeline, betas, subject="subj01", session=trials.sessions[:3].tolist(), **options)
    assert seen.shown == [] and seen.names == ["pattern 0", "pattern 1", "pattern 2"] and seen.simulated is None
    assert "simulated brain)" not in seen._repr_html_() and len(Pictures(seen._repr_html_()).pictures) == 3
    assert seen.notes == ["The pipeline was trained on simulated brain activity."]
    for ours, theirs in zip(seen.images, shown.images, strict=True):
        assert np.abs(np.asarray(ours, dtype=int) - np.asarray(theirs, dtype=int)).max() <= 1
    assert len(show(pipeline, betas[0], session=1, **options)) == 1
    assert "1 item, drawn" in show(pipeline, list(betas[:1]), session=1, **options).title


def test_trials_that_were_learned_from_are_said(tmp_path):
    table = write_small_table(tmp_path / "table", subjects=("subj02",))
    (folder,) = train(load_recipe("linear", [f"data={table}", f"out={tmp_path / 'out'}", "generator=pixels"]))
    pipeline = fmri_models.FmriToImagePipeline.from_pretrained(folder)
    trials = {part: fmri_models.TrialTable.open(table).trials("subj02", part) for part in ("train", "test")}
    assert show(pipeline, trials["test"], num=2).notes == []
    (note,) = show(pipeline, trials["train"], num=2).notes
    assert note.startswith("6 of these 6 trials are none of the test trials")
    with pytest.warns(UserWarning, match="num_candidates has no effect"):
        seen = show(pipeline, trials["test"], num=1, candidates=True, num_candidates=2)
    assert seen.candidates == [] and "there are no candidates" in seen.notes[0]
    other = write_small_table(tmp_path / "other", subjects=("subj02",), name="other", noise=0.4)
    learned, doubt = show(pipeline, fmri_models.TrialTable.open(other).trials("subj02", "train"), num=2).notes
    assert "has learned from 2 of these 2 pictures (picture000, picture001)" in learned
    assert doubt.startswith("The pipeline was trained on another table ('small') than this one, and whether it has")


def test_trials_of_a_split_that_was_drawn_again_are_not_taken_for_unseen(tmp_path):
    table = write_small_table(tmp_path / "table", subjects=("subj02",))
    write_kfold(table, "k", 3)
    overrides = [f"data={table}", f"out={tmp_path / 'out'}", "generator=pixels", "split=k", "fold=0"]
    (folder,) = train(load_recipe("linear", overrides))
    pipeline = fmri_models.FmriToImagePipeline.from_pretrained(folder)
    trials = fmri_models.TrialTable.open(table).trials("subj02", "test", "k", 0)
    assert show(pipeline, trials, num=1).notes == []
    (table / "splits" / "k.parquet").unlink()
    write_kfold(table, "k", 4)
    (note,) = show(pipeline, fmri_models.TrialTable.open(table).trials("subj02", "test", "k", 0), num=1).notes
    assert "was drawn again after" in note


def test_where_nothing_is_recorded_that_is_said(tmp_path, monkeypatch):
    save_small_demo(tmp_path, monkeypatch)
    pipeline = fmri_models.FmriToImagePipeline.from_pretrained("outputs/demo/pipeline")
    table = fmri_models.TrialTable.open("outputs/demo/data")
    notes = show(pipeline, table.trials("subj01", "train"), num=2).notes
    assert pipeline.training_record is None and "nobody knows whether it has seen these pictures" in notes[0]


def test_names_are_no_markup_and_grey_and_missing_pictures_are_shown():
    seen = Reconstructions(
        images=[Image.new("L", (8, 16)), Image.new("RGB", (300, 200))],
        names=["<b>a", 'b"'],
        subject="<i>",
        of=2,
        drawn_with="seed 0",
        shown=[None, Image.new("RGB", (64, 64))],
        notes=["1 < 2"],
    )
    page = seen._repr_html_()
    found = Pictures(page).pictures
    assert len(found) == 3 and "<b>" not in page and "<i>" not in page and "1 &lt; 2" in page
    assert [each["alt"] for each in found[1:]] == ["Reconstructed: <b>a, <i>", 'Reconstructed: b", <i>']
    assert (found[1]["width"], found[1]["height"]) == ("56", "112") and "pixelated" in found[1]["style"]
    assert (found[2]["width"], found[2]["height"]) == ("112", "75") and "pixelated" not in found[2]["style"]
    assert seen.grid().height > 2 * 112


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num": 0}, "num is 0; expected how many"),
        ({"num": True}, "num is True"),
        ({"num": 2.5}, "num is 2.5"),
        ({"seed": -1}, "The seed is -1"),
        ({"steps": 3}, "no 'steps'"),
        ({"num_inference_steps": 0}, "num_inference_steps is 0"),
        ({"selection": "oracle"}, "selection is 'oracle'"),
        ({"candidates": True, "num_candidates": 1}, "candidates=True shows the pictures among which one is chosen"),
        ({"subject": "subj02"}, "The trials are of subj01"),
        ({"session": 1}, "leave session= out"),
    ],
)
def test_options_that_make_no_sense_are_sentences(example, options, message):
    with pytest.raises(FmriModelsError, match=re.escape(message)):
        show(*example, **options)


def test_what_is_no_pattern_is_a_sentence(example):
    pipeline, trials = example
    betas = trials.fmri([0])
    for fmri, options, message in [
        (trials.table, {}, "The patterns are a trial table; expected trials"),
        ("outputs/demo/data", {}, "The patterns are a path; expected trials"),
        (trials.subset([]), {}, "There are no trials of subj01"),
        (betas[:, :-1], {}, "voxels"),
        (betas * np.nan, {}, "NaN"),
        (betas, {"subject": "anna"}, "anna"),
        (betas, {"subject": ["subj01"]}, "expected one name"),
        (np.zeros((0, betas.shape[1]), np.float32), {}, "not empty"),
        (betas[None], {"session": 1}, "The patterns have the shape (1, 1, 1000)"),
    ]:
        with pytest.raises(FmriModelsError, match=re.escape(message)):
            show(pipeline, fmri, **options)
    with pytest.raises(FmriModelsError, match=r"show\(pipeline, trials\)"):
        show(trials, pipeline)
    alone = fmri_models.LinearPipeline(pipeline.brain_model, pipeline.processor)
    with pytest.raises(FmriModelsError, match="no image generator"):
        show(alone, trials)
