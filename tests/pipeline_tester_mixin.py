"""What every pipeline has to pass, a method's and an image generator's alike: the habits of diffusers' users.

diffusers' distribution carries no tests of its pipelines; these ask for the same properties. A test class derives from
[`PipelineHabits`], or from [`DrawingHabits`] where its pipeline draws pictures.
"""

import tempfile
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import cpu_offload, disk_offload
from accelerate.hooks import ModelHook, add_hook_to_module
from diffusers import DiffusionPipeline
from diffusers.callbacks import PipelineCallback
from diffusers.models.attention_processor import Attention

from fmri_models import FmriToImagePipeline
from fmri_models.errors import FmriModelsError
from tests.stored_numbers import check_numbers

# Rounding of another order of summation.
TOLERANCE = {"atol": 1e-4, "rtol": 1e-4}
OFFLOADS = pytest.mark.parametrize("offload", ["enable_model_cpu_offload", "enable_sequential_cpu_offload"])
HALF = pytest.mark.parametrize("dtype", [torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.slow)])


def seeds(*numbers: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(number) for number in numbers]


def networks_of(pipeline: DiffusionPipeline) -> list[torch.nn.Module]:
    """All networks, those of an image generator among the components, too."""
    found: list[torch.nn.Module] = []
    for component in pipeline.components.values():
        if isinstance(component, torch.nn.Module):
            found.append(component)
        elif isinstance(component, DiffusionPipeline):
            found += networks_of(component)
    return found


class Recorded(ModelHook):
    """Notes that the weights of a module were asked for, by a forward or by something beside it."""

    def __init__(self) -> None:
        self.calls = 0

    def pre_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        self.calls += 1
        return args, kwargs


class PipelineHabits:
    """Implement `make_pipeline` and `computed`."""

    def make_pipeline(self) -> Any:
        """A tiny pipeline with all its components, the same at every call."""
        raise AssertionError("the test class makes a pipeline")

    def computed(self, pipeline: Any) -> dict[str, torch.Tensor]:
        """Everything that a pipeline computes, of the same inputs and the same noise at every call."""
        raise AssertionError("the test class says what is computed")

    def assert_computes(self, pipeline: Any, expected: dict[str, torch.Tensor]) -> None:
        found = self.computed(pipeline)
        assert found.keys() == expected.keys()
        for name, values in expected.items():
            torch.testing.assert_close(found[name], values, **TOLERANCE, msg=lambda text, name=name: f"{name}: {text}")

    def test_numbers_are_those_that_were_stored(self):
        computed = self.computed(self.make_pipeline())
        check_numbers(f"pipelines/{type(self).__name__.removeprefix('Test')}", computed)

    def test_its_components_make_another_one(self):
        pipeline = self.make_pipeline()
        expected = self.computed(pipeline)
        again = type(pipeline)(**pipeline.components, **pipeline.parameters)
        assert again.components == pipeline.components
        self.assert_computes(again, expected)

    def test_another_one_is_made_from_it(self):
        pipeline = self.make_pipeline()
        expected = self.computed(pipeline)
        again = type(pipeline).from_pipe(pipeline)
        assert again is not pipeline
        assert all(again.components[name] is component for name, component in pipeline.components.items())
        self.assert_computes(again, expected)
        self.assert_computes(pipeline, expected)

    def test_it_is_shown_by_its_class_and_components(self):
        pipeline = self.make_pipeline()
        shown = repr(pipeline)
        assert shown.startswith(type(pipeline).__name__)
        assert all(name in shown for name in pipeline.components)

    def test_saved_and_loaded_it_computes_the_same(self, tmp_path):
        pipeline = self.make_pipeline()
        pipeline.save_pretrained(tmp_path / "plain")
        pipeline.save_pretrained(tmp_path / "halves", variant="fp16")
        loads = [(tmp_path / "plain", {}), (tmp_path / "halves", {"variant": "fp16"})]
        for folder, options in [*loads, (tmp_path / "plain", {"device_map": "cpu"})]:
            loaded = type(pipeline).from_pretrained(folder, **options)
            assert type(loaded) is type(pipeline)
            self.assert_computes(loaded, self.computed(pipeline))

    def test_optional_components_that_are_none_stay_none(self, tmp_path):
        pipeline = self.make_pipeline()
        for name in pipeline._optional_components:
            setattr(pipeline, name, None)
        pipeline.save_pretrained(tmp_path / "pipeline")
        loaded = type(pipeline).from_pretrained(tmp_path / "pipeline")
        assert [getattr(loaded, name) for name in loaded._optional_components] == [None] * len(
            loaded._optional_components
        )

    @HALF
    def test_every_component_is_cast(self, dtype, tmp_path):
        pipeline = self.make_pipeline()
        pipeline.save_pretrained(tmp_path / "pipeline")
        loaded = [type(pipeline).from_pretrained(tmp_path / "pipeline", **{n: dtype}) for n in ("dtype", "torch_dtype")]
        for cast in (pipeline.to(dtype), *loaded, self.make_pipeline().to("cpu", dtype), pipeline.to(dtype=dtype)):
            casts = [each for each in cast.components.values() if getattr(each, "dtype", None) is not None]
            assert {each.dtype for each in (cast, *casts)} == {dtype}
            parameters = [values for network in networks_of(cast) for values in network.parameters()]
            assert {values.dtype for values in parameters} <= {dtype}
        for name, values in self.computed(pipeline).items():
            assert torch.isfinite(values).all(), name

    def test_it_says_where_it_is(self):
        pipeline = self.make_pipeline()
        assert pipeline.to("cpu") is pipeline
        assert pipeline.device == torch.device("cpu")
        assert pipeline.dtype == torch.float32

    @OFFLOADS
    def test_offloaded_it_computes_the_same(self, offload):
        expected = self.computed(self.make_pipeline())
        pipeline = self.make_pipeline()
        for _ in range(2):
            getattr(pipeline, offload)(device="cpu")
            assert pipeline._execution_device.type == "cpu"
            self.assert_computes(pipeline, expected)
        offloaded = [network for network in networks_of(pipeline) if not self.stays(pipeline, network)]
        assert all(hasattr(network, "_hf_hook") for network in offloaded)
        if offload == "enable_sequential_cpu_offload":
            assert {values.device.type for network in offloaded for values in network.parameters()} <= {"meta"}
        pipeline.remove_all_hooks()
        assert not any(hasattr(network, "_hf_hook") for network in networks_of(pipeline))
        self.assert_computes(pipeline, expected)

    @staticmethod
    def stays(pipeline: Any, network: torch.nn.Module) -> bool:
        """Whether a network is small enough to stay where it computes."""
        inner = [each for each in pipeline.components.values() if isinstance(each, DiffusionPipeline)]
        pipelines = [pipeline, *inner]
        return any(getattr(each, name) is network for each in pipelines for name in each._exclude_from_cpu_offload)

    def test_nothing_is_computed_past_a_networks_hook(self):
        """What a GPU would notice: a network whose forward is never called stays on the CPU."""
        pipeline = self.make_pipeline()
        hooks = {}
        for network in networks_of(pipeline):
            hooks[type(network).__name__] = add_hook_to_module(network, Recorded())._hf_hook
        self.computed(pipeline)
        # Blocks and attentions of these work inside of another network.
        assert [name for name, hook in hooks.items() if hook.calls == 0 and name not in self.inside_of_others] == []

    inside_of_others = ("StableUnCLIPImageNormalizer", "UNetFlatConditionModel")

    @pytest.mark.slow
    @pytest.mark.parametrize("where", ["cpu", "disk"])
    def test_accelerates_own_offload_computes_the_same(self, where):
        expected = self.computed(self.make_pipeline())
        pipeline = self.make_pipeline()
        with tempfile.TemporaryDirectory() as folder:
            for index, network in enumerate(networks_of(pipeline)):
                if self.stays(pipeline, network):
                    continue
                if where == "cpu":
                    cpu_offload(network, execution_device=torch.device("cpu"))
                else:
                    disk_offload(network, f"{folder}/{index}", execution_device=torch.device("cpu"))
            self.assert_computes(pipeline, expected)

    def test_a_device_map_is_reset(self):
        pipeline = self.make_pipeline()
        expected = self.computed(pipeline)
        pipeline.hf_device_map = {"": "cpu"}
        pipeline.reset_device_map()
        assert pipeline.hf_device_map is None
        self.assert_computes(pipeline, expected)

    def test_attention_in_slices_computes_the_same(self):
        pipeline = self.make_pipeline()
        expected = self.computed(pipeline)
        for slice_size in ("auto", 1, "max"):
            pipeline.enable_attention_slicing(slice_size)
            self.assert_computes(pipeline, expected)
        pipeline.disable_attention_slicing()
        self.assert_computes(pipeline, expected)

    def test_xformers_ends_as_in_diffusers(self):
        pipeline = self.make_pipeline()
        has_attention = any(
            isinstance(module, Attention) for network in networks_of(pipeline) for module in network.modules()
        )
        if not has_attention:
            pipeline.enable_xformers_memory_efficient_attention()
            return
        with pytest.raises((ModuleNotFoundError, ValueError), match="xformers|memory_efficient_attention"):
            pipeline.enable_xformers_memory_efficient_attention()


class DrawingHabits(PipelineHabits):
    """Implement `inputs`, too."""

    # Whether one picture's noise is drawn from the source of all; a pipeline without noise draws the same from any.
    def inputs(self, pipeline: Any, num_images: int) -> dict[str, Any]:
        """What a call of so many pictures is given, noise by picture included."""
        raise AssertionError("the test class makes inputs")

    def of_one(self, inputs: dict[str, Any], index: int) -> dict[str, Any]:
        """The inputs of one picture."""
        several = (torch.Tensor, np.ndarray, list)
        return {name: v[index : index + 1] if isinstance(v, several) else v for name, v in inputs.items()}

    def drawn_by(self, pipeline: Any, num_images: int = 2, **options: Any) -> Any:
        return pipeline(**(self.inputs(pipeline, num_images) | {"output_type": "pt"} | options)).images

    @staticmethod
    def generator_of(pipeline: Any) -> Any:
        return pipeline.image_generator if isinstance(pipeline, FmriToImagePipeline) else pipeline

    def test_a_tuple_holds_what_the_output_holds(self):
        pipeline = self.make_pipeline()
        output = pipeline(**self.inputs(pipeline, 2), output_type="pt")
        items = pipeline(**self.inputs(pipeline, 2), output_type="pt", return_dict=False)
        assert isinstance(items, tuple)
        assert len(items) == len(output.to_tuple())
        for item, expected in zip(items, output.to_tuple(), strict=True):
            torch.testing.assert_close(item, expected)
        assert items[0] is not None and torch.equal(items[0], output.images)

    def test_output_types_agree(self):
        pipeline = self.make_pipeline()
        tensor = self.drawn_by(pipeline)
        assert tensor.dtype == torch.float32
        assert tensor.min() >= 0 and tensor.max() <= 1
        array = self.drawn_by(pipeline, output_type="np")
        np.testing.assert_allclose(array, tensor.permute(0, 2, 3, 1).numpy(), atol=1e-6)
        pictures = self.drawn_by(pipeline, output_type="pil")
        levels = np.stack([np.asarray(picture) for picture in pictures]).reshape(array.shape)
        assert np.abs(levels / 255 - array).max() <= 0.5 / 255 + 1e-6

    def test_latents_are_those_that_the_pictures_are_decoded_from(self):
        pipeline = self.make_pipeline()
        generator = self.generator_of(pipeline)
        latents = self.drawn_by(pipeline, output_type="latent")
        assert latents.shape == (2, *generator.latent_space.shape)
        decoded = generator(latents=latents, strength=0.0, output_type="pt").images
        torch.testing.assert_close(decoded, self.drawn_by(pipeline), **TOLERANCE)

    def test_an_output_type_that_there_is_none_of_is_a_sentence(self):
        pipeline = self.make_pipeline()
        with pytest.raises(FmriModelsError, match="output_type is 'jpg'; expected 'pil', 'np', 'pt' or 'latent'"):
            self.drawn_by(pipeline, output_type="jpg")
        with pytest.raises(FmriModelsError, match="output_type is None"):
            self.drawn_by(pipeline, output_type=None)

    def test_a_callback_sees_what_it_asks_for(self):
        pipeline = self.make_pipeline()
        expected, seen = self.drawn_by(pipeline), []

        def callback(given: Any, step: int, timestep: torch.Tensor, tensors: dict[str, Any]) -> dict[str, Any]:
            assert given is pipeline
            assert isinstance(timestep, torch.Tensor)
            seen.append((step, pipeline.num_timesteps, list(tensors)))
            return tensors

        for names in (["latents"], list(pipeline._callback_tensor_inputs), []):
            seen.clear()
            options = {"callback_on_step_end": callback, "callback_on_step_end_tensor_inputs": names}
            torch.testing.assert_close(self.drawn_by(pipeline, **options), expected, **TOLERANCE)
            count = pipeline.num_timesteps
            assert seen == [(step, count, names) for step in range(count)]
            assert count >= 1

    def test_a_callback_that_returns_nothing_or_deletes_changes_nothing(self):
        pipeline = self.make_pipeline()
        expected = self.drawn_by(pipeline)

        def deletes(pipeline: Any, step: int, timestep: torch.Tensor, tensors: dict[str, Any]) -> dict[str, Any]:
            tensors.pop("latents")
            return tensors

        for callback in (deletes, lambda *arguments: None, lambda *arguments: {"other": 1}):
            torch.testing.assert_close(self.drawn_by(pipeline, callback_on_step_end=callback), expected)

    def test_changed_latents_are_drawn(self):
        pipeline = self.make_pipeline()

        def callback(given: Any, step: int, timestep: torch.Tensor, tensors: dict[str, Any]) -> dict[str, Any]:
            if step == given.num_timesteps - 1:
                tensors["latents"] = torch.zeros_like(tensors["latents"])
            return tensors

        for names in (["latents"], pipeline._callback_tensor_inputs):
            options = {"callback_on_step_end": callback, "callback_on_step_end_tensor_inputs": names}
            assert self.drawn_by(pipeline, output_type="latent", **options).abs().sum() == 0

    def test_what_a_callback_changes_in_place_is_drawn_and_is_not_what_was_decoded(self):
        pipeline = self.make_pipeline()
        inputs = self.inputs(pipeline, 2) | {"output_type": "pt"}
        tensors_before = {name: value.clone() for name, value in inputs.items() if isinstance(value, torch.Tensor)}

        def callback(given: Any, step: int, timestep: torch.Tensor, tensors: dict[str, Any]) -> dict[str, Any]:
            for values in tensors.values():
                if values is not None:
                    values.zero_()
            return {}

        expected = pipeline(**self.inputs(pipeline, 2), output_type="pt")
        names = list(pipeline._callback_tensor_inputs)
        found = pipeline(**inputs, callback_on_step_end=callback, callback_on_step_end_tensor_inputs=names)
        assert not torch.equal(found.images, expected.images)
        for name in ("image_embeds", "text_embeds", "low_level_images"):
            if getattr(expected, name, None) is not None:
                torch.testing.assert_close(getattr(found, name), getattr(expected, name))
        for name, before in tensors_before.items():
            assert torch.equal(inputs[name], before)

    def test_what_is_no_variants_name_is_a_sentence(self, tmp_path):
        pipeline = self.make_pipeline()
        for each in {pipeline, getattr(pipeline, "brain_model", pipeline), self.generator_of(pipeline)}:
            for variant in ("", "*", "../x", "safetensors", 16):
                with pytest.raises(FmriModelsError, match="The variant is .*; expected letters and digits"):
                    each.save_pretrained(tmp_path / "saved", variant=variant)
        assert not list(tmp_path.iterdir())

    def test_changed_embeddings_are_drawn(self):
        pipeline = self.make_pipeline()
        names = ["image_embeds", "text_embeds", "encoder_hidden_states", "time_embeds"]

        def callback(given: Any, step: int, timestep: torch.Tensor, tensors: dict[str, Any]) -> dict[str, Any]:
            return {name: None if values is None else -values for name, values in tensors.items()}

        options = {"callback_on_step_end": callback, "callback_on_step_end_tensor_inputs": names}
        changed, expected = self.drawn_by(pipeline, **options), self.drawn_by(pipeline)
        # With a single step, it is over when they change.
        assert torch.equal(changed, expected) == (pipeline.num_timesteps == 1)

    def test_a_callback_interrupts(self):
        pipeline = self.make_pipeline()
        steps: list[int] = []

        def callback(given: Any, step: int, timestep: torch.Tensor, tensors: dict[str, Any]) -> dict[str, Any]:
            steps.append(step)
            given._interrupt = True
            return tensors

        assert self.drawn_by(pipeline, callback_on_step_end=callback).shape[0] == 2
        assert steps == [0]
        assert pipeline.interrupt
        self.drawn_by(pipeline)
        assert not pipeline.interrupt

    def test_a_callback_changes_the_guidance(self):
        pipeline = self.make_pipeline()

        def callback(given: Any, step: int, timestep: torch.Tensor, tensors: dict[str, Any]) -> dict[str, Any]:
            given._guidance_scale += 1.0
            return tensors

        self.drawn_by(pipeline, guidance_scale=2.0, callback_on_step_end=callback)
        assert pipeline.guidance_scale == 2.0 + pipeline.num_timesteps
        assert pipeline.do_classifier_free_guidance
        self.drawn_by(pipeline, guidance_scale=1.0)
        assert pipeline.guidance_scale == 1.0
        assert not pipeline.do_classifier_free_guidance

    def test_a_callback_object_names_its_tensors(self):
        pipeline = self.make_pipeline()
        given: list[list[str]] = []

        class Embeds(PipelineCallback):
            tensor_inputs = ["image_embeds"]

            def callback_fn(self, pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
                given.append(list(tensors))
                return tensors

        self.drawn_by(pipeline, callback_on_step_end=Embeds())
        assert given == [["image_embeds"]] * pipeline.num_timesteps

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (
                {"callback_on_step_end_tensor_inputs": ["prompt"]},
                "has 'prompt'; expected names of latents",
            ),
            ({"callback_on_step_end_tensor_inputs": "latents"}, "is 'latents'; expected a list of names"),
            ({"callback_on_step_end": 3}, "callback_on_step_end is a int; expected a function"),
            ({"callback_on_step_end": lambda *arguments: 3}, "returned a int; expected the mapping"),
            ({"callback_on_step_end": lambda *arguments: {"latents": None}}, "returned latents as a NoneType"),
            ({"callback_on_step_end": lambda *arguments: {"latents": torch.zeros(2)}}, r"returned latents as \(2,\)"),
            ({"callback_on_step_end": lambda *arguments: {"latents": 1.0}}, "returned latents as a float"),
        ],
    )
    def test_wrong_callbacks_are_sentences(self, options, message):
        with pytest.raises(FmriModelsError, match=message):
            self.drawn_by(self.make_pipeline(), **options)

    def test_a_source_of_noise_for_each_picture(self):
        pipeline = self.make_pipeline()
        inputs = self.inputs(pipeline, 3)
        together = pipeline(**inputs, output_type="pt").images
        inputs = self.inputs(pipeline, 3)
        for index in range(3):
            alone = pipeline(**self.of_one(inputs, index), output_type="pt").images
            torch.testing.assert_close(alone[0], together[index], atol=1e-3, rtol=1e-3)
        for number in (1, 2, 4):
            with pytest.raises(FmriModelsError, match=rf"(one generator was|{number} generators were) given for 3 "):
                pipeline(**(self.inputs(pipeline, 3) | {"generator": seeds(*range(number))}))

    def test_the_common_seed_counts_where_no_source_is_given(self):
        pipeline = self.make_pipeline()
        drawn = []
        for source in (None, None, torch.manual_seed(7)):
            torch.manual_seed(7)
            drawn.append(self.drawn_by(pipeline, generator=source))
        assert torch.equal(drawn[0], drawn[1])
        assert torch.equal(drawn[0], drawn[2])

    def test_nothing_is_learned_while_drawing(self):
        pipeline = self.make_pipeline()
        assert not self.drawn_by(pipeline).requires_grad
        assert not self.drawn_by(pipeline, output_type="latent").requires_grad

    def test_the_bar_is_shown_or_silent(self, capsys):
        pipeline = self.make_pipeline()
        pipeline.set_progress_bar_config(disable=True)
        self.drawn_by(pipeline)
        assert capsys.readouterr().err == ""
        pipeline.set_progress_bar_config(disable=False, desc="Ours")
        self.drawn_by(pipeline)
        shown = capsys.readouterr().err
        assert ("Ours" in shown) == (isinstance(pipeline, FmriToImagePipeline) or pipeline.num_timesteps > 1)
        bar = pipeline.progress_bar(total=3)
        assert (bar.desc or "").startswith("Ours")
        bar.close()
