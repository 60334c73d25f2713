"""Identification of the shown category by decoded features, for `evaluate.load`."""

from fmri_models.evaluation import category_identification, loadable


class CategoryIdentification(loadable.OfClasses):
    """Identification of the shown category by decoded features."""

    function = staticmethod(category_identification)
