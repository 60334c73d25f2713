"""report.html as people see it: as wide as a screen and a phone, light and dark, with everything that a report has."""

from dataclasses import replace

import pytest
import torch
from pydantic import BaseModel

from fmri_models.evaluation import Report, RowData, score_rows, write_report
from fmri_models.evaluation.audit import PARTS, AuditPart
from fmri_models.evaluation.table import Table
from tests.browsers import DESKTOP, PHONE, browser_executable
from tests.evaluation.test_attention import some_attention
from tests.evaluation.toy_report import PROTOCOL, Classifier, TinyExtractor, smooth_pictures

COUNT, SUBJECTS = 15, 3
# A4 upright, at 96 dots an inch.
PAPER = {"width": 794, "height": 1123}
LONG = "an_id_that_never_ends_" * 5
ROWS = (
    "brain", "brain_low_level", "brain_embeds_only", "shuffled_brain", "permuted_training", "permuted_training_own",
    "mean_image", "nearest_train", "floor", "ceiling", "ceiling_embeds_only", "ridge", "noise_free", "background",
)  # fmt: skip
# Contrast of each text that is seen with what lies behind it, by WCAG.
POOR_CONTRAST = """() => {
  const channel = value => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const parsed = text => (text.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const behind = element => {
    for (; element; element = element.parentElement) {
      const colour = parsed(getComputedStyle(element).backgroundColor);
      if (colour.length < 4 || colour[3] > 0.9) return colour;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const element of document.body.querySelectorAll("*")) {
    const said = [...element.childNodes].filter(node => node.nodeType == 3).map(node => node.data.trim()).join("");
    if (!said || !element.getClientRects().length) continue;
    const style = getComputedStyle(element), is_svg = element instanceof SVGElement;
    const one = light(parsed(is_svg ? style.fill : style.color)), other = light(behind(element));
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (ratio < 4.5) poor.push(`${said.slice(0, 40)}: ${ratio.toFixed(2)}`);
  }
  return poor;
}"""
SIDEWAYS = "() => document.documentElement.scrollWidth - window.innerWidth"
OPEN_FOLDS = "() => document.querySelectorAll('details.fold').forEach(each => { each.open = true; })"


class Content(BaseModel):
    """Of the part below."""

    scores: list[float]


def draw(content, axes):
    axes.plot(content["scores"], label="score over overlap")
    axes.set_xlabel("distance to the nearest training picture")
    axes.legend()


PART = AuditPart(
    "toy",
    "toy",
    "Is it a toy?",
    measure=lambda of: None,
    content=lambda items: {"scores": [1.0]},
    tables=lambda content: [
        Table("Toy part", "What a part says.", ["metric", *(f"bin {n}" for n in range(25))], [["m"] + ["0.5"] * 25]),
        Table("Second table", "Of text.", ["what", "said"], [[LONG, "a sentence that goes on and on " * 9]]),
    ],
    notes=lambda content: [],
    schema=Content,
    plot=draw,
)


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    """A report with all that can be in one: 14 rows, three subjects, long ids, an audit, attention, looks and more."""
    folder = tmp_path_factory.mktemp("report")
    truth = smooth_pictures(COUNT, size=64).repeat(SUBJECTS, 1, 1, 1)
    rows = {}
    for number, name in enumerate(ROWS):
        noise = torch.rand(truth.shape, generator=torch.Generator().manual_seed(number))
        embeds = torch.randn(len(truth), 12, generator=torch.Generator().manual_seed(number))
        rows[name] = RowData(0.5 * truth + 0.5 * noise, embeds)
    scores = score_rows(
        rows,
        truth,
        [f"{LONG}{number:02d}" for number in range(COUNT)] * SUBJECTS,
        PROTOCOL,
        subjects=[f"{LONG}subj{number:02d}" for number in range(SUBJECTS) for _ in range(COUNT)],
        gallery_embeds=torch.randn(COUNT, 12).repeat(SUBJECTS, 1),
        backgrounds=["a", "b", "c"] * (SUBJECTS * COUNT // 3),
        factors=[{"kind": "bright" if picture.mean() > 0.5 else "dark"} for picture in truth],
        factor_classifier=Classifier(),
        extractors={"tiny": TinyExtractor()},
        permutations=30,
    )
    look = {"time": "2026-11-28T10:00:00+00:00", "split": LONG, "commit": "c" * 40, "config": {"model": LONG * 2}}
    report = Report.from_scores(
        scores,
        PROTOCOL,
        data={"name": LONG, "simulated": False, "mean_noise_ceiling": 0.3},
        model={"path": LONG, "method": "toy", "settings": {"strength": 0.8}},
        timing={"total_s": 4000},
        looks=[{**look, "score": dict.fromkeys(("pixcorr", "mse", "ssim", "two_way_tiny"), 0.5)}],
        draws=100,
    )
    curve = [{"stage": "low_level", "step": n, "train_loss": 9 / n, "validation_loss": 10 / n} for n in range(1, 20)]
    report = replace(
        report,
        audit={"toy": {"scores": [0.9, 0.7, 0.6]}},
        attention={"subj01": some_attention([f"ROI{number}" for number in range(12)], layers=6)},
        training_curve={"0": curve},
        missing_rows={"reference": "Nobody gave one."},
        near_copies={"pairs": [{"fold": 0, "stimulus": LONG, "copy_of": LONG, "correlation": 0.999}], "copied": 1},
        warnings=[f"{LONG} was learned from."],
        notes=[*report.notes, LONG * 8],
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PARTS, "toy", PART)
        write_report(folder, report, scores, rows, truth)
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser():
    executable = browser_executable()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, page_file):
    contexts = []

    def open_page(viewport, scheme):
        contexts.append(browser.new_context(viewport=viewport, color_scheme=scheme))
        page = contexts[-1].new_page()
        page.asked = []
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(page_file.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_nothing_overflows_and_all_text_can_be_read(opened, viewport, scheme):
    page = opened(viewport, scheme)
    assert page.locator(".leading tbody tr").count() == 10 and page.locator("svg.plot").count() >= 4
    assert page.evaluate(SIDEWAYS) <= 0
    assert page.evaluate(POOR_CONTRAST) == []
    page.evaluate(OPEN_FOLDS)
    assert page.evaluate(SIDEWAYS) <= 0
    assert page.evaluate(POOR_CONTRAST) == []
    background = page.evaluate("() => getComputedStyle(document.documentElement).backgroundColor")
    assert (background == "rgb(255, 255, 255)") == (scheme == "light")


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_values_of_brain_ridge_control_and_ceiling_are_in_sight(opened, viewport):
    page = opened(viewport, "light")
    for kind in ("brain", "ridge", "control", "ceiling"):
        for figure in page.locator(f".leading td.{kind} .figure b").all():
            box = figure.bounding_box()
            assert box["width"] > 0 and box["x"] >= 0 and box["x"] + box["width"] <= viewport["width"]
    labels = page.locator(".leading td.brain").first.evaluate("it => getComputedStyle(it, '::before').content")
    assert ("from brain" in labels) == (viewport is PHONE)


def test_the_first_column_stays_where_a_wide_table_is_scrolled(opened):
    page = opened(PHONE, "light")
    page.evaluate(OPEN_FOLDS)
    table = page.locator(".scroll", has=page.get_by_role("columnheader", name="noise-free")).first
    before = table.locator("tbody th").first.bounding_box()["x"]
    table.evaluate("it => { it.scrollLeft = 400; }")
    assert table.evaluate("it => it.scrollLeft") == 400
    assert table.locator("tbody th").first.bounding_box()["x"] == pytest.approx(before, abs=1)


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_a_picture_opens_by_click_and_by_key(opened, viewport):
    page = opened(viewport, "dark")
    tile = page.locator("details.tile").nth(1)
    small = tile.locator("img").bounding_box()
    tile.locator("summary").click()
    large = tile.locator("img").bounding_box()
    assert large["width"] > 2.5 * small["width"] and large["x"] >= 0
    assert large["x"] + large["width"] <= viewport["width"] and large["y"] + large["height"] <= viewport["height"]
    assert "from brain" in tile.locator(".large").inner_text()
    assert page.evaluate(SIDEWAYS) <= 0
    tile.locator("summary").press("Enter")
    again = tile.locator("img").bounding_box()
    assert (again["x"], again["width"], again["height"]) == pytest.approx((small["x"], small["width"], small["height"]))
    # The next one closes the one before.
    tile.locator("summary").press("Enter")
    page.locator("details.tile").nth(2).evaluate("it => { it.open = true; }")
    assert page.locator("details.tile[open]").count() == 1
    assert page.locator("img:not([alt])").count() == 0
    assert page.locator("svg.plot:not([aria-label])").count() == 0


def test_the_page_has_no_script_and_asks_for_nothing(opened, page_file):
    page = opened(DESKTOP, "light")
    assert page.locator("script, link, iframe").count() == 0
    assert all(url == page_file.as_uri() or url.startswith("data:") for url in page.asked)
    targets = page.locator("nav a").evaluate_all("all => all.map(each => each.getAttribute('href'))")
    assert targets and all(page.locator(target).count() == 1 for target in targets)
    ids = page.locator("[id]").evaluate_all("all => all.map(each => each.id)")
    assert len(ids) == len(set(ids))


def test_paper_is_white_and_shows_what_is_folded(opened):
    page = opened(DESKTOP, "dark")
    page.emulate_media(media="print", color_scheme="dark")
    page.set_viewport_size(PAPER)
    assert page.evaluate(SIDEWAYS) <= 0
    assert page.get_by_role("columnheader", name="noise-free").first.is_visible()
    assert page.evaluate("() => getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate(POOR_CONTRAST) == []
