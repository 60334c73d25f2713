"""MindBridge's model: the common tests, the original's numbers, and what is its own."""

import json
from typing import Any, ClassVar

import pytest
import torch

from fmri_models.errors import FmriModelsError
from fmri_models.models.mindbridge import MindBridgeConfig, MindBridgeModel
from tests.models.mindbridge.original import FOLDER, SPACES, original, part
from tests.test_modeling_common import NUM_VOXELS, SUBJECTS, ModelTesterMixin

IMAGE_SPACE = {"encoder": "tiny", "layer": "tokens", "shape": [3, 8]}
TEXT_SPACE = {"encoder": "tiny/text", "layer": "tokens", "shape": [2, 5]}
SIZES: dict[str, Any] = {"hidden_size": 12, "num_hidden_layers": 2, "adapter_size": 16}
# Examples take the place of a sequence in states of shape (examples, hidden_size).
DEPTH = {"num_hidden_layers": 2, "seq_length": len(SUBJECTS), "hidden_size": 12}
PAIRS = [("subj01", "subj02"), ("subj01", "subj05"), ("subj02", "subj01"), ("subj02", "subj05"), ("subj05", "subj01"),
         ("subj05", "subj02")]  # fmt: skip


def tiny_config(**options: Any) -> MindBridgeConfig:
    values = {
        "subject_names": list(SUBJECTS),
        "num_voxels": list(NUM_VOXELS),
        "image_embedding_space": IMAGE_SPACE,
        "text_embedding_space": TEXT_SPACE,
    }
    return MindBridgeConfig(**{**values, **SIZES, **options})


def tiny_model(**options: Any) -> MindBridgeModel:
    torch.manual_seed(0)
    model = MindBridgeModel(tiny_config(**options))
    for parameter in model.parameters():
        parameter.data.normal_(std=0.3)
    return model.eval()


def tiny_fmri(*subjects: str) -> torch.Tensor:
    fmri = torch.randn(len(subjects), max(NUM_VOXELS), generator=torch.Generator().manual_seed(3))
    for row, name in enumerate(subjects):
        fmri[row, NUM_VOXELS[SUBJECTS.index(name)] :] = 0
    return fmri


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


class TestMindBridgeModel(ModelTesterMixin):
    model_class = MindBridgeModel
    depth: ClassVar = DEPTH

    def make_config(self, subject_names: list[str], num_voxels: list[int]) -> MindBridgeConfig:
        return tiny_config(subject_names=subject_names, num_voxels=num_voxels)


class TestMindBridgeModelWithoutBuilders(ModelTesterMixin):
    """As for single subjects, and with a head for images alone."""

    model_class = MindBridgeModel
    depth: ClassVar = DEPTH

    def make_config(self, subject_names: list[str], num_voxels: list[int]) -> MindBridgeConfig:
        return tiny_config(
            subject_names=subject_names, num_voxels=num_voxels, use_builders=False, text_embedding_space=None
        )


class TestOriginalNumbers:
    def test_a_model_of_one_subject(self):
        tensors, description = original("mindsingle")
        model = MindBridgeModel.from_original(part(tensors, "sd/"), **SPACES)
        config = model.config
        assert (config.hidden_size, config.num_hidden_layers, config.num_voxels) == (64, 3, [96])
        assert config.adapter_size == description["adapter_bottleneck"] and not config.use_builders
        close(model.embedders["subj01"].adapter(tensors["in/x"]), tensors["out/adapter"])
        output = model(tensors["in/x"])
        close(output.fmri_embeds, tensors["out/embedding"])
        close(model.translate(output.fmri_embeds), tensors["out/translated"])
        close(output.image_embeds, tensors["out/image"].unflatten(1, (9, 16)))
        close(output.text_embeds, tensors["out/text"].unflatten(1, (5, 16)))
        assert output.reconstructed_fmri is None
        probe = output.image_embeds.square().mean() + output.text_embeds.abs().mean()
        close(probe, tensors["out/probe_loss"])
        probe.backward()
        gradients = part(tensors, "grad/")
        embedder = model.embedders["subj01"]
        close(embedder.adapter.down_proj.weight.grad, gradients["embedder.1.0.down_proj.weight"])
        close(embedder.adapter.up_proj.bias.grad, gradients["embedder.1.0.up_proj.bias"])
        close(embedder.norm.weight.grad, gradients["embedder.1.2.weight"])
        close(model.translator[1].linear.weight.grad, gradients["translator.mlp.1.0.weight"])
        close(model.text_head.weight.grad, gradients["head_text.weight"])

    def test_a_model_of_three_subjects(self):
        tensors, _ = original("mindbridge_3subj")
        model = MindBridgeModel.from_original(part(tensors, "sd/"), **SPACES)
        assert model.config.subject_names == ["subj01", "subj02", "subj05"] and model.config.use_builders
        fmri, subjects = tensors["in/x"], [name for name in model.config.subject_names for _ in range(4)]
        # In another order of rows, which is given back.
        order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
        output = model(fmri[order], [subjects[row] for row in order])
        close(output.image_embeds.flatten(1), tensors["out/image"][order])
        close(output.text_embeds.flatten(1), tensors["out/text"][order])
        close(output.reconstructed_fmri, tensors["out/rec"][order])
        embeddings = torch.cat([tensors[f"out/embedding_{number}"] for number in (1, 2, 5)])
        close(output.fmri_embeds, embeddings[order])

    @pytest.mark.parametrize("pair", PAIRS)
    def test_every_pair(self, pair):
        tensors, _ = original("mindbridge_3subj")
        model = MindBridgeModel.from_original(part(tensors, "sd/"), **SPACES)
        subjects = [name for name in model.config.subject_names for _ in range(4)]
        source, target = pair
        suffix = f"{int(source[4:])}_{int(target[4:])}"
        output = model(tensors["in/x"], subjects, cycle_pair=pair)
        assert list(output.losses) == ["cycle"]
        close(output.losses["cycle"], tensors[f"out/cyc_{suffix}"])
        rows = [row for row, name in enumerate(subjects) if name == source]
        synthetic = model.synthesize(tensors["in/x"][rows], source=source, target=target)
        close(synthetic, tensors[f"out/pseudo_{suffix}"])
        close(model(synthetic, target).fmri_embeds, tensors[f"out/reembed_{suffix}"])

    def test_gradients_of_reconstruction_and_cycle(self):
        tensors, _ = original("mindbridge_3subj")
        model = MindBridgeModel.from_original(part(tensors, "sd/"), **SPACES)
        subjects = [name for name in model.config.subject_names for _ in range(4)]
        output = model(tensors["in/x"], subjects, cycle_pair=("subj05", "subj01"))
        probe = (output.reconstructed_fmri - tensors["in/x"]).square().mean() + output.losses["cycle"]
        close(probe, tensors["out/probe_loss"])
        probe.backward()
        gradients = part(tensors, "grad/")
        compared = 0
        for number in (1, 5):
            embedder, builder = model.embedders[f"subj{number:02d}"], model.builders[f"subj{number:02d}"]
            for name, parameter in [
                (f"embedder.{number}.1.weight", embedder.linear.weight),
                (f"embedder.{number}.2.bias", embedder.norm.bias),
                (f"builder.{number}.0.weight", builder.linear.weight),
                (f"builder.{number}.1.weight", builder.norm.weight),
                (f"builder.{number}.3.up_proj.bias", builder.adapter.up_proj.bias),
            ]:
                if name in gradients:
                    close(parameter.grad, gradients[name])
                    compared += 1
        assert compared >= 8
        assert all(each.grad is None for each in model.translator.parameters())

    def test_beginnings(self):
        stated = json.loads((FOLDER / "mindsingle_init_stats.json").read_text())
        torch.manual_seed(0)
        shape = {"subject_names": ["subj01"], "num_voxels": [96], "hidden_size": 64, "num_hidden_layers": 3}
        model = MindBridgeModel(MindBridgeConfig(**shape, use_builders=False, **SPACES))
        values = dict(zip(stated, _in_the_originals_order(model), strict=True))
        for name, expected in stated.items():
            found = values[name]
            assert list(found.shape) == expected["shape"]
            if expected["absmax"] == 0:
                assert found.abs().max() == 0, name
            else:
                # The largest of few values is no steady figure.
                tolerance = 0.02 if found.numel() > 1000 else 0.2
                assert found.abs().max().item() == pytest.approx(expected["absmax"], rel=tolerance), name
                assert found.std().item() == pytest.approx(expected["std"], rel=0.3, abs=1e-6), name

    @pytest.mark.parametrize(
        ("subjects", "builders", "expected"),
        [(1, False, 561_283_712), (3, True, 655_783_168), (4, True, 693_579_264), (8, True, 844_763_648)],
    )
    def test_published_sizes(self, subjects, builders, expected):
        # As the specification of the checkpoints counts them.
        from fmri_models.embedding_space import clip_image_tokens_space, clip_text_tokens_space

        config = MindBridgeConfig(
            subject_names=[f"subj{number:02d}" for number in range(1, subjects + 1)],
            num_voxels=[8192] * subjects,
            image_embedding_space=clip_image_tokens_space().to_dict(),
            text_embedding_space=clip_text_tokens_space().to_dict(),
            use_builders=builders,
        )
        with torch.device("meta"):
            model = MindBridgeModel(config)
        assert sum(parameter.numel() for parameter in model.parameters()) == expected
        of_one = [*model.embedders["subj01"].parameters(), *(model.builders["subj01"].parameters() if builders else [])]
        assert sum(each.numel() for each in of_one) == (37_796_096 if builders else 18_888_832)


def _in_the_originals_order(model: MindBridgeModel) -> list[torch.Tensor]:
    embedder = model.embedders["subj01"]
    modules: list[Any] = [embedder.adapter.down_proj, embedder.adapter.up_proj, embedder.linear, embedder.norm]
    for block in model.translator:
        modules += [block.linear, block.norm_activation.norm]
    return [
        values for module in [*modules, model.image_head, model.text_head] for values in (module.weight, module.bias)
    ]


class TestSynthesis:
    def test_responses_have_the_width_of_their_subject(self):
        model = tiny_model()
        made = model.synthesize(tiny_fmri("subj07", "subj05"), source=["subj07", "subj05"], target="subj02")
        assert made.shape == (2, 17) and (made != 0).all()
        narrow = model.synthesize(tiny_fmri("subj02"), source="subj02", target="subj07")
        assert narrow.shape == (1, 17) and (narrow[:, :11] != 0).all() and (narrow[:, 11:] == 0).all()
        assert model.decode(narrow, "subj07").image_embeds.isfinite().all()

    def test_a_subject_that_is_added_later_has_both_layers(self):
        model = tiny_model()
        before = model.decode(tiny_fmri("subj02"), "subj02").image_embeds
        model.add_subject("new", 19)
        # Others are padded to the width of the new one now, and stay what they were.
        fmri = torch.nn.functional.pad(tiny_fmri("subj02"), (0, 2))
        close(model.decode(fmri, "subj02").image_embeds, before)
        assert model.synthesize(fmri, "subj02", "new").shape == (1, 19)
        assert model(fmri, "subj02", cycle_pair=("subj02", "new")).losses["cycle"] > 0
        assert model.embedders["new"].adapter.up_proj.weight.abs().max() == 0

    def test_a_model_without_builders_says_so(self):
        model = tiny_model(use_builders=False)
        with pytest.raises(FmriModelsError, match="no builders"):
            model.synthesize(tiny_fmri("subj02"), "subj02", "subj07")
        with pytest.raises(FmriModelsError, match="no builders"):
            model(tiny_fmri("subj02"), "subj02", cycle_pair=("subj02", "subj07"))

    def test_unknown_subjects_are_named(self):
        with pytest.raises(FmriModelsError, match="subj99"):
            tiny_model().synthesize(tiny_fmri("subj02"), "subj02", "subj99")
        with pytest.raises(FmriModelsError, match="subj99"):
            tiny_model()(tiny_fmri("subj02"), "subj02", cycle_pair=("subj99", "subj07"))


class TestSpaces:
    def test_embeddings_are_divided_by_their_first_token_as_published(self):
        model = tiny_model()
        fmri = tiny_fmri("subj02", "subj05")
        output, decoding = model(fmri, ["subj02", "subj05"]), model.decode(fmri, ["subj02", "subj05"])
        for name in ("image_embeds", "text_embeds"):
            expected = output[name] / (output[name][:, :1].norm(dim=-1, keepdim=True) + 1e-6)
            close(decoding[name], expected)
        close(decoding.retrieval_embeds, output.image_embeds)

    def test_they_are_as_long_as_those_of_training_where_that_is_known(self):
        space = {**IMAGE_SPACE, "normalisation": "cls_norm"}
        model = tiny_model(image_embedding_space=space, image_embedding_norm=4.0, text_embedding_norm=3.0)
        decoding = model.decode(tiny_fmri("subj02"), "subj02")
        close(decoding.text_embeds.flatten(1).norm(dim=1), torch.tensor([3.0]))
        # The space itself says how long they are.
        close(decoding.image_embeds[:, 0].norm(dim=1), torch.tensor([1.0]))

    def test_one_axis_is_one_token(self):
        model = tiny_model(image_embedding_space={**IMAGE_SPACE, "shape": [8]})
        assert model.decode(tiny_fmri("subj02"), "subj02").image_embeds.shape == (1, 8)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"latent_space": {"encoder": "tiny", "layer": "latent", "shape": [1, 2, 2]}}, "decodes no latents"),
            ({"image_embedding_space": {**IMAGE_SPACE, "shape": [1, 2, 2]}}, r"shape \(tokens, width\)"),
            ({"adapter_size": 0}, "adapter_size"),
        ],
    )
    def test_what_does_not_fit_is_a_sentence(self, options, message):
        with pytest.raises(FmriModelsError, match=message):
            tiny_config(**options)

    def test_a_model_has_one_head_at_least(self):
        with pytest.raises(FmriModelsError, match="it has neither"):
            tiny_model(image_embedding_space=None, text_embedding_space=None)
