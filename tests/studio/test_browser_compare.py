"""The Compare tab in a browser: two models at the same seeds, their numbers, the nearest training pictures."""

import base64
import io
import json

import pytest
from browser import Page, wait_for
from PIL import Image

pytest.importorskip("gradio")


@pytest.fixture
def tab(page: Page) -> Page:
    page.tab("Compare")
    return page


def files(page: Page, alt: str) -> list[bytes]:
    found = [each.get_attribute("src") for each in page.all(f"img[alt='{alt}']") if each.is_displayed()]
    return [base64.b64decode(each.partition(",")[2]) for each in found]


def test_two_models_are_shown_at_the_same_seeds(tab: Page):
    tab.enter("First seed", 3)
    tab.press(tab.button("Make them side by side"))
    wait_for(lambda: len(files(tab, "seed 10")) == 2)
    names = [each.text for each in tab.all(".blocks h4")]
    assert names == ["first", "second"]
    left, right = files(tab, "seed 3")
    told = []
    for file in (left, right):
        with Image.open(io.BytesIO(file)) as image:
            told.append(json.loads(image.text["ddm"]))
    assert told[0]["seed"] == told[1]["seed"] == 3
    assert told[0]["checkpoint_sha256"] != told[1]["checkpoint_sha256"] and left != right


def test_the_numbers_are_a_table_with_published_ones_marked(tab: Page):
    tab.press(tab.button("Show the numbers"))
    tab.wait_for_text("first, step 24")
    heads = [each.text for each in tab.all(".numbers thead th")]
    assert heads[:2] == ["source", "FID ↓"]
    rows = [[cell.text for cell in row.find_elements("css selector", "th, td")] for row in tab.all(".numbers tbody tr")]
    assert rows[0][:2] == ["first, step 24", "20.00 [19.50, 20.50]"] or rows[0][1].startswith("20")
    published = tab.all(".numbers tbody.published tr")
    assert len(published) > 10 and all("published, other protocol" in each.text for each in published)


def test_the_nearest_training_pictures_of_a_sample(tab: Page):
    tab.enter("Seed of the sample", 4)
    tab.press(tab.button("Find the nearest"))
    tab.wait_for_text("Compared in pixels")
    assert len([each for each in tab.all("img[alt^='training picture']") if each.is_displayed()]) == 3


def test_no_model_is_told(tab: Page):
    for name in ("first", "second"):
        tab.press(tab.labelled(name))
    tab.press(tab.button("Make them side by side"))
    tab.wait_for_text("models: none is named")


def test_stop_stops_and_the_next_request_works(tab: Page):
    tab.press(tab.button("How"))
    tab.enter("Evaluations", 999)
    tab.press(tab.button("Make them side by side"))
    tab.wait_for_text("of 500")
    tab.press(tab.button("Stop"))
    tab.enter("Evaluations", 3)
    tab.press(tab.button("Make them side by side"))
    tab.wait_for_text("seed 7")


def test_how_it_looks(page: Page):
    def seen(page: Page) -> None:
        page.tab("Compare")
        page.press(page.button("Make them side by side"))
        page.wait_for_text("seed 7")
        page.press(page.button("Show the numbers"))
        page.wait_for_text("first, step 24")
        page.press(page.button("Find the nearest"))
        page.wait_for_text("Compared in pixels")

    page.looks("compare", seen)
