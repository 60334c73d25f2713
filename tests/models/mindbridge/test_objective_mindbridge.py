"""MindBridge's objective: the original's losses and steps, pairs, repetitions, and batches of unequal subjects."""

from typing import Any

import numpy as np
import pytest
import torch

from fmri_models.alignment.losses import compared, normalised, soft_clip_loss
from fmri_models.errors import FmriModelsError
from fmri_models.models.mindbridge import MindBridgeModel, MindBridgeObjective
from fmri_models.models.mindbridge.objective_mindbridge import (
    CyclePair,
    cycle_loss,
    pass_through,
    reconstruction_loss,
)
from fmri_models.training.options import TrainingOptions
from tests.models.mindbridge.original import FOLDER, LARGE, SPACES, needs_fixtures, original, part
from tests.models.mindbridge.test_modeling_mindbridge import tiny_fmri, tiny_model
from tests.test_modeling_common import NUM_VOXELS, SUBJECTS

ROWS = [name for name in SUBJECTS for _ in range(2)]


def source() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def alone(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def batch(model: MindBridgeModel, subjects: list[str] = ROWS, **others: Any) -> Any:
    generator = torch.Generator().manual_seed(5)
    found = {
        "fmri": tiny_fmri(*subjects),
        "subject_ids": torch.tensor([SUBJECTS.index(name) for name in subjects]),
        "stimulus_ids": [str(row) for row in range(len(subjects))],
        "image_embeds": torch.randn(len(subjects), 3, 8, generator=generator),
        "text_embeds": torch.randn(len(subjects), 2, 5, generator=generator),
        "step": 0,
    }
    return {**found, **others}


def cycle_of(
    model: MindBridgeModel, embeds: torch.Tensor, ids: torch.Tensor, pair: CyclePair, gather: Any = alone
) -> torch.Tensor:
    return cycle_loss(model, pass_through(model, embeds, ids, pair), pair, gather)


def losses(model: MindBridgeModel, given: Any, gather: Any = alone, **options: Any) -> dict[str, torch.Tensor]:
    return MindBridgeObjective(**options).losses(model, given, 0.5, gather, source())


class TestOriginalNumbers:
    @pytest.mark.parametrize("head", ["image", "text"])
    def test_losses_and_gradients(self, head):
        tensors, description = original("losses")
        predicted = tensors[f"in/{head}_pred"].clone().requires_grad_()
        found = compared(predicted, tensors[f"in/{head}_target"])
        close(found.soft_clip(description["temperature"]), tensors[f"out/soft_clip_{head}"])
        close(found.squared_error(), tensors[f"out/mse_{head}"])
        loss = found.soft_clip(description["temperature"]) + description["mse_mult"] * found.squared_error()
        loss.backward()
        close(predicted.grad, tensors[f"grad/{head}_pred"])

    def test_temperatures_similarities_and_the_nearest(self):
        tensors, _ = original("losses")
        found = compared(tensors["in/image_pred"], tensors["in/image_target"])
        # The original has a row for each target.
        close(found.cosines.T, tensors["out/sim_pred_to_target"])
        close(found.top1(), tensors["out/top1_fwd"])
        for temperature in (0.004, 0.01, 0.1):
            close(found.soft_clip(temperature), tensors[f"out/soft_clip_image_temp{temperature}"])

    def test_the_sum_is_the_objectives(self):
        tensors, _ = original("losses")
        model = MindBridgeModel.from_original(part(original("mindsingle")[0], "sd/"), **SPACES)
        objective = MindBridgeObjective(reconstruction_weight=0, cycle_weight=0)
        targets = {f"{head}_embeds": tensors[f"in/{head}_target"] for head in ("image", "text")}
        outputs = model.bridge(torch.zeros(10, 96), torch.zeros(10, dtype=torch.long))._replace(
            image_embeds=tensors["in/image_pred"], text_embeds=tensors["in/text_pred"]
        )
        terms = objective.losses_of_outputs(model, outputs, targets, torch.zeros(10, 96), torch.zeros(10).long())
        close(torch.stack(list(terms.values())).sum(), tensors["out/total"])

    def test_four_steps_of_training(self):
        assert_trains_as_the_original("train_single")

    @needs_fixtures
    @pytest.mark.parametrize("name", ["train_bridge", "train_adapt", "train_bridge_clip1"])
    def test_steps_of_training_several_subjects(self, name):
        if not (LARGE / f"{name}.safetensors").is_file():
            pytest.skip(f"{name} is not among the fixtures here")
        assert_trains_as_the_original(name, LARGE)

    def test_the_schedule(self):
        curve = np.load(FOLDER / "onecycle_curve.npz")
        rates, moments = (next(curve[key] for key in curve.files if part in key.lower()) for part in ("lr", "beta"))
        options = TrainingOptions(steps=len(rates), schedule="one_cycle", learning_rate=1.5e-4, warmup=2 / 200,
                                  final_div_factor=100)  # fmt: skip
        for step in range(len(rates)):
            share = options.learning_rate_share(step, len(rates))
            assert options.learning_rate * share == pytest.approx(float(rates[step]), rel=1e-9, abs=1e-12), step
            assert options.beta1(step, len(rates)) == pytest.approx(float(np.ravel(moments[step])[0]), rel=1e-9), step


def assert_trains_as_the_original(name: str, folder: Any = FOLDER) -> None:
    tensors, about = original(name, folder)
    model = MindBridgeModel.from_original(part(tensors, "sd0/"), **SPACES)
    expected = MindBridgeModel.from_original(part(tensors, "sdN/"), **SPACES)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model.train()
    objective = MindBridgeObjective(reconstruction_weight=about["rec_mult"], cycle_weight=about["cyc_mult"])
    groups: list[Any] = list(objective.parameter_groups(model, about["weight_decay"][0]))
    assert [len(group["params"]) for group in groups] == [len(about["decay_params"]), len(about["no_decay_params"])]
    if "adapt" in name:
        last = model.config.subject_names[-1]
        for key, parameter in model.named_parameters():
            parameter.requires_grad_(f".{last}." in key)
    optimizer = torch.optim.AdamW(groups, lr=about["max_lr"], eps=about["adam_eps"])
    for step in range(about["steps"]):
        for group in optimizer.param_groups:
            group["lr"], group["betas"] = about["lr_used"][step], tuple(about["betas_used"][step])
        fmri = tensors[f"batch{step}/voxel"]
        places = places_of(model, tensors[f"batch{step}/ids"].tolist())
        subject_ids = torch.tensor(places).repeat_interleave(len(fmri) // len(places))
        drawn = places_of(model, about["cycle_pairs"][step]) if about["cycle_pairs"] else []
        drawn = drawn or ([places[0], places[-1]] if "adapt" in name else [])
        targets = {f"{head}_embeds": tensors[f"batch{step}/{head}_target"] for head in ("image", "text")}
        terms = objective.losses_of_outputs(
            model, model.bridge(fmri, subject_ids), targets, fmri, subject_ids, CyclePair(*drawn) if drawn else None
        )
        loss = torch.stack(list(terms.values())).sum()
        assert loss.item() == pytest.approx(about["loss_total"][step], rel=1e-4)
        for name_there, value in zip(about["loss_part_names"], about["loss_parts"][step], strict=True):
            own, weight = PARTS[name_there]
            if own in terms:
                assert terms[own].item() == pytest.approx(about.get(weight, 1) * value, rel=1e-4, abs=1e-6)
        optimizer.zero_grad()
        loss.backward()
        if about["grad_clip"]:
            torch.nn.utils.clip_grad_norm_(model.parameters(), about["grad_clip"])
        optimizer.step()
    wanted = expected.state_dict()
    for key, values in model.state_dict().items():
        torch.testing.assert_close(values, wanted[key], atol=about["atol"], rtol=about["rtol"], msg=key)


# Names of the original's losses ▶ ours, and what weighs them there.
PARTS = {
    "clip_image": ("image_contrastive", ""),
    "clip_text": ("text_contrastive", ""),
    "mse_image": ("image_mse", "mse_mult"),
    "mse_text": ("text_mse", "mse_mult"),
    "rec": ("reconstruction", "rec_mult"),
    "cyc": ("cycle", "cyc_mult"),
}


def places_of(model: MindBridgeModel, numbers: list[int]) -> list[int]:
    """Indices of subjects that are numbers in the original."""
    return [model.config.subject_index(f"subj{number:02d}") for number in numbers]


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


class TestComparison:
    def test_one_matrix_gives_what_copies_of_length_one_do(self):
        generator = source()
        predicted, target = torch.randn(2, 6, 3, 4, generator=generator)
        found = compared(predicted, target)
        close(found.soft_clip(0.02), soft_clip_loss(normalised(predicted), normalised(target), 0.02))
        close(found.squared_error(), (normalised(predicted) - normalised(target)).square().mean())

    def test_a_single_row_has_nothing_to_be_compared_with(self):
        with pytest.raises(FmriModelsError, match="compares the rows of a batch"):
            compared(torch.ones(1, 3), torch.ones(1, 3)).soft_clip(0.01)

    def test_zeros_have_finite_gradients(self):
        predicted = torch.zeros(3, 4, requires_grad=True)
        compared(predicted, torch.randn(3, 4)).squared_error().backward()
        assert predicted.grad.isfinite().all()


class TestPairs:
    def test_they_are_a_function_of_step_and_seed(self):
        model, objective = tiny_model(), MindBridgeObjective()

        def cycle(step: int, seed: int = 0, draws: int = 0) -> float:
            generator = torch.Generator().manual_seed(draws)
            of_step = MindBridgeObjective(pair_seed=seed)
            return of_step.losses(model, batch(model, step=step), 0.0, alone, generator)["cycle"].item()

        assert objective.cycle == "drawn"
        assert [cycle(step, draws=1) for step in range(8)] == [cycle(step, draws=2) for step in range(8)]
        # Six ordered pairs.
        assert len({round(cycle(step), 5) for step in range(40)}) == 6
        assert [cycle(step) for step in range(8)] != [cycle(step, seed=1) for step in range(8)]

    def test_rows_of_all_others_pass_through_the_newest(self):
        model = tiny_model()
        given = batch(model)
        found = losses(model, given, cycle="newest")["cycle"]
        embeds = model.embed(given["fmri"], given["subject_ids"])
        single = [cycle_of(model, embeds, given["subject_ids"], CyclePair(source, 2)) for source in (0, 1)]
        close(found, torch.stack(single).mean())

    def test_one_subject_or_no_builders_have_no_cycle(self):
        one = tiny_model(subject_names=["subj02"], num_voxels=[17])
        given = batch(one, ["subj02", "subj02"], subject_ids=torch.zeros(2, dtype=torch.long))
        found = losses(one, given)
        assert "cycle" not in found and "reconstruction" in found
        without = losses(tiny_model(use_builders=False), batch(one))
        assert "cycle" not in without and "reconstruction" not in without

    def test_without_rows_of_the_source_it_is_zero(self):
        model = tiny_model()
        found = cycle_of(model, torch.randn(2, 12), torch.tensor([1, 1]), CyclePair(0, 1))
        assert found.item() == 0
        found.backward()

    def test_ids_that_are_not_read_give_the_same(self, monkeypatch):
        model, ids, embeds = tiny_model(), torch.tensor([0, 1, 1, 2, 0]), torch.randn(5, 12)
        expected = cycle_of(model, embeds, ids, CyclePair(1, 2))
        monkeypatch.setattr("fmri_models.models.mindbridge.objective_mindbridge.becomes_a_graph", lambda: True)
        close(cycle_of(model, embeds, ids, CyclePair(1, 2)), expected)


class TestSharedStimuli:
    def test_responses_to_the_same_stimulus_are_compared(self):
        model = tiny_model()
        rows = ["subj07", "subj02", "subj05", "subj02", "subj05"]
        given = batch(model, rows, stimulus=torch.tensor([3, 3, 4, -1, 3]))
        found = losses(model, given, translation_weight=2.0, cycle="newest")
        # Of the others' rows the first two share a stimulus with a row of the last subject.
        made = model.synthesize(given["fmri"][:2], ["subj07", "subj02"], "subj05")[:, :13]
        close(found["translation"], (made - given["fmri"][4, :13]).square().mean())
        plain = losses(model, given, cycle="newest")
        assert "translation" not in plain
        close(found["loss"], plain["loss"] + 2 * found["translation"])

    def test_several_own_responses_are_averaged_and_ids_need_not_be_read(self, monkeypatch):
        model = tiny_model()
        rows = ["subj07", "subj05", "subj05"]
        given = batch(model, rows, stimulus=torch.tensor([0, 0, 0]))
        made = model.synthesize(given["fmri"][:1], "subj07", "subj05")[:, :13]
        expected = (made - given["fmri"][1:, :13].mean(0)).square().mean()
        close(losses(model, given, translation_weight=1.0, cycle="newest")["translation"], expected)
        monkeypatch.setattr("fmri_models.models.mindbridge.objective_mindbridge.becomes_a_graph", lambda: True)
        close(losses(model, given, translation_weight=1.0, cycle="newest")["translation"], expected)

    def test_nothing_shared_is_nothing(self):
        model = tiny_model()
        given = batch(model, stimulus=torch.arange(6))
        found = losses(model, given, translation_weight=1.0)
        assert found["translation"] == 0 and found["loss"].isfinite()


class TestBatches:
    def test_subjects_of_unequal_numbers_of_rows_and_voxels(self):
        model = tiny_model()
        given = batch(model, ["subj07", "subj02", "subj02", "subj05", "subj02"])
        found = losses(model, given)
        reconstructed = model(given["fmri"], given["subject_ids"]).reconstructed_fmri
        errors = [
            (reconstructed[row, :width] - given["fmri"][row, :width]).square()
            for row, width in enumerate(NUM_VOXELS[subject] for subject in given["subject_ids"])
        ]
        close(found["reconstruction"], torch.cat(errors).mean())

    def test_padding_is_not_reconstructed(self):
        model = tiny_model()
        given = batch(model)
        padded = given["fmri"].clone()
        padded[:2, 11:] = 100.0
        found = [losses(model, {**given, "fmri": fmri})["loss"] for fmri in (given["fmri"], padded)]
        close(*found)

    def test_repetitions(self):
        model = tiny_model()
        single = [batch(model, fmri=tiny_fmri(*ROWS) * factor) for factor in (1.0, 2.0, 3.0)]
        repeated = torch.stack([each["fmri"] for each in single], dim=1)
        for step in range(4):
            found = losses(model, batch(model, fmri=repeated, step=step))
            close(found["loss"], losses(model, {**single[step % 3], "step": step})["loss"])
        averaged = losses(model, batch(model, fmri=repeated), repetition_rule="mean")
        close(averaged["loss"], losses(model, single[1])["loss"])

    def test_any_subset_of_targets(self):
        model = tiny_model(text_embedding_space=None)
        given = batch(model)
        assert "text_mse" not in losses(model, given)
        both = tiny_model()
        del given["text_embeds"]
        assert "text_mse" not in losses(both, given) and "image_mse" in losses(both, given)

    def test_negatives_are_of_all_that_is_gathered(self):
        model = tiny_model()
        given = batch(model)

        def gather(tensor: torch.Tensor) -> torch.Tensor:
            return torch.cat([tensor, tensor.detach().flip(0) + 0.1])

        weights = {"reconstruction_weight": 0, "cycle_weight": 0}
        own = losses(model, given, **weights)["image_contrastive"]
        assert not torch.isclose(losses(model, given, gather, **weights)["image_contrastive"], own)

    def test_numbers_of_rows_of_all_processes_count(self):
        model, embeds = tiny_model(), torch.randn(6, 12)
        ids = torch.tensor([0, 0, 0, 1, 0, 1])
        together = cycle_of(model, embeds, ids, CyclePair(0, 2))
        parts = [(embeds[:3], ids[:3], 3.0), (embeds[3:], ids[3:], 1.0)]
        shares = [
            cycle_of(model, own, of, CyclePair(0, 2), lambda count: torch.cat([count, 4.0 - count]))
            for own, of, _ in parts
        ]
        close(torch.stack(shares).mean(), together)


class TestTraining:
    def test_builders_learn_where_something_is_built(self):
        model = tiny_model()
        everything = {id(each) for each in model.parameters()}
        assert {id(each) for each in MindBridgeObjective().trainable(model)} == everything
        objective = MindBridgeObjective(reconstruction_weight=0, cycle_weight=0)
        builders = {id(each) for each in model.builders.parameters()}
        assert {id(each) for each in objective.trainable(model)} == everything - builders

    def test_biases_alone_are_not_decayed(self):
        model = tiny_model()
        decayed, others = MindBridgeObjective().parameter_groups(model, 0.01)
        names = {id(each): name for name, each in model.named_parameters()}
        assert {names[id(each)].rpartition(".")[2] for each in decayed["params"]} == {"weight"}
        assert {names[id(each)].rpartition(".")[2] for each in others["params"]} == {"bias"}

    def test_lengths_of_training_embeddings_are_noted(self):
        class Known:
            def distinct_targets(self, name: str) -> np.ndarray | None:
                return np.full((5, 24), 2.0) if name == "image_embeds" else None

        model = tiny_model()
        MindBridgeObjective().prepare(model, Known())
        assert model.config.image_embedding_norm == pytest.approx(2 * 24**0.5)
        assert model.config.text_embedding_norm is None

    def test_validation_measures_the_same_each_time(self):
        model, objective = tiny_model(), MindBridgeObjective()
        given = batch(model)
        del given["step"]
        found = [objective.validation_metrics(model, given, source()) for _ in range(2)]
        assert found[0] == found[1]
        close(found[0]["cosine"], found[0]["image_cosine"] + found[0]["text_cosine"])
        last = objective.validation_metrics(model, batch(model, ["subj05"]), source())
        assert last["image_contrastive"] == 0 and last["loss"].isfinite()

    def test_reconstruction_of_one_width_is_the_plain_error(self):
        model = tiny_model(subject_names=["a", "b"], num_voxels=[17, 17])
        fmri, made = torch.randn(2, 3, 17)
        found = reconstruction_loss(model, made, fmri, torch.tensor([0, 1, 0]))
        close(found, (made - fmri).square().mean())

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"cycle": "all"}, "drawn or newest"),
            ({"temperature": 0}, "a positive number"),
            ({"repetition_rule": "mix"}, "cycle or mean"),
        ],
    )
    def test_options_that_do_not_fit_are_a_sentence(self, options, message):
        with pytest.raises(FmriModelsError, match=message):
            MindBridgeObjective(**options)
