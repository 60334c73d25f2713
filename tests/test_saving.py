"""Writing completely or not at all."""

import errno
import fcntl
import gc
import inspect
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
import types
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from fmri_models import swapping
from fmri_models.errors import FmriModelsError
from fmri_models.output_folders import PIPELINE, RECONSTRUCTIONS, TRIAL_TABLE, check_merged_folder, check_output_folder
from fmri_models.saving import (
    atomic_file,
    atomic_folder,
    check_schema,
    merged_folder,
    remove_folder,
    weights_no_longer_needed,
    write_text,
)
from fmri_models.swapping import is_partial, recover
from tests.traced_lines import happening_at_line


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


@pytest.mark.parametrize("writer", [atomic_folder, merged_folder])
def test_weights_are_open_to_whom_the_files_beside_them_are(tmp_path, writer):
    for _ in ("new", "replaced"):
        options = {"overwrite": True} if writer is atomic_folder else {}
        with writer(tmp_path / "out", **options) as partial:
            for name in ("inner/model.safetensors", "config.json", "inner/secret.txt"):
                (partial / name).parent.mkdir(exist_ok=True)
                (partial / name).write_text("")
            for name in ("inner/model.safetensors", "inner/secret.txt"):
                (partial / name).chmod(0o600)
        modes = {file.name: file.stat().st_mode & 0o777 for file in (tmp_path / "out").rglob("*.*")}
        assert modes["model.safetensors"] == modes["config.json"] == 0o666 & ~_umask()
        assert modes["secret.txt"] == 0o600


def test_a_file_system_without_room_for_more_files_is_said_to_be_one(tmp_path, monkeypatch):
    found = os.statvfs(tmp_path)
    for files, left, message in ((1000, 0, "no room for more files"), (0, 0, "MiB are free"), (9, 1, "MiB are free")):
        changed = types.SimpleNamespace(
            f_files=files, f_favail=left, f_frsize=found.f_frsize, f_blocks=9, f_bfree=9, f_bavail=9
        )
        monkeypatch.setattr(os, "statvfs", lambda _, changed=changed: changed)
        with pytest.raises(FmriModelsError, match=message), atomic_folder(tmp_path / "out"):
            raise OSError(errno.ENOSPC, "No space left on device")


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


def read(folder):
    """Every file of a folder, by its name."""
    return {
        path.relative_to(folder).as_posix(): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def killed_at_each_step(folder, action):
    """Yields after a process was killed before its first, second ... change of the file system, until one is done.

    Args:
        folder: What is put back before each try, as it is now.
        action: What the process does.
    """
    before = folder.with_name("before")
    shutil.copytree(folder, before, symlinks=True)
    for step in range(1000):
        shutil.rmtree(folder)
        shutil.copytree(before, folder, symlinks=True)
        child = os.fork()
        if child == 0:
            _die_before_change(step)
            try:
                action()
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        yield step
        if status == 0:
            assert step > 3
            return
    raise AssertionError("it never ends")


def _die_before_change(step):
    changes = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "shutil.rmtree", "fcntl.flock")
    left = [step]

    def hook(event, arguments):
        if event in changes or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1

    sys.addaudithook(hook)


def write_files(folder, text, *file_names):
    for name in file_names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def test_a_kill_of_a_replacement_leaves_the_old_or_the_new_folder(tmp_path):
    place = tmp_path / "place"
    write_files(place / "out", "old", "a", "sub/b")

    def action():
        with atomic_folder(place / "out", overwrite=True) as partial:
            write_files(partial, "new", "a", "sub/c")

    old, new = {"a": "old", "sub/b": "old"}, {"a": "new", "sub/c": "new"}
    for _ in killed_at_each_step(place, action):
        recover(place / "out")
        assert read(place / "out") in (old, new)
        assert names(place) == ["out"]
    assert read(place / "out") == new


@pytest.mark.slow
def test_a_kill_of_a_save_leaves_the_old_files_or_is_completed(tmp_path):
    place = tmp_path / "place"
    write_files(place / "out", "old", "model.safetensors", "model-00001-of-00002.safetensors", "sub/config.json")
    write_files(place / "out", "mine", "README.md", ".git/HEAD", "sub/notes.txt")

    def action():
        with merged_folder(place / "out", weights_no_longer_needed) as partial:
            write_files(partial, "new", "model.safetensors", "sub/config.json", "new/file")

    mine = {"README.md": "mine", ".git/HEAD": "mine", "sub/notes.txt": "mine"}
    own = ("model.safetensors", "model-00001-of-00002.safetensors", "sub/config.json")
    old = mine | dict.fromkeys(own, "old")
    new = mine | dict.fromkeys(("model.safetensors", "sub/config.json", "new/file"), "new")
    for _ in killed_at_each_step(place, action):
        recover(place / "out")
        assert read(place / "out") in (old, new)
        assert names(place) == ["out"]
    assert read(place / "out") == new
    assert not [name for name in names(place / "out") if is_partial(name)]


def test_a_kill_of_a_recovery_is_recovered(tmp_path):
    place = tmp_path / "place"
    write_files(place / "out", "old", "a", "b.json")
    write_files(place / "out" / ".swap-fmri_models", "new", "a", "c/d")
    journal = {"files": ["a", "c/d"], "removed": ["b.json"]}
    (place / "out" / ".swap-fmri_models" / "swap.json").write_text(json.dumps(journal))
    write_files(place / ".partial-fmri_models-out-abcdefgh", "half", "x")
    for _ in killed_at_each_step(place, lambda: recover(place / "out")):
        recover(place / "out")
        assert read(place / "out") == {"a": "new", "c/d": "new"}
        assert names(place) == ["out"]


def test_a_kill_of_a_file_leaves_the_old_or_the_new_one(tmp_path):
    place = tmp_path / "place"
    write_files(place, "old", "a.txt")
    for _ in killed_at_each_step(place, lambda: write_text(place / "a.txt", "new")):
        assert (place / "a.txt").read_text() in ("old", "new")
        write_text(place / "a.txt", "later")
        assert read(place) == {"a.txt": "later"}


def test_an_interrupt_between_the_two_renames_puts_the_old_folder_back(tmp_path, monkeypatch):
    write_files(tmp_path / "out", "old", "a")
    rename = Path.rename

    def interrupted(self, target):
        done = rename(self, target)
        if ".replaced-" in str(target):
            raise KeyboardInterrupt
        return done

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), atomic_folder(tmp_path / "out", overwrite=True) as partial:
        write_files(partial, "new", "a")
    assert read(tmp_path) == {"out/a": "old"}


def test_a_replacement_that_fails_keeps_the_old_folder_even_where_it_can_not_be_put_back(tmp_path, monkeypatch):
    write_files(tmp_path / "out", "old", "a")
    rename = os.rename

    def refused(source, target):
        if Path(target).name == "out" and ".replaced-" not in str(target):
            raise OSError(5, "Input/output error")
        return rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", refused)
        patch.setattr(os, "replace", refused)
        with pytest.raises(FmriModelsError), atomic_folder(tmp_path / "out", overwrite=True) as partial:
            write_files(partial, "new", "a")
    recover(tmp_path / "out")
    assert read(tmp_path) == {"out/a": "old"}


def test_a_save_refuses_what_is_in_a_files_or_a_folders_place(tmp_path):
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "sub").write_text("a file")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("folder.json", "sub/a", "link/a"):
        with pytest.raises(FmriModelsError, match="move it away"), merged_folder(tmp_path) as partial:
            write_files(partial, "new", "fine", name)
    assert not list((tmp_path / "elsewhere").iterdir())
    assert names(tmp_path) == ["elsewhere", "folder.json", "link", "sub"]


@pytest.mark.parametrize(
    "name", ["../victim", "/victim", "a/../../victim", "", ".", "victim\0", "link/victim", 3, None]
)
def test_a_journal_does_not_lead_out_of_its_folder(tmp_path, name):
    (tmp_path / "victim").write_text("precious")
    folder = tmp_path / "downloaded"
    write_files(folder / ".swap-fmri_models", "evil", "victim")
    (folder / "link").symlink_to(tmp_path)
    given = str(tmp_path / "victim") if name == "/victim" else name
    for key in ("files", "removed"):
        journal = {"files": [], "removed": []} | {key: [given]}
        (folder / ".swap-fmri_models" / "swap.json").write_text(json.dumps(journal))
        with pytest.raises(FmriModelsError):
            recover(folder)
    assert (tmp_path / "victim").read_text() == "precious"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": 3, "removed": []}', "\xff", "[" * 100_000])
def test_a_damaged_journal_is_a_sentence(tmp_path, text):
    write_files(tmp_path / ".swap-fmri_models", text, "swap.json")
    with pytest.raises(FmriModelsError, match="damaged"):
        recover(tmp_path)


def test_links_and_pipes_with_names_of_unfinished_folders_are_left_alone(tmp_path):
    """In a folder that comes from elsewhere; nothing hangs, and nothing behind a link is touched."""
    write_files(tmp_path / "elsewhere", "precious", "a", "swap.json")
    out = tmp_path / "out"
    write_files(out, "old", "file")
    for prefix in (".swap-fmri_models", ".partial-fmri_models-"):
        (out / f"{prefix}aaaaaaaa").symlink_to(tmp_path / "elsewhere")
        os.mkfifo(out / f"{prefix}bbbbbbbb")
        (out / f"{prefix}cccccccc").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / ".partial-fmri_models-out-aaaaaaaa")
    os.mkfifo(tmp_path / ".replaced-fmri_models-out-aaaaaaaa")
    recover(out)
    with merged_folder(out) as partial:
        write_files(partial, "new", "file")
    assert (out / "file").read_text() == "new"
    assert read(tmp_path / "elsewhere") == {"a": "precious", "swap.json": "precious"}


def test_what_another_process_is_writing_is_left_alone(tmp_path):
    write_files(tmp_path / "out", "old", "a")
    ready, go = os.pipe()
    child = os.fork()
    if child == 0:
        with atomic_folder(tmp_path / "out", overwrite=True) as partial, merged_folder(tmp_path / "out") as inside:
            write_files(partial, "child", "a")
            write_files(inside, "half", "a")
            os.write(go, b"x")
            time.sleep(60)
        os._exit(0)
    os.read(ready, 1)
    try:
        recover(tmp_path / "out")
        assert len([name for name in names(tmp_path) if is_partial(name)]) == 1
        assert len([name for name in names(tmp_path / "out") if is_partial(name)]) == 1
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    recover(tmp_path / "out")
    assert read(tmp_path) == {"out/a": "old"}


def test_many_processes_save_into_one_folder(tmp_path):
    """Whatever the order, no process fails, and what is there in the end is one process's as a whole."""
    children = []
    for number in range(6):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                for _ in range(15):
                    with merged_folder(tmp_path / "merged") as partial:
                        write_files(partial, str(number) * 1000, "a", "sub/b")
                    with atomic_folder(tmp_path / "replaced", overwrite=True) as partial:
                        write_files(partial, str(number) * 1000, "a", "sub/b")
                    write_text(tmp_path / "file.txt", str(number) * 1000)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * len(children)
    recover(tmp_path / "merged")
    recover(tmp_path / "replaced")
    found = read(tmp_path)
    assert set(found) == {"file.txt", "merged/a", "merged/sub/b", "replaced/a", "replaced/sub/b"}
    assert all(len(text) == 1000 and len(set(text)) == 1 for text in found.values())
    assert found["merged/a"] == found["merged/sub/b"] and found["replaced/a"] == found["replaced/sub/b"]


def test_the_second_of_two_that_may_not_replace_is_refused(tmp_path):
    with pytest.raises(FmriModelsError, match="meanwhile"), atomic_folder(tmp_path / "out") as partial:
        write_files(partial, "second", "a")
        write_files(tmp_path / "out", "first", "a")
    assert read(tmp_path) == {"out/a": "first"}


def test_a_folder_that_appears_while_a_new_one_is_saved_keeps_its_files(tmp_path):
    with merged_folder(tmp_path / "out") as partial:
        write_files(partial, "new", "a")
        write_files(tmp_path / "out", "mine", "a", "notes")
    assert read(tmp_path) == {"out/a": "new", "out/notes": "mine"}


def test_a_swap_that_another_process_is_in_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr("fmri_models.swapping._WAIT_FOR_SWAP_S", 0.2)
    write_files(tmp_path / ".swap-fmri_models", "{}", "swap.json")
    handle = os.open(tmp_path / ".swap-fmri_models", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(FmriModelsError, match="try again when it is done"):
        recover(tmp_path)
    os.close(handle)


def test_a_symlinked_folder_is_written_where_it_leads(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "dangling").symlink_to("later")
    for name in ("link", "dangling"):
        with merged_folder(tmp_path / name) as partial:
            write_files(partial, "1", "a")
        assert (tmp_path / name).is_symlink() and read(tmp_path / name) == {"a": "1"}
        with atomic_folder(tmp_path / name, overwrite=True) as partial:
            write_files(partial, "2", "b")
        assert (tmp_path / name).is_symlink() and read(tmp_path / name) == {"b": "2"}
    assert names(tmp_path) == ["dangling", "later", "link", "real"]


def test_a_link_in_a_circle_is_a_sentence(tmp_path):
    (tmp_path / "link").symlink_to("link")
    for writing in (atomic_folder, merged_folder):
        with pytest.raises(FmriModelsError), writing(tmp_path / "link"):
            pass


def test_the_current_folder_stays_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path, "mine", "notes")
    with merged_folder(".") as partial:
        write_files(partial, "1", "a")
    assert os.path.samefile(os.getcwd(), tmp_path) and read(Path(".")) == {"a": "1", "notes": "mine"}
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    with pytest.raises(FmriModelsError, match="not empty"), atomic_folder(".."):
        pass


@pytest.mark.parametrize("name", ["n" * 255, "ü" * 127, "n" * 240 + ".json"])
def test_the_longest_names_can_be_written(tmp_path, name):
    for text in ("1", "2"):
        with atomic_folder(tmp_path / "folder" / name, overwrite=True) as partial:
            write_files(partial, text, "a")
        write_text(tmp_path / "file" / name, text)
    assert read(tmp_path) == {f"folder/{name}/a": "2", f"file/{name}": "2"}


@pytest.mark.parametrize(
    "writing", [atomic_folder, merged_folder, atomic_file, check_output_folder, check_merged_folder]
)
def test_impossible_places_are_sentences_before_anything_is_written(tmp_path, writing):
    (tmp_path / "file").write_text("1")
    for place in (tmp_path / "file" / "below", tmp_path / "file" / "far" / "below", tmp_path / ("x" * 256)):
        with pytest.raises(FmriModelsError):
            written = writing(place)
            if written is not None:
                with written:
                    raise AssertionError("it should have been refused before")
    assert names(tmp_path) == ["file"]


def test_a_place_that_can_not_be_written_is_named_first(tmp_path):
    with mounted(tmp_path / "mount", "ro") as mount:
        for check in (check_output_folder, check_merged_folder):
            with pytest.raises(FmriModelsError, match="read-only"):
                check(mount / "out")


def test_a_place_where_something_is_mounted_is_not_replaced(tmp_path):
    with mounted(tmp_path / "mount") as mount:
        with pytest.raises(FmriModelsError, match="mounted"):
            check_output_folder(mount)
        with merged_folder(mount) as partial:
            write_files(partial, "1", "a")
        assert read(mount) == {"a": "1"}


def test_a_disk_that_fills_up_leaves_the_old_files(tmp_path):
    with mounted(tmp_path / "mount", "size=256k") as mount:
        write_files(mount / "out", "old", "a")
        for writing in (lambda: atomic_folder(mount / "out", overwrite=True), lambda: merged_folder(mount / "out")):
            with pytest.raises(FmriModelsError, match="disk is full"), writing() as partial:
                (partial / "a").write_bytes(b"x" * 2**20)
            assert read(mount) == {"out/a": "old"} and names(mount) == ["out"]


@contextmanager
def mounted(folder, options="size=1m"):
    """A small file system of its own, where tests may mount one."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if os.geteuid() != 0 or shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize(
    ("out", "given", "relation"),
    [
        ("pictures", "pictures", "is"),
        ("pictures", "pictures/sub/file.png", "contains"),
        ("pictures/sub/out", "pictures", "lies in"),
        ("link", "pictures", "is"),
        ("pictures", "link/sub", "contains"),
        ("link/sub/new", "pictures", "lies in"),
        ("pictures/sub/../../pictures", "./pictures", "is"),
        ("pictures", "filelink", "contains"),
        ("new", "new", "is"),
        (".", "pictures", "contains"),
    ],
)
def test_an_output_apart_from_the_inputs(tmp_path, monkeypatch, out, given, relation):
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path, "1", "pictures/sub/file.png", "other/a")
    (tmp_path / "link").symlink_to("pictures")
    (tmp_path / "filelink").symlink_to("pictures/sub/file.png")
    with pytest.raises(FmriModelsError, match=f" {relation} .*choose a folder apart"):
        check_output_folder(out, overwrite=True, inputs=["other", given])
    check_output_folder(tmp_path / "pictures2", inputs=["other", given])
    assert (tmp_path / "pictures/sub/file.png").exists()


def test_only_folders_of_the_kind_are_replaced(tmp_path):
    out = tmp_path / "out"
    write_files(out, "trial,stimulus,seed,scores\n", "trials.csv")
    write_files(out, "1", "a.png", "embeddings.npy", ".DS_Store")
    check_output_folder(out, overwrite=True, folder_format=RECONSTRUCTIONS)
    write_files(out, "1", "notes.txt")
    with pytest.raises(FmriModelsError, match=r"holds notes\.txt, which would be lost"):
        check_output_folder(out, overwrite=True, folder_format=RECONSTRUCTIONS)
    (out / "notes.txt").unlink()
    write_files(out, "my,own,table\n", "trials.csv")
    with pytest.raises(FmriModelsError, match="no folder of reconstructions"):
        check_output_folder(out, overwrite=True, folder_format=RECONSTRUCTIONS)
    with pytest.raises(FmriModelsError, match="no trial table"):
        check_output_folder(out, overwrite=True, folder_format=TRIAL_TABLE)
    (out / "table.json").symlink_to("nowhere")
    with pytest.raises(FmriModelsError, match="no trial table"):
        check_output_folder(out, overwrite=True, folder_format=TRIAL_TABLE)


def test_a_file_system_without_locks_is_written_all_the_same(tmp_path, monkeypatch):
    def refuse(handle, operation):
        raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr("fmri_models.swapping.fcntl.flock", refuse)
    with atomic_folder(tmp_path / "out") as partial:
        write_files(partial, "1", "a")
    with merged_folder(tmp_path / "out") as partial:
        write_files(partial, "2", "b")
    write_text(tmp_path / "out" / "c", "3")
    assert read(tmp_path) == {"out/a": "1", "out/b": "2", "out/c": "3"}
    write_files(tmp_path, "1", ".partial-fmri_models-out-abcdefgh/a")
    recover(tmp_path / "out")
    assert (tmp_path / ".partial-fmri_models-out-abcdefgh").exists()


@pytest.mark.parametrize("code", [27, 30, 36])
def test_refusals_that_libraries_wrap_are_sentences(tmp_path, code):
    with pytest.raises(FmriModelsError, match=r"out can't be read or written"), atomic_folder(tmp_path / "out"):
        raise RuntimeError(f"Error while serializing: I/O error: {os.strerror(code)} (os error {code})")


def test_removing_a_folder_is_recovered(tmp_path):
    place = tmp_path / "place"
    write_files(place / "out", "old", "a", "sub/b")
    for _ in killed_at_each_step(place, lambda: remove_folder(place / "out")):
        recover(place / "out")
        assert read(place) in ({}, {"out/a": "old", "out/sub/b": "old"})
    assert names(place) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("kind", ["replaced", "merged"])
def test_a_signal_inside_of_a_swap_comes_after_it(tmp_path, monkeypatch, number, kind):
    write_files(tmp_path / "out", "old", "a", "b")
    replace = Path.replace

    def signalled(self, target):
        os.kill(os.getpid(), number)
        return replace(self, target)

    def ended(number, frame):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", signalled)
    before = signal.signal(number, ended)
    try:
        with pytest.raises(KeyboardInterrupt):
            writing = merged_folder(tmp_path / "out") if kind == "merged" else atomic_folder(tmp_path / "out", True)
            with writing as partial:
                write_files(partial, "new", "a", "b")
        assert signal.getsignal(number) is ended
    finally:
        signal.signal(number, before)
    assert read(tmp_path) == {"out/a": "new", "out/b": "new"} and names(tmp_path) == ["out"]


def test_a_folder_of_a_swap_takes_nothing_through_a_link(tmp_path):
    write_files(tmp_path / "victim", "precious", "id_rsa")
    swap = tmp_path / "downloaded" / ".swap-fmri_models"
    write_files(swap, json.dumps({"files": ["sub/id_rsa"], "removed": []}), "swap.json")
    (swap / "sub").symlink_to(tmp_path / "victim")
    with pytest.raises(FmriModelsError, match="symbolic link"):
        recover(tmp_path / "downloaded")
    assert read(tmp_path / "victim") == {"id_rsa": "precious"}


def test_names_that_others_give_are_theirs(tmp_path):
    theirs = (
        "out/.swap-backup/thesis.txt", "out/.swap-files/thesis.txt", "out/.partial-download/thesis.txt",
        "out/.partial-notes_01", ".partial-out-20260101/a", ".replaced-out-20260101/a",
    )  # fmt: skip
    write_files(tmp_path, "mine", *theirs)
    recover(tmp_path / "out")
    with merged_folder(tmp_path / "out") as partial:
        write_files(partial, "new", "file")
    assert set(theirs) < set(read(tmp_path))


@pytest.mark.parametrize(
    "name", [".git/HEAD", ".eval_results/mine.yaml", "notes.txt", "brain_model/notes.md", "thesis.tex", "holiday.png"]
)
def test_a_journal_removes_nothing_that_no_save_has_written(tmp_path, name):
    write_files(tmp_path, "mine", name)
    swap = tmp_path / ".swap-fmri_models"
    write_files(swap, json.dumps({"files": [], "removed": [name]}), "swap.json")
    with pytest.raises(FmriModelsError, match="no save"):
        recover(tmp_path)
    assert (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize(
    "name",
    [
        "brain_model/notes.md", "processor/.git/HEAD", "image_generator/unet/mine.py", "images/holiday.png",
        "notes.txt", "brain_model/deep/model.safetensors", "README.md",
    ],
)  # fmt: skip
def test_a_persons_files_in_a_pipeline_are_not_replaced_with_it(tmp_path, name):
    write_files(tmp_path / "out", "ours: fmri_models", "model_index.json", "brain_model/config.json", "README.md")
    check_output_folder(tmp_path / "out", True, PIPELINE)
    write_files(tmp_path / "out", "mine", name)
    with pytest.raises(FmriModelsError, match="would be lost"):
        check_output_folder(tmp_path / "out", True, PIPELINE)


def interrupted_at_line(line, action):
    """Whether an action got a SIGINT: at that line, as it is executed, of what writes folders and files."""
    traced = {
        inspect.unwrap(each).__code__
        for each in (
            swapping.new_locked_folder, swapping.new_locked_file, swapping._locked, swapping.signals_later,
            swapping._remove_for_good, swapping.replace_folder, swapping.take_place, swapping._exchange,
            atomic_folder, atomic_file,
        )
    }  # fmt: skip
    with (
        suppress(KeyboardInterrupt),
        happening_at_line(line, traced, lambda: signal.raise_signal(signal.SIGINT)) as countdown,
    ):
        action()
    return countdown.has_come


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_an_interrupt_at_any_line_leaves_the_old_or_the_new_and_nothing_beside_it(kind, tmp_path):
    def write():
        if kind == "folder":
            with atomic_folder(tmp_path / "out", overwrite=True) as partial:
                (partial / "text").write_text("new")
        else:
            with atomic_file(tmp_path / "out") as partial:
                partial.write_text("new")

    for line in itertools.count(1):
        if kind == "folder":
            (tmp_path / "out").mkdir(exist_ok=True)
            (tmp_path / "out" / "text").write_text("old")
        else:
            (tmp_path / "out").write_text("old")
        if not interrupted_at_line(line, write):
            break
        gc.collect()
        assert names(tmp_path) == ["out"], line
        text = (tmp_path / "out" / "text" if kind == "folder" else tmp_path / "out").read_text()
        assert text in ("old", "new"), line
    assert line > 10


def test_a_thread_that_still_writes_leaves_nothing_behind(tmp_path):
    started = threading.Event()

    def keep_writing(folder):
        with suppress(OSError):
            for number in range(20_000):
                (folder / f"{number}").write_text("")
                started.set()

    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "out") as partial:
        thread = threading.Thread(target=keep_writing, args=(partial,))
        thread.start()
        started.wait()
        raise RuntimeError("while it is written")
    thread.join()
    assert names(tmp_path) == []
