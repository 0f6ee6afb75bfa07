"""The choices there are, each as the call that makes it: recipes, data sets, networks, samplers, ..."""

import argparse

from ddm.commands.console import Console
from ddm.errors import unknown
from ddm.registry import Registry

EXAMPLES = """examples:
  ddm list
  ddm list samplers
"""

KINDS = (
    "recipes",
    "data",
    "networks",
    "schedules",
    "objectives",
    "weightings",
    "tasks",
    "samplers",
    "grids",
    "clippings",
    "averages",
    "optimizers",
    "metrics",
    "features",
    "trackers",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("kind", metavar="KIND", nargs="?", default=None, help=", ".join(KINDS))


def run(arguments: argparse.Namespace) -> int:
    """Print each choice as the call that makes it, and what it is."""
    if arguments.kind is not None and arguments.kind not in KINDS:
        raise unknown("kind", arguments.kind, KINDS)
    registries = all_registries()
    wanted = {kind: registries[kind] for kind in ([arguments.kind] if arguments.kind else KINDS)}
    facts = {
        kind: {name: {"call": part.signature(name), "summary": part.summary(name)} for name in part}
        for kind, part in wanted.items()
    }
    lines = []
    for kind, parts in facts.items():
        lines += [kind, *[f"  {part['call']}\n      {part['summary']}" for part in parts.values()], ""]
    Console(json=arguments.json).result("\n".join(lines).rstrip(), **facts)
    return 0


def all_registries() -> dict[str, Registry]:
    """Every registry by the name of its kind."""
    from ddm.data import sources
    from ddm.diffusion import clippings, grids, objectives, samplers, schedules, tasks, weightings
    from ddm.metrics import features, metrics
    from ddm.networks import networks
    from ddm.runs.recipes import recipes
    from ddm.runs.trackers import trackers
    from ddm.training import averages, optimizers

    model = (recipes, sources, networks, schedules, objectives, weightings, tasks)
    sampling, training = (samplers, grids, clippings), (averages, optimizers)
    return dict(zip(KINDS, (*model, *sampling, *training, metrics, features, trackers)))
