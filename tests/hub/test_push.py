"""`fmri-models push`: what goes up, what is refused before anything is sent, and what arrives on a real server."""

import json
import os
import shutil
import subprocess
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from fmri_models import FmriModelsError, FmriToImagePipeline, TrialTable, TrialTableWriter, provenance
from fmri_models.cli.main import main
from fmri_models.data.card import permission_on_card
from fmri_models.data_terms import DATA_TERMS
from fmri_models.examples import EXAMPLES_FOLDER
from fmri_models.hub.owner_statements import OwnerStatements
from fmri_models.provenance import check_weights_may_be_shared
from fmri_models.provenance import permission_on_card as permission_of_pipeline
from fmri_models.remote_code import SHIM_FILE
from tests.generation.adapted import save_pipeline_with_lora
from tests.hub.loopback_hub import running
from tests.hub.test_round_trip import saved_pipeline
from tests.new_process import PythonWith, python
from tests.small_table import write_small_table

# A real server on this machine, which the command knows from its environment alone.
_CLIENT = """
import json, sys
from huggingface_hub import HfApi
api = HfApi()
name, kind = sys.argv[1:]
print(json.dumps({
    "files": sorted(api.list_repo_files(name, repo_type=kind)),
    "private": api.repo_info(name, repo_type=kind).private,
    "commits": [each.title for each in api.list_repo_commits(name, repo_type=kind)],
}))
"""


@pytest.fixture
def example(tmp_path):
    """A pipeline with its report."""
    shutil.copytree(EXAMPLES_FOLDER / "linear-scenes", tmp_path / "mine")
    return tmp_path / "mine"


@pytest.fixture
def unmeasured(tmp_path):
    return saved_pipeline(tmp_path / "unmeasured")


def dry_run(folder, *options, capsys):
    capsys.readouterr()
    code = main(["push", str(folder), "user/name", "--dry-run", "--json", *options])
    told = json.loads(capsys.readouterr().out)
    return code, told


def refusal(folder, *options, capsys):
    code, told = dry_run(folder, *options, capsys=capsys)
    assert code == 1
    return told["error"]


def test_a_dry_run_says_what_would_go_up_with_sizes_and_writes_nothing(example, capsys):
    before = {path: path.read_bytes() for path in example.rglob("*") if path.is_file()}
    code, told = dry_run(example, "--licence", "mit", capsys=capsys)
    assert code == 0 and told["commit"] is None and told["format"] == "pipeline"
    assert {"README.md", "model_index.json", "training.json", "report.json", ".eval_results/fmri_models.yaml"} < set(
        told["files"]
    )
    assert "grid.png" in told["files"], "the built-in scenes may be shown"
    assert SHIM_FILE in told["files"]
    weights = "brain_model/model.safetensors"
    assert told["files"][weights] == (example / weights).stat().st_size
    assert told["bytes"] == sum(told["files"].values())
    assert before == {path: path.read_bytes() for path in example.rglob("*") if path.is_file()}
    assert main(["push", str(example), "user/name", "--dry-run"]) == 0
    assert "nothing was sent" in capsys.readouterr().out


def test_the_adapter_of_a_generator_goes_up_with_its_pipeline(tmp_path, capsys):
    folder = save_pipeline_with_lora(tmp_path / "adapted")
    code, told = dry_run(folder, "--unevaluated", capsys=capsys)
    assert code == 0, told
    assert {
        f"image_generator_adapter/{name}"
        for name in ("adapter_config.json", "adapter_model.safetensors", "base_generator.json")
    } < set(told["files"])
    (folder / "image_generator_adapter" / "adapter_model.bin").write_bytes(b"")
    assert "adapter_model.bin is a pickle" in refusal(folder, "--unevaluated", capsys=capsys)


def test_a_pipeline_without_report_is_refused_unless_that_is_meant(unmeasured, capsys):
    assert "has no report" in refusal(unmeasured, capsys=capsys)
    code, told = dry_run(unmeasured, "--unevaluated", capsys=capsys)
    assert code == 0
    assert any("licence" in note for note in told["notes"]) and any("consent" in note for note in told["notes"])


def test_files_of_others_stay_here(example, capsys):
    (example / "notes.ipynb").write_text("{}")
    (example / "brain_model" / "plot.svg").write_text("<svg/>")
    (example / ".hidden").write_text("x")
    assert not {"notes.ipynb", "brain_model/plot.svg", ".hidden"} & set(dry_run(example, capsys=capsys)[1]["files"])


def test_what_may_not_be_published_is_refused(example, capsys):
    (example / "old.ckpt").write_bytes(b"x")
    assert "old.ckpt is a pickle" in refusal(example, capsys=capsys)
    (example / "old.ckpt").unlink()
    (example / "notes.txt").write_text("token: hf_" + "aB3" * 12)
    assert "notes.txt, line 1, has what looks like a token" in refusal(example, capsys=capsys)
    (example / "notes.txt").write_text("betas in /home/me/scans/x.npy")
    assert "notes.txt, line 1, has the path /home/me/scans/x.npy" in refusal(example, capsys=capsys)
    (example / "notes.txt").unlink()
    weights = example / "brain_model" / "model.safetensors"
    tensors = load_file(weights)
    next(iter(tensors.values())).view(-1)[0] = torch.nan
    save_file(tensors, weights, metadata={"format": "pt"})
    assert "NaN or infinite" in refusal(example, capsys=capsys)


def test_python_refuses_the_same_before_it_asks_the_hub(unmeasured, monkeypatch):
    pipeline = FmriToImagePipeline.from_pretrained(unmeasured)
    with torch.no_grad():
        next(iter(pipeline.brain_model.parameters())).view(-1)[0] = torch.inf
    for each in (pipeline, pipeline.brain_model):
        with pytest.raises(FmriModelsError, match="NaN or infinite"):
            each.push_to_hub("user/name")


def write_table(folder, **about):
    with TrialTableWriter(folder, **{"name": "mine", **about}) as writer:
        pictures = torch.randint(0, 256, (6, 8, 8, 3), dtype=torch.uint8).numpy()
        names = [f"p{index}" for index in range(6)]
        writer.add_stimuli({"stimulus_id": name, "image": each} for name, each in zip(names, pictures, strict=True))
        for part, chosen in (("train", names[:3]), ("validation", names[3:4]), ("test", names[4:])):
            writer.add_trials("subj01", part, stimulus_ids=chosen, fmri=torch.randn(len(chosen), 5).numpy())
    return folder


@pytest.mark.parametrize(
    "about",
    [
        {"name": "nsd"},
        {"name": "my-table", "source": "Natural Scenes Dataset"},
        {"name": "mine", "license": "no redistribution"},
    ],
)
def test_data_whose_terms_forbid_it_are_refused_private_or_not(tmp_path, capsys, about):
    table = write_table(tmp_path / "table", **about)
    for options in ((), ("--private",)):
        assert "forbid" in refusal(table, *options, capsys=capsys)
    with pytest.raises(FmriModelsError, match="forbid"):
        TrialTable.open(table).push_to_hub("user/name", private=True)
    assert dry_run(table, "--permission", "letter of 3 March 2026", capsys=capsys)[0] == 0


def test_pictures_that_may_not_be_passed_on_are_left_out(tmp_path, capsys):
    table = write_table(tmp_path / "table", name="god")
    for options in ((), ("--private",)):
        assert "--without-pictures" in refusal(table, *options, capsys=capsys)
    whole = dry_run(table, "--permission", "letter", capsys=capsys)[1]["files"]
    code, told = dry_run(table, "--without-pictures", capsys=capsys)
    assert code == 0 and told["files"].keys() == whole.keys()
    stimuli = "stimuli/stimuli-00000-of-00001.parquet"
    assert told["files"][stimuli] < whole[stimuli]
    # Nothing here has changed.
    assert TrialTable.open(table).stimuli.num_pictures == 6


def test_what_nobody_knows_to_be_allowed_goes_to_private_repositories_alone(tmp_path, capsys):
    table = write_table(tmp_path / "table", name="miyawaki2008")
    assert "--private" in refusal(table, capsys=capsys)
    assert dry_run(table, "--private", capsys=capsys)[0] == 0
    with pytest.raises(FmriModelsError, match="--private"):
        TrialTable.open(table).push_to_hub("user/name")


def test_only_tables_are_pushed_without_pictures(unmeasured, capsys):
    told = refusal(unmeasured, "--unevaluated", "--without-pictures", capsys=capsys)
    assert "is for trial tables" in told


def test_weights_are_refused_where_terms_forbid_it_and_python_keeps_a_permission_on_the_card(
    unmeasured, tmp_path, monkeypatch
):
    terms = replace(DATA_TERMS[0], weights="forbidden")
    with pytest.raises(FmriModelsError, match="forbid that trained weights are passed on"):
        check_weights_may_be_shared(terms, "The pipeline", None)
    check_weights_may_be_shared(terms, "The pipeline", "letter of 3 March 2026")
    pipeline = FmriToImagePipeline.from_pretrained(unmeasured)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(FmriModelsError, match="could not be uploaded"):
        pipeline.save_pretrained(
            tmp_path / "saved", push_to_hub=True, repo_id="user/name", permission="letter of 3 March 2026"
        )
    assert permission_of_pipeline(tmp_path / "saved") == "letter of 3 March 2026"
    assert OwnerStatements.of_card(tmp_path / "saved" / "README.md").permission == "letter of 3 March 2026"


def test_components_are_refused_as_the_pipeline_is(example, monkeypatch, capsys):
    monkeypatch.setattr(provenance, "terms_of", lambda *about: replace(DATA_TERMS[0], weights="forbidden"))
    for component in ("brain_model", "processor"):
        assert "forbid that trained weights are passed on" in refusal(example / component, capsys=capsys)
    assert dry_run(example / "brain_model", "--permission", "letter of 3 March 2026", capsys=capsys)[0] == 0
    with pytest.raises(FmriModelsError, match="forbid that trained weights are passed on"):
        FmriToImagePipeline.from_pretrained(example).brain_model.push_to_hub("user/name")


def test_nobody_elses_data_are_refused(tmp_path, capsys):
    code, told = dry_run(write_table(tmp_path / "table", license="cc0-1.0"), capsys=capsys)
    assert code == 0 and told["format"] == "trial table"
    assert {"table.json", "README.md", "splits/default.parquet"} < set(told["files"])


def test_a_dry_run_has_the_card_that_would_go_up(unmeasured, tmp_path, capsys):
    assert dry_run(unmeasured, "--unevaluated", capsys=capsys)[1]["files"]["README.md"] > 1000
    assert dry_run(unmeasured / "brain_model", capsys=capsys)[1]["files"]["README.md"] > 500
    assert not list(unmeasured.rglob("README.md"))
    code, told = dry_run(write_table(tmp_path / "table"), "--licence", "mit", capsys=capsys)
    assert code == 0 and told["files"]["README.md"] > 300 and "table.json" in told["notes"][0]


def test_where_an_earlier_version_had_loaded_a_component_from_stays_here(unmeasured, capsys):
    index = unmeasured / "image_generator" / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "_name_or_path": "/home/me/generator"}))
    code, told = dry_run(unmeasured, "--unevaluated", capsys=capsys)
    assert code == 0 and told["files"]["image_generator/model_index.json"] < index.stat().st_size
    index.write_text(json.dumps({**json.loads(index.read_text()), "also": "/home/me/generator"}))
    assert "(also) has the path" in refusal(unmeasured, "--unevaluated", capsys=capsys)


def test_a_generator_in_a_folder_beside_is_noted(unmeasured, capsys):
    index = unmeasured / "model_index.json"
    stated = {key: value for key, value in json.loads(index.read_text()).items() if key != "image_generator"}
    source = {"name": "pixels", "repository": "../generator"}
    index.write_text(json.dumps({**stated, "image_generator_source": source, "image_generator": [None, None]}))
    code, told = dry_run(unmeasured, "--unevaluated", capsys=capsys)
    assert code == 0 and any("../generator" in note for note in told["notes"])


def test_what_is_no_folder_of_ours_is_refused_in_a_sentence(tmp_path, capsys):
    assert "does not exist" in refusal(tmp_path / "none", capsys=capsys)
    assert "holds neither" in refusal(tmp_path, capsys=capsys)


@pytest.fixture(scope="module")
def hub(tmp_path_factory, repository):
    """Runs the command, and asks the server, each in a process that knows it from its environment."""
    work = tmp_path_factory.mktemp("hub")
    with running(work / "server") as url:
        environment = {
            **os.environ, "HF_ENDPOINT": url, "HF_TOKEN": "hf_test", "HF_HOME": str(work / "home"),
            "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        modules = ("fmri_models.pipeline_fmri", "fmri_models.cli.main")
        with PythonWith(*modules, environment=environment, python=python()) as imported:

            def run(*command, code=0):
                done = subprocess.run(
                    [*imported, *map(str, command)], cwd=repository, env=environment, capture_output=True, text=True,
                    timeout=300,
                )  # fmt: skip
                assert done.returncode == code, done.stdout + done.stderr
                return done.stdout

            yield run


@pytest.mark.slow
def test_what_is_pushed_arrives_in_one_commit_and_is_loaded(hub, example, unmeasured, tmp_path):
    options = ("--private", "--licence", "cc-by-4.0", "--consent", "nobody's: simulated")
    told = json.loads(hub("-m", "fmri_models", "push", example, "tester/mine", *options, "--json"))
    there = json.loads(hub("-c", _CLIENT, "tester/mine", "model"))
    assert set(there["files"]) - {".gitattributes"} == set(told["files"])
    assert there["private"] and there["commits"][0] == "Upload pipeline" and len(there["commits"]) == 2
    stated = OwnerStatements.of_card(example / "README.md")
    assert (stated.license, stated.consent) == ("cc-by-4.0", "nobody's: simulated")
    code = "import fmri_models as f; print(f.FmriToImagePipeline.from_pretrained('tester/mine').image_generator_source)"
    assert hub("-c", code).split() == ["embedded"]
    hub("-m", "fmri_models", "push", unmeasured / "brain_model", "tester/model")
    assert {"README.md", "config.json", SHIM_FILE} < set(
        json.loads(hub("-c", _CLIENT, "tester/model", "model"))["files"]
    )
    hub("-m", "fmri_models", "push", unmeasured / "processor", "tester/processor")
    hub("-m", "fmri_models", "push", unmeasured / "image_generator", "tester/generator")
    assert "model_index.json" in json.loads(hub("-c", _CLIENT, "tester/generator", "model"))["files"]


@pytest.mark.slow
def test_a_model_that_is_pushed_beside_a_pipeline_leaves_its_card(hub, unmeasured):
    hub("-m", "fmri_models", "push", unmeasured, "tester/both", "--unevaluated", "--licence", "mit")
    code = f"""
from huggingface_hub import HfApi, hf_hub_download
from fmri_models import FmriToImagePipeline
pipeline = FmriToImagePipeline.from_pretrained({str(unmeasured)!r})
card = open(hf_hub_download("tester/both", "README.md")).read()
pipeline.brain_model.push_to_hub("tester/both")
from fmri_models.cli.main import main
assert main(["push", {str(unmeasured / "brain_model")!r}, "tester/both"]) == 0
files = HfApi().list_repo_files("tester/both")
print(card == open(hf_hub_download("tester/both", "README.md")).read(), "model_index.json" in files)
"""
    assert hub("-c", code).split()[-2:] == ["True", "True"]


@pytest.mark.slow
def test_a_table_is_pushed_with_its_permission_on_the_card(hub, tmp_path):
    table = write_table(tmp_path / "table", name="nsd")
    hub("-m", "fmri_models", "data", "push", table, "tester/table", code=1)
    hub("-m", "fmri_models", "data", "push", table, "tester/table", "--permission", "letter of 3 March 2026")
    assert permission_on_card(table / "README.md") == "letter of 3 March 2026"
    # What somebody has written into the card stays there.
    card = table / "README.md"
    card.write_text(card.read_text() + "\nMine.\n")
    hub("-m", "fmri_models", "data", "push", table, "tester/table", "--permission", "letter of 4 March 2026")
    assert permission_on_card(card) == "letter of 4 March 2026" and card.read_text().endswith("\nMine.\n")
    # The card keeps it, so that it is stated once.
    assert "uploaded to" in hub("-m", "fmri_models", "push", table, "tester/table")


@pytest.mark.slow
def test_a_table_that_was_pushed_without_pictures_opens_there(hub, tmp_path):
    table = write_table(tmp_path / "table", name="god")
    hub("-m", "fmri_models", "data", "push", table, "tester/god", code=1)
    hub("-m", "fmri_models", "data", "push", table, "tester/god", "--without-pictures")
    code = """
from fmri_models import TrialTable
from fmri_models.cli.main import main
table = TrialTable.open("tester/god")
print(table.stimuli.num_pictures, len(table.stimuli), table.trials("subj01").fmri().shape)
assert main(["data", "info", "tester/god", "--page", "page.png"]) == 0
assert main(["data", "validate", "tester/god"]) == 0
"""
    out = hub("-c", code)
    assert "0 6 (3, 5)" in out and "6 stimuli, none with a picture" in out and "no page was written" in out


def test_what_training_wrote_from_absolute_paths_may_go_up(tmp_path, capsys):
    table = write_small_table(tmp_path / "a folder" / "table", subjects=("subj02",))
    out = tmp_path / "a folder" / "out"
    assert main(["train", "linear", f"data={table}", f"out={out}", "generator=pixels"]) == 0
    assert dry_run(out, "--unevaluated", capsys=capsys)[0] == 0
