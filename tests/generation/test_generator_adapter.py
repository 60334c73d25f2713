"""LoRA on image generators: taken apart from its base, put on again, and what pipelines make of it."""

import json

import peft
import pytest
import torch
from diffusers import VQModel

from fmri_models import FmriToImagePipeline
from fmri_models.adapters import (
    ADAPTER_FILES,
    adapter_parameters,
    has_adapter_layers,
    remove_adapter_layers,
    without_adapter_layers,
)
from fmri_models.errors import FmriModelsError
from fmri_models.generation.double_conditioned import DoubleConditionedImageGenerator
from fmri_models.generation.embedded import EmbeddedImageGenerator
from fmri_models.generation.generator_adapter import (
    ADAPTER_FOLDER,
    GeneratorAdapter,
    base_alone,
    lora_parameters,
    put_lora,
    without_adapter,
)
from fmri_models.generation.pixels import PixelsImageGenerator
from fmri_models.generation.weights_digest import weights_digest
from fmri_models.output_folders import PIPELINE
from tests.generation.adapted import drawn, save_pipeline_with_lora, with_lora


class TwoNetworksGenerator(DoubleConditionedImageGenerator):
    """One whose autoencoder learns, too."""

    learning_components = ("unet", "vae")


def small(generator_class=DoubleConditionedImageGenerator, **networks):
    made = DoubleConditionedImageGenerator.for_stimuli((1, 8, 8), block_out_channels=[8, 16], context_dim=8)
    return generator_class(made.unet, made.scheduler, num_context_tokens=8, **networks)


def two_networks():
    torch.manual_seed(0)
    vae = VQModel(
        in_channels=1,
        out_channels=1,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        latent_channels=1,
        num_vq_embeddings=8,
        norm_num_groups=4,
    )
    return small(TwoNetworksGenerator, vae=vae.eval())


def told(generator):
    source = torch.Generator().manual_seed(0)
    spaces = generator.learned_condition_spaces
    return {name.removesuffix("_space"): torch.randn(2, *s.shape, generator=source) for name, s in spaces.items()}


def pictures(generator):
    sources = [torch.Generator().manual_seed(number) for number in range(2)]
    return generator(**told(generator), num_inference_steps=2, generator=sources, output_type="pt").images


def state_of(network):
    return {name: values.clone() for name, values in network.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_layers_are_taken_out_for_a_while_or_for_good():
    generator, untouched = small(), small()
    names, targets = list(untouched.unet.state_dict()), untouched.lora_targets(["cross_attention"])
    with_lora(generator)
    assert list(generator.unet.state_dict()) != names
    with pytest.raises(KeyError), without_adapter_layers(generator.unet):
        assert same(generator.unet.state_dict(), untouched.unet.state_dict())
        assert not has_adapter_layers(generator.unet)
        raise KeyError
    assert has_adapter_layers(generator.unet) and len(adapter_parameters(generator.unet)) == 2 * len(targets["unet"])
    assert generator.lora_targets(["cross_attention"]) == targets
    assert generator.parameters_of(["all"]).keys() == untouched.parameters_of(["all"]).keys()
    remove_adapter_layers(generator.unet)
    assert same(generator.unet.state_dict(), untouched.unet.state_dict()) and not adapter_parameters(generator.unet)


def test_what_is_put_on_changes_nothing_before_it_is_trained_and_is_a_function_of_its_seed():
    plain, first, again, other = (small() for _ in range(4))
    for generator, seed in ((first, 0), (again, 0), (other, 1)):
        torch.rand(seed + 3)
        put_lora(generator, ["cross_attention"], 2, 4.0, 0.0, seed=seed)
    assert torch.equal(pictures(first), pictures(plain))
    values = [torch.cat([each.flatten() for each in lora_parameters(g).values()]) for g in (first, again, other)]
    assert torch.equal(values[0], values[1]) and not torch.equal(values[0], values[2])
    assert all(each.requires_grad for each in first.unet.parameters()), "what is frozen is said elsewhere"
    assert not any(module.training for module in first.unet.modules())


@pytest.mark.parametrize(("make", "groups"), [(small, ["cross_attention"]), (small, ["all"]), (two_networks, ["all"])])
def test_saved_apart_it_is_put_on_its_base_again(tmp_path, make, groups):
    generator = with_lora(make(), groups)
    expected, networks = pictures(generator), list(generator.lora_targets(groups))
    assert len(networks) == len(generator.learning_components) and generator.adapter_base.condition_revision
    GeneratorAdapter.of(generator, is_beside_base=True).write(tmp_path / ADAPTER_FOLDER)
    files = {file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*") if file.is_file()}
    between = [""] if len(networks) == 1 else [f"{name}/" for name in networks]
    of_peft = [f"{place}{name}" for place in between for name in ADAPTER_FILES]
    assert files == {f"{ADAPTER_FOLDER}/{name}" for name in ("base_generator.json", *of_peft)}
    assert all(PIPELINE.is_own(tmp_path, name) for name in files)
    loaded = make()
    before = [state_of(getattr(loaded, name)) for name in networks]
    GeneratorAdapter.read(tmp_path / ADAPTER_FOLDER).put_on(loaded)
    assert torch.equal(pictures(loaded), expected)
    assert loaded.learned_condition_spaces == generator.learned_condition_spaces
    with base_alone(loaded):
        assert all(
            same(state, getattr(loaded, name).state_dict()) for name, state in zip(networks, before, strict=True)
        )
        assert loaded.config.condition_revision is None
    plain = without_adapter(loaded)
    assert torch.equal(pictures(plain), pictures(make())) and torch.equal(pictures(loaded), expected)
    with pytest.raises(FmriModelsError, match="has an adapter already"):
        GeneratorAdapter.read(tmp_path / ADAPTER_FOLDER).put_on(loaded)


def test_what_can_not_be_put_on_leaves_the_generator_as_it_was(tmp_path):
    GeneratorAdapter.of(with_lora(two_networks(), ["all"]), is_beside_base=True).write(tmp_path)
    adapter, generator = GeneratorAdapter.read(tmp_path), two_networks()
    broken = dict(adapter.networks["vae"].tensors)
    broken.pop(min(broken))
    object.__setattr__(adapter.networks["vae"], "tensors", broken)
    before = state_of(generator.unet)
    with pytest.raises(FmriModelsError, match="as nothing; expected"):
        adapter.put_on(generator)
    assert same(before, generator.unet.state_dict()) and generator.adapter_base is None
    assert not has_adapter_layers(generator.vae) and all(each.requires_grad for each in generator.unet.parameters())
    with pytest.raises(FmriModelsError, match="trained on a TwoNetworksGenerator and the image generator is a Double"):
        adapter.put_on(small())


def test_groups_without_layers_and_generators_without_groups_are_named():
    with pytest.raises(FmriModelsError, match="no group of parameters 'nothing'; it has"):
        put_lora(small(), ["nothing"], 2, 4.0, 0.0, seed=0)
    with pytest.raises(FmriModelsError, match="nothing of it can be trained"):
        put_lora(PixelsImageGenerator(1, 8, 8), ["cross_attention"], 2, 4.0, 0.0, seed=0)


def test_a_digest_is_of_values_in_a_precision():
    unet, half = small().unet, small().unet.to(torch.bfloat16)
    assert weights_digest([unet], torch.bfloat16) == weights_digest([half]) != weights_digest([unet])
    assert weights_digest([unet], torch.float32) == weights_digest([unet])


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return save_pipeline_with_lora(tmp_path_factory.mktemp("adapted") / "pipeline")


def test_a_method_whose_conditions_are_not_learned_draws_with_it(saved, tmp_path):
    pipeline = FmriToImagePipeline.from_pretrained(saved)
    expected, base = drawn(pipeline), pipeline.untrained_image_generator
    assert base is not pipeline.image_generator
    with_base = FmriToImagePipeline.from_pretrained(saved, image_generator=EmbeddedImageGenerator.from_assets())
    assert not torch.equal(drawn(with_base), expected)
    assert with_base.untrained_image_generator is with_base.image_generator
    assert torch.equal(drawn(type(pipeline)(pipeline.brain_model, pipeline.processor, base)), drawn(with_base))
    with_base.save_pretrained(tmp_path / "without")
    assert not (tmp_path / "without" / ADAPTER_FOLDER).exists()


def test_the_generator_of_the_package_may_be_named(saved, tmp_path):
    pipeline = FmriToImagePipeline.from_pretrained(saved, image_generator_source="embedded")
    pipeline.save_pretrained(tmp_path / "named")
    assert not (tmp_path / "named" / "image_generator").exists()
    named = FmriToImagePipeline.from_pretrained(tmp_path / "named")
    assert str(named.image_generator_source) == "embedded" and named.components["image_generator"] is None
    assert torch.equal(drawn(named), drawn(FmriToImagePipeline.from_pretrained(saved)))
    kept, own = (
        json.loads((place / ADAPTER_FOLDER / "base_generator.json").read_text())
        for place in (tmp_path / "named", saved)
    )
    assert kept == own


def test_an_adapter_may_be_given_in_the_place_of_the_saved_one(saved):
    generator = with_lora(EmbeddedImageGenerator.from_assets(), scale=-0.5)
    other = GeneratorAdapter.of(generator, is_beside_base=False)
    given = FmriToImagePipeline.from_pretrained(saved, image_generator_adapter=other)
    pipeline = FmriToImagePipeline.from_pretrained(saved)
    assert not torch.equal(drawn(given), drawn(pipeline))
    without = FmriToImagePipeline.from_pretrained(saved, image_generator_adapter=None)
    assert without.image_generator.adapter_base is None


def test_peft_loads_the_folder(saved):
    unet = EmbeddedImageGenerator.from_assets().unet
    loaded = peft.PeftModel.from_pretrained(unet, saved / ADAPTER_FOLDER)
    assert loaded.peft_config["default"].r == 2
