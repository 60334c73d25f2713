"""The old place of `fmri_models.scenes`."""

from ..moved import moved_names

__getattr__ = moved_names(__name__, "fmri_models.scenes")
