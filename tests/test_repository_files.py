"""What a repository has besides its package: it parses, and calls what there is."""

import json
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


def steps(workflow: Path) -> list[dict]:
    content = yaml.safe_load(workflow.read_text())
    # YAML 1.1 reads the key `on` as a truth value.
    assert content["name"] == workflow.stem and content[True] and content["permissions"]
    assert all(job["timeout-minutes"] <= 120 for job in content["jobs"].values())
    return [step for job in content["jobs"].values() for step in job["steps"]]


def test_there_is_a_workflow_for_each_purpose():
    assert {workflow.stem for workflow in WORKFLOWS} == {"quality", "tests", "nightly", "release"}


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_call_targets_that_exist(workflow):
    commands = [step["run"] for step in steps(workflow) if "run" in step]
    called = [command.split()[1] for command in commands if command.startswith("make ")]
    assert called and set(called) <= TARGETS
    assert [command for command in commands if not command.startswith(("make ", "gh release "))] == []


def test_what_ci_runs_and_what_the_workflows_run_are_the_same_targets():
    ci = set(re.findall(r"^step make ([a-z-]+)", (ROOT / ".ci" / "run").read_text(), flags=re.MULTILINE))
    called = {
        step["run"].split()[1]
        for workflow in WORKFLOWS
        for step in steps(workflow)
        if step.get("run", "").startswith("make ")
    }
    assert ci - {"demo"} <= called


@pytest.mark.parametrize(
    "form", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")), ids=lambda path: path.stem
)
def test_forms_have_what_forms_need(form):
    content = yaml.safe_load(form.read_text())
    assert content["name"] and content["description"]
    names = [element["id"] for element in content["body"]]
    assert len(set(names)) == len(names)
    assert all(element["attributes"]["label"] for element in content["body"])


def test_hooks_run_the_tools_of_the_environment():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    quality = (ROOT / "Makefile").read_text().partition("\nquality:")[2].partition("\n\n")[0]
    for hook in hooks:
        assert hook["entry"].split()[0].removeprefix(".venv/bin/") in quality


def test_the_container_calls_what_there_is():
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    script = next(line.split()[2] for line in lines if "setup_environment" in line)
    assert (ROOT / script).is_file()
    assert json.loads(lines[-1].removeprefix("CMD "))[0] in TARGETS
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    assert (ROOT / ".devcontainer" / container["build"]["dockerfile"]).resolve().is_file()
    assert container["postCreateCommand"].split()[1] in TARGETS
