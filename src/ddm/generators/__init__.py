"""Seeds to pictures: our own models here, other people's beside them."""

from ddm.generators.ours import DiffusionGenerator

__all__ = ["DiffusionGenerator"]
