"""MinD-Vis' pipeline."""

import torch

from fmri_models.generation.double_conditioned import DoubleConditionedImageGenerator
from fmri_models.models.mindvis import MindVisModel, MindVisPipeline
from tests.models.mindvis.test_modeling_mindvis import tiny_config
from tests.test_pipeline_common import PipelineTesterMixin, make_processor


class TestMindVisPipeline(PipelineTesterMixin):
    pipeline_class = MindVisPipeline

    def make_pipeline(self) -> MindVisPipeline:
        torch.manual_seed(0)
        generator = DoubleConditionedImageGenerator.for_stimuli(
            (3, 8, 8), block_out_channels=[8, 8], context_dim=8, num_context_tokens=3, attention_heads=2
        )
        spaces = {name: space.to_dict() for name, space in generator.learned_condition_spaces.items()}
        model = MindVisModel(tiny_config(**spaces))
        for parameter in [*model.parameters(), *generator.unet.parameters()]:
            parameter.data.normal_(std=0.2)
        return MindVisPipeline(model, make_processor(padding="wrap", patch_size=5), generator)
