"""What a recipe is built of: its subjects, processor, image generator and targets, and the model before training."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError

from ..configuration_fmri import FmriConfig
from ..data import schema
from ..data.table import TrialTable
from ..data.table_processor import fit_processor
from ..data.targets import DEFAULT_TARGETS, TARGET_SPACES, Target
from ..embedding_space import EmbeddingSpace
from ..encoders.disk_backed import move_to_disk
from ..errors import FmriModelsError
from ..generation.image_generator import ImageGenerator
from ..generation.loading import load_image_generator
from ..modeling_fmri import FmriPreTrainedModel
from ..names import one_line
from ..processing_fmri import FmriProcessor
from ..registry import get_method
from .initial_model import load_initial_weights
from .inner_folds import INNER_SPLIT
from .no_generator import NoImageGenerator, check_needs_no_generator
from .recipe import Recipe
from .recipe_options import OWN_PROCESSOR_KEYS, check_keys
from .round_trip import say_what_is_lost

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


def recipe_subjects(recipe: Recipe, table: TrialTable) -> list[str]:
    """The recipe's subjects, or all of the table.

    Raises:
        FmriModelsError: The table lacks one.
    """
    for name in recipe.subjects or []:
        if name not in table.subjects:
            raise FmriModelsError(f"{table.path} has no subject {name!r}; it has {', '.join(table.subjects)}.")
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
    return fit_processor(
        table, subjects, recipe.train_parts, recipe.split, recipe.fold, sorted(read), **recipe.processor
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
    """What the model decodes: the targets that the recipe names, or the generator's embeddings and latents of pictures.

    Raises:
        FmriModelsError: The generator lacks one.
    """
    available: dict[str, Target] = {
        target: target for target, space in TARGET_SPACES.items() if getattr(generator, space) is not None
    }
    for target in recipe.targets or []:
        if target not in available:
            raise FmriModelsError(f"The generator {recipe.generator!r} has no {target}; it has {', '.join(available)}.")
    chosen = recipe.targets or [target for target in DEFAULT_TARGETS if target in available]
    return [available[target] for target in chosen]


def planned_model(recipe: Recipe, processor: FmriProcessor, generator: NamesSpaces) -> FmriPreTrainedModel:
    """The model for the recipe's subjects and the generator's spaces, on the device `meta`: with sizes and no weights.

    Args:
        recipe: The recipe.
        processor: Names the subjects and their voxels.
        generator: Names the spaces.

    Raises:
        FmriModelsError: The recipe has a model option that the method's configuration lacks or refuses.
    """
    return _planned(recipe, _configuration(recipe, processor, generator))


def untrained_model(
    recipe: Recipe, processor: FmriProcessor, generator: NamesSpaces, scratch: Path | None = None
) -> FmriPreTrainedModel:
    """The model for the recipe's subjects and the generator's spaces, with its own initial weights.

    Args:
        recipe: The recipe.
        processor: Names the subjects and their voxels.
        generator: Names the spaces.
        scratch: Where the weights of a closed-form method may live if they are too many for memory; None keeps all in
            memory.

    Raises:
        FmriModelsError: The recipe has a model option that the method's configuration lacks or refuses.
    """
    config = _configuration(recipe, processor, generator)
    planned = _planned(recipe, config)
    if scratch is None or num_weight_bytes(planned) <= WEIGHTS_IN_MEMORY:
        return get_method(recipe.method).load("model")(config)
    move_to_disk(planned, scratch)
    return planned.eval()


def build_model(
    recipe: Recipe, processor: FmriProcessor, generator: NamesSpaces, scratch: Path | None = None
) -> FmriPreTrainedModel:
    """The model that training starts from: an untrained one, or one with the weights of the recipe's initial model.

    Args:
        recipe: The recipe.
        processor: Names the subjects and their voxels.
        generator: Names the spaces.
        scratch: As for [`untrained_model`].

    Raises:
        FmriModelsError: A model option or the initial model does not fit.
    """
    model = untrained_model(recipe, processor, generator, scratch)
    if recipe.initial_model is not None:
        load_initial_weights(model, recipe.initial_model, processor)
    return model


def num_weight_bytes(model: FmriPreTrainedModel) -> int:
    """Bytes of a model's parameters."""
    return int(model.get_memory_footprint(return_buffers=False))


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


def _configuration(recipe: Recipe, processor: FmriProcessor, generator: NamesSpaces) -> FmriConfig:
    config_class: type[FmriConfig] = get_method(recipe.method).load("config")
    targets = recipe_targets(recipe, generator) if config_class.decodes_targets else []
    names = [TARGET_SPACES[target] for target in targets]
    names += _learned_spaces(recipe, config_class, generator)
    spaces = {name: getattr(generator, name).to_dict() for name in names}
    check_keys(recipe.model, config_class, "The recipe's model")
    try:
        return config_class(
            subject_names=processor.subject_names, num_voxels=processor.num_voxels, **spaces, **recipe.model
        )
    except (TypeError, StrictDataclassError) as error:
        raise FmriModelsError(
            f"The recipe's model has an option that does not fit: {' '.join(str(error).split())}."
        ) from error
