"""The studio under load: callers who ask for pictures, some who leave midway, some who mean harm; and its memory.

It is started as a process of its own. Most callers use gradio_client, as programs of other people do, and ask for one
picture after the other; every eighth of their requests is cancelled once its first step is there. Two more send what is
no request. Exits 1 where a request is lost or overtaken, memory, files or threads grow, an answer has a stack trace or
a folder in it, or the page does not answer in the end.

    python benchmarks/studio.py runs/shapes --out results/studio-cpu.json
    python benchmarks/studio.py runs/shapes --callers 4 --seconds 3        # a rehearsal
"""

import argparse
import http.client
import json
import os
import platform
import random
import re
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

CANCELLED = 8
"""Every so-many-th request is cancelled."""

PATIENCE = 60
"""Seconds after which a request counts as lost."""

GROWTH = 0.10
"""Of the resident memory after the first third of the time, at most."""

LEAST = 20
"""Seconds that a process has to be watched for, before its growth says anything."""

EARLY = 1.0
"""Seconds by which one request has to come before another to be served before it: programs cannot tell less apart."""

LEAKS = re.compile(r"Traceback|File \"|site-packages|/(root|home|tmp|usr|work)/")

HARM = (
    ("POST", "/gradio_api/queue/join", b'{"data": [NaN]}'),
    ("POST", "/gradio_api/call/generate", b'{"data": [{"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}]}'),
    ("POST", "/gradio_api/call/generate", b"[" * 50_000),
    ("POST", "/gradio_api/upload", b"x" * 100_000),
    ("GET", "/gradio_api/file=/etc/passwd", b""),
    ("GET", "/../../etc/passwd", b""),
    ("POST", "/gradio_api/call/generate", b'{"data": ["x", "", 64, 0, "heun", "", 1e308, 1]}'),
)


@dataclass
class Seen:
    """What the callers found, and how the process grew.

    Attributes:
        outcomes: how often a request was done, cancelled, busy, failed or lost, and how often harm was answered.
        waits: seconds to the first step.
        spans: when each picture was asked for and when it was there.
        problems: what must not be.
        sizes: of the process: seconds, megabytes, open files, threads.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    waits: list[float] = field(default_factory=list)
    spans: list[tuple[float, float]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    sizes: list[tuple[float, float, int, int]] = field(default_factory=list)

    def overtaken(self) -> int:
        """How many pictures were there before one that had been asked for well before them."""
        spans = sorted(self.spans)
        latest = [max((end for begun, end in spans if begun < start - EARLY), default=0.0) for start, _ in spans]
        return sum(end < before for (_, end), before in zip(spans, latest))

    def growth(self) -> float:
        """Of the memory, from the end of the first third to the end, as a share."""
        sizes = [size for _, size, _, _ in self.sizes]
        third = max(1, len(sizes) // 3)
        return statistics.median(sizes[-third:]) / statistics.median(sizes[third : 2 * third] or sizes) - 1


@contextmanager
def studio(run: str) -> Iterator[tuple[str, int]]:
    """Address and process number of ``ddm studio`` on a run, until the end of the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    call = "import sys; from ddm.cli import main; sys.exit(main())"
    process = subprocess.Popen([sys.executable, "-c", call, "studio", run, "--port", str(port), "--quiet"])
    place = f"127.0.0.1:{port}"
    try:
        while ask(place, "GET", "/")[0] != 200:
            if process.poll() is not None:
                raise SystemExit(f"the studio ended with {process.returncode}")
            time.sleep(0.1)
        yield place, process.pid
    finally:
        process.terminate()
        process.wait(20)


def ask(place: str, method: str, path: str, body: bytes = b"") -> tuple[int, str]:
    """Status and text of an answer; 0 where there is none."""
    line = http.client.HTTPConnection(place, timeout=30)
    try:
        line.request(method, path, body or None, {"content-type": "application/json"})
        answer = line.getresponse()
        return answer.status, answer.read(1_000_000).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return 0, ""
    finally:
        line.close()


def call(place: str, model: str, number: int, end: float, seen: Seen) -> None:
    """One caller, one picture after the other."""
    from gradio_client import Client

    client = Client(f"http://{place}", verbose=False)
    for count in range(10**6):
        if time.monotonic() > end:
            return
        begun = time.monotonic()
        job = client.submit(model, "", 1, number * 1000 + count, "", "", 0, None, api_name="/generate")
        seen.outcomes[follow(job, begun, seen, cancelled=count % CANCELLED == CANCELLED - 1)] += 1


def follow(job: Any, begun: float, seen: Seen, *, cancelled: bool) -> str:
    """How a request ends."""
    try:
        for moment in moments(job):
            if moment["done"] <= 1 or not seen.waits:
                seen.waits.append(time.monotonic() - begun)
            if cancelled:
                job.cancel()
                return "cancelled"
            if "pictures" in moment:
                seen.spans.append((begun, time.monotonic()))
                return "done"
    except Exception as error:
        words = str(error)
        if LEAKS.search(words):
            seen.problems.append(f"an answer says: {words[:200]}")
        return "busy" if "queue is full" in words.lower() or "503" in words else f"failed: {words[:80]}"
    return "lost"


def moments(job: Any) -> Iterator[dict[str, Any]]:
    """What a job gives, one after the other; raises what it failed with, for which its own iterator waits for ever."""
    told, end = 0, time.monotonic() + PATIENCE
    while time.monotonic() < end:
        over, found = job.done(), job.outputs()
        yield from found[told:]
        told = len(found)
        if over:
            job.result()
            return
        time.sleep(0.02)


def harm(place: str, end: float, seen: Seen) -> None:
    """Somebody who sends what is no request."""
    while time.monotonic() < end:
        method, path, body = random.choice(HARM)
        status, text = ask(place, method, path, body)
        seen.outcomes["answers to harm" if status else "harm, line closed"] += 1
        if LEAKS.search(text):
            seen.problems.append(f"{method} {path} says: {text[:200]}")
        time.sleep(0.5)


def watch(process: int, end: float, seen: Seen) -> None:
    """The process, every half second."""
    begun = time.monotonic()
    while time.monotonic() < end:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
        status = dict(line.split(":", 1) for line in lines)
        files = len(os.listdir(f"/proc/{process}/fd"))
        row = (time.monotonic() - begun, int(status["VmRSS"].split()[0]) / 1024, files, int(status["Threads"]))
        seen.sizes.append(row)
        time.sleep(0.5)


def load(place: str, process: int, arguments: argparse.Namespace) -> Seen:
    """Everybody at once."""
    seen, end = Seen(), time.monotonic() + arguments.seconds
    model = Path(arguments.run).resolve().name
    callers = [
        threading.Thread(target=call, args=(place, model, number, end, seen)) for number in range(arguments.callers)
    ]
    threads = [*callers, *(threading.Thread(target=harm, args=(place, end, seen)) for _ in range(2))]
    threads.append(threading.Thread(target=watch, args=(process, end, seen)))
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    if ask(place, "GET", "/")[0] != 200:
        seen.problems.append("the page does not answer any more")
    return seen


def judge(seen: Seen) -> list[str]:
    """What must not be."""
    bad = [f"{count} requests: {name}" for name, count in seen.outcomes.items() if name.startswith(("failed", "lost"))]
    if not seen.outcomes["done"]:
        bad.append("no picture was made")
    if seen.overtaken():
        bad.append(f"{seen.overtaken()} requests were overtaken")
    if seen.sizes[-1][0] >= LEAST:
        bad += grown(seen)
    return [*bad, *dict.fromkeys(seen.problems)]


def grown(seen: Seen) -> list[str]:
    """What has become more."""
    bad = [f"memory grew by {seen.growth():.1%}; allowed: {GROWTH:.0%}"] if seen.growth() > GROWTH else []
    third = len(seen.sizes) // 3
    for name, place in (("open files", 2), ("threads", 3)):
        before, after = max(row[place] for row in seen.sizes[: 2 * third + 1]), seen.sizes[-1][place]
        if after > before * (1 + GROWTH) + 2:
            bad.append(f"{name} grew from {before} to {after}")
    return bad


def report(seen: Seen, arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything in plain values."""
    waits = sorted(seen.waits) or [float("nan")]
    whole = sorted(end - begun for begun, end in seen.spans) or [float("nan")]
    _, first, _, _ = seen.sizes[0]
    return {
        "command": f"python benchmarks/studio.py RUN --callers {arguments.callers} --seconds {arguments.seconds}",
        "date": date.today().isoformat(),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "outcomes": dict(seen.outcomes),
        "pictures a second": seen.outcomes["done"] / arguments.seconds,
        "seconds to the first step, median": statistics.median(waits),
        "seconds to the first step, 95 of 100": waits[int(0.95 * (len(waits) - 1))],
        "seconds to the picture, median": statistics.median(whole),
        "seconds to the picture, 95 of 100": whole[int(0.95 * (len(whole) - 1))],
        "overtaken": seen.overtaken(),
        "megabytes at the start": first,
        "megabytes at most": max(size for _, size, _, _ in seen.sizes),
        "megabytes at the end": seen.sizes[-1][1],
        "growth after the first third": seen.growth(),
        "open files, first and last": [seen.sizes[0][2], seen.sizes[-1][2]],
        "threads, first and last": [seen.sizes[0][3], seen.sizes[-1][3]],
        "problems": judge(seen),
    }


def main() -> int:
    """Run it, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run folder")
    parser.add_argument("--callers", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--out", type=Path, help="JSON file")
    arguments = parser.parse_args()
    os.environ.update(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_OFFLINE="1")
    with studio(arguments.run) as (place, process):
        found = report(load(place, process, arguments), arguments)
    print("| | |\n|---|---|")
    for name, value in found.items():
        print(f"| {name} | {f'{value:.3g}' if isinstance(value, float) else value} |")
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")
    return 1 if found["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
