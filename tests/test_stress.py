"""The campaigns of ``make stress``, each for a few seconds, and whether they see what they are there to see."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import scipy.stats

from counts import STRESS
from kill_and_compare import records
from stress import campaigns, flat, full_disk, kills, second, signals, suite
from stress.page import page
from stress.plan import NotHere, Plan, Tally, problem_of
from stress.rows import Kept, Row, totals, upper
from stress.starting import Starter, starter, until
from stress.suite import Suite
from stress.tiny import train

here = pytest.mark.skipif(bool(STRESS), reason="make stress does it at length")


@pytest.fixture(scope="module")
def processes() -> Iterator[Starter]:
    with starter() as found:
        yield found


@pytest.fixture
def plan(processes: Starter, tmp_path: Path) -> Plan:
    return Plan(processes, tmp_path)


@here
def test_a_full_disk_ends_no_training(plan: Plan):
    try:
        row = full_disk.fill(plan, 4)
    except NotHere as reason:
        pytest.skip(str(reason))
    assert row.problems == [] and row.passed == row.count == 5
    assert int(row.note.split()[0]) >= 2, "the disk was hardly ever full"


@here
def test_a_training_that_is_told_to_leave_saves_first(plan: Plan):
    moments = plan.random("test")
    assert [signals.told(plan, "told", count, moments) < 30 for count in (1, 1, 2)] == [True] * 3


@here
def test_kills_at_random_moments_change_nothing(plan: Plan):
    row = kills.kill(plan, 1, 2, steps=40)
    assert row.problems == [] and row.passed == row.count >= 2


@here
def test_a_second_trainer_is_refused(plan: Plan):
    (first,) = train(plan, "run", *second.OPTIONS)
    assert until(lambda: (plan.folder / "run" / "metrics.jsonl").exists(), 60)
    assert second.refused(plan) < 30
    first.kill()


@here
def test_a_training_stays_flat(plan: Plan):
    row = flat.stay(plan, steps=1600, early=150, every=10, slower=1.0)  # others work on this machine
    assert row.problems == [] and row.passed == row.count == 4


def test_what_grows_is_seen():
    looks = [flat.Look(step, step / 50, step * 0.01, 100 + step / 10, 8, 1) for step in range(0, 1000, 10)]
    grown = {name: value(looks[-11:]) / value(looks[5:16]) for name, value in flat.MEASURES.items()}
    assert grown["MB"] > 1 + flat.MORE and grown["files"] == grown["threads"] == 1
    assert flat.milliseconds(looks) == pytest.approx(10)


def test_an_old_run_slower_than_a_young_one_is_seen(plan: Plan, monkeypatch: pytest.MonkeyPatch):
    def run(begun: int, slowness: float) -> list[flat.Look]:
        return [flat.Look(10 * n, begun + n, n * 0.1 * slowness, 100, 8, 1) for n in range(1, 100)]

    monkeypatch.setattr(flat, "watch", lambda *_, **__: (run(0, 1.08), run(50, 1)))
    row = flat.stay(plan, steps=1000, early=150, every=10)
    assert row.passed == 3 and row.problems == ["ms a step grew from 10 to 10.8 at step 1,000"]


def test_a_log_that_differs_is_seen(plan: Plan):
    for name, seed in (("one", 0), ("other", 1)):
        (child,) = train(plan, name, "--steps=3", f"--train.seed={seed}", "--every.save=3")
        assert child.wait() == 0, child.said.read_text()
    assert records(plan.folder / "one") != records(plan.folder / "other")
    assert problem_of(lambda: kills.assert_same_run(plan.folder / "one", plan.folder / "other", last=2))


def test_processes_end_with_what_they_say(plan: Plan):
    child = plan.starter.ddm("list", "samplers", said=plan.folder / "a.txt")
    assert child.wait() == 0 and "heun" in child.said.read_text()
    child = plan.starter.ddm("train", "nothing", said=plan.folder / "b.txt")
    assert child.wait() == 2 and "ddm: recipe: 'nothing'" in child.said.read_text()
    child = plan.starter.call("os:abort", said=plan.folder / "c.txt")
    assert child.wait() == -signal.SIGABRT
    child = plan.starter.call("time:sleep", 60, said=plan.folder / "d.txt")
    assert child.poll() is None
    with pytest.raises(TimeoutError):
        child.wait(0.1)
    child.kill()
    assert child.status == -signal.SIGKILL


def test_nothing_is_left_when_the_starter_ends(tmp_path: Path):
    with starter() as found:
        child = found.call("time:sleep", 60, said=tmp_path / "a.txt")
        assert os.path.exists(f"/proc/{child.pid}")
    assert until(lambda: not os.path.exists(f"/proc/{child.pid}"), 10)


@pytest.mark.parametrize(("lost", "count"), [(0, 1), (0, 100), (0, 1000), (3, 50), (49, 50)])
def test_the_bound_is_that_of_clopper_and_pearson(lost: int, count: int):
    interval = scipy.stats.binomtest(lost, count).proportion_ci(confidence_level=0.9, method="exact")
    assert upper(lost, count) == pytest.approx(interval.high, rel=1e-6)
    if not lost:
        assert upper(0, count) == pytest.approx(1 - 0.05 ** (1 / count))
    assert upper(5, 5) == 1


def test_the_last_line_counts_faults_alone(tmp_path: Path):
    kept = Kept(tmp_path / "deep" / "rows.jsonl")
    for row in (
        Row("F1", "a", 1200, 1200),
        Row("F3", "b", 9, 10, problems=["x|y"]),
        Row("F16", "c", 0, 4, faults=False),
    ):
        kept.add(row)
    assert totals(kept.rows) == "faults injected 1,210, survived 1,209, lost 1"
    assert len(kept.path.read_text().splitlines()) == 3
    again = Kept(kept.path, anew=False)
    again.add(Row("F1", "a", 3, 3, seed=7, commit="abc", machine="this"))
    assert [row.count for row in Kept(kept.path, anew=False).rows] == [10, 4, 3]
    text = page([*kept.rows, *campaigns.NOT_HERE], command="make stress", full=False)
    assert "| F3 | b | 9 / 10 | 39.42% |" in text and "| F16 | c | 0 / 4 | - |" in text
    assert "- F3: x|y" in text and "needs a network" in text
    assert text.index("| F3 |") < text.index("| F10 |") < text.index("| F16 |")


def test_tests_are_counted_with_the_faults_they_say(plan: Plan, monkeypatch: pytest.MonkeyPatch):
    (plan.folder / "tests").mkdir()
    (plan.folder / "tests" / "test_some.py").write_text(
        "import pytest\n"
        "def test_a(record_property): record_property('faults', 7); record_property('seconds', 1.5)\n"
        "def test_b(record_property): record_property('faults', 9); assert 0, 'lost'\n"
        "def test_c(): pass\n"
        "def test_d(): pytest.skip('no cable')\n"
    )
    monkeypatch.setattr(suite, "ROOT", plan.folder)
    asked = Suite("F0", "what", "all", ("test_some.py",), workers=0)
    (row,) = suite.campaign_of(asked)(plan)
    assert (row.passed, row.count) == (8, 9)
    assert row.problems[0].startswith("test_b: AssertionError: lost")
    assert row.note == "seconds: median 1.5, 95 of 100 1.5; skipped: no cable"


def test_every_test_that_is_asked_for_is_there():
    for asked in campaigns.SUITES:
        for each in asked.tests:
            path, _, name = each.partition("::")
            assert f"def {name}" in (suite.ROOT / "tests" / path).read_text(), each


def test_problems_are_few_and_counted():
    tally = Tally()
    for number in range(10):
        tally.add("" if number % 2 else f"problem {number}", times=2)
    row = tally.row("F0", "what", "all")
    assert (row.passed, row.count, row.lost, len(row.problems)) == (10, 20, 10, 5)
    assert row.bound == f"{upper(10, 20):.2%}"
