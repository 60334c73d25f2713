"""transformers' own tests, as `scripts/fetch_transformers_tests.py` lays them down; they are no part of this clone.

Their package is called `tests`, as ours is, so it is imported under another name. The source distribution carries the
modules of the top folder only; what these import from below it is replaced by empty classes, and by values of ours.
"""

import os
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

_PACKAGE = "transformers_tests"
_REPOSITORY = Path(__file__).resolve().parent.parent.parent
FOLDER = _REPOSITORY / ".suites" / f"transformers-{version('transformers')}" / "tests"
_REQUIRED = "FMRI_MODELS_REQUIRE_TRANSFORMERS_TESTS"
_MISSING = (
    f"transformers' own tests of version {version('transformers')} are not here; fetch them with "
    "`python scripts/fetch_transformers_tests.py`."
)
# Fields that every configuration takes, with values that are no defaults.
_COMMON_FIELDS = {
    "return_dict": False,
    "output_hidden_states": True,
    "dtype": "float16",
    "chunk_size_feed_forward": 5,
    "architectures": ["SomeModel"],
    "id2label": {0: "label"},
    "label2id": {"label": "0"},
    "problem_type": "regression",
}
_STAND_INS: dict[str, dict[str, Any]] = {
    "exporters.test_export": {"ExportTesterMixin": type("ExportTesterMixin", (), {})},
    "generation.test_utils": {"GenerationTesterMixin": type("GenerationTesterMixin", (), {})},
    "utils.test_configuration_utils": {"config_common_kwargs": _COMMON_FIELDS},
}


def suite(module: str) -> Any:
    """A module of transformers' tests, such as `test_modeling_common`.

    Without them, the module that asks is skipped, and fails with FMRI_MODELS_REQUIRE_TRANSFORMERS_TESTS=1.
    """
    if not (FOLDER / f"{module}.py").is_file():
        if os.environ.get(_REQUIRED) == "1":
            raise FileNotFoundError(f"{_MISSING} {_REQUIRED}=1 asks for them.")
        pytest.skip(_MISSING, allow_module_level=True)
    _install()
    return import_module(f"{_PACKAGE}.{module}")


def _install() -> None:
    if _PACKAGE in sys.modules:
        return
    _add_package(_PACKAGE, FOLDER)
    for name, content in _STAND_INS.items():
        folder, module = name.split(".")
        if (FOLDER / folder / f"{module}.py").is_file():
            continue
        _add_package(f"{_PACKAGE}.{folder}", FOLDER / folder)
        stand_in = ModuleType(f"{_PACKAGE}.{name}")
        vars(stand_in).update(content)
        sys.modules[stand_in.__name__] = stand_in


def _add_package(name: str, folder: Path) -> None:
    package = ModuleType(name)
    package.__path__ = [str(folder)]
    sys.modules[name] = package
