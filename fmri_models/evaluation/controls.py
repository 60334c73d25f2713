"""Controls: decoders that know less than the brain row, drawn with the same steps, settings and seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np
import torch

from .. import progress
from ..adapters import adapters_of
from ..closed_form_trials import ClosedFormTrials, IndexedTargets, Selection
from ..data.closed_form import closed_form_trials, settled_fit
from ..data.processed import ProcessedTrials, training_repetitions
from ..data.schema import labelled_parts
from ..data.table import TrialTable
from ..data.table_processor import fit_processor
from ..data.table_trials import Trials
from ..data.target_options import TargetOptions
from ..data.targets import TARGET_SPACES, Target
from ..encoders.ridge import RidgeSolver, choose_alpha
from ..generation.image_generator import ImageGenerator
from ..modeling_fmri import FmriPreTrainedModel
from ..pipeline_fmri import FmriToImagePipeline
from ..processing_fmri import FmriProcessor
from ..registry import get_method
from ..training_record import TrainingRecord
from .held_out import subjects_in_table
from .learning import targets_of_references


def derangement(count: int, seed: int) -> np.ndarray:
    """A random permutation without a fixed point: a random cycle through all items (Sattolo, 1986).

    Args:
        count: At least 2 items; a single one stays where it is.
        seed: Of the draw.
    """
    order = np.random.default_rng(seed).permutation(count)
    exchanged = np.empty(count, dtype=np.int64)
    exchanged[order] = np.roll(order, 1)
    return exchanged


def exchange_stimuli(stimulus_ids: Sequence[str], seed: int) -> np.ndarray:
    """Positions that give each item a pattern that belongs to another stimulus.

    Args:
        stimulus_ids: Stimulus, or picture, of each item, at least two different ones; single trials of one are
            exchanged with trials of one other.
        seed: Of the draw.
    """
    names = list(dict.fromkeys(stimulus_ids))
    partner = dict(zip(names, (names[index] for index in derangement(len(names), seed)), strict=True))
    positions = {name: [place for place, other in enumerate(stimulus_ids) if other == name] for name in names}
    seen = dict.fromkeys(names, 0)
    exchanged = np.empty(len(stimulus_ids), dtype=np.int64)
    for position, name in enumerate(stimulus_ids):
        candidates = positions[partner[name]]
        exchanged[position] = candidates[seen[name] % len(candidates)]
        seen[name] += 1
    return exchanged


class LinearReferences:
    """Ridge regression to the targets of the evaluated model, as the recipe `linear` fits it: in truth, and on permuted
    pairs. An evaluated linear model is its own reference and is permuted as it was fitted, unless its weights were
    changed since.

    Args:
        pipeline: The evaluated pipeline; the options of its processor are used.
        generator: Embeds and draws: the pipeline's, or that one as it was before it was trained.
        table: The trial table.
        record: Which trials the pipeline was trained on.
        seed: Of the permutation of pairs.

    Attributes:
        targets: What is decoded.
    """

    def __init__(
        self,
        pipeline: FmriToImagePipeline,
        generator: ImageGenerator,
        table: TrialTable,
        record: TrainingRecord,
        seed: int,
    ) -> None:
        self.pipeline = pipeline
        self.generator = generator
        self.subjects = subjects_in_table(pipeline, table, record)
        self._contents = table.stimuli.content_hashes
        self.targets = targets_of_references(pipeline, generator)
        model = pipeline.brain_model
        is_as_fitted = not adapters_of(model) and not record.unknown_initial_models
        is_linear = model.config.model_type == "fmri-linear" and not pipeline.has_trained_generator
        self._is_evaluated = is_linear and is_as_fitted
        self._selection: Selection = "leave_one_stimulus_out"
        self._where = (record.split, record.fold)
        parts = labelled_parts(record.train_parts)
        trained_on = record.repetitions
        if not self._is_evaluated:
            subjects = self.subjects
            objective = get_method("linear").load("objective")(selection="auto")
            self._selection, parts = settled_fit(objective, table, subjects, parts, ["validation"], *self._where)
            trained_on = training_repetitions(table, record.split, "average")
        self.processor = self._fitted_processor(table, parts, record)
        self._trials_of = partial(
            closed_form_trials, table, self.processor, generator, self.targets, split=record.split,
            fold=record.fold, repetitions="single" if trained_on == "single" else "average",
            options=TargetOptions.of_recipe(record.recipe),
        )  # fmt: skip
        self.trials = self._trials_of(parts=parts)
        self.seed = seed

    def features(self, trials: Trials, repetitions: Literal["average", "single"]) -> torch.Tensor:
        """(N, width) processed voxels as the references read them."""
        processed = ProcessedTrials(trials, self.processor, repetitions)
        return torch.from_numpy(processed[np.arange(len(processed))])

    def _fitted_processor(self, table: TrialTable, parts: Sequence[str], record: TrainingRecord) -> FmriProcessor:
        """The pipeline's, or one like it with the statistics of what ridge learns from, where that is more."""
        own = self.pipeline.processor
        if self.subjects != own.subject_names:
            own = own.subset(self.subjects)
        if set(parts) <= set(record.train_parts) or own.statistics == "identity":
            return own
        return fit_processor(table, own.subject_names, parts, *self._where, **own.options)

    @cached_property
    def ridge(self) -> FmriPreTrainedModel:
        """The linear method; the evaluated model itself if that is what it is."""
        if self._is_evaluated:
            return self.pipeline.brain_model
        with progress.phase("Fitting ridge"):
            return self._fit(self.trials, None)

    @property
    def drawn_by_evaluated(self) -> bool:
        """Whether the evaluated pipeline's generator draws from its own embeddings, too."""
        return self.generator is self.pipeline.image_generator

    @cached_property
    def drawn_by(self) -> FmriToImagePipeline:
        """The pipeline that draws what they decode; the evaluated one where it draws from its own embeddings."""
        if self.drawn_by_evaluated:
            return self.pipeline
        return FmriToImagePipeline(self.ridge, self.processor, self.generator)

    @cached_property
    def permuted(self) -> FmriPreTrainedModel:
        """Ridge regression with the same penalties after the pictures were exchanged between stimuli."""
        trials = {name: self._exchanged(trials) for name, trials in self.trials.items()}
        penalties = self.ridge.config.penalties
        with progress.phase("Fitting ridge to exchanged pairs"):
            return self._fit(trials, penalties)

    @property
    def ridge_is_evaluated(self) -> bool:
        """Whether the evaluated model is ridge regression as it was fitted."""
        return self._is_evaluated

    def refitted(self, subject: str, trials: ClosedFormTrials, width: int) -> FmriPreTrainedModel:
        """The linear method of one subject, fitted anew to other patterns of the same examples.

        The penalty of each target is chosen by leaving examples out, as it is without validation trials.

        Args:
            subject: Name.
            trials: The examples with other patterns.
            width: Of these patterns.
        """
        objective = get_method("linear").load("objective")()
        solver = RidgeSolver(trials.fmri)
        chosen: dict[str, float] = {
            target: choose_alpha(solver, trials, target, objective.penalties, "leave_one_stimulus_out").alpha
            for target in self.targets
        }
        return self._fit({subject: trials}, {subject: chosen}, [width])

    def uninformed(self, subject: str) -> FmriPreTrainedModel:
        """The linear method of one subject fitted to no voxels at all: of any pattern of width 1 it decodes the mean of
        the training targets.
        """
        model = self._untrained([subject], [1])
        trials = self.trials[subject]
        with torch.no_grad():
            for target in self.targets:
                head = model.head(target, subject)
                for columns, block in zip(head.columns, head.blocks, strict=True):
                    values = np.asarray(trials.targets[target].columns(columns), dtype=np.float32)
                    block.weight.zero_()
                    block.bias.copy_(torch.from_numpy(values.mean(axis=0, dtype=np.float64)))
        return model.eval()

    def _space(self, target: Target) -> Any:
        """As the evaluated model has it, which is what its generator takes; that of the generator before training."""
        name, evaluated = TARGET_SPACES[target], self.pipeline.brain_model.config
        return getattr(evaluated, name) if self.drawn_by_evaluated else getattr(self.generator, name).to_dict()

    def _exchanged(self, trials: ClosedFormTrials) -> ClosedFormTrials:
        # Not between trials of one stimulus, or of one picture, where it would come back.
        ids = trials.stimulus_ids.tolist()
        shown = [digest or name for name, digest in zip(ids, self._contents(ids), strict=True)]
        order = exchange_stimuli(shown if len(set(shown)) > 1 else ids, self.seed)
        targets = {
            name: IndexedTargets(indexed.values, indexed.index[order]) for name, indexed in trials.targets.items()
        }
        return replace(trials, targets=targets)

    def _untrained(
        self, subjects: Sequence[str], num_voxels: Sequence[int], options: Mapping[str, Any] | None = None
    ) -> FmriPreTrainedModel:
        method = get_method("linear")
        config = method.load("config")(
            subject_names=list(subjects),
            num_voxels=list(num_voxels),
            **{TARGET_SPACES[name]: self._space(name) for name in self.targets},
            **(options or {}),
        )
        return method.load("model")(config)

    @property
    def _selection_of_voxels(self) -> dict[str, Any]:
        """Which voxels units of the evaluated model read, as far as references decode them, too."""
        evaluated = self.pipeline.brain_model.config
        voxels = evaluated.voxels_per_target
        if isinstance(voxels, dict):
            voxels = {name: count for name, count in voxels.items() if name in self.targets} or None
        standardises = evaluated.standardises_patterns and voxels is not None
        return {"voxels_per_target": voxels, "standardises_patterns": standardises}

    def _fit(
        self,
        trials: dict[str, ClosedFormTrials],
        penalties: dict[str, dict[str, float]] | None,
        num_voxels: Sequence[int] | None = None,
    ) -> FmriPreTrainedModel:
        method = get_method("linear")
        evaluated = self.pipeline.brain_model.config
        as_evaluated = self._is_evaluated and num_voxels is None
        widths = self.processor.num_voxels if num_voxels is None else num_voxels
        model = self._untrained(list(trials), widths, self._selection_of_voxels if as_evaluated else None)
        # As the recipe `linear` has it, unless the evaluated model is a linear one that was fitted otherwise.
        options: dict[str, Any] = {
            "selection": self._selection,
            "restore_variance": getattr(evaluated, "restores_variance", True),
        }
        if as_evaluated and evaluated.parts:
            options["parts"] = {name: part for name, part in evaluated.parts.items() if name in self.targets}
        if penalties is not None:
            options["penalties"] = penalties
        held_out = self._trials_of(parts=["validation"]) if self._selection == "validation" else None
        method.load("objective")(**options).fit(model, trials, held_out)
        return model.eval()
