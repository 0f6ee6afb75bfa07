"""What a user may write as a source of pictures; imports nothing heavy, so that a wrong one is told at once."""

from dataclasses import dataclass
from pathlib import Path

from ddm.errors import RequestError

SHIPPED = Path(__file__).parent.parent / "shipped"
"""Where the runs are that come with the package."""

KINDS = ("folder", "npz", "data", "diffusers")
"""What may stand before the colon; without one it is a run or a checkpoint."""


def shipped() -> dict[str, Path]:
    """The runs that come with the package, by name."""
    return {each.parent.name: each.parent for each in sorted(SHIPPED.glob("*/config.yaml"))}


@dataclass(frozen=True)
class Named:
    """A source as it was written.

    Args:
        kind: ``run``, ``folder``, ``npz``, ``data`` or ``diffusers``.
        text: the path, data set or name of the pipeline.
    """

    kind: str
    text: str

    @property
    def stem(self) -> str:
        """For the name of a file: the last part of a path or of a pipeline's name, the name of a data set."""
        if self.kind == "data":
            return self.text.partition("(")[0].strip()
        path = Path(self.text).expanduser()
        name = path.name if self.kind == "diffusers" and not path.exists() else path.resolve().name
        return name.rpartition(".")[0] or name if self.kind == "npz" else name


def named(source: str | Path) -> Named:
    """``folder:PATH``, ``npz:PATH``, ``data:DATASET``, ``diffusers:ID_OR_PATH``, the path of a run or checkpoint, or
    the name of a run that comes with the package (:func:`shipped`), where nothing else has that name.

    A run whose folder's name begins like one of these is written ``./data:x``.

    Raises:
        RequestError: nothing stands after the colon.
    """
    kind, colon, text = str(source).partition(":")
    if not colon or kind not in KINDS:
        ours = None if Path(source).expanduser().exists() else shipped().get(str(source))
        return Named("run", str(ours or source))
    if not text.strip():
        raise RequestError(f"source: {str(source)!r} names nothing; write {kind}: and then what is meant")
    return Named(kind, text.strip())
