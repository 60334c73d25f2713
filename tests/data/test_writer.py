import errno
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fmri_models.data import TrialTable, TrialTableWriter, subject_writer
from fmri_models.data.card import data_card
from fmri_models.errors import FmriModelsError


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)


def write(path: Path, fill: Callable[[TrialTableWriter], None], **options: object) -> Path:
    with TrialTableWriter(path, "t", **options) as writer:
        writer.add_stimuli({"stimulus_id": f"s{i}", "image": picture(i)} for i in range(4))
        fill(writer)
    return path


def add(writer: TrialTableWriter, split: str = "train", ids: tuple[str, ...] = ("s0", "s1"), **options: object) -> None:
    writer.add_trials("subj01", split, stimulus_ids=ids, fmri=options.pop("fmri", np.eye(len(ids), 3)), **options)


def png(pixels: np.ndarray, mode: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format=mode)
    return buffer.getvalue()


def test_a_label_that_is_nothing_is_no_region(tmp_path: Path) -> None:
    labels = [None, float("nan"), "V1"]
    path = write(tmp_path / "t", lambda w: (add(w), w.add_voxels("subj01", 3, roi=labels)))
    assert TrialTable.open(path).voxels("subj01").roi == ["", "", "V1"]


def test_half_precision_where_it_is_exact_and_single_where_it_is_not(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    centred = rng.normal(size=(300, 5)).astype(np.float32)
    halves = centred.astype(np.float16)
    raw = 10_000 + 20 * centred
    large = halves.astype(np.float32)
    large[299, 2] = 1e6
    ids = [f"s{i % 4}" for i in range(300)]
    for name, fmri, expected in (
        ("a", halves, np.float16),
        ("b", raw, np.float32),
        ("c", large, np.float32),
        ("d", centred, np.float32),
        ("e", halves.astype(np.float64), np.float16),
        ("f", np.round(100 * centred).astype(np.int16), np.float16),
        ("g", 1e-9 * centred, np.float32),
    ):
        path = write(tmp_path / name, lambda w, fmri=fmri: w.add_trials("subj01", "train", ids, fmri))
        (file,) = TrialTable.open(path).trial_files("subj01")
        stored = pq.read_table(file)["fmri"].combine_chunks().flatten().to_numpy()
        assert stored.dtype == expected
        np.testing.assert_array_equal(stored.reshape(fmri.shape).astype(np.float32), fmri)


def test_a_session_is_not_rounded_because_another_has_other_units(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(size=(80, 5)).astype(np.float32)
    fmri = 10_000 + 20 * noise
    fmri[40:] = 1e-3 * noise[40:]
    ids = [f"s{i % 4}" for i in range(80)]
    sessions = np.repeat([1, 2], 40)
    path = write(tmp_path / "t", lambda w: w.add_trials("subj01", "train", ids, fmri, sessions=sessions))
    stored = TrialTable.open(path).trials("subj01").fmri()
    for rows in (sessions == 1, sessions == 2):
        error = np.sqrt(np.mean((stored[rows] - fmri[rows]) ** 2, axis=0))
        assert (error <= 1e-3 * fmri[rows].std(axis=0)).all()


@pytest.mark.parametrize("offset", [0, 1000])
def test_how_a_trial_is_stored_depends_on_no_damaged_one(offset: float, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    fmri = (offset + rng.normal(size=(100, 5))).astype(np.float32)
    stored = []
    for name, others in (("a", fmri[::4]), ("b", rng.normal(size=(25, 5))), ("c", np.full((25, 5), 1e9))):
        fmri[::4] = others
        path = write(
            tmp_path / name, lambda w: w.add_trials("subj01", "train", [f"s{i % 4}" for i in range(100)], fmri)
        )
        stored.append(TrialTable.open(path).trials("subj01").fmri())
        np.testing.assert_allclose(stored[-1][::4], others, rtol=1e-3)
    kept = np.arange(100) % 4 != 0
    for each in stored[1:]:
        np.testing.assert_array_equal(each[kept], stored[0][kept])


def test_masked_betas_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FmriModelsError, match="masked array"):
        write(tmp_path / "t", lambda w: add(w, fmri=np.ma.masked_less(np.eye(2, 3), 0.5)))


def test_no_dictionary_on_betas_and_small_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject_writer, "TRIALS_PER_FILE", 600)
    path = write(tmp_path / "t", lambda w: add(w, ids=tuple(f"s{i % 4}" for i in range(1000)), fmri=np.ones((1000, 3))))
    files = TrialTable.open(path).trial_files("subj01")
    assert [file.name for file in files] == ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"]
    with pq.ParquetFile(files[0]) as file:
        assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [256, 256, 88]
        by_path = {file.metadata.row_group(0).column(i).path_in_schema: i for i in range(file.metadata.num_columns)}
        column = file.metadata.row_group(0).column(by_path["fmri.list.element"])
        assert not any("DICT" in encoding for encoding in column.encodings)
    assert TrialTable.open(path).trials("subj01").trials.tolist() == list(range(1000))


def test_blocks_give_the_same_files_as_one_array(tmp_path: Path) -> None:
    fmri = np.random.default_rng(1).normal(size=(4, 7))
    ids = ["s0", "s1", "s2", "s3"]
    whole = write(tmp_path / "a", lambda w: w.add_trials("subj01", "train", ids, fmri))
    parts = write(tmp_path / "b", lambda w: w.add_trials("subj01", "train", ids, (row[None] for row in fmri)))
    assert TrialTable.open(whole).fingerprint == TrialTable.open(parts).fingerprint
    other = write(tmp_path / "c", lambda w: w.add_trials("subj01", "train", ids, fmri + 0.01))
    assert TrialTable.open(other).fingerprint != TrialTable.open(whole).fingerprint


def test_trial_numbers_and_repetitions_are_counted_over_all_parts(tmp_path: Path) -> None:
    def fill(writer: TrialTableWriter) -> None:
        add(writer, ids=("s0", "s1", "s0"), fmri=np.ones((3, 2)))
        add(writer, "train", ids=("s0",), fmri=np.ones((1, 2)))
        add(writer, "test", ids=("s2", "s2"), fmri=np.ones((2, 2)))

    table = TrialTable.open(write(tmp_path / "t", fill))
    assert table.trials("subj01").repetitions.tolist() == [0, 0, 1, 2]
    assert table.trials("subj01", "test").trials.tolist() == [4, 5]
    assert table.trials("subj01", "test").repetitions.tolist() == [0, 1]


def test_encoded_pictures_are_kept_as_they_are(tmp_path: Path) -> None:
    encoded = png(picture(9), "JPEG")

    def fill(writer: TrialTableWriter) -> None:
        writer.add_stimuli([{"stimulus_id": "jpeg", "image": encoded}])
        add(writer)

    stimuli = TrialTable.open(write(tmp_path / "t", fill)).stimuli
    assert dict(stimuli.encoded(["jpeg"])) == {"jpeg": encoded}


REFUSED: dict[str, tuple[Callable[[TrialTableWriter], None], str]] = {
    "by id": (lambda w: (add(w), add(w, "test", ids=("s1",))), "stimulus s1 is in test and in train"),
    "width": (lambda w: (add(w), add(w, "test", ids=("s2",), fmri=np.ones((1, 4)))), "4 voxels here and 3 before"),
    "width in blocks": (lambda w: add(w, fmri=iter([np.ones((1, 3)), np.ones((1, 2))])), "expected 3"),
    "width of voxels": (lambda w: (w.add_voxels("subj01", 5), add(w)), "3 voxels here and 5 before"),
    "NaN": (lambda w: add(w, fmri=np.array([[0, np.nan, 1], [1, 2, 3.0]])), "1 values are NaN or infinite.*row 0, vox"),
    "Inf": (lambda w: add(w, fmri=np.array([[0, 1, 1], [1, 2, 1e39]])), "NaN or infinite"),
    "trial twice": (lambda w: add(w, trials=[5, 5]), "trial number 5 twice"),
    "trial twice later": (lambda w: (add(w, trials=[5, 6]), add(w, "test", ("s2",), trials=[6])), "number 6 twice"),
    "unknown stimulus": (lambda w: add(w, ids=("s0", "dog")), r"1 stimuli that the table doesn't have \(dog\)"),
    "rows": (lambda w: add(w, fmri=np.ones((3, 3))), "3 rows of betas for 2 stimulus ids"),
    "no rows": (lambda w: add(w, fmri=iter([])), "no betas for 2 trials"),
    "one dimension": (lambda w: add(w, fmri=np.ones(6)), r"\(6,\); expected \(trials, voxels\)"),
    "type": (lambda w: add(w, fmri=np.array([["a"], ["b"]])), "expected numbers"),
    "split": (lambda w: add(w, "val"), "'val'; expected one of train, validation, test"),
    "no trials": (lambda w: None, "has no trials"),
    "subject without trials": (lambda w: (add(w), w.add_voxels("subj02", 3)), "subj02 has no trials"),
    "sessions": (lambda w: add(w, sessions=[1]), "1 sessions of subj01 for 2 trials"),
    "fractional session": (lambda w: add(w, sessions=[1.5, 2.0]), "expected whole numbers"),
    "negative run": (lambda w: add(w, runs=[-1, 2]), "expected 0 to"),
    "id twice": (lambda w: w.add_stimuli([{"stimulus_id": "s0"}]), "'s0' is there twice"),
    "unsafe id": (lambda w: w.add_stimuli([{"stimulus_id": "../s0"}]), "can't be used as a file name"),
    "subject stimuli": (lambda w: w.add_trials("stimuli", "train", ["s0"], np.ones((1, 2))), "rename it"),
    "picture type": (lambda w: w.add_stimuli([{"stimulus_id": "x", "image": "x.png"}]), "is a str; expected"),
    "picture dtype": (lambda w: w.add_stimuli([{"stimulus_id": "x", "image": np.ones((3, 3))}]), "float64"),
    "broken picture": (lambda w: w.add_stimuli([{"stimulus_id": "x", "image": b"?"}]), "stimulus x can't be decoded"),
    "ROI": (lambda w: w.add_voxels("subj01", 3, roi=["V1"]), "1 ROI labels; expected 3"),
    "ceiling without source": (lambda w: w.add_voxels("subj01", 1, ncsnr=np.ones(1)), "without a source"),
    "ceiling's source": (lambda w: w.add_voxels("subj01", 1, ncsnr=np.ones(1), source="guess"), "'guess'"),
    "coordinates": (lambda w: w.add_voxels("subj01", 2, coordinates=np.ones((2, 2))), r"\(2, 2\); expected \(2, 3\)"),
    "noise-free rows": (lambda w: w.add_noise_free("subj01", ["s0"], np.ones((2, 3))), "2 noise-free responses for 1"),
    "extra": (lambda w: (add(w), w.extra.update(files={})), "belong to the table itself"),
    "split name": (lambda w: w.add_split("default", [], by="x"), "already"),
    "split rows": (
        lambda w: (
            add(w),
            w.add_split("x", [{"fold": 0, "subject": "subj01", "trial": 9, "stimulus_id": "s0", "split": "test"}], "x"),
        ),
        "names trial 9 of subj01",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_and_nothing_left_behind(case: str, tmp_path: Path) -> None:
    fill, message = REFUSED[case]
    with pytest.raises(FmriModelsError, match=message):
        write(tmp_path / "t", fill)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("encoding", ["PNG", "BMP"])
def test_the_same_picture_under_two_ids_in_two_parts_is_refused(encoding: str, tmp_path: Path) -> None:
    def fill(writer: TrialTableWriter) -> None:
        writer.add_stimuli([{"stimulus_id": "twin", "image": png(picture(0), encoding)}])
        add(writer)
        # Another subject: splits hold over all subjects together.
        writer.add_trials("subj02", "test", ["twin"], np.ones((1, 5)))

    with pytest.raises(FmriModelsError, match=r"same picture \(s0 and twin\).*in train and in test|test and in train"):
        write(tmp_path / "t", fill)


def test_grey_and_colour_encodings_of_a_picture_are_the_same_picture(tmp_path: Path) -> None:
    grey = picture(0)[..., 0]

    def fill(writer: TrialTableWriter) -> None:
        writer.add_stimuli(
            [
                {"stimulus_id": "grey", "image": grey},
                {"stimulus_id": "colour", "image": np.stack([grey] * 3, axis=-1)},
                {"stimulus_id": "palette", "image": Image.fromarray(grey).convert("P")},
            ]
        )
        add(writer)

    stimuli = TrialTable.open(write(tmp_path / "t", fill)).stimuli
    assert len(set(stimuli.content_hashes(["grey", "colour", "palette"]))) == 1
    assert stimuli.images(["grey"]).shape == (1, 6, 6, 3)


def test_a_design_that_repeats_stimuli_says_so(tmp_path: Path) -> None:
    why = "Categories repeat over runs by design."
    path = write(tmp_path / "t", lambda w: (add(w), add(w, "test", ids=("s1",))), repeats_stimuli=why)
    assert TrialTable.open(path).repeats_stimuli() == why


def test_an_error_in_the_block_leaves_the_old_table(tmp_path: Path) -> None:
    path = write(tmp_path / "t", add)
    before = TrialTable.open(path).fingerprint
    with pytest.raises(FmriModelsError, match="not empty"):
        TrialTableWriter(path, "t")
    with pytest.raises(RuntimeError, match="mine"), TrialTableWriter(path, "t", overwrite=True) as writer:
        add(writer)
        raise RuntimeError("mine")
    assert TrialTable.open(path).fingerprint == before
    assert [p.name for p in tmp_path.iterdir()] == ["t"]
    replaced = write(path, lambda w: add(w, ids=("s3",)), overwrite=True)
    assert len(TrialTable.open(replaced).trials("subj01")) == 1


def test_a_full_disk_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(FmriModelsError, match="disk is full while writing"):
        write(tmp_path / "t", add)
    assert list(tmp_path.iterdir()) == []


def test_datasets_reads_the_folder_as_it_is(table_path: Path) -> None:
    import datasets

    trials = datasets.load_dataset(str(table_path), "subj02")
    assert {split: len(part) for split, part in trials.items()} == {"train": 32, "validation": 3, "test": 5}
    assert trials["train"].features["fmri"] == datasets.List(datasets.Value("float32"), length=17)
    expected = TrialTable.open(table_path).trials("subj02", "test").fmri()
    np.testing.assert_array_equal(np.array(trials["test"]["fmri"], dtype=np.float32), expected.astype(np.float32))
    stimuli = datasets.load_dataset(str(table_path), "stimuli", split="train")
    assert len(stimuli) == 24
    assert stimuli[3]["image"].size == (8, 8)
    assert stimuli[3]["captions"] == ["picture 3", "a picture"]


def test_datasets_reads_the_first_subject_where_no_name_is_given(table_path: Path) -> None:
    import datasets

    trials = datasets.load_dataset(str(table_path))
    assert {split: len(part) for split, part in trials.items()} == {"train": 32, "validation": 3, "test": 5}
    assert set(trials["train"]["subject"]) == {"subj01"}
    assert set(trials["test"]["stimulus_id"]) == set(TrialTable.open(table_path).trials("subj01", "test").stimulus_ids)
    tested = datasets.load_dataset(str(table_path), split="test", streaming=True)
    assert [len(row["fmri"]) for row in tested] == [30] * 5
    names = datasets.get_dataset_config_names(str(table_path))
    assert names == ["subj01", "subj02", "stimuli"]
    for name in names:
        assert len(datasets.load_dataset(str(table_path), name, split="train")) > 0
    assert datasets.load_dataset_builder(str(table_path)).config.name == "subj01"


@pytest.mark.parametrize("subjects", [("anna", "default", "zoe"), ("default", "zoe"), ("default",)])
def test_datasets_reads_a_subject_that_is_called_default_where_no_name_is_given(
    tmp_path: Path, subjects: tuple[str, ...]
) -> None:
    import datasets

    path = write(tmp_path / "t", lambda w: [w.add_trials(s, "test", ["s0"], fmri=np.eye(1, 3)) for s in subjects])
    others = [subject for subject in subjects if subject != "default"]
    assert datasets.get_dataset_config_names(str(path)) == ["default", *others, "stimuli"]
    for name in (None, *subjects):
        assert set(datasets.load_dataset(str(path), name, split="test")["subject"]) == {name or "default"}
    assert f'load_dataset("FOLDER", "{subjects[-1]}")' in (path / "README.md").read_text()
    assert "# of default; others by name" in (path / "README.md").read_text()


def test_the_card_is_one_of_the_hub(table_path: Path) -> None:
    from huggingface_hub import DatasetCard, DatasetCardData

    card = DatasetCard.load(table_path / "README.md")
    assert DatasetCardData(**card.data.to_dict()).to_dict() == card.data.to_dict()
    assert card.data.license == "other" and card.data.license_name == "not-stated"
    assert [config.get("default") for config in card.data.configs] == [True, None, None]
    assert not {"datasets", "base_model", "source_datasets"} & set(card.data.to_dict())


def test_extra_keys_are_in_the_metadata(tmp_path: Path) -> None:
    path = write(tmp_path / "t", lambda w: (add(w), w.extra.update(design={"sessions": 3})))
    assert TrialTable.open(path).metadata["design"] == {"sessions": 3}
    assert json.loads((path / "table.json").read_text())["subjects"] == ["subj01"]


@given(st.text(max_size=12))
def test_an_id_is_safe_or_refused(name: str) -> None:
    from fmri_models.names import check_name

    try:
        check_name(name, "stimulus id")
    except FmriModelsError:
        return
    assert Path(name).name == name
    assert name not in ("", ".", "..")
    assert name.isascii()


@pytest.mark.parametrize(
    ("trials", "shown"),
    [
        ({"train": 0, "validation": 0, "test": 1}, ('"test")', "fmri([0])  # (1, 7)")),
        ({"train": 5, "validation": 0, "test": 1}, ('"train")', "fmri([0, 1])  # (2, 7)")),
    ],
)
def test_the_card_reads_trials_that_are_there(table_path: Path, trials: dict[str, int], shown: tuple[str, str]) -> None:
    metadata = json.loads((table_path / "table.json").read_text())
    subject = metadata["subjects"][0]
    metadata |= {"subjects": [subject], "num_voxels": {subject: 7}, "trials": {subject: trials}}
    card = data_card(metadata)
    assert f'table.trials("{subject}", {shown[0]}' in card and shown[1] in card
