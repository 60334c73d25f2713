"""Pearson's r over all pixels of pictures and reconstructions, for `evaluate.load`."""

from fmri_models.evaluation import loadable, pixcorr


class PixCorr(loadable.OfPictures):
    """Pearson's r over all pixels of pictures and reconstructions."""

    function = staticmethod(pixcorr)
