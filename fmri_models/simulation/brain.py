"""One simulated brain and what it answers in an experiment."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..data.schema import MAX_VOXELS, TRAIN, UNLABELLED_RUNS
from ..deprecation import former_name
from ..errors import FmriModelsError
from ..seeds import check_seed
from . import constants
from .anatomy import build_anatomy, voxel_count
from .design import Design, plan_design
from .early import EarlyVision
from .energy import eye_picture
from .higher import HigherVision
from .noise import (
    SessionEffects,
    TrialNoise,
    VarianceBudget,
    draw_noise_ceilings,
    draw_pool,
    draw_session_effects,
    noise_ceiling,
    plan_variance,
)
from .streams import Stream, stream

# A response whose standard deviation over stimuli is below this share of a typical response counts as none at all.
_SILENT = 1e-3
# Subjects after the first have up to a tenth more.
_MOST_VOXELS = MAX_VOXELS // 2
_MOST_REPETITIONS = 1000
_MOST_SIGNAL_TO_NOISE = 100


@dataclass(frozen=True)
class SimulatorConfig:
    """What a user may choose; everything else is in `constants`.

    Args:
        num_voxels: Voxels of the first subject; the others have up to a tenth more or fewer.
        repetitions: How often each stimulus is shown, each time in another session.
        early_share: Share of the voxels that lie in V1 to V4.
        seed: Whole number from 0 to 2**32 - 1.
        signal_to_noise: What each voxel's signal-to-noise ratio (ncsnr) is multiplied with; at the square root of 3,
            single trials are as good as the mean of three at 1.
    """

    num_voxels: int = 3000
    repetitions: int = 3
    early_share: float = constants.EARLY_SHARE
    seed: int = 0
    signal_to_noise: float = 1.0

    def __post_init__(self) -> None:
        for name, value, least, most in (
            ("number of voxels", self.num_voxels, 1, _MOST_VOXELS),
            ("number of repetitions", self.repetitions, 1, _MOST_REPETITIONS),
        ):
            if value < least:
                raise FmriModelsError(f"The simulator's {name} is {value}; expected at least {least}.")
            if value > most:
                raise FmriModelsError(f"The simulator's {name} is {value}; expected {most} at most.")
        # Python's own number, which the table's metadata can say.
        object.__setattr__(self, "seed", check_seed(self.seed, "simulator's seed"))
        if not 0 <= self.early_share <= 1:
            raise FmriModelsError(f"The share of early voxels is {self.early_share}; expected a number from 0 to 1.")
        if not 0 < self.signal_to_noise <= _MOST_SIGNAL_TO_NOISE:
            raise FmriModelsError(
                f"The factor of the signal-to-noise ratio is {self.signal_to_noise}; expected a number above 0 and at "
                f"most {_MOST_SIGNAL_TO_NOISE}."
            )


class Simulator:
    """One subject's simulated brain.

    ```python
    simulator = Simulator(SimulatorConfig(num_voxels=500))
    experiment = simulator.experiment(images, groups=["train"] * 90 + ["test"] * 10)
    for trials, betas in experiment.chunks():
        ...
    ```

    Args:
        config: Sizes and the seed.
        subject: Index of the subject; a subject is the same however many are simulated.
    """

    def __init__(self, config: SimulatorConfig, subject: int = 0) -> None:
        self.config = config
        self.subject = subject
        self.anatomy = build_anatomy(voxel_count(config.num_voxels, subject), config.early_share, config.seed, subject)
        tuning = stream(config.seed, Stream.TUNING, subject)
        self.early = EarlyVision(self.anatomy, tuning)
        self.higher = HigherVision(self.anatomy, tuning)

    @property
    def name(self) -> str:
        return f"subj{self.subject + 1:02d}"

    @property
    def num_voxels(self) -> int:
        return self.anatomy.num_voxels

    def respond(
        self, images: np.ndarray, factors: Sequence[Mapping[str, object] | None] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Responses without noise, with either tuning of each voxel.

        Args:
            images: (N, H, W, 1) or (N, H, W, 3) uint8.
            factors: N dicts; without them (or where one is missing) higher areas read the pictures.

        Returns:
            Two (N, V) float32 arrays, not scaled.
        """
        pictures = np.stack([eye_picture(image) for image in images])
        early, higher = self.early.respond(pictures), self.higher.respond(pictures, factors)
        first, second = (np.concatenate(pair, axis=1) for pair in zip(early, higher, strict=True))
        return first, second

    def experiment(
        self,
        images: np.ndarray,
        groups: Sequence[str],
        factors: Sequence[Mapping[str, object] | None] | None = None,
    ) -> "Experiment":
        """Shows each picture `repetitions` times.

        Args:
            images: (N, H, W, 1) or (N, H, W, 3) uint8.
            groups: (N,) group of each picture ("train", "test" ...); each group is spread evenly over sessions. Noise
                in the signal's space is made of the responses to the group "train"; without one there is none of it.
            factors: N dicts, or None.

        Raises:
            FmriModelsError: There are no pictures, or as many groups or factors as pictures are missing.
        """
        _check_stimuli(images, groups, factors)
        rng = stream(self.config.seed, Stream.DESIGN, self.subject)
        design = plan_design(np.asarray(groups), self.config.repetitions, rng)
        training = np.flatnonzero(np.asarray(groups) == TRAIN)
        return Experiment(self, design, *self.respond(images, factors), training)


class Experiment:
    """Betas of one subject, made on demand run by run.

    Args:
        simulator: The brain.
        design: The trials.
        responses: (N, V) responses to the stimuli; taken over and changed.
        other_responses: (N, V) the same with the tuning to which voxels drift.
        training: Indices of the stimuli that noise in the signal's space may be made of.
    """

    def __init__(
        self,
        simulator: Simulator,
        design: Design,
        responses: np.ndarray,
        other_responses: np.ndarray,
        training: np.ndarray,
    ) -> None:
        seed, subject = simulator.config.seed, simulator.subject
        self.design = design
        self._simulator = simulator
        self._scaling = _standardize_pair(responses, other_responses)
        silent = self._scaling.first.silent
        self._responses, self._other_responses = responses, other_responses
        self._effects = draw_session_effects(design.num_sessions, simulator.num_voxels, seed, subject)
        rng = stream(seed, Stream.CEILING, subject, 1)
        self._carry_over = constants.CARRY_OVER + constants.CARRY_OVER_SPREAD * rng.standard_normal(len(silent))
        ceilings = draw_noise_ceilings(simulator.anatomy.roi, seed, subject, simulator.config.signal_to_noise)
        ceilings = np.where(silent, 0, ceilings)
        patterns = self._expected(draw_pool(training, seed, subject))
        fluctuates = ~_standardize(patterns).silent if len(patterns) else np.zeros(len(silent), bool)
        self.budget: VarianceBudget = plan_variance(ceilings, self._carry_over, fluctuates, self._effects, design, rng)
        self._noise = TrialNoise(simulator.anatomy, self.budget, patterns, seed, subject)
        self._units = _Units.of(self.budget, self._effects, rng)

    @property
    def num_voxels(self) -> int:
        return self._responses.shape[1]

    @property
    def ncsnr(self) -> np.ndarray:
        """(V,) float64, the truth, with every source of noise counted."""
        return self.budget.ncsnr

    def noise_ceiling(self, repetitions: int) -> np.ndarray:
        """(V,) float64, share of the variance of averaged repetitions that the expected response explains."""
        return noise_ceiling(self.ncsnr, repetitions)

    def noise_free(self, stimuli: np.ndarray) -> np.ndarray:
        """The expected response to stimuli (indices) over all sessions, (n, V) float32 in the units of the betas."""
        return self._units.mean + self._units.signal * self._expected(stimuli)

    def chunks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Betas run by run in the order of the trials: which trials, and (trials, V) float32."""
        for trials in self.design.runs():
            yield trials, self._run(trials)

    blocks = former_name("blocks", chunks, since="0.1")

    def fmri(self) -> np.ndarray:
        """All betas at once, (T, V) float32."""
        return np.concatenate([betas for _, betas in self.chunks()])

    def _expected(self, stimuli: np.ndarray) -> np.ndarray:
        """(n, V) float32 expected responses, not scaled."""
        expected = self._responses[stimuli]
        expected *= self._effects.mean_kept
        expected += self._effects.mean_drifted * self._other_responses[stimuli]
        return expected

    def _run(self, trials: slice) -> np.ndarray:
        session, run = int(self.design.session[trials.start]), int(self.design.run[trials.start])
        shown = self.design.stimulus[trials]
        betas = self._noise_of(session, run, len(shown))
        return self._answered(betas, session, self._responses[shown], self._other_responses[shown])

    def rest(self, count: int) -> Iterator[tuple[int, int, np.ndarray]]:
        """Trials in which nothing is shown, in runs of their own: session, run, and (trials, V) float32.

        They have the noise of all others (of the same covariance, other draws), and no response.
        """
        for session, run, trials in self._further_runs("rest", count):
            betas = self._noise_of(session, run, len(trials))
            yield session, run, self._in_session(betas, session)

    def viewing(
        self, images: np.ndarray, factors: Sequence[Mapping[str, object] | None]
    ) -> Iterator[tuple[int, int, np.ndarray]]:
        """Trials that each show another picture once, in runs of their own, as [`Experiment.rest`] gives them.

        Args:
            images: (N, H, W, 1) or (N, H, W, 3) uint8; how strongly voxels respond does not depend on them.
            factors: N dicts, or None where the pictures are read.
        """
        for session, run, trials in self._further_runs("viewing", len(images)):
            response, other = self._simulator.respond(images[trials], [factors[trial] for trial in trials])
            self._scaling.apply(response, other)
            yield session, run, self._answered(self._noise_of(session, run, len(trials)), session, response, other)

    def _further_runs(self, kind: str, count: int) -> Iterator[tuple[int, int, np.ndarray]]:
        """Session, run and trials of each run of a kind; sessions take turns."""
        for index, start in enumerate(range(0, count, constants.TRIALS_PER_RUN)):
            turn, session = divmod(index, self.design.num_sessions)
            trials = np.arange(start, min(start + constants.TRIALS_PER_RUN, count))
            yield session + 1, UNLABELLED_RUNS[kind][turn], trials

    def _noise_of(self, session: int, run: int, count: int) -> np.ndarray:
        betas = self._noise.run(session, run, count)
        betas *= self._units.std
        return betas

    def _answered(self, betas: np.ndarray, session: int, response: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Adds standardized responses (trials, V), which are changed, to the noise of a run."""
        response *= self._effects.kept[session - 1] * self._units.signal
        other *= self._effects.drifted[session - 1] * self._units.signal
        response += other
        betas += response
        response *= self._carry_over.astype(np.float32)
        betas[1:] += response[:-1]
        return self._in_session(betas, session)

    def _in_session(self, betas: np.ndarray, session: int) -> np.ndarray:
        betas += self._units.mean + self._effects.offsets[session - 1] * self._units.offset
        return betas


@dataclass(frozen=True)
class _Units:
    """Factors (V,) float32 from standardized values to percent signal change."""

    mean: np.ndarray
    std: np.ndarray
    signal: np.ndarray
    offset: np.ndarray

    @classmethod
    def of(cls, budget: VarianceBudget, effects: SessionEffects, rng: np.random.Generator) -> "_Units":
        count = len(budget.signal)
        std = constants.BETA_STD * np.exp(constants.BETA_STD_SPREAD * rng.standard_normal(count))
        mean = constants.BETA_MEAN + constants.BETA_MEAN_SPREAD * rng.standard_normal(count)
        signal = std * np.sqrt(budget.signal / effects.expected_variance)
        factors = (mean, std, signal, std * np.sqrt(budget.offsets))
        return cls(*(values.astype(np.float32) for values in factors))


@dataclass(frozen=True)
class _Scaling:
    """What standardizes responses (V,), and which voxels are silent."""

    mean: np.ndarray
    factor: np.ndarray
    silent: np.ndarray

    def apply(self, responses: np.ndarray) -> None:
        responses -= self.mean
        responses *= self.factor


@dataclass(frozen=True)
class _PairScaling:
    """What standardizes responses with either tuning: the second without what it has in common with the first."""

    first: _Scaling
    other_mean: np.ndarray
    common: np.ndarray
    second: _Scaling

    def apply(self, responses: np.ndarray, others: np.ndarray) -> None:
        self.first.apply(responses)
        others -= self.other_mean
        others -= self.common * responses
        self.second.apply(others)


def _standardize_pair(responses: np.ndarray, others: np.ndarray) -> _PairScaling:
    """Makes A and B of mean 0, variance 1 and uncorrelated over stimuli, in place, and returns what did so.

    Sums run in float32 over pairs of rows (numpy's), good to a part in a million for any number of stimuli that fits.
    """
    first = _standardize(responses)
    other_mean = others.mean(axis=0)
    others -= other_mean
    common = (responses * others).mean(axis=0)
    others -= common * responses
    return _PairScaling(first, other_mean, common, _standardize(others))


def _standardize(responses: np.ndarray) -> _Scaling:
    mean = responses.mean(axis=0)
    responses -= mean
    spread = responses.std(axis=0)
    silent = spread < _SILENT
    factor = np.where(silent, 0, 1 / np.where(silent, 1, spread))
    responses *= factor
    return _Scaling(mean, factor, silent)


def _check_stimuli(images: np.ndarray, groups: Sequence[str], factors: Sequence | None) -> None:
    if not len(images):
        raise FmriModelsError("There are no pictures to simulate responses to; expected at least one.")
    if len(groups) != len(images) or (factors is not None and len(factors) != len(images)):
        raise FmriModelsError(
            f"There are {len(images)} pictures, {len(groups)} groups and "
            f"{'no' if factors is None else len(factors)} factors; expected one group (and factors or none) a picture."
        )
