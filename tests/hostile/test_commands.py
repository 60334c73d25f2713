"""Full disks, read-only folders, signals and files that are none, at every command."""

import os
import random
import shutil
import signal
import time

import pytest

from tests.hostile.commands import (
    COMMANDS,
    IN_PLACE,
    WRITING,
    Running,
    check_one_sentence,
    contents,
    make_inputs,
    mounted,
    run,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Inputs, and how each command ends when nothing is wrong; everything is imported then."""
    folder = tmp_path_factory.mktemp("hostile")
    inputs = make_inputs(folder)
    return inputs


@pytest.fixture
def inputs(made, tmp_path):
    """A copy that a command may change."""
    return shutil.copytree(made, tmp_path / "inputs")


@pytest.fixture
def place(tmp_path):
    """For the cache and what is printed; not looked at."""
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


def check_runs(command, inputs, out, place):
    """The command does its work, and leaves nothing partial."""
    ended = run(COMMANDS[command](inputs, out), place)
    assert ended.code == 0, ended.error[-3000:]
    folder = out.parent
    assert not [path for path in folder.rglob(".*") if path.name.startswith((".partial", ".swap", ".replaced"))]


# Those that write do their work before the disk is full.
@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in WRITING])
def test_every_command_runs(command, inputs, place, tmp_path):
    check_runs(command, inputs, tmp_path / "out", place)


@pytest.mark.parametrize("command", WRITING)
def test_a_read_only_folder_is_named_before_the_work(command, inputs, place, tmp_path):
    target = inputs / IN_PLACE[command] if command in IN_PLACE else tmp_path / "read_only"
    target.mkdir(exist_ok=True)
    before = contents(inputs)
    with mounted(target, "ro", source=str(target)):
        out = target / "out"
        ended = run(COMMANDS[command](inputs, out), place)
        check_one_sentence(ended, "read-only")
        assert contents(inputs) == before
    assert "%|" not in ended.error, "work was done before it was said"


@pytest.mark.slow
@pytest.mark.parametrize("command", WRITING)
def test_a_full_disk_leaves_what_was_there(command, inputs, place, tmp_path):
    """From no room at all to almost enough."""
    whole = tmp_path / "whole"
    shutil.copytree(inputs, tmp_path / "untouched")
    check_runs(command, tmp_path / "untouched", whole, place)
    written = tmp_path / "untouched" / IN_PLACE[command] if command in IN_PLACE else whole
    needed = sum(path.stat().st_blocks * 512 for path in written.rglob("*"))
    with mounted(tmp_path / "disk", "size=8m") as disk:
        target = disk / "target"
        if command in IN_PLACE:
            shutil.copytree(inputs / IN_PLACE[command], target)
            shutil.rmtree(inputs / IN_PLACE[command])
            (inputs / IN_PLACE[command]).symlink_to(target)
        before = contents(disk)
        failed = 0
        for room in (0, 4096, needed // 2):
            filler = tmp_path / "disk" / "filler"
            free = shutil.disk_usage(disk).free
            filler.write_bytes(b"\0" * max(0, free - room))
            ended = run(COMMANDS[command](inputs, target), place)
            filler.unlink()
            if ended.code == 0 and room:
                break
            failed += 1
            check_one_sentence(ended, "disk is full", "There is no room")
            assert contents(disk) == before
        assert failed


@pytest.mark.parametrize("command", WRITING)
def test_a_limit_on_the_size_of_files_is_a_sentence(command, inputs, place, tmp_path):
    before = contents(inputs)
    ended = run(COMMANDS[command](inputs, tmp_path / "out"), place, file_limit=100)
    check_one_sentence(ended, "larger than the file system or a limit")
    assert contents(inputs) == before and not (tmp_path / "out").exists()
    assert {path.name for path in tmp_path.iterdir()} <= {"inputs", "place"}


_OTHER_KINDS = ("device", "dangling", "folder")


def no_file(kind, path):
    """Puts something into a file's place that is none."""
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "dangling":
        path.symlink_to("nowhere")
    elif kind == "folder":
        path.mkdir()


def input_files(command):
    """One input file of each kind that a command reads."""
    table = [
        "data/table.json", "data/trials/subj02/*", "data/stimuli/*", "data/splits/default.parquet",
    ]  # fmt: skip
    model = [
        "model/model_index.json", "model/brain_model/config.json", "model/brain_model/model.safetensors",
        "model/processor/preprocessor_config.json", "model/processor/*.st", "model/image_generator/model_index.json",
        "model/training.json",
    ]  # fmt: skip
    return {
        "prepare": ["arrays/betas.npy", "arrays/events.csv", "arrays/voxels.csv", "arrays/stimuli/index.csv",
                    "arrays/stimuli/p0.png"],
        "split": table,
        "train": table,
        "fit-processor": [*model[:2], *model[3:5], *table],
        "reconstruct": [*model[:-1], *table],
        "evaluate": [*model, *table],
        "images": ["pictures/recon/0.png", "pictures/truth/0.png"],
        "convert": ["published/last.pth"],
        "card": [model[0], model[-1]],
        "retrieve": ["patterns.npy", "gallery/model/model_index.json", "gallery/pictures/0.png"],
        "compare": ["report/first/report.json", "report/second/report.json", "report/second/items.parquet"],
        "validate": [*table, "data/voxels/*", "data/noise_free/*"],
        "info": table[:1],
        "save-subject": model[:5],
        "load-subject": ["subject/subject.json", "subject/subject.safetensors", "subject/processor/*.st",
                         "subject/processor/preprocessor_config.json", *model[:2]],
        "list-subject": ["subject/subject.json"],
    }.get(command, [])  # fmt: skip


@pytest.mark.parametrize("kind", ["fifo", *(pytest.param(k, marks=pytest.mark.slow) for k in _OTHER_KINDS)])
@pytest.mark.parametrize("command", [name for name in COMMANDS if input_files(name)])
def test_what_is_no_file_is_never_waited_for(command, kind, inputs, place, tmp_path):
    for pattern in input_files(command):
        file = sorted(inputs.glob(pattern))[0]
        kept = file.read_bytes()
        no_file(kind, file)
        started = time.monotonic()
        ended = run(COMMANDS[command](inputs, tmp_path / "out"), place)
        assert time.monotonic() - started < 20, pattern
        # A picture that no file is, is not in the folder; an item file that is none, is not there.
        if ended.code != 0 or "unexpected" in ended.error:
            check_one_sentence(ended)
            assert not (tmp_path / "out").exists(), pattern
        else:
            assert "items.parquet" in pattern or ".png" in pattern or "training.json" in pattern, pattern
            shutil.rmtree(tmp_path / "out", ignore_errors=True)
        shutil.rmtree(file) if file.is_dir() and not file.is_symlink() else file.unlink()
        file.write_bytes(kept)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
@pytest.mark.parametrize("command", WRITING)
def test_a_signal_at_any_time_leaves_nothing_partial(command, number, made, place, tmp_path):
    """An old output stays as it was or is replaced as a whole; what a kill leaves, the next run removes."""
    rng = random.Random(f"{command}-{number}")
    inputs, out = tmp_path / "inputs", tmp_path / "out"
    # A subject's folder is replaced as it is saved.
    again = ["--overwrite"] if command not in IN_PLACE and command != "save-subject" else []
    shutil.copytree(made, inputs)
    first = run(COMMANDS[command](inputs, out), place)
    assert first.code == 0, first.error[-3000:]
    for _ in range(6):
        (inputs / "data" / "splits" / "other.parquet").unlink(missing_ok=True)
        running = Running([*COMMANDS[command](inputs, out), *again], place)
        time.sleep(rng.uniform(0, 1.2 * first.seconds))
        os.kill(running.pid, number)
        ended = running.wait()
        # Before the command has begun and after it has ended, the process ends as any does.
        allowed = (0, -number, 128 + number)
        assert ended.code in allowed, f"{ended.code}: {ended.error[-3000:]}"
        assert "Traceback" not in ended.error
        if number != signal.SIGKILL:
            assert leftovers(tmp_path) == []
        else:
            assert out.is_dir() or command in IN_PLACE or leftovers(tmp_path)
    (inputs / "data" / "splits" / "other.parquet").unlink(missing_ok=True)
    last = run([*COMMANDS[command](inputs, out), *again], place)
    assert last.code == 0, last.error[-3000:]
    assert leftovers(tmp_path) == []


def leftovers(folder):
    names = (".partial-", ".swap-", ".replaced-", ".out.")
    return [path for path in folder.rglob(".*") if path.name.startswith(names) and "place" not in path.parts]
