"""Both kinds of repositories, pipelines and single models, as a user loads them in each way that libraries have."""

import json
import os
import subprocess

import pytest

from fmri_models.cli.main import main
from tests.hub.loopback_hub import running
from tests.hub.test_round_trip import saved_pipeline
from tests.new_process import python
from tests.small_table import write_small_table

# One process that takes steps as lines; each is a piece of Python that sets `found`.
_WORKER = """
import json, sys
import numpy as np
import torch
from diffusers import DiffusionPipeline
from huggingface_hub import HfApi
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel, AutoProcessor
from fmri_models import FmriProcessor, FmriToImagePipeline, LinearModel, LinearPipeline, TrialTable
from fmri_models.errors import FmriModelsError
from tests.hub.hub_client import drawn
from tests.tensor_digests import digests, pipeline_digests

load = FmriToImagePipeline.from_pretrained

def refusal(function, *args, **kwargs):
    try:
        return repr(function(*args, **kwargs))
    except FmriModelsError as error:
        return str(error)

for line in sys.stdin:
    scope = dict(globals())
    exec(json.loads(line), scope)
    print(json.dumps(scope["found"]), flush=True)
"""


class Worker:
    def __init__(self, work, url, repository):
        self.environment = {
            **os.environ, "HF_ENDPOINT": url, "HF_TOKEN": "hf_test", "HF_HOME": str(work / "home"),
            "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        self.work, self.repository = work, repository
        self.process = self._start(*python(), "-c", _WORKER)

    def _start(self, *command, **variables):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=self.repository, env={**self.environment, **variables}, **pipes)

    def __call__(self, code):
        self.process.stdin.write(json.dumps(code) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline() or '"the process has ended"')

    def anew(self, *command, say="", **variables):
        """What a new process says."""
        with self._start(*command, **variables) as process:
            out, _ = process.communicate(say, timeout=300)
        assert process.returncode == 0, out
        return out


@pytest.fixture(scope="module")
def worker(tmp_path_factory, repository):
    work = tmp_path_factory.mktemp("work")
    with running(work / "server") as url:
        worker = Worker(work, url, repository)
        pipeline = saved_pipeline(work / "pipeline")
        worker(f"""
pipe = load({str(pipeline)!r})
pipe.push_to_hub("tester/pipeline", max_shard_size="1KB")
pipe.brain_model.push_to_hub("tester/model", max_shard_size="1KB")
pipe.processor.push_to_hub("tester/processor")
found = None
""")
        yield worker
        worker.process.stdin.close()
        worker.process.wait(60)


def test_each_loader_takes_a_part_of_a_pipeline_and_a_single_model(worker):
    found = worker("""
own = load("tester/pipeline").brain_model
places = [("tester/pipeline", "brain_model"), ("tester/model", "")]
loaders = (AutoModel, LinearModel)
models = [loader.from_pretrained(place, subfolder=folder) for loader in loaders for place, folder in places]
configs = [AutoConfig.from_pretrained(place, subfolder=folder) for place, folder in places]
others = [loader.from_pretrained(*place) if len(place) == 1 else loader.from_pretrained(place[0], subfolder=place[1])
          for loader in (AutoProcessor, AutoFeatureExtractor, FmriProcessor)
          for place in (("tester/pipeline", "processor"), ("tester/processor",))]
loaders = (FmriToImagePipeline, LinearPipeline, DiffusionPipeline)
pipes = [loader.from_pretrained("tester/pipeline") for loader in loaders]
found = {
    "same": [digests(each) == digests(own) for each in models], "configs": [type(each).__name__ for each in configs],
    "processors": [type(each).__name__ for each in others], "pipelines": [type(each).__name__ for each in pipes],
    "drawn": len({str(drawn(each)) for each in pipes}),
    "shards": len([name for name in HfApi().list_repo_files("tester/model") if name.endswith(".safetensors")]),
}
""")
    assert found["same"] == [True] * 4 and found["configs"] == ["LinearConfig"] * 2 and found["shards"] > 1
    assert found["processors"] == ["FmriProcessor"] * 6 and found["pipelines"] == ["LinearPipeline"] * 3
    assert found["drawn"] == 1


def test_types_devices_and_variants(worker):
    found = worker("""
load("tester/pipeline").push_to_hub("tester/half", variant="fp16", max_shard_size="1KB")
load("tester/pipeline").brain_model.push_to_hub("tester/half-model", variant="fp16")
found = [str(each.dtype) for each in (
    load("tester/pipeline", dtype=torch.bfloat16), load("tester/pipeline", torch_dtype="float16").brain_model,
    AutoModel.from_pretrained("tester/model", dtype=torch.bfloat16),
    LinearModel.from_pretrained("tester/model", dtype="float16"),
)]
found += [str(each.device) for each in (
    load("tester/pipeline", device_map="cpu"), AutoModel.from_pretrained("tester/model", device_map="cpu"),
    AutoModel.from_pretrained("tester/pipeline", subfolder="brain_model", device_map="auto"),
)]
found += [
    pipeline_digests(load("tester/half", variant="fp16")) == pipeline_digests(load("tester/pipeline")),
    digests(AutoModel.from_pretrained("tester/half-model", variant="fp16")) == digests(LinearModel.from_pretrained(
        "tester/model")),
    refusal(load, "tester/half"), refusal(AutoModel.from_pretrained, "tester/half-model"),
]
""")
    assert found[:4] == ["torch.bfloat16", "torch.float16"] * 2
    assert found[4:7] == ["cpu"] * 3 and found[7:9] == [True, True]
    assert "variant='fp16'" in found[9] and "variant='fp16'" in found[10]


def test_a_branch_a_tag_and_a_commit_are_what_they_were(worker):
    found = worker("""
api = HfApi()
pipe = load("tester/pipeline")
pipe.push_to_hub("tester/moving")
first = api.repo_info("tester/moving").sha
api.create_tag("tester/moving", tag="v1")
before = pipeline_digests(pipe)
with torch.no_grad():
    next(iter(pipe.brain_model.parameters())).add_(1)
pipe.push_to_hub("tester/moving", revision="work")
after = pipeline_digests(pipe)
revisions = {"main": before, "v1": before, first: before, "work": after}
found = [pipeline_digests(load("tester/moving", revision=name)) == expected for name, expected in revisions.items()]
model = lambda name: AutoModel.from_pretrained("tester/moving", subfolder="brain_model", revision=name)
found += [digests(model("v1")) == digests(load("tester/moving").brain_model)]
found += [digests(model("work")) == digests(pipe.brain_model)]
""")
    assert found == [True] * 6


@pytest.mark.slow
def test_pushing_again_in_other_shards_leaves_no_weights_of_before(worker):
    found = worker("""
found = []
for sizes in (["1GB", "1KB"], ["1KB", "1GB"]):
    name = f"tester/again-{sizes[0]}"
    pipe = load("tester/pipeline")
    pipe.push_to_hub(name, max_shard_size=sizes[0])
    pipe.brain_model.push_to_hub(f"{name}-model", max_shard_size=sizes[0])
    with torch.no_grad():
        next(iter(pipe.brain_model.parameters())).add_(1)
    pipe.push_to_hub(name, max_shard_size=sizes[1])
    pipe.brain_model.push_to_hub(f"{name}-model", max_shard_size=sizes[1])
    found += [pipeline_digests(load(name)) == pipeline_digests(pipe)]
    found += [digests(AutoModel.from_pretrained(f"{name}-model")) == digests(pipe.brain_model)]
    found += [len(HfApi().list_repo_commits(name))]
""")
    assert found == [True, True, 3] * 2


@pytest.mark.slow
def test_a_pipeline_names_a_generator_by_repository_revision_and_subfolder(worker):
    found = worker(
        """
api = HfApi()
pipe = load("tester/pipeline")
pipe.image_generator.save_pretrained("WORK/generator/large")
api.create_repo("tester/generators", exist_ok=True)
api.upload_folder(repo_id="tester/generators", folder_path="WORK/generator")
api.create_tag("tester/generators", tag="v1")
source = {"repository": "tester/generators", "revision": "v1", "subfolder": "large"}
named = load("tester/pipeline", image_generator_source=source)
named.push_to_hub("tester/named")
found = [[name for name in api.list_repo_files("tester/named") if name.startswith("image_generator")], drawn(pipe)]
""".replace("WORK", str(worker.work))
    )
    files, expected = found
    assert files == []
    load = "FmriToImagePipeline.from_pretrained('tester/named')"
    script = f"from tests.hub.hub_client import *; print(json.dumps(drawn({load})))"
    assert json.loads(worker.anew(*python(), "-c", script).splitlines()[-1]) == expected
    # What was fetched is enough from now on.
    offline = worker.anew(*python(), "-c", script, HF_HUB_OFFLINE="1")
    assert json.loads(offline.splitlines()[-1]) == expected


@pytest.mark.slow
def test_a_pushed_pipeline_is_evaluated_by_its_name_as_here(worker, tmp_path):
    write_small_table(tmp_path / "table")
    model, table = tmp_path / "model", tmp_path / "table"
    assert main(["train", "linear", f"data={table}", f"out={model}", "generator=pixels"]) == 0
    worker(f"""
load({str(model)!r}).push_to_hub("tester/measured", private=True)
TrialTable.open({str(table)!r}).push_to_hub("tester/measured-table", private=True)
found = None
""")
    program = (*python(), "-m", "fmri_models")
    here, there = tmp_path / "here", tmp_path / "there"
    options = ["--protocol", "small_pictures"]
    assert main(["evaluate", "--model", str(model), "--data", str(table), "--out", str(here), *options]) == 0
    worker.anew(
        *program,
        "evaluate",
        "--model",
        "tester/measured",
        "--data",
        "tester/measured-table",
        "--out",
        str(there),
        *options,
    )
    reports = [json.loads((folder / "report.json").read_text()) for folder in (here, there)]
    for key in ("results", "rows", "permutation", "per_subject", "comparisons", "data", "protocol", "notes", "looks"):
        assert reports[0][key] == reports[1][key], key
    pictures = [sorted(path.relative_to(folder) for path in folder.rglob("*.png")) for folder in (here, there)]
    assert pictures[0] == pictures[1] and pictures[0]
    assert all((here / name).read_bytes() == (there / name).read_bytes() for name in pictures[0])
    refused = worker(f"""
import contextlib, io
from fmri_models.cli.main import main
from tests.small_table import write_small_table
other = str(write_small_table({str(tmp_path / "other")!r}, noise=0.7))
found = []
for model in ({str(model)!r}, "tester/measured"):
    with contextlib.redirect_stderr(io.StringIO()) as said:
        code = main(["evaluate", "--model", model, "--data", other, "--out", {str(tmp_path / "out")!r}])
    found.append([code, said.getvalue().replace(model, "MODEL")])
""")
    assert refused[0] == refused[1] and refused[0][0] != 0 and "trained" in refused[0][1]
