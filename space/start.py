"""Starts the page where it is a Space of the Hub.

The build of a Space sees requirements.txt and no file beside it, so that pip can't install the wheel of fmri_models
that lies here; a wheel of Python alone works as soon as it is unpacked.
"""

import os
import runpy
import sys
import tempfile
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Unpacks the wheel and runs app.py, which finds the folders `model` and `data` beside it."""
    os.chdir(HERE)
    for wheel in sorted(HERE.glob("fmri_models-*.whl"))[-1:]:
        place = tempfile.mkdtemp(prefix="fmri_models-")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(place)
        sys.path.insert(0, place)
    runpy.run_path(str(HERE / "app.py"), run_name="__main__")


if __name__ == "__main__":
    main()
