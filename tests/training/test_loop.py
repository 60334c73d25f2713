"""Checkpoints, interruptions and resuming, on a small real method."""

import errno
import json
import shutil
import signal

import pytest
import torch
from safetensors.torch import load_file, save_file

from fmri_models.errors import FmriModelsError
from fmri_models.objectives import GradientObjective
from fmri_models.training import checkpoints as checkpoints_module
from fmri_models.training.__main__ import main
from fmri_models.training.checkpoints import Checkpoints
from fmri_models.training.estimate import estimate
from fmri_models.training.interruption import TrainingInterrupted
from fmri_models.training.run_folder import TRAINING_SCHEMA
from fmri_models.training.trainer import train
from fmri_models.training_record import TrainingRecord
from tests.new_process import run_program
from tests.small_table import write_small_table
from tests.training.small_method import SmallConfig, SmallObjective

# A program that trains, with `resume` as its first word from the checkpoint that is there.
TRAINS = """
import os, signal, sys
from fmri_models.registry import register_method
from fmri_models.training import checkpoints
from fmri_models.training.recipe import load_recipe
from fmri_models.training.trainer import train
from tests.training.small_method import METHOD

register_method(METHOD)
train(load_recipe(sys.argv[2], sys.argv[3:]), resume=sys.argv[1] == "resume")
"""

# It is killed while the checkpoint of step 20 has its first file and no other.
KILLED_WHILE_SAVING = TRAINS.replace(
    "train(",
    """
write = checkpoints.save_model

def write_and_die(model, path):
    write(model, path)
    if "step-00000020" in path:
        os.kill(os.getpid(), signal.SIGKILL)

checkpoints.save_model = write_and_die
train(""",
)


def weights(folder):
    return load_file(folder / "brain_model" / "model.safetensors")


def assert_same_weights(first, second):
    first, second = weights(first), weights(second)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def result_of(folder, stage=0):
    return TrainingRecord.load(folder).stages[stage]["result"]


def curve_of(folder):
    return TrainingRecord.load(folder).curve


@pytest.fixture
def interrupt(monkeypatch):
    """Has SIGINT arrive in the middle of a step."""

    def arrange(step, number=signal.SIGINT):
        losses, calls = SmallObjective.losses, []

        def interrupted(self, *arguments):
            calls.append(None)
            if len(calls) == step:
                signal.raise_signal(number)
            return losses(self, *arguments)

        monkeypatch.setattr(SmallObjective, "losses", interrupted)

    yield arrange
    monkeypatch.undo()


def test_training_learns_and_leaves_nothing_but_the_pipeline(make_recipe, tmp_path):
    train(make_recipe("out", "stages.0.training.steps=200"))
    result = result_of(tmp_path / "out")
    assert result["steps"] == 200 and len(result["validations"]) == 20
    assert result["best_validation"]["correlation"] > 0.3 > result["validations"][0]["correlation"]
    assert result["best_validation"]["loss"] == min(each["loss"] for each in result["validations"])
    assert TrainingRecord.load(tmp_path / "out").seconds >= TrainingRecord.load(tmp_path / "out").stages[0]["seconds"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "small.yaml"]
    record = TrainingRecord.load(tmp_path / "out")
    assert [point["step"] for point in record.curve] == list(range(10, 201, 10))
    assert {point["stage"] for point in record.curve} == {"brain"}
    assert record.curve[-1]["train_loss"] < record.curve[0]["train_loss"]
    assert record.curve[-1]["validation_loss"] == pytest.approx(result["validations"][-1]["loss"], rel=1e-5)
    assert record.hardware["device"] == "cpu" and record.hardware["precision"] == "float32"
    assert set(record.learned) == {"subjects", "sessions", "trials", "pictures"}
    assert 0 < record.learned["pictures"] < record.learned["trials"], "stimuli are repeated"
    assert "curve" not in record.stages[0]


@pytest.mark.slow
def test_a_kill_in_the_middle_of_saving_loses_nothing_but_the_steps_since(make_recipe, small_data, tmp_path):
    # All three in processes of one kind: the same sums in another one may differ in the last bit.
    make_recipe()
    recipe = [tmp_path / "small.yaml", f"data={small_data}"]
    whole = run_program(TRAINS, "anew", *recipe, f"out={tmp_path / 'whole'}")
    assert whole.returncode == 0, whole.stderr

    killed = run_program(KILLED_WHILE_SAVING, "anew", *recipe, f"out={tmp_path / 'killed'}")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    left = Checkpoints(tmp_path / "killed")
    assert left.latest(0).name == "step-00000010"
    assert list(left.folder.glob("stage00/.partial-*/model.safetensors"))

    resumed = run_program(TRAINS, "resume", *recipe, f"out={tmp_path / 'killed'}")
    assert resumed.returncode == 0, resumed.stderr
    assert_same_weights(tmp_path / "whole", tmp_path / "killed")
    assert result_of(tmp_path / "killed")["validations"] == result_of(tmp_path / "whole")["validations"]
    assert curve_of(tmp_path / "killed") == curve_of(tmp_path / "whole")
    assert not left.folder.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"ema_decay": 0.9, "gradient_accumulation_steps": 2, "max_grad_norm": 0.5, "schedule": "cosine"},
        {"mixed_precision": "bf16", "keep_best": "false", "epochs": 4, "steps": "null"},
    ],
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_saves_and_resumes_to_the_bit(make_recipe, tmp_path, interrupt, monkeypatch, options, number):
    overrides = [f"stages.0.training.{name}={value}" for name, value in options.items()]
    train(make_recipe("whole", *overrides))
    interrupt(17, number)
    with pytest.raises(TrainingInterrupted, match=r"after step \d+ of \d+ of the stage 'brain'.*--resume"):
        train(make_recipe("out", *overrides))
    monkeypatch.undo()
    assert not (tmp_path / "out").exists()
    train(make_recipe("out", *overrides, "stages.0.training.log_every=3"), resume=True)
    assert_same_weights(tmp_path / "whole", tmp_path / "out")
    assert curve_of(tmp_path / "out") == curve_of(tmp_path / "whole") != []


def test_old_handlers_are_back_after_training(make_recipe):
    before = signal.getsignal(signal.SIGINT)
    train(make_recipe("out", "stages.0.training.steps=2"))
    assert signal.getsignal(signal.SIGINT) is before


def test_two_checkpoints_and_their_best_are_kept(make_recipe, tmp_path, interrupt):
    interrupt(35)
    with pytest.raises(TrainingInterrupted):
        train(make_recipe("out", "stages.0.training.checkpoint_every=5"))
    stage = tmp_path / ".out.training" / "stage00"
    assert sorted(path.name for path in stage.glob("step-*")) == ["step-00000030", "step-00000035"]
    named = {json.loads((path / "state.json").read_text())["best_step"] for path in stage.glob("step-*")}
    assert {path.name for path in stage.glob("best-*")} == {f"best-{step:08d}" for step in named}


def test_the_best_weights_by_validation_are_kept(make_recipe, tmp_path):
    """With a level learning rate and no noise, the first ten steps are the same however many follow."""
    level = [
        "stages.0.training.schedule=constant", "stages.0.training.warmup=0", "stages.0.objective.noise=0",
    ]  # fmt: skip
    train(make_recipe("short", *level, "stages.0.training.steps=10"))
    train(make_recipe("best", *level, "stages.0.training.monitor_mode=max"))
    train(make_recipe("last", *level, "stages.0.training.monitor_mode=max", "stages.0.training.keep_best=false"))
    assert result_of(tmp_path / "best")["kept_step"] == result_of(tmp_path / "best")["best_step"] == 10
    assert_same_weights(tmp_path / "short", tmp_path / "best")
    assert result_of(tmp_path / "last")["kept_step"] == 40
    assert not torch.equal(weights(tmp_path / "last")["head.bias"], weights(tmp_path / "best")["head.bias"])


def test_finished_stages_are_not_repeated(make_recipe, tmp_path, interrupt, monkeypatch):
    stages = (
        "stages=[{name: mean}, {name: head, objective: {only_head: true}, training: {steps: 10}},"
        " {name: all, training: {steps: 10}}]"
    )
    train(make_recipe("whole", stages))
    interrupt(15)
    with pytest.raises(TrainingInterrupted, match="of the stage 'all'"):
        train(make_recipe("out", stages))
    monkeypatch.undo()
    assert sorted(path.name for path in (tmp_path / ".out.training").iterdir()) == ["run.json", "stage01", "stage02"]
    monkeypatch.setattr(SmallObjective, "fit", lambda *arguments: pytest.fail("the first stage was repeated"))
    train(make_recipe("out", stages), resume=True)
    assert_same_weights(tmp_path / "whole", tmp_path / "out")
    assert [entry["stage"] for entry in TrainingRecord.load(tmp_path / "out").stages] == ["mean", "head", "all"]
    assert SmallConfig.from_pretrained(tmp_path / "out" / "brain_model").fitted


@pytest.mark.parametrize(
    "options", [[], ["stages.0.training.mixed_precision=bf16", "stages.0.training.parameter_dtype=bfloat16"]]
)
def test_a_diverging_loss_stops_and_names_the_last_checkpoint(make_recipe, tmp_path, options):
    wild = [
        *options,
        "stages.0.training.learning_rate=1e30", "stages.0.training.schedule=constant",
        "stages.0.training.checkpoint_every=1",
    ]  # fmt: skip
    with pytest.raises(FmriModelsError, match=r"in step 2 of the stage 'brain': the loss '\w+' is nan.*step-00000001"):
        train(make_recipe("out", *wild))
    assert Checkpoints(tmp_path / "out").latest(0).name == "step-00000001"
    assert not (tmp_path / "out").exists()


def test_a_full_disk_leaves_the_previous_checkpoint(make_recipe, tmp_path, monkeypatch):
    write = checkpoints_module.save_file

    def full(tensors, path):
        if "step-00000020" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device")
        write(tensors, path)

    monkeypatch.setattr(checkpoints_module, "save_file", full)
    with pytest.raises(FmriModelsError, match="disk is full while writing .*step-00000020"):
        train(make_recipe("out"))
    stage = tmp_path / ".out.training" / "stage00"
    assert [path.name for path in stage.iterdir() if not path.name.startswith("best")] == ["step-00000010"]
    monkeypatch.undo()
    train(make_recipe("out"), resume=True)
    train(make_recipe("whole"))
    assert_same_weights(tmp_path / "whole", tmp_path / "out")


def test_an_interrupted_training_is_not_thrown_away_by_accident(make_recipe, tmp_path, interrupt, monkeypatch):
    interrupt(12)
    with pytest.raises(TrainingInterrupted):
        train(make_recipe("out"))
    monkeypatch.undo()
    with pytest.raises(FmriModelsError, match=r"was interrupted .*--resume to go on with it, or --overwrite"):
        train(make_recipe("out"))
    train(make_recipe("whole"))
    train(make_recipe("out"), overwrite=True)
    assert_same_weights(tmp_path / "whole", tmp_path / "out")
    assert not (tmp_path / ".out.training").exists()


def test_resuming_something_else_is_a_sentence(make_recipe, tmp_path, interrupt, monkeypatch):
    interrupt(12)
    with pytest.raises(TrainingInterrupted):
        train(make_recipe("out"))
    monkeypatch.undo()
    other = write_small_table(tmp_path / "other", noise=0.7)
    for overrides, message in (
        (["stages.0.training.learning_rate=0.1"], "stages.0.training.learning_rate 0.01, and now it is 0.1"),
        (["seed=1"], "seed 0, and now it is 1"),
        (["stages.0.objective.noise=1"], "stages.0.objective.noise None, and now it is 1"),
        ([f"data={other}"], "is on other data than this"),
    ):
        with pytest.raises(FmriModelsError, match=message):
            train(make_recipe("out", *overrides), resume=True)
    latest = Checkpoints(tmp_path / "out").latest(0)
    (latest / "optimizer.safetensors").write_bytes(b"cut short")
    with pytest.raises(FmriModelsError, match=f"checkpoint {latest} is damaged"):
        train(make_recipe("out"), resume=True)
    shutil.rmtree(latest)
    train(make_recipe("out"), resume=True)
    train(make_recipe("whole"))
    assert_same_weights(tmp_path / "whole", tmp_path / "out")


def test_weights_for_another_space_are_a_sentence(make_recipe, tmp_path, interrupt, monkeypatch):
    interrupt(12)
    with pytest.raises(TrainingInterrupted):
        train(make_recipe("out"))
    monkeypatch.undo()
    config = Checkpoints(tmp_path / "out").latest(0) / "config.json"
    values = json.loads(config.read_text())
    values["latent_space"]["revision"] = "earlier"
    config.write_text(json.dumps(values))
    with pytest.raises(FmriModelsError, match="mean different things by an embedding: revision is 'earlier' in the c"):
        train(make_recipe("out"), resume=True)


def test_resuming_without_a_checkpoint_starts_anew(make_recipe, tmp_path):
    train(make_recipe("out", "stages.0.training.steps=2"), resume=True)
    assert result_of(tmp_path / "out")["steps"] == 2


def test_a_failure_before_the_first_checkpoint_leaves_nothing(make_recipe, tmp_path):
    with pytest.raises(FmriModelsError, match="monitors 'speed', which .* it measures correlation, loss"):
        train(make_recipe("out", "stages.0.training.monitor=speed"))
    assert [path.name for path in tmp_path.iterdir()] == ["small.yaml"]


def test_without_validation_trials_the_last_weights_are_kept(make_recipe, tmp_path, caplog):
    with caplog.at_level("WARNING", logger="fmri_models"):
        train(make_recipe("out", "stages.0.validate_on=[]", "stages.0.training.steps=3"))
    assert "no validation trials" in caplog.text
    assert result_of(tmp_path / "out") == {
        "steps": 3, "kept_step": 3, "best_step": None, "best_validation": None, "validations": [],
    }  # fmt: skip


@pytest.mark.slow
def test_training_starts_from_a_model(make_recipe, tmp_path):
    train(make_recipe("first"))
    more = ["stages.0.training.steps=1", "stages.0.training.learning_rate=1e-12"]
    train(make_recipe("second", f"initial_model={tmp_path / 'first'}", *more))
    for name, value in weights(tmp_path / "second").items():
        torch.testing.assert_close(value, weights(tmp_path / "first")[name])
    for overrides, message in (
        (["initial_model=nowhere"], "nowhere can't be read as a SmallModel"),
        ([f"initial_model={tmp_path / 'first'}", "subjects=[subj07]"], "has subject_names"),
        ([f"initial_model={tmp_path / 'first'}", "generator=embedded"], "mean different things by an embedding"),
        ([f"initial_model={tmp_path / 'first'}", "model.hidden_size=8"], "other parts or sizes"),
    ):
        with pytest.raises(FmriModelsError, match=message):
            train(make_recipe("third", *overrides))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["stages=[{name: a, training: {steps: 1, mixed_precision: fp16}}]"], "'fp16', which needs a GPU"),
        (["trackers=[tensorbord]"], "no tracker 'tensorbord'"),
        (["trackers=[swanlab]"], "'swanlab' is not installed"),
        (["model.droput=0.1"], "unknown key 'droput'; did you mean 'dropout'"),
        (["model.dropout=much"], "model.dropout is 'much'"),
    ],
)
def test_what_cannot_work_is_said_at_once(make_recipe, tmp_path, overrides, message):
    if "fp16" in message and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(FmriModelsError, match=message):
        train(make_recipe("out", *overrides))
    assert [path.name for path in tmp_path.iterdir()] == ["small.yaml"]


def test_a_method_trained_by_gradient_needs_training_options(make_recipe, monkeypatch):
    class ByGradient(GradientObjective):
        losses = SmallObjective.losses

    monkeypatch.setattr("tests.training.small_method.SmallObjective", ByGradient)
    with pytest.raises(FmriModelsError, match="says nothing on training.* at least steps or epochs"):
        train(make_recipe("out", "stages=[{name: a}]"))


def test_the_estimate_takes_real_steps_and_writes_nothing(make_recipe, tmp_path):
    text = estimate(make_recipe("out", "stages.0.training.ema_decay=0.9"))
    parameters = (60 + 1 + 45 + 1) * 32 + 2 * 32 + 33 * 32 + 33 * 144
    assert f"{parameters:,} are trained" in text and "40 of 16 rows (5.7 epochs)" in text
    assert "5 real steps took" in text and "of which there are 4, takes" in text
    assert [path.name for path in tmp_path.iterdir()] == ["small.yaml"]


def test_tensorboard_gets_the_scalars(make_recipe, tmp_path):
    pytest.importorskip("tensorboard", reason="the tracker TensorBoard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(make_recipe("out", "trackers=[tensorboard]"))
    events = EventAccumulator(str(tmp_path / "out-logs" / "brain"))
    events.Reload()
    validated = {event.step: event.value for event in events.Scalars("validation/loss")}
    assert validated == {
        each["step"]: pytest.approx(each["loss"]) for each in result_of(tmp_path / "out")["validations"]
    }
    assert [event.step for event in events.Scalars("train/loss")] == [10, 20, 30, 40]
    assert {"train/learning_rate", "train/gradient_norm", "validation/correlation"} <= set(events.Tags()["scalars"])


@pytest.fixture
def interrupted(make_recipe, tmp_path, interrupt, monkeypatch):
    """Folder of the last checkpoint of an interrupted training into `out`."""
    interrupt(12)
    with pytest.raises(TrainingInterrupted):
        train(make_recipe("out"))
    monkeypatch.undo()
    return Checkpoints(tmp_path / "out").latest(0)


def changed(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step": -1}, "as 'step'"),
        ({"step": True}, "has True as 'step'"),
        ({"step": 11}, "its state is of step 11 of stage 0"),
        ({"stage": 1}, "its state is of step 12 of stage 1"),
        ({"best_step": None}, "has validations and no best step"),
        ({"best_step": 5}, "has validations and no best step"),
        ({"seconds": "1"}, "as 'seconds'"),
        ({"history": [{"seconds": "1"}]}, "a number as seconds"),
        ({"validations": [1]}, "as 'validations.0'"),
        ({"validations": [{"loss": 1.0}]}, "a number as step"),
        ({"more": 1}, "has 'more'"),
        ({"schema": TRAINING_SCHEMA + 1}, "newer version"),
    ],
)
def test_a_state_that_does_not_fit_is_a_sentence(make_recipe, interrupted, changes, message):
    changed(interrupted / "state.json", **changes)
    with pytest.raises(FmriModelsError, match=message):
        train(make_recipe("out", "stages.0.training.steps=40"), resume=True)


@pytest.mark.parametrize("name", ["state.json", "../../run.json", "config.json"])
@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"[" * 100_000, b"{}"])
def test_damaged_files_of_a_checkpoint_are_sentences(make_recipe, interrupted, name, content):
    (interrupted / name).write_bytes(content)
    with pytest.raises(FmriModelsError, match="damaged|schema version|no 'stage'"):
        train(make_recipe("out"), resume=True)


def test_a_checkpoint_of_a_version_without_curves_is_gone_on_with(make_recipe, interrupted, tmp_path):
    for file in (interrupted / "state.json", interrupted.parent.parent / "run.json"):
        values = json.loads(file.read_text())
        values.pop("train_losses", None), values.pop("running_losses", None)
        file.write_text(json.dumps({**values, "schema": 1}))
    train(make_recipe("out", "stages.0.training.steps=40"), resume=True)
    curve = curve_of(tmp_path / "out")
    assert curve[0]["train_loss"] is None, "only the validations before the interruption are known"
    assert curve[-1]["train_loss"] is not None and curve[-1]["step"] == 40


def test_weights_of_a_checkpoint_that_are_not_finite_are_named(make_recipe, interrupted):
    values = load_file(interrupted / "model.safetensors")
    values["head.bias"][0] = float("nan")
    save_file(values, interrupted / "model.safetensors")
    with pytest.raises(FmriModelsError, match=r"is damaged \(head\.bias of the checkpoint has 1 values that are NaN"):
        train(make_recipe("out"), resume=True)


def test_a_folder_of_somebody_else_beside_the_output_is_kept(make_recipe, tmp_path):
    beside = tmp_path / ".out.training"
    beside.mkdir()
    (beside / "thesis.tex").write_text("important")
    for again in ({}, {"overwrite": True}):
        with pytest.raises(FmriModelsError, match=r"\.out\.training has content and is no folder of a training"):
            train(make_recipe("out"), **again)
    assert (beside / "thesis.tex").read_text() == "important"


def test_starting_again_removes_what_a_kill_has_left(make_recipe, small_data, tmp_path):
    arguments = [str(tmp_path / "small.yaml"), f"data={small_data}", f"out={tmp_path / 'out'}"]
    make_recipe("out")
    run_program(KILLED_WHILE_SAVING, "anew", *arguments)
    assert list(tmp_path.rglob(".partial-*"))
    train(make_recipe("out", "stages.0.training.steps=2"), overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "small.yaml"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_exit_code_is_the_signals(make_recipe, small_data, tmp_path, interrupt, number, code, capsys):
    make_recipe("out")
    interrupt(3, number)
    assert main([str(tmp_path / "small.yaml"), f"data={small_data}", f"out={tmp_path / 'out'}"]) == code
    assert "--resume goes on from there" in capsys.readouterr().err
    assert not list(tmp_path.rglob(".partial-*"))
