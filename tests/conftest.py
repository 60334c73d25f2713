"""What all tests share: no network, no traces outside temporary folders, and the published data where they are."""

import gc
import os
import shutil
import sys
import tempfile
import threading
from pathlib import Path

import pytest
import tqdm
from hypothesis import settings

# Before any library that reads these when it is imported.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")


def _draw_bars_alone() -> None:
    tqdm.tqdm.set_lock(threading.RLock())


# tqdm's own lock is one for all forked processes: one that is killed while it draws would leave all others waiting.
_draw_bars_alone()
os.register_at_fork(after_in_child=_draw_bars_alone)

_IS_WORKER = "PYTEST_XDIST_WORKER" in os.environ
if not _IS_WORKER:
    # Workers inherit the folder.
    _CACHES = tempfile.mkdtemp(prefix="fmri-models-tests-")
    os.environ["XDG_CACHE_HOME"] = _CACHES
    os.environ["HF_HOME"] = f"{_CACHES}/huggingface"
    os.environ["FMRI_MODELS_CACHE"] = f"{_CACHES}/fmri_models"


# Marks of transformers' own tests (tests/suites), which this project's strict reading of marks would not know.
_MARKS = ("accelerate_tests", "flash_attn_test", "flash_attn_3_test", "flash_attn_4_test", "torch_compile_test")


def pytest_configure(config: pytest.Config) -> None:
    for mark in _MARKS:
        config.addinivalue_line("markers", f"{mark}: a mark of transformers' own tests")


def pytest_unconfigure(config: pytest.Config) -> None:
    if not _IS_WORKER:
        shutil.rmtree(_CACHES, ignore_errors=True)


def pytest_collection_finish() -> None:
    # The libraries are imported by now, hundreds of thousands of objects that stay. Collections would look at all of
    # them each time, which takes half a second where a training or a test asks for one.
    _freeze_what_is_imported()
    # To look seldom for what only cycles keep alive saves a twentieth of the time of making models.
    gc.set_threshold(20_000, 20, 20)


def pytest_runtest_teardown(nextitem: pytest.Item | None) -> None:
    # Some parts of libraries are imported by the first test that uses them.
    if nextitem is not None and len(sys.modules) > _modules_frozen + 100:
        _freeze_what_is_imported()


_modules_frozen = 0


def _freeze_what_is_imported() -> None:
    global _modules_frozen
    gc.collect()
    gc.freeze()
    _modules_frozen = len(sys.modules)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The clone that the tests run in."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder with published data, named by FMRI_MODELS_TEST_DATA; tests that need it are skipped without it.

    With FMRI_MODELS_REQUIRE_TEST_DATA=1 they fail instead, so that a run meant to be complete is.
    """
    named = os.environ.get("FMRI_MODELS_TEST_DATA")
    if named and Path(named).is_dir():
        return Path(named)
    reason = (
        f"FMRI_MODELS_TEST_DATA is {named!r}, which is no folder"
        if named
        else "FMRI_MODELS_TEST_DATA does not name a folder with published data"
    )
    if os.environ.get("FMRI_MODELS_REQUIRE_TEST_DATA") == "1":
        pytest.fail(f"{reason}, but FMRI_MODELS_REQUIRE_TEST_DATA=1 asks for it.")
    pytest.skip(f"{reason}.")
