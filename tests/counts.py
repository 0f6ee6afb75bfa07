"""How often a test tries: a little in the suite, more in ``make stress``, all there is with ``FULL=1``."""

import os

STRESS = os.environ.get("DDM_STRESS", "")
"""Nothing, ``1`` or ``full``."""


def times(short: int, *, stress: int, full: int) -> int:
    """One of the three."""
    return {"": short, "full": full}.get(STRESS, stress)
