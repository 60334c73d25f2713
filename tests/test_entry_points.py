"""Methods, image generators and data sets of installed packages work by name, and none is imported to be named."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from fmri_models import FmriModelsError, GeneratorRecord, Method, list_methods, list_pretrained, list_recipes
from fmri_models.known_classes import entries_of_index, find_class
from fmri_models.records import load_or_warn
from fmri_models.registry import DATASETS, GENERATORS, METHODS, PRETRAINED, register_method
from fmri_models.training.recipe_files import recipe_names, recipe_values
from tests.new_process import python

PACKAGE = Path(__file__).parent / "other_package"
LIGHT = """
from fmri_models import Method

METHOD = Method("{name}", "{name}", *["{module}.heavy:{title}" + each for each in ("Config", "Model", "Output",
    "Pipeline", "Objective")])
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the package as pip installs it."""
    folder = tmp_path_factory.mktemp("site")
    source = shutil.copytree(PACKAGE, tmp_path_factory.mktemp("source") / "package")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    command += ["--disable-pip-version-check", "--target", str(folder), str(source)]
    finished = subprocess.run(command, capture_output=True, text=True)
    if "No module named pip" in finished.stderr:
        pytest.skip("needs pip in the environment")
    assert finished.returncode == 0, finished.stderr
    return folder


@pytest.fixture(scope="module")
def run(installed, tmp_path_factory):
    """Runs Python in a new process that has the package, in a folder of its own."""
    place = tmp_path_factory.mktemp("work")
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, size=(48, 4, 4), dtype=np.uint8).repeat(3, axis=1).repeat(3, axis=2)
    fmri = (pictures.reshape(48, -1) / 255 - 0.5) @ rng.normal(size=(144, 50)) / 12
    np.savez(place / "stripes.npz", pictures=pictures, fmri=fmri.astype(np.float32))

    def run(program: str, begins_without_pytorch: bool = False) -> subprocess.CompletedProcess:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(installed), *sys.path])}
        command = [*([sys.executable] if begins_without_pytorch else python()), "-c", program]
        return subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)

    return run


def command(*arguments):
    return f"from fmri_models.cli.main import main\nassert main({list(arguments)!r}) == 0"


def test_what_a_package_offers_is_listed(run):
    finished = run(command("list", "--json"))
    assert finished.returncode == 0, finished.stderr
    found = json.loads(finished.stdout)
    for what, name in (
        ("methods", "shallow"),
        ("generators", "mosaic"),
        ("pretrained", "shallow-stripes"),
        ("recipes", "shallow"),
        ("datasets", "stripes"),
    ):
        (entry,) = [each for each in found[what] if each["package"] == "fmri-shallow"]
        assert entry["name"] == name and entry["title"]
    assert "'fmri_models'" in str(found["methods"])


def test_names_are_known_without_importing_the_package(run):
    finished = run(
        """
import contextlib, io, sys
from fmri_models.cli.main import main
for command in ("--help", "demo --help", "prepare --help"):
    with contextlib.suppress(SystemExit):
        main(command.split())
assert not {"fmri_shallow", "torch"} & set(sys.modules)
assert main(["list"]) == 0
import fmri_models
from fmri_models.registry import METHODS, get_method
assert isinstance(fmri_models.list_recipes(), list)
(checkpoint,) = [each for each in fmri_models.list_pretrained() if each.name == "shallow-stripes"]
assert type(checkpoint).__name__ == "OfferedRecord" and checkpoint.package == "fmri-shallow"
found = {type(each).__name__: each for each in fmri_models.list_methods()}
title = "A method, an image generator and a data set for fmri_models."
assert found["OfferedRecord"] == fmri_models.records.OfferedRecord("shallow", title, "fmri-shallow", "0.1"), found
assert "ShallowModel" not in dir(fmri_models) and not {"fmri_shallow", "torch"} & set(sys.modules)
assert get_method("shallow") in fmri_models.list_methods() and "ShallowModel" in dir(fmri_models)
assert list(METHODS.in_order())[-1].name == "shallow"
from fmri_models.registry import PRETRAINED
(checkpoint,) = get_method("shallow").pretrained
assert checkpoint in fmri_models.list_pretrained() and PRETRAINED.package("shallow-stripes") == "fmri-shallow"
assert [each.name for each in fmri_models.list_pretrained()].count("shallow-stripes") == 1
assert [each.paper for each in fmri_models.list_recipes() if each.name == "shallow"] == [checkpoint.paper]
assert "fmri_shallow" in sys.modules and not {"fmri_shallow.method", "torch"} & set(sys.modules)
""",
        begins_without_pytorch=True,
    )
    assert finished.returncode == 0, finished.stderr
    assert "(of the package fmri-shallow 0.1)" in " ".join(finished.stdout.split())
    assert "{linear,mindbridge,mindeye,mindvis,shallow}" in finished.stdout
    assert re.search(r"digits69, .*\bstripes, .*arrays", " ".join(finished.stdout.split()))


@pytest.mark.slow
def test_a_package_is_used_like_what_comes_with_this_one(run):
    trained = run(
        "\n".join(
            [
                command("prepare", "stripes", "--source", "stripes.npz", "--out", "data"),
                command("train", "shallow", "data=data", "out=model", "seed=3"),
                command(
                    "evaluate", "--model", "model", "--data", "data", "--protocol", "small_pictures", "--out", "report"
                ),
                command("card", "model", "--report", "report/report.json"),
            ]
        )
    )
    assert trained.returncode == 0, trained.stderr
    used = run(
        command("reconstruct", "--model", "model", "--fmri", "data", "--subject", "subj01", "--out", "pictures")
        + """
import json, pathlib
report = json.loads(pathlib.Path("report/report.json").read_text())
assert report["results"]["brain"]["pixcorr"]["value"] > report["results"]["shuffled_brain"]["pixcorr"]["value"]
assert len(list(pathlib.Path("pictures").glob("*.png"))) == 12
assert "of the package `fmri-shallow`, which has to be installed" in pathlib.Path("model/README.md").read_text()

import fmri_models
from diffusers import DiffusionPipeline
from transformers import AutoConfig, AutoModel, AutoProcessor

def show(*found):
    print("loaded", *(type(each).__name__ for each in found))

for loader in (DiffusionPipeline, fmri_models.FmriToImagePipeline):
    pipeline = loader.from_pretrained("model")
    show(pipeline, pipeline.image_generator, pipeline.image_generator.palette)
pipeline.save_pretrained("again")
show(fmri_models.ShallowPipeline.from_pretrained("again"))
show(DiffusionPipeline.from_pretrained("model/image_generator"))
show(AutoModel.from_pretrained("model/brain_model"), AutoProcessor.from_pretrained("model/processor"))
show(AutoConfig.from_pretrained("model", subfolder="brain_model"))
show(fmri_models.FmriPreTrainedModel.from_pretrained("model", subfolder="brain_model"))
"""
    )
    assert used.returncode == 0, used.stderr
    assert [line.split()[1:] for line in used.stdout.splitlines() if line.startswith("loaded ")] == [
        *[["ShallowPipeline", "MosaicImageGenerator", "Palette"]] * 2,
        ["ShallowPipeline"],
        ["MosaicImageGenerator"],
        ["ShallowModel", "FmriProcessor"],
        ["ShallowConfig"],
        ["ShallowModel"],
    ]
    without = run(
        """
import os, sys
sys.path = [each for each in sys.path if not os.path.isdir(os.path.join(each, "fmri_shallow"))]
import fmri_models
for loader, place in (
    (fmri_models.FmriToImagePipeline, "model"),
    (fmri_models.FmriPreTrainedModel, "model/brain_model"),
    (fmri_models.ImageGenerator, "model/image_generator"),
):
    try:
        loader.from_pretrained(place)
    except fmri_models.FmriModelsError as error:
        print("refused", str(error).rpartition("; ")[2])
"""
    )
    assert [line for line in without.stdout.splitlines() if line.startswith("refused ")] == [
        *["refused if another package has the method, install or import that package first "
          "(fmri-shallow, says README.md)."] * 2,
        "refused if another package has it, install or import that package first.",
    ], without.stderr  # fmt: skip


@pytest.mark.slow
def test_a_model_of_a_package_works_in_half_precision_and_with_the_trainer_of_transformers(run):
    finished = run(
        """
import torch
from transformers import AutoModel, Trainer, TrainingArguments
from fmri_models import EmbeddingSpace, ShallowConfig, ShallowModel
from fmri_shallow.method import ShallowObjective

space = EmbeddingSpace(encoder="mosaic", layer="cells", shape=(1, 4, 4)).to_dict()
torch.manual_seed(0)
model = ShallowModel(ShallowConfig(subject_names=["a", "b"], num_voxels=[5, 7], latent_space=space)).eval()
fmri, subjects, latents = torch.randn(12, 7), torch.arange(12) % 2, torch.rand(12, 1, 4, 4)
model.save_pretrained("untrained")
full = model.decode(fmri, subjects).latents
for dtype in (torch.bfloat16, torch.float16):
    half = AutoModel.from_pretrained("untrained", dtype=dtype)
    found = half.decode(fmri, subjects).latents
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), full, atol=0.05, rtol=0.05)
half = model.from_pretrained("untrained", dtype=torch.bfloat16)
batch = {"fmri": fmri, "subject_ids": subjects, "latents": latents}
generator = torch.Generator().manual_seed(0)
ShallowObjective().losses(half, batch, 0.0, lambda values: values, generator)["loss"].backward()
assert all(each.grad.isfinite().all() for each in half.parameters())

assert model(**batch, return_loss=False).loss is None
examples = [dict(zip(batch, each)) for each in zip(*batch.values())]
arguments = TrainingArguments(
    "trainer", num_train_epochs=2, eval_strategy="epoch", save_strategy="epoch", load_best_model_at_end=True,
    report_to=[], use_cpu=True,
)
trainer = Trainer(model, arguments, train_dataset=examples[:8], eval_dataset=examples[8:])
trainer.train()
assert trainer.evaluate()["eval_loss"] > 0
"""
    )
    assert finished.returncode == 0, finished.stderr


def test_the_demo_takes_a_method_of_a_package(run):
    finished = run("""
import pathlib
from fmri_models.cli.main import main
pathlib.Path("other").mkdir()
pathlib.Path("other/file").touch()
assert main(["demo", "--quick", "--method", "shallow", "--out", "other"]) == 1
from fmri_models.registry import get_method
from fmri_models.training.recipe_files import recipe_values
assert recipe_values("shallow", get_method("shallow").quick)["stages"][0]["training"]["epochs"] == "2"
""")
    assert finished.returncode == 0, finished.stderr
    assert "no folder of an earlier demo" in finished.stderr


@pytest.mark.slow
def test_the_demo_runs_with_a_method_of_a_package(run):
    finished = run(command("demo", "--quick", "--method", "shallow", "--out", "demo"))
    assert finished.returncode == 0, finished.stderr
    assert "the reloaded pipeline gives the same pictures" in finished.stdout


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Writes packages as they lie there when they are installed."""
    monkeypatch.syspath_prepend(tmp_path)
    for registry in (METHODS, PRETRAINED):
        monkeypatch.setattr(registry, "_loaded", {})
        monkeypatch.setattr(registry, "registered", {})
    written = []

    def write(name: str, module: str, text: str, group: str = "methods", entry: str | None = None) -> Path:
        written.append(module)
        (tmp_path / module).mkdir()
        (tmp_path / module / "__init__.py").write_text(text)
        metadata = tmp_path / f"{module}-1.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module.replace('_', '-')}\nVersion: 1\n")
        (metadata / "entry_points.txt").write_text(f"[fmri_models.{group}]\n{name} = {entry or f'{module}:METHOD'}\n")
        # Read anew, as by another process.
        monkeypatch.syspath_prepend(tmp_path / module)
        return tmp_path / module

    yield write
    for module in written:
        sys.modules.pop(module, None)


def light(name, module):
    return LIGHT.format(name=name, module=module, title=module.title().replace("_", ""))


def test_a_broken_package_is_named_and_the_others_work(packages):
    packages("broken", "broken_one", "import nothing_of_the_kind")
    packages("fine", "fine_one", light("fine", "fine_one"))
    assert METHODS.names() == ["broken", "fine", "linear", "mindbridge", "mindeye", "mindvis"]
    # Nobody knows yet, because listing imports none.
    assert [method.name for method in list_methods()] == [
        "broken",
        "fine",
        "linear",
        "mindbridge",
        "mindeye",
        "mindvis",
    ]
    with pytest.warns(UserWarning) as caught:
        assert [method.name for method in METHODS.in_order()] == ["linear", "mindbridge", "mindeye", "mindvis", "fine"]
    (warning,) = caught
    assert str(warning.message) == (
        "The method 'broken' of the package broken-one can't be imported from broken_one:METHOD "
        "(ModuleNotFoundError: No module named 'nothing_of_the_kind'); update or uninstall that package."
    )
    with pytest.raises(FmriModelsError, match="of the package broken-one can't be imported"):
        METHODS.get("broken")
    with pytest.warns(UserWarning, match="of the package broken-one can't be imported"):
        assert [method.name for method in list_methods()] == ["fine", "linear", "mindbridge", "mindeye", "mindvis"]
    assert METHODS.package("fine") == "fine-one" and METHODS.package("linear") == "fmri_models"


def test_a_package_that_exits_is_a_broken_one(packages):
    packages("exits", "that_exits", "raise SystemExit(3)")
    with pytest.raises(
        FmriModelsError, match=r"'exits' of the package that-exits can't be imported .* .SystemExit: 3."
    ):
        METHODS.get("exits")
    folder = packages("fine", "behind", light("fine", "behind"))
    (folder / "heavy.py").write_text("raise SystemExit")
    with pytest.raises(FmriModelsError, match=r"behind.heavy:BehindModel can't be imported"):
        METHODS.get("fine").load("model")
    packages("asked", "interrupted", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        METHODS.get("asked")


@pytest.mark.slow
def test_what_is_of_this_package_is_used_without_importing_another(tmp_path):
    place = tmp_path / "site"
    (place / "that_exits" / "inner" / "recipes").mkdir(parents=True)
    (place / "that_exits" / "__init__.py").write_text(
        "import traceback\nopen('imported', 'w').write(str(traceback.format_stack()))\nraise SystemExit(3)\n"
    )
    (place / "that_exits" / "inner" / "recipes" / "of_another.yaml").write_text("# Of another.\nmethod: m\n")
    metadata = place / "that_exits-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: that-exits\nVersion: 1\nSummary: Exits.\n")
    groups = ("methods", "generators", "datasets")
    lines = [f"[fmri_models.{group}]\n{group}_of_another = that_exits.inner:RECORD\n" for group in groups]
    (metadata / "entry_points.txt").write_text("".join(lines))
    program = """
import sys, torch, diffusers, transformers, fmri_models
from tests.generation.test_embedded import tiny_generator
from tests.models.linear.test_pipeline_linear import TestLinearPipeline
from fmri_models.cli.main import main
from fmri_models.hub.convert import is_convertible
from fmri_models.generation.loading import image_generator_name
from fmri_models.component_index import what_lies_in
import pathlib

assert main(["list"]) == 0 and is_convertible("mindeye") and image_generator_name("EmbeddedImageGenerator")
TestLinearPipeline().make_pipeline().save_pretrained("pipeline")
tiny_generator().save_pretrained("generator")
for loader in (diffusers.DiffusionPipeline, fmri_models.FmriToImagePipeline, fmri_models.LinearPipeline):
    loader.from_pretrained("pipeline").save_pretrained("again")
for loader in (diffusers.DiffusionPipeline, fmri_models.ImageGenerator, fmri_models.EmbeddedImageGenerator):
    loader.from_pretrained("generator")
for loader in (transformers.AutoModel, fmri_models.FmriPreTrainedModel):
    loader.from_pretrained("pipeline", subfolder="brain_model")
transformers.AutoProcessor.from_pretrained("pipeline", subfolder="processor")
for folder in ("pipeline", "generator", "pipeline/brain_model"):
    what_lies_in(pathlib.Path(folder))
assert not hasattr(fmri_models, "") and dir(fmri_models)
assert not pathlib.Path("imported").exists(), pathlib.Path("imported").read_text()
"""
    root = str(Path(__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(place), root, *sys.path])}
    finished = subprocess.run([*python(), "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    shown = " ".join(finished.stdout.split())
    assert "methods_of_another Exits. (of the package that-exits 1)" in shown
    assert "of_another Of another (of the package that-exits)" in shown


def test_metadata_that_can_not_be_read_are_left_out(packages, tmp_path, monkeypatch):
    packages("fine", "fine_one", light("fine", "fine_one"))
    folder = packages("x", "written_by_hand", "")
    (tmp_path / "written_by_hand-1.dist-info" / "entry_points.txt").write_bytes(b"[fmri_models.methods]\nm\xe9 = a:B\n")
    monkeypatch.syspath_prepend(folder / "anew")
    with pytest.warns(UserWarning, match="What the package written-by-hand offers can't be read .*uninstall that pack"):
        assert METHODS.names() == ["fine", "linear", "mindbridge", "mindeye", "mindvis"]


def test_what_lies_behind_a_package_is_a_sentence_too(packages):
    packages("fine", "fine_one", light("fine", "fine_one"))
    with pytest.raises(FmriModelsError, match=r"fine_one.heavy:FineOneModel can't be imported .ModuleNotFoundError"):
        METHODS.get("fine").load("model")
    with pytest.warns(UserWarning, match="fine_one.heavy:FineOneConfig can't be imported"):
        assert load_or_warn(METHODS.get("fine").config) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("METHOD = 1", "is a int in strange:METHOD; expected a Method of the entry point's name"),
        (light("other", "strange"), "is a Method named 'other' in strange:METHOD; expected"),
        ("", "can't be imported .* no attribute 'METHOD'"),
        (light("strange", "strange").replace(".heavy:", "."), "'strange.StrangeConfig' as the place of a class"),
        (light("strange", "strange").replace("Strange", "Linear"), "whose name is that of fmri_models.models.linear"),
    ],
)
def test_a_strange_record_is_refused(packages, text, expected):
    packages("strange", "strange", text)
    with pytest.raises(FmriModelsError, match=expected):
        METHODS.get("strange")
    with pytest.warns(UserWarning, match=expected):
        list_methods()


def test_a_name_that_is_taken_is_passed_over_by_a_sentence_on_both(packages):
    packages("linear", "late_comer", light("linear", "late_comer"))
    with pytest.warns(
        UserWarning, match="The package late-comer offers a method named 'linear', which fmri_models has"
    ):
        assert METHODS.get("linear").config.startswith("fmri_models.")
    with pytest.warns(UserWarning, match="the other one needs another name"):
        assert [method.name for method in list_methods()] == ["linear", "mindbridge", "mindeye", "mindvis"]


def test_of_two_packages_with_one_name_neither_is_used(packages):
    packages("twin", "twin_a", light("twin", "twin_a"))
    packages("twin", "twin_b", light("twin", "twin_b"))
    assert "twin" not in METHODS.names()
    with pytest.raises(FmriModelsError, match="packages twin-a and twin-b both offer a method named 'twin'"):
        METHODS.get("twin")
    with pytest.warns(UserWarning, match="uninstall one of them"):
        assert [method.name for method in list_methods()] == ["linear", "mindbridge", "mindeye", "mindvis"]


def test_a_program_registers_no_name_that_a_package_has(packages):
    packages("fine", "fine_one", light("fine", "fine_one"))
    linear = METHODS.get("linear")
    with pytest.raises(FmriModelsError, match="is offered already, by fine-one; that of fmri_models needs another"):
        register_method(Method("fine", "", *linear.class_paths, linear.objective))
    register_method(METHODS.get("fine"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert METHODS.get("fine") in list_methods()


def test_names_that_no_command_takes_are_passed_over(packages):
    packages("../evil", "odd", light("../evil", "odd"))
    assert METHODS.names() == ["linear", "mindbridge", "mindeye", "mindvis"]
    with pytest.warns(UserWarning, match="The package odd offers a method named '../evil'; expected only"):
        list_methods()


def test_recipes_of_packages_are_known_by_name(packages):
    for module in ("with_recipes", "with_others"):
        folder = packages(module, module, light(module, module)) / "recipes"
        folder.mkdir()
        for name in (module, "both", "linear"):
            (folder / f"{name}.yaml").write_text(f"# Says {module}. And more.\nmethod: {module}\n")
    assert {"with_recipes", "with_others"} < set(recipe_names()) and "both" not in recipe_names()
    assert recipe_values("with_recipes")["method"] == "with_recipes"
    assert recipe_values("linear")["method"] == "linear"
    with pytest.raises(FmriModelsError, match="packages with-others and with-recipes both have a recipe named 'both'"):
        recipe_values("both")
    with pytest.warns(UserWarning, match="both have a recipe named 'both'"):
        (found,) = [each for each in list_recipes() if each.name == "with_recipes"]
    assert (found.title, found.package) == ("Says with_recipes", "with-recipes")
    assert (found.method, found.data, found.paper) == ("with_recipes", "", None)
    assert "with_recipes" not in sys.modules


def test_a_recipe_that_can_not_be_read_is_listed_by_its_name(packages):
    folder = packages("with_broken", "with_broken", light("with_broken", "with_broken")) / "recipes"
    folder.mkdir()
    (folder / "broken.yaml").write_text("# Broken.\n# Data: nothing.\nmethod: [\n")
    with pytest.warns(UserWarning, match="The recipe broken is no valid YAML"):
        (found,) = [each for each in list_recipes() if each.name == "broken"]
    assert (found.title, found.data, found.method) == ("Broken", "nothing", "")


CHECKPOINT = """
from fmri_models import PretrainedRecord

METHOD = PretrainedRecord("{name}", "Theirs", license="mit", folder="weights", package="{package}")
"""


def test_a_checkpoint_lies_in_the_package_that_offers_it(packages):
    folder = packages("tiny", "with_weights", CHECKPOINT.format(name="tiny", package="with_weights"), "pretrained")
    (folder / "assets" / "weights" / "brain_model").mkdir(parents=True)
    (folder / "assets" / "weights" / "brain_model" / "model.safetensors").write_bytes(b"0" * 1000)
    assert "tiny" in [each.name for each in list_pretrained()] and "with_weights" not in sys.modules
    record = PRETRAINED.get("tiny")
    assert record.path() == folder / "assets" / "weights" and record.size == 1000
    assert record in list_pretrained() and PRETRAINED.package("tiny") == "with-weights"


def test_a_checkpoint_of_another_package_than_offers_it_is_refused(packages):
    packages("tiny", "that_forgot", CHECKPOINT.format(name="tiny", package="fmri_models"), "pretrained")
    expected = "'tiny' is of the package 'fmri_models', says its record; expected 'that_forgot', which offers it"
    with pytest.raises(FmriModelsError, match=expected):
        PRETRAINED.get("tiny")
    with pytest.warns(UserWarning, match=expected):
        assert "tiny" not in [each.name for each in list_pretrained()]


def test_names_of_checkpoints_are_nobodys_twice(packages):
    for name, module in (("embedded", "late_one"), ("twin", "twin_c"), ("twin", "twin_d")):
        packages(name, module, CHECKPOINT.format(name=name, package=module), "pretrained")
    with pytest.warns(UserWarning) as caught:
        names = [each.name for each in list_pretrained()]
    assert names.count("embedded") == 1 and "twin" not in names
    assert {str(each.message).partition(",")[0] for each in caught} == {
        "The package late-one offers a checkpoint named 'embedded'",
        "The packages twin-c and twin-d both offer a checkpoint named 'twin'",
    }
    with pytest.warns(UserWarning, match="the other one needs another name"):
        assert PRETRAINED.get("embedded").package == "fmri_models"


def test_classes_of_one_name_in_two_packages_are_not_mistaken_for_each_other(packages):
    for module in ("one_a", "one_b"):
        packages(module, module, light(module, module).replace(module.title().replace("_", ""), "Same"))
    with pytest.raises(FmriModelsError, match=r"several classes named SameModel: one_a.heavy:SameModel, one_b"):
        find_class("SameModel")


def test_an_index_names_this_package_for_classes_that_were_made_known(monkeypatch):
    record = GeneratorRecord("ours", "", "ours.kandinsky.drawing:OurGenerator", ("ours.nets:OurNet",))
    monkeypatch.setitem(GENERATORS.registered, "ours", record)
    for library in ("ours", "ours.kandinsky.drawing", "kandinsky"):
        assert entries_of_index({"a": (library, "OurGenerator")}) == {"a": ("fmri_models", "OurGenerator")}
    others = {"a": ("theirs", "OurNet"), "b": ("diffusers", "UNet"), "c": 3, "d": (None, None), "e": ("x", "y", "z")}
    assert entries_of_index(others) == others


def test_classes_of_packages_that_made_nothing_known_are_not_saved(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(PACKAGE)
    from fmri_shallow import GENERATOR  # type: ignore[import-not-found]

    monkeypatch.setitem(GENERATORS.registered, "mosaic", GeneratorRecord("mosaic", "", GENERATOR.generator))
    made = GENERATORS.get("mosaic").load().for_stimuli((1, 12, 12))
    with pytest.raises(
        FmriModelsError, match="palette of the MosaicImageGenerator is a Palette of the package fmri_sha"
    ):
        made.save_pretrained(tmp_path / "generator")
    monkeypatch.setitem(GENERATORS.registered, "mosaic", GENERATOR)
    type(made).for_stimuli((1, 12, 12)).save_pretrained(tmp_path / "generator")
    assert type(made).from_pretrained(tmp_path / "generator").image_size == (1, 12, 12)


def test_classes_that_can_not_be_what_they_are_named_as_are_a_sentence():
    linear, mindeye = METHODS.get("linear"), METHODS.get("mindeye")
    for change, role, expected in (
        ({"config": "fmri_models:LinearModel"}, "config", "LinearModel is no FmriConfig; derive the class from it"),
        ({"config": "fmri_models:FmriConfig"}, "config", "has the model_type ''; set 'fmri-ours', by which it"),
        ({"config": "fmri_models:LinearConfig"}, "config", "has the model_type 'fmri-linear'; set 'fmri-ours'"),
        ({"model": mindeye.model}, "model", "has MindEyeConfig as config_class; set fmri_models.models.linear"),
        ({"pipeline": "fmri_models:PixelsImageGenerator"}, "pipeline", "is no FmriToImagePipeline"),
    ):
        with pytest.raises(FmriModelsError, match=expected):
            dataclasses.replace(linear, name="ours", **change).load(role)
    with pytest.raises(FmriModelsError, match="LinearModel is no ImageGenerator"):
        GeneratorRecord("ours", "", "fmri_models:LinearModel").load()


def test_own_data_sets_have_titles():
    assert DATASETS.get("digits69").title.startswith("digits69 (van Gerven et al. 2010)")
    with pytest.raises(
        FmriModelsError, match="There is no data set 'digits'; those there are: .*digits69.* Did you mean"
    ):
        DATASETS.get("digits")
