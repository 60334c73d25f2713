"""transformers' common tests of models, on every model of every registered method.

The cases are the subclasses of [`SuiteCase`] in the tests of the methods, so that a new method is among them by the
test class that it needs anyway.
"""

import copy
import importlib
import inspect
import unittest
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from fmri_models.modeling_fmri import FmriPreTrainedModel
from fmri_models.registry import method_names
from tests.suites.left_out import LEFT_OUT
from tests.suites.transformers_tests import suite
from tests.test_modeling_common import SUBJECTS, ModelTesterMixin, SuiteCase

common = suite("test_modeling_common")


class ModelTester:
    """What the common tests ask for configurations and inputs."""

    __test__ = False

    def __init__(self, case: SuiteCase) -> None:
        self.case = case
        self.batch_size = len(SUBJECTS)
        self.is_training = bool(case.make_targets(self.model(), self.batch_size))
        vars(self).update(case.depth)

    def model(self) -> Any:
        return self.case.model_class(self.case.make_config(list(SUBJECTS), list(self.case.num_voxels)))

    def prepare_config_and_inputs_for_common(self) -> tuple[Any, dict[str, torch.Tensor]]:
        return self.case.make_config(list(SUBJECTS), list(self.case.num_voxels)), self.case.make_inputs()


class CommonTests(common.ModelTesterMixin):
    """Fits the common tests to models that take voxels and learn from embeddings."""

    __test__ = False
    case_class: type[SuiteCase]
    # No model has a table of embeddings.
    test_resize_embeddings = False

    def setUp(self) -> None:
        self.model_tester = ModelTester(self.case_class())
        # Messages with whole tensors are written before it is known whether they are needed.
        torch.set_printoptions(threshold=0, edgeitems=1)
        self.addCleanup(torch.set_printoptions, profile="default")

    def _prepare_for_class(self, inputs: Any, model_class: Any, return_labels: bool = False) -> dict[str, Any]:
        inputs = copy.deepcopy(inputs)
        case = self.model_tester.case
        # Where two outputs are compared, nothing may have been drawn for them.
        compares = self._testMethodName == "test_model_outputs_equivalence"
        if return_labels and not (compares and case.draws_for_targets):
            inputs |= case.make_targets(self.model_tester.model(), self.model_tester.batch_size)
        return inputs


def cases() -> Iterator[type[SuiteCase]]:
    """The models' test classes of all methods."""
    for name in method_names():
        module = importlib.import_module(f"tests.models.{name}.test_modeling_{name}")
        for _, item in inspect.getmembers(module, inspect.isclass):
            if issubclass(item, SuiteCase) and item not in (SuiteCase, ModelTesterMixin):
                yield item


def suite_of(case: type[SuiteCase], is_variant: bool = False) -> type:
    """The common tests of one model; those that are left out have to fail. A variant's are slow."""
    name = f"Suite{case.__name__.removeprefix('Test')}"
    options = {
        "__test__": True,
        "__module__": __name__,
        "case_class": case,
        "all_model_classes": (case.model_class,),
        "has_attentions": case.has_attentions,
        "test_all_params_have_gradient": case.loss_reaches_all,
        "pytestmark": [pytest.mark.slow] if is_variant else [],
    }
    tests = type(name, (CommonTests, unittest.TestCase), options)
    for test in [each for each in dir(tests) if each.startswith("test_")]:
        if reasons := [each.reason for each in LEFT_OUT if each.concerns(test, case.__name__)]:
            setattr(tests, test, expected_to_fail(getattr(tests, test), reasons[0]))
    return tests


def expected_to_fail(test: Any, reason: str) -> Any:
    def failing(self: Any) -> Any:
        return test(self)

    return pytest.mark.xfail(reason=reason, strict=True)(failing)


_classes: set[type] = set()
for _case in cases():
    # Of each class one configuration is tested by `make test`, the others by `make test-slow`.
    _tests = suite_of(_case, is_variant=_case.model_class in _classes)
    _classes.add(_case.model_class)
    globals()[_tests.__name__] = _tests
del _case, _tests, _classes


def test_every_model_of_every_method_is_a_case():
    tested = {case.model_class for case in cases()}
    for name in method_names():
        module = importlib.import_module(f"fmri_models.models.{name}.modeling_{name}")
        defined = [item for item in vars(module).values() if getattr(item, "__module__", None) == module.__name__]
        models = {item for item in defined if inspect.isclass(item) and issubclass(item, FmriPreTrainedModel)}
        assert {model for model in models if "forward" in vars(model)} <= tested


def test_what_is_left_out_is_a_test_of_the_suite():
    names = dir(common.ModelTesterMixin)
    assert all(any(name.startswith(each.test) for name in names) for each in LEFT_OUT)
