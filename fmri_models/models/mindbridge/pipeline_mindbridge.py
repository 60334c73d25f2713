"""MindBridge's pipeline."""

from ...pipeline_fmri import FmriToImagePipeline


class MindBridgePipeline(FmriToImagePipeline):
    """Voxels ▶ a subject's embedder, the translator, image and text tokens ▶ image generator.

    Pictures are drawn from image and text at once; `text_to_image_ratio` of the drawing settings weights them: 0 draws
    from the decoded image alone, 1 from the decoded text alone.
    """
