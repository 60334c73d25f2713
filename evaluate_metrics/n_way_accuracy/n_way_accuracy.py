"""N-way top-k accuracy of a classifier's logits, for `evaluate.load`."""

from fmri_models.evaluation import loadable, n_way_accuracy


class NWayAccuracy(loadable.OfClasses):
    """N-way top-k accuracy of a classifier's logits."""

    function = staticmethod(n_way_accuracy)
