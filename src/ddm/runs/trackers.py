"""Mirrors of a run: what is logged to its folder, shown by other programs. The folder is the truth; mirrors break."""

import json
import netrc
import os
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol
from urllib.parse import urlsplit

import numpy as np
from PIL import Image
from torch import Tensor

from ddm.errors import RequestError
from ddm.images import to_pil
from ddm.registry import Registry
from ddm.runs.atomic import replace_file

trackers = Registry("tracker", given=("folder", "name", "config", "step", "say"))

PROJECT = "denoise-diffusion-model"
"""The W&B project, unless the user names one."""

Picture = Path | Tensor
"""A PNG file, or uint8 ``[c, h, w]`` with 1, 3 or 4 channels."""


class Tracker(Protocol):
    """Something that is told what happens in a run; its steps never decrease."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Numbers at an optimiser step, named ``train/loss`` and the like."""
        ...

    def image(self, name: str, picture: Picture, step: int) -> None:
        """A picture at an optimiser step; every pixel must arrive as it is."""
        ...

    def close(self) -> None:
        """The run has ended, for now; nothing is told after this."""
        ...


class Trackers:
    """Any number of trackers as one. A tracker that fails is reported, closed and told no more; it stops nothing.

    Args:
        members: the trackers by the name to report them under.
        say: told in one line about each that fails.
    """

    def __init__(self, members: Mapping[str, Tracker], say: Callable[[str], None]):
        self._members, self._say = dict(members), say

    def log(self, values: Mapping[str, float], step: int) -> None:
        """See :class:`Tracker`; never raises."""
        self._tell(lambda tracker: tracker.log(values, step))

    def image(self, name: str, picture: Picture, step: int) -> None:
        """See :class:`Tracker`; never raises."""
        self._tell(lambda tracker: tracker.image(name, picture, step))

    def close(self) -> None:
        """See :class:`Tracker`; never raises."""
        self._tell(lambda tracker: tracker.close())
        self._members.clear()

    def _tell(self, call: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._members.items()):
            try:
                call(tracker)
            except Exception as error:  # other people's code and networks: whatever it is, it is not the run's
                del self._members[name]
                self._say(_report(name, error))
                with suppress(Exception):
                    tracker.close()


def check_trackers(choices: Iterable[str], *, field: str = "trackers") -> None:
    """Find out cheaply whether these trackers can be opened.

    Raises:
        RequestError: an unknown name or option, or a package that is not installed, with the line that installs it.
    """
    for text in choices:
        part = trackers[trackers.check(text, field=field).name]
        package = getattr(part, "package", None)
        # A folder ./wandb of old records can be imported too, but has no origin.
        if package and ((spec := find_spec(package)) is None or spec.origin is None):
            raise RequestError(f'{field}: {text} needs {package}: pip install "denoising-diffusion-model[{package}]"')


def open_trackers(
    choices: Sequence[str],
    *,
    folder: Path,
    name: str,
    config: Mapping[str, Any],
    say: Callable[[str], None],
    step: int | None = None,
) -> Trackers:
    """Open the trackers of a run; only in the process that writes its folder (elsewhere open none: ``()``).

    Args:
        choices: such as ``tensorboard`` and ``wandb(project="mine")``.
        folder: of the run; what trackers write themselves goes below it.
        name: of the run.
        config: all settings, as plain values.
        say: told in one line where things are, and what failed.
        step: the optimiser step at which the run goes on; what was shown of later ones is then withdrawn, where the
            tracker can.

    Raises:
        RequestError: see :func:`check_trackers`; or W&B is to go online and has no key.
    """
    check_trackers(choices)
    members: dict[str, Tracker] = {}
    for text in choices:
        try:
            make = trackers.bind(text, field="trackers")
            members[text] = make(folder=folder, name=name, config=config, step=step, say=say)
        except RequestError:
            Trackers(members, say).close()
            raise
        except Exception as error:  # as above
            say(_report(text, error))
    return Trackers(members, say)


def _report(name: str, error: Exception) -> str:
    problem = " ".join(str(error).split()) or "no reason given"
    return f"{name} failed and is told no more ({type(error).__name__}: {problem[:300]}); the run goes on"


def _pillow(picture: Picture) -> Image.Image:
    if isinstance(picture, Tensor):
        return to_pil(picture)
    with Image.open(picture, formats=("PNG",)) as image:
        image.load()
        return image


@trackers.register
class Tensorboard:
    """TensorBoard event files in the run's folder, under tensorboard/."""

    package: ClassVar = "tensorboard"

    def __init__(
        self, *, folder: Path, name: str, config: Mapping[str, Any], step: int | None, say: Callable[[str], None]
    ):
        from torch.utils.tensorboard import SummaryWriter

        place = (folder / "tensorboard").absolute()
        self._writer = SummaryWriter(str(place), purge_step=None if step is None else step + 1, flush_secs=10)
        self._writer.add_text("config", f"```json\n{json.dumps(config, indent=2, default=str)}\n```", step or 0)
        say(f"tensorboard --logdir {shlex.quote(str(place))}")  # a relative path is why "no dashboards are active"

    def log(self, values: Mapping[str, float], step: int) -> None:
        """See :class:`Tracker`."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def image(self, name: str, picture: Picture, step: int) -> None:
        """See :class:`Tracker`."""
        pixels = np.asarray(_pillow(picture))
        self._writer.add_image(name, pixels, step, dataformats="HW" if pixels.ndim == 2 else "HWC")

    def close(self) -> None:
        """See :class:`Tracker`."""
        self._writer.close()


@trackers.register
class Wandb:
    """Weights & Biases; offline where there is no key. The environment's WANDB_* and its settings files are obeyed.

    Arguments of ``wandb.init`` beat the environment, so only those are passed that the user typed or left open.

    Args:
        project: where it is shown; ``denoise-diffusion-model`` unless named here or by the user's W&B settings.
        entity: whose project.
        mode: whether to send; records of an offline run are sent later by ``wandb sync``.
    """

    package: ClassVar = "wandb"

    def __init__(
        self,
        *,
        project: str | None = None,
        entity: str | None = None,
        mode: Literal["online", "offline", "disabled"] | None = None,
        folder: Path,
        name: str,
        config: Mapping[str, Any],
        step: int | None,
        say: Callable[[str], None],
    ):
        import wandb

        self._wandb: Any = wandb
        settings = wandb.setup().settings
        given: dict[str, Any] = {
            "project": project or settings.project or PROJECT,
            "name": settings.run_name or name,
            "config": dict(config),
            "entity": entity,
            "mode": _mode(mode, settings, say),
            "dir": None if os.environ.get("WANDB_DIR") else str(folder),
        }
        known = _known_id(folder / "wandb.json")
        if known and not settings.run_id:
            given |= {"id": known, "resume": settings.resume or "allow"}
        given = {key: value for key, value in given.items() if value is not None}
        try:
            self._run = self._wandb.init(**given)
        except Exception as error:  # no network, a wrong key: the records can still be kept
            say(f"wandb cannot go online ({type(error).__name__}: {str(error).splitlines()[0]}); it goes on offline")
            self._run = self._wandb.init(**given | {"mode": "offline"})
        if not self._run.disabled:
            replace_file(folder / "wandb.json", json.dumps({"format": 1, "id": self._run.id}).encode())

    def log(self, values: Mapping[str, float], step: int) -> None:
        """See :class:`Tracker`."""
        self._send(dict(values), step)

    def image(self, name: str, picture: Picture, step: int) -> None:
        """See :class:`Tracker`. A file is sent as it is; always PNG."""
        if isinstance(picture, Tensor):
            self._send({name: self._wandb.Image(to_pil(picture), file_type="png")}, step)
        else:
            self._send({name: self._wandb.Image(str(picture))}, step)

    def close(self) -> None:
        """See :class:`Tracker`."""
        self._run.finish()

    def _send(self, values: dict[str, Any], step: int) -> None:
        # A run that was killed may have sent more steps than it saved; W&B has them and takes none twice.
        if step >= self._run.starting_step:
            self._run.log(values, step=step)


def _mode(typed: str | None, settings: Any, say: Callable[[str], None]) -> str | None:
    """The mode to pass to ``wandb.init``: it must never come to ask for a key."""
    if (typed or settings.mode) != "online" or _has_key(settings):
        return typed
    if typed or os.environ.get("WANDB_MODE"):
        raise RequestError(
            "trackers: wandb: mode 'online' needs an API key; run wandb login, set WANDB_API_KEY, or use mode='offline'"
        )
    say("wandb has no API key (wandb login): it keeps its records offline; wandb sync sends them")
    return "offline"


def _has_key(settings: Any) -> bool:
    """Whether W&B will find a key by itself. Its own answer to this, wandb.login(prompt=False), is too new."""
    if settings.api_key or os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    hosts = [urlsplit(settings.base_url).netloc]
    if not os.environ.get("WANDB_BASE_URL"):
        hosts.append("api.wandb.ai")  # keys are kept under this name whatever the address the program uses
    files = [os.environ.get("NETRC"), "~/.netrc", "~/_netrc"]
    for file in filter(None, files):
        with suppress(OSError, netrc.NetrcParseError):
            found = netrc.netrc(os.path.expanduser(file))
            return any(found.authenticators(host) for host in hosts)
    return False


def _known_id(path: Path) -> str | None:
    """The W&B run that this run was; None for a new one."""
    try:
        known = json.loads(path.read_bytes())["id"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return known if isinstance(known, str) else None
