"""The studio as people meet it: a process of its own, and a browser that looks at its page."""

import base64
import functools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from ddm.commands.console import Console
from ddm.metrics import Measurement
from ddm.metrics.protocols import Protocol
from ddm.runs import log
from ddm.runs.config import override
from ddm.runs.recipes import recipes

WIDTHS = {390: 844, 1440: 900}
"""Of a phone and of a desk, with their heights."""

THEMES = ("light", "dark")

CHANGES = {
    "data": "shapes(count=64)",
    "objective": "edm",
    "weighting": "edm_lambda",
    "conditional": True,
    "image_size": 16,
    "network": "residual_unet(width=8, mults=(1, 2), blocks=1)",
    "train.batch": 8,
    "train.steps": 24,
    "train.lr": 0.003,
    "train.warmup": 0,
    "every.log": 2,
    "every.sample": 8,
    "every.save": 24,
    "sample.count": 4,
    "sample.sampler": "heun",
    "sample.steps": 8,
    "sample.guidance": 1.0,
}

PROTOCOL = Protocol("shapes(count=64)", "abc", 64, 1000, 0, "inception", "def", "none", "16x16x3")
"""Of the made-up numbers."""

NAMED = {
    "button",
    "checkbox",
    "combobox",
    "link",
    "listbox",
    "radio",
    "slider",
    "spinbutton",
    "tab",
    "textbox",
    "image",
}
"""What has to have a name for those who do not see it."""

STOPPED = 20
"""Seconds in which a page has to do what it is asked for here."""

STUDIO = [sys.executable, "-c", "import sys; from ddm.cli import main; sys.exit(main())", "studio"]
"""The command, as it was installed for this Python."""

Found = TypeVar("Found")


def missing() -> str | None:
    """Why there is no browser; None where there is one."""
    for name in ("chromium", "chromedriver"):
        if shutil.which(name) is None:
            return f"{name} is not there; make browser installs it"
    try:
        import gradio  # noqa: F401
        import selenium  # noqa: F401
    except ImportError as error:
        return f"{error.name} is not installed"
    return None


def need_browser() -> None:
    """Skip where there is no browser, and fail where there has to be one."""
    reason = missing()
    if reason and os.environ.get("DDM_REQUIRE_BROWSER") == "1":
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)


def train_tiny(path: Path, **changes: object) -> Path:
    """A run of a few seconds, with curves, samples and a number on record."""
    from ddm.commands.training import train

    settings = override(
        recipes["shapes"](), CHANGES | {name.replace("__", "."): each for name, each in changes.items()}
    )
    train(settings, path, device="cpu", fresh=False, console=Console(quiet=True))
    return path


def put_on_record(run: Path, value: float, *, metric: str = "fid", label: str = "FID", **protocol: object) -> None:
    """A made-up number, as ``ddm evaluate`` writes one: the page shows what is on record and measures nothing."""
    measured = replace(PROTOCOL, **protocol)
    number = Measurement(value, value - 0.5, value + 0.5, better="lower")
    record = {
        **asdict(number),
        "metric": metric,
        "label": label,
        "step": 24,
        "weights": "ema",
        "generation": {"sampler": "heun", "steps": 8},
        "model_digest": "0" * 64,
        "protocol": asdict(measured),
        "protocol_digest": measured.digest,
        "time": 1.8e9,
        "by": "evaluate",
    }
    log.append(run / "evaluations.jsonl", record)


@dataclass(frozen=True)
class Server:
    """A studio.

    Args:
        url: of its page.
        seconds: from the command to the page.
        runs: its models.
        said: the file of what it wrote.
        process: that serves it.
    """

    url: str
    seconds: float
    runs: list[Path]
    said: Path
    process: "subprocess.Popen[bytes]"


def free_port() -> int:
    """One that nobody uses."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextmanager
def serve(runs: list[Path], folder: Path, *arguments: str, **environment: str) -> Iterator[Server]:
    """``ddm studio`` on runs, as a process of its own, until the end of the block."""
    port, said = free_port(), folder / "studio.log"
    url = f"http://127.0.0.1:{port}"
    command = [*STUDIO, *map(str, runs), "--port", str(port), *arguments]
    started = time.monotonic()
    (folder / "tmp").mkdir()
    environment = {**os.environ, "TMPDIR": str(folder / "tmp"), **environment}
    with said.open("w") as file:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=file, stderr=file)
    try:
        wait_for(lambda: process.poll() is not None or answers(url), 60, said.read_text)
        assert process.poll() is None, said.read_text()
        yield Server(url, time.monotonic() - started, runs, said, process)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def answers(url: str) -> bool:
    """Whether a page is there."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except urllib.error.HTTPError as error:
        return error.code == 401
    except (urllib.error.URLError, OSError):
        return False


def wait_for(done: Callable[[], Found], seconds: float = STOPPED, explain: Callable[[], Any] = lambda: "") -> Found:
    """What ``done`` gives as soon as it is true; fails after so many seconds."""
    end = time.monotonic() + seconds
    while True:
        found = done()
        if found:
            return found
        if time.monotonic() > end:
            pytest.fail(f"still waiting after {seconds} s. {explain()}")
        time.sleep(0.05)


class Page:
    """A tab of a browser with the studio in it.

    Args:
        driver: of the browser.
        url: of the studio.
        folder: for screenshots.
    """

    def __init__(self, driver: Any, url: str, folder: Path):
        self.driver, self.url, self.folder = driver, url, folder
        self._complaints: list[str] = []

    def open(self, *, width: int = 1440, theme: str = "light") -> "Page":
        """Load the page anew, at a width and in a theme."""
        self.leave()
        size = {"width": width, "height": WIDTHS[width], "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": width < 500})
        self.driver.get(f"{self.url}/?__theme={theme}")
        wait_for(lambda: self.all("[role=tab]"), 30)
        self.settle()
        return self

    def leave(self) -> None:
        """Go from the page; what the browser says of requests that this breaks off is no complaint."""
        self._complaints = self.complaints()
        self.driver.get("about:blank")
        self.driver.get_log("browser")

    def all(self, selector: str) -> list[Any]:
        """The elements of a CSS selector."""
        return self.driver.find_elements("css selector", selector)

    def one(self, selector: str) -> Any:
        """The first visible element of a CSS selector, as soon as it is there."""
        return wait_for(lambda: self._visible("css selector", selector), explain=lambda: f"nothing is {selector!r}")

    def _visible(self, by: str, what: str) -> Any:
        from selenium.common.exceptions import StaleElementReferenceException

        with suppress(StaleElementReferenceException):
            return next((each for each in self.driver.find_elements(by, what) if each.is_displayed()), None)
        return None

    def tab(self, name: str) -> None:
        """Go to a tab; on a narrow page it may be in the menu behind the last one."""
        path = f"//*[@role='tab'][normalize-space()='{name}']"
        found = self._visible("xpath", path)
        if found is None:
            self.one(".overflow-menu > button").click()
            path = f"//*[contains(@class, 'overflow-dropdown')]//button[normalize-space()='{name}']"
            found = wait_for(lambda: self._visible("xpath", path))
        self.press(found)
        self.settle()

    def tabs(self) -> list[str]:
        """The names of all tabs, also of those in the menu."""
        return [each.get_attribute("textContent").strip() for each in self.all("[role=tab]")]

    def button(self, name: str) -> Any:
        """The visible button with this text."""
        path = f"//button[normalize-space()='{name}' or span[normalize-space()='{name}']]"
        return wait_for(lambda: self._visible("xpath", path), explain=lambda: f"there is no button {name!r}")

    def labelled(self, name: str) -> Any:
        """The visible input with this name, as assistive technology reads it."""
        kinds = "input:not([type=hidden]), textarea, select"

        def found() -> Any:
            from selenium.common.exceptions import StaleElementReferenceException

            with suppress(StaleElementReferenceException):
                shown = (each for each in self.all(kinds) if each.is_displayed())
                return next((each for each in shown if each.accessible_name.strip() == name), None)
            return None

        return wait_for(found, explain=lambda: f"nothing is labelled {name!r}")

    def press(self, element: Any) -> None:
        """Click on an element, wherever on the page it is, once it stands still."""
        self.bring(element)
        element.click()

    def bring(self, element: Any) -> None:
        """Scroll to an element, and wait until nothing above it moves it any more."""
        place = None
        for _ in range(50):
            self.driver.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", element)
            before, place = place, element.rect
            if before == place:
                return
            time.sleep(0.1)

    def enter(self, name: str, value: object) -> None:
        """Put a value into an input, as typing does."""
        from selenium.webdriver.common.keys import Keys

        element = self.labelled(name)
        self.bring(element)
        element.send_keys(Keys.CONTROL, "a")
        element.send_keys(str(value), Keys.TAB)

    def choose(self, name: str, option: str) -> None:
        """Pick an entry of a list, with the keyboard."""
        from selenium.webdriver.common.keys import Keys

        element = self.labelled(name)
        self.press(element)
        element.send_keys(Keys.CONTROL, "a")
        element.send_keys(option, Keys.ENTER)
        wait_for(lambda: element.get_attribute("value") == option, explain=lambda: f"{name}: {option!r} was not chosen")

    def text(self) -> str:
        """All words that are to be seen."""
        return self.driver.execute_script("return document.body.innerText")

    def wait_for_text(self, words: str, seconds: float = STOPPED) -> None:
        """Wait until these words are to be seen."""
        wait_for(lambda: words in self.text(), seconds, lambda: f"{words!r} is not in:\n{self.text()}")

    def settle(self, seconds: float = 0.4) -> None:
        """Wait until nothing was fetched and nothing moved for a moment."""
        count = -1
        while count != (now := self.driver.execute_script("return performance.getEntriesByType('resource').length")):
            count = now
            time.sleep(seconds)

    def shot(self, name: str) -> Path:
        """A picture of the whole page, however long."""
        self.settle()
        sizes = self.driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": sizes["width"], "height": min(sizes["height"], 6000), "scale": 1}
        asked = {"format": "png", "clip": clip, "captureBeyondViewport": True}
        data = self.driver.execute_cdp_cmd("Page.captureScreenshot", asked)["data"]
        path = self.folder / f"{name}.png"
        path.write_bytes(base64.b64decode(data))
        return path

    def focused(self) -> Any:
        """The element that has the keyboard."""
        return self.driver.switch_to.active_element

    def tab_to(self, wanted: Any, most: int = 150) -> int:
        """Press the tabulator until an element has the keyboard; how often that took."""
        from selenium.webdriver.common.keys import Keys

        for count in range(1, most + 1):
            self.focused().send_keys(Keys.TAB)
            if self.focused() == wanted:
                return count
        pytest.fail(f"{wanted.accessible_name!r} is not reached with the keyboard")

    def nameless(self) -> list[str]:
        """What is on the page without a name in the browser's own tree for assistive technology."""
        self.driver.execute_cdp_cmd("Accessibility.enable", {})
        nodes = self.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
        shown = [each for each in nodes if not each.get("ignored") and each.get("role", {}).get("value") in NAMED]
        assert shown, "there is something on the page"
        without = [each for each in shown if not each.get("name", {}).get("value", "").strip()]
        told = [f"{each['role']['value']}: {self._markup(each['backendDOMNodeId'])}" for each in without]
        # Gradio's own ornaments, inside of what has a name.
        return [each for each in told if not re.match(r'image: <svg (?![^>]*role="img")', each)]

    def _markup(self, node: int) -> str:
        found = self.driver.execute_cdp_cmd("DOM.resolveNode", {"backendNodeId": node})["object"]["objectId"]
        asked = {"objectId": found, "functionDeclaration": "function() { return this.outerHTML.slice(0, 300) }"}
        return self.driver.execute_cdp_cmd("Runtime.callFunctionOn", asked)["result"]["value"]

    def too_wide(self) -> list[str]:
        """What makes the page scroll sideways."""
        return self.driver.execute_script(
            "const wide = document.documentElement.clientWidth;"
            "const over = (element) => element.getBoundingClientRect().right > wide + 1;"
            "if (document.documentElement.scrollWidth <= wide) return [];"
            "return [...document.querySelectorAll('body *')].filter((e) => over(e) && ![...e.children].some(over))"
            ".map((e) => `${Math.round(e.getBoundingClientRect().right)} ${e.outerHTML.slice(0, 200)}`).slice(0, 10)"
        )

    def complaints(self) -> list[str]:
        """Errors in the console, and requests to other machines, since the last time."""
        found, self._complaints = self._complaints, []
        found += [each["message"] for each in self.driver.get_log("browser") if each["level"] == "SEVERE"]
        for entry in self.driver.get_log("performance"):
            event = json.loads(entry["message"])["message"]
            if event["method"] == "Network.requestWillBeSent":
                url = event["params"]["request"]["url"]
                if not url.startswith((self.url, "data:", "blob:", "about:", "chrome")):
                    found.append(f"asked for {url[:200]}")
        return found

    def looks(self, name: str, then: Callable[["Page"], None] = lambda _: None) -> None:
        """Screenshots in both themes at both widths, each of which has to fit and to have names on everything.

        Args:
            name: of the pictures.
            then: brings the freshly loaded page to what is to be seen.
        """
        for theme in THEMES:
            for width in WIDTHS:
                self.open(width=width, theme=theme)
                then(self)
                self.shot(f"{name}-{width}-{theme}")
                found = {"too wide": self.too_wide(), "no name": self.nameless(), "complaints": self.complaints()}
                told = "\n".join(f"{what}: {each}" for what, problems in found.items() for each in problems)
                if told:
                    pytest.fail(f"{name} at {width} pixels, {theme}:\n{told}")


def screenshots() -> Path | None:
    """Where they are kept, if anywhere."""
    found = os.environ.get("DDM_SCREENSHOTS")
    if not found:
        return None
    path = Path(found).resolve()
    path.mkdir(parents=True, exist_ok=True)
    return path


def start_driver(folder: Path) -> Any:
    """A browser without a window, which can reach this machine alone."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
        "--force-prefers-reduced-motion",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        f"--user-data-dir={folder / 'profile'}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(str(shutil.which("chromedriver")))
    return webdriver.Chrome(options=options, service=service)


@functools.cache
def tiny_runs(root: Path) -> list[Path]:
    """Two runs for the whole session."""
    runs = [train_tiny(root / "first"), train_tiny(root / "second", train__seed=1)]
    for value, run in enumerate(runs, 20):
        put_on_record(run, float(value))
    return runs
