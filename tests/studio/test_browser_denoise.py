"""The Denoise tab in a browser: uploads right and wrong, noise on and off, a painted hole, from seed to seed."""

import base64
import io
import json
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from browser import Page, Server, wait_for
from PIL import Image

pytest.importorskip("gradio")
FIRST = "Noise on and off"


@pytest.fixture
def tab(page: Page) -> Page:
    page.tab("Denoise")
    return page


def pictures(page: Page, words: str) -> list[bytes]:
    """The files of the shown pictures whose alternative text begins so."""
    found = [each.get_attribute("src") for each in page.all(f"img[alt^='{words}']") if each.is_displayed()]
    return [base64.b64decode(each.partition(",")[2]) for each in found]


def pixels(file: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(file)) as image:
        return np.asarray(image.convert("RGB"))


def facts(file: bytes) -> dict:
    with Image.open(io.BytesIO(file)) as image:
        return json.loads(image.text["ddm"])


def upload(page: Page, path: Path) -> None:
    page.tab("Upload")
    (chooser,) = (each for each in page.all("#denoise-upload input[type=file]"))
    chooser.send_keys(str(path))


def saved(folder: Path, name: str, size: tuple[int, int] = (16, 16), **options: object) -> Path:
    levels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(levels).save(folder / name, **options)
    return folder / name


def test_a_picture_of_ones_own_goes_through_noise_and_back(tab: Page, tmp_path: Path):
    path = saved(tmp_path, "mine.png")
    upload(tab, path)
    tab.wait_for_text("your picture")
    assert np.array_equal(pixels(pictures(tab, "your picture")[0]), pixels(path.read_bytes())), "exact, not re-encoded"
    tab.wait_for_text("with noise, sigma 1")
    before = pictures(tab, "with noise")[0]
    tab.enter("Noise level sigma", 2.5)
    tab.wait_for_text("with noise, sigma 2.5")
    assert pictures(tab, "with noise")[0] != before, "it is shown at once"
    tab.press(tab.button("Take the noise away"))
    tab.wait_for_text("result, noise of seed 0")
    told = facts(pictures(tab, "result")[0])
    assert told["seed"] == 0 and told["edit"]["noise"] == 2.5 and len(told["edit"]["sources"]) == 1
    assert str(tmp_path) not in json.dumps(told)


def test_both_x_and_the_guess_are_seen_on_the_way_and_stop_stops(tab: Page):
    tab.press(tab.button("Make it"))
    tab.wait_for_text("the picture of seed 0")
    tab.press(tab.button("How"))
    tab.enter("Evaluations", 1999)
    tab.press(tab.button("Take the noise away"))
    tab.wait_for_text("what the model sees in it: x0")
    assert len(pictures(tab, "where it is: x")) == 1
    tab.press(tab.button("Stop"))
    step = wait_for(lambda: stands_still(tab), explain=tab.text)
    assert "of 1000" in step and "result, noise" not in tab.text()
    tab.enter("Evaluations", 5)
    tab.press(tab.button("Take the noise away"))
    tab.wait_for_text("result, noise of seed 0")


def stands_still(page: Page) -> str:
    """The line that says how far it is, once it stays the same for a second."""
    import time

    before = [each.text for each in page.all(".way") if each.is_displayed()]
    time.sleep(1)
    after = [each.text for each in page.all(".way") if each.is_displayed()]
    return after[0] if after and before == after else ""


def test_the_slider_moves_the_level_in_steps_of_its_logarithm(tab: Page):
    from selenium.webdriver.common.keys import Keys

    slider = next(each for each in tab.all(".noise-slider input[type=range]") if each.is_displayed())
    level = tab.labelled("Noise level sigma")
    slider.send_keys(Keys.ARROW_RIGHT)
    wait_for(lambda: level.get_attribute("value") == "1.02")
    slider.send_keys(Keys.HOME)
    wait_for(lambda: float(level.get_attribute("value")) < 0.03)


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("words.png", b"these are words, not a picture", "this type of file is not allowed"),
        ("cut.png", None, "it is damaged and cannot be read"),
        ("moving.gif", b"GIF89a" + bytes(100), "this type of file is not allowed"),
        ("drawing.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "this type of file is not allowed"),
    ],
)
def test_a_wrong_upload_is_told_and_the_next_one_works(
    tab: Page, tmp_path: Path, name: str, content: bytes | None, words: str
):
    good = saved(tmp_path, "good.png")
    (tmp_path / name).write_bytes(content or good.read_bytes()[:200])
    upload(tab, tmp_path / name)
    tab.wait_for_text(words)
    assert "Traceback" not in tab.text() and str(tmp_path) not in tab.text()
    upload(tab, good)
    tab.wait_for_text("your picture")


def test_a_large_photo_is_reduced_before_it_is_sent(tab: Page, tmp_path: Path):
    path = saved(tmp_path, "large.jpg", (3000, 2000), quality=95)
    assert path.stat().st_size > 2_000_000
    upload(tab, path)
    tab.wait_for_text("your picture")
    assert pixels(pictures(tab, "your picture")[0]).shape == (16, 16, 3)
    sent = tab.driver.execute_script("return document.querySelector('#denoise-upload .said').textContent")
    assert sent == "large.jpg"


def test_a_training_picture_is_named_by_its_class(tab: Page):
    tab.tab("Training picture")
    tab.enter("Number of the training picture", 3)
    tab.press(tab.button("Take it"))
    tab.wait_for_text("training picture 3, moon")
    tab.enter("Number of the training picture", 64)
    tab.press(tab.button("Take it"))
    tab.wait_for_text("number: 64 is not allowed; allowed: 0 to 63")


def mask_of(page: Page) -> str:
    return page.driver.execute_script("return document.querySelector('#denoise-mask .said').textContent")


def test_a_hole_is_painted_with_the_mouse_and_filled(tab: Page, tmp_path: Path):
    from selenium.webdriver import ActionChains

    upload(tab, saved(tmp_path, "mine.png"))
    tab.wait_for_text("your picture")
    tab.tab("Fill a hole")
    canvas = tab.one("#denoise-mask canvas")
    wait_for(lambda: canvas.get_attribute("width") == "16")
    tab.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    ActionChains(tab.driver).move_to_element(canvas).click_and_hold().move_by_offset(60, 0).release().perform()
    painted = int(mask_of(tab).split(" of ")[0])
    assert 8 <= painted <= 20 and mask_of(tab).endswith("of 256 pixels are made anew."), "a stroke, in picture pixels"
    tab.press(tab.button("How"))
    tab.press(tab.button("Fill the hole"))
    tab.wait_for_text("result, noise of seed 0")
    (source,), (result,) = pictures(tab, "your picture"), pictures(tab, "result")
    changed = int((pixels(source) != pixels(result)).any(-1).sum())
    assert painted - 2 <= changed <= painted, "the rest is kept in every pixel"
    assert facts(result)["edit"]["mask"] and facts(result)["sampler"] == "heun(churn=50)"


def test_a_hole_is_painted_with_the_keyboard(tab: Page):
    from selenium.webdriver.common.keys import Keys

    tab.press(tab.button("Make it"))
    tab.wait_for_text("the picture of seed 0")
    tab.tab("Fill a hole")
    tab.press(tab.button("Fill the hole"))
    tab.wait_for_text("mask: nothing is painted")
    canvas = tab.one("#denoise-mask canvas")
    wait_for(lambda: canvas.get_attribute("width") == "16")
    tab.tab_to(canvas)
    canvas.send_keys(Keys.HOME, Keys.ARROW_LEFT, Keys.ARROW_UP, " ")
    assert mask_of(tab).startswith("4 of 256")
    canvas.send_keys(Keys.SHIFT, Keys.ARROW_RIGHT)
    canvas.send_keys(Keys.NULL, " ")
    assert mask_of(tab).startswith("8 of 256")
    for name, count in (("Clear", 0), ("Left half", 128), ("Top half", 192), ("Invert", 64), ("Undo", 192)):
        tab.button(name).send_keys(Keys.ENTER)
        assert mask_of(tab).startswith(f"{count} of 256" if count else "Nothing is painted"), name


def test_from_seed_to_seed_makes_a_row_and_a_film(tab: Page):
    tab.enter("To seed", 5)
    tab.press(tab.button("Go from seed to seed"))
    tab.wait_for_text("There and back")
    shares = ("0%", "14%", "29%", "43%", "57%", "71%", "86%", "100%")
    files = [pictures(tab, share)[0] for share in shares]
    assert [facts(file)["edit"]["last"] for file in files] == [5] * 8
    with Image.open(io.BytesIO(pictures(tab, "film of the way")[0])) as film:
        assert film.format == "WEBP" and film.n_frames == 14
    assert facts(pictures(tab, "all pictures of the way")[0])["count"] == 8


def test_every_action_is_a_documented_endpoint(server: Server):
    with urllib.request.urlopen(f"{server.url}/gradio_api/info", timeout=20) as answer:
        found = json.load(answer)["named_endpoints"]
    names = ("upload_picture", "training_picture", "picture_of_seed", "noisy", "denoise", "inpaint", "interpolate")
    for name in (*names, "compare", "numbers", "nearest"):
        assert found[f"/{name}"]["description"], name
    assert [each["parameter_name"] for each in found["/denoise"]["parameters"]][:3] == ["model", "picture", "noise"]
    assert not any(name.startswith(("/lambda", "/begin", "/fit")) for name in found)


def test_how_noise_and_back_looks(page: Page, tmp_path: Path):
    path = saved(tmp_path, "mine.png")

    def noise(page: Page) -> None:
        page.tab("Denoise")
        upload(page, path)
        page.wait_for_text("your picture")
        page.press(page.button("Take the noise away"))
        page.wait_for_text("result, noise of seed 0")

    page.looks("denoise", noise)


def test_how_a_filled_hole_looks(page: Page):
    def hole(page: Page) -> None:
        page.tab("Denoise")
        page.press(page.button("Make it"))
        page.wait_for_text("the picture of seed 0")
        page.tab("Fill a hole")
        page.press(page.button("Middle"))
        page.press(page.button("Fill the hole"))
        page.wait_for_text("result, noise of seed 0")

    page.looks("fill-a-hole", hole)
