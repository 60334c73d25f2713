"""MindEye's training: phases, parts, several processes, and that it learns."""

from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

from fmri_models.alignment.losses import (
    bimixco_loss,
    draw_mixco,
    mixco,
    normalised,
    soft_clip_loss,
    soft_contrastive_loss,
)
from fmri_models.errors import FmriModelsError
from fmri_models.models.mindeye import MindEyeModel, MindEyeObjective
from fmri_models.models.mindeye.objective_mindeye import MODULES
from fmri_models.models.mindeye.repetitions_mindeye import select_repetitions
from tests.models.mindeye.original import original
from tests.models.mindeye.test_modeling_mindeye import IMAGE_SPACE, LATENT_SPACE, tiny_config, tiny_model
from tests.test_modeling_common import NUM_VOXELS


def same(tensor: torch.Tensor) -> torch.Tensor:
    """What joins the tensors of all processes, when there is one."""
    return tensor


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_batch(rows: int = 8, seed: int = 0) -> dict[str, Any]:
    """Embeddings, latents and voxels that are linear in the same six numbers; two subjects in turn."""
    factors = torch.randn(rows, 6, generator=source(seed))

    def mapped(size: int, map_seed: int) -> torch.Tensor:
        return factors @ torch.randn(6, size, generator=source(map_seed)) / 6**0.5

    subjects = torch.arange(rows) % 2
    fmri = torch.zeros(rows, max(NUM_VOXELS))
    for subject in (0, 1):
        chosen = subjects == subject
        fmri[chosen, : NUM_VOXELS[subject]] = mapped(NUM_VOXELS[subject], 100 + subject)[chosen]
    return {
        "fmri": fmri,
        "subject_ids": subjects,
        "stimulus_ids": [f"s{row}" for row in range(rows)],
        "image_embeds": mapped(24, 102).reshape(rows, 3, 8),
        "latents": mapped(48, 103).reshape(rows, 2, 4, 6),
    }


def quiet_model(**options: Any) -> MindEyeModel:
    """A model in train mode that drops nothing."""
    none = dict.fromkeys(
        ["input_dropout", "hidden_dropout", "prior_brain_dropout", "prior_image_dropout", "low_level_input_dropout"],
        0.0,
    )
    return tiny_model(**{**none, "low_level_hidden_dropout": 0.0, **options}).train()


def test_voxels_are_mixed_first():
    model, batch, objective = quiet_model(), make_batch(), MindEyeObjective(modules=["backbone"])
    losses = objective.losses(model, batch, 0.32, same, source(4))
    draw = draw_mixco(batch["subject_ids"], source(4))
    assert draw.select.any()
    mixed = mixco(batch["fmri"], draw.permutation, draw.betas, draw.select)
    projected = model.embed(mixed, batch["subject_ids"])[1]
    expected = bimixco_loss(
        normalised(projected), normalised(batch["image_embeds"]), draw.permutation, draw.betas, draw.select, 0.006
    )
    torch.testing.assert_close(losses["contrastive"], expected)
    assert losses.keys() == {"loss", "contrastive"}


@pytest.mark.parametrize(("progress", "temperature"), [(0.33, 0.004), (0.665, 0.00575), (1.0, 0.0075)])
def test_then_labels_are_soft_and_the_temperature_rises(progress, temperature):
    model, batch, objective = quiet_model(), make_batch(), MindEyeObjective(modules=["backbone"])
    found = objective.losses(model, batch, progress, same, source())["contrastive"]
    projected = model.embed(batch["fmri"], batch["subject_ids"])[1]
    expected = soft_clip_loss(normalised(projected), normalised(batch["image_embeds"]), temperature)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_mixing_can_be_left_out():
    model, batch = quiet_model(), make_batch()
    objective = MindEyeObjective(modules=["backbone"], mixco_beta=None)
    found = objective.losses(model, batch, 0.0, same, source())["contrastive"]
    projected = model.embed(batch["fmri"], batch["subject_ids"])[1]
    expected = soft_clip_loss(normalised(projected), normalised(batch["image_embeds"]), 0.004)
    torch.testing.assert_close(found, expected)


def test_the_loss_is_the_weighted_sum_of_its_parts():
    objective = MindEyeObjective(prior_weight=3.0, low_level_weight=2.0, low_level_scale_factor=0.5)
    model, batch = quiet_model(), make_batch()
    losses = objective.losses(model, batch, 0.5, same, source())
    torch.testing.assert_close(
        losses["loss"], losses["contrastive"] + 3.0 * losses["prior"] + 2.0 * losses["low_level"]
    )
    latents = model.low_level(batch["fmri"], batch["subject_ids"]).latents
    torch.testing.assert_close(losses["low_level"], F.l1_loss(latents, batch["latents"]) / 0.5)


def test_mixed_voxels_are_to_give_the_unmixed_picture():
    model, batch = quiet_model(), make_batch()
    losses = MindEyeObjective(modules=["backbone", "prior"]).losses(model, batch, 0.0, same, source(4))
    draws = source(4)
    draw = draw_mixco(batch["subject_ids"], draws)
    tokens = model.embed(mixco(batch["fmri"], draw.permutation, draw.betas, draw.select), batch["subject_ids"])[0]
    torch.testing.assert_close(losses["prior"], model.prior.loss(batch["image_embeds"], tokens, generator=draws))


@pytest.mark.parametrize(("name", "error"), [("l1", F.l1_loss), ("mse", F.mse_loss)])
def test_the_low_level_error_is_absolute_or_squared(name, error):
    model, batch = quiet_model(), make_batch()
    objective = MindEyeObjective(modules=["low_level"], low_level_loss=name, low_level_scale_factor=0.5)
    expected = error(model.low_level(batch["fmri"], batch["subject_ids"]).latents, batch["latents"]) / 0.5
    torch.testing.assert_close(objective.losses(model, batch, 0.0, same, source())["low_level"], expected)
    found = objective.validation_metrics(model.eval(), batch, source())["low_level"]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("part", ["backbone", "prior", "low_level"])
def test_a_stage_trains_its_parts_alone(part):
    objective, model, batch = MindEyeObjective(modules=[part]), tiny_model().train(), make_batch()
    objective.losses(model, batch, 0.5, same, source())["loss"].backward()
    trained = {id(parameter) for parameter in objective.trainable(model)}
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == (id(parameter) in trained), name
    prefixes = {"backbone": ("backbone.", "projector."), "prior": "prior.", "low_level": "low_level."}
    assert len(trained) == sum(name.startswith(prefixes[part]) for name, _ in model.named_parameters())


def test_the_projector_is_called_for_the_backbone_alone(monkeypatch):
    model = quiet_model()
    calls: list[int] = []
    monkeypatch.setattr(model, "project", lambda tokens: calls.append(len(tokens)) or tokens)
    for part, expected in (("prior", 0), ("low_level", 0), ("backbone", 2)):
        objective = MindEyeObjective(modules=[part])
        objective.losses(model, make_batch(), 0.5, same, source())
        objective.validation_metrics(model, make_batch(), source())
        assert len(calls) == expected


def test_a_backbone_that_is_only_read_drops_nothing():
    model, batch = tiny_model(prior_brain_dropout=0.0, prior_image_dropout=0.0).train(), make_batch()
    objective = MindEyeObjective(modules=["prior"])
    first, second = (objective.losses(model, batch, 0.0, same, source())["prior"] for _ in range(2))
    assert torch.equal(first, second)


def test_weights_are_decayed_as_published():
    model = tiny_model()
    decayed, free = MindEyeObjective().parameter_groups(model, 0.01)
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.01, 0.0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    free_names = {names[id(parameter)] for parameter in free["params"]}
    assert "prior.network.relative_position_bias.table.weight" in free_names
    assert "backbone.output.bias" in free_names
    assert "prior.network.norm.weight" not in free_names
    assert len(decayed["params"]) + len(free["params"]) == len(names)


def test_parts_that_the_model_lacks_are_left_out():
    model, batch = quiet_model(image_embedding_space=None), make_batch()
    losses = MindEyeObjective().losses(model, batch, 0.0, same, source())
    assert losses.keys() == {"loss", "low_level"}
    with pytest.raises(FmriModelsError, match="trains backbone, prior, and this model has only low_level"):
        MindEyeObjective(modules=["backbone", "prior"]).losses(model, batch, 0.0, same, source())


def test_one_row_is_a_sentence_in_training_and_none_in_validation():
    model, batch = quiet_model(), make_batch(1)
    with pytest.raises(FmriModelsError, match="this batch has one row"):
        MindEyeObjective().losses(model, batch, 0.5, same, source())
    metrics = MindEyeObjective().validation_metrics(model.eval(), batch, source())
    assert metrics["contrastive"] == 0


@pytest.mark.parametrize("progress", [0.1, 0.9])
def test_two_processes_contrast_their_rows_together(progress):
    model, objective = quiet_model(), MindEyeObjective(modules=["backbone"])
    batches = [make_batch(6, seed=1), make_batch(6, seed=2)]
    # The tensors that the other process would send, in the order in which they are asked for.
    sent: list[torch.Tensor] = []

    def record(tensor: torch.Tensor) -> torch.Tensor:
        sent.append(tensor)
        return tensor

    objective.losses(model, batches[1], progress, record, source(4))
    others = iter(sent)
    found = objective.losses(model, batches[0], progress, lambda own: torch.cat([own, next(others)]), source(4))

    draws = [draw_mixco(batch["subject_ids"], source(4)) for batch in batches]
    if progress > 0.33:
        inputs = [batch["fmri"] for batch in batches]
    else:
        inputs = [
            mixco(batch["fmri"], draw.permutation, draw.betas, draw.select)
            for batch, draw in zip(batches, draws, strict=True)
        ]
    projected = torch.cat([model.embed(x, b["subject_ids"])[1] for x, b in zip(inputs, batches, strict=True)])
    target = torch.cat([batch["image_embeds"] for batch in batches])
    if progress > 0.33:
        temperature = objective._soft_clip_temperature(progress)
        expected = soft_clip_loss(normalised(projected), normalised(target), temperature)
    else:
        permutation = torch.cat([draws[0].permutation, draws[1].permutation + 6])
        betas, select = (torch.cat([getattr(draw, name) for draw in draws]) for name in ("betas", "select"))
        expected = bimixco_loss(normalised(projected), normalised(target), permutation, betas, select)
    torch.testing.assert_close(found["contrastive"], expected)


def test_everything_is_drawn_from_the_generator():
    model, batch = quiet_model(prior_brain_dropout=0.5), make_batch()
    objective = MindEyeObjective(voxel_noise=0.5)
    first, second = (objective.losses(model, batch, 0.1, same, source(1)) for _ in range(2))
    other = objective.losses(model, batch, 0.1, same, source(2))
    for name, value in first.items():
        assert torch.equal(second[name], value)
        assert not torch.equal(other[name], value)


@pytest.mark.parametrize("part", ["backbone", "prior", "low_level"])
def test_what_is_drawn_follows_the_batch_to_an_accelerator(part):
    # Fake tensors know their device and have no values; each operation refuses devices that differ, as it would.
    with FakeTensorMode(allow_non_fake_inputs=True):
        with torch.device("cuda"):
            model = MindEyeModel(tiny_config(prior_adds_condition=True)).train()
        factors = {"fmri": (8, max(NUM_VOXELS)), "image_embeds": (8, 3, 8), "latents": (8, 2, 4, 6)}
        batch: dict[str, Any] = {name: torch.randn(shape, device="cuda") for name, shape in factors.items()}
        batch["subject_ids"] = torch.zeros(8, dtype=torch.long, device="cuda")
        losses = MindEyeObjective(modules=[part], voxel_noise=0.1).losses(model, batch, 0.1, same, source())
    assert {value.device.type for value in losses.values()} == {"cuda"}


def test_mixed_precision_changes_losses_little():
    model, batch, objective = quiet_model(), make_batch(), MindEyeObjective(soft_clip_temperatures=[0.1, 0.1])
    expected = objective.losses(model, batch, 0.5, same, source(1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = objective.losses(model, batch, 0.5, same, source(1))
    for name, value in expected.items():
        assert found[name].dtype == torch.float32
        torch.testing.assert_close(found[name], value, rtol=0.03, atol=0.01)
    found["loss"].backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_validation_is_comparable_and_random_in_nothing():
    model, batch, objective = tiny_model(), make_batch(), MindEyeObjective()
    first, second = (objective.validation_metrics(model, batch, source(7)) for _ in range(2))
    assert first.keys() == {"loss", "contrastive", "retrieval_top1", "prior", "low_level"}
    for name, value in first.items():
        assert torch.equal(second[name], value)
        assert value.ndim == 0 and not value.requires_grad
    expected = first["contrastive"] + 30 * first["prior"] + first["low_level"]
    torch.testing.assert_close(first["loss"], expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modules": ["backbone", "head"]}, "objective.modules is .*expected some of backbone, prior, low_level"),
        ({"modules": []}, "expected some of"),
        ({"mixco_share": 1.5}, "mixco_share is 1.5"),
        ({"mixco_beta": 0.0}, "mixco_beta is 0.0; expected a positive number, or null"),
        ({"soft_clip_temperatures": [0.004]}, "expected two positive"),
        ({"low_level_loss": "l2"}, "low_level_loss is 'l2'; expected l1 or mse"),
        ({"repetition_rule": "first"}, "repetition_rule is 'first'; expected one of cycle, mix, mean"),
        ({"maps_temperature": 0}, "maps_temperature is 0; expected a positive number"),
    ],
)
def test_options_that_cannot_be_are_sentences(options, message):
    with pytest.raises(FmriModelsError, match=message):
        MindEyeObjective(**options)


@pytest.mark.slow
def test_what_is_learned_holds_for_other_pictures():
    torch.manual_seed(0)
    sizes = {"hidden_size": 48, "low_level_hidden_size": 48, "prior_num_layers": 1, "prior_attention_head_dim": 16}
    drops = {"input_dropout": 0.1, "prior_brain_dropout": 0.1, "prior_image_dropout": 0.1}
    model = MindEyeModel(tiny_config(**sizes, **drops, prior_num_timesteps=20))
    objective = MindEyeObjective()
    train, held_out = make_batch(64, seed=1), make_batch(32, seed=2)
    optimizer = torch.optim.AdamW(objective.parameter_groups(model, 0.01), lr=1e-2)
    before = objective.validation_metrics(model.eval(), held_out, source(3))
    steps = 200
    for step in range(steps):
        model.train()
        torch.manual_seed(step)
        loss = objective.losses(model, train, step / steps, same, source(step))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = objective.validation_metrics(model.eval(), held_out, source(3))
    for name in ("contrastive", "prior", "low_level"):
        assert after[name] < 0.8 * before[name], name
    assert after["retrieval_top1"] > 0.3
    decoded = model.decode(held_out["fmri"], held_out["subject_ids"], generator=source()).image_embeds
    own, others = (
        F.cosine_similarity(decoded.flatten(1), held_out["image_embeds"].flatten(1).roll(shift, dims=0)).mean()
        for shift in (0, 5)
    )
    assert own > others + 0.2


def test_repetitions_are_chosen_as_published():
    tensors, description = original("me1_voxel_select")
    for seed in range(12):
        found = select_repetitions(tensors["vox"], source(seed))
        torch.testing.assert_close(found, tensors["out_seed0_11"][seed], rtol=0, atol=description["atol"])


def with_repetitions(batch: dict[str, Any], step: int = 0) -> dict[str, Any]:
    """The batch with three noisy repetitions of each row."""
    noise = torch.randn(len(batch["fmri"]), 3, batch["fmri"].shape[1], generator=source(9))
    return {**batch, "fmri": batch["fmri"][:, None] + noise, "step": step}


@pytest.mark.parametrize(("step", "taken"), [(0, 0), (4, 1), (5, 2)])
def test_a_step_learns_from_one_repetition_of_all_rows(step, taken):
    model, batch = quiet_model(), with_repetitions(make_batch(), step)
    objective = MindEyeObjective()
    found = objective.losses(model, batch, 0.5, same, source(1))
    alone = objective.losses(model, {**batch, "fmri": batch["fmri"][:, taken]}, 0.5, same, source(1))
    for name, value in alone.items():
        assert torch.equal(found[name], value), name


def test_repetitions_are_mixed_or_averaged_where_the_objective_says_so():
    model, batch = quiet_model(), with_repetitions(make_batch())
    for rule, pattern in [("mix", select_repetitions(batch["fmri"], source(1))), ("mean", batch["fmri"].mean(dim=1))]:
        objective = MindEyeObjective(modules=["low_level"], repetition_rule=rule)
        found = objective.losses(model, batch, 0.0, same, source(1))["low_level"]
        latents = model.low_level(pattern, batch["subject_ids"]).latents
        torch.testing.assert_close(found, F.l1_loss(latents, batch["latents"]))


def test_the_low_level_branch_learns_from_a_teachers_maps_where_there_are_some():
    model, batch = quiet_model(low_level_feature_size=7), make_batch()
    objective = MindEyeObjective(modules=["low_level"], maps_weight=0.2)
    assert "maps" not in objective.losses(model, batch, 0.0, same, source())
    output = model.low_level(batch["fmri"], batch["subject_ids"])
    maps = {
        name: torch.randn(output.feature_maps.shape, generator=source(seed))
        for seed, name in enumerate(("feature_maps", "augmented_feature_maps"))
    }
    losses = objective.losses(model, {**batch, **maps}, 0.0, same, source())
    rows = (F.normalize(each.reshape(-1, 7), dim=-1) for each in (output.feature_maps, *maps.values()))
    torch.testing.assert_close(losses["maps"], soft_contrastive_loss(*rows, 0.075))
    torch.testing.assert_close(losses["loss"], losses["low_level"] + 0.2 * losses["maps"])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = objective.losses(model, {**batch, **maps}, 0.0, same, source())["maps"]
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, losses["maps"], rtol=0.03, atol=0.01)
    with pytest.raises(FmriModelsError, match="set model.low_level_feature_size=5 and choose a teacher"):
        other = {name: values[..., :5] for name, values in maps.items()}
        objective.losses(model, {**batch, **other}, 0.0, same, source())


@pytest.mark.parametrize(
    ("modules", "targets"),
    [
        (["backbone"], ("image_embeds",)),
        (["low_level"], ("latents",)),
        (["prior", "low_level"], ("image_embeds", "latents")),
    ],
)
def test_an_objective_names_the_targets_that_it_learns_from(modules, targets):
    assert MindEyeObjective(modules=modules).targets == targets


def test_what_the_modules_and_the_targets_were_called_works_with_a_warning():
    with pytest.warns(FutureWarning, match="parts of MindEyeObjective is modules now"):
        objective = MindEyeObjective(parts=["prior"])
    assert objective == MindEyeObjective(modules=["prior"])
    with pytest.warns(FutureWarning, match="please write modules"):
        assert objective.parts == ["prior"]
    with pytest.warns(FutureWarning, match="target_kinds of MindEyeObjective is targets now"):
        assert objective.target_kinds == ("image_embeds",)


@pytest.mark.parametrize("without", ["image_embeds", "latents", None])
def test_forward_has_the_loss_with_which_training_ends(without):
    model, batch = quiet_model(), make_batch()
    targets = {name: batch[name] for name in ("image_embeds", "latents") if name != without}
    modules = [name for name, target in MODULES.items() if target.target in targets]
    torch.manual_seed(3)
    output = model(batch["fmri"], batch["subject_ids"], **targets)
    expected = MindEyeObjective(modules=modules).losses(model, batch, 1.0, same, source(3))
    assert torch.equal(output.loss, expected["loss"])
    weights = {"contrastive": 1, "prior": 30, "low_level": 1}
    assert output.losses.keys() == expected.keys() - {"loss"}
    for name, value in output.losses.items():
        assert torch.equal(value, weights[name] * expected[name])


def test_losses_are_what_they_were():
    """Numbers of the time when training, validation and `forward` had each a loss of its own."""
    options = {"token_weight": 3.0, "prior_weight": 2.0, "low_level_loss": "mse", "voxel_noise": 0.3}
    model, batch, objective = quiet_model(), make_batch(), MindEyeObjective(**options)
    for progress, expected in (
        (0.1, [72.625023, 34.431637, 7.273423, 7.670226, 1.03266]),
        (0.6, [71.37719, 32.038059, 7.741772, 7.540577, 1.03266]),
    ):
        losses = objective.losses(model, batch, progress, same, source(4))
        assert list(losses) == ["loss", "contrastive", "tokens", "prior", "low_level"]
        assert [value.item() for value in losses.values()] == pytest.approx(expected, rel=1e-4)
    metrics = objective.validation_metrics(model.eval(), batch, source(4))
    assert list(metrics) == ["loss", "contrastive", "retrieval_top1", "tokens", "prior", "low_level"]
    expected = [60.201401, 21.638296, 0.125, 7.577974, 7.396842, 1.0355]
    assert [value.item() for value in metrics.values()] == pytest.approx(expected, rel=1e-4)


def test_spaces_of_the_tests_are_those_of_the_batches():
    batch = make_batch()
    assert list(batch["image_embeds"].shape[1:]) == IMAGE_SPACE["shape"]
    assert list(batch["latents"].shape[1:]) == LATENT_SPACE["shape"]


def test_token_loss_is_the_error_of_the_backbones_tokens_in_the_priors_scale():
    model, batch = quiet_model(), make_batch()
    objective = MindEyeObjective(modules=["backbone"], token_weight=2.0, mixco_beta=None)
    losses = objective.losses(model, batch, 0.5, same, source())
    tokens, _ = model.embed(batch["fmri"], batch["subject_ids"])
    expected = F.mse_loss(tokens, batch["image_embeds"] * 8**0.5)
    torch.testing.assert_close(losses["tokens"], expected)
    torch.testing.assert_close(losses["loss"], losses["contrastive"] + 2 * expected)
    metrics = objective.validation_metrics(model.eval(), batch, source())
    torch.testing.assert_close(metrics["tokens"], expected)


def test_mixed_voxels_are_to_give_mixed_tokens():
    model, batch = quiet_model(), make_batch()
    losses = MindEyeObjective(modules=["backbone"], token_weight=1.0).losses(model, batch, 0.1, same, source(4))
    draw = draw_mixco(batch["subject_ids"], source(4))
    mixed = mixco(batch["fmri"], draw.permutation, draw.betas, draw.select)
    target = mixco(batch["image_embeds"], draw.permutation, draw.betas, draw.select) * 8**0.5
    tokens, _ = model.embed(mixed, batch["subject_ids"])
    torch.testing.assert_close(losses["tokens"], F.mse_loss(tokens, target))
    assert not torch.equal(mixed, batch["fmri"])


class OfBatch:
    """The pictures of a batch as those of a stage."""

    def __init__(self, batch: dict[str, Any]) -> None:
        self.batch = batch

    def distinct_targets(self, name: str) -> np.ndarray | None:
        return self.batch[name].flatten(1).numpy() if name in self.batch else None


def test_a_backbone_of_components_learns_their_scores():
    model, batch = quiet_model(token_components=5), make_batch(rows=32)
    assert model.encode(batch["fmri"], batch["subject_ids"]).shape == (32, 5)
    objective = MindEyeObjective(modules=["backbone"], token_weight=2.0, token_whitening=0.7, mixco_beta=None)
    objective.prepare(model, OfBatch(batch))
    losses = objective.losses(model, batch, 0.5, same, source())
    scores = model.components.scores(batch["image_embeds"] * 8**0.5)
    expected = F.mse_loss(model.encode(batch["fmri"], batch["subject_ids"]), scores)
    torch.testing.assert_close(losses["tokens"], expected)
    tokens, _ = model.embed(batch["fmri"], batch["subject_ids"])
    # What the backbone got wrong of the scores is what is wrong with its tokens, as far as five components reach.
    torch.testing.assert_close(F.mse_loss(model.components.scores(tokens), scores), expected)


def test_components_are_taken_once_and_for_the_backbone_alone():
    model, batch = quiet_model(token_components=5), make_batch(rows=32)
    MindEyeObjective(modules=["prior"]).prepare(model, OfBatch(batch))
    assert not model.components.is_fitted
    MindEyeObjective(modules=["backbone"]).prepare(model, OfBatch(batch))
    taken = model.components.directions.clone()
    assert model.components.is_fitted
    MindEyeObjective(modules=["backbone"]).prepare(model, OfBatch(make_batch(rows=32, seed=1)))
    assert torch.equal(model.components.directions, taken)


def test_components_need_embeddings_before_training():
    with pytest.raises(FmriModelsError, match="token_components=5.*set augmentation to none"):
        MindEyeObjective(modules=["backbone"]).prepare(quiet_model(token_components=5), OfBatch({}))


def test_whitening_is_a_share():
    with pytest.raises(FmriModelsError, match=r"token_whitening is 1\.5; expected a number from 0 to 1"):
        MindEyeObjective(token_whitening=1.5)
