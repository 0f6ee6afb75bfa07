"""The actions of Denoise and Compare as programs call them: text in, pieces of a page out, messages for what is wrong."""

import base64
import io
import itertools
import json
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image

pytest.importorskip("gradio")
import gradio as gr

from ddm import load
from ddm.commands.studio import denoising, generating, shared
from ddm.commands.studio.contrasts import Contrasts
from ddm.commands.studio.edits import Edits
from ddm.commands.studio.shared import Limits, Models, Studio, refuse
from ddm.errors import RequestError
from pages import Page

MASK = "1" * 8 + "0" * 248


@pytest.fixture(scope="module")
def studio(runs: list[Path]) -> Studio:
    return Studio(Models({run.name: partial(load, run, device="cpu") for run in runs}))


@pytest.fixture
def edits(studio: Studio) -> Edits:
    return Edits(studio)


@pytest.fixture
def picture(edits: Edits) -> str:
    return edits.training_picture("first", 5)[0]


def last(work: Iterator) -> object:
    *_, found = work
    return found


def pictures(piece: object) -> dict[str, Image.Image]:
    """The pictures in a piece of a page by what they are called for those who do not see them."""
    page = Page(str(piece))
    files = {each["alt"]: base64.b64decode(str(each["src"]).partition(",")[2]) for each in page.all("img")}
    return {str(name): Image.open(io.BytesIO(file)) for name, file in files.items()}


def test_a_picture_is_handed_on_as_an_exact_file(edits: Edits, studio: Studio):
    uri, shown = last(edits.picture_of_seed("first", 3))
    model = studio.models.get("first")
    again, _ = edits.upload_picture("first", uri)
    assert again == uri, "through the upload it stays as it is"
    levels = torch.tensor(list(base64.b64decode(uri.partition(",")[2])))
    assert len(levels) > 100
    pixels = pictures(shown)["the picture of seed 3"]
    assert torch.frombuffer(bytearray(pixels.tobytes()), dtype=torch.uint8).reshape(16, 16, 3).permute(2, 0, 1).equal(
        model.sample(1, seed=3)[0]
    )  # fmt: skip


def test_every_step_is_a_sound_piece_of_a_page(edits: Edits, picture: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(generating, "PACE", 0)
    pieces = list(edits.denoise("first", picture, 1.0, "star", 2, 7))
    assert len(pieces) == 9
    for number, piece in enumerate(pieces[:-1], 1):
        (bar,) = Page(piece).all("progress")
        assert (bar["value"], bar["max"], bar["aria-label"]) == (str(number), "8", f"Step {number} of 8")
        assert set(pictures(piece)) == {"where it is: x", "what the model sees in it: x0"}
    found = pictures(pieces[-1])
    told = [json.loads(found[f"result, noise of seed {seed}"].text["ddm"]) for seed in (7, 8)]
    assert [each["seed"] for each in told] == [7, 8] and {each["label"] for each in told} == {"star"}
    assert json.loads(found["all in one: before, given, after"].text["ddm"])["layout"] == "sheet"
    assert "ddm" not in found["the picture, as the model got it"].info


def test_a_filled_hole_comes_with_its_mask(edits: Edits, picture: str):
    piece = last(edits.inpaint("first", picture, MASK, evaluations=5))
    assert pictures(piece)["the mask"].convert("L").tobytes() == bytes([255] * 8 + [0] * 248)
    assert "--from source.png --mask mask.png" in Page(str(piece)).text


def test_a_way_between_seeds_has_its_ends(edits: Edits):
    found = pictures(last(edits.interpolate("first", 1, 2, 3, evaluations=5)))
    assert set(found) == {"0%", "50%", "100%", "film of the way", "all pictures of the way"}


def test_two_models_stand_side_by_side(studio: Studio):
    pieces = list(Contrasts(studio).compare(["second", "first"], seed=4, count=2, evaluations=5))
    assert "waits for its turn" in Page(pieces[0]).text
    page = Page(pieces[-1])
    assert len(page.all("h4")) == 2 and page.text.index("second") < page.text.index("first")
    assert [each["alt"] for each in page.all("img")] == ["seed 4", "seed 5"] * 2


def test_a_name_of_a_model_is_words_and_not_markup(runs: list[Path]):
    wild = Studio(Models({"<img src=x>": partial(load, runs[0], device="cpu")}))
    piece = last(Contrasts(wild).compare(["<img src=x>"], count=1, evaluations=3))
    assert all(each["src"] != "x" for each in Page(str(piece)).all("img"))


def wrong(edits: Edits, picture: str) -> dict[str, Callable[[], object]]:
    """Requests that cannot be met, by a part of the message they get."""
    big = Edits(Studio(edits.studio.models, Limits(evaluations=50)))
    contrasts = Contrasts(edits.studio)
    return {
        "is unknown; allowed: first, second": lambda: last(edits.denoise("../secret", picture)),
        "model: 'None' is unknown": lambda: last(edits.denoise(None, picture)),
        "picture: there is none yet": lambda: last(edits.denoise("first", "")),
        "noise: nan is not allowed": lambda: last(edits.denoise("first", picture, math.nan)),
        "noise: inf is not allowed": lambda: edits.noisy("first", picture, math.inf),
        "noise: 1e+308 is not allowed": lambda: last(edits.denoise("first", picture, 1e308)),
        "count: 0 is not allowed; allowed: a whole number from 1 to 8": lambda: last(
            edits.denoise("first", picture, count=0)
        ),
        "count: 1000000 is not allowed": lambda: last(edits.denoise("first", picture, count=10**6)),
        "seed: -5 is not allowed": lambda: last(edits.denoise("first", picture, seed=-5)),
        "label: 'dog' is unknown": lambda: last(edits.denoise("first", picture, label="dog")),
        "sampler: 'rm(-rf)' has an option without a name": lambda: last(
            edits.denoise("first", picture, sampler="rm(-rf)")
        ),
        "evaluations: 1000000000 is not": lambda: last(edits.denoise("first", picture, evaluations=10**9)),
        "are 120 evaluations; allowed: 50": lambda: last(big.denoise("first", picture, count=8, evaluations=15)),
        "mask: nothing is painted": lambda: last(edits.inpaint("first", picture, "")),
        "mask: 9 signs are not allowed": lambda: last(edits.inpaint("first", picture, "1" * 9)),
        "mask: that is no mask": lambda: last(edits.inpaint("first", picture, {"path": "/etc/passwd"})),
        "to_seed: 3 is not allowed": lambda: last(edits.interpolate("first", 3, 3)),
        "count: 1 is not allowed; allowed: a whole number from 2 to 16": lambda: last(
            edits.interpolate("first", count=1)
        ),
        "number: -1 is not allowed": lambda: edits.training_picture("first", -1),
        "models: none is named": lambda: last(contrasts.compare([])),
        "count: 17 is not allowed; allowed: a whole number from 1 to 16": lambda: last(
            contrasts.compare(["first"], count=17)
        ),
        "one or more of those given at the start": lambda: last(contrasts.compare("first")),
        "model: 'third' is unknown": lambda: contrasts.numbers(["first", "third"]),
        "count: 2.5 is not allowed": lambda: last(edits.denoise("first", picture, count=2.5)),
        "seed: 0.5 is not allowed": lambda: last(edits.picture_of_seed("first", 0.5)),
        "number: True is not allowed": lambda: edits.training_picture("first", True),
        "noise: 'much' is not allowed": lambda: edits.noisy("first", picture, "much"),
    }


def test_wrong_requests_are_answered_in_words(
    edits: Edits, picture: str, runs: list[Path], capsys: pytest.CaptureFixture
):
    told = {}
    for words, request in wrong(edits, picture).items():
        with pytest.raises(gr.Error) as caught:
            refuse(request)()
        told[words] = str(caught.value.message)
    assert {words: message for words, message in told.items() if words not in message} == {}
    assert str(runs[0].parent) not in " ".join(told.values())
    assert capsys.readouterr().err == "", "none of them is a mistake of ours"
    assert last(edits.denoise("first", picture)), "and the next one works"


def test_work_is_refused_before_the_network_sees_anything(
    studio: Studio, picture: str, monkeypatch: pytest.MonkeyPatch
):
    edits = Edits(Studio(studio.models, Limits(evaluations=14)))
    model = studio.models.get("first")
    monkeypatch.setattr(model.generator.diffusion, "denoise", lambda *_, **__: pytest.fail("the network was asked"))
    with pytest.raises(RequestError, match="15 evaluations"):
        next(edits.denoise("first", picture, 50.0))


def test_a_sampler_without_end_is_stopped(edits: Edits, picture: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shared, "STEPS", 40)
    endless = "adaptive(tolerance=0.00001, iterations=1000000)"
    with pytest.raises(RequestError, match="takes more than 40 steps|evaluations"):
        last(edits.denoise("first", picture, 50.0, sampler=endless))


def test_closing_a_request_closes_the_work(edits: Edits, picture: str, monkeypatch: pytest.MonkeyPatch):
    closed = []

    def watched(*given: object) -> Iterator:
        blank = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
        try:
            yield from itertools.repeat(denoising.Seen(1, 8, blank, blank))
        finally:
            closed.append(True)

    monkeypatch.setattr(denoising, "watched", watched)
    monkeypatch.setattr(generating, "PACE", 0)
    request = refuse(edits.denoise)("first", picture)
    next(request), next(request)
    request.close()
    assert closed == [True]
