"""Creates or reuses the virtual environment of the Makefile. Needs nothing but Python's standard library.

    python3 scripts/setup_environment.py --venv .venv demo dev

It says what it will install before it does, stops in one sentence where that cannot work, and does nothing where the
same extras are installed already from the same pyproject.toml and constraints. (The Makefile checks the version of
Python, because an old one could not even read this file.)
"""

import argparse
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
MEGABYTES_PER_MINUTE = 12.5 * 60  # 100 Mbit/s


class Part(NamedTuple):
    """What one set of dependencies costs, measured on Linux (x86-64) with the versions in constraints.txt."""

    contents: str
    download_mb: int
    installed_mb: int
    install_minutes: float


BASE = Part(
    "PyTorch with its CUDA libraries, transformers, diffusers, datasets, PEFT, open_clip, scikit-learn", 3200, 6650, 2.5
)
EXTRAS = {
    "demo": Part("timm, EfficientNet-Lite0, onnxruntime, Open-NSFW and Matplotlib for the report", 95, 200, 0.2),
    "space": Part("Gradio, nilearn and Matplotlib", 75, 200, 0.2),
    "data": Part("h5py, nibabel and nilearn", 40, 120, 0.1),
    "dev": Part("pytest, ruff, mypy, import-linter, playwright, a Jupyter kernel, pycocoevalcap", 220, 500, 0.6),
    "docs": Part("MkDocs", 25, 65, 0.1),
}


def main() -> None:
    """Parses the command line and brings the environment up to date."""
    parser = argparse.ArgumentParser(description="Create or reuse a virtual environment for fmri_models.")
    parser.add_argument("extras", nargs="+", choices=list(EXTRAS), help="extras of pyproject.toml")
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="folder of the environment (%(default)s)")
    parser.add_argument(
        "--constraints", type=Path, default=ROOT / "constraints.txt", help="versions to install (%(default)s)"
    )
    arguments = parser.parse_args()
    venv = arguments.venv.absolute()
    constraints = arguments.constraints.absolute()

    key = environment_key(constraints)
    missing = [extra for extra in dict.fromkeys(arguments.extras) if read_stamp(venv, extra) != key]
    if not missing:
        return
    if not (venv / "bin" / "python").exists():
        require_ensurepip()
    parts = [EXTRAS[extra] for extra in missing]
    if not has_pinned_torch(venv, constraints):
        parts.insert(0, BASE)
    announce(venv, parts)
    keeps_downloads = require_disk(venv, parts)
    install(venv, constraints, missing, keeps_downloads)
    for extra in missing:
        stamp_path(venv, extra).write_text(key)


def environment_key(constraints: Path) -> str:
    """A hash over everything that an installed environment depends on, the place of the clone included."""
    digest = hashlib.sha256(str(ROOT).encode())
    for path in (ROOT / "pyproject.toml", constraints):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def stamp_path(venv: Path, extra: str) -> Path:
    """Where it is noted that an extra is installed."""
    return venv / f".installed-{extra}"


def read_stamp(venv: Path, extra: str) -> str:
    """What was noted when an extra was installed; empty if it never was."""
    path = stamp_path(venv, extra)
    return path.read_text() if path.exists() else ""


def has_pinned_torch(venv: Path, constraints: Path) -> bool:
    """Whether the bulk of the installation is there already."""
    pinned = re.search(r"^torch==(\S+)", constraints.read_text(), re.MULTILINE)
    return pinned is not None and any(venv.glob(f"lib/python*/site-packages/torch-{pinned.group(1)}*.dist-info"))


def require_ensurepip() -> None:
    """Stops on an interpreter that cannot make virtual environments, as Debian ships it."""
    if importlib.util.find_spec("ensurepip") is None:
        package = "python{}.{}-venv".format(*sys.version_info)
        sys.exit(
            f"{sys.executable} cannot make virtual environments because its module ensurepip is missing; install it "
            f"(on Debian and Ubuntu: apt install {package}), or name another interpreter with PYTHON=..."
        )


def announce(venv: Path, parts: list[Part]) -> None:
    """Prints what will be installed, how large it is and how long it takes."""
    download_mb = sum(part.download_mb for part in parts)
    minutes = sum(part.install_minutes for part in parts)
    download_minutes = download_mb / MEGABYTES_PER_MINUTE
    print(f"Installing into {venv}:")
    for part in parts:
        print(f"  {part.contents}")
    print(
        f"  at most {gigabytes(download_mb)} to download and {gigabytes(installed_mb(parts))} on disk; about "
        f"{max(1, round(minutes + download_minutes))} minutes at 100 Mbit/s, {max(1, round(minutes))} of them without "
        "the network",
        flush=True,
    )


def require_disk(venv: Path, parts: list[Part]) -> bool:
    """Whether pip may keep its downloads for later; stops where there is too little room for the environment alone.

    What is downloaded lies beside what is installed until pip has ended, unless it comes from a folder of this machine
    or from pip's cache, which cannot be known before: too little room for that is only said.
    """
    download_mb = sum(part.download_mb for part in parts)
    needs = [(venv, installed_mb(parts))]
    advice = "make room, or name another place for the environment with VENV=... and for downloads with TMPDIR=..."
    if shortage := lacking(needs):
        sys.exit(f"Too little disk: {shortage}; {advice}")
    needs.append((Path(tempfile.gettempdir()), download_mb))
    if shortage := lacking(needs):
        print(
            f"  perhaps too little disk: {shortage} if all of it has to be downloaded; if it stops, {advice}",
            flush=True,
        )
    elif not os.environ.get("PIP_NO_CACHE_DIR"):
        needs.append((Path(os.environ.get("PIP_CACHE_DIR", Path.home() / ".cache")), download_mb))
        shortage = lacking(needs)
    return shortage is None


class Shortage(NamedTuple):
    """A folder on a file system that has less room than is needed there."""

    folder: Path
    free_mb: float
    needed_mb: int

    def __str__(self) -> str:
        return (
            f"{gigabytes(self.free_mb)} are free where {self.folder} is, and the installation takes "
            f"{gigabytes(self.needed_mb)} there"
        )


def lacking(needs: list[tuple[Path, int]]) -> Shortage | None:
    """The first file system that has less room than all that goes there takes; None where there is room for all."""
    totals: dict[int, int] = {}
    for path, size_mb in needs:
        folder = existing_parent(path)
        device = folder.stat().st_dev
        totals[device] = totals.get(device, 0) + size_mb
        free_mb = shutil.disk_usage(folder).free / 1e6
        if free_mb < totals[device]:
            return Shortage(folder, free_mb, totals[device])
    return None


def existing_parent(path: Path) -> Path:
    """The path itself, or the nearest folder above it that exists."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def installed_mb(parts: list[Part]) -> int:
    """Megabytes on disk."""
    return sum(part.installed_mb for part in parts)


def gigabytes(megabytes: float) -> str:
    """Megabytes as people read them."""
    return f"{megabytes / 1000:.1f} GB"


def install(venv: Path, constraints: Path, extras: list[str], keeps_downloads: bool) -> None:
    """Makes the environment where there is none and installs the clone into it, editable."""
    python = str(venv / "bin" / "python")
    if not Path(python).exists() or subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode:
        run([sys.executable, "-m", "venv", str(venv)])
    requirement = f"{ROOT}[{','.join(extras)}]"
    quietly = [] if sys.stdout.isatty() else ["--quiet", "--progress-bar", "off"]
    pip = [python, "-m", "pip", "install", "--disable-pip-version-check", *quietly]
    pip += [] if keeps_downloads else ["--no-cache-dir"]
    run([*pip, "--constraint", str(constraints), "--editable", requirement])


def run(command: list[str]) -> None:
    """Runs a command; its own messages say what went wrong."""
    finished = subprocess.run(command, cwd=ROOT)
    if finished.returncode:
        sys.exit(f"The installation stopped (exit {finished.returncode}): {' '.join(command)}")


if __name__ == "__main__":
    main()
