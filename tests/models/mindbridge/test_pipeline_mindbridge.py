"""MindBridge's pipeline."""

import torch

from fmri_models.generation.pixels import PixelsImageGenerator
from fmri_models.models.mindbridge import MindBridgeModel, MindBridgePipeline
from tests.models.mindbridge.test_modeling_mindbridge import tiny_config
from tests.test_pipeline_common import PipelineTesterMixin, make_processor


class TestMindBridgePipeline(PipelineTesterMixin):
    pipeline_class = MindBridgePipeline

    def make_pipeline(self) -> MindBridgePipeline:
        torch.manual_seed(0)
        generator = PixelsImageGenerator(3, 4, 4)
        config = tiny_config(image_embedding_space=generator.image_embedding_space.to_dict(), text_embedding_space=None)
        model = MindBridgeModel(config)
        for parameter in model.parameters():
            parameter.data.normal_(std=0.2)
        return MindBridgePipeline(model, make_processor(), generator)
