"""Films of the denoising: an animated picture, or a video where ffmpeg is there."""

import math
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from torch import Tensor
from torch.nn import functional as F

from ddm.errors import DdmError, RequestError
from ddm.images import to_pil

FRAMES, BYTES = 150, 2**29
"""Frames of a film at most, and the memory that they may take, for which there may be fewer."""

SHORTEST, HELD = 40, 2000
"""Milliseconds that a frame is shown at least, and that the last one is held."""

LARGEST = {".webp": 16_383, ".gif": 65_535, ".mp4": 16_384}
"""Pixels of a side that a format can have."""

PIXELS = {1: "gray", 3: "rgb24", 4: "rgba"}
"""What ffmpeg calls the pixels of so many channels."""


def checked(out: Path, frames: Iterable[Tensor]) -> Iterator[Tensor]:
    """The frames, uint8 ``[c, H, W]``, unless the first of them, which no network was needed for, is too large.

    Raises:
        RequestError: the format has no frames of this size.
    """
    most = LARGEST[out.suffix.lower()]
    for frame in frames:
        if max(frame.shape[1:]) > most:
            raise RequestError(
                f"out: frames of {frame.shape[2]}x{frame.shape[1]} pixels are not allowed; allowed: up to {most} a "
                f"side in a {out.suffix} file; make fewer pictures with --count"
            )
        yield frame


def thinned(frames: Iterable[Tensor], most: int = FRAMES) -> list[Tensor]:
    """At most so many of the frames, evenly spaced, the first and the last among them; no more are held at a time."""
    kept: list[Tensor] = []
    every, last = 1, None
    for number, frame in enumerate(frames):
        last = frame
        most = min(most, max(3, BYTES // frame.nbytes))
        while len(kept) >= most - 1:
            kept, every = kept[::2], 2 * every
        if number % every == 0:
            kept.append(frame)
    if last is not None and last is not kept[-1]:
        kept.append(last)
    return kept


def write_film(out: Path, frames: Sequence[Tensor]) -> None:
    """Frames, uint8 ``[c, H, W]``, as .webp, .gif or .mp4, the last one held for two seconds.

    Raises:
        DdmError: ffmpeg failed.
    """
    pause = max(SHORTEST, HELD // len(frames))
    if out.suffix.lower() == ".mp4":
        _write_mp4(out, [*frames, *[frames[-1]] * math.ceil(HELD / pause)], pause)
        return
    first, *others = (to_pil(each) for each in frames)
    durations = [pause] * len(others) + [HELD]
    # `lossless` is for WebP, whose default would blur pixels; GIF ignores it.
    first.save(out, save_all=True, append_images=others, duration=durations, loop=0, lossless=True)


def _write_mp4(out: Path, frames: Sequence[Tensor], pause: int) -> None:
    channels, height, width = frames[0].shape
    odd = (0, width % 2, 0, height % 2)  # yuv420p, which alone every player shows, has even sides
    size = f"{width + odd[1]}x{height + odd[3]}"
    given = ["-f", "rawvideo", "-pix_fmt", PIXELS[channels], "-s", size, "-framerate", f"1000/{pause}", "-i", "-"]
    made = ["-c:v", "libx264", "-crf", "10", "-preset", "slow", "-pix_fmt", "yuv420p", "-movflags", "+faststart"]
    command = ["ffmpeg", "-loglevel", "error", "-y", *given, *made, str(out.resolve())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as ffmpeg:
        assert ffmpeg.stdin is not None
        assert ffmpeg.stderr is not None
        try:
            for frame in frames:
                ffmpeg.stdin.write(F.pad(frame, odd, value=255).permute(1, 2, 0).contiguous().numpy().data)
        except BrokenPipeError:
            pass  # it says why itself
        with suppress(BrokenPipeError):
            ffmpeg.stdin.close()
        said = ffmpeg.stderr.read().decode(errors="replace").strip().splitlines()
    if ffmpeg.returncode:
        out.unlink(missing_ok=True)
        raise DdmError(f"{out} was not written: ffmpeg: {said[-1] if said else f'status {ffmpeg.returncode}'}")
