"""transformers' switches hold for this package's log."""

import subprocess

import pytest

from tests.new_process import python

WARNED = """
import fmri_models, transformers, logging
{}
fmri_models.LinearConfig(subject_names=['a'], num_voxels=[3], foo=1)
"""


@pytest.mark.parametrize(
    ("switch", "environment", "is_said"),
    [
        ("0", {}, True),
        ("transformers.logging.set_verbosity_error()", {}, False),
        ("0", {"TRANSFORMERS_VERBOSITY": "error"}, False),
        ("logging.getLogger('fmri_models').setLevel('WARNING')", {"TRANSFORMERS_VERBOSITY": "error"}, True),
        ("logging.getLogger('fmri_models').setLevel('ERROR')", {}, False),
    ],
)
def test_transformers_verbosity_holds_unless_a_level_is_set(switch, environment, is_said, monkeypatch):
    monkeypatch.delenv("TRANSFORMERS_VERBOSITY", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    code = WARNED.format(switch)
    done = subprocess.run([*python(), "-c", code], capture_output=True, text=True, timeout=120, check=True)
    said = [line for line in done.stderr.splitlines() if "no field 'foo'" in line]
    assert len(said) == is_said and all(line.startswith("[fmri_models] ") for line in said)
