"""The old place of `fmri_models.simulation`."""

from ..deprecation import moved_names

__getattr__ = moved_names(__name__, "fmri_models.simulation", since="0.1")
