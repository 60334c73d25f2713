"""Identification among n by features, for `evaluate.load`."""

from fmri_models.evaluation import loadable, n_way_identification


class NWayIdentification(loadable.OfVectors):
    """Identification among n by features."""

    function = staticmethod(n_way_identification)
