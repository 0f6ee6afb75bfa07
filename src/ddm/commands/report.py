"""One HTML file that shows a run: samples, films, curves, nearest training pictures, numbers, settings; for sharing."""

import argparse
import json
from pathlib import Path

from ddm.commands.console import Console, Stages
from ddm.errors import RequestError

EXAMPLES = """examples:
  ddm report runs/edm
  ddm report runs/edm --out edm.html --device cpu
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("run", metavar="RUN", help="a run folder, finished or not")
    parser.add_argument("--out", default=None, help="the page (default: RUN/report.html)")
    parser.add_argument("--device", default="auto", help="that makes the pictures: auto, cpu, cuda or mps")


def run(arguments: argparse.Namespace) -> int:
    """Check the request, gather, write."""
    from ddm.runs.folder import Run

    path = Path(arguments.run).expanduser()
    found, out = Run.open(path), check_out(arguments.out or str(path / "report.html"))
    from ddm.training import pick_device

    pick_device(arguments.device)
    from ddm.runs.atomic import replace_file
    from ddm.runs.progress import finish
    from ddm.runs.report import gather, render

    console = Console(quiet=arguments.quiet, json=arguments.json)
    stages = Stages(console)
    try:
        work = gather(found, device=arguments.device, say=console.say)
        report = finish(work, lambda progress: stages(progress.what, progress.done, progress.total))
    finally:
        stages.close()
    assert report is not None, "nothing leaves early"
    page = render(report).encode()
    replace_file(out, page)
    console.result(str(out), out=str(out), bytes=len(page), **json.loads(json.dumps(vars(report.state))))
    console.say(f"{len(page) / 1e6:.1f} MB, one file that needs no other.  next: open it in a browser")
    return 0


def check_out(text: str) -> Path:
    """Where the page goes; raises :class:`RequestError` where that is no .html file."""
    path = Path(text).expanduser()
    if path.suffix.lower() not in (".html", ".htm") or path.is_dir():
        raise RequestError(f"out: {text!r} is not allowed; allowed: a .html file")
    return path
