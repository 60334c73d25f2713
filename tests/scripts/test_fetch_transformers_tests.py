"""transformers' own tests are unpacked and nothing else is."""

import importlib.util
import io
import tarfile
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def script(repository: Path) -> ModuleType:
    path = repository / "scripts" / "fetch_transformers_tests.py"
    specification = importlib.util.spec_from_file_location("fetch_transformers_tests", path)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def archive(folder: Path, *names: str) -> Path:
    with tarfile.open(folder / "a.tar.gz", "w:gz") as files:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 1
            files.addfile(member, io.BytesIO(b"1"))
    return folder / "a.tar.gz"


def test_only_the_tests_are_unpacked_as_a_package(script, tmp_path):
    script.unpack(archive(tmp_path, "t-1/tests/test_a.py", "t-1/setup.py"), "t-1/tests", tmp_path / "out")
    found = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.py"))
    assert found == ["t-1/tests/__init__.py", "t-1/tests/test_a.py"]


def test_nothing_is_written_beside_the_folder(script, tmp_path):
    hostile = archive(tmp_path, "t-1/tests/../../../evil.py")
    with pytest.raises(tarfile.OutsideDestinationError):
        script.unpack(hostile, "t-1/tests", tmp_path / "a" / "out")
    assert not list(tmp_path.rglob("evil.py"))


def test_another_layout_is_a_sentence(script, tmp_path):
    with pytest.raises(SystemExit, match="its layout has changed"):
        script.unpack(archive(tmp_path, "t-1/setup.py"), "t-1/tests", tmp_path / "out")
