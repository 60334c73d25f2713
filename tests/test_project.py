"""Addresses of the project: stated in one place, empty until then."""

import subprocess
import sys
import tomllib

import pytest

from fmri_models import project


@pytest.fixture
def stated(monkeypatch):
    """States addresses for a test."""

    def state(**urls):
        monkeypatch.setattr(project, "_urls", lambda: urls)

    return state


def test_what_pyproject_states_is_what_the_functions_say(repository):
    urls = tomllib.loads((repository / "pyproject.toml").read_text())["project"].get("urls", {})
    labels = ("Repository", "Issues", "Hub organisation")
    assert set(urls) <= set(labels)
    said = [project.repository(), project.issue_tracker(), project.hub_organisation()]
    assert said == [urls.get(label, "") for label in labels]


def test_without_an_address_it_is_installed_from_a_clone_or_a_wheel(stated):
    stated()
    assert project.repository() == project.issue_tracker() == project.hub_organisation() == ""
    assert "clone" in project.how_to_install() and "wheel" in project.how_to_install()
    assert [line.partition("#")[0].strip() for line in project.install_lines()] == [
        "pip install .",
        "pip install fmri_models-*.whl",
    ]


def test_an_address_is_what_is_installed_from(stated):
    stated(Repository="https://example.org/zoo")
    line = 'pip install "fmri_models @ git+https://example.org/zoo"'
    assert project.install_lines() == [line]
    assert line in project.how_to_install()


def test_an_installed_package_knows_its_addresses_from_its_metadata(tmp_path, repository):
    """Beside it lies no pyproject.toml of ours; what lies there may be anybody's."""
    package = tmp_path / "fmri_models"
    package.mkdir()
    for name in ("__init__.py", "project.py", "entry_points.py", "errors.py", "names.py", "version.py", "late.py"):
        (package / name).write_text((repository / "fmri_models" / name).read_text())
    (package / "__init__.py").write_text("")
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "other"\n[project.urls]\nRepository = "https://o.org"\n'
    )
    about = tmp_path / "fmri_models-9.9.dist-info"
    about.mkdir()
    lines = "Metadata-Version: 2.4\nName: fmri_models\nVersion: 9.9\nProject-URL: Repository, https://example.org/zoo\n"
    (about / "METADATA").write_text(lines + "Project-URL: Issues, \n")
    told = subprocess.run(
        [sys.executable, "-c", "from fmri_models.project import *; print([repository(), issue_tracker()])"],
        cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert told.stdout.strip() == "['https://example.org/zoo', '']"
