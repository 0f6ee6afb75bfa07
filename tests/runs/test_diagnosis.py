"""The doctor's suspects: in toy models with a planted cause, that cause must be the one that is found."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ddm.data import ImageSet, get_data, sources
from ddm.data.source import Reading, Source
from ddm.diffusion import GaussianDiffusion
from ddm.errors import DdmError, RequestError
from ddm.generators import DiffusionGenerator, Generator
from ddm.generators.truncated import TruncatedPictures
from ddm.images import to_float
from ddm.metrics import Embedded, Measurement, features, metrics
from ddm.runs.case import Case, Outcome, Variant, spread_set
from ddm.runs.config import Evaluation
from ddm.runs.diagnosis import Diagnosis, Effect, Plan, attempt, effects_table, plan, values_without
from ddm.runs.evaluation import Evaluated, Evaluator
from ddm.runs.model import Model
from ddm.runs.progress import Progress, finish
from ddm.runs.suspects import suspects
from ddm.runs.tables import markdown
from ddm.runs.verdict import verdict
from ddm.seeding import drawn
from ddm.training import Team
from metrics.toys import ToyFeatures, ToyGenerator, toys

__all__ = ["toys"]

SETTINGS = Evaluation(metrics=("fid",), features="toy_features", images=160)
LEVEL = 100.7 / 127.5 - 1
"""Between two levels of gray: 101 rounded, 100 cut down."""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.utils._cache_assets.HF_ASSETS_CACHE", str(tmp_path / "assets"))


def left_bright(count: int, seed: int) -> np.ndarray:
    """Gray noise around 101, the left half 20 levels brighter; uint8 ``[count, 3, 8, 8]``."""
    pixels = np.random.default_rng(seed).normal(101, 2, (count, 3, 8, 8))
    pixels[..., :4] += 20
    return pixels.round().clip(0, 255).astype(np.uint8)


@pytest.fixture
def toy_data() -> Iterator[None]:
    """``left_right``: 600 pictures for training and 300 others for a test, of one distribution."""

    def left_right(*, split: Literal["train", "test"] = "train") -> Source:
        """Pictures that must not be mirrored."""
        made = left_bright(600, 1) if split == "train" else left_bright(300, 2)
        return Source(f"left-right-{split}", lambda size, folder: Reading(list(made)))

    sources.register(left_right)
    yield
    del sources._parts["left_right"]


class Painter(nn.Module):
    """A perfect network of what it predicts: ``left_bright`` pictures, whose noise comes from the seed's."""

    def __init__(self, level: float = LEVEL, classes: int = 0):
        super().__init__()
        self.level, self.classes = nn.Parameter(torch.tensor(level)), classes

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        side = torch.zeros(8).index_fill(0, torch.arange(4), 20 / 127.5)
        shift = 0 if label is None else label[:, None, None, None] / 127.5
        mean = self.level + side + shift
        return mean + torch.tanh(x - mean) * 2.5 / 127.5


def painting(level: float = LEVEL, classes: int = 0, **options: object) -> DiffusionGenerator:
    diffusion = GaussianDiffusion(Painter(level, classes), timesteps=50, schedule="cosine", objective="x0")
    settings = {"sampler": "ddim", "grid": "trailing", "steps": 4} | options
    return DiffusionGenerator(diffusion, shape=(3, 8, 8), **settings)  # pyright: ignore[reportArgumentType]


def make_case(
    generator: Generator | None = None,
    *,
    data: str = "left_right",
    settings: Evaluation = SETTINGS,
    others: dict[str, Generator] | None = None,
    path: Path | None = None,
) -> Case:
    reference = get_data(data, image_size=8)
    evaluator = Evaluator(settings, reference, team=Team("cpu"))
    kind = "run" if path else "npz"
    model = Model("toy", kind, generator or painting(), "digest-ema", path=path, weights="ema" if path else None)
    reload = lambda name: replace(model, generator=(others or {})[name], digest=f"digest-{name}", weights=name)
    return Case(model, settings, reference, evaluator, 0, reload)


def measured(case: Case) -> Evaluated:
    found = finish(case.evaluator.evaluate(case.model.generator, identity=case.model.digest, seed=case.seed))
    assert found is not None
    return found


def diagnosed(case: Case, *names: str) -> tuple[list[Effect], Plan]:
    chosen = plan(case, names or suspects)
    diagnosis = Diagnosis(measured(case))
    effects = [each for variant in chosen.variants for each in finish(diagnosis.effects(variant)) or []]
    return effects, chosen


def largest(effects: list[Effect]) -> Effect:
    """Of those that a user can do something about."""
    return max((each for each in effects if each.kind in ("making", "measuring")), key=lambda e: abs(e.difference))


# --- planted causes


def test_raw_weights_that_are_worse_are_the_largest_mover(toys: None, toy_data: None, tmp_path: Path):
    for name in ("weights", "ema", "ema-1", "state"):
        (tmp_path / f"{name}.safetensors").touch()
    others = {"raw": painting(LEVEL + 0.5), "ema-1": painting(LEVEL + 0.001)}
    effects, _ = diagnosed(make_case(others=others, path=tmp_path))
    worst = largest(effects)
    assert (worst.suspect, worst.change) == ("weights", "raw weights instead of ema")
    assert worst.seen and not worst.better and worst.difference > 1000
    # The means of twelve quarters, each 0.5 * 127.5 levels away.
    assert worst.difference == pytest.approx(12 * (0.5 * 127.5) ** 2, rel=0.05)
    (near,) = (each for each in effects if each.change.startswith("ema-1"))
    assert abs(near.difference) < worst.difference / 100


def test_averages_that_are_worse_are_found_the_other_way_round(toys: None, toy_data: None, tmp_path: Path):
    for name in ("weights", "ema"):
        (tmp_path / f"{name}.safetensors").touch()
    effects, _ = diagnosed(make_case(painting(0.5), others={"raw": painting()}, path=tmp_path), "weights", "clip")
    best = largest(effects)
    assert best.change == "raw weights instead of ema" and best.seen and best.better
    said = verdict("FD", measured(make_case(painting(0.5))).measurements["fid"], 160, effects)
    assert any("made otherwise would be lower: raw weights instead of ema (-" in line for line in said)


def test_mirrored_references_of_pictures_with_a_side_are_found(toys: None, toy_data: None):
    effects, _ = diagnosed(make_case())
    assert largest(effects).suspect == "flips" and largest(effects).seen and not largest(effects).better


def test_mirroring_pictures_without_a_side_is_noise(toys: None):
    effects, _ = diagnosed(make_case(ToyGenerator(level=0.1), data="shapes(count=700)"), "flips")
    assert abs(effects[0].difference) < 0.1 * effects[0].before


def test_truncation_is_found(toys: None, toy_data: None):
    effects, _ = diagnosed(make_case(), "rounding", "clip", "count")
    worst = largest(effects)
    assert worst.suspect == "rounding" and worst.seen and not worst.better
    # Pictures are 100.7 on average and the data 101: half a level more in each of the twelve quarters.
    assert worst.difference == pytest.approx(12 * (0.8**2 - 0.3**2), rel=0.15)


def test_truncated_pictures_are_one_level_lower_at_most():
    generator = painting()
    exact = (generator.floats(range(40)) + 1) * 127.5
    rounded, cut = generator.generate(range(40)), TruncatedPictures(generator).generate(range(40))
    assert torch.equal(cut, exact.floor().to(torch.uint8)) and torch.equal(rounded, exact.round().to(torch.uint8))
    assert TruncatedPictures(generator).settings() != generator.settings(), "they are not kept as the same pictures"
    white = TruncatedPictures(painting(2.0)).generate(range(2))
    assert int(white.max()) == 255, "what is too bright stays white"


def test_a_test_split_of_another_kind_is_found(toys: None):
    def two_kinds(*, split: Literal["train", "test"] = "train") -> Source:
        """A test set that is darker than its training set."""
        made = left_bright(600, 1) if split == "train" else left_bright(300, 2) - 10
        return Source(f"two-kinds-{split}", lambda size, folder: Reading(list(made)))

    sources.register(two_kinds)
    try:
        effects, _ = diagnosed(make_case(data="two_kinds"), "reference", "floor")
    finally:
        del sources._parts["two_kinds"]
    other = next(each for each in effects if each.kind == "measuring")
    assert other.change == "300 of two_kinds(split='test') instead of 300 of two_kinds"
    # Pictures are 0.3 darker than the one reference in all of the twelve quarters, and 9.7 brighter than the other.
    assert other.seen and other.difference == pytest.approx(12 * (9.7**2 - 0.3**2), rel=0.1)
    assert other.before == next(each.before for each in effects if each.kind == "measuring")


def test_only_the_split_changes(toys: None, toy_data: None):
    """The control is the training set thinned to the size of the test set, not the whole of it."""
    case = make_case()
    baseline = measured(case)
    (variant,) = (each for each in plan(case, ["reference"]).variants if each.kind == "measuring")
    outcome = finish(variant.work(baseline))
    assert outcome is not None and len(outcome.real) == len(outcome.real_before) == 300
    assert torch.equal(outcome.real_before.features, baseline.real.features[drawn(600, 300)])
    assert torch.equal(outcome.real.pixels, get_data("left_right(split='test')", image_size=8).pixels)


# --- how many


def test_sample_size_is_told_from_the_model(toys: None, toy_data: None):
    """A perfect model: all there is, is sample size and rounding of the noise; the halves go up as 1/n."""
    effects, _ = diagnosed(make_case(), "count", "floor")
    sizes = {each.change: each for each in effects if each.kind == "size"}
    assert list(sizes) == ["80 of the pictures", "40 of the pictures", "20 of the pictures"]
    values = [each.measurement.value for each in sizes.values()]
    assert effects[0].before < values[0] < values[1] < values[2]
    case = make_case()
    found = measured(case)
    assert values[1] == metrics["fid"](real=found.real, fake=found.fake.take(slice(40))).value, "the first of them"
    (limit,) = (each for each in effects if each.kind == "limit")
    assert limit.measurement == metrics["fid_infinity"](real=found.real, fake=found.fake)


def test_the_floor_is_real_pictures_in_the_same_number(toys: None, toy_data: None):
    effects, _ = diagnosed(make_case(painting(LEVEL + 0.3)), "floor")
    test = get_data("left_right(split='test')", image_size=8)
    extractor, reference = ToyFeatures().eval(), get_data("left_right", image_size=8)
    some = test.pixels[drawn(300, 160)]
    embedded = [Embedded(extractor(pixels)[0], pixels) for pixels in (reference.pixels, some)]
    assert effects[0].measurement.value == pytest.approx(metrics["fid"](*embedded).value)
    assert effects[0].seen and effects[0].better and not effects[0].paired


def test_without_another_split_one_half_is_held_against_the_other(toys: None):
    effects, chosen = diagnosed(make_case(ToyGenerator(), data="shapes(count=700)"), "floor", "reference")
    assert [each.change for each in effects if each.kind == "floor"] == ["real pictures: one half against the other"]
    assert chosen.left_out == {"reference": "shapes(count=700) has no other split"}
    assert all(each.kind != "measuring" for each in effects)


# --- what is noise


def test_no_change_at_all_is_said_to_be_none(toys: None, toy_data: None):
    effects, _ = diagnosed(make_case(), "clip")
    assert effects[0].difference == effects[0].error == 0 and not effects[0].seen
    assert "none at all" in markdown(effects_table("fid", measured(make_case()), effects))


def shifted(count: int, seed: int, by: float) -> tuple[Embedded, Embedded, Embedded]:
    """A reference, pictures, and the same pictures moved a little."""
    draw = torch.Generator().manual_seed(seed)
    real, fake = torch.randn(2 * count, 4, generator=draw), torch.randn(count, 4, generator=draw) + 0.5
    return _embedded(real), _embedded(fake), _embedded(fake + by + 0.05 * torch.randn(count, 4, generator=draw))


def _embedded(values: Tensor) -> Embedded:
    return Embedded(values, torch.zeros(len(values), 1, 1, 1, dtype=torch.uint8))


def _paired(real: Embedded, before: Embedded, after: Embedded) -> Effect:
    made = {"fid": metrics["fid"](real=real, fake=before)}
    case = make_case(ToyGenerator(), data="shapes(count=40)", settings=SETTINGS.model_copy(update={"images": 12}))
    baseline = replace(measured(case), measurements=made, real=real, fake=before)

    def work(_: Evaluated) -> Iterator[Progress]:
        yield Progress("", 0, 1)
        return Outcome(real, after, real, before)

    (effect,) = finish(Diagnosis(baseline).effects(Variant("toy", "moved", "making", work))) or []  # pyright: ignore[reportArgumentType]
    return effect


def test_the_error_of_a_pair_is_its_spread_over_other_pictures(toys: None):
    """Repeated with other pictures against one reference, the differences scatter as their errors say."""
    real, _, _ = shifted(400, 0, 0.0)
    found = [_paired(real, *shifted(200, seed, 0.1)[1:]) for seed in range(1, 61)]
    differences = torch.tensor([each.difference for each in found])
    errors = torch.tensor([each.error for each in found])
    assert float(errors.square().mean().sqrt()) == pytest.approx(float(differences.std()), rel=0.25)
    low, high = (torch.tensor([each.interval[end] for each in found]) for end in (0, 1))
    truth = float(differences.mean())
    assert 0.87 <= float(((low < truth) & (truth < high)).float().mean()) <= 1
    unpaired = found[0].measurement.error * 2**0.5
    assert float(errors.mean()) < unpaired / 4, "what both sides share is no noise"


def test_a_change_of_nothing_but_noise_is_not_seen(toys: None):
    real, _, _ = shifted(400, 0, 0.0)
    seen = [_paired(real, *shifted(200, seed, 0.0)[1:]).seen for seed in range(100, 140)]
    assert sum(seen) <= 6  # 5 % of 40 is 2; the tiny noise that is added costs some as well


def test_the_same_pictures_are_left_out_of_a_part_as_of_the_whole():
    values = torch.arange(64, dtype=torch.float32)[:, None]
    real, seen = _embedded(values), []

    def look(real: Embedded, fake: Embedded) -> Measurement:
        """Keeps which pictures it is given."""
        seen.append(set(fake.features[:, 0].tolist()))
        return Measurement(0.0, 0.0, 0.0)

    metrics.register(look)
    try:
        values_without("look", real, _embedded(values))
        values_without("look", real, _embedded(values[:24]))
    finally:
        del metrics._parts["look"]
    whole, part = seen[:10], seen[10:]
    assert [each & set(range(24)) for each in whole] == part
    assert {len(each) for each in part} <= {21, 22} and {len(each) for each in whole} == {57, 58}, (
        "every group is equally large"
    )
    left = [set(range(64)) - each for each in whole]
    assert set.union(*left) == set(range(64)) and sum(map(len, left)) == 64
    assert len({number % 10 for number in left[0]}) > 1, "groups are not classes of pictures whose label is the seed's"


# --- plans


def test_cheap_changes_come_first_and_costs_add_up(toys: None, toy_data: None):
    chosen = plan(make_case(painting(steps=4)), suspects)
    efforts = [each.pictures * each.effort for each in chosen.variants]
    assert efforts == sorted(efforts) and efforts[0] == 0
    assert chosen.pictures == 5 * 160, "half and twice the steps, heun, clipping, truncation"
    assert chosen.seconds(0.5) == pytest.approx(0.5 * 160 * (0.5 + 2 + 2 + 1 + 1))
    assert set(chosen.left_out) == {"weights", "guidance", "resizing"}
    assert chosen.left_out["guidance"] == "the model has no labels"


def test_pictures_that_are_there_already_have_fewer_suspects(toys: None):
    chosen = plan(make_case(ToyGenerator(), data="shapes(count=700)"), suspects)
    assert {each.suspect for each in chosen.variants} == {"count", "flips", "floor", "reference"}
    assert chosen.pictures == 0 and "steps" in chosen.left_out and "sampler" in chosen.left_out


def test_a_suspect_that_is_none_is_one_line(toys: None):
    with pytest.raises(RequestError, match="suspects: 'weihgts' is unknown .did you mean 'weights'"):
        plan(make_case(ToyGenerator(), data="shapes(count=40)"), ["count", "weihgts"])


def test_more_steps_than_there_are_levels_are_left_out_alone(toys: None, toy_data: None):
    chosen = plan(make_case(painting(steps=30)), ["steps"])
    assert [each.change for each in chosen.variants] == ["15 steps instead of 30"]
    assert "60" in chosen.left_out["steps"] and "50" in chosen.left_out["steps"]


@pytest.mark.parametrize(
    ("generator", "change"),
    [
        (painting(sampler="heun(churn=2)"), "ddim instead of heun(churn=2)"),
        (painting(sampler="ddpm"), "heun instead of ddpm"),
        (painting(classes=3), "guidance 1.5 instead of 1"),
        (painting(classes=3, guidance=2.5), "guidance 1 instead of 2.5"),
        (painting(clip="static"), "no clipping"),
        (painting(clip="dynamic"), "no clipping"),
        (painting(), "clipping"),
        (painting(guide=painting(0.0).diffusion, guide_name="worse", guidance=2.0), "guidance 1 instead of 2"),
        (painting(guide=painting(0.0).diffusion, guide_name="worse"), "guidance 1.5 instead of 1"),
    ],
)
def test_one_thing_is_changed(toys: None, toy_data: None, generator: DiffusionGenerator, change: str):
    case = make_case(generator)
    (variant,) = (each for each in plan(case, suspects).variants if each.change == change)
    baseline = measured(case)
    outcome = finish(variant.work(baseline))
    assert outcome is not None and outcome.real is baseline.real and outcome.fake_before is baseline.fake
    assert len(outcome.fake) == 160 and outcome.paired


def test_other_ways_of_resizing_are_tried_with_the_same_pictures(toys: None, toy_data: None):
    class Doubling(ToyFeatures):
        """Features that depend on how pictures are resized."""

        def __init__(self, *, resize: Literal["once", "twice", "thrice"] = "once"):
            super().__init__()
            self.factor = {"once": 1, "twice": 2, "thrice": 3}[resize]
            self.resize, self.digest = resize, f"{resize:0<16}"

        def embed(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
            means, _ = super().embed(pixels)
            return means * self.factor, None

    features.register(Doubling)
    try:
        case = make_case(settings=SETTINGS.model_copy(update={"features": "doubling"}))
        effects, _ = diagnosed(case, "resizing")
    finally:
        del features._parts["doubling"]
    assert [each.change.split(",")[0] for each in effects] == ["doubling(resize='twice')", "doubling(resize='thrice')"]
    assert [each.measurement.value / each.before for each in effects] == pytest.approx([4, 9], rel=1e-5)


def test_nothing_is_made_twice(toys: None, toy_data: None):
    case = make_case()
    diagnosed(case)
    again = make_case()
    assert measured(again).made == 0
    for variant in plan(again, ["steps", "sampler", "rounding"]).variants:
        work = variant.work(measured(again))
        pictures = [each for each in work if each.what == "pictures"]
        assert pictures[-1].done == 160
    assert again.evaluator.extractor.seen == 0


def test_a_change_that_fails_takes_no_other_along(toys: None):
    def work(_: Evaluated) -> Iterator[Progress]:
        yield Progress("", 0, 1)
        raise DdmError("the pictures of seed 3 are not finite")

    baseline = measured(make_case(ToyGenerator(), data="shapes(count=200)"))
    effects = Diagnosis(baseline).effects(Variant("toy", "breaks", "making", work))  # pyright: ignore[reportArgumentType]
    assert finish(attempt(effects)) == "the pictures of seed 3 are not finite"


def test_several_metrics_share_the_pictures(toys: None, toy_data: None):
    settings = SETTINGS.model_copy(update={"metrics": ("fid", "mean_gap")})
    effects, _ = diagnosed(make_case(settings=settings), "count", "clip")
    assert [each.metric for each in effects if each.suspect == "clip"] == ["fid", "mean_gap"]
    assert [each.metric for each in effects if each.kind == "limit"] == ["fid"]


def test_a_thinned_set_is_the_one_that_features_are_thinned_to():
    data = ImageSet(torch.arange(70, dtype=torch.uint8).reshape(70, 1, 1, 1), labels=torch.arange(70) % 7)
    whole = Embedded(to_float(data.pixels).flatten(1), data.pixels, labels=data.labels)
    some, thinned = spread_set(data, 33), whole.spread(33)
    assert torch.equal(some.pixels, thinned.pixels)
    assert some.labels is not None and thinned.labels is not None and torch.equal(some.labels, thinned.labels)
    assert spread_set(data, 70) is data


# --- words


def effect(kind: str, change: str, before: float, after: float, error: float = 1.0) -> Effect:
    found = Measurement(after, after - 2 * error, after + 2 * error)
    return Effect("toy", change, kind, "fid", found, before, error, True, 1.0)  # pyright: ignore[reportArgumentType]


BASELINE = Measurement(71.0, 69.0, 73.0)


@pytest.mark.parametrize(
    ("limit", "sentence"),
    [
        (
            21.0,
            "Most of it is sample size: 2,000 pictures add about 50 of the 71; infinitely many would give about 21.",
        ),
        (
            37.0,
            "Some of it is sample size: 2,000 pictures add about 34 of the 71; infinitely many would give about 37.",
        ),
        (
            66.0,
            "Little of it is sample size: 2,000 pictures add about 5 of the 71; infinitely many would give about 66.",
        ),
        (70.0, "Of the FID of 71, no part can be told to be sample size."),
    ],
)
def test_the_first_sentence_is_computed(limit: float, sentence: str):
    assert verdict("FID", BASELINE, 2000, [effect("limit", "infinitely many", 71.0, limit)]) == [sentence]


def test_sentences_name_what_helps_what_harms_and_what_is_noise():
    found = [
        effect("floor", "real pictures", 71.0, 30.0),
        effect("making", "ddim instead of heun", 71.0, 90.0),
        effect("making", "72 steps instead of 36", 71.0, 60.0),
        effect("making", "clipping", 71.0, 71.5),
        effect("measuring", "truncated", 71.0, 75.0),
        effect("size", "a fifth", 71.0, 71.2),
    ]
    assert verdict("FID", BASELINE, 2000, found) == [
        "A perfect model would get about 30 (real pictures, as many): about 41 is the model's own.",
        "The same model's pictures made otherwise would be lower: 72 steps instead of 36 (-11).",
        "It would be higher, made otherwise: ddim instead of heun (+19).",
        "Nothing that was tried in how the pictures are measured would make it lower.",
        "It would be higher, measured otherwise: truncated (+4).",
        "Inside the noise: clipping; a fifth.",
    ]


def test_numbers_that_should_be_high_turn_the_words_around():
    baseline = Measurement(0.5, 0.4, 0.6, better="higher")
    found = Effect(
        "toy", "more steps", "making", "recall", replace(baseline, value=0.7), 0.5, error=0.01, paired=True, seconds=1.0
    )
    assert verdict("recall", baseline, 100, [found])[0].startswith(
        "The same model's pictures made otherwise would be higher"
    )


def test_the_table_has_the_largest_difference_first(toys: None, toy_data: None):
    found = [effect("making", "small", 71.0, 72.0), effect("making", "large", 71.0, 40.0)]
    table = markdown(effects_table("fid", measured(make_case()), found)).splitlines()
    assert table[0].startswith("| suspect") and "FD [toy_features] ↓" in table[0].replace("\\", "")
    assert [line.split("|")[2].strip() for line in table[2:5]] == [
        "160 pictures against 600 of left_right",
        "large",
        "small",
    ]
    assert "inside the noise" in table[4] and "inside the noise" not in table[3]
