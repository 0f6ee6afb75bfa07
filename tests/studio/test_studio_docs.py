"""What docs/studio.md says of the endpoints."""

import json
import re
from pathlib import Path

import pytest

pytest.importorskip("gradio")

from browser import Server
from callers import Caller

DOCS = Path(__file__).parents[2] / "docs" / "studio.md"
ROW = re.compile(r"^\| `(/\w+)` \| (.*?) \|", re.MULTILINE)


def test_every_endpoint_is_listed_with_its_arguments(server: Server):
    found = json.loads(Caller(server).ask("GET", "/gradio_api/info")[1])["named_endpoints"]
    listed = {name: re.findall(r"`(\w+)`", arguments) for name, arguments in ROW.findall(DOCS.read_text())}
    asked = {name: [each["parameter_name"] for each in one["parameters"]] for name, one in found.items()}
    assert listed == asked


def test_the_example_runs(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    exec(code.replace("http://127.0.0.1:7860", server.url), {})
    assert sorted(each.name for each in tmp_path.glob("*.png")) == ["seed-7.png", "seed-8.png"]
