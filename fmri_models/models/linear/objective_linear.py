"""Fits the linear method in closed form."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, cast

import numpy as np
import torch
from pydantic import Field
from torch import nn
from transformers.utils import logging

from ...alignment.subject_alignment import DEFAULT_PENALTIES as DEFAULT_ALIGNMENT_PENALTIES
from ...alignment.subject_alignment import AlignmentMethod
from ...closed_form_trials import ClosedFormTrials, Selection
from ...encoders.disk_backed import release_memory
from ...encoders.ridge import RidgeChoice, RidgeSolver, choose_alpha
from ...errors import FmriModelsError
from ...names import listed, one_line
from ...objectives import ClosedFormObjective
from ...option_types import PositiveNumber, in_words
from ...progress import bar
from .aligned_subjects import fill_aligned
from .modeling_linear import BlockedLinear, LinearModel

logger = logging.get_logger(__name__)

# A target that is hardly predicted at all would be noise at full strength.
MAX_GAIN = 3.0
# Below this many training stimuli, a tenth of them decides badly, and training without them costs more than it tells.
FEW_STIMULI = 100
Penalties = Annotated[Sequence[PositiveNumber], Field(min_length=1)]
DEFAULT_PENALTIES = tuple(float(10 ** (exponent / 2)) for exponent in range(0, 15))


@dataclass
class LinearObjective(ClosedFormObjective[LinearModel]):
    """Ridge regression with the penalty chosen for each subject and target.

    Args:
        selection: Choose the penalty on validation trials, or by leaving each training stimulus out with all its
            repetitions (each run, where the design tests stimuli that are learned from in other runs). `"auto"` is the
            latter with fewer than `few_stimuli` training stimuli, in such a design, or without validation trials;
            training then learns from the validation trials, too.
        few_stimuli: Fewer training stimuli than these, of any subject, are few.
        penalties: Penalties to choose from; a single one is taken as it is, and so is one given for each subject and
            target (`{"subj01": {"latents": 1000.0}}`).
        restore_variance: Scale the prediction of each target around its mean so that it spreads as the target does, on
            trials that the fit did not see. Squared error shrinks what is uncertain; for pictures that means grey ones.
        aligned_to: A subject whose decoder is fitted; the others are read by it, through a map of their voxels to its
            voxels that is learned from training stimuli that all saw. None fits each subject by itself.
        alignment: The map, see [`align_subjects`].
        alignment_penalties: Of `alignment: ridge`, to choose from.
        shared_dimensions: Of `alignment: shared_response`.
        shared_share: Which share of the shared stimuli the map is learned from, drawn from `shared_seed`.
        shared_seed: Of that draw.
    """

    selection: Annotated[Selection | Literal["auto"], in_words("validation, leave_one_stimulus_out or auto")] = (
        "leave_one_stimulus_out"
    )
    few_stimuli: Annotated[int, Field(ge=0)] = FEW_STIMULI
    penalties: Annotated[
        Penalties | Mapping[str, Annotated[Mapping[str, PositiveNumber], Field(min_length=1)]],
        in_words("positive numbers, one at least"),
    ] = DEFAULT_PENALTIES
    restore_variance: bool = False
    aligned_to: str | None = None
    alignment: AlignmentMethod = "ridge"
    alignment_penalties: Penalties = DEFAULT_ALIGNMENT_PENALTIES
    shared_dimensions: Annotated[int, Field(ge=1)] = 100
    shared_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    shared_seed: Annotated[int, Field(ge=0)] = 0

    def settled(self, num_stimuli: int, num_validation: int, repeats_stimuli: bool) -> Selection:
        """What `selection` comes to with some trials.

        Args:
            num_stimuli: Training stimuli of the subject that has the fewest.
            num_validation: Validation trials of the subject that has the fewest.
            repeats_stimuli: Whether the design tests stimuli that are learned from.
        """
        if self.selection != "auto":
            return self.selection
        are_many = num_stimuli >= self.few_stimuli and num_validation > 0
        return "validation" if are_many and not repeats_stimuli else "leave_one_stimulus_out"

    def fit(
        self,
        model: LinearModel,
        trials: Mapping[str, ClosedFormTrials],
        validation: Mapping[str, ClosedFormTrials] | None = None,
    ) -> dict[str, dict[str, dict[str, float]]]:
        """Sets the model's weights and `config.penalties`.

        Args:
            model: Its configuration names the subjects and the targets.
            trials: Subject ▶ training trials.
            validation: Subject ▶ validation trials, for `selection="validation"`; they are not learned from.

        Returns:
            Subject ▶ target ▶ penalty ▶ mean squared error on trials that the fit did not see.
        """
        selection = self._settled_for(trials, validation)
        errors: dict[str, dict[str, dict[str, float]]] = {}
        chosen: dict[str, dict[str, float]] = {}
        for subject in self._with_own_decoder(model):
            solver = RidgeSolver(trials[subject].fmri)
            errors[subject], chosen[subject] = {}, {}
            for target in model.spaces:
                held_out = validation[subject] if validation is not None and selection == "validation" else None
                held_out = held_out if held_out is not None and len(held_out.stimulus_ids) else None
                choice = self._choose(solver, subject, target, trials[subject], selection, held_out)
                if choice.at_edge:
                    logger.warning(
                        f"The best penalty of {subject} {target} is {choice.alpha:g}, an end of the range tried; a "
                        "wider range may do better (objective.penalties in the recipe)."
                    )
                chosen[subject][target] = choice.alpha
                errors[subject][target] = {f"{penalty:g}": error for penalty, error in choice.errors.items()}
                self._fill_weights(model.head(target, subject), solver, target, choice.alpha, trials[subject], held_out)
        if self.aligned_to is not None:
            model.config.alignment = fill_aligned(
                model,
                trials,
                self.aligned_to,
                self.alignment,
                self.alignment_penalties,
                self.shared_dimensions,
                self.shared_share,
                self.shared_seed,
            )
        model.config.penalties = chosen
        model.config.restores_variance = self.restore_variance
        return errors

    def _with_own_decoder(self, model: LinearModel) -> Sequence[str]:
        """The subjects whose weights are fitted to their own trials."""
        names = model.config.subject_names
        if self.aligned_to is None:
            return names
        if self.aligned_to not in names:
            raise FmriModelsError(
                f"objective.aligned_to is {one_line(self.aligned_to, 60)}, which is none of the subjects "
                f"{listed(names, 8)}; name one of these."
            )
        if len(names) == 1:
            raise FmriModelsError(
                f"objective.aligned_to is {one_line(self.aligned_to, 60)}, the one subject that there is; name further "
                "subjects, or leave it out."
            )
        return [self.aligned_to]

    def _settled_for(
        self, trials: Mapping[str, ClosedFormTrials], validation: Mapping[str, ClosedFormTrials] | None
    ) -> Selection:
        return self.settled(
            min(len(set(each.stimulus_ids.tolist())) for each in trials.values()),
            min(len(each.stimulus_ids) for each in validation.values()) if validation else 0,
            any(each.leaves_out != "stimulus" for each in trials.values()),
        )

    def _choose(
        self,
        solver: RidgeSolver,
        subject: str,
        target: str,
        trials: ClosedFormTrials,
        selection: Selection,
        validation: ClosedFormTrials | None,
    ) -> RidgeChoice:
        if isinstance(self.penalties, Mapping):
            if target not in self.penalties.get(subject, {}):
                raise FmriModelsError(
                    f"objective.penalties has none for {target} of {subject}; add it, or give a list."
                )
            return RidgeChoice(float(self.penalties[subject][target]), errors={}, at_edge=False)
        if len(self.penalties) == 1:
            return RidgeChoice(float(self.penalties[0]), errors={}, at_edge=False)
        if selection == "leave_one_stimulus_out" and trials.leaves_out == "nothing":
            logger.warning(
                f"The training trials of {subject} have each stimulus once, and the same stimuli are tested: no trial "
                "can be left out without its stimulus, so the penalty is not chosen but taken from the size of the "
                "patterns; more training runs, or objective.penalties=[VALUE], would mend that."
            )
        return choose_alpha(solver, trials, target, self.penalties, selection, validation)

    @torch.no_grad()
    def _fill_weights(
        self,
        head: BlockedLinear,
        solver: RidgeSolver,
        target: str,
        alpha: float,
        trials: ClosedFormTrials,
        validation: ClosedFormTrials | None,
    ) -> None:
        """Solves for one subject and target, chunk by chunk, and writes the weights into the model."""
        factor = solver.factor(alpha)
        blocks = cast(Sequence[nn.Linear], head.blocks)
        progress = bar(head.columns, f"Solving for {target}", unit="block", disable=len(head.columns) < 4)
        for columns, block in zip(progress, blocks, strict=True):
            targets = torch.from_numpy(np.asarray(trials.targets[target].columns(columns), dtype=np.float32))
            weight, bias = solver.weights(targets, alpha, factor)
            if self.restore_variance and factor is not None:
                if validation is not None:
                    true = torch.from_numpy(np.asarray(validation.targets[target].columns(columns), dtype=np.float32))
                    predicted = solver.predict(validation.fmri, weight, bias)
                elif trials.leaves_out == "nothing":
                    # Undoes what the penalty shrinks; how well the fit generalises nobody can say.
                    true, predicted = targets, solver.predict(trials.fmri, weight, bias)
                else:
                    true = targets
                    predicted = true - solver.left_out_residuals(targets, trials.left_out_together, alpha, factor)
                gain = _gain(true, predicted)
                mean = targets.mean(dim=0).to(bias.dtype)
                weight, bias = weight * gain[:, None], mean + (bias - mean) * gain
            block.weight.copy_(weight)
            block.bias.copy_(bias)
            release_memory(block)


def _gain(true: torch.Tensor, predicted: torch.Tensor) -> torch.Tensor:
    """(T,) spread of the targets over that of their predictions; 1 for a target that does not vary."""
    spread = predicted.std(dim=0)
    gain = true.to(spread.dtype).std(dim=0) / spread.clamp(min=torch.finfo(spread.dtype).tiny)
    return torch.where(gain > 0, gain.clamp(max=MAX_GAIN), 1.0)
