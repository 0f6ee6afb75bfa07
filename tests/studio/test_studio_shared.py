"""What the tabs share: models by name, limits, messages instead of stack traces, exact files in the page."""

# ruff: noqa: E402

import base64
import gc
import io
import json
import subprocess
import sys
import threading
import weakref
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

gr = pytest.importorskip("gradio")

from ddm import load
from ddm.commands.studio import costing, denoising
from ddm.commands.studio.shared import KEPT, WRONG, Limits, Models, Studio, number, refuse, whole, word
from ddm.commands.studio.shown import Shown, data_uri, gallery, png
from ddm.diffusion import samplers
from ddm.errors import DdmError, RequestError
from ddm.runs.cost import counted, evaluations_of
from ddm.runs.model import Model
from pages import Page


@pytest.fixture(scope="module")
def model(runs: list[Path]) -> Model:
    return load(runs[0], device="cpu")


def test_a_model_is_loaded_once_however_many_ask(model: Model):
    begun = []

    def slowly() -> Model:
        begun.append(True)
        threading.Event().wait(0.05)
        return model

    models = Models({"one": slowly})
    assert begun == [], "not before it is asked for"
    threads = [threading.Thread(target=models.get, args=("one",)) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert models.get("one") is model and len(begun) == 1


def test_a_model_that_failed_to_load_is_tried_again(model: Model):
    answers = iter([DdmError("busy"), model])

    def loader() -> Model:
        answer = next(answers)
        if isinstance(answer, DdmError):
            raise answer
        return answer

    models = Models({"one": loader})
    with pytest.raises(DdmError, match="busy"):
        models.get("one")
    assert models.get("one") is model


def test_models_that_were_not_asked_for_the_longest_are_released(runs: list[Path]):
    loaded: list[str] = []

    def loader(name: str) -> Model:
        loaded.append(name)
        return load(runs[0], device="cpu")

    models = Models({str(number): partial(loader, str(number)) for number in range(KEPT + 2)})
    alive = [weakref.ref(model) for _, model in models.ready()]
    gc.collect()
    assert [each() is not None for each in alive] == [False, False] + [True] * KEPT
    models.get("2")  # the oldest of them is the youngest now
    models.get("0")
    assert loaded == [*(str(number) for number in range(KEPT + 2)), "0"]
    models.get("2")
    models.get("3")
    assert loaded[-2:] == ["0", "3"]


@pytest.mark.parametrize("name", ["two", "", "../one", "/etc/passwd", None, 1, ["one"], {"path": "one"}])
def test_only_models_of_the_list(model: Model, name: object):
    with pytest.raises(RequestError, match="model: .* is unknown.*; allowed: one"):
        Models({"one": lambda: model}).get(name)  # pyright: ignore[reportArgumentType]


def test_limits():
    limits = Limits(pictures=4, evaluations=100)
    limits.check(4, 25)
    with pytest.raises(RequestError, match="pictures: 5 are not allowed; allowed: 4"):
        limits.check(5, 1)
    with pytest.raises(RequestError, match="4 pictures with 26 evaluations each are 104 evaluations; allowed: 100"):
        limits.check(4, 26)


@pytest.mark.parametrize("value", [0, 11, 1.5, float("nan"), float("inf"), 1e308, "3", True, None, [3], {}, 2**70])
def test_what_is_no_whole_number_in_range(value: object):
    with pytest.raises(RequestError, match="count: .* is not allowed; allowed: a whole number from 1 to 10"):
        whole("count", value, 1, 10)


@pytest.mark.parametrize("value", [-0.1, 2.1, float("nan"), float("-inf"), "1", True, None, [1.0]])
def test_what_is_no_number_in_range(value: object):
    with pytest.raises(RequestError, match="guidance: .* is not allowed; allowed: a number from 0 to 2"):
        number("guidance", value, 0, 2)


@pytest.mark.parametrize("value", [None, 3, ["heun"], "a" * 501, "two\nlines", "\x1b[31m", "nul\0"])
def test_what_is_no_word(value: object):
    with pytest.raises(RequestError, match="sampler: .* is not allowed; allowed: up to 500 characters") as error:
        word("sampler", value)
    assert len(str(error.value)) < 150


def test_what_is_right_passes():
    assert (whole("n", 3.0, 1, 10), number("n", 2, 0, 2), word("n", "heun(churn=40)")) == (3, 2.0, "heun(churn=40)")


def test_an_expected_failure_is_told_without_folders_and_without_html():
    @refuse
    def action() -> None:
        raise RequestError("source: '/home/me/runs/x' and ~/y, ./z/w or folder:/a/b are <b>not</b> allowed")

    with pytest.raises(gr.Error) as error:
        action()
    assert str(error.value.message) == ("source: '...' and ..., ... or folder:... are &lt;b&gt;not&lt;/b&gt; allowed")
    assert not error.value.print_exception


def test_an_address_of_the_web_and_a_choice_are_no_folders():
    with pytest.raises(gr.Error, match="heun.churn=1/2. of https://example.org/x"):
        refuse(lambda: (_ for _ in ()).throw(DdmError("heun(churn=1/2) of https://example.org/x")))()


def test_a_mistake_of_ours_is_told_in_the_terminal_alone(capsys: pytest.CaptureFixture):
    @refuse
    def action() -> None:
        raise KeyError("/root/secret")

    with pytest.raises(gr.Error) as error:
        action()
    assert error.value.message == WRONG and "secret" not in str(error.value)
    captured = capsys.readouterr()
    assert "KeyError: '/root/secret'" in captured.err and not captured.out


def test_a_stream_that_fails_is_told_and_one_that_is_closed_ends():
    ended = []

    @refuse
    def action(fail: bool):
        try:
            yield 1
            if fail:
                raise DdmError("no more")
            yield 2
        finally:
            ended.append(fail)

    stream = action(True)
    assert next(stream) == 1
    with pytest.raises(gr.Error, match="no more"):
        next(stream)
    stream = action(False)
    next(stream)
    stream.close()
    assert ended == [True, False]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_files_are_exact(channels: int):
    pixels = torch.randint(0, 256, (channels, 5, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    file = png(pixels, {"ddm": '{"seed": 1}'})
    with Image.open(io.BytesIO(file)) as image:
        levels = torch.from_numpy(np.array(image))
        assert image.text == {"ddm": '{"seed": 1}'}
    assert levels.reshape(5, 7, channels).permute(2, 0, 1).equal(pixels)


def test_a_gallery_shows_and_saves_the_files_themselves():
    file = png(torch.zeros(3, 4, 4, dtype=torch.uint8), {"ddm": "x"})
    words = '<script>alert("1")</script> & more'
    found = Page(gallery([Shown(file, words, words, words, 'a".png', seed=3), Shown(file, "soon")], side=4))
    (image, other), (link,) = found.all("img"), found.all("a")
    assert image.get("src") == link.get("href") == data_uri(file)
    assert base64.b64decode(image.get("src").partition(",")[2]) == file
    assert image.get("alt") == words and link.get("download") == 'a".png' and other.get("alt") == "soon"
    assert found.all("script") == [] and 'alert("1")' in found.text
    (button,) = found.all("button")
    assert button.get("data-seed") == "3" and button.get("type") == "button"


@pytest.mark.parametrize("count", [1, 3, 8, 9, 64, 100])
def test_pictures_are_enlarged_by_whole_pixels(count: int):
    for side in (16, 32, 50, 300):
        (box,) = Page(gallery([Shown(b"", "")] * count, side=side)).all("div")
        width = int(box.get("style").split()[-1].removesuffix("px"))
        assert width % side == 0 and (width <= 256 or width == side)


@pytest.mark.parametrize("guidance", [1.0, 2.0])
@pytest.mark.parametrize("sampler", [each for each in samplers if each != "adaptive"])
def test_costs_are_counted_without_the_network(model: Model, sampler: str, guidance: float):
    generator = model.generator.with_settings(sampler=sampler, guidance=guidance, steps=5, guidance_high=3.0)
    assert costing.evaluations(generator) == evaluations_of(generator)


@pytest.mark.parametrize("sampler, wanted, steps", [("heun", 37, 19), ("heun", 1, 1), ("ddim", 37, 37), ("ddpm", 1, 1)])
def test_evaluations_become_steps(model: Model, sampler: str, wanted: int, steps: int):
    found = costing.adjusted(model, sampler=sampler, wanted=wanted, guidance=1.0)
    assert found.generator.settings()["steps"] == steps
    assert costing.evaluations(found.generator) == evaluations_of(found.generator) == wanted


def test_a_sampler_that_would_go_on_for_ever_is_refused_before_it_begins(model: Model):
    with pytest.raises(RequestError, match="sampler: it takes more than"):
        costing.evaluations(model.generator.with_settings(sampler="adaptive(tolerance=1e-30, iterations=1000000000)"))


def test_work_beyond_the_limits_is_refused(model: Model):
    studio = Studio(Models({"one": lambda: model}), Limits(pictures=4, evaluations=100))
    work = denoising.of_seeds(costing.adjusted(model, sampler="ddim", wanted=30, guidance=1.0), 0, 3, None)
    studio.check(work)
    with pytest.raises(RequestError, match="4 pictures with 30 evaluations each"):
        studio.check(denoising.of_seeds(work.model, 0, 4, None))
    with pytest.raises(RequestError, match="it takes more than 1000 steps"):
        list(studio.bounded(iter(range(5000)), work))


def test_evaluations_that_no_count_foresees_end_too(model: Model):
    """A network that answers 0 is easy for a sampler that finds its own steps; the real one is not."""
    work = denoising.of_seeds(costing.adjusted(model, sampler="adaptive(tolerance=1e-4)"), 0, 4, None)
    most = 4 * costing.cost_of(work)
    studio = Studio(Models({"one": lambda: model}), Limits(pictures=4, evaluations=most))
    studio.check(work)
    told = f"more than {most:,} evaluations for these pictures"
    with counted(work.model.generator) as seen, pytest.raises(RequestError, match=told):
        list(studio.bounded(denoising.watched(work), work))
    assert most < seen() < most + 4 * 8, "it ends within a step"


def test_works_of_one_request_share_what_it_may_ask_for(model: Model):
    studio = Studio(Models({"one": lambda: model}), Limits(pictures=4, evaluations=100))
    work = denoising.of_seeds(costing.adjusted(model, sampler="ddim", wanted=20, guidance=1.0), 0, 4, None)
    studio.check(work)
    with pytest.raises(RequestError, match="2 models with 160 evaluations in all are not allowed; allowed: 100"):
        studio.check(work, work)


def test_the_verb_imports_nothing_heavy():
    code = (
        "import sys, ddm.commands.studio\n"
        "from ddm.cli import main\n"
        "try: main(['studio', '--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(','.join({'gradio', 'torch', 'fastapi', 'uvicorn'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--share" in done.stdout


def test_plain_json_only(model: Model):
    from ddm.commands.studio.endpoints import Endpoints

    facts = Endpoints(Studio(Models({"one": lambda: model}))).models()
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    assert facts[0]["classes"] == list(model.classes) and facts[0]["shape"] == [3, 16, 16]
