"""Patterns in an adapter's configuration; those that are refused are in `test_peft.py`, where PEFT reads them."""

import pytest

from fmri_models.adapter_patterns import check_patterns


@pytest.mark.parametrize(
    "pattern",
    [
        "all-linear",
        r".*\.(q|v)_proj",
        r"(.*\.)?blocks\.\d+\.(fc|fc1|fc2)",
        r"^.*\.blocks\.\d+\.attn\..*(to_q|to_v)$",
        r"model\.layers\.[0-9]+\.[^.]+|head",
        r"(?:blocks|backbone)\.0",
    ],
)
def test_usual_patterns_are_read(pattern):
    check_patterns({"target_modules": pattern}, "The adapter")
