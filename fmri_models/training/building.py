"""What a recipe is built of: its subjects, processor, image generator and targets, and the model before training."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError

from ..conditions import GUIDES
from ..configuration_fmri import FmriConfig
from ..data import schema
from ..data.table import TrialTable
from ..data.table_processor import fit_processor
from ..data.targets import DEFAULT_TARGETS, TARGET_SPACES, Target, check_posterior
from ..embedding_space import EmbeddingSpace
from ..encoders.disk_backed import move_to_disk
from ..errors import FmriModelsError
from ..generation.image_generator import ImageGenerator
from ..generation.loading import load_image_generator
from ..guides import GuideSet
from ..modeling_fmri import FmriPreTrainedModel
from ..names import listed, one_line
from ..processing_fmri import FmriProcessor
from ..registry import get_method
from .adaptation import adapted_model, base_configuration, base_processor, base_tables, put_lora
from .initial_model import load_initial_weights
from .inner_folds import INNER_SPLIT
from .no_generator import NoImageGenerator, check_needs_no_generator
from .recipe import Recipe
from .recipe_options import OWN_PROCESSOR_KEYS, check_keys
from .round_trip import say_what_is_lost
from .sources import opened_sources
from .training_subjects import TrainingSubjects
from .unpaired import as_wide

# Bytes of weights of a closed-form method beyond which they live in a file while they are computed.
WEIGHTS_IN_MEMORY = 2**31
# So many pictures tell what a generator makes of the stimuli.
_SAMPLED_PICTURES = 64


class NamesSpaces(Protocol):
    """What is known of an image generator without loading it; every [`ImageGenerator`] says so, too."""

    @property
    def image_embedding_space(self) -> EmbeddingSpace | None: ...

    @property
    def latent_space(self) -> EmbeddingSpace | None: ...

    @property
    def learned_condition_spaces(self) -> Mapping[str, EmbeddingSpace]: ...


class NamesSubjects(Protocol):
    """The subjects of a model; a processor names them, and so does what knows those of sources."""

    @property
    def subject_names(self) -> list[str]: ...

    @property
    def num_voxels(self) -> list[int]: ...


def recipe_subjects(recipe: Recipe, table: TrialTable) -> list[str]:
    """The recipe's subjects, or all of the table.

    Raises:
        FmriModelsError: The table lacks one.
    """
    for name in recipe.subjects or []:
        if name not in table.subjects:
            raise FmriModelsError(
                f"{table.path} has no subject {name!r}; it has {', '.join(table.subjects)}. The recipe names others: "
                "choose of these with subjects=[…]."
            )
    return list(recipe.subjects or table.subjects)


def processor_for(recipe: Recipe, table: TrialTable) -> FmriProcessor:
    """A processor with the statistics of the trials that the recipe's stages learn from.

    Raises:
        FmriModelsError: The recipe's options of the processor do not fit, or the data lack something.
    """
    subjects = recipe_subjects(recipe, table)
    for key in OWN_PROCESSOR_KEYS:
        if key in recipe.processor:
            raise FmriModelsError(
                f"The recipe's processor has the key {key!r}, which the recipe says itself; remove it."
            )
    read = {part for stage in recipe.stages for part in stage.held_out_parts}
    # Inner folds of a selection are scored on their test part.
    read |= {schema.TEST} if recipe.split == INNER_SPLIT else set()
    options = recipe.processor
    if recipe.adaptation is not None:
        base = base_processor(recipe)
        options = as_wide(base.options, base)
    return fit_processor(table, subjects, recipe.train_parts, recipe.split, recipe.fold, sorted(read), **options)


def training_subjects(recipe: Recipe, table: TrialTable) -> TrainingSubjects:
    """Whom the recipe learns from: with the processors of its subjects, of those that the base has, and of sources.

    Raises:
        FmriModelsError: As [`processor_for`]; or a source or the base does not fit.
    """
    base = None if recipe.adaptation is None else base_processor(recipe)
    if base is not None:
        _check_are_new(recipe_subjects(recipe, table), base)
    own = processor_for(recipe, table)
    if base is None and not recipe.sources:
        return TrainingSubjects(own)
    known = () if base is None else base_tables(recipe)
    sources = opened_sources(recipe.sources, table, own.subject_names, own, base, known)
    return TrainingSubjects(own, None if base is None else base.with_subjects_of(own), sources)


def _check_are_new(subjects: Sequence[str], base: FmriProcessor) -> None:
    there = [repr(name) for name in subjects if name in base.subject_names]
    new = [name for name in subjects if name not in base.subject_names]
    if there:
        mend = f"add the others alone (subjects=[{','.join(new)}])" if new else "give new subjects other names"
        raise FmriModelsError(
            f"The initial model has {listed(there)} already, and an adaptation adds subjects; {mend}."
        )


def image_generator_for(recipe: Recipe, table: TrialTable) -> ImageGenerator:
    """The recipe's generator; warns when the stimuli lie outside its domain.

    Raises:
        FmriModelsError: The recipe has none and learns from pictures, or has one and the table has no pictures.
    """
    if recipe.generator is None:
        check_needs_no_generator(recipe)
        return NoImageGenerator()
    ids = table.stimuli.ids
    if not ids:
        raise FmriModelsError(
            f"The trial table {one_line(table.path)} has no pictures, and the recipe has the image generator "
            f"{recipe.generator!r} for some; learn from fMRI alone (generator=null, as the recipe mindvis_pretraining "
            "does), or take a table with pictures."
        )
    count = min(len(ids), _SAMPLED_PICTURES)
    images = table.stimuli.images([ids[i] for i in np.unique(np.linspace(0, len(ids) - 1, count).astype(int))])
    generator = load_image_generator(recipe.generator, (images.shape[3], images.shape[1], images.shape[2]))
    say_what_is_lost(generator, recipe.generator, images)
    return generator


def recipe_targets(recipe: Recipe, generator: NamesSpaces) -> list[Target]:
    """What the model decodes: the targets that the recipe names, or the generator's embeddings and latents of pictures;
    guides are none of the generator's.

    Raises:
        FmriModelsError: The generator lacks one.
    """
    available: dict[str, Target] = {
        target: target for target, space in TARGET_SPACES.items() if getattr(generator, space) is not None
    }
    asked = None if recipe.targets is None else [target for target in recipe.targets if target != GUIDES]
    for target in asked or []:
        if target not in available:
            raise FmriModelsError(f"The generator {recipe.generator!r} has no {target}; it has {', '.join(available)}.")
    if "latents" in (available if asked is None else asked):
        check_posterior(generator, recipe.target_options)
    chosen = [target for target in DEFAULT_TARGETS if target in available] if asked is None else asked
    return [available[target] for target in chosen]


def recipe_guides(recipe: Recipe) -> GuideSet:
    """The guides that the model decodes, if the recipe names networks."""
    return GuideSet(recipe.guide_sources)


def planned_training(recipe: Recipe, subjects: TrainingSubjects, generator: NamesSpaces) -> FmriPreTrainedModel:
    """The model that is trained, with the subjects of an initial model and of sources, without its weights.

    It is on the device `meta`, but for layers of subjects that are added and LoRA.

    Args:
        recipe: The recipe.
        subjects: Whom it has in training.
        generator: Names the spaces.

    Raises:
        FmriModelsError: As [`build_model`].
    """
    if recipe.adaptation is None:
        model = planned_model(recipe, subjects.processor, generator)
        new = {}
    else:
        model = _planned(recipe, base_configuration(recipe))
        new = dict(zip(subjects.own.subject_names, subjects.own.num_voxels, strict=True))
    for name, width in {**new, **subjects.passing}.items():
        model.add_subject(name, width)
    if recipe.adaptation == "lora":
        put_lora(recipe, model, list(new))
    return model


def planned_model(recipe: Recipe, subjects: NamesSubjects, generator: NamesSpaces) -> FmriPreTrainedModel:
    """The model for the recipe's subjects and the generator's spaces, on the device `meta`: with sizes and no weights.

    Args:
        recipe: The recipe.
        subjects: Names the subjects and their voxels.
        generator: Names the spaces.

    Raises:
        FmriModelsError: The recipe has a model option that the method's configuration lacks or refuses.
    """
    return _planned(recipe, _configuration(recipe, subjects, generator))


def untrained_model(
    recipe: Recipe, subjects: NamesSubjects, generator: NamesSpaces, scratch: Path | None = None
) -> FmriPreTrainedModel:
    """The model for the recipe's subjects and the generator's spaces, with its own initial weights.

    Args:
        recipe: The recipe.
        subjects: Names the subjects and their voxels.
        generator: Names the spaces.
        scratch: Where the weights of a closed-form method may live if they are too many for memory; None keeps all in
            memory.

    Raises:
        FmriModelsError: The recipe has a model option that the method's configuration lacks or refuses.
    """
    config = _configuration(recipe, subjects, generator)
    planned = _planned(recipe, config)
    if scratch is None or num_weight_bytes(planned) <= WEIGHTS_IN_MEMORY:
        return get_method(recipe.method).load("model")(config)
    move_to_disk(planned, scratch)
    return planned.eval()


def build_model(
    recipe: Recipe,
    subjects: FmriProcessor | TrainingSubjects,
    generator: NamesSpaces,
    scratch: Path | None = None,
) -> FmriPreTrainedModel:
    """The model that training starts from: an untrained one, or one with the weights of the recipe's initial model.

    Args:
        recipe: The recipe.
        subjects: Names the subjects and their voxels, those of sources with them where there are any.
        generator: Names the spaces.
        scratch: As for [`untrained_model`].

    Raises:
        FmriModelsError: A model option or the initial model does not fit.
    """
    whole = subjects if isinstance(subjects, TrainingSubjects) else TrainingSubjects(subjects)
    if recipe.adaptation is not None:
        model = adapted_model(recipe, whole, generator)
    else:
        model = untrained_model(recipe, whole.processor, generator, scratch)
        if recipe.initial_model is not None:
            load_initial_weights(model, recipe.initial_model, whole.processor)
    for name, width in whole.passing.items():
        model.add_subject(name, width)
    if recipe.adaptation == "lora":
        put_lora(recipe, model, whole.own.subject_names)
    return model


def num_weight_bytes(model: FmriPreTrainedModel) -> int:
    """Bytes of a model's parameters and buffers, such as the positions of selected voxels."""
    return int(model.get_memory_footprint())


def _planned(recipe: Recipe, config: FmriConfig) -> FmriPreTrainedModel:
    with torch.device("meta"):
        return get_method(recipe.method).load("model")(config)


def _learned_spaces(recipe: Recipe, config_class: type[FmriConfig], generator: NamesSpaces) -> list[str]:
    """Spaces of the conditions that the method decodes and the generator learns to read; none without a generator.

    Raises:
        FmriModelsError: The generator reads none of them.
    """
    found = [name for name in config_class.learned_conditions if name in generator.learned_condition_spaces]
    if recipe.generator is None:
        return []
    if config_class.learned_conditions and not found:
        needed = ", ".join(name.removesuffix("_space") for name in config_class.learned_conditions)
        raise FmriModelsError(
            f"The method {recipe.method!r} decodes {needed} and the generator {recipe.generator!r} can't learn to read "
            "any of them; choose one that can, such as embedded."
        )
    return found


def _configuration(recipe: Recipe, subjects: NamesSubjects, generator: NamesSpaces) -> FmriConfig:
    config_class: type[FmriConfig] = get_method(recipe.method).load("config")
    targets = recipe_targets(recipe, generator) if config_class.decodes_targets else []
    names = [TARGET_SPACES[target] for target in targets]
    names += _learned_spaces(recipe, config_class, generator)
    spaces: dict[str, Any] = {name: getattr(generator, name).to_dict() for name in names}
    if guides := recipe_guides(recipe).spaces:
        spaces["guide_spaces"] = {name: space.to_dict() for name, space in guides.items()}
    check_keys(recipe.model, config_class, "The recipe's model")
    try:
        return config_class(
            subject_names=subjects.subject_names, num_voxels=subjects.num_voxels, **spaces, **recipe.model
        )
    except (TypeError, StrictDataclassError) as error:
        raise FmriModelsError(
            f"The recipe's model has an option that does not fit: {' '.join(str(error).split())}."
        ) from error
