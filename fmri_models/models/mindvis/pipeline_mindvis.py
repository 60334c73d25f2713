"""MinD-Vis' pipeline."""

from ...pipeline_fmri import FmriToImagePipeline


class MindVisPipeline(FmriToImagePipeline):
    """Voxels ▶ encoder, conditions ▶ a generator that has learned to read them."""
