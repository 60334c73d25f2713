"""The browser that tests look at pages with: Debian's Chromium without a window, driven by playwright."""

import importlib.util
import os
import shutil

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}


def browser_executable() -> str:
    """Where Chromium is; skips the test without one, or fails it where one has to be."""
    found = next((path for path in map(shutil.which, BROWSERS) if path), None)
    if found and importlib.util.find_spec("playwright"):
        return found
    missing = "the package playwright" if found else "Chromium (Debian's package is `chromium`)"
    message = f"There is no browser to test the page in: {missing} is not installed."
    if os.environ.get("FMRI_MODELS_REQUIRE_BROWSER"):
        pytest.fail(message)
    pytest.skip(message)
