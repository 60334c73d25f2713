"""How the threads of this process wait for each other."""

import os
from collections.abc import Mapping

# What decides how OpenMP's threads wait: those of every implementation, of GNU's, and of Intel's and LLVM's.
VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
# How often a thread looks whether the others are ready before it sleeps, and the shortest time that is no sleep, in ms.
_BRIEFLY = {"GOMP_SPINCOUNT": "3000", "KMP_BLOCKTIME": "1"}


def brief_waiting(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Variables with which OpenMP's threads sleep soon where they wait for each other; none where the user has said it.

    At the end of each parallel piece of work threads spin until the last one is ready, by default for some
    milliseconds. Where another program has one of the cores, that last one waits for the core on which the others spin,
    and training takes many times as long. Not to spin at all costs a tenth of the speed on a machine of one's own; a
    fraction of a millisecond bridges nearly all that is waited for there. The number of threads stays as it is, since
    sums depend on it.

    OpenMP reads the environment when it is loaded, so the variables are set before PyTorch is imported. Programs do
    that where they begin, and the package does not when it is imported: how the threads of somebody else's program wait
    is for that program to say, and it may have loaded PyTorch already.

    Args:
        environment: Of the process.
    """
    return {} if any(name in environment for name in VARIABLES) else dict(_BRIEFLY)
