"""What replaces what, and what a killed process leaves."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fmri_models.cli.main import main
from fmri_models.data import TrialTable, TrialTableWriter
from fmri_models.data.arrays import prepare_arrays
from fmri_models.errors import FmriModelsError
from fmri_models.swapping import is_partial


@pytest.fixture
def arrays(tmp_path: Path) -> list[str]:
    """Options of `prepare arrays`."""
    rng = np.random.default_rng(0)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for index in range(12):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(pictures / f"p{index}.png")
    np.save(tmp_path / "x.npy", rng.normal(size=(12, 3)).astype(np.float32))
    (tmp_path / "e.csv").write_text("stimulus_id\n" + "".join(f"p{index}\n" for index in range(12)))
    files = [("--fmri", "x.npy"), ("--events", "e.csv"), ("--stimuli", "pictures")]
    return ["prepare", "arrays", *(text for option, name in files for text in (option, str(tmp_path / name)))]


def contents(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_prepare_replaces_no_input_and_no_folder_that_is_no_table(
    arrays: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    before = contents(tmp_path)
    for out, message in (
        (tmp_path / "pictures", "is"),
        (tmp_path, "contains"),
        (tmp_path / "pictures" / "inside", "lies in"),
        (tmp_path / "notes", "is no trial table"),
    ):
        assert main([*arrays, "--out", str(out), "--overwrite"]) == 1
        assert message in capsys.readouterr().err
    assert contents(tmp_path) == before
    assert main([*arrays, "--out", str(tmp_path / "table")]) == 0
    assert main([*arrays, "--out", str(tmp_path / "table"), "--overwrite"]) == 0
    (tmp_path / "table" / "notes.txt").write_text("mine")
    assert main([*arrays, "--out", str(tmp_path / "table"), "--overwrite"]) == 1
    assert (tmp_path / "table" / "notes.txt").read_text() == "mine"


def test_simulate_and_scripts_replace_no_input(
    arrays: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = str(tmp_path / "pictures")
    script = tmp_path / "script.py"
    script.write_text("def prepare(source, out, overwrite=False):\n    raise KeyError('a')\n")
    before = contents(tmp_path)
    assert main(["simulate", "--stimuli", pictures, "--out", pictures, "--overwrite"]) == 1
    assert main(["prepare", str(script), "--source", pictures, "--out", pictures, "--overwrite"]) == 1
    assert main(["prepare", str(script), "--source", pictures, "--out", str(tmp_path), "--overwrite"]) == 1
    assert "contains" in capsys.readouterr().err
    assert main(["prepare", str(script), "--source", pictures, "--out", str(tmp_path / "new")]) == 1
    assert "failed (KeyError: 'a'); --debug shows where" in capsys.readouterr().err
    assert {file: data for file, data in contents(tmp_path).items() if file.suffix != ".pyc"} == before


def test_the_name_is_one_line(arrays: list[str], tmp_path: Path) -> None:
    fmri, events, stimuli = arrays[3::2]
    for out, name in (("a\n# b", ""), ("table", "a\x1b[2Jb")):
        with pytest.raises(FmriModelsError, match=r"table's name .* has the character U\+"):
            prepare_arrays(fmri, events, stimuli, tmp_path / out, name=name)
        assert not (tmp_path / out).exists()


def test_a_writer_refuses_its_inputs(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(FmriModelsError, match="lies in"):
        TrialTableWriter(tmp_path / "in" / "t", "t", inputs=[tmp_path / "in"])


_KILLED = """
import os, sys, time
from pathlib import Path
import numpy as np
from fmri_models.data import TrialTableWriter
def blocks():
    yield np.ones((2, 3))
    print("writing", flush=True)
    time.sleep(60)
with TrialTableWriter(sys.argv[1], "t", overwrite=True) as writer:
    writer.add_trials("s", "train", ["a"] * 4, blocks())
"""

_KILLED_CACHE = """
import sys, time
import numpy as np
from fmri_models.data.matrix import FmriMatrix
def blocks():
    yield np.ones((2, 3), np.float16)
    print("writing", flush=True)
    time.sleep(60)
FmriMatrix.materialize("f" * 64, "s", (4, 3), blocks, np.float16)
"""

_KILLED_FILE = """
import sys, time
from fmri_models.saving import atomic_file
with atomic_file(sys.argv[1]):
    print("writing", flush=True)
    time.sleep(60)
"""


def kill(code: str, *arguments: str, by: int = signal.SIGKILL) -> None:
    """Runs a program until it writes, and kills it there."""
    with subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "writing\n"
        process.send_signal(by)


def write(path: Path) -> None:
    with TrialTableWriter(path, "t", overwrite=True) as writer:
        writer.add_stimuli([{"stimulus_id": "a", "image": None}])
        writer.add_trials("s", "train", ["a"], np.ones((1, 2)))


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM])
def test_what_a_killed_writer_leaves_is_removed_by_the_next(by: int, tmp_path: Path) -> None:
    write(tmp_path / "t")
    before = contents(tmp_path)
    kill(_KILLED, str(tmp_path / "t"), by=by)
    assert {file: data for file, data in contents(tmp_path).items() if file in before} == before
    assert TrialTable.open(tmp_path / "t").subjects == ["s"]
    write(tmp_path / "t")
    assert [path.name for path in tmp_path.iterdir()] == ["t"]
    assert not any(is_partial(path.name) for path in tmp_path.rglob("*"))


def test_what_a_killed_process_leaves_in_the_cache_is_removed_by_the_next(own_cache: Path) -> None:
    from fmri_models.data.matrix import FmriMatrix

    kill(_KILLED_CACHE)
    folder = own_cache / "matrices" / ("f" * 64)
    assert any(is_partial(path.name) for path in folder.iterdir())
    matrix = FmriMatrix.materialize("f" * 64, "s", (4, 3), lambda: [np.ones((4, 3), np.float16)], np.float16)
    assert matrix.shape == (4, 3)
    assert sorted(path.name for path in folder.iterdir()) == ["s", "s.lock"]


def test_what_a_killed_process_leaves_of_a_file_is_removed_by_the_next(tmp_path: Path) -> None:
    from fmri_models.saving import write_text

    kill(_KILLED_FILE, str(tmp_path / "a.npy"))
    assert len(list(tmp_path.iterdir())) == 1
    write_text(tmp_path / "a.npy", "")
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]


def test_a_table_whose_replacement_was_killed_is_put_back_when_it_is_opened(tmp_path: Path) -> None:
    write(tmp_path / "t")
    holder = tmp_path / ".replaced-fmri_models-t-abcdefgh"
    holder.mkdir()
    os.rename(tmp_path / "t", holder / "t")
    assert TrialTable.open(tmp_path / "t").subjects == ["s"]
    assert not holder.exists()


def test_a_read_only_place_is_met_at_once(arrays: list[str], tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    (tmp_path / "closed").mkdir(mode=0o500)
    start = time.monotonic()
    assert main([*arrays, "--out", str(tmp_path / "closed" / "t")]) == 1
    assert time.monotonic() - start < 5
