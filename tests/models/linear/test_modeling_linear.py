"""The linear model: the common tests, and what is its own."""

from typing import Any

import torch

from fmri_models.models.linear import LinearConfig, LinearModel
from tests.test_modeling_common import NUM_VOXELS, SUBJECTS, ModelTesterMixin


def tiny_config(subject_names: list[str], num_voxels: list[int], **options: Any) -> LinearConfig:
    return LinearConfig(
        subject_names=subject_names,
        num_voxels=num_voxels,
        image_embedding_space={"encoder": "tiny", "layer": "tokens", "shape": [3, 5]},
        latent_space={"encoder": "tiny", "layer": "latent", "shape": [2, 4, 4]},
        targets_a_block=6,
        **options,
    )


class TestLinearModel(ModelTesterMixin):
    model_class = LinearModel

    def make_config(self, subject_names: list[str], num_voxels: list[int]) -> LinearConfig:
        return tiny_config(subject_names, num_voxels)

    def test_blocks_together_are_one_linear_map(self):
        model = self.make_model()
        head = model.head("image_embeds", "subj02")
        assert [block.out_features for block in head.blocks] == [6, 6, 3]
        weight = torch.cat([block.weight for block in head.blocks])
        bias = torch.cat([block.bias for block in head.blocks])
        fmri = torch.randn(4, NUM_VOXELS[SUBJECTS.index("subj02")])
        torch.testing.assert_close(head(fmri), fmri @ weight.T + bias)

    def test_a_new_model_predicts_nothing(self):
        model = LinearModel(self.make_config(list(SUBJECTS), list(NUM_VOXELS)))
        assert model(self.make_fmri(SUBJECTS), SUBJECTS).latents.abs().sum() == 0


class TestSelectedLinearModel(ModelTesterMixin):
    """The same where each unit of the embeddings reads a few voxels of its own."""

    model_class = LinearModel

    def make_config(self, subject_names: list[str], num_voxels: list[int]) -> LinearConfig:
        return tiny_config(subject_names, num_voxels, voxels_per_target={"image_embeds": 5})

    def make_model(self) -> LinearModel:
        model = super().make_model()
        drawn = torch.Generator().manual_seed(3)
        for name, indices in model.named_buffers():
            if name.endswith("indices"):
                width = NUM_VOXELS[int(name.split(".")[2])] if name.split(".")[2].isdigit() else min(NUM_VOXELS)
                chosen = [torch.randperm(width, generator=drawn)[:5].sort().values for _ in range(len(indices))]
                indices.copy_(torch.stack(chosen))
        return model

    def test_positions_and_weights_are_what_is_stored(self):
        model = self.make_model()
        state = {name: values for name, values in model.state_dict().items() if "image_embeds" in name}
        assert {values.dtype for name, values in state.items() if name.endswith("indices")} == {torch.int32}
        assert {values.shape[1] for name, values in state.items() if name.endswith(("indices", "weight"))} == {5}
