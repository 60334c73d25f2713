"""The page in a real browser: Debian's Chromium without a window, driven by playwright."""

import base64
import io
import os
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fmri_models.space.decoder import Decoder
from fmri_models.space.page import build, serving
from fmri_models.space.shelf import Shelf, choose_shelf
from tests.browsers import DESKTOP, PHONE, browser_executable

EXAMPLES = "examples of the package"
WAIT = 90_000  # ms
READ_PICTURE = """async image => {
    const blob = await (await fetch(image.src)).blob();
    const bytes = new Uint8Array(await blob.arrayBuffer());
    return [blob.type, btoa(Array.from(bytes, byte => String.fromCharCode(byte)).join(""))];
}"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def executable() -> str:
    return browser_executable()


@pytest.fixture(scope="module")
def shelf(executable: str, tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("nothing"))
        return choose_shelf()


@pytest.fixture(scope="module")
def decoder(shelf: Shelf) -> Decoder:
    return shelf.decoder(EXAMPLES, "mindeye-scenes")


@pytest.fixture(scope="module")
def address(shelf: Shelf) -> Iterator[str]:
    page = build(shelf)
    _, address, _ = page.launch(prevent_thread_lock=True, quiet=True, **serving(page))
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


def source(page: Any, name: str) -> str:
    return page.locator(f"#{name} img").first.get_attribute("src")


def wait_for_another(page: Any, name: str, before: str) -> None:
    page.wait_for_function(
        "([name, before]) => { const image = document.querySelector(`#${name} img`); "
        "return image && image.getAttribute('src') != before; }",
        arg=[name, before],
        timeout=WAIT,
    )


def open_tab(page: Any, name: str) -> None:
    tab = page.get_by_role("tab", name=name)
    if not tab.first.is_visible():
        # Those that a narrow page has no room for.
        page.locator(".overflow-menu > button").first.click()
        page.locator(".overflow-dropdown").get_by_text(name).click()
        return
    tab.first.click()


def test_draws_the_pixels_of_the_pipeline(open_page: Any, decoder: Decoder) -> None:
    page, complaints = open_page(DESKTOP)
    subject = decoder.subjects[0]
    expected = decoder.reconstruct(subject, decoder.stimulus_ids(subject)[0], 5)

    before = source(page, "reconstructed")
    page.get_by_label("Seed of the image generator").fill("5")
    page.get_by_role("button", name="Reconstruct", exact=True).click()
    wait_for_another(page, "reconstructed", before)

    for name in ("shown", "reconstructed"):
        kind, picture = served(page, name)
        assert kind == "image/png"
        assert np.array_equal(picture, np.asarray(getattr(expected, name)))
        assert "simulated brain" in page.locator(f"#{name}").inner_text()
    assert expected.low_level is not None
    assert np.array_equal(served(page, "low-level")[1], np.asarray(expected.low_level))
    assert page.locator("#candidates img").count() == len(expected.candidates) == 4
    assert np.array_equal(served(page, "candidates")[1], np.asarray(expected.candidates[0][0]))
    assert "(chosen)" in page.locator("#candidates").inner_text()
    assert complaints == []


def test_the_keyboard_alone_chooses_a_picture(open_page: Any, decoder: Decoder) -> None:
    page, complaints = open_page(DESKTOP)
    ids = decoder.stimulus_ids(decoder.subjects[0])
    before = source(page, "shown")
    page.locator("#stimulus input").focus()
    # The dropdown's list may be a stop of its own.
    for _ in range(2):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.type") == "radio":
            break
    assert page.evaluate("document.activeElement.value") == ids[0]
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.value") == ids[1]
    wait_for_another(page, "shown", before)
    expected = decoder.pictures([ids[1]])[0]
    shown = Image.fromarray(served(page, "shown")[1]).resize(expected.size, Image.Resampling.BICUBIC)
    assert np.abs(np.asarray(shown, dtype=int) - np.asarray(expected, dtype=int)).mean() < 12
    # One stop: the next one is outside of the grid.
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('#picture-grid')") is None
    assert complaints == []


def test_every_tab_does_what_it_says(open_page: Any, decoder: Decoder) -> None:
    page, complaints = open_page(DESKTOP)
    subject = decoder.subjects[0]
    name = decoder.stimulus_ids(subject)[0]

    open_tab(page, "Retrieve")
    page.get_by_role("button", name="Rank the test pictures").click()
    page.locator("#ranked img").first.wait_for(timeout=WAIT)
    assert page.locator("#ranked img").count() == 10
    assert "number 1 of 24" in page.locator("#rank-summary").inner_text()

    open_tab(page, "Look into the brain")
    page.get_by_role("button", name="Draw without and with the change").click()
    page.locator("#changed img").wait_for(timeout=WAIT)
    expected = decoder.change_region(subject, name, "V1", 0.0)
    assert np.array_equal(served(page, "unchanged")[1], np.asarray(expected.unchanged))
    assert np.array_equal(served(page, "changed")[1], np.asarray(expected.changed))
    page.get_by_role("button", name="What each region contributes").click()
    page.locator("#voxel-map img").wait_for(timeout=WAIT)
    assert page.locator("#contributions tr").count() == 7

    open_tab(page, "Compare")
    page.get_by_role("button", name="Draw with every method").click()
    page.locator("#compared img").first.wait_for(timeout=WAIT)
    assert page.locator("#compared figcaption").all_inner_texts() == ["shown", "mindeye-scenes", "linear-scenes"]

    open_tab(page, "About")
    page.get_by_text("It reads no thoughts").wait_for(timeout=WAIT)
    # What is drawn when it is needed has no text; every picture that is there does.
    assert page.locator("img:not([alt]), img[alt='']").count() == 0
    assert complaints == []


def test_another_method_is_chosen(open_page: Any, shelf: Shelf) -> None:
    page, _ = open_page(DESKTOP)
    linear = shelf.decoder(EXAMPLES, "linear-scenes")
    subject = linear.subjects[0]
    expected = linear.reconstruct(subject, linear.stimulus_ids(subject)[0])
    before = source(page, "reconstructed")
    page.locator("#method input").click()
    page.get_by_role("option", name="linear-scenes").click()
    wait_for_another(page, "reconstructed", before)
    assert np.array_equal(served(page, "reconstructed")[1], np.asarray(expected.reconstructed))


def test_what_was_made_of_another_picture_goes(open_page: Any, decoder: Decoder) -> None:
    page, complaints = open_page(DESKTOP)
    open_tab(page, "Retrieve")
    page.get_by_role("button", name="Rank the test pictures").click()
    page.get_by_text("The picture that was shown is number").wait_for(timeout=WAIT)
    name = decoder.stimulus_ids("subj01")[1]
    page.locator(f"#picture-grid input[value='{name}']").check(force=True)
    page.locator("#ranked img").first.wait_for(state="detached", timeout=WAIT)
    page.get_by_text("The picture that was shown is number").wait_for(state="detached", timeout=WAIT)
    assert complaints == []


def upload(page: Any, file: Path) -> None:
    page.get_by_role("button", name="Betas of your own").click()
    page.locator("#upload input[type=file]").set_input_files(file)
    page.locator("#upload").get_by_text(file.stem).first.wait_for(timeout=WAIT)
    page.get_by_label("Session (where statistics are by session)").fill("1")
    page.get_by_role("button", name="Reconstruct the upload").click()


def test_an_upload_is_drawn(open_page: Any, decoder: Decoder, tmp_path: Path) -> None:
    trials = decoder.table.trials("subj01", "test").subset([0, 1])
    assert trials.sessions.tolist() == [1, 1]
    np.save(tmp_path / "mine.npy", trials.fmri())
    page, complaints = open_page(DESKTOP)
    upload(page, tmp_path / "mine.npy")
    page.locator("#uploaded img").first.wait_for(timeout=WAIT)
    expected = decoder.reconstruct_betas(trials.fmri(), "subj01", 1)
    assert page.locator("#uploaded img").count() == 2
    assert np.array_equal(served(page, "uploaded")[1], np.asarray(expected[0]))
    assert complaints == []


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (lambda file: np.save(file, np.ones((1, 7), np.float32)), "7"),
        (lambda file: np.save(file, np.full((1, 1000), np.nan, np.float32)), "NaN"),
        (lambda file: file.write_bytes(pickle.dumps({"betas": [1.0]})), "is no .npy file"),
        (lambda file: file.write_text("1 2 3"), "is no .npy file"),
        (lambda file: np.save(file, np.zeros(5 * 2**20, np.float32)), "exceed the maximum allowed size"),
    ],
    ids=["voxel count", "NaN", "pickle", "text", "too large"],
)
def test_a_bad_upload_is_a_sentence_and_the_page_goes_on(
    open_page: Any, tmp_path: Path, content: Any, sentence: str
) -> None:
    content(tmp_path / "mine.npy")
    page, _ = open_page(DESKTOP)
    if "maximum" in sentence:
        page.get_by_role("button", name="Betas of your own").click()
        page.locator("#upload input[type=file]").set_input_files(tmp_path / "mine.npy")
    else:
        upload(page, tmp_path / "mine.npy")
    told = page.locator(".toast-body").filter(has_text=sentence).first
    told.wait_for(timeout=WAIT)
    assert "/" not in told.inner_text().replace("n/a", "")
    page.reload()
    page.locator("#reconstructed img").wait_for(timeout=WAIT)


def test_two_users_get_their_own_pictures(open_page: Any, decoder: Decoder) -> None:
    first, second = (open_page(DESKTOP)[0] for _ in range(2))
    ids = decoder.stimulus_ids("subj01")
    before = [source(page, "reconstructed") for page in (first, second)]
    for page, name in ((first, ids[3]), (second, ids[4])):
        page.locator(f"#picture-grid input[value='{name}']").check(force=True)
    for page, name, old in ((first, ids[3], before[0]), (second, ids[4], before[1])):
        wait_for_another(page, "reconstructed", old)
        expected = decoder.reconstruct("subj01", name).reconstructed
        assert np.array_equal(served(page, "reconstructed")[1], np.asarray(expected))


@pytest.mark.parametrize("seed", ["-1", "1e30", "0.5"])
def test_a_seed_that_is_none_is_a_sentence_and_the_page_goes_on(open_page: Any, seed: str) -> None:
    page, _ = open_page(DESKTOP)
    page.get_by_label("Seed of the image generator").fill(seed)
    page.get_by_role("button", name="Reconstruct", exact=True).click()
    page.get_by_text("expected a whole number from 0").first.wait_for(timeout=WAIT)
    page.reload()
    page.locator("#reconstructed img").wait_for(timeout=WAIT)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_fits_and_can_be_read(open_page: Any, viewport: dict[str, int], scheme: str, tmp_path: Path) -> None:
    page, complaints = open_page(viewport, scheme)
    folder = Path(os.environ.get("FMRI_MODELS_SCREENSHOTS", tmp_path))
    page.screenshot(path=folder / f"reconstruct_{viewport['width']}_{scheme}.png", full_page=True)
    for tab in ("Reconstruct", "Retrieve", "Look into the brain", "Compare", "About"):
        open_tab(page, tab)
        assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    open_tab(page, "Reconstruct")
    boxes = [page.locator(f"#{name} img").first.bounding_box() for name in ("shown", "reconstructed")]
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= viewport["width"] for box in boxes)
    stacked = boxes[1]["y"] >= boxes[0]["y"] + boxes[0]["height"]
    assert stacked == (viewport is PHONE)
    # A label covers no picture.
    for name, box in zip(("shown", "reconstructed"), boxes, strict=True):
        label = page.locator(f"#{name} label").first.bounding_box()
        assert label["y"] + label["height"] <= box["y"] + 1
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(map(int, re.findall(r"\d+", colour)[:3])) / 3
    assert (brightness < 64) == (scheme == "dark")
    assert complaints == []
