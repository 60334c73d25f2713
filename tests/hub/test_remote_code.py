"""The file of code that goes up with a model: where this package is missing, it says how to install it, and no more."""

import json
import os
import subprocess

import pytest

from fmri_models import FmriModelsError, FmriProcessor, FmriToImagePipeline, project
from fmri_models.configuration_fmri import FmriConfig
from fmri_models.models.linear import LinearModel
from fmri_models.remote_code import SHIM_FILE, SHIM_MODULE, additions, shim, without_shim
from tests.hub.loopback_hub import running
from tests.hub.test_round_trip import saved_pipeline
from tests.new_process import python

# Loads in each way and prints what came of it; before the last lines, the package may be hidden or imported.
_HIDDEN = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "fmri_models":
            raise ModuleNotFoundError("No module named 'fmri_models'", name="fmri_models")

sys.meta_path.insert(0, Hidden())
"""
_LOAD = """
import json
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoProcessor

def outcome(loader, trusted, repository, **where):
    try:
        loaded = loader.from_pretrained(f"tester/{repository}", trust_remote_code=trusted, **where)
    except Exception as error:
        return [type(error).__name__, str(error)]
    loaded.save_pretrained(f"{FOLDER}/{loader.__name__}")
    return [type(loaded).__name__, open(f"{FOLDER}/{loader.__name__}/{FILES[loader]}").read()]

FILES = dict.fromkeys([AutoConfig, AutoModel], "config.json")
FILES |= dict.fromkeys([AutoFeatureExtractor, AutoProcessor], "preprocessor_config.json")
found = {}
for loader, file in FILES.items():
    component, alone = ("brain_model", "model") if file == "config.json" else ("processor", "processor")
    within = outcome(loader, TRUSTED, "pipeline", subfolder=component)
    found[loader.__name__] = [within, outcome(loader, TRUSTED, alone)]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory, repository):
    """Runs Python in a process that knows a server with a pipeline, a model and a processor."""
    work = tmp_path_factory.mktemp("work")
    with running(work / "server") as url:

        def run(code, home, trusted=None):
            environment = {
                **os.environ, "HF_ENDPOINT": url, "HF_TOKEN": "hf_test", "HF_HOME": str(work / home),
                "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1",
            }  # fmt: skip
            code = f"FOLDER, TRUSTED = {str(work / home / 'again')!r}, {trusted!r}\n{code}"
            command = [*python(), "-c", code]
            done = subprocess.run(
                command, cwd=repository, env=environment, capture_output=True, text=True, timeout=300,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr[-3000:]
            return json.loads(done.stdout.splitlines()[-1]), work / home

        pipeline = saved_pipeline(work / "pipeline")
        files, _ = run(
            f"""
import json
from huggingface_hub import HfApi
from fmri_models import FmriToImagePipeline
pipe = FmriToImagePipeline.from_pretrained({str(pipeline)!r})
pipe.push_to_hub("tester/pipeline")
pipe.brain_model.push_to_hub("tester/model")
pipe.processor.push_to_hub("tester/processor")
print(json.dumps([HfApi().list_repo_files(f"tester/{{name}}") for name in ("pipeline", "model", "processor")]))
""",
            "author",
        )
        assert all(SHIM_FILE in names for names in files)
        yield run


@pytest.mark.slow
def test_where_the_package_is_missing_every_auto_class_ends_in_one_sentence_that_says_how_to_install_it(run):
    found, _ = run(_HIDDEN + _LOAD, "stranger", trusted=True)
    for loader, outcomes in found.items():
        for name, said in outcomes:
            assert name == "ImportError", (loader, name, said)
            assert said.endswith(project.how_to_install()) and "\n" not in said and said.startswith("This repository")


@pytest.mark.slow
def test_a_package_that_is_installed_and_not_imported_is_imported_and_what_is_saved_again_names_no_code(run):
    found, home = run(_LOAD, "installed", trusted=True)
    names = {loader: {name for name, _ in outcomes} for loader, outcomes in found.items()}
    assert names == {
        "AutoConfig": {"LinearConfig"}, "AutoModel": {"LinearModel"}, "AutoFeatureExtractor": {"FmriProcessor"},
        "AutoProcessor": {"FmriProcessor"},
    }  # fmt: skip
    assert not any("auto_map" in config for outcomes in found.values() for _, config in outcomes)
    assert not list((home / "again").rglob("*.py"))


@pytest.mark.slow
def test_with_the_package_imported_nothing_of_the_file_is_needed_fetched_or_run(run):
    for trusted in (None, True):
        found, home = run("import fmri_models\n" + _LOAD, "user", trusted=trusted)
        assert not [name for outcomes in found.values() for name, _ in outcomes if name.endswith("Error")], found
    assert not list(home.rglob("*.py"))


def pushed(folder):
    """The folder as it would be uploaded."""
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    for name, content in additions(folder, files).items():
        (folder / name).write_bytes(content)
    return folder


def test_a_downloaded_folder_loads_and_is_saved_again_without_code(tmp_path):
    folder = pushed(saved_pipeline(tmp_path / "pipeline"))
    index = json.loads((folder / "brain_model/config.json").read_text())
    assert index["auto_map"]["AutoModel"].startswith(f"{SHIM_MODULE}.") and (folder / SHIM_FILE).is_file()
    again = tmp_path / "again"
    FmriToImagePipeline.from_pretrained(folder).save_pretrained(again)
    assert "auto_map" not in (again / "brain_model/config.json").read_text()
    assert "auto_map" not in (again / "processor/preprocessor_config.json").read_text()
    assert not list(again.rglob("*.py"))
    assert type(FmriConfig.from_pretrained(folder / "brain_model")).__name__ == "LinearConfig"


def test_code_of_others_is_refused_by_our_loaders_and_never_run(tmp_path):
    folder = saved_pipeline(tmp_path / "pipeline")
    ran = tmp_path / "ran"
    for place in (folder, folder / "brain_model", folder / "processor"):
        (place / "evil.py").write_text(f"open({str(ran)!r}, 'w')")
        # Under the name of the file that this package writes it is not looked at either.
        (place / SHIM_FILE).write_text(f"open({str(ran)!r}, 'w')")
    for file in ("brain_model/config.json", "processor/preprocessor_config.json"):
        values = json.loads((folder / file).read_text())
        for module in ("evil", SHIM_MODULE):
            names = ("AutoConfig", "AutoModel", "AutoProcessor", "AutoFeatureExtractor")
            written = {**values, "auto_map": dict.fromkeys(names, f"{module}.X")}
            (folder / file).write_text(json.dumps(written))
            loader = LinearModel if file.startswith("brain") else FmriProcessor
            if module == "evil":
                with pytest.raises(FmriModelsError, match="auto_map"):
                    loader.from_pretrained(folder / file.partition("/")[0])
            else:
                loader.from_pretrained(folder / file.partition("/")[0])
    FmriToImagePipeline.from_pretrained(folder)
    assert not ran.exists()


def test_the_file_is_python_that_demands_nothing_of_pip_and_gives_classes_of_the_package(tmp_path):
    from transformers.dynamic_module_utils import check_imports, get_imports

    file = tmp_path / SHIM_FILE
    file.write_text(shim())
    assert get_imports(file) == ["typing"] and check_imports(file) == []
    names = {}
    exec(compile(file.read_text(), str(file), "exec"), names)
    assert names["__getattr__"]("FmriPreTrainedModel").__name__ == "FmriPreTrainedModel"


def test_only_configurations_of_this_package_name_the_file(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip"}))
    assert additions(tmp_path, ["config.json", "README.md"]) == {}
    others = {"auto_map": {"AutoModel": "evil.X"}, "a": 1}
    assert without_shim(others) == others and without_shim({"auto_map": None}) == {"auto_map": None}
