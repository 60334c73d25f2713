"""Freed memory stays with the process; each test asks in a process of its own."""

import os
import platform
import subprocess
import sys

import pytest

# Page faults of allocating, filling and freeing 20 MiB fifty times; the first rounds get the memory.
FAULTS = """
import resource, torch
from fmri_models.process_memory import keep_freed_memory
if {keep}:
    keep_freed_memory()
def work():
    [torch.ones(5 * 2**20) for _ in range(50)]
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
before = faults()
for _ in range(10):
    torch.ones(5 * 2**20), torch.ones(5 * 2**20), torch.ones(5 * 2**20), torch.ones(5 * 2**20)
print(faults() - before)
"""


def faults(keep: bool, **environment: str) -> int:
    command = [sys.executable, "-c", FAULTS.format(keep=keep)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **environment})
    return int(result.stdout)


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="Only glibc is asked to keep memory.")
def test_freed_memory_is_not_got_again():
    assert faults(keep=True) < 200
    assert faults(keep=True, MALLOC_TRIM_THRESHOLD_="131072") > 10_000


def test_nothing_is_asked_of_another_library(monkeypatch):
    from fmri_models import process_memory

    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(process_memory, "ctypes", None)
    process_memory.keep_freed_memory()
