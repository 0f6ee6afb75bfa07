"""Named tensors as the bytes of a safetensors file.

Only the framing is ours (an 8-byte length, a JSON header, the data): the library's ``save`` holds two more copies of
everything in memory, and its ``save_file`` neither flushes to the disk, nor lets the bytes be hashed on their way, nor
gives the file the mode the user's umask asks for. Reading is the library's, which checks every length and offset.
"""

import json
from collections.abc import Iterator, Mapping

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from ddm.errors import DdmError

_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


class BadTensors(DdmError):
    """The bytes are not those of a safetensors file."""


def dump(tensors: Mapping[str, Tensor]) -> Iterator[bytes | memoryview]:
    """The file's bytes, piece by piece, without a second copy of any tensor that is contiguous and on the CPU.

    Args:
        tensors: of any layout and device, not to be changed while this runs. A tensor stored under two names is
            written twice.

    Raises:
        TypeError: a tensor's type is not one of the ten that are written.
    """
    # Widest type first, as the library does: every tensor then starts at a multiple of its own width.
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    header, offset = {}, 0
    for name, tensor in ordered:
        if tensor.dtype not in _NAMES or tensor.layout != torch.strided:
            raise TypeError(f"{name}: a {tensor.layout} tensor of {tensor.dtype} cannot be saved")
        end = offset + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for _, tensor in ordered:
        flat = tensor.detach().to("cpu").contiguous().view(-1)
        yield flat.view(torch.uint8).numpy().data


def parse(data: bytes) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU.

    Raises:
        BadTensors: the bytes are not such a file.
    """
    try:
        return load(data)
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise BadTensors(f"not a safetensors file ({' '.join(str(error).split())})") from error


def not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor that holds a NaN or an infinity, if any does."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.numel():
            # The extremes show either, in one pass and without the mask of isfinite, which is ten times slower.
            low, high = tensor.detach().aminmax()
            if not (low.isfinite() and high.isfinite()):
                return name
    return None
