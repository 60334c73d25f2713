"""The prior's network and its parts in isolation, against the original's numbers."""

import pytest
import torch

from fmri_models.alignment import diffusion_prior
from fmri_models.alignment.diffusion_prior import DiffusionPriorNetwork, GainNorm, PriorPositions
from fmri_models.models.mindeye import MindEyePrior
from tests.models.mindeye.original import original, state_dict


@pytest.fixture(scope="module")
def fixture():
    tensors, description = original("me1_prior_network_pos_emb")
    prior = MindEyePrior.from_original(state_dict(tensors))
    return tensors, prior.network, description["atol"]


def assert_close(found: torch.Tensor, expected: torch.Tensor, atol: float) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


def test_output(fixture):
    tensors, network, atol = fixture
    assert_close(network(tensors["image_embed"], tensors["t"], tensors["brain_embed"]), tensors["out"], atol)


@pytest.mark.parametrize(
    ("name", "brain", "image"), [("brain", False, True), ("image", True, False), ("both", False, False)]
)
def test_what_is_dropped_is_replaced_by_its_null(fixture, name, brain, image):
    tensors, network, atol = fixture
    keep = [torch.full((3,), value) for value in (brain, image)]
    found = network(tensors["image_embed"], tensors["t"], tensors["brain_embed"], *keep)
    assert_close(found, tensors[f"out_null_{name}"], atol)


def test_rows_are_dropped_one_by_one(fixture):
    tensors, network, atol = fixture
    keep = torch.tensor([True, False, True])
    found = network(tensors["image_embed"], tensors["t"], tensors["brain_embed"], brain_keep=keep)
    expected = torch.where(keep[:, None, None], tensors["out"], tensors["out_null_brain"])
    assert_close(found, expected, atol)


def test_time_embedding(fixture):
    tensors, network, atol = fixture
    assert_close(network.time_embedding(tensors["t"])[:, None], tensors["time_embed"], atol)


def test_relative_position_bias(fixture):
    tensors, network, atol = fixture
    assert_close(network.relative_position_bias(11, 12), tensors["rel_pos_bias"], atol)


def test_far_positions_share_logarithmic_buckets(fixture):
    network = fixture[1]
    buckets = network.relative_position_bias._buckets(torch.tensor([0, 15, 16, 31, 32, 127, 128, 5000]))
    assert buckets.tolist() == [0, 15, 16, 21, 21, 31, 31, 31]


def test_attention(fixture):
    tensors, network, atol = fixture
    attention, positions = network.layers[0].attention, network.positions()
    assert_close(positions.bias.unflatten(0, (11, 2)).transpose(0, 1), tensors["rel_pos_bias"], atol)
    assert_close(attention(tensors["y"], positions), tensors["attn_out"], atol)
    without_bias = PriorPositions(torch.zeros_like(positions.bias), positions.rotations)
    assert_close(attention(tensors["y"], without_bias), tensors["attn_out_nobias"], atol)


def test_feed_forward(fixture):
    tensors, network, atol = fixture
    assert_close(network.layers[0].feed_forward(tensors["y"]), tensors["ff_out"], atol)


def test_norms(fixture):
    tensors, network, atol = fixture
    norm = network.layers[0].attention.norm
    assert_close(network.norm(tensors["y"]), tensors["norm_out_stable"], atol)
    assert_close(norm(tensors["y"]), tensors["attn_norm_float"], atol)


def test_norms_of_half_precision_input_are_regularised_more(fixture):
    tensors, network, _ = fixture
    norm = network.layers[0].attention.norm
    expected = tensors["attn_norm_half"]
    torch.testing.assert_close(norm(tensors["norm_half_in"]), expected, rtol=1e-2, atol=2e-3)
    small = tensors["norm_half_in"] / 30
    assert norm(small).std() < 0.9 * norm(small.float()).std()


def test_norms_under_autocast_are_those_of_float32(fixture):
    tensors, network, _ = fixture
    norm, small = network.layers[0].attention.norm, tensors["norm_half_in"] / 30
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(norm(small), norm(small.float()))


def test_a_row_without_positive_values_stays_finite():
    norm = GainNorm(4, stable=True)
    assert torch.isfinite(norm(torch.tensor([[0.0, -1.0, -2.0, -3.0], [0.0, 0.0, 0.0, 0.0]]))).all()


def test_gradients(fixture):
    tensors, network, _ = fixture
    brain = tensors["brain_embed"].clone().requires_grad_()
    network.zero_grad()
    loss = network(tensors["image_embed"], tensors["t"], brain).square().mean()
    torch.testing.assert_close(loss, tensors["loss"][0], rtol=1e-5, atol=1e-6)
    loss.backward()
    first, second = network.layers
    found = {
        "brain_embed": brain,
        "causal_transformer.layers.0.0.to_q.weight": first.attention.to_query.weight,
        "causal_transformer.layers.1.0.null_kv": second.attention.null_key_value,
        "causal_transformer.layers.0.1.1.weight": first.feed_forward.expand.weight,
        "causal_transformer.rel_pos_bias.relative_attention_bias.weight": network.relative_position_bias.table.weight,
        "to_time_embeds.0.1.net.0.0.weight": network.time_embedding.linear_1.weight,
        "learned_query": network.learned_query,
    }
    for name, tensor in found.items():
        assert_close(tensor.grad, tensors[f"grad.{name}"], atol=2e-5)


@pytest.mark.parametrize("mode", ["pos_emb", "token", "all_pos_emb", "none"])
def test_learned_query_modes(mode):
    torch.manual_seed(0)
    network = DiffusionPriorNetwork(3, 8, num_layers=1, num_heads=2, head_dim=4, multiplier=2, learned_query_mode=mode)
    query = network.learned_query
    shape = {"pos_emb": (3, 8), "token": (3, 8), "all_pos_emb": (7, 8), "none": None}[mode]
    assert (None if query is None else tuple(query.shape)) == shape
    inputs = torch.randn(2, 3, 8), torch.tensor([0, 4]), torch.randn(2, 3, 8)
    output = network(*inputs)
    assert output.shape == (2, 3, 8)
    if query is not None:
        with torch.no_grad():
            query += 1
        assert not torch.allclose(network(*inputs), output)


def test_the_last_layer_computes_what_is_read(fixture):
    tensors, network, _ = fixture
    layer, positions = network.layers[1], network.positions()
    everything = layer(tensors["y"], *positions)
    torch.testing.assert_close(layer(tensors["y"], *positions, 5), everything[:, -5:])


def attention_inputs() -> tuple[torch.Tensor, ...]:
    """Queries, keys, values and biases in double precision."""
    torch.manual_seed(0)
    unit = [torch.nn.functional.normalize(torch.randn(2, count, 4), dim=-1).double() for count in (7, 5)]
    values, bias = torch.randn(2, 5, 4).double(), torch.randn(7, 5).double()
    return tuple(each.requires_grad_() for each in (*unit, values, bias))


# Rows in two chunks, of which the second is not full; a chunk for each sample; both samples in one.
@pytest.mark.parametrize(("rows", "scores"), [(4, 1), (16, 1), (4, 64), (16, 70)])
def test_gradients_of_attention_and_gated_unit(monkeypatch, rows, scores):
    monkeypatch.setattr(diffusion_prior, "_ROWS_A_CHUNK", rows)
    monkeypatch.setattr(diffusion_prior, "_SCORES_A_CHUNK", scores)
    assert torch.autograd.gradcheck(diffusion_prior._ChunkedAttention.apply, attention_inputs())
    features = torch.randn(3, 2, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(diffusion_prior._GatedUnit.apply, (features,))


def test_samples_that_are_computed_together_are_not_mixed_up(monkeypatch):
    inputs = [each.detach() for each in attention_inputs()]
    together = diffusion_prior._ChunkedAttention.apply(*inputs)
    monkeypatch.setattr(diffusion_prior, "_SCORES_A_CHUNK", 1)
    torch.testing.assert_close(diffusion_prior._ChunkedAttention.apply(*inputs), together)


def test_attention_is_the_same_with_and_without_gradients():
    inputs = [each.detach().float().requires_grad_() for each in attention_inputs()]
    learning = diffusion_prior._attend(*inputs)
    assert learning.requires_grad
    with torch.no_grad():
        decoding = diffusion_prior._attend(*inputs)
    torch.testing.assert_close(decoding, learning.detach(), rtol=1e-5, atol=1e-5)
