"""The options of a processor: their types and defaults, and which of them may change once there are statistics."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Literal

import numpy as np

from ..errors import FmriModelsError
from ..names import did_you_mean, one_line
from ..reading import checked

PROCESSOR_SCHEMA = 1
# Statistics of fewer trials or stimuli lose more than they gain where sessions differ little; docs/data.md has figures.
MIN_SESSION_TRIALS = 10
# Far above the voxels of a brain; what is wider is a damaged number.
MAX_WIDTH = 2**24
# Options that may differ from those the processor was fitted with.
OPTIONS_OF_USE = (
    "unseen_session", "pool_width", "pooling", "pool_by_roi", "pad_multiple", "padding", "patch_size", "width",
    "wrap_extra_patch", "expects",
)  # fmt: skip
# What transformers writes into every configuration.
OF_TRANSFORMERS = ("feature_extractor_type", "processor_class")

Statistics = Literal["pooled", "session", "run", "run_number", "scalar", "identity"]
StatisticsOver = Literal["trials", "averages"]
# Statistics of which there is a row for each session, or for each run.
BY_GROUP = ("session", "run", "run_number")
# No session has so many runs.
_MOST_RUNS = 10_000
Padding = Literal["wrap"]
Pooling = Literal["max", "average", "resize"]
UnseenSession = Literal["error", "pooled", "from_batch"]


@cache
def option_types() -> dict[str, Any]:
    """Each option of a processor ▶ what it takes, and its default."""
    from pydantic import Field

    number = Annotated[int, Field(ge=1, le=MAX_WIDTH)] | None
    return {
        "statistics": (Statistics, "pooled"),
        "statistics_over": (StatisticsOver, "trials"),
        "ddof": (Annotated[int, Field(ge=0, le=1)], 0),
        "unseen_session": (UnseenSession, "error"),
        "rois": (list[str] | None, None),
        "min_noise_ceiling": (float | None, None),
        "num_best_voxels": (number, None),
        "pool_width": (number, None),
        "pooling": (Pooling, "max"),
        "pool_by_roi": (bool | dict[str, Annotated[int, Field(ge=1, le=MAX_WIDTH)]], False),
        "pad_multiple": (number, None),
        "padding": (Padding | None, None),
        "patch_size": (number, None),
        "width": (number, None),
        "wrap_extra_patch": (bool, False),
        "expects": (Annotated[str, Field(max_length=10_000)], ""),
        "min_session_trials": (Annotated[int, Field(ge=2, le=MAX_WIDTH)], MIN_SESSION_TRIALS),
    }


def groups_of_trials(statistics: str, sessions: np.ndarray, runs: np.ndarray | None) -> np.ndarray:
    """(n,) int64 number of the session, or of the run, whose statistics each trial is standardised with.

    Args:
        statistics: With `"run"`, the run 3 of session 2 is 20003; with `"run_number"`, runs of all sessions that have
            the same number are one; else sessions are meant.
        sessions: (n,) session of each trial.
        runs: (n,) run of each trial within its session.

    Raises:
        FmriModelsError: Runs are asked for and not known, or their numbers are none of runs.
    """
    if statistics not in ("run", "run_number"):
        return np.asarray(sessions, dtype=np.int64)
    if runs is None:
        raise FmriModelsError(f'statistics="{statistics}" needs the run of each trial; pass runs=.')
    numbers = np.asarray(runs, dtype=np.int64)
    if len(numbers) and not 0 <= numbers.min() <= numbers.max() < _MOST_RUNS:
        raise FmriModelsError(f"Runs are numbered {numbers.min()} to {numbers.max()}; expected 0 to {_MOST_RUNS - 1}.")
    return numbers if statistics == "run_number" else np.asarray(sessions, dtype=np.int64) * _MOST_RUNS + numbers


@cache
def config_type() -> Any:
    """What a saved processor's configuration consists of."""
    from pydantic import ConfigDict, Field, create_model

    line = Annotated[str, Field(max_length=10_000)]
    fields: dict[str, Any] = {
        "subject_names": (list[str], []),
        **option_types(),
        "noise_ceiling_source": (line, ""),
        # Of subjects whose patterns are windows of a recording, which models read flat.
        "window_shapes": (
            dict[str, Annotated[list[Annotated[int, Field(ge=1, le=MAX_WIDTH)]], Field(min_length=2, max_length=2)]],
            {},
        ),
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

    fields: dict[str, Any] = option_types()
    return create_model("ProcessorOptions", __config__=ConfigDict(extra="forbid", allow_inf_nan=False), **fields)


def check_options(**options: Any) -> None:
    """Refuses values of other types than those declared."""
    checked(options, _options_type(), "A processor", "correct the option")


def plain(value: Any) -> Any:
    """Numbers, tuples and arrays of NumPy as Python's own, which can be written down; a list or mapping as its own."""
    value = value.tolist() if isinstance(value, np.generic | np.ndarray) else value
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    return list(value) if isinstance(value, list | tuple) else value


def unknown_option(key: str) -> FmriModelsError:
    """What to say of an option that there is none of."""
    known = [*option_types()]
    return FmriModelsError(
        f"A processor has no option {one_line(repr(key), 80)}; it has {', '.join(known)}.{did_you_mean(key, known)}"
    )


def changed_options(
    saved: Mapping[str, Any], options: Mapping[str, Any], kwargs: Mapping[str, Any], was_fitted: bool
) -> dict[str, Any]:
    """Options in place of the saved ones.

    Raises:
        FmriModelsError: There is no such option, or the statistics were computed with it.
    """
    changed = {}
    for key, value in options.items():
        if key not in option_types():
            if kwargs.get("return_unused_kwargs"):
                continue
            raise unknown_option(key)
        if key in OPTIONS_OF_USE or not was_fitted:
            changed[key] = value
        elif value != saved.get(key, option_types()[key][1]):
            raise fixed_option(key, saved.get(key, option_types()[key][1]), value)
    return changed


def fixed_option(name: str, saved: Any, value: Any) -> FmriModelsError:
    """What to say where an option is changed that the statistics were computed with."""
    return FmriModelsError(
        f"{name} is {one_line(repr(saved), 80)} in this processor, whose statistics were computed so, and can't become "
        f"{one_line(repr(value), 80)}; fit a processor anew (`fmri-models fit-processor` for a pipeline)."
    )


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Refuses a value that is none of the choices."""
    if value not in choices:
        raise FmriModelsError(f"{name} is {value!r}; expected one of {', '.join(choices)}.")
