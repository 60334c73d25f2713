"""The demo as a web page: see `fmri_models.space`.

On the Hub this file is the Space; on a person's own machine `fmri-models space` (or `make space`) starts it. Pipelines
and trial table come from the environment variables FMRI_MODEL (several are separated by commas) and FMRI_DATA: folders,
or repository ids on the Hub. Without them it shows what `make demo` wrote, and the examples that the package carries.
"""

import os

from fmri_models.process_threads import brief_waiting

# Before PyTorch is loaded.
os.environ.update(brief_waiting())

from fmri_models.space.page import launch

if __name__ == "__main__":
    launch()
