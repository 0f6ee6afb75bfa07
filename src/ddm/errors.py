"""The failures a user can meet: each message is one line that says what is wrong and what would be right."""

from collections.abc import Iterable
from difflib import get_close_matches

LONGEST = 1000
"""Characters of a message; what is longer quotes a file that is not what it says."""


class DdmError(Exception):
    """An expected failure of the work itself (exit status 1); says what was saved and where."""

    def __init__(self, message: str):
        super().__init__(one_line(message))


class RequestError(DdmError, ValueError):
    """The request was wrong (exit status 2): names the field, the value and what is allowed."""


def one_line(text: str) -> str:
    """Text that may quote a stranger's file: no line ends, nothing that moves a terminal's cursor, not too long."""
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def unknown(field: str, value: object, allowed: Iterable[str]) -> RequestError:
    """The error for a name that is not on a list, with the nearest allowed name as a hint."""
    names = sorted(allowed)
    close = get_close_matches(str(value), names, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return RequestError(f"{field}: {value!r} is unknown{hint}; allowed: {', '.join(names)}")
