from typing import Annotated, Literal

import pytest
from annotated_types import Ge

from ddm.errors import RequestError
from ddm.registry import Choice, Registry

things = Registry("thing", given=("x",))


@things.register
def plain(x: int) -> int:
    """Gives x back."""
    return x


@things.register
def rich(x: int, *, size: Annotated[int, Ge(1)] = 3, sides: tuple[int, ...] = (1, 2), kind: Literal["a", "b"] = "a"):
    """Puts everything together."""
    return (x, size, sides, kind)


@things.register
class TwoWords:
    """A class goes by its name in snake_case."""

    def __init__(self, *, path: str):
        self.path = path


def test_a_choice_is_the_call_that_makes_it():
    assert things.bind("plain")(5) == 5
    assert things.bind("rich(size=4, sides=(7,))")(x=1) == (1, 4, (7,), "a")
    assert things.bind("two_words(path='a b')")().path == "a b"
    assert list(things) == ["plain", "rich", "two_words"]
    assert things.signature("rich") == "rich(size=3, sides=(1, 2), kind='a')"
    assert things.signature("two_words") == "two_words(path)"
    assert things.summary("plain") == "Gives x back."


@pytest.mark.parametrize(
    "text", ["heun", "heun(churn=40)", "unet(dim=64, dim_mults=(1, 2))", "folder(path='~/a \"b\"')"]
)
def test_text_and_choice_are_two_forms_of_one_thing(text: str):
    choice = Choice.parse(text)
    assert Choice.parse(str(choice)) == choice


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("plane", r"my.field: 'plane' is unknown .did you mean 'plain'.*; allowed: plain, rich, two_words"),
        (
            "rich(sise=3)",
            r"my.field: option of rich: 'sise' is unknown .did you mean 'size'.*; allowed: size, sides|kind",
        ),
        ("rich(size=0)", r"my.field: rich\(size=0\): size must be greater than or equal to 1"),
        ("rich(size='x')", r"my.field: rich\(size='x'\): size must be a valid integer"),
        ("rich(kind='c')", r"kind must be 'a' or 'b'"),
        ("rich(x=3)", r"option of rich: 'x' is unknown"),
        ("rich(3)", r"has an option without a name; write rich\(option=value"),
        ("two_words", r"two_words needs path; write two_words\(path\)"),
        ("rich(size=open('f'))", r"a value that is not a plain literal"),
        ("rich(**{'size': 3})", r"is not a choice"),
        ("rich(", r"is not a choice; write name or name\(option=value"),
        ("a.b(c=1)", r"is not a choice"),
        ("", r"is not a choice"),
        ("(" * 500, r"is not a choice"),
        ("rich(size=3)\0", r"is not a choice"),
    ],
)
def test_wrong_choices_say_what_is_right(text: str, message: str):
    with pytest.raises(RequestError, match=message) as caught:
        things.bind(text, field="my.field")
    assert "\n" not in str(caught.value)


def test_a_name_is_taken_once():
    with pytest.raises(ValueError, match="registered twice"):
        things.register(plain)
