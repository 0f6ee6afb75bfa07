"""Nothing in the suite may call out: these must be set before the libraries are imported."""

import os

os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    WANDB_MODE="offline",
    WANDB_ERROR_REPORTING="false",
    WANDB_SILENT="true",
    GRADIO_ANALYTICS_ENABLED="False",
    NO_COLOR="1",
    MPLBACKEND="Agg",
    OMP_NUM_THREADS=os.environ.get("OMP_NUM_THREADS", "1"),
)

import pytest
import torch

torch.set_num_threads(1)  # the suite runs one worker a core


@pytest.fixture(autouse=True, scope="session")
def private_cache(tmp_path_factory: pytest.TempPathFactory):
    """Caches and downloads of the suite never touch the user's."""
    patch = pytest.MonkeyPatch()
    patch.setenv("HF_HOME", str(tmp_path_factory.getbasetemp() / "huggingface"))
    yield
    patch.undo()
