"""Pipelines of diffusers; the oracle is the library itself, called by hand."""

import inspect
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddm.errors import DdmError, RequestError
from ddm.generators import PipelineGenerator
from ddm.generators.pipeline_files import check_index, digest_of_pipeline, find_pipeline, load_pipeline

diffusers: Any = pytest.importorskip("diffusers")
CPU = torch.device("cpu")
WEIGHTS = Path("unet", "diffusion_pytorch_model.safetensors")


def unet(**options: Any) -> Any:
    torch.manual_seed(0)
    shape = {"block_out_channels": (8, 8), "layers_per_block": 1, "norm_num_groups": 4, "attention_head_dim": 4}
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    return diffusers.UNet2DModel(**{"sample_size": 8, **shape, **blocks, **options})


def ddpm(**options: Any) -> Any:
    return diffusers.DDPMPipeline(unet=unet(**options), scheduler=diffusers.DDPMScheduler(num_train_timesteps=200))


def ddim() -> Any:
    return diffusers.DDIMPipeline(unet=unet(), scheduler=diffusers.DDIMScheduler(num_train_timesteps=200))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pipelines") / "tiny"
    ddpm().save_pretrained(path)
    return path


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def by_hand(pipeline: Any, seed: int, steps: int) -> torch.Tensor:
    """What anybody who calls the pipeline with this seed gets, as its own PIL picture."""
    generator = torch.Generator().manual_seed(seed)
    (picture,) = pipeline(batch_size=1, generator=generator, num_inference_steps=steps).images
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


@pytest.mark.parametrize("make", [ddpm, ddim])
def test_the_picture_is_the_librarys_own_at_any_batch_size(make):
    pipeline = make()
    generator = PipelineGenerator(pipeline, steps=12)
    assert (generator.shape, generator.classes, generator.limit) == ((3, 8, 8), 0, None)
    together = generator.generate(range(3, 7))
    for seed, picture in zip(range(3, 7), together):
        assert torch.equal(by_hand(pipeline, seed, 12), generator.generate([seed])[0])
        # Another batch size may round a level differently, no more.
        assert (picture.int() - generator.generate([seed])[0].int()).abs().max() <= 1
    assert not torch.equal(together[0], together[1])


def test_it_rounds_to_the_nearest_level():
    generator = PipelineGenerator(ddim(), steps=3)
    levels = np.linspace(0, 255, 8 * 8 * 3, dtype=np.float64).reshape(1, 8, 8, 3)
    generator.pipeline = lambda **_: diffusers.ImagePipelineOutput(images=(levels / 255).astype(np.float32))
    assert torch.equal(generator.generate([0])[0], torch.from_numpy(np.rint(levels[0])).permute(2, 0, 1).byte())


@pytest.mark.parametrize(("make", "default"), [(ddpm, 1000), (ddim, 50)])
def test_steps_are_the_pipelines_own_unless_given(make, default: int):
    pipeline = make()
    if default > 200:
        pipeline.scheduler = diffusers.DDPMScheduler(num_train_timesteps=default)
    assert PipelineGenerator(pipeline).settings()["steps"] == default
    assert PipelineGenerator(pipeline, steps=7).settings()["steps"] == 7
    assert not torch.equal(*(PipelineGenerator(pipeline, steps=steps).generate([0]) for steps in (3, 6)))


def test_settings_say_what_decides_the_pictures():
    pipeline = ddpm()
    settings = PipelineGenerator(pipeline, steps=5).settings()
    assert settings == json.loads(json.dumps(settings))
    assert (settings["pipeline"], settings["scheduler"]) == ("DDPMPipeline", "DDPMScheduler")
    pipeline.scheduler = diffusers.DDPMScheduler(num_train_timesteps=200, variance_type="fixed_large")
    other = PipelineGenerator(pipeline, steps=5).settings()
    assert {name for name in settings if settings[name] != other[name]} == {"scheduler_digest"}
    pipeline.scheduler = diffusers.DDPMScheduler(num_train_timesteps=200)
    assert PipelineGenerator(pipeline, steps=5).settings() == settings


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 16)])
def test_the_shape_is_that_of_the_pictures(channels: int, size: int):
    pipeline = ddpm(in_channels=channels, out_channels=channels, sample_size=size)
    generator = PipelineGenerator(pipeline, steps=2)
    assert generator.shape == (channels, size, size) == tuple(generator.generate([0]).shape[1:])


def test_a_latent_pipeline_is_as_large_as_its_decoder_makes_it():
    vqvae = diffusers.VQModel(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        num_vq_embeddings=8,
    )
    pipeline = diffusers.LDMPipeline(
        vqvae=vqvae, unet=unet(), scheduler=diffusers.DDIMScheduler(num_train_timesteps=200)
    )
    assert PipelineGenerator(pipeline, steps=2).shape == (3, 16, 16)


def test_saved_loaded_and_on_the_hub_it_is_the_same(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    snapshot = tmp_path / "models--owner--tiny" / "snapshots" / ("a" * 40)
    shutil.copytree(saved, snapshot)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("a" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    found = find_pipeline("owner/tiny")
    assert found.resolve() == snapshot
    expected = PipelineGenerator(ddpm(), steps=4).generate(range(2))
    for path in (found, find_pipeline(str(saved))):
        generator = PipelineGenerator(load_pipeline(path, CPU), steps=4)
        assert torch.equal(generator.generate(range(2)), expected)
        assert digest_of_pipeline(path) == digest_of_pipeline(saved)


def test_the_digest_is_of_weights_and_settings(copy: Path, saved: Path):
    (copy / "readme.md").write_text("says nothing")
    (copy / "unet" / "notes.txt").write_text("says nothing")
    assert digest_of_pipeline(copy) == digest_of_pipeline(saved)
    seen = {digest_of_pipeline(saved)}
    for name, old, new in (
        ("scheduler/scheduler_config.json", '"fixed_small"', '"fixed_large"'),
        ("unet/config.json", '"freq_shift": 0', '"freq_shift": 1'),
    ):
        text = (copy / name).read_text()
        assert old in text
        (copy / name).write_text(text.replace(old, new))
        seen.add(digest_of_pipeline(copy))
    weights = bytearray((copy / WEIGHTS).read_bytes())
    weights[-1] ^= 1
    (copy / WEIGHTS).write_bytes(weights)
    assert len({*seen, digest_of_pipeline(copy)}) == 4


# --- refusals


def refused(action) -> str:
    with pytest.raises(RequestError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_weights_that_are_not_finite_give_no_picture():
    pipeline = ddpm()
    generator = PipelineGenerator(pipeline, steps=2)
    with torch.no_grad():
        pipeline.unet.conv_out.bias[1] = torch.nan
    with pytest.raises(DdmError, match="^pictures of seeds 4, 5 are not finite: the pipeline's weights"):
        generator.generate([4, 5])


def test_steps_that_cannot_be():
    assert refused(lambda: PipelineGenerator(ddpm(), steps=0)) == "steps: 0 is not allowed; allowed: 1 or more"
    assert refused(lambda: PipelineGenerator(ddpm(), steps=201)).startswith("steps: 201 is not allowed: ")


def test_classes_are_refused():
    assert refused(lambda: PipelineGenerator(ddim()).generate([0], [1])).startswith("label: a DDIMPipeline has no")
    # Consistency models draw a class from the global generator: the same seed would be another picture every time.
    pipeline = diffusers.ConsistencyModelPipeline(
        unet(num_class_embeds=3), diffusers.CMStochasticIterativeScheduler(40)
    )
    assert "the unet of this ConsistencyModelPipeline needs class_labels" in refused(
        lambda: PipelineGenerator(pipeline)
    )


def with_index(folder: Path, **changes: Any) -> Path:
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, **changes}))
    return folder


class TextPipeline(diffusers.DDPMPipeline):
    """As Stable Diffusion's: a prompt that the signature lets be left out."""

    def __call__(self, prompt=None, batch_size=1, generator=None, num_inference_steps=50, output_type="pil"):
        raise AssertionError


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "TextPipeline",
            "a TextPipeline needs prompt; allowed: pipelines that make pictures of noise alone, e.g. DDPM",
        ),
        ("DiTPipeline", "a DiTPipeline needs class_labels; allowed: "),
        ("RePaintPipeline", "a RePaintPipeline needs image, mask_image; allowed: "),
        ("DanceDiffusionPipeline", "a DanceDiffusionPipeline does not take output_type; allowed: "),
        ("UNet2DModel", "is a UNet2DModel, which diffusers"),
        ("NoSuchPipeline", "is a NoSuchPipeline, which diffusers"),
        (["my_code", "MyPipeline"], "is a ['my_code', 'MyPipeline'], which diffusers"),
    ],
)
def test_other_pipelines_are_refused_by_name(copy: Path, monkeypatch: pytest.MonkeyPatch, name: Any, message: str):
    monkeypatch.setattr(diffusers, "TextPipeline", TextPipeline, raising=False)
    assert message in refused(lambda: find_pipeline(str(with_index(copy, _class_name=name))))


def test_nothing_of_theirs_is_imported_by_name(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "evil_part.py").write_text("raise SystemExit('it ran')")
    monkeypatch.syspath_prepend(tmp_path)
    line = refused(lambda: find_pipeline(str(with_index(copy, unet=["evil_part", "UNet2DModel"]))))
    assert line.endswith("is from 'evil_part'; allowed: parts of diffusers")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"_class_name": 3}', "no json"])
def test_what_is_no_pipeline(tmp_path: Path, text: str):
    (tmp_path / "model_index.json").write_text(text)
    assert refused(lambda: check_index(tmp_path, "x")).startswith(
        ("diffusers: 'x' is no pipeline", "diffusers: 'x' is a 3")
    )


def test_where_there_is_none(tmp_path: Path):
    assert "is no pipeline: it has no readable model_index.json" in refused(lambda: find_pipeline(str(tmp_path)))
    assert refused(lambda: find_pipeline("/no/such/thing")).startswith("diffusers: '/no/such/thing' is not there;")
    assert refused(lambda: find_pipeline("owner/none")) == (
        "diffusers: 'owner/none' is neither a folder here nor in the hub's cache, and the hub cannot be reached "
        "(HF_HUB_OFFLINE is set)"
    )


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("RepositoryNotFoundError", "is neither a folder here nor on the hub; are you logged in"),
        ("EntryNotFoundError", "is no pipeline: it has no model_index.json"),
        ("LocalEntryNotFoundError", "and the hub cannot be reached (HF_HUB_OFFLINE is set)"),
        ("HFValidationError", "cannot be downloaded: why it is so"),
    ],
)
def test_what_the_hub_says_is_one_line(monkeypatch: pytest.MonkeyPatch, kind: str, message: str):
    from huggingface_hub import errors

    class Failure(getattr(errors, kind)):
        def __init__(self):
            Exception.__init__(self, "why it\nis so")

        def __str__(self) -> str:
            return "why it\nis so"

    def fail(*_: object, **__: object):
        raise Failure

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    assert message in refused(lambda: find_pipeline("owner/name"))


def test_an_index_that_is_refused_costs_no_download(copy: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: str(copy / "model_index.json"))
    monkeypatch.setattr(diffusers.DiffusionPipeline, "download", lambda *_, **__: pytest.fail("downloaded"))
    assert "a DiTPipeline needs" in refused(lambda: (with_index(copy, _class_name="DiTPipeline"), find_pipeline("a/b")))


def test_damaged_and_missing_weights(copy: Path):
    from safetensors.torch import load_file, save_file

    tensors = load_file(copy / WEIGHTS)
    save_file({name: tensor for name, tensor in tensors.items() if name != "conv_in.weight"}, copy / WEIGHTS)
    assert refused(lambda: load_pipeline(copy, CPU)).endswith("has no weights for unet.conv_in.weight")
    (copy / WEIGHTS).write_bytes(b"cut")
    assert "cannot be loaded: " in refused(lambda: load_pipeline(copy, CPU))
    (copy / WEIGHTS).unlink()
    torch.save(tensors, copy / "unet" / "diffusion_pytorch_model.bin")
    line = refused(lambda: load_pipeline(copy, CPU))
    assert "diffusion_pytorch_model.bin is not read, since such a file can run code; " in line


def test_without_the_library(monkeypatch: pytest.MonkeyPatch, saved: Path):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    line = refused(lambda: find_pipeline(str(saved)))
    assert line == 'diffusers: diffusers is not installed; pip install "denoising-diffusion-model[diffusers]"'


def test_nothing_calls_out_or_shows_a_bar(saved: Path):
    code = inspect.cleandoc(f"""
        import sys
        calls = []
        sys.addaudithook(lambda name, _: calls.append(name) if name in ("socket.connect", "socket.getaddrinfo") else None)
        import torch
        from ddm.generators import PipelineGenerator
        from ddm.generators.pipeline_files import find_pipeline, load_pipeline
        pipeline = load_pipeline(find_pipeline({str(saved)!r}), torch.device("cpu"))
        PipelineGenerator(pipeline, steps=2).generate([0])
        print(calls)
    """)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_HUB")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (done.stdout, done.stderr) == ("[]\n", "")
