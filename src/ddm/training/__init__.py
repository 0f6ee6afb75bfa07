"""The training loop and the averages it keeps."""

from ddm.training.ema import Ema, averages
from ddm.training.health import PATIENCE
from ddm.training.optimizers import optimizers
from ddm.training.processes import Team, has_bf16, pick_device
from ddm.training.state import check_tensors
from ddm.training.trainer import Diverged, Mean, Trainer, TrainStep

__all__ = [
    "PATIENCE",
    "Diverged",
    "Ema",
    "Mean",
    "Team",
    "TrainStep",
    "Trainer",
    "averages",
    "check_tensors",
    "has_bf16",
    "optimizers",
    "pick_device",
]
