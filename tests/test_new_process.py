"""What `tests.new_process` forks behaves as a Python that was started anew."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.new_process import PythonWith


@pytest.fixture(scope="module")
def quick():
    """Begins with modules of Python alone; one that is not there is left out."""
    with PythonWith("decimal", "no_such_module", environment={**os.environ, "WHILE_IMPORTED": "1"}) as command:
        yield command


def told(command, program, *arguments, **options):
    code = f"import json, os, sys\nprint(json.dumps({program}))"
    done = subprocess.run([*command, "-c", code, *arguments], capture_output=True, text=True, check=True, **options)
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "program",
    ["sys.argv", "os.getcwd()", "os.environ['OWN']", "os.environ.get('WHILE_IMPORTED')", "sys.path[:2]", "__name__"],
)
def test_arguments_folder_and_environment_are_its_own(quick, program, tmp_path):
    environment = {**os.environ, "OWN": "Zo\u00eb", "PYTHONPATH": str(tmp_path / "first")}
    options = {"cwd": tmp_path, "env": environment}
    assert told(quick, program, "a b", **options) == told([sys.executable], program, "a b", **options)


def test_it_begins_with_the_modules_and_nothing_of_this_package(quick):
    assert told(quick, "[name in sys.modules for name in ('decimal', 'fmri_models')]") == [True, False]


@pytest.mark.parametrize(
    "code",
    [
        "1 / 0",
        "raise SystemExit('no')",
        "raise SystemExit(3)",
        "raise SystemExit",
        "import os; os.kill(os.getpid(), 9)",
    ],
)
def test_it_ends_as_the_program(quick, code):
    one, other = (
        subprocess.run([*command, "-c", code], capture_output=True, text=True) for command in (quick, [sys.executable])
    )
    assert one.returncode == other.returncode
    assert one.stderr.splitlines()[-1:] == other.stderr.splitlines()[-1:]


def test_modules_and_files_are_programs_too(quick, tmp_path):
    done = subprocess.run([*quick, "-m", "json.tool"], input='{"a":1}', capture_output=True, text=True)
    assert (json.loads(done.stdout), done.returncode, done.stderr) == ({"a": 1}, 0, "")
    (tmp_path / "program.py").write_text("import sys; print(sys.argv[1:], sys.path[0])")
    done = subprocess.run([*quick, tmp_path / "program.py", "a"], capture_output=True, text=True)
    assert done.stdout == f"['a'] {tmp_path}\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_signals_reach_the_program(quick, number):
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    with subprocess.Popen([*quick, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        program = int(process.stdout.readline())
        process.send_signal(number)
        assert process.stdout.read() == "", "it holds its output until it ends"
        assert process.wait() == -number
    # It may be seen for a moment after it has let go of its output.
    deadline = time.monotonic() + 30
    with pytest.raises(ProcessLookupError):
        while time.monotonic() < deadline:
            os.kill(program, 0)
            time.sleep(0.01)


def test_ctrl_c_is_heard_where_the_tests_run_in_the_background(quick):
    code = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    assert subprocess.run([*quick, "-c", code], capture_output=True, text=True).stdout == "True\n"
