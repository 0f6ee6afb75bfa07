"""Train a model by a recipe in the folder runs/NAME; the same command again resumes it."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from ddm.commands.console import Console, is_main
from ddm.commands.flags import add_config_flags, changes
from ddm.errors import RequestError, unknown
from ddm.runs.config import Config, override
from ddm.runs.recipes import recipes

if TYPE_CHECKING:
    from ddm.commands.training import Outcome

EXAMPLES = """examples:
  ddm train shapes
  ddm train paper --name first --steps 2000 --precision bf16
  ddm train edm --data 'folder(path="~/cats")' --image-size 64 --sample.sampler 'heun(churn=40)'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("recipe", metavar="RECIPE", help=f"{', '.join(recipes)}, or a config.yaml")
    parser.add_argument("--name", default=None, help="of the run; the recipe's by default")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="the folder of all runs (default: ./runs)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--fresh", action="store_true", default=False, help="move an older run of that name aside")
    parser.add_argument(
        "-n", "--dry-run", action="store_true", default=False, help="check everything and print the settings"
    )
    add_config_flags(parser)


def run(arguments: argparse.Namespace) -> int:
    """Check the request, train, say what came of it."""
    console = Console(quiet=arguments.quiet or not is_main(), json=arguments.json)
    base, name = find_recipe(arguments.recipe)
    config = override(base, dict(changes(arguments)))
    name = check_name(arguments.name or name)
    from ddm.runs import build  # torch is imported here, once the request is known to be in order

    build.check(config)
    if arguments.dry_run:
        from ddm.runs.folder import dump_config

        console.result(dump_config(config).rstrip(), **config.model_dump(mode="json"))
        return 0
    from ddm.commands.training import train

    outcome = train(config, arguments.runs / name, device=arguments.device, fresh=arguments.fresh, console=console)
    return report(outcome, console)


def find_recipe(text: str) -> tuple[Config, str]:
    """The Config and usual name of a recipe, or of a config.yaml."""
    if text in recipes:
        return recipes[text](), text
    path = Path(text).expanduser()
    if path.suffix in (".yaml", ".yml") and path.exists():
        from ddm.runs.folder import read_config

        return read_config(path), path.resolve().parent.name if path.stem == "config" else path.stem
    raise unknown("recipe", text, recipes)


def check_name(name: str) -> str:
    """A run's name is one folder's name."""
    if name in ("", ".", "..") or Path(name).name != name or "\\" in name:
        raise RequestError(f"name: {name!r} is not allowed; allowed: a folder name without slashes (--runs says where)")
    return name


def report(outcome: "Outcome", console: Console) -> int:
    """The last words, of one process; nothing here can change what was saved."""
    if not is_main():
        return outcome.status
    console.result(str(outcome.path), **json.loads(json.dumps(vars(outcome), default=str)))
    console.say(f"{outcome.verdict}  next: {outcome.following}")
    return outcome.status
