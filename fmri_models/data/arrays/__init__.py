"""A person's own betas: arrays, a table of events and a folder of pictures become a trial table."""

from .preparing import prepare_arrays

__all__ = ["prepare_arrays"]
