"""transformers' common tests of configurations, on those of every registered method, and of feature extractors, on the
processor."""

import importlib
import inspect
import unittest

import pytest

from fmri_models import FmriProcessor
from fmri_models.registry import get_method, method_names
from tests.suites.transformers_tests import suite
from tests.test_modeling_common import SUBJECTS, ModelTesterMixin

configurations = suite("test_configuration_common")
feature_extractors = suite("test_feature_extraction_common")


@pytest.mark.parametrize("name", method_names())
def test_configuration(name):
    method = get_method(name)
    config_class = method.load("config")
    module = importlib.import_module(f"tests.models.{name}.test_modeling_{name}")
    case = next(
        item()
        for _, item in inspect.getmembers(module, inspect.isclass)
        if issubclass(item, ModelTesterMixin) and getattr(item, "model_class", None) is method.load("model")
    )
    config = case.make_config(list(SUBJECTS), list(case.num_voxels))
    chosen = {field: getattr(config, field) for field in config_class.own_fields() if field != "transformers_version"}
    values = {field: value for field, value in chosen.items() if field in config.to_diff_dict()}
    tester = configurations.ConfigTester(
        unittest.TestCase(), config_class, has_text_modality=False, common_properties=[], **values
    )
    tester.run_common_tests()


class TestProcessor(feature_extractors.FeatureExtractionSavingTestMixin, unittest.TestCase):
    feature_extraction_class = FmriProcessor
    feat_extract_dict = {"subject_names": ["subj01"]}
