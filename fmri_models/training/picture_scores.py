"""How good the pictures of a pipeline are, by one metric: what a selection decides by."""

from collections.abc import Mapping
from dataclasses import fields

import numpy as np
import torch

from ..data.generator_pictures import prepare_pictures
from ..data.processed import ProcessedTrials
from ..data.table import TrialTable
from ..data.table_trials import Trials
from ..evaluation.compared_rows import PixelCorrelations, Pixels
from ..evaluation.named_metrics import METRICS as NAMED_METRICS
from ..evaluation.protocols import Protocol
from ..evaluation.row_data import RowData
from ..evaluation.scoring import score_rows
from ..evaluation.seeded_drawing import SeededDrawing
from ..pipeline_fmri import FmriToImagePipeline

# Names of the metrics that need pictures alone, and no network.
METRICS = tuple(
    each.name for each in NAMED_METRICS if not fields(each) and isinstance(each().needs, Pixels | PixelCorrelations)
)


def picture_scores(
    pipeline: FmriToImagePipeline, trials: Mapping[str, Trials], table: TrialTable, metric: str
) -> np.ndarray:
    """Scores of the pictures that a pipeline draws with its own settings, one an averaged stimulus and subject.

    Args:
        pipeline: Brain model, processor and image generator.
        trials: Subject ▶ trials.
        table: Has the pictures that were shown.
        metric: One of `METRICS`.

    Returns:
        (items,) float64.
    """
    drawing = SeededDrawing(pipeline.drawing_settings)
    protocol = Protocol("selection", "", (metric,))
    values = []
    for subject, subject_trials in trials.items():
        processed = ProcessedTrials(subject_trials, pipeline.processor, "average")
        count, ids = len(processed), processed.stimulus_ids.tolist()
        features = torch.zeros(count, pipeline.processor.width)
        features[:, : processed.width] = torch.from_numpy(processed[np.arange(count)])
        subject_ids = torch.full((count,), pipeline.processor.subject_names.index(subject))
        decoding = pipeline.decode(features, subject_ids, generator=drawing.sources(count))
        images = pipeline.generate(
            decoding, generator=drawing.sources(count), output_type="pt", num_patterns=count
        ).images
        assert isinstance(images, torch.Tensor)
        truth = prepare_pictures(table.stimuli.images(ids), pipeline.image_generator.image_size)
        scores = score_rows({"brain": RowData(images=images)}, truth, ids, protocol, permutations=0)
        found = scores.values["brain"][metric]
        values.append(np.full(count, np.nan) if found is None else found)
    return np.concatenate(values)
