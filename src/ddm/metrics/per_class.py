"""How good the pictures of each class are, for generators that are told the class."""

from typing import Annotated

from annotated_types import Ge

from ddm.errors import RequestError
from ddm.metrics.checks import check_features
from ddm.metrics.intervals import around
from ddm.metrics.kid import kernel_distance
from ddm.metrics.measurement import Embedded, Measurement, metrics


@metrics.register
def class_kid(real: Embedded, fake: Embedded, *, pictures: Annotated[int, Ge(2)] = 10_000) -> Measurement:
    """Mean over the classes of the kernel distance of their generated pictures to their real ones; see ``kid``.

    It finds what ``kid`` cannot: a generator that ignores the label. Not the Frechet distance, because a class has
    fewer pictures than the features have dimensions, where that is mostly bias. Every class counts the same, the
    intervals are those of ``kid``, and ``details["classes"]`` has ``[value, low, high]`` of each.

    Args:
        real: with labels.
        fake: with the labels that were asked for.
        pictures: at most so many of each class and kind.

    Raises:
        RequestError: labels are missing, or a class has fewer than 2 pictures of either kind.
        DdmError: a feature is not finite.
    """
    check_features(real, fake)
    found, errors = {}, []
    for name, ours, theirs in _classes(real, fake):
        value, error = kernel_distance(ours.spread(pictures).features, theirs.spread(pictures).features)
        found[name] = [value, *around(value, error)]
        errors.append(error)
    value = sum(each[0] for each in found.values()) / len(found)
    error = sum(each**2 for each in errors) ** 0.5 / len(found)
    return Measurement(value, *around(value, error), details={"classes": found})


def _classes(real: Embedded, fake: Embedded) -> list[tuple[str, Embedded, Embedded]]:
    """Name, real and generated pictures of every class that either has."""
    if real.labels is None:
        raise RequestError("class_kid: the real pictures have no labels; allowed: a data set with classes")
    if fake.labels is None:
        raise RequestError("class_kid: the generated pictures have no labels; allowed: a generator that takes labels")
    found = []
    for label in sorted({*real.labels.tolist(), *fake.labels.tolist()}):
        name = real.classes[label] if label < len(real.classes) else str(label)
        ours, theirs = real.take(real.labels == label), fake.take(fake.labels == label)
        for kind, pictures in (("real", ours), ("generated", theirs)):
            if len(pictures) < 2:
                raise RequestError(f"class_kid: {len(pictures)} {kind} pictures of class {name!r}; allowed: 2 or more")
        found.append((name, ours, theirs))
    return found
