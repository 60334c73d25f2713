"""How processes of commands end: errors as sentences, signals as exceptions."""

import argparse
import inspect
import itertools
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fmri_models.cli import main as cli
from fmri_models.cli import results
from fmri_models.errors import FmriModelsError
from fmri_models.process_end import Terminated, exit_code, sentence_of, shown, signals_as_exceptions
from tests.traced_lines import happening_at_line


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signals_raise_inside_the_block_and_nowhere_else(number, code):
    before = signal.getsignal(number)
    with pytest.raises(Terminated, match=f"ended by {signal.Signals(number).name}") as ended, signals_as_exceptions():
        signal.raise_signal(number)
    assert exit_code(ended.value) == code
    assert signal.getsignal(number) is before


def test_a_repeated_signal_does_not_disturb_the_cleaning_up():
    cleaned = False
    with pytest.raises(Terminated), signals_as_exceptions():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGTERM)
            cleaned = True
    assert cleaned


def test_what_the_caller_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals_as_exceptions():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_other_threads_leave_the_handlers_alone():
    found = []

    def look():
        with signals_as_exceptions():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGTERM)]


def test_a_forked_process_ends_without_cleaning_up():
    with signals_as_exceptions():
        child = os.fork()
        if child == 0:
            signal.raise_signal(signal.SIGTERM)
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 143


def raised(action):
    with pytest.raises(Exception) as caught:
        action()
    return caught.value


def nested():
    return nested()


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda: Path("x" * 5000).read_bytes(), "its name is too long for the file system"),
        (lambda: np.empty(10**15), "There is not enough memory (Unable to allocate"),
        (lambda: torch.empty(10**15), "There is not enough memory"),
        (nested, "nested deeper than can be read"),
    ],
)
def test_errors_of_the_system_are_sentences(action, message):
    sentence = sentence_of(raised(action))
    assert sentence is not None and message in sentence
    assert len(sentence) < 500


def test_messages_are_one_line_that_a_terminal_shows_as_it_is():
    assert sentence_of(FmriModelsError("a\n\x1b[31mred\x07")) == "a \\x1b[31mred\\x07"
    assert len(shown("x" * 1900)) == 1900
    assert len(shown("x" * 5000)) == 2000
    assert sentence_of(KeyError("nobody has foreseen this")) is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_a_library_takes_for_an_error_stays_one(number):
    with pytest.raises(KeyboardInterrupt) as caught, signals_as_exceptions():
        try:
            os.kill(os.getpid(), number)
            time.sleep(5)
        except BaseException as error:
            raise ValueError("a library's own") from error
    assert exit_code(caught.value) == 128 + number


def test_an_interrupt_that_a_library_raises_anew_is_that_of_its_signal():
    with pytest.raises(Terminated) as ended, signals_as_exceptions():
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            raise KeyboardInterrupt from None
    assert exit_code(ended.value) == 143


def test_an_interrupt_with_a_sentence_of_its_own_keeps_it():
    with pytest.raises(KeyboardInterrupt, match="go on with") as ended, signals_as_exceptions():
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt as interrupt:
            own: Any = KeyboardInterrupt("go on with")
            own.sentence = "go on with"
            raise own from interrupt
    assert ended.value.sentence == "go on with"  # type: ignore[attr-defined]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_in_which_a_library_takes_a_signal_for_an_error_ends_by_the_signal(number, monkeypatch, capsys):
    def run(parsed):
        try:
            os.kill(os.getpid(), number)
            time.sleep(5)
        except BaseException as error:
            raise FmriModelsError("The model can't be loaded.") from error

    monkeypatch.setattr(cli, "_parse", lambda arguments: argparse.Namespace(run=run))
    before = signal.getsignal(number)
    assert cli.main(["list"]) == 128 + number
    assert signal.getsignal(number) is before
    error = capsys.readouterr().err
    assert "what was complete has been kept" in error and "can't be loaded" not in error


# What surrounds a command.
traced = {
    each.__code__
    for each in (
        cli._main,
        cli._run,
        inspect.unwrap(signals_as_exceptions),
        inspect.unwrap(results.results_on_output),
        inspect.unwrap(results.all_else_on_errors),
    )
}


def ended_by_a_signal_at_line(number, line):
    """Exit code of a forked `fmri-models list` that gets a signal at a line of what surrounds commands, and if it did.

    The lines are counted as they are executed.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 99
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(writing, 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            signal.signal(signal.SIGINT, signal.default_int_handler)
            with happening_at_line(line, traced, lambda: os.kill(os.getpid(), number)) as countdown:
                code = cli.main(["list"])
            sys.stderr.flush()
            code = code if countdown.has_come else 98
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        error = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), error


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_around_a_command_has_its_exit_code_wherever_it_comes(number, capsys):
    # Each forked process has everything imported.
    assert cli.main(["list"]) == 0
    allowed = (0, -number, 128 + number)
    for line in itertools.count(1):
        code, error = ended_by_a_signal_at_line(number, line)
        if code == 98:
            break
        assert code in allowed and "Traceback" not in error, f"at line {line}: {code}, {error}"
    assert line > 50
