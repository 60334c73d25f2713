"""Published checkpoints of MinD-Vis: whole ones of the original's tensors, and what is no such checkpoint."""

import os
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file

from fmri_models import FmriToImagePipeline
from fmri_models.errors import FmriModelsError
from fmri_models.hub.convert import convert_checkpoint
from fmri_models.models.mindvis import MindVisEncoder, MindVisForPreTraining, MindVisModel
from tests.models.mindvis.original import HEADS, original, state_dict

TEST_DATA = os.environ.get("FMRI_MODELS_TEST_DATA")
LARGE = Path(TEST_DATA or "") / "fixtures" / "mindvis"
needs_fixtures = pytest.mark.skipif(TEST_DATA is None, reason="FMRI_MODELS_TEST_DATA is not set")


def fine_tuned() -> dict[str, torch.Tensor]:
    """A whole checkpoint: conditioner, diffusion model with its time condition, autoencoder and schedule."""
    conditioner, _ = original("cond_stage_globalpool_False")
    unet = load_file(LARGE / "mindvis_unet_globalpool_false.safetensors")
    autoencoder = load_file(LARGE / "mindvis_vq_f4.safetensors")
    state = {f"cond_stage_model.{key}": value for key, value in state_dict(conditioner).items()}
    state |= {f"model.diffusion_model.{key}": value.float() for key, value in state_dict(unet).items()}
    state |= {f"first_stage_model.{key}": value.float() for key, value in state_dict(autoencoder).items()}
    return state | {name: torch.zeros(10) for name in ("betas", "alphas_cumprod_prev", "posterior_mean_coef1")}


def masked() -> dict[str, torch.Tensor]:
    return state_dict(original("mae_tiny")[0])


def saved_as_published(state: dict[str, torch.Tensor], file: Path, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """With a configuration of a class that only the original's code has."""
    module = ModuleType("config")
    config_class = type("Config_MBM_fMRI", (), {"__module__": "config"})
    module.Config_MBM_fMRI = config_class  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "config", module)
    torch.save({key: state, "config": config_class(), "epoch": 3, "state": torch.get_rng_state()}, file)
    monkeypatch.delitem(sys.modules, "config")


@pytest.mark.slow
@needs_fixtures
def test_a_whole_checkpoint_becomes_a_pipeline_that_draws(tmp_path, monkeypatch):
    saved_as_published(fine_tuned(), tmp_path / "finetuned.pth", monkeypatch, "model_state_dict")
    made = convert_checkpoint("mindvis", tmp_path / "finetuned.pth", tmp_path / "out", num_attention_heads=4)
    loaded = FmriToImagePipeline.from_pretrained(tmp_path / "out")
    assert loaded.drawing_settings.num_candidates == 5 and loaded.drawing_settings.num_inference_steps == 250
    fmri = original("cond_stage_globalpool_False")[0]["in.fmri"][:, 0].numpy()
    drawn = [
        pipeline(
            fmri, num_inference_steps=2, num_candidates=2, generator=torch.Generator().manual_seed(0), output_type="pt"
        )
        for pipeline in (made, loaded)
    ]
    torch.testing.assert_close(drawn[0].images, drawn[1].images)
    revision = loaded.image_generator.config.condition_revision
    assert loaded.brain_model.config.encoder_hidden_states_space["revision"] == revision is not None


@needs_fixtures
def test_the_time_condition_is_that_of_the_original():
    tensors = load_file(LARGE / "mindvis_unet_globalpool_false.safetensors")
    model = MindVisModel.from_original(fine_tuned(), num_attention_heads=4)
    mapped = model.conditioner.time_projection(model.conditioner.time_mapper(tensors["in.context"])).squeeze(1)
    torch.testing.assert_close(mapped, tensors["out.time_cond"], rtol=1e-4, atol=1e-5)


def test_masked_modelling_alone_draws_nothing_and_is_begun_with(tmp_path, monkeypatch):
    saved_as_published(masked(), tmp_path / "fmri_encoder.pth", monkeypatch, "model")
    pipeline = convert_checkpoint("mindvis", tmp_path / "fmri_encoder.pth", tmp_path / "out", **HEADS)
    assert pipeline.image_generator is None and pipeline.brain_model.conditioner is None
    assert pipeline.brain_model.decoder is not None
    encoder = MindVisEncoder.from_original(tmp_path / "fmri_encoder.pth", num_attention_heads=4)
    fmri = original("mae_tiny")[0]["in.fmri"][:, 0]
    torch.testing.assert_close(
        encoder(fmri).last_hidden_state, pipeline.brain_model.encoder(fmri, return_dict=True).last_hidden_state
    )


def test_sizes_are_those_of_the_shapes():
    config = MindVisForPreTraining.from_original(masked(), **HEADS).config
    assert (config.patch_size, config.hidden_size, config.num_hidden_layers, config.mlp_ratio) == (16, 32, 2, 1.0)
    assert (config.decoder_hidden_size, config.decoder_num_hidden_layers, config.num_voxels) == (16, 2, [128])


def test_norms_are_left_out_where_asked_for_as_in_the_original():
    state = {key: value + 0.5 for key, value in masked().items()}
    encoder = MindVisEncoder.from_original(state, keeps_norms=False, num_attention_heads=4)
    for name, values in encoder.state_dict().items():
        if "norm" in name:
            assert torch.equal(values, torch.full_like(values, float(name.endswith("weight"))))


def test_codes_of_places_of_the_decoder_are_interpolated_too():
    model = MindVisForPreTraining.from_original(masked(), num_voxels=[256], **HEADS)
    expected = masked()["decoder_pos_embed"][:, [0, *(1 + place // 2 for place in range(16))]]
    assert torch.equal(model.decoder.position_embeddings, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: {**state, "blocks.0.attn.more": torch.zeros(1)}, "unknown blocks.0.attn.more"),
        (lambda state: {key: each for key, each in state.items() if key != "norm.weight"}, "lacks norm.weight"),
        (lambda state: {"voxel2clip.lin0.0.weight": torch.zeros(3, 4)}, "no decoder"),
        (lambda state: {**state, "norm.bias": torch.full((32,), float("nan"))}, "NaN or infinite"),
        (lambda state: {**state, "pos_embed": torch.zeros(3)}, "pos_embed of the checkpoint has shape"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    with pytest.raises(FmriModelsError, match=message):
        MindVisForPreTraining.from_original(change(masked()), **HEADS)


def test_other_methods_checkpoints_are_refused():
    with pytest.raises(FmriModelsError, match=r"no encoder \(patch_embed.proj.weight\)"):
        MindVisEncoder.from_original({"lin0.0.weight": torch.zeros(3, 4)})


@needs_fixtures
def test_something_beside_the_brain_model_and_its_generator_is_named():
    with pytest.raises(FmriModelsError, match="unknown other.weight"):
        MindVisModel.from_original({**fine_tuned(), "other.weight": torch.zeros(2)}, num_attention_heads=4)
