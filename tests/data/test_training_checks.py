"""What training would refuse is said by `prepare`, by `data info` and by `data validate`, in the same words."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fmri_models.cli.main import main
from fmri_models.data import TrialTable, TrialTableWriter
from fmri_models.data.arrays import prepare_arrays
from fmri_models.data.stimuli import fit_square
from fmri_models.data.validation import validate_table

IDS = [f"s{number:02d}" for number in range(24)]
PARTS = ["train"] * 12 + ["validation"] * 2 + ["test"] * 10


def betas(seed: int = 0, rows: int = 24, voxels: int = 9) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, voxels)).astype(np.float32)


def pictures(folder: Path, size: Callable[[int], tuple[int, int]] = lambda number: (8, 8)) -> Path:
    folder.mkdir()
    for number, name in enumerate(IDS):
        rng = np.random.default_rng(number)
        Image.fromarray(rng.integers(0, 256, (*size(number), 3), dtype=np.uint8)).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def prepare(tmp_path: Path) -> Callable[..., list[str]]:
    """Prepares a table of some arrays; gives what was said of it."""

    def run(arrays: dict[str, np.ndarray], stimuli: Path | None = None, **options: object) -> list[str]:
        rows = [f"{subject},{s},{part}" for subject in arrays for s, part in zip(IDS, PARTS, strict=True)]
        (tmp_path / "events.csv").write_text("\n".join(["subject,stimulus_id,split", *rows]))
        for name, values in arrays.items():
            np.save(tmp_path / f"{name}.npy", values)
        files = {name: tmp_path / f"{name}.npy" for name in arrays}
        said: list[str] = []
        stimuli = stimuli or pictures(tmp_path / "pictures")
        prepare_arrays(files, tmp_path / "events.csv", stimuli, tmp_path / "out", report=said.append, **options)
        assert TrialTable.open(tmp_path / "out").findings == validate_table(tmp_path / "out")
        return said

    return run


def test_nothing_is_said_of_a_table_that_can_be_learned_from(prepare: Callable, tmp_path: Path) -> None:
    assert prepare({"a": betas(0), "b": betas(1)}) == [
        "a: no noise ceilings, because no training stimulus is repeated.",
        "b: no noise ceilings, because no training stimulus is repeated.",
    ]
    assert validate_table(tmp_path / "out") == []
    assert "findings" not in (tmp_path / "out" / "table.json").read_text()


def test_pictures_of_several_sizes(prepare: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stimuli = pictures(tmp_path / "sizes", lambda number: (8, 12) if number == 3 else (8, 8))
    said = prepare({"a": betas()}, stimuli)
    assert "2 sizes (23 of 8x8 such as s00, 1 of 12x8 such as s03), and training takes pictures of one size" in said[-1]
    assert "--size PIXELS" in said[-1]
    assert main(["data", "info", str(tmp_path / "out")]) == 0
    assert said[-1] in capsys.readouterr().out
    assert main(["data", "validate", str(tmp_path / "out")]) == 1


def test_pictures_can_be_given_one_size(prepare: Callable, tmp_path: Path) -> None:
    stimuli = pictures(tmp_path / "sizes", lambda number: (8, 12) if number == 3 else (16, 8))
    prepare({"a": betas()}, stimuli, size=6)
    table = TrialTable.open(tmp_path / "out")
    assert table.stimuli.images().shape == (24, 6, 6, 3)
    expected = fit_square((stimuli / "s03.png").read_bytes(), 6, "it")
    np.testing.assert_array_equal(table.stimuli.images(["s03"])[0], expected)
    assert table.metadata["pictures"] == {"central_square_resized_to": 6}


def test_trials_without_a_response(prepare: Callable) -> None:
    values = betas()
    values[4], values[9], values[20] = 0, 0, 3.5
    assert any(
        "3 trials of a (number 4, 9, 20) have the same value in every voxel" in s for s in prepare({"a": values})
    )


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (3, 20, "1 trial of a has exactly the betas of another one, such as number 20 (test) those of number 3 (train)"
                ", so that what is tested is learned from"),
        (20, 3, "such as number 20 (test) those of number 3 (train), so that what is tested is learned from"),
        (3, 4, "such as number 4 (train) those of number 3 (train): give each response once"),
    ],
)  # fmt: skip
def test_a_response_that_is_there_twice(prepare: Callable, first: int, second: int, expected: str) -> None:
    values = betas()
    values[second] = values[first]
    assert any(expected in sentence for sentence in prepare({"a": values}))


def test_a_subject_that_is_a_copy_of_another_one(prepare: Callable) -> None:
    other = betas(1)
    other[5:] = betas(0)[5:]
    said = prepare({"a": betas(0), "b": other, "c": betas(2)})
    assert "a and b have identical betas in 19 trials (of 24 and 24), so one is a copy of the other" in said[-1]
    assert not any("and c have" in sentence for sentence in said)


def test_training_trials_that_are_too_few_or_never_change(tmp_path: Path) -> None:
    with TrialTableWriter(tmp_path / "table", "t") as writer:
        writer.add_stimuli({"stimulus_id": name, "image": None} for name in IDS)
        writer.add_trials("a", "train", IDS[:1] * 3, betas(rows=3))
        writer.add_trials("a", "test", IDS[12:], betas(1, 12))
        writer.add_trials("b", "train", IDS[:12], np.tile(betas(2, 1), (12, 1)))
        writer.add_trials("b", "test", IDS[12:], betas(3, 12))
    few, still, twice = TrialTable.open(tmp_path / "table").findings
    assert "a has trials of 1 stimulus in the part 'train' of the split, and training needs at least 2" in few
    assert "No voxel of b changes over its training trials" in still
    assert "11 trials of b have exactly the betas of another one" in twice
    assert validate_table(tmp_path / "table") == [few, still, twice]


def test_equal_whole_numbers_of_few_voxels_are_no_copies(tmp_path: Path) -> None:
    with TrialTableWriter(tmp_path / "table", "t") as writer:
        writer.add_stimuli({"stimulus_id": name, "image": None} for name in IDS)
        writer.add_trials("a", "train", IDS, np.random.default_rng(0).integers(0, 2, (24, 1)))
        writer.add_trials("b", "train", IDS, np.random.default_rng(0).integers(0, 2, (24, 1)))
    assert TrialTable.open(tmp_path / "table").findings == []


@pytest.mark.parametrize("fault", ["zero", "sizes"])
def test_what_is_found_is_what_training_refuses(
    fault: str, prepare: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = betas()
    values[4] = 0 if fault == "zero" else values[4]
    shape = (lambda number: (24, 20 + number % 2)) if fault == "sizes" else (lambda number: (24, 24))
    prepare({"a": values}, pictures(tmp_path / "stimuli", shape))
    command = ["train", "linear", f"data={tmp_path / 'out'}", f"out={tmp_path / 'model'}", "generator=thumbnail"]
    assert main(command) == 1
    assert {"zero": "in every voxel", "sizes": "several sizes"}[fault] in capsys.readouterr().err
