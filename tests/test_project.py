"""Addresses of the project: in one place, empty until an owner fills them, and nowhere else."""

import re
import subprocess
import sys
import tomllib

import pytest

from fmri_models import project
from fmri_models.cli.main import build_parser
from fmri_models.errors import FmriModelsError
from fmri_models.saving import check_schema

LABELS = {"Repository", "Issues", "Hub organisation"}
STATED = """
[project]
name = "fmri_models"
[project.urls]
Repository = "https://example.org/somebody/zoo/"
Issues = "https://example.org/somebody/zoo/issues"
"Hub organisation" = "https://example.org/zoo"
"""
# An address of some host under the name of the package, or of a place for it.
ADDRESS = re.compile(r"(?:https?://|git@|git\+)[\w.:@-]+/[\w./@-]*fmri[-_]models[\w/.-]*", re.IGNORECASE)
TEXTS = {".py", ".md", ".toml", ".yml", ".yaml", ".cff", ".txt", ".json", ".cfg", ".html", ".js", ""}


@pytest.fixture
def stated(tmp_path, monkeypatch):
    """Has the package lie beside a pyproject.toml with these contents."""

    def state(text):
        package = tmp_path / "fmri_models"
        package.mkdir(exist_ok=True)
        if text is not None:
            (tmp_path / "pyproject.toml").write_text(text)
        monkeypatch.setattr(project, "__file__", str(package / "project.py"))
        project._urls.cache_clear()

    yield state
    monkeypatch.undo()
    project._urls.cache_clear()


def test_addresses_are_read_where_they_stand(stated):
    stated(STATED)
    assert project.repository() == "https://example.org/somebody/zoo"
    assert project.issue_tracker() == "https://example.org/somebody/zoo/issues"
    assert project.hub_organisation() == "https://example.org/zoo"
    line = 'pip install "fmri_models @ git+https://example.org/somebody/zoo"'
    assert project.install_lines() == [line]
    assert project.how_to_install() == f"Install it with `{line}`."
    assert "https://example.org/somebody/zoo/issues" in build_parser().format_help()
    with pytest.raises(FmriModelsError, match=r"newer version.*git\+https://example\.org/somebody/zoo"):
        check_schema(2, 1, "A file")


@pytest.mark.parametrize("text", ['[project]\nname = "fmri_models"', STATED.replace("https://example.org", "")])
def test_without_addresses_there_is_the_clone_and_the_wheel(stated, text):
    stated(re.sub(r'"[^"]*/[^"]*"', '""', text))
    assert (project.repository(), project.issue_tracker(), project.hub_organisation()) == ("", "", "")
    assert [line.partition("#")[0].strip() for line in project.install_lines()] == [
        "pip install .",
        "pip install fmri_models-*.whl",
    ]
    assert "in a clone of fmri_models, or with `pip install` and a wheel" in project.how_to_install()
    assert "problems and questions" not in build_parser().format_help()


@pytest.mark.parametrize(
    "beside", [None, "[[[", '[project]\nname = "another"\n[project.urls]\nRepository = "x"', "project = 1"]
)
@pytest.mark.parametrize("installed", [True, False])
def test_an_installed_package_asks_its_own_metadata(stated, monkeypatch, tmp_path, beside, installed):
    if installed:
        folder = tmp_path / "fmri_models-9.dist-info"
        folder.mkdir()
        url = "https://example.org/a,b"
        (folder / "METADATA").write_text(
            f"Name: fmri_models\nVersion: 9\nProject-URL: Repository, {url}\nProject-URL: Issues, \n"
        )
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    stated(beside)
    assert project.repository() == ("https://example.org/a,b" if installed else "")
    assert project.issue_tracker() == ""


def test_pyproject_states_no_empty_address_and_none_of_another_name(repository):
    urls = tomllib.loads((repository / "pyproject.toml").read_text()).get("project", {})["urls"]
    assert set(urls) <= LABELS
    assert all(re.fullmatch(r"https://\S+[^/\s]", url) for url in urls.values())


def test_no_address_of_the_project_is_written_anywhere_else(repository):
    listed = subprocess.run(["git", "ls-files"], cwd=repository, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("no clone")
    found = []
    own = [address for address in (project.repository(), project.hub_organisation()) if address]
    for name in listed.stdout.splitlines():
        path = repository / name
        if path.suffix not in TEXTS or name in ("pyproject.toml", "tests/test_project.py") or not path.is_file():
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        found += [f"{name}: {match[0]}" for match in ADDRESS.finditer(text)]
        found += [f"{name}: {address}" for address in own if address in text]
    assert not found, "name it by fmri_models.project"
