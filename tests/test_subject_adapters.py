"""LoRA of one subject on the layers that all share: of every method with layers of subjects."""

import copy
import json
import pickle
import shutil

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from fmri_models import FmriToImagePipeline
from fmri_models.errors import FmriModelsError
from fmri_models.modeling_fmri import FmriPreTrainedModel
from fmri_models.subject_adapters import (
    adapted_subjects,
    as_of_subject,
    by_adapter,
    check_only_of_subjects,
    merge_subject,
    put_subject_lora,
    read_subject_adapter,
    shared_layers,
    subject_lora_parameters,
)
from fmri_models.subject_modules import subject_modules
from tests.models.linear.test_modeling_linear import TestLinearModel as Linear
from tests.models.mindeye.test_modeling_mindeye import TestMindEyeModel as MindEye
from tests.test_modeling_common import SUBJECTS

WEIGHTS = "adapter_model.safetensors"
ROWS = [SUBJECTS[0], SUBJECTS[1], SUBJECTS[0]]


def changed(model, subject, seed=0):
    """Puts LoRA on a model that changes what it computes."""
    parameters = put_subject_lora(model, subject, shared_layers(model), 2, 4.0, 0.0, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model.eval()


def decoded(model, fmri, rows):
    decoding = model.decode(fmri, rows, generator=[torch.Generator().manual_seed(n) for n in range(len(rows))])
    return torch.cat([values.flatten(1) for values in decoding.values()], dim=1)


@pytest.fixture
def brain():
    tester = MindEye()
    return tester.make_model().eval(), tester.make_fmri(ROWS)


def test_rows_of_other_subjects_do_not_see_it(brain, tmp_path):
    model, fmri = brain
    before = decoded(model, fmri, ROWS)
    changed(model, SUBJECTS[0])
    after = decoded(model, fmri, ROWS)
    torch.testing.assert_close(after[1], before[1], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(after[0], before[0]) and not torch.allclose(after[2], before[2])
    # A single row is what it is among others.
    torch.testing.assert_close(decoded(model, fmri[:1], ROWS[:1])[0], after[0], rtol=1e-4, atol=1e-5)
    with as_of_subject(model, None):
        torch.testing.assert_close(model.encode(fmri, model.subject_indices(ROWS, 3)).shape[0], 3)
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert adapted_subjects(again) == [SUBJECTS[0]]
    torch.testing.assert_close(decoded(again, fmri, ROWS), after)
    torch.testing.assert_close(again.retrieval_embeds(fmri, ROWS), model.retrieval_embeds(fmri, ROWS))
    assert all(parameter.requires_grad for name, parameter in again.named_parameters() if ".lora_" not in name)


def test_two_subjects_have_their_own(brain):
    model, fmri = brain
    changed(model, SUBJECTS[0], seed=1)
    first = decoded(model, fmri, ROWS)
    changed(model, SUBJECTS[1], seed=2)
    both = decoded(model, fmri, ROWS)
    torch.testing.assert_close(both[[0, 2]], first[[0, 2]], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(both[1], first[1])
    widths = model.config.voxels_by_subject
    merged = merge_subject(model, SUBJECTS[1])
    assert adapted_subjects(merged) == [] and merged.config.voxels_by_subject == {SUBJECTS[1]: widths[SUBJECTS[1]]}
    assert {tuple(each.names) for each in subject_modules(merged).values()} == {(SUBJECTS[1],)}
    # Of its row, so that noise is the same.
    alone = decoded(merged, fmri[[1, 1], : widths[SUBJECTS[1]]], [SUBJECTS[1]] * 2)
    torch.testing.assert_close(alone[1], both[1], rtol=1e-3, atol=1e-4)
    with pytest.raises(FmriModelsError, match="has no adapter"):
        merge_subject(model, SUBJECTS[1])
    with pytest.raises(FmriModelsError, match="is unknown to this model"):
        merge_subject(model, SUBJECTS[0])


def test_what_can_not_be_merged_changes_nothing(brain):
    model, fmri = brain
    changed(model, SUBJECTS[0])
    before = decoded(model, fmri, ROWS)
    parameters = subject_lora_parameters(model, SUBJECTS[0])
    last = [values for name, values in parameters.items() if ".lora_B." in name][-1]
    kept = last.detach().clone()
    with torch.no_grad():
        last.fill_(3e38)
    with pytest.raises(FmriModelsError, match="weights of MindEyeModel are not finite"):
        merge_subject(model, SUBJECTS[0])
    with torch.no_grad():
        last.copy_(kept)
    assert adapted_subjects(model) == [SUBJECTS[0]] and model.config.subject_names == SUBJECTS
    torch.testing.assert_close(decoded(model, fmri, ROWS), before, rtol=0, atol=0)


def test_the_call_of_a_model_computes_rows_with_their_own_adapter(brain):
    model, fmri = brain
    before = model(fmri, ROWS)
    changed(changed(model, SUBJECTS[0], seed=1), SUBJECTS[1], seed=2)
    mixed, alone = model(fmri, ROWS), [model(fmri[[row]], [ROWS[row]]) for row in range(3)]
    assert not torch.allclose(mixed.token_embeds[0], before.token_embeds[0])
    for name in ("token_embeds", "projected_embeds"):
        expected = torch.cat([output[name] for output in alone])
        torch.testing.assert_close(mixed[name], expected, rtol=1e-4, atol=1e-5)
    in_a_tuple = model(fmri, ROWS, return_dict=False)
    torch.testing.assert_close(in_a_tuple[0], mixed[0])
    hidden = model(fmri, ROWS, output_hidden_states=True).hidden_states
    assert {len(each) for each in hidden} == {3}

    targets = torch.randn_like(mixed.token_embeds)
    with pytest.raises(FmriModelsError, match=r"image_embeds is given.*one subject at a time"):
        model(fmri, ROWS, image_embeds=targets)
    assert model(fmri[[0, 2]], [SUBJECTS[0]] * 2, image_embeds=targets[[0, 2]]).loss.isfinite()
    # What learns is what is active, whichever rows stand beside it.
    model.train()
    seen = []
    for subject in (None, SUBJECTS[0]):
        torch.manual_seed(0)
        with as_of_subject(model, subject):
            seen.append(model(fmri, ROWS).token_embeds)
    assert not torch.allclose(seen[0][1], seen[1][1])


def test_a_graph_keeps_no_groups(brain):
    model, fmri = brain
    ids = changed(model, SUBJECTS[0]).subject_indices(ROWS, 3)
    with pytest.raises(Exception, match="computed in groups.*merge_subject"), torch.no_grad():
        torch.jit.trace(lambda *inputs: model(*inputs, return_dict=False)[0], (fmri, ids))


def test_a_method_without_shared_layers():
    model = Linear().make_model()
    with pytest.raises(FmriModelsError, match="no shared linear layer"):
        put_subject_lora(model, SUBJECTS[0], shared_layers(model), 2, 4.0, 0.0, 0)


def test_saving_without_it_removes_its_folder(brain, tmp_path):
    model, _ = brain
    plain = {name: values.clone() for name, values in model.state_dict().items()}
    changed(model, SUBJECTS[0]).save_pretrained(tmp_path)
    again = MindEye().make_model()
    again.load_state_dict(plain)
    again.save_pretrained(tmp_path)
    assert adapted_subjects(type(again).from_pretrained(tmp_path)) == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: shutil.copytree(folder / "subject_x", folder / "subject_nobody"), "adapter of no subject"),
        (lambda folder: (folder / "subject_x" / WEIGHTS).write_bytes(b"no"), "adapter"),
        (lambda folder: (folder / "subject_x" / "adapter_config.json").unlink(), "adapter"),
        (
            lambda folder: (folder / "subject_x" / "adapter_model.safetensors").rename(
                folder / "subject_x" / "adapter_model.bin"
            ),
            "adapter",
        ),
    ],
    ids=["nobody", "damaged", "no configuration", "a pickle"],
)
def test_folders_that_are_not_whole(brain, tmp_path, damage, message):
    model, _ = brain
    changed(model, SUBJECTS[0]).save_pretrained(tmp_path)
    folder = tmp_path / "subject_adapters"
    own = folder / f"subject_{SUBJECTS[0]}"
    (folder / "subject_x").symlink_to(own, target_is_directory=True)
    damage(folder)
    (folder / "subject_x").unlink()
    with pytest.raises(FmriModelsError, match=message):
        type(model).from_pretrained(tmp_path)


def test_an_adapter_that_would_change_other_subjects_is_refused_and_changes_nothing(brain, tmp_path):
    model, _ = brain
    base = type(model)(model.config)
    base.load_state_dict(model.state_dict())
    changed(model, SUBJECTS[0]).save_pretrained(tmp_path)
    folder = tmp_path / "subject_adapters" / f"subject_{SUBJECTS[0]}"
    stated = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / WEIGHTS)
    base.train()
    before = {name: values.clone() for name, values in base.state_dict().items()}
    learned = [parameter.requires_grad for parameter in base.parameters()]

    def check(message, options=None, further=None, without=()):
        (folder / "adapter_config.json").write_text(json.dumps({**stated, **(options or {})}))
        kept = {name: values for name, values in tensors.items() if name not in without}
        save_file({**kept, **(further or {})}, folder / WEIGHTS)
        with pytest.raises(FmriModelsError, match=message):
            read_subject_adapter(base, SUBJECTS[0], folder)
        after = base.state_dict()
        assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)
        assert [parameter.requires_grad for parameter in base.parameters()] == learned
        assert all(module.training for module in base.modules()) and not getattr(base, "peft_config", None)

    check("init_lora_weights='pissa'.*all subjects share", {"init_lora_weights": "pissa"})
    check("bias='all'.*all subjects share", {"bias": "all"})
    check("modules_to_save", {"modules_to_save": ["backbone"]})
    check("layer_replication", {"layer_replication": [[0, 1]]})
    check("no LoRA", {"peft_type": "IA3"})
    check("is no LoRA on layers", further={"base_model.model.backbone.bias": torch.zeros(2)})
    check("is no LoRA on layers", further={"base_model.model.backbone.input.layers.0.lora_A.weight": torch.zeros(2, 2)})
    check("lacks", without=(sorted(tensors)[0],))
    check("expected", further={sorted(tensors)[0]: torch.zeros(3, 5)})
    check(r"(?i)adapter", {"target_modules": ["nothing"]})
    (folder / "adapter_config.json").write_text(json.dumps(stated))
    save_file(tensors, folder / WEIGHTS)
    read_subject_adapter(base, SUBJECTS[0], folder)
    assert adapted_subjects(base) == [SUBJECTS[0]]


def test_a_subjects_adapter_is_saved_in_the_precision_of_its_layers_and_only_if_finite(brain, tmp_path):
    model, _ = brain
    changed(model, SUBJECTS[0]).save_subject(SUBJECTS[0], tmp_path / "half", dtype="float16")
    found = load_file(tmp_path / "half" / "adapter" / WEIGHTS)
    assert {values.dtype for values in found.values()} == {torch.float16}
    for value, mend in ((1e6, "wider dtype"), (float("nan"), "train it again")):
        with torch.no_grad():
            next(values for name, values in model.named_parameters() if ".lora_B" in name).fill_(value)
        with pytest.raises(FmriModelsError, match=f"adapter of the subject {SUBJECTS[0]} has values.*{mend}"):
            model.save_subject(SUBJECTS[0], tmp_path / "none", dtype="float16")
    assert not (tmp_path / "none").exists()


def test_adapters_of_a_model_whose_weights_are_kept_elsewhere(brain, tmp_path):
    from accelerate import cpu_offload

    model, fmri = brain
    expected = decoded(changed(model, SUBJECTS[0]), fmri, ROWS)
    model.save_subject(SUBJECTS[0], tmp_path / "here")
    cpu_offload(model, "cpu")
    torch.testing.assert_close(decoded(model, fmri, ROWS), expected)
    model.save_subject(SUBJECTS[0], tmp_path / "elsewhere")
    here, elsewhere = (load_file(tmp_path / name / "adapter" / WEIGHTS) for name in ("here", "elsewhere"))
    assert here.keys() == elsewhere.keys() and all(torch.equal(here[name], elsewhere[name]) for name in here)
    with pytest.raises(FmriModelsError, match="without offloading"):
        merge_subject(model, SUBJECTS[0])


@pytest.mark.slow
def test_copies_have_them_too(brain):
    model, fmri = brain
    expected = decoded(changed(model, SUBJECTS[0]), fmri, ROWS)
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert adapted_subjects(copied) == [SUBJECTS[0]]
        torch.testing.assert_close(decoded(copied, fmri, ROWS), expected, rtol=0, atol=0)
        # A further subject is the copy's alone.
        copied.add_subject("further", 4)
        assert model.config.subject_names == SUBJECTS and len(subject_modules(model)["backbone.input.layers"]) == 3
    compiled = copy.deepcopy(model)
    compiled.compile(backend="eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(fmri, ROWS).token_embeds, model(fmri, ROWS).token_embeds)
    assert {each.dtype for each in copied.to(torch.bfloat16).parameters()} == {torch.bfloat16}
    assert decoded(copied, fmri, ROWS).isfinite().all()


def test_rows_of_others_are_not_computed_with_a_merged_adapter(brain):
    model, fmri = brain
    changed(changed(model, SUBJECTS[0], seed=1), SUBJECTS[1], seed=2)
    before = decoded(model, fmri, ROWS)
    layers = [layer for layer in model.modules() if hasattr(layer, "lora_A") and hasattr(layer, "merge")]
    for layer in layers:
        layer.merge(adapter_names=[f"subject_{SUBJECTS[0]}"])
    with pytest.raises(FmriModelsError, match="merged into the brain model"):
        decoded(model, fmri, ROWS)
    for layer in layers:
        layer.unmerge()
    torch.testing.assert_close(decoded(model, fmri, ROWS), before, rtol=1e-4, atol=1e-5)


def test_other_adapters_beside_are_refused(brain):
    model, _ = brain
    changed(model, SUBJECTS[0])
    peft.inject_adapter_in_model(peft.LoraConfig(r=2, target_modules=shared_layers(model)[:1]), model, "mine")
    with pytest.raises(FmriModelsError, match="'mine', which is none of them"):
        check_only_of_subjects(model)


OTHERS = {
    "LoRA": lambda: peft.LoraConfig(r=2, target_modules=r"backbone\.(blocks\.\d+\.linear|output)"),
    "DoRA": lambda: peft.LoraConfig(r=2, target_modules=r"backbone\.output", use_dora=True),
    "a copy": lambda: peft.LoraConfig(
        r=2, target_modules=["backbone.output"], modules_to_save=[f"input.layers.{SUBJECTS[1]}"]
    ),
}


def filled(model, names):
    generator = torch.Generator().manual_seed(4)
    for name in names:
        values = model.get_parameter(name)
        values.add_(torch.randn(values.shape, generator=generator) * 0.5)


@pytest.mark.parametrize("kind", OTHERS)
def test_an_adapter_of_a_users_own_stands_beside_them(brain, tmp_path, kind):
    model, fmri = brain
    plain = decoded(model, fmri, ROWS)
    changed(model, SUBJECTS[0]).save_pretrained(tmp_path / "base")
    model.save_subject(SUBJECTS[0], tmp_path / "subject")
    model = type(model).from_pretrained(tmp_path / "base")
    with torch.no_grad():
        before = decoded(model, fmri, ROWS)
        model.add_adapter(OTHERS[kind](), "mine")
        # Nothing of it yet; rounding differs with what asks for gradients.
        torch.testing.assert_close(decoded(model, fmri, ROWS), before, rtol=1e-4, atol=1e-6)
    own = [name for name, each in model.named_parameters() if each.requires_grad]
    assert own and all("mine" in name for name in own)
    with torch.no_grad():
        filled(model, own)
        both = decoded(model, fmri, ROWS)
        assert not torch.allclose(both[0], before[0]) and not torch.allclose(both[1], before[1])
        model.set_adapter("mine")
        torch.testing.assert_close(decoded(model, fmri, ROWS), both)
        model.disable_adapters()
        torch.testing.assert_close(decoded(model, fmri, ROWS), plain, rtol=1e-4, atol=1e-5)
        with pytest.raises(FmriModelsError, match="'mine', which is none of them"):
            model.save_subject(SUBJECTS[0], tmp_path / "none")
        model.enable_adapters()
        torch.testing.assert_close(decoded(model, fmri, ROWS), both)
        if kind != "a copy":  # whose module PEFT switches to no adapter that has none of it
            model.set_adapter(f"subject_{SUBJECTS[0]}")
            torch.testing.assert_close(decoded(model, fmri, ROWS), before, rtol=1e-4, atol=1e-5)
        model.delete_adapter("mine")
        torch.testing.assert_close(decoded(model, fmri, ROWS), before, rtol=1e-4, atol=1e-5)
        model.save_pretrained(tmp_path / "again")
        torch.testing.assert_close(
            decoded(type(model).from_pretrained(tmp_path / "again"), fmri, ROWS), before, rtol=1e-4, atol=1e-5
        )


def test_a_subjects_adapter_leaves_a_users_own_as_it_is(brain, tmp_path):
    model, fmri = brain
    changed(model, SUBJECTS[0]).save_pretrained(tmp_path / "base")
    folder = tmp_path / "base" / "subject_adapters" / f"subject_{SUBJECTS[0]}"
    merged = MindEye().make_model().eval()
    merged.add_adapter(OTHERS["a copy"](), "mine")
    with torch.no_grad():
        filled(merged, [name for name, _ in merged.named_parameters() if "mine" in name])
        before = decoded(merged, fmri, ROWS)
        read_subject_adapter(merged, SUBJECTS[0], folder)
        after = decoded(merged, fmri, ROWS)
        torch.testing.assert_close(after[1], before[1], rtol=1e-4, atol=1e-5)
        assert not torch.allclose(after[0], before[0])
        merged.disable_adapters()
        off = decoded(merged, fmri, ROWS)
        read_subject_adapter(merged, SUBJECTS[1], folder)
        torch.testing.assert_close(decoded(merged, fmri, ROWS), off)


def test_a_loaded_adapter_of_a_users_own_is_all_that_is_trained(brain, tmp_path):
    model, _ = brain
    other = MindEye().make_model()
    other.add_adapter(OTHERS["LoRA"]())
    other.save_pretrained(tmp_path)
    changed(model, SUBJECTS[0])
    model.load_adapter(tmp_path, "mine", is_trainable=True)
    assert all(".mine." in name for name, each in model.named_parameters() if each.requires_grad)
    fresh = changed(MindEye().make_model(), SUBJECTS[0])
    learned = [each.requires_grad for each in fresh.parameters()]
    with pytest.raises(FmriModelsError, match="adapter"):
        (tmp_path / WEIGHTS).write_bytes(b"no")
        fresh.load_adapter(tmp_path, "mine")
    with pytest.raises(ValueError, match="Target modules"):
        fresh.add_adapter(peft.LoraConfig(target_modules=["nothing"]), "mine")
    assert [each.requires_grad for each in fresh.parameters()] == learned


def test_other_kinds_of_adapters_do_not_go_beside_them(brain, tmp_path):
    config = peft.IA3Config(target_modules=r"backbone\.blocks\.\d+\.linear", feedforward_modules=[])
    other = MindEye().make_model()
    other.add_adapter(config)
    other.save_pretrained(tmp_path)
    model, fmri = brain
    before = decoded(changed(model, SUBJECTS[0]), fmri, ROWS)
    with pytest.raises(FmriModelsError, match="IA3.*beside adapters of subjects"):
        model.add_adapter(config, "mine")
    with pytest.raises(FmriModelsError, match="IA3.*beside adapters of subjects"):
        model.load_adapter(tmp_path, "mine")
    torch.testing.assert_close(decoded(model, fmri, ROWS), before, rtol=0, atol=0)


def test_adapters_that_are_switched_off_are_not_saved(brain, tmp_path):
    model, _ = brain
    changed(model, SUBJECTS[0]).disable_adapters()
    with pytest.raises(FmriModelsError, match="switched off.*enable_adapters"):
        model.save_pretrained(tmp_path)


def test_the_wrapper_takes_arguments_by_place():
    class Plain:
        config = type("Config", (), {"subject_names": ["a"]})()

        @by_adapter
        def decode(self, fmri, subject_ids=None, num_candidates=1, generator=None):
            return fmri, subject_ids, num_candidates, generator

    assert Plain().decode(1, None, 2, 3) == (1, None, 2, 3)
    assert issubclass(FmriPreTrainedModel, torch.nn.Module) and FmriToImagePipeline
