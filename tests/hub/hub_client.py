"""What a user of the Hub does, in a process of its own that knows the loopback server from its environment.

`main` is given a step and a folder as arguments, and prints what it found as JSON.
"""

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from huggingface_hub import HfApi, hf_hub_download
from peft import LoraConfig
from transformers import AutoFeatureExtractor, AutoModel, AutoProcessor

from fmri_models import FmriProcessor, FmriToImagePipeline, LinearModel, TrialTable, progress
from fmri_models.cli.main import main as run_command
from fmri_models.data.validation import validate_table
from fmri_models.errors import FmriModelsError
from fmri_models.evaluation.patterns import load_patterns
from fmri_models.generation.double_conditioned import DoubleConditionedImageGenerator
from fmri_models.generation.loading import load_image_generator
from fmri_models.generation.pixels import PixelsImageGenerator
from fmri_models.registry import register_method
from fmri_models.training.recipe import load_recipe
from fmri_models.training.trainer import train
from tests.generation import adapted
from tests.tensor_digests import digests, pipeline_digests
from tests.training import learner

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


def loaders(folder: Path) -> dict[str, Any]:
    """What the loaders of transformers and diffusers make of a repository, and variants that it has or has not."""
    pipeline = FmriToImagePipeline.from_pretrained(folder)
    FmriToImagePipeline.push_to_hub(pipeline, "tester/loaders")
    FmriToImagePipeline.push_to_hub(pipeline, "tester/halves", variant="fp16")
    generic = DiffusionPipeline.from_pretrained("tester/loaders", dtype=torch.bfloat16)
    return {
        "processors": [
            type(each.from_pretrained("tester/loaders", subfolder="processor")).__name__
            for each in (AutoFeatureExtractor, AutoProcessor)
        ],
        "own": FmriProcessor.from_pretrained("tester/loaders").subject_names,
        "generic": [type(generic).__name__, str(generic.dtype), str(generic.image_generator.dtype)],
        "draws": len(drawn(generic)),
        "record": generic.training_record,
        "no_variant": refusal(LinearModel.from_pretrained, "tester/halves", subfolder="brain_model"),
        "other_variant": refusal(FmriToImagePipeline.from_pretrained, "tester/loaders", variant="fp16"),
        "variant": FmriToImagePipeline.from_pretrained("tester/halves", variant="fp16", torch_dtype="auto").dtype
        == torch.float32,
    }


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
    adapted = FmriToImagePipeline.from_pretrained(folder)
    adapted.brain_model.add_adapter(LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    adapted.push_to_hub("tester/adapted")
    back = FmriToImagePipeline.from_pretrained("tester/adapted")
    alone = LinearModel.from_pretrained("tester/pushed-model")
    alone.add_adapter(LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    alone.push_to_hub("tester/adapter")
    return {
        "adapted": drawn(back) == drawn(adapted) and back.brain_model.active_adapters() == ["default"],
        "adapter": digests(LinearModel.from_pretrained("tester/adapter")) == digests(alone),
        "adapter_files": HfApi().list_repo_files("tester/adapter"),
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


def generator_adapter(folder: Path) -> dict[str, Any]:
    """A pipeline whose generator has an adapter, with the base in it and by name; folder of the pipeline."""
    pipeline = FmriToImagePipeline.from_pretrained(folder)
    pipeline.push_to_hub("tester/lora")
    back = FmriToImagePipeline.from_pretrained("tester/lora", cache_dir=folder.parent / "cache")
    pipeline.untrained_image_generator.push_to_hub("tester/base")
    source = {"name": "embedded", "repository": "tester/base"}
    base = load_image_generator(source)
    named = FmriToImagePipeline.from_pretrained(folder, image_generator_source=source)
    named.push_to_hub("tester/named-lora")
    again = FmriToImagePipeline.from_pretrained("tester/named-lora")
    index = json.loads(Path(hf_hub_download("tester/lora", "model_index.json")).read_text())
    pictures = [adapted.drawn(each).flatten()[:20].tolist() for each in (pipeline, back, named, again)]
    with_base = FmriToImagePipeline.from_pretrained(folder, image_generator=base)
    return {
        "files": HfApi().list_repo_files("tester/lora"),
        "named_files": HfApi().list_repo_files("tester/named-lora"),
        "key": index["image_generator_adapter"],
        "same": all(each == pictures[0] for each in pictures),
        "base": adapted.drawn(with_base).flatten()[:20].tolist() != pictures[0],
        "commit": base.commit == HfApi().repo_info("tester/base").sha,
        "generic": refusal(DiffusionPipeline.from_pretrained, "tester/lora"),
    }


def trained_generator_adapter(folder: Path) -> dict[str, Any]:
    """Trains LoRA on a generator of the Hub, which gets other weights later; the folder holds a table and a recipe."""
    register_method(learner.METHOD)
    options = {"block_out_channels": [8, 16], "context_dim": 32}
    base = DoubleConditionedImageGenerator.for_stimuli((3, 64, 64), **options)
    base.push_to_hub("tester/double")
    commit = HfApi().repo_info("tester/double").sha
    DoubleConditionedImageGenerator.default_repository = "tester/double"
    overrides = [f"data={folder / 'table'}", f"out={folder / 'out'}", "generator=double_conditioned"]
    train(load_recipe(str(folder / "recipe.yaml"), overrides))
    pipeline = FmriToImagePipeline.from_pretrained(folder / "out")
    before = learner.drawn(pipeline)
    DoubleConditionedImageGenerator.for_stimuli((3, 64, 64), **options, seed=5).push_to_hub("tester/double")
    pipeline.push_to_hub("tester/learned")
    again = FmriToImagePipeline.from_pretrained("tester/learned", cache_dir=folder / "cache")
    newest = {"name": "double_conditioned", "repository": "tester/double"}
    moved = FmriToImagePipeline.from_pretrained("tester/learned", image_generator_source=newest)
    adapter = folder / "out" / "image_generator_adapter"
    return {
        "commit": commit,
        "source": json.loads((folder / "out" / "model_index.json").read_text())["image_generator_source"]["revision"],
        "of_base": json.loads((adapter / "base_generator.json").read_text())["commit"],
        "of_peft": json.loads((adapter / "adapter_config.json").read_text())["revision"],
        "has_base": (folder / "out" / "image_generator").exists(),
        "same": torch.equal(learner.drawn(again), before),
        "untrained": torch.equal(learner.drawn(again, again.untrained_image_generator), learner.drawn(again, base)),
        "other_base": refusal(lambda: moved.image_generator),
    }


def table(folder: Path) -> dict[str, Any]:
    """Uploads a trial table, opens it from the Hub, trains on it, and reads it with `datasets`."""
    import datasets

    own = TrialTable.open(folder)
    (folder / "notes.txt").write_text("mine")
    (folder / "evil.pkl").write_bytes(b"x")
    address = own.push_to_hub("tester/table", private=True)
    api = HfApi()
    first = api.repo_info("tester/table", repo_type="dataset").sha
    opened = TrialTable.open("tester/table", cache_dir=folder.parent / "cache")
    (folder / "README.md").write_text((folder / "README.md").read_text() + "\nOne more line.\n")
    own.push_to_hub("tester/table", commit_message="Another card")
    pinned = TrialTable.open("tester/table", revision=first, cache_dir=folder.parent / "cache")
    fmri, again = own.trials("subj02", "test").fmri(), opened.trials("subj02", "test").fmri()
    out = folder.parent / "trained"
    trained = train(load_recipe("linear", ["data=tester/table", f"out={out}", "generator=pixels"]))
    streamed = datasets.load_dataset("tester/table", split="test", streaming=True)
    return {
        "address": address,
        "files": api.list_repo_files("tester/table", repo_type="dataset"),
        "private": api.repo_info("tester/table", repo_type="dataset").private,
        "fetched": sorted(
            path.relative_to(opened.path).as_posix() for path in opened.path.rglob("*.*") if path.is_file()
        ),
        "same": np.array_equal(fmri, again) and opened.fingerprint == own.fingerprint,
        "splits": opened.split_names(),
        "pictures": bool(
            np.array_equal(own.stimuli.images(own.stimuli.ids[:2]), opened.stimuli.images(own.stimuli.ids[:2]))
        ),
        "pinned": [pinned.path.name == first, "One more" in (pinned.path / "README.md").read_text()],
        "trained": [FmriToImagePipeline.from_pretrained(path).training_record.table for path in trained],
        "rows": [len(datasets.load_dataset("tester/table", split="test")), len(list(streamed))],
        "absent": refusal(TrialTable.open, "tester/no-table"),
        "absent_revision": refusal(TrialTable.open, "tester/table", revision="v9"),
        "no_table": refusal(_open_empty, api),
        "closed": refusal(TrialTable.open, "tester/table", token="hf_no", cache_dir=folder.parent / "empty"),
        "wrong_token": refusal(own.push_to_hub, "tester/refused", token="hf_wrong"),
        "findings": validate_table("tester/table"),
        "patterns": len(load_patterns(FmriToImagePipeline.from_pretrained(out), "tester/table", "subj02").stimuli),
    }


def table_of_windows(folder: Path) -> dict[str, Any]:
    """Uploads a table of windows and clips, opens it from the Hub, and streams it."""
    import datasets

    own = TrialTable.open(folder)
    own.push_to_hub("tester/windows", private=True)
    opened = TrialTable.open("tester/windows", cache_dir=folder.parent / "cache")
    first = next(iter(datasets.load_dataset("tester/windows", split="test", streaming=True)))
    shown = next(iter(datasets.load_dataset("tester/windows", "stimuli", split="train", streaming=True)))
    clip = opened.stimuli.clips(opened.stimuli.ids[:1], frames=True)[0]
    assert clip is not None
    return {
        "shape": opened.window_shape("subj01"),
        "same": np.array_equal(own.trials("subj01", "test").windows(), opened.trials("subj01", "test").windows()),
        "streamed": np.allclose(first["fmri"], own.trials("subj01", "test").fmri(0)[0]),
        "frames": len(clip.pixels()),
        "streamed_frames": len(shown["clip"]["frames"]),
        "cautions": opened.cautions,
        "findings": validate_table("tester/windows"),
    }


def _open_empty(api: HfApi) -> None:
    api.create_repo("tester/empty", repo_type="dataset")
    TrialTable.open("tester/empty")


def fetched_tables(folder: Path) -> dict[str, Any]:
    """What a command says while it fetches a table, and when everything is there; and a table of which files lack."""
    TrialTable.open(folder).push_to_hub("tester/small")

    def said() -> list[str]:
        with contextlib.redirect_stderr(io.StringIO()) as stream, progress.in_place_of_libraries():
            TrialTable.open("tester/small")
        return stream.getvalue().splitlines()

    found = {"said": said(), "said_again": said()}
    part = next(path for path in (folder / "trials").rglob("test-*.parquet"))
    HfApi().delete_file(part.relative_to(folder).as_posix(), "tester/small", repo_type="dataset")
    return {**found, "missing": [part.name, refusal(TrialTable.open, "tester/small")]}


def offline_table(folder: Path) -> dict[str, Any]:
    opened = TrialTable.open("tester/table")
    return {
        "same": opened.fingerprint == TrialTable.open(folder).fingerprint,
        "local": TrialTable.open("tester/table", local_files_only=True).path == opened.path,
        "absent": refusal(TrialTable.open, "tester/never-fetched"),
    }


def offline(folder: Path) -> dict[str, Any]:
    """What the cache has still loads, and what it has not is said."""
    cached = FmriToImagePipeline.from_pretrained("tester/whole", local_files_only=True)
    return {
        "same": pipeline_digests(cached) == pipeline_digests(FmriToImagePipeline.from_pretrained(folder)),
        "record": cached.training_record.table,
        "absent": refusal(FmriToImagePipeline.from_pretrained, "tester/never-fetched"),
    }


def subject(folder: Path) -> dict[str, Any]:
    """Uploads a subject from Python and by the command, loads both into the base, and lists one."""
    base = FmriToImagePipeline.from_pretrained(folder)
    base.push_to_hub("tester/subject-base")
    pipeline = FmriToImagePipeline.from_pretrained(folder)
    betas = np.random.default_rng(1).normal(size=(12, 9)).astype(np.float32)
    pipeline.add_subject("new", betas, sessions=[1] * 6 + [2] * 6)
    with torch.no_grad():
        for parameter in pipeline.brain_model.parameters():
            parameter.copy_(parameter if parameter.abs().sum() else torch.randn_like(parameter))
    size = pipeline.save_subject("new", folder.parent / "new", push_to_hub=True, repo_id="tester/new", private=True)
    pipeline.brain_model.save_subject("new", folder.parent / "layers", push_to_hub=True, repo_id="tester/layers")
    pushed = _told("push", str(folder.parent / "new"), "tester/by-command")
    api = HfApi()
    loaded = base.load_subject("tester/new")
    told = {name: _told("subjects", "list", f"tester/{name}") for name in ("new", "by-command", "subject-base")}
    more = _told("subjects", "load", str(folder), "tester/by-command", "--out", str(folder.parent / "more"))
    return {
        "files": api.list_repo_files("tester/new"),
        "private": api.repo_info("tester/new").private,
        "card": Path(hf_hub_download("tester/new", "README.md")).read_text(),
        "size": size,
        "format": pushed["format"],
        "loaded": loaded,
        "same": torch.equal(
            *(each(betas[:2], "new", session=[1, 2], output_type="pt").images for each in (pipeline, base))
        ),
        "layers": refusal(FmriToImagePipeline.from_pretrained(folder).load_subject, "tester/layers"),
        "listed": {name: each["subjects"] for name, each in told.items()},
        "more": more["subjects"],
        "absent": refusal(base.load_subject, "tester/never-made"),
        "option": refusal(pipeline.save_subject, "new", folder.parent / "new", push_to_hub=True, repo="tester/new"),
    }


def _told(*arguments: str) -> dict[str, Any]:
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        code = run_command([*arguments, "--json"])
    assert code == 0, output.getvalue()
    told: dict[str, Any] = json.loads(output.getvalue())
    return told


def _saved_again(pipeline: FmriToImagePipeline, folder: Path) -> Path:
    pipeline.save_pretrained(folder)
    return folder


def unreachable(folder: Path) -> dict[str, str]:
    """Every way to the Hub, where nobody answers there."""
    pipeline = FmriToImagePipeline.from_pretrained(folder / "pipeline")
    table = TrialTable.open(folder / "table")
    load, name = FmriToImagePipeline.from_pretrained, "tester/a"
    return {
        "pipeline": refusal(pipeline.push_to_hub, name),
        "saved_pipeline": refusal(pipeline.save_pretrained, folder / "a", push_to_hub=True, repo_id=name),
        "model": refusal(pipeline.brain_model.push_to_hub, name),
        "saved_model": refusal(pipeline.brain_model.save_pretrained, folder / "b", push_to_hub=True, repo_id=name),
        "processor": refusal(pipeline.processor.push_to_hub, name),
        "saved_processor": refusal(pipeline.processor.save_pretrained, folder / "d", push_to_hub=True, repo_id=name),
        "config": refusal(pipeline.brain_model.config.push_to_hub, name),
        "saved_config": refusal(
            pipeline.brain_model.config.save_pretrained, folder / "e", push_to_hub=True, repo_id=name
        ),
        "generator": refusal(pipeline.image_generator.push_to_hub, name),
        "saved_generator": refusal(
            pipeline.image_generator.save_pretrained, folder / "c", push_to_hub=True, repo_id=name
        ),
        "table": refusal(table.push_to_hub, name),
        "load": refusal(load, name),
        "load_variant": refusal(load, name, variant="fp16"),
        "load_cached_variant": refusal(load, REPOSITORY, variant="fp16"),
        "load_model": refusal(LinearModel.from_pretrained, name, variant="fp16"),
        "load_processor": refusal(FmriProcessor.from_pretrained, name),
        "load_generator": refusal(load_image_generator, name),
        "load_generator_variant": refusal(PixelsImageGenerator.from_pretrained, name, variant="fp16"),
        "load_table": refusal(TrialTable.open, name),
    }


def main() -> None:
    steps = (push, loaders, parts, offline, table, fetched_tables, offline_table, unreachable)
    steps += (generator_adapter, trained_generator_adapter, subject, table_of_windows)
    step = {each.__name__: each for each in steps}[sys.argv[1]]
    print(json.dumps(step(Path(sys.argv[2]))))
