"""The actions of the Compare tab: names and numbers in, pieces of a page out, step by step."""

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ddm.commands.studio import denoising
from ddm.commands.studio.comparing import recorded_table, table_in_html
from ddm.commands.studio.edits import adjusted_as_asked, results, seed_from, watch
from ddm.commands.studio.shared import Studio, whole, word
from ddm.commands.studio.shown import png
from ddm.commands.studio.stages import SMALL, figure, hint, looked_at, stage, way
from ddm.commands.studio.training_set import nearest_to, training_set
from ddm.commands.work import Made, Work
from ddm.errors import RequestError
from ddm.runs.closest import COPY, Close
from ddm.runs.cost import parameters_of
from ddm.runs.making import in_words
from ddm.runs.model import Model
from ddm.runs.tables import Cell

MOST = 16
"""Pictures of a model at most."""

CSS = """
.blocks { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); gap: 1.5rem; }
.blocks h4 { margin: 0 0 .15rem; font-size: 1.05rem; overflow-wrap: anywhere; }
.numbers { overflow-x: auto; max-width: 100%; }
.numbers:focus-visible { outline: 2px solid var(--color-accent); }
.numbers table { border: 0; border-collapse: collapse; font-size: .9rem; min-width: 100%; }
.numbers table tr { border: 0; }
.numbers caption { text-align: left; font-weight: 600; padding-bottom: .4rem; }
.numbers table th, .numbers table td { padding: .4rem .8rem .4rem 0; text-align: left; vertical-align: baseline;
  border: 0; border-bottom: 1px solid var(--border-color-primary); white-space: nowrap; }
.numbers table td.words { white-space: normal; min-width: 9rem; }
.numbers table td.words:last-child { min-width: 22rem; }
@media (max-width: 640px) { .numbers table th[scope=row] { white-space: normal; min-width: 7rem; } }
.numbers table td.number { text-align: right; font-variant-numeric: tabular-nums; }
.numbers small { color: var(--soft); margin-left: .3rem; }
.numbers table .published th, .numbers table .published td { font-weight: 400; color: var(--soft); }
.numbers tbody.published { border-top: 2px solid var(--border-color-primary); }
.notes { font-size: .85rem; color: var(--soft); padding-left: 1.1rem; margin-top: .6rem; }
"""


@dataclass(frozen=True, eq=False)
class Contrasts:
    """What can be done on the Compare tab; every method is an endpoint, and raises DdmError for what cannot be done.

    Args:
        studio: its models and limits.
    """

    studio: Studio

    def compare(
        self,
        models: list[str],
        seed: int = 0,
        count: int = 8,
        label: str = "",
        sampler: str = "",
        evaluations: int | None = None,
        guidance: float | None = None,
    ) -> Iterator[str]:
        """Pictures of several models at the same seeds, side by side: pieces of a page, one a step.

        Args:
            models: their names.
            seed: of the first picture.
            count: pictures of each model.
            label: the class; by default all classes in turn.
            sampler: of all models; each one's own by default.
            evaluations: of the network for a picture; each one's own by default.
            guidance: of all models; each one's own by default.
        """
        count = whole("count", count, 1, MOST)
        seed, label = seed_from(seed, count), word("label", label or "")
        works: dict[str, Work] = {}
        for name, model in self._models(models).items():
            how = adjusted_as_asked(model, sampler, evaluations, guidance)
            works[name] = denoising.of_seeds(how, seed, count, label or None)
        self.studio.check(*works.values())
        blocks = {name: _block(name, work.model, hint("waits for its turn")) for name, work in works.items()}
        for name, work in works.items():
            for seen in watch(work, self.studio, share=len(works)):
                shown = stage([looked_at("what the model sees", seen.x0)]) + way(seen.done, seen.steps)
                blocks[name] = _block(name, work.model, shown if seen.made is None else _pictures(seen.made))
                yield f'<div class="blocks">{"".join(blocks.values())}</div>'

    def _models(self, names: Sequence[str]) -> dict[str, Model]:
        if not isinstance(names, (list, tuple)) or not names:
            raise RequestError("models: none is named; allowed: one or more of those given at the start")
        return {name: self.studio.models.get(name) for name in names}

    def numbers(self, models: list[str], published: bool = True) -> str:
        """What was measured of models, from their run folders: a table for a page; nothing is measured now.

        Args:
            models: their names.
            published: add what papers say of CIFAR-10, marked as such.
        """
        return table_in_html(recorded_table(self._models(models), published=published), "Numbers on record")

    def nearest(self, model: str, seed: int = 0, label: str = "") -> Iterator[str]:
        """The training pictures that are nearest to the picture of a seed, in pixels: pieces of a page.

        Args:
            model: its name.
            seed: of the picture.
            label: the class; that of the seed by default.
        """
        found = self.studio.models.get(model)
        data = training_set(found)
        work = denoising.of_seeds(found, seed_from(seed), 1, word("label", label or "") or None)
        made = None
        for seen in watch(work, self.studio):
            made = seen.made
            yield stage([looked_at("what the model sees", seen.x0)]) + way(seen.done, seen.steps)
        assert made is not None, "it was watched to the end"
        search = nearest_to(found, made.pictures)
        while True:
            try:
                progress = next(search)
            except StopIteration as end:
                (close,) = end.value
                break
            searched = f"Searched {progress.done:,} of {progress.total:,} training pictures"
            yield stage([looked_at(f"seed {seed}", made.pictures)]) + hint(searched)
        yield _neighbours(made, close, data.count)


def _block(name: str, model: Model, content: str) -> str:
    """One model among others."""
    size = Cell(parameters_of(model.generator)).words
    facts = [f"{size} parameters"] if size else []
    facts += in_words({name: model.generator.settings().get(name) for name in ("sampler", "steps", "guidance")})
    return f"<section><h4>{html.escape(name)}</h4>{hint(', '.join(facts))}{content}</section>"


def _pictures(made: Made) -> str:
    return stage(results(made, [f"seed {seed}" for seed in made.work.seeds], width=SMALL))


def _neighbours(made: Made, close: Close, count: int) -> str:
    """A picture, and the training pictures that are nearest to it."""
    seed = made.work.seeds[0]
    parts = [figure(png(made.pictures[0], denoising.texts(made)[0]), f"seed {seed}", alt=f"sample of seed {seed}")]
    for each in close.neighbours:
        words = (
            f"training picture {each.number:,}{', mirrored' if each.mirrored else ''}: {each.levels:.1f} levels away"
        )
        parts.append(figure(png(each.pixels), words, alt=f"training picture {each.number}"))
    verdict = "It may be a copy" if close.ratio <= COPY else "It is no copy"
    told = (
        f"{verdict}: its nearest is {close.ratio:.2f} times as far as the 50 nearest of {count:,} on average; copies "
        f"are at {COPY:g} or less (Carlini et al. 2023). Compared in pixels, root mean square in levels of 255."
    )
    return stage(parts) + hint(told)
