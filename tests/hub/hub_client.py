"""What a user of the Hub does, in a process of its own that knows the loopback server from its environment.

python -m tests.hub.hub_client STEP FOLDER   prints what it found as JSON
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import HfApi, hf_hub_download
from transformers import AutoModel

from fmri_models import FmriProcessor, FmriToImagePipeline, LinearModel
from fmri_models.errors import FmriModelsError
from tests.tensor_digests import digests, pipeline_digests

REPOSITORY = "tester/pipeline"


def refusal(function: Any, *args: Any, **kwargs: Any) -> str:
    try:
        function(*args, **kwargs)
    except FmriModelsError as error:
        return str(error)
    return "nothing was refused"


def drawn(pipeline: FmriToImagePipeline) -> list[float]:
    betas = np.random.default_rng(0).normal(size=(2, pipeline.processor.subject("subj05").num_voxels))
    return pipeline(betas, subject="subj05", output_type="pt").images.flatten()[:20].tolist()


def push(folder: Path) -> dict[str, Any]:
    """Uploads a pipeline privately, loads it, changes it, uploads again, and loads both commits."""
    pipeline = FmriToImagePipeline.from_pretrained(folder)
    FmriToImagePipeline.push_to_hub(pipeline, REPOSITORY, private=True)
    api = HfApi()
    first = api.repo_info(REPOSITORY).sha
    loaded = FmriToImagePipeline.from_pretrained(REPOSITORY, cache_dir=folder.parent / "cache")
    found = {
        "files": api.list_repo_files(REPOSITORY),
        "private": api.repo_info(REPOSITORY).private,
        "commits": len(api.list_repo_commits(REPOSITORY)),
        "card": Path(hf_hub_download(REPOSITORY, "README.md")).read_text(),
        "index": Path(hf_hub_download(REPOSITORY, "model_index.json")).read_text(),
        "same": pipeline_digests(loaded) == pipeline_digests(pipeline),
        "class": type(loaded).__name__,
        "record": loaded.training_record.table,
        "pictures": [drawn(pipeline), drawn(loaded)],
    }
    with torch.no_grad():
        next(iter(pipeline.brain_model.parameters())).add_(1)
    pipeline.push_to_hub(REPOSITORY, commit_message="Other weights")
    changed = FmriToImagePipeline.from_pretrained(REPOSITORY)
    pinned = FmriToImagePipeline.from_pretrained(REPOSITORY, revision=first)
    found |= {
        "changed": pipeline_digests(changed) == pipeline_digests(pipeline),
        "pinned": pipeline_digests(pinned) == pipeline_digests(loaded),
        "elsewhere": sorted(path.name for path in _saved_again(loaded, folder.parent / "again").iterdir()),
        "brain_model": digests(AutoModel.from_pretrained(REPOSITORY, subfolder="brain_model"))
        == digests(changed.brain_model),
    }
    return found


def parts(folder: Path) -> dict[str, Any]:
    """`save_pretrained(push_to_hub=True)` of model, processor and pipeline, variants and refusals."""
    pipeline = FmriToImagePipeline.from_pretrained(folder)
    work = folder.parent
    pipeline.brain_model.save_pretrained(work / "a-model", push_to_hub=True)
    pipeline.processor.save_pretrained(work / "a-processor", push_to_hub=True)
    pipeline.save_pretrained(work / "whole", push_to_hub=True, repo_id="tester/whole", private=True)
    pipeline.brain_model.push_to_hub("tester/pushed-model")
    pipeline.processor.push_to_hub("tester/pushed-processor")
    model = LinearModel.from_pretrained("tester/a-model")
    processor = FmriProcessor.from_pretrained("tester/a-processor")
    half = FmriToImagePipeline.from_pretrained(folder, dtype=torch.float16)
    half.push_to_hub("tester/halves", variant="fp16")
    variant = FmriToImagePipeline.from_pretrained("tester/halves", variant="fp16", dtype=torch.float16)
    return {
        "model": digests(model) == digests(pipeline.brain_model),
        "name": model.config.name_or_path,
        "pushed_model": digests(LinearModel.from_pretrained("tester/pushed-model")) == digests(pipeline.brain_model),
        "processor": np.array_equal(processor.subject("subj05").mean, pipeline.processor.subject("subj05").mean),
        "pushed_processor": FmriProcessor.from_pretrained("tester/pushed-processor").subject_names,
        "whole": pipeline_digests(FmriToImagePipeline.from_pretrained("tester/whole")) == pipeline_digests(pipeline),
        "variant_files": [name for name in HfApi().list_repo_files("tester/halves") if name.endswith(".safetensors")],
        "variant": pipeline_digests(variant) == pipeline_digests(half),
        "absent": refusal(FmriToImagePipeline.from_pretrained, "tester/nothing"),
        "absent_model": refusal(LinearModel.from_pretrained, "tester/nothing"),
        "absent_revision": refusal(FmriToImagePipeline.from_pretrained, "tester/whole", revision="v9"),
        "wrong_token": refusal(pipeline.push_to_hub, "tester/refused", token="hf_wrong"),
        # A cache of its own, since what was fetched once is read again without asking for rights.
        "closed": refusal(FmriToImagePipeline.from_pretrained, "tester/whole", token="hf_no", cache_dir=work / "empty"),
        "no_pipeline": refusal(FmriToImagePipeline.from_pretrained, "tester/a-model"),
    }


def offline(folder: Path) -> dict[str, Any]:
    """What the cache has still loads, and what it has not is said."""
    cached = FmriToImagePipeline.from_pretrained("tester/whole", local_files_only=True)
    return {
        "same": pipeline_digests(cached) == pipeline_digests(FmriToImagePipeline.from_pretrained(folder)),
        "record": cached.training_record.table,
        "absent": refusal(FmriToImagePipeline.from_pretrained, "tester/never-fetched"),
    }


def _saved_again(pipeline: FmriToImagePipeline, folder: Path) -> Path:
    pipeline.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    step = {"push": push, "parts": parts, "offline": offline}[sys.argv[1]]
    print(json.dumps(step(Path(sys.argv[2]))))
