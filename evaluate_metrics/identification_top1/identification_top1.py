"""Identification by pixels among all pictures, for `evaluate.load`."""

from fmri_models.evaluation import identification_top1, loadable


class IdentificationTop1(loadable.OfPictures):
    """Identification by pixels among all pictures."""

    function = staticmethod(identification_top1)
