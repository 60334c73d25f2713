"""New processes that begin with the libraries imported, and with nothing of this package.

To import PyTorch, transformers and diffusers takes longer than most tests. A process that has done so, and nothing
else, is forked for each program. Whatever the package registers or imports, each of these does anew.
"""

import json
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

_REPOSITORY = Path(__file__).parents[1]
_TIMEOUT_SECONDS = 120


class Ended(NamedTuple):
    """How a program ended."""

    returncode: int
    stdout: str
    stderr: str


def run_program(code: str, *arguments: object) -> Ended:
    """Runs the text of a program in a new process, in the clone.

    Args:
        code: The program.
        arguments: What it finds in `sys.argv` from 1 on.
    """
    server = _server()
    assert server.stdin is not None and server.stdout is not None
    with tempfile.TemporaryDirectory() as folder:
        files = [str(Path(folder) / name) for name in ("stdout", "stderr")]
        request: dict[str, Any] = {"code": code, "arguments": [str(each) for each in arguments], "files": files}
        request["environment"] = dict(os.environ)
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        returncode = int(server.stdout.readline())
        return Ended(returncode, *(Path(file).read_text(encoding="utf-8") for file in files))


@cache
def _server() -> subprocess.Popen[str]:
    # It ends with its standard input, which is this process'.
    return subprocess.Popen(
        [sys.executable, __file__], cwd=_REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def _serve() -> None:
    import transformers.modeling_utils  # noqa: F401

    assert not [name for name in sys.modules if name.startswith("fmri_models")]
    sys.path[0] = str(_REPOSITORY)
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            _run(request)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _run(request: dict[str, Any]) -> None:
    import signal
    import traceback

    signal.alarm(_TIMEOUT_SECONDS)
    for number, file in enumerate(request["files"], start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
    sys.stdin = open(os.devnull)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = ["program", *request["arguments"]]
    returncode = 0
    try:
        exec(compile(request["code"], "program", "exec"), {"__name__": "__main__"})
    except SystemExit as end:
        returncode = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        returncode = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(returncode)


if __name__ == "__main__":
    _serve()
