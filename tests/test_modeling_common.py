"""What every brain model has to pass. A method's test class derives from [`ModelTesterMixin`]."""

import json
import os
import re
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModel, Trainer, TrainingArguments

from fmri_models import saving
from fmri_models.configuration_fmri import FmriConfig
from fmri_models.errors import FmriModelsError
from fmri_models.modeling_fmri import FmriPreTrainedModel
from fmri_models.swapping import is_partial
from tests.new_process import run_program
from tests.stored_numbers import check_numbers
from tests.tensor_digests import digests

# Unsorted, and of different widths: a dictionary in between would exchange brains.
SUBJECTS = ["subj07", "subj02", "subj05"]
NUM_VOXELS = [11, 17, 13]
PARTS = {
    "image_embeds": "image_embedding_space",
    "text_embeds": "text_embedding_space",
    "latents": "latent_space",
}


def save_load_digests(kind: str, class_name: str, folder: Any) -> dict[str, str]:
    """Digests of every tensor after loading in a new process."""
    program = "import runpy; runpy.run_module('tests.tensor_digests', run_name='__main__')"
    finished = run_program(program, kind, f"fmri_models:{class_name}", folder)
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout.splitlines()[-1])


class SuiteCase:
    """What transformers' own tests (`tests/suites`) need of a model; every subclass in a method's tests is a case.

    Attributes:
        model_class: The model.
        depth: What its hidden states are expected to be: `num_hidden_layers`, `seq_length` and `hidden_size`, for
            `hidden_states[0]` of shape (…, seq_length, hidden_size); empty for a network without depth.
        has_attentions: Whether its forward returns attention weights.
        draws_for_targets: Whether its loss draws random numbers also in eval mode.
        loss_reaches_all: Whether its own loss reaches all parameters.
        num_voxels: What the model reads of each of `SUBJECTS`.
    """

    model_class: type[FmriPreTrainedModel]
    depth: ClassVar[Mapping[str, int]] = {}
    has_attentions = False
    draws_for_targets = False
    loss_reaches_all = True
    num_voxels: ClassVar[Sequence[int]] = NUM_VOXELS

    def make_config(self, subject_names: list[str], num_voxels: list[int]) -> FmriConfig:
        """A tiny configuration."""
        raise AssertionError("the method's test class makes a configuration")

    def make_inputs(self) -> dict[str, torch.Tensor]:
        """What `forward` needs, a row for each of `SUBJECTS`."""
        raise AssertionError("the method's test class makes inputs")

    def make_targets(self, model: FmriPreTrainedModel, batch_size: int) -> dict[str, torch.Tensor]:
        """What `forward` needs besides for a loss; nothing if it has none."""
        return {}


class ModelTesterMixin(SuiteCase):
    """Set `model_class`, implement `make_config`; override `make_targets` if a model learns from more than spaces."""

    max_tiny_parameters = 1_000_000

    def make_inputs(self) -> dict[str, torch.Tensor]:
        return {"fmri": self.make_fmri(SUBJECTS), "subject_ids": torch.arange(len(SUBJECTS))}

    def make_model(self) -> FmriPreTrainedModel:
        torch.manual_seed(0)
        model = self.model_class(self.make_config(list(SUBJECTS), list(self.num_voxels)))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(std=0.1)
        return model.eval()

    def make_fmri(self, subject_names: list[str]) -> torch.Tensor:
        """Processed voxels, zero-padded to the widest subject."""
        generator = torch.Generator().manual_seed(1)
        fmri = torch.randn(len(subject_names), max(self.num_voxels), generator=generator)
        for row, name in enumerate(subject_names):
            fmri[row, self.num_voxels[SUBJECTS.index(name)] :] = 0
        return fmri

    def make_targets(self, model: FmriPreTrainedModel, batch_size: int) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(2)
        spaces = {part: model.config.space(space) for part, space in PARTS.items()}
        return {
            part: torch.randn(batch_size, *space.shape, generator=generator)
            for part, space in spaces.items()
            if space is not None
        }

    def decoded(self, model: FmriPreTrainedModel, fmri: torch.Tensor, subjects: Any) -> dict[str, torch.Tensor]:
        decoding = model.decode(fmri, subjects, generator=torch.Generator().manual_seed(0))
        return {name: value for name, value in decoding.items() if value is not None}

    @pytest.mark.slow
    def test_every_tensor_survives_saving_and_a_new_process(self, tmp_path):
        model = self.make_model()
        model.save_pretrained(tmp_path / "model")
        assert save_load_digests("model", self.model_class.__name__, tmp_path / "model") == digests(model)

    def test_numbers_are_those_that_were_stored(self):
        torch.manual_seed(0)
        drawn = dict(self.model_class(self.make_config(list(SUBJECTS), list(self.num_voxels))).state_dict())
        model = self.make_model()
        output = model(**self.make_inputs())
        named = {name: values for name, values in output.items() if isinstance(values, torch.Tensor)}
        decoded = self.decoded(model, self.make_fmri(SUBJECTS), SUBJECTS)
        groups = {"weights": drawn, "forward": named, "decode": decoded}
        numbers = {f"{group} {name}": values for group, each in groups.items() for name, values in each.items()}
        check_numbers(f"models/{type(self).__name__.removeprefix('Test')}", numbers)

    def test_subjects_keep_their_order_through_saving(self, tmp_path):
        model = self.make_model()
        model.save_pretrained(tmp_path / "model")
        loaded = self.model_class.from_pretrained(tmp_path / "model")
        assert loaded.config.subject_names == SUBJECTS
        assert loaded.config.num_voxels == list(self.num_voxels)
        subjects = ["subj02", "subj05", "subj07"]
        fmri = self.make_fmri(subjects)
        before, after = self.decoded(model, fmri, subjects), self.decoded(loaded, fmri, subjects)
        for name, value in before.items():
            torch.testing.assert_close(after[name], value)

    def test_names_and_indices_mean_the_same(self):
        model = self.make_model()
        subjects = ["subj05", "subj07"]
        fmri = self.make_fmri(subjects)
        by_name = self.decoded(model, fmri, subjects)
        by_index = self.decoded(model, fmri, torch.tensor([SUBJECTS.index(name) for name in subjects]))
        for name, value in by_name.items():
            torch.testing.assert_close(by_index[name], value)

    def test_subjects_have_models_of_their_own(self):
        model = self.make_model()
        fmri = torch.zeros(2, max(self.num_voxels))
        fmri[:, : min(self.num_voxels)] = 1.0
        decoded = self.decoded(model, fmri, ["subj07", "subj02"])
        differ = any(not torch.allclose(value[0], value[1]) for value in decoded.values())
        assert differ == model.has_subject_layers

    def test_a_batch_gives_what_its_rows_give(self):
        model = self.make_model()
        subjects = ["subj05", "subj02", "subj07", "subj02"]
        fmri = self.make_fmri(subjects)
        batch = model(fmri, subjects)
        for row, name in enumerate(subjects):
            single = model(fmri[row : row + 1], [name])
            for part, values in batch.items():
                if isinstance(values, torch.Tensor):
                    torch.testing.assert_close(single[part][0], values[row], rtol=1e-4, atol=1e-5)

    def test_padding_is_not_read(self):
        model = self.make_model()
        fmri = self.make_fmri(["subj07"])
        padded = fmri.clone()
        padded[:, self.num_voxels[0] :] = 100.0
        before, after = self.decoded(model, fmri, "subj07"), self.decoded(model, padded, "subj07")
        for name, value in before.items():
            torch.testing.assert_close(after[name], value)

    def test_every_parameter_gets_a_gradient(self):
        model = self.make_model().train()
        subjects = [name for name in SUBJECTS for _ in range(2)]
        output = model(self.make_fmri(subjects), subjects, **self.make_targets(model, len(subjects)))
        assert output.loss.ndim == 0
        torch.testing.assert_close(torch.stack(list(output.losses.values())).sum(), output.loss)
        output.loss.backward()
        without = [name for name, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
        assert not without
        assert all(p.grad.abs().sum() > 0 for p in model.parameters())

    def test_no_loss_without_targets(self):
        output = self.make_model()(self.make_fmri(SUBJECTS), SUBJECTS)
        assert output.loss is None
        assert output.losses is None

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision_loads_and_stays_close(self, tmp_path, dtype):
        model = self.make_model()
        model.save_pretrained(tmp_path / "model")
        half = self.model_class.from_pretrained(tmp_path / "model", dtype=dtype)
        assert {parameter.dtype for parameter in half.parameters()} == {dtype}
        fmri = self.make_fmri(SUBJECTS)
        expected, found = self.decoded(model, fmri, SUBJECTS), self.decoded(half, fmri, SUBJECTS)
        for name, value in expected.items():
            torch.testing.assert_close(found[name].float(), value, rtol=0.1, atol=0.1)

    def test_decoding_is_deterministic(self):
        model = self.make_model()
        fmri = self.make_fmri(SUBJECTS)
        first, second = self.decoded(model, fmri, SUBJECTS), self.decoded(model, fmri, SUBJECTS)
        for name, value in first.items():
            assert torch.equal(second[name], value)

    def test_decoded_parts_have_the_shapes_of_their_spaces(self):
        model = self.make_model()
        decoded = self.decoded(model, self.make_fmri(SUBJECTS), SUBJECTS)
        for part, space_name in PARTS.items():
            space = model.config.space(space_name)
            assert (part in decoded) == (space is not None)
            if space is not None:
                assert decoded[part].shape == (len(SUBJECTS), *space.shape)

    def test_tiny_configuration_is_tiny(self):
        assert sum(parameter.numel() for parameter in self.make_model().parameters()) < self.max_tiny_parameters

    def test_auto_model_finds_the_class(self, tmp_path):
        self.make_model().save_pretrained(tmp_path / "model")
        import fmri_models.pipeline_fmri  # noqa: F401 - registers with the Auto classes

        assert type(AutoModel.from_pretrained(tmp_path / "model")) is self.model_class

    def test_unknown_subject_is_a_sentence(self):
        with pytest.raises(FmriModelsError, match="subj99.*subj07, subj02, subj05"):
            self.make_model().decode(self.make_fmri(["subj07"]), ["subj99"])

    def test_missing_subjects_are_a_sentence(self):
        model, fmri = self.make_model(), self.make_fmri(["subj07"])
        if not model.has_subject_layers:
            assert_all_close(model.decode(fmri).to_tuple(), model.decode(fmri, "subj07").to_tuple())
            return
        with pytest.raises(FmriModelsError, match="say with subject_ids"):
            model.decode(fmri)

    def test_raw_voxels_are_refused(self):
        with pytest.raises(FmriModelsError, match=rf"\(batch, {max(self.num_voxels)}\); got \(1, 12\)"):
            self.make_model().decode(torch.zeros(1, 12), "subj07")

    def test_a_newer_configuration_is_refused(self, tmp_path):
        self.make_model().save_pretrained(tmp_path / "model")
        path = tmp_path / "model" / "config.json"
        config = json.loads(path.read_text())
        path.write_text(json.dumps({**config, "fmri_schema": 99}))
        with pytest.raises(FmriModelsError, match="newer version.*schema 99"):
            self.model_class.from_pretrained(tmp_path / "model")

    def test_the_trainer_of_transformers_evaluates_keeps_the_best_and_predicts(self, tmp_path):
        model = self.make_model()
        inputs = self.make_inputs()
        columns = {**inputs, **self.make_targets(model, len(SUBJECTS))}
        rows = [{name: values[row] for name, values in columns.items()} for row in range(len(SUBJECTS))]
        options = TrainingArguments(
            str(tmp_path),
            max_steps=2,
            per_device_train_batch_size=3,
            per_device_eval_batch_size=3,
            eval_strategy="steps",
            eval_steps=1,
            save_steps=1,
            load_best_model_at_end=True,
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
        )
        trainer = Trainer(model, options, train_dataset=rows, eval_dataset=rows)
        trainer.train()
        losses = [each["eval_loss"] for each in trainer.state.log_history if "eval_loss" in each]
        assert len(losses) == 2 and min(losses) == trainer.state.best_metric
        predicted = trainer.predict(rows)
        assert predicted.metrics["test_loss"] > 0
        tensors = predicted.predictions if isinstance(predicted.predictions, tuple) else (predicted.predictions,)
        expected = [values for name, values in model.eval()(**inputs).items() if name != "losses"]
        assert [values.shape for values in tensors] == [tuple(values.shape) for values in expected]
        # Without targets it predicts if it is told what they are called.
        named = replace(options, label_names=[name for name in columns if name not in inputs])
        bare = [{name: row[name] for name in inputs} for row in rows]
        unlabelled = Trainer(model, named, eval_dataset=rows)
        assert "test_loss" not in unlabelled.predict(bare).metrics and "eval_loss" in unlabelled.evaluate()

    def test_no_loss_where_none_is_asked_for(self):
        model = self.make_model()
        output = model(**self.make_inputs(), **self.make_targets(model, len(SUBJECTS)), return_loss=False)
        assert output.loss is None and output.losses is None

    def test_outputs_have_what_outputs_of_transformers_have(self):
        output = self.make_model()(**self.make_inputs(), output_hidden_states=True)
        assert output.attentions is None and (output.hidden_states is not None) == bool(self.depth)
        assert not self.depth or list(output)[-1] == "hidden_states"

    # Habits: tuples, hidden states, checkpointing, compiled and exported graphs

    def test_forward_returns_a_tuple_where_asked(self):
        model, inputs = self.make_model(), self.make_inputs()
        expected = tensors_of(model(**inputs))
        assert_all_close(model(**inputs, return_dict=False), expected)
        decoded = self.decoded(model, self.make_fmri(SUBJECTS), SUBJECTS)
        model.config.return_dict = False
        by_configuration = model(**inputs)
        assert isinstance(by_configuration, tuple)
        assert_all_close(by_configuration, expected)
        assert_all_close(tensors_of(model(**inputs, return_dict=True)), expected)
        assert_all_close(self.decoded(model, self.make_fmri(SUBJECTS), SUBJECTS).values(), decoded.values())

    def test_hidden_states_are_those_of_the_blocks(self):
        model, inputs = self.make_model(), self.make_inputs()
        states = getattr(model(**inputs, output_hidden_states=True), "hidden_states", None)
        assert len(states or ()) == (self.depth["num_hidden_layers"] + 1 if self.depth else 0)
        assert getattr(model(**inputs), "hidden_states", None) is None
        model.config.output_hidden_states = True
        by_configuration = getattr(model(**inputs), "hidden_states", None)
        assert_all_close(by_configuration or (), states or ())

    @pytest.mark.parametrize("reentrant", [False, True])
    def test_computing_again_for_the_gradient_changes_nothing(self, reentrant):
        if not self.model_class.supports_gradient_checkpointing:
            pytest.skip("the network has no depth")
        expected, found = self.trained(), self.trained({"use_reentrant": reentrant})
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value)

    def trained(self, checkpointing: dict[str, Any] | None = None) -> dict[str, torch.Tensor]:
        """Loss and gradients of a step, dropout included."""
        model = self.make_model().train()
        if checkpointing is not None:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=checkpointing)
            assert model.is_gradient_checkpointing
        torch.manual_seed(5)
        output = model(**self.make_inputs(), **self.make_targets(model, len(SUBJECTS)))
        output.loss.backward()
        gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
        return {"loss": output.loss.detach(), **gradients}

    def test_forward_is_one_graph(self):
        model, inputs = self.make_model(), self.make_inputs()
        torch.compiler.reset()
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        assert_all_close(tensors_of(compiled(**inputs)), tensors_of(model(**inputs)))
        exported = torch.export.export(model, (), inputs).module()
        assert_all_close(tensors_of(exported(**inputs)), tensors_of(model(**inputs)))
        if not model.has_subject_layers:
            return
        # Nothing stops such a graph at an id that is none; what it computes is nobody's.
        wrong = {**inputs, "subject_ids": torch.tensor([0, 3, -1])}
        for value in tensors_of(exported(**wrong)):
            assert value[0].isfinite().all()
            assert value[1:].isnan().all()

    def test_ids_that_are_no_subjects_are_a_sentence(self):
        model, fmri = self.make_model(), self.make_fmri(SUBJECTS)
        for ids in (torch.tensor([0, 1, 3]), [0, 1, -1]):
            with pytest.raises(FmriModelsError, match="3 subjects, with ids from 0 to 2"):
                model(fmri, ids)

    def test_only_whole_numbers_and_names_are_ids(self):
        model, fmri = self.make_model(), self.make_fmri(SUBJECTS)
        for ids in (
            [0.7, 1.0, 2.0], [True, False, True], [b"1", b"2", b"0"], [None, 0, 1], [[0], [1], [2]], [1j, 0, 1], 1, 1.0,
            b"\x00\x01\x02", {0, 1, 2}, {0: 1, 1: 2, 2: 0}, np.array([0.7, 1.0, 2.0]), np.array([True, False, True]),
            np.array(1), torch.tensor([0.7, 1.0, 2.0]), torch.tensor([0.0, 1, 2]), torch.tensor([True, False, True]),
            torch.tensor([1j, 0, 1]), torch.tensor([0.5, 1, 2], dtype=torch.float16), [torch.tensor(0.7), 1, 2],
        ):  # fmt: skip
            with pytest.raises(FmriModelsError) as caught:
                model(fmri, ids)
            assert "expected one id a row, each the name of a subject or its index" in str(caught.value), ids

    def test_whole_numbers_of_any_kind_are_ids(self):
        model = self.make_model()
        for ids in (
            (2, 0, 1), ["subj05", 0, np.int16(1)], np.array([2, 0, 1], dtype=np.uint8), torch.tensor([2, 0, 1]).byte(),
            [torch.tensor(2), 0, 1], np.array(["subj05", "subj07", "subj02"]), torch.tensor([2, 0, 1]).to(torch.uint64),
        ):  # fmt: skip
            assert model.subject_indices(ids, 3).tolist() == [2, 0, 1], ids

    def test_types_of_ids_elsewhere_are_looked_at(self):
        with pytest.raises(FmriModelsError, match="values of torch.float32"):
            self.make_model().subject_indices(torch.zeros(3, device="meta"), 3)

    def test_graphs_take_other_batches(self):
        model, inputs = self.make_model(), self.make_inputs()
        more = {name: torch.cat([value, value.flip(0)]) for name, value in inputs.items()}
        expected = tensors_of(model(**more))
        # The decoder of diffusers goes another way from 64 rows on.
        rows = torch.export.Dim("rows", min=2, max=63)
        shapes = {name: {0: rows} for name in inputs}
        exported = torch.export.export(model, (), inputs, dynamic_shapes=shapes).module()
        assert_all_close(tensors_of(exported(**more)), expected)
        # What is written down of one subject's rows has to hold for all.
        model.config.return_dict = False
        alone = {**inputs, "subject_ids": torch.zeros(len(SUBJECTS), dtype=torch.long)}
        traced = torch.jit.trace(model, example_kwarg_inputs=alone, strict=False, check_trace=False)
        assert_all_close(traced(**more), expected)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
    def test_the_default_dtype_of_others_changes_nothing(self, dtype):
        model = self.make_model().train()
        inputs = {**self.make_inputs(), **self.make_targets(model, len(SUBJECTS))}
        torch.manual_seed(0)
        expected = tensors_of(model(**inputs))
        with default_dtype(dtype):
            torch.manual_seed(0)
            found = tensors_of(model(**inputs))
            made = self.model_class(model.config)
            assert {each.dtype for each in made.parameters()} == {dtype}
            assert made(**inputs).loss.isfinite()
        for value, other in zip(found, expected, strict=True):
            assert value.dtype == other.dtype
            torch.testing.assert_close(value, other)

    def test_what_a_loss_draws_follows_it_to_an_accelerator(self):
        # Fake tensors know their device and have no values; each operation refuses devices that differ, as it would.
        with FakeTensorMode(allow_non_fake_inputs=True):
            with torch.device("cuda"):
                model = self.model_class(self.make_config(list(SUBJECTS), list(self.num_voxels))).train()
            inputs = {**self.make_inputs(), **self.make_targets(model, len(SUBJECTS))}
            loss = model(**{name: value.to("cuda") for name, value in inputs.items()}).loss
        assert loss.device.type == "cuda"

    def test_an_empty_batch_gives_an_empty_result(self):
        model = self.make_model()
        decoded = self.decoded(model, torch.zeros(0, max(self.num_voxels)), torch.zeros(0, dtype=torch.long))
        for part, space_name in PARTS.items():
            if (space := model.config.space(space_name)) is not None:
                assert decoded[part].shape == (0, *space.shape)

    def test_gradients_by_functions_are_those_of_backward(self):
        model = self.make_model()
        inputs = {**self.make_inputs(), **self.make_targets(model, len(SUBJECTS))}
        weights = dict(model.named_parameters())

        def loss(weights: dict[str, torch.Tensor]) -> torch.Tensor:
            torch.manual_seed(0)
            return torch.func.functional_call(model, weights, kwargs=inputs).loss

        loss(weights).backward()
        for name, gradient in torch.func.grad(loss)(weights).items():
            expected = weights[name].grad
            if not weights[name].requires_grad:
                continue
            torch.testing.assert_close(gradient, torch.zeros_like(gradient) if expected is None else expected)

    def test_ids_elsewhere_are_not_read(self):
        # Tensors of this device have no values: reading one raises.
        model = self.make_model().to("meta")
        inputs = {name: value.to("meta") for name, value in self.make_inputs().items()}
        assert all(value.device.type == "meta" for value in tensors_of(model(**inputs)))

    # Folders: nobody's file is lost, and what is loaded is whole

    def test_saving_leaves_what_else_is_in_the_folder(self, tmp_path):
        model, folder = self.make_model(), tmp_path / "clone"
        kept = {
            "README.md": "mine",
            ".git/HEAD": "ref",
            ".gitattributes": "*.safetensors filter=lfs",
            "notes/a.txt": "a",
        }
        write_files(folder, kept)
        model.save_pretrained(folder)
        model.save_pretrained(folder)
        assert {name: (folder / name).read_text() for name in kept} == kept
        assert digests(self.model_class.from_pretrained(folder)) == digests(model)
        assert not [path for path in folder.rglob("*") if is_partial(path.name)]

    def test_other_processes_of_a_training_write_nothing(self, tmp_path):
        write_files(tmp_path / "model", {"config.json": "{}", "README.md": "mine"})
        self.make_model().save_pretrained(tmp_path / "model", is_main_process=False)
        assert {path.name: path.read_text() for path in (tmp_path / "model").iterdir()} == {
            "config.json": "{}",
            "README.md": "mine",
        }
        self.make_model().save_pretrained(tmp_path / "none", is_main_process=False)
        assert not (tmp_path / "none").exists()

    def test_a_symbolic_link_and_the_current_directory_stay_what_they_are(self, tmp_path, monkeypatch):
        model = self.make_model()
        (tmp_path / "place").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "place")
        model.save_pretrained(tmp_path / "link")
        assert (tmp_path / "link").is_symlink() and (tmp_path / "place" / "config.json").is_file()
        monkeypatch.chdir(tmp_path / "place")
        before = os.stat(".").st_ino
        model.save_pretrained(".")
        assert os.stat(".").st_ino == before == (tmp_path / "place").stat().st_ino
        assert digests(self.model_class.from_pretrained(".")) == digests(model)

    def test_old_shards_are_removed_and_other_variants_stay(self, tmp_path):
        model = self.make_model()
        model.save_pretrained(tmp_path / "model", variant="fp16")
        model.save_pretrained(tmp_path / "model", max_shard_size="1KB")
        shards = sorted((tmp_path / "model").glob("model-*-of-*.safetensors"))
        assert len(shards) > 1
        assert digests(self.model_class.from_pretrained(tmp_path / "model")) == digests(model)
        model.save_pretrained(tmp_path / "model")
        assert {path.name for path in (tmp_path / "model").iterdir()} == {
            "config.json",
            "model.safetensors",
            "model.fp16.safetensors",
        }
        assert digests(self.model_class.from_pretrained(tmp_path / "model", variant="fp16")) == digests(model)

    def test_a_save_that_was_killed_leaves_the_old_model_or_is_completed(self, tmp_path):
        model, other = self.make_model(), self.make_model()
        with torch.no_grad():
            next(iter(other.parameters())).add_(1)
        folder = tmp_path / "model"
        model.save_pretrained(folder)
        before = killed_at(other, folder, "commit")
        assert before and digests(self.model_class.from_pretrained(folder)) == digests(model)
        inside = killed_at(other, folder, "complete")
        assert inside and digests(self.model_class.from_pretrained(folder)) == digests(other)
        assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}

    def test_saved_files_are_the_same_byte_for_byte(self, tmp_path):
        model = self.make_model()
        for name in ("a", "b"):
            model.save_pretrained(tmp_path / name)
        assert contents(tmp_path / "a") == contents(tmp_path / "b")

    @pytest.mark.parametrize("change", ["empty", "missing", "more", "shape", "nan", "infinite", "type"])
    def test_weights_that_are_not_whole_are_named(self, tmp_path, change):
        self.make_model().save_pretrained(tmp_path / "model")
        name = change_weights(tmp_path / "model" / "model.safetensors", change)
        with pytest.raises(FmriModelsError, match=re.escape(name)):
            self.model_class.from_pretrained(tmp_path / "model")

    def test_weights_in_other_formats_are_not_read(self, tmp_path):
        model = self.make_model()
        model.save_pretrained(tmp_path / "model")
        (tmp_path / "model" / "model.safetensors").unlink()
        torch.save(model.state_dict(), tmp_path / "model" / "pytorch_model.bin")
        with pytest.raises(FmriModelsError, match="safetensors"):
            self.model_class.from_pretrained(tmp_path / "model")
        with pytest.raises(FmriModelsError, match="safetensors alone"):
            self.model_class.from_pretrained(tmp_path / "model", use_safetensors=False)

    def test_sizes_of_no_network_are_refused_at_once(self, tmp_path):
        self.make_model().save_pretrained(tmp_path / "model")
        path = tmp_path / "model" / "config.json"
        config = json.loads(path.read_text())
        for size in (2**63 - 1, -1, 0, 2.5, "8", None, [1], True):
            path.write_text(json.dumps({**config, "num_voxels": [size, *config["num_voxels"][1:]]}))
            with pytest.raises(FmriModelsError):
                self.model_class.from_pretrained(tmp_path / "model")


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """What `torch.set_default_dtype` does, for a while."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def tensors_of(output: Any) -> list[torch.Tensor]:
    """The tensors of an output, in order."""
    return [value for value in output.to_tuple() if isinstance(value, torch.Tensor)]


def assert_all_close(found: Iterable[torch.Tensor], expected: Iterable[torch.Tensor]) -> None:
    for value, other in zip(found, expected, strict=True):
        torch.testing.assert_close(value, other, rtol=1e-4, atol=1e-5)


def write_files(folder: Path, files: dict[str, str]) -> None:
    """Writes small text files, in folders of their own where their names say so."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def killed_at(saved: Any, folder: Path, step: str) -> bool:
    """Saves in a child that is killed when it comes to a step of `fmri_models.saving`; whether it came there."""
    child = os.fork()
    if child == 0:
        setattr(saving, step, lambda *args: os.kill(os.getpid(), signal.SIGKILL))
        try:
            saved.save_pretrained(folder)
        finally:
            os._exit(1)
    return os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


def change_weights(path: Path, change: str) -> str:
    """Makes a weights file one that does not fit; gives the name of the tensor that a message has to name."""
    tensors = load_file(path)
    name = next(key for key, value in tensors.items() if value.is_floating_point() and value.ndim)
    value = tensors[name]
    if change == "empty":
        tensors = {"x": torch.zeros(3)}
    elif change == "missing":
        del tensors[name]
    elif change == "more":
        name = "one_more"
        tensors[name] = torch.zeros(3)
    elif change == "shape":
        tensors[name] = torch.cat([value, value[:1]])
    elif change in ("nan", "infinite"):
        tensors[name] = value.clone()
        tensors[name].view(-1)[-1] = float("nan" if change == "nan" else "inf")
    else:
        tensors[name] = value.to(torch.int64)
    save_file(tensors, path, metadata={"format": "pt"})
    return "lacks" if change == "empty" else name
