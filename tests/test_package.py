"""The wheel: what a user gets who never sees the clone."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.new_process import python


@pytest.fixture(scope="module")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(repository)]
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr or finished.stdout
    (built,) = folder.glob("fmri_models-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile"]
    subprocess.run([*command, "--target", str(folder), str(wheel)], check=True, capture_output=True)
    return folder


def run_python(
    installed: Path, empty_folder: Path, *arguments: str, command: tuple[str, ...] = (sys.executable,)
) -> subprocess.CompletedProcess:
    """Runs Python in an empty folder with nothing of the clone on its path."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [*command, *arguments]
    return subprocess.run(command, cwd=empty_folder, env=environment, capture_output=True, text=True)


def test_wheel_carries_what_the_command_reads(wheel: Path, repository: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())

    for folder in ("dataset_scripts", "evaluate_metrics", "model_cards", "space"):
        files = [
            path for path in (repository / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts
        ]
        expected = {f"fmri_models/_shipped/{path.relative_to(repository)}" for path in files}
        assert expected, f"{folder} is empty"
        assert expected <= names
    for folder in ("assets", "evaluation", "training/recipes"):
        files = [path for path in (repository / "fmri_models" / folder).rglob("*") if path.is_file()]
        assert {str(path.relative_to(repository)) for path in files if "__pycache__" not in path.parts} <= names
    assert "fmri_models/py.typed" in names
    assert not [name for name in names if "__pycache__" in name or name.startswith(("tests/", "docs/", "outputs/"))]


def test_the_metadata_have_the_addresses_that_are_stated_and_no_empty_ones(wheel: Path, repository: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    lines = [line for line in archive.read(name).decode().splitlines() if line.startswith("Project-URL: ")]
    urls = tomllib.loads((repository / "pyproject.toml").read_text())["project"]["urls"]
    assert lines == [f"Project-URL: {label}, {url}" for label, url in urls.items()]
    assert all(urls.values()), "an index refuses a package with an empty address"


@pytest.mark.parametrize("arguments", [["--help"], ["data", "--help"], ["prepare", "--help"], ["space", "--help"]])
def test_command_answers_in_an_empty_folder(installed: Path, tmp_path: Path, arguments: list[str]) -> None:
    finished = run_python(installed, tmp_path, "-m", "fmri_models.cli.main", *arguments)

    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.startswith("usage: fmri-models")


@pytest.mark.slow
def test_shipped_files_are_those_of_the_wheel(installed: Path, tmp_path: Path, repository: Path) -> None:
    program = """
from pathlib import Path
from fmri_models.shipped import shipped_folder
from fmri_models.training.recipe import load_recipe
print(shipped_folder("space") / "app.py")
print(shipped_folder("dataset_scripts") / "digits69.py")
load_recipe("digits69_linear", [])
"""
    finished = run_python(installed, tmp_path, "-c", program)

    assert finished.returncode == 0, finished.stderr
    paths = [Path(line) for line in finished.stdout.splitlines()]
    assert [path.is_file() and path.is_relative_to(installed) for path in paths] == [True, True]


def test_shipped_dataset_script_is_found_by_name(installed: Path, tmp_path: Path) -> None:
    arguments = ["prepare", "digits69", "--source", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]
    finished = run_python(installed, tmp_path, "-m", "fmri_models.cli.main", *arguments)

    assert finished.returncode == 1
    assert "nowhere" in finished.stderr
    assert len(finished.stderr.splitlines()) == 1


@pytest.mark.slow
def test_assets_load_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    program = """
import torch
from fmri_models import EmbeddedImageGenerator
generator = EmbeddedImageGenerator.from_assets()
pictures = torch.rand(2, *generator.image_size)
drawn = generator(latents=generator.encode_images(pictures), strength=0.0, output_type="pt").images
print(drawn.shape == pictures.shape)
"""
    finished = run_python(installed, tmp_path, "-c", program, command=tuple(python()))

    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.split()[-1] == "True"


def test_the_readme_installs_extras_that_the_wheel_has(wheel: Path, repository: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        extras = set(re.findall(r"^Provides-Extra: (\S+)$", archive.read(metadata).decode(), re.MULTILINE))
    readme = (repository / "README.md").read_text()
    named = re.findall(r"pip install .*?(?:\.|fmri_models)\[([\w,]+)\]", readme)

    assert named
    assert {extra for group in named for extra in group.split(",")} <= extras
    assert all((repository / name).is_file() for name in re.findall(r"--constraint (\S+)", readme))


def test_version_is_stated_once(wheel: Path, repository: Path) -> None:
    from fmri_models import __version__

    assert wheel.name == f"fmri_models-{__version__}-py3-none-any.whl"
    assert f"version: {__version__}\n" in (repository / "CITATION.cff").read_text()


def test_lower_bounds_are_the_versions_that_the_smoke_test_installs(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    required = [
        Requirement(text)
        for text in [
            *project["dependencies"],
            *(each for name in ("demo", "space", "data", "captions", "lpips") for each in extras[name]),
        ]
    ]
    lower_bounds = {
        (canonicalize_name(requirement.name), Version(specifier.version))
        for requirement in required
        for specifier in requirement.specifier
        if specifier.operator == ">="
    }

    assert lower_bounds == set(pinned_versions(repository / "constraints-minimum.txt"))
    assert all(
        requirement.specifier.contains(version)
        for requirement in required
        for name, version in pinned_versions(repository / "constraints.txt")
        if name == canonicalize_name(requirement.name)
    )


def pinned_versions(path: Path) -> list[tuple[str, Version]]:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return [(canonicalize_name(name), Version(version)) for name, version in (line.split("==") for line in lines)]
