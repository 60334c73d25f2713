"""MinD-Vis' models: the common tests, the original's numbers, and what is their own."""

import weakref
from typing import Any, ClassVar

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fmri_models.errors import FmriModelsError
from fmri_models.models.mindvis import MindVisConfig, MindVisEncoder, MindVisForPreTraining, MindVisModel
from fmri_models.models.mindvis.layers_mindvis import MindVisLayer, computed_again, patches_of, sincos_positions
from fmri_models.models.mindvis.pretraining_mindvis import masking_noise, num_kept
from tests.models.mindvis.original import HEADS, original, state_dict
from tests.test_modeling_common import SUBJECTS, ModelTesterMixin, SuiteCase

WIDTHS = [20, 20, 20]
PATCHES, PATCH_SIZE = 4, 5
SPACES = {
    "encoder_hidden_states_space": {"encoder": "learned", "layer": "encoder_hidden_states", "shape": [4, 6]},
    "time_embeds_space": {"encoder": "learned", "layer": "time_embeds", "shape": [8]},
}
SIZES: dict[str, Any] = {
    "patch_size": PATCH_SIZE,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "decoder_hidden_size": 8,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "mask_ratio": 0.6,
}
# transformers' tests make the noise of masked models of as many patches as pictures of that size would have.
PICTURE = {"image_size": 2 * PATCH_SIZE, "patch_size": PATCH_SIZE}
DEPTH = {"num_hidden_layers": 2, "seq_length": PATCHES, "hidden_size": 12, "num_attention_heads": 2, **PICTURE}


def tiny_config(**options: Any) -> MindVisConfig:
    return MindVisConfig(**{"subject_names": list(SUBJECTS), "num_voxels": WIDTHS, **SPACES, **SIZES, **options})


def tiny_model(**options: Any) -> MindVisModel:
    torch.manual_seed(0)
    return MindVisModel(tiny_config(**options)).eval()


def tiny_fmri(examples: int = 3) -> torch.Tensor:
    return torch.randn(examples, WIDTHS[0], generator=torch.Generator().manual_seed(3))


def some_noise(examples: int = 3) -> torch.Tensor:
    return torch.rand(examples, PATCHES, generator=torch.Generator().manual_seed(4))


class TestMindVisModel(ModelTesterMixin):
    model_class = MindVisModel
    num_voxels: ClassVar = WIDTHS
    depth: ClassVar = DEPTH
    has_attentions = True
    # That of the conditions is the image generator's.
    loss_reaches_all = False

    def make_config(self, subject_names: list[str], num_voxels: list[int]) -> MindVisConfig:
        return tiny_config(subject_names=subject_names, num_voxels=num_voxels)

    def make_targets(self, model: Any, batch_size: int) -> dict[str, torch.Tensor]:
        return {"noise": some_noise(batch_size)}

    def test_every_parameter_gets_a_gradient(self):
        model = self.make_model().train()
        output = model(self.make_fmri(SUBJECTS), noise=some_noise())
        conditions = [each.square().sum() for each in model.conditions(self.make_fmri(SUBJECTS)).given.values()]
        (output.loss + torch.stack(conditions).sum()).backward()
        without = [name for name, each in model.named_parameters() if each.requires_grad and not each.grad.abs().sum()]
        assert not without


class TestMindVisModelPooled(TestMindVisModel):
    """One token of the mean, and no time condition."""

    def make_config(self, subject_names: list[str], num_voxels: list[int]) -> MindVisConfig:
        space = {**SPACES["encoder_hidden_states_space"], "shape": [1, 6]}
        return tiny_config(
            subject_names=subject_names,
            num_voxels=num_voxels,
            global_pool=True,
            encoder_hidden_states_space=space,
            time_embeds_space=None,
        )


class EncoderCase(SuiteCase):
    model_class = MindVisEncoder
    num_voxels: ClassVar = WIDTHS
    depth: ClassVar = DEPTH
    has_attentions = True

    def make_config(self, subject_names: list[str], num_voxels: list[int]) -> MindVisConfig:
        return tiny_config(subject_names=subject_names, num_voxels=num_voxels)

    def make_inputs(self) -> dict[str, torch.Tensor]:
        return {"fmri": tiny_fmri()}


class PreTrainingCase(EncoderCase):
    model_class = MindVisForPreTraining
    depth: ClassVar = PICTURE
    has_attentions = False

    def make_inputs(self) -> dict[str, torch.Tensor]:
        return {"fmri": tiny_fmri(), "noise": some_noise()}


class TestOriginalNumbers:
    @pytest.mark.parametrize("name", ["mae_tiny", "mae_mask0"])
    def test_masked_modelling(self, name):
        tensors, description = original(name)
        model = MindVisForPreTraining.from_original(state_dict(tensors), **HEADS)
        fmri = tensors["in.fmri"][:, 0]
        output = model(fmri, noise=tensors["in.noise"], mask_ratio=description["mask_ratio"])
        assert torch.equal(output.mask, tensors["out.mask"])
        assert torch.equal(output.ids_restore, tensors["out.ids_restore"])
        patches = patches_of(fmri, 16)
        assert torch.equal(patches, tensors["out.patches"])
        close(model.encoder.patch_embed(patches), tensors["out.patch_embed"])
        close(output.latent, tensors["out.latent"])
        close(output.prediction, tensors["out.pred"])
        close(output.loss[None], tensors["out.loss"])
        output.loss.backward()
        first = model.encoder.layers[0].attention.qkv
        close(model.encoder.cls_token.grad, tensors["grad.cls_token"])
        close(model.decoder.mask_token.grad, tensors["grad.mask_token"])
        close(model.encoder.patch_embed.weight.grad, tensors["grad.patch_embed.proj.weight"][:, 0])
        close(first.weight.grad, tensors["grad.blocks.0.attn.qkv.weight"])
        close(model.decoder.embed.weight.grad, tensors["grad.decoder_embed.weight"])
        close(model.decoder.prediction.weight.grad, tensors["grad.decoder_pred.weight"])

    def test_conditioning_encoder_before_and_after_loading_other_lengths(self):
        tensors, _ = original("fmri_encoder_globalpool_False")
        fmri = tensors["in.fmri"][:, 0]
        before = state_dict(tensors)
        del before["mask_token"]
        encoder = MindVisEncoder.from_original(before, num_attention_heads=4)
        close(encoder(fmri).last_hidden_state, tensors["out.before_load"])
        pretrained = state_dict(tensors, "mae.sd.")
        encoder = MindVisEncoder.from_original(pretrained, num_attention_heads=4, num_voxels=[192])
        assert torch.equal(encoder.position_embeddings, tensors["after.sd.pos_embed"])
        close(encoder(fmri).last_hidden_state, tensors["out.after_load"])

    def test_conditioner(self):
        tensors, _ = original("cond_stage_globalpool_False")
        model = MindVisModel.from_original(state_dict(tensors), num_attention_heads=4)
        fmri = tensors["in.fmri"][:, 0]
        tokens = model.encoder(fmri).last_hidden_state
        close(tokens, tensors["out.encoder_tokens"])
        close(model.conditioner.channel_mapper(tokens), tensors["out.after_channel_mapper"])
        output = model(fmri)
        close(output.encoder_hidden_states, tensors["out.context"])
        assert output.time_condition is None

    def test_codes_of_places(self):
        tensors, _ = original("tables")
        with_class = sincos_positions(8, 32)[0]
        torch.testing.assert_close(with_class, tensors["pos_table_d32_n8_cls"], rtol=0, atol=1e-12)
        torch.testing.assert_close(sincos_positions(4, 1024)[0, 1:], tensors["pos_table_d1024_n4"], rtol=0, atol=1e-12)


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


class TestAttentions:
    def test_both_ways_of_computing_agree_and_the_weights_are_those_that_were_used(self):
        model = tiny_model()
        usual = model(tiny_fmri())
        looked_into = model(tiny_fmri(), output_attentions=True)
        torch.testing.assert_close(looked_into.encoder_hidden_states, usual.encoder_hidden_states)
        assert usual.attentions is None
        assert [each.shape for each in looked_into.attentions] == [(3, 2, PATCHES, PATCHES)] * 2
        for weights in looked_into.attentions:
            torch.testing.assert_close(weights.sum(dim=-1), torch.ones(3, 2, PATCHES))
        model.set_attn_implementation("eager")
        torch.testing.assert_close(model(tiny_fmri()).encoder_hidden_states, usual.encoder_hidden_states)

    def test_the_encoder_returns_them_by_itself(self):
        encoder = tiny_model().encoder
        found = encoder(tiny_fmri(), output_attentions=True, output_hidden_states=True)
        assert len(found.attentions) == 2 and len(found.hidden_states) == 3


class TestMasking:
    @pytest.mark.parametrize(("patches", "ratio", "kept"), [(8, 0.75, 2), (20, 0.5, 10), (291, 0.75, 72), (10, 0.9, 0)])
    def test_as_many_stay_as_in_the_original(self, patches, ratio, kept):
        # 10 * (1 - .9) is a little less than 1.
        assert num_kept(patches, ratio) == kept

    def test_a_focus_is_hidden_more_often(self):
        config = tiny_config(focus_range=[0, 10], focus_rate=0.9, mask_ratio=0.4)
        noise = masking_noise(config, 500, torch.device("cpu"), torch.Generator().manual_seed(0))
        hidden = (noise > 1).float().mean(dim=0)
        assert (noise > 1).sum(dim=1).eq(2).all()
        assert hidden[:2].min() > 0.7 > 0.3 > hidden[2:].max()

    def test_hidden_voxels_are_not_seen(self):
        model = MindVisForPreTraining(tiny_config()).eval()
        fmri, noise = tiny_fmri(), some_noise()
        output = model(fmri, noise=noise)
        changed = torch.where(output.mask.repeat_interleave(PATCH_SIZE, dim=1) > 0, 100.0, fmri)
        assert torch.equal(model(changed, noise=noise).prediction, output.prediction)

    def test_nothing_hidden_is_a_loss_of_zero(self):
        assert MindVisForPreTraining(tiny_config())(tiny_fmri(), mask_ratio=0.0).loss == 0

    @pytest.mark.parametrize(
        ("options", "message"),
        [({"noise": torch.rand(3, 5)}, r"shape \(3, 5\); expected \(3, 4\)"), ({"mask_ratio": 1.5}, "a share from 0")],
    )
    def test_what_does_not_fit_is_a_sentence(self, options, message):
        with pytest.raises(FmriModelsError, match=message):
            MindVisForPreTraining(tiny_config())(tiny_fmri(), **options)

    def test_codes_of_places_are_not_trained(self):
        model = MindVisForPreTraining(tiny_config())
        frozen = [name for name, each in model.named_parameters() if not each.requires_grad]
        assert frozen == ["encoder.position_embeddings", "decoder.position_embeddings"]


class TestBeginnings:
    """How weights begin: as published, and from another model's."""

    def test_as_published(self):
        torch.manual_seed(0)
        model = MindVisModel(tiny_config(hidden_size=64, num_attention_heads=4))
        assert torch.equal(model.encoder.position_embeddings, sincos_positions(PATCHES, 64).float())
        assert torch.equal(model.decoder.position_embeddings, sincos_positions(PATCHES, 8).float())
        assert 0.015 < model.encoder.patch_embed.weight.std() < 0.025
        assert 0.01 < model.encoder.cls_token.std() < 0.03
        qkv = model.encoder.layers[0].attention.qkv
        assert qkv.bias.abs().sum() == 0 and qkv.weight.abs().max() <= (6 / (64 + 192)) ** 0.5
        # New in fine-tuning, as PyTorch has it: with biases.
        assert model.conditioner.dim_mapper.bias.abs().sum() > 0

    def test_of_other_subjects_and_lengths(self):
        initial = tiny_model(subject_names=["other"], num_voxels=[40], encoder_hidden_states_space=None,
                             time_embeds_space=None)  # fmt: skip
        for parameter in initial.parameters():
            parameter.data.normal_()
        model = tiny_model()
        before = nn.utils.parameters_to_vector(model.conditioner.parameters()).clone()
        model.take_weights(initial)
        assert torch.equal(model.encoder.layers[1].fc2.weight, initial.encoder.layers[1].fc2.weight)
        assert torch.equal(model.decoder.prediction.bias, initial.decoder.prediction.bias)
        places = initial.encoder.position_embeddings
        assert torch.equal(model.encoder.position_embeddings, places[:, [0, 1, 3, 5, 7]])
        assert torch.equal(nn.utils.parameters_to_vector(model.conditioner.parameters()), before)

    def test_conditions_are_taken_where_the_generator_is_the_same(self):
        initial, model = tiny_model(), tiny_model()
        for parameter in initial.parameters():
            parameter.data.normal_()
        model.take_weights(initial)
        assert torch.equal(model.conditioner.dim_mapper.weight, initial.conditioner.dim_mapper.weight)

    def test_other_sizes_are_an_error(self):
        with pytest.raises(RuntimeError, match="size mismatch"):
            tiny_model().take_weights(tiny_model(hidden_size=16))


class TestConfigurations:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"num_voxels": [20, 25, 20]}, "20 to 25 voxels; give the processor padding: wrap and patch_size: 5"),
            ({"num_voxels": [18] * 3}, "no multiple of patch_size, 5"),
            ({"num_attention_heads": 5}, "hidden_size is 12; expected an even number that num_attention_heads, 5"),
            ({"decoder_hidden_size": 9, "decoder_num_attention_heads": 3}, "decoder_hidden_size is 9"),
            ({"focus_range": [8, 4]}, r"focus_range is \[8, 4\]"),
            ({"global_pool": True}, "decodes one token, and the generator reads 4"),
            ({"encoder_hidden_states_space": None}, "a time_embeds_space and no encoder_hidden_states_space"),
            (
                {"image_embedding_space": {"encoder": "tiny", "layer": "tokens", "shape": [3, 8]}},
                "no image_embedding_space",
            ),
            (
                {"encoder_hidden_states_space": {**SPACES["encoder_hidden_states_space"], "shape": [4]}},
                r"shape \(tokens, width\)",
            ),
        ],
    )
    def test_what_does_not_fit_is_a_sentence(self, options, message):
        with pytest.raises(FmriModelsError, match=message):
            tiny_config(**options)

    def test_a_model_has_one_part_at_least(self):
        with pytest.raises(FmriModelsError, match="it has neither"):
            tiny_model(use_decoder=False, encoder_hidden_states_space=None, time_embeds_space=None)

    def test_masked_modelling_needs_the_decoder(self):
        with pytest.raises(FmriModelsError, match="no decoder of masked modelling"):
            tiny_model(use_decoder=False)(tiny_fmri(), noise=some_noise())

    def test_the_published_size(self):
        # 24 layers of 1024, and a decoder of 8 layers of 512 (specification of the checkpoints: 164,868,112).
        with torch.device("meta"):
            model = MindVisForPreTraining(MindVisConfig(subject_names=["subj03"], num_voxels=[4656]))
        assert sum(parameter.numel() for parameter in model.parameters()) == 164_868_112


class TestMemory:
    def test_values_that_are_computed_again_are_not_kept(self):
        source = torch.randn(2, 3, 4, requires_grad=True)
        linear = nn.Linear(4, 5)
        expected = torch.autograd.grad(linear(F.gelu(source)).square().sum(), [source, linear.weight])
        values = F.gelu(source)
        kept = weakref.ref(values)
        with computed_again(values, F.gelu, source):
            output = linear(values)
        del values
        assert kept() is None
        found = torch.autograd.grad(output.square().sum(), [source, linear.weight])
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))

    def test_a_layer_computes_norms_and_activation_again(self, monkeypatch: pytest.MonkeyPatch):
        calls = []
        monkeypatch.setattr(F, "gelu", lambda values, gelu=F.gelu: calls.append("gelu") or gelu(values))
        layer = MindVisLayer(tiny_config(), 12, 2)
        for name in ("norm1", "norm2"):
            getattr(layer, name).register_forward_hook(lambda *_, name=name: calls.append(name))
        output = layer(torch.randn(2, 5, 12, requires_grad=True))
        assert calls == ["norm1", "norm2", "gelu"]
        output.sum().backward()
        assert sorted(calls) == ["gelu", "gelu", "norm1", "norm1", "norm2", "norm2"]

    def test_a_forward_without_a_gradient_leaves_nothing_behind(self):
        layer = MindVisLayer(tiny_config(), 12, 2)
        states = torch.randn(2, 5, 12, requires_grad=True)
        node = layer(states).grad_fn
        node.metadata["kept"] = kept = type("Kept", (), {})()
        gone = weakref.ref(kept)
        del node, kept
        assert gone() is None
