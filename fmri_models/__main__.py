"""`python -m fmri_models` is the command `fmri-models`."""

import sys

from .cli.main import main

if __name__ == "__main__":
    sys.exit(main())
