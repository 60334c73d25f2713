"""`fmri-models push-space`: what goes up of a Space, what is refused before, and what arrives on a real server."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from fmri_models import FmriModelsError, __version__
from fmri_models.cli.main import main
from fmri_models.examples import EXAMPLES_FOLDER, TRIALS_FOLDER
from fmri_models.hub import own_wheel as wheels
from fmri_models.hub.own_wheel import OwnWheel, own_wheel
from fmri_models.hub.space_readme import space_readme
from fmri_models.project import clone_folder
from tests.hub.loopback_hub import SPACE_README, Fault, running
from tests.small_table import write_small_table

METADATA = """Metadata-Version: 2.4
Name: fmri_models
Version: 1.0
Requires-Dist: torch>=2.11
Requires-Dist: transformers<6,>=5.17
Requires-Dist: odd>=1; python_version < '3.10'
Provides-Extra: space
Requires-Dist: gradio<7,>=6.20; extra == 'space'
Requires-Dist: later>=2; (python_version >= '3.14') and extra == 'space'
Requires-Dist: timm>=1; extra == 'demo'

A page that says Requires-Dist: nothing
"""


def write_wheel(path: Path, **further: str | bytes) -> Path:
    """A small wheel that is one of this package to all that looks at it; `further` are files of the package."""
    space = clone_folder() / "space"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("fmri_models/__init__.py", "WHERE = 'the wheel'\ncache = '~/.cache/fmri_models'\n")
        for file in space.iterdir():
            if file.is_file():
                archive.write(file, f"fmri_models/_shipped/space/{file.name}")
        archive.writestr("fmri_models-1.0.dist-info/METADATA", METADATA)
        for name, content in further.items():
            archive.writestr(f"fmri_models/{name}", content)
    return path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return write_wheel(tmp_path_factory.mktemp("wheel") / "fmri_models-1.0-py3-none-any.whl")


@pytest.fixture
def model(tmp_path):
    shutil.copytree(EXAMPLES_FOLDER / "linear-scenes", tmp_path / "pipeline")
    return tmp_path / "pipeline"


@pytest.fixture
def table(tmp_path):
    shutil.copytree(EXAMPLES_FOLDER / TRIALS_FOLDER, tmp_path / "table")
    return tmp_path / "table"


def dry_run(wheel, *options, capsys):
    capsys.readouterr()
    arguments = ["push-space", "user/name", "--dry-run", "--json", "--wheel", str(wheel), *map(str, options)]
    code = main(arguments)
    return code, json.loads(capsys.readouterr().out)


def refusal(wheel, *options, capsys):
    code, told = dry_run(wheel, *options, capsys=capsys)
    assert code in (1, 2)
    return told["error"]


def test_a_dry_run_says_what_would_go_up_with_sizes_and_sends_nothing(wheel, capsys):
    code, told = dry_run(wheel, capsys=capsys)
    assert code == 0 and told["commit"] is None and told["variables"] == {}
    assert set(told["files"]) == {"README.md", "app.py", "start.py", "requirements.txt", wheel.name}
    assert told["files"][wheel.name] == wheel.stat().st_size and told["bytes"] == sum(told["files"].values())
    assert main(["push-space", "user/name", "--dry-run", "--wheel", str(wheel)]) == 0
    said = capsys.readouterr().out
    assert "would go to user/name as a Space" in said and "nothing was sent" in said


def test_folders_go_up_with_the_space_and_are_not_changed_by_a_dry_run(wheel, model, table, capsys):
    (model / "notes.txt").write_text("mine")
    (model / "README.md").unlink()
    before = {path: path.read_bytes() for folder in (model, table) for path in folder.rglob("*") if path.is_file()}
    code, told = dry_run(wheel, "--model", model, "--data", table, capsys=capsys)
    assert code == 0, told
    assert told["variables"] == {"FMRI_MODEL": "model", "FMRI_DATA": "data"}
    assert {"model/model_index.json", "model/brain_model/model.safetensors", "data/table.json", "data/README.md"} < set(
        told["files"]
    )
    assert "model/notes.txt" not in told["files"]
    assert any("licence" in note for note in told["notes"])
    assert before == {
        path: path.read_bytes() for folder in (model, table) for path in folder.rglob("*") if path.is_file()
    }


def test_repositories_are_named_and_not_fetched(wheel, capsys):
    code, told = dry_run(wheel, "--model", "user/model", "--data", "user/table", capsys=capsys)
    assert code == 0 and told["variables"] == {"FMRI_MODEL": "user/model", "FMRI_DATA": "user/table"}
    assert not [name for name in told["files"] if "/" in name]


@pytest.mark.slow
def test_what_may_not_be_published_is_refused_as_push_does(wheel, model, table, capsys):
    options = ("--model", model, "--data", table)
    (model / "old.ckpt").write_bytes(b"x")
    assert "old.ckpt is a pickle" in refusal(wheel, *options, capsys=capsys)
    (model / "old.ckpt").unlink()
    (model / "notes.txt").write_text("token: hf_" + "aB3" * 12)
    assert "notes.txt, line 1, has what looks like a token" in refusal(wheel, *options, capsys=capsys)
    (model / "notes.txt").unlink()
    (table / "notes.txt").write_text("betas in /home/me/scans/x.npy")
    assert "has the path /home/me/scans/x.npy" in refusal(wheel, *options, capsys=capsys)
    (table / "notes.txt").unlink()
    (model / "report.json").unlink()
    assert "has no report" in refusal(wheel, *options, capsys=capsys)
    assert dry_run(wheel, *options, "--unevaluated", capsys=capsys)[0] == 0
    metadata = table / "table.json"
    metadata.write_text(json.dumps({**json.loads(metadata.read_text()), "name": "nsd"}))
    assert "forbid" in refusal(wheel, *options, "--unevaluated", capsys=capsys)


def test_what_is_no_pipeline_or_no_table_of_it_is_refused_in_a_sentence(wheel, model, table, tmp_path, capsys):
    assert "go together" in refusal(wheel, "--model", model, capsys=capsys)
    assert "go together" in refusal(wheel, "--data", table, capsys=capsys)
    assert "neither a folder nor a repository" in refusal(wheel, "--model", "nothing", "--data", table, capsys=capsys)
    swapped = refusal(wheel, "--model", table, "--data", model, capsys=capsys)
    assert "holds a trial table; expected the folder of a pipeline" in swapped
    component = refusal(wheel, "--model", model / "processor", "--data", table, capsys=capsys)
    assert "holds a processor; expected the folder of a pipeline" in component
    other = write_small_table(tmp_path / "other", subjects=("subj02",), subject_names={"subj02": "anna"})
    assert "nothing to show" in refusal(wheel, "--model", model, "--data", other, capsys=capsys)


@pytest.mark.parametrize("simulated", [True, False])
def test_measured_brain_activity_is_noted(wheel, model, table, simulated, capsys):
    metadata = table / "table.json"
    metadata.write_text(json.dumps({**json.loads(metadata.read_text()), "simulated": simulated}))
    code, told = dry_run(wheel, "--model", model, "--data", table, capsys=capsys)
    assert code == 0, told
    assert any("their consent goes" in note for note in told["notes"]) != simulated


# ------------------------------------------------------------------------------------------------------- the wheel


def test_the_wheel_says_what_it_needs_with_an_extra(wheel):
    assert OwnWheel(wheel).requirements("space") == [
        "torch>=2.11",
        "transformers<6,>=5.17",
        "odd>=1; python_version < '3.10'",
        "gradio<7,>=6.20",
        "later>=2; (python_version >= '3.14')",
    ]


def test_what_is_no_wheel_of_ours_is_refused_in_a_sentence(tmp_path, wheel, capsys):
    assert "has not the name of a wheel" in refusal(tmp_path / "other-1.0-py3-none-any.whl", capsys=capsys)
    damaged = tmp_path / "fmri_models-2.0-py3-none-any.whl"
    assert "There is no wheel" in refusal(damaged, capsys=capsys)
    damaged.write_text("no zip")
    assert "no wheel, which is a zip file" in refusal(damaged, capsys=capsys)
    with zipfile.ZipFile(damaged, "w") as archive:
        archive.writestr("other/__init__.py", "")
    assert "has no package fmri_models in it" in refusal(damaged, capsys=capsys)
    with zipfile.ZipFile(damaged, "w") as archive:
        archive.writestr("fmri_models/__init__.py", "")
    assert "has no app.py of the Space" in refusal(damaged, capsys=capsys)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("weights.pkl", b"x", "fmri_models/weights.pkl is a pickle"),
        ("notes.txt", "token: hf_" + "aB3" * 12, "fmri_models/notes.txt, line 1, has what looks like a token"),
    ],
)
def test_what_somebody_has_left_in_the_clone_does_not_go_up(tmp_path, name, content, message, capsys):
    path = write_wheel(tmp_path / "fmri_models-1.0-py3-none-any.whl", **{name: content})
    assert message in refusal(path, capsys=capsys)


def test_without_a_clone_a_sentence_says_what_to_do(monkeypatch):
    monkeypatch.setattr(wheels, "clone_folder", lambda: None)
    with pytest.raises(FmriModelsError, match="give its wheel with --wheel FILE"), own_wheel():
        pass


def test_a_build_that_fails_is_a_sentence(monkeypatch, tmp_path):
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'fmri_models'\n")
    monkeypatch.setattr(wheels, "clone_folder", lambda: tmp_path)
    with pytest.raises(FmriModelsError, match=r"was not built \("), own_wheel():
        pass
    monkeypatch.setattr(wheels.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FmriModelsError, match="neither hatchling nor pip"), own_wheel():
        pass


@pytest.mark.slow
def test_in_a_clone_the_wheel_is_built(capsys):
    pytest.importorskip("hatchling")
    with own_wheel() as built:
        path = built.path
        assert path.name == f"fmri_models-{__version__}-py3-none-any.whl"
        assert set(built.shipped("space")) >= {"app.py", "start.py", "README.md"}
        assert any(line.startswith("gradio") for line in built.requirements("space"))
        assert not any(line.startswith("pytest") for line in built.requirements("space"))
        assert dry_run(path, capsys=capsys)[0] == 0
    assert not path.exists()


# ----------------------------------------------------------------------------------------------------- what starts it


def test_the_space_starts_with_the_package_of_the_wheel(wheel, tmp_path):
    shutil.copy(clone_folder() / "space" / "start.py", tmp_path)
    shutil.copy(wheel, tmp_path)
    (tmp_path / "app.py").write_text(
        "import os, fmri_models\nprint(__name__, fmri_models.WHERE, os.path.exists('app.py'))\n"
    )
    done = subprocess.run(
        [sys.executable, str(tmp_path / "start.py")], cwd=tmp_path.parent, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == ["__main__", "the", "wheel", "True"], done.stderr


# ------------------------------------------------------------------------------------------------------- its README.md


SHIPPED = (
    "---\ntitle: Ours\nsdk: gradio\nsdk_version: 6.31.0\npython_version: '3.11'\napp_file: start.py\n---\n\n# Ours\n"
)


def header(text):
    return yaml.safe_load(text.split("---\n")[1])


def test_the_page_is_ours_where_nobody_has_written_one():
    made = SPACE_README.format(title="name", sdk="gradio")
    assert space_readme(SHIPPED, None, [], []) == space_readme(SHIPPED, made, [], []) == SHIPPED
    linked = space_readme(SHIPPED, made, ["user/model"], ["user/table"])
    assert header(linked)["models"] == ["user/model"] and header(linked)["datasets"] == ["user/table"]
    assert linked.endswith("---\n\n# Ours\n")


def test_what_somebody_has_written_stays_but_for_what_the_page_starts_with():
    theirs = "---\ntitle: Mine\nemoji: 🐈\nsdk: gradio\nsdk_version: 5.0.0\nmodels:\n- user/old\n---\nMine: ---\n"
    kept = space_readme(SHIPPED, theirs, [], [])
    assert kept.endswith("---\nMine: ---\n")
    assert header(kept) == {
        **{"title": "Mine", "emoji": "🐈", "sdk": "gradio", "sdk_version": "6.31.0", "models": ["user/old"]},
        **{"python_version": "3.11", "app_file": "start.py"},
    }
    assert space_readme(SHIPPED, kept, [], []) == kept, "nothing is written anew where nothing changes"
    assert header(space_readme(SHIPPED, kept, ["user/new"], []))["models"] == ["user/new"]
    without_header = space_readme(SHIPPED, "# Mine\n", [], [])
    assert header(without_header)["app_file"] == "start.py" and without_header.endswith("---\n# Mine\n")
    broken = space_readme(SHIPPED, "---\ntitle: [\n---\n# Mine\n", [], [])
    assert header(broken)["app_file"] == "start.py" and broken.endswith("---\n# Mine\n")


# ---------------------------------------------------------------------------------------------------------- the server


# Runs the command again and again in one process, which knows the server from its environment alone.
_PRELUDE = """
import contextlib, io, json, os, sys
from huggingface_hub import HfApi, hf_hub_download
from fmri_models.cli.main import main
api = HfApi()

def run(*arguments, command="push-space"):
    with contextlib.redirect_stdout(io.StringIO()) as output:
        main([command, *map(str, arguments), "--json"])
    return json.loads(output.getvalue())

def text(name, file):
    return open(hf_hub_download(name, file, repo_type="space"), encoding="utf-8").read()

def seen(name):
    info = api.repo_info(name, repo_type="space")
    return {
        "files": sorted(api.list_repo_files(name, repo_type="space")), "private": info.private, "sdk": info.sdk,
        "commits": [each.title for each in api.list_repo_commits(name, repo_type="space")],
        "variables": {key: each.value for key, each in api.get_space_variables(name).items()},
        "readme": text(name, "README.md"), "requirements": text(name, "requirements.txt"),
    }
"""


@pytest.fixture
def hub(tmp_path, repository):
    """Runs code after `_PRELUDE` against a server; what it leaves as `found` comes back."""
    server = running(tmp_path / "server")
    with server as url:
        environment = {
            **os.environ, "HF_ENDPOINT": url, "HF_TOKEN": "hf_test", "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1",
        }  # fmt: skip

        def run(code, *faults):
            server.faults[:] = faults
            done = subprocess.run(
                [sys.executable, "-c", f"{_PRELUDE}\n{code}\nprint(json.dumps(found))"],
                cwd=repository, env=environment, capture_output=True, text=True, timeout=300,
            )  # fmt: skip
            assert done.returncode == 0, done.stdout + done.stderr
            return json.loads(done.stdout)

        yield run


@pytest.mark.slow
def test_a_space_arrives_in_one_commit_and_is_pushed_again(hub, wheel, model, table, tmp_path):
    newer = tmp_path / "fmri_models-1.1-py3-none-any.whl"
    shutil.copy(wheel, newer)
    steps = hub(f"""
model, table, wheel, newer = {str(model)!r}, {str(table)!r}, ("--wheel", {str(wheel)!r}), ("--wheel", {str(newer)!r})
found = [[run("page", *wheel), seen("tester/page")]]
changed = (text("tester/page", "README.md") + "Mine.\\n").replace("title: Images from fMRI", "title: Mine")
api.upload_file(
    path_or_fileobj=changed.encode(), path_in_repo="README.md", repo_id="tester/page", repo_type="space"
)
shown = ("--model", model, "--data", table, "--licence", "mit")
found.append([run("tester/page", *newer, *shown), seen("tester/page")])
found.append([run("tester/page", *newer), seen("tester/page")])
run(model, "tester/pipeline", "--private", command="push"), run(table, "tester/table", command="push")
shown = ("--model", "tester/pipeline", "--data", "tester/table")
found.append([run("tester/page", *newer, *shown), seen("tester/page")])
""")

    told, there = steps[0]
    assert set(there["files"]) == set(told["files"]) and there["sdk"] == "gradio" and not there["private"]
    assert there["commits"] == ["Upload Space", "initial commit"] and there["variables"] == {} == told["variables"]
    assert header(there["readme"])["app_file"] == "start.py" and "# Images from fMRI" in there["readme"]
    assert "--extra-index-url https://download.pytorch.org/whl/cpu\ntorch>=2.11\n" in there["requirements"]
    assert told["space"].endswith("/spaces/tester/page") and "/commit/" in told["commit"]

    told, there = steps[1]
    assert set(there["files"]) == set(told["files"]), "the former wheel has left"
    assert there["readme"].endswith("Mine.\n") and header(there["readme"])["title"] == "Mine"
    assert there["variables"] == {"FMRI_MODEL": "model", "FMRI_DATA": "data"} == told["variables"]
    assert len(there["commits"]) == 4

    told, there = steps[2]
    assert "model/model_index.json" in there["files"] and there["variables"]["FMRI_MODEL"] == "model"
    assert "goes on showing" in told["notes"][0]

    told, there = steps[3]
    assert not [name for name in there["files"] if "/" in name], "what was shown before has left"
    assert there["variables"] == {"FMRI_MODEL": "tester/pipeline", "FMRI_DATA": "tester/table"}
    assert header(there["readme"])["models"] == ["tester/pipeline"]
    assert header(there["readme"])["datasets"] == ["tester/table"]
    assert any("tester/pipeline is private" in note for note in told["notes"])


@pytest.mark.slow
def test_what_the_hub_refuses_is_a_sentence(hub, wheel):
    code = f"""
wheel, found = ("--wheel", {str(wheel)!r}), {{}}
found["paid"] = run("tester/closed", *wheel)["error"]
os.environ["HF_TOKEN"] = "hf_reader"
found["reader"] = run("tester/closed", *wheel)["error"]
os.environ["HF_TOKEN"] = "hf_test"
named = ("--model", "tester/no-such-pipeline", "--data", "tester/no-such-table")
found["absent"] = run("tester/nothing", *wheel, *named)["error"]
found["made"] = api.repo_exists("tester/nothing", repo_type="space")
api.create_repo("tester/other", repo_type="space", space_sdk="gradio")
api.upload_file(path_or_fileobj=b"import gradio", path_in_repo="app.py", repo_id="tester/other", repo_type="space")
found["other"] = run("tester/other", *wheel)["error"]
found["commit"] = run("tester/closed", *wheel, "--private")["commit"]
found["private"] = seen("tester/closed")["private"]
api.create_repo("tester/model"), api.create_repo("tester/table", repo_type="dataset")
found["half"] = run("tester/closed", *wheel, "--model", "tester/model", "--data", "tester/table")["error"]
found["again"] = run("tester/closed", *wheel, "--model", "tester/model", "--data", "tester/table")["variables"]
api.create_repo("tester/open", repo_type="space", space_sdk="gradio")
found["public"] = run("tester/open", *wheel, "--private")["error"]
"""
    found = hub(code, Fault("POST", "/api/repos/create", 402), Fault("POST", "/variables$", 403))
    assert "only for accounts that pay for it" in found["paid"]
    assert "does not let your token write" in found["reader"]
    assert "There is no repository tester/no-such-pipeline on the Hub" in found["absent"] and not found["made"]
    assert "has another app (app.py), which would be lost" in found["other"]
    assert found["commit"] and found["private"]
    assert "tester/open is there already and is public, and nothing was uploaded" in found["public"]
    assert found["half"].startswith("The files of tester/closed are uploaded, and its variable FMRI_MODEL is not set")
    assert found["again"] == {"FMRI_MODEL": "tester/model", "FMRI_DATA": "tester/table"}


def test_without_a_network_a_sentence_says_so(wheel, capsys):
    assert main(["push-space", "user/name", "--wheel", str(wheel)]) == 1
    assert "user/name could not be uploaded to the Hub" in capsys.readouterr().err
