"""The linear method's pipeline."""

from ...pipeline_fmri import FmriToImagePipeline


class LinearPipeline(FmriToImagePipeline):
    """Voxels ▶ ridge regression ▶ image generator."""
