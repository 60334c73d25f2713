"""What happens in a step and in a validation."""

import pytest
import torch
from accelerate.state import AcceleratorState

from fmri_models.data import TrialTable
from fmri_models.data.loading import TrialDataset
from fmri_models.errors import FmriModelsError
from fmri_models.training import precision
from fmri_models.training.building import build_model, image_generator_for, processor_for, training_subjects
from fmri_models.training.finite import NotFiniteError, is_finite
from fmri_models.training.recipe import Recipe
from fmri_models.training.stages import StageRunner

PLAIN = ("model.dropout=0.0", "stages.0.objective.noise=0", "stages.0.training.schedule=constant")


def stage_of(recipe: Recipe):
    table = TrialTable.open(recipe.data)
    torch.manual_seed(0)
    processor = processor_for(recipe, table)
    generator = image_generator_for(recipe, table)
    model = build_model(recipe, processor, generator)
    runner = StageRunner(recipe, table, model, processor, generator)
    return runner.gradient_stage(0)


def stage_of_subjects(recipe: Recipe):
    """A stage with all that a recipe learns from, and the subjects of its model."""
    table = TrialTable.open(recipe.data)
    torch.manual_seed(0)
    subjects = training_subjects(recipe, table)
    generator = image_generator_for(recipe, table)
    model = build_model(recipe, subjects, generator)
    runner = StageRunner(recipe, table, model, subjects.own, generator, subjects=subjects)
    return runner.gradient_stage(0), subjects


def weights(model):
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def run_steps(stage, count):
    batches = stage.batches(0)
    return [stage.update(step, batches) for step in range(count)]


def test_a_step_depends_on_its_number_alone(make_recipe):
    """Dropout and the objective's noise are the same whatever was drawn before."""
    first, second = stage_of(make_recipe()), stage_of(make_recipe())
    run_steps(first, 1)
    torch.rand(17)
    second.validate()
    second.update(0, second.batches(0))
    assert all(torch.equal(a, b) for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True))
    other = stage_of(make_recipe("out", "seed=1"))
    other.update(0, other.batches(0))
    assert not torch.equal(first.model.head.weight, other.model.head.weight)


def test_batches_begin_at_any_step(make_recipe):
    stage = stage_of(make_recipe("out", "stages.0.training.gradient_accumulation_steps=2"))
    from_start = stage.batches(0)
    shown = [next(from_start)["stimulus_ids"] for _ in range(40)]
    later = stage.batches(13)
    assert [next(later)["stimulus_ids"] for _ in range(14)] == shown[26:]


def test_accumulated_batches_are_one_large_batch(make_recipe):
    half = stage_of(make_recipe("out", *PLAIN, "stages.0.training.gradient_accumulation_steps=2"))
    whole = stage_of(make_recipe("out", *PLAIN, "stages.0.training.batch_size=32"))
    (first,), (second,) = run_steps(half, 1), run_steps(whole, 1)
    assert first["loss"] == pytest.approx(second["loss"], rel=1e-5)
    assert first["gradient_norm"] == pytest.approx(second["gradient_norm"], rel=1e-4)


def test_clipping_bounds_the_update_but_reports_the_norm(make_recipe):
    free, clipped = (
        stage_of(make_recipe("out", *PLAIN, *more)) for more in ([], ["stages.0.training.max_grad_norm=1e-9"])
    )
    before = weights(free.model)
    (reported,), (same,) = run_steps(free, 1), run_steps(clipped, 1)
    assert reported["gradient_norm"] == same["gradient_norm"] > 1e-3
    # AdamW's first step is lr · g / (|g| + eps): as large as lr, unless g is of the size of eps (1e-8).
    moved = (weights(free.model)["head.bias"] - before["head.bias"]).abs().max()
    barely = (weights(clipped.model)["head.bias"] - before["head.bias"]).abs().max()
    assert barely < 0.2 * moved


def test_weight_decay_is_for_matrices(make_recipe):
    groups = stage_of(make_recipe()).weights.optimizer.param_groups
    assert {parameter.ndim for parameter in groups[0]["params"]} == {2} and groups[0]["weight_decay"] == 0.01
    assert {parameter.ndim for parameter in groups[1]["params"]} == {1} and groups[1]["weight_decay"] == 0.0


def test_all_but_biases_may_be_decayed(make_recipe):
    """The published rule of MindEye goes by names, so that the gain of a norm is decayed."""
    stage = stage_of(make_recipe("out", "stages.0.training.weight_decay_groups=all_but_bias"))
    names = {id(parameter): name for name, parameter in stage.model.named_parameters()}
    decayed, left = ([names[id(p)] for p in group["params"]] for group in stage.weights.optimizer.param_groups)
    assert "network.0.weight" in decayed and all(name.endswith("weight") for name in decayed)
    assert "network.0.bias" in left and all(name.endswith("bias") for name in left)
    assert [group["weight_decay"] for group in stage.weights.optimizer.param_groups] == [0.01, 0.0]


def test_a_stage_moves_learning_rate_and_beta1_as_pytorchs_one_cycle(make_recipe):
    """MindEye's: two of 240 epochs up; AdamW's first decay the other way round."""
    training = "stages.0.training={steps: 240, learning_rate: 3e-4, schedule: one_cycle, warmup: 0.0083333}"
    stage = stage_of(make_recipe("out", training))
    reference = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=3e-4)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        reference, max_lr=3e-4, total_steps=240, pct_start=0.0083333, div_factor=25, final_div_factor=1000
    )
    batches = stage.batches(0)
    for step in range(12):
        stage.update(step, batches)
        expected = reference.param_groups[0]
        for group in stage.weights.optimizer.param_groups:
            assert group["lr"] == pytest.approx(expected["lr"], rel=1e-9)
            assert group["betas"] == pytest.approx(expected["betas"], rel=1e-9)
        reference.step()
        scheduler.step()


class NoisyTargets:
    """Targets that are drawn anew in each step."""

    def __call__(self, batch, generator):
        noise = torch.randn(batch["latents"].shape, generator=generator)
        return {**batch, "latents": batch["latents"] + noise}


@pytest.mark.parametrize("accumulation", ["separate", "cached"])
def test_targets_may_be_made_in_each_step(make_recipe, accumulation):
    overrides = [
        "stages.0.training.gradient_accumulation_steps=2",
        f"stages.0.training.gradient_accumulation={accumulation}",
    ]
    usual, first, second = (stage_of(make_recipe("out", *overrides)) for _ in range(3))
    first.online_targets = second.online_targets = NoisyTargets()
    assert first.validate() == usual.validate()
    (plain, _), noisy, again = run_steps(usual, 2), run_steps(first, 2), run_steps(second, 2)
    assert noisy == again
    # The noise has the variance of the standardised latents.
    assert noisy[0]["error"] > 1.5 * plain["error"]


def test_only_what_the_objective_names_is_trained(make_recipe):
    stage = stage_of(make_recipe("out", "stages.0.objective.only_head=true"))
    before = weights(stage.model)
    run_steps(stage, 3)
    changed = {name for name, value in weights(stage.model).items() if not torch.equal(value, before[name])}
    assert changed == {"head.weight", "head.bias"}
    stage.close()
    assert all(parameter.requires_grad for parameter in stage.model.parameters())


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
def test_the_moving_average_is_validated_and_not_trained_on(make_recipe, optimizer):
    stage = stage_of(make_recipe("out", "stages.0.training.ema_decay=0.9", f"stages.0.training.optimizer={optimizer}"))
    batches, average = stage.batches(0), None
    for step in range(4):
        stage.update(step, batches)
        now = stage.model.head.weight.detach()
        decay = min((1 + step) / (10 + step), 0.9) if step else 0.0
        average = now.clone() if average is None else decay * average + (1 - decay) * now
    last = stage.model.head.weight.detach().clone()
    with stage.weights.averaged():
        torch.testing.assert_close(stage.model.head.weight.detach(), average)
    assert torch.equal(stage.model.head.weight, last) and not torch.allclose(last, average)
    own = stage.validate()
    stage.weights.keep_average()
    stage.weights.average = None
    assert stage.validate() == own


def test_validation_is_repeatable_and_weighted_by_rows(make_recipe):
    stage = stage_of(make_recipe("out", "stages.0.training.batch_size=8"))
    metrics = stage.validate()
    assert metrics == stage.validate() and set(metrics) == {"loss", "correlation"}
    rows = stage.held_out.__getitems__(range(len(stage.held_out)))
    with torch.no_grad():
        whole = stage.objective.validation_metrics(stage.model.eval(), rows, torch.Generator())
    assert len(stage.held_out) == 20 and metrics["loss"] == pytest.approx(float(whole["loss"]), rel=1e-5)


def test_mixed_precision_differs_by_stage(make_recipe):
    half = stage_of(make_recipe("out", "stages.0.training.mixed_precision=bf16"))
    assert half.accelerator.mixed_precision == "bf16"
    whole = stage_of(make_recipe())
    assert whole.accelerator.mixed_precision == "no"
    (rough,), (exact,) = run_steps(half, 1), run_steps(whole, 1)
    assert rough["loss"] != exact["loss"] and rough["loss"] == pytest.approx(exact["loss"], rel=0.05)
    AcceleratorState._reset_state()


def test_bfloat16_is_not_emulated(make_recipe, monkeypatch):
    monkeypatch.setattr(precision, "has_bfloat16_instructions", lambda: False)
    half = ["stages.0.training.mixed_precision=bf16"]
    emulating = stage_of(make_recipe("out", *half))
    expected = "no" if emulating.accelerator.device.type == "cpu" else "bf16"
    assert emulating.accelerator.mixed_precision == expected
    small = stage_of(make_recipe("out", *half, "stages.0.training.parameter_dtype=bfloat16"))
    assert small.accelerator.mixed_precision == "bf16"
    AcceleratorState._reset_state()


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["stages.0.training.mixed_precision=bf16"],
        ["stages.0.training.mixed_precision=bf16", "stages.0.training.parameter_dtype=bfloat16"],
        ["stages.0.training.optimizer=adafactor", "stages.0.training.gradient_accumulation=cached"],
    ],
)
def test_not_finite_values_stop_before_the_weights_change(make_recipe, overrides):
    stage = stage_of(make_recipe("out", *overrides))
    before = weights(stage.model)
    targets = {name: values.copy() for name, values in stage.data.targets.items()}
    targets["latents"][:, 3] = float("inf")
    ids = TrialTable.open(make_recipe().data).stimuli.ids
    stage.data = TrialDataset(stage.data.subjects, targets, ids, stage.data.shapes)
    with pytest.raises(NotFiniteError, match="latents of the batch has values that are not finite"):
        run_steps(stage, 1)
    assert all(torch.equal(value, before[name]) for name, value in weights(stage.model).items())


def test_a_batch_of_all_rows_where_there_are_fewer(make_recipe):
    stage = stage_of(make_recipe("out", "stages.0.training={epochs: 3, batch_size: 5000}"))
    assert stage.num_steps == 3 and len(next(stage.batches(0))["fmri"]) == len(stage.data) == 120


def test_single_trials_are_rows_of_their_own(make_recipe):
    stage = stage_of(make_recipe("out", "repetitions=single", "subjects=[subj07]"))
    assert len(stage.data) == 180 and len(stage.held_out) == 30


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["stages.0.objective={only_head: true, speed: 1}"], "unknown key 'speed'"),
        (["method=linear"], "training options, but the method 'linear' is fitted in closed form"),
    ],
)
def test_bad_stages_are_sentences(make_recipe, overrides, message):
    with pytest.raises(FmriModelsError, match=message):
        stage_of(make_recipe("out", *overrides))


def test_large_finite_values_whose_sum_overflows_are_finite():
    large = torch.full((4,), 3e38)
    assert is_finite(large)
    assert is_finite(torch.arange(3))
    assert not is_finite(torch.cat([large, torch.tensor([float("nan")])]))
    assert not is_finite(torch.tensor([float("inf"), -float("inf"), 0.0]))


BALANCED = ("stages.0.training.sampling=balanced", "stages.0.training.shared_stimuli=0.5")


def test_balanced_batches_have_as_many_rows_of_each_subject(make_recipe):
    stage = stage_of(make_recipe("out", *BALANCED))
    batches = stage.batches(3)
    for _ in range(5):
        batch = next(batches)
        assert batch["subject_ids"].bincount().tolist() == [8, 8]
        first, second = (batch["stimulus"][batch["subject_ids"] == subject][:4] for subject in (0, 1))
        # The small table's subjects have seen the same pictures.
        assert torch.equal(first, second)
        names = [batch["stimulus_ids"][place] for place in (batch["subject_ids"] == 0).nonzero().flatten()[:4]]
        assert names == [batch["stimulus_ids"][place] for place in (batch["subject_ids"] == 1).nonzero().flatten()[:4]]
    assert stage.order.batches_an_epoch == 7
    again = stage_of(make_recipe("out", *BALANCED)).batches(0)
    later = [next(again)["stimulus_ids"] for _ in range(6)][5]
    assert next(stage.batches(5))["stimulus_ids"] == later


def test_rows_that_show_the_same_have_the_same_number(make_recipe):
    batch = next(stage_of(make_recipe("out", "repetitions=single")).batches(0))
    numbers = batch["stimulus"]
    names = batch["stimulus_ids"]
    for row, name in enumerate(names):
        assert [other == name for other in names] == (numbers == numbers[row]).tolist()


def test_batches_that_do_not_divide_among_subjects(make_recipe):
    with pytest.raises(FmriModelsError, match="15 rows of a batch do not divide among the 2 subjects"):
        stage_of(make_recipe("out", "stages.0.training.sampling=balanced", "stages.0.training.batch_size=15"))


def test_sharing_needs_balanced_batches(make_recipe):
    with pytest.raises(FmriModelsError, match="sampling is 'proportional'"):
        make_recipe("out", BALANCED[1])
