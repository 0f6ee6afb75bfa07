"""The benchmark of the studio: a few seconds of it, and whether it sees what it is there to see."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("gradio")

from studio import LEAKS, Seen, judge

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "studio.py"


def seen(**changes: object) -> Seen:
    """Of a minute in which all went well."""
    sizes = [(second / 2, 400.0, 20, 10) for second in range(120)]
    good = {"outcomes": Counter(done=3), "spans": [(0.0, 1.0), (0.5, 2.0), (3.0, 4.0)], "sizes": sizes}
    return Seen(**(good | changes))  # pyright: ignore[reportArgumentType]


def test_a_good_minute_has_no_problems():
    assert judge(seen()) == []


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"outcomes": Counter()}, "no picture was made"),
        ({"outcomes": Counter({"done": 3, "lost": 2})}, "2 requests: lost"),
        ({"outcomes": Counter({"done": 3, "failed: boom": 1})}, "1 requests: failed: boom"),
        ({"spans": [(0.0, 9.0), (2.0, 3.0)]}, "1 requests were overtaken"),
        ({"sizes": [(n / 2, 400.0 + 2 * n, 20, 10) for n in range(120)]}, "memory grew by 1"),
        ({"sizes": [(n / 2, 400.0, 20 + n, 10) for n in range(120)]}, "open files grew"),
        ({"sizes": [(n / 2, 400.0, 20, 10 + n) for n in range(120)]}, "threads grew"),
        ({"problems": ["an answer says"]}, "an answer says"),
    ],
)
def test_what_goes_wrong_is_seen(changes: dict[str, object], words: str):
    assert any(each.startswith(words) for each in judge(seen(**changes)))


def test_leaks_are_known_by_their_looks():
    assert LEAKS.search('File "/a/b.py", line 3') and LEAKS.search("open /home/me/x") and not LEAKS.search("a / b")


def test_callers_are_served_in_turn(runs: list[Path], tmp_path: Path):
    out = tmp_path / "found.json"
    command = [sys.executable, SCRIPT, runs[0], "--callers", "4", "--seconds", "4", "--out", out]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(out.read_text())
    assert found["outcomes"]["done"] >= 4 and found["outcomes"]["answers to harm"] >= 4
