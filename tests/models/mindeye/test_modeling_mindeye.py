"""MindEye's models: the common tests, the original's numbers, and what is their own."""

from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fmri_models.alignment import diffusion_prior
from fmri_models.errors import FmriModelsError
from fmri_models.models.mindeye import MindEyeConfig, MindEyeLowLevelModel, MindEyeModel, MindEyePrior
from tests.models.mindeye.original import original, recipe_state_dict, recipe_tensors, seeded_normal, state_dict
from tests.test_modeling_common import NUM_VOXELS, SUBJECTS, ModelTesterMixin, SuiteCase, default_dtype

IMAGE_SPACE = {"encoder": "tiny", "layer": "tokens", "shape": [3, 8]}
LATENT_SPACE = {"encoder": "tiny", "layer": "latent", "shape": [2, 4, 6]}
SIZES: dict[str, Any] = {
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "projector_size": 10,
    "prior_num_layers": 2,
    "prior_num_attention_heads": 2,
    "prior_attention_head_dim": 6,
    "prior_feed_forward_multiplier": 2,
    "prior_num_timesteps": 5,
    # So that both nulls surely occur in a batch of six.
    "prior_brain_dropout": 0.5,
    "prior_image_dropout": 0.5,
    "low_level_hidden_size": 12,
    "low_level_num_hidden_layers": 1,
    "low_level_start_channels": 8,
    "low_level_block_out_channels": [4, 8],
    "low_level_norm_num_groups": 2,
}


def tiny_config(**options: Any) -> MindEyeConfig:
    values = {
        "subject_names": list(SUBJECTS),
        "num_voxels": list(NUM_VOXELS),
        "image_embedding_space": IMAGE_SPACE,
        "latent_space": LATENT_SPACE,
    }
    return MindEyeConfig(**{**values, **SIZES, **options})


def tiny_model(**options: Any) -> MindEyeModel:
    torch.manual_seed(0)
    return MindEyeModel(tiny_config(**options)).eval()


def tiny_fmri(examples: int = 4) -> torch.Tensor:
    return torch.randn(examples, max(NUM_VOXELS), generator=torch.Generator().manual_seed(3))


def test_tokens_are_read_by_the_old_name_of_the_argument_too() -> None:
    model: Any = tiny_model()
    hidden = torch.randn(2, 24)
    with pytest.warns(FutureWarning, match="encoded of tokens_from is hidden now"):
        assert torch.equal(model.tokens_from(encoded=hidden), model.tokens_from(hidden))


# Examples take the place of a sequence in states of shape (examples, hidden_size).
DEPTH = {"num_hidden_layers": 2, "seq_length": len(SUBJECTS), "hidden_size": 12}


class TestMindEyeModel(ModelTesterMixin):
    model_class = MindEyeModel
    depth: ClassVar = DEPTH
    draws_for_targets = True

    def make_config(self, subject_names: list[str], num_voxels: list[int]) -> MindEyeConfig:
        return tiny_config(subject_names=subject_names, num_voxels=num_voxels)


class TestMindEyeModelWithBatchNorm(ModelTesterMixin):
    model_class = MindEyeModel
    depth: ClassVar = DEPTH

    def make_config(self, subject_names: list[str], num_voxels: list[int]) -> MindEyeConfig:
        return tiny_config(
            subject_names=subject_names,
            num_voxels=num_voxels,
            norm="batch",
            activation_first=True,
            use_projector=False,
            use_prior=False,
            latent_space=None,
        )


class TestMindEyeModelWithoutBackbone(ModelTesterMixin):
    model_class = MindEyeModel
    depth: ClassVar = {**DEPTH, "num_hidden_layers": 1}

    def make_config(self, subject_names: list[str], num_voxels: list[int]) -> MindEyeConfig:
        return tiny_config(subject_names=subject_names, num_voxels=num_voxels, image_embedding_space=None)


class TestMindEyeModelWithComponents(ModelTesterMixin):
    model_class = MindEyeModel
    depth: ClassVar = DEPTH
    draws_for_targets = True

    def make_config(self, subject_names: list[str], num_voxels: list[int]) -> MindEyeConfig:
        return tiny_config(
            subject_names=subject_names, num_voxels=num_voxels, token_components=4, prior_adds_condition=True
        )

    def make_model(self) -> MindEyeModel:
        model = super().make_model()
        assert isinstance(model, MindEyeModel) and model.components is not None
        tokens = torch.randn(20, 24, generator=torch.Generator().manual_seed(6))
        model.components.fit(tokens.numpy(), whitening=0.5)
        return model


class PriorCase(SuiteCase):
    model_class = MindEyePrior
    depth: ClassVar = {
        "num_hidden_layers": 2,
        "seq_length": 7,
        "hidden_size": 8,
        "num_attention_heads": 2,
        "key_length": 8,
    }
    has_attentions = True

    def make_config(self, subject_names: list[str], num_voxels: list[int]) -> MindEyeConfig:
        return tiny_config(subject_names=subject_names, num_voxels=num_voxels)

    def make_inputs(self) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(4)
        sample, brain_embeds = torch.randn(2, len(SUBJECTS), 3, 8, generator=generator)
        return {"sample": sample, "timestep": torch.tensor([0, 2, 4]), "brain_embeds": brain_embeds}


class TestMindEyeLowLevelModel(ModelTesterMixin):
    model_class = MindEyeLowLevelModel
    depth: ClassVar = {**DEPTH, "num_hidden_layers": 1}
    # AutoModel gives the configuration's main model.
    test_auto_model_finds_the_class = None

    def make_config(self, subject_names: list[str], num_voxels: list[int]) -> MindEyeConfig:
        return tiny_config(subject_names=subject_names, num_voxels=num_voxels, image_embedding_space=None)


class TestPriorHabits:
    """Attention by either implementation, and what the prior returns besides its prediction."""

    inputs = PriorCase().make_inputs()

    def prior(self, implementation: str = "sdpa", **options: Any) -> MindEyePrior:
        torch.manual_seed(0)
        return MindEyePrior._from_config(tiny_config(**options), attn_implementation=implementation).eval()

    def gradients(self, prior: MindEyePrior) -> dict[str, torch.Tensor]:
        prior(**self.inputs).square().sum().backward()
        return {name: parameter.grad for name, parameter in prior.named_parameters() if parameter.grad is not None}

    def test_eager_and_sdpa_are_the_same(self):
        sdpa, eager = self.prior("sdpa"), self.prior("eager")
        torch.testing.assert_close(eager(**self.inputs), sdpa(**self.inputs), rtol=1e-5, atol=1e-5)
        expected, found = self.gradients(sdpa), self.gradients(eager)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)
        sdpa.set_attn_implementation("eager")
        assert torch.equal(sdpa(**self.inputs), eager(**self.inputs))

    def test_the_whole_model_chooses_for_its_prior(self):
        model = tiny_model()
        assert model.prior.config._attn_implementation == "sdpa"
        model.set_attn_implementation("eager")
        assert model.prior(**self.inputs, output_attentions=True).attentions

    def test_attentions_are_those_of_each_layer(self):
        output = self.prior("eager")(**self.inputs, output_attentions=True)
        assert [tuple(each.shape) for each in output.attentions] == [(3, 2, 7, 8)] * 2
        for each in output.attentions:
            torch.testing.assert_close(each.sum(dim=-1), torch.ones(3, 2, 7))
        assert not self.prior("sdpa")(**self.inputs, output_attentions=True).attentions

    def test_hidden_states_leave_the_prediction_as_it_is(self):
        prior = self.prior()
        output = prior(**self.inputs, output_hidden_states=True)
        assert [tuple(each.shape) for each in output.hidden_states] == [(3, 7, 8)] * 3
        torch.testing.assert_close(output.predicted_embeds, prior(**self.inputs), rtol=1e-5, atol=1e-5)

    def test_returns(self):
        prior = self.prior()
        predicted = prior(**self.inputs)
        assert torch.equal(prior(**self.inputs, return_dict=True).predicted_embeds, predicted)
        assert torch.equal(prior(**self.inputs, return_dict=False)[0], predicted)
        sampled = prior.sample(self.inputs["brain_embeds"], generator=torch.Generator().manual_seed(0))
        prior.config.return_dict = False
        assert isinstance(prior(**self.inputs), tuple)
        again = prior.sample(self.inputs["brain_embeds"], generator=torch.Generator().manual_seed(0))
        assert torch.equal(again, sampled)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
    @pytest.mark.parametrize("implementation", ["sdpa", "eager"])
    def test_the_default_dtype_of_others_changes_nothing(self, implementation, dtype):
        prior, embeds = self.prior(implementation), self.inputs["brain_embeds"]
        expected = prior(**self.inputs), prior.sample(embeds, generator=torch.Generator().manual_seed(0))
        with default_dtype(dtype):
            found = prior(**self.inputs), prior.sample(embeds, generator=torch.Generator().manual_seed(0))
        for value, other in zip(found, expected, strict=True):
            assert torch.equal(value, other)

    @pytest.mark.parametrize("mode", ["pos_emb", "token", "all_pos_emb", "none"])
    def test_graphs_take_other_batches(self, mode):
        prior = self.prior(prior_learned_query_mode=mode)
        more = {name: torch.cat([value, value.flip(0)]) for name, value in self.inputs.items()}
        rows = torch.export.Dim("rows", min=2)
        shapes = {name: {0: rows} for name in self.inputs}
        exported = torch.export.export(prior, (), self.inputs, dynamic_shapes=shapes).module()
        torch.testing.assert_close(exported(**more), prior(**more), rtol=1e-4, atol=1e-5)
        traced = torch.jit.trace(prior, example_kwarg_inputs=self.inputs, strict=False, check_trace=False)
        torch.testing.assert_close(traced(**more), prior(**more), rtol=1e-4, atol=1e-5)

    def test_one_graph_samples_at_each_level(self):
        prior, embeds = self.prior(), self.inputs["brain_embeds"]
        expected = prior.sample(embeds, generator=torch.Generator().manual_seed(0))
        torch.compiler.reset()
        prior.compile(fullgraph=True, backend="eager")
        with torch._dynamo.config.patch(error_on_recompile=True):
            found = prior.sample(embeds, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        exported = torch.export.export(self.prior(), (), self.inputs).module()
        torch.testing.assert_close(exported(**self.inputs), self.prior()(**self.inputs), rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("reentrant", [False, True])
    def test_computing_again_for_the_gradient_changes_nothing(self, reentrant):
        prior = self.prior().train()
        expected = self.gradients(prior)
        prior = self.prior().train()
        prior.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
        found = self.gradients(prior)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value)

    @pytest.mark.slow
    def test_a_step_of_training_is_one_graph(self):
        model = tiny_model().train()
        targets = TestMindEyeModel().make_targets(model, len(SUBJECTS))
        inputs = {**TestMindEyeModel().make_inputs(), **targets}
        torch.compiler.reset()
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        torch.manual_seed(0)
        expected = model(**inputs).loss
        torch.manual_seed(0)
        loss = compiled(**inputs).loss
        torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
        loss.backward()
        assert all(parameter.grad is not None for parameter in model.backbone.parameters())


class TestOriginalBackbone:
    @pytest.fixture
    def fixture(self):
        tensors, description = original("me1_brain_network_ln")
        return tensors, description["atol"]

    def test_outputs(self, fixture):
        tensors, atol = fixture
        output = MindEyeModel.from_original(state_dict(tensors))(tensors["x"])
        torch.testing.assert_close(output.token_embeds.flatten(1), tensors["backbone"], rtol=0, atol=atol)
        torch.testing.assert_close(output.projected_embeds, tensors["projected"], rtol=0, atol=atol)
        assert output.retrieval_embeds is output.projected_embeds
        assert output.image_embeds is None

    def test_gradients(self, fixture):
        tensors, atol = fixture
        model = MindEyeModel.from_original(state_dict(tensors))
        output = model(tensors["x"])
        loss = output.token_embeds.square().mean() + output.projected_embeds.pow(3).mean()
        torch.testing.assert_close(loss, tensors["loss"][0], rtol=0, atol=atol)
        loss.backward()
        found = {
            "lin0.0.weight": model.backbone.input.layers[0].weight,
            "mlp.1.0.weight": model.backbone.blocks[1].linear.weight,
            "mlp.2.1.bias": model.backbone.blocks[2].norm_activation.norm.bias,
            "lin1.weight": model.backbone.output.weight,
            "projector.2.weight": model.projector[2].weight,
        }
        for name, tensor in found.items():
            torch.testing.assert_close(tensor.grad, tensors[f"grad.{name}"], rtol=0, atol=atol)

    def test_dropout(self, fixture):
        tensors, atol = fixture
        model = MindEyeModel.from_original(state_dict(tensors)).train()
        torch.manual_seed(7)
        output = model(tensors["x"])
        torch.testing.assert_close(output.token_embeds.flatten(1), tensors["train_seed7_backbone"], rtol=0, atol=atol)
        torch.testing.assert_close(output.projected_embeds, tensors["train_seed7_projected"], rtol=0, atol=atol)


class TestOriginalPrior:
    @pytest.fixture
    def fixture(self):
        tensors, description = original("me1_prior_loss")
        return tensors, description["atol"]

    def test_loss_of_given_draws(self, fixture):
        tensors, atol = fixture
        prior = MindEyePrior.from_original(state_dict(tensors))
        brain = tensors["text_embed"].clone().requires_grad_()
        given = (tensors["image_embed"], brain, tensors["times"], tensors["noise"])
        loss = prior.loss(*given)
        torch.testing.assert_close(loss, tensors["loss_nodrop"][0], rtol=0, atol=atol)
        loss.backward()
        torch.testing.assert_close(brain.grad, tensors["grad_text_embed"], rtol=0, atol=atol)
        network = prior.network
        torch.testing.assert_close(network.learned_query.grad, tensors["grad_learned_query"], rtol=0, atol=atol)
        torch.testing.assert_close(network.project_out.weight.grad, tensors["grad_project_out"], rtol=0, atol=atol)
        masked = prior.loss(*given, brain_keep=tensors["keep_brain"], image_keep=tensors["keep_image"])
        torch.testing.assert_close(masked, tensors["loss_masks"][0], rtol=0, atol=atol)

    def test_prediction_is_in_the_scaled_space(self, fixture):
        tensors, atol = fixture
        prior = MindEyePrior.from_original(state_dict(tensors))
        noisy = prior.scheduler.add_noise(tensors["image_embed"] * prior.scale, tensors["noise"], tensors["times"])
        torch.testing.assert_close(noisy, tensors["x_noisy"], rtol=0, atol=atol)
        predicted = prior(noisy, tensors["times"], tensors["text_embed"])
        torch.testing.assert_close(predicted, tensors["pred_nodrop"], rtol=0, atol=atol)
        flat = prior(noisy.flatten(1), tensors["times"], tensors["text_embed"].flatten(1))
        torch.testing.assert_close(flat, predicted)

    def test_training_draws_in_the_originals_order(self, fixture):
        tensors, atol = fixture
        prior = MindEyePrior.from_original(state_dict(tensors)).train()
        loss = prior.loss(tensors["image_embed"], tensors["text_embed"], generator=torch.Generator().manual_seed(1234))
        torch.testing.assert_close(loss, tensors["loss_seed1234"][0], rtol=0, atol=atol)

    @pytest.mark.parametrize(
        ("name", "steps", "options"),
        [
            ("ddpm10", 10, {"num_timesteps": 10}),
            ("ddpm10_cfg2", 10, {"num_timesteps": 10}),
            ("ddim6of100", 6, {}),
        ],
    )
    def test_sampling(self, test_data, name, steps, options):
        tensors, description = original("me1_prior_sampling", test_data / "fixtures" / "mindeye")
        prior = MindEyePrior.from_original(state_dict(tensors), **options)
        scale = 2.0 if "cfg2" in name else 1.0
        noises = list(tensors[f"{name}_noises"])
        found = prior.sample(tensors["text_embed"], steps, guidance_scale=scale, noises=noises)
        torch.testing.assert_close(found, tensors[f"{name}_out"], rtol=0, atol=description["atol"])

    def test_too_little_noise_is_a_sentence(self, fixture):
        prior = MindEyePrior.from_original(state_dict(fixture[0]))
        with pytest.raises(FmriModelsError, match="1 noises were given for 5 steps; give 5"):
            prior.sample(fixture[0]["text_embed"], 6, noises=[fixture[0]["noise"]])
        with pytest.raises(FmriModelsError, match="2 generators were given for 6 rows"):
            prior.sample(fixture[0]["text_embed"], 6, generator=[torch.Generator(), torch.Generator()])


class TestOriginalOptions:
    """Every option of the published classes at tiny sizes."""

    @pytest.fixture
    def fixture(self):
        return original("me1_options_recipe")

    @staticmethod
    def assert_close(found: torch.Tensor, expected: torch.Tensor, description: dict[str, Any]) -> None:
        torch.testing.assert_close(found, expected, rtol=0, atol=description["atol"])

    @pytest.mark.parametrize("name", ["bn", "ln_actfirst", "bn_actfirst", "no_projector", "single_token"])
    def test_backbone(self, fixture, name):
        tensors, description = fixture
        case = description["cases"][f"backbone_{name}"]
        # Without projector and prior, nothing in a checkpoint tells how wide a token is.
        space = {**IMAGE_SPACE, "shape": [case["config"]["out_dim"] // 8, 8]}
        model = MindEyeModel.from_original(recipe_tensors(case["shapes"]), image_embedding_space=space)
        assert (model.projector is None) == (name == "no_projector")
        for mode in ("", "train_seed7_"):
            model.train(mode != "")
            torch.manual_seed(7)
            output = model(seeded_normal(0, 4, 11))
            expected = [tensors[f"backbone_{name}.{mode}{part}"] for part in ("backbone", "projected")]
            self.assert_close(output.token_embeds.flatten(1), expected[0], description)
            self.assert_close(output.projected_embeds, expected[1], description)

    @pytest.mark.parametrize("mode", ["none", "token", "all_pos_emb"])
    def test_prior(self, fixture, mode):
        tensors, description = fixture
        state = recipe_tensors(description["cases"][f"prior_{mode}"]["shapes"])
        prior = MindEyePrior.from_original(state, learned_query_mode=mode)
        image, brain = seeded_normal(1, 2, 3, 16), seeded_normal(2, 2, 3, 16).requires_grad_()
        timesteps, dropped = torch.tensor([3, 90]), torch.zeros(2, dtype=torch.bool)
        found = prior(image, timesteps, brain)
        self.assert_close(found, tensors[f"prior_{mode}.out"], description)
        nothing = prior(image, timesteps, brain, dropped, dropped)
        self.assert_close(nothing, tensors[f"prior_{mode}.out_null_both"], description)
        found.square().mean().backward()
        self.assert_close(brain.grad, tensors[f"prior_{mode}.grad_brain"], description)

    @pytest.mark.parametrize(("steps", "total", "guidance_scale"), [(9, 10, 1.0), (51, 100, 2.0)])
    def test_sampling_with_more_than_half_the_steps(self, fixture, steps, total, guidance_scale):
        tensors, description = fixture
        case = description["cases"]["sampling_pos_emb"]
        prior = MindEyePrior.from_original(recipe_tensors(case["shapes"]), num_timesteps=total)
        stream = np.random.RandomState(steps)
        # One less than there are steps: the step that leads to level 0 adds none either.
        noises = [seeded_normal(stream, 2, 3, 16) for _ in range(case[f"ddim{steps}_noises"])]
        assert len(noises) == steps - 2
        found = prior.sample(seeded_normal(2, 2, 3, 16), steps, guidance_scale=guidance_scale, noises=noises)
        expected = tensors[f"sampling_pos_emb.ddim{steps}of{total}_guidance{guidance_scale:g}"]
        torch.testing.assert_close(found, expected, rtol=0, atol=5 * description["atol"])

    @pytest.mark.parametrize("upsampling", ["4x", "8x", "16x"])
    def test_low_level(self, fixture, upsampling):
        tensors, description = fixture
        name = f"low_level_{upsampling}"
        model = MindEyeLowLevelModel.from_original(recipe_tensors(description["cases"][name]["shapes"]))
        with torch.no_grad():
            output = model(seeded_normal(3, 1, 11))
        latents, maps = output.latents[:, :, ::8, ::8], output.feature_maps[:, :, ::16]
        assert output.latents.shape == (1, 4, 64, 64)
        torch.testing.assert_close(latents, tensors[f"{name}.latent_every_8th"], rtol=0, atol=2e-4)
        self.assert_close(maps, tensors[f"{name}.feature_maps_every_16th"], description)


class TestHalfPrecision:
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_a_model_that_was_cast_is_the_float32_one_but_for_the_priors_norms(self, monkeypatch, dtype):
        model, half, subjects = tiny_model(), tiny_model().to(dtype), ["subj02"] * 4
        inputs = torch.randn(4, 3, 8), 2, torch.randn(4, 3, 8)
        with torch.no_grad():
            expected, found = model(tiny_fmri(), subjects), half(tiny_fmri(), subjects)
            predicted = half.prior(*inputs)
            monkeypatch.setattr(diffusion_prior, "_EPS", diffusion_prior._EPS_OF_HALF_PRECISION)
            assert distance(predicted, model.prior(*inputs)) < 0.05
        assert found.token_embeds.dtype == found.latents.dtype == predicted.dtype == dtype
        for name in ("token_embeds", "projected_embeds", "latents"):
            assert distance(found[name], expected[name]) < 0.03, name
        assert torch.isfinite(half.decode(tiny_fmri(), subjects).image_embeds).all()

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_training_under_autocast_is_training_of_the_float32_model(self, dtype):
        prior = MindEyePrior(tiny_config()).eval()
        image, brain = torch.randn(6, 3, 8), torch.randn(6, 3, 8)

        def loss_and_gradient(enabled: bool) -> tuple[torch.Tensor, torch.Tensor]:
            prior.zero_grad()
            with torch.autocast("cpu", dtype=dtype, enabled=enabled):
                loss = prior.loss(image, brain, generator=torch.Generator().manual_seed(0))
            loss.backward()
            return loss.detach(), torch.cat(
                [weight.grad.flatten() for weight in prior.parameters() if weight.grad is not None]
            )

        (loss, gradient), (expected, exact) = loss_and_gradient(True), loss_and_gradient(False)
        assert loss.dtype == torch.float32
        assert distance(loss, expected) < 0.02
        assert distance(gradient, exact) < 0.2


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Root mean square of the difference as a share of that of the values."""
    return float((found.float() - expected).norm() / expected.norm())


def test_low_level_is_the_originals():
    tensors, description = original("me1_voxel2sd_4x_recipe")
    model = MindEyeLowLevelModel.from_original(recipe_state_dict(description))
    assert model.config.low_level_block_out_channels == [64, 128, 256]
    with torch.no_grad():
        output = model(tensors["x"])
    torch.testing.assert_close(output.latents, tensors["latent"], rtol=0, atol=description["atol"])
    torch.testing.assert_close(output.feature_maps, tensors["feats"], rtol=0, atol=description["atol"])


def test_published_sizes():
    image_space = {"encoder": "clip", "layer": "tokens", "shape": [257, 768]}
    latent_space = {"encoder": "vae", "layer": "latent", "shape": [4, 64, 64]}
    with torch.device("meta"):
        model = MindEyeModel(
            MindEyeConfig(
                subject_names=["subj01"],
                num_voxels=[15724],
                image_embedding_space=image_space,
                latent_space=latent_space,
                low_level_feature_size=512,
            )
        )

    def count(*parts: torch.nn.Module) -> int:
        return sum(parameter.numel() for part in parts for parameter in part.parameters())

    # The original counts, whose prior has 16 rotary rates among its parameters; they are constants here.
    assert count(model.backbone, model.projector) == 947_579_904
    assert count(model.prior) == 56_055_184 - 16
    assert count(model.low_level) == 206_065_604


@pytest.mark.parametrize(
    ("shape", "channels", "start"),
    [((12, 8, 8), [4, 8], (4, 4)), ((1, 28, 28), [4, 6, 8], (7, 7)), ((3, 4, 6), [4], (4, 6))],
)
def test_low_level_upsamples_to_any_latent(shape, channels, start):
    space = {**LATENT_SPACE, "shape": list(shape)}
    model = tiny_model(image_embedding_space=None, latent_space=space, low_level_block_out_channels=channels)
    assert model.low_level.start_shape == (8, *start)
    assert model(tiny_fmri(), ["subj07"] * 4).latents.shape == (4, *shape)


def test_feature_maps_are_there_for_a_teacher():
    output = tiny_model(low_level_feature_size=5)(tiny_fmri(), ["subj07"] * 4)
    assert output.feature_maps.shape == (4, 2 * 3, 5)


@pytest.mark.parametrize("missing", ["image_embedding_space", "latent_space"])
def test_a_model_has_the_parts_of_its_spaces(missing):
    model = tiny_model(**{missing: None})
    has_images = missing != "image_embedding_space"
    assert all((part is not None) == has_images for part in (model.backbone, model.projector, model.prior))
    assert (model.low_level is None) == has_images
    decoding = model.decode(tiny_fmri(), ["subj02"] * 4)
    assert (decoding.image_embeds is not None) == (decoding.retrieval_embeds is not None) == has_images
    assert (decoding.latents is None) == has_images


def test_a_model_without_spaces_is_a_sentence():
    with pytest.raises(FmriModelsError, match="it has neither"):
        tiny_model(image_embedding_space=None, latent_space=None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latent_space": {**LATENT_SPACE, "shape": [3, 5, 7]}}, "5x7, no multiple of 2.*fewer low_level_block"),
        ({"low_level_block_out_channels": [3, 8]}, r"\[3, 8\]; expected multiples of low_level_norm_num_groups, 2"),
        ({"latent_space": {**LATENT_SPACE, "shape": [30]}}, r"shape \(channels, height, width\)"),
        ({"image_embedding_space": {**IMAGE_SPACE, "shape": [2, 3, 4]}}, r"shape \(tokens, width\)"),
        ({"text_embedding_space": IMAGE_SPACE}, "decodes no text embeddings"),
        ({"prior_num_inference_steps": 6}, "prior_num_inference_steps is 6; expected 2 to prior_num_timesteps, 5"),
    ],
)
def test_configurations_that_cannot_be_are_sentences(options, message):
    with pytest.raises(FmriModelsError, match=message):
        tiny_config(**options)


def test_one_row_cannot_be_contrasted():
    model = tiny_model()
    with pytest.raises(FmriModelsError, match="this batch has one row"):
        model(tiny_fmri(1), "subj02", image_embeds=torch.randn(1, 3, 8))


def test_candidates_of_a_trial_follow_each_other_and_differ():
    model = tiny_model()
    decoding = model.decode(tiny_fmri(2), ["subj02"] * 2, 3, torch.Generator().manual_seed(0))
    assert decoding.image_embeds.shape == (6, 3, 8)
    assert decoding.latents.shape[0] == decoding.retrieval_embeds.shape[0] == 2
    assert len(decoding.image_embeds.flatten(1).unique(dim=0)) == 6
    alone = model.decode(tiny_fmri(2)[:1], "subj02", 3, torch.Generator().manual_seed(0))
    torch.testing.assert_close(decoding.image_embeds[:3], alone.image_embeds, rtol=1e-4, atol=1e-4)


def test_samples_do_not_depend_on_how_many_are_drawn_together(monkeypatch):
    model, subjects = tiny_model(), ["subj02"] * 4
    whole = model.decode(tiny_fmri(), subjects, 3, torch.Generator().manual_seed(0)).image_embeds
    monkeypatch.setattr("fmri_models.models.mindeye.modeling_mindeye._VALUES_A_CHUNK", 5 * 3 * 8)
    chunked = model.decode(tiny_fmri(), subjects, 3, torch.Generator().manual_seed(0)).image_embeds
    torch.testing.assert_close(chunked, whole, rtol=1e-4, atol=1e-4)


def test_a_generator_a_trial_makes_trials_independent():
    model, fmri = tiny_model(), tiny_fmri(3)

    def sources(*seeds: int) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    together = model.decode(fmri, ["subj02"] * 3, 2, sources(1, 2, 3)).image_embeds
    alone = model.decode(fmri[1:2], "subj02", 2, sources(2)).image_embeds
    torch.testing.assert_close(together[2:4], alone, rtol=1e-4, atol=1e-4)
    with pytest.raises(FmriModelsError, match="2 generators were given for 3 trials"):
        model.decode(fmri, ["subj02"] * 3, 2, sources(1, 2))


def test_samples_are_normalised_as_their_space_is():
    plain = tiny_model().decode(tiny_fmri(), ["subj02"] * 4, 1, torch.Generator().manual_seed(0)).image_embeds
    model = tiny_model(image_embedding_space={**IMAGE_SPACE, "normalisation": "cls_norm"})
    normed = model.decode(tiny_fmri(), ["subj02"] * 4, 1, torch.Generator().manual_seed(0)).image_embeds
    assert not torch.allclose(plain[:, 0].norm(dim=-1), torch.ones(4), atol=0.1)
    torch.testing.assert_close(normed[:, 0].norm(dim=-1), torch.ones(4), rtol=0, atol=1e-4)
    torch.testing.assert_close(F.normalize(normed.flatten(1)), F.normalize(plain.flatten(1)))


def test_sampling_follows_the_configuration():
    drawn = []
    for options in ({}, {"prior_num_inference_steps": 3}, {"prior_guidance_scale": 3.0}):
        source = torch.Generator().manual_seed(0)
        drawn.append(tiny_model(**options).decode(tiny_fmri(), ["subj02"] * 4, 1, source).image_embeds)
    full, fewer, guided = drawn
    assert not torch.allclose(full, fewer)
    assert not torch.allclose(full, guided)


@pytest.mark.parametrize("shape", [(8,), (7,), (3, 7), (2, 1)])
def test_embeddings_of_any_width_and_without_tokens(shape):
    model = tiny_model(image_embedding_space={**IMAGE_SPACE, "shape": list(shape)})
    decoding = model.decode(tiny_fmri(), ["subj02"] * 4)
    assert decoding.image_embeds.shape == decoding.retrieval_embeds.shape == (4, *shape)
    assert torch.isfinite(decoding.image_embeds).all()
    assert torch.isfinite(model(tiny_fmri(), ["subj02"] * 4, image_embeds=torch.randn(4, *shape)).loss)


def test_without_a_prior_the_projected_embeddings_are_decoded():
    model = tiny_model(use_prior=False)
    decoding = model.decode(tiny_fmri(), ["subj02"] * 4)
    assert torch.equal(decoding.image_embeds, decoding.retrieval_embeds)


def test_prior_drops_in_training_alone():
    prior = tiny_model(prior_brain_dropout=1.0).prior
    targets, brain = torch.randn(4, 3, 8), torch.randn(4, 3, 8)
    losses = {}
    for mode in (True, False):
        prior.train(mode)
        sources = [torch.Generator().manual_seed(0) for _ in range(2)]
        losses[mode] = [
            prior.loss(targets, scale * brain, generator=source).item()
            for scale, source in zip((1, 9), sources, strict=True)
        ]
    assert losses[True][0] == losses[True][1]
    assert losses[False][0] != losses[False][1]


def test_a_prior_that_adds_its_condition_differs_by_it_where_it_is_kept():
    plain, adding = tiny_model(), tiny_model(prior_adds_condition=True)
    adding.load_state_dict(plain.state_dict())
    sample, condition = torch.randn(2, 3, 8), torch.randn(2, 3, 8)
    difference = adding.prior(sample, 5, condition) - plain.prior(sample, 5, condition)
    torch.testing.assert_close(difference, condition, atol=1e-5, rtol=1e-5)
    keep = torch.tensor([True, False])
    difference = adding.prior(sample, 5, condition, brain_keep=keep) - plain.prior(
        sample, 5, condition, brain_keep=keep
    )
    torch.testing.assert_close(difference, condition * keep[:, None, None], atol=1e-5, rtol=1e-5)
