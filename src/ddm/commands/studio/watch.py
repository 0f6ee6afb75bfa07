"""The Watch tab: a run while another process trains it. It only reads: a closed page stops nothing."""

from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.context import Context

from ddm.commands.studio import screen
from ddm.commands.studio.plots import CSS as PLOTS
from ddm.commands.studio.runlist import Runs
from ddm.commands.studio.shared import Studio, refuse, whole
from ddm.commands.studio.stages import hint
from ddm.commands.studio.watching import Watched, told

CSS = PLOTS + screen.CSS

EVERY = 2.0
"""Seconds between two looks at the folder, while the tab is open."""

LOOKS: dict[str, Any] = {"show_progress": "hidden", "concurrency_limit": 4, "concurrency_id": "watch"}
"""Of all events here: a look is cheap."""

MOST_FRAMES = 10**9

EMPTY = "No run is there yet. It appears here as soon as this begins one: ddm train shapes"


@dataclass(frozen=True, eq=False)
class Watching:
    """What can be done on the Watch tab; every method is an endpoint, and raises DdmError for what cannot be done.

    Args:
        runs: those that may be watched.
    """

    runs: Runs

    def watch_runs(self) -> list[str]:
        """The names of the runs that can be watched now."""
        return self.runs.names

    def watch(self, run: str) -> dict[str, Any]:
        """All that is known of a run in training: state, step, loss, speed, time left, curves, distances, numbers.

        Args:
            run: its name.
        """
        return told(self._look(run))

    def watch_frame(self, run: str, number: int = 0) -> str:
        """A picture of the film of samples, exactly as training wrote it: a piece of a page.

        Args:
            run: its name.
            number: of the picture, from 1; 0 is the newest.
        """
        return screen.frame(self._look(run), whole("number", number, 0, MOST_FRAMES))

    def turned(self, run: str, number: int) -> str:
        """The picture of the film at a place of the slider, which may be beyond the end of a film that begins anew."""
        watched = self._look(run)
        return screen.frame(watched, min(whole("number", number, 0, MOST_FRAMES), len(watched.frames)))

    def _look(self, run: str) -> Watched:
        watched = self.runs.get(run)
        watched.refresh()
        return watched

    def page(self, run: str | None, number: int, seen: dict[str, Any]) -> tuple[Any, ...]:
        """Everything on the tab, or for each part that it stays as it is.

        Args:
            run: the chosen one.
            number: of the picture of the film that is shown.
            seen: what the page shows now.

        Returns:
            The list of runs, head, curves, slider, picture, numbers, and what the page will show.
        """
        names = self.runs.names
        run = run or self.runs.liveliest
        if run is None:
            return self._parts({"names": names, "head": hint(EMPTY)}, seen)
        watched = self._look(run)
        count = len(watched.frames)
        follows = seen.get("run") != run or number >= seen.get("count", 0)
        now: dict[str, Any] = {"names": [*names, *({run} - set(names))], "run": run, "count": count}
        now |= {"head": screen.head(watched), "charts": screen.charts(watched), "numbers": screen.numbers(watched)}
        now["number"] = count if follows else min(number, count)
        newest = (run, count, now["number"], watched.frames[-1:])
        now |= {
            "picture": newest,
            "frame": screen.frame(watched, now["number"]) if newest != seen.get("picture") else "",
        }
        return self._parts(now, seen)

    @staticmethod
    def _parts(now: dict[str, Any], seen: dict[str, Any]) -> tuple[Any, ...]:
        def part(value: Any, *names: str) -> Any:
            return gr.skip() if all(now.get(name) == seen.get(name) for name in names) else value

        count = now.get("count", 0)
        slider = gr.Slider(maximum=max(count, 2), value=max(now.get("number", 1), 1), visible=count > 1)
        return (
            part(gr.Dropdown(now["names"], value=now.get("run")), "names", "run"),
            part(now["head"], "head"),
            part(now.get("charts", ""), "charts"),
            part(slider, "run", "count"),
            part(now.get("frame", ""), "picture"),
            part(now.get("numbers", ""), "numbers"),
            {name: value for name, value in now.items() if name != "frame"},
        )


def add(studio: Studio) -> None:
    """The whole tab, inside of a gr.Tab."""
    actions = Watching(studio.runs)
    tab: Any = Context.block
    gr.HTML(hint("What training writes into the folder of a run, as it writes it. Closing this page stops nothing."))
    run = gr.Dropdown([], value=None, label="Run")
    with gr.Row():
        with gr.Column(scale=4, min_width=300):
            head = gr.HTML(hint("Looking for runs."))
        with gr.Column(scale=5, min_width=300):
            number = gr.Slider(1, 2, value=1, step=1, label="Picture of the film", visible=False)
            frame = gr.HTML()
    gr.Markdown("### Curves")
    charts = gr.HTML()
    numbers = gr.HTML()
    seen, timer = gr.State({}), gr.Timer(EVERY, active=False)
    look = refuse(actions.page)
    given, shown = [run, number, seen], [run, head, charts, number, frame, numbers, seen]
    for event in (timer.tick, run.input, tab.select):
        event(look, given, shown, api_visibility="private", **LOOKS)
    number.input(refuse(actions.turned), [run, number], frame, api_visibility="private", **LOOKS)
    for action in (actions.watch_runs, actions.watch, actions.watch_frame):
        gr.api(refuse(action), api_name=action.__name__, concurrency_limit=4)  # pyright: ignore[reportPrivateImportUsage]
    _rest(tab, timer)


def _rest(tab: Any, timer: gr.Timer) -> None:
    """Look at nothing while another tab is open."""

    def chosen(event: gr.SelectData) -> gr.Timer:
        return gr.Timer(active=event.value == tab.label)

    tab.parent.select(chosen, None, timer, api_visibility="private", show_progress="hidden")
