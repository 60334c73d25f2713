"""Other libraries are told of this package however they are imported, and their imports stay as they were."""

import copy
import importlib
import importlib.util
import pickle
import subprocess
import sys
import threading
import time
import types
import zipfile

import pytest

from fmri_models.late import CompletedDict, when_imported
from tests.new_process import python


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """Writes modules with a list `told`."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def write(name: str, text: str = "") -> None:
        (tmp_path / f"{name}.py").write_text(f"told = []\n{text}")
        importlib.invalidate_caches()

    yield write
    for name in set(sys.modules) - before:
        sys.modules.pop(name)


def tell(module):
    module.told.append("ours")


def test_finders_without_the_method_are_passed_over(modules, monkeypatch):
    modules("late_a")
    when_imported("late_a", tell)
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path[:1], object(), *sys.meta_path[1:]])
    assert importlib.import_module("late_a").told == ["ours"]


def test_a_loader_of_several_modules_stays_as_it_is(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "late.zip", "w") as file:
        file.writestr("late_zip/__init__.py", "from . import first\ntold = []\n")
        file.writestr("late_zip/first.py", "from . import helper\ntold = []\n")
        file.writestr("late_zip/helper.py", "")
    monkeypatch.syspath_prepend(tmp_path / "late.zip")
    told = []
    when_imported("late_zip.first", lambda module: told.append((module.__name__, module.told)))
    when_imported("late_zip", lambda module: told.append((module.__name__, module.told)))
    module = importlib.import_module("late_zip")
    assert told == [("late_zip.first", []), ("late_zip", [])]
    assert "exec_module" not in vars(module.__loader__)
    assert type(module.__loader__) is type(module.__spec__.loader) is type(module.first.helper.__loader__)


def test_a_module_keeps_its_loader(modules):
    modules("late_b")
    when_imported("late_b", tell)
    assert importlib.util.find_spec("late_b").loader.get_filename() is not None
    module = importlib.import_module("late_b")
    assert isinstance(module.__loader__, importlib.machinery.SourceFileLoader)
    assert module.__spec__.loader is module.__loader__


def test_what_fails_is_a_warning(modules):
    modules("late_c")
    when_imported("late_c", lambda module: module.moved)
    with pytest.warns(UserWarning, match="could not register with late_c: AttributeError"):
        importlib.import_module("late_c")
    with pytest.warns(UserWarning, match="could not register"):
        when_imported("late_c", lambda module: module.moved)


def test_a_second_import_is_told_too(modules):
    modules("late_d")
    when_imported("late_d", tell)
    module = importlib.import_module("late_d")
    assert importlib.reload(module).told == ["ours"]
    del sys.modules["late_d"]
    assert importlib.import_module("late_d").told == ["ours"]
    # Waited for after it was there.
    modules("late_e")
    module = importlib.import_module("late_e")
    when_imported("late_e", tell)
    assert module.told == ["ours"] and importlib.reload(module).told == ["ours"]


def test_an_import_that_failed_first(modules):
    modules("late_f", "import builtins\nif not hasattr(builtins, 'late_f_works'): raise ImportError('no')\n")
    when_imported("late_f", tell)
    with pytest.raises(ImportError, match="no"):
        importlib.import_module("late_f")
    try:
        __import__("builtins").late_f_works = True
        assert importlib.import_module("late_f").told == ["ours"]
    finally:
        del __import__("builtins").late_f_works


def test_a_module_that_is_being_imported_by_another_thread(modules):
    modules("late_g", "import time\ntime.sleep(0.5)\ntold = []\n")
    importing = threading.Thread(target=importlib.import_module, args=["late_g"])
    importing.start()
    while "late_g" not in sys.modules:
        time.sleep(0.01)
    when_imported("late_g", tell)
    importing.join()
    assert sys.modules["late_g"].told == ["ours"]
    assert importlib.reload(sys.modules["late_g"]).told == ["ours"]


def test_a_module_that_is_being_imported_by_this_thread(modules):
    text = "from fmri_models.late import when_imported\nwhen_imported(__name__, lambda module: module.late.append(1))\n"
    modules("late_h", text + "late = []\n")
    assert importlib.import_module("late_h").late == [1]


def test_a_stub_without_spec(monkeypatch):
    stub = types.SimpleNamespace(told=[])
    monkeypatch.setitem(sys.modules, "late_i", stub)
    when_imported("late_i", tell)
    assert stub.told == ["ours"]


def test_a_copy_of_a_module_does_not_take_its_place(modules):
    modules("late_j")
    when_imported("late_j", tell)
    module = importlib.import_module("late_j")
    sys.modules.pop("late_j")
    spec = importlib.util.find_spec("late_j")
    sys.modules["late_j"] = module
    duplicate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(duplicate)
    assert duplicate.told == module.told == ["ours"]


def test_a_lazy_loader(modules):
    modules("late_k")
    when_imported("late_k", tell)
    spec = importlib.util.find_spec("late_k")
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = sys.modules["late_k"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.told == ["ours"]


def completed():
    found = CompletedDict({"a": [1]}, lambda: found.setdefault("b", 2))
    return found


@pytest.mark.parametrize(
    "read",
    [
        dict, copy.copy, copy.deepcopy, lambda found: found.copy(), lambda found: {**found},
        lambda found: found | {}, lambda found: {} | found, lambda found: pickle.loads(pickle.dumps(found)),
        lambda found: {key: found.get(key) for key in "ab"}, lambda found: {"a": found.pop("a"), "b": found.pop("b")},
        lambda found: dict(reversed(found.items())), lambda found: dict(found.items()),
        lambda found: dict(zip(found, found.values(), strict=True)), lambda found: eval(repr(found)),
        lambda found: {key: found[key] for key in reversed(found)},
    ],
)  # fmt: skip
def test_every_way_to_read_a_dictionary_completes_it(read):
    found = read(completed())
    assert type(found) is dict and found == {"a": [1], "b": 2}
    assert completed() == {"a": [1], "b": 2} and bool(completed())
    assert isinstance(completed(), dict) and (completed() != {"a": [1], "b": 2}) is False


@pytest.mark.slow
def test_transformers_mapping_can_be_copied():
    program = (
        "import copy, fmri_models\n"
        "from transformers.models.auto.configuration_auto import CONFIG_MAPPING as mapping\n"
        "assert mapping._extra_content.get('fmri-linear').__name__ == 'LinearConfig'\n"
        "assert copy.deepcopy(mapping._extra_content) == mapping._extra_content\n"
    )
    subprocess.run([*python(), "-c", program], check=True)
