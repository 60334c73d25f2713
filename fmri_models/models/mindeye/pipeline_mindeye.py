"""MindEye's pipeline."""

from ...pipeline_fmri import FmriToImagePipeline


class MindEyePipeline(FmriToImagePipeline):
    """Voxels ▶ backbone, diffusion prior and low-level branch ▶ image generator."""
