"""Fits the linear method in closed form."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm
from transformers.utils import logging

from ...encoders.closed_form import ClosedFormTrials, RidgeChoice, RidgeSolver, choose_alpha
from ...encoders.disk_backed import release_memory
from .modeling_linear import LinearModel

logger = logging.get_logger(__name__)

DEFAULT_PENALTIES = tuple(float(10 ** (exponent / 2)) for exponent in range(0, 15))


@dataclass
class LinearObjective:
    """Ridge regression with the penalty chosen for each subject and group of targets.

    Args:
        selection: Choose the penalty on validation trials, or by leaving each training stimulus out with all its
            repetitions.
        penalties: Penalties to choose from; a single one is taken as it is, and so is one given for each subject and
            group of targets (`{"subj01": {"latents": 1000.0}}`).
    """

    selection: Literal["validation", "leave_one_stimulus_out"] = "leave_one_stimulus_out"
    penalties: Sequence[float] | Mapping[str, Mapping[str, float]] = DEFAULT_PENALTIES

    def fit(
        self,
        model: LinearModel,
        trials: Mapping[str, ClosedFormTrials],
        validation: Mapping[str, ClosedFormTrials] | None = None,
    ) -> dict[str, dict[str, dict[str, float]]]:
        """Sets the model's weights and `config.penalties`.

        Args:
            model: Its configuration names the subjects and the groups of targets.
            trials: Subject ▶ training trials.
            validation: Subject ▶ validation trials, for `selection="validation"`.

        Returns:
            Subject ▶ group ▶ penalty ▶ mean squared error on trials that the fit did not see.
        """
        errors: dict[str, dict[str, dict[str, float]]] = {}
        chosen: dict[str, dict[str, float]] = {}
        for subject in model.config.subject_names:
            solver = RidgeSolver(trials[subject].fmri)
            errors[subject], chosen[subject] = {}, {}
            for part in model.spaces:
                choice = self._choose(solver, subject, part, trials, validation)
                if choice.at_edge:
                    logger.warning(
                        f"The best penalty of {subject} {part} is {choice.alpha:g}, an end of the range tried; a wider "
                        "range may do better (objective.penalties in the recipe)."
                    )
                chosen[subject][part] = choice.alpha
                errors[subject][part] = {f"{penalty:g}": error for penalty, error in choice.errors.items()}
                fill_weights(model, subject, part, solver, trials[subject], choice.alpha)
        model.config.penalties = chosen
        return errors

    def _choose(
        self,
        solver: RidgeSolver,
        subject: str,
        part: str,
        trials: Mapping[str, ClosedFormTrials],
        validation: Mapping[str, ClosedFormTrials] | None,
    ) -> RidgeChoice:
        if isinstance(self.penalties, Mapping):
            return RidgeChoice(float(self.penalties[subject][part]), errors={}, at_edge=False)
        if len(self.penalties) == 1:
            return RidgeChoice(float(self.penalties[0]), errors={}, at_edge=False)
        held_out = validation[subject] if validation is not None else None
        return choose_alpha(solver, trials[subject], part, self.penalties, self.selection, held_out)


@torch.no_grad()
def fill_weights(
    model: LinearModel, subject: str, part: str, solver: RidgeSolver, trials: ClosedFormTrials, alpha: float
) -> None:
    """Solves for one subject and group of targets, block by block, and writes the weights into the model."""
    head = model.head(part, subject)
    factor = solver.factor(alpha)
    progress = tqdm(head.columns, desc=f"{subject} {part}", disable=len(head.columns) < 4)
    for columns, block in zip(progress, cast(Iterable[nn.Linear], head.blocks), strict=True):
        targets = torch.from_numpy(np.asarray(trials.targets[part].columns(columns), dtype=np.float32))
        weight, bias = solver.weights(targets, alpha, factor)
        block.weight.copy_(weight)
        block.bias.copy_(bias)
        release_memory(block)
