"""`fmri-models completion`: a shell completes with what the parser knows, and nothing heavy is loaded for it."""

import shutil
import subprocess
import sys

import pytest

from fmri_models.cli.completion import SHELLS, completion

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("completion") / "fmri-models.bash"
    path.write_text(completion("bash"))
    return path


def completed(script, *words):
    program = f"""
source {script}
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${{#COMP_LINE}}; COMPREPLY=()
$(complete -p fmri-models | sed 's/.*-F \\([^ ]*\\).*/\\1/')
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    command = ["bash", "-c", program, "bash", "fmri-models", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["tr"], ["train"]),
        (["data", "v"], ["validate"]),
        (["train", "digits69_m"], ["digits69_mindbridge", "digits69_mindeye", "digits69_mindvis"]),
        (["evaluate", "--prot"], ["--protocol"]),
        (["evaluate", "--protocol", "s"], ["small_pictures", "standard"]),
        (["data", "split", "x", "--by", "k"], ["kfold"]),
        (["prepare", "arr"], ["arrays"]),
        (["convert", "m"], ["mindbridge", "mindeye", "mindvis"]),
        (["subjects", "l"], ["list", "load"]),
        (["push"], ["push", "push-space"]),
        (["push-space", "--w"], ["--wheel"]),
    ],
)
def test_bash(script, words, expected):
    assert sorted(completed(script, *words)) == sorted(expected)


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_gets_a_script_without_pytorch(shell):
    program = f"""
import sys
from fmri_models.cli.main import main
main(["completion", {shell!r}])
assert "torch" not in sys.modules and "pyarrow" not in sys.modules
"""
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "digits69_mindeye" in finished.stdout and "reconstruct" in finished.stdout


def test_completing_refuses_no_value_that_the_command_takes():
    from fmri_models.cli.main import build_parser

    completion("bash")
    assert build_parser().parse_args(["train", "my_recipe.yaml"]).recipe == "my_recipe.yaml"
