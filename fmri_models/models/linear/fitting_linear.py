"""Fits one target of one subject, block by block of its units, and writes the weights into the model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import nn
from transformers.utils import logging

from ...closed_form_trials import ClosedFormTrials, Patterns, Selection
from ...encoders.disk_backed import release_memory
from ...encoders.ridge import (
    ExamplesOf,
    RidgeChoice,
    RidgeSolver,
    choose_alpha,
    choose_alpha_of_each,
    missing_validation,
    spaced_columns,
)
from ...encoders.selected_linear import SelectedLinear
from ...encoders.selected_ridge import SelectedRidge, SelectedSparse, SelectedWeights
from ...errors import FmriModelsError
from ...progress import bar
from .modeling_linear import BlockedLinear
from .part_options import PartOptions

logger = logging.get_logger(__name__)

# A target that is hardly predicted at all would be noise at full strength.
MAX_GAIN = 3.0
# Of a larger target, so many evenly spaced units choose the penalty of all, where each has voxels of its own.
_UNITS_THAT_CHOOSE = 128


@dataclass(frozen=True, eq=False)
class PartOfSubject:
    """One target of one subject, and how it is fitted.

    Args:
        subject: Name.
        target: Name.
        options: The recipe's for the target.
        trials: Training trials, with the voxels that are read.
        validation: Validation trials with the same voxels, if the penalty is chosen on them.
        selection: What the penalty is chosen on where there are no folds.
        columns: (S,) which of the model's voxels are read; None for all.
        penalties: To choose from; a single one is taken.
        restandardise: `"none"`, `"train"` or `"test"`.
        num_selected: Voxels of each unit; None where each reads all.
        standardises_patterns: Whether these are standardised in each pattern.
    """

    subject: str
    target: str
    options: PartOptions
    trials: ClosedFormTrials
    validation: ClosedFormTrials | None
    selection: Selection
    columns: np.ndarray | None
    penalties: tuple[float, ...]
    restandardise: str
    num_selected: int | None
    standardises_patterns: bool

    @property
    def chooses_penalty(self) -> bool:
        """Whether there is a penalty to choose."""
        return self.options.solver == "ridge" and len(self.penalties) > 1

    def values(self, columns: slice | np.ndarray, trials: ClosedFormTrials | None = None) -> torch.Tensor:
        """(n, T) of some units in training, or in other trials."""
        group = (trials or self.trials).targets[self.target]
        return torch.from_numpy(np.asarray(group.columns(columns), dtype=np.float32))

    def scale(self, columns: slice | np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """(T,) mean and spread of some units over the distinct training stimuli; 0 and 1 where these aren't used."""
        group, ids = self.trials.targets[self.target], self.trials.stimulus_ids
        first = np.unique(ids, return_index=True)[1]
        values = torch.from_numpy(np.asarray(group.columns(columns, first), dtype=np.float64))
        if not self.options.standardise_targets:
            return torch.zeros(values.shape[1], dtype=values.dtype), torch.ones(values.shape[1], dtype=values.dtype)
        mean, std = values.mean(dim=0), values.std(dim=0)
        return mean, torch.where((std > 0) & std.isfinite(), std, 1)


@dataclass
class FittedPart:
    """What became of a part.

    Args:
        penalty: The one chosen, the median of those of all units where each has its own; None without one.
        errors: Penalty ▶ mean squared error on trials that the fit did not see.
        at_edge: Share of the units whose best penalty is at an end of the range.
        num_constant: Units that do not vary over the training trials.
    """

    penalty: float | None
    errors: dict[float, float]
    at_edge: float
    num_constant: int


# ------------------------------------------------------------------------------------------------ all voxels, all units


@torch.no_grad()
def fit_dense(head: BlockedLinear, part: PartOfSubject, solver: RidgeSolver) -> FittedPart:
    """Ridge regression of all units on the same voxels.

    Args:
        head: The subject's map to the target.
        part: What is fitted.
        solver: Of the part's training trials.
    """
    folds = _folds(part, by_unit=part.options.penalty_per == "target")
    if len(part.penalties) > 1 and (part.options.penalty_per == "target" or folds is not None):
        choice = choose_alpha_of_each(
            solver, part.trials, part.target, part.penalties, folds, part.validation, head.columns[0].stop
        )
        if part.options.penalty_per == "target":
            num_constant = _fill_by_penalty(head, part, solver, choice.alphas)
            return FittedPart(float(np.median(choice.alphas)), choice.errors, choice.at_edge, num_constant)
        one = min(choice.errors, key=choice.errors.__getitem__)
        at_edge = float(one in (part.penalties[0], part.penalties[-1]))
        return FittedPart(one, choice.errors, at_edge, _fill(head, part, solver, one))
    one_choice = _choose(part, solver)
    num_constant = _fill(head, part, solver, one_choice.alpha)
    return FittedPart(one_choice.alpha, one_choice.errors, float(one_choice.at_edge), num_constant)


def _choose(part: PartOfSubject, solver: RidgeSolver) -> RidgeChoice:
    if len(part.penalties) == 1:
        return RidgeChoice(float(part.penalties[0]), errors={}, at_edge=False)
    if part.selection == "leave_one_stimulus_out" and part.trials.leaves_out == "nothing":
        logger.warning(
            f"The training trials of {part.subject} have each stimulus once, and the same stimuli are tested: no trial "
            "can be left out without its stimulus, so the penalty is not chosen but taken from the size of the "
            "patterns; more training runs, or objective.penalties=[VALUE], would mend that."
        )
    return choose_alpha(solver, part.trials, part.target, part.penalties, part.selection, part.validation)


def _folds(part: PartOfSubject, by_unit: bool) -> np.ndarray | None:
    """(n,) fold of each row; None where the penalty is chosen on validation trials, or as one for all units.

    Raises:
        FmriModelsError: The choice is to be made on validation trials, of which there are none.
    """
    on_validation = part.selection == "validation" and part.options.folds is None
    if by_unit and on_validation and part.validation is None and part.chooses_penalty:
        raise missing_validation()
    return part.options.fold_of_each(part.trials, by_unit and (not on_validation or part.validation is None))


def _fill(head: BlockedLinear, part: PartOfSubject, solver: RidgeSolver, alpha: float) -> int:
    """Solves for all units with one penalty."""
    factor = solver.factor(alpha)
    blocks = cast(Sequence[nn.Linear], head.blocks)
    progress = bar(head.columns, f"Solving for {part.target}", unit="block", disable=len(head.columns) < 4)
    num_constant = 0
    for columns, block in zip(progress, blocks, strict=True):
        targets = part.values(columns)
        num_constant += _num_constant(targets)
        weight, bias = _solved(part, solver, targets, columns, alpha, factor)
        _write(block, part, weight, bias)
        _keep_statistics(head, part, columns, targets)
        release_memory(block)
    return num_constant


def _fill_by_penalty(head: BlockedLinear, part: PartOfSubject, solver: RidgeSolver, alphas: np.ndarray) -> int:
    """Solves for units with a penalty each: penalty by penalty, so that one factorisation is in memory."""
    blocks = cast(Sequence[nn.Linear], head.blocks)
    num_constant = 0
    used = np.unique(alphas)
    for number, alpha in enumerate(bar(used.tolist(), f"Solving for {part.target}", unit="penalty value")):
        factor = solver.factor(alpha)
        for columns, block in zip(head.columns, blocks, strict=True):
            own = np.flatnonzero(alphas[columns] == alpha)
            if number == 0:
                all_units = part.values(columns)
                num_constant += _num_constant(all_units)
                _keep_statistics(head, part, columns, all_units)
            if len(own):
                chosen = columns.start + own
                weight, bias = _solved(part, solver, part.values(chosen), chosen, alpha, factor)
                _write(block, part, weight, bias, own)
            release_memory(block)
    return num_constant


def _solved(
    part: PartOfSubject,
    solver: RidgeSolver,
    targets: torch.Tensor,
    columns: slice | np.ndarray,
    alpha: float,
    factor: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(T, S) weights and (T,) intercept of some units, with their spread restored where that is asked for."""
    mean, scale = part.scale(columns) if part.options.standardise_targets else (None, None)
    fitted = targets if mean is None or scale is None else (targets.double() - mean) / scale
    weight, bias = solver.weights(fitted, alpha, factor)
    if mean is not None and scale is not None:
        weight, bias = weight * scale.to(weight.dtype)[:, None], bias * scale.to(bias.dtype) + mean.to(bias.dtype)
    if part.restandardise != "train" or factor is None:
        return weight, bias
    if part.validation is not None:
        true = part.values(columns, part.validation)
        predicted = solver.predict(part.validation.fmri, weight, bias)
    elif part.trials.leaves_out == "nothing":
        # Undoes what the penalty shrinks; how well the fit generalises nobody can say.
        true, predicted = targets, solver.predict(part.trials.fmri, weight, bias)
    else:
        true = targets
        left_out = solver.left_out_residuals(fitted, part.trials.left_out_together, alpha, factor)
        left_out = left_out if scale is None else left_out * scale.to(left_out.dtype)
        predicted = true - left_out
    return _with_spread(part, weight, bias, targets, true, predicted)


def _with_spread(
    part: PartOfSubject,
    weight: torch.Tensor,
    bias: torch.Tensor,
    targets: torch.Tensor,
    true: torch.Tensor,
    predicted: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights whose predictions spread as the targets do: around the targets' mean, which a free intercept predicts."""
    gain = _gain(true, predicted).to(weight.dtype)
    mean = targets.mean(dim=0).to(bias.dtype)
    centre = mean if part.options.intercept == "free" else predicted.mean(dim=0).to(bias.dtype)
    return weight * gain[:, None], mean + (bias - centre) * gain


def _gain(true: torch.Tensor, predicted: torch.Tensor) -> torch.Tensor:
    """(T,) spread of the targets over that of their predictions; 1 for a target that does not vary."""
    spread = predicted.std(dim=0)
    gain = true.to(spread.dtype).std(dim=0) / spread.clamp(min=torch.finfo(spread.dtype).tiny)
    return torch.where(gain > 0, gain.clamp(max=MAX_GAIN), 1.0)


def _write(
    block: nn.Linear, part: PartOfSubject, weight: torch.Tensor, bias: torch.Tensor, units: np.ndarray | None = None
) -> None:
    """Writes the weights of all units of a block, or of some; of voxels that are not read they are 0."""
    chosen = slice(None) if units is None else torch.from_numpy(units)
    if part.columns is None:
        block.weight[chosen] = weight.to(block.weight.dtype)
    else:
        whole = block.weight.new_zeros(len(weight), block.in_features)
        whole[:, torch.from_numpy(part.columns)] = weight.to(whole.dtype)
        block.weight[chosen] = whole
    block.bias[chosen] = bias.to(block.bias.dtype)


# -------------------------------------------------------------------------------------------- voxels of each unit's own


@torch.no_grad()
def fit_selected(head: BlockedLinear, part: PartOfSubject) -> FittedPart:
    """Ridge or sparse regression of each unit on voxels of its own."""
    solver = _solver(part, part.trials.fmri)
    is_sparse = part.options.solver == "sparse"
    folds = _folds(part, by_unit=True)
    penalties, errors, at_edge = _chosen(part, solver, folds)
    blocks = cast(Sequence[SelectedLinear | nn.Linear], head.blocks)
    progress = bar(head.columns, f"Solving for {part.target}", unit="block", disable=len(head.columns) < 4)
    num_constant = 0
    for columns, block in zip(progress, blocks, strict=True):
        targets = part.values(columns)
        num_constant += _num_constant(targets)
        mean, scale = part.scale(columns)
        scaled = (targets.double() - mean) / scale
        found = _weights(solver, scaled, penalties[columns])
        weight = found.weights * scale[:, None].to(found.weights.dtype)
        bias = found.bias * scale.to(found.bias.dtype) + mean.to(found.bias.dtype)
        if part.restandardise == "train":
            true, predicted = _predicted_unseen(part, columns, penalties[columns], found, folds)
            weight, bias = _with_spread(part, weight, bias, targets, true, predicted)
        _write_selected(block, part, SelectedWeights(found.indices, weight, bias))
        _keep_statistics(head, part, columns, targets)
        release_memory(block)
    penalty = None if is_sparse else float(np.median(penalties))
    return FittedPart(penalty, errors, at_edge, num_constant)


def _solver(part: PartOfSubject, fmri: Patterns) -> SelectedRidge | SelectedSparse:
    if part.options.solver == "sparse":
        if part.standardises_patterns:
            raise FmriModelsError(
                "model.standardises_patterns goes with the solver ridge, and a part has sparse; leave one of them out."
            )
        return SelectedSparse(fmri, part.num_selected, part.options.fit_intercept, part.options.iterations)
    assert part.num_selected is not None
    return SelectedRidge(fmri, part.num_selected, part.options.intercept, part.standardises_patterns)


def _weights(solver: SelectedRidge | SelectedSparse, targets: torch.Tensor, penalties: np.ndarray) -> SelectedWeights:
    """Solves for units of which each has its penalty."""
    if isinstance(solver, SelectedSparse):
        return solver.weights(targets)
    indices = solver.select(targets)
    used = np.unique(penalties)
    if len(used) == 1:
        return solver.weights(targets, float(used[0]), indices)
    parts = {float(alpha): torch.from_numpy(np.flatnonzero(penalties == alpha)) for alpha in used}
    found = {alpha: solver.weights(targets[:, own], alpha, indices[own]) for alpha, own in parts.items()}
    dtype = next(iter(found.values())).weights.dtype
    weights, bias = torch.empty(indices.shape, dtype=dtype), torch.empty(len(indices), dtype=dtype)
    for alpha, own in parts.items():
        weights[own], bias[own] = found[alpha].weights, found[alpha].bias
    return SelectedWeights(indices, weights, bias)


def _chosen(
    part: PartOfSubject, solver: SelectedRidge | SelectedSparse, folds: np.ndarray | None
) -> tuple[np.ndarray, dict[float, float], float]:
    """(T,) penalty of each unit; penalty ▶ mean squared error; and the share of units whose best one is at an end."""
    num_units = part.trials.targets[part.target].num_targets
    grid = np.array(part.penalties)
    if isinstance(solver, SelectedSparse) or len(grid) == 1:
        return np.full(num_units, grid[0]), {}, 0.0
    by_unit = part.options.penalty_per == "target"
    units = spaced_columns(num_units, num_units if by_unit else _UNITS_THAT_CHOOSE)
    errors = np.concatenate(
        [_errors_unseen(part, units[start : start + 1024], folds) for start in range(0, len(units), 1024)], axis=1
    )
    by_penalty = dict(zip(map(float, grid), errors.mean(axis=1).tolist(), strict=True))
    if not by_unit:
        best = int(errors.mean(axis=1).argmin())
        return np.full(num_units, grid[best]), by_penalty, float(best in (0, len(grid) - 1))
    best_of_each = errors.argmin(axis=0)
    differs = errors.max(axis=0) > errors.min(axis=0)
    at_edge = float((np.isin(best_of_each, (0, len(grid) - 1)) & differs).mean())
    return grid[best_of_each], by_penalty, at_edge


def _errors_unseen(part: PartOfSubject, units: np.ndarray, folds: np.ndarray | None) -> np.ndarray:
    """(penalties, T) mean squared error of some units on trials that neither selection nor fit has seen."""
    errors = np.zeros((len(part.penalties), len(units)))
    passes = _passes(part, folds)
    mean, scale = part.scale(units)
    for seen, unseen in passes:
        solver = _solver(part, seen.fmri)
        assert isinstance(solver, SelectedRidge)
        targets = (seen.values(units).double() - mean) / scale
        true = (unseen.values(units).double() - mean) / scale
        indices = solver.select(targets)
        for index, alpha in enumerate(part.penalties):
            found = solver.weights(targets, alpha, indices).predict(unseen.fmri, part.standardises_patterns)
            errors[index] += ((found.double() - true) ** 2 * scale**2).mean(dim=0).numpy() / len(passes)
    return errors


@dataclass(frozen=True, eq=False)
class _Examples:
    """Some examples: their voxels, and units of their targets."""

    fmri: Patterns
    values: Callable[[slice | np.ndarray], torch.Tensor]


def _passes(part: PartOfSubject, folds: np.ndarray | None) -> list[tuple[_Examples, _Examples]]:
    """What is learned from and what is predicted: all folds but one and that one, or training and validation trials."""
    if folds is None:
        validation = part.validation
        assert validation is not None
        held_out = _Examples(validation.fmri, lambda columns: part.values(columns, validation))
        return [(_Examples(part.trials.fmri, part.values), held_out)]
    passes = []
    for fold in np.unique(folds):
        seen, unseen = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        passes.append((_some(part, seen), _some(part, unseen)))
    return passes


def _some(part: PartOfSubject, positions: np.ndarray) -> _Examples:
    return _Examples(ExamplesOf(part.trials.fmri, positions), lambda columns: part.values(columns)[positions])


def _predicted_unseen(
    part: PartOfSubject, columns: slice, penalties: np.ndarray, found: SelectedWeights, folds: np.ndarray | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """(m, T) units and their predictions on trials that the fit did not see."""
    mean, scale = part.scale(columns)
    if folds is None:
        (_, unseen), *_ = _passes(part, None)
        predicted = found.predict(unseen.fmri, part.standardises_patterns).double() * scale + mean
        return unseen.values(columns), predicted
    true, predicted_of = [], []
    for seen, unseen in _passes(part, folds):
        solver = _solver(part, seen.fmri)
        weights = _weights(solver, (seen.values(columns).double() - mean) / scale, penalties)
        predicted_of.append(weights.predict(unseen.fmri, part.standardises_patterns).double() * scale + mean)
        true.append(unseen.values(columns))
    return torch.cat(true), torch.cat(predicted_of)


def _write_selected(block: SelectedLinear | nn.Linear, part: PartOfSubject, found: SelectedWeights) -> None:
    indices = found.indices
    if part.columns is not None:
        indices = torch.from_numpy(part.columns)[indices]
    weights = found.weights.to(block.weight.dtype)
    if isinstance(block, SelectedLinear):
        block.indices.copy_(indices)
        block.weight.copy_(weights)
    else:
        block.weight.zero_()
        block.weight.scatter_(1, indices, weights)
    block.bias.copy_(found.bias)


# ----------------------------------------------------------------------------------------------------------- statistics


def _keep_statistics(head: BlockedLinear, part: PartOfSubject, columns: slice, targets: torch.Tensor) -> None:
    """Mean and spread of the training targets, population's, for what evaluation does with a whole test set."""
    if part.restandardise != "test":
        return
    if columns.start == 0:
        num_units = part.trials.targets[part.target].num_targets
        head.keep_statistics(torch.zeros(num_units), torch.ones(num_units))
    head.target_mean[columns] = targets.double().mean(dim=0).float()
    head.target_std[columns] = targets.double().std(dim=0, correction=0).float()


def _num_constant(targets: torch.Tensor) -> int:
    return int((targets.amin(dim=0) == targets.amax(dim=0)).sum())
