"""A choice is written as the call that makes it: ``heun(churn=40)``, ``unet(dim=64)``, ``cifar10``.

A part (sampler, schedule, network, data set, ...) is a decorated function or class, and its signature is the
schema: option names, defaults, types and ranges (``Annotated[float, Ge(0)]``) are written once, where they are used.
"""

import ast
import functools
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from ddm.errors import RequestError, unknown

LONGEST = 20_000
"""Characters of a choice; ``levels(at=(...))`` of a thousand levels is half of it."""

Part = TypeVar("Part", bound=Callable[..., Any])


@dataclass(frozen=True)
class Choice:
    """A name and its keyword options, e.g. ``Choice("heun", {"churn": 40})``."""

    name: str
    options: dict[str, Any]

    @classmethod
    def parse(cls, text: str, *, field: str = "choice") -> "Choice":
        """Read ``name`` or ``name(option=literal, ...)``; nothing is ever evaluated.

        Raises:
            RequestError: the text is not such a call.
        """
        wrong = RequestError(f"{field}: {text!r} is not a choice; write name or name(option=value, ...)")
        if len(text) > LONGEST:
            raise wrong
        try:
            node = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            raise wrong from None
        if isinstance(node, ast.Name):
            return cls(node.id, {})
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            raise wrong
        if node.args:
            raise RequestError(
                f"{field}: {text!r} has an option without a name; write {node.func.id}(option=value, ...)"
            )
        try:
            options = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in node.keywords if keyword.arg}
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            raise RequestError(f"{field}: {text!r} has a value that is not a plain literal") from None
        if len(options) != len(node.keywords):
            raise wrong
        return cls(node.func.id, options)

    def __str__(self) -> str:
        if not self.options:
            return self.name
        return f"{self.name}({', '.join(f'{name}={value!r}' for name, value in self.options.items())})"


class Registry(Mapping[str, Callable[..., Any]]):
    """The parts of one kind, by name.

    Args:
        kind: what a part is called in messages, e.g. ``"sampler"``.
        given: parameters that the program fills in, which a choice may not name.
    """

    def __init__(self, kind: str, *, given: tuple[str, ...] = ()):
        self.kind = kind
        self.given = given
        self._parts: dict[str, Callable[..., Any]] = {}

    def register(self, part: Part) -> Part:
        """Decorator: add a function under its own name, a class under its name in snake_case."""
        name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", part.__name__).lower()
        if name in self._parts:
            raise ValueError(f"{self.kind} {name!r} is registered twice")
        self._parts[name] = part
        return part

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._parts))

    def __len__(self) -> int:
        return len(self._parts)

    def __getitem__(self, name: str) -> Callable[..., Any]:
        return self._parts[name]

    @staticmethod
    def parameters(part: Callable[..., Any]) -> dict[str, inspect.Parameter]:
        """All parameters of a part, those that the program fills in among them."""
        return dict(inspect.signature(part, eval_str=True).parameters)

    def options(self, name: str) -> dict[str, inspect.Parameter]:
        """The options a choice of ``name`` may set, in the order of the signature."""
        return {key: value for key, value in self.parameters(self._parts[name]).items() if key not in self.given}

    def signature(self, name: str) -> str:
        """``name(option=default, ...)`` as a user would write it, for lists and help."""
        options = self.options(name).values()
        shown = [o.name if o.default is o.empty else f"{o.name}={o.default!r}" for o in options]
        return f"{name}({', '.join(shown)})" if shown else name

    def summary(self, name: str) -> str:
        """The first line of the part's docstring."""
        return (inspect.getdoc(self._parts[name]) or "").partition("\n")[0]

    def bind(self, text: str, *, field: str = "") -> functools.partial[Any]:
        """The part with the options of the choice filled in and checked; calling it does the work.

        Args:
            text: the choice, e.g. ``"heun(churn=40)"``.
            field: the setting it came from, for the message; the kind by default.

        Raises:
            RequestError: unknown name or option, missing option, wrong type or range.
        """
        choice = self.check(text, field=field)
        return functools.partial(self._parts[choice.name], **choice.options)

    def check(self, text: str, *, field: str = "") -> Choice:
        """The validated choice with its values converted to the annotated types; raises as :meth:`bind` does."""
        field = field or self.kind
        choice = Choice.parse(text, field=field)
        if choice.name not in self._parts:
            raise unknown(field, choice.name, self)
        allowed = self.options(choice.name)
        for name in choice.options:
            if name not in allowed:
                raise unknown(f"{field}: option of {choice.name}", name, allowed)
        for name, parameter in allowed.items():
            if parameter.default is parameter.empty and name not in choice.options:
                raise RequestError(f"{field}: {choice.name} needs {name}; write {self.signature(choice.name)}")
        values = {name: _convert(field, choice.name, allowed[name], value) for name, value in choice.options.items()}
        return Choice(choice.name, values)


def _convert(field: str, name: str, option: inspect.Parameter, value: Any) -> Any:
    annotation = Any if option.annotation is option.empty else option.annotation
    try:
        return TypeAdapter(annotation).validate_python(value)
    except ValidationError as error:
        problem = error.errors()[0]["msg"].replace("Input should be", "must be")
        raise RequestError(f"{field}: {name}({option.name}={value!r}): {option.name} {problem}") from None
