"""Files that are missing, damaged or others, and calls that are interrupted, over all data set scripts alike: each ends
in one sentence, and nothing half-written is ever taken for whole."""

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fmri_models.data import TrialTable
from fmri_models.data.published.extraction import work_folder
from fmri_models.swapping import is_partial
from tests.data.sources import SOURCES, Source

h5py = pytest.importorskip("h5py")
nibabel = pytest.importorskip("nibabel")
pytest.importorskip("nilearn")

# Blanks and letters that not all file systems and libraries take for granted.
FOLDER = "my files ä 脳"
# A file of each form that its betas are in.
BETAS = {
    "nsd-release": "**/betas_session01.nii.gz",
    "nsd-release-hdf5": "**/betas_session01.hdf5",
    "nsd-mindeye2": "**/betas_all_subj01_fp32_renorm.hdf5",
    "nsd-mindeye": "**/train_subj01_1.tar",
    "god-published": "**/Subject1.h5",
    "god-mindvis": "**/sbj_1.npz",
    "bold5000-arrays": "**/CSI4_*_RHPPA.npy",
    "bold5000-volumes": "**/CSI4_*_ses-01.nii.gz",
    "bold5000-first": "**/CSI4_ROIs_TR34.h5",
    "things_fmri": "**/sub-01_ResponseData.h5",
    "miyawaki-nilearn": "**/data_random_run07.nii.gz",
    "miyawaki-npz": "*.npz",
    "haxby-openfmri": "**/task001_run002/bold_25mm.nii.gz",
    "haxby-nilearn": "**/bold.nii.gz",
    "nifti-fmriprep": "**/*ses-02*run-1*preproc_bold.nii.gz",
    "nifti-betas": "**/*_betas.nii.gz",
    "nifti-glmsingle-hdf5": "**/TYPED*.hdf5",
    "nifti-glmsingle-mat": "**/TYPED*.mat",
    "surfaces-dtseries": "**/*.dtseries.nii",
    "surfaces-dscalar": "**/*.dscalar.nii",
    "surfaces-gifti": "**/*hemi-R*.func.gii",
    "wen2018-mindvideo": "**/fmri_train_subject1.npy",
    "wen2018-neuroclips": "**/subj01_train_fmri.pt",
    "vim2": "**/VoxelResponses_subject1.mat",
    "bmd": "**/sub-01_roi-rFFA_*.pkl",
    "eeg_voa": "**/eeg_5_95_std.pth",
    "things_eeg": "**/preprocessed_eeg_training.npy",
    "tgbh": "**/*run-3*preproc_bold.nii.gz",
    "digits69": "*.mat",
}
# Written in seconds and not in tenths of them.
LARGE = ("nsd-release", "nsd-release-hdf5", "nsd-mindeye2")
FORMS = [pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name for name in SOURCES]
QUICK = [name for name in SOURCES if name not in LARGE]
DAMAGES = ("missing", "empty", "half", "garbage", "folder", "loop")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a form's files, written once; whoever changes it puts it back."""
    made: dict[str, Path] = {}

    def of(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp("sources") / FOLDER
            made[name].mkdir()
            SOURCES[name].write(made[name])
        return made[name]

    return of


def betas_file(name: str, folder: Path) -> Path:
    return next(iter(sorted(folder.glob(BETAS[name]))))


def trials_of(table: Path) -> list[tuple[Any, ...]]:
    """All that a table says of trials, in their order."""
    opened = TrialTable.open(table)
    found: list[tuple[Any, ...]] = []
    for subject in opened.subjects:
        trials = opened.all_trials(subject)
        order = np.argsort(trials.trials)
        found.append((subject, trials.fmri()[order].tobytes(), trials.stimulus_ids[order].tolist()))
    return found


class Damaged:
    """Something else in a file's place, until it is put back.

    Args:
        path: The file.
        damage: What.
    """

    def __init__(self, path: Path, damage: str) -> None:
        self.path, self.damage = path, damage
        self.kept = Path(tempfile.mkdtemp()) / "kept"

    def __enter__(self) -> None:
        shutil.move(self.path, self.kept)
        if self.damage == "folder":
            self.path.mkdir()
        elif self.damage == "loop":
            self.path.symlink_to(self.path.name)
        elif self.damage != "missing":
            data = self.kept.read_bytes()
            changed = {
                "empty": b"",
                "half": data[: len(data) // 2],
                "most": data[: -max(1, len(data) // 50)],
                "garbage": bytes(range(256)) * 4,
            }
            self.path.write_bytes(changed[self.damage])

    def __exit__(self, *_: object) -> None:
        if self.path.is_dir() and not self.path.is_symlink():
            self.path.rmdir()
        else:
            self.path.unlink(missing_ok=True)
        shutil.move(self.kept, self.path)
        self.kept.parent.rmdir()


def check_sentence(said: str, out: Path, where: str) -> str:
    """The one sentence that a refused call ends in."""
    errors = [line for line in said.splitlines() if line.startswith("fmri-models: error: ")]
    assert len(errors) == 1 and said.rstrip().splitlines()[-1] == errors[0], (where, said)
    assert "error: unexpected" not in said and "Traceback" not in said and errors[0].endswith((".", "?")), (where, said)
    assert len(errors[0]) > 60, (where, errors[0])
    assert not out.exists(), where
    return errors[0]


@pytest.mark.parametrize("name", FORMS)
def test_the_file_of_the_betas(name: str, sources: Callable, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder, out = sources(name), tmp_path / FOLDER
    assert SOURCES[name].prepare(folder, out) == 0, capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [FOLDER]
    assert trials_of(out)
    assert SOURCES[name].prepare(folder, out) == 1
    assert "exists and is not empty" in capsys.readouterr().err
    shutil.rmtree(out)
    assert SOURCES[name].prepare(folder, folder / SOURCES[name].below / "table") == 1
    assert "which is read; choose a folder apart from it" in capsys.readouterr().err
    path = betas_file(name, folder)
    for damage in DAMAGES:
        with Damaged(path, damage):
            code, said = SOURCES[name].prepare(folder, out), capsys.readouterr().err
        # Of published forms a part of the files will do where somebody says so, and one's own runs are those there are.
        if (
            damage == "missing"
            and code == 0
            and ("incomplete=yes" in SOURCES[name].options or name == "nifti-fmriprep")
        ):
            shutil.rmtree(out)
            continue
        assert code == 1, (damage, said)
        check_sentence(said, out, damage)


def kinds_of_files(folder: Path) -> list[Path]:
    """One file of each kind: names that differ by numbers alone are of one, and so are pictures."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            kind = re.sub(r"\d+", "#", path.relative_to(folder).as_posix())
            found.setdefault(re.sub(r"(images|pictures|Presented_Stimuli)/.*", r"\1", kind), path)
    return list(found.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", SOURCES)
def test_every_kind_of_file(name: str, sources: Callable, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """A damaged file ends in a sentence, or changes no trial; a list that is cut inside of a name is told of."""
    folder, out = sources(name), tmp_path / "table"
    assert SOURCES[name].prepare(folder, out) == 0
    whole = trials_of(out)
    for path in kinds_of_files(folder):
        for damage in (*DAMAGES, "most"):
            shutil.rmtree(out, ignore_errors=True)
            where = f"{path.name}, {damage}"
            capsys.readouterr()
            with Damaged(path, damage):
                code, said = SOURCES[name].prepare(folder, out), capsys.readouterr().err
            if code == 0:
                is_said = "ends within a line" in said
                assert damage == "missing" or is_said or trials_of(out) == whole, where
            else:
                check_sentence(said, out, where)


@pytest.mark.parametrize("script", sorted({source.script for source in SOURCES.values()}))
def test_another_folder(script: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "in").mkdir()
    for content in (None, "notes.txt", "sub-01.nii.gz"):
        if content:
            (tmp_path / "in" / content).write_text("other")
        assert Source(script, lambda folder: None).prepare(tmp_path / "in", tmp_path / "out") == 1
        sentence = check_sentence(capsys.readouterr().err, tmp_path / "out", script)
        assert str(tmp_path / "in") in sentence
    for source in (tmp_path / "in" / "notes.txt", tmp_path / "nowhere"):
        assert Source(script, lambda folder: None).prepare(source, tmp_path / "out") == 1
        check_sentence(capsys.readouterr().err, tmp_path / "out", script)


# Values


def filled(path: Path, value: float) -> None:
    """Writes one number for all betas of a file."""
    if path.suffix in (".h5", ".hdf5", ".mat"):
        with h5py.File(path, "r+") as file:
            names: list[str] = []
            file.visititems(lambda name, each: names.append(name) if getattr(each, "ndim", 0) > 1 else None)
            for name in names:
                if file[name].dtype.kind == "f" and "R2" not in name:
                    file[name][...] = value
    elif path.suffix == ".npz":
        arrays = dict(np.load(path))
        np.savez(path, **{key: np.full_like(each, value) if each.ndim == 2 else each for key, each in arrays.items()})
    elif path.suffix == ".gii":
        image = nibabel.load(path)
        for each in image.darrays:
            each.data[...] = value
        nibabel.save(image, path)
    else:
        image = nibabel.load(path)
        values = np.full(image.shape, value, dtype=np.float32)
        if isinstance(image, nibabel.Cifti2Image):
            nibabel.save(nibabel.Cifti2Image(values, image.header), path)
            return
        header = image.header.copy()
        header.set_data_dtype(np.float32)
        nibabel.save(nibabel.Nifti1Image(values, image.affine, header), path)


@pytest.mark.parametrize("value", [np.nan, 3.0])
@pytest.mark.parametrize(
    "name",
    [
        "things_fmri", "god-mindvis", "bold5000-volumes", "miyawaki-nilearn", "miyawaki-npz", "haxby-openfmri",
        "haxby-nilearn", "nifti-fmriprep", "nifti-betas", "nifti-glmsingle-hdf5", "nifti-glmsingle-mat",
        "surfaces-dtseries", "surfaces-dscalar",
        pytest.param("nsd-release", marks=pytest.mark.slow),
        pytest.param("nsd-release-hdf5", marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_a_run_of_nothing(
    name: str, value: float, sources: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = sources(name)
    path = betas_file(name, folder)
    kept = tmp_path / "kept"
    shutil.copy(path, kept)
    if name == "nsd-release-hdf5" and np.isnan(value):
        pytest.skip("integers have no NaN")
    try:
        if name == "nsd-release-hdf5":
            with h5py.File(path, "r+") as file:
                file["betas"][...] = 3
        else:
            filled(path, value)
        code = SOURCES[name].prepare(folder, tmp_path / "out")
    finally:
        shutil.copy(kept, path)
    assert code == 1
    sentence = check_sentence(capsys.readouterr().err, tmp_path / "out", name)
    assert ("nothing but NaN" if np.isnan(value) else "the same pattern in all of its") in sentence
    assert path.name in sentence or path.name.replace("hemi-R", "hemi-L") in sentence


def test_betas_of_another_type(sources: Callable, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = shutil.copytree(sources("things_fmri"), tmp_path / "in")
    path = betas_file("things_fmri", folder)
    with h5py.File(path, "r+") as file:
        shape = file["ResponseData/block0_values"].shape
        del file["ResponseData/block0_values"]
        file["ResponseData/block0_values"] = np.full(shape, b"text")
    assert SOURCES["things_fmri"].prepare(folder, tmp_path / "out") == 1
    assert "betas of the type |S4; expected numbers" in check_sentence(capsys.readouterr().err, tmp_path / "out", "")


def test_ceilings_that_are_infinite(sources: Callable, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = shutil.copytree(sources("things_fmri"), tmp_path / "in")
    table = next(folder.rglob("sub-01_VoxelMetadata.csv"))
    table.write_text(re.sub(r"(?m)^(4,4,1,2,4,)16", r"\1inf", table.read_text()))
    assert SOURCES["things_fmri"].prepare(folder, tmp_path / "out") == 1
    assert "infinite noise ceilings" in check_sentence(capsys.readouterr().err, tmp_path / "out", "")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not read")
@pytest.mark.parametrize("name", ["things_fmri", "god-mindvis", "bold5000-arrays", "nsd-mindeye", "nifti-betas"])
def test_files_that_may_not_be_read(name: str, capsys: pytest.CaptureFixture) -> None:
    # What pytest makes is root's alone.
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        root.chmod(0o777)
        (root / "in").mkdir()
        SOURCES[name].write(root / "in")
        path = betas_file(name, root / "in")
        path.chmod(0o000)
        os.seteuid(65534)
        try:
            code = SOURCES[name].prepare(root / "in", root / "out")
        finally:
            os.seteuid(0)
        assert code == 1
        sentence = check_sentence(capsys.readouterr().err, root / "out", name)
        assert path.name in sentence and "permission" in sentence.lower()


# Writing


class _Full:
    """A file on a disk that is full after so many writes."""

    def __init__(self, file: Any, left: int) -> None:
        self._file, self._left = file, left

    def write(self, data: bytes) -> int:
        self._left -= 1
        if self._left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return int(self._file.write(data))

    def __enter__(self) -> "_Full":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@pytest.mark.parametrize("name", ["bold5000-first", "nifti-betas", "digits69"])
@pytest.mark.parametrize("where", ["recordings", "table"])
def test_a_full_disk(
    name: str, where: str, sources: Callable, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: Any
) -> None:
    if (name, where) == ("digits69", "recordings"):
        pytest.skip("its file is read at once")
    folder, out, opens = sources(name), tmp_path / "out", Path.open

    def opened(path: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        file = opens(path, mode, *args, **options)
        is_recording = path.suffix == ".f32"
        return _Full(file, 0) if mode == "ab" and is_recording == (where == "recordings") else file

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", opened)
        assert SOURCES[name].prepare(folder, out) == 1
    assert "The disk is full while writing" in check_sentence(capsys.readouterr().err, out, where)
    assert not any(is_partial(path.name) for path in tmp_path.rglob("*"))
    assert SOURCES[name].prepare(folder, out) == 0
    assert not work_folder(out).exists()


_PROGRAM = """
import sys, time
from fmri_models.cli.main import main
from fmri_models.data.published import extraction, writing
from fmri_models.data import subject_writer
stage, words = sys.argv[1], sys.argv[2:]
def wait():
    print("there", flush=True)
    time.sleep(120)
count = 0
def counted(function, last):
    def wrapped(*args, **options):
        global count
        count += 1
        if count == last:
            wait()
        return function(*args, **options)
    return wrapped
if stage == "reading":
    # In the midst of the second recording, some of which is on disk then.
    reads = extraction._append
    def half(path, recording, subject):
        global count
        count += 1
        if count == 2:
            with open(path, "ab") as file:
                file.write(bytes(10))
            wait()
        return reads(path, recording, subject)
    extraction._append = half
else:
    subject_writer.SubjectWriter.finish = counted(subject_writer.SubjectWriter.finish, 1)
sys.exit(main(words))
"""


def stopped(name: str, stage: str, by: int, folder: Path, out: Path) -> int:
    """Ends a call in the midst of reading or writing; its exit code."""
    words = SOURCES[name].words(folder, out)
    command = [sys.executable, "-c", _PROGRAM, stage, *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n", process.communicate()[1]
        process.send_signal(by)
        said = process.communicate()[1]
    assert "Traceback" not in said, said
    return process.returncode


@pytest.mark.parametrize(
    ("name", "stage", "by"),
    [
        ("god-published", "reading", signal.SIGKILL),
        ("bold5000-volumes", "reading", signal.SIGINT),
        ("nifti-betas", "writing", signal.SIGKILL),
        ("digits69", "writing", signal.SIGINT),
        pytest.param("haxby-nilearn", "reading", signal.SIGKILL, marks=pytest.mark.slow),
        pytest.param("miyawaki-nilearn", "reading", signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param("nsd-mindeye", "reading", signal.SIGKILL, marks=pytest.mark.slow),
        pytest.param("things_fmri", "writing", signal.SIGINT, marks=pytest.mark.slow),
        pytest.param("nifti-fmriprep", "reading", signal.SIGINT, marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_call_leaves_no_table_and_the_next_is_whole(
    name: str, stage: str, by: int, sources: Callable, tmp_path: Path
) -> None:
    folder, out = sources(name), tmp_path / "out"
    assert stopped(name, stage, by, folder, out) in (-by, 128 + by)
    assert not out.exists()
    assert SOURCES[name].prepare(folder, out) == 0
    assert SOURCES[name].prepare(folder, tmp_path / "other") == 0
    assert TrialTable.open(out).fingerprint == TrialTable.open(tmp_path / "other").fingerprint
    assert {path.name for path in tmp_path.iterdir()} == {"out", "other"}


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Interrupts the reading at its second recording, once."""
    from fmri_models.data.published import extraction

    reads, count = extraction._append, 0

    def once(*args: Any) -> int:
        nonlocal count
        count += 1
        if count == 2:
            raise KeyboardInterrupt
        return reads(*args)

    monkeypatch.setattr(extraction, "_append", once)
    return


def test_what_was_read_before_a_source_changed_is_read_again(
    sources: Callable, tmp_path: Path, interrupted: None
) -> None:
    name = "things_fmri"
    folder, out = shutil.copytree(sources(name), tmp_path / "in"), tmp_path / "out"
    assert SOURCES[name].prepare(folder, out) == 130
    assert work_folder(out).is_dir() and not out.exists()
    # As many voxels as before, but others.
    table = next(folder.rglob("sub-01_VoxelMetadata.csv"))
    lines = table.read_text().splitlines()
    assert lines[1].endswith(",1,0,0") and lines[4].endswith(",0,0,0")
    lines[1], lines[4] = lines[1].replace(",1,0,0", ",0,0,0"), lines[4].replace(",0,0,0", ",1,0,0")
    table.write_text("\n".join(lines) + "\n")
    assert SOURCES[name].prepare(folder, out) == 0
    assert SOURCES[name].prepare(folder, tmp_path / "other") == 0
    assert trials_of(out) == trials_of(tmp_path / "other")


def test_a_table_that_is_replaced_stays_until_the_new_one_is_whole(
    sources: Callable, tmp_path: Path, interrupted: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = sources("god-published"), tmp_path / "out"
    assert SOURCES["god-published"].prepare(folder, out) == 130
    assert SOURCES["god-published"].prepare(folder, out) == 0
    before = TrialTable.open(out).fingerprint
    monkeypatch.setattr("fmri_models.data.published.writing._add_folds", _interrupt)
    assert SOURCES["god-published"].prepare(folder, out, "--overwrite") == 130
    assert TrialTable.open(out).fingerprint == before


def _interrupt(*args: object) -> None:
    raise KeyboardInterrupt
