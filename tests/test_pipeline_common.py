"""What every pipeline has to pass. A method's test class derives from [`PipelineTesterMixin`]."""

import inspect
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch

import fmri_models
from fmri_models import FmriToImagePipeline
from fmri_models.errors import FmriModelsError
from fmri_models.generation.pixels import PixelsImageGenerator
from fmri_models.processing.statistics_file import FORMER_STATISTICS_FILE, STATISTICS_FILE
from fmri_models.processing_fmri import FmriProcessor
from fmri_models.provenance import LIBRARY
from fmri_models.swapping import is_partial
from fmri_models.training_record import TrainingRecord
from tests.pipeline_tester_mixin import DrawingHabits, seeds
from tests.tensor_digests import pipeline_digests
from tests.test_modeling_common import (
    NUM_VOXELS,
    SUBJECTS,
    change_weights,
    contents,
    killed_at,
    save_load_digests,
    write_files,
)

# The options that every pipeline takes, whatever its method.
CALL_OPTIONS = {
    "fmri", "subject", "session", "num_inference_steps", "guidance_scale", "strength", "num_candidates", "selection",
    "generator", "output_type", "return_dict", "callback_on_step_end", "callback_on_step_end_tensor_inputs",
    "text_to_image_ratio",
}  # fmt: skip


def make_processor(**options: Any) -> FmriProcessor:
    """A processor for the common tests' subjects, fitted on random trials."""
    rng = np.random.default_rng(0)
    trials = {name: rng.normal(size=(20, width)) for name, width in zip(SUBJECTS, NUM_VOXELS, strict=True)}
    return FmriProcessor.fit(trials, subjects=SUBJECTS, **options)


class MethodHabits(DrawingHabits):
    """diffusers' habits of a method's pipeline, made by `make_pipeline` with the common tests' subjects."""

    def make_betas(self, count: int = 3, subject: str = "subj05") -> np.ndarray:
        return np.random.default_rng(1).normal(size=(count, NUM_VOXELS[SUBJECTS.index(subject)]))

    def inputs(self, pipeline: Any, num_images: int) -> dict[str, Any]:
        options = {"guidance_scale": 2.0, "num_inference_steps": 2, "generator": seeds(*range(num_images))}
        return {"fmri": self.make_betas(num_images), "subject": "subj05"} | options

    def computed(self, pipeline: Any) -> dict[str, torch.Tensor]:
        output = pipeline(**self.inputs(pipeline, 2), num_candidates=2, output_type="pt")
        found = {name: values for name, values in output.items() if isinstance(values, torch.Tensor)}
        inputs = pipeline.processor(self.make_betas(), subject="subj05")
        decoding = pipeline.decode(inputs["fmri"], inputs["subject_ids"], generator=seeds(0, 1, 2))
        found |= {f"decoded {name}": values for name, values in decoding.items()}
        if decoding.retrieval_embeds is not None:
            found["retrieval"] = pipeline.brain_model.retrieval_embeds(inputs["fmri"], inputs["subject_ids"])
        return found


class PipelineTesterMixin(MethodHabits):
    """Set `pipeline_class` and implement `make_pipeline`, with the common tests' subjects."""

    pipeline_class: type[FmriToImagePipeline]

    def make_pipeline(self) -> FmriToImagePipeline:
        raise AssertionError("the method's test class makes a pipeline")

    def drawn(self, pipeline: FmriToImagePipeline, betas: np.ndarray, **options: Any) -> torch.Tensor:
        """Pictures as a tensor, with noise that depends on the pattern's place alone."""
        sources = [torch.Generator().manual_seed(place) for place in range(len(betas))]
        call = {"num_inference_steps": 2, "subject": "subj05", **options}
        return pipeline(betas, generator=sources, output_type="pt", **call).images

    @pytest.fixture
    def saved(self, tmp_path):
        pipeline = self.make_pipeline()
        pipeline.save_pretrained(tmp_path / "pipeline")
        return pipeline, tmp_path / "pipeline"

    def test_the_call_takes_the_common_options(self):
        assert set(inspect.signature(self.pipeline_class.__call__).parameters) >= CALL_OPTIONS

    @pytest.mark.slow
    def test_every_tensor_survives_saving_and_a_new_process(self, saved):
        pipeline, folder = saved
        assert save_load_digests("pipeline", "FmriToImagePipeline", folder) == pipeline_digests(pipeline)

    def test_a_reloaded_pipeline_is_of_its_class_and_draws_the_same_pictures(self, saved):
        pipeline, folder = saved
        loaded = FmriToImagePipeline.from_pretrained(folder)
        assert type(loaded) is self.pipeline_class
        betas = self.make_betas()
        torch.testing.assert_close(self.drawn(loaded, betas), self.drawn(pipeline, betas), rtol=1e-4, atol=1e-4)

    def test_wrong_ids_are_a_sentence_wherever_the_model_is(self):
        pipeline = self.make_pipeline()
        # Ids on another device have no values that anybody could look at.
        pipeline.brain_model.to("meta")
        width = max(pipeline.brain_model.config.num_voxels)
        for ids in (torch.tensor([0, 9]), torch.tensor([0.5, 0.0]), ["subj99", "subj99"]):
            with pytest.raises(FmriModelsError, match="ids from 0 to|values of torch.float32|'subj99' is unknown"):
                pipeline.decode(torch.zeros(2, width), ids)

    def test_components_are_stored_under_the_package_name(self, saved):
        """Notices when diffusers' private table of loadable libraries moves."""
        index = json.loads((saved[1] / "model_index.json").read_text())
        assert {index[name][0] for name in ("brain_model", "processor", "image_generator")} == {"fmri_models"}

    def test_the_same_seed_draws_the_same_pictures(self):
        pipeline = self.make_pipeline()
        assert torch.equal(self.drawn(pipeline, self.make_betas()), self.drawn(pipeline, self.make_betas()))

    def test_weights_that_overflow_are_a_sentence_and_no_picture(self):
        pipeline = self.make_pipeline()
        for parameter in pipeline.brain_model.parameters():
            parameter.data.fill_(3e38)
        with pytest.raises(FmriModelsError, match="NaN or infinite values"):
            self.drawn(pipeline, self.make_betas())

    def test_a_decoding_may_be_a_tuple(self):
        pipeline = self.make_pipeline()
        inputs = pipeline.processor(self.make_betas(), subject="subj05")
        call = inputs["fmri"], inputs["subject_ids"]
        decoding = pipeline.decode(*call, generator=seeds(0, 1, 2))
        items = pipeline.decode(*call, generator=seeds(0, 1, 2), return_dict=False)
        assert all(torch.equal(*pair) for pair in zip(items, decoding.to_tuple(), strict=True))
        pictures = pipeline.generate(decoding, generator=seeds(0, 1, 2), output_type="pt")
        (first, *_) = pipeline.generate(decoding, generator=seeds(0, 1, 2), output_type="pt", return_dict=False)
        assert torch.equal(first, pictures.images)

    def test_a_brain_model_that_returns_tuples_decodes_the_same(self):
        pipeline = self.make_pipeline()
        expected = self.computed(pipeline)
        pipeline.brain_model.config.return_dict = False
        self.assert_computes(pipeline, expected)

    def test_candidates_of_latents_are_chosen_like_pictures(self):
        pipeline = self.make_pipeline()
        call = self.inputs(pipeline, 3) | {"num_candidates": 3}
        pictures = pipeline(**call, output_type="pt")
        latents = pipeline(**(call | {"generator": seeds(0, 1, 2)}), output_type="latent")
        decoded = pipeline.image_generator(latents=latents.images, strength=0.0, output_type="pt").images
        torch.testing.assert_close(decoded, pictures.images, rtol=1e-4, atol=1e-4)
        if pictures.candidates is not None:
            assert [each.shape for each in latents.candidates] == [(3, *latents.images.shape[1:])] * 3

    def test_a_generator_that_comes_later_is_as_the_pipeline_was_told(self):
        pipeline = self.make_pipeline()
        expected, generator = self.computed(pipeline), pipeline.image_generator
        pipeline.image_generator = None
        pipeline.set_progress_bar_config(disable=True, desc="Ours")
        pipeline.enable_sequential_cpu_offload(device="cpu")
        pipeline.image_generator = generator
        assert generator._progress_bar_config == {"disable": True, "desc": "Ours"}
        self.assert_computes(pipeline, expected)

    @pytest.mark.parametrize("method", ["LoHaConfig", "LoKrConfig", "IA3Config", "DoRA"])
    def test_layer_by_layer_goes_plain_lora_and_no_other_adapter(self, method):
        model = self.make_pipeline().brain_model
        targets = [name for name, layer in model.named_modules() if type(layer) is torch.nn.Linear][-2:]
        lora = peft.LoraConfig(r=2, target_modules=targets, init_lora_weights=False)
        config, options = getattr(peft, "LoraConfig" if method == "DoRA" else method), {"target_modules": targets}
        others = {"DoRA": {"use_dora": True}, "IA3Config": {"feedforward_modules": []}}
        other = config(**options, **others.get(method, {}))
        pipeline = self.make_pipeline()
        pipeline.brain_model.add_adapter(other)
        expected = self.computed(pipeline)
        with pytest.raises(FmriModelsError, match="brain_model has an adapter .* call enable_model_cpu_offload"):
            pipeline.enable_sequential_cpu_offload(device="cpu")
        assert not hasattr(pipeline.brain_model, "_hf_hook")
        pipeline.enable_model_cpu_offload(device="cpu")
        self.assert_computes(pipeline, expected)
        pipeline = self.make_pipeline()
        pipeline.brain_model.add_adapter(lora)
        expected = self.computed(pipeline)
        pipeline.enable_sequential_cpu_offload(device="cpu")
        self.assert_computes(pipeline, expected)

    @pytest.mark.parametrize("name", ["brain_model", "processor"])
    def test_what_could_not_be_loaded_is_not_saved(self, name, tmp_path):
        pipeline = self.make_pipeline()
        setattr(pipeline, name, torch.nn.Sequential())
        with pytest.raises(FmriModelsError, match=f"The {name} of the pipeline is a Sequential"):
            pipeline.save_pretrained(tmp_path / "pipeline")
        assert not (tmp_path / "pipeline").exists()

    def test_weights_that_are_kept_on_the_cpu_are_saved(self, saved, tmp_path):
        pipeline = FmriToImagePipeline.from_pretrained(saved[1])
        expected, drawn = self.computed(pipeline), self.drawn_by(pipeline)
        pipeline.enable_sequential_cpu_offload(device="cpu")
        pipeline.save_pretrained(tmp_path / "saved")
        self.assert_computes(pipeline, expected)
        pipeline.brain_model.save_pretrained(tmp_path / "alone")
        assert any(weights.device.type == "meta" for weights in pipeline.brain_model.parameters())
        torch.testing.assert_close(self.drawn_by(FmriToImagePipeline.from_pretrained(tmp_path / "saved")), drawn)
        loaded = FmriToImagePipeline.from_pretrained(tmp_path / "saved")
        alone = type(pipeline.brain_model).from_pretrained(tmp_path / "alone")
        for name, values in loaded.brain_model.state_dict().items():
            assert torch.equal(alone.state_dict()[name], values)

    def test_an_interruption_holds_for_pictures_that_had_not_begun(self, monkeypatch):
        monkeypatch.setattr("fmri_models.pipeline_fmri._IMAGES_A_CHUNK", 2)
        pipeline = self.make_pipeline()
        steps: list[int] = []

        def callback(given: Any, step: int, timestep: torch.Tensor, tensors: dict[str, Any]) -> dict[str, Any]:
            steps.append(step)
            given._interrupt = True
            return tensors

        assert len(self.drawn_by(pipeline, 5, callback_on_step_end=callback)) == 5
        assert steps == [0]
        assert pipeline.interrupt

    def test_the_generator_may_be_left_out(self, saved):
        loaded = FmriToImagePipeline.from_pretrained(saved[1], image_generator=None)
        assert loaded.image_generator is None
        with pytest.raises(FmriModelsError, match="no image generator"):
            loaded(self.make_betas(), subject="subj05")

    def test_dtype_reaches_every_network(self, saved):
        loaded = FmriToImagePipeline.from_pretrained(saved[1], dtype=torch.bfloat16)
        networks = {**loaded.components, **loaded.image_generator.components}
        dtypes = {p.dtype for each in networks.values() if isinstance(each, torch.nn.Module) for p in each.parameters()}
        assert dtypes == {torch.bfloat16}

    def test_options_out_of_range_are_sentences(self):
        pipeline, betas = self.make_pipeline(), self.make_betas()
        for options, message in (
            ({"strength": 1.5}, "strength is 1.5; expected a number from 0"),
            ({"guidance_scale": -1.0}, "guidance_scale is -1.0"),
            ({"num_inference_steps": 0}, "num_inference_steps is 0"),
            ({"num_candidates": 0}, "num_candidates is 0"),
            ({"selection": "best"}, "selection is 'best'; expected 'brain', 'first', or 'oracle' with true_images="),
            ({"selection": "oracle"}, "needs the true pictures"),
            ({"subject": "subj99"}, "'subj99' is unknown"),
            ({"selection": "oracle", "true_images": torch.rand(1, 3, 5, 7)}, r"is \(1, 3, 5, 7\) for 3 patterns"),
            ({"selection": "oracle", "true_images": np.zeros((3, 3, 5, 7))}, "is ndarray for 3 patterns"),
        ):
            with pytest.raises(FmriModelsError, match=message):
                self.drawn(pipeline, betas, **options)

    def test_what_is_no_source_of_noise_is_a_sentence(self):
        pipeline = self.make_pipeline()
        betas = self.make_betas()
        inputs = pipeline.processor(betas, subject="subj05")
        decoding = pipeline.decode(inputs["fmri"], inputs["subject_ids"])
        for wrong in (0, -1, "0", np.random.default_rng(0), [0, 1, 2], [torch.Generator()] * 2):
            for call, options in (
                (pipeline, {"fmri": betas, "subject": "subj05"}),
                (pipeline.decode, {"features": inputs["fmri"], "subject_ids": inputs["subject_ids"]}),
                (pipeline.generate, {"decoding": decoding}),
                (pipeline.image_generator, {"num_images": 3}),
            ):
                with pytest.raises(FmriModelsError, match=r"expected a torch\.Generator|2 generators were"):
                    call(**options, generator=wrong)

    def test_another_brain_model_has_learned_from_what_nobody_knows(self, saved, tmp_path):
        pipeline, folder = saved
        TrainingRecord("linear", "a table", "0" * 64, "default", 0, ["train"], "average").save(folder)
        assert FmriToImagePipeline.from_pretrained(folder).training_record.unknown_initial_models == []
        loaded = FmriToImagePipeline.from_pretrained(folder, brain_model=pipeline.brain_model)
        loaded.save_pretrained(tmp_path / "again")
        assert TrainingRecord.load(tmp_path / "again").unknown_initial_models == ["given as brain_model="]

    def test_subjects_in_another_order_are_refused(self):
        pipeline = self.make_pipeline()
        shuffled = FmriProcessor.fit(
            {name: np.random.default_rng(0).normal(size=(9, w)) for name, w in zip(SUBJECTS, NUM_VOXELS, strict=True)},
            subjects=sorted(SUBJECTS),
        )
        with pytest.raises(FmriModelsError, match="the order counts"):
            self.pipeline_class(pipeline.brain_model, shuffled, pipeline.image_generator)

    def test_a_generator_of_another_space_is_refused(self):
        pipeline = self.make_pipeline()
        with pytest.raises(FmriModelsError, match="mean different things by an embedding"):
            self.pipeline_class(pipeline.brain_model, pipeline.processor, PixelsImageGenerator(3, 5, 7))

    def test_a_folder_without_processor_is_a_sentence(self, saved):
        shutil.rmtree(saved[1] / "processor")
        with pytest.raises(FmriModelsError, match="has no processor/"):
            FmriToImagePipeline.from_pretrained(saved[1])

    def test_truncated_weights_are_a_sentence(self, saved):
        weights = saved[1] / "brain_model" / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
        with pytest.raises(FmriModelsError, match="cut short|incomplete|can't be read"):
            FmriToImagePipeline.from_pretrained(saved[1])

    def test_a_newer_pipeline_is_refused(self, saved):
        path = saved[1] / "model_index.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "fmri_schema": 7}))
        with pytest.raises(FmriModelsError, match="newer version of fmri_models .schema 7"):
            FmriToImagePipeline.from_pretrained(saved[1])

    def test_saving_leaves_what_else_is_in_the_folder(self, saved):
        pipeline, folder = saved
        kept = {
            "README.md": "mine", ".git/HEAD": "ref", ".gitattributes": "*.safetensors lfs", "thesis.tex": "important",
            "training.json": "{}", "brain_model/notes.txt": "mine",
        }  # fmt: skip
        write_files(folder, kept)
        pipeline.save_pretrained(folder)
        assert {name: (folder / name).read_text() for name in kept} == kept
        assert not [path for path in folder.rglob("*") if is_partial(path.name)]

    def test_other_processes_of_a_training_write_nothing(self, saved):
        pipeline, folder = saved
        before = contents(folder)
        pipeline.save_pretrained(folder, is_main_process=False)
        assert contents(folder) == before

    def test_model_and_processor_share_a_folder(self, tmp_path):
        pipeline = self.make_pipeline()
        pipeline.brain_model.save_pretrained(tmp_path / "both")
        pipeline.processor.save_pretrained(tmp_path / "both")
        pipeline.brain_model.save_pretrained(tmp_path / "both")
        loaded = type(pipeline.brain_model).from_pretrained(tmp_path / "both")
        processor = FmriProcessor.from_pretrained(tmp_path / "both")
        again = self.pipeline_class(loaded, processor, pipeline.image_generator)
        assert pipeline_digests(again) == pipeline_digests(pipeline)

    def test_card_record_and_report_go_along_when_a_loaded_pipeline_is_saved_elsewhere(self, saved, tmp_path):
        _, folder = saved
        TrainingRecord("linear", "a table", "0" * 64, "default", 0, ["train"], "average").save(folder)
        write_files(folder, {"README.md": f"---\nlibrary_name: {LIBRARY}\n---\nours", "report.json": "{}"})
        loaded = FmriToImagePipeline.from_pretrained(folder)
        assert loaded.training_record.table == "a table"
        for name in ("other", "theirs"):
            write_files(tmp_path / name, {"README.md": "mine"} if name == "theirs" else {})
            loaded.save_pretrained(tmp_path / name)
            for file in ("training.json", "report.json"):
                assert (tmp_path / name / file).read_bytes() == (folder / file).read_bytes()
        assert (tmp_path / "other" / "README.md").read_text().endswith("ours")
        assert (tmp_path / "theirs" / "README.md").read_text() == "mine"

    def test_nothing_that_is_saved_names_a_place_of_this_machine(self, saved, tmp_path):
        FmriToImagePipeline.from_pretrained(saved[1]).save_pretrained(tmp_path / "again")
        package = str(Path(fmri_models.__file__).parent)
        for path in (tmp_path / "again").rglob("*.json"):
            text = path.read_text()
            assert str(tmp_path) not in text and package not in text and "_name_or_path" not in text, path

    def test_saved_files_are_the_same_byte_for_byte(self, saved, tmp_path):
        pipeline, folder = saved
        pipeline.save_pretrained(tmp_path / "second")
        assert contents(tmp_path / "second") == contents(folder)

    def test_a_generator_that_is_named_now_is_copied_no_more(self, saved):
        pipeline, folder = saved
        (folder / "image_generator" / "notes.md").write_text("mine")
        pipeline.image_generator = None
        pipeline.save_pretrained(folder)
        assert [path.name for path in (folder / "image_generator").rglob("*")] == ["notes.md"]
        assert FmriToImagePipeline.from_pretrained(folder).image_generator is None

    def test_statistics_under_their_former_name_are_read_and_replaced(self, saved):
        pipeline, folder = saved
        (folder / "processor" / STATISTICS_FILE).rename(folder / "processor" / FORMER_STATISTICS_FILE)
        loaded = FmriToImagePipeline.from_pretrained(folder)
        assert pipeline_digests(loaded) == pipeline_digests(pipeline)
        loaded.save_pretrained(folder)
        assert not (folder / "processor" / FORMER_STATISTICS_FILE).exists()
        assert pipeline_digests(FmriToImagePipeline.from_pretrained(folder)) == pipeline_digests(pipeline)

    def test_a_variant_comes_back(self, saved, tmp_path):
        pipeline, _ = saved
        pipeline.save_pretrained(tmp_path / "halves", variant="fp16")
        loaded = FmriToImagePipeline.from_pretrained(tmp_path / "halves", variant="fp16")
        assert pipeline_digests(loaded) == pipeline_digests(pipeline)

    def test_weights_of_a_variant_are_those_that_were_trained(self, saved, tmp_path):
        saved[0].save_pretrained(tmp_path / "halves", variant="fp16")
        TrainingRecord("linear", "a table", "0" * 64, "default", 0, ["train"], "average").save(tmp_path / "halves")
        loaded = FmriToImagePipeline.from_pretrained(tmp_path / "halves", variant="fp16")
        assert loaded.training_record.unknown_initial_models == []

    def test_a_variant_that_is_not_there_names_those_that_are(self, saved, tmp_path):
        pipeline, folder = saved
        pipeline.save_pretrained(tmp_path / "halves", variant="fp16")
        with pytest.raises(FmriModelsError, match="pass variant='fp16'"):
            FmriToImagePipeline.from_pretrained(tmp_path / "halves")
        with pytest.raises(FmriModelsError, match="pass variant='fp16'"):
            FmriToImagePipeline.from_pretrained(tmp_path / "halves", variant="bf16")
        with pytest.raises(
            FmriModelsError, match="no weights of the variant 'bf16'; there are weights without a variant"
        ):
            FmriToImagePipeline.from_pretrained(folder, variant="bf16")

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ({"dtype": "auto"}, (torch.float32, torch.float32)),
            ({"torch_dtype": {"brain_model": "float16"}}, (torch.float16, torch.float32)),
            ({"torch_dtype": {"default": "bfloat16", "image_generator": None}}, (torch.bfloat16, torch.bfloat16)),
            (
                {"device_map": "cpu", "low_cpu_mem_usage": True, "torch_dtype": "float16"},
                (torch.float16, torch.float16),
            ),
        ],
    )
    def test_usual_arguments_of_loading(self, saved, options, expected):
        loaded = FmriToImagePipeline.from_pretrained(saved[1], **options)
        assert (loaded.brain_model.dtype, loaded.image_generator.dtype) == expected
        assert (loaded.dtype, loaded.device.type) == (expected[0], "cpu")

    def test_arguments_that_cannot_be_are_true_sentences(self, saved):
        for options, message in (
            ({"dtype": torch.float16, "torch_dtype": torch.float32}, "give one of them"),
            ({"dtype": {"unet": torch.float16}}, "a dtype for 'unet', which is none of brain_model"),
            ({"device_map": {"": "cpu"}}, "as device_map; expected one device"),
            ({"device_map": "cuda:99"}, "'cuda:99', and this machine has"),
            ({"quantization_config": {"a": 1}}, "can't be loaded with quantization_config as given here"),
            ({"attn_implementation": "sdpa"}, "takes no 'attn_implementation'"),
            ({"use_safetensors": False}, "safetensors alone"),
        ):
            with pytest.raises(FmriModelsError, match=message) as caught:
                FmriToImagePipeline.from_pretrained(saved[1], **options)
            assert "damaged" not in str(caught.value) and "again" not in str(caught.value)

    def test_what_is_said_of_a_named_generator_reaches_it_when_it_is_loaded(self, saved):
        folder = saved[1]
        place = folder / "image_generator"
        options = {"dtype": {"image_generator": torch.float16, "default": torch.float32}}
        named = FmriToImagePipeline.from_pretrained(folder, image_generator_source=str(place), **options)
        assert named.components["image_generator"] is None and named.image_generator.dtype == torch.float16
        named = FmriToImagePipeline.from_pretrained(folder, image_generator_source=str(place)).to(torch.bfloat16)
        assert named.components["image_generator"] is None and named.image_generator.dtype == torch.bfloat16
        with pytest.raises(FmriModelsError, match="this machine has"):
            named.to("cuda:99")

    def test_the_former_name_of_dtype_means_the_same(self, saved):
        loaded = FmriToImagePipeline.from_pretrained(saved[1], torch_dtype=torch.float16)
        assert loaded.brain_model.dtype == torch.float16

    def test_what_is_no_place_is_a_sentence(self):
        for loaded in (FmriToImagePipeline, self.pipeline_class, type(self.make_pipeline().brain_model)):
            for place in ("x" * 5000, "a\0b", "/nonexist/a", "a/b/c", ""):
                with pytest.raises(FmriModelsError):
                    loaded.from_pretrained(place)

    def test_a_whole_pipeline_is_no_model(self, saved):
        with pytest.raises(FmriModelsError, match="subfolder='brain_model'"):
            type(saved[0].brain_model).from_pretrained(saved[1])

    def test_a_save_that_was_killed_leaves_the_old_pipeline_or_is_completed(self, saved):
        pipeline, folder = saved
        old = pipeline_digests(pipeline)
        with torch.no_grad():
            next(iter(pipeline.brain_model.parameters())).add_(1)
        assert killed_at(pipeline, folder, "commit")
        assert pipeline_digests(FmriToImagePipeline.from_pretrained(folder)) == old
        assert killed_at(pipeline, folder, "complete")
        assert pipeline_digests(FmriToImagePipeline.from_pretrained(folder)) == pipeline_digests(pipeline)

    @pytest.mark.parametrize("change", ["empty", "missing", "shape", "nan", "type"])
    def test_weights_that_are_not_whole_draw_nothing(self, saved, change):
        name = change_weights(saved[1] / "brain_model" / "model.safetensors", change)
        with pytest.raises(FmriModelsError, match=re.escape(name)):
            FmriToImagePipeline.from_pretrained(saved[1])

    def test_an_index_names_no_code(self, saved, tmp_path):
        _, folder = saved
        path = folder / "model_index.json"
        index = json.loads(path.read_text())
        mark = tmp_path / "mark"
        for place in (folder, folder / "brain_model", folder / "image_generator"):
            (place / "evil.py").write_text(f"open({str(mark)!r}, 'w')\nclass X: pass\nclass EvilPipeline: pass\n")
        for entry in (
            {"brain_model": ["evil", "X"]},
            {"processor": ["os", "system"]},
            {"image_generator": ["subprocess", "Popen"]},
            {"_class_name": ["evil", "EvilPipeline"]},
            {"_class_name": "StableDiffusionPipeline"},
            {"brain_model": "X"},
            {"brain_model": ["fmri_models", "load_state"]},
            {"unet": ["evil", "X"]},
            {"fmri_schema": "1"},
        ):
            path.write_text(json.dumps({**index, **entry}))
            for loader in (FmriToImagePipeline, self.pipeline_class):
                with pytest.raises(FmriModelsError):
                    loader.from_pretrained(folder)
            assert not mark.exists(), entry

    def test_a_full_disk_leaves_the_earlier_pipeline_as_it_was(self, saved, monkeypatch):
        pipeline, folder = saved
        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

        def full(*args: Any, **kwargs: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("fmri_models.processing_fmri.statistics_bytes", full)
        with pytest.raises(FmriModelsError, match="disk is full.*has been changed"):
            pipeline.save_pretrained(folder)
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
        assert [path.name for path in folder.parent.iterdir()] == [folder.name]
