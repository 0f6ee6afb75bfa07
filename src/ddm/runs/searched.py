"""Searched grids of a run: found on its own trajectories, kept in grids.json beside its settings, used again.

A grid belongs to weights, not to a run: each average of each checkpoint has its own, known by the SHA-256 of its file.
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, model_validator

from ddm.diffusion import GaussianDiffusion, grids
from ddm.diffusion.searching import cheapest_paths, check_steps, grids_along, step_costs
from ddm.errors import DdmError, RequestError
from ddm.generators import DiffusionGenerator
from ddm.registry import Choice
from ddm.runs.atomic import replace_file
from ddm.runs.config import Positive, Settings
from ddm.version import __version__

FORMAT = 1
"""Of grids.json; a file of a later format is not used and left as it is."""

NAME = "grids.json"
LEVELS, PICTURES, MOST = 60, 32, 20
"""Noise levels to choose from, pictures whose trajectories are followed, and the most steps whose grids are kept."""

FIRST_SEED = 10**9
"""Of the pictures that are followed: none that anybody looks at or measures."""

HIGHER = ("dpmpp_3m", "unipc")
"""Samplers whose error grows on a searched grid (docs/samplers.md): by itself none is picked up for them."""

FREE = ("adaptive", "consistency")
"""Samplers that take steps of their own: no grid is searched for them."""

HELD = 2**27
"""Bytes of trajectories held at a time."""

DIGITS = 6
"""Of a level: more would change no picture, and these survive being written down."""

Level = Annotated[float, Field(gt=0)]


class Found(Settings):
    """How a grid was found."""

    seeds: tuple[int, int]
    """First seed and number of the pictures."""
    teacher: str
    """The sampler whose trajectories were followed."""
    teacher_steps: Positive
    """Its steps."""
    date: str
    """When, in UTC."""
    ddm: str
    """The version that searched."""


class SearchedGrid(Settings):
    """One line of grids.json."""

    weights_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """Of the file of weights it was found on."""
    steps: Positive
    """Of the sampler."""
    levels: tuple[Level, ...]
    """The noise levels, one a step; the 0 at the end is not among them."""
    found: Found

    @model_validator(mode="after")
    def _is_a_grid(self) -> "SearchedGrid":
        if len(self.levels) != self.steps or any(b >= a for a, b in zip(self.levels, self.levels[1:])):
            raise ValueError("levels must be as many as steps and descend")
        return self


@dataclass(frozen=True)
class GridFamily:
    """The searched grids of one file of weights, a choice for every number of steps that has one.

    Args:
        choices: such as ``levels(at=(80.0, 3.5))``, by number of steps.
        otherwise: the choice for other numbers of steps; None refuses them.
    """

    choices: Mapping[int, str]
    otherwise: str | None

    def of(self, steps: int) -> str:
        """The grid of so many steps; raises :class:`RequestError` where there is none."""
        choice = self.choices.get(steps, self.otherwise)
        if choice is None:
            there = ", ".join(str(each) for each in sorted(self.choices))
            raise RequestError(f"sample.steps: {steps} has no searched grid; allowed: {there}, or another --grid")
        return choice


@dataclass(frozen=True)
class Weights:
    """What a grid is searched for.

    Args:
        digest: SHA-256 of their file.
        diffusion: with these weights, on its device, ready to sample.
        shape: of a picture: ``(channels, height, width)``.
        run: folder of the run they belong to; None for a checkpoint by itself, whose grids are not kept: its folder is
            sealed by the manifest, and what lies beside it is not ours.
    """

    digest: str
    diffusion: GaussianDiffusion
    shape: tuple[int, int, int]
    run: Path | None


def choose_grid(
    weights: Weights, *, sampler: str, grid: str, steps: int, asked: bool, say: Callable[[str], None]
) -> tuple[str, GridFamily | None]:
    """The grid that is used, and the searched ones of other numbers of steps where it is one of them.

    Args:
        weights: of the model.
        sampler: the choice it is for.
        grid: the choice that was asked for, or the run's own.
        steps: of the sampler.
        asked: whether it was asked for; where not, a searched grid of so many steps goes before the run's own.
        say: told which is used, and what a search took.

    Raises:
        RequestError: no grid of so many steps can be searched, or none for this sampler.
        DdmError: the model's answers are not finite.
    """
    wanted = Choice.parse(grid, field="sample.grid").name == "searched"
    name = Choice.parse(sampler, field="sample.sampler").name
    if wanted and name in FREE:
        raise RequestError(f"sample.grid: searched is not allowed for {name}; allowed: karras, ...")
    if not wanted and (asked or not gains(sampler)):
        return grid, None
    if wanted:
        grids.check(grid, field="sample.grid")
        check_steps(steps, LEVELS)
    choices = {each.steps: _choice(each) for each in _of(weights, read_grids(weights.run, say))}
    if steps in choices:
        other = "" if wanted else f"; --grid {_quoted(grid)} for the run's own"
        say(f"grid    searched ({NAME}){other}")
    elif wanted:
        choices |= {each.steps: _choice(each) for each in _search_and_keep(weights, steps, say)}
    else:
        return grid, None
    return choices[steps], GridFamily(choices, None if wanted else grid)


def gains(sampler: str) -> bool:
    """Whether a sampler is nearer to the exact pictures on a searched grid than on its best other one."""
    return Choice.parse(sampler, field="sample.sampler").name not in FREE + HIGHER


def search(weights: Weights, steps: Iterable[int]) -> list[SearchedGrid]:
    """The best grids of all these numbers of steps, by one search: 119 evaluations of the network a picture.

    Guidance and clipping are left out, classes come in turn: a grid is found for the weights, however they are used.

    Args:
        weights: of the model.
        steps: each 1 to 60.

    Raises:
        RequestError: a number of steps it cannot have.
        DdmError: the model's answers are not finite.
    """
    wanted = sorted(set(steps))
    teacher = DiffusionGenerator(weights.diffusion, shape=weights.shape, sampler="heun", steps=LEVELS, grid="karras")
    for each in wanted:
        check_steps(each, LEVELS)
    seeds, costs = range(FIRST_SEED, FIRST_SEED + PICTURES), torch.zeros(())
    channels, height, width = weights.shape
    portion = max(1, HELD // (3 * LEVELS * channels * height * width * 4))
    for start in range(0, PICTURES, portion):
        part = seeds[start : start + portion]
        x = teacher.noise(part)().float() * teacher.grid[0]
        costs = costs + step_costs(teacher.denoiser(part), x, teacher.grid) * (len(part) / PICTURES)
    found = Found(
        seeds=(FIRST_SEED, PICTURES),
        teacher="heun",
        teacher_steps=LEVELS,
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S"),
        ddm=__version__,
    )
    made = grids_along(teacher.grid, cheapest_paths(costs, wanted[-1]))
    return [
        SearchedGrid(
            weights_sha256=weights.digest,
            steps=each,
            levels=tuple(float(f"{level:.{DIGITS}g}") for level in made[each][:-1].tolist()),
            found=found,
        )
        for each in wanted
    ]


def read_grids(run: Path | None, say: Callable[[str], None]) -> list[SearchedGrid]:
    """All searched grids that a run keeps; none where its file is missing, damaged or of a later format, as is said."""
    path = run and run / NAME
    if path is None or not path.exists():
        return []
    try:
        return _parse(path.read_bytes())
    except _Later as later:
        say(f"{path} was made by a newer ddm ({later}; this one reads {FORMAT}) and is not used")
    except (OSError, ValueError, RecursionError):
        say(f"{path} is damaged and is not used; the next search writes it anew")
    return []


def keep_grids(run: Path, found: Iterable[SearchedGrid]) -> None:
    """Add grids to those of a run, in the place of older ones of the same weights and steps.

    Of two processes that do this at once one may win; what the other found can be searched again.

    Raises:
        DdmError: the file is of a later format, or cannot be written.
    """
    path = run / NAME
    try:
        there = _parse(path.read_bytes())
    except _Later as later:
        raise DdmError(f"{path} was made by a newer ddm ({later})") from None
    except (OSError, ValueError, RecursionError):
        there = []
    merged = {(each.weights_sha256, each.steps): each for each in (*there, *found)}
    lines = [json.dumps(each.model_dump(mode="json")) for each in merged.values()]
    replace_file(path, (f'{{"format": {FORMAT}, "grids": [\n' + ",\n".join(lines) + "\n]}\n").encode())


class _Later(Exception):
    """The file is of a later format."""


def _parse(data: bytes) -> list[SearchedGrid]:
    """The content of grids.json; raises :class:`_Later`, or ``ValueError`` where it is damaged."""
    content: Any = json.loads(data)
    found = content.get("format") if isinstance(content, dict) else None
    if isinstance(found, int) and found > FORMAT:
        raise _Later(f"format {found}")
    if found != FORMAT or not isinstance(content.get("grids"), list):
        raise ValueError("not a file of grids")
    return [SearchedGrid.model_validate(each) for each in content["grids"]]


def _search_and_keep(weights: Weights, steps: int, say: Callable[[str], None]) -> list[SearchedGrid]:
    say(f"grid    searching along the trajectories of {PICTURES} pictures, once for these weights")
    started = time.monotonic()
    found = search(weights, {*range(1, MOST + 1), steps})
    told = f"grid    searched for {steps} steps in {time.monotonic() - started:.0f} s"
    if weights.run is None:
        say(f"{told}, not kept: this checkpoint is in no run")
        return found
    try:
        keep_grids(weights.run, found)
        say(f"{told}, kept in {weights.run / NAME}")
    except DdmError as error:
        say(f"{told}, not kept: {error}")
    return found


def _of(weights: Weights, kept: Iterable[SearchedGrid]) -> list[SearchedGrid]:
    return [each for each in kept if each.weights_sha256 == weights.digest]


def _choice(grid: SearchedGrid) -> str:
    return str(Choice("levels", {"at": grid.levels}))


def _quoted(grid: str) -> str:
    return f"'{grid}'" if "(" in grid else grid
