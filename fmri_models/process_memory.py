"""How this process asks the operating system for memory."""

import ctypes
import os
import platform

# mallopt(3)
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_MMAP_THRESHOLD = 32 * 2**20
_NEVER = 2**31 - 1


def keep_freed_memory() -> None:
    """Keeps freed memory for what is allocated next, instead of giving it back.

    Each step of training and sampling frees what the next one allocates. glibc gives it back to the operating system
    meanwhile, which has to clear every page again: a tenth of the time of some steps on a CPU. Tensors of more than
    32 MiB are given back as before, so that they leave no holes. Only glibc is asked, and only where nobody has set
    `MALLOC_TRIM_THRESHOLD_`.
    """
    if platform.libc_ver()[0] != "glibc" or "MALLOC_TRIM_THRESHOLD_" in os.environ:
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
    mallopt(_M_TRIM_THRESHOLD, _NEVER)
