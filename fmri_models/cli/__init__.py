"""The command `fmri-models`."""
