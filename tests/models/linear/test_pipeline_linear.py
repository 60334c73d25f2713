"""The linear method's pipeline."""

import torch

from fmri_models.generation.pixels import PixelsImageGenerator
from fmri_models.models.linear import LinearConfig, LinearModel, LinearPipeline
from tests.test_modeling_common import NUM_VOXELS, SUBJECTS
from tests.test_pipeline_common import PipelineTesterMixin, make_processor


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
