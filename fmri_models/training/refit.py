"""A new processor for a saved pipeline."""

import os
from pathlib import Path

from ..data.processed import fit_processor
from ..data.table import TrialTable
from ..pipeline_fmri import FmriToImagePipeline
from ..processing_fmri import FmriProcessor


def refit_processor(model: str | os.PathLike, data: str | os.PathLike, statistics: str = "session") -> FmriProcessor:
    """Replaces a saved pipeline's processor by one with the statistics of a table's training trials.

    Args:
        model: Folder of the pipeline.
        data: Folder of the trial table; it has the model's subjects.
        statistics: `"session"` or `"pooled"`.

    Raises:
        FmriModelsError: The table lacks a subject, or its voxels do not fit the model; the pipeline stays as it was.
    """
    pipeline = FmriToImagePipeline.from_pretrained(model)
    table = TrialTable.open(Path(data))
    options = {"pool_width": pipeline.processor.pool_width, "pad_multiple": pipeline.processor.pad_multiple}
    processor = fit_processor(table, pipeline.processor.subject_names, statistics=statistics, **options)
    # A pipeline refuses parts that do not fit together, so a wrong table is found before anything is written.
    type(pipeline)(pipeline.brain_model, processor, pipeline.image_generator)
    processor.save_pretrained(Path(model) / "processor")
    return processor
