"""What PEFT's users do by habit works on every brain model, and adapters are saved with a pipeline."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from fmri_models import FmriToImagePipeline
from fmri_models.adapters import (
    adapters_of,
    base_state,
    check_can_be_kept,
    has_adapter_layers,
    keep_with_base,
    unwrapped,
)
from fmri_models.errors import FmriModelsError
from fmri_models.models.linear import LinearModel
from fmri_models.models.mindeye import MindEyePrior
from fmri_models.registry import method_names
from tests.models.linear.test_modeling_linear import TestLinearModel as Linear
from tests.models.linear.test_pipeline_linear import TestLinearPipeline as LinearPipelines
from tests.models.mindbridge.test_modeling_mindbridge import TestMindBridgeModel as MindBridge
from tests.models.mindbridge.test_pipeline_mindbridge import TestMindBridgePipeline as MindBridgePipelines
from tests.models.mindeye.test_modeling_mindeye import TestMindEyeLowLevelModel as MindEyeLowLevel
from tests.models.mindeye.test_modeling_mindeye import TestMindEyeModel as MindEye
from tests.models.mindeye.test_modeling_mindeye import tiny_config
from tests.models.mindeye.test_pipeline_mindeye import TestMindEyePipeline as MindEyePipelines
from tests.models.mindvis.test_modeling_mindvis import TestMindVisModel as MindVis
from tests.models.mindvis.test_pipeline_mindvis import TestMindVisPipeline as MindVisPipelines
from tests.new_process import python_with_libraries
from tests.test_modeling_common import SUBJECTS

ROWS = [*SUBJECTS, SUBJECTS[1]]
TESTERS: dict[str, Any] = {
    "linear": Linear,
    "mindbridge": MindBridge,
    "mindeye": MindEye,
    "mindeye_low_level": MindEyeLowLevel,
    "mindvis": MindVis,
}
PIPELINES: dict[str, Any] = {
    "linear": LinearPipelines,
    "mindbridge": MindBridgePipelines,
    "mindeye": MindEyePipelines,
    "mindvis": MindVisPipelines,
}


class Brain:
    """A saved tiny model, what it takes, and what it gives."""

    def __init__(self, tester: Any, folder: Path) -> None:
        self.tester, self.folder = tester, folder
        model = tester.make_model()
        model.save_pretrained(folder)
        self.model_class = type(model)
        self.fmri = tester.make_fmri(ROWS)
        self.targets = tester.make_targets(model, len(ROWS))
        model(fmri=self.fmri, subject_ids=ROWS, **self.targets).loss.backward()
        linears = [(name, each) for name, each in model.named_modules() if isinstance(each, torch.nn.Linear)]
        # Those that the model's own loss reaches: that of MinD-Vis' conditions is the generator's.
        self.linears = [name for name, each in linears if each.weight.grad is not None]

    def base(self) -> Any:
        return self.model_class.from_pretrained(self.folder)

    def decoded(self, model: Any) -> torch.Tensor:
        decoding = model.decode(self.fmri, ROWS, generator=torch.Generator().manual_seed(0))
        return torch.cat([values.flatten() for values in decoding.values()])

    def trained(self, model: Any) -> Any:
        """After two steps, the second of which reaches what the first one's zeros hid."""
        torch.manual_seed(0)
        optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.1)
        model.train()
        for _ in range(2):
            optimizer.zero_grad()
            model(fmri=self.fmri, subject_ids=ROWS, **self.targets).loss.backward()
            optimizer.step()
        return model.eval()


@pytest.fixture(params=TESTERS)
def brain(request, tmp_path):
    return Brain(TESTERS[request.param](), tmp_path / "base")


def test_every_method_is_here():
    assert set(method_names()) <= set(TESTERS) and set(method_names()) <= set(PIPELINES)


@pytest.mark.parametrize("targets", ["list", "regex", "all-linear"])
def test_an_adapter_learns_is_saved_loaded_and_merged(brain, tmp_path, targets):
    chosen = {"list": brain.linears[:2], "regex": f".*{brain.linears[0].rsplit('.', 2)[-2]}.*", "all-linear": targets}
    target_modules = chosen[targets]
    if targets == "regex":
        target_modules = "(" + "|".join(name.replace(".", r"\.") for name in brain.linears[:3]) + ")"
    model = peft.get_peft_model(brain.base(), peft.LoraConfig(task_type=None, r=2, target_modules=target_modules))
    model.print_trainable_parameters()
    before = brain.decoded(model)
    torch.testing.assert_close(before, brain.decoded(brain.base()))
    after = brain.decoded(brain.trained(model))
    assert not torch.allclose(before, after)
    with model.disable_adapter():
        torch.testing.assert_close(brain.decoded(model), before)
    model.save_pretrained(tmp_path / "adapter")
    loaded = peft.PeftModel.from_pretrained(brain.base(), tmp_path / "adapter")
    torch.testing.assert_close(brain.decoded(loaded), after)
    merged = loaded.merge_and_unload()
    assert type(merged) is brain.model_class
    torch.testing.assert_close(brain.decoded(merged), after, rtol=1e-3, atol=1e-3)
    merged.save_pretrained(tmp_path / "merged")
    again = brain.model_class.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(brain.decoded(again), after, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "config",
    [
        lambda names: peft.LoraConfig(r=2, target_modules=names[:2], use_dora=True),
        lambda names: peft.LoraConfig(r=2, target_modules=names[:1], init_lora_weights="pissa"),
        lambda names: peft.IA3Config(target_modules=names[:3], feedforward_modules=names[:1]),
        lambda names: peft.LoHaConfig(r=2, target_modules=names[:2]),
        lambda names: peft.OFTConfig(r=1, oft_block_size=0, target_modules=names[-1:]),
    ],
    ids=["dora", "pissa", "ia3", "loha", "oft"],
)
def test_other_methods_of_peft(brain, tmp_path, config):
    """With the weights of the base beside them, too, whatever a method does to those."""
    model = brain.base()
    model.add_adapter(config(brain.linears))
    after = brain.decoded(brain.trained(model))
    model.save_pretrained(tmp_path / "kept")
    assert not (tmp_path / "kept" / "config.json").exists()
    kept(model, tmp_path / "kept")
    torch.testing.assert_close(brain.decoded(brain.model_class.from_pretrained(tmp_path / "kept")), after)


def test_methods_that_share_tensors_need_the_wrapper(brain, tmp_path):
    config = peft.VeraConfig(r=2, target_modules=brain.linears[:2])
    after = brain.decoded(brain.trained(model := peft.get_peft_model(brain.base(), config)))
    model.save_pretrained(tmp_path / "adapter")
    loaded = peft.PeftModel.from_pretrained(brain.base(), tmp_path / "adapter")
    torch.testing.assert_close(brain.decoded(loaded), after)
    with pytest.raises(FmriModelsError, match="VERA"):
        brain.base().load_adapter(tmp_path / "adapter")
    with pytest.raises(FmriModelsError, match="VERA"):
        check_can_be_kept(unwrapped(model))


def kept(model: Any, folder: Path) -> None:
    """What a pipeline does with the folder of its brain model."""
    model.save_base(folder)
    keep_with_base(folder)


def test_a_subjects_own_layers_are_trained_and_saved_whole(brain, tmp_path):
    if not brain.model_class.has_subject_layers:
        pytest.skip("no layer belongs to a subject")
    own = next(name for name in brain.linears if SUBJECTS[2] in name)
    config = peft.LoraConfig(r=2, target_modules=[brain.linears[-1]], modules_to_save=[own])
    for adapted in (peft.get_peft_model(brain.base(), config), brain.base()):
        if isinstance(adapted, brain.model_class):
            adapted.add_adapter(config)
        after = brain.decoded(brain.trained(adapted))
        adapted.save_pretrained(tmp_path / "adapter")
        torch.testing.assert_close(
            brain.decoded(peft.PeftModel.from_pretrained(brain.base(), tmp_path / "adapter")), after
        )
        loaded = brain.base()
        loaded.load_adapter(tmp_path / "adapter")
        torch.testing.assert_close(brain.decoded(loaded), after)
        shutil.rmtree(tmp_path / "adapter")


def test_one_adapter_a_subject(brain, tmp_path):
    config = peft.LoraConfig(r=2, target_modules=brain.linears[:2], init_lora_weights=False)
    model = peft.get_peft_model(brain.base(), config, adapter_name="lora_subj07")
    model.add_adapter("lora_subj02", config)
    first = brain.decoded(model)
    model.set_adapter("lora_subj02")
    second = brain.decoded(model.eval())
    assert not torch.allclose(first, second)
    model.save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(brain.base(), tmp_path / "lora_subj07", adapter_name="lora_subj07")
    loaded.load_adapter(tmp_path / "lora_subj02", adapter_name="lora_subj02")
    torch.testing.assert_close(brain.decoded(loaded.eval()), first)
    loaded.set_adapter("lora_subj02")
    torch.testing.assert_close(brain.decoded(loaded), second)
    own = brain.base()
    own.load_adapter(tmp_path, "lora_subj02", adapter_kwargs={"subfolder": "lora_subj02"})
    torch.testing.assert_close(brain.decoded(own), second)


def test_an_adapter_on_a_subjects_layers_that_is_called_as_the_subject_is_a_sentence(tmp_path):
    torch.manual_seed(0)
    model = Linear().make_model()
    layer = f"heads.latents.{SUBJECTS[0]}.blocks.0"
    model.add_adapter(peft.LoraConfig(r=2, target_modules=[layer]), adapter_name=SUBJECTS[0])
    with pytest.raises(FmriModelsError, match="give the adapter another name, such as lora_subj07"):
        model.save_pretrained(tmp_path)


def test_transformers_own_methods(brain, tmp_path):
    model = brain.base()
    plain = brain.decoded(model)
    config = peft.LoraConfig(r=2, target_modules=brain.linears[:2], init_lora_weights=False)
    model.add_adapter(config, "one")
    model.add_adapter(config, "two")
    assert model.active_adapters() == ["two"]
    two = brain.decoded(model)
    model.set_adapter("one")
    one = brain.decoded(model)
    assert not torch.allclose(one, two)
    model.disable_adapters()
    torch.testing.assert_close(brain.decoded(model), plain)
    model.enable_adapters()
    model.save_pretrained(tmp_path / "one")
    model.delete_adapter("one")
    loaded = brain.base()
    loaded.load_adapter(tmp_path / "one", adapter_name="first")
    torch.testing.assert_close(brain.decoded(loaded), one)
    loaded.load_adapter(str(tmp_path / "one"), "second", is_trainable=True)
    assert set(loaded.peft_config) == {"first", "second"}
    with pytest.raises(FmriModelsError, match="already exists"):
        loaded.load_adapter(tmp_path / "one", adapter_name="first")
    model.delete_adapter("two")
    model.save_pretrained(tmp_path / "plain")
    torch.testing.assert_close(brain.decoded(brain.model_class.from_pretrained(tmp_path / "plain")), plain)


def test_what_has_no_such_layer_is_refused_as_peft_does(brain):
    with pytest.raises(ValueError, match="not found in the base model"):
        peft.get_peft_model(brain.base(), peft.LoraConfig(target_modules=["q_proj"]))


def test_injecting_and_state_dicts(brain):
    config = peft.LoraConfig(r=2, target_modules=brain.linears[:2], init_lora_weights=False)
    model = peft.inject_adapter_in_model(config, brain.base(), "default")
    state = peft.get_peft_model_state_dict(model)
    other = peft.inject_adapter_in_model(config, brain.base(), "default")
    peft.set_peft_model_state_dict(other, state)
    torch.testing.assert_close(brain.decoded(other.eval()), brain.decoded(model.eval()))


def test_preparing_for_quantised_training_and_checkpointing(brain):
    model = peft.prepare_model_for_kbit_training(brain.base())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    model = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=brain.linears[:2]))
    assert not torch.allclose(brain.decoded(model), brain.decoded(brain.trained(model)))


def test_gradients_reach_the_voxels_where_they_are_asked_for(brain):
    model = brain.base().requires_grad_(False)
    for call in (
        lambda: model(brain.fmri, ROWS, **brain.targets),
        lambda: model(fmri=brain.fmri, subject_ids=ROWS, **brain.targets),
    ):
        assert not call().loss.requires_grad
        model.enable_input_require_grads()
        assert call().loss.requires_grad and not brain.fmri.requires_grad
        model.disable_input_require_grads()


def test_auto_peft_model_in_this_and_in_a_new_process(brain, tmp_path):
    config = peft.LoraConfig(r=2, target_modules=brain.linears[:2], init_lora_weights=False)
    model = peft.get_peft_model(brain.base(), config)
    model.save_pretrained(tmp_path / "adapter")
    saved = peft.PeftConfig.from_pretrained(tmp_path / "adapter")
    assert saved.base_model_name_or_path == str(brain.folder)
    assert saved.auto_mapping["base_model_class"] == brain.model_class.__name__
    loaded = peft.AutoPeftModel.from_pretrained(tmp_path / "adapter", import_allowlist=["fmri_models"])
    torch.testing.assert_close(brain.decoded(loaded), brain.decoded(model.eval()))
    if brain.model_class is LinearModel:
        program = (
            "import sys, peft; print(type(peft.AutoPeftModel.from_pretrained(sys.argv[1], "
            "import_allowlist=['fmri_models']).get_base_model()).__name__)"
        )
        command = [*python_with_libraries(), "-c", program, str(tmp_path / "adapter")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.stdout.split() == ["LinearModel"], done.stderr[-2000:]


def test_the_prior_alone(tmp_path):
    torch.manual_seed(0)
    MindEyePrior(tiny_config()).eval().save_pretrained(tmp_path / "base")
    sample, brain_embeds = torch.randn(2, 4, 3, 8, generator=torch.Generator().manual_seed(1))
    inputs: dict[str, Any] = {"sample": sample, "timestep": 1, "brain_embeds": brain_embeds}
    config = peft.LoraConfig(target_modules=["to_query", "to_out", "expand"], init_lora_weights=False)
    model = peft.get_peft_model(MindEyePrior.from_pretrained(tmp_path / "base"), config)
    model(**inputs).square().mean().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    model.save_pretrained(tmp_path / "adapter")
    loaded = peft.AutoPeftModel.from_pretrained(tmp_path / "adapter", import_allowlist=["fmri_models"])
    torch.testing.assert_close(loaded(**inputs), model.eval()(**inputs))
    assert not torch.allclose(loaded.merge_and_unload().sample(brain_embeds), torch.zeros(4, 3, 8))


@pytest.fixture(params=PIPELINES)
def adapted(request):
    """A pipeline whose brain model has an adapter that changes pictures, and its tester."""
    tester = PIPELINES[request.param]()
    pipeline = tester.make_pipeline()
    plain = tester.drawn(pipeline, tester.make_betas())
    pipeline.brain_model.add_adapter(adapter_of(pipeline.brain_model))
    assert not torch.allclose(tester.drawn(pipeline, tester.make_betas()), plain)
    return pipeline, tester


def adapter_of(model: Any) -> peft.LoraConfig:
    torch.manual_seed(0)
    return peft.LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)


def test_a_pipeline_is_saved_with_its_adapter(adapted, tmp_path):
    pipeline, tester = adapted
    betas = tester.make_betas()
    pipeline.save_pretrained(tmp_path / "saved")
    assert str(tmp_path) not in "".join(file.read_text() for file in (tmp_path / "saved").rglob("*.json"))
    (tmp_path / "saved").rename(tmp_path / "moved")
    loaded = FmriToImagePipeline.from_pretrained(tmp_path / "moved")
    assert loaded.brain_model.active_adapters() == ["default"]
    torch.testing.assert_close(tester.drawn(loaded, betas), tester.drawn(pipeline, betas))
    alone = AutoModel.from_pretrained(tmp_path / "moved" / "brain_model")
    below = type(alone).from_pretrained(tmp_path / "moved", subfolder="brain_model")
    for model in (alone, below):
        assert model.active_adapters() == ["default"]
        with_it = tester.make_pipeline()
        with_it.register_modules(brain_model=model)
        torch.testing.assert_close(tester.drawn(with_it, betas), tester.drawn(pipeline, betas))
    loaded.save_pretrained(tmp_path / "moved")
    again = FmriToImagePipeline.from_pretrained(tmp_path / "moved")
    torch.testing.assert_close(tester.drawn(again, betas), tester.drawn(pipeline, betas))


def test_a_wrapped_brain_model_is_saved_as_what_it_wraps(tmp_path):
    tester = LinearPipelines()
    pipeline = tester.make_pipeline()
    betas = tester.make_betas()
    wrapped = peft.get_peft_model(pipeline.brain_model, adapter_of(pipeline.brain_model))
    made = type(pipeline)(wrapped, pipeline.processor, pipeline.image_generator)
    made.save_pretrained(tmp_path / "saved")
    loaded = FmriToImagePipeline.from_pretrained(tmp_path / "saved")
    torch.testing.assert_close(tester.drawn(loaded, betas), tester.drawn(made, betas))
    assigned = tester.make_pipeline()
    assigned.brain_model = peft.get_peft_model(assigned.brain_model, adapter_of(assigned.brain_model))
    drawn = tester.drawn(assigned, betas)
    assigned.save_pretrained(tmp_path / "assigned")
    torch.testing.assert_close(tester.drawn(FmriToImagePipeline.from_pretrained(tmp_path / "assigned"), betas), drawn)
    given = tester.make_pipeline()
    given.save_pretrained(tmp_path / "plain")
    replaced = FmriToImagePipeline.from_pretrained(tmp_path / "plain", brain_model=wrapped)
    torch.testing.assert_close(tester.drawn(replaced, betas), tester.drawn(made, betas))


def test_without_its_adapter_a_pipeline_is_saved_without_it(tmp_path):
    tester = LinearPipelines()
    pipeline = tester.make_pipeline()
    betas = tester.make_betas()
    plain = tester.drawn(pipeline, betas)
    pipeline.brain_model.add_adapter(adapter_of(pipeline.brain_model))
    pipeline.save_pretrained(tmp_path)
    pipeline.brain_model.delete_adapter("default")
    pipeline.save_pretrained(tmp_path)
    assert not list(tmp_path.rglob("adapter_*"))
    torch.testing.assert_close(tester.drawn(FmriToImagePipeline.from_pretrained(tmp_path), betas), plain)


def test_adapters_that_a_pipeline_can_not_keep_are_a_sentence(adapted, tmp_path):
    pipeline, _ = adapted
    model = pipeline.brain_model
    model.disable_adapters()
    with pytest.raises(FmriModelsError, match="'default' of the brain model is switched off"):
        pipeline.save_pretrained(tmp_path / "saved")
    model.enable_adapters()
    layer = next(each for each in model.modules() if hasattr(each, "merge") and hasattr(each, "base_layer"))
    layer.merge()
    with pytest.raises(FmriModelsError, match="merged into the brain model's weights"):
        pipeline.save_pretrained(tmp_path / "saved")
    layer.unmerge()
    model.add_adapter(adapter_of(model), "another")
    with pytest.raises(FmriModelsError, match=r"2 adapters \(default, another\)"):
        pipeline.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


@pytest.fixture
def adapter(tmp_path):
    """The folder of an adapter, and a model that it may be put on."""
    model = Linear().make_model()
    model.save_pretrained(tmp_path / "base")
    model = type(model).from_pretrained(tmp_path / "base")
    model.add_adapter(peft.LoraConfig(r=2, target_modules=["blocks.0"]))
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter", type(model).from_pretrained(tmp_path / "base")


def configure(folder: Path, **values: Any) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"r": 2**40}, "1099511627776 as r"),
        ({"rank_pattern": {"blocks.0": 10**9}}, "rank_pattern"),
        ({"megatron_config": {"a": 1}, "megatron_core": "antigravity"}, "imports code"),
        ({"peft_type": "NOTHING"}, "is of the method 'NOTHING', which the installed PEFT does not have"),
        ({"peft_type": None}, "is of the method None"),
        ({"target_modules": ["elsewhere"]}, "can't be put on this LinearModel"),
        ({"r": 3}, r"lora_A.*as \(2, \d+\); expected \(3, \d+\)"),
    ],
)
def test_a_configuration_of_no_such_adapter_is_a_sentence(adapter, values, sentence):
    folder, model = adapter
    configure(folder, **values)
    with pytest.raises(FmriModelsError, match=sentence):
        model.load_adapter(folder)
    assert "default" not in getattr(model, "peft_config", {})


def test_an_adapter_is_read_from_safetensors_alone(adapter):
    folder, model = adapter
    torch.save({}, folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").unlink()
    for load in (model.load_adapter, type(model).from_pretrained):
        with pytest.raises(FmriModelsError, match=r"adapter_model\.safetensors"):
            load(folder)


def test_half_an_adapter_is_a_sentence(adapter):
    folder, model = adapter
    tensors = load_file(folder / "adapter_model.safetensors")
    dropped = sorted(tensors)[0]
    save_file({name: tensors[name] for name in tensors if name != dropped}, folder / "adapter_model.safetensors")
    with pytest.raises(FmriModelsError, match="lacks .*lora_A"):
        model.load_adapter(folder)


def test_an_adapter_without_a_base_names_what_is_missing(adapter):
    folder, model = adapter
    configure(folder, base_model_name_or_path=None)
    with pytest.raises(FmriModelsError, match="names no model that it belongs to"):
        type(model).from_pretrained(folder)
    model.load_adapter(folder)


def test_an_adapter_of_a_pipelines_model_finds_its_base(tmp_path):
    LinearPipelines().make_pipeline().save_pretrained(tmp_path / "pipeline")
    model = LinearModel.from_pretrained(tmp_path / "pipeline", subfolder="brain_model")
    model.add_adapter(peft.LoraConfig(r=2, target_modules=["blocks.0"], init_lora_weights=False))
    model.save_pretrained(tmp_path / "adapter")
    loaded = LinearModel.from_pretrained(tmp_path / "adapter")
    assert loaded.active_adapters() == ["default"]


SLOW = "([a-z_.0-9]+)+!"


@pytest.mark.parametrize(
    "values",
    [
        {"target_modules": SLOW},
        {"target_modules": "(.|.)" * 30 + "!"},
        {"target_modules": ".*" * 20 + "!"},
        {"target_modules": "a?" * 40 + "b"},
        {"target_modules": r"(\w+)\1!"},
        {"exclude_modules": SLOW},
        {"modules_to_save": [SLOW]},
        {"rank_pattern": {SLOW: 2}},
        {"alpha_pattern": {f"{'.*' * 3}{number}!": 2 for number in range(9)}},
        {"layers_to_transform": [0], "layers_pattern": SLOW},
        {"layers_to_transform": [0], "layers_pattern": ["blocks", SLOW]},
        {"target_parameters": [SLOW]},
    ],
)
def test_patterns_that_would_never_end_are_a_sentence(adapter, values):
    folder, model = adapter
    configure(folder, **values)
    with pytest.raises(FmriModelsError, match="a pattern that may take very long"):
        model.load_adapter(folder)


def test_a_pattern_that_could_not_be_read_again_is_not_saved(tmp_path):
    pipeline = LinearPipelines().make_pipeline()
    pipeline.brain_model.add_adapter(peft.LoraConfig(r=2, target_modules=".*(o)+.*0"))
    with pytest.raises(FmriModelsError, match="a pattern that may take very long"):
        pipeline.save_pretrained(tmp_path / "pipeline")
    with pytest.raises(FmriModelsError, match="a pattern that may take very long"):
        pipeline.brain_model.save_pretrained(tmp_path / "adapter")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_4", "olora", "orthogonal", True])
def test_a_refused_adapter_leaves_the_model_as_it_was(adapter, start):
    folder, model = adapter
    before = {name: values.clone() for name, values in model.state_dict().items()}
    configure(folder, init_lora_weights=start)
    tensors = load_file(folder / "adapter_model.safetensors")
    for changed in (dict(list(tensors.items())[1:]), {name: values.int() for name, values in tensors.items()}):
        save_file(changed, folder / "adapter_model.safetensors")
        with pytest.raises(FmriModelsError, match=r"lacks .*lora_A|torch.int32; expected torch.float32"):
            model.load_adapter(folder)
        after = base_state(model)
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_refusal_inside_peft_leaves_the_model_as_it_was(adapter, monkeypatch):
    folder, model = adapter
    before = {name: values.clone() for name, values in model.state_dict().items()}
    configure(folder, init_lora_weights="pissa")

    def fails(*arguments: Any, **options: Any) -> Any:
        raise RuntimeError("no")

    monkeypatch.setattr(peft, "set_peft_model_state_dict", fails)
    with pytest.raises(FmriModelsError, match="can't be put on"):
        model.load_adapter(folder)
    after = base_state(model)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("shape", [(10_000_000, 0), (3_000_000, 1)])
def test_no_tensor_of_another_shape_makes_a_rank_possible(adapter, shape, monkeypatch):
    folder, model = adapter
    configure(folder, r=3_000_000)
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file({**tensors, "other": torch.ones(shape)}, folder / "adapter_model.safetensors")
    allocated: list[Any] = []
    monkeypatch.setattr(torch.nn.Module, "to_empty", lambda *arguments, **options: allocated.append(arguments))
    with pytest.raises(FmriModelsError, match="as r in its|and this model has not"):
        model.load_adapter(folder)
    assert not allocated and not adapters_of(model) and not has_adapter_layers(model)
