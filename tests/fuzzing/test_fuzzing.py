"""Readers on changed inputs: success or a sentence; and the fuzzer sees what it looks for."""

import os
import random
import signal
import time

import pytest

from fmri_models.errors import FmriModelsError
from tests.fuzzing import fuzzing
from tests.fuzzing.fuzzing import fuzz, make_input, warm_up
from tests.fuzzing.readers import READERS, Reader, make_fixtures


def hangs(folder, out):
    time.sleep(60)


def hangs_for_good(folder, out):
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    time.sleep(60)


def dies(folder, out):
    os.kill(os.getpid(), signal.SIGKILL)


def takes_memory(folder, out):
    bytearray(2 * fuzzing.MEMORY_BYTES)


def raises(folder, out):
    raise KeyError("a")


def refuses(folder, out):
    raise FmriModelsError("This is wrong; mend it.")


def refuses_in_two_lines(folder, out):
    raise FmriModelsError("This is wrong;\nmend it.")


def writes_elsewhere(folder, out):
    (folder / "new").write_text("1")


def writes_above(folder, out):
    (folder.parent / "new").write_text("1")


def writes_here(folder, out):
    with open("new", "w") as file:
        file.write("1")


def succeeds(folder, out):
    (out / "new").write_text("1")


@pytest.mark.parametrize(
    ("use", "kind"),
    [
        (hangs, "HANG "),
        (hangs_for_good, "HANG that only a kill ends"),
        (dies, "DEATH by signal 9"),
        (takes_memory, "MemoryError"),
        (raises, "KeyError"),
        (refuses_in_two_lines, "MESSAGE"),
        (writes_elsewhere, "OUTSIDE"),
        (writes_above, "OUTSIDE"),
        (writes_here, "OUTSIDE"),
        (refuses, None),
        (succeeds, None),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_the_fuzzer_sees_everything_but_success_and_sentences(tmp_path, monkeypatch, use, kind):
    # What does not hang has the time that a busy machine needs to begin a process.
    monkeypatch.setattr(fuzzing, "HANG_S", 0.3 if "HANG" in str(kind) else 20)
    (tmp_path / "fixtures" / "input").mkdir(parents=True)
    (tmp_path / "fixtures" / "input" / "a.json").write_text('{"a": 1}')
    reader = Reader("input", "input", ("*.json",), use)
    count = 2 if "HANG" in str(kind) else 5
    result = fuzz([reader], count, 0, tmp_path / "work", fixtures=tmp_path / "fixtures")
    assert sum(result.outcomes.values()) == count
    if kind is None:
        assert not result.findings
    else:
        assert [finding.kind.startswith(kind) for finding in result.findings] == [True] * count


def test_a_seed_gives_the_same_inputs(tmp_path):
    (tmp_path / "fixtures" / "input").mkdir(parents=True)
    (tmp_path / "fixtures" / "input" / "a.json").write_text('{"a": [1, 2], "b": "c"}')
    reader = Reader("input", "input", ("*.json",), succeeds)

    def made(seed, name):
        folder = tmp_path / name
        return [
            (
                make_input(reader, n, seed, tmp_path / "fixtures", folder / str(n)),
                (folder / str(n) / "a.json").read_bytes(),
            )
            for n in range(40)
        ]

    assert made(0, "first") == made(0, "second") != made(1, "third")
    assert random.Random("0").random() == random.Random("0").random()


@pytest.fixture(scope="module")
def fixtures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzzing") / "fixtures"
    make_fixtures(folder)
    return folder


@pytest.mark.slow
def test_changed_inputs_are_read_or_refused_by_a_sentence(fixtures, tmp_path):
    assert warm_up(fixtures, tmp_path / "warm") == []
    started = time.monotonic()
    result = fuzz(READERS, 2000, 2026, tmp_path / "work", workers=2, fixtures=fixtures)
    shown = [
        f"{finding.name} (number {finding.number}): {finding.change}\n{finding.detail}" for finding in result.findings
    ]
    assert not result.findings, "\n".join(shown[:10])
    assert sum(result.outcomes.values()) >= 1900 and result.outcomes["success"] > 100
    print(f"{sum(result.outcomes.values())} inputs in {time.monotonic() - started:.0f} s, {result.outcomes}")
