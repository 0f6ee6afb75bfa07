"""What the tests in a browser share: two tiny runs, one studio and one browser for the whole session."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Page, Server, need_browser, screenshots, serve, start_driver, tiny_runs


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory, private_cache: None) -> list[Path]:
    """Two runs of a few steps, with curves, samples and made-up numbers."""
    return tiny_runs(tmp_path_factory.mktemp("studio-runs"))


@pytest.fixture(scope="session")
def server(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A studio with both runs."""
    pytest.importorskip("gradio")
    with serve(runs, tmp_path_factory.mktemp("studio")) as found:
        yield found


@pytest.fixture(scope="session")
def driver(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A browser."""
    need_browser()
    found = start_driver(tmp_path_factory.mktemp("browser"))
    yield found
    found.quit()


@pytest.fixture
def page(driver: Any, server: Server, tmp_path: Path) -> Iterator[Page]:
    """The page, freshly loaded; in the end nothing may have gone wrong in it, nor have been asked for elsewhere."""
    found = Page(driver, server.url, screenshots() or tmp_path)
    found.leave()  # what the test before left unfinished ends here
    found.complaints()
    yield found.open()
    assert found.complaints() == []
