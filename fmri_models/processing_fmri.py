"""FmriProcessor: from betas as they were recorded to what a model reads."""

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, reduce, wraps
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, get_args

import numpy as np
import torch
from transformers import BatchFeature, FeatureExtractionMixin
from transformers.utils import logging

from .errors import FmriModelsError
from .hub_repository import (
    FETCH_OPTIONS,
    UploadedInSentences,
    fetch_folder,
    fetch_options,
    is_folder,
    is_repository_id,
    split_push_options,
    upload_saved,
)
from .in_memory import as_numbers, as_sessions, unmasked
from .names import check_name, did_you_mean, listed, one_line
from .reading import checked, read_object
from .saving import check_schema, merged_folder
from .processing.statistics_file import (
    FORMER_STATISTICS_FILE,
    STATISTICS_FILE,
    digest,
    read_statistics,
    statistics_bytes,
    statistics_file,
)
from .processing.subject_statistics import SubjectStatistics, stimuli_in_effect
from .swapping import recover, written_files
from .version import __version__

PROCESSOR_SCHEMA = 1
# Statistics of fewer trials or stimuli lose more than they gain where sessions differ little; docs/data.md has figures.
MIN_SESSION_TRIALS = 10
CONFIG_FILE = "preprocessor_config.json"
_FOLDER_IN_PIPELINES = "processor"
_MEND = "save the processor again, or take another copy of its folder"
# Far above the voxels of a brain; what is wider is a damaged number.
_MAX_WIDTH = 2**24
_ROWS_A_BLOCK = 1024
_MOST_LISTED = 20
# What transformers writes into every configuration.
_OF_TRANSFORMERS = ("feature_extractor_type", "processor_class")
# What callers of transformers and diffusers pass to every component, and what changes nothing here.
_LOADING_OPTIONS = (
    "subfolder", *FETCH_OPTIONS, "proxies", "trust_remote_code", "code_revision", "_from_auto", "_from_pipeline",
    "_commit_hash", "return_unused_kwargs",
)  # fmt: skip
# Options that may differ from those the processor was fitted with.
_OPTIONS_OF_USE = ("unseen_session", "pool_width", "pad_multiple", "expects")

Statistics = Literal["pooled", "session", "identity"]
UnseenSession = Literal["error", "pooled", "from_batch"]

logger = logging.get_logger(__name__)


class VoxelLabels(Protocol):
    """What is known of each voxel of a subject; every part may be None."""

    @property
    def roi(self) -> Sequence[str] | None: ...

    @property
    def coordinates(self) -> np.ndarray | None: ...

    @property
    def noise_ceiling(self) -> np.ndarray | None: ...


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


class FmriProcessor(UploadedInSentences, FeatureExtractionMixin):
    r"""Standardises, selects, pools and pads betas with statistics of the training trials; travels with the checkpoint.

    Use [`FmriProcessor.fit`] to make one. One that the constructor makes has options and no statistics: it can be saved
    and loaded, and its `fit` computes them with these options.

    Args:
        subject_names: The only order of subjects there is; a subject's id is its index.
        statistics: `"pooled"` (mean and standard deviation over all training trials), `"session"` (one a session), or
            `"identity"` (betas are passed on as they are).
        unseen_session: What to do with a session without statistics: `"error"`, `"pooled"`, or `"from_batch"`
            (statistics of the trials given, which makes results transductive). May be changed at any time.
        min_session_trials: With `statistics="session"`, a session of fewer training trials, or in effect of fewer
            stimuli, gets the pooled statistics: a mean of few trials is mostly noise, and one of few stimuli is mostly
            the response to these, which it takes away. Stimuli that all sessions show alike are not few.
        rois: Keep voxels of these ROIs only; None keeps all.
        min_noise_ceiling: Keep voxels with at least this noise ceiling (fraction of variance).
        num_best_voxels: Keep the K voxels with the highest score on training trials.
        pool_width: Pool each pattern to this width by adaptive maximum; None does not pool.
        pad_multiple: Pad each pattern to a multiple of this by repeating it from its start; None does not pad.
        expects: What betas a processor without statistics takes, in words.
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
        **kwargs: Any,
    ) -> None:
        self._subjects: dict[str, SubjectStatistics] = {}
        check_schema(kwargs.pop("fmri_schema", PROCESSOR_SCHEMA), PROCESSOR_SCHEMA, f"The processor's {CONFIG_FILE}")
        self.fmri_models_version = kwargs.pop("fmri_models_version", __version__)
        self.fmri_schema = PROCESSOR_SCHEMA
        # Written anew, from the statistics that are there then.
        kwargs.pop("statistics_sha256", None)
        noise_ceiling_source = kwargs.pop("noise_ceiling_source", "")
        for key in kwargs:
            if key not in _OF_TRANSFORMERS:
                raise _unknown_option(key)
        _check_choice("statistics", statistics, get_args(Statistics))
        self.subject_names = list(subject_names or [])
        self.statistics = statistics
        self.unseen_session = unseen_session
        self.min_session_trials = min_session_trials
        self.noise_ceiling_source = noise_ceiling_source
        self.rois = rois
        self.min_noise_ceiling = min_noise_ceiling
        self.num_best_voxels = num_best_voxels
        self.pool_width = pool_width
        self.pad_multiple = pad_multiple
        self.expects = expects
        super().__init__(**kwargs)

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuses what would have no effect, or what could be saved but not loaded."""
        if name.startswith("_"):
            return super().__setattr__(name, value)
        if name not in _config_type().model_fields or name == "statistics_sha256":
            raise _unknown_option(name)
        value = _plain(value)
        if name == "unseen_session":
            _check_choice(name, value, get_args(UnseenSession))
        elif name in _option_types():
            _check_options(**{name: value})
        is_fixed = name == "subject_names" or (name in _option_types() and name not in _OPTIONS_OF_USE)
        if is_fixed and self._subjects and value != getattr(self, name):
            raise FmriModelsError(_fixed(name, getattr(self, name), value))
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
        **options: Any,
    ) -> "FmriProcessor":
        """Computes the statistics of training trials; give no others.

        Of the class, it makes a processor; of a processor without statistics, it gives that one its own, with the
        options that it has.

        Args:
            fmri: Subject ▶ (trials, voxels) array or iterable of row blocks, read once; or one (trials, voxels) array.
            subjects: With a mapping, the order of subjects (default: the mapping's); with one array, the subject of
                each row, or a single name for all.
            sessions: Session of each trial, in the same form as `fmri`; needed for `statistics="session"`.
            voxels: Subject ▶ ROI, coordinates and noise ceiling of each voxel.
            voxel_scores: Subject ▶ (voxels,) score on training trials for `num_best_voxels`; default: the noise
                ceiling.
            stimuli: What each trial showed, in the same form as `fmri`; without it, `min_session_trials` counts trials
                alone.
            **options: The constructor's.

        Raises:
            FmriModelsError: Values are not finite, widths differ, a selection leaves no voxel, there is no such
                option, or the processor has statistics already.
        """
        for key in options:
            if key not in _option_types():
                raise _unknown_option(key)
        if not isinstance(fmri, Mapping):
            fmri, subjects, rows = _by_subject(fmri, subjects)
            sessions = _rows_of_subjects(sessions, rows, "sessions")
            stimuli = _rows_of_subjects(stimuli, rows, "stimuli")
        names = list(subjects) if subjects is not None else list(fmri)
        missing = [name for name in names if name not in fmri]
        if missing:
            raise FmriModelsError(f"No trials were given for {', '.join(missing)}; give trials of every subject.")
        processor = cls(subject_names=names, **options)
        for name in names:
            labels = voxels.get(name) if voxels else None
            scores = voxel_scores.get(name) if voxel_scores else None
            subject_sessions = sessions.get(name) if isinstance(sessions, Mapping) else None
            shown = stimuli.get(name) if isinstance(stimuli, Mapping) else None
            processor._fit_subject(name, fmri[name], subject_sessions, shown, labels, scores)
        processor._warn_of_dead_voxels()
        processor._warn_of_pooled_sessions()
        return processor

    @classmethod
    def without_statistics(cls, num_voxels: Mapping[str, int], expects: str) -> "FmriProcessor":
        """A processor that passes betas on as they are, for a model that was published without its statistics.

        Args:
            num_voxels: Subject ▶ number of voxels, in the order of the model.
            expects: Which betas the model takes, in words.
        """
        processor = cls(subject_names=list(num_voxels), statistics="identity", expects=expects)
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
                subjects of the rows differ.
            subject: Name of the subject, or one name a row; may be left out if there is only one subject.
            session: Session, or one a row; needed where statistics are kept by session.
            return_tensors: `"pt"`, or `"np"` or None for arrays of NumPy.

        Returns:
            `fmri` (..., width) float32, at least 2-D, zero-padded to the widest subject, and `subject_ids` (batch,)
            long.

        Raises:
            FmriModelsError: Wrong number of voxels, values that are not finite, a constant pattern, an unknown subject
                or session.
        """
        if return_tensors is not None:
            _check_choice("return_tensors", return_tensors, ("pt", "np"))
        self.check_fitted()
        rows, names, leading = self._rows(fmri, subject)
        row_sessions = _sessions_of_rows(session, leading, len(rows))
        output = np.zeros((len(rows), self.width), dtype=np.float32)
        for name in dict.fromkeys(names):
            chosen = [index for index, other in enumerate(names) if other == name]
            patterns = self._stack(rows, chosen, name)
            chosen_sessions = None if row_sessions is None else row_sessions[chosen]
            widths = [np.shape(rows[index])[-1] for index in chosen]
            prepared = self._prepare(patterns, name, chosen_sessions, chosen, widths)
            output[chosen, : prepared.shape[1]] = prepared
        ids = np.array([self.subject_names.index(name) for name in names], dtype=np.int64)
        shape = (*leading, self.width) if leading else (len(rows), self.width)
        batch = int(np.prod(leading[:1])) if leading else len(rows)
        data = {"fmri": output.reshape(shape), "subject_ids": ids.reshape(batch, -1)[:, 0]}
        return BatchFeature(data=data, tensor_type=return_tensors)

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
        """Width of the processor's output: that of the widest subject."""
        return max(self.num_voxels)

    @property
    def options(self) -> dict[str, Any]:
        """The options that it was made with, such that [`FmriProcessor.fit`] takes them."""
        return {name: getattr(self, name) for name in _option_types()}

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
        return self.statistics == "session" and self.unseen_session == "from_batch"

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
        """Which of some sessions of a subject have no statistics here; none where statistics are not by session."""
        if self.statistics != "session":
            return []
        return sorted(set(as_sessions(sessions).reshape(-1).tolist()) - set(self.subject(name).sessions))

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

    def _fit_subject(
        self,
        name: str,
        fmri: np.ndarray | Iterable[np.ndarray],
        sessions: Sequence[int] | np.ndarray | None,
        stimuli: Sequence[str] | np.ndarray | None,
        labels: VoxelLabels | None,
        scores: np.ndarray | None,
    ) -> None:
        if self.statistics == "session" and sessions is None:
            raise FmriModelsError('statistics="session" needs the session of each trial; pass sessions=.')
        numbers = None if sessions is None else as_sessions(sessions, f"A session of {name}").reshape(-1)
        by_session = self.statistics == "session"
        moments = _Moments(name, numbers if by_session else None)
        for block in _blocks(fmri):
            moments.add(as_numbers(block, f"Training trials of {name}"))
        moments.finish()
        for what, given in (("sessions", numbers), ("stimuli", stimuli)):
            if given is not None and len(given) != moments.num_rows:
                raise FmriModelsError(
                    f"{name} has {len(given)} {what} for {moments.num_rows} trials; give one a trial."
                )
        selected = self._select(name, moments.num_voxels, labels, scores)
        shown = None if stimuli is None else np.asarray(stimuli, dtype=str)
        few = moments.few(self.min_session_trials, shown) if by_session else []
        keys, mean, std, pooled = moments.statistics(few)
        roi = list(labels.roi) if labels is not None and labels.roi is not None else []
        coordinates = None
        if labels is not None and labels.coordinates is not None:
            coordinates = np.asarray(labels.coordinates, dtype=np.float32)
        if self.statistics == "identity":
            mean, std = np.zeros_like(mean[:1]), np.ones_like(std[:1])
        source_width, source_columns = getattr(labels, "source_width", None), getattr(labels, "source_columns", None)
        self._subjects[name] = SubjectStatistics(
            num_voxels=moments.num_voxels,
            selected=selected,
            mean=mean[:, selected].astype(np.float32),
            std=std[:, selected].astype(np.float32),
            sessions=keys,
            roi=roi,
            coordinates=coordinates,
            pooled_sessions=few,
            pooled=pooled[:, selected].astype(np.float32) if by_session else None,
            source_width=None if source_columns is None else source_width,
            source_columns=None if source_columns is None else np.asarray(source_columns, dtype=np.int64),
        )

    def _select(self, name: str, num_voxels: int, labels: VoxelLabels | None, scores: np.ndarray | None) -> np.ndarray:
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
            self._note_source(labels)
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
                self._note_source(labels)
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

    def _rows(
        self, fmri: Any, subject: str | Sequence[str] | None
    ) -> tuple[np.ndarray | list[np.ndarray], list[str], tuple[int, ...]]:
        """Patterns as rows, the subject of each, and the leading dimensions to restore (none for a list)."""
        if isinstance(fmri, list | tuple) and any(
            isinstance(each, list | tuple) or hasattr(each, "shape") for each in fmri
        ):
            fmri = [as_numbers(pattern) for pattern in fmri]
        if isinstance(fmri, list) and len({np.shape(pattern) for pattern in fmri}) > 1:
            if wrong := [pattern.shape for pattern in fmri if pattern.ndim != 1 or not pattern.size]:
                raise FmriModelsError(f"A pattern has the shape {wrong[0]}; expected (voxels,), each of one subject.")
            rows: np.ndarray | list[np.ndarray] = fmri
            leading: tuple[int, ...] = ()
        else:
            array = as_numbers(fmri)
            if array.ndim == 0 or array.size == 0:
                raise FmriModelsError(f"Voxels have the shape {array.shape}; expected (trials, voxels), not empty.")
            array = array[None] if array.ndim == 1 else array
            leading = array.shape[:-1]
            rows = array.reshape(-1, array.shape[-1])
        return rows, self._subjects_of_rows(subject, leading, len(rows)), leading

    def _subjects_of_rows(
        self, subject: str | Sequence[str] | None, leading: tuple[int, ...], num_rows: int
    ) -> list[str]:
        if subject is None:
            if len(self.subject_names) != 1:
                raise FmriModelsError(f"Say with subject= whose voxels these are: {', '.join(self.subject_names)}.")
            subject = self.subject_names[0]
        if isinstance(subject, str):
            return [subject] * num_rows
        several: Any = subject
        is_one = isinstance(several, bytes) or not isinstance(several, Iterable) or getattr(several, "ndim", 1) == 0
        names = [several] if is_one else list(several)
        if wrong := [name for name in names if not isinstance(name, str)]:
            raise FmriModelsError(
                f"subject is {one_line(repr(wrong[0]), 80)}; expected a subject's name, or one for each pattern: it "
                f"knows {', '.join(self.subject_names)}."
            )
        batch = leading[0] if leading else num_rows
        if len(names) != batch:
            raise FmriModelsError(f"{len(names)} subjects were given for {batch} patterns; give one a pattern.")
        return [name for name in names for _ in range(num_rows // batch)]

    def _stack(self, rows: np.ndarray | list[np.ndarray], chosen: list[int], name: str) -> np.ndarray:
        statistics = self.subject(name)
        found = {np.shape(rows[index])[-1] for index in chosen}
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
        if isinstance(rows, np.ndarray):
            return statistics.kept(rows if len(chosen) == len(rows) else rows[chosen])
        return np.stack([statistics.kept(rows[index]) for index in chosen])

    def _prepare(
        self,
        patterns: np.ndarray,
        name: str,
        sessions: np.ndarray | None,
        row_numbers: list[int],
        widths: list[int],
    ) -> np.ndarray:
        statistics = self.subject(name)
        # What float32 can't hold is infinite, which the next line finds.
        with np.errstate(over="ignore"):
            patterns = patterns.astype(np.float32, copy=False)
        _check_finite(patterns, name, row_numbers, lambda row, voxel: statistics.recorded_voxel(voxel, widths[row]))
        _check_not_constant(patterns, name, row_numbers)
        values = patterns if len(statistics.selected) == patterns.shape[1] else patterns[:, statistics.selected]
        if self.statistics != "identity":
            mean, std = self._statistics_of_rows(statistics, values, name, sessions)
            # Values near the largest of float32 overflow, which the next line finds.
            with np.errstate(over="ignore"):
                values = np.divide(values - mean, std, out=np.zeros_like(values), where=std > 0)
            _check_finite(
                values,
                f"{name}, standardised,",
                row_numbers,
                lambda row, voxel: statistics.recorded_voxel(int(statistics.selected[voxel]), widths[row]),
            )
        if self.pad_multiple is not None:
            values = _wrap(values, self._processed_width(name) if self.pool_width is None else values.shape[1])
        if self.pool_width is not None:
            values = _pool(values, self.pool_width)
        return values

    def _statistics_of_rows(
        self, statistics: SubjectStatistics, values: np.ndarray, name: str, sessions: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        if self.statistics != "session":
            return statistics.mean, statistics.std
        if sessions is None:
            raise FmriModelsError(
                f"The processor keeps statistics by session for {name}; say with session= (--session on the command "
                f"line) which one these trials are of ({_ranges(statistics.sessions)})."
            )
        mean = np.empty_like(values)
        std = np.empty_like(values)
        for session in np.unique(sessions):
            rows = sessions == session
            mean[rows], std[rows] = self._statistics_of_session(statistics, values[rows], name, int(session))
        return mean, std

    def _statistics_of_session(
        self, statistics: SubjectStatistics, values: np.ndarray, name: str, session: int
    ) -> tuple[np.ndarray, np.ndarray]:
        if session in statistics.sessions:
            row = statistics.sessions.index(session)
            return statistics.mean[row], statistics.std[row]
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
            return values.mean(axis=0), values.std(axis=0)
        raise FmriModelsError(
            f"Session {session} of {name} is unknown to this processor; it has statistics of sessions "
            f'{_ranges(statistics.sessions)}; pass one of these, or load it with unseen_session="pooled" '
            "(`--unseen-session pooled` of a command)."
        )

    def _processed_width(self, name: str) -> int:
        if self.pool_width is not None:
            return self.pool_width
        width = len(self.subject(name).selected)
        return width if self.pad_multiple is None else -(-width // self.pad_multiple) * self.pad_multiple

    # Saving and loading

    def to_dict(self) -> dict[str, Any]:
        values = {key: value for key, value in super().to_dict().items() if not key.startswith("_")}
        values["feature_extractor_type"] = type(self).__name__
        # Of a processor without statistics it says that there are none; files of earlier versions have no such key.
        values["statistics_sha256"] = digest(self._statistics_bytes()) if self.is_fitted else None
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
        with merged_folder(save_directory, _statistics_no_longer_needed) as partial:
            super().save_pretrained(partial, **kwargs)
            if self.is_fitted:
                (partial / STATISTICS_FILE).write_bytes(self._statistics_bytes())
            files = written_files(partial)
        if push_to_hub:
            upload_saved(save_directory, files, "processor", push_options)
        return [str(Path(save_directory) / name) for name in files]

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any) -> "FmriProcessor":
        """Loads a processor from a folder or a Hub repository.

        Args:
            pretrained_model_name_or_path: Folder, or repository id.
            **kwargs: Those of `FeatureExtractionMixin.from_pretrained`: `subfolder`, `revision`, `cache_dir` …, and
                options in place of the saved ones: `unseen_session`, `pool_width`, `pad_multiple`, `expects`. What the
                statistics were computed with can't be changed any more.

        Raises:
            FmriModelsError: The folder has no processor, its configuration is none, or its statistics are missing,
                were changed, or can't be those of training trials.
        """
        folder = _local_folder(os.fspath(pretrained_model_name_or_path), kwargs)
        recover(folder)
        if not (folder / CONFIG_FILE).exists():
            # A whole pipeline has one, and nobody can mean another.
            if not (folder / _FOLDER_IN_PIPELINES / CONFIG_FILE).is_file():
                raise _no_processor(folder, os.fspath(pretrained_model_name_or_path))
            folder = folder / _FOLDER_IN_PIPELINES
        values = _read_config(folder)
        # Changed by from_dict.
        kind, sha256 = values.get("statistics", "pooled"), values.get("statistics_sha256")
        options = {key: value for key, value in kwargs.items() if key not in _LOADING_OPTIONS}
        # Without a digest there are statistics of an earlier version, or none: then the file says so.
        file = statistics_file(folder)
        was_fitted = sha256 is not None or "statistics_sha256" not in values or os.path.lexists(file)
        processor = cls.from_dict({**values, **_changed_options(values, options, kwargs, was_fitted)})
        assert isinstance(processor, cls)
        if was_fitted:
            processor._subjects = read_statistics(file, processor.subject_names, kind, sha256)
            processor._check_selection(folder)
        unused = {key: value for key, value in options.items() if key not in _option_types()}
        # As transformers has it.
        made: Any = (processor, unused) if kwargs.get("return_unused_kwargs") else processor
        return made

    def _check_selection(self, folder: Path) -> None:
        """Refuses a configuration that does not describe the selected voxels."""
        for name in self.subject_names:
            statistics = self._subjects[name]
            kept = {statistics.roi[index] for index in statistics.selected} if statistics.roi else set()
            if self.rois is not None and not kept <= set(self.rois):
                raise FmriModelsError(
                    f"The processor in {one_line(folder)} keeps voxels of {name} outside of its rois; {_MEND}."
                )
            if self.num_best_voxels is not None and len(statistics.selected) > self.num_best_voxels:
                raise FmriModelsError(
                    f"The processor in {one_line(folder)} keeps {len(statistics.selected)} voxels of {name}, more than "
                    f"its num_best_voxels, {self.num_best_voxels}; {_MEND}."
                )
            if self._processed_width(name) > _MAX_WIDTH:
                raise FmriModelsError(
                    f"The processor in {one_line(folder)} pads patterns to {self._processed_width(name)} values; "
                    f"expected {_MAX_WIDTH} at most; {_MEND}."
                )


class _Moments:
    """Mean and variance of row blocks, read once, by session where sessions are given (Chan et al., 1983)."""

    def __init__(self, name: str, sessions: np.ndarray | None) -> None:
        self.name = name
        self.sessions = sessions
        self.num_rows = 0
        self.num_voxels = 0
        self.parts: dict[int | None, _Part] = {}

    def add(self, block: np.ndarray) -> None:
        block = np.atleast_2d(block)
        if block.ndim != 2:
            raise FmriModelsError(f"Training trials have the shape {block.shape}; expected (trials, voxels).")
        # In float64, but nothing that float32 can't hold, in which trials are standardised.
        with np.errstate(over="ignore"):
            _check_finite(block.astype(np.float32), self.name, list(range(self.num_rows, self.num_rows + len(block))))
        block = block.astype(np.float64)
        self.num_voxels = self.num_voxels or block.shape[1]
        if block.shape[1] != self.num_voxels:
            raise FmriModelsError(f"{self.name} has trials of {self.num_voxels} and of {block.shape[1]} voxels.")
        rows = range(self.num_rows, self.num_rows + len(block))
        self.num_rows += len(block)
        if self.sessions is None:
            self._merge(None, block)
            return
        if self.num_rows > len(self.sessions):
            raise FmriModelsError(f"{self.name} has {len(self.sessions)} sessions for more trials; give one a trial.")
        block_sessions = self.sessions[rows.start : rows.stop]
        for session in np.unique(block_sessions):
            self._merge(int(session), block[block_sessions == session])

    def finish(self) -> None:
        if self.num_rows < 2:
            raise FmriModelsError(f"{self.name} has {self.num_rows} training trials; at least 2 are needed.")
        if self.sessions is not None and self.num_rows != len(self.sessions):
            raise FmriModelsError(f"{self.name} has {len(self.sessions)} sessions for {self.num_rows} trials.")

    def few(self, least: int, stimuli: np.ndarray | None) -> list[int]:
        """Sessions with fewer trials than `least`, or in effect fewer stimuli; none where there is one session.

        Args:
            least: Trials, and stimuli, of a session that has statistics of its own.
            stimuli: (n,) what each trial showed; None where that is not known.
        """
        assert self.sessions is not None
        keys = sorted(key for key in self.parts if key is not None)
        if len(keys) == 1:
            return []
        found = [key for key in keys if self.parts[key][0] < least]
        if stimuli is not None:
            found += [key for key, count in stimuli_in_effect(stimuli, self.sessions).items() if count < least]
        return sorted(set(found))

    def statistics(self, few: Sequence[int] = ()) -> tuple[list[int], np.ndarray, np.ndarray, np.ndarray]:
        """Sessions, mean and standard deviation (R, V) of each, and those over all trials (2, V).

        They are of the population, as the field's z-scores are. A voxel that is constant in one session and not in all
        gets the spread that it has within sessions, so that nothing is divided by 0.

        Args:
            few: Sessions that get the pooled statistics.
        """
        keys = sorted(key for key in self.parts if key is not None)
        parts = [self.parts[key] for key in keys] or [self.parts[None]]
        mean = np.stack([mean for _, mean, _ in parts])
        std = np.stack([_spread(count, mean, squares) for count, mean, squares in parts])
        pooled = reduce(_merged, parts)
        total = np.stack([pooled[1], _spread(*pooled)])
        count = sum(part[0] for part in parts)
        within = _spread(count, pooled[1], np.sum([squares for _, _, squares in parts], axis=0))
        std = np.where(std > 0, std, within)
        for key in few:
            mean[keys.index(key)], std[keys.index(key)] = total
        return keys, mean, std, total

    def _merge(self, key: int | None, block: np.ndarray) -> None:
        mean = block.mean(axis=0)
        part = len(block), mean, ((block - mean) ** 2).sum(axis=0)
        self.parts[key] = _merged(self.parts[key], part) if key in self.parts else part


# Number of rows, mean, and sum of squared differences from the mean.
_Part = tuple[int, np.ndarray, np.ndarray]


def _merged(first: _Part, second: _Part) -> _Part:
    count, mean, squares = second
    old_count, old_mean, old_squares = first
    total = old_count + count
    squares = old_squares + squares + (mean - old_mean) ** 2 * old_count * count / total
    return total, old_mean + (mean - old_mean) * count / total, squares


def _spread(count: int, mean: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Standard deviation; 0 below float32's resolution of the mean, where a spread is rounding and not signal."""
    std = np.sqrt(squares / count)
    return np.where(std > 1e-7 * np.abs(mean), std, 0)


def _statistics_no_longer_needed(folder: Path, written: set[str]) -> list[str]:
    """Statistics of before: under their former name, and any where the processor that is saved has none."""
    names = (FORMER_STATISTICS_FILE, STATISTICS_FILE)
    return [name for name in names if name not in written and (folder / name).is_file()]


def _no_processor(folder: Path, place: str) -> FmriModelsError:
    """What to say of a folder without a processor's configuration."""
    if (folder / "config.json").is_file():
        return FmriModelsError(
            f"{one_line(place)} is a network without a processor; that of a pipeline lies beside its brain model, in "
            "the folder processor."
        )
    if not folder.is_dir():
        return FmriModelsError(f"There is no folder {one_line(folder)} with a processor; check the path.")
    return FmriModelsError(
        f"There is no processor in {one_line(place)} ({CONFIG_FILE} is missing); every model needs the processor it "
        "was trained with: give its folder, or make one with `fmri-models fit-processor`."
    )


def _local_folder(name_or_path: str, kwargs: dict[str, Any]) -> Path:
    """The folder itself, or that of the cache with what the Hub has of the processor."""
    path = Path(name_or_path)
    subfolder = kwargs.get("subfolder") or ""
    if is_folder(name_or_path):
        return path / subfolder
    if path.is_file():
        return path.parent
    if not is_repository_id(name_or_path):
        return path / subfolder
    prefix = f"{subfolder}/" if subfolder else ""
    names = (CONFIG_FILE, STATISTICS_FILE, FORMER_STATISTICS_FILE)
    places = (prefix, f"{prefix}{_FOLDER_IN_PIPELINES}/")
    patterns = [f"{place}{name}" for place in places for name in names]
    return fetch_folder(name_or_path, patterns, **fetch_options(kwargs)) / subfolder


def _read_config(folder: Path) -> dict[str, Any]:
    """What a saved processor's configuration says, each field of its type and nothing else.

    Raises:
        FmriModelsError: It is no configuration of a processor, or of a newer version.
    """
    file = folder / CONFIG_FILE
    values = read_object(file, "processor's configuration", _MEND)
    check_schema(values.get("fmri_schema", PROCESSOR_SCHEMA), PROCESSOR_SCHEMA, f"The processor's {CONFIG_FILE}")
    checked(values, _config_type(), f"The processor's configuration {file}", _MEND)
    names = values.get("subject_names", [])
    if len(set(names)) != len(names):
        raise FmriModelsError(f"The processor's configuration {file} has a subject twice; name each once; {_MEND}.")
    for name in names:
        check_name(name, "subject's name")
    return values


@cache
def _option_types() -> dict[str, Any]:
    """Each option of a processor ▶ what it takes, and its default."""
    from pydantic import Field

    number = Annotated[int, Field(ge=1, le=_MAX_WIDTH)] | None
    return {
        "statistics": (Statistics, "pooled"),
        "unseen_session": (UnseenSession, "error"),
        "rois": (list[str] | None, None),
        "min_noise_ceiling": (float | None, None),
        "num_best_voxels": (number, None),
        "pool_width": (number, None),
        "pad_multiple": (number, None),
        "expects": (Annotated[str, Field(max_length=10_000)], ""),
        "min_session_trials": (Annotated[int, Field(ge=2, le=_MAX_WIDTH)], MIN_SESSION_TRIALS),
    }


@cache
def _config_type() -> Any:
    from pydantic import ConfigDict, Field, create_model

    line = Annotated[str, Field(max_length=10_000)]
    fields: dict[str, Any] = {
        "subject_names": (list[str], []),
        **_option_types(),
        "noise_ceiling_source": (line, ""),
        "statistics_sha256": (Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None, None),
        "fmri_schema": (int, PROCESSOR_SCHEMA),
        "fmri_models_version": (line, ""),
        # These two are transformers' own.
        "feature_extractor_type": (line, "FmriProcessor"),
        "processor_class": (line | None, None),
    }
    return create_model("ProcessorConfig", __config__=ConfigDict(extra="forbid", allow_inf_nan=False), **fields)


@cache
def _options_type() -> Any:
    from pydantic import ConfigDict, create_model

    fields: dict[str, Any] = _option_types()
    return create_model("ProcessorOptions", __config__=ConfigDict(extra="forbid", allow_inf_nan=False), **fields)


def _check_options(**options: Any) -> None:
    """Refuses values of other types than those declared."""
    checked(options, _options_type(), "A processor", "correct the option")


def _plain(value: Any) -> Any:
    """Numbers, tuples and arrays of NumPy as Python's own, which can be written down; a list as one of its own."""
    value = value.tolist() if isinstance(value, np.generic | np.ndarray) else value
    return list(value) if isinstance(value, list | tuple) else value


def _unknown_option(key: str) -> FmriModelsError:
    known = [*_option_types()]
    return FmriModelsError(
        f"A processor has no option {one_line(repr(key), 80)}; it has {', '.join(known)}.{did_you_mean(key, known)}"
    )


def _changed_options(
    saved: Mapping[str, Any], options: Mapping[str, Any], kwargs: Mapping[str, Any], was_fitted: bool
) -> dict[str, Any]:
    """Options in place of the saved ones.

    Raises:
        FmriModelsError: There is no such option, or the statistics were computed with it.
    """
    changed = {}
    for key, value in options.items():
        if key not in _option_types():
            if kwargs.get("return_unused_kwargs"):
                continue
            raise _unknown_option(key)
        if key in _OPTIONS_OF_USE or not was_fitted:
            changed[key] = value
        elif value != saved.get(key, _option_types()[key][1]):
            raise FmriModelsError(_fixed(key, saved.get(key, _option_types()[key][1]), value))
    return changed


def _fixed(name: str, saved: Any, value: Any) -> str:
    return (
        f"{name} is {one_line(repr(saved), 80)} in this processor, whose statistics were computed so, and can't become "
        f"{one_line(repr(value), 80)}; fit a processor anew (`fmri-models fit-processor` for a pipeline)."
    )


def _by_subject(
    fmri: np.ndarray | torch.Tensor, subjects: Sequence[str] | str | None
) -> tuple[dict[str, np.ndarray], list[str], dict[str, np.ndarray]]:
    """Subject ▶ trials, the subjects in the order in which they come, and the rows of each."""
    array = as_numbers(fmri, "Training trials")
    if array.ndim != 2:
        raise FmriModelsError(f"Training trials have the shape {array.shape}; expected (trials, voxels).")
    if subjects is None or isinstance(subjects, str):
        subjects = [subjects or "subj01"] * len(array)
    if len(subjects) != len(array):
        raise FmriModelsError(f"{len(subjects)} subjects were given for {len(array)} trials; give one a trial.")
    names = list(dict.fromkeys(subjects)) or ["subj01"]
    rows = {name: np.flatnonzero(np.asarray(subjects) == name) for name in names}
    return {name: array[rows[name]] for name in names}, names, rows


def _rows_of_subjects(values: Any, rows: Mapping[str, np.ndarray], what: str) -> Any:
    """What each trial of one array has, by subject."""
    if values is None or isinstance(values, Mapping):
        return values
    column = as_sessions(values, "A session").reshape(-1) if what == "sessions" else np.asarray(values, dtype=str)
    count = sum(len(own) for own in rows.values())
    if len(column) != count:
        raise FmriModelsError(f"{len(column)} {what} were given for {count} trials; give one a trial.")
    return {name: column[own] for name, own in rows.items()}


def _blocks(fmri: np.ndarray | torch.Tensor | Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    if not hasattr(fmri, "shape"):
        yield from fmri
        return
    array = as_numbers(fmri, "Training trials")
    if array.ndim != 2:
        raise FmriModelsError(f"Training trials have the shape {array.shape}; expected (trials, voxels).")
    for start in range(0, len(array), _ROWS_A_BLOCK):
        yield array[start : start + _ROWS_A_BLOCK]


def _sessions_of_rows(
    session: int | Sequence[int] | np.ndarray | None, leading: tuple[int, ...], num_rows: int
) -> np.ndarray | None:
    if session is None:
        return None
    sessions = as_sessions(session)
    if sessions.ndim == 0:
        return np.full(num_rows, sessions)
    if sessions.shape == leading:
        return sessions.reshape(-1)
    batch = leading[0] if leading else num_rows
    if sessions.shape != (batch,):
        found = len(sessions) if sessions.ndim == 1 else f"sessions of the shape {sessions.shape} instead of"
        raise FmriModelsError(f"{found} sessions were given for {batch} patterns; give one a pattern.")
    return np.repeat(sessions, num_rows // batch)


def _check_finite(
    patterns: np.ndarray,
    name: str,
    row_numbers: list[int],
    voxel_number: Callable[[int, int], int] = lambda row, voxel: voxel,
) -> None:
    # A sum is finite only if every value is: one pass without a mask, which only a failure needs.
    with np.errstate(invalid="ignore"):
        if np.isfinite(patterns.sum(dtype=np.float64)):
            return
    bad = ~np.isfinite(patterns)
    if bad.any():
        row, voxel = (int(index[0]) for index in np.nonzero(bad))
        raise FmriModelsError(
            f"{name} has {int(bad.sum())} values that are NaN or infinite, the first in pattern {row_numbers[row]} at "
            f"voxel {voxel_number(row, voxel)}; leave out these trials or voxels (`prepare arrays --drop-bad-voxels`)."
        )


def _check_not_constant(patterns: np.ndarray, name: str, row_numbers: list[int]) -> None:
    if patterns.shape[1] < 2:
        return
    constant = (patterns == patterns[:, :1]).all(axis=1)
    if constant.any():
        row = int(np.flatnonzero(constant)[0])
        raise FmriModelsError(
            f"Pattern {row_numbers[row]} of {name} has the value {patterns[row, 0]:g} in every voxel, so it holds no "
            "response; leave it out."
        )


def _wrap(values: np.ndarray, width: int) -> np.ndarray:
    """Pads by repeating the pattern from its start, as MinD-Vis pads to a multiple of its patch."""
    repeats = -(-width // values.shape[1])
    return np.tile(values, (1, repeats))[:, :width]


def _pool(values: np.ndarray, width: int) -> np.ndarray:
    """Adaptive maximum over neighbouring voxels, as MindBridge brings subjects to one width."""
    pooled = torch.nn.functional.adaptive_max_pool1d(torch.from_numpy(np.ascontiguousarray(values)), width)
    return pooled.numpy()


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


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise FmriModelsError(f"{name} is {value!r}; expected one of {', '.join(choices)}.")


def _ranges(sessions: Sequence[int]) -> str:
    return listed(sessions, _MOST_LISTED) or "none"
