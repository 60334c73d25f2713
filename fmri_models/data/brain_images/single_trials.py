"""Betas of single trials from a run's time points: by a general linear model for each trial, or as mean after a lag."""

import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any, Literal

import numpy as np

from ...errors import FmriModelsError
from ...names import one_line
from .events import Events
from .opening import required_package
from .series import Series, blocks

_BYTES_AT_ONCE = 64 * 2**20
_ROWS_AT_ONCE = 64
_BASELINE_LEAST = 1e-3


@dataclass(frozen=True)
class TrialModel:
    """How a trial's beta is computed.

    Args:
        method: `"lss"`: a linear model for each trial with one regressor of it and one of all other trials (least
            squares separate; Mumford et al., 2012, doi:10.1016/j.neuroimage.2011.08.076), by nilearn's GLM. `"lag"`:
            the mean of the volumes between onset + lag and offset + lag, once drifts and confounds are taken away.
            `"volumes"`: as many volumes from onset + lag on as `volumes` says, one after the other, likewise.
        lag: Seconds.
        window: Seconds after onset + lag over which volumes are averaged; the event's duration if 0; at least a
            volume.
        hrf: nilearn's name of the haemodynamic response.
        high_pass: Of the drifts, in Hz; 0 for a constant alone.
        noise: `"ols"` or `"ar1"`, nilearn's noise model.
        percent: Whether betas are in percent of a voxel's mean over the run.
        volumes: Of a trial's window, for `"volumes"`.
    """

    method: Literal["lss", "lag", "volumes"] = "lss"
    lag: float = 5.0
    window: float = 0.0
    hrf: str = "glover"
    high_pass: float = 0.01
    noise: Literal["ols", "ar1"] = "ols"
    percent: bool = True
    volumes: int = 1

    @property
    def samples(self) -> int:
        """How many values a trial has of each voxel."""
        return self.volumes if self.method == "volumes" else 1


def single_trial_betas(
    series: Series, events: Events, seconds: float, start: float, confounds: Any, model: TrialModel, where: str
) -> Iterator[np.ndarray]:
    """(n, width) blocks of a beta for each event of a run; (n, volumes x width) of windows, volume after volume.

    Memory holds a part of the time points, of all voxels, or of the voxels, at all time points; a run lies in a
    temporary file meanwhile.

    Args:
        series: The run's time points.
        events: What was shown.
        seconds: From one volume to the next.
        start: When the first volume was, in seconds of the events' clock (`StartTime` of BIDS).
        confounds: A DataFrame of (time points, regressors) that are taken away, or None.
        model: How.
        where: The run, for messages.

    Raises:
        FmriModelsError: An event lies outside the run, or its window has no volume.
    """
    times = start + seconds * np.arange(series.count)
    check_times(events, times, seconds, model, where)
    with tempfile.TemporaryFile() as points, tempfile.TemporaryFile() as betas:
        for block in blocks(series):
            points.write(np.ascontiguousarray(block, dtype=np.float32).tobytes())
        at_once = max(1, _BYTES_AT_ONCE // (16 * series.count))
        designs = _designs(events, times, confounds, model)
        for first in range(0, series.width, at_once):
            part = _read(points, series.count, series.width, first, min(first + at_once, series.width))
            for place, row in enumerate(_of_part(_scaled(part, model.percent), events, times, designs, model)):
                betas.seek(4 * (place * series.width + first))
                betas.write(row.astype(np.float32).tobytes())
        betas.seek(0)
        for first in range(0, len(events.onsets), _ROWS_AT_ONCE):
            count = min(_ROWS_AT_ONCE, len(events.onsets) - first)
            width = model.samples * series.width
            yield np.frombuffer(betas.read(4 * count * width), np.float32).reshape(count, width)


def check_times(events: Events, times: np.ndarray, seconds: float, model: TrialModel, where: str) -> None:
    """Refuses events that the run has no volumes of.

    Raises:
        FmriModelsError: Names the first.
    """
    end = float(times[-1]) + seconds
    first_at: dict[float, int] = {}
    for row, onset in zip(events.rows, events.onsets, strict=True):
        if (other := first_at.setdefault(onset, row)) != row:
            raise FmriModelsError(
                f"{where}: rows {other + 1} and {row + 1} of {one_line(events.path)} have the same onset, {onset:g} s, "
                "so that no model tells them apart; if one is no trial (a response, a cue), skip what its column "
                f"{events.column!r} says with --option skip=[NAME], or choose another column."
            )
    for row, onset, duration in zip(events.rows, events.onsets, events.durations, strict=True):
        begins = onset + (0 if model.method == "lss" else model.lag)
        if not float(times[0]) - seconds <= begins < end or duration < 0:
            raise FmriModelsError(
                f"{where}: row {row + 1} of {one_line(events.path)} has the onset {onset:g} s"
                f"{'' if model.method == 'lss' else f' (+ {model.lag:g} s)'}, and the run has {len(times)} volumes of "
                f"{seconds:g} s ({end:g} s); check the units, the run's length and --option tr=SECONDS."
            )
        # Of windows the beginning alone counts.
        if model.method != "volumes" and duration > end - float(times[0]):
            raise FmriModelsError(
                f"{where}: row {row + 1} of {one_line(events.path)} has the duration {duration:g} s, which is longer "
                f"than the run's {len(times)} volumes of {seconds:g} s; check the unit, which is seconds."
            )


def window_volumes(onset: float, duration: float, times: np.ndarray, model: TrialModel) -> np.ndarray:
    """Which volumes are averaged for an event; the nearest one where none is in its window."""
    first = onset + model.lag
    inside = np.flatnonzero((times >= first - 1e-6) & (times <= first + (model.window or duration) + 1e-6))
    return inside if len(inside) else np.array([int(np.argmin(np.abs(times - first)))])


def first_volume(onset: float, times: np.ndarray, model: TrialModel) -> int:
    """The volume that a window begins with: the nearest to onset + lag."""
    return int(np.argmin(np.abs(times - (onset + model.lag))))


def _read(file: IO[bytes], rows: int, width: int, first: int, stop: int) -> np.ndarray:
    """(rows, stop - first) float64 of some columns of a float32 matrix, which memory-mapped would count as memory."""
    values = np.empty((rows, stop - first))
    for row in range(rows):
        file.seek(4 * (row * width + first))
        values[row] = np.frombuffer(file.read(4 * (stop - first)), np.float32)
    return values


def _scaled(values: np.ndarray, percent: bool) -> np.ndarray:
    """Percent of the mean over time, where there is a mean to speak of; centred data stay as they are."""
    if not percent:
        return values
    mean = values.mean(axis=0)
    known = np.abs(mean) > _BASELINE_LEAST * np.maximum(values.std(axis=0), np.finfo(float).tiny)
    return np.where(known, 100 * (values - mean) / np.abs(np.where(known, mean, 1)), values)


def _designs(events: Events, times: np.ndarray, confounds: Any, model: TrialModel) -> list[np.ndarray]:
    """The design of each trial, its own regressor first; of the lag, one without trials."""
    if model.method != "lss":
        return [_design(None, times, confounds, model).to_numpy()]
    pandas = required_package("pandas")
    designs = []
    for trial in range(len(events.onsets)):
        names = ["others"] * len(events.onsets)
        names[trial] = "trial"
        table = pandas.DataFrame({"onset": events.onsets, "duration": events.durations, "trial_type": names})
        design = _design(table, times, confounds, model)
        own = [name for name in design.columns if name == "trial"]
        designs.append(design[own + [name for name in design.columns if name not in own]].to_numpy())
    return designs


def _design(table: Any, times: np.ndarray, confounds: Any, model: TrialModel) -> Any:
    make = required_package("nilearn.glm.first_level").make_first_level_design_matrix
    with warnings.catch_warnings():
        # Events of no duration are impulses, which is meant.
        warnings.simplefilter("ignore", UserWarning)
        return make(
            times,
            events=table,
            hrf_model=model.hrf,
            drift_model="cosine" if model.high_pass > 0 else None,
            high_pass=model.high_pass or 0.01,
            add_regs=None if confounds is None else confounds.to_numpy(),
            add_reg_names=None if confounds is None else [f"confound{number}" for number in range(confounds.shape[1])],
        )


def _of_part(
    values: np.ndarray, events: Events, times: np.ndarray, designs: Sequence[np.ndarray], model: TrialModel
) -> Iterator[np.ndarray]:
    """(voxels,) beta of each trial of some voxels."""
    # A voxel without a number in a volume has none at all; the model is fitted to the others.
    whole = np.isfinite(values).all(axis=0)
    known = values[:, whole]
    row = np.full(values.shape[1], np.nan)
    if model.method != "lss":
        design = designs[0]
        rest = known - design @ np.linalg.lstsq(design, known, rcond=None)[0]
        if model.method == "volumes":
            for onset in events.onsets:
                first = first_volume(onset, times, model)
                for volume in range(first, first + model.volumes):
                    row[whole] = rest[volume]
                    yield row
            return
        for onset, duration in zip(events.onsets, events.durations, strict=True):
            row[whole] = rest[window_volumes(onset, duration, times, model)].mean(axis=0)
            yield row
        return
    if model.noise == "ols":
        # Of nilearn's least squares the first row of each pseudo-inverse is all that the trials' betas need.
        fit = required_package("nilearn.glm").OLSModel
        found = np.stack([fit(design).calc_beta[0] for design in designs]) @ known
        for own in found:
            row[whole] = own
            yield row
        return
    run_glm = required_package("nilearn.glm.first_level").run_glm
    for design in designs:
        if known.shape[1]:
            labels, results = run_glm(known, design, noise_model=model.noise)
            own = np.empty(known.shape[1])
            for label, result in results.items():
                own[labels == label] = result.theta[0]
            row[whole] = own
        yield row
