"""Frechet distance of two sets of features (FID), for `evaluate.load`."""

from fmri_models.evaluation import frechet_distance, loadable


class FrechetDistance(loadable.OfVectors):
    """Frechet distance of two sets of features (FID)."""

    function = staticmethod(frechet_distance)
