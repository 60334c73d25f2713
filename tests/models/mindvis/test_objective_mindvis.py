"""MinD-Vis' objective: the original's nine steps, what each module trains, and what an option changes."""

import copy
import warnings
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from fmri_models.conditions import Conditions
from fmri_models.errors import FmriModelsError
from fmri_models.generation.double_conditioned import DoubleConditionedImageGenerator
from fmri_models.generation.embedded import EmbeddedImageGenerator
from fmri_models.models.mindvis import MindVisForPreTraining, MindVisModel, MindVisObjective
from fmri_models.models.mindvis.objective_mindvis import hidden_correlation
from fmri_models.training.options import TrainingOptions
from fmri_models.training.trained_weights import TrainedWeights
from tests.models.mindvis.original import HEADS, original, state_dict
from tests.models.mindvis.test_modeling_mindvis import some_noise, tiny_fmri, tiny_model


def source() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def alone(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


class Told:
    """In the place of an image generator: keeps what it was told, and finds the conditions' size as loss."""

    def training_loss(self, latents: torch.Tensor, told: Conditions, generator: Any = None) -> torch.Tensor:
        self.told = told
        return torch.stack([each.square().mean() for each in told.given.values()]).sum()


def batch(**others: Any) -> Any:
    return {"fmri": tiny_fmri(), "subject_ids": torch.zeros(3, dtype=torch.long), "stimulus_ids": ["a"] * 3, **others}


@pytest.mark.parametrize("module", ["conditioner", "masked"])
def test_norms_that_are_listed_twice_take_their_step_twice(module):
    torch.manual_seed(0)
    model = tiny_model()
    objective = MindVisObjective(module=module, repeats_norms=True)
    norms = [p for name, p in model.encoder.named_parameters() if ".norm2." in name]
    options = TrainingOptions(steps=4, learning_rate=0.01, weight_decay=0.1)
    weights = TrainedWeights(model, objective, options, Accelerator(cpu=True))
    twice = [p for p in weights.parameters if sum(p is each for each in weights._listed) == 2]
    assert {id(p) for p in twice} == ({id(p) for p in norms} if module == "conditioner" else set())
    expected = copy.deepcopy(weights.parameters)
    pairs = list(zip(weights.parameters, expected, strict=True))
    again = [other for own, other in pairs if any(own is each for each in twice)]
    decays = {id(p): group["weight_decay"] for group in weights.optimizer.param_groups for p in group["params"]}
    groups: dict[float, list[Any]] = {}
    for own, other in zip(weights.parameters, expected, strict=True):
        groups.setdefault(decays[id(own)], []).append(other)
    for other in again:
        groups[0.1].append(other)
    betas = [group["betas"] for group in weights.optimizer.param_groups]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        listed = [{"params": values, "weight_decay": decay} for decay, values in groups.items()]
        reference = torch.optim.AdamW(listed, lr=0.01, betas=betas[0], foreach=False)
    for step in range(3):
        for one, other in zip(weights.parameters, expected, strict=True):
            one.grad = torch.sin(torch.arange(one.numel()) + step).reshape(one.shape)
            other.grad = one.grad.clone()
        if step == 1:
            # A checkpoint in between.
            weights.restore(copy.deepcopy(weights.tensors()), {})
        weights.end_step()
        reference.step()
    for one, other in zip(weights.parameters, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_nine_steps_are_those_of_the_original():
    tensors, description = original("mae_train9")
    model = MindVisModel.from_original(state_dict(tensors), **HEADS)
    expected = MindVisForPreTraining.from_original(state_dict(tensors, "after.sd."), **HEADS)
    objective = MindVisObjective(module="masked")
    groups: list[Any] = list(objective.parameter_groups(model, description["weight_decay"]))
    learning = {id(each) for each in objective.trainable(model)}
    for group in groups:
        group["params"] = [each for each in group["params"] if id(each) in learning]
    sizes = sorted(len(group["names"]) for group in description["param_groups"])
    assert sorted(len(group["params"]) for group in groups) == sizes
    optimizer = torch.optim.AdamW(groups, betas=tuple(description["betas"]), eps=description["eps"])
    batches = tensors["in.batches"]
    for step, noise in enumerate(tensors["in.noise"]):
        for group in optimizer.param_groups:
            group["lr"] = float(tensors["out.lrs"][step])
        loss = model(batches[step % len(batches)][:, 0], noise=noise).loss
        assert loss.item() == pytest.approx(float(tensors["out.losses"][step]), rel=1e-4)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(objective.trainable(model), description["train"]["clip_grad"])
        optimizer.step()
    for part in ("encoder", "decoder"):
        found, wanted = getattr(model, part).state_dict(), getattr(expected, part).state_dict()
        for name, values in wanted.items():
            own = found[name]
            if name.endswith("qkv.bias"):
                # Adding the same to all scores of a row changes no attention: the gradient of the keys' bias is
                # zero but for rounding, which Adam scales up to whole steps.
                values, own = (torch.cat([each.chunk(3)[0], each.chunk(3)[2]]) for each in (values, own))
            torch.testing.assert_close(own, values, rtol=0, atol=1e-5)


def test_the_schedule_is_that_of_the_original():
    rows = original("tables")[0]["lr_rows_lr_warmup_epochs_epoch_value"]
    for rate, warmup, epochs, epoch, value in rows.tolist():
        # A thousandth of an epoch a step, so that all of these are steps.
        options = TrainingOptions(steps=1, schedule="cosine_from_zero", learning_rate=rate, warmup=warmup / epochs)
        share = options.learning_rate_share(round(1000 * epoch), round(1000 * epochs))
        assert rate * share == pytest.approx(value, rel=1e-6, abs=1e-12)


class TestModules:
    def test_masked_modelling_trains_encoder_and_decoder_but_for_codes_of_places(self):
        model = tiny_model()
        trained = names_of(model, MindVisObjective(module="masked"))
        assert {name.split(".")[0] for name in trained} == {"encoder", "decoder"}
        assert not [name for name in trained if "position" in name] and "encoder.cls_token" in trained

    def test_the_conditioner_is_trained_with_the_encoder(self):
        trained = names_of(tiny_model(), MindVisObjective())
        assert {name.split(".")[0] for name in trained} == {"encoder", "conditioner"}
        assert "encoder.position_embeddings" in trained and "encoder.cls_token" not in trained

    def test_targets(self):
        assert MindVisObjective(module="masked").targets == []
        assert MindVisObjective().targets == ["latents"]


def names_of(model: MindVisModel, objective: MindVisObjective) -> set[str]:
    chosen = {id(each) for each in objective.trainable(model)}
    return {name for name, each in model.named_parameters() if id(each) in chosen}


class TestMasked:
    def test_further_sources_are_learned_from(self):
        objective = MindVisObjective(module="masked", sparsification=0)
        more = torch.randn(5, 20, generator=source())
        together = objective.losses(tiny_model(), batch(unpaired=[{"fmri": more}]), 0, alone, source())
        joined: Mapping[str, Any] = {**batch(), "fmri": torch.cat([tiny_fmri(), more])}
        expected = objective.losses(tiny_model(), joined, 0, alone, source())  # type: ignore[arg-type]
        assert torch.equal(together["loss"], expected["loss"])

    def test_what_is_set_to_zero_is_predicted_all_the_same(self):
        model = tiny_model()
        blind = MindVisObjective(module="masked", sparsification=1.0)
        seen = [blind.losses(model, {**batch(), "fmri": scale * tiny_fmri()}, 0, alone, source()) for scale in (0, 1)]  # type: ignore[arg-type]
        assert seen[0]["loss"] < seen[1]["loss"]

    def test_validation_sets_nothing_to_zero(self):
        model, found = tiny_model().eval(), []
        for share in (0.0, 0.9):
            objective = MindVisObjective(module="masked", sparsification=share)
            found.append(objective.validation_metrics(model, batch(), source()))
        assert torch.equal(found[0]["loss"], found[1]["loss"])
        assert -1 <= found[0]["correlation"] <= 1

    def test_the_correlation_is_that_of_hidden_voxels(self):
        model, fmri = tiny_model(), tiny_fmri()
        from fmri_models.models.mindvis.pretraining_mindvis import masked_modelling

        output = masked_modelling(model.encoder, model.decoder, fmri, some_noise())
        hidden = output.mask.bool().repeat_interleave(5, dim=1)
        rows = zip(output.prediction.flatten(1), fmri, hidden, strict=True)
        expected = [torch.corrcoef(torch.stack([one[where], other[where]]))[0, 1] for one, other, where in rows]
        torch.testing.assert_close(hidden_correlation(output, fmri), torch.stack(expected).mean())


class Aligned(Told):
    """Reads twice the embeddings, and their mean, in the place of conditions that it learns to read."""

    def learned_from(self, conditions: Conditions) -> Conditions:
        tokens = 2 * conditions.image_embeds
        return Conditions(encoder_hidden_states=tokens, time_embeds=tokens.flatten(1)[:, :8])


class TestAlignment:
    def test_conditions_are_compared_with_the_pictures_own(self):
        objective, model = MindVisObjective(module="alignment", sparsification=0), tiny_model()
        objective.image_generator = Aligned()
        embeds = torch.randn(3, 4, 6, generator=source())
        found = objective.losses(model, batch(image_embeds=embeds), 0, alone, source())["loss"]
        decoded = model.conditions(tiny_fmri())
        expected = (decoded.encoder_hidden_states - 2 * embeds).square().mean()
        expected = expected + (decoded.time_embeds - 2 * embeds.flatten(1)[:, :8]).square().mean()
        torch.testing.assert_close(found, expected)
        assert objective.targets == ["image_embeds", "text_embeds"]

    def test_captions_are_aligned_with_where_a_recipe_has_them(self):
        generator = EmbeddedImageGenerator.from_assets()
        image = torch.randn(2, *generator.image_embedding_space.shape, generator=source())
        text = torch.randn(2, *generator.text_embedding_space.shape, generator=source())
        told = generator.learned_from(Conditions(image_embeds=image, text_embeds=text))

        class Knowing:
            def conditions(self, fmri):
                return told

        model, objective = Knowing(), MindVisObjective(module="alignment", sparsification=0)
        objective.image_generator = generator
        both = {"fmri": tiny_fmri()[:2], "image_embeds": image, "text_embeds": text}
        assert objective.losses(model, both, 0, alone, source())["loss"] == 0
        del both["text_embeds"]
        assert objective.losses(model, both, 0, alone, source())["loss"] > 0.1

    def test_a_contrastive_loss_asks_for_what_tells_pictures_apart(self):
        model, embeds = tiny_model(), torch.randn(3, 4, 6, generator=source())

        def loss(contrastive, rows=3):
            objective = MindVisObjective(module="alignment", sparsification=0, contrastive=contrastive)
            objective.image_generator = Aligned()
            some = {name: values[:rows] for name, values in batch(image_embeds=embeds).items()}
            return objective.losses(model, some, 0, alone, source())["loss"].item()

        decoded, wanted = model.conditions(tiny_fmri()), Aligned().learned_from(Conditions(image_embeds=embeds))
        expected = 0
        for name, target in wanted.given.items():
            found, true = ((each - target.mean(0)).flatten(1) for each in (decoded.given[name], target))
            cosine, among = (
                torch.nn.functional.cosine_similarity(each[:, None], true[None], dim=-1) / 0.03
                for each in (found, true)
            )
            labels = among.softmax(dim=1)
            expected -= (labels * (cosine.log_softmax(1) + cosine.T.log_softmax(1))).sum(1).mean().item() / 2
        assert loss(0.5) - loss(0) == pytest.approx(0.5 * expected, rel=1e-4)
        # Nothing stands against a picture alone.
        assert loss(0.5, rows=1) == loss(0, rows=1)

    def test_a_generator_without_embeddings_of_its_own_is_a_sentence(self):
        objective = MindVisObjective(module="alignment")
        objective.image_generator = DoubleConditionedImageGenerator.for_stimuli((3, 8, 8))
        with pytest.raises(FmriModelsError, match="leave the stage out"):
            objective.losses(tiny_model(), batch(image_embeds=torch.zeros(3, 4, 6)), 0, alone, source())

    def test_what_the_embedded_generator_knows_it_reads_alike(self):
        generator = EmbeddedImageGenerator.from_assets()
        embeds = torch.randn(1, *generator.image_embedding_space.shape, generator=source())
        told = generator.learned_from(Conditions(image_embeds=embeds))
        options = {"num_inference_steps": 2, "output_type": "pt"}
        one = generator(image_embeds=embeds, generator=source(), **options).images
        other = generator(**told.given, generator=source(), **options).images
        torch.testing.assert_close(one, other)


class TestConditioner:
    def test_the_generator_is_told_what_the_model_makes_of_voxels(self):
        objective, model = MindVisObjective(sparsification=0), tiny_model()
        objective.image_generator = Told()
        found = objective.losses(model, batch(latents=torch.zeros(3, 1)), 0, alone, source())
        assert found["loss"].requires_grad
        expected = model.conditions(tiny_fmri()).given
        for name, values in objective.image_generator.told.given.items():
            assert torch.equal(values, expected[name])

    def test_conditions_are_dropped_whole(self):
        objective, model = MindVisObjective(condition_dropout=0.5), tiny_model()
        objective.image_generator = Told()
        fmri = torch.randn(64, 20, generator=source())
        objective.losses(model, {**batch(latents=torch.zeros(64, 1)), "fmri": fmri}, 0, alone, source())  # type: ignore[arg-type]
        told = objective.image_generator.told.given
        absent = [values.flatten(1).eq(0).all(dim=1) for values in told.values()]
        assert torch.equal(absent[0], absent[1]) and 16 < absent[0].sum() < 48
        objective.validation_metrics(model, batch(latents=torch.zeros(3, 1)), source())
        assert objective.image_generator.told.encoder_hidden_states.abs().sum(dim=(1, 2)).gt(0).all()


def test_reports_are_told_whether_the_generator_knows_no_condition():
    assert MindVisObjective(condition_dropout=0.1).drops_conditions
    assert not MindVisObjective().drops_conditions
    assert not MindVisObjective(module="masked", condition_dropout=0.1).drops_conditions
