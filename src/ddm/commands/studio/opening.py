"""What a studio is opened with: the runs that were named, or all that are there, checked before anything is served."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from ddm.commands.studio.runlist import Runs
from ddm.commands.studio.shared import Models, Studio
from ddm.errors import DdmError, RequestError
from ddm.runs import checkpoints
from ddm.runs.model import Model
from ddm.runs.naming import named, shipped
from ddm.runs.sources import find_checkpoint, load
from ddm.training import pick_device

RUNS = Path("runs")
"""Where runs are looked for if none is named."""


def open_studio(sources: Sequence[str], *, device: str, say: Callable[[str], None]) -> Studio:
    """A studio with the models of these sources, none of which is loaded yet; without any, of all runs in ./runs.

    Runs without a checkpoint can be watched, and come last; they can be used once they have one.

    Raises:
        RequestError: a source is no run, has no sound checkpoint, or there is none at all.
    """
    pick_device(device)
    paths = _checked(sources, say) if sources else list(_all_runs(say))
    if not paths:
        raise RequestError(f"source: there is no run in ./{RUNS}; train one with: ddm train shapes")
    found = dict(_named(sorted(paths, key=is_begun)))
    models = Models({name: partial(_load, name, source, device, say) for name, source in found.items()})
    return Studio(models, runs=Runs(found, None if sources else RUNS))


def is_begun(path: Path) -> bool:
    """Whether this is a run that has no checkpoint yet."""
    return (path / "config.yaml").exists() and not checkpoints.steps(path / "checkpoints")


def _checked(sources: Sequence[str], say: Callable[[str], None]) -> list[Path]:
    paths = []
    for source in dict.fromkeys(sources):
        what = named(source)
        if what.kind != "run":
            raise RequestError(f"source: {source!r} is not allowed here; allowed: runs and checkpoints of ddm train")
        paths.append(Path(what.text).expanduser())
        _check(paths[-1], say)
    return paths


def _check(path: Path, say: Callable[[str], None]) -> None:
    if is_begun(path):
        say(f"{path.name} has no checkpoint yet: it can be watched, and used once it has one")
    else:
        find_checkpoint(path, say)


def _all_runs(say: Callable[[str], None]) -> Iterable[Path]:
    """Those in ./runs, and those that come with the package."""
    for path in [*(each.parent for each in sorted(RUNS.glob("*/config.yaml"))), *shipped().values()]:
        try:
            _check(path, say)
        except DdmError as error:
            say(f"left out  {error}")
            continue
        yield path


def _named(paths: Iterable[Path]) -> Iterable[tuple[str, Path]]:
    """What the page calls each of them: its folder's own name, the second of one name with a number."""
    seen: dict[str, int] = {}
    for path in paths:
        place = path.resolve()
        name = f"{place.parent.parent.name}, step {int(place.name)}" if place.name.isdecimal() else place.name
        seen[name] = seen.get(name, 0) + 1
        yield (f"{name} ({seen[name]})" if seen[name] > 1 else name), path


def _load(name: str, source: Path, device: str, say: Callable[[str], None]) -> Model:
    """The model; what goes wrong is told in the terminal, since it names folders."""
    if is_begun(source):
        raise RequestError(f"model: {name!r} has no checkpoint yet; the Watch tab shows how far its training is")
    try:
        return load(source, device=device)
    except DdmError as error:
        say(str(error))
        raise DdmError(f"model: {name!r} cannot be loaded any more; the terminal of this studio says why") from None
