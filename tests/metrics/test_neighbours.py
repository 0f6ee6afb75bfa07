import pytest
import torch
from prdc import compute_prdc
from torch import Tensor

from ddm.errors import RequestError
from ddm.metrics import nearest as nearest_module
from ddm.metrics import neighbours as module
from ddm.metrics.intervals import jackknife_error, random_groups
from ddm.metrics.nearest import nearest, squared_distances
from ddm.metrics.neighbours import _coverage_variance, coverage, density, precision, recall
from metrics.samples import calibration, embedded, lognormal, normal, source

ALL = {"precision": precision, "recall": recall, "density": density, "coverage": coverage}
SETS = {
    "narrow": lambda n, random: normal(n, 8, random) * 0.8 + 0.2,
    "wide": lambda n, random: normal(n, 8, random) * 1.3,
    "lognormal": lambda n, random: lognormal(n, 8, random) - 1,
}


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("n", [40, 300])
def test_prdc_agrees(name: str, k: int, n: int):
    random = source(1)
    real, fake = normal(200, 8, random), SETS[name](n, random)
    peer = compute_prdc(real.numpy(), fake.numpy(), k)
    for metric, measure in ALL.items():
        found = measure(embedded(real), embedded(fake), k=k)
        assert found.value == pytest.approx(peer[metric], abs=1e-12), metric
        assert found.better == "higher"


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch):
    random = source(2)
    real, fake = normal(90, 4, random), normal(70, 4, random)
    whole = [measure(embedded(real), embedded(fake)) for measure in ALL.values()]
    monkeypatch.setattr(nearest_module, "ENTRIES", 200)
    monkeypatch.setattr(nearest_module, "CACHED", 50)
    monkeypatch.setattr(module, "ENTRIES", 200)
    assert [measure(embedded(real), embedded(fake)) for measure in ALL.values()] == whole


def test_equal_sets_and_copies_lie_inside():
    """Every distance between copies is a tie, which rounding must not break: far from 0 it would."""
    random = source(3)
    real = (normal(150, 32, random) + 1000).float()
    for fake in (real.flip(0), real[:30].repeat(5, 1), real[:1].expand(60, -1)):
        found = {name: measure(embedded(real), embedded(fake)) for name, measure in ALL.items()}
        assert found["precision"].value == 1
        assert found["density"].value >= 0.2
    found = {name: measure(embedded(real), embedded(real.flip(0))) for name, measure in ALL.items()}
    assert found["recall"].value == found["coverage"].value == 1
    # Each picture lies within its own reach and that of all that have it among their nearest 5: 6 / 5 on average.
    assert found["density"].value == pytest.approx(1.2)


def test_nothing_in_common():
    random = source(4)
    real, fake = embedded(normal(50, 4, random)), embedded(normal(60, 4, random) + 100)
    for measure in ALL.values():
        found = measure(real, fake)
        assert found.value == 0 and found.low <= 0 <= found.high
    assert precision(real, fake).high == pytest.approx(1.96**2 / (60 + 1.96**2))


@pytest.mark.parametrize("k", [1, 3, 12])
def test_the_jackknife_of_recall_is_recall_without_each_group(k: int):
    random = source(5)
    real, fake = embedded(normal(80, 5, random)), embedded(normal(95, 5, random) * 0.8)
    dealt = random_groups(fake.features, 20)
    without = [recall(real, fake.take(dealt != group), k=k).value for group in range(20)]
    assert recall(real, fake, k=k).error == pytest.approx(jackknife_error(torch.tensor(without, dtype=torch.float64)))


@pytest.mark.parametrize("name", SETS)
def test_the_interval_is_the_spread_over_repetitions(name: str):
    """That of recall is wide rather than narrow."""
    random = source(6)
    real = embedded(normal(300, 8, random))
    fakes = [embedded(SETS[name](200, random)) for _ in range(150)]
    limits = {"precision": (0.85, 1.2), "density": (0.85, 1.15), "coverage": (0.8, 1.3), "recall": (1.0, 2.5)}
    found = {metric: [] for metric in ALL}
    for fake in fakes:
        for metric, measure in ALL.items():
            found[metric].append(measure(real, fake, k=3))
    for metric, (low, high) in limits.items():
        assert low < calibration(found[metric]) < high, metric


def test_the_variance_of_coverage_is_that_of_balls_in_boxes():
    """Boxes that are hit by at least one of n balls, where every ball hits one: the classical occupancy problem."""
    boxes, balls, random = 200, 200, source(12)
    alone, pair = (1 - 1 / boxes) ** balls, (1 - 2 / boxes) ** balls
    expected = boxes * alone + boxes * (boxes - 1) * pair - (boxes * alone) ** 2
    found = []
    for _ in range(300):
        count = torch.randint(boxes, (balls,), generator=random).bincount(minlength=boxes)
        mark = torch.where(count > 0, torch.arange(boxes) + 1.0, 0.0)
        found.append(_coverage_variance(count, mark, balls))
    assert torch.tensor(found).mean().item() == pytest.approx(expected, rel=0.1)


def test_the_work_is_shared(monkeypatch: pytest.MonkeyPatch):
    searches, comparisons = [], []

    def counted(calls: list[int], function):
        return lambda *arguments, **options: calls.append(1) or function(*arguments, **options)

    monkeypatch.setattr(module, "nearest", counted(searches, nearest))
    monkeypatch.setattr(module, "squared_distances", counted(comparisons, squared_distances))
    random = source(8)
    real, fake = embedded(normal(50, 4, random)), embedded(normal(40, 4, random))
    for measure in (precision, recall, density, coverage):
        measure(real, fake)
    assert len(searches) == 2, "within each set, once"
    assert len(comparisons) == 2, "between them, once for k = 3 and once for k = 5"


def neighbours_by_hand(features: Tensor, count: int) -> Tensor:
    distances = (features[:, None] - features).square().sum(2)
    return distances.fill_diagonal_(torch.inf).sort(1).values[:, :count]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nearest_distances_are_exact(dtype: torch.dtype):
    features = normal(60, 10, source(9)).to(dtype)
    features[7] = features[3]
    found = nearest(features, features, 5, among_themselves=True)
    torch.testing.assert_close(found.distances, neighbours_by_hand(features.double(), 5), rtol=1e-12, atol=0)
    assert found.distances[3, 0] == found.distances[7, 0] == 0
    assert found.indices[3, 0] == 7 and found.indices[7, 0] == 3
    other = nearest(features[:4], features, 60)
    assert other.indices.sort(1).values.equal(torch.arange(60).expand(4, -1))


def test_at_most_so_many_pictures_of_either_kind():
    random = source(10)
    real, fake = embedded(normal(90, 4, random)), embedded(normal(70, 4, random))
    for measure in ALL.values():
        found = measure(real, fake, pictures=50)
        assert found.value == measure(real.spread(50), fake.spread(50)).value
        assert found.details == {"n_real": 50, "n_fake": 50}


def test_too_few_pictures():
    many, few = embedded(torch.eye(9)), embedded(torch.eye(9)[:4])
    with pytest.raises(RequestError, match=r"^generated pictures: 4 are too few; allowed: 5 or more$"):
        precision(many, few)
    with pytest.raises(RequestError, match=r"^real pictures: 4 are too few; allowed: 6 or more$"):
        coverage(few, many)
    assert precision(few, embedded(torch.eye(9)[:5])).value == 1
