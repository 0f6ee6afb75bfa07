"""Recipes: each returns a complete Config. A variant calls another and changes fields."""

from ddm.registry import Registry
from ddm.runs.config import Config, Every, Keep, Sampling, Training, override

recipes = Registry("recipe")


@recipes.register
def paper() -> Config:
    """The paper "Denoising Diffusion Model" to the letter: denoising-diffusion-pytorch at its defaults on CIFAR-10.

    What the paper leaves open is what its library does by default: batch 32, noise of the sigmoid schedule, v predicted
    and weighted by the SNR, Adam's betas (0.9, 0.99), flips, clipping at 1, and its own kind of average. Grids during
    training use 50 steps of DDIM; the library's 1000 are `ddm sample RUN --sampler ddpm --grid trailing --steps 1000`.
    """
    return Config(
        data="cifar10",
        network="unet(dim=64, dim_mults=(1, 2, 4, 8))",
        timesteps=1000,
        schedule="sigmoid",
        objective="v",
        weighting="snr",
        train=Training(
            steps=20_000,
            batch=32,
            accumulate=2,
            lr=8e-5,
            betas=(0.9, 0.99),
            ema=("inverse_power(decay=0.995, after=100, every=10)",),
            clip=1.0,
            precision="fp16",
            flip=True,
        ),
        sample=Sampling(sampler="ddim", steps=50, grid="trailing", clip="static", count=16),
    )


@recipes.register
def ddpm() -> Config:
    """Ho et al. 2020 (arXiv 2006.11239) on CIFAR-10: 35.7 M parameters, 800,000 steps, published FID 3.17."""
    return Config(
        data="cifar10",
        network="residual_unet(width=128, mults=(1, 2, 2, 2), dropout=0.1, film=False, head_width=None)",
        timesteps=1000,
        schedule="linear",
        objective="eps",
        weighting="one",
        train=Training(
            steps=800_000, batch=128, lr=2e-4, warmup=5000, ema=("constant(decay=0.9999)",), clip=1.0, flip=True
        ),
        every=Every(log=100, sample=5000, save=5000),
        sample=Sampling(sampler="ddim", steps=50, grid="trailing", clip="static"),
    )


@recipes.register
def edm() -> Config:
    """The objective of Karras et al. 2022 (arXiv 2206.00364) with a network of 16 M parameters on CIFAR-10."""
    return Config(
        data="cifar10",
        network="residual_unet(width=96, mults=(1, 2, 2), blocks=2, attention=(16,))",
        schedule="lognormal",
        objective="edm",
        weighting="edm_lambda",
        train=Training(
            steps=40_000,
            batch=256,
            lr=5e-4,
            warmup=1000,
            decay=0.25,
            ema=("power(width=0.05)", "power(width=0.1)"),
            flip=True,
        ),
        every=Every(log=50, sample=1000, save=1000),
        # Not down to 0.002 as in that paper: measured on two models of this recipe, see docs/samplers.md.
        sample=Sampling(grid="karras(low=0.04)"),
    )


@recipes.register
def fast10() -> Config:
    """Ten minutes of one H100, compiling included: a labelled network of 16 M parameters. Predicted, not run there yet.

    `python benchmarks/flagship.py fast10 --minutes 10` fits the steps to the machine.
    """
    return override(
        edm(),
        {
            "network": "residual_unet(width=64, mults=(1, 2, 4), blocks=2, attention=(16,))",
            "conditional": True,
            "train.steps": 20_000,
            "train.lr": 1e-3,
            "train.betas": (0.9, 0.99),
            "train.warmup": 500,
            "train.decay": 0.3,
            "train.compile": True,
        },
    )


@recipes.register
def fast20() -> Config:
    """Twenty minutes of one H100: `fast10` with a network that is wider where pictures are large."""
    network = "residual_unet(width=96, mults=(1, 2, 2), blocks=2, attention=(16,))"
    return override(fast10(), {"network": network, "train.steps": 35_000})


@recipes.register
def small() -> Config:
    """The model that comes along as `cifar10`: 2.7 M parameters, 1.5 million pictures, 5.6 hours of one CPU core."""
    return override(
        edm(),
        {
            "network": "residual_unet(width=48, mults=(1, 2, 2), blocks=1, attention=(8,), patch=2)",
            "conditional": True,
            "train.steps": 24_000,
            "train.batch": 64,
            "train.lr": 1e-3,
            "train.warmup": 200,
            "every.log": 100,
            "every.sample": 2000,
        },
    )


@recipes.register
def shapes() -> Config:
    """Coloured shapes with their names as labels, learned in three minutes on two CPU cores; nothing is downloaded.

    The clean picture is predicted, since it is so much simpler than the noise in it, and squares of 2x2 pixels are one
    position of the network; both are a matter of speed here.
    """
    return Config(
        data="shapes",
        network="residual_unet(width=32, mults=(1, 2, 2), blocks=1, attention=(8,), patch=2)",
        conditional=True,
        schedule="lognormal(mean=0.0, std=1.4)",
        objective="x0",
        weighting="min_snr(gamma=5)",
        train=Training(
            steps=900, batch=32, lr=3e-3, betas=(0.9, 0.99), warmup=50, decay=0.4, ema=("power(width=0.1)",)
        ),
        every=Every(log=50, sample=300, save=300),
        keep=Keep(last=2),
        sample=Sampling(sampler="heun", steps=12, grid="karras", guidance=2.0, count=64),
    )
