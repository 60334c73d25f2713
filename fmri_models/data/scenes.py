"""The old place of `fmri_models.scenes`."""

from ..deprecation import moved_names

__getattr__ = moved_names(__name__, "fmri_models.scenes", since="0.1")
