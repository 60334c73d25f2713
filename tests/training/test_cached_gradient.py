"""Batches whose rows are compared with each other as those of one large batch are."""

import pytest
import torch
from torch import nn

from fmri_models.errors import FmriModelsError
from fmri_models.training.cached_gradient import JoinedBatches, only_reading
from tests.training.small_method import SmallObjective
from tests.training.test_gradient import run_steps, stage_of

MINDEYE = [
    "method=mindeye",
    "generator=pixels",
    "model={hidden_size: 16, num_hidden_layers: 1, projector_size: 16, prior_num_layers: 1, "
    "prior_num_attention_heads: 2, prior_attention_head_dim: 4, low_level_hidden_size: 16, "
    "low_level_num_hidden_layers: 1, low_level_start_channels: 8, low_level_block_out_channels: [8, 8, 8], "
    "low_level_norm_num_groups: 4, input_dropout: 0.0, hidden_dropout: 0.0}",
]
SOFT_CLIP = "stages.0.objective={modules: [backbone], mixco_beta: null, soft_clip_temperatures: [0.1, 0.1]}"
MIXCO = "stages.0.objective={modules: [backbone], mixco_share: 1.0, mixco_temperature: 0.1}"
LEVEL = ["stages.0.training.schedule=constant", "stages.0.training.warmup=0"]
CACHED = [
    "stages.0.training.batch_size=8", "stages.0.training.gradient_accumulation_steps=4",
    "stages.0.training.gradient_accumulation=cached",
]  # fmt: skip


def gradients(stage):
    """Of the first step, up to a factor: AdamW's first moment after it."""
    run_steps(stage, 1)
    return {name: value for name, value in stage.weights.tensors()["optimizer"].items() if name.endswith("exp_avg")}


def assert_equal_gradients(first, second):
    largest = max(float(value.abs().max()) for value in first.values())
    assert first.keys() == second.keys() and largest > 0
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-5, atol=1e-6 * largest)


@pytest.mark.parametrize("objective", [SOFT_CLIP, SOFT_CLIP.replace("[backbone]", "[backbone], token_weight: 3.0")])
def test_four_small_batches_have_the_gradient_of_a_large_one(make_recipe, objective):
    """Soft CLIP compares all 32 rows; the squared error of the tokens compares none and is averaged."""
    small = stage_of(make_recipe("out", *MINDEYE, objective, *LEVEL, *CACHED))
    large = stage_of(make_recipe("out", *MINDEYE, objective, *LEVEL, "stages.0.training.batch_size=32"))
    apart = stage_of(make_recipe("out", *MINDEYE, objective, *LEVEL, *CACHED[:-1]))
    in_parts, at_once, averaged = gradients(small), gradients(large), gradients(apart)
    assert_equal_gradients(at_once, in_parts)
    with pytest.raises(AssertionError):
        assert_equal_gradients(at_once, averaged)


@pytest.mark.parametrize("objective", [SOFT_CLIP, MIXCO])
def test_the_losses_of_all_batches_of_a_step_are_the_joint_one(make_recipe, objective, monkeypatch):
    """With dropout and mixing, too: each batch draws the same whenever it is asked."""
    dropout = ["model.input_dropout=0.4", "model.hidden_dropout=0.3"]
    stage = stage_of(make_recipe("out", *MINDEYE, *dropout, objective, *LEVEL, *CACHED))
    losses, seen = type(stage.objective).losses, []

    def noted(self, model, *arguments):
        found = losses(self, model, *arguments)
        seen.append((torch.is_grad_enabled(), float(found["contrastive"].detach())))
        return found

    monkeypatch.setattr(type(stage.objective), "losses", noted)
    (step,) = run_steps(stage, 1)
    assert [learns for learns, _ in seen] == [False] * 3 + [True] * 4
    joint = [value for learns, value in seen if learns]
    assert joint == pytest.approx([step["contrastive"]] * 4, rel=1e-6)


class NotedRows(SmallObjective):
    """Notes what it gathers."""

    def losses(self, model, batch, progress, gather, generator):
        def noted(tensor):
            self.rows.append((batch["stimulus_ids"], tensor.detach().clone()))
            return gather(tensor)

        return super().losses(model, batch, progress, noted, generator)


def test_dropout_and_noise_are_the_same_whenever_a_batch_is_read(make_recipe):
    overrides = ["model.dropout=0.5", "stages.0.objective={noise: 1.0, contrastive: 1.0}", *CACHED]
    stage, again = (stage_of(make_recipe("out", *overrides)) for _ in range(2))
    stage.objective = NotedRows(noise=1.0, contrastive=1.0)
    stage.objective.rows = []
    run_steps(stage, 1)
    rows = stage.objective.rows
    assert len(rows) == 2 * (3 + 4)
    for ids, tensor in rows[:6]:
        twins = [other for other_ids, other in rows[8:] if other_ids == ids]
        assert any(torch.equal(tensor, twin) for twin in twins)
    run_steps(again, 1)
    assert all(torch.equal(a, b) for a, b in zip(stage.model.parameters(), again.model.parameters(), strict=True))


class Saved:
    """A tensor that autograd keeps for the backward pass; counts the values that are kept at once."""

    now = most = 0

    def __init__(self, tensor):
        self.tensor = tensor
        Saved.now += tensor.numel()
        Saved.most = max(Saved.most, Saved.now)

    def __del__(self):
        Saved.now -= self.tensor.numel()


def kept_at_once(stage):
    weights = {parameter.data_ptr() for parameter in stage.model.parameters()}

    def pack(tensor):
        return tensor if tensor.data_ptr() in weights else Saved(tensor)

    def unpack(kept):
        return kept.tensor if isinstance(kept, Saved) else kept

    Saved.now = Saved.most = 0
    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        run_steps(stage, 1)
    assert Saved.now == 0
    return Saved.most


def test_the_activations_of_one_small_batch_are_kept(make_recipe):
    objective = "stages.0.objective={contrastive: 1.0}"
    large = kept_at_once(stage_of(make_recipe("out", objective, "stages.0.training.batch_size=32")))
    small = kept_at_once(stage_of(make_recipe("out", objective, *CACHED)))
    # Not a quarter, because the joined rows and their similarities are as many as in the large batch.
    assert small < 0.5 * large


def test_reading_leaves_no_trace():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with only_reading(model):
        assert not model(torch.rand(5, 3)).requires_grad
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model(torch.rand(5, 3))
    assert not torch.equal(model[1].running_mean, before["1.running_mean"])


def test_batches_of_one_row_can_be_compared(make_recipe):
    """A contrastive loss needs several rows, and the step has them."""
    one = [
        "stages.0.training.batch_size=1", "stages.0.training.gradient_accumulation_steps=4",
        "stages.0.training.gradient_accumulation=cached",
    ]  # fmt: skip
    small = stage_of(make_recipe("out", *MINDEYE, SOFT_CLIP, *LEVEL, *one))
    large = stage_of(make_recipe("out", *MINDEYE, SOFT_CLIP, *LEVEL, "stages.0.training.batch_size=4"))
    assert_equal_gradients(gradients(large), gradients(small))


def test_different_numbers_of_gathered_tensors_are_a_sentence():
    joined = JoinedBatches(2)
    joined.reading(0)(torch.rand(2, 3))
    gather = joined.learning(1)
    gather(torch.rand(2, 3))
    with pytest.raises(FmriModelsError, match=r"different numbers of tensors in the batches of a step \(1, 2\)"):
        gather(torch.rand(2, 3))
