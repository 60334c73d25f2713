"""A registered method or generator has a test case, a page, and a recipe; this fails where one is forgotten."""

import importlib
import inspect

import pytest

from fmri_models import registry
from fmri_models.generation.image_generator import ImageGenerator
from fmri_models.generation.loading import image_generator_class
from fmri_models.records import Method
from fmri_models.registry import get_method, method_names, register_method
from fmri_models.training.recipe import load_recipe
from fmri_models.training.recipe_files import recipe_names
from tests.pipeline_tester_mixin import DrawingHabits, PipelineHabits
from tests.test_modeling_common import ModelTesterMixin
from tests.test_pipeline_common import PipelineTesterMixin

METHODS = pytest.mark.parametrize("name", [method.name for method in registry.METHODS.own()])
GENERATORS = pytest.mark.parametrize("name", [record.name for record in registry.GENERATORS.own()])


def test_classes(module_name: str, mixin: type) -> list[type]:
    module = importlib.import_module(module_name)
    return [
        item for _, item in inspect.getmembers(module, inspect.isclass) if issubclass(item, mixin) and item is not mixin
    ]


test_classes.__test__ = False  # type: ignore[attr-defined]


@METHODS
def test_every_method_passes_the_common_tests(name):
    method = get_method(name)
    models = test_classes(f"tests.models.{name}.test_modeling_{name}", ModelTesterMixin)
    assert method.load("model") in [case.model_class for case in models]
    pipelines = test_classes(f"tests.models.{name}.test_pipeline_{name}", PipelineTesterMixin)
    assert method.load("pipeline") in [case.pipeline_class for case in pipelines]


@METHODS
def test_every_method_has_a_page(name, repository):
    page = repository / "docs" / "methods" / f"{name}.md"
    assert page.is_file()
    assert f"methods/{name}.md" in (repository / "mkdocs.yml").read_text()


@METHODS
def test_every_method_has_a_recipe_of_its_name(name):
    assert load_recipe(name).method == name


@METHODS
def test_every_method_follows_the_naming_of_files(name):
    method = get_method(name)
    folder = f"fmri_models.models.{name}"
    assert [path.split(":")[0] for path in (method.config, method.model, method.pipeline, method.objective)] == [
        f"{folder}.{part}_{name}" for part in ("configuration", "modeling", "pipeline", "objective")
    ]
    assert method.load("config").model_type == f"fmri-{name}"


@GENERATORS
def test_every_generator_has_tests_and_a_page(name, repository):
    assert (repository / "tests" / "generation" / f"test_{name}.py").is_file()
    assert (repository / "docs" / "generators" / f"{name}.md").is_file()
    assert f"generators/{name}.md" in (repository / "mkdocs.yml").read_text()


@GENERATORS
def test_every_generator_passes_the_common_tests(name):
    generator_class = image_generator_class(name)
    cases = test_classes(f"tests.generation.test_{name}", PipelineHabits)
    own = [case for case in cases if getattr(case, "generator_class", None) is generator_class]
    assert own
    # CLIP's targets draw nothing.
    assert name == "clip" or any(issubclass(case, DrawingHabits) for case in own)


@GENERATORS
def test_every_generator_keeps_the_uniform_call(name):
    expected = list(inspect.signature(ImageGenerator.__call__).parameters)
    assert list(inspect.signature(image_generator_class(name).__call__).parameters) == expected


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_is_valid(name):
    recipe = load_recipe(name)
    objective = get_method(recipe.method).load("objective")
    for stage in recipe.stages:
        objective(**stage.objective)


def test_a_method_of_another_package_works_by_name(monkeypatch):
    monkeypatch.setattr(registry.METHODS, "registered", {})
    linear = get_method("linear")
    method = Method("ours", "Ours", linear.config, linear.model, linear.output, linear.pipeline, linear.objective)
    register_method(method)
    assert get_method("ours") is method
    assert "ours" in method_names()
    with pytest.raises(ValueError, match="registered already"):
        register_method(Method("linear", "", *["a:b"] * 5))
    with pytest.raises(
        ValueError, match="no method 'mindreader'; those there are: linear, mindbridge, mindeye, mindvis, ours"
    ):
        get_method("mindreader")
