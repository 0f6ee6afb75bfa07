"""The Denoise tab without its page: what it does to pictures, and that its files say how they were made."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ddm import load
from ddm.cli import main
from ddm.commands.studio import denoising
from ddm.commands.studio.costing import adjusted
from ddm.commands.work import Made
from ddm.errors import RequestError
from ddm.generators import FixedPictures, editing
from ddm.images import save_png, to_float, to_uint8
from ddm.runs.model import Model


@pytest.fixture(scope="module")
def model(runs: list[Path]) -> Model:
    return load(runs[0], device="cpu")


@pytest.fixture(scope="module")
def picture(model: Model) -> torch.Tensor:
    return torch.randint(0, 256, model.generator.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


def finished(work: object) -> Made:
    *_, last = denoising.watched(work)
    assert last.made is not None
    return last.made


def options(**changes: object) -> dict:
    return {"sigma": 1.0, "label": None, "seed": 5, "count": 2} | changes


def test_noise_and_off_again_is_what_the_package_does(model: Model, picture: torch.Tensor):
    made = finished(denoising.from_picture(model, picture, **options(label="star")))
    star = [model.classes.index("star")] * 2
    known = to_float(torch.stack([picture] * 2))
    *_, last = editing.from_pictures(model.generator, known, 1.0, [5, 6], star)
    assert made.pictures.equal(to_uint8(last.x))
    assert not made.pictures[0].equal(made.pictures[1])


def test_every_step_is_seen(model: Model, picture: torch.Tensor):
    seen = list(denoising.watched(denoising.from_picture(model, picture, **options())))
    assert [each.done for each in seen] == [*range(1, 9), 8] and {each.steps for each in seen} == {8}
    assert all(each.made is None for each in seen[:-1])
    assert all(each.x.dtype == each.x0.dtype == torch.uint8 and each.x.shape == (2, 3, 16, 16) for each in seen)
    assert seen[-1].x.equal(seen[-1].made.pictures)
    distance = [(to_float(each.x) - to_float(each.x0)).abs().mean() for each in seen[:-1]]
    assert distance[0] > distance[-1], "x comes to the guess"


def test_a_sampler_that_finds_its_own_steps_is_seen_too(model: Model, picture: torch.Tensor):
    adaptive = adjusted(model, sampler="adaptive(tolerance=0.1)")
    seen = list(denoising.watched(denoising.from_picture(adaptive, picture, **options())))
    assert seen[-1].done == seen[-1].steps == len(seen) - 1


def test_stopping_stops_within_a_step(model: Model, picture: torch.Tensor, monkeypatch: pytest.MonkeyPatch):
    calls = []
    denoise = model.generator.diffusion.denoise
    monkeypatch.setattr(model.generator.diffusion, "denoise", lambda *a, **k: (calls.append(1), denoise(*a, **k))[1])
    stream = denoising.watched(denoising.from_picture(model, picture, **options()))
    next(stream), next(stream)
    before = len(calls)
    stream.close()
    assert len(calls) == before <= 4, "two evaluations a step of heun"
    assert finished(denoising.from_picture(model, picture, **options())).pictures.shape[0] == 2, "and the next works"


def test_dimmed_noise_fits_into_the_range():
    x0 = torch.zeros(1, 3, 64, 64)
    x = x0 + 80 * torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    levels = denoising.dimmed(x, x0).float()
    assert levels.std() == pytest.approx(255 / 4, rel=0.1), "two standard deviations are the range"
    assert denoising.dimmed(x0 + 0.25, x0).unique().tolist() == to_uint8(torch.tensor([0.25])).tolist()


def test_a_hole_is_filled_and_the_rest_kept_in_every_pixel(model: Model, picture: torch.Tensor):
    unknown = torch.zeros(1, 16, 16, dtype=torch.bool)
    unknown[:, :, :8] = True
    made = finished(denoising.from_picture(model, picture, **options(sigma=None), unknown=unknown))
    for each in made.pictures:
        assert each[:, :, 8:].equal(picture[:, :, 8:])
        assert not each[:, :, :8].equal(picture[:, :, :8])


def test_noise_alone_is_shown_at_once_and_is_that_of_the_start(model: Model, picture: torch.Tensor):
    found = denoising.noisy(model, picture, 0.4, 5)
    noise = model.generator.noise([5])()[0].float()
    assert found.equal(to_uint8(to_float(picture) + 0.4 * noise)), "little noise is not dimmed"
    work = denoising.from_picture(model, picture, **options(sigma=0.4))
    assert finished(work).shown[1][0].equal(found)


def test_the_way_between_two_seeds_ends_at_them(model: Model):
    made = finished(denoising.between(model, first=3, last=8, count=5, label="moon"))
    moon = [model.classes.index("moon")]
    ends = [model.generator.generate([seed], moon)[0] for seed in (3, 8)]
    for end, found in zip(ends, (made.pictures[0], made.pictures[-1])):
        assert (end.int() - found.int()).abs().max() <= 1, "another batch may round a level differently"


def test_the_film_goes_there_and_back_in_exact_pixels(model: Model):
    made = finished(denoising.between(model, first=3, last=8, count=4, label=None))
    with Image.open(io.BytesIO(denoising.film(made.pictures))) as film:
        assert (film.format, film.n_frames, film.size) == ("WEBP", 6, (16, 16))
        for number, place in enumerate((0, 1, 2, 3, 2, 1)):
            film.seek(number)
            levels = torch.from_numpy(np.array(film.convert("RGB"))).permute(2, 0, 1)
            assert levels.equal(made.pictures[place])


def test_the_picture_of_a_seed_is_that_of_the_model(model: Model):
    made = finished(denoising.of_seeds(model, 4, 1, "ring"))
    assert made.pictures[0].equal(model.sample(1, seed=4, label="ring")[0])


@pytest.mark.parametrize(
    "work, words",
    [
        (lambda m, p: denoising.from_picture(m, p, **options(sigma=1e6)), "noise: 1e.06 is not allowed; allowed: more"),
        (lambda m, p: denoising.from_picture(m, p, **options(sigma=0.0)), "noise: 0 is not allowed"),
        (lambda m, p: denoising.from_picture(m, p, **options(sigma=-1.0)), "noise: -1 is not allowed"),
        (lambda m, p: denoising.from_picture(m, p, **options(sigma=float("nan"))), "noise: nan is not allowed"),
        (lambda m, p: denoising.from_picture(m, p, **options(sigma=None)), "noise: it is missing"),
        (lambda m, p: denoising.from_picture(m, p, **options(label="dog")), "label: 'dog' is unknown"),
        (lambda m, p: denoising.from_picture(m, p, **options(seed=-1)), "seed: -1 is not allowed"),
        (lambda m, p: denoising.from_picture(m, p, **options(seed=2**63 - 1)), "is not allowed; allowed: 0 or more"),
        (lambda m, p: denoising.between(m, first=3, last=3, count=3, label=None), "allowed: another than the first"),
        (lambda m, p: denoising.between(m, first=3, last=-3, count=3, label=None), "to_seed: -3 is not allowed"),
    ],
)
def test_wrong_requests_are_refused(work: Callable, words: str, model: Model, picture: torch.Tensor):
    with pytest.raises(RequestError, match=words):
        work(model, picture)


def test_only_models_whose_steps_are_seen_can_change_pictures(model: Model, picture: torch.Tensor):
    fixed = replace(model, generator=FixedPictures.__new__(FixedPictures))
    with pytest.raises(RequestError, match="its steps are not seen; allowed: runs of ddm train"):
        denoising.from_picture(fixed, picture, **options())


def test_the_slider_offers_levels_that_the_model_has(model: Model, picture: torch.Tensor):
    for sigma in denoising.levels(model):
        denoising.from_picture(model, picture, **options(sigma=sigma))


class TestAgain:
    """``ddm sample --again`` makes what the page made, from the file alone and what was uploaded."""

    @pytest.fixture
    def again(self, runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture) -> Callable[..., dict]:
        def run(pixels: torch.Tensor, text: dict[str, str], *arguments: object) -> dict:
            save_png(tmp_path / "made.png", pixels, text=text)
            given = ["--again", tmp_path / "made.png", *arguments, "--out", tmp_path / "again.png", "--json", "--quiet"]
            assert main(["sample", str(runs[0]), *map(str, given), "--device=cpu"]) == 0, capsys.readouterr().err
            return json.loads(capsys.readouterr().out)

        return run

    def test_a_sheet_between_seeds(self, model: Model, again: Callable[..., dict]):
        made = finished(denoising.between(model, first=3, last=8, count=4, label="heart"))
        assert again(*denoising.whole(made))["equal"]

    def test_one_picture_between_seeds(self, model: Model, again: Callable[..., dict]):
        made = finished(denoising.between(model, first=3, last=8, count=4, label=None))
        assert again(made.pictures[2], denoising.texts(made)[2])["most"] <= 1

    def test_a_picture_from_an_upload(
        self, model: Model, picture: torch.Tensor, tmp_path: Path, again: Callable[..., dict]
    ):
        save_png(tmp_path / "source.png", picture)
        made = finished(denoising.from_picture(model, picture, **options(count=1, label="star")))
        for pixels, text in ((made.pictures[0], denoising.texts(made)[0]), denoising.whole(made)):
            assert again(pixels, text, "--from", tmp_path / "source.png")["equal"]

    def test_a_filled_hole(self, model: Model, picture: torch.Tensor, tmp_path: Path, again: Callable[..., dict]):
        unknown = torch.zeros(1, 16, 16, dtype=torch.bool)
        unknown[:, 4:12, 4:12] = True
        save_png(tmp_path / "source.png", picture)
        save_png(tmp_path / "mask.png", unknown.to(torch.uint8) * 255)
        churned = adjusted(model, sampler="heun(churn=20)", wanted=19)
        made = finished(denoising.from_picture(churned, picture, **options(sigma=2.0, count=1), unknown=unknown))
        given = ("--from", tmp_path / "source.png", "--mask", tmp_path / "mask.png")
        assert again(made.pictures[0], denoising.texts(made)[0], *given)["equal"]

    def test_another_source_is_told(
        self, model: Model, picture: torch.Tensor, runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture
    ):
        made = finished(denoising.from_picture(model, picture, **options(count=1)))
        save_png(tmp_path / "made.png", made.pictures[0], text=denoising.texts(made)[0])
        save_png(tmp_path / "other.png", picture.flip(-1))
        given = ["--again", tmp_path / "made.png", "--from", tmp_path / "other.png", "--device=cpu"]
        assert main(["sample", str(runs[0]), *map(str, given)]) == 2
        assert "is not among those given" in capsys.readouterr().err
