"""F22: a second trainer on the same run is refused at once; the first one killed, the run is free."""

import time
from collections.abc import Iterator

from stress.plan import Plan, Tally, middle, problem_of
from stress.rows import Row
from stress.starting import until
from stress.tiny import step_of, train

OPTIONS = ("--steps=1000000", "--every.save=20")
REFUSED = "is in use by another process that trains"


def campaign(plan: Plan) -> Iterator[Row]:
    """Second trainers while the first one trains, then the first one's death."""
    tally, seconds = Tally(), []
    for _ in range(plan.count(5, 50)):
        (first,) = train(plan, "run", *OPTIONS)
        before = step_of(plan.folder / "run")
        begun = until(lambda: step_of(plan.folder / "run") > before, 60)  # noqa: B023
        tally.add("" if begun else "the lock of a killed process is still held")
        for _ in range(5):
            tally.add(problem_of(lambda: seconds.append(refused(plan))))
        tally.add("" if first.poll() is None else "the first trainer ended")
        first.kill()
    note = f"seconds to the refusal: median {middle(seconds):.2f}, most {max(seconds, default=0):.2f}"
    what = "a second trainer on a run is refused and the first goes on; after SIGKILL of the first the run is free"
    yield tally.row("F22", what, "50 / 50 in < 1 s, free 50 / 50", every=True, note=note)


def refused(plan: Plan) -> float:
    """Seconds until a second trainer has said no."""
    started, before = time.monotonic(), (plan.folder / "run.txt").read_text().count(REFUSED)
    (second,) = train(plan, "run", *OPTIONS)
    assert second.wait(60) == 2, f"exit status {second.status}"
    assert (plan.folder / "run.txt").read_text().count(REFUSED) == before + 1, "it does not say why"
    return time.monotonic() - started
