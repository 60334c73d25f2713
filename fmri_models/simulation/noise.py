"""What stands between a voxel's response and its beta: noise ceilings, shared noise, sessions, carry-over."""

from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np
from scipy.sparse import csr_array
from scipy.stats import beta as beta_distribution

from . import constants
from .anatomy import Anatomy, smooth_functions
from .design import Design
from .streams import Stream, stream


@dataclass(frozen=True)
class SessionEffects:
    """What differs between the sessions of a subject, for each voxel.

    In session s a response is (a[s] A + b[s] B) with the voxel's tuning A and the one it drifts to, B: a = g cos(t) and
    b = g sin(t) with gain g and angle t. A and B are uncorrelated over stimuli.

    Args:
        kept: (S, V) float32, a.
        drifted: (S, V) float32, b.
        offsets: (S, V) float32, standardized over sessions.
    """

    kept: np.ndarray
    drifted: np.ndarray
    offsets: np.ndarray

    @property
    def mean_kept(self) -> np.ndarray:
        return self.kept.mean(axis=0)

    @property
    def mean_drifted(self) -> np.ndarray:
        return self.drifted.mean(axis=0)

    @property
    def expected_variance(self) -> np.ndarray:
        """(V,) variance over stimuli of the expected response, if A and B have variance 1."""
        return self.mean_kept**2 + self.mean_drifted**2

    @property
    def variance(self) -> np.ndarray:
        """(V,) variance that gain and drift put around the expected response of a stimulus."""
        return self.kept.var(axis=0, ddof=1) + self.drifted.var(axis=0, ddof=1)


def draw_session_effects(num_sessions: int, num_voxels: int, seed: int, subject: int) -> SessionEffects:
    """Draws gains, angles and offsets; tuning takes a random walk, the others are independent between sessions."""
    rng = stream(seed, Stream.SESSIONS, subject)
    shape = (num_sessions, num_voxels)
    gains = 1 + constants.GAIN_SPREAD * _standardized(rng.standard_normal(shape))
    angles = constants.DRIFT_RADIANS * _standardized(rng.standard_normal(shape).cumsum(axis=0))
    offsets = _standardized(rng.standard_normal(shape))
    return SessionEffects(
        (gains * np.cos(angles)).astype(np.float32),
        (gains * np.sin(angles)).astype(np.float32),
        offsets.astype(np.float32),
    )


def _standardized(values: np.ndarray) -> np.ndarray:
    """Mean 0 and standard deviation 1 over sessions, so that few sessions have the stated shares too."""
    return (values - values.mean(axis=0)) / values.std(axis=0, ddof=1)


@dataclass(frozen=True)
class VarianceBudget:
    """The variance of each voxel over trials, by where it comes from; all (V,) float64, in sum 1.

    Args:
        signal: The expected response's, over the subject's stimuli.
        sessions: Gain and drift of tuning.
        offsets: Of sessions.
        carry_over: What is left of the previous trial's response.
        whole_brain: Noise that all voxels have in common.
        roi: Noise that an area's voxels have in common.
        smooth: Noise that neighbors have in common.
        signal_space: Noise that looks like responses to other stimuli.
        independent: Noise of the voxel alone.
    """

    signal: np.ndarray
    sessions: np.ndarray
    offsets: np.ndarray
    carry_over: np.ndarray
    whole_brain: np.ndarray
    roi: np.ndarray
    smooth: np.ndarray
    signal_space: np.ndarray
    independent: np.ndarray

    @property
    def noise(self) -> np.ndarray:
        return (
            self.sessions
            + self.offsets
            + self.carry_over
            + self.whole_brain
            + self.roi
            + self.smooth
            + self.signal_space
            + self.independent
        )

    @property
    def ncsnr(self) -> np.ndarray:
        """(V,) standard deviation of the expected response over that of everything else in one trial."""
        return np.sqrt(self.signal / self.noise)

    def noise_shares(self) -> dict[str, float]:
        """Mean over voxels of each source's share of the noise variance."""
        sources = [field.name for field in fields(self) if field.name != "signal"]
        return {source: round(float((getattr(self, source) / self.noise).mean()), 4) for source in sources}


def noise_ceiling(ncsnr: np.ndarray, repetitions: int) -> np.ndarray:
    """Share of the variance of averaged repetitions that the expected response explains (Allen et al. 2022)."""
    squared = np.square(ncsnr)
    return squared / (squared + 1 / repetitions)


def draw_noise_ceilings(roi: np.ndarray, seed: int, subject: int, signal_to_noise: float = 1.0) -> np.ndarray:
    """Ceilings (V,) float64 for three averaged repetitions, in a scanner with so many times the signal-to-noise ratio.

    Each area gets evenly spaced quantiles of its Beta distribution in random order: the mean over voxels is that of the
    distribution for any number of voxels and any seed.
    """
    rng = stream(seed, Stream.CEILING, subject)
    ceilings = np.empty(len(roi))
    for area in (*constants.EARLY_AREAS, *constants.HIGHER_AREAS):
        voxels = np.flatnonzero(roi == area.name)
        quantiles = (rng.permutation(len(voxels)) + 0.5) / max(len(voxels), 1)
        a = area.mean_ceiling * constants.CEILING_CONCENTRATION
        ceilings[voxels] = beta_distribution.ppf(quantiles, a, constants.CEILING_CONCENTRATION - a)
    if signal_to_noise != 1:
        power = signal_to_noise**2 * ceilings
        ceilings = power / (power + 1 - ceilings)
    return np.minimum(ceilings, constants.CEILING_LIMIT)


def plan_variance(
    ceilings: np.ndarray,
    carry_over: np.ndarray,
    fluctuates: np.ndarray,
    effects: SessionEffects,
    design: Design,
    rng: np.random.Generator,
) -> VarianceBudget:
    """Shares out each voxel's variance so that its ceiling comes out, with every source counted.

    Args:
        ceilings: (V,) ceilings of three averaged repetitions; 0 for a voxel without any response.
        carry_over: (V,) fraction of the previous trial's response.
        fluctuates: (V,) bool, whether the voxel responds differently to the stimuli that noise may look like.
        effects: What differs between sessions.
        design: When the previous trial was in the same run.
        rng: Where each voxel's part in the shared noise is drawn from.
    """
    ratio = ceilings / (constants.CEILING_REPETITIONS * (1 - ceilings))
    signal, noise = ratio / (1 + ratio), 1 / (1 + ratio)
    sessions = signal * effects.variance / effects.expected_variance
    carried = carry_over**2 * (signal + sessions) * (1 - design.starts_run.mean())
    offsets = constants.OFFSET_SHARE * noise
    whole_brain = constants.GLOBAL_SHARE * _uneven(len(noise), rng) * noise
    roi = constants.ROI_SHARE * _uneven(len(noise), rng) * noise
    smooth = constants.SMOOTH_SHARE * noise
    rest = noise - sessions - carried - offsets - whole_brain - roi - smooth
    least = constants.MIN_INDEPENDENT_SHARE * noise
    signal_space = np.clip(constants.SIGNAL_SPACE_STRENGTH * signal, 0, np.maximum(rest - least, 0)) * fluctuates
    independent = np.maximum(rest - signal_space, least)
    return VarianceBudget(signal, sessions, offsets, carried, whole_brain, roi, smooth, signal_space, independent)


def draw_pool(training: np.ndarray, seed: int, subject: int) -> np.ndarray:
    """The training stimuli (indices) whose responses noise may look like: all of them, or as many as are allowed."""
    rng = stream(seed, Stream.SIGNAL_SPACE, subject)
    return np.sort(rng.permutation(training)[: constants.SIGNAL_SPACE_POOL])


def _uneven(num_voxels: int, rng: np.random.Generator) -> np.ndarray:
    """(V,) positive with mean 1, at most 3 or so."""
    drawn = np.minimum(rng.gamma(constants.SHARE_SHAPE, 1 / constants.SHARE_SHAPE, num_voxels), 3)
    return drawn / drawn.mean()


class TrialNoise:
    """Noise that varies from trial to trial: shared and independent, autocorrelated within a run.

    Args:
        anatomy: The subject's voxels.
        budget: Variances, in units of which the noise is.
        patterns: (P, V) float32 responses to the pool of training stimuli, of mean 0 and variance 1 over stimuli; taken
            over and changed.
        seed: The simulator's seed.
        subject: Index of the subject.
    """

    def __init__(self, anatomy: Anatomy, budget: VarianceBudget, patterns: np.ndarray, seed: int, subject: int) -> None:
        self._seed, self._subject = seed, subject
        self._independent = np.sqrt(budget.independent).astype(np.float32)
        rng = stream(seed, Stream.LOADINGS, subject)
        smooth = smooth_functions(anatomy.coordinates, constants.SMOOTH_MM, constants.SMOOTH_COMPONENTS, rng)
        areas = [area.name for area in (*constants.EARLY_AREAS, *constants.HIGHER_AREAS)]
        in_area = np.stack([anatomy.roi == name for name in areas])
        rows = [np.sqrt(budget.whole_brain)[None], in_area * np.sqrt(budget.roi), smooth * np.sqrt(budget.smooth)]
        self.loadings = np.concatenate(rows).astype(np.float32)
        """(time courses, V): the whole brain's, one an area, those of the smooth field."""
        self._patterns = patterns
        self._patterns *= np.sqrt(budget.signal_space).astype(np.float32)

    def run(self, session: int, run: int, num_trials: int) -> np.ndarray:
        """Noise of one run: (num_trials, V) float32; depends on no other run."""
        rng = stream(self._seed, Stream.NOISE, self._subject, session, run)
        shared = rng.standard_normal((num_trials, len(self.loadings)), dtype=np.float32)
        noise = rng.standard_normal((num_trials, len(self._independent)), dtype=np.float32)
        _autocorrelate(shared, constants.SHARED_AUTOCORRELATION)
        _autocorrelate(noise, constants.INDEPENDENT_AUTOCORRELATION)
        noise *= self._independent
        noise += shared @ self.loadings
        if len(self._patterns):
            noise += self._signal_space(num_trials, rng)
        return noise

    def _signal_space(self, num_trials: int, rng: np.random.Generator) -> np.ndarray:
        """(num_trials, V): in each trial all voxels mix the responses to the same few training stimuli."""
        mixed = constants.SIGNAL_SPACE_STIMULI
        stimuli = rng.integers(len(self._patterns), size=(num_trials, mixed))
        weights = rng.standard_normal(stimuli.shape, dtype=np.float32) / np.float32(np.sqrt(mixed))
        starts = np.arange(0, stimuli.size + 1, mixed)
        fluctuation = (
            csr_array((weights.ravel(), stimuli.ravel(), starts), shape=(num_trials, len(self._patterns)))
            @ self._patterns
        )
        _autocorrelate(fluctuation, constants.SHARED_AUTOCORRELATION)
        return fluctuation


def _autocorrelate(values: np.ndarray, coefficient: float) -> None:
    """Turns white noise into a stationary first-order autoregressive process along the first axis, in place."""
    values[1:] *= np.float32(np.sqrt(1 - coefficient**2))
    for before, now in pairwise(values):
        now += np.float32(coefficient) * before
