"""Structural similarity of pictures and reconstructions, for `evaluate.load`."""

from fmri_models.evaluation import loadable, ssim


class Ssim(loadable.OfPictures):
    """Structural similarity of pictures and reconstructions."""

    function = staticmethod(ssim)
