"""Runs commands in forked processes, which start at once because everything is imported already."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.fuzzing import readers
from tests.test_modeling_common import NUM_VOXELS, SUBJECTS

# Name -> arguments, given a folder of inputs (of which nothing but `model` and `data` is changed) and the output.
COMMANDS: dict[str, Callable[[Path, Path], list[str]]] = {
    "prepare": lambda inputs, out: [
        "prepare", "arrays", "--fmri", f"{inputs}/arrays/betas.npy", "--events", f"{inputs}/arrays/events.csv",
        "--stimuli", f"{inputs}/arrays/stimuli", "--voxels", f"{inputs}/arrays/voxels.csv", "--out", f"{out}",
    ],
    "simulate": lambda inputs, out: [
        "simulate", "--stimuli", "builtin:scenes", "--voxels", "300", "--train", "12", "--validation", "2", "--test",
        "2", "--out", f"{out}",
    ],
    "split": lambda inputs, out: [
        "data", "split", f"{inputs}/data", "--name", "other", "--by", "kfold", "--folds", "3",
    ],
    "train": lambda inputs, out: ["train", "linear", f"data={inputs}/data", f"out={out}", "generator=pixels"],
    "fit-processor": lambda inputs, out: ["fit-processor", f"{inputs}/model", "--data", f"{inputs}/data"],
    "reconstruct": lambda inputs, out: [
        "reconstruct", "--model", f"{inputs}/model", "--fmri", f"{inputs}/data", "--subject", "subj02", "--out",
        f"{out}",
    ],
    "evaluate": lambda inputs, out: [
        "evaluate", "--model", f"{inputs}/model", "--data", f"{inputs}/data", "--protocol", "small_pictures", "--out",
        f"{out}",
    ],
    "images": lambda inputs, out: [
        "evaluate", "--images", f"{inputs}/pictures/recon", "--truth", f"{inputs}/pictures/truth", "--protocol",
        "small_pictures", "--out", f"{out}",
    ],
    "convert": lambda inputs, out: ["convert", "mindeye", f"{inputs}/published/last.pth", "--out", f"{out}"],
    "card": lambda inputs, out: ["card", f"{inputs}/model"],
    "retrieve": lambda inputs, out: [
        "retrieve", "--model", f"{inputs}/gallery/model", "--fmri", f"{inputs}/patterns.npy", "--subject", SUBJECTS[0],
        "--gallery", f"{inputs}/gallery/pictures", "--top-k", "1",
    ],
    "compare": lambda inputs, out: [
        "compare", f"{inputs}/report/first/report.json", f"{inputs}/report/second/report.json",
    ],
    "validate": lambda inputs, out: ["data", "validate", f"{inputs}/data"],
    "info": lambda inputs, out: ["data", "info", f"{inputs}/data"],
    "save-subject": lambda inputs, out: ["subjects", "save", f"{inputs}/model", SUBJECTS[0], "--out", f"{out}"],
    "load-subject": lambda inputs, out: [
        "subjects", "load", f"{inputs}/model", f"{inputs}/subject", "--out", f"{out}",
    ],
    "list-subject": lambda inputs, out: ["subjects", "list", f"{inputs}/subject"],
}  # fmt: skip
# Where a command changes an input instead of writing an output.
IN_PLACE = {"split": "data", "fit-processor": "model", "card": "model"}
WRITING = [name for name in COMMANDS if name not in ("retrieve", "compare", "validate", "info", "list-subject")]


@dataclass
class Ended:
    """How a command ended.

    Args:
        code: Exit status, or minus the signal that ended it.
        output: What it printed.
        error: What it printed to standard error.
        seconds: How long it ran.
    """

    code: int
    output: str
    error: str
    seconds: float

    def last_line(self) -> str:
        return self.error.strip().splitlines()[-1] if self.error.strip() else ""


def make_inputs(folder: Path) -> Path:
    """Inputs of all commands."""
    fixtures = folder / "fixtures"
    readers.make_fixtures(fixtures)
    inputs = folder / "inputs"
    for name in ("arrays", "pictures", "published", "report", "gallery"):
        shutil.copytree(fixtures / name, inputs / name)
    shutil.copytree(fixtures / "table" / "data", inputs / "data")
    shutil.copytree(fixtures / "pipeline" / "model", inputs / "model")
    _save_further_subject(inputs / "model", inputs / "subject")
    np.save(inputs / "patterns.npy", np.random.default_rng(0).normal(size=(2, NUM_VOXELS[0])).astype(np.float32))
    shutil.rmtree(fixtures)
    return inputs


def _save_further_subject(model: Path, folder: Path) -> None:
    from fmri_models import FmriToImagePipeline

    pipeline = FmriToImagePipeline.from_pretrained(model)
    betas = np.random.default_rng(0).normal(size=(12, NUM_VOXELS[0])).astype(np.float32)
    pipeline.add_subject("further", betas, sessions=[1] * 12)
    pipeline.save_subject("further", folder)


class Running:
    """A command in a process of its own."""

    def __init__(self, arguments: list[str], place: Path, file_limit: int | None = None) -> None:
        # Pipes, because a limit on the size of files would cut files of what is printed.
        pipes = [os.pipe() for _ in range(2)]
        self._begun = time.monotonic()
        self.pid = os.fork()
        if self.pid == 0:
            self._run(arguments, place, file_limit, [writing for _, writing in pipes])
        self._printed: list[str] = ["", ""]
        self._readers = [
            threading.Thread(target=self._read, args=(number, reading)) for number, (reading, _) in enumerate(pipes)
        ]
        for (_, writing), reader in zip(pipes, self._readers, strict=True):
            os.close(writing)
            reader.start()

    def _read(self, number: int, reading: int) -> None:
        with os.fdopen(reading, encoding="utf-8", errors="replace", newline="") as pipe:
            self._printed[number] = pipe.read()

    def _run(self, arguments: list[str], place: Path, file_limit: int | None, outputs: list[int]) -> None:
        code = 99
        try:
            for number, output in enumerate(outputs, start=1):
                os.dup2(output, number)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            os.environ["FMRI_MODELS_CACHE"] = str(place / "cache")
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if file_limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, resource.RLIM_INFINITY))
            from fmri_models.cli.main import main

            try:
                code = main(arguments)
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else 1
            sys.stdout.flush()
            sys.stderr.flush()
        # In the moments before and after the command, as Python itself ends.
        except KeyboardInterrupt:
            code = 128 + signal.SIGINT if code == 99 else code
        finally:
            os._exit(code)

    def wait(self, limit_s: float = 60) -> Ended:
        deadline = time.monotonic() + limit_s
        while True:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                break
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise AssertionError("the command hangs")
            time.sleep(0.01)
        seconds = time.monotonic() - self._begun
        for reader in self._readers:
            reader.join()
        output, error = self._printed
        return Ended(os.waitstatus_to_exitcode(status), output, error, seconds)


def run(arguments: list[str], place: Path, file_limit: int | None = None) -> Ended:
    """Runs a command to its end."""
    return Running(arguments, place, file_limit).wait()


def check_one_sentence(ended: Ended, *parts: str) -> None:
    """Exit status 1, one of our sentences, no traceback, and parts of the message."""
    shown = f"{ended.code}: {ended.error[-3000:]}"
    assert ended.code == 1, shown
    assert ended.last_line().startswith("fmri-models: error: "), shown
    assert "Traceback" not in ended.error and "unexpected" not in ended.error, shown
    assert any(part in ended.last_line() for part in parts) or not parts, shown


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every file of a folder (with what is in it) and every folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


@contextmanager
def mounted(folder: Path, *options: str, source: str = "tmpfs") -> Iterator[Path]:
    """A small file system of its own, where tests may mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    kind = ["--bind", source] if source != "tmpfs" else ["-t", "tmpfs", "-o", ",".join(options), "tmpfs"]
    if not _mount(*kind, str(folder)):
        pytest.skip("nothing can be mounted here")
    try:
        if source != "tmpfs" and not _mount("-o", ",".join(("remount", "bind", *options)), str(folder)):
            pytest.skip("nothing can be mounted here")
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _mount(*arguments: str) -> bool:
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode == 0
