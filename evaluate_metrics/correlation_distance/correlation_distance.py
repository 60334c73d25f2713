"""Correlation distance of features, for `evaluate.load`."""

from fmri_models.evaluation import correlation_distance, loadable


class CorrelationDistance(loadable.OfVectors):
    """Correlation distance of features."""

    function = staticmethod(correlation_distance)
