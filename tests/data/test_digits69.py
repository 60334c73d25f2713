import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from fmri_models.cli.main import main
from fmri_models.data import TrialTable
from fmri_models.data.validation import validate_table


@pytest.fixture
def mat_file(tmp_path: Path) -> Path:
    """A file of the published shape, with made-up contents."""
    rng = np.random.default_rng(0)
    contents = {}
    for part, rows in (("Trn", 90), ("Test", 10)):
        contents[f"fmri{part}"] = rng.normal(0, 0.02, (rows, 3092))
        contents[f"stim{part}"] = rng.integers(0, 256, (rows, 784), dtype=np.uint8)
        contents[f"label{part}"] = np.repeat([[1], [2]], rows // 2, axis=0).astype(np.uint8)
    path = tmp_path / "published" / "digit69_28x28.mat"
    path.parent.mkdir()
    scipy.io.savemat(path, contents)
    return path


def prepared(source: Path, out: Path, *options: str) -> TrialTable:
    assert main(["prepare", "digits69", "--source", str(source), "--out", str(out), *options]) == 0
    return TrialTable.open(out)


def check(table: TrialTable, contents: dict) -> None:
    assert (table.num_voxels("subj01"), table.stimuli.images().shape) == (3092, (100, 28, 28, 1))
    test = table.trials("subj01", "test")
    expected = contents["fmriTest"]
    error = np.sqrt(np.mean((test.fmri() - expected) ** 2, axis=0))
    assert (error < 2e-3 * np.concatenate([contents["fmriTrn"], expected]).std(axis=0)).all()
    upright = contents["stimTest"].reshape(10, 28, 28).transpose(0, 2, 1)[..., None]
    np.testing.assert_array_equal(table.stimuli.images(test.stimulus_ids), upright)
    learned = table.trials("subj01", ["train", "validation"])
    assert sorted(learned.trials.tolist()) == list(range(90))
    order = np.argsort(learned.trials)
    assert np.corrcoef(learned.fmri()[order].ravel(), contents["fmriTrn"].ravel())[0, 1] > 0.999999
    assert len(table.trials("subj01", "validation")) == 9
    assert table.stimuli.captions(["six_46", "nine_01"]) == [["a hand-written six"], ["a hand-written nine"]]
    assert table.stimuli.categories(test.stimulus_ids) == ["six"] * 5 + ["nine"] * 5
    tested = []
    for fold in range(10):
        ids = table.trials("subj01", "test", "kfold10", fold).stimulus_ids.tolist()
        assert sorted(stimulus[:3] for stimulus in ids) == ["nin"] * 5 + ["six"] * 5
        assert len(table.trials("subj01", ["train", "validation"], "kfold10", fold)) == 90
        tested += ids
    assert sorted(tested) == sorted(table.stimuli.ids)


def test_a_file_of_the_published_shape(mat_file: Path, tmp_path: Path) -> None:
    table = prepared(mat_file, tmp_path / "out")
    check(table, scipy.io.loadmat(mat_file))
    assert validate_table(table.path) == []
    assert "none stated" in table.metadata["license"] and "van Gerven" in table.metadata["source"]


def test_folder_zip_and_seed(mat_file: Path, tmp_path: Path) -> None:
    archive = tmp_path / "digits.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(mat_file, "deep/digit69_28x28.mat")
    tables = [prepared(source, tmp_path / f"t{i}") for i, source in enumerate((mat_file.parent, archive))]
    assert tables[0].fingerprint == tables[1].fingerprint
    other = prepared(mat_file, tmp_path / "other", "--seed", "1")
    first = tables[0].trials("subj01", "validation").stimulus_ids.tolist()
    assert other.trials("subj01", "validation").stimulus_ids.tolist() != first
    assert other.trials("subj01", "test").trials.tolist() == list(range(90, 100))


def test_another_file_is_refused(mat_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    contents = {name: value for name, value in scipy.io.loadmat(mat_file).items() if not name.startswith("__")}
    twin = {**contents, "stimTest": contents["stimTest"].copy()}
    twin["stimTest"][0] = contents["stimTrn"][7]
    wide = {**contents, "fmriTrn": contents["fmriTrn"][:, :-1]}
    sevens = {**contents, "labelTest": np.full((10, 1), 7)}
    broken = tmp_path / "broken.mat"
    broken.write_bytes(mat_file.read_bytes()[:1000])
    (tmp_path / "empty").mkdir()
    cases = [(broken, "no readable MATLAB file"), (tmp_path / "empty", "has no digit69_28x28.mat"),
             (tmp_path / "none", "does not exist")]  # fmt: skip
    for name, changed, message in (
        ("twin", twin, "1 test pictures of"),
        ("wide", wide, "fmriTrn in"),
        ("sevens", sevens, "has the label 7"),
    ):
        scipy.io.savemat(tmp_path / f"{name}.mat", changed)
        cases.append((tmp_path / f"{name}.mat", message))
    for source, message in cases:
        assert main(["prepare", "digits69", "--source", str(source), "--out", str(tmp_path / "out")]) == 1
        assert message in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


def test_the_published_data(test_data: Path, tmp_path: Path) -> None:
    folder = test_data / "data/digit69"
    table = prepared(folder, tmp_path / "out")
    check(table, scipy.io.loadmat(folder / "digit69_28x28.mat"))
    known = np.load(folder / "digit69.npz", allow_pickle=False)
    everything = table.all_trials("subj01")
    images = table.stimuli.images(everything.stimulus_ids)[..., 0]
    np.testing.assert_array_equal(images, known["images"][everything.trials])
    np.testing.assert_allclose(everything.fmri(), known["voxels"][everything.trials], atol=3e-4)
    names = {6: "six", 9: "nine"}
    expected = [names[label] for label in known["label"][everything.trials].tolist()]
    assert table.stimuli.categories(everything.stimulus_ids) == expected
    assert (known["split"][table.trials("subj01", "test").trials] == "test").all()


def test_scripts_of_anybody(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out, script = tmp_path / "source", tmp_path / "out", tmp_path / "mine.py"
    source.mkdir()
    command = ["prepare", str(script), "--source", str(source), "--out", str(out)]
    for text, extra, message in (
        (None, [], "mine.py does not exist"),
        ("x = 1", [], "has no function `prepare(source: Path, out: Path, **options)`"),
        ("import nothing_of_that_name", [], "can't be run (ModuleNotFoundError"),
        (
            "def prepare(source, out): pass",
            ["--seed", "3"],
            "doesn't take these options (seed); those that it takes: none",
        ),
        (
            "def prepare(source, out, width: int = 1, seed: int = 0): pass",
            ["--option", "widht=4"],
            "take these options (widht); those that it takes: --option width=VALUE, --seed. Did you mean 'width'?",
        ),
        ("def prepare(source, out, width): pass", [], "(missing a required argument: 'width'); it has the form"),
        (
            "def prepare(source, out, width: int = 1): pass",
            ["--option", "width=wide"],
            "--option width is 'wide'; expected a whole number",
        ),
    ):
        if text is not None:
            script.write_text(text)
        assert main([*command, *extra]) == 1
        assert message in capsys.readouterr().err
    script.write_text(
        "import numpy as np\nfrom fmri_models.data import TrialTableWriter\n\n"
        "def prepare(source, out, width='1', seed=0):\n"
        "    with TrialTableWriter(out, 'mine') as writer:\n"
        "        writer.add_stimuli([{'stimulus_id': 'a', 'image': None}])\n"
        "        writer.add_trials('subj01', 'train', ['a'], np.full((1, int(width)), seed))\n"
    )
    assert main([*command, "--option", "width=4", "--seed", "3"]) == 0
    np.testing.assert_array_equal(TrialTable.open(out).trials("subj01").fmri(), np.full((1, 4), 3))
    assert main(["prepare", "nobody", "--source", str(source), "--out", str(out)]) == 1
    error = capsys.readouterr().err
    assert "digits69, " in error and ", arrays, or the path" in error


@pytest.mark.parametrize(
    ("annotation", "text", "expected"),
    [
        ("int", "1e1", 10),
        ("float | None", "null", None),
        ("bool", "no", False),
        ("str", "01", "01"),
        ("list[str]", "[a, 02]", ["a", "02"]),
        ("'list[int]'", "3", [3]),
        ("typing.Literal['fast', 'exact']", "exact", "exact"),
        ("pathlib.Path | None", "2030", Path("2030")),
        ("pathlib.Path", "null", Path("null")),
        ("dict[str, float]", "{a: 1}", {"a": 1.0}),
        ("typing.Any", "01", "01"),
        ("NobodyKnows", "01", "01"),
    ],
)
def test_options_of_scripts_are_what_their_annotations_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], annotation: str, text: str, expected: object
) -> None:
    script = tmp_path / "mine.py"
    script.write_text(
        "from __future__ import annotations\nimport pathlib, typing\nfrom fmri_models import FmriModelsError\n\n"
        f"def prepare(here: pathlib.Path, there: pathlib.Path, option: {annotation}, **others):\n"
        "    raise FmriModelsError(f'{type(here).__name__} {option!r} {others}')\n"
    )
    command = ["prepare", str(script), "--source", str(script), "--out", str(tmp_path / "out"), "--name", "'x'"]
    assert main([*command, "--option", f"option={text}", "--option", "further=1"]) == 1
    others = {"further": "1", "name": "'x'"}
    assert f"PosixPath {expected!r} {others}" in capsys.readouterr().err
