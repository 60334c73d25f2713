"""Two-way identification by features, for `evaluate.load`."""

from fmri_models.evaluation import loadable, two_way_identification


class TwoWayIdentification(loadable.OfVectors):
    """Two-way identification by features."""

    function = staticmethod(two_way_identification)
