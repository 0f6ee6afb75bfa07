"""A folder of pictures."""

import os
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ddm.data.pictures import FORMATS, PREPARATION, Encoded, Mode, prepare_all
from ddm.data.source import Reading, Share, Source, sources
from ddm.errors import RequestError
from ddm.storage import digest_of, digest_of_file

SUFFIXES = frozenset(suffix for suffixes in FORMATS.values() for suffix in suffixes)
SPLITS = frozenset({"train", "training", "test", "testing", "val", "valid", "validation", "eval"})


@sources.register
def folder(*, path: str, labels: bool = True, mode: Mode = "RGB", max_bad: Share = 0.01) -> Source:
    """Pictures in a folder; where they lie in sub-folders, each top-level sub-folder is a label.

    Files are taken by their ending (png, jpg, jpeg, webp, bmp, gif, tif, tiff) at any depth and in the order of their
    names; other files and everything hidden are ignored.

    Args:
        path: the folder; ``~`` is the home folder.
        labels: ``False`` takes all pictures without labels, wherever they lie.
        mode: gray, colour, or colour with transparency.
        max_bad: share of unreadable pictures above which the set is refused.

    Raises:
        RequestError: no such folder, no pictures in it, or sub-folders that cannot be labels.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise RequestError(f"{root} is {'a file, not a folder' if root.exists() else 'not there'}")
    files = pictures_below(root)
    if not files:
        raise RequestError(f"{root} has no pictures; {_what_it_has(root)}")
    classes = _classes(root, files) if labels else ()
    names = [file.relative_to(root).as_posix() for file in files]

    def read(size: int, scratch: Path) -> Reading:
        pictures = prepare_all((Encoded(name, file) for name, file in zip(names, files)), mode, size)
        numbers = {name: number for number, name in enumerate(classes)}
        return Reading(pictures, [numbers[name.partition("/")[0]] for name in names] if classes else None, classes)

    try:
        content = [(name, digest_of_file(file)) for name, file in zip(names, files)]
    except OSError as error:
        raise RequestError(f"{error.filename} cannot be read: {error.strerror}") from None
    return Source(digest_of("folder", PREPARATION, content, classes, mode), read, max_bad)


def pictures_below(root: Path) -> list[Path]:
    """The files below a folder, links followed, whose ending is a picture's, in the order of their names."""
    return sorted((file for file in _files(root) if file.suffix.lower() in SUFFIXES), key=partial(_parts, root))


def _parts(root: Path, file: Path) -> tuple[str, ...]:
    return file.relative_to(root).parts


def _files(root: Path) -> Iterator[Path]:
    seen: set[str] = set()
    for here, folders, files in os.walk(root, followlinks=True):
        true = os.path.realpath(here)
        # A link to a folder above would go round for ever.
        folders[:] = [] if true in seen else [name for name in folders if not name.startswith(".")]
        if true not in seen:
            yield from (Path(here, name) for name in files if not name.startswith("."))
        seen.add(true)


def _classes(root: Path, files: list[Path]) -> tuple[str, ...]:
    beside = [file.name for file in files if file.parent == root]
    if len(beside) == len(files):
        return ()
    tops = sorted({_parts(root, file)[0] for file in files if file.parent != root})
    if beside:
        raise RequestError(
            f"{root} has {len(beside)} pictures (e.g. {beside[0]}) beside its sub-folders ({', '.join(tops[:5])}); "
            "move them into one, or take all without labels with labels=False"
        )
    if {top.lower() for top in tops} <= SPLITS:
        raise RequestError(
            f"its sub-folders {', '.join(tops)} look like splits, not labels; write one of them, e.g. "
            f"folder(path={str(root / tops[0])!r}), or take all without labels with labels=False"
        )
    return tuple(tops)


def _what_it_has(root: Path) -> str:
    endings = Counter(file.suffix.lower() or "no ending" for file in _files(root))
    found = ", ".join(f"{ending} ({count})" for ending, count in endings.most_common(5)) or "nothing"
    return f"found: {found}; allowed: {', '.join(sorted(SUFFIXES))}"
