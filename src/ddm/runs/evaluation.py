"""Measuring a generator: pictures, their features, the numbers; one way for a run, a pipeline and a folder."""

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ddm.data import ImageSet
from ddm.errors import DdmError, RequestError
from ddm.generators import Generator as PictureGenerator
from ddm.metrics import Embedded, Measurement, features, metrics
from ddm.metrics.embedding import CHUNK, FeatureCache, Vectors, embed
from ddm.metrics.protocols import Protocol, label
from ddm.runs.config import Evaluation
from ddm.runs.pictures import Kept, make
from ddm.runs.progress import Progress
from ddm.seeding import shuffled
from ddm.storage import cache_folder, trim
from ddm.training import Team

FEATURES_KEPT = 8 * 2**30
"""Bytes of features on disk: some 20 sets of 50,000 pictures."""


@dataclass(frozen=True)
class Evaluated:
    """What was measured of one generator.

    Args:
        measurements: by the choice of metric.
        protocol: how.
        fake: the pictures and features that were measured.
        real: those they were measured against.
        seconds: of making pictures, of features, and of each metric.
        made: how many pictures were made now; the others were kept from before.
        failed: the metrics that have no number, and why.
    """

    measurements: dict[str, Measurement]
    protocol: Protocol
    fake: Embedded = field(repr=False)
    real: Embedded = field(repr=False)
    seconds: dict[str, float] = field(default_factory=dict)
    made: int = 0
    failed: dict[str, str] = field(default_factory=dict)

    def records(self, **facts: Any) -> list[dict[str, Any]]:
        """The lines for evaluations.jsonl, one a metric; ``facts`` say of what (model, step, settings)."""
        speed = {"images_made": self.made, "seconds_pictures": round(self.seconds["pictures"], 2)}
        speed["images_per_second"] = round(self.made / max(self.seconds["pictures"], 1e-9), 1) if self.made else None
        shared = {"protocol": asdict(self.protocol), "protocol_digest": self.protocol.digest, **speed}
        shared |= {"seconds_features": round(self.seconds["features"], 2), "time": round(time.time(), 1)}
        return [
            {
                **facts,
                "metric": name,
                "label": label(name, self.protocol.features),
                **asdict(measurement),
                "warnings": list(measurement.warnings),
                "seconds_metric": round(self.seconds[name], 2),
                **shared,
            }
            for name, measurement in self.measurements.items()
        ]


class Evaluator:
    """Measures generators in one feature space against one reference, on all processes of a team.

    Args:
        settings: which metrics, features and how many pictures.
        reference: the real pictures, as stored: never mirrored or shuffled.
        team: the processes that share the work.
        batch: pictures at a time; by default 100 on a CPU and 500 elsewhere.
        say: told about damaged files of the caches.

    Raises:
        RequestError: unknown metrics or features, or too few pictures.
        DdmError: the weights of the feature network cannot be had.
    """

    def __init__(
        self,
        settings: Evaluation,
        reference: ImageSet,
        *,
        team: Team,
        batch: int | None = None,
        say: Callable[[str], None] = lambda _: None,
    ):
        check(settings)
        self.settings, self.reference, self.team, self.say = settings, reference, team, say
        self.batch = batch or (100 if team.device.type == "cpu" else 500)
        self.features = str(features.check(settings.features, field="evaluate.features"))
        self.extractor = features.bind(settings.features, field="evaluate.features")().to(team.device).eval()
        self._cache = FeatureCache(cache_folder("features"), self.extractor, say)
        self._real: Embedded | None = None

    def evaluate(
        self,
        generator: PictureGenerator,
        *,
        identity: str | None,
        seed: int = 0,
        images: int | None = None,
        classes: tuple[str, ...] | None = None,
    ) -> Generator[Progress, None, Evaluated]:
        """Make the pictures of ``seed, seed + 1, ...``, embed and measure them; yields how far it is.

        Args:
            generator: what is measured.
            identity: SHA-256 of the model: its pictures are kept as they are made, so that a killed evaluation goes
                on where it was; None keeps nothing.
            seed: of the first picture.
            images: how many, instead of the settings'.
            classes: names of the generator's labels, where they are not those of the reference.

        Raises:
            RequestError: the generator has too few pictures, or none of this size.
        """
        count = images or self.settings.images
        if generator.limit is not None and generator.limit < count:
            raise RequestError(f"images: {count} is not allowed; there are only {generator.limit}")
        check_labels(self.settings, self.reference, generator)
        real = yield from self.embedded_reference()
        started = time.monotonic()
        there = generator.limit is not None  # pictures that need not be made need not be kept
        kept = None if identity is None or there else Kept(identity, generator, self.team.device.type, self.say)
        seeds = self._seeds(generator, seed, count)
        made = make(generator, seeds, team=self.team, batch=self.batch, kept=kept)
        pixels, fresh = yield from made
        seconds = {"pictures": time.monotonic() - started}
        started = time.monotonic()
        vectors = yield from self._embed(pixels, "features", keep=identity is not None)
        seconds["features"] = time.monotonic() - started
        labels = _renumbered(generator.labels_of(seeds), classes, self.reference.classes)
        fake = self._gathered(vectors, pixels, labels, self.reference.classes)
        measurements, took, failed = yield from self._measure(real, fake)
        protocol = self._protocol(count, seed)
        return Evaluated(measurements, protocol, fake, real, seconds | took, 0 if there else fresh, failed)

    def embedded_reference(self) -> Generator[Progress, None, Embedded]:
        """The real pictures with their features; read from the cache after the first time."""
        if self._real is None:
            data = self.reference
            vectors = yield from self._embed(data.pixels, "reference", keep=True)
            labels = None if data.labels is None else data.labels.tolist()
            self._real = self._gathered(vectors, data.pixels, labels, data.classes)
            if self.team.rank == 0:
                trim(cache_folder("features"), FEATURES_KEPT)
        return self._real

    def _embed(self, pixels: Tensor, what: str, *, keep: bool) -> Generator[Progress, None, Vectors]:
        pieces: list[Vectors] = []
        for number, chunk in enumerate(pixels.split(CHUNK)):
            yield Progress(what, number * CHUNK, len(pixels))
            found = self.team.agree(self._cache.read(chunk) if keep and self.team.rank == 0 else None)
            if found is None:
                found = self._embed_together(chunk)
                if keep:
                    self.team.first(partial(self._cache.write, chunk, found))
            pieces.append(found)
        yield Progress(what, len(pixels), len(pixels))
        return {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}

    def _embed_together(self, chunk: Tensor) -> Vectors:
        part = embed(self.extractor, chunk[self.team.part(len(chunk))], batch=self.batch)
        return {name: self.team.gather(vectors, len(chunk)) for name, vectors in part.items()}

    def _gathered(
        self, vectors: Vectors, pixels: Tensor, labels: Sequence[int] | None, classes: tuple[str, ...]
    ) -> Embedded:
        device = self.team.device
        numbers = None if labels is None or not classes else torch.tensor(labels, device=device)
        logits = vectors["logits"].to(device) if "logits" in vectors else None
        return Embedded(vectors["features"].to(device), pixels.to(device), logits, numbers, classes)

    @staticmethod
    def _seeds(generator: PictureGenerator, seed: int, count: int) -> Sequence[int]:
        """Those that follow ``seed``; of pictures that are there already, which may be sorted, some from all over."""
        if generator.limit is None or seed:
            return range(seed, seed + count)
        return shuffled(generator.limit)[:count].tolist()

    def _measure(
        self, real: Embedded, fake: Embedded
    ) -> Generator[Progress, None, tuple[dict[str, Measurement], dict[str, float], dict[str, str]]]:
        """Each metric on one of the processes, so that none waits for the first to do them all; one that has no number
        takes none of the others along."""
        names = self.settings.metrics
        mine: list[tuple[str, Measurement | str, float]] = []
        for number, name in enumerate(names):
            yield Progress(name, number, len(names))
            if number % self.team.count == self.team.rank:
                started = time.monotonic()
                try:
                    found = metrics.bind(name, field="evaluate.metrics")(real=real, fake=fake)
                except DdmError as error:
                    found = str(error)
                mine.append((name, found, time.monotonic() - started))
        every = {name: (found, seconds) for name, found, seconds in self.team.collect(mine)}
        measured = {name: found for name in names if isinstance(found := every[name][0], Measurement)}
        failed = {name: found for name in names if isinstance(found := every[name][0], str)}
        if not measured:
            raise DdmError("; ".join(failed.values()))
        return measured, {name: every[name][1] for name in names}, failed

    def _protocol(self, count: int, seed: int) -> Protocol:
        data = self.reference
        height, width = data.image_size
        return Protocol(
            reference=data.name,
            reference_digest=data.digest,
            n_real=data.count,
            n_fake=count,
            first_seed=seed,
            features=self.features,
            features_digest=self.extractor.digest,
            resize=self.extractor.resize,
            pictures=f"{width}x{height}x{data.channels}",
        )


def _renumbered(labels: list[int] | None, classes: tuple[str, ...] | None, wanted: tuple[str, ...]) -> list[int] | None:
    """Labels as the reference numbers them: by name. None where it has no such class."""
    if labels is None or classes is None or classes == wanted:
        return labels
    if not set(classes) <= set(wanted):
        return None
    return [wanted.index(classes[label]) for label in labels]


def check_labels(settings: Evaluation, reference: ImageSet, generator: PictureGenerator) -> None:
    """Raise :class:`RequestError` for a metric of labels where there are none, before pictures are made."""
    wanting = [name for name in settings.metrics if name.partition("(")[0] == "class_kid"]
    without = [] if reference.labels is not None else [f"reference {reference.name}"]
    without += [] if generator.classes else ["generator"]
    if wanting and without:
        raise RequestError(f"evaluate.metrics: {wanting[0]} needs labels; the {' and the '.join(without)} has none")


def check(settings: Evaluation) -> None:
    """Raise :class:`RequestError` for what could not be measured, before any work."""
    if not settings.metrics:
        raise RequestError(f"evaluate.metrics: none is not allowed; allowed: {', '.join(metrics)}")
    for name in settings.metrics:
        metrics.check(name, field="evaluate.metrics")
    features.check(settings.features, field="evaluate.features")
