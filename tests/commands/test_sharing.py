"""Pictures that several processes make together are those of one, and each makes its share: threads stand for them."""

import copy
import math
import signal
import threading
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from ddm.commands.console import Console
from ddm.commands.editing import Edit, FromPictures, Inverted
from ddm.commands.previews import preview
from ddm.commands.sharing import Shared
from ddm.commands.stopping import Stop
from ddm.commands.training import _Session
from ddm.commands.work import Work
from ddm.diffusion import GaussianDiffusion
from ddm.errors import DdmError
from ddm.generators import DiffusionGenerator
from ddm.networks.base import Network
from ddm.runs.model import Model
from ddm.training import Team, processes
from teams import Threads

CLASSES = 3


class Counted(Network):
    """A guess that depends on the picture, and how many pictures it was asked for."""

    def __init__(self):
        super().__init__(channels=3, classes=CLASSES, divisor=1)
        self.scale = torch.nn.Parameter(torch.tensor(0.7))
        self.seen, self.value = 0, 1.0

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        self.seen += len(x)
        return (3 * x * self.scale).sin() * self.value


class Alone(Team):
    """The only process there is."""

    def __init__(self):
        self.rank, self.count, self.device = 0, 1, torch.device("cpu")


def make(sampler: str = "heun", network: Network | None = None) -> DiffusionGenerator:
    return DiffusionGenerator(GaussianDiffusion(network or Counted()), shape=(3, 4, 4), steps=3, sampler=sampler)


def work_of(count: int, *, sampler: str = "heun", batch: int = 3, edit: Edit | None = None) -> Work:
    labels = [number % CLASSES for number in range(count)]
    return Work(Model("m", "run", make(sampler), "0" * 64), range(5, 5 + count), labels, None, batch, edit)


def pictures(count: int) -> Tensor:
    return torch.randint(0, 256, (count, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def bar():
    return Console(quiet=True).bar(1)


def seen(generator: DiffusionGenerator) -> int:
    (network,) = generator.networks
    assert isinstance(network, Counted)
    return network.seen


@pytest.mark.parametrize("count", [1, 2, 5, 7, 16])
@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("edit", [None, "from", "invert"])
def test_pictures_are_those_of_one_process(
    count: int, processes: int, edit: str | None, monkeypatch: pytest.MonkeyPatch
):
    change = None
    if edit is not None:
        change = FromPictures(pictures(count), 2.0) if edit == "from" else Inverted(pictures(count))
    asked = []

    def on_one(team: Team):
        shared = Shared(work_of(count, edit=change), team)
        made = shared.make(bar())
        asked.append(seen(shared.work.model.generator))
        return shared.work.batch, made

    (_, alone), total = on_one(Alone()), asked.pop()
    batches = {batch for batch, _ in Threads(processes, monkeypatch).run(on_one)}
    assert len(batches) == 1
    assert max(batches) <= 3
    for _, made in Threads(processes, monkeypatch).run(on_one):
        assert made.work.numbers == range(5, 5 + count)
        assert torch.equal(made.pictures, alone.pictures)
        assert len(made.shown) == len(alone.shown)
        assert all(map(torch.equal, made.shown, alone.shown))
    assert max(asked) <= total * (math.ceil(count / processes) + 1) / count, "none made much more than its share"


@pytest.mark.parametrize("sampler", ["heun", "adaptive(tolerance=0.001)"])
@pytest.mark.parametrize("count", [1, 5])
def test_films_are_those_of_one_process(sampler: str, count: int, monkeypatch: pytest.MonkeyPatch):
    """Some samplers take more steps for some pictures; none may wait for ever for one that is done."""

    def film(team: Team) -> list[Tensor]:
        return list(Shared(work_of(count, sampler=sampler), team).frames(bar()))

    alone = film(Alone())
    for frames in Threads(3, monkeypatch).run(film):
        assert len(frames) == len(alone)
        assert all(map(torch.equal, frames, alone))


def test_the_films_of_some_samplers_are_longer_for_some_pictures():
    """Or the test above could not fail for them."""
    whole = work_of(5, sampler="adaptive(tolerance=0.001)")
    assert len({len(list(whole.part(place, place + 1).frames(bar()))) for place in range(5)}) > 1


def test_a_picture_that_is_not_finite_is_an_error_on_all(monkeypatch: pytest.MonkeyPatch):
    errors = []

    def spoiled(team: Team) -> None:
        shared = Shared(work_of(4), team)
        if team.rank == 1:
            shared.work.model.generator.networks[0].value = math.nan  # pyright: ignore[reportAttributeAccessIssue]
        with pytest.raises(DdmError) as raised:
            shared.make(bar())
        errors.append(str(raised.value))

    Threads(2, monkeypatch).run(spoiled)
    assert [each.startswith("pictures of seeds 7, 8 are not finite") for each in errors] == [True, True]


@pytest.mark.parametrize("count", [1, 4, 5])
def test_the_grid_of_a_training_is_shared(count: int, monkeypatch: pytest.MonkeyPatch):
    alone = make()
    whole = preview(alone, count, Alone(), Stop())
    asked = []

    def shared(team: Team) -> Tensor:
        generator = copy.deepcopy(make())
        sheet = preview(generator, count, team, Stop())
        asked.append(seen(generator))
        return sheet

    for sheet in Threads(2, monkeypatch).run(shared):
        assert torch.equal(sheet, whole)
    assert asked == [seen(alone) * math.ceil(count / 2) // count] * 2, "all make equally many"


def test_a_signal_to_one_process_leaves_none_waiting(monkeypatch: pytest.MonkeyPatch):
    def told(team: Team) -> torch.Size:
        return preview(make(), 5, team, Stop(signal.SIGTERM if team.rank else None)).shape

    assert len(set(Threads(2, monkeypatch).run(told))) == 1


def test_a_signal_that_comes_while_they_agree_is_not_lost(monkeypatch: pytest.MonkeyPatch):
    """The one that is told waits for the others most of the time, so that most signals come then."""

    def told(team: Team) -> tuple[bool, bool]:
        session, before = object.__new__(_Session), threading.Event()
        session.stop = Stop()

        def gather(part: Tensor) -> Tensor:
            found = processes.gather(part)
            if team.rank == 1 and not before.is_set():
                session.stop.signal = signal.SIGTERM
                before.set()
            assert isinstance(found, Tensor)
            return found

        accelerator = SimpleNamespace(num_processes=2, gather=gather)
        session.trainer = SimpleNamespace(accelerator=accelerator, device=torch.device("cpu"))  # pyright: ignore[reportAttributeAccessIssue]
        return session._told_to_stop(1), session._told_to_stop(2)

    assert Threads(2, monkeypatch).run(told) == [(False, True), (False, True)]
