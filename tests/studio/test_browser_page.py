"""The page as a whole in a browser: every tab at two widths in two themes, what it asks for, and a run just begun."""

import shutil
from pathlib import Path

import pytest
from browser import THEMES, WIDTHS, Page, screenshots, serve, wait_for

pytest.importorskip("gradio")

TABS = ("Generate", "Denoise", "Watch", "Compare", "Learn")
PARTS = {"Denoise": ("upload", "training", "seed", "hole")}
"""Tabs within tabs, all of which are opened once."""

UNNAMED = """
const shown = (each) => each.checkVisibility({opacityProperty: true, visibilityProperty: true});
const name = (each) => [each.getAttribute("aria-label"), each.title, ...[...(each.labels || [])].map((l) => l.innerText),
  ...(each.getAttribute("aria-labelledby") || "").split(" ").map((id) => document.getElementById(id)?.innerText)];
return [...document.querySelectorAll("input:not([type=hidden]), textarea, select")].filter(shown)
  .filter((each) => !name(each).some((words) => words && words.trim())).map((each) => each.outerHTML.slice(0, 200));
"""
"""Inputs without a label; a placeholder is none."""

ELSEWHERE = """
const here = (address) => /^(data:|blob:|about:)/.test(address) || new URL(address).origin === location.origin;
const loaded = performance.getEntriesByType("resource").map((each) => each.name);
const named = [...document.querySelectorAll("link[href], script[src], img[src], iframe, object, embed, source[src]")]
  .map((each) => each.src || each.href || each.data).filter((each) => typeof each === "string" && each);
const styles = [...document.styleSheets].flatMap((sheet) => [...sheet.cssRules]).map((rule) => rule.cssText)
  .flatMap((text) => [...text.matchAll(/url\\(["']?([^"')]+)/g)]).map((each) => new URL(each[1], location.href).href);
return [...loaded, ...named, ...styles].filter((address) => !here(address));
"""
"""What the page loaded, or would load, from other addresses."""


FAINT = """
const numbers = (text) => text.match(/[\\d.]+/g).map(Number).map((each, place) =>
  text.startsWith("color(srgb") && place < 3 ? 255 * each : each);
const on = (above, below) => [0, 1, 2].map((i) => above[i] * (above[3] ?? 1) + below[i] * (1 - (above[3] ?? 1)));
const ground = (each) => each ? on(numbers(getComputedStyle(each).backgroundColor), ground(each.parentElement))
  : [255, 255, 255];
const light = (colour) => colour.map((each) => each / 255)
  .map((each) => each <= .04045 ? each / 12.92 : ((each + .055) / 1.055) ** 2.4)
  .reduce((sum, each, place) => sum + each * [.2126, .7152, .0722][place], 0);
const ratio = (each) => {
  const below = ground(each), both = [light(below), light(on(numbers(getComputedStyle(each).color), below))];
  return (Math.max(...both) + .05) / (Math.min(...both) + .05);
};
const words = (each) => [...each.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
return [...document.querySelectorAll("body *")].filter((each) => words(each) && !each.closest("svg, style, script"))
  .filter((each) => each.checkVisibility({opacityProperty: true, visibilityProperty: true}))
  .filter((each) => ratio(each) < 4.5).map((each) => `${ratio(each).toFixed(2)} ${each.outerHTML.slice(0, 200)}`);
"""
"""Words that are hard to read: of a contrast below 4.5 (WCAG 2.2, 1.4.3)."""


def unfold(page: Page, name: str) -> None:
    """Open a tab with everything on it that is folded away."""
    page.tab(name)
    for part in PARTS.get(name, ()):
        page.press(page.one(f"[role=tab][data-tab-id={part}]"))
    for fold in [each for each in page.all("button.label-wrap:not(.open)") if each.is_displayed()]:
        page.press(fold)
    page.settle(0.2)


def problems(page: Page) -> dict[str, list[str]]:
    """What is wrong with what is to be seen."""
    found = {
        "too wide": page.too_wide(),
        "no name": page.nameless() + page.driver.execute_script(UNNAMED),
        "faint": page.driver.execute_script(FAINT),
        "elsewhere": page.driver.execute_script(ELSEWHERE),
        "complaints": page.complaints(),
    }
    return {what: each for what, each in found.items() if each}


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_every_tab_fits_has_names_on_everything_and_asks_this_machine_alone(page: Page, width: int, theme: str):
    """From tab to tab without loading the page anew, as people go, with what is folded away unfolded."""
    page.open(width=width, theme=theme)
    for name in TABS:
        unfold(page, name)
        assert problems(page) == {}, name


@pytest.mark.parametrize(
    "markup, what",
    [
        ("<p style='width: 500px; margin: 0'>wide</p>", "too wide"),
        ("<textarea placeholder='no label'></textarea>", "no name"),
        ("<button></button>", "no name"),
        ("<p style='color: #888; background: #fff; margin: 0'>grey</p>", "faint"),
        ("<link href='https://example.org/font.woff'>", "elsewhere"),
        ("<style>p { background: url(//example.org/x.png) }</style>", "elsewhere"),
        ("<img alt='x' src='http://example.org/x.png'>", "complaints"),
    ],
)
def test_what_is_wrong_would_be_seen(page: Page, markup: str, what: str):
    page.open(width=390)
    page.driver.execute_script("document.body.insertAdjacentHTML('beforeend', arguments[0])", markup)
    wait_for(lambda: what in problems(page), 5)
    page.complaints()


@pytest.mark.parametrize("width", WIDTHS)
def test_every_tab_is_opened_with_the_keyboard_alone(page: Page, width: int):
    """On a narrow page the last ones are in a menu behind the others, which is a button with a name."""
    from selenium.webdriver.common.keys import Keys

    page.open(width=width)
    for name in (*TABS[1:], TABS[0]):
        page.driver.execute_script("document.activeElement.blur()")
        seen = [each for each in page.all("[role=tab]") if each.text == name and each.is_displayed()]
        if not seen:
            menu = page.one(".overflow-menu > button")
            assert menu.accessible_name
            page.tab_to(menu)
            page.focused().send_keys(Keys.ENTER)
            path = f"//*[contains(@class, 'overflow-dropdown')]//button[normalize-space()='{name}']"
            seen = wait_for(lambda path=path: page.driver.find_elements("xpath", path))
        page.tab_to(seen[0])
        page.focused().send_keys(Keys.ENTER)
        wait_for(lambda name=name: selected(page) == name, explain=lambda: selected(page))


def selected(page: Page) -> str:
    """The name of the open tab."""
    return next(
        each.get_attribute("textContent").strip()
        for each in page.all("[role=tab][aria-selected=true]")
        if each.get_attribute("textContent").strip() in TABS
    )


def test_a_run_just_begun_is_watched_and_used_once_it_has_a_checkpoint(
    page: Page, runs: list[Path], tmp_path: Path, private_cache: None
):
    begun = tmp_path / "begun"
    begun.mkdir()
    page.leave()
    page.complaints()  # the address from here on is another
    shutil.copy(runs[0] / "config.yaml", begun)
    with serve([begun], tmp_path) as server:
        found = Page(page.driver, server.url, screenshots() or tmp_path).open()
        found.wait_for_text("No model has a checkpoint yet. The Watch tab shows how far the training is")
        found.press(found.one("#generate-go"))
        found.wait_for_text("'begun' has no checkpoint yet; the Watch tab shows how far its training is")
        found.tab("Denoise")
        found.wait_for_text("has no checkpoint yet; the Watch tab shows how far its training is")
        found.tab("Compare")
        found.wait_for_text("Without a sound checkpoint: begun")
        found.tab("Watch")
        found.wait_for_text("It has begun")
        found.shot("begun-watch")
        found.tab("Learn")
        found.wait_for_text("evaluations of the denoiser")
        shutil.copytree(runs[0] / "checkpoints", begun / "checkpoints")
        found.open()
        found.wait_for_text("Press Make pictures")
        found.press(found.one("#generate-go"))
        found.wait_for_text("8 pictures in")
        found.tab("Denoise")
        found.wait_for_text("the picture of seed 0")
        found.tab("Compare")
        wait_for(lambda: "Without a sound checkpoint" not in found.text())
        found.press(found.button("Make them side by side"))
        found.wait_for_text("seed 7")
        assert found.complaints() == []
        found.leave()
        found.complaints()
