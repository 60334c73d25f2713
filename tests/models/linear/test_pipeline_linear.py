"""The linear method's pipeline."""

import torch

from fmri_models.generation.pixels import PixelsImageGenerator
from fmri_models.models.linear import LinearConfig, LinearModel, LinearPipeline
from tests.generation.test_embedded import tiny_generator
from tests.test_modeling_common import NUM_VOXELS, SUBJECTS
from tests.test_pipeline_common import MethodHabits, PipelineTesterMixin, make_processor


class TestLinearPipeline(PipelineTesterMixin):
    pipeline_class = LinearPipeline

    def make_pipeline(self) -> LinearPipeline:
        torch.manual_seed(0)
        generator = PixelsImageGenerator(3, 4, 4)
        config = LinearConfig(
            subject_names=list(SUBJECTS), num_voxels=list(NUM_VOXELS), latent_space=generator.latent_space.to_dict()
        )
        model = LinearModel(config)
        for parameter in model.parameters():
            parameter.data.normal_(std=0.2)
        return LinearPipeline(model, make_processor(), generator)


class TestLinearPipelineThatDenoises(MethodHabits):
    """With a generator that draws step by step, of embeddings and latents."""

    def make_pipeline(self) -> LinearPipeline:
        torch.manual_seed(0)
        generator = tiny_generator(with_unet=True)
        spaces = ("image_embedding_space", "text_embedding_space", "latent_space")
        config = LinearConfig(
            subject_names=list(SUBJECTS),
            num_voxels=list(NUM_VOXELS),
            **{name: getattr(generator, name).to_dict() for name in spaces},
        )
        model = LinearModel(config)
        for parameter in model.parameters():
            parameter.data.normal_(std=0.2)
        return LinearPipeline(model, make_processor(), generator)

    def test_each_chunk_takes_all_its_steps(self, monkeypatch):
        monkeypatch.setattr("fmri_models.pipeline_fmri._IMAGES_A_CHUNK", 2)
        pipeline = self.make_pipeline()
        expected, seen = self.drawn_by(pipeline, 3), []

        def callback(given, step, timestep, tensors):
            seen.append((step, len(tensors["latents"]), given.guidance_scale))
            given._guidance_scale = 1.0
            return tensors

        pictures = self.drawn_by(pipeline, 3, num_inference_steps=4, strength=1.0, callback_on_step_end=callback)
        assert pictures.shape == expected.shape
        scales = [2.0, 1.0, 1.0, 1.0]
        assert seen == [(step, size, scales[step]) for size in (2, 1) for step in range(4)]

    def test_what_had_not_begun_stops_after_its_first_step(self, monkeypatch):
        monkeypatch.setattr("fmri_models.pipeline_fmri._IMAGES_A_CHUNK", 2)
        pipeline, calls = self.make_pipeline(), []
        pipeline.image_generator.unet.register_forward_pre_hook(lambda *arguments: calls.append(1))

        def callback(given, step, timestep, tensors):
            given._interrupt = step == 1

        options = {"num_inference_steps": 5, "strength": 1.0, "callback_on_step_end": callback}
        assert len(self.drawn_by(pipeline, 4, **options)) == 4
        assert len(calls) == 2 + 1
