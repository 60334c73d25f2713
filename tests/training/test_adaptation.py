"""New subjects for a trained model: their own layers, LoRA on what all share, or all of it."""

import json

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch

from fmri_models import FmriToImagePipeline
from fmri_models.data import TrialTable
from fmri_models.data.splits import DrawnSplit, add_split
from fmri_models.errors import FmriModelsError
from fmri_models.evaluation.evaluate import evaluate
from fmri_models.subject_adapters import adapted_subjects
from fmri_models.training.estimate import estimate
from fmri_models.training.interruption import TrainingInterrupted
from fmri_models.training.trainer import train
from tests.small_table import write_small_table
from tests.training.small_recipes import recipes_in, small_method
from tests.training.test_gradient import stage_of_subjects

STEPS = "stages.0.training.steps=12"
PLAIN = "stages.0.objective.noise=0"


@pytest.fixture(scope="session")
def new_data(tmp_path_factory):
    """A table of one new subject, with the pictures and the split of the small table."""
    return write_small_table(
        tmp_path_factory.mktemp("new") / "data", ("subj02",), name="new", subject_names={"subj02": "anna.b"}
    )


@pytest.fixture(scope="module")
def base(small_data, tmp_path_factory):
    """The model that others are adapted from; nothing changes its folder."""
    with small_method():
        (folder,) = train(recipes_in(tmp_path_factory.mktemp("base"), small_data)("base", STEPS))
    return folder


@pytest.fixture
def adapt(make_recipe, base, new_data, tmp_path):
    def make(mode, *overrides, out="adapted"):
        recipe = [f"data={new_data}", f"initial_model={base}", f"adaptation={mode}", "processor={}", STEPS]
        return make_recipe(out, *recipe, *overrides)

    return make


def loaded(folder):
    return FmriToImagePipeline.from_pretrained(folder)


def decoded(pipeline, subject, width):
    fmri = torch.randn(3, width, generator=torch.Generator().manual_seed(1))
    features = torch.nn.functional.pad(fmri, (0, max(pipeline.brain_model.config.num_voxels) - width))
    return pipeline.decode(features, [subject] * 3, generator=torch.Generator().manual_seed(0)).latents


def state(pipeline):
    model = pipeline.brain_model
    return {name: values.clone() for name, values in model.state_dict().items()}


@pytest.mark.parametrize("mode", ["reset", "lora", "full"])
def test_the_pipeline_has_all_subjects(adapt, base, mode, new_data):
    (folder,) = train(adapt(mode))
    before, after = loaded(base), loaded(folder)
    assert after.brain_model.config.subject_names == ["subj02", "subj07", "anna.b"] == after.processor.subject_names
    for name, width in (("subj07", 60), ("subj02", 45)):
        same = torch.equal(decoded(before, name, width), decoded(after, name, width))
        assert same == (mode != "full"), name
    own = {name: values for name, values in state(before).items() if ".layers." in name}
    for name, values in own.items():
        # Layers of subjects without trials here rest.
        assert torch.equal(state(after)[name], values)
    fmri = TrialTable.open(new_data).trials("anna.b", "test").fmri(np.arange(2))
    assert len(after(fmri, subject="anna.b", session=1).images) == 2
    record = json.loads((folder / "training.json").read_text())
    trained = record["stages"][0]["trained_parameters"]
    assert (trained == 46 * 32) == (mode == "reset") and trained >= 46 * 32
    assert record["recipe"]["adaptation"] == mode and [each["table"] for each in record["learned_from"]] == [
        "new",
        "small",
    ]


def test_what_is_trained(adapt):
    trained = {}
    for mode, more in (("reset", []), ("lora", ["lora={r: 4}"]), ("full", [])):
        stage, _ = stage_of_subjects(adapt(mode, *more))
        names = {id(parameter): name for name, parameter in stage.model.named_parameters()}
        trained[mode] = {names[id(parameter)] for parameter in stage.weights.parameters}
        assert {name for name, parameter in stage.model.named_parameters() if parameter.requires_grad} == trained[mode]
    layers = {"subject_layers.layers.anna%2Eb.weight", "subject_layers.layers.anna%2Eb.bias"}
    assert trained["reset"] == layers
    assert {name for name in trained["lora"] if ".lora_" not in name} == layers
    assert {name.split(".lora_")[0] for name in trained["lora"] - layers} == {"network.3", "head"}
    assert "head.weight" in trained["full"] and not any("subj07" in name for name in trained["full"])


def test_lora_is_of_its_subject_alone(adapt, base):
    (folder,) = train(adapt("lora", "stages.0.training.learning_rate=0.05"))
    assert (folder / "brain_model" / "subject_adapters" / "subject_anna%2Eb" / "adapter_config.json").is_file()
    assert not (folder / "brain_model" / "adapter_config.json").exists()
    pipeline = loaded(folder)
    assert adapted_subjects(pipeline.brain_model) == ["anna.b"]
    fmri = torch.randn(5, 60, generator=torch.Generator().manual_seed(3))
    fmri[:, 45:] = 0
    mixed = pipeline.decode(fmri, ["subj02", "anna.b", "subj07", "anna.b", "subj02"]).latents
    for row, name in enumerate(["subj02", "anna.b", "subj07", "anna.b", "subj02"]):
        alone = pipeline.decode(fmri[row : row + 1], [name]).latents
        torch.testing.assert_close(mixed[row : row + 1], alone)
    once_more = folder.parent / "again"
    pipeline.save_pretrained(once_more)
    torch.testing.assert_close(
        loaded(once_more).decode(fmri, ["anna.b"] * 5).latents, pipeline.decode(fmri, ["anna.b"] * 5).latents
    )
    own = pipeline.decode(fmri, ["anna.b"] * 5).latents
    merged, width = loaded(folder), pipeline.brain_model.config.voxels_by_subject["anna.b"]
    merged.merge_subject("anna.b")
    torch.testing.assert_close(merged.decode(fmri[:, :width], ["anna.b"] * 5).latents, own, rtol=1e-4, atol=1e-5)
    merged.save_pretrained(folder.parent / "merged")
    assert not (folder.parent / "merged" / "brain_model" / "subject_adapters").exists()
    again = loaded(folder.parent / "merged")
    assert again.processor.subject_names == again.brain_model.config.subject_names == ["anna.b"]
    assert adapted_subjects(again.brain_model) == []
    # All that is known of its training stays so: nobody has changed what it learned from.
    assert again.training_record.unknown_initial_models == pipeline.training_record.unknown_initial_models
    assert again.training_record.learned_from == pipeline.training_record.learned_from
    for name, message in (("subj02", "has no adapter"), ("nobody", "nobody")):
        with pytest.raises(FmriModelsError, match=message):
            pipeline.merge_subject(name)
    assert pipeline.processor.subject_names[-1] == "anna.b" and adapted_subjects(pipeline.brain_model) == ["anna.b"]
    base_alone = loaded(base).decode(fmri, ["subj02"] * 5).latents
    torch.testing.assert_close(pipeline.decode(fmri, ["subj02"] * 5).latents, base_alone)


def test_a_second_subject_is_added_to_an_adapted_model(adapt, tmp_path_factory, make_recipe):
    (first,) = train(adapt("lora"))
    other = write_small_table(
        tmp_path_factory.mktemp("third") / "data", ("subj07",), name="third", subject_names={"subj07": "ben"}
    )
    recipe = [f"data={other}", f"initial_model={first}", "adaptation=lora", "processor={}", STEPS]
    (second,) = train(make_recipe("second", *recipe))
    pipeline, before = loaded(second), loaded(first)
    assert adapted_subjects(pipeline.brain_model) == ["anna.b", "ben"]
    for name, width in (("subj07", 60), ("subj02", 45), ("anna.b", 45)):
        torch.testing.assert_close(decoded(pipeline, name, width), decoded(before, name, width))
    with pytest.raises(FmriModelsError, match="anna.b of the initial model have LoRA"):
        train(make_recipe("third", *recipe[:2], "adaptation=full", "processor={}", STEPS))


def test_sources_are_read_with_the_base_s_own_layers(adapt, small_data):
    stage, subjects = stage_of_subjects(adapt("reset", f"sources={small_data}"))
    assert stage.model.config.subject_names == ["subj02", "subj07", "anna.b"] and not subjects.passing
    batch = next(stage.batches(0))
    assert batch["subject_ids"].bincount().tolist()[2] == 8
    assert len(stage.weights.parameters) == 2
    stage, _ = stage_of_subjects(adapt("full", f"sources=[{{data: {small_data}, subjects: [subj07]}}]"))
    assert next(stage.batches(0))["subject_ids"].bincount().tolist() == [0, 8, 8]
    names = {id(parameter): name for name, parameter in stage.model.named_parameters()}
    trained = {names[id(parameter)] for parameter in stage.weights.parameters}
    assert any("subj07" in name for name in trained) and not any("subj02" in name for name in trained)


def test_resuming_an_adaptation_is_exact(adapt, monkeypatch):
    import signal

    from tests.training.small_method import SmallObjective

    (whole,) = train(adapt("lora", out="whole"))
    losses, calls = SmallObjective.losses, []

    def interrupted(self, *arguments):
        calls.append(1)
        if len(calls) == 7:
            signal.raise_signal(signal.SIGINT)
        return losses(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(SmallObjective, "losses", interrupted)
        with pytest.raises(TrainingInterrupted):
            train(adapt("lora", out="halted"))
    (halted,) = train(adapt("lora", out="halted"), resume=True)
    first, second = state(loaded(whole)), state(loaded(halted))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_the_estimate_counts_what_is_trained(adapt):
    assert "1,472 are trained" in estimate(adapt("reset"))
    assert "7,072 are trained" not in estimate(adapt("reset"))


@pytest.mark.parametrize(
    ("mode", "overrides", "message"),
    [
        ("reset", ["initial_model=null"], "no initial_model whose subjects"),
        ("reset", ["model.hidden_size=8"], "model.hidden_size and an adaptation"),
        ("reset", ["processor.statistics=pooled"], "processor.statistics and an adaptation"),
        ("reset", ["lora={r: 2}"], "lora and not adaptation: lora"),
        ("lora", ["lora={rank: 2}"], "rank"),
        ("lora", ["lora={parts: [tail]}"], "no shared linear layer in 'tail'"),
        ("some", [], "adaptation"),
        ("reset", ["stages.0.simulation={}"], "simulates trials"),
        ("reset", ["method=linear", "stages=[{name: fit, objective: {}}]"], "closed form"),
    ],
)
def test_what_is_no_adaptation(adapt, mode, overrides, message):
    with pytest.raises(FmriModelsError, match=message):
        stage_of_subjects(adapt(mode, *overrides))


def test_what_is_done_with_unknown_sessions_may_be_stated(adapt):
    _, subjects = stage_of_subjects(adapt("reset", "processor.unseen_session=pooled"))
    assert subjects.own.unseen_session == subjects.processor.unseen_session == "pooled"


def test_a_name_that_is_there_already(adapt, small_data):
    with pytest.raises(FmriModelsError, match=r"^The initial model has 'subj.* already, .* give new subjects other"):
        train(adapt("reset", f"data={small_data}"))


def test_a_base_of_another_method(adapt, make_recipe, new_data):
    (linear,) = train(make_recipe("linear", "method=linear", "stages=[{name: fit}]"))
    with pytest.raises(FmriModelsError, match="can't be read as a SmallModel"):
        train(adapt("reset", f"initial_model={linear}"))


@pytest.mark.slow
def test_a_subject_is_exchanged_with_its_lora(adapt, base, tmp_path):
    (folder,) = train(adapt("lora", "stages.0.training.learning_rate=0.05"))
    adapted, other = loaded(folder), loaded(base)
    adapted.save_subject("anna.b", tmp_path / "anna")
    assert (tmp_path / "anna" / "adapter" / "adapter_model.safetensors").is_file()
    before = decoded(other, "subj02", 45)
    assert other.load_subject(tmp_path / "anna") == "anna.b"
    torch.testing.assert_close(decoded(other, "anna.b", 45), decoded(adapted, "anna.b", 45))
    torch.testing.assert_close(decoded(other, "subj02", 45), before)
    other.save_pretrained(tmp_path / "both")
    torch.testing.assert_close(decoded(loaded(tmp_path / "both"), "anna.b", 45), decoded(adapted, "anna.b", 45))


MINDEYE = [
    "method=mindeye",
    "model={hidden_size: 16, num_hidden_layers: 1, projector_size: 16, prior_num_layers: 1, "
    "prior_num_attention_heads: 2, prior_attention_head_dim: 4, prior_num_inference_steps: 10, "
    "low_level_hidden_size: 16, low_level_num_hidden_layers: 1, low_level_start_channels: 8, "
    "low_level_block_out_channels: [8, 8, 8], "
    "low_level_norm_num_groups: 4}",
    "stages.0.objective={modules: [backbone, low_level]}",
    STEPS,
]


@pytest.mark.slow
def test_a_stage_without_layers_of_subjects_is_left_out(make_recipe, new_data):
    (first,) = train(make_recipe("mindeye", *MINDEYE))
    options = [f"data={new_data}", f"initial_model={first}", "adaptation=reset", "processor={}"]
    training = "training: {steps: 3, batch_size: 8}"
    backbone, prior = (
        f"{{name: {part}, objective: {{modules: [{part}]}}, {training}}}" for part in ("backbone", "prior")
    )
    recipe = make_recipe("reset", *MINDEYE[:1], *options, f"stages=[{backbone}, {prior}]")
    (second,) = train(recipe)
    record = json.loads((second / "training.json").read_text())
    assert [stage.get("stage") for stage in record["stages"]] == ["backbone"]
    before, after = (loaded(folder).brain_model.state_dict() for folder in (first, second))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == set()
    assert len(after) > len(before)
    with pytest.raises(FmriModelsError, match=r"No stage .* may learn with adaptation: reset; choose stages"):
        train(make_recipe("none", *MINDEYE[:1], *options, f"stages=[{prior}]"))


@pytest.mark.slow
def test_mindeye_is_adapted_alike(make_recipe, new_data):
    (first,) = train(make_recipe("mindeye", *MINDEYE))
    options = [f"data={new_data}", f"initial_model={first}", "adaptation=lora", "processor={}", "lora.parts=[backbone]"]
    (second,) = train(make_recipe("more", *MINDEYE[:1], *MINDEYE[2:], *options))
    before, after = loaded(first), loaded(second)
    assert after.brain_model.config.subject_names == ["subj02", "subj07", "anna.b"]
    fmri = torch.zeros(2, 60)
    fmri[:, :45] = torch.randn(2, 45, generator=torch.Generator().manual_seed(2))
    sources = [torch.Generator().manual_seed(number) for number in range(2)]
    expected = before.decode(fmri, ["subj02"] * 2, generator=[each.clone_state() for each in sources])
    found = after.decode(fmri, ["subj02", "anna.b"], generator=[each.clone_state() for each in sources])
    # The prior takes several steps, which in groups round otherwise.
    torch.testing.assert_close(found.image_embeds[0], expected.image_embeds[0], rtol=0.02, atol=2e-3)
    assert adapted_subjects(after.brain_model) == ["anna.b"]
    layers = {name.split(".lora_")[0] for name, _ in after.brain_model.named_parameters() if ".lora_" in name}
    assert layers and all(name.startswith("backbone.") for name in layers)


@pytest.mark.slow
def test_a_report_is_about_the_table_s_subjects(adapt, base, tmp_path, new_data):
    (folder,) = train(adapt("reset"))
    report = evaluate(folder, new_data, tmp_path / "report")
    assert list(report.per_subject) == ["anna.b"]


def test_a_subject_with_one_trial(make_recipe, tmp_path):
    data = write_small_table(tmp_path / "data", ("subj02",))
    table = TrialTable.open(data)
    only = int(table.trials("subj02", "train").trials[0])
    rows = pq.read_table(data / "splits" / "default.parquet")
    kept = pc.or_(pc.not_equal(rows["split"], "train"), pc.equal(rows["trial"], only))
    add_split(table, "one", DrawnSplit(rows.filter(kept), "hand", 0))
    with pytest.raises(FmriModelsError, match="one trial in train"):
        train(make_recipe("out", f"data={data}", "split=one"))
