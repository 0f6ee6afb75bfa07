"""How many images a second: our training, forward pass, whole loop and sampling beside other people's.

One process measures everything in turns over several rounds, on one device; peak memory on a CPU is that of a fresh
process a row. Prints Markdown, writes JSON after every row, and exits 1 where a number that was promised is missed.
Nothing else should run on the machine. On two CPU cores it takes about ten minutes, on an H100 eight.

    DDM_DATA=... python benchmarks/throughput.py --device cpu --out results/throughput-cpu.json
    python benchmarks/throughput.py --device cuda --out results/throughput-cuda.json
    python benchmarks/throughput.py --device cpu --plan cuda --tiny     # a rehearsal of every line
"""

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from speed.ours import Compile
    from speed.session import Case, Session

PARTS = ("check", "steps", "loops", "sampling", "matrix")
BUDGET = {"cpu": 1200.0, "cuda": 480.0}
"""Seconds after which nothing new is begun."""


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--plan", choices=("cpu", "cuda"), help="what is measured, and how large it is")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the numbers to this .json")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--budget", type=float, help="seconds after which nothing new is begun")
    parser.add_argument("--tiny", action="store_true", help="a rehearsal: tiny networks, few steps, no meaning")
    parser.add_argument("--case", help=argparse.SUPPRESS)  # in the fresh process whose memory is measured
    return parser.parse_args()


def main() -> int:
    arguments = parse()
    if arguments.device == "cpu":
        os.environ["ACCELERATE_USE_CPU"] = "true"  # the peer's trainer takes a GPU where it finds one
    from speed import bounds, pictures
    from speed.cases import groups

    session, plan = make_session(arguments)
    sizes, compile = session.sizes, None
    if plan == "cuda":
        compile = {"backend": "eager"} if arguments.tiny else {}
    with pictures.folder(sizes.pictures, sizes.side) as folder:
        cases = groups(session, folder, compile)
        if arguments.case:
            from speed.memory import report

            every = (case for part in cases.values() for group in part for case in group)
            report(next(case for case in every if case.key == arguments.case))
            return 0
        for part, work in parts(session, plan, compile, cases, folder).items():
            if part in arguments.parts:
                work()
    missed = bounds.missed(session.rows, plan, tuple(arguments.parts))
    session.rows.facts |= {"missed": missed, "seconds": round(time.monotonic() - session.rows.started)}
    session.rows.write()
    print(session.rows.table())
    last = [*bounds.remarks(session.rows, plan), *(f"MISSED: {each}" for each in missed)]
    print("\n".join(["", *session.rows.others(), "", *last]))
    return 1 if missed else 0


def make_session(arguments: argparse.Namespace) -> tuple["Session", str]:
    """What the parts share, and whose plan it is."""
    from speed import memory, sizes
    from speed.device import Device
    from speed.rows import Rows
    from speed.session import Session

    plan = arguments.plan or arguments.device
    chosen = {"cpu": sizes.CPU, "cuda": sizes.CUDA}[plan]
    device = Device(arguments.device)
    rows = Rows(None if arguments.case else arguments.out, facts(arguments, device.name))
    until = rows.started + (arguments.budget or BUDGET[plan])
    chosen = sizes.tiny(chosen) if arguments.tiny else chosen
    session = Session(device, chosen, rows, arguments.rounds, until, arguments.tiny)
    if not device.cuda:
        flags = ["--device", "cpu", "--plan", plan, *(["--tiny"] if arguments.tiny else [])]
        session.memory = partial(memory.ask, flags=flags, only="whole loop/paper/ours" if arguments.tiny else "")
    return session, plan


def parts(
    session: "Session", plan: str, compile: "Compile", cases: dict[str, list[list["Case"]]], folder: Path
) -> dict[str, Callable[[], None]]:
    """The work of each part, in the order in which it is done."""
    from speed import checks, matrix, sampling, whole_run

    def check() -> None:
        for network in ("paper", "ddpm"):
            checks.check(session, network, compile)

    def steps() -> None:
        for group in cases["steps"]:
            session.side_by_side(group)
        if plan == "cuda":
            matrix.nothing_waits(session, compile)

    def loops() -> None:
        for group in cases["loops"]:
            session.side_by_side(group)
        whole_run.measure(session, compile is not None and not session.tiny, folder)

    work = {"check": check, "steps": steps, "loops": loops, "sampling": lambda: sampling.measure(session, compile)}
    return work | ({"matrix": lambda: matrix.measure(session, compile)} if plan == "cuda" else {})


def facts(arguments: argparse.Namespace, device: str) -> dict[str, Any]:
    """Everything for the file that is no row."""
    import torch
    from speed.paper_peer import versioned

    from ddm.runs.environment import commit

    packages = ("torch", "triton", "accelerate", "denoising-diffusion-pytorch", "diffusers")
    return {
        "command": " ".join(["python", "benchmarks/throughput.py", *sys.argv[1:]]),
        "device": device,
        "date": date.today().isoformat(),
        "python": platform.python_version(),
        "packages": [versioned(package) for package in packages],
        "cuda": torch.version.cuda,
        "threads": torch.get_num_threads(),
        "commit": commit(),
        "pictures": "CIFAR-10" if os.environ.get("DDM_DATA") else "smooth noise",
        "rounds": arguments.rounds,
        "tiny": arguments.tiny,
    }


if __name__ == "__main__":
    sys.exit(main())
