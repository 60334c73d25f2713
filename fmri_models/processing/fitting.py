"""Fits what a processor keeps of a subject to the subject's training trials, read once in chunks."""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Protocol

import numpy as np
import torch

from ..errors import FmriModelsError
from ..in_memory import as_numbers, as_sessions, unmasked
from .moments import Moments
from .options import BY_GROUP, Statistics, StatisticsOver, groups_of_trials
from .patterns import check_finite
from .subject_statistics import SubjectStatistics, stimuli_in_effect

_TRIALS_A_CHUNK = 1024


class VoxelLabels(Protocol):
    """What is known of each voxel of a subject; every property may be None."""

    @property
    def roi(self) -> Sequence[str] | None: ...

    @property
    def coordinates(self) -> np.ndarray | None: ...

    @property
    def noise_ceiling(self) -> np.ndarray | None: ...


@dataclass(frozen=True)
class VoxelSelection:
    """Which voxels of a subject are kept.

    Args:
        rois: Voxels of these ROIs; None keeps all.
        min_noise_ceiling: Voxels with at least this noise ceiling; None keeps all.
        num_best_voxels: So many voxels with the highest score; None keeps all.
    """

    rois: list[str] | None
    min_noise_ceiling: float | None
    num_best_voxels: int | None

    def reads_noise_ceilings(self, scores: np.ndarray | None) -> bool:
        """Whether voxels are chosen by their noise ceilings, where `scores` are all that is given besides."""
        return self.min_noise_ceiling is not None or (self.num_best_voxels is not None and scores is None)

    def positions(
        self, name: str, num_voxels: int, labels: VoxelLabels | None, scores: np.ndarray | None
    ) -> np.ndarray:
        """(S,) indices of the voxels that are kept, ascending.

        Args:
            name: The subject.
            num_voxels: Voxels of a pattern.
            labels: What is known of the voxels.
            scores: (voxels,) score for `num_best_voxels`; None takes the noise ceiling.

        Raises:
            FmriModelsError: What the voxels are chosen by is not known, or no voxel is left.
        """
        keep = np.ones(num_voxels, dtype=bool)
        if self.rois is not None:
            roi = labels.roi if labels else None
            roi = _required(roi, num_voxels, f"rois={self.rois} needs the ROI of each voxel of {name}")
            # A voxel without a label is of no ROI.
            there = set(roi) - {""}
            if absent := sorted(set(self.rois) - there):
                labelled = f"its ROIs are {', '.join(sorted(there))}" if there else "none of its voxels has an ROI"
                raise FmriModelsError(
                    f"{name} has no voxel in {', '.join(each or repr(each) for each in absent)}; {labelled}; choose "
                    "other ones, or leave rois out."
                )
            keep &= np.isin(np.asarray(roi), self.rois)
        if self.min_noise_ceiling is not None:
            ceiling = labels.noise_ceiling if labels else None
            ceiling = _required(
                ceiling, num_voxels, f"min_noise_ceiling needs the noise ceiling of each voxel of {name}"
            )
            ceiling = np.asarray(ceiling, dtype=np.float64)
            if unknown := int((keep & np.isnan(ceiling)).sum()):
                found = _known_of(name, keep, ceiling, "noise ceiling")
                sentence = f"min_noise_ceiling={self.min_noise_ceiling}: {found}; the {unknown} others are left out."
                warnings.warn(sentence, stacklevel=4)
            # NaN is not at least anything.
            keep &= ceiling >= self.min_noise_ceiling
        if self.num_best_voxels is not None:
            what = "score" if scores is not None else "noise ceiling"
            if scores is None:
                scores = labels.noise_ceiling if labels else None
            scores = _required(scores, num_voxels, f"num_best_voxels needs a score for each voxel of {name}")
            values = np.asarray(scores, dtype=np.float64)
            known = keep & ~np.isnan(values)
            if known.sum() < min(self.num_best_voxels, keep.sum()):
                found = _known_of(name, keep, values, what)
                sentence = f"num_best_voxels={self.num_best_voxels}: {found}; these are kept and no others."
                warnings.warn(sentence, stacklevel=4)
            best = np.argsort(-np.where(known, values, -np.inf), kind="stable")[: self.num_best_voxels]
            keep = known & np.isin(np.arange(num_voxels), best)
        if not keep.any():
            raise FmriModelsError(
                f"The selection leaves no voxel of {name} (rois={self.rois}, "
                f"min_noise_ceiling={self.min_noise_ceiling}, num_best_voxels={self.num_best_voxels}); choose a wider "
                "one."
            )
        return np.flatnonzero(keep)


def fit_subject(
    name: str,
    fmri: np.ndarray | Iterable[np.ndarray],
    sessions: Sequence[int] | np.ndarray | None,
    stimuli: Sequence[str] | np.ndarray | None,
    labels: VoxelLabels | None,
    scores: np.ndarray | None,
    statistics: Statistics,
    selection: VoxelSelection,
    min_session_trials: int,
    statistics_over: StatisticsOver = "trials",
    ddof: int = 0,
    runs: Sequence[int] | np.ndarray | None = None,
) -> SubjectStatistics:
    """The statistics of a subject's training trials; arguments as those of [`FmriProcessor.fit`], of one subject.

    Raises:
        FmriModelsError: Values are not finite, numbers differ, or the selection leaves no voxel.
    """
    by_session = statistics in BY_GROUP
    if statistics in ("session", "run") and sessions is None:
        raise FmriModelsError(f'statistics="{statistics}" needs the session of each trial; pass sessions=.')
    numbers = None if sessions is None else as_sessions(sessions, f"A session of {name}").reshape(-1)
    if by_session:
        given = None if runs is None else as_sessions(runs, f"A run of {name}").reshape(-1)
        if given is not None and numbers is not None and len(given) != len(numbers):
            raise FmriModelsError(f"{name} has {len(given)} runs for {len(numbers)} trials; give one a trial.")
        numbers = groups_of_trials(statistics, given if numbers is None else numbers, given)  # type: ignore[arg-type]
    trials: _TrialMoments = _TrialMoments(name, numbers if by_session else None, ddof)
    if statistics_over == "averages":
        if stimuli is None:
            raise FmriModelsError('statistics_over="averages" needs the stimulus of each trial; pass stimuli=.')
        trials = _AverageMoments(name, numbers if by_session else None, ddof, np.asarray(stimuli, dtype=str))
    for chunk in _chunks(fmri):
        trials.add(as_numbers(chunk, f"Training trials of {name}"))
    trials.finish()
    for what, stated in (("sessions", numbers), ("stimuli", stimuli)):
        if stated is not None and len(stated) != trials.num_trials:
            raise FmriModelsError(f"{name} has {len(stated)} {what} for {trials.num_trials} trials; give one a trial.")
    selected = selection.positions(name, trials.num_voxels, labels, scores)
    shown = None if stimuli is None else np.asarray(stimuli, dtype=str)
    few = trials.few(min_session_trials, shown) if by_session else []
    keys, mean, std, pooled = trials.statistics(few)
    if statistics == "identity":
        mean, std = np.zeros_like(mean[:1]), np.ones_like(std[:1])
    elif statistics == "scalar":
        mean, std = _over_voxels(mean, std, selected)
    coordinates = None
    if labels is not None and labels.coordinates is not None:
        coordinates = np.asarray(labels.coordinates, dtype=np.float32)
    source_width, source_columns = getattr(labels, "source_width", None), getattr(labels, "source_columns", None)
    return SubjectStatistics(
        num_voxels=trials.num_voxels,
        selected=selected,
        mean=mean[:, selected].astype(np.float32),
        std=std[:, selected].astype(np.float32),
        sessions=keys,
        roi=list(labels.roi) if labels is not None and labels.roi is not None else [],
        coordinates=coordinates,
        pooled_sessions=few,
        pooled=pooled[:, selected].astype(np.float32) if by_session else None,
        source_width=None if source_columns is None else source_width,
        source_columns=None if source_columns is None else np.asarray(source_columns, dtype=np.int64),
        grid=getattr(labels, "grid", None),
        window=getattr(labels, "window", None),
    )


def _over_voxels(mean: np.ndarray, std: np.ndarray, selected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(1, V) each: one mean and one standard deviation over the values of all selected voxels in all trials."""
    of_selected = mean[0, selected]
    spread = np.sqrt(np.square(std[0, selected]).mean() + of_selected.var())
    return np.full_like(mean[:1], of_selected.mean()), np.full_like(std[:1], spread)


def trials_by_subject(
    fmri: np.ndarray | torch.Tensor, subjects: Sequence[str] | str | None
) -> tuple[dict[str, np.ndarray], list[str], dict[str, np.ndarray]]:
    """Subject ▶ trials of one array, the subjects in the order in which they come, and the positions of each's trials.

    Raises:
        FmriModelsError: The array is none of trials, or there is not one subject a trial.
    """
    array = as_numbers(fmri, "Training trials")
    if array.ndim != 2:
        raise FmriModelsError(f"Training trials have the shape {array.shape}; expected (trials, voxels).")
    if subjects is None or isinstance(subjects, str):
        subjects = [subjects or "subj01"] * len(array)
    if len(subjects) != len(array):
        raise FmriModelsError(f"{len(subjects)} subjects were given for {len(array)} trials; give one a trial.")
    names = list(dict.fromkeys(subjects)) or ["subj01"]
    positions = {name: np.flatnonzero(np.asarray(subjects) == name) for name in names}
    return {name: array[positions[name]] for name in names}, names, positions


def values_by_subject(values: Any, positions: Mapping[str, np.ndarray], what: str) -> Any:
    """What each trial of one array has, by subject.

    Raises:
        FmriModelsError: There is not one value a trial.
    """
    if values is None or isinstance(values, Mapping):
        return values
    column = (
        as_sessions(values, "A session").reshape(-1) if what in ("sessions", "runs") else np.asarray(values, dtype=str)
    )
    count = sum(len(own) for own in positions.values())
    if len(column) != count:
        raise FmriModelsError(f"{len(column)} {what} were given for {count} trials; give one a trial.")
    return {name: column[own] for name, own in positions.items()}


def _chunks(fmri: np.ndarray | torch.Tensor | Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    if not hasattr(fmri, "shape"):
        yield from fmri
        return
    array = as_numbers(fmri, "Training trials")
    if array.ndim != 2:
        raise FmriModelsError(f"Training trials have the shape {array.shape}; expected (trials, voxels).")
    for start in range(0, len(array), _TRIALS_A_CHUNK):
        yield array[start : start + _TRIALS_A_CHUNK]


class _TrialMoments:
    """Moments of a subject's trials, by session where sessions are given."""

    def __init__(self, name: str, sessions: np.ndarray | None, ddof: int = 0) -> None:
        self.name = name
        self.sessions = sessions
        self.ddof = ddof
        self.num_trials = 0
        self.num_voxels = 0
        self.moments: dict[int | None, Moments] = {}

    def add(self, chunk: np.ndarray) -> None:
        chunk = np.atleast_2d(chunk)
        if chunk.ndim != 2:
            raise FmriModelsError(f"Training trials have the shape {chunk.shape}; expected (trials, voxels).")
        if not len(chunk):
            return
        # In float64, but nothing that float32 can't hold, in which trials are standardised.
        with np.errstate(over="ignore"):
            check_finite(
                chunk.astype(np.float32), self.name, list(range(self.num_trials, self.num_trials + len(chunk)))
            )
        chunk = chunk.astype(np.float64)
        self.num_voxels = self.num_voxels or chunk.shape[1]
        if chunk.shape[1] != self.num_voxels:
            raise FmriModelsError(f"{self.name} has trials of {self.num_voxels} and of {chunk.shape[1]} voxels.")
        first = self.num_trials
        self.num_trials += len(chunk)
        if self.sessions is None:
            self._take(None, chunk, first)
            return
        if self.num_trials > len(self.sessions):
            raise FmriModelsError(f"{self.name} has {len(self.sessions)} sessions for more trials; give one a trial.")
        chunk_sessions = self.sessions[first : self.num_trials]
        for session in np.unique(chunk_sessions):
            own = np.flatnonzero(chunk_sessions == session)
            self._take(int(session), chunk[own], first + own)

    def finish(self) -> None:
        if self.num_trials < 2:
            raise FmriModelsError(f"{self.name} has {self.num_trials} training trials; at least 2 are needed.")
        if self.sessions is not None and self.num_trials != len(self.sessions):
            raise FmriModelsError(f"{self.name} has {len(self.sessions)} sessions for {self.num_trials} trials.")

    def few(self, least: int, stimuli: np.ndarray | None) -> list[int]:
        """Sessions with fewer trials than `least`, or in effect fewer stimuli; none where there is one session.

        Args:
            least: Trials, and stimuli, of a session that has statistics of its own.
            stimuli: (n,) what each trial showed; None where that is not known.
        """
        assert self.sessions is not None
        keys = sorted(key for key in self.moments if key is not None)
        if len(keys) == 1:
            return []
        found = [key for key in keys if self.moments[key].count < least]
        if stimuli is not None:
            found += [key for key, count in stimuli_in_effect(stimuli, self.sessions).items() if count < least]
        return sorted(set(found))

    def statistics(self, few: Sequence[int] = ()) -> tuple[list[int], np.ndarray, np.ndarray, np.ndarray]:
        """Sessions, mean and standard deviation (R, V) of each, and those over all trials (2, V).

        They are of the population, as the field's z-scores are, unless `ddof` says otherwise. A voxel that is constant
        in one session and not in all gets the spread that it has within sessions, so that nothing is divided by 0.

        Args:
            few: Sessions that get the pooled statistics.
        """
        keys = sorted(key for key in self.moments if key is not None)
        each = [self.moments[key] for key in keys] or [self.moments[None]]
        mean, std = np.stack([one.mean for one in each]), np.stack([one.std_with(self.ddof) for one in each])
        pooled = reduce(Moments.merged, each)
        within = Moments(pooled.count, pooled.mean, np.sum([one.squares for one in each], axis=0))
        std = np.where(std > 0, std, within.std_with(self.ddof))
        total = np.stack([pooled.mean, pooled.std_with(self.ddof)])
        for key in few:
            mean[keys.index(key)], std[keys.index(key)] = total
        return keys, mean, std, total

    def _take(self, key: int | None, chunk: np.ndarray, positions: np.ndarray | int) -> None:
        """Takes trials of one session; `positions` are theirs among all, or the first one's."""
        self._merge(key, Moments.of(chunk))

    def _merge(self, key: int | None, moments: Moments) -> None:
        self.moments[key] = self.moments[key].merged(moments) if key in self.moments else moments


class _AverageMoments(_TrialMoments):
    """Moments of the mean of each stimulus' trials, of those of a session where sessions are given.

    It keeps a mean of each stimulus, so that memory grows with the stimuli.
    """

    def __init__(self, name: str, sessions: np.ndarray | None, ddof: int, stimuli: np.ndarray) -> None:
        super().__init__(name, sessions, ddof)
        self.stimuli = stimuli
        self._means: dict[tuple[int | None, str], tuple[int, np.ndarray]] = {}

    def _take(self, key: int | None, chunk: np.ndarray, positions: np.ndarray | int) -> None:
        numbers = positions + np.arange(len(chunk)) if isinstance(positions, int) else positions
        if numbers[-1] >= len(self.stimuli):
            raise FmriModelsError(f"{self.name} has {len(self.stimuli)} stimuli for more trials; give one a trial.")
        for stimulus, values in zip(self.stimuli[numbers].tolist(), chunk, strict=True):
            count, mean = self._means.get((key, stimulus), (0, np.zeros(())))
            self._means[key, stimulus] = (count + 1, mean + (values - mean) / (count + 1))

    def finish(self) -> None:
        by_key: dict[int | None, list[np.ndarray]] = {}
        for (key, _), (_, mean) in self._means.items():
            by_key.setdefault(key, []).append(mean)
        for key, means in by_key.items():
            for start in range(0, len(means), _TRIALS_A_CHUNK):
                self._merge(key, Moments.of(np.stack(means[start : start + _TRIALS_A_CHUNK])))
        self._means = {}
        if sum(map(len, by_key.values())) < 2 <= self.num_trials:
            raise FmriModelsError(
                f"{self.name} has training trials of one stimulus, whose average has no spread; take statistics_over="
                '"trials", or give trials of several stimuli.'
            )
        super().finish()


def _required(value: Any, num_voxels: int, need: str) -> Any:
    if value is None or len(value) == 0:
        raise FmriModelsError(f"{need}; the data have none: pass it with voxels=, or leave the option out.")
    if len(unmasked(value, "Values of voxels")) != num_voxels:
        raise FmriModelsError(f"{need}; there are {len(value)} for {num_voxels} voxels: give one a voxel.")
    return value


def _known_of(name: str, candidates: np.ndarray, values: np.ndarray, what: str) -> str:
    """How many of the voxels that may be selected have a number to select by.

    Raises:
        FmriModelsError: None has.
    """
    known, count = int((candidates & ~np.isnan(values)).sum()), int(candidates.sum())
    if not known:
        raise FmriModelsError(
            f"None of {count} voxels of {name} has a known {what} to be selected by; give it for each (`ncsnr` of a "
            "table's voxels), or leave the option out."
        )
    return f"only {known} of {count} voxels of {name} {'has' if known == 1 else 'have'} a known {what}"
