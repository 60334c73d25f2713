"""What goes wrong between the Hub's own client and a server: it is asked again, goes on where it was, or is said."""

import json
import os
import signal
import subprocess
import time

import pytest

from fmri_models.hub_repository import fetch_folder
from tests.hub.loopback_hub import Fault, running
from tests.hub.test_round_trip import saved_pipeline
from tests.new_process import python

# Steps of a client, which one process takes one after the other: libraries read the server's address on import.
_WORKER = """
import json, os, sys
from fmri_models import FmriToImagePipeline
from fmri_models.errors import FmriModelsError
from huggingface_hub import HfApi
from tests.tensor_digests import pipeline_digests

own = FmriToImagePipeline.from_pretrained(sys.argv[1])
print(os.getpid(), flush=True)

def push(name, **options):
    own.push_to_hub(f"tester/{name}", max_shard_size="1KB", **options)
    return len(HfApi().list_repo_commits(f"tester/{name}"))

def load(name, **options):
    return pipeline_digests(FmriToImagePipeline.from_pretrained(f"tester/{name}", **options)) == pipeline_digests(own)

for line in sys.stdin:
    step, name, options = json.loads(line)
    try:
        found = {"push": push, "load": load}[step](name, **options)
    except FmriModelsError as error:
        found = str(error)
    print(json.dumps(found), flush=True)
"""


class Client:
    """A process that knows a server, and what it does to that."""

    def __init__(self, hub, work, repository):
        self.hub, self.work, self.repository = hub, work, repository
        self.pipeline = saved_pipeline(work / "pipeline")
        self.process = self.start()

    def start(self):
        environment = {
            **os.environ, "HF_ENDPOINT": self.hub.url, "HF_TOKEN": "hf_test", "HF_HOME": str(self.work / "home"),
            "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        command = [*python(), "-c", _WORKER, str(self.pipeline)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        process = subprocess.Popen(command, cwd=self.repository, env=environment, **pipes)
        process.program = int(process.stdout.readline())
        return process

    def run(self, step, name, *faults, **options):
        """What the step gives, or the sentence in which it ends."""
        self.ask(step, name, *faults, **options)
        found = json.loads(self.process.stdout.readline())
        self.hub.faults.clear()
        return found

    def ask(self, step, name, *faults, process=None, **options):
        self.hub.faults[:] = faults
        self.hub.log.clear()
        process = process or self.process
        process.stdin.write(json.dumps([step, name, options]) + "\n")
        process.stdin.flush()

    def stored(self):
        """Paths of large files that the server took."""
        return [path for method, path, status in self.hub.log if method == "PUT" and status == 200]

    def commits(self):
        return [path for _, path, _ in self.hub.log if "/commit/" in path]


@pytest.fixture(scope="module")
def client(tmp_path_factory, repository):
    work = tmp_path_factory.mktemp("work")
    hub = running(work / "server")
    with hub:
        client = Client(hub, work, repository)
        yield client
        client.process.stdin.close()
        client.process.wait(60)


def until(condition):
    end = time.monotonic() + 60
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    assert condition()


@pytest.mark.slow
def test_an_upload_that_was_killed_goes_on_where_it_was_and_is_one_commit(client):
    held = Fault("PUT", "/_lfs/", held=True, after=2, times=None)
    with client.start() as process:
        client.ask("push", "killed", held, process=process)
        until(lambda: len(client.stored()) >= 2 and held.happened)
        # What runs the program would end it a moment later.
        os.kill(process.program, signal.SIGKILL)
        process.wait()
    held.release()
    before = set(client.stored())
    assert not client.commits()
    assert client.run("push", "killed") == 2  # the repository's own, and one for everything
    assert client.stored() and not before & set(client.stored()), "what is there is not sent again"
    assert client.run("load", "killed") is True


@pytest.mark.slow
def test_what_the_hub_refuses_for_a_while_is_asked_again(client):
    busy = {"Retry-After": "1"}
    uploading = [
        Fault("POST", "/api/repos/create", 503), Fault("POST", "/preupload/", 429, busy),
        Fault("POST", "/objects/batch", 500), Fault("POST", "/objects/batch", cut=0),
        Fault("POST", "/commit/", 502), Fault("POST", "/commit/", 429, busy),
    ]  # fmt: skip
    assert client.run("push", "slow", *uploading) == 2
    loading = [
        Fault("GET", "/revision/main$", 503), Fault("GET", r"/resolve/.*\.json", 429, busy),
        Fault("GET", r"/resolve/.*\.safetensors$", 500), Fault("GET", r"/resolve/.*\.safetensors", cut=200),
    ]  # fmt: skip
    assert client.run("load", "slow", *loading) is True
    assert all(fault.happened == 1 for fault in [*uploading, *loading])


def test_a_hub_that_keeps_refusing_is_a_sentence_and_nothing_is_half_published(client):
    said = client.run("push", "never", Fault("POST", "/api/repos/create", 429, {"Retry-After": "90"}, times=None))
    assert "could not be uploaded to the Hub" in said and "429" in said
    said = client.run("push", "bad", Fault("POST", "/objects/batch", 400, times=None))
    assert "could not be uploaded to the Hub" in said and "Bad request" in said and not client.commits()
    said = client.run(
        "load",
        "slow",
        Fault("GET", "/revision/", 503, {"Retry-After": "90"}, times=None),
        cache_dir=str(client.work / "empty"),
    )
    assert "503" in said and "try again later" in said


def test_a_damaged_download_is_noticed_and_fetched_again(client):
    client.run("push", "whole")
    damaged = Fault("GET", r"/resolve/.*\.safetensors$", corrupt=True)
    said = client.run("load", "whole", damaged)
    assert ".safetensors of tester/whole arrived damaged" in said
    assert client.run("load", "whole") is True


def test_private_repositories_open_to_the_right_token_alone(client):
    assert client.run("push", "closed", private=True) == 2
    for token, expected in {
        "hf_reader": "private and your token",
        "hf_wrong": "know your token",
        False: "private",
    }.items():
        said = client.run("load", "closed", token=token, cache_dir=str(client.work / f"cache-{token}"))
        assert expected in said, (token, said)
    assert client.run("load", "closed", cache_dir=str(client.work / "cache-own")) is True
    for token in ("hf_reader", "hf_wrong"):
        assert "does not let your token write" in client.run("push", "mine", token=token)


def test_digests_are_looked_at_once(client, tmp_path, monkeypatch):
    from fmri_models import hub_repository

    client.run("push", "digests")
    looked = []
    own = hub_repository._digest_is
    monkeypatch.setattr(hub_repository, "_digest_is", lambda content: looked.append(content) or own(content))
    options = {"cache_dir": tmp_path, "endpoint": client.hub.url, "token": "hf_test"}
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    folder = fetch_folder("tester/digests", ["*.json"], **options)
    first = len(looked)
    assert first == len(list(folder.rglob("*.json")))
    for path in tmp_path.rglob("blobs/*"):
        os.utime(path, (0, 0))
    fetch_folder("tester/digests", ["*.json"], **options)
    assert len(looked) == first
