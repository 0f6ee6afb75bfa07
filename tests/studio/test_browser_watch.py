"""The Watch tab in a browser: a run that is done, its film, and a log that grows while the page is open."""

import json

import pytest
from browser import Page, Server, wait_for

from ddm.runs import log

pytest.importorskip("gradio")


@pytest.fixture
def tab(page: Page) -> Page:
    page.tab("Watch")
    wait_for(lambda: page.all("img[alt^='pictures of the model at step']"))
    page.choose("Run", "first")
    page.wait_for_text("24")
    return page


def curves(page: Page) -> str:
    return " ".join(each.get_attribute("aria-label") or "" for each in page.all("svg[role=img]") if each.is_displayed())


def test_loss_film_and_numbers_are_there(tab: Page):
    wait_for(lambda: "Training loss from step" in curves(tab))
    assert tab.one("img[alt='pictures of the model at step 24']")
    assert "20" in tab.one("[aria-label='Newest measurements']").text


def test_the_film_is_turned_with_the_keyboard(tab: Page):
    from selenium.webdriver.common.keys import Keys

    tab.one("img[alt='pictures of the model at step 24']")
    slider = next(each for each in tab.all("input[type=range]") if "Picture of the film" in each.accessible_name)
    slider.send_keys(Keys.HOME)
    tab.one("img[alt='pictures of the model at step 8']")
    slider.send_keys(Keys.END)
    tab.one("img[alt='pictures of the model at step 24']")


def test_the_page_follows_the_folder(tab: Page, server: Server):
    wait_for(lambda: "12 records" in curves(tab), explain=lambda: curves(tab))
    metrics = server.runs[0] / "metrics.jsonl"
    before = metrics.read_text()
    last = json.loads(before.splitlines()[-1])
    try:
        log.append(metrics, {**last, "step": 30, "loss": 0.5})
        wait_for(lambda: "13 records" in curves(tab), explain=lambda: curves(tab))
    finally:
        metrics.write_text(before)


def test_another_run_is_another_page(tab: Page):
    tab.choose("Run", "second")
    wait_for(lambda: "21" in tab.one("[aria-label='Newest measurements']").text)


def test_how_it_looks(page: Page):
    def seen(page: Page) -> None:
        page.tab("Watch")
        wait_for(lambda: "Training loss from step" in curves(page))
        wait_for(lambda: page.all("img[alt^='pictures of the model at step']"))

    page.looks("watch", seen)
