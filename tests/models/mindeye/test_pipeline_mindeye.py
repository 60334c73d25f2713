"""MindEye's pipeline."""

import torch

from fmri_models.generation.pixels import PixelsImageGenerator
from fmri_models.models.mindeye import MindEyeModel, MindEyePipeline
from tests.models.mindeye.test_modeling_mindeye import tiny_config
from tests.test_pipeline_common import PipelineTesterMixin, make_processor


class TestMindEyePipeline(PipelineTesterMixin):
    pipeline_class = MindEyePipeline

    def make_pipeline(self) -> MindEyePipeline:
        torch.manual_seed(0)
        generator = PixelsImageGenerator(3, 4, 4)
        config = tiny_config(
            image_embedding_space=generator.image_embedding_space.to_dict(),
            latent_space=generator.latent_space.to_dict(),
        )
        model = MindEyeModel(config)
        for parameter in model.parameters():
            parameter.data.normal_(std=0.2)
        return MindEyePipeline(model, make_processor(), generator)

    def test_candidates_are_chosen_by_what_the_brain_says(self):
        pipeline = self.make_pipeline()
        generator = torch.Generator().manual_seed(0)
        output = pipeline(
            self.make_betas(), subject="subj05", num_candidates=4, strength=1.0, generator=generator, output_type="pt"
        )
        assert [len(candidates) for candidates in output.candidates] == [4, 4, 4]
        assert output.image_embeds.shape == (12, 16, 3)
        assert output.scores.shape == (3, 4)
        best = output.image_embeds.unflatten(0, (3, 4))[torch.arange(3), output.scores.argmax(dim=1)]
        expected = pipeline.image_generator(image_embeds=best, output_type="pt").images
        torch.testing.assert_close(output.images, expected)
