"""The one description of a run: recipe, flags, YAML and what trackers log are all this Config."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from ddm.errors import RequestError

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
BEST = ("loss", "gradient_norm", "fid", "kid")
"""Numbers by which the best checkpoint may be told, the lower the better."""


class Settings(BaseModel):
    """Frozen; unknown names are refused; the docstring under a field is its help."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class Training(Settings):
    """How the network is trained; these are the keywords of :class:`ddm.Trainer`."""

    steps: Positive = 20_000
    """Optimiser steps of the whole run."""
    batch: Positive = 128
    """Pictures a micro-batch, over all processes."""
    accumulate: Positive = 1
    """Micro-batches a step; a step sees batch x accumulate pictures."""
    lr: Annotated[float, Field(gt=0)] = 2e-4
    """Peak learning rate."""
    optimizer: str = "adam"
    """How gradients become steps: adam, muon(momentum=0.95)."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    """Adam's two decays."""
    warmup: Count = 0
    """Steps over which the learning rate rises from 0."""
    decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Last share of the run over which the learning rate falls to 0; 0 keeps it constant."""
    ema: tuple[str, ...] = ("constant(decay=0.9999)",)
    """Averages of the weights; the first is the one sampled from."""
    clip: Annotated[float, Field(ge=0)] = 1.0
    """Largest gradient norm; 0 for no limit."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Of the network's arithmetic: auto is bf16 where the device has it, else fp32; weights stay in float32."""
    compile: bool = False
    """Compile the network (minutes at the start; pays on GPUs)."""
    flip: bool = False
    """Mirror pictures left-right at random."""
    label_drop: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of labels hidden in training, so that guidance can be used (labelled models only)."""
    seed: Count = 0
    """Of weights, picture order, noise and timesteps."""


class Every(Settings):
    """How often things happen, in steps; 0 for never."""

    log: Count = 50
    """Write the averages since the last record to metrics.jsonl."""
    sample: Count = 1000
    """Sample a grid of pictures, the same seeds every time."""
    evaluate: Count = 0
    """Measure the first average as `ddm evaluate` does, into evaluations.jsonl."""
    save: Count = 1000
    """Save a checkpoint (the end of the run and an interruption always do)."""


class Keep(Settings):
    """Which checkpoints stay on disk."""

    last: Count = 3
    """How many of the newest; 0 for all."""
    best: Literal["loss", "gradient_norm", "fid", "kid"] | None = None
    """Besides, the one with the lowest mean of this number since the checkpoint before it (fid and kid need
    every.evaluate)."""


class Sampling(Settings):
    """How pictures are made."""

    sampler: str = "ipndm(order=4)"
    """Noise to picture, e.g. heun(churn=40), ddim(eta=1), ddpm, dpmpp_2m."""
    steps: Annotated[int, Field(ge=1, le=100_000)] = 10
    """Steps of the sampler."""
    grid: str = "karras"
    """Where on the noise levels the steps lie."""
    guidance: Annotated[float, Field(ge=0)] = 1.0
    """Classifier-free guidance of labelled models; 1 for none."""
    guidance_low: Annotated[float, Field(ge=0)] = 0.0
    """Guided only at noise levels (sigmas) above this."""
    guidance_high: Annotated[float, Field(gt=0)] | None = None
    """Guided only at noise levels up to this; none for no bound."""
    clip: str = "none"
    """How every guess of the clean picture is kept in range: none, static, dynamic(quantile=0.995)."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the network's arithmetic in sampling; bf16 is several times as fast on a GPU and moves pictures a little."""
    count: Annotated[int, Field(ge=1, le=10_000)] = 64
    """Pictures in the grids of a run."""

    @field_validator("clip", mode="before")
    @classmethod
    def _is_a_choice(cls, value: object) -> object:
        if not isinstance(value, str):
            raise PydanticCustomError("choice", "allowed: none, static or dynamic(quantile=0.995)")
        return value


class Evaluation(Settings):
    """How good the pictures are."""

    metrics: tuple[str, ...] = ("fid", "kid", "precision", "recall")
    """Numbers to measure; `ddm list metrics` has them all."""
    features: str = "inception"
    """The space they are measured in: inception (FID's own), efficientnet (needs no download)."""
    images: Annotated[int, Field(ge=2)] = 10_000
    """Generated pictures; published numbers mostly take 50,000."""


class Config(Settings):
    """A whole run."""

    data: str = "cifar10"
    """Pictures to learn, e.g. cifar10, folder(path="~/cats"), hub(id="..."), shapes."""
    image_size: Annotated[int, Field(ge=4, le=1024)] = 32
    """Side of the square pictures, in pixels."""
    network: str = "unet(dim=64, dim_mults=(1, 2, 4, 8))"
    """The backbone."""
    conditional: bool = False
    """Learn the labels too, so that a class can be asked for."""
    timesteps: Annotated[int, Field(ge=2, le=100_000)] = 1000
    """Noise levels of the schedule."""
    schedule: str = "linear"
    """How noisy each is: linear, cosine, sigmoid, lognormal, flow."""
    objective: str = "eps"
    """What the network predicts: eps, x0, v, velocity, edm."""
    weighting: str = "one"
    """How much each noise level counts: one, snr, min_snr, edm_lambda."""
    task: str = "denoising"
    """What is learned: denoising, or consistency(stages=8) for pictures in one to four steps, by a model that can
    denoise already (init)."""
    init: str | None = None
    """Begin with the averaged weights of this run or checkpoint, of the same network; none for random ones."""
    train: Training = Training()
    every: Every = Every()
    keep: Keep = Keep()
    sample: Sampling = Sampling()
    evaluate: Evaluation = Evaluation()
    trackers: tuple[str, ...] = ()
    """Mirrors of metrics.jsonl: tensorboard, wandb."""


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"train": {"lr": 1}}`` to ``{"train.lr": 1}``."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def validate(values: dict[str, Any], *, source: str = "") -> Config:
    """A Config from nested plain values (of a YAML file, or strings of the command line).

    Raises:
        RequestError: one line for the first problem: the field, its value and what is allowed.
    """
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in problem["loc"] if not isinstance(part, int))
        message = problem["msg"].replace("Input should be", "must be")
        if problem["type"] == "extra_forbidden":
            message = "there is no such setting"
        raise RequestError(f"{source}{field}: {_shown(problem['input'])} is not allowed; {message}") from None


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except (ValueError, RecursionError):  # a number of many thousand digits, or nested without end
        return f"this {type(value).__name__}"


def override(base: Config, changes: dict[str, Any]) -> Config:
    """``base`` with dotted fields changed, e.g. ``{"train.lr": "1e-3"}``; raises as :func:`validate` does."""
    values = base.model_dump()
    for path, value in changes.items():
        *sections, field = path.split(".")
        target = values
        for section in sections:
            target = target[section]
        target[field] = value
    return validate(values)
