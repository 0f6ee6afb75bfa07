"""What the tabs share: the models given at the start, the limits of a request, and what a wrong one is answered."""

import functools
import html
import inspect
import re
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import gradio as gr

from ddm.commands.studio.costing import STEPS, cost_of
from ddm.commands.studio.runlist import Runs
from ddm.commands.work import Work
from ddm.errors import DdmError, RequestError, unknown
from ddm.runs.cost import counted
from ddm.runs.model import Model

WRONG = "Something went wrong here. Please try again; the one who started this studio finds the cause in the terminal."
"""For what must be a mistake of ours."""

LONGEST_MESSAGE, LONGEST_WORD = 400, 500
"""Characters of an answer, and of a choice in a request."""

FOLDER = re.compile(r"(?<![\w/<])(?:~|\.{1,2})?/(?!/)[^\s'\",;]+")
"""What looks like a path, which is nobody's business."""

KEPT = 8
"""Models in memory, at most: the one that was not asked for the longest is released first."""

MODEL: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "model"}
"""Of every event for which a model computes: one at a time, so that a second one does not slow down the first."""

WORK: dict[str, Any] = {"show_progress": "minimal", **MODEL}
"""Of those among them that a button begins: the page says so when they wait (``stages.CSS``)."""

Step = TypeVar("Step")
Called = TypeVar("Called", bound=Callable[..., Any])


class Models:
    """The models given at the start, by name; each is loaded when it is asked for, and the last :data:`KEPT` are kept.

    Args:
        loaders: what loads each of them.
    """

    def __init__(self, loaders: Mapping[str, Callable[[], Model]]):
        self._loaders = dict(loaders)
        self._locks = {name: threading.Lock() for name in loaders}
        self._loaded: dict[str, Model] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """In the order in which they were given."""
        return tuple(self._loaders)

    def ready(self) -> Iterator[tuple[str, Model]]:
        """Those that can be loaded now, with their names."""
        for name in self.names:
            with suppress(DdmError):
                yield name, self.get(name)

    def get(self, name: str) -> Model:
        """The model of a name.

        Raises:
            RequestError: it is none of those given at the start.
        """
        if not isinstance(name, str) or name not in self._loaders:
            raise unknown("model", str(name)[:40], self._loaders)
        with self._locks[name]:
            model = self._loaded.pop(name, None) or self._loaders[name]()
            self._loaded[name] = model
        for oldest in list(self._loaded)[:-KEPT]:
            self._loaded.pop(oldest, None)
        return model


@dataclass(frozen=True)
class Limits:
    """What one request may ask for.

    Args:
        pictures: at a time.
        evaluations: of the network, of all pictures together.
        upload_bytes: of a file.
        upload_pixels: of a picture, known before it is decoded.
    """

    pictures: int = 64
    evaluations: int = 20_000
    upload_bytes: int = 4_000_000
    upload_pixels: int = 4_000_000

    def check(self, pictures: int, evaluations: int) -> None:
        """Raise :class:`RequestError` for more than one request may ask for; ``evaluations`` are those of a picture."""
        if pictures > self.pictures:
            raise RequestError(f"pictures: {pictures} are not allowed; allowed: {self.pictures}")
        if pictures * evaluations > self.evaluations:
            raise RequestError(
                f"{pictures} pictures with {evaluations} evaluations each are {pictures * evaluations:,} evaluations; "
                f"allowed: {self.evaluations:,}. Ask for fewer pictures or fewer steps"
            )


@dataclass(frozen=True)
class Studio:
    """What every tab is given.

    Args:
        models: those of the page.
        limits: of a request.
        runs: those that can be watched.
    """

    models: Models
    limits: Limits = Limits()
    runs: Runs = field(default_factory=Runs)

    def check(self, *works: Work) -> None:
        """Raise :class:`RequestError` for work that is more than one request may ask for, before it is begun."""
        for work in works:
            self.limits.check(len(work.numbers), cost_of(work))
        total = sum(len(work.numbers) * cost_of(work) for work in works)
        if total > self.limits.evaluations:
            raise RequestError(
                f"{len(works)} models with {total:,} evaluations in all are not allowed; "
                f"allowed: {self.limits.evaluations:,}. Ask for fewer models, pictures or steps"
            )

    def bounded(self, steps: Iterator[Step], work: Work, *, share: int = 1) -> Iterator[Step]:
        """Steps of work; raises :class:`RequestError` for more than there may be, where a sampler finds its own.

        Args:
            steps: of the work.
            work: what is done.
            share: so many works of a request share what it may ask for.
        """
        most = self.limits.evaluations // share
        with counted(work.model.generator) as evaluations:
            for taken, step in enumerate(steps):
                if taken > STEPS or evaluations() > most:
                    told = f"{STEPS} steps" if taken > STEPS else f"{most:,} evaluations for these pictures"
                    raise RequestError(f"sampler: it takes more than {told}; allow it a larger error")
                yield step


def whole(field: str, value: object, least: int, most: int) -> int:
    """A whole number of a request; raises :class:`RequestError` for anything else, or one out of range."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise RequestError(f"{field}: {_told(value)} is not allowed; allowed: a whole number from {least} to {most:,}")
    return value


def number(field: str, value: object, least: float, most: float) -> float:
    """A number of a request; raises :class:`RequestError` for anything else, or one out of range."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise RequestError(f"{field}: {_told(value)} is not allowed; allowed: a number from {least:g} to {most:g}")
    return float(value)


def word(field: str, value: object) -> str:
    """A short text of a request; raises :class:`RequestError` for anything else."""
    if not isinstance(value, str) or len(value) > LONGEST_WORD or not value.isprintable():
        raise RequestError(f"{field}: {_told(value)} is not allowed; allowed: up to {LONGEST_WORD} characters")
    return value


def _told(value: object) -> str:
    """A value in a message: what it is if it is short, and of what kind if not."""
    text = repr(value) if isinstance(value, str | int | float | bool | None) else type(value).__name__
    return text if len(text) <= 40 else f"{type(value).__name__} of {len(text)} characters"


@contextmanager
def refused() -> Iterator[None]:
    """Failures as messages in the page: those that are expected with their own words, all others without any."""
    try:
        yield
    except gr.Error:
        raise
    except DdmError as error:
        raise gr.Error(told(error), title="Not possible", print_exception=False) from None
    except Exception:
        traceback.print_exc(file=sys.stderr)
        raise gr.Error(WRONG, title="Sorry", print_exception=False) from None


def told(error: DdmError) -> str:
    """An expected failure in words for a page: short, without folders, and nothing in it is HTML."""
    words = FOLDER.sub("...", str(error))
    words = words if len(words) <= LONGEST_MESSAGE else words[:LONGEST_MESSAGE] + " ..."
    return html.escape(words, quote=False)


def refuse(action: Called) -> Called:
    """An action of a tab, a function or a generator, whose failures are messages in the page (:func:`refused`)."""
    if inspect.isgeneratorfunction(action):

        @functools.wraps(action)
        def stream(*given: Any, **named: Any) -> Iterator[Any]:
            with refused():
                yield from action(*given, **named)

        return stream  # pyright: ignore[reportReturnType]

    @functools.wraps(action)
    def answer(*given: Any, **named: Any) -> Any:
        with refused():
            return action(*given, **named)

    return answer  # pyright: ignore[reportReturnType]
