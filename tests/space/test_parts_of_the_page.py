"""What the page is made of: uploads, limits, regions, the grid, and errors that are sentences."""

import io
import pickle
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from fmri_models import DrawingSettings, FmriModelsError
from fmri_models.evaluation.picture_grid import png_address
from fmri_models.evaluation.silenced_regions import scaled_region
from fmri_models.processing.subject_statistics import SubjectStatistics
from fmri_models.space import limits
from fmri_models.space.figures import figures_html
from fmri_models.space.limits import Watch, visitors_settings
from fmri_models.space.page import build
from fmri_models.space.picture_grid import grid_html
from fmri_models.space.pictures import enlarge, thumbnail
from fmri_models.space.sentences import in_sentences
from fmri_models.space.shelf import Shelf, choose_shelf
from fmri_models.space.tabs.about import about_text
from fmri_models.space.tabs.brain import contributions_html
from fmri_models.space.tabs.compare import report_texts
from fmri_models.space.uploads import read_upload
from fmri_models.space.voxel_map import voxel_map, voxel_values

EXAMPLES = "examples of the package"
PICTURE = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("nothing"))
        return choose_shelf()


# Uploads


def saved(folder: Path, values: np.ndarray) -> str:
    np.save(folder / "betas.npy", values)
    return str(folder / "betas.npy")


def test_reads_one_pattern_or_several(tmp_path: Path) -> None:
    assert read_upload(saved(tmp_path, np.arange(5.0))).shape == (1, 5)
    assert read_upload(saved(tmp_path, np.zeros((3, 5), np.float16))).shape == (3, 5)


def pickled(folder: Path) -> str:
    (folder / "betas.npy").write_bytes(pickle.dumps([1.0, 2.0]))
    return str(folder / "betas.npy")


def of_objects(folder: Path) -> str:
    np.save(folder / "betas.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return str(folder / "betas.npy")


def text(folder: Path) -> str:
    (folder / "betas.npy").write_text("1, 2, 3\n")
    return str(folder / "betas.npy")


def huge_claim(folder: Path) -> str:
    """A header of terabytes, and nothing behind it."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": (10**6, 10**6)})
    (folder / "betas.npy").write_bytes(buffer.getvalue())
    return str(folder / "betas.npy")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (pickled, "is no .npy file"),
        (of_objects, "holds object"),
        (text, "is no .npy file"),
        (huge_claim, "has 0 bytes of values"),
        (lambda folder: saved(folder, np.zeros((2, 3, 4))), r"has the shape \(2, 3, 4\)"),
        (lambda folder: saved(folder, np.zeros((0, 4))), r"has the shape \(0, 4\)"),
        (lambda folder: saved(folder, np.zeros((9, 4))), "has 9 trials; this page draws 8 at most"),
        (lambda folder: None, "No file was uploaded"),
        (lambda folder: str(folder / "gone.npy"), "is not here any more"),
    ],
)
def test_what_is_no_array_of_betas_is_a_sentence_without_its_place(make, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(FmriModelsError, match=sentence) as caught:
        read_upload(make(tmp_path))
    assert str(tmp_path) not in str(caught.value)


def test_an_upload_is_bounded_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fmri_models.space.uploads.MOST_UPLOAD_BYTES", 2**20)
    with pytest.raises(FmriModelsError, match="has 2 MiB; expected 1 at most"):
        read_upload(saved(tmp_path, np.zeros(2**19, np.float32)))


@pytest.mark.slow
def test_the_page_reconstructs_an_upload_with_or_without_a_mask(shelf: Shelf, tmp_path: Path) -> None:
    decoder = shelf.decoder(EXAMPLES, "linear-scenes")
    subject = decoder.subjects[0]
    page = build(shelf)
    (upload,) = [each for each in page.fns.values() if each.api_name == "reconstruct_upload"]
    width = decoder.pipeline.processor.subject(subject).num_voxels
    betas = saved(tmp_path, np.random.default_rng(0).normal(size=(1, width)))
    # Data, method, subject, file, session and seed; then the settings, and last the mask.
    settings = [None] * (len(upload.inputs) - 7)
    given = (EXAMPLES, "linear-scenes", subject)
    assert "trial 0, reconstructed" in upload.fn(*given, betas, 1, 0, *settings, None)
    (tmp_path / "x.nii.gz").write_bytes(b"")
    with pytest.raises(gr.Error, match="was not trained on images"):
        upload.fn(*given, str(tmp_path / "x.nii.gz"), 1, 0, *settings, betas)


def test_betas_that_do_not_fit_are_a_sentence(shelf: Shelf) -> None:
    decoder = shelf.decoder(EXAMPLES, "linear-scenes")
    subject = decoder.subjects[0]
    for betas, sentence in (
        (np.zeros((1, 7)), "7"),
        (np.full((1, 1000), np.nan), "NaN"),
    ):
        with pytest.raises(FmriModelsError, match=sentence):
            decoder.reconstruct_betas(betas, subject, session=1)
    with pytest.raises(FmriModelsError, match="session"):
        decoder.reconstruct_betas(np.random.default_rng(0).normal(size=(1, 1000)), subject)


def test_betas_of_a_test_trial_give_its_picture(shelf: Shelf) -> None:
    decoder = shelf.decoder(EXAMPLES, "linear-scenes")
    subject = decoder.subjects[0]
    trials = decoder.table.trials(subject, "test").subset([0])
    settings = decoder.pipeline.drawing_settings.changed({"num_inference_steps": 2, "num_candidates": 1})
    (picture,) = decoder.reconstruct_betas(trials.fmri(), subject, session=int(trials.sessions[0]), settings=settings)
    # The first stimulus of the table's test trials has the first item's noise.
    expected = decoder.reconstruct(subject, str(trials.stimulus_ids[0]), settings=settings).reconstructed
    assert np.array_equal(np.asarray(picture), np.asarray(expected))


# Limits


def test_a_visitor_may_not_ask_for_more_than_the_page_draws() -> None:
    own = DrawingSettings()
    assert visitors_settings(own, {"num_inference_steps": 4.0, "guidance_scale": None}).num_inference_steps == 4
    with pytest.raises(FmriModelsError, match="num_inference_steps is 51; this page draws 50 at most"):
        visitors_settings(own, {"num_inference_steps": 51})
    with pytest.raises(FmriModelsError, match="num_candidates is 9"):
        visitors_settings(own, {"num_candidates": 9.0})
    with pytest.raises(FmriModelsError, match="strength"):
        visitors_settings(own, {"strength": 1.5})


def test_drawing_that_takes_too_long_is_ended(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[float] = []
    monkeypatch.setattr("fmri_models.space.decoder.Watch", lambda steps, tell: Watch(steps, tell, most_seconds=0))
    decoder = shelf.decoder(EXAMPLES, "linear-scenes")
    subject = decoder.subjects[0]
    with pytest.raises(FmriModelsError, match="was stopped; choose fewer steps"):
        decoder.reconstruct(subject, decoder.stimulus_ids(subject)[0], tell=told.append)
    # After the first of the eight steps.
    assert told == [0, 1 / 8]
    monkeypatch.undo()
    decoder.reconstruct(subject, decoder.stimulus_ids(subject)[0], tell=told.append)
    # With a strength of .8, six steps are left from the low-level picture on.
    assert told[2:] == [0, *(step / 8 for step in range(1, 7))]
    assert limits.MOST_SECONDS > 10


# Regions


def statistics() -> SubjectStatistics:
    return SubjectStatistics(
        num_voxels=4,
        selected=np.array([0, 1, 3]),
        mean=np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], np.float32),
        std=np.ones((2, 3), np.float32),
        sessions=[0, 7],
    )


def test_a_silenced_voxel_answers_as_on_average_in_its_session() -> None:
    betas = np.full((2, 4), 10, np.float32)
    voxels = np.array([True, False, True, True])
    silenced = scaled_region(statistics(), betas, [7, 0], voxels, 0.0)
    # Voxel 2 is none that the processor keeps.
    assert silenced.tolist() == [[4, 10, 10, 6], [1, 10, 10, 3]]
    assert betas.tolist() == [[10] * 4] * 2
    assert scaled_region(statistics(), betas, [7, 0], voxels, 1.0).tolist() == betas.tolist()
    assert scaled_region(statistics(), betas, [7, 0], voxels, 2.0).tolist() == [[16, 10, 10, 14], [19, 10, 10, 17]]


def test_an_unknown_session_has_the_mean_of_all() -> None:
    silenced = scaled_region(statistics(), np.zeros((1, 4), np.float32), [3], np.ones(4, bool), 0.0)
    assert silenced.tolist() == [[2.5, 3.5, 0, 4.5]]


@pytest.mark.slow
def test_silencing_changes_the_picture_and_a_gain_of_one_does_not(shelf: Shelf) -> None:
    decoder = shelf.decoder(EXAMPLES, "linear-scenes")
    subject = decoder.subjects[0]
    name = decoder.stimulus_ids(subject)[0]
    same = decoder.change_region(subject, name, "V1", 1.0)
    assert np.array_equal(np.asarray(same.unchanged), np.asarray(same.changed))
    silenced = decoder.change_region(subject, name, "lateral", 0.0)
    assert np.array_equal(np.asarray(silenced.unchanged), np.asarray(same.unchanged))
    assert not np.array_equal(np.asarray(silenced.unchanged), np.asarray(silenced.changed))
    assert silenced.summary.startswith("lateral (200 of 1000 voxels of subj01, a simulated brain): silenced")
    with pytest.raises(FmriModelsError, match="no region V9; its regions: V1, "):
        decoder.change_region(subject, name, "V9", 0.0)


def test_contributions_are_what_the_cosine_loses(shelf: Shelf) -> None:
    decoder = shelf.decoder(EXAMPLES, "linear-scenes")
    subject = decoder.subjects[0]
    found = decoder.contributions(subject, decoder.stimulus_ids(subject)[0]).by_region
    assert list(found) == decoder.regions(subject) == ["V1", "V2", "V3", "V4", "ventral", "lateral", "parietal"]
    assert max(map(abs, found.values())) > 0
    text = contributions_html(found, "a <b>")
    assert text.count("<tr>") == 7
    assert "a &lt;b&gt;" in text
    assert "no regions" in contributions_html({}, "")


def test_voxels_lie_on_a_glass_brain(shelf: Shelf) -> None:
    pytest.importorskip("nilearn")
    voxels = shelf.decoder(EXAMPLES, "linear-scenes").table.voxels("subj01")
    values, what = voxel_values(voxels, None)
    assert what == "noise ceiling (simulated truth)"
    few = np.where(np.arange(len(values)) < 20, values, np.nan)
    picture = voxel_map(voxels, few)
    assert picture is not None and picture.width > 2 * picture.height
    assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 50
    by_region, _ = voxel_values(voxels, {"V1": 0.5})
    assert set(by_region[np.array(voxels.roi) == "V1"]) == {0.5}
    assert np.isnan(by_region[np.array(voxels.roi) == "V2"]).all()


# What is shown


def test_the_grid_is_one_group_of_radio_buttons_with_texts() -> None:
    shown = grid_html(["a", 'b"<'], [PICTURE, PICTURE], ["one", 'two"<'], chosen='b"<')
    assert shown.count('type="radio" name="picture"') == 2
    assert shown.count("checked") == 1
    assert 'value="b&quot;&lt;" checked' in shown
    assert 'alt="two&quot;&lt;"' in shown
    assert 'b"<' not in shown


def test_figures_are_png_with_texts_beneath() -> None:
    shown = figures_html([(PICTURE, "first <one>")], "Title")
    assert png_address(PICTURE) in shown
    assert shown.count("first &lt;one&gt;") == 2
    assert figures_html([], "Title") == ""


def test_pictures_grow_and_shrink_to_what_can_be_looked_at() -> None:
    assert enlarge(PICTURE).size == (256, 256)
    large = Image.new("RGB", (1000, 500))
    assert enlarge(large) is large
    assert thumbnail(large).size == (96, 48)
    assert thumbnail(PICTURE) is PICTURE


def test_reports_are_compared_where_they_measured_the_same(shelf: Shelf) -> None:
    compared, whole = report_texts(shelf, EXAMPLES)
    assert "| metric | chance | mindeye-scenes | linear-scenes |" in compared
    assert "(simulated brain)" in compared
    assert "### linear-scenes (simulated brain)" in whole


def test_what_is_unknown_is_a_sentence(shelf: Shelf) -> None:
    with pytest.raises(FmriModelsError, match="no data set x; choose one"):
        shelf.methods("x")
    with pytest.raises(FmriModelsError, match="no method x for examples"):
        shelf.decoder(EXAMPLES, "x")


def test_every_method_of_the_registry_is_named() -> None:
    text = about_text()
    for name in ("linear", "mindeye", "mindvis", "mindbridge"):
        assert f"| {name} |" in text
    assert "not kept beyond twenty minutes" in text


def test_errors_are_sentences_without_what_the_server_knows() -> None:
    @in_sentences
    def fails(error: Exception) -> None:
        raise error

    with pytest.raises(gr.Error) as told:
        fails(FmriModelsError("A <b> is wrong."))
    assert told.value.message == "A &lt;b&gt; is wrong."
    with pytest.raises(gr.Error) as untold:
        fails(RuntimeError("/srv/secret"))
    assert "secret" not in untold.value.message
    assert "server's log" in untold.value.message


def test_the_page_has_its_tabs_and_takes_one_drawing_at_a_time(shelf: Shelf) -> None:
    page = build(shelf)
    tabs = [block.label for block in page.blocks.values() if isinstance(block, gr.Tab)]
    assert tabs == ["Reconstruct", "Retrieve", "Look into the brain", "Compare", "About"]
    drawing = {each.api_name: each for each in page.fns.values() if each.concurrency_id == "drawing"}
    assert {"reconstruct", "reconstruct_upload", "retrieve", "change_region", "contributions", "compare"} == set(
        drawing
    )
    assert {each.concurrency_limit for each in drawing.values()} == {1}
    pictures = [block for block in page.blocks.values() if isinstance(block, gr.Image)]
    assert pictures and all(block.format == "png" and block.alt_text for block in pictures)
    assert all("(simulated brain)" in block.label for block in pictures)


def test_what_was_made_of_another_choice_goes(shelf: Shelf) -> None:
    page = build(shelf)
    results = {
        "rank-summary", "ranked", "unchanged", "changed", "region-summary", "contributions", "voxel-map", "compared",
    }  # fmt: skip
    (emptied,) = (each for each in page.fns.values() if {block.elem_id for block in each.outputs} == results)
    assert len(emptied.targets) == 4  # data set, method, subject, picture
    assert emptied.fn is not None and all(update["value"] is None for update in emptied.fn())
