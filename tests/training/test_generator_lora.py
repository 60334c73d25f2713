"""Stages that train an image generator by LoRA: what learns, what is saved beside which base, and what comes back."""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import yaml
from diffusers import DiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from fmri_models import FmriToImagePipeline, TrialTable
from fmri_models.errors import FmriModelsError
from fmri_models.generation.double_conditioned import DoubleConditionedImageGenerator
from fmri_models.generation.embedded import EmbeddedImageGenerator
from fmri_models.generation.generator_adapter import (
    ADAPTER_FOLDER,
    BASE_FILE,
    GeneratorAdapter,
    base_alone,
    lora_parameters,
    put_lora,
)
from fmri_models.generation.loading import parse_source
from fmri_models.generation.weights_digest import weights_digest
from fmri_models.hub.cards import write_card
from fmri_models.registry import METHODS, register_method
from fmri_models.simulation import simulate
from fmri_models.training.checkpoints import GENERATOR_FILE, Checkpoints
from fmri_models.training.estimate import estimate
from fmri_models.training.interruption import TrainingInterrupted
from fmri_models.training.learning_generator import (
    GeneratorTraining,
    LearningGenerator,
    generator_training,
    planned_parameters,
)
from fmri_models.training.recipe import load_recipe
from fmri_models.training.stages import StageRunner
from fmri_models.training.trainer import train
from fmri_models.training_record import TrainingRecord
from tests.new_process import run_program
from tests.training.learner import METHOD, LearnerObjective, decoded, drawn

TRAINING = {"batch_size": 4, "learning_rate": 1e-2, "schedule": "constant", "checkpoint_every": 2, "validate_every": 2}
RECIPE = {
    "method": "learner",
    "targets": ["latents"],
    "stages": [
        {"name": "rebuild", "objective": {"rebuilds": True}, "training": {**TRAINING, "steps": 2}},
        {
            "name": "draw",
            "training": {**TRAINING, "steps": 6},
            "image_generator": {"lora": {"r": 2, "alpha": 4, "groups": ["cross_attention"]}},
        },
    ],
}
TINY = {"name": "double_conditioned", "options": {"block_out_channels": [8, 16], "context_dim": 32, "seed": 3}}
GENERATORS = {"embedded": "embedded", "double_conditioned": TINY}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated") / "table"
    return simulate("builtin:scenes", folder, num_voxels=30, num_train=12, num_validation=4, num_test=4, num_subjects=1)


@pytest.fixture(scope="module")
def learner():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(METHODS, "registered", {})
        register_method(METHOD)
        yield


@pytest.fixture
def make(learner, data, tmp_path):
    path = tmp_path / "lora.yaml"
    path.write_text(yaml.safe_dump(RECIPE))
    return lambda out, *overrides: load_recipe(str(path), [f"data={data}", f"out={tmp_path / out}", *overrides])


@pytest.fixture(scope="module")
def trained(learner, data, tmp_path_factory):
    """Name of a generator ▶ the folder of a pipeline that was trained with LoRA on it."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "lora.yaml").write_text(yaml.safe_dump(RECIPE))
    for name, generator in GENERATORS.items():
        stated = f"generator={json.dumps(generator)}"
        train(load_recipe(str(folder / "lora.yaml"), [f"data={data}", f"out={folder / name}", stated]))
    return {name: folder / name for name in GENERATORS}


@pytest.fixture(params=list(GENERATORS))
def saved(request, trained):
    return trained[request.param]


def base_of(folder: Path) -> Any:
    if folder.name == "embedded":
        return EmbeddedImageGenerator.from_assets()
    return DoubleConditionedImageGenerator.for_stimuli((3, 64, 64), **TINY["options"])


def load(folder: Any, **options: Any) -> Any:
    pipeline = FmriToImagePipeline.from_pretrained(folder, **options)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def same_state(one: Any, other: Any) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("name", list(GENERATORS))
@pytest.mark.parametrize("groups", [["cross_attention"], ["all"]])
def test_what_will_be_trained_is_counted_without_training(name, groups):
    generator = base_of(Path(name))
    training = generator_training({"train": ["time_embedding"], "lora": {"r": 3, "groups": groups}})
    counted = planned_parameters(generator, training)
    own = generator.parameters_of(["time_embedding"])
    put_lora(generator, groups, 3, 6.0, 0.0, 0)
    found = [*own.values(), *lora_parameters(generator).values()]
    assert sorted(tuple(p.shape) for p in counted) == sorted(tuple(p.shape) for p in found)


@pytest.mark.slow
def test_the_estimate_tells_what_the_generator_learns(make):
    lora = sum(p.numel() for p in lora_of("embedded", 2).values())
    assert f"are trained, and {lora:,} of the image generator (LoRA of rank 2 on cross_attention)" in estimate(
        make("x")
    )
    group = EmbeddedImageGenerator.from_assets().parameters_of(["cross_attention"])
    own = sum(p.numel() for p in group.values())
    told = estimate(make("x", "stages.1.image_generator={train: [cross_attention]}"))
    assert f"are trained, and {own:,} of the image generator (cross_attention)" in told


def lora_of(name: str, r: int) -> dict[str, Any]:
    generator = base_of(Path(name))
    put_lora(generator, ["cross_attention"], r, 4.0, 0.0, 0)
    return lora_parameters(generator)


def test_the_card_says_what_was_trained_of_the_generator(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "copy")
    text = write_card(tmp_path / "copy").read_text()
    count = sum(p.numel() for p in lora_of(saved.name, 2).values())
    assert (
        "**Trained of the image generator:** in the stage draw a LoRA adapter of rank 2 (alpha 4) on "
        f"cross_attention learned, {count:,} parameters, which lie beside it"
    ) in text


def test_only_the_lora_learns_and_the_base_is_saved_as_it_was(saved):
    pipeline, base = load(saved), base_of(saved)
    generator = pipeline.image_generator
    targets = base.lora_targets(["cross_attention"])["unet"]
    lora = lora_parameters(generator)
    assert len(lora) == 2 * len(targets) and all("attn2" in name for name in lora)
    assert any(bool(values.abs().sum() > 0) for name, values in lora.items() if "lora_B" in name), "it has learned"
    layers = dict(base.unet.named_modules())
    wanted = sum(2 * sum(layers[name].weight.shape) for name in targets)
    assert sum(values.numel() for values in lora.values()) == wanted
    with base_alone(generator):
        assert same_state(generator.unet, base.unet)
        assert weights_digest([generator.unet]) == weights_digest([base.unet])
    own = UNet2DConditionModel.from_pretrained(saved / "image_generator" / "unet")
    assert same_state(own, base.unet), "its files are those of a network without any adapter"
    index = json.loads((saved / "image_generator" / "model_index.json").read_text())
    assert index["condition_revision"] is None
    record = TrainingRecord.load(saved)
    entry = record.stages[1]["image_generator"]
    assert entry["lora"]["r"] == 2 and entry["lora_parameters"] == wanted and entry["adapter"] == f"{ADAPTER_FOLDER}/"
    assert record.recipe["stages"][1]["image_generator"]["lora"]["alpha"] == 4
    assert not record.unknown_initial_models


def test_the_files_are_those_of_peft_with_the_base_beside(saved):
    folder = saved / ADAPTER_FOLDER
    assert sorted(file.name for file in folder.iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors", BASE_FILE
    ]  # fmt: skip
    index = json.loads((saved / "model_index.json").read_text())
    assert index[ADAPTER_FOLDER] == ADAPTER_FOLDER and index["fmri_schema"] == 3
    base = base_of(saved)
    record = json.loads((folder / BASE_FILE).read_text())
    assert record["generator"] == type(base).__name__ and not record["was_trained"]
    assert record["weights"]["unet"]["float32"] == weights_digest([base.unet], torch.float32)
    with_peft = peft.PeftModel.from_pretrained(base.unet, folder)
    mine = {name.rsplit("unet.", 1)[1]: values for name, values in lora_parameters(load(saved).image_generator).items()}
    theirs = {name.removeprefix("base_model.model."): v for name, v in with_peft.named_parameters() if "lora_" in name}
    assert mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.slow
def test_it_draws_the_same_after_loading_and_otherwise_than_its_base(saved, tmp_path):
    pipeline = load(saved)
    before = drawn(pipeline)
    assert pipeline.image_generator.unet.training is False
    assert not any(module.training for module in pipeline.image_generator.unet.modules())
    untrained = pipeline.untrained_image_generator
    assert not torch.equal(drawn(pipeline, untrained), before)
    base = base_of(saved)
    assert torch.equal(drawn(pipeline, untrained), drawn(pipeline, base))
    assert untrained is pipeline.untrained_image_generator and untrained.adapter_base is None
    mine, other = untrained.unet.conv_in.weight, pipeline.image_generator.unet.conv_in.weight
    assert mine is other, "the weights are there once"
    assert torch.equal(drawn(pipeline), before)
    pipeline.save_pretrained(tmp_path / "again")
    again = load(tmp_path / "again")
    assert torch.equal(drawn(again), before) and again.training_record is not None
    for name in ("adapter_model.safetensors", BASE_FILE):
        assert (tmp_path / "again" / ADAPTER_FOLDER / name).read_bytes() == (saved / ADAPTER_FOLDER / name).read_bytes()
    pipeline.to(torch.bfloat16)
    assert drawn(pipeline).isfinite().all()


IN_A_NEW_PROCESS = """
import sys
from safetensors.torch import save_file
from fmri_models import FmriToImagePipeline
from fmri_models.registry import register_method
from tests.new_process import run_program
from tests.training.learner import METHOD, drawn

register_method(METHOD)
pictures = drawn(FmriToImagePipeline.from_pretrained(sys.argv[1]))
save_file({"pictures": pictures.contiguous()}, sys.argv[2])
"""


@pytest.mark.slow
def test_a_new_process_draws_the_same(saved, tmp_path):
    done = run_program(IN_A_NEW_PROCESS, saved, tmp_path / "drawn.safetensors")
    assert done.returncode == 0, done.stderr
    there = load_file(tmp_path / "drawn.safetensors")["pictures"]
    torch.testing.assert_close(there, drawn(load(saved)), atol=1e-6, rtol=0)


@pytest.mark.slow
def test_a_pipeline_that_is_saved_over_another_leaves_no_adapter_there(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "copy")
    pipeline = load(tmp_path / "copy")
    bare = FmriToImagePipeline.from_pretrained(tmp_path / "copy", image_generator=None)
    bare.save_pretrained(tmp_path / "copy")
    assert not (tmp_path / "copy" / ADAPTER_FOLDER).exists()
    index = json.loads((tmp_path / "copy" / "model_index.json").read_text())
    assert index.get(ADAPTER_FOLDER) is None and index["fmri_schema"] == 2
    assert load(tmp_path / "copy").image_generator is None
    pipeline.save_pretrained(tmp_path / "copy")
    assert torch.equal(drawn(load(tmp_path / "copy")), drawn(load(saved)))


@pytest.mark.slow
def test_pipelines_of_its_components_and_other_precisions(saved, tmp_path):
    pipeline = load(saved)
    made = type(pipeline).from_pipe(pipeline)
    assert torch.equal(drawn(made), drawn(pipeline))
    half = load(saved, dtype=torch.bfloat16)
    assert {each.dtype for each in half.image_generator.unet.parameters()} == {torch.bfloat16}
    expected = drawn(pipeline)
    torch.testing.assert_close(drawn(half).float(), expected, atol=0.2, rtol=0)
    half.save_pretrained(tmp_path / "half")
    for dtype in (torch.float32, torch.bfloat16):
        again = load(tmp_path / "half", dtype=dtype)
        torch.testing.assert_close(drawn(again).float(), expected, atol=0.2, rtol=0)


@pytest.mark.slow
def test_offloaded_it_draws_and_is_saved_the_same(saved, tmp_path):
    pipeline = load(saved)
    told, expected = decoded(pipeline), drawn(pipeline)
    for number, offload in enumerate(("enable_model_cpu_offload", "enable_sequential_cpu_offload")):
        pipeline = load(saved)
        getattr(pipeline, offload)(device="cpu")
        torch.testing.assert_close(drawn(pipeline, told=told), expected, atol=1e-5, rtol=0)
        base = drawn(pipeline, pipeline.untrained_image_generator, told)
        torch.testing.assert_close(base, drawn(pipeline, base_of(saved), told), atol=1e-5, rtol=0)
        torch.testing.assert_close(drawn(pipeline, told=told), expected, atol=1e-5, rtol=0)
        pipeline.save_pretrained(tmp_path / f"offloaded{number}")
        torch.testing.assert_close(drawn(load(tmp_path / f"offloaded{number}")), expected, atol=1e-6, rtol=0)


@pytest.fixture
def named(trained, tmp_path):
    """A pipeline that names its generator instead of containing it, and the folder of that."""
    shutil.copytree(trained["double_conditioned"] / "image_generator", tmp_path / "generator")
    pipeline = load(trained["double_conditioned"], image_generator_source=str(tmp_path / "generator"))
    assert pipeline.components["image_generator"] is None
    pipeline.save_pretrained(tmp_path / "named")
    return tmp_path / "named"


def test_a_generator_that_is_named_gets_its_adapter_when_it_is_loaded(named, trained, tmp_path):
    expected = drawn(load(trained["double_conditioned"]))
    assert not (named / "image_generator").exists() and (named / ADAPTER_FOLDER / BASE_FILE).is_file()
    pipeline = load(named)
    made = type(pipeline).from_pipe(pipeline)
    assert torch.equal(drawn(pipeline), expected) and torch.equal(drawn(made), expected)
    assert torch.equal(drawn(pipeline, pipeline.untrained_image_generator), drawn(pipeline, base_of(Path("tiny"))))
    for number, each in enumerate((pipeline, load(named))):
        each.save_pretrained(tmp_path / f"again{number}")
        assert not (tmp_path / f"again{number}" / "image_generator").exists()
        assert torch.equal(drawn(load(tmp_path / f"again{number}")), expected)
    before = pipeline.brain_model.config.encoder_hidden_states_space["revision"]
    assert pipeline.image_generator.encoder_hidden_states_space.revision == before


def test_the_adapter_of_a_named_generator_that_is_changed_is_another_component(named, tmp_path):
    (named / "report.json").write_text("{}")
    pipeline = load(named)
    pipeline.save_pretrained(tmp_path / "same")
    assert (tmp_path / "same" / "report.json").exists()
    next(iter(lora_parameters(pipeline.image_generator).values())).data.add_(1)
    pipeline.save_pretrained(tmp_path / "changed")
    assert not (tmp_path / "changed" / "report.json").exists()


def test_a_generator_of_the_hub_is_named_by_the_commit_that_it_was_trained_on(trained, tmp_path):
    source = parse_source({"name": "double_conditioned", "repository": "somebody/generator", "revision": "main"})
    generator = DoubleConditionedImageGenerator.for_stimuli((3, 64, 64), **TINY["options"])
    generator.source, generator.commit = source, "a" * 40
    from fmri_models.training.learning_generator import note_learned_weights

    put_lora(generator, ["cross_attention"], 2, 4.0, 0.0, seed=0)
    model = load(trained["double_conditioned"]).brain_model
    assert not note_learned_weights(generator, model, lora_parameters(generator))
    assert generator.source.revision == "a" * 40
    assert generator.adapter_base.commit == "a" * 40 and generator.adapter_base.repository == "somebody/generator"
    GeneratorAdapter.of(generator, is_beside_base=False).write(tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "somebody/generator" and config["revision"] == "a" * 40


def change(folder: Path, file: str, **values: Any) -> None:
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def other_base(folder: Path) -> None:
    file = folder / "image_generator" / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors["conv_in.weight"] = tensors["conv_in.weight"] + 1
    save_file(tensors, file, metadata={"format": "pt"})


def with_tensors(change_tensors: Any) -> Any:
    def changed(folder: Path) -> None:
        file = folder / ADAPTER_FOLDER / "adapter_model.safetensors"
        tensors = load_file(file)
        change_tensors(tensors, min(tensors))
        save_file(tensors, file, metadata={"format": "pt"})

    return changed


DAMAGES = {
    "another base": (other_base, r"trained on the unet whose weights in float32 have the digest \w+, and this"),
    "another class": (
        lambda folder: change(folder / ADAPTER_FOLDER, BASE_FILE, generator="PixelsImageGenerator"),
        "trained on a PixelsImageGenerator and the image generator is a DoubleConditionedImageGenerator",
    ),
    "no folder": (lambda folder: shutil.rmtree(folder / ADAPTER_FOLDER), f"has no {ADAPTER_FOLDER}/, with which"),
    "no record": (lambda folder: (folder / ADAPTER_FOLDER / BASE_FILE).unlink(), "There is no record of the image"),
    "no weights": (
        lambda folder: (folder / ADAPTER_FOLDER / "adapter_model.safetensors").unlink(),
        "There is no weights file",
    ),
    "no configuration": (
        lambda folder: (folder / ADAPTER_FOLDER / "adapter_config.json").unlink(),
        "There is no adapter's configuration",
    ),
    "a pickle": (
        lambda folder: (folder / ADAPTER_FOLDER / "adapter_model.safetensors").rename(
            folder / ADAPTER_FOLDER / "adapter_model.bin"
        ),
        "adapter_model.bin, a pickle, which can run code",
    ),
    "another place": (
        lambda folder: change(folder, "model_index.json", image_generator_adapter="../elsewhere"),
        "as image_generator_adapter; expected 'image_generator_adapter'",
    ),
    "another method": (lambda folder: change(folder / ADAPTER_FOLDER, "adapter_config.json", peft_type="LOHA"), "LORA"),
    "replicated layers": (
        lambda folder: change(folder / ADAPTER_FOLDER, "adapter_config.json", layer_replication=[[0, 1], [0, 1]]),
        "layer_replication",
    ),
    "a huge rank": (lambda folder: change(folder / ADAPTER_FOLDER, "adapter_config.json", r=10**6), "r in its"),
    "another rank": (lambda folder: change(folder / ADAPTER_FOLDER, "adapter_config.json", r=3), r"expected \(3, "),
    "a missing tensor": (with_tensors(lambda tensors, name: tensors.pop(name)), "as nothing; expected"),
    "another tensor": (with_tensors(lambda tensors, name: tensors.update(x=torch.zeros(2))), "has x as .*nothing"),
    "what is not finite": (with_tensors(lambda tensors, name: tensors[name].fill_(float("nan"))), "not finite|NaN"),
    "an unknown key": (lambda folder: change(folder / ADAPTER_FOLDER, BASE_FILE, colour="red"), "colour"),
    "a newer version": (lambda folder: change(folder / ADAPTER_FOLDER, BASE_FILE, schema=9), "newer version"),
    "a place as a name": (
        lambda folder: change(folder / ADAPTER_FOLDER, BASE_FILE, weights={"../unet": {"float32": "0"}}),
        "names the network",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_does_not_belong_together_is_a_sentence(trained, tmp_path, damage):
    shutil.copytree(trained["double_conditioned"], tmp_path / "pipeline")
    spoil, message = DAMAGES[damage]
    spoil(tmp_path / "pipeline")
    with pytest.raises(FmriModelsError, match=message):
        load(tmp_path / "pipeline")


def test_adapters_of_others_are_refused_by_their_brain_model(trained, make, tmp_path):
    train(make("other", f"generator={json.dumps(TINY)}", "seed=1"))
    shutil.copytree(trained["double_conditioned"], tmp_path / "mixed")
    shutil.rmtree(tmp_path / "mixed" / ADAPTER_FOLDER)
    shutil.copytree(tmp_path / "other" / ADAPTER_FOLDER, tmp_path / "mixed" / ADAPTER_FOLDER)
    with pytest.raises(FmriModelsError, match="revision"):
        load(tmp_path / "mixed")


def test_loaders_that_know_no_adapters_say_so(saved):
    with pytest.raises(FmriModelsError, match=r"which DiffusionPipeline does not load; load the pipeline with Fmri"):
        DiffusionPipeline.from_pretrained(str(saved))


def test_an_adapter_that_was_changed_by_hand_is_not_saved_as_if_it_were_the_same(trained, tmp_path):
    for spoil, message in (
        (lambda unet: unet.disable_adapters(), "switched off"),
        (lambda unet: unet.unload_lora(), "was taken out"),
        (lambda unet: unet.add_adapter(peft.LoraConfig(r=2, target_modules=["to_q"]), "other"), "other"),
    ):
        pipeline = load(trained["double_conditioned"])
        spoil(pipeline.image_generator.unet)
        with pytest.raises(FmriModelsError, match=message):
            pipeline.save_pretrained(tmp_path / "refused")
        assert not (tmp_path / "refused").exists()
    pipeline = load(trained["double_conditioned"])
    with pytest.raises(FmriModelsError, match="layers of a PEFT adapter"):
        pipeline.image_generator.save_pretrained(tmp_path / "generator")


@pytest.mark.slow
def test_an_interruption_resumes_to_the_bit(make, tmp_path, monkeypatch):
    overrides = (
        f"generator={json.dumps(TINY)}", "stages.1.image_generator.lora.dropout=0.2", "stages.1.training.ema_decay=0.5",
    )  # fmt: skip
    train(make("whole", *overrides))
    whole = load_file(tmp_path / "whole" / ADAPTER_FOLDER / "adapter_model.safetensors")
    calls, losses = [], LearnerObjective.losses

    def interrupted(self, model, *arguments):
        calls.append(model.training)
        if sum(calls) == 6 and model.training:
            signal.raise_signal(signal.SIGINT)
        return losses(self, model, *arguments)

    monkeypatch.setattr(LearnerObjective, "losses", interrupted)
    with pytest.raises(TrainingInterrupted):
        train(make("out", *overrides))
    monkeypatch.undo()
    checkpoint = max(Checkpoints(tmp_path / "out").folder.glob("stage01/step-*"))
    kept = load_file(checkpoint / GENERATOR_FILE)
    assert kept.keys() == {f"unet.{n.removeprefix('base_model.model.')}".replace("A.w", "A.default.w").replace(
        "B.w", "B.default.w") for n in whole}  # fmt: skip
    moments = load_file(checkpoint / "optimizer.safetensors")
    of_model = [name for name in load_file(checkpoint / "model.safetensors") if not name.startswith("rebuild.")]
    assert len({name.split(".")[0] for name in moments}) == len(of_model) + len(kept), "the base has no moments"
    train(make("out", *overrides), resume=True)
    resumed = load_file(tmp_path / "out" / ADAPTER_FOLDER / "adapter_model.safetensors")
    assert whole.keys() == resumed.keys() and all(torch.equal(values, resumed[name]) for name, values in whole.items())


@pytest.mark.slow
def test_a_finished_stage_with_lora_is_gone_on_from(make, data, tmp_path, monkeypatch):
    generator = f"generator={json.dumps(TINY)}"
    recipe = {**RECIPE, "stages": [RECIPE["stages"][1], {**RECIPE["stages"][1], "name": "more"}]}
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(recipe))

    def two(out):
        return load_recipe(str(tmp_path / "two.yaml"), [f"data={data}", f"out={tmp_path / out}", generator])

    train(two("whole"))
    run = StageRunner._train

    def fails_later(self, number, checkpoints):
        if number == 1:
            raise KeyboardInterrupt
        run(self, number, checkpoints)

    monkeypatch.setattr(StageRunner, "_train", fails_later)
    with pytest.raises(KeyboardInterrupt):
        train(two("out"))
    monkeypatch.undo()
    train(two("out"), resume=True)
    one, other = (
        load_file(tmp_path / name / ADAPTER_FOLDER / "adapter_model.safetensors") for name in ("whole", "out")
    )
    assert all(torch.equal(values, other[name]) for name, values in one.items())


@pytest.mark.slow
def test_own_weights_and_lora_may_learn_beside_each_other(make, tmp_path):
    train(make("out", "stages.1.image_generator.train=[time_embedding]", "stages.1.training.keep_best=false"))
    pipeline, before = load(tmp_path / "out"), EmbeddedImageGenerator.from_assets()
    generator = pipeline.image_generator
    learned = before.parameters_of(["time_embedding"]).keys()
    with base_alone(generator):
        own = dict(generator.unet.named_parameters())
    for name, value in before.unet.named_parameters():
        assert torch.equal(value, own[name]) != (f"unet.{name}" in learned), name
    assert generator.adapter_base.was_trained and generator.adapter_base.base_condition_revision is not None
    untrained = pipeline.untrained_image_generator
    assert same_state(untrained.unet, before.unet)
    pipeline.save_pretrained(tmp_path / "again")
    assert torch.equal(drawn(load(tmp_path / "again")), drawn(pipeline))
    entry = pipeline.training_record.stages[1]["image_generator"]
    assert entry["train"] == ["time_embedding"] and entry["parameters"] > 0 and entry["lora_parameters"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ["stages.1.training.mixed_precision=bf16"],
        ["stages.1.training.mixed_precision=bf16", "stages.1.training.parameter_dtype=bfloat16"],
        ["stages.1.image_generator.gradient_checkpointing=true"],
        ["stages.1.training.ema_decay=0.9", "stages.1.training.keep_best=false"],
        ["stages.1.training.optimizer=adafactor", "stages.1.training.max_grad_norm=1"],
    ],
)
def test_it_goes_with_the_options_of_training(make, tmp_path, options):
    train(make("out", f"generator={json.dumps(TINY)}", *options))
    tensors = load_file(tmp_path / "out" / ADAPTER_FOLDER / "adapter_model.safetensors")
    assert {values.dtype for values in tensors.values()} == {torch.float32}
    assert any(bool(values.abs().sum() > 0) for name, values in tensors.items() if "lora_B" in name)
    assert drawn(load(tmp_path / "out")).isfinite().all()


def test_a_base_in_half_precision_has_lora_in_float32(make, tmp_path):
    train(make("out", "generator={name: embedded, dtype: bfloat16}"))
    pipeline = load(tmp_path / "out")
    assert pipeline.image_generator.adapter_base.weights["unet"].keys() == {"bfloat16"}
    tensors = load_file(tmp_path / "out" / ADAPTER_FOLDER / "adapter_model.safetensors")
    assert {values.dtype for values in tensors.values()} == {torch.float32}
    assert drawn(pipeline).isfinite().all()


def learning(**options):
    generator = DoubleConditionedImageGenerator.for_stimuli((1, 8, 8), block_out_channels=[8, 16])
    put_lora(generator, ["cross_attention"], 2, 4.0, 0.0, seed=0)
    for parameter in lora_parameters(generator).values():
        parameter.data.normal_(generator=torch.Generator().manual_seed(1))
    return generator, LearningGenerator(
        generator, generator_training({"lora": {"r": 2}, **options}), torch.device("cpu")
    )


def gradients(generator, learns):
    learns.train()
    spaces = generator.learned_condition_spaces
    source = torch.Generator().manual_seed(0)
    told = {name.removesuffix("_space"): torch.randn(2, *s.shape, generator=source) for name, s in spaces.items()}
    from fmri_models.conditions import Conditions

    generator.training_loss(torch.ones(2, 1, 8, 8), Conditions(**told), generator=source).backward()
    return {name: parameter.grad for name, parameter in learns.parameters.items()}


def test_gradient_checkpointing_gives_the_same_gradient_and_ends_with_the_stage():
    found = []
    for is_on in (False, True):
        generator, learns = learning(gradient_checkpointing=is_on)
        assert generator.unet.is_gradient_checkpointing is is_on
        found.append(gradients(generator, learns))
        base = [p for n, p in generator.unet.named_parameters() if "lora" not in n]
        assert all(p.grad is None and not p.requires_grad for p in base)
        learns.close()
        assert not generator.unet.is_gradient_checkpointing
        assert all(p.requires_grad for p in base), "nothing stays frozen"
    for name, values in found[0].items():
        torch.testing.assert_close(values, found[1][name])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"lora": {"r": 0}}, "image_generator.lora.r .*expected a whole number from 1 to 4096"),
        ({"lora": {"r": 2.5}}, "image_generator.lora.r"),
        ({"lora": {"alpha": 0}}, "image_generator.lora.alpha .*positive number"),
        ({"lora": {"dropout": 1}}, "image_generator.lora.dropout"),
        ({"lora": {"rank": 2}}, "image_generator.lora.*rank"),
        ({"lora": {"groups": []}}, "image_generator.lora.groups"),
        ({"lora": 8}, "image_generator.lora is 8; expected a mapping"),
        ({"lora": None}, "does not say what is trained"),
        ({"lorra": {}}, "lorra.*did you mean"),
        ({}, "does not say what is trained"),
    ],
)
def test_keys_and_values_that_are_none_are_named(value, message):
    with pytest.raises(FmriModelsError, match=message):
        generator_training(value)


def test_what_is_left_out_has_a_default():
    training = generator_training({"lora": {}})
    assert training == GeneratorTraining(lora=training.lora) and training.lora.r == 8 and training.lora.alpha == 16
    assert training.lora.groups_of(EmbeddedImageGenerator.from_assets()) == ["cross_attention"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["stages.1.image_generator.lora.groups=[cross_atention]"], "no group of parameters 'cross_atention'.*Did you"),
        (["stages.1.image_generator.lora.r=0"], r"stages.1.image_generator.lora.r"),
        (["stages.1.image_generator.lora.rank=3"], "rank"),
        (["stages.1.image_generator.train=[cross_attention]"], "itself .* and by LoRA"),
        (["stages.0.image_generator={lora: {r: 3}}"], "'rebuild' and 'draw' have different image_generator.lora"),
        (["stages.1.image_generator.lora=null"], "does not say what is trained"),
    ],
)
def test_what_does_not_fit_is_a_sentence_before_any_stage_begins(make, overrides, message, capfd):
    with pytest.raises(FmriModelsError, match=message):
        train(make("out", *overrides))
    assert "Training rebuild" not in capfd.readouterr().err


def test_a_loaded_pipeline_draws_from_trials(saved, data):
    trials = TrialTable.open(data).trials("subj01", "test")
    pipeline = load(saved)
    assert pipeline.has_trained_generator
    pictures = pipeline(trials.fmri()[:2], "subj01", session=trials.sessions[:2], num_inference_steps=2).images
    assert [picture.size for picture in pictures] == [(64, 64)] * 2
