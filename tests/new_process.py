"""New processes that begin with libraries imported, and with nothing of this package.

To import PyTorch, transformers and diffusers takes longer than most tests. A process that has done so, and nothing
else, is forked for each program. Whatever the package registers or imports, each of these does anew.

`[*python(), "-c", program]` is a command for `subprocess` like `[sys.executable, "-c", program]`, with the same
environment, folder, streams, signals and exit codes; only SIGKILL reaches the program a moment later. Tests of what is
imported in which order need the latter.
"""

import atexit
import gc
import json
import os
import select
import signal
import socket
import sys
from contextlib import suppress
from importlib import import_module

_TESTS = os.path.dirname(os.path.abspath(__file__))
_REPOSITORY = os.path.dirname(_TESTS)
_TIMEOUT_SECONDS = 120
# As it is before any test changes it: what is shared is imported in it, and `tests/conftest.py` removes its folder.
_ENVIRONMENT = dict(os.environ)
# What no variable of the environment of a test changes, so that it may be imported before that is known.
_PYTORCH = (
    "torch", "torch._dynamo", "torch._inductor.standalone_compile", "torch.distributed.fsdp",
    "torch.distributed.tensor", "torch.export", "torchvision.transforms", "scipy.optimize", "scipy.stats",
    "sklearn.metrics", "sympy", "pandas", "pyarrow.parquet", "PIL.Image", "httpx", "requests", "yaml",
)  # fmt: skip
_LIBRARIES = (
    "transformers.modeling_utils", "diffusers.pipelines.pipeline_utils", "diffusers.models.unets.unet_2d_condition",
    "peft",
)  # fmt: skip


def python() -> list[str]:
    """The command of a Python whose processes begin with PyTorch imported, and no library that asks the Hub."""
    return _pytorch()


def python_with_libraries() -> list[str]:
    """The same with transformers, diffusers and PEFT imported, in the environment of the tests."""
    return _libraries()


def run_program(code: str, *arguments: object):
    """Runs the text of a program in a new process, in the clone, with all libraries imported.

    Args:
        code: The program.
        arguments: What it finds in `sys.argv` from 1 on.

    Returns:
        How it ended: `returncode`, and what it printed as `stdout` and `stderr`.
    """
    import subprocess

    return subprocess.run(
        [*_libraries(), "-c", code, *map(str, arguments)],
        cwd=_REPOSITORY,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=_TIMEOUT_SECONDS,
    )


class PythonWith:
    """A Python whose processes begin with modules imported in an environment, say one that names a server.

    Args:
        modules: What they begin with.
        environment: What is in the environment while that is imported. Each process has its own afterwards.
        python: The command of the Python that imports it; None for that of this process.
    """

    def __init__(self, *modules: str, environment: dict[str, str] | None = None, python: list[str] | None = None):
        import subprocess
        import tempfile

        self._folder = tempfile.TemporaryDirectory(prefix="python-", dir=_ENVIRONMENT.get("XDG_CACHE_HOME"))
        address = os.path.join(self._folder.name, "socket")
        command = [*(python or [sys.executable]), __file__, "serve", address, *modules]
        # It ends with its standard input, which is this process'.
        self._server = subprocess.Popen(
            command, cwd=_REPOSITORY, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._server.stdout is not None and self._server.stdout.readline() == "ready\n"
        self.command = [sys.executable, "-I", "-S", __file__, "run", address]

    def __enter__(self) -> list[str]:
        return self.command

    def __exit__(self, *error: object) -> None:
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.close()
        self._server.stdout.close()
        self._server.wait(_TIMEOUT_SECONDS)
        self._folder.cleanup()


_servers: dict[str, PythonWith] = {}


def _pytorch() -> list[str]:
    if "pytorch" not in _servers:
        _servers["pytorch"] = PythonWith(*_PYTORCH, environment=_ENVIRONMENT)
    return _servers["pytorch"].command


def _libraries() -> list[str]:
    if "libraries" not in _servers:
        _servers["libraries"] = PythonWith(*_LIBRARIES, environment=_ENVIRONMENT, python=_pytorch())
    return _servers["libraries"].command


# What runs a program: it hands its arguments, environment, folder and streams to the server, and ends as the program.


def _run(address: str, arguments: list[str]) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        request = json.dumps([arguments, dict(os.environ), os.getcwd()]).encode()
        socket.send_fds(connection, [len(request).to_bytes(8, "big")], [0, 1, 2])
        connection.sendall(request)
        program = int.from_bytes(_received(connection, 8), "big")
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, frame: os.kill(program, number))
        ended = int.from_bytes(_received(connection, 8), "big", signed=True)
    if ended < 0:
        signal.signal(-ended, signal.SIG_DFL) if -ended != signal.SIGKILL else None
        os.kill(os.getpid(), -ended)
    os._exit(ended)


def _received(connection: socket.socket, size: int) -> bytes:
    content = b""
    while len(content) < size:
        part = connection.recv(size - len(content))
        if not part:
            raise EOFError("the server of new processes has ended")
        content += part
    return content


# The server: a child waits for each program, which is a child of that one.


def _serve(address: str, modules: list[str]) -> None:
    sys.path[0] = _REPOSITORY
    for name in modules:
        # Other versions of the libraries may not have it; programs import what they need.
        with suppress(ModuleNotFoundError):
            import_module(name)
    here = [os.path.abspath(each) for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if each]
    installed = [each for each in sys.path[1:] if os.path.abspath(each) not in here]
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        print("ready", flush=True)
        waiting: set[int] = set()
        while 0 not in select.select([0, listener], [], [])[0]:
            connection, _ = listener.accept()
            with connection:
                child = os.fork()
                if child == 0:
                    listener.close()
                    _wait_for(connection, installed)
            waiting = {each for each in (*waiting, child) if os.waitpid(each, os.WNOHANG)[0] == 0}
        for each in waiting:
            os.waitpid(each, 0)


def _wait_for(connection: socket.socket, installed: list[str]) -> None:
    """Runs the program that is asked for, and says how it ends. Ends this process."""
    size, streams, _, _ = socket.recv_fds(connection, 8, 3)
    request = json.loads(_received(connection, int.from_bytes(size, "big")))
    program = os.fork()
    if program == 0:
        connection.close()
        _become(*request, streams, installed)
    for stream in [*range(3), *streams]:
        os.close(stream)
    connection.sendall(program.to_bytes(8, "big"))
    while True:
        ended, status = os.waitpid(program, os.WNOHANG)
        if ended:
            connection.sendall(os.waitstatus_to_exitcode(status).to_bytes(8, "big", signed=True))
            os._exit(0)
        # Nothing else is sent, so there is something to read when whoever asked is gone.
        if select.select([connection], [], [], 0.01)[0]:
            os.kill(program, signal.SIGKILL)
            os.waitpid(program, 0)
            os._exit(0)


def _become(
    arguments: list[str], environment: dict[str, str], folder: str, streams: list[int], installed: list[str]
) -> None:
    """Ends this process as Python with these arguments would."""
    import runpy
    import traceback
    from types import ModuleType

    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    kind, *rest = arguments
    named = [os.path.abspath(each) for each in environment.get("PYTHONPATH", "").split(os.pathsep) if each]
    first = {"-c": "", "-m": folder}.get(kind, os.path.dirname(os.path.abspath(kind)))
    sys.path[:] = [first, *named, *installed]
    sys.argv = ["-c", *rest[1:]] if kind == "-c" else rest if kind == "-m" else arguments
    sys.modules["__main__"] = ModuleType("__main__")
    code = 0
    try:
        if kind == "-c":
            exec(compile(rest[0], "<string>", "exec"), vars(sys.modules["__main__"]))
        elif kind == "-m":
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(kind, run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException as error:
        traceback.print_exc()
        code = 128 + signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    atexit._run_exitfuncs()
    for written in (sys.stdout, sys.stderr):
        if written is not None and not written.closed:
            with suppress(OSError):
                written.flush()
    os._exit(code & 0xFF)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        _serve(sys.argv[2], sys.argv[3:])
    else:
        _run(sys.argv[2], sys.argv[3:])
