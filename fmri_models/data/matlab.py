"""Reading MATLAB's `.mat` files in a process of its own, because a damaged one can crash the reader.

The child has bounds on memory and time. It writes what it has read as plain `.npy` files, which the parent reads by its
own door; nothing else of it is trusted.
"""

import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from ..errors import FmriModelsError
from ..names import one_line
from ..reading import BYTES_OF_A_STAND_IN, MEBIBYTE, check_regular_file, read_array, stand_in
from .folder_or_zip import open_zip, read_member

_MOST_FILE_BYTES = 512 * MEBIBYTE
_MOST_MEMORY = 1024 * MEBIBYTE
_MOST_CPU_S = 10
# Waiting for a slow disk is no computing.
_MOST_WAIT_S = 120
_REFUSED = 3


def read_mat(source: Path, names: Sequence[str], mend: str, member: str | None = None) -> dict[str, np.ndarray]:
    """Some numeric arrays of a `.mat` file.

    Args:
        source: The file, or the zip file that it is in.
        names: Of the variables.
        mend: What to do about another file, as the end of a sentence.
        member: Its name in the zip file.

    Returns:
        Name to array. What is not there, or is no array of numbers, is left out.

    Raises:
        FmriModelsError: It is no `.mat` file that can be read, or is damaged.
    """
    with tempfile.TemporaryDirectory(prefix="fmri-models-mat-") as place:
        folder = Path(place)
        if member is None:
            path = check_regular_file(source, "MATLAB file", mend).absolute()
            what = one_line(source)
            if path.stat().st_size > _MOST_FILE_BYTES:
                raise FmriModelsError(
                    f"{what} has {path.stat().st_size} bytes; expected {_MOST_FILE_BYTES} at most; {mend}."
                )
        else:
            what = f"{one_line(member)} in {one_line(source)}"
            path = folder / "file.mat"
            with open_zip(source, "no zip file") as archive:
                data = read_member(archive, member, what, _MOST_FILE_BYTES)
            if instead := stand_in(data[:BYTES_OF_A_STAND_IN]):
                raise FmriModelsError(f"{what} is {instead}.")
            path.write_bytes(data)
        _run_child(path, folder, names, what, mend)
        files = {name: folder / f"{number}.npy" for number, name in enumerate(names)}
        return {
            name: read_array(file, "array of the MATLAB file", mend) for name, file in files.items() if file.exists()
        }


def _run_child(path: Path, folder: Path, names: Sequence[str], what: str, mend: str) -> None:
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", __name__, str(path), str(folder), *names]
    try:
        result = subprocess.run(
            command, cwd=folder, env=variables, timeout=_MOST_WAIT_S, stdin=subprocess.DEVNULL, capture_output=True
        )
    except subprocess.TimeoutExpired as error:
        raise FmriModelsError(f"{what} is damaged (its reader did not end in {_MOST_WAIT_S} s); {mend}.") from error
    if result.returncode == 0:
        return
    if result.returncode == _REFUSED:
        reason = one_line(result.stdout.decode("utf-8", "replace").strip(), 200)
        raise FmriModelsError(f"{what} is no readable MATLAB file ({reason}); {mend}.")
    if result.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        raise FmriModelsError(f"{what} is damaged (its reader needed more than {_MOST_CPU_S} s); {mend}.")
    if result.returncode < 0:
        raise FmriModelsError(f"{what} is damaged (its reader crashed); {mend}.")
    reason = one_line(result.stderr.decode("utf-8", "replace")[-200:])
    raise FmriModelsError(f"The reader of MATLAB files could not be started ({reason}).")


def _child(path: str, folder: str, names: list[str]) -> int:
    import scipy.io

    _set_limits()
    try:
        found = scipy.io.loadmat(path, variable_names=names)
        for number, name in enumerate(names):
            array = found.get(name)
            if isinstance(array, np.ndarray) and array.dtype.kind in "fiub":
                values = array.astype(np.uint8) if array.dtype.kind == "b" else array
                np.save(Path(folder) / f"{number}.npy", values, allow_pickle=False)
    # The reader of a foreign format, on a file that may be damaged anywhere.
    except Exception as error:
        print(f"{type(error).__name__}: {str(error)[:500]}" if str(error) else type(error).__name__)
        return _REFUSED
    return 0


def _set_limits() -> None:
    """Bounds from here on: what Python and SciPy have taken already differs from machine to machine."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    usage = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(usage.ru_utime + usage.ru_stime) + _MOST_CPU_S
    _lower(resource.RLIMIT_CPU, seconds)
    statm = Path("/proc/self/statm")
    taken = int(statm.read_text().split()[0]) * resource.getpagesize() if statm.exists() else 4 * _MOST_MEMORY
    _lower(resource.RLIMIT_AS, taken + _MOST_MEMORY)


def _lower(which: int, limit: int) -> None:
    soft, hard = resource.getrlimit(which)
    limits = [value for value in (limit, soft, hard) if value != resource.RLIM_INFINITY]
    # Some systems have no such limit.
    with suppress(ValueError, OSError):
        resource.setrlimit(which, (min(limits), hard))


if __name__ == "__main__":
    sys.exit(_child(sys.argv[1], sys.argv[2], sys.argv[3:]))
