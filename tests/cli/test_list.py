"""`fmri-models list`: what there is, in JSON completely, as text so that it fits and can be copied."""

import json
import subprocess
import sys

import pytest

from fmri_models import list_datasets, list_generators, list_methods, list_pretrained, list_recipes
from fmri_models.cli.list import WHAT
from fmri_models.cli.main import main

LISTS = {
    "methods": list_methods,
    "generators": list_generators,
    "pretrained": list_pretrained,
    "recipes": list_recipes,
    "datasets": list_datasets,
}


@pytest.fixture
def listed(capsys):
    assert main(["list", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_everything_is_listed(listed):
    assert list(listed) == list(WHAT) == list(LISTS)
    for what, of_python in LISTS.items():
        assert [each["name"] for each in listed[what]] == [record.name for record in of_python()]
        assert all(each["title"] and each["package"] == "fmri_models" for each in listed[what])


def test_json_has_what_the_records_say(listed):
    (method,) = [each for each in listed["methods"] if each["name"] == "mindeye"]
    assert method["paper"]["url"] == "https://arxiv.org/abs/2305.18274"
    assert method["paper"]["authors"][0] == "Paul S. Scotti" and method["paper"]["cited_as"] == "Scotti et al. (2023)"
    assert set(method["pretrained"]) <= {each["name"] for each in listed["pretrained"]}
    (weights,) = [each for each in listed["pretrained"] if each["name"] == "versatile-diffusion"]
    expected = {"state": "reference", "license": "mit", "repository": "shi-labs/versatile-diffusion", "size": 12.3e9}
    assert {key: weights[key] for key in expected} == expected and weights["generator"] == "versatile_diffusion"
    (recipe,) = [each for each in listed["recipes"] if each["name"] == "digits69_mindeye"]
    assert (recipe["method"], recipe["generator"], recipe["data"]) == ("mindeye", "pixels", "digits69")
    assert recipe["paper"] == method["paper"] and "Data:" not in recipe["title"]
    (data,) = [each for each in listed["datasets"] if each["name"] == "digits69"]
    assert data["paper"]["cited_as"] == "van Gerven et al. (2010)" and "not to be passed on" in data["license"]


@pytest.mark.parametrize("columns", [40, 100])
def test_text_fits_but_for_what_is_copied(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["list", "pretrained"]) == 0
    lines = capsys.readouterr().out.splitlines()
    whole = [line.strip() for line in lines if line.strip().startswith(("https://", "fmri-models convert"))]
    assert whole and all(len(line) <= columns for line in lines if line.strip() not in whole)
    assert "https://huggingface.co/shi-labs/versatile-diffusion" in whole
    shown = " ".join(" ".join(lines).split())
    assert "converted; licence not stated; 14.5 GB; Scotti et al. (2023)" in shown
    assert "trained here; apache-2.0; 30 MB" in shown


def test_listing_loads_nothing_heavy_and_answers_at_once():
    program = """
import sys, time
from fmri_models.cli.main import main
assert main(["list"]) == 0
heavy = {"torch", "transformers", "diffusers", "datasets", "numpy", "pydantic"} & set(sys.modules)
assert not heavy, heavy
assert time.process_time() < 1, time.process_time()
"""
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
