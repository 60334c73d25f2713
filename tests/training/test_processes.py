"""Several processes train the same model as one."""

import json
import os
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from fmri_models.cli.main import main as command_main
from fmri_models.training.__main__ import main as module_main
from fmri_models.training.processes import any_process, average_gradients, from_all, gather_examples
from tests.training.small_method import SmallObjective

# Each process notes how many examples its batches have, so that the test can't pass with processes that train alone,
# and a sum of its weights before each step.
PROGRAM = """
import os, sys
from fmri_models.registry import register_method
from fmri_models.training.__main__ import main
from tests.training.small_method import METHOD, SmallObjective

register_method(METHOD)
losses, sizes, weights = SmallObjective.losses, set(), []

def noted(self, model, batch, *arguments):
    sizes.add(len(batch["fmri"]))
    weights.append(float(model.head.weight.detach().double().sum()))
    return losses(self, model, batch, *arguments)

SmallObjective.losses = noted
status = main(sys.argv[2:])
with open(f"{sys.argv[1]}.{os.environ.get('RANK', '0')}", "w") as file:
    file.write(str(sizes))
with open(f"{sys.argv[1]}.{os.environ.get('RANK', '0')}.weights", "w") as file:
    file.write(str(weights))
sys.exit(status)
"""
# What differs between processes by intention is left out: dropout. Noise is the same.
SAME = ["stages.0.objective={noise: 0.3, contrastive: 0.5}", "model.dropout=0.0", "stages.0.training.steps=20"]
# Without noise: batches of a step that are divided draw it in parts.
QUIET = "stages.0.objective.noise=0"
MINDEYE = [
    "method=mindeye",
    "model={hidden_size: 16, num_hidden_layers: 1, projector_size: 16, prior_num_layers: 1, "
    "prior_num_attention_heads: 2, prior_attention_head_dim: 4, low_level_hidden_size: 16, "
    "low_level_num_hidden_layers: 1, low_level_start_channels: 8, low_level_block_out_channels: [8, 8, 8], "
    "low_level_norm_num_groups: 4, input_dropout: 0.0, hidden_dropout: 0.0}",
    "stages.0.objective={modules: [backbone, prior], mixco_share: 0.7, mixco_temperature: 0.1, token_weight: 1.0, "
    "soft_clip_temperatures: [0.1, 0.1], voxel_noise: 0.1, prior_weight: 1.0}",
    "stages.0.training={steps: 24, batch_size: 16, learning_rate: 3e-3, sampling: balanced, shared_stimuli: 0.25}",
]


def test_alone_nothing_is_exchanged():
    examples = torch.rand(3, 2, requires_grad=True)
    assert gather_examples(examples) is examples
    parameter = torch.nn.Parameter(torch.zeros(2))
    average_gradients([parameter])
    assert parameter.grad is None
    assert any_process([True, False], torch.device("cpu")) == [True, False] and from_all(3) == [3]


TRAINING = "stages.0.training."
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("at_once", "divided", "sizes"),
    [
        ([], [], (16, 8)),
        # One batch of 24 examples, and four of 6: two after each other in each of two processes.
        (
            [f"{TRAINING}batch_size=24", QUIET],
            [QUIET, f"{TRAINING}batch_size=12", f"{TRAINING}gradient_accumulation_steps=2",
             f"{TRAINING}gradient_accumulation=cached"],
            (24, 6),
        ),
    ],
)  # fmt: skip
def test_two_processes_train_as_one(small_data, make_recipe, tmp_path, repository, at_once, divided, sizes):
    make_recipe()
    (tmp_path / "program.py").write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": str(repository)}

    def run(name, launcher, overrides):
        out = tmp_path / name
        arguments = [str(tmp_path / "small.yaml"), f"data={small_data}", f"out={out}", *SAME, *overrides]
        command = [
            sys.executable,
            *launcher,
            str(tmp_path / "program.py"),
            str(tmp_path / f"{name}-sizes"),
            *arguments,
        ]
        return subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True)

    one = run("one", [], at_once)
    two = run("two", TORCHRUN, divided)
    assert (one.returncode, two.returncode) == (0, 0), one.stderr + two.stderr
    assert two.stdout.count("saved") == 1
    assert (tmp_path / "one-sizes.0").read_text() == f"{{{sizes[0]}}}"
    assert [(tmp_path / f"two-sizes.{rank}").read_text() for rank in (0, 1)] == [f"{{{sizes[1]}}}"] * 2
    first, second = (load_file(tmp_path / name / "brain_model" / "model.safetensors") for name in ("one", "two"))
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, atol=2e-5, rtol=1e-4)
    best = [
        json.loads((tmp_path / name / "training.json").read_text())["stages"][0]["result"]["best_validation"]
        for name in ("one", "two")
    ]
    # The other metric is one of a batch, and batches differ.
    assert best[1]["loss"] == pytest.approx(best[0]["loss"], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("negatives", ["global", "process"])
def test_the_loss_curve_of_mindeye_is_that_of_one_process(small_data, make_recipe, tmp_path, repository, negatives):
    """Balanced batches, MixCo, noise and the prior's draws; negatives of each process alone are another loss."""
    make_recipe()
    (tmp_path / "program.py").write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    curves = []
    for name, launcher in (("one", []), ("two", TORCHRUN)):
        out = tmp_path / name
        arguments = [str(tmp_path / "small.yaml"), f"data={small_data}", f"out={out}", *MINDEYE]
        arguments += [f"{TRAINING}negatives={negatives}"] if name == "two" else []
        command = [sys.executable, *launcher, str(tmp_path / "program.py"), str(tmp_path / name), *arguments]
        ended = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        curves.append(json.loads((out / "training.json").read_text())["curve"])
    one, two = ([point["train_loss"] for point in curve if point["train_loss"] is not None] for curve in curves)
    assert len(one) == len(two) > 5
    if negatives == "global":
        assert two == pytest.approx(one, rel=2e-4)
        validated = [[point["validation_loss"] for point in curve if point["validation_loss"]] for curve in curves]
        assert validated[1] == pytest.approx(validated[0], rel=1e-3)
    else:
        # Fewer to be told from.
        assert two[0] < one[0]


@pytest.mark.slow
def test_processes_round_alike(small_data, make_recipe, tmp_path, repository):
    """Weights in bfloat16 are rounded at random, and have to stay the same in all processes."""
    make_recipe()
    (tmp_path / "program.py").write_text(PROGRAM)
    half = [f"{TRAINING}steps=5", f"{TRAINING}mixed_precision=bf16", f"{TRAINING}parameter_dtype=bfloat16"]
    arguments = [str(tmp_path / "small.yaml"), f"data={small_data}", f"out={tmp_path / 'out'}", *half]
    command = [sys.executable, *TORCHRUN, str(tmp_path / "program.py"), str(tmp_path / "noted"), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    ended = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    first, second = (json.loads((tmp_path / f"noted.{rank}.weights").read_text()) for rank in (0, 1))
    assert first == second and len(set(first)) == 5


@pytest.mark.parametrize(
    ("overrides", "status", "message"),
    [
        (["stages.0.training.steps=2"], 0, ""),
        (["stages.0.training.steps=0"], 1, "training.steps is 0"),
    ],
)
def test_the_module_answers_like_the_command(make_recipe, small_data, tmp_path, capsys, overrides, status, message):
    make_recipe()
    arguments = [str(tmp_path / "small.yaml"), "--overwrite", f"data={small_data}", f"out={tmp_path / 'out'}"]
    assert module_main([*arguments, *overrides]) == status
    captured = capsys.readouterr()
    assert message in captured.err and ("saved" in captured.out) == (status == 0)


def test_an_interruption_says_how_to_go_on(make_recipe, small_data, tmp_path, capsys, monkeypatch):
    losses = SmallObjective.losses

    def interrupted(self, *arguments):
        signal.raise_signal(signal.SIGINT)
        return losses(self, *arguments)

    monkeypatch.setattr(SmallObjective, "losses", interrupted)
    make_recipe()
    arguments = ["train", str(tmp_path / "small.yaml"), f"data={small_data}", f"out={tmp_path / 'out'}"]
    assert command_main(arguments) == 130
    assert "interrupted after step 1 of 40 of the stage 'brain'" in capsys.readouterr().err.splitlines()[-1]
