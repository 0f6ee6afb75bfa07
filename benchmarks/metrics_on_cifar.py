"""Does every metric move the right way? Real CIFAR-10 against itself, made worse in known steps.

One part of the training pictures is the reference, another part, with no picture in common, plays the generated ones:
as they are (what a perfect model would get), then blurred, noisy, compressed, with classes missing, with pictures
repeated, with pictures copied from the reference. Prints a Markdown table and exits 1 where a metric does not move as
it should.

    DDM_DATA=... python benchmarks/metrics_on_cifar.py --count 5000 --out results/metrics-on-cifar.json
"""

import argparse
import io
import json
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ddm.data import get_data
from ddm.images import to_pil
from ddm.metrics import Embedded, Measurement, features, metrics
from ddm.metrics.embedding import CHUNK, FeatureCache, embed
from ddm.seeding import generator
from ddm.storage import cache_folder

METRICS = ("fid", "fid_infinity", "kid", "precision", "recall", "density", "coverage", "memorisation", "duplicates")
WORSE = {
    # Which way each metric must go, step by step, when pictures get worse in this way; the others are only shown.
    "blur": {"fid": +1, "fid_infinity": +1, "kid": +1, "precision": -1, "density": -1, "coverage": -1},
    "noise": {"fid": +1, "fid_infinity": +1, "kid": +1, "precision": -1, "density": -1, "coverage": -1},
    "jpeg": {"fid": +1, "fid_infinity": +1, "kid": +1, "coverage": -1},
    "missing classes": {"fid": +1, "fid_infinity": +1, "kid": +1, "recall": -1, "coverage": -1},
    "repeated": {"fid": +1, "kid": +1, "recall": -1, "coverage": -1, "duplicates": +1},
    "copied": {"memorisation": +1},
}


@dataclass(frozen=True)
class Variant:
    """One way and degree of making pictures worse."""

    way: str
    degree: str
    make: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def blurred(sigma: float) -> Callable[[Tensor], Tensor]:
    def make(pixels: Tensor) -> Tensor:
        reach = max(1, round(3 * sigma))
        line = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
        line = (line / line.sum()).repeat(3, 1, 1, 1)
        x = F.pad(pixels.float(), (reach, reach, reach, reach), mode="reflect")
        x = F.conv2d(F.conv2d(x, line, groups=3), line.transpose(2, 3), groups=3)
        return x.round().clamp(0, 255).to(torch.uint8)

    return make


def noisy(levels: float) -> Callable[[Tensor], Tensor]:
    def make(pixels: Tensor) -> Tensor:
        noise = torch.randn(pixels.shape, generator=generator(0, "noise"))
        return (pixels + levels * noise).round().clamp(0, 255).to(torch.uint8)

    return make


def compressed(quality: int) -> Callable[[Tensor], Tensor]:
    def one(picture: Tensor) -> Tensor:
        file = io.BytesIO()
        to_pil(picture).save(file, "JPEG", quality=quality)
        with Image.open(file) as opened:
            flat = torch.frombuffer(bytearray(opened.tobytes()), dtype=torch.uint8)
        return flat.reshape(*picture.shape[1:], 3).permute(2, 0, 1)

    return lambda pixels: torch.stack([one(picture) for picture in pixels])


def variants() -> Iterator[Variant]:
    def of_pixels(change: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
        return lambda pixels, labels, real: (change(pixels), labels)

    yield Variant("none", "", lambda pixels, labels, real: (pixels, labels))
    for sigma in (0.4, 0.6, 0.8, 1.2):
        yield Variant("blur", f"sigma {sigma} pixels", of_pixels(blurred(sigma)))
    for levels in (4, 8, 16, 32):
        yield Variant("noise", f"{levels} gray levels", of_pixels(noisy(levels)))
    for quality in (90, 60, 30, 10):
        yield Variant("jpeg", f"quality {quality}", of_pixels(compressed(quality)))
    for missing in (1, 3, 5, 8):
        yield Variant("missing classes", f"{missing} of 10", lambda p, y, r, m=missing: without_classes(p, y, m))
    for times in (2, 5, 20, 100):
        yield Variant("repeated", f"{times} times", lambda p, y, r, t=times: repeated(p, y, t))
    for share in (0.05, 0.2, 0.5):
        yield Variant("copied", f"{share:.0%}", lambda p, y, r, s=share: copied(p, y, r, s))


# Vehicles first: where animals go as well the mean of what is left moves back, and with it the distances.
DROPPED = torch.tensor([0, 1, 8, 9, 2, 3, 4, 5, 6, 7])


def without_classes(pixels: Tensor, labels: Tensor, missing: int) -> tuple[Tensor, Tensor]:
    """As many different pictures, none of ``missing`` classes; ``pixels`` holds more than are wanted."""
    keep = ~torch.isin(labels, DROPPED[:missing])
    return pixels[keep], labels[keep]


def repeated(pixels: Tensor, labels: Tensor, times: int) -> tuple[Tensor, Tensor]:
    index = torch.arange(len(pixels)) // times
    return pixels[index], labels[index]


def copied(pixels: Tensor, labels: Tensor, real: Tensor, share: float) -> tuple[Tensor, Tensor]:
    count = round(share * len(pixels))
    return torch.cat([real[:count], pixels[count:]]), labels


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=5000, help="pictures on each side")
    parser.add_argument("--features", default="efficientnet")
    parser.add_argument("--out", type=Path, help="write the numbers to this .json")
    arguments = parser.parse_args()
    data = get_data("cifar10")
    assert data.labels is not None
    count, half = arguments.count, data.count // 2
    extractor = features.bind(arguments.features)().eval()
    cache = FeatureCache(cache_folder("features"), extractor)

    def embedded(pixels: Tensor, labels: Tensor) -> Embedded:
        pieces = []
        for chunk in pixels.split(CHUNK):
            found = cache.read(chunk)
            if found is None:
                found = embed(extractor, chunk, batch=100)
                cache.write(chunk, found)
            pieces.append(found)
        whole = {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}
        return Embedded(whole["features"], pixels, whole.get("logits"), labels, data.classes)

    real = embedded(data.pixels[:count], data.labels[:count])
    rows: dict[str, dict[str, dict[str, Measurement]]] = {}
    for variant in variants():
        started = time.monotonic()
        # Where classes are dropped there must be enough of the others, so the whole half is offered.
        offered = slice(half, None) if variant.way == "missing classes" else slice(half, half + count)
        pixels, labels = variant.make(data.pixels[offered], data.labels[offered], real.pixels)
        fake = embedded(pixels[:count], labels[:count])
        row = {name: metrics.bind(name)(real=real, fake=fake) for name in METRICS}
        rows.setdefault(variant.way, {})[variant.degree] = row
        seconds = time.monotonic() - started
        print(f"{variant.way} {variant.degree}: {seconds:.0f} s", file=sys.stderr, flush=True)
    print(table(rows, arguments.features))
    wrong = list(failures(rows))
    print("\n".join(wrong) or "every metric moves the right way, step by step")
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(facts(rows, arguments, extractor.digest), indent=1) + "\n")
    return 1 if wrong else 0


def failures(rows: dict[str, dict[str, dict[str, Measurement]]]) -> Iterator[str]:
    """Every step that a metric takes the wrong way."""
    (start,) = rows["none"].values()
    for way, expected in WORSE.items():
        degrees = [("as they are", start), *rows[way].items()]
        for name, direction in expected.items():
            for (before, a), (after, b) in zip(degrees, degrees[1:]):
                at_its_end = a[name].value == b[name].value and b[name].value in (0, 1)
                if direction * (b[name].value - a[name].value) <= 0 and not at_its_end:
                    yield f"WRONG: {name} {a[name].value:.4g} -> {b[name].value:.4g} from {way} {before} to {after}"


def table(rows: dict[str, dict[str, dict[str, Measurement]]], space: str) -> str:
    """Markdown: a row a variant, a column a metric, with half the width of the interval."""
    lines = [f"| {space} | {' | '.join(METRICS)} |", "|---" * (len(METRICS) + 1) + "|"]
    for way, degrees in rows.items():
        for degree, row in degrees.items():
            cells = [f"{each.value:.3g} ± {(each.high - each.low) / 2:.1g}" for each in row.values()]
            lines.append(f"| {way} {degree} | {' | '.join(cells)} |")
    return "\n".join(lines)


def facts(rows: dict, arguments: argparse.Namespace, digest: str) -> dict:
    """Everything for the file."""
    numbers = {
        way: {
            degree: {name: [each.value, each.low, each.high] for name, each in row.items()}
            for degree, row in degrees.items()
        }
        for way, degrees in rows.items()
    }
    return {
        "command": f"python benchmarks/metrics_on_cifar.py --count {arguments.count} --features {arguments.features}",
        "features_digest": digest,
        "torch": torch.__version__,
        "machine": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "date": time.strftime("%Y-%m-%d"),
        "numbers": numbers,
    }


if __name__ == "__main__":
    sys.exit(main())
