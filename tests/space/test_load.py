"""Many users at once: each gets a picture, nothing fails, and the server's memory does not grow with every picture."""

import importlib.util
from types import ModuleType

import pytest


@pytest.fixture
def load(repository, monkeypatch) -> ModuleType:
    path = repository / "benchmarks" / "space_load.py"
    spec = importlib.util.spec_from_file_location("space_load", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_twenty_users_at_once(load: ModuleType) -> None:
    found = load.measured(20, 60)
    assert found["errors"] == []
    assert found["pictures"] >= 20
    # Twice what is allowed of two minutes: the first pictures of all get memory that stays.
    assert found["growth"] < 0.1
    assert "20 users for 60 s" in load.table(found)
