"""Bars: names, lines in files, and whoever has turned them off."""

import errno
import io
import os
import pty
import subprocess
import sys
import threading
import time

import pytest

from fmri_models import progress
from tests.new_process import python


@pytest.fixture
def shown(monkeypatch):
    """Bars as in a fresh process, whatever other tests have told the libraries."""
    monkeypatch.setattr(progress, "_switch", lambda module: None)
    for name in (*progress._SWITCHES, "RANK"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def hurried(monkeypatch):
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.2)


def test_a_file_gets_a_line_at_the_start_now_and_then_and_at_the_end(shown, hurried):
    file = io.StringIO()
    with progress.bar(name="Drawing ridge", total=400, unit="picture", file=file) as bar:
        for _ in range(400):
            bar.update()
            time.sleep(0.002)
    first, *between, last = file.getvalue().splitlines()
    assert first == "Drawing ridge: 0/400 pictures"
    assert 1 <= len(between) <= 8 and all(line.endswith(" left") for line in between)
    assert last.startswith("Drawing ridge: 400/400 pictures in ")
    assert "\r" not in file.getvalue() and "\x1b" not in file.getvalue()


def test_a_thousand_quick_steps_are_two_lines(shown, capsys):
    assert list(progress.bar(range(1000), "Training", unit="step")) == list(range(1000))
    assert [line.split(" in ")[0] for line in capsys.readouterr().err.splitlines()] == [
        "Training: 0/1000 steps",
        "Training: 1000/1000 steps",
    ]


def test_values_and_an_early_end_are_said(shown, capsys):
    with progress.bar(name="Training", total=5, initial=2) as bar:
        bar.update()
        bar.set_postfix(loss="0.5", refresh=False)
    assert capsys.readouterr().err.splitlines()[-1] == "Training: stopped at 3/5 steps in 0 s (loss=0.5)"


def test_short_work_with_a_delay_says_nothing(shown, capsys):
    for _ in progress.bar(range(10), "Comparing", delay=1):
        pass
    with progress.phase("Loading"):
        pass
    assert capsys.readouterr().err == ""


def test_a_phase_that_takes_longer_is_said_while_it_lasts(shown, capsys):
    with progress.phase("Loading", delay=0.01):
        time.sleep(0.2)
        assert capsys.readouterr().err == "Loading …\n"
    assert capsys.readouterr().err == ""


def test_bars_inside_of_others_speak_in_files_only_if_they_take_long(shown, hurried, capsys):
    for _ in progress.bar(range(3), "quick", leave=False):
        pass
    assert capsys.readouterr().err == ""
    for _ in progress.bar(range(6), "slow", leave=False):
        time.sleep(0.1)
    lines = capsys.readouterr().err.splitlines()
    assert (lines and lines[0].startswith("slow: 3/6 steps")) or lines[0].startswith("slow: 2/6 steps")


def test_batches_count_things(shown, capsys):
    assert list(progress.batches(5, 2, "Embedding")) == [range(0, 2), range(2, 4), range(4, 5)]
    assert "Embedding: 5/5 pictures in" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS", "TQDM_DISABLE"])
def test_environment_variables_turn_bars_off(name):
    program = "from fmri_models.progress import bar\nfor _ in bar(range(3), 'Training'): pass"
    finished = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, name: "1"}, capture_output=True, text=True, check=True
    )
    assert finished.stderr == ""


def test_further_processes_say_nothing(shown, monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    assert list(progress.bar(range(3), "Training")) == [0, 1, 2]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "call",
    [
        "from transformers.utils.logging import disable_progress_bar as off",
        "from diffusers.utils.logging import disable_progress_bar as off",
        "from datasets import disable_progress_bars as off",
        "from huggingface_hub.utils import disable_progress_bars as off",
    ],
)
def test_calls_of_libraries_turn_bars_off(call):
    program = f"{call}\noff()\nfrom fmri_models.progress import bar\nfor _ in bar(range(3), 'Training'): pass"
    finished = subprocess.run([*python(), "-c", program], capture_output=True, text=True, check=True)
    assert "Training" not in finished.stderr


def test_a_command_turns_the_bars_of_libraries_off_and_on_again():
    from huggingface_hub.utils import are_progress_bars_disabled

    before = are_progress_bars_disabled()
    with progress.in_place_of_libraries():
        assert are_progress_bars_disabled()
        assert progress.are_shown() is not before
    assert are_progress_bars_disabled() is before


def test_a_pipeline_names_its_bars_and_heeds_its_user(shown, capsys):
    class Pipeline:
        def progress_bar(self, total):
            return progress.of_pipeline(self, "Drawing pictures", None, total, "picture")

    pipeline = Pipeline()
    with progress.named(pipeline, "Drawing row 3 of 13, ridge"), pipeline.progress_bar(2) as bar:
        bar.update(2)
    assert "Drawing row 3 of 13, ridge: 2/2 pictures" in capsys.readouterr().err
    pipeline._progress_bar_config = {"disable": True}
    with progress.named(pipeline, "Drawing row 3 of 13, ridge"), pipeline.progress_bar(2) as bar:
        bar.update(2)
    assert capsys.readouterr().err == ""
    assert pipeline._progress_bar_config == {"disable": True}


def test_a_terminal_has_a_bar_with_a_name():
    """On a pseudo terminal, where frames replace each other."""
    main, other = pty.openpty()
    program = "from fmri_models.progress import bar\nfor _ in bar(range(3), 'Training', unit='step'): pass"
    environment = {name: value for name, value in os.environ.items() if name not in progress._SWITCHES}
    with subprocess.Popen([sys.executable, "-c", program], stderr=other, env=environment) as process:
        os.close(other)
        written = b""
        while True:
            try:
                part = os.read(main, 4096)
            except OSError:
                break
            if not part:
                break
            written += part
        assert process.wait() == 0
    os.close(main)
    # It has no width, as in containers, and is taken for one of 80 columns.
    assert b"\rTraining: 100%|" in written
    assert max(map(len, written.decode().replace("\n", "\r").split("\r"))) <= 80


@pytest.mark.parametrize("when", ["appears", "ends", "inside"])
def test_an_interrupt_leaves_no_line_without_an_end(when, monkeypatch):
    master, slave = pty.openpty()

    class Terminal(io.TextIOWrapper):
        """The signal comes once, right after a bar has drawn itself."""

        due = when == "appears"

        def write(self, text):
            super().write(text)
            self.flush()
            if self.due and "Drawing" in text:
                self.due = False
                raise KeyboardInterrupt
            return len(text)

    with Terminal(open(slave, "wb", buffering=0), encoding="utf-8") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setattr(progress, "_decided", True)
        with pytest.raises(KeyboardInterrupt), progress.bar(name="Drawing", total=50):
            inner = progress.bar(name="Inside", total=5, leave=False) if when == "inside" else None
            terminal.due = when == "ends"
            if inner is not None:
                raise KeyboardInterrupt
        progress.close_bars()
        print("interrupted", file=terminal, flush=True)
        shown = ""
        while "interrupted\r\n" not in shown:
            shown += os.read(master, 100_000).decode()
    os.close(master)
    before, found, after = shown.partition("interrupted\r\n")
    assert found and not after and "Drawing" in before and before.endswith(" \r")


def _enter(lock, entered):
    with lock:
        entered.set()


def test_what_can_not_be_written_keeps_nothing_locked(shown):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        progress.bar(range(3), "Drawing", file=Full())
    entered = threading.Event()
    threading.Thread(target=_enter, args=(progress.StandardBar.get_lock(), entered), daemon=True).start()
    assert entered.wait(10)
    with progress.phase("Comparing pictures", delay=0.0):
        pass
