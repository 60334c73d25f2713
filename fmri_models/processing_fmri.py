"""FmriProcessor: from betas as they were recorded to what a model reads."""

import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from transformers import BatchFeature, FeatureExtractionMixin
from transformers.utils import logging

from .errors import FmriModelsError
from .hub_repository import FETCH_OPTIONS, split_push_options, upload_saved
from .in_memory import as_sessions
from .names import check_name, listed, one_line
from .processing.fitting import VoxelLabels, VoxelSelection, fit_subject, trials_by_subject, values_by_subject
from .processing.folder import (
    CONFIG_FILE,
    FOLDER_IN_PIPELINES,
    MEND,
    local_folder,
    no_processor,
    read_config,
    statistics_no_longer_needed,
)
from .processing.options import (
    BY_GROUP,
    MAX_WIDTH,
    MIN_SESSION_TRIALS,
    OF_TRANSFORMERS,
    OPTIONS_OF_USE,
    PROCESSOR_SCHEMA,
    Padding,
    Pooling,
    Statistics,
    StatisticsOver,
    UnseenSession,
    changed_options,
    check_choice,
    check_options,
    config_type,
    fixed_option,
    groups_of_trials,
    option_types,
    plain,
    unknown_option,
)
from .processing.patterns import (
    Patterns,
    check_finite,
    check_not_constant,
    flat_windows,
    padded_width,
    pooled,
    pooled_by_roi,
    roi_widths,
    wrapped_columns,
)
from .processing.statistics_file import (
    STATISTICS_FILE,
    digest,
    read_statistics,
    statistics_bytes,
    statistics_file,
)
from .processing.subject_statistics import SubjectStatistics
from .remote_code import LoadedByItsPackage, PushedWithCode, additions
from .saving import check_schema, merged_folder
from .swapping import recover, written_files
from .version import __version__

_MOST_LISTED = 20
# What callers of transformers and diffusers pass to every component, and what changes nothing here.
_LOADING_OPTIONS = (
    "subfolder", *FETCH_OPTIONS, "proxies", "trust_remote_code", "code_revision", "_from_auto", "_from_pipeline",
    "_commit_hash", "return_unused_kwargs",
)  # fmt: skip
logger = logging.get_logger(__name__)


class _fits_class_or_instance:  # noqa: N801 (a decorator)
    """Makes `fit` a method of the class, and of a processor without statistics, which has its options already.

    As a method of the class alone it would pass over the options of a processor that it is called of.
    """

    def __init__(self, method: Any) -> None:
        self._method = method
        self.__doc__ = method.__doc__

    def __get__(self, processor: "FmriProcessor | None", owner: type["FmriProcessor"]) -> Callable[..., Any]:
        fit: Callable[..., Any] = self._method.__get__(None, owner)
        if processor is None:
            return fit

        @wraps(fit)
        def fit_processor(*args: Any, **options: Any) -> "FmriProcessor":
            if processor.is_fitted:
                raise FmriModelsError(
                    "This processor was fitted already, and models were trained with its statistics; make another one: "
                    "FmriProcessor.fit(fmri, **processor.options)."
                )
            fitted = fit(*args, **{**processor.options, **options})
            if processor.subject_names and fitted.subject_names != processor.subject_names:
                raise FmriModelsError(
                    f"The processor is one of the subjects {listed(processor.subject_names, _MOST_LISTED)}, and the "
                    f"trials are of {listed(fitted.subject_names, _MOST_LISTED)}; give these subjects in this order "
                    "(subjects=)."
                )
            processor.__dict__.update(fitted.__dict__)
            return processor

        return fit_processor


class FmriProcessor(LoadedByItsPackage, PushedWithCode, FeatureExtractionMixin):
    r"""Standardises, selects, pools and pads betas with statistics of the training trials; travels with the checkpoint.

    Use [`FmriProcessor.fit`] to make one. One that the constructor makes has options and no statistics: it can be saved
    and loaded, and its `fit` computes them with these options.

    Args:
        subject_names: The only order of subjects there is; a subject's id is its index.
        statistics: `"pooled"` (mean and standard deviation over all training trials), `"session"` (one a session),
            `"run"` (one a run of each session; what is called a session here then is a run, by the number that
            [`FmriProcessor.groups`] gives it), `"run_number"` (one for all runs of a number, whatever their session),
            `"scalar"` (one mean and one standard deviation of a subject, over all kept voxels and training trials: how
            voxels differ in mean and spread stays), or `"identity"` (betas are passed on as they are).
        statistics_over: Mean and spread over single `"trials"`, or over `"averages"`: the mean of each stimulus' trials
            (of those of a session or run), each stimulus once. Averages spread less than trials, so that what is
            standardised by them is larger, and a published penalty fits one of both.
        ddof: 1 for the standard deviation of a sample, 0 for that of the population.
        unseen_session: What to do with a session without statistics: `"error"`, `"pooled"`, or `"from_batch"`
            (statistics of the trials given, which makes results transductive). May be changed at any time.
        min_session_trials: With `statistics="session"`, a session of fewer training trials, or in effect of fewer
            stimuli, gets the pooled statistics: a mean of few trials is mostly noise, and one of few stimuli is mostly
            the response to these, which it takes away. Stimuli that all sessions show alike are not few.
        rois: Keep voxels of these ROIs only; None keeps all.
        min_noise_ceiling: Keep voxels with at least this noise ceiling (fraction of variance).
        num_best_voxels: Keep the K voxels with the highest score on training trials.
        pool_width: Pool each pattern to this width, which all subjects then have; None does not pool. Each trial is
            standardised and pooled before repetitions are averaged, as MindBridge was trained: the maximum of a mean is
            not the mean of maxima.
        pooling: `"max"` or `"average"` of adaptive windows of neighbouring voxels, or `"resize"`, linear interpolation
            along their order.
        pool_by_roi: Pool each ROI by itself: True gives each a share of `pool_width` in proportion to its voxels, mean
            over subjects, and [`FmriProcessor.fit`] puts the numbers of columns in its place; a mapping, ROI ▶ columns,
            says them.
        pad_multiple: Pad each pattern to a multiple of this by repeating it from its start; None does not pad.
        expects: What betas a processor without statistics takes, in words.
        padding: `"wrap"` brings all subjects to one common width, the smallest multiple of `patch_size` that takes the
            widest subject, by repeating each pattern from its start; None does not. [`FmriProcessor.column_voxels`]
            says which voxel each column is.
        patch_size: Columns of a patch; needed for `padding`.
        width: A larger common width, a multiple of `patch_size`, such that processors of several tables agree.
        wrap_extra_patch: Pad as the original of MinD-Vis does: a pattern whose length is a multiple already grows by
            a whole patch, and a narrower subject repeats what it was padded to.
    """

    model_input_names = ["fmri", "subject_ids"]

    def __init__(
        self,
        subject_names: list[str] | None = None,
        statistics: Statistics = "pooled",
        unseen_session: UnseenSession = "error",
        rois: list[str] | None = None,
        min_noise_ceiling: float | None = None,
        num_best_voxels: int | None = None,
        pool_width: int | None = None,
        pad_multiple: int | None = None,
        expects: str = "",
        min_session_trials: int = MIN_SESSION_TRIALS,
        padding: Padding | None = None,
        patch_size: int | None = None,
        width: int | None = None,
        wrap_extra_patch: bool = False,
        pooling: Pooling = "max",
        pool_by_roi: bool | dict[str, int] = False,
        statistics_over: StatisticsOver = "trials",
        ddof: int = 0,
        **kwargs: Any,
    ) -> None:
        self._subjects: dict[str, SubjectStatistics] = {}
        check_schema(kwargs.pop("fmri_schema", PROCESSOR_SCHEMA), PROCESSOR_SCHEMA, f"The processor's {CONFIG_FILE}")
        self.fmri_models_version = kwargs.pop("fmri_models_version", __version__)
        self.fmri_schema = PROCESSOR_SCHEMA
        # Written anew, from the statistics that are there then.
        kwargs.pop("statistics_sha256", None)
        noise_ceiling_source = kwargs.pop("noise_ceiling_source", "")
        # They belong to the subjects' statistics, which are read later.
        self._saved_windows: dict[str, Sequence[int]] = dict(kwargs.pop("window_shapes", None) or {})
        for key in kwargs:
            if key not in OF_TRANSFORMERS:
                raise unknown_option(key)
        check_choice("statistics", statistics, get_args(Statistics))
        check_choice("statistics_over", statistics_over, get_args(StatisticsOver))
        self.subject_names = list(subject_names or [])
        self.statistics = statistics
        self.statistics_over = statistics_over
        self.ddof = ddof
        self.unseen_session = unseen_session
        self.min_session_trials = min_session_trials
        self.noise_ceiling_source = noise_ceiling_source
        self.rois = rois
        self.min_noise_ceiling = min_noise_ceiling
        self.num_best_voxels = num_best_voxels
        self.pool_width = pool_width
        self.pooling = pooling
        self.pool_by_roi = pool_by_roi
        self.pad_multiple = pad_multiple
        self.expects = expects
        self.padding = padding
        self.patch_size = patch_size
        self.width = width
        self.wrap_extra_patch = wrap_extra_patch
        self._check_padding()
        self._check_pooling()
        super().__init__(**kwargs)

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuses what would have no effect, or what could be saved but not loaded."""
        if name.startswith("_"):
            return super().__setattr__(name, value)
        if name not in config_type().model_fields or name in ("statistics_sha256", "window_shapes"):
            raise unknown_option(name)
        value = plain(value)
        if name == "unseen_session":
            check_choice(name, value, get_args(UnseenSession))
        elif name in option_types():
            check_options(**{name: value})
        is_fixed = name == "subject_names" or (name in option_types() and name not in OPTIONS_OF_USE)
        if is_fixed and self._subjects and value != getattr(self, name):
            raise fixed_option(name, getattr(self, name), value)
        super().__setattr__(name, value)

    @_fits_class_or_instance
    @classmethod
    def fit(
        cls,
        fmri: Mapping[str, np.ndarray | Iterable[np.ndarray]] | np.ndarray | torch.Tensor,
        subjects: Sequence[str] | None = None,
        sessions: Mapping[str, Sequence[int] | np.ndarray] | Sequence[int] | np.ndarray | None = None,
        voxels: Mapping[str, VoxelLabels] | None = None,
        voxel_scores: Mapping[str, np.ndarray] | None = None,
        stimuli: Mapping[str, Sequence[str] | np.ndarray] | Sequence[str] | np.ndarray | None = None,
        runs: Mapping[str, Sequence[int] | np.ndarray] | Sequence[int] | np.ndarray | None = None,
        **options: Any,
    ) -> "FmriProcessor":
        """Computes the statistics of training trials; give no others.

        Of the class, it makes a processor; of a processor without statistics, it gives that one its own, with the
        options that it has.

        Args:
            fmri: Subject ▶ (trials, voxels) array or iterable of its chunks, read once; or one (trials, voxels) array.
            subjects: With a mapping, the order of subjects (default: the mapping's); with one array, the subject of
                each trial, or a single name for all.
            sessions: Session of each trial, in the same form as `fmri`; needed for `statistics="session"`.
            voxels: Subject ▶ ROI, coordinates and noise ceiling of each voxel.
            voxel_scores: Subject ▶ (voxels,) score on training trials for `num_best_voxels`; default: the noise
                ceiling.
            stimuli: What each trial showed, in the same form as `fmri`; without it, `min_session_trials` counts trials
                alone. Needed for `statistics_over="averages"`.
            runs: Run of each trial in its session, in the same form as `fmri`; needed for `statistics="run"` and
                `"run_number"`.
            **options: The constructor's.

        Raises:
            FmriModelsError: Values are not finite, widths differ, a selection leaves no voxel, there is no such
                option, or the processor has statistics already.
        """
        for key in options:
            if key not in option_types():
                raise unknown_option(key)
        if not isinstance(fmri, Mapping):
            fmri, subjects, positions = trials_by_subject(fmri, subjects)
            sessions = values_by_subject(sessions, positions, "sessions")
            stimuli = values_by_subject(stimuli, positions, "stimuli")
            runs = values_by_subject(runs, positions, "runs")
        names = list(subjects) if subjects is not None else list(fmri)
        missing = [name for name in names if name not in fmri]
        if missing:
            raise FmriModelsError(f"No trials were given for {', '.join(missing)}; give trials of every subject.")
        processor = cls(subject_names=names, **options)
        selection = VoxelSelection(processor.rois, processor.min_noise_ceiling, processor.num_best_voxels)
        for name in names:
            labels = voxels.get(name) if voxels else None
            scores = voxel_scores.get(name) if voxel_scores else None
            subject_sessions = sessions.get(name) if isinstance(sessions, Mapping) else None
            shown = stimuli.get(name) if isinstance(stimuli, Mapping) else None
            subject_runs = runs.get(name) if isinstance(runs, Mapping) else None
            if selection.reads_noise_ceilings(scores):
                processor._note_source(labels)
            processor._subjects[name] = fit_subject(
                name,
                fmri[name],
                subject_sessions,
                shown,
                labels,
                scores,
                statistics=processor.statistics,
                selection=selection,
                min_session_trials=processor.min_session_trials,
                statistics_over=processor.statistics_over,
                ddof=processor.ddof,
                runs=subject_runs,
            )
        if processor.padding is not None:
            processor._common_width()
        if processor.pool_by_roi is True:
            assert processor.pool_width is not None
            kept = [processor._roi_of_kept(name) for name in names]
            processor.pool_by_roi = roi_widths(kept, processor.pool_width)
        processor._warn_of_dead_voxels()
        processor._warn_of_pooled_sessions()
        return processor

    def add_subject(
        self,
        name: str,
        fmri: np.ndarray | torch.Tensor | Iterable[np.ndarray],
        sessions: Sequence[int] | np.ndarray | None = None,
        voxels: VoxelLabels | None = None,
        voxel_scores: np.ndarray | None = None,
        stimuli: Sequence[str] | np.ndarray | None = None,
        runs: Sequence[int] | np.ndarray | None = None,
    ) -> None:
        """Adds a subject, the last one then, with statistics of its training trials by this processor's options.

        Args:
            name: Name of the subject.
            fmri: (trials, voxels) betas of training trials, or an iterable of their chunks; give no others.
            sessions: Session of each trial, needed for `statistics="session"`.
            voxels: ROI, coordinates and noise ceiling of each voxel, where the options choose by these.
            voxel_scores: (voxels,) score on training trials for `num_best_voxels`; default: the noise ceiling.
            stimuli: What each trial showed, see [`FmriProcessor.fit`].
            runs: Run of each trial, where statistics are by run.

        Raises:
            FmriModelsError: The processor was never fitted, the name is there, there are too few trials, no voxel
                varies, or as in [`FmriProcessor.fit`]. The processor then is as before.
        """
        self.put_subject(name, self.fitted_subject(name, fmri, sessions, voxels, voxel_scores, stimuli, runs))
        if VoxelSelection(self.rois, self.min_noise_ceiling, self.num_best_voxels).reads_noise_ceilings(voxel_scores):
            self._note_source(voxels)

    def fitted_subject(
        self,
        name: str,
        fmri: np.ndarray | torch.Tensor | Iterable[np.ndarray],
        sessions: Sequence[int] | np.ndarray | None = None,
        voxels: VoxelLabels | None = None,
        voxel_scores: np.ndarray | None = None,
        stimuli: Sequence[str] | np.ndarray | None = None,
        runs: Sequence[int] | np.ndarray | None = None,
    ) -> SubjectStatistics:
        """Statistics of a further subject, which is not added; see [`FmriProcessor.add_subject`]."""
        self._check_new_subject(name)
        if isinstance(fmri, np.ndarray | torch.Tensor) and (fmri.ndim != 2 or len(fmri) < 2):
            raise FmriModelsError(
                f"The training trials of {name} have the shape {tuple(fmri.shape)}; expected (trials, voxels) of two "
                "trials at least, as one has no spread."
            )
        statistics = fit_subject(
            name,
            fmri.numpy(force=True) if isinstance(fmri, torch.Tensor) else fmri,
            sessions,
            stimuli,
            voxels,
            voxel_scores,
            statistics=self.statistics,
            selection=VoxelSelection(self.rois, self.min_noise_ceiling, self.num_best_voxels),
            min_session_trials=self.min_session_trials,
            statistics_over=self.statistics_over,
            ddof=self.ddof,
            runs=runs,
        )
        if self.statistics != "identity" and not statistics.std.any():
            raise FmriModelsError(f"No voxel of {name} varies over its training trials; give several trials of it.")
        return statistics

    def put_subject(self, name: str, statistics: SubjectStatistics) -> None:
        """Adds a subject whose statistics were computed before, the last one then; see [`add_subject`]."""
        self._check_new_subject(name)
        # Set, it would be a change of the processor that statistics were computed with.
        self._subjects[name] = statistics
        self.__dict__["subject_names"] = [*self.subject_names, name]
        if dead := self.num_dead_voxels(name):
            warnings.warn(f"Voxels without variance in training become 0: {dead} of {name}.", stacklevel=3)

    def processed_width(self, statistics: SubjectStatistics) -> int:
        """Width of the processed patterns of a subject that is not added yet.

        Raises:
            FmriModelsError: With `padding`, it is wider than the one width of all patterns.
        """
        count = len(statistics.selected)
        if self.padding is not None:
            assert self.patch_size is not None
            needed = padded_width(count, self.patch_size, self.wrap_extra_patch)
            if needed > self.width:
                raise FmriModelsError(
                    f"The new subject has {count} kept voxels and needs {needed} columns; all patterns of this "
                    f"processor have {self.width}: choose fewer voxels, or fit a processor of all subjects."
                )
            return self.width
        return self._width_of(count)

    def subset(self, names: Sequence[str]) -> "FmriProcessor":
        """A processor of some of the subjects, in the given order, with these options and statistics.

        Raises:
            FmriModelsError: A subject is unknown, or the processor was never fitted.
        """
        subjects = {name: self.subject(name) for name in names}
        processor = type(self)(subject_names=list(names), **self.options)
        processor.noise_ceiling_source = self.noise_ceiling_source
        processor._subjects = subjects
        if self.padding is not None:
            processor.width = self.width
        return processor

    def statistics_of(self, other: "FmriProcessor", name: str) -> SubjectStatistics:
        """Another processor's statistics of a subject, if they can be put into this one.

        Raises:
            FmriModelsError: Names the option that differs, or the subject that is there or that the other has not.
        """
        self._check_new_subject(name)
        statistics = other.subject(name)
        for option in option_types():
            if option in ("unseen_session", "expects", "width"):
                continue
            own, others = getattr(self, option), getattr(other, option)
            if own != others:
                raise FmriModelsError(
                    f"The statistics of {name} are of a processor with {option}={one_line(repr(others), 80)}; this one "
                    f"has {one_line(repr(own), 80)}: take the base that the subject was saved with."
                )
        return statistics

    def _check_new_subject(self, name: str) -> None:
        self.check_fitted()
        check_name(name, "subject's name")
        if name in self.subject_names:
            raise FmriModelsError(f"This processor has a subject {name!r} already; give the new one another name.")

    @classmethod
    def without_statistics(cls, num_voxels: Mapping[str, int], expects: str, **options: Any) -> "FmriProcessor":
        """A processor that passes betas on as they are, for a model that was published without its statistics.

        Args:
            num_voxels: Subject ▶ number of voxels, in the order of the model.
            expects: Which betas the model takes, in words.
            **options: Options that need no statistics, such as `pool_width`.
        """
        processor = cls(subject_names=list(num_voxels), statistics="identity", expects=expects, **options)
        for name, count in num_voxels.items():
            mean, std = np.zeros((1, count), dtype=np.float32), np.ones((1, count), dtype=np.float32)
            processor._subjects[name] = SubjectStatistics(count, np.arange(count), mean, std)
        return processor

    def __call__(
        self,
        fmri: np.ndarray | torch.Tensor | Sequence[np.ndarray],
        subject: str | Sequence[str] | None = None,
        session: int | Sequence[int] | None = None,
        return_tensors: str | None = "pt",
    ) -> BatchFeature:
        """Prepares betas for the model.

        Args:
            fmri: (..., voxels) betas of one subject, one pattern or many; or a sequence of (voxels,) patterns where the
                subjects of the rows differ. Of a subject with windows also (..., time, voxels) or (..., channels,
                time), as [`FmriProcessor.window_shapes`] says, which is flattened.
            subject: Name of the subject, or one name a row; may be left out if there is only one subject.
            session: Session, or one a row; needed where statistics are kept by session. Where they are kept by run, the
                number that [`FmriProcessor.groups`] gives the run.
            return_tensors: `"pt"`, or `"np"` or None for arrays of NumPy.

        Returns:
            `fmri` (..., width) float32, at least 2-D, zero-padded to the widest subject, and `subject_ids` (batch,)
            long.

        Raises:
            FmriModelsError: Wrong number of voxels, values that are not finite, a constant pattern, an unknown subject
                or session.
        """
        if return_tensors is not None:
            check_choice("return_tensors", return_tensors, ("pt", "np"))
        self.check_fitted()
        patterns = Patterns.of(self._flat(fmri))
        subjects = patterns.subjects(subject, self.subject_names)
        sessions = patterns.sessions(session)
        output = np.zeros((len(patterns), self.width), dtype=np.float32)
        for name in dict.fromkeys(subjects):
            positions = [position for position, other in enumerate(subjects) if other == name]
            prepared = self._prepare(patterns, positions, name, None if sessions is None else sessions[positions])
            output[positions, : prepared.shape[1]] = prepared
        ids = np.array([self.subject_names.index(name) for name in subjects], dtype=np.int64)
        leading = patterns.leading or (len(patterns),)
        data = {
            "fmri": output.reshape(*leading, self.width),
            "subject_ids": ids.reshape(patterns.batch_size, -1)[:, 0],
        }
        return BatchFeature(data=data, tensor_type=return_tensors)

    def _flat(self, fmri: Any) -> Any:
        shapes = {(shape[0], shape[1]) for shape in self.window_shapes.values()}
        if not shapes:
            return fmri
        widths = {each.num_voxels for each in self._subjects.values()}
        return flat_windows(fmri, shapes, widths)

    @property
    def window_shapes(self) -> dict[str, list[int]]:
        """Subject ▶ shape of its recorded windows, (time, voxels) or (channels, time), of subjects that have any."""
        return {name: list(each.window) for name, each in self._subjects.items() if each.window is not None}

    @property
    def num_voxels(self) -> list[int]:
        """Width of each subject's processed patterns, in the order of `subject_names`.

        Raises:
            FmriModelsError: The processor was never fitted.
        """
        self.check_fitted()
        return [self._processed_width(name) for name in self.subject_names]

    @property
    def width(self) -> int:
        """Width of the processor's output: that of the widest subject. Set, it is the option of that name."""
        return max(self.num_voxels)

    @width.setter
    def width(self, value: int | None) -> None:
        self.__dict__["width"] = value

    def column_voxels(self, name: str) -> np.ndarray:
        """Which recorded voxel each column of a subject's processed patterns is; wrapped, a voxel may be there twice.

        Args:
            name: The subject.

        Returns:
            (width of the subject,) int64 indices of voxels, as those of a recorded pattern.

        Raises:
            FmriModelsError: The subject is unknown, or columns are the largest of several voxels (`pool_width`).
        """
        selected = self.subject(name).selected
        if self.pool_width is not None:
            raise FmriModelsError(
                f"A column of {name} is the largest of several voxels (pool_width={self.pool_width}), and so none of "
                "them; fit a processor without pool_width."
            )
        return selected[self._columns(name, len(selected))]

    @property
    def options(self) -> dict[str, Any]:
        """The options that it was made with, such that [`FmriProcessor.fit`] takes them."""
        # The property `width` is what comes of the option.
        return {name: self.__dict__[name] for name in option_types()}

    @property
    def is_fitted(self) -> bool:
        """Whether there are statistics; without them, a processor has options alone."""
        return bool(self._subjects)

    def check_fitted(self) -> None:
        """Refuses a processor without statistics.

        Raises:
            FmriModelsError: The processor was never fitted.
        """
        if not self.is_fitted:
            raise FmriModelsError(
                "The processor was never fitted, so it has no statistics to prepare betas with; fit it on training "
                "trials: processor.fit(fmri, subjects=…), or `fmri-models fit-processor` for a saved pipeline."
            )

    @property
    def is_transductive(self) -> bool:
        """Whether statistics may come from the trials to be decoded."""
        return self.statistics in BY_GROUP and self.unseen_session == "from_batch"

    def groups(
        self, sessions: Sequence[int] | np.ndarray, runs: Sequence[int] | np.ndarray | None = None
    ) -> np.ndarray:
        """(n,) what `session=` of a call is for some trials: their sessions, or the numbers of their runs.

        Args:
            sessions: (n,) session of each trial.
            runs: (n,) run of each trial in its session, where statistics are by run.

        Raises:
            FmriModelsError: Statistics are by run, and runs are not given.
        """
        numbers = None if runs is None else as_sessions(runs, "A run").reshape(-1)
        return groups_of_trials(self.statistics, as_sessions(sessions).reshape(-1), numbers)

    def subject(self, name: str) -> SubjectStatistics:
        """What is kept of a subject.

        Raises:
            FmriModelsError: The subject is unknown; the message names those that are known.
        """
        self.check_fitted()
        if name not in self._subjects:
            raise FmriModelsError(
                f"Subject {name!r} is unknown to this processor; it knows {', '.join(self.subject_names) or 'none'}; "
                "choose one of these, or fit a processor on that subject's training trials."
            )
        return self._subjects[name]

    def num_dead_voxels(self, name: str) -> int:
        """How many of a subject's selected voxels had no variance in training; they become 0."""
        return int((self.subject(name).std == 0).all(axis=0).sum())

    def pooled_sessions(self, name: str) -> list[int]:
        """A subject's sessions whose training trials were too few for statistics of their own; they have the pooled."""
        return list(self.subject(name).pooled_sessions)

    def unseen_sessions(self, name: str, sessions: Sequence[int] | np.ndarray) -> list[int]:
        """Which of some sessions (runs, see [`groups`]) of a subject have no statistics here; none where statistics are
        not by session.
        """
        if self.statistics not in BY_GROUP:
            return []
        return sorted(set(as_sessions(sessions).reshape(-1).tolist()) - set(self.subject(name).sessions))

    def with_subjects_of(self, other: "FmriProcessor") -> "FmriProcessor":
        """A processor with the subjects of this one and, behind them, those of another one with the same options.

        Raises:
            FmriModelsError: Both have a subject of one name, an option differs, or a subject is too wide.
        """
        joined = self.subset(self.subject_names)
        for name in other.subject_names:
            statistics = joined.statistics_of(other, name)
            joined.processed_width(statistics)
            joined.put_subject(name, statistics)
        sources = {source for each in (self, other) for source in each.noise_ceiling_source.split(", ") if source}
        joined.noise_ceiling_source = ", ".join(sorted(sources))
        return joined

    def read_voxels_of(self, other: "FmriProcessor") -> None:
        """Reads the same voxels as another processor, whatever they were chosen by.

        Args:
            other: Of the same subjects, in the same order, under any names.
        """
        for name, other_name in zip(self.subject_names, other.subject_names, strict=True):
            self.subject(name).keep_voxels_of(other.subject(other_name))
        for option in ("rois", "min_noise_ceiling", "num_best_voxels"):
            # They do not fit what was computed with this one's own until now.
            super().__setattr__(option, getattr(other, option))

    # Fitting

    def _note_source(self, labels: VoxelLabels | None) -> None:
        """Notes where the noise ceilings come from by which voxels are chosen."""
        sources = {source for source in self.noise_ceiling_source.split(", ") if source}
        sources |= {str(source) for source in [getattr(labels, "source", "")] if source}
        self.noise_ceiling_source = ", ".join(sorted(sources))

    def _warn_of_pooled_sessions(self) -> None:
        told = [
            f"{_ranges(self.pooled_sessions(name))} of {name}"
            for name in self.subject_names
            if self.pooled_sessions(name)
        ]
        if told:
            warnings.warn(
                f"Sessions with fewer than {self.min_session_trials} training trials (min_session_trials), or in "
                "effect fewer stimuli, are standardised with the pooled statistics of all training trials: "
                f"{'; '.join(told)}.",
                stacklevel=3,
            )

    def _warn_of_dead_voxels(self) -> None:
        dead = {name: self.num_dead_voxels(name) for name in self.subject_names}
        if any(dead.values()):
            counts = ", ".join(f"{count} of {name}" for name, count in dead.items() if count)
            warnings.warn(f"Voxels without variance in training become 0: {counts}.", stacklevel=3)

    # Processing

    def _prepare(self, patterns: Patterns, positions: list[int], name: str, sessions: np.ndarray | None) -> np.ndarray:
        """(n, width) of the patterns of one subject, at some positions: standardised, selected, pooled, padded."""
        statistics = self.subject(name)
        widths = [patterns.width(position) for position in positions]
        self._check_widths(widths, name)
        values = _kept(statistics, patterns.values, positions)
        # What float32 can't hold is infinite, which the next line finds.
        with np.errstate(over="ignore"):
            values = values.astype(np.float32, copy=False)
        check_finite(values, name, positions, lambda row, voxel: statistics.recorded_voxel(voxel, widths[row]))
        check_not_constant(values, name, positions)
        values = values if len(statistics.selected) == values.shape[1] else values[:, statistics.selected]
        if self.statistics != "identity":
            mean, std = self._mean_and_std(statistics, values, name, sessions)
            # Values near the largest of float32 overflow, which the next line finds.
            with np.errstate(over="ignore"):
                values = _standardised(values, mean, std)
            check_finite(
                values,
                f"{name}, standardised,",
                positions,
                lambda row, voxel: statistics.recorded_voxel(int(statistics.selected[voxel]), widths[row]),
            )
        if self.pool_width is not None:
            values = self._pooled(values, name, self.pool_width)
        elif self.padding is not None or self.pad_multiple is not None:
            values = values[:, self._columns(name, values.shape[1])]
        return values

    def _pooled(self, values: np.ndarray, name: str, width: int) -> np.ndarray:
        if not self.pool_by_roi:
            return pooled(values, width, self.pooling)
        self._check_pooling()
        roi = self._roi_of_kept(name)
        if not isinstance(self.pool_by_roi, dict):
            raise FmriModelsError(
                "pool_by_roi is true in a processor that was fitted without it; give the columns of each ROI, as a "
                "mapping, or fit a processor with it."
            )
        if not {*roi} & self.pool_by_roi.keys():
            raise FmriModelsError(
                f"{name} has no voxel in {listed(list(self.pool_by_roi), _MOST_LISTED)}, the ROIs that patterns are "
                "pooled by; its table has to name ROIs alike, or leave pool_by_roi out."
            )
        return pooled_by_roi(values, roi, self.pool_by_roi, self.pooling)

    def _roi_of_kept(self, name: str) -> list[str]:
        """ROI of each voxel of a subject that is kept."""
        statistics = self.subject(name)
        if not statistics.roi:
            raise FmriModelsError(
                f"pool_by_roi needs the ROI of each voxel of {name}, and none is known; fit the processor with voxels= "
                "that name them, or leave it out."
            )
        return [statistics.roi[index] for index in statistics.selected]

    def _check_pooling(self) -> None:
        """Refuses columns by ROI that are none of the width."""
        if not self.pool_by_roi:
            return
        total = sum(self.pool_by_roi.values()) if isinstance(self.pool_by_roi, dict) else self.pool_width
        if self.pool_width is None or total != self.pool_width:
            raise FmriModelsError(
                f"pool_width is {self.pool_width}, and pool_by_roi needs the width that it divides"
                f"{'' if isinstance(self.pool_by_roi, bool) else f'; its columns are {total} together'}; set "
                f"pool_width{'' if isinstance(self.pool_by_roi, bool) else f'={total}'}, or leave pool_by_roi out."
            )

    def _check_widths(self, widths: list[int], name: str) -> None:
        """Refuses other widths than that of training, or of what was recorded before voxels were dropped."""
        statistics, found = self.subject(name), set(widths)
        if wrong := sorted(found - {statistics.num_voxels, statistics.source_width}):
            recorded = ""
            if statistics.source_width is not None:
                recorded = f", which were kept of {statistics.source_width} recorded ones"
            raise FmriModelsError(
                f"{name} has {wrong[0]} voxels; the processor was fitted on {statistics.num_voxels}{recorded}; pass "
                "the same voxels in the same order as in training."
            )
        if found != {statistics.num_voxels}:
            logger.warning_once(
                f"{name}: of patterns of the {statistics.source_width} recorded voxels, the {statistics.num_voxels} "
                "are taken that were kept when the table was prepared."
            )

    def _mean_and_std(
        self, statistics: SubjectStatistics, values: np.ndarray, name: str, sessions: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        if self.statistics not in BY_GROUP:
            return statistics.mean, statistics.std
        if sessions is None and self.statistics != "session":
            raise FmriModelsError(
                f"The processor keeps statistics by run for {name}; say with session= which one these trials are of, "
                f"by the number that processor.groups(sessions, runs) gives it ({_ranges(statistics.sessions)})."
            )
        if sessions is None:
            raise FmriModelsError(
                f"The processor keeps statistics by session for {name}; say with session= (--session on the command "
                f"line) which one these trials are of ({_ranges(statistics.sessions)})."
            )
        asked = np.unique(sessions)
        if len(asked) == 1:
            return self._statistics_of_session(statistics, values, name, int(asked[0]))
        if set(asked.tolist()) <= set(statistics.sessions):
            places = np.array([statistics.sessions.index(session) for session in asked.tolist()])
            of_trials = places[np.searchsorted(asked, sessions)]
            return statistics.mean[of_trials], statistics.std[of_trials]
        mean = np.empty_like(values)
        std = np.empty_like(values)
        for session in asked:
            own = sessions == session
            mean[own], std[own] = self._statistics_of_session(statistics, values[own], name, int(session))
        return mean, std

    def _statistics_of_session(
        self, statistics: SubjectStatistics, values: np.ndarray, name: str, session: int
    ) -> tuple[np.ndarray, np.ndarray]:
        if session in statistics.sessions:
            place = statistics.sessions.index(session)
            return statistics.mean[place], statistics.std[place]
        if self.unseen_session == "pooled":
            return statistics.pooled_statistics()
        if self.unseen_session == "from_batch":
            if len(values) < 2:
                raise FmriModelsError(
                    f'Session {session} of {name} has one trial; unseen_session="from_batch" needs at least two.'
                )
            if len(values) < self.min_session_trials:
                warnings.warn(
                    f"Session {session} of {name} is standardised with {len(values)} trials given at once; statistics "
                    f'of fewer than {self.min_session_trials} are mostly noise: unseen_session="pooled" needs none.',
                    stacklevel=2,
                )
            return values.mean(axis=0), values.std(axis=0, ddof=self.ddof)
        raise FmriModelsError(
            f"Session {session} of {name} is unknown to this processor; it has statistics of sessions "
            f'{_ranges(statistics.sessions)}; pass one of these, or load it with unseen_session="pooled" '
            "(`--unseen-session pooled` of a command)."
        )

    def _columns(self, name: str, num_columns: int) -> np.ndarray:
        """Which of a subject's kept voxels each column is, where nothing is pooled."""
        width = self._processed_width(name)
        if self.padding is None:
            return np.resize(np.arange(num_columns), width)
        assert self.patch_size is not None
        return wrapped_columns(num_columns, self.patch_size, width, self.wrap_extra_patch)

    def _check_padding(self) -> None:
        """Refuses options of padding that contradict each other."""
        if self.padding is None:
            given = ("patch_size", "width", "wrap_extra_patch")
            if without := [name for name in given if self.__dict__[name]]:
                raise FmriModelsError(
                    f'{without[0]} is one of padding="wrap", which is not set; set it, or leave it out.'
                )
            return
        if self.patch_size is None:
            raise FmriModelsError('padding="wrap" needs patch_size, the voxels of a patch of the model; give it.')
        for name in ("pool_width", "pad_multiple"):
            if getattr(self, name) is not None:
                raise FmriModelsError(f'padding="wrap" sets the width, and so does {name}; leave one of them out.')
        width = self.__dict__["width"]
        if width is not None and width % self.patch_size:
            raise FmriModelsError(f"width is {width}; expected a multiple of patch_size, {self.patch_size}.")

    def _common_width(self) -> int:
        """The one width of all subjects, with `padding`."""
        self._check_padding()
        assert self.patch_size is not None
        widest = max(len(statistics.selected) for statistics in self._subjects.values())
        least, asked = padded_width(widest, self.patch_size, self.wrap_extra_patch), self.__dict__["width"]
        if asked is not None and asked < least:
            raise FmriModelsError(
                f"width is {asked}; the widest subject has {widest} kept voxels and needs {least} columns in "
                f"patches of {self.patch_size}; give at least that, or leave width out."
            )
        return asked or least

    def _processed_width(self, name: str) -> int:
        if self.padding is not None:
            return self._common_width()
        return self._width_of(len(self.subject(name).selected))

    def _width_of(self, num_selected: int) -> int:
        """Width of patterns of so many kept voxels, where subjects have no common one."""
        if self.pool_width is not None:
            return self.pool_width
        return num_selected if self.pad_multiple is None else -(-num_selected // self.pad_multiple) * self.pad_multiple

    # Saving and loading

    def to_dict(self) -> dict[str, Any]:
        values = {key: value for key, value in super().to_dict().items() if not key.startswith("_")}
        values["feature_extractor_type"] = type(self).__name__
        # Of a processor without statistics it says that there are none; files of earlier versions have no such key.
        values["statistics_sha256"] = digest(self._statistics_bytes()) if self.is_fitted else None
        if self.window_shapes:
            values["window_shapes"] = self.window_shapes
        return values

    def _statistics_bytes(self) -> bytes:
        return statistics_bytes([self._subjects[name] for name in self.subject_names])

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        is_main_process: bool = True,
        push_to_hub: bool = False,
        **kwargs: Any,
    ) -> list[str]:
        """Writes `preprocessor_config.json` and `fmri_statistics.st`: both together, everything else stays.

        A processor that was never fitted has no statistics, and the first of the two is all that is written.

        Args:
            save_directory: The folder.
            is_main_process: Whether this process writes; the others of a distributed training do nothing.
            push_to_hub: Upload both, too, to `repo_id` or the folder's name.
            **kwargs: Those of `FeatureExtractionMixin.save_pretrained` and of `push_to_hub`.

        Raises:
            FmriModelsError: The system refuses to write, or the Hub to take it.
        """
        if not is_main_process:
            return []
        # `push_to_hub` of transformers hands that on to whatever it saves.
        push_options = split_push_options(kwargs, ("max_shard_size",))
        with merged_folder(save_directory, statistics_no_longer_needed) as partial:
            super().save_pretrained(partial, **kwargs)
            if self.is_fitted:
                (partial / STATISTICS_FILE).write_bytes(self._statistics_bytes())
            files = written_files(partial)
        if push_to_hub:
            upload_saved(save_directory, files, "processor", push_options, additions(Path(save_directory), files))
        return [str(Path(save_directory) / name) for name in files]

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> "FmriProcessor":
        """Loads a processor from a folder or a Hub repository.

        Args:
            pretrained_model_name_or_path: Folder, or repository id.
            **kwargs: Those of `FeatureExtractionMixin.from_pretrained`: `subfolder`, `revision`, `cache_dir` …, and
                options in place of the saved ones: `unseen_session`, `pool_width`, `pooling`, `pool_by_roi`,
                `pad_multiple`, `padding`, `patch_size`, `width`, `wrap_extra_patch`, `expects`. What the statistics
                were computed with can't be changed any more.

        Raises:
            FmriModelsError: The folder has no processor, its configuration is none, or its statistics are missing,
                were changed, or can't be those of training trials.
        """
        folder = local_folder(os.fspath(pretrained_model_name_or_path), kwargs)
        recover(folder)
        if not (folder / CONFIG_FILE).exists():
            # A whole pipeline has one, and nobody can mean another.
            if not (folder / FOLDER_IN_PIPELINES / CONFIG_FILE).is_file():
                raise no_processor(folder, os.fspath(pretrained_model_name_or_path))
            folder = folder / FOLDER_IN_PIPELINES
        values = read_config(folder)
        # Changed by from_dict.
        statistics, sha256 = values.get("statistics", "pooled"), values.get("statistics_sha256")
        options = {key: value for key, value in kwargs.items() if key not in _LOADING_OPTIONS}
        # Without a digest there are statistics of an earlier version, or none: then the file says so.
        file = statistics_file(folder)
        was_fitted = sha256 is not None or "statistics_sha256" not in values or os.path.lexists(file)
        processor = cls.from_dict({**values, **changed_options(values, options, kwargs, was_fitted)})
        assert isinstance(processor, cls)
        if was_fitted:
            processor._subjects = read_statistics(file, processor.subject_names, statistics, sha256)
            processor._take_windows(folder)
            processor._check_selection(folder)
        unused = {key: value for key, value in options.items() if key not in option_types()}
        # As transformers has it.
        made: Any = (processor, unused) if kwargs.get("return_unused_kwargs") else processor
        return made

    def _take_windows(self, folder: Path) -> None:
        """Gives subjects the windows that the configuration says, or refuses those that their patterns can't be."""
        for name, shape in self._saved_windows.items():
            known = self._subjects.get(name)
            if known is None or shape[0] * shape[1] != known.num_voxels:
                values = "no" if known is None else known.num_voxels
                raise FmriModelsError(
                    f"The processor in {one_line(folder)} has windows of {shape[0]} x {shape[1]} of "
                    f"{one_line(name, 80)}, whose patterns have {values} values; {MEND}."
                )
            known.window = (shape[0], shape[1])

    def _check_selection(self, folder: Path) -> None:
        """Refuses a configuration that does not describe the selected voxels."""
        for name in self.subject_names:
            statistics = self._subjects[name]
            kept = {statistics.roi[index] for index in statistics.selected} if statistics.roi else set()
            if self.rois is not None and not kept <= set(self.rois):
                raise FmriModelsError(
                    f"The processor in {one_line(folder)} keeps voxels of {name} outside of its rois; {MEND}."
                )
            if self.num_best_voxels is not None and len(statistics.selected) > self.num_best_voxels:
                raise FmriModelsError(
                    f"The processor in {one_line(folder)} keeps {len(statistics.selected)} voxels of {name}, more than "
                    f"its num_best_voxels, {self.num_best_voxels}; {MEND}."
                )
            if self._processed_width(name) > MAX_WIDTH:
                raise FmriModelsError(
                    f"The processor in {one_line(folder)} pads patterns to {self._processed_width(name)} values; "
                    f"expected {MAX_WIDTH} at most; {MEND}."
                )


def _kept(statistics: SubjectStatistics, patterns: np.ndarray | list[np.ndarray], positions: list[int]) -> np.ndarray:
    """(n, num_voxels) of the patterns at some positions."""
    if isinstance(patterns, np.ndarray):
        return statistics.kept(patterns if len(positions) == len(patterns) else patterns[positions])
    return np.stack([statistics.kept(patterns[position]) for position in positions])


def _standardised(values: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """(n, V) of (n, V) values by (V,) or (n, V) statistics; 0 where a voxel never changes."""
    centred = values - mean
    if centred.dtype == std.dtype == values.dtype and (std > 0).all():
        return np.divide(centred, std, out=centred)
    return np.divide(centred, std, out=np.zeros_like(values), where=std > 0)


def _ranges(sessions: Sequence[int]) -> str:
    return listed(sessions, _MOST_LISTED) or "none"
