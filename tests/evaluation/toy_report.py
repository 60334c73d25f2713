"""Pictures, scorers and a protocol small enough to be scored in a second."""

import torch

from fmri_models.evaluation.protocols import Protocol

COUNT = 24
METRICS = (
    "pixcorr",
    "ssim",
    "mse",
    "two_way_tiny",
    "two_way_tiny_same_background",
    "retrieval_query_brain_top1",
    "retrieval_query_image_top5",
    "factor_accuracy_kind",
    "pairwise_pixcorr",
    "identification_top1",
)
PROTOCOL = Protocol("test", "For tests.", METRICS)


class TinyExtractor:
    """Mean colors of an 8x8 grid, and a count of the pictures it saw."""

    name, sha256 = "tiny", "0" * 64

    def __init__(self):
        self.seen = 0

    def __call__(self, images):
        self.seen += len(images)
        return torch.nn.functional.adaptive_avg_pool2d(images, 8).flatten(1)


class Classifier:
    """Calls a picture bright or dark."""

    sha256 = "1" * 64

    def predict(self, images):
        return {"kind": ["bright" if image.mean() > 0.5 else "dark" for image in images]}


def smooth_pictures(count=COUNT, seed=0, size=64):
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size=size, mode="bilinear").clamp(0, 1)
