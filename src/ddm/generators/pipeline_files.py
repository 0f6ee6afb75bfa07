"""Pipelines of diffusers on disk or on the hub: found, checked and loaded; nothing of theirs is ever run as code."""

import importlib
import inspect
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ddm.errors import RequestError
from ddm.storage import digest_of, digest_of_file

if TYPE_CHECKING:
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

INDEX = "model_index.json"
NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
GIVEN = ("batch_size", "generator", "num_inference_steps", "output_type")
"""What a call gets from us."""

NEEDED = ("prompt", "image")
"""What some pipelines need though their signature lets it be left out."""

ALLOWED = "allowed: pipelines that make pictures of noise alone, e.g. DDPMPipeline or DDIMPipeline"


def find_pipeline(source: str) -> Path:
    """The folder of a pipeline: ``source`` itself, or the copy of a repository that is downloaded once.

    Args:
        source: a folder that ``save_pretrained`` wrote, or ``owner/name`` on the Hugging Face hub.

    Raises:
        RequestError: diffusers is not installed, there is no such pipeline, or one that cannot be used.
    """
    library = diffusers()
    path = Path(source).expanduser()
    if not path.is_dir():
        path = _download(library, source)
    check_index(path, source)
    return path


def load_pipeline(folder: Path, device: torch.device) -> "DiffusionPipeline":
    """A pipeline from its .safetensors files, in float32 on ``device``.

    Raises:
        RequestError: files are missing or damaged.
    """
    library, name = diffusers(), check_index(folder, str(folder))
    pickled = [file for part in _parts(folder) for file in (folder / part).glob("*.bin")]
    try:
        with _no_bars():
            pipeline = getattr(library, name).from_pretrained(folder, use_safetensors=True, local_files_only=True)
    except Exception as error:  # damaged files raise almost anything
        hint = f"{pickled[0].name} is not read, since such a file can run code; " if pickled else ""
        raise RequestError(f"diffusers: {str(folder)!r} cannot be loaded: {hint}{_line(error)}") from error
    for part, module in pipeline.components.items():
        if isinstance(module, torch.nn.Module):
            missing = [key for key, tensor in module.state_dict().items() if tensor.is_meta]
            if missing:
                raise RequestError(f"diffusers: {str(folder)!r} has no weights for {part}.{missing[0]}")
    return pipeline.to(device)


def digest_of_pipeline(folder: Path) -> str:
    """SHA-256 of what decides its pictures: the settings and weights of all parts."""
    files = [folder / INDEX]
    for part in _parts(folder):
        files += sorted(each for each in (folder / part).iterdir() if each.suffix in (".json", ".safetensors"))
    return digest_of([(each.relative_to(folder).as_posix(), digest_of_file(each)) for each in files])


def check_index(folder: Path, source: str) -> str:
    """The class of the pipeline in a folder, from its model_index.json.

    Raises:
        RequestError: it is no pipeline, has parts that are not of diffusers, or :func:`check_call` refuses it.
    """
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        name = index["_class_name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RequestError(f"diffusers: {source!r} is no pipeline: it has no readable {INDEX}") from error
    library = diffusers()
    found = getattr(library, name, None) if isinstance(name, str) else None
    if not (isinstance(found, type) and issubclass(found, library.DiffusionPipeline)):
        version = library.__version__
        raise RequestError(f"diffusers: {source!r} is a {name}, which diffusers {version} cannot run here; {ALLOWED}")
    check_call(found)
    for part, value in index.items():
        # Another library would be imported by the name that the file gives.
        if part[0] != "_" and isinstance(value, list) and value[0] not in ("diffusers", None):
            raise RequestError(f"diffusers: the {part} of {source!r} is from {value[0]!r}; allowed: parts of diffusers")
    return name


def check_call(pipeline: type) -> None:
    """Raise :class:`RequestError` unless a class of pipelines makes pictures of nothing but noise and steps."""
    parameters = inspect.signature(pipeline.__call__).parameters
    required = [
        name
        for name, each in list(parameters.items())[1:]
        if each.default is each.empty and each.kind is each.POSITIONAL_OR_KEYWORD
    ]
    needed = [*required, *(name for name in NEEDED if name in parameters and name not in required)]
    if needed:
        raise RequestError(f"diffusers: a {pipeline.__name__} needs {', '.join(needed)}; {ALLOWED}")
    lacking = [name for name in GIVEN if name not in parameters]
    if lacking:
        raise RequestError(f"diffusers: a {pipeline.__name__} does not take {', '.join(lacking)}; {ALLOWED}")


def diffusers() -> Any:
    """The library; raises :class:`RequestError` where it is not installed or broken."""
    try:
        library: Any = importlib.import_module("diffusers")
        _ = library.DiffusionPipeline  # its parts are imported when they are first used
    except ModuleNotFoundError as error:
        install = 'pip install "denoising-diffusion-model[diffusers]"'
        raise RequestError(f"diffusers: {error.name} is not installed; {install}") from error
    except (ImportError, RuntimeError) as error:
        raise RequestError(f"diffusers: it cannot be imported: {_line(error)}") from error
    return library


def _download(library: Any, source: str) -> Path:
    """A repository's copy in the hub's cache; its index first, so that what cannot be used is not downloaded."""
    import huggingface_hub as hub
    from huggingface_hub import errors

    if not NAME.fullmatch(source):
        raise RequestError(f"diffusers: {source!r} is not there; allowed: a folder, or owner/name on the hub")
    offline = bool(hub.constants.HF_HUB_OFFLINE)
    try:
        index = Path(hub.hf_hub_download(source, INDEX, local_files_only=offline))
        check_index(index.parent, source)
        with _no_bars():
            return Path(library.DiffusionPipeline.download(source, use_safetensors=True, local_files_only=offline))
    except RequestError:
        raise
    except errors.LocalEntryNotFoundError as error:
        why = "HF_HUB_OFFLINE is set" if offline else "is there a network?"
        raise RequestError(
            f"diffusers: {source!r} is neither a folder here nor in the hub's cache, and the hub cannot be reached "
            f"({why})"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise RequestError(
            f"diffusers: {source!r} is neither a folder here nor on the hub; are you logged in where it is private?"
        ) from error
    except errors.EntryNotFoundError as error:
        raise RequestError(f"diffusers: {source!r} is no pipeline: it has no {INDEX}") from error
    except (OSError, ValueError) as error:
        raise RequestError(f"diffusers: {source!r} cannot be downloaded: {_line(error)}") from error


def _parts(folder: Path) -> list[str]:
    """The parts of a pipeline that have a folder of their own."""
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    return sorted(name for name in index if (folder / name).is_dir())


@contextmanager
def _no_bars() -> Iterator[None]:
    """The library shows a bar while it loads; its user may want one in his own work."""
    from diffusers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300].rstrip(".")
