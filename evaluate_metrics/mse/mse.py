"""Squared difference of the pixels of pictures and reconstructions, for `evaluate.load`."""

from fmri_models.evaluation import loadable, mse


class Mse(loadable.OfPictures):
    """Squared difference of the pixels of pictures and reconstructions."""

    function = staticmethod(mse)
