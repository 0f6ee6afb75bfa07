"""The Generate tab in a browser: used to the end, stopped midway, again, more like one of them; and the whole page."""

import base64
import io
import json
import re
import time
import urllib.request

import pytest
from browser import Page, Server, wait_for
from callers import Caller
from PIL import Image

pytest.importorskip("gradio")
GO, SHOWN = "#generate-go", "#generate-shown"


def files(page: Page) -> list[bytes]:
    """The finished pictures of the gallery: each can be saved, and what is saved is what is shown."""
    found = []
    for figure in page.all(f"{SHOWN} .gallery figure"):
        links = figure.find_elements("css selector", "a[download]")
        source = figure.find_element("css selector", "img").get_attribute("src")
        if links:
            assert links[0].get_attribute("href") == source and links[0].get_attribute("download").endswith(".png")
            found.append(base64.b64decode(source.partition(",")[2]))
    return found


def facts(file: bytes) -> dict:
    with Image.open(io.BytesIO(file)) as image:
        return json.loads(image.text["ddm"])


def finished(page: Page, count: int) -> list[bytes]:
    """The pictures, once so many are there."""
    wait_for(lambda: len(files(page)) == count, explain=page.text)
    return files(page)


def step(page: Page) -> int:
    """How far the work that is seen is; 0 where none is."""
    found = page.all(f"{SHOWN} progress")
    return int(float(found[0].get_attribute("value"))) if found else 0


def stopped(page: Page) -> int:
    """The step at which the work that is seen was stopped; 0 where it was not."""
    found = re.search(r"Stopped at step (\d+) of \d+", page.one(SHOWN).text)
    return int(found[1]) if found else 0


def test_pictures_say_how_they_were_made(page: Page):
    page.enter("Seed", 7)
    started = time.monotonic()
    page.press(page.one(GO))
    told = [facts(file) for file in finished(page, 8)]
    assert time.monotonic() - started < 10
    assert [each["seed"] for each in told] == list(range(7, 15))
    assert all(each["layout"] == "picture" and each["step"] == 24 for each in told)
    assert "seed 7" in page.text()


def test_they_are_shown_without_smoothing(page: Page):
    page.press(page.one(GO))
    finished(page, 8)
    style = "return getComputedStyle(document.querySelector('.gallery img')).imageRendering"
    assert page.driver.execute_script(style) == "pixelated"


def test_the_denoising_is_seen_and_stop_stops_midway(page: Page):
    page.enter("Evaluations", 1001)
    page.press(page.one(GO))
    wait_for(lambda: step(page) > 5)
    page.press(page.one("#generate-stop"))
    wait_for(lambda: stopped(page) > 0, explain=page.text)
    time.sleep(1)
    reached = stopped(page)
    time.sleep(1)
    assert 5 < reached == stopped(page) < 501 and not files(page)
    page.enter("Evaluations", 5)
    page.press(page.one(GO))
    finished(page, 8)


def test_a_request_that_waits_says_so(page: Page, server: Server):
    long = json.dumps({"data": ["first", "", 8, 0, "heun", "", 1001, 1.0]}).encode()
    event = json.loads(Caller(server).ask("POST", "/gradio_api/call/generate", long)[1])["event_id"]
    with urllib.request.urlopen(f"{server.url}/gradio_api/call/generate/{event}") as before:
        before.readline()  # it has begun
        page.press(page.one(GO))
        look = "return getComputedStyle(document.querySelector(arguments[0]), '::before')"
        waiting = f"{SHOWN} .html-container"
        wait_for(lambda: page.driver.execute_script(f"{look}.height", waiting) == "28px")
        assert page.driver.execute_script(f"{look}.content", waiting) == '"Waiting for its turn"'
        assert not files(page) and not step(page)
    finished(page, 8)
    assert page.driver.execute_script(f"{look}.content", waiting) == "none"


def test_again_makes_the_same_files(page: Page):
    page.press(page.one(GO))
    before = finished(page, 8)
    page.press(page.one("#again-go"))
    page.wait_for_text("The same again, equal in every pixel.")
    assert files(page) == before


def test_more_like_one_of_them(page: Page):
    page.enter("Seed", 20)
    page.press(page.one(GO))
    finished(page, 8)
    page.press(page.all(f"{SHOWN} button[data-seed='22']")[0])
    page.wait_for_text("of the way to seed")
    told = [facts(file) for file in finished(page, 8)]
    assert {each["seed"] for each in told} == {22} or "seed 22" in page.text()


def test_a_wrong_request_is_told_and_the_next_one_works(page: Page):
    page.enter("Evaluations", 100_000)
    page.press(page.one(GO))
    page.wait_for_text("evaluations: 100000 is not allowed")
    assert "Traceback" not in page.text()
    page.enter("Evaluations", 5)
    page.press(page.one(GO))
    finished(page, 8)


def test_it_is_used_with_the_keyboard_alone(page: Page):
    from selenium.webdriver.common.keys import Keys

    page.tab_to(page.one(GO))
    ring = (
        "const s = getComputedStyle(document.activeElement); return s.outlineStyle !== 'none' || s.boxShadow !== 'none'"
    )
    assert page.driver.execute_script(ring), "what has the keyboard is to be seen"
    page.focused().send_keys(Keys.ENTER)
    finished(page, 8)


def test_every_tab_opens(page: Page):
    assert page.tabs()[:5] == ["Generate", "Denoise", "Watch", "Compare", "Learn"]
    for name in ("Denoise", "Watch", "Compare", "Learn", "Generate"):
        page.tab(name)
        assert page.complaints() == [], name


def test_tabs_are_reached_with_the_arrow_keys_or_the_tabulator(page: Page):
    from selenium.webdriver.common.keys import Keys

    learn = next(each for each in page.all("[role=tab]") if each.text == "Learn" and each.is_displayed())
    page.tab_to(learn)
    page.focused().send_keys(Keys.ENTER)
    page.wait_for_text("Noise takes a picture away")


def test_the_page_is_named_and_in_a_language(page: Page):
    assert page.driver.title
    assert page.driver.execute_script("return document.documentElement.lang")
    assert len([each for each in page.all("h1") if each.is_displayed()]) == 1


def test_the_page_is_there_soon(server: Server):
    assert server.seconds < 30, "10 s on two idle cores; other tests run beside this one"


def test_nothing_but_the_page_answers(server: Server):
    for path in ("/gradio_api/upload", "/docs", "/openapi.json", "/monitoring", "/gradio_api/file=/etc/passwd"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(server.url + path, timeout=10)


def test_how_it_looks(page: Page):
    def made(page: Page) -> None:
        page.press(page.one(GO))
        finished(page, 8)

    page.looks("generate", made)
