"""Threads wait briefly in the processes of the commands, unless the user has said how they wait."""

import os
import shutil
import subprocess
import sys

import pytest

from fmri_models.process_threads import VARIABLES, brief_waiting
from tests.new_process import python

UNSET = {name: value for name, value in os.environ.items() if name not in VARIABLES}
# What the command's process has in its environment when it begins to work, and whether PyTorch was loaded before.
COMMAND = """
import os, sys
from fmri_models.cli import main, {command}
def run(args):
    print("torch" in sys.modules, os.environ.get("GOMP_SPINCOUNT"), os.environ.get("OMP_WAIT_POLICY"))
{command}.run = run
sys.exit(main.main({arguments}))
"""


def begun(**environment: str) -> list[str]:
    code = COMMAND.format(command="demo", arguments=["demo"])
    command = [sys.executable, "-c", code]
    finished = subprocess.run(command, capture_output=True, text=True, check=True, env={**UNSET, **environment})
    return finished.stdout.split()


def test_the_command_sets_it_before_pytorch_is_loaded():
    assert begun() == ["False", brief_waiting({})["GOMP_SPINCOUNT"], "None"]


@pytest.mark.parametrize("name", VARIABLES)
def test_what_the_user_says_stays(name):
    assert brief_waiting({name: "passive"}) == {}
    assert begun(OMP_WAIT_POLICY="active") == ["False", "None", "active"]


@pytest.mark.slow
def test_training_in_several_processes_sets_it_too():
    code = (
        "import os, sys; from fmri_models.training import __main__ as training; "
        "training.run = lambda args: print('torch' in sys.modules, os.environ['GOMP_SPINCOUNT']); "
        "training.main(['linear'])"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=UNSET)
    assert finished.stdout.split() == ["False", brief_waiting({})["GOMP_SPINCOUNT"]]


@pytest.mark.slow
def test_importing_the_package_leaves_the_environment_alone():
    code = "import os, fmri_models, fmri_models.pipeline_fmri; print(os.environ.get('GOMP_SPINCOUNT'))"
    finished = subprocess.run([*python(), "-c", code], capture_output=True, text=True, check=True, env=UNSET)
    assert finished.stdout.strip() == "None"


@pytest.mark.skipif(shutil.which("make") is None, reason="There is no make.")
@pytest.mark.parametrize("given", [{}, {"OMP_WAIT_POLICY": "passive"}, {"GOMP_SPINCOUNT": "5"}])
def test_make_says_the_same(repository, given):
    show = "show: ; @echo $$GOMP_SPINCOUNT,$$KMP_BLOCKTIME,$$OMP_WAIT_POLICY"
    shown = subprocess.run(
        ["make", "--no-print-directory", "--eval", show, "show"],
        cwd=repository,
        env={**UNSET, **given},
        capture_output=True,
        text=True,
        check=True,
    )
    expected = {**brief_waiting(given), **given}
    assert shown.stdout.strip().split(",") == [
        expected.get(name, "") for name in ("GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_WAIT_POLICY")
    ]
