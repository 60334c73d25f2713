"""Uploading and loading through the Hub's own client, against a server on this machine."""

import json
import os
import socket
import subprocess

import pytest
from huggingface_hub.errors import HTTPError, XetDownloadError

from fmri_models.generation.pixels import PixelsImageGenerator
from fmri_models.hub_repository import NotFetchedError, hub_errors_as_sentences
from fmri_models.models.linear import LinearConfig, LinearModel, LinearPipeline
from fmri_models.remote_code import SHIM_FILE
from fmri_models.simulation import simulate
from fmri_models.training_record import TrainingRecord
from tests.data.test_windows import CAUTION, TIMES, VOXELS, write
from tests.generation.adapted import save_pipeline_with_lora
from tests.hub.loopback_hub import running
from tests.new_process import PythonWith, python
from tests.small_table import write_kfold, write_small_table
from tests.test_modeling_common import NUM_VOXELS, SUBJECTS
from tests.test_pipeline_common import make_processor

pytest.importorskip("starlette")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running(tmp_path_factory.mktemp("server")) as url:
        yield url


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def client(server, home, repository):
    """Runs one step of the client in a new process and gives what it printed."""

    environment = {
        **os.environ, "HF_ENDPOINT": server, "HF_TOKEN": "hf_test", "HF_HOME": str(home), "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1", "TQDM_DISABLE": "1",
    }  # fmt: skip
    with PythonWith("tests.hub.hub_client", environment=environment, python=python()) as imported:

        def run(step, folder, **variables):
            # Libraries read the variables when they are imported.
            command = [*(python() if variables else imported), "-c", "from tests.hub.hub_client import main; main()"]
            done = subprocess.run(
                [*command, step, str(folder)], cwd=repository, env={**environment, **variables}, capture_output=True,
                text=True, timeout=300,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr[-3000:]
            return json.loads(done.stdout.splitlines()[-1])

        yield run


def saved_pipeline(folder):
    generator = PixelsImageGenerator(3, 4, 4)
    config = LinearConfig(
        subject_names=list(SUBJECTS), num_voxels=list(NUM_VOXELS), latent_space=generator.latent_space.to_dict()
    )
    model = LinearModel(config)
    for parameter in model.parameters():
        parameter.data.normal_(std=0.2)
    LinearPipeline(model, make_processor(), generator).save_pretrained(folder)
    TrainingRecord("linear", "a table", "0" * 64, "default", 0, ["train"], "average").save(folder)
    return folder


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return saved_pipeline(tmp_path_factory.mktemp("work") / "pipeline")


@pytest.mark.slow
def test_a_subject_goes_to_the_hub_alone_and_comes_back_into_its_base(client, tmp_path):
    folder = saved_pipeline(tmp_path / "subject-base")
    found = client("subject", folder)
    assert {"README.md", "subject.json", "subject.safetensors", "training.json"} < set(found["files"])
    assert found["private"] and str(tmp_path) not in found["card"]
    assert found["loaded"] == "new" and found["same"]
    assert found["format"] == "subject" and found["size"] > 0
    assert found["listed"]["new"] == found["listed"]["by-command"] == {"new": 9}
    assert list(found["listed"]["subject-base"]) == list(SUBJECTS)
    assert found["more"] == [*SUBJECTS, "new"]
    assert "without its processor's statistics" in found["layers"]
    assert "tester/never-made" in found["absent"]
    assert "save_subject takes no 'repo'" in found["option"]


def test_a_pipeline_comes_back_from_the_hub_as_it_went(client, pipeline):
    found = client("push", pipeline)
    assert found["private"] and found["commits"] == 2  # the repository's own, and one for everything
    assert {"README.md", "training.json", "model_index.json"} <= set(found["files"])
    assert [name for name in found["files"] if name.endswith((".bin", ".py", ".pkl"))] == [SHIM_FILE]
    assert "library_name: fmri_models" in found["card"] and "Model Card for Model ID" not in found["card"]
    assert str(pipeline) not in found["index"] and "_name_or_path" not in found["index"]
    assert found["same"] and found["class"] == "LinearPipeline" and found["record"] == "a table"
    assert found["pictures"][0] == found["pictures"][1]
    assert found["changed"] and found["pinned"] and found["brain_model"]
    assert {"README.md", "training.json"} <= set(found["elsewhere"])


def test_loaders_of_other_libraries_and_variants_from_the_hub(client, pipeline):
    found = client("loaders", pipeline)
    assert found["processors"] == ["FmriProcessor", "FmriProcessor"] and found["own"] == list(SUBJECTS)
    assert found["generic"] == ["LinearPipeline", "torch.bfloat16", "torch.bfloat16"] and found["draws"] == 20
    assert found["record"] is None
    assert "pass variant='fp16'" in found["no_variant"] and found["variant"]
    assert "no weights of the variant 'fp16'; there are weights without a variant" in found["other_variant"]


@pytest.mark.slow
def test_parts_go_to_the_hub_when_they_are_saved_and_refusals_are_sentences(client, pipeline):
    found = client("parts", pipeline)
    assert found["model"] and found["name"] == "tester/a-model" and found["pushed_model"]
    assert found["processor"] and found["pushed_processor"] == list(SUBJECTS)
    assert found["whole"]
    assert found["adapted"] and found["adapter"] and "model.safetensors" not in found["adapter_files"]
    assert found["variant_files"] == ["brain_model/model.fp16.safetensors"] and found["variant"]
    assert "no repository tester/nothing" in found["absent"] and "no repository tester/nothing" in found["absent_model"]
    assert "has no revision v9" in found["absent_revision"]
    assert "does not let your token write" in found["wrong_token"]
    assert "does not know your token" in found["closed"]
    assert "model_index.json" in found["no_pipeline"]
    offline = client("offline", pipeline, HF_HUB_OFFLINE="1")
    assert offline["same"] and offline["record"] == "a table"
    assert "neither a folder here nor complete in the cache" in offline["absent"]


@pytest.mark.slow
def test_the_adapter_of_a_generator_goes_to_the_hub_and_comes_back(client, tmp_path):
    found = client("generator_adapter", save_pipeline_with_lora(tmp_path / "work" / "pipeline"))
    adapter = {f"image_generator_adapter/{name}" for name in (
        "adapter_config.json", "adapter_model.safetensors", "base_generator.json"
    )}  # fmt: skip
    assert adapter < set(found["files"]) and adapter < set(found["named_files"])
    assert not any(name.startswith("image_generator/") for name in found["named_files"])
    assert found["key"] == "image_generator_adapter" and found["same"] and found["base"] and found["commit"]
    assert "load the pipeline with FmriToImagePipeline" in found["generic"]


@pytest.mark.slow
def test_a_generator_of_the_hub_is_trained_by_lora_and_named_by_the_commit_that_it_was_trained_on(client, tmp_path):
    simulate(
        "builtin:scenes", tmp_path / "table", num_voxels=30, num_train=12, num_validation=0, num_test=4, num_subjects=1
    )
    stage = {
        "name": "draw",
        "training": {"steps": 3, "batch_size": 4, "learning_rate": 0.01, "schedule": "constant"},
        "image_generator": {"lora": {"r": 2}},
    }
    recipe = {"method": "learner", "targets": ["latents"], "stages": [stage]}
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    found = client("trained_generator_adapter", tmp_path)
    assert found["commit"] == found["source"] == found["of_base"] == found["of_peft"] and not found["has_base"]
    assert found["same"] and found["untrained"]
    assert "trained on the unet whose weights in float32" in found["other_base"]
    assert f"of tester/double at {found['commit'][:12]}" in found["other_base"]


@pytest.mark.slow
def test_a_trial_table_goes_to_the_hub_and_is_opened_from_it(client, tmp_path):
    folder = write_small_table(tmp_path / "work" / "table")
    write_kfold(folder, "kfold", 3)
    found = client("table", folder)
    assert found["private"] and "/datasets/tester/table/" in found["address"]
    assert not [name for name in found["files"] if name.endswith((".pkl", ".txt"))]
    assert {"README.md", "table.json", "splits/kfold.parquet"} <= set(found["fetched"])
    assert found["same"] and found["pictures"] and found["splits"] == ["default", "kfold"]
    assert found["pinned"] == [True, False]
    assert found["trained"] == ["small"]
    assert found["findings"] == [] and found["patterns"] == 12
    assert found["rows"] == [36, 36]
    assert "no data set tester/no-table" in found["absent"] and "does not know your token" in found["closed"]
    assert "has no revision v9" in found["absent_revision"]
    assert "is no trial table" in found["no_table"]
    assert "does not let your token write" in found["wrong_token"]
    offline = client("offline_table", folder, HF_HUB_OFFLINE="1")
    assert offline["same"] and offline["local"]
    assert "neither a folder here nor complete in the cache" in offline["absent"]
    assert "hf download --repo-type dataset tester/never-fetched" in offline["absent"]


@pytest.mark.slow
def test_a_hub_that_does_not_answer_is_a_sentence_whatever_goes_there(client, tmp_path):
    saved_pipeline(tmp_path / "pipeline")
    write_small_table(tmp_path / "table")
    # A port that is taken and not listened on: whoever connects is refused.
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        found = client("unreachable", tmp_path, HF_ENDPOINT=endpoint)
    # What other tests have fetched may be read; what is to be known of the Hub's variants is done without.
    del found["load_cached_variant"]
    for way, said in found.items():
        expected = "could not be" if way.startswith("load") else "could not be uploaded to the Hub"
        assert expected in said and ("network" in said or "connection" in said), (way, said)


def test_a_transport_error_in_the_middle_is_a_sentence():
    for error in (HTTPError("the read operation timed out"), XetDownloadError("timed out"), OSError("reset")):
        with pytest.raises(NotFetchedError, match="the Hub could not be asked"), hub_errors_as_sentences("a/b", None):
            raise error


@pytest.mark.slow
def test_a_table_is_announced_where_it_is_fetched_and_what_it_lacks_is_said(client, tmp_path):
    found = client(
        "fetched_tables", write_small_table(tmp_path / "table"), HF_HOME=str(tmp_path / "home"), TQDM_DISABLE=""
    )
    first, *_, last = found["said"]
    assert first.startswith("Fetching tester/small from the Hub: 0/") and " in " in last
    assert found["said_again"] == []
    name, missing = found["missing"]
    assert "tester/small, as it was fetched from the Hub, lacks" in missing and name in missing
    assert "prepare" not in missing


def test_a_table_of_windows_and_clips_comes_back(client, tmp_path):
    found = client("table_of_windows", write(tmp_path / "table").path)
    assert found == {
        "shape": [TIMES, VOXELS], "same": True, "streamed": True, "frames": 3, "streamed_frames": 3,
        "cautions": [CAUTION], "findings": [],
    }  # fmt: skip
