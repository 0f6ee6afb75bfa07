"""A training that begins with the weights of another one."""

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from ddm.errors import RequestError
from ddm.runs import checkpoints
from ddm.runs.checkpointing import check_network, checkpoint_config
from ddm.runs.config import Config
from ddm.runs.manifest import BadCheckpoint
from ddm.runs.naming import named
from ddm.runs.sources import find_checkpoint


def weights_to_begin_with(config: Config, say: Callable[[str], None]) -> dict[str, Tensor]:
    """The averaged weights of ``init``.

    Args:
        config: whose ``init`` is a run, a checkpoint or the name of a run that comes with the package.
        say: told which they are.

    Raises:
        RequestError: nothing usable is there, or it is of another network, schedule or objective.
    """
    source = named(config.init or "")
    if source.kind != "run":
        raise RequestError(f"init: {config.init!r} is not allowed; allowed: a run or a checkpoint")
    try:
        path, _ = find_checkpoint(Path(source.text).expanduser(), say)
        loaded = checkpoints.load(path, groups=["ema"])
        check_network(checkpoint_config(loaded.state, path), config, path)
    except (RequestError, BadCheckpoint) as error:
        raise RequestError(f"init: {str(error).removeprefix('source: ')}") from None
    say(f"init    averaged weights of {path}")
    return loaded.tensors["ema"]
