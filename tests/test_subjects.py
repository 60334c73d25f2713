"""Subjects are added, saved alone and loaded into other copies of their base, and nowhere else."""

import copy
import json
import os
import shutil
from functools import partial

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from fmri_models import FmriModelsError, FmriProcessor, FmriToImagePipeline
from fmri_models.cli.main import main
from fmri_models.conversion_record import ConversionRecord
from fmri_models.encoders.subject_layers import SubjectLayers
from fmri_models.examples import load_example
from fmri_models.hub.owner_statements import OwnerStatements
from fmri_models.hub.publishing import publication
from fmri_models.offloading import weights_in_place
from fmri_models.provenance import Provenance, terms_of_training
from fmri_models.subject_folder import SUBJECT_FILE, SUBJECT_WEIGHTS_FILE
from fmri_models.subject_modules import subject_modules
from fmri_models.training_record import MAX_TRAININGS, LearnedFrom, TrainingRecord
from tests.models.linear import test_modeling_linear as linear
from tests.models.mindeye import test_modeling_mindeye as mindeye
from tests.models.mindvis import test_modeling_mindvis as mindvis
from tests.models.mindvis.test_pipeline_mindvis import TestMindVisPipeline as MindVisPipelines
from tests.test_modeling_common import SUBJECTS

TESTERS = {"linear": linear.TestLinearModel, "mindeye": mindeye.TestMindEyeModel}
NEW, WIDTH = "new.one", 23


def base(method="linear"):
    return TESTERS[method]().make_model()


def with_subject(model, name=NEW, num_voxels=WIDTH, seed=3):
    model.add_subject(name, num_voxels)
    torch.manual_seed(seed)
    with torch.no_grad():
        for key, values in model.named_parameters():
            if name.replace(".", "%2E") in key:
                values.normal_(std=0.1)
    return model


def decoded(model, subjects, seed=5):
    fmri = torch.randn(len(subjects), max(model.config.num_voxels), generator=torch.Generator().manual_seed(seed))
    sources = [torch.Generator().manual_seed(row) for row in range(len(subjects))]
    found = model.decode(fmri, subjects, generator=sources)
    return torch.cat([values.flatten(1) for values in found.values() if values is not None], dim=1)


@pytest.fixture(params=TESTERS)
def method(request):
    return request.param


def test_a_subject_that_is_wider_than_the_others_is_added(method, tmp_path):
    model = base(method).bfloat16().train()
    before = {name: values.clone() for name, values in model.state_dict().items()}
    model.add_subject(NEW, WIDTH)
    after = model.state_dict()
    added = after.keys() - before.keys()
    assert added and all("new%2Eone" in name for name in added)
    assert all(torch.equal(after[name], values) for name, values in before.items())
    assert {after[name].dtype for name in added} == {torch.bfloat16} and all(m.training for m in model.modules())
    assert model.config.subject_names == [*SUBJECTS, NEW] and model.config.num_voxels[-1] == WIDTH
    with_others = base(method)
    with_subject(with_others)
    rows = decoded(with_others, [SUBJECTS[0], NEW, SUBJECTS[2]])
    alone = torch.cat(
        [decoded(with_others, [name] * 3)[row : row + 1] for row, name in enumerate([SUBJECTS[0], NEW, SUBJECTS[2]])]
    )
    torch.testing.assert_close(rows, alone)
    with_others.save_pretrained(tmp_path / "model")
    loaded = type(with_others).from_pretrained(tmp_path / "model")
    assert torch.equal(decoded(loaded, [NEW, SUBJECTS[1]]), decoded(with_others, [NEW, SUBJECTS[1]]))


def test_new_layers_are_initialised_as_those_of_a_new_model():
    model = mindeye.TestMindEyeModel()
    fresh = model.model_class(model.make_config([NEW], [4000]))
    grown = model.model_class(model.make_config(["a"], [4000]))
    grown.add_subject(NEW, 4000)
    key = "backbone.input.layers.new%2Eone.weight"
    found, expected = grown.state_dict()[key], fresh.state_dict()[key]
    assert 0.9 < found.std() / expected.std() < 1.1 and found.abs().max() <= 4000**-0.5 + 1e-6


def test_subjects_are_loaded_in_any_order_and_in_any_precision(method, tmp_path):
    source = with_subject(with_subject(base(method)), "second", 9, seed=4)
    sizes = [source.save_subject(name, tmp_path / name) for name in (NEW, "second")]
    assert sizes[0] == sum(each.stat().st_size for each in (tmp_path / NEW).iterdir())
    loaded = []
    for order in ((NEW, "second"), ("second", NEW)):
        model = base(method)
        assert tuple(model.load_subject(tmp_path / name) for name in order) == order
        loaded.append(decoded(model, ["second", NEW, SUBJECTS[1]]))
    expected = decoded(source, ["second", NEW, SUBJECTS[1]])
    assert torch.equal(loaded[0], expected) and torch.equal(loaded[1], expected)
    assert source.save_subject(NEW, tmp_path / "half", dtype="float16") < sizes[0]
    half = base(method).bfloat16()
    assert half.load_subject(tmp_path / "half") == NEW and half.dtype == torch.bfloat16
    assert all(values.dtype == torch.bfloat16 for values in half.parameters())


@pytest.fixture
def saved(tmp_path):
    with_subject(base("mindeye")).save_subject(NEW, tmp_path / "subject")
    return tmp_path / "subject"


def changed(saved, change):
    tensors = load_file(saved / SUBJECT_WEIGHTS_FILE)
    first = sorted(tensors)[0]
    change(tensors, first)
    save_file(tensors, saved / SUBJECT_WEIGHTS_FILE)


def rewritten(saved, **values):
    file = saved / SUBJECT_FILE
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


HOSTILE = {
    "no subject": (lambda saved: (saved / SUBJECT_FILE).unlink(), "holds no subject"),
    "damaged": (lambda saved: (saved / SUBJECT_FILE).write_text("{"), "subject.json"),
    "newer": (partial(rewritten, schema=99), "99"),
    "unknown key": (partial(rewritten, command="x"), "command"),
    "a path as name": (partial(rewritten, subject="../../x"), "can't be a name"),
    "no voxels": (partial(rewritten, num_voxels=0), "num_voxels"),
    "all voxels": (partial(rewritten, num_voxels=2**40), "num_voxels"),
    "other voxels": (partial(rewritten, num_voxels=WIDTH + 1), "expected .* for 24 voxels"),
    "another method": (partial(rewritten, method="fmri-linear"), "belongs to a model of the type 'fmri-linear'"),
    "another base": (partial(rewritten, base={"float32": "0" * 64}), "belongs to another base"),
    "a name that is there": (partial(rewritten, subject=SUBJECTS[0]), "has a subject 'subj07' already"),
    "an empty adapter": (lambda saved: (saved / "adapter").mkdir(), "no adapter.s configuration"),
    "no weights": (lambda saved: (saved / SUBJECT_WEIGHTS_FILE).unlink(), "subject.safetensors"),
    "cut short": (
        lambda saved: (saved / SUBJECT_WEIGHTS_FILE).write_bytes((saved / SUBJECT_WEIGHTS_FILE).read_bytes()[:200]),
        "cut short or no safetensors",
    ),
    "a pickle": (lambda saved: torch.save({}, saved / SUBJECT_WEIGHTS_FILE), "no safetensors"),
    "a folder": (
        lambda saved: ((saved / SUBJECT_WEIGHTS_FILE).unlink(), (saved / SUBJECT_WEIGHTS_FILE).mkdir()),
        "subject.safetensors",
    ),
    "a device": (
        lambda saved: ((saved / SUBJECT_WEIGHTS_FILE).unlink(), os.mkfifo(saved / SUBJECT_WEIGHTS_FILE)),
        "subject.safetensors",
    ),
    "missing": (lambda saved: changed(saved, lambda tensors, first: tensors.pop(first)), "lacks .*are missing"),
    "unknown": (
        lambda saved: changed(saved, lambda tensors, first: tensors.update(other=torch.zeros(1))),
        "has other, which this model has no place for",
    ),
    "other shape": (
        lambda saved: changed(saved, lambda tensors, first: tensors.update({first: torch.zeros(3)})), "of the shape"
    ),
    "whole numbers": (
        lambda saved: changed(saved, lambda tensors, first: tensors.update({first: tensors[first].int()})),
        "as whole numbers",
    ),
    "not finite": (
        lambda saved: changed(saved, lambda tensors, first: tensors[first].view(-1)[0].fill_(float("nan"))),
        "NaN or infinite",
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", HOSTILE)
def test_what_is_no_subject_of_this_base_is_a_sentence_and_changes_nothing(saved, change):
    make, expected = HOSTILE[change]
    make(saved)
    model = base("mindeye")
    before = {name: values.clone() for name, values in model.state_dict().items()}
    with pytest.raises(FmriModelsError, match=expected):
        model.load_subject(saved)
    assert model.config.subject_names == SUBJECTS and before.keys() == model.state_dict().keys()


def test_a_base_with_other_shared_weights_is_refused(saved):
    model = base("mindeye")
    with torch.no_grad():
        model.backbone.output.bias[0] += 1
    with pytest.raises(FmriModelsError, match="belongs to another base"):
        model.load_subject(saved)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((SUBJECTS[0], 5), "already"),
        (("../x", 5), "can't be used as a file name"),
        (("a", 0), "num_voxels is 0"),
        (("a", True), "num_voxels is True"),
        (("a", 2.0), "num_voxels is 2.0"),
    ],
)
def test_what_can_be_no_subject_is_a_sentence(arguments, expected):
    with pytest.raises(FmriModelsError, match=expected):
        base().add_subject(*arguments)


def test_a_method_without_layers_of_subjects_says_so(tmp_path):
    tester = mindvis.TestMindVisModel()
    model = tester.make_model()
    width = max(model.config.num_voxels)
    model.add_subject(NEW, width)
    assert model.config.subject_names[-1] == NEW
    for act in (partial(model.save_subject, NEW, tmp_path / "x"), partial(model.add_subject, "wide", width + 16)):
        with pytest.raises(FmriModelsError, match="no layers of"):
            act()


def test_a_pipelines_subject_without_layers_is_its_statistics(tmp_path):
    make = MindVisPipelines().make_pipeline
    torch.manual_seed(0)
    pipeline = make()
    pipeline.save_pretrained(tmp_path / "base")
    processor = pipeline.processor
    count = processor.subject(processor.subject_names[0]).num_voxels
    fmri = betas(count)
    sessions = np.repeat([1, 2], 10)
    pipeline.add_subject(NEW, fmri, sessions=sessions)
    assert pipeline.save_subject(NEW, tmp_path / "subject") > 0
    again = FmriToImagePipeline.from_pretrained(tmp_path / "base")
    assert again.load_subject(tmp_path / "subject") == NEW
    features = [each.processor(fmri, subject=NEW, session=sessions)["fmri"] for each in (pipeline, again)]
    assert torch.equal(*features)
    with torch.no_grad():
        next(again.brain_model.parameters()).add_(1)
    shutil.copytree(tmp_path / "subject", tmp_path / "renamed")
    stated = (tmp_path / "renamed" / SUBJECT_FILE).read_text()
    (tmp_path / "renamed" / SUBJECT_FILE).write_text(stated.replace(NEW, "another"))
    with pytest.raises(FmriModelsError, match="another base"):
        again.load_subject(tmp_path / "renamed")


def test_values_that_half_precision_can_not_hold_are_named(tmp_path):
    model = with_subject(base())
    with torch.no_grad():
        next(model.heads["latents"][NEW].parameters()).fill_(1e6)
    with pytest.raises(FmriModelsError, match="not finite in torch.float16; save it in a wider dtype"):
        model.save_subject(NEW, tmp_path / "x", dtype="float16")
    with pytest.raises(FmriModelsError, match="expected float16"):
        model.save_subject(NEW, tmp_path / "x", dtype="int8")
    with pytest.raises(FmriModelsError, match="Subject 'nobody' is unknown"):
        model.save_subject("nobody", tmp_path / "x")


def test_weights_that_are_kept_elsewhere_stay_so(tmp_path):
    from accelerate import cpu_offload

    expected = with_subject(base("mindeye"))
    expected.save_subject(NEW, tmp_path / "subject")
    model = cpu_offload(base("mindeye"), "cpu")
    model.load_subject(tmp_path / "subject")
    assert {each.device.type for each in model.backbone.input.layers.parameters()} == {"meta"}
    assert torch.equal(decoded(model, [NEW, SUBJECTS[1]]), decoded(expected, [NEW, SUBJECTS[1]]))
    with weights_in_place(model):
        assert torch.equal(model.backbone.input.layers[NEW].weight, expected.backbone.input.layers[NEW].weight)


def test_adapters_keep_to_the_layers_that_they_were_on(tmp_path):
    base("mindeye").save_pretrained(tmp_path / "base")
    model = type(base("mindeye")).from_pretrained(tmp_path / "base")
    model.add_adapter(peft.LoraConfig(r=2, target_modules=r".*input\.layers\.\w+|.*\.output", init_lora_weights=False))
    with_subject(model).eval()
    model.save_pretrained(tmp_path / "adapter")
    with pytest.raises(FmriModelsError, match="have an adapter"):
        model.save_subject(SUBJECTS[0], tmp_path / "x")
    model.save_subject(NEW, tmp_path / "subject")
    again = type(model).from_pretrained(tmp_path / "base")
    again.load_subject(tmp_path / "subject")
    again.load_adapter(tmp_path / "adapter")
    torch.testing.assert_close(decoded(again, [NEW, SUBJECTS[0]]), decoded(model, [NEW, SUBJECTS[0]]))


def numbered(tensors):
    """Tensors under the names that they had when subjects' layers were numbered."""
    return {
        ".".join(str(SUBJECTS.index(part)) if part in SUBJECTS else part for part in name.split(".")): values
        for name, values in tensors.items()
    }


def test_folders_whose_layers_are_numbered_are_read_and_saved_with_names(method, tmp_path):
    model = base(method)
    model.save_pretrained(tmp_path / "old")
    file = tmp_path / "old" / "model.safetensors"
    tensors = load_file(file)
    save_file(numbered(tensors), file, metadata={"format": "pt"})
    loaded = type(model).from_pretrained(tmp_path / "old")
    expected = model.state_dict()
    assert all(torch.equal(values, expected[name]) for name, values in loaded.state_dict().items())
    torch.testing.assert_close(decoded(loaded, SUBJECTS), decoded(model, SUBJECTS))
    loaded.save_pretrained(tmp_path / "new")
    assert load_file(tmp_path / "new" / "model.safetensors").keys() == tensors.keys()
    missing = numbered(tensors)
    missing.pop(next(name for name in missing if ".1." in name and name not in tensors))
    save_file(missing, file, metadata={"format": "pt"})
    with pytest.raises(FmriModelsError, match=f"lacks .*{SUBJECTS[1]}"):
        type(model).from_pretrained(tmp_path / "old")


@pytest.mark.parametrize("targets", [["input.layers.0", "input.layers.2"], r".*input\.layers\.[02]", "all-linear"])
def test_adapters_on_numbered_layers_are_read_and_saved_with_names(targets, tmp_path):
    model = base("mindeye")
    config = peft.LoraConfig(r=2, target_modules=targets, rank_pattern={"layers.2": 3}, init_lora_weights=False)
    own = [f"{place}.{SUBJECTS[index]}" for place in ("input.layers",) for index in (0, 2)]
    today = peft.LoraConfig(
        r=2, target_modules=targets if targets == "all-linear" else own,
        rank_pattern={f"layers.{SUBJECTS[2]}": 3}, init_lora_weights=False,
    )  # fmt: skip
    model.add_adapter(today)
    model.eval().save_pretrained(tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file(numbered(load_file(file)), file, metadata={"format": "pt"})
    stated = tmp_path / "adapter" / "adapter_config.json"
    values = json.loads(stated.read_text())
    layers = {name.removeprefix("base_model.model.").rsplit(".lora_", 1)[0] for name in load_file(file)}
    former = sorted(layers) if targets == "all-linear" else targets
    stated.write_text(json.dumps({**values, "target_modules": former, "rank_pattern": dict(config.rank_pattern)}))
    again = base("mindeye")
    again.load_adapter(tmp_path / "adapter")
    torch.testing.assert_close(decoded(again, SUBJECTS), decoded(model, SUBJECTS))
    again.save_pretrained(tmp_path / "new")
    third = base("mindeye")
    third.load_adapter(tmp_path / "new")
    torch.testing.assert_close(decoded(third, SUBJECTS), decoded(model, SUBJECTS))


def test_checkpoints_of_training_whose_layers_are_numbered_are_read(tmp_path):
    from fmri_models.training.checkpoints import MODEL_FILE
    from fmri_models.training.restoring import restore_model

    model = base("mindeye")
    model.config.save_pretrained(tmp_path)
    save_file(numbered(model.state_dict()), tmp_path / MODEL_FILE)
    other = base("mindeye")
    with torch.no_grad():
        for values in other.parameters():
            values.zero_()
    restore_model(other, tmp_path)
    assert torch.equal(decoded(other, SUBJECTS), decoded(model, SUBJECTS))


# With their processors


def betas(num_voxels, trials=20, seed=0):
    return np.random.default_rng(seed).normal(3, 2, size=(trials, num_voxels)).astype(np.float32)


def test_a_processor_fits_a_further_subject_with_its_own_options():
    fmri = {"a": betas(10), "b": betas(12, seed=1)}
    options = {"statistics": "session", "pad_multiple": 4}
    sessions = {name: np.repeat([1, 2], 10) for name in fmri}
    both = FmriProcessor.fit(fmri, sessions=sessions, **options)
    one = FmriProcessor.fit({"a": fmri["a"]}, sessions={"a": sessions["a"]}, **options)
    one.add_subject("b", fmri["b"], sessions["b"])
    assert one.to_dict() == both.to_dict() and one.width == both.width == 12
    alone = both.subset(["b"])
    assert alone.subject_names == ["b"] and alone.options == both.options
    for arguments, expected in [
        (("b", fmri["b"], sessions["b"]), "already"),
        (("c", fmri["b"][:1], sessions["b"][:1]), "two trials"),
        (("c", np.ones((5, 4)), [1] * 5), "varies"),
        (("c", fmri["b"] * np.nan, sessions["b"]), "NaN|finite"),
        (("c", fmri["b"]), "needs the session"),
    ]:
        with pytest.raises(FmriModelsError, match=expected):
            one.add_subject(*arguments)
        assert one.subject_names == ["a", "b"]


def test_patterns_of_one_width_stay_of_that_width():
    processor = FmriProcessor.fit({"a": betas(10)}, padding="wrap", patch_size=4)
    with pytest.raises(FmriModelsError, match="needs 16 columns"):
        processor.processed_width(processor.fitted_subject("b", betas(14)))
    processor.add_subject("b", betas(11))
    assert processor.num_voxels == [12, 12] and processor.subset(["a"]).width == 12


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """A pipeline with two further subjects, their folders, and betas of one."""
    folder = tmp_path_factory.mktemp("subjects")
    pipeline, _ = load_example("linear-scenes")
    fmri = betas(1007)
    for name in (NEW, "other"):
        pipeline.add_subject(name, fmri, sessions=np.repeat([1, 2], 10))
        with torch.no_grad():
            for head in pipeline.brain_model.heads.values():
                for values in head[name].parameters():
                    values.normal_(std=0.01)
        pipeline.save_subject(name, folder / name, dtype=torch.float16 if name == "other" else None)
    return pipeline, folder, fmri


def embeds(pipeline, fmri, name=NEW):
    return pipeline.brain_model.decode(**pipeline.processor(fmri, subject=name, session=1)).image_embeds


def test_a_pipelines_subject_goes_with_its_statistics_and_the_record_says_so(grown, tmp_path):
    source, folder, fmri = grown
    pipeline, _ = load_example("linear-scenes")
    for name in ("other", NEW):
        assert pipeline.load_subject(folder / name) == name
    assert torch.equal(embeds(pipeline, fmri), embeds(source, fmri))
    torch.testing.assert_close(embeds(pipeline, fmri, "other"), embeds(source, fmri, "other"), atol=1e-2, rtol=1e-2)
    notes = pipeline.training_record.unknown_initial_models
    assert f"with the layers of {NEW}, which was added later" in notes and len(notes) == 2
    pipeline.save_pretrained(tmp_path / "pipeline")
    assert not (tmp_path / "pipeline" / "report.json").exists()
    again = FmriToImagePipeline.from_pretrained(tmp_path / "pipeline")
    assert again.training_record.unknown_initial_models == notes
    assert torch.equal(embeds(again, fmri), embeds(source, fmri))


def test_a_folder_without_fitting_statistics_is_a_sentence(grown, tmp_path):
    source, folder, _ = grown
    pipeline, _ = load_example("linear-scenes")
    names = list(pipeline.processor.subject_names)
    source.brain_model.save_subject(NEW, tmp_path / "layers")
    shutil.copytree(folder / NEW, tmp_path / "exchanged")
    shutil.rmtree(tmp_path / "exchanged" / "processor")
    shutil.copytree(folder / "other" / "processor", tmp_path / "exchanged" / "processor")
    shutil.copytree(folder / NEW, tmp_path / "cut")
    (tmp_path / "cut" / "processor" / "fmri_statistics.st").write_bytes(b"x" * 100)
    for name, expected in [
        ("layers", "without its processor's statistics"),
        ("exchanged", "is of \\['other'\\] and not of new.one alone"),
        ("cut", "fmri_statistics.st is damaged"),
    ]:
        with pytest.raises(FmriModelsError, match=expected):
            pipeline.load_subject(tmp_path / name)
    assert pipeline.brain_model.config.subject_names == pipeline.processor.subject_names == names


def seen(pipeline):
    """All of a pipeline that loading a subject changes."""
    model, processor = pipeline.brain_model, pipeline.processor
    return (
        {name: values.clone() for name, values in model.state_dict().items()},
        [(name, parameter.requires_grad) for name, parameter in model.named_parameters()],
        [(name, module.training, type(module)) for name, module in model.named_modules()],
        [list(container.names) for container in subject_modules(model).values()],
        model.config.to_dict(),
        sorted(getattr(model, "peft_config", {})),
        list(processor.subject_names),
        list(processor.num_voxels),
        pipeline.training_record.to_json(),
        dict(pipeline._provenance.files),
        pipeline._provenance.is_disclaimed,
        pipeline._provenance.components.brain_model.keys(),
    )


def failing(place, *arguments):
    """Has a function do its work and fail behind it."""

    def patch(monkeypatch):
        work = getattr(place, *arguments)

        def done(*args, **kwargs):
            work(*args, **kwargs)
            raise OSError("no space left on device")

        monkeypatch.setattr(place, *arguments, done)

    return patch


@pytest.mark.parametrize(
    "fail",
    [
        failing(FmriProcessor, "put_subject"),
        failing(SubjectLayers, "append"),
        failing(linear.TestLinearModel.model_class, "_put_subject"),
        failing(Provenance, "note_subject"),
        failing(TrainingRecord, "add_trainings"),
    ],
    ids=["the processor", "a layer", "the model", "the provenance", "the record"],
)
def test_a_subject_that_fails_half_way_leaves_everything_as_it_was(grown, monkeypatch, fail):
    _, folder, fmri = grown
    pipeline, _ = load_example("linear-scenes")
    before = seen(pipeline)
    with monkeypatch.context() as patched:
        fail(patched)
        with pytest.raises(OSError, match="no space left"):
            pipeline.load_subject(folder / NEW)
    after = seen(pipeline)
    assert before[0].keys() == after[0].keys() and all(torch.equal(after[0][key], before[0][key]) for key in before[0])
    assert after[1:] == before[1:]
    assert pipeline.load_subject(folder / NEW) == NEW and embeds(pipeline, fmri).isfinite().all()


def test_copies_of_a_pipeline_have_records_of_their_own(grown):
    _, folder, _ = grown
    pipeline, _ = load_example("linear-scenes")
    copied = pipeline._provenance.copy()
    pipeline.load_subject(folder / NEW)
    assert copied.training_record.unknown_initial_models == []


def test_a_subject_brings_what_lies_behind_it(grown, tmp_path):
    source, _, _ = grown
    record = TrainingRecord(**{**vars(source.training_record), "reserved_initial_models": ["published"]})
    nsd = LearnedFrom("nsd", "x", "default", 0, ["train"], {}, "", None)
    record.learned_from = [*(record.learned_from or []), nsd]
    converted = ConversionRecord("linear", ["last.pth"], may_be_shared=False)
    shutil.copytree(grown[1] / NEW, tmp_path / "subject")
    record.save(tmp_path / "subject")
    converted.save(tmp_path / "subject")

    # A pipeline of which nothing is known has learned what the subject's has.
    for forget in (False, True):
        pipeline, _ = load_example("linear-scenes")
        if forget:
            pipeline._provenance = Provenance()
        pipeline.load_subject(tmp_path / "subject")
        assert nsd in pipeline.training_record.learned_from
        assert pipeline.training_record.reserved_initial_models == ["published"]
        assert terms_of_training(pipeline.training_record).name == "nsd"
        again = tmp_path / f"again-{forget}"
        pipeline.save_pretrained(again)
        assert not ConversionRecord.load(again).may_be_shared
        with pytest.raises(FmriModelsError, match="state no licence"):
            publication(again, OwnerStatements(), unevaluated=True, write=False)
        FmriToImagePipeline.from_pretrained(again).save_subject(NEW, tmp_path / f"one-{forget}")
        assert not ConversionRecord.load(tmp_path / f"one-{forget}").may_be_shared
    record.reserved_initial_models = []
    record.save(tmp_path / "subject")
    with pytest.raises(FmriModelsError, match="state no licence"):
        publication(tmp_path / "subject", OwnerStatements(), write=False)
    assert terms_of_training(TrainingRecord.load(tmp_path / "subject")).name == "nsd"


def test_trainings_that_do_not_fit_into_a_record_are_a_doubt(grown):
    record = copy.deepcopy(grown[0].training_record)
    many = [LearnedFrom("t", str(n), "default", 0, ["train"], {}, "") for n in range(MAX_TRAININGS)]
    other = copy.deepcopy(record)
    other.learned_from, record.unknown_initial_models = many, []
    record.add_trainings(other)
    assert len(record.learned_from) == MAX_TRAININGS
    assert "not all is recorded" in record.unknown_initial_models[0]


def test_commands_list_save_load_and_push(grown, tmp_path, capsys):
    source, _, _ = grown
    source.save_pretrained(tmp_path / "grown")
    base_folder = tmp_path / "base"
    load_example("linear-scenes")[0].save_pretrained(base_folder)

    def told(*arguments, code=0):
        capsys.readouterr()
        assert main([*map(str, arguments), "--json"]) == code
        return json.loads(capsys.readouterr().out)

    assert told("subjects", "list", tmp_path / "grown")["subjects"] == {"subj01": 1000, NEW: 1007, "other": 1007}
    for listed, line in [("grown", "subj01  1,000 voxels\n"), ("grown/brain_model", "subj01  1,000 columns\n")]:
        assert main(["subjects", "list", str(tmp_path / listed)]) == 0
        assert line in capsys.readouterr().out
    saved = told("subjects", "save", tmp_path / "grown", NEW, "--out", tmp_path / "one", "--dtype", "float16")
    assert told("subjects", "list", tmp_path / "one")["bytes"] == saved["bytes"]
    loaded = told("subjects", "load", base_folder, tmp_path / "one", "--out", tmp_path / "more")
    assert loaded["subjects"] == ["subj01", NEW]
    assert (
        "already"
        in told("subjects", "load", tmp_path / "grown", tmp_path / "one", "--out", tmp_path / "x", code=1)["error"]
    )
    pushed = told("push", tmp_path / "one", "user/name", "--dry-run")
    assert pushed["format"] == "subject"
    assert {"README.md", SUBJECT_FILE, SUBJECT_WEIGHTS_FILE, "training.json"} < set(pushed["files"])
    assert main(["card", str(tmp_path / "one")]) == 1
