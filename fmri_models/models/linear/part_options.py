"""What a recipe may say of each target of the linear method by itself."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from ...closed_form_trials import ClosedFormTrials
from ...encoders.ridge import Intercept, consecutive_folds, intercept_of
from ...errors import FmriModelsError
from ...names import did_you_mean, listed, one_line
from ...option_types import Names, PositiveNumber, check_fields, in_words

Penalties = Annotated[Sequence[PositiveNumber], Field(min_length=1)]
_MOST_LISTED = 20
# Folds where voxels are selected in each of them, or where a penalty is chosen for each unit, and none are asked for.
DEFAULT_FOLDS = 5


@dataclass(frozen=True)
class PartOptions:
    """How one target is fitted.

    Args:
        rois: Regions whose voxels are read, by the labels of the table's voxels; None reads all. In the weights, all
            others are 0.
        solver: `"ridge"`, or `"sparse"`: sparse regression with automatic relevance determination (SLiR) of each unit
            by itself, which has no penalty.
        penalties: Penalties to choose from, in place of the objective's.
        penalty_per: One penalty for the whole `"group"`, or one for each unit (`"target"`).
        folds: Choose the penalty on so many folds of the training trials. None: as the objective's `selection` says,
            or on 5 folds where that leaves stimuli out and voxels are selected or each unit has a penalty of its own.
        folds_of: Divide `"stimuli"`, each with all its trials (runs, where the design tests stimuli that are learned
            from), or single `"rows"`, which puts trials of one picture on both sides.
        fit_intercept: Whether there is an intercept; without one, the mean of the targets is never predicted.
        penalise_intercept: Whether the intercept is penalised as a voxel of ones (fastL2LiR).
        standardise_targets: Fit units with mean 0 and standard deviation 1 (of a sample) over the distinct training
            stimuli, each counted once; predictions are scaled back. It matters where the intercept is penalised or
            left out.
        restandardise: `"none"`; `"train"` restores each unit's spread by trials that the fit did not see; `"test"`
            gives the predictions of a whole test set mean and spread of the training targets, as some published code
            does: evaluation does it and says so, and a pipeline refuses to decode. None follows the objective's
            `restore_variance`.
        iterations: Of sparse regression, at most.
    """

    rois: Names | None = None
    solver: Annotated[Literal["ridge", "sparse"], in_words("ridge or sparse")] = "ridge"
    penalties: Annotated[Penalties | None, in_words("positive numbers, one at least")] = None
    penalty_per: Annotated[Literal["group", "target"], in_words("group or target")] = "group"
    folds: Annotated[int, Field(ge=2, le=2**20), in_words("a whole number from 2")] | None = None
    folds_of: Annotated[Literal["stimuli", "rows"], in_words("stimuli or rows")] = "stimuli"
    fit_intercept: bool = True
    penalise_intercept: bool = False
    standardise_targets: bool = False
    restandardise: Annotated[Literal["none", "train", "test"] | None, in_words("none, train or test")] = None
    iterations: Annotated[int, Field(ge=1, le=2**20), in_words("a whole number from 1")] = 200

    def __post_init__(self) -> None:
        check_fields(vars(self), type(self), "objective.parts: ", "correct it")
        intercept_of(self.fit_intercept, self.penalise_intercept)

    @classmethod
    def of(cls, values: Any, target: str) -> "PartOptions":
        """The options that a recipe states for a target.

        Raises:
            FmriModelsError: There is no such option, or a value does not fit.
        """
        if isinstance(values, cls):
            return values
        known = [each.name for each in fields(cls)]
        for key in values:
            if key not in known:
                raise FmriModelsError(
                    f"objective.parts has the option {one_line(repr(key), 80)} for {one_line(target, 80)}; there are "
                    f"{', '.join(known)}.{did_you_mean(str(key), known)}"
                )
        return cls(**values)

    @property
    def intercept(self) -> Intercept:
        """What the two options of the intercept come to."""
        return intercept_of(self.fit_intercept, self.penalise_intercept)

    def stated(self) -> dict[str, Any]:
        """The options that differ from the defaults, as plain values."""
        default = asdict(PartOptions())
        stated = {name: value for name, value in asdict(self).items() if value != default[name]}
        return {name: list(value) if isinstance(value, list | tuple) else value for name, value in stated.items()}

    def voxels(self, trials: ClosedFormTrials, subject: str, target: str) -> np.ndarray | None:
        """(S,) positions of the voxels that are read; None for all.

        Raises:
            FmriModelsError: A region has no voxel, or none is known.
        """
        if self.rois is None:
            return None
        wanted = listed(list(self.rois), _MOST_LISTED)
        if trials.rois is None:
            raise FmriModelsError(
                f"objective.parts has rois for {target} ({wanted}), and no region of the processed voxels of {subject} "
                "is known; prepare the table with regions, leave the processor's pooling out, or leave rois out."
            )
        there = sorted(set(trials.rois.tolist()) - {""})
        if absent := [each for each in self.rois if each not in there]:
            raise FmriModelsError(
                f"objective.parts has the rois {listed(absent, _MOST_LISTED)} for {target}, and {subject} has no voxel "
                f"there; its regions are {listed(there, _MOST_LISTED) or 'unknown'}: choose of these."
                f"{did_you_mean(absent[0], there)}"
            )
        return np.flatnonzero(np.isin(trials.rois, list(self.rois)))

    def fold_of_each(self, trials: ClosedFormTrials, needs_folds: bool) -> np.ndarray | None:
        """(n,) fold of each training row; None where the penalty is not chosen on folds.

        Args:
            trials: The rows.
            needs_folds: Whether there have to be folds where none are asked for.
        """
        if self.folds is None and not needs_folds:
            return None
        rows = np.arange(len(trials.stimulus_ids))
        labels = rows if self.folds_of == "rows" or trials.leaves_out == "nothing" else trials.left_out_together
        count = min(DEFAULT_FOLDS, len(np.unique(labels))) if self.folds is None else self.folds
        return consecutive_folds(labels, count)
