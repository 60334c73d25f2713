"""Fits the linear method in closed form."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from pydantic import Field
from transformers.utils import logging

from ...alignment.subject_alignment import DEFAULT_PENALTIES as DEFAULT_ALIGNMENT_PENALTIES
from ...alignment.subject_alignment import AlignmentMethod
from ...closed_form_trials import ClosedFormTrials, Selection
from ...conditions import GUIDES
from ...encoders.ridge import Intercept, PatternsOf, RidgeSolver
from ...encoders.selected_linear import check_num_selected
from ...errors import FmriModelsError
from ...names import listed, one_line
from ...objectives import ClosedFormObjective
from ...option_types import PositiveNumber, in_words
from .aligned_subjects import fill_aligned
from .fitting_linear import FittedPart, PartOfSubject, fit_dense, fit_selected
from .modeling_linear import LinearModel
from .part_options import PartOptions, Penalties

logger = logging.get_logger(__name__)

# Below this many training stimuli, a tenth of them decides badly, and training without them costs more than it tells.
FEW_STIMULI = 100
# With fewer shared stimuli the map to another subject's voxels is said to be of few.
_FEW_SHARED = 20
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
        parts: Target (or `guides` for all guides that are not named themselves) ▶ options of its own, see
            [`PartOptions`]: regions, solver, penalties, folds, intercept,
            restandardisation. How many voxels each unit reads is `model.voxels_per_target`.
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
    parts: Mapping[str, PartOptions | dict[str, Any]] = field(default_factory=dict)
    aligned_to: str | None = None
    alignment: AlignmentMethod = "ridge"
    alignment_penalties: Penalties = DEFAULT_ALIGNMENT_PENALTIES
    shared_dimensions: Annotated[int, Field(ge=1)] = 100
    shared_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    shared_seed: Annotated[int, Field(ge=0)] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        # Refuses what does not fit before any work.
        _ = self.options_of_parts

    @property
    def options_of_parts(self) -> dict[str, PartOptions]:
        """Target ▶ its options, of those that have some of their own.

        Raises:
            FmriModelsError: There is no such option, or a value does not fit.
        """
        return {target: PartOptions.of(options, target) for target, options in self.parts.items()}

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

        Raises:
            FmriModelsError: A part names a target, a region or more voxels than there are, or all targets are constant.
        """
        self._check_parts(model, trials)
        selection = self._settled_for(trials, validation)
        model.config.parts = {target: options.stated() for target, options in self.options_of_parts.items()} or None
        model.config.restores_variance = self.restore_variance
        errors: dict[str, dict[str, dict[str, float]]] = {}
        chosen: dict[str, dict[str, float]] = {}
        for subject in self._with_own_decoder(model):
            solvers: dict[tuple[Any, Intercept], RidgeSolver] = {}
            errors[subject], chosen[subject] = {}, {}
            for target in model.spaces:
                held_out = validation[subject] if validation is not None and selection == "validation" else None
                held_out = held_out if held_out is not None and len(held_out.stimulus_ids) else None
                part = self._part(model, subject, target, trials[subject], held_out, selection)
                fitted = self._fitted(model, part, solvers)
                self._report(part, fitted)
                errors[subject][target] = {f"{penalty:g}": error for penalty, error in fitted.errors.items()}
                if fitted.penalty is not None:
                    chosen[subject][target] = fitted.penalty
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
            self._warn_of_few_shared(model.config.alignment["stimuli"])
        model.config.penalties = chosen
        return errors

    def _warn_of_few_shared(self, count: int) -> None:
        if count < _FEW_SHARED:
            logger.warning(
                f"The voxels of others are mapped to those of {one_line(self.aligned_to, 60)} by {count} shared "
                "stimuli alone, from which little can be learned; take more (objective.shared_share), or subjects "
                "that share more."
            )

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
        if model.config.voxels_per_target is not None:
            raise FmriModelsError(
                "objective.aligned_to reads all voxels of a subject through those of another one, so that units can't "
                "have voxels of their own; leave model.voxels_per_target out."
            )
        return [self.aligned_to]

    def _check_parts(self, model: LinearModel, trials: Mapping[str, ClosedFormTrials]) -> None:
        """Refuses parts that are none of the model's, before any work."""
        for target, options in self.options_of_parts.items():
            meant = self._meant_by(target, model)
            if not meant:
                raise FmriModelsError(
                    f"objective.parts names {one_line(repr(target), 80)}, and the model decodes "
                    f"{listed(list(model.spaces), 40, 1000)}; name one of these."
                )
            for subject in model.config.subject_names:
                columns = options.voxels(trials[subject], subject, target)
                for each in meant:
                    count = model.config.num_selected(each)
                    if columns is not None and count is not None:
                        where = f" of {subject} in {listed(list(options.rois or []), 20)}, which {each} is decoded from"
                        check_num_selected(count, len(columns), where)

    def _meant_by(self, target: str, model: LinearModel) -> list[str]:
        """The model's targets that a name in `parts` stands for."""
        if target == GUIDES:
            return [name for name in model.config.guides if name not in self.parts]
        return [target] if target in model.spaces else []

    def _options_of(self, target: str, model: LinearModel) -> PartOptions:
        """Options of a target: its own, or for a guide those of all guides."""
        stated = self.options_of_parts
        other = stated.get(GUIDES) if target in model.config.guides else None
        return stated.get(target) or other or PartOptions()

    def _part(
        self,
        model: LinearModel,
        subject: str,
        target: str,
        trials: ClosedFormTrials,
        validation: ClosedFormTrials | None,
        selection: Selection,
    ) -> PartOfSubject:
        options = self._options_of(target, model)
        columns = options.voxels(trials, subject, target)
        if columns is not None:
            trials = replace(trials, fmri=PatternsOf(trials.fmri, columns))
            validation = None if validation is None else replace(validation, fmri=PatternsOf(validation.fmri, columns))
        restandardise = options.restandardise or ("train" if self.restore_variance else "none")
        return PartOfSubject(
            subject, target, options, trials, validation, selection, columns,
            self._penalties_of(options, subject, target), restandardise, model.config.num_selected(target),
            model.config.standardises_patterns,
        )  # fmt: skip

    def _fitted(
        self, model: LinearModel, part: PartOfSubject, solvers: dict[tuple[Any, Intercept], RidgeSolver]
    ) -> FittedPart:
        head = model.head(part.target, part.subject)
        if part.num_selected is not None or part.options.solver == "sparse":
            return fit_selected(head, part)
        key = (None if part.columns is None else part.columns.tobytes(), part.options.intercept)
        if key not in solvers:
            solvers[key] = RidgeSolver(part.trials.fmri, part.options.intercept)
        return fit_dense(head, part, solvers[key])

    def _penalties_of(self, options: PartOptions, subject: str, target: str) -> tuple[float, ...]:
        """Penalties to choose from; a single one is taken as it is."""
        if isinstance(self.penalties, Mapping):
            if target in self.penalties.get(subject, {}):
                return (float(self.penalties[subject][target]),)
            if options.solver == "sparse":
                return (1.0,)
            raise FmriModelsError(f"objective.penalties has none for {target} of {subject}; add it, or give a list.")
        return tuple(float(each) for each in options.penalties or self.penalties)

    def _settled_for(
        self, trials: Mapping[str, ClosedFormTrials], validation: Mapping[str, ClosedFormTrials] | None
    ) -> Selection:
        return self.settled(
            min(len(set(each.stimulus_ids.tolist())) for each in trials.values()),
            min(len(each.stimulus_ids) for each in validation.values()) if validation else 0,
            any(each.leaves_out != "stimulus" for each in trials.values()),
        )

    def _report(self, part: PartOfSubject, fitted: FittedPart) -> None:
        if fitted.at_edge:
            share = "fewer than 1%" if fitted.at_edge < 0.005 else f"{fitted.at_edge:.0%}"
            of_units = "" if part.options.penalty_per == "group" else f" for {share} of the units"
            key = f"objective.parts.{part.target}.penalties" if part.options.penalties else "objective.penalties"
            logger.warning(
                f"The best penalty of {part.subject} {part.target} is{of_units} "
                f"{'' if of_units else f'{fitted.penalty:g}, '}an end of the range tried; a wider range may do better "
                f"({key} in the recipe)."
            )
        num_units = part.trials.targets[part.target].num_targets
        if fitted.num_constant == num_units:
            raise FmriModelsError(
                f"The {part.target} of all {len(part.trials.stimulus_ids)} training trials of {part.subject} are the "
                "same, so that there is nothing to learn; check the pictures of the table, or leave "
                f"{part.target} out of targets."
            )
        if fitted.num_constant and part.num_selected is not None:
            logger.warning(
                f"{fitted.num_constant} of {num_units} units of the {part.target} of {part.subject} are constant in "
                "training: no voxel goes with them, and their constant is predicted."
            )
