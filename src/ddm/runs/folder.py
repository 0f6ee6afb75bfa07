"""A run on disk: its folder, who may write to it, and what it is a run of."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from ddm.errors import RequestError
from ddm.runs.atomic import replace_file
from ddm.runs.config import Config, flatten, validate

FORMAT = 1
"""Of run folders; a folder of a later format is refused."""


LARGEST = 100_000
"""Bytes of a config.yaml that are read."""


class _PlainYaml(yaml.SafeLoader):
    """YAML in which nothing stands for something else: ten lines of ``[*a, *a]`` mean more than a memory holds."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("a name that stands for something else (*a) is not allowed")
        return super().compose_node(parent, index)


class Run:
    """The folder of a run. See :meth:`start` for one to train in, :meth:`open` for one to read.

    Attributes:
        path: the folder.
        config: what it is a run of.
    """

    def __init__(self, path: Path, config: Config):
        self.path, self.config = path, config
        self.checkpoints = path / "checkpoints"
        self.samples = path / "samples"
        self.metrics = path / "metrics.jsonl"
        self.evaluations = path / "evaluations.jsonl"
        self._lock = FileLock(path / ".lock", timeout=0)

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.name

    @classmethod
    def open(cls, path: Path) -> "Run":
        """The run in a folder.

        Raises:
            RequestError: no run is there, or one this version cannot read.
        """
        return cls(path, read_config(path / "config.yaml"))

    @classmethod
    def start(cls, path: Path, config: Config, *, fresh: bool = False) -> "Run":
        """Make the folder, or take up the run in it if it has the same settings, and hold its lock.

        Args:
            path: the folder.
            config: the settings asked for.
            fresh: move an older run of that name aside first.

        Raises:
            RequestError: the folder holds a run with other settings, something that is no run, or is in use.
        """
        if fresh and path.exists():
            old = cls(path, config)
            old._acquire()  # never pull a folder away from under the process that trains in it
            move_aside(path)
            old.release()
        cls.refuse_other(path, config)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RequestError(f"runs: {str(path)!r} cannot be made: {error.strerror}") from None
        run = cls(path, config)
        run._acquire()
        cls.refuse_other(path, config)  # another process may have begun in it meanwhile
        replace_file(path / "config.yaml", dump_config(config).encode())
        return run

    @property
    def begun(self) -> bool:
        """Whether anything was trained here that could be lost."""
        return self.metrics.exists() or (self.checkpoints.is_dir() and any(self.checkpoints.iterdir()))

    def _acquire(self) -> None:
        try:
            self._lock.acquire()
        except Timeout:
            raise RequestError(
                f"name: {str(self.path)!r} is in use by another process that trains; choose another --name"
            ) from None

    def release(self) -> None:
        """Let other processes train in this folder."""
        self._lock.release()

    @classmethod
    def refuse_other(cls, path: Path, config: Config) -> None:
        """Raise :class:`RequestError` if the folder holds a run with other settings, or something that is no run."""
        if not (path / "config.yaml").exists():
            if path.is_dir() and any(not each.name.startswith(".") for each in path.iterdir()):
                raise RequestError(f"name: {str(path)!r} holds something that is not a run; choose another --name")
            return
        run = cls.open(path)
        if not run.begun:
            return
        old, new = flatten(run.config.model_dump()), flatten(config.model_dump())
        changed = [
            f"{field} is {old[field]!r} there and {new[field]!r} here" for field in old if old[field] != new[field]
        ]
        if changed:
            raise RequestError(
                f"name: {str(path)!r} is a run with other settings: {'; '.join(changed)}; choose another --name, "
                "or --fresh to move the old run aside"
            )


def dump_config(config: Config) -> str:
    """A Config as YAML; :func:`read_config` gives it back."""
    return yaml.safe_dump({"format": FORMAT, **config.model_dump(mode="json")}, sort_keys=False, allow_unicode=True)


def read_config(path: Path) -> Config:
    """The Config in a YAML file.

    Raises:
        RequestError: no such file, not a Config, or one of a later format.
    """
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise RequestError(f"{path}: has more than {LARGEST:,} bytes")
        values = _PlainYaml(data.decode()).get_single_data()
    except FileNotFoundError:
        raise RequestError(f"source: {str(path.parent)!r} is not a run: it has no {path.name}") from None
    except (yaml.YAMLError, ValueError, TypeError, OSError, RecursionError) as error:
        if isinstance(error, RequestError):
            raise
        raise RequestError(f"{path}: cannot be read: {(str(error).splitlines() or ['?'])[0]}") from None
    if not isinstance(values, dict):
        raise RequestError(f"{path}: is not a list of settings")
    return from_plain(values, source=str(path))


def from_plain(values: dict[str, Any], *, source: str) -> Config:
    """A Config from plain values with their format number; raises as :func:`read_config` does."""
    found = values.get("format")
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise RequestError(f"{source}: format: {found!r} is not allowed; allowed: 1 to {FORMAT}")
    if found > FORMAT:
        raise RequestError(
            f"{source}: format: {found} was made by a newer ddm; allowed: 1 to {FORMAT}; "
            "pip install --upgrade denoising-diffusion-model"
        )
    return validate({key: value for key, value in values.items() if key != "format"}, source=f"{source}: ")


def move_aside(path: Path) -> Path:
    """Rename a folder to NAME.old-TIME beside it; nothing is deleted."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    aside = path.with_name(f"{path.name}.old-{stamp}")
    number = 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.old-{stamp}-{number}")
    os.rename(path, aside)
    return aside
