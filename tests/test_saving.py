"""Writing completely or not at all."""

import os

import pytest

from fmri_models.errors import FmriModelsError
from fmri_models.saving import (
    atomic_file,
    atomic_folder,
    check_merged_folder,
    check_output_folder,
    check_schema,
    merged_folder,
    write_text,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_appears_when_it_is_complete(tmp_path):
    with atomic_folder(tmp_path / "out") as partial:
        (partial / "a").write_text("1")
        assert not (tmp_path / "out").exists()
    assert names(tmp_path / "out") == ["a"]
    assert names(tmp_path) == ["out"]


def test_an_error_leaves_nothing_behind(tmp_path):
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "out") as partial:
        (partial / "a").write_text("1")
        raise RuntimeError
    assert names(tmp_path) == []


def test_content_is_overwritten_on_demand_only(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("1")
    with pytest.raises(FmriModelsError, match="not empty.*--overwrite"), atomic_folder(tmp_path / "out"):
        pass
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "out", overwrite=True):
        raise RuntimeError
    assert names(tmp_path / "out") == ["old"]
    with atomic_folder(tmp_path / "out", overwrite=True) as partial:
        (partial / "new").write_text("2")
    assert names(tmp_path / "out") == ["new"]
    assert names(tmp_path) == ["out"]


def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path):
    (tmp_path / "out").write_text("1")
    with pytest.raises(FmriModelsError, match="is a file"):
        check_output_folder(tmp_path / "out", overwrite=True)


def test_a_file_is_replaced_when_it_is_complete(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(RuntimeError), atomic_file(tmp_path / "a.txt") as partial:
        partial.write_text("half")
        raise RuntimeError
    assert (tmp_path / "a.txt").read_text() == "old"
    write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "new"
    assert names(tmp_path) == ["a.txt"]
    assert os.stat(tmp_path / "a.txt").st_mode & 0o077 == 0o666 & ~_umask() & 0o077


@pytest.mark.parametrize(
    "error",
    [OSError(28, "No space left on device"), RuntimeError("I/O error: No space left on device (os error 28)")],
)
def test_a_full_disk_is_a_sentence(tmp_path, error):
    with (
        pytest.raises(FmriModelsError, match="disk is full while writing .*out.*make room"),
        atomic_folder(tmp_path / "out"),
    ):
        raise error
    assert names(tmp_path) == []


def test_a_really_full_disk_is_a_sentence(tmp_path):
    """/dev/full fails every write as a full disk does."""
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    with (
        pytest.raises(FmriModelsError, match="disk is full"),
        atomic_folder(tmp_path / "out"),
        open("/dev/full", "w") as full,
    ):
        full.write("x")
    assert names(tmp_path) == []


@pytest.mark.parametrize(("found", "message"), [(None, "None"), ("1", "'1'"), (0, "0"), (True, "True"), (3, "newer")])
def test_schema_versions(found, message):
    check_schema(1, 2, "it")
    with pytest.raises(FmriModelsError, match=message):
        check_schema(found, 2, "it")


def _umask() -> int:
    value = os.umask(0)
    os.umask(value)
    return value


def test_a_folder_that_files_are_brought_into_is_checked_before_the_work(tmp_path):
    check_merged_folder(tmp_path / "new" / "folder")
    (tmp_path / "notes.txt").write_text("kept")
    with pytest.raises(FmriModelsError, match="not empty.*--overwrite"):
        check_merged_folder(tmp_path)
    check_merged_folder(tmp_path, overwrite=True)
    with pytest.raises(FmriModelsError, match="is a file"):
        check_merged_folder(tmp_path / "notes.txt", overwrite=True)
    assert names(tmp_path) == ["notes.txt"]


def test_a_file_in_the_place_of_a_folder_that_is_brought_in_is_refused_before_the_swap(tmp_path):
    (tmp_path / "images").write_text("kept")
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(FmriModelsError, match="images is a file"), merged_folder(tmp_path) as partial:
        (partial / "a.txt").write_text("new")
        (partial / "images" / "brain").mkdir(parents=True)
        (partial / "images" / "brain" / "a.png").write_text("new")
    assert names(tmp_path) == ["a.txt", "images"]
    assert (tmp_path / "a.txt").read_text() == "old"
