"""What the stages of a recipe learn from: examples, those that are held out, and targets that are made in each step."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from transformers.utils import logging

from ..alignment.feature_map_teacher import load_teacher
from ..closed_form_trials import ClosedFormTrials
from ..data import schema
from ..data.augmentation import picture_augmentation
from ..data.closed_form import closed_form_trials
from ..data.loading import Examples, TrialDataset, gradient_trials
from ..data.processed import Repetitions
from ..data.table import TrialTable
from ..data.targets import Target
from ..errors import FmriModelsError
from ..generation.image_generator import ImageGenerator
from ..names import listed, one_line
from ..objectives import GradientObjective, Objective
from ..processing_fmri import FmriProcessor
from .building import recipe_guides, recipe_targets
from .online_targets import OnlineTargets
from .processes import processes
from .recipe import Recipe, Stage
from .simulated_trials import SimulatedTrials
from .sources import Source
from .training_subjects import TrainingSubjects
from .trial_simulation import trial_simulation
from .unpaired import unpaired_trials

logger = logging.get_logger(__name__)


class GradientExamples(NamedTuple):
    """What a stage that is trained by gradient learns from.

    Args:
        data: Examples to learn from, those of sources behind those of the recipe's table.
        held_out: Examples to validate on, of the recipe's table alone; None where there are none.
        online_targets: Makes targets of each batch that is learned from; None where all are cached.
        targets: What is learned of each picture.
        unpaired: Further sources of fMRI without pictures.
    """

    data: Examples
    held_out: Examples | None
    online_targets: OnlineTargets | SimulatedTrials | None
    targets: list[Target]
    unpaired: list[TrialDataset]


@dataclass(frozen=True)
class StageExamples:
    """Finds what each stage of a recipe learns from.

    Args:
        recipe: The recipe.
        table: The trial table.
        processor: Prepares the voxels.
        generator: Gives the targets.
        subjects: Whom the model has in training; None for those of the processor.
    """

    recipe: Recipe
    table: TrialTable
    processor: FmriProcessor
    generator: ImageGenerator
    subjects: TrainingSubjects | None = None

    def by_gradient(self, stage: Stage, learned: Sequence[str] | None) -> GradientExamples:
        """What a stage learns from by gradient.

        Args:
            stage: One of the recipe's.
            learned: Targets that its objective learns from; None for all of the recipe's.

        Raises:
            FmriModelsError: There are no examples, or an option does not fit.
        """
        targets = self._learned_in(stage, learned)
        with processes().main_process_first():
            online = self._online_targets(stage, targets)
            cached = [target for target in targets if online is None or target not in online.targets]
            repetitions = stage.repetitions or self.recipe.repetitions
            data = self._examples(stage.train_on, cached, repetitions)
            unpaired = unpaired_trials(self.recipe, stage, self.table, self.processor)
            # What training makes anew in each step needs no cache but for the pictures that are held out.
            held_out = self._held_out(stage, targets, whole_table=cached == targets)
        if len(data) == 0:
            raise FmriModelsError(
                f"The stage {stage.name!r} has no trials to learn from in {', '.join(stage.train_on)} of the split "
                f"{self.recipe.split!r}; choose other parts in train_on."
            )
        if held_out is None or len(held_out) == 0:
            held_out = None
            if stage.training is not None and stage.training.keep_best:
                logger.warning(
                    f"The stage {stage.name!r} has no validation trials, so that nothing is monitored and its last "
                    "weights are kept."
                )
        simulated = self._simulated_trials(stage, data, targets)
        everyone = self._everyone
        if everyone.are_those_of_table:
            return GradientExamples(data, held_out, simulated or online, targets, unpaired)
        self._check_width(stage, unpaired)
        with processes().main_process_first():
            others = [self._examples_of(source, cached, repetitions) for source in everyone.sources]
        joined = everyone.joined(self.table, data, others)
        held_out_joined = None if held_out is None else everyone.joined(self.table, held_out)
        return GradientExamples(joined, held_out_joined, simulated or online, targets, unpaired)

    def in_closed_form(self, parts: Sequence[str]) -> dict[str, ClosedFormTrials]:
        """Subject ▶ trials of some parts of the split, which a stage in closed form learns or chooses from."""
        recipe = self.recipe
        # A recipe refuses all repetitions beside a stage in closed form.
        assert recipe.repetitions != "all"
        where = (parts, recipe.split, recipe.fold, recipe.repetitions, recipe.target_options)
        guides = recipe_guides(recipe)
        return closed_form_trials(self.table, self.processor, self.generator, self._targets, *where, guides=guides)

    def check_labelled(self, stage: Stage, objective: Objective) -> None:
        """Refuses a stage that learns of pictures from trials that have none, before any stage begins.

        Raises:
            FmriModelsError: Names the stage and the part.
        """
        self._learned_in(stage, objective.targets if isinstance(objective, GradientObjective) else None)

    def _learned_in(self, stage: Stage, learned: Sequence[str] | None) -> list[Target]:
        """What a stage learns of each picture.

        Args:
            stage: One of the recipe's.
            learned: Targets that its objective learns from; None for all of the recipe's.
        """
        targets = [target for target in self._targets if learned is None or target in learned]
        _check_labelled(stage, targets)
        return targets

    @property
    def _everyone(self) -> TrainingSubjects:
        return TrainingSubjects(self.processor) if self.subjects is None else self.subjects

    def _check_width(self, stage: Stage, unpaired: Sequence[TrialDataset]) -> None:
        width = max(self._everyone.num_voxels)
        if unpaired and self.processor.width != width:
            raise FmriModelsError(
                f"The stage {stage.name!r} has unpaired trials of {self.processor.width} columns and the model reads "
                f"{width} of its widest subject; leave unpaired out, or give the processor padding: wrap and a width "
                "for all."
            )

    def _examples_of(self, source: Source, targets: list[Target], repetitions: Repetitions) -> TrialDataset:
        """The examples of a source.

        Raises:
            FmriModelsError: There are none.
        """
        where = (source.stated.parts, source.stated.split, source.stated.fold, repetitions)
        options = self.recipe.target_options
        data = gradient_trials(source.table, source.processor, self.generator, targets, *where, options=options)
        if len(data) == 0:
            raise FmriModelsError(
                f"The source {one_line(source.table.path)} has no trials in {listed(source.stated.parts)} of the split "
                f"{source.stated.split!r}; choose other parts."
            )
        return data

    @property
    def _targets(self) -> list[Target]:
        return recipe_targets(self.recipe, self.generator)

    def _online_targets(self, stage: Stage, targets: list[Target]) -> OnlineTargets | None:
        """What is computed in each step; None where all targets are cached."""
        augmentation = picture_augmentation(stage.augmentation)
        if augmentation is None and stage.teacher is None:
            return None
        if augmentation is not None and "image_embeds" not in targets:
            raise FmriModelsError(
                f"The stage {stage.name!r} has an augmentation and learns from no embeddings of pictures; leave "
                "augmentation out."
            )
        teacher = None if stage.teacher is None else load_teacher(stage.teacher)
        return OnlineTargets(self.table, self.generator, augmentation, teacher)

    def _simulated_trials(self, stage: Stage, data: TrialDataset, targets: list[Target]) -> SimulatedTrials | None:
        """What simulates trials beside those that were measured; None where none are."""
        options = trial_simulation(stage.simulation)
        return None if options is None else SimulatedTrials(options, data, self.table, self.generator, targets)

    def _held_out(self, stage: Stage, targets: list[Target], whole_table: bool) -> TrialDataset | None:
        """Validations can be compared only if neither pictures nor repetitions are drawn."""
        if not stage.held_out_parts:
            return None
        asked = stage.repetitions or self.recipe.repetitions
        repetitions: Repetitions = "average" if asked == "all" else asked
        return self._examples(stage.held_out_parts, targets, repetitions, whole_table)

    def _examples(
        self, parts: list[str], targets: list[Target], repetitions: Repetitions, whole_table: bool = True
    ) -> TrialDataset:
        where = (parts, self.recipe.split, self.recipe.fold, repetitions, whole_table, self.recipe.target_options)
        return gradient_trials(self.table, self.processor, self.generator, targets, *where)


def _check_labelled(stage: Stage, targets: Sequence[Target]) -> None:
    """Refuses to learn of pictures from trials that have none."""
    parts = [part for part in (*stage.train_on, *stage.validate_on) if part in schema.UNLABELLED_PARTS]
    if parts and targets:
        raise FmriModelsError(
            f"The stage {stage.name!r} learns from {', '.join(targets)} of pictures and names the part "
            f"{listed(parts)}, whose trials have none; leave it out of train_on and validate_on: only a stage that "
            "learns from fMRI alone takes it."
        )


def num_examples(recipe: Recipe, table: TrialTable, subject: str, parts: Sequence[str]) -> int:
    """How many examples a subject's trials in some parts of the split are, counted without preparing them."""
    return _count(table.trials(subject, parts, recipe.split, recipe.fold).stimulus_ids.tolist(), recipe.repetitions)


def num_examples_of(source: Source, repetitions: Repetitions, subject: str) -> int:
    """The same of a subject of a source, under its name in the table."""
    stated = source.stated
    trials = source.table.trials(subject, stated.parts, stated.split, stated.fold)
    return _count(trials.stimulus_ids.tolist(), repetitions)


def _count(stimuli: list[str], repetitions: Repetitions) -> int:
    # Trials without a stimulus are no repetitions of each other.
    return len(stimuli) if repetitions == "single" else len({*stimuli} - {""}) + stimuli.count("")
