"""Two-way identification by the correlation of pixels, for `evaluate.load`."""

from fmri_models.evaluation import loadable, pairwise_pixcorr


class PairwisePixCorr(loadable.OfPictures):
    """Two-way identification by the correlation of pixels."""

    function = staticmethod(pairwise_pixcorr)
