"""Runs readers on changed inputs in processes of their own; all but success and sentences are findings."""

import hashlib
import os
import random
import resource
import shutil
import signal
import struct
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fmri_models.errors import FmriModelsError
from fmri_models.names import one_line
from tests.fuzzing.readers import READERS, Reader, make_fixtures

HANG_S = 20
# Of address space, beyond what the process has when it starts on an input.
MEMORY_BYTES = 2**30
INPUTS_A_PROCESS = 50
_PACKAGE = str(Path(__file__).resolve().parents[2])


@dataclass
class Finding:
    """An input that ended in neither success nor a sentence.

    Args:
        reader: Whose input it is.
        number: Which of its inputs.
        kind: Exception and place, or HANG, DEATH, OUTSIDE.
        change: What was done to which file.
        detail: A traceback, as far as there is one.
    """

    reader: str
    number: int
    kind: str
    change: str
    detail: str

    @property
    def name(self) -> str:
        """A file name."""
        kind = "".join(character if character.isalnum() or character in "-." else "_" for character in self.kind)
        return f"{self.reader}-{kind[:150]}"


@dataclass
class Result:
    """What came of all inputs."""

    findings: list[Finding] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0


def fuzz(
    readers: Sequence[Reader], mutations: int, seed: int, work: Path, out: Path | None = None, limit_s: float = 1e9,
    workers: int = 1, fixtures: Path | None = None,
) -> Result:  # fmt: skip
    """Changes inputs and reads them.

    Args:
        readers: Whose inputs.
        mutations: How many inputs in all.
        seed: The same seed gives the same inputs.
        work: An empty folder for fixtures and for the processes.
        out: Where the input of each new kind of finding is kept.
        limit_s: After how many seconds no more inputs are begun.
        workers: Processes at once.
        fixtures: Inputs that were made before.
    """
    if fixtures is None:
        fixtures = work / "fixtures"
        make_fixtures(fixtures)
    before = digest(fixtures)
    deadline = time.monotonic() + limit_s
    result, kept = Result(), Counter[str]()
    running: dict[int, _Batch] = {}
    batches = _batches(readers, mutations)
    pending = next(batches, None)
    while pending or running:
        while pending and len(running) < workers and time.monotonic() < deadline:
            batch = _Batch(pending, seed, work, fixtures)
            running[batch.start()] = batch
            pending = next(batches, None)
        if time.monotonic() >= deadline:
            pending = None
        for pid, batch in list(running.items()):
            if not batch.poll(result):
                continue
            del running[pid]
            if batch.left:
                running[batch.start()] = batch
        for finding in result.findings[sum(kept.values()) :]:
            kept[finding.name] += 1
            if out is not None and kept[finding.name] <= 3:
                _keep(finding, seed, fixtures, out, kept[finding.name])
        time.sleep(0.02)
    if digest(fixtures) != before:
        result.findings.append(Finding("all", 0, "OUTSIDE fixtures were changed", "", ""))
    return result


def make_input(reader: Reader, number: int, seed: int, fixtures: Path, folder: Path) -> str:
    """Puts a reader's changed input into a folder; returns what was changed."""
    shutil.copytree(fixtures / reader.folder, folder, symlinks=True)
    return reader.change(folder, random.Random(f"{seed}-{reader.name}-{number}"))


def _batches(readers: Sequence[Reader], mutations: int) -> Iterator[list[tuple[Reader, int]]]:
    total = sum(reader.weight for reader in readers)
    counts = {reader.name: max(1, mutations * reader.weight // total) for reader in readers}
    # Round by round, so that a run that is stopped early has tried every reader.
    for start in range(0, max(counts.values()), INPUTS_A_PROCESS):
        for reader in readers:
            numbers = range(start, min(start + INPUTS_A_PROCESS, counts[reader.name]))
            if numbers:
                yield [(reader, number) for number in numbers]


class _Batch:
    """Inputs that one process after another reads, until all are done."""

    def __init__(self, inputs: list[tuple[Reader, int]], seed: int, work: Path, fixtures: Path) -> None:
        self.left = inputs
        self.seed = seed
        self.fixtures = fixtures
        self.place = work / f"{inputs[0][0].name}-{inputs[0][1]}"

    def start(self) -> int:
        self.begun = time.monotonic()
        self.pipe, writing = os.pipe()
        os.set_blocking(self.pipe, False)
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.pipe)
            _read_all(self.left, self.seed, self.place, self.fixtures, writing)
        os.close(writing)
        self.received = b""
        return self.pid

    def poll(self, result: Result) -> bool:
        """Takes what has come; True when the process has ended."""
        ended, status = os.waitpid(self.pid, os.WNOHANG)
        self._receive(result)
        if ended:
            os.close(self.pipe)
            if self.left and not (os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0):
                how = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit {os.WEXITSTATUS(status)}"
                self._lost(f"DEATH by {how}", result)
            shutil.rmtree(self.place, ignore_errors=True)
            return True
        if time.monotonic() - self.begun > 2 * HANG_S:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self._receive(result)
            os.close(self.pipe)
            if self.left:
                self._lost("HANG that only a kill ends", result)
            shutil.rmtree(self.place, ignore_errors=True)
            return True
        return False

    def _lost(self, kind: str, result: Result) -> None:
        (reader, number), *self.left = self.left
        result.outcomes["finding"] += 1
        result.findings.append(Finding(reader.name, number, kind, "", ""))

    def _receive(self, result: Result) -> None:
        while True:
            try:
                data = os.read(self.pipe, 2**20)
            except BlockingIOError:
                break
            if not data:
                break
            self.received += data
        while len(self.received) >= 4:
            (length,) = struct.unpack("<I", self.received[:4])
            if len(self.received) < 4 + length:
                return
            outcome, seconds, kind, change, detail = self.received[4 : 4 + length].decode().split("\0", 4)
            self.received = self.received[4 + length :]
            (reader, number), *self.left = self.left
            self.begun = time.monotonic()
            result.outcomes[outcome] += 1
            result.slowest_s = max(result.slowest_s, float(seconds))
            if outcome == "finding":
                result.findings.append(Finding(reader.name, number, kind, change, detail))


def _read_all(inputs: list[tuple[Reader, int]], seed: int, place: Path, fixtures: Path, pipe: int) -> None:
    """In the process: reads one input after the other, and never returns."""
    code = 1
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        signal.signal(signal.SIGALRM, _hang)
        for reader, number in inputs:
            shutil.rmtree(place, ignore_errors=True)
            parts = _read_one(reader, number, seed, place, fixtures)
            message = "\0".join(part.replace("\0", "") for part in parts).encode("utf-8", "replace")
            os.write(pipe, struct.pack("<I", len(message)) + message)
        code = 0
    finally:
        os._exit(code)


class _HangError(BaseException):
    """More time than any file may take."""


def _hang(number: int, frame: Any) -> None:
    raise _HangError


def _read_one(reader: Reader, number: int, seed: int, place: Path, fixtures: Path) -> tuple[str, str, str, str, str]:
    for name in ("out", "here", "cache"):
        (place / name).mkdir(parents=True)
    os.environ["FMRI_MODELS_CACHE"] = str(place / "cache")
    os.chdir(place / "here")
    change = make_input(reader, number, seed, fixtures, place / "input")
    names = _names(place)
    kind, detail, outcome = "", "", "success"
    started = time.monotonic()
    _limit_memory(MEMORY_BYTES)
    signal.setitimer(signal.ITIMER_REAL, HANG_S)
    try:
        reader.use(place / "input", place / "out")
    except FmriModelsError as error:
        outcome = "sentence"
        if one_line(error, most=5000) != str(error):
            kind, detail = f"MESSAGE of {_where(error)}", str(error)[:2000]
    except _HangError as error:
        kind, detail = f"HANG {_where(error)}", _trace(error)
    except BaseException as error:
        kind, detail = f"{type(error).__name__} {_where(error)}", _trace(error)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        _limit_memory(None)
    seconds = time.monotonic() - started
    if not kind and (new := sorted(_names(place) - names - _allowed(reader, place))):
        kind = f"OUTSIDE {new[0]}"
    return "finding" if kind else outcome, f"{seconds:.3f}", kind, change, detail


def _limit_memory(further: int | None) -> None:
    if further is None:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        return
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + further, resource.RLIM_INFINITY))


def _names(place: Path) -> set[str]:
    """All files in places where nothing may be written."""
    found = set()
    for top in (place, place.parent):
        for path in top.iterdir():
            found.add(str(path)) if top == place else None
    for name in ("input", "here"):
        found |= {str(path) for path in (place / name).rglob("*")}
    return found


def _allowed(reader: Reader, place: Path) -> set[str]:
    """What a use writes into its input on purpose."""
    written = ("README.md", "report.json", ".eval_results", ".eval_results/fmri_models.yaml")
    return {str(place / "input" / name) for name in (*(f"model/{each}" for each in written), "evaluations.jsonl")}


def _where(error: BaseException) -> str:
    """The innermost place in the package."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/fmri_models/" in frame.filename]
    frames = [frame for frame in frames if "site-packages" not in frame.filename] or frames
    if not frames:
        return "outside of the package"
    last = frames[-1]
    return f"{last.filename.removeprefix(_PACKAGE).lstrip('/')} {last.name}"


def _trace(error: BaseException) -> str:
    lines = traceback.format_exception(type(error), error, error.__traceback__)
    text = "".join(lines)
    return text if len(text) < 6000 else f"{text[:2000]}\n...\n{text[-4000:]}"


def _keep(finding: Finding, seed: int, fixtures: Path, out: Path, copy: int) -> None:
    folder = out / f"{finding.name}-{copy}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    reader = next(reader for reader in READERS if reader.name == finding.reader)
    change = make_input(reader, finding.number, seed, fixtures, folder / "input")
    text = (
        f"reader {finding.reader}, seed {seed}, number {finding.number}\n{change}\n{finding.kind}\n\n{finding.detail}"
    )
    (folder / "finding.txt").write_text(text, encoding="utf-8", errors="replace")


def digest(folder: Path) -> str:
    """Of the names and contents of all files."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


def warm_up(fixtures: Path, work: Path) -> list[str]:
    """Uses every input as it is, so that everything is imported; returns what fails on an unchanged one."""
    failed = []
    for reader in READERS:
        place = work / f"warm-{reader.name}"
        (place / "out").mkdir(parents=True)
        shutil.copytree(fixtures / reader.folder, place / "input")
        if reader.name == "overrides":
            (place / "input" / "overrides.json").write_text('["seed=3"]')
        try:
            reader.use(place / "input", place / "out")
        except BaseException as error:
            failed.append(f"{reader.name}: {type(error).__name__}: {error}")
            traceback.print_exc(file=sys.stderr)
        shutil.rmtree(place)
    return failed
