"""Tables whose trials are windows of a recording around a clip, from the writer to a report."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fmri_models import FmriProcessor, FmriToImagePipeline
from fmri_models.cli.main import main
from fmri_models.data import TrialTable, TrialTableWriter
from fmri_models.data.published import (
    KnownVoxels,
    PublishedDataset,
    PublishedSubject,
    Recording,
    preparation,
    windowed,
)
from fmri_models.data.stimuli import read_stimuli
from fmri_models.data.table_processor import check_voxels, fit_processor
from fmri_models.data.validation import validate_table
from fmri_models.data.windows import OF_CHANNELS, OVER_TIME, Windows, over_window, place_numbers
from fmri_models.errors import FmriModelsError

TIMES, VOXELS, CLIPS, TESTED = 3, 8, 24, 6
REGIONS = ["V1"] * 5 + ["MT"] * 3
ABOUT = Windows(seconds_per_sample=2, lag_seconds=4, picture="its middle frame (2 of 3)")
CAUTION = "The design is a caution."


def frames(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)


def window(number: int) -> np.ndarray:
    """(time, voxels) that follow the middle frame, so that something can be learned."""
    seen = frames(number)[1].reshape(-1)[: TIMES * VOXELS].reshape(TIMES, VOXELS)
    return (seen / 50 + np.random.default_rng(1000 + number).normal(0, 0.1, (TIMES, VOXELS))).astype(np.float32)


def stimuli(with_frames: bool = True):
    for number in range(CLIPS):
        clip = {"file": "seg1.mp4", "start": 2.0 * number, "seconds": 2.0}
        if with_frames:
            clip["frames"] = frames(number)
        yield {"stimulus_id": f"clip{number:02d}", "image": frames(number)[1], "clip": clip}


def write(path, about=ABOUT, **changes) -> TrialTable:
    with TrialTableWriter(path, "films", cautions=[CAUTION], **changes) as writer:
        writer.add_stimuli(stimuli())
        writer.add_windows("subj01", (TIMES, VOXELS), about)
        writer.add_voxels("subj01", VOXELS, roi=REGIONS, coordinates=np.arange(VOXELS * 3.0).reshape(-1, 3))
        for part, numbers in (("train", range(TESTED, CLIPS)), ("test", range(TESTED))):
            writer.add_trials(
                "subj01",
                part,
                [f"clip{number:02d}" for number in numbers],
                np.stack([window(number) for number in numbers]),
            )
    return TrialTable.open(path)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return write(tmp_path_factory.mktemp("windows") / "table")


def test_windows_come_back_in_their_shape(table):
    trials = table.trials("subj01", "test")
    assert trials.window_shape == (TIMES, VOXELS) == table.window_shape("subj01")
    assert np.array_equal(trials.windows(), np.stack([window(number) for number in range(TESTED)]))
    assert np.array_equal(trials.windows([2])[0].reshape(-1), trials.fmri(2)[0])
    assert table.num_voxels("subj01") == TIMES * VOXELS
    assert table.windows == Windows(OVER_TIME, 2, 4, ABOUT.picture, {"subj01": (TIMES, VOXELS)})
    voxels = table.voxels("subj01")
    assert voxels.roi == REGIONS * TIMES and voxels.window == (TIMES, VOXELS)
    assert np.array_equal(voxels.coordinates, np.tile(np.arange(VOXELS * 3.0).reshape(-1, 3), (TIMES, 1)))


def test_clips_have_frames_and_say_where_they_are(table):
    assert table.stimuli.has_clips
    known = table.stimuli.clips(["clip05", "clip00"])
    assert [(clip.file, clip.start, clip.seconds, clip.frames) for clip in known] == [
        ("seg1.mp4", 10.0, 2.0, ()),
        ("seg1.mp4", 0.0, 2.0, ()),
    ]
    assert np.array_equal(table.stimuli.clips(["clip05"], frames=True)[0].pixels(), frames(5))
    assert np.array_equal(table.stimuli.images(["clip05"])[0], frames(5)[1])
    with pytest.raises(FmriModelsError, match="no frames of the clip clip00, a part of seg1.mp4"):
        known[1].pixels()


def test_a_table_says_what_its_windows_are(table, capsys):
    assert validate_table(table.path) == []
    assert main(["data", "info", str(table.path)]) == 0
    said = "Each trial is a window of 3 x 8 (time x voxels), a sample each 2 s; a window begins 4 s after the beginning"
    printed = capsys.readouterr().out
    assert said in printed and CAUTION in printed
    card = (table.path / "README.md").read_text().replace("\\", "")
    assert said in card and f"**Caution:** {CAUTION}" in card


def test_other_packages_read_windows_and_frames(table, tmp_path):
    datasets = pytest.importorskip("datasets")
    cache = str(tmp_path / "cache")
    trials = datasets.load_dataset(str(table.path), split="test", cache_dir=cache)
    assert np.allclose(np.array(trials[0]["fmri"]).reshape(TIMES, VOXELS), window(0))
    shown = datasets.load_dataset(str(table.path), "stimuli", split="train", streaming=True, cache_dir=cache)
    first = next(iter(shown))
    assert first["clip"]["start"] == 0.0
    assert np.array_equal(np.asarray(first["clip"]["frames"][2]), frames(0)[2])


def test_a_processor_flattens_windows_and_keeps_their_shape(table, tmp_path):
    processor = fit_processor(table, ["subj01"])
    processor.save_pretrained(tmp_path / "processor")
    found = FmriProcessor.from_pretrained(tmp_path / "processor")
    assert found.window_shapes == {"subj01": [TIMES, VOXELS]}
    assert json.loads((tmp_path / "processor" / "preprocessor_config.json").read_text())["window_shapes"]
    trials = table.trials("subj01", "test")
    flat, shaped = found(trials.fmri())["fmri"], found(trials.windows())["fmri"]
    assert flat.shape == (TESTED, TIMES * VOXELS) and (flat == shaped).all()
    assert (found(trials.windows(0)[0])["fmri"] == flat[:1]).all()
    assert found.subset(["subj01"]).window_shapes == found.window_shapes
    check_voxels(table, "subj01", found)
    with pytest.raises(FmriModelsError, match="has 7 voxels"):
        found(trials.windows()[..., :7])
    config = tmp_path / "processor" / "preprocessor_config.json"
    values = json.loads(config.read_text())
    config.write_text(json.dumps({**values, "window_shapes": {"subj01": [5, VOXELS]}}))
    with pytest.raises(FmriModelsError, match="windows of 5 x 8 of subj01, whose patterns have 24 values"):
        FmriProcessor.from_pretrained(tmp_path / "processor")


def test_a_model_of_windows_refuses_others_of_as_many_values(table, tmp_path):
    with TrialTableWriter(tmp_path / "other", "other") as writer:
        writer.add_stimuli([{"stimulus_id": f"clip{n}", "image": frames(n)[1]} for n in range(4)])
        writer.add_windows("subj01", (VOXELS, TIMES), ABOUT)
        writer.add_trials("subj01", "train", [f"clip{n}" for n in range(4)], np.ones((4, VOXELS, TIMES)))
    with pytest.raises(FmriModelsError, match="windows of 8 x 3, and the model was made for windows of 3 x 8"):
        check_voxels(TrialTable.open(tmp_path / "other"), "subj01", fit_processor(table, ["subj01"]))


def test_what_is_wrong_with_windows_is_a_sentence(tmp_path):
    for shape, trials, said in (
        (None, np.ones((1, TIMES, VOXELS)), "first described with add_windows"),
        ((TIMES, VOXELS), np.ones((1, VOXELS, TIMES)), r"expected \(trials, 3, 8\)"),
        ((0, VOXELS), np.ones((1, VOXELS, TIMES)), "expected two lengths"),
    ):
        with pytest.raises(FmriModelsError, match=said), TrialTableWriter(tmp_path / "t", "t") as writer:
            if shape:
                writer.add_windows("subj01", shape)
            writer.add_trials("subj01", "train", ["a"], trials)
    with pytest.raises(FmriModelsError, match="one kind of windows"), TrialTableWriter(tmp_path / "t", "t") as writer:
        writer.add_windows("subj01", (1, 2), ABOUT)
        writer.add_windows("subj02", (1, 2), Windows(lag_seconds=6))
    with pytest.raises(FmriModelsError, match="axes time x time"), TrialTableWriter(tmp_path / "t", "t") as writer:
        writer.add_windows("subj01", (1, 2), Windows(axes=("time", "time")))
    with pytest.raises(FmriModelsError, match="modality is 'meg'"):
        TrialTableWriter(tmp_path / "t", "t", modality="meg")
    assert not (tmp_path / "t").exists()


def test_a_table_that_lies_about_its_windows_is_refused(tmp_path):
    found = write(tmp_path / "table").path / "table.json"
    for shape in ([TIMES, VOXELS + 1], [TIMES], [0, VOXELS]):
        metadata = json.loads(found.read_text())
        metadata["windows"]["shapes"]["subj01"] = shape
        found.write_text(json.dumps(metadata))
        with pytest.raises(FmriModelsError, match="windows"):
            TrialTable.open(found.parent)


def test_clips_that_are_none_are_refused(tmp_path):
    for first, record, said in (
        ({"clip": None}, {"clip": {"seconds": 2}}, "neither a file nor frames"),
        ({"clip": None}, {"clip": {"file": "a", "end": 2}}, "has the key 'end'"),
        ({"clip": None}, {"clip": {"file": "a", "start": -1}}, "expected 0 or more"),
        ({"clip": None}, {"clip": {"frames": [b"no picture"]}}, "frame 0 of stimulus b"),
        ({"clip": None}, {"clip": {"frames": [frames(0)[0]] * 1025}}, "expected 1024 at most"),
        ({}, {"clip": {"file": "a"}}, "said nothing of clips"),
    ):
        with pytest.raises(FmriModelsError, match=said), TrialTableWriter(tmp_path / "t", "t") as writer:
            writer.add_stimuli([{"stimulus_id": "a", **first}, {"stimulus_id": "b", **record}])


def test_a_file_that_claims_too_many_frames_is_refused(tmp_path):
    table = write(tmp_path / "table")
    file = next((table.path / "stimuli").glob("*.parquet"))
    rows = pq.read_table(file)
    assert table.stimuli.has_clips
    clips = rows["clip"].to_pylist()
    clips = [{**clip, "frames": [None] * 2000} for clip in clips]
    place = rows.schema.get_field_index("clip")
    pq.write_table(rows.set_column(place, "clip", pa.array(clips, rows.schema.field("clip").type)), file)
    with pytest.raises(FmriModelsError, match="48000 frames of clips in a row group"):
        table.stimuli.clips(["clip00"], frames=True)
    clips = [{**clip, "frames": [None]} for clip in clips]
    pq.write_table(rows.set_column(place, "clip", pa.array(clips, rows.schema.field("clip").type)), file)
    with pytest.raises(FmriModelsError, match="has 1 frames, or one that is missing"):
        table.stimuli.clips(["clip00"], frames=True)
    pq.write_table(rows.set_column(place, "clip", pa.array(["a"] * CLIPS)), file)
    with pytest.raises(FmriModelsError, match="column clip has the type string"):
        table.stimuli.clips(["clip00"])


def test_a_table_of_windows_is_copied_with_its_clips(table, tmp_path):
    """What reads pictures from a table for another one takes the clips, too."""
    with TrialTableWriter(tmp_path / "copy", "copy") as writer:
        writer.add_stimuli(read_stimuli(table.path))
        writer.add_windows("subj01", (1, 2))
        writer.add_trials("subj01", "train", ["clip01"], np.ones((1, 1, 2)))
    clip = TrialTable.open(tmp_path / "copy").stimuli.clips(["clip01"], frames=True)[0]
    assert clip.start == 2 and np.array_equal(clip.pixels(), frames(1))


def test_over_window():
    assert over_window(["a", "b"], (3, 2), OVER_TIME) == ["a", "b"] * 3
    assert over_window(["a", "b"], (2, 3), OF_CHANNELS) == ["a"] * 3 + ["b"] * 3
    assert over_window(None, (2, 3), OF_CHANNELS) is None
    assert place_numbers((2, 3), OF_CHANNELS).tolist() == [0, 0, 0, 1, 1, 1]


def test_the_shared_step_keeps_windows_whole(tmp_path):
    """A voxel that is bad at one time is left out at all, and regions choose voxels of all times."""
    values = np.stack([window(number) for number in range(CLIPS)])
    values[:, 1, 2] = 7
    voxels = windowed(KnownVoxels(VOXELS, roi=REGIONS, ncsnr=np.arange(VOXELS) + 1.0), TIMES)
    recording = Recording(
        "all", lambda: iter([values.reshape(CLIPS, -1)]), [f"clip{number:02d}" for number in range(CLIPS)]
    )
    found = PublishedDataset(
        "films", "For tests.", "CC0", "Nobody.", "dataset_scripts/films.py", 1,
        [PublishedSubject("subj01", voxels, [recording])], lambda ids: (each for each in stimuli(False)),
        windows=ABOUT, cautions=[CAUTION], test_sets={"all": ["clip00"]},
    )  # fmt: skip
    (tmp_path / "source").mkdir()
    preparation(lambda source: found)(tmp_path / "source", tmp_path / "t", rois=["V1"], drop_bad_voxels=True)
    table = TrialTable.open(tmp_path / "t")
    assert table.window_shape("subj01") == (TIMES, 4) and table.cautions == [CAUTION]
    order = np.argsort(table.all_trials("subj01").trials)
    assert np.array_equal(table.all_trials("subj01").windows()[order], values[:, :, [0, 1, 3, 4]])
    assert table.voxels("subj01").ncsnr.reshape(TIMES, 4)[1].tolist() == [1, 2, 4, 5]


FEW_STEPS = ["stages.0.training.steps=2", "stages.1.training.steps=2", "model.prior_num_inference_steps=2"]


@pytest.mark.parametrize(("recipe", "few"), [("linear", []), ("digits69_mindeye", FEW_STEPS)])
def test_from_windows_to_a_report(table, tmp_path, recipe, few):
    data, model = str(table.path), str(tmp_path / "model")
    assert main(["train", recipe, f"data={data}", f"out={model}", "generator=pixels", *few]) == 0
    trials = table.trials("subj01", "test")
    pipeline = FmriToImagePipeline.from_pretrained(model)
    drawn = [pipeline(values, subject="subj01", session=1).images[0] for values in (trials.windows(), trials.fmri())]
    assert recipe != "linear" or np.array_equal(*map(np.asarray, drawn))
    command = ["evaluate", "--model", model, "--data", data, "--out", str(tmp_path / "report")]
    assert main([*command, "--protocol", "small_pictures", "--rows", "shuffled_brain"]) == 0
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["data"]["cautions"] == [CAUTION] and CAUTION in report["warnings"]
    assert "a window begins 4 s after" in report["data"]["windows"]
    assert any("a window begins 4 s after" in note for note in report["notes"])
    assert CAUTION in (tmp_path / "report" / "report.md").read_text()
