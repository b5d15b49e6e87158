"""The Space as visitors see it, in Chromium: a wide screen and a phone, light and dark, with the keyboard alone."""

import re
import zipfile

import pandas as pd
import pytest

from tests.conftest import ROOT
from tests.space.server import CHROMIUM, in_a_browser

pytestmark = in_a_browser
EXAMPLES = ROOT / "spaces_app/examples"
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def visit(browser, space):
    """Open the page at a size; at the end no request may have gone elsewhere, and no script have failed."""
    pages, outside, failures = [], [], []

    def opened(size=WIDE, dark=False):
        page = browser.new_page(viewport=size, reduced_motion="reduce")
        page.set_default_timeout(300_000)  # milliseconds
        page.on(
            "request",
            lambda sent: outside.append(sent.url) if not sent.url.startswith((space, "data:", "blob:")) else None,
        )
        page.on("pageerror", lambda error: failures.append(str(error)))
        page.goto(space + ("?__theme=dark" if dark else ""))
        page.wait_for_selector("#picture")
        pages.append(page)
        return page

    yield opened
    for page in pages:
        page.close()
    assert not outside
    assert not failures


def answered(page):
    page.wait_for_selector("#result .answers table")
    page.wait_for_selector("#alike img")
    return page.locator("#result .answers")


@pytest.mark.parametrize(
    ("size", "dark"),
    [
        pytest.param(WIDE, False, id="wide and light"),
        pytest.param(PHONE, True, id="phone and dark"),
        pytest.param(WIDE, True, id="wide and dark", marks=pytest.mark.nightly),
        pytest.param(PHONE, False, id="phone and light", marks=pytest.mark.nightly),
    ],
)
def test_an_example_is_answered(visit, size, dark):
    page = visit(size, dark)
    page.get_by_role("button", name="Four arms").click()
    assert "featured, not edge-on" in answered(page).inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]  # nothing is cut off at the side
    result = page.locator("#result .likely").bounding_box()
    assert 0 <= result["y"] < size["height"]  # and it is on the screen


def test_a_file_is_answered_and_two_models_stand_side_by_side(visit):
    page = visit()
    page.set_input_files("#picture input[type=file]", EXAMPLES / "edge_on.jpg")
    answered(page)
    page.get_by_role("button", name="Model, campaign and frame").click()
    page.get_by_label("Compare with").click()
    page.get_by_role("option", name=re.compile("mobilenet")).click()
    page.wait_for_function("document.querySelectorAll('#result .answers').length == 2")
    left, right = (page.locator("#result .answers").nth(i).bounding_box() for i in (0, 1))
    assert left["y"] == pytest.approx(right["y"], abs=2)
    assert left["x"] + left["width"] <= right["x"]
    page.get_by_label("Campaign", exact=True).click()
    page.get_by_role("option", name=re.compile("Webb")).click()
    page.wait_for_function("document.querySelector('#result').innerText.includes('Merging')")


def test_a_wrong_file_gets_a_kind_sentence_and_the_next_picture_is_answered(visit, tmp_path):
    (tmp_path / "page.png").write_text("<html><script>alert(1)</script></html>")
    page = visit()
    page.set_input_files("#picture input[type=file]", tmp_path / "page.png")
    warning = page.locator("#result [role=alert]")
    warning.wait_for()
    assert "No answer" in warning.inner_text()
    page.get_by_role("button", name="Smooth").click()
    assert "Most likely: smooth" in answered(page).inner_text()


def test_the_keyboard_is_enough(visit):
    page = visit()
    page.get_by_role("button", name="Star").focus()
    page.keyboard.press("Enter")
    answered(page)
    page.get_by_role("tab", name="Several pictures").focus()
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Classify all").wait_for()
    assert page.locator("#files").is_visible()


def test_everything_has_a_name_for_screen_readers(visit):
    page = visit()
    page.get_by_role("button", name="Merger").click()
    answered(page)
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("button, input:not([type=file]), select, textarea, img")]
            .filter(each => each.checkVisibility({visibilityProperty: true}))
            .filter(each => !(each.innerText || each.alt || each.ariaLabel || each.title || each.labels?.length
                || each.getAttribute("aria-labelledby") || each.closest("button, label")?.innerText))
            .map(each => each.outerHTML.slice(0, 200))"""
    )
    assert not unnamed
    assert page.locator("#result [aria-live=polite]").count() == 1


def test_words_can_be_read_in_light_and_dark(visit):
    """WCAG AA: 4.5 to 1 for all words that are shown, 3 to 1 for large ones."""
    for dark in (False, True):
        page = visit(dark=dark)
        page.get_by_role("button", name="Star").click()
        answered(page)
        low = page.evaluate(CONTRAST)
        assert not low, low


CONTRAST = """() => {
    const channels = text => text.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => [r, g, b].map(c => c / 255).map(c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    const behind = element => {
        for (let each = element; each; each = each.parentElement) {
            const found = channels(getComputedStyle(each).backgroundColor);
            if (found.length == 3 || found[3] > 0.99) return found;
        }
        return [255, 255, 255];
    };
    return [...document.querySelectorAll("main *, gradio-app *")].filter(each => each.checkVisibility({visibilityProperty: true, opacityProperty: true}))
        .filter(each => [...each.childNodes].some(node => node.nodeType == 3 && node.textContent.trim()))
        .map(each => {
            const style = getComputedStyle(each), size = parseFloat(style.fontSize);
            const [a, b] = [light(channels(style.color)), light(behind(each))].sort((x, y) => y - x);
            const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
            return {ratio: (a + 0.05) / (b + 0.05), needed: large ? 3 : 4.5, words: each.textContent.trim().slice(0, 60), color: style.color};
        })
        .filter(each => each.ratio < each.needed);
}"""


def go_to(page, name):
    """A tab, also where it does not fit into the row and stands in a menu."""
    tab = page.get_by_role("tab", name=name).locator("visible=true")
    if tab.count():
        tab.first.click()
    else:
        page.get_by_role("button", name="More tabs").click()
        page.locator(".overflow-dropdown").get_by_text(name).click()


# Words of charts that reach beyond their chart, and choices that run below the arrow of their menu without an ellipsis.
CUT_OFF = """() => [
    ...[...document.querySelectorAll("svg text")].filter(each => {
        const words = each.getBoundingClientRect(), chart = each.closest("svg").getBoundingClientRect();
        return words.width && (words.left < chart.left - 1 || words.right > chart.right + 1);
    }).map(each => each.textContent),
    ...[...document.querySelectorAll("input[role=combobox]")].filter(each => getComputedStyle(each).textOverflow != "ellipsis")
        .map(each => each.value),
]"""


@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_every_tab_fits(visit, size):
    page = visit(size)
    for name, there in (
        ("Several pictures", "#files"),
        ("Scaling laws", "#laws-curves svg:visible"),
        ("About", "#about"),
    ):
        go_to(page, name)
        page.locator(there).first.wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], name
        assert not page.evaluate(CUT_OFF), name


def test_several_pictures_become_a_table_to_download(visit, tmp_path):
    with zipfile.ZipFile(tmp_path / "night.zip", "w") as archive:
        archive.write(EXAMPLES / "smooth.jpg", "night/first.jpg")
        archive.writestr("night/notes.txt", "cloudy")
    page = visit()
    go_to(page, "Several pictures")
    page.set_input_files("#files input[type=file]", tmp_path / "night.zip")
    page.locator("#files").get_by_text("night").wait_for()
    page.get_by_role("button", name="Classify all").click()
    page.get_by_text("1 pictures classified, 1 rejected").wait_for()
    with page.expect_download() as kept:
        page.get_by_role("button", name="Table as CSV").click()
    table = pd.read_csv(kept.value.path())
    assert table["name"].tolist() == ["first.jpg", "notes.txt"]
    assert table["smooth-or-featured-gz2_smooth_fraction"].notna().tolist() == [True, False]
