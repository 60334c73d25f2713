"""Films by settings of `nifti`: clips of a run, and a window of volumes each, from the folder to a report."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from fmri_models.cli.main import main
from fmri_models.cli.prepare import load_preparation
from fmri_models.data import TrialTable
from fmri_models.data.brain_images.events import cut_into_clips, read_events
from fmri_models.data.validation import validate_table
from fmri_models.errors import FmriModelsError
from tests.fabricated import nifti as made
from tests.fabricated import tgbh

pytest.importorskip("nilearn")


def prepared(source: Path, out: Path, name: str = "tgbh", **options) -> TrialTable:
    load_preparation(name)(source, out, **{"incomplete": True, "overwrite": True, **options})
    return TrialTable.open(out)


@pytest.fixture(scope="module")
def bids(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tgbh.write(tmp_path_factory.mktemp("tgbh") / "bids")


def test_each_clip_has_the_volumes_after_the_lag(bids: Path, tmp_path: Path) -> None:
    table = prepared(bids, tmp_path / "t", confounds=[], high_pass=0.0, percent=False)
    count = int(made.chosen().sum())
    assert table.window_shape(tgbh.SUBJECT) == (4, count) and validate_table(table.path) == []
    assert (table.windows.seconds_per_sample, table.windows.lag_seconds) == (1, 4)
    trials = table.all_trials(tgbh.SUBJECT)
    assert sorted(trials.stimulus_ids.tolist()) == sorted(
        f"movie_run-{run}-{clip:04d}" for run, (_, new) in enumerate(tgbh.RUNS, 1) for clip in range(new // 2)
    )
    for stimulus, window in zip(trials.stimulus_ids.tolist(), trials.windows(), strict=True):
        run, clip = int(stimulus.split("-")[1]), int(stimulus.split("-")[2])
        values = tgbh.series(run)[made.chosen()].astype(np.float32)
        first = int(tgbh.onset(run)) + 2 * clip + 4
        expected = (values - values.mean(axis=1, keepdims=True))[:, first : first + 4].T
        assert np.allclose(window, expected, atol=1e-3)
    # Whole runs are tested, as clips of a film follow each other.
    runs = {part: set(table.trials(tgbh.SUBJECT, part).runs.tolist()) for part in ("train", "validation", "test")}
    assert runs["test"] and not runs["test"] & (runs["train"] | runs["validation"])
    clip = table.stimuli.clips(["movie_run-2-0003"])[0]
    assert (clip.file, clip.start, clip.seconds) == ("movie_run-2", 6.0, 2.0)
    # A window is no volume, so that none is taken for one.
    assert table.voxels(tgbh.SUBJECT).grid is None


def test_counts_are_those_of_the_release(bids: Path, tmp_path: Path) -> None:
    with pytest.raises(FmriModelsError, match="sub-sid000005 has 39 trials, and not 1,447"):
        prepared(bids, tmp_path / "t", incomplete=False)


def test_windows_that_reach_past_the_run_are_left_out(bids: Path, tmp_path: Path, capsys) -> None:
    table = prepared(bids, tmp_path / "t", volumes=12)
    assert 0 < len(table.all_trials(tgbh.SUBJECT)) < 39
    assert "without a whole window are left out" in capsys.readouterr().err
    with pytest.raises(FmriModelsError, match="no event has a window of 90 volumes"):
        prepared(bids, tmp_path / "t", volumes=90)
    with pytest.raises(FmriModelsError, match="volumes is 0"):
        prepared(bids, tmp_path / "t", volumes=0)


def test_events_of_films_stay_whole_without_clip(tmp_path: Path) -> None:
    made.write_fmriprep(tmp_path / "bids")
    for path in (tmp_path / "bids").rglob("*_events.tsv"):
        path.write_text(path.read_text().replace(".png", ".mp4"))
    table = prepared(tmp_path / "bids", tmp_path / "t", "nifti", betas="volumes", volumes=2, lag=3.0)
    assert table.window_shape("sub-01") == (2, int(made.chosen().sum()))
    assert table.stimuli.clips(table.stimuli.ids[:1])[0].file.endswith(".mp4")
    run = nibabel.load(next((tmp_path / "bids").rglob("*ses-01*run-1*preproc_bold.nii.gz"))).get_fdata()
    assert run.shape[3] == made.VOLUMES


def test_a_film_shorter_than_a_clip_is_a_sentence(tmp_path: Path) -> None:
    path = made.write_events(tmp_path / "events.tsv", [["0", "3", "film"]], "onset duration trial_type")
    events = read_events(path)
    assert cut_into_clips(events, 1.5).onsets == [0, 1.5] and cut_into_clips(events, 3).shown == ["film-0000"]
    with pytest.raises(FmriModelsError, match="as long as a clip of 4 s"):
        cut_into_clips(events, 4)


def test_from_a_film_to_a_report(bids: Path, tmp_path: Path) -> None:
    frames = tgbh.write_frames(tmp_path / "frames")
    out, model = str(tmp_path / "t"), str(tmp_path / "model")
    command = ["prepare", "tgbh", "--source", str(bids), "--out", out, "--option", "incomplete=yes"]
    assert main([*command, "--option", f"stimuli={frames}"]) == 0
    assert main(["train", "linear", f"data={out}", f"out={model}", "generator=pixels"]) == 0
    command = ["evaluate", "--model", model, "--data", out, "--out", str(tmp_path / "report")]
    assert main([*command, "--protocol", "small_pictures", "--rows", "shuffled_brain"]) == 0
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert "a window begins 4 s after" in report["data"]["windows"]


def test_nfed_tests_clips_by_their_names(tmp_path: Path) -> None:
    bids = tmp_path / "bids"
    for run, kind in ((1, "trn"), (2, "tst")):
        name = f"sub-01_ses-02_task-face_run-0{run}"
        # A run of the release writes the folder of its clips, others don't.
        folder = "face-video/" if run == 1 else ""
        rows = [[str(12 + 6 * place), "3", f"{folder}stim{kind}_{place}.mp4", "n/a"] for place in range(6)]
        columns = "onset duration stim_file key_fix"
        made.write_events(bids / "sub-01" / "ses-02" / "func" / f"{name}_events.tsv", rows, columns)
        place = bids / "derivatives" / "fmriprep" / "sub-01" / "ses-02" / "func"
        values = 100 + np.random.default_rng(run).normal(size=(*made.SHAPE, 40))
        image = made.save(place / f"{name}_space-T1w_desc-preproc_bold.nii.gz", values)
        image.with_name(image.name.replace(".nii.gz", ".json")).write_text(json.dumps({"RepetitionTime": 2.0}))
        made.save(place / f"{name}_space-T1w_desc-brain_mask.nii.gz", made.chosen(), dtype=np.uint8)
    table = prepared(bids, tmp_path / "t", "nfed")
    assert set(table.trials("sub-01", "test").stimulus_ids.tolist()) == {f"stimtst_{n}.mp4" for n in range(6)}
    assert table.window_shape("sub-01")[0] == 3 and table.windows.seconds_per_sample == 2
    assert table.stimuli.clips(["stimtrn_1.mp4"])[0].file == "face-video/stimtrn_1.mp4"
    with pytest.raises(FmriModelsError, match="No stimulus has a name like other_"):
        prepared(bids, tmp_path / "t", "nfed", test_names=["other_*"])


def test_spacetop_cuts_its_films_and_leaves_ratings_out(tmp_path: Path) -> None:
    bids = tmp_path / "bids"
    for run in (1, 2, 3):
        name = f"sub-0001_ses-01_task-alignvideo_acq-mb8_run-0{run}"
        rows = [
            ["5.0", "7.5", "video", "n/a", f"task-alignvideo/ses-01_run-0{run}_order-01_content-film.mp4"],
            ["n/a", "n/a", "rating_happy", "n/a", "n/a"],
            ["14.0", "1.2", "rating_sad", "0.31", "n/a"],
        ]
        columns = "onset duration trial_type response_value stim_file"
        made.write_events(bids / "sub-0001" / "ses-01" / "func" / f"{name}_events.tsv", rows, columns)
        place = bids / "derivatives" / "fmriprep" / "sub-0001" / "ses-01" / "func"
        values = 100 + np.random.default_rng(run).normal(size=(*made.SHAPE, 40))
        image = made.save(place / f"{name}_space-T1w_desc-preproc_bold.nii.gz", values)
        image.with_name(image.name.replace(".nii.gz", ".json")).write_text(json.dumps({"RepetitionTime": 0.46}))
        made.save(place / f"{name}_space-T1w_desc-brain_mask.nii.gz", made.chosen(), dtype=np.uint8)
    table = prepared(bids, tmp_path / "t", "spacetop")
    trials = table.all_trials("sub-0001")
    assert len(trials) == 9 and set(trials.runs.tolist()) == {1, 2, 3}
    assert table.window_shape("sub-0001")[0] == 4 and table.windows.seconds_per_sample == 0.46
    clip = table.stimuli.clips(sorted(trials.stimulus_ids.tolist())[1:2])[0]
    assert clip.file.startswith("task-alignvideo/ses-01_run-01") and (clip.start, clip.seconds) == (2.0, 2.0)
    tested = set(table.trials("sub-0001", "test").runs.tolist())
    assert tested and tested.isdisjoint(table.trials("sub-0001", ["train", "validation"]).runs.tolist())
