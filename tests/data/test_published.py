"""The step that all published data sets share, on a data set of our own whose every number is known."""

import inspect
import json
from pathlib import Path

import numpy as np
import pytest

from fmri_models.data import TrialTable
from fmri_models.data.published import KnownVoxels, PublishedDataset, PublishedSubject, Recording, preparation
from fmri_models.data.published.extraction import work_folder
from fmri_models.errors import FmriModelsError

SESSIONS, WIDTH = 3, 8
REGIONS = ["V1"] * 4 + ["LOC"] * 3 + [""]
TRAINED = [f"train{number:02d}" for number in range(20)]
TESTED = [f"test{number}" for number in range(5)]
# Each training stimulus once, each test stimulus in every session.
SHOWN = [[*TRAINED[session::SESSIONS], *TESTED] for session in range(SESSIONS)]


def picture(stimulus: str) -> np.ndarray:
    return np.random.default_rng(sum(map(ord, stimulus))).integers(0, 256, (8, 8, 1), dtype=np.uint8)


def betas(session: int) -> np.ndarray:
    """Each session has a mean and a scale of its own."""
    values = np.random.default_rng(session).normal(size=(len(SHOWN[session]), WIDTH))
    return (100 * session + (1 + session) * values).astype(np.float32)


def recording(session: int, **changes) -> Recording:
    values = {
        "name": f"session {session}",
        "read": lambda: iter([betas(session)[:3], betas(session)[3:]]),
        "stimulus_ids": SHOWN[session],
        "session": session + 1,
        "runs": [1 + place // 5 for place in range(len(SHOWN[session]))],
    }
    return Recording(**values | changes)


def dataset(**changes) -> PublishedDataset:
    subject = PublishedSubject(
        "subj01", KnownVoxels(WIDTH, roi=REGIONS), [recording(session) for session in range(SESSIONS)], 35, WIDTH
    )
    values = {
        "name": "ours",
        "description": "For tests.",
        "license": "CC0",
        "citation": "Nobody (2026).",
        "script": "dataset_scripts/ours.py",
        "script_version": 3,
        "subjects": [subject],
        "stimuli": lambda ids: ({"stimulus_id": name, "image": picture(name)} for name in ids),
        "test_sets": {"all": TESTED, "one": TESTED[:1]},
    }
    return PublishedDataset(**values | changes)


def with_recordings(recordings, **changes) -> PublishedDataset:
    return dataset(subjects=[PublishedSubject("subj01", KnownVoxels(WIDTH, roi=REGIONS), recordings)], **changes)


def prepared(folder: Path, found: PublishedDataset, **options) -> TrialTable:
    source = folder / "source"
    source.mkdir(exist_ok=True)
    preparation(lambda source: found)(source, folder / "table", **options)
    return TrialTable.open(folder / "table")


def test_every_trial_is_written_with_what_is_known_of_it(tmp_path):
    table = prepared(tmp_path, dataset())
    trials = table.all_trials("subj01")
    order = np.argsort(trials.trials)
    assert np.array_equal(trials.fmri()[order], np.concatenate([betas(session) for session in range(SESSIONS)]))
    assert trials.stimulus_ids[order].tolist() == [name for shown in SHOWN for name in shown]
    assert set(trials.sessions.tolist()) == {1, 2, 3} and trials.runs.max() == 3
    test = table.trials("subj01", "test")
    assert sorted(set(test.stimulus_ids.tolist())) == TESTED and len(test) == 15
    # Repetitions never straddle, and validation is of training stimuli.
    parts = {part: set(table.trials("subj01", part).stimulus_ids.tolist()) for part in ("train", "validation", "test")}
    assert parts["validation"] and not parts["train"] & (parts["validation"] | parts["test"])
    assert table.voxels("subj01").roi == REGIONS
    found = json.loads((tmp_path / "table" / "table.json").read_text())["prepared"]
    assert (found["script"], found["script_version"]) == ("dataset_scripts/ours.py", 3)
    assert "dataset_scripts/ours.py, version 3" in (tmp_path / "table" / "README.md").read_text().replace("\\", "")
    assert not work_folder(tmp_path / "table").exists()


def test_standardisation_knows_training_trials_alone(tmp_path):
    table = prepared(tmp_path, dataset(), zscore="session", validation_fraction=0)
    test = table.trials("subj01", "test")
    for session in range(SESSIONS):
        values, learned = betas(session).astype(float), len(SHOWN[session]) - len(TESTED)
        expected = (values[learned:] - values[:learned].mean(0)) / values[:learned].std(0)
        own = test.fmri()[test.sessions == session + 1]
        assert np.allclose(own, expected, rtol=1e-4, atol=1e-4)
    assert "standardised by the training trials of the same session" in (tmp_path / "table" / "README.md").read_text()


def test_repetitions_are_averaged_where_that_is_asked_for(tmp_path):
    single = prepared(tmp_path, dataset(), zscore="session").trials("subj01", "test")
    repeated = single.fmri()
    averaged = prepared(tmp_path, dataset(), zscore="session", repetitions="average_test", overwrite=True)
    test = averaged.trials("subj01", "test")
    assert test.stimulus_ids.tolist() == TESTED
    assert len(averaged.all_trials("subj01")) == len(TRAINED) + len(TESTED)
    for stimulus, value in zip(test.stimulus_ids, test.fmri(), strict=True):
        assert np.allclose(value, repeated[single.stimulus_ids == stimulus].mean(0), atol=1e-5)


def test_regions_and_test_sets(tmp_path):
    table = prepared(tmp_path, dataset(), rois=["LOC"], test_set="one")
    assert table.num_voxels("subj01") == 3 and table.voxels("subj01").source_columns.tolist() == [4, 5, 6]
    assert set(table.trials("subj01", "test").stimulus_ids.tolist()) == {"test0"}
    assert np.array_equal(table.trials("subj01", "test").fmri()[0], betas(0)[-5, 4:7])


def test_regions_that_overlap_are_chosen_whole(tmp_path):
    early = np.isin(np.arange(WIDTH), [1, 2, 5, 7])
    voxels = KnownVoxels(WIDTH, roi=REGIONS, regions={"early": early})
    found = dataset(subjects=[PublishedSubject("subj01", voxels, [recording(0)])])
    assert prepared(tmp_path, found, rois=["early"]).voxels("subj01").source_columns.tolist() == [1, 2, 5, 7]
    both = prepared(tmp_path, found, rois=["early", "LOC"], overwrite=True).voxels("subj01")
    assert both.source_columns.tolist() == [1, 2, 4, 5, 6, 7] and both.roi == ["V1", "V1", "LOC", "LOC", "LOC", ""]
    with pytest.raises(FmriModelsError, match="no region 'late'; it has LOC, V1, early"):
        prepared(tmp_path, found, rois=["late"], overwrite=True)


def test_pictures_are_fitted_to_a_size(tmp_path):
    wide = np.zeros((8, 20, 3), dtype=np.uint8)
    wide[:, 6:14] = 200
    different = lambda ids: ({"stimulus_id": each, "image": wide // (1 + place)} for place, each in enumerate(ids))  # noqa: E731
    pictures = prepared(tmp_path, dataset(stimuli=different), size=4).stimuli.images()
    assert pictures.shape == (len(TRAINED + TESTED), 4, 4, 3) and pictures.max() == 200
    with pytest.raises(FmriModelsError, match="size"):
        prepared(tmp_path, dataset(), size=-1, overwrite=True)


def test_folds(tmp_path):
    table = prepared(tmp_path, dataset(), folds=5)
    assert table.num_folds("kfold5") == 5
    fold = table.trials("subj01", "test", "kfold5", 2)
    assert 0 < len(set(fold.stimulus_ids.tolist())) <= 6


def test_ceilings_are_those_of_the_release_or_of_training_repetitions(tmp_path):
    repeated = [recording(session, stimulus_ids=TRAINED[:10] + TESTED[:2]) for session in range(2)]
    for number, each in enumerate(repeated):
        object.__setattr__(each, "read", lambda number=number: iter([betas(number)]))
    own = prepared(tmp_path, with_recordings(repeated)).voxels("subj01")
    assert own.source == "training repetitions" and own.repetitions == 2
    ncsnr = np.linspace(0.1, 0.9, WIDTH)
    voxels = KnownVoxels(WIDTH, ncsnr=ncsnr, repetitions=3)
    subject = PublishedSubject("subj01", voxels, [recording(0)])
    given = prepared(tmp_path, dataset(subjects=[subject]), overwrite=True).voxels("subj01")
    assert given.source == "release" and np.allclose(given.ncsnr, ncsnr) and given.repetitions == 3


def test_an_interrupted_call_goes_on_where_it_was(tmp_path):
    read = []

    def counted(session: int, fails: bool = False):
        def read_it():
            read.append(session)
            yield betas(session)[:4]
            if fails:
                raise KeyboardInterrupt
            yield betas(session)[4:]

        return read_it

    broken = [recording(session, read=counted(session, fails=session == 1)) for session in range(SESSIONS)]
    with pytest.raises(KeyboardInterrupt):
        prepared(tmp_path, with_recordings(broken))
    assert not (tmp_path / "table").exists() and work_folder(tmp_path / "table").is_dir()
    whole = [recording(session, read=counted(session)) for session in range(SESSIONS)]
    table = prepared(tmp_path, with_recordings(whole))
    assert read == [0, 1, 1, 2]
    trials = table.all_trials("subj01")
    expected = np.concatenate([betas(session) for session in range(SESSIONS)])
    assert np.array_equal(trials.fmri()[np.argsort(trials.trials)], expected)


def test_what_was_read_of_other_files_is_not_taken(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"first")
    failing = [recording(0, files=[file]), recording(1, read=lambda: iter([betas(1)[:2]]))]
    with pytest.raises(FmriModelsError, match="2 trials of betas for 12 stimuli"):
        prepared(tmp_path, with_recordings(failing))
    file.write_bytes(b"second")
    other = recording(0, files=[file], read=lambda: iter([betas(0) + 1]))
    table = prepared(tmp_path, with_recordings([other, recording(1)]))
    assert np.array_equal(table.all_trials("subj01").fmri()[0], (betas(0) + 1)[table.all_trials("subj01").trials[0]])
    files = json.loads((tmp_path / "table" / "table.json").read_text())["prepared"]["files"]
    assert files["file"]["bytes"] == 6 and len(files["file"]["sha256"]) == 64


@pytest.mark.parametrize(
    ("found", "options", "message"),
    [
        (dataset(), {"subjects": ["subj02"]}, "no subject 'subj02' of ours in the files; there are subj01"),
        (dataset(), {"rois": ["V2"]}, "no region 'V2'; it has LOC, V1"),
        (dataset(), {"test_set": "al"}, "no test set 'al'; it has all, one. Did you mean"),
        (dataset(test_sets={}), {"test_set": "all"}, "one test set alone"),
        (dataset(subjects=[]), {}, "No subject of ours was found"),
        (
            dataset(subjects=[PublishedSubject("subj01", KnownVoxels(WIDTH), [recording(0)], 40, 9)]),
            {},
            "has 12 trials, and not 40; subj01 has 8 voxels, and not 9",
        ),
        (with_recordings([recording(0, read=lambda: iter([betas(0) * np.nan]))]), {}, "nothing but NaN"),
        (with_recordings([recording(0, read=lambda: iter([betas(0)[:, 1:]]))]), {}, r"expected \(trials, 8\)"),
        (with_recordings([recording(0), recording(0)]), {}, "twice"),
        (
            dataset(
                subjects=[PublishedSubject("subj01", KnownVoxels(WIDTH, ncsnr=np.full(WIDTH, np.inf)), [recording(0)])]
            ),
            {},
            "are infinite",
        ),
        (dataset(), {"zscore": "run", "validation_fraction": 0}, "run 3 has 0 training trials, too few"),
        (dataset(), {"validation_fraction": 2}, "validation fraction is 2"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_a_sentence_and_leaves_no_table(tmp_path, found, options, message):
    with pytest.raises(FmriModelsError, match=message):
        prepared(tmp_path, found, **options)
    assert not (tmp_path / "table").exists()


def test_what_is_there_is_written_where_somebody_says_so(tmp_path, capsys):
    subject = PublishedSubject("subj01", KnownVoxels(WIDTH), [recording(0)], 40)
    assert len(prepared(tmp_path, dataset(subjects=[subject]), incomplete=True).all_trials("subj01")) == 12
    assert "Incomplete: subj01 has 12 trials, and not 40" in capsys.readouterr().err


def test_bad_voxels_are_left_out_where_that_is_asked_for(tmp_path):
    def with_nan():
        values = betas(0)
        values[3, 2], values[:, 5] = np.nan, 1
        return iter([values])

    found = with_recordings([recording(0, read=with_nan)])
    with pytest.raises(FmriModelsError, match="NaN"):
        prepared(tmp_path, found)
    table = prepared(tmp_path, found, drop_bad_voxels=True)
    assert table.voxels("subj01").source_columns.tolist() == [0, 1, 3, 4, 6, 7]


def test_one_picture_under_two_names_is_not_in_two_parts(tmp_path):
    same = lambda ids: ({"stimulus_id": name, "image": picture("train00")} for name in ids)  # noqa: E731
    with pytest.raises(FmriModelsError):
        prepared(tmp_path, dataset(stimuli=same))


def test_a_script_takes_its_own_options_and_those_of_all(tmp_path):
    def read(source: Path, lag: float = 4.0, subjects: list[str] | None = None) -> PublishedDataset:
        """What is read."""
        return dataset()

    prepare = preparation(read)
    names = list(inspect.signature(prepare).parameters)
    assert names[:3] == ["source", "out", "lag"] and {"zscore", "rois", "seed", "overwrite"} < set(names)
    assert names.count("subjects") == 1 and prepare.__doc__ == "What is read."
    from fmri_models.typed_values import options_of

    options = options_of(prepare, without=["source", "out"])
    assert options.closed and options.types["lag"] is float
