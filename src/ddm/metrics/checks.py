"""What every metric asks of the numbers it gets, and the type in which it computes."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ddm.errors import DdmError, RequestError
from ddm.metrics.measurement import Embedded

ROWS = 2048
"""Pictures that are widened at a time: 34 MB of float64 in 2048 dimensions."""


def exact(values: Tensor) -> Tensor:
    """The same numbers as float64, where they are; Apple's GPUs have no float64, theirs go to the CPU."""
    return (values.cpu() if values.device.type == "mps" else values).to(torch.float64)


def pieces(values: Tensor) -> Iterator[Tensor]:
    """``[n, ...]`` as float64, at most :data:`ROWS` rows at a time."""
    return (exact(piece) for piece in values.split(ROWS))


def check_features(real: Embedded, fake: Embedded, *, real_least: int = 2, fake_least: int = 2) -> None:
    """Refuse features that have no answer.

    Args:
        real: the reference.
        fake: the generated pictures.
        real_least: how many of the real ones the metric needs.
        fake_least: how many of the generated ones.

    Raises:
        RequestError: too few pictures, or two feature spaces.
        DdmError: a feature is not a finite number.
    """
    check_counts(real, fake, real_least=real_least, fake_least=fake_least)
    if real.features.shape[1] != fake.features.shape[1]:
        raise RequestError(
            f"features: {fake.features.shape[1]} numbers a generated picture; "
            f"allowed: {real.features.shape[1]}, as of the real ones"
        )
    check_finite("real", real.features)
    check_finite("generated", fake.features)


def check_counts(real: Embedded, fake: Embedded, *, real_least: int, fake_least: int) -> None:
    """Raise :class:`RequestError` where there are fewer pictures than the metric needs."""
    for name, pictures, least in (("real", real, real_least), ("generated", fake, fake_least)):
        if len(pictures) < least:
            raise RequestError(f"{name} pictures: {len(pictures)} are too few; allowed: {least} or more")


def check_finite(name: str, values: Tensor, *, what: str = "features") -> None:
    """Raise :class:`DdmError` that names the first picture (the first of all is 0) with a NaN or an infinity.

    Args:
        name: whose they are: ``real`` or ``generated``.
        values: ``[n, d]``.
        what: what they are.
    """
    bad = ~torch.isfinite(values).all(1)
    if bad.any():
        first = int(bad.nonzero()[0])
        raise DdmError(
            f"the {what} of {name} picture {first} are not finite ({int(bad.sum())} such pictures of {len(values)}): "
            "the feature network failed on it"
        )
