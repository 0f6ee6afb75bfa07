"""Text that is to be shared says nothing about the machine it comes from: no place of a file, no name of its user."""

import re

HIDDEN = "…"
"""Stands where a path stood."""

_START = r"(?:~|/|\\\\|\.\.[\\/]|[A-Za-z]:[\\/]|file:)"
_OPTION = re.compile(r"""(\bpath\s*=\s*)(['"])([^'"]*[\\/~][^'"]*)\2""")
_QUOTED = re.compile(rf"""(['"]){_START}[^'"]*\1""")
_BARE = re.compile(rf"""(?<![\w/\\.~{HIDDEN}]){_START}[^\s'"(),;]+""")


def without_paths(text: str) -> str:
    """The text with every path replaced: absolute ones, those of a home folder, and any option ``path`` with folders.

    ``folder(path="cats")`` stays, ``folder(path="/home/anna/cats")`` becomes ``folder(path="…")``.
    """
    text = _OPTION.sub(rf"\1\2{HIDDEN}\2", text)
    text = _QUOTED.sub(rf"\1{HIDDEN}\1", text)
    return _BARE.sub(HIDDEN, text)
