"""Causes that are seen without sampling: each must be found where it was planted, and nowhere else."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ddm.data import ImageSet, get_data
from ddm.networks.residual_unet import SelfAttention
from ddm.networks.unet import FullAttention
from ddm.runs import build
from ddm.runs.checkpoints import Loaded
from ddm.runs.config import Config, override
from ddm.runs.finding import Finding
from ddm.runs.known_causes import Trained, attentive_sides, findings, known_causes, reach, unevenness
from ddm.runs.recipes import recipes
from ddm.training import Ema

EDM = recipes["edm"]()


def noise(count: int, seed: int = 0, size: int = 8) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, size, size), generator=draw, dtype=torch.uint8)


def records(*losses: float, skipped: int = 0) -> list[dict]:
    every = 40_000 // len(losses)
    return [{"step": every * (i + 1), "loss": loss, "skipped": skipped} for i, loss in enumerate(losses)]


FLAT = [0.2 + 0.01 * (-1) ** i for i in range(40)]


def sound(config: Config = EDM, **changes: object) -> Trained:
    """A run that nothing is wrong with."""
    weights = {"weights": {"a": torch.ones(9)}, "ema": {"a": torch.ones(9) * 1.01}}
    run = Trained(
        config,
        config.train.steps,
        "ema",
        build.sampling_options(config.sample),
        80.0,
        ImageSet(noise(400)),
        records(*FLAT),
        [],
        Loaded(config.train.steps, weights, {}),
    )
    return replace(run, **changes)  # pyright: ignore[reportArgumentType]


def only(name: str, run: Trained) -> Finding:
    (finding,) = known_causes[name](run)
    return finding


def test_a_sound_run_warns_of_nothing_but_its_length():
    found = findings(sound())
    assert len(found) >= 8
    assert {each.what for each in found if each.status != "ok"} == {"images seen"}, found
    assert not [each for each in found if each.status == "fail"]


def test_the_numbers_of_the_paper_are_explained():
    """The paper's recipe, as its library does it: attention at the bottom alone, and 1.28 million pictures."""
    found = {each.what: each for each in findings(sound(recipes["paper"](), records=[]))}
    assert found["attention"].status == "warn" and "4x4" in found["attention"].seen
    assert "1.28 million" in found["images seen"].seen and "about 43 here" in found["images seen"].seen
    assert found["learning rate"].status == "warn"
    assert found["average"].status == "ok"


# --- attention


@pytest.mark.parametrize(
    "network",
    [
        "unet(dim=8, dim_mults=(1, 2, 4, 8))",
        "unet(dim=8, dim_mults=(1, 2))",
        "residual_unet(width=8, mults=(1, 2, 2), blocks=1)",
        "residual_unet(width=8, mults=(1, 2, 2), blocks=1, attention=(8, 32))",
        "residual_unet(width=8, mults=(1, 2, 2), blocks=1, attention=(8,), patch=2)",
        "residual_unet(width=8, mults=(1, 1), blocks=1, attention=())",
    ],
)
def test_the_sides_are_those_that_attention_sees(network: str):
    config = override(EDM, {"network": network})
    built, seen = build.make_network(config, channels=3, classes=0), set()
    for module in built.modules():
        if isinstance(module, (FullAttention, SelfAttention)):
            module.register_forward_pre_hook(lambda _, given: seen.add(given[0].shape[-1]))
    with torch.no_grad():
        built(torch.zeros(1, 3, 32, 32), torch.zeros(1))
    assert set(attentive_sides(config) or []) == seen
    assert (only("attention", sound(config)).status == "ok") == (16 in seen)


def test_attention_is_not_judged_at_other_sizes():
    assert not list(known_causes["attention"](sound(override(EDM, {"image_size": 64}))))


# --- averages


@pytest.mark.parametrize("rule", ["constant(decay=0.9)", "inverse_power", "power(width=0.1)", "constant(decay=0.9999)"])
def test_the_reach_is_that_of_the_average_itself(rule: str):
    """An average of weights that are their own step: what it lacks to the last step is its mean age."""
    network = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        network.weight.zero_()
    ema = Ema(network, [rule])
    for step in range(1, 501):
        with torch.no_grad():
            network.weight.fill_(step)
        ema.update(step)
    age, left = reach(rule, 500)
    assert age == pytest.approx(500 - ema.networks[0].weight.item(), rel=1e-3)
    assert 0 <= left < 1e-3


@pytest.mark.parametrize(
    ("rule", "steps", "status", "said"),
    [
        ("constant(decay=0.9999)", 800_000, "ok", "9,999 steps old on average, 1.2% of 800,000"),
        ("constant(decay=0.9)", 40_000, "warn", "hardly more than the raw weights"),
        ("constant(decay=0.99999)", 100_000, "ok", ""),
        ("power(width=0.27)", 40_000, "warn", "it lags behind"),
        ("inverse_power(decay=0.995, after=100, every=10)", 20_000, "ok", ""),
        ("inverse_power(decay=0.995, after=19_000, every=10)", 20_000, "ok", ""),
    ],
)
def test_averages_are_judged_by_their_age(rule: str, steps: int, status: str, said: str):
    config = override(EDM, {"train.ema": (rule,), "train.steps": steps})
    found = only("average", sound(config))
    assert found.status == status and said in found.seen, found


def test_the_average_that_is_sampled_from_is_judged():
    config = override(EDM, {"train.ema": ("power(width=0.05)", "power(width=0.27)")})
    assert only("average", sound(config)).status == "ok"
    assert only("average", sound(config, weights="ema-1")).status == "warn"
    assert only("average", sound(config, weights="raw")).cure == "--weights ema"


# --- the rest


@pytest.mark.parametrize(
    ("step", "status", "said"),
    [
        (100, "warn", "too few to say more"),
        (10_000, "warn", "would go on to about 23 here"),
        (40_000, "warn", "about 8.6 at best"),
        (400_000, "ok", "about 4.2 at best"),
    ],
)
def test_the_law_is_quoted_with_its_limits(step: int, status: str, said: str):
    found = only("images", sound(step=step))
    assert found.status == status and said in found.seen and "mini_edm" in found.seen


def test_the_law_is_not_for_other_pictures():
    found = only("images", sound(override(EDM, {"data": "shapes"}), step=100))
    assert found.status == "ok" and "law" not in found.seen and "64.0 times" in found.seen


def test_a_guide_costs_no_variety():
    assert not list(known_causes["guidance"](sound(generation={"guidance": 2.0, "guide": "step 7 ema 1a2b"})))


@pytest.mark.parametrize(
    ("cause", "run", "said"),
    [
        ("guidance", sound(generation={"guidance": 2.0}), "2: variety is lost"),
        ("start", sound(start=10.0), "it is not pure noise"),
        ("memorisation", sound(evaluations=[{"metric": "memorisation", "value": 0.2, "low": 0.1}]), "20.0% of the"),
        ("skipped", sound(records=records(0.1, 0.1, skipped=7)), "7 had a loss"),
        ("decay", sound(override(EDM, {"train.decay": 0.0})), "constant for 40,000 steps"),
        ("decay", sound(step=30_000), "has not fallen to its end yet"),
        ("slope", sound(records=records(*[1 / (i + 1) for i in range(40)])), "it still falls"),
    ],
)
def test_a_planted_cause_is_found(cause: str, run: Trained, said: str):
    found = only(cause, run)
    assert found.status == "warn" and said in found.seen and found.cure
    assert all(each.status == "ok" for each in known_causes[cause](sound()))


@pytest.mark.parametrize(("schedule", "left"), [("linear", 4.0e-5), ("cosine", 2.4e-9), ("sigmoid", 3.0e-7)])
def test_what_is_left_of_the_picture_at_the_last_level(schedule: str, left: float):
    """The terminal signal-to-noise ratios that others computed, of schedules of 1000 levels."""
    network = torch.nn.Identity()
    config = override(EDM, {"schedule": schedule, "objective": "eps"})
    sigma = float(build.make_diffusion(config, network).sigmas[-1])  # pyright: ignore[reportArgumentType]
    found = only("start", sound(config, start=sigma))
    assert found.status == "ok"
    assert float(found.seen.split("where ")[1].split()[0]) == pytest.approx(left, rel=0.05)


def test_copies_that_were_not_counted_are_not_spoken_of():
    assert not list(known_causes["memorisation"](sound()))
    rare = [{"metric": "memorisation", "value": 0.002, "low": 0.001}]
    assert not list(known_causes["memorisation"](sound(evaluations=rare)))


def test_a_loss_that_only_jumps_does_not_fall():
    assert only("slope", sound()).status == "ok"
    assert not list(known_causes["slope"](sound(records=records(0.5, 0.4)))), "too few to say"


@pytest.mark.parametrize(("apart", "status"), [(0.01, "ok"), (0.3, "warn")])
def test_weights_far_from_their_average_have_not_settled(apart: float, status: str):
    average = torch.linspace(-1, 1, 50)
    groups = {"ema": {"a": average}, "weights": {"a": average * (1 + apart)}}
    found = only("settled", sound(checkpoint=Loaded(1, groups, {})))
    assert found.status == status and f"{apart:.1%} of its length" in found.seen


# --- mirror images


def test_pictures_without_a_side_are_told_from_those_with_one():
    share, spread = unevenness(ImageSet(noise(500)))
    assert share < 3 * spread
    sided = noise(500)
    sided[..., :4] //= 2
    assert unevenness(ImageSet(sided))[0] > 0.2
    config = override(EDM, {"train.flip": True})
    assert only("mirrored", sound(config, data=ImageSet(sided))).cure.startswith("train.flip false")
    assert only("mirrored", sound(config)).status == "ok"
    assert not list(known_causes["mirrored"](sound(override(EDM, {"train.flip": False}), data=ImageSet(sided))))


def test_arrows_to_both_sides_have_a_side_as_soon_as_they_have_names():
    arrows = noise(500)
    arrows[:250, ..., :4] //= 2
    arrows[250:, ..., 4:] //= 2
    assert unevenness(ImageSet(arrows))[0] < 0.01
    labels = torch.arange(500) // 250
    assert unevenness(ImageSet(arrows, labels=labels, classes=("left", "right")))[0] > 0.2


@pytest.mark.skipif("DDM_DATA" not in os.environ, reason="needs CIFAR-10")
def test_cifar10_has_no_side():
    assert only("mirrored", sound(data=get_data("cifar10"))).status == "ok"


def test_the_page_names_every_known_cause():
    page = (Path(__file__).parents[2] / "docs" / "why-is-my-fid.md").read_text()
    assert all(f"`{name}`" in page for name in known_causes)
