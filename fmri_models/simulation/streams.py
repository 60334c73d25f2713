"""Random streams: one for each purpose, so that no part moves when another one draws more."""

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """What a stream is for; the numbers are part of the simulator's version."""

    ANATOMY = 0
    TUNING = 1
    CEILING = 2
    LOADINGS = 3
    SESSIONS = 4
    DESIGN = 5
    NOISE = 6
    PICTURES = 7
    FEATURES = 8
    REFERENCE = 9
    TOPOGRAPHY = 10
    SIGNAL_SPACE = 11


def stream(seed: int, purpose: Stream, *path: int) -> np.random.Generator:
    """A generator that depends on the seed, the purpose and a path such as (subject, session, run) alone."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(int(purpose), *path)))
