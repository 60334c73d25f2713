"""Runs of which nothing was measured: all trials NaN, or all with one and the same pattern."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from .parquet import is_finite


@dataclass
class _Run:
    trials: int = 0
    bad: int = 0
    patterns: set[bytes] = field(default_factory=set)


class RunChecks:
    """Takes the trials of a subject, in whatever order, and keeps a few bytes of each run."""

    def __init__(self) -> None:
        self._runs: dict[tuple[int, int], _Run] = {}

    def add(self, sessions: np.ndarray, runs: np.ndarray, fmri: np.ndarray) -> None:
        """Takes trials: (n,) session and run of each, and their (n, V) betas."""
        finite = is_finite(fmri)
        for session, run, is_good, pattern in zip(sessions.tolist(), runs.tolist(), finite.tolist(), fmri, strict=True):
            known = self._runs.setdefault((session, run), _Run())
            known.trials += 1
            known.bad += not is_good
            # Two different ones are enough to know.
            if is_good and len(known.patterns) < 2:
                # Zeros of both signs are one number.
                values = np.ascontiguousarray(pattern, np.float32) + np.float32(0)
                known.patterns.add(hashlib.blake2b(values.tobytes(), digest_size=16).digest())

    def findings(self, subject: str) -> Iterator[str]:
        """What is wrong, one sentence a run."""
        for (session, run), known in sorted(self._runs.items()):
            if known.trials < 2:
                continue
            which = f"Session {session}, run {run} of {subject}"
            if known.bad == known.trials:
                yield (
                    f"{which} has NaN or infinite betas in all of its {known.trials} trials, so that nothing was "
                    "measured in it: leave the run out, or prepare it again."
                )
            elif not known.bad and len(known.patterns) == 1:
                yield (
                    f"{which} has the same betas in all of its {known.trials} trials, so that nothing was measured in "
                    "it: leave the run out, or prepare it again."
                )
