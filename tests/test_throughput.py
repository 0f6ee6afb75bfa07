"""The benchmark of speed: every part in small, the arithmetic of the roofline, and what a missed number does."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from speed import bounds, checks, ours, paper_peer, roofline, sizes, transforms
from speed.device import Device
from speed.rounds import Spread, interleaved
from speed.rows import Rows
from speed.session import Case, Session
from torch import nn

import ddm

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def session(rows: Rows | None = None) -> Session:
    return Session(Device("cpu"), sizes.tiny(sizes.CPU), rows or Rows(None, {}), 2, float("inf"), True)


def test_the_rehearsal_goes_through_everything(tmp_path: Path):
    out = tmp_path / "throughput.json"
    command = [sys.executable, str(BENCHMARKS / "throughput.py"), "--tiny", "--rounds", "1", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stderr
    found = json.loads(out.read_text())
    assert {"device", "packages", "date", "command", "threads"} <= set(found)
    assert [row["note"] for row in found["rows"] if "not measured" in row.get("note", "")] == []
    speeds = [row for row in found["rows"] if row["kind"] == "speed"]
    assert {row["what"] for row in speeds} == {"training step", "forward pass", "whole loop", "whole run"}
    assert all(row["images_per_second"][0] > 0 for row in speeds)
    assert sum("ratio" in row for row in speeds) == 6
    assert sum(row["peak_bytes"] is not None for row in speeds) == 1  # of one fresh process
    assert all(row["within"] for row in found["rows"] if row["kind"] == "check")
    assert [row["evaluations"] for row in found["rows"] if row["kind"] == "sampling"] == [4]
    assert done.stdout.count("MISSED: ") == len(found["missed"])
    assert done.returncode == (1 if found["missed"] else 0)


def test_operations_are_those_of_the_closed_form():
    network = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.GroupNorm(1, 5), nn.Conv2d(5, 7, 2, stride=2, bias=False))
    cost = roofline.cost_of(Timeless(network), torch.randn(2, 3, 8, 8), torch.zeros(2))
    assert cost.macs == 3 * 9 * 5 * 64 + 5 * 4 * 7 * 16
    assert cost.moved == (3 + 5) * 64 + 5 * 64 + 7 * 16
    assert cost.normalized == 5 * 64
    ceiling = roofline.Ceiling(matmul=2.0, conv=1.0, bandwidth=4.0, size=2)
    assert cost.seconds("forward", ceiling) == cost.macs + (cost.moved + 2 * cost.normalized) / 2
    assert cost.seconds("training", ceiling) == 3 * cost.macs + (3 * cost.moved + 7 * cost.normalized) / 2


class Timeless(nn.Module):
    """A network that is told no timestep."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return self.network(x)


@pytest.mark.parametrize(("name", "macs"), [("paper", 1.825e9), ("ddpm", 6.222e9)])
def test_networks_cost_what_was_counted_of_others(name: str, macs: float):
    """Independent counts of denoising-diffusion-pytorch's network and of DDPM's."""
    network = ours.make_network(getattr(sizes.CPU, name), 32, torch.device("cpu"), None)
    cost = roofline.cost_of(network, torch.randn(1, 3, 32, 32), torch.tensor([500.0]))
    assert cost.macs == pytest.approx(macs, rel=0.01)


def test_attention_is_counted():
    network = ddm.ResidualUnet(16, (1, 2), blocks=1, size=16, attention=(8,), head_width=None)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):  # plain products
        expected = roofline.cost_of(network, torch.randn(1, 3, 16, 16), torch.zeros(1))
    assert roofline.cost_of(network, torch.randn(1, 3, 16, 16), torch.zeros(1)) == expected


def test_the_spread_is_the_quartiles():
    assert Spread.of([5.0, 1.0, 2.0, 4.0, 3.0]).plain() == [3.0, 2.0, 4.0]
    assert Spread.of([2.0]).plain() == [2.0, 2.0, 2.0]


def test_turns_are_taken():
    said: list[str] = []
    works = {name: (lambda name=name: said.append(name)) for name in "abc"}
    found = interleaved(works, Device("cpu"), rounds=3, least=0.0)
    assert "".join(said) == "abcbcacab"
    assert [len(seconds) for seconds in found.values()] == [3, 3, 3]


def test_a_failure_is_a_row_and_the_rest_goes_on():
    def broken() -> None:
        raise ImportError("no such package")

    here = session()
    makes = {"ours": lambda: lambda: torch.ones(1), "peer": broken}
    cases = [Case("training step", "paper", code, "", "fp32", 2, make) for code, make in makes.items()]
    here.side_by_side(cases)
    ok, failed = here.rows.find(kind="speed", code="ours"), here.rows.find(kind="speed", code="peer")
    assert ok[0]["images_per_second"][0] > 0
    assert failed[0]["note"] == "not measured: ImportError: no such package"
    here.until = 0
    here.side_by_side(cases[:1])
    assert here.rows.all[-1]["note"] == "not measured: TimeoutError: the time was up"


def rows(training: float, forward: float, loop: float, *, memory: int = 90, seconds: float = 0.5) -> Rows:
    """Ratios of a run on a CPU."""
    found = Rows(None, {})
    found.all.append({"kind": "check", "network": "paper", "within": True})
    for what, ratio in {"training step": training, "forward pass": forward, "whole loop": loop}.items():
        same = {"kind": "speed", "what": what, "network": "paper"}
        found.all.append({**same, "code": "ours", "peak_bytes": memory})
        peer = {"code": "denoising-diffusion-pytorch 2.3.4", "peak_bytes": 100, "ratio": [ratio, 0.0, 9.0]}
        found.all.append({**same, **peer})
    found.all.append({"kind": "sampling", "pictures": 16, "seconds": [seconds, 0.4, 0.6]})
    return found


PARTS = ("check", "steps", "loops", "sampling")


def test_nothing_is_missed_where_all_holds():
    assert bounds.missed(rows(1.8, 2.2, 2.0), "cpu", PARTS) == []


def test_every_number_can_be_missed():
    found = bounds.missed(rows(1.7, 2.1, 1.9, memory=101, seconds=1.5), "cpu", PARTS)
    assert len(found) == 6
    assert found[0] == "training step, paper: ours is 1.70 times as fast as the peer; needed: 1.8"
    assert len(bounds.missed(rows(1.7, 2.1, 1.9), "cpu", ("loops",))) == 1
    assert len(bounds.missed(Rows(None, {}), "cpu", PARTS)) == 7
    assert len(bounds.missed(Rows(None, {}), "cuda", PARTS)) == 6
    wrong = rows(1.8, 2.2, 2.0)
    wrong.all[0]["within"] = False
    assert len(bounds.missed(wrong, "cpu", PARTS)) == 1


def test_what_a_gpu_must_reach():
    found = Rows(None, {})
    found.all.append({"kind": "check", "network": "paper", "within": True})
    speed = {"kind": "speed", "what": "training step", "network": "paper", "code": "ours"}
    found.all += [{**speed, "images_per_second": [value, value, value]} for value in (8000.0, 9500.0)]
    found.all.append({"kind": "speed", "what": "whole loop", "network": "paper", "code": "ours"})
    peer = {"code": "denoising-diffusion-pytorch 2.3.4", "ratio": [4.1, 4.0, 4.2]}
    found.all.append({"kind": "speed", "what": "whole loop", "network": "paper", **peer})
    found.all.append({"kind": "share of the bare step", "value": 0.96})
    found.all.append({"kind": "no waiting", "network": "paper", "waited": False})
    found.all.append({"kind": "sampling", "pictures": 50_000, "seconds": [55.0, 54.0, 56.0]})
    assert bounds.missed(found, "cuda", PARTS) == []
    (remark,) = bounds.remarks(found, "cuda")
    assert "9,500 images/s at best; the target is 14,500" in remark
    assert bounds.remarks(found, "cpu") == []
    del found.all[2]
    found.all[-2] |= {"waited": None, "note": "not measured: RuntimeError: called a synchronizing CUDA operation"}
    assert len(bounds.missed(found, "cuda", PARTS)) == 2


def test_wrong_numbers_are_seen():
    here = session()
    checks.check(here, "paper", None)
    checks.check(here, "paper", {"backend": slightly_off})
    right, wrong = here.rows.find(kind="check")
    assert right["within"]
    assert right["outputs"] < 1e-5
    assert not wrong["within"]
    assert wrong["outputs"] == pytest.approx(0.01, rel=0.01)


def slightly_off(graph: torch.fx.GraphModule, _: list[torch.Tensor]):
    """A compiler that makes a mistake."""
    return lambda *inputs: tuple(1.01 * output for output in graph(*inputs))


def test_stand_ins_for_torchvision_do_what_it_does():
    """Against the definitions: [0, 1], channels first, the middle, the size asked for."""
    from PIL import Image

    picture = Image.new("RGB", (6, 4), (255, 0, 51))
    picture.putpixel((5, 0), (0, 0, 0))
    x = transforms.Compose([transforms.Resize((4, 6)), transforms.CenterCrop((4, 4)), transforms.ToTensor()])(picture)
    assert x.shape == (3, 4, 4)
    assert x[:, 0, 0].tolist() == pytest.approx([1.0, 0.0, 0.2])
    assert transforms.ToTensor()(picture)[:, 0, 5].tolist() == [0, 0, 0]
    assert transforms.Resize((8, 8))(picture).size == (8, 8)
    flips = [transforms.RandomHorizontalFlip()(picture).getpixel((0, 0)) == (0, 0, 0) for _ in range(200)]
    assert 60 < sum(flips) < 140


def test_the_peer_is_left_as_it_was_found():
    before = set(sys.modules)
    paper_peer.package()
    assert "torchvision" not in set(sys.modules) - before
