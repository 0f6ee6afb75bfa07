"""The Learn tab in a browser: noise and schedules, what a network is asked for, the ways of samplers."""

import pytest
from browser import Page, wait_for

pytest.importorskip("gradio")


@pytest.fixture
def tab(page: Page) -> Page:
    page.tab("Learn")
    page.wait_for_text("what is left")
    return page


def described(page: Page, words: str) -> list[str]:
    """The alternative texts of pictures and drawings with these words in them."""
    found = [each.get_attribute("alt") or each.get_attribute("aria-label") for each in page.all("img, svg[role=img]")]
    return [each for each in found if each and words in each]


def test_the_lessons_are_there_without_a_click(tab: Page):
    tab.wait_for_text("evaluations of the denoiser")
    assert described(tab, "the picture at timestep 400") and described(tab, "ways of")
    for words in ("the picture", "the noise", "in the paper", "error of the ends"):
        assert words in tab.text()


def test_the_timestep_moves_with_the_keyboard_and_both_sliders_go_along(tab: Page):
    from selenium.webdriver.common.keys import Keys

    first, second = (each for each in tab.all("input[type=range]") if "imestep" in each.accessible_name)
    first.send_keys(Keys.END)
    tab.wait_for_text("At timestep 1,000 of 1,000")
    assert described(tab, "the picture at timestep 1,000")
    wait_for(lambda: second.get_attribute("value") == "1000")
    second.send_keys(Keys.HOME)
    tab.wait_for_text("At timestep 1 of 1,000")


def test_another_schedule_changes_what_is_left(tab: Page):
    before = tab.one("img[alt^='the picture at timestep']").get_attribute("src")
    tab.choose("Schedule", "linear")
    tab.wait_for_text("the linear schedule")
    wait_for(lambda: tab.one("img[alt^='the picture at timestep']").get_attribute("src") != before)


def test_more_steps_come_nearer_to_the_exact_answer(tab: Page):
    from selenium.webdriver.common.keys import Keys

    def error() -> float:
        path = "//dt[starts-with(., 'error of the ends')]/following-sibling::dd"
        return float(tab.driver.find_element("xpath", path).text)

    tab.wait_for_text("evaluations of the denoiser")
    few = error()
    tab.choose("Sampler", "heun")
    wait_for(lambda: described(tab, "by heun"))
    slider = next(
        each
        for each in tab.all("input[type=range]")
        if each.accessible_name.endswith("for Steps") or each.accessible_name == "Steps"
    )
    slider.send_keys(Keys.END)
    wait_for(lambda: error() < few / 10)


def test_a_wrong_choice_is_told_and_the_next_one_works(tab: Page):
    from selenium.webdriver.common.keys import Keys

    tab.wait_for_text("evaluations of the denoiser")
    field = tab.labelled("Sampler")
    tab.press(field)
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys("nonsense(", Keys.ENTER)
    tab.wait_for_text("is not a choice; write name")
    tab.choose("Sampler", "heun")
    wait_for(lambda: described(tab, "by heun"))


def test_how_it_looks(page: Page):
    def seen(page: Page) -> None:
        page.tab("Learn")
        page.wait_for_text("evaluations of the denoiser")

    page.looks("learn", seen)
