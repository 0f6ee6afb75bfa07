"""The real package's checkpoints become runs that make the same guesses; anything else is refused, and nothing is run."""

import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

import peers
from ddm.cli import main
from ddm.errors import RequestError
from ddm.runs import checkpoints, sources
from ddm.runs.converting import convert

PEERS = {"pred_noise": "eps", "pred_x0": "x0", "pred_v": "v"}


class Saved:
    """What the package's ``Trainer.save`` puts into a file, by the package's own model and average."""

    def __init__(self, *, objective: str = "pred_v", schedule: str = "sigmoid", timesteps: int = 50, **options):
        package, ema = peers.denoising_diffusion(), pytest.importorskip("ema_pytorch")
        torch.manual_seed(0)
        unet = package.Unet(dim=8, dim_mults=(1, 2, 4), **options)
        self.model = package.GaussianDiffusion(
            unet, image_size=16, timesteps=timesteps, objective=objective, beta_schedule=schedule
        )
        self.ema = ema.EMA(self.model, beta=0.9, update_every=1, update_after_step=0)
        with torch.no_grad():
            for _ in range(3):
                for parameter in unet.parameters():
                    parameter.add_(torch.randn_like(parameter) * 0.05)
                self.ema.update()

    def save(self, path: Path, **more) -> Path:
        content = {"step": 700, "model": self.model.state_dict(), "opt": {}, "ema": self.ema.state_dict()}
        torch.save({**content, "scaler": None, "version": "2.2.5", **more}, path)
        return path


@pytest.mark.parametrize(
    ("objective", "schedule", "timesteps"),
    [("pred_noise", "linear", 1000), ("pred_v", "sigmoid", 50), ("pred_x0", "cosine", 200)],
)
def test_a_converted_run_guesses_what_the_package_guesses(
    tmp_path: Path, objective: str, schedule: str, timesteps: int
):
    saved = Saved(objective=objective, schedule=schedule, timesteps=timesteps)
    run = convert(saved.save(tmp_path / "model-7.pt"), tmp_path / "run", image_size=16, data="cifar10")
    config = run.config
    assert (config.objective, config.timesteps) == (PEERS[objective], timesteps)
    assert config.schedule == schedule
    assert config.network == "unet(dim=8, dim_mults=(1, 2, 4))"
    x = torch.randn(2, 3, 16, 16)
    for weights, theirs in (("ema", saved.ema.ema_model), ("raw", saved.model)):
        diffusion = sources.load(run.path, weights=weights, device="cpu").generator.diffusion
        for t in (1, timesteps // 2, timesteps - 2):
            sigma, kept = diffusion.sigmas[t], theirs.alphas_cumprod[t].sqrt()
            with torch.no_grad():
                expected = theirs.model_predictions(x, torch.full((2,), t)).pred_x_start
                found = diffusion.denoise(x.double() / kept.double(), sigma)
            torch.testing.assert_close(found.float(), expected, rtol=2e-3, atol=2e-3)


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture):
    file = Saved().save(tmp_path / "model-7.pt")
    assert main(["convert", str(file), str(tmp_path / "run"), "--image-size", "16"]) == 0
    assert "unet(dim=8, dim_mults=(1, 2, 4)), sigmoid, v; it has no optimiser" in capsys.readouterr().err
    out = str(tmp_path / "x.png")
    assert main(["sample", str(tmp_path / "run"), "--count=1", "--steps=2", "--device=cpu", "--out", out]) == 0
    assert checkpoints.steps(tmp_path / "run" / "checkpoints") == [700]
    assert main(["convert", str(file), str(tmp_path / "run"), "--image-size", "16"]) == 2
    assert "is there already" in capsys.readouterr().err


class Canary:
    """What runs when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def refused(path: Path, folder: Path, match: str) -> None:
    with pytest.raises(RequestError, match=match) as caught:
        convert(path, folder, image_size=16, data="cifar10")
    assert "\n" not in str(caught.value)
    assert not folder.exists()


def test_code_in_a_file_is_never_run(tmp_path: Path):
    canary, file = tmp_path / "canary", tmp_path / "model-7.pt"
    with pytest.raises(FileNotFoundError):  # the canary sings where it is let
        torch.save({"a": Canary(tmp_path / "no" / "canary")}, file)
        torch.load(file, weights_only=False)
    for key in ("model", "ema", "opt", "version"):
        Saved().save(file, **{key: Canary(canary)})
        refused(file, tmp_path / "run", "nothing in it was run")
    file.write_bytes(pickle.dumps(Canary(canary)))
    refused(file, tmp_path / "run", "nothing in it was run")
    assert not canary.exists()


def test_what_is_no_such_checkpoint_is_refused(tmp_path: Path):
    file, folder = tmp_path / "model-7.pt", tmp_path / "run"
    refused(file, folder, "is not there")
    good = Saved().save(file).read_bytes()
    for cut in (0, 1, 100, len(good) // 2, len(good) - 1):
        file.write_bytes(good[:cut])
        refused(file, folder, "is no checkpoint of denoising-diffusion-pytorch")
    for content in ([1], {"model": {}}, {"model": {}, "ema": {}}, {"model": 3, "ema": 4}):
        torch.save(content, file)
        refused(file, folder, "has no")
    saved = Saved()
    for change, match in {
        "model.init_conv.weight": "init_conv.weight is .* ours has",
        "model.final_conv.weight": "is no Unet",
        "betas": "has no noise schedule",
        "loss_weight": "has no noise schedule",
    }.items():
        state = dict(saved.model.state_dict())
        state[change] = torch.zeros(())
        if change == "model.final_conv.weight":
            del state[change]
        saved.save(file, model=state)
        refused(file, folder, match)
    Saved(schedule="linear", timesteps=50).save(
        file, model=saved.model.state_dict() | {"betas": torch.full((50,), 0.5)}
    )
    refused(file, folder, "its schedule is none of linear, cosine, sigmoid")
    Saved(self_condition=True).save(file)
    refused(file, folder, "init_conv.weight is")


def test_a_file_that_unpacks_to_more_than_it_is_is_not_unpacked(tmp_path: Path):
    file = tmp_path / "model-7.pt"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**8))
    refused(file, tmp_path / "run", "it would unpack to 100,000,000 bytes")


def test_weights_that_are_not_finite_are_refused(tmp_path: Path):
    saved, file = Saved(), tmp_path / "model-7.pt"
    with torch.no_grad():
        next(saved.ema.ema_model.parameters()).view(-1)[0] = torch.nan
    with pytest.raises(checkpoints.NotFinite, match="ema/"):
        convert(saved.save(file), tmp_path / "run", image_size=16, data="cifar10")
