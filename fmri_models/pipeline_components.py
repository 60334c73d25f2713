"""What the components of a pipeline have to be, and to have in common."""

from collections.abc import Mapping
from typing import Any

from .configuration_fmri import SPACES, FmriConfig
from .embedding_space import LEARNED, EmbeddingSpace
from .errors import FmriModelsError
from .generation.image_generator import ImageGenerator
from .modeling_fmri import FmriPreTrainedModel
from .processing_fmri import FmriProcessor


def check_component(name: str, component: Any) -> None:
    """Refuses what can't be the component of that name; what is wrapped around a brain model has its configuration.

    Raises:
        FmriModelsError: Names the component, its class and the one expected.
    """
    known = {
        "brain_model": (getattr(component, "config", None), FmriConfig, "a brain model of this package"),
        "processor": (component, FmriProcessor, "an FmriProcessor"),
        "image_generator": (component, ImageGenerator | None, "an ImageGenerator"),
    }
    judged, expected_class, expected = known[name]
    if isinstance(judged, expected_class):
        return
    mend = "leave it out of from_pretrained() to load the saved one"
    if name == "image_generator":
        mend = "a name, folder or repository of one is given with image_generator_source="
    found = "None" if component is None else f"a {type(component).__name__}"
    raise FmriModelsError(f"{name} is {found}; expected {expected}; {mend}.")


def check_subjects(brain_model: FmriPreTrainedModel, processor: FmriProcessor) -> None:
    """Refuses a processor of other subjects, or of other numbers of voxels, than those of the brain model.

    Raises:
        FmriModelsError: Says what the two have.
    """
    config = brain_model.config
    if not processor.is_fitted and not processor.subject_names:
        return
    if processor.subject_names != config.subject_names:
        raise FmriModelsError(
            f"The processor's subjects are {processor.subject_names} and the model's are {config.subject_names}; use "
            "the processor that the model was trained with (the order counts)."
        )
    if processor.is_fitted and processor.num_voxels != config.num_voxels:
        raise FmriModelsError(
            f"The processor gives {processor.num_voxels} voxels and the model reads {config.num_voxels}; use the "
            "processor that the model was trained with."
        )


def check_spaces(brain_model: FmriPreTrainedModel, taken: Mapping[str, EmbeddingSpace | None]) -> None:
    """Refuses an image generator that means other things by an embedding than the brain model does.

    Args:
        brain_model: The brain model.
        taken: Name of a space ▶ what the generator has as it; None where that is not known, or where it has none.

    Raises:
        FmriModelsError: Names what differs.
    """
    for name, space in taken.items():
        decoded: EmbeddingSpace | None = brain_model.config.space(name)
        if decoded is not None and space is not None:
            decoded.require_equal(space, "the brain model", "the image generator")


def check_learned_conditions(brain_model: FmriPreTrainedModel, generator: ImageGenerator) -> None:
    """Refuses an image generator that can't read what another one has learned to read together with the brain model.

    Raises:
        FmriModelsError: Names the condition.
    """
    for name in SPACES:
        decoded = brain_model.config.space(name)
        if decoded is not None and decoded.encoder == LEARNED and name not in generator.learned_condition_spaces:
            raise FmriModelsError(
                "The brain model and the image generator mean different things by an embedding: the former decodes "
                f"{name.removesuffix('_space')}, which a generator has learned to read together with it, and "
                f"{type(generator).__name__} takes none; use the generator that the model was trained with."
            )
