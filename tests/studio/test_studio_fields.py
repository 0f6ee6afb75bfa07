"""What a wrong value is told by the field that it was typed into, and what is chosen where a run has no checkpoint."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio")

import gradio as gr
from browser import Server
from callers import Caller

from ddm import load
from ddm.commands.studio import guard
from ddm.commands.studio.compare import _fitted
from ddm.commands.studio.page import out_of_bounds
from ddm.commands.studio.shared import Models, Studio
from ddm.errors import RequestError


@pytest.mark.parametrize(
    "value, words",
    [
        (-1, "Seed: -1 is not allowed; allowed: 0 or more"),
        (-1e300, "Seed: -1e+300 is not allowed"),
        (0, ""),
        (10**30, ""),
        (True, ""),
        ("-1", ""),
        (None, ""),
    ],
)
def test_a_number_below_its_field_is_named(value: object, words: str):
    found = out_of_bounds([gr.Textbox(label="Name"), gr.Number(label="Seed", minimum=0)], ["x", value])
    assert found.startswith(words) and bool(found) == bool(words)


@pytest.mark.parametrize("value", [0, 9, float("nan"), float("inf")])
def test_a_number_beside_its_slider_is_named(value: float):
    found = out_of_bounds([gr.Slider(1, 8, label="Pictures")], [value])
    assert found == f"Pictures: {value:g} is not allowed; allowed: 1 to 8"


def test_an_endpoint_with_fields_says_which_value_is_wrong(server: Server):
    values: list[Any] = ["first", "", 1.0, "", 9, 0, "", 0, 1.0]
    assert "Pictures: 9 is not allowed; allowed: 1 to 8" in Caller(server).call("denoise", values)


def test_models_without_a_checkpoint_are_not_chosen_and_are_named(runs: list[Path]):
    def begun() -> Any:
        raise RequestError("no checkpoint yet")

    ready = load(runs[0], device="cpu")
    studio = Studio(Models({"ready": lambda: ready, "<b>begun": begun}))
    chosen, words, *labels = _fitted(studio, ["ready", "<b>begun"])
    assert chosen == ["ready"] and len(labels) == 2
    assert "Without a sound checkpoint: &lt;b&gt;begun." in words
    assert _fitted(Studio(Models({"ready": lambda: ready})), [])[:2] == ([], "")


def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(guard, "PATIENCE", 0.05)
    taken: list[Any] = []

    async def receive() -> dict:
        if taken:
            await asyncio.sleep(60)
        return {"type": "http.request", "body": b"{", "more_body": True}

    async def read() -> None:
        limited = guard._limited(receive)
        while not taken or taken[-1]["type"] == "http.request":
            taken.append(await limited())

    asyncio.run(asyncio.wait_for(read(), 5))
    assert taken[-1] == {"type": "http.disconnect"} and len(taken) == 2


def test_who_has_sent_all_may_wait_for_long(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(guard, "PATIENCE", 0.05)
    messages = [{"type": "http.request", "body": b"{}"}, {"type": "http.disconnect", "late": True}]

    async def receive() -> dict:
        await asyncio.sleep(0 if len(messages) == 2 else 0.2)
        return messages.pop(0)

    async def read() -> list[Any]:
        limited = guard._limited(receive)
        return [await limited(), await limited()]

    assert asyncio.run(read())[1] == {"type": "http.disconnect", "late": True}
