"""Published checkpoints become pipeline folders."""

import os
from pathlib import Path
from typing import Any

import torch

from ..conversion_record import ConversionRecord
from ..errors import FmriModelsError
from ..generation.image_generator import ImageGenerator
from ..generation.loading import load_source, parse_source, source_class
from ..hub_repository import is_folder
from ..names import one_line
from ..output_folders import PIPELINE, check_output_folder, check_room
from ..pipeline_fmri import FmriToImagePipeline
from ..processing_fmri import FmriProcessor
from ..records import Conversion
from ..registry import METHODS, get_method
from ..saving import atomic_folder
from .cards import write_card

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def convertible_methods() -> list[str]:
    """Names of the methods whose checkpoints were published in a layout that is read here."""
    return sorted(method.name for method in METHODS.in_order() if method.converter is not None)


def is_convertible(method_name: str) -> bool:
    """Whether a method is one of these; no package of others is imported for one of this package."""
    return any(method.name == method_name and method.converter is not None for method in METHODS.in_order())


def convert_checkpoint(
    method_name: str,
    checkpoint: str | os.PathLike,
    out: str | os.PathLike,
    low_level_checkpoint: str | os.PathLike | None = None,
    image_generator: str | None = None,
    dtype: str = "float32",
    overwrite: bool = False,
    **config_overrides: Any,
) -> FmriToImagePipeline:
    """Makes a pipeline folder of published checkpoints: brain model, processor, card, and the name of a generator.

    Published checkpoints come without the statistics of their betas, so the processor passes betas on as they are and
    says what it expects. Weights are mapped from the file and written, so that they are in memory once.

    Args:
        method_name: Name of the method.
        checkpoint: The published file.
        out: Folder of the pipeline; it appears complete or not at all.
        low_level_checkpoint: The file of the low-level branch, where it was published apart.
        image_generator: Name, folder or Hub repository; None takes the one that the method was published with. A
            full-size generator is named and not copied.
        dtype: `"float32"`, `"bfloat16"` or `"float16"` of the saved weights.
        overwrite: Replace a pipeline in the output folder.
        **config_overrides: Fields of the method's configuration that the tensors cannot tell, such as
            `subject_names=["subj02"]`.

    Returns:
        The pipeline; its weights still lie in the published file.

    Raises:
        FmriModelsError: The method has no published layout, a file is not what it should be, the generator takes
            something else than the model decodes, `out` has content that is no pipeline, or it is, contains or lies in
            what is read.
    """
    method = get_method(method_name)
    if method.converter is None:
        raise FmriModelsError(
            f"No checkpoints of {method_name!r} were published in a layout that is read here; those of "
            f"{', '.join(convertible_methods())} are."
        )
    if dtype not in DTYPES:
        raise FmriModelsError(f"dtype is {dtype!r}; expected {', '.join(DTYPES)}.")
    inputs = [path for path in (checkpoint, low_level_checkpoint) if path is not None and Path(path).is_file()]
    inputs += [image_generator] if image_generator is not None and Path(image_generator).is_dir() else []
    check_output_folder(out, overwrite, PIPELINE, inputs)
    found: Conversion = method.load("converter")(
        checkpoint, low_level_checkpoint=low_level_checkpoint, **config_overrides
    )
    config = found.model.config
    num_voxels = found.num_voxels or dict(zip(config.subject_names, config.num_voxels, strict=True))
    pipeline = method.load("pipeline")(
        found.model.to(DTYPES[dtype]),
        FmriProcessor.without_statistics(num_voxels, found.expects, **(found.processor_options or {})),
        **_generator_arguments(found, image_generator),
        drawing_settings=found.drawing_settings,
    )
    size = sum(parameter.numel() * parameter.element_size() for parameter in found.model.parameters())
    check_room(out, size)
    files = [Path(file).name for file in (checkpoint, low_level_checkpoint) if file is not None]
    with atomic_folder(out, overwrite, PIPELINE, inputs) as partial:
        pipeline.save_pretrained(partial)
        ConversionRecord(method_name, files, method.conversions_may_be_shared).save(partial)
        write_card(partial)
    return pipeline


def _generator_arguments(found: Conversion, image_generator: str | None) -> dict[str, Any]:
    """The pipeline's argument for a generator: one small or of the same checkpoint is contained, others named."""
    if isinstance(found.image_generator, ImageGenerator):
        if image_generator is not None:
            raise FmriModelsError(
                "The checkpoint has an image generator of its own, which learned together with the brain model, and "
                f"{one_line(image_generator, 80)} can't read its conditions; leave --generator out."
            )
        return {"image_generator": found.image_generator}
    published = None if found.image_generator is None else parse_source(found.image_generator)
    if image_generator is None:
        return {"image_generator_source": published}
    source = parse_source(image_generator)
    if published is not None and source.name == published.name:
        return {"image_generator_source": published}
    is_here = source.name is not None or is_folder(str(source.repository))
    if is_here and source_class(source).default_repository is None:
        return {"image_generator": load_source(source)}
    return {"image_generator_source": source}
