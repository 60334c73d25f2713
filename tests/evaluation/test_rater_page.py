"""The page of a rater pack in a real browser, opened from its file, and the way of its answers back."""

import importlib.util
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fmri_models.evaluation import evaluate_images
from fmri_models.evaluation.raters.answers import read_answers
from fmri_models.evaluation.raters.key import Key
from fmri_models.evaluation.raters.pack import PackRequest
from fmri_models.evaluation.raters.ratings import add_ratings
from tests.evaluation.test_images import write_pictures

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SIZES = {"desktop": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}
LEAST_CONTRAST = 4.5
CONTRASTS = """() => {
    const levels = colour => colour.match(/[\\d.]+/g).slice(0, 3).map(value => {
        const share = value / 255;
        return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    const light = colour => { const [r, g, b] = levels(colour); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
    const behind = element => {
        const colour = getComputedStyle(element).backgroundColor;
        return /, 0\\)$/.test(colour) ? behind(element.parentElement) : colour;
    };
    return [...document.querySelectorAll("main:not([hidden]) :is(h1, h2, p, li, label, button, span, kbd, summary)")]
        .filter(each => each.checkVisibility() && each.textContent.trim())
        .map(each => {
            const [one, other] = [getComputedStyle(each).color, behind(each)].map(light).sort();
            return [each.textContent.trim().slice(0, 40), (other + 0.05) / (one + 0.05)];
        });
}"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    executable = next((path for path in map(shutil.which, BROWSERS) if path), None)
    if not executable or not importlib.util.find_spec("playwright"):
        message = "There is no browser to test the page in (Chromium and the package playwright)."
        if os.environ.get("FMRI_MODELS_REQUIRE_BROWSER"):
            pytest.fail(message)
        pytest.skip(message)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pack")
    recon, truth = write_pictures(folder / "recon", 24, noise=0.5), write_pictures(folder / "truth", 24)
    request = PackRequest(folder / "raters", 6)
    evaluate_images(recon, truth, folder / "report", "small_pictures", rater_pack=request)
    return folder


@pytest.fixture
def visit(browser: Any, made: Path) -> Iterator[Any]:
    """Opens the page in a context of its own, and fails where it asks for anything else than its own files."""
    contexts, complaints = [], []

    def visit(size: str = "desktop", scheme: str = "light", context: Any = None, touch: bool = False) -> Any:
        if context is None:
            context = browser.new_context(viewport=SIZES[size], color_scheme=scheme, has_touch=touch)
            contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda it: None if it.url.startswith(("file:", "blob:")) else complaints.append(it.url))
        page.goto((made / "raters" / "index.html").as_uri())
        return page

    yield visit
    for context in contexts:
        context.close()
    assert not complaints


def begin(page: Any, name: str) -> None:
    page.get_by_label("Your name or an alias").fill(name)
    page.get_by_role("button", name="Start").click()


def wait_for(page: Any, number: int) -> None:
    page.wait_for_function(f"document.getElementById('place').textContent.startsWith('Choice {number} of') && ready")
    page.wait_for_timeout(230)


def own_side(page: Any, key: Key) -> str:
    """Where the own picture is, as nobody who looks at the page knows."""
    files = {side: Path(page.locator(f"#{side} img").get_attribute("src")).stem for side in ("left", "right")}
    own = {each.own for each in key.shown.values()}
    return next(side for side, name in files.items() if name in own)


def download(page: Any, folder: Path) -> Path:
    with page.expect_download() as found:
        page.get_by_role("button", name="Download the answers").click()
    file = folder / found.value.suggested_filename
    found.value.save_as(file)
    return file


def answer_all(page: Any, key: Key, how: str, wrong: int = 0, start: int = 1) -> None:
    for number in range(start, len(key.shown) + 1):
        wait_for(page, number)
        side = own_side(page, key)
        if number <= wrong:
            side = {"left": "right", "right": "left"}[side]
        if how == "keys":
            page.keyboard.press({"left": "ArrowLeft", "right": "ArrowRight"}[side])
        elif how == "touch":
            page.locator(f"#{side}").tap()
        else:
            page.locator(f"#{side}").click()


def test_answers_of_three_people_come_back_as_a_metric(made: Path, visit: Any, tmp_path: Path) -> None:
    key = Key.load(made / "raters-key.json")
    files = []
    for name, how in (("Ada", "keys"), ("Bén <b>&", "mouse"), ("Cid", "touch")):
        page = visit("phone" if how == "touch" else "desktop", touch=how == "touch")
        begin(page, name)
        answer_all(page, key, how)
        page.get_by_role("heading", name="Done").wait_for()
        files.append(download(page, tmp_path))
        assert json.loads(page.locator("#copy").input_value()) == json.loads(files[-1].read_text(encoding="utf-8"))
    assert sorted(file.name.split("_")[1] for file in files) == ["Ada", "Be", "Cid"]
    orders = [[each.trial for each in read_answers(file, key).answers] for file in files]
    assert len({tuple(order) for order in orders}) == 3
    sides = [{each.trial: each.side for each in read_answers(file, key).answers} for file in files]
    assert any(sides[0][trial] != sides[1][trial] for trial in key.shown)
    for order in orders:
        place = {trial: number for number, trial in enumerate(order)}
        assert all(place[each.again] < place[name] for name, each in key.shown.items() if each.again)
    report = add_ratings(made / "report", made / "raters-key.json", [tmp_path], overwrite=True)
    assert list(report.people["raters"]) == [read_answers(file, key).rater for file in sorted(files)]
    assert report.results["brain"]["people_two_way"]["value"] == 1


def test_it_goes_on_where_it_was_left_and_goes_back_one(made: Path, visit: Any, tmp_path: Path) -> None:
    key = Key.load(made / "raters-key.json")
    page = visit()
    begin(page, "Ada")
    for number in (1, 2, 3):
        wait_for(page, number)
        page.keyboard.press("ArrowLeft")
    wait_for(page, 4)
    page.keyboard.press("Backspace")
    wait_for(page, 3)
    page.get_by_role("button", name="Back").click()
    wait_for(page, 2)
    context = page.context
    page.close()
    page = visit(context=context)
    assert page.get_by_role("heading", name="Welcome back, Ada").is_visible()
    assert page.locator("#resume").get_by_text(f"1 of {len(key.shown)} choices are made").is_visible()
    page.get_by_role("button", name="Go on").click()
    answer_all(page, key, "keys", start=2)
    page.reload()
    assert page.get_by_role("heading", name="Done").is_visible()
    answers = read_answers(download(page, tmp_path), key)
    assert len(answers.answers) == len(key.shown)
    page.get_by_role("button", name="Somebody else answers").click()
    assert page.get_by_label("Your name or an alias").input_value() == ""
    begin(page, "Ben")
    wait_for(page, 1)
    messages = []
    page.reload()
    page.on("dialog", lambda dialog: (messages.append(dialog.message), dialog.dismiss()))
    page.get_by_role("button", name="I am somebody else").click()
    assert page.get_by_label("Your name or an alias").is_visible()
    assert not messages, "nothing had been chosen that could be lost"


def test_nobody_starts_without_a_name_and_a_double_click_is_one_choice(visit: Any) -> None:
    page = visit()
    begin(page, "   ")
    assert page.get_by_label("Your name or an alias").is_visible()
    begin(page, "Ada")
    wait_for(page, 1)
    page.locator("#left").dblclick()
    wait_for(page, 2)
    assert page.evaluate("state.answers.length") == 1


def test_answers_that_would_be_lost_are_asked_about(visit: Any) -> None:
    page = visit()
    begin(page, "Ada")
    wait_for(page, 1)
    page.keyboard.press("ArrowRight")
    wait_for(page, 2)
    page.reload()
    messages = []
    page.once("dialog", lambda dialog: (messages.append(dialog.message), dialog.dismiss()))
    page.get_by_role("button", name="I am somebody else").click()
    assert "Ada have not been downloaded" in messages[0]
    assert page.get_by_role("heading", name="Welcome back, Ada").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_it_fits_and_can_be_read(visit: Any, size: str, scheme: str, tmp_path: Path) -> None:
    shots = Path(os.environ.get("FMRI_MODELS_SHOTS", tmp_path))
    page = visit(size, scheme)
    for screen in ("start", "trial"):
        if screen == "trial":
            begin(page, "Ada")
            wait_for(page, 1)
            box = page.locator("#right").bounding_box()
            assert box["y"] + box["height"] <= SIZES[size]["height"], "a trial needs no scrolling"
        page.screenshot(path=shots / f"rater_{screen}_{size}_{scheme}.png")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        low = [(text, contrast) for text, contrast in page.evaluate(CONTRASTS) if contrast < LEAST_CONTRAST]
        assert not low
    page.evaluate("finish()")
    page.screenshot(path=shots / f"rater_end_{size}_{scheme}.png")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_keyboard_alone_goes_through(visit: Any) -> None:
    page = visit()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "rater"
    page.keyboard.type("Ada")
    page.keyboard.press("Enter")
    wait_for(page, 1)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "left"
    page.keyboard.press("Enter")
    wait_for(page, 2)
    assert page.evaluate("document.activeElement.id") == "left", "who goes by tab stays where they are"


def test_a_folder_without_its_pictures_says_so(made: Path, browser: Any, tmp_path: Path) -> None:
    shutil.copy(made / "raters" / "index.html", tmp_path / "index.html")
    page = browser.new_page()
    page.goto((tmp_path / "index.html").as_uri())
    begin(page, "Ada")
    page.wait_for_selector("#problem:not([hidden])")
    assert "unpack it first" in page.locator("#problem").inner_text()
    page.close()
