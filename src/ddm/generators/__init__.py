"""Seeds to pictures: our own models, other people's pipelines, and pictures that are there already."""

from ddm.generators import editing
from ddm.generators.base import Generator
from ddm.generators.fixed import FixedPictures
from ddm.generators.ours import DiffusionGenerator
from ddm.generators.pipeline import PipelineGenerator

__all__ = ["DiffusionGenerator", "FixedPictures", "Generator", "PipelineGenerator", "editing"]
