"""What every generator of pictures is: seeds in, pictures out."""

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor

from ddm.errors import DdmError
from ddm.images import to_uint8

NAMED = 5
"""So many seeds are named in a message, the others counted."""


class Generator(Protocol):
    """A source of pictures; the picture of a seed depends on that seed (and its label) alone.

    Attributes:
        shape: of a picture: ``(channels, height, width)``.
        classes: number of classes of its pictures; 0 without labels.
        limit: how many different pictures there are, those of seeds 0 to ``limit - 1``; None for no limit.
    """

    shape: tuple[int, int, int]
    classes: int
    limit: int | None

    def generate(self, seeds: Sequence[int], labels: Sequence[int] | None = None) -> Tensor:
        """Finished pictures, uint8 ``[len(seeds), c, h, w]`` on the CPU.

        Args:
            seeds: one a picture.
            labels: one class a picture; by default those of :meth:`labels_of`.

        Raises:
            RequestError: a seed beyond ``limit``, or labels where they cannot be asked for.
            DdmError: a picture is not finite.
        """
        ...

    def labels_of(self, seeds: Sequence[int]) -> list[int] | None:
        """The class that the picture of each seed is of where none is asked for; None without labels."""
        ...

    def settings(self) -> dict[str, Any]:
        """Plain values that decide the pictures besides the model itself, e.g. the sampler's; for keys and records."""
        ...


def finished(x: Tensor, seeds: Sequence[int], *, advice: str) -> Tensor:
    """Floats ``[n, c, h, w]`` in [-1, 1] as uint8 on the CPU, rounded; a NaN would pass for a level of gray there.

    Args:
        x: the pictures.
        seeds: of each of them.
        advice: what may help, for the message.

    Raises:
        DdmError: names the seeds whose pictures are not finite.
    """
    finite = x.isfinite().flatten(1).all(1).tolist()
    bad = [seed for seed, fine in zip(seeds, finite) if not fine]
    if bad:
        named = ", ".join(str(seed) for seed in bad[:NAMED])
        more = f" (and {len(bad) - NAMED} more)" if len(bad) > NAMED else ""
        what = "the picture of seed" if len(bad) == 1 else "pictures of seeds"
        raise DdmError(f"{what} {named}{more} {'is' if len(bad) == 1 else 'are'} not finite: {advice}")
    return to_uint8(x).cpu()
