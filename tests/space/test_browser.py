"""The page in a real browser: Debian's Chromium without a window, driven by playwright."""

import base64
import importlib.util
import io
import os
import shutil
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fmri_models.cli import space

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
DESKTOP = {"width": 1280, "height": 900}
WAIT = 90_000  # ms
READ_PICTURE = """async image => {
    const blob = await (await fetch(image.src)).blob();
    const bytes = new Uint8Array(await blob.arrayBuffer());
    return [blob.type, btoa(Array.from(bytes, byte => String.fromCharCode(byte)).join(""))];
}"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def executable() -> str:
    found = next((path for path in map(shutil.which, BROWSERS) if path), None)
    if found and importlib.util.find_spec("playwright"):
        return found
    missing = "the package playwright" if found else "Chromium (Debian's package is `chromium`)"
    message = f"There is no browser to test the page in: {missing} is not installed."
    if os.environ.get("FMRI_MODELS_REQUIRE_BROWSER"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="module")
def app() -> ModuleType:
    return space.load_app()


@pytest.fixture(scope="module")
def decoder(app: ModuleType, executable: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("nothing"))
        return app.choose_decoder(None, None)


@pytest.fixture(scope="module")
def address(app: ModuleType, decoder: Any) -> Iterator[str]:
    page = app.build(decoder)
    _, address, _ = page.launch(prevent_thread_lock=True, quiet=True, **app.appearance())
    yield address
    page.close()


@pytest.fixture(scope="module")
def browser(executable: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Any, address: str) -> Iterator[Any]:
    """Opens the page in a context of its own, and lists what its console complains of."""
    contexts = []

    def open_page(viewport: dict[str, int], scheme: str = "light") -> tuple[Any, list[str]]:
        context = browser.new_context(viewport=viewport, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(address)
        page.locator("#reconstructed img").wait_for(timeout=WAIT)
        return page, complaints

    yield open_page
    for context in contexts:
        context.close()


def served(page: Any, name: str) -> tuple[str, np.ndarray]:
    kind, text = page.locator(f"#{name} img").first.evaluate(READ_PICTURE)
    return kind, np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def test_draws_the_pixels_of_the_pipeline(open_page: Any, decoder: Any) -> None:
    page, complaints = open_page(DESKTOP)
    subject = decoder.subjects[0]
    expected = decoder.reconstruct(subject, decoder.stimulus_ids(subject)[0], 5)

    before = page.locator("#reconstructed img").first.get_attribute("src")
    page.get_by_label("Seed of the image generator").fill("5")
    page.get_by_role("button", name="Reconstruct", exact=True).click()
    page.wait_for_function(
        "before => document.querySelector('#reconstructed img').getAttribute('src') != before", arg=before, timeout=WAIT
    )

    for name in ("shown", "reconstructed"):
        kind, picture = served(page, name)
        assert kind == "image/png"
        assert np.array_equal(picture, np.asarray(getattr(expected, name)))
        assert "simulated brain" in page.locator(f"#{name}").inner_text()
    assert complaints == []


def test_a_seed_that_is_none_is_a_sentence_and_the_page_goes_on(open_page: Any) -> None:
    page, _ = open_page(DESKTOP)
    page.get_by_label("Seed of the image generator").fill("-1")
    page.get_by_role("button", name="Reconstruct", exact=True).click()
    page.get_by_text("expected a whole number from 0").first.wait_for(timeout=WAIT)
    page.reload()
    page.locator("#reconstructed img").wait_for(timeout=WAIT)
