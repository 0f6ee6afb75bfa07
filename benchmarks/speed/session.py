"""A run of the benchmark: where, how large, how long, and how a group of cases is measured side by side."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from ddm.networks import networks

from . import roofline
from .device import Device
from .rounds import Spread, Work, interleaved
from .rows import Row, Rows
from .sizes import Sizes


@dataclass(frozen=True)
class Case:
    """One thing that is measured.

    Args:
        what: ``training step``, ``forward pass`` or ``whole loop``.
        network: ``paper``, ``ddpm`` or ``edm``.
        code: ``ours``, or a package and its version.
        settings: what its own defaults were changed to.
        precision: ``fp32`` or ``bf16``.
        batch: pictures a step.
        make: prepares it; the function that it returns is timed.
        steps: in one call of that function.
        note: for the table.
    """

    what: str
    network: str
    code: str
    settings: str
    precision: str
    batch: int
    make: Callable[[], Work]
    steps: int = 1
    note: str = ""

    @property
    def key(self) -> str:
        """Its name on the command line."""
        return f"{self.what}/{self.network}/{self.code}/{self.settings}/{self.precision}/{self.batch}"

    @property
    def kind(self) -> str:
        """Which roofline it has."""
        return "forward" if self.what == "forward pass" else "training"

    def row(self) -> Row:
        """What is known before it is measured."""
        names = ("what", "network", "code", "settings", "precision", "batch")
        note = {"note": self.note} if self.note else {}
        return {"kind": "speed"} | {name: getattr(self, name) for name in names} | note


@dataclass
class Session:
    """Everything that the parts of the benchmark share.

    Args:
        device: they run on.
        sizes: of networks and batches.
        rows: what was measured.
        rounds: turns of each case.
        until: the time on the monotonic clock after which nothing new is begun.
        tiny: whether this is a rehearsal.
        memory: tells the peak memory of a case where the device does not.
    """

    device: Device
    sizes: Sizes
    rows: Rows
    rounds: int
    until: float
    tiny: bool
    memory: Callable[[Case], int | None] = lambda case: None
    ceilings: dict[str, roofline.Ceiling] = field(default_factory=dict)
    costs: dict[str, roofline.Cost] = field(default_factory=dict)

    def ceiling(self, precision: str) -> roofline.Ceiling:
        """What the device was seen to do in a precision; measured when first asked for."""
        if precision not in self.ceilings:
            found = roofline.measure(self.device, precision, tiny=self.tiny)
            self.ceilings[precision] = found
            speeds = {"matmul_tflops": found.matmul / 1e12, "conv_tflops": found.conv / 1e12}
            speeds["gigabytes_per_second"] = found.bandwidth / 1e9
            rounded = {name: float(f"{value:.4g}") for name, value in speeds.items()}
            self.rows.add(kind="ceiling", precision=precision, **rounded)
        return self.ceilings[precision]

    def cost(self, network: str) -> roofline.Cost:
        """What a picture costs ``paper``, ``ddpm`` or ``edm``; the same for everybody's code."""
        if network not in self.costs:
            bound = networks.bind(getattr(self.sizes, network))
            options = {"size": self.sizes.side} if "size" in networks.parameters(bound.func) else {}
            x, t = torch.randn(1, 3, self.sizes.side, self.sizes.side), torch.tensor([500.0])
            self.costs[network] = roofline.cost_of(bound(channels=3, **options), x, t)
            self.rows.add(kind="cost", network=network, **vars(self.costs[network]))
        return self.costs[network]

    def begin(self) -> None:
        """Raise :class:`TimeoutError` where nothing new is begun any more."""
        if time.monotonic() > self.until:
            raise TimeoutError("the time was up")

    @contextmanager
    def attempt(self, row: Row) -> Iterator[None]:
        """A failure in here becomes a row that says so, and the rest goes on."""
        try:
            yield
        except Exception as error:
            said = (str(error).strip().splitlines() or [""])[0][:200]
            self.rows.add(**{**row, "note": f"not measured: {type(error).__name__}: {said}"})
        self.device.free()

    def side_by_side(self, cases: Sequence[Case]) -> None:
        """Measure the cases in turns, a row each; ``ratio`` is how many times as fast the first one is."""
        works: dict[str, Work] = {}
        peaks: dict[str, int | None] = {}
        for case in cases:
            with self.attempt(case.row()):
                works[case.key], peaks[case.key] = self.prepare(case)
        seconds = interleaved(works, self.device, rounds=self.rounds, least=self.sizes.least)
        works.clear()
        self.device.clear()
        for case in cases:
            if case.key in seconds:
                first = seconds.get(cases[0].key) if case is not cases[0] else None
                self.add(case, seconds[case.key], first, peaks[case.key])

    def prepare(self, case: Case) -> tuple[Work, int | None]:
        """The function of a case, warm, and the memory it took at the most."""
        self.begin()
        before = self.device.start_counting()
        work = case.make()
        for _ in range(2):
            work()
        self.device.wait()
        peak = self.device.peak()
        return work, None if peak is None else peak - before

    def add(self, case: Case, seconds: list[float], first: list[float] | None, peak: int | None) -> None:
        """The row of a case that was measured."""
        images = case.batch * case.steps
        speed = Spread.of([images / each for each in seconds])
        cost, ceiling = self.cost(case.network), self.ceiling(case.precision)
        row = case.row() | {"images_per_second": speed.plain()}
        if first is not None:
            row["ratio"] = Spread.of([theirs / ours for theirs, ours in zip(seconds, first)]).plain(4)
        row["tflops"] = float(f"{speed.median * cost.flops(case.kind) / 1e12:.4g}")
        row["roofline"] = round(speed.median * cost.seconds(case.kind, ceiling), 4)
        row["peak_bytes"] = self.memory(case) if peak is None else peak
        self.rows.add(**row)
