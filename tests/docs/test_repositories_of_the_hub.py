"""No page, docstring, card or message names a repository of the Hub that does not exist: lines for the Hub say
`user/name`, and those of others are known by name."""

import re
import subprocess
from collections.abc import Iterator

import pytest

from fmri_models.registry import GENERATORS, METHODS

PLACEHOLDER = "user/name"
# Repositories of others that exist, models and data sets. One more is looked at on the Hub before it is named here.
THIRD_PARTY = {
    "CompVis/stable-diffusion-license",
    "CompVis/stable-diffusion-v1-4",
    "clane9/nsd-flat",
    "gongzx/cc2017_dataset",
    "h94/IP-Adapter",
    "kandinsky-community/kandinsky-2-2-decoder",
    "kandinsky-community/kandinsky-2-2-prior",
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
    "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k",
    "littlepure2333/MindBridge",
    "medarc/hcp-flat-wds",
    "medarc/nsd-flat-wds",
    "openai/clip-vit-base-patch32",
    "openai/clip-vit-large-patch14",
    "pscotti/mindeyev2",
    "pscotti/naturalscenesdataset",
    "timm/vit_large_patch14_clip_224.openai",
    "shi-labs/versatile-diffusion",
    "stabilityai/sd-vae-ft-mse",
    "stabilityai/stable-diffusion-2",
    "stabilityai/stable-diffusion-2-1-unclip",
    "stable-diffusion-v1-5/stable-diffusion-v1-5",
}
# Parts of the Hub's site that are no repositories, and folders of examples.
OTHERS = ("docs/", "outputs/", "data/", "converted/", "models/", "images/")
NAME = r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)"
PLACES = (
    rf"(?:huggingface\.co|\bhf\.co)/(?:datasets/|spaces/)?{NAME}",
    rf"(?:from_pretrained|push_to_hub|load_dataset|snapshot_download|from_pipe|TrialTable\.open|load_example)\(\s*"
    rf"[\"']{NAME}[\"']",
    rf"\bhf download (?:--[\w-]+ \w+ )*{NAME}",
    rf"\bfmri-models (?:data )?push \S+ {NAME}",
    rf"(?:--model|--data|--generator|--fmri|--repo-id) {NAME}",
    rf"(?:repository|repo_id|repository_id|base_model|image_generator_source|hub_model_id)[\"']?\s*[:=]\s*[\"']?{NAME}",
)


def named(text: str) -> Iterator[str]:
    for place in PLACES:
        for match in re.finditer(place, text):
            name = match[1].rstrip(".")
            if not name.startswith(OTHERS):
                yield name


def published_texts(repository) -> dict[str, str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=repository, capture_output=True, text=True, check=True)
    endings = (".md", ".py", ".json", ".yaml", ".toml", ".html")
    return {
        name: (repository / name).read_text(encoding="utf-8")
        for name in listed.stdout.split("\0")
        if name.endswith(endings) and not name.startswith("tests/") and (repository / name).is_file()
    }


def test_repositories_that_are_named_exist(repository):
    texts = published_texts(repository)
    assert len(texts) > 100
    unknown = {
        f"{file}: {name}"
        for file, text in texts.items()
        for name in named(text)
        if name not in THIRD_PARTY and name != PLACEHOLDER
    }
    assert not unknown, f"write {PLACEHOLDER}, or add what exists to THIRD_PARTY: {sorted(unknown)}"


def test_records_name_repositories_that_exist():
    records = [record for registry in (METHODS, GENERATORS) for record in registry.in_order()]
    found = {each.repository for record in records for each in record.pretrained if each.repository}
    assert found
    assert found <= THIRD_PARTY


@pytest.mark.parametrize(
    "line",
    [
        'pipe = FmriToImagePipeline.from_pretrained("somebody/mindeye")',
        "see https://huggingface.co/somebody/mindeye.",
        "hf download --repo-type dataset somebody/mindeye",
        "fmri-models push outputs/mine somebody/mindeye",
        '"repository": "somebody/mindeye"',
        "base_model: somebody/mindeye",
    ],
)
def test_each_way_of_naming_one_is_seen(line):
    assert list(named(line)) == ["somebody/mindeye"]
